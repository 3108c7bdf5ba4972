//! Allocating from a pool as a future: the tier's own, with what a request may spill to before it waits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::RequestError;
use super::prepared::Attempt;
use super::rules::Paid;
use super::waits::Waiting;
use crate::admission::breaker::Pass;
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

enum Stage<'p, K: Send + 'static> {
    /// The request could not be served by this pool.
    Refused(RequestError),
    New(Attempt<'p, K>, Site),
    Waiting(Attempt<'p, K>, Allocate<'p, K>, (Option<Pass<'p>>, Paid<'p>), Waiting<'p>),
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
        let (attempt, mut allocate, (pass, paid), waiting) = match std::mem::replace(stage, Stage::Done) {
            Stage::Refused(why) => return Poll::Ready(Err(why)),
            Stage::New(attempt, site) => {
                let pass = match attempt.pass() {
                    Ok(pass) => pass,
                    Err(why) => return Poll::Ready(attempt.instead(site, why)),
                };
                let paid = match attempt.pay() {
                    Ok(paid) => paid,
                    Err(why) => return Poll::Ready(Err(why)),
                };
                let mut allocate = Allocate::new(attempt.tier, site, attempt.plan.label);
                if let Some(lease) = allocate.at_once() {
                    attempt.note(pass, Ok(()), Duration::ZERO);
                    return Poll::Ready(attempt.accept(paid.charge(lease)));
                }
                // With nothing paid: what it may hold, it may hold there.
                drop(paid);
                if let Some(lease) = attempt.elsewhere(site) {
                    return Poll::Ready(Ok(lease));
                }
                let paid = match attempt.pay() {
                    Ok(paid) => paid,
                    Err(why) => return Poll::Ready(Err(why)),
                };
                let waiting = attempt.waiting();
                (attempt, allocate, (pass, paid), waiting)
            }
            Stage::Waiting(attempt, allocate, held, waiting) => (attempt, allocate, held, waiting),
            Stage::Done => panic!("`Allocation` polled after completion"),
        };
        match Pin::new(&mut allocate).poll(context) {
            Poll::Pending => {
                *stage = Stage::Waiting(attempt, allocate, (pass, paid), waiting);
                Poll::Pending
            }
            Poll::Ready(outcome) => {
                let waited = waiting.end(outcome.is_ok());
                attempt.note(pass, outcome.as_ref().map(drop).map_err(|&why| why), waited);
                Poll::Ready(match outcome {
                    Ok(lease) => attempt.accept(paid.charge(lease)),
                    Err(why) => Err(why.into()),
                })
            }
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
