//! Shared slots, and when a retired one may be used again: when no pin stands under which it may still be read.
//!
//! Retired slots wait in a chain. A pass takes all of them at once, as the one batch in limbo, *seals* it (the tier's epoch goes on
//! by one, then a heavy fence), and looks at every thread's pins ([`pin`](super::pin)). The batch is free as soon as no pin stands
//! that is older than the seal:
//!
//! - a pin that was noted before the heavy fence is found by that look, or has been dropped since;
//! - who reads under a pin that was noted after it finds the slots retired;
//! - so does who reads under a pin of the new epoch, since its thread has read the epoch.
//!
//! So there is one heavy fence for a batch of any size, and later looks at a batch that has to wait need none. What is retired
//! meanwhile waits for the next batch, so a pin holds up what was retired before it and after, and nothing else.
//!
//! The batch lies in a chain of the control block, not in what passes remember: a fork may throw that away, and then the batch
//! is sealed once more. A pass is made by the reclaimer, by an allocation that finds nothing free, and for a tier that is closed or has
//! waiters by whoever retires. One at a time, by the lock of [`pass`](super::pass); nobody waits for it.
//!
//! Epochs are Fraser's ("Practical lock-freedom", 2004), as in crossbeam-epoch; ours because the default collector of that crate
//! runs other crates' deferred functions in the reader's pin, and lets any guard of the process hold our slots.

use super::allocate::Taken;
use super::core::{Core, flags};
use super::values::{Panic, Payload, rethrow};
use super::{account, attach, background, clean, close, handles, notice, pin, rebuild, release, wait};
use crate::clock;
use crate::error::HandleError;
use crate::slot::handle::Handle;
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// The longest pause between two looks of the reclaimer at a pin that is in the way, as a power of two of ticks: a third of a second.
const MAX_PAUSE: u32 = 5;

/// Whether the handle's slot is shared at its generation: then its value may be read as long as the caller's pin stands.
#[inline(always)]
pub(crate) fn is_readable(core: &Core, handle: Handle) -> bool {
    handle.tier() == core.id
        // Acquire, in `word`: pairs with the Release with which the slot was shared; the value was written before.
        && core
            .header_checked(handle.index())
            .is_some_and(|header| header.word() == Word::new(handle.generation(), State::Shared))
}

/// Retires the handle's slot: exactly one of all who try wins. The caller has a `Tier`.
pub(crate) fn retire(core: &'static Core, handle: Handle, site: Site) -> Result<(), HandleError> {
    let (header, index) = (handles::header(core, handle)?, handle.index());
    core.note_mends();
    let shared = Word::new(handle.generation(), State::Shared);
    if !header.compare_exchange(shared, shared.to(State::Retired)) {
        return Err(handles::explain(core, header, handle));
    }
    // Until it is in the chain, nobody else moves it on.
    header.set_note(Note::Released(site));
    release::note_release(core, attach::current(core));
    account::settle(core, attach::current(core), index);
    core.retired.add(core.links, index);
    // Pairs with the heavy fences of `close` and of a waiter: either they find the slot in the chain, or the load below finds
    // their flag. The slot is not ours any more, but the caller's `Tier` keeps the block.
    core.fence.light();
    let now = core.flags.load(Ordering::Relaxed);
    if now & flags::CLOSED != 0 {
        help(core);
    } else if wait::is_awaited(core) {
        rethrow(wait::help(core).err());
    }
    background::kick(core, clock::ticks() + 1);
    Ok(())
}

/// What passes remember of the batch in limbo.
#[derive(Default)]
pub(crate) struct Limbo {
    /// What the epoch became when it was sealed.
    sealed: Option<u64>,
    /// How many passes in a row have found a pin in the way.
    blocked: u32,
}

/// Whether a pass might free something now: something is retired, and the pin that was last seen in its way is gone. Some loads.
pub(crate) fn is_possible(core: &Core) -> bool {
    if core.limbo.head().is_empty() { !core.retired.head().is_empty() } else { !core.blocker.stands(core) }
}

/// In a pass: when the next is due for what is retired: at the next tick, and later and later while a pin is in the way. A
/// tick, or `u64::MAX`.
pub(crate) fn next_due(core: &Core, limbo: &Limbo) -> u64 {
    if core.limbo.head().is_empty() && core.retired.head().is_empty() {
        return u64::MAX;
    }
    clock::ticks() + (1 << limbo.blocked.min(MAX_PAUSE))
}

/// Frees what can be freed, unless somebody else is in a pass. The caller has a `Tier`.
pub(crate) fn help(core: &'static Core) {
    if is_possible(core) {
        // SAFETY: the caller has a `Tier`, and this is its own `collect`.
        let kept = unsafe { (core.incarnation().collect)(core, false) };
        debug_assert!(kept.is_none());
    }
}

/// The same for an allocation that finds nothing free: one slot that was retired, in maintenance for the caller; the others are
/// free.
pub(crate) fn one(core: &'static Core) -> Option<Taken> {
    // SAFETY: as in `help`.
    if is_possible(core) { unsafe { (core.incarnation().collect)(core, true) } } else { None }
}

/// Frees what can be freed, unless somebody else is in a pass; keeps one slot, in maintenance for the caller, if that is wanted.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller has a `Tier`, or has entered the block.
pub(crate) unsafe fn try_collect<T: 'static>(core: &'static Core, keep: bool) -> Option<Taken> {
    let mut state = core.pass.try_lock()?;
    let mut kept = None;
    free_all::<T>(core, &mut state.limbo, |taken| {
        if keep && kept.is_none() {
            kept = Some(taken);
        } else {
            clean::restore::<T>(core, taken);
        }
    });
    kept
}

/// In a pass: frees the retired slots that no pin can see any more. Returns how many. A panic in the program's code is reported.
pub(crate) fn collect<T: 'static>(core: &'static Core, limbo: &mut Limbo) -> usize {
    free_all::<T>(core, limbo, |taken| clean::restore::<T>(core, taken))
}

/// Shows each slot that may be used again to `each`, who then holds it, in maintenance and fit for use. Returns how many.
fn free_all<T: 'static>(core: &'static Core, limbo: &mut Limbo, mut each: impl FnMut(Taken)) -> usize {
    let mut freed = 0;
    // The batch of an earlier pass, and then, if it went, what was retired since.
    loop {
        let fresh = core.limbo.head().is_empty();
        if fresh {
            limbo.sealed = None;
            if !core.retired.move_to(&core.limbo) {
                return freed;
            }
        }
        let sealed = *limbo.sealed.get_or_insert_with(|| seal(core));
        if !pin::are_gone(core, sealed) {
            limbo.blocked = limbo.blocked.saturating_add(1);
            return freed;
        }
        limbo.blocked = 0;
        while let Some((index, retired)) = core.limbo.take(core.links, |index| core.header(index).word()) {
            if let Some(taken) = refit::<T>(core, index, retired) {
                freed += 1;
                each(taken);
            }
        }
        if fresh {
            return freed;
        }
    }
}

/// Says that the slots in limbo are retired: who takes a pin from here on finds them so. Returns the epoch that begins.
fn seal(core: &Core) -> u64 {
    // Release: pairs with the Acquire in `Pins::begin`; the slots' words come before it, since they were acquired with the chain.
    let sealed = core.epoch.fetch_add(1, Ordering::Release).wrapping_add(1);
    // Pairs with the light fence in `Pin::new`, after the pin is noted.
    core.fence.heavy();
    sealed
}

/// Takes a retired slot that nobody sees any more, and makes its value fit for the next user. `None` if the slot ends with its
/// tier, or could not get a new value. A panic in the program's code is reported.
fn refit<T: 'static>(core: &'static Core, index: u32, retired: Word) -> Option<Taken> {
    let taken = Taken { word: retired.to(State::Maintenance), index };
    if !retired.is(State::Retired) {
        return None;
    }
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        // Not by way of a free slot: an allocation that has looked for one since before the close would get the value as it is.
        if let Err(panic) = close::bury::<T>(core, index, retired) {
            notice::tell_panic(core, &panic);
        }
        return None;
    }
    if !core.header(index).compare_exchange(retired, taken.word) {
        return None;
    }
    // SAFETY: the exchange made a slot of this tier of `T`s ours, with its value; one that is renewed is not used again.
    let (held, panic) = unsafe {
        match prepare::<T>(core, index) {
            Ok(true) => (true, None),
            Ok(false) => rebuild::renew::<T>(core, taken),
            Err(panic) => (rebuild::renew::<T>(core, taken).0, Some(panic)),
        }
    };
    if let Some(panic) = panic {
        notice::tell_panic(core, &panic);
    }
    held.then_some(taken)
}

/// All that a release does to a value, and what it puts off. Whether the value is good.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller holds the slot with its value.
unsafe fn prepare<T: 'static>(core: &Core, index: u32) -> Result<bool, Panic> {
    // SAFETY: by the contract.
    unsafe {
        let payload = Payload::<T>::of(core);
        Ok(payload.finish_use(index)? && payload.apply(&payload.values().clean, index).map(|()| true)?)
    }
}
