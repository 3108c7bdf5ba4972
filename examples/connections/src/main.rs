//! Connections in a pool, and a server that has a bad day: `cargo run --release -p tierpool-connections`.
//!
//! Starts a PostgreSQL server of its own, lets eight threads transfer money over a pool of four connections, kills the
//! connections, allows fewer of them, stops the server, starts it again; and shows, every quarter of a second, how the
//! service fared.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use connections::ledger::{self, Failure, Outcome};
use connections::pool::{self, Connection, Rules};
use connections::server::{Server, USER};
use tierpool::Tier;

/// How long a worker waits for a connection.
const PATIENCE: Duration = Duration::from_millis(100);

/// What one line of the report covers.
const LINE: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(server) = Server::start()? else {
        return Err("PostgreSQL is not installed; on Debian: apt-get install postgresql".into());
    };
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let rules = Rules {
        most: 4,
        max_age: Duration::from_secs(1), // so that it is seen to happen
        trust: Duration::from_millis(50),
        pauses: (Duration::from_millis(20), Duration::from_millis(500)),
        ..Rules::default()
    };
    let tier = pool::open(server.config(), rules, move |report| {
        sink.lock().expect("no panic while it is locked").push(report.to_string());
    })?;
    ledger::create(&tier, PATIENCE).map_err(|failure| format!("{failure:?}"))?;

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        ledger::work(scope, (&tier, PATIENCE), 8, &over, &sender);
        let day = day(&server, &mut Watch { tier: &tier, outcomes, start: Instant::now(), seen: Duration::ZERO });
        over.store(true, Ordering::Relaxed);
        day
    })?;

    let sum = ledger::sum(&tier, PATIENCE).map_err(|failure| format!("{failure:?}"))?;
    let snapshot = tier.snapshot();
    println!("\nall accounts add up to {sum}, as they should to 0");
    println!("{} times a connection was leased, {} were opened", snapshot.allocations, pool::opened());
    let reports = reports.lock().expect("no panic while it is locked");
    println!(
        "{} reports from the pool, the last of them: {}",
        reports.len(),
        reports.last().map_or("", String::as_str)
    );
    Ok(())
}

/// The day, told line by line.
fn day(server: &Server, watch: &mut Watch) -> Result<(), Box<dyn Error>> {
    println!("   time  transfers/s   median      p99     lost  no connection   connections: free held none");
    watch.lines(2);
    println!("-- {} connections are killed by the server", server.kill_backends()?);
    watch.lines(2);
    server.sql(&format!("ALTER ROLE {USER} CONNECTION LIMIT 2"))?;
    println!("-- {} connections are killed, and the server allows only 2", server.kill_backends()?);
    watch.lines(3);
    server.sql(&format!("ALTER ROLE {USER} CONNECTION LIMIT -1"))?;
    println!("-- the limit is lifted");
    watch.lines(3);
    server.stop()?;
    println!("-- the server is gone");
    watch.lines(3);
    server.restart()?;
    println!("-- the server is back");
    watch.lines(4);
    Ok(())
}

/// Sees what the workers do.
struct Watch<'a> {
    tier: &'a Tier<Connection>,
    outcomes: Receiver<Outcome>,
    start: Instant,
    /// What the lines so far cover.
    seen: Duration,
}

impl Watch<'_> {
    fn lines(&mut self, count: usize) {
        (0..count).for_each(|_| self.line());
    }

    fn line(&mut self) {
        thread::sleep(LINE);
        let now = self.start.elapsed();
        let seconds = (now - self.seen).as_secs_f64();
        self.seen = now;
        let (mut times, mut lost, mut none) = (Vec::new(), 0, 0);
        for (result, time) in self.outcomes.try_iter() {
            match result {
                Ok(()) => times.push(time),
                Err(Failure::NoConnection(_)) => none += 1,
                Err(Failure::Lost(_) | Failure::Refused(_)) => lost += 1,
            }
        }
        times.sort_unstable();
        let quantile = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times.get(place).map_or("–".into(), |time| format!("{time:.1?}"))
        };
        let slots = self.tier.snapshot();
        println!(
            "{:5.2} s  {:11.0}  {:>7}  {:>7}  {lost:7}  {none:13}  {:17} {:4} {:4}",
            now.as_secs_f64(),
            times.len() as f64 / seconds,
            quantile(0.5),
            quantile(0.99),
            slots.free,
            slots.leased + slots.claimed,
            slots.quarantined + slots.absent,
        );
    }
}
