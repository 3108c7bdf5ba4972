//! The control block of a tier: what every operation finds through one pointer.
//!
//! A control block is type-stable. It is made once, with headers, magazines and depot nodes for a power of two of
//! slots, and lives as long as the process; when the last value of a tier is gone it goes back to the
//! [`registry`](super::registry), and the next tier of that size takes it over, its generations going on. That is what
//! makes a lease `'static` without a counter, and a late reader harmless: it finds a control block, and its
//! generation is over.
//!
//! Two kinds of fields. The permanent ones belong to the block. The [`Incarnation`] is the tier that lives in it at
//! present: written by its builder while nobody can hold a slot, read by whoever holds a slot or a [`Tier`](super::Tier).

use std::cell::UnsafeCell;

use crossbeam_utils::CachePadded;

use super::allocate::Taken;
use super::backoff::Backoff;
use super::chain::{Chain, Link};
use super::depot::Depot;
use super::latency::Recorder;
use super::life::Life;
use super::magazine::{MAX_MAGAZINES, Magazine};
use super::pass::Pass;
use super::pin::Blocker;
use super::queue::{Rules, Waiting};
use super::reclaim::{Ledger, Reclaimed};
use super::report::Totals;
use super::reserve::Reserve;
use super::uses::Shelf;
use super::values::{NoValue, Panic, rethrow};
use super::wait;
use crate::slot::header::{Header, Site};
use crate::sync::arena::zeroed_slice;
use crate::sync::atomic::fence;
use crate::sync::fence::Fence;
use crate::sync::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The bits of [`Core::flags`]. Above [`EPOCH`](flags::EPOCH) is a count of how often scarcity has ended.
pub(crate) mod flags {
    /// The tier hands out nothing any more, and a slot that comes back is dropped.
    pub(crate) const CLOSED: u64 = 1;
    /// The last `Tier` is gone too: nobody can attach a handle any more.
    pub(crate) const ORPHANED: u64 = 1 << 1;
    /// A release announces itself in the exact count before the slot becomes free.
    pub(crate) const SCARCE: u64 = 1 << 2;
    /// Since some moment in this scarcity, every free slot has been in the exact count.
    pub(crate) const CERTIFIED: u64 = 1 << 3;
    /// Values are reset or examined when they are released.
    pub(crate) const PREPARES: u64 = 1 << 4;
    /// A lease remembers whether it was made during a panic, to tell whether one came over its value.
    pub(crate) const WATCHES_PANICS: u64 = 1 << 5;
    /// Somebody waits for a slot: a release hands its slot over.
    pub(crate) const WAITERS: u64 = 1 << 6;
    /// Values are cleaned after they were released, by the reclaimer or by an allocation that helps it.
    pub(crate) const DEFERS: u64 = 1 << 7;
    /// A value is examined before it is handed out.
    pub(crate) const VALIDATES: u64 = 1 << 8;
    /// The background reclaimer looks after the tier.
    pub(crate) const BACKGROUND: u64 = 1 << 9;
    /// The tier may have fewer slots than its capacity.
    pub(crate) const GROWS: u64 = 1 << 10;
    /// Some slot was quarantined or retired since the tier was built.
    pub(crate) const MENDS: u64 = 1 << 11;
    /// Threads that wait look around now and then.
    pub(crate) const LOOKS: u64 = 1 << 12;
    /// The tier has had a reserve.
    pub(crate) const RESERVES: u64 = 1 << 13;
    /// Releases are to refill it.
    pub(crate) const REFILLS: u64 = 1 << 14;
    /// Slots may be held on account.
    pub(crate) const GOVERNED: u64 = 1 << 15;
    /// An allocation that finds nothing free may be able to make a slot fit for use.
    pub(crate) const HELPED: u64 = DEFERS | GROWS | MENDS;
    /// Each released value needs a look of its own.
    pub(crate) const ONE_BY_ONE: u64 = PREPARES | WATCHES_PANICS | DEFERS;
    /// One end of scarcity.
    pub(crate) const EPOCH: u64 = 1 << 16;
}

/// The tier that lives in a control block.
pub(crate) struct Incarnation {
    pub(crate) name: &'static str,
    pub(crate) capacity: usize,
    /// The first payload; a `*mut T`.
    pub(crate) payload: *mut u8,
    /// Factory and reset; a `*mut Values<T>`.
    pub(crate) values: *mut (),
    /// What the tier was told about its life.
    pub(crate) life: *const Life,
    /// Makes a value for a vacant slot that the caller holds: `Payload::build` for the tier's type.
    pub(crate) build: unsafe fn(&Core, u32) -> Result<(), NoValue>,
    /// Cleans a value that the caller holds: `clean::clean` for the tier's type.
    pub(crate) clean: unsafe fn(&'static Core, Taken) -> bool,
    /// Frees what was retired, and keeps one for the caller if that is wanted: `epoch::try_collect` for the tier's type.
    pub(crate) collect: unsafe fn(&'static Core, bool) -> Option<Taken>,
    /// One pass of the reclaimer: `reclaim::pass` for the tier's type.
    pub(crate) pass: unsafe fn(&'static Core, bool) -> Option<Reclaimed>,
    /// Frees `payload`, `values` and `life` when the last value is gone.
    pub(crate) free: unsafe fn(&Incarnation) -> Option<Panic>,
    /// Gives a slot back that the caller holds, its value fit for use: `release::give_back` for the tier's type.
    pub(crate) give_back: unsafe fn(&'static Core, Taken, Option<Site>) -> Result<(), Panic>,
    /// How it lets wait.
    pub(crate) waiting: Rules,
    /// The counters of the block's magazines when this tier began.
    pub(crate) base: Totals,
}

impl Incarnation {
    const NONE: Incarnation = Incarnation {
        name: "",
        capacity: 0,
        payload: std::ptr::null_mut(),
        values: std::ptr::null_mut(),
        life: std::ptr::null(),
        build: |_, _| unreachable!("no tier lives here"),
        clean: |_, _| unreachable!("no tier lives here"),
        collect: |_, _| unreachable!("no tier lives here"),
        pass: |_, _| unreachable!("no tier lives here"),
        free: |_| None,
        give_back: |_, _, _| unreachable!("no tier lives here"),
        waiting: Rules::DEFAULT,
        base: Totals::ZERO,
    };
}

/// See the module's header.
#[repr(C)]
pub(crate) struct Core {
    /// See [`flags`]. Changes rarely: read by every operation, so it shares a line with what never changes.
    pub(crate) flags: AtomicU64,
    /// The epoch of the pins that begin now; see [`epoch`](super::epoch). Changes rarely too.
    pub(crate) epoch: AtomicU64,
    headers: &'static [Header],
    incarnation: UnsafeCell<Incarnation>,
    /// This block's number: the upper half of its handles' names.
    pub(crate) id: u32,
    /// Where a thread's array has its magazine of this block; see [`attach`](super::attach).
    pub(crate) near: u32,
    /// The same, or in a process with the portable fence the element that is always null: then a release needs no look at
    /// the kind of fence on its hot path.
    pub(crate) near_if_membarrier: u32,
    /// The process's pair of fences.
    pub(crate) fence: Fence,
    magazines: &'static [Magazine],
    /// How many of `magazines` have ever been used.
    magazines_used: AtomicUsize,

    pub(crate) depot: Depot,
    /// The links of the three chains: a slot is in one of them at most.
    pub(crate) links: &'static [Link],
    /// Slots that are `Dirty`.
    pub(crate) dirty: Chain,
    /// Slots that are `Retired`, and that no pass has taken on yet.
    pub(crate) retired: Chain,
    /// Those that a pass has taken on.
    pub(crate) limbo: Chain,
    /// What slots were allocated for.
    pub(crate) shelf: &'static Shelf,
    /// Slots for urgent allocations.
    pub(crate) reserve: Reserve,
    /// Who waits for a slot.
    pub(crate) waiting: CachePadded<Waiting>,
    /// At least the number of slots that are `Counted`; see [`scarcity`](super::scarcity).
    pub(crate) count: CachePadded<AtomicI64>,
    /// Slots that are not `Absent`, and one more while a `Tier` exists, in the lower half ([`HELD`]); in the upper half, who has
    /// entered the block ([`ENTERED`]). At zero the incarnation ends.
    pub(crate) live: CachePadded<AtomicU64>,
    /// How many `Tier`s exist.
    pub(crate) tiers: AtomicUsize,
    pub(crate) quarantined: AtomicUsize,
    /// How often a slot became so.
    pub(crate) quarantines: AtomicU64,
    /// The most slots seen in use.
    pub(crate) high_water: HighWater,
    /// When to try again to rebuild them.
    pub(crate) rebuilding: Backoff,
    /// Slots that are `Absent` in an open tier.
    pub(crate) absent: AtomicUsize,
    /// Slots that are not, less those whose value is only being made.
    pub(crate) built: AtomicUsize,
    /// Where the first absent one may be.
    pub(crate) first_absent: AtomicU32,
    /// When to try again to build them.
    pub(crate) growing: Backoff,
    /// Not 0 if an allocation had to build a slot since the last pass.
    pub(crate) wanted: AtomicU32,
    /// The earliest tick at which a handle expires, or an earlier one.
    pub(crate) deadline: AtomicU64,
    /// The tick at which the next pass of the reclaimer is due.
    pub(crate) due: AtomicU64,
    /// Pins of threads that have no magazine.
    pub(crate) unlisted_pins: AtomicU64,
    /// Whose pin was in the way of retired slots when a pass last looked.
    pub(crate) blocker: Blocker,
    /// The reclaimer's passes over the tier.
    pub(crate) pass: Pass,
    /// What passes have done for the tier.
    pub(crate) reclaimed: Ledger,
    /// How long allocations took that did not wait.
    pub(crate) latency: Recorder,
    /// Allocations served and slots given back without a magazine.
    pub(crate) unserved: Unserved,
    /// The line that held the most slots when the tier last ran out, and how many.
    pub(crate) most_held_by: AtomicPtr<std::panic::Location<'static>>,
    pub(crate) most_held: AtomicUsize,
    /// The next block in the registry's list of the retired.
    pub(crate) next_retired: AtomicPtr<Core>,
}

/// One that has entered, in [`Core::live`].
const ENTERED: u64 = 1 << 32;
/// What holds the tier, in [`Core::live`].
pub(crate) const HELD: u64 = ENTERED - 1;

/// Keeps a tier from ending while this lives.
pub(crate) struct Entered(&'static Core);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.count_down(ENTERED);
    }
}

/// The most of something that was seen so far. Relaxed throughout: a number for people.
pub(crate) struct HighWater(AtomicUsize);

impl HighWater {
    /// So many are seen now: the most so far. A load, unless it is more than ever.
    pub(crate) fn raise(&self, seen: usize) -> usize {
        let most = self.0.load(Ordering::Relaxed);
        if seen > most { self.0.fetch_max(seen, Ordering::Relaxed).max(seen) } else { most }
    }

    /// A new tier moves in.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Counts of what no magazine has counted.
pub(crate) struct Unserved {
    pub(crate) allocations: AtomicU64,
    pub(crate) releases: AtomicU64,
    pub(crate) refusals: AtomicU64,
}

// SAFETY: all fields but `incarnation` are atomics, shared references or constants. `incarnation` is written only by
// the builder that holds the block alone (`set_incarnation`), and read only by who holds a slot or a tier of it.
unsafe impl Sync for Core {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Core {}

impl Core {
    /// A block with room for `slots` slots, all `Absent`; `None` if there is no memory.
    pub(crate) fn new(id: u32, slots: usize) -> Option<&'static Core> {
        let (fence, near) = (Fence::chosen(), super::attach::near(id));
        Some(Box::leak(Box::new(Core {
            flags: AtomicU64::new(flags::CLOSED),
            epoch: AtomicU64::new(0),
            headers: zeroed_slice(slots)?,
            incarnation: UnsafeCell::new(Incarnation::NONE),
            id,
            near,
            near_if_membarrier: if fence.is_membarrier() { near } else { super::attach::nowhere() },
            fence,
            magazines: zeroed_slice(MAX_MAGAZINES)?,
            magazines_used: AtomicUsize::new(0),
            depot: Depot::new(slots)?,
            links: zeroed_slice(slots)?,
            dirty: Chain::new(),
            retired: Chain::new(),
            limbo: Chain::new(),
            shelf: zeroed_slice(1)?.first()?,
            reserve: Reserve::new(),
            waiting: CachePadded::new(Waiting::new()),
            count: CachePadded::new(AtomicI64::new(0)),
            live: CachePadded::new(AtomicU64::new(0)),
            tiers: AtomicUsize::new(0),
            quarantined: AtomicUsize::new(0),
            quarantines: AtomicU64::new(0),
            high_water: HighWater(AtomicUsize::new(0)),
            rebuilding: Backoff::new(),
            absent: AtomicUsize::new(0),
            built: AtomicUsize::new(0),
            first_absent: AtomicU32::new(0),
            growing: Backoff::new(),
            wanted: AtomicU32::new(0),
            deadline: AtomicU64::new(u64::MAX),
            due: AtomicU64::new(u64::MAX),
            unlisted_pins: AtomicU64::new(0),
            blocker: Blocker::new(),
            pass: Pass::new(),
            reclaimed: Ledger::new(),
            latency: Recorder::default(),
            unserved: Unserved {
                allocations: AtomicU64::new(0),
                releases: AtomicU64::new(0),
                refusals: AtomicU64::new(0),
            },
            most_held_by: AtomicPtr::new(std::ptr::null_mut()),
            most_held: AtomicUsize::new(0),
            next_retired: AtomicPtr::new(std::ptr::null_mut()),
        })))
    }

    /// The tier that lives here.
    ///
    /// The caller holds a slot of it (a word that it has moved to `Claimed` or `Leased`, or a value not yet counted
    /// out of `live`) or one of its `Tier`s: both keep the incarnation from ending.
    #[inline]
    pub(crate) fn incarnation(&self) -> &Incarnation {
        // SAFETY: it is only written by `set_incarnation`, whose caller has the block alone; by the contract above
        // the reader's slot or tier keeps `live` above zero, so that the block is not retired meanwhile.
        unsafe { &*self.incarnation.get() }
    }

    /// What the tier was told about its life; for the same callers as [`incarnation`](Self::incarnation).
    #[inline]
    pub(crate) fn life(&self) -> &Life {
        // SAFETY: made by the builder with the incarnation, and freed with it.
        unsafe { &*self.incarnation().life }
    }

    /// Says that there are, or will be, slots that an allocation may be able to make fit for use.
    pub(crate) fn note_mends(&'static self) {
        if self.flags.load(Ordering::Relaxed) & flags::MENDS == 0 {
            self.flags.fetch_or(flags::MENDS, Ordering::Relaxed);
            wait::tell_of_need(self);
        }
    }

    /// How many slots of the open tier are not absent.
    pub(crate) fn present(&self) -> usize {
        self.incarnation().capacity.saturating_sub(self.absent.load(Ordering::Relaxed))
    }

    /// Puts a new tier into the block.
    ///
    /// # Safety
    /// The caller has taken the block from the registry and has not yet published any slot or tier of it.
    pub(crate) unsafe fn set_incarnation(&self, incarnation: Incarnation) {
        // SAFETY: by the contract nobody else reads or writes it now.
        unsafe { *self.incarnation.get() = incarnation }
    }

    /// The header of a slot whose index came from a hint, a lease or a loop over the headers.
    #[inline(always)]
    pub(crate) fn header(&self, index: u32) -> &'static Header {
        debug_assert!((index as usize) < self.headers.len());
        // SAFETY: hints and leases are only made from indices of this block's headers, and neither the block nor
        // its headers ever change size or go away.
        unsafe { self.headers.get_unchecked(index as usize) }
    }

    /// The header of a slot whose index came from outside.
    pub(crate) fn header_checked(&self, index: u32) -> Option<&'static Header> {
        self.headers.get(index as usize)
    }

    /// How many slots the block has room for.
    pub(crate) fn slots(&self) -> usize {
        self.headers.len()
    }

    /// The headers of the tier that lives here; see [`incarnation`](Self::incarnation) for who may ask.
    pub(crate) fn headers(&self) -> &'static [Header] {
        &self.headers[..self.incarnation().capacity]
    }

    /// Every magazine that has ever been used here.
    pub(crate) fn magazines(&self) -> &'static [Magazine] {
        // Acquire: pairs with the AcqRel increment in `claim_magazine`.
        let used = self.magazines_used.load(Ordering::Acquire);
        &self.magazines[..used]
    }

    /// The number of one of these.
    #[inline]
    pub(crate) fn number_of(&self, magazine: &Magazine) -> usize {
        (std::ptr::from_ref(magazine).addr() - self.magazines.as_ptr().addr()) / size_of::<Magazine>()
    }

    /// A magazine for the thread `owner`: one that an exited thread left, or a new one. `None` if as many threads as
    /// there are magazines use the tier at once; such a thread goes without.
    #[cold]
    pub(crate) fn claim_magazine(&'static self, owner: u32) -> Option<&'static Magazine> {
        self.latency.prepare();
        if let Some(left) = self.magazines().iter().find(|magazine| magazine.adopt(owner)) {
            return Some(left);
        }
        loop {
            let used = self.magazines_used.load(Ordering::Relaxed);
            let next = self.magazines.get(used)?;
            // AcqRel: pairs with the Acquire in `magazines`, so that whoever walks them sees all that came before.
            // A new magazine is adopted only once it is counted: another thread may be faster, then we go on.
            let counted = self.magazines_used.compare_exchange(used, used + 1, Ordering::AcqRel, Ordering::Relaxed);
            if counted.is_ok() && next.adopt(owner) {
                return Some(next);
            }
        }
    }

    /// One value is gone, or the last `Tier`. When nothing is left, frees the payload and retires the block.
    pub(crate) fn count_out(&'static self) {
        self.count_down(1);
    }

    /// Takes `by` off `live`.
    fn count_down(&'static self, by: u64) {
        // Release: pairs with the Acquire fence below, in whoever is last: every use of payload and values comes
        // before they are freed.
        if self.live.fetch_sub(by, Ordering::Release) == by {
            // Acquire fence: pairs with the Release decrements of all the others.
            fence(Ordering::Acquire);
            let incarnation = self.incarnation();
            // SAFETY: `free` was made for these pointers by the builder; the count was the last, so no value, lease
            // or tier remains that could use them, and only one thread sees the count reach zero.
            let panic = unsafe { (incarnation.free)(incarnation) };
            super::registry::retire(self);
            rethrow(panic);
        }
    }

    /// Enters the block, if a tier lives in it: it does not end before the guard is dropped, which may be what ends it.
    pub(crate) fn enter(&'static self) -> Option<Entered> {
        let mut now = self.live.load(Ordering::Relaxed);
        while now > 0 {
            // Acquire: pairs with the Release with which the builder publishes a tier, and with those of the counts down.
            match self.live.compare_exchange_weak(now, now + ENTERED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Entered(self)),
                Err(other) => now = other,
            }
        }
        None
    }

    /// For reports: the line that held most slots when the tier last ran out.
    pub(crate) fn most_held_by(&self) -> Option<Site> {
        // SAFETY: only null or a pointer made from a `&'static Location` is ever stored (`scarcity::tally`).
        unsafe { self.most_held_by.load(Ordering::Relaxed).as_ref() }
    }
}
