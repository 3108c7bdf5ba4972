//! A pool's tiers, without their types: what is done with all of them alike.
//!
//! A row owns a `Tier<T>` as `dyn AnyTier`. Who wants leases of it has its type and gets the tier back by a cast that is checked
//! ([`Row::typed`]); that happens when a request is prepared, not when it is served.

use std::any::{Any, type_name};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::Pool;
use super::error::RequestError;
use super::group::{Turn, turn};
use super::guard::Guard;
use super::keepers;
use super::prepared::{Attempt, Plan, Wait};
use super::reasons::RefusalCounts;
use super::resource_pool::{BoxFuture, Resource};
use super::rules::{Books, Paid};
use super::waits::Tally;
use crate::admission::breaker::report::BreakerOpen;
use crate::admission::breaker::{Breaker, Pass};
use crate::admission::priority::{ByPriority, Watermarks};
use crate::admission::tenants::Tenant;
use crate::error::{AllocateError, CloseError, GrowError, HandleError};
use crate::resource::region::Region;
use crate::slot::handle::Handle;
use crate::slot::header::Site;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::tier::Tier;
use crate::tier::core::{Core, flags};
use crate::tier::latency::Recorder;
use crate::tier::lease::Lease;
use crate::tier::reclaim::Reclaimed;
use crate::tier::report::{Holder, Snapshot};
use crate::tier::reserve;
use crate::tier::values::Panic;

/// A tier of a pool.
pub(super) struct Row {
    pub(super) tier: Box<dyn AnyTier>,
    pub(super) kind: TierKind,
    /// Where the bytes of a memory tier lie.
    pub(super) region: Option<Arc<Region>>,
    /// Away from what every request reads.
    pub(super) counts: CachePadded<Counts>,
    turn: OnceLock<Arc<Turn>>,
    /// What its slots are paid from, if the pool has tenants.
    pub(super) books: Option<Arc<Books>>,
    pub(super) guard: Option<Guard>,
    /// That of its factory, for the pool's status.
    pub(super) factory_breaker: Option<Arc<Breaker>>,
    /// Whether somebody keeps slots of it; once he does, for good.
    kept: AtomicBool,
    /// Whether the tier examines values before it hands them out; fixed when it was built.
    examines: bool,
}

/// What is counted of a tier's requests, of those that did not find a slot at once.
#[derive(Default)]
pub(super) struct Counts {
    /// Requests that came here because a smaller tier had refused them, and were served.
    pub(super) spilled: AtomicU64,
    /// Requests that a quota or the circuit breaker has refused before the tier was asked.
    pub(super) denied: AtomicU64,
    /// Requests that would not wait and that it has refused, those among them that were served elsewhere.
    pub(super) refused: ByPriority<AtomicU64>,
    /// Why requests that were routed to it were refused in the end.
    pub(super) refusals: RefusalCounts,
    /// What was waited for its slots.
    pub(super) waits: ByPriority<Tally>,
    /// How long each of these took.
    pub(super) wait_latency: ByPriority<Recorder>,
}

/// What a tier of a pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TierKind {
    /// Buffers of so many bytes.
    Memory {
        /// Bytes of a slot.
        bytes: usize,
    },
    /// Cores.
    Cpu,
    /// Extents of a scratch file, of so many bytes.
    Disk {
        /// Bytes of an extent.
        bytes: u64,
    },
    /// Buffers that the system allocator gave, each of the size that was requested.
    Overflow,
    /// Values of the program's own.
    Custom {
        /// Their type's name.
        type_name: &'static str,
    },
}

impl Row {
    pub(super) fn new(tier: Box<dyn AnyTier>, kind: TierKind) -> Self {
        let examines = tier.core().flags.load(Ordering::Relaxed) & flags::VALIDATES != 0;
        Row {
            tier,
            kind,
            region: None,
            counts: CachePadded::default(),
            turn: OnceLock::new(),
            books: None,
            guard: None,
            factory_breaker: None,
            kept: AtomicBool::new(false),
            examines,
        }
    }

    /// One of a tier that the pool has built.
    pub(super) fn of<T: Send + 'static>((tier, kind): (Tier<T>, TierKind)) -> Self {
        Row::new(Box::new(tier), kind)
    }

    /// What a slot counts as against limits in bytes: those of its buffer or extent, or its value's own. A core has none.
    pub(super) fn bytes(&self) -> u64 {
        match self.kind {
            TierKind::Memory { bytes } => bytes as u64,
            TierKind::Disk { bytes } => bytes,
            TierKind::Cpu | TierKind::Overflow => 0,
            TierKind::Custom { .. } => self.tier.value_bytes() as u64,
        }
    }

    /// Whether a slot that it gives up may give memory back.
    pub(super) fn takes_memory(&self) -> bool {
        matches!(self.kind, TierKind::Memory { .. } | TierKind::Custom { .. })
    }

    /// The tier, if it is one of `K`s.
    pub(super) fn typed<K: Send + 'static>(&self) -> Option<&Tier<K>> {
        let tier: &dyn Any = &*self.tier;
        tier.downcast_ref()
    }

    /// For who believed it to be one of `K`s.
    pub(super) fn other_kind<K>(&self) -> RequestError {
        RequestError::OtherKind { tier: self.tier.name(), wanted: type_name::<K>(), is: self.tier.holds() }
    }

    /// Whether all pass its circuit breaker, or it has none.
    #[inline(always)]
    pub(super) fn is_closed(&self) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.breaker.is_closed())
    }

    /// Whether a request of that tenant may ask the tier straight away: all pass the breaker, and no value that is examined is to be on
    /// anybody's account.
    #[inline(always)]
    pub(super) fn is_plain_for(&self, tenant: Tenant) -> bool {
        self.is_closed() && (tenant == Tenant::NOBODY || !self.examines)
    }

    /// From now on this is one of its [`keepers`].
    #[cfg_attr(any(loom, not(feature = "cache")), expect(dead_code, reason = "only caches keep slots"))]
    pub(super) fn add_keeper(&self, keeper: Weak<dyn keepers::Keeper>) {
        keepers::add(self.tier.id(), keeper);
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Whether it has [`keepers`].
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// A slot that its [`keepers`] have given up, if they had one that nobody used.
    #[cold]
    pub(super) fn take_kept<K: Send + 'static>(&self, tier: &Tier<K>, plan: &Plan, site: Site) -> Option<Lease<K>> {
        while keepers::give_up_one(self.tier.id()) {
            let paid = Paid::new(self, plan.tenant(), 1).ok()?;
            // On nobody's account until it is there, as whatever is not at hand.
            if let Some(lease) = tier.take(tier.caller(site, plan.unpaid())) {
                return Some(paid.charge(lease));
            }
        }
        None
    }

    /// Has the tier keep slots back. A panic in a value's `Drop` or a waiter's waker is returned.
    pub(super) fn keep_back(&self, watermarks: Watermarks) -> Result<(), Panic> {
        reserve::set_marks(self.tier.core(), watermarks.marks())
    }

    /// Lets a request pass, if there is a circuit breaker, or says why not.
    pub(super) fn try_pass(&self) -> Result<Option<Pass<'_>>, BreakerOpen> {
        self.guard.as_ref().map(|guard| guard.breaker.try_pass()).transpose()
    }

    /// The same for a request that is not to ask the tier if it may not pass.
    pub(super) fn pass(&self) -> Result<Option<Pass<'_>>, RequestError> {
        self.try_pass().map_err(|why| self.deny(RequestError::Open { tier: self.tier.name(), why }))
    }

    /// A request is refused before the tier was asked.
    pub(super) fn deny(&self, why: RequestError) -> RequestError {
        self.counts.denied.fetch_add(1, Ordering::Relaxed);
        why
    }

    /// Tells the breaker how a request ended that it let pass.
    pub(super) fn note(&self, pass: Option<Pass<'_>>, end: Result<(), AllocateError>, waited: Duration) {
        if let (Some(pass), Some(guard)) = (pass, &self.guard) {
            guard.note(self.tier.core(), pass, end, waited);
        }
    }

    /// The tier has nothing free for a request of that class, which does not wait.
    pub(super) fn note_refused(&self, class: u8) {
        self.counts.refused.of_class(class).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_spilled(&self) {
        self.counts.spilled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whose turn it is to wait for several slots of this tier.
    pub(super) fn turn(&self) -> &Turn {
        self.turn.get_or_init(|| turn(self.tier.id(), self.tier.name()))
    }
}

/// A `Tier` of any type.
pub(super) trait AnyTier: Any + Send + Sync {
    fn name(&self) -> &'static str;
    fn core(&self) -> &'static Core;
    /// Its number among the tiers of this process that exist.
    fn id(&self) -> u32;
    /// Bytes of a value, without what it points to.
    fn value_bytes(&self) -> usize;
    /// The name of the type of its values.
    fn holds(&self) -> &'static str;
    fn capacity(&self) -> usize;
    fn min_capacity(&self) -> usize;
    fn snapshot(&self) -> Snapshot;
    fn holders(&self) -> Vec<Holder>;
    fn grow_to(&self, slots: usize) -> Result<(), GrowError>;
    fn shrink_to(&self, slots: usize) -> usize;
    fn reclaim(&self) -> Reclaimed;
    fn close(&self);
    fn close_and_wait(&self, patience: Duration) -> Result<(), CloseError>;
    fn release(&self, handle: Handle, site: Site) -> Result<(), HandleError>;
    /// What the plan asks for, as a resource of any kind.
    fn allocate(&self, pool: &Pool, plan: Plan, wait: Wait, site: Site) -> Result<Resource, RequestError>;
    /// The same, as a future.
    fn allocate_async<'p>(
        &'p self,
        pool: &'p Pool,
        plan: Plan,
        site: Site,
    ) -> BoxFuture<'p, Result<Resource, RequestError>>;
}

impl<T: Send + 'static> AnyTier for Tier<T> {
    fn name(&self) -> &'static str {
        Tier::name(self)
    }

    fn core(&self) -> &'static Core {
        Tier::core(self)
    }

    fn id(&self) -> u32 {
        Tier::core(self).id
    }

    fn value_bytes(&self) -> usize {
        size_of::<T>()
    }

    fn holds(&self) -> &'static str {
        type_name::<T>()
    }

    fn capacity(&self) -> usize {
        Tier::capacity(self)
    }

    fn min_capacity(&self) -> usize {
        Tier::min_capacity(self)
    }

    fn snapshot(&self) -> Snapshot {
        Tier::snapshot(self)
    }

    fn holders(&self) -> Vec<Holder> {
        Tier::holders(self)
    }

    fn grow_to(&self, slots: usize) -> Result<(), GrowError> {
        Tier::grow_to(self, slots)
    }

    fn shrink_to(&self, slots: usize) -> usize {
        Tier::shrink_to(self, slots)
    }

    fn reclaim(&self) -> Reclaimed {
        Tier::reclaim(self)
    }

    fn close(&self) {
        Tier::close(self);
    }

    fn close_and_wait(&self, patience: Duration) -> Result<(), CloseError> {
        Tier::close_and_wait(self, patience)
    }

    fn release(&self, handle: Handle, site: Site) -> Result<(), HandleError> {
        self.attach(handle)?.release_at(site);
        Ok(())
    }

    fn allocate(&self, pool: &Pool, plan: Plan, wait: Wait, site: Site) -> Result<Resource, RequestError> {
        Attempt { pool, row: &pool.inner.rows[plan.route.row], tier: self, plan }.allocate(wait, site).map(Resource::of)
    }

    fn allocate_async<'p>(
        &'p self,
        pool: &'p Pool,
        plan: Plan,
        site: Site,
    ) -> BoxFuture<'p, Result<Resource, RequestError>> {
        let attempt = Attempt { pool, row: &pool.inner.rows[plan.route.row], tier: self, plan };
        Box::pin(async move { attempt.allocate_async(site).await.map(Resource::of) })
    }
}
