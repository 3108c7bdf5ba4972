//! What is timed. Each workload is written once, for any [`Subject`](crate::subject::Subject).

pub mod burst;
pub mod cache;
pub mod check;
pub mod depot;
pub mod detect;
pub mod exposition;
pub mod floor;
pub mod handoff;
pub mod hold;
pub mod memory;
pub mod pair;
pub mod pool_pair;
pub mod read;
pub mod refuse;
pub mod route;
pub mod scarcity;
pub mod steal;
pub mod tail;
pub mod touch;
pub mod upkeep;
pub mod wake;

use crate::run::cast::Cast;

/// Slots of a pool, unless a workload needs another number.
pub const CAPACITY: usize = 1024;

/// How a workload is run, and what its samples are.
pub enum Plan {
    /// Batches: each sample is the mean of one, in nanoseconds an operation.
    Batches(fn(&mut Cast)),
    /// Single operations, each timed.
    Singles(fn(&mut Cast)),
    /// Memory, once a subject, each in its own process.
    Memory,
    /// More threads than slots and cores, each subject for a while in turn.
    Turns(scarcity::Run),
    /// What a tier does for itself, in a process of its own.
    Upkeep(upkeep::Run),
}

/// One workload on a number of threads.
pub struct Workload {
    /// Its name in the output.
    pub name: &'static str,
    /// How many threads work at once; where there are more threads than cores, how many cores they need.
    pub threads: usize,
    /// Whether it runs when none is asked for.
    pub usual: bool,
    /// Whether it makes a difference to it which fence a tier has.
    pub fenced: bool,
    /// How it is run.
    pub plan: Plan,
}

const fn batches(name: &'static str, threads: usize, fill: fn(&mut Cast)) -> Workload {
    Workload { name, threads, usual: true, fenced: true, plan: Plan::Batches(fill) }
}

/// One that has nothing to do with how a tier hands out.
const fn unfenced(name: &'static str, threads: usize, fill: fn(&mut Cast)) -> Workload {
    Workload { fenced: false, ..batches(name, threads, fill) }
}

/// All workloads.
pub static ALL: [Workload; 36] = [
    batches("floor", 1, floor::fill),
    batches("pair-64", 1, pair::alone::<64, CAPACITY>),
    batches("pair-64", 2, pair::together::<64, CAPACITY>),
    batches("pair-4096", 1, pair::alone::<4096, CAPACITY>),
    batches("pair-4096", 2, pair::together::<4096, CAPACITY>),
    batches("pair-1048576", 1, pool_pair::mebibyte_alone),
    batches("pair-1048576", 2, pool_pair::mebibyte_together),
    batches(pool_pair::NAME, 1, pool_pair::alone),
    batches(pool_pair::NAME, 2, pool_pair::together),
    batches("hold", 1, hold::alone),
    batches("hold", 2, hold::together),
    batches("handoff", 2, handoff::fill),
    batches("burst", 1, burst::fill),
    batches("read", 1, read::alone),
    batches("read", 2, read::together),
    batches("refuse", 1, refuse::fill),
    unfenced(route::NAME, 1, route::fill),
    unfenced(detect::NAME, 1, detect::fill),
    unfenced(exposition::NAME, 1, exposition::fill),
    unfenced(touch::NAME, 1, touch::fill),
    unfenced(cache::NAME, 1, cache::fill),
    batches("steal", 2, steal::fill::<{ steal::HALF }>),
    batches("steal-one", 2, steal::fill::<1>),
    Workload { name: "tail", threads: 1, usual: true, fenced: true, plan: Plan::Singles(tail::fill) },
    Workload { name: "wake", threads: 2, usual: true, fenced: true, plan: Plan::Singles(wake::latency) },
    batches("wake-rate", 2, wake::rate),
    Workload { name: scarcity::SHARES, threads: 2, usual: true, fenced: true, plan: Plan::Turns(scarcity::shares) },
    Workload { name: scarcity::FLOOD, threads: 2, usual: true, fenced: true, plan: Plan::Turns(scarcity::flood) },
    Workload { name: "memory", threads: 1, usual: true, fenced: true, plan: Plan::Memory },
    Workload { name: "expire", threads: 2, usual: true, fenced: true, plan: Plan::Upkeep(upkeep::EXPIRE) },
    Workload { name: "leak-scan", threads: 1, usual: true, fenced: true, plan: Plan::Upkeep(upkeep::LEAK_SCAN) },
    Workload { name: "grow", threads: 2, usual: true, fenced: true, plan: Plan::Upkeep(upkeep::GROW) },
    Workload { name: "snapshot", threads: 2, usual: true, fenced: true, plan: Plan::Upkeep(upkeep::SNAPSHOT) },
    Workload { name: "by-site", threads: 2, usual: true, fenced: true, plan: Plan::Upkeep(upkeep::BY_SITE) },
    Workload { usual: false, ..batches("depot", 1, depot::alone) },
    Workload { usual: false, ..batches("depot", 2, depot::together) },
];
