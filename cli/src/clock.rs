//! The clock that times single operations: the processor's time stamp counter where it is steady, else the system's.
//!
//! Reading it costs about as much as an operation takes, and on some processors it moves in steps of ten nanoseconds.
//! The cost is measured and reported, and it stays in every percentile of both sides; what a single reading cannot tell,
//! the average of a whole pass can.

use hdrhistogram::Histogram;

/// A calibrated clock.
#[derive(Clone, Debug)]
pub struct Clock {
    clock: quanta::Clock,
    nanos_a_tick: f64,
}

/// How many pairs of readings [`Clock::cost`] takes.
const READINGS: usize = 100_000;

impl Clock {
    /// Calibrates against the system's clock, which takes up to a fifth of a second the first time.
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        let ticks = 1 << 40;
        let nanos_a_tick = clock.delta_as_nanos(0, ticks) as f64 / ticks as f64;
        Clock { clock, nanos_a_tick }
    }

    /// The time now, in ticks.
    #[inline(always)]
    pub fn ticks(&self) -> u64 {
        self.clock.raw()
    }

    /// What ticks are in nanoseconds.
    pub fn nanos(&self, ticks: f64) -> f64 {
        ticks * self.nanos_a_tick
    }

    /// What is measured when nothing happens between two readings: the median, in nanoseconds.
    pub fn cost(&self) -> f64 {
        let mut recorder = Recorder::new();
        for _ in 0..READINGS {
            let start = self.ticks();
            recorder.record(self.ticks().saturating_sub(start));
        }
        self.nanos(recorder.finish().value_at_quantile(0.5) as f64)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

/// How long operations of one kind took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// The median, in nanoseconds, as are the rest.
    pub p50: f64,
    /// 99 in 100 took at most this.
    pub p99: f64,
    /// 9,999 in 10,000 took at most this.
    pub p9999: f64,
    /// The slowest.
    pub max: f64,
}

/// Collects durations in ticks. They go to a small buffer first, so that sorting them into a histogram does not push
/// the measured program out of the caches between two operations.
#[derive(Debug)]
pub struct Recorder {
    buffer: Vec<u64>,
    histogram: Histogram<u64>,
}

const BUFFER: usize = 1024;
/// About six minutes at 3 GHz; longer ones count as that long.
const LONGEST: u64 = 1 << 40;
/// Two digits: a percentile is at most one in a hundred too large.
const DIGITS: u8 = 2;

impl Recorder {
    /// A recorder of nothing yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("these bounds are valid");
        Recorder { buffer: Vec::with_capacity(BUFFER), histogram }
    }

    /// Adds one duration.
    #[inline(always)]
    pub fn record(&mut self, ticks: u64) {
        self.buffer.push(ticks);
        if self.buffer.len() == BUFFER {
            self.flush();
        }
    }

    /// Adds what another has collected.
    pub fn merge(&mut self, other: Recorder) {
        self.histogram.add(other.finish()).expect("all recorders have the same bounds");
    }

    /// The percentiles, or none if nothing was recorded.
    pub fn percentiles(mut self, clock: &Clock) -> Option<Percentiles> {
        self.flush();
        let histogram = &self.histogram;
        let nanos = |ticks: u64| (clock.nanos(ticks as f64) * 10.0).round() / 10.0;
        let at = |quantile| nanos(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p99: at(0.99),
            p9999: at(0.9999),
            max: nanos(histogram.max()),
        })
    }

    #[cold]
    fn flush(&mut self) {
        for ticks in self.buffer.drain(..) {
            self.histogram.saturating_record(ticks);
        }
    }

    fn finish(mut self) -> Histogram<u64> {
        self.flush();
        self.histogram
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}
