//! What somebody wants of a pool. Plain data that borrows its names: making one allocates nothing.

use std::marker::PhantomData;
use std::time::Duration;

use crate::admission::priority::Priority;
use crate::admission::tenants::Tenant;
use crate::resource::cpu::Cpu;
use crate::resource::disk::Extent;
use crate::resource::memory::Memory;

/// What is wanted of a [`Pool`](crate::Pool), on whose behalf, and how badly. `K` is what the lease will hold.
///
/// ```
/// use std::time::Duration;
/// use tierpool::{Request, Spill};
///
/// let packet = Request::memory(1500).tenant("md").tag("rx").spill(Spill::NextLarger);
/// let frame = Request::of::<Vec<u8>>("frames").patience(Duration::from_millis(5));
/// ```
#[derive(Debug)]
#[must_use = "a request does nothing until a pool gets it"]
pub struct Request<'a, K> {
    pub(super) wants: Wants<'a>,
    _kind: PhantomData<fn() -> K>,
}

/// A request without its type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants<'a> {
    pub(super) what: What<'a>,
    pub(super) tenant: TenantName<'a>,
    pub(super) priority: Priority,
    pub(super) tag: Option<&'a str>,
    pub(super) patience: Option<Duration>,
    pub(super) spill: Option<Spill>,
}

/// What a request is routed by.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    /// So many bytes, of the smallest memory tier that has them.
    Bytes(usize),
    /// A core, of the first CPU tier.
    Cpu,
    /// So many bytes on disk, of the smallest disk tier that has them.
    Disk(u64),
    /// A slot of the tier of that name.
    Named(&'a str),
}

/// A tenant, by its name or as [`Pool::tenant`](crate::Pool::tenant) found it.
#[derive(Debug, Clone, Copy)]
pub struct TenantName<'a>(pub(super) Who<'a>);

#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    Known(Tenant),
    Named(&'a str),
}

impl<'a> From<&'a str> for TenantName<'a> {
    fn from(name: &'a str) -> Self {
        TenantName(Who::Named(name))
    }
}

impl From<Tenant> for TenantName<'_> {
    fn from(tenant: Tenant) -> Self {
        TenantName(Who::Known(tenant))
    }
}

/// What becomes of a request when the smallest tier that fits has no slot free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Spill {
    /// It is refused, or waits for that tier.
    #[default]
    Refuse,
    /// The larger tiers of the same kind are tried, the next one first; of CPU tiers, which have no size, those that were given after it. Each
    /// costs a refusal of its own.
    NextLarger,
    /// The system allocator serves it, as long as the pool's [`overflow`](crate::PoolBuilder::overflow) has room. Costs an allocation and
    /// zeroing, and each release a deallocation. For memory only; of cores and disk space the system has none beside: those requests are
    /// refused, or wait.
    System,
}

impl<'a, K> Request<'a, K> {
    const fn new(what: What<'a>) -> Self {
        let tenant = TenantName(Who::Known(Tenant::NOBODY));
        Request {
            wants: Wants { what, tenant, priority: Priority::Normal, tag: None, patience: None, spill: None },
            _kind: PhantomData,
        }
    }

    /// On whose behalf: a tenant's name, or what [`Pool::tenant`](crate::Pool::tenant) found. Default: nobody's.
    pub fn tenant(mut self, tenant: impl Into<TenantName<'a>>) -> Self {
        self.wants.tenant = tenant.into();
        self
    }

    /// How urgent it is. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.wants.priority = priority;
        self
    }

    /// What it is for: shown with who holds the slot, in [`Pool::holders`](crate::Pool::holders) and reports of leaks. The first 65,535 texts of
    /// a process are kept for ever. Costs a look-up in a table, once if the request is [prepared](crate::Pool::prepare).
    pub fn tag(mut self, tag: &'a str) -> Self {
        self.wants.tag = Some(tag);
        self
    }

    /// How long the forms of `allocate` that block may wait, if the call itself does not say. Default: without end. A future has no clock:
    /// put the runtime's time-out around it.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.wants.patience = Some(patience);
        self
    }

    /// What to do when the tier has no slot free. Default: the pool's [`spill`](crate::PoolBuilder::spill) for requests by size; requests
    /// by name spill only if they say so. Of values of the program's own it says nothing: there are no other tiers of them.
    pub fn spill(mut self, spill: Spill) -> Self {
        self.wants.spill = Some(spill);
        self
    }
}

impl<'a> Request<'a, Memory> {
    /// So many bytes, of the smallest memory tier whose slots have them. Zero bytes are possible, and get a slot of the smallest tier.
    pub const fn memory(bytes: usize) -> Self {
        Request::new(What::Bytes(bytes))
    }

    /// A slot of the tier of that name, which holds values of type `T`. Of a memory tier, whose `T` is [`Memory`], all its bytes.
    pub const fn of<T>(tier: &'a str) -> Request<'a, T> {
        Request::new(What::Named(tier))
    }
}

impl Request<'_, Cpu> {
    /// A core, of the first CPU tier; see [`Cpu`].
    pub const fn cpu() -> Self {
        Request::new(What::Cpu)
    }
}

impl Request<'_, Extent> {
    /// So many bytes on disk, of the smallest disk tier whose extents have them; see [`Extent`].
    pub const fn disk(bytes: u64) -> Self {
        Request::new(What::Disk(bytes))
    }
}

impl<K> Clone for Request<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Request<'_, K> {}
