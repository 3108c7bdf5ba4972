//! Looks at the machine, now and then, and keeps what it saw where anybody may read it without waiting.
//!
//! A look reads some twenty small files and makes as many calls of the system: a quarter of a millisecond (`compare --only detect`), on the reclaimer's thread or the
//! caller's.
//! What is read by [`get_current_resources`](ResourceDetector::get_current_resources) is the last look, whole, behind an arc-swap.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache, Guard};

use super::resources::{
    CpuResources, DiskResources, Figure, FileSystemFigures, MemoryResources, PressureResources, ResourceAvailability,
    SystemResources,
};
use crate::machine::affinity;
use crate::machine::cgroup::Groups;
use crate::machine::limits::{self, Limit};
#[cfg(target_os = "linux")]
use crate::machine::meminfo::MEMINFO;
use crate::machine::meminfo::{self, Meminfo, TRANSPARENT};
use crate::machine::pressure;
use crate::machine::root::Root;
use crate::tier::chores::{self, Chore};

/// Says what the machine offers to this process: its memory, processors and disks, within the limits of its container.
///
/// A clone is another reference to the same. What it says is as old as its last look: [`refresh`](Self::refresh), or the background
/// reclaimer's, if the [builder](Self::builder) was told how often.
///
/// ```
/// use tierpool::ResourceDetector;
///
/// let detector = ResourceDetector::new();
/// let now = detector.get_current_resources();
/// if let Some(limit) = &now.memory.limit_bytes {
///     println!("a container with {limit} bytes");
/// }
/// println!("{} threads can run at a time", now.cpu.usable());
/// ```
#[derive(Clone)]
pub struct ResourceDetector {
    seen: Arc<Seen>,
}

/// What a [`ResourceDetector`] shall look at; [`ResourceDetector::builder`] starts one.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct DetectorBuilder {
    root: PathBuf,
    directories: Vec<PathBuf>,
    every: Option<Duration>,
}

struct Seen {
    root: Root,
    directories: Vec<PathBuf>,
    last: Arc<ArcSwap<Look>>,
}

impl Seen {
    fn new(root: Root, directories: Vec<PathBuf>) -> Self {
        let last = Arc::new(ArcSwap::from_pointee(look(&root, &directories)));
        Seen { root, directories, last }
    }
}

/// What one look has seen, in both forms.
struct Look {
    resources: SystemResources,
    availability: ResourceAvailability,
}

/// The last look. Keep it for a moment only, it delays nothing but holds on to what it shows.
pub struct CurrentResources(Guard<Arc<Look>>);

/// A reader of its own, for a loop that asks again and again: as long as there was no new look it costs one load.
#[derive(Clone)]
pub struct ResourceReader {
    cache: Cache<Arc<ArcSwap<Look>>, Arc<Look>>,
}

impl DetectorBuilder {
    /// A directory whose file system is to be looked at: that of a [disk tier](crate::PoolBuilder), for example. May be said again.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directories.push(directory.as_ref().to_owned());
        self
    }

    /// The directory that `proc` and `sys` are in: where a container is shown the host's, for example. Limits of the process and
    /// its affinity are asked of the system all the same. Default: `/`.
    pub fn root(mut self, root: impl AsRef<Path>) -> Self {
        self.root = root.as_ref().to_owned();
        self
    }

    /// Has the background reclaimer look again so often, from 10 ms; the kernel's averages of stalls change every two seconds. Starts its
    /// thread, if no tier has yet. Default: nobody looks but [`ResourceDetector::refresh`].
    pub fn every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    /// Looks for the first time.
    ///
    /// # Errors
    /// If the reclaimer's thread could not be started.
    pub fn build(self) -> std::io::Result<ResourceDetector> {
        let seen = Arc::new(Seen::new(Root::at(&self.root), self.directories));
        if let Some(period) = self.every {
            let weak: Weak<Seen> = Arc::downgrade(&seen);
            chores::every(period, weak)?;
        }
        Ok(ResourceDetector { seen })
    }
}

impl ResourceDetector {
    /// One that has looked at this machine's memory and processors, and does so again when it is told to.
    pub fn new() -> Self {
        ResourceDetector { seen: Arc::new(Seen::new(Root::default(), Vec::new())) }
    }

    /// Begins one that shall look at more, or by itself.
    pub fn builder() -> DetectorBuilder {
        DetectorBuilder { root: PathBuf::from("/"), directories: Vec::new(), every: None }
    }

    /// What was seen last, with the source of each figure. Never waits.
    pub fn get_current_resources(&self) -> CurrentResources {
        CurrentResources(self.seen.last.load())
    }

    /// The same in numbers, copied. Never waits; [`reader`](Self::reader) is the way for a loop.
    pub fn get_availability(&self) -> ResourceAvailability {
        self.seen.last.load().availability
    }

    /// A reader for one thread's loop.
    pub fn reader(&self) -> ResourceReader {
        ResourceReader { cache: Cache::new(Arc::clone(&self.seen.last)) }
    }

    /// Looks again, on this thread.
    pub fn refresh(&self) {
        self.seen.run();
    }
}

impl Default for ResourceDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl ResourceReader {
    /// What can be had, by the last look.
    #[inline]
    pub fn get_availability(&mut self) -> ResourceAvailability {
        self.cache.load().availability
    }

    /// What was seen last.
    #[inline]
    pub fn get_current_resources(&mut self) -> &SystemResources {
        &self.cache.load().resources
    }
}

impl Deref for CurrentResources {
    type Target = SystemResources;

    fn deref(&self) -> &SystemResources {
        &self.0.resources
    }
}

impl Chore for Seen {
    fn run(&self) {
        self.last.store(Arc::new(look(&self.root, &self.directories)));
    }
}

fn look(root: &Root, directories: &[PathBuf]) -> Look {
    let groups = Groups::of_this_process(root);
    let resources = SystemResources {
        at: Instant::now(),
        memory: memory(root, &groups),
        cpu: cpu(root, &groups),
        disks: directories.iter().map(|directory| disk(directory)).collect(),
        pressure: stalls(root, &groups),
    };
    Look { availability: resources.availability(), resources }
}

/// A limit of memory, and what is left of it.
struct Bound {
    limit: Figure<u64>,
    left: Figure<u64>,
}

/// All limits of memory that hold for this process: those of its groups, and its own.
fn bounds(root: &Root, groups: &Groups) -> Vec<Bound> {
    let bound = |bytes: u64, used: u64, source: &str| Bound {
        limit: Figure::new(bytes, source),
        left: Figure::new(bytes.saturating_sub(used), format!("{source} less {used} used")),
    };
    let of_groups = groups.memory_limits(root).into_iter().map(|it| bound(it.bytes, it.used_for_good(), &it.file));
    let own = [(Limit::AddressSpace, "getrlimit(RLIMIT_AS)"), (Limit::Data, "getrlimit(RLIMIT_DATA)")];
    let of_process = own.into_iter().filter_map(|(limit, call)| {
        let bytes = limits::of_process(limit)?;
        Some(bound(bytes, limits::used_by_this_process(root, limit).unwrap_or(0), call))
    });
    of_groups.chain(of_process).collect()
}

/// The machine's memory, and who says it.
#[cfg(target_os = "linux")]
fn meminfo(root: &Root) -> (Meminfo, &'static str) {
    (meminfo::parse(&root.text(MEMINFO).unwrap_or_default()), MEMINFO)
}

#[cfg(not(target_os = "linux"))]
fn meminfo(_: &Root) -> (Meminfo, &'static str) {
    (crate::machine::elsewhere::meminfo(), "sysinfo")
}

fn memory(root: &Root, groups: &Groups) -> MemoryResources {
    let (info, source) = meminfo(root);
    let of_file = |value: Option<u64>, field: &str| value.map(|value| Figure::new(value, format!("{source} {field}")));
    let (limits, left): (Vec<_>, Vec<_>) =
        bounds(root, groups).into_iter().map(|bound| (bound.limit, bound.left)).unzip();
    let of_machine = of_file(info.available, "MemAvailable");
    let locked = limits::of_process(Limit::Locked);
    let swap = groups.swap_limit(root).map(|(bytes, file)| Figure::new(bytes, file));
    MemoryResources {
        total_bytes: of_file(info.total, "MemTotal"),
        // A group's own limit may be wide and what is left of one above it narrow.
        available_bytes: of_machine.into_iter().chain(left).min_by_key(|figure| figure.value),
        limit_bytes: limits.into_iter().min_by_key(|figure| figure.value),
        swap_bytes: of_file(info.swap_total, "SwapTotal").map(|all| match swap {
            Some(limit) if limit.value < all.value => limit,
            _ => all,
        }),
        swap_free_bytes: of_file(info.swap_free, "SwapFree"),
        lock_limit_bytes: locked.map(|value| Figure::new(value, "getrlimit(RLIMIT_MEMLOCK)")),
        huge_page_bytes: of_file(info.huge_page_bytes, "Hugepagesize"),
        huge_pages: of_file(info.huge_pages, "HugePages_Total"),
        huge_pages_free: of_file(info.huge_pages_free, "HugePages_Free less HugePages_Rsvd"),
        transparent_huge_pages: meminfo::transparent(root).map(|choice| Figure::new(choice, TRANSPARENT)),
    }
}

fn cpu(root: &Root, groups: &Groups) -> CpuResources {
    // Where the system does not say which, it says how many.
    let by_count = |_| Figure::new((0..available_parallelism()).collect(), "available_parallelism");
    CpuResources {
        allowed: affinity::allowed().map_or_else(by_count, |cpus| Figure::new(cpus, "sched_getaffinity")),
        quota: groups.cpu_quota(root).map(|quota| Figure::new(quota.cpus, quota.file)),
    }
}

fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn disk(directory: &Path) -> DiskResources {
    let of_call = |value| Figure::new(value, format!("statvfs({})", directory.display()));
    let figures = limits::of_directory(directory).map(|disk| FileSystemFigures {
        total_bytes: of_call(disk.total),
        free_bytes: of_call(disk.available),
        read_only: disk.read_only,
    });
    DiskResources { directory: directory.to_owned(), figures: figures.map_err(|why| why.to_string()) }
}

fn stalls(root: &Root, groups: &Groups) -> PressureResources {
    let group = groups.unified().map(|directory| directory.display().to_string());
    let [cpu, memory, io] = pressure::KINDS.map(|kind| {
        let (stall, file) = pressure::read(root, group.as_deref(), kind)?;
        Some(Figure::new(stall, file))
    });
    PressureResources { cpu, memory, io }
}

impl fmt::Debug for ResourceDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceDetector").field("last", &self.seen.last.load().resources).finish_non_exhaustive()
    }
}

impl fmt::Debug for CurrentResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Debug for ResourceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceReader").finish_non_exhaustive()
    }
}
