//! One allocation in many, looked at more closely: what is worth doing now and then, and would be too dear each time.
//!
//! The hot path counts its pops anyway, and sends each whose number is a multiple of
//! [`SAMPLE_EVERY`] here, for good: the allocation ends here as well. Of those that leave the hot path
//! because no hint is at hand, which take longer, one in [`SLOW_EVERY`] is timed, by [`allocate_slow`](slow). Each counts for as many as
//! it stands for, so that the two kinds are in the histogram as often as they are in life.
//!
//! A timed allocation is measured from its call, or from where it left the hot path, which is some nanoseconds later, to the slot that
//! is leased; a value's examination and what a pool adds are not in it, and the cost of the clock is taken off. Refusals are not
//! timed, nor are bulk allocations, nor the first allocation of a thread, which registers it.

use super::allocate::{Caller, SAMPLE_EVERY, allocate_slow, claim, search};
use super::core::Core;
use super::latency::Stopwatch;
use super::magazine::{Hint, Magazine};
use super::{sites, uses};
use crate::clock;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::slot::word::Word;

/// See the module's header.
pub(crate) const SLOW_EVERY: u64 = 61;

/// For the owner, who has just popped the hint of one in so many: advances the coarse clock, and has the line counted that it was for.
#[cold]
pub(crate) fn note(core: &Core, magazine: &Magazine, site: Site) {
    clock::tick();
    // The first of a magazine stands for none before it.
    if magazine.popped() > 1 {
        sites::note(core, site, SAMPLE_EVERY);
    }
}

/// The rest of an allocation that has popped this hint, after a [`note`] of it.
#[cold]
#[inline(never)]
pub(crate) fn allocate(
    core: &'static Core,
    word: Word,
    index: u32,
    site: Site,
    label: Label,
    magazine: &'static Magazine,
) -> Option<u32> {
    note(core, magazine, site);
    let caller = Caller { site, label, magazine: Some(magazine) };
    let watch = Stopwatch::start();
    if let Some(taken) = claim(core, Hint { word, index }, site, label.mark, caller.stamp()) {
        // As in `note`.
        if magazine.popped() > 1 {
            core.latency.record(watch.stop(), SAMPLE_EVERY);
        }
        uses::add(core, caller.magazine, label, 1);
        return Some(taken.index);
    }
    magazine.note_stale();
    allocate_slow(core, site, label, Some(magazine))
}

/// The same search for a slot, timed.
#[cold]
#[inline(never)]
pub(crate) fn slow(core: &'static Core, caller: Caller) -> Option<u32> {
    let watch = Stopwatch::start();
    let index = search(core, caller)?;
    core.latency.record(watch.stop(), SLOW_EVERY);
    Some(index)
}
