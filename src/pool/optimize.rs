//! Growing and shrinking the tiers that may, by what one is told went on.
//!
//! A tier grows at once when it is short: if it has refused anybody, somebody waits, or nine tenths of it are held; it shrinks when no
//! more than four tenths have been held for [`PATIENCE`] calls in a row. Either way it goes to the size at which three quarters are held (a
//! tier that refused, at least a quarter up). Three quarters lie far from both limits, so told the same again and again, it comes to
//! rest: after a step down or up to that size nothing is due any more, and a tier that goes on refusing only ever grows, up to its
//! capacity. The gap between the limits is the hysteresis; the patience keeps a pause in the load from costing a tier its slots.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Inner;
use super::metrics::{PoolMetrics, TierMetrics};
use super::rows::{Row, TierKind};

/// A larger share of held slots is too tight.
const TIGHT: f64 = 0.9;
/// A smaller share is too roomy.
const ROOMY: f64 = 0.4;
/// The share at which a tier is sized.
const GOAL: f64 = 0.75;
/// So many calls in a row must find a tier too roomy before it shrinks.
const PATIENCE: u32 = 3;
/// Decisions that are kept.
const KEPT: usize = 256;

/// What [`Pool::optimize`](crate::Pool::optimize) did to a tier, and why. Its `Display` is one line for a log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The tier's name.
    pub tier: &'static str,
    /// Slots that it had.
    pub from: usize,
    /// Slots that it was to have.
    pub to: usize,
    /// Slots that it has: fewer were built if the factory or the system failed, fewer removed if they were held.
    pub reached: usize,
    /// Why.
    pub reason: Reason,
    /// Why a tier that was to grow did not.
    pub failure: Option<String>,
}

/// Why a tier was resized.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// It had refused so many allocations.
    Refused {
        /// How many.
        refusals: u64,
    },
    /// So many waited for a slot.
    Awaited {
        /// How many.
        waiting: usize,
    },
    /// Too large a part of it was held.
    Tight {
        /// Slots that were held.
        held: usize,
    },
    /// Too small a part of it was held, several times in a row.
    Roomy {
        /// Slots that were held.
        held: usize,
        /// How often in a row.
        calls: u32,
    },
    /// A former decision was undone.
    Undone,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { tier, from, to, reached, reason, failure } = self;
        write!(f, "tier {tier:?}: {from} slots to {to}, since ")?;
        match reason {
            Reason::Refused { refusals } => write!(f, "it has refused {refusals} allocations")?,
            Reason::Awaited { waiting } => write!(f, "{waiting} wait for a slot")?,
            Reason::Tight { held } => write!(f, "{held} are held")?,
            Reason::Roomy { held, calls } => write!(f, "no more than {held} were held {calls} times in a row")?,
            Reason::Undone => write!(f, "a former decision is undone")?,
        }
        if reached != to {
            write!(f, "; it has {reached}")?;
        }
        match failure {
            Some(failure) => write!(f, ": {failure}"),
            None => Ok(()),
        }
    }
}

/// Whom decisions go to.
pub(super) type DecisionSink = Box<dyn Fn(&Decision) + Send + Sync>;

/// What is remembered from call to call.
pub(super) struct Optimizer {
    notes: Mutex<Notes>,
    sink: Option<DecisionSink>,
}

struct Notes {
    /// For each row, how often in a row it was too roomy, and the most that was held then.
    roomy: Vec<(u32, usize)>,
    decisions: VecDeque<Decision>,
}

impl Optimizer {
    pub(super) fn new(rows: usize, sink: Option<DecisionSink>) -> Self {
        Optimizer { notes: Mutex::new(Notes { roomy: vec![(0, 0); rows], decisions: VecDeque::new() }), sink }
    }

    /// Keeps and tells a decision.
    fn log(&self, decision: Decision) -> Decision {
        {
            // A panic cannot leave the list half changed.
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.decisions.len() == KEPT {
                notes.decisions.pop_front();
            }
            notes.decisions.push_back(decision.clone());
        }
        if let Some(sink) = &self.sink {
            sink(&decision);
        }
        decision
    }

    /// The last decisions, the oldest first.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.decisions.iter().cloned().collect()
    }

    /// What is to be done with a row of `slots` slots, if anything.
    fn judge(&self, row: usize, slots: usize, bounds: (usize, usize), told: &TierMetrics) -> Option<(usize, Reason)> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&mut notes.roomy[row], slots, bounds, told)
    }
}

/// The rule in the module's header. `roomy` is what it remembers of the tier.
fn judge(
    roomy: &mut (u32, usize),
    slots: usize,
    (min, max): (usize, usize),
    told: &TierMetrics,
) -> Option<(usize, Reason)> {
    let sized = |held: usize| (held as f64 / GOAL).ceil() as usize;
    let short = if told.refusals > 0 {
        Some(Reason::Refused { refusals: told.refusals })
    } else if told.waiting > 0 {
        Some(Reason::Awaited { waiting: told.waiting })
    } else if told.held as f64 > slots as f64 * TIGHT {
        Some(Reason::Tight { held: told.held })
    } else {
        None
    };
    if let Some(reason) = short {
        *roomy = (0, 0);
        let quarter = match reason {
            Reason::Tight { .. } => 0,
            _ => slots + (slots / 4).max(1),
        };
        let wanted = sized(told.held + told.waiting).max(quarter).clamp(min, max);
        return (wanted > slots).then_some((wanted, reason));
    }
    if told.held as f64 > slots as f64 * ROOMY {
        *roomy = (0, 0);
        return None;
    }
    let wanted = sized(told.held.max(roomy.1)).max(1).clamp(min, max);
    *roomy = (roomy.0.saturating_add(1), roomy.1.max(told.held));
    if roomy.0 < PATIENCE || wanted >= slots {
        return None;
    }
    let (calls, held) = std::mem::take(roomy);
    Some((wanted, Reason::Roomy { held, calls }))
}

impl Inner {
    /// Acts on what it is told of each tier.
    pub(super) fn optimize(&self, metrics: &PoolMetrics) -> Vec<Decision> {
        let growable = |row: &Row| row.kind != TierKind::Overflow && row.tier.min_capacity() < row.tier.capacity();
        let rows = self.rows.iter().enumerate().filter(|(_, row)| growable(row));
        let decide = |(number, row): (usize, &Arc<Row>)| {
            let told = metrics.tiers.iter().find(|tier| tier.name == row.tier.name())?;
            let (slots, bounds) = (row.tier.snapshot().slots(), (row.tier.min_capacity(), row.tier.capacity()));
            let (to, reason) = self.optimizer.judge(number, slots, bounds, told)?;
            Some(self.resize(row, slots, to, reason))
        };
        rows.filter_map(decide).collect()
    }

    /// Gives the tier of a decision the size back that it had before.
    pub(super) fn undo(&self, decision: &Decision) -> Option<Decision> {
        let row = self.rows.iter().find(|row| row.tier.name() == decision.tier)?;
        let (slots, to) = (row.tier.snapshot().slots(), decision.from);
        (slots != to).then(|| self.resize(row, slots, to, Reason::Undone))
    }

    fn resize(&self, row: &Row, from: usize, to: usize, reason: Reason) -> Decision {
        let failure = if to > from {
            row.tier.grow_to(to).err().map(|why| why.to_string())
        } else {
            row.tier.shrink_to(to);
            None
        };
        let (tier, reached) = (row.tier.name(), row.tier.snapshot().slots());
        self.optimizer.log(Decision { tier, from, to, reached, reason, failure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(held: usize, refusals: u64, waiting: usize) -> TierMetrics {
        TierMetrics { held, refusals, waiting, ..TierMetrics::new("t") }
    }

    /// Told the same for ever, from any size: it comes to rest, and moves in one direction only.
    #[test]
    fn constant_metrics_never_make_it_oscillate() {
        for (min, max) in [(1, 1000), (10, 100), (0, 7)] {
            for start in [min, (min + max) / 2, max] {
                for told in [0, 1, 5, 37, 80, 100, 999]
                    .into_iter()
                    .flat_map(|held| [told(held, 0, 0), told(held, 3, 0), told(held, 0, 2)])
                {
                    let (mut slots, mut roomy, mut moves) = (start, (0, 0), Vec::new());
                    for _ in 0..200 {
                        if let Some((to, _)) = judge(&mut roomy, slots, (min, max), &told) {
                            assert!((min..=max).contains(&to) && to != slots);
                            moves.push(to > slots);
                            slots = to;
                        }
                    }
                    assert!(
                        moves.iter().all(|up| *up == moves[0]),
                        "{moves:?} from {start} in {min}..={max}: {told:?}"
                    );
                    let settled = judge(&mut roomy, slots, (min, max), &told);
                    assert_eq!(settled, None, "from {start} in {min}..={max}: {told:?}");
                }
            }
        }
    }

    #[test]
    fn it_grows_at_once_and_shrinks_after_a_while() {
        let (mut roomy, bounds) = ((0, 0), (10, 1000));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(91, 0, 0)), Some((122, Reason::Tight { held: 91 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(100, 1, 0)), Some((134, Reason::Refused { refusals: 1 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(50, 1, 0)), Some((125, Reason::Refused { refusals: 1 })));
        assert_eq!(judge(&mut roomy, 100, bounds, &told(90, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(30, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(6, 0, 0)), None);
        assert_eq!(judge(&mut roomy, 100, bounds, &told(3, 0, 0)), Some((40, Reason::Roomy { held: 30, calls: 3 })));
        for held in [3, 3, 60, 3, 3] {
            assert_eq!(judge(&mut roomy, 100, bounds, &told(held, 0, 0)), None, "not three times in a row");
        }
    }
}
