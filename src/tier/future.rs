//! Allocating with a wait: one future, and the blocking forms, which poll it on their own thread.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Tier;
use super::allocate::Caller;
use super::core::{Core, flags};
use super::lease::Lease;
use super::seat::{Seat, Standing};
use super::values::rethrow;
use super::wait;
use super::{attach, scarcity, validate};
use crate::error::AllocateError;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::{Ordering, park};

/// How often a blocked thread looks around, where it has to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A slot to come: what [`Tier::allocate_async`] gives.
///
/// Needs no runtime: whoever polls it brings the waker. Does nothing until it is polled, and enters the queue at its first
/// poll. May be dropped at any time: a slot that was granted to it meanwhile goes to the next waiter.
#[must_use = "a future does nothing until it is polled"]
pub struct Allocate<'a, T: Send + 'static> {
    tier: &'a Tier<T>,
    site: Site,
    label: Label,
    /// Whether a thread blocks on it.
    blocks: bool,
    stage: Stage,
}

enum Stage {
    /// Nothing was tried.
    New,
    /// Nothing was free.
    Refused,
    /// In the queue, or just out of it.
    Seated(Seat),
    /// The result was given.
    Done,
}

impl<'a, T: Send + 'static> Allocate<'a, T> {
    pub(crate) fn new(tier: &'a Tier<T>, site: Site, label: Label) -> Self {
        Allocate { tier, site, label, blocks: false, stage: Stage::New }
    }

    fn core(&self) -> &'static Core {
        self.tier.core()
    }

    /// A free slot, for who needs not wait.
    fn try_now(&self) -> Option<Lease<T>> {
        let (core, caller) = (
            self.core(),
            Caller {
                site: self.site,
                label: Label { account: 0, ..self.label },
                magazine: attach::current(self.core()),
            },
        );
        // SAFETY: the core is that of a `Tier<T>`, and the slot has just been leased to this call.
        unsafe { validate::allocate(core, caller) }
    }

    /// Where every slot that was granted becomes a lease, if its value may be handed out.
    fn accept(&self, index: u32) -> Option<Lease<T>> {
        // SAFETY: the core is that of a `Tier<T>`, and the slot was granted to this waiter alone.
        unsafe { validate::is_fit::<T>(self.core(), index).then(|| Lease::new(self.core(), index)) }
    }

    fn advance(&mut self, waker: &Waker) -> Poll<Result<Lease<T>, AllocateError>> {
        let core = self.core();
        loop {
            match &self.stage {
                Stage::New => {
                    // Who comes after a waiter stays behind it.
                    let passes = core.incarnation().waiting.barging.is_some();
                    let queued = core.waiting.len() > 0;
                    if (passes || !queued)
                        && let Some(lease) = self.try_now()
                    {
                        return self.end(Ok(lease));
                    }
                    self.stage = Stage::Refused;
                }
                Stage::Refused => {
                    if core.flags.load(Ordering::Relaxed) & flags::CLOSED != 0 {
                        return self.end(Err(self.closed()));
                    }
                    match Seat::enter(core, self.site, self.label, waker.clone(), self.blocks) {
                        Ok(seat) => {
                            let waits = seat.is_waiting();
                            self.stage = Stage::Seated(seat);
                            if waits {
                                return Poll::Pending;
                            }
                        }
                        Err(waiting) => {
                            scarcity::note_refused(core, attach::current(core));
                            return self.end(Err(AllocateError::QueueFull { tier: self.tier.name(), waiting }));
                        }
                    }
                }
                Stage::Seated(seat) => match seat.standing() {
                    Standing::Granted(index) => match self.accept(index) {
                        Some(lease) => return self.end(Ok(lease)),
                        None => seat.retake(),
                    },
                    Standing::Closed => return self.end(Err(self.closed())),
                    Standing::Called if let Some(lease) = self.try_now() => {
                        // The lease is safe in its variable if another's waker panics in here.
                        seat.abandon(core);
                        return self.end(Ok(lease));
                    }
                    Standing::Called | Standing::Waiting => {
                        if seat.renew(core, waker.clone()) {
                            return Poll::Pending;
                        }
                    }
                },
                Stage::Done => panic!("`Allocate` polled after completion"),
            }
        }
    }

    fn end(&mut self, result: Result<Lease<T>, AllocateError>) -> Poll<Result<Lease<T>, AllocateError>> {
        self.stage = Stage::Done;
        Poll::Ready(result)
    }

    fn closed(&self) -> AllocateError {
        AllocateError::Closed { tier: self.tier.name() }
    }

    /// Waits on this thread, as long as it has patience.
    pub(crate) fn block(mut self, patience: Option<Patience>) -> Result<Lease<T>, AllocateError> {
        let waker = park::waker();
        self.blocks = true;
        loop {
            if let Poll::Ready(result) = self.advance(&waker) {
                return result;
            }
            if let Stage::Seated(seat) = &self.stage
                && seat.is_alone(self.core())
                && park::spin(|| !seat.is_waiting())
            {
                continue;
            }
            while let Stage::Seated(seat) = &self.stage
                && seat.is_waiting()
            {
                let end = patience.as_ref().and_then(|patience| patience.end);
                if let Some(Patience { start, .. }) = patience
                    && end.is_some_and(|end| Instant::now() >= end)
                {
                    return self.time_out(start);
                }
                park::park(self.next_look(end));
                if seat.is_waiting() {
                    rethrow(wait::help(self.core()).err());
                }
            }
        }
    }

    fn next_look(&self, deadline: Option<Instant>) -> Option<Instant> {
        if self.core().flags.load(Ordering::Relaxed) & flags::LOOKS == 0 {
            return deadline;
        }
        let look = Instant::now().checked_add(LOOK_EVERY);
        deadline.map_or(look, |deadline| look.map(|look| look.min(deadline)))
    }

    /// The end of a wait that takes too long. If a slot was granted at this very moment, it is taken.
    pub(crate) fn time_out(mut self, start: Instant) -> Result<Lease<T>, AllocateError> {
        let core = self.core();
        let Stage::Seated(seat) = std::mem::replace(&mut self.stage, Stage::Done) else { return Err(self.closed()) };
        let (index, outcome) = seat.leave(core);
        let lease = index.and_then(|index| self.accept(index));
        rethrow(outcome.err());
        lease.ok_or_else(|| {
            scarcity::note_refused(core, attach::current(core));
            let waiting = core.waiting.len();
            AllocateError::TimedOut { tier: self.tier.name(), waiting, waited: start.elapsed() }
        })
    }
}

impl<T: Send + 'static> Future for Allocate<'_, T> {
    type Output = Result<Lease<T>, AllocateError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().advance(context.waker())
    }
}

impl<T: Send + 'static> Drop for Allocate<'_, T> {
    fn drop(&mut self) {
        if let Stage::Seated(seat) = std::mem::replace(&mut self.stage, Stage::Done) {
            seat.abandon(self.core());
        }
    }
}

impl<T: Send + 'static> std::fmt::Debug for Allocate<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stage = match self.stage {
            Stage::New | Stage::Refused => "not polled",
            Stage::Seated(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("Allocate").field("tier", &self.tier.name()).field("stage", &stage).finish_non_exhaustive()
    }
}

/// From when until when a thread waits.
pub(crate) struct Patience {
    start: Instant,
    /// `None` if it is beyond what the clock can count.
    pub(crate) end: Option<Instant>,
}

impl Patience {
    pub(crate) fn from_now(limit: Duration) -> Self {
        let start = Instant::now();
        Patience { start, end: start.checked_add(limit) }
    }
}

impl<T: Send + 'static> Tier<T> {
    /// A slot, waiting for one if none is free.
    ///
    /// Costs what [`try_allocate`](Self::try_allocate) costs while slots are free. Otherwise the thread enters the tier's
    /// queue, spins for a moment and parks; a release hands its slot to whoever is first, so newcomers cannot pass (unless
    /// the tier says [`barging`](crate::TierBuilder::barging)). The calling line and thread are remembered as the holder.
    ///
    /// What the last holder did to the value happens before what this one does.
    ///
    /// # Errors
    /// [`AllocateError::Closed`] if the tier is closed, before the call or during the wait; [`AllocateError::QueueFull`]
    /// if [`max_waiters`](crate::TierBuilder::max_waiters) wait already.
    ///
    /// # Panics
    /// If another waiter's `Waker` panics when it is called from here.
    #[inline]
    #[track_caller]
    pub fn allocate(&self) -> Result<Lease<T>, AllocateError> {
        Allocate::new(self, Location::caller(), Label::NONE).within(None)
    }

    /// A slot, waiting at most `patience` for one. A patience of zero never waits, as [`try_allocate`](Self::try_allocate); one
    /// that the clock cannot count has no end.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), and [`AllocateError::TimedOut`]. A slot that is handed over in the very moment in
    /// which the time is up is not lost: the call returns it.
    ///
    /// # Panics
    /// As [`allocate`](Self::allocate).
    #[inline]
    #[track_caller]
    pub fn allocate_timeout(&self, patience: Duration) -> Result<Lease<T>, AllocateError> {
        if patience.is_zero() {
            return self.try_allocate();
        }
        Allocate::new(self, Location::caller(), Label::NONE).within(Some(patience))
    }

    /// A slot, as a future: awaited instead of blocked for, by any executor. See [`Allocate`] and
    /// [`allocate`](Self::allocate).
    ///
    /// A slot that is granted to a future that nobody polls is given to the next waiter after the tier's
    /// [`grant_limit`](crate::TierBuilder::grant_limit); the future keeps its place.
    #[track_caller]
    pub fn allocate_async(&self) -> Allocate<'_, T> {
        Allocate::new(self, Location::caller(), Label::NONE)
    }
}

impl<T: Send + 'static> Allocate<'_, T> {
    /// A free slot, unless others wait for one. To be asked once, before everything else.
    #[inline]
    pub(crate) fn at_once(&mut self) -> Option<Lease<T>> {
        if self.core().waiting.len() > 0 {
            return None;
        }
        let lease = self.try_now();
        if lease.is_none() {
            self.stage = Stage::Refused;
        }
        lease
    }

    /// A slot at once, or after a wait of at most `patience` on this thread, without end if there is none.
    #[inline]
    pub(crate) fn within(mut self, patience: Option<Duration>) -> Result<Lease<T>, AllocateError> {
        match self.at_once() {
            Some(lease) => Ok(lease),
            None => self.wait_for(patience),
        }
    }

    /// Waits on this thread, at most `patience`.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait_for(self, patience: Option<Duration>) -> Result<Lease<T>, AllocateError> {
        self.block(patience.map(Patience::from_now))
    }
}
