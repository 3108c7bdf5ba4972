//! How a pool stands: every tier's numbers at about one moment, for programs and, as a table, for people.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reasons::Refusals;
use super::rows::{Row, TierKind};
use super::uses::{self, LabelUse};
use super::waits::{Tally, Waits};
use crate::admission::breaker::report::BreakerStatus;
use crate::admission::breaker::word::BreakerState;
use crate::admission::priority::ByPriority;
use crate::admission::quota::Accounts;
use crate::admission::tenants::{Limit, Tenant};
use crate::admission::waits_for::WaitsFor;
use crate::resource::backing::{HugePages, MemoryStatus};
use crate::resource::region::Region;
use crate::sync::{AtomicU64, Ordering};
use crate::tier::latency::{Latency, Recorder};
use crate::tier::report::Snapshot;

/// How a pool stands: [`Pool::monitor`](crate::Pool::monitor). Its `Display` is a table.
///
/// Made of a pass over the headers of all tiers; stops nobody. At a quiet point the numbers are exact.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// When it was made.
    pub at: Instant,
    /// Each tier: those of memory first, by size, then the overflow, those of cores, those of disk space by size, then the others as they were given.
    pub tiers: Vec<TierStatus>,
    /// Refusals that were not the end of their request: it spilled over, or waited. A part of the tiers' `refusals` and `denied`.
    pub absorbed: u64,
    /// Which sessions wait for which tiers (by their places in `tiers`), and which hold slots of them.
    pub waits: WaitsFor,
    /// Each tenant, as they were given.
    pub tenants: Vec<TenantStatus>,
}

/// How a tier of a pool stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierStatus {
    /// The tier's name.
    pub name: &'static str,
    /// What it holds.
    pub kind: TierKind,
    /// What the memory behind its buffers is, if it has a region for them: memory tiers on Linux do.
    pub memory: Option<MemoryStatus>,
    /// Its slots by state, and its counters.
    pub snapshot: Snapshot,
    /// What its slots were allocated for, the most frequent first: `snapshot.allocations` by tenant, tag and priority. At a quiet point
    /// they add up to that with [`other_uses`](Self::other_uses); while allocations go on they may be a little behind.
    pub uses: Vec<LabelUse>,
    /// Allocations with a combination of tenant, tag and priority beyond the first 256 that the tier has met, which are all that it
    /// tells apart.
    pub other_uses: u64,
    /// The size below which it does not shrink.
    pub min_capacity: usize,
    /// How its circuit breaker stands, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// How that of its factory stands, if the pool was [told](crate::PoolBuilder::factory_breaker) of one.
    pub factory_breaker: Option<BreakerStatus>,
    /// Requests that a quota or the circuit breaker has refused before the tier was asked.
    pub denied: u64,
    /// Requests that it has served in place of a smaller tier that had refused them.
    pub spilled_here: u64,
    /// The waits of requests for its slots, since the pool was built. Waits that were not by way of the pool are not known to it.
    pub waits: ByPriority<Waits>,
    /// How long allocations took that did not wait, of this tier, by way of the pool or past it: estimated from one in 1,021 of those
    /// that find a slot at hand, and one in 61 of the others, each counting for as many. Without refusals, bulk allocations, examination of
    /// values, and the cost of the clock.
    pub latency: Latency,
    /// How long requests by way of the pool have waited for its slots, however that ended. Each is measured.
    pub wait_latency: ByPriority<Latency>,
    /// Requests that were routed to it and refused in the end, each once, by what its caller was told.
    pub reasons: Refusals,
    /// Requests that would not wait and that it has refused, those among them that were served elsewhere.
    pub refused: ByPriority<u64>,
}

/// How a tenant of a pool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantStatus {
    /// Who it is.
    pub tenant: Tenant,
    /// Its name.
    pub name: String,
    /// What it and its children hold, or have paid for and wait for.
    pub held: Limit,
    /// What they never hold more of.
    pub hard: Limit,
    /// What they hold more of only while nobody wants it.
    pub soft: Limit,
    /// The waits of its own requests, for slots of any tier.
    pub waits: Waits,
    /// Allocations on its behalf, from all tiers; but for those in a tier's [`other_uses`](TierStatus::other_uses), of which that is not known.
    pub allocations: u64,
    /// Its own requests that were refused, each once; but for groups that could not even begin.
    pub refusals: u64,
}

impl TierStatus {
    fn of(row: &Row) -> Self {
        let snapshot = row.tier.snapshot();
        let (uses, other_uses) = uses::of(row.tier.core(), snapshot.allocations);
        TierStatus {
            name: row.tier.name(),
            kind: row.kind,
            memory: row.region.as_deref().map(Region::status),
            snapshot,
            uses,
            other_uses,
            min_capacity: row.tier.min_capacity(),
            breaker: row.guard.as_ref().map(|guard| guard.breaker.status()),
            factory_breaker: row.factory_breaker.as_ref().map(|breaker| breaker.status()),
            denied: row.counts.denied.load(Ordering::Relaxed),
            spilled_here: row.counts.spilled.load(Ordering::Relaxed),
            waits: row.counts.waits.map(Tally::waits),
            latency: row.tier.core().latency.latency(),
            wait_latency: row.counts.wait_latency.map(Recorder::latency),
            reasons: row.counts.refusals.refusals(),
            refused: row.counts.refused.map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// Slots that somebody has: leased, detached, shared, or about to be.
    pub fn held(&self) -> usize {
        self.snapshot.held()
    }
}

impl TenantStatus {
    pub(super) fn new(
        accounts: &Accounts,
        tenant: Tenant,
        waits: &Tally,
        refusals: &AtomicU64,
        tiers: &[TierStatus],
    ) -> Self {
        let (name, held) = (accounts.name(tenant).to_owned(), accounts.held_of_all(tenant));
        let (hard, soft) = accounts.limits(tenant);
        let uses = tiers.iter().flat_map(|tier| &tier.uses);
        let own = uses.filter(|one| one.tenant.as_deref() == Some(&name));
        let allocations = own.map(|one| one.allocations).sum();
        let refusals = refusals.load(Ordering::Relaxed);
        TenantStatus { tenant, name, held, hard, soft, waits: waits.waits(), allocations, refusals }
    }
}

impl ResourceStatus {
    /// Without tenants.
    pub(super) fn new(rows: &[Arc<Row>], waits: WaitsFor, absorbed: u64) -> Self {
        let tiers = rows.iter().map(|row| TierStatus::of(row)).collect();
        ResourceStatus { at: Instant::now(), tiers, tenants: Vec::new(), waits, absorbed }
    }

    /// With no counter below that of an earlier look: a thread that is between two stores of an allocation seems to have made one less for
    /// a moment, and who reads a counter that falls takes it for one that began anew.
    pub(super) fn not_below(mut self, earlier: &ResourceStatus) -> Self {
        for (now, before) in self.tiers.iter_mut().zip(&earlier.tiers) {
            let (now, before) = (&mut now.snapshot, &before.snapshot);
            now.allocations = now.allocations.max(before.allocations);
            now.hits = now.hits.max(before.hits);
            now.releases = now.releases.max(before.releases);
        }
        for (now, before) in self.tenants.iter_mut().zip(&earlier.tenants) {
            now.allocations = now.allocations.max(before.allocations);
        }
        self
    }

    /// The tier of that name.
    pub fn tier(&self, name: &str) -> Option<&TierStatus> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<&TenantStatus> {
        self.tenants.iter().find(|tenant| tenant.name == name)
    }

    /// A line for the waits of each priority for each tier, the most urgent first, and of each tenant.
    fn waits_of_each(&self) -> impl Iterator<Item = [String; 7]> {
        let of_tiers = self.tiers.iter().flat_map(|tier| {
            let urgent_first = tier.waits.iter().rev();
            urgent_first.filter_map(|(priority, waits)| waits_of(tier.name, format!("{priority:?}"), *waits))
        });
        let of_tenants = self.tenants.iter().filter_map(|it| waits_of(&it.name, "tenant".to_owned(), it.waits));
        of_tiers.chain(of_tenants)
    }

    /// Requests that the system allocator has served.
    pub fn overflowed(&self) -> u64 {
        self.tiers.iter().filter(|tier| tier.kind == TierKind::Overflow).map(|tier| tier.snapshot.allocations).sum()
    }
}

impl fmt::Display for TierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TierKind::Memory { bytes } => write!(f, "{}", Bytes(*bytes as u64)),
            TierKind::Cpu => write!(f, "core"),
            TierKind::Disk { bytes } => write!(f, "{} on disk", Bytes(*bytes)),
            TierKind::Overflow => write!(f, "system"),
            TierKind::Custom { type_name } => write!(f, "{type_name}"),
        }
    }
}

/// A number of bytes in the largest unit that leaves it whole.
struct Bytes(u64);

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

/// A line a tier; a line for each tenant that holds something, and for each that has waited; then what concerns all of them.
impl fmt::Display for ResourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, TIERS, 2, self.tiers.iter().map(line).collect())?;
        table(f, HELD, 1, self.tenants.iter().filter(|tenant| tenant.held.slots > 0).map(held_by).collect())?;
        table(f, WAITS, 2, self.waits_of_each().collect())?;
        let closed: Vec<_> = self.tiers.iter().filter(|tier| tier.snapshot.closed).map(|tier| tier.name).collect();
        if !closed.is_empty() {
            writeln!(f, "closed: {}", closed.join(", "))?;
        }
        for tier in &self.tiers {
            if let Some(memory) = tier.memory.as_ref().filter(|it| it.huge_pages_wanted != HugePages::None) {
                writeln!(f, "{}: {memory}", tier.name)?;
            }
            for (of, breaker) in [("", &tier.breaker), ("the factory of ", &tier.factory_breaker)] {
                if let Some(breaker) = breaker.as_ref().filter(|breaker| breaker.state != BreakerState::Closed) {
                    writeln!(f, "the circuit breaker of {of}{} is {}", tier.name, breaker.state)?;
                }
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

const TIERS: [&str; 12] = [
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
const HELD: [&str; 3] = ["tenant", "slots", "bytes"];
const WAITS: [&str; 7] = ["waits", "", "served", "in vain", "given up", "on average", "longest"];

/// The most lines of a table.
const LINES: usize = 50;

/// A table whose first columns are words, and the others numbers; nothing if there are no rows.
fn table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    header: [&str; N],
    words: usize,
    mut rows: Vec<[String; N]>,
) -> fmt::Result {
    let more = rows.len().saturating_sub(LINES);
    rows.truncate(LINES);
    if rows.is_empty() {
        return Ok(());
    }
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0)
    });
    for row in std::iter::once(header).chain(rows.iter().map(|row| row.each_ref().map(String::as_str))) {
        let mut line = String::new();
        for (column, (text, width)) in row.into_iter().zip(widths).enumerate() {
            let gap = if column > 0 { "  " } else { "" };
            line += &if column < words { format!("{gap}{text:<width$}") } else { format!("{gap}{text:>width$}") };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    if more > 0 { writeln!(f, "and {more} lines more") } else { Ok(()) }
}

/// An amount, and of how much if that is known.
fn of(amount: u64, limit: u64) -> String {
    if limit == u64::MAX { amount.to_string() } else { format!("{amount} of {limit}") }
}

fn held_by(TenantStatus { name, held, hard, .. }: &TenantStatus) -> [String; 3] {
    [name.clone(), of(held.slots, hard.slots), of(held.bytes, hard.bytes)]
}

fn waits_of(who: &str, what: String, waits: Waits) -> Option<[String; 7]> {
    let time = |time: Duration| format!("{time:.1?}");
    (waits.all() > 0).then(|| {
        [
            who.to_owned(),
            what,
            waits.served.to_string(),
            waits.in_vain.to_string(),
            waits.given_up.to_string(),
            time(waits.average()),
            time(waits.longest),
        ]
    })
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

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::Pool;

    #[test]
    fn no_counter_is_below_that_of_an_earlier_look() {
        let pool = Pool::builder().memory("packets", 64, 2).tenant("md").build().expect("a pool");
        let mut earlier = pool.monitor();
        let before = &mut earlier.tiers[0].snapshot;
        (before.allocations, before.hits, before.releases) = (3, 2, 1);
        earlier.tenants[0].allocations = 3;
        let now = pool.monitor().not_below(&earlier);
        let tier = &now.tiers[0].snapshot;
        assert_eq!((tier.allocations, tier.hits, tier.releases, now.tenants[0].allocations), (3, 2, 1, 3));
    }
}
