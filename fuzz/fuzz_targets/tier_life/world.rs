//! The tier and its model, side by side: each operation is done to both, and they are compared.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::slice;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tierpool::{AllocateError, GrowError, Handle, Lease, SharedLease, Tier, TierBuilder};

use crate::case::*;
use crate::model::*;
use crate::program::*;

pub struct World {
    pub model: Model,
    pub tiers: Vec<Rc<Tier<Value>>>,
    pub leases: Vec<Lease<Value>>,
    pub shared: Vec<SharedLease<Value>>,
    pub handles: Vec<Handle>,
    /// Where the first slot's value lies.
    pub base: usize,
    pub notes: u64,
}

/// What it gave, or that it panicked because it was told to.
pub fn run<R>(act: impl FnOnce() -> R) -> Result<R, ()> {
    // The hook aborts for other panics.
    catch_unwind(AssertUnwindSafe(act)).map_err(drop)
}

impl World {
    pub fn new(case: &Case) -> World {
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

    pub fn tier(&self) -> Option<Rc<Tier<Value>>> {
        self.tiers.last().cloned()
    }

    /// The slots whose values were dropped in the last operation, in order.
    pub fn seen(&self, got: impl IntoIterator<Item = usize>) -> Seen {
        let slots = DROPPED.with_borrow(|all| all.iter().map(|at| (at - self.base) / size_of::<Value>()).collect());
        Seen { dropped: slots, got: got.into_iter().collect() }
    }

    pub fn took(&mut self, mut lease: Lease<Value>) {
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

    pub fn lease(&mut self, which: u8) -> Option<(usize, Lease<Value>)> {
        let last = self.leases.len().checked_sub(1)?;
        let lease = self.leases.swap_remove(which as usize % (last + 1));
        let slot = number(lease.handle());
        assert_eq!(self.model.slots[slot].state, State::Leased);
        Some((slot, lease))
    }

    pub fn handle(&self, which: u8) -> Option<Handle> {
        self.handles.get(which as usize % self.handles.len().max(1)).copied()
    }

    pub fn share(&mut self, which: u8) -> Option<(usize, SharedLease<Value>)> {
        let last = self.shared.len().checked_sub(1)?;
        let lease = self.shared.swap_remove(which as usize % (last + 1));
        let slot = number(lease.handle());
        assert_eq!(self.model.slots[slot].state, State::SharedLease);
        assert_eq!(lease.sharers(), self.model.slots[slot].sharers);
        assert_eq!((lease.sound, lease.note), (SOUND, self.model.slots[slot].note));
        Some((slot, lease))
    }

    pub fn run(&mut self, ops: &mut slice::Iter<Op>, depth: usize) {
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
    pub fn pinned(&mut self, ops: &mut slice::Iter<Op>, depth: usize) {
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

    pub fn step(&mut self, op: &Op) {
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

    pub fn compare(&mut self, depth: usize) {
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
