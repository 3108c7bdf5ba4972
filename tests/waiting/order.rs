//! Whose turn it is: who waited first is served first, and newcomers pass only where they may.

use std::time::Duration;

use tierpool::Tier;

use crate::common::accounted;
use crate::{Task, tier};

/// TORTURE 13, met in pgagroal (issue 1006): a newcomer passed a waiter of 29 seconds, again and again.
#[test]
fn newcomers_do_not_pass_a_waiter() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);

    assert!(tier.try_allocate().is_err(), "the slot is the waiter's, polled or not");
    assert!(tier.allocate_timeout(Duration::from_millis(1)).is_err());
    let mut newcomer = Task::waiting(&tier);

    let lease = waiter.take();
    assert!(newcomer.poll().is_pending());
    drop(lease);
    drop(newcomer.take());
    assert_eq!(accounted(&tier).free, 1);
}

#[test]
fn first_come_first_served() {
    let tier = tier(1);
    let mut held = Some(tier.allocate().unwrap());
    let mut waiters: Vec<_> = (0..20).map(|_| Task::waiting(&tier)).collect();
    assert_eq!(tier.snapshot().waiting, 20);
    for turn in 0..20 {
        drop(held.take());
        let woken: Vec<_> = (0..20).filter(|&at| waiters[at].wakes() > 0).collect();
        assert_eq!(woken, (0..=turn).collect::<Vec<_>>());
        held = Some(waiters[turn].take());
    }
    drop(held);
    assert_eq!(accounted(&tier).free, 1);
}

/// Whoever lets newcomers pass lets them pass, until the first waiter has waited long enough.
#[test]
fn barging_both_ways() {
    let build = |limit| Tier::builder("barged").capacity(1).barging(limit).build_with(|| 0_u64).unwrap();

    let tier = build(Duration::MAX);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);
    assert_eq!(waiter.wakes(), 1, "woken to try");
    let newcomer = tier.try_allocate().expect("free for all");
    assert!(waiter.poll().is_pending(), "too late, it waits on");
    drop(newcomer);
    assert_eq!(waiter.wakes(), 2);
    drop(waiter.take());
    assert_eq!(accounted(&tier).free, 1);

    let tier = build(Duration::ZERO);
    let held = tier.allocate().unwrap();
    let mut waiter = Task::waiting(&tier);
    drop(held);
    assert!(tier.try_allocate().is_err(), "it has waited long enough: handed over");
    drop(waiter.take());
}
