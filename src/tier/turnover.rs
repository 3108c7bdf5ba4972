//! Values that nobody holds, and that are too old, unused for too long, or not wanted any more.
//!
//! A free slot is claimed into maintenance like for an allocation, so nobody can have it meanwhile and nobody waits for it.

use super::allocate::take_aside;
use super::core::Core;
use super::values::{Panic, Payload};
use super::{clean, grow, notice, rebuild};
use crate::clock;

/// Claims the slot if it is free, and asks `keep`, who may see the value; if not, replaces it. True if it was replaced, or had
/// to go. A panic in the program's code is returned.
fn renew_unless<T: 'static>(
    core: &'static Core,
    index: u32,
    keep: impl FnOnce(Payload<T>) -> Result<bool, Panic>,
) -> Result<bool, Panic> {
    let Some(taken) = take_aside(core, index, core.header(index).word()) else { return Ok(false) };
    // SAFETY: the claim made a slot of this tier of `T`s ours, from a state with a value.
    let (kept, payload_panic) = match keep(unsafe { Payload::<T>::of(core) }) {
        Ok(kept) => (kept, None),
        Err(panic) => (false, Some(panic)),
    };
    // SAFETY: as above; a value that is not kept is not used again.
    let (held, panic) = if kept { (true, None) } else { unsafe { rebuild::renew::<T>(core, taken) } };
    if held {
        if let Some(idle) = &core.life().idle {
            idle.carry_over(taken);
        }
        clean::restore::<T>(core, taken);
    }
    payload_panic.or(panic).map_or(Ok(!kept), Err)
}

/// In a pass: replaces the free values that are too old. Returns how many. A panic in a value's `Drop` is reported.
pub(crate) fn by_age<T: 'static>(core: &'static Core) -> usize {
    // SAFETY: the caller is in a pass of this tier of `T`s.
    let payload = unsafe { Payload::<T>::of(core) };
    let Some(ages) = &payload.values().ages else { return 0 };
    let now = clock::now();
    let too_old = |index: u32| core.header(index).word().is_free() && ages.expires(index).has_come(now);
    let renew = |index| match renew_unless::<T>(core, index, |_| Ok(!ages.expires(index).has_come(now))) {
        Ok(done) => done,
        Err(panic) => {
            notice::tell_panic(core, &panic);
            true
        }
    };
    (0..core.headers().len() as u32).filter(|&index| too_old(index)).filter(|&index| renew(index)).count()
}

/// In a pass: removes the free values that nobody has used for too long, down to the tier's smallest size. Returns how many. A
/// panic in a value's `Drop` is reported.
pub(crate) fn by_idleness<T: 'static>(core: &'static Core) -> usize {
    let Some(idle) = &core.life().idle else { return 0 };
    let now = clock::now();
    let mut removed = 0;
    for (index, header) in core.headers().iter().enumerate().rev() {
        let word = header.word();
        let since = idle.unused_since(index, word, now);
        if word.is_free() && since.ago(now) >= idle.timeout {
            match grow::remove::<T>(core, index as u32, word, core.life().min) {
                Ok(done) => removed += usize::from(done),
                Err(panic) => {
                    removed += 1;
                    notice::tell_panic(core, &panic);
                }
            }
        }
    }
    removed
}

/// Shows every free value to `keep`, and replaces those of which it says no. Returns how many. The first panic in the program's
/// code is returned; its value is replaced.
pub(crate) fn retain<T: 'static>(core: &'static Core, mut keep: impl FnMut(&mut T) -> bool) -> Result<usize, Panic> {
    let mut replaced = 0;
    for index in 0..core.headers().len() as u32 {
        // SAFETY: `renew_unless` shows a slot that it holds, with its value.
        let asked = renew_unless::<T>(core, index, |payload| unsafe { payload.ask(&mut keep, index) });
        replaced += usize::from(asked?);
    }
    Ok(replaced)
}
