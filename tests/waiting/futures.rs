//! Futures under any executor: whatever a waker does, and whichever thread polls.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tierpool::{AllocateError, Tier};

use crate::common::waiting::{Watchdog, block_on};
use crate::common::{accounted, panics};
use crate::{Task, tier};

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut task = Task::waiting(&tier);
    let before = std::mem::take(&mut task.wakes);
    assert!(task.poll().is_pending());
    drop(held);
    assert_eq!((before.0.load(Ordering::SeqCst), task.wakes()), (0, 1));
    drop(task.take());
}

/// A foreign waker that panics costs the release that called it a panic, and nobody a slot.
#[test]
fn a_panicking_waker_loses_no_slot() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker that does not work");
        }
    }
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut future = pin!(tier.allocate_async());
    let bomb = Waker::from(Arc::new(Bomb));
    assert!(future.as_mut().poll(&mut Context::from_waker(&bomb)).is_pending());
    let mut next = Task::waiting(&tier);

    assert_eq!(panics(|| drop(held)), "a waker that does not work");

    let Poll::Ready(Ok(lease)) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("granted before it was woken")
    };
    drop(lease);
    drop(next.take());
    assert_eq!(accounted(&tier).free, 1);

    // A close goes on to the others.
    let held = tier.allocate().unwrap();
    let mut future = pin!(tier.allocate_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&bomb)).is_pending());
    let mut next = Task::waiting(&tier);
    assert_eq!(panics(|| tier.close()), "a waker that does not work");
    assert!(matches!(next.poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    drop(held);
    assert_eq!(accounted(&tier).absent, 1);
}

/// A waker may use the tier: none is called under a lock.
#[test]
fn a_waker_may_use_the_tier() {
    struct Nosy(Tier<u64>, Mutex<Vec<bool>>);
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let seen = self.0.try_allocate().is_ok();
            let mut other = Task::new(&self.0);
            assert!(other.poll().is_pending());
            drop(other);
            self.1.lock().unwrap().push(seen);
        }
    }
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let nosy = Arc::new(Nosy(tier.clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&nosy));
    let mut future = pin!(tier.allocate_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    assert_eq!(*nosy.1.lock().unwrap(), [false], "woken once, the slot granted by then");
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(_))));
}

/// Under tokio: tasks of one thread and of several, time-outs that drop futures.
#[test]
fn under_tokio() {
    let _watchdog = Watchdog::new("under_tokio");
    use tokio::runtime::Builder;
    let runtimes = [Builder::new_current_thread(), {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    }];
    for mut runtime in runtimes {
        let runtime = runtime.enable_time().build().unwrap();
        let tier = tier(2);
        let tasks: Vec<_> = (0..20_u64)
            .map(|task| {
                let tier = tier.clone();
                runtime.spawn(async move {
                    for turn in 0..50 {
                        if (task + turn) % 5 == 0 {
                            let patience = Duration::from_micros(10 * task);
                            drop(tokio::time::timeout(patience, tier.allocate_async()).await);
                        } else {
                            let mut lease = tier.allocate_async().await.unwrap();
                            tokio::task::yield_now().await;
                            *lease += 1;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (2, 0));
    }
}

/// A future may go to another thread, and its lease outlives it.
#[test]
fn futures_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let tier = tier(1);
    let lease = block_on(send(tier.allocate_async())).unwrap();
    assert!(format!("{:?}", tier.allocate_async()).contains("not polled"));
    drop(lease);
}
