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
use super::depot::BATCH;
use crate::slot::word::{State, Word};
use crate::sync::arena::Zeroed;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Hints that a magazine holds.
pub(crate) const MAGAZINE: usize = if cfg!(loom) { 2 } else { 64 };
/// Magazines that a tier can have: threads beyond that many at once go without, more slowly.
pub(crate) const MAX_MAGAZINES: usize = if cfg!(loom) { 3 } else { 4096 };
/// How many of a victim's hints a thief copies at once.
pub(crate) const LOOT: usize = if cfg!(loom) { 1 } else { 16 };

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
    len: AtomicU32,
    /// The owning thread's number; 0 if nobody's.
    owner: AtomicU32,
    /// Hints popped.
    popped: AtomicU64,
    /// Popped hints that were stale.
    stale: AtomicU64,
    /// Allocations that this magazine could not serve at once.
    missed: AtomicU64,
    /// Hints that left by another way than a pop, less those that came by another way than a release. With `len` and
    /// `popped` it gives the releases, which therefore need no counter.
    moved: AtomicU64,
    /// Where this owner's next scan starts.
    cursor: AtomicU32,
    entries: [Entry; MAGAZINE],
}

// SAFETY: zeros are an empty magazine of nobody; nothing needs `Drop`.
unsafe impl Zeroed for Magazine {
    #[cfg(loom)]
    fn zeroed() -> Self {
        Magazine {
            len: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            popped: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            cursor: AtomicU32::new(0),
            entries: std::array::from_fn(|_| Entry { word: AtomicU64::new(0), index: AtomicU64::new(0) }),
        }
    }
}

/// An owner's increment: nobody else writes, so it needs no read-modify-write.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

// For the owner.
impl Magazine {
    /// Makes `owner` the owner, if the magazine is nobody's.
    pub(crate) fn adopt(&self, owner: u32) -> bool {
        self.owner.load(Ordering::Relaxed) == 0
            // Acquire: pairs with the Release in `leave`; what the last owner wrote is ours to go on from.
            && self.owner.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The owner goes: its hints to the depot, the magazine to whoever wants it.
    pub(crate) fn leave(&self, core: &Core) {
        while self.len() > 0 {
            self.flush(core);
        }
        // Release: pairs with the Acquire in `adopt`.
        self.owner.store(0, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MAGAZINE
    }

    #[inline(always)]
    fn entry(&self, at: usize) -> &Entry {
        debug_assert!(at < MAGAZINE);
        // SAFETY: only the owner's `push` and `pop` and bounded loops come here, with `at` below a length that never
        // exceeds `MAGAZINE`.
        unsafe { self.entries.get_unchecked(at) }
    }

    #[inline(always)]
    fn hint(&self, at: usize) -> Hint {
        let entry = self.entry(at);
        let index = entry.index.load(Ordering::Relaxed) as u32;
        Hint { word: Word::from_bits(entry.word.load(Ordering::Relaxed)), index }
    }

    /// The most recent hint.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Hint> {
        let at = self.len().checked_sub(1)?;
        let hint = self.hint(at);
        self.len.store(at as u32, Ordering::Relaxed);
        bump(&self.popped, 1);
        Some(hint)
    }

    /// Hints popped since ever.
    #[inline(always)]
    pub(crate) fn popped(&self) -> u64 {
        self.popped.load(Ordering::Relaxed)
    }

    /// Puts a hint on top. The magazine is not full.
    #[inline(always)]
    pub(crate) fn push(&self, hint: Hint) {
        let at = self.len();
        let entry = self.entry(at);
        entry.word.store(hint.word.bits(), Ordering::Relaxed);
        entry.index.store(u64::from(hint.index), Ordering::Relaxed);
        self.len.store(at as u32 + 1, Ordering::Relaxed);
    }

    /// Pops up to `most` hints; they are found with [`popped_last`](Self::popped_last) until the next push.
    #[inline]
    pub(crate) fn pop_many(&self, most: usize) -> usize {
        let count = self.len().min(most);
        self.len.store((self.len() - count) as u32, Ordering::Relaxed);
        bump(&self.popped, count as u64);
        count
    }

    /// The hints that the last [`pop_many`](Self::pop_many) popped.
    #[inline]
    pub(crate) fn popped_last(&self, count: usize) -> impl Iterator<Item = Hint> {
        (self.len()..(self.len() + count).min(MAGAZINE)).rev().map(|at| self.hint(at))
    }

    /// So many of the hints popped last were stale.
    pub(crate) fn note_stale_many(&self, count: usize) {
        bump(&self.stale, count as u64);
    }

    /// How many hints may be pushed.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        MAGAZINE - self.len()
    }

    /// Takes the last `count` pushes back; they were not releases after all.
    #[inline]
    pub(crate) fn unpush(&self, count: usize) {
        self.len.store((self.len() - count) as u32, Ordering::Relaxed);
    }

    /// A hint found by other means than a release. The magazine is not full.
    pub(crate) fn found(&self, hint: Hint) {
        self.push(hint);
        bump(&self.moved, 1u64.wrapping_neg());
    }

    /// A release whose hint is not in this magazine.
    pub(crate) fn note_released_elsewhere(&self) {
        bump(&self.moved, 1);
    }

    /// The hint popped last was stale.
    pub(crate) fn note_stale(&self) {
        bump(&self.stale, 1);
    }

    /// An allocation was served, but not at once.
    pub(crate) fn note_missed(&self) {
        bump(&self.missed, 1);
    }

    /// The last hint popped serves an allocation that had to look further first.
    pub(crate) fn note_late(&self) {
        self.note_stale();
        self.note_missed();
    }

    /// Moves a batch from the top to the depot: no entry needs to be moved, and the bottom stays.
    #[cold]
    pub(crate) fn flush(&self, core: &Core) {
        let len = self.len();
        let rest = len.saturating_sub(BATCH);
        core.depot.store((rest..len).map(|at| self.hint(at).index));
        self.len.store(rest as u32, Ordering::Relaxed);
        bump(&self.moved, (len - rest) as u64);
    }

    /// Fills the empty magazine from the depot, with the hints that are still good. False if there was none.
    #[cold]
    pub(crate) fn refill(&self, core: &Core) -> bool {
        while self.len() + BATCH <= MAGAZINE {
            let more = core.depot.take(|index| {
                let word = core.header(index).word();
                if word.is_free() {
                    self.found(Hint { word, index });
                }
            });
            // Batches of one come from releases under scarcity; look for more, until there is a fair stock.
            if !more || self.len() >= MAGAZINE / 4 {
                break;
            }
        }
        self.len() > 0
    }

    /// Where the next scan of a tier of `slots` slots starts, and where the one after.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_cursor(&self, at: usize) {
        self.cursor.store(at as u32, Ordering::Relaxed);
    }
}

// For everybody.
impl Magazine {
    /// Shows up to [`LOOT`] hints that are good at this moment to `each`, the longest unused first, until it has
    /// enough. The owner loses nothing: whoever claims first has the slot.
    pub(crate) fn peek(&self, core: &Core, mut each: impl FnMut(Hint) -> bool) {
        let mut left = LOOT;
        for at in 0..self.len().min(MAGAZINE) {
            let hint = self.hint(at);
            if hint.word.is_free() && core.header(hint.index).word() == hint.word {
                left -= 1;
                if !each(hint) || left == 0 {
                    return;
                }
            }
        }
    }

    /// Whether the owner may be in the middle of a release: some hint names a slot that is still leased, at the very
    /// use that the hint says is over.
    ///
    /// To be called after a heavy fence; see [`scarcity`](super::scarcity).
    pub(crate) fn in_flight(&self, core: &Core) -> bool {
        (0..self.len().min(MAGAZINE)).any(|at| {
            let hint = self.hint(at);
            let word = core.header(hint.index).word();
            word.is(State::Leased) && word.next(State::Free) == hint.word.with(State::Free)
        })
    }

    /// Whether somebody owns it.
    pub(crate) fn is_owned(&self) -> bool {
        self.owner() != 0
    }

    /// Allocations served at once, allocations served at all, slots released.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let popped = self.popped.load(Ordering::Relaxed);
        let hits = popped.wrapping_sub(self.stale.load(Ordering::Relaxed));
        let moved = self.moved.load(Ordering::Relaxed);
        let releases = (self.len() as u64).wrapping_add(popped).wrapping_add(moved);
        (hits, hits.wrapping_add(self.missed.load(Ordering::Relaxed)), releases)
    }
}
