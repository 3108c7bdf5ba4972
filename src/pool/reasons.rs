//! Why requests were refused, counted by kind: each request once, where its caller is told.
//!
//! A refusal that is not the end of its request is none here: the request was served by what it spilled over to, or went on to wait.

use std::fmt;
use std::ops::Index;

use super::error::RequestError;
use crate::error::AllocateError;
use crate::sync::{AtomicU64, Ordering};

/// Kinds of refusals: what has to change for the request to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// No slot was free, and the request did not wait.
    Exhausted,
    /// What was left is kept back for more urgent requests.
    Reserved,
    /// As many waited already as the tier allows.
    QueueFull,
    /// Nobody gave a slot back in time.
    TimedOut,
    /// The tier is closed.
    Closed,
    /// The tenant, or one whose limits it shares, has reached its quota.
    Quota,
    /// The tier's circuit breaker lets nothing pass.
    Breaker,
    /// A session's order of tiers or claim is against it.
    Deadlock,
    /// A group can never have so many slots of the tier, or there was no memory to wait for them.
    Group,
    /// The slot was there, but its use could not begin: no memory, a thread that cannot be pinned, bytes that cannot be zeroed.
    Unfit,
}

impl RefusalReason {
    /// All of them.
    pub const ALL: [RefusalReason; 10] = {
        use RefusalReason::*;
        [Exhausted, Reserved, QueueFull, TimedOut, Closed, Quota, Breaker, Deadlock, Group, Unfit]
    };

    /// Its name in metrics: lower case, words joined by underlines.
    pub fn name(self) -> &'static str {
        match self {
            RefusalReason::Exhausted => "exhausted",
            RefusalReason::Reserved => "reserved",
            RefusalReason::QueueFull => "queue_full",
            RefusalReason::TimedOut => "timed_out",
            RefusalReason::Closed => "closed",
            RefusalReason::Quota => "quota",
            RefusalReason::Breaker => "breaker",
            RefusalReason::Deadlock => "deadlock",
            RefusalReason::Group => "group",
            RefusalReason::Unfit => "unfit",
        }
    }

    /// That of an error, if a tier has refused with it; the others say that the pool could never have served the request.
    pub(super) fn of(why: &RequestError) -> Option<Self> {
        Some(match why {
            RequestError::Tier(AllocateError::Exhausted(why)) if why.reserved > 0 => RefusalReason::Reserved,
            RequestError::Tier(AllocateError::Exhausted(_)) => RefusalReason::Exhausted,
            RequestError::Tier(AllocateError::QueueFull { .. }) => RefusalReason::QueueFull,
            RequestError::Tier(AllocateError::TimedOut { .. }) => RefusalReason::TimedOut,
            RequestError::Tier(AllocateError::Closed { .. }) => RefusalReason::Closed,
            RequestError::Quota { .. } => RefusalReason::Quota,
            RequestError::Open { .. } => RefusalReason::Breaker,
            RequestError::Order { .. } | RequestError::Claim { .. } | RequestError::Unsafe { .. } => {
                RefusalReason::Deadlock
            }
            RequestError::GroupTooLarge { .. } | RequestError::NoTurn { .. } => RefusalReason::Group,
            RequestError::System(_) | RequestError::NotPinned { .. } | RequestError::NotZeroed { .. } => {
                RefusalReason::Unfit
            }
            RequestError::TooLarge { .. }
            | RequestError::NoMemoryTier
            | RequestError::ExtentTooLarge { .. }
            | RequestError::NoDiskTier
            | RequestError::NoCpuTier
            | RequestError::NoTier { .. }
            | RequestError::OtherKind { .. }
            | RequestError::NoTenant { .. }
            | RequestError::ForeignTenant { .. }
            | RequestError::NoOverflow
            | RequestError::LateClaim
            | RequestError::Spent { .. }
            | RequestError::Lapsed { .. }
            | RequestError::ForeignHandle { .. }
            | RequestError::Handle(_) => return None,
        })
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many requests were refused, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals([u64; RefusalReason::ALL.len()]);

impl Refusals {
    /// Each reason, in the order of [`RefusalReason::ALL`], with its number.
    pub fn iter(&self) -> impl Iterator<Item = (RefusalReason, u64)> + '_ {
        RefusalReason::ALL.into_iter().zip(self.0)
    }

    /// All together.
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// With those of others.
    pub(super) fn and(&self, other: &Refusals) -> Refusals {
        Refusals(std::array::from_fn(|reason| self.0[reason] + other.0[reason]))
    }

    /// Those that were not there at an earlier look.
    pub(super) fn since(&self, earlier: &Refusals) -> Refusals {
        Refusals(std::array::from_fn(|reason| self.0[reason].saturating_sub(earlier.0[reason])))
    }
}

impl Index<RefusalReason> for Refusals {
    type Output = u64;

    fn index(&self, reason: RefusalReason) -> &u64 {
        &self.0[reason as usize]
    }
}

/// As a map, of those that there were.
impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}

/// Counts them. Relaxed throughout: numbers for people, exact at a quiet point.
#[derive(Default)]
pub(super) struct RefusalCounts([AtomicU64; RefusalReason::ALL.len()]);

impl RefusalCounts {
    pub(super) fn count(&self, reason: RefusalReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refusals(&self) -> Refusals {
        Refusals(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}
