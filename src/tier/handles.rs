//! What a handle can do: find its slot, win it, or learn why not.

use super::core::{Core, flags};
use super::registry;
use crate::error::HandleError;
use crate::slot::handle::Handle;
use crate::slot::header::{Header, Note, Record};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

impl Handle {
    /// A handle from a number that [`to_bits`](Self::to_bits) gave.
    ///
    /// Checks that the tier was built in this process, that it has such a slot, and that the slot has reached such a
    /// generation. Costs a few loads; takes no lock. Whether the handle still *holds* its slot, only
    /// [`Tier::attach`](crate::Tier::attach) and [`Tier::release`](crate::Tier::release) decide.
    ///
    /// # Errors
    /// [`HandleError::Forged`] if the bits name nothing that ever existed here.
    pub fn from_bits(bits: u128) -> Result<Self, HandleError> {
        let handle = Handle::unchecked(bits);
        let genuine = handle.is_marked()
            && handle.generation() > 0
            && registry::core(handle.tier())
                .and_then(|core| core.header_checked(handle.index()))
                .is_some_and(|header| header.word().generation() >= handle.generation());
        if genuine { Ok(handle) } else { Err(HandleError::Forged { handle }) }
    }
}

/// Leases the handle's slot to the caller: of all who try with one handle, exactly one wins.
pub(crate) fn attach(core: &'static Core, handle: Handle) -> Result<u32, HandleError> {
    let header = header(core, handle)?;
    let detached = Word::new(handle.generation(), State::Detached);
    let leased = detached.with(State::Leased);
    if header.compare_exchange(detached, leased) { Ok(handle.index()) } else { Err(explain(core, header, handle)) }
}

/// The header of the slot that the handle names, if it is of this tier.
pub(crate) fn header(core: &'static Core, handle: Handle) -> Result<&'static Header, HandleError> {
    if handle.tier() != core.id {
        return Err(HandleError::Foreign { handle, tier: core.incarnation().name });
    }
    // Of all the block's headers: a tier that lived here before may have had more slots, and its handles are stale.
    core.header_checked(handle.index()).ok_or(HandleError::Forged { handle })
}

/// Why the handle did not win.
#[cold]
pub(crate) fn explain(core: &Core, header: &Header, handle: Handle) -> HandleError {
    let tier = core.incarnation().name;
    let record = header.read();
    let word = record.map_or_else(|| header.word(), |record| record.word);
    if word.is(State::Absent) && core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
        return HandleError::Closed { handle, tier };
    }
    if word.generation() < handle.generation() {
        return HandleError::Forged { handle };
    }
    if word.generation() == handle.generation() {
        // Only a detached or shared slot has a handle, and the one way on that keeps its generation is to be attached.
        return match word.state() {
            state if state.is_held() || state == State::Claimed => HandleError::InUse { handle, tier, state },
            _ => HandleError::Forged { handle },
        };
    }
    // The sites belong to this handle only if the slot went straight from it back to the tier, and is there still.
    let straight =
        |record: &Record| record.word.state().is_idle() && record.word.generation() == handle.generation() + 1;
    let record = record.filter(straight);
    HandleError::Stale {
        handle,
        tier,
        allocated_at: record.and_then(|record| record.site),
        released_at: record.and_then(|record| match record.note {
            Note::Released(site) => Some(site),
            _ => None,
        }),
    }
}
