//! A thread that waits: parked by itself, woken through a [`Waker`] like any task.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::origin::thread::{self, Thread};

/// Looks at a condition before the thread parks: some 0.2 µs, for a grant that is under way. Where threads are more than cores,
/// whoever is woken on this core waits for that long; and `yield_now` in its place gives the core to any other process.
const SPINS: u32 = 8;

/// Wakes one thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker of the calling thread.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Returns when `done` holds, after a wake-up, at `until`, or for no reason: the caller looks why.
pub(crate) fn park(until: Option<Instant>, done: impl Fn() -> bool) {
    if cfg!(not(loom)) {
        for _ in 0..SPINS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
    }
    match until {
        None => thread::park(),
        Some(until) => park_timeout(until.saturating_duration_since(Instant::now())),
    }
}

#[cfg(not(loom))]
fn park_timeout(patience: Duration) {
    if !patience.is_zero() {
        thread::park_timeout(patience);
    }
}

/// loom knows no time: there a model says itself when a wait ends.
#[cfg(loom)]
fn park_timeout(_: Duration) {
    thread::park();
}
