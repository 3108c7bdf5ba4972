//! The health monitor: what it finds, whom it tells, and what pools do about it.
#![cfg(all(target_os = "linux", not(loom), not(shuttle)))]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tierpool::{
    Change, Health, HealthError, HealthMonitor, IssueState, MemoryTier, Pool, Reason, Request, ResourceDetector,
    ResourceIssue, ResourceMetrics, Severity, Signal, Threshold, Watermarks,
};

/// A container of 1,000 MB of which so many are in use, as its files say it.
fn use_megabytes(root: &Path, used: u64) {
    let files = [
        ("proc/self/cgroup", "0::/\n".to_owned()),
        ("proc/self/mountinfo", "1 2 0:3 / /cg rw - cgroup2 cgroup2 rw\n".to_owned()),
        ("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 9000000 kB\n".to_owned()),
        ("cg/memory.max", "1000000000\n".to_owned()),
        ("cg/memory.current", format!("{}\n", used * 1_000_000)),
    ];
    for (file, text) in files {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

fn detector(root: &Path) -> ResourceDetector {
    ResourceDetector::builder().root(root).build().unwrap()
}

/// Above 80 % degraded until below 70 %; above 95 % unhealthy until below 90 %; at once.
fn at_once() -> [Threshold; 2] {
    let of = |severity, raise, clear| Threshold::new(Signal::MemoryUsed, severity, raise).clear_below(clear);
    [of(Severity::Degraded, 0.8, 0.7), of(Severity::Unhealthy, 0.95, 0.9)]
}

#[test]
fn issues_are_told_once_and_are_over_with_hysteresis() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 100);
    let [degraded, unhealthy] = at_once();
    let builder = HealthMonitor::builder(detector(root.path())).no_thresholds();
    let (builder, issues) = builder.threshold(degraded).threshold(unhealthy).channel();
    let monitor = builder.build().unwrap();
    let check = |megabytes: u64| {
        use_megabytes(root.path(), megabytes);
        let status = monitor.check_resource_health();
        assert_eq!(status.health, monitor.health());
        assert_eq!(status.ready, monitor.is_ready());
        let told: Vec<_> = issues.try_iter().map(|issue| (issue.state, issue.severity)).collect();
        (status.health, told)
    };
    use IssueState::{Cleared, Raised};
    use Severity::{Degraded, Unhealthy};
    assert_eq!(check(500), (Health::Healthy, vec![]));
    assert_eq!(check(810), (Health::Degraded, vec![(Raised, Degraded)]));
    assert_eq!(check(790), (Health::Degraded, vec![]), "not twice, and not over yet");
    assert_eq!(check(960), (Health::Unhealthy, vec![(Raised, Unhealthy)]));
    assert_eq!(check(920), (Health::Unhealthy, vec![]));
    assert_eq!(check(890), (Health::Degraded, vec![(Cleared, Unhealthy)]));
    assert_eq!(check(600), (Health::Healthy, vec![(Cleared, Degraded)]));
}

#[test]
fn an_issue_says_what_and_how_much() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 960);
    let monitor = HealthMonitor::builder(detector(root.path())).no_thresholds();
    let monitor = at_once().into_iter().fold(monitor, |monitor, threshold| monitor.threshold(threshold));
    let status = monitor.build().unwrap().check_resource_health();
    let texts: Vec<_> = status.issues.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["unhealthy: memory in use: 96.0 %, above 95 %", "degraded: memory in use: 96.0 %, above 80 %"],
        "the worst first"
    );
    assert!(!status.ready && status.live);
}

#[test]
fn pools_give_back_what_is_idle_while_memory_is_short_and_recover() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 100);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let most = Watermarks { min: 1, low: 2, high: 4 };
    let pool = Pool::builder()
        .memory_tier(MemoryTier::new("frames", 4096, 64).watermarks_up_to(most).with(|tier| tier.min_capacity(8)))
        .on_decision(move |decision| log.lock().unwrap().push(decision.to_string()))
        .build()
        .unwrap();
    let [degraded, _] = at_once();
    let monitor =
        HealthMonitor::builder(detector(root.path())).no_thresholds().threshold(degraded).pool(&pool).build().unwrap();
    let slots = || pool.monitor().tier("frames").unwrap().snapshot.slots();
    pool.optimize(&as_if_wanted(&pool, 64));
    assert!(monitor.check_resource_health().decisions.is_empty());

    let some: Vec<_> = (0..12).map(|_| pool.try_allocate(Request::memory(10)).unwrap()).collect();
    let all = slots();
    use_megabytes(root.path(), 900);
    let status = monitor.check_resource_health();
    assert_eq!(slots(), 16, "of which three quarters are held");
    let changes: Vec<_> = status.decisions.iter().map(|decision| (decision.change, decision.reason)).collect();
    let pressure = Reason::Pressure { held: 12 };
    assert_eq!(
        changes,
        [
            (Change::Slots { from: all, to: 16, reached: 16 }, pressure),
            (Change::Watermarks { from: Watermarks::default(), to: most }, pressure)
        ]
    );
    assert!(told.lock().unwrap().iter().any(|line| line.contains("memory is short")), "{told:?}");
    assert!(pool.optimize(&as_if_wanted(&pool, 64)).is_empty(), "nothing grows now");

    drop(some);
    assert_eq!(monitor.check_resource_health().decisions.len(), 1, "what has become idle since");
    assert_eq!(slots(), 8, "its least");
    assert!(monitor.check_resource_health().decisions.is_empty());

    use_megabytes(root.path(), 500);
    let status = monitor.check_resource_health();
    let back = Change::Watermarks { from: most, to: Watermarks::default() };
    assert_eq!(
        status.decisions.iter().map(|it| (it.change, it.reason)).collect::<Vec<_>>(),
        [(back, Reason::Recovered)]
    );
    assert!(!pool.optimize(&as_if_wanted(&pool, 64)).is_empty(), "it grows again");
}

/// As if so many were wanted.
fn as_if_wanted(pool: &Pool, waiting: usize) -> tierpool::PoolMetrics {
    let mut metrics = pool.metrics();
    for tier in &mut metrics.tiers {
        tier.waiting = waiting;
    }
    metrics
}

#[test]
fn what_the_program_reports_and_alerts_counts() {
    let root = tempfile::tempdir().unwrap();
    let queue = || Signal::Custom("queue".to_owned());
    let builder = HealthMonitor::builder(detector(root.path()));
    let threshold = Threshold::new(queue(), Severity::Degraded, 100.0).clear_below(10.0);
    let (builder, issues) = builder.threshold(threshold).channel();
    let monitor = builder.build().unwrap();
    monitor.report_resource_metrics(ResourceMetrics::new().with(queue(), 101.0).with(queue(), f64::NAN));
    assert_eq!(monitor.health(), Health::Degraded);
    assert_eq!(issues.try_recv().unwrap().to_string(), "degraded: queue: 101, above 100");

    let broken = ResourceIssue::new("upstream", Severity::Unhealthy, "the exchange does not answer");
    monitor.alert_resource_issue(broken.clone());
    monitor.alert_resource_issue(broken.clone());
    assert_eq!(issues.try_iter().count(), 1, "the same is told once");
    assert!(!monitor.is_ready());
    monitor.alert_resource_issue(broken.cleared());
    monitor.alert_resource_issue(broken.cleared());
    assert_eq!(issues.try_iter().map(|issue| issue.state).collect::<Vec<_>>(), [IssueState::Cleared]);
    monitor.report_resource_metrics(ResourceMetrics::new().with(queue(), 9.0));
    assert_eq!(monitor.health(), Health::Healthy);
}

#[test]
fn a_tier_that_is_full_and_requests_that_are_refused_are_seen() {
    let root = tempfile::tempdir().unwrap();
    let pool = Pool::builder().memory("frames", 64, 4).build().unwrap();
    let monitor = HealthMonitor::builder(detector(root.path()))
        .pool(&pool)
        .threshold(Threshold::new(Signal::TierHeld("frames".to_owned()), Severity::Degraded, 0.9))
        .threshold(Threshold::new(Signal::Refused(0), Severity::Unhealthy, 0.1))
        .build()
        .unwrap();
    let held: Vec<_> = (0..4).map(|_| pool.try_allocate(Request::memory(1)).unwrap()).collect();
    assert_eq!(monitor.check_resource_health().health, Health::Degraded);
    assert!(pool.try_allocate(Request::memory(1)).is_err());
    assert_eq!(monitor.check_resource_health().health, Health::Unhealthy);
    drop(held);
    assert_eq!(monitor.check_resource_health().health, Health::Healthy, "nobody was refused since");
    drop(pool);
    assert_eq!(monitor.check_resource_health().health, Health::Healthy, "and it keeps no pool open");
}

#[test]
fn of_two_pools_the_fuller_one_counts_and_one_that_goes_takes_its_issue_along() {
    let root = tempfile::tempdir().unwrap();
    let pool = || Pool::builder().memory("frames", 64, 2).build().unwrap();
    let (full, idle) = (pool(), pool());
    let held_for = Duration::from_millis(20);
    let monitor = HealthMonitor::builder(detector(root.path()))
        .pool(&full)
        .pool(&idle)
        .threshold(Threshold::new(Signal::TierHeld("frames".to_owned()), Severity::Unhealthy, 0.9).held_for(held_for))
        .build()
        .unwrap();
    let held: Vec<_> = (0..2).map(|_| full.try_allocate(Request::memory(1)).unwrap()).collect();
    assert_eq!(monitor.check_resource_health().health, Health::Healthy, "not for long enough");
    std::thread::sleep(held_for);
    assert_eq!(monitor.check_resource_health().health, Health::Unhealthy);
    drop((full, held));
    assert_eq!(
        monitor.check_resource_health().health,
        Health::Unhealthy,
        "the other's figure has to be low for as long"
    );
    drop(idle);
    let status = monitor.check_resource_health();
    assert_eq!((status.health, status.issues.len()), (Health::Healthy, 0), "nobody has such a tier");
}

#[test]
fn a_stricter_threshold_of_the_same_kind_stands_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let queue = || Signal::Custom("queue".to_owned());
    let of = |raise, clear| Threshold::new(queue(), Severity::Degraded, raise).clear_below(clear);
    let builder = HealthMonitor::builder(detector(root.path())).threshold(of(85.0, 75.0)).threshold(of(70.0, 50.0));
    let (builder, issues) = builder.channel();
    let monitor = builder.build().unwrap();
    let report = |value| {
        monitor.report_resource_metrics(ResourceMetrics::new().with(queue(), value));
        (monitor.health(), issues.try_iter().count())
    };
    assert_eq!(report(90.0), (Health::Degraded, 1), "told once");
    assert_eq!(report(72.0), (Health::Degraded, 0), "the stricter one stands");
    assert_eq!(report(49.0), (Health::Healthy, 1));
}

#[test]
fn a_limit_wider_than_the_machine_limits_nothing() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 100);
    fs::write(root.path().join("cg/memory.max"), "900000000000\n").unwrap();
    let monitor = HealthMonitor::builder(detector(root.path())).no_thresholds();
    let monitor = at_once().into_iter().fold(monitor, |monitor, threshold| monitor.threshold(threshold));
    assert_eq!(monitor.build().unwrap().check_resource_health().health, Health::Healthy);
}

#[test]
fn pools_recover_when_nobody_watches_any_more() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 900);
    let most = Watermarks { min: 1, low: 2, high: 4 };
    let pool = Pool::builder().memory_tier(MemoryTier::new("frames", 64, 8).watermarks_up_to(most)).build().unwrap();
    let [degraded, _] = at_once();
    let watch = || {
        let builder = HealthMonitor::builder(detector(root.path())).no_thresholds();
        builder.threshold(degraded.clone()).pool(&pool).build().unwrap()
    };
    let reserved = || pool.monitor().tier("frames").unwrap().snapshot.reserved;
    let monitor = watch();
    let _ = monitor.check_resource_health();
    assert_eq!(reserved(), 4);
    drop(monitor);
    assert_eq!(reserved(), 0);

    // Watermarks that somebody sets meanwhile are what it comes back to.
    let monitor = watch();
    let _ = monitor.check_resource_health();
    pool.set_watermarks("frames", Watermarks { min: 0, low: 0, high: 1 }).unwrap();
    let _ = monitor.check_resource_health();
    assert_eq!(reserved(), 4, "it is still short");
    use_megabytes(root.path(), 100);
    let _ = monitor.check_resource_health();
    assert_eq!(reserved(), 1);
}

#[test]
fn a_sink_that_panics_keeps_nobody_from_hearing() {
    let root = tempfile::tempdir().unwrap();
    let builder = HealthMonitor::builder(detector(root.path())).on_issue(|_| panic!("the log is full"));
    let (builder, issues) = builder.channel();
    let monitor = builder.build().unwrap();
    let issue = ResourceIssue::new("x", Severity::Degraded, "x");
    let alert = || monitor.alert_resource_issue(issue.clone());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(alert)).is_err());
    assert_eq!((issues.try_iter().count(), monitor.health()), (1, Health::Degraded));
}

#[test]
fn the_reclaimer_checks_by_itself() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 900);
    let [degraded, _] = at_once();
    let builder = HealthMonitor::builder(detector(root.path())).no_thresholds().threshold(degraded);
    let (builder, issues) = builder.every(Duration::from_millis(10)).channel();
    let monitor = builder.build().unwrap();
    assert_eq!(issues.recv_timeout(Duration::from_secs(30)).unwrap().state, IssueState::Raised);
    use_megabytes(root.path(), 100);
    assert_eq!(issues.recv_timeout(Duration::from_secs(30)).unwrap().state, IssueState::Cleared);
    assert!(monitor.is_live());
}

#[test]
fn a_stuck_reclaimer_is_not_live() {
    let root = tempfile::tempdir().unwrap();
    use_megabytes(root.path(), 900);
    let [degraded, _] = at_once();
    let stuck = Arc::new(Mutex::new(()));
    let (held, until) = (stuck.lock().unwrap(), Arc::clone(&stuck));
    let monitor = HealthMonitor::builder(detector(root.path()))
        .no_thresholds()
        .threshold(degraded)
        .every(Duration::from_millis(10))
        .on_issue(move |_| drop(until.lock()))
        .build()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(30);
    while monitor.is_live() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(held);
    while !monitor.is_live() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn thresholds_that_contradict_themselves_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let bad = Threshold::new(Signal::DiskUsed, Severity::Degraded, 0.5).clear_below(0.6);
    let error = HealthMonitor::builder(detector(root.path())).threshold(bad).build().unwrap_err();
    assert!(matches!(error, HealthError::Threshold { signal: Signal::DiskUsed, .. }));
    assert_eq!(
        error.to_string(),
        "threshold of disk in use: it clears above what raises it; give a lower `clear_below`"
    );
}
