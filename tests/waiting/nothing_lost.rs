//! No slot and no wake-up is lost: futures dropped in the moment of a grant, time-outs, races, values that break, and all at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tierpool::{AllocateError, Tier};

use crate::common::waiting::{FOR_EVER, Watchdog, block_on, wait_until};
use crate::common::{Census, Citizen, accounted};
use crate::{Task, tier};

/// TORTURE 14: a future is dropped in the very moment in which it is handed a slot.
#[test]
fn a_dropped_future_passes_its_slot_on() {
    let tier = tier(1);
    let held = tier.allocate().unwrap();
    let first = Task::waiting(&tier);
    let mut second = Task::waiting(&tier);
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first); // granted, and never polled again
    assert_eq!(second.wakes(), 1);
    let lease = second.take();
    let third = Task::waiting(&tier);
    drop(lease);
    drop(third);
    assert_eq!(accounted(&tier).free, 1, "the last grant went back to the tier");
    drop(tier.try_allocate().unwrap());
}

/// TORTURE 14, for threads: time-outs of about the length of a hold, so that many end in the moment of a grant.
#[test]
fn a_wait_that_times_out_loses_no_slot() {
    let _watchdog = Watchdog::new("a_wait_that_times_out_loses_no_slot");
    let tier = tier(1);
    let timed_out = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..3_u64 {
            let (tier, timed_out) = (&tier, &timed_out);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(worker);
                for _ in 0..2_000 {
                    match tier.allocate_timeout(Duration::from_nanos(random.u64(1..20_000))) {
                        Ok(_lease) => (0..random.u32(0..200)).for_each(|_| std::hint::spin_loop()),
                        Err(AllocateError::TimedOut { .. }) => _ = timed_out.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (1, 0));
    assert_eq!(now.refusals, timed_out.load(Ordering::Relaxed) as u64);
}

/// TORTURE 15: the slot becomes free between "no slot free" and "now I wait".
#[test]
fn no_wake_up_is_lost() {
    let _watchdog = Watchdog::new("no_wake_up_is_lost");
    for capacity in [1, 2] {
        let tier = tier(capacity);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    (0..3_000).for_each(|_| drop(tier.allocate().unwrap()));
                });
            }
        });
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (capacity, 0));
    }
}

/// With barging: who is awake passes on what it leaves, and who does not react is passed over.
#[test]
fn barging_loses_no_wake_up() {
    let build = |limit| {
        Tier::builder("barged").capacity(2).barging(Duration::MAX).grant_limit(limit).build_with(|| 0_u64).unwrap()
    };
    let tier = build(FOR_EVER);
    let held = [tier.allocate().unwrap(), tier.allocate().unwrap()];
    let [mut first, mut second, third] = std::array::from_fn(|_| Task::waiting(&tier));
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0), "one is awake at a time");
    let lease = first.take();
    assert_eq!(second.wakes(), 1, "and passes on what is left");
    drop(second.take());
    assert_eq!(third.wakes(), 1);
    drop(third); // cancelled while it is awake
    drop(lease);
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (2, 0));

    let tier = build(Duration::ZERO);
    let [one, two] = [tier.allocate().unwrap(), tier.allocate().unwrap()];
    let [unpolled, mut next, mut last] = std::array::from_fn(|_| Task::waiting(&tier));
    drop(one);
    assert_eq!((unpolled.wakes(), next.wakes()), (1, 0));
    drop(two);
    assert_eq!(next.wakes(), 1, "the first has not reacted");
    let lease = next.take();
    assert_eq!(last.wakes(), 1);
    drop(last.take());
    drop((lease, unpolled));
    let now = accounted(&tier);
    assert_eq!((now.free, now.waiting), (2, 0));
}

/// A thread sleeps without a timer until the only value breaks and cannot be replaced at once: then it is roused, and tries
/// again itself, since there is no reclaimer that would.
#[test]
fn a_sleeping_thread_is_roused_to_rebuild() {
    let _watchdog = Watchdog::new("a_sleeping_thread_is_roused_to_rebuild");
    let broken = Arc::new(AtomicBool::new(false));
    let factory = Arc::clone(&broken);
    let tier = Tier::builder("roused").capacity(1).rebuild_backoff(Duration::from_millis(1), Duration::from_millis(1));
    let tier: Tier<u64> =
        tier.try_build_with(move || if factory.load(Ordering::Relaxed) { Err("not now") } else { Ok(7) }).unwrap();
    let held = tier.allocate().unwrap();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| tier.allocate().map(|lease| *lease));
        wait_until("it waits", || tier.snapshot().waiting == 1);
        thread::sleep(Duration::from_millis(50)); // until it sleeps, most likely
        broken.store(true, Ordering::Relaxed);
        held.discard();
        broken.store(false, Ordering::Relaxed);
        assert_eq!(sleeper.join().unwrap(), Ok(7));
    });
}

/// Threads, futures, time-outs, cancellations, bulks and handles at once: in the end every slot is there, and nobody waits.
#[test]
fn conservation_after_a_storm() {
    let _watchdog = Watchdog::new("conservation_after_a_storm");
    for barging in [None, Some(Duration::MAX), Some(Duration::from_micros(50))] {
        let census = Census::default();
        let value = census.clone();
        let builder = Tier::builder("storm").capacity(3).grant_limit(Duration::from_millis(10));
        let builder = if let Some(limit) = barging { builder.barging(limit) } else { builder };
        let tier = builder.build_with(move || value.value()).unwrap();
        thread::scope(|scope| {
            for seed in 0..4 {
                let tier = &tier;
                scope.spawn(move || storm(tier, seed, 1_500));
            }
        });
        let now = accounted(&tier);
        assert_eq!((now.free, now.waiting), (3, 0), "{barging:?}: {now:?}");
        assert_eq!(census.alive(), 3);
        drop(tier);
        assert_eq!(census.alive(), 0);
    }
}

fn storm(tier: &Tier<Citizen>, seed: u64, turns: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..turns {
        match random.u32(0..9) {
            0 | 1 => drop(tier.allocate().unwrap()),
            2 => drop(tier.allocate_timeout(Duration::from_micros(random.u64(1..200)))),
            3 => drop(block_on(tier.allocate_async()).unwrap()),
            4 => {
                // Polled once or twice, then dropped, granted or not.
                let mut task = Task::new(tier);
                if task.poll().is_pending() && random.bool() {
                    thread::yield_now();
                    drop(task.poll());
                }
            }
            5 => drop(tier.try_allocate_many(random.usize(1..4))),
            6 => tier.release(tier.allocate().unwrap().detach()).unwrap(),
            7 => tier.allocate().unwrap().discard(),
            _ => drop(tier.try_allocate()),
        }
    }
}
