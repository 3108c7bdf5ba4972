//! Who does not react stops nobody: a grant that is not taken is revoked, and a future that is leaked keeps nothing.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tierpool::Tier;

use crate::Task;
use crate::common::waiting::{Watchdog, wait_until};
use crate::common::{Census, accounted};

/// Met in tokio (issues 6450 and 7892): a permit granted to a future that nobody polls is nobody's, and everybody hangs.
#[test]
fn a_grant_that_nobody_takes_is_revoked() {
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::ZERO).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let mut unpolled = Task::waiting(&tier);
    let mut next = Task::waiting(&tier);
    drop(held);
    assert_eq!((unpolled.wakes(), next.wakes()), (1, 0));

    assert!(tier.try_allocate().is_err(), "revoked, and handed to who is next");
    assert_eq!(next.wakes(), 1);
    let lease = next.take();

    // The one that was late has kept its rank.
    let mut last = Task::waiting(&tier);
    assert!(unpolled.poll().is_pending());
    drop(lease);
    assert_eq!((unpolled.wakes(), last.wakes()), (2, 0));
    drop(unpolled.take());
    drop(last.take());
    assert_eq!(accounted(&tier).free, 1);
}

#[test]
fn a_revoked_grant_is_free_if_nobody_waits() {
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::ZERO).build_with(|| 0_u64).unwrap();
    let held = tier.allocate().unwrap();
    let mut unpolled = Task::waiting(&tier);
    drop(held);
    let lease = tier.try_allocate().expect("a slot that nobody takes is there for all");
    assert!(unpolled.poll().is_pending(), "too late: it waits again");
    drop(lease);
    drop(unpolled.take());
    assert_eq!(accounted(&tier).free, 1);
}

/// The same with a thread behind the future: it looks around by itself.
#[test]
fn a_future_that_nobody_polls_does_not_hang_a_thread() {
    let _watchdog = Watchdog::new("a_future_that_nobody_polls_does_not_hang_a_thread");
    let tier = Tier::builder("unpolled").capacity(1).grant_limit(Duration::from_millis(10)).build_with(|| 0).unwrap();
    for barging in [false, true] {
        let tier: Tier<u64> = if barging {
            let builder = Tier::builder("unpolled").capacity(1).grant_limit(Duration::from_millis(10));
            builder.barging(Duration::MAX).build_with(|| 0).unwrap()
        } else {
            tier.clone()
        };
        let held = tier.allocate().unwrap();
        let unpolled = Task::waiting(&tier);
        thread::scope(|scope| {
            let behind = scope.spawn(|| tier.allocate().map(drop));
            wait_until("both wait", || tier.snapshot().waiting == 2);
            drop(held);
            assert_eq!(behind.join().unwrap(), Ok(()));
        });
        drop(unpolled);
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (1, 0));
    }
}

/// Forgets something where a leak checker still sees it: here it is meant.
fn leak(it: impl Sized) {
    static LEAKED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    LEAKED.lock().unwrap().push(Box::into_raw(Box::new(it)).expose_provenance());
}

/// A future that is leaked keeps nothing: neither a slot that was granted to it nor a place in the next tier's queue.
#[test]
fn leaked_futures_do_no_harm() {
    let census = Census::default();
    let tier = census.tier(1);
    let held = tier.allocate().unwrap();
    leak(Task::waiting(&tier).future); // granted by the drop below
    leak(Task::waiting(&tier).future); // still in the queue when the tier goes
    drop(held);
    assert_eq!(tier.snapshot().waiting, 1);
    drop(tier);
    assert_eq!(census.alive(), 0, "the granted slot came back with the end of the tier");

    let next = census.tier(1);
    let held = next.allocate().unwrap();
    drop(held);
    drop(next.try_allocate().expect("nobody waits here"));
    assert_eq!(next.snapshot().waiting, 0);
}
