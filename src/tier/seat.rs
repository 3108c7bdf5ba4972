//! A waiter's seat: how it enters the queue, learns how it stands, waits on, and leaves with what it was granted meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::attach;
use super::core::Core;
use super::order::Flow;
use super::queue::{CLOSED, Duty, Entry, REVOKED, Rank, TAKEN, WAITING, Waiter, Who};
use super::values::{Panic, rethrow};
use super::wait::{attend, give_back_granted, help, settle};
use crate::slot::header::Site;
use crate::slot::label::{CLASSES, Label};

/// A waiter's hold on its place in the queue.
pub(crate) struct Seat {
    rank: Rank,
    who: Who,
    waiter: Arc<Waiter>,
}

/// How a waiter stands.
pub(crate) enum Standing {
    /// The slot with this index is leased to it, and it has taken it.
    Granted(u32),
    /// The tier is closed.
    Closed,
    /// It waits.
    Waiting,
    /// It was called to try for a slot, or was too late for one.
    Called,
}

impl Seat {
    /// Enters the queue; a thread that `blocks` with a waker of [`park`](crate::sync::park). If it is full: how many wait.
    pub(crate) fn enter(
        core: &'static Core,
        site: Site,
        label: Label,
        waker: Waker,
        blocks: bool,
    ) -> Result<Seat, usize> {
        let since = core.incarnation().waiting.barging.map(|_| Instant::now());
        let who = Who { site, label, thread: attach::thread_number(), since, blocks };
        let waiter = Waiter::new();
        let mut queue = core.waiting.lock();
        let full = queue.entries.len();
        if full >= core.incarnation().waiting.most {
            drop(queue);
            rethrow(settle(core).err());
            return Err(full);
        }
        let flow = Flow { behind: CLASSES as u8 - 1 - label.class(), account: label.account };
        let seat = Seat { rank: Rank { flow, ticket: queue.next }, who, waiter };
        queue.next += 1;
        let duty = queue.insert(core, seat.rank, seat.entry(waker));
        drop(queue);
        let entered = seat.entered(core, duty);
        // If another's waker panics, this wait ends with it.
        if entered.is_err() {
            seat.abandon(core);
        }
        rethrow(entered.err());
        Ok(seat)
    }

    fn entry(&self, waker: Waker) -> Entry {
        Entry { who: self.who, waiter: Arc::clone(&self.waiter), waker: Some(waker) }
    }

    /// What follows an [`insert`](Queue::insert).
    fn entered(&self, core: &'static Core, duty: Duty) -> Result<(), Panic> {
        let served = match duty {
            Duty::FenceAndLook => {
                // Pairs with the light fence of every release, between its store of the word and its look at the flags:
                // either it finds WAITERS, or its slot is found by the look that follows.
                core.fence.heavy();
                attend(core, None)
            }
            Duty::Look => attend(core, None),
            Duty::None => settle(core),
        };
        served.and(help(core))
    }

    /// The slot that it took was of no use: it waits on, in its old place.
    pub(crate) fn retake(&self) {
        self.waiter.set(REVOKED);
    }

    /// Whether nothing has happened to it. One load.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiter.state() == WAITING
    }

    /// Whether it is the only one in the queue, which gets the next slot.
    pub(crate) fn is_alone(&self, core: &Core) -> bool {
        core.waiting.len() == 1
    }

    /// How it stands; takes the slot that it was granted.
    pub(crate) fn standing(&self) -> Standing {
        match self.waiter.state() {
            WAITING => Standing::Waiting,
            CLOSED => Standing::Closed,
            // A grant that cannot be taken was revoked.
            _ => self.waiter.end_grant(TAKEN).map_or(Standing::Called, Standing::Granted),
        }
    }

    /// Waits on, with this waker. False if it need not.
    pub(crate) fn renew(&self, core: &'static Core, waker: Waker) -> bool {
        let mut old = Some(waker);
        let mut queue = core.waiting.lock();
        let outcome = if let Some(entry) = queue.entries.get_mut(&self.rank) {
            std::mem::swap(&mut entry.waker, &mut old);
            let was_awake = old.is_none();
            if was_awake {
                queue.awake -= 1;
                self.waiter.set(WAITING);
            }
            drop(queue);
            // What was released meanwhile was offered to nobody, since this waiter was awake.
            if was_awake { attend(core, None) } else { settle(core) }
        } else if self.waiter.state() == REVOKED {
            self.waiter.set(WAITING);
            let duty = old.take().map_or(Duty::None, |waker| queue.insert(core, self.rank, self.entry(waker)));
            drop(queue);
            self.entered(core, duty)
        } else {
            drop(queue);
            settle(core)
        };
        drop(old);
        rethrow(outcome.err());
        self.is_waiting()
    }

    /// Leaves the queue, passing on a call to try. The slot that was granted meanwhile is the caller's; so is the panic of
    /// a waker.
    pub(crate) fn leave(&self, core: &'static Core) -> (Option<u32>, Result<(), Panic>) {
        if let Some(index) = self.waiter.end_grant(TAKEN) {
            return (Some(index), Ok(()));
        }
        let entry = core.waiting.lock().remove(core, self.rank);
        let was_awake = entry.as_ref().is_some_and(|entry| entry.waker.is_none());
        let outcome = if was_awake { attend(core, None) } else { settle(core) };
        let index = if entry.is_some() { None } else { self.waiter.end_grant(TAKEN) };
        (index, outcome.and(catch_unwind(AssertUnwindSafe(|| drop(entry)))))
    }

    /// Leaves, and gives back the slot that was granted meanwhile. The caller has a `Tier`.
    pub(crate) fn abandon(&self, core: &'static Core) {
        let (index, outcome) = self.leave(core);
        let given = index.map_or(Ok(()), |index| give_back_granted(core, index));
        rethrow(outcome.and(given).err());
    }
}
