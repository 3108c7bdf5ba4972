//! Values are examined before they are handed out: by the program's own check, and by their age.

use super::allocate::{self, Caller, Taken};
use super::core::{Core, flags};
use super::lease::Lease;
use super::magazine::Magazine;
use super::values::{Payload, rethrow};
use super::{rebuild, release};
use crate::clock;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::Ordering;

/// A lease whose value may be handed out, or `None`.
///
/// # Safety
/// The tier in `core` is one of `T`s.
///
/// # Panics
/// If the program's check panics; the slot is safe then.
#[inline(always)]
pub(crate) unsafe fn allocate<T: 'static>(core: &'static Core, caller: Caller) -> Option<Lease<T>> {
    let index = allocate::allocate(core, caller)?;
    // SAFETY: by the contract; the slot has just been leased to this call.
    unsafe {
        if core.flags.load(Ordering::Relaxed) & (flags::VALIDATES | flags::WATCHES_PANICS) == 0 {
            Some(Lease::with_birth(core, index, false))
        } else {
            // In parts, so that the caller need not lie in memory.
            examined(core, index, caller.site, caller.label, caller.magazine)
        }
    }
}

/// Goes on until the slot has a value that passes.
///
/// # Safety
/// The tier in `core` is one of `T`s, and `index` has just been leased to the caller.
#[cold]
#[inline(never)]
unsafe fn examined<T: 'static>(
    core: &'static Core,
    mut index: u32,
    site: Site,
    label: Label,
    magazine: Option<&'static Magazine>,
) -> Option<Lease<T>> {
    let caller = Caller { site, label, magazine };
    // Ends: each turn but the last takes a slot out of service.
    // SAFETY: by the contract, and as `allocate` leases the next slot to the caller.
    while !unsafe { is_fit::<T>(core, index) } {
        index = allocate::allocate(core, caller)?;
    }
    // SAFETY: as above.
    Some(unsafe { Lease::new(core, index) })
}

/// Whether the value of a slot that the caller has just leased may be handed out; a bad one is replaced. If it cannot be,
/// the slot is quarantined, and the caller holds it no more.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value.
///
/// # Panics
/// If the program's check panics; the slot is safe then.
pub(crate) unsafe fn is_fit<T: 'static>(core: &'static Core, index: u32) -> bool {
    if core.flags.load(Ordering::Relaxed) & flags::VALIDATES == 0 {
        return true;
    }
    let taken = Taken { word: core.header(index).held_word(), index };
    // SAFETY: the caller holds the slot and its value; a value that is not good is not used again.
    let (held, panic) = unsafe {
        let payload = Payload::<T>::of(core);
        let values = payload.values();
        let too_old = values.ages.as_ref().is_some_and(|ages| {
            clock::tick();
            ages.expires(index).has_come(clock::now())
        });
        match if too_old { Ok(false) } else { payload.passes(&values.on_allocate, index) } {
            Ok(true) => return true,
            Ok(false) => rebuild::renew::<T>(core, taken),
            Err(panic) => (rebuild::renew::<T>(core, taken).0, Some(panic)),
        }
    };
    if panic.is_some() && held {
        let second = release::give_back::<T>(core, None, taken, None).err();
        rethrow(panic.or(second));
        return false;
    }
    rethrow(panic);
    held
}
