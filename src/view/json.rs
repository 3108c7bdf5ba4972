//! All that observations have, as JSON. Names of fields stay: `docs/live-view.md` tells what each means, and a test holds it against this.
//!
//! Units are in the names. A number is finite; what is unlimited, unknown or not there is `null`. Durations are in seconds, since Prometheus
//! and people take them so; those of `std` have nanoseconds, which a double holds for 100 days.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::alerts::{self, Alert};
use crate::admission::breaker::report::BreakerStatus;
use crate::admission::priority::ByPriority;
use crate::host::health::HealthMonitor;
use crate::host::issue::Severity;
use crate::pool::history::Rates;
use crate::pool::monitor::{ResourceStatus, TenantStatus, TierStatus};
use crate::pool::observe::{Observation, Observer, TierTrend};
use crate::pool::reasons::Refusals;
use crate::pool::rows::TierKind;
use crate::pool::uses::LabelUse;
use crate::pool::waits::Waits;
use crate::tier::census::SiteHolders;
use crate::tier::latency::Latency;
use crate::tier::reclaim::Reclaimed;
use crate::tier::report::Snapshot;
use crate::tier::suspect::Suspect;

/// The version of the names below: one more when a name goes, or means something else.
const VERSION: u32 = 1;
/// Labels of a tier, likewise.
const MOST_USES: usize = 20;
/// Lines of holders a pool; what the others hold is told as a sum.
const MOST_HOLDERS: usize = 200;

/// Pools and health at about one moment.
#[derive(Serialize)]
struct View {
    version: u32,
    number: u64,
    at_unix_seconds: f64,
    alerts: Vec<Alert>,
    health: Option<Health>,
    pools: Vec<Pool>,
}

#[derive(Serialize)]
struct Health {
    state: String,
    live: bool,
    ready: bool,
    issues: Vec<Issue>,
}

#[derive(Serialize)]
struct Issue {
    signal: String,
    severity: &'static str,
    since_seconds: f64,
    text: String,
}

#[derive(Serialize)]
struct Pool {
    pool: String,
    gone: bool,
    look_number: u64,
    look_at_unix_seconds: f64,
    look_seconds: f64,
    absorbed_total: u64,
    tiers: Vec<Tier>,
    tenants: Vec<Tenant>,
    holders: Vec<Holders>,
    other_holders_slots: usize,
    leaks: Vec<Leak>,
    session_waits: Vec<SessionWait>,
}

#[derive(Serialize)]
struct Tier {
    tier: &'static str,
    kind: &'static str,
    holds: String,
    slot_bytes: Option<u64>,
    capacity_slots: usize,
    min_capacity_slots: usize,
    slots: Slots,
    held_slots: usize,
    most_held_last_minute_slots: usize,
    most_held_ever_slots: usize,
    waiting: usize,
    closed: bool,
    scarce: bool,
    magazines: usize,
    allocations_total: u64,
    hits_total: u64,
    hit_ratio: f64,
    refills_total: u64,
    steals_total: u64,
    spills_total: u64,
    quarantines_total: u64,
    releases_total: u64,
    refusals_total: u64,
    denied_total: u64,
    spilled_here_total: u64,
    allocations_per_second: PerSecond,
    releases_per_second: PerSecond,
    refusals_per_second: PerSecond,
    allocations_per_second_last_minute: Vec<f64>,
    allocate_latency: LatencySeen,
    waits: Vec<WaitsOf>,
    refusals_by_reason: Vec<RefusedFor>,
    refusals_by_priority: Vec<RefusedOf>,
    uses: Vec<Use>,
    other_uses_total: u64,
    breaker: Option<Breaker>,
    factory_breaker: Option<Breaker>,
    upkeep: Upkeep,
    memory: Option<Memory>,
}

/// Slots by state; they add up to `capacity_slots`.
#[derive(Serialize)]
struct Slots {
    free: usize,
    reserved: usize,
    leased: usize,
    detached: usize,
    shared: usize,
    claimed: usize,
    retired: usize,
    dirty: usize,
    maintenance: usize,
    quarantined: usize,
    absent: usize,
}

#[derive(Serialize)]
struct PerSecond {
    second: f64,
    minute: f64,
    quarter_hour: f64,
}

#[derive(Serialize)]
struct WaitsOf {
    priority: String,
    #[serde(flatten)]
    waits: WaitsSeen,
    latency: LatencySeen,
}

/// What a share of them took at most.
#[derive(Serialize)]
struct LatencySeen {
    count: u64,
    p50_seconds: f64,
    p99_seconds: f64,
    p999_seconds: f64,
    max_seconds: f64,
}

#[derive(Serialize)]
struct WaitsSeen {
    served_total: u64,
    in_vain_total: u64,
    given_up_total: u64,
    average_seconds: f64,
    longest_seconds: f64,
}

#[derive(Serialize)]
struct RefusedFor {
    reason: &'static str,
    refused_total: u64,
}

/// Allocations that said the same of themselves.
#[derive(Serialize)]
struct Use {
    tenant: Option<String>,
    tag: Option<&'static str>,
    priority: String,
    allocations_total: u64,
}

#[derive(Serialize)]
struct RefusedOf {
    priority: String,
    refused_total: u64,
}

#[derive(Serialize)]
struct Breaker {
    state: String,
    openings: u32,
    retry_in_seconds: Option<f64>,
    calls: u64,
    failure_ratio: f64,
    slow_ratio: f64,
    calls_total: u64,
    failed_total: u64,
    slow_total: u64,
    refused_total: u64,
}

/// What the reclaimer has done.
#[derive(Serialize)]
struct Upkeep {
    retired_total: u64,
    cleaned_total: u64,
    expired_total: u64,
    rebuilt_total: u64,
    renewed_total: u64,
    leaks_total: u64,
    added_total: u64,
    removed_total: u64,
}

#[derive(Serialize)]
struct Memory {
    reserved_bytes: usize,
    committed_bytes: usize,
    huge_pages: String,
    locked: bool,
    prefaulted: bool,
}

#[derive(Serialize)]
struct Tenant {
    tenant: String,
    held_slots: u64,
    held_bytes: u64,
    hard_slots: Option<u64>,
    hard_bytes: Option<u64>,
    soft_slots: Option<u64>,
    soft_bytes: Option<u64>,
    allocations_total: u64,
    refusals_total: u64,
    waits: WaitsSeen,
}

/// Slots that one line holds, of one tier, for one tenant, tag and priority.
#[derive(Serialize)]
struct Holders {
    tier: &'static str,
    site: String,
    tenant: Option<String>,
    tag: Option<&'static str>,
    priority: String,
    held_slots: usize,
    grown_last_minute_slots: usize,
    oldest_seconds: f64,
    threads: Vec<String>,
}

/// A line of which slots are held for too long.
#[derive(Serialize)]
struct Leak {
    tier: &'static str,
    site: String,
    verdict: String,
    is_leak: bool,
    why: String,
    late_slots: u64,
    held_slots: u64,
    oldest_seconds: f64,
    tenant: Option<String>,
    tag: Option<&'static str>,
    thread: Option<String>,
    came_back_total: u64,
    habit_seconds: f64,
}

/// One session waits for what another holds.
#[derive(Serialize)]
struct SessionWait {
    waiter: u64,
    tier: Option<&'static str>,
    waits_at: String,
    holder: u64,
    held_at: String,
}

/// What the observers have found, and what the monitor says, as one line of JSON. `number` is the how-manieth it is.
pub(super) fn of(observers: &[Observer], monitor: Option<&HealthMonitor>, number: u64) -> String {
    let looks: Vec<_> = observers.iter().map(|observer| (observer.latest(), observer.is_gone())).collect();
    let issues = monitor.map(HealthMonitor::issues).unwrap_or_default();
    let mut alerts = alerts::of_health(&issues);
    alerts.extend(looks.iter().flat_map(|(seen, is_gone)| alerts::of_pool(seen, *is_gone)));
    alerts.sort();
    let issue = |issue: &crate::host::issue::ResourceIssue| Issue {
        signal: issue.signal.to_string(),
        severity: if issue.severity == Severity::Unhealthy { "unhealthy" } else { "degraded" },
        since_seconds: seconds(issue.since.elapsed()),
        text: issue.what.clone(),
    };
    let health = monitor.map(|monitor| Health {
        state: monitor.health().to_string(),
        live: monitor.is_live(),
        ready: monitor.is_ready(),
        issues: issues.iter().map(issue).collect(),
    });
    let pools = looks.iter().map(|(seen, is_gone)| pool(seen, *is_gone)).collect();
    let view = View { version: VERSION, number, at_unix_seconds: unix(SystemTime::now()), alerts, health, pools };
    serde_json::to_string(&view).expect("names are text, and numbers are finite")
}

fn pool(seen: &Observation, gone: bool) -> Pool {
    let status = &seen.status;
    Pool {
        pool: seen.pool.clone(),
        gone,
        look_number: seen.number,
        look_at_unix_seconds: unix(seen.at),
        look_seconds: seconds(seen.took),
        absorbed_total: status.absorbed,
        tiers: status.tiers.iter().zip(&seen.tiers).map(|(status, trend)| tier(status, trend)).collect(),
        tenants: status.tenants.iter().map(tenant).collect(),
        holders: holders(seen),
        other_holders_slots: seen.holders.sites.iter().skip(MOST_HOLDERS).map(|it| it.count).sum(),
        leaks: seen.leaks.iter().map(leak).collect(),
        session_waits: session_waits(status),
    }
}

fn tier(status: &TierStatus, trend: &TierTrend) -> Tier {
    let now = &status.snapshot;
    let (kind, slot_bytes) = match status.kind {
        TierKind::Memory { bytes } => ("memory", Some(bytes as u64)),
        TierKind::Cpu => ("cpu", None),
        TierKind::Disk { bytes } => ("disk", Some(bytes)),
        TierKind::Overflow => ("overflow", None),
        TierKind::Custom { .. } => ("custom", None),
    };
    Tier {
        tier: status.name,
        kind,
        holds: status.kind.to_string(),
        slot_bytes,
        capacity_slots: now.capacity,
        min_capacity_slots: status.min_capacity,
        slots: slots(now),
        held_slots: status.held(),
        most_held_last_minute_slots: trend.most_held,
        most_held_ever_slots: now.high_water,
        waiting: now.waiting,
        closed: now.closed,
        scarce: now.scarce,
        magazines: now.magazines,
        allocations_total: now.allocations,
        hits_total: now.hits,
        hit_ratio: finite(now.hit_rate()),
        refills_total: now.refills,
        steals_total: now.steals,
        spills_total: now.spills,
        quarantines_total: now.quarantines,
        releases_total: now.releases,
        refusals_total: now.refusals,
        denied_total: status.denied,
        spilled_here_total: status.spilled_here,
        allocations_per_second: per_second(trend.allocations),
        releases_per_second: per_second(trend.releases),
        refusals_per_second: per_second(trend.refusals),
        allocations_per_second_last_minute: trend.recent.iter().map(|rate| finite(rate.round())).collect(),
        allocate_latency: latency(&status.latency),
        waits: waits_by(status),
        refusals_by_reason: refused_for(&status.reasons),
        refusals_by_priority: refused_by(&status.refused),
        uses: status.uses.iter().take(MOST_USES).map(used).collect(),
        other_uses_total: status.other_uses + status.uses.iter().skip(MOST_USES).map(|it| it.allocations).sum::<u64>(),
        breaker: status.breaker.as_ref().map(breaker),
        factory_breaker: status.factory_breaker.as_ref().map(breaker),
        upkeep: upkeep(now.reclaimed),
        memory: status.memory.as_ref().map(|memory| Memory {
            reserved_bytes: memory.reserved_bytes,
            committed_bytes: memory.committed_bytes,
            huge_pages: memory.huge_pages.to_string(),
            locked: memory.locked,
            prefaulted: memory.prefaulted,
        }),
    }
}

fn slots(now: &Snapshot) -> Slots {
    let &Snapshot { free, reserved, leased, detached, shared, claimed, retired, dirty, maintenance, .. } = now;
    let &Snapshot { quarantined, absent, .. } = now;
    Slots { free, reserved, leased, detached, shared, claimed, retired, dirty, maintenance, quarantined, absent }
}

fn per_second(rates: Rates) -> PerSecond {
    let Rates { second, minute, quarter_hour } = rates;
    PerSecond { second: finite(second), minute: finite(minute), quarter_hour: finite(quarter_hour) }
}

fn waits_by(status: &TierStatus) -> Vec<WaitsOf> {
    let of = |(priority, waits): (_, &Waits)| WaitsOf {
        priority: name(priority),
        waits: waits_seen(waits),
        latency: latency(status.wait_latency.of(priority)),
    };
    status.waits.iter().rev().map(of).collect()
}

fn latency(of: &Latency) -> LatencySeen {
    let share = |q| seconds(of.quantile(q));
    LatencySeen {
        count: of.count(),
        p50_seconds: share(0.5),
        p99_seconds: share(0.99),
        p999_seconds: share(0.999),
        max_seconds: seconds(of.max()),
    }
}

fn refused_for(reasons: &Refusals) -> Vec<RefusedFor> {
    reasons.iter().map(|(reason, refused_total)| RefusedFor { reason: reason.name(), refused_total }).collect()
}

fn used(it: &LabelUse) -> Use {
    Use { tenant: it.tenant.clone(), tag: it.tag, priority: name(it.priority), allocations_total: it.allocations }
}

fn refused_by(refused: &ByPriority<u64>) -> Vec<RefusedOf> {
    let of = |(priority, &refused_total): (_, &u64)| RefusedOf { priority: name(priority), refused_total };
    refused.iter().rev().map(of).collect()
}

/// A priority's name, as in a configuration file.
fn name(priority: crate::Priority) -> String {
    format!("{priority:?}").to_lowercase()
}

fn waits_seen(waits: &Waits) -> WaitsSeen {
    WaitsSeen {
        served_total: waits.served,
        in_vain_total: waits.in_vain,
        given_up_total: waits.given_up,
        average_seconds: seconds(waits.average()),
        longest_seconds: seconds(waits.longest),
    }
}

fn breaker(status: &BreakerStatus) -> Breaker {
    Breaker {
        state: status.state.to_string(),
        openings: status.openings,
        retry_in_seconds: status.retry_in.map(seconds),
        calls: status.calls,
        failure_ratio: finite(status.failure_rate),
        slow_ratio: finite(status.slow_rate),
        calls_total: status.total_calls,
        failed_total: status.total_failed,
        slow_total: status.total_slow,
        refused_total: status.total_refused,
    }
}

fn upkeep(done: Reclaimed) -> Upkeep {
    Upkeep {
        retired_total: done.retired,
        cleaned_total: done.cleaned,
        expired_total: done.expired,
        rebuilt_total: done.rebuilt,
        renewed_total: done.renewed,
        leaks_total: done.leaks,
        added_total: done.added,
        removed_total: done.removed,
    }
}

fn tenant(status: &TenantStatus) -> Tenant {
    let limit = |limit: u64| (limit != u64::MAX).then_some(limit);
    Tenant {
        tenant: status.name.clone(),
        held_slots: status.held.slots,
        held_bytes: status.held.bytes,
        hard_slots: limit(status.hard.slots),
        hard_bytes: limit(status.hard.bytes),
        soft_slots: limit(status.soft.slots),
        soft_bytes: limit(status.soft.bytes),
        allocations_total: status.allocations,
        refusals_total: status.refusals,
        waits: waits_seen(&status.waits),
    }
}

/// Those that hold most.
fn holders(seen: &Observation) -> Vec<Holders> {
    let of = |it: &SiteHolders| Holders {
        tier: it.tier,
        site: it.site.to_string(),
        tenant: it.tenant.clone(),
        tag: it.tag,
        priority: name(it.priority),
        held_slots: it.count,
        grown_last_minute_slots: seen
            .growth
            .sites
            .iter()
            .find(|grown| grown.now == *it)
            .map_or(0, |grown| grown.grown()),
        oldest_seconds: seconds(it.oldest),
        threads: it.threads.clone(),
    };
    seen.holders.sites.iter().take(MOST_HOLDERS).map(of).collect()
}

fn leak(it: &Suspect) -> Leak {
    Leak {
        tier: it.tier,
        site: it.site.to_string(),
        verdict: it.verdict.to_string(),
        is_leak: it.verdict.is_leak(),
        why: it.why().to_string(),
        late_slots: it.late,
        held_slots: it.held,
        oldest_seconds: seconds(it.oldest.age),
        tenant: it.oldest.tenant.clone(),
        tag: it.oldest.tag,
        thread: it.oldest.thread_name.clone(),
        came_back_total: it.came_back,
        habit_seconds: seconds(it.habit),
    }
}

fn session_waits(status: &ResourceStatus) -> Vec<SessionWait> {
    let wait = |edge: crate::WaitEdge| SessionWait {
        waiter: edge.waiter,
        tier: status.tiers.get(edge.tier).map(|tier| tier.name),
        waits_at: edge.waits_at.to_string(),
        holder: edge.holder,
        held_at: edge.held_at.to_string(),
    };
    status.waits.edges().map(wait).collect()
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, seconds)
}

/// JSON has no others.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}
