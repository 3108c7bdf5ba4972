//! Whether a node can hold a task: what its pool would do, foreseen from the node's gauges.
//!
//! Foreseen exactly as long as the gauges are right: the same steps in the same order as a group takes them
//! ([`pool::group`](crate::pool::group)), of each tier what the priority may have, on accounts up to the hard limit. Soft limits are left to the
//! pool: whether somebody wants what is his is known there alone.

use std::cmp::Ordering;

use super::node::{Gauge, Inner};
use super::shape::{Needs, NoTier, Payer, Shape, Step};
use crate::admission::tenants::Unit;

/// What a node would have left with the task on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// Slots left in the tier, of those needed, that has the least left for its size.
    pub(super) left: u32,
    /// Slots of that tier.
    pub(super) of: u32,
    /// Bytes of memory slots that would not be used.
    pub(super) waste: u64,
}

impl Fit {
    /// For who needs nothing.
    const EMPTY: Fit = Fit { left: 1, of: 1, waste: 0 };

    /// By the share that is left.
    #[inline]
    pub(super) fn by_room(&self, other: &Fit) -> Ordering {
        let share = |one: &Fit, other: &Fit| u64::from(one.left) * u64::from(other.of);
        share(self, other).cmp(&share(other, self))
    }

    #[inline]
    fn note(&mut self, left: u32, of: u32) {
        let fit = Fit { left, of, waste: 0 };
        if fit.by_room(self).is_lt() {
            (self.left, self.of) = (left, of);
        }
    }
}

/// Why a node cannot hold a task. Small: one is made for each node that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It has nothing for one of the task's runs of requests.
    NoTier(NoTier),
    NoTenant,
    /// More slots of a tier are needed than a request of this priority can ever have.
    TooFew {
        tier: u16,
        wanted: u32,
        capacity: u32,
    },
    /// Not so many are free for it now.
    Full {
        tier: u16,
        wanted: u32,
        free: u32,
    },
    /// A tenant, or one whose limits it shares, has reached its limit.
    Quota {
        tenant: u16,
        unit: Unit,
        held: u64,
        limit: u64,
    },
}

impl Misfit {
    /// Whether it may have been otherwise by the time that this is read.
    pub(super) fn passes(self) -> bool {
        // Watermarks and limits change while a pool runs.
        matches!(self, Misfit::TooFew { .. } | Misfit::Full { .. } | Misfit::Quota { .. })
    }
}

/// What the node has now; or, with `EVER`, when nobody else is there. `shape` is the node's, or one that is equal: that of all nodes alike is at
/// hand, and a node's own is not.
#[inline]
pub(super) fn fit<const EVER: bool>(node: &Inner, shape: &Shape, needs: &Needs, class: u8) -> Result<Fit, Misfit> {
    let payer = match needs.payer {
        Payer::Nobody => None,
        Payer::Tenant(tenant) => Some(tenant),
        Payer::Unknown => return Err(Misfit::NoTenant),
    };
    if needs.spills {
        return spilling::<EVER>(node, shape, needs, class, payer);
    }
    let mut fit = Fit { waste: needs.waste, ..Fit::EMPTY };
    for &Step { tier, count, .. } in needs.steps() {
        let gauge = node.gauge(tier);
        let capacity = gauge.capacity(class);
        if capacity < count {
            return Err(Misfit::TooFew { tier, wanted: count, capacity });
        }
        let free = if EVER { capacity } else { gauge.free(class) };
        if free < count {
            return Err(Misfit::Full { tier, wanted: count, free });
        }
        fit.note(free - count, gauge.slots());
    }
    if let Some(tenant) = payer {
        pay::<EVER>(node, shape, tenant, needs.slots, needs.bytes)?;
    }
    Ok(fit)
}

/// Whether the tenant may hold so much more.
#[inline]
fn pay<const EVER: bool>(node: &Inner, shape: &Shape, tenant: u16, slots: u64, bytes: u64) -> Result<(), Misfit> {
    for at in shape.up(tenant) {
        let (held, hard) = node.account(at).read();
        for (unit, more) in [(Unit::Slots, slots), (Unit::Bytes, bytes)] {
            let (held, limit) = (if EVER { 0 } else { held.of(unit) }, hard.of(unit));
            if limit != u64::MAX && held.saturating_add(more) > limit {
                return Err(Misfit::Quota { tenant: at, unit, held, limit });
            }
        }
    }
    Ok(())
}

/// The same where what one step takes may be what another needed: slot by slot.
#[cold]
fn spilling<const EVER: bool>(
    node: &Inner,
    shape: &Shape,
    needs: &Needs,
    class: u8,
    payer: Option<u16>,
) -> Result<Fit, Misfit> {
    let steps = needs.steps();
    let mut taken = vec![0u32; shape.tiers.len()];
    let (mut slots, mut bytes, mut waste) = (0, 0_u64, 0);
    let free = |gauge: &Gauge| if EVER { gauge.capacity(class) } else { gauge.free(class) };
    for &Step { tier, .. } in steps {
        let wanted = steps.iter().filter(|step| step.tier == tier).map(|step| step.count).sum();
        let capacity = node.gauge(tier).capacity(class);
        if capacity < wanted {
            return Err(Misfit::TooFew { tier, wanted, capacity });
        }
    }
    for step in steps {
        for had in 0..step.count {
            let paid = |tier: u16| match payer {
                Some(tenant) => pay::<EVER>(
                    node,
                    shape,
                    tenant,
                    slots + 1,
                    bytes.saturating_add(shape.tiers[usize::from(tier)].price),
                ),
                None => Ok(()),
            };
            let room = |tier: u16, taken: &[u32]| free(node.gauge(tier)) > taken[usize::from(tier)];
            paid(step.tier)?;
            let tier = if room(step.tier, &taken) {
                step.tier
            } else {
                let other = step.beyond().find(|&tier| paid(tier).is_ok() && room(tier, &taken));
                let free = free(node.gauge(step.tier));
                other.ok_or(Misfit::Full {
                    tier: step.tier,
                    wanted: taken[usize::from(step.tier)] + step.count - had,
                    free,
                })?
            };
            taken[usize::from(tier)] += 1;
            slots += 1;
            bytes = bytes.saturating_add(shape.tiers[usize::from(tier)].price);
            waste = u64::saturating_add(waste, step.waste(shape, tier));
        }
    }
    let mut fit = Fit { waste, ..Fit::EMPTY };
    for (taken, tier) in taken.into_iter().zip(0..).filter(|&(taken, _)| taken > 0) {
        let gauge = node.gauge(tier);
        fit.note(free(gauge).saturating_sub(taken), gauge.slots());
    }
    Ok(fit)
}
