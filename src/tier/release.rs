//! From a lease back to a free slot: the hot path, and what scarcity, a full magazine and a closed tier add to it.
//!
//! Hot: push the hint, which marks the release as under way; light fence; look whether slots are scarce; store the free
//! word; light fence; look whether the tier was closed. No read-modify-write, and nothing that waits.

use super::allocate::Taken;
use super::attach;
use super::close;
use super::core::{Core, flags};
use super::depot::BATCH;
use super::magazine::{Hint, Magazine};
use super::rebuild;
use super::scarcity;
use super::values::rethrow;
use crate::slot::header::Site;
use crate::slot::word::State;
use crate::sync::Ordering;

/// What a release does besides: the flags that send it the slow way.
const SLOW: u64 = flags::SCARCE | flags::RESETS | flags::WATCHES_PANICS;

/// A leased slot whose holder is done with it.
#[derive(Clone, Copy)]
pub(crate) struct Returned {
    pub(crate) taken: Taken,
    /// The line of an explicit release.
    pub(crate) site: Option<Site>,
    /// Whether the lease was made while its thread was panicking; known only if the tier watches panics.
    pub(crate) born_in_panic: bool,
}

/// Releases through the thread's magazine.
#[inline(always)]
pub(crate) fn release<T: 'static>(core: &'static Core, returned: Returned) {
    release_through::<T>(core, attach::current(core), returned);
}

/// Releases through `magazine`, which the thread owns; the slow way if there is none or it is full.
///
/// One call leads out of here, so that this is small enough to stand where leases are dropped.
#[inline(always)]
pub(crate) fn release_through<T: 'static>(core: &'static Core, magazine: Option<&Magazine>, returned: Returned) {
    let mut given = false;
    if let Some(magazine) = magazine
        && mark(core, magazine, &returned.taken, SLOW)
    {
        given = true;
        give(core, &returned.taken, returned.site);
        if core.flags.load(Ordering::Relaxed) & flags::CLOSED == 0 {
            return;
        }
    }
    release_slow::<T>(core, magazine, returned, given);
}

/// Pushes the hint that marks a release as under way, unless the tier has one of the flags `unless`, or the magazine is full.
#[inline(always)]
fn mark(core: &Core, magazine: &Magazine, taken: &Taken, unless: u64) -> bool {
    if !magazine.push(Hint { word: taken.word.next(State::Free), index: taken.index }) {
        return false;
    }
    // Pairs with the heavy fence of `scarcity::find_or_refuse`: either it finds the mark just pushed, or the load
    // below finds SCARCE.
    core.fence.light();
    let clear = core.flags.load(Ordering::Relaxed) & unless == 0;
    if !clear {
        magazine.unpush();
    }
    clear
}

/// The slot is free. The caller then looks whether the tier was closed: it no longer holds a slot, so only the permanent
/// parts of the control block may be touched.
#[inline(always)]
fn give(core: &Core, taken: &Taken, site: Option<Site>) {
    let header = core.header(taken.index);
    header.set_released(site);
    header.give(taken.word.next(State::Free));
    // Pairs with the heavy fence of `close`: either its sweep finds the word just given, or the caller finds CLOSED.
    core.fence.light();
}

/// The slot was `given` back to a tier that is closed; or it was not given, since the tier resets or watches panics, slots
/// are scarce, the magazine is full, or there is none yet.
#[cold]
#[inline(never)]
fn release_slow<T: 'static>(core: &'static Core, magazine: Option<&Magazine>, returned: Returned, given: bool) {
    let Returned { taken, site, .. } = returned;
    if given {
        rethrow(close::bury::<T>(core, taken.index, taken.word.next(State::Free)).err());
        return;
    }
    // SAFETY: by the caller's type and contract it holds `taken`, a slot of a tier of `T`s, and its value.
    if unsafe { rebuild::prepare::<T>(core, &returned) } {
        give_back::<T>(core, magazine, taken, site);
    }
}

/// Gives a leased slot, with a value fit for the next user, back through `magazine`, or else the thread's, attaching one if
/// need be.
pub(crate) fn give_back<T: 'static>(
    core: &'static Core,
    magazine: Option<&Magazine>,
    taken: Taken,
    site: Option<Site>,
) {
    let Some(magazine) = magazine.or_else(|| attach::attach(core)) else {
        return give_counted::<T>(core, None, taken, site);
    };
    magazine.make_room(core);
    if !mark(core, magazine, &taken, flags::SCARCE) {
        return give_counted::<T>(core, Some(magazine), taken, site);
    }
    give(core, &taken, site);
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        rethrow(close::bury::<T>(core, taken.index, taken.word.next(State::Free)).err());
    }
}

/// Gives many back: one pair of fences and of looks at the flags, and the hints straight to the depot.
pub(crate) fn give_back_many<T: 'static>(core: &'static Core, taken: &[Taken], site: Option<Site>) {
    let Some(magazine) = attach::attach(core) else {
        return taken.iter().for_each(|&taken| give_counted::<T>(core, None, taken, site));
    };
    // Stands for the marks of all.
    magazine.set_bulk(true);
    // As in `mark`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::SCARCE != 0 {
        magazine.set_bulk(false);
        return taken.iter().for_each(|&taken| give_counted::<T>(core, Some(magazine), taken, site));
    }
    // Counted before they are given: then the tier may end.
    magazine.note_elsewhere(0, taken.len());
    for &Taken { word, index } in taken {
        let header = core.header(index);
        header.set_released(site);
        header.give(word.next(State::Free));
    }
    magazine.set_bulk(false);
    // As in `give`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        let bury = |&Taken { word, index }: &Taken| close::bury::<T>(core, index, word.next(State::Free)).err();
        return rethrow(taken.iter().map(bury).fold(None, |first, next| first.or(next)));
    }
    for batch in taken.chunks(BATCH) {
        core.depot.store(batch.iter().map(|taken| taken.index));
    }
}

/// Under scarcity, or without a magazine: announces the slot in the exact count first, and leaves the hint where
/// everybody looks.
#[cold]
#[inline(never)]
fn give_counted<T: 'static>(core: &'static Core, magazine: Option<&Magazine>, taken: Taken, site: Option<Site>) {
    scarcity::count_release(core);
    scarcity::end_if_plenty(core);
    match magazine {
        Some(magazine) => magazine.note_elsewhere(0, 1),
        None => {
            core.unserved.releases.fetch_add(1, Ordering::Relaxed);
        }
    }
    let free = taken.word.next(State::Counted);
    let header = core.header(taken.index);
    header.set_released(site);
    header.give(free);
    if !core.depot.store(std::iter::once(taken.index))
        && let Some(magazine) = magazine
    {
        magazine.found(Hint { word: free, index: taken.index });
    }
    // As in `give`.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        rethrow(close::bury::<T>(core, taken.index, free).err());
    }
}
