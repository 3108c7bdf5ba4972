//! The slow ones: every single pair is timed, beside a control loop of the same shape that only reads the clock. What the
//! control sees as well (interrupts, other processes, the hypervisor) is not the pool's.

use crate::machine::{cores, ticks};
use crate::payload::Bytes;
use crate::roster::{self, Visit};
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::run::series::Sample;
use crate::subject::{Kind, Subject, pair};

use super::CAPACITY;

/// The loop that only reads the clock.
pub const CONTROL: &str = "control";

/// All subjects and the control. An order is a number of pairs, an answer their times.
pub fn fill(cast: &mut Cast) {
    roster::each::<Bytes<4096>, CAPACITY>(&mut Tail(cast));
    cast.add(CONTROL, Kind::Floor, |orders| {
        cores::pin(0);
        let mut histogram = Histogram::new();
        orders.answer(|times| {
            time(&mut histogram, times, || {});
            histogram.drain()
        });
    });
}

struct Tail<'a>(&'a mut Cast);

impl Visit for Tail<'_> {
    fn visit<S: Subject>(&mut self) {
        self.0.add(S::NAME, S::KIND, serve::<S>);
    }
}

fn serve<S: Subject>(orders: Orders) {
    cores::pin(0);
    let pool = S::build();
    let mut hand = pool.hand();
    let mut histogram = Histogram::new();
    orders.answer(|pairs| {
        time(&mut histogram, pairs, || pair::<S>(&mut hand));
        histogram.drain()
    });
}

#[inline(never)]
fn time(histogram: &mut Histogram, times: u64, mut step: impl FnMut()) {
    for _ in 0..times {
        let start = ticks::now();
        step();
        histogram.record(ticks::now() - start);
    }
}

/// Counts by tick; the few that took long are kept one by one.
pub(super) struct Histogram {
    counts: Box<[u32]>,
    long: Vec<u64>,
}

impl Histogram {
    /// About 1.6 µs at 2.6 GHz, in 16 KiB of counts.
    const TICKS: usize = 4096;

    pub(super) fn new() -> Self {
        Self { counts: vec![0; Self::TICKS].into(), long: Vec::with_capacity(1 << 16) }
    }

    #[inline(always)]
    pub(super) fn record(&mut self, ticks: u64) {
        match self.counts.get_mut(ticks as usize) {
            Some(count) => *count += 1,
            None => self.record_long(ticks),
        }
    }

    #[cold]
    fn record_long(&mut self, ticks: u64) {
        self.long.push(ticks);
    }

    /// Everything recorded since the last time, in nanoseconds.
    pub(super) fn drain(&mut self) -> Vec<Sample> {
        let length = ticks::length();
        let counts = self.counts.iter_mut().map(std::mem::take).zip(0_u64..);
        let short = counts.filter(|(count, _)| *count > 0).map(|(count, ticks)| (ticks, count.into()));
        let long = self.long.drain(..).map(|ticks| (ticks, 1));
        short.chain(long).map(|(ticks, count)| (ticks as f64 * length, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_gives_back_what_it_was_given() {
        let mut histogram = Histogram::new();
        for ticks in [10, 10, 5_000_000] {
            histogram.record(ticks);
        }
        let samples = histogram.drain();
        assert_eq!(samples.iter().map(|sample| sample.1).collect::<Vec<_>>(), [2, 1]);
        assert!(histogram.drain().is_empty());
    }
}
