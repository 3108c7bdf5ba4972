//! What the run did, how it fails, and small tools.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

pub const THREADS: usize = 4;

/// What the program's code panics with here, when it is told to.
pub const TOLD: &str = "told to";

/// The round that is under way.
pub static SEED: AtomicU64 = AtomicU64::new(0);
pub static KIND: Mutex<String> = Mutex::new(String::new());

pub fn fail(what: std::fmt::Arguments<'_>) -> ! {
    // Past the harness, which would keep it for an end that does not come.
    let (seed, kind) = (SEED.load(Ordering::Relaxed), KIND.lock());
    let _ = writeln!(std::io::stderr(), "soak: {what}\nTIERPOOL_SOAK_SEED={seed}: {kind:?}");
    std::process::abort()
}

pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What the whole run did.
#[derive(Default)]
pub struct Counts {
    pub operations: AtomicU64,
    pub allocated: AtomicU64,
    pub refused: AtomicU64,
    pub timed_out: AtomicU64,
    pub awaited: AtomicU64,
    pub cancelled: AtomicU64,
    pub panics: AtomicU64,
    pub read: AtomicU64,
    pub retired: AtomicU64,
    pub grown: AtomicU64,
    pub passes: AtomicU64,
    pub rounds: AtomicU64,
    pub made: AtomicU64,
    pub reports: AtomicU64,
    pub expired: AtomicU64,
    pub cleaned: AtomicU64,
    pub collected: AtomicU64,
    pub rebuilt: AtomicU64,
    pub renewed: AtomicU64,
    pub leaks: AtomicU64,
    pub added: AtomicU64,
    pub removed: AtomicU64,
}

pub static COUNTS: std::sync::LazyLock<Counts> = std::sync::LazyLock::new(Counts::default);

pub fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Locks without the contended half of the standard library's Mutex, which sanitizers do not see into.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(std::sync::TryLockError::WouldBlock) => thread::yield_now(),
            Err(std::sync::TryLockError::Poisoned(_)) => check!(false, "nothing panics under the lock"),
        }
    }
}

/// Takes one of those on the table.
pub fn any_of<T>(place: &Mutex<Vec<T>>, random: &mut fastrand::Rng) -> Option<T> {
    let mut all = lock(place);
    let last = all.len().checked_sub(1)?;
    Some(all.swap_remove(random.usize(..=last)))
}

/// Runs what may panic when told to. `None` if it did.
pub fn guard<R>(act: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => Some(result),
        Err(panic) if panic.downcast_ref::<&str>() == Some(&TOLD) => {
            COUNTS.panics.fetch_add(1, Ordering::Relaxed);
            None
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Drops what gives its slot back, which may panic when told to.
pub fn give_back<T>(it: T) {
    guard(|| drop(it));
}

/// All slots that a snapshot tells of.
pub fn sum(now: &tierpool::Snapshot) -> usize {
    let held = now.leased + now.detached + now.shared + now.claimed;
    held + now.free + now.retired + now.dirty + now.maintenance + now.quarantined + now.absent
}

/// Repeats until it is so; there may be a pass under way on another thread, and pauses after failures.
pub fn eventually(what: &dyn Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        check!(start.elapsed() < Duration::from_secs(60), "in vain for a minute: {}", what());
        thread::sleep(millis(1));
    }
}
