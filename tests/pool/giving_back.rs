//! Giving back: leases and handles find their way home, to no other pool, and also when the pool is closed or gone.

use std::time::Duration;

use tierpool::{AllocateError, Memory, Pool, Request, RequestError, Tier};

use crate::common::accounted;
use crate::{free, pool};

#[test]
fn a_lease_is_released_into_its_own_pool_only() {
    let (one, two) = (pool(), pool());
    let lease = one.try_allocate(Request::memory(1)).unwrap();
    let error = two.release(lease).unwrap_err();
    assert_eq!(error.tier, "small");
    assert!(error.to_string().contains("\"small\""), "{error}");
    one.release(error.lease).unwrap();
    assert_eq!(free(&one, "small"), 2);
}

#[test]
fn a_handle_finds_its_tier_in_the_pool() {
    let (pool, other) = (pool(), pool());
    let handle = pool.try_allocate(Request::memory(100)).unwrap().detach();
    assert_eq!(
        pool.attach::<u64>(handle).unwrap_err(),
        RequestError::OtherKind { tier: "middle", wanted: "u64", is: "tierpool::resource::memory::Memory" }
    );
    assert_eq!(other.attach::<Memory>(handle).unwrap_err(), RequestError::ForeignHandle { handle });
    assert_eq!(other.release_handle(handle).unwrap_err(), RequestError::ForeignHandle { handle });
    let lease = pool.attach::<Memory>(handle).unwrap();
    assert_eq!(lease.len(), 100);
    let handle = lease.detach();
    pool.release_handle(handle).unwrap();
    let again = pool.release_handle(handle).unwrap_err();
    assert!(again.to_string().contains(file!()), "it names who was first: {again}");
}

#[test]
fn leases_outlive_the_pool_and_prepared_requests_keep_it_open() {
    let pool = pool();
    let prepared = pool.prepare(Request::memory(1)).unwrap();
    drop(pool);
    let lease = prepared.clone().try_allocate().unwrap();
    assert_eq!(prepared.tier_name(), "small");
    drop(prepared);
    assert_eq!(lease.len(), 1);
}

#[test]
fn a_closed_pool_serves_nothing_and_says_who_still_holds() {
    let pool = pool();
    let lease = pool.try_allocate(Request::memory(1)).unwrap();
    let error = pool.close_and_wait(Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.tier, error.holders.len()), ("small", 1));
    let error = pool.try_allocate(Request::memory(1)).unwrap_err();
    assert_eq!(error, RequestError::Tier(AllocateError::Closed { tier: "small" }));
    assert!(pool.monitor().to_string().contains("closed: small, middle, large, numbers"));
    drop(lease);
    pool.close_and_wait(Duration::from_millis(1)).unwrap();
}

#[test]
fn a_tier_in_a_pool_can_be_used_beside_it() {
    let tier = Tier::builder("numbers").capacity(2).build_with(|| 7u64).unwrap();
    let pool = Pool::builder().tier(tier.clone()).build().unwrap();
    let (one, two) = (tier.try_allocate().unwrap(), pool.try_allocate(Request::of::<u64>("numbers")).unwrap());
    assert!(tier.try_allocate().is_err());
    pool.release(one).unwrap();
    drop(two);
    assert_eq!(accounted(&tier).free, 2);
    // Memory of the program's own, too.
    let tier = Tier::builder("own").capacity(1).build_with(|| Memory::new(100).unwrap()).unwrap();
    let pool = Pool::builder().tier(tier).memory("m", 64, 1).build().unwrap();
    assert_eq!(pool.try_allocate(Request::of::<Memory>("own")).unwrap().len(), 100);
    assert!(pool.try_allocate(Request::memory(65)).is_err(), "by size, only what was declared by size");
}
