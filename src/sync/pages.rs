//! Address space that is reserved at once, given memory piece by piece, and gives it back: the payload of a tier that grows.
//!
//! Reserving costs address space only, and the memory of a piece is asked for when it is needed. So a limit (`RLIMIT_DATA`, overcommit)
//! is met as an error in [`commit`](Reserved::commit), while the tier goes on with what it has, and not as a signal later. What is
//! given back leaves the process's resident set at once.

use std::io;

/// Reserved address space.
pub(crate) struct Reserved {
    base: *mut u8,
    bytes: usize,
}

/// The unit in which memory comes and goes, in bytes.
pub(crate) fn page() -> usize {
    imp::page()
}

impl Reserved {
    /// At least `bytes` bytes of address space, aligned to `align`; none of it may be touched yet.
    pub(crate) fn new(bytes: usize, align: usize) -> io::Result<Self> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let spare = align.max(page());
        let bytes = bytes.checked_next_multiple_of(page()).and_then(|b| b.checked_add(spare)).ok_or_else(too_much)?;
        Ok(Reserved { base: imp::reserve(bytes)?, bytes })
    }

    /// The first aligned address.
    pub(crate) fn first(&self, align: usize) -> *mut u8 {
        let align = align.max(page());
        // `new` reserved that much more.
        self.base.wrapping_add(self.base.align_offset(align))
    }

    /// Gives memory to the whole pages that `first..first + bytes` lies in. Harmless where there is memory already.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to.
    pub(crate) unsafe fn commit(first: *mut u8, bytes: usize) -> io::Result<()> {
        let (start, len) = outward(first, bytes);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: by the contract, and since a reservation begins and ends at pages.
        unsafe { imp::commit(start, len) }
    }

    /// Takes the memory of the whole pages within `first..first + bytes` back; they may not be touched any more.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to, and nobody refers to what is in it.
    pub(crate) unsafe fn decommit(first: *mut u8, bytes: usize) {
        let (start, len) = inward(first, bytes);
        if len > 0 {
            // SAFETY: by the contract; whole pages of it.
            unsafe { imp::decommit(start, len) }
        }
    }

    /// Gives up the address space.
    ///
    /// # Safety
    /// Nobody refers to anything in it, now or later; so it is called once.
    pub(crate) unsafe fn release(&self) {
        // SAFETY: by the contract, and as `new` reserved it.
        unsafe { imp::release(self.base, self.bytes) }
    }
}

/// The whole pages that a range touches.
fn outward(first: *mut u8, bytes: usize) -> (*mut u8, usize) {
    let before = first.addr() % page();
    let len = if bytes == 0 { 0 } else { (before + bytes).next_multiple_of(page()) };
    (first.wrapping_sub(before), len)
}

/// The whole pages that a range covers.
fn inward(first: *mut u8, bytes: usize) -> (*mut u8, usize) {
    let skip = first.addr().next_multiple_of(page()) - first.addr();
    let len = bytes.saturating_sub(skip);
    (first.wrapping_add(skip), len - len % page())
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::sync::OnceLock;

    pub(super) fn page() -> usize {
        static PAGE: OnceLock<usize> = OnceLock::new();
        // SAFETY: asks the system for a number.
        *PAGE.get_or_init(|| usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096))
    }

    pub(super) fn reserve(bytes: usize) -> io::Result<*mut u8> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
    }

    pub(super) unsafe fn commit(start: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: by the caller the range is ours.
        if unsafe { libc::mprotect(start.cast(), len, libc::PROT_READ | libc::PROT_WRITE) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(super) unsafe fn decommit(start: *mut u8, len: usize) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // A fresh mapping over the old one: its memory is given back, and no longer counted as promised. If the system
        // refuses (too many mappings), the memory at least is given back.
        // SAFETY: by the caller the range is ours, and nobody refers to what is in it.
        unsafe {
            if libc::mmap(start.cast(), len, libc::PROT_NONE, flags, -1, 0) == libc::MAP_FAILED {
                libc::madvise(start.cast(), len, libc::MADV_DONTNEED);
            }
        }
    }

    pub(super) unsafe fn release(base: *mut u8, bytes: usize) {
        // SAFETY: by the caller the mapping is ours and unused.
        unsafe { libc::munmap(base.cast(), bytes) };
    }
}

/// Elsewhere the whole payload is allocated at once, by an allocator that usually hands out untouched pages; it is
/// given back with the tier.
#[cfg(not(target_os = "linux"))]
mod imp {
    use std::alloc::{Layout, alloc, dealloc};
    use std::io;

    pub(super) fn page() -> usize {
        4096
    }

    fn layout(bytes: usize) -> io::Result<Layout> {
        Layout::from_size_align(bytes, page()).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn reserve(bytes: usize) -> io::Result<*mut u8> {
        // SAFETY: `Reserved::new` asks for at least a page.
        let base = unsafe { alloc(layout(bytes)?) };
        if base.is_null() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(base) }
    }

    pub(super) unsafe fn commit(_start: *mut u8, _len: usize) -> io::Result<()> {
        Ok(())
    }

    pub(super) unsafe fn decommit(_start: *mut u8, _len: usize) {}

    pub(super) unsafe fn release(base: *mut u8, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: allocated in `reserve` with this very layout.
            unsafe { dealloc(base, layout) };
        }
    }
}

#[cfg(all(test, target_os = "linux", not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_come_and_go() {
        let space = Reserved::new(10 * page(), 4 * page()).unwrap();
        let first = space.first(4 * page());
        assert_eq!(first.addr() % (4 * page()), 0);
        // SAFETY: within the reservation, and only this test refers to it.
        unsafe {
            Reserved::commit(first.wrapping_add(10), 2 * page()).unwrap();
            first.wrapping_add(2 * page()).write(7);
            Reserved::decommit(first, 2 * page() + 1);
            assert_eq!(first.wrapping_add(2 * page()).read(), 7, "a page that is not wholly given back stays");
            Reserved::commit(first, page()).unwrap();
            assert_eq!(first.read(), 0, "what was given back comes back empty");
            space.release();
        }
    }
}
