//! One pass at a time over a tier: the lock, and what passes remember from one to the next.
//!
//! The lock is tried: whoever finds it taken goes without; only a program that asks for growth or shrinking waits for it. It knows forks: in a child it counts as free if
//! a thread of the parent had it, since that thread is not there to give it back.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Once;

use super::core::Core;
use super::reclaim::Timetable;
use super::{epoch, leaks, pin};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, yield_now};

/// How many forks lie between the first process and this one; counted once [`watch_forks`] was called.
static FORKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// What passes remember.
#[derive(Default)]
pub(crate) struct PassState {
    /// Whether what was retired is sealed.
    pub(crate) limbo: epoch::Limbo,
    /// Who has had a pin for too long.
    pub(crate) pins: pin::Watch,
    /// Who has held a slot for too long.
    pub(crate) watch: leaks::Watch,
    /// What is due when.
    pub(crate) timetable: Timetable,
}

/// The state of a tier's passes, for one at a time.
pub(crate) struct Pass {
    /// 0, or one more than the number of forks when it was locked.
    locked: AtomicU64,
    state: UnsafeCell<Option<Box<PassState>>>,
}

// SAFETY: `state` is reached through `locked` only, by one thread at a time.
unsafe impl Sync for Pass {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Pass {}

impl Pass {
    pub(crate) fn new() -> Self {
        Pass { locked: AtomicU64::new(0), state: UnsafeCell::new(None) }
    }

    /// The state, unless somebody else is in a pass.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        let mine = FORKS.load(std::sync::atomic::Ordering::Relaxed) + 1;
        let now = self.locked.load(Ordering::Relaxed);
        if now == mine {
            return None;
        }
        // Acquire: pairs with the Release in `Locked::drop`.
        self.locked.compare_exchange(now, mine, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: the exchange made it ours until the guard is dropped. What a fork interrupted is thrown away
        // without being looked at.
        let state = unsafe { &mut *self.state.get() };
        if now != 0 {
            std::mem::forget(state.take());
        }
        Some(Locked { pass: self, state: state.get_or_insert_default() })
    }

    /// The state, as soon as nobody else is in a pass.
    pub(crate) fn lock(&self) -> Locked<'_> {
        loop {
            if let Some(locked) = self.try_lock() {
                return locked;
            }
            yield_now();
        }
    }

    /// Forgets everything: a new tier moves in, and nobody else has the block.
    pub(crate) fn clear(&self) {
        if let Some(mut state) = self.try_lock() {
            *state = PassState::default();
        }
    }
}

/// The state of a tier's passes.
pub(crate) struct Locked<'a> {
    pass: &'a Pass,
    state: &'a mut PassState,
}

impl Deref for Locked<'_> {
    type Target = PassState;

    fn deref(&self) -> &PassState {
        self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut PassState {
        self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `try_lock`.
        self.pass.locked.store(0, Ordering::Release);
    }
}

/// Keeps a tier from ending while this lives.
pub(crate) struct Entered(&'static Core);

impl Core {
    /// Enters the block, if a tier lives in it: it does not end before the guard is dropped, which may be what ends it.
    pub(crate) fn enter(&'static self) -> Option<Entered> {
        let live: &AtomicUsize = &self.live;
        let mut now = live.load(Ordering::Relaxed);
        while now > 0 {
            // Acquire: pairs with the Release with which the builder publishes a tier, and with those of the counts out.
            match live.compare_exchange_weak(now, now + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Entered(self)),
                Err(other) => now = other,
            }
        }
        None
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.count_out();
    }
}

/// Counts forks from now on, in their children, and calls `in_child` there.
pub(crate) fn watch_forks(in_child: extern "C" fn()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_os = "linux")]
        // SAFETY: registers functions that only store to atomics, which is allowed in the child of a fork.
        unsafe {
            libc::pthread_atfork(None, None, Some(count_fork));
            libc::pthread_atfork(None, None, Some(in_child));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = in_child;
    });
}

#[cfg(target_os = "linux")]
extern "C" fn count_fork() {
    FORKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}
