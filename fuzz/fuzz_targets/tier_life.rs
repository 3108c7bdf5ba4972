//! The life of slots against a model: time, passes, growth, sharing, checks, and failures of all of the program's code.
//!
//! The model knows each slot by its number. For each operation it says what must come of it, down to which values are
//! dropped. Where the tier may choose (which of the free slots, which dirty one is cleaned first), the model looks at what
//! was chosen and says whether that was allowed.
//!
//! Time goes in steps of a second, and all limits lie just below a number of seconds. So what the tier leaves to chance
//! (jitter) or to the coarse clock does not matter, and everything is decided.
#![no_main]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::slice;
use std::sync::{Mutex, Once};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use tierpool::{AllocateError, GrowError, Handle, HandleError, Lease, SharedLease, Tier, TierBuilder, clock};

const TOLD: &str = "told to";

#[derive(Debug, Arbitrary)]
enum Op {
    Allocate {
        how: How,
    },
    AllocateMany {
        n: u8,
    },
    End {
        which: u8,
        how: End,
    },
    DetachFor {
        which: u8,
        seconds: u8,
    },
    /// With any handle that was ever made.
    Attach {
        which: u8,
    },
    ReleaseHandle {
        which: u8,
    },
    Retire {
        which: u8,
    },
    Read {
        which: u8,
    },
    IntoShared {
        which: u8,
    },
    CloneShared {
        which: u8,
    },
    DropShared {
        which: u8,
        names_its_line: bool,
    },
    IntoLease {
        which: u8,
    },
    Retain {
        keep: Verdict,
    },
    Reclaim,
    Time {
        seconds: u8,
    },
    GrowTo {
        slots: u8,
    },
    ShrinkTo {
        slots: u8,
    },
    Tell {
        whom: Code,
        what: Verdict,
    },
    /// From here to its end, everything happens under a pin, with references to all shared values.
    Pin,
    Unpin,
    CloneTier,
    /// These two only if they are `sure`, one time in eight: there is little to be done after them.
    DropTier {
        sure: u8,
    },
    Close {
        sure: u8,
    },
}

/// As many as the input gives.
#[derive(Debug)]
struct Ops(Vec<Op>);

impl<'a> Arbitrary<'a> for Ops {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut ops = Vec::new();
        while !input.is_empty() {
            ops.push(Op::arbitrary(input)?);
        }
        Ok(Ops(ops))
    }
}

#[derive(Debug, Arbitrary)]
enum How {
    Try,
    TimeOut,
    Poll,
}

#[derive(Debug, Arbitrary)]
enum End {
    Drop,
    Release,
    Detach,
    Share,
    Discard,
    Take,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Verdict {
    Good,
    Bad,
    Panic,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Code {
    Factory,
    Reset,
    Clean,
    OnAllocate,
    OnRelease,
    Drop,
}

#[derive(Debug, Arbitrary)]
struct Case {
    capacity: u8,
    min: Option<u8>,
    resets: bool,
    cleans: bool,
    on_allocate: bool,
    on_release: bool,
    max_age: Option<u8>,
    idle: Option<u8>,
    leaks: Option<u8>,
    ops: Ops,
}

// ---- The program's code, all on one thread

thread_local! {
    static TOLD_TO: [Cell<Verdict>; 6] = const { [const { Cell::new(Verdict::Good) }; 6] };
    /// Where the values lay that were dropped in the course of an operation.
    static DROPPED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static ALIVE: Cell<usize> = const { Cell::new(0) };
}

fn told(code: Code) -> Verdict {
    TOLD_TO.with(|told| told[code as usize].get())
}

fn tell(code: Code, verdict: Verdict) {
    TOLD_TO.with(|told| told[code as usize].set(verdict));
}

/// True, false, or a panic.
fn obey(code: Code) -> bool {
    match told(code) {
        Verdict::Good => true,
        Verdict::Bad => false,
        Verdict::Panic => std::panic::panic_any(TOLD),
    }
}

const SOUND: u64 = 0x50_0d_50_0d_50_0d;

#[derive(Debug)]
struct Value {
    sound: u64,
    /// 0 in a clean value.
    note: u64,
}

impl Value {
    fn wipe(&mut self) {
        assert_eq!(self.sound, SOUND);
        self.note = 0;
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.sound, SOUND, "dropped twice");
        self.sound = 0;
        ALIVE.set(ALIVE.get() - 1);
        DROPPED.with_borrow_mut(|dropped| dropped.push(std::ptr::from_ref(self).addr()));
        if told(Code::Drop) == Verdict::Panic {
            std::panic::panic_any(TOLD);
        }
    }
}

/// Steps that a limit of the tier takes: it lies just below this number of seconds.
fn just_below(seconds: u64) -> Duration {
    Duration::from_millis(seconds * 1000 - 50)
}

/// Moves the time of the process, which runs ahead of the real one by more than a case can take.
fn pass_time(seconds: u64) {
    static NOW: Mutex<Option<Instant>> = Mutex::new(None);
    let mut now = NOW.lock().unwrap();
    let next = now.map_or_else(Instant::now, |now| now) + Duration::from_secs(seconds);
    *now = Some(next);
    clock::tick_to(next);
}

// ---- The model

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Dirty,
    Quarantined,
    Retired,
    /// In the hand of an operation.
    Maintenance,
    Free,
    Detached,
    Shared,
    SharedLease,
    Leased,
}

#[derive(Debug, Clone)]
struct Slot {
    state: State,
    note: u64,
    /// When it was allocated, and whether that hold was reported.
    since: u64,
    reported: bool,
    deadline: Option<u64>,
    /// When the value was made.
    made: u64,
    /// When a pass first found it free, in its present idleness.
    idle: Option<u64>,
    /// The handle of its present generation, if there is one.
    handle: Option<Handle>,
    sharers: usize,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Leased(usize),
    Refused,
    Panicked,
}

/// What an allocation was seen to do: values that it dropped, and the slots that it got.
struct Seen {
    dropped: VecDeque<usize>,
    got: VecDeque<usize>,
}

impl Seen {
    /// Which of those slots it has taken next: that whose value goes next, or that which it got.
    fn pick(&self, model: &Model, state: State) -> usize {
        let is = |slot: &&usize| model.slots[**slot].state == state;
        let seen = self.dropped.front().into_iter().chain(&self.got).find(is);
        // Those that are given back in the end are not seen; then it takes all of them.
        seen.copied().unwrap_or_else(|| {
            assert!(self.got.is_empty(), "none of {:?} was {state:?}", self.got);
            model.find(state).expect("there is one")
        })
    }

    fn dropped(&mut self, slot: usize) {
        if self.dropped.front() == Some(&slot) {
            self.dropped.pop_front();
        } else if let Some(at) = self.dropped.iter().position(|&other| other == slot) {
            self.dropped.remove(at);
        }
    }
}

struct Model {
    slots: Vec<Slot>,
    min: usize,
    /// Slots by which it may grow.
    absent: usize,
    resets: bool,
    cleans: bool,
    on_allocate: bool,
    on_release: bool,
    max_age: Option<u64>,
    idle: Option<u64>,
    leaks: Option<u64>,
    now: u64,
    closed: bool,
    orphaned: bool,
    wanted: bool,
    grows_from: u64,
    rebuilds_from: u64,
    epoch: u64,
    pins: usize,
    pinned_at: u64,
    retired: Vec<usize>,
    limbo: Vec<usize>,
    sealed: u64,
    /// When there were passes.
    passes: Vec<u64>,
    /// The slots whose values an operation drops.
    dropped: Vec<usize>,
}

#[derive(Debug, Default, PartialEq)]
struct Done {
    retired: u64,
    cleaned: u64,
    expired: u64,
    rebuilt: u64,
    renewed: u64,
    leaks: u64,
    added: u64,
    removed: u64,
}

impl Model {
    fn find(&self, state: State) -> Option<usize> {
        self.slots.iter().position(|slot| slot.state == state)
    }

    fn all(&self, state: State) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].state == state).collect()
    }

    fn count(&self, state: State) -> usize {
        self.all(state).len()
    }

    fn values(&self) -> usize {
        self.slots.len() - self.count(State::Absent) - self.count(State::Quarantined)
    }

    fn present(&self) -> usize {
        self.slots.len() - self.absent
    }

    fn go(&mut self, slot: usize, state: State) {
        let slot = &mut self.slots[slot];
        slot.state = state;
        slot.idle = None;
        if state != State::Leased {
            slot.deadline = None;
            slot.handle = None;
        }
    }

    /// Drops the slot's value. True if that panics.
    fn drop_value(&mut self, slot: usize) -> bool {
        self.dropped.push(slot);
        told(Code::Drop) == Verdict::Panic
    }

    fn build(&mut self, slot: usize) -> bool {
        let built = told(Code::Factory) == Verdict::Good;
        if built {
            self.slots[slot].made = self.now;
            self.slots[slot].note = 0;
        }
        built
    }

    fn quarantine(&mut self, slot: usize) {
        self.go(slot, if self.closed { State::Absent } else { State::Quarantined });
    }

    /// Another value for a slot. False if there is none; and whether the old one's end panicked.
    fn renew(&mut self, slot: usize) -> (bool, bool) {
        let panic = self.drop_value(slot);
        let built = self.build(slot);
        if !built {
            self.quarantine(slot);
        }
        (built, panic)
    }

    /// Gives a slot back. True if that panics.
    fn free(&mut self, slot: usize) -> bool {
        if self.closed {
            self.go(slot, State::Absent);
            return self.drop_value(slot);
        }
        self.go(slot, State::Free);
        false
    }

    /// The check on release, and reset.
    fn prepared(&mut self, slot: usize) -> Verdict {
        if self.on_release && told(Code::OnRelease) != Verdict::Good {
            return told(Code::OnRelease);
        }
        if self.resets {
            if told(Code::Reset) == Verdict::Panic {
                return Verdict::Panic;
            }
            self.slots[slot].note = 0;
        }
        Verdict::Good
    }

    /// True if it panics.
    fn release(&mut self, slot: usize) -> bool {
        match self.prepared(slot) {
            Verdict::Good if self.cleans && !self.closed => {
                self.go(slot, State::Dirty);
                false
            }
            Verdict::Good => self.free(slot),
            verdict => {
                let panic = self.drop_value(slot);
                self.vacate(slot) || panic || verdict == Verdict::Panic
            }
        }
    }

    fn vacate(&mut self, slot: usize) -> bool {
        if !self.closed && self.build(slot) {
            return self.free(slot);
        }
        self.quarantine(slot);
        false
    }

    /// A retired slot that nobody sees any more. False if it could not be made fit.
    fn refit(&mut self, slot: usize) -> bool {
        if self.closed {
            self.free(slot);
            return false;
        }
        self.go(slot, State::Maintenance);
        if self.prepared(slot) == Verdict::Good && (!self.cleans || told(Code::Clean) != Verdict::Panic) {
            if self.cleans {
                self.slots[slot].note = 0;
            }
            return true;
        }
        self.renew(slot).0
    }

    /// Those of the retired slots that are free to go, in maintenance.
    fn collect(&mut self) -> Vec<usize> {
        let mut fit = Vec::new();
        loop {
            let fresh = self.limbo.is_empty();
            if fresh {
                if self.retired.is_empty() {
                    return fit;
                }
                self.limbo = std::mem::take(&mut self.retired);
                self.epoch += 1;
                self.sealed = self.epoch;
            }
            if self.pins > 0 && self.pinned_at < self.sealed {
                return fit;
            }
            for slot in std::mem::take(&mut self.limbo) {
                if self.refit(slot) {
                    fit.push(slot);
                }
            }
            if fresh {
                return fit;
            }
        }
    }

    fn grow(&mut self) -> Option<usize> {
        let slot = self.find(State::Absent)?;
        if !self.build(slot) {
            return None;
        }
        self.grows_from = 0;
        self.absent -= 1;
        self.go(slot, State::Maintenance);
        Some(slot)
    }

    fn rebuild(&mut self) -> Option<usize> {
        let slot = self.find(State::Quarantined).filter(|_| self.now >= self.rebuilds_from)?;
        if !self.build(slot) {
            self.rebuilds_from = self.now + 1;
            return None;
        }
        self.rebuilds_from = 0;
        self.go(slot, State::Maintenance);
        Some(slot)
    }

    /// A slot for the caller: a free one, or one that is made fit.
    fn obtain(&mut self, seen: &mut Seen) -> Option<usize> {
        if self.closed {
            return None;
        }
        let slot = if self.find(State::Free).is_some() { Some(seen.pick(self, State::Free)) } else { self.make(seen) }?;
        self.go(slot, State::Leased);
        self.slots[slot].since = self.now;
        self.slots[slot].reported = false;
        Some(slot)
    }

    fn make(&mut self, seen: &mut Seen) -> Option<usize> {
        while self.find(State::Dirty).is_some() {
            let slot = seen.pick(self, State::Dirty);
            if told(Code::Clean) != Verdict::Panic {
                self.slots[slot].note = 0;
                return Some(slot);
            }
            seen.dropped(slot);
            if self.renew(slot).0 {
                return Some(slot);
            }
        }
        let before = self.dropped.len();
        let fit = self.collect();
        self.dropped[before..].iter().for_each(|&slot| seen.dropped(slot));
        if !fit.is_empty() {
            let kept = seen.pick(self, State::Maintenance);
            for slot in fit.into_iter().filter(|&slot| slot != kept) {
                self.free(slot);
            }
            return Some(kept);
        }
        if self.absent > 0 && self.now >= self.grows_from {
            self.wanted = true;
            match self.grow() {
                Some(slot) => return Some(slot),
                None => self.grows_from = self.now + 1,
            }
        }
        self.rebuild()
    }

    fn is_old(&self, slot: usize) -> bool {
        self.max_age.is_some_and(|age| self.slots[slot].made + age <= self.now)
    }

    fn allocate(&mut self, seen: &mut Seen) -> Outcome {
        while let Some(slot) = self.obtain(seen) {
            let verdict = match self.is_old(slot) {
                true => Verdict::Bad,
                false if self.on_allocate => told(Code::OnAllocate),
                false => Verdict::Good,
            };
            if verdict == Verdict::Good {
                return Outcome::Leased(slot);
            }
            seen.dropped(slot);
            let (held, panic) = self.renew(slot);
            if panic || verdict == Verdict::Panic {
                if held {
                    self.free(slot);
                }
                return Outcome::Panicked;
            }
            if held {
                return Outcome::Leased(slot);
            }
        }
        Outcome::Refused
    }

    /// How many were replaced; `None` if it panics.
    fn retain(&mut self, keep: Verdict) -> Option<usize> {
        let mut replaced = 0;
        for slot in self.all(State::Free) {
            // To be looked at is no use.
            let idle = self.slots[slot].idle;
            let (held, panic) = if keep == Verdict::Good { (true, false) } else { self.renew(slot) };
            if held {
                self.free(slot);
                self.slots[slot].idle = idle;
            }
            if keep == Verdict::Good {
                continue;
            }
            if panic || keep == Verdict::Panic {
                return None;
            }
            replaced += 1;
        }
        Some(replaced)
    }

    fn reclaim(&mut self) -> Done {
        let mut done = Done::default();
        for slot in self.collect() {
            self.free(slot);
            done.retired += 1;
        }
        for slot in self.all(State::Dirty) {
            self.slots[slot].note = 0;
            if told(Code::Clean) != Verdict::Panic || self.renew(slot).0 {
                self.free(slot);
                done.cleaned += 1;
            }
        }
        for slot in self.all(State::Detached) {
            if self.slots[slot].deadline.is_some_and(|deadline| deadline <= self.now) {
                self.release(slot);
                done.expired += 1;
            }
        }
        while let Some(slot) = self.rebuild() {
            self.free(slot);
            done.rebuilt += 1;
        }
        for slot in self.all(State::Free) {
            if self.is_old(slot) {
                let idle = self.slots[slot].idle;
                if self.renew(slot).0 {
                    self.free(slot);
                    self.slots[slot].idle = idle;
                }
                done.renewed += 1;
            }
        }
        done.leaks = self.look_for_leaks();
        if let Some(timeout) = self.idle {
            for slot in (0..self.slots.len()).rev() {
                if self.slots[slot].state != State::Free {
                    continue;
                }
                let since = *self.slots[slot].idle.get_or_insert(self.now);
                if since + timeout <= self.now && self.present() > self.min {
                    self.remove(slot);
                    done.removed += 1;
                }
            }
        }
        self.wanted &= self.absent > 0;
        if self.wanted && self.now >= self.grows_from {
            self.wanted = false;
            let target = (self.present() * 2).max(1).min(self.slots.len());
            match self.up_to(target) {
                Ok(added) => done.added = added,
                Err(added) => {
                    done.added = added;
                    self.wanted = true;
                    self.grows_from = self.now + 1;
                }
            }
        }
        done
    }

    fn look_for_leaks(&mut self) -> u64 {
        let Some(limit) = self.leaks else { return 0 };
        let long_ago = self.passes.iter().copied().filter(|then| then + limit <= self.now).max();
        self.passes.push(self.now);
        let Some(line) = long_ago else { return 0 };
        let mut found = 0;
        for slot in &mut self.slots {
            let held = matches!(slot.state, State::Leased | State::Detached | State::Shared | State::SharedLease);
            if held && !slot.reported && slot.since < line {
                slot.reported = true;
                found += 1;
            }
        }
        found
    }

    fn remove(&mut self, slot: usize) {
        self.drop_value(slot);
        self.go(slot, State::Absent);
        self.absent += 1;
    }

    /// How many were added; an error if the factory failed.
    fn up_to(&mut self, slots: usize) -> Result<u64, u64> {
        let mut added = 0;
        while self.present() < slots && !self.closed {
            let slot = self.grow().ok_or(added)?;
            self.free(slot);
            added += 1;
        }
        Ok(added)
    }

    fn shrink_to(&mut self, slots: usize) {
        self.wanted = false;
        for slot in self.all(State::Free).into_iter().rev() {
            if self.present() > slots.max(self.min) {
                self.remove(slot);
            }
        }
    }

    /// True if it panics.
    fn close(&mut self) -> bool {
        self.closed = true;
        let panic = self.sweep(&[State::Free, State::Dirty]);
        self.collect();
        panic
    }

    /// The last tier goes. True if it panics.
    fn orphan(&mut self) -> bool {
        self.closed = true;
        self.orphaned = true;
        self.limbo.clear();
        self.retired.clear();
        self.sweep(&[State::Free, State::Dirty, State::Detached, State::Shared, State::Retired])
    }

    fn sweep(&mut self, states: &[State]) -> bool {
        let mut panic = false;
        for slot in 0..self.slots.len() {
            if states.contains(&self.slots[slot].state) {
                panic |= self.drop_value(slot);
                self.go(slot, State::Absent);
            } else if self.slots[slot].state == State::Quarantined {
                self.go(slot, State::Absent);
            }
        }
        panic
    }

    /// What a handle must be told by an operation that wants its slot in this state. `Ok` if it wins.
    fn handled(&self, handle: Handle, wanted: State) -> Result<usize, &'static str> {
        let slot = number(handle);
        let Slot { state, handle: present, .. } = self.slots[slot];
        match state {
            _ if present == Some(handle) && state == wanted => Ok(slot),
            _ if present == Some(handle) => Err("in use"),
            State::Absent if self.closed => Err("closed"),
            _ => Err("stale"),
        }
    }
}

fn said(error: &HandleError) -> &'static str {
    assert!(!error.to_string().is_empty());
    match error {
        HandleError::InUse { .. } => "in use",
        HandleError::Closed { .. } => "closed",
        HandleError::Stale { .. } => "stale",
        _ => "nonsense",
    }
}

/// A slot's number, from the bits of its name.
fn number(handle: Handle) -> usize {
    handle.to_bits() as u32 as usize
}

// ---- The two of them

struct World {
    model: Model,
    tiers: Vec<Rc<Tier<Value>>>,
    leases: Vec<Lease<Value>>,
    shared: Vec<SharedLease<Value>>,
    handles: Vec<Handle>,
    /// Where the first slot's value lies.
    base: usize,
    notes: u64,
}

/// What it gave, or that it panicked because it was told to.
fn run<R>(act: impl FnOnce() -> R) -> Result<R, ()> {
    // The hook aborts for other panics.
    catch_unwind(AssertUnwindSafe(act)).map_err(drop)
}

impl World {
    fn new(case: &Case) -> World {
        // The clock begins with the first tier of the process.
        drop(Tier::builder("clock").capacity(1).build_with(|| ()));
        // More than a case can take.
        pass_time(100);
        let capacity = case.capacity as usize % 12 + 1;
        let min = case.min.map_or(capacity, |min| min as usize % (capacity + 1));
        let mut builder: TierBuilder<Value> = Tier::builder("life").capacity(capacity).min_capacity(min);
        builder = builder.rebuild_backoff(just_below(1), just_below(1));
        if case.resets {
            builder = builder.reset(|value: &mut Value| {
                if told(Code::Reset) == Verdict::Panic {
                    std::panic::panic_any(TOLD);
                }
                value.wipe();
            });
        }
        if case.cleans {
            builder = builder.clean(|value: &mut Value| {
                if told(Code::Clean) == Verdict::Panic {
                    std::panic::panic_any(TOLD);
                }
                value.wipe();
            });
        }
        if case.on_allocate {
            builder = builder.validate_on_allocate(|value: &mut Value| value.sound == SOUND && obey(Code::OnAllocate));
        }
        if case.on_release {
            builder = builder.validate_on_release(|value: &mut Value| value.sound == SOUND && obey(Code::OnRelease));
        }
        // So that what may vary by a tenth of it does not reach the next second.
        let max_age = case.max_age.map(|age| u64::from(age) % 8 + 1);
        let idle = case.idle.filter(|_| min < capacity).map(|idle| u64::from(idle) % 6 + 1);
        let leaks = case.leaks.map(|leaks| u64::from(leaks) % 6 + 1);
        if let Some(age) = max_age {
            builder = builder.max_age(just_below(age));
        }
        if let Some(timeout) = idle {
            builder = builder.idle_timeout(just_below(timeout));
        }
        if let Some(limit) = leaks {
            builder = builder.leak_after(just_below(limit));
        }
        let made = || -> Result<Value, &'static str> {
            if !obey(Code::Factory) {
                return Err(TOLD);
            }
            ALIVE.set(ALIVE.get() + 1);
            Ok(Value { sound: SOUND, note: 0 })
        };
        let tier = builder.on_report(|report| drop(report.to_string())).try_build_with(made).unwrap();
        // To see where the slots lie.
        if min == 0 {
            tier.grow_to(1).unwrap();
        }
        let mut base = 0;
        tier.retain(|value| {
            base = if base == 0 { std::ptr::from_ref(value).addr() } else { base };
            true
        });
        tier.shrink_to(min);
        DROPPED.with_borrow_mut(Vec::clear);
        let slot = |slot: usize| Slot {
            state: if slot < min { State::Free } else { State::Absent },
            note: 0,
            since: 0,
            reported: false,
            deadline: None,
            made: 0,
            idle: None,
            handle: None,
            sharers: 0,
        };
        let model = Model {
            slots: (0..capacity).map(slot).collect(),
            min,
            absent: capacity - min,
            resets: case.resets,
            cleans: case.cleans,
            on_allocate: case.on_allocate,
            on_release: case.on_release,
            max_age,
            idle,
            leaks,
            now: 0,
            closed: false,
            orphaned: false,
            wanted: false,
            grows_from: 0,
            rebuilds_from: 0,
            epoch: 0,
            pins: 0,
            pinned_at: 0,
            retired: Vec::new(),
            limbo: Vec::new(),
            sealed: 0,
            passes: Vec::new(),
            dropped: Vec::new(),
        };
        World {
            model,
            tiers: vec![Rc::new(tier)],
            leases: Vec::new(),
            shared: Vec::new(),
            handles: Vec::new(),
            base,
            notes: 0,
        }
    }

    fn tier(&self) -> Option<Rc<Tier<Value>>> {
        self.tiers.last().cloned()
    }

    /// The slots whose values were dropped in the last operation, in order.
    fn seen(&self, got: impl IntoIterator<Item = usize>) -> Seen {
        let slots = DROPPED.with_borrow(|all| all.iter().map(|at| (at - self.base) / size_of::<Value>()).collect());
        Seen { dropped: slots, got: got.into_iter().collect() }
    }

    fn took(&mut self, mut lease: Lease<Value>) {
        let slot = number(lease.handle());
        assert_eq!(self.model.slots[slot].state, State::Leased);
        assert_eq!(
            (lease.sound, lease.note),
            (SOUND, self.model.slots[slot].note),
            "not the value that was to be there"
        );
        self.notes += 1;
        lease.note = self.notes;
        self.model.slots[slot].note = self.notes;
        self.leases.push(lease);
    }

    fn lease(&mut self, which: u8) -> Option<(usize, Lease<Value>)> {
        let last = self.leases.len().checked_sub(1)?;
        let lease = self.leases.swap_remove(which as usize % (last + 1));
        let slot = number(lease.handle());
        assert_eq!(self.model.slots[slot].state, State::Leased);
        Some((slot, lease))
    }

    fn handle(&self, which: u8) -> Option<Handle> {
        self.handles.get(which as usize % self.handles.len().max(1)).copied()
    }

    fn share(&mut self, which: u8) -> Option<(usize, SharedLease<Value>)> {
        let last = self.shared.len().checked_sub(1)?;
        let lease = self.shared.swap_remove(which as usize % (last + 1));
        let slot = number(lease.handle());
        assert_eq!(self.model.slots[slot].state, State::SharedLease);
        assert_eq!(lease.sharers(), self.model.slots[slot].sharers);
        assert_eq!((lease.sound, lease.note), (SOUND, self.model.slots[slot].note));
        Some((slot, lease))
    }

    fn run(&mut self, ops: &mut slice::Iter<Op>, depth: usize) {
        while let Some(op) = ops.next() {
            DROPPED.with_borrow_mut(Vec::clear);
            self.model.dropped.clear();
            match op {
                Op::Pin if depth < 4 => self.pinned(ops, depth),
                Op::Pin => {}
                Op::Unpin if depth > 0 => return,
                op => {
                    self.step(op);
                    self.compare(depth);
                }
            }
        }
    }

    /// Everything up to the end of the pin, under which what was shared stays as it is.
    fn pinned(&mut self, ops: &mut slice::Iter<Op>, depth: usize) {
        let Some(tier) = self.tiers.last().map(|tier| Tier::clone(tier)) else { return };
        {
            let pin = tier.pin();
            if self.model.pins == 0 {
                self.model.pinned_at = self.model.epoch;
            }
            self.model.pins += 1;
            let read = |&handle| Some((tier.read(handle, &pin)?, self.model.slots[number(handle)].note));
            let values: Vec<(&Value, u64)> = self.handles.iter().filter_map(read).collect();
            self.run(ops, depth + 1);
            for (value, note) in values {
                assert_eq!((value.sound, value.note), (SOUND, note), "a value has changed under a pin");
            }
            self.model.pins -= 1;
        }
        DROPPED.with_borrow_mut(Vec::clear);
        self.model.dropped.clear();
        let panics = self.tiers.is_empty() && depth == 0 && self.model.orphan();
        assert_eq!(run(|| drop(tier)).is_err(), panics);
        self.compare(depth);
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Allocate { ref how } => {
                let Some(tier) = self.tier() else { return };
                let outcome = run(|| match how {
                    How::Try => Some(tier.try_allocate()),
                    How::TimeOut => Some(tier.allocate_timeout(Duration::ZERO)),
                    How::Poll => {
                        let future = pin!(tier.allocate_async());
                        match future.poll(&mut Context::from_waker(Waker::noop())) {
                            Poll::Ready(outcome) => Some(outcome),
                            Poll::Pending => None,
                        }
                    }
                });
                let lease = outcome.as_ref().ok().and_then(|outcome| outcome.as_ref()?.as_ref().ok());
                let mut seen = self.seen(lease.map(|lease| number(lease.handle())));
                let expected = self.model.allocate(&mut seen);
                match outcome {
                    Err(()) => assert_eq!(expected, Outcome::Panicked),
                    Ok(Some(Ok(lease))) => {
                        assert_eq!(expected, Outcome::Leased(number(lease.handle())));
                        self.took(lease);
                    }
                    Ok(Some(Err(AllocateError::Closed { .. }))) => assert!(self.model.closed),
                    Ok(None) => assert!(expected == Outcome::Refused && !self.model.closed, "waits: {expected:?}"),
                    Ok(Some(Err(error))) => {
                        assert_eq!(expected, Outcome::Refused, "{error}");
                        assert!(!self.model.closed && matches!(error, AllocateError::Exhausted(_)), "{error}");
                    }
                }
            }
            Op::AllocateMany { n } => {
                let Some(tier) = self.tier() else { return };
                let checked = self.model.on_allocate && told(Code::OnAllocate) != Verdict::Good;
                let capacity = self.model.slots.len();
                let n = n as usize % (capacity + 2);
                if checked || self.model.max_age.is_some() {
                    return; // those are for single ones
                }
                let leases: Result<Vec<_>, _> = tier.try_allocate_many(n).map(|leases| leases.into_iter().collect());
                let got: Vec<_> = leases.iter().flatten().map(|lease| number(lease.handle())).collect();
                let mut seen = self.seen(got.iter().copied());
                let mut held = Vec::new();
                while n <= capacity && held.len() < n {
                    let Some(slot) = self.model.obtain(&mut seen) else { break };
                    held.push(slot);
                }
                match leases {
                    Ok(leases) => {
                        held.sort_unstable();
                        let mut got = got;
                        got.sort_unstable();
                        assert_eq!(held, got);
                        leases.into_iter().for_each(|lease| self.took(lease));
                    }
                    Err(error) => {
                        assert!(held.len() < n, "false exhaustion: {error}");
                        assert_eq!(matches!(error, AllocateError::Closed { .. }), self.model.closed);
                        for slot in held {
                            self.model.free(slot);
                        }
                    }
                }
            }
            Op::End { which, ref how } => {
                let Some((slot, lease)) = self.lease(which) else { return };
                let orphaned = self.model.orphaned;
                let panics = match how {
                    End::Drop | End::Release => self.model.release(slot),
                    End::Discard => self.model.drop_value(slot) | self.model.vacate(slot),
                    End::Take => self.model.vacate(slot),
                    End::Detach | End::Share if orphaned => self.model.free(slot),
                    End::Detach => {
                        self.model.go(slot, State::Detached);
                        false
                    }
                    End::Share => {
                        self.model.go(slot, State::Shared);
                        false
                    }
                };
                let outcome = run(|| {
                    match how {
                        End::Drop => drop(lease),
                        End::Release => lease.release(),
                        End::Discard => lease.discard(),
                        End::Take => return (None, Some(lease.take())),
                        End::Detach => return (Some(lease.detach()), None),
                        End::Share => return (Some(lease.share()), None),
                    }
                    (None, None)
                });
                assert_eq!(outcome.is_err(), panics);
                let Ok((handle, value)) = outcome else { return };
                if let Some(handle) = handle {
                    assert_eq!(number(handle), slot);
                    self.handles.push(handle);
                    if !orphaned {
                        self.model.slots[slot].handle = Some(handle);
                    }
                }
                if let Some(mut value) = value {
                    // It is ours, and no more a slot's.
                    value.wipe();
                    let dropped = DROPPED.take();
                    let _ = run(|| drop(value));
                    DROPPED.set(dropped);
                }
            }
            Op::DetachFor { which, seconds } => {
                let Some((slot, lease)) = self.lease(which) else { return };
                let seconds = u64::from(seconds) % 8 + 1;
                let panics = if self.model.orphaned {
                    self.model.free(slot)
                } else {
                    self.model.go(slot, State::Detached);
                    false
                };
                let handle = run(|| lease.detach_for(just_below(seconds)));
                assert_eq!(handle.is_err(), panics);
                let Ok(handle) = handle else { return };
                self.handles.push(handle);
                if !self.model.orphaned {
                    let slot = &mut self.model.slots[slot];
                    (slot.handle, slot.deadline) = (Some(handle), Some(self.model.now + seconds));
                }
            }
            Op::Attach { which } => {
                let (Some(tier), Some(handle)) = (self.tier(), self.handle(which)) else { return };
                match (tier.attach(handle), self.model.handled(handle, State::Detached)) {
                    (Ok(lease), Ok(slot)) => {
                        self.model.go(slot, State::Leased);
                        self.took(lease);
                    }
                    (Err(error), Err(expected)) => assert_eq!(said(&error), expected),
                    (outcome, expected) => panic!("{outcome:?}, not {expected:?}"),
                }
            }
            Op::ReleaseHandle { which } => {
                let (Some(tier), Some(handle)) = (self.tier(), self.handle(which)) else { return };
                let expected = self.model.handled(handle, State::Detached);
                let panics = expected.is_ok_and(|slot| self.model.release(slot));
                match run(|| tier.release(handle)) {
                    Err(()) => assert!(panics),
                    Ok(Ok(())) => assert!(expected.is_ok() && !panics),
                    Ok(Err(error)) => assert_eq!(Err(said(&error)), expected),
                }
            }
            Op::Retire { which } => {
                let (Some(tier), Some(handle)) = (self.tier(), self.handle(which)) else { return };
                let expected = self.model.handled(handle, State::Shared);
                if let Ok(slot) = expected {
                    self.model.go(slot, State::Retired);
                    self.model.retired.push(slot);
                    if self.model.closed {
                        self.model.collect();
                    }
                }
                match tier.retire(handle) {
                    Ok(()) => assert!(expected.is_ok()),
                    Err(error) => assert_eq!(Err(said(&error)), expected),
                }
            }
            Op::Read { which } => {
                let (Some(tier), Some(handle)) = (self.tier(), self.handle(which)) else { return };
                let pin = tier.pin();
                let value = tier.read(handle, &pin);
                let expected = self.model.handled(handle, State::Shared).ok();
                assert_eq!(value.map(|value| value.note), expected.map(|slot| self.model.slots[slot].note));
            }
            Op::IntoShared { which } => {
                let Some((slot, lease)) = self.lease(which) else { return };
                self.shared.push(lease.into_shared());
                self.model.go(slot, State::SharedLease);
                self.model.slots[slot].sharers = 1;
            }
            Op::CloneShared { which } => {
                let Some((slot, lease)) = self.share(which) else { return };
                self.shared.extend([lease.clone(), lease]);
                self.model.slots[slot].sharers += 1;
            }
            Op::DropShared { which, names_its_line } => {
                let Some((slot, lease)) = self.share(which) else { return };
                self.model.slots[slot].sharers -= 1;
                let panics = self.model.slots[slot].sharers == 0 && self.model.release(slot);
                let outcome = run(|| if names_its_line { lease.release() } else { drop(lease) });
                assert_eq!(outcome.is_err(), panics);
            }
            Op::IntoLease { which } => {
                let Some((slot, lease)) = self.share(which) else { return };
                match lease.into_lease() {
                    Ok(lease) => {
                        assert_eq!(self.model.slots[slot].sharers, 1);
                        self.model.go(slot, State::Leased);
                        self.took(lease);
                    }
                    Err(lease) => {
                        assert!(self.model.slots[slot].sharers > 1);
                        self.shared.push(lease);
                    }
                }
            }
            Op::Retain { keep } => {
                let Some(tier) = self.tier() else { return };
                let outcome = run(|| {
                    tier.retain(|value| {
                        assert_eq!(value.sound, SOUND);
                        match keep {
                            Verdict::Good => true,
                            Verdict::Bad => false,
                            Verdict::Panic => std::panic::panic_any(TOLD),
                        }
                    })
                });
                assert_eq!(outcome.ok(), self.model.retain(keep));
            }
            Op::Reclaim => {
                let Some(tier) = self.tier() else { return };
                let done = tier.reclaim();
                let done = Done {
                    retired: done.retired,
                    cleaned: done.cleaned,
                    expired: done.expired,
                    rebuilt: done.rebuilt,
                    renewed: done.renewed,
                    leaks: done.leaks,
                    added: done.added,
                    removed: done.removed,
                };
                assert_eq!(done, self.model.reclaim());
            }
            Op::Time { seconds } => {
                let seconds = u64::from(seconds) % 4 + 1;
                pass_time(seconds);
                self.model.now += seconds;
                let Some(tier) = self.tier() else { return };
                let now = tier.snapshot();
                assert_eq!(tier.holders().len(), now.leased + now.detached + now.shared);
            }
            Op::GrowTo { slots } => {
                let Some(tier) = self.tier() else { return };
                let capacity = self.model.slots.len();
                let slots = slots as usize % (capacity + 2);
                let expected = if slots > capacity { Err("capacity") } else { Ok(()) };
                let expected = expected.and_then(|()| match self.model.up_to(slots) {
                    _ if self.model.closed => Err("closed"),
                    outcome => outcome.map(drop).map_err(|_| "factory"),
                });
                let outcome = tier.grow_to(slots).map_err(|error| match error {
                    GrowError::Capacity { .. } => "capacity",
                    GrowError::Closed { .. } => "closed",
                    GrowError::Factory { .. } => "factory",
                    _ => "memory",
                });
                assert_eq!(outcome, expected);
            }
            Op::ShrinkTo { slots } => {
                let Some(tier) = self.tier() else { return };
                let slots = slots as usize % (self.model.slots.len() + 2);
                let left = tier.shrink_to(slots);
                self.model.shrink_to(slots);
                assert_eq!(left, self.model.present());
            }
            Op::Tell { whom, what } => tell(whom, what),
            Op::CloneTier => {
                if let Some(tier) = self.tier() {
                    self.tiers.push(Rc::new(Tier::clone(&tier)));
                }
            }
            Op::DropTier { sure } => {
                if sure % 8 > 0 {
                    return;
                }
                let Some(tier) = self.tiers.pop() else { return };
                let last = self.tiers.is_empty() && self.model.pins == 0;
                let panics = last && self.model.orphan();
                assert_eq!(run(|| drop(tier)).is_err(), panics);
            }
            Op::Close { sure } => {
                if sure % 8 > 0 {
                    return;
                }
                let Some(tier) = self.tier() else { return };
                let panics = self.model.close();
                assert_eq!(run(|| tier.close()).is_err(), panics);
            }
            Op::Pin | Op::Unpin => {}
        }
    }

    fn compare(&mut self, depth: usize) {
        assert_eq!(self.model.pins, depth);
        let mut dropped: Vec<_> = self.seen([]).dropped.into();
        dropped.sort_unstable();
        self.model.dropped.sort_unstable();
        assert_eq!(dropped, self.model.dropped, "other values were dropped than those that had to be");
        assert_eq!(ALIVE.get(), self.model.values(), "a value too many, or too few");
        let Some(tier) = self.tier() else { return };
        let now = tier.snapshot();
        let count = |state| self.model.count(state);
        assert_eq!(
            [now.free, now.leased, now.detached, now.shared, now.retired, now.dirty, now.quarantined, now.absent],
            [
                count(State::Free),
                count(State::Leased),
                count(State::Detached),
                count(State::Shared) + count(State::SharedLease),
                count(State::Retired),
                count(State::Dirty),
                count(State::Quarantined),
                count(State::Absent)
            ],
            "{now:?}"
        );
        assert_eq!((now.claimed, now.maintenance, now.waiting, now.closed), (0, 0, 0, self.model.closed));
    }
}

fuzz_target!(|case: Case| {
    // The panics that the code is told to make are part of the game, the others are findings.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&TOLD) {
                loud(info);
                std::process::abort();
            }
        }));
    });
    let mut world = World::new(&case);
    world.run(&mut case.ops.0.iter(), 0);
    TOLD_TO.with(|told| told.iter().for_each(|told| told.set(Verdict::Good)));
    drop(world);
    assert_eq!(ALIVE.get(), 0, "values outlive everything");
});
