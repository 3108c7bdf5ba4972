//! One allocation in many, looked at more closely: what is worth doing now and then, and would be too dear each time.
//!
//! The hot path counts its pops anyway, and sends each whose number is a multiple of
//! [`SAMPLE_EVERY`](super::allocate::SAMPLE_EVERY) here, for good: the allocation ends here as well.

use super::allocate::{Caller, allocate_slow, claim};
use super::core::Core;
use super::magazine::{Hint, Magazine};
use super::uses;
use crate::clock;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::slot::word::Word;

/// The rest of an allocation that has popped this hint. Advances the coarse clock.
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
    clock::tick();
    let caller = Caller { site, label, magazine: Some(magazine) };
    if let Some(taken) = claim(core, Hint { word, index }, site, label.mark, caller.stamp()) {
        uses::add(core, caller.magazine, label, 1);
        return Some(taken.index);
    }
    magazine.note_stale();
    allocate_slow(core, site, label, Some(magazine))
}
