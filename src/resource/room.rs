//! How many bytes of memory the process may still take: the one place where a region asks before it takes some.
//!
//! A limit that is met in the middle of a page fault is a signal, or the end of the process. So a region asks first, and refuses while
//! there is still a margin for everybody else: the program's own allocator meets the same limit. What counts against this one is memory
//! that may be written to, touched or not; a limit on what is touched says the same of tiers that touch all of it in advance.

/// The margin is a sixteenth of the limit, and not more than this.
const MARGIN: u64 = 16 << 20;

/// Bytes that the process may still take, the margin kept back; `None` if no limit is known.
pub(crate) fn room() -> Option<u64> {
    let (limit, used) = imp::data()?;
    Some(limit.saturating_sub(used).saturating_sub(MARGIN.min(limit / 16)))
}

#[cfg(target_os = "linux")]
mod imp {
    /// The limit on private memory that can be written, and how much of that there is.
    pub(super) fn data() -> Option<(u64, u64)> {
        let limit = crate::sync::pages::data_limit()?;
        let usage = std::fs::read_to_string("/proc/self/status").ok()?;
        let kibibytes = usage.lines().find_map(|line| line.strip_prefix("VmData:"))?.trim().strip_suffix(" kB")?;
        Some((limit, kibibytes.parse::<u64>().ok()? * 1024))
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) fn data() -> Option<(u64, u64)> {
        None
    }
}
