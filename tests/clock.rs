//! What happens with time: expiry, ages, idleness, leaks, back-off. These tests move the clock of the whole process forward
//! (`clock::tick_to`), so they run one at a time, and none of them sleeps.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tierpool::{HandleError, Report, Tier, clock};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The time of the tests, which only one of them moves at once.
struct Time(MutexGuard<'static, Instant>);

impl Time {
    fn take() -> Self {
        static NOW: Mutex<Option<&'static Mutex<Instant>>> = Mutex::new(None);
        let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.get_or_insert_with(|| Box::leak(Box::new(Mutex::new(Instant::now()))));
        let mut guard = now.lock().unwrap_or_else(PoisonError::into_inner);
        *guard = (*guard).max(Instant::now());
        Time(guard)
    }

    fn pass(&mut self, time: Duration) {
        *self.0 += time;
        clock::tick_to(*self.0);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Where reports go, and what they said.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn sink(&self) -> impl Fn(&Report) + Send + Sync + 'static {
        let log = self.0.clone();
        move |report| log.lock().unwrap().push(report.to_string())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn a_handle_expires_at_its_deadline_and_not_before() -> Outcome {
    let mut time = Time::take();
    let tier: Tier<u32> = Tier::builder("jobs").capacity(4).build_with(|| 0)?;
    let soon = tier.try_allocate()?.detach_for(10 * SECOND);
    let late = tier.try_allocate()?.detach_for(HOUR);
    let never = tier.try_allocate()?.detach();
    time.pass(9 * SECOND);
    assert_eq!(tier.reclaim().expired, 0);
    time.pass(2 * SECOND);
    assert_eq!(tier.reclaim().expired, 1);
    assert!(matches!(tier.attach(soon), Err(HandleError::Stale { allocated_at: Some(_), .. })));
    assert_eq!(tier.snapshot().detached, 2);
    // Attached in time, and detached anew: the old deadline means nothing any more.
    let late = tier.attach(late)?.detach();
    time.pass(2 * HOUR);
    assert_eq!(tier.reclaim().expired, 0);
    tier.release(late)?;
    tier.release(never)?;
    // Farther than the clock can tell: no deadline.
    let far = tier.try_allocate()?.detach_for(Duration::MAX);
    time.pass(HOUR);
    assert_eq!(tier.reclaim().expired, 0);
    tier.release(far)?;
    assert_eq!(tier.snapshot().free, 4);
    Ok(())
}

/// TORTURE 24: the machine sleeps, the reclaimer is stopped for a minute, the clock jumps. What was due is done once, late.
#[test]
fn what_was_due_while_nobody_looked_is_done_once() -> Outcome {
    let mut time = Time::take();
    let log = Log::default();
    let tier: Tier<u32> =
        Tier::builder("asleep").capacity(64).leak_after(60 * SECOND).on_report(log.sink()).build_with(|| 0)?;
    let kept = tier.try_allocate()?;
    for _ in 0..63 {
        tier.try_allocate()?.detach_for(SECOND);
    }
    tier.reclaim();
    time.pass(Duration::from_millis(500));
    tier.reclaim();
    time.pass(100 * 24 * HOUR);
    assert_eq!(tier.reclaim().expired, 63);
    assert_eq!(tier.reclaim().expired, 0);
    assert_eq!(log.take().len(), 1, "one leak, once");
    // A clock that goes back changes nothing.
    clock::tick_to(Instant::now() - SECOND);
    assert_eq!(tier.reclaim().expired, 0);
    drop(kept);
    assert_eq!(tier.snapshot().free, 64);
    Ok(())
}

/// TORTURE 19: a forgotten lease is reported once, with its line, and its slot stays accounted for; leased, detached and shared
/// slots alike.
#[test]
fn a_forgotten_lease_is_reported_once_with_its_line() -> Outcome {
    let mut time = Time::take();
    let log = Log::default();
    let tier: Tier<u32> =
        Tier::builder("leaky").capacity(8).leak_after(10 * SECOND).on_report(log.sink()).build_with(|| 0)?;
    tier.reclaim();
    let line = line!() + 1;
    std::mem::forget(tier.try_allocate()?);
    let _detached = tier.try_allocate()?.detach();
    let short = tier.try_allocate()?;
    for _ in 0..9 {
        time.pass(SECOND);
        assert_eq!(tier.reclaim().leaks, 0);
    }
    drop(short);
    time.pass(3 * SECOND);
    assert_eq!(tier.reclaim().leaks, 2);
    let reports = log.take();
    let said = |what: &str| reports.iter().any(|report| report.contains(what));
    assert!(said("leased for 1") && said(&format!("clock.rs:{line}:")), "{reports:?}");
    assert!(said("detached") && said(&format!("clock.rs:{}:", line + 1)), "{reports:?}");
    for _ in 0..100 {
        time.pass(SECOND);
        assert_eq!(tier.reclaim().leaks, 0, "once each");
    }
    assert_eq!((log.take(), tier.snapshot().reclaimed.leaks), (vec![], 2));
    let snapshot = tier.snapshot();
    assert_eq!((snapshot.leased, snapshot.detached, snapshot.free), (1, 1, 6));
    Ok(())
}

/// TORTURE 20: lines that hold their slots for long by right are not reported, and a stamp from a clock that stood still does
/// not make a hold look old.
#[test]
fn no_false_reports_of_leaks() -> Outcome {
    let mut time = Time::take();
    let log = Log::default();
    let long = Arc::new(AtomicU32::new(0));
    let ignored = long.clone();
    let tier: Tier<u32> = Tier::builder("legitimate")
        .capacity(8)
        .leak_after(10 * SECOND)
        .ignore_leaks(move |line| line.line() == ignored.load(Ordering::Relaxed))
        .on_report(log.sink())
        .build_with(|| 0)?;
    tier.reclaim();
    let (_session, line) = (tier.try_allocate()?, line!());
    long.store(line, Ordering::Relaxed);
    // The clock stood still for an hour when this was allocated: its stamp says an hour ago.
    *time.0 += HOUR;
    let fresh = tier.try_allocate()?;
    clock::tick_to(*time.0);
    assert_eq!(tier.reclaim().leaks, 0, "held for an hour by its stamp, for nothing by what is known");
    for _ in 0..9 {
        time.pass(SECOND);
        assert_eq!(tier.reclaim().leaks, 0);
    }
    drop(fresh);
    time.pass(HOUR);
    assert_eq!(tier.reclaim().leaks, 0, "only the session is held, and it may be");
    // The same slot, held anew and for too long: found, although it was found before.
    for _ in 0..2 {
        let held = tier.try_allocate()?;
        for _ in 0..4 {
            time.pass(5 * SECOND);
            tier.reclaim();
        }
        drop(held);
    }
    assert_eq!(tier.snapshot().reclaimed.leaks, 2);
    assert_eq!(log.take().len(), 1, "of one line, and no more at a time than when it was told");
    Ok(())
}

#[test]
fn values_do_not_outlive_their_age() -> Outcome {
    let mut time = Time::take();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let tier: Tier<usize> = Tier::builder("aged")
        .capacity(10)
        .max_age(100 * SECOND)
        .build_with(move || count.fetch_add(1, Ordering::Relaxed))?;
    time.pass(89 * SECOND);
    assert_eq!(tier.reclaim().renewed, 0);
    time.pass(12 * SECOND);
    let held = tier.try_allocate()?;
    assert!(*held >= 10, "an allocation that meets an old value replaces it");
    assert_eq!(tier.reclaim().renewed, 9);
    assert_eq!(made.load(Ordering::Relaxed), 20);
    // Held for longer than its age: replaced once it is back.
    let number = *held;
    time.pass(101 * SECOND);
    tier.reclaim();
    assert_eq!(*held, number);
    drop(held);
    assert_eq!(tier.reclaim().renewed, 1);
    // Not all at the same moment: their limits lie up to a tenth apart.
    time.pass(95 * SECOND);
    let early = tier.reclaim().renewed;
    time.pass(6 * SECOND);
    assert_eq!(early + tier.reclaim().renewed, 10);
    Ok(())
}

#[test]
fn values_that_nobody_uses_are_removed_down_to_the_smallest_size() -> Outcome {
    let mut time = Time::take();
    let tier: Tier<u64> =
        Tier::builder("idle").min_capacity(3).capacity(100).idle_timeout(60 * SECOND).build_with(|| 0)?;
    tier.grow_to(50)?;
    let held: Vec<_> = (0..10).map(|_| tier.try_allocate()).collect::<Result<_, _>>()?;
    tier.reclaim();
    time.pass(59 * SECOND);
    assert_eq!(tier.reclaim().removed, 0);
    time.pass(2 * SECOND);
    assert_eq!(tier.reclaim().removed, 40, "what is held is not idle");
    drop(held);
    for _ in 0..10 {
        time.pass(10 * SECOND);
        drop(tier.try_allocate()?);
        tier.reclaim();
    }
    assert_eq!(tier.snapshot().slots(), 3);
    let error = Tier::builder("idle").capacity(5).idle_timeout(SECOND).build_with(|| 0u8).unwrap_err();
    assert!(error.to_string().contains("min_capacity"), "{error}");
    Ok(())
}

/// Passes may be rare. What was added, cleaned or collected since the last one has not been idle since then.
#[test]
fn a_slot_is_idle_from_the_first_pass_that_finds_it_free() -> Outcome {
    let mut time = Time::take();
    let tier: Tier<u64> =
        Tier::builder("idle").min_capacity(0).capacity(4).clean(|_| ()).idle_timeout(60 * SECOND).build_with(|| 0)?;
    tier.reclaim();
    time.pass(100 * SECOND);
    tier.grow_to(4)?;
    assert_eq!(tier.reclaim().removed, 0, "they were just added");
    drop(tier.try_allocate_many(4)?);
    let shared = tier.try_allocate()?.share();
    tier.retire(shared)?;
    time.pass(100 * SECOND);
    let done = tier.reclaim();
    assert_eq!((done.retired, done.removed), (1, 0), "used since the last pass");
    time.pass(61 * SECOND);
    assert_eq!(tier.reclaim().removed, 4);
    Ok(())
}

/// TORTURE 11: the factory fails for a while. What there is is served, it is asked ever more rarely, and the tier recovers.
#[test]
fn a_factory_that_fails_for_a_while() -> Outcome {
    let mut time = Time::take();
    let (log, broken, asked) = (Log::default(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_broken, count) = (broken.clone(), asked.clone());
    let tier: Tier<u32> = Tier::builder("connections")
        .capacity(4)
        .rebuild_backoff(SECOND, 16 * SECOND)
        .on_report(log.sink())
        .try_build_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            if is_broken.load(Ordering::Relaxed) { Err("no route to host") } else { Ok(0) }
        })?;
    broken.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        tier.try_allocate()?.discard();
    }
    assert_eq!((tier.snapshot().quarantined, tier.snapshot().free), (3, 1));
    let kept = tier.try_allocate()?;
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..100 {
        time.pass(SECOND);
        for _ in 0..10 {
            assert!(tier.try_allocate().is_err());
        }
        tier.reclaim();
        assert!(tier.try_allocate().is_err(), "there is one value only, and it is held");
    }
    let attempts = asked.load(Ordering::Relaxed) - before;
    assert!(
        (8..=20).contains(&attempts),
        "{attempts} attempts in 100 s with pauses of 1, 2, 4, 8, 16, 16… s, or half of it"
    );
    let reports = log.take();
    assert_eq!(reports.len(), attempts);
    assert!(reports[0].contains("no route to host") && reports[0].contains("1 in a row"), "{}", reports[0]);
    drop(kept);
    assert!(tier.try_allocate().is_ok(), "what there is is served");
    broken.store(false, Ordering::Relaxed);
    time.pass(17 * SECOND);
    assert_eq!(tier.reclaim().rebuilt, 3, "all at once, as soon as one succeeds");
    assert_eq!(tier.snapshot().free, 4);
    Ok(())
}

/// A pin that stands for too long is reported once, with its thread; one that is taken anew all the time is not, and neither delays
/// anything but the reuse of what was retired since.
#[test]
fn a_pin_that_stands_for_too_long_is_reported_with_its_thread() -> Outcome {
    let mut time = Time::take();
    let log = Log::default();
    let tier: Tier<u32> =
        Tier::builder("pinned").capacity(3).pin_limit(10 * SECOND).on_report(log.sink()).build_with(|| 0)?;
    tier.reclaim();
    for _ in 0..40 {
        let _pin = tier.pin();
        tier.reclaim();
        time.pass(SECOND);
    }
    assert_eq!(log.take(), [""; 0], "each was brief");
    let early = tier.try_allocate()?.share();
    tier.retire(early)?;
    assert_eq!(tier.reclaim().retired, 1);
    let pin = tier.pin();
    let late = tier.try_allocate()?.share();
    tier.retire(late)?;
    for _ in 0..60 {
        time.pass(SECOND);
        assert_eq!(tier.reclaim().retired, 0);
        assert!(tier.try_allocate_many(2).is_ok(), "the others come and go");
    }
    let reports = log.take();
    let name = std::thread::current().name().unwrap_or_default()[..20].to_owned();
    assert!(reports.len() == 1 && reports[0].contains(&name), "{reports:?}");
    drop(pin);
    assert_eq!(tier.reclaim().retired, 1);
    Ok(())
}

/// Replacing a value that is too old is no use of it: idle ones still go.
#[test]
fn values_that_are_replaced_are_still_idle() -> Outcome {
    let mut time = Time::take();
    let tier: Tier<u64> = Tier::builder("idle")
        .min_capacity(1)
        .capacity(64)
        .idle_timeout(40 * SECOND)
        .max_age(20 * SECOND)
        .build_with(|| 0)?;
    tier.grow_to(64)?;
    for _ in 0..100 {
        time.pass(SECOND);
        tier.reclaim();
    }
    assert_eq!(tier.snapshot().slots(), 1);
    Ok(())
}

/// A panic that a pass comes in the middle of has nothing to do with the values that it releases.
#[test]
fn a_pass_during_a_panic_discards_nothing() -> Outcome {
    let mut time = Time::take();
    let tier: Tier<u32> = Tier::builder("careful").capacity(1).discard_on_panic().build_with(|| 0)?;
    let mut lease = tier.try_allocate()?;
    *lease = 42;
    lease.detach_for(SECOND);
    time.pass(3 * SECOND);
    struct Reclaiming(Tier<u32>);
    impl Drop for Reclaiming {
        fn drop(&mut self) {
            assert_eq!(self.0.reclaim().expired, 1);
        }
    }
    let guard = Reclaiming(tier.clone());
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("something else");
    }));
    assert_eq!(*tier.try_allocate()?, 42);
    Ok(())
}
