//! What a node has, and how much of it is free: plain data, whoever fills it in.

use std::borrow::Cow;

use crate::admission::priority::Watermarks;
use crate::admission::tenants::Limit;
use crate::pool::Pool;
use crate::pool::request::Spill;
use crate::pool::rows::TierKind;

/// What a node has, and how much of it is free, at some moment.
///
/// Requests are routed among its tiers as a [`Pool`] does it: by size to the smallest memory tier that fits, by name to the tier of that
/// name, and from there to where they may spill.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Offer {
    /// Its tiers, in any order.
    pub tiers: Vec<TierOffer>,
    /// Its tenants. A parent comes before or after its children.
    pub tenants: Vec<TenantOffer>,
    /// What requests by size do that do not say.
    pub spill: Spill,
}

/// What a tier of a node has.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierOffer {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it holds.
    pub kind: TierKind,
    /// What a slot counts as against a tenant's limit in bytes.
    pub bytes: u64,
    /// Slots that it has at most.
    pub capacity: usize,
    /// Slots that are free, the reserved ones among them: what a [`Critical`](crate::Priority::Critical) request can have.
    pub free: usize,
    /// How many of those it keeps back from whom.
    pub watermarks: Watermarks,
    /// Tiers with smaller numbers are taken from first.
    pub order: u64,
}

/// What a tenant of a node may hold there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TenantOffer {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The name of the tenant whose limits it shares, beside its own.
    pub parent: Option<Cow<'static, str>>,
    /// What it and its children never hold more of.
    pub hard: Limit,
    /// What they hold.
    pub held: Limit,
}

impl Offer {
    /// These tiers, and no tenants.
    pub fn new(tiers: impl IntoIterator<Item = TierOffer>) -> Self {
        Offer { tiers: tiers.into_iter().collect(), ..Offer::default() }
    }

    /// One tenant more.
    pub fn tenant(mut self, tenant: TenantOffer) -> Self {
        self.tenants.push(tenant);
        self
    }

    /// What a pool has. A pass over the headers of its tiers; exact at a quiet point.
    pub(super) fn of(pool: &Pool) -> Self {
        let tiers = pool.levels().into_iter().map(|level| TierOffer {
            name: level.name.into(),
            kind: level.kind,
            bytes: level.bytes,
            capacity: level.capacity,
            free: level.free,
            watermarks: level.watermarks,
            order: level.order,
        });
        let accounts = pool.tenant_accounts();
        let name = |number: u16| accounts.get(usize::from(number).checked_sub(1)?).map(|it| it.name.clone().into());
        let tenants = accounts.iter().map(|account| TenantOffer {
            name: account.name.clone().into(),
            parent: name(account.parent),
            hard: account.hard,
            held: account.held,
        });
        Offer { tiers: tiers.collect(), tenants: tenants.collect(), spill: pool.default_spill() }
    }
}

impl TierOffer {
    /// A tier of buffers of so many bytes, of which so many are free, and which keeps none back.
    pub fn memory(name: impl Into<Cow<'static, str>>, bytes: usize, capacity: usize, free: usize) -> Self {
        Self::new(name.into(), TierKind::Memory { bytes }, bytes as u64, capacity, free)
    }

    /// A tier of cores, likewise.
    pub fn cpu(name: impl Into<Cow<'static, str>>, capacity: usize, free: usize) -> Self {
        Self::new(name.into(), TierKind::Cpu, 0, capacity, free)
    }

    /// A tier of disk space of so many bytes a slot, likewise.
    pub fn disk(name: impl Into<Cow<'static, str>>, bytes: u64, capacity: usize, free: usize) -> Self {
        Self::new(name.into(), TierKind::Disk { bytes }, bytes, capacity, free)
    }

    /// A tier of values that this program has no type for.
    pub fn of(name: impl Into<Cow<'static, str>>, capacity: usize, free: usize) -> Self {
        Self::new(name.into(), TierKind::Custom { type_name: "?" }, 0, capacity, free)
    }

    fn new(name: Cow<'static, str>, kind: TierKind, bytes: u64, capacity: usize, free: usize) -> Self {
        TierOffer { name, kind, bytes, capacity, free, watermarks: Watermarks::default(), order: 0 }
    }

    /// Has it keep slots back.
    pub fn watermarks(self, watermarks: Watermarks) -> Self {
        TierOffer { watermarks, ..self }
    }
}

impl TenantOffer {
    /// A tenant without parent and limits that holds nothing.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let held = Limit { slots: 0, bytes: 0 };
        TenantOffer { name: name.into(), parent: None, hard: Limit::NONE, held }
    }

    /// What it holds, of what it may.
    pub fn holds(self, held: Limit, hard: Limit) -> Self {
        TenantOffer { held, hard, ..self }
    }

    /// Makes it a child of another.
    pub fn parent(self, parent: impl Into<Cow<'static, str>>) -> Self {
        TenantOffer { parent: Some(parent.into()), ..self }
    }
}
