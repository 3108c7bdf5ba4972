//! How long something took: a histogram that many threads record into without waiting, and what is read off it.
//!
//! [`Recorder`] is an array of counters, one for each range of values: below 32 ns each value has its own, above that each power of two
//! is cut into 32 ranges of equal width, as HdrHistogram does it. So a value is told to 3 %, from a nanosecond to more than an hour, and
//! recording is a relaxed addition. A reading is a [`Latency`], which keeps an `hdrhistogram::Histogram`.

use std::fmt;
use std::sync::Arc;
// Not from `sync`: numbers for people, of which models know nothing.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hdrhistogram::Histogram;

/// Whether anything is timed. Not in models, which know no time.
pub(crate) const RECORDS: bool = !cfg!(loom) && !crate::BARE;

/// Ranges of each power of two.
const RANGES: u64 = 32;
/// Values from two to the power of this on are counted as the largest below: 73 minutes.
const TOP: u32 = 42;
const COUNTERS: usize = ((TOP - RANGES.ilog2() + 1) as usize) * RANGES as usize;

/// Which counter a value has.
fn place(nanoseconds: u64) -> usize {
    let value = nanoseconds.min((1 << TOP) - 1);
    if value < RANGES {
        return value as usize;
    }
    // The power above the first, and the next five bits.
    let power = value.ilog2() - RANGES.ilog2();
    ((u64::from(power) + 1) * RANGES + (value >> power) - RANGES) as usize
}

/// The value in the middle of a counter's range.
fn middle(place: usize) -> u64 {
    let (power, range) = (place as u64 / RANGES, place as u64 % RANGES);
    if power == 0 {
        return range;
    }
    let width = 1 << (power - 1);
    (RANGES + range) * width + width / 2
}

/// See the module's header. Has no memory before it is [prepared](Self::prepare), and records nothing until then.
#[derive(Default)]
pub(crate) struct Recorder(ArcSwapOption<Box<[AtomicU64]>>);

impl Recorder {
    /// Gives it its 10 KB, if it has none and the system has them. Waits for nobody but the system's allocator.
    pub(crate) fn prepare(&self) {
        if !RECORDS || self.0.load().is_some() {
            return;
        }
        let mut counters = Vec::new();
        if counters.try_reserve_exact(COUNTERS).is_ok() {
            counters.resize_with(COUNTERS, AtomicU64::default);
            // Whoever comes second throws away what he made.
            self.0.compare_and_swap(&None::<Arc<_>>, Some(Arc::new(counters.into_boxed_slice())));
        }
    }

    /// `weight` things took so long.
    pub(crate) fn record(&self, took: Duration, weight: u64) {
        if let Some(counters) = &*self.0.load() {
            let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            counters[place(nanoseconds)].fetch_add(weight, Ordering::Relaxed);
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        if let Some(counters) = &*self.0.load() {
            counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        }
    }

    /// What was recorded so far. A look at each counter.
    pub(crate) fn latency(&self) -> Latency {
        let Some(counters) = &*self.0.load() else { return Latency::default() };
        let counts = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).enumerate();
        Latency::of(counts.filter(|(_, count)| *count > 0).map(|(place, count)| (middle(place), count)))
    }
}

/// How long something took, as a distribution: [`TierStatus::latency`](crate::TierStatus::latency),
/// [`TierStatus::wait_latency`](crate::TierStatus::wait_latency). To 3 %, from a nanosecond to 73 minutes.
///
/// Keeps a histogram of some KB if it is not empty. Reading something off it takes a pass over that: some microseconds.
#[derive(Clone, Default, PartialEq)]
pub struct Latency {
    /// `None`: nothing was recorded.
    histogram: Option<Histogram<u64>>,
}

/// Significant digits of the histograms: they lose nothing of what the recorder has.
const DIGITS: u8 = 2;

impl Latency {
    fn of(counts: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut histogram: Option<Histogram<u64>> = None;
        for (nanoseconds, count) in counts {
            if histogram.is_none() {
                histogram = Histogram::new_with_max(1 << TOP, DIGITS).ok();
            }
            if let Some(histogram) = &mut histogram {
                histogram.saturating_record_n(nanoseconds, count);
            }
        }
        Latency { histogram }
    }

    fn recorded(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let values = self.histogram.iter().flat_map(Histogram::iter_recorded);
        values.map(|value| (value.value_iterated_to(), value.count_at_value()))
    }

    /// How many there were: of allocations, that is estimated from those that were timed.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_none()
    }

    /// What a share `q` of them, from 0 to 1, did not exceed; zero if there were none. A share outside that range counts as its nearest end.
    pub fn quantile(&self, q: f64) -> Duration {
        let value = self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(q.clamp(0.0, 1.0)));
        Duration::from_nanos(value)
    }

    /// On average; zero if there were none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.as_ref().map_or(0.0, Histogram::mean).round() as u64)
    }

    /// The longest; zero if there were none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram.as_ref().map_or(0, Histogram::max))
    }

    /// All of them together, each as long as the end of its bucket is; never less than at an earlier reading.
    pub fn total(&self) -> Duration {
        let nanoseconds: u128 = self.recorded().map(|(value, count)| u128::from(value) * u128::from(count)).sum();
        Duration::from_nanos_u128(nanoseconds)
    }

    /// How many took no longer than each of these bounds, which are in ascending order: the buckets of an exposition.
    pub fn cumulative(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut recorded = self.recorded().peekable();
        let mut sum = 0;
        let up_to = |bound: &Duration| {
            while let Some((_, count)) = recorded.next_if(|(value, _)| u128::from(*value) <= bound.as_nanos()) {
                sum += count;
            }
            sum
        };
        bounds.iter().map(up_to).collect()
    }

    /// The same, if what was measured should have begun every `interval`, and was held up whenever it took longer: for each that did, those
    /// are added that would have begun meanwhile, each with what was left of the delay by then. Without that a stall counts once, however
    /// many it has kept waiting (Tene's "coordinated omission"). Nothing is added for an interval of zero.
    pub fn corrected(&self, interval: Duration) -> Latency {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Latency { histogram: self.histogram.as_ref().map(|histogram| histogram.clone_correct(interval)) }
    }

    /// What came since an earlier reading of the same.
    pub fn since(&self, earlier: &Latency) -> Latency {
        let Some(before) = &earlier.histogram else { return self.clone() };
        Latency::of(
            self.recorded()
                .map(|(value, count)| (value, count.saturating_sub(before.count_at(value))))
                .filter(|(_, count)| *count > 0),
        )
    }

    /// With what was recorded elsewhere.
    pub(crate) fn and(self, other: Latency) -> Latency {
        let histogram = match (self.histogram, other.histogram) {
            (Some(mut one), Some(other)) => {
                // Cannot fail: both have the same bounds.
                let _ = one.add(other);
                Some(one)
            }
            (one, other) => one.or(other),
        };
        Latency { histogram }
    }

    /// The histogram, in nanoseconds, for what is not here; `None` if nothing was recorded.
    pub fn histogram(&self) -> Option<&Histogram<u64>> {
        self.histogram.as_ref()
    }
}

/// As in a line of a log.
impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("p99.9", &self.quantile(0.999))
            .field("max", &self.max())
            .finish()
    }
}

/// Measures one thing, without what reading the clock takes.
pub(crate) struct Stopwatch(Instant);

/// What two readings of the clock lie apart with nothing between them, in nanoseconds and one; 0: not yet known.
static COST: AtomicU64 = AtomicU64::new(0);

impl Stopwatch {
    #[inline]
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    #[inline]
    pub(crate) fn stop(self) -> Duration {
        let took = self.0.elapsed();
        let cost = match COST.load(Ordering::Relaxed) {
            0 => measure_cost(),
            known => known,
        };
        took.saturating_sub(Duration::from_nanos(cost - 1))
    }
}

/// Whoever comes first measures it, and if several do, each for himself: nobody waits.
#[cold]
fn measure_cost() -> u64 {
    let shortest = (0..32).map(|_| Instant::now().elapsed()).min().unwrap_or_default();
    let cost = u64::try_from(shortest.as_nanos()).unwrap_or(0) + 1;
    COST.store(cost, Ordering::Relaxed);
    cost
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_told_to_three_percent() {
        let mut last = 0;
        for value in
            (0..64).chain((6..TOP).flat_map(|power| (0..97).map(move |part| (1 << power) + (part << power) / 97)))
        {
            let at = place(value);
            assert!(at < COUNTERS && at >= last, "the counters are in the order of the values");
            last = at;
            let off = middle(at).abs_diff(value) as f64;
            assert!(off <= value as f64 * 0.03, "{value} was told as {}", middle(at));
        }
        assert_eq!(place(u64::MAX), COUNTERS - 1);
        assert!(Duration::from_nanos(middle(COUNTERS - 1)) > Duration::from_secs(3600));
    }

    #[test]
    fn a_recorder_that_was_not_prepared_keeps_nothing() {
        let recorder = Recorder::default();
        recorder.record(Duration::from_nanos(5), 1);
        assert!(recorder.latency().is_empty());
        recorder.prepare();
        recorder.record(Duration::from_nanos(5), 3);
        recorder.record(Duration::from_micros(100), 1);
        let latency = recorder.latency();
        assert_eq!((latency.count(), latency.quantile(0.5)), (4, Duration::from_nanos(5)));
        assert_eq!(latency.cumulative(&[4, 5, 1_000_000].map(Duration::from_nanos)), [0, 3, 4]);
        recorder.clear();
        assert!(recorder.latency().is_empty());
    }

    #[test]
    fn what_an_interval_has_held_up_is_added() {
        let recorder = Recorder::default();
        recorder.prepare();
        recorder.record(Duration::from_micros(1), 99);
        recorder.record(Duration::from_millis(100), 1);
        let corrected = recorder.latency().corrected(Duration::from_millis(1));
        assert!((195..=205).contains(&corrected.count()), "{corrected:?}: a hundred begin in 100 ms");
        assert!(corrected.quantile(0.75) > Duration::from_millis(45), "{corrected:?}");
        assert_eq!(recorder.latency().corrected(Duration::ZERO), recorder.latency());
    }

    #[test]
    fn a_difference_has_what_came_between() {
        let recorder = Recorder::default();
        recorder.prepare();
        recorder.record(Duration::from_nanos(777), 2);
        let before = recorder.latency();
        recorder.record(Duration::from_nanos(777), 1);
        recorder.record(Duration::from_secs(9), 5);
        let since = recorder.latency().since(&before);
        assert_eq!(since.count(), 6);
        assert!(recorder.latency().since(&recorder.latency()).is_empty());
        assert_eq!(before.since(&Latency::default()), before);
    }
}
