//! What the background reclaimer's thread does beside its passes, at a pace of its own: a look at the machine, for example.
//!
//! A chore is kept by whoever asked for it; when that is dropped, the chore is forgotten. One that panics has had its turn and comes again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use super::background;
use super::values::dispose;
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

static CHORES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Nothing panics while the list is locked.
fn with_list<R>(use_it: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    use_it(&mut CHORES.lock().unwrap_or_else(PoisonError::into_inner))
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
            let Some(what) = entry.what.upgrade() else { return false };
            if entry.due <= now {
                entry.due = next(entry.every);
                due.push(what);
            }
            true
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
