//! Who holds several slots and waits for more: no deadlock, and an answer to who waits for whom.
#![cfg(not(loom))]

pub mod common;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::waiting::{FOR_EVER, wait_until};
use tierpool::{Memory, Pool, Request, RequestError};

/// Two tiers of that many slots.
fn pool(slots: usize) -> Pool {
    Pool::builder().memory("a", 64, slots).memory("b", 128, slots).build().unwrap()
}

const A: Request<'static, Memory> = Request::memory(64);
const B: Request<'static, Memory> = Request::memory(128);

/// TORTURE 18: who would hold and wait against the order is refused before it waits, with both lines.
#[test]
fn who_would_wait_against_the_order_is_told_so() {
    let pool = pool(1);
    let session = pool.session();
    let other = pool.try_allocate(A).unwrap();
    let b = session.allocate(B).unwrap();
    let line = line!() + 1;
    let error = session.allocate_timeout(A, FOR_EVER).unwrap_err();
    let RequestError::Order { held: "b", held_at, wanted: "a", wanted_at } = error else {
        panic!("another error: {error}")
    };
    assert_eq!((held_at.line(), wanted_at.line()), (line - 2, line));
    assert!(error.to_string().contains(&held_at.to_string()), "{error}");
    drop(other);
    let a = session.allocate(A).expect("it need not wait");
    assert_eq!((a.tier_name(), a.session(), b.session()), ("a", session.id(), session.id()));
    drop((a, b));
    // In the order of tiers it may wait.
    let a = session.allocate(A).unwrap();
    let other = pool.try_allocate(B).unwrap();
    assert!(matches!(session.allocate_timeout(B, Duration::from_millis(1)), Err(RequestError::Tier(_))));
    drop((a, other));
}

/// Two sessions that take two tiers in opposite orders, again and again: with claims both go on.
#[test]
fn claims_make_any_order_safe() {
    let pool = pool(1);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for order in [[A, B], [B, A]] {
            let (pool, start) = (&pool, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..300 {
                    let session = pool.session();
                    session.claim(&[("a", 1), ("b", 1)]).unwrap();
                    let first = session.allocate_timeout(order[0], FOR_EVER).unwrap();
                    thread::yield_now();
                    let second = session.allocate_timeout(order[1], FOR_EVER).unwrap();
                    drop((first, second));
                }
            });
        }
    });
    let now = pool.monitor();
    assert!(now.tiers.iter().all(|tier| tier.snapshot.free == 1), "{now}");
}

/// What would be unsafe is refused at once, or waited for.
#[test]
fn the_banker_refuses_what_is_unsafe() {
    let pool = pool(1);
    let (one, two) = (pool.session(), pool.session());
    one.claim(&[("a", 1), ("b", 1)]).unwrap();
    two.claim(&[("b", 1), ("a", 1)]).unwrap();
    let a = one.try_allocate(A).unwrap();
    assert!(matches!(two.try_allocate(B), Err(RequestError::Unsafe { tier: "b" })), "free, but unsafe");
    assert!(matches!(two.allocate_timeout(B, Duration::from_millis(5)), Err(RequestError::Unsafe { .. })));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| two.allocate_timeout(B, FOR_EVER).map(drop));
        thread::sleep(Duration::from_millis(20)); // until it waits, most likely
        drop(a);
        waiter.join().unwrap().unwrap();
    });
    assert!(matches!(one.claim(&[("a", 1)]), Err(RequestError::LateClaim)));
    let third = pool.session();
    assert!(matches!(third.claim(&[("c", 1)]), Err(RequestError::NoTier { .. })));
    assert!(matches!(third.claim(&[("a", 2)]), Err(RequestError::Claim { tier: "a", .. })));
    third.claim(&[("a", 1)]).unwrap();
    assert!(matches!(third.try_allocate(B), Err(RequestError::Claim { tier: "b", .. })), "not claimed");
}

/// Who waits for whom: the graph shows the waiter, the holder, and both lines.
#[test]
fn the_graph_shows_who_waits_for_whom() {
    let pool = pool(1);
    let (holder, waiter) = (pool.session(), pool.session());
    let b = holder.allocate(B).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.allocate_timeout(B, FOR_EVER).map(drop));
        wait_until("it is seen to wait", || pool.waits_for().edges().count() == 1);
        let edge = pool.waits_for().edges().next().unwrap();
        assert_eq!((edge.waiter, edge.holder, edge.tier), (waiter.id(), holder.id(), 1));
        let shown = pool.monitor().to_string();
        assert!(shown.contains(&format!("session {} waits for b at", waiter.id())), "{shown}");
        assert!(edge.waits_at.file().ends_with("sessions.rs") && pool.waits_for().ring().is_none());
        drop(b);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(pool.waits_for().edges().count(), 0);
}
