//! Moving what may be moved by what one is told went on: the [`size`] of tiers that may grow and shrink, and what those keep back, in the
//! [`reserve`], that may do more or less of it; and what is given back while memory is short, in [`pressure`]. Each decision is kept, told,
//! and can be undone.

mod pressure;
mod reserve;
mod size;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use self::reserve::Range;
use super::Inner;
use super::metrics::{PoolMetrics, TierMetrics};
use super::rows::{Row, TierKind};
use crate::admission::priority::Watermarks;
use crate::tier::values::rethrow;

/// So many calls in a row must find too much of something before there is less of it.
const PATIENCE: u32 = 3;
/// Decisions that are kept.
const KEPT: usize = 256;

/// What [`Pool::optimize`](crate::Pool::optimize) did to a tier, and why. Its `Display` is one line for a log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The tier's name.
    pub tier: &'static str,
    /// What was changed of it.
    pub change: Change,
    /// Why.
    pub reason: Reason,
    /// Why a tier that was to grow did not.
    pub failure: Option<String>,
}

/// What a [`Decision`] changes of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// How many slots it has.
    Slots {
        /// Those that it had.
        from: usize,
        /// Those that it was to have.
        to: usize,
        /// Those that it has: fewer were built if the factory or the system failed, fewer removed if they were held.
        reached: usize,
    },
    /// How many it keeps back for urgent requests.
    Watermarks {
        /// As they were.
        from: Watermarks,
        /// As they are.
        to: Watermarks,
    },
}

/// Why a tier was changed.
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
    /// So many urgent requests were refused.
    Starved {
        /// How many.
        refusals: u64,
    },
    /// So many others were refused, and several times in a row no urgent one.
    Idle {
        /// How many.
        refusals: u64,
        /// How often in a row.
        calls: u32,
    },
    /// The machine's memory, or the container's, is short; so many were held.
    Pressure {
        /// Slots that were held.
        held: usize,
    },
    /// It is short no more.
    Recovered,
    /// A former decision was undone.
    Undone,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { tier, change, reason, failure } = self;
        match change {
            Change::Slots { from, to, .. } => write!(f, "tier {tier:?}: {from} slots to {to}, since ")?,
            Change::Watermarks { from, to } => write!(f, "tier {tier:?} keeps back {from}, from now on {to}, since ")?,
        }
        match reason {
            Reason::Refused { refusals } => write!(f, "it has refused {refusals} allocations")?,
            Reason::Awaited { waiting } => write!(f, "{waiting} wait for a slot")?,
            Reason::Tight { held } => write!(f, "{held} are held")?,
            Reason::Roomy { held, calls } => write!(f, "no more than {held} were held {calls} times in a row")?,
            Reason::Starved { refusals } => write!(f, "{refusals} urgent requests were refused")?,
            Reason::Idle { refusals, calls } => {
                write!(f, "{refusals} others were refused, and {calls} times in a row no urgent one")?;
            }
            Reason::Pressure { held } => write!(f, "memory is short and {held} are held")?,
            Reason::Recovered => write!(f, "memory is short no more")?,
            Reason::Undone => write!(f, "a former decision is undone")?,
        }
        if let Change::Slots { to, reached, .. } = change
            && reached != to
        {
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
    /// For each row, between which bounds its watermarks may move, if they may.
    ranges: Vec<Option<Range>>,
    /// While memory is short, the watermarks that each row had before.
    pressed: Option<Box<[Option<Watermarks>]>>,
    decisions: VecDeque<Decision>,
}

impl Optimizer {
    pub(super) fn new(ranges: Vec<Option<Range>>, sink: Option<DecisionSink>) -> Self {
        let roomy = vec![(0, 0); ranges.len()];
        Optimizer { notes: Mutex::new(Notes { roomy, ranges, pressed: None, decisions: VecDeque::new() }), sink }
    }

    /// A panic cannot leave the notes half changed.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody sets the watermarks of a row: they are the least from now on that it is moved to.
    pub(super) fn restart(&self, row: usize, least: Watermarks) {
        let mut notes = self.notes();
        if let Some(before) = &mut notes.pressed {
            before[row] = None;
        }
        if let Some(range) = &mut notes.ranges[row] {
            range.restart(least);
        }
    }

    /// Keeps and tells a decision.
    fn log(&self, decision: Decision) -> Decision {
        {
            let decisions = &mut self.notes().decisions;
            if decisions.len() == KEPT {
                decisions.pop_front();
            }
            decisions.push_back(decision.clone());
        }
        if let Some(sink) = &self.sink {
            sink(&decision);
        }
        decision
    }

    /// The last decisions, the oldest first.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        self.notes().decisions.iter().cloned().collect()
    }
}

impl Inner {
    /// Acts on what it is told of each tier.
    pub(super) fn optimize(&self, metrics: &PoolMetrics) -> Vec<Decision> {
        let decide = |(number, row): (usize, &Arc<Row>)| {
            let told = metrics.tiers.iter().find(|tier| tier.name == row.tier.name())?;
            Some([self.move_size(number, row, told), self.move_reserve(number, row, told)])
        };
        self.rows.iter().enumerate().filter_map(decide).flatten().flatten().collect()
    }

    fn move_size(&self, number: usize, row: &Row, told: &TierMetrics) -> Option<Decision> {
        let (slots, bounds) = (row.tier.snapshot().slots(), (row.tier.min_capacity(), row.tier.capacity()));
        if row.kind == TierKind::Overflow || bounds.0 == bounds.1 {
            return None;
        }
        let (to, reason) = {
            let mut notes = self.optimizer.notes();
            let is_short = notes.pressed.is_some();
            size::judge(&mut notes.roomy[number], slots, bounds, told).filter(|(to, _)| !is_short || *to < slots)?
        };
        Some(self.resize(row, slots, to, reason))
    }

    fn move_reserve(&self, number: usize, row: &Row, told: &TierMetrics) -> Option<Decision> {
        let moved = {
            let mut notes = self.optimizer.notes();
            // They are at their most.
            if notes.pressed.is_some() {
                return None;
            }
            notes.ranges[number].as_mut()?.judge(told)
        };
        moved.map(|(from, to, reason)| self.keep_back(row, from, to, reason))
    }

    /// Gives the tier of a decision back what it had before.
    pub(super) fn undo(&self, decision: &Decision) -> Option<Decision> {
        let number = self.rows.iter().position(|row| row.tier.name() == decision.tier)?;
        let row = &self.rows[number];
        match decision.change {
            Change::Slots { from: to, .. } => {
                let slots = row.tier.snapshot().slots();
                (slots != to).then(|| self.resize(row, slots, to, Reason::Undone))
            }
            Change::Watermarks { from: to, .. } => {
                let undone = self.optimizer.notes().ranges[number].as_mut()?.undo(to);
                undone.map(|from| self.keep_back(row, from, to, Reason::Undone))
            }
        }
    }

    fn resize(&self, row: &Row, from: usize, to: usize, reason: Reason) -> Decision {
        let failure = if to > from {
            row.tier.grow_to(to).err().map(|why| why.to_string())
        } else {
            row.tier.shrink_to(to);
            None
        };
        let change = Change::Slots { from, to, reached: row.tier.snapshot().slots() };
        self.optimizer.log(Decision { tier: row.tier.name(), change, reason, failure })
    }

    fn keep_back(&self, row: &Row, from: Watermarks, to: Watermarks, reason: Reason) -> Decision {
        let panic = row.keep_back(to).err();
        let change = Change::Watermarks { from, to };
        let decision = self.optimizer.log(Decision { tier: row.tier.name(), change, reason, failure: None });
        rethrow(panic);
        decision
    }
}
