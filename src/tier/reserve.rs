//! The reserve: slots that only urgent allocations may have, exact to the slot.
//!
//! Reserved slots are a partition. They have a state of their own, so no hint leads to them and no scan finds them: an
//! allocation that is not urgent cannot take one, whatever it has checked before and whenever it was stopped. They lie in a
//! chain, and a count says how many may be taken.
//!
//! **The right first, then the slot.** An allocation that finds nothing else lowers the count by compare-exchange, not below
//! the mark of its class; that is its right to one slot of the chain, in which there are never fewer than there are rights.
//!
//! **Refilled first.** Who takes a slot adds one to what is *due*, and sets the flag `REFILLS`, before the slot is its
//! own. A release that finds the flag takes one off what is due, and puts its slot into the reserve. So as long as
//! something is due the slot that was taken goes back there, or another has gone in its stead: at every moment as many
//! slots are reserved, or due for those in urgent hands, as the tier was told to reserve, and the others can never hold
//! more than the rest.
//!
//! **The flag is not lost.** When nothing is due any more it is cleared, by a compare-exchange of all flags; who sets it
//! raises their epoch. So a clearing that began before something became due fails.
//!
//! **Closed like all else.** A closer takes those slots to which it has a right; a release that finds the tier closed after
//! it has put its slot in does the same, since the closer may have had that slot for the right to another. A release that is
//! stopped between its two steps still has its slot, and its tier cannot end before it has gone on.
//!
//! The marks are Linux's watermarks (min, low, high) for zones of memory, as a partition.

use std::sync::PoisonError;

use super::allocate::{Caller, Taken, take_aside};
use super::chain::Chain;
use super::core::{Core, flags};
use super::values::Panic;
use super::{close, release, wait};
use crate::slot::header::{Note, Site};
use crate::slot::label::CLASSES;
use crate::slot::word::State;
use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Mutex, Ordering};

/// How many slots each class leaves in the reserve, the least urgent first. Each is at most the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks(pub(crate) [u32; CLASSES]);

impl Marks {
    /// Slots that are reserved: what the least urgent has to leave.
    fn size(self) -> u32 {
        self.0[0]
    }
}

/// One change of the stock, in its upper half; the lower counts rights to a slot.
const CHANGE: u64 = 1 << 32;

/// See the module's header.
pub(crate) struct Reserve {
    chain: Chain,
    stock: AtomicU64,
    /// How many releases are to put their slot here; below zero: how many slots that are taken need not be replaced.
    due: AtomicI64,
    marks: [AtomicU32; CLASSES],
    /// Held while marks are replaced, and while nothing else is done.
    changing: Mutex<()>,
}

/// The stock at some moment. Equal stocks: nothing was put in or taken between the two readings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stock(u64);

impl Reserve {
    pub(crate) fn new() -> Self {
        Reserve {
            chain: Chain::new(),
            stock: AtomicU64::new(0),
            due: AtomicI64::new(0),
            marks: std::array::from_fn(|_| AtomicU32::new(0)),
            changing: Mutex::new(()),
        }
    }

    /// For a new tier.
    pub(crate) fn clear(&self) {
        self.chain.clear();
        self.stock.fetch_and(!(CHANGE - 1), Ordering::Relaxed);
        self.due.store(0, Ordering::Relaxed);
        self.marks.iter().for_each(|mark| mark.store(0, Ordering::Relaxed));
    }

    /// Acquire: pairs with the Release in `put` and in `right`.
    pub(crate) fn stock(&self) -> Stock {
        Stock(self.stock.load(Ordering::Acquire))
    }

    /// How many slots that class leaves.
    pub(crate) fn mark(&self, class: u8) -> usize {
        self.marks[usize::from(class)].load(Ordering::Relaxed) as usize
    }

    /// How many slots are kept back, or will be when they have come back.
    pub(crate) fn size(&self) -> usize {
        self.mark(0)
    }

    /// How many slots may be taken, by whoever may have the last.
    pub(crate) fn len(&self) -> usize {
        self.stock.load(Ordering::Relaxed) as u32 as usize
    }

    /// The right to a slot, if more are left than `mark`.
    fn right(&self, mark: u32) -> bool {
        let mut now = self.stock.load(Ordering::Relaxed);
        while now as u32 > mark {
            // AcqRel: Acquire pairs with the Release in `put`, whose slot is in the chain; Release with `stock`.
            match self.stock.compare_exchange_weak(
                now,
                now.wrapping_add(CHANGE) - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }

    /// Takes one off what is due, if something is.
    fn duty(&self) -> bool {
        self.settle_one(|due| due > 0, -1)
    }

    /// Takes one off what there is too much, if there is.
    fn surplus(&self) -> bool {
        self.settle_one(|due| due < 0, 1)
    }

    fn settle_one(&self, applies: impl Fn(i64) -> bool, by: i64) -> bool {
        let mut due = self.due.load(Ordering::Relaxed);
        while applies(due) {
            match self.due.compare_exchange_weak(due, due + by, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => due = other,
            }
        }
        false
    }
}

/// A slot of the reserve for an allocation that finds no other, leased to it, if its class may have one.
#[cold]
pub(crate) fn take(core: &'static Core, caller: &Caller) -> Option<Taken> {
    let taken = take_out(core, core.reserve.marks[usize::from(caller.label.class())].load(Ordering::Relaxed))?;
    owe(core, 1);
    let (header, claimed) = (core.header(taken.index), taken.word.with(State::Claimed));
    header.give(claimed);
    let word = header.lease(claimed, caller.site, caller.label.mark, caller.stamp());
    Some(Taken { word, index: taken.index })
}

/// A slot that leaves the chain, the caller's, and still `Reserved`.
fn take_out(core: &Core, mark: u32) -> Option<Taken> {
    if !core.reserve.right(mark) {
        return None;
    }
    let (index, word) = core.reserve.chain.take(core.links, |index| core.header(index).word())?;
    Some(Taken { word, index })
}

/// So many releases are to refill the reserve. To be called while what was taken is in nobody's hands.
fn owe(core: &Core, slots: i64) {
    core.reserve.due.fetch_add(slots, Ordering::Relaxed);
    let mut now = core.flags.load(Ordering::Relaxed);
    loop {
        let next = (now | flags::REFILLS).wrapping_add(flags::EPOCH);
        // Release: pairs with the Acquire in `settle`; what is due comes before the flag.
        match core.flags.compare_exchange_weak(now, next, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => now = other,
        }
    }
}

/// Clears the flag when nothing is due.
fn settle(core: &Core) {
    // Acquire: pairs with the Release in `owe`. If these flags still stand at the exchange, nothing became due since.
    let now = core.flags.load(Ordering::Acquire);
    if now & flags::REFILLS != 0 && core.reserve.due.load(Ordering::Relaxed) <= 0 {
        // Relaxed: whoever still sees the flag finds nothing due. On failure somebody else has changed the flags, and the
        // next release sees to it.
        let _ = core.flags.compare_exchange(now, now & !flags::REFILLS, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Puts a slot that the caller holds, its value fit for use, into the reserve, if that is due; `None` if it is not. A
/// panic in the value's `Drop` or in a waiter's waker is returned.
#[cold]
pub(crate) fn refill<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>) -> Option<Result<(), Panic>> {
    if !core.reserve.duty() {
        settle(core);
        return None;
    }
    // So that the tier does not end with the slot, which from `put` on is anybody's.
    let _stay = core.enter();
    put(core, taken, site);
    settle(core);
    // As in `release::release_through`: pairs with the heavy fences of `close` and of a new waiter.
    core.fence.light();
    let now = core.flags.load(Ordering::Relaxed);
    Some(if now & flags::CLOSED != 0 {
        bury_all::<T>(core).map_or(Ok(()), Err)
    } else if now & flags::WAITERS != 0 {
        wait::attend(core, None)
    } else {
        Ok(())
    })
}

/// For a closer, and for whoever puts a slot into a closed tier's reserve: drops the values of what is reserved. The first
/// panic is returned. The caller keeps the tier from its end.
pub(crate) fn bury_all<T: 'static>(core: &'static Core) -> Option<Panic> {
    let mut panic = None;
    while let Some(Taken { word, index }) = take_out(core, 0) {
        panic = panic.or(close::bury::<T>(core, index, word).err());
    }
    panic
}

/// The slot is reserved from here on.
fn put(core: &Core, taken: Taken, site: Option<Site>) {
    let reserved = taken.word.to(State::Reserved);
    let header = core.header(taken.index);
    header.set_note(Note::released(site));
    header.give(reserved);
    core.reserve.chain.add(core.links, taken.index);
    // Release: pairs with the Acquire in `right`; the slot is in the chain before there is a right to it.
    core.reserve.stock.fetch_add(CHANGE + 1, Ordering::Release);
}

/// How many slots each class leaves from now on. Slots that are free are reserved at once, and for the others releases; slots
/// that need not be reserved any more are given back. The caller has a `Tier`.
pub(crate) fn set_marks(core: &'static Core, marks: Marks) -> Result<(), Panic> {
    core.flags.fetch_or(flags::RESERVES, Ordering::Relaxed);
    let changing = core.reserve.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let old = Marks(std::array::from_fn(|class| core.reserve.marks[class].load(Ordering::Relaxed)));
    for (mark, now) in core.reserve.marks.iter().zip(marks.0) {
        mark.store(now, Ordering::Relaxed);
    }
    if marks.size() >= old.size() {
        owe(core, (marks.size() - old.size()).into());
    } else {
        core.reserve.due.fetch_sub((old.size() - marks.size()).into(), Ordering::Relaxed);
    }
    drop(changing);
    let mut panic = None;
    for index in (0..core.headers().len() as u32).rev() {
        if core.reserve.due.load(Ordering::Relaxed) <= 0 {
            break;
        }
        if let Some(taken) = take_aside(core, index, core.header(index).word()) {
            panic = panic.or(give_back(core, taken).err());
        }
    }
    while core.reserve.surplus() {
        let Some(Taken { word, index }) = take_out(core, 0) else {
            // All are in urgent hands: those who took them find that nothing is due for them.
            core.reserve.due.fetch_sub(1, Ordering::Relaxed);
            break;
        };
        let aside = word.to(State::Maintenance);
        core.header(index).give(aside);
        panic = panic.or(give_back(core, Taken { word: aside, index }).err());
    }
    // Somebody who waits may now go below what was his mark.
    let attended = wait::attend(core, None);
    panic.map_or(attended, Err)
}

/// A slot that was taken aside goes to the reserve if that is due, and else to all. Counts as no release.
fn give_back(core: &'static Core, taken: Taken) -> Result<(), Panic> {
    release::uncount(core);
    // SAFETY: the caller holds the slot, with its value as it was when it was free or reserved; `give_back` is this tier's.
    unsafe { (core.incarnation().give_back)(core, taken, None) }
}
