//! Why a pool refused: a request, its own making, or something that was given back to the wrong one.
//!
//! A [`RequestError`] is made where requests are refused, which may happen a million times a second: it allocates nothing, and is
//! `Copy`.

use std::fmt;
use std::panic::Location;

use crate::admission::banker::ClaimError;
use crate::admission::breaker::report::BreakerOpen;
use crate::admission::breaker::rules::RuleError;
use crate::admission::tenants::{QuotaError, Tenant, Unit};
use crate::error::{AllocateError, BuildError, HandleError};
use crate::machine::affinity::PinError;
use crate::resource::backing::MemoryError;
use crate::resource::cpu::CpuError;
use crate::resource::memory::NoMemory;
use crate::resource::scratch::DiskError;
use crate::slot::handle::Handle;

/// Why a [`Pool`](crate::Pool) has not given what was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The tier refused: it has no slot free, nobody gave one back in time, its queue is full, or it is closed.
    #[error(transparent)]
    Tier(#[from] AllocateError),
    /// More bytes than the largest memory tier has in a slot.
    #[error(
        "{wanted} bytes are more than any memory tier has: the largest is {tier:?} with {largest}; request less, add a larger tier, \
         or spill to the system"
    )]
    TooLarge {
        /// Bytes requested.
        wanted: usize,
        /// Bytes of a slot of the largest tier.
        largest: usize,
        /// That tier's name.
        tier: &'static str,
    },
    /// Memory was requested of a pool without memory tiers.
    #[error("the pool has no memory tier; give its builder one with `memory(name, bytes, slots)`")]
    NoMemoryTier,
    /// More bytes than the largest disk tier has in an extent.
    #[error(
        "{wanted} bytes on disk are more than any disk tier has in an extent: the largest is {tier:?} with {largest}; request less, or add \
         a tier with larger ones"
    )]
    ExtentTooLarge {
        /// Bytes requested.
        wanted: u64,
        /// Bytes of an extent of the largest tier.
        largest: u64,
        /// That tier's name.
        tier: &'static str,
    },
    /// Disk space was requested of a pool without disk tiers.
    #[error("the pool has no disk tier; give its builder one with `disk(name, dir, bytes, extents)`")]
    NoDiskTier,
    /// A core was requested of a pool without CPU tiers.
    #[error("the pool has no CPU tier; give its builder one with `cpu(name)`")]
    NoCpuTier,
    /// The calling thread cannot be pinned to the core that the tier gave. It has gone back.
    #[error("tier {tier:?}: {source}")]
    NotPinned {
        /// The tier's name.
        tier: &'static str,
        /// Why not.
        source: PinError,
    },
    /// What the last tenant left in an extent cannot be zeroed, so that no other may have it. It has gone back.
    #[error(
        "tier {tier:?}: what another tenant has left in an extent could not be zeroed: {}; see whether its file system is in order",
        std::io::Error::from_raw_os_error(*.os_error)
    )]
    NotZeroed {
        /// The tier's name.
        tier: &'static str,
        /// What the system said, by its number.
        os_error: i32,
    },
    /// The pool has no tier of that name.
    #[error("the pool has no tier {name:?}; `monitor()` names those it has")]
    NoTier {
        /// The name.
        name: ShortName,
    },
    /// The tier holds another kind of value than the request wants.
    #[error("tier {tier:?} holds values of type {is}, not {wanted}; request one with `Request::of::<{is}>({tier:?})`")]
    OtherKind {
        /// The tier's name.
        tier: &'static str,
        /// The type that was requested.
        wanted: &'static str,
        /// The type that the tier holds.
        is: &'static str,
    },
    /// The pool has no tenant of that name.
    #[error("the pool has no tenant {name:?}; name it to the builder with `tenant({name:?})`")]
    NoTenant {
        /// The name.
        name: ShortName,
    },
    /// The tenant is none of this pool's; it was found in another.
    #[error("the pool has no tenant with number {}: it was found in another pool", tenant.number())]
    ForeignTenant {
        /// The tenant.
        tenant: Tenant,
    },
    /// The request may spill to the system allocator, but the pool has no overflow.
    #[error(
        "the request may spill to the system, but the pool has no overflow; give its builder one with `overflow(slots)`"
    )]
    NoOverflow,
    /// The tenant, or one whose limits it shares, has reached its quota.
    #[error(
        "tenant {tenant:?} holds {held} {unit} of the {limit} that its {} limit allows; it has to give some back first",
        if *.soft { "soft" } else { "hard" }
    )]
    Quota {
        /// Whose limit it is.
        tenant: ShortName,
        /// What is limited.
        unit: Unit,
        /// The limit.
        limit: u64,
        /// What it and its children held at that moment.
        held: u64,
        /// Whether it is the soft limit, which counts while others want what is theirs.
        soft: bool,
    },
    /// The tier's circuit breaker lets nothing pass.
    #[error("tier {tier:?}: {why}")]
    Open {
        /// The tier's name.
        tier: &'static str,
        /// What the breaker does, and until when.
        why: BreakerOpen,
    },
    /// A [`Session`](crate::Session) would wait for a tier while it holds a slot of the same or a later one, and others may do so the other
    /// way round. It has not waited.
    #[error(
        "waiting for tier {wanted:?} at {wanted_at} while holding a slot of tier {held:?}, taken at {held_at}, is against the order of \
         tiers and could deadlock: take them in that order, both at once as a group, or claim what the session needs beforehand"
    )]
    Order {
        /// The latest tier of which the session holds a slot.
        held: &'static str,
        /// Where it took that slot.
        held_at: &'static Location<'static>,
        /// The tier that it would wait for.
        wanted: &'static str,
        /// Where it would wait.
        wanted_at: &'static Location<'static>,
    },
    /// A [`Session`](crate::Session)'s claim cannot be met, or it asks for more than it has claimed.
    #[error("claim on tier {tier:?}: {why}")]
    Claim {
        /// The tier's name, if it is about one.
        tier: &'static str,
        /// What is wrong.
        why: ClaimError,
    },
    /// A [`Session`](crate::Session) can claim only once, and before it holds anything.
    #[error("the session has claimed already, or holds slots: claim once, before the first allocation")]
    LateClaim,
    /// If the session were given a slot now, there would be no order left in which all sessions could get what they have claimed.
    #[error(
        "a slot of tier {tier:?} cannot be given without the risk of a deadlock among the sessions with claims; wait, or try again"
    )]
    Unsafe {
        /// The tier's name.
        tier: &'static str,
    },
    /// The system has no memory for a request that spilled to it.
    #[error("spilled to the system: {0}")]
    System(#[from] NoMemory),
    /// A group wants more slots of one tier than it can ever have.
    #[error(
        "the group wants {wanted} slots of tier {tier:?}, of which requests of their priority can have {capacity} at most"
    )]
    GroupTooLarge {
        /// The tier's name.
        tier: &'static str,
        /// Slots that the group wants of it.
        wanted: usize,
        /// Slots that it has at most.
        capacity: usize,
    },
    /// The process has no memory for the queue of groups that wait for several slots of a tier.
    #[error("no memory to wait for several slots of tier {tier:?} at once; request them one by one, or try again")]
    NoTurn {
        /// The tier's name.
        tier: &'static str,
    },
    /// All slots of a [`Reservation`](crate::Reservation) have been drawn.
    #[error("all {reserved} slots reserved of tier {tier:?} have been drawn")]
    Spent {
        /// The tier's name.
        tier: &'static str,
        /// Slots that were reserved.
        reserved: usize,
    },
    /// A [`Reservation`](crate::Reservation) was not used up before its deadline.
    #[error(
        "the reservation of {reserved} slots of tier {tier:?} has lapsed: its deadline is over, and the slots went back"
    )]
    Lapsed {
        /// The tier's name.
        tier: &'static str,
        /// Slots that were reserved.
        reserved: usize,
    },
    /// The handle is of no tier of the pool.
    #[error("handle {handle} is of no tier of this pool")]
    ForeignHandle {
        /// The handle.
        handle: Handle,
    },
    /// The handle's tier refused it.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

/// The beginning of a name that was not found: all of it up to 40 bytes. Kept in place, so that a refusal allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortName {
    bytes: [u8; ShortName::MOST],
    len: u8,
    cut: bool,
}

impl ShortName {
    const MOST: usize = 40;

    pub(crate) fn new(name: &str) -> Self {
        let mut len = name.len().min(Self::MOST);
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        let mut bytes = [0; Self::MOST];
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        ShortName { bytes, len: len as u8, cut: len < name.len() }
    }

    /// The beginning.
    pub fn as_str(&self) -> &str {
        // It was cut between characters.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// In quotation marks, escaped; with an ellipsis if it was cut.
impl fmt::Debug for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.as_str(), if self.cut { "…" } else { "" })
    }
}

/// Why a pool could not be built, and where the fault lies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// It would have no tiers.
    #[error(
        "the pool has no tiers; give its builder one with `memory(name, bytes, slots)`, `cpu(name)`, `disk(name, dir, bytes, extents)` or `tier(tier)`"
    )]
    NoTiers,
    /// Two tiers have the same name, and a request could not tell them apart.
    #[error("two tiers of the pool are named {name:?}; rename one")]
    DuplicateTier {
        /// The name.
        name: String,
    },
    /// A memory tier's slots would have no bytes, or more than an address space has.
    #[error("memory tier {tier:?} cannot have slots of {bytes} bytes; give it from 1 to {}", isize::MAX)]
    Bytes {
        /// The tier's name.
        tier: String,
        /// Bytes of a slot.
        bytes: usize,
    },
    /// Two memory tiers have slots of the same size, and a request could not tell which to take.
    #[error(
        "memory tiers {tier:?} and {other:?} both have slots of {bytes} bytes; make one of them larger, or one tier of both"
    )]
    SameSize {
        /// The first tier's name.
        tier: String,
        /// The other's.
        other: String,
        /// Bytes of a slot.
        bytes: usize,
    },
    /// What was said of the pages of a memory tier is out of range, or does not go together.
    #[error("memory tier {tier:?}: {problem}")]
    Backing {
        /// The tier's name.
        tier: String,
        /// What is wrong, and what is possible.
        problem: &'static str,
    },
    /// A memory tier's buffers could not be had as they are wanted.
    #[error("memory tier {tier:?}: {source}")]
    Memory {
        /// The tier's name.
        tier: String,
        /// What was wanted, what stands against it, and what can be done.
        source: MemoryError,
    },
    /// Requests are to spill to the system allocator, but how many at a time was not said.
    #[error(
        "requests are to spill to the system, but the pool has no overflow; say how many may at a time with `overflow(slots)`"
    )]
    NoOverflow,
    /// Memory tiers are needed for the pool to spill, and there are none.
    #[error(
        "the pool has a rule for memory that spills over, but no memory tier; add one with `memory(name, bytes, slots)`"
    )]
    NothingSpills,
    /// The tenants' limits contradict each other or the pool.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// A tier cannot keep so many slots back.
    #[error("watermarks of tier {tier:?} ({} slots): {problem}", .capacity)]
    Watermarks {
        /// The tier's name.
        tier: String,
        /// Slots that it has.
        capacity: usize,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// The rules of a circuit breaker are none.
    #[error("circuit breaker of tier {tier:?}: {source}")]
    Breaker {
        /// The tier's name.
        tier: String,
        /// What is wrong with them.
        source: RuleError,
    },
    /// Something was said of a tier that the pool does not have.
    #[error("the pool has no tier {name:?}, of which {what} were given; name one of its tiers")]
    UnknownTier {
        /// The name.
        name: String,
        /// What was said of it.
        what: &'static str,
    },
    /// A tier is to count on whose account its slots are held for two pools. It does so for one as long as it lives.
    #[error("tier {tier:?} is or was in another pool with tenants; only one pool can count what tenants hold of it")]
    Governed {
        /// The tier's name.
        tier: &'static str,
    },
    /// Who waits would be passed for ever, or never.
    #[error("an ageing time of {ageing:?} is too short: priorities would mean nothing; give it 10 ms at least")]
    Ageing {
        /// The time as given.
        ageing: std::time::Duration,
    },
    /// A tenant's name is not fit for logs and metrics.
    #[error("tenant name {name:?} {problem}")]
    TenantName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A CPU tier cannot have the cores that it should.
    #[error("CPU tier {tier:?}: {source}")]
    Cpu {
        /// The tier's name.
        tier: String,
        /// Why not.
        source: CpuError,
    },
    /// A disk tier cannot have its scratch file.
    #[error("disk tier {tier:?}: {source}")]
    Disk {
        /// The tier's name.
        tier: String,
        /// Why not.
        source: DiskError,
    },
    /// A tier could not be built.
    #[error(transparent)]
    Tier(#[from] BuildError),
    /// The same, of what stands at a line of a configuration file (feature `config`).
    #[error("line {line}: {source}")]
    At {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        source: Box<PoolError>,
    },
    /// The configuration file cannot be read (feature `config`): its syntax, an unknown name, or a value out of range.
    #[error("line {line}: {problem}")]
    Config {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there, and what is possible.
        problem: String,
    },
}

/// Something was given back to a pool that it is not of. It is in here.
#[derive(thiserror::Error)]
#[error(
    "a lease of tier {tier:?} was released into a pool without that tier; the error holds it: release it where it came from, or drop it"
)]
#[non_exhaustive]
pub struct ReleaseError<L> {
    /// What was to be released; still held.
    pub lease: L,
    /// The name of its tier.
    pub tier: &'static str,
}

impl<L> fmt::Debug for ReleaseError<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleaseError").field("tier", &self.tier).finish_non_exhaustive()
    }
}
