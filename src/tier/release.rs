//! From a lease back to a free slot: the hot path, and what scarcity, a full magazine and a closed tier add to it.
//!
//! Hot: push the hint, which marks the release as under way; light fence; look whether slots are scarce; store the free
//! word; light fence; look whether the tier was closed. No read-modify-write, and nothing that waits.

use super::allocate::Taken;
use super::attach;
use super::close;
use super::core::{Core, flags};
use super::magazine::{Hint, Magazine};
use super::scarcity;
use super::values::{Panic, rethrow};
use crate::slot::header::Site;
use crate::slot::word::State;
use crate::sync::Ordering;
use crate::sync::fence::light;

/// Gives a leased slot, with a value fit for the next user, back through the thread's magazine.
#[inline(always)]
pub(crate) fn give_back<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>) {
    match attach::current(core) {
        Some(magazine) if !magazine.is_full() => give_to::<T>(core, magazine, taken, site),
        _ => give_back_slow::<T>(core, taken, site),
    }
}

/// Gives it back through `magazine`, which the thread owns and which is not full.
#[inline(always)]
pub(crate) fn give_to<T: 'static>(core: &'static Core, magazine: &Magazine, taken: Taken, site: Option<Site>) {
    let free = taken.word.next(State::Free);
    magazine.push(Hint { word: free, index: taken.index });
    // Pairs with the heavy fence of `scarcity::find_or_refuse`: either it finds the mark just pushed, or this load
    // finds SCARCE.
    light();
    if core.flags.load(Ordering::Relaxed) & flags::SCARCE != 0 {
        magazine.unpush(1);
        return give_counted::<T>(core, Some(magazine), taken, site);
    }
    let header = core.header(taken.index);
    header.set_released(site);
    header.give(free);
    // Pairs with the heavy fence of `close`: either its sweep finds the word just given, or this load finds CLOSED.
    // The slot is no longer ours, so from here on only the permanent parts of the control block may be touched.
    light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        rethrow(close::bury::<T>(core, taken.index, free).err());
    }
}

/// Gives several back, in chunks of what the magazine has room for: one pair of fences and of looks a chunk.
pub(crate) fn give_back_many<T: 'static>(core: &'static Core, mut taken: &[Taken], site: Option<Site>) {
    let mut panic = None;
    while !taken.is_empty() {
        let Some(magazine) = attach::current(core) else {
            let (first, rest) = taken.split_at(1);
            give_back_slow::<T>(core, first[0], site);
            taken = rest;
            continue;
        };
        make_room(core, magazine);
        let (now, rest) = taken.split_at(magazine.room().min(taken.len()));
        panic = panic.or(give_many_to::<T>(core, magazine, now, site));
        taken = rest;
    }
    rethrow(panic);
}

/// As [`give_to`], for as many as the magazine has room for. A panic in a value's `Drop` is returned.
fn give_many_to<T: 'static>(
    core: &'static Core,
    magazine: &Magazine,
    taken: &[Taken],
    site: Option<Site>,
) -> Option<Panic> {
    for &Taken { word, index } in taken {
        magazine.push(Hint { word: word.next(State::Free), index });
    }
    // As in `give_to`, for all the marks at once.
    light();
    if core.flags.load(Ordering::Relaxed) & flags::SCARCE != 0 {
        magazine.unpush(taken.len());
        taken.iter().for_each(|&taken| give_counted::<T>(core, Some(magazine), taken, site));
        return None;
    }
    for &Taken { word, index } in taken {
        let header = core.header(index);
        header.set_released(site);
        header.give(word.next(State::Free));
    }
    // As in `give_to`.
    light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED == 0 {
        return None;
    }
    let bury = |&Taken { word, index }: &Taken| close::bury::<T>(core, index, word.next(State::Free)).err();
    taken.iter().map(bury).fold(None, |first, next| first.or(next))
}

/// The magazine is full, or this thread has none yet, or none any more.
#[cold]
#[inline(never)]
fn give_back_slow<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>) {
    match attach::attach(core) {
        Some(magazine) => {
            make_room(core, magazine);
            give_to::<T>(core, magazine, taken, site);
        }
        None => give_counted::<T>(core, None, taken, site),
    }
}

/// Makes room for at least one hint.
#[inline]
pub(crate) fn make_room(core: &Core, magazine: &Magazine) {
    if magazine.is_full() {
        magazine.flush(core);
    }
}

/// Under scarcity, or without a magazine: announces the slot in the exact count first, and leaves the hint where
/// everybody looks.
#[cold]
#[inline(never)]
pub(crate) fn give_counted<T: 'static>(
    core: &'static Core,
    magazine: Option<&Magazine>,
    taken: Taken,
    site: Option<Site>,
) {
    scarcity::count_release(core);
    scarcity::end_if_plenty(core);
    match magazine {
        Some(magazine) => magazine.note_released_elsewhere(),
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
        && !magazine.is_full()
    {
        magazine.found(Hint { word: free, index: taken.index });
    }
    // As in `give_to`.
    light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        rethrow(close::bury::<T>(core, taken.index, free).err());
    }
}
