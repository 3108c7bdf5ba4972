//! Rates: what went on in a pool between two looks at it.
//!
//! All of it is computed from the tiers' own counters, of which each thread writes its own; nothing is measured on the way of an
//! allocation that need not wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::monitor::{ResourceStatus, TierStatus};
use super::reasons::Refusals;
use super::rows::TierKind;
use crate::admission::priority::Priority;
use crate::tier::latency::Latency;

/// What went on in a pool during an interval: [`Pool::metrics`](crate::Pool::metrics), or
/// [`ResourceStatus::since`](crate::ResourceStatus::since).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// The share of slots that were held at the end of the interval, from 0 to 1: of the slots that the tiers had then. The overflow is left
    /// out, which has no size of its own.
    pub utilization_rate: f64,
    /// Allocations a second that were served.
    pub allocation_rate: f64,
    /// Leases a second that were given back.
    pub release_rate: f64,
    /// The share of requests that were refused, by a tier, a quota or a circuit breaker, from 0 to 1; 0 if there were none. A refusal that was made good by spilling over or
    /// waiting is none.
    pub failure_rate: f64,
    /// How long an allocation has waited, on average over all that were served. One that need not wait counts as zero: its few nanoseconds
    /// are less than reading a clock takes. Waits that were not by way of the pool are not known to it.
    pub average_latency: Duration,
    /// How long slots were held, on average: by Little's law, the slots held (on average of the interval's two ends) over the releases a
    /// second. `None` if there were no releases.
    pub average_hold: Option<Duration>,
    /// How long allocations took that did not wait, in all tiers together; see [`TierStatus::latency`].
    pub latency: Quantiles,
    /// How long those waited that had to.
    pub wait_latency: Quantiles,
    /// Requests that were refused, each once, by what its caller was told.
    pub reasons: Refusals,
    /// Times that magazines were filled from other threads' magazines: many beside the allocations tell that the tiers are short.
    pub steals: u64,
    /// How long the interval was.
    pub interval: Duration,
    /// The same of each tier.
    pub tiers: Vec<TierMetrics>,
}

/// What went on in a tier of a pool during an interval.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct TierMetrics {
    /// The tier's name.
    pub name: &'static str,
    /// Slots that it had at the end of the interval.
    pub slots: usize,
    /// Slots that somebody held then.
    pub held: usize,
    /// Who waited for one then.
    pub waiting: usize,
    /// Allocations that it served in the interval.
    pub allocations: u64,
    /// Leases that came back.
    pub releases: u64,
    /// Allocations that it refused.
    pub refusals: u64,
    /// Of those by way of the pool, with those that waited in vain: High and Critical ones.
    pub urgent_refusals: u64,
    /// The same, Low and Normal ones.
    pub ordinary_refusals: u64,
    /// Requests that a quota or the circuit breaker refused before it was asked.
    pub denied: u64,
    /// Requests that were routed to it and refused in the end, each once, by what its caller was told.
    pub reasons: Refusals,
    /// How long allocations took that did not wait.
    pub latency: Quantiles,
    /// How long those waited that had to, by way of the pool.
    pub wait_latency: Quantiles,
    /// Times that a magazine was filled from the tier's depot.
    pub refills: u64,
    /// Times that one was filled from other threads' magazines.
    pub steals: u64,
    /// Times that one gave hints to the depot.
    pub spills: u64,
}

/// What a share of all did not exceed; zeros if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Quantiles {
    /// Half of them.
    pub p50: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// 999 of 1,000.
    pub p999: Duration,
}

impl Quantiles {
    fn of(latency: &Latency) -> Self {
        Quantiles { p50: latency.quantile(0.5), p99: latency.quantile(0.99), p999: latency.quantile(0.999) }
    }
}

/// What was measured in tiers between two looks at them.
fn measured<'a>(pairs: impl Iterator<Item = (&'a TierStatus, &'a TierStatus)> + Clone) -> [Latency; 2] {
    let none = Latency::default;
    let at_once = pairs.clone().fold(none(), |sum, (now, before)| sum.and(now.latency.since(&before.latency)));
    let waits = pairs.flat_map(|(now, before)| now.wait_latency.iter().zip(before.wait_latency.iter()));
    let waited = waits.fold(none(), |sum, ((_, now), (_, before))| sum.and(now.since(before)));
    [at_once, waited]
}

impl TierMetrics {
    /// A tier about which [`Pool::optimize`](crate::Pool::optimize) is to be told: so much of it is or will be wanted.
    pub fn new(name: &'static str) -> Self {
        TierMetrics { name, ..TierMetrics::default() }
    }

    fn between(now: &TierStatus, before: &TierStatus) -> Self {
        let since = |count: fn(&TierStatus) -> u64| count(now).saturating_sub(count(before));
        let refusals = |urgent: bool| {
            let of = |tier: &TierStatus| -> u64 {
                let each = tier.refused.iter().zip(tier.waits.iter());
                let asked = each.filter(|((priority, _), _)| (*priority >= Priority::High) == urgent);
                asked.map(|((_, refused), (_, waits))| refused + waits.in_vain).sum()
            };
            of(now).saturating_sub(of(before))
        };
        let [latency, wait_latency] = measured(std::iter::once((now, before))).map(|latency| Quantiles::of(&latency));
        TierMetrics {
            reasons: now.reasons.since(&before.reasons),
            latency,
            wait_latency,
            refills: since(|tier| tier.snapshot.refills),
            steals: since(|tier| tier.snapshot.steals),
            spills: since(|tier| tier.snapshot.spills),
            name: now.name,
            slots: now.snapshot.slots(),
            held: now.held(),
            waiting: now.snapshot.waiting,
            allocations: since(|tier| tier.snapshot.allocations),
            releases: since(|tier| tier.snapshot.releases),
            refusals: since(|tier| tier.snapshot.refusals),
            urgent_refusals: refusals(true),
            ordinary_refusals: refusals(false),
            denied: since(|tier| tier.denied),
        }
    }
}

impl ResourceStatus {
    /// What went on between an earlier look at the same pool and this one.
    pub fn since(&self, earlier: &ResourceStatus) -> PoolMetrics {
        let pairs = self.tiers.iter().zip(&earlier.tiers);
        let [latency, wait_latency] = measured(pairs.clone()).map(|latency| Quantiles::of(&latency));
        let tiers: Vec<_> = pairs.map(|(now, before)| TierMetrics::between(now, before)).collect();
        let sum = |part: fn(&TierMetrics) -> u64| tiers.iter().map(part).sum::<u64>();
        let (allocations, releases) = (sum(|tier| tier.allocations), sum(|tier| tier.releases));
        let failures =
            sum(|tier| tier.refusals + tier.denied).saturating_sub(self.absorbed.saturating_sub(earlier.absorbed));
        let interval = self.at.saturating_duration_since(earlier.at);
        let rate = |count: u64| if interval.is_zero() { 0.0 } else { count as f64 / interval.as_secs_f64() };
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let held = |status: &ResourceStatus| status.tiers.iter().map(TierStatus::held).sum::<usize>() as f64;
        let (sized_held, sized) = self
            .tiers
            .iter()
            .filter(|tier| tier.kind != TierKind::Overflow)
            .fold((0, 0), |(held, slots), tier| (held + tier.held(), slots + tier.snapshot.slots()));
        let all_waited = |status: &ResourceStatus| -> Duration {
            status.tiers.iter().map(|tier| tier.waits.all().served_after).sum()
        };
        let waited = all_waited(self).saturating_sub(all_waited(earlier));
        PoolMetrics {
            utilization_rate: share(sized_held as f64, sized as f64),
            allocation_rate: rate(allocations),
            release_rate: rate(releases),
            failure_rate: share(failures as f64, (allocations + failures) as f64),
            average_latency: waited.div_f64(allocations.max(1) as f64),
            average_hold: (releases > 0).then(|| {
                let slots = (held(self) + held(earlier)) / 2.0;
                interval.mul_f64(slots / releases as f64)
            }),
            latency,
            wait_latency,
            reasons: tiers.iter().fold(Refusals::default(), |sum, tier| sum.and(&tier.reasons)),
            steals: sum(|tier| tier.steals),
            interval,
            tiers,
        }
    }
}

/// The last look of [`Pool::metrics`](crate::Pool::metrics).
pub(super) struct LastLook(Mutex<ResourceStatus>);

impl LastLook {
    pub(super) fn new(status: ResourceStatus) -> Self {
        LastLook(Mutex::new(status))
    }

    /// What went on since then; `now` is the last look from here on.
    pub(super) fn advance(&self, now: ResourceStatus) -> PoolMetrics {
        // A panic cannot leave a status half written.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = now.since(&last);
        *last = now;
        metrics
    }
}
