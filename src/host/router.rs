//! The router: sends each task to a node that can hold it, says why, and takes its resources there.
//!
//! A decision reads the list of nodes, two of them, and a few gauges of each; it writes nothing but the thread's generator and the
//! reference counts of the nodes that it names. Nodes come and go by a new list: who decides meanwhile goes by the old one.

use std::fmt;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;

use super::node::{Node, NodeSource};
use super::nodes::Nodes;
use super::placement::Placement;
use super::policy::{Policy, Seen, View, choose};
use super::route::{Rejected, Rejection, Route, RouteError, WhyNot};
use super::task::Task;
use crate::pool::resource_pool::ResourceRequest;
use crate::sync::Mutex;

/// Sends tasks to nodes. May be used by many threads at once, while nodes come, go, and change their health.
///
/// ```
/// use tierpool::{Node, Pool, ResourceRequest, Task, TaskRouter};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let router = TaskRouter::default();
/// for name in ["numa-0", "numa-1"] {
///     let pool = Pool::builder().memory("blocks", 65536, 8).memory("packets", 2048, 64).build()?;
///     router.add(Node::new(name, pool));
/// }
///
/// let task = Task::new("decode").needs(ResourceRequest::memory(50_000)).needs_several(ResourceRequest::memory(1500), 4);
/// println!("{}", router.route_task(&task)?);           // where it would go, and why
///
/// let placement = router.start(&task)?;                // all five, of one node
/// assert_eq!(placement.resources().len(), 5);
/// drop(placement);                                     // all five go back
/// # Ok(()) }
/// ```
pub struct TaskRouter {
    nodes: ArcSwap<Nodes>,
    /// Held while the list is replaced.
    changing: Mutex<()>,
    policy: Policy,
}

impl Default for TaskRouter {
    fn default() -> Self {
        TaskRouter::new(Policy::default())
    }
}

impl TaskRouter {
    /// A router without nodes.
    pub fn new(policy: Policy) -> Self {
        TaskRouter { nodes: ArcSwap::default(), changing: Mutex::new(()), policy }
    }

    /// The node for a task, why that one, and why not the others that were looked at. Takes nothing: see [`Route::take`] and
    /// [`start`](Self::start).
    ///
    /// Power of two choices costs the same for any number of nodes, best fit a look at each. Costs more where many nodes are full or not
    /// healthy, and most before a refusal, which refreshes every node that might have room by now.
    ///
    /// # Errors
    /// [`RouteError`], if there was a moment for each node at which it could not hold the task, was unhealthy, or was not there.
    pub fn route_task<'t>(&self, task: &'t Task) -> Result<Route<'t>, RouteError> {
        let nodes = self.nodes.load();
        let mut view = View::new(&nodes, task);
        let mut rejected = Rejected::default();
        match choose(&mut view, self.policy, &mut rejected) {
            Some(choice) => Ok(Route { node: nodes.node(choice.place).clone(), reason: choice.reason, rejected, task }),
            None => Err(refuse(&mut view)),
        }
    }

    /// Routes a task and takes what it needs there, all or nothing, without a wait. If the node has run out meanwhile, the next best is
    /// tried, and so on.
    ///
    /// # Errors
    /// [`RouteError`] with the reason of each node. Nothing is held then.
    pub fn start(&self, task: &Task) -> Result<Placement, RouteError> {
        let Route { node, .. } = self.route_task(task)?;
        Placement::take(&node, task).or_else(|why| {
            node.refresh();
            self.start_elsewhere(task, Rejection { node, why: WhyNot::Refused(Arc::new(why)) })
        })
    }

    /// On all nodes that have room but the one that has just refused, the best first.
    #[cold]
    fn start_elsewhere(&self, task: &Task, refused: Rejection) -> Result<Placement, RouteError> {
        let nodes = self.nodes.load();
        let mut view = View::new(&nodes, task);
        let mut fits = Vec::new();
        for place in 0..nodes.len() {
            match view.look_again(place) {
                _ if nodes.node(place).is(&refused.node) => {}
                Seen::Fits(fit) => fits.push((false, place, fit)),
                Seen::Degraded(fit) => fits.push((true, place, fit)),
                Seen::Unfit(_) | Seen::Unhealthy => {}
            }
        }
        fits.sort_by(|(a, one, fit), (b, other, its)| {
            a.cmp(b).then_with(|| view.order(self.policy, (*one, fit), (*other, its)))
        });
        let mut tried = vec![refused];
        for (_, place, _) in fits {
            let node = nodes.node(place);
            match Placement::take(node, task) {
                Ok(placement) => return Ok(placement),
                Err(why) => tried.push(Rejection { node: node.clone(), why: WhyNot::Refused(Arc::new(why)) }),
            }
        }
        let mut rejected = view.all_rejected();
        for refusal in tried {
            match rejected.iter_mut().find(|other| other.node.is(&refusal.node)) {
                Some(place) => *place = refusal,
                // It has gone meanwhile.
                None => rejected.push(refusal),
            }
        }
        Err(RouteError::none(task, &nodes, view.fits_ever(), rejected))
    }

    /// What a task needs, with its tenant and its priority: what is requested of the node's pool.
    pub fn get_resource_requirements<'t>(&self, task: &'t Task) -> &'t [ResourceRequest] {
        task.requirements()
    }

    /// Whether some node could hold the task if nothing else were there: it has the tiers, with enough slots for the task's priority, and the
    /// tenant's hard limits allow it. Whether it can now, and whether the node is healthy, is not asked.
    pub fn validate_resources(&self, task: &Task) -> bool {
        let nodes = self.nodes.load_full();
        // Watermarks and limits may have changed since somebody looked.
        View::new(&nodes, task).fits_ever() || {
            nodes.iter().for_each(Node::refresh);
            View::new(&nodes, task).fits_ever()
        }
    }

    /// Adds a node, in the place of one of the same name, which is returned. What runs there goes on. Costs a new list: to add many,
    /// [`sync`](Self::sync).
    pub fn add(&self, node: Node) -> Option<Node> {
        self.change(|nodes| {
            let same = nodes.iter().find(|other| other.name() == node.name()).cloned();
            (Nodes::new(nodes.iter().cloned().chain([node])), same)
        })
    }

    /// Removes the node of that name. What runs there goes on.
    pub fn remove(&self, name: &str) -> Option<Node> {
        self.change(|nodes| {
            let gone = nodes.named(name).map(|place| nodes.node(place).clone());
            (Nodes::new(nodes.iter().filter(|node| node.name() != name).cloned()), gone)
        })
    }

    /// Replaces all nodes by those that a source lists. For one thread: of two at a time, the list that was made first may be the one that stays.
    pub fn sync(&self, source: &(impl NodeSource + ?Sized)) {
        let listed = source.nodes();
        self.change(|_| (Nodes::new(listed), ()));
    }

    /// The nodes that there are.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.load().iter().cloned().collect()
    }

    /// [Refreshes](Node::refresh) all nodes; for whoever watches them, at his own pace.
    pub fn refresh(&self) {
        self.nodes.load_full().iter().for_each(Node::refresh);
    }

    /// Which of the nodes that can hold a task gets it.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    fn change<R>(&self, change: impl FnOnce(&Nodes) -> (Nodes, R)) -> R {
        let (former, answer) = {
            // A panic cannot leave the list half changed.
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let (nodes, answer) = change(&self.nodes.load());
            (self.nodes.swap(Arc::new(nodes)), answer)
        };
        // Pools may end with it, and their values' `Drop` is the program's.
        drop(former);
        answer
    }
}

#[cold]
fn refuse(view: &mut View<'_>) -> RouteError {
    let rejected = view.all_rejected();
    RouteError::none(view.task, view.nodes, view.fits_ever(), rejected)
}

impl fmt::Debug for TaskRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes();
        f.debug_struct("TaskRouter").field("policy", &self.policy).field("nodes", &nodes).finish()
    }
}
