//! Allocating from a pool as a future: the tier's own, with what a request may spill to before it waits.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow::{Break, Continue};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::error::RequestError;
use super::prepared::{Attempt, Pending};
use crate::slot::header::Site;
use crate::tier::future::Allocate;
use crate::tier::lease::Lease;

/// A lease to come: what [`Pool::allocate_async`](crate::Pool::allocate_async) and
/// [`Prepared::allocate_async`](crate::Prepared::allocate_async) give.
///
/// Needs no runtime. Does nothing until it is polled; the first poll tries the tier that fits best, then what the request may spill to,
/// then enters the queue of the former. May be dropped at any time: a slot that was granted to it meanwhile goes to the next waiter.
#[must_use = "a future does nothing until it is polled"]
pub struct Allocation<'p, K: Send + 'static> {
    stage: Stage<'p, K>,
}

#[allow(clippy::large_enum_variant)] // The largest lies in the future itself: a box would be an allocation each time that one waits.
enum Stage<'p, K: Send + 'static> {
    /// The request could not be served by this pool.
    Refused(RequestError),
    New(Attempt<'p, K>, Site),
    Waiting(Attempt<'p, K>, Allocate<'p, K>, Pending<'p>),
    Done,
}

impl<'p, K: Send + 'static> Allocation<'p, K> {
    pub(super) fn new(attempt: Attempt<'p, K>, site: Site) -> Self {
        Allocation { stage: Stage::New(attempt, site) }
    }

    pub(super) fn refused(why: RequestError) -> Self {
        Allocation { stage: Stage::Refused(why) }
    }
}

impl<K: Send + 'static> Future for Allocation<'_, K> {
    type Output = Result<Lease<K>, RequestError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let stage = &mut self.get_mut().stage;
        let (attempt, mut allocate, pending) = match std::mem::replace(stage, Stage::Done) {
            Stage::Refused(why) => return Poll::Ready(Err(why)),
            Stage::New(attempt, site) => {
                let mut allocate = Allocate::new(attempt.tier, site, attempt.plan.label);
                let begun = match attempt.at_once(&mut allocate, site) {
                    Continue(pass) => attempt.begin_wait(pass, site),
                    Break(outcome) => Break(outcome),
                };
                match begun {
                    Continue(pending) => (attempt, allocate, pending),
                    Break(outcome) => return Poll::Ready(outcome),
                }
            }
            Stage::Waiting(attempt, allocate, pending) => (attempt, allocate, pending),
            Stage::Done => panic!("`Allocation` polled after completion"),
        };
        match Pin::new(&mut allocate).poll(context) {
            Poll::Pending => {
                *stage = Stage::Waiting(attempt, allocate, pending);
                Poll::Pending
            }
            Poll::Ready(outcome) => Poll::Ready(attempt.end_wait(pending, outcome)),
        }
    }
}

impl<K: Send + 'static> fmt::Debug for Allocation<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Refused(_) | Stage::New(..) => "not polled",
            Stage::Waiting(..) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("Allocation").field("stage", &stage).finish_non_exhaustive()
    }
}
