//! The values of the tier that is not memory, which count themselves, and whose code fails now and then.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::report::*;

/// What the program's code panics with here, when it is told to.
pub const TOLD: &str = "told to";

/// What becomes of the values of one round.
#[derive(Debug, Default)]
pub struct Census {
    made: AtomicU64,
    dropped: AtomicU64,
    /// One call in so many fails, and one panics; 0: none.
    pub fails: AtomicU32,
    pub panics: AtomicU32,
}

impl Census {
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    pub fn alive(&self) -> u64 {
        // What was dropped first: so the difference is never negative.
        let dropped = self.dropped.load(Ordering::SeqCst);
        self.made() - dropped
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

const ALIVE: u64 = 0x0a11_0f11_fe00_0001;

#[derive(Debug)]
pub struct Value {
    census: Arc<Census>,
    life: AtomicU64,
    /// Who has it: not atomic, for the sanitizers.
    pub note: Box<u64>,
}

impl Value {
    pub fn new(census: &Arc<Census>) -> Self {
        census.made.fetch_add(1, Ordering::SeqCst);
        Value { census: Arc::clone(census), life: AtomicU64::new(ALIVE), note: Box::new(0) }
    }

    pub fn is_alive(&self) {
        check!(self.life.load(Ordering::Relaxed) == ALIVE, "a value is used that is not alive");
    }

    pub fn reset(&mut self) {
        self.is_alive();
        *self.note = 0;
        self.census.may_panic();
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        check!(self.life.swap(0, Ordering::Relaxed) == ALIVE, "a value is dropped twice");
        self.census.dropped.fetch_add(1, Ordering::SeqCst);
        if !thread::panicking() {
            self.census.may_panic();
        }
    }
}

/// Runs what may panic when told to. `None` if it did.
pub fn guard<R>(act: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => Some(result),
        Err(panic) if panic.downcast_ref::<&str>() == Some(&TOLD) => {
            count(&COUNTS.panics, 1);
            None
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Drops what gives slots back, which may panic when told to.
pub fn give_back<T>(it: T) {
    guard(|| drop(it));
}
