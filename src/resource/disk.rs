//! An extent, as a disk tier holds it: some bytes of the tier's scratch file, and no others.
//!
//! Guarantee: every byte from the *mark* on is zero, as for [`Memory`](super::memory::Memory); a write raises it first. What lies before it is
//! zeroed before somebody else can read it, or the extent is not given to him. Relies on [`Scratch`] for the space, and for the mark of a
//! place that was used before.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::memory::Scrub;
use super::scratch::{DiskError, SECTOR, Scratch, Zeroing};

/// Nobody's number: whoever comes is another.
const UNKNOWN: u16 = u16::MAX;

/// Bytes of a scratch file: what [`Pool`](crate::Pool) gives for [`Request::disk`](crate::Request::disk).
///
/// As many as were requested, [`len`](Self::len), of those that it has, [`capacity`](Self::capacity). Offsets count from its beginning; what
/// reaches beyond its length is refused as [`InvalidInput`](io::ErrorKind::InvalidInput), and nothing is read or written. Its space was reserved when
/// the tier was built (on Linux), so that a write does not meet a full disk; file systems that never write in place, such as Btrfs, may need
/// new space all the same.
///
/// If the tier is [direct](crate::DiskTier::direct), addresses, lengths and offsets are multiples of 4096; so is its length, rounded up. Buffers
/// of memory tiers from 4 KiB on are aligned so.
///
/// ```
/// use tierpool::{Pool, Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().disk("spill", std::env::temp_dir(), 64 << 10, 4).build()?;
/// let mut extent = pool.try_allocate(Request::disk(50_000))?;
/// extent.write_all_at(b"put aside", 1000)?;
/// let mut read = [0; 9];
/// extent.read_exact_at(&mut read, 1000)?;
/// assert_eq!(&read, b"put aside");
/// assert!(extent.write_at(b"x", 50_000).is_err());
/// # Ok(()) }
/// ```
pub struct Extent {
    scratch: Arc<Scratch>,
    /// Where it begins in the file.
    start: u64,
    /// Bytes that are shown; at most the capacity.
    len: u64,
    /// Every byte from here on is zero; at most the capacity.
    mark: u64,
    /// Who used it last: a tenant's number, 0 for nobody.
    user: u16,
    scrub: Scrub,
}

/// Something beyond the bytes of an extent was to be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {bytes} bytes at offset {offset} goes beyond the extent of tier {tier:?}, which has {len} bytes")]
struct Beyond {
    tier: String,
    doing: &'static str,
    bytes: usize,
    offset: u64,
    len: u64,
}

/// A direct read or write does not begin or end where it may.
#[derive(Debug, thiserror::Error)]
#[error(
    "{doing} {bytes} bytes at offset {offset} with a buffer at {address:#x}: all three have to be multiples of {SECTOR}, as tier {tier:?} is direct"
)]
struct Unaligned {
    tier: String,
    doing: &'static str,
    bytes: usize,
    offset: u64,
    address: usize,
}

impl Extent {
    /// One with its space.
    pub(crate) fn new(scratch: &Arc<Scratch>, scrub: Scrub) -> Result<Self, DiskError> {
        let (start, mark) = scratch.take()?;
        let user = if mark > 0 { UNKNOWN } else { 0 };
        Ok(Extent { scratch: Arc::clone(scratch), start, len: scratch.bytes(), mark, user, scrub })
    }

    /// Bytes that can be read and written.
    #[allow(clippy::len_without_is_empty, reason = "it is no collection, and never empty unless nothing was requested")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that the slot has.
    pub fn capacity(&self) -> u64 {
        self.scratch.bytes()
    }

    /// How its bytes are zeroed on this file system, when they are.
    pub fn zeroing(&self) -> Zeroing {
        self.scratch.zeroing()
    }

    /// Where in the file, if it is within the extent, and the file this process's own.
    fn place(&self, doing: &'static str, bytes: &[u8], offset: u64) -> io::Result<u64> {
        if !self.scratch.is_own() {
            return Err(io::Error::other(DiskError::Forked));
        }
        let refused = |why: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidInput, why);
        let (tier, len, address) = (self.scratch.tier(), self.len, bytes.as_ptr().addr());
        let bytes = bytes.len();
        if offset.checked_add(bytes as u64).is_none_or(|end| end > len) {
            return Err(refused(Box::new(Beyond { tier: tier.to_owned(), doing, bytes, offset, len })));
        }
        let whole = |number: u64| number.is_multiple_of(SECTOR);
        if self.scratch.is_direct() && !(whole(offset) && whole(bytes as u64) && whole(address as u64)) {
            return Err(refused(Box::new(Unaligned { tier: tier.to_owned(), doing, bytes, offset, address })));
        }
        Ok(self.start + offset)
    }

    /// Reads some bytes from `offset` on; returns how many, which may be fewer than `bytes` has.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput), naming tier, length and offset, if `bytes` reaches beyond the extent's length; else what
    /// the system says.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let place = self.place("reading", bytes, offset)?;
        self.system_read(bytes, place)
    }

    /// Fills all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let place = self.place("reading", bytes, offset)?;
        let mut done = 0;
        while done < bytes.len() {
            match self.system_read(&mut bytes[done..], place + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes some of `bytes` from `offset` on; returns how many.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let place = self.begin_write(bytes, offset)?;
        self.system_write(bytes, place)
    }

    /// Writes all of `bytes` from `offset` on. They reach the disk when the system thinks fit, or with [`sync`](Self::sync).
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); some of it may have been written.
    pub fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let place = self.begin_write(bytes, offset)?;
        let mut done = 0;
        while done < bytes.len() {
            match self.system_write(&bytes[done..], place + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begin_write(&mut self, bytes: &[u8], offset: u64) -> io::Result<u64> {
        let place = self.place("writing", bytes, offset)?;
        self.mark = self.mark.max(offset + bytes.len() as u64);
        Ok(place)
    }

    #[cfg(unix)]
    fn system_read(&self, bytes: &mut [u8], place: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self.scratch.file(), bytes, place)
    }

    #[cfg(unix)]
    fn system_write(&self, bytes: &[u8], place: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self.scratch.file(), bytes, place)
    }

    /// Never called: there is no extent.
    #[cfg(not(unix))]
    fn system_read(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called: there is no extent.
    #[cfg(not(unix))]
    fn system_write(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Waits until what was written is on the disk: of all extents of the tier, as they are one file. A process that ends loses it all the
    /// same.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.scratch.file().sync_data()
    }

    /// Makes zero what may have been written, in the way that [`zeroing`](Self::zeroing) says. The space stays reserved.
    ///
    /// # Errors
    /// What the system says; it may still hold what was written then.
    pub fn scrub(&mut self) -> io::Result<()> {
        if self.mark > 0 {
            if !self.scratch.is_own() {
                return Err(io::Error::other(DiskError::Forked));
            }
            self.scratch.zero(self.start, self.mark)?;
            self.mark = 0;
        }
        Ok(())
    }

    /// A new use, by that tenant: shows `len` bytes, or all if there are not so many. False if it has to be scrubbed first; nothing is changed
    /// then.
    #[inline]
    #[must_use]
    pub(crate) fn begin(&mut self, len: u64, user: u16) -> bool {
        let may_see = match self.scrub {
            Scrub::OnChange => self.user == user,
            Scrub::Keep => true,
            // Whatever is there was left by a scrub that failed.
            Scrub::AfterUse => false,
        };
        if self.mark > 0 && !may_see {
            return false;
        }
        let whole = if self.scratch.is_direct() { SECTOR } else { 1 };
        self.len = len.checked_next_multiple_of(whole).map_or(self.capacity(), |len| len.min(self.capacity()));
        self.user = user;
        true
    }
}

/// Its space goes back to the file system, and what was written with it.
impl Drop for Extent {
    fn drop(&mut self) {
        self.scratch.put_back(self.start, self.mark);
    }
}

/// The sizes; the bytes are somebody's data.
impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent")
            .field("tier", &self.scratch.tier())
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
