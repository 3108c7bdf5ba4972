//! Who gets what: the rules that decide between an allocation and its tier. No `unsafe`.
//!
//! - [`breaker`]: what fails is left alone for a while.
//! - Deadlocks: [`order`] (hold and wait in one order of tiers), [`banker`] (or by maxima that are claimed beforehand),
//!   [`waits_for`] (who waits for whom, to be shown).

pub(crate) mod banker;
pub(crate) mod breaker;
pub(crate) mod order;
pub(crate) mod waits_for;
