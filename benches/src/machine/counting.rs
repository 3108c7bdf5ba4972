//! The system's allocator with a count of each thread's allocations: how a workload shows that it makes none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// A global allocator that counts. One thread-local increment an allocation; the peers are called past it.
pub struct Counting;

/// How often this thread has asked for memory; it stays 0 unless [`Counting`] is the global allocator.
pub fn count() -> u64 {
    COUNT.with(Cell::get)
}

fn counted() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to `System` unchanged; a const-initialised `Cell` without `Drop` can be used at any time in a
// thread's life and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        counted();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        counted();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        counted();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
