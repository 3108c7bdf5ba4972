//! How a thread finds its magazine of a tier, and gives it back when it exits.
//!
//! The hot path reads one element of a thread-local array that needs no initialiser and no `Drop`: `MAGAZINES[tier]`.
//! What has a destructor is a second thread-local, touched only when a thread first meets a tier: its exit guard, which
//! heads the list of the thread's magazines. Once the guard is gone (another thread-local's destructor may still
//! allocate and release) the array stays empty and every operation takes the slow way, without a magazine.
//!
//! Tiers beyond the array's size are found by walking the guard's list: slower, never refused.

use std::cell::Cell;
use std::ptr;

use super::core::Core;
use super::magazine::Magazine;
use crate::sync::thread_locals;

/// Tiers whose magazine is found by one load: those with the smallest control block numbers.
const NEAR: usize = if cfg!(loom) { 2 } else { 64 };

thread_locals! {
    /// By control block number; the last element stands for all the others and is always null.
    static MAGAZINES: [Cell<*const Magazine>; NEAR + 1] = [const { Cell::new(ptr::null()) }; NEAR + 1];
    static GUARD: ExitGuard = ExitGuard { number: Cell::new(0), attached: Cell::new(ptr::null()) };
}

/// One magazine of this thread.
struct Attached {
    core: &'static Core,
    magazine: &'static Magazine,
    next: *const Attached,
}

/// Gives the thread's magazines back when the thread exits.
struct ExitGuard {
    /// The thread's number; 0 until it needs one.
    number: Cell<u32>,
    /// The list of its magazines; the nodes are boxes.
    attached: Cell<*const Attached>,
}

/// Which element of a thread's array is for the control block with the number `id`.
pub(crate) fn near(id: u32) -> u32 {
    id.min(NEAR as u32)
}

/// The element that is always null.
pub(crate) fn nowhere() -> u32 {
    NEAR as u32
}

/// This thread's magazine of the tier, if it has met it before. One or two loads.
#[inline(always)]
pub(crate) fn current(core: &Core) -> Option<&'static Magazine> {
    element(core.near)
}

/// The same for who uses the light fence of `membarrier`: `None` in a process with the portable fence.
#[inline(always)]
pub(crate) fn current_if_membarrier(core: &Core) -> Option<&'static Magazine> {
    element(core.near_if_membarrier)
}

#[inline(always)]
fn element(near: u32) -> Option<&'static Magazine> {
    debug_assert!(near as usize <= NEAR);
    // SAFETY: the elements are null or point to a magazine of the control block with that number; magazines are
    // never freed. `near` is in bounds, as `near()` and `nowhere()` made it.
    MAGAZINES.with(|magazines| unsafe { magazines.get_unchecked(near as usize).get().as_ref() })
}

/// This thread's magazine of the tier, if it has met it before, however far the tier is. Registers nothing.
pub(crate) fn known(core: &Core) -> Option<&'static Magazine> {
    current(core).or_else(|| GUARD.try_with(|guard| guard.find(core)).ok().flatten())
}

/// This thread's magazine of the tier, made or adopted if need be. `None` while the thread's locals are being
/// destroyed, or if more threads than there are magazines use the tier.
#[cold]
pub(crate) fn attach(core: &'static Core) -> Option<&'static Magazine> {
    current(core).or_else(|| GUARD.try_with(|guard| guard.find(core).or_else(|| guard.add(core))).ok().flatten())
}

/// This thread's number, given to it now if it has none; 0 while its locals are being destroyed.
pub(crate) fn thread_number() -> u32 {
    GUARD.try_with(ExitGuard::number).unwrap_or(0)
}

impl ExitGuard {
    fn number(&self) -> u32 {
        if self.number.get() == 0 {
            self.number.set(crate::thread::register());
        }
        self.number.get()
    }

    fn find(&self, core: &Core) -> Option<&'static Magazine> {
        let mut next = self.attached.get();
        // SAFETY: the list's nodes are boxes that only `leave` below frees, on this thread.
        while let Some(attached) = unsafe { next.as_ref() } {
            if ptr::eq(attached.core, core) {
                return Some(attached.magazine);
            }
            next = attached.next;
        }
        None
    }

    fn add(&self, core: &'static Core) -> Option<&'static Magazine> {
        let magazine = core.claim_magazine(self.number())?;
        let next = self.attached.get();
        self.attached.set(Box::into_raw(Box::new(Attached { core, magazine, next })));
        if (core.near as usize) < NEAR {
            MAGAZINES.with(|magazines| magazines[core.near as usize].set(magazine));
        }
        Some(magazine)
    }

    /// Gives everything back.
    fn leave(&self) {
        let mut next = self.attached.replace(ptr::null());
        while !next.is_null() {
            // SAFETY: made by `Box::into_raw` in `add`; the list has just been taken from the guard, so each node is
            // met once.
            let attached = unsafe { Box::from_raw(next.cast_mut()) };
            next = attached.next;
            // The array has no destructor, so it is still there under std; under loom it may be gone already.
            let _ = MAGAZINES.try_with(|magazines| {
                magazines[attached.core.near as usize].set(ptr::null());
            });
            attached.magazine.leave(attached.core);
        }
        let number = self.number.replace(0);
        if number != 0 {
            crate::thread::forget(number);
        }
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the end of the calling thread does. `std`'s `join` returns after it; loom's returns before it destroys a thread's
/// locals, so the models call this last.
#[cfg(loom)]
pub(crate) fn exit() {
    let _ = GUARD.try_with(ExitGuard::leave);
}
