//! The bars that tierpool's speed is held to, each computed from the rows of one run.

use super::row::Row;
use crate::run::cast::FALLBACK;
use crate::subject::Kind;
use crate::workload::tail::CONTROL;
use crate::workload::{cache, detect, exposition, pool_pair, route, scarcity, touch, upkeep};

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What is measured.
    pub what: String,
    /// What it came to; none if its workload was not run, or no peer can do it.
    pub value: Option<f64>,
    /// The most that it may come to.
    pub limit: f64,
}

impl Bar {
    /// Whether the bar is reached, once it is measured.
    pub fn reached(&self) -> Option<bool> {
        self.value.map(|value| value <= self.limit)
    }
}

/// All bars, from the rows of one run. (The portable fence has none: it is shown in every workload as [`FALLBACK`].)
pub fn all(rows: &[Row]) -> Vec<Bar> {
    debug_assert!(rows.iter().all(|row| row.subject != FALLBACK || row.kind == Kind::Ours));
    let rows = Rows(rows);
    let mut bars = core("", "tierpool", rows);
    bars.extend(special(rows));
    bars.extend(core("with the reclaimer: ", "tierpool+reclaimer", rows));
    bars.extend(pool_pair(rows));
    bars.extend(route(rows));
    bars.extend(detect(rows));
    bars.push(exposition(rows));
    bars.push(touch(rows));
    bars.push(cache(rows));
    bars.extend(read(rows));
    bars.extend(wake(rows));
    bars.extend(scarcity(rows));
    bars.extend(upkeep(rows));
    bars
}

/// The rows of one run, by name.
#[derive(Clone, Copy)]
struct Rows<'a>(&'a [Row]);

impl<'a> Rows<'a> {
    fn get(self, workload: &str, threads: usize, subject: &str) -> Option<&'a Row> {
        self.0.iter().find(|row| row.workload == workload && row.threads == threads && row.subject == subject)
    }

    fn extra(self, workload: &str, threads: usize, subject: &str, extra: &str) -> Option<f64> {
        self.get(workload, threads, subject)?.extra(extra)
    }
}

fn over(one: Option<&Row>, other: Option<&Row>) -> Option<f64> {
    Some(one?.median / other?.median)
}

fn bar(what: &str, limit: f64, value: Option<f64>) -> Bar {
    Bar { what: what.into(), limit, value: value.filter(|value| value.is_finite()) }
}

/// What each form of a tier should reach: allocating and releasing.
fn core(prefix: &str, subject: &str, rows: Rows) -> Vec<Bar> {
    let ours = |workload, threads| rows.get(workload, threads, subject);
    let pool = |workload, threads| Some(ours(workload, threads)?.ratios.pool);
    let allocator = |workload, threads| Some(ours(workload, threads)?.ratios.allocator);
    let extra = |workload, threads, name| ours(workload, threads)?.extra(name);
    let slowest = |subject| rows.extra("tail", 1, subject, "ns_p99_99");
    let bar = |what: &str, limit, value| bar(&format!("{prefix}{what}"), limit, value);
    vec![
        bar("pair-4096, 1 thread / best pool", 0.75, pool("pair-4096", 1)),
        bar("pair-4096, 1 thread / atomic add", 2.2, ours("pair-4096", 1).map(|row| row.ratios.atomic_add)),
        bar("pair-4096, 2 threads / best pool", 0.30, pool("pair-4096", 2)),
        bar("pair-4096: 2 threads / 1 thread", 1.15, over(ours("pair-4096", 2), ours("pair-4096", 1))),
        bar("handoff / best pool", 0.40, pool("handoff", 2)),
        bar("handoff / best allocator", 0.60, allocator("handoff", 2)),
        bar("hold, 1 thread / best pool", 0.70, pool("hold", 1)),
        bar("burst / best pool", 0.70, pool("burst", 1)),
        bar("refuse / best pool", 1.0, pool("refuse", 1)),
        bar("refuse: heap allocations in 10,000 refusals", 0.0, extra("refuse", 1, "heap_allocations")),
        bar("steal: ns a slot", 150.0, ours("steal", 2).map(|row| row.median)),
        bar("pair-1048576 / pair-4096, 1 thread", 1.1, over(ours("pair-1048576", 1), ours("pair-4096", 1))),
        bar("pair-1048576, 1 thread / best allocator", 0.40, allocator("pair-1048576", 1)),
        bar(
            "memory: MB beside the payload, 1,000,000 slots",
            50.0,
            extra("memory", 1, "bytes").map(|bytes| bytes / 1e6),
        ),
        bar(
            "tail: ns of p99.99 beyond the control's",
            1000.0,
            slowest(subject).and_then(|ours| Some(ours - slowest(CONTROL)?)),
        ),
    ]
}

/// What an explicit magazine and the bulk forms should reach.
fn special(rows: Rows) -> Vec<Bar> {
    let ours = |subject| rows.get("burst", 1, subject);
    let local = rows.get("pair-4096", 1, "tierpool-local");
    vec![
        bar("pair-4096, 1 thread: local / atomic add", 1.8, local.map(|row| row.ratios.atomic_add)),
        bar("burst: in bulk / one by one", 0.50, over(ours("tierpool-bulk"), ours("tierpool"))),
    ]
}

/// What a pool may add to its tier.
fn pool_pair(rows: Rows) -> Vec<Bar> {
    let against = |threads, subject| rows.extra(pool_pair::NAME, threads, subject, pool_pair::RATIO);
    let mebibytes = rows.get("pair-1048576", 1, pool_pair::PLAIN).map(|row| row.ratios.allocator);
    vec![
        bar("pool-pair, 1 thread: everything configured / tier", 1.5, against(1, pool_pair::FULL)),
        bar("pool-pair, 2 threads: everything configured / tier", 1.5, against(2, pool_pair::FULL)),
        bar("pool-pair, 1 thread: nothing configured / tier", 1.15, against(1, pool_pair::PLAIN)),
        bar("pool-pair, 2 threads: nothing configured / tier", 1.15, against(2, pool_pair::PLAIN)),
        bar("pair-1048576, 1 thread: a pool's memory / best allocator", 0.40, mebibytes),
    ]
}

/// What a decision of the router should cost.
fn route(rows: Rows) -> Vec<Bar> {
    let few = rows.get(route::NAME, 1, route::FEW);
    let many = rows.get(route::NAME, 1, route::MANY);
    vec![
        bar("route: ns a decision over 64 nodes", 250.0, few.map(|row| row.median)),
        bar("route: over 4,096 nodes / over 64", 1.5, over(many, few)),
    ]
}

/// What it should cost to ask what can be had.
fn detect(rows: Rows) -> Vec<Bar> {
    let median = |subject| rows.get(detect::NAME, 1, subject).map(|row| row.median);
    vec![
        bar("detect: ns a read", 5.0, median(detect::ANYBODY)),
        bar("detect: ns a read by a reader", 5.0, median(detect::READER)),
    ]
}

/// What a scrape should cost.
fn exposition(rows: Rows) -> Bar {
    let many = rows.get(exposition::NAME, 1, exposition::MANY);
    bar("exposition: ms for 64 tiers", 5.0, many.map(|row| row.median / 1e6))
}

/// What the first touch of a slot should cost.
fn touch(rows: Rows) -> Bar {
    let row = |subject| rows.get(touch::NAME, 1, subject);
    bar("touch: first, after prefaulting / warm", 1.1, over(row(touch::FIRST), row(touch::WARM)))
}

/// What a hit of the keyed cache should cost.
fn cache(rows: Rows) -> Bar {
    let row = |subject| rows.get(cache::NAME, 1, subject);
    bar("cache: a hit / quick_cache's own", 1.3, over(row(cache::OURS), row(cache::QUICK)))
}

/// What reading a shared value should cost.
fn read(rows: Rows) -> Vec<Bar> {
    let row = |threads, subject| rows.get("read", threads, subject);
    let against = |threads, peer| over(row(threads, "tierpool"), row(threads, peer));
    vec![
        bar("read, 1 thread: pin and read / atomic add", 2.5, row(1, "tierpool").map(|row| row.ratios.atomic_add)),
        bar("read, 1 thread / sharded-slab", 1.0, against(1, "sharded-slab")),
        bar("read, 1 thread / crossbeam-epoch", 1.0, against(1, "crossbeam-epoch")),
        bar("read, 2 threads / sharded-slab", 1.0, against(2, "sharded-slab")),
        bar("read, 2 threads / crossbeam-epoch", 1.0, against(2, "crossbeam-epoch")),
    ]
}

/// What waiting should cost, beside the best pool that lets wait.
fn wake(rows: Rows) -> Vec<Bar> {
    let best = |workload| Some(rows.get(workload, 2, "tierpool")?.ratios.pool);
    vec![
        bar("wake: from a release to the waiter running / best pool", 0.8, best("wake")),
        bar("wake-rate: a hold / best pool", 0.8, best("wake-rate")),
    ]
}

/// Who gets what when there is not enough.
fn scarcity(rows: Rows) -> Vec<Bar> {
    let extra = |workload, threads, name| rows.extra(workload, threads, scarcity::OURS, name);
    let handover = rows.get(scarcity::SHARES, scarcity::THREADS, scarcity::OURS).map(|row| row.ratios.pool);
    vec![
        bar("scarcity: hand-over / best pool", 0.8, handover),
        bar(
            "scarcity: a tenant's share, the farthest from its due, of it",
            0.02,
            extra(scarcity::SHARES, scarcity::THREADS, scarcity::OFF_DUE),
        ),
        bar(
            "high-flood: p99 of an urgent wait / without the flood",
            2.0,
            extra(scarcity::FLOOD, scarcity::FLOODED, scarcity::TO_ALONE),
        ),
    ]
}

/// What a tier does for itself should take no longer than that, and be noticed by nobody.
fn upkeep(rows: Rows) -> Vec<Bar> {
    let whole = |workload, threads, subject| rows.extra(workload, threads, subject, "ms");
    // Beside a thread that takes the same time and as much of the cache.
    let noticed = |workload, [beside, ..]: [&str; 3]| rows.extra(workload, 2, beside, upkeep::TO_STREAMING);
    vec![
        bar("expire: ms for 1,000,000 handles", 100.0, whole("expire", 2, upkeep::WORK)),
        bar("expire: p99.9 of pairs / without", 1.1, noticed("expire", upkeep::PAIRS)),
        bar("expire: p99.9 of a walk / without", 1.1, noticed("expire", upkeep::WALK)),
        bar("leak-scan: ms for 1,000,000 slots, none to report", 20.0, whole("leak-scan", 1, upkeep::YOUNG)),
        bar("leak-scan: ms for 1,000,000 slots, all reported before", 20.0, whole("leak-scan", 1, upkeep::REPORTED)),
        bar("snapshot: ms for 1,000,000 slots", 20.0, whole("snapshot", 2, upkeep::WORK)),
        bar("snapshot: p99.9 of pairs / without", 1.05, noticed("snapshot", upkeep::PAIRS)),
        bar("snapshot: p99.9 of a walk / without", 1.05, noticed("snapshot", upkeep::WALK)),
        bar("by-site: ms for 1,000,000 holders", 20.0, whole("by-site", 2, upkeep::WORK)),
        bar("by-site: p99.9 of pairs / without", 1.05, noticed("by-site", upkeep::PAIRS)),
        bar("by-site: p99.9 of a walk / without", 1.05, noticed("by-site", upkeep::WALK)),
        bar("grow: p99.9 of pairs / without", 1.2, noticed("grow", upkeep::PAIRS)),
        bar("grow: p99.9 of a walk / without", 1.2, noticed("grow", upkeep::WALK)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_was_not_run_is_neither_reached_nor_missed() {
        assert!(all(&[]).iter().all(|bar| bar.reached().is_none()));
    }
}
