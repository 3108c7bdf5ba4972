//! Nodes that come from elsewhere: a pool that this process can only ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tierpool::{
    Limit, LocalNodes, Node, NodeError, NodePool, NodeSource, Offer, Resource, ResourceRequest, TaskRouter,
    TenantOffer, Tier, TierOffer, Wanted,
};

use crate::{pool, task};

/// A machine of eight blocks; what it grants is kept here as a slot of a tier, and goes back to it by the slot's reset.
struct Remote {
    granted: Arc<AtomicUsize>,
    grants: Tier<u64>,
    reachable: Arc<AtomicBool>,
}

const BLOCKS: usize = 8;

impl Remote {
    fn new(granted: &Arc<AtomicUsize>, reachable: &Arc<AtomicBool>) -> Self {
        let back = Arc::clone(granted);
        let returns = move |_: &mut u64| {
            back.fetch_sub(1, Ordering::Relaxed);
        };
        let grants = Tier::builder("blocks").capacity(64).reset(returns).build_with(|| 0).unwrap();
        Remote { granted: Arc::clone(granted), grants, reachable: Arc::clone(reachable) }
    }
}

impl NodePool for Remote {
    fn offer(&self) -> Offer {
        let free = BLOCKS - self.granted.load(Ordering::Relaxed);
        let held = Limit { slots: 0, bytes: 0 };
        Offer::new([TierOffer::memory("blocks", 4096, BLOCKS, free)])
            .tenant(TenantOffer::new("md").holds(held, Limit::slots(4)))
    }

    fn take(&self, requests: &[ResourceRequest]) -> Result<Vec<Resource>, NodeError> {
        if !self.reachable.load(Ordering::Relaxed) {
            return Err(NodeError::Unreachable("no route to host".into()));
        }
        let grant = |request: &ResourceRequest| {
            assert!(matches!(request.wanted(), Wanted::Bytes(4000)));
            let mut lease = self.grants.try_allocate().expect("more grants than blocks");
            *lease = self.granted.fetch_add(1, Ordering::Relaxed) as u64;
            Resource::from(lease)
        };
        Ok(requests.iter().map(grant).collect())
    }
}

#[test]
fn nodes_of_another_machine_are_nodes_like_others() {
    let (granted, reachable) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let remote = Node::new("remote", Remote::new(&granted, &reachable));
    let source: Box<dyn NodeSource> = Box::new(vec![remote.clone()]);
    let router = TaskRouter::default();
    router.sync(&*source);
    let held = router.start(&task(3).tenant("md")).unwrap();
    assert_eq!((granted.load(Ordering::Relaxed), remote.free("blocks")), (3, Some(5)));
    assert!(router.route_task(&task(5).tenant("md")).is_err());
    assert!(router.route_task(&task(9)).is_err());
    drop(held);
    assert_eq!((granted.load(Ordering::Relaxed), remote.free("blocks")), (0, Some(8)));

    reachable.store(false, Ordering::Relaxed);
    let error = router.start(&task(1)).unwrap_err().to_string();
    assert!(error.contains("\"remote\", which has refused: it cannot be asked: no route to host"), "{error}");
    router.add(Node::new("local", pool(1)));
    assert_eq!(router.start(&task(1)).unwrap().node().name(), "local", "the next best");
}

#[test]
fn a_source_replaces_what_was_there_and_names_are_unique() {
    let pools = LocalNodes::new().pool("a", &["socket-0"], &pool(1)).pool("b", &["socket-1"], &pool(1));
    let router = TaskRouter::default();
    assert!(router.add(Node::new("a", pool(4))).is_none());
    router.sync(&pools);
    assert_eq!(router.nodes().iter().map(Node::name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(router.nodes()[0].labels().collect::<Vec<_>>(), ["socket-0"]);
    assert!(router.route_task(&task(4)).is_err());
    assert!(router.add(Node::new("a", pool(4))).is_some());
    assert_eq!(router.nodes().len(), 2);
    let _held = router.start(&task(4)).unwrap();
    let same = [router.nodes(), router.nodes()].concat();
    router.sync(&same);
    assert_eq!(router.nodes().len(), 2);
    assert_eq!(router.nodes()[0].free("blocks"), Some(0), "the same node, with its gauges");
    router.refresh();
    assert_eq!(router.nodes()[0].free("blocks"), Some(0));
}
