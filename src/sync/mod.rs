//! The one door to atomics, fences, locks, parking and thread-locals: `std`'s in a normal build, loom's under `--cfg loom`,
//! shuttle's if `--cfg shuttle` stands beside it.
//!
//! Every other file takes them from here, so what loom and shuttle explore is the code that ships. Five things are not
//! modelled, and are plain `std` in all builds: the coarse clock, the thread names, the registry of control
//! blocks, the making of purses, and the counts of `Arc`s. They carry no guarantee of the architecture by their ordering.

pub(crate) mod arena;
pub(crate) mod fence;
pub(crate) mod pages;
pub(crate) mod park;

#[cfg(all(loom, not(shuttle)))]
pub(crate) use loom as origin;
#[cfg(shuttle)]
pub(crate) use shuttle as origin;
#[cfg(not(loom))]
pub(crate) use std as origin;

pub(crate) use origin::sync::{
    Mutex, MutexGuard,
    atomic::{self, AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
pub(crate) use origin::thread::yield_now;

/// Thread-locals whose initial values are constants: under std, without a lazy initialiser.
#[cfg(not(loom))]
macro_rules! thread_locals {
    ($($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;)*) => {
        std::thread_local! { $($(#[$doc])* static $name: $type = const { $value };)* }
    };
}
#[cfg(loom)]
macro_rules! thread_locals {
    ($($(#[$doc:meta])* static $name:ident: $type:ty = $value:expr;)*) => {
        $crate::sync::origin::thread_local! { $($(#[$doc])* static $name: $type = $value;)* }
    };
}
pub(crate) use thread_locals;

#[cfg(all(shuttle, not(loom)))]
compile_error!("shuttle explores the build for models: pass --cfg loom beside --cfg shuttle");
