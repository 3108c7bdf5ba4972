//! The latest calls, as a breaker sees them: how many there were, how many failed, how many were slow.
//!
//! A window over the last N calls keeps runs of equal ones, since a pool reports its successes by the thousand; there are
//! at most N runs, and room for them is made once. A window over a time keeps a tally for each of its parts in which there
//! was a call. So recording allocates nothing, and costs a step for each run or part that leaves the window.
//!
//! These are the two sliding windows of resilience4j. Its time windows have a part for each second, ours have up to
//! [`PARTS`] of equal length.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock;

/// What a breaker looks back on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerWindow {
    /// The last so many calls, from 1 to 100,000. Eight bytes each.
    Calls(u32),
    /// The calls of the last so much time, from 10 ms to a day. What is older leaves by twentieths of it, of 10 ms at least.
    Time(Duration),
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl Call {
    /// All there are: the successes before the failures, the fast before the slow.
    pub(crate) const KINDS: [Call; 4] = [
        Call { failed: false, slow: false },
        Call { failed: false, slow: true },
        Call { failed: true, slow: false },
        Call { failed: true, slow: true },
    ];

    /// Its place among [`KINDS`](Call::KINDS).
    pub(crate) fn kind(self) -> usize {
        usize::from(self.failed) * 2 + usize::from(self.slow)
    }
}

/// So many calls, and what became of them. A call may have failed and been slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, call: Call, n: u64) {
        self.calls += n;
        self.failed += n * u64::from(call.failed);
        self.slow += n * u64::from(call.slow);
    }

    fn remove(&mut self, call: Call, n: u64) {
        self.calls -= n;
        self.failed -= n * u64::from(call.failed);
        self.slow -= n * u64::from(call.slow);
    }

    pub(crate) fn add_all(&mut self, other: Tally) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.slow += other.slow;
    }

    fn remove_all(&mut self, other: Tally) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }

    /// From 0 to 1; 0 of no calls.
    pub(crate) fn failure_rate(&self) -> f64 {
        self.failed as f64 / self.calls.max(1) as f64
    }

    /// From 0 to 1; 0 of no calls.
    pub(crate) fn slow_rate(&self) -> f64 {
        self.slow as f64 / self.calls.max(1) as f64
    }
}

/// The calls in a window.
pub(crate) enum Window {
    Calls(Runs),
    Time(Parts),
}

impl Window {
    pub(crate) fn new(over: BreakerWindow) -> Self {
        match over {
            BreakerWindow::Calls(size) => Window::Calls(Runs::new(size)),
            BreakerWindow::Time(span) => Window::Time(Parts::new(span)),
        }
    }

    /// Records `n` equal calls, at the tick `now`.
    pub(crate) fn record(&mut self, now: u64, call: Call, n: u64) {
        match self {
            Window::Calls(runs) => runs.record(call, n),
            Window::Time(parts) => parts.record(now, call, n),
        }
    }

    /// What is in it at the tick `now`.
    pub(crate) fn tally(&mut self, now: u64) -> Tally {
        match self {
            Window::Calls(runs) => runs.tally,
            Window::Time(parts) => {
                parts.advance(now);
                parts.tally
            }
        }
    }

    /// Forgets all calls.
    pub(crate) fn clear(&mut self) {
        match self {
            Window::Calls(Runs { runs, tally, .. }) => {
                runs.clear();
                *tally = Tally::default();
            }
            Window::Time(Parts { parts, tally, .. }) => {
                parts.clear();
                *tally = Tally::default();
            }
        }
    }
}

struct Run {
    call: Call,
    /// At most the size of the window.
    n: u32,
}

/// The last so many calls, as runs of equal ones; no run is empty.
pub(crate) struct Runs {
    size: u32,
    runs: VecDeque<Run>,
    tally: Tally,
}

impl Runs {
    fn new(size: u32) -> Self {
        Runs { size, runs: VecDeque::with_capacity(size as usize), tally: Tally::default() }
    }

    fn record(&mut self, call: Call, n: u64) {
        let n = n.min(u64::from(self.size)) as u32;
        self.forget((self.tally.calls + u64::from(n)).saturating_sub(u64::from(self.size)));
        match self.runs.back_mut() {
            _ if n == 0 => {}
            Some(last) if last.call == call => last.n += n,
            _ => self.runs.push_back(Run { call, n }),
        }
        self.tally.add(call, u64::from(n));
    }

    /// Drops the oldest `n` calls; there are so many.
    fn forget(&mut self, mut n: u64) {
        while let Some(first) = self.runs.front_mut().filter(|_| n > 0) {
            let gone = n.min(u64::from(first.n));
            first.n -= gone as u32;
            n -= gone;
            self.tally.remove(first.call, gone);
            if first.n == 0 {
                self.runs.pop_front();
            }
        }
    }
}

/// Into how many parts a window over a time is cut at most.
const PARTS: u64 = 20;

/// The calls of the last parts of time, without those in which there was none.
pub(crate) struct Parts {
    /// Ticks a part.
    width: u64,
    /// Parts that the window spans, the present one included.
    kept: u64,
    /// The number of the part, which is its first tick divided by the width, and its calls. The numbers ascend.
    parts: VecDeque<(u64, Tally)>,
    tally: Tally,
}

impl Parts {
    fn new(span: Duration) -> Self {
        let ticks = clock::in_ticks(span).max(1);
        let width = ticks.div_ceil(PARTS);
        let kept = ticks.div_ceil(width);
        Parts { width, kept, parts: VecDeque::with_capacity(kept as usize), tally: Tally::default() }
    }

    /// Drops what is too old. Time does not go back: a caller that has read the clock before the last one is taken to
    /// have read it then. Returns the number of the present part.
    fn advance(&mut self, now: u64) -> u64 {
        let last = self.parts.back().map_or(0, |&(number, _)| number);
        let present = (now / self.width).max(last);
        while let Some(&(_, tally)) = self.parts.front().filter(|(number, _)| number + self.kept <= present) {
            self.parts.pop_front();
            self.tally.remove_all(tally);
        }
        present
    }

    fn record(&mut self, now: u64, call: Call, n: u64) {
        let present = self.advance(now);
        match self.parts.back_mut() {
            Some((number, tally)) if *number == present => tally.add(call, n),
            _ => {
                let mut tally = Tally::default();
                tally.add(call, n);
                self.parts.push_back((present, tally));
            }
        }
        self.tally.add(call, n);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A call after some ticks, so many times.
    fn step() -> impl Strategy<Value = (u64, usize, u64)> {
        (
            prop_oneof![3 => Just(0u64), 2 => 0..4u64, 1 => 0..200u64],
            0..4usize,
            prop_oneof![4 => 0..4u64, 1 => 0..40u64],
        )
    }

    fn tally(calls: impl IntoIterator<Item = Call>) -> Tally {
        let mut tally = Tally::default();
        calls.into_iter().for_each(|call| tally.add(call, 1));
        tally
    }

    proptest! {
        /// The reference keeps every call, and looks at the last ones.
        #[test]
        fn a_window_over_calls_tallies_the_last_ones(size in 1..12u32, steps in prop::collection::vec(step(), 0..60)) {
            let mut window = Window::new(BreakerWindow::Calls(size));
            let mut all = Vec::new();
            for (_, kind, n) in steps {
                window.record(0, Call::KINDS[kind], n);
                all.extend((0..n).map(|_| Call::KINDS[kind]));
                let last = all.iter().rev().take(size as usize).copied();
                prop_assert_eq!(window.tally(0), tally(last));
                let Window::Calls(Runs { runs, .. }) = &window else { unreachable!() };
                prop_assert!(runs.len() <= size as usize, "there is room for no more");
            }
        }

        /// The reference keeps every call with its tick, and looks at those of the present part and the ones before.
        #[test]
        fn a_window_over_time_tallies_the_last_parts(millis in 10..3000u64, steps in prop::collection::vec(step(), 0..60)) {
            let mut window = Window::new(BreakerWindow::Time(Duration::from_millis(millis)));
            let Window::Time(Parts { width, kept, .. }) = window else { unreachable!() };
            let (mut now, mut all) = (1000, Vec::new());
            for (later, kind, n) in steps {
                now += later;
                window.record(now, Call::KINDS[kind], n);
                all.extend((0..n).map(|_| (now, Call::KINDS[kind])));
                let oldest = (now / width + 1).saturating_sub(kept) * width;
                prop_assert_eq!(window.tally(now), tally(all.iter().filter(|(tick, _)| *tick >= oldest).map(|x| x.1)));
                let span = clock::in_ticks(Duration::from_millis(millis));
                prop_assert!(kept * width >= span && (kept - 1) * width < span, "spans {millis} ms, and not a part more");
            }
        }
    }

    #[test]
    fn a_clock_that_was_read_too_early_takes_no_call_back() {
        let mut window = Window::new(BreakerWindow::Time(Duration::from_millis(100)));
        window.record(50, Call::KINDS[2], 1);
        window.record(30, Call::KINDS[2], 1);
        assert_eq!(window.tally(30).failed, 2);
        assert_eq!(window.tally(59).failed, 2);
        assert_eq!(window.tally(60).failed, 0, "both leave together");
    }

    #[test]
    fn a_window_that_is_cleared_is_as_new() {
        for over in [BreakerWindow::Calls(3), BreakerWindow::Time(Duration::from_secs(1))] {
            let mut window = Window::new(over);
            window.record(7, Call::KINDS[3], 2);
            assert_eq!(window.tally(7), Tally { calls: 2, failed: 2, slow: 2 });
            window.clear();
            assert_eq!(window.tally(7), Tally::default());
            window.record(7, Call::KINDS[0], 1);
            assert_eq!(window.tally(7), Tally { calls: 1, failed: 0, slow: 0 });
        }
    }
}
