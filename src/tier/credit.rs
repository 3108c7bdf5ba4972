//! Credits: permission to hold so many slots, kept where its user needs no read-modify-write to use it.
//!
//! A [`Cell`] has two words. `taken`, what is in use, is written by the cell's owner only. `granted`, what may be, is changed by
//! anybody, by exchange. What is granted and not taken is free: for the owner at once, and for everybody by a *drain*.
//!
//! # What holds
//! - The owner never has more in use than was granted to it and not drained.
//! - Nothing is ever in anybody's hand: a credit is in a cell, or it is gone from all cells at one exchange, and then whoever keeps
//!   the accounts finds it by adding up the cells ([`Cell::look`]). So a thread that is stopped anywhere hides no credit.
//! - Nobody waits: each step of a drain can be finished, or undone, by any other thread.
//!
//! # How owner and drainer agree
//! It is the THE protocol of Cilk-5 (Frigo, Leiserson, Randall, PLDI 1998), with its lock replaced by a third number in the word:
//! what was *lifted* out of `granted` and is not yet decided.
//!
//! | owner | drainer |
//! |---|---|
//! | O1 `taken += n`: the claim | D1 by exchange: `granted` down to `taken`, the difference into `lifted` |
//! | O2 light fence | D2 heavy fence |
//! | O3 `taken <= granted`? then it has them | D3 reads `taken` |
//! | O4 if not: by exchange, back out of `lifted`, or say that it is *drawing* | D4 by exchange: what `taken` exceeds `granted` by, back out of `lifted`; the rest is gone |
//!
//! O2 and D2 are a pair: if O2 comes first, D3 sees the claim, and D4 leaves it what it claims. If D2 comes first, O3 sees what D1
//! wrote, and so takes nothing that was lifted; then O4 and D4 exchange the same word, and the first of the two decides. D1 and D4
//! may be by different threads: what counts is that D4's has read the word, then made a heavy fence, then read `taken`, and that the
//! word has not changed since.
//!
//! So what `taken` exceeds `granted + lifted` by is a claim that has failed or will fail: nobody needs to count it.
//! While the owner is *drawing*, it takes nothing: `granted` is exactly what it has in use, its claim on top of that stands in
//! `taken`, and the exchange that brings it more ([`Drawing::complete`]) makes the claim good in the same step. Any change of the word
//! meanwhile makes that exchange fail: this is how a [`Drain`] calls a draw off.
//!
//! # Numbers
//! `taken` may fall below zero in a cell whose thread only gives back, and `granted` with it; both go round at 32 bits, and only their
//! difference counts. Both words hold a count of their changes above that, so that they only grow: equal sums of two looks
//! at many cells are two equal looks (as in [`scarcity`](super::scarcity)). The count of `granted` has 20 bits: an exchange would have to be
//! stopped for exactly a million changes of one cell to take a word for another.

use std::sync::OnceLock;

use crate::sync::fence::Fence;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// One credit taken, in `taken`: the lower half counts, the upper half grows with every change.
const TAKE: u64 = (1 << 32) + 1;
/// One credit given back.
const GIVE: u64 = (1 << 32) - 1;

/// The `granted` of a cell: from the top 20 bits of changes, one of drawing, 11 of lifted, 32 of granted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Grant(u64);

impl Grant {
    const CHANGE: u64 = 1 << 44;
    const DRAWING: u64 = 1 << 43;
    /// The most that can be lifted at once.
    const MOST: u32 = (1 << 11) - 1;

    fn granted(self) -> u32 {
        self.0 as u32
    }

    fn lifted(self) -> u32 {
        (self.0 >> 32) as u32 & Self::MOST
    }

    fn is_drawing(self) -> bool {
        self.0 & Self::DRAWING != 0
    }

    /// What is granted, or may still turn out to be.
    fn ceiling(self) -> u32 {
        self.granted().wrapping_add(self.lifted())
    }

    /// The next word after this one.
    fn to(self, granted: u32, lifted: u32, drawing: u64) -> Grant {
        let changes = (self.0 & !(Self::CHANGE - 1)).wrapping_add(Self::CHANGE);
        Grant(changes | drawing | u64::from(lifted) << 32 | u64::from(granted))
    }
}

/// By how much `a` is more than `b`, on numbers that go round.
fn over(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// The credits of one owner: a thread, for a tier and whatever the credits are counted by. See the module's header.
///
/// [`take`](Self::take), [`give_back`](Self::give_back), [`trim`](Self::trim) and what [`Drawing`] does are the owner's: by one thread at a
/// time, each seeing what the last one did. Anything else spoils the counts (and nothing but the counts).
pub(crate) struct Cell {
    granted: AtomicU64,
    taken: AtomicU64,
}

/// What a look at a cell shows.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// What the owner may have in use before anybody grants it more.
    pub(crate) granted: u32,
    /// What it has in use; right only if the cell is `settled`.
    pub(crate) used: u32,
    /// Whether nothing is lifted.
    pub(crate) settled: bool,
    /// Grows with every change of the cell.
    pub(crate) changes: u64,
}

impl Cell {
    /// A cell without credits.
    pub(crate) fn new() -> Self {
        Cell { granted: AtomicU64::new(0), taken: AtomicU64::new(0) }
    }

    fn word(&self) -> Grant {
        // Acquire: pairs with the Release in `exchange`; what led to a word is seen with it.
        Grant(self.granted.load(Ordering::Acquire))
    }

    fn exchange(&self, from: Grant, to: Grant) -> Result<(), Grant> {
        // AcqRel: pairs with itself and with the Acquire in `word`, as above.
        match self.granted.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(other) => Err(Grant(other)),
        }
    }

    /// Owner: `n` credits from those at hand. If there are not enough, the owner is drawing from then on, until the guard
    /// is dropped.
    ///
    /// A load, a store, a light fence and a load.
    #[inline(always)]
    pub(crate) fn take(&self, n: u32, fence: Fence) -> Result<(), Drawing<'_>> {
        let claim = self.taken.load(Ordering::Relaxed).wrapping_add(TAKE * u64::from(n));
        // O1. Release: pairs with the Acquire of `taken()`.
        self.taken.store(claim, Ordering::Release);
        fence.light(); // O2
        // O3. Relaxed: the fence orders it; nothing is read on the strength of it.
        let granted = self.granted.load(Ordering::Relaxed);
        if over(claim as u32, granted as u32) <= 0 {
            return Ok(());
        }
        self.insist(claim as u32, n)
    }

    /// O4: the claim is more than what was granted.
    #[cold]
    fn insist(&self, claim: u32, n: u32) -> Result<(), Drawing<'_>> {
        let mut word = self.word();
        loop {
            let missing = over(claim, word.granted());
            if missing <= 0 {
                return Ok(());
            }
            let good = missing.cast_unsigned() <= word.lifted();
            let next = if good {
                word.to(claim, word.lifted() - missing.cast_unsigned(), 0)
            } else {
                word.to(claim.wrapping_sub(n), 0, Grant::DRAWING)
            };
            match self.exchange(word, next) {
                Ok(()) if good => return Ok(()),
                Ok(()) => return Err(Drawing { cell: self, word: next, claim: n }),
                Err(other) => word = other,
            }
        }
    }

    /// Owner: `n` credits that are in use no more. A load and a store.
    #[inline(always)]
    pub(crate) fn give_back(&self, n: u32) {
        let less = self.taken.load(Ordering::Relaxed).wrapping_add(GIVE * u64::from(n));
        // Release: pairs with the Acquire of `taken()`.
        self.taken.store(less, Ordering::Release);
    }

    /// Anybody, in a cell without owner: the same, in one read-modify-write.
    pub(crate) fn give_back_by_anybody(&self, n: u32) {
        // Release: as in `give_back`.
        self.taken.fetch_add(GIVE * u64::from(n), Ordering::Release);
    }

    /// Owner: lets go of what it has beyond `keep`, if that is more than `keep` again. Two loads mostly.
    ///
    /// Needs no fence: the owner knows what it has in use.
    #[inline(always)]
    pub(crate) fn trim(&self, keep: u32) {
        let taken = self.taken.load(Ordering::Relaxed) as u32;
        if over(self.granted.load(Ordering::Relaxed) as u32, taken) > 2 * keep.cast_signed() {
            self.let_go(taken.wrapping_add(keep));
        }
    }

    #[cold]
    fn let_go(&self, granted: u32) {
        let word = self.word();
        if over(word.granted(), granted) > 0 {
            // If the exchange fails, a drainer is doing the same.
            let _ = self.exchange(word, word.to(granted, word.lifted(), 0));
        }
    }

    /// Anybody: how it stands, in two loads.
    pub(crate) fn look(&self) -> Look {
        let (word, taken) = (self.word(), self.taken());
        let free = if word.is_drawing() { 0 } else { over(word.ceiling(), taken as u32).max(0) };
        Look {
            granted: word.ceiling(),
            used: word.ceiling().wrapping_sub(free.cast_unsigned()),
            settled: word.lifted() == 0,
            changes: word.0.wrapping_add(taken),
        }
    }

    fn taken(&self) -> u64 {
        // Acquire: pairs with the Release of the owner's stores; what it did before is seen with them.
        self.taken.load(Ordering::Acquire)
    }

    /// D1, or what another has lifted: the word to settle after a heavy fence, if there is anything to settle. A draw is called off.
    fn lift(&self) -> Option<Grant> {
        let mut word = self.word();
        loop {
            let next = if word.is_drawing() {
                word.to(word.granted(), 0, Grant::DRAWING)
            } else {
                let free = over(word.granted(), self.taken() as u32).max(0).cast_unsigned();
                let more = free.min(Grant::MOST - word.lifted());
                if more == 0 {
                    return (word.lifted() > 0).then_some(word);
                }
                word.to(word.granted().wrapping_sub(more), word.lifted() + more, 0)
            };
            match self.exchange(word, next) {
                Ok(()) => return (!next.is_drawing()).then_some(next),
                Err(other) => word = other,
            }
        }
    }

    /// D3 and D4, after a heavy fence.
    fn settle(&self, lifted: Grant) {
        let claimed =
            over(self.taken() as u32, lifted.granted()).clamp(0, lifted.lifted().cast_signed()).cast_unsigned();
        // If the exchange fails, the owner or another drainer has decided.
        let _ = self.exchange(lifted, lifted.to(lifted.granted().wrapping_add(claimed), 0, 0));
    }
}

/// A claim for which there are not enough credits at hand, and its owner, which looks for more. Dropped, it takes the claim back.
#[must_use]
pub(crate) struct Drawing<'a> {
    cell: &'a Cell,
    word: Grant,
    claim: u32,
}

impl<'a> Drawing<'a> {
    /// What was claimed.
    pub(crate) fn claim(&self) -> u32 {
        self.claim
    }

    /// Whether this is the owner of that cell.
    pub(crate) fn is_of(&self, cell: &Cell) -> bool {
        std::ptr::eq(self.cell, cell)
    }

    /// Grants `n` credits, and takes what was claimed of them. Gives itself back if the draw was called off since it began, or since
    /// it was last given back: then no credit was granted, and what was done for them is not to be relied on.
    pub(crate) fn complete(mut self, n: u32) -> Result<(), Self> {
        debug_assert!(n >= self.claim);
        let word = self.word;
        match self.cell.exchange(word, word.to(word.granted().wrapping_add(n), 0, 0)) {
            Ok(()) => {
                self.claim = 0;
                Ok(())
            }
            Err(other) => {
                self.word = other;
                Err(self)
            }
        }
    }
}

impl Drop for Drawing<'_> {
    fn drop(&mut self) {
        if self.claim == 0 {
            return;
        }
        self.cell.give_back(self.claim);
        while let Err(other) = self.cell.exchange(self.word, self.word.to(self.word.granted(), 0, 0)) {
            self.word = other;
        }
    }
}

/// How many cells share one heavy fence.
const TOGETHER: usize = if cfg!(loom) { 2 } else { 32 };

/// Takes back what is free in some cells, and calls the draws of their owners off.
pub(crate) struct Drain<'a> {
    fence: Fence,
    lifted: [Option<(&'a Cell, Grant)>; TOGETHER],
    len: usize,
}

impl<'a> Drain<'a> {
    pub(crate) fn new(fence: Fence) -> Self {
        Drain { fence, lifted: [None; TOGETHER], len: 0 }
    }

    /// One more cell.
    pub(crate) fn add(&mut self, cell: &'a Cell) {
        let Some(word) = cell.lift() else { return };
        if self.len == TOGETHER {
            self.settle();
        }
        self.lifted[self.len] = Some((cell, word));
        self.len += 1;
    }

    /// The rest: from here on no owner has anything of what was lifted, unless [`Cell::look`] says so.
    pub(crate) fn finish(mut self) {
        self.settle();
    }

    fn settle(&mut self) {
        if self.len > 0 {
            self.fence.heavy(); // D2, after each word was read or written
            self.lifted.iter_mut().take(self.len).filter_map(Option::take).for_each(|(cell, word)| cell.settle(word));
            self.len = 0;
        }
    }
}

/// Credits that a cell keeps when some come back; twice as many before it lets go of any.
pub(crate) const KEEP: u32 = 16;

/// The cells of one thread in one tier: an array, whose index means something to whoever counts by it.
pub(crate) struct Purse {
    cells: Box<[Cell]>,
    /// Whether some cell may have to let go of all that comes back.
    tight: AtomicBool,
}

impl Purse {
    /// Tight at first: it may come after whoever has just made all others so.
    fn new(cells: usize) -> Self {
        Purse { cells: (0..cells).map(|_| Cell::new()).collect(), tight: AtomicBool::new(true) }
    }

    /// The cell for whatever has that index.
    #[inline(always)]
    pub(crate) fn cell(&self, index: usize) -> Option<&Cell> {
        self.cells.get(index)
    }

    /// Owner: a credit back into the cell with that index, unless the purse is tight: then false, and nothing is done.
    #[inline(always)]
    pub(crate) fn give_back(&self, index: usize) -> bool {
        // Relaxed: it takes effect as soon as it is seen.
        if self.tight.load(Ordering::Relaxed) {
            return false;
        }
        let Some(cell) = self.cell(index) else { return false };
        cell.give_back(1);
        cell.trim(KEEP);
        true
    }

    /// Anybody: what comes back is for whoever keeps the accounts to see, from when this is seen.
    pub(crate) fn tighten(&self) {
        // Release: pairs with the Acquire in `relax`; why it is tight comes before.
        self.tight.store(true, Ordering::Release);
    }

    /// Owner: it is tight no more, if it is still found, after this, that there is no reason for it.
    pub(crate) fn relax(&self) {
        // AcqRel: Acquire pairs with the Release in `tighten`; its reason is seen, or it comes after this.
        self.tight.swap(false, Ordering::AcqRel);
    }
}

/// How many threads without a magazine can take credits at the same time.
const SPARE: usize = if cfg!(loom) { 1 } else { 16 };

/// The purses of one tier, by the number of their owner's magazine: a magazine has one owner at a time, so has its purse, and
/// who adopts the magazine goes on with it.
///
/// Threads without a magazine borrow a spare purse to take credits, and give them back to one that has no owner.
pub(crate) struct Purses {
    /// First the one without owner, then the spare ones, then those of the magazines.
    purses: Box<[OnceLock<Purse>]>,
    /// No purse beyond this number was made.
    used: AtomicUsize,
    /// Which of the spare ones are lent.
    lent: [AtomicBool; SPARE],
    /// Cells of each.
    cells: usize,
}

impl Purses {
    /// Room for `owners` purses of `cells` cells each. 32 bytes an owner; a purse is made when it is first asked for.
    pub(crate) fn new(owners: usize, cells: usize) -> Self {
        Purses {
            purses: (0..1 + SPARE + owners).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
            lent: std::array::from_fn(|_| AtomicBool::new(false)),
            cells,
        }
    }

    /// The purse of an owner, for that owner; made at its first call. `None` if it is not one of so many.
    #[inline]
    pub(crate) fn of(&self, owner: usize) -> Option<&Purse> {
        self.at(1 + SPARE + owner)
    }

    /// A purse for a thread without a magazine. `None` if so many are lent already.
    pub(crate) fn lend(&self) -> Option<Lent<'_>> {
        // Acquire: pairs with the Release in `Lent::drop`; the borrower sees what the last one did.
        let at = self.lent.iter().position(|lent| !lent.swap(true, Ordering::Acquire))?;
        let lent = &self.lent[at];
        Some(Lent { purse: self.at(1 + at)?, lent })
    }

    /// The purse that has no owner: for [`Cell::give_back_by_anybody`] alone.
    pub(crate) fn of_nobody(&self) -> Option<&Purse> {
        self.at(0)
    }

    #[inline]
    fn at(&self, at: usize) -> Option<&Purse> {
        let purse = self.purses.get(at)?;
        purse.get().or_else(|| self.make(at))
    }

    #[cold]
    fn make(&self, at: usize) -> Option<&Purse> {
        let purse = self.purses.get(at)?.get_or_init(|| Purse::new(self.cells));
        // Release: pairs with the Acquire in `cells`; the purse is counted before it holds anything.
        self.used.fetch_max(at + 1, Ordering::Release);
        Some(purse)
    }

    /// Every purse.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Purse> {
        // Acquire: as in `cells`. A purse that is made after that is tight.
        let used = self.used.load(Ordering::Acquire);
        self.purses[..used].iter().filter_map(OnceLock::get)
    }

    /// Every cell with that index.
    pub(crate) fn cells(&self, index: usize) -> impl Iterator<Item = &Cell> {
        // Acquire: pairs with the Release in `make`.
        let used = self.used.load(Ordering::Acquire);
        self.purses[..used].iter().filter_map(move |purse| purse.get()?.cell(index))
    }
}

/// A spare purse, until this is dropped.
pub(crate) struct Lent<'a> {
    purse: &'a Purse,
    lent: &'a AtomicBool,
}

impl std::ops::Deref for Lent<'_> {
    type Target = Purse;

    fn deref(&self) -> &Purse {
        self.purse
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `lend`.
        self.lent.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn fence() -> Fence {
        Fence::chosen()
    }

    fn drain(cell: &Cell) {
        let mut drain = Drain::new(fence());
        drain.add(cell);
        drain.finish();
    }

    #[track_caller]
    fn assert_stands(cell: &Cell, granted: i32, used: i32) {
        let look = cell.look();
        assert_eq!((look.granted.cast_signed(), look.used.cast_signed(), look.settled), (granted, used, true));
    }

    /// A cell that was granted `n`, and has one in use.
    fn granted(n: u32) -> Cell {
        let cell = Cell::new();
        assert!(cell.take(1, fence()).err().unwrap().complete(n).is_ok());
        cell
    }

    #[test]
    fn what_was_granted_can_be_taken_and_no_more() {
        let cell = granted(3);
        assert!(cell.take(2, fence()).is_ok());
        assert_stands(&cell, 3, 3);
        assert!(cell.take(1, fence()).is_err());
        assert_stands(&cell, 3, 3);
        cell.give_back(1);
        assert_stands(&cell, 3, 2);
        assert!(cell.take(1, fence()).is_ok());
    }

    #[test]
    fn a_drain_leaves_what_is_in_use() {
        let cell = granted(5);
        drain(&cell);
        assert_stands(&cell, 1, 1);
        assert!(cell.take(1, fence()).is_err());
    }

    #[test]
    fn more_than_a_word_can_lift_goes_in_several_drains() {
        let cell = granted(5000);
        drain(&cell);
        assert_stands(&cell, 5000 - Grant::MOST.cast_signed(), 1);
        drain(&cell);
        drain(&cell);
        assert_stands(&cell, 1, 1);
    }

    #[test]
    fn an_owner_that_only_gives_back_owes_and_its_credits_can_be_had() {
        let cell = Cell::new();
        cell.give_back(2);
        assert_stands(&cell, 0, -2);
        assert!(cell.take(1, fence()).is_ok());
        drain(&cell);
        assert_stands(&cell, -1, -1);
    }

    #[test]
    fn a_thread_that_keeps_too_much_lets_go_of_it() {
        let cell = granted(9);
        cell.trim(4);
        assert_stands(&cell, 9, 1);
        cell.give_back(1);
        cell.trim(4);
        assert_stands(&cell, 4, 0);
    }

    #[test]
    fn a_drainer_that_stops_after_it_has_lifted_hides_nothing() {
        let cell = granted(3);
        let stopped = cell.lift().unwrap();
        assert!(!cell.look().settled);
        assert!(cell.take(1, fence()).is_ok(), "the owner takes back what was lifted");
        drain(&cell);
        assert_stands(&cell, 2, 2);
        cell.settle(stopped);
        assert_stands(&cell, 2, 2);
    }

    #[test]
    fn what_was_lifted_is_taken_by_another_drainer() {
        let cell = granted(3);
        let stopped = cell.lift().unwrap();
        drain(&cell);
        assert_stands(&cell, 1, 1);
        cell.settle(stopped);
        assert_stands(&cell, 1, 1);
    }

    #[test]
    fn a_draw_that_was_called_off_grants_nothing() {
        let cell = Cell::new();
        let drawing = cell.take(1, fence()).err().unwrap();
        drain(&cell);
        let drawing = drawing.complete(4).err().unwrap();
        assert_stands(&cell, 0, 0);
        assert!(drawing.complete(4).is_ok());
        assert_stands(&cell, 4, 1);
    }

    #[test]
    fn a_look_tells_every_change() {
        let cell = granted(3);
        let before = cell.look().changes;
        cell.give_back(1);
        assert!(cell.take(1, fence()).is_ok());
        assert_ne!(cell.look().changes, before, "as it was before, but not unchanged");
    }

    #[test]
    fn numbers_go_round() {
        let cell = Cell {
            granted: AtomicU64::new(u64::from(i32::MAX.cast_unsigned())),
            taken: AtomicU64::new(u64::from(i32::MAX.cast_unsigned())),
        };
        assert!(cell.take(1, fence()).err().unwrap().complete(2).is_ok());
        assert!(cell.take(1, fence()).is_ok());
        assert!(cell.take(1, fence()).is_err());
        drain(&cell);
        assert_eq!(cell.look().granted, i32::MAX.cast_unsigned() + 2);
    }

    #[test]
    fn purses_are_made_for_those_who_ask() {
        let purses = Purses::new(4, 2);
        assert_eq!(purses.cells(0).count(), 0);
        assert!(purses.of(2).unwrap().cell(1).is_some());
        assert!(std::ptr::eq(purses.of(2).unwrap(), purses.of(2).unwrap()));
        assert_eq!(purses.cells(1).count(), 1);
        assert!(purses.of(4).is_none() && purses.of(0).unwrap().cell(2).is_none());
    }

    #[test]
    fn a_spare_purse_is_lent_to_one_at_a_time() {
        let purses = Purses::new(0, 1);
        let lent: Vec<_> = std::iter::from_fn(|| purses.lend()).collect();
        assert_eq!(lent.len(), SPARE);
        assert!(lent.iter().skip(1).all(|other| !std::ptr::eq(&**other, &*lent[0])));
        let first = &*lent[0] as *const Purse;
        drop(lent);
        assert!(std::ptr::eq(&*purses.lend().unwrap(), first));
    }
}
