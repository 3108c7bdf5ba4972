//! A pool's circuit breaker, in time that the test makes up.
#![cfg(not(loom))]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tierpool::{BreakerRules, BreakerState, BreakerWindow, Memory, Pool, Request, RequestError, Spill, clock};

fn request() -> Request<'static, Memory> {
    Request::memory(64)
}

/// Refusals open it, it refuses at once, tries again after a while, and closes when that goes well.
#[test]
fn a_breaker_opens_and_recovers() {
    let rules = BreakerRules {
        window: BreakerWindow::Calls(10),
        minimum_calls: 10,
        half_open_calls: 2,
        open_min: Duration::from_secs(20),
        open_max: Duration::from_secs(20),
        ..BreakerRules::default()
    };
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let pool = Pool::builder()
        .memory("buffers", 64, 1)
        .breaker_with("buffers", rules, move |event| sink.lock().unwrap().push((event.from, event.to)))
        .build()
        .unwrap();
    for _ in 0..100 {
        drop(pool.try_allocate(request()).unwrap());
    }
    let held = pool.try_allocate(request()).unwrap();
    for _ in 0..5 {
        assert!(matches!(pool.try_allocate(request()), Err(RequestError::Tier(_))));
    }
    let error = pool.try_allocate(request()).unwrap_err();
    assert!(matches!(error, RequestError::Open { tier: "buffers", why } if why.retry_in.is_some()), "{error}");
    assert!(pool.monitor().to_string().contains("the circuit breaker of buffers is open"), "{}", pool.monitor());
    drop(held);
    assert!(pool.allocate(request()).is_err(), "still open, though a slot is free");
    clock::tick_to(Instant::now() + Duration::from_secs(60));
    drop(pool.try_allocate(request()).unwrap());
    assert_eq!(pool.breaker("buffers").unwrap().state(), BreakerState::HalfOpen);
    drop(pool.allocate(request()).unwrap());
    assert_eq!(pool.breaker("buffers").unwrap().state(), BreakerState::Closed);
    use BreakerState::*;
    assert_eq!(*events.lock().unwrap(), [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)]);
    pool.breaker("buffers").unwrap().force_open();
    assert!(pool.try_allocate(request()).is_err());
    pool.breaker("buffers").unwrap().disable();
    drop(pool.try_allocate(request()).unwrap());
}

/// A refusal is a failure, whether or not the request is then served by a larger tier.
#[test]
fn a_refusal_that_spills_counts() {
    let rules = BreakerRules { window: BreakerWindow::Calls(4), minimum_calls: 4, ..BreakerRules::default() };
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let pool = Pool::builder()
        .memory("small", 64, 1)
        .memory("large", 128, 8)
        .breaker_with("small", rules, move |event| sink.lock().unwrap().push(event.to))
        .build()
        .unwrap();
    let _held = pool.try_allocate(request()).unwrap();
    let spills = request().spill(Spill::NextLarger);
    let large: Vec<_> = (0..4).map(|_| pool.try_allocate(spills).unwrap()).collect();
    // The first only: the other test moves the clock, and so ends its open time.
    assert_eq!(events.lock().unwrap().first(), Some(&BreakerState::Open));
    assert_eq!(pool.try_allocate(spills).unwrap().capacity(), 128, "what is open is passed by");
    drop(large);
}
