//! From a lease back to a free slot: the hot path, and what scarcity, a full magazine and a closed tier add to it.
//!
//! Hot: push the hint, which marks the release as under way; light fence; look whether slots are scarce; store the free
//! word; light fence; look whether the tier was closed or somebody waits. No read-modify-write, and nothing that waits.

use super::allocate::Taken;
use super::attach;
use super::core::{Core, flags};
use super::depot::BATCH;
use super::magazine::{Hint, Magazine};
use super::values::{Panic, rethrow};
use super::{account, clean, close, rebuild, reserve, scarcity, wait};
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::{Ordering, fence};

/// The flags that send a release the slow way.
const SLOW: u64 = COUNTED | flags::ONE_BY_ONE | flags::GOVERNED;

/// The flags under which a release leaves no hint in its magazine.
const COUNTED: u64 = flags::SCARCE | flags::WAITERS | flags::REFILLS;

/// The flags for which a release has something to do after its slot was given.
const AFTER: u64 = flags::CLOSED | flags::WAITERS;

/// A leased slot whose holder is done with it.
#[derive(Clone, Copy)]
pub(crate) struct Returned {
    pub(crate) taken: Taken,
    /// The line of an explicit release.
    pub(crate) site: Option<Site>,
    /// Whether the lease was made while its thread was panicking; known only if the tier watches panics.
    pub(crate) born_in_panic: bool,
}

/// How far a release got before it had to leave the hot path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing was done: there is no magazine at hand, or no room in it, or the process uses the portable fence.
    Nothing,
    /// The hint was pushed: the tier resets or watches panics, slots are scarce, or somebody waits for one.
    Mark,
    /// The slot was given, to a tier that is closed or has waiters.
    Free,
    /// There is nothing left to do.
    End,
}

/// Releases through the thread's magazine.
#[inline(always)]
pub(crate) fn release<T: 'static>(core: &'static Core, returned: Returned) {
    release_through::<T>(core, attach::current_if_membarrier(core), returned);
}

/// Releases through a magazine that the thread owns, in whatever process.
#[inline(always)]
pub(crate) fn release_to<T: 'static>(core: &'static Core, magazine: &Magazine, returned: Returned) {
    if core.fence.is_membarrier() {
        release_through::<T>(core, Some(magazine), returned);
    } else {
        let Returned { taken, site, born_in_panic } = returned;
        release_slow::<T>(core, Some(magazine), taken.word, taken.index, born_in_panic, site, Reached::Nothing);
    }
}

/// The hot path, in a process with `membarrier`.
///
/// One call leads out of here, and takes what it needs in registers: so this is small enough to be inlined where leases
/// are dropped, and a lease need not lie in memory for it.
#[inline(always)]
fn release_through<T: 'static>(core: &'static Core, magazine: Option<&Magazine>, returned: Returned) {
    let Returned { taken: Taken { word, index }, site, born_in_panic } = returned;
    let reached = attempt(core, magazine, word, index, site, fence::light_beside_membarrier);
    if reached != Reached::End {
        release_slow::<T>(core, magazine, word, index, born_in_panic, site, reached);
    }
}

/// The steps of the hot path, with either kind of light fence.
#[inline(always)]
fn attempt(
    core: &Core,
    magazine: Option<&Magazine>,
    word: Word,
    index: u32,
    site: Option<Site>,
    light: impl Fn(),
) -> Reached {
    let Some(magazine) = magazine else { return Reached::Nothing };
    let free = word.next(State::Free);
    if !magazine.push(Hint { word: free, index }) {
        return Reached::Nothing;
    }
    // Pairs with the heavy fence of `scarcity::find_or_refuse`: either it finds the mark just pushed, or the load
    // below finds SCARCE.
    light();
    if core.flags.load(Ordering::Relaxed) & SLOW != 0 {
        return Reached::Mark;
    }
    give(core, free, index, site);
    // Pairs with the heavy fences of `close` and of a new waiter: either its look finds the word just given, or the
    // load below finds its flag. The slot is not ours any more, so only the permanent parts of the control block
    // may be touched.
    light();
    if core.flags.load(Ordering::Relaxed) & AFTER != 0 {
        return Reached::Free;
    }
    Reached::End
}

/// The slot is free from here on.
#[inline(always)]
fn give(core: &Core, free: Word, index: u32, site: Option<Site>) {
    let header = core.header(index);
    if !crate::BARE && (site.is_some() || header.has_note()) {
        header.set_note(Note::released(site));
    }
    header.give(free);
}

/// Goes on where the hot path could not.
#[cold]
#[inline(never)]
fn release_slow<T: 'static>(
    core: &'static Core,
    magazine: Option<&Magazine>,
    word: Word,
    index: u32,
    born_in_panic: bool,
    site: Option<Site>,
    mut reached: Reached,
) {
    if !core.fence.is_membarrier() {
        // Here the hot path did not even try.
        let magazine = magazine.or_else(|| attach::current(core));
        reached = attempt(core, magazine, word, index, site, || core.fence.light());
        if reached == Reached::End {
            return;
        }
    }
    if reached == Reached::Free {
        return rethrow(after_giving::<T>(core, index, word.next(State::Free)).err());
    }
    if reached == Reached::Mark
        && let Some(magazine) = magazine.or_else(|| attach::current(core))
    {
        if core.flags.load(Ordering::Relaxed) & SLOW == flags::GOVERNED {
            // As on the hot path, from the mark on; there a call would keep it from being inlined.
            let free = word.next(State::Free);
            account::settle(core, Some(magazine), index);
            give(core, free, index, site);
            core.fence.light();
            if core.flags.load(Ordering::Relaxed) & AFTER != 0 {
                rethrow(after_giving::<T>(core, index, free).err());
            }
            return;
        }
        magazine.unpush();
    }
    let taken = Taken { word, index };
    let now = core.flags.load(Ordering::Relaxed);
    if now & COUNTED != 0 && now & flags::ONE_BY_ONE == 0 {
        // The short way, to whoever waits above all.
        return rethrow(give_counted::<T>(core, magazine, taken, site).err());
    }
    // SAFETY: by the caller's type and contract it holds `taken`, a slot of a tier of `T`s, and its value.
    if unsafe { rebuild::prepare::<T>(core, &Returned { taken, site, born_in_panic }) } {
        let now = core.flags.load(Ordering::Relaxed);
        rethrow(if now & flags::DEFERS == 0 {
            give_back::<T>(core, magazine, taken, site).err()
        } else if wait::is_awaited(core) {
            // SAFETY: as above.
            unsafe { clean::at_once::<T>(core, taken, site) }
        } else {
            note_release(core, magazine);
            clean::put_off::<T>(core, taken, site).err()
        });
    }
}

/// Counts a release whose hint was not pushed.
pub(crate) fn note_release(core: &Core, magazine: Option<&Magazine>) {
    match magazine {
        Some(magazine) => magazine.note_elsewhere(0, 1),
        None => {
            core.unserved.releases.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes up for the next [`give_back`], which is to count no release.
pub(crate) fn uncount(core: &'static Core) {
    match attach::attach(core) {
        Some(magazine) => magazine.note_elsewhere(0, 1usize.wrapping_neg()),
        None => {
            core.unserved.releases.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Gives a slot that the caller holds (leased, or in maintenance), with a value fit for the next user, back through `magazine`, or else the thread's, attaching one if
/// need be. A panic in the value's `Drop` is returned.
pub(crate) fn give_back<T: 'static>(
    core: &'static Core,
    magazine: Option<&Magazine>,
    taken: Taken,
    site: Option<Site>,
) -> Result<(), Panic> {
    let Some(magazine) = magazine.or_else(|| attach::attach(core)) else {
        return give_counted::<T>(core, None, taken, site);
    };
    account::settle(core, Some(magazine), taken.index);
    magazine.make_room(core);
    let (free, index) = (taken.word.to(State::Free), taken.index);
    magazine.push(Hint { word: free, index });
    // As in `release_through`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & COUNTED != 0 {
        magazine.unpush();
        return give_counted::<T>(core, Some(magazine), taken, site);
    }
    give(core, free, index, site);
    // As in `release_through`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & AFTER != 0 {
        return after_giving::<T>(core, index, free);
    }
    Ok(())
}

/// What a closed tier or its waiters want of a slot that was just given. A panic in the value's `Drop` or in a waiter's
/// waker is returned.
#[cold]
fn after_giving<T: 'static>(core: &'static Core, index: u32, word: Word) -> Result<(), Panic> {
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::CLOSED != 0 {
        close::bury::<T>(core, index, word)
    } else if now & flags::WAITERS != 0 {
        wait::attend(core, Some(Hint { word, index }))
    } else {
        Ok(()) // nobody waits any more
    }
}

/// Gives many leased slots back, their values fit for the next user: one pair of fences and of looks at the flags, and the
/// hints straight to the depot. A panic in a value's `Drop` is returned.
pub(crate) fn give_back_many<T: 'static>(core: &'static Core, held: &[u32], site: Option<Site>) -> Option<Panic> {
    let &[ref rest @ .., anchor] = held else { return None };
    let mut panic = None;
    match attach::attach(core) {
        Some(magazine) if mark_many(core, magazine) => {
            magazine.note_elsewhere(0, rest.len());
            rest.iter().for_each(|&index| account::settle(core, Some(magazine), index));
            rest.iter().for_each(|&index| give(core, core.header(index).held_word().to(State::Free), index, site));
            magazine.set_bulk(false);
            // As in `release_through`.
            core.fence.light();
            let now = core.flags.load(Ordering::Relaxed);
            if now & flags::CLOSED == 0 {
                for batch in rest.chunks(BATCH) {
                    core.depot.store(batch.iter().copied());
                }
            }
            if now & AFTER != 0 {
                // Whoever else has a hand in it does the same; the anchor keeps the tier from ending meanwhile.
                for &index in rest {
                    let word = core.header(index).word();
                    if word.is_free() {
                        panic = panic.or(after_giving::<T>(core, index, word).err());
                    }
                }
            }
        }
        magazine => {
            for &index in rest {
                let taken = Taken { word: core.header(index).held_word(), index };
                panic = panic.or(give_counted::<T>(core, magazine, taken, site).err());
            }
        }
    }
    let anchor = Taken { word: core.header(anchor).held_word(), index: anchor };
    panic.or(give_back::<T>(core, None, anchor, site).err())
}

/// One mark for many slots: the bulk flag. False, and no mark, under scarcity or with waiters.
fn mark_many(core: &Core, magazine: &Magazine) -> bool {
    magazine.set_bulk(true);
    // As in `release_through`.
    core.fence.light();
    let plenty = core.flags.load(Ordering::Relaxed) & COUNTED == 0;
    if !plenty {
        magazine.set_bulk(false);
    }
    plenty
}

/// Under scarcity, with waiters, with a reserve to refill, or without a magazine: puts the slot into the reserve or hands
/// it over; or else announces it in the exact count
/// first, and leaves the hint where everybody looks.
#[cold]
#[inline(never)]
fn give_counted<T: 'static>(
    core: &'static Core,
    magazine: Option<&Magazine>,
    taken: Taken,
    site: Option<Site>,
) -> Result<(), Panic> {
    note_release(core, magazine);
    account::settle(core, magazine, taken.index);
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::REFILLS != 0
        && let Some(refilled) = reserve::refill::<T>(core, taken, site)
    {
        return refilled;
    }
    if now & flags::WAITERS != 0
        && let Some(handed_over) = wait::hand_over(core, taken, site)
    {
        return handed_over;
    }
    scarcity::count_release(core);
    scarcity::end_if_plenty(core);
    let free = taken.word.to(State::Counted);
    let header = core.header(taken.index);
    header.set_note(Note::released(site));
    header.give(free);
    if !core.depot.store(std::iter::once(taken.index))
        && let Some(magazine) = magazine
    {
        magazine.found(Hint { word: free, index: taken.index });
    }
    // As in `release_through`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & AFTER != 0 {
        return after_giving::<T>(core, taken.index, free);
    }
    Ok(())
}
