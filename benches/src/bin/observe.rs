//! What it costs to know who allocated what: a pair in the build that ships, beside one with all of that compiled out (the feature
//! `bare` of tierpool): `cargo run --release -p tierpool-benches --bin observe`.
//!
//! Has cargo build the program of `benches/observed` in both ways, beside what is built already. Each round runs both in fresh processes,
//! one after the other, so that neither has all the good moments of the machine or the lucky addresses.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use tierpool_benches::machine::cores;
use tierpool_benches::run::series::Series;

const USAGE: &str = "\
usage: observe [--rounds N]

  --rounds  rounds in the place of 21; 11 at least for numbers";

/// What knowing it may cost at most: so many times the pair without.
const MOST: f64 = 1.10;
const ROUNDS: usize = 21;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rounds = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => ROUNDS,
        ["--rounds", rounds] => match rounds.parse() {
            Ok(rounds) if rounds > 0 => rounds,
            _ => fail(&format!("`--rounds` takes a number from 1, not {rounds:?}\n{USAGE}")),
        },
        _ => fail(&format!("no such arguments: {}\n{USAGE}", arguments.join(" "))),
    };
    let sides = [build("whole", &[]), build("bare", &["--features", "bare"])];
    // The processes to be measured inherit it.
    cores::pin(0);
    compare(&sides, rounds);
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(2)
}

/// Builds the program with these arguments beside the others, in a directory of that name. Its path.
fn build(name: &str, arguments: &[&str]) -> PathBuf {
    let own = env::current_exe().unwrap_or_else(|why| fail(&format!("this program's own path is not known: {why}")));
    let Some(target) = own.ancestors().nth(2) else { fail("this program is not where cargo puts it") };
    let target = target.join("observe").join(name);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "tierpool-observed"])
        .args(arguments)
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match built {
        Ok(status) if status.success() => target.join("release").join("observed"),
        Ok(status) => fail(&format!("cargo could not build the {name} program: {status}")),
        Err(why) => fail(&format!("cargo could not be run to build the {name} program: {why}")),
    }
}

/// Runs both builds, the whole one first, and says what each took.
fn compare(sides: &[PathBuf; 2], rounds: usize) {
    let mut workloads: Vec<(String, [Series; 2])> = Vec::new();
    for round in 0..rounds {
        for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            for (at, (name, took)) in ask(&sides[side], ["whole", "bare"][side]).into_iter().enumerate() {
                if workloads.len() == at {
                    workloads.push((name, Default::default()));
                }
                workloads[at].1[side].extend([(took, 1)]);
            }
        }
    }
    println!("medians of {rounds} rounds, ns a pair; whole / bare is to be {MOST:.2} at most");
    println!("{:<28} {:>8} {:>8} {:>8}", "", "whole", "bare", "ratio");
    for (name, [whole, bare]) in &workloads {
        let (whole, bare) = (whole.median(), bare.median());
        let ratio = whole / bare;
        let verdict = if ratio <= MOST { "PASS" } else { "MISS" };
        println!("{name:<28} {whole:>8.2} {bare:>8.2} {ratio:>8.3} {verdict}");
    }
}

/// What a process of that build measures: of each workload the name and the median batch's nanoseconds a pair.
fn ask(program: &Path, build: &str) -> Vec<(String, f64)> {
    let shown = program.display();
    let output = Command::new(program).output().unwrap_or_else(|why| fail(&format!("{shown} could not be run: {why}")));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    if lines.next() != Some(build) {
        fail(&format!("{shown} is not the {build} build: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let median = |line: &str| {
        let (name, batches) = line.split_once('\t')?;
        let mut series = Series::default();
        series.extend(batches.split_whitespace().filter_map(|batch| Some((batch.parse().ok()?, 1))));
        Some((name.to_owned(), series.median()))
    };
    lines.map(|line| median(line).unwrap_or_else(|| fail(&format!("{shown} has measured nothing: {line}")))).collect()
}
