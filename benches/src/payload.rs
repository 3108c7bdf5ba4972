//! What a slot holds. Every subject gets the same payload, and every workload touches it in the same way.

use std::alloc::Layout;

use tierpool::Memory;

/// A resource that a slot holds.
pub trait Payload: Send + Sync + 'static {
    /// What an allocator is asked for in the place of this payload.
    const LAYOUT: Layout;

    /// A fresh payload.
    fn fresh() -> Self;

    /// Where its first byte is.
    fn first(&mut self) -> *mut u8;

    /// Reads the first byte.
    fn byte(&self) -> u8;

    /// Writes one byte, in a way that the compiler can neither drop nor move out of the loop.
    #[inline(always)]
    fn touch(&mut self) {
        // SAFETY: `first` points at this payload's own first byte, and `self` is borrowed exclusively.
        unsafe { self.first().write_volatile(TOUCHED) }
    }
}

/// The byte that [`Payload::touch`] writes.
pub const TOUCHED: u8 = 0xA5;

/// A buffer of `SIZE` bytes on the heap: what a pool of buffers holds in practice.
pub struct Bytes<const SIZE: usize>(Box<[u8]>);

impl<const SIZE: usize> Payload for Bytes<SIZE> {
    const LAYOUT: Layout = Layout::new::<[u8; SIZE]>();

    fn fresh() -> Self {
        Self(vec![0; SIZE].into_boxed_slice())
    }

    #[inline(always)]
    fn first(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn byte(&self) -> u8 {
        self.0[0]
    }
}

/// `SIZE` bytes in the slot itself, so that all memory beside them is the pool's own.
pub struct Inline<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Payload for Inline<SIZE> {
    const LAYOUT: Layout = Layout::new::<[u8; SIZE]>();

    fn fresh() -> Self {
        Self([0; SIZE])
    }

    #[inline(always)]
    fn first(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn byte(&self) -> u8 {
        self.0[0]
    }
}

/// Bytes of a [`Memory`] in these workloads.
pub const MEMORY: usize = 4096;

/// What a memory tier of a pool holds.
impl Payload for Memory {
    const LAYOUT: Layout = Layout::new::<[u8; MEMORY]>();

    fn fresh() -> Self {
        Memory::new(MEMORY).expect("memory")
    }

    #[inline(always)]
    fn first(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn byte(&self) -> u8 {
        self[0]
    }
}
