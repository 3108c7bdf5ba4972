//! Slots that are taken in advance: nobody else can have them, so drawing one cannot fail for want of slots.
//!
//! A reservation is a list of detached handles and the number of the next one. To draw is to advance the number and to attach the handle,
//! so any number of threads may. If there is a deadline, the handles have it, and the reclaimer takes back whatever was not drawn.

use std::fmt;
use std::time::Duration;

use super::Pool;
use super::error::RequestError;
use super::prepared::{Attempt, Plan};
use super::rules::Paid;
use crate::error::HandleError;
use crate::slot::handle::Handle;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::{AtomicUsize, Ordering};
use crate::tier::Tier;
use crate::tier::bulk::Leases;
use crate::tier::lease::Lease;

/// Slots that nobody else can take: from [`Pool::reserve`]. What is not drawn goes back when it is dropped.
///
/// ```
/// use tierpool::{Pool, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("frames", 65536, 8).build()?;
/// let frames = pool.reserve(Request::memory(50_000), 3)?;        // now or never
/// let frame = frames.draw()?;                                    // cannot be refused: it is there
/// assert_eq!((frame.len(), frames.left()), (50_000, 2));
/// drop(frames);                                                  // two go back; `frame` stays
/// # Ok(()) }
/// ```
#[must_use = "a reservation that is dropped at once gives its slots back at once"]
pub struct Reservation<K: Send + 'static> {
    tier: Tier<K>,
    plan: Plan,
    handles: Box<[Handle]>,
    /// The first that was not drawn; beyond the end if all were.
    next: AtomicUsize,
}

/// Reserves `n` slots of the first tier that has so many.
pub(super) fn reserve<'p, K: Send + 'static>(
    pool: &'p Pool,
    mut attempt: Attempt<'p, K>,
    n: usize,
    patience: Option<Duration>,
    site: Site,
) -> Result<Reservation<K>, RequestError> {
    let (inner, plan) = (&*pool.inner, attempt.plan);
    let (leases, mut paid) = match take(&attempt, n, site) {
        Ok(taken) => taken,
        Err(why) => {
            if let RequestError::Tier(_) = why {
                refused(&attempt, n);
            }
            let larger = inner.routes.beyond(&attempt.plan.route).find_map(|row| {
                attempt.plan.route.row = row;
                attempt.row = &inner.rows[row];
                attempt.tier = attempt.row.typed()?;
                // Told to nobody if it is refused, too: the request goes on, or is told of the first refusal.
                let told = |why: &RequestError| {
                    pool.note_absorbed(1);
                    if let RequestError::Tier(_) = why {
                        attempt.row.note_refused(attempt.plan.label.class());
                    }
                };
                take(&attempt, n, site).inspect_err(told).ok()
            });
            let taken = larger.ok_or_else(|| pool.tell(&plan, why))?;
            attempt.row.note_spilled();
            pool.note_absorbed(1);
            taken
        }
    };
    let detach = |lease: Lease<K>| {
        paid.charge_one(&lease);
        match patience {
            Some(patience) => lease.detach_for(patience),
            None => lease.detach(),
        }
    };
    let handles = leases.into_iter().map(detach).collect();
    let (tier, plan) = (attempt.tier.clone(), attempt.plan);
    Ok(Reservation { tier, plan, handles, next: AtomicUsize::new(0) })
}

/// How many slots are paid for before the tier is asked: as many as it has, if it is more.
fn asked<K: Send + 'static>(attempt: &Attempt<'_, K>, n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX).min(attempt.tier.capacity() as u32)
}

/// The tier that fits best has not so many: others shall not exceed their soft limits for a while.
fn refused<K: Send + 'static>(attempt: &Attempt<'_, K>, n: usize) {
    attempt.row.note_refused(attempt.plan.label.class());
    if let Some(books) = &attempt.row.books {
        books.wants(attempt.tier.core(), attempt.plan.tenant(), asked(attempt, n));
    }
}

/// `n` slots of the tier that the plan leads to, paid for.
fn take<'p, K: Send + 'static>(
    attempt: &Attempt<'p, K>,
    n: usize,
    site: Site,
) -> Result<(Leases<K>, Paid<'p>), RequestError> {
    let _pass = attempt.row.pass()?;
    let Attempt { row, tier, plan, .. } = *attempt;
    // More than a tier has slots are refused below; more than a limit allows, here.
    let paid = Paid::new(row, plan.tenant(), asked(attempt, n))?;
    let mut leases = Leases::new();
    // Each is put on the account when it is detached.
    tier.allocate_into(&mut leases, n, site, Label { account: 0, ..plan.label })?;
    Ok((leases, paid))
}

impl<K: Send + 'static> Reservation<K> {
    /// One of the reserved slots. An addition and a compare-exchange; its holder is shown with the line that reserved it.
    ///
    /// # Errors
    /// [`RequestError::Spent`] if all have been drawn; [`RequestError::Lapsed`] if there was a deadline, and it is over;
    /// [`RequestError::System`] if the memory was to come from the system, which has none; [`RequestError::NotPinned`] and
    /// [`RequestError::NotZeroed`], of cores and disk space. The calling thread is the one that is pinned.
    pub fn draw(&self) -> Result<Lease<K>, RequestError> {
        let (tier, reserved) = (self.tier.name(), self.handles.len());
        // Relaxed: only one gets each number; what it names is ordered by the slot's word.
        let drawn =
            self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < reserved).then_some(next + 1));
        let Ok(next) = drawn else { return Err(RequestError::Spent { tier, reserved }) };
        match self.tier.attach(self.handles[next]) {
            Ok(lease) => self.plan.accept(&self.tier, lease),
            Err(HandleError::Stale { .. }) => Err(RequestError::Lapsed { tier, reserved }),
            Err(why) => Err(why.into()),
        }
    }

    /// How many have not been drawn.
    pub fn left(&self) -> usize {
        self.handles.len() - self.next.load(Ordering::Relaxed)
    }

    /// How many were reserved.
    pub fn reserved(&self) -> usize {
        self.handles.len()
    }

    /// The name of the tier whose slots they are.
    pub fn tier_name(&self) -> &'static str {
        self.tier.name()
    }
}

impl<K: Send + 'static> Drop for Reservation<K> {
    fn drop(&mut self) {
        let next = self.next.load(Ordering::Relaxed);
        // A stale one has lapsed, and its slot has gone back already. All first, so that a reset that panics keeps none of them.
        let rest: Vec<Lease<K>> = self.handles[next..].iter().flat_map(|&handle| self.tier.attach(handle)).collect();
        drop(rest);
    }
}

impl<K: Send + 'static> fmt::Debug for Reservation<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("tier", &self.tier_name())
            .field("reserved", &self.reserved())
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}
