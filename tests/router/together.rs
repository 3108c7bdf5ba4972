//! Threads that route, hold and drop, while nodes come, go and change their health.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tierpool::{Health, Node, Policy, Pool, Priority, ResourceRequest, Task, TaskRouter};

use crate::{is_whole, pool};

const NODES: usize = 6;

fn churn(router: &TaskRouter, nodes: &[Node], done: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(7);
    while !done.load(Ordering::Relaxed) {
        // The first is never healthy, the second is always there.
        let node = &nodes[rng.usize(2..NODES)];
        match rng.u32(0..6) {
            0 => drop(router.remove(node.name())),
            1 => router.sync(nodes),
            2 => node.refresh(),
            3 => node.set_health(Health::Degraded),
            4 => node.set_health(Health::Unhealthy),
            _ => {
                node.set_health(Health::Healthy);
                router.add(node.clone());
            }
        }
        thread::yield_now();
    }
}

fn work(router: &TaskRouter, seed: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut held, mut started) = (Vec::new(), 0);
    for _ in 0..4000 {
        if rng.u32(0..3) == 0 && !held.is_empty() {
            drop(held.swap_remove(rng.usize(0..held.len())));
            continue;
        }
        let task = Task::new("t")
            .needs_several(ResourceRequest::memory(rng.usize(0..4000)), rng.u32(1..3))
            .needs(ResourceRequest::of("packets"))
            .priority(Priority::ALL[rng.usize(0..4)]);
        let task = if rng.bool() { task.tenant("md") } else { task };
        match router.start(&task) {
            Ok(placement) => {
                assert_ne!(placement.node().name(), "n0", "it is unhealthy");
                assert_eq!(placement.resources().len(), task.requirements().len());
                held.push(placement);
                started += 1;
            }
            // The second is always there: nobody is refused who has nothing, unless the others have it all.
            Err(why) => assert!(why.rejected().iter().any(|it| it.node.name() == "n1"), "{why}"),
        }
    }
    started
}

#[test]
fn at_the_end_every_pool_is_whole() {
    for policy in [Policy::PowerOfTwo, Policy::BestFit, Policy::LocalityFirst] {
        let pools: Vec<Pool> = (0..NODES).map(|_| pool(4)).collect();
        let nodes: Vec<Node> =
            pools.iter().enumerate().map(|(n, it)| Node::new(&format!("n{n}"), it.clone())).collect();
        nodes[0].set_health(Health::Unhealthy);
        let (router, done) = (TaskRouter::new(policy), AtomicBool::new(false));
        router.sync(&nodes);
        let started: usize = thread::scope(|scope| {
            let (router, nodes, done) = (&router, &nodes, &done);
            scope.spawn(move || churn(router, nodes, done));
            let workers: Vec<_> = (0..3).map(|seed| scope.spawn(move || work(router, seed))).collect();
            let started = workers.into_iter().map(|worker| worker.join());
            let started: Vec<_> = started.collect();
            done.store(true, Ordering::Relaxed);
            started.into_iter().map(Result::unwrap).sum()
        });
        assert!(started > 100, "{started}");
        assert!(pools.iter().all(is_whole), "{policy:?}");
        router.sync(&nodes);
        router.refresh();
        assert!(nodes.iter().all(|node| node.free("blocks") == Some(4) && node.free("packets") == Some(8)));
    }
}
