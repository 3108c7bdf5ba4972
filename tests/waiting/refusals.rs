//! Waits that end without a slot: the queue is full, the time is over, the tier is closed; each is told which.

use std::sync::Barrier;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tierpool::{AllocateError, Tier};

use crate::common::waiting::{FOR_EVER, Watchdog, wait_until};
use crate::common::{Census, accounted};
use crate::{Task, tier};

#[test]
fn a_full_queue_refuses() {
    let tier = Tier::builder("short").capacity(1).max_waiters(2).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let first = Task::waiting(&tier);
    let _second = Task::waiting(&tier);
    let full = AllocateError::QueueFull { tier: "short", waiting: 2 };
    assert_eq!(tier.allocate().map(drop), Err(full));
    assert_eq!(tier.allocate_timeout(FOR_EVER).map(drop), Err(full));
    let Poll::Ready(Err(error)) = Task::new(&tier).poll() else { panic!("refused at once") };
    assert_eq!(error, full);
    assert!(error.to_string().contains("2 wait for one already"), "{error}");
    let Err(AllocateError::Exhausted(why)) = tier.try_allocate() else { panic!("refused") };
    assert_eq!(why.waiting, 2);
    drop(first);
    let third = Task::waiting(&tier);
    drop((held, third));
}

#[test]
fn who_waited_in_vain_is_told_how_long() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let _other = Task::waiting(&tier);
    let patience = Duration::from_millis(5);
    let Err(error) = tier.allocate_timeout(patience) else { panic!("held") };
    let AllocateError::TimedOut { tier: "waited", waiting: 1, waited } = error else { panic!("{error:?}") };
    assert!(waited >= patience);
    assert!(error.to_string().contains("had no slot free for"), "{error}");
    assert!(matches!(tier.allocate_timeout(Duration::ZERO), Err(AllocateError::Exhausted(_))), "zero never waits");
    drop(held);
}

/// TORTURE 6 and 8: the tier is closed while threads and futures wait; each is told.
#[test]
fn close_wakes_everybody() {
    let _watchdog = Watchdog::new("close_wakes_everybody");
    let census = Census::default();
    let tier = census.tier(1);
    let held = tier.allocate().unwrap();
    let mut futures = [Task::waiting(&tier), Task::waiting(&tier)];
    thread::scope(|scope| {
        let blocked =
            [scope.spawn(|| tier.allocate().map(drop)), scope.spawn(|| tier.allocate_timeout(FOR_EVER).map(drop))];
        wait_until("all wait", || tier.snapshot().waiting == 4);
        tier.close();
        for thread in blocked {
            assert_eq!(thread.join().unwrap(), Err(AllocateError::Closed { tier: "citizens" }));
        }
    });
    for future in &mut futures {
        assert_eq!(future.wakes(), 1);
        assert!(matches!(future.poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    }
    assert!(matches!(tier.allocate(), Err(AllocateError::Closed { .. })), "who comes later is told at once");
    assert!(matches!(Task::new(&tier).poll(), Poll::Ready(Err(AllocateError::Closed { .. }))));
    assert_eq!(tier.snapshot().waiting, 0);
    drop(held);
    assert_eq!(census.alive(), 0);
}

/// TORTURE 6: waiters, releases and the close at the same time.
#[test]
fn close_in_the_midst_of_it() {
    let _watchdog = Watchdog::new("close_in_the_midst_of_it");
    for _ in 0..100 {
        let census = Census::default();
        let tier = census.tier(2);
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    while let Ok(lease) = tier.allocate() {
                        drop(lease);
                    }
                });
            }
            barrier.wait();
            thread::yield_now();
            tier.close();
        });
        let now = accounted(&tier);
        assert_eq!((now.absent, now.waiting), (2, 0));
        assert_eq!(census.alive(), 0);
    }
}
