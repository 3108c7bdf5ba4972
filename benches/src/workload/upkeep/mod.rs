//! What a tier does for itself, how long that takes at a million slots, and what those who allocate meanwhile notice of it.
//!
//! Time is made to pass by `clock::tick_to`, for the whole process; so each of these workloads runs in a process of its own.
//! A round prepares the work, and lets threads allocate and release ([`walk`]) beside three things in turn, each as long as the others: a
//! thread that only computes, one that goes through as much memory as the work does, and the work itself. There are more
//! threads than cores, so the first two are what any busy thread costs, by the time it takes and by the cache it takes; only what
//! goes beyond is the pool's.

mod expire;
mod grow;
mod leak_scan;
mod look;
mod walk;

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tierpool::{Tier, clock};

use crate::machine::ticks;
use crate::payload::{Inline, Payload};
use crate::report::row::Row;
use crate::run::series::Series;
use crate::subject::Kind;

pub use self::leak_scan::{REPORTED, YOUNG};
use self::walk::{Stage, Way};

/// Slots that the work is about.
pub const SLOTS: usize = 1_000_000;

/// After this long a workload makes do with the rounds it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long threads run after a preparation, untimed.
const SETTLING: Duration = Duration::from_millis(5);

/// Lets time pass, for all tiers of the process: from where it was left, whichever workload left it there.
fn let_pass(time: Duration) {
    static NOW: Mutex<Option<Instant>> = Mutex::new(None);
    let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let later = now.map_or_else(Instant::now, |then| then.max(Instant::now())) + time;
    clock::tick_to(later);
    *now = Some(later);
}

/// Bytes of a slot's header.
const HEADER: usize = 32;

type Load = Inline<64>;

/// Pairs of allocation and release: beside the work, beside a thread that goes through as much memory, and beside one that
/// only computes.
pub const PAIRS: [&str; 3] = ["pairs", "pairs-streaming", "pairs-spinning"];
/// The same for a walk.
pub const WALK: [&str; 3] = ["walk", "walk-streaming", "walk-spinning"];
/// The ratio of the third number, in the rows.
pub const TO_STREAMING: &str = "ratio_to_streaming";
/// The work itself.
pub const WORK: &str = "the-work";

/// What comes out of one workload: a subject, its median and 99th of a hundred nanoseconds, the 999th of a thousand, the same
/// divided by what it was beside [`stream`] in the same round, and milliseconds for the whole.
pub type Figure = (&'static str, Kind, [f64; 5]);

/// A workload, run in this process; so many rounds.
pub type Run = fn(rounds: usize) -> Vec<Figure>;

/// Handles past their deadline are released.
pub const EXPIRE: Run = beside::<expire::Expire>;
/// A tier becomes twice as large.
pub const GROW: Run = beside::<grow::Grow>;
/// Slots are looked at for leaks.
pub const LEAK_SCAN: Run = leak_scan::run;
/// The states of all slots are counted.
pub const SNAPSHOT: Run = beside::<look::Snapshot>;
/// The holders of all slots are counted by line.
pub const BY_SITE: Run = beside::<look::BySite>;

/// Runs a workload in a process of its own: this program again, with `--upkeep`, which answers with [`answer`].
pub fn apart(workload: &'static str, threads: usize, run: Run, rounds: usize) -> Vec<Row> {
    let mut program = Command::new(env::current_exe().expect("this program's path"));
    let output =
        program.args(["--upkeep", workload, "--rounds", &rounds.to_string()]).output().expect("this program again");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{workload} failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let subjects = run(0);
    assert_eq!(text.lines().count(), subjects.len(), "a line for each subject");
    let rows = text.lines().zip(subjects).map(|(line, (subject, kind, _))| {
        let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [median, p99, p99_9, ratio, whole] = numbers[..] else { panic!("five numbers") };
        let extras = vec![("ns_p99_9", p99_9), (TO_STREAMING, ratio), ("ms", whole)];
        Row::new(workload, threads, subject, kind, (median, p99), extras)
    });
    rows.collect()
}

/// The child's side of [`apart`].
pub fn answer(run: Run, rounds: usize) {
    ticks::length();
    for (_, _, numbers) in run(rounds) {
        println!("{}", numbers.map(|number| number.to_string()).join(" "));
    }
}

/// Work that a tier does while threads allocate from it.
trait Chore {
    /// How many threads.
    const WALKERS: usize;
    fn new() -> Self;
    fn tier(&self) -> &Tier<Load>;
    /// Makes something to do.
    fn prepare(&mut self);
    /// Does all of it.
    fn work(&self);
}

/// Rounds of one chore. With none, only the names.
fn beside<C: Chore>(rounds: usize) -> Vec<Figure> {
    let mut tallies: [[Tally; 3]; 2] = Default::default();
    let mut whole = Series::default();
    if rounds > 0 {
        let mut chore = C::new();
        let mut memory = vec![0_u8; SLOTS * HEADER];
        let (tier, stage) = (chore.tier().clone(), Stage::new(C::WALKERS));
        stage.open(&tier, || {
            // The first time, memory is new to everybody.
            chore.prepare();
            let mut last = stage.phase(Way::Pairs, || chore.work()).0;
            let start = Instant::now();
            for round in 0..2 * rounds {
                if round >= 2 && start.elapsed() > PATIENCE {
                    eprintln!("only {round} rounds, the machine is busy");
                    break;
                }
                let way = [Way::Pairs, Way::Walk][round % 2];
                let [beside, streaming, spinning] = &mut tallies[round % 2];
                chore.prepare();
                // What the preparation has left in the depot and the caches is not to be found by the first in turn alone.
                stage.phase(way, || spin(last.min(SETTLING)));
                let spun = stage.phase(way, || spin(last)).1;
                let streamed = stage.phase(way, || stream(&mut memory, last)).1;
                let (time, walked) = stage.phase(way, || chore.work());
                // On a machine that others use, a thread may not run at all for as long as that.
                if ![&spun, &streamed, &walked].iter().any(|walked| walked.is_empty()) {
                    spinning.add(spun);
                    streaming.add(streamed);
                    beside.add(walked);
                }
                whole.extend([(time.as_nanos() as f64, 1)]);
                last = time;
            }
        });
    }
    let kinds = [Kind::Ours, Kind::Floor, Kind::Floor];
    let beside = [PAIRS, WALK].into_iter().zip(&tallies).flat_map(|(names, tallies)| {
        let figures = names.into_iter().zip(kinds).zip(tallies);
        figures.map(|((name, kind), tally)| (name, kind, tally.numbers(&tallies[1])))
    });
    beside.chain([(WORK, Kind::Ours, per_slot(&whole))]).collect()
}

/// The work's own times: a slot, and in all.
fn per_slot(whole: &Series) -> [f64; 5] {
    let each = |time: f64| time / SLOTS as f64;
    [each(whole.median()), each(whole.quantile(0.99)), f64::NAN, f64::NAN, whole.median() / 1e6]
}

/// What was noticed, round by round: the median, the 99th of a hundred, the 999th of a thousand. Medians of the rounds are shown,
/// so that one that the machine spoiled does not count.
#[derive(Default)]
struct Tally(Vec<[f64; 3]>);

impl Tally {
    fn add(&mut self, walked: Series) {
        self.0.push([0.5, 0.99, 0.999].map(|share| walked.between(share)));
    }

    fn numbers(&self, other: &Tally) -> [f64; 5] {
        let [median, p99, p99_9] = [0, 1, 2].map(|place| middle(self.0.iter().map(|round| round[place])));
        // Round by round: within one, the machine's mood is the same.
        let ratio = middle(self.0.iter().zip(&other.0).map(|(mine, others)| mine[2] / others[2]));
        [median, p99, p99_9, ratio, f64::NAN]
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut series = Series::default();
    series.extend(values.map(|value| (value, 1)));
    series.median()
}

/// Computes for so long.
fn spin(time: Duration) {
    let start = Instant::now();
    let mut value = 1_u64;
    while start.elapsed() < time {
        value = black_box(value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1);
    }
}

/// Goes through the memory in that time, evenly, and changes each part of the size of a header.
fn stream(memory: &mut [u8], time: Duration) {
    let start = Instant::now();
    let parts = memory.len() / HEADER;
    for (number, part) in memory.chunks_exact_mut(HEADER).enumerate() {
        part[0] = part[0].wrapping_add(1);
        if number.is_multiple_of(64) {
            let due = time.mul_f64(number as f64 / parts as f64);
            while start.elapsed() < due {}
        }
    }
    black_box(memory);
}

fn build(name: &str, slots: usize, min: usize) -> Tier<Load> {
    let tier = Tier::builder(name).capacity(slots).min_capacity(min);
    tier.build_with(Load::fresh).expect("a tier of a known capacity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_each_workload_gives_its_figures() {
        let worked = [EXPIRE, GROW, SNAPSHOT, BY_SITE].map(|run| (run, vec![WORK]));
        for (run, whole) in worked.into_iter().chain([(LEAK_SCAN, vec![YOUNG, REPORTED])]) {
            let figures = run(1);
            let names = |figures: &[Figure]| figures.iter().map(|figure| figure.0).collect::<Vec<_>>();
            assert_eq!(names(&figures), names(&run(0)));
            for (subject, _, [.., ms]) in figures.iter().filter(|figure| whole.contains(&figure.0)) {
                assert!(*ms > 0.0, "{subject}");
            }
        }
    }
}
