//! What tiers of a pool hold: a file for each kind of resource, and for each part of one.
//!
//! Memory: [`memory`] (the bytes of a slot), [`backing`] (what may be wanted of where they lie, and what was got), [`region`] (where
//! they lie), [`places`] (who lies where), [`room`] (how much the process may still take), `typed` (the bytes as values of a type).

pub(crate) mod backing;
pub(crate) mod memory;
pub(crate) mod places;
pub(crate) mod region;
pub(crate) mod room;
#[cfg(feature = "bytemuck")]
pub(crate) mod typed;
