//! Models of tierpool's guarantees; the models are in `tests/`, the table of what guards what in `README.md`.
//!
//! This crate holds what they share: the exploration with its log, and a value that notices two hands on it. Without
//! `--cfg loom` it is empty, and so are they.
#![cfg(all(loom, not(shuttle)))]

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use loom::cell::UnsafeCell;
use loom::thread::JoinHandle;
use tierpool::{Lease, Tier, TierBuilder};

/// How long a model may take; `LOOM_MAX_DURATION`, in seconds, overrides.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `model` once for each order of its steps that loom can tell apart, with at most `preemptions` switches away from
/// a thread that could go on (`LOOM_MAX_PREEMPTIONS` overrides), and logs how many there were, and whether all.
pub fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = builder.max_branches.max(20_000);
    builder.max_duration = builder.max_duration.or(Some(PATIENCE));
    builder.checkpoint_interval = 500; // how often loom looks at the time
    let (bound, patience) = (builder.preemption_bound.unwrap_or_default(), builder.max_duration.unwrap_or_default());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let start = Instant::now();
    stop_at_the_first_failure();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        tierpool::internals::begin();
        model();
    });
    // To the real stderr, past the test harness: a log of how far each model went is wanted of passing tests too.
    let current = std::thread::current();
    let (name, runs) = (current.name().unwrap_or("model"), runs.load(Ordering::Relaxed));
    let seconds = start.elapsed().as_secs_f64();
    let how_far = if seconds < patience.as_secs_f64() { "all" } else { "cut short" };
    let log = format!("explored {name}: {runs} executions, preemptions <= {bound}, {seconds:.1} s, {how_far}");
    let _ = writeln!(std::io::stderr(), "{log}");
}

/// A failed model unwinds through leases and tiers, whose steps loom no longer follows: the process would abort with a
/// trace of that instead. So it ends here, with the one message that counts.
///
/// Once, and before loom's coroutines first run: their own hook, which lets their cancellations pass, goes on top.
fn stop_at_the_first_failure() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let _ = writeln!(std::io::stderr(), "model {} failed: {panic}", thread.name().unwrap_or("?"));
            std::process::exit(101);
        }));
    });
}

/// A thread that has given back its magazines when it is joined, as one of `std` has. (loom runs the destructors of
/// thread-locals too, but only after the join.)
pub fn spawn<R: 'static>(body: impl FnOnce() -> R + 'static) -> JoinHandle<R> {
    loom::thread::spawn(move || {
        let result = body();
        tierpool::internals::exit_thread();
        result
    })
}

/// Counts the values of one execution, and the end of its tier. Plain `std` atomics: they are the observer's, and no part
/// of the model.
#[derive(Clone, Default)]
pub struct Census {
    attempts: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Census {
    /// A tier of counted values.
    pub fn tier(&self, capacity: usize) -> Tier<Value> {
        self.tier_failing(capacity, |_| false)
    }

    /// A tier whose factory fails at the attempts (from 0) that `fails` says.
    pub fn tier_failing(&self, capacity: usize, fails: impl Fn(usize) -> bool + Send + Sync + 'static) -> Tier<Value> {
        self.tier_of_failing(Tier::builder("model").capacity(capacity), fails)
    }

    /// A tier that is told more than its capacity.
    pub fn tier_of(&self, builder: TierBuilder<Value>) -> Tier<Value> {
        self.tier_of_failing(builder, |_| false)
    }

    /// Both.
    pub fn tier_of_failing(
        &self,
        builder: TierBuilder<Value>,
        fails: impl Fn(usize) -> bool + Send + Sync + 'static,
    ) -> Tier<Value> {
        let (census, tools) = (self.clone(), Tools { bench: Arc::default(), ended: Arc::clone(&self.ended) });
        let factory = move || {
            tools.bench.use_it();
            if fails(census.attempts.fetch_add(1, Ordering::Relaxed)) {
                return Err("the factory is on strike");
            }
            census.made.fetch_add(1, Ordering::Relaxed);
            Ok(Value {
                cell: UnsafeCell::new(0),
                bench: Arc::clone(&tools.bench),
                dropped: Arc::clone(&census.dropped),
            })
        };
        builder.try_build_with(factory).unwrap()
    }

    /// Guarantee 4 after a close: what was made was dropped, each once, and nothing more ended than there was.
    pub fn assert_all_dropped(&self) {
        assert_eq!(self.dropped(), self.made(), "each value is dropped exactly once");
        assert_eq!(self.ended.load(Ordering::Relaxed), 0, "the incarnation does not end before its last tier");
    }

    /// Guarantee 4 after the last slot and the last tier: what was made was dropped, each once, and then the factory, once.
    pub fn assert_ended(&self) {
        assert_eq!(self.dropped(), self.made(), "each value is dropped exactly once");
        assert_eq!(self.ended.load(Ordering::Relaxed), 1, "the incarnation ends once, with its last value");
    }

    /// Whether the incarnation has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What a factory owns: it goes with the tier's incarnation.
struct Tools {
    bench: Arc<Bench>,
    ended: Arc<AtomicUsize>,
}

impl Drop for Tools {
    fn drop(&mut self) {
        // SAFETY: whoever drops the tools is the last to use the bench, or loom fails the model.
        self.bench.0.with_mut(|uses| unsafe { *uses = 1 });
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stands for the memory of an incarnation, payload and factory, which loom does not watch: used by the factory and by each
/// value's `Drop`, gone with the tools.
#[derive(Default)]
struct Bench(UnsafeCell<usize>);

// SAFETY: `use_it` only reads, and `Tools::drop` comes after every use; loom fails the model if it does not.
unsafe impl Sync for Bench {}
// SAFETY: as above.
unsafe impl Send for Bench {}

impl Bench {
    fn use_it(&self) {
        // SAFETY: nobody writes before `Tools::drop`.
        self.0.with(|uses| unsafe { std::hint::black_box(*uses) });
    }
}

/// A value through which loom itself notices two hands on one slot, or a hand-over that orders nothing.
pub struct Value {
    cell: UnsafeCell<usize>,
    bench: Arc<Bench>,
    dropped: Arc<AtomicUsize>,
}

impl Value {
    /// What every holder does: a write, which loom demands to come after every other holder's.
    pub fn touch(&mut self) {
        // SAFETY: the lease is the only way here, and loom fails the model if it is not.
        self.cell.with_mut(|uses| unsafe { *uses += 1 });
    }

    /// The same for who has it from a tier that cleans.
    pub fn use_clean(&mut self) {
        // SAFETY: as above.
        let before = self.cell.with_mut(|uses| unsafe { std::mem::replace(&mut *uses, *uses + 1) });
        assert_eq!(before, 0, "a value is clean when it is handed out");
    }

    /// What such a tier does between two uses.
    pub fn clean(&mut self) {
        // SAFETY: as above.
        let before = self.cell.with_mut(|uses| unsafe { std::mem::take(&mut *uses) });
        assert_ne!(before, 0, "a value is cleaned once a use");
    }
}

// SAFETY: `look` only reads, and loom fails the model if a write is not ordered with it.
unsafe impl Sync for Value {}

impl Value {
    /// What every reader of a shared value does: a read, which loom demands to come after the sharer's writes, and before the
    /// writes of whoever has the value next.
    pub fn look(&self) -> usize {
        // SAFETY: nobody writes while the value is shared, and loom fails the model if somebody does.
        self.cell.with(|uses| unsafe { *uses })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.touch();
        self.bench.use_it();
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Allocates, writes to the value, and keeps the lease; `None` if refused.
#[track_caller]
pub fn take(tier: &Tier<Value>) -> Option<Lease<Value>> {
    let mut lease = tier.try_allocate().ok()?;
    lease.touch();
    Some(lease)
}

/// Guarantee 4 at a quiet point where nobody holds anything: every slot is free, and the counters know of every use.
pub fn assert_quiet(tier: &Tier<Value>, allocations: usize) {
    let now = tier.snapshot();
    assert_eq!(now.free, now.capacity, "every slot is free again: {now:?}");
    assert_eq!(now.allocations, allocations as u64, "every allocation is counted: {now:?}");
    assert_eq!(now.releases, allocations as u64, "every release is counted: {now:?}");
}
