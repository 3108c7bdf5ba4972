//! What the background reclaimer's thread does beside its passes, at a pace of its own: a look at the machine, for example.
//!
//! A chore is kept by whoever asked for it; when that is dropped, the chore is forgotten. One that panics has had its turn and comes again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use super::values::dispose;
use super::{background, pass};
use crate::clock;

/// What is done again and again.
pub(crate) trait Chore: Send + Sync {
    fn run(&self);
}

struct Entry {
    what: Weak<dyn Chore>,
    /// The tick at which it is done next.
    due: u64,
    every: Duration,
}

/// The chores of a process. A child of a fork has a list of its own: its parent's may be locked by a thread that is not there, and what is in
/// it was nobody's wish for the child.
struct List {
    forks: u64,
    entries: Mutex<Vec<Entry>>,
}

/// A leaked box, one a process that has chores.
static LIST: AtomicPtr<List> = AtomicPtr::new(ptr::null_mut());

fn list() -> &'static List {
    let mine = pass::forks();
    loop {
        // Acquire: pairs with the Release below, and shows what is in the box.
        let known = LIST.load(Ordering::Acquire);
        // SAFETY: null, or a box that was leaked.
        if let Some(list) = unsafe { known.as_ref() }.filter(|list| list.forks == mine) {
            return list;
        }
        let new = Box::into_raw(Box::new(List { forks: mine, entries: Mutex::new(Vec::new()) }));
        // Release: as above. Another thread may have been first; then its list is taken, and this one is freed.
        if LIST.compare_exchange(known, new, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

/// Nothing of the program's is called while the list is locked.
fn with_list<R>(use_it: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    use_it(&mut list().entries.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has `what` done every `period`, for the first time after one; to 10 ms, the clock's tick.
///
/// # Errors
/// If the thread could not be started.
pub(crate) fn every(period: Duration, what: Weak<dyn Chore>) -> std::io::Result<()> {
    clock::init();
    clock::tick();
    let due = next(period);
    with_list(|list| list.push(Entry { what, due, every: period }));
    background::start()?;
    background::wake_by(due);
    Ok(())
}

/// The tick of the next turn; not this one.
fn next(period: Duration) -> u64 {
    clock::ticks_from_now(period).max(clock::ticks() + 1)
}

/// Does what is due, on the reclaimer's thread.
pub(super) fn run_due() {
    let now = clock::ticks();
    let mut due = Vec::new();
    with_list(|list| {
        list.retain_mut(|entry| {
            if entry.due > now {
                return entry.what.strong_count() > 0;
            }
            entry.due = next(entry.every);
            let what = entry.what.upgrade();
            let is_wanted = what.is_some();
            due.extend(what);
            is_wanted
        });
    });
    for what in due {
        // The last reference may go here, with what the program put into it.
        let run = AssertUnwindSafe(|| {
            what.run();
            drop(what);
        });
        if let Err(panic) = catch_unwind(run) {
            dispose(panic);
        }
    }
}

/// The tick at which something is due; the largest number if nothing is.
pub(super) fn earliest() -> u64 {
    with_list(|list| list.iter().map(|entry| entry.due).min()).unwrap_or(u64::MAX)
}
