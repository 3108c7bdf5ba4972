//! The whole way, on the real machine: detector, health, router, pool, lease, release, metrics, optimize; and under real pressure.
#![cfg(all(target_os = "linux", not(loom), not(shuttle)))]

pub mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::process::alone;
use common::system::skip;
use tierpool::{
    Change, Health, HealthMonitor, MemoryTier, Node, Pool, Reason, Request, ResourceDetector, ResourceRequest,
    Severity, Signal, Task, TaskRouter, Threshold, Watermarks,
};

const SLOT: usize = 1 << 20;
/// What the container may use.
const LIMIT: usize = 256 << 20;

/// A control group with that much memory, which this process has joined; it goes with this.
struct Container(PathBuf);

impl Container {
    /// `None` where this user may make none.
    fn join() -> Option<Self> {
        let parent = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = match parent.is_dir() {
            true => (parent, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = parent.join(format!("tierpool-way-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let container = Container(group);
        fs::write(container.0.join(limit), LIMIT.to_string()).ok()?;
        fs::write(container.0.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        Some(container)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It can be removed once nobody is in it.
        let root = self.0.parent().map(|parent| parent.join("cgroup.procs"));
        let left = root.is_some_and(|root| fs::write(root, std::process::id().to_string()).is_ok());
        if left {
            let _ = fs::remove_dir(&self.0);
        }
    }
}

/// Megabytes of memory that are used, whatever a pool does, and the compiler.
fn ballast(megabytes: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; megabytes << 20])
}

#[test]
fn from_detector_to_optimize_in_a_container_whose_memory_runs_short() {
    if !alone("from_detector_to_optimize_in_a_container_whose_memory_runs_short") {
        return;
    }
    let Some(_container) = Container::join() else {
        skip("memory that runs short", "this user may make no control group with a limit of memory");
        return;
    };
    let directory = tempfile::tempdir().unwrap();

    // Detector: the container, not the host.
    let detector = ResourceDetector::builder().directory(directory.path()).build().unwrap();
    let now = detector.get_current_resources();
    assert_eq!(now.memory.limit_bytes.as_ref().unwrap().value, LIMIT as u64);
    assert!(now.memory.total_bytes.as_ref().unwrap().value > LIMIT as u64);

    // A pool that may grow to more than the container has.
    let most = Watermarks { min: 0, low: 2, high: 4 };
    let frames = MemoryTier::new("frames", SLOT, 400).watermarks_up_to(most);
    let pool = Pool::builder()
        .memory_tier(frames.with(|tier| tier.min_capacity(16)))
        .cpu("cores")
        .disk("spill", directory.path(), 1 << 20, 4)
        .build()
        .unwrap();
    let slots = || pool.monitor().tier("frames").unwrap().snapshot.slots();

    // Health, which the router goes by.
    let here = Node::new("here", pool.clone());
    let used = |severity, raise, clear| Threshold::new(Signal::MemoryUsed, severity, raise).clear_below(clear);
    let monitor = HealthMonitor::builder(detector)
        .no_thresholds()
        .threshold(used(Severity::Degraded, 0.6, 0.5))
        .pool(&pool)
        .node(&here)
        .build()
        .unwrap();
    assert_eq!(monitor.check_resource_health().health, Health::Healthy);

    // Router, pool, lease.
    let router = TaskRouter::default();
    router.add(here.clone());
    let task = Task::new("decode")
        .needs_several(ResourceRequest::memory(SLOT), 8)
        .needs(ResourceRequest::cpu())
        .needs(ResourceRequest::disk(1000));
    let placement = router.start(&task).unwrap();
    assert_eq!(placement.resources().len(), 10);

    // Metrics, optimize: the tier grows as it is wanted.
    pool.metrics();
    let many: Vec<_> = (0..60).map(|_| pool.try_allocate(Request::memory(SLOT))).collect();
    let held: Vec<_> = many.into_iter().flatten().collect();
    pool.optimize(&pool.metrics());
    assert!(slots() > 68, "{}", slots());

    // Real pressure: somebody else takes memory.
    let weight = ballast(90);
    let status = monitor.check_resource_health();
    assert_eq!((status.health, here.health()), (Health::Degraded, Health::Degraded), "{status:?}");
    let gave_back = |decision: &tierpool::Decision| {
        matches!((decision.change, decision.reason), (Change::Watermarks { .. }, Reason::Pressure { .. }))
    };
    assert!(status.decisions.iter().any(gave_back), "{:?}", status.decisions);
    drop(held);
    let before = slots();
    let status = monitor.check_resource_health();
    assert!(slots() <= 16 && before > 16, "what has become idle goes back: {} of {before}", slots());
    assert!(!status.decisions.is_empty());

    // And the tier goes to the container's limit, and no further: it is refused, and nobody is killed.
    drop(placement);
    let all: Vec<_> = std::iter::from_fn(|| pool.try_allocate(Request::memory(SLOT)).ok()).collect();
    let most = (LIMIT - weight.len()) / SLOT;
    assert!(all.len() > 16 && all.len() < most, "{} of at most {most}", all.len());
    drop(all);

    // Nobody takes it any more: all is well again by itself.
    drop(weight);
    let _ = monitor.check_resource_health();
    let status = monitor.check_resource_health();
    assert_eq!((status.health, here.health()), (Health::Healthy, Health::Healthy), "{status:?}");
    assert_eq!(pool.monitor().tier("frames").unwrap().snapshot.leased, 0);
    let tight = router.start(&task).unwrap();
    drop(tight);
}
