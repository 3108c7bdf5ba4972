//! Who there is: tenants, the tree they form, and what each may hold. Validated once; what is built from it cannot be wrong.

use std::collections::HashMap;

use crate::slot::label::MAX_ACCOUNTS;

/// A tenant of one pool: what its name was looked up to, once.
///
/// The default is nobody, whom no quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tenant(pub(crate) u16);

impl Tenant {
    /// Whoever did not say who it is.
    pub const NOBODY: Tenant = Tenant(0);

    /// Its number in its pool, from 1 in the order in which tenants were named; nobody's is 0.
    #[inline(always)]
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its place in arrays by tenant; nobody's is 0.
    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What quotas count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Slots of any tier.
    Slots,
    /// The bytes of those slots: each counts with its tier's slot size, whatever is used of it.
    Bytes,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Slots => "slots",
            Unit::Bytes => "bytes",
        })
    }
}

/// An upper bound on slots and on bytes, both of which hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// At most so many slots; `u64::MAX`: any number.
    pub slots: u64,
    /// At most so many bytes; `u64::MAX`: any number.
    pub bytes: u64,
}

impl Limit {
    /// No bound.
    pub const NONE: Limit = Limit { slots: u64::MAX, bytes: u64::MAX };

    /// A bound on slots alone.
    pub const fn slots(slots: u64) -> Limit {
        Limit { slots, ..Limit::NONE }
    }

    /// A bound on bytes alone.
    pub const fn bytes(bytes: u64) -> Limit {
        Limit { bytes, ..Limit::NONE }
    }

    pub(crate) fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Slots => self.slots,
            Unit::Bytes => self.bytes,
        }
    }

    /// The unit, and both numbers, by which this goes beyond another; a bound of any number goes beyond nothing.
    fn beyond(self, other: Limit) -> Option<(Unit, u64, u64)> {
        let beyond = |unit| Some((unit, self.of(unit), other.of(unit))).filter(|&(_, a, b)| a != u64::MAX && a > b);
        beyond(Unit::Slots).or_else(|| beyond(Unit::Bytes))
    }

    fn smaller(self, other: Limit) -> Limit {
        Limit { slots: self.slots.min(other.slots), bytes: self.bytes.min(other.bytes) }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Limit::NONE
    }
}

/// One tenant.
///
/// ```
/// use tierpool::{Limit, TenantRules};
///
/// let md = TenantRules::new("md").parent("desk").weight(3).hard(Limit::slots(100)).soft(Limit::slots(60));
/// assert_eq!(md.hard.slots, 100);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantRules {
    /// What requests call it.
    pub name: String,
    /// The tenant whose limits it shares, beside its own.
    pub parent: Option<String>,
    /// Its share among those who wait, in proportion to the weights of the others; 1 by default.
    pub weight: u32,
    /// What it and its children never hold more of.
    pub hard: Limit,
    /// What they hold more of only while nobody wants it who holds less than its own soft limit.
    pub soft: Limit,
}

impl From<&str> for TenantRules {
    fn from(name: &str) -> Self {
        TenantRules::new(name)
    }
}

impl TenantRules {
    /// A tenant of weight 1 without parent and limits.
    pub fn new(name: &str) -> Self {
        TenantRules { name: name.to_owned(), parent: None, weight: 1, hard: Limit::NONE, soft: Limit::NONE }
    }

    /// Makes it a child of another.
    pub fn parent(self, parent: &str) -> Self {
        TenantRules { parent: Some(parent.to_owned()), ..self }
    }

    /// Sets its weight.
    pub fn weight(self, weight: u32) -> Self {
        TenantRules { weight, ..self }
    }

    /// Sets its hard limit.
    pub fn hard(self, hard: Limit) -> Self {
        TenantRules { hard, ..self }
    }

    /// Sets its soft limit.
    pub fn soft(self, soft: Limit) -> Self {
        TenantRules { soft, ..self }
    }
}

/// All tenants of a pool, in any order.
///
/// ```
/// use tierpool::{Limit, QuotaError, QuotaRules, TenantRules};
///
/// let rules = QuotaRules::new()
///     .tenant(TenantRules::new("desk").hard(Limit::slots(100)))
///     .tenant(TenantRules::new("md").parent("desk").hard(Limit::slots(200)));
/// let error = rules.validate(Limit::slots(1000)).unwrap_err();
/// assert!(matches!(error, QuotaError::AboveParent { .. }), "{error}");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaRules {
    /// The tenants.
    pub tenants: Vec<TenantRules>,
}

/// What is wrong with the rules, and with which tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// A tenant needs a name.
    #[error("a tenant has no name: give it one")]
    NoName,
    /// There are more tenants than a [`Tenant`] can tell apart.
    #[error("{tenants} tenants are too many: a pool has {} at most", MAX_ACCOUNTS - 1)]
    TooMany {
        /// How many.
        tenants: usize,
    },
    /// Two tenants have one name.
    #[error("tenant {tenant:?} is there twice: rename one of them")]
    Duplicate {
        /// The name.
        tenant: String,
    },
    /// A tenant would never get a turn.
    #[error("tenant {tenant:?} has weight 0 and would never be served: the least is 1")]
    ZeroWeight {
        /// The name.
        tenant: String,
    },
    /// There is no tenant with that name.
    #[error("tenant {tenant:?} is to share the limits of {parent:?}, which is no tenant")]
    UnknownParent {
        /// The child.
        tenant: String,
        /// The parent that there is not.
        parent: String,
    },
    /// A tenant is its own ancestor.
    #[error("tenant {tenant:?} is its own ancestor: {path}")]
    Cycle {
        /// One of those in the cycle.
        tenant: String,
        /// The way around, child before parent.
        path: String,
    },
    /// A soft limit that could never be reached.
    #[error("tenant {tenant:?} has a soft limit of {soft} {unit} above its hard limit of {hard}")]
    SoftAboveHard {
        /// The name.
        tenant: String,
        /// What is too much.
        unit: Unit,
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// A limit that could never be reached, since the parent's comes first.
    #[error("tenant {tenant:?} may have {limit} {unit}, and its parent {parent:?} only {of_parent}")]
    AboveParent {
        /// The child.
        tenant: String,
        /// The parent, or a parent's parent.
        parent: String,
        /// What is too much.
        unit: Unit,
        /// The child's hard limit.
        limit: u64,
        /// The parent's.
        of_parent: u64,
    },
    /// A limit that could never be reached, since the pool does not have that much.
    #[error("tenant {tenant:?} may have {limit} {unit}, and the pool has only {capacity}")]
    AboveCapacity {
        /// The name.
        tenant: String,
        /// What is too much.
        unit: Unit,
        /// The tenant's hard limit.
        limit: u64,
        /// What the pool has.
        capacity: u64,
    },
}

impl QuotaError {
    /// With which tenant something is wrong.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            QuotaError::NoName | QuotaError::TooMany { .. } => None,
            QuotaError::Duplicate { tenant }
            | QuotaError::ZeroWeight { tenant }
            | QuotaError::UnknownParent { tenant, .. }
            | QuotaError::Cycle { tenant, .. }
            | QuotaError::SoftAboveHard { tenant, .. }
            | QuotaError::AboveParent { tenant, .. }
            | QuotaError::AboveCapacity { tenant, .. } => Some(tenant),
        }
    }
}

impl QuotaRules {
    /// No tenants yet.
    pub fn new() -> Self {
        QuotaRules::default()
    }

    /// One more.
    pub fn tenant(mut self, tenant: TenantRules) -> Self {
        self.tenants.push(tenant);
        self
    }

    /// Whether they fit together, and into a pool of that capacity.
    ///
    /// # Errors
    /// [`QuotaError`] for the first tenant, in their order, with which something is wrong.
    pub fn validate(&self, capacity: Limit) -> Result<(), QuotaError> {
        self.parents(capacity).map(drop)
    }

    /// The place of each tenant's parent; 0 if it has none. Places are from 1, in the order of the rules.
    pub(crate) fn parents(&self, capacity: Limit) -> Result<Vec<Tenant>, QuotaError> {
        if self.tenants.len() >= MAX_ACCOUNTS {
            return Err(QuotaError::TooMany { tenants: self.tenants.len() });
        }
        let mut places = HashMap::new();
        for (tenant, place) in self.tenants.iter().zip(1u16..) {
            let name = || tenant.name.clone();
            if tenant.name.is_empty() {
                return Err(QuotaError::NoName);
            }
            if places.insert(tenant.name.as_str(), place).is_some() {
                return Err(QuotaError::Duplicate { tenant: name() });
            }
            if tenant.weight == 0 {
                return Err(QuotaError::ZeroWeight { tenant: name() });
            }
        }
        let mut parents = Vec::with_capacity(self.tenants.len());
        for tenant in &self.tenants {
            let Some(parent) = &tenant.parent else {
                parents.push(Tenant::NOBODY);
                continue;
            };
            let unknown = || QuotaError::UnknownParent { tenant: tenant.name.clone(), parent: parent.clone() };
            parents.push(Tenant(*places.get(parent.as_str()).ok_or_else(unknown)?));
        }
        self.refuse_cycles(&parents)?;
        let limits: Vec<_> = self.tenants.iter().map(|tenant| (tenant.hard, tenant.soft)).collect();
        check_limits(&|at| &self.tenants[at - 1].name, &parents, &limits, capacity)?;
        Ok(parents)
    }

    fn refuse_cycles(&self, parents: &[Tenant]) -> Result<(), QuotaError> {
        for start in 1..=parents.len() {
            let mut way = vec![start];
            loop {
                let parent = parents[way[way.len() - 1] - 1].index();
                if parent == 0 {
                    break;
                }
                way.push(parent);
                // Everybody on the way comes up for itself: only who is in the cycle says so.
                if parent == start {
                    let names: Vec<_> = way.iter().map(|&at| self.tenants[at - 1].name.as_str()).collect();
                    let tenant = self.tenants[start - 1].name.clone();
                    return Err(QuotaError::Cycle { tenant, path: names.join(" -> ") });
                }
                if way.len() > parents.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether the hard and soft limits of all tenants fit together; for rules, and for limits that are changed later.
pub(crate) fn check_limits<'a>(
    name: &dyn Fn(usize) -> &'a str,
    parents: &[Tenant],
    limits: &[(Limit, Limit)],
    capacity: Limit,
) -> Result<(), QuotaError> {
    for at in 1..=limits.len() {
        let (hard, soft) = limits[at - 1];
        let tenant = || name(at).to_owned();
        if let Some((unit, limit, capacity)) = hard.beyond(capacity) {
            return Err(QuotaError::AboveCapacity { tenant: tenant(), unit, limit, capacity });
        }
        if let Some((unit, soft, hard)) = soft.beyond(hard) {
            return Err(QuotaError::SoftAboveHard { tenant: tenant(), unit, soft, hard });
        }
        let mut parent = parents[at - 1].index();
        let mut smallest = Limit::NONE;
        while parent != 0 {
            smallest = smallest.smaller(limits[parent - 1].0);
            if let Some((unit, limit, of_parent)) = hard.beyond(smallest) {
                let parent = name(parent).to_owned();
                return Err(QuotaError::AboveParent { tenant: tenant(), parent, unit, limit, of_parent });
            }
            parent = parents[parent - 1].index();
        }
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn refused(tenants: impl IntoIterator<Item = TenantRules>) -> QuotaError {
        let capacity = Limit { slots: 100, bytes: 1000 };
        QuotaRules { tenants: tenants.into_iter().collect() }.validate(capacity).unwrap_err()
    }

    fn named(name: &str) -> TenantRules {
        TenantRules::new(name)
    }

    #[test]
    fn rules_that_fit_name_their_parents() {
        let rules = QuotaRules::new()
            .tenant(named("md").parent("desk").hard(Limit::slots(50)).soft(Limit::slots(50)))
            .tenant(named("desk").hard(Limit { slots: 50, bytes: 1000 }))
            .tenant(named("ops").parent("md"));
        let parents = rules.parents(Limit::slots(50)).unwrap();
        assert_eq!(parents, [Tenant(2), Tenant::NOBODY, Tenant(1)]);
    }

    #[test]
    fn each_fault_names_its_tenant() {
        let name = |name: &str| name.to_owned();
        assert_eq!(refused([named("")]), QuotaError::NoName);
        assert_eq!(refused([named("a"), named("a")]), QuotaError::Duplicate { tenant: name("a") });
        assert_eq!(refused([named("a").weight(0)]), QuotaError::ZeroWeight { tenant: name("a") });
        let unknown = QuotaError::UnknownParent { tenant: name("a"), parent: name("b") };
        assert_eq!(refused([named("a").parent("b")]), unknown);
        let above = QuotaError::AboveCapacity { tenant: name("a"), unit: Unit::Bytes, limit: 1001, capacity: 1000 };
        assert_eq!(refused([named("a").hard(Limit::bytes(1001))]), above);
        let above = QuotaError::SoftAboveHard { tenant: name("a"), unit: Unit::Slots, soft: 6, hard: 5 };
        assert_eq!(refused([named("a").hard(Limit::slots(5)).soft(Limit::slots(6))]), above);
        let too_many = (0..usize::from(u16::MAX)).map(|n| named(&n.to_string()));
        assert_eq!(refused(too_many), QuotaError::TooMany { tenants: 65535 });
    }

    #[test]
    fn a_limit_above_that_of_a_parents_parent_is_refused() {
        let top = named("top").hard(Limit::slots(10));
        let error = refused([top, named("mid").parent("top"), named("low").parent("mid").hard(Limit::slots(11))]);
        let (tenant, parent) = ("low".to_owned(), "top".to_owned());
        assert_eq!(error, QuotaError::AboveParent { tenant, parent, unit: Unit::Slots, limit: 11, of_parent: 10 });
    }

    #[test]
    fn a_cycle_is_told_by_one_who_is_in_it() {
        let error = refused([named("a").parent("b"), named("b").parent("c"), named("c").parent("b")]);
        assert_eq!(error, QuotaError::Cycle { tenant: "b".to_owned(), path: "b -> c -> b".to_owned() });
        assert_eq!(error.to_string(), r#"tenant "b" is its own ancestor: b -> c -> b"#);
        assert!(matches!(refused([named("a").parent("a")]), QuotaError::Cycle { .. }));
    }
}
