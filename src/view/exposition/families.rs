//! What is shown: every family once, with its help, its unit, and where its samples come from. `docs/monitoring.md` lists them; a test holds the two
//! together.

#[cfg(all(feature = "cache", not(loom)))]
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Seen;
use super::sheet::{About, Descriptor, Label, Probe, Sheet, Value};
use super::shown::{Held, Rows};
use crate::admission::breaker::report::BreakerStatus;
use crate::admission::breaker::word::BreakerState;
use crate::admission::priority::Priority;
use crate::admission::tenants::Limit;
use crate::host::health::HealthMonitor;
use crate::host::level::Health;
#[cfg(all(feature = "cache", not(loom)))]
use crate::pool::cache::counts::CacheSnapshot;
use crate::pool::monitor::{TenantStatus, TierStatus};
use crate::pool::observe::{Observation, TierTrend};
use crate::pool::rows::TierKind;
use crate::pool::waits::Waits;
use crate::tier::census::SiteHolders;

/// A family of samples, each about a `T`.
struct Family<T> {
    what: Descriptor,
    samples: Samples<T>,
}

/// Writes what there is about one of them.
type Samples<T> = fn(&T, &mut About) -> fmt::Result;

const fn counter<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::counter(name, help), samples }
}

const fn gauge<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::gauge(name, help), samples }
}

const fn info<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::info(name, help), samples }
}

/// A histogram of times.
const fn histogram<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::histogram(name, help).seconds(), samples }
}

/// A gauge of time.
const fn seconds<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::gauge(name, help).seconds(), samples }
}

/// A gauge of bytes.
const fn bytes<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::gauge(name, help).bytes(), samples }
}

/// A counter of time.
const fn time<T>(name: &'static str, help: &'static str, samples: Samples<T>) -> Family<T> {
    Family { what: Descriptor::counter(name, help).seconds(), samples }
}

/// Writes all families.
pub(super) fn write(sheet: &mut Sheet, pools: &mut [Seen], health: Option<&HealthMonitor>) -> fmt::Result {
    sheet.family(&BUILD)?.about(&[]).add(&[("version", env!("CARGO_PKG_VERSION"))], 1u64)?;
    each(sheet, &POOL, |show| pools.iter().try_for_each(|pool| show(&[("pool", pool.name)], &pool.now)))?;
    let tiers = || {
        pools.iter().flat_map(|pool| {
            let trends = pool.now.status.tiers.iter().zip(&pool.now.tiers);
            trends.map(move |(tier, trend)| ([("pool", pool.name), ("tier", tier.name)], tier, trend))
        })
    };
    each(sheet, &TIER, |show| tiers().try_for_each(|(whom, tier, _)| show(&whom, tier)))?;
    each(sheet, &TREND, |show| tiers().try_for_each(|(whom, _, trend)| show(&whom, trend)))?;
    each(sheet, &BREAKER, |show| {
        tiers().try_for_each(|([pool, name], tier, _)| {
            let of_each = [("requests", &tier.breaker), ("factory", &tier.factory_breaker)];
            let mut there = of_each.into_iter().filter_map(|(of, breaker)| Some((of, breaker.as_ref()?)));
            there.try_for_each(|(of, breaker)| show(&[pool, name, ("breaker", of)], breaker))
        })
    })?;
    each(sheet, &TENANT, |show| {
        pools.iter().try_for_each(|pool| {
            let mut tenants = pool.now.status.tenants.iter();
            tenants.try_for_each(|tenant| show(&[("pool", pool.name), ("tenant", &tenant.name)], tenant))
        })
    })?;
    let bounded: Vec<_> = pools.iter_mut().flat_map(Bounded::of_tiers).collect();
    each(sheet, &BOUNDED, |show| bounded.iter().try_for_each(|of| show(&[("pool", &of.pool), ("tier", of.tier)], of)))?;
    #[cfg(all(feature = "cache", not(loom)))]
    each(sheet, &cache(), |show| {
        let of_each = pools.iter().flat_map(|pool| caches(&pool.now).map(move |caches| (pool.name, caches)));
        { of_each }.try_for_each(|(pool, caches)| {
            let first = caches[0];
            show(&[("pool", pool), ("tier", first.tier), ("cache", &first.name)], &caches)
        })
    })?;
    each(sheet, &HEALTH, |show| health.map_or(Ok(()), |monitor| show(&[], monitor)))
}

const fn bound_of(nanoseconds: u64) -> Duration {
    Duration::from_nanos(nanoseconds)
}

/// Of allocations: from what a magazine takes to what a stopped thread takes.
static ALLOCATE_BOUNDS: [Duration; 14] = [
    bound_of(10),
    bound_of(25),
    bound_of(50),
    bound_of(100),
    bound_of(250),
    bound_of(500),
    bound_of(1_000),
    bound_of(2_500),
    bound_of(10_000),
    bound_of(100_000),
    bound_of(1_000_000),
    bound_of(10_000_000),
    bound_of(100_000_000),
    bound_of(1_000_000_000),
];

/// Of waits: from a wake-up to what no user waits for.
static WAIT_BOUNDS: [Duration; 14] = [
    bound_of(10_000),
    bound_of(50_000),
    bound_of(100_000),
    bound_of(500_000),
    bound_of(1_000_000),
    bound_of(5_000_000),
    bound_of(10_000_000),
    bound_of(50_000_000),
    bound_of(100_000_000),
    bound_of(500_000_000),
    bound_of(1_000_000_000),
    bound_of(5_000_000_000),
    bound_of(10_000_000_000),
    bound_of(60_000_000_000),
];

/// What there may be any number of in a tier, as far as it is shown.
struct Bounded {
    pool: String,
    tier: &'static str,
    /// By tenant, tag and priority.
    uses: Rows<u64>,
    /// By line, tenant and tag.
    sites: Rows<Held>,
    /// By line and verdict.
    suspects: Rows<Held>,
}

impl Bounded {
    fn of_tiers(pool: &mut Seen) -> Vec<Bounded> {
        let Seen { name, now, shown } = pool;
        let mut by_tier: HashMap<&str, Vec<&SiteHolders>> = HashMap::new();
        now.holders.sites.iter().for_each(|holders| by_tier.entry(holders.tier).or_default().push(holders));
        let tiers = now.status.tiers.iter().map(|tier| {
            let uses = tier.uses.iter().map(|label| {
                let key = [text(label.tenant.as_deref()), text(label.tag), priority(label.priority).to_owned()];
                (Arc::new(key), label.allocations)
            });
            let sites = by_tier.get(tier.name).into_iter().flatten().map(|holders| {
                let key = [holders.site.to_string(), text(holders.tenant.as_deref()), text(holders.tag)];
                (Arc::new(key), Held { slots: holders.count as u64, oldest: holders.oldest })
            });
            let suspects = now.leaks.iter().filter(|suspect| suspect.tier == tier.name).map(|suspect| {
                let key = [suspect.site.to_string(), suspect.verdict.to_string(), String::new()];
                (Arc::new(key), Held { slots: suspect.late, oldest: suspect.oldest.age })
            });
            Bounded {
                pool: (*name).to_owned(),
                tier: tier.name,
                uses: shown.counters(USES, tier.name, tier.other_uses, uses),
                sites: shown.gauges(SITES, tier.name, sites),
                suspects: shown.gauges(SUSPECTS, tier.name, suspects),
            }
        });
        tiers.collect()
    }

    /// A sample for each line, and one for the others.
    fn by_site<V: Into<Value>>(&self, out: &mut About, value: fn(&Held) -> V) -> fmt::Result {
        for (key, held) in &self.sites.shown {
            let [site, tenant, tag] = &**key;
            out.add(&[("site", site), ("tenant", tenant), ("tag", tag)], value(held))?;
        }
        out.add(&[("site", OTHER), ("tenant", ""), ("tag", "")], value(&self.sites.other))
    }

    /// A sample for each line that holds slots for too long, and one for the others.
    fn by_suspect<V: Into<Value>>(&self, out: &mut About, value: fn(&Held) -> V) -> fmt::Result {
        for (key, held) in &self.suspects.shown {
            let [site, verdict, _] = &**key;
            out.add(&[("site", site), ("verdict", verdict)], value(held))?;
        }
        out.add(&[("site", OTHER), ("verdict", "")], value(&self.suspects.other))
    }
}

fn text(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}

/// What the sum of the others is called: no line is, since all end in numbers, and no priority.
const OTHER: &str = "other";
const USES: &str = "tierpool_label_allocations";
const SITES: &str = "tierpool_site_held_slots";
const SUSPECTS: &str = "tierpool_suspect_slots";

static BOUNDED: [Family<Bounded>; 6] = [
    counter(USES, "Slots handed out, by tenant, tag and priority.", |tier, out| {
        for (key, count) in &tier.uses.shown {
            let [tenant, tag, priority] = &**key;
            out.add(&[("tenant", tenant), ("tag", tag), ("priority", priority)], *count)?;
        }
        out.add(&[("tenant", ""), ("tag", ""), ("priority", OTHER)], tier.uses.other)
    }),
    gauge(SITES, "Slots held, by the line that allocated them, tenant and tag.", |tier, out| {
        tier.by_site(out, |held| held.slots)
    }),
    seconds("tierpool_site_oldest_hold", "How long the oldest of them has been held.", |tier, out| {
        tier.by_site(out, |held| held.oldest)
    }),
    gauge(SUSPECTS, "Slots held for longer than they should, by line and whether that is a leak.", |tier, out| {
        tier.by_suspect(out, |held| held.slots)
    }),
    seconds("tierpool_suspect_oldest_hold", "How long the oldest of them has been held.", |tier, out| {
        tier.by_suspect(out, |held| held.oldest)
    }),
    gauge(
        "tierpool_unlisted_label_sets",
        "Label sets that are summed as `other`, because the family has reached its limit in the tier.",
        |tier, out| {
            let of_each =
                [(USES, tier.uses.unlisted), (SITES, tier.sites.unlisted), (SUSPECTS, tier.suspects.unlisted)];
            of_each.into_iter().try_for_each(|(family, count)| out.add(&[("family", family)], count))
        },
    ),
];

/// What shows one thing in a family, by the labels of what it is.
type Show<'s, T> = &'s mut dyn FnMut(&[Label], &T) -> fmt::Result;

/// Writes families of samples about things, each of which `all` shows; those alone that have any.
fn each<T>(sheet: &mut Sheet, families: &[Family<T>], all: impl Fn(Show<T>) -> fmt::Result) -> fmt::Result {
    families.iter().try_for_each(|family| {
        let mut probe = Probe::default();
        // Stops at the first.
        _ = all(&mut |whom, it| (family.samples)(it, &mut probe.about(whom)));
        if !probe.found {
            return Ok(());
        }
        let mut samples = sheet.family(&family.what)?;
        all(&mut |whom, it| (family.samples)(it, &mut samples.about(whom)))
    })
}

static BUILD: Descriptor = Descriptor::info("tierpool_build", "The version of tierpool.");

static POOL: [Family<Observation>; 4] = [
    counter("tierpool_looks", "Looks at the pool; one a second.", |pool, out| out.add(&[], pool.number)),
    seconds("tierpool_look", "How long the last look took.", |pool, out| out.add(&[], pool.took)),
    seconds("tierpool_look_age", "How long ago the last look was: all other figures are so old.", |pool, out| {
        out.add(&[], pool.status.at.elapsed())
    }),
    counter(
        "tierpool_absorbed_refusals",
        "Refusals that were not the end of their request: it spilled over, or waited.",
        |pool, out| out.add(&[], pool.status.absorbed),
    ),
];

static TIER: [Family<TierStatus>; 31] = [
    info("tierpool_tier", "What the tier holds: memory, cpu, disk, overflow, or the name of a type.", |tier, out| {
        let kind = match tier.kind {
            TierKind::Memory { .. } => "memory",
            TierKind::Cpu => "cpu",
            TierKind::Disk { .. } => "disk",
            TierKind::Overflow => "overflow",
            TierKind::Custom { type_name } => type_name,
        };
        out.add(&[("kind", kind)], 1u64)
    }),
    gauge("tierpool_slots", "Slots by state; the sum is the capacity.", |tier, out| {
        let now = &tier.snapshot;
        let states = [
            ("free", now.free),
            ("reserved", now.reserved),
            ("leased", now.leased),
            ("detached", now.detached),
            ("shared", now.shared),
            ("retired", now.retired),
            ("dirty", now.dirty),
            ("maintenance", now.maintenance),
            ("claimed", now.claimed),
            ("quarantined", now.quarantined),
            ("absent", now.absent),
        ];
        states.into_iter().try_for_each(|(state, slots)| out.add(&[("state", state)], slots))
    }),
    gauge("tierpool_capacity_slots", "Slots that the tier has at most.", |tier, out| {
        out.add(&[], tier.snapshot.capacity)
    }),
    gauge("tierpool_min_capacity_slots", "Slots below which the tier does not shrink.", |tier, out| {
        out.add(&[], tier.min_capacity)
    }),
    gauge("tierpool_present_slots", "Slots that the tier has at present.", |tier, out| {
        out.add(&[], tier.snapshot.slots())
    }),
    gauge(
        "tierpool_held_slots",
        "Slots that somebody has; divided by those present it is the utilization.",
        |tier, out| out.add(&[], tier.held()),
    ),
    bytes("tierpool_slot_size", "Bytes of a slot of memory or disk space.", |tier, out| {
        out.add_some(
            &[],
            match tier.kind {
                TierKind::Memory { bytes } => Some(bytes as u64),
                TierKind::Disk { bytes } => Some(bytes),
                _ => None,
            },
        )
    }),
    bytes("tierpool_memory_reserved", "Address space that the tier has for all its slots.", |tier, out| {
        out.add_some(&[], tier.memory.as_ref().map(|memory| memory.reserved_bytes))
    }),
    bytes("tierpool_memory_committed", "What of it has memory, or gets it when it is touched.", |tier, out| {
        out.add_some(&[], tier.memory.as_ref().map(|memory| memory.committed_bytes))
    }),
    gauge("tierpool_waiters", "Threads and futures that wait for a slot.", |tier, out| {
        out.add(&[], tier.snapshot.waiting)
    }),
    gauge("tierpool_magazines", "Magazines that threads own.", |tier, out| out.add(&[], tier.snapshot.magazines)),
    gauge("tierpool_scarce", "1 if the tier was out of free slots lately.", |tier, out| {
        out.add(&[], tier.snapshot.scarce)
    }),
    gauge("tierpool_closed", "1 if the tier is closed.", |tier, out| out.add(&[], tier.snapshot.closed)),
    counter("tierpool_allocations", "Slots handed out.", |tier, out| out.add(&[], tier.snapshot.allocations)),
    counter("tierpool_magazine_hits", "Allocations served by what the thread had at hand.", |tier, out| {
        out.add(&[], tier.snapshot.hits)
    }),
    counter("tierpool_releases", "Slots given back by leases.", |tier, out| out.add(&[], tier.snapshot.releases)),
    counter("tierpool_depot_refills", "Times that an empty magazine was filled from the tier's depot.", |tier, out| {
        out.add(&[], tier.snapshot.refills)
    }),
    counter("tierpool_depot_spills", "Times that a magazine gave a batch of hints to the depot.", |tier, out| {
        out.add(&[], tier.snapshot.spills)
    }),
    counter("tierpool_steals", "Times that one was filled with hints from other threads' magazines.", |tier, out| {
        out.add(&[], tier.snapshot.steals)
    }),
    counter("tierpool_refusals", "Requests that were refused in the end, each once, by reason.", |tier, out| {
        tier.reasons.iter().try_for_each(|(reason, count)| out.add(&[("reason", reason.name())], count))
    }),
    counter(
        "tierpool_tier_refusals",
        "Allocations that found no slot, also of requests that then waited or went elsewhere.",
        |tier, out| out.add(&[], tier.snapshot.refusals),
    ),
    counter(
        "tierpool_denied_requests",
        "Requests that a quota or a breaker has refused before the tier was asked.",
        |tier, out| out.add(&[], tier.denied),
    ),
    counter(
        "tierpool_no_wait_refusals",
        "Requests that would not wait and found no slot, by priority, also of those that went elsewhere.",
        |tier, out| {
            tier.refused.iter().try_for_each(|(urgency, &count)| out.add(&[("priority", priority(urgency))], count))
        },
    ),
    counter(
        "tierpool_spilled_requests",
        "Requests served in place of a smaller tier that had refused them.",
        |tier, out| out.add(&[], tier.spilled_here),
    ),
    counter("tierpool_waits", "Waits that have ended, by priority and how.", |tier, out| {
        tier.waits.iter().try_for_each(|(urgency, waits)| {
            let each = |(end, count)| out.add(&[("priority", priority(urgency)), ("end", end)], count);
            ends(waits).into_iter().try_for_each(each)
        })
    }),
    histogram(
        "tierpool_allocate",
        "How long allocations took that did not wait, estimated from one in many.",
        |tier, out| out.histogram(&[], &tier.latency, &ALLOCATE_BOUNDS),
    ),
    histogram("tierpool_wait", "How long requests have waited, however that ended, by priority.", |tier, out| {
        let each =
            |(urgency, took): (Priority, _)| out.histogram(&[("priority", priority(urgency))], took, &WAIT_BOUNDS);
        tier.wait_latency.iter().try_for_each(each)
    }),
    seconds("tierpool_longest_wait", "The longest wait since the pool was built, by priority.", |tier, out| {
        tier.waits.iter().try_for_each(|(urgency, waits)| out.add(&[("priority", priority(urgency))], waits.longest))
    }),
    gauge(
        "tierpool_high_water_slots",
        "The most slots that were seen in use at once since the tier was built.",
        |tier, out| out.add(&[], tier.snapshot.high_water),
    ),
    counter("tierpool_quarantines", "Times that a slot went out of service, for want of a value.", |tier, out| {
        out.add(&[], tier.snapshot.quarantines)
    }),
    counter("tierpool_reclaimer_actions", "What the reclaimer's passes have done, by action.", |tier, out| {
        let done = &tier.snapshot.reclaimed;
        let actions = [
            ("retired", done.retired),
            ("cleaned", done.cleaned),
            ("expired", done.expired),
            ("rebuilt", done.rebuilt),
            ("renewed", done.renewed),
            ("leaks", done.leaks),
            ("added", done.added),
            ("removed", done.removed),
        ];
        actions.into_iter().try_for_each(|(action, count)| out.add(&[("action", action)], count))
    }),
];

static TREND: [Family<TierTrend>; 1] =
    [gauge("tierpool_most_held_slots", "The most slots that were held at a look of the last minute.", |trend, out| {
        out.add(&[], trend.most_held)
    })];

static BREAKER: [Family<BreakerStatus>; 5] = [
    gauge(
        "tierpool_breaker_state",
        "1 for the state that the circuit breaker is in, 0 for the others.",
        |breaker, out| {
            let each = |state: BreakerState| out.add(&[("state", &state.to_string())], state == breaker.state);
            BreakerState::ALL.into_iter().try_for_each(each)
        },
    ),
    counter("tierpool_breaker_transitions", "Changes of the circuit breaker's state, by cause.", |breaker, out| {
        breaker.changes.iter().try_for_each(|(cause, count)| out.add(&[("cause", cause)], count))
    }),
    counter("tierpool_breaker_calls", "Calls that the circuit breaker has judged, by outcome.", |breaker, out| {
        out.add(&[("outcome", "succeeded")], breaker.total_calls.saturating_sub(breaker.total_failed))?;
        out.add(&[("outcome", "failed")], breaker.total_failed)?;
        out.add(&[("outcome", "unjudged")], breaker.total_unjudged)?;
        out.add(&[("outcome", "refused")], breaker.total_refused)
    }),
    counter("tierpool_breaker_slow_calls", "Calls that the circuit breaker has judged as slow.", |breaker, out| {
        out.add(&[], breaker.total_slow)
    }),
    gauge(
        "tierpool_breaker_failure_ratio",
        "How many of the calls that it judges by failed, from 0 to 1.",
        |breaker, out| out.add(&[], breaker.failure_rate),
    ),
];

static TENANT: [Family<TenantStatus>; 8] = [
    counter("tierpool_tenant_allocations", "Slots handed out on the tenant's behalf.", |tenant, out| {
        out.add(&[], tenant.allocations)
    }),
    counter("tierpool_tenant_refusals", "The tenant's own requests that were refused, each once.", |tenant, out| {
        out.add(&[], tenant.refusals)
    }),
    gauge("tierpool_tenant_held_slots", "Slots that the tenant and its children hold.", |tenant, out| {
        out.add(&[], tenant.held.slots)
    }),
    bytes("tierpool_tenant_held", "Bytes of those slots.", |tenant, out| out.add(&[], tenant.held.bytes)),
    gauge(
        "tierpool_tenant_limit_slots",
        "Slots that they may hold: the hard limit, and the soft one.",
        |tenant, out| {
            limits(tenant).into_iter().try_for_each(|(limit, of)| out.add_some(&[("limit", limit)], bound(of.slots)))
        },
    ),
    bytes("tierpool_tenant_limit", "Bytes that they may hold.", |tenant, out| {
        limits(tenant).into_iter().try_for_each(|(limit, of)| out.add_some(&[("limit", limit)], bound(of.bytes)))
    }),
    counter("tierpool_tenant_waits", "Waits of the tenant's own requests that have ended, by how.", |tenant, out| {
        ends(&tenant.waits).into_iter().try_for_each(|(end, count)| out.add(&[("end", end)], count))
    }),
    time("tierpool_tenant_wait", "How long the waits that were served took, all together.", |tenant, out| {
        out.add(&[], tenant.waits.served_after)
    }),
];

/// Caches of one tier and name, as one: nothing keeps a program from having several.
#[cfg(all(feature = "cache", not(loom)))]
type Caches<'c> = Vec<&'c CacheSnapshot>;

/// The caches of a pool by tier and name, one at least each.
#[cfg(all(feature = "cache", not(loom)))]
fn caches(seen: &Observation) -> impl Iterator<Item = Caches<'_>> {
    let mut by_name: BTreeMap<(&str, &str), Caches> = BTreeMap::new();
    for cache in &seen.caches {
        by_name.entry((cache.tier, &cache.name)).or_default().push(cache);
    }
    by_name.into_values()
}

#[cfg(all(feature = "cache", not(loom)))]
fn sum(caches: &[&CacheSnapshot], of: fn(&CacheSnapshot) -> u64) -> u64 {
    caches.iter().map(|cache| of(cache)).sum()
}

#[cfg(all(feature = "cache", not(loom)))]
const fn cache<'c>() -> [Family<Caches<'c>>; 8] {
    [
        counter(
            "tierpool_cache_requests",
            "Requests of a keyed cache, by whether they found their entry.",
            |caches, out| {
                out.add(&[("result", "hit")], sum(caches, |cache| cache.hits))?;
                out.add(&[("result", "miss")], sum(caches, |cache| cache.misses))
            },
        ),
        counter("tierpool_cache_insertions", "Entries that were initialised and kept.", |caches, out| {
            out.add(&[], sum(caches, |cache| cache.insertions))
        }),
        counter("tierpool_cache_ended_entries", "Entries that are kept no more, by why.", |caches, out| {
            out.add(&[("end", "evicted")], sum(caches, |cache| cache.evictions))?;
            out.add(&[("end", "expired")], sum(caches, |cache| cache.expirations))?;
            out.add(&[("end", "removed")], sum(caches, |cache| cache.removals))
        }),
        counter("tierpool_cache_unserved_requests", "Requests that got no entry, by why.", |caches, out| {
            out.add(&[("reason", "refused")], sum(caches, |cache| cache.refusals))?;
            out.add(&[("reason", "init_failed")], sum(caches, |cache| cache.failures))
        }),
        gauge("tierpool_cache_entries", "Entries that the cache has.", |caches, out| {
            out.add(&[], sum(caches, |cache| cache.entries))
        }),
        gauge("tierpool_cache_pinned_entries", "Those that are in use and cannot be evicted.", |caches, out| {
            out.add(&[], sum(caches, |cache| cache.pinned))
        }),
        gauge(
            "tierpool_cache_weight",
            "What the entries weigh: as much as there are, without a weigher.",
            |caches, out| out.add(&[], sum(caches, |cache| cache.weight)),
        ),
        gauge("tierpool_cache_weight_limit", "What they may weigh.", |caches, out| {
            out.add(&[], sum(caches, |cache| cache.capacity))
        }),
    ]
}

static HEALTH: [Family<HealthMonitor>; 3] = [
    gauge("tierpool_health", "1 for how well all is, 0 for the other levels.", |monitor, out| {
        let levels = [Health::Healthy, Health::Degraded, Health::Unhealthy];
        let now = monitor.health();
        levels.into_iter().try_for_each(|level| out.add(&[("level", &level.to_string())], level == now))
    }),
    gauge("tierpool_ready", "1 if requests should be sent here.", |monitor, out| out.add(&[], monitor.is_ready())),
    gauge("tierpool_live", "1 if checks are made as they should be; 0 is a call for a restart.", |monitor, out| {
        out.add(&[], monitor.is_live())
    }),
];

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Critical => "critical",
    }
}

fn ends(waits: &Waits) -> [(&'static str, u64); 3] {
    [("served", waits.served), ("in_vain", waits.in_vain), ("given_up", waits.given_up)]
}

fn limits(tenant: &TenantStatus) -> [(&'static str, Limit); 2] {
    [("hard", tenant.hard), ("soft", tenant.soft)]
}

/// A limit, unless it is none.
fn bound(limit: u64) -> Option<u64> {
    (limit != u64::MAX).then_some(limit)
}
