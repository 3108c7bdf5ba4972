//! The coarse clock: one number that allocations stamp and nobody reads from the system on the hot path.
//!
//! Reading a clock costs 10 to 25 ns, several allocations' worth. So a tick is advanced by whoever passes by on a
//! cold path, by every thousandth or so allocation of a busy thread, and by a program that calls [`tick`] itself, from
//! an event loop for example. Between ticks it stands still, so that an age computed from it is
//! never too small, and is exact to a tick while anything advances it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds a tick. A 32-bit count of them wraps after 497 days.
pub(crate) const TICK_MILLIS: u32 = 10;

/// A reading of the coarse clock, in ticks since the first tier of the process was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(pub(crate) u32);

static START: OnceLock<Instant> = OnceLock::new();
static NOW: AtomicU32 = AtomicU32::new(0);

/// Starts the clock; called before the first tier exists, so that [`tick`] never waits for an initialiser.
pub(crate) fn init() {
    START.get_or_init(Instant::now);
}

/// Advances the coarse clock to the present. About 25 ns; never waits; safe to call from any thread at any time.
///
/// A program without a reclaimer that wants exact ages in [`Tier::holders`](crate::Tier::holders) calls this every
/// ten milliseconds or so from a loop that it has anyway. Before the first tier is built it does nothing.
pub fn tick() {
    if cfg!(loom) {
        return; // an execution that loom replays must take the same turns, whatever time it is
    }
    if let Some(start) = START.get() {
        let ticks = start.elapsed().as_millis() / u128::from(TICK_MILLIS);
        // Relaxed: a lone number; readers tolerate any recent value. Truncation is the documented wrap. Two callers
        // may store out of order, which sets the clock back by the time between them, until the next call.
        NOW.store(ticks as u32, Ordering::Relaxed);
    }
}

/// The coarse clock as it stands: one relaxed load.
#[inline]
pub(crate) fn now() -> Tick {
    Tick(NOW.load(Ordering::Relaxed))
}

/// How long ago `then` was, to a tick, against a clock that has just been advanced.
pub(crate) fn age(then: Tick) -> Duration {
    // A reader may have been overtaken by a tick that came after its own `now`; that is an age of nothing.
    let ticks = now().0.wrapping_sub(then.0);
    if ticks > u32::MAX / 2 { Duration::ZERO } else { Duration::from_millis(u64::from(ticks) * u64::from(TICK_MILLIS)) }
}
