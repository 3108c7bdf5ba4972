//! Routing: the smallest tier that fits serves, a named one serves its own type, and who may spill goes to a larger tier or to the
//! system.

use std::time::Duration;

use tierpool::{AllocateError, Limit, Memory, Pool, Request, RequestError, Spill, TenantRules};

use crate::common::waiting::block_on;
use crate::{free, pool, served_by};

#[test]
fn the_smallest_tier_that_fits_serves_every_size() {
    let pool = pool();
    for (bytes, capacity) in [(0, 64), (1, 64), (64, 64), (65, 512), (512, 512), (513, 4096), (4096, 4096)] {
        let lease = pool.try_allocate(Request::memory(bytes)).unwrap();
        assert_eq!((lease.len(), served_by(&lease)), (bytes, capacity));
    }
    let error = pool.try_allocate(Request::memory(4097)).unwrap_err();
    assert_eq!(error, RequestError::TooLarge { wanted: 4097, largest: 4096, tier: "large" });
    assert!(error.to_string().contains("4097 bytes") && error.to_string().contains("\"large\" with 4096"), "{error}");
}

#[test]
fn a_named_tier_serves_its_own_type_only() {
    let pool = pool();
    assert_eq!(*pool.try_allocate(Request::of::<u64>("numbers")).unwrap(), 7);
    let whole = pool.try_allocate(Request::of::<Memory>("middle")).unwrap();
    assert_eq!(whole.len(), 512, "by name, all its bytes");

    let error = pool.try_allocate(Request::of::<u32>("numbers")).unwrap_err();
    assert_eq!(error, RequestError::OtherKind { tier: "numbers", wanted: "u32", is: "u64" });
    let error = pool.try_allocate(Request::of::<u64>("number")).unwrap_err();
    assert!(matches!(error, RequestError::NoTier { name } if name.as_str() == "number"), "{error}");
    let long = "é".repeat(50);
    let error = pool.try_allocate(Request::of::<u64>(&long)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the pool has no tier \"{}\"…; `monitor()` names those it has", "é".repeat(20))
    );
}

#[test]
fn a_request_spills_to_the_next_larger_tiers_only_if_it_may() {
    let pool = pool();
    let request = Request::memory(10);
    let mut held: Vec<_> = (0..2).map(|_| pool.try_allocate(request).unwrap()).collect();
    assert!(pool.try_allocate(request).is_err());
    for capacity in [512, 512, 4096, 4096] {
        let lease = pool.try_allocate(request.spill(Spill::NextLarger)).unwrap();
        assert_eq!((lease.len(), served_by(&lease)), (10, capacity));
        held.push(lease);
    }
    let error = pool.try_allocate(request.spill(Spill::NextLarger)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(why)) if why.tier == "small"), "{error}");

    let now = pool.monitor();
    let spilled: Vec<_> = ["small", "middle", "large"].map(|name| now.tier(name).unwrap().spilled_here).into();
    assert_eq!(spilled, [0, 2, 2]);
    assert_eq!(now.tier("numbers").unwrap().snapshot.free, 2, "not to tiers of another kind");
    let metrics = pool.metrics();
    let refused: u64 = metrics.tiers.iter().map(|tier| tier.refusals).sum();
    assert_eq!(refused - now.absorbed, 2, "two requests were refused; all other refusals were made good");
    assert!((metrics.failure_rate - 2.0 / 8.0).abs() < 1e-9, "{metrics:?}");
}

#[test]
fn the_pool_says_what_requests_by_size_do_that_do_not() {
    let pool = Pool::builder().memory("a", 64, 1).memory("b", 128, 1).spill(Spill::NextLarger).build().unwrap();
    let first = pool.try_allocate(Request::memory(1)).unwrap();
    assert!(pool.try_allocate(Request::memory(1).spill(Spill::Refuse)).is_err());
    assert!(pool.try_allocate(Request::of::<Memory>("a")).is_err(), "who names a tier wants that tier");
    let second = pool.try_allocate(Request::of::<Memory>("a").spill(Spill::NextLarger)).unwrap();
    assert_eq!((second.len(), served_by(&second)), (64, 128));
    drop(second);
    assert_eq!(served_by(&pool.try_allocate(Request::memory(1)).unwrap()), 128);
    drop(first);
}

#[test]
fn the_system_serves_what_spills_to_it_and_gets_it_back() {
    let pool = Pool::builder().memory("small", 64, 1).overflow(2).spill(Spill::System).build().unwrap();
    let _small = pool.try_allocate(Request::memory(1)).unwrap();
    let mut huge = pool.try_allocate(Request::memory(1 << 20)).unwrap();
    assert_eq!((huge.len(), huge.capacity()), (1 << 20, 1 << 20), "larger than any tier");
    huge.fill(7);
    let second = pool.try_allocate(Request::memory(10)).unwrap();
    assert_eq!((second.len(), second.capacity()), (10, 10), "as many as were requested");
    assert!(pool.try_allocate(Request::memory(10)).is_err(), "two at a time");
    assert_eq!(pool.monitor().overflowed(), 2);

    drop(huge);
    let again = pool.try_allocate(Request::memory(1 << 20)).unwrap();
    assert!(again.iter().all(|&byte| byte == 0), "its bytes went back to the system");
    drop((again, second));
    assert_eq!(free(&pool, "overflow"), 2);
    let error = pool.try_allocate(Request::memory(usize::MAX - 1)).unwrap_err();
    assert!(matches!(error, RequestError::System(_)), "{error}");
    assert_eq!(free(&pool, "overflow"), 2, "and no slot is lost by that");

    let without = Pool::builder().memory("small", 64, 1).build().unwrap();
    for bytes in [1, 1000] {
        let error = without.try_allocate(Request::memory(bytes).spill(Spill::System)).unwrap_err();
        assert_eq!(error, RequestError::NoOverflow);
    }
    assert!(pool.try_allocate(Request::of::<Memory>("overflow")).is_err(), "it is no tier that one could name");
}

#[test]
fn a_wait_spills_before_it_waits() {
    let pool = pool();
    let request = Request::memory(10).spill(Spill::NextLarger);
    let _small: Vec<_> = (0..2).map(|_| pool.allocate(Request::memory(10)).unwrap()).collect();
    assert_eq!(served_by(&pool.allocate(request).unwrap()), 512);
    assert_eq!(served_by(&block_on(pool.allocate_async(request)).unwrap()), 512);
    assert_eq!(served_by(&pool.allocate_timeout(request, Duration::ZERO).unwrap()), 512);
}

/// Who would wait spills to what its quota allows, as who does not: it has not paid twice.
#[test]
fn a_wait_at_the_quota_spills_before_it_waits() {
    let tenant = TenantRules::new("t").hard(Limit::slots(1));
    let pool = Pool::builder().memory("small", 64, 1).memory("large", 256, 1).tenant(tenant).build().unwrap();
    let _small = pool.try_allocate(Request::memory(64)).unwrap();
    let request = Request::memory(64).tenant("t").spill(Spill::NextLarger);
    assert_eq!(served_by(&pool.try_allocate(request).unwrap()), 256);
    assert_eq!(served_by(&pool.allocate_timeout(request, Duration::from_secs(60)).unwrap()), 256);
    let large = block_on(pool.allocate_async(request)).unwrap();
    assert_eq!(served_by(&large), 256);
    let error = pool.allocate_timeout(request, Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, RequestError::Quota { limit: 1, held: 1, .. }), "{error}");
}
