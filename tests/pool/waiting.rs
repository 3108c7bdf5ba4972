//! Waiting for a pool: by a thread or a future, for as long as the request has patience. What queues guarantee is in `tests/waiting`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tierpool::{AllocateError, Pool, Request, RequestError};

use crate::common::panics;
use crate::common::waiting::{FOR_EVER, Wakes, poll, wait_until};
use crate::free;

#[test]
fn a_blocked_thread_gets_what_is_released_and_its_wait_is_measured() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let _ = pool.metrics();
    let held = pool.allocate(Request::memory(1)).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate(Request::memory(20)).unwrap().len());
        wait_until("the thread waits", || pool.monitor().tiers[0].snapshot.waiting == 1);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 20);
    });
    let metrics = pool.metrics();
    assert!(metrics.average_latency > Duration::ZERO, "{metrics:?}");
    assert_eq!((metrics.failure_rate, metrics.tiers[0].allocations, metrics.tiers[0].releases), (0.0, 2, 2));
}

#[test]
fn patience_ends_a_wait_unless_the_call_says_otherwise() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let _held = pool.allocate(Request::memory(1)).unwrap();
    let request = Request::memory(1).patience(Duration::from_millis(1));
    for error in [
        pool.allocate(request).unwrap_err(),
        pool.prepare(request).unwrap().allocate().unwrap_err(),
        pool.allocate_timeout(Request::memory(1), Duration::from_millis(1)).unwrap_err(),
        pool.allocate_timeout(request.patience(FOR_EVER), Duration::from_millis(1)).unwrap_err(),
    ] {
        assert!(matches!(error, RequestError::Tier(AllocateError::TimedOut { tier: "m", .. })), "{error}");
    }
    let error = pool.allocate(request.patience(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, RequestError::Tier(AllocateError::Exhausted(_))), "zero is no wait: {error}");
}

#[test]
fn a_dropped_future_passes_its_slot_on() {
    let pool = Pool::builder().memory("m", 64, 1).build().unwrap();
    let held = pool.allocate(Request::memory(1)).unwrap();
    let wakes = [Arc::<Wakes>::default(), Arc::default()];
    let mut first = Box::pin(pool.allocate_async(Request::memory(1)));
    let mut second = Box::pin(pool.allocate_async(Request::memory(30)));
    assert!(poll(first.as_mut(), &wakes[0]).is_pending());
    assert!(poll(second.as_mut(), &wakes[1]).is_pending());
    drop(held);
    assert_eq!(wakes[0].0.load(Ordering::SeqCst), 1, "it was granted to the first");
    drop(first);
    let Poll::Ready(Ok(lease)) = poll(second.as_mut(), &wakes[1]) else { panic!("it has passed on") };
    assert_eq!(lease.len(), 30);
    drop(lease);
    assert_eq!(free(&pool, "m"), 1);
    let text = panics(|| drop(poll(second.as_mut(), &wakes[1])));
    assert!(text.contains("polled after completion"), "{text}");
}

#[test]
fn futures_of_a_pool_run_under_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let pool = Pool::builder().memory("m", 64, 2).build().unwrap();
    runtime.block_on(async {
        let tasks = (0..50).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let (mut one, two) =
                        pool.allocate_group_async((Request::memory(1), Request::memory(2))).await.unwrap();
                    one[0] = 1;
                    drop(two);
                    tokio::task::yield_now().await;
                    drop(one);
                    let lease = pool.allocate_async(Request::memory(3)).await.unwrap();
                    tokio::task::yield_now().await;
                    drop(lease);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            tokio::time::timeout(FOR_EVER, task).await.expect("in time").unwrap();
        }
        let held = pool.allocate_async(Request::memory(1)).await.unwrap();
        let other = pool.allocate_async(Request::memory(1)).await.unwrap();
        let late = tokio::time::timeout(Duration::from_millis(5), pool.allocate_async(Request::memory(1))).await;
        assert!(late.is_err(), "the runtime's time-out drops it");
        drop((held, other));
    });
    assert_eq!(free(&pool, "m"), 2);
}
