//! A trace of keys through caches of several sizes: the pool's, its peers, and the best that any could do.
//!
//! [`keys`] is what was asked for, [`read`](mod@read) where that comes from, [`policies`] are the caches, [`belady`] the best, [`curve`] asks them all,
//! [`show`] and [`chart`](mod@chart) tell what came of it.

pub mod belady;
pub mod chart;
pub mod curve;
pub mod keys;
pub mod policies;
pub mod read;
pub mod show;

pub use chart::chart;
pub use curve::{Capacity, Point, run};
pub use keys::Keys;
pub use read::{KeysError, read};
pub use show::{json, text};
