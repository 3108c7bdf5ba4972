//! Those who use the tier, and what goes from one to the other.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use tierpool::{Allocate, AllocateError, Handle, HandleError, Lease, SharedLease, Tier};

use crate::accounts::*;
use crate::kind::*;
use crate::values::*;

/// A handle, and the note of its value.
pub type Named = (Handle, u64);

/// What goes from thread to thread.
#[derive(Default)]
pub struct Table {
    pub leases: Mutex<Vec<Held>>,
    pub handles: Mutex<Vec<Named>>,
    /// Each is in here once, and copied by readers.
    pub shared: Mutex<Vec<Named>>,
    pub shared_leases: Mutex<Vec<(SharedLease<Value>, u64)>>,
}

/// Notes that it was called, and panics at times.
pub struct Bell {
    pub rang: AtomicBool,
    pub census: Arc<Census>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.census.may_panic();
    }
}

pub struct Player<'a> {
    pub number: usize,
    pub tier: &'a Tier<Value>,
    pub kind: &'a Kind,
    pub census: &'a Arc<Census>,
    pub table: &'a Table,
    pub random: fastrand::Rng,
    pub held: Vec<Held>,
    pub handles: Vec<Named>,
    /// With a deadline: they may have expired.
    pub fleeting: Vec<Named>,
    /// Copies of shared handles, which may have been retired.
    pub seen: Vec<Named>,
    pub waits: Vec<(Allocate<'a, Value>, Arc<Bell>)>,
    pub pins: u32,
}

impl<'a> Player<'a> {
    pub fn allocated(&mut self, outcome: Result<Lease<Value>, AllocateError>) {
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

    pub fn some_lease(&mut self) -> Option<Held> {
        let n = self.held.len().checked_sub(1)?;
        Some(self.held.swap_remove(self.random.usize(..=n)))
    }

    /// So many lie on the table at most, so that something is left to be allocated.
    pub fn most_shared(&self) -> usize {
        self.kind.capacity / 8 + 1
    }

    pub fn one(&mut self) {
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

    pub fn bulk(&mut self) {
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
    pub fn trade(&mut self) {
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
    pub fn look(&mut self) {
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

    pub fn look_at_lease(&mut self) {
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
    pub fn wait(&mut self) {
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
    pub fn account(&self) {
        let now = self.tier.snapshot();
        check!(sum(&now) == self.kind.capacity, "a slot is lost: {now:?}");
        for holder in self.tier.holders() {
            check!(!holder.to_string().is_empty(), "a holder that says nothing");
            let site = holder.site.is_some_and(|site| site.file().ends_with(".rs"));
            check!(site, "a torn site: {holder:?}");
        }
    }

    /// Gives back whatever this thread has. Fleeting handles go by themselves.
    pub fn leave(mut self) {
        self.waits.drain(..).for_each(give_back);
        self.held.drain(..).for_each(give_back);
        for (handle, _) in self.handles.drain(..) {
            guard(|| self.tier.release(handle));
        }
    }
}
