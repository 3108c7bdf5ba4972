//! The router: a task that fits somewhere is routed, to a node that can hold it, and each answer says why.
//!
//! In reading order: [`routing`] (who gets what, and what is respected), [`placing`] (taking it, and falling back), [`explaining`] (texts),
//! [`sources`] (nodes that come from elsewhere), [`brute_force`] (random nodes and tasks, beside what the pools really do) and
//! [`together`] (threads).

#![cfg(not(loom))]

mod brute_force;
mod explaining;
mod placing;
mod routing;
mod sources;
mod together;

use tierpool::{Node, Policy, Pool, ResourceRequest, Task, TaskRouter};

/// A pool of so many blocks of 4096 bytes and twice as many packets of 64, with the tenant `md`.
fn pool(blocks: usize) -> Pool {
    let pool = Pool::builder().memory("blocks", 4096, blocks).memory("packets", 64, 2 * blocks).tenant("md");
    pool.build().unwrap()
}

/// A router over nodes `n0`, `n1` … with such pools.
fn router(policy: Policy, blocks: &[usize]) -> (TaskRouter, Vec<Node>) {
    let router = TaskRouter::new(policy);
    let node = |(place, &blocks): (usize, &usize)| Node::new(&format!("n{place}"), pool(blocks));
    let nodes: Vec<Node> = blocks.iter().enumerate().map(node).collect();
    router.sync(&nodes);
    (router, nodes)
}

/// A task that needs so many blocks.
fn task(blocks: u32) -> Task {
    Task::new("task").needs_several(ResourceRequest::memory(4000), blocks)
}

fn is_whole(pool: &Pool) -> bool {
    pool.monitor()
        .tiers
        .iter()
        .all(|tier| tier.held() == 0 && tier.snapshot.free + tier.snapshot.reserved == tier.snapshot.capacity)
}
