//! What a pool does while memory is short: tiers give back what is idle, urgent requests get what is left, and nothing grows.
//!
//! A tier that may shrink goes to the size at which three quarters are held; watermarks that may move go to their most. It can be said again and
//! again while the pressure lasts: what has become idle since is given back too. Afterwards watermarks go back to where they were; sizes come
//! back as they are wanted.

use super::{Decision, Reason, size};
use crate::pool::Inner;
use crate::pool::rows::Row;

impl Inner {
    /// Memory is short.
    pub(in crate::pool) fn relieve(&self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for row in &self.rows {
            decisions.extend(self.give_back(row));
        }
        for (number, row) in self.rows.iter().enumerate() {
            let held = row.tier.snapshot().held();
            let moved = {
                let mut notes = self.optimizer.notes();
                let rows = notes.ranges.len();
                let moved = notes.ranges[number].as_mut().and_then(|range| range.tighten());
                let before = notes.pressed.get_or_insert_with(|| vec![None; rows].into());
                if let Some((from, _)) = moved {
                    before[number].get_or_insert(from);
                }
                moved
            };
            decisions.extend(moved.map(|(from, to)| self.keep_back(row, from, to, Reason::Pressure { held })));
        }
        decisions
    }

    fn give_back(&self, row: &Row) -> Option<Decision> {
        let (now, min) = (row.tier.snapshot(), row.tier.min_capacity());
        let (slots, held) = (now.slots(), now.held());
        let to = size::sized(held).max(min);
        (row.takes_memory() && to < slots).then(|| self.resize(row, slots, to, Reason::Pressure { held }))
    }

    /// It is short no more.
    pub(in crate::pool) fn recover(&self) -> Vec<Decision> {
        let Some(before) = self.optimizer.notes().pressed.take() else { return Vec::new() };
        let rows = self.rows.iter().enumerate().zip(&before);
        let back = rows.filter_map(|((number, row), before)| {
            let to = (*before)?;
            let from = self.optimizer.notes().ranges[number].as_mut()?.undo(to)?;
            Some(self.keep_back(row, from, to, Reason::Recovered))
        });
        back.collect()
    }
}
