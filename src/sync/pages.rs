//! Address space that is reserved at once, given memory piece by piece, and gives it back: the payload of a tier that grows, and the
//! bytes of memory tiers. The only file that calls the system about pages.
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

/// Bytes of a huge page: the size that x86-64 and 64-bit ARM have in common.
pub(crate) const HUGE: usize = 2 << 20;

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

    /// Address space of huge pages, all of which the system sets aside for it now, or refuses. Whole huge pages of it can be used
    /// like the rest of this file says; what was [emptied](Self::empty) may not be set aside any more.
    pub(crate) fn huge(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.checked_next_multiple_of(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Reserved { base: imp::reserve_huge(bytes)?, bytes })
    }

    /// Bytes reserved.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

    /// Takes the memory of the whole pages within `first..first + bytes` back; they may not be touched any more. False if the system has no
    /// room to note that: then they are as they were.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to, and nobody refers to what is in it.
    pub(crate) unsafe fn decommit(first: *mut u8, bytes: usize) -> bool {
        let (start, len) = inward(first, bytes);
        // SAFETY: by the contract; whole pages of it.
        len == 0 || unsafe { imp::decommit(start, len) }
    }

    /// Replaces the memory of the whole pages within `first..first + bytes` by zeroes that take none until they are touched. False if
    /// the system does not do that for these pages: nothing is changed then.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to, it has memory, and nobody else refers to what is in it.
    pub(crate) unsafe fn empty(first: *mut u8, bytes: usize) -> bool {
        let (start, len) = inward(first, bytes);
        // SAFETY: by the contract; whole pages of it.
        len == 0 || unsafe { imp::empty(start, len) }
    }

    /// Asks for huge pages where the system has them at hand, in the whole pages that the range lies in.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to.
    pub(crate) unsafe fn prefer_huge(first: *mut u8, bytes: usize) -> io::Result<()> {
        let (start, len) = outward(first, bytes);
        // SAFETY: by the contract.
        unsafe { imp::prefer_huge(start, len) }
    }

    /// Has every page that the range lies in backed by memory now. What is in them stays.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to, and has memory.
    pub(crate) unsafe fn populate(first: *mut u8, bytes: usize) -> io::Result<()> {
        let (start, len) = outward(first, bytes);
        // SAFETY: by the contract.
        unsafe { imp::populate(start, len) }
    }

    /// Keeps every page that the range lies in from being swapped out, until its memory is taken back.
    ///
    /// # Safety
    /// The range lies within the reservation that `first` belongs to, and has memory.
    pub(crate) unsafe fn lock(first: *mut u8, bytes: usize) -> io::Result<()> {
        let (start, len) = outward(first, bytes);
        // SAFETY: by the contract.
        unsafe { imp::lock(start, len) }
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
    // Plain `std`: no model depends on it, and loom's cannot be made of memory that is there.
    use std::sync::atomic::{AtomicU8, Ordering};

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

    pub(super) unsafe fn decommit(start: *mut u8, len: usize) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // A fresh mapping over the old one: its memory is given back, and no longer counted as promised. If the system
        // refuses (too many mappings), the memory at least is given back; pages that are locked would stay, and that too may be refused.
        // SAFETY: by the caller the range is ours, and nobody refers to what is in it.
        unsafe {
            libc::mmap(start.cast(), len, libc::PROT_NONE, flags, -1, 0) != libc::MAP_FAILED
                || (libc::munlock(start.cast(), len) == 0 && libc::madvise(start.cast(), len, libc::MADV_DONTNEED) == 0)
        }
    }

    /// Whether the kernel can populate: since Linux 5.14.
    fn populates() -> bool {
        static POPULATES: OnceLock<bool> = OnceLock::new();
        // SAFETY: advice on no bytes touches nothing.
        *POPULATES.get_or_init(|| unsafe { libc::madvise(std::ptr::null_mut(), 0, libc::MADV_POPULATE_WRITE) == 0 })
    }

    fn outcome(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn reserve_huge(bytes: usize) -> io::Result<*mut u8> {
        // A page that the system turns out not to have would be a signal. So all are set aside now, without `MAP_NORESERVE`; and those
        // that come again after they were given back are populated, which tells.
        if !populates() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel is older than Linux 5.14"));
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
    }

    pub(super) unsafe fn empty(start: *mut u8, len: usize) -> bool {
        // SAFETY: by the caller the range is ours, and nobody else refers to what is in it.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) == 0 }
    }

    pub(super) unsafe fn prefer_huge(start: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: by the caller the range is ours; its contents stay.
        outcome(unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) })
    }

    pub(super) unsafe fn populate(start: *mut u8, len: usize) -> io::Result<()> {
        while populates() {
            // SAFETY: by the caller the range is ours, and has memory; its contents stay.
            match outcome(unsafe { libc::madvise(start.cast(), len, libc::MADV_POPULATE_WRITE) }) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
        for offset in (0..len).step_by(page()) {
            // SAFETY: the byte is ours, and writable. Others may use it meanwhile, as bytes of their own: an exchange of zero for zero
            // changes nothing for them.
            let byte = unsafe { AtomicU8::from_ptr(start.wrapping_add(offset)) };
            // A page that was never touched is zero, so it is written to. (An addition of zero would be left out by the compiler.)
            let _ = byte.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) unsafe fn lock(start: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: by the caller the range is ours, and has memory; its contents stay.
        outcome(unsafe { libc::mlock(start.cast(), len) })
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

    pub(super) unsafe fn decommit(_start: *mut u8, _len: usize) -> bool {
        false
    }

    pub(super) fn reserve_huge(_bytes: usize) -> io::Result<*mut u8> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) unsafe fn empty(_start: *mut u8, _len: usize) -> bool {
        false
    }

    pub(super) unsafe fn prefer_huge(_start: *mut u8, _len: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) unsafe fn populate(_start: *mut u8, _len: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) unsafe fn lock(_start: *mut u8, _len: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

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
            assert!(Reserved::decommit(first, 2 * page() + 1));
            assert_eq!(first.wrapping_add(2 * page()).read(), 7, "a page that is not wholly given back stays");
            Reserved::commit(first, page()).unwrap();
            assert_eq!(first.read(), 0, "what was given back comes back empty");
            first.write(7);
            Reserved::populate(first, page()).unwrap();
            assert_eq!(first.read(), 7, "what is in a page stays when it is populated");
            assert!(Reserved::empty(first, page()));
            assert_eq!(first.read(), 0, "an emptied page can be used, and is zero");
            space.release();
        }
    }
}
