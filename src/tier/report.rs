//! Looking at a tier without stopping anybody: how many slots are in which state, and who holds them.
//!
//! Each word is read once, so the numbers of a busy tier are of slightly different moments; at a quiet point they are
//! exact, and add up to the capacity.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::core::{Core, flags};
use super::magazine::Magazine;
use super::reclaim::Reclaimed;
use super::segments::Segments;
use super::{account, leaks};
use crate::clock::{self, Tick};
use crate::slot::handle::Handle;
use crate::slot::priority::Priority;
use crate::slot::word::State;
use crate::sync::Ordering;

/// Counts since a tier was built, or since its control block was made.
#[derive(Clone, Copy)]
pub(crate) struct Totals {
    pub(super) hits: u64,
    pub(super) allocations: u64,
    pub(super) releases: u64,
    pub(super) refusals: u64,
    pub(super) refills: u64,
    pub(super) steals: u64,
    pub(super) spills: u64,
}

impl Totals {
    pub(crate) const ZERO: Totals =
        Totals { hits: 0, allocations: 0, releases: 0, refusals: 0, refills: 0, steals: 0, spills: 0 };

    /// Everything that the control block has counted in its life.
    pub(crate) fn of(core: &Core) -> Totals {
        let unserved = &core.unserved;
        let start = Totals {
            allocations: unserved.allocations.load(Ordering::Relaxed),
            releases: unserved.releases.load(Ordering::Relaxed),
            refusals: unserved.refusals.load(Ordering::Relaxed),
            ..Totals::ZERO
        };
        core.magazines().iter().map(Magazine::totals).fold(start, |sum, more| sum.with(more, u64::wrapping_add))
    }

    /// Allocations that were served.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations
    }

    /// What was counted since `base`; a busy tier may be caught between two counters.
    fn since(self, base: Totals) -> Totals {
        self.with(base, |now, base| (now.wrapping_sub(base) as i64).max(0) as u64)
    }

    /// Each count, put together with the same of another.
    fn with(self, other: Totals, by: impl Fn(u64, u64) -> u64) -> Totals {
        Totals {
            hits: by(self.hits, other.hits),
            allocations: by(self.allocations, other.allocations),
            releases: by(self.releases, other.releases),
            refusals: by(self.refusals, other.refusals),
            refills: by(self.refills, other.refills),
            steals: by(self.steals, other.steals),
            spills: by(self.spills, other.spills),
        }
    }
}

/// How a tier stands: [`Tier::snapshot`](crate::Tier::snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The tier's name.
    pub tier: &'static str,
    /// Slots that the tier has at most; the next eleven numbers add up to it.
    pub capacity: usize,
    /// Slots that an allocation may have.
    pub free: usize,
    /// Slots in the reserve, which only urgent requests of a [`Pool`](crate::Pool) may have.
    pub reserved: usize,
    /// Slots held by a lease.
    pub leased: usize,
    /// Slots held by a handle.
    pub detached: usize,
    /// Slots held by a shared handle, or by [`SharedLease`](crate::SharedLease)s.
    pub shared: usize,
    /// Shared slots that were retired, and wait for the pins under which they may still be read.
    pub retired: usize,
    /// Released slots that have to be cleaned before their next use.
    pub dirty: usize,
    /// Slots that are being cleaned, built or examined at this moment.
    pub maintenance: usize,
    /// Slots that change hands at this moment.
    pub claimed: usize,
    /// Slots without a value, because the factory has not yet replaced it.
    pub quarantined: usize,
    /// Slots without a value: not yet built, removed again, or dropped since the tier was closed.
    pub absent: usize,
    /// Threads and futures that wait for a slot.
    pub waiting: usize,
    /// Slots handed out since the tier was built.
    pub allocations: u64,
    /// Allocations served by a hint at hand in the thread's magazine, without depot or search.
    pub hits: u64,
    /// Slots given back by leases since the tier was built.
    pub releases: u64,
    /// Allocations refused since the tier was built.
    pub refusals: u64,
    /// Times that an empty magazine was filled from the tier's depot.
    pub refills: u64,
    /// Times that one was filled with hints from other threads' magazines, since the depot had none.
    pub steals: u64,
    /// Times that a magazine gave a batch of hints to the depot: it was full, or its thread exited.
    pub spills: u64,
    /// Times that a slot went out of service since the tier was built, because its value was gone and the factory made no other.
    pub quarantines: u64,
    /// The most slots that were seen in use at once since the tier was built: by looks like this one, which count those that are held,
    /// and by refusals, at which no slot was free, so that all were in use but those kept back or out of service. More may have been in
    /// use while nobody looked and nobody was refused.
    pub high_water: usize,
    /// What the reclaimer's passes have done since the tier was built.
    pub reclaimed: Reclaimed,
    /// Magazines that threads and [`Local`](crate::Local)s own at present; among them those of living threads that used a
    /// former tier whose control block this one has taken over.
    pub magazines: usize,
    /// Whether the tier is known to have been out of free slots lately, so that releases are counted exactly.
    pub scarce: bool,
    /// Whether the tier is closed.
    pub closed: bool,
}

impl Snapshot {
    /// The share of allocations that a hint at hand served, from 0 to 1; 1 if there were none.
    pub fn hit_rate(&self) -> f64 {
        if self.allocations == 0 { 1.0 } else { self.hits as f64 / self.allocations as f64 }
    }

    /// Slots that the tier has at present.
    pub fn slots(&self) -> usize {
        self.capacity - self.absent
    }

    /// Slots that somebody has: leased, detached, shared, or about to be.
    pub fn held(&self) -> usize {
        self.leased + self.detached + self.shared + self.claimed
    }

    /// The share of slots that somebody holds, from 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.held() as f64 / self.slots().max(1) as f64
    }
}

/// Who holds a slot: [`Tier::holders`](crate::Tier::holders).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name of the slot's tier.
    pub tier: &'static str,
    /// The slot's number in it, from 0.
    pub slot: u32,
    /// The slot's name at present; of a leased slot it cannot be attached.
    pub handle: Handle,
    /// Leased, detached or shared.
    pub state: State,
    /// How long ago it was allocated, by the coarse clock: never too small, and too large by no more than the clock
    /// stood still before the allocation. See [`clock`].
    pub age: Duration,
    /// The line that allocated it.
    pub site: Option<&'static Location<'static>>,
    /// On whose account, if its pool keeps accounts.
    pub tenant: Option<String>,
    /// What it is for, if the request said so: [`Request::tag`](crate::Request::tag).
    pub tag: Option<&'static str>,
    /// How urgent it was: `Normal`, if it was not allocated by way of a pool.
    pub priority: Priority,
    /// The number of the thread that allocated it; 0 if it had none, being about to exit.
    pub thread: u32,
    /// That thread's name, while it lives and if it has one.
    pub thread_name: Option<String>,
}

/// What a slot is for, on whose behalf and how urgently, as far as there is something to say.
pub(crate) fn write_purpose(
    f: &mut fmt::Formatter<'_>,
    tag: Option<&str>,
    tenant: Option<&str>,
    priority: Priority,
) -> fmt::Result {
    if let Some(tag) = tag {
        write!(f, " for {tag:?}")?;
    }
    if let Some(tenant) = tenant {
        write!(f, " on behalf of {tenant:?}")?;
    }
    if priority == Priority::default() { Ok(()) } else { write!(f, " at priority {priority:?}") }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for {:.2?}", self.handle, self.state, self.age)?;
        if let Some(site) = self.site {
            write!(f, ", allocated at {site}")?;
        }
        write_purpose(f, self.tag, self.tenant.as_deref(), self.priority)?;
        match &self.thread_name {
            Some(name) => write!(f, " by thread {name:?}"),
            None => write!(f, " by thread {}", self.thread),
        }
    }
}

/// Counts the states and sums the counters; one pass over the headers.
pub(crate) fn snapshot(core: &Core) -> Snapshot {
    let mut states = [0usize; State::ALL.len()];
    for header in core.headers() {
        states[header.word().state() as usize] += 1;
    }
    let totals = Totals::of(core).since(core.incarnation().base);
    let now = core.flags.load(Ordering::Relaxed);
    let count = |state: State| states[state as usize];
    let mut snapshot = Snapshot {
        tier: core.incarnation().name,
        capacity: core.incarnation().capacity,
        free: count(State::Free) + count(State::Counted),
        reserved: count(State::Reserved),
        leased: count(State::Leased),
        detached: count(State::Detached),
        shared: count(State::Shared) + count(State::SharedLease),
        retired: count(State::Retired),
        dirty: count(State::Dirty),
        maintenance: count(State::Maintenance),
        claimed: count(State::Claimed),
        quarantined: count(State::Quarantined),
        absent: count(State::Absent),
        waiting: core.waiting.len(),
        allocations: totals.allocations,
        hits: totals.hits,
        releases: totals.releases,
        refusals: totals.refusals,
        refills: totals.refills,
        steals: totals.steals,
        spills: totals.spills,
        quarantines: core.quarantines.load(Ordering::Relaxed),
        high_water: 0,
        reclaimed: core.reclaimed.sum(),
        magazines: core.magazines().iter().filter(|magazine| magazine.is_owned()).count(),
        scarce: now & flags::SCARCE != 0,
        closed: now & flags::CLOSED != 0,
    };
    snapshot.high_water = core.high_water.raise(snapshot.held());
    snapshot
}

/// Everybody who holds a slot, in the order of the slots. One that changes hands too fast to be read is left out.
pub(crate) fn holders(core: &Core) -> Vec<Holder> {
    clock::tick();
    (0..core.headers().len() as u32).filter_map(|index| holder(core, index)).map(|(holder, _)| holder).collect()
}

/// Who holds a slot, if somebody does, and since which tick.
pub(crate) fn holder(core: &Core, index: u32) -> Option<(Holder, Tick)> {
    let record = core.header(index).read()?;
    let holder = || Holder {
        tier: core.incarnation().name,
        slot: index,
        handle: Handle::new(core.id, index, record.word.generation()),
        state: record.word.state(),
        age: clock::age(record.tick),
        site: record.site,
        tenant: account::name(core, record.account),
        tag: record.mark.tag().text(),
        priority: record.mark.priority(),
        thread: record.thread,
        thread_name: crate::thread::name(record.thread),
    };
    record.word.state().is_held().then(|| (holder(), record.tick))
}

/// Bytes that the tier uses beside its payload: headers of its slots, magazines in use, nodes of its depot, links of its chains,
/// what it notes of idle slots and of those that are held.
pub(crate) fn overhead_bytes(core: &Core) -> usize {
    let life = core.life();
    let chained = core.flags.load(Ordering::Relaxed) & flags::DEFERS != 0;
    let links = if chained { size_of_val(core.links) } else { 0 };
    let idle = life.idle.as_ref().map_or(0, |idle| size_of_val(&*idle.seen));
    let segments = life.segments.as_ref().map_or(0, Segments::bytes);
    size_of::<Core>()
        + size_of_val(core.headers())
        + size_of_val(core.magazines())
        + core.depot.bytes()
        + links
        + idle
        + leaks::bytes(core)
        + segments
}
