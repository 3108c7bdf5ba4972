//! `tierpool doctor`: what this machine and this container really offer to a pool, what is wrong for latency, and what to do.
//!
//! [`machine`] looks, [`findings`] judges, [`suggest`] writes a pool's configuration, [`show`] prints.

pub mod findings;
pub mod machine;
pub mod show;
pub mod suggest;

pub use findings::{Finding, Level};
pub use machine::Machine;
