//! What a task holds for as long as it runs.

use std::fmt;

use super::node::{Node, NodeError, Shift};
use super::task::Task;
use crate::pool::resource_pool::Resource;

/// The resources of a task, all of one node, and that node. They go back when it is dropped.
#[must_use = "a placement that is dropped at once gives the task's resources back at once"]
pub struct Placement {
    node: Node,
    /// The tenant's place on the node.
    tenant: Option<u16>,
    resources: Vec<Resource>,
}

impl Placement {
    /// Takes what a task needs, all or nothing; the node's gauges are told.
    pub(super) fn take(node: &Node, task: &Task) -> Result<Self, NodeError> {
        let inner = &node.inner;
        let resources = inner.take(task.requirements())?;
        let tenant = task.on_behalf_of().and_then(|name| inner.shape.tenant(name));
        let placement = Placement { node: node.clone(), tenant, resources };
        for resource in &placement.resources {
            placement.shift(resource.tier_name(), Shift::Placed);
        }
        Ok(placement)
    }

    fn shift(&self, tier: &str, shift: Shift) {
        let inner = &self.node.inner;
        if let Some(tier) = inner.shape.tier(tier) {
            inner.shift(tier, self.tenant, shift);
        }
    }

    /// Where the task runs.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it holds, in the order of its [requirements](Task::requirements).
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The same, to be used.
    pub fn resources_mut(&mut self) -> &mut [Resource] {
        &mut self.resources
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        // First given back, then told. Should giving back panic, the rest goes back with the list, and the gauges know at the next refresh.
        while let Some(resource) = self.resources.pop() {
            let tier = resource.tier_name();
            drop(resource);
            self.shift(tier, Shift::Back);
        }
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement").field("node", &self.node.name()).field("resources", &self.resources).finish()
    }
}
