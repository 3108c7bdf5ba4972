//! How full a pool is, for whom: what somebody outside needs to foresee whether a request would be served.
//!
//! A pass over the headers of all tiers, like [`monitor`](super::monitor); stops nobody, and is exact at a quiet point.

use super::Pool;
use super::request::Spill;
use super::rows::{Row, TierKind};
use crate::admission::priority::Watermarks;
use crate::admission::tenants::{Limit, Tenant};
use crate::tier::{epoch, rebuild};

/// How full a tier of a pool is.
pub(crate) struct Level {
    pub(crate) name: &'static str,
    pub(crate) kind: TierKind,
    /// What a slot counts as against limits in bytes.
    pub(crate) bytes: u64,
    /// Its place among the tiers of the process: the order in which a group takes them.
    pub(crate) order: u64,
    /// Slots that it has at most; 0 once it is closed.
    pub(crate) capacity: usize,
    /// Slots that whoever may have the last can have: free, reserved, and those that an allocation would clean, build or rebuild. Whoever waits may
    /// be served first; it may also be one who may not have the reserved ones.
    pub(crate) free: usize,
    pub(crate) watermarks: Watermarks,
}

impl Level {
    fn of(row: &Row) -> Self {
        let (now, core) = (row.tier.snapshot(), row.tier.core());
        let reserve = &core.reserve;
        let shut = row.guard.as_ref().is_some_and(|guard| guard.breaker.is_shut());
        let rebuilt = if rebuild::is_possible(core) { now.quarantined } else { 0 };
        let retired = if epoch::is_possible(core) { now.retired } else { 0 };
        let there = now.free + now.reserved + now.dirty + now.absent + rebuilt + retired;
        let mark = |class| reserve.mark(class);
        Level {
            name: row.tier.name(),
            kind: row.kind,
            bytes: row.bytes(),
            order: core.life().serial,
            capacity: if now.closed { 0 } else { now.capacity },
            free: if now.closed || shut { 0 } else { there },
            watermarks: Watermarks { high: mark(0), low: mark(1), min: mark(2) },
        }
    }
}

/// What a tenant holds of what it may.
pub(crate) struct Account {
    pub(crate) name: String,
    /// Its parent's number, from 1; 0 if it has none.
    pub(crate) parent: u16,
    pub(crate) hard: Limit,
    pub(crate) held: Limit,
}

impl Pool {
    /// Each tier, in the pool's order: memory by size, the overflow, the others.
    pub(crate) fn levels(&self) -> Vec<Level> {
        self.inner.rows.iter().map(|row| Level::of(row)).collect()
    }

    /// Each tenant, by number.
    pub(crate) fn tenant_accounts(&self) -> Vec<Account> {
        let accounts = &self.inner.accounts;
        let of = |tenant: Tenant| Account {
            name: accounts.name(tenant).to_owned(),
            parent: accounts.parent(tenant).number(),
            hard: accounts.limits(tenant).0,
            held: accounts.held_of_all(tenant),
        };
        accounts.tenants().map(of).collect()
    }

    /// What requests by size do that do not say.
    pub(crate) fn default_spill(&self) -> Spill {
        self.inner.routes.spill()
    }
}
