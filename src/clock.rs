//! The coarse clock: one number that allocations stamp and nobody reads from the system on the hot path.
//!
//! Reading a clock costs 10 to 25 ns, several allocations' worth. So a tick is advanced by the reclaimer, by whoever
//! passes by on a cold path, by every thousandth or so allocation of a busy thread, and by a program that calls [`tick`]
//! itself, from an event loop for example. Between ticks it stands still, and it never goes back: an age computed
//! from it is never too small, and is exact to a tick while anything advances it.
//!
//! A program that simulates time, or has read the clock anyway, gives the time itself: [`tick_to`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Milliseconds a tick. A 32-bit count of them wraps after 497 days.
pub(crate) const TICK_MILLIS: u32 = 10;

/// One tick.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MILLIS as u64);

/// A reading of the coarse clock, in ticks since the first tier of the process was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(pub(crate) u32);

static START: OnceLock<Instant> = OnceLock::new();

/// In ticks since [`START`].
#[cfg(not(loom))]
static NOW: AtomicU64 = AtomicU64::new(0);

// Each model's own: all its threads run on the one thread of its test.
#[cfg(loom)]
std::thread_local! { static NOW: AtomicU64 = const { AtomicU64::new(0) } }

#[inline(always)]
fn with_now<R>(use_it: impl FnOnce(&AtomicU64) -> R) -> R {
    #[cfg(not(loom))]
    return use_it(&NOW);
    #[cfg(loom)]
    return NOW.with(use_it);
}

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
    tick_to(Instant::now());
}

/// Advances the coarse clock to `now`, which the caller has read or made up; one in the past changes nothing.
///
/// With it a test or a simulation decides what time it is: the clock then stands still until real time has caught
/// up. Deadlines and time-outs of all tiers of the process go by this clock; threads that sleep until one do not.
/// Before the first tier is built it does nothing.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tierpool::{Tier, clock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: Tier<u64> = Tier::builder("jobs").capacity(1).build_with(|| 0)?;
/// let forgotten = tier.try_allocate()?.detach_for(Duration::from_secs(60));
/// clock::tick_to(Instant::now() + Duration::from_secs(61));
/// assert_eq!(tier.reclaim().expired, 1);
/// assert!(tier.attach(forgotten).is_err());
/// # Ok(()) }
/// ```
pub fn tick_to(now: Instant) {
    if let Some(start) = START.get() {
        let ticks = now.saturating_duration_since(*start).as_millis() / u128::from(TICK_MILLIS);
        // Relaxed: a lone number; readers tolerate any recent value. The largest wins, so that it never goes back. Mostly it is the present
        // one, which is not written again: many threads read it.
        with_now(|clock| {
            if clock.load(Ordering::Relaxed) < ticks as u64 {
                clock.fetch_max(ticks as u64, Ordering::Relaxed);
            }
        });
    }
}

/// Sets the time of a model's execution.
#[cfg(loom)]
pub(crate) fn set(ticks: u32) {
    with_now(|now| now.store(u64::from(ticks), Ordering::Relaxed));
}

/// The coarse clock as it stands: one relaxed load.
#[inline]
pub(crate) fn now() -> Tick {
    // Truncation is the documented wrap.
    Tick(ticks() as u32)
}

/// The same, as a number that does not wrap: for what is due at some time.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    with_now(|now| now.load(Ordering::Relaxed))
}

/// The number of the first tick that is at least `after` later than the present one.
pub(crate) fn ticks_from_now(after: Duration) -> u64 {
    ticks_after(ticks(), after)
}

/// The same, from the tick with that number.
pub(crate) fn ticks_after(tick: u64, after: Duration) -> u64 {
    // One more: the tick has begun already.
    tick.saturating_add(in_ticks(after)).saturating_add(1)
}

/// How many ticks that is, begun ones counted.
pub(crate) fn in_ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(u128::from(TICK_MILLIS))).unwrap_or(u64::MAX)
}

/// How many ticks fit into that time.
#[cfg_attr(
    any(loom, not(feature = "cache")),
    expect(dead_code, reason = "only entries of caches grow too old so exactly")
)]
pub(crate) fn whole_ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / u128::from(TICK_MILLIS)).unwrap_or(u64::MAX)
}

/// How long it is from now to the tick with that number.
pub(crate) fn time_to(tick: u64) -> Duration {
    time_between(ticks(), tick)
}

/// How long it is from one tick to a later one.
pub(crate) fn time_between(from: u64, to: u64) -> Duration {
    Duration::from_millis(to.saturating_sub(from).saturating_mul(u64::from(TICK_MILLIS)))
}

/// How long ago `then` was, to a tick, against a clock that has just been advanced.
pub(crate) fn age(then: Tick) -> Duration {
    // A reader may have been overtaken by a tick that came after its own `now`; that is an age of nothing.
    then.ago(now())
}

impl Tick {
    /// The time from `then` to this; `None` if `then` is later.
    pub(crate) fn since(self, then: Tick) -> Option<Duration> {
        let ticks = self.0.wrapping_sub(then.0);
        (ticks <= LATEST).then(|| Duration::from_millis(u64::from(ticks) * u64::from(TICK_MILLIS)))
    }

    /// How long ago this tick was at `now`; nothing if it is to come.
    pub(crate) fn ago(self, now: Tick) -> Duration {
        now.since(self).unwrap_or(Duration::ZERO)
    }

    /// Whether this tick has come when it is `now`.
    pub(crate) fn has_come(self, now: Tick) -> bool {
        now.0.wrapping_sub(self.0) <= LATEST
    }

    /// The first tick that is at least `after` later than this; `None` beyond some 248 days, which a tick cannot
    /// tell from the past.
    pub(crate) fn plus(self, after: Duration) -> Option<Tick> {
        // One more: the present tick has begun already.
        let ticks = after.as_millis().div_ceil(u128::from(TICK_MILLIS)) + 1;
        u32::try_from(ticks).ok().filter(|&ticks| ticks < LATEST).map(|ticks| Tick(self.0.wrapping_add(ticks)))
    }
}

/// The farthest that two ticks may lie apart: half of what 32 bits count.
const LATEST: u32 = u32::MAX / 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        let then = Tick(u32::MAX - 1);
        let later = then.plus(Duration::from_millis(35)).unwrap();
        assert_eq!(later, Tick(3), "four ticks begun, and one for the present");
        assert!(later.has_come(later) && then.has_come(later) && !later.has_come(then));
        assert_eq!(later.since(then), Some(Duration::from_millis(50)));
        assert_eq!(then.since(later), None);
        assert_eq!(then.plus(Duration::from_secs(86_400 * 300)), None, "farther than ticks can tell");
    }
}
