//! What it costs to know who allocated what: a pair in the build that ships, beside one with all of that compiled out (the feature
//! `bare` of tierpool): `cargo run --release -p tierpool-benches --bin observe`.
//!
//! This program is the one side; it has cargo build the other, the same program with the feature. Each round runs both in fresh
//! processes, one after the other, so that neither has all the good moments of the machine or the lucky addresses.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::time::{Duration, Instant};
use std::{env, iter};

use tierpool::{Lease, Limit, Memory, MemoryTier, Pool, Prepared, Request, Scrub, TenantRules};
use tierpool_benches::machine::{cores, ticker};
use tierpool_benches::ours;
use tierpool_benches::payload::{Bytes, MEMORY, Payload};
use tierpool_benches::run::series::Series;
use tierpool_benches::workload::CAPACITY;

const USAGE: &str = "\
usage: observe [--rounds N]

  --rounds  rounds in the place of 21; 11 at least for numbers";

/// What knowing it may cost at most: so many times the pair without.
const MOST: f64 = 1.10;
const ROUNDS: usize = 21;
/// A batch takes about so long, and so many batches are one process's measure of one workload.
const BATCH: Duration = Duration::from_micros(500);
const BATCHES: usize = 60;

/// The workloads, in the order in which [`measure`] answers.
const WORKLOADS: [&str; 3] = ["tier", "pool, one tenant and tag", "pool, two of each in turn"];

fn main() {
    if cfg!(debug_assertions) {
        fail("`observe` measures nanoseconds: run it with `cargo run --release`");
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rounds = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => ROUNDS,
        ["--measure"] => return measure(),
        ["--rounds", rounds] => match rounds.parse() {
            Ok(rounds) if rounds > 0 => rounds,
            _ => fail(&format!("`--rounds` takes a number from 1, not {rounds:?}\n{USAGE}")),
        },
        _ => fail(&format!("no such arguments: {}\n{USAGE}", arguments.join(" "))),
    };
    compare(rounds);
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(2)
}

/// Runs both builds, and says what each took.
fn compare(rounds: usize) {
    let whole = env::current_exe().unwrap_or_else(|why| fail(&format!("this program's own path is not known: {why}")));
    let bare = build_bare(&whole);
    let mut series: [[Series; 2]; WORKLOADS.len()] = Default::default();
    for round in 0..rounds {
        let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in turns {
            let took = ask([&whole, &bare][side], side == 1);
            for (workload, took) in took.into_iter().enumerate() {
                series[workload][side].extend([(took, 1)]);
            }
        }
    }
    println!("medians of {rounds} rounds, ns a pair; the target is {MOST:.2}");
    println!("{:<28} {:>8} {:>8} {:>8}", "", "whole", "bare", "ratio");
    for (name, [whole, bare]) in WORKLOADS.iter().zip(&series) {
        let (whole, bare) = (whole.median(), bare.median());
        let ratio = whole / bare;
        let verdict = if ratio <= MOST { "PASS" } else { "MISS" };
        println!("{name:<28} {whole:>8.2} {bare:>8.2} {ratio:>8.3} {verdict}");
    }
}

/// Builds this program with the feature, beside what is built already. Its path.
fn build_bare(whole: &Path) -> PathBuf {
    let Some(target) = whole.ancestors().nth(2) else { fail("this program is not where cargo puts it") };
    let target = target.join("bare");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building the other side; the first time it takes some minutes");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "tierpool-benches", "--bin", "observe", "--features", "bare"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match built {
        Ok(status) if status.success() => target.join("release").join("observe"),
        Ok(status) => fail(&format!("cargo could not build the other side: {status}")),
        Err(why) => fail(&format!("cargo could not be run to build the other side: {why}")),
    }
}

/// What a process of that build measures, a number for each workload.
fn ask(program: &Path, is_bare: bool) -> [f64; WORKLOADS.len()] {
    let output = Command::new(program).arg("--measure").output();
    let output = output.unwrap_or_else(|why| fail(&format!("{} could not be run: {why}", program.display())));
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["whole" | "bare", numbers @ ..] = &words[..] else {
        fail(&format!("{} did not measure: {text}{}", program.display(), String::from_utf8_lossy(&output.stderr)))
    };
    if (words[0] == "bare") != is_bare {
        fail(&format!("{} is not the build that it should be", program.display()));
    }
    let numbers: Vec<f64> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| fail(&format!("{} has measured something else", program.display())))
}

/// Measures in this process, and says what it is and what it found.
fn measure() {
    cores::all();
    ticker::start();
    cores::pin(0);
    let tier = ours::tier::<Bytes<MEMORY>, CAPACITY>();
    let held = tier.try_allocate().expect("a free slot");
    let knows = tier.holders().iter().any(|holder| holder.site.is_some());
    drop(held);
    let tenants = ["feed", "book"].map(|name| TenantRules::new(name).hard(Limit::slots(CAPACITY as u64 / 2)));
    // Zeroing what changes tenants takes longer than everything else.
    let pool = Pool::builder().memory_tier(MemoryTier::new("pages", MEMORY, CAPACITY).scrub(Scrub::Keep));
    let pool =
        tenants.into_iter().fold(pool, |pool, tenant| pool.tenant(tenant)).build().expect("a pool of known tiers");
    let prepare = |tenant, tag| -> Prepared<Memory> {
        pool.prepare(Request::memory(MEMORY).tenant(tenant).tag(tag)).expect("a request that fits")
    };
    let requests = [prepare("feed", "rx"), prepare("book", "tx")];
    let each = [
        median(|pairs| run(pairs, || tier.try_allocate().ok())),
        median(|pairs| run(pairs, || requests[0].try_allocate().ok())),
        median(|pairs| {
            let mut turn = 0;
            run(pairs, || {
                turn ^= 1;
                requests[turn].try_allocate().ok()
            })
        }),
    ];
    println!("{} {}", if knows { "whole" } else { "bare" }, each.map(|took| took.to_string()).join(" "));
}

/// The median batch's nanoseconds a pair.
fn median(batch: impl Fn(u64) -> Duration) -> f64 {
    let pairs = iter::successors(Some(1u64), |pairs| Some(pairs * 2)).find(|&pairs| batch(pairs) >= BATCH).unwrap_or(1);
    let mut series = Series::default();
    series.extend((0..BATCHES).map(|_| (batch(pairs).as_nanos() as f64 / pairs as f64, 1)));
    series.median()
}

/// Allocate, write one byte, release.
#[inline(always)]
fn run<T: Payload>(pairs: u64, mut allocate: impl FnMut() -> Option<Lease<T>>) -> Duration {
    let start = Instant::now();
    for _ in 0..pairs {
        if let Some(mut lease) = allocate() {
            lease.touch();
        }
    }
    start.elapsed()
}
