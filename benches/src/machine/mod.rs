//! What the harness needs to know of the machine: cores, clocks, memory in use.

pub mod cores;
pub mod counting;
pub mod resident;
pub mod ticker;
pub mod ticks;
