//! Where a request goes: the smallest tier that fits, or the tier of that name, and what comes after it.
//!
//! A pool's rows stand in one order that never changes: memory tiers by size, then the overflow if there is one, then all others
//! as they were given. So the smallest that fits is found by a binary search over some numbers, and the next larger stand behind it.

use std::ops::Range;
use std::sync::Arc;

use super::error::{RequestError, ShortName};
use super::request::{Spill, What};
use super::rows::Row;

/// How rows are found. Built with the pool, never changed.
pub(super) struct Routes {
    /// Bytes of a slot of each memory tier, ascending: those of the first rows.
    sizes: Box<[usize]>,
    /// The row of memory that comes from the system.
    overflow: Option<usize>,
    /// The names of all others, in alphabetical order, and their rows.
    names: Box<[(&'static str, usize)]>,
    /// For requests that do not say.
    spill: Spill,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// The row to be asked first, and waited for.
    pub(super) row: usize,
    /// Bytes to be shown, of memory; `usize::MAX` for all.
    pub(super) bytes: usize,
    pub(super) spill: Spill,
}

impl Routes {
    pub(super) fn new(sizes: Box<[usize]>, overflow: Option<usize>, rows: &[Arc<Row>], spill: Spill) -> Self {
        let named = rows.iter().enumerate().filter(|(row, _)| Some(*row) != overflow);
        let mut names: Box<[_]> = named.map(|(row, it)| (it.tier.name(), row)).collect();
        names.sort_unstable();
        Routes { sizes, overflow, names, spill }
    }

    /// Where it goes; `None` if nowhere, for which [`why_not`](Self::why_not) has the reason.
    #[inline(always)]
    pub(super) fn find(&self, what: What, spill: Option<Spill>) -> Option<Route> {
        let route = match what {
            What::Bytes(bytes) => {
                let spill = spill.unwrap_or(self.spill);
                let row = self.sizes.partition_point(|&size| size < bytes);
                match self.overflow {
                    _ if row < self.sizes.len() => Route { row, bytes, spill },
                    Some(overflow) if spill == Spill::System => Route { row: overflow, bytes, spill },
                    _ => return None,
                }
            }
            What::Named(name) => {
                let row = self.names[self.place(name).ok()?].1;
                let bytes = self.sizes.get(row).copied().unwrap_or(usize::MAX);
                Route { row, bytes, spill: spill.unwrap_or(Spill::Refuse) }
            }
        };
        (route.spill != Spill::System || self.overflow.is_some()).then_some(route)
    }

    /// What requests by size do that do not say.
    pub(super) fn spill(&self) -> Spill {
        self.spill
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.names.binary_search_by_key(&name, |(name, _)| name)
    }

    /// Why a request goes nowhere.
    #[cold]
    pub(super) fn why_not(&self, what: What, spill: Option<Spill>, rows: &[Arc<Row>]) -> RequestError {
        match (what, self.sizes.last()) {
            (What::Named(name), _) if self.place(name).is_err() => RequestError::NoTier { name: ShortName::new(name) },
            (What::Bytes(_), None) => RequestError::NoMemoryTier,
            (What::Bytes(wanted), Some(&largest)) if largest < wanted && spill != Some(Spill::System) => {
                RequestError::TooLarge { wanted, largest, tier: rows[self.sizes.len() - 1].tier.name() }
            }
            _ => RequestError::NoOverflow,
        }
    }

    /// The rows to be asked when a route's first one refuses, in this order.
    pub(super) fn beyond(&self, route: &Route) -> Range<usize> {
        match (route.spill, self.overflow) {
            (Spill::NextLarger, _) => (route.row + 1).min(self.sizes.len())..self.sizes.len(),
            (Spill::System, Some(overflow)) if route.row < self.sizes.len() => overflow..overflow + 1,
            (Spill::Refuse | Spill::System, _) => 0..0,
        }
    }
}
