//! What is told of slots that are held for too long: a leak at once and by its line, slow use as such, neither for ever. These tests
//! move the clock of the whole process (`clock::tick_to`), so they run one at a time, and only one takes real time, if it is
//! told to:
//!
//! - `TIERPOOL_LEAK_SEEDS`: how many times ten minutes of legitimate traffic pass in a moment, each time otherwise (default 3).
//! - `TIERPOOL_LEAK_SOAK_SECONDS`: how long legitimate traffic runs beside a background reclaimer (default: not at all).

pub mod common;
#[path = "leaks/traffic.rs"]
pub mod traffic;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tierpool::{Lease, Pool, Priority, Report, Request, Suspect, Tier, TierBuilder, Verdict, clock};

/// The time of the tests, which only one of them moves at once.
pub struct Time(MutexGuard<'static, Option<Instant>>);

impl Time {
    /// An hour ahead of real time, which never catches up: what takes long on a busy machine makes nothing older.
    fn take() -> Self {
        static NOW: Mutex<Option<Instant>> = Mutex::new(None);
        let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() {
            // The clock starts with the first tier.
            Tier::builder("first").capacity(1).build_with(|| ()).unwrap();
            *now = Some(Instant::now() + 3600 * SECOND);
        }
        let mut time = Time(now);
        time.pass(Duration::ZERO);
        time
    }

    fn now(&self) -> Instant {
        self.0.expect("taken")
    }

    /// Lets so much of it go by.
    pub fn pass(&mut self, time: Duration) {
        let now = self.now() + time;
        *self.0 = Some(now);
        clock::tick_to(now);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

/// What was reported.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<(Suspect, String)>>>);

impl Log {
    /// Has a tier report to this.
    pub fn watch<T: Send + 'static>(&self, tier: TierBuilder<T>) -> TierBuilder<T> {
        let log = self.0.clone();
        tier.leak_after(LIMIT).on_report(move |report| {
            let Report::HeldLong(suspect) = report else { panic!("{report}") };
            assert_eq!(report.is_leak(), suspect.verdict.is_leak());
            log.lock().unwrap().push((suspect.clone(), report.to_string()));
        })
    }

    /// What was reported since the last call of this.
    pub fn take(&self) -> Vec<(Suspect, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn tier(log: &Log, slots: usize) -> Tier<u64> {
    let tier = log.watch(Tier::builder("packets").capacity(slots)).build_with(|| 0).unwrap();
    tier.reclaim();
    tier
}

/// Lets time pass, with a look every half second.
fn wait(time: &mut Time, tier: &Tier<u64>, span: Duration) {
    let end = time.now() + span;
    while time.now() < end {
        time.pass(SECOND / 2);
        tier.reclaim();
    }
}

/// Three of a million are forgotten: found within one `leak_after`, and the look that is due then, by their very line, as a leak.
#[test]
fn a_leak_of_three_in_a_million_is_found_in_time_by_its_line() {
    let mut time = Time::take();
    let log = Log::default();
    let tier = tier(&log, 1024);
    let (mut line, mut lost) = (0, Vec::new());
    for step in 0..1_000_000 {
        let lease = tier.try_allocate().unwrap();
        line = line!() - 1;
        if step % 333_333 == 111_111 {
            lost.push(lease.handle());
            std::mem::forget(lease);
        }
        // A million operations in a fifth of a second.
        if step % 100_000 == 0 {
            time.pass(SECOND / 50);
            tier.reclaim();
        }
    }
    assert_eq!(lost.len(), 3);
    wait(&mut time, &tier, LIMIT - SECOND);
    assert!(log.take().is_empty(), "none of them is old enough");
    wait(&mut time, &tier, SECOND + LIMIT / 8);
    let told = log.take();
    let (suspect, text) = told.last().expect("it is told");
    assert_eq!((suspect.site.file(), suspect.site.line()), (file!(), line));
    assert_eq!((suspect.verdict, suspect.late, suspect.held), (Verdict::Leak, 3, 3), "{text}");
    assert!(lost.contains(&suspect.oldest.handle) && suspect.oldest.thread_name.is_some(), "{text}");
    assert!((900_000..1_100_000).contains(&suspect.came_back), "{text}");
    let words = [
        "tier \"packets\": a leak, almost surely: 3 slots held for 1",
        "while about 1,000,000 others from there came back within 1.",
    ];
    assert!(
        words.iter().all(|word| text.contains(word)) && text.contains(&format!("from {}:{line}:", file!())),
        "{text}"
    );
    assert_eq!(tier.leaks().len(), 1);
    assert_eq!(tier.leaks()[0].verdict, Verdict::Leak);
    assert_eq!(tier.snapshot().reclaimed.leaks, 3);
    // Told, and not again while nothing more is lost.
    wait(&mut time, &tier, 50 * LIMIT);
    assert!(log.take().is_empty());
    for handle in lost {
        assert!(tier.attach(handle).is_err(), "forgotten, not detached");
    }
}

/// A single forgotten lease of a line that was never seen before: told once, without a guess; and as a leak, once others come and go.
#[test]
fn what_is_unclear_is_told_once_and_again_when_it_is_clear() {
    let mut time = Time::take();
    let log = Log::default();
    let tier = tier(&log, 8);
    let allocate = |forget: bool| {
        let lease = tier.try_allocate().unwrap();
        if forget {
            std::mem::forget(lease);
        }
    };
    allocate(true);
    wait(&mut time, &tier, 30 * LIMIT);
    let told = log.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0.verdict, told[0].0.late), (Verdict::Unclear, 1));
    for _ in 0..60 {
        (0..1_000).for_each(|_| allocate(false));
        wait(&mut time, &tier, SECOND);
    }
    let told = log.take();
    assert_eq!(told.last().map(|(suspect, _)| suspect.verdict), Some(Verdict::Leak), "{told:?}");
    assert!(told.len() <= 2, "at most by way of `LikelyLeak`: {told:?}");
}

/// A line that loses one of ten, for ever more: told, and while it goes on, no more often than once in `leak_after`.
#[test]
fn a_line_that_goes_on_leaking_is_told_again_and_not_at_every_look() {
    let mut time = Time::take();
    let log = Log::default();
    let tier = tier(&log, 4096);
    let spans = 60;
    for step in 0..spans * 20 {
        for turn in 0..20 {
            let lease = tier.try_allocate().unwrap();
            if turn == 0 && step % 2 == 0 {
                std::mem::forget(lease);
            }
        }
        wait(&mut time, &tier, SECOND / 2);
    }
    let told = log.take();
    let leaks = told.iter().filter(|(suspect, _)| suspect.verdict.is_leak()).count();
    assert!((20..=spans + 15).contains(&told.len()) && leaks >= 20, "{} reports, {leaks} of a leak", told.len());
    assert!(told.windows(2).all(|two| two[0].0.late < two[1].0.late), "each tells of more than the one before");
}

/// Sessions that all last for three times the limit: told as held long, recognised as usual, and no leak among them is claimed.
#[test]
fn slow_use_is_told_as_such_and_not_for_ever() {
    let mut time = Time::take();
    let log = Log::default();
    let tier = tier(&log, 64);
    let mut sessions = std::collections::VecDeque::new();
    for _ in 0..300 {
        sessions.push_back(tier.try_allocate().unwrap());
        if sessions.len() > 30 {
            sessions.pop_front();
        }
        wait(&mut time, &tier, SECOND);
    }
    let told = log.take();
    assert!(!told.is_empty() && told.len() <= 6, "once, and when it has doubled: {told:#?}");
    assert!(told.iter().all(|(suspect, _)| !suspect.verdict.is_leak()), "{told:#?}");
    let now = tier.leaks();
    assert_eq!((now.len(), now[0].verdict), (1, Verdict::SlowUse));
    assert!(now[0].to_string().contains("as is usual for that line"), "{}", now[0]);
    // What is a leak beside that habit is found all the same, later: after four times the longest session.
    std::mem::forget(sessions.pop_front());
    drop(sessions);
    assert!(log.take().is_empty());
    wait(&mut time, &tier, SECOND);
    assert_eq!(tier.leaks()[0].late, 1);
}

/// Ten minutes of traffic that holds slots for long by right, in a moment: no leak is told of.
#[test]
fn no_false_report_in_ten_minutes_of_legitimate_traffic() {
    let seeds = std::env::var("TIERPOOL_LEAK_SEEDS").map_or(3, |text| text.parse().expect("a number of seeds"));
    let mut time = Time::take();
    for seed in 0..seeds {
        let log = Log::default();
        let tier = log.watch(Tier::builder("mixed").capacity(traffic::SLOTS)).build_with(|| 0).unwrap();
        let mut traffic = traffic::Traffic::new(&tier, LIMIT, seed);
        for step in 0..10 * 60 * 20 {
            traffic.step(SECOND / 20);
            time.pass(SECOND / 20);
            if step % 10 == 0 {
                tier.reclaim();
            }
        }
        let told = log.take();
        let leaks: Vec<_> = told.iter().filter(|(suspect, _)| suspect.verdict.is_leak()).collect();
        assert!(leaks.is_empty(), "seed {seed}: {leaks:#?}");
        assert!(told.len() <= 40, "seed {seed}: {} reports", told.len());
        assert!(tier.snapshot().reclaimed.leaks > 100, "seed {seed}: much was held for long");
        // The same traffic with a leak in it: found.
        let line = traffic.leak(3);
        for _ in 0..3 * 20 {
            traffic.step(SECOND / 2);
            time.pass(SECOND / 2);
            tier.reclaim();
        }
        let leaks: Vec<_> = log.take().into_iter().filter(|(suspect, _)| suspect.verdict.is_leak()).collect();
        assert!(!leaks.is_empty() && leaks.iter().all(|(it, _)| it.site.line() == line), "seed {seed}: {leaks:#?}");
    }
}

/// The same in real time, with a background reclaimer and threads.
#[test]
fn no_false_report_in_a_soak_in_real_time() {
    let Ok(seconds) = std::env::var("TIERPOOL_LEAK_SOAK_SECONDS") else {
        println!("skipped: set TIERPOOL_LEAK_SOAK_SECONDS, to 600 say, to run it");
        return;
    };
    let seconds = seconds.parse().expect("TIERPOOL_LEAK_SOAK_SECONDS is a number of seconds");
    let _alone = Time::take();
    traffic::soak(Duration::from_secs(seconds));
}

/// `ignore_leaks` is about lines: what it names is neither told nor listed nor counted.
#[test]
fn lines_that_are_to_be_ignored_are() {
    let mut time = Time::take();
    let log = Log::default();
    let ignored = line!() + 2;
    let tier = log.watch(Tier::builder("ignored").capacity(8)).ignore_leaks(move |site| site.line() == ignored);
    let keep = |tier: &Tier<u64>| std::mem::forget(tier.try_allocate().unwrap());
    let tier = tier.build_with(|| 0).unwrap();
    assert_eq!(line!() - 2, ignored, "the line above is the one that is meant");
    keep(&tier);
    wait(&mut time, &tier, 3 * LIMIT);
    assert!(log.take().is_empty() && tier.leaks().is_empty());
    assert_eq!(tier.snapshot().reclaimed.leaks, 0);
}

/// A pool tells of all its tiers, with tenant, tag and priority of the oldest holder.
#[test]
fn a_pool_lists_the_suspects_of_all_its_tiers() {
    let mut time = Time::take();
    let [one, two] =
        ["one", "two"].map(|name| Tier::builder(name).capacity(4).leak_after(LIMIT).build_with(|| 0_u64).unwrap());
    let pool = Pool::builder().tier(one.clone()).tier(two.clone()).tenant("md").build().unwrap();
    let request = |name| Request::of::<u64>(name).tenant("md").tag("rx").priority(Priority::High);
    pool.reclaim();
    let _kept: Vec<Lease<u64>> = ["one", "two"].map(|name| pool.try_allocate(request(name)).unwrap()).into();
    for _ in 0..12 {
        time.pass(SECOND);
        pool.reclaim();
    }
    let mut suspects = pool.leaks();
    suspects.sort_by_key(|suspect| suspect.tier);
    let tiers: Vec<_> = suspects.iter().map(|suspect| suspect.tier).collect();
    assert_eq!(tiers, ["one", "two"]);
    for suspect in suspects {
        let oldest = &suspect.oldest;
        assert_eq!((oldest.tier, oldest.tenant.as_deref(), oldest.tag), (suspect.tier, Some("md"), Some("rx")));
        assert_eq!(oldest.priority, Priority::High);
    }
}
