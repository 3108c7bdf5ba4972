//! The values, which watch themselves, and those who hold one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use tierpool::Lease;

use crate::accounts::*;

/// What becomes of the values of one round, and how often their code fails.
#[derive(Debug, Default)]
pub struct Census {
    pub made: AtomicUsize,
    pub dropped: AtomicUsize,
    /// One call in so many fails, and one panics; 0: none.
    pub fails: AtomicU32,
    pub panics: AtomicU32,
    pub reports: AtomicU64,
}

impl Census {
    pub fn alive(&self) -> usize {
        // What was dropped first: so the difference is never negative.
        let dropped = self.dropped.load(Ordering::SeqCst);
        self.made.load(Ordering::SeqCst) - dropped
    }

    pub fn fails(&self) -> bool {
        let one_in = self.fails.load(Ordering::Relaxed);
        one_in > 0 && fastrand::u32(..one_in) == 0
    }

    pub fn may_panic(&self) {
        let one_in = self.panics.load(Ordering::Relaxed);
        if one_in > 0 && fastrand::u32(..one_in) == 0 {
            std::panic::panic_any(TOLD);
        }
    }

    pub fn calm(&self) {
        self.fails.store(0, Ordering::Relaxed);
        self.panics.store(0, Ordering::Relaxed);
    }
}

pub const ALIVE: u64 = 0x0a11_0f11_fe00_0001;
pub const DEAD: u64 = 0xdead_dead_dead_dead;
pub const NOBODY: u32 = 0;
pub const HOLDER: u32 = 1;
pub const TIER: u32 = 2;

/// All its atomics are Relaxed, so that they order nothing that the tier has to order.
#[derive(Debug)]
pub struct Value {
    pub census: Arc<Census>,
    pub life: AtomicU64,
    pub hand: AtomicU32,
    pub readers: AtomicU32,
    /// Written by the holder, 0 in a clean value.
    pub note: Box<u64>,
}

impl Value {
    pub fn new(census: &Arc<Census>) -> Self {
        census.made.fetch_add(1, Ordering::SeqCst);
        Value {
            census: census.clone(),
            life: AtomicU64::new(ALIVE),
            hand: AtomicU32::new(NOBODY),
            readers: AtomicU32::new(0),
            note: Box::new(0),
        }
    }

    pub fn alone(&self, by: &str) {
        let life = self.life.load(Ordering::Relaxed);
        check!(life == ALIVE, "{by}: the value is not alive: {life:#x}");
        let readers = self.readers.load(Ordering::Relaxed);
        check!(readers == 0, "{by}: {readers} still read the value");
    }

    pub fn pick_up(&self, who: u32, by: &str) {
        self.alone(by);
        let before = self.hand.swap(who, Ordering::Relaxed);
        check!(before == NOBODY, "{by}: the value is in the hand of {before}");
    }

    pub fn put_down(&self, who: u32, by: &str) {
        self.alone(by);
        let before = self.hand.swap(NOBODY, Ordering::Relaxed);
        check!(before == who, "{by}: the value was in the hand of {before}, not {who}");
    }

    /// What the tier's own calls do to a value, which nobody else may have.
    pub fn handled(&mut self, by: &str, act: impl FnOnce(&mut Self)) {
        self.pick_up(TIER, by);
        act(self);
        self.put_down(TIER, by);
        self.census.may_panic();
    }

    /// Reads a shared value, whose note is known.
    pub fn read(&self, note: u64) {
        self.readers.fetch_add(1, Ordering::Relaxed);
        if fastrand::u8(..) == 0 {
            thread::yield_now();
        }
        let life = self.life.load(Ordering::Relaxed);
        check!(life == ALIVE, "a reader finds the value dropped: {life:#x}");
        check!(self.hand.load(Ordering::Relaxed) == NOBODY, "a reader finds the value in somebody's hand");
        check!(*self.note == note, "a reader finds {} instead of {note}", self.note);
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.pick_up(TIER, "drop");
        self.life.store(DEAD, Ordering::Relaxed);
        self.census.dropped.fetch_add(1, Ordering::SeqCst);
        if !thread::panicking() {
            self.census.may_panic();
        }
    }
}

/// A lease, whose value is in its holder's hand.
pub struct Held(pub Option<Lease<Value>>);

impl Held {
    /// From an allocation: the value is clean, unless the tier does not care.
    pub fn fresh(mut lease: Lease<Value>, cleaned: bool, note: u64) -> Held {
        lease.pick_up(HOLDER, "allocated");
        check!(!cleaned || *lease.note == 0, "a value that was not cleaned: {}", lease.note);
        *lease.note = note;
        Held(Some(lease))
    }

    /// From a handle: the value is as it was left.
    pub fn attached(lease: Lease<Value>, note: u64) -> Held {
        lease.pick_up(HOLDER, "attached");
        check!(*lease.note == note, "left with {note}, found with {}", lease.note);
        Held(Some(lease))
    }

    pub fn note(&self) -> u64 {
        self.0.as_ref().map_or(0, |lease| *lease.note)
    }

    /// The lease, out of hand.
    pub fn put_down(mut self) -> Lease<Value> {
        let lease = self.0.take().expect("it is there until now");
        lease.put_down(HOLDER, "put down");
        lease
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lease) = &self.0 {
            lease.put_down(HOLDER, "dropped");
        }
    }
}
