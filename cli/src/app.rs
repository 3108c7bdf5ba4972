//! The command line.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cache::{self, Capacity, KeysError};
use crate::clock::Clock;
use crate::demo;
use crate::doctor::{self, Machine};
use crate::replay::{self, Options, ReplayError};
use crate::scarcity::{self, Load};
use crate::trace::{self, Format, MOST_OPERATIONS, Reading, Trace, TraceError};
use crate::{report, samples, units};

/// Replays what programs allocate and free through tierpool's tiers, beside the system allocator.
///
/// Without a command it replays the recordings that come with the project.
#[derive(Debug, Parser)]
#[command(version, name = "tierpool", after_help = RECORDING)]
pub struct App {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay recorded traces and report counts, leaks and times.
    #[command(after_help = RECORDING)]
    Replay(Replay),
    /// Run a load with more demand than slots, without the pool's rules and with them: who got what?
    Scarcity(Scarcity),
    /// Have a trace of keys go through caches of several sizes: how often does the pool's hit, and others, and the best that could be?
    #[command(after_help = KEYS)]
    Cache(Cache),
    /// Tell what this machine and this container offer to a pool, what is wrong for latency, and what to do.
    Doctor(Doctor),
    /// Run a small trading system on a pool, with a planted leak, to look at: a page, metrics and a log.
    #[command(after_help = WATCHING)]
    Demo(Demo),
}

const WATCHING: &str = "\
The page and the metrics are served on this machine only. What the system does:

  md         receives market data in bursts, and forgets a packet every four seconds (unless --no-leak)
  orders     sends orders over two connections to a venue that is slow for 4 s of every 20 s
  analytics  wants more samples than its quota allows

Prometheus, for example: scrape_configs: [{ job_name: demo, static_configs: [{ targets: ['127.0.0.1:9600'] }] }]";

const RECORDING: &str = "\
To record a program of yours, run it under valgrind and replay the log:

  valgrind -q --tool=dhat --dhat-out-file=/dev/null --trace-malloc=yes \\
    --run-libc-freeres=no --run-cxx-freeres=no --log-file=my.%p.log PROGRAM ARGUMENTS
  tierpool replay my.*.log

(--tool=memcheck is slower, and shows double frees too.)";

#[derive(Debug, Args)]
struct Replay {
    /// Traces, or directories of them (all files that end in .trace or .log) [default: the project's samples].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Print one JSON object a trace, each on a line.
    #[arg(long)]
    json: bool,

    /// So many threads each play the whole trace, all at the same time and on the same tiers.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,

    /// Slots in each size class [default: as many as the trace has in use together, times the threads].
    ///
    /// What does not fit is refused, counted and reported.
    #[arg(long, value_name = "SLOTS")]
    capacity: Option<NonZeroUsize>,

    /// Timed rounds over the trace [default: as many as fit in a second and a half].
    #[arg(long, value_name = "N")]
    rounds: Option<NonZeroU64>,

    /// The most memory that all slots may take, such as 512MiB or 8G.
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = units::parse_bytes)]
    memory: u64,

    /// Replay only the first N operations of each trace.
    #[arg(long, value_name = "N")]
    first: Option<NonZeroU64>,

    /// How the traces are written [default: told by the first line].
    #[arg(long, value_enum)]
    format: Option<FormatName>,
}

#[derive(Debug, Args)]
struct Scarcity {
    /// The load, in TOML [default: the project's samples/scarcity.toml].
    file: Option<PathBuf>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    /// Also draw the waits.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
}

impl Scarcity {
    fn run(self) -> Result<(), AppError> {
        let path = match self.file {
            Some(path) => path,
            None => samples::directory().ok_or(AppError::NoSamples)?.join("scarcity.toml"),
        };
        let failed = |problem: String| AppError::Load { path: path.clone(), problem };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| failed(format!("cannot be read as text: {error}; give a load in TOML")))?;
        let load =
            Load::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|error| failed(error.to_string()))?;
        let bar = Bar::new();
        bar.begin("without the rules".to_owned());
        let without = scarcity::run(&load.without_rules(), &|done| bar.set(done)).map_err(failed)?;
        bar.begin("with the rules".to_owned());
        let with = scarcity::run(&load, &|done| bar.set(done)).map_err(failed)?;
        bar.finish();
        if let Some(chart) = &self.chart {
            scarcity::chart(chart, &without, &with).map_err(io::Error::other)?;
        }
        let out = if self.json {
            format!(
                "{}\n",
                serde_json::json!({ "slots": load.slots, "seconds": load.seconds, "without": without, "with": with })
            )
        } else {
            scarcity::text(&load, &without, &with)
        };
        print(&out)
    }
}

const KEYS: &str = "\
A trace is, compressed with zstd or not,
  lines `first_block n_blocks 0 request_number`, as the ARC traces have them: a run of blocks, each a key;
  a CSV, of which one column is the key; with a header if that begins with `key`, or is no number above one;
  or an allocation trace, as `tierpool replay` reads it: each size is a key.";

#[derive(Debug, Args)]
struct Cache {
    /// The trace.
    file: PathBuf,

    /// How many entries the caches have: a number, or percent of the different keys, such as 10%. Several, or a list with commas.
    #[arg(long, value_name = "N|N%", value_delimiter = ',', default_values = ["5%", "10%", "20%", "40%"])]
    capacity: Vec<Capacity>,

    /// The column of a CSV with a header that is the key [default: the first].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// Print one JSON object for each cache and capacity, each on a line.
    #[arg(long)]
    json: bool,

    /// Also draw the curves.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
}

impl Cache {
    fn run(self) -> Result<(), AppError> {
        let path = &self.file;
        let failed = |source| AppError::Keys { path: path.clone(), source };
        let bar = Bar::new();
        bar.begin(format!("reading {}", name(path)));
        let file = Watched::open(path, &bar).map_err(|error| failed(TraceError::from(error).into()))?;
        let keys = cache::read(file, self.column.as_deref()).map_err(failed)?;
        let run = cache::run(&keys, &self.capacity, &|what| bar.begin(what), &|done| bar.set(done));
        let points = run.map_err(|problem| AppError::Load { path: path.clone(), problem })?;
        bar.finish();
        if let Some(chart) = &self.chart {
            cache::chart(chart, &name(path), &points).map_err(io::Error::other)?;
        }
        let out = if self.json {
            cache::json(&path.to_string_lossy(), &points).map_err(io::Error::from)?
        } else {
            cache::text(&name(path), &keys, &points)
        };
        print(&out)
    }
}

#[derive(Debug, Args)]
struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    /// The directory whose disk is looked at.
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Where `proc` and `sys` are: in a container that is shown the host's, for example.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Doctor {
    fn run(self) -> Result<(), AppError> {
        let machine = Machine::look(&self.directory, &self.root).map_err(AppError::Machine)?;
        print(&if self.json { format!("{}\n", doctor::show::json(&machine)) } else { doctor::show::text(&machine) })
    }
}

#[derive(Debug, Args)]
struct Demo {
    /// Where the page is served, on 127.0.0.1; 0 for any port that is free.
    #[arg(long, value_name = "N", default_value = "9600")]
    port: u16,

    /// How long to run [default: until Ctrl-C].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Without the leak.
    #[arg(long)]
    no_leak: bool,
}

impl Demo {
    fn run(self) -> Result<(), AppError> {
        let options = demo::Options { port: self.port, seconds: self.seconds, leaks: !self.no_leak };
        demo::run(options, |text| match writeln!(io::stdout().lock(), "{text}") {
            // Whoever reads may have read enough; there is the page.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        })
        .map_err(AppError::Demo)
    }
}

/// Writes to the standard output; whoever reads may have read enough.
fn print(text: &str) -> Result<(), AppError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    /// `Alloc(bytes),` and `Free(number),`.
    Text,
    /// The log of `valgrind --trace-malloc=yes`.
    Valgrind,
}

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A trace could not be read.
    #[error("{}{}: {source}", .path.display(), .source.line().map(|line| format!(":{line}")).unwrap_or_default())]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why, and at which line.
        source: TraceError,
    },
    /// A trace of keys could not be read.
    #[error("{}{}: {source}", .path.display(), .source.line().map(|line| format!(":{line}")).unwrap_or_default())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why, and at which line.
        source: KeysError,
    },
    /// A directory holds no trace.
    #[error("{}: no trace is in this directory; expected files that end in .trace or .log", .path.display())]
    NoTraces {
        /// The directory.
        path: PathBuf,
    },
    /// The project's recordings are not there.
    #[error(
        "the project's samples are neither beside the sources nor in ./samples; name a trace: tierpool replay FILE"
    )]
    NoSamples,
    /// A replay failed.
    #[error("{}: {source}", .path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReplayError,
    },
    /// A load cannot be run.
    #[error("{}: {problem}", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong, at which line, and what to do.
        problem: String,
    },
    /// The machine could not be looked at.
    #[error("{0}")]
    Machine(String),
    /// The demo could not run.
    #[error("{0}")]
    Demo(String),
    /// The output could not be written.
    #[error("the report could not be written: {0}")]
    Output(#[from] io::Error),
}

impl AppError {
    /// What the process exits with: 2 for what the user gave it, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::Trace { .. }
            | AppError::Keys { .. }
            | AppError::NoTraces { .. }
            | AppError::NoSamples
            | AppError::Load { .. }
            | AppError::Machine(_)
            | AppError::Demo(_) => 2,
            AppError::Replay { source: ReplayError::Tiers(crate::tiers::TiersError::TooMuchMemory { .. }), .. } => 2,
            AppError::Replay { .. } | AppError::Output(_) => 1,
        }
    }
}

impl App {
    /// Does what the command line says, and prints only if all of it succeeds.
    ///
    /// # Errors
    /// Returns [`AppError`] if a trace cannot be read or replayed, or the output cannot be written.
    pub fn run(self) -> Result<(), AppError> {
        match self.command {
            Some(Command::Replay(replay)) => replay.run(),
            Some(Command::Scarcity(scarcity)) => scarcity.run(),
            Some(Command::Cache(cache)) => cache.run(),
            Some(Command::Doctor(doctor)) => doctor.run(),
            Some(Command::Demo(demo)) => demo.run(),
            None => Replay::of_samples().run(),
        }
    }
}

impl Replay {
    fn of_samples() -> Self {
        Replay {
            files: Vec::new(),
            json: false,
            threads: 1,
            capacity: None,
            rounds: None,
            memory: 2 << 30,
            first: None,
            format: None,
        }
    }

    fn run(self) -> Result<(), AppError> {
        let paths = self.paths()?;
        let bar = Bar::new();
        let traces = self.read(&paths, &bar)?;
        let clock = Clock::new();
        let mut out = String::new();
        for (index, (path, trace)) in paths.iter().zip(&traces).enumerate() {
            bar.begin(format!("replaying {}", name(path)));
            let progress = |done: f64| bar.set(done);
            let outcome = replay::replay(trace, self.options(), &clock, &progress)
                .map_err(|source| AppError::Replay { path: path.clone(), source })?;
            if self.json {
                let line = serde_json::to_string(&report::Json::new(&path.to_string_lossy(), &outcome));
                out.push_str(&line.map_err(io::Error::from)?);
                out.push('\n');
            } else {
                if index > 0 {
                    out.push('\n');
                }
                out.push_str(&report::text(&name(path), &outcome));
            }
        }
        bar.finish();
        print(&out)
    }

    fn options(&self) -> Options {
        Options {
            threads: self.threads.into(),
            capacity: self.capacity.map(NonZeroUsize::get),
            rounds: self.rounds.map(NonZeroU64::get),
            memory: self.memory,
        }
    }

    /// The files to replay, directories opened.
    fn paths(&self) -> Result<Vec<PathBuf>, AppError> {
        let named = if self.files.is_empty() {
            vec![samples::directory().ok_or(AppError::NoSamples)?]
        } else {
            self.files.clone()
        };
        let mut paths = Vec::new();
        for path in named {
            if path.is_dir() {
                let found = samples::traces_in(&path)
                    .map_err(|error| AppError::Trace { path: path.clone(), source: error.into() })?;
                if found.is_empty() {
                    return Err(AppError::NoTraces { path });
                }
                paths.extend(found);
            } else {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Reads all traces, before any is replayed.
    fn read(&self, paths: &[PathBuf], bar: &Bar) -> Result<Vec<Trace>, AppError> {
        let format = self.format.map(|name| match name {
            FormatName::Text => Format::Text,
            FormatName::Valgrind => Format::Valgrind,
        });
        let mut room = MOST_OPERATIONS;
        let mut traces = Vec::with_capacity(paths.len());
        for path in paths {
            bar.begin(format!("reading {}", name(path)));
            let failed = |source| AppError::Trace { path: path.clone(), source };
            let file = Watched::open(path, bar).map_err(|error| failed(error.into()))?;
            let reader = BufReader::with_capacity(1 << 16, file);
            let reading = Reading { format, first: self.first.map(NonZeroU64::get), most: room };
            let trace = trace::read(reader, reading).map_err(failed)?;
            room -= trace.len() as u64;
            traces.push(trace);
        }
        Ok(traces)
    }
}

/// A path as a person names it: only its last part.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned()
}

/// A file that moves the bar while it is read.
struct Watched<'a> {
    file: File,
    read: u64,
    length: u64,
    bar: &'a Bar,
}

impl<'a> Watched<'a> {
    fn open(path: &Path, bar: &'a Bar) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Watched { file, read: 0, length, bar })
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        if self.length > 0 {
            self.bar.set(self.read as f64 / self.length as f64);
        }
        Ok(read)
    }
}

/// The progress bar: on a terminal only, and only once a run has taken a moment.
struct Bar {
    bar: ProgressBar,
    start: Instant,
}

const STEPS: u64 = 1000;
const MOMENT: Duration = Duration::from_millis(300);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent} %").expect("the template is valid");
        bar.set_style(style.progress_chars("=> "));
        Bar { bar, start: Instant::now() }
    }

    fn begin(&self, message: String) {
        self.bar.set_message(message);
        self.set(0.0);
    }

    /// Only moves the bar: there is no thread that draws it, which would disturb what is measured.
    fn set(&self, done: f64) {
        if self.bar.is_hidden() && self.start.elapsed() > MOMENT && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position((done * STEPS as f64) as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}
