//! What was counted at earlier looks, as far back as the longest window needs, and rates from it.
//!
//! A rate is the difference of two counts over the time between them: what happened in the window, no older and no smoothed one. Looks of
//! the last minute are all kept, older ones ten seconds apart, so a quarter of an hour of looks every second is some 150 of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The windows over which rates are told.
const WINDOWS: [Duration; 3] = [Duration::from_secs(1), MINUTE, Duration::from_secs(900)];
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// How far looks are apart that are older than a minute.
const APART: Duration = Duration::from_secs(10);

/// How many a second, over a window each; over the time since the first look, as long as that is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Rates {
    /// Over the last second, or since the look before, if that is longer ago.
    pub second: f64,
    /// Over the last minute.
    pub minute: f64,
    /// Over the last 15 minutes.
    pub quarter_hour: f64,
}

/// Looks, the latest last. `T` is what one has found.
pub(super) struct History<T>(VecDeque<(Instant, T)>);

impl<T> History<T> {
    pub(super) fn new() -> Self {
        History(VecDeque::new())
    }

    /// One more look, later than the others; what no window needs any more is forgotten.
    pub(super) fn push(&mut self, at: Instant, found: T) {
        self.0.push_back((at, found));
        let age = |it: &(Instant, T)| at.saturating_duration_since(it.0);
        // The one that is just older than the longest window stays: the window begins between it and the next.
        while self.0.get(1).is_some_and(|second| age(second) >= WINDOWS[2]) {
            self.0.pop_front();
        }
        // Of those that have just become older than a minute, only some stay.
        if let Some(old) = (1..self.0.len()).rev().find(|&at| age(&self.0[at]) > MINUTE + APART)
            && self.0[old].0.saturating_duration_since(self.0[old - 1].0) < APART
        {
            self.0.remove(old);
        }
    }

    /// The looks within `window` before the latest, and the one that it begins with.
    pub(super) fn within(&self, window: Duration) -> impl DoubleEndedIterator<Item = &(Instant, T)> {
        let latest = self.0.back().map(|it| it.0);
        let ago = |it: &(Instant, T)| latest.map_or(Duration::ZERO, |at| at.saturating_duration_since(it.0));
        // Looks every second come some milliseconds early or late: half a second is near enough.
        let begin =
            self.0.iter().rposition(|it| ago(it) + Duration::from_millis(500) >= window && ago(it) > Duration::ZERO);
        self.0.range(begin.unwrap_or(0)..)
    }

    /// How much a count has grown a second, over each window.
    pub(super) fn rates(&self, count: impl Fn(&T) -> u64) -> Rates {
        let [second, minute, quarter_hour] = WINDOWS.map(|window| {
            let mut looks = self.within(window);
            let (Some(before), Some(now)) = (looks.next(), looks.next_back()) else { return 0.0 };
            growth(before, now, &count)
        });
        Rates { second, minute, quarter_hour }
    }

    /// How much a count has grown a second between each two looks of the last minute.
    pub(super) fn steps(&self, count: impl Fn(&T) -> u64) -> Vec<f64> {
        self.within(MINUTE).zip(self.within(MINUTE).skip(1)).map(|(before, now)| growth(before, now, &count)).collect()
    }
}

/// How much a count has grown a second from one look to the other.
fn growth<T>((since, before): &(Instant, T), (until, now): &(Instant, T), count: impl Fn(&T) -> u64) -> f64 {
    let seconds = until.saturating_duration_since(*since).as_secs_f64();
    if seconds > 0.0 { count(now).saturating_sub(count(before)) as f64 / seconds } else { 0.0 }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn looks(seconds: impl Iterator<Item = u64>, count: impl Fn(u64) -> u64) -> History<u64> {
        let start = Instant::now();
        let mut history = History::new();
        seconds.for_each(|at| history.push(start + Duration::from_secs(at), count(at)));
        history
    }

    #[test]
    fn rates_are_those_of_their_windows() {
        // 10 a second for an hour, then 100 a second for a minute.
        let history = looks(0..=3660, |at| 10 * at.min(3600) + 100 * at.saturating_sub(3600));
        let Rates { second, minute, quarter_hour } = history.rates(|&count| count);
        assert_eq!((second, minute), (100.0, 100.0));
        assert!((quarter_hour - (10.0 * 840.0 + 6000.0) / 900.0).abs() < 1.0, "{quarter_hour}");
    }

    #[test]
    fn a_young_history_tells_what_it_has_seen() {
        assert_eq!(looks(0..1, |_| 5).rates(|&count| count), Rates::default());
        let two = looks(0..2, |at| 5 * at).rates(|&count| count);
        assert_eq!((two.second, two.minute, two.quarter_hour), (5.0, 5.0, 5.0));
        assert_eq!(looks(0..4, |at| at * at).steps(|&count| count), [1.0, 3.0, 5.0]);
    }

    #[test]
    fn looks_that_stay_out_leave_a_longer_window() {
        let history = looks([0, 1, 2, 2000, 2001].into_iter(), |at| at);
        assert_eq!(history.rates(|&count| count).minute, 1.0, "one a second, the whole time");
    }

    #[test]
    fn an_hour_of_looks_is_some_hundred_and_fifty() {
        let history = looks(0..=3600, |at| at);
        assert!((140..=165).contains(&history.0.len()), "{}", history.0.len());
        assert_eq!(history.within(MINUTE).count(), 61);
    }
}
