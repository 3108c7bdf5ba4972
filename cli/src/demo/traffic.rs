//! The demo's threads: a feed that bursts, books that are kept up to date, orders to a venue that is slow now and then, and analytics that want
//! more than they may have.
//!
//! All of it is real: leases travel between threads, waits wait, and who is refused does without. What happens when goes by the time since
//! the start, so that whoever looks knows what to wait for.

use std::collections::VecDeque;
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tierpool::{Lease, Memory, Pool, Priority, Request, RequestError};

use super::world::{BOOK, Connection, PACKET, QUOTA, TICK, VENUE};

/// The feed's pace: so many packets every two milliseconds, and so many in a burst.
const PACE: Duration = Duration::from_millis(2);
const PACKETS: usize = 16;
const PACKETS_IN_A_BURST: usize = 120;
/// Of every eight seconds, the last 400 ms.
const BURSTS: (u128, u128) = (8000, 7600);
/// Of every twenty seconds, from the twelfth to the sixteenth.
const OUTAGES: (u128, u128, u128) = (20_000, 12_000, 16_000);
/// Packets that the handler has in hand before it is done with the first.
const WINDOW: usize = 200;
/// Ticks on the tape.
const TAPE: usize = 1500;
/// A packet is forgotten so often.
const FORGETS: Duration = Duration::from_secs(4);
const ORDER_THREADS: usize = 4;
const ORDER_PATIENCE: Duration = Duration::from_millis(20);

/// The threads, while they run.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    leaking: Option<&'static Location<'static>>,
}

/// What the threads share.
#[derive(Clone)]
struct Scene {
    pool: Pool,
    start: Instant,
    stop: Arc<AtomicBool>,
}

impl Scene {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn millis(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    fn is_burst(&self) -> bool {
        self.millis() % BURSTS.0 >= BURSTS.1
    }

    /// How long the venue takes for an order.
    fn round_trip(&self) -> Duration {
        let (every, from, to) = OUTAGES;
        let is_slow = (from..to).contains(&(self.millis() % every));
        Duration::from_millis(if is_slow { 60 } else { 1 })
    }
}

impl Traffic {
    /// Starts all threads; they run until `stop` is set.
    pub fn start(pool: &Pool, leaks: bool, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let scene = Scene { pool: pool.clone(), start: Instant::now(), stop: Arc::clone(stop) };
        let (packets, received) = sync_channel(8 * 1024);
        let line = Arc::new(OnceLock::new());
        let mut traffic = Traffic { stop: Arc::clone(stop), threads: Vec::new(), leaking: None };
        let (feed, noted) = (scene.clone(), Arc::clone(&line));
        traffic.spawn("md-feed", move || run_feed(&feed, &packets, &noted))?;
        let books = scene.clone();
        traffic.spawn("md-books", move || run_books(&books, &received, leaks))?;
        for number in 0..ORDER_THREADS {
            let orders = scene.clone();
            traffic.spawn(&format!("orders-{number}"), move || run_orders(&orders))?;
        }
        traffic.spawn("analytics", move || run_analytics(&scene))?;
        if leaks {
            // The feed has noted it when it has its first packet.
            traffic.leaking = Some(line.wait());
        }
        Ok(traffic)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// The line whose slots are forgotten, if there is one.
    pub fn leaking_line(&self) -> Option<&'static Location<'static>> {
        self.leaking
    }

    /// Whether somebody has interrupted the program.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends all threads and waits for them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been told on its thread.
            drop(thread.join());
        }
    }
}

/// Receives packets, in bursts now and then, and hands them on. What finds no buffer in time is dropped, as a network card would.
fn run_feed(scene: &Scene, packets: &SyncSender<Lease<Memory>>, noted: &OnceLock<&'static Location<'static>>) {
    while !scene.is_over() {
        let next = Instant::now() + PACE;
        for _ in 0..if scene.is_burst() { PACKETS_IN_A_BURST } else { PACKETS } {
            let Ok(mut packet) = receive(&scene.pool, noted) else { continue };
            packet[..8].copy_from_slice(&scene.millis().to_le_bytes()[..8]);
            match packets.try_send(packet) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A buffer for a packet; its holder is the line that calls this, which is noted.
#[track_caller]
fn receive(pool: &Pool, noted: &OnceLock<&'static Location<'static>>) -> Result<Lease<Memory>, RequestError> {
    let line = Location::caller();
    noted.get_or_init(|| line);
    let request = Request::memory(PACKET).tenant("md").tag("rx").priority(Priority::High);
    pool.allocate_timeout(request, Duration::from_millis(4))
}

/// Puts packets on a tape and into books, at a pace of its own: in a burst they pile up.
fn run_books(scene: &Scene, received: &Receiver<Lease<Memory>>, leaks: bool) {
    let mut in_hand = VecDeque::new();
    let mut tape = VecDeque::new();
    let mut forgotten = Instant::now();
    let mut handled = 0u64;
    while !scene.is_over() {
        let packet = match received.recv_timeout(Duration::from_millis(20)) {
            Ok(packet) => packet,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        handled += 1;
        let request = Request::memory(TICK).tenant("md").tag("tape");
        if let Ok(mut tick) = scene.pool.try_allocate(request) {
            tick[..8].copy_from_slice(&packet[..8]);
            tape.push_back(tick);
        }
        if tape.len() > TAPE {
            tape.pop_front();
        }
        in_hand.push_back(packet);
        let done = if in_hand.len() > WINDOW { in_hand.pop_front() } else { None };
        if let Some(done) = done.filter(|_| leaks && forgotten.elapsed() >= FORGETS) {
            // The planted fault: a packet that is put aside for somebody who never looks, as error paths do.
            std::mem::forget(done);
            forgotten = Instant::now();
        }
        if handled.is_multiple_of(64) {
            let book = scene.pool.try_allocate(Request::memory(BOOK).tenant("md").tag("book"));
            if let Ok(mut book) = book {
                book[..8].copy_from_slice(&handled.to_le_bytes());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends orders through connections of which there are fewer than threads.
fn run_orders(scene: &Scene) {
    let request = Request::of::<Connection>(VENUE).tenant("orders").tag("new-order").priority(Priority::Critical);
    while !scene.is_over() {
        match scene.pool.allocate_timeout(request, ORDER_PATIENCE) {
            Ok(mut connection) => {
                let message = scene.pool.try_allocate(Request::memory(TICK).tenant("orders").tag("new-order"));
                connection.orders += 1;
                thread::sleep(scene.round_trip());
                drop(message);
            }
            // The breaker is open, or nobody was done in time: an order that is late is no order.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
        thread::sleep(Duration::from_millis(4));
    }
}

/// Gathers samples for reports, more of them than the quota allows, and keeps one book for as long as it runs: long, and no leak.
fn run_analytics(scene: &Scene) {
    let report = scene.pool.try_allocate(Request::memory(BOOK).tenant("analytics").tag("report"));
    let sample = Request::memory(TICK).tenant("analytics").tag("sample").priority(Priority::Low);
    while !scene.is_over() {
        let wanted = QUOTA as usize + 40;
        let samples: Vec<_> = (0..wanted).map_while(|_| scene.pool.try_allocate(sample).ok()).collect();
        pause(scene, Duration::from_millis(700));
        drop(samples);
        pause(scene, Duration::from_millis(900));
    }
    drop(report);
}

/// Sleeps, unless all is over meanwhile.
fn pause(scene: &Scene, time: Duration) {
    let end = Instant::now() + time;
    while !scene.is_over() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
}
