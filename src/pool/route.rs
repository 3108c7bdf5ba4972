//! Where a request goes: the smallest tier that fits, or the tier of that name, and what comes after it.
//!
//! A pool's rows stand in one order that never changes: memory tiers by size, then the overflow if there is one, CPU tiers, disk tiers by size,
//! then all others as they were given. So the smallest that fits is found by a binary search over some numbers, and the next larger
//! stand behind it.

use std::ops::Range;
use std::sync::Arc;

use super::error::{RequestError, ShortName};
use super::request::{Spill, What};
use super::rows::Row;

/// How rows are found. Built with the pool, never changed.
pub(super) struct Routes {
    /// The first rows.
    memory: Run,
    cpu: Run,
    disk: Run,
    /// The row of memory that comes from the system.
    overflow: Option<usize>,
    /// The names of all others, in alphabetical order, and their rows.
    names: Box<[(&'static str, usize)]>,
    /// For requests that do not say.
    spill: Spill,
}

/// The rows of all tiers of one kind, one after the other.
pub(super) struct Run {
    first: usize,
    /// Bytes of a slot of each, ascending; zero where they have none.
    sizes: Box<[u64]>,
}

impl Run {
    pub(super) fn new(first: usize, sizes: impl Iterator<Item = u64>) -> Self {
        Run { first, sizes: sizes.collect() }
    }

    /// How many have fewer bytes.
    #[inline(always)]
    fn place(&self, bytes: u64) -> usize {
        self.sizes.partition_point(|&size| size < bytes)
    }

    /// The first with so many bytes.
    fn fitting(&self, bytes: u64) -> Option<usize> {
        let at = self.place(bytes);
        (at < self.sizes.len()).then_some(self.first + at)
    }

    /// Bytes of a slot, if it is a row of these.
    #[inline(always)]
    fn size(&self, row: usize) -> Option<u64> {
        self.sizes.get(row.wrapping_sub(self.first)).copied()
    }

    /// The largest, and its row.
    fn last(&self) -> Option<(usize, u64)> {
        self.sizes.last().map(|&size| (self.first + self.sizes.len() - 1, size))
    }

    /// The rows behind it, if it is a row of these.
    fn beyond(&self, row: usize) -> Option<Range<usize>> {
        self.size(row).map(|_| row + 1..self.first + self.sizes.len())
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// The row to be asked first, and waited for.
    pub(super) row: usize,
    /// Bytes to be shown, of memory or on disk; `u64::MAX` for all.
    pub(super) bytes: u64,
    pub(super) spill: Spill,
}

impl Routes {
    pub(super) fn new(
        memory: Run,
        overflow: Option<usize>,
        [cpu, disk]: [Run; 2],
        rows: &[Arc<Row>],
        spill: Spill,
    ) -> Self {
        let named = rows.iter().enumerate().filter(|(row, _)| Some(*row) != overflow);
        let mut names: Box<[_]> = named.map(|(row, it)| (it.tier.name(), row)).collect();
        names.sort_unstable();
        Routes { memory, cpu, disk, overflow, names, spill }
    }

    /// Where it goes; `None` if nowhere, for which [`why_not`](Self::why_not) has the reason.
    #[inline(always)]
    pub(super) fn find(&self, what: What, spill: Option<Spill>) -> Option<Route> {
        let route = match what {
            What::Bytes(bytes) => {
                let (spill, bytes) = (spill.unwrap_or(self.spill), bytes as u64);
                // They are the first rows: no offset to be added.
                let row = self.memory.place(bytes);
                match self.overflow {
                    _ if row < self.memory.sizes.len() => Route { row, bytes, spill },
                    Some(overflow) if spill == Spill::System => Route { row: overflow, bytes, spill },
                    _ => return None,
                }
            }
            What::Cpu => return Some(Route { row: self.cpu.fitting(0)?, bytes: 0, spill: self.within(spill) }),
            What::Disk(bytes) => {
                return Some(Route { row: self.disk.fitting(bytes)?, bytes, spill: self.within(spill) });
            }
            What::Named(name) => {
                let row = self.names[self.place(name).ok()?].1;
                let bytes = self.memory.size(row).or_else(|| self.disk.size(row)).unwrap_or(u64::MAX);
                Route { row, bytes, spill: spill.unwrap_or(Spill::Refuse) }
            }
        };
        (route.spill != Spill::System || self.overflow.is_some()).then_some(route)
    }

    /// The same for what the system has none of.
    fn within(&self, spill: Option<Spill>) -> Spill {
        match spill.unwrap_or(self.spill) {
            Spill::System => Spill::Refuse,
            spill => spill,
        }
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
        let name = |row: usize| rows[row].tier.name();
        match (what, self.memory.last(), self.disk.last()) {
            (What::Named(name), ..) if self.place(name).is_err() => RequestError::NoTier { name: ShortName::new(name) },
            (What::Bytes(_), None, _) => RequestError::NoMemoryTier,
            (What::Bytes(wanted), Some((row, largest)), _)
                if largest < wanted as u64 && spill != Some(Spill::System) =>
            {
                RequestError::TooLarge { wanted, largest: largest as usize, tier: name(row) }
            }
            (What::Cpu, ..) => RequestError::NoCpuTier,
            (What::Disk(_), _, None) => RequestError::NoDiskTier,
            (What::Disk(wanted), _, Some((row, largest))) => {
                RequestError::ExtentTooLarge { wanted, largest, tier: name(row) }
            }
            _ => RequestError::NoOverflow,
        }
    }

    /// The rows to be asked when a route's first one refuses, in this order.
    pub(super) fn beyond(&self, route: &Route) -> Range<usize> {
        match (route.spill, self.overflow) {
            (Spill::NextLarger, _) => {
                let mut runs = [&self.memory, &self.cpu, &self.disk].into_iter();
                runs.find_map(|run| run.beyond(route.row)).unwrap_or(0..0)
            }
            (Spill::System, Some(overflow)) if self.memory.size(route.row).is_some() => overflow..overflow + 1,
            (Spill::Refuse | Spill::System, _) => 0..0,
        }
    }
}
