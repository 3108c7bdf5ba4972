//! Who gets what: the rules that decide when there is not enough for everybody. None of it is `unsafe`.
//!
//! - Tenants: [`tenants`] (who there is, and what each may hold), [`quota`] (that nobody holds more), [`fairness`] (in which
//!   proportions).
//! - [`breaker`]: what fails is left alone for a while.
//! - Deadlocks: [`order`] (hold and wait in one order of tiers), [`banker`] (or by maxima that are claimed beforehand),
//!   [`waits_for`] (who waits for whom, to be shown).

pub(crate) mod banker;
pub(crate) mod breaker;
pub(crate) mod fairness;
pub(crate) mod line;
pub(crate) mod order;
pub(crate) mod priority;
pub(crate) mod quota;
pub(crate) mod tenants;
pub(crate) mod waits_for;
