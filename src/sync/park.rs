//! A thread that waits: parked by itself, woken through a [`Waker`] like any task.

#[cfg(not(loom))]
use std::cell::OnceCell;
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
    let new = || Waker::from(Arc::new(Unpark(thread::current())));
    #[cfg(not(loom))]
    {
        std::thread_local! { static WAKER: OnceCell<Waker> = const { OnceCell::new() } }
        // A thread at its end has none any more.
        WAKER.try_with(|waker| waker.get_or_init(new).clone()).unwrap_or_else(|_| new())
    }
    #[cfg(loom)]
    new() // all threads of a model run on one
}

/// Looks for a moment whether `done` holds.
pub(crate) fn spin(done: impl Fn() -> bool) -> bool {
    !cfg!(loom)
        && (0..SPINS).any(|_| {
            std::hint::spin_loop();
            done()
        })
}

/// Returns after a wake-up, at `until`, or for no reason: the caller looks why.
pub(crate) fn park(until: Option<Instant>) {
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
