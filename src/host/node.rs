//! A node: a pool under a name, how it is, and how full it was when somebody last looked.
//!
//! To count what is free is a walk over all slots, which no decision can afford. So a node keeps **gauges**: what its pool
//! [offered](NodePool::offer) at the last [`refresh`](Node::refresh), less what routers have placed on it since, and more what came back
//! of that. They are exact as long as nobody uses the pool but by way of routers, and nobody places anything while they are refreshed; else they are a good guess, which
//! is why nothing rests on them alone: to start a task is to ask the pool itself, and a router refuses only after it has refreshed.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};

use super::level::Health;
use super::offer::{Offer, TenantOffer, TierOffer};
use super::shape::Shape;
use crate::admission::tenants::Limit;
use crate::pool::Pool;
use crate::pool::error::RequestError;
use crate::pool::resource_pool::{Resource, ResourceRequest};
use crate::slot::label::CLASSES;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What a [`Node`] needs of its pool. Implemented by [`Pool`]; by an adapter for a pool of another machine.
pub trait NodePool: Send + Sync {
    /// What there is, and how much of it is free. Asked when the node is made, by [`Node::refresh`], and by a router that is about to refuse a
    /// task. The same tiers and tenants each time: what is new is not seen before a new node is made of it.
    fn offer(&self) -> Offer;

    /// A resource for each request, in their order, or none; without a wait for what others hold. Each goes back when it is dropped.
    ///
    /// An adapter hands out leases of a tier of its own, whose values stand for what the other machine has granted, and whose
    /// [`reset`](crate::TierBuilder::reset) returns it. That tier bears the name of the one that was offered: by it the router knows what of the
    /// node is taken.
    ///
    /// # Errors
    /// [`NodeError`]. Nothing is held then.
    fn take(&self, requests: &[ResourceRequest]) -> Result<Vec<Resource>, NodeError>;
}

impl NodePool for Pool {
    fn offer(&self) -> Offer {
        Offer::of(self)
    }

    fn take(&self, requests: &[ResourceRequest]) -> Result<Vec<Resource>, NodeError> {
        Ok(self.try_allocate_group_for_another(requests)?)
    }
}

/// Why a node has not taken a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Its pool has refused.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// It could not be asked.
    #[error("it cannot be asked: {0}")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
}

/// Lists nodes: the way by which those of other machines come in. Usable as `dyn`.
///
/// An adapter to a cluster store keeps a [`Node`] for each machine, with a [`NodePool`] that knows how to ask it, sets the nodes'
/// [health](Node::set_health) by what the store says, and returns the same nodes each time, so that their gauges and their health
/// last. [`TaskRouter::sync`](crate::TaskRouter::sync) takes over what it lists.
pub trait NodeSource: Send + Sync {
    /// The nodes that there are now. Their names differ; of two with one name the last one counts.
    fn nodes(&self) -> Vec<Node>;
}

impl NodeSource for [Node] {
    fn nodes(&self) -> Vec<Node> {
        self.to_vec()
    }
}

impl NodeSource for Vec<Node> {
    fn nodes(&self) -> Vec<Node> {
        self.clone()
    }
}

/// The pools of this process, each under a name: one a NUMA node, say, or one a group of cores.
#[derive(Debug, Clone, Default)]
pub struct LocalNodes {
    nodes: Vec<Node>,
}

impl LocalNodes {
    /// None yet.
    pub fn new() -> Self {
        LocalNodes::default()
    }

    /// One pool more.
    pub fn pool(mut self, name: &str, labels: &[&str], pool: &Pool) -> Self {
        self.nodes.push(Node::with_labels(name, labels.iter().copied(), pool.clone()));
        self
    }
}

impl NodeSource for LocalNodes {
    fn nodes(&self) -> Vec<Node> {
        self.nodes.clone()
    }
}

/// Somewhere tasks can run: a pool under a name. A clone is another reference to the same node.
#[derive(Clone)]
pub struct Node {
    pub(super) inner: Arc<Inner>,
}

/// A node, without keeping its pool open.
pub(super) struct WeakNode(Weak<Inner>);

impl WeakNode {
    pub(super) fn set_health(&self, health: Health) {
        if let Some(inner) = self.0.upgrade() {
            Node { inner }.set_health(health);
        }
    }
}

/// Tiers and tenants whose gauges lie beside what else a decision reads of a node.
const NEAR: usize = 2;

/// What the clones of a node share. What a decision reads stands first, in the reference count's line and the next: among thousands of
/// nodes each line is a miss, and to follow a pointer is one that cannot begin before.
#[repr(C)]
pub(super) struct Inner {
    health: AtomicU32,
    near: [Gauge; NEAR],
    near_accounts: [Account; NEAR],
    far: Box<[Gauge]>,
    far_accounts: Box<[Account]>,
    pub(super) shape: Arc<Shape>,
    pub(super) name: Box<str>,
    labels: Box<[Box<str>]>,
    pool: Box<dyn NodePool>,
}

/// How full a tier was when somebody last looked. All accesses are Relaxed: nothing rests on it.
#[derive(Default)]
pub(super) struct Gauge {
    /// Slots that a Critical request can have; as an `i32`, since what routers place may outrun what is known.
    level: AtomicU32,
    capacity: AtomicU32,
    /// How many Low, Normal and High requests leave.
    kept: [AtomicU32; CLASSES - 1],
}

/// A gauge goes no higher; no pool of this process has so many slots.
const MANY: usize = 1 << 30;

impl Gauge {
    fn set(&self, offer: Option<&TierOffer>) {
        // Far from where it would wrap: what comes back may have been placed before the last look.
        let number = |slots: usize| slots.min(MANY) as u32;
        let (capacity, free, marks) =
            offer.map_or((0, 0, Default::default()), |it| (it.capacity, it.free, it.watermarks));
        self.capacity.store(number(capacity), Ordering::Relaxed);
        self.level.store(number(free), Ordering::Relaxed);
        for (kept, mark) in self.kept.iter().zip([marks.high, marks.low, marks.min]) {
            kept.store(number(mark), Ordering::Relaxed);
        }
    }

    /// Slots of the tier.
    #[inline]
    pub(super) fn slots(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// How many of them requests of a class can have at most.
    #[inline]
    pub(super) fn capacity(&self, class: u8) -> u32 {
        self.slots().saturating_sub(self.kept(class))
    }

    /// How many are free for requests of a class.
    #[inline]
    pub(super) fn free(&self, class: u8) -> u32 {
        let level = self.level.load(Ordering::Relaxed) as i32;
        (level.max(0) as u32).saturating_sub(self.kept(class))
    }

    #[inline]
    fn kept(&self, class: u8) -> u32 {
        self.kept.get(usize::from(class)).map_or(0, |kept| kept.load(Ordering::Relaxed))
    }
}

/// What a tenant held when somebody last looked.
#[derive(Default)]
pub(super) struct Account {
    held: [AtomicU64; 2],
    hard: [AtomicU64; 2],
}

impl Account {
    fn set(&self, offer: Option<&TenantOffer>) {
        let nothing = Limit { slots: 0, bytes: 0 };
        let (held, hard) = offer.map_or((nothing, nothing), |offer| (offer.held, offer.hard));
        for (cells, limit) in [(&self.held, held), (&self.hard, hard)] {
            cells[0].store(limit.slots, Ordering::Relaxed);
            cells[1].store(limit.bytes, Ordering::Relaxed);
        }
    }

    /// What it holds, and what it may.
    #[inline]
    pub(super) fn read(&self) -> (Limit, Limit) {
        let read = |[slots, bytes]: &[AtomicU64; 2]| Limit {
            slots: slots.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        };
        let held = read(&self.held);
        // What has come back of what was held before the last look may have taken it below nothing.
        let held = Limit { slots: (held.slots as i64).max(0) as u64, bytes: (held.bytes as i64).max(0) as u64 };
        (held, read(&self.hard))
    }
}

/// What a slot that is placed on a node, or comes back, does to its gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Placed,
    Back,
}

impl Inner {
    #[inline]
    pub(super) fn gauge(&self, tier: u16) -> &Gauge {
        let tier = usize::from(tier);
        self.near.get(tier).unwrap_or_else(|| &self.far[tier - NEAR])
    }

    #[inline]
    pub(super) fn account(&self, tenant: u16) -> &Account {
        let tenant = usize::from(tenant);
        self.near_accounts.get(tenant).unwrap_or_else(|| &self.far_accounts[tenant - NEAR])
    }

    #[inline]
    pub(super) fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Relaxed))
    }

    /// A slot of a tier was placed on behalf of a tenant, or came back.
    pub(super) fn shift(&self, tier: u16, tenant: Option<u16>, shift: Shift) {
        let (level, slots) = match shift {
            Shift::Placed => (u32::MAX, 1),
            Shift::Back => (1, u64::MAX),
        };
        self.gauge(tier).level.fetch_add(level, Ordering::Relaxed);
        let price = self.shape.tiers[usize::from(tier)].price;
        for at in tenant.into_iter().flat_map(|tenant| self.shape.up(tenant)) {
            let held = &self.account(at).held;
            held[0].fetch_add(slots, Ordering::Relaxed);
            held[1].fetch_add(price.wrapping_mul(slots), Ordering::Relaxed);
        }
    }

    pub(super) fn take(&self, requests: &[ResourceRequest]) -> Result<Vec<Resource>, NodeError> {
        self.pool.take(requests)
    }

    fn set(&self, offer: &Offer) {
        for (tier, place) in self.shape.tiers.iter().zip(0..) {
            self.gauge(place).set(offer.tiers.iter().find(|it| *it.name == *tier.name));
        }
        for (tenant, place) in self.shape.tenants.iter().zip(0..) {
            self.account(place).set(offer.tenants.iter().find(|it| *it.name == *tenant.name));
        }
    }
}

impl Node {
    /// A node of that name, without labels. Asks the pool once.
    pub fn new(name: &str, pool: impl NodePool + 'static) -> Self {
        Self::with_labels(name, [], pool)
    }

    /// A node with labels: what [`Task::near`](crate::Task::near) may say.
    pub fn with_labels<'l>(
        name: &str,
        labels: impl IntoIterator<Item = &'l str>,
        pool: impl NodePool + 'static,
    ) -> Self {
        let offer = pool.offer();
        let shape = Shape::of(&offer);
        let inner = Inner {
            health: AtomicU32::new(Health::Healthy as u32),
            near: Default::default(),
            far: (NEAR..shape.tiers.len()).map(|_| Gauge::default()).collect(),
            near_accounts: Default::default(),
            far_accounts: (NEAR..shape.tenants.len()).map(|_| Account::default()).collect(),
            shape: Arc::new(shape),
            name: name.into(),
            labels: labels.into_iter().map(Box::from).collect(),
            pool: Box::new(pool),
        };
        inner.set(&offer);
        Node { inner: Arc::new(inner) }
    }

    pub(super) fn downgrade(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.inner))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.inner.labels.iter().map(|label| &**label)
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.inner.health()
    }

    /// For whoever watches it, such as a [`HealthMonitor`](crate::HealthMonitor::builder) that was told of it: says how it is. Decisions that begin after this go by it; what runs there goes on.
    pub fn set_health(&self, health: Health) {
        self.inner.health.store(health as u32, Ordering::Relaxed);
    }

    /// For whoever watches it: looks at the pool, and sets the gauges by what it has free. A pass over the headers of its tiers. Due as
    /// often as the pool is used past routers; never for a pool that is not.
    pub fn refresh(&self) {
        self.inner.set(&self.inner.pool.offer());
    }

    /// Slots of the tier of that name that a [`Critical`](crate::Priority::Critical) request could have, by the gauge.
    pub fn free(&self, tier: &str) -> Option<usize> {
        let urgent = CLASSES as u8 - 1;
        self.inner.shape.tier(tier).map(|tier| self.inner.gauge(tier).free(urgent) as usize)
    }

    pub(super) fn is(&self, other: &Node) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).field("health", &self.health()).finish_non_exhaustive()
    }
}
