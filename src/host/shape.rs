//! What stays the same of a node: its tiers by size and name, its tenants by name. And what a task comes down to on such a node.
//!
//! Nodes of one shape are alike to a task: it is looked up once for all of them ([`Needs`]). Looking it up is as in a
//! [`Pool`](crate::Pool): a binary search over sizes or names.

use std::ops::Range;

use super::offer::{Offer, TenantOffer, TierOffer};
use super::task::Task;
use crate::pool::request::Spill;
use crate::pool::resource_pool::Wanted;
use crate::pool::rows::TierKind;

/// What stays the same of a node. Tiers stand as in a pool: memory by size, the overflow, those of cores, of disk space by size, the others.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    memory: Run,
    overflow: Option<u16>,
    cpu: Run,
    disk: Run,
    pub(super) tiers: Box<[TierShape]>,
    /// Places of all tiers, in the order of their names.
    by_name: Box<[u16]>,
    pub(super) tenants: Box<[TenantShape]>,
    spill: Spill,
}

/// The tiers of one kind, one after the other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Run {
    first: u16,
    /// Bytes of a slot of each, ascending; zero where they have none.
    sizes: Box<[u64]>,
}

impl Run {
    /// The first with so many bytes.
    #[inline]
    fn fitting(&self, bytes: u64) -> Option<u16> {
        let at = self.sizes.partition_point(|&size| size < bytes);
        (at < self.sizes.len()).then_some(self.first + at as u16)
    }

    /// Bytes of a slot, if it is a tier of these.
    #[inline]
    fn size(&self, tier: u16) -> Option<u64> {
        self.sizes.get(usize::from(tier.wrapping_sub(self.first))).copied()
    }

    /// The tiers behind it, if it is one of these.
    #[inline]
    fn beyond(&self, tier: u16) -> Option<(u16, u16)> {
        self.size(tier).map(|_| (tier + 1, self.first + self.sizes.len() as u16))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TierShape {
    pub(super) name: Box<str>,
    /// What a slot counts as against limits in bytes.
    pub(super) price: u64,
    /// Tiers of smaller rank are taken from first.
    rank: u16,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TenantShape {
    pub(super) name: Box<str>,
    pub(super) parent: Option<u16>,
}

/// On whose account a task's slots go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payer {
    Nobody,
    /// The tenant at that place.
    Tenant(u16),
    /// The node has no tenant of that name.
    Unknown,
}

/// So many slots of one tier, and where they may come from instead.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) tier: u16,
    /// From there, and up to there.
    beyond: (u16, u16),
    pub(super) count: u32,
    /// What is wanted of each, in bytes of memory or on disk; all of them if it is by name, or has none.
    wanted: Option<u64>,
}

impl Step {
    pub(super) fn beyond(&self) -> Range<u16> {
        self.beyond.0..self.beyond.1
    }

    /// How many bytes of a slot of a tier would not be used.
    pub(super) fn waste(&self, shape: &Shape, tier: u16) -> u64 {
        match (self.wanted, shape.size(tier)) {
            (Some(wanted), Some(size)) => size.saturating_sub(wanted),
            _ => 0,
        }
    }
}

/// Steps that most tasks have at most: those are kept in place.
const FEW: usize = 4;

/// What a task comes down to on nodes of one shape.
pub(super) struct Needs {
    few: [Step; FEW],
    len: usize,
    /// All of them, if they are more.
    many: Vec<Step>,
    pub(super) payer: Payer,
    /// Whether a step has somewhere else to go. If none has, each tier is in one step only.
    pub(super) spills: bool,
    /// In all, if nothing spills.
    pub(super) slots: u64,
    pub(super) bytes: u64,
    pub(super) waste: u64,
}

/// The place among a task's runs of one that the shape has no tier for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoTier(pub(super) u32);

impl Shape {
    /// The shape of a node that offers this.
    pub(super) fn of(offer: &Offer) -> Self {
        let mut tiers: Vec<_> = offer.tiers.iter().collect();
        tiers.sort_by_key(|tier| match tier.kind {
            TierKind::Memory { bytes } => (0, bytes as u64),
            TierKind::Overflow => (1, 0),
            TierKind::Cpu => (2, 0),
            TierKind::Disk { bytes } => (3, bytes),
            TierKind::Custom { .. } => (4, 0),
        });
        // There are fewer tiers than this in any process.
        tiers.truncate(usize::from(u16::MAX));
        let run = |size: fn(TierKind) -> Option<u64>| {
            let first = tiers.iter().position(|tier| size(tier.kind).is_some()).unwrap_or(0);
            Run { first: first as u16, sizes: tiers[first..].iter().map_while(|tier| size(tier.kind)).collect() }
        };
        let (memory, cpu, disk) = (run(bytes), run(of_a_core), run(bytes_on_disk));
        let overflow = tiers.iter().position(|tier| tier.kind == TierKind::Overflow).map(|place| place as u16);
        let mut by_name: Box<[u16]> = (0..tiers.len() as u16).collect();
        by_name.sort_by_key(|&tier| &tiers[usize::from(tier)].name);
        let mut by_order: Vec<usize> = (0..tiers.len()).collect();
        by_order.sort_by_key(|&tier| tiers[tier].order);
        let mut ranks = vec![0; tiers.len()];
        by_order.iter().zip(0..).for_each(|(&tier, rank)| ranks[tier] = rank);
        let tier = |(tier, rank): (&&TierOffer, u16)| TierShape { name: (*tier.name).into(), price: tier.bytes, rank };
        let tenants = &offer.tenants[..offer.tenants.len().min(usize::from(u16::MAX))];
        let place = |name: &str| tenants.iter().position(|tenant| tenant.name == name).map(|place| place as u16);
        let tenant = |tenant: &TenantOffer| TenantShape {
            name: (*tenant.name).into(),
            parent: tenant.parent.as_deref().and_then(place),
        };
        Shape {
            memory,
            overflow,
            cpu,
            disk,
            tiers: tiers.iter().zip(ranks).map(tier).collect(),
            by_name,
            tenants: tenants.iter().map(tenant).collect(),
            spill: offer.spill,
        }
    }

    /// Bytes of a slot of a tier, if it has any.
    #[inline]
    fn size(&self, tier: u16) -> Option<u64> {
        self.memory.size(tier).or_else(|| self.disk.size(tier))
    }

    /// The place of the tier of that name.
    #[inline]
    pub(super) fn tier(&self, name: &str) -> Option<u16> {
        let found = self.by_name.binary_search_by(|&tier| (*self.tiers[usize::from(tier)].name).cmp(name));
        found.ok().map(|place| self.by_name[place])
    }

    /// The place of the tenant of that name.
    #[inline]
    pub(super) fn tenant(&self, name: &str) -> Option<u16> {
        self.tenants.iter().position(|tenant| *tenant.name == *name).map(|place| place as u16)
    }

    /// A tenant and its ancestors, from below.
    #[inline]
    pub(super) fn up(&self, tenant: u16) -> impl Iterator<Item = u16> {
        // No longer than there are tenants, whatever an offer says.
        std::iter::successors(Some(tenant), |&at| self.tenants[usize::from(at)].parent).take(self.tenants.len())
    }

    /// Where a request goes: as [`pool::route`](crate::pool::route) has it.
    #[inline]
    fn step(&self, wanted: Wanted<'_>, spill: Option<Spill>, count: u32) -> Option<Step> {
        let overflow = self.overflow;
        let of_pool = spill.unwrap_or(self.spill);
        // The system has memory only.
        let within = if of_pool == Spill::System { Spill::Refuse } else { of_pool };
        let (tier, spill, wanted) = match wanted {
            Wanted::Bytes(bytes) => {
                let bytes = bytes as u64;
                let tier = self.memory.fitting(bytes).or(overflow.filter(|_| of_pool == Spill::System))?;
                (tier, of_pool, Some(bytes))
            }
            Wanted::Cpu => (self.cpu.fitting(0)?, within, None),
            Wanted::DiskBytes(bytes) => (self.disk.fitting(bytes)?, within, Some(bytes)),
            Wanted::SlotOf(name) => {
                let tier = self.tier(name).filter(|&tier| Some(tier) != overflow)?;
                (tier, spill.unwrap_or(Spill::Refuse), None)
            }
        };
        let beyond = match (spill, overflow) {
            (Spill::NextLarger, _) => {
                let mut runs = [&self.memory, &self.cpu, &self.disk].into_iter();
                runs.find_map(|run| run.beyond(tier)).unwrap_or((0, 0))
            }
            (Spill::System, Some(overflow)) if self.memory.size(tier).is_some() => (overflow, overflow + 1),
            (Spill::System, None) => return None,
            _ => (0, 0),
        };
        Some(Step { tier, beyond, count, wanted })
    }
}

fn bytes(kind: TierKind) -> Option<u64> {
    match kind {
        TierKind::Memory { bytes } => Some(bytes as u64),
        _ => None,
    }
}

fn of_a_core(kind: TierKind) -> Option<u64> {
    (kind == TierKind::Cpu).then_some(0)
}

fn bytes_on_disk(kind: TierKind) -> Option<u64> {
    match kind {
        TierKind::Disk { bytes } => Some(bytes),
        _ => None,
    }
}

impl Needs {
    /// What a task comes down to on nodes of that shape.
    #[inline]
    pub(super) fn of(task: &Task, shape: &Shape) -> Result<Self, NoTier> {
        // Who needs nothing is on nobody's account.
        let payer = match task.on_behalf_of().filter(|_| !task.requirements().is_empty()) {
            None => Payer::Nobody,
            Some(name) => shape.tenant(name).map_or(Payer::Unknown, Payer::Tenant),
        };
        let few = [Step::default(); FEW];
        let mut needs = Needs { few, len: 0, many: Vec::new(), payer, spills: false, slots: 0, bytes: 0, waste: 0 };
        for (run, (request, count)) in task.runs().enumerate() {
            let step = shape.step(request.wanted(), request.spills(), count).ok_or(NoTier(run as u32))?;
            needs.spills |= !step.beyond().is_empty();
            needs.slots += u64::from(count);
            // An adapter may say anything of a machine.
            let times = |of_one: u64| u64::from(count).saturating_mul(of_one);
            needs.bytes = needs.bytes.saturating_add(times(shape.tiers[usize::from(step.tier)].price));
            needs.waste = needs.waste.saturating_add(times(step.waste(shape, step.tier)));
            needs.add(step);
        }
        if needs.spills {
            // As a group takes them; the sort is stable, and so are the members of one tier among themselves.
            needs.steps_mut().sort_by_key(|step| shape.tiers[usize::from(step.tier)].rank);
        } else {
            needs.merge();
        }
        Ok(needs)
    }

    #[inline]
    fn add(&mut self, step: Step) {
        if self.len < FEW {
            self.few[self.len] = step;
        } else {
            self.add_to_many(step);
        }
        self.len += 1;
    }

    #[cold]
    fn add_to_many(&mut self, step: Step) {
        if self.many.is_empty() {
            self.many.extend(self.few);
        }
        self.many.push(step);
    }

    #[inline]
    pub(super) fn steps(&self) -> &[Step] {
        if self.len <= FEW { &self.few[..self.len] } else { &self.many }
    }

    fn steps_mut(&mut self) -> &mut [Step] {
        if self.len <= FEW { &mut self.few[..self.len] } else { &mut self.many }
    }

    /// Makes one step of those of one tier: nothing spills, so where they stand means nothing.
    #[inline]
    fn merge(&mut self) {
        let steps = self.steps_mut();
        let mut kept = 0;
        for at in 0..steps.len() {
            let step = steps[at];
            match steps[..kept].iter_mut().find(|other| other.tier == step.tier) {
                Some(other) => other.count += step.count,
                None => {
                    steps[kept] = step;
                    kept += 1;
                }
            }
        }
        if self.len > FEW {
            self.many.truncate(kept);
            if kept <= FEW {
                self.few[..kept].copy_from_slice(&self.many);
            }
        }
        self.len = kept;
    }
}
