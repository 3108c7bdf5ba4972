//! A magazine: one thread's private stack of free-slot hints of one tier.
//!
//! A hint is an index and the word that the slot had when the hint was made, so that a claim needs no load before its
//! compare-exchange. Only the owner pushes and pops; anybody may *look*: the entries are atomics, and a hint that was
//! read half from one push and half from another fails its compare-exchange like any stale one. So a stopped owner
//! hides nothing.
//!
//! A release pushes its hint *before* it makes the slot free. That early hint is its mark: whoever enters scarcity
//! finds every release in flight by looking through the magazines ([`Magazine::in_flight`]).
//!
//! Magazines are Bonwick's ("Magazines and Vmem", USENIX 2001), holding hints instead of objects.

use super::core::Core;
use super::credit::Purse;
use super::depot::BATCH;
use super::pin::Pins;
use super::report::Totals;
use super::uses::Uses;
use crate::slot::word::{State, Word};
use crate::sync::arena::Zeroed;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Hints that a magazine holds.
pub(crate) const MAGAZINE: usize = if cfg!(loom) { 2 } else { 64 };
/// Magazines that a tier can have: threads beyond that many at once go without, more slowly.
pub(crate) const MAX_MAGAZINES: usize = if cfg!(loom) { 3 } else { 4096 };
/// Hints with which a refill is content.
const STOCK: usize = if cfg!(loom) { 1 } else { MAGAZINE / 4 };
/// How many of a victim's hints a thief copies at once.
pub(crate) const LOOT: usize = if cfg!(loom) { 1 } else { 16 };

/// The bits of [`Magazine::top`] that hold the length.
const LEN: u64 = 0xff;
/// One pop, in the other bits.
const POP: u64 = LEN + 1;

/// A slot that was free when its word was this.
#[derive(Clone, Copy)]
pub(crate) struct Hint {
    pub(crate) word: Word,
    pub(crate) index: u32,
}

struct Entry {
    word: AtomicU64,
    index: AtomicU64,
}

/// See the module's header.
#[repr(C, align(64))]
pub(crate) struct Magazine {
    /// How many hints there are in the low bits ([`LEN`]), and how many were ever popped above: one store for both.
    top: AtomicU64,
    /// The owning thread's number; 0 if nobody's.
    owner: AtomicU32,
    /// Where this owner's next scan starts.
    cursor: AtomicU32,
    /// Popped hints that were stale.
    stale: AtomicU64,
    /// Allocations that this magazine could not serve at once.
    missed: AtomicU64,
    /// Hints that left by another way than a pop, less those that came by another way than a release. With `top` it
    /// gives the releases, which therefore need no counter.
    moved: AtomicU64,
    /// Allocations that were refused.
    refused: AtomicU64,
    /// Not 0 while a bulk release is in flight, whose slots have no marks of their own.
    bulk: AtomicU32,
    /// Where the owner has its credits, once it has; see [`account`](super::account).
    pub(super) purse: AtomicPtr<Purse>,
    /// The owner's pins.
    pub(crate) pins: Pins,
    entries: [Entry; MAGAZINE],
    /// What its allocations were for.
    pub(super) uses: Uses,
    /// What is counted away from the hot path.
    exchanges: Exchanges,
}

/// What a magazine has exchanged with others, in times; and how often it had no good hint at hand.
struct Exchanges {
    searches: AtomicU64,
    refills: AtomicU64,
    steals: AtomicU64,
    spills: AtomicU64,
}

// SAFETY: zeros are an empty magazine of nobody; nothing needs `Drop`.
unsafe impl Zeroed for Magazine {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Magazine {
            top: AtomicU64::new(0),
            owner: AtomicU32::new(0),
            cursor: AtomicU32::new(0),
            stale: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bulk: AtomicU32::new(0),
            purse: AtomicPtr::new(std::ptr::null_mut()),
            pins: Pins::none(),
            entries: std::array::from_fn(|_| Entry { word: AtomicU64::new(0), index: AtomicU64::new(0) }),
            uses: Uses::none(),
            exchanges: Exchanges {
                searches: AtomicU64::new(0),
                refills: AtomicU64::new(0),
                steals: AtomicU64::new(0),
                spills: AtomicU64::new(0),
            },
        }
    }
}

/// An owner's increment: nobody else writes, so it needs no read-modify-write.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// The two cells, with the orderings that marks need.
///
/// A mark may be gone when somebody looks for it, popped or overwritten; then its release is over, and whoever sees what
/// took its place must see the slot given. So each store here is a Release (the slot was given before it), and
/// [`Magazine::in_flight`] reads with Acquire. The owner reads what it wrote itself, thieves read hints: Relaxed.
impl Magazine {
    #[inline(always)]
    fn top(&self, ordering: Ordering) -> u64 {
        self.top.load(ordering)
    }

    #[inline(always)]
    fn set_top(&self, top: u64) {
        // Release: pairs with the Acquire in `in_flight`; see above.
        self.top.store(top, Ordering::Release);
    }

    #[inline(always)]
    fn entry(&self, at: usize) -> &Entry {
        debug_assert!(at < MAGAZINE);
        // SAFETY: every caller bounds `at` by `MAGAZINE` or by a length, which never exceeds it.
        unsafe { self.entries.get_unchecked(at) }
    }

    #[inline(always)]
    fn hint(&self, at: usize, ordering: Ordering) -> Hint {
        let entry = self.entry(at);
        let index = entry.index.load(ordering) as u32;
        Hint { word: Word::from_bits(entry.word.load(ordering)), index }
    }

    #[inline(always)]
    fn set_hint(&self, at: usize, hint: Hint) {
        let entry = self.entry(at);
        // Release: pairs with the Acquire in `in_flight`; see above.
        entry.word.store(hint.word.bits(), Ordering::Release);
        entry.index.store(u64::from(hint.index), Ordering::Release);
    }
}

/// A stack of hints, for the owner.
impl Magazine {
    /// How many hints there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        (self.top(Ordering::Relaxed) & LEN) as usize
    }

    /// The most recent hint, and how many were popped before it.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<(Hint, u64)> {
        let top = self.top(Ordering::Relaxed);
        let at = ((top & LEN) as usize).checked_sub(1)?;
        let hint = self.hint(at, Ordering::Relaxed);
        self.set_top(top.wrapping_add(POP - 1));
        Some((hint, top / POP))
    }

    /// Puts a hint on top. False if the magazine is full.
    #[inline(always)]
    pub(crate) fn push(&self, hint: Hint) -> bool {
        let top = self.top(Ordering::Relaxed);
        let at = (top & LEN) as usize;
        if at >= MAGAZINE {
            return false;
        }
        self.set_hint(at, hint);
        self.set_top(top + 1);
        true
    }

    /// Takes the last push back; it was not a release after all.
    #[inline]
    pub(crate) fn unpush(&self) {
        self.set_top(self.top(Ordering::Relaxed) - 1);
    }

    /// Pops up to `most` hints and shows them to `each`, which says whether its hint was good. Returns how many.
    #[inline]
    pub(crate) fn pop_many(&self, most: usize, mut each: impl FnMut(Hint) -> bool) -> usize {
        let top = self.top(Ordering::Relaxed);
        let len = (top & LEN) as usize;
        let count = len.min(most);
        self.set_top(top.wrapping_add(count as u64 * (POP - 1)));
        let good = (len - count..len).rev().filter(|&at| each(self.hint(at, Ordering::Relaxed))).count();
        bump(&self.stale, (count - good) as u64);
        count
    }

    /// Puts a hint on top that was found by other means than a release. False if the magazine is full.
    pub(crate) fn found(&self, hint: Hint) -> bool {
        let pushed = self.push(hint);
        if pushed {
            bump(&self.moved, 1u64.wrapping_neg());
        }
        pushed
    }

    /// Fills the empty magazine from the depot, with the hints that are still good. False if there was none.
    #[cold]
    pub(crate) fn refill(&self, core: &Core) -> bool {
        let mut len = 0;
        while len + BATCH <= MAGAZINE {
            let more = core.depot.take(
                |index| core.header(index).prefetch(),
                |index| {
                    let word = core.header(index).word();
                    if word.is_free() {
                        self.set_hint(len, Hint { word, index });
                        len += 1;
                    }
                },
            );
            // Batches of one come from releases under scarcity; look for more, until there is a fair stock.
            if !more || len >= STOCK {
                break;
            }
        }
        self.set_top(self.top(Ordering::Relaxed) + len as u64);
        bump(&self.moved, (len as u64).wrapping_neg());
        bump(&self.exchanges.refills, u64::from(len > 0));
        len > 0
    }

    /// Makes room for at least one hint.
    #[inline(always)]
    pub(crate) fn make_room(&self, core: &Core) {
        if self.len() == MAGAZINE {
            self.flush(core);
        }
    }

    /// Moves a batch from the top to the depot: no entry needs to be moved, and the bottom stays.
    #[cold]
    fn flush(&self, core: &Core) {
        let len = self.len();
        let rest = len.saturating_sub(BATCH);
        core.depot.store((rest..len).map(|at| self.hint(at, Ordering::Relaxed).index));
        self.set_top(self.top(Ordering::Relaxed) - (len - rest) as u64);
        bump(&self.moved, (len - rest) as u64);
        bump(&self.exchanges.spills, 1);
    }
}

/// The rest of what an owner does.
impl Magazine {
    /// Makes `owner` the owner, if the magazine is nobody's.
    pub(crate) fn adopt(&self, owner: u32) -> bool {
        self.owner.load(Ordering::Relaxed) == 0
            // Acquire: pairs with the Release in `leave`; what the last owner wrote is ours to go on from.
            && self.owner.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The owner goes: its hints to the depot, the magazine to whoever wants it, or to the pins that still stand.
    pub(crate) fn leave(&self, core: &Core) {
        while self.len() > 0 {
            self.flush(core);
        }
        if !self.pins.leave() {
            self.give_up();
        }
    }

    /// For the owner, or whoever comes after it: the magazine is nobody's.
    pub(crate) fn give_up(&self) {
        // Release: pairs with the Acquire in `adopt`.
        self.owner.store(0, Ordering::Release);
    }

    /// A new tier moves in, of which nobody has a pin, a credit or a slot yet.
    pub(crate) fn forget(&self) {
        self.uses.clear();
        self.purse.store(std::ptr::null_mut(), Ordering::Relaxed);
        if self.pins.forget() {
            self.give_up();
        }
    }

    /// The owning thread's number.
    #[inline(always)]
    pub(crate) fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    /// A bulk release begins or ends.
    pub(crate) fn set_bulk(&self, begins: bool) {
        // Release: pairs with the Acquire in `in_flight`; when the bulk ends, its slots have been given.
        self.bulk.store(begins.into(), Ordering::Release);
    }

    /// The hint popped last was stale.
    pub(crate) fn note_stale(&self) {
        bump(&self.stale, 1);
    }

    /// The hint popped last serves an allocation that had to look further first.
    pub(crate) fn note_late(&self) {
        self.note_stale();
        self.note_elsewhere(1, 0);
    }

    /// So many allocations were served by no hint of this magazine, and so many releases left none in it.
    pub(crate) fn note_elsewhere(&self, allocations: usize, releases: usize) {
        bump(&self.missed, allocations as u64);
        bump(&self.moved, releases as u64);
    }

    /// An allocation looks further than the hint at hand; the how-manieth that does.
    pub(crate) fn note_search(&self) -> u64 {
        let searches = self.exchanges.searches.load(Ordering::Relaxed) + 1;
        self.exchanges.searches.store(searches, Ordering::Relaxed);
        searches
    }

    /// The empty magazine was filled with hints from another's.
    pub(crate) fn note_steal(&self) {
        bump(&self.exchanges.steals, 1);
    }

    /// An allocation was refused.
    pub(crate) fn note_refused(&self) {
        bump(&self.refused, 1);
    }

    /// Where the owner's next scan starts.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Relaxed) as usize
    }

    /// Says where.
    pub(crate) fn set_cursor(&self, at: usize) {
        self.cursor.store(at as u32, Ordering::Relaxed);
    }
}

/// What anybody may look at.
impl Magazine {
    /// Shows up to [`LOOT`] hints that are good at this moment to `each`, the longest unused first, until it has
    /// enough. The owner loses nothing: whoever claims first has the slot.
    pub(crate) fn peek(&self, core: &Core, mut each: impl FnMut(Hint) -> bool) {
        let mut left = LOOT;
        for at in 0..self.len().min(MAGAZINE) {
            let hint = self.hint(at, Ordering::Relaxed);
            if hint.word.is_free() && core.header(hint.index).word() == hint.word {
                left -= 1;
                if !each(hint) || left == 0 {
                    return;
                }
            }
        }
    }

    /// Whether the owner may be in the middle of a release: of a bulk, or of a slot that is still held at the very use
    /// that some hint says is over.
    ///
    /// To be called after a heavy fence; see [`scarcity`](super::scarcity).
    pub(crate) fn in_flight(&self, core: &Core) -> bool {
        // Acquire: pairs with the Release in `set_top` and `set_hint`; if a mark is gone, its slot is seen given.
        let len = (self.top(Ordering::Acquire) & LEN) as usize;
        let marks = |at| {
            let hint = self.hint(at, Ordering::Acquire);
            let word = core.header(hint.index).word();
            matches!(word.state(), State::Leased | State::Maintenance) && word.to(State::Free) == hint.word
        };
        // Acquire: pairs with the Release in `set_bulk`; if a bulk has ended, its slots are seen free.
        self.bulk.load(Ordering::Acquire) != 0 || (0..len.min(MAGAZINE)).any(marks)
    }

    /// How many hints were ever popped.
    pub(crate) fn popped(&self) -> u64 {
        self.top(Ordering::Relaxed) / POP
    }

    /// Whether somebody owns it.
    pub(crate) fn is_owned(&self) -> bool {
        self.owner() != 0
    }

    /// Everything that it has counted in its life.
    pub(crate) fn totals(&self) -> Totals {
        let (top, moved) = (self.top(Ordering::Relaxed), self.moved.load(Ordering::Relaxed));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let hits = (top / POP).wrapping_sub(count(&self.stale));
        let Exchanges { refills, steals, spills, .. } = &self.exchanges;
        Totals {
            hits,
            allocations: hits.wrapping_add(count(&self.missed)),
            releases: (top & LEN).wrapping_add(top / POP).wrapping_add(moved),
            refusals: count(&self.refused),
            refills: count(refills),
            steals: count(steals),
            spills: count(spills),
        }
    }
}
