//! `tierpool demo`: a running program to look at: its page, its metrics, its log.
//!
//! A small trading system on real threads, with three tenants that compete for one pool, a venue that is slow now and then, and, unless told
//! otherwise, a line of source that forgets a slot every few seconds. `world` builds the pool, `traffic` uses it.

mod traffic;
mod world;

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use tierpool::{HealthMonitor, Pool, ResourceDetector, Server};

use self::traffic::Traffic;

/// The name of the pool on the page and in metrics.
const NAME: &str = "demo";
/// How often the program looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(50);

/// What is wanted of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where the page is served on this machine; 0: any port that is free.
    pub port: u16,
    /// How long it runs; until it is interrupted, if nothing is said.
    pub seconds: Option<u64>,
    /// Whether a line leaks.
    pub leaks: bool,
}

/// Runs until the time is up or somebody interrupts it; prints through `say` what to look at, and in the end what was seen.
///
/// # Errors
/// A sentence: the port is taken, or the system has too little for the pool.
pub fn run(options: Options, say: impl Fn(&str) -> io::Result<()>) -> Result<(), String> {
    log();
    let said = |text: &str| say(text).map_err(|error| format!("the standard output cannot be written: {error}"));
    let failed = |what: &str, error: &dyn std::error::Error| format!("{what}: {error}");
    let pool = world::build().map_err(|error| failed("the demo's pool could not be built", &*error))?;
    let observer = pool.observe(NAME).map_err(|error| failed("the pool cannot be observed", &error))?;
    let monitor = HealthMonitor::builder(ResourceDetector::new())
        .pool(&pool)
        .tracing()
        .every(Duration::from_secs(1))
        .build()
        .map_err(|error| failed("the machine cannot be watched", &error))?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), options.port);
    let server = Server::builder()
        .observer(&observer)
        .health(&monitor)
        .address(address.to_string())
        .build()
        .map_err(|error| format!("the page cannot be served: {error} (--port 0)"))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| failed("signals cannot be caught", &error))?;
    }
    let traffic = Traffic::start(&pool, options.leaks, &stop).map_err(|error| failed("no thread", &error))?;
    said(&greeting(&server, options, &traffic))?;

    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !traffic.is_over() && end.is_none_or(|end| Instant::now() < end) {
        std::thread::sleep(PAUSE);
    }
    drop(server);
    // Holders are those of the running program; what the threads hold goes back when they end.
    let summary = summary(&pool, options.seconds);
    traffic.stop();
    said(&summary)
}

/// Events go to the standard error, a line each.
fn log() {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // Another log that a caller of this library has set up is as good.
    drop(log.with_max_level(tracing::Level::INFO).try_init());
}

fn greeting(server: &Server, options: Options, traffic: &Traffic) -> String {
    let address = server.address();
    let until = options.seconds.map_or("until Ctrl-C".to_owned(), |seconds| format!("for {seconds} s"));
    let leak = match traffic.leaking_line() {
        Some(line) => format!("a leak, planted at {line}: the page, the metrics and the log below name that line"),
        None => "no leak: `md`'s packets all come back".to_owned(),
    };
    format!(
        "tierpool demo: a market-data feed, orders and analytics share a pool, {until}\n\
         \x20 page     http://{address}/\n\
         \x20 metrics  http://{address}/metrics\n\
         \x20 JSON     http://{address}/pools\n\
         What to look for:\n\
         \x20 - {leak}\n\
         \x20 - `md` bursts every 8 s: the packets run out, and the feed waits for some\n\
         \x20 - the venue is slow for 4 s of every 20 s: orders wait for connections, and the circuit breaker opens\n\
         \x20 - `analytics` wants more than its quota, and is refused the rest\n\
         The log, on the standard error:"
    )
}

/// How the pool stands: what a person asks for after an incident.
fn summary(pool: &Pool, seconds: Option<u64>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{}", pool.monitor());
    let _ = writeln!(out, "\nWho holds how much, by line:\n{}", pool.holders_by_site());
    let leaks = pool.leaks();
    let _ = writeln!(out, "\nHeld for too long:");
    for leak in &leaks {
        let _ = writeln!(out, "{leak}");
    }
    if leaks.is_empty() {
        let _ = writeln!(out, "nothing");
    }
    if seconds.is_none() {
        let _ = writeln!(out, "\nInterrupted.");
    }
    out
}
