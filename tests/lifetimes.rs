//! Who outlives whom: tiers, leases, handles, threads. Values are dropped exactly once, in any order of ends.

pub mod common;

use std::cell::RefCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::{Census, Citizen, accounted, drain};
use tierpool::{AllocateError, HandleError, Lease, Tier};

/// TORTURE 6, met in connectedhomeip (issue 12499): the pool is dropped while leases live on other threads.
#[test]
fn leases_on_other_threads_outlive_their_tier() {
    let census = Census::default();
    let tier = census.tier(8);
    let all_gone = Barrier::new(6);
    thread::scope(|threads| {
        for number in 1..=5 {
            let mut lease = tier.try_allocate().unwrap();
            let all_gone = &all_gone;
            threads.spawn(move || {
                all_gone.wait();
                *lease.note += number;
                assert_eq!(*lease.note, number, "the value is gone under its holder");
            });
        }
        let _nobody_can_attach_it = tier.try_allocate().unwrap().detach();
        drop(tier);
        assert_eq!(census.dropped(), 3, "two free values and a detached one go with the tier");
        all_gone.wait();
    });
    assert_eq!((census.made(), census.dropped()), (8, 8));
}

/// TORTURE 6: the same with clones of the tier, of which the last to go is not the first that was made.
#[test]
fn a_clone_on_another_thread_keeps_the_tier_open() {
    let census = Census::default();
    let tier = census.tier(8);
    let dropped = Barrier::new(5);
    thread::scope(|threads| {
        for _ in 0..4 {
            let (clone, dropped) = (tier.clone(), &dropped);
            threads.spawn(move || {
                dropped.wait();
                drop(clone.try_allocate().unwrap());
            });
        }
        drop(tier);
        assert_eq!(census.dropped(), 0);
        dropped.wait();
    });
    assert_eq!((census.made(), census.dropped()), (8, 8));
}

/// TORTURE 6: every order in which tier, lease, second lease, bulk and local can end.
#[test]
fn things_may_end_in_any_order() {
    for order in permutations(5) {
        let census = Census::default();
        let tier = census.tier(10);
        let mut things: Vec<Option<Box<dyn FnOnce()>>> = Vec::new();
        let (one, two) = (tier.try_allocate().unwrap(), tier.try_allocate().unwrap());
        let bulk = tier.try_allocate_many(3).unwrap();
        let local = tier.local();
        things.push(Some(Box::new(move || drop(one))));
        things.push(Some(Box::new(move || assert!(two.detach().generation() > 0))));
        things.push(Some(Box::new(move || drop(bulk))));
        things.push(Some(Box::new(move || drop(local))));
        things.push(Some(Box::new(move || drop(tier))));
        for &thing in &order {
            things[thing].take().unwrap()();
        }
        assert_eq!((census.made(), census.dropped()), (10, 10), "{order:?}");
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(n - 1) {
        for at in 0..n {
            let mut longer = shorter.clone();
            longer.insert(at, n - 1);
            all.push(longer);
        }
    }
    all
}

/// TORTURE 7, met in rust-mssql-driver (issue 190): the pool goes out of scope, and something still keeps its values.
#[test]
fn free_values_go_with_the_last_tier() {
    let census = Census::default();
    let tier = census.tier(100);
    let clone = tier.clone();
    // Hints in this thread's magazine, in another's and in the depot must keep nothing alive.
    drain(&tier);
    thread::scope(|threads| {
        threads.spawn(|| drain(&tier));
    });
    drop(tier);
    assert_eq!(census.dropped(), 0, "a clone keeps the tier open");
    drop(clone);
    assert_eq!(census.dropped(), 100, "not all free values went with the last tier");
}

/// TORTURE 8, met in deadpool (issue 89): after the close, values can still be returned and are never dropped.
#[test]
fn after_the_close_values_are_dropped_at_their_return() {
    let census = Census::default();
    let tier = census.tier(6);
    let mut leases: Vec<_> = tier.try_allocate_many(4).unwrap().into_iter().collect();
    let handle = leases.pop().unwrap().detach();
    let mut local = tier.local();
    tier.close();
    assert_eq!(census.dropped(), 2, "free values are dropped by the close");

    drop(leases.pop().unwrap());
    assert_eq!(census.dropped(), 3);
    local.release(leases.pop().unwrap());
    assert_eq!(census.dropped(), 4);
    let kept = leases.pop().unwrap().take();
    assert_eq!((census.dropped(), census.made()), (4, 6), "a taken value is the taker's, and none takes its place");
    drop(kept);
    tier.release(handle).unwrap();
    assert_eq!(census.dropped(), 6);

    assert_eq!(accounted(&tier).absent, 6);
    assert!(matches!(tier.release(handle), Err(HandleError::Closed { .. })));
    assert!(matches!(tier.try_allocate(), Err(AllocateError::Closed { tier: "citizens" })));
    assert!(matches!(local.try_allocate(), Err(AllocateError::Closed { .. })));
    assert!(matches!(tier.try_allocate_many(2), Err(AllocateError::Closed { .. })));
    tier.close();
    tier.close_and_wait(Duration::ZERO).unwrap();
}

/// TORTURE 8: the same when the tier had run out before, so that refusals were cheap.
#[test]
fn a_tier_that_ran_out_and_is_closed_says_that_it_is_closed() {
    let tier = Census::default().tier(3);
    let leases = tier.try_allocate_many(3).unwrap();
    assert!(matches!(tier.try_allocate(), Err(AllocateError::Exhausted(_))));
    assert!(tier.snapshot().scarce);
    tier.close();
    for n in [1, 3, 4] {
        let error = tier.try_allocate_many(n).unwrap_err();
        assert_eq!(error, AllocateError::Closed { tier: "citizens" }, "{n} at once");
    }
    assert_eq!(tier.try_allocate().unwrap_err(), AllocateError::Closed { tier: "citizens" });
    drop(leases);
    assert_eq!(accounted(&tier).absent, 3);
}

/// TORTURE 8: closers, releasers and detachers at the same time; each value is dropped once.
#[test]
fn a_close_amid_releases_drops_each_value_once() {
    for round in 0..200 {
        let census = Census::default();
        let tier = census.tier(32);
        thread::scope(|threads| {
            for thread in 0..3 {
                let tier = tier.clone();
                threads.spawn(move || {
                    let mut held = Vec::new();
                    for _ in 0..50 * (thread + 1) {
                        // Fails when another thread was faster with the close below.
                        held.extend(tier.try_allocate());
                        if held.len() > 4 + thread {
                            held.clear();
                        }
                    }
                    tier.close();
                    match round % 3 {
                        0 => drop(held),
                        1 => held.into_iter().for_each(|lease| assert!(lease.detach().generation() > 0)),
                        _ => held.into_iter().for_each(Lease::release),
                    }
                });
            }
        });
        drop(tier);
        assert_eq!((census.made(), census.dropped()), (32, 32), "round {round}");
    }
}

/// TORTURE 8: a release and a close at the very same moment: one of the two sees the other, or a value is never dropped.
#[test]
fn a_release_at_the_moment_of_a_close_is_not_overlooked() {
    let census = Census::default();
    let turn = AtomicUsize::new(0);
    let table = Mutex::new(None);
    const ROUNDS: usize = if cfg!(debug_assertions) { 3_000 } else { 20_000 };
    // Spins for the moment that matters, and makes way if the other does not run at all.
    let wait = |reached: &dyn Fn(usize) -> bool| {
        for spins in 0.. {
            if reached(turn.load(Ordering::SeqCst)) {
                return;
            }
            if spins < 500 { spin_loop() } else { thread::yield_now() }
        }
    };
    thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..ROUNDS {
                wait(&|turn| turn > 3 * round);
                let Some(lease): Option<Lease<Citizen>> = table.lock().unwrap().take() else { return };
                turn.store(3 * round + 2, Ordering::SeqCst);
                (0..round % 64).for_each(|_| spin_loop());
                drop(lease);
                turn.store(3 * round + 3, Ordering::SeqCst);
            }
        });
        for round in 0..ROUNDS {
            let tier = census.tier(1);
            *table.lock().unwrap() = Some(tier.try_allocate().unwrap());
            turn.store(3 * round + 1, Ordering::SeqCst);
            wait(&|turn| turn > 3 * round + 1);
            (0..round / 64 % 64).for_each(|_| spin_loop());
            tier.close();
            wait(&|turn| turn == 3 * round + 3);
            if census.alive() > 0 {
                // Ends the other thread, too.
                turn.store(usize::MAX, Ordering::SeqCst);
            }
            assert_eq!((accounted(&tier).absent, census.alive()), (1, 0), "round {round}");
        }
    });
}

/// `close_and_wait` waits for what is held elsewhere, and names it when its patience ends.
#[test]
fn closing_and_waiting_ends_when_the_last_lease_is_back() {
    let tier = Census::default().tier(4);
    let lease = tier.try_allocate().unwrap();
    let held = line!() - 1;
    let error = tier.close_and_wait(Duration::ZERO).unwrap_err();
    assert_eq!((error.tier, error.holders.len()), ("citizens", 1));
    assert_eq!(error.holders[0].site.unwrap().line(), held);
    let text = error.to_string();
    assert!(text.starts_with("tier \"citizens\" is closed, but 1 of its slots are still held"), "{text}");
    assert!(text.contains(&format!("lifetimes.rs:{held}:")), "{text}");
    thread::scope(|threads| {
        threads.spawn(|| drop(lease));
        tier.close_and_wait(Duration::from_secs(60)).unwrap();
    });
    assert_eq!(accounted(&tier).absent, 4);
}

/// TORTURE 5, met in sharded-slab: a thread exits holding a magazine full of hints and some leases.
#[test]
fn a_thread_that_exits_leaves_all_it_had() {
    let census = Census::default();
    let tier = census.tier(200);
    for _ in 0..20 {
        let lease = thread::scope(|threads| {
            let worker = threads.spawn(|| {
                drain(&tier);
                tier.try_allocate().unwrap()
            });
            worker.join().unwrap()
        });
        assert_eq!(drain(&tier), 199, "the dead thread has taken slots along");
        drop(lease);
        assert_eq!(drain(&tier), 200);
    }
    assert_eq!(accounted(&tier).free, 200);
    assert_eq!(census.made(), 200);
}

thread_local! {
    static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) };
}

/// Allocates and releases in a thread-local's destructor.
struct AtExit(RefCell<Option<(Tier<Citizen>, Lease<Citizen>)>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        let Some((tier, lease)) = self.0.take() else { return };
        drop(lease);
        assert_eq!(drain(&tier), tier.capacity(), "slots are missing during thread exit");
        let handle = tier.try_allocate().unwrap().detach();
        tier.attach(handle).unwrap().release();
        let mut local = tier.local();
        let lease = local.try_allocate().unwrap();
        local.release(lease);
        drop(local);
        drop(tier.try_allocate_many(tier.capacity()).unwrap());
        tier.try_allocate().unwrap().discard();
        tier.try_allocate().unwrap().release();
    }
}

/// TORTURE 5: a thread-local's destructor allocates and releases; it was registered before the tier's own
/// thread-locals, and after. Platforms differ in which of the two goes first.
#[test]
fn thread_local_destructors_may_allocate_and_release() {
    let census = Census::default();
    for registered_before_the_tier in [true, false] {
        let tier = census.tier(70);
        let magazines = tier.snapshot().magazines;
        let theirs = tier.clone();
        let worker = move || {
            if registered_before_the_tier {
                AT_EXIT.with(|_| ());
            }
            let lease = theirs.try_allocate().unwrap();
            drop(theirs.try_allocate());
            AT_EXIT.with(|kept| kept.0.replace(Some((theirs.clone(), lease))));
        };
        // Joining a thread waits for its destructors too.
        thread::spawn(worker).join().unwrap();
        let now = accounted(&tier);
        // Fewer, if a thread of another test exits that used a former tier in the same place.
        assert!(now.free == 70 && now.magazines <= magazines, "the thread left something behind: {now:?}");
        assert_eq!(now.allocations, now.releases);
        assert_eq!(drain(&tier), 70);
        drop(tier);
        assert_eq!(census.alive(), 0);
    }
}
