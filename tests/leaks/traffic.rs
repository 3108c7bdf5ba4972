//! Traffic that holds slots for as long as it likes and loses none: each kind from a line of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::{Lease, Reclaimer, Report, Tier};

/// Slots that all kinds together never run out of.
pub const SLOTS: usize = 8192;

/// When something is over, in the time of the traffic.
type End = Duration;

/// All kinds, one after the other at each step of time.
pub struct Traffic<'a> {
    tier: &'a Tier<u64>,
    limit: Duration,
    random: fastrand::Rng,
    now: Duration,
    held: Vec<(End, Lease<u64>)>,
    cache: Vec<Lease<u64>>,
}

impl<'a> Traffic<'a> {
    /// None so far.
    pub fn new(tier: &'a Tier<u64>, limit: Duration, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Traffic { tier, limit, random, now: Duration::ZERO, held: Vec::new(), cache: Vec::new() }
    }

    /// What goes on in so much time.
    pub fn step(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        self.held.retain(|(end, _)| *end > now);
        let steps = time.as_secs_f64() / 0.05;
        for _ in 0..(20.0 * steps) as u32 {
            drop(short(self.tier));
        }
        self.often(steps, 1.0, |it| {
            let (lease, span) = (exponential(it.tier), it.exponential(0.4));
            it.keep(lease, span);
        });
        self.often(steps, 0.2, |it| {
            let (lease, span) = (session(it.tier), it.exponential(2.0));
            it.keep(lease, span);
        });
        self.often(steps, 0.05, |it| {
            let (lease, share) = (steady(it.tier), it.random.f64());
            it.keep(lease, it.limit.mul_f64(2.0 + 2.0 * share));
        });
        self.often(steps, 0.5, |it| {
            let share = it.random.f64();
            let lease = heavy_tailed(it.tier);
            // Pareto: most are brief, and any length comes, up to a hundred limits.
            it.keep(lease, it.limit.mul_f64((0.02 / (1.0 - share)).min(100.0)));
        });
        // Once in half a minute, two hundred at a time.
        self.often(steps, 0.05 / 30.0, |it| {
            for _ in 0..200 {
                let (lease, share) = (burst(it.tier), it.random.f64());
                it.keep(lease, it.limit.mul_f64(1.5 * share));
            }
        });
        // A cache that fills for a third of an hour's sixth, and then replaces what it has.
        self.often(steps, 0.5, |it| {
            let lease = cached(it.tier);
            if it.cache.len() < 1500 {
                it.cache.push(lease);
            } else {
                let at = it.random.usize(..1500);
                it.cache[at] = lease;
            }
        });
    }

    /// Forgets some leases of the line that holds slots most briefly.
    pub fn leak(&mut self, count: usize) -> u32 {
        let lost: Vec<_> = (0..count).map(|_| short(self.tier)).collect();
        lost.into_iter().for_each(std::mem::forget);
        SHORT
    }

    /// Does it so many times in 50 ms, by chance.
    fn often(&mut self, steps: f64, times: f64, mut what: impl FnMut(&mut Self)) {
        let expected = steps * times;
        let more = u32::from(self.random.f64() < expected.fract());
        (0..expected as u32 + more).for_each(|_| what(self));
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        self.limit.mul_f64(-mean * (1.0 - self.random.f64()).ln())
    }

    fn keep(&mut self, lease: Lease<u64>, span: Duration) {
        self.held.push((self.now + span, lease));
    }
}

const SHORT: u32 = line!() + 3;

fn short(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

/// Of 0.4 limits on average.
fn exponential(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

/// Of two limits on average.
fn session(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

/// Of two limits at least.
fn steady(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

fn heavy_tailed(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

fn burst(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

fn cached(tier: &Tier<u64>) -> Lease<u64> {
    tier.try_allocate().unwrap()
}

/// Traffic in real time on two threads, and one that allocates as fast as it can, beside the background reclaimer.
pub fn soak(time: Duration) {
    const LIMIT: Duration = Duration::from_secs(2);
    let (leaks, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, all) = (leaks.clone(), told.clone());
    let tier: Tier<u64> = Tier::builder("soak")
        .capacity(2 * SLOTS)
        .leak_after(LIMIT)
        .reclaimer(Reclaimer::Background)
        .on_report(move |report: &Report| {
            println!("{report}");
            all.fetch_add(1, Ordering::Relaxed);
            count.fetch_add(report.is_leak().into(), Ordering::Relaxed);
        })
        .build_with(|| 0)
        .unwrap();
    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    let short = thread::scope(|scope| {
        let spin = || {
            let mut done = 0_u64;
            while !over.load(Ordering::Relaxed) {
                (0..1000).for_each(|_| drop(short(&tier)));
                done += 1000;
                // Two cores are shared with others.
                thread::sleep(Duration::from_millis(1));
            }
            done
        };
        let fast = scope.spawn(spin);
        for seed in 0..2 {
            let tier = &tier;
            scope.spawn(move || {
                let mut traffic = Traffic::new(tier, LIMIT, seed);
                let mut last = Instant::now();
                while begin.elapsed() < time {
                    thread::sleep(Duration::from_millis(50));
                    let now = Instant::now();
                    traffic.step(now - last);
                    last = now;
                }
            });
        }
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        fast.join().unwrap()
    });
    let (leaks, told, late) =
        (leaks.load(Ordering::Relaxed), told.load(Ordering::Relaxed), tier.snapshot().reclaimed.leaks);
    println!("{time:?}: {short} brief holds, {late} long ones, {told} reports, {leaks} of a leak");
    assert_eq!(leaks, 0);
}
