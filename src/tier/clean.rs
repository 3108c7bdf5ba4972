//! Cleaning that is put off: a released value waits as `Dirty` until the reclaimer, or an allocation that would find
//! nothing free otherwise, has made it fit for its next use.
//!
//! Dirty slots are in a chain, and only whoever takes one off it may move it on. That goes for closing too: a releaser
//! that is stopped between the word and the chain still owns its slot, so its tier cannot end before it has added it.

use super::allocate::Taken;
use super::core::{Core, flags};
use super::values::{Panic, Payload};
use super::{account, attach, background, close, notice, rebuild, release, wait};
use crate::clock;
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Leaves a returned slot to be cleaned later. A panic in the value's `Drop` is returned; it is dropped if the tier closes.
pub(crate) fn put_off<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>) -> Result<(), Panic> {
    let (header, dirty) = (core.header(taken.index), taken.word.to(State::Dirty));
    account::settle(core, attach::current(core), taken.index);
    header.set_note(Note::released(site));
    header.give(dirty);
    core.dirty.add(core.links, taken.index);
    // Pairs with the heavy fence of `close`, and with that of a waiter: either they find the slot in the chain, or the
    // load below finds their flag. The slot is not ours any more.
    core.fence.light();
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::CLOSED != 0 {
        return close::bury::<T>(core, taken.index, dirty);
    }
    if wait::is_awaited(core) {
        // Somebody is to have a slot at once: this one, or another that is dirty.
        return one(core).map_or(Ok(()), |taken| hand_on(core, taken));
    }
    // Not at once: what is released in the course of a tick is cleaned together, and who needs a slot before that helps.
    background::kick(core, clock::ticks() + 1);
    Ok(())
}

/// Cleans a returned slot at once, since somebody waits for one, and gives it back. A panic in the value's `Drop` is returned.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value.
pub(crate) unsafe fn at_once<T: 'static>(core: &'static Core, taken: Taken, site: Option<Site>) -> Option<Panic> {
    // SAFETY: by this function's own contract.
    if unsafe { clean::<T>(core, taken) } {
        return release::give_back::<T>(core, None, taken, site).err();
    }
    release::note_release(core, attach::current(core));
    None
}

/// Cleans a value that the caller holds. False if it had to go and could not be replaced: then the slot is quarantined, and
/// the caller holds it no more. A panic in the program's code is reported.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot, in maintenance or leased, with its value.
pub(crate) unsafe fn clean<T: 'static>(core: &'static Core, taken: Taken) -> bool {
    // SAFETY: the caller holds a slot of this tier of `T`s, with its value; after a panic it is not used again.
    unsafe {
        let payload = Payload::<T>::of(core);
        match payload.apply(&payload.values().clean, taken.index) {
            Ok(()) => true,
            Err(panic) => {
                // While the slot is held: it is what keeps the tier from ending.
                notice::tell_panic(core, &panic);
                rebuild::renew::<T>(core, taken).0
            }
        }
    }
}

/// Takes a dirty slot off the chain, into maintenance.
fn claim(core: &Core) -> Option<Taken> {
    loop {
        let (index, dirty) = take(core)?;
        let word = dirty.to(State::Maintenance);
        // It fails if the tier was closed meanwhile.
        if dirty.is(State::Dirty) && core.header(index).compare_exchange(dirty, word) {
            return Some(Taken { word, index });
        }
    }
}

fn take(core: &Core) -> Option<(u32, Word)> {
    core.dirty.take(core.links, |index| core.header(index).word())
}

/// Cleans a dirty slot for the caller, who then holds it in maintenance.
pub(crate) fn one(core: &'static Core) -> Option<Taken> {
    // SAFETY: the claim made the slot ours, a dirty slot has a value, and `clean` is this tier's.
    std::iter::from_fn(|| claim(core)).find(|&taken| unsafe { (core.incarnation().clean)(core, taken) })
}

/// In a pass: cleans what is dirty, and gives it back; not more than there are slots, should others make them dirty as fast.
/// Returns how many.
pub(crate) fn all<T: 'static>(core: &'static Core) -> usize {
    let slots = core.present();
    std::iter::from_fn(|| one(core)).take(slots).map(|taken| restore::<T>(core, taken)).count()
}

/// Gives a slot in maintenance back. Its last release was counted already, and its lines stay. A panic in the value's `Drop`,
/// if the tier closes, is reported.
pub(crate) fn restore<T: 'static>(core: &'static Core, taken: Taken) {
    release::uncount(core);
    if let Err(panic) = release::give_back::<T>(core, None, taken, noted_line(core, taken)) {
        notice::tell_panic(core, &panic);
    }
}

/// The same for who does not know the tier's type; the panic is returned.
pub(crate) fn hand_on(core: &'static Core, taken: Taken) -> Result<(), Panic> {
    release::uncount(core);
    // SAFETY: the caller holds the slot, its value fit for use, and `give_back` is this tier's.
    unsafe { (core.incarnation().give_back)(core, taken, noted_line(core, taken)) }
}

fn noted_line(core: &Core, taken: Taken) -> Option<Site> {
    match core.header(taken.index).held_note() {
        Note::Released(site) => Some(site),
        _ => None,
    }
}

/// The tier is closed: drops what is dirty. The caller has a `Tier`. The first panic in a value's `Drop` is returned.
pub(crate) fn bury_all<T: 'static>(core: &'static Core) -> Option<Panic> {
    let mut panic = None;
    while let Some((index, dirty)) = take(core) {
        if dirty.is(State::Dirty) {
            panic = panic.or(close::bury::<T>(core, index, dirty).err());
        }
    }
    panic
}
