//! The whole reclaimer at once, by chance: threads that do everything that a program can do with a tier, while another makes
//! passes, grows, shrinks and lets time go by, and one closes.
//!
//! [shuttle](https://docs.rs/shuttle) runs the threads one step at a time, in an order drawn at random; a failure prints the schedule,
//! with which `SHUTTLE_REPLAY` repeats it. It knows no weak memory: that is loom's part, on small programs.
#![cfg(shuttle)]

use std::collections::HashSet;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::thread;
use tierpool::internals::{begin, set_clock};
use tierpool::{AllocateError, Handle, Lease, Report, SharedLease, Tier, TierBuilder};

const TICK: Duration = Duration::from_millis(10);

/// Runs the program some thousand times, each time in another order (`SHUTTLE_ITERATIONS` overrides).
fn explore(program: impl Fn() + Clone + Send + Sync + 'static) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(program))) {
        let test = std::thread::current();
        // To the real stderr, as the loom models do it.
        let why = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let _ = writeln!(std::io::stderr(), "model {} failed:\n{}", test.name().unwrap_or("?"), why.unwrap_or("?"));
        resume_unwind(panic);
    }
}

fn run(program: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.silence_warnings = true; // that orderings are not modelled is said above
    config.stack_size = 1 << 17;
    let runner = |scheduler: Box<dyn Scheduler + Send>| shuttle::Runner::new(scheduler, config.clone());
    let program = move || {
        begin();
        program();
    };
    match std::env::var("SHUTTLE_REPLAY") {
        Ok(schedule) => {
            let scheduler = ReplayScheduler::new_from_encoded(&schedule);
            runner(Box::new(scheduler)).run(program);
        }
        Err(_) => {
            let orders = std::env::var("SHUTTLE_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
            runner(Box::new(RandomScheduler::new(orders / 2))).run(program.clone());
            // Threads run on for long, and change at three places only: other mistakes show.
            runner(Box::new(PctScheduler::new(3, orders / 2))).run(program);
        }
    }
}

/// What was made and what was dropped in one execution. Plain `std`: the observer's, and no part of the program.
#[derive(Default)]
struct Census {
    alive: std::sync::Mutex<HashSet<usize>>,
    made: AtomicUsize,
    ended: AtomicBool,
    /// Whether the reclaimer has caught a panic: an assertion in what it runs.
    panicked: AtomicBool,
    /// Whether the factory may fail.
    strikes: AtomicBool,
}

impl Census {
    fn alive(&self) -> std::sync::MutexGuard<'_, HashSet<usize>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tier of watched values, which are cleaned between two uses.
    fn tier(self: &Arc<Self>, builder: TierBuilder<Value>) -> Tier<Value> {
        let tools = Tools(Arc::clone(self));
        let factory = move || {
            let census = &tools.0;
            assert!(!census.ended.load(Ordering::Relaxed), "the factory is there as long as it is needed");
            if census.strikes.load(Ordering::Relaxed) && thread_rng().gen_range(0..4) == 0 {
                return Err("the factory is on strike");
            }
            let number = census.made.fetch_add(1, Ordering::Relaxed);
            census.alive().insert(number);
            Ok(Value { number, users: AtomicI32::new(0), used: false, census: Arc::clone(census) })
        };
        let census = Arc::clone(self);
        let note = move |report: &Report| {
            if let Report::Panicked { .. } = report {
                census.panicked.store(true, Ordering::Relaxed);
            }
        };
        builder.clean(Value::clean).on_report(note).try_build_with(factory).unwrap()
    }

    fn assert_ended(&self) {
        assert!(self.ended.load(Ordering::Relaxed), "the incarnation ends");
        assert!(!self.panicked.load(Ordering::Relaxed), "nothing panics in the reclaimer");
    }
}

/// What the factory owns: it goes with the tier's incarnation.
struct Tools(Arc<Census>);

impl Drop for Tools {
    fn drop(&mut self) {
        assert!(!self.0.ended.swap(true, Ordering::Relaxed), "an incarnation ends once");
        assert_eq!(self.0.alive().len(), 0, "and after its last value");
    }
}

/// A value that notices two hands on it, a second drop, and a use before it is cleaned.
struct Value {
    number: usize,
    /// How many read it; -1 for who writes.
    users: AtomicI32,
    used: bool,
    census: Arc<Census>,
}

impl Value {
    fn write(&mut self) {
        assert_eq!(
            self.users.swap(-1, Ordering::Relaxed),
            0,
            "a value is written by nobody or one, and not read meanwhile"
        );
        thread::yield_now();
        assert_eq!(self.users.swap(0, Ordering::Relaxed), -1, "a value is written by one");
    }

    fn read(&self) {
        assert!(self.users.fetch_add(1, Ordering::Relaxed) >= 0, "a value is not written while it is read");
        thread::yield_now();
        assert!(self.census.alive().contains(&self.number), "a value that is read is there");
        assert!(self.users.fetch_sub(1, Ordering::Relaxed) > 0, "a value is not written while it is read");
    }

    fn clean(&mut self) {
        assert!(self.used, "a value is cleaned once a use");
        self.write();
        self.used = false;
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.write();
        assert!(self.census.alive().remove(&self.number), "a value is dropped once");
    }
}

fn take(tier: &Tier<Value>) -> Option<Lease<Value>> {
    let mut lease = tier.try_allocate().ok()?;
    assert!(!lease.used, "a value is clean when it is handed out");
    lease.used = true;
    lease.write();
    Some(lease)
}

/// What the threads have, and what they pass on to each other.
#[derive(Clone, Default)]
struct Handles {
    detached: Arc<Mutex<Vec<Handle>>>,
    shared: Arc<Mutex<Vec<Handle>>>,
}

fn any<T>(things: &mut Vec<T>) -> Option<T> {
    (!things.is_empty()).then(|| things.swap_remove(thread_rng().gen_range(0..things.len())))
}

/// A thread that does this and that, and gives back what it has in the end, except for handles.
fn use_it(tier: &Tier<Value>, handles: &Handles, steps: usize) {
    let (mut leases, mut shared) = (Vec::new(), Vec::<SharedLease<Value>>::new());
    for _ in 0..steps {
        match thread_rng().gen_range(0..14) {
            0..4 => leases.extend(take(tier)),
            4 => drop(any(&mut leases)),
            5 => any(&mut leases).into_iter().for_each(Lease::discard),
            6 => drop(any(&mut leases).map(Lease::take)),
            7 => {
                let patience = TICK * thread_rng().gen_range(0..8);
                let detached = any(&mut leases).map(|lease| lease.detach_for(patience));
                handles.detached.lock().unwrap().extend(detached);
            }
            8 => {
                let handle = any(&mut handles.detached.lock().unwrap());
                let attached = handle.and_then(|handle| tier.attach(handle).ok());
                leases.extend(attached.map(|mut lease| {
                    lease.write();
                    lease
                }));
            }
            9 => {
                let handle = any(&mut handles.detached.lock().unwrap());
                handle.map(|handle| tier.release(handle));
            }
            10 => {
                let sharing = any(&mut leases).map(Lease::share);
                handles.shared.lock().unwrap().extend(sharing);
            }
            11 => {
                let known = handles.shared.lock().unwrap().clone();
                let pin = tier.pin();
                known.into_iter().filter_map(|handle| tier.read(handle, &pin)).for_each(Value::read);
            }
            12 => {
                let handle = any(&mut handles.shared.lock().unwrap());
                if let Some(handle) = handle {
                    tier.retire(handle).expect("who took the handle off the list is alone with it");
                }
            }
            _ => match any(&mut shared) {
                Some(one) => one.read(),
                None => {
                    shared.extend(any(&mut leases).map(Lease::into_shared).into_iter().flat_map(|it| [it.clone(), it]))
                }
            },
        }
    }
}

/// The thread that does what nobody asks for, and lets time go by.
fn look_after(tier: &Tier<Value>, passes: u32) {
    let mut now = 0;
    for _ in 0..passes {
        now += thread_rng().gen_range(0..4);
        set_clock(now);
        let slots = thread_rng().gen_range(0..=tier.capacity());
        match thread_rng().gen_range(0..6) {
            0 => drop(tier.grow_to(slots)),
            1 => assert!(
                tier.shrink_to(slots) >= LEAST || tier.snapshot().closed,
                "a tier does not become smaller than it may"
            ),
            2 => {
                tier.retain(|value| {
                    value.write();
                    thread_rng().gen_range(0..4) > 0
                });
            }
            _ => {
                tier.reclaim();
            }
        }
        thread::yield_now();
    }
}

const LEAST: usize = 1;

fn builder(capacity: usize) -> TierBuilder<Value> {
    Tier::builder("shuttle").capacity(capacity).min_capacity(LEAST).rebuild_backoff(TICK, 2 * TICK)
}

/// Ends all handles, and lets so much time go by that nothing is left to wait for.
fn settle(tier: &Tier<Value>, handles: &Handles) {
    let detached = std::mem::take(&mut *handles.detached.lock().unwrap());
    for handle in detached {
        let _ = tier.release(handle);
    }
    let shared = std::mem::take(&mut *handles.shared.lock().unwrap());
    shared.into_iter().for_each(|handle| tier.retire(handle).expect("nobody else has it"));
    for later in 1..4 {
        set_clock(1000 * later);
        tier.reclaim();
    }
}

/// Guarantees 1, 4 and 5 for everything at once: no value is in two hands, each is dropped once, and in the end every slot is free or
/// absent, and the tier ends once. In every second run the tier is closed while all this goes on.
#[test]
fn everything_at_once() {
    explore(|| {
        let (census, handles) = (Arc::new(Census::default()), Handles::default());
        let tier = census.tier(builder(4).idle_timeout(3 * TICK).max_age(20 * TICK).leak_after(5 * TICK));
        census.strikes.store(true, Ordering::Relaxed);
        let mut threads: Vec<_> = (0..3)
            .map(|_| {
                let (tier, handles) = (tier.clone(), handles.clone());
                thread::spawn(move || use_it(&tier, &handles, 20))
            })
            .collect();
        threads.push(thread::spawn({
            let tier = tier.clone();
            move || look_after(&tier, 12)
        }));
        if thread_rng().gen_range(0..2) == 0 {
            (0..thread_rng().gen_range(0..100)).for_each(|_| thread::yield_now());
            tier.close();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        census.strikes.store(false, Ordering::Relaxed);
        settle(&tier, &handles);
        let now = tier.snapshot();
        assert_eq!(now.free + now.absent, now.capacity, "every slot is free or absent: {now:?}");
        assert_eq!(now.free, census.alive().len(), "every value is in a free slot: {now:?}");
        assert!(now.closed || now.free >= LEAST, "a tier does not become smaller than it may: {now:?}");
        tier.close();
        assert_eq!(census.alive().len(), 0, "every value is dropped");
        drop(tier);
        census.assert_ended();
    });
}

/// Guarantees 2 and 4 for who waits: every thread gets a slot in the end, though the slots are cleaned, built, expired and removed
/// by others; a wake-up that is lost leaves a thread asleep for ever, which shuttle reports. Every use is counted.
#[test]
fn everybody_gets_a_slot() {
    explore(|| {
        let census = Arc::new(Census::default());
        let mut chance = thread_rng();
        let (capacity, threads, uses) = (chance.gen_range(1..3), chance.gen_range(2..5), chance.gen_range(1..4));
        let tier = census.tier(builder(capacity));
        let mut threads: Vec<_> = (0..threads)
            .map(|_| {
                let tier = tier.clone();
                thread::spawn(move || {
                    for _ in 0..uses {
                        let mut lease = tier.allocate().unwrap();
                        assert!(!lease.used, "a value is clean when it is handed out");
                        lease.used = true;
                        lease.write();
                        match thread_rng().gen_range(0..4) {
                            0 => lease.discard(),
                            1 => drop(tier.release(lease.detach())),
                            2 => tier.retire(lease.share()).unwrap(),
                            _ => drop(lease),
                        }
                    }
                })
            })
            .collect();
        let passes = thread_rng().gen_range(0..8);
        threads.push(thread::spawn({
            let tier = tier.clone();
            move || look_after(&tier, passes)
        }));
        let uses = uses * (threads.len() as u64 - 1);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        settle(&tier, &Handles::default());
        let now = tier.snapshot();
        assert_eq!(now.free + now.absent, now.capacity, "every slot is free or absent: {now:?}");
        // A grant that nobody took in time counts as a use too.
        assert!(
            now.allocations >= uses && now.releases == now.allocations && now.waiting == 0,
            "every use is counted: {now:?}"
        );
        drop(tier);
        census.assert_ended();
    });
}

/// The end for who waits: a close wakes everybody, and says why.
#[test]
fn a_close_wakes_everybody() {
    explore(|| {
        let census = Arc::new(Census::default());
        let tier = census.tier(builder(1));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let tier = tier.clone();
                thread::spawn(move || match tier.allocate() {
                    Ok(mut lease) => {
                        lease.used = true;
                        lease.write();
                    }
                    Err(why) => assert!(matches!(why, AllocateError::Closed { .. })),
                })
            })
            .collect();
        tier.reclaim();
        tier.close();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(census.alive().len(), 0, "every value is dropped");
        drop(tier);
        census.assert_ended();
    });
}
