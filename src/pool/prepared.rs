//! Serving a request: the tier it was routed to, then those it may spill to; without a wait, or with one.
//!
//! [`Prepared`] has looked up everything there is to look up, so what is left of [`try_allocate`](Prepared::try_allocate) is the tier's own
//! and, for memory, a comparison and two stores. All forms of allocation of all callers go through [`Attempt`]: rules that decide who
//! gets what have their place in it, and what they need to know, in [`Plan`].

use std::any::Any;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::Pool;
use super::error::RequestError;
use super::future::Allocation;
use super::guard::Guard;
use super::route::Route;
use super::rules::Paid;
use crate::admission::breaker::Pass;
use crate::admission::tenants::Tenant;
use crate::error::AllocateError;
use crate::resource::memory::{Memory, NoMemory};
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::Ordering;
use crate::tier::Tier;
use crate::tier::core::{Core, flags};
use crate::tier::future::Allocate;
use crate::tier::lease::Lease;

/// What a request came down to.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub(super) route: Route,
    pub(super) tenant: Tenant,
    pub(super) label: Label,
    /// Whether the tier has a circuit breaker.
    pub(super) guarded: bool,
    pub(super) patience: Option<Duration>,
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
    plan: Plan,
    pool: Pool,
}

impl<K: Send + 'static> Prepared<K> {
    pub(super) fn new(pool: &Pool, attempt: &Attempt<'_, K>) -> Self {
        Prepared { tier: attempt.tier.clone(), plan: attempt.plan, pool: pool.clone() }
    }

    #[inline(always)]
    fn attempt(&self) -> Attempt<'_, K> {
        Attempt { pool: &self.pool, tier: &self.tier, plan: self.plan }
    }

    /// A slot, or why there is none; never waits. The calling line is remembered as the holder.
    ///
    /// # Errors
    /// [`RequestError::Tier`] with the refusal of the tier that the request is routed to, after all tiers that it may spill to have
    /// refused as well. A refusal allocates nothing.
    #[inline(always)]
    #[track_caller]
    pub fn try_allocate(&self) -> Result<Lease<K>, RequestError> {
        serve(&self.pool, &self.tier, &self.plan, Location::caller())
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
        self.plan.tenant
    }
}

impl<K: Send + 'static> Clone for Prepared<K> {
    fn clone(&self) -> Self {
        Prepared { tier: self.tier.clone(), plan: self.plan, pool: self.pool.clone() }
    }
}

impl<K: Send + 'static> fmt::Debug for Prepared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("tier", &self.tier_name())
            .field("tenant", &self.plan.tenant)
            .finish_non_exhaustive()
    }
}

/// A request on its way.
pub struct Attempt<'p, K: Send + 'static> {
    pub(super) pool: &'p Pool,
    /// That of the plan's row.
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
        serve(self.pool, self.tier, &self.plan, site)
    }

    #[inline]
    pub(super) fn allocate(&self, wait: Wait, site: Site) -> Result<Lease<K>, RequestError> {
        let Wait::For(patience) = wait else { return self.try_allocate(site) };
        let pass = match self.pass() {
            Ok(pass) => pass,
            Err(why) => return self.elsewhere(site).ok_or(why),
        };
        let paid = self.pay(site)?;
        let mut allocate = Allocate::new(self.tier, site, self.plan.label);
        match allocate.at_once() {
            Some(lease) => {
                self.note(pass, Ok(()), Duration::ZERO);
                self.accept(Paid::charge(paid, lease))
            }
            None => self.wait_for(allocate, (pass, paid), patience, site),
        }
    }

    /// Lets the request pass, if the tier has a circuit breaker.
    pub(super) fn pass(&self) -> Result<Option<Pass<'p>>, RequestError> {
        let guard = self.pool.inner.rows[self.plan.route.row].guard.as_ref();
        let pass = guard.map(Guard::pass).transpose();
        pass.map_err(|why| RequestError::Open { tier: self.tier.name(), why })
    }

    /// Tells the breaker how it ended.
    pub(super) fn note(&self, pass: Option<Pass<'p>>, end: Result<(), AllocateError>, waited: Duration) {
        if let (Some(pass), Some(guard)) = (pass, &self.pool.inner.rows[self.plan.route.row].guard) {
            guard.note(self.tier.core(), pass, end, waited);
        }
    }

    /// Pays for a slot to come, on behalf of the tenant if there is one.
    pub(super) fn pay(&self, site: Site) -> Result<Option<Paid<'p>>, RequestError> {
        let Some(books) = self.pool.inner.rows[self.plan.route.row].books(self.plan.tenant) else { return Ok(None) };
        Paid::new(books, self.tier.core(), &self.tier.caller(site, self.plan.label), self.plan.tenant, 1).map(Some)
    }

    pub(super) fn allocate_async(&self, site: Site) -> Allocation<'p, K> {
        Allocation::new(*self, site)
    }

    #[cold]
    #[inline(never)]
    fn wait_for(
        &self,
        allocate: Allocate<'p, K>,
        (pass, paid): (Option<Pass<'p>>, Option<Paid<'p>>),
        patience: Option<Duration>,
        site: Site,
    ) -> Result<Lease<K>, RequestError> {
        if let Some(lease) = self.elsewhere(site) {
            return Ok(lease);
        }
        if let Some(paid) = &paid {
            paid.wants();
        }
        let start = Instant::now();
        let outcome = allocate.wait_for(patience);
        let waited = start.elapsed();
        if outcome.is_ok() {
            self.pool.note_waited(waited);
        }
        self.note(pass, outcome.as_ref().map(drop).map_err(|&why| why), waited);
        self.accept(Paid::charge(paid, outcome?))
    }

    /// What the request may have instead, if there is any of that.
    pub(super) fn elsewhere(&self, site: Site) -> Option<Lease<K>> {
        elsewhere(self.pool, &self.plan, site)
    }

    /// Where every lease passes that a tier gave to the pool.
    pub(super) fn accept(&self, lease: Lease<K>) -> Result<Lease<K>, RequestError> {
        accept(&self.plan, lease).ok_or(self.plan.no_memory())
    }
}

// What follows takes the parts of an attempt one by one: as a whole it would have to lie in memory, and be written there, on the way of
// every allocation, for the sake of the one that is refused.

/// A slot for a plan, without a wait. The hot path: the tier's own, and [`accept`].
#[inline(always)]
fn serve<K: Send + 'static>(pool: &Pool, tier: &Tier<K>, plan: &Plan, site: Site) -> Result<Lease<K>, RequestError> {
    if plan.guarded && !is_closed(pool, plan) {
        return serve_on_trial(pool, tier, plan, site);
    }
    serve_unguarded(pool, tier, plan, site)
}

/// Whether all pass the breaker of the plan's tier.
#[inline(always)]
fn is_closed(pool: &Pool, plan: &Plan) -> bool {
    pool.inner.rows[plan.route.row].guard.as_ref().is_none_or(|guard| guard.breaker.is_closed())
}

/// The same when the breaker of the tier is not closed.
#[cold]
#[inline(never)]
fn serve_on_trial<K: Send + 'static>(
    pool: &Pool,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
) -> Result<Lease<K>, RequestError> {
    let row = &pool.inner.rows[plan.route.row];
    let Some(guard) = &row.guard else { return serve_unguarded(pool, tier, plan, site) };
    let pass = match guard.pass() {
        Ok(pass) => pass,
        Err(why) => return elsewhere(pool, plan, site).ok_or(RequestError::Open { tier: tier.name(), why }),
    };
    // On nobody's account until it is there: see `serve_examined`.
    let paid = Attempt { pool, tier, plan: *plan }.pay(site)?;
    match tier.take(tier.caller(site, Label { account: 0, ..plan.label })) {
        Some(lease) => {
            guard.note(tier.core(), pass, Ok(()), Duration::ZERO);
            accept(plan, Paid::charge(paid, lease)).ok_or(plan.no_memory())
        }
        None => {
            std::mem::forget(paid); // `refuse` gives it back
            refuse(pool, tier, plan, site, Some(pass))
        }
    }
}

/// The tier's own, for who may ask it.
#[inline(always)]
fn serve_unguarded<K: Send + 'static>(
    pool: &Pool,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
) -> Result<Lease<K>, RequestError> {
    // Leases come back in registers, as `Option`s, and reasons are asked for: a call that returned either would pass the lease of the
    // hot path, too, through memory.
    let caller = tier.caller(site, plan.label);
    if plan.tenant != Tenant::NOBODY
        && let Some(books) = &pool.inner.rows[plan.route.row].books
    {
        if tier.core().flags.load(Ordering::Relaxed) & flags::VALIDATES != 0 {
            return serve_examined(pool, tier, plan, site);
        }
        if let Err(refused) = books.pay(tier.core(), &caller, plan.tenant, 1) {
            return Err(books.why(refused));
        }
    }
    let paying = Paying { pool, core: tier.core(), plan };
    let taken = tier.take(caller);
    std::mem::forget(paying);
    match taken {
        Some(lease) => accept(plan, lease).ok_or(plan.no_memory()),
        None => refuse(pool, tier, plan, site, None),
    }
}

/// What was paid before the tier was asked, and goes back if that panics, in the waker of another.
struct Paying<'a> {
    pool: &'a Pool,
    core: &'static Core,
    plan: &'a Plan,
}

impl Drop for Paying<'_> {
    #[cold]
    fn drop(&mut self) {
        if let Some(books) = self.pool.inner.rows[self.plan.route.row].books(self.plan.tenant) {
            books.unpay(self.core, self.plan.tenant, 1);
        }
    }
}

/// The same on behalf of a tenant, where values are examined: a slot whose value does not pass leaves the tier's hands, and with it would
/// give back what was paid. So what comes is on nobody's account until it has passed.
#[cold]
#[inline(never)]
fn serve_examined<K: Send + 'static>(
    pool: &Pool,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
) -> Result<Lease<K>, RequestError> {
    let paid = Attempt { pool, tier, plan: *plan }.pay(site)?;
    match tier.take(tier.caller(site, Label { account: 0, ..plan.label })) {
        Some(lease) => accept(plan, Paid::charge(paid, lease)).ok_or(plan.no_memory()),
        None => {
            std::mem::forget(paid); // `refuse` gives it back
            refuse(pool, tier, plan, site, None)
        }
    }
}

/// After the tier that fits best has none, for a request that was let pass on trial, or because the breaker was closed.
#[cold]
#[inline(never)]
fn refuse<K: Send + 'static>(
    pool: &Pool,
    tier: &Tier<K>,
    plan: &Plan,
    site: Site,
    pass: Option<Pass<'_>>,
) -> Result<Lease<K>, RequestError> {
    let row = &pool.inner.rows[plan.route.row];
    if let Some(books) = row.books(plan.tenant) {
        books.unpay(tier.core(), plan.tenant, 1);
        books.wants(tier.core(), plan.tenant);
    }
    let why = tier.refusal(tier.caller(site, plan.label));
    if let Some(guard) = &row.guard
        && let Some(pass) = pass.or_else(|| guard.pass().ok())
    {
        guard.note(tier.core(), pass, Err(why), Duration::ZERO);
    }
    let lease = elsewhere(pool, plan, site).ok_or(why)?;
    pool.note_absorbed(1);
    Ok(lease)
}

/// Where every lease passes that a tier gave to the pool. `None` if it was to get memory from the system, which has none.
#[inline(always)]
fn accept<K: Send + 'static>(plan: &Plan, mut lease: Lease<K>) -> Option<Lease<K>> {
    // Known when this is compiled: of other types nothing is left of it.
    let value: &mut dyn Any = &mut *lease;
    let begun =
        value.downcast_mut::<Memory>().is_none_or(|memory| memory.begin(plan.route.bytes, plan.tenant.number()));
    if begun { Some(lease) } else { fit(plan, lease) }
}

/// For memory with too few bytes: all there are if the request is by name, and else, in the overflow, as many as were requested.
#[cold]
#[inline(never)]
fn fit<K: Send + 'static>(plan: &Plan, mut lease: Lease<K>) -> Option<Lease<K>> {
    let value: &mut dyn Any = &mut *lease;
    let memory = value.downcast_mut::<Memory>()?;
    let bytes = match plan.route.bytes {
        usize::MAX => memory.capacity(),
        bytes => {
            // Its own bytes are those of the overflow's empty slots: none.
            *memory = Memory::new(bytes).ok()?;
            bytes
        }
    };
    let fits = memory.begin(bytes, plan.tenant.number());
    debug_assert!(fits, "it was made so");
    Some(lease)
}

impl Plan {
    /// Why a lease was not [accepted](accept).
    #[inline(always)]
    fn no_memory(&self) -> RequestError {
        RequestError::System(NoMemory { bytes: self.route.bytes })
    }
}

fn elsewhere<K: Send + 'static>(pool: &Pool, plan: &Plan, site: Site) -> Option<Lease<K>> {
    let inner = &*pool.inner;
    for row in &inner.rows[inner.routes.beyond(&plan.route)] {
        if row.guard.as_ref().is_some_and(|guard| !guard.breaker.is_closed()) {
            continue;
        }
        let tier = row.typed::<K>()?;
        // On nobody's account until it is there: see `serve_examined`.
        let caller = tier.caller(site, Label { account: 0, ..plan.label });
        let paid = match row.books(plan.tenant) {
            Some(books) => match Paid::new(books, tier.core(), &caller, plan.tenant, 1) {
                Ok(paid) => Some(paid),
                Err(_) => continue,
            },
            None => None,
        };
        if let Some(lease) = tier.take(caller) {
            let lease = accept(plan, Paid::charge(paid, lease))?;
            row.note_spilled();
            return Some(lease);
        }
        drop(paid);
        // Told to nobody: the request goes on, or is told of the refusal by the tier that fits best.
        let _ = tier.refusal(caller);
        pool.note_absorbed(1);
    }
    None
}

impl Pool {
    /// An allocation was served after so much time.
    pub(super) fn note_waited(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.inner.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// So many refusals of tiers were not those of their request, which got something else or went on.
    pub(super) fn note_absorbed(&self, refusals: u64) {
        self.inner.absorbed.fetch_add(refusals, Ordering::Relaxed);
    }
}
