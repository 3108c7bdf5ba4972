//! What is measured, and what is told when it is wrong.

use std::fmt;
use std::time::Instant;

use super::resources::ResourceAvailability;
use crate::pool::metrics::PoolMetrics;
use crate::pool::monitor::ResourceStatus;

/// What a figure is of. All that are a part of something are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The part of the memory that is in use: of the machine's, or of the tightest limit.
    MemoryUsed,
    /// The part of the last 10 seconds for which tasks stood still for want of memory.
    MemoryStall,
    /// Likewise, of a processor.
    CpuStall,
    /// Likewise, of the disk.
    DiskStall,
    /// The part that is used of the fullest of the file systems that the detector was named.
    DiskUsed,
    /// The part of a tier's slots that are held, by the tier's name; of several pools' tiers of that name, the fullest one's.
    TierHeld(String),
    /// The part of a pool's requests that were refused, since the last check; the pool by its place among those that are watched.
    Refused(usize),
    /// Something of the program's own.
    Custom(String),
}

/// Figures at one moment: [`HealthMonitor::report_resource_metrics`](crate::HealthMonitor::report_resource_metrics).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceMetrics {
    /// When.
    pub at: Instant,
    /// What was how much. Of a signal that is there more than once, the largest counts.
    pub values: Vec<(Signal, f64)>,
}

/// How bad an issue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Service goes on, with less to spare.
    Degraded,
    /// Nothing more should be sent here.
    Unhealthy,
}

/// Whether an issue begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssueState {
    /// It has begun.
    Raised,
    /// It is over.
    Cleared,
}

/// Something is wrong, or is so no more. Its `Display` is one line for a log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ResourceIssue {
    /// What it is about.
    pub signal: Signal,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it begins or ends.
    pub state: IssueState,
    /// The figure that told it, if one has.
    pub value: Option<f64>,
    /// Since when it has been so: a threshold's, since the figure went past it.
    pub since: Instant,
    /// In words.
    pub what: String,
}

impl ResourceMetrics {
    /// None yet, of now.
    pub fn new() -> Self {
        ResourceMetrics { at: Instant::now(), values: Vec::new() }
    }

    /// And this.
    pub fn with(mut self, signal: Signal, value: f64) -> Self {
        self.values.push((signal, value));
        self
    }

    /// What is known of the machine.
    pub(super) fn add_machine(&mut self, now: &ResourceAvailability) {
        let used = |left: Option<u64>, of: Option<u64>| Some(1.0 - left? as f64 / of.filter(|of| *of > 0)? as f64);
        let part = |percent: Option<f32>| Some(f64::from(percent?) / 100.0);
        let all = [
            (Signal::MemoryUsed, used(now.memory_bytes, now.memory_of_bytes)),
            (Signal::MemoryStall, part(now.memory_stall)),
            (Signal::CpuStall, part(now.cpu_stall)),
            (Signal::DiskStall, part(now.io_stall)),
            (Signal::DiskUsed, used(now.disk_bytes, now.disk_of_bytes)),
        ];
        self.values.extend(all.into_iter().filter_map(|(signal, value)| Some((signal, value?))));
    }

    /// What is known of a pool, the one at that place.
    pub(super) fn add_pool(&mut self, place: usize, now: &ResourceStatus, since: &PoolMetrics) {
        let tiers = now.tiers.iter().map(|tier| (Signal::TierHeld(tier.name.to_owned()), tier.snapshot.utilization()));
        self.values.extend(tiers);
        self.values.push((Signal::Refused(place), since.failure_rate));
    }
}

impl Default for ResourceMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ResourceIssue {
    /// One of the program's own, which stands until it is [cleared](Self::cleared).
    pub fn new(name: &str, severity: Severity, what: &str) -> Self {
        ResourceIssue {
            signal: Signal::Custom(name.to_owned()),
            severity,
            state: IssueState::Raised,
            value: None,
            since: Instant::now(),
            what: what.to_owned(),
        }
    }

    /// The end of the same issue.
    pub fn cleared(&self) -> Self {
        ResourceIssue { state: IssueState::Cleared, ..self.clone() }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signal::MemoryUsed => write!(f, "memory in use"),
            Signal::MemoryStall => write!(f, "time lost for want of memory"),
            Signal::CpuStall => write!(f, "time lost for want of a processor"),
            Signal::DiskStall => write!(f, "time lost for want of the disk"),
            Signal::DiskUsed => write!(f, "disk in use"),
            Signal::TierHeld(tier) => write!(f, "tier {tier:?} held"),
            Signal::Refused(place) => write!(f, "requests to pool {place} refused"),
            Signal::Custom(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for ResourceIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.state, self.severity) {
            (IssueState::Cleared, _) => "over",
            (_, Severity::Degraded) => "degraded",
            (_, Severity::Unhealthy) => "unhealthy",
        };
        write!(f, "{state}: {}", self.what)
    }
}
