//! Slots that many read: shared leases, and handles read under a pin.

pub mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::{Census, Citizen, accounted, drain, panics};
use tierpool::{Handle, HandleError, Reclaimer, Report, SharedLease, State, Tier};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn tier(capacity: usize) -> Tier<u64> {
    Tier::builder("shared").capacity(capacity).reset(|value| *value = 0).build_with(|| 0).unwrap()
}

#[test]
fn a_shared_value_is_read_under_a_pin_until_it_is_retired() -> Outcome {
    let tier = tier(2);
    let mut lease = tier.try_allocate()?;
    *lease = 7;
    let handle = lease.share();
    let pin = tier.pin();
    assert_eq!(tier.read(handle, &pin), Some(&7));
    let value = tier.read(handle, &pin).unwrap();
    assert!(matches!(tier.attach(handle), Err(HandleError::InUse { state: State::Shared, .. })));
    assert!(tier.release(handle).unwrap_err().to_string().contains("retire"));
    tier.retire(handle)?;
    assert_eq!(tier.read(handle, &pin), None);
    let again = tier.retire(handle).unwrap_err();
    assert!(matches!(again, HandleError::Stale { released_at: Some(_), allocated_at: Some(_), .. }), "{again:?}");
    assert_eq!(tier.reclaim().retired, 0, "the pin still sees the value");
    assert_eq!((*value, tier.snapshot().retired), (7, 1));
    drop(pin);
    assert_eq!(tier.reclaim().retired, 1);
    assert_eq!(tier.snapshot().free, 2);
    assert_eq!(*tier.try_allocate_many(2)?.iter().max().unwrap(), 0, "reset ran");
    Ok(())
}

/// TORTURE 12: without a reclaimer too, an allocation that finds nothing free collects, every time.
#[test]
fn an_allocation_collects_before_it_refuses() -> Outcome {
    let tier = tier(2);
    let held = tier.try_allocate()?;
    for _ in 0..1000 {
        tier.retire(tier.try_allocate()?.share())?;
    }
    drop(held);
    let all: Vec<Handle> = (0..2).map(|_| tier.try_allocate().unwrap().share()).collect();
    all.into_iter().for_each(|handle| tier.retire(handle).unwrap());
    assert_eq!(tier.try_allocate_many(2)?.len(), 2, "a bulk collects too");
    let now = accounted(&tier);
    assert_eq!((now.free, now.allocations, now.releases, now.refusals), (2, 1005, 1005, 0));
    Ok(())
}

/// While a pin is in the way an allocation is refused, as cheaply as ever; once it is gone, the next one succeeds.
#[test]
fn an_allocation_notices_that_the_pin_in_the_way_is_gone() -> Outcome {
    let tier = tier(1);
    for round in 0..100 {
        let pin = tier.pin();
        tier.retire(tier.try_allocate()?.share())?;
        for _ in 0..5 {
            assert!(tier.try_allocate().is_err(), "round {round}: the pin stands");
        }
        drop(pin);
        // One of the new epoch is not in the way.
        let pin = tier.pin();
        drop(tier.try_allocate()?);
        drop(pin);
    }
    Ok(())
}

#[test]
fn nested_pins_protect_until_the_outermost_is_gone() -> Outcome {
    let tier = tier(1);
    let outer = tier.pin();
    let handle = tier.try_allocate()?.share();
    let inner = tier.pin();
    assert!(tier.read(handle, &inner).is_some());
    tier.retire(handle)?;
    drop(outer);
    assert_eq!(tier.reclaim().retired, 0);
    drop(inner);
    assert_eq!(tier.reclaim().retired, 1);
    Ok(())
}

#[test]
#[should_panic(expected = "another tier")]
fn a_pin_of_another_tier_is_refused() {
    let (tier, other) = (tier(1), tier(1));
    let handle = tier.try_allocate().unwrap().share();
    let pin = other.pin();
    tier.read(handle, &pin);
}

#[test]
fn a_shared_lease_goes_back_with_the_last_of_them() -> Outcome {
    let tier = tier(1);
    let mut lease = tier.try_allocate()?;
    *lease = 5;
    let first = lease.into_shared();
    let others: Vec<_> = (0..4).map(|_| first.clone()).collect();
    assert_eq!((first.sharers(), tier.snapshot().shared), (5, 1));
    assert_eq!(tier.holders()[0].state, State::SharedLease);
    let sum: u64 = others.into_iter().map(|other| thread::spawn(move || *other).join().unwrap()).sum();
    assert_eq!(sum, 20);
    let second = first.clone();
    let first = first.into_lease().unwrap_err();
    drop(second);
    let lease = first.into_lease().unwrap();
    assert_eq!(*lease, 5);
    let shared = lease.into_shared();
    drop(tier.clone());
    let name = shared.handle();
    drop(tier);
    assert_eq!(*shared, 5, "it outlives every tier");
    assert!(name.generation() > 0);
    drop(shared);
    Ok(())
}

/// Readers against a writer that replaces what is shared: nobody sees a value that was reset.
#[test]
fn readers_never_see_a_value_that_was_retired_before_their_pin() -> Outcome {
    let tier: Tier<[u64; 8]> =
        Tier::<[u64; 8]>::builder("published").capacity(4).reset(|value| value.fill(0)).build_with(|| [0; 8])?;
    let publish = |round: u64| {
        let mut lease = loop {
            if let Ok(lease) = tier.try_allocate() {
                break lease;
            }
            tier.reclaim();
        };
        lease.fill(round);
        lease.share()
    };
    let current = Mutex::new(publish(1));
    let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let handle = *current.lock().unwrap();
                    let pin = tier.pin();
                    if let Some(value) = tier.read(handle, &pin) {
                        thread::yield_now();
                        assert!(value.iter().all(|&part| part == value[0] && part > 0), "{value:?}");
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 2.. {
            if round > 2000 && seen.load(Ordering::Relaxed) > 100 {
                break;
            }
            let next = publish(round);
            let last = std::mem::replace(&mut *current.lock().unwrap(), next);
            tier.retire(last).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// TORTURE 12: handles that nobody brings back do not keep their slots for ever, shared ones neither; with the last tier all go.
#[test]
fn shared_values_go_with_the_last_tier() -> Outcome {
    let alive = Arc::new(());
    let value = alive.clone();
    let tier: Tier<Arc<()>> = Tier::builder("shared").capacity(4).build_with(move || value.clone())?;
    let kept = tier.try_allocate()?.share();
    tier.retire(tier.try_allocate()?.share())?;
    let shared = tier.try_allocate()?.into_shared();
    tier.close();
    assert!(tier.read(kept, &tier.pin()).is_some(), "still there for its readers");
    drop(tier);
    assert_eq!(Arc::strong_count(&alive), 3, "that of the shared lease, of the factory, and this");
    drop(shared);
    assert_eq!(Arc::strong_count(&alive), 1);
    Ok(())
}

#[test]
fn a_closed_tier_gives_up_what_is_retired() -> Outcome {
    let tier = tier(2);
    let handle = tier.try_allocate()?.share();
    tier.close();
    tier.retire(handle)?;
    tier.close_and_wait(Duration::from_secs(10))?;
    assert_eq!(tier.snapshot().absent, 2);
    Ok(())
}

/// Without passes and waiting: what was retired before the close goes with it, what is retired afterwards at once.
#[test]
fn a_close_drops_what_is_retired_and_a_retirement_after_it_drops_at_once() -> Outcome {
    let census = Census::default();
    let tier = census.tier(3);
    let [early, late, pinned] = [(); 3].map(|()| tier.try_allocate().unwrap().share());
    tier.retire(early)?;
    tier.close();
    assert_eq!(census.dropped(), 1);
    tier.retire(late)?;
    assert_eq!(census.dropped(), 2);
    let pin = tier.pin();
    let value = tier.read(pinned, &pin).unwrap();
    tier.retire(pinned)?;
    tier.close();
    assert_eq!((census.dropped(), *value.note), (2, 0), "the pin keeps it");
    drop(pin);
    tier.close_and_wait(Duration::from_secs(10))?;
    assert_eq!(census.alive(), 0);
    assert!(matches!(tier.retire(late), Err(HandleError::Closed { .. })));
    Ok(())
}

/// TORTURE 2: a second retirement changes nothing, however often the slot has changed hands since.
#[test]
fn a_late_retirement_leaves_the_next_users_alone() -> Outcome {
    let tier = tier(1);
    let first = tier.try_allocate()?.share();
    tier.retire(first)?;
    let second = tier.try_allocate()?.share();
    assert!(
        matches!(tier.retire(first), Err(HandleError::Stale { released_at: None, .. })),
        "its lines are overwritten"
    );
    let pin = tier.pin();
    assert!(tier.read(first, &pin).is_none() && tier.read(second, &pin).is_some());
    drop(pin);
    tier.retire(second)?;
    let detached = tier.try_allocate()?.detach();
    assert!(matches!(tier.retire(detached), Err(HandleError::InUse { state: State::Detached, .. })));
    assert!(tier.read(detached, &tier.pin()).is_none());
    let shared = tier.attach(detached)?.into_shared();
    let named = shared.handle();
    assert!(matches!(tier.attach(named), Err(HandleError::InUse { state: State::SharedLease, .. })));
    assert!(matches!(tier.retire(named), Err(HandleError::InUse { state: State::SharedLease, .. })));
    Ok(())
}

#[test]
fn a_handle_of_another_tier_reads_nothing_here() -> Outcome {
    let (tier, other) = (tier(1), tier(1));
    let (mine, theirs) = (tier.try_allocate()?.share(), other.try_allocate()?.share());
    assert!(tier.read(theirs, &tier.pin()).is_none());
    assert!(matches!(tier.retire(theirs), Err(HandleError::Foreign { .. })));
    let message = panics(|| {
        tier.read(mine, &other.pin());
    });
    assert!(message.contains("pin of another tier"), "{message}");
    Ok(())
}

/// Retired by many at once: one wins, and the slot comes back once.
#[test]
fn of_all_who_retire_a_handle_one_wins() -> Outcome {
    let tier = tier(4);
    for _ in 0..200 {
        let handle = tier.try_allocate()?.share();
        let (wins, start) = (AtomicUsize::new(0), Barrier::new(3));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    wins.fetch_add(usize::from(tier.retire(handle).is_ok()), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(wins.into_inner(), 1);
    }
    tier.reclaim();
    assert_eq!(accounted(&tier).free, 4);
    Ok(())
}

/// Retired slots come back through reset and cleaning, whatever the tier does to its values; TORTURE 10: what those panic with
/// costs one value and is reported.
#[test]
fn a_panic_while_retired_slots_are_freed_costs_one_value() -> Outcome {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let (sink, census) = (reports.clone(), Census::default());
    let made = census.clone();
    let tier: Tier<Citizen> = Tier::<Citizen>::builder("fragile")
        .capacity(4)
        .validate_on_release(|citizen| *citizen.note != 1)
        .reset(|citizen| assert!(*citizen.note != 2, "two"))
        .clean(|citizen| assert!(*citizen.note != 3, "three"))
        .on_report(move |report: &Report| sink.lock().unwrap().push(report.to_string()))
        .build_with(move || made.value())?;
    let handles: Vec<Handle> = (0..4)
        .map(|note| {
            let mut lease = tier.try_allocate().unwrap();
            *lease.note = note;
            lease.share()
        })
        .collect();
    handles.into_iter().for_each(|handle| tier.retire(handle).unwrap());
    // Two more go the way of a refused allocation.
    assert_eq!(drain(&tier), 4);
    assert_eq!((census.made(), census.alive()), (7, 4));
    let reports = reports.lock().unwrap();
    assert!(reports.len() == 2 && reports.iter().any(|report| report.contains("two")), "{reports:?}");
    assert!(reports.iter().any(|report| report.contains("three")), "{reports:?}");
    tier.reclaim();
    assert_eq!(accounted(&tier).free, 4);
    Ok(())
}

/// TORTURE 10: a value's `Drop` panics when a closed tier frees it.
#[test]
fn a_panic_in_the_drop_of_a_retired_value_loses_nothing() -> Outcome {
    struct Fragile(Arc<AtomicUsize>);
    impl Drop for Fragile {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("dropped");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    let tier: Tier<Fragile> = Tier::builder("fragile").capacity(3).build_with(move || Fragile(count.clone()))?;
    let handles = [(); 3].map(|()| tier.try_allocate().unwrap().share());
    let pin = tier.pin();
    handles.iter().for_each(|&handle| tier.retire(handle).unwrap());
    tier.close();
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(pin);
    tier.close_and_wait(Duration::from_secs(10))?;
    assert_eq!((dropped.load(Ordering::Relaxed), accounted(&tier).absent), (3, 3));
    Ok(())
}

/// A forgotten pin keeps what is retired since, and nothing else; a pin of a thread that has exited does too.
#[test]
fn a_forgotten_pin_keeps_what_is_retired_and_nothing_else() -> Outcome {
    let tier = tier(3);
    let kept = tier.try_allocate()?.share();
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(tier.try_allocate().unwrap());
            std::mem::forget(tier.pin());
        });
    });
    tier.retire(kept)?;
    assert_eq!(tier.reclaim().retired, 0);
    assert_eq!(drain(&tier), 2, "the others come and go");
    let next = tier.try_allocate()?.share();
    tier.retire(next)?;
    assert_eq!((tier.reclaim().retired, tier.snapshot().retired), (0, 2));
    Ok(())
}

/// The control block of a tier goes to the next tier: a pin that was forgotten in the old one is none in the new, and its
/// magazine can be had again.
#[test]
fn a_forgotten_pin_does_not_outlive_its_tier() -> Outcome {
    // A capacity that no other test uses, so that each tier takes over the block of the one before.
    const SLOTS: usize = 5000;
    let mut magazines = None;
    for _ in 0..20 {
        let tier = tier(SLOTS);
        std::mem::forget(tier.pin());
        thread::scope(|scope| {
            // Joined by hand: the end of a scope does not wait for the end of its threads.
            scope.spawn(|| std::mem::forget(tier.pin())).join().unwrap();
        });
        assert_eq!(*magazines.get_or_insert(tier.snapshot().magazines), tier.snapshot().magazines);
        drop(tier);
        let tier = self::tier(SLOTS);
        tier.retire(tier.try_allocate()?.share())?;
        assert_eq!(tier.reclaim().retired, 1, "no pin of this tier stands");
        thread::scope(|scope| {
            scope.spawn(|| drop(tier.pin())).join().unwrap();
        });
    }
    Ok(())
}

/// TORTURE 5: a pin that a thread-local keeps goes after the thread's magazines are given back, and takes its magazine with it; a pin
/// taken then is counted.
#[test]
fn pins_work_while_a_thread_exits() {
    struct Last {
        tier: &'static Tier<u64>,
        handle: Handle,
        pin: Option<tierpool::Pin<'static, u64>>,
    }
    impl Drop for Last {
        fn drop(&mut self) {
            // The magazine is left by now, and the old pin still stands.
            let pin = self.tier.pin();
            let nested = self.tier.pin();
            assert_eq!(self.tier.read(self.handle, &pin), Some(&0));
            self.tier.retire(self.handle).unwrap();
            assert_eq!(self.tier.reclaim().retired, 0);
            drop(self.pin.take());
            assert_eq!(self.tier.reclaim().retired, 0, "two are counted");
            drop(pin);
            assert_eq!(self.tier.reclaim().retired, 0, "one is counted");
            drop(nested);
            assert_eq!(self.tier.reclaim().retired, 1);
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    static TIER: std::sync::OnceLock<Tier<u64>> = std::sync::OnceLock::new();
    let tier = TIER.get_or_init(|| tier(2));
    let mut magazines = None;
    for _ in 0..50 {
        thread::spawn(move || {
            // Thread-locals go in the reverse order of their first use: this one after the guard that gives magazines back.
            LAST.with(|last| assert!(last.borrow().is_none()));
            let handle = tier.try_allocate().unwrap().share();
            LAST.with(|last| *last.borrow_mut() = Some(Last { tier, handle, pin: Some(tier.pin()) }));
        })
        .join()
        .unwrap();
        assert_eq!(accounted(tier).free, 2);
        let now = tier.snapshot().magazines;
        assert_eq!(*magazines.get_or_insert(now), now, "magazines come back");
    }
}

/// Many pins of one thread, dropped in any order.
#[test]
fn pins_of_one_thread_may_go_in_any_order() -> Outcome {
    let tier = tier(1);
    let mut pins: Vec<_> = (0..1000).map(|_| tier.pin()).collect();
    tier.retire(tier.try_allocate()?.share())?;
    fastrand::Rng::with_seed(7).shuffle(&mut pins);
    while pins.pop().is_some() {
        assert_eq!(tier.reclaim().retired, u64::from(pins.is_empty()));
    }
    Ok(())
}

/// The reclaimer frees by itself, also what had to wait for a pin.
#[test]
fn the_background_reclaimer_frees_what_is_retired() -> Outcome {
    let tier: Tier<u64> = Tier::builder("shared").capacity(3).reclaimer(Reclaimer::Background).build_with(|| 0)?;
    let until_free = |slots: usize| {
        let start = std::time::Instant::now();
        while tier.snapshot().free != slots {
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", tier.snapshot());
            thread::sleep(Duration::from_millis(1));
        }
    };
    tier.retire(tier.try_allocate()?.share())?;
    until_free(3);
    let pin = tier.pin();
    tier.retire(tier.try_allocate()?.share())?;
    thread::sleep(Duration::from_millis(50));
    assert_eq!(tier.snapshot().retired, 1);
    tier.retire(tier.try_allocate()?.share())?;
    drop(pin);
    until_free(3);
    Ok(())
}

/// Whoever reads a value after it was dropped or reset finds freed memory (under a sanitizer), or a note that changes.
#[test]
fn readers_against_retirement_reset_and_discards() {
    let rounds: u64 = if cfg!(debug_assertions) { 3_000 } else { 20_000 };
    let census = Census::default();
    let made = census.clone();
    let tier: Tier<Citizen> = Tier::<Citizen>::builder("published")
        .capacity(8)
        // Every fourth value is dropped and replaced when its slot is freed.
        .validate_on_release(|citizen| *citizen.note % 4 != 3)
        .reset(|citizen| *citizen.note = 0)
        .build_with(move || made.value())
        .unwrap();
    let current: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Torn now and then, and then it names nothing, or what it named once.
                    let bits = u128::from(current[0].load(Ordering::Relaxed))
                        | u128::from(current[1].load(Ordering::Relaxed)) << 64;
                    let Ok(handle) = Handle::from_bits(bits) else { continue };
                    let pin = tier.pin();
                    if let Some(citizen) = tier.read(handle, &pin) {
                        let note = *citizen.note;
                        assert_ne!(note, 0, "it was reset");
                        std::hint::spin_loop();
                        assert_eq!(*citizen.note, note);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut last = None;
        for round in 1.. {
            if round > rounds && reads.load(Ordering::Relaxed) > 100 {
                break;
            }
            let mut lease = loop {
                match tier.try_allocate() {
                    Ok(lease) => break lease,
                    Err(_) => thread::yield_now(),
                }
            };
            assert_eq!(*lease.note, 0);
            *lease.note = round;
            let handle = lease.share();
            current[0].store(handle.to_bits() as u64, Ordering::Relaxed);
            current[1].store((handle.to_bits() >> 64) as u64, Ordering::Relaxed);
            if let Some(last) = last.replace(handle) {
                tier.retire(last).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        tier.retire(last.unwrap()).unwrap();
    });
    tier.reclaim();
    assert_eq!(accounted(&tier).free, 8);
    assert!(reads.into_inner() > 0);
    drop(tier);
    assert_eq!(census.alive(), 0);
}

/// Clones that come and go in several threads, the last anywhere: the value comes back once, after all uses.
#[test]
fn shared_leases_against_each_other_and_the_end_of_the_tier() {
    let census = Census::default();
    for round in 0..if cfg!(debug_assertions) { 100 } else { 1000 } {
        let tier = census.tier(2);
        let shared = tier.try_allocate().unwrap().into_shared();
        let mut ends: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(move || drop(tier))];
        for _ in 0..2 {
            let mine = shared.clone();
            ends.push(Box::new(move || {
                let clones: Vec<SharedLease<Citizen>> = (0..10).map(|_| mine.clone()).collect();
                assert!(clones.iter().all(|clone| *clone.note == 0));
                drop(clones);
                if round % 2 == 0 { mine.release() } else { drop(mine.into_lease()) }
            }));
        }
        drop(shared);
        thread::scope(|scope| ends.into_iter().for_each(|end| drop(scope.spawn(end))));
    }
    assert_eq!(census.alive(), 0);
}

/// A tier that discards on panic does so for shared values: whichever clone the panic came over, when the last goes.
#[test]
fn a_panic_over_a_shared_lease_costs_the_value_if_the_tier_says_so() -> Outcome {
    for discards in [false, true] {
        let census = Census::default();
        let made = census.clone();
        let builder = Tier::builder("watched").capacity(1);
        let builder = if discards { builder.discard_on_panic() } else { builder };
        let tier: Tier<Citizen> = builder.build_with(move || made.value())?;
        let cost = usize::from(discards);
        // The one over which it panics is not the last.
        let shared = tier.try_allocate()?.into_shared();
        let clone = shared.clone();
        panics(move || {
            let _over = clone;
            panic!("in a reader");
        });
        assert_eq!((census.dropped(), shared.sharers()), (0, 1));
        drop(shared);
        assert_eq!((census.dropped(), census.made()), (cost, 1 + cost));
        // The last.
        let shared = tier.try_allocate()?.into_shared();
        panics(move || {
            let _over = shared;
            panic!("in a reader");
        });
        assert_eq!(census.dropped(), 2 * cost);
        // A clone that was made and dropped during a panic is not affected.
        let shared = Arc::new(Mutex::new(Some(tier.try_allocate()?.into_shared())));
        struct Cloning(Arc<Mutex<Option<SharedLease<Citizen>>>>);
        impl Drop for Cloning {
            fn drop(&mut self) {
                let clone = self.0.lock().unwrap().clone().unwrap();
                assert_eq!(*clone.note, 0);
            }
        }
        let cloning = Cloning(shared.clone());
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let _cloning = cloning;
            panic!("elsewhere");
        }));
        drop(shared.lock().unwrap().take());
        assert_eq!(census.dropped(), 2 * cost);
        // A lease again: a panic over it is like one over any lease.
        let mut lease = tier.try_allocate()?.into_shared().into_lease().unwrap();
        *lease.note = 1;
        panics(move || {
            let _over = lease;
            panic!("in a writer");
        });
        assert_eq!(census.dropped(), 3 * cost);
        assert_eq!(accounted(&tier).free, 1);
    }
    Ok(())
}

/// The last release of a shared lease names its line; dropping names none.
#[test]
fn a_shared_lease_remembers_the_line_that_released_it() -> Outcome {
    let tier = tier(1);
    let shared = tier.try_allocate()?.into_shared();
    let (named, other) = (shared.handle(), shared.clone());
    assert_eq!(tier.holders()[0].handle, named);
    drop(other);
    shared.release();
    let Err(HandleError::Stale { released_at, allocated_at, .. }) = tier.attach(named) else { panic!("stale") };
    assert!(released_at.is_some_and(|line| line.file().ends_with("sharing.rs")) && allocated_at.is_some());
    assert_eq!(format!("{:?}", tier.try_allocate()?.into_shared()).split('{').next(), Some("SharedLease "));
    Ok(())
}

/// A value that is shared when the last `Tier` is gone can be read by nobody, so it goes; as with `detach`.
#[test]
fn sharing_after_the_last_tier_drops_the_value() -> Outcome {
    let census = Census::default();
    let tier = census.tier(1);
    let lease = tier.try_allocate()?;
    drop(tier);
    let handle = lease.share();
    assert_eq!(census.alive(), 0);
    assert!(Handle::from_bits(handle.to_bits()).is_ok(), "it did exist");
    Ok(())
}
