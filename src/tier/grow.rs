//! More slots when they are wanted, fewer when they are not: between the tier's smallest size and its capacity.
//!
//! A slot that is not there is `Absent`. An allocation that finds nothing free builds one, for itself; the next pass of
//! the reclaimer then adds as many as would make the tier a quarter larger, or a segment, so that the next ones
//! need not. Going back is the reverse: a free slot is claimed, its value dropped, its word `Absent`; when that was the last of its
//! segment, the memory goes back to the system.
//!
//! A slot comes and goes by an exchange of its word like any other change of hands, so growth, shrinking and allocations
//! need not know of each other.

use std::io;

use super::allocate::{Taken, take_aside};
use super::core::{Core, Incarnation, flags};
use super::notice::{self, Report};
use super::reclaim::Reclaimed;
use super::segments::{NoMemory, Segments};
use super::values::{NoValue, Panic, Payload};
use super::{background, clean, rebuild, wait};
use crate::error::GrowError;
use crate::slot::header::Note;
use crate::slot::word::{State, Word};
use crate::sync::{Ordering, yield_now};

/// Whether the tier may grow now.
pub(crate) fn is_possible(core: &Core) -> bool {
    core.absent.load(Ordering::Relaxed) > 0 && core.growing.is_due()
}

/// Builds an absent slot for the caller, who then holds it in maintenance.
pub(crate) fn one(core: &'static Core) -> Option<Taken> {
    if !is_possible(core) || !core.growing.begin() {
        return None;
    }
    let taken = add(core).unwrap_or_else(|why| {
        tell_failure(core, why);
        None
    });
    // Relaxed: a hint for the next pass, which is to try again what has failed here.
    core.wanted.store(1, Ordering::Relaxed);
    background::kick(core, core.growing.due());
    taken
}

/// Builds an absent slot; `None` if there is none.
fn add(core: &'static Core) -> Result<Option<Taken>, NoSlot> {
    let Some(taken) = claim(core).map_err(NoSlot::Memory)? else { return Ok(None) };
    // SAFETY: the claim made the slot ours, and an absent one has no value.
    if let Err(why) = unsafe { (core.incarnation().build)(core, taken.index) } {
        vanish(core, taken);
        return Err(NoSlot::Factory(why));
    }
    core.built.fetch_add(1, Ordering::Relaxed);
    core.growing.succeeded();
    Ok(Some(taken))
}

/// Why a slot could not be added.
enum NoSlot {
    Memory(io::Error),
    Factory(NoValue),
}

/// Notes that the tier could not grow, and reports it.
fn tell_failure(core: &Core, why: NoSlot) {
    match why {
        NoSlot::Factory(why) => rebuild::tell_failure(core, &core.growing, why),
        NoSlot::Memory(source) => {
            let (_, retry_in) = core.growing.failed(core.life().pauses);
            let (tier, slots) = (core.incarnation().name, core.present());
            notice::tell(core, || Report::GrowthFailed { tier, slots, retry_in, source });
        }
    }
}

/// Takes an absent slot whose segment has memory into maintenance: the first one, as far as known, so that the tier is
/// dense and its last segments can go.
fn claim(core: &'static Core) -> io::Result<Option<Taken>> {
    let Some(segments) = &core.life().segments else { return Ok(None) };
    // Relaxed, here and below: where to look first is a hint.
    let first = core.first_absent.load(Ordering::Relaxed);
    let capacity = core.incarnation().capacity as u32;
    let found = match claim_between(core, segments, first, capacity)? {
        // What was built or left meanwhile may have misled the hint.
        None => claim_between(core, segments, 0, first)?,
        found => found,
    };
    if let Some(taken) = found {
        core.first_absent.store(taken.index + 1, Ordering::Relaxed);
    }
    Ok(found)
}

fn claim_between(core: &'static Core, segments: &Segments, start: u32, end: u32) -> io::Result<Option<Taken>> {
    let mut index = start;
    while index < end {
        let segment = segments.of(index);
        let slots = segments.slots(segment);
        if segments.users(segment) < slots.len() {
            match segments.enter(segment) {
                Ok(()) => {
                    if let Some(taken) = claim_in(core, index..slots.end.min(end)) {
                        return Ok(Some(taken));
                    }
                    segments.leave(segment);
                }
                Err(NoMemory::Leaving) => {}
                Err(NoMemory::Refused(why)) => return Err(why),
            }
        }
        index = slots.end;
    }
    Ok(None)
}

fn claim_in(core: &'static Core, slots: std::ops::Range<u32>) -> Option<Taken> {
    for index in slots {
        let header = core.header(index);
        let absent = header.word();
        let word = absent.to(State::Maintenance);
        if absent.is(State::Absent) && header.compare_exchange(absent, word) {
            // A closed tier's slots have gone for good: one of them may still be in a chain, and would be added to it again. Relaxed:
            // the flag was set before the slot was made absent, which the exchange has acquired.
            if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
                header.give(word.to(State::Absent));
                return None;
            }
            // The caller has a `Tier`, or is in a pass: the tier cannot end before this slot is counted.
            core.live.fetch_add(1, Ordering::Relaxed);
            core.absent.fetch_sub(1, Ordering::Relaxed);
            return Some(Taken { word, index });
        }
    }
    None
}

/// For the holder of a slot in maintenance that has no value: it is absent from here on.
fn vanish(core: &'static Core, taken: Taken) {
    let header = core.header(taken.index);
    header.set_note(Note::None);
    // Before the word: whoever claims the slot counts it off again.
    core.absent.fetch_add(1, Ordering::Relaxed);
    header.give(taken.word.to(State::Absent));
    core.first_absent.fetch_min(taken.index, Ordering::Relaxed);
    // Pairs with the heavy fence of a waiter: either it finds the slot absent, and builds it, or this finds its flag, and has a
    // pass build one.
    core.fence.light();
    if wait::is_awaited(core) {
        core.wanted.store(1, Ordering::Relaxed);
        background::kick(core, 0);
    }
    if let Some(segments) = &core.life().segments {
        segments.leave(segments.of(taken.index));
    }
    core.count_out();
}

/// Adds slots until there are `slots`, and gives them out as free; waits for others who are about to, if that is wanted. Returns how
/// many were added, and why there are not enough.
fn up_to<T: 'static>(core: &'static Core, slots: usize, wait: bool) -> (usize, Option<NoSlot>) {
    let mut added = 0;
    while core.present() < slots && core.flags.load(Ordering::Relaxed) & flags::CLOSED == 0 {
        match add(core) {
            Ok(Some(taken)) => {
                clean::restore::<T>(core, taken);
                added += 1;
            }
            // Those that are absent are in the hands of others who build, or just cannot.
            Ok(None) if wait && core.absent.load(Ordering::Relaxed) > 0 => yield_now(),
            Ok(None) => break,
            Err(why) => return (added, Some(why)),
        }
    }
    (added, None)
}

/// In a pass: adds slots in advance if an allocation had to build one. Returns how many.
pub(crate) fn ahead<T: 'static>(core: &'static Core) -> usize {
    let Some(segments) = &core.life().segments else { return 0 };
    if core.wanted.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    if core.absent.load(Ordering::Relaxed) == 0 {
        core.wanted.store(0, Ordering::Relaxed);
        return 0;
    }
    if !core.growing.begin() {
        return 0;
    }
    core.wanted.store(0, Ordering::Relaxed);
    let present = core.present();
    let more = (present / 4).max(segments.each().min(present)).max(1);
    let (added, why) = up_to::<T>(core, (present + more).min(core.incarnation().capacity), false);
    if let Some(why) = why {
        core.wanted.store(1, Ordering::Relaxed);
        tell_failure(core, why);
    }
    added
}

/// For a `Tier`: adds slots until there are `slots`.
pub(crate) fn grow_to<T: 'static>(core: &'static Core, slots: usize) -> Result<(), GrowError> {
    let Incarnation { name: tier, capacity, .. } = *core.incarnation();
    if slots > capacity {
        return Err(GrowError::Capacity { tier, slots, capacity });
    }
    let Some(pass) = core.pass.lock() else { return Err(GrowError::InPass { tier }) };
    let (added, why) = up_to::<T>(core, slots, true);
    drop(pass);
    wait::after_pass(core);
    core.reclaimed.add(Reclaimed { added: added as u64, ..Reclaimed::default() });
    match why {
        _ if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 => Err(GrowError::Closed { tier }),
        None => Ok(()),
        Some(NoSlot::Memory(source)) => Err(GrowError::OutOfMemory { tier, slots: core.present(), source }),
        Some(NoSlot::Factory(why)) => {
            let source = match why {
                NoValue::Refused(source) => Some(source),
                NoValue::Panicked => None,
            };
            Err(GrowError::Factory { tier, slots: core.present(), source })
        }
    }
}

/// For a `Tier`: removes free slots until there are `slots`. Returns how many there are.
pub(crate) fn shrink_to<T: 'static>(core: &'static Core, slots: usize) -> usize {
    let Some(pass) = core.pass.lock() else { return core.present() };
    core.wanted.store(0, Ordering::Relaxed);
    let removed = down_to::<T>(core, slots.max(core.life().min));
    drop(pass);
    wait::after_pass(core);
    core.reclaimed.add(Reclaimed { removed: removed as u64, ..Reclaimed::default() });
    core.present()
}

/// Removes one slot if it is free and the tier is larger than `min`. In a pass only, so that the size is not undercut; and a
/// slot that is only being built does not count, since its factory may fail. A panic in the value's `Drop` is returned.
pub(crate) fn remove<T: 'static>(core: &'static Core, index: u32, free: Word, min: usize) -> Result<bool, Panic> {
    if core.built.load(Ordering::Relaxed) <= min {
        return Ok(false);
    }
    let Some(taken) = take_aside(core, index, free) else { return Ok(false) };
    // SAFETY: the exchange made the slot ours, from a state with a value; from here on it has none.
    let outcome = unsafe { Payload::<T>::of(core).drop_value(index) };
    core.built.fetch_sub(1, Ordering::Relaxed);
    vanish(core, taken);
    outcome.map(|()| true)
}

/// In a pass: removes free slots, those with the largest index first, until there are `slots`. Returns how many. A panic in a
/// value's `Drop` is reported.
fn down_to<T: 'static>(core: &'static Core, slots: usize) -> usize {
    let mut removed = 0;
    for index in (0..core.incarnation().capacity as u32).rev() {
        if core.present() <= slots {
            break;
        }
        match remove::<T>(core, index, core.header(index).word(), slots) {
            Ok(done) => removed += usize::from(done),
            Err(panic) => {
                removed += 1;
                notice::tell_panic(core, &panic);
            }
        }
    }
    removed
}

impl Segments {
    /// Enters the segments of the first slots of a tier that is being built.
    pub(crate) fn enter_first(&self, slots: usize) -> io::Result<()> {
        for index in 0..slots as u32 {
            match self.enter(self.of(index)) {
                Ok(()) => {}
                Err(NoMemory::Leaving) => unreachable!("nobody else has these segments yet"),
                Err(NoMemory::Refused(why)) => return Err(why),
            }
        }
        Ok(())
    }
}
