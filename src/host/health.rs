//! Whether all is well, and what is done about it if not.
//!
//! A check holds what the detector sees, how pools stand and what the program has reported against thresholds. What goes past one is an
//! issue: told once, to all who want to know, until it is over. While one of memory stands, pools give back what is idle at every check;
//! when the last is over they recover.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::detector::ResourceDetector;
use super::issue::{IssueState, ResourceIssue, ResourceMetrics, Severity, Signal};
use super::level::Health;
use super::node::{Node, WeakNode};
use super::threshold::{Threshold, Watch};
use crate::pool::monitor::ResourceStatus;
use crate::pool::optimize::Decision;
use crate::pool::{Pool, WeakPool};
use crate::tier::chores::{self, Chore};
use crate::tier::values::{Panic, dispose, rethrow};

/// So many periods without a check mean that nobody makes them any more.
const PERIODS: u32 = 10;

/// Judges the machine and pools, tells what is wrong, and has pools give memory back while it is short.
///
/// A clone is another reference to the same. Keeps no pool open, and no node's. When the last goes while memory is short, pools recover. In the
/// child of a fork, build another.
///
/// ```
/// use tierpool::{Health, HealthMonitor, Pool, ResourceDetector, ResourceIssue, Severity};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("packets", 2048, 64).build()?;
/// let monitor = HealthMonitor::builder(ResourceDetector::new())
///     .pool(&pool)
///     .on_issue(|issue| eprintln!("{issue}"))
///     .build()?;
///
/// let status = monitor.check_resource_health();        // or `every`, and the reclaimer's thread does it
/// println!("ready: {}", status.ready);
///
/// let broken = ResourceIssue::new("upstream", Severity::Unhealthy, "the exchange does not answer");
/// monitor.alert_resource_issue(broken.clone());
/// assert_eq!(monitor.health(), Health::Unhealthy);
/// monitor.alert_resource_issue(broken.cleared());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct HealthMonitor {
    inner: Arc<Inner>,
}

/// What a check has found: [`HealthMonitor::check_resource_health`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HealthStatus {
    /// When it was made.
    pub at: Instant,
    /// How well all is: as bad as the worst issue.
    pub health: Health,
    /// Whether checks are made as they should be. If not, the reclaimer's thread is stuck in the program's code: restart.
    pub live: bool,
    /// Whether requests should be sent here: unless something is unhealthy.
    pub ready: bool,
    /// What is wrong at present, the worst first.
    pub issues: Vec<ResourceIssue>,
    /// What pools did about it in this check.
    pub decisions: Vec<Decision>,
}

/// Whom issues are told to.
type Sink = Box<dyn Fn(&ResourceIssue) + Send + Sync>;

/// What a [`HealthMonitor`] shall watch; [`HealthMonitor::builder`] starts one.
#[must_use = "a builder does nothing until `build` is called"]
pub struct HealthBuilder {
    detector: ResourceDetector,
    pools: Vec<Pool>,
    nodes: Vec<WeakNode>,
    thresholds: Vec<Threshold>,
    sinks: Vec<Sink>,
    every: Option<Duration>,
}

/// Why a monitor was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// A threshold contradicts itself.
    #[error("threshold of {signal}: {problem}")]
    Threshold {
        /// What it is of.
        signal: Signal,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// There was no thread for the checks.
    #[error("the reclaimer's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

struct Inner {
    detector: ResourceDetector,
    nodes: Vec<WeakNode>,
    sinks: Vec<Sink>,
    every: Option<Duration>,
    /// One check at a time: what pools are told last is what is so.
    checking: Mutex<()>,
    state: Mutex<State>,
    /// The last check's, or report's.
    health: AtomicU32,
}

struct State {
    watches: Vec<Watch>,
    pools: Vec<Watched>,
    /// What is wrong at present.
    issues: Vec<ResourceIssue>,
    /// Whether pools were told that memory is short.
    short: bool,
    /// When the reclaimer's thread made its last check.
    by_itself: Instant,
}

/// A pool, and how it stood at the last check.
struct Watched {
    pool: WeakPool,
    before: ResourceStatus,
}

impl HealthBuilder {
    /// A pool to watch, and to have give memory back while that is short. Its [`on_decision`](crate::PoolBuilder::on_decision) must not call the
    /// monitor. May be said again.
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.pools.push(pool.clone());
        self
    }

    /// A node whose health goes by this monitor's: a [`TaskRouter`](crate::TaskRouter) sends it tasks accordingly. May be said again.
    pub fn node(mut self, node: &Node) -> Self {
        self.nodes.push(node.downgrade());
        self
    }

    /// One more threshold. Those that there are from the beginning: memory in use, above 85 % degraded and above 95 % unhealthy, for 2 s;
    /// time lost for want of memory, above 10 % and 40 %, for 10 s; of a processor or the disk, above 50 %; disk in use, above 90 % and 98 %.
    pub fn threshold(mut self, threshold: Threshold) -> Self {
        self.thresholds.push(threshold);
        self
    }

    /// None of the thresholds so far.
    pub fn no_thresholds(mut self) -> Self {
        self.thresholds.clear();
        self
    }

    /// Somebody who is told when an issue begins and when it is over; on the thread that found it. Must not call the monitor. May be said again.
    pub fn on_issue(mut self, sink: impl Fn(&ResourceIssue) + Send + Sync + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// The same through a channel.
    pub fn channel(self) -> (Self, Receiver<ResourceIssue>) {
        let (sender, receiver) = mpsc::channel();
        // Nobody listens any more: nobody is told.
        (self.on_issue(move |issue| drop(sender.send(issue.clone()))), receiver)
    }

    /// The same as events of `tracing`, at the levels of warnings, of errors for what is unhealthy, and of information for what is over. Needs the
    /// feature `tracing`.
    #[cfg(feature = "tracing")]
    pub fn tracing(self) -> Self {
        self.on_issue(|issue| match (issue.state, issue.severity) {
            (IssueState::Cleared, _) => tracing::info!(target: "tierpool::health", "{issue}"),
            (_, Severity::Degraded) => tracing::warn!(target: "tierpool::health", "{issue}"),
            (_, Severity::Unhealthy) => tracing::error!(target: "tierpool::health", "{issue}"),
        })
    }

    /// Has the background reclaimer make a check so often, from 10 ms. Starts its thread, if no tier has yet. Default: nobody but who
    /// calls [`HealthMonitor::check_resource_health`].
    pub fn every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    /// Begins to watch; the first check is the first that is made.
    ///
    /// # Errors
    /// [`HealthError`].
    pub fn build(self) -> Result<HealthMonitor, HealthError> {
        for threshold in &self.thresholds {
            if let Some(problem) = threshold.problem() {
                return Err(HealthError::Threshold { signal: threshold.signal.clone(), problem });
            }
        }
        let watched = |pool: &Pool| Watched { pool: pool.downgrade(), before: pool.monitor() };
        let state = State {
            watches: self.thresholds.into_iter().map(Watch::new).collect(),
            pools: self.pools.iter().map(watched).collect(),
            issues: Vec::new(),
            short: false,
            by_itself: Instant::now(),
        };
        let inner = Arc::new(Inner {
            detector: self.detector,
            nodes: self.nodes,
            sinks: self.sinks,
            every: self.every,
            checking: Mutex::new(()),
            state: Mutex::new(state),
            health: AtomicU32::new(Health::Healthy as u32),
        });
        if let Some(period) = self.every {
            let weak: Weak<Inner> = Arc::downgrade(&inner);
            chores::every(period, weak)?;
        }
        Ok(HealthMonitor { inner })
    }
}

impl HealthMonitor {
    /// Begins one that shall watch the machine as the detector sees it, which each check has look again.
    pub fn builder(detector: ResourceDetector) -> HealthBuilder {
        let thresholds = Threshold::usual();
        HealthBuilder { detector, pools: Vec::new(), nodes: Vec::new(), thresholds, sinks: Vec::new(), every: None }
    }

    /// Makes a check, on this thread: the detector's look, a pass over the headers of the pools that are watched, and some comparisons.
    ///
    /// # Panics
    /// If a sink panics, a pool's decision sink or a value's `Drop`; all that was to be done is done before.
    pub fn check_resource_health(&self) -> HealthStatus {
        let (status, panic) = self.inner.check();
        rethrow(panic);
        status
    }

    /// Holds figures of the program's own, or of anything else, against the thresholds.
    ///
    /// # Panics
    /// If a sink panics.
    pub fn report_resource_metrics(&self, metrics: ResourceMetrics) {
        let told = {
            let mut state = self.inner.state();
            let told = state.look(&metrics, false);
            self.inner.note(&state);
            told
        };
        rethrow(self.inner.tell(&told));
    }

    /// An issue that the program has found itself, or its end. One that stands already and is as bad is not told again.
    ///
    /// # Panics
    /// If a sink panics.
    pub fn alert_resource_issue(&self, issue: ResourceIssue) {
        let told = {
            let mut state = self.inner.state();
            let told = state.take_up(issue);
            self.inner.note(&state);
            told
        };
        rethrow(self.inner.tell(told.as_slice()));
    }

    /// How well all was at the last check or report. One load.
    pub fn health(&self) -> Health {
        Health::from_number(self.inner.health.load(Ordering::Relaxed))
    }

    /// Whether requests should be sent here, by the last check or report. One load.
    pub fn is_ready(&self) -> bool {
        self.health() != Health::Unhealthy
    }

    /// What is wrong at present, the worst first, by the last check or report; makes no check.
    pub fn issues(&self) -> Vec<ResourceIssue> {
        self.inner.state().issues()
    }

    /// Whether checks are made as [`every`](HealthBuilder::every) has said: the last not longer ago than ten periods. If not, the reclaimer's thread
    /// is stuck in the program's code. True if nothing was said.
    pub fn is_live(&self) -> bool {
        self.inner.is_live(self.inner.state().by_itself)
    }
}

impl Chore for Inner {
    fn run(&self) {
        let (_, panic) = self.check();
        self.state().by_itself = Instant::now();
        rethrow(panic);
    }
}

impl Inner {
    /// A panic cannot leave it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, last: Instant) -> bool {
        self.every.is_none_or(|period| last.elapsed() <= period.saturating_mul(PERIODS).max(Duration::from_secs(1)))
    }

    fn note(&self, state: &State) {
        let health = state.health();
        self.health.store(health as u32, Ordering::Relaxed);
        self.nodes.iter().for_each(|node| node.set_health(health));
    }

    /// Tells everybody; the first panic is returned.
    fn tell(&self, issues: &[ResourceIssue]) -> Option<Panic> {
        let told = issues.iter().flat_map(|issue| self.sinks.iter().map(move |sink| (sink, issue)));
        told.fold(None, |first, (sink, issue)| first.or(catch_unwind(AssertUnwindSafe(|| sink(issue))).err()))
    }

    fn check(&self) -> (HealthStatus, Option<Panic>) {
        let _alone = self.checking.lock().unwrap_or_else(PoisonError::into_inner);
        self.detector.refresh();
        let mut metrics = ResourceMetrics::new();
        metrics.add_machine(&self.detector.get_availability());
        let (told, pools, is_short, was_short) = {
            let mut state = self.state();
            let mut pools = Vec::new();
            for (place, watched) in state.pools.iter_mut().enumerate() {
                let Some(pool) = watched.pool.upgrade() else { continue };
                let now = pool.monitor();
                metrics.add_pool(place, &now, &now.since(&watched.before));
                watched.before = now;
                pools.push(pool);
            }
            let told = state.look(&metrics, true);
            let is_short = state.issues.iter().any(ResourceIssue::is_of_memory);
            let was_short = std::mem::replace(&mut state.short, is_short);
            self.note(&state);
            (told, pools, is_short, was_short)
        };
        let mut panic = self.tell(&told);
        let mut decisions = Vec::new();
        for pool in &pools {
            let act = || match (was_short, is_short) {
                (_, true) => pool.relieve(),
                (true, false) => pool.recover(),
                (false, false) => Vec::new(),
            };
            match catch_unwind(AssertUnwindSafe(act)) {
                Ok(done) => decisions.extend(done),
                Err(other) => panic = panic.or(Some(other)),
            }
        }
        let state = self.state();
        let health = state.health();
        let issues = state.issues();
        let (live, ready) = (self.is_live(state.by_itself), health != Health::Unhealthy);
        (HealthStatus { at: metrics.at, health, live, ready, issues, decisions }, panic)
    }
}

/// Nobody would tell the pools any more that memory is short no longer.
impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for pool in state.pools.iter().filter(|_| state.short).filter_map(|watched| watched.pool.upgrade()) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(pool.recover()))) {
                dispose(panic);
            }
        }
    }
}

impl State {
    fn health(&self) -> Health {
        match self.issues.iter().map(|issue| issue.severity).max() {
            None => Health::Healthy,
            Some(Severity::Degraded) => Health::Degraded,
            Some(Severity::Unhealthy) => Health::Unhealthy,
        }
    }

    /// The worst first.
    fn issues(&self) -> Vec<ResourceIssue> {
        let mut issues = self.issues.clone();
        issues.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
        issues
    }

    /// Holds figures against the thresholds; what begins or ends by it. Of a signal that is there more than once, the largest counts. A check knows
    /// all that there is (`all`): an issue whose signal is not in it is over.
    fn look(&mut self, metrics: &ResourceMetrics, all: bool) -> Vec<ResourceIssue> {
        let mut told = Vec::new();
        for watch in &mut self.watches {
            let of_it =
                metrics.values.iter().filter(|(signal, value)| *signal == watch.threshold.signal && !value.is_nan());
            let value = of_it.map(|(_, value)| *value).reduce(f64::max);
            let change = match value {
                Some(value) => watch.look(metrics.at, value),
                None if all && !matches!(watch.threshold.signal, Signal::Custom(_)) => watch.reset(metrics.at),
                None => None,
            };
            told.extend(change.map(|(is_raised, since)| watch.threshold.issue(is_raised, value, since)));
        }
        told.retain(|issue| self.take_up(issue.clone()).is_some());
        told
    }

    /// Adds an issue or takes it away; `None` if that changes nothing.
    fn take_up(&mut self, issue: ResourceIssue) -> Option<ResourceIssue> {
        let is_same = |other: &ResourceIssue| other.signal == issue.signal && other.severity == issue.severity;
        let stands = self.issues.iter().position(is_same);
        let is_watched = |watch: &Watch| {
            let Threshold { signal, severity, .. } = &watch.threshold;
            watch.is_raised() && (signal, severity) == (&issue.signal, &issue.severity)
        };
        match (issue.state, stands) {
            // Another threshold, or this one, still says so.
            (IssueState::Cleared, Some(_)) if self.watches.iter().any(is_watched) => return None,
            (IssueState::Raised, None) => self.issues.push(issue.clone()),
            (IssueState::Cleared, Some(at)) => drop(self.issues.swap_remove(at)),
            (IssueState::Raised, Some(_)) | (IssueState::Cleared, None) => return None,
        }
        Some(issue)
    }
}

impl Threshold {
    fn issue(&self, is_raised: bool, value: Option<f64>, since: Instant) -> ResourceIssue {
        let Threshold { signal, severity, raise, clear, .. } = self;
        let (state, bound, side) = match is_raised {
            true => (IssueState::Raised, raise, "above"),
            false => (IssueState::Cleared, clear, "below"),
        };
        let what = match (signal, value) {
            (_, None) => format!("{signal}: not known any more"),
            (Signal::Custom(_), Some(value)) => format!("{signal}: {value}, {side} {bound}"),
            (_, Some(value)) => format!("{signal}: {:.1} %, {side} {:.0} %", value * 100.0, bound * 100.0),
        };
        ResourceIssue { signal: signal.clone(), severity: *severity, state, value, since, what }
    }
}

impl ResourceIssue {
    fn is_of_memory(&self) -> bool {
        matches!(self.signal, Signal::MemoryUsed | Signal::MemoryStall)
    }
}

impl fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthMonitor").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBuilder").field("thresholds", &self.thresholds).finish_non_exhaustive()
    }
}
