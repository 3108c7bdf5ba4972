//! Handing over: a slot that comes back, whichever way, goes to one waiter, cleaned, examined, and in that waiter's name.

use std::thread;
use std::time::Duration;

use tierpool::{AllocateError, State, Tier};

use crate::common::accounted;
use crate::common::waiting::{block_on, wait_until};
use crate::common::ways::{Reset, each_way_back};
use crate::{Task, tier};

#[test]
fn a_free_slot_needs_no_wait() {
    let tier = tier(2);
    let first = tier.allocate().unwrap();
    let second = block_on(tier.allocate_async()).unwrap();
    assert!(matches!(tier.try_allocate(), Err(AllocateError::Exhausted(_))));
    drop((first, second));
    assert_eq!(tier.allocate_timeout(Duration::MAX).map(drop), Ok(()));
    assert_eq!(accounted(&tier).free, 2);
}

#[test]
fn a_blocked_thread_gets_the_slot_that_is_released() {
    let tier = tier(1);
    let mut held = tier.allocate().unwrap();
    *held = 7;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| *tier.allocate().unwrap());
        wait_until("the thread waits", || tier.snapshot().waiting == 1);
        drop(held);
        assert_eq!(waiter.join().unwrap(), 7);
    });
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting, now.allocations, now.releases), (1, 0, 2, 2));
}

/// TORTURE 16: one release woke every waiter.
#[test]
fn one_release_wakes_one_waiter() {
    let tier = tier(3);
    let mut bulk = tier.try_allocate_many(3).unwrap();
    let waiters: Vec<_> = (0..8).map(|_| Task::waiting(&tier)).collect();
    let woken = || waiters.iter().map(Task::wakes).sum::<usize>();
    drop(bulk.pop());
    assert_eq!(woken(), 1);
    bulk.release();
    assert_eq!(woken(), 3, "a bulk of two wakes two more");
    drop(waiters);
    assert_eq!(accounted(&tier).free, 3);
}

/// Every way in which a slot comes back serves who waits.
#[test]
fn every_way_back_serves_a_waiter() {
    each_way_back(1, |way, give_back, reset, tier| {
        let mut held = tier.allocate().unwrap();
        *held = 7;
        let mut waiter = Task::waiting(&tier);
        give_back(&tier, held);
        assert_eq!(waiter.wakes(), 1, "{way}");
        let lease = waiter.take();
        assert!(reset == Reset::Never || *lease == 0, "{way}: reset {reset:?}, before it is handed over");
        drop(lease);
        tier.reclaim();
        let now = accounted(&tier);
        assert_eq!((now.free, now.allocations, now.releases), (1, 2, 2), "{way}, reset {reset:?}");
    });
}

/// A value is examined before it is handed to a waiter too; one that fails costs it no place.
#[test]
fn a_granted_value_is_examined() {
    let builder = Tier::builder("examined").capacity(1).validate_on_allocate(|value: &mut u64| *value < 7);
    let tier = builder.build_with(|| 0).unwrap();
    let mut held = tier.allocate().unwrap();
    *held = 7;
    let mut waiter = Task::waiting(&tier);
    let mut behind = Task::waiting(&tier);
    drop(held);
    let lease = waiter.take();
    assert_eq!(*lease, 0, "replaced");
    assert!(behind.poll().is_pending());
    drop(lease);
    drop(behind.take());
    assert_eq!(accounted(&tier).free, 1);
}

#[test]
fn a_granted_slot_is_held_by_its_waiter() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    thread::scope(|scope| {
        let waiter = thread::Builder::new().name("patient".into()).spawn_scoped(scope, || {
            let handle = tier.allocate().unwrap().detach();
            (handle, line!() - 1, tier.holders())
        });
        wait_until("the thread waits", || tier.snapshot().waiting == 1);
        drop(held);
        let (handle, line, holders) = waiter.unwrap().join().unwrap();
        let [holder] = &holders[..] else { panic!("one holder: {holders:?}") };
        assert_eq!(holder.state, State::Detached);
        assert_eq!(holder.site.map(|site| site.line()), Some(line));
        assert_eq!(holder.thread_name.as_deref(), Some("patient"));
        tier.release(handle).unwrap();
    });
}
