//! Why a cache could not be built, and why it has not given what was asked for.

use std::time::Duration;

use super::super::error::{RequestError, ShortName};

/// Why a [`Cache`](super::Cache) has not given an entry. `E` is what the caller's initialiser fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError<E> {
    /// There is no such entry, and no slot for it: all slots of the tier are in use, or another rule of the pool stands against it.
    #[error("there is no slot for a new entry: {why}")]
    NoSlot {
        /// Why the pool has refused.
        why: RequestError,
    },
    /// Somebody else is initialising the entry, and the call is not to wait.
    #[error(
        "cache {cache:?}: the entry is being initialised by another; try again, or wait for it with `get_or_allocate`"
    )]
    Busy {
        /// The cache's name.
        cache: ShortName,
    },
    /// Somebody else was initialising the entry for all the time that the call was given.
    #[error("cache {cache:?}: the entry was still being initialised by another after {waited:.2?}")]
    TimedOut {
        /// The cache's name.
        cache: ShortName,
        /// How long the call waited.
        waited: Duration,
    },
    /// The caller's own initialiser failed. Its slot has gone back, and the next request for the key tries anew.
    #[error("the entry could not be initialised: {0}")]
    Init(E),
}

/// Why a cache could not be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheBuildError {
    /// Its name is not fit for reports.
    #[error("cache name {name:?} {problem}")]
    Name {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Its request can never be served: usually the pool has no tier of the cache's name, and nothing else was requested.
    #[error("cache {name:?}: {source}; say with `request` what its entries are made of")]
    Request {
        /// The cache's name.
        name: String,
        /// Why not.
        source: RequestError,
    },
    /// It could hold nothing, or more than can be counted.
    #[error("cache {name:?} cannot have a capacity of {capacity}; give it from 1 to {}", super::builder::MOST)]
    Capacity {
        /// The cache's name.
        name: String,
        /// What was given: entries, or weight.
        capacity: u64,
    },
    /// Entries would be too old as soon as they are there.
    #[error(
        "cache {name:?}: a time to live of {time_to_live:?} is shorter than a tick of the clock; give it 10 ms at least"
    )]
    TimeToLive {
        /// The cache's name.
        name: String,
        /// The time as given.
        time_to_live: Duration,
    },
    /// A share is a part of the whole.
    #[error("cache {name:?}: a tenant's share of {share} is none; give it more than 0, and 1 at most")]
    Share {
        /// The cache's name.
        name: String,
        /// The share as given.
        share: f64,
    },
}
