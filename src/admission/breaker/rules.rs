//! When a breaker opens, for how long, and what closes it again: its rules, checked before anything goes by them.

use std::time::Duration;

use super::window::{BreakerWindow, Tally};
use crate::tier::backoff::Pauses;

/// When a [`Breaker`](crate::Breaker) opens and closes. Names and meanings are those of resilience4j's `CircuitBreakerConfig`,
/// but for the pauses, which always grow and are always in part by chance, and for rates, which go from 0 to 1.
///
/// ```
/// use std::time::Duration;
/// use tierpool::{BreakerRules, BreakerWindow};
///
/// let rules = BreakerRules {
///     window: BreakerWindow::Time(Duration::from_secs(10)),
///     minimum_calls: 20,
///     ..BreakerRules::default()
/// };
/// assert!(rules.check().is_ok());
/// let wrong = BreakerRules { failure_rate: 50.0, ..rules }.check().unwrap_err();
/// assert_eq!(wrong.to_string(), "`failure_rate` is 50, and must be greater than 0 and at most 1");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerRules {
    /// The calls by which a closed breaker judges. Default: the last 100.
    pub window: BreakerWindow,
    /// Fewer calls than these are not judged; at least 1. Of a window over calls, its size, if that is less; of a half-open
    /// breaker, `half_open_calls`, if that is less. Default: 100.
    pub minimum_calls: u32,
    /// The breaker opens when so many of the calls failed, as a part of 1; more than 0, at most 1. Default: 0.5.
    pub failure_rate: f64,
    /// The breaker opens when so many of the calls were slow, as a part of 1; more than 0, at most 1. Default: 1.
    pub slow_rate: f64,
    /// A call is slow that took longer. Default: 60 s.
    pub slow_after: Duration,
    /// How many calls a half-open breaker lets through, from 1 to 127. A change counts from the next half-open time on.
    /// Default: 10.
    pub half_open_calls: u32,
    /// A half-open breaker opens again if so much time has gone by without a verdict, from 10 ms to a year; `None`: it waits
    /// for the verdict. (Here a call that ends without result gives its permit back, so only one that does not end can
    /// keep a breaker half-open.) Default: 60 s.
    pub half_open_limit: Option<Duration>,
    /// How long the breaker stays open at first, from 10 ms. Twice as long each time that it opens again without having been
    /// closed, the second half of each time by chance. Default: 1 s.
    pub open_min: Duration,
    /// The longest that it stays open, from `open_min` to a year. Default: 60 s.
    pub open_max: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        BreakerRules {
            window: BreakerWindow::Calls(100),
            minimum_calls: 100,
            failure_rate: 0.5,
            slow_rate: 1.0,
            slow_after: Duration::from_secs(60),
            half_open_calls: 10,
            half_open_limit: Some(Duration::from_secs(60)),
            open_min: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
        }
    }
}

/// A rule that cannot hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{rule}` is {given}, and must be {wanted}")]
pub struct RuleError {
    /// The rule's name.
    pub rule: &'static str,
    /// What it was given.
    pub given: String,
    /// What it may be.
    pub wanted: String,
}

/// The most calls that a half-open breaker can count.
pub(crate) const MOST_PERMITS: u32 = 127;
/// The largest window, in calls.
const MOST_CALLS: u32 = 100_000;
/// What the coarse clock can tell.
const SHORTEST: Duration = Duration::from_millis(crate::clock::TICK_MILLIS as u64);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl BreakerRules {
    /// Whether a breaker can go by these rules.
    ///
    /// # Errors
    /// The first rule that cannot hold, with what it may be.
    pub fn check(&self) -> Result<(), RuleError> {
        match self.window {
            BreakerWindow::Calls(calls) => between("window", calls, 1, MOST_CALLS)?,
            BreakerWindow::Time(time) => between("window", time, SHORTEST, DAY)?,
        }
        between("minimum_calls", self.minimum_calls, 1, u32::MAX)?;
        rate("failure_rate", self.failure_rate)?;
        rate("slow_rate", self.slow_rate)?;
        between("half_open_calls", self.half_open_calls, 1, MOST_PERMITS)?;
        if let Some(limit) = self.half_open_limit {
            between("half_open_limit", limit, SHORTEST, YEAR)?;
        }
        between("open_min", self.open_min, SHORTEST, YEAR)?;
        between("open_max", self.open_max, self.open_min, YEAR)
    }

    /// How long the breaker stays open when it has opened so many times in a row.
    pub(crate) fn open_time(&self, openings: u32) -> Duration {
        Pauses { min: self.open_min, max: self.open_max }.after(openings)
    }

    /// How many calls a closed breaker judges by at least.
    pub(crate) fn enough_when_closed(&self) -> u32 {
        match self.window {
            BreakerWindow::Calls(calls) => self.minimum_calls.min(calls),
            BreakerWindow::Time(_) => self.minimum_calls,
        }
    }

    /// What these calls show; `None` if there are fewer than `enough`.
    pub(crate) fn judge(&self, calls: Tally, enough: u32) -> Option<Verdict> {
        if calls.calls < u64::from(enough) {
            None
        } else if calls.failure_rate() >= self.failure_rate {
            Some(Verdict::Failing(calls.failure_rate()))
        } else if calls.slow_rate() >= self.slow_rate {
            Some(Verdict::Slow(calls.slow_rate()))
        } else {
            Some(Verdict::Sound)
        }
    }
}

/// What a breaker makes of calls. Rates from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Sound,
    Failing(f64),
    Slow(f64),
}

fn between<T: PartialOrd + std::fmt::Debug>(rule: &'static str, given: T, least: T, most: T) -> Result<(), RuleError> {
    if given >= least && given <= most {
        return Ok(());
    }
    Err(RuleError { rule, given: format!("{given:?}"), wanted: format!("from {least:?} to {most:?}") })
}

fn rate(rule: &'static str, given: f64) -> Result<(), RuleError> {
    if given > 0.0 && given <= 1.0 {
        return Ok(());
    }
    Err(RuleError { rule, given: given.to_string(), wanted: "greater than 0 and at most 1".to_owned() })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The rule that is refused, and the text of the error.
    fn refused(change: impl FnOnce(&mut BreakerRules)) -> (&'static str, String) {
        let mut rules = BreakerRules::default();
        assert_eq!(rules.check(), Ok(()));
        change(&mut rules);
        let error = rules.check().unwrap_err();
        (error.rule, error.to_string())
    }

    #[test]
    fn each_rule_that_cannot_hold_is_refused_by_name() {
        assert_eq!(refused(|r| r.window = BreakerWindow::Calls(0)).1, "`window` is 0, and must be from 1 to 100000");
        assert_eq!(refused(|r| r.window = BreakerWindow::Calls(100_001)).0, "window");
        assert_eq!(refused(|r| r.window = BreakerWindow::Time(Duration::ZERO)).0, "window");
        assert_eq!(refused(|r| r.minimum_calls = 0).0, "minimum_calls");
        for wrong in [0.0, -0.5, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(|r| r.failure_rate = wrong).0, "failure_rate");
            assert_eq!(refused(|r| r.slow_rate = wrong).0, "slow_rate");
        }
        assert_eq!(refused(|r| r.half_open_calls = 0).0, "half_open_calls");
        assert_eq!(refused(|r| r.half_open_calls = 128).0, "half_open_calls");
        assert_eq!(refused(|r| r.half_open_limit = Some(Duration::ZERO)).0, "half_open_limit");
        assert_eq!(refused(|r| r.open_min = Duration::ZERO).0, "open_min");
        let text = refused(|r| r.open_max = Duration::from_millis(500)).1;
        assert_eq!(text, "`open_max` is 500ms, and must be from 1s to 31536000s");
        assert_eq!(refused(|r| r.open_max = Duration::MAX).0, "open_max");
    }

    #[test]
    fn a_rate_counts_when_it_is_reached_and_calls_are_enough() {
        let rules = BreakerRules { failure_rate: 0.3, slow_rate: 0.7, ..BreakerRules::default() };
        let judge = |calls, failed, slow| rules.judge(Tally { calls, failed, slow }, 10);
        assert_eq!(judge(9, 9, 9), None);
        assert_eq!(judge(10, 2, 6), Some(Verdict::Sound));
        assert_eq!(judge(10, 3, 7), Some(Verdict::Failing(0.3)));
        assert_eq!(judge(10, 2, 7), Some(Verdict::Slow(0.7)));
    }

    #[test]
    fn a_window_smaller_than_the_minimum_is_enough() {
        let mut rules = BreakerRules { window: BreakerWindow::Calls(5), ..BreakerRules::default() };
        assert_eq!(rules.enough_when_closed(), 5);
        rules.window = BreakerWindow::Time(Duration::from_secs(1));
        assert_eq!(rules.enough_when_closed(), 100);
    }
}
