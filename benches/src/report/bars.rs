//! The bars that tierpool's speed is held to, each computed from the rows of one run.

use super::row::Row;
use crate::run::cast::FALLBACK;
use crate::subject::Kind;
use crate::workload::tail::CONTROL;

/// One bar.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// What is measured.
    pub what: &'static str,
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

/// All bars. (The portable fence has none: it is shown in every workload as [`FALLBACK`].)
pub fn all(rows: &[Row]) -> Vec<Bar> {
    let row = |workload: &str, threads, subject: &str| {
        rows.iter().find(|row| row.workload == workload && row.threads == threads && row.subject == subject)
    };
    let ours = |workload: &str, threads| row(workload, threads, "tierpool");
    let pool = |workload, threads| Some(ours(workload, threads)?.ratios.pool);
    let allocator = |workload, threads| Some(ours(workload, threads)?.ratios.allocator);
    let adds = |subject| Some(row("pair-4096", 1, subject)?.ratios.atomic_add);
    let over = |one: Option<&Row>, other: Option<&Row>| Some(one?.median / other?.median);
    let slowest = |subject| row("tail", 1, subject)?.extra("ns_p99_99");

    debug_assert!(rows.iter().all(|row| row.subject != FALLBACK || row.kind == Kind::Ours));
    let bar = |what, limit, value: Option<f64>| Bar { what, limit, value: value.filter(|value| value.is_finite()) };
    vec![
        bar("pair-4096, 1 thread: tierpool / best pool", 0.75, pool("pair-4096", 1)),
        bar("pair-4096, 1 thread: tierpool / atomic add", 2.2, adds("tierpool")),
        bar("pair-4096, 1 thread: tierpool-local / atomic add", 1.8, adds("tierpool-local")),
        bar("pair-4096, 2 threads: tierpool / best pool", 0.30, pool("pair-4096", 2)),
        bar("pair-4096: tierpool, 2 threads / 1 thread", 1.15, over(ours("pair-4096", 2), ours("pair-4096", 1))),
        bar("handoff: tierpool / best pool", 0.40, pool("handoff", 2)),
        bar("handoff: tierpool / best allocator", 0.60, allocator("handoff", 2)),
        bar("hold, 1 thread: tierpool / best pool", 0.70, pool("hold", 1)),
        bar("burst: tierpool / best pool", 0.70, pool("burst", 1)),
        bar("burst: in bulk / one by one", 0.50, over(row("burst", 1, "tierpool-bulk"), ours("burst", 1))),
        bar("refuse: tierpool / best pool", 1.0, pool("refuse", 1)),
        bar(
            "refuse: heap allocations in 10,000 refusals",
            0.0,
            ours("refuse", 1).and_then(|row| row.extra("heap_allocations")),
        ),
        bar("steal: ns a slot", 150.0, ours("steal", 2).map(|row| row.median)),
        bar("pair-1048576 / pair-4096, tierpool, 1 thread", 1.1, over(ours("pair-1048576", 1), ours("pair-4096", 1))),
        bar("pair-1048576, 1 thread: tierpool / best allocator", 0.40, allocator("pair-1048576", 1)),
        bar(
            "memory: MB beside the payload, 1,000,000 slots",
            50.0,
            ours("memory", 1).and_then(|row| Some(row.extra("bytes")? / 1e6)),
        ),
        bar(
            "tail: ns of p99.99 beyond the control's",
            1000.0,
            slowest("tierpool").and_then(|ours| Some(ours - slowest(CONTROL)?)),
        ),
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
