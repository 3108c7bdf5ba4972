//! Plays a trace through tiers and through the system allocator, and times every operation of both.
//!
//! First one thread plays the trace once through the tiers. That pass is not timed; it gives the counts, which are
//! checked against what the tiers counted themselves. Then come rounds, in each of which every thread plays the whole
//! trace through the tiers and through the system allocator, in changing order, so that a noisy moment of the machine
//! hits both: once with the clock read around every operation, for the percentiles, and once with the clock read only
//! at the start and the end, for the average. After each pass what the trace leaked is given back, so that every pass
//! starts from the same state.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;
use tierpool::Lease;

use crate::clock::{Clock, Percentiles, Recorder};
use crate::tiers::{Payload, Plan, Tiers, TiersError, Totals, Watched};
use crate::trace::{Bytes, Operation, Skipped, Trace};

/// How long the timed rounds go on if their number is not given.
pub const TIMED: Duration = Duration::from_millis(1500);

/// How many operations are played between two reports of progress.
const STRIDE: usize = 1 << 14;

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many threads play the trace at the same time.
    pub threads: usize,
    /// Slots in each size class, or none for as many as the trace needs.
    pub capacity: Option<usize>,
    /// Timed rounds, or none for as many as fit in [`TIMED`].
    pub rounds: Option<u64>,
    /// The most bytes that all slots may take.
    pub memory: u64,
}

/// What one pass over the trace came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations that were served.
    pub allocations: u64,
    /// Releases of what was held.
    pub releases: u64,
    /// Releases of what had been released, all of them caught.
    pub double_releases: u64,
    /// Allocations that were refused.
    pub refusals: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.allocations += other.allocations;
        self.releases += other.releases;
        self.double_releases += other.double_releases;
        self.refusals += other.refusals;
    }
}

/// Leaks of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeakGroup {
    /// Bytes asked for.
    pub size: u32,
    /// The lines of the trace that allocated them, one for each leak.
    pub lines: Vec<u64>,
}

impl LeakGroup {
    /// How many leaks.
    pub fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        u64::from(self.size) * self.count()
    }
}

/// How long one side took.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Allocations; none if there was none to time.
    pub allocate: Option<Percentiles>,
    /// Releases; none if there was none to time.
    pub release: Option<Percentiles>,
    /// Nanoseconds an operation, of either kind, in passes that were timed as a whole: the median of all rounds.
    pub operation: f64,
}

/// What a replay found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One pass through the tiers.
    pub counts: Counts,
    /// Leaks by size, the most bytes first.
    pub leaks: Vec<LeakGroup>,
    /// The share of allocations in the timed rounds that a thread's own magazine served.
    pub hit_rate: f64,
    /// Refusals in all timed rounds together.
    pub timed_refusals: u64,
    /// The tiers' times.
    pub tierpool: Timings,
    /// The system allocator's times.
    pub system: Timings,
    /// What the clock itself takes, in nanoseconds, included in all times.
    pub clock_cost: f64,
    /// What the replay itself takes an operation, in nanoseconds, included in both sides' [`Timings::operation`].
    pub replay_cost: f64,
    /// Timed rounds.
    pub rounds: u64,
    /// Threads.
    pub threads: usize,
    /// Tiers.
    pub tiers: usize,
    /// Slots of all tiers.
    pub slots: u64,
    /// Bytes of all slots.
    pub payload_bytes: u64,
    /// Bytes that the tiers take beside their slots.
    pub overhead_bytes: u64,
    /// Bytes of one pass at its peak: asked for, and in the slots that served.
    pub peak: Bytes,
    /// How long building the tiers took.
    pub build: Duration,
    /// How long it took to close them, with all leaks still held.
    pub close: Duration,
    /// What the trace's file held but could not be repeated.
    pub skipped: Skipped,
}

impl Outcome {
    /// Allocations that one pass never released.
    pub fn leaked(&self) -> u64 {
        self.counts.allocations - self.counts.releases
    }
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The tiers could not be made.
    #[error(transparent)]
    Tiers(#[from] TiersError),
    /// tierpool let a double release pass.
    #[error(
        "tierpool did not refuse the second release of an allocation: this is a fault in tierpool, please report it"
    )]
    NotCaught,
    /// tierpool's own counts are wrong.
    #[error(
        "the replay was served {} times, refused {} times, released {} times and holds {held}, but the tiers counted \
         {}, {}, {} and {}: this is a fault in tierpool, please report it",
        counts.allocations, counts.refusals, counts.releases,
        totals.allocations, totals.refusals, totals.releases, totals.leased
    )]
    Miscounted {
        /// What the replay did.
        counts: Counts,
        /// What it still holds.
        held: u64,
        /// What the tiers say.
        totals: Totals,
    },
}

/// Hears how far a replay has come, as a share of the whole from 0 to 1.
pub type Progress<'a> = &'a (dyn Fn(f64) + Sync);

/// Replays a trace.
///
/// # Errors
/// Returns [`ReplayError`] if the tiers cannot be built, or turn out to be at fault.
pub fn replay(trace: &Trace, options: Options, clock: &Clock, progress: Progress<'_>) -> Result<Outcome, ReplayError> {
    let threads = options.threads.max(1);
    let plan = Plan::new(trace, options.capacity, threads, options.memory)?;
    let start = Instant::now();
    let tiers = Tiers::build(&plan)?;
    let build = start.elapsed();

    let (counts, leaks) = census(&tiers, trace, clock)?;
    let before = tiers.totals();
    let rounds = Rounds::new(&tiers, trace, clock, options.rounds, threads, progress);
    let played = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|thread| {
                scope.spawn({
                    let rounds = &rounds;
                    move || rounds.play(thread)
                })
            })
            .collect();
        let mut played = rounds.play(0);
        for other in others {
            played.merge(other.join().expect("a thread that panics ends the process"));
        }
        played
    });
    let after = tiers.totals();
    if rounds.failed.load(Relaxed) {
        return Err(ReplayError::NotCaught);
    }
    // All is given back: the tiers must hold nothing, and have counted what the threads did.
    let mut all = played.counts;
    all.allocations += counts.allocations;
    all.refusals += counts.refusals;
    all.releases = all.allocations;
    check(all, 0, after)?;
    let rounds = rounds.played.load(Relaxed);
    let tierpool = played.tierpool.timings();
    let system = played.system.timings();
    let replay_cost = played.nothing.timings().operation;
    let overhead_bytes = tiers.overhead_bytes();
    // One more pass, untimed, so that the tiers are closed while the leaks are held, as a program's end would.
    let mut table = Table::new(trace);
    pass::<_, false>(&tiers, trace, &mut table, &mut Stopwatch::new(clock), &|_| {});
    let start = Instant::now();
    drop(table);
    let close = start.elapsed() + tiers.close();

    let served = after.allocations - before.allocations;
    Ok(Outcome {
        counts,
        leaks,
        hit_rate: if served == 0 { 0.0 } else { (after.hits - before.hits) as f64 / served as f64 },
        timed_refusals: after.refusals - before.refusals,
        tierpool,
        system,
        clock_cost: clock.cost(),
        replay_cost,
        rounds,
        threads,
        tiers: plan.tiers(),
        slots: plan.slots(),
        payload_bytes: plan.payload_bytes(),
        overhead_bytes,
        peak: trace.peak(),
        build,
        close,
        skipped: trace.skipped(),
    })
}

/// The first pass: what the trace comes to, checked against the tiers' own counts.
fn census(tiers: &Tiers, trace: &Trace, clock: &Clock) -> Result<(Counts, Vec<LeakGroup>), ReplayError> {
    let mut table = Table::new(trace);
    let mut watch = Stopwatch::new(clock);
    let counts = pass::<_, true>(tiers, trace, &mut table, &mut watch, &|_| {});
    if watch.missed > 0 {
        return Err(ReplayError::NotCaught);
    }
    let held = table.held.iter().flatten().count() as u64;
    check(counts, held, tiers.totals())?;
    let mut groups: BTreeMap<u32, LeakGroup> = BTreeMap::new();
    for leak in trace.leaks().iter().filter(|leak| table.held[leak.place as usize].is_some()) {
        let group = groups.entry(leak.size).or_insert_with(|| LeakGroup { size: leak.size, lines: Vec::new() });
        group.lines.push(leak.line);
    }
    let mut leaks: Vec<LeakGroup> = groups.into_values().collect();
    leaks.sort_by_key(|group| std::cmp::Reverse(group.bytes()));
    Ok((counts, leaks))
}

/// Compares what the tiers have counted with what was done to them.
fn check(counts: Counts, held: u64, totals: Totals) -> Result<(), ReplayError> {
    let agrees = totals.allocations == counts.allocations
        && totals.releases == counts.releases
        && totals.refusals == counts.refusals
        && totals.leased == held
        && held == counts.allocations - counts.releases;
    if agrees { Ok(()) } else { Err(ReplayError::Miscounted { counts, held, totals }) }
}

/// One side of the comparison: something that gives memory and takes it back.
trait Side {
    /// What an allocation is held by; dropping it is the release.
    type Held;
    /// What names an allocation beyond its release.
    type Watched: Copy;

    /// Puts memory for `size` bytes into a place, writes one byte to it, and gives it for a look; none if it is refused.
    fn allocate<'a>(&self, size: u32, place: &'a mut Option<Self::Held>) -> Option<&'a Self::Held>;

    /// The name of what is held.
    fn watch(&self, held: &Self::Held, size: u32) -> Self::Watched;

    /// Releases once more. None if that cannot be done at all, else whether it was caught.
    fn catches(&self, watched: Self::Watched) -> Option<bool>;
}

impl Side for Tiers {
    type Held = Lease<Payload>;
    type Watched = Watched;

    #[inline(always)]
    fn allocate<'a>(&self, size: u32, place: &'a mut Option<Lease<Payload>>) -> Option<&'a Lease<Payload>> {
        Tiers::allocate(self, size, place)
    }

    fn watch(&self, held: &Lease<Payload>, size: u32) -> Watched {
        Tiers::watch(held, size)
    }

    fn catches(&self, watched: Watched) -> Option<bool> {
        Some(Tiers::catches(self, watched))
    }
}

/// The allocator that every Rust program has, through an empty `Vec` of exactly the size.
struct System;

impl Side for System {
    type Held = Vec<u8>;
    type Watched = ();

    #[inline(always)]
    fn allocate<'a>(&self, size: u32, place: &'a mut Option<Vec<u8>>) -> Option<&'a Vec<u8>> {
        let bytes = place.insert(Vec::with_capacity(size.max(1) as usize));
        bytes.push(1);
        black_box(bytes.as_ptr());
        Some(bytes)
    }

    fn watch(&self, _held: &Vec<u8>, _size: u32) {}

    fn catches(&self, (): ()) -> Option<bool> {
        None // It would be undefined behaviour.
    }
}

/// Neither: what is left is what the replay itself takes.
struct Nothing;

impl Side for Nothing {
    type Held = [u64; 3];
    type Watched = ();

    #[inline(always)]
    fn allocate<'a>(&self, size: u32, place: &'a mut Option<[u64; 3]>) -> Option<&'a [u64; 3]> {
        Some(black_box(place.insert([size.into(); 3])))
    }

    fn watch(&self, _held: &[u64; 3], _size: u32) {}

    fn catches(&self, (): ()) -> Option<bool> {
        None
    }
}

/// What a pass holds.
struct Table<S: Side> {
    held: Vec<Option<S::Held>>,
    watched: Vec<Option<S::Watched>>,
}

impl<S: Side> Table<S> {
    fn new(trace: &Trace) -> Self {
        Table {
            held: (0..trace.places()).map(|_| None).collect(),
            watched: Vec::with_capacity(trace.watched() as usize),
        }
    }

    /// Gives everything back.
    fn clear(&mut self) {
        self.held.iter_mut().for_each(|held| *held = None);
        self.watched.clear();
    }
}

/// What passes measure.
struct Stopwatch<'a> {
    clock: &'a Clock,
    allocate: Recorder,
    release: Recorder,
    /// Ticks an operation of each pass that was timed as a whole.
    passes: Vec<f64>,
    /// Double releases that were not caught.
    missed: u64,
}

impl<'a> Stopwatch<'a> {
    fn new(clock: &'a Clock) -> Self {
        Stopwatch { clock, allocate: Recorder::new(), release: Recorder::new(), passes: Vec::new(), missed: 0 }
    }

    fn merge(&mut self, other: Stopwatch<'_>) {
        self.allocate.merge(other.allocate);
        self.release.merge(other.release);
        self.passes.extend(other.passes);
        self.missed += other.missed;
    }

    fn timings(mut self) -> Timings {
        self.passes.sort_unstable_by(f64::total_cmp);
        let median = self.passes.get(self.passes.len() / 2).copied().unwrap_or(0.0);
        Timings {
            allocate: self.allocate.percentiles(self.clock),
            release: self.release.percentiles(self.clock),
            operation: self.clock.nanos(median),
        }
    }
}

/// Plays the whole trace once. With `EACH`, the clock is read around every operation, so that only what the recorded
/// program did is timed and not what the replay adds to it; else around the whole, without double releases.
fn pass<S: Side, const EACH: bool>(
    side: &S,
    trace: &Trace,
    table: &mut Table<S>,
    watch: &mut Stopwatch<'_>,
    progress: &dyn Fn(usize),
) -> Counts {
    let mut counts = Counts::default();
    let start = watch.clock.ticks();
    for (index, operation) in trace.operations().enumerate() {
        if index % STRIDE == STRIDE - 1 {
            progress(index);
        }
        match operation {
            Operation::Allocate { place, size } => {
                allocate::<S, EACH>(side, size, &mut table.held[place as usize], watch, &mut counts);
            }
            Operation::AllocateWatched { place, size } => {
                let held = allocate::<S, EACH>(side, size, &mut table.held[place as usize], watch, &mut counts);
                table.watched.push(held.map(|held| side.watch(held, size)));
            }
            Operation::Release { place } => {
                if let Some(held) = table.held[place as usize].take() {
                    if EACH {
                        let start = watch.clock.ticks();
                        drop(held);
                        let end = watch.clock.ticks();
                        watch.release.record(end.saturating_sub(start));
                    } else {
                        drop(held);
                    }
                    counts.releases += 1;
                }
            }
            // Only one side can do this, so it has no part in a time that is compared.
            Operation::ReleaseAgain { .. } if !EACH => {}
            Operation::ReleaseAgain { watched } => {
                let caught = table.watched[watched as usize].and_then(|watched| side.catches(watched));
                counts.double_releases += u64::from(caught == Some(true));
                watch.missed += u64::from(caught == Some(false));
            }
        }
    }
    if !EACH {
        let ticks = watch.clock.ticks().saturating_sub(start);
        let operations = counts.allocations + counts.refusals + counts.releases;
        watch.passes.push(ticks as f64 / operations as f64);
    }
    counts
}

#[inline(always)]
fn allocate<'a, S: Side, const EACH: bool>(
    side: &S,
    size: u32,
    place: &'a mut Option<S::Held>,
    watch: &mut Stopwatch<'_>,
    counts: &mut Counts,
) -> Option<&'a S::Held> {
    let start = if EACH { watch.clock.ticks() } else { 0 };
    let held = side.allocate(size, place);
    let end = if EACH { watch.clock.ticks() } else { 0 };
    if held.is_some() {
        counts.allocations += 1;
        if EACH {
            watch.allocate.record(end.saturating_sub(start));
        }
    } else {
        counts.refusals += 1;
    }
    held
}

/// The timed rounds, shared by their threads.
struct Rounds<'a> {
    tiers: &'a Tiers,
    trace: &'a Trace,
    clock: &'a Clock,
    wanted: Option<u64>,
    start: Instant,
    barrier: Barrier,
    played: AtomicU64,
    done: AtomicBool,
    failed: AtomicBool,
    progress: Progress<'a>,
}

/// Passes in a round: each side with the clock around each operation and around the whole, and the replay alone.
const PASSES: u64 = 5;

/// What one thread measured in all rounds.
struct Played<'a> {
    tierpool: Stopwatch<'a>,
    system: Stopwatch<'a>,
    nothing: Stopwatch<'a>,
    /// All passes through the tiers together.
    counts: Counts,
}

impl Played<'_> {
    fn merge(&mut self, other: Played<'_>) {
        self.tierpool.merge(other.tierpool);
        self.system.merge(other.system);
        self.nothing.merge(other.nothing);
        self.counts.add(other.counts);
    }
}

impl<'a> Rounds<'a> {
    fn new(
        tiers: &'a Tiers,
        trace: &'a Trace,
        clock: &'a Clock,
        wanted: Option<u64>,
        threads: usize,
        progress: Progress<'a>,
    ) -> Self {
        Rounds {
            tiers,
            trace,
            clock,
            wanted,
            start: Instant::now(),
            barrier: Barrier::new(threads),
            played: AtomicU64::new(0),
            done: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            progress,
        }
    }

    /// Plays all rounds as one of the threads. Thread 0 decides when it is enough.
    fn play(&self, thread: usize) -> Played<'a> {
        let _guard = EndOnPanic;
        let stopwatch = || Stopwatch::new(self.clock);
        let mut played =
            Played { tierpool: stopwatch(), system: stopwatch(), nothing: stopwatch(), counts: Counts::default() };
        let mut slots = Table::new(self.trace);
        let mut blocks = Table::new(self.trace);
        let mut nothing = Table::new(self.trace);
        let leads = thread == 0;
        let mut round = 0;
        while !self.done.load(Relaxed) {
            for turn in 0..PASSES {
                let progress = |index: usize| {
                    if leads {
                        self.report(round, turn, index)
                    }
                };
                self.barrier.wait();
                // Who goes first changes from round to round, since the second finds the trace in the cache.
                let (tiers, trace, played) = (self.tiers, self.trace, &mut played);
                match (turn + round) % PASSES {
                    0 => played.counts.add(pass::<_, true>(tiers, trace, &mut slots, &mut played.tierpool, &progress)),
                    1 => played.counts.add(pass::<_, false>(tiers, trace, &mut slots, &mut played.tierpool, &progress)),
                    2 => _ = pass::<_, true>(&System, trace, &mut blocks, &mut played.system, &progress),
                    3 => _ = pass::<_, false>(&System, trace, &mut blocks, &mut played.system, &progress),
                    _ => _ = pass::<_, false>(&Nothing, trace, &mut nothing, &mut played.nothing, &progress),
                }
                self.barrier.wait();
                slots.clear();
                blocks.clear();
                nothing.clear();
            }
            round += 1;
            if played.tierpool.missed > 0 {
                self.failed.store(true, Relaxed);
            }
            self.barrier.wait();
            if leads {
                Tiers::tick();
                self.report(round, 0, 0);
                self.played.store(round, Relaxed);
                let enough = self.wanted.map_or(self.start.elapsed() >= TIMED, |wanted| round >= wanted);
                self.done.store(enough || self.failed.load(Relaxed), Relaxed);
            }
            self.barrier.wait();
        }
        played
    }

    /// Tells how far it is: `index` operations into one of the passes of a round.
    fn report(&self, round: u64, turn: u64, index: usize) {
        let in_round = (turn as f64 + index as f64 / self.trace.len() as f64) / PASSES as f64;
        let done = match self.wanted {
            Some(wanted) => (round as f64 + in_round) / wanted as f64,
            None => {
                let time = self.start.elapsed().as_secs_f64() / TIMED.as_secs_f64();
                if round == 0 { time.min(in_round) } else { time }
            }
        };
        (self.progress)(done.clamp(0.0, 1.0));
    }
}

/// Ends the process if its thread panics, since the others would wait for it at the barrier for ever.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
