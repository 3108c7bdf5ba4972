//! The scratch file of a disk tier: a file without a name, whose space is the tier's alone, in equal places.
//!
//! Guarantee: a place that was [taken](Scratch::take) has its space (on Linux), so that writes to it do not meet a full disk, and says up to
//! where it may hold what somebody else wrote. One that came [back](Scratch::put_back) has none, where the file system can take it. Nothing
//! of the file is left when the last of its places has gone, or when the process ends in whatever way: its name went before anything was
//! written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::tier::pass;

/// What addresses, lengths and offsets are multiples of where a file is read and written directly: no less than the sectors and pages of
/// any usual disk.
pub(crate) const SECTOR: u64 = 4096;

/// Why there is no scratch file, or no space for one more extent in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The extents have no bytes, or more than a file can have.
    #[error("{extents} extents of {bytes} bytes are no file; give each from 1 byte, and all of them less than 2⁶³")]
    Bytes {
        /// Bytes of an extent.
        bytes: u64,
        /// How many there are to be.
        extents: usize,
    },
    /// Extents for direct reads and writes do not begin where those may.
    #[error(
        "extents of {bytes} bytes cannot be read and written directly; give them a multiple of {SECTOR} bytes, or leave `direct` out"
    )]
    Alignment {
        /// Bytes of an extent.
        bytes: u64,
    },
    /// The file system does not read and write directly.
    #[error(
        "the file system of {dir:?} has no direct reads and writes ({source}); leave `direct` out, or name a directory of another"
    )]
    Direct {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file would be larger than the process may make one.
    #[error(
        "a scratch file of {wanted} bytes in {dir:?} is larger than the process may make one: its limit is {limit}; raise it \
         (`ulimit -f`, RLIMIT_FSIZE), or give fewer or smaller extents"
    )]
    FileSize {
        /// The directory.
        dir: PathBuf,
        /// Bytes that the file would have.
        wanted: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The system refused: no space, no quota, no permission, no such directory.
    #[error("cannot {doing} in {dir:?}: {source}; {}", advice(source.kind()))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tier is one of the process that this was forked from, and the file is that one's.
    #[error(
        "the scratch file belongs to the process that this one was forked from; build a pool of its own in this one"
    )]
    Forked,
    /// All places of the file are in values: one was taken out of its lease, and still exists.
    #[error(
        "no place is left in the scratch file; an extent that was taken out of its lease with `take` has to be dropped first"
    )]
    NoPlace,
}

/// What to do.
fn advice(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        Unsupported,
    };
    match kind {
        NotFound => "create the directory, or name another",
        NotADirectory => "name a directory",
        PermissionDenied => "let the process write there, or name another directory",
        ReadOnlyFilesystem => "name a directory that can be written, or mount its file system so",
        StorageFull => "free some space, give fewer or smaller extents, or name a directory of another file system",
        QuotaExceeded => "the user's disk quota is used up: raise it, or give fewer or smaller extents",
        FileTooLarge => "raise the limit (`ulimit -f`), or give fewer or smaller extents: the file system has one, too",
        Unsupported => "a disk tier needs a Unix",
        _ => "see whether the file system is in order, or name a directory of another",
    }
}

/// How a file system makes the bytes of an extent zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Zeroing {
    /// It notes that they are (`FALLOC_FL_ZERO_RANGE`): takes about as long for many as for few. ext4, XFS, Btrfs.
    Marked,
    /// They are written. tmpfs, NFS, and whatever is not Linux.
    Written,
}

/// A file, and which of its places are free.
pub(crate) struct Scratch {
    tier: String,
    dir: PathBuf,
    file: File,
    /// Bytes of a place.
    bytes: u64,
    direct: bool,
    /// Found out with the first place.
    zeroing: OnceLock<Zeroing>,
    places: Mutex<Places>,
    /// How many forks lie before the process that made it. In a child the file is still the parent's: nothing is done to it there.
    forks: u64,
}

/// Places that are in no value at present.
struct Places {
    /// None from here on was ever used.
    unused: u64,
    end: u64,
    /// Those that came back, and up to where each may still hold what was written.
    back: BTreeMap<u64, u64>,
}

impl Scratch {
    /// A file for so many places of so many bytes, which have no space yet.
    pub(crate) fn new(tier: &str, dir: &Path, bytes: u64, extents: usize, direct: bool) -> Result<Self, DiskError> {
        let size = bytes.checked_mul(extents as u64).filter(|size| i64::try_from(*size).is_ok());
        if bytes == 0 || size.is_none() {
            return Err(DiskError::Bytes { bytes, extents });
        }
        if direct && !bytes.is_multiple_of(SECTOR) {
            return Err(DiskError::Alignment { bytes });
        }
        pass::watch_forks();
        let named = |source| DiskError::Io { doing: "make a scratch file", dir: dir.to_owned(), source };
        let file = system::open(dir).and_then(|file| system::set_size(&file, bytes * extents as u64).map(|()| file));
        let file = file.map_err(named)?;
        if direct {
            system::set_direct(&file).map_err(|source| DiskError::Direct { dir: dir.to_owned(), source })?;
        }
        Ok(Scratch {
            tier: tier.to_owned(),
            dir: dir.to_owned(),
            file,
            bytes,
            direct,
            zeroing: OnceLock::new(),
            places: Mutex::new(Places { unused: 0, end: extents as u64, back: BTreeMap::new() }),
            forks: pass::forks(),
        })
    }

    /// Whether it is this process's own, and not that of one that this was forked from.
    pub(crate) fn is_own(&self) -> bool {
        self.forks == pass::forks()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing panics while it is locked.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tier(&self) -> &str {
        &self.tier
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of a place.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn zeroing(&self) -> Zeroing {
        self.zeroing.get().copied().unwrap_or(Zeroing::Written)
    }

    /// A place with its space: where it begins, and up to which of its bytes it may hold what somebody has written. The others are zero.
    pub(crate) fn take(&self) -> Result<(u64, u64), DiskError> {
        if !self.is_own() {
            return Err(DiskError::Forked);
        }
        let (place, mark) = {
            let mut places = self.places();
            match places.back.pop_first() {
                Some(back) => back,
                None if places.unused < places.end => {
                    places.unused += 1;
                    (places.unused - 1, 0)
                }
                None => return Err(DiskError::NoPlace),
            }
        };
        let start = place * self.bytes;
        match self.reserve(start, mark) {
            Ok(mark) => Ok((start, mark)),
            Err(why) => {
                // It may have got a part of its space.
                self.put_back(start, mark);
                Err(why)
            }
        }
    }

    /// Gives a place its space. Up to where it may hold what was written.
    fn reserve(&self, start: u64, mark: u64) -> Result<u64, DiskError> {
        let end = start + self.bytes;
        if let Some(limit) = system::file_size_limit().filter(|limit| *limit < end) {
            // The system would not only refuse it, but end the process by SIGXFSZ.
            return Err(DiskError::FileSize { dir: self.dir.clone(), wanted: end, limit });
        }
        let named = |source| DiskError::Io { doing: "reserve space for an extent", dir: self.dir.clone(), source };
        let mark = match system::reserve(&self.file, start, self.bytes) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                system::write_zeroes(&self.file, start, self.bytes).map(|()| 0)
            }
            outcome => outcome.map(|()| mark),
        };
        let mark = mark.map_err(named)?;
        // A first place that is all zero can be zeroed to see how.
        self.zeroing.get_or_init(|| match system::mark_zero(&self.file, start, self.bytes) {
            Ok(()) => Zeroing::Marked,
            Err(_) => Zeroing::Written,
        });
        Ok(mark)
    }

    /// Takes a place back, and its space, if the file system can do that; else the place is zeroed when it is next used.
    pub(crate) fn put_back(&self, start: u64, mark: u64) {
        if !self.is_own() {
            return;
        }
        let mark = if system::release(&self.file, start, self.bytes).is_ok() { 0 } else { mark };
        self.places().back.insert(start / self.bytes, mark);
    }

    /// Makes so many bytes of a place zero. They keep their space. For the file's own process.
    pub(crate) fn zero(&self, start: u64, bytes: u64) -> io::Result<()> {
        // Whole sectors: those behind are zero already, and can so be left alone or written directly.
        let bytes = bytes.next_multiple_of(SECTOR).min(self.bytes);
        match self.zeroing() {
            Zeroing::Marked => system::mark_zero(&self.file, start, bytes),
            Zeroing::Written => system::write_zeroes(&self.file, start, bytes),
        }
    }
}

/// What the standard library has of it, and what only Linux has.
#[cfg(unix)]
mod system {
    use std::fs::{self, File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;
    use std::process;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[cfg(target_os = "linux")]
    pub(super) use self::linux::{file_size_limit, mark_zero, release, reserve, set_direct, set_size};
    #[cfg(not(target_os = "linux"))]
    pub(super) use self::portable::{file_size_limit, mark_zero, release, reserve, set_direct, set_size};
    use crate::resource::memory::Memory;

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }

    /// A file without a name: born so where that is possible.
    pub(super) fn open(dir: &Path) -> io::Result<File> {
        #[cfg(target_os = "linux")]
        match options().custom_flags(libc::O_TMPFILE | libc::O_EXCL).open(dir) {
            // File systems, and kernels, that cannot do it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
            outcome => return outcome,
        }
        open_and_unlink(dir)
    }

    /// The same in two steps. A process that is killed between them leaves an empty file.
    pub(super) fn open_and_unlink(dir: &Path) -> io::Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!(".tierpool-{}-{number}", process::id()));
            match options().create_new(true).open(&path) {
                Ok(file) => return fs::remove_file(&path).map(|()| file),
                // Of a process that was killed, and had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn write_zeroes(file: &File, start: u64, bytes: u64) -> io::Result<()> {
        const PART: u64 = 64 << 10;
        // Aligned as direct writes need it.
        let zeroes =
            Memory::new(PART.min(bytes) as usize).map_err(|why| io::Error::new(io::ErrorKind::OutOfMemory, why))?;
        for offset in (0..bytes).step_by(PART as usize) {
            let part = PART.min(bytes - offset);
            file.write_all_at(&zeroes[..part as usize], start + offset)?;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use std::fs::File;
        use std::io;
        use std::os::fd::AsRawFd;

        use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, c_int};

        fn fallocate(file: &File, mode: c_int, start: u64, bytes: u64) -> io::Result<()> {
            loop {
                // SAFETY: it takes no pointers, and the file is open.
                if unsafe { libc::fallocate64(file.as_raw_fd(), mode, start as i64, bytes as i64) } == 0 {
                    return Ok(());
                }
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }

        /// It grows with its places.
        pub(crate) fn set_size(_: &File, _: u64) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn reserve(file: &File, start: u64, bytes: u64) -> io::Result<()> {
            fallocate(file, 0, start, bytes)
        }

        pub(crate) fn release(file: &File, start: u64, bytes: u64) -> io::Result<()> {
            fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, bytes)
        }

        pub(crate) fn mark_zero(file: &File, start: u64, bytes: u64) -> io::Result<()> {
            fallocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, start, bytes)
        }

        pub(crate) fn set_direct(file: &File) -> io::Result<()> {
            // SAFETY: these calls take no pointers, and the file is open.
            let outcome = unsafe {
                let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
                if flags < 0 { flags } else { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) }
            };
            if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }

        /// How large the process may make a file, if there is a limit.
        pub(crate) fn file_size_limit() -> Option<u64> {
            let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the call fills the structure that it is given.
            unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
            #[allow(clippy::useless_conversion, reason = "it has 32 bits on some systems")]
            (limit.rlim_cur != libc::RLIM_INFINITY).then(|| limit.rlim_cur.into())
        }
    }

    /// Elsewhere a file has its size from the beginning, but its space only once it is written; and what it has it keeps.
    #[cfg(not(target_os = "linux"))]
    mod portable {
        use std::fs::File;
        use std::io::{self, ErrorKind::Unsupported};

        pub(crate) fn set_size(file: &File, bytes: u64) -> io::Result<()> {
            file.set_len(bytes)
        }

        pub(crate) fn reserve(_: &File, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn release(_: &File, _: u64, _: u64) -> io::Result<()> {
            Err(Unsupported.into())
        }

        pub(crate) fn mark_zero(_: &File, _: u64, _: u64) -> io::Result<()> {
            Err(Unsupported.into())
        }

        pub(crate) fn set_direct(_: &File) -> io::Result<()> {
            Err(Unsupported.into())
        }

        pub(crate) fn file_size_limit() -> Option<u64> {
            None
        }
    }
}

/// There are no files without names, nor any that are read at an offset by many at once: no disk tiers.
#[cfg(not(unix))]
mod system {
    use std::fs::File;
    use std::io::{self, ErrorKind::Unsupported};
    use std::path::Path;

    pub(super) fn open(_: &Path) -> io::Result<File> {
        Err(Unsupported.into())
    }

    pub(super) fn write_zeroes(_: &File, _: u64, _: u64) -> io::Result<()> {
        Err(Unsupported.into())
    }

    pub(super) fn set_size(_: &File, _: u64) -> io::Result<()> {
        Err(Unsupported.into())
    }

    pub(super) use self::{write_zeroes as reserve, write_zeroes as release, write_zeroes as mark_zero};

    pub(super) fn set_direct(_: &File) -> io::Result<()> {
        Err(Unsupported.into())
    }

    pub(super) fn file_size_limit() -> Option<u64> {
        None
    }
}

#[cfg(all(test, unix, not(loom)))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tierpool-scratch-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_has_no_name_however_it_is_born() {
        let dir = dir("nameless");
        for file in [system::open(&dir).unwrap(), system::open_and_unlink(&dir).unwrap()] {
            file.write_all_at(b"there", 0).unwrap();
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
            assert_eq!(file.metadata().unwrap().nlink(), 0);
        }
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_place_is_taken_once_and_the_first_one_first() {
        let dir = dir("places");
        let scratch = Scratch::new("s", &dir, 8192, 3, false).unwrap();
        let all = || scratch.take().map(|(start, _)| start);
        assert_eq!([all().unwrap(), all().unwrap(), all().unwrap()], [0, 8192, 16384]);
        assert!(matches!(all(), Err(DiskError::NoPlace)));
        scratch.put_back(16384, 0);
        scratch.put_back(0, 0);
        assert_eq!([all().unwrap(), all().unwrap()], [0, 16384]);
        drop(scratch);
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn both_ways_of_zeroing_leave_zeroes_and_neighbours() {
        let dir = dir("zeroing");
        for way in [None, Some(Zeroing::Written)] {
            let scratch = Scratch::new("s", &dir, 200_000, 3, false).unwrap();
            way.into_iter().for_each(|way| scratch.zeroing.set(way).unwrap());
            for _ in 0..3 {
                let (start, mark) = scratch.take().unwrap();
                assert_eq!(mark, 0);
                scratch.file.write_all_at(&vec![7; 200_000], start).unwrap();
            }
            scratch.zero(200_000, 200_000).unwrap();
            let mut all = vec![1; 600_000];
            scratch.file.read_exact_at(&mut all, 0).unwrap();
            let expected = |at| if (200_000..400_000).contains(&at) { 0 } else { 7 };
            assert!(all.iter().enumerate().all(|(at, byte)| *byte == expected(at)), "{:?}", scratch.zeroing());
        }
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = std::env::temp_dir();
        let new =
            |bytes, extents, direct| Scratch::new("s", &dir, bytes, extents, direct).err().map(|why| why.to_string());
        assert!(new(0, 1, false).unwrap().contains("from 1 byte"));
        assert!(new(u64::MAX, 2, false).unwrap().contains("less than 2⁶³"));
        assert!(new(5000, 2, true).unwrap().contains("a multiple of 4096"));
    }
}
