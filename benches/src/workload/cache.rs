//! A hit of the keyed cache: look up one of 1,024 keys, all of which are there, use the value, and let it go. Beside it the hits of `quick_cache`, which
//! the pool's is made of, and of `moka`, each of an `Arc`: what their users put there, since values are cloned. A prepared lease alone
//! (`tierpool-shared-lease`) is what a clone of it costs.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use tierpool::{Pool, Tier};

use super::floor;
use crate::run::cast::Cast;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "cache";
/// A hit of a pool's cache.
pub const OURS: &str = "tierpool-cache";
/// The same of the crate that decides in it what goes.
pub const QUICK: &str = "quick_cache";

const KEYS: u64 = 1024;
/// What is there, and some room.
const CAPACITY: usize = 4096;

/// All keys again and again, in an order that no prefetcher follows.
fn keys() -> impl FnMut() -> u64 + Send {
    let mut at = 0_u64;
    move || {
        at = at.wrapping_add(1);
        at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54
    }
}

/// All subjects.
pub fn fill(cast: &mut Cast) {
    const { assert!(KEYS == 1 << 10, "as many as the keys' ten bits can name") };
    let numbers = Tier::builder("numbers").capacity(CAPACITY).build_with(|| 0_u64).expect("a tier");
    let shared = numbers.try_allocate().expect("a slot").into_shared();
    let pool = Pool::builder().tier(numbers).build().expect("a pool");
    let cache = pool.cache::<u64, u64>("numbers").build().expect("a cache");
    for key in 0..KEYS {
        let fill = |value: &mut u64| {
            *value = key;
            Ok::<(), Infallible>(())
        };
        drop(cache.get_or_allocate(&key, fill).expect("a slot"));
    }
    let mut next = keys();
    floor::steps(cast, OURS, Kind::Ours, move || _ = black_box(*cache.get(&next()).expect("it is there")));
    floor::steps(cast, "tierpool-shared-lease", Kind::Ours, move || _ = black_box(*shared.clone()));
    let quick = quick_cache::sync::Cache::new(CAPACITY);
    (0..KEYS).for_each(|key| quick.insert(key, Arc::new(key)));
    let mut next = keys();
    floor::steps(cast, QUICK, Kind::Pool, move || _ = black_box(*quick.get(&next()).expect("it is there")));
    let moka = moka::sync::Cache::new(CAPACITY as u64);
    (0..KEYS).for_each(|key| moka.insert(key, Arc::new(key)));
    moka.run_pending_tasks();
    let mut next = keys();
    floor::steps(cast, "moka", Kind::Pool, move || _ = black_box(*moka.get(&next()).expect("it is there")));
    floor::atomic_add(cast);
}
