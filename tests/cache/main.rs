//! The keyed cache: slots that keep their content, found by key.
//!
//! In reading order: [`filling`] (one initialises, the others wait; what failed leaves nothing), [`forms`] (without a wait, with one, as a
//! future), [`giving_up`] (what is evicted, and before whom), [`pinning`], [`limits`] (capacity, weights, age, tenants' shares), [`tenants`], [`ending`]
//! (closing, and what outlives what), [`model`] (any sequence, against a map). `cache_age.rs` beside it moves the clock.

#![cfg(all(feature = "cache", not(loom)))]

mod ending;
mod filling;
mod forms;
mod giving_up;
mod limits;
mod model;
mod pinning;
mod tenants;

#[path = "../common/mod.rs"]
pub mod common;

use std::convert::Infallible;

use tierpool::{Cache, CacheError, CacheLease, Pool, Tier};

type Outcome = Result<CacheLease<u64>, CacheError<Infallible>>;

/// A pool with so many numbers, and two tenants.
fn pool(slots: usize) -> Pool {
    let numbers = Tier::builder("numbers").capacity(slots).build_with(|| 0u64).unwrap();
    Pool::builder().tier(numbers).tenant("md").tenant("risk").build().unwrap()
}

/// A cache of all of them.
fn cache(pool: &Pool) -> Cache<u64, u64> {
    pool.cache("numbers").build().unwrap()
}

/// An initialiser that does not fail.
fn fill(number: u64) -> impl FnOnce(&mut u64) -> Result<(), Infallible> {
    move |value| {
        *value = number;
        Ok(())
    }
}

/// The entry of a key whose value is ten times that, made if need be; never waits.
fn put(cache: &Cache<u64, u64>, key: u64) -> Outcome {
    cache.try_get_or_allocate(&key, fill(key * 10))
}

/// Every slot of the pool's tier is in some state, and so many are free.
#[track_caller]
fn assert_free(pool: &Pool, free: usize) {
    let now = pool.monitor().tier("numbers").unwrap().snapshot;
    let sum = now.free + now.leased + now.shared + now.detached + now.claimed + now.quarantined + now.absent;
    assert_eq!(sum, now.capacity, "a slot is lost: {now:?}");
    assert_eq!(now.free, free, "{now:?}");
}
