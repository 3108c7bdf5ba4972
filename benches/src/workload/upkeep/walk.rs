//! Threads that allocate and release, and time every single step, in two ways. *Pairs* allocate a slot and release it, as in
//! `pair`, and find it in their magazine. A *walk* allocates or releases at random, with 0 to 256 slots in hand, and so goes
//! to the depot in about one step of a thousand, and takes what it finds there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::{Lease, Tier};

use super::Load;
use crate::machine::{cores, ticks};
use crate::payload::Payload;
use crate::run::series::Series;
use crate::workload::tail::Histogram;

/// The most that one walker holds.
pub const HELD: usize = 256;

/// Steps between two looks at what is to be done.
const STRIDE: usize = 64;

/// How long walkers walk before they are timed.
const WARM_UP: Duration = Duration::from_millis(2);

/// What the threads do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pairs,
    Walk,
}

/// They do it, untimed.
const WARM: u32 = 0;
/// They time their steps.
const TIMED: u32 = 1;
/// They stop.
const OVER: u32 = 2;
/// They end.
const DISMISSED: u32 = 3;

/// Where the threads are told to begin and to stop.
pub struct Stage {
    walkers: usize,
    gate: Barrier,
    now: AtomicU32,
    way: Mutex<Way>,
    walked: Mutex<Series>,
}

impl Stage {
    pub fn new(walkers: usize) -> Self {
        Self {
            walkers,
            gate: Barrier::new(walkers + 1),
            now: AtomicU32::new(OVER),
            way: Mutex::new(Way::Pairs),
            walked: Mutex::default(),
        }
    }

    /// Starts the threads, each pinned to a core, lets `play` have its phases, and ends them.
    pub fn open(&self, tier: &Tier<Load>, play: impl FnOnce()) {
        thread::scope(|scope| {
            for place in 0..self.walkers {
                scope.spawn(move || {
                    cores::pin(place);
                    let random = 0x9E37_79B9_7F4A_7C15 + place as u64;
                    self.follow(Walker { tier, held: Vec::with_capacity(HELD), random });
                });
            }
            play();
            self.now.store(DISMISSED, Ordering::Relaxed); // the barrier publishes it
            self.gate.wait();
        });
    }

    /// Lets them walk while the caller, who is pinned to no core, does `work`. How long it took, and their steps.
    pub fn phase(&self, way: Way, work: impl FnOnce()) -> (Duration, Series) {
        *self.way.lock().expect("no panic") = way;
        self.now.store(WARM, Ordering::Relaxed);
        self.gate.wait();
        thread::sleep(WARM_UP);
        self.now.store(TIMED, Ordering::Relaxed);
        let start = Instant::now();
        work();
        let time = start.elapsed();
        self.now.store(OVER, Ordering::Relaxed);
        self.gate.wait();
        (time, std::mem::take(&mut *self.walked.lock().expect("no panic")))
    }

    fn follow(&self, mut walker: Walker) {
        let mut histogram = Histogram::new();
        loop {
            self.gate.wait();
            if self.now.load(Ordering::Relaxed) == DISMISSED {
                return;
            }
            let way = *self.way.lock().expect("no panic");
            while self.now.load(Ordering::Relaxed) == WARM {
                walker.stride(way, &mut Untimed);
            }
            while self.now.load(Ordering::Relaxed) == TIMED {
                walker.stride(way, &mut histogram);
            }
            walker.held.clear();
            self.walked.lock().expect("no panic").extend(histogram.drain());
            self.gate.wait();
        }
    }
}

/// What becomes of the time that a step takes.
trait Watch {
    fn time(&mut self, step: impl FnOnce());
}

struct Untimed;

impl Watch for Untimed {
    #[inline(always)]
    fn time(&mut self, step: impl FnOnce()) {
        step();
    }
}

impl Watch for Histogram {
    #[inline(always)]
    fn time(&mut self, step: impl FnOnce()) {
        let start = ticks::now();
        step();
        self.record(ticks::now() - start);
    }
}

struct Walker<'a> {
    tier: &'a Tier<Load>,
    held: Vec<Lease<Load>>,
    random: u64,
}

impl Walker<'_> {
    fn stride(&mut self, way: Way, watch: &mut impl Watch) {
        match way {
            Way::Pairs => self.pairs(watch),
            Way::Walk => self.walk(watch),
        }
    }

    fn pairs(&mut self, watch: &mut impl Watch) {
        for _ in 0..STRIDE {
            watch.time(|| drop(self.allocate()));
        }
    }

    fn walk(&mut self, watch: &mut impl Watch) {
        // xorshift: a bit a step.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        for step in 0..STRIDE {
            let back = self.random >> step & 1 == 1;
            if self.held.len() < HELD && (!back || self.held.is_empty()) {
                watch.time(|| {
                    let lease = self.allocate();
                    self.held.push(lease);
                });
            } else {
                watch.time(|| drop(self.held.pop()));
            }
        }
    }

    #[inline(always)]
    fn allocate(&self) -> Lease<Load> {
        let mut lease = self.tier.try_allocate().expect("a free slot");
        lease.touch();
        lease
    }
}
