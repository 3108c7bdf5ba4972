//! tierpool beside its peers, all in one run: `cargo run --release -p tierpool-benches --bin compare`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};
use std::{env, panic, process};

use tierpool_benches::machine::counting::Counting;
use tierpool_benches::machine::{cores, ticker, ticks};
use tierpool_benches::ours::{Magazine, Tierpool, Watched};
use tierpool_benches::payload::Bytes;
use tierpool_benches::report::row::{self, Row};
use tierpool_benches::report::{bars, json, table};
use tierpool_benches::run::cast::{Cast, FALLBACK};
use tierpool_benches::run::runner::{self, Runner};
use tierpool_benches::run::series::Series;
use tierpool_benches::subject::Kind;
use tierpool_benches::workload::{
    self, CAPACITY, Plan, Workload, check, memory, pool_pair, refuse, route, scarcity, upkeep,
};

#[global_allocator]
static COUNTING: Counting = Counting;

const USAGE: &str = "\
usage: compare [--json] [--only WORKLOAD[,WORKLOAD]] [--quick] [--rounds N] [--list]

  --json    one object a line in the place of tables; the bars go to the error output
  --only    these workloads only, on 1 and 2 threads
  --quick   a smoke run of some seconds, for CI; not for numbers
  --rounds  rounds of batches in the place of 60
  --list    name the workloads";

fn main() {
    // A panic on any thread would leave another waiting for it.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::exit(101);
    }));
    cores::all();

    let options = Options::parse().unwrap_or_else(|fault| {
        eprintln!("{fault}\n{USAGE}");
        process::exit(2);
    });
    match &options.task {
        Task::List => {
            for workload in &workload::ALL {
                println!("{} {}", workload.name, workload.threads);
            }
        }
        Task::Weigh(subject) => memory::weigh(subject),
        Task::Serve(name, threads) => serve(find(name, *threads), options.scale),
        Task::Upkeep(run) => upkeep::answer(*run, options.scale.rounds),
        Task::Compare => compare(&options),
    }
}

/// What the command line asks for.
struct Options {
    task: Task,
    scale: Scale,
    only: Vec<String>,
    json: bool,
}

enum Task {
    Compare,
    List,
    /// For [`memory::weigh_apart`]: weigh one subject, in this process.
    Weigh(String),
    /// For the subject [`FALLBACK`]: tierpool in one workload, asked on the input and answering on the output.
    Serve(String, usize),
    /// For [`upkeep::apart`]: one of its workloads, in this process.
    Upkeep(upkeep::Run),
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    /// Rounds of one sitting.
    sitting: usize,
    samples: u64,
    target: Duration,
    singles: u64,
    quick: bool,
    /// After this long a workload makes do with the rounds it has: threads that spin for each other stand still on a machine
    /// that others use.
    patience: Duration,
}

/// A round of upkeep takes as long as some rounds of batches.
const ROUNDS_OF_BATCHES: usize = 3;

/// So does a turn of many threads.
const ROUNDS_A_TURN: usize = 10;

const FULL: Scale = Scale {
    rounds: 60,
    sitting: 10,
    samples: 8,
    target: Duration::from_micros(500),
    singles: 10_000_000,
    quick: false,
    patience: Duration::from_secs(20),
};

const QUICK: Scale = Scale {
    rounds: 3,
    sitting: 2,
    samples: 3,
    target: Duration::from_micros(100),
    singles: 60_000,
    quick: true,
    patience: Duration::from_millis(1500),
};

impl Scale {
    /// The same for workloads in which each subject runs for a while in turn.
    fn turns(&self) -> scarcity::Scale {
        let length = if self.quick { Duration::from_millis(30) } else { Duration::from_millis(250) };
        scarcity::Scale { rounds: self.rounds.div_ceil(ROUNDS_A_TURN), length }
    }
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { task: Task::Compare, scale: FULL, only: vec![], json: false };
        let mut rounds = None;
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |word: String| word.parse::<usize>().map_err(|_| format!("{word} is not a number"));
            match word.as_str() {
                "--json" => options.json = true,
                "--quick" => options.scale = QUICK,
                "--list" => options.task = Task::List,
                "--only" => options.only.extend(value()?.split(',').map(String::from)),
                "--rounds" => rounds = Some(number(value()?)?.max(1)),
                "--weigh" => options.task = Task::Weigh(value()?),
                "--upkeep" => options.task = Task::Upkeep(upkeep_of(&value()?).ok_or("no such workload")?),
                "--serve" => options.task = Task::Serve(value()?, number(value()?)?),
                _ => return Err(format!("{word}?")),
            }
        }
        options.scale.rounds = rounds.unwrap_or(options.scale.rounds);
        let known = |name: &&String| workload::ALL.iter().all(|workload| workload.name != **name);
        match options.only.iter().find(known) {
            Some(name) => Err(format!("no workload is called {name}")),
            None => Ok(options),
        }
    }

    fn wants(&self, workload: &Workload) -> bool {
        let cores = cores::all().len().max(1);
        let asked = self.only.iter().any(|name| name == workload.name);
        (asked || self.only.is_empty() && workload.usual) && workload.threads <= cores
    }
}

fn upkeep_of(name: &str) -> Option<upkeep::Run> {
    workload::ALL.iter().find_map(|workload| match workload.plan {
        Plan::Upkeep(run) if workload.name == name => Some(run),
        _ => None,
    })
}

fn find(name: &str, threads: usize) -> &'static Workload {
    let mut all = workload::ALL.iter();
    all.find(|workload| workload.name == name && workload.threads == threads).expect("a workload")
}

fn compare(options: &Options) {
    let start = Instant::now();
    ticker::start();
    progress("checking every subject");
    check::all();

    let mut all = Vec::new();
    for workload in workload::ALL.iter().filter(|workload| options.wants(workload)) {
        let mut rows = match workload.plan {
            Plan::Batches(_) | Plan::Singles(_) => timed(workload, options.scale),
            Plan::Memory => weighed(workload),
            Plan::Turns(run) => {
                progress(workload.name);
                run(&options.scale.turns())
            }
            Plan::Upkeep(run) => kept_up(workload, run, options.scale),
        };
        row::compare(&mut rows);
        progress("");
        if options.json {
            rows.iter().for_each(|row| println!("{}", json::line(row)));
        } else {
            println!("{}", table::workload(&rows));
        }
        all.extend(rows);
    }
    if cores::all().len() < 2 {
        eprintln!("one core only: what needs two threads was left out");
    }
    let bars = table::bars(&bars::all(&all));
    if options.json {
        eprintln!("{bars}");
    } else {
        println!("{bars}");
    }
    eprintln!("{:.0} s", start.elapsed().as_secs_f64());
}

/// Runs the rounds of one workload, in several sittings: each has new pools and new threads, since where their memory
/// happens to lie can be worth more than a nanosecond.
fn timed(workload: &Workload, scale: Scale) -> Vec<Row> {
    let (fill, singles) = match workload.plan {
        Plan::Batches(fill) => (fill, false),
        Plan::Singles(fill) => (fill, true),
        Plan::Memory | Plan::Turns(_) | Plan::Upkeep(_) => unreachable!("these have no batches"),
    };
    let order = if singles { scale.singles / scale.rounds as u64 } else { scale.samples };
    let mut cast = Cast::new(scale.target, None);
    let mut tallies: Vec<(&str, Kind, Series)> = Vec::new();
    let start = Instant::now();
    for round in 0..scale.rounds {
        if start.elapsed() > scale.patience {
            eprintln!("{}: only {round} rounds, the machine is busy", workload.name);
            break;
        }
        if round.is_multiple_of(scale.sitting) {
            cast.clear();
            fill(&mut cast);
            if workload.fenced && cast.runners.iter().any(|runner| runner.kind == Kind::Ours) {
                cast.add_fallback(&serving(workload, scale));
            }
            let none = |runner: &Runner| (runner.name, runner.kind, Series::default());
            if tallies.is_empty() {
                tallies = cast.runners.iter().map(none).collect();
            }
        }
        let Workload { name, threads, .. } = workload;
        progress(&format!("{name}, {threads} thread(s): round {} of {}", round + 1, scale.rounds));
        cast.round(round, order, |place, samples| tallies[place].2.extend(samples));
    }
    let make = if singles { Row::of_singles } else { Row::of_batches };
    let row = |(subject, kind, series): &(&'static str, Kind, Series)| {
        make(workload.name, workload.threads, subject, *kind, series)
    };
    let mut rows: Vec<Row> = tallies.iter().map(row).collect();
    if workload.name == "refuse" {
        add_heap_allocations(&mut rows);
    }
    if workload.name == pool_pair::NAME {
        row::add_ratio(&mut rows, pool_pair::RATIO, pool_pair::TIER);
    }
    if workload.name == route::NAME {
        row::add_ratio(&mut rows, route::RATIO, route::FEW);
    }
    rows
}

/// The command line that makes a child [`serve`] this workload.
fn serving(workload: &Workload, scale: Scale) -> Vec<String> {
    let mut arguments = vec!["--serve".into(), workload.name.into(), workload.threads.to_string()];
    arguments.extend(scale.quick.then(|| "--quick".into()));
    arguments
}

/// Counts, apart from the timing, what a refusal takes from the heap.
fn add_heap_allocations(rows: &mut [Row]) {
    for row in rows {
        let count = match row.subject {
            "tierpool" => refuse::heap_allocations::<Tierpool<Bytes<64>, CAPACITY>>(),
            "tierpool-local" => refuse::heap_allocations::<Magazine<Bytes<64>, CAPACITY>>(),
            "tierpool+reclaimer" => refuse::heap_allocations::<Watched<Bytes<64>, CAPACITY>>(),
            _ => continue,
        };
        row.extras.push(("heap_allocations", count as f64));
    }
}

/// Weighs every subject in a process of its own.
fn weighed(workload: &Workload) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut subjects: Vec<_> = memory::subjects().into_iter().map(|(name, kind)| (name, name, kind, &[][..])).collect();
    subjects.insert(3, (FALLBACK, "tierpool", Kind::Ours, &[("TIERPOOL_FENCE", "fallback")]));
    for (name, subject, kind, variables) in subjects {
        progress(&format!("{}: {name}", workload.name));
        let Some(weight) = memory::weigh_apart(subject, variables) else { continue };
        let bytes = weight.bytes as f64;
        let reported = weight.reported.map_or(f64::NAN, |bytes| bytes as f64);
        let extras =
            vec![("bytes", bytes), ("bytes_per_slot", bytes / memory::SLOTS as f64), ("bytes_reported", reported)];
        let none = (f64::NAN, f64::NAN);
        rows.push(Row::new(workload.name, workload.threads, name, kind, none, extras));
    }
    rows
}

/// Runs one of the upkeep's workloads.
fn kept_up(workload: &Workload, run: upkeep::Run, scale: Scale) -> Vec<Row> {
    progress(&format!("{}, {} thread(s)", workload.name, workload.threads));
    upkeep::apart(workload.name, workload.threads, run, scale.rounds.div_ceil(ROUNDS_OF_BATCHES))
}

/// The child's side of [`runner::Runner::in_process`].
fn serve(workload: &Workload, scale: Scale) {
    ticker::start();
    ticks::length();
    let mut cast = Cast::new(scale.target, Some("tierpool"));
    match workload.plan {
        Plan::Batches(fill) | Plan::Singles(fill) => fill(&mut cast),
        Plan::Memory | Plan::Turns(_) | Plan::Upkeep(_) => unreachable!("these have no batches"),
    }
    let runner = &mut cast.runners[0];
    for line in io::stdin().lock().lines() {
        let order = line.expect("a line").parse().expect("a number");
        let samples = runner.ask(order);
        println!("{}", runner::encode(&samples));
    }
}

/// The line that says where we are: rewritten in place on a terminal, once a workload elsewhere.
fn progress(text: &str) {
    let mut output = io::stderr();
    if output.is_terminal() {
        _ = write!(output, "\r\x1b[K{text}");
        _ = output.flush();
    } else if !text.is_empty() && !text.contains("round ") || text.contains("round 1 ") {
        _ = writeln!(output, "{text}");
    }
}
