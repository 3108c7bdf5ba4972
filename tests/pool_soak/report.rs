//! What the run did, how it fails, and who watches that it goes on.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::Pool;

use crate::THREADS;

/// The round that is under way.
pub static SEED: AtomicU64 = AtomicU64::new(0);
pub static ROUND: Mutex<Option<Pool>> = Mutex::new(None);

pub fn fail(what: fmt::Arguments<'_>) -> ! {
    // Past the harness, which would keep it for an end that does not come.
    let mut out = std::io::stderr();
    let seed = SEED.load(Ordering::Relaxed);
    let _ = writeln!(out, "pool_soak: {what}\nTIERPOOL_SOAK_SEED={seed}");
    if let Ok(round) = ROUND.try_lock()
        && let Some(pool) = &*round
    {
        let _ = writeln!(out, "{}\n{:#?}", pool.monitor(), pool.monitor());
        pool.holders().iter().take(40).for_each(|holder| drop(writeln!(out, "{holder}")));
    }
    std::process::abort()
}

macro_rules! counts {
    ($($name:ident),*) => {
        /// What the whole run did.
        #[derive(Default)]
        pub struct Counts {
            pub progress: [AtomicU64; THREADS],
            pub most_waiting: AtomicU64,
            $(pub $name: AtomicU64,)*
        }

        impl fmt::Display for Counts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                write!(f, "{} operations, {} waited at once", self.progress.iter().map(of).sum::<u64>(), of(&self.most_waiting))?;
                $(write!(f, ", {} {}", of(&self.$name), stringify!($name))?;)*
                Ok(())
            }
        }
    };
}

counts!(
    rounds,
    made,
    allocated,
    refused,
    quota,
    open,
    timed_out,
    awaited,
    cancelled,
    forgotten,
    groups,
    reserved,
    drawn,
    lapsed,
    handles,
    shared,
    panics,
    reconfigured,
    decisions,
    resized
);

pub static COUNTS: LazyLock<Counts> = LazyLock::new(Counts::default);

pub fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Locks without the contended half of the standard library's Mutex, which sanitizers do not see into.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::WouldBlock) => thread::yield_now(),
            Err(TryLockError::Poisoned(guard)) => return guard.into_inner(),
        }
    }
}

/// Repeats until it is so.
pub fn eventually(what: &dyn Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        check!(start.elapsed() < Duration::from_secs(30), "in vain for half a minute: {}", what());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a run that hangs.
pub fn watch() {
    let all =
        || COUNTS.progress.iter().map(|n| n.load(Ordering::Relaxed)).chain([COUNTS.rounds.load(Ordering::Relaxed)]);
    thread::spawn(move || {
        let mut before: Vec<u64> = all().collect();
        loop {
            thread::sleep(Duration::from_secs(60));
            let now: Vec<u64> = all().collect();
            let hangs = before.iter().zip(&now).position(|(before, now)| before == now);
            check!(hangs.is_none(), "thread {hangs:?} has done nothing for a minute");
            before = now;
        }
    });
}
