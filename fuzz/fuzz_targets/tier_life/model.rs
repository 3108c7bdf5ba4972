//! The model: each slot by its number, and what must come of each operation.

use std::collections::VecDeque;

use tierpool::{Handle, HandleError};

use crate::case::*;
use crate::program::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
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
pub struct Slot {
    pub state: State,
    pub note: u64,
    /// When it was allocated, and whether that hold was reported.
    pub since: u64,
    pub reported: bool,
    pub deadline: Option<u64>,
    /// When the value was made.
    pub made: u64,
    /// When a pass first found it free, in its present idleness.
    pub idle: Option<u64>,
    /// The handle of its present generation, if there is one.
    pub handle: Option<Handle>,
    pub sharers: usize,
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Leased(usize),
    Refused,
    Panicked,
}

/// What an allocation was seen to do: values that it dropped, and the slots that it got.
pub struct Seen {
    pub dropped: VecDeque<usize>,
    pub got: VecDeque<usize>,
}

impl Seen {
    /// Which of those slots it has taken next: that whose value goes next, or that which it got.
    pub fn pick(&self, model: &Model, state: State) -> usize {
        let is = |slot: &&usize| model.slots[**slot].state == state;
        let seen = self.dropped.front().into_iter().chain(&self.got).find(is);
        // Those that are given back in the end are not seen; then it takes all of them.
        seen.copied().unwrap_or_else(|| {
            assert!(self.got.is_empty(), "none of {:?} was {state:?}", self.got);
            model.find(state).expect("there is one")
        })
    }

    pub fn dropped(&mut self, slot: usize) {
        if self.dropped.front() == Some(&slot) {
            self.dropped.pop_front();
        } else if let Some(at) = self.dropped.iter().position(|&other| other == slot) {
            self.dropped.remove(at);
        }
    }
}

pub struct Model {
    pub slots: Vec<Slot>,
    pub min: usize,
    /// Slots by which it may grow.
    pub absent: usize,
    pub resets: bool,
    pub cleans: bool,
    pub on_allocate: bool,
    pub on_release: bool,
    pub max_age: Option<u64>,
    pub idle: Option<u64>,
    pub leaks: Option<u64>,
    pub now: u64,
    pub closed: bool,
    pub orphaned: bool,
    pub wanted: bool,
    pub grows_from: u64,
    pub rebuilds_from: u64,
    pub epoch: u64,
    pub pins: usize,
    pub pinned_at: u64,
    pub retired: Vec<usize>,
    pub limbo: Vec<usize>,
    pub sealed: u64,
    /// When there were passes.
    pub passes: Vec<u64>,
    /// The slots whose values an operation drops.
    pub dropped: Vec<usize>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Done {
    pub retired: u64,
    pub cleaned: u64,
    pub expired: u64,
    pub rebuilt: u64,
    pub renewed: u64,
    pub leaks: u64,
    pub added: u64,
    pub removed: u64,
}

impl Model {
    pub fn find(&self, state: State) -> Option<usize> {
        self.slots.iter().position(|slot| slot.state == state)
    }

    pub fn all(&self, state: State) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].state == state).collect()
    }

    pub fn count(&self, state: State) -> usize {
        self.all(state).len()
    }

    pub fn values(&self) -> usize {
        self.slots.len() - self.count(State::Absent) - self.count(State::Quarantined)
    }

    pub fn present(&self) -> usize {
        self.slots.len() - self.absent
    }

    pub fn go(&mut self, slot: usize, state: State) {
        let slot = &mut self.slots[slot];
        slot.state = state;
        slot.idle = None;
        if state != State::Leased {
            slot.deadline = None;
            slot.handle = None;
        }
    }

    /// Drops the slot's value. True if that panics.
    pub fn drop_value(&mut self, slot: usize) -> bool {
        self.dropped.push(slot);
        told(Code::Drop) == Verdict::Panic
    }

    pub fn build(&mut self, slot: usize) -> bool {
        let built = told(Code::Factory) == Verdict::Good;
        if built {
            self.slots[slot].made = self.now;
            self.slots[slot].note = 0;
        }
        built
    }

    pub fn quarantine(&mut self, slot: usize) {
        self.go(slot, if self.closed { State::Absent } else { State::Quarantined });
    }

    /// Another value for a slot. False if there is none; and whether the old one's end panicked.
    pub fn renew(&mut self, slot: usize) -> (bool, bool) {
        let panic = self.drop_value(slot);
        let built = self.build(slot);
        if !built {
            self.quarantine(slot);
        }
        (built, panic)
    }

    /// Gives a slot back. True if that panics.
    pub fn free(&mut self, slot: usize) -> bool {
        if self.closed {
            self.go(slot, State::Absent);
            return self.drop_value(slot);
        }
        self.go(slot, State::Free);
        false
    }

    /// The check on release, and reset.
    pub fn prepared(&mut self, slot: usize) -> Verdict {
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
    pub fn release(&mut self, slot: usize) -> bool {
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

    pub fn vacate(&mut self, slot: usize) -> bool {
        if !self.closed && self.build(slot) {
            return self.free(slot);
        }
        self.quarantine(slot);
        false
    }

    /// A retired slot that nobody sees any more. False if it could not be made fit.
    pub fn refit(&mut self, slot: usize) -> bool {
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
    pub fn collect(&mut self) -> Vec<usize> {
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

    pub fn grow(&mut self) -> Option<usize> {
        let slot = self.find(State::Absent)?;
        if !self.build(slot) {
            return None;
        }
        self.grows_from = 0;
        self.absent -= 1;
        self.go(slot, State::Maintenance);
        Some(slot)
    }

    pub fn rebuild(&mut self) -> Option<usize> {
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
    pub fn obtain(&mut self, seen: &mut Seen) -> Option<usize> {
        if self.closed {
            return None;
        }
        let slot = if self.find(State::Free).is_some() { Some(seen.pick(self, State::Free)) } else { self.make(seen) }?;
        self.go(slot, State::Leased);
        self.slots[slot].since = self.now;
        self.slots[slot].reported = false;
        Some(slot)
    }

    pub fn make(&mut self, seen: &mut Seen) -> Option<usize> {
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

    pub fn is_old(&self, slot: usize) -> bool {
        self.max_age.is_some_and(|age| self.slots[slot].made + age <= self.now)
    }

    pub fn allocate(&mut self, seen: &mut Seen) -> Outcome {
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
    pub fn retain(&mut self, keep: Verdict) -> Option<usize> {
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

    pub fn reclaim(&mut self) -> Done {
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

    pub fn look_for_leaks(&mut self) -> u64 {
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

    pub fn remove(&mut self, slot: usize) {
        self.drop_value(slot);
        self.go(slot, State::Absent);
        self.absent += 1;
    }

    /// How many were added; an error if the factory failed.
    pub fn up_to(&mut self, slots: usize) -> Result<u64, u64> {
        let mut added = 0;
        while self.present() < slots && !self.closed {
            let slot = self.grow().ok_or(added)?;
            self.free(slot);
            added += 1;
        }
        Ok(added)
    }

    pub fn shrink_to(&mut self, slots: usize) {
        self.wanted = false;
        for slot in self.all(State::Free).into_iter().rev() {
            if self.present() > slots.max(self.min) {
                self.remove(slot);
            }
        }
    }

    /// True if it panics.
    pub fn close(&mut self) -> bool {
        self.closed = true;
        let panic = self.sweep(&[State::Free, State::Dirty]);
        self.collect();
        panic
    }

    /// The last tier goes. True if it panics.
    pub fn orphan(&mut self) -> bool {
        self.closed = true;
        self.orphaned = true;
        self.limbo.clear();
        self.retired.clear();
        self.sweep(&[State::Free, State::Dirty, State::Detached, State::Shared, State::Retired])
    }

    pub fn sweep(&mut self, states: &[State]) -> bool {
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
    pub fn handled(&self, handle: Handle, wanted: State) -> Result<usize, &'static str> {
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

pub fn said(error: &HandleError) -> &'static str {
    assert!(!error.to_string().is_empty());
    match error {
        HandleError::InUse { .. } => "in use",
        HandleError::Closed { .. } => "closed",
        HandleError::Stale { .. } => "stale",
        _ => "nonsense",
    }
}

/// A slot's number, from the bits of its name.
pub fn number(handle: Handle) -> usize {
    handle.to_bits() as u32 as usize
}
