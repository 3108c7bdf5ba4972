//! The life of values and slots between uses: put-off cleaning, expiry, ages, growth and shrinking, leaks; in passes that the
//! tests make themselves. What moves the clock of the whole process is in `tests/clock.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tierpool::{AllocateError, GrowError, HandleError, Reclaimer, Report, Tier};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn a_dirty_value_is_cleaned_by_a_pass_before_it_is_handed_out() -> Outcome {
    let tier: Tier<u32> = Tier::builder("scrubbed").capacity(2).clean(|value| *value = 0).build_with(|| 0)?;
    let mut lease = tier.try_allocate()?;
    *lease = 7;
    let handle = lease.detach();
    tier.release(handle)?;
    assert_eq!(tier.snapshot().dirty, 1);
    assert!(
        matches!(tier.release(handle), Err(HandleError::Stale { .. })),
        "a dirty slot is released as much as a free one"
    );
    assert_eq!(tier.reclaim().cleaned, 1);
    let snapshot = tier.snapshot();
    assert_eq!((snapshot.dirty, snapshot.free, snapshot.releases), (0, 2, 1));
    let Err(HandleError::Stale { released_at, .. }) = tier.release(handle) else { panic!("still stale") };
    assert!(released_at.is_some_and(|line| line.file().ends_with("life.rs")), "the line outlives the cleaning");
    assert!(tier.try_allocate_many(2)?.iter().all(|&value| value == 0));
    Ok(())
}

/// An allocation cleans before it refuses: a backlog is no exhaustion.
#[test]
fn an_allocation_helps_cleaning_before_it_refuses() -> Outcome {
    let tier: Tier<u32> = Tier::builder("scrubbed").capacity(3).clean(|value| *value = 0).build_with(|| 0)?;
    for round in 0..1000 {
        let mut leases = tier.try_allocate_many(3)?;
        assert!(leases.iter().all(|&value| value == 0), "round {round}");
        leases.iter_mut().for_each(|value| *value = 1);
        assert!(tier.try_allocate().is_err());
        drop(leases);
        let lease = tier.try_allocate()?;
        assert_eq!(*lease, 0);
    }
    let snapshot = tier.snapshot();
    assert_eq!(snapshot.free + snapshot.dirty, 3);
    Ok(())
}

#[test]
fn a_growing_tier_begins_small_and_refuses_at_its_capacity_only() -> Outcome {
    let tier: Tier<Vec<u8>> = Tier::builder("growing").min_capacity(2).capacity(100).build_with(|| vec![0; 10])?;
    assert_eq!((tier.capacity(), tier.snapshot().slots()), (100, 2));
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(tier.try_allocate()?);
    }
    let Err(AllocateError::Exhausted(why)) = tier.try_allocate() else { panic!("100 are all") };
    assert_eq!((why.capacity, why.absent), (100, 0));
    held.truncate(10);
    assert_eq!(tier.shrink_to(20), 20);
    assert_eq!(tier.snapshot().free, 10);
    assert_eq!(tier.shrink_to(0), 10, "what is held stays");
    drop(held);
    assert_eq!(tier.shrink_to(0), 2, "its smallest size");
    tier.grow_to(50)?;
    assert_eq!((tier.snapshot().free, tier.snapshot().absent), (50, 50));
    assert!(matches!(tier.grow_to(101), Err(GrowError::Capacity { slots: 101, capacity: 100, .. })));
    tier.close();
    assert!(matches!(tier.grow_to(60), Err(GrowError::Closed { .. })));
    assert_eq!(tier.snapshot().absent, 100);
    Ok(())
}

/// A pass grows ahead of the allocations, once one had to build a slot.
#[test]
fn a_pass_grows_ahead() -> Outcome {
    let tier: Tier<u64> = Tier::builder("growing").min_capacity(8).capacity(1000).build_with(|| 0)?;
    assert_eq!(tier.reclaim().added, 0, "nobody wanted more");
    let held: Vec<_> = (0..9).map(|_| tier.try_allocate()).collect::<Result<_, _>>()?;
    assert_eq!(tier.snapshot().slots(), 9);
    assert!(tier.reclaim().added >= 2);
    assert_eq!(tier.reclaim().added, 0, "once");
    drop(held);
    Ok(())
}

/// Values are dropped as often as they are made, whatever grows and shrinks meanwhile.
#[test]
fn growth_and_shrinking_against_allocations_conserve_values() -> Outcome {
    let alive = Arc::new(AtomicUsize::new(0));
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let made = alive.clone();
    let tier: Tier<Counted> = Tier::builder("breathing").min_capacity(1).capacity(300).build_with(move || {
        made.fetch_add(1, Ordering::Relaxed);
        Counted(made.clone())
    })?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let tier = &tier;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..20_000usize {
                        if let Ok(lease) = tier.try_allocate() {
                            held.push(lease);
                        }
                        if (round * 7 + worker) % 5 < 2 || held.len() > 100 {
                            drop(held.swap_remove(round % held.len().max(1)));
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                tier.shrink_to(1);
                tier.reclaim();
                let _ = tier.grow_to(50);
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let snapshot = tier.snapshot();
    assert_eq!((snapshot.slots(), snapshot.free), (alive.load(Ordering::Relaxed), snapshot.slots()));
    drop(tier);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    Ok(())
}

#[test]
fn a_value_that_fails_its_check_is_replaced_and_not_handed_out() -> Outcome {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let tier: Tier<(usize, bool)> = Tier::builder("checked")
        .capacity(2)
        .validate_on_allocate(|value: &mut (usize, bool)| value.1)
        .build_with(move || (count.fetch_add(1, Ordering::Relaxed), true))?;
    let mut broken = tier.try_allocate()?;
    let number = broken.0;
    broken.1 = false;
    drop(broken);
    let leases = tier.try_allocate_many(2)?;
    assert!(leases.iter().all(|value| value.1 && value.0 != number));
    assert_eq!(made.load(Ordering::Relaxed), 3);
    drop(leases);
    assert_eq!(tier.retain(|value| value.0 != 2), 1);
    assert_eq!(made.load(Ordering::Relaxed), 4);
    Ok(())
}

#[test]
fn a_value_that_fails_its_check_on_release_is_replaced() -> Outcome {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let tier: Tier<bool> =
        Tier::builder("checked").capacity(1).validate_on_release(|good| *good).build_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            true
        })?;
    *tier.try_allocate()? = false;
    assert!(*tier.try_allocate()?);
    assert_eq!(made.load(Ordering::Relaxed), 2);
    Ok(())
}

/// With the background reclaimer everything happens by itself, and the tier ends although nobody closes it.
#[test]
fn the_background_reclaimer_cleans_and_expires_by_itself() -> Outcome {
    let alive = Arc::new(());
    let value = alive.clone();
    let tier: Tier<(u8, Arc<()>)> = Tier::builder("background")
        .capacity(4)
        .reclaimer(Reclaimer::Background)
        .clean(|value: &mut (u8, Arc<()>)| value.0 = 0)
        .build_with(move || (0, value.clone()))?;
    let mut lease = tier.try_allocate()?;
    lease.0 = 1;
    drop(lease);
    let handle = tier.try_allocate()?.detach_for(Duration::from_millis(30));
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until("expired", &|| tier.snapshot().reclaimed.expired == 1);
    assert!(tier.attach(handle).is_err());
    until("cleaned", &|| tier.snapshot().free == 4);
    drop(tier);
    until("gone", &|| Arc::strong_count(&alive) == 1);
    Ok(())
}

#[test]
fn a_panic_in_cleaning_costs_one_value_and_is_reported() -> Outcome {
    let reports = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = reports.clone();
    let tier: Tier<u32> = Tier::builder("fragile")
        .capacity(2)
        .clean(|value| assert!(*value != 13, "thirteen"))
        .on_report(move |report: &Report| sink.lock().unwrap().push(report.to_string()))
        .build_with(|| 0)?;
    *tier.try_allocate()? = 13;
    assert_eq!(tier.reclaim().cleaned, 1);
    assert_eq!(tier.snapshot().free, 2);
    let reports = reports.lock().unwrap();
    assert!(reports.len() == 1 && reports[0].contains("thirteen"), "{reports:?}");
    Ok(())
}

/// TORTURE 10: a panic in a user callback, whichever, costs at most one value; the tier goes on, and nothing is lost.
#[test]
fn a_panic_in_any_callback_costs_one_value_at_most() -> Outcome {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let armed = Arc::new(AtomicUsize::new(0));
    // Fires when it is the one that is armed, once.
    let fuse = |name: usize| {
        let armed = armed.clone();
        move || {
            if armed.compare_exchange(name, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                panic!("callback {name}");
            }
        }
    };
    struct Fused(Box<dyn Fn() + Send>);
    impl Drop for Fused {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let (factory, reset, clean, allocate, release, report, value) =
        (fuse(1), fuse(2), fuse(3), fuse(4), fuse(5), fuse(6), fuse(7));
    let tier: Tier<Fused> = Tier::<Fused>::builder("fused")
        .min_capacity(2)
        .capacity(4)
        .rebuild_backoff(Duration::ZERO, Duration::ZERO)
        .reset(move |_| reset())
        .clean(move |_| clean())
        .validate_on_allocate(move |_| {
            allocate();
            true
        })
        .validate_on_release(move |_| {
            release();
            true
        })
        .on_report(move |_| report())
        .build_with(move || {
            factory();
            Fused(Box::new(value.clone()))
        })?;
    for round in 0..70 {
        armed.store(round % 7 + 1, Ordering::SeqCst);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            drop(tier.try_allocate_many(4));
            tier.try_allocate().map(|lease| lease.discard())
        }));
        let _ = catch_unwind(AssertUnwindSafe(|| tier.retain(|_| round % 2 == 0)));
        tier.reclaim();
        tier.shrink_to(2);
        armed.store(0, Ordering::SeqCst);
        // Whatever is quarantined can be had again.
        let start = std::time::Instant::now();
        let leases = loop {
            match tier.try_allocate_many(4) {
                Ok(leases) => break leases,
                Err(why) => assert!(start.elapsed() < Duration::from_secs(30), "round {round}: {why}"),
            }
        };
        drop(leases);
        tier.reclaim();
        let snapshot = tier.snapshot();
        assert_eq!((snapshot.free, snapshot.slots()), (4, 4), "round {round}: {snapshot:?}");
    }
    Ok(())
}

/// TORTURE 6 and 7: tiers are dropped while the reclaimer is in the middle of a pass; it keeps none of them alive, nor their slots.
#[test]
fn tiers_are_dropped_in_the_middle_of_passes() -> Outcome {
    let alive = Arc::new(());
    for round in 0..200 {
        let value = alive.clone();
        let tier: Tier<(u8, Arc<()>)> = Tier::<(u8, Arc<()>)>::builder("brief")
            .capacity(64)
            .reclaimer(Reclaimer::Background)
            .clean(|value| value.0 = 0)
            .build_with(move || (0, value.clone()))?;
        drop(tier.try_allocate_many(60)?);
        let handle = tier.try_allocate()?.detach_for(Duration::ZERO);
        if round % 3 == 0 {
            std::thread::yield_now();
        }
        let _ = tier.release(handle);
        if round % 2 == 0 {
            tier.close();
        }
    }
    let start = std::time::Instant::now();
    while Arc::strong_count(&alive) > 1 {
        assert!(start.elapsed() < Duration::from_secs(30), "{} values are still there", Arc::strong_count(&alive) - 1);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The program's code in a pass may call back into the tier; what would have to wait for that very pass says so.
#[test]
fn a_callback_of_a_pass_may_use_the_tier_and_cannot_wait_for_the_pass() -> Outcome {
    // What the callback saw, to be judged outside: a panic in it would be caught by the pass.
    type Seen = (Result<(), GrowError>, (usize, usize), tierpool::Reclaimed, bool);
    let seen: Arc<std::sync::Mutex<Vec<Seen>>> = Arc::default();
    let slot: Arc<std::sync::OnceLock<Tier<u32>>> = Arc::default();
    let (inner, log) = (slot.clone(), seen.clone());
    let tier: Tier<u32> = Tier::builder("reentrant")
        .min_capacity(2)
        .capacity(8)
        .clean(move |value| {
            *value = 0;
            if let Some(tier) = inner.get().filter(|_| log.lock().unwrap().is_empty()) {
                let shrunk = (tier.shrink_to(2), tier.snapshot().slots());
                let saw = (tier.grow_to(8), shrunk, tier.reclaim(), tier.try_allocate().is_ok());
                log.lock().unwrap().push(saw);
            }
        })
        .build_with(|| 0)?;
    slot.get_or_init(|| tier.clone());
    drop(tier.try_allocate()?);
    assert_eq!(tier.reclaim().cleaned, 2, "the one released before, and the one that the callback released");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let [(grown, (shrunk, slots), reclaimed, allocated)] = &seen[..] else { panic!("called back once, not {seen:?}") };
    assert!(matches!(grown, Err(GrowError::InPass { .. })), "{grown:?}");
    assert_eq!((shrunk, *reclaimed), (slots, tierpool::Reclaimed::default()), "one pass at a time");
    assert!(allocated);
    tier.grow_to(8)?;
    tier.close();
    Ok(())
}

/// A pass ends although others make slots dirty as fast as it cleans.
#[test]
fn a_pass_ends_under_traffic() -> Outcome {
    let tier: Tier<u32> = Tier::builder("busy")
        .capacity(4)
        .clean(|_| {
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_micros(5) {}
        })
        .build_with(|| 0)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let start = std::time::Instant::now();
            while !done.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(30) {
                drop(tier.try_allocate());
            }
            done.load(Ordering::Relaxed)
        });
        // Without a bound, none of these would return before the other thread stops.
        for _ in 0..50 {
            tier.reclaim();
        }
        done.store(true, Ordering::Relaxed);
        assert!(traffic.join().unwrap(), "the passes ended with the traffic, after half a minute");
    });
    Ok(())
}

/// An error of the factory that panics when it is dropped costs nothing but its own memory.
#[test]
fn an_error_that_panics_when_it_is_dropped() -> Outcome {
    #[derive(Debug)]
    struct Spiteful;
    impl std::fmt::Display for Spiteful {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("spite")
        }
    }
    impl std::error::Error for Spiteful {}
    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("out of spite");
        }
    }
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let tier: Tier<u32> = Tier::builder("spiteful")
        .capacity(1)
        .rebuild_backoff(Duration::ZERO, Duration::ZERO)
        .try_build_with(move || if failing.load(Ordering::Relaxed) { Err(Spiteful) } else { Ok(1) })?;
    fails.store(true, Ordering::Relaxed);
    tier.try_allocate()?.discard();
    assert_eq!(tier.snapshot().quarantined, 1);
    for _ in 0..10 {
        assert!(tier.try_allocate().is_err());
        tier.reclaim();
    }
    fails.store(false, Ordering::Relaxed);
    let start = std::time::Instant::now();
    while tier.try_allocate().is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    tier.close_and_wait(Duration::ZERO)?;
    Ok(())
}

/// Background tiers that follow each other in one control block are all looked after, however brief the ones before were.
#[test]
fn every_background_tier_is_served() -> Outcome {
    for round in 0..30 {
        for reclaimer in [Reclaimer::Background, Reclaimer::Manual] {
            drop(Tier::<u64>::builder("brief").capacity(700).reclaimer(reclaimer).build_with(|| 0)?);
        }
        let tier: Tier<u64> = Tier::builder("kept")
            .capacity(700)
            .reclaimer(Reclaimer::Background)
            .clean(|value| *value = 0)
            .build_with(|| 0)?;
        drop(tier.try_allocate()?);
        let start = std::time::Instant::now();
        while tier.snapshot().dirty > 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "round {round}: nobody looks after it");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// A waiter that comes while the last free slot is being removed gets another built.
#[test]
fn a_waiter_is_served_although_a_slot_is_just_being_removed() -> Outcome {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let dropping = Arc::new(AtomicBool::new(false));
    let flag = dropping.clone();
    let tier: Tier<Slow> = Tier::builder("slow")
        .min_capacity(1)
        .capacity(2)
        .reclaimer(Reclaimer::Background)
        .build_with(move || Slow(flag.clone()))?;
    let _held = tier.try_allocate()?;
    drop(tier.try_allocate()?);
    std::thread::scope(|scope| {
        scope.spawn(|| tier.shrink_to(1));
        while !dropping.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        // For ever, if nobody tells the reclaimer that there is a slot to build.
        drop(tier.allocate().unwrap());
    });
    Ok(())
}
