//! Type-stable memory: arrays that start as zeros, are touched page by page, and live as long as the process.
//!
//! Headers, magazines and depot nodes come from here. A late reader (a handle of a pool long gone, a thread stopped
//! inside a pop) therefore always finds an object of the type it expects; generations tell it that it is late.

/// A type for which all-zero memory is a valid, empty value, and which is only ever touched through atomics.
///
/// # Safety
/// Every field must be valid when all its bytes are zero, and the type must not need `Drop`.
pub(crate) unsafe trait Zeroed: Sized + Sync + 'static {
    /// The same value made by hand: loom's atomics must be constructed.
    #[cfg(loom)]
    fn zeroed() -> Self;
}

/// `len` zeroed values that are never freed, or `None` if the system has no room for them. Pages that are never
/// touched cost address space only.
#[cfg(not(loom))]
pub(crate) fn zeroed_slice<T: Zeroed>(len: usize) -> Option<&'static [T]> {
    use std::alloc::{Layout, alloc_zeroed};

    const {
        assert!(size_of::<T>() > 0 && !std::mem::needs_drop::<T>());
    }
    // The system's zeroed allocation is lazy (fresh pages) only at its default alignment, so align by hand.
    let align = align_of::<T>();
    let bytes = size_of::<T>().checked_mul(len)?.checked_add(align)?;
    let layout = Layout::from_size_align(bytes, 16).ok()?;
    // SAFETY: `bytes >= align > 0`, so the layout is not of size zero.
    let raw = unsafe { alloc_zeroed(layout) };
    if raw.is_null() {
        return None;
    }
    // SAFETY: the block is `align` bytes longer than the array, so the offset stays within it; the array is
    // zeroed, which `Zeroed` makes valid, aligned, and never freed.
    unsafe {
        let first = raw.add(raw.align_offset(align)).cast::<T>();
        Some(std::slice::from_raw_parts(first, len))
    }
}

/// The loom build constructs each value, and leaks it: its objects belong to one explored execution.
#[cfg(loom)]
pub(crate) fn zeroed_slice<T: Zeroed>(len: usize) -> Option<&'static [T]> {
    Some((0..len).map(|_| T::zeroed()).collect::<Vec<_>>().leak())
}
