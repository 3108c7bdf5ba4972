//! From a request to a claimed slot: the hot path, and the steps behind it.
//!
//! Hot: pop a hint from the thread's magazine, claim its slot by compare-exchange, write who holds it. When that fails,
//! [`allocate_slow`] looks ever further: the exact count (a tier known to be empty refuses at once), the rest of the
//! magazine, the depot, the other threads' magazines, every slot's word, a slot without value that the factory might fill
//! now. Only [`scarcity`] refuses; then an urgent allocation may have a slot of the [`reserve`].

use super::attach;
use super::core::{Core, flags};
use super::latency::RECORDS;
use super::magazine::{Hint, Magazine};
use super::values::rethrow;
use super::{reserve, sampled, scarcity, uses, wait};
use crate::clock::{self, Tick};
use crate::slot::header::{Site, pack_stamp};
use crate::slot::label::{Label, Mark};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Of a busy thread's allocations, one in so many is looked at more closely; see [`sampled`]. A prime: programs allocate from their
/// lines in turns, and each is to have its share of the looks.
pub(crate) const SAMPLE_EVERY: u64 = 1021;

/// A slot that is leased to the caller.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) word: Word,
    pub(crate) index: u32,
}

/// Who asks, for the header.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) site: Site,
    pub(crate) label: Label,
    pub(crate) magazine: Option<&'static Magazine>,
}

impl Caller {
    #[inline(always)]
    pub(crate) fn stamp(&self) -> u64 {
        if crate::BARE {
            return pack_stamp(Tick(0), self.label, 0);
        }
        pack_stamp(clock::now(), self.label, self.magazine.map_or(0, Magazine::owner))
    }
}

/// The index of a slot leased to the caller, or `None`: then [`scarcity::why`] makes the error, out of the hot path's way.
#[inline(always)]
pub(crate) fn allocate(core: &'static Core, caller: Caller) -> Option<u32> {
    // What leaves the hot path does not come back to it, so that nothing need be kept for that; and takes the caller in parts: as a
    // whole it would have to lie in memory, and be written there on the hot path as well, in pieces that the processor cannot
    // forward to the copy that is read (13 ns).
    if let Some(magazine) = caller.magazine
        && let Some((hint, popped)) = magazine.pop()
    {
        if !crate::BARE && popped.is_multiple_of(SAMPLE_EVERY) {
            return sampled::allocate(core, hint.word, hint.index, caller.site, caller.label, magazine);
        }
        if let Some(taken) = claim(core, hint, caller.site, caller.label.mark, caller.stamp()) {
            let counted = magazine.uses.count(caller.label);
            return if counted { Some(taken.index) } else { served_first(core, magazine, caller.label, taken.index) };
        }
        magazine.note_stale();
    }
    allocate_slow(core, caller.site, caller.label, caller.magazine)
}

/// Counts an allocation whose label the magazine has not met, or not lately; its slot's index.
#[cold]
#[inline(never)]
fn served_first(core: &Core, magazine: &Magazine, label: Label, index: u32) -> Option<u32> {
    uses::add(core, Some(magazine), label, 1);
    Some(index)
}

/// Claims the slot of a hint and writes its header; `None` if somebody was faster.
#[inline(always)]
pub(crate) fn claim(core: &Core, hint: Hint, site: Site, mark: Mark, stamp: u64) -> Option<Taken> {
    let header = core.header(hint.index);
    let claimed = hint.word.with(State::Claimed);
    if !header.compare_exchange(hint.word, claimed) {
        return None;
    }
    if hint.word.is(State::Counted) {
        scarcity::count_claim(core);
    }
    Some(Taken { word: header.lease(claimed, site, mark, stamp), index: hint.index })
}

/// Takes a free slot into maintenance, to see to its value; `None` if it is not free, or somebody was faster.
pub(crate) fn take_aside(core: &Core, index: u32, free: Word) -> Option<Taken> {
    let word = free.to(State::Maintenance);
    if !free.is_free() || !core.header(index).compare_exchange(free, word) {
        return None;
    }
    if free.is(State::Counted) {
        scarcity::count_claim(core);
    }
    Some(Taken { word, index })
}

/// Looks further for a free slot, step by step; refuses only when there was a moment without any.
#[cold]
#[inline(never)]
pub(crate) fn allocate_slow(
    core: &'static Core,
    site: Site,
    label: Label,
    magazine: Option<&'static Magazine>,
) -> Option<u32> {
    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        return None;
    }
    let magazine = if RECORDS { magazine.or_else(|| attach::known(core)) } else { magazine };
    let caller = Caller { site, label, magazine };
    let is_timed = |magazine: &Magazine| RECORDS && magazine.note_search().is_multiple_of(sampled::SLOW_EVERY);
    if magazine.is_some_and(is_timed) { sampled::slow(core, caller) } else { search(core, caller) }
}

/// The steps.
#[inline]
pub(crate) fn search(core: &'static Core, caller: Caller) -> Option<u32> {
    loop {
        let stock = core.reserve.stock();
        if !scarcity::is_known_empty(core)
            && let Some(index) = look_further(core, caller)
        {
            return Some(index);
        }
        if core.flags.load(Ordering::Relaxed) & flags::RESERVES == 0 {
            break;
        }
        if let Some(taken) = reserve::take(core, &caller) {
            served(core, &caller);
            return Some(taken.index);
        }
        // At the moment at which no slot was free, the reserve was as it is now.
        if core.reserve.stock() == stock {
            break;
        }
    }
    // A slot may lie granted to a waiter that does not take it.
    if wait::may_be_overdue(core) {
        let revoked = wait::revoke(core);
        rethrow(revoked.err());
        return look_further(core, caller);
    }
    None
}

/// A free slot wherever one is, for a waiter: one look at each place finds every slot that was given before it and not
/// claimed since. Runs no user code. The caller stamps it.
pub(crate) fn find_free(core: &Core, caller: &Caller) -> Option<Taken> {
    if scarcity::is_known_empty(core) {
        return None;
    }
    hinted(core, caller).or_else(|| scarcity::pass(core, caller).taken)
}

#[inline(never)]
fn look_further(core: &'static Core, mut caller: Caller) -> Option<u32> {
    if caller.magazine.is_none() {
        caller.magazine = attach::attach(core);
    }
    let taken = match caller.magazine {
        Some(magazine) => from_magazine(core, magazine, &caller),
        None => without_magazine(core, &caller),
    };
    if let Some(taken) = taken {
        return Some(taken.index);
    }
    let taken = scarcity::find_or_refuse(core, &caller)?;
    served(core, &caller);
    Some(taken.index)
}

/// Own hints, then the depot's, then those of others.
fn from_magazine(core: &Core, magazine: &Magazine, caller: &Caller) -> Option<Taken> {
    loop {
        while let Some((hint, popped)) = magazine.pop() {
            if popped.is_multiple_of(SAMPLE_EVERY) {
                sampled::note(core, magazine, caller.site);
            }
            if let Some(taken) = claim(core, hint, caller.site, caller.label.mark, caller.stamp()) {
                magazine.note_late();
                uses::add(core, Some(magazine), caller.label, 1);
                return Some(taken);
            }
            magazine.note_stale();
        }
        if !magazine.refill(core) && !plunder(core, magazine) {
            return None;
        }
    }
}

/// Copies hints from another thread's magazine. They stay there too: whoever claims first has the slot.
fn plunder(core: &Core, magazine: &Magazine) -> bool {
    for victim in core.magazines() {
        victim.peek(core, |hint| magazine.found(hint));
        if magazine.len() > 0 {
            magazine.note_steal();
            return true;
        }
    }
    false
}

/// The same places for a thread without a magazine.
fn without_magazine(core: &Core, caller: &Caller) -> Option<Taken> {
    let taken = hinted(core, caller)?;
    served(core, caller);
    Some(taken)
}

/// A slot that a hint in the depot or in somebody's magazine names.
fn hinted(core: &Core, caller: &Caller) -> Option<Taken> {
    let mut taken = None;
    loop {
        let mut rest = [0; super::depot::BATCH];
        let mut kept = 0;
        let more = core.depot.take(
            |index| core.header(index).prefetch(),
            |index| {
                let word = core.header(index).word();
                if taken.is_none() && word.is_free() {
                    taken = claim(core, Hint { word, index }, caller.site, caller.label.mark, caller.stamp());
                } else if word.is_free() {
                    rest[kept] = index;
                    kept += 1;
                }
            },
        );
        core.depot.store(rest[..kept].iter().copied());
        if taken.is_some() {
            return taken;
        }
        if !more {
            break;
        }
    }
    for victim in core.magazines() {
        victim.peek(core, |hint| {
            taken = claim(core, hint, caller.site, caller.label.mark, caller.stamp());
            taken.is_none()
        });
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// Counts an allocation that no hint popped from a magazine served.
pub(crate) fn served(core: &Core, caller: &Caller) {
    uses::add(core, caller.magazine, caller.label, 1);
    match caller.magazine {
        Some(magazine) => magazine.note_elsewhere(1, 0),
        None => {
            core.unserved.allocations.fetch_add(1, Ordering::Relaxed);
        }
    }
}
