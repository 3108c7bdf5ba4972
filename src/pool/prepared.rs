//! Serving a request: the tier it was routed to, then those it may spill to; without a wait, or with one.
//!
//! [`Prepared`] has looked up everything there is to look up, so what is left of [`try_allocate`](Prepared::try_allocate) is the tier's own
//! and, for memory, a comparison and two stores. All forms of allocation of all callers go through [`Attempt`]: rules that decide who
//! gets what have their place in it, and what they need to know, in [`Plan`].

use std::fmt;
use std::ops::ControlFlow::{self, Break, Continue};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::error::RequestError;
use super::future::Allocation;
use super::reasons::RefusalReason;
use super::route::Route;
use super::rows::Row;
use super::rules::Paid;
use super::waits::Waiting;
use crate::admission::breaker::Pass;
use crate::admission::tenants::Tenant;
use crate::error::AllocateError;
use crate::resource::memory::NoMemory;
use crate::resource::{self, Unfit, Use};
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::Ordering;
use crate::tier::Tier;
use crate::tier::future::Allocate;
use crate::tier::lease::Lease;

/// What a request came down to.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub(super) route: Route,
    /// Its account is the tenant's number.
    pub(super) label: Label,
    pub(super) patience: Option<Duration>,
    /// Whether the calling thread is to use what comes: for a future, it is its executor's.
    pub(super) by_thread: bool,
    /// Whether its caller waits next if nothing is free: then that is no refusal that anybody is told.
    pub(super) goes_on: bool,
}

impl Plan {
    /// On whose behalf.
    #[inline(always)]
    pub(super) fn tenant(&self) -> Tenant {
        Tenant(self.label.account)
    }

    /// What the header of a slot says that is on nobody's account yet.
    pub(super) fn unpaid(&self) -> Label {
        Label { account: 0, ..self.label }
    }

    /// Where every lease passes that a tier gave to the pool, if it has waited or was reserved.
    pub(super) fn accept<K: Send + 'static>(&self, tier: &Tier<K>, lease: Lease<K>) -> Result<Lease<K>, RequestError> {
        accept(self, tier, lease)
    }

    /// Why a lease was not [accepted](accept).
    #[cold]
    fn unfit<K: Send + 'static>(&self, tier: &Tier<K>, why: Unfit) -> RequestError {
        let tier = tier.name();
        match why {
            Unfit::NoMemory => RequestError::System(NoMemory { bytes: self.route.bytes as usize }),
            Unfit::NotPinned(source) => RequestError::NotPinned { tier, source },
            Unfit::NotZeroed(os_error) => RequestError::NotZeroed { tier, os_error },
        }
    }

    /// What a slot is told when it is given.
    #[inline(always)]
    fn usage(&self) -> Use {
        Use { bytes: self.route.bytes, user: self.label.account, by_thread: self.by_thread }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Never,
    /// So long at most; without end if nothing is said.
    For(Option<Duration>),
}

impl Wait {
    pub(super) fn at_most(patience: Option<Duration>) -> Self {
        if patience == Some(Duration::ZERO) { Wait::Never } else { Wait::For(patience) }
    }
}

/// A request with everything looked up once: for code that makes the same one again and again. From [`Pool::prepare`].
///
/// Allocates at the cost of the bare tier. Keeps the pool open like a clone of it; may be used by many threads at once.
///
/// ```
/// use tierpool::{Pool, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("packets", 2048, 1024).build()?;
/// let packets = pool.prepare(Request::memory(1500))?;
/// for _ in 0..1000 {
///     let mut packet = packets.try_allocate()?;
///     packet.put_slice(b"data");
/// }
/// # Ok(()) }
/// ```
pub struct Prepared<K: Send + 'static> {
    tier: Tier<K>,
    row: Arc<Row>,
    plan: Plan,
    pool: Pool,
}

impl<K: Send + 'static> Prepared<K> {
    pub(super) fn new(pool: &Pool, attempt: &Attempt<'_, K>) -> Self {
        let Attempt { row, tier, plan, .. } = *attempt;
        Prepared { tier: tier.clone(), row: Arc::clone(row), plan, pool: pool.clone() }
    }

    #[inline(always)]
    pub(super) fn attempt(&self) -> Attempt<'_, K> {
        Attempt { pool: &self.pool, row: &self.row, tier: &self.tier, plan: self.plan }
    }

    /// A slot, or why there is none; never waits. The calling line is remembered as the holder.
    ///
    /// # Errors
    /// [`RequestError::Tier`] with the refusal of the tier that the request is routed to, after all tiers that it may spill to have
    /// refused as well. A refusal allocates nothing.
    #[inline(always)]
    #[track_caller]
    pub fn try_allocate(&self) -> Result<Lease<K>, RequestError> {
        serve(&self.pool, &self.row, &self.tier, &self.plan, Location::caller())
    }

    /// A slot, waiting for one if none is free: at most for the request's [`patience`](crate::Request::patience). What the request may
    /// spill to is tried before the wait, which is for the tier that fits best.
    ///
    /// # Errors
    /// As [`Tier::allocate`], in a [`RequestError::Tier`].
    #[inline]
    #[track_caller]
    pub fn allocate(&self) -> Result<Lease<K>, RequestError> {
        self.attempt().allocate(Wait::at_most(self.plan.patience), Location::caller())
    }

    /// The same, waiting at most `patience`, whatever the request says.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[inline]
    #[track_caller]
    pub fn allocate_timeout(&self, patience: Duration) -> Result<Lease<K>, RequestError> {
        self.attempt().allocate(Wait::at_most(Some(patience)), Location::caller())
    }

    /// The same as a future; see [`Allocation`].
    #[track_caller]
    pub fn allocate_async(&self) -> Allocation<'_, K> {
        self.attempt().allocate_async(Location::caller())
    }

    /// The name of the tier that the request is routed to.
    pub fn tier_name(&self) -> &'static str {
        self.tier.name()
    }

    /// On whose behalf it is.
    pub fn tenant(&self) -> Tenant {
        self.plan.tenant()
    }
}

#[cfg(all(feature = "cache", not(loom)))]
impl<K: Send + 'static> Prepared<K> {
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn row(&self) -> &Row {
        &self.row
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        self.plan.patience
    }

    /// The same request on behalf of another tenant of the pool.
    pub(super) fn for_tenant(&self, tenant: Tenant) -> Self {
        let tenant = tenant.number();
        let label = Label { account: tenant, tenant, ..self.plan.label };
        Prepared { plan: Plan { label, ..self.plan }, ..self.clone() }
    }
}

impl<K: Send + 'static> Clone for Prepared<K> {
    fn clone(&self) -> Self {
        Prepared::new(&self.pool, &self.attempt())
    }
}

impl<K: Send + 'static> fmt::Debug for Prepared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("tier", &self.tier_name())
            .field("tenant", &self.tenant())
            .finish_non_exhaustive()
    }
}

/// How a request ended, or with what it goes on.
pub(super) type Step<K, T> = ControlFlow<Result<Lease<K>, RequestError>, T>;

/// What a request has while it waits: the breaker's pass, a slot that is paid for, and its wait, which is counted.
pub(super) struct Pending<'p> {
    pass: Option<Pass<'p>>,
    paid: Paid<'p>,
    waiting: Waiting<'p>,
}

/// A request on its way.
pub struct Attempt<'p, K: Send + 'static> {
    pub(super) pool: &'p Pool,
    /// That of the plan's route.
    pub(super) row: &'p Arc<Row>,
    /// The row's.
    pub(super) tier: &'p Tier<K>,
    pub(super) plan: Plan,
}

impl<K: Send + 'static> Clone for Attempt<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Send + 'static> Copy for Attempt<'_, K> {}

impl<'p, K: Send + 'static> Attempt<'p, K> {
    #[inline(always)]
    pub(super) fn try_allocate(&self, site: Site) -> Result<Lease<K>, RequestError> {
        serve(self.pool, self.row, self.tier, &self.plan, site)
    }

    #[inline]
    pub(super) fn allocate(&self, wait: Wait, site: Site) -> Result<Lease<K>, RequestError> {
        let Wait::For(patience) = wait else { return self.try_allocate(site) };
        let mut allocate = Allocate::new(self.tier, site, self.plan.label);
        match self.at_once(&mut allocate, site) {
            Break(outcome) => outcome,
            Continue(pass) => self.wait_for(allocate, pass, patience, site),
        }
    }

    /// The first step of a request that may wait: how it ends, if it need not; else with what it goes on.
    #[inline]
    pub(super) fn at_once(&self, allocate: &mut Allocate<'p, K>, site: Site) -> Step<K, Option<Pass<'p>>> {
        let pass = match self.row.pass() {
            Ok(pass) => pass,
            Err(why) => return Break(instead(self.pool, &self.plan, site, why)),
        };
        let paid = match Paid::new(self.row, self.plan.tenant(), 1) {
            Ok(paid) => paid,
            Err(why) => return Break(Err(self.tell(why))),
        };
        match allocate.at_once() {
            Some(lease) => {
                self.row.note(pass, Ok(()), Duration::ZERO);
                Break(accept_or_tell(self.pool, &self.plan, self.tier, paid.charge(lease)))
            }
            None => {
                drop(paid);
                self.kept(pass, site)
            }
        }
    }

    /// What somebody keeps and does not use, after the tier had nothing free.
    #[cold]
    fn kept(&self, pass: Option<Pass<'p>>, site: Site) -> Step<K, Option<Pass<'p>>> {
        let kept = if self.row.is_kept() { self.row.take_kept(self.tier, &self.plan, site) } else { None };
        match kept {
            Some(lease) => {
                self.row.note(pass, Ok(()), Duration::ZERO);
                Break(accept_or_tell(self.pool, &self.plan, self.tier, lease))
            }
            None => Continue(pass),
        }
    }

    /// The second step: what there is elsewhere, or a wait. The request has nothing paid: what it may hold, it may hold there.
    pub(super) fn begin_wait(&self, pass: Option<Pass<'p>>, site: Site) -> Step<K, Pending<'p>> {
        if let Some(lease) = elsewhere(self.pool, &self.plan, site) {
            return Break(Ok(lease));
        }
        match Paid::new(self.row, self.plan.tenant(), 1) {
            Ok(paid) => Continue(Pending { pass, paid, waiting: Waiting::begin(self.pool, self.row, &self.plan) }),
            Err(why) => Break(Err(self.tell(why))),
        }
    }

    /// The last step: the wait has ended.
    pub(super) fn end_wait(
        &self,
        Pending { pass, paid, waiting }: Pending<'p>,
        outcome: Result<Lease<K>, AllocateError>,
    ) -> Result<Lease<K>, RequestError> {
        let waited = waiting.end(outcome.is_ok());
        self.row.note(pass, outcome.as_ref().map(drop).map_err(|&why| why), waited);
        match outcome {
            Ok(lease) => accept_or_tell(self.pool, &self.plan, self.tier, paid.charge(lease)),
            Err(why) => Err(self.tell(why.into())),
        }
    }

    /// The request is refused, and its caller is told.
    pub(super) fn tell(&self, why: RequestError) -> RequestError {
        self.pool.tell(&self.plan, why)
    }

    /// The same for a future.
    pub(super) fn of_future(&self) -> Self {
        Attempt { plan: Plan { by_thread: false, ..self.plan }, ..*self }
    }

    /// The same for who waits next if nothing is free.
    pub(super) fn going_on(&self, goes_on: bool) -> Self {
        Attempt { plan: Plan { goes_on, ..self.plan }, ..*self }
    }

    pub(super) fn allocate_async(&self, site: Site) -> Allocation<'p, K> {
        Allocation::new(self.of_future(), site)
    }

    #[cold]
    #[inline(never)]
    fn wait_for(
        &self,
        allocate: Allocate<'p, K>,
        pass: Option<Pass<'p>>,
        patience: Option<Duration>,
        site: Site,
    ) -> Result<Lease<K>, RequestError> {
        match self.begin_wait(pass, site) {
            Break(outcome) => outcome,
            Continue(pending) => self.end_wait(pending, allocate.wait_for(patience)),
        }
    }
}

// What follows takes the parts of an attempt one by one: as a whole it would have to lie in memory, and be written there, on the way of
// every allocation, for the sake of the one that is refused.

/// A slot for a plan, without a wait. The hot path: the breaker's word, if there is one; a credit, for a tenant; the tier's own; and
/// [`accept`].
#[inline(always)]
fn serve<K: Send + 'static>(
    pool: &Pool,
    row: &Row,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
) -> Result<Lease<K>, RequestError> {
    // Leases come back in registers, as `Option`s, and reasons are asked for: a call that returned either would pass the lease of the
    // hot path, too, through memory.
    let caller = tier.caller(site, plan.label);
    let at_hand = || Paid::at_hand(row, tier.core(), &caller, plan.tenant());
    let paid = if row.is_plain_for(plan.tenant()) { at_hand() } else { None };
    let Some(paid) = paid else { return serve_with_care(pool, row, tier, plan, site) };
    match tier.take(caller) {
        Some(lease) => {
            paid.spend();
            accept_or_tell(pool, plan, tier, lease)
        }
        None => {
            drop(paid);
            refuse(pool, row, tier, plan, site, None)
        }
    }
}

/// The same where there is more to it: the breaker is not closed, no credit is at hand, or the tenant's values are examined. A slot whose
/// value does not pass leaves the tier's hands, and with it would give back what was paid: so what comes is on nobody's account
/// until it has passed.
#[cold]
#[inline(never)]
fn serve_with_care<K: Send + 'static>(
    pool: &Pool,
    row: &Row,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
) -> Result<Lease<K>, RequestError> {
    let pass = match row.pass() {
        Ok(pass) => pass,
        Err(why) => return instead(pool, plan, site, why),
    };
    let paid = Paid::new(row, plan.tenant(), 1).map_err(|why| pool.tell(plan, why))?;
    match tier.take(tier.caller(site, plan.unpaid())) {
        Some(lease) => {
            row.note(pass, Ok(()), Duration::ZERO);
            accept_or_tell(pool, plan, tier, paid.charge(lease))
        }
        None => {
            drop(paid);
            refuse(pool, row, tier, plan, site, pass)
        }
    }
}

/// After the tier that fits best has none, for a request that was let pass on trial, or because the breaker was closed.
#[cold]
#[inline(never)]
fn refuse<K: Send + 'static>(
    pool: &Pool,
    row: &Row,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
    pass: Option<Pass<'_>>,
) -> Result<Lease<K>, RequestError> {
    if row.is_kept()
        && let Some(lease) = row.take_kept(tier, plan, site)
    {
        row.note(pass, Ok(()), Duration::ZERO);
        return accept_or_tell(pool, plan, tier, lease);
    }
    if let Some(books) = &row.books {
        books.wants(tier.core(), plan.tenant(), 1);
    }
    row.note_refused(plan.label.class());
    let why = tier.refusal(tier.caller(site, plan.label));
    row.note(pass.or_else(|| row.try_pass().ok().flatten()), Err(why), Duration::ZERO);
    instead(pool, plan, site, why.into())
}

/// What a request may have instead of what it was refused, or why it was.
fn instead<K: Send + 'static>(
    pool: &Pool,
    plan: &Plan,
    site: Site,
    why: RequestError,
) -> Result<Lease<K>, RequestError> {
    let lease = elsewhere(pool, plan, site).ok_or_else(|| pool.tell(plan, why))?;
    pool.note_absorbed(1);
    Ok(lease)
}

/// Where every lease passes that a tier gave to the pool. It goes back if its use cannot begin.
#[inline(always)]
fn accept<K: Send + 'static>(plan: &Plan, tier: &Tier<K>, mut lease: Lease<K>) -> Result<Lease<K>, RequestError> {
    if resource::begin(&mut *lease, plan.usage()) { Ok(lease) } else { fit(plan, tier, lease) }
}

/// The same at the end of a request, whose caller is told why.
#[inline(always)]
fn accept_or_tell<K: Send + 'static>(
    pool: &Pool,
    plan: &Plan,
    tier: &Tier<K>,
    mut lease: Lease<K>,
) -> Result<Lease<K>, RequestError> {
    if resource::begin(&mut *lease, plan.usage()) { Ok(lease) } else { fit_or_tell(pool, plan, tier, lease) }
}

#[cold]
#[inline(never)]
fn fit_or_tell<K: Send + 'static>(
    pool: &Pool,
    plan: &Plan,
    tier: &Tier<K>,
    lease: Lease<K>,
) -> Result<Lease<K>, RequestError> {
    fit(plan, tier, lease).map_err(|why| pool.tell(plan, why))
}

#[cold]
#[inline(never)]
fn fit<K: Send + 'static>(plan: &Plan, tier: &Tier<K>, mut lease: Lease<K>) -> Result<Lease<K>, RequestError> {
    resource::begin_slowly(&mut *lease, plan.usage()).map(|()| lease).map_err(|why| plan.unfit(tier, why))
}

fn elsewhere<K: Send + 'static>(pool: &Pool, plan: &Plan, site: Site) -> Option<Lease<K>> {
    let inner = &*pool.inner;
    for row in &inner.rows[inner.routes.beyond(&plan.route)] {
        if !row.is_closed() {
            continue;
        }
        let tier = row.typed::<K>()?;
        // On nobody's account until it is there: see `serve_with_care`.
        let caller = tier.caller(site, plan.unpaid());
        let Ok(paid) = Paid::new(row, plan.tenant(), 1) else {
            pool.note_absorbed(1);
            continue;
        };
        if let Some(lease) = tier.take(caller) {
            let lease = accept(plan, tier, paid.charge(lease)).ok()?;
            row.note_spilled();
            return Some(lease);
        }
        drop(paid);
        // Told to nobody: the request goes on, or is told of the refusal by the tier that fits best.
        row.note_refused(plan.label.class());
        let _ = tier.refusal(caller);
        pool.note_absorbed(1);
    }
    None
}

impl Pool {
    /// A request is refused and its caller is told: counts why, for the tier that it was routed to.
    #[cold]
    pub(super) fn tell(&self, plan: &Plan, why: RequestError) -> RequestError {
        let goes_on = plan.goes_on && matches!(why, RequestError::Tier(AllocateError::Exhausted(_)));
        if goes_on { why } else { self.tell_of(plan.route.row, plan.tenant(), why) }
    }

    /// The same where there is no plan.
    pub(super) fn tell_of(&self, row: usize, tenant: Tenant, why: RequestError) -> RequestError {
        if let Some(reason) = RefusalReason::of(&why) {
            self.inner.rows[row].counts.refusals.count(reason);
            self.inner.refusals[tenant.index()].fetch_add(1, Ordering::Relaxed);
        }
        why
    }

    /// So many refusals of tiers were not those of their request, which got something else or went on.
    pub(super) fn note_absorbed(&self, refusals: u64) {
        self.inner.absorbed.fetch_add(refusals, Ordering::Relaxed);
    }
}
