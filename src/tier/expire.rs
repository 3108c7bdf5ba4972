//! Handles with a deadline: a slot whose handle nobody has brought in time is released.
//!
//! An expiry is an attach and a release by the reclaimer. So of expiry and the last user's attach exactly one wins, by the
//! exchange of the word, and the slot comes back through reset and scarcity like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::allocate::Taken;
use super::core::{Core, flags};
use super::release::{self, Returned};
use super::{background, notice};
use crate::clock::{self, Tick};
use crate::slot::header::Note;
use crate::slot::word::State;
use crate::sync::Ordering;

/// Slots that are given back together: long enough to be cheap, short enough that the bulk's mark does not stand for long.
const TOGETHER: usize = 256;

/// In a pass, if a deadline has come: releases the slots whose handles have expired. Returns how many.
pub(crate) fn all<T: 'static>(core: &'static Core) -> usize {
    if core.deadline.load(Ordering::Relaxed) > clock::ticks() {
        return 0;
    }
    // AcqRel: pairs with the Release in `note_deadline`: the words of the deadlines that this forgets are seen below. Those
    // who come later say so again.
    core.deadline.swap(u64::MAX, Ordering::AcqRel);
    let (now, mut next, mut expired) = (clock::now(), None::<Tick>, 0);
    let mut held = Vec::with_capacity(TOGETHER);
    for (index, header) in core.headers().iter().enumerate() {
        if !header.word().is(State::Detached) {
            continue;
        }
        let Some(record) = header.read().filter(|record| record.word.is(State::Detached)) else { continue };
        let Note::Deadline(deadline) = record.note else { continue };
        if !deadline.has_come(now) {
            next = next.filter(|next| next.has_come(deadline)).or(Some(deadline));
        } else if header.compare_exchange(record.word, record.word.with(State::Leased)) {
            held.push(index as u32);
            if held.len() == TOGETHER {
                expired += give_back::<T>(core, &mut held);
            }
        }
    }
    expired += give_back::<T>(core, &mut held);
    if let Some(next) = next {
        note_deadline(core, next);
    }
    expired
}

/// Releases slots that the caller has leased. A panic in the program's code is reported.
fn give_back<T: 'static>(core: &'static Core, held: &mut Vec<u32>) -> usize {
    let mut panics = Vec::new();
    if core.flags.load(Ordering::Relaxed) & flags::ONE_BY_ONE == 0 {
        panics.extend(release::give_back_many::<T>(core, held, None));
    } else {
        for &index in held.iter() {
            let taken = Taken { word: core.header(index).held_word(), index };
            // A panic that the pass came in the middle of has nothing to do with this value.
            let returned = Returned { taken, site: None, born_in_panic: true };
            panics.extend(catch_unwind(AssertUnwindSafe(|| release::release::<T>(core, returned))).err());
        }
    }
    panics.iter().for_each(|panic| notice::tell_panic(core, panic));
    let count = held.len();
    held.clear();
    count
}

/// For who has just detached a slot: says that a deadline stands at this tick.
pub(crate) fn note_deadline(core: &Core, deadline: Tick) {
    let (now, ticks) = (clock::now(), clock::ticks());
    let due = ticks + if deadline.has_come(now) { 0 } else { u64::from(deadline.0.wrapping_sub(now.0)) };
    // Release: pairs with the AcqRel in `all`; the word comes before it.
    core.deadline.fetch_min(due, Ordering::Release);
    background::kick(core, due);
}
