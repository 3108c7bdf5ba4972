//! Slots without a value: how they come about, and how the factory fills them again.
//!
//! A slot loses its value when the holder takes or discards it, when reset or cleaning panics, or when an examination
//! finds it broken or too old. It is rebuilt at once, by whoever holds it; if the factory fails or panics, the slot is
//! `Quarantined`. The reclaimer, and allocations that find nothing free, try again: after a pause that grows while it
//! fails ([`backoff`](super::backoff)), and one after the other as long as it succeeds.

use super::allocate::Taken;
use super::backoff::Backoff;
use super::close;
use super::core::{Core, flags};
use super::notice::{self, Report};
use super::release::{self, Returned};
use super::values::{NoValue, Panic, Payload, dispose, rethrow};
use super::{account, attach, background, clean};
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Makes the value of a returned slot fit for the next user. False if the value had to go and the slot has been dealt with.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value.
pub(crate) unsafe fn prepare<T: 'static>(core: &'static Core, returned: &Returned) -> bool {
    let now = core.flags.load(Ordering::Relaxed);
    // SAFETY: the caller holds the slot and its value, so the tier of `T`s has not ended.
    let payload = unsafe { Payload::<T>::of(core) };
    let index = returned.taken.index;
    let broken = now & flags::WATCHES_PANICS != 0 && std::thread::panicking() && !returned.born_in_panic;
    let outcome = if broken {
        Ok(false)
    } else if now & flags::PREPARES == 0 {
        return true;
    } else {
        // SAFETY: the caller holds the slot and its value.
        unsafe { payload.finish_use(index) }
    };
    match outcome {
        Ok(true) => return true,
        // SAFETY: by this function's own contract.
        Ok(false) => unsafe { discard::<T>(core, returned, None) },
        // SAFETY: as above.
        Err(panic) => unsafe { discard::<T>(core, returned, Some(panic)) },
    }
    false
}

/// Drops the value of a returned slot and rebuilds it. The first panic goes on when the slot is safe.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value, which is not used again.
pub(crate) unsafe fn discard<T: 'static>(core: &'static Core, returned: &Returned, panic: Option<Panic>) {
    // SAFETY: the caller holds the slot and its value; after the drop the slot has no value.
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
    // SAFETY: by this function's own contract. A factory's panic is a failure like any other: the hook has reported it,
    // the slot stays counted.
    if open && unsafe { is_built(core, taken.index) } {
        let second = release::give_back::<T>(core, None, taken, site).err();
        rethrow(panic.or(second));
    } else {
        quarantine(core, taken.index, taken.word.to(State::Quarantined));
        rethrow(panic);
    }
}

/// Replaces the value of a slot that the caller goes on holding. False if there is no new one: then the slot is quarantined,
/// and the caller holds it no more. A panic in the old value's `Drop` is returned beside it.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value, which is not used again.
pub(crate) unsafe fn renew<T: 'static>(core: &'static Core, taken: Taken) -> (bool, Option<Panic>) {
    // SAFETY: the caller holds the slot and its value; after the drop it has none.
    let (panic, built) = unsafe { (Payload::<T>::of(core).drop_value(taken.index).err(), is_built(core, taken.index)) };
    if !built {
        quarantine(core, taken.index, taken.word.to(State::Quarantined));
    }
    (built, panic)
}

/// Makes a value; false if the factory made none.
///
/// # Safety
/// The caller holds the slot, which has no value.
unsafe fn is_built(core: &Core, index: u32) -> bool {
    // SAFETY: by the contract; `build` is this tier's.
    unsafe { (core.incarnation().build)(core, index) }.map_err(dispose).is_ok()
}

/// For the holder of a slot without value: nobody's, until rebuilt.
fn quarantine(core: &'static Core, index: u32, word: Word) {
    let header = core.header(index);
    core.quarantined.fetch_add(1, Ordering::Relaxed);
    core.quarantines.fetch_add(1, Ordering::Relaxed);
    core.note_mends();
    account::settle(core, attach::current(core), index);
    header.set_note(Note::None);
    header.give(word);
    // Pairs with the heavy fence in `close`: either the closer's sweep sees the word, or this sees the flag.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        return close::bury_vacant(core, index, word);
    }
    background::kick(core, core.rebuilding.due());
}

/// Whether an attempt to rebuild a slot may be made now.
pub(crate) fn is_possible(core: &Core) -> bool {
    core.quarantined.load(Ordering::Relaxed) > 0 && core.rebuilding.is_due()
}

/// Rebuilds one quarantined slot for the caller, who then holds it in maintenance, if there is one and the factory is willing.
pub(crate) fn one(core: &'static Core) -> Option<Taken> {
    if !is_possible(core) {
        return None;
    }
    for (index, header) in core.headers().iter().enumerate() {
        let word = header.word();
        if !word.is(State::Quarantined) {
            continue;
        }
        if !core.rebuilding.begin() {
            return None;
        }
        let taken = Taken { word: word.to(State::Maintenance), index: index as u32 };
        if !header.compare_exchange(word, taken.word) {
            continue;
        }
        core.quarantined.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the claim made the slot ours, and a quarantined slot has no value.
        if let Err(why) = unsafe { (core.incarnation().build)(core, taken.index) } {
            quarantine(core, taken.index, taken.word.to(State::Quarantined));
            tell_failure(core, &core.rebuilding, why);
            return None;
        }
        core.rebuilding.succeeded();
        return Some(taken);
    }
    None
}

/// Notes that the factory has failed, and reports it.
pub(crate) fn tell_failure(core: &Core, backoff: &Backoff, why: NoValue) {
    let (failures, retry_in) = backoff.failed(core.life().pauses);
    notice::tell(core, || Report::BuildFailed {
        tier: core.incarnation().name,
        failures,
        retry_in,
        source: match why {
            NoValue::Refused(source) => Some(source),
            NoValue::Panicked => None,
        },
    });
}

/// In a pass: rebuilds what can be rebuilt, and gives it back. Returns how many.
pub(crate) fn all<T: 'static>(core: &'static Core) -> usize {
    std::iter::from_fn(|| one(core)).map(|taken| clean::restore::<T>(core, taken)).count()
}
