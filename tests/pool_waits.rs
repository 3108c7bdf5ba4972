//! What a pool knows of those who wait: how their waits ended, by priority and by tenant; and what their waiting means to others.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tierpool::{Limit, Memory, Pool, Priority, Request, RequestError, TenantRules, Waits, clock};

fn request() -> Request<'static, Memory> {
    Request::memory(64)
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn ends(waits: Waits) -> (u64, u64, u64) {
    (waits.served, waits.in_vain, waits.given_up)
}

/// Every wait is counted once, with its end, for its priority, its tier and its tenant; and what need not wait is not counted.
#[test]
fn each_wait_is_counted_with_its_end() {
    let pool = Pool::builder().memory("small", 64, 1).memory("large", 256, 1).tenant("a").tenant("b").build().unwrap();
    let held = pool.allocate(request().tenant("a")).unwrap();
    let high = request().priority(Priority::High).tenant("b");

    let patience = Duration::from_millis(5);
    assert!(pool.allocate_timeout(high, patience).is_err());
    {
        let mut given_up = pin!(pool.allocate_async(high));
        assert!(poll(given_up.as_mut()).is_pending());
    }
    let mut served = pin!(pool.allocate_async(request().tenant("b")));
    assert!(poll(served.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(Ok(lease)) = poll(served.as_mut()) else { panic!("the slot has come back") };
    let mut closed = pin!(pool.allocate_async(request().priority(Priority::Critical)));
    assert!(poll(closed.as_mut()).is_pending());
    pool.close();
    assert!(matches!(poll(closed.as_mut()), Poll::Ready(Err(_))));

    let status = pool.monitor();
    let tier = |priority| *status.tier("small").unwrap().waits.of(priority);
    assert_eq!(ends(tier(Priority::High)), (0, 1, 1));
    assert_eq!(ends(tier(Priority::Normal)), (1, 0, 0));
    assert_eq!(ends(tier(Priority::Critical)), (0, 1, 0));
    assert_eq!(tier(Priority::Low), Waits::default());
    assert_eq!(ends(status.tier("small").unwrap().waits.all()), (1, 2, 1));
    assert_eq!(status.tier("large").unwrap().waits.all(), Waits::default());
    assert_eq!(ends(status.tenant("b").unwrap().waits), (1, 1, 1));
    assert_eq!(status.tenant("a").unwrap().waits, Waits::default());
    assert!(tier(Priority::High).longest >= patience && tier(Priority::High).average() == Duration::ZERO);
    let normal = tier(Priority::Normal);
    assert!(normal.average() > Duration::ZERO && normal.average() == normal.longest, "{normal:?}");

    let text = status.to_string();
    for line in [["small", "High"], ["small", "Normal"], ["b", "tenant"]] {
        let found = text.lines().any(|text| text.split_whitespace().take(2).eq(line));
        assert!(found, "{line:?} is missing:\n{text}");
    }
    drop(lease);
}

/// Tenants that hold something are shown with what they may hold.
#[test]
fn tenants_are_shown_with_what_they_hold() {
    let limit = Limit { slots: 3, bytes: 200 };
    let child = TenantRules::new("child").parent("desk").soft(Limit::slots(1));
    let builder = Pool::builder().memory("small", 64, 4).tenant(TenantRules::new("desk").hard(limit));
    let pool = builder.tenant(child).tenant("idle").build().unwrap();
    let _held = pool.try_allocate(request().tenant("child")).unwrap();
    let status = pool.monitor();
    let of = |name| status.tenant(name).unwrap();
    assert_eq!((of("desk").held, of("desk").hard), (Limit { slots: 1, bytes: 64 }, limit));
    assert_eq!((of("child").held, of("child").soft), (Limit { slots: 1, bytes: 64 }, Limit::slots(1)));
    assert_eq!(of("idle").held.slots, 0);
    let text = status.to_string();
    assert!(text.contains("1 of 3  64 of 200") && text.contains("child") && !text.contains("idle"), "{text}");
}

/// A soft limit counts for as long as somebody within his waits, however long that is; and some time after the last refusal it
/// counts no more.
#[test]
fn soft_limits_hold_as_long_as_somebody_waits() {
    let soft = |name, slots| TenantRules::new(name).soft(Limit::slots(slots));
    let builder = Pool::builder().memory("small", 64, 2).memory("large", 256, 8);
    let pool = builder.tenant(soft("hog", 2)).tenant(soft("modest", 1)).build().unwrap();
    let mut held: Vec<_> = (0..2).map(|_| pool.try_allocate(request().tenant("hog")).unwrap()).collect();
    let more = Request::memory(256).tenant("hog");
    held.extend((0..3).map(|_| pool.try_allocate(more).unwrap()));

    let mut waits = pin!(pool.allocate_async(request().tenant("modest")));
    assert!(poll(waits.as_mut()).is_pending());
    let is_soft = |outcome| matches!(outcome, Err(RequestError::Quota { soft: true, .. }));
    for seconds in [0, 2, 20, 200] {
        clock::tick_to(Instant::now() + Duration::from_secs(seconds));
        assert!(is_soft(pool.try_allocate(more)), "{seconds} s after the wait began");
        // Nor does it have again what it gives back.
        drop(held.pop());
        assert!(is_soft(pool.try_allocate(more)), "{seconds} s after the wait began");
        if held.len() == 2 {
            break;
        }
    }
    drop(held.remove(0));
    assert!(matches!(poll(waits.as_mut()), Poll::Ready(Ok(_))), "a slot has come back");
    clock::tick_to(Instant::now() + Duration::from_secs(300));
    let again: Vec<_> = (0..4).map(|_| pool.try_allocate(more).unwrap()).collect();
    assert_eq!(again.len() + held.len(), 5);
}
