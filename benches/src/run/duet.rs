//! Two pinned threads that start a batch at the same moment, and stay for all batches of their subject.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::machine::cores;

/// The leader, which has the orders and the watch, and the follower.
pub struct Duet {
    gate: Barrier,
    units: AtomicU64,
    over: AtomicBool,
    lined: CachePadded<AtomicU64>,
    finished: CachePadded<AtomicU64>,
}

impl Duet {
    /// Gives `drive` a batch of two threads, which ends when both have ended: so many units a thread, and how long it took.
    /// Each side is made on its own thread.
    pub fn run<'scope, 'env, L, F>(
        &'env self,
        scope: &'scope thread::Scope<'scope, 'env>,
        leader: impl FnOnce() -> L,
        follower: impl FnOnce() -> F + Send + 'scope,
        drive: impl FnOnce(&mut dyn FnMut(u64) -> Duration),
    ) where
        L: FnMut(u64),
        F: FnMut(u64),
    {
        scope.spawn(move || {
            cores::pin(1);
            self.follow(follower());
        });
        cores::pin(0);
        let mut lead = leader();
        drive(&mut |units| self.lead(units, || lead(units)).0);
        self.dismiss();
    }

    /// A pair of threads that has not started.
    pub fn new() -> Self {
        Self {
            gate: Barrier::new(2),
            units: AtomicU64::new(0),
            over: AtomicBool::new(false),
            lined: CachePadded::new(AtomicU64::new(0)),
            finished: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Runs one batch with the follower: how long it took until both had ended, and what `work` gave.
    pub fn lead<R>(&self, units: u64, work: impl FnOnce() -> R) -> (Duration, R) {
        self.units.store(units, Ordering::Relaxed); // the barrier publishes it
        let batches = self.finished.load(Ordering::Relaxed);
        self.gate.wait();
        self.line_up();
        let start = Instant::now();
        let result = work();
        // Acquire: pairs with the follower's Release; its work is done.
        wait_until(|| self.finished.load(Ordering::Acquire) > batches);
        (start.elapsed(), result)
    }

    /// Runs every batch of the leader's with `work`, until dismissed.
    pub fn follow(&self, mut work: impl FnMut(u64)) {
        loop {
            self.gate.wait();
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            self.line_up();
            work(self.units.load(Ordering::Relaxed));
            // Release: pairs with the leader's Acquire.
            self.finished.fetch_add(1, Ordering::Release);
        }
    }

    /// Lets the follower go.
    pub fn dismiss(&self) {
        self.over.store(true, Ordering::Relaxed); // the barrier publishes it
        self.gate.wait();
    }

    /// A barrier wakes its threads one after the other; this lets them go within a cache miss of each other.
    fn line_up(&self) {
        // AcqRel and Acquire: each side sees all that the other did before.
        let full = (self.lined.fetch_add(1, Ordering::AcqRel) + 1).next_multiple_of(2);
        wait_until(|| self.lined.load(Ordering::Acquire) >= full);
    }
}

impl Default for Duet {
    fn default() -> Self {
        Self::new()
    }
}

/// Spins, and lets others run when it takes long.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    let mut spins = 0_u32;
    while !done() {
        spins += 1;
        if spins.is_multiple_of(4096) {
            thread::yield_now();
        } else {
            spin_loop();
        }
    }
}
