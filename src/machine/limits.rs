//! What this process may take of the system by its own limits, and what a directory's file system has free.

use std::io;
use std::path::Path;

use super::root::Root;

/// What the process uses, for those of its limits that are of memory.
pub(crate) const STATUS: &str = "/proc/self/status";

/// A limit of the process that an operator sets with `ulimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Memory that may be locked: `ulimit -l`.
    Locked,
    /// Address space: `ulimit -v`.
    AddressSpace,
    /// Private writable memory: `ulimit -d`.
    Data,
}

/// Bytes and files of a file system, as `df` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) total: u64,
    /// Free for this user: some is kept back for root.
    pub(crate) available: u64,
    pub(crate) read_only: bool,
}

/// Bytes that the process may have; `None` if there is no limit, or no way to ask.
pub(crate) fn of_process(limit: Limit) -> Option<u64> {
    imp::of_process(limit)
}

/// What the process uses of what an address space limit or a data limit is about; `None` if the file does not say.
pub(crate) fn used(status: &str, limit: Limit) -> Option<u64> {
    let name = match limit {
        Limit::Locked => "VmLck",
        Limit::AddressSpace => "VmSize",
        Limit::Data => "VmData",
    };
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The same, of this process.
pub(crate) fn used_by_this_process(root: &Root, limit: Limit) -> Option<u64> {
    used(&root.text(STATUS)?, limit)
}

/// The file system that a directory is on.
///
/// # Errors
/// Those of `statvfs`; `Unsupported` where there is none.
pub(crate) fn of_directory(directory: &Path) -> io::Result<FileSystem> {
    imp::of_directory(directory)
}

#[cfg(target_os = "linux")]
mod imp {
    use std::ffi::CString;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::{FileSystem, Limit};

    pub(super) fn of_process(limit: Limit) -> Option<u64> {
        let which = match limit {
            Limit::Locked => libc::RLIMIT_MEMLOCK,
            Limit::AddressSpace => libc::RLIMIT_AS,
            Limit::Data => libc::RLIMIT_DATA,
        };
        let mut both = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: writes the two numbers of the structure that it is given.
        let known = unsafe { libc::getrlimit(which, &mut both) } == 0;
        (known && both.rlim_cur != libc::RLIM_INFINITY).then_some(both.rlim_cur)
    }

    pub(super) fn of_directory(directory: &Path) -> io::Result<FileSystem> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: reads a text that ends with a zero, and writes a structure of this type.
        if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded, so it has written it.
        let stat = unsafe { stat.assume_init() };
        let unit = stat.f_frsize;
        Ok(FileSystem {
            total: stat.f_blocks.saturating_mul(unit),
            available: stat.f_bavail.saturating_mul(unit),
            read_only: stat.f_flag & libc::ST_RDONLY != 0,
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::path::Path;

    use super::{FileSystem, Limit};

    pub(super) fn of_process(_: Limit) -> Option<u64> {
        None
    }

    pub(super) fn of_directory(_: &Path) -> io::Result<FileSystem> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_found_by_its_name() {
        let text = "Name:\tVmData: 1 kB\nVmSize:\t   12 kB\nVmLck:\t 0 kB\nVmData:\t x kB\n";
        assert_eq!(used(text, Limit::AddressSpace), Some(12 * 1024));
        assert_eq!(used(text, Limit::Locked), Some(0));
        assert_eq!(used(text, Limit::Data), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(of_directory(Path::new("/")).unwrap().total > 0);
        assert_eq!(of_directory(Path::new("/not/there")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(of_directory(Path::new("a\0b")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
