//! A task of two kinds, for a tenant with a quota, is routed over 64 nodes and over 4,096: power of two choices. These are nodes of other
//! machines, of which this process has the gauges, as 4,096 would be; a decision reads nothing else of any node. Beside it, over 64 pools of
//! this process: the same and what the task needs taken and given back (`start`), and best fit, which looks at every node.

use std::hint::black_box;
use std::time::Instant;

use tierpool::{
    Limit, Node, NodeError, NodePool, Offer, Placement, Policy, Pool, Resource, ResourceRequest, Task, TaskRouter,
    TenantOffer, TenantRules, TierOffer,
};

use super::floor;
use crate::machine::cores;
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "route";
/// A decision over 64 nodes.
pub const FEW: &str = "tierpool-route-64";
/// A decision over 4,096 nodes.
pub const MANY: &str = "tierpool-route-4096";
/// How a row compares with [`FEW`], in the rows.
pub const RATIO: &str = "ratio_to_64";

/// All subjects.
pub fn fill(cast: &mut Cast) {
    cast.add(FEW, Kind::Ours, |orders| serve(orders, &far(64), decide));
    cast.add(MANY, Kind::Ours, |orders| serve(orders, &far(4096), decide));
    cast.add("tierpool-start-64", Kind::Ours, |orders| serve(orders, &near(Policy::PowerOfTwo), start));
    cast.add("tierpool-best-fit-64", Kind::Ours, |orders| serve(orders, &near(Policy::BestFit), decide));
    floor::atomic_add(cast);
}

fn pool() -> Pool {
    let md = TenantRules::new("md").hard(Limit::slots(12));
    let pool = Pool::builder().memory("packets", 64, 8).memory("blocks", 256, 8).tenant("other").tenant(md);
    pool.build().expect("a pool")
}

fn task() -> Task {
    Task::new("task").needs(ResourceRequest::memory(60)).needs(ResourceRequest::memory(200)).tenant("md")
}

/// A machine that can only be looked at.
struct Machine {
    /// Free slots of its two tiers.
    free: [usize; 2],
}

impl NodePool for Machine {
    fn offer(&self) -> Offer {
        let [packets, blocks] = self.free;
        let md = TenantOffer::new("md").holds(Limit { slots: 4, bytes: 0 }, Limit::slots(12));
        let tiers = [TierOffer::memory("packets", 64, 8, packets), TierOffer::memory("blocks", 256, 8, blocks)];
        Offer::new(tiers).tenant(TenantOffer::new("other")).tenant(md)
    }

    fn take(&self, _: &[ResourceRequest]) -> Result<Vec<Resource>, NodeError> {
        Err(NodeError::Unreachable("it can only be looked at".into()))
    }
}

/// A router, and what is held of its nodes, so that they are more or less full.
struct Load {
    router: TaskRouter,
    _held: Vec<Placement>,
}

/// Nodes of other machines.
fn far(nodes: usize) -> Load {
    let router = TaskRouter::default();
    let node = |n| Node::new(&format!("node-{n}"), Machine { free: [4 + n % 3, 3 + n % 5] });
    router.sync(&(0..nodes).map(node).collect::<Vec<_>>());
    Load { router, _held: Vec::new() }
}

/// Pools of this process.
fn near(policy: Policy) -> Load {
    let router = TaskRouter::new(policy);
    router.sync(&(0..64).map(|n| Node::new(&format!("node-{n}"), pool())).collect::<Vec<_>>());
    let held = (0..128).map(|_| router.start(&task()).expect("room")).collect();
    Load { router, _held: held }
}

fn serve(orders: Orders, load: &Load, each: fn(&TaskRouter, &Task)) {
    cores::pin(0);
    let task = task();
    orders.serve(1, |decisions| {
        let start = Instant::now();
        for _ in 0..decisions {
            each(&load.router, black_box(&task));
        }
        start.elapsed()
    });
}

#[inline(always)]
fn decide(router: &TaskRouter, task: &Task) {
    let route = router.route_task(task).expect("room");
    black_box(&route.node);
}

#[inline(always)]
fn start(router: &TaskRouter, task: &Task) {
    drop(black_box(router.start(task).expect("room")));
}
