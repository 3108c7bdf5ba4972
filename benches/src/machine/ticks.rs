//! A clock cheap enough for a single operation: the time-stamp counter, or `Instant` where there is none.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The clock's value, in ticks.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: every x86-64 has the instruction, and it only reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The clock's value, in ticks.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Nanoseconds a tick, measured once a process against `Instant`.
pub fn length() -> f64 {
    static LENGTH: OnceLock<f64> = OnceLock::new();
    *LENGTH.get_or_init(|| {
        let (start, first) = (Instant::now(), now());
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let ticks = now() - first;
        start.elapsed().as_nanos() as f64 / ticks as f64
    })
}
