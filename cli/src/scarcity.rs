//! A described load on a real pool, with more demand than slots: without the rules, then with them.
//!
//! Each tenant's threads take slots, hold them, give them back and think, or serve a recording, until the time is up. [`load`] says what is
//! wanted and what is due, [`run`](mod@run) does it, [`show`] tells what came of it.

pub mod load;
pub mod run;
pub mod show;

pub use load::{Load, max_min};
pub use run::run;
pub use show::{chart, text};
