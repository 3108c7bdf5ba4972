//! What the machine offers to this process: the figures of a look, each with its source.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use crate::machine::affinity::List;
pub use crate::machine::pressure::Stall;

/// A figure, and where it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure<T> {
    /// It.
    pub value: T,
    /// A file and what in it, or a call of the system: `/proc/meminfo MemAvailable`.
    pub source: String,
}

impl<T> Figure<T> {
    pub(super) fn new(value: T, source: impl Into<String>) -> Self {
        Figure { value, source: source.into() }
    }
}

impl<T: fmt::Display> fmt::Display for Figure<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.value, self.source)
    }
}

/// What the machine and this process's container offer: [`ResourceDetector::get_current_resources`](crate::ResourceDetector::get_current_resources).
///
/// What is `None` could not be read, or is not limited; nothing is a guess.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SystemResources {
    /// When the look was.
    pub at: Instant,
    /// Memory.
    pub memory: MemoryResources,
    /// Processors.
    pub cpu: CpuResources,
    /// The file systems of the directories that were named, in their order.
    pub disks: Vec<DiskResources>,
    /// How much tasks stand still for want of something.
    pub pressure: PressureResources,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MemoryResources {
    /// What the machine has.
    pub total_bytes: Option<Figure<u64>>,
    /// What can be had without swapping: of the machine, and of each limit that holds; the least.
    pub available_bytes: Option<Figure<u64>>,
    /// The tightest limit of the container, as far as it can see those above it, and of the process itself (`ulimit -v`, `-d`); if there is any.
    pub limit_bytes: Option<Figure<u64>>,
    /// Swap space that the process may use: the machine's, or what its container may have of it.
    pub swap_bytes: Option<Figure<u64>>,
    /// The part of the machine's swap space that is free.
    pub swap_free_bytes: Option<Figure<u64>>,
    /// What the process may lock, if that is limited.
    pub lock_limit_bytes: Option<Figure<u64>>,
    /// Size of a huge page.
    pub huge_page_bytes: Option<Figure<u64>>,
    /// Huge pages that were set apart.
    pub huge_pages: Option<Figure<u64>>,
    /// Those of them that nobody has or was promised.
    pub huge_pages_free: Option<Figure<u64>>,
    /// Which memory the kernel makes huge pages of by itself: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<Figure<String>>,
}

/// Processors.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CpuResources {
    /// Those that this process may use, by their numbers: the affinity of the thread that looked, within its cpuset, before a lease pinned it.
    pub allowed: Figure<Vec<usize>>,
    /// How many processors' time its container may use, if that is limited.
    pub quota: Option<Figure<f64>>,
}

impl CpuResources {
    /// How many threads can run at a time: one for each allowed processor, and no more than the quota, rounded up, feeds. At least 1.
    pub fn usable(&self) -> usize {
        let allowed = self.allowed.value.len();
        self.quota.as_ref().map_or(allowed, |quota| allowed.min(quota.value.ceil() as usize)).max(1)
    }

    /// The first `most` of the allowed ones as the system writes them, and takes them (`taskset -c`): `0-3,7`.
    pub fn list(&self, most: usize) -> String {
        let allowed = &self.allowed.value;
        List(&allowed[..allowed.len().min(most)]).to_string()
    }
}

/// A file system, in bytes, as `df` shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskResources {
    /// The directory that was named.
    pub directory: PathBuf,
    /// What its file system is like, or why that is not known.
    pub figures: Result<FileSystemFigures, String>,
}

/// See [`DiskResources`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FileSystemFigures {
    /// Its size.
    pub total_bytes: Figure<u64>,
    /// What this user may still write.
    pub free_bytes: Figure<u64>,
    /// Whether nothing can be written at all.
    pub read_only: bool,
}

/// Pressure stall information: for which part of the time, in percent, tasks stood still for want of something; of the container where the
/// system says it, else of the machine.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PressureResources {
    /// Of a processor.
    pub cpu: Option<Figure<Stall>>,
    /// Of memory.
    pub memory: Option<Figure<Stall>>,
    /// Of the disk.
    pub io: Option<Figure<Stall>>,
}

/// What can be had at this moment, in numbers only: [`ResourceDetector::get_availability`](crate::ResourceDetector::get_availability).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ResourceAvailability {
    /// Bytes of memory that this process can have before somebody is refused, swapped or killed. `None` if unknown.
    pub memory_bytes: Option<u64>,
    /// Of which whole: the machine's memory, or the tightest limit, if that is less.
    pub memory_of_bytes: Option<u64>,
    /// How many of its threads can run at a time.
    pub cpus: usize,
    /// Bytes free on the fullest of the file systems of the directories that were named. `None` if none was, or it is unknown.
    pub disk_bytes: Option<u64>,
    /// Of which whole.
    pub disk_of_bytes: Option<u64>,
    /// For which part of the last 10 seconds, in percent, at least one task stood still for want of memory. `None` if unknown.
    pub memory_stall: Option<f32>,
    /// Likewise, of a processor.
    pub cpu_stall: Option<f32>,
    /// Likewise, of the disk.
    pub io_stall: Option<f32>,
}

impl SystemResources {
    /// The same in numbers.
    pub fn availability(&self) -> ResourceAvailability {
        let value = |figure: &Option<Figure<u64>>| figure.as_ref().map(|figure| figure.value);
        let stall = |figure: &Option<Figure<Stall>>| figure.as_ref().map(|figure| figure.value.some_10s);
        let disks = self.disks.iter().filter_map(|disk| {
            let figures = disk.figures.as_ref().ok()?;
            let free = if figures.read_only { 0 } else { figures.free_bytes.value };
            Some((free, figures.total_bytes.value))
        });
        let part = |(free, total): &(u64, u64)| *free as f64 / (*total).max(1) as f64;
        let fullest = disks.min_by(|one, other| part(one).total_cmp(&part(other)));
        ResourceAvailability {
            memory_bytes: value(&self.memory.available_bytes),
            memory_of_bytes: value(&self.memory.limit_bytes).into_iter().chain(value(&self.memory.total_bytes)).min(),
            cpus: self.cpu.usable(),
            disk_bytes: fullest.map(|(free, _)| free),
            disk_of_bytes: fullest.map(|(_, total)| total),
            memory_stall: stall(&self.pressure.memory),
            cpu_stall: stall(&self.pressure.cpu),
            io_stall: stall(&self.pressure.io),
        }
    }
}
