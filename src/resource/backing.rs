//! What may be wanted of the memory behind a tier's buffers, what of it makes no sense, what was got, and why it was refused.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::machine::root::Root;
use crate::sync::pages::HUGE;

/// Alignment of small buffers: a cache line.
pub(crate) const LINE: usize = 64;
/// Alignment of buffers of this size and more: a page.
pub(crate) const PAGE: usize = 4096;

/// What pages the buffers of a memory tier lie in: [`MemoryTier::huge_pages`](crate::MemoryTier::huge_pages). A huge page is 2 MiB; fewer of
/// them mean fewer misses in the processor's table of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum HugePages {
    /// Nothing is asked for.
    #[default]
    None,
    /// The kernel is asked for huge pages where it has them at hand (`madvise`). A byte that is touched may take 2 MiB then.
    Transparent,
    /// From the system's reserve of huge pages (`MAP_HUGETLB`), or the pool is not built. They are set aside for all slots of the tier
    /// when it is built, are never swapped out, and are touched when a slot gets them.
    Explicit,
    /// [`Explicit`](Self::Explicit) if the reserve has enough for all slots, else [`Transparent`](Self::Transparent).
    Prefer,
}

/// As in a configuration file.
impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePages::None => "none",
            HugePages::Transparent => "transparent",
            HugePages::Explicit => "explicit",
            HugePages::Prefer => "prefer",
        })
    }
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backing {
    pub(crate) align: Option<usize>,
    pub(crate) huge_pages: HugePages,
    pub(crate) prefault: bool,
    pub(crate) lock: bool,
    pub(crate) guard_pages: bool,
}

impl Default for Backing {
    fn default() -> Self {
        // A first touch of a page takes microseconds: whoever has a pool has it so that its users do not pay that.
        Backing { align: None, huge_pages: HugePages::None, prefault: true, lock: false, guard_pages: false }
    }
}

impl Backing {
    /// The largest alignment that can be asked for.
    pub(crate) const MAX_ALIGN: usize = HUGE;

    /// What is wrong with it on any machine like this one.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let in_range = |align: usize| align.is_power_of_two() && (LINE..=Self::MAX_ALIGN).contains(&align);
        if !self.align.is_none_or(in_range) {
            Some(
                "`align` is no power of two from 64 bytes, a cache line, to 2 MiB; give it one, such as 64, 4096 or 2097152",
            )
        } else if self.guard_pages && self.huge_pages != HugePages::None {
            Some("`guard_pages` lie between the slots, where `huge_pages` leave no room for them; leave out either")
        } else if !cfg!(target_os = "linux") && self.needs_pages() {
            Some("`huge_pages`, `lock` and `guard_pages` are for Linux only; leave them out")
        } else {
            None
        }
    }

    /// Whether more is wanted of it than any allocator gives. (The system's zeroes, and thereby touches, what it aligns.)
    pub(crate) fn needs_pages(&self) -> bool {
        self.huge_pages != HugePages::None || self.lock || self.guard_pages
    }

    /// Where a buffer of so many bytes begins: at a multiple of this.
    pub(crate) fn align_of(&self, bytes: usize) -> usize {
        self.align.unwrap_or(if bytes < PAGE { LINE } else { PAGE })
    }
}

/// What a memory tier has got of what was wanted: [`TierStatus::memory`](crate::TierStatus::memory).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStatus {
    /// Each buffer begins at a multiple of so many bytes.
    pub align: usize,
    /// What was asked for.
    pub huge_pages_wanted: HugePages,
    /// What the tier has.
    pub huge_pages: HugePages,
    /// Why it has that.
    pub because: Arc<str>,
    /// Whether every page is touched before its slot is handed out.
    pub prefaulted: bool,
    /// Whether its memory cannot be swapped out.
    pub locked: bool,
    /// Whether an inaccessible page follows each buffer.
    pub guard_pages: bool,
    /// Bytes of address space that it has, for all its slots.
    pub reserved_bytes: usize,
    /// Bytes of it that have memory, or get it when they are touched. The rest is with the system.
    pub committed_bytes: usize,
}

/// `huge pages: got none, because …`
impl fmt::Display for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "huge pages: got {}, because {}", self.huge_pages, self.because)
    }
}

/// Why a buffer of a memory tier has no memory. In [`PoolError::Memory`](crate::PoolError::Memory); and, when the tier grows later, the
/// source of [`GrowError::Factory`](crate::GrowError::Factory) and [`Report::BuildFailed`](crate::Report::BuildFailed).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system gave none: a limit on address space or data of the process, or the machine has no more.
    #[error(
        "the system gives no {what} of {bytes} bytes: {source}; see `ulimit -v` and `ulimit -d`, or give the tier fewer slots"
    )]
    System {
        /// Memory, or address space.
        what: &'static str,
        /// Bytes that were wanted at once.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A limit of the process or its container is near, and what is left is for the rest of the program.
    #[error(
        "{wanted} bytes more would be too near to a limit of the process or its container, which leaves {room}; raise it (`ulimit -d`, \
         `memory.max`), or give the tier fewer slots"
    )]
    NoRoom {
        /// Bytes that were wanted at once.
        wanted: u64,
        /// Bytes that may still be taken.
        room: u64,
    },
    /// The system's reserve has not so many huge pages.
    #[error(
        "{needed} huge pages of 2 MiB are needed, and {free} of {total} are free ({source}): `echo {} > {}`, or ask for \
         `HugePages::Prefer`",
        .total + .needed.saturating_sub(*.free),
        NR_HUGEPAGES
    )]
    HugePages {
        /// Huge pages that all slots of the tier need.
        needed: usize,
        /// Those in the reserve that nobody has.
        free: usize,
        /// Those in the reserve.
        total: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The process may not lock so much memory.
    #[error(
        "cannot lock {bytes} bytes of the {all} that the tier locks: {source}; the process may lock {} (RLIMIT_MEMLOCK): raise it \
         (`ulimit -l {}`, `LimitMEMLOCK=` of systemd), or give it CAP_IPC_LOCK",
        Limit(*.limit),
        .all.div_ceil(1024)
    )]
    Lock {
        /// Bytes that were to be locked at once.
        bytes: usize,
        /// Bytes that the tier locks in all.
        all: usize,
        /// RLIMIT_MEMLOCK, in bytes; `None` if there is no limit.
        limit: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// Guard pages take two mappings a slot, of which a process has only so many.
    #[error(
        "guard pages for {slots} slots take {} mappings, and a process has {max} at most: `sysctl vm.max_map_count={}`, or give the tier \
         fewer slots",
        .slots * 2,
        .max + .slots * 2
    )]
    Mappings {
        /// Slots of the tier.
        slots: usize,
        /// Mappings of a process.
        max: usize,
    },
    /// All places of the tier are in use: buffers were taken out of it, or are just being given back.
    #[error(
        "all {places} places of the tier are in use: by buffers that were taken out of it (`Lease::take`), or are being given back at \
         this moment; drop what was taken"
    )]
    Taken {
        /// Places for buffers.
        places: usize,
    },
}

/// Where the reserve of huge pages is set.
const NR_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Huge pages of 2 MiB in the system's reserve: all, and those that are free. None where there is no such thing.
pub(crate) fn huge_pages() -> (usize, usize) {
    let (root, number) = (Root::default(), |pages: Option<u64>| pages.unwrap_or(0) as usize);
    // Those that others have had set aside are free, but not to be had.
    let of = |name: &str| root.number(NR_HUGEPAGES.replace("nr_hugepages", name));
    let free = number(of("free_hugepages")).saturating_sub(number(of("resv_hugepages")));
    (number(of("nr_hugepages")), free)
}

struct Limit(Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => f.write_str("any number of bytes"),
        }
    }
}
