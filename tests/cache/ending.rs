//! Closing, and what outlives what.

use std::convert::Infallible;
use std::time::Duration;

use tierpool::{AllocateError, CacheError, Pool, Request, RequestError, Tier};

use super::common::Census;
use super::{assert_free, cache, fill, pool, put};

const LONG: Duration = Duration::from_secs(60);

fn is_closed<T, E>(outcome: Result<T, CacheError<E>>) -> bool {
    matches!(outcome, Err(CacheError::NoSlot { why: RequestError::Tier(AllocateError::Closed { .. }), .. }))
}

#[test]
fn a_closed_pools_cache_is_empty() {
    let pool = pool(4);
    let cache = cache(&pool);
    let used = put(&cache, 1).unwrap();
    drop(put(&cache, 2).unwrap());
    assert!(pool.close_and_wait(Duration::from_millis(1)).is_err(), "one is in use");
    assert!(cache.is_empty() && cache.get(&1).is_none());
    assert!(is_closed(put(&cache, 2)) && is_closed(put(&cache, 1)));
    assert_eq!(*used, 10);
    drop(used);
    pool.close_and_wait(LONG).unwrap();
}

#[test]
fn what_is_initialised_while_the_pool_closes_is_given_and_not_kept() {
    let pool = pool(2);
    let cache = cache(&pool);
    let lease = cache.get_or_allocate(&1, |value| {
        pool.close();
        *value = 10;
        Ok::<(), Infallible>(())
    });
    assert_eq!((*lease.unwrap(), cache.len()), (10, 0));
    pool.close_and_wait(LONG).unwrap();
}

#[test]
fn a_tier_that_is_closed_alone_is_noticed_by_the_next_use() {
    for miss in [false, true] {
        let tier = Tier::builder("numbers").capacity(2).build_with(|| 0u64).unwrap();
        let pool = Pool::builder().tier(tier.clone()).build().unwrap();
        let cache = cache(&pool);
        drop(put(&cache, 1).unwrap());
        tier.close();
        let key = if miss { 2 } else { 1 };
        assert!(is_closed(put(&cache, key)));
        assert!(cache.is_empty() && cache.get(&1).is_none());
        tier.close_and_wait(LONG).unwrap();
    }
}

#[test]
fn a_cache_keeps_its_pool_and_a_lease_outlives_both() {
    let census = Census::default();
    let pool = Pool::builder().tier(census.tier(4)).build().unwrap();
    let cache = pool.cache::<u64, super::common::Citizen>("citizens").build().unwrap();
    drop(pool);
    let note = |number: u64| {
        move |citizen: &mut super::common::Citizen| {
            *citizen.note = number;
            Ok::<(), Infallible>(())
        }
    };
    let used = cache.get_or_allocate(&1, note(1)).unwrap();
    drop(cache.get_or_allocate(&2, note(2)).unwrap());
    assert_eq!(census.alive(), 4);
    drop(cache);
    assert_eq!((census.alive(), *used.note), (1, 1), "all that nobody uses has gone");
    let clone = used.clone();
    drop(used);
    assert_eq!((census.alive(), *clone.note), (1, 1));
    drop(clone);
    assert_eq!((census.alive(), census.made()), (0, 4));
}

#[test]
fn a_dropped_cache_gives_everything_back() {
    let pool = pool(4);
    let cache = cache(&pool);
    (0..4).for_each(|key| drop(put(&cache, key).unwrap()));
    let (used, view) = (cache.get(&0).unwrap(), cache.tenant("md").unwrap());
    drop(cache);
    assert_free(&pool, 0);
    drop(view);
    assert_free(&pool, 3);
    drop(used);
    assert_free(&pool, 4);
    drop(pool.try_allocate(Request::of::<u64>("numbers")).unwrap());
}

/// A tier whose values panic when they are reset: the entry that has to go takes the initialiser of another with it, and nothing is lost.
#[test]
fn a_panic_when_an_entry_goes_loses_nothing() {
    let reset = |value: &mut u64| assert_ne!(*value, 10, "this one does not go quietly");
    let numbers = Tier::builder("numbers").capacity(1).reset(reset).build_with(|| 0u64).unwrap();
    let pool = Pool::builder().tier(numbers).build().unwrap();
    let cache = cache(&pool);
    drop(put(&cache, 1).unwrap());
    let panic = super::common::panics(|| drop(put(&cache, 2)));
    assert!(panic.contains("does not go quietly"), "{panic}");
    assert!(cache.is_empty());
    pool.reclaim();
    assert_eq!(*cache.try_get_or_allocate(&2, fill(20)).unwrap(), 20);
    assert_free(&pool, 0);
}
