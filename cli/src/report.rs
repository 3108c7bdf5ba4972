//! What a replay found, for a person and for a program.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::clock::Percentiles;
use crate::replay::{LeakGroup, Outcome, Timings};
use crate::table::headed;
use crate::units::{bytes, count, counted, nanos, percent};

/// One replay as a JSON object, whose keys are a promise to scripts.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    /// The trace's file.
    pub file: &'a str,
    /// Allocations of one pass that were served.
    pub allocations: u64,
    /// Releases of one pass, each of something that was held.
    pub releases: u64,
    /// Releases of one pass that came a second time, and were caught.
    pub double_releases: u64,
    /// Allocations of one pass that were never released.
    pub leaked: u64,
    /// What leaked, by size.
    pub leaks: &'a [LeakGroup],
    /// Allocations of one pass that were refused, for want of slots.
    pub refusals: u64,
    /// Lines of the file that could not be repeated.
    pub skipped: u64,
    /// The share of allocations served from a thread's own magazine.
    pub hit_rate: f64,
    /// Times of allocations.
    pub allocate_ns: Option<JsonPercentiles>,
    /// Times of releases.
    pub release_ns: Option<JsonPercentiles>,
    /// Nanoseconds an operation of either kind, in passes timed as a whole.
    pub operation_ns: f64,
    /// Bytes of bookkeeping beside the slots.
    pub overhead_bytes: u64,
    /// Bytes of the slots.
    pub payload_bytes: u64,
    /// How long closing all tiers took, in nanoseconds.
    pub close_ns: f64,
    /// What a reading of the clock adds to each time, in nanoseconds.
    pub clock_ns: f64,
    /// What the replay itself adds to each side's `operation_ns`, in nanoseconds.
    pub replay_ns: f64,
    /// Threads that played the trace at the same time.
    pub threads: usize,
    /// Timed rounds.
    pub rounds: u64,
    /// The system allocator's times on the same trace.
    pub system: JsonSystem,
}

/// The system allocator's part of [`Json`].
#[derive(Debug, Serialize)]
pub struct JsonSystem {
    /// Times of allocations.
    pub allocate_ns: Option<JsonPercentiles>,
    /// Times of releases.
    pub release_ns: Option<JsonPercentiles>,
    /// Nanoseconds an operation of either kind, in passes timed as a whole.
    pub operation_ns: f64,
}

/// Percentiles, in nanoseconds.
#[derive(Debug, Serialize)]
pub struct JsonPercentiles {
    /// The median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The slowest.
    pub max: f64,
}

impl From<Percentiles> for JsonPercentiles {
    fn from(Percentiles { p50, p99, p9999, max }: Percentiles) -> Self {
        JsonPercentiles { p50, p99, p9999, max }
    }
}

impl<'a> Json<'a> {
    /// What a replay of `file` found.
    pub fn new(file: &'a str, outcome: &'a Outcome) -> Self {
        let counts = outcome.counts;
        Json {
            file,
            allocations: counts.allocations,
            releases: counts.releases,
            double_releases: counts.double_releases,
            leaked: outcome.leaked(),
            leaks: &outcome.leaks,
            refusals: counts.refusals,
            skipped: outcome.skipped.total(),
            hit_rate: outcome.hit_rate,
            allocate_ns: outcome.tierpool.allocate.map(Into::into),
            release_ns: outcome.tierpool.release.map(Into::into),
            operation_ns: outcome.tierpool.operation,
            overhead_bytes: outcome.overhead_bytes,
            payload_bytes: outcome.payload_bytes,
            close_ns: outcome.close.as_nanos() as f64,
            clock_ns: outcome.clock_cost,
            replay_ns: outcome.replay_cost,
            threads: outcome.threads,
            rounds: outcome.rounds,
            system: JsonSystem {
                allocate_ns: outcome.system.allocate.map(Into::into),
                release_ns: outcome.system.release.map(Into::into),
                operation_ns: outcome.system.operation,
            },
        }
    }
}

/// The goals that the project set itself at its beginning.
mod goals {
    pub const ALLOCATE_NANOS: f64 = 5e6;
    pub const RELEASE_NANOS: f64 = 3e6;
    pub const HIT_RATE: f64 = 0.85;
    pub const OVERHEAD_BYTES: u64 = 50_000_000;
    pub const CLOSE_NANOS: f64 = 100e6;
}

/// How many sizes of leaks are listed.
const LEAKS_SHOWN: usize = 3;
/// How many lines of the trace are listed for each.
const LINES_SHOWN: usize = 3;

/// One replay as text for a terminal, a screen at most.
pub fn text(file: &str, outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_text(&mut text, file, outcome);
    text
}

fn write_text(out: &mut String, file: &str, outcome: &Outcome) -> std::fmt::Result {
    let counts = outcome.counts;
    let threads = match outcome.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads at the same time"),
    };
    writeln!(
        out,
        "{file}: {}, {}; {threads}, {}",
        counted(counts.allocations + counts.refusals, "allocation"),
        counted(counts.releases, "release"),
        counted(outcome.rounds, "round"),
    )?;
    writeln!(out, "\n{}", times(&outcome.tierpool, &outcome.system).trim_fmt())?;
    writeln!(
        out,
        "  Averages include {} of replay, the rest {} for the clock.\n  \
         Both sides write one byte to what they allocate.",
        nanos(outcome.replay_cost),
        nanos(outcome.clock_cost)
    )?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if outcome.threads > cores {
        writeln!(out, "  There are more threads than cores ({cores}): all times include waiting for one.")?;
    }
    writeln!(out, "\n{}", findings(outcome).trim_fmt())?;
    writeln!(out, "\n{}", against_goals(outcome).trim_fmt())
}

fn times(tierpool: &Timings, system: &Timings) -> Table {
    let mut table = headed(["one operation", "", "average", "median", "99 %", "99.99 %", "slowest"]);
    table.add_row(["either", "tierpool", &nanos(tierpool.operation)]);
    table.add_row(["", "system", &nanos(system.operation)]);
    for (operation, who, times) in [
        ("allocate", "tierpool", tierpool.allocate),
        ("", "system", system.allocate),
        ("release", "tierpool", tierpool.release),
        ("", "system", system.release),
    ] {
        let cells = match times {
            Some(Percentiles { p50, p99, p9999, max }) => [p50, p99, p9999, max].map(nanos),
            None => ["–"; 4].map(str::to_owned),
        };
        table.add_row([operation, who, ""].map(str::to_owned).into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn findings(outcome: &Outcome) -> Table {
    let counts = outcome.counts;
    let mut table = headed(["one pass over the trace", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    if counts.refusals + outcome.timed_refusals > 0 {
        let timed = count(outcome.timed_refusals);
        row("refused, no slot left", format!("{}; {timed} in all rounds", counted(counts.refusals, "allocation")));
        row("", "--capacity gives more slots".to_owned());
    }
    row(
        "double releases caught",
        match counts.double_releases {
            0 => "none; the trace has none".to_owned(),
            caught => format!("{}, each refused as a stale handle", count(caught)),
        },
    );
    row("leaked", leaks(outcome));
    let (slots, tiers) = (counted(outcome.slots, "slot"), counted(outcome.tiers as u64, "tier"));
    row("memory of the slots", format!("{} in {slots} of {tiers}", bytes(outcome.payload_bytes)));
    let peak = outcome.peak;
    let wasted = if peak.slots == 0 { 0.0 } else { (peak.slots - peak.asked) as f64 / peak.slots as f64 };
    let (asked, slots, wasted) = (bytes(peak.asked), bytes(peak.slots), percent(wasted));
    row("the trace's peak", format!("{asked} in slots of {slots}: {wasted} is rounding"));
    let skipped = outcome.skipped;
    let parts: Vec<String> = [
        (skipped.unknown_releases, "release of an unknown block"),
        (skipped.unanswered_allocations, "allocation without an address"),
        (skipped.failed_allocations, "allocation that had failed"),
        (skipped.unknown_calls, "call of an unknown function"),
    ]
    .iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} × {what}", count(*number)))
    .collect();
    if !parts.is_empty() {
        row("not replayed", parts.join("\n"));
    }
    table
}

fn leaks(outcome: &Outcome) -> String {
    if outcome.leaks.is_empty() {
        return "nothing".to_owned();
    }
    let total: u64 = outcome.leaks.iter().map(LeakGroup::bytes).sum();
    let mut text = format!("{}, {}", counted(outcome.leaked(), "allocation"), bytes(total));
    for group in outcome.leaks.iter().take(LEAKS_SHOWN) {
        let shown: Vec<String> = group.lines.iter().take(LINES_SHOWN).map(u64::to_string).collect();
        let lines = if group.lines.len() == 1 { "line" } else { "lines" };
        let more = if group.lines.len() > shown.len() { ", …" } else { "" };
        let (leaks, size) = (count(group.count()), bytes(group.size.into()));
        let _ = write!(text, "\n{leaks} × {size} from {lines} {}{more}", shown.join(", "));
    }
    let more = &outcome.leaks[outcome.leaks.len().min(LEAKS_SHOWN)..];
    if !more.is_empty() {
        let leaked = more.iter().map(LeakGroup::count).sum();
        let _ = write!(text, "\n{} more of {}", count(leaked), counted(more.len() as u64, "other size"));
    }
    text
}

fn against_goals(outcome: &Outcome) -> Table {
    let mut table = headed(["the project's goals", "goal", "measured", ""]);
    let slow = |times: Option<Percentiles>| times.map(|times| times.p9999);
    let mut row = |name: &str, goal: String, measured: Option<String>, met: bool| {
        let verdict = match (&measured, met) {
            (None, _) => "nothing to measure",
            (_, true) => "met",
            (_, false) => "MISSED",
        };
        table.add_row([name.to_owned(), goal, measured.unwrap_or_else(|| "–".to_owned()), verdict.to_owned()]);
    };
    for (name, goal, measured) in [
        ("allocate, 99.99 %", goals::ALLOCATE_NANOS, slow(outcome.tierpool.allocate)),
        ("release, 99.99 %", goals::RELEASE_NANOS, slow(outcome.tierpool.release)),
        ("close all tiers", goals::CLOSE_NANOS, Some(outcome.close.as_nanos() as f64)),
    ] {
        row(name, format!("< {}", nanos(goal)), measured.map(nanos), measured.is_some_and(|measured| measured < goal));
    }
    row(
        "magazine hit rate",
        format!("> {}", percent(goals::HIT_RATE)),
        Some(percent(outcome.hit_rate)),
        outcome.hit_rate > goals::HIT_RATE,
    );
    row(
        "bookkeeping",
        format!("< {} MB", goals::OVERHEAD_BYTES / 1_000_000),
        Some(bytes(outcome.overhead_bytes)),
        outcome.overhead_bytes < goals::OVERHEAD_BYTES,
    );
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
