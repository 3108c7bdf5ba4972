//! How a pool stands: every tier's numbers at about one moment, for programs and, as a table, for people.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::rows::{Row, TierKind};
use crate::admission::breaker::report::BreakerStatus;
use crate::admission::breaker::word::BreakerState;
use crate::admission::waits_for::WaitsFor;
use crate::sync::Ordering;
use crate::tier::report::Snapshot;

/// How a pool stands: [`Pool::monitor`](crate::Pool::monitor). Its `Display` is a table.
///
/// Made of a pass over the headers of all tiers; stops nobody. At a quiet point the numbers are exact.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// When it was made.
    pub at: Instant,
    /// Each tier: those of memory first, by size, then the overflow, then the others as they were given.
    pub tiers: Vec<TierStatus>,
    /// Refusals that were not the end of their request: it spilled over, or waited. A part of the tiers' `refusals` and `denied`.
    pub absorbed: u64,
    /// Which sessions wait for which tiers (by their places in `tiers`), and which hold slots of them.
    pub waits: WaitsFor,
    /// Nanoseconds that allocations have waited that were served, all together, since the pool was built.
    pub waited_ns: u64,
}

/// How a tier of a pool stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierStatus {
    /// The tier's name.
    pub name: &'static str,
    /// What it holds.
    pub kind: TierKind,
    /// Its slots by state, and its counters.
    pub snapshot: Snapshot,
    /// The size below which it does not shrink.
    pub min_capacity: usize,
    /// How its circuit breaker stands, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// Requests that a quota or the circuit breaker has refused before the tier was asked.
    pub denied: u64,
    /// Requests that it has served in place of a smaller tier that had refused them.
    pub spilled_here: u64,
}

impl TierStatus {
    /// Slots that somebody has: leased, detached, shared, or about to be.
    pub fn held(&self) -> usize {
        let now = &self.snapshot;
        now.leased + now.detached + now.shared + now.claimed
    }
}

impl ResourceStatus {
    pub(super) fn new(rows: &[Arc<Row>], waits: WaitsFor, absorbed: u64, waited_ns: u64) -> Self {
        let tiers = rows.iter().map(|row| TierStatus {
            name: row.tier.name(),
            kind: row.kind,
            snapshot: row.tier.snapshot(),
            min_capacity: row.tier.min_capacity(),
            breaker: row.guard.as_ref().map(|guard| guard.breaker.status()),
            denied: row.denied.load(Ordering::Relaxed),
            spilled_here: row.spilled.load(Ordering::Relaxed),
        });
        ResourceStatus { at: Instant::now(), tiers: tiers.collect(), waits, absorbed, waited_ns }
    }

    /// The tier of that name.
    pub fn tier(&self, name: &str) -> Option<&TierStatus> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// Requests that the system allocator has served.
    pub fn overflowed(&self) -> u64 {
        self.tiers.iter().filter(|tier| tier.kind == TierKind::Overflow).map(|tier| tier.snapshot.allocations).sum()
    }
}

impl fmt::Display for TierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TierKind::Memory { bytes } => write!(f, "{}", Bytes(*bytes)),
            TierKind::Overflow => write!(f, "system"),
            TierKind::Custom { type_name } => write!(f, "{type_name}"),
        }
    }
}

/// A number of bytes in the largest unit that leaves it whole.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB"];
        let (mut bytes, mut unit) = (self.0, 0);
        while bytes > 0 && bytes % 1024 == 0 && unit + 1 < units.len() {
            bytes /= 1024;
            unit += 1;
        }
        write!(f, "{bytes} {}", units[unit])
    }
}

/// A line a tier; then what concerns all of them.
impl fmt::Display for ResourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "tier",
            "holds",
            "slots",
            "free",
            "kept",
            "held",
            "use",
            "waiting",
            "served",
            "at hand",
            "refused",
            "spilled here",
        ];
        let rows: Vec<[String; 12]> = self.tiers.iter().map(line).collect();
        let width = |column: usize| {
            let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            widest.max(header[column].len())
        };
        let widths: [usize; 12] = std::array::from_fn(width);
        let print = |f: &mut fmt::Formatter<'_>, row: &[&str; 12]| {
            for (column, (text, width)) in row.iter().zip(widths).enumerate() {
                match column {
                    0 => write!(f, "{text:<width$}")?,
                    1 => write!(f, "  {text:<width$}")?,
                    _ => write!(f, "  {text:>width$}")?,
                }
            }
            writeln!(f)
        };
        print(f, &header)?;
        for row in &rows {
            print(f, &row.each_ref().map(String::as_str))?;
        }
        let closed: Vec<_> = self.tiers.iter().filter(|tier| tier.snapshot.closed).map(|tier| tier.name).collect();
        if !closed.is_empty() {
            writeln!(f, "closed: {}", closed.join(", "))?;
        }
        for tier in &self.tiers {
            if let Some(breaker) = tier.breaker.as_ref().filter(|breaker| breaker.state != BreakerState::Closed) {
                writeln!(f, "the circuit breaker of {} is {}", tier.name, breaker.state)?;
            }
        }
        for edge in self.waits.edges() {
            let tier = self.tiers.get(edge.tier).map_or("?", |tier| tier.name);
            let (waiter, holder) = (edge.waiter, edge.holder);
            writeln!(
                f,
                "session {waiter} waits for {tier} at {}; session {holder} took one at {}",
                edge.waits_at, edge.held_at
            )?;
        }
        let out: usize = self.tiers.iter().map(|tier| tier.snapshot.quarantined).sum();
        if out > 0 {
            writeln!(f, "{out} slots are out of service until a factory replaces their values")?;
        }
        write!(f, "{} refusals were made good by spilling over or waiting", self.absorbed)
    }
}

fn line(tier: &TierStatus) -> [String; 12] {
    let now = &tier.snapshot;
    let slots = if now.slots() == now.capacity {
        now.capacity.to_string()
    } else {
        format!("{} of {}", now.slots(), now.capacity)
    };
    [
        tier.name.to_owned(),
        tier.kind.to_string(),
        slots,
        now.free.to_string(),
        now.reserved.to_string(),
        tier.held().to_string(),
        format!("{:.0} %", now.utilization() * 100.0),
        now.waiting.to_string(),
        now.allocations.to_string(),
        if now.allocations > 0 { format!("{:.1} %", now.hit_rate() * 100.0) } else { "-".to_owned() },
        (now.refusals + tier.denied).to_string(),
        tier.spilled_here.to_string(),
    ]
}
