//! Without a wait, with one, and as a future.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tierpool::{AllocateError, CacheError, Request, RequestError};

use super::common::waiting::{Wakes, Watchdog, block_on, poll, wait_until};
use super::{assert_free, cache, fill, pool, put};

/// Waits until somebody waits for a slot.
fn wait_for_a_waiter(pool: &tierpool::Pool) {
    wait_until("somebody waits", || pool.monitor().tier("numbers").unwrap().snapshot.waiting > 0);
}

#[test]
fn trying_is_refused_if_all_slots_are_in_use() {
    let pool = pool(2);
    let cache = cache(&pool);
    let _all = [put(&cache, 1).unwrap(), put(&cache, 2).unwrap()];
    let why = put(&cache, 3).unwrap_err();
    let CacheError::NoSlot { why: RequestError::Tier(AllocateError::Exhausted(full)), .. } = why else {
        panic!("{why}")
    };
    assert_eq!((full.tier, full.capacity, full.free), ("numbers", 2, 0));
    assert!(why.to_string().starts_with("there is no slot for a new entry: tier \"numbers\" has no slot free"));
    assert_eq!(*put(&cache, 1).unwrap(), 10, "what is there is found all the same");
    assert_eq!((cache.snapshot().refusals, cache.len()), (1, 2));
}

#[test]
fn trying_does_not_wait_for_anothers_initialisation() {
    let _watchdog = Watchdog::new("trying_does_not_wait_for_anothers_initialisation");
    let pool = pool(2);
    let cache = cache(&pool);
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let cache = &cache;
        let first = scope.spawn(move || {
            let init = |value: &mut u64| {
                begun.send(()).unwrap();
                may_go.recv().unwrap();
                *value = 1;
                Ok::<(), Infallible>(())
            };
            *cache.get_or_allocate(&1, init).unwrap()
        });
        has_begun.recv().unwrap();
        assert!(matches!(put(cache, 1), Err(CacheError::Busy { .. })));
        assert!(!cache.contains(&1) && cache.get(&1).is_none());
        let late = cache.get_or_allocate_timeout(&1, Duration::from_millis(20), fill(0)).unwrap_err();
        assert!(matches!(late, CacheError::TimedOut { waited, .. } if waited >= Duration::from_millis(20)), "{late}");
        go.send(()).unwrap();
        assert_eq!(first.join().unwrap(), 1);
    });
    assert_eq!(*put(&cache, 1).unwrap(), 1);
}

#[test]
fn patience_ends_where_the_request_or_the_call_says() {
    let _watchdog = Watchdog::new("patience_ends_where_the_request_or_the_call_says");
    let pool = pool(1);
    let request = Request::of::<u64>("numbers").patience(Duration::from_millis(20));
    let cache = pool.cache::<u64, u64>("short of slots").request(request).build().unwrap();
    let _held = put(&cache, 1).unwrap();
    for why in [
        cache.get_or_allocate(&2, fill(0)).unwrap_err(),
        cache.get_or_allocate_timeout(&2, Duration::from_millis(10), fill(0)).unwrap_err(),
    ] {
        let timed_out =
            RequestError::Tier(AllocateError::TimedOut { tier: "numbers", waiting: 0, waited: Duration::ZERO });
        let CacheError::NoSlot { why, .. } = why else { panic!("{why}") };
        assert_eq!(std::mem::discriminant(&why), std::mem::discriminant(&timed_out));
    }
    assert!(!cache.contains(&2));
}

#[test]
fn who_waits_for_a_slot_gets_it_when_a_lease_ends() {
    let _watchdog = Watchdog::new("who_waits_for_a_slot_gets_it_when_a_lease_ends");
    let pool = pool(1);
    let cache = cache(&pool);
    for round in 0..200 {
        let held = put(&cache, round).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| *cache.get_or_allocate(&(round + 1000), fill(round)).unwrap());
            if round % 2 == 0 {
                wait_for_a_waiter(&pool);
            }
            drop(held);
            assert_eq!(waiter.join().unwrap(), round);
        });
    }
    assert_free(&pool, 0);
}

#[test]
fn who_waits_without_the_cache_gets_a_slot_when_a_lease_ends() {
    let _watchdog = Watchdog::new("who_waits_without_the_cache_gets_a_slot_when_a_lease_ends");
    let pool = pool(1);
    let cache = cache(&pool);
    for round in 0..200 {
        let held = put(&cache, round).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(pool.allocate(Request::of::<u64>("numbers")).unwrap()));
            if round % 2 == 0 {
                wait_for_a_waiter(&pool);
            }
            drop(held);
            waiter.join().unwrap();
        });
        assert!(cache.is_empty());
    }
    assert_free(&pool, 1);
}

#[test]
fn a_future_waits_for_a_slot_and_may_wait_in_its_initialiser() {
    let pool = pool(1);
    let cache = cache(&pool);
    let held = put(&cache, 1).unwrap();
    let wakes = Arc::new(Wakes::default());
    let mut future = pin!(cache.get_or_allocate_async(&2, async |value: &mut u64| {
        tokio::task::yield_now().await;
        *value = 20;
        Ok::<(), Infallible>(())
    }));
    assert!(poll(future.as_mut(), &wakes).is_pending());
    drop(held);
    assert_eq!(*block_on(future).unwrap(), 20);
    assert!(!cache.contains(&1) && cache.contains(&2));
}

#[test]
fn a_future_that_is_dropped_lets_the_next_one_try() {
    let pool = pool(1);
    let cache = cache(&pool);
    let wakes = Arc::new(Wakes::default());
    {
        let stuck = cache.get_or_allocate_async(&1, async |_: &mut u64| pending::<Result<(), Infallible>>().await);
        let mut stuck = Box::pin(stuck);
        assert!(poll(stuck.as_mut(), &wakes).is_pending());
        assert!(matches!(put(&cache, 1), Err(CacheError::Busy { .. })));
        let next = cache.get_or_allocate_async(&1, async |value: &mut u64| {
            *value = 11;
            Ok::<(), Infallible>(())
        });
        let mut next = pin!(next);
        assert!(poll(next.as_mut(), &wakes).is_pending(), "it waits for the first");
        drop(stuck);
        assert_eq!(*block_on(next).unwrap(), 11);
    }
    assert_free(&pool, 0);
    assert_eq!((cache.snapshot().failures, cache.snapshot().pinned), (1, 0));
}

#[test]
fn futures_may_go_to_any_thread() {
    let pool = pool(4);
    let cache = cache(&pool);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let of = |key: u64| {
        let cache = cache.clone();
        runtime.spawn(async move {
            let init = async move |value: &mut u64| {
                tokio::task::yield_now().await;
                *value = key;
                Ok::<(), Infallible>(())
            };
            *cache.get_or_allocate_async(&key, init).await.unwrap()
        })
    };
    let tasks: Vec<_> = (0..100).map(|at| of(at % 10)).collect();
    for (at, task) in tasks.into_iter().enumerate() {
        assert_eq!(runtime.block_on(task).unwrap(), at as u64 % 10);
    }
}
