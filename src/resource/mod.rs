//! What tiers of a pool hold: a file for each kind of resource.

pub(crate) mod memory;
