//! How much a tier is to keep back for urgent requests: its watermarks, between bounds, in [`STEPS`] steps.
//!
//! A step up at once when High or Critical requests were refused. A step down when in [`PATIENCE`] calls in a row none of them was, but
//! others were: slots lie idle that somebody wants. If that is found wanting, the next step down takes twice the patience: so on a load
//! that does not change the moves become ever rarer, and told the same again and again it comes to rest.

use super::{PATIENCE, Reason};
use crate::admission::priority::Watermarks;
use crate::pool::metrics::TierMetrics;

/// Steps from the least to the most.
const STEPS: usize = 4;

/// The bounds of a tier's watermarks, and where between them they are.
#[derive(Debug, Clone)]
pub(in crate::pool) struct Range {
    least: Watermarks,
    most: Watermarks,
    step: usize,
    /// Whether the last step was one down.
    lowered: bool,
    /// Calls in a row that the next step down takes.
    patience: u32,
    /// How many there were.
    idle: u32,
}

impl Range {
    /// At its least.
    pub(in crate::pool) fn new(least: Watermarks, most: Watermarks) -> Self {
        Range { least, most, step: 0, lowered: false, patience: PATIENCE, idle: 0 }
    }

    /// Somebody has set other watermarks: they are the least from now on.
    pub(super) fn restart(&mut self, least: Watermarks) {
        let Watermarks { min, low, high } = self.most;
        let most = Watermarks { min: min.max(least.min), low: low.max(least.low), high: high.max(least.high) };
        *self = Range::new(least, most);
    }

    /// The watermarks of a step. As those at both ends do, they stand in their order.
    fn at(&self, step: usize) -> Watermarks {
        let between = |of: fn(Watermarks) -> usize| (of(self.least) * (STEPS - step) + of(self.most) * step) / STEPS;
        Watermarks { min: between(|it| it.min), low: between(|it| it.low), high: between(|it| it.high) }
    }

    /// Goes back to what it had before a decision: from what, if that is something else.
    pub(super) fn undo(&mut self, to: Watermarks) -> Option<Watermarks> {
        let from = self.at(self.step);
        let step = (0..=STEPS).find(|&step| self.at(step) == to)?;
        *self = Range { step, ..Range::new(self.least, self.most) };
        (from != to).then_some(from)
    }

    /// Goes to its most: from what to what, if that is something else.
    pub(super) fn tighten(&mut self) -> Option<(Watermarks, Watermarks)> {
        let from = self.at(self.step);
        self.step = STEPS;
        let to = self.at(self.step);
        (from != to).then_some((from, to))
    }

    /// The rule in the module's header: from what to what it has moved, and why.
    pub(super) fn judge(&mut self, told: &TierMetrics) -> Option<(Watermarks, Watermarks, Reason)> {
        let from = self.at(self.step);
        let reason = self.move_by(told)?;
        let to = self.at(self.step);
        (from != to).then_some((from, to, reason))
    }

    fn move_by(&mut self, told: &TierMetrics) -> Option<Reason> {
        if told.urgent_refusals > 0 {
            if std::mem::take(&mut self.lowered) {
                self.patience = self.patience.saturating_mul(2);
            }
            self.idle = 0;
            self.step = (self.step + 1).min(STEPS);
            return Some(Reason::Starved { refusals: told.urgent_refusals });
        }
        if told.ordinary_refusals == 0 || self.step == 0 {
            self.idle = 0;
            return None;
        }
        self.idle += 1;
        if self.idle < self.patience {
            return None;
        }
        (self.step, self.lowered) = (self.step - 1, true);
        Some(Reason::Idle { refusals: told.ordinary_refusals, calls: std::mem::take(&mut self.idle) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Watermarks = Watermarks { min: 0, low: 1, high: 2 };
    const MOST: Watermarks = Watermarks { min: 4, low: 9, high: 10 };

    fn told(urgent_refusals: u64, ordinary_refusals: u64) -> TierMetrics {
        TierMetrics { urgent_refusals, ordinary_refusals, ..TierMetrics::new("t") }
    }

    #[test]
    fn it_goes_up_at_once_and_down_after_a_while_within_its_bounds() {
        let mut range = Range::new(LEAST, MOST);
        for high in [4, 6, 8, 10] {
            let (_, to, reason) = range.judge(&told(2, 5)).unwrap();
            assert_eq!((to.high, reason), (high, Reason::Starved { refusals: 2 }));
            assert_eq!(to.problem(11), None);
        }
        assert_eq!(range.judge(&told(1, 0)), None, "it is at its most");
        for high in [8, 6, 4, 2] {
            assert_eq!((range.judge(&told(0, 5)), range.judge(&told(0, 5))), (None, None));
            let (from, to, reason) = range.judge(&told(0, 5)).unwrap();
            assert_eq!((from.high, to.high, reason), (high + 2, high, Reason::Idle { refusals: 5, calls: 3 }));
        }
        assert_eq!((0..10).find_map(|_| range.judge(&told(0, 5))), None, "it is at its least");
    }

    /// A load to which one step is too little and the next is enough: what is tried in vain is tried ever more rarely.
    #[test]
    fn moves_become_rarer_on_a_load_that_does_not_change() {
        let mut range = Range::new(LEAST, MOST);
        let enough = 6;
        let mut moves = Vec::new();
        for call in 0..10_000 {
            let starved = u64::from(range.at(range.step).high < enough);
            if range.judge(&told(starved, 1)).is_some() {
                moves.push(call);
            }
        }
        assert!(moves.len() < 2 * 14, "2¹⁴ calls and more: {moves:?}");
        assert!(range.at(range.step).high + 2 >= enough);
    }

    /// Nobody wants the slots that lie idle: they may as well.
    #[test]
    fn it_rests_while_nobody_is_refused() {
        let mut range = Range::new(LEAST, MOST);
        range.judge(&told(1, 0)).unwrap();
        assert_eq!((0..100).find_map(|_| range.judge(&told(0, 0))), None);
    }

    #[test]
    fn what_is_undone_starts_anew_from_there() {
        let mut range = Range::new(LEAST, MOST);
        let (from, to, _) = range.judge(&told(1, 0)).unwrap();
        assert_eq!(range.undo(from), Some(to));
        assert_eq!(range.undo(from), None, "it is there");
        assert_eq!(range.undo(Watermarks { min: 3, low: 3, high: 3 }), None, "it never was");
        range.restart(Watermarks { min: 5, low: 5, high: 5 });
        assert_eq!(range.judge(&told(1, 0)).unwrap().1, Watermarks { min: 5, low: 6, high: 6 });
    }
}
