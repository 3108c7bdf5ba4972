//! The one door to atomics, fences, locks, parking and thread-locals: `std`'s in a normal build, loom's under `--cfg loom`.
//!
//! Every other file takes them from here, so what loom explores is the code that ships. Four things are not
//! modelled, and are plain `std` in both builds: the coarse clock, the thread names, the registry of control
//! blocks, and the counts of `Arc`s. They carry no guarantee of the architecture by their ordering.

pub(crate) mod arena;
pub(crate) mod fence;
pub(crate) mod pages;
pub(crate) mod park;

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{self, AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{self, AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

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
        loom::thread_local! { $($(#[$doc])* static $name: $type = $value;)* }
    };
}
pub(crate) use thread_locals;

#[cfg(loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now;
