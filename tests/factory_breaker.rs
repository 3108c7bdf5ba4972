//! A circuit breaker around a factory, in time that the test makes up.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tierpool::{Breaker, BreakerRules, BreakerState, BreakerWindow, Pool, PoolError, Reclaimer, Request, Tier, clock};

/// A factory that fails is left alone after some calls, the pool says so and goes on with what it has, and recovers by itself.
#[test]
fn a_factory_behind_a_breaker_is_left_alone_and_recovers() {
    let rules = BreakerRules {
        window: BreakerWindow::Calls(6),
        minimum_calls: 6,
        half_open_calls: 1,
        open_min: Duration::from_secs(20),
        open_max: Duration::from_secs(20),
        ..BreakerRules::default()
    };
    let breaker = Arc::new(Breaker::new(rules).unwrap());
    let (up, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let (server, counted) = (Arc::clone(&up), Arc::clone(&calls));
    let connect = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        if server.load(Ordering::Relaxed) { Ok("connected") } else { Err("the server is down") }
    };
    let backoff = Duration::from_millis(1);
    let tier = Tier::<&str>::builder("connections").capacity(3).reclaimer(Reclaimer::Manual);
    let tier = tier.rebuild_backoff(backoff, backoff).try_build_with(breaker.around(connect)).unwrap();
    let pool = Pool::builder().tier(tier).factory_breaker("connections", &breaker).build().unwrap();
    assert_eq!(pool.monitor().tiers[0].factory_breaker.as_ref().map(|status| status.total_calls), Some(3));

    up.store(false, Ordering::Relaxed);
    let request = Request::of::<&str>("connections");
    pool.try_allocate(request).unwrap().discard();
    let mut now = Instant::now() + Duration::from_secs(1000);
    let mut attempt = || {
        now += Duration::from_secs(1);
        clock::tick_to(now);
        pool.reclaim();
    };
    while breaker.state() == BreakerState::Closed {
        attempt();
        assert!(calls.load(Ordering::Relaxed) <= 6, "three calls of six failed: {:?}", breaker.status());
    }
    let failed = calls.load(Ordering::Relaxed);
    (0..10).for_each(|_| attempt());
    assert_eq!(calls.load(Ordering::Relaxed), failed, "it is left alone");
    let status = pool.monitor();
    assert!(status.to_string().contains("the circuit breaker of the factory of connections is open"), "{status}");
    let both = (pool.try_allocate(request).unwrap(), pool.try_allocate(request).unwrap());

    up.store(true, Ordering::Relaxed);
    (0..20).for_each(|_| attempt());
    assert_eq!(breaker.state(), BreakerState::Closed, "{:?}", breaker.status());
    let _third = pool.try_allocate(request).expect("it was built again");
    drop(both);
    let wrong = Pool::builder().memory("m", 64, 1).factory_breaker("x", &breaker).build();
    assert!(matches!(wrong, Err(PoolError::UnknownTier { .. })));
}
