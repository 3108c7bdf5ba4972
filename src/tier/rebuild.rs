//! Slots without a value: how they come about, and how the factory fills them again.
//!
//! A slot loses its value when the holder takes or discards it, or when reset panics. It is rebuilt at once, on the
//! holder's thread; if the factory fails or panics, the slot is `Quarantined`, and allocations that find nothing free
//! try again: one attempt a clock tick while it fails, without a pause once it succeeds.

use super::allocate::{Caller, Taken, served};
use super::close;
use super::core::{Core, flags};
use super::release::{self, Returned};
use super::values::{Panic, Payload, rethrow};
use crate::clock;
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Makes the value of a returned slot fit for the next user. False if the value had to go and the slot has been dealt with.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value.
pub(crate) unsafe fn prepare<T: 'static>(core: &'static Core, returned: &Returned) -> bool {
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::WATCHES_PANICS != 0 && std::thread::panicking() && !returned.born_in_panic {
        // SAFETY: by this function's own contract.
        unsafe { discard::<T>(core, returned, None) };
        return false;
    }
    if now & flags::RESETS == 0 {
        return true;
    }
    // SAFETY: the caller holds the slot and its value, so the tier of `T`s has not ended.
    match unsafe { Payload::<T>::of(core).reset(returned.taken.index) } {
        Ok(()) => true,
        Err(panic) => {
            // SAFETY: by this function's own contract.
            unsafe { discard::<T>(core, returned, Some(panic)) };
            false
        }
    }
}

/// Drops the value of a returned slot and rebuilds it. The first panic goes on when the slot is safe.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value, which is not used again.
pub(crate) unsafe fn discard<T: 'static>(core: &'static Core, returned: &Returned, panic: Option<Panic>) {
    // SAFETY: by this function's own contract; after the drop the slot has no value.
    unsafe {
        let second = Payload::<T>::of(core).drop_value(returned.taken.index).err();
        vacate::<T>(core, returned.taken, returned.site, panic.or(second));
    }
}

/// The holder's slot has no value: rebuilds it and gives it back, or quarantines it. `panic` is what the holder's code
/// did, to be gone on with when the slot is safe.
///
/// # Safety
/// The tier in `core` is one of `T`s, the caller holds `taken`, and the slot has no value.
#[cold]
pub(crate) unsafe fn vacate<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>, panic: Option<Panic>) {
    let open = core.flags.load(Ordering::Relaxed) & flags::CLOSED == 0;
    // SAFETY: the caller holds a slot of this tier of `T`s, and it has no value. A factory's panic is a failure like
    // any other: the hook has reported it, the slot stays counted.
    if open && unsafe { Payload::<T>::of(core).build(taken.index) }.is_ok() {
        let second = release::give_back::<T>(core, None, taken, site).err();
        rethrow(panic.or(second));
    } else {
        quarantine(core, taken.index, taken.word.to(State::Quarantined));
        rethrow(panic);
    }
}

/// For the holder of a slot without value: nobody's, until rebuilt.
fn quarantine(core: &'static Core, index: u32, word: Word) {
    let header = core.header(index);
    core.quarantined.fetch_add(1, Ordering::Relaxed);
    header.set_note(Note::None);
    header.give(word);
    // Pairs with the heavy fence in `close`: either the closer's sweep sees the word, or this sees the flag.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        close::bury_vacant(core, index, word);
    }
}

/// Rebuilds a quarantined slot for the caller, if there is one and the factory is willing.
pub(crate) fn one(core: &'static Core, caller: &Caller) -> Option<Taken> {
    if core.quarantined.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // One attempt a tick, by whoever comes first; 0 stands for never.
    clock::tick();
    let now = clock::now().0.wrapping_add(1);
    let last = core.rebuilt_at.load(Ordering::Relaxed);
    if last == now || core.rebuilt_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return None;
    }
    for (index, header) in core.headers().iter().enumerate() {
        let word = header.word();
        let claimed = word.to(State::Maintenance);
        if !word.is(State::Quarantined) || !header.compare_exchange(word, claimed) {
            continue;
        }
        let index = index as u32;
        core.quarantined.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the claim made the slot ours, a quarantined slot has no value, and `build` is this tier's.
        if unsafe { (core.incarnation().build)(core, index) }.is_err() {
            quarantine(core, index, claimed.to(State::Quarantined));
            return None;
        }
        core.rebuilt_at.store(0, Ordering::Relaxed);
        served(core, caller);
        return Some(Taken { word: header.lease(claimed, caller.site, caller.stamp()), index });
    }
    None
}
