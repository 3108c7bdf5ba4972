//! Where a task goes, and why there: the answer of a router, with what was wrong with the other nodes that it has looked at.
//!
//! An answer allocates nothing: of the nodes that were not taken it names the first few and counts the rest. A refusal, which comes
//! after all nodes have been looked at, names all of them.

use std::fmt;
use std::sync::Arc;

use super::fit::{Fit, Misfit};
use super::node::{Node, NodeError};
use super::nodes::Nodes;
use super::placement::Placement;
use super::shape::NoTier;
use super::task::Task;
use crate::admission::tenants::Unit;
use crate::pool::error::ShortName;
use crate::pool::resource_pool::Wanted;

/// Where a task goes: [`TaskRouter::route_task`](crate::TaskRouter::route_task). Holds nothing yet: [`take`](Self::take) does.
#[derive(Debug)]
#[must_use = "a route holds nothing: take it"]
#[non_exhaustive]
pub struct Route<'t> {
    /// The node.
    pub node: Node,
    /// Why this one.
    pub reason: RouteReason,
    /// Why not the others that were looked at.
    pub rejected: Rejected,
    pub(super) task: &'t Task,
}

impl Route<'_> {
    /// Takes what the task needs, all or nothing, without a wait. [`TaskRouter::start`](crate::TaskRouter::start) goes on to the next node
    /// if this one has run out meanwhile.
    ///
    /// # Errors
    /// [`RouteError::Refused`] with the node's reason; its gauges have been refreshed then.
    pub fn take(self) -> Result<Placement, RouteError> {
        let Route { node, task, .. } = self;
        Placement::take(&node, task).map_err(|why| {
            node.refresh();
            let rejected = vec![Rejection { node, why: WhyNot::Refused(Arc::new(why)) }];
            RouteError::Refused { task: task.name().to_owned(), ever: true, rejected }
        })
    }
}

/// `task "decode" goes to node "numa-0", which …; not to "numa-1", which …`
impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} goes to node {:?}, which {}", self.task, self.node.name(), self.reason)?;
        for rejection in self.rejected.iter() {
            write!(f, "; not to {rejection}")?;
        }
        match self.rejected.others() {
            0 => Ok(()),
            others => write!(f, "; nor to {others} more"),
        }
    }
}

/// Why a node was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteReason {
    /// By which rule.
    pub rule: RouteRule,
    /// Of all tiers that the task needs, the one with the smallest share left: slots that will be left with the task there,
    pub left: usize,
    /// of so many.
    pub of: usize,
    /// Bytes of memory slots that the task will not use.
    pub waste: u64,
    /// Whether it is degraded: no healthy node can hold the task.
    pub degraded: bool,
}

/// By which rule a node was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteRule {
    /// Of two drawn at random, the one with more left.
    BetterOfTwo,
    /// Of two drawn at random, the only one that can hold the task.
    OnlyOneOfTwo,
    /// There is no other.
    Only,
    /// None of those drawn could hold it; of all, the one with the most left.
    MostLeft,
    /// Of all, the one that it fills the best.
    Tightest,
    /// The one that the task prefers.
    Preferred,
    /// One near the task's data.
    Near,
}

impl RouteReason {
    #[inline]
    pub(super) fn new(rule: RouteRule, fit: &Fit, degraded: bool) -> Self {
        RouteReason { rule, left: fit.left as usize, of: fit.of as usize, waste: fit.waste, degraded }
    }
}

impl fmt::Display for RouteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self.rule {
            RouteRule::BetterOfTwo => "is the emptier of two drawn at random",
            RouteRule::OnlyOneOfTwo => "is the one of two drawn at random that can hold it",
            RouteRule::Only => "is the only one",
            RouteRule::MostLeft => "is the emptiest of all, as none of those drawn can hold it",
            RouteRule::Tightest => "is the one that it fits the tightest",
            RouteRule::Preferred => "it prefers",
            RouteRule::Near => "is near its data",
        };
        write!(f, "{rule}: {} of {} slots left with it there", self.left, self.of)?;
        if self.degraded { write!(f, " (degraded; no healthy node can hold it)") } else { Ok(()) }
    }
}

/// Nodes named in an answer.
const NAMED: usize = 4;

/// Why not the other nodes that were looked at: the first four by name, and how many more there were.
#[derive(Debug, Default)]
pub struct Rejected {
    named: [Option<Rejection>; NAMED],
    others: usize,
}

impl Rejected {
    /// Those that are named.
    pub fn iter(&self) -> impl Iterator<Item = &Rejection> {
        self.named.iter().flatten()
    }

    /// How many more were not taken.
    pub fn others(&self) -> usize {
        self.others
    }

    /// One more, unless it is named already.
    #[inline]
    pub(super) fn note(&mut self, node: &Node, why: impl FnOnce() -> WhyNot) {
        for place in &mut self.named {
            match place {
                Some(named) if named.node.is(node) => return,
                Some(_) => {}
                None => {
                    *place = Some(Rejection { node: node.clone(), why: why() });
                    return;
                }
            }
        }
        self.others += 1;
    }

    /// The one between which and the one taken it was decided: it is named in any case, as the last.
    #[inline]
    pub(super) fn note_last(&mut self, node: &Node, why: impl FnOnce() -> WhyNot) {
        if self.is_full() {
            let [.., last] = &mut self.named;
            self.others += 1;
            *last = None;
        }
        self.note(node, why);
    }

    pub(super) fn is_full(&self) -> bool {
        self.named.iter().all(Option::is_some)
    }

    pub(super) fn note_others(&mut self, others: usize) {
        self.others += others;
    }
}

/// A node that was not taken, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rejection {
    /// The node.
    pub node: Node,
    /// Why not.
    pub why: WhyNot,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, which {}", self.node.name(), self.why)
    }
}

/// Why a node was not taken.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WhyNot {
    /// It can hold the task, but the one that was taken is the better choice.
    Outdone {
        /// Slots that would be left, of the tier with the smallest share left,
        left: usize,
        /// of so many.
        of: usize,
    },
    /// It is unhealthy.
    Unhealthy,
    /// It is degraded, and a healthy node can hold the task.
    Degraded,
    /// It has no memory tier with so many bytes in a slot, or nothing to spill to where the request says so.
    NoMemory {
        /// Bytes that are wanted.
        bytes: usize,
    },
    /// It has no tier of cores.
    NoCores,
    /// It has no disk tier with so many bytes in an extent.
    NoDisk {
        /// Bytes that are wanted.
        bytes: u64,
    },
    /// It has no tier of that name, or nothing to spill to where the request says so.
    NoTier {
        /// The name.
        name: ShortName,
    },
    /// Its pool has no such tenant.
    NoTenant {
        /// The name.
        tenant: ShortName,
    },
    /// It can never give a task of that priority so many slots of a tier.
    TooFew {
        /// The tier.
        tier: ShortName,
        /// Slots that the task needs.
        wanted: usize,
        /// Slots that it could have at most.
        capacity: usize,
    },
    /// Not so many slots are free.
    Full {
        /// The tier.
        tier: ShortName,
        /// Slots that the task needs.
        wanted: usize,
        /// Slots that are free for a task of that priority.
        free: usize,
    },
    /// The tenant, or one whose limits it shares, would exceed its quota.
    Quota {
        /// Whose limit it is.
        tenant: ShortName,
        /// What is limited.
        unit: Unit,
        /// What is held.
        held: u64,
        /// The limit.
        limit: u64,
    },
    /// It seemed to have room, but it has refused.
    Refused(Arc<NodeError>),
}

impl WhyNot {
    pub(super) fn outdone(fit: &Fit) -> Self {
        WhyNot::Outdone { left: fit.left as usize, of: fit.of as usize }
    }

    pub(super) fn misfit(misfit: Misfit, node: &Node, task: &Task) -> Self {
        let shape = &node.inner.shape;
        let tier = |tier: u16| ShortName::new(&shape.tiers[usize::from(tier)].name);
        match misfit {
            Misfit::NoTier(NoTier(run)) => match task.runs().nth(run as usize).map(|(request, _)| request.wanted()) {
                Some(Wanted::Bytes(bytes)) => WhyNot::NoMemory { bytes },
                Some(Wanted::Cpu) => WhyNot::NoCores,
                Some(Wanted::DiskBytes(bytes)) => WhyNot::NoDisk { bytes },
                Some(Wanted::SlotOf(name)) => WhyNot::NoTier { name: ShortName::new(name) },
                None => WhyNot::NoTier { name: ShortName::new("") },
            },
            Misfit::NoTenant => WhyNot::NoTenant { tenant: ShortName::new(task.on_behalf_of().unwrap_or_default()) },
            Misfit::TooFew { tier: at, wanted, capacity } => {
                WhyNot::TooFew { tier: tier(at), wanted: wanted as usize, capacity: capacity as usize }
            }
            Misfit::Full { tier: at, wanted, free } => {
                WhyNot::Full { tier: tier(at), wanted: wanted as usize, free: free as usize }
            }
            Misfit::Quota { tenant, unit, held, limit } => {
                let tenant = ShortName::new(&shape.tenants[usize::from(tenant)].name);
                WhyNot::Quota { tenant, unit, held, limit }
            }
        }
    }
}

/// After "which".
impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::Outdone { left, of } => write!(f, "would have {left} of {of} slots left"),
            WhyNot::Unhealthy => write!(f, "is unhealthy"),
            WhyNot::Degraded => write!(f, "is degraded while a healthy node can hold it"),
            WhyNot::NoMemory { bytes } => write!(f, "has no memory tier for {bytes} bytes"),
            WhyNot::NoCores => write!(f, "has no tier of cores"),
            WhyNot::NoDisk { bytes } => write!(f, "has no disk tier for {bytes} bytes"),
            WhyNot::NoTier { name } => write!(f, "has no tier {name:?} as requested"),
            WhyNot::NoTenant { tenant } => write!(f, "has no tenant {tenant:?}"),
            WhyNot::TooFew { tier, wanted, capacity } => {
                write!(f, "can never give {wanted} slots of tier {tier:?}: {capacity} at this priority")
            }
            WhyNot::Full { tier, wanted, free } => write!(f, "has {free} of {wanted} slots of tier {tier:?} free"),
            WhyNot::Quota { tenant, unit, held, limit } => {
                write!(f, "lets tenant {tenant:?} hold {limit} {unit}, and {held} are held")
            }
            WhyNot::Refused(why) => write!(f, "has refused: {why}"),
        }
    }
}

/// Why a task goes nowhere.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The router has no nodes.
    #[error("task {task:?} goes nowhere: the router has no nodes; give it one with `add` or `sync`")]
    NoNodes {
        /// The task's name.
        task: String,
    },
    /// No node can hold the task now.
    #[error("task {task:?} is on no node: {}; {}", Listed(.rejected), advice(*.ever))]
    Refused {
        /// The task's name.
        task: String,
        /// Whether a node could hold it if nothing else were there.
        ever: bool,
        /// What is wrong with each node that was asked.
        rejected: Vec<Rejection>,
    },
}

impl RouteError {
    /// What is wrong with each node that was asked.
    pub fn rejected(&self) -> &[Rejection] {
        match self {
            RouteError::NoNodes { .. } => &[],
            RouteError::Refused { rejected, .. } => rejected,
        }
    }

    pub(super) fn none(task: &Task, nodes: &Nodes, ever: bool, rejected: Vec<Rejection>) -> Self {
        let task = task.name().to_owned();
        if nodes.len() == 0 { RouteError::NoNodes { task } } else { RouteError::Refused { task, ever, rejected } }
    }
}

fn advice(ever: bool) -> &'static str {
    if ever {
        "try again when something has come back, or add a node"
    } else {
        "none could hold it if it were empty: need less, or add a node that can"
    }
}

/// The first few of a list; all can be [asked for](RouteError::rejected).
struct Listed<'r>(&'r [Rejection]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (place, rejection) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}not on {rejection}", if place > 0 { "; " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; nor on {more} more"),
        }
    }
}
