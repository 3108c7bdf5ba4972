//! Waits: what is counted of them, by tier and priority and by tenant, and what they mean to others while they last.
//!
//! Nothing is counted of requests that need not wait. Who does adds to three or four counters at the end of a wait, which costs
//! microseconds.

use std::time::{Duration, Instant};

use super::Pool;
use super::keepers::{self, Wanting};
use super::prepared::Plan;
use super::rows::Row;
use crate::admission::priority::ByPriority;
use crate::sync::{AtomicU64, Ordering};

/// Waits that have ended, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Waits {
    /// With a slot.
    pub served: u64,
    /// Without: patience was over, too many waited, or the tier was closed.
    pub in_vain: u64,
    /// Nobody waits any more: the future was dropped.
    pub given_up: u64,
    /// How long those took that were served, all together.
    pub served_after: Duration,
    /// The longest, however it ended.
    pub longest: Duration,
}

impl Waits {
    /// How many.
    pub fn all(&self) -> u64 {
        self.served + self.in_vain + self.given_up
    }

    /// How long those took that were served, on average; zero if there were none.
    pub fn average(&self) -> Duration {
        let average = self.served_after.as_nanos() / u128::from(self.served.max(1));
        Duration::from_nanos(u64::try_from(average).unwrap_or(u64::MAX))
    }

    /// With those of others.
    fn and(self, other: Waits) -> Waits {
        Waits {
            served: self.served + other.served,
            in_vain: self.in_vain + other.in_vain,
            given_up: self.given_up + other.given_up,
            served_after: self.served_after + other.served_after,
            longest: self.longest.max(other.longest),
        }
    }
}

/// How a wait ends.
#[derive(Clone, Copy)]
enum End {
    Served,
    InVain,
    GivenUp,
}

/// Counts waits as they end. Relaxed throughout: numbers for people, exact at a quiet point.
#[derive(Default)]
pub(super) struct Tally {
    ends: [AtomicU64; 3],
    served_after: AtomicU64,
    longest: AtomicU64,
}

impl Tally {
    fn count(&self, end: End, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
        if let End::Served = end {
            self.served_after.fetch_add(nanoseconds, Ordering::Relaxed);
        }
        self.longest.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) -> Waits {
        let [served, in_vain, given_up] =
            [End::Served, End::InVain, End::GivenUp].map(|end| self.ends[end as usize].load(Ordering::Relaxed));
        let time = |of: &AtomicU64| Duration::from_nanos(of.load(Ordering::Relaxed));
        Waits { served, in_vain, given_up, served_after: time(&self.served_after), longest: time(&self.longest) }
    }
}

impl ByPriority<Waits> {
    /// Those of all.
    pub fn all(&self) -> Waits {
        self.iter().fold(Waits::default(), |sum, (_, &waits)| sum.and(waits))
    }
}

/// A wait. While it lasts others do not exceed their soft limits, if the waiter is within his, and nobody keeps what he does not use.
/// Dropped, it was given up.
pub(super) struct Waiting<'p> {
    pool: &'p Pool,
    row: &'p Row,
    plan: Plan,
    since: Instant,
    wants: bool,
    _wanting: Option<Wanting>,
    end: End,
}

impl<'p> Waiting<'p> {
    pub(super) fn begin(pool: &'p Pool, row: &'p Row, plan: &Plan) -> Self {
        let wants = row.books.as_ref().is_some_and(|books| books.keeps_wanting(row.tier.core(), plan.tenant()));
        let core = row.tier.core();
        let wanting = row.is_kept().then(|| Wanting::begin(core.id, core.fence));
        if wanting.is_some() {
            keepers::give_up_one(core.id);
        }
        Waiting { pool, row, plan: *plan, since: Instant::now(), wants, _wanting: wanting, end: End::GivenUp }
    }

    /// It has ended, with a slot or without. How long it took.
    pub(super) fn end(mut self, served: bool) -> Duration {
        self.end = if served { End::Served } else { End::InVain };
        self.since.elapsed()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let class = self.plan.label.class();
        self.row.counts.waits.of_class(class).count(self.end, took);
        let latency = self.row.counts.wait_latency.of_class(class);
        latency.prepare();
        latency.record(took, 1);
        self.pool.inner.waits[self.plan.tenant().index()].count(self.end, took);
        if let Some(books) = self.row.books.as_ref().filter(|_| self.wants) {
            books.wants_no_more();
        }
    }
}
