//! When a figure is too much, and when no longer: two bounds, so that one that hovers about a bound says nothing twice, and a time for which it
//! must stay past a bound, so that a spike says nothing at all.

use std::time::{Duration, Instant};

use super::issue::{Severity, Signal};

/// From when on a [`Signal`] is an issue, and until when.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    pub(super) signal: Signal,
    pub(super) severity: Severity,
    pub(super) raise: f64,
    pub(super) clear: f64,
    pub(super) hold: Duration,
}

impl Threshold {
    /// An issue while `signal` is above `raise`.
    pub fn new(signal: Signal, severity: Severity, raise: f64) -> Self {
        Threshold { signal, severity, raise, clear: raise, hold: Duration::ZERO }
    }

    /// It is over only below this, which is no more than what raises it. Default: that.
    pub fn clear_below(mut self, clear: f64) -> Self {
        self.clear = clear;
        self
    }

    /// For so long the figure must have been past a bound, at every look, before anything is said. Default: none.
    pub fn held_for(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// What contradicts itself in it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if !self.raise.is_finite() || !self.clear.is_finite() {
            Some("its bounds are no numbers")
        } else if self.clear > self.raise {
            Some("it clears above what raises it; give a lower `clear_below`")
        } else {
            None
        }
    }

    /// Those that a monitor begins with.
    pub(super) fn usual() -> Vec<Threshold> {
        use Severity::{Degraded, Unhealthy};
        let of = |signal, severity, raise, clear, seconds| {
            Threshold::new(signal, severity, raise).clear_below(clear).held_for(Duration::from_secs(seconds))
        };
        vec![
            of(Signal::MemoryUsed, Degraded, 0.85, 0.75, 2),
            of(Signal::MemoryUsed, Unhealthy, 0.95, 0.90, 2),
            of(Signal::MemoryStall, Degraded, 0.10, 0.05, 10),
            of(Signal::MemoryStall, Unhealthy, 0.40, 0.20, 10),
            of(Signal::CpuStall, Degraded, 0.50, 0.30, 10),
            of(Signal::DiskStall, Degraded, 0.50, 0.30, 10),
            of(Signal::DiskUsed, Degraded, 0.90, 0.85, 2),
            of(Signal::DiskUsed, Unhealthy, 0.98, 0.95, 2),
        ]
    }
}

/// A threshold, and where its figure stands.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) threshold: Threshold,
    /// Whether there is an issue.
    raised: bool,
    /// Since when the figure has been past the bound that would change that.
    past: Option<Instant>,
}

impl Watch {
    pub(super) fn new(threshold: Threshold) -> Self {
        Watch { threshold, raised: false, past: None }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised
    }

    /// There is no figure any more, and so no issue; since when, if there was one.
    pub(super) fn reset(&mut self, at: Instant) -> Option<(bool, Instant)> {
        self.past = None;
        std::mem::take(&mut self.raised).then_some((false, at))
    }

    /// Looks at the figure; says since when it has been past the bound, if that changes whether there is an issue. A figure that is no
    /// number says nothing.
    pub(super) fn look(&mut self, at: Instant, value: f64) -> Option<(bool, Instant)> {
        let Threshold { raise, clear, hold, .. } = self.threshold;
        if value.is_nan() {
            return None;
        }
        // At a bound that is both, it is neither above nor below.
        let is_past = if self.raised { value < clear || (value == clear && clear < raise) } else { value > raise };
        if !is_past {
            self.past = None;
            return None;
        }
        let since = *self.past.get_or_insert(at);
        if at.saturating_duration_since(since) < hold {
            return None;
        }
        (self.raised, self.past) = (!self.raised, None);
        Some((self.raised, since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(hold: u64) -> Watch {
        let threshold = Threshold::new(Signal::MemoryUsed, Severity::Degraded, 0.8).clear_below(0.6);
        Watch::new(threshold.held_for(Duration::from_secs(hold)))
    }

    /// What it says of figures, one a second.
    fn told(watch: &mut Watch, values: &[f64]) -> Vec<(usize, bool)> {
        let start = Instant::now();
        let at = |second: usize| start + Duration::from_secs(second as u64);
        let looks = values.iter().enumerate();
        looks.filter_map(|(second, &value)| Some((second, watch.look(at(second), value)?.0))).collect()
    }

    #[test]
    fn a_figure_that_hovers_says_nothing_twice() {
        let values = [0.7, 0.81, 0.79, 0.81, 0.61, 0.82, 0.59, 0.7, 0.8, 0.9];
        assert_eq!(told(&mut watch(0), &values), [(1, true), (6, false), (9, true)]);
    }

    #[test]
    fn a_spike_says_nothing() {
        let values = [0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.5, 0.7, 0.5, 0.5, 0.5, 0.5];
        assert_eq!(told(&mut watch(2), &values), [(5, true), (11, false)]);
    }

    #[test]
    fn one_bound_for_both_is_none_for_equal() {
        let mut watch = Watch::new(Threshold::new(Signal::MemoryUsed, Severity::Degraded, 0.8));
        assert_eq!(told(&mut watch, &[0.8, 0.81, 0.8, 0.79, 0.8]), [(1, true), (3, false)]);
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        assert_eq!(told(&mut watch(0), &[f64::NAN, 0.9, f64::NAN, 0.1]), [(1, true), (3, false)]);
        let bad = Threshold::new(Signal::MemoryUsed, Severity::Degraded, 0.5).clear_below(0.6);
        assert!(
            bad.problem().is_some()
                && Threshold::new(Signal::CpuStall, Severity::Degraded, f64::NAN).problem().is_some()
        );
        assert!(Threshold::usual().iter().all(|threshold| threshold.problem().is_none()));
    }

    #[test]
    fn an_issue_says_since_when() {
        let (mut watch, start) = (watch(3), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        assert_eq!((watch.look(start, 0.9), watch.look(second(2), 0.9)), (None, None));
        assert_eq!(watch.look(second(5), 0.9), Some((true, start)));
    }
}
