//! The long random run: everything that a tier can do, by several threads, with failures and panics of all of the program's
//! code, for as long as one likes. Rounds of about a second, each with a tier of its own kind; each ends with exact accounts.
//!
//! Each value watches itself: it knows whether it lives, who has it in hand, and how many read it, and it aborts the
//! process when two of that do not go together. Its note is not atomic, for the sanitizers.
//!
//! - `TIERPOOL_SOAK_SECONDS`: how long (default 3).
//! - `TIERPOOL_SOAK_SEED`: the number that a failed run has printed. It repeats the choices, not the race.

use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::{Allocate, AllocateError, Handle, HandleError, Lease, Reclaimer, SharedLease, Tier, TierBuilder};

const THREADS: usize = 4;

/// What the program's code panics with here, when it is told to.
const TOLD: &str = "told to";

/// Says what is wrong and ends the process: a panic could be taken for one of those that are part of the game.
macro_rules! check {
    ($truth:expr, $($said:tt)+) => {
        if !$truth {
            fail(format_args!($($said)+));
        }
    };
}

/// The round that is under way.
static SEED: AtomicU64 = AtomicU64::new(0);
static KIND: Mutex<String> = Mutex::new(String::new());

fn fail(what: std::fmt::Arguments<'_>) -> ! {
    // Past the harness, which would keep it for an end that does not come.
    let (seed, kind) = (SEED.load(Ordering::Relaxed), KIND.lock());
    let _ = writeln!(std::io::stderr(), "soak: {what}\nTIERPOOL_SOAK_SEED={seed}: {kind:?}");
    std::process::abort()
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

// ---- The values

/// What becomes of the values of one round, and how often their code fails.
#[derive(Debug, Default)]
struct Census {
    made: AtomicUsize,
    dropped: AtomicUsize,
    /// One call in so many fails, and one panics; 0: none.
    fails: AtomicU32,
    panics: AtomicU32,
    reports: AtomicU64,
}

impl Census {
    fn alive(&self) -> usize {
        // What was dropped first: so the difference is never negative.
        let dropped = self.dropped.load(Ordering::SeqCst);
        self.made.load(Ordering::SeqCst) - dropped
    }

    fn fails(&self) -> bool {
        let one_in = self.fails.load(Ordering::Relaxed);
        one_in > 0 && fastrand::u32(..one_in) == 0
    }

    fn may_panic(&self) {
        let one_in = self.panics.load(Ordering::Relaxed);
        if one_in > 0 && fastrand::u32(..one_in) == 0 {
            std::panic::panic_any(TOLD);
        }
    }

    fn calm(&self) {
        self.fails.store(0, Ordering::Relaxed);
        self.panics.store(0, Ordering::Relaxed);
    }
}

const ALIVE: u64 = 0x0a11_0f11_fe00_0001;
const DEAD: u64 = 0xdead_dead_dead_dead;
const NOBODY: u32 = 0;
const HOLDER: u32 = 1;
const TIER: u32 = 2;

/// All its atomics are Relaxed, so that they order nothing that the tier has to order.
#[derive(Debug)]
struct Value {
    census: Arc<Census>,
    life: AtomicU64,
    hand: AtomicU32,
    readers: AtomicU32,
    /// Written by the holder, 0 in a clean value.
    note: Box<u64>,
}

impl Value {
    fn new(census: &Arc<Census>) -> Self {
        census.made.fetch_add(1, Ordering::SeqCst);
        Value {
            census: census.clone(),
            life: AtomicU64::new(ALIVE),
            hand: AtomicU32::new(NOBODY),
            readers: AtomicU32::new(0),
            note: Box::new(0),
        }
    }

    fn alone(&self, by: &str) {
        let life = self.life.load(Ordering::Relaxed);
        check!(life == ALIVE, "{by}: the value is not alive: {life:#x}");
        let readers = self.readers.load(Ordering::Relaxed);
        check!(readers == 0, "{by}: {readers} still read the value");
    }

    fn pick_up(&self, who: u32, by: &str) {
        self.alone(by);
        let before = self.hand.swap(who, Ordering::Relaxed);
        check!(before == NOBODY, "{by}: the value is in the hand of {before}");
    }

    fn put_down(&self, who: u32, by: &str) {
        self.alone(by);
        let before = self.hand.swap(NOBODY, Ordering::Relaxed);
        check!(before == who, "{by}: the value was in the hand of {before}, not {who}");
    }

    /// What the tier's own calls do to a value, which nobody else may have.
    fn handled(&mut self, by: &str, act: impl FnOnce(&mut Self)) {
        self.pick_up(TIER, by);
        act(self);
        self.put_down(TIER, by);
        self.census.may_panic();
    }

    /// Reads a shared value, whose note is known.
    fn read(&self, note: u64) {
        self.readers.fetch_add(1, Ordering::Relaxed);
        if fastrand::u8(..) == 0 {
            thread::yield_now();
        }
        let life = self.life.load(Ordering::Relaxed);
        check!(life == ALIVE, "a reader finds the value dropped: {life:#x}");
        check!(self.hand.load(Ordering::Relaxed) == NOBODY, "a reader finds the value in somebody's hand");
        check!(*self.note == note, "a reader finds {} instead of {note}", self.note);
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.pick_up(TIER, "drop");
        self.life.store(DEAD, Ordering::Relaxed);
        self.census.dropped.fetch_add(1, Ordering::SeqCst);
        if !thread::panicking() {
            self.census.may_panic();
        }
    }
}

/// A lease, whose value is in its holder's hand.
struct Held(Option<Lease<Value>>);

impl Held {
    /// From an allocation: the value is clean, unless the tier does not care.
    fn fresh(mut lease: Lease<Value>, cleaned: bool, note: u64) -> Held {
        lease.pick_up(HOLDER, "allocated");
        check!(!cleaned || *lease.note == 0, "a value that was not cleaned: {}", lease.note);
        *lease.note = note;
        Held(Some(lease))
    }

    /// From a handle: the value is as it was left.
    fn attached(lease: Lease<Value>, note: u64) -> Held {
        lease.pick_up(HOLDER, "attached");
        check!(*lease.note == note, "left with {note}, found with {}", lease.note);
        Held(Some(lease))
    }

    fn note(&self) -> u64 {
        self.0.as_ref().map_or(0, |lease| *lease.note)
    }

    /// The lease, out of hand.
    fn put_down(mut self) -> Lease<Value> {
        let lease = self.0.take().expect("it is there until now");
        lease.put_down(HOLDER, "put down");
        lease
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lease) = &self.0 {
            lease.put_down(HOLDER, "dropped");
        }
    }
}

// ---- The round's tier

/// What kind of tier a round has.
#[derive(Debug, Clone)]
struct Kind {
    capacity: usize,
    min: Option<usize>,
    resets: bool,
    cleans: bool,
    checks_allocate: bool,
    checks_release: bool,
    discards_on_panic: bool,
    background: bool,
    max_age: Option<Duration>,
    idle: Option<Duration>,
    leaks: Option<Duration>,
    barging: Option<Duration>,
    grant_limit: Duration,
    max_waiters: usize,
    fails: u32,
    panics: u32,
    /// Closed in the middle of the work, rather than when all have left.
    closes_busy: bool,
}

impl Kind {
    fn any(random: &mut fastrand::Rng) -> Kind {
        let capacity = match random.u32(..4) {
            0 => random.usize(1..4),
            1 | 2 => random.usize(4..60),
            _ => random.usize(60..2000),
        };
        let min = (capacity > 1 && random.bool()).then(|| random.usize(..capacity));
        let some = |random: &mut fastrand::Rng, of: std::ops::Range<u64>| random.bool().then(|| millis(random.u64(of)));
        Kind {
            capacity,
            min,
            resets: random.bool(),
            cleans: random.bool(),
            checks_allocate: random.bool(),
            checks_release: random.bool(),
            discards_on_panic: random.bool(),
            background: random.bool(),
            max_age: some(random, 30..300),
            idle: min.and(some(random, 20..200)),
            leaks: some(random, 20..200),
            barging: some(random, 0..30),
            grant_limit: millis(random.u64(..40)),
            max_waiters: if random.bool() { 3 } else { 1000 },
            fails: [0, 5, 100][random.usize(..3)],
            panics: [0, 50, 1000][random.usize(..3)],
            closes_busy: random.bool(),
        }
    }

    fn cleaned(&self) -> bool {
        self.resets || self.cleans
    }

    fn tier(&self, census: &Arc<Census>) -> Tier<Value> {
        let with = || census.clone();
        let mut builder: TierBuilder<Value> = Tier::builder("soak").capacity(self.capacity);
        builder = builder.grant_limit(self.grant_limit).max_waiters(self.max_waiters);
        builder = builder.rebuild_backoff(millis(1), millis(50)).pin_limit(millis(20));
        if let Some(min) = self.min {
            builder = builder.min_capacity(min);
        }
        if self.resets {
            builder = builder.reset(|value: &mut Value| value.handled("reset", |value| *value.note = 0));
        }
        if self.cleans {
            builder = builder.clean(|value: &mut Value| value.handled("clean", |value| *value.note = 0));
        }
        if self.checks_allocate {
            let (census, cleaned) = (with(), self.cleaned());
            builder = builder.validate_on_allocate(move |value: &mut Value| {
                check!(
                    !cleaned || *value.note == 0,
                    "a value that was not cleaned is to be handed out: {}",
                    value.note
                );
                value.handled("check on allocate", |_| ());
                !census.fails()
            });
        }
        if self.checks_release {
            let census = with();
            builder = builder.validate_on_release(move |value: &mut Value| {
                value.handled("check on release", |_| ());
                !census.fails()
            });
        }
        if self.discards_on_panic {
            builder = builder.discard_on_panic();
        }
        if self.background {
            builder = builder.reclaimer(Reclaimer::Background);
        }
        if let Some(age) = self.max_age {
            builder = builder.max_age(age);
        }
        if let Some(timeout) = self.idle {
            builder = builder.idle_timeout(timeout);
        }
        if let Some(limit) = self.leaks {
            let census = with();
            builder = builder.leak_after(limit).ignore_leaks(move |site| {
                check!(site.file().ends_with(".rs"), "a torn site: {site}");
                census.may_panic();
                site.line() % 5 == 0
            });
        }
        if let Some(limit) = self.barging {
            builder = builder.barging(limit);
        }
        let census = with();
        builder = builder.on_report(move |report| {
            check!(!report.to_string().is_empty(), "a report that says nothing");
            census.reports.fetch_add(1, Ordering::Relaxed);
            census.may_panic();
        });
        let census = with();
        let tier = builder.try_build_with(move || {
            if census.fails() {
                return Err(TOLD);
            }
            census.may_panic();
            Ok(Value::new(&census))
        });
        tier.unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

// ---- Those who use it

/// Locks without the contended half of the standard library's Mutex, which sanitizers do not see into.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(std::sync::TryLockError::WouldBlock) => thread::yield_now(),
            Err(std::sync::TryLockError::Poisoned(_)) => check!(false, "nothing panics under the lock"),
        }
    }
}

/// Takes one of those on the table.
fn any_of<T>(place: &Mutex<Vec<T>>, random: &mut fastrand::Rng) -> Option<T> {
    let mut all = lock(place);
    let last = all.len().checked_sub(1)?;
    Some(all.swap_remove(random.usize(..=last)))
}

/// Runs what may panic when told to. `None` if it did.
fn guard<R>(act: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => Some(result),
        Err(panic) if panic.downcast_ref::<&str>() == Some(&TOLD) => {
            COUNTS.panics.fetch_add(1, Ordering::Relaxed);
            None
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Drops what gives its slot back, which may panic when told to.
fn give_back<T>(it: T) {
    guard(|| drop(it));
}

/// A handle, and the note of its value.
type Named = (Handle, u64);

/// What goes from thread to thread.
#[derive(Default)]
struct Table {
    leases: Mutex<Vec<Held>>,
    handles: Mutex<Vec<Named>>,
    /// Each is in here once, and copied by readers.
    shared: Mutex<Vec<Named>>,
    shared_leases: Mutex<Vec<(SharedLease<Value>, u64)>>,
}

/// What the whole run did.
#[derive(Default)]
struct Counts {
    operations: AtomicU64,
    allocated: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    awaited: AtomicU64,
    cancelled: AtomicU64,
    panics: AtomicU64,
    read: AtomicU64,
    retired: AtomicU64,
    grown: AtomicU64,
    passes: AtomicU64,
    rounds: AtomicU64,
    made: AtomicU64,
    reports: AtomicU64,
    expired: AtomicU64,
    cleaned: AtomicU64,
    collected: AtomicU64,
    rebuilt: AtomicU64,
    renewed: AtomicU64,
    leaks: AtomicU64,
    added: AtomicU64,
    removed: AtomicU64,
}

static COUNTS: std::sync::LazyLock<Counts> = std::sync::LazyLock::new(Counts::default);

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Notes that it was called, and panics at times.
struct Bell {
    rang: AtomicBool,
    census: Arc<Census>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.census.may_panic();
    }
}

struct Player<'a> {
    number: usize,
    tier: &'a Tier<Value>,
    kind: &'a Kind,
    census: &'a Arc<Census>,
    table: &'a Table,
    random: fastrand::Rng,
    held: Vec<Held>,
    handles: Vec<Named>,
    /// With a deadline: they may have expired.
    fleeting: Vec<Named>,
    /// Copies of shared handles, which may have been retired.
    seen: Vec<Named>,
    waits: Vec<(Allocate<'a, Value>, Arc<Bell>)>,
    pins: u32,
}

impl<'a> Player<'a> {
    fn allocated(&mut self, outcome: Result<Lease<Value>, AllocateError>) {
        match outcome {
            Ok(lease) => {
                count(&COUNTS.allocated, 1);
                let note = self.random.u64(1..);
                self.held.push(Held::fresh(lease, self.kind.cleaned(), note));
            }
            Err(AllocateError::Exhausted(_) | AllocateError::QueueFull { .. }) => count(&COUNTS.refused, 1),
            Err(AllocateError::TimedOut { .. }) => count(&COUNTS.timed_out, 1),
            Err(AllocateError::Closed { .. }) => check!(self.kind.closes_busy, "closed too early"),
            Err(error) => check!(false, "{error}"),
        }
    }

    fn some_lease(&mut self) -> Option<Held> {
        let n = self.held.len().checked_sub(1)?;
        Some(self.held.swap_remove(self.random.usize(..=n)))
    }

    /// So many lie on the table at most, so that something is left to be allocated.
    fn most_shared(&self) -> usize {
        self.kind.capacity / 8 + 1
    }

    fn one(&mut self) {
        match self.random.u32(..44) {
            0..8 => {
                let outcome = self.tier.try_allocate();
                self.allocated(outcome);
            }
            8..11 => drop(self.some_lease()),
            11..13 => self.some_lease().into_iter().for_each(|held| held.put_down().release()),
            13 => self.bulk(),
            14 => {
                let mut local = self.tier.local();
                for _ in 0..self.random.usize(..50) {
                    let Ok(lease) = local.try_allocate() else { break };
                    let lease = Held::fresh(lease, self.kind.cleaned(), 7).put_down();
                    local.release(lease);
                }
            }
            15 => {
                if let Some(held) = self.some_lease() {
                    let note = held.note();
                    self.handles.push((held.put_down().detach(), note));
                }
            }
            16 => {
                if let Some((handle, note)) = self.handles.pop() {
                    let lease = self.tier.attach(handle);
                    check!(lease.is_ok(), "a handle that only this thread has: {lease:?}");
                    self.held.extend(lease.map(|lease| Held::attached(lease, note)));
                    check!(self.tier.attach(handle).is_err(), "attached twice");
                }
            }
            17 => {
                if let Some((handle, _)) = self.handles.pop() {
                    let outcome = guard(|| self.tier.release(handle));
                    check!(outcome.is_none_or(|outcome| outcome.is_ok()), "a handle that only this thread has");
                    let again = self.tier.release(handle);
                    check!(matches!(again, Err(HandleError::Stale { .. } | HandleError::Closed { .. })), "{again:?}");
                }
            }
            18 => {
                if let Some(held) = self.some_lease() {
                    let (note, patience) = (held.note(), millis(self.random.u64(..60)));
                    self.fleeting.push((held.put_down().detach_for(patience), note));
                }
            }
            19 => {
                if let Some((handle, note)) = self.fleeting.pop() {
                    match self.random.u32(..3) {
                        0 => {} // forgotten
                        1 => drop(guard(|| self.tier.release(handle))),
                        _ => self.held.extend(self.tier.attach(handle).map(|lease| Held::attached(lease, note))),
                    }
                }
            }
            20 | 21 => self.trade(),
            22 => self.some_lease().into_iter().for_each(|held| held.put_down().discard()),
            23 => {
                if let Some(held) = self.some_lease() {
                    let note = held.note();
                    let value = held.put_down().take();
                    check!(*value.note == note, "another value was taken");
                }
            }
            24 => {
                let few = lock(&self.table.shared).len() < self.most_shared();
                if let Some(held) = self.some_lease().filter(|_| few) {
                    let note = held.note();
                    let named = (held.put_down().share(), note);
                    lock(&self.table.shared).push(named);
                }
            }
            25..28 => self.look(),
            28 => {
                let named = any_of(&self.table.shared, &mut self.random);
                if let Some((handle, note)) = named {
                    let outcome = guard(|| self.tier.retire(handle));
                    check!(outcome.is_none_or(|outcome| outcome.is_ok()), "only this thread may retire it");
                    check!(self.tier.retire(handle).is_err(), "retired twice");
                    count(&COUNTS.retired, 1);
                    self.seen.push((handle, note));
                }
            }
            29 => {
                if let Some((handle, _)) = self.seen.pop() {
                    // Shared, retired, or long gone; never detached.
                    check!(self.tier.attach(handle).is_err(), "a shared handle was attached");
                    check!(self.tier.release(handle).is_err(), "a shared handle was released");
                }
            }
            30 => {
                let few = lock(&self.table.shared_leases).len() < self.most_shared();
                if let Some(held) = self.some_lease().filter(|_| few) {
                    let note = held.note();
                    let lease = held.put_down().into_shared();
                    let clones = (0..self.random.usize(..4)).map(|_| (lease.clone(), note)).collect::<Vec<_>>();
                    let mut shared = lock(&self.table.shared_leases);
                    shared.extend(clones);
                    shared.push((lease, note));
                }
            }
            31 | 32 => self.look_at_lease(),
            33 => {
                let patience = millis(self.random.u64(..4));
                let outcome = self.tier.allocate_timeout(patience);
                self.allocated(outcome);
            }
            // Alone with nothing to give back; the others go on, or the tier is closed.
            34 if self.number == 0 && self.kind.closes_busy && self.random.u32(..50) == 0 => {
                self.held.clear();
                let outcome = self.tier.allocate();
                self.allocated(outcome);
            }
            35..38 => self.wait(),
            38 => {
                match self.random.u32(..20) {
                    0 => drop(self.tier.grow_to(self.random.usize(..=self.kind.capacity))),
                    1 => drop(self.tier.shrink_to(self.random.usize(..=self.kind.capacity))),
                    _ => return,
                }
                count(&COUNTS.grown, 1);
            }
            39 if self.random.u32(..20) == 0 => {
                count(&COUNTS.passes, 1);
                self.tier.reclaim();
            }
            40 if self.random.u32(..20) == 0 => {
                let cleaned = self.kind.cleaned();
                let replaced = self.tier.retain(|value| {
                    check!(!cleaned || *value.note == 0, "a value that was not cleaned is examined: {}", value.note);
                    value.handled("retain", |_| ());
                    fastrand::u8(..) > 10
                });
                check!(replaced <= self.kind.capacity, "more were replaced than there are");
            }
            41 if self.random.u32(..20) == 0 => self.account(),
            42 if self.random.u32(..50) == 0 => {
                let tier = self.tier.clone();
                thread::scope(|scope| {
                    // A thread that comes and goes, with a magazine and perhaps a pin.
                    let short = scope.spawn(move || {
                        guard(|| {
                            let _pin = tier.pin();
                            drop((0..5).map_while(|_| tier.try_allocate().ok()).collect::<Vec<_>>());
                        })
                    });
                    short.join().unwrap_or_else(|panic| resume_unwind(panic));
                });
            }
            43 if self.kind.discards_on_panic => {
                let _held = (self.some_lease(), self.some_lease());
                std::panic::panic_any(TOLD);
            }
            _ => {}
        }
        if self.held.len() > (self.kind.capacity / 6).min(30) {
            self.held.truncate(self.kind.capacity / 12);
        }
        self.seen.truncate(50);
    }

    fn bulk(&mut self) {
        let n = self.random.usize(..20.min(self.kind.capacity + 2));
        let Ok(mut leases) = self.tier.try_allocate_many(n) else { return };
        count(&COUNTS.allocated, n as u64);
        for value in &mut leases {
            value.pick_up(HOLDER, "allocated in bulk");
            check!(!self.kind.cleaned() || *value.note == 0, "a value that was not cleaned: {}", value.note);
            *value.note = 5;
            value.put_down(HOLDER, "put down in bulk");
        }
        match self.random.u32(..3) {
            0 => leases.release(),
            1 => self.held.extend(leases.into_iter().take(3).map(|lease| Held::attached(lease, 5))),
            _ => drop(leases),
        }
    }

    /// Gives away, and takes what others gave.
    fn trade(&mut self) {
        match self.some_lease() {
            Some(held) if self.random.bool() => lock(&self.table.leases).push(held),
            Some(held) => {
                let note = held.note();
                let handle = held.put_down().detach();
                // Copies: one of those who try wins.
                lock(&self.table.handles).extend([(handle, note); 3]);
            }
            None => {}
        }
        if self.random.bool() {
            let taken = lock(&self.table.leases).pop();
            self.held.extend(taken);
        }
        let taken = lock(&self.table.handles).pop();
        if let Some((handle, note)) = taken {
            self.held.extend(self.tier.attach(handle).map(|lease| Held::attached(lease, note)));
        }
        let old = {
            let mut leases = lock(&self.table.leases);
            if leases.len() > 8 { std::mem::take(&mut *leases) } else { Vec::new() }
        };
        old.into_iter().for_each(give_back);
    }

    /// Reads shared values under a pin, and does other things meanwhile.
    fn look(&mut self) {
        let some = {
            let shared = lock(&self.table.shared);
            (0..shared.len().min(3)).map(|_| shared[fastrand::usize(..shared.len())]).collect::<Vec<_>>()
        };
        self.seen.extend(&some);
        let tier = self.tier;
        let pin = tier.pin();
        let values: Vec<_> = self
            .seen
            .iter()
            .rev()
            .take(6)
            .filter_map(|&(handle, note)| Some((tier.read(handle, &pin)?, note)))
            .collect();
        values.iter().for_each(|(value, note)| value.read(*note));
        count(&COUNTS.read, values.len() as u64);
        if self.pins < 2 && self.random.u32(..8) == 0 {
            self.pins += 1;
            for _ in 0..self.random.usize(..12) {
                guard(|| self.one());
            }
            self.pins -= 1;
            // Whatever was retired meanwhile.
            values.iter().for_each(|(value, note)| value.read(*note));
        }
    }

    fn look_at_lease(&mut self) {
        let taken = any_of(&self.table.shared_leases, &mut self.random);
        let Some((lease, note)) = taken else { return };
        lease.read(note);
        match self.random.u32(..6) {
            0 => lease.release(),
            1 | 2 => match lease.into_lease() {
                Ok(lease) => self.held.push(Held::attached(lease, note)),
                Err(lease) => {
                    check!(lease.sharers() > 0, "no sharers");
                    drop(lease);
                }
            },
            3 => {
                let both = [(lease.clone(), note), (lease, note)];
                lock(&self.table.shared_leases).extend(both);
            }
            _ => drop(lease),
        }
    }

    /// Futures: new ones, some that were woken, some that were not, some that go away. A few are left alone.
    fn wait(&mut self) {
        let again = self.random.u32(..4) > 0 && !self.waits.is_empty();
        let (mut wait, bell) = if again {
            let at = self.random.usize(..self.waits.len());
            self.waits.swap_remove(at)
        } else {
            let bell = Arc::new(Bell { rang: AtomicBool::new(true), census: self.census.clone() });
            (self.tier.allocate_async(), bell)
        };
        if self.random.u32(..8) == 0 || self.waits.len() > 12 {
            count(&COUNTS.cancelled, 1);
            return drop(wait);
        }
        if !bell.rang.swap(false, Ordering::Acquire) && self.random.u32(..4) > 0 {
            return self.waits.push((wait, bell));
        }
        let waker = Waker::from(bell.clone());
        match Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.waits.push((wait, bell)),
            Poll::Ready(outcome) => {
                count(&COUNTS.awaited, u64::from(outcome.is_ok()));
                self.allocated(outcome);
            }
        }
    }

    /// A moment's account: each word counts once, whatever goes on.
    fn account(&self) {
        let now = self.tier.snapshot();
        check!(sum(&now) == self.kind.capacity, "a slot is lost: {now:?}");
        for holder in self.tier.holders() {
            check!(!holder.to_string().is_empty(), "a holder that says nothing");
            let site = holder.site.is_some_and(|site| site.file().ends_with(".rs"));
            check!(site, "a torn site: {holder:?}");
        }
    }

    /// Gives back whatever this thread has. Fleeting handles go by themselves.
    fn leave(mut self) {
        self.waits.drain(..).for_each(give_back);
        self.held.drain(..).for_each(give_back);
        for (handle, _) in self.handles.drain(..) {
            guard(|| self.tier.release(handle));
        }
    }
}

fn sum(now: &tierpool::Snapshot) -> usize {
    let held = now.leased + now.detached + now.shared + now.claimed;
    held + now.free + now.retired + now.dirty + now.maintenance + now.quarantined + now.absent
}

/// Repeats until it is so; there may be a pass under way on another thread, and pauses after failures.
fn eventually(what: &dyn Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        check!(start.elapsed() < Duration::from_secs(60), "in vain for a minute: {}", what());
        thread::sleep(millis(1));
    }
}

// ---- A round

fn round(seed: u64, time: Duration) {
    let mut random = fastrand::Rng::with_seed(seed);
    let kind = Kind::any(&mut random);
    *KIND.lock().unwrap() = format!("{kind:?}");
    let census = Arc::new(Census::default());
    let tier = kind.tier(&census);
    census.fails.store(kind.fails, Ordering::Relaxed);
    census.panics.store(kind.panics, Ordering::Relaxed);
    let table = Table::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let players: Vec<_> = (0..THREADS)
            .map(|number| {
                let random = fastrand::Rng::with_seed(random.u64(..));
                let (tier, table, kind, census, stop) = (&tier, &table, &kind, &census, &stop);
                scope.spawn(move || {
                    fastrand::seed(seed + number as u64);
                    let mut player = Player {
                        number,
                        tier,
                        kind,
                        census,
                        table,
                        random,
                        held: Vec::new(),
                        handles: Vec::new(),
                        fleeting: Vec::new(),
                        seen: Vec::new(),
                        waits: Vec::new(),
                        pins: 0,
                    };
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        guard(|| player.one());
                        done += 1;
                    }
                    count(&COUNTS.operations, done);
                    player.leave();
                })
            })
            .collect();
        thread::sleep(time);
        if kind.closes_busy {
            guard(|| tier.close());
            thread::sleep(millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        eventually(&|| format!("a thread does not end: {:?}", tier.snapshot()), || {
            players.iter().all(|player| player.is_finished())
        });
        players.into_iter().for_each(|player| player.join().unwrap());
    });
    if random.bool() {
        census.calm();
    }
    // What lies on the table goes back, or outlives the tier.
    let outlives = random.bool();
    let Table { leases, handles, shared, shared_leases } = table;
    let (mut leases, mut sharers) = (leases.into_inner().unwrap(), shared_leases.into_inner().unwrap());
    let mut shared = shared.into_inner().unwrap();
    if !outlives {
        leases.drain(..).for_each(give_back);
        sharers.drain(..).for_each(give_back);
        for (handle, _) in shared.drain(..) {
            let outcome = guard(|| tier.retire(handle));
            check!(outcome.is_none_or(|outcome| outcome.is_ok()), "nobody else may retire it");
        }
        for (handle, _) in handles.into_inner().unwrap() {
            // Copies: one of them wins, or has won.
            guard(|| tier.release(handle).is_ok());
        }
        settle(&kind, &tier, &census);
    }
    let reclaimed = tier.snapshot().reclaimed;
    if !kind.closes_busy && random.bool() {
        guard(|| tier.close());
        let still = leases.len() + sharers.len();
        let now = tier.snapshot();
        check!(still > 0 || outlives || now.absent + now.maintenance == kind.capacity, "closed and empty: {now:?}");
    }
    give_back(tier);
    leases.into_iter().for_each(give_back);
    sharers.into_iter().for_each(|(lease, note)| {
        lease.read(note);
        guard(|| drop(lease));
    });
    eventually(&|| format!("values are left: {census:?}, {kind:?}"), || census.alive() == 0);
    let (made, dropped) = (census.made.load(Ordering::SeqCst), census.dropped.load(Ordering::SeqCst));
    check!(made == dropped, "{made} were made, {dropped} dropped");
    let c = &*COUNTS;
    for (counter, n) in [
        (&c.rounds, 1),
        (&c.made, made as u64),
        (&c.reports, census.reports.load(Ordering::Relaxed)),
        (&c.expired, reclaimed.expired),
        (&c.cleaned, reclaimed.cleaned),
        (&c.collected, reclaimed.retired),
        (&c.rebuilt, reclaimed.rebuilt),
        (&c.renewed, reclaimed.renewed),
        (&c.leaks, reclaimed.leaks),
        (&c.added, reclaimed.added),
        (&c.removed, reclaimed.removed),
    ] {
        count(counter, n);
    }
}

/// Everything has been given back: the account is exact, and everything can be had again.
fn settle(kind: &Kind, tier: &Tier<Value>, census: &Census) {
    let text = || format!("{:?} {census:?} {kind:?}", tier.snapshot());
    // Forgotten handles expire, what was retired is collected, what is dirty is cleaned.
    eventually(&|| format!("something is still in use: {}", text()), || {
        tier.reclaim();
        let now = tier.snapshot();
        now.leased + now.detached + now.shared + now.claimed + now.maintenance + now.retired + now.dirty + now.waiting
            == 0
    });
    let all_counted = || {
        let now = tier.snapshot();
        let values = now.free + now.leased + now.detached + now.dirty + now.retired;
        sum(&now) == kind.capacity && now.maintenance == 0 && census.alive() == values
    };
    eventually(&|| format!("values and slots do not add up: {}", text()), all_counted);
    if tier.snapshot().closed {
        let now = tier.snapshot();
        check!(now.absent == kind.capacity, "closed and given back, but not empty: {now:?}");
        return;
    }
    // Once the factory is willing, there is a value for every slot.
    census.calm();
    eventually(&|| format!("not every slot can be had: {}", text()), || {
        let all: Vec<_> = (0..kind.capacity).map_while(|_| tier.try_allocate().ok()).collect();
        let had = all.len();
        all.into_iter().for_each(|lease| drop(Held::fresh(lease, kind.cleaned(), 3)));
        had == kind.capacity
    });
}

#[test]
fn everything_at_once_for_a_while() {
    // The panics that are part of the game are not worth a line.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&TOLD) {
                loud(info);
            }
        }));
    });
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let time = Duration::from_secs(given("TIERPOOL_SOAK_SECONDS").unwrap_or(3));
    let first = given("TIERPOOL_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let start = Instant::now();
    let mut seed = first;
    while start.elapsed() < time {
        SEED.store(seed, Ordering::Relaxed);
        round(seed, millis(500).min(time / 6));
        seed += 1;
    }
    let c = &*COUNTS;
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("TIERPOOL_SOAK_SEED={first} and on");
    println!(
        "{} rounds in {:.1?}, {} operations, {} values",
        n(&c.rounds),
        start.elapsed(),
        n(&c.operations),
        n(&c.made)
    );
    println!("{} allocated, {} refused, {} timed out", n(&c.allocated), n(&c.refused), n(&c.timed_out));
    println!("{} came by a future, {} futures cancelled; {} panics", n(&c.awaited), n(&c.cancelled), n(&c.panics));
    println!("{} read under pins, {} retired; {} reports", n(&c.read), n(&c.retired), n(&c.reports));
    println!("{} times grown or shrunk, {} passes by hand", n(&c.grown), n(&c.passes));
    println!(
        "passes: {} expired, {} cleaned, {} collected, {} rebuilt, {} renewed, {} leaks, {} added, {} removed",
        n(&c.expired),
        n(&c.cleaned),
        n(&c.collected),
        n(&c.rebuilt),
        n(&c.renewed),
        n(&c.leaks),
        n(&c.added),
        n(&c.removed)
    );
}
