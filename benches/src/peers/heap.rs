//! The allocators: glibc, jemalloc, mimalloc, snmalloc, each called through its `GlobalAlloc` and none of them installed,
//! so that all live in one process. The layout is a constant, as it is where a program allocates a known type.

use std::alloc::{GlobalAlloc, System};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::payload::{Payload, TOUCHED};
use crate::subject::{Able, Kind, Subject};

/// An allocator and its name.
pub trait Arena: GlobalAlloc + Send + Sync + 'static {
    /// Its name in the output.
    const NAME: &'static str;
    /// The allocator.
    const ARENA: Self;
}

impl Arena for System {
    const NAME: &'static str = "glibc";
    const ARENA: Self = System;
}

impl Arena for tikv_jemallocator::Jemalloc {
    const NAME: &'static str = "jemalloc";
    const ARENA: Self = tikv_jemallocator::Jemalloc;
}

impl Arena for mimalloc::MiMalloc {
    const NAME: &'static str = "mimalloc";
    const ARENA: Self = mimalloc::MiMalloc;
}

#[cfg(feature = "snmalloc")]
impl Arena for snmalloc_rs::SnMalloc {
    const NAME: &'static str = "snmalloc";
    const ARENA: Self = snmalloc_rs::SnMalloc;
}

/// A block from an allocator; it must be released.
pub struct Block(NonNull<u8>);

// SAFETY: a block is owned memory, and every allocator here may free on any thread.
unsafe impl Send for Block {}

/// An allocator in the place of a pool of `T`.
pub struct Heap<A, T>(PhantomData<(A, T)>);

impl<A: Arena, T: Payload> Subject for Heap<A, T> {
    const NAME: &'static str = A::NAME;
    const KIND: Kind = Kind::Allocator;
    const ABLE: Able = Able { several: true, refuse: false, shared: false };

    type Hand<'a> = ();
    type Held<'a> = Block;

    fn build() -> Self {
        const { assert!(T::LAYOUT.size() > 0) };
        Self(PhantomData)
    }

    fn hand(&self) -> Self::Hand<'_> {}

    #[inline(always)]
    fn allocate<'a>(_: &mut Self::Hand<'a>) -> Option<Self::Held<'a>> {
        // SAFETY: the layout has a size, which `build` asserts.
        NonNull::new(unsafe { A::ARENA.alloc(T::LAYOUT) }).map(Block)
    }

    #[inline(always)]
    fn touch<'a>(held: &mut Self::Held<'a>) {
        // SAFETY: the block is at least one byte long and exclusively borrowed.
        unsafe { held.0.write_volatile(TOUCHED) }
    }

    fn byte<'a>(_: &Self::Hand<'a>, held: &Self::Held<'a>) -> u8 {
        // SAFETY: checks read only after `touch` has written this byte.
        unsafe { held.0.read() }
    }

    #[inline(always)]
    fn release<'a>(_: &mut Self::Hand<'a>, held: Self::Held<'a>) {
        // SAFETY: the block came from this allocator with this layout, and is given up here.
        unsafe { A::ARENA.dealloc(held.0.as_ptr(), T::LAYOUT) }
    }
}
