//! Making a pool: everything that can be wrong is found here, and returned as an error that says where.

use std::any::type_name;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem::take;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::error::PoolError;
use super::guard::Guard;
use super::metrics::LastLook;
use super::monitor::ResourceStatus;
use super::optimize::{Decision, DecisionSink, Optimizer, Range};
use super::request::Spill;
use super::route::{Routes, Run};
use super::rows::{AnyTier, Row, TierKind};
use super::rules::Books;
use super::session::Sessions;
use super::tiers::{Common, CpuTier, DiskTier, MemoryTier};
use super::waits::Tally;
use super::{Inner, Pool};
use crate::admission::breaker::Breaker;
use crate::admission::breaker::report::BreakerEvent;
use crate::admission::breaker::rules::BreakerRules;
use crate::admission::line::{Fairness, Line};
use crate::admission::priority::Watermarks;
use crate::admission::quota::Accounts;
use crate::admission::tenants::{Limit, QuotaRules, TenantRules};
use crate::admission::waits_for::WaitsFor;
use crate::clock;
use crate::resource::memory::Memory;
use crate::sync::AtomicU64;
use crate::tier::Tier;
use crate::tier::account::{self, Accountant};
use crate::tier::builder::problem_of_name;
use crate::tier::magazine::MAX_MAGAZINES;
use crate::tier::reclaim::Reclaimer;
use crate::tier::values::rethrow;

/// The overflow's name in reports and errors.
const OVERFLOW: &str = "overflow";

/// The default of [`PoolBuilder::ageing`].
pub(super) const AGEING: Duration = Duration::from_secs(1);

/// What a pool shall be; [`Pool::builder`] starts one.
#[must_use = "a builder does nothing until `build` is called"]
pub struct PoolBuilder {
    memory: Vec<MemoryTier>,
    cpu: Vec<CpuTier>,
    disk: Vec<DiskTier>,
    tiers: Vec<(Box<dyn AnyTier>, TierKind)>,
    tenants: QuotaRules,
    /// Where the tenants stand in a configuration file.
    tenant_lines: Vec<Option<usize>>,
    /// Of which tier; and where it stands in a configuration file.
    watermarks: Vec<(String, Watermarks, Option<usize>)>,
    /// The most of them, likewise.
    most_watermarks: Vec<(String, Watermarks, Option<usize>)>,
    breakers: Vec<(String, BreakerRules, Option<Alarm>, Option<usize>)>,
    factory_breakers: Vec<(String, Arc<Breaker>)>,
    ageing: Duration,
    fairness: Fairness,
    spill: Spill,
    overflow: Option<usize>,
    reclaimer: Reclaimer,
    on_decision: Option<DecisionSink>,
}

/// Who is told what a breaker does.
type Alarm = Box<dyn Fn(&BreakerEvent) + Send + Sync>;

/// An error of what may stand at a line of a configuration file.
pub(super) fn at(line: Option<usize>, source: impl Into<PoolError>) -> PoolError {
    match line {
        Some(line) => PoolError::At { line, source: Box::new(source.into()) },
        None => source.into(),
    }
}

impl PoolBuilder {
    pub(super) fn new() -> Self {
        PoolBuilder {
            memory: Vec::new(),
            cpu: Vec::new(),
            disk: Vec::new(),
            tiers: Vec::new(),
            tenants: QuotaRules::new(),
            tenant_lines: Vec::new(),
            watermarks: Vec::new(),
            most_watermarks: Vec::new(),
            breakers: Vec::new(),
            factory_breakers: Vec::new(),
            ageing: AGEING,
            fairness: Fairness::default(),
            spill: Spill::Refuse,
            overflow: None,
            reclaimer: Reclaimer::Manual,
            on_decision: None,
        }
    }

    /// A tier of `slots` buffers of `bytes` bytes each.
    pub fn memory(self, name: &str, bytes: usize, slots: usize) -> Self {
        self.memory_tier(MemoryTier::new(name, bytes, slots))
    }

    /// A tier of buffers, with more said about it.
    pub fn memory_tier(mut self, tier: MemoryTier) -> Self {
        self.memory.push(tier);
        self
    }

    /// A tier with one slot for each core that the process may use: [`CpuTier`].
    pub fn cpu(self, name: &str) -> Self {
        self.cpu_tier(CpuTier::new(name))
    }

    /// A tier of cores, with more said about it.
    pub fn cpu_tier(mut self, tier: CpuTier) -> Self {
        self.cpu.push(tier);
        self
    }

    /// A tier of `extents` extents of `bytes` bytes each, of a scratch file in the directory `dir`: [`DiskTier`].
    pub fn disk(self, name: &str, dir: impl AsRef<Path>, bytes: u64, extents: usize) -> Self {
        self.disk_tier(DiskTier::new(name, dir, bytes, extents))
    }

    /// A tier of extents, with more said about it.
    pub fn disk_tier(mut self, tier: DiskTier) -> Self {
        self.disk.push(tier);
        self
    }

    /// Any tier. It may be used beside the pool too, and be in other pools.
    pub fn tier<T: Send + 'static>(mut self, tier: Tier<T>) -> Self {
        self.tiers.push((Box::new(tier), TierKind::Custom { type_name: type_name::<T>() }));
        self
    }

    /// Somebody on whose behalf there will be requests: a name, of 1 to 128 bytes without control characters, quotation marks and
    /// backslashes; or [`TenantRules`], which say what it may hold.
    pub fn tenant(self, tenant: impl Into<TenantRules>) -> Self {
        self.tenant_at(tenant.into(), None)
    }

    /// What the tier of that name keeps back for urgent requests. Default: nothing. Of memory tiers
    /// [`MemoryTier::watermarks`] says it too, and so do those of other tiers that the pool builds.
    pub fn watermarks(mut self, tier: &str, watermarks: Watermarks) -> Self {
        self.watermarks.push((tier.to_owned(), watermarks, None));
        self
    }

    /// Up to which watermarks [`Pool::optimize`] may go with the tier of that name when urgent requests are refused: none of the three
    /// below the one that it begins with. Default: it leaves them alone. Of memory tiers [`MemoryTier::watermarks_up_to`] says it too.
    pub fn watermarks_up_to(mut self, tier: &str, most: Watermarks) -> Self {
        self.most_watermarks.push((tier.to_owned(), most, None));
        self
    }

    /// A circuit breaker for the tier of that name: when too many of the requests that are routed to it fail or wait for too long, all are
    /// refused at once for a while, and then a few let pass to see. Default: none.
    pub fn breaker(mut self, tier: &str, rules: BreakerRules) -> Self {
        self.breakers.push((tier.to_owned(), rules, None, None));
        self
    }

    /// The same, with somebody who is told of each change of its state.
    pub fn breaker_with(
        mut self,
        tier: &str,
        rules: BreakerRules,
        on_event: impl Fn(&BreakerEvent) + Send + Sync + 'static,
    ) -> Self {
        self.breakers.push((tier.to_owned(), rules, Some(Box::new(on_event)), None));
        self
    }

    /// Shows the circuit breaker of a tier's factory ([`Breaker::around`]) in the pool's status. The last one counts.
    pub fn factory_breaker(mut self, tier: &str, breaker: &Arc<Breaker>) -> Self {
        self.factory_breakers.push((tier.to_owned(), Arc::clone(breaker)));
        self
    }

    /// Which of the tenants who wait within a priority is next. Default: [`Fairness::Turns`].
    pub fn fairness(mut self, fairness: Fairness) -> Self {
        self.fairness = fairness;
        self
    }

    /// After how long without service those who wait count as of the next higher [`Priority`](crate::Priority), after twice that time as of
    /// the one above, and so on: nobody waits for ever. From 10 ms. Default: 1 s.
    pub fn ageing(mut self, ageing: Duration) -> Self {
        self.ageing = ageing;
        self
    }

    /// What requests by size do that do not say, when the tier that fits best has no slot free. Default: [`Spill::Refuse`].
    pub fn spill(mut self, spill: Spill) -> Self {
        self.spill = spill;
        self
    }

    /// How many requests at a time the system allocator may serve, of those that may [spill](Spill::System) to it. From 1 to 2²⁷.
    /// Default: none. Costs 96 bytes each; what is allocated goes back to the system when it is released. They are counted as a tier,
    /// `overflow`, in [`Pool::monitor`].
    pub fn overflow(mut self, slots: usize) -> Self {
        self.overflow = Some(slots);
        self
    }

    /// Who makes the passes over the tiers that the pool builds and of which nothing else is said: [`TierBuilder::reclaimer`](crate::TierBuilder::reclaimer). Default:
    /// [`Reclaimer::Manual`], by [`Pool::reclaim`].
    pub fn reclaimer(mut self, reclaimer: Reclaimer) -> Self {
        self.reclaimer = reclaimer;
        self
    }

    /// Whom the decisions of [`Pool::optimize`] are told to: a log, usually. Default: nobody.
    pub fn on_decision(mut self, sink: impl Fn(&Decision) + Send + Sync + 'static) -> Self {
        self.on_decision = Some(Box::new(sink));
        self
    }

    /// A tenant that may stand at a line of a configuration file.
    pub(super) fn tenant_at(mut self, tenant: TenantRules, line: Option<usize>) -> Self {
        self.tenants.tenants.push(tenant);
        self.tenant_lines.push(line);
        self
    }

    /// Builds the pool, and all its memory, and reserves its disk space.
    ///
    /// # Errors
    /// [`PoolError`]; nothing is left of the pool then.
    pub fn build(mut self) -> Result<Pool, PoolError> {
        self.check()?;
        self.memory.sort_by_key(|tier| tier.bytes);
        let memory = Run::new(0, self.memory.iter().map(|tier| tier.bytes as u64));
        let mut rows = Vec::new();
        for tier in take(&mut self.memory) {
            self.note_rules(&tier.common);
            rows.push(tier.build(self.reclaimer)?);
        }
        let overflow = self.overflow.is_some().then_some(rows.len());
        if let Some(slots) = self.overflow {
            // Empty slots: each holds what the system gave only while it is leased.
            let release = |memory: &mut Memory| *memory = Memory::empty();
            let tier = Tier::builder(OVERFLOW).capacity(slots).reset(release).build_with(Memory::empty)?;
            rows.push(Row::new(Box::new(tier), TierKind::Overflow));
        }
        let cpu = Run::new(rows.len(), self.cpu.iter().map(|_| 0));
        for tier in take(&mut self.cpu) {
            self.note_rules(&tier.common);
            rows.push(Row::of(tier.build(self.reclaimer)?));
        }
        self.disk.sort_by_key(|tier| tier.bytes);
        let disk = Run::new(rows.len(), self.disk.iter().map(|tier| tier.bytes));
        for tier in take(&mut self.disk) {
            self.note_rules(&tier.common);
            rows.push(Row::of(tier.build(self.reclaimer)?));
        }
        rows.extend(self.tiers.into_iter().map(|(tier, kind)| Row::new(tier, kind)));
        let accounts = Arc::new(accounts(&self.tenants, &self.tenant_lines, &rows)?);
        let mut kept_back = vec![None; rows.len()];
        for (tier, watermarks, line) in self.watermarks {
            kept_back[check_marks(rows.iter(), &tier, watermarks).map_err(|why| at(line, why))?] = Some(watermarks);
        }
        let mut ranges = vec![None; rows.len()];
        for (tier, most, line) in self.most_watermarks {
            let row = check_marks(rows.iter(), &tier, most).map_err(|why| at(line, why))?;
            let least = kept_back[row].unwrap_or_default();
            if !least.is_within(most) {
                let (capacity, problem) =
                    (rows[row].tier.capacity(), "they go up to less than they begin with; give more");
                return Err(at(line, PoolError::Watermarks { tier, capacity, problem }));
            }
            ranges[row] = Some(Range::new(least, most));
        }
        for (tier, rules, alarm, line) in self.breakers {
            guard(&mut rows, tier, rules, alarm).map_err(|why| at(line, why))?;
        }
        for (tier, breaker) in self.factory_breakers {
            named(&mut rows, &tier, "a factory's breaker")?.factory_breaker = Some(breaker);
        }
        // Nothing is said to tiers that others have before everything that can be wrong has been looked at.
        govern(&accounts, &mut rows, self.ageing, self.fairness)?;
        let rows: Box<[Arc<Row>]> = rows.into_iter().map(Arc::new).collect();
        for (row, kept) in rows.iter().zip(kept_back) {
            rethrow(kept.and_then(|watermarks| row.keep_back(watermarks).err()));
        }
        let tenants = accounts.tenants().count() + 1;
        let waits = std::iter::repeat_with(Tally::default).take(tenants).collect();
        let refusals = std::iter::repeat_with(AtomicU64::default).take(tenants).collect();
        let inner = Inner {
            routes: Routes::new(memory, overflow, [cpu, disk], &rows, self.spill),
            accounts,
            absorbed: CachePadded::default(),
            waits,
            refusals,
            last_look: LastLook::new(ResourceStatus::new(&rows, WaitsFor::default(), 0)),
            optimizer: Optimizer::new(ranges, self.on_decision),
            sessions: Sessions::new(&rows),
            rows,
        };
        Ok(Pool { inner: Arc::new(inner) })
    }

    /// What was said of a tier that is not its own business.
    fn note_rules<T>(&mut self, Common { name, watermarks, most_watermarks, breaker, line, .. }: &Common<T>) {
        self.watermarks.extend(watermarks.map(|watermarks| (name.clone(), watermarks, *line)));
        self.most_watermarks.extend(most_watermarks.map(|most| (name.clone(), most, *line)));
        self.breakers.extend(breaker.clone().map(|rules| (name.clone(), rules, None, *line)));
    }

    /// What can be seen before anything is built.
    fn check(&self) -> Result<(), PoolError> {
        let others = !self.cpu.is_empty() || !self.disk.is_empty();
        if self.memory.is_empty() && self.tiers.is_empty() && !others {
            return Err(PoolError::NoTiers);
        }
        let spills = self.spill == Spill::System || self.spill == Spill::NextLarger && !others;
        if self.memory.is_empty() && (spills || self.overflow.is_some()) {
            return Err(PoolError::NothingSpills);
        }
        if self.spill == Spill::System && self.overflow.is_none() {
            return Err(PoolError::NoOverflow);
        }
        if self.ageing < clock::TICK {
            return Err(PoolError::Ageing { ageing: self.ageing });
        }
        self.check_tiers()?;
        self.check_tenants()
    }

    fn check_tiers(&self) -> Result<(), PoolError> {
        let mut sizes = HashMap::new();
        for MemoryTier { common: Common { name: tier, line, .. }, bytes, backing, .. } in &self.memory {
            if let Some(problem) = backing.problem() {
                return Err(at(*line, PoolError::Backing { tier: tier.clone(), problem }));
            }
            if *bytes == 0 || *bytes > isize::MAX as usize {
                return Err(at(*line, PoolError::Bytes { tier: tier.clone(), bytes: *bytes }));
            }
            if let Some(other) = sizes.insert(*bytes, tier) {
                let (other, tier) = (tier.clone(), String::clone(other));
                return Err(at(*line, PoolError::SameSize { tier, other, bytes: *bytes }));
            }
        }
        let memory = self.memory.iter().map(|tier| (tier.common.name.as_str(), tier.common.line));
        let cpu = self.cpu.iter().map(|tier| (tier.common.name.as_str(), tier.common.line));
        let disk = self.disk.iter().map(|tier| (tier.common.name.as_str(), tier.common.line));
        let others = self.tiers.iter().map(|(tier, _)| (tier.name(), None));
        let mut names: HashSet<&str> = self.overflow.iter().map(|_| OVERFLOW).collect();
        match memory.chain(cpu).chain(disk).chain(others).find(|(name, _)| !names.insert(name)) {
            Some((name, line)) => Err(at(line, PoolError::DuplicateTier { name: name.to_owned() })),
            None => Ok(()),
        }
    }

    fn check_tenants(&self) -> Result<(), PoolError> {
        for (tenant, line) in self.tenants.tenants.iter().zip(&self.tenant_lines) {
            if let Some(problem) = problem_of_name(&tenant.name) {
                return Err(at(*line, PoolError::TenantName { name: tenant.name.clone(), problem }));
            }
        }
        Ok(())
    }
}

/// Accounts for the tenants, if their rules fit together and into the pool.
fn accounts(rules: &QuotaRules, lines: &[Option<usize>], rows: &[Row]) -> Result<Accounts, PoolError> {
    let bytes_a_slot: Vec<u64> = rows.iter().map(Row::bytes).collect();
    let slots = |row: &Row| row.tier.capacity() as u64;
    let capacity = Limit {
        slots: rows.iter().map(slots).sum(),
        bytes: rows.iter().map(|row| slots(row).saturating_mul(row.bytes())).fold(0, u64::saturating_add),
    };
    Accounts::new(rules, capacity, &bytes_a_slot, MAX_MAGAZINES).map_err(|why| {
        // Of two with one name, the second is one too many.
        let line = rules.tenants.iter().zip(lines).rfind(|(tenant, _)| Some(&*tenant.name) == why.tenant());
        at(line.and_then(|(_, line)| *line), why)
    })
}

/// Has the tiers count what tenants hold, and those who wait for them served in the order that the rules say.
fn govern(accounts: &Arc<Accounts>, rows: &mut [Row], ageing: Duration, fairness: Fairness) -> Result<(), PoolError> {
    let slots: Vec<u64> = rows.iter().map(|row| row.tier.capacity() as u64).collect();
    static GOVERNING: Mutex<()> = Mutex::new(());
    // One pool at a time, so that what is found here still holds below. Nothing in here panics.
    let _alone = GOVERNING.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = accounts.tenants().next().is_some();
    if let Some(row) = rows.iter().find(|row| counts && row.tier.core().life().accountant.get().is_some()) {
        return Err(PoolError::Governed { tier: row.tier.name() });
    }
    let mut weights = vec![1];
    weights.extend(accounts.tenants().map(|tenant| accounts.weight(tenant)));
    for (at, row) in rows.iter_mut().enumerate() {
        let core = row.tier.core();
        if counts {
            let books = Arc::new(Books { accounts: Arc::clone(accounts), row: at });
            if !account::appoint(core, Arc::clone(&books) as Arc<dyn Accountant>) {
                return Err(PoolError::Governed { tier: row.tier.name() });
            }
            row.books = Some(books);
        }
        // Beside another pool with tenants this one's requests are nobody's, and that one knows whose turn it is.
        if counts || core.life().accountant.get().is_none() {
            let line = Line::new(&weights, ageing);
            core.waiting.set_order(Box::new(match fairness {
                Fairness::Turns => line,
                Fairness::DominantShares => line.by_dominant_shares(Arc::clone(accounts), at, &slots, &weights),
            }));
        }
    }
    Ok(())
}

/// The place of the tier of that name, if it can keep so many back.
pub(super) fn check_marks<'r>(
    rows: impl Iterator<Item = &'r Row>,
    tier: &str,
    watermarks: Watermarks,
) -> Result<usize, PoolError> {
    let Some((at, row)) = rows.enumerate().find(|(_, row)| row.tier.name() == tier) else {
        return Err(PoolError::UnknownTier { name: tier.to_owned(), what: "watermarks" });
    };
    let capacity = row.tier.capacity();
    match watermarks.problem(capacity) {
        Some(problem) => Err(PoolError::Watermarks { tier: tier.to_owned(), capacity, problem }),
        None => Ok(at),
    }
}

/// The row of the tier of that name, which somebody said `what` for.
fn named<'r>(rows: &'r mut [Row], tier: &str, what: &'static str) -> Result<&'r mut Row, PoolError> {
    let unknown = || PoolError::UnknownTier { name: tier.to_owned(), what };
    rows.iter_mut().find(|row| row.tier.name() == tier).ok_or_else(unknown)
}

/// Gives a tier a circuit breaker.
fn guard(rows: &mut [Row], tier: String, rules: BreakerRules, alarm: Option<Alarm>) -> Result<(), PoolError> {
    let row = named(rows, &tier, "breaker rules")?;
    let breaker = Breaker::new(rules).map_err(|source| PoolError::Breaker { tier, source })?.of_tier(row.tier.name());
    let breaker = match alarm {
        Some(alarm) => breaker.on_event(alarm),
        None => breaker,
    };
    row.guard = Some(Guard::new(breaker, row.tier.core()));
    Ok(())
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<_> = self.tiers.iter().map(|(tier, _)| tier.name()).collect();
        f.debug_struct("PoolBuilder")
            .field("memory", &self.memory)
            .field("cpu", &self.cpu)
            .field("disk", &self.disk)
            .field("tiers", &tiers)
            .finish_non_exhaustive()
    }
}
