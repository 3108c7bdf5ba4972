//! A pool: tiers of several sizes and kinds behind one door, and the rules for who gets what.
//!
//! Read in this order: [`request`] (what is wanted), [`route`] (which tier it goes to), [`prepared`] (how it is served, in all forms) and
//! [`future`] and [`waits`], or why it is not ([`reasons`]); [`rules`] and [`guard`] (who may have it), [`builder`], [`tiers`] and [`rows`] (what a pool is made of); on top of them [`group`], [`reservation`] and
//! [`session`]; `cache`, whose slots keep their content between uses, and [`keepers`], by which it gives them up; then who watches:
//! [`monitor`] (with [`uses`]), [`metrics`], [`observe`] (over time) with its [`history`], [`optimize`], [`levels`]; and [`resource_pool`], the same once more for code that knows no types. `config` reads a pool
//! from TOML.
//!
//! Nothing here is in the way of an allocation but what [`prepared`] shows, and nothing writes to memory that threads share, until a tier
//! refuses or somebody waits.

pub(crate) mod builder;
#[cfg(all(feature = "cache", not(loom)))]
pub(crate) mod cache;
#[cfg(feature = "config")]
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod future;
pub(crate) mod group;
mod guard;
pub(crate) mod history;
mod keepers;
pub(crate) mod levels;
pub(crate) mod metrics;
pub(crate) mod monitor;
pub(crate) mod observe;
pub(crate) mod optimize;
pub(crate) mod prepared;
pub(crate) mod reasons;
pub(crate) mod request;
pub(crate) mod reservation;
pub(crate) mod resource_pool;
pub(crate) mod route;
pub(crate) mod rows;
mod rules;
pub(crate) mod session;
pub(crate) mod tiers;
pub(crate) mod uses;
pub(crate) mod waits;

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use self::builder::PoolBuilder;
#[cfg(all(feature = "cache", not(loom)))]
use self::cache::counts::CacheSnapshot;
use self::error::{PoolError, ReleaseError, RequestError, ShortName};
use self::future::Allocation;
use self::group::{Group, GroupLeases};
use self::metrics::{LastLook, PoolMetrics};
use self::monitor::{ResourceStatus, TenantStatus};
use self::optimize::{Decision, Optimizer};
use self::prepared::{Attempt, Plan, Prepared, Wait};
use self::request::{Request, TenantName, Wants, Who};
use self::reservation::Reservation;
use self::resource_pool::BoxFuture;
use self::route::Routes;
use self::rows::Row;
use self::session::{Session, Sessions};
use self::waits::Tally;
use crate::admission::breaker::Breaker;
use crate::admission::priority::Watermarks;
use crate::admission::quota::Accounts;
use crate::admission::tenants::{Limit, QuotaError, Tenant};
use crate::admission::waits_for::WaitsFor;
use crate::error::CloseError;
use crate::slot::handle::Handle;
use crate::slot::label::{Label, Mark, Tag};
use crate::sync::fence::Fence;
use crate::sync::{AtomicU64, Ordering};
use crate::tier::census::HoldersBySite;
use crate::tier::future::Patience;
use crate::tier::leaks;
use crate::tier::lease::Lease;
use crate::tier::report::Holder;
use crate::tier::suspect::Suspect;
use crate::tier::values::rethrow;

/// Tiers of several sizes and kinds behind one door: requests are routed to the smallest tier that fits, or to the one they name.
///
/// A clone is another reference to the same pool; the tiers that it alone has close with the last. What it gives are the tiers' own
/// [`Lease`]s, which stay valid whatever becomes of the pool.
///
/// ```
/// use tierpool::{Pool, Request, Tier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let frames: Tier<Vec<u8>> = Tier::builder("frames").capacity(64).build_with(|| vec![0; 4096])?;
/// let pool = Pool::builder()
///     .memory("packets", 2 * 1024, 8192)              // name, bytes a slot, slots
///     .memory("blocks", 64 * 1024, 16)
///     .tier(frames)
///     .build()?;
///
/// let mut buffer = pool.try_allocate(Request::memory(1500))?;
/// assert_eq!((buffer.len(), buffer.capacity()), (1500, 2048));
/// buffer[0] = 1;
///
/// let (head, body) = pool.allocate_group((Request::memory(64), Request::of::<Vec<u8>>("frames")))?;
/// println!("{}", pool.monitor());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// What the clones of a pool share.
struct Inner {
    rows: Box<[Arc<Row>]>,
    routes: Routes,
    accounts: Arc<Accounts>,
    /// Refusals that were not those of their request.
    absorbed: CachePadded<AtomicU64>,
    /// What each tenant has waited for, nobody first.
    waits: Box<[Tally]>,
    /// Refusals that each tenant was told, nobody first.
    refusals: Box<[AtomicU64]>,
    last_look: LastLook,
    optimizer: Optimizer,
    sessions: Sessions,
}

/// A pool, without keeping it open.
#[derive(Clone)]
pub(crate) struct WeakPool(Weak<Inner>);

impl WeakPool {
    pub(crate) fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(|inner| Pool { inner })
    }

    /// Whether nobody has it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Pool {
    pub(crate) fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.inner))
    }

    /// Begins a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// Looks a request up once and for all; see [`Prepared`].
    ///
    /// # Errors
    /// [`RequestError`], if no tier of this pool could ever serve it.
    pub fn prepare<K: Send + 'static>(&self, request: Request<'_, K>) -> Result<Prepared<K>, RequestError> {
        Ok(Prepared::new(self, &self.try_attempt(&request)?))
    }

    /// A slot, or why there is none; never waits. The calling line is remembered as the holder.
    ///
    /// Costs some comparisons of sizes or names, and what [`Prepared::try_allocate`] costs.
    ///
    /// # Errors
    /// [`RequestError`], if no tier of this pool could ever serve it; [`RequestError::Tier`] with the refusal of the tier that it is routed
    /// to, after all that it may spill to have refused as well. A refusal allocates nothing.
    #[inline]
    #[track_caller]
    pub fn try_allocate<K: Send + 'static>(&self, request: Request<'_, K>) -> Result<Lease<K>, RequestError> {
        match self.attempt(&request) {
            Some(attempt) => attempt.try_allocate(Location::caller()),
            None => Err(self.why_not::<K>(&request.wants)),
        }
    }

    /// A slot, waiting for one if none is free: at most for the request's [`patience`](Request::patience). What the request may spill to is
    /// tried before the wait, which is for the tier that fits best.
    ///
    /// # Errors
    /// As [`try_allocate`](Self::try_allocate), and as [`Tier::allocate`](crate::Tier::allocate) in a [`RequestError::Tier`].
    #[inline]
    #[track_caller]
    pub fn allocate<K: Send + 'static>(&self, request: Request<'_, K>) -> Result<Lease<K>, RequestError> {
        let attempt = self.try_attempt(&request)?;
        attempt.allocate(Wait::at_most(attempt.plan.patience), Location::caller())
    }

    /// The same, waiting at most `patience`, whatever the request says.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[inline]
    #[track_caller]
    pub fn allocate_timeout<K: Send + 'static>(
        &self,
        request: Request<'_, K>,
        patience: Duration,
    ) -> Result<Lease<K>, RequestError> {
        self.try_attempt(&request)?.allocate(Wait::at_most(Some(patience)), Location::caller())
    }

    /// The same as a future; see [`Allocation`].
    #[track_caller]
    pub fn allocate_async<K: Send + 'static>(&self, request: Request<'_, K>) -> Allocation<'_, K> {
        let site = Location::caller();
        match self.try_attempt(&request) {
            Ok(attempt) => attempt.allocate_async(site),
            Err(why) => Allocation::refused(why),
        }
    }

    /// Gives a slot back and remembers the calling line, as [`Lease::release`]; but makes sure that it is one of this pool.
    ///
    /// # Errors
    /// [`ReleaseError`], which holds the lease, if it is not.
    ///
    /// # Panics
    /// As [`Lease::release`].
    #[track_caller]
    pub fn release<K: Send + 'static>(&self, lease: Lease<K>) -> Result<(), ReleaseError<Lease<K>>> {
        if self.row_of(lease.handle().tier()).is_none() {
            let tier = lease.tier_name();
            return Err(ReleaseError { lease, tier });
        }
        lease.release_at(Location::caller());
        Ok(())
    }

    /// Leases the slot of a handle, of whichever tier of the pool it is, as [`Tier::attach`](crate::Tier::attach). Memory is as its last
    /// holder left it.
    ///
    /// # Errors
    /// [`RequestError::ForeignHandle`], [`RequestError::OtherKind`], or why its tier has refused it. Nothing is changed then.
    pub fn attach<K: Send + 'static>(&self, handle: Handle) -> Result<Lease<K>, RequestError> {
        let row = self.row_of(handle.tier()).ok_or(RequestError::ForeignHandle { handle })?;
        let tier = row.typed::<K>().ok_or_else(|| row.other_kind::<K>())?;
        Ok(tier.attach(handle)?)
    }

    /// Releases the slot of a handle, of whichever tier of the pool it is, as [`Tier::release`](crate::Tier::release).
    ///
    /// # Errors
    /// [`RequestError::ForeignHandle`], or why its tier has refused it.
    ///
    /// # Panics
    /// As [`Lease::release`].
    #[track_caller]
    pub fn release_handle(&self, handle: Handle) -> Result<(), RequestError> {
        let site = Location::caller();
        let row = self.row_of(handle.tier()).ok_or(RequestError::ForeignHandle { handle })?;
        Ok(row.tier.release(handle, site)?)
    }

    /// A slot for each request of a [`Group`], or none; never waits.
    ///
    /// ```
    /// # use tierpool::{Pool, Request};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::builder().memory("packets", 2048, 8).memory("blocks", 65536, 8).build()?;
    /// let (head, body) = pool.try_allocate_group((Request::memory(64), Request::memory(50_000)))?;
    /// let eight = pool.try_allocate_group(vec![Request::memory(1500); 8]);
    /// assert!(eight.is_err(), "`head` has one of them; the other seven went back");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first refusal, in the order in which they are taken; what was taken before has gone back then.
    #[track_caller]
    pub fn try_allocate_group<G: Group>(&self, group: G) -> Result<GroupLeases<G>, RequestError> {
        group::block(self, group, None::<fn() -> Option<Instant>>, Location::caller())
    }

    /// The same for somebody else, to whom the caller will give what comes: the calling thread is not pinned to cores that are among it.
    #[track_caller]
    pub(crate) fn try_allocate_group_for_another<G: Group>(&self, group: G) -> Result<GroupLeases<G>, RequestError> {
        group::for_another(self, group, Location::caller())
    }

    /// A slot for each request of a [`Group`], waiting for those that are not free. Groups that wait for each other's slots do not block
    /// each other for ever: they take them in one order.
    ///
    /// Spills over only as long as it need not wait: who waits, waits for the tiers that fit best. The requests' patience is not regarded.
    /// A group that holds something else, from another call, is no part of that order.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), for the group as a whole; [`RequestError::GroupTooLarge`], if a tier could never have so many slots.
    #[track_caller]
    pub fn allocate_group<G: Group>(&self, group: G) -> Result<GroupLeases<G>, RequestError> {
        group::block(self, group, Some(|| None), Location::caller())
    }

    /// The same, waiting at most `patience` in all.
    ///
    /// # Errors
    /// As [`allocate_group`](Self::allocate_group).
    #[track_caller]
    pub fn allocate_group_timeout<G: Group>(
        &self,
        group: G,
        patience: Duration,
    ) -> Result<GroupLeases<G>, RequestError> {
        group::block(self, group, Some(|| Patience::from_now(patience).end), Location::caller())
    }

    /// The same as a future, in a box. Dropped before its end, it gives back what it has.
    #[track_caller]
    pub fn allocate_group_async<'p, G: Group + 'p>(
        &'p self,
        group: G,
    ) -> BoxFuture<'p, Result<GroupLeases<G>, RequestError>> {
        let site = Location::caller();
        match group.route(self, false) {
            Ok(attempts) => Box::pin(group::wait::<G>(self, attempts, site)),
            Err(why) => Box::pin(std::future::ready(Err(why))),
        }
    }

    /// Reserves `n` slots, or none; never waits. See [`Reservation`].
    ///
    /// Taken in bulk, from one tier: that which fits best, or the first that the request may spill to and that has so many. The line that
    /// called is shown as the holder.
    ///
    /// # Errors
    /// As [`try_allocate`](Self::try_allocate), if not all `n` could be had.
    #[track_caller]
    pub fn reserve<K: Send + 'static>(
        &self,
        request: Request<'_, K>,
        n: usize,
    ) -> Result<Reservation<K>, RequestError> {
        reservation::reserve(self, self.try_attempt(&request)?, n, None, Location::caller())
    }

    /// The same for `patience` at most: what was not drawn by then goes back in the next pass of the reclaimer, as handles do that have
    /// [expired](Lease::detach_for). What was drawn stays.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    #[track_caller]
    pub fn reserve_for<K: Send + 'static>(
        &self,
        request: Request<'_, K>,
        n: usize,
        patience: Duration,
    ) -> Result<Reservation<K>, RequestError> {
        reservation::reserve(self, self.try_attempt(&request)?, n, Some(patience), Location::caller())
    }

    /// Begins a piece of work that takes several slots and may wait for some of them: see [`Session`].
    pub fn session(&self) -> Session {
        Session::new(self)
    }

    /// Which sessions wait for which tiers (by their places in [`monitor`](Self::monitor)), and which hold slots of them.
    pub fn waits_for(&self) -> WaitsFor {
        self.inner.sessions.waits_for(&self.inner.rows)
    }

    /// The tenant of that name, to be used in requests without another look-up. A comparison with each name.
    pub fn tenant(&self, name: &str) -> Option<Tenant> {
        self.inner.accounts.tenant(name)
    }

    /// The name of a tenant; `None` for nobody, and for one of another pool that this has no number for.
    pub fn tenant_name(&self, tenant: Tenant) -> Option<&str> {
        self.inner.accounts.tenants().find(|&known| known == tenant).map(|tenant| self.inner.accounts.name(tenant))
    }

    /// What a tenant may hold from now on, it and its children together: never more than `hard`, and more than `soft` only while nobody
    /// wants it who is within his own. A limit below what is held takes effect by refusing more; nothing is taken away.
    ///
    /// # Errors
    /// [`QuotaError`], if the limits contradict each other, an ancestor's, or the pool. Nothing is changed then.
    ///
    /// # Panics
    /// If the tenant is nobody, or of another pool.
    pub fn set_quota(&self, tenant: Tenant, hard: Limit, soft: Limit) -> Result<(), QuotaError> {
        assert!(tenant != Tenant::NOBODY && self.inner.accounts.has(tenant), "`set_quota`: the pool has no {tenant:?}");
        self.inner.accounts.set_limits(tenant, hard, soft, Fence::chosen())
    }

    /// What a tenant and its children hold. Exact at a quiet point; a look at a cell for each thread and tier.
    pub fn held(&self, tenant: Tenant) -> Limit {
        self.inner.accounts.held_of_all(tenant)
    }

    /// The circuit breaker of the tier of that name, if it has one: to be told new rules, forced open, disabled, or looked at.
    pub fn breaker(&self, tier: &str) -> Option<&Breaker> {
        let row = self.inner.rows.iter().find(|row| row.tier.name() == tier)?;
        row.guard.as_ref().map(|guard| &guard.breaker)
    }

    /// What the tier of that name keeps back for urgent requests from now on. Slots that are free are set apart at once, and the
    /// others as they come back; nobody is stopped. [`optimize`](Self::optimize) does not go below them from then on.
    ///
    /// # Errors
    /// [`PoolError::Watermarks`], [`PoolError::UnknownTier`]. Nothing is changed then.
    ///
    /// # Panics
    /// If a value's `Drop` or a waiter's waker panics.
    pub fn set_watermarks(&self, tier: &str, watermarks: Watermarks) -> Result<(), PoolError> {
        let Inner { rows, optimizer, .. } = &*self.inner;
        let at = builder::check_marks(rows.iter().map(|row| &**row), tier, watermarks)?;
        optimizer.restart(at, watermarks);
        rethrow(rows[at].keep_back(watermarks).err());
        Ok(())
    }

    /// How the pool stands: each tier's slots and counters, and what each tenant holds. Its `Display` is a table of either. Stops
    /// nobody. A look at each header, and at a cell for each thread, tier and tenant.
    pub fn monitor(&self) -> ResourceStatus {
        let Inner { accounts, waits, refusals, .. } = &*self.inner;
        let status = self.status();
        let of = |tenant: Tenant| {
            let at = tenant.index();
            TenantStatus::new(accounts, tenant, &waits[at], &refusals[at], &status.tiers)
        };
        ResourceStatus { tenants: accounts.tenants().map(of).collect(), ..status }
    }

    /// How the caches of its tiers stand; see [`Cache::snapshot`](crate::Cache::snapshot). A tier that other pools use has theirs, too.
    #[cfg(all(feature = "cache", not(loom)))]
    pub fn caches(&self) -> Vec<CacheSnapshot> {
        self.inner.rows.iter().flat_map(|row| keepers::statuses(row.tier.id(), row.tier.name())).collect()
    }

    /// Who holds what, in all tiers; see [`Tier::holders`](crate::Tier::holders).
    pub fn holders(&self) -> Vec<Holder> {
        self.inner.rows.iter().flat_map(|row| row.tier.holders()).collect()
    }

    /// Who holds how much, in all tiers; see [`Tier::holders_by_site`](crate::Tier::holders_by_site).
    pub fn holders_by_site(&self) -> HoldersBySite {
        HoldersBySite::of_all(self.inner.rows.iter().map(|row| row.tier.core()))
    }

    /// The lines of which slots are held for too long, in all tiers, each with a verdict on whether that is a leak; see
    /// [`Tier::leaks`](crate::Tier::leaks).
    pub fn leaks(&self) -> Vec<Suspect> {
        self.inner.rows.iter().flat_map(|row| leaks::suspects(row.tier.core())).collect()
    }

    /// What went on since the last call of this, or since the pool was built. For several who ask independently, each at his own pace,
    /// there is [`ResourceStatus::since`].
    pub fn metrics(&self) -> PoolMetrics {
        self.inner.last_look.advance(self.status())
    }

    /// Grows and shrinks the tiers that may (those of which [`min_capacity`](crate::TierBuilder::min_capacity) was given), and raises and
    /// lowers the watermarks that may move ([`watermarks_up_to`](crate::PoolBuilder::watermarks_up_to)), by what it is told went on: usually by
    /// [`metrics`](Self::metrics), every few seconds.
    ///
    /// A tier that has refused, has waiters, or is held to more than nine tenths grows at once: to the size at which three quarters would
    /// be held, and by a quarter at least if it has refused. One that is held to less than four tenths in three calls in a row shrinks, to
    /// the same. Watermarks go up by a quarter of their range when High or Critical requests were refused, and down again when in three calls
    /// in a row, or twice as many each time that this was found wanting, only others were. Told the same again and again, it comes to
    /// rest. Every decision is returned, kept ([`decisions`](Self::decisions)), and told to
    /// [`on_decision`](crate::PoolBuilder::on_decision).
    pub fn optimize(&self, metrics: &PoolMetrics) -> Vec<Decision> {
        self.inner.optimize(metrics)
    }

    /// Memory is short: tiers that may shrink give back what is idle, down to the size at which three quarters are held; watermarks that may
    /// move go to their most; and until [`recover`](Self::recover), [`optimize`](Self::optimize) lets nothing grow. May be called again while it lasts. A
    /// [`HealthMonitor`](crate::HealthMonitor) does it by itself. Decisions are kept and told as those of `optimize`.
    pub fn relieve(&self) -> Vec<Decision> {
        self.inner.relieve()
    }

    /// Memory is short no more: watermarks go back to where they were before [`relieve`](Self::relieve), and tiers grow again as they are wanted.
    pub fn recover(&self) -> Vec<Decision> {
        self.inner.recover()
    }

    /// Gives the tier of a decision back what it had before: its size, as far as its slots are free, or its watermarks. `None` if it has it.
    pub fn undo(&self, decision: &Decision) -> Option<Decision> {
        self.inner.undo(decision)
    }

    /// The last 256 decisions of [`optimize`](Self::optimize) and [`undo`](Self::undo), the oldest first.
    pub fn decisions(&self) -> Vec<Decision> {
        self.inner.optimizer.decisions()
    }

    /// Makes a pass of the reclaimer over each tier; see [`Tier::reclaim`](crate::Tier::reclaim).
    pub fn reclaim(&self) {
        for row in &self.inner.rows {
            if row.is_kept() {
                keepers::give_up_old(row.tier.id());
            }
            row.tier.reclaim();
        }
    }

    /// Closes all tiers, those too that are used elsewhere; see [`Tier::close`](crate::Tier::close).
    ///
    /// # Panics
    /// As [`Tier::close`](crate::Tier::close), when all are closed.
    pub fn close(&self) {
        let close = |row: &Arc<Row>| catch_unwind(AssertUnwindSafe(|| row.tier.close())).err();
        let panics: Vec<_> = self.inner.rows.iter().filter_map(close).collect();
        let give_up = |row: &Arc<Row>| catch_unwind(AssertUnwindSafe(|| keepers::give_up_all(row.tier.id()))).err();
        // After all are closed: what comes to be kept from now on is given up by who would keep it.
        let kept: Vec<_> = self.inner.rows.iter().filter(|row| row.is_kept()).filter_map(give_up).collect();
        rethrow(panics.into_iter().chain(kept).next());
    }

    /// Closes all tiers, and waits at most `patience` in all until every slot has come back.
    ///
    /// # Errors
    /// [`CloseError`] of the first tier of which slots are still held. All are closed all the same.
    ///
    /// # Panics
    /// As [`close`](Self::close).
    pub fn close_and_wait(&self, patience: Duration) -> Result<(), CloseError> {
        self.close();
        let end = Patience::from_now(patience).end;
        let left = || end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        self.inner.rows.iter().try_for_each(|row| row.tier.close_and_wait(left()))
    }
}

impl Pool {
    /// How the pool stands, but for its tenants.
    fn status(&self) -> ResourceStatus {
        ResourceStatus::new(&self.inner.rows, self.waits_for(), self.inner.absorbed.load(Ordering::Relaxed))
    }

    /// What a request comes down to; `None` if this pool can never serve it, for which [`why_not`](Self::why_not) has the reason. An error in
    /// the same place would have all of it passed through memory.
    #[inline(always)]
    fn plan(&self, wants: &Wants) -> Option<Plan> {
        let route = self.inner.routes.find(wants.what, wants.spill)?;
        let tenant = self.find_tenant(wants.tenant)?;
        let tag = wants.tag.map_or(Tag::NONE, Tag::of);
        let tenant = tenant.number();
        let label = Label { mark: Mark::new(tag, wants.priority), account: tenant, tenant };
        Some(Plan { route, label, patience: wants.patience, by_thread: true, goes_on: false })
    }

    #[inline(always)]
    fn find_tenant(&self, tenant: TenantName<'_>) -> Option<Tenant> {
        match tenant.0 {
            Who::Known(tenant) => self.inner.accounts.has(tenant).then_some(tenant),
            Who::Named(name) => self.tenant(name),
        }
    }

    #[inline(always)]
    fn attempt<K: Send + 'static>(&self, request: &Request<'_, K>) -> Option<Attempt<'_, K>> {
        let plan = self.plan(&request.wants)?;
        let row = &self.inner.rows[plan.route.row];
        Some(Attempt { pool: self, row, tier: row.typed()?, plan })
    }

    /// The same for who has time.
    fn try_attempt<K: Send + 'static>(&self, request: &Request<'_, K>) -> Result<Attempt<'_, K>, RequestError> {
        self.attempt(request).ok_or_else(|| self.why_not::<K>(&request.wants))
    }

    /// Why this pool can never serve a request.
    #[cold]
    fn why_not<K: Send + 'static>(&self, wants: &Wants) -> RequestError {
        let inner = &*self.inner;
        match inner.routes.find(wants.what, wants.spill) {
            None => inner.routes.why_not(wants.what, wants.spill, &inner.rows),
            Some(_) if self.find_tenant(wants.tenant).is_none() => no_tenant(wants.tenant),
            Some(route) => inner.rows[route.row].other_kind::<K>(),
        }
    }

    /// The place of the tier with that number.
    fn row_index(&self, tier: u32) -> Option<usize> {
        self.inner.rows.iter().position(|row| row.tier.id() == tier)
    }

    /// The row of the tier with that number.
    fn row_of(&self, tier: u32) -> Option<&Row> {
        self.row_index(tier).map(|row| &*self.inner.rows[row])
    }
}

/// Why a tenant was not found.
fn no_tenant(tenant: TenantName<'_>) -> RequestError {
    match tenant.0 {
        Who::Named(name) => RequestError::NoTenant { name: ShortName::new(name) },
        Who::Known(tenant) => RequestError::ForeignTenant { tenant },
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<_> = self.inner.rows.iter().map(|row| row.tier.name()).collect();
        f.debug_struct("Pool").field("tiers", &tiers).finish_non_exhaustive()
    }
}
