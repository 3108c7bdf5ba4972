//! One pass at a time over a tier: the lock, and what passes remember from one to the next.
//!
//! The lock is tried: whoever finds it taken goes without; only a program that asks for growth or shrinking waits for it. It
//! knows forks: in a child it counts as free if a thread of the parent had it, since that thread is not there to give it
//! back.

use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::Once;

use super::reclaim::Timetable;
use super::{epoch, leaks, pin};
use crate::sync::{AtomicU64, Ordering, thread_locals, yield_now};

/// How many forks lie between the first process and this one; counted once [`watch_forks`] was called.
static FORKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

thread_locals! {
    /// How many passes the thread is in: the program's code may begin one in another.
    static PASSES: Cell<u32> = Cell::new(0);
}

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
        let mine = forks() + 1;
        let now = self.locked.load(Ordering::Relaxed);
        if now == mine {
            return None;
        }
        // Acquire: pairs with the Release in `Locked::drop`.
        self.locked.compare_exchange(now, mine, Ordering::Acquire, Ordering::Relaxed).ok()?;
        PASSES.with(|passes| passes.set(passes.get() + 1));
        // SAFETY: the exchange made it ours until the guard is dropped. What a fork interrupted is thrown away
        // without being looked at.
        let state = unsafe { &mut *self.state.get() };
        if now != 0 {
            std::mem::forget(state.take());
        }
        Some(Locked { pass: self, state: state.get_or_insert_default() })
    }

    /// The state, as soon as nobody else is in a pass. `None` if this thread is in one, of whichever tier: two that wait for each
    /// other would wait for ever.
    pub(crate) fn lock(&self) -> Option<Locked<'_>> {
        if PASSES.with(Cell::get) > 0 {
            return None;
        }
        loop {
            if let Some(locked) = self.try_lock() {
                return Some(locked);
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
        PASSES.with(|passes| passes.set(passes.get() - 1));
        // Release: pairs with the Acquire in `try_lock`.
        self.pass.locked.store(0, Ordering::Release);
    }
}

/// Counts forks from now on, in their children.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_os = "linux")]
        // SAFETY: registers a function that only adds to an atomic, which is allowed in the child of a fork.
        unsafe {
            libc::pthread_atfork(None, None, Some(count_fork));
        }
    });
}

#[cfg(target_os = "linux")]
extern "C" fn count_fork() {
    FORKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Whether this process is the child of a fork of one with tiers: then what some thread held may be held for ever.
pub(crate) fn is_forked() -> bool {
    forks() > 0
}

/// How many forks lie between the first process with a tier and this one.
pub(crate) fn forks() -> u64 {
    FORKS.load(std::sync::atomic::Ordering::Relaxed)
}
