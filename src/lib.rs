//! Pre-sized resources, handed out in a few nanoseconds.
#![warn(missing_docs)]

pub mod clock;
mod error;
mod slot;
mod sync;
mod thread;
mod tier;

pub use error::{AllocateError, BuildError, CloseError, Exhausted, HandleError};
pub use slot::handle::Handle;
pub use slot::word::State;
pub use sync::fence::{FenceKind, fence_kind};
pub use tier::Tier;
pub use tier::builder::TierBuilder;
pub use tier::bulk::{IntoIter, Iter, IterMut, Leases};
pub use tier::lease::Lease;
pub use tier::local::Local;
pub use tier::report::{Holder, Snapshot};
