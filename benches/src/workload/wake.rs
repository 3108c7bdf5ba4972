//! More threads than slots: four threads share two slots on two cores.
//!
//! `wake` is the time from a release to the moment at which the thread runs that waited for it. A slot is held through a
//! blocking call of some 100 µs, as a connection is, and after it the thread makes a shorter one without a slot: so the
//! cores are free, most allocations have to wait, and whoever waits sleeps. Each slot carries the time of its last release; an
//! allocation that need not wait is no sample. (deadpool and the semaphore hand over a permit, and then take any value: if
//! two are released at about the same time, the later one is measured, which favours them. In a pool that lets newcomers
//! pass, who wakes too late is no sample but waits on, which favours it.)
//!
//! `wake-rate` is the time a hold, over all threads, if slots are held for nothing at all: what the readiness to wait costs
//! in throughput.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::machine::ticks;
use crate::ours::Waiting;
use crate::peers::waiting::{Deadpool, MutexCondvar, TokioSemaphore};
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::subject::Waits;

const THREADS: usize = 4;
const SLOTS: usize = 2;
/// Asks the system to sleep for so long with a slot…
const HOLD: Duration = Duration::from_micros(50);
/// …and for so long without one. It takes some 50 µs longer.
const THINK: Duration = Duration::from_micros(20);
/// Batches are so much longer than others: threads have to be woken for each.
const LONGER: u64 = 20;
/// Orders of single operations count operations of nanoseconds; here each takes so many times as long.
const SHARE: u64 = 2000;

/// All pools that let wait: each wait timed.
pub fn latency(cast: &mut Cast) {
    each(cast, Measure::Waits);
}

/// All pools that let wait: a batch's time a hold.
pub fn rate(cast: &mut Cast) {
    each(cast, Measure::Rate);
}

#[derive(Clone, Copy)]
enum Measure {
    Waits,
    Rate,
}

fn each(cast: &mut Cast, what: Measure) {
    add::<Waiting<false>>(cast, what);
    add::<Waiting<true>>(cast, what);
    add::<Deadpool>(cast, what);
    add::<TokioSemaphore>(cast, what);
    add::<MutexCondvar>(cast, what);
}

fn add<W: Waits>(cast: &mut Cast, what: Measure) {
    cast.add(W::NAME, W::KIND, move |orders| drive::<W>(orders, what));
}

/// The threads of one subject; they stay for all its batches.
struct Crew {
    gate: Barrier,
    over: AtomicBool,
    holds: AtomicU64,
    waits: Mutex<Vec<u64>>,
    first: AtomicU64,
    last: AtomicU64,
}

fn drive<W: Waits>(orders: Orders, what: Measure) {
    let pool = W::build(SLOTS);
    let crew = Crew {
        gate: Barrier::new(THREADS + 1),
        over: AtomicBool::new(false),
        holds: AtomicU64::new(0),
        waits: Mutex::default(),
        first: AtomicU64::new(0),
        last: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| crew.work(&pool, what));
        }
        match what {
            Measure::Rate => orders.serve(THREADS as u64, |units| crew.batch(units * LONGER) / LONGER as u32),
            Measure::Waits => orders.answer(|order| {
                crew.batch((order / SHARE / THREADS as u64).max(1));
                let waits = std::mem::take(&mut *crew.waits.lock().unwrap_or_else(PoisonError::into_inner));
                waits.into_iter().map(|wait| (wait as f64 * ticks::length(), 1)).collect()
            }),
        }
        crew.over.store(true, Ordering::Relaxed); // the barrier publishes it
        crew.gate.wait();
    });
}

impl Crew {
    /// So many holds a thread, and how long they took from the first thread's start to the last one's end.
    fn batch(&self, holds: u64) -> Duration {
        self.holds.store(holds, Ordering::Relaxed); // the barriers publish it, and what follows
        self.first.store(u64::MAX, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
        self.gate.wait();
        self.gate.wait();
        let ticks = self.last.load(Ordering::Relaxed) - self.first.load(Ordering::Relaxed);
        Duration::from_nanos((ticks as f64 * ticks::length()) as u64)
    }

    fn work<W: Waits>(&self, pool: &W, what: Measure) {
        let blocks = matches!(what, Measure::Waits);
        loop {
            self.gate.wait();
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            self.first.fetch_min(ticks::now(), Ordering::Relaxed);
            let mut waits = Vec::new();
            for _ in 0..self.holds.load(Ordering::Relaxed) {
                let start = ticks::now();
                let mut held = pool.allocate();
                let now = ticks::now();
                // Released after this thread began to wait: so it waited for this release.
                let released = *W::value(&mut held);
                if released > start && blocks {
                    waits.push(now.saturating_sub(released));
                }
                if blocks {
                    thread::sleep(HOLD);
                }
                *W::value(&mut held) = ticks::now();
                pool.release(held);
                if blocks {
                    thread::sleep(THINK);
                }
            }
            self.last.fetch_max(ticks::now(), Ordering::Relaxed);
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).extend(waits);
            self.gate.wait();
        }
    }
}
