//! What tests of waiting share: a hand that polls, the smallest executor, an end to what hangs.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any wait in a test takes on a slow machine: a test that needs it has failed.
pub const FOR_EVER: Duration = Duration::from_secs(120);

/// Counts wake-ups.
#[derive(Default)]
pub struct Wakes(
    /// How many there were.
    pub AtomicUsize,
);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once.
pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

/// Polls until the result is there, parking in between: the smallest executor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park();
    }
}

/// Looks again and again until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < FOR_EVER, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process if the test hangs, so that a deadlock or a lost wake-up fails instead of standing still.
pub struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    /// Watches the test of this name until it is dropped.
    pub fn new(name: &'static str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        thread::spawn(move || {
            let start = Instant::now();
            while !seen.load(Ordering::SeqCst) {
                if start.elapsed() > FOR_EVER {
                    eprintln!("{name} hangs: a deadlock, or a wake-up that was lost");
                    std::process::abort();
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        Watchdog(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
