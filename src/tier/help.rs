//! What an allocation does before it refuses: it makes a slot fit for use itself, rather than wait for the reclaimer.

use super::allocate::{Caller, Taken};
use super::core::Core;
use super::{clean, epoch, grow, rebuild, wait};

/// Makes one slot and leases it to the caller, if there is one to be cleaned, built or rebuilt, or retired and seen by nobody.
pub(crate) fn one(core: &'static Core, caller: &Caller) -> Option<Taken> {
    let made = make(core);
    wait::after_pass(core);
    Some(lease(core, made?, caller))
}

/// Makes one slot, in maintenance.
pub(crate) fn make(core: &'static Core) -> Option<Taken> {
    clean::one(core).or_else(|| epoch::one(core)).or_else(|| grow::one(core)).or_else(|| rebuild::one(core))
}

/// Leases a slot in maintenance to the caller.
pub(crate) fn lease(core: &Core, taken: Taken, caller: &Caller) -> Taken {
    let word = core.header(taken.index).lease(taken.word, caller.site, caller.label.mark, caller.stamp());
    Taken { word, index: taken.index }
}

/// Whether that might succeed now. Some loads.
pub(crate) fn is_possible(core: &Core) -> bool {
    !core.dirty.head().is_empty() || epoch::is_possible(core) || grow::is_possible(core) || rebuild::is_possible(core)
}
