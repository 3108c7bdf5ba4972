//! When to try again what has just failed: later and later, and not all at the same time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::clock;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The first and the longest pause.
#[derive(Clone, Copy)]
pub(crate) struct Pauses {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Pauses {
    /// How long to wait after so many failures in a row, from 1: twice as long each time, the second half by chance.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.min.saturating_mul(doubled).min(self.max);
        full.div_f64(2.0) + full.mul_f64(random() / 2.0)
    }
}

/// Something that may be tried, unless it has failed too recently.
pub(crate) struct Backoff {
    /// Failures since the last success.
    failures: AtomicU32,
    /// The tick from which on it may be tried again.
    after: AtomicU64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff { failures: AtomicU32::new(0), after: AtomicU64::new(0) }
    }

    /// The tick from which on it may be tried.
    pub(crate) fn due(&self) -> u64 {
        self.after.load(Ordering::Relaxed)
    }

    /// Whether it may be tried now. Two loads, and a look at the clock while it may not.
    pub(crate) fn is_due(&self) -> bool {
        let due = self.due();
        due <= clock::ticks() || {
            clock::tick();
            due <= clock::ticks()
        }
    }

    /// Begins an attempt, if one is due. While attempts fail, one thread at a time makes them.
    pub(crate) fn begin(&self) -> bool {
        let after = self.due();
        if !self.is_due() {
            return false;
        }
        // Relaxed: only one of those who try has to win; what they do is ordered by the words of the slots.
        self.failures.load(Ordering::Relaxed) == 0
            || self.after.compare_exchange(after, clock::ticks() + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The attempt has succeeded: the next may follow at once.
    pub(crate) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.after.store(0, Ordering::Relaxed);
    }

    /// The attempt has failed. Returns how many have in a row, and how long to wait.
    pub(crate) fn failed(&self, pauses: Pauses) -> (u32, Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let pause = pauses.after(failures);
        self.after.store(clock::ticks_from_now(pause), Ordering::Relaxed);
        (failures, pause)
    }
}

/// A number from 0 to 1, by chance. Under loom always the same.
pub(crate) fn random() -> f64 {
    if cfg!(loom) {
        return 0.5;
    }
    // The standard library seeds each of its hashers anew.
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_a_success_ends_them() {
        clock::init();
        // So long that no other test that moves the clock meanwhile can end one.
        let pauses = Pauses { min: Duration::from_secs(1000), max: Duration::from_secs(10_000) };
        let backoff = Backoff::new();
        assert!(backoff.begin());
        for (nth, full) in [(1, 1000), (2, 2000), (3, 4000), (4, 8000), (5, 10_000), (6, 10_000)] {
            let (failures, pause) = backoff.failed(pauses);
            assert_eq!(failures, nth);
            let full = Duration::from_secs(full);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            assert!(!backoff.begin(), "not before the pause is over");
        }
        backoff.succeeded();
        assert!(backoff.begin() && backoff.begin());
    }
}
