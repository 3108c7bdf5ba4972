//! One dynamic interface for code that does not know what kinds of resource there are, or which pool gives them.
//!
//! What it costs beside the typed calls: a look-up by name or size in each call, and for values of the program's own a box.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use super::Pool;
use super::error::{ReleaseError, RequestError};
use super::metrics::PoolMetrics;
use super::monitor::ResourceStatus;
use super::optimize::Decision;
use super::prepared::{Plan, Wait};
use super::request::{Spill, TenantName, Wants, What, Who};
use crate::admission::priority::Priority;
use crate::admission::tenants::Tenant;
use crate::resource::cpu::Cpu;
use crate::resource::disk::Extent;
use crate::resource::memory::Memory;
use crate::slot::header::Site;
use crate::tier::lease::Lease;

/// A future in a box, as traits need it that are used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What gives resources on request and takes them back, whatever they are. Implemented by [`Pool`].
///
/// ```
/// use tierpool::{Pool, Resource, ResourcePool, ResourceRequest};
///
/// fn serve(pool: &dyn ResourcePool) -> Result<(), Box<dyn std::error::Error>> {
///     let resource = pool.allocate(&ResourceRequest::memory(1500))?;
///     if let Resource::Memory(memory) = &resource {
///         assert_eq!(memory.len(), 1500);
///     }
///     pool.release(resource)?;
///     println!("{}", pool.monitor());
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// serve(&Pool::builder().memory("packets", 2048, 16).build()?)
/// # }
/// ```
pub trait ResourcePool: Send + Sync {
    /// A resource, waiting for it as long as the request says. The line that made the request is remembered as the holder.
    ///
    /// # Errors
    /// [`RequestError`].
    fn allocate(&self, request: &ResourceRequest) -> Result<Resource, RequestError>;

    /// Gives a resource back.
    ///
    /// # Errors
    /// [`ReleaseError`], which holds the resource, if it is of another pool.
    fn release(&self, resource: Resource) -> Result<(), ReleaseError<Resource>>;

    /// Adapts the pool to what it is told went on; says what was done.
    fn optimize(&self, metrics: &PoolMetrics) -> Vec<Decision>;

    /// How the pool stands.
    fn monitor(&self) -> ResourceStatus;
}

/// The same for code that must not block: [`ResourcePool`], with a future for what may wait.
///
/// Needs no runtime, and can be used as `dyn`. A future that is dropped before its end has taken nothing.
pub trait AsyncResourcePool: Send + Sync {
    /// A resource, when there is one. The request's patience is not regarded: put a time-out around the future.
    ///
    /// # Errors
    /// [`RequestError`].
    fn allocate<'a>(&'a self, request: &'a ResourceRequest) -> BoxFuture<'a, Result<Resource, RequestError>>;

    /// Gives a resource back; a pool of this process does it in the first poll.
    ///
    /// # Errors
    /// [`ReleaseError`], which holds the resource, if it is of another pool.
    fn release(&self, resource: Resource) -> BoxFuture<'_, Result<(), ReleaseError<Resource>>>;

    /// Adapts the pool to what it is told went on; says what was done.
    fn optimize<'a>(&'a self, metrics: &'a PoolMetrics) -> BoxFuture<'a, Vec<Decision>>;

    /// How the pool stands.
    fn monitor(&self) -> BoxFuture<'_, ResourceStatus>;
}

/// A request whose kind is known only when the program runs. Owns its names, unless they are constants.
#[derive(Debug, Clone)]
pub struct ResourceRequest {
    what: Kind,
    tenant: Option<Cow<'static, str>>,
    priority: Priority,
    tag: Option<Cow<'static, str>>,
    patience: Option<Duration>,
    spill: Option<Spill>,
    site: Site,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Memory { bytes: usize },
    Cpu,
    Disk { bytes: u64 },
    Of { tier: Cow<'static, str> },
}

impl ResourceRequest {
    #[track_caller]
    fn new(what: Kind) -> Self {
        let (priority, site) = (Priority::Normal, Location::caller());
        ResourceRequest { what, tenant: None, priority, tag: None, patience: None, spill: None, site }
    }

    /// So many bytes; see [`Request::memory`](crate::Request::memory).
    #[track_caller]
    pub fn memory(bytes: usize) -> Self {
        Self::new(Kind::Memory { bytes })
    }

    /// A core; see [`Request::cpu`](crate::Request::cpu).
    #[track_caller]
    pub fn cpu() -> Self {
        Self::new(Kind::Cpu)
    }

    /// So many bytes on disk; see [`Request::disk`](crate::Request::disk).
    #[track_caller]
    pub fn disk(bytes: u64) -> Self {
        Self::new(Kind::Disk { bytes })
    }

    /// A slot of the tier of that name; see [`Request::of`](crate::Request::of).
    #[track_caller]
    pub fn of(tier: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Of { tier: tier.into() })
    }

    /// On whose behalf: a tenant's name. Default: nobody's.
    pub fn tenant(mut self, tenant: impl Into<Cow<'static, str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// How urgent it is. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// What it is for; see [`Request::tag`](crate::Request::tag).
    pub fn tag(mut self, tag: impl Into<Cow<'static, str>>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// How long to wait; zero for not at all. Default: without end.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// What to do when the tier has no slot free; see [`Request::spill`](crate::Request::spill). Of values of the program's own it says
    /// nothing: there are no other tiers of them.
    pub fn spill(mut self, spill: Spill) -> Self {
        self.spill = Some(spill);
        self
    }

    /// What is wanted.
    pub fn wanted(&self) -> Wanted<'_> {
        match &self.what {
            Kind::Memory { bytes } => Wanted::Bytes(*bytes),
            Kind::Cpu => Wanted::Cpu,
            Kind::Disk { bytes } => Wanted::DiskBytes(*bytes),
            Kind::Of { tier } => Wanted::SlotOf(tier),
        }
    }

    /// The name of the tenant on whose behalf it is; `None` for nobody's.
    pub fn on_behalf_of(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// How urgent it is.
    pub fn urgency(&self) -> Priority {
        self.priority
    }

    /// What it does when the tier has no slot free, if it says so.
    pub fn spills(&self) -> Option<Spill> {
        self.spill
    }

    /// The same, on behalf of that tenant, and so urgent.
    pub(crate) fn on_terms_of(self, tenant: Option<Cow<'static, str>>, priority: Priority) -> Self {
        ResourceRequest { tenant, priority, ..self }
    }

    pub(super) fn site(&self) -> Site {
        self.site
    }

    pub(super) fn wants(&self) -> Wants<'_> {
        let what = match &self.what {
            Kind::Memory { bytes } => What::Bytes(*bytes),
            Kind::Cpu => What::Cpu,
            Kind::Disk { bytes } => What::Disk(*bytes),
            Kind::Of { tier } => What::Named(tier),
        };
        let tenant = TenantName(self.tenant.as_deref().map_or(Who::Known(Tenant::NOBODY), Who::Named));
        let (priority, tag) = (self.priority, self.tag.as_deref());
        Wants { what, tenant, priority, tag, patience: self.patience, spill: self.spill }
    }
}

/// What a [`ResourceRequest`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted<'a> {
    /// So many bytes.
    Bytes(usize),
    /// A core.
    Cpu,
    /// So many bytes on disk.
    DiskBytes(u64),
    /// A slot of the tier of that name.
    SlotOf(&'a str),
}

/// Something that a pool has given, of whatever kind; goes back when dropped.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "a resource that is dropped at once is given back at once"]
pub enum Resource {
    /// Bytes.
    Memory(Lease<Memory>),
    /// A core.
    Cpu(Lease<Cpu>),
    /// Bytes on disk.
    Disk(Lease<Extent>),
    /// A value of the program's own.
    Custom(CustomLease),
}

impl Resource {
    /// Any lease, as a resource.
    pub(super) fn of<K: Send + 'static>(lease: Lease<K>) -> Self {
        let mut lease = Some(lease);
        let any: &mut dyn Any = &mut lease;
        if let Some(memory) = taken::<Memory>(any) {
            Resource::Memory(memory)
        } else if let Some(cpu) = taken::<Cpu>(any) {
            Resource::Cpu(cpu)
        } else if let Some(extent) = taken::<Extent>(any) {
            Resource::Disk(extent)
        } else {
            // Still there, as it is none of these.
            Resource::Custom(CustomLease(Box::new(lease)))
        }
    }

    /// The name of the tier that it is of.
    pub fn tier_name(&self) -> &'static str {
        match self {
            Resource::Memory(lease) => lease.tier_name(),
            Resource::Cpu(lease) => lease.tier_name(),
            Resource::Disk(lease) => lease.tier_name(),
            Resource::Custom(lease) => lease.0.tier_name(),
        }
    }

    fn tier(&self) -> u32 {
        match self {
            Resource::Memory(lease) => lease.handle().tier(),
            Resource::Cpu(lease) => lease.handle().tier(),
            Resource::Disk(lease) => lease.handle().tier(),
            Resource::Custom(lease) => lease.0.tier(),
        }
    }

    fn release(self, site: Site) {
        match self {
            Resource::Memory(lease) => lease.release_at(site),
            Resource::Cpu(lease) => lease.release_at(site),
            Resource::Disk(lease) => lease.release_at(site),
            Resource::Custom(mut lease) => lease.0.release(site),
        }
    }
}

/// The lease in an `Option` of one, if it is of `K`s.
fn taken<K: 'static>(lease: &mut dyn Any) -> Option<Lease<K>> {
    lease.downcast_mut::<Option<Lease<K>>>().and_then(Option::take)
}

impl<K: Send + 'static> From<Lease<K>> for Resource {
    fn from(lease: Lease<K>) -> Self {
        Resource::of(lease)
    }
}

/// A lease of a type that is known again only to whoever asks for it: [`downcast`](Self::downcast).
pub struct CustomLease(Box<dyn AnyLease>);

impl CustomLease {
    /// The lease, if it is one of `K`s; else the same again.
    ///
    /// # Errors
    /// Itself, if its values are of another type.
    pub fn downcast<K: Send + 'static>(mut self) -> Result<Lease<K>, Self> {
        let any: &mut dyn Any = &mut *self.0;
        taken(any).ok_or(self)
    }

    /// The value, if it is a `K`.
    pub fn get<K: Send + 'static>(&self) -> Option<&K> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref::<Option<Lease<K>>>()?.as_deref()
    }

    /// The value, to be changed, if it is a `K`.
    pub fn get_mut<K: Send + 'static>(&mut self) -> Option<&mut K> {
        let any: &mut dyn Any = &mut *self.0;
        any.downcast_mut::<Option<Lease<K>>>()?.as_deref_mut()
    }
}

impl fmt::Debug for CustomLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomLease").field("tier", &self.0.tier_name()).finish_non_exhaustive()
    }
}

/// `Some` lease of any type; `None` only while it is being taken out.
trait AnyLease: Any + Send {
    fn tier_name(&self) -> &'static str;
    fn tier(&self) -> u32;
    fn release(&mut self, site: Site);
}

impl<K: Send + 'static> AnyLease for Option<Lease<K>> {
    fn tier_name(&self) -> &'static str {
        self.as_ref().map_or("", Lease::tier_name)
    }

    fn tier(&self) -> u32 {
        self.as_ref().map_or(u32::MAX, |lease| lease.handle().tier())
    }

    fn release(&mut self, site: Site) {
        if let Some(lease) = self.take() {
            lease.release_at(site);
        }
    }
}

impl Pool {
    pub(super) fn plan_of(&self, request: &ResourceRequest) -> Result<Plan, RequestError> {
        self.plan(&request.wants()).ok_or_else(|| self.why_not::<Memory>(&request.wants()))
    }

    fn release_resource(&self, resource: Resource, site: Site) -> Result<(), ReleaseError<Resource>> {
        if self.row_of(resource.tier()).is_none() {
            let tier = resource.tier_name();
            return Err(ReleaseError { lease: resource, tier });
        }
        resource.release(site);
        Ok(())
    }
}

impl ResourcePool for Pool {
    fn allocate(&self, request: &ResourceRequest) -> Result<Resource, RequestError> {
        let plan = self.plan_of(request)?;
        let tier = &self.inner.rows[plan.route.row].tier;
        tier.allocate(self, plan, Wait::at_most(plan.patience), request.site)
    }

    #[track_caller]
    fn release(&self, resource: Resource) -> Result<(), ReleaseError<Resource>> {
        self.release_resource(resource, Location::caller())
    }

    fn optimize(&self, metrics: &PoolMetrics) -> Vec<Decision> {
        Pool::optimize(self, metrics)
    }

    fn monitor(&self) -> ResourceStatus {
        Pool::monitor(self)
    }
}

impl AsyncResourcePool for Pool {
    fn allocate<'a>(&'a self, request: &'a ResourceRequest) -> BoxFuture<'a, Result<Resource, RequestError>> {
        match self.plan(&request.wants()) {
            Some(plan) => self.inner.rows[plan.route.row].tier.allocate_async(self, plan, request.site),
            None => Box::pin(std::future::ready(Err(self.why_not::<Memory>(&request.wants())))),
        }
    }

    #[track_caller]
    fn release(&self, resource: Resource) -> BoxFuture<'_, Result<(), ReleaseError<Resource>>> {
        let site = Location::caller();
        Box::pin(async move { self.release_resource(resource, site) })
    }

    fn optimize<'a>(&'a self, metrics: &'a PoolMetrics) -> BoxFuture<'a, Vec<Decision>> {
        Box::pin(async move { Pool::optimize(self, metrics) })
    }

    fn monitor(&self) -> BoxFuture<'_, ResourceStatus> {
        Box::pin(async move { Pool::monitor(self) })
    }
}
