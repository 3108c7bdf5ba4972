//! What a machine offers: a look of the library's detector, and what else matters for latency.

use std::fs;
use std::path::{Path, PathBuf};

use tierpool::{Figure, ResourceDetector, SystemResources, fence_kind};

/// Which clock the kernel reads.
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Whether more memory may be promised than there is: 0 within reason, 1 always, 2 never.
const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// A machine, as the process sees it.
#[derive(Debug)]
pub struct Machine {
    /// Memory, processors, disk, pressure.
    pub resources: SystemResources,
    /// How the processors that may be used choose their speed, each way once.
    pub governors: Option<Figure<Vec<String>>>,
    /// Which clock the kernel reads.
    pub clock: Option<Figure<String>>,
    /// Whether more memory may be promised than there is.
    pub overcommit: Option<Figure<String>>,
    /// Whether the process may lock memory whatever its limit says.
    pub may_lock_all: bool,
    /// Whether releases are spared their fence, since the rare side can have all threads make one.
    pub membarrier: Figure<bool>,
}

impl Machine {
    /// This one; `directory` is where a disk tier would be, `root` where `proc` and `sys` are.
    ///
    /// # Errors
    /// A sentence, if the directory is none.
    pub fn look(directory: &Path, root: &Path) -> Result<Machine, String> {
        let directory = fs::canonicalize(directory)
            .map_err(|why| format!("{}: {why}; give a directory whose disk is to be looked at", directory.display()))?;
        let detector = ResourceDetector::builder().root(root).directory(&directory).build();
        let detector = detector.map_err(|why| why.to_string())?;
        let resources = SystemResources::clone(&detector.get_current_resources());
        let word = |file: &str| {
            let text = fs::read_to_string(under(root, file)).ok()?.trim().to_owned();
            (!text.is_empty()).then(|| figure(text, file))
        };
        let is_membarrier = fence_kind() == tierpool::FenceKind::Membarrier;
        Ok(Machine {
            governors: governors(root, &resources.cpu.allowed.value),
            clock: word(CLOCK),
            overcommit: word(OVERCOMMIT),
            may_lock_all: may_lock_all(root),
            membarrier: figure(is_membarrier, "membarrier(2)"),
            resources,
        })
    }

    /// The directory whose disk was looked at.
    pub fn directory(&self) -> PathBuf {
        self.resources.disks.first().map(|disk| disk.directory.clone()).unwrap_or_default()
    }
}

/// Whether it has the capability to (CAP_IPC_LOCK), in the system's first user name space: in others it does not count.
fn may_lock_all(root: &Path) -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let text = |file: &str| fs::read_to_string(under(root, file)).unwrap_or_default();
    let status = text("/proc/self/status");
    let set = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let is_first = text("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
    is_first && set.is_some_and(|set| set & CAP_IPC_LOCK != 0)
}

fn governors(root: &Path, cpus: &[usize]) -> Option<Figure<Vec<String>>> {
    let file = |cpu: &dyn std::fmt::Display| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let texts = cpus.iter().filter_map(|cpu| fs::read_to_string(under(root, &file(cpu))).ok());
    let mut all: Vec<String> = texts.map(|text| text.trim().to_owned()).collect();
    all.sort();
    all.dedup();
    (!all.is_empty()).then(|| figure(all, &file(&"*")))
}

fn under(root: &Path, file: &str) -> PathBuf {
    root.join(file.trim_start_matches('/'))
}

fn figure<T>(value: T, source: &str) -> Figure<T> {
    Figure { value, source: source.to_owned() }
}
