//! The end: of a tier, of its values, of its incarnation.
//!
//! Closing sets a flag, makes a heavy fence, and sweeps: every idle slot becomes `Absent`, and whoever moves it there
//! drops its value. A release that comes later (or came at the same time) finds the flag after its store, and tries
//! the same exchange. Exactly one of the two wins, so each value is dropped once. What is held stays valid, and is
//! dropped when it comes back; a detached handle can be attached or released as long as a `Tier` exists, and the last
//! `Tier` to go takes the detached slots with it.

use std::time::{Duration, Instant};

use super::core::{Core, HELD, flags};
use super::values::{Panic, Payload, rethrow};
use super::{account, attach, clean, epoch, report, reserve, scarcity, wait};
use crate::error::CloseError;
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Closes the tier. Idempotent; the caller has a `Tier`.
pub(crate) fn close<T: 'static>(core: &'static Core) {
    // AcqRel: a second closer is ordered after the first.
    core.flags.fetch_or(flags::CLOSED, Ordering::AcqRel);
    // Pairs with the light fence in every release, after its store of the word.
    core.fence.heavy();
    let woken = wait::close(core);
    let swept = sweep::<T>(core, false);
    // What is shared stays until it is retired; what was retired goes as soon as no pin sees it any more.
    epoch::help(core);
    rethrow(swept.or(woken.err()));
}

/// The last `Tier` goes: closes, and takes the detached slots too, since nobody can attach them any more.
pub(crate) fn orphan<T: 'static>(core: &'static Core) {
    core.flags.fetch_or(flags::CLOSED | flags::ORPHANED, Ordering::AcqRel);
    // Pairs with the light fences in release and detach.
    core.fence.heavy();
    let Some(forgotten) = wait::forget(core) else { return };
    let _end = CountOut(core);
    rethrow(sweep::<T>(core, true).or(forgotten.err()));
}

/// Waits until every slot has come back, or names who still holds some.
pub(crate) fn wait(core: &'static Core, patience: Duration) -> Result<(), CloseError> {
    const PAUSE: Duration = Duration::from_micros(200);
    let deadline = Instant::now().checked_add(patience);
    // One stands for the caller's `Tier`. Acquire: what the releasers did comes before what follows the wait.
    while core.live.load(Ordering::Acquire) & HELD > 1 {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let holders = report::holders(core);
            // The last of them may have come back while they were listed.
            if core.live.load(Ordering::Acquire) & HELD == 1 {
                break;
            }
            return Err(CloseError { tier: core.incarnation().name, holders });
        }
        // What was retired goes as soon as its pins have.
        epoch::help(core);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Moves every idle slot to `Absent`. The first panic in a value's `Drop` is returned, when all are done.
fn sweep<T: 'static>(core: &'static Core, orphaned: bool) -> Option<Panic> {
    let mut panic = None;
    for (index, header) in core.headers().iter().enumerate() {
        loop {
            let word = header.word();
            let idle = match word.state() {
                State::Free | State::Counted | State::Quarantined => true,
                // Nobody is left who could bring the handle, or who could have pinned the value.
                State::Detached | State::Shared | State::Retired => orphaned,
                // Held: its holder will find the flag. Dirty and reserved: see below. Absent: done.
                State::Dirty
                | State::Reserved
                | State::Maintenance
                | State::SharedLease
                | State::Claimed
                | State::Leased
                | State::Absent => false,
            };
            if !idle {
                break;
            }
            if header.compare_exchange(word, word.next(State::Absent)) {
                let outcome = if word.is(State::Quarantined) {
                    end_vacant(core);
                    Ok(())
                } else {
                    end_value::<T>(core, index as u32, word)
                };
                panic = panic.or(outcome.err());
                break;
            }
        }
    }
    panic.or(clean::bury_all::<T>(core)).or(reserve::bury_all::<T>(core))
}

/// A slot given back to a closed tier: `Absent`, unless the sweep or another was faster. A panic in the value's `Drop`
/// is returned.
#[cold]
#[inline(never)]
pub(crate) fn bury<T: 'static>(core: &'static Core, index: u32, word: Word) -> Result<(), Panic> {
    if core.header(index).compare_exchange(word, word.next(State::Absent)) {
        return end_value::<T>(core, index, word);
    }
    Ok(())
}

/// The same for a slot without a value.
#[cold]
pub(crate) fn bury_vacant(core: &'static Core, index: u32, word: Word) {
    if core.header(index).compare_exchange(word, word.next(State::Absent)) {
        end_vacant(core);
    }
}

/// For the winner of the exchange to `Absent`: drops the value and counts it out.
fn end_value<T: 'static>(core: &'static Core, index: u32, was: Word) -> Result<(), Panic> {
    let _end = CountOut(core);
    if was.is(State::Counted) {
        scarcity::count_claim(core);
    }
    if was.state().is_held() {
        account::settle(core, attach::current(core), index);
    }
    // SAFETY: this value has not been counted out of `live`, so the tier (of `T`s, as the caller's type says) has not
    // ended; the exchange made the slot ours, and from an idle state with a value.
    unsafe { Payload::<T>::of(core).drop_value(index) }
}

fn end_vacant(core: &'static Core) {
    core.quarantined.fetch_sub(1, Ordering::Relaxed);
    core.count_out();
}

/// Counts one out of `live`, at the end of whatever happens.
struct CountOut(&'static Core);

impl Drop for CountOut {
    fn drop(&mut self) {
        self.0.count_out();
    }
}
