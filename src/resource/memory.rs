//! Plain bytes, as a memory tier holds them: aligned, zeroed, and scrubbed when they change hands. They lie in the tier's [region](Region),
//! or were allocated by themselves: outside of tiers, in a pool's overflow, and where there are no regions.
//!
//! Guarantee: every byte from the *mark* on is zero. Whatever may write raises the mark first: the filling interface to where it has
//! filled, and a mutable view to the end of what it shows, since nobody can know which of its bytes were written. So a scrub zeroes
//! only up to the mark. It relies on the region, and on the system allocator.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use super::backing::{LINE, PAGE};
use super::region::Region;

/// The user of bytes that are in no tier's hands yet, or that somebody has put into a lease in place of others. No tenant has this number.
const UNKNOWN: u16 = u16::MAX;

/// Bytes of a slot: what [`Pool`](crate::Pool) gives for [`Request::memory`](crate::Request::memory).
///
/// Dereferences to as many bytes as were requested, [`len`](slice::len); the slot may have more, [`capacity`](Self::capacity). Aligned to 64
/// bytes, from 4 KiB on to 4 KiB, or as the [tier](crate::MemoryTier::align) says.
///
/// Beside that it can be filled from front to back ([`put_slice`](Self::put_slice), `std::io::Write`), which is worth it where buffers
/// change tenants: only bytes that may have been written are scrubbed then. What was written through a mutable view counts whole.
///
/// ```
/// use std::io::Write;
///
/// let mut memory = tierpool::Memory::new(2048)?;
/// memory.put_slice(b"GET ");
/// write!(memory, "{}", "/index.html")?;
/// assert_eq!(memory.filled(), b"GET /index.html");
/// assert_eq!((memory.len(), memory.remaining()), (2048, 2048 - 15));
/// memory[2047] = 1;                            // all of it, as a slice
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// A line of its own: two threads that use neighbouring slots would else write to the same one.
#[repr(align(64))]
pub struct Memory {
    /// `capacity` bytes, all initialised; dangling if there are none.
    bytes: NonNull<u8>,
    capacity: usize,
    /// Bytes that are shown; at most `capacity`.
    len: usize,
    /// Where the filling interface goes on; at most `len`.
    filled: usize,
    /// Every byte from here on is zero; at most `capacity`.
    mark: usize,
    /// Whose bytes they are; the system allocator's, if nobody's.
    region: Option<Arc<Region>>,
    /// Who used it last: a tenant's number, 0 for nobody, [`UNKNOWN`].
    user: u16,
    scrub: Scrub,
    /// The alignment with which they were allocated, as a power of two.
    align: u8,
}

const _: () = assert!(size_of::<Memory>() == LINE);

// SAFETY: the bytes are owned by this value alone, like those of a `Box<[u8]>`; and a region may be shared.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared `Memory` is only read.
unsafe impl Sync for Memory {}

/// When the bytes of a memory tier are zeroed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Scrub {
    /// When a slot goes to another tenant than had it last, by whoever allocates it. The same tenant, or nobody after nobody, finds what
    /// was left. Costs a comparison while the tenant is the same, and else zeroing what may have been written.
    ///
    /// Whoever releases cannot know who comes next, so there is nothing to put off: [`AfterUse`](Self::AfterUse) is the way to have
    /// large buffers zeroed on another thread.
    #[default]
    OnChange,
    /// After every use, by the reclaimer, or by an allocation that finds nothing else: every user finds zeroes, and no allocation takes
    /// long if the reclaimer runs in the [background](crate::Reclaimer::Background). For large buffers, and for secrets.
    AfterUse,
    /// Never: tenants see each other's bytes.
    Keep,
}

/// The system had no memory for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a buffer of {bytes} bytes")]
pub struct NoMemory {
    /// Bytes of the buffer.
    pub bytes: usize,
}

impl Memory {
    /// A buffer of so many bytes, all zero and all shown. None are allocated for zero.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(bytes: usize) -> Result<Self, NoMemory> {
        Self::with_scrub(bytes, Scrub::OnChange)
    }

    pub(crate) fn with_scrub(bytes: usize, scrub: Scrub) -> Result<Self, NoMemory> {
        Self::aligned(bytes, if bytes < PAGE { LINE } else { PAGE }, scrub)
    }

    /// The same at a multiple of `align`, a power of two.
    pub(crate) fn aligned(bytes: usize, align: usize, scrub: Scrub) -> Result<Self, NoMemory> {
        if bytes == 0 {
            let mut none = Memory::empty();
            none.scrub = scrub;
            return Ok(none);
        }
        let layout = Layout::from_size_align(bytes, align).map_err(|_| NoMemory { bytes })?;
        // SAFETY: the layout is not of size zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(NoMemory { bytes })?;
        let align = align.trailing_zeros() as u8;
        Ok(Memory {
            bytes: start,
            capacity: bytes,
            len: bytes,
            filled: 0,
            mark: 0,
            region: None,
            user: UNKNOWN,
            scrub,
            align,
        })
    }

    /// A buffer that lies in a region, all of it shown.
    ///
    /// # Safety
    /// So many bytes from `start` on are zero, and this buffer's until it gives them back to the region.
    pub(crate) unsafe fn in_region(region: Arc<Region>, start: NonNull<u8>, bytes: usize, scrub: Scrub) -> Self {
        Memory {
            bytes: start,
            capacity: bytes,
            len: bytes,
            filled: 0,
            mark: 0,
            region: Some(region),
            user: UNKNOWN,
            scrub,
            align: 0,
        }
    }

    /// A buffer without bytes.
    pub(crate) const fn empty() -> Self {
        let (bytes, scrub) = (NonNull::dangling(), Scrub::OnChange);
        Memory { bytes, capacity: 0, len: 0, filled: 0, mark: 0, region: None, user: UNKNOWN, scrub, align: 0 }
    }

    /// Bytes that the slot has.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Shows so many bytes from here on. Those that were not shown before are what the last user of the same tenant left there, or
    /// zeroes; see [`Scrub`].
    ///
    /// # Panics
    /// If they are more than [`capacity`](Self::capacity).
    #[track_caller]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "`set_len` to {len} of memory with a capacity of {} bytes", self.capacity);
        self.len = len;
        self.filled = self.filled.min(len);
    }

    /// What was filled since the allocation or the last [`clear`](Self::clear).
    pub fn filled(&self) -> &[u8] {
        &self[..self.filled]
    }

    /// The same, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // Not all of it need have been written: `advance` may have passed over zeroes.
        self.mark = self.mark.max(self.filled);
        // SAFETY: `filled` is at most the capacity; the bytes are initialised, and borrowed mutably with `self`.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.filled) }
    }

    /// Bytes that can still be filled.
    pub fn remaining(&self) -> usize {
        self.len - self.filled
    }

    /// Fills from the front again. The bytes stay.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends `bytes` to what was filled.
    ///
    /// # Panics
    /// If they are more than [`remaining`](Self::remaining).
    #[track_caller]
    pub fn put_slice(&mut self, bytes: &[u8]) {
        let (left, wanted) = (self.remaining(), bytes.len());
        assert!(wanted <= left, "`put_slice` of {wanted} bytes into memory with {left} of {} left", self.len);
        let end = self.filled + wanted;
        self.mark = self.mark.max(end);
        // SAFETY: `end` is at most `len`, which is at most the capacity; `self` is borrowed mutably, so `bytes` lies elsewhere.
        unsafe { self.bytes.add(self.filled).copy_from_nonoverlapping(NonNull::from(bytes).cast(), wanted) };
        self.filled = end;
    }

    /// Appends a byte.
    ///
    /// # Panics
    /// As [`put_slice`](Self::put_slice).
    #[track_caller]
    pub fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    /// Appends two bytes, the higher one first, as networks do.
    ///
    /// # Panics
    /// As [`put_slice`](Self::put_slice).
    #[track_caller]
    pub fn put_u16(&mut self, value: u16) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Appends four bytes, the highest first.
    ///
    /// # Panics
    /// As [`put_slice`](Self::put_slice).
    #[track_caller]
    pub fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Appends eight bytes, the highest first.
    ///
    /// # Panics
    /// As [`put_slice`](Self::put_slice).
    #[track_caller]
    pub fn put_u64(&mut self, value: u64) {
        self.put_slice(&value.to_be_bytes());
    }

    /// What is not filled yet, to be written by a read or a system call; [`advance`](Self::advance) says how much was. All of it counts as
    /// written.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let filled = self.filled;
        &mut self[filled..]
    }

    /// The next `bytes` of [`spare_mut`](Self::spare_mut) are filled.
    ///
    /// # Panics
    /// If they are more than [`remaining`](Self::remaining).
    #[track_caller]
    pub fn advance(&mut self, bytes: usize) {
        let left = self.remaining();
        assert!(bytes <= left, "`advance` by {bytes} bytes in memory with {left} of {} left", self.len);
        self.filled += bytes;
    }

    /// Zeroes what may have been written, and begins anew: everything is zero then.
    pub fn scrub(&mut self) {
        // SAFETY: `mark` is at most the capacity, and `self` is borrowed mutably.
        unsafe { self.bytes.write_bytes(0, self.mark) };
        self.mark = 0;
        self.filled = 0;
    }

    /// A new use, by that tenant: shows `len` bytes. False if there are not so many; nothing is changed then.
    #[inline(always)]
    #[must_use]
    pub(crate) fn begin(&mut self, len: usize, user: u16) -> bool {
        if len > self.capacity {
            return false;
        }
        if self.user != user {
            self.user = user;
            if self.scrub != Scrub::Keep {
                self.scrub();
            }
        }
        self.len = len;
        self.filled = 0;
        true
    }
}

impl Deref for Memory {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` is at most the capacity, and the bytes are initialised and borrowed with `self`.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

impl DerefMut for Memory {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mark = self.mark.max(self.len);
        // SAFETY: as above, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(region) = self.region.take() {
            // SAFETY: the bytes are the region's, and go with this value; from `mark` on they are zero.
            unsafe { region.give_back(self.bytes, self.mark) };
        } else if self.capacity > 0 {
            // SAFETY: the bytes were allocated with this very layout, which was checked then, and go with this value.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.capacity, 1 << self.align);
                dealloc(self.bytes.as_ptr(), layout);
            }
        }
    }
}

/// Fills: `write` takes as much as there is room for.
impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.remaining());
        self.put_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sizes; the bytes are somebody's data.
impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for bytes in [1, 63, 64, 2048, 4095, 4096, 5000, 1 << 20] {
            let memory = Memory::new(bytes).unwrap();
            let align = if bytes < PAGE { LINE } else { PAGE };
            assert_eq!(memory.as_ptr() as usize % align, 0, "{bytes} bytes");
            assert_eq!((memory.len(), memory.capacity(), memory.remaining()), (bytes, bytes, bytes));
            assert!(memory.iter().all(|&byte| byte == 0));
        }
        assert_eq!(Memory::new(0).unwrap().len(), 0);
        assert_eq!(Memory::new(usize::MAX).unwrap_err(), NoMemory { bytes: usize::MAX });
    }

    #[test]
    fn a_scrub_zeroes_whatever_may_have_been_written_and_no_more() {
        let mut memory = Memory::new(256).unwrap();
        assert!(memory.begin(256, 0));
        memory.put_slice(&[7; 10]);
        assert_eq!(memory.mark, 10, "the filling interface knows what it wrote");
        memory.clear();
        memory.put_u8(9);
        assert_eq!(memory.mark, 10, "what was written before is still there");
        assert!(memory.begin(100, 0));
        assert_eq!((memory[9], memory.mark), (7, 10), "the same user; and reading is no writing");
        memory[3] = 1;
        assert_eq!(memory.mark, 100, "a mutable view may have been written everywhere");
        memory.set_len(256);
        memory.put_slice(&[1; 5]);
        memory.spare_mut();
        assert_eq!(memory.mark, 256);
        memory.scrub();
        assert!(memory.iter().all(|&byte| byte == 0));
        assert_eq!((memory.mark, memory.remaining()), (0, 256));
        memory.put_slice(&[1; 5]);
        memory.filled_mut()[0] = 2;
        assert_eq!((memory.mark, memory.filled()), (5, &[2, 1, 1, 1, 1][..]));
        memory.advance(5);
        memory.filled_mut()[9] = 2;
        assert_eq!(memory.mark, 10, "zeroes were passed over, and then written");
    }

    #[test]
    fn another_user_finds_zeroes_unless_bytes_are_kept() {
        for (scrub, left) in [(Scrub::OnChange, 0), (Scrub::AfterUse, 0), (Scrub::Keep, 7)] {
            let mut memory = Memory::with_scrub(128, scrub).unwrap();
            assert!(memory.begin(64, 1));
            memory.fill(7);
            assert!(memory.begin(128, 1));
            assert_eq!((memory[0], memory[64]), (7, 0), "its own bytes");
            assert!(memory.begin(128, 2));
            assert_eq!(memory[0], left, "{scrub:?}");
            assert!(!memory.begin(129, 2), "more than there is");
        }
    }

    /// Somebody has put a buffer of his own into a lease, and kept the tier's.
    #[test]
    fn bytes_of_nobody_knows_whom_are_not_shown_to_nobody() {
        let mut memory = Memory::new(64).unwrap();
        memory.fill(7);
        assert!(memory.begin(64, 0));
        assert_eq!(memory[0], 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut memory = Memory::new(4).unwrap();
        let mut tries = |what: fn(&mut Memory)| {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(&mut memory))).is_err());
        };
        tries(|memory| memory.put_slice(&[1; 5]));
        tries(|memory| memory.advance(5));
        tries(|memory| memory.set_len(5));
        assert_eq!((memory.filled(), memory.remaining()), (&[][..], 4));
        assert_eq!(io::Write::write(&mut memory, &[1; 5]).unwrap(), 4);
        assert!(io::Write::write_all(&mut memory, &[1]).is_err(), "it is full");
    }
}
