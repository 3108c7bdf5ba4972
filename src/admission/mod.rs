//! Who gets what: the rules that decide between an allocation and its tier. No `unsafe`.
//!
//! - [`breaker`]: a dependency that fails is left alone for a while; its rules in [`breaker_rules`], what it looks back on in [`window`].
//! - [`order`]: who holds and waits does so in one order of tiers. [`banker`]: who claims a maximum is admitted to what can
//!   be served in some order. [`waits_for`]: who waits for whom, to be shown.

pub(crate) mod breaker;
pub(crate) mod breaker_rules;
pub(crate) mod window;
