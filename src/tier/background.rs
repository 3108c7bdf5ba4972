//! The background reclaimer: one thread for all tiers of the process that ask for one.
//!
//! One, because its work is small and rare: a pool of sixty tiers should not cost sixty threads and sixty wake-ups. The price is
//! that the program's code (a factory that takes long, a report that blocks) delays the passes over other tiers; such tiers
//! are better given passes by a thread of their own, through [`Reclaimer::Manual`](crate::Reclaimer::Manual).
//!
//! The thread finds the tiers by walking the table of control blocks, and enters each block only for the time of a pass: it
//! keeps no tier alive. It sleeps until the earliest tick that is due; whoever makes something due earlier wakes it
//! ([`kick`]), which costs a system call only while it sleeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, fence};
use std::thread::Thread;

use super::core::{Core, flags};
use super::values::dispose;
use super::{chores, pass, registry};
use crate::clock;
use crate::machine::affinity;
use crate::sync::Ordering;

/// The tick until which the thread sleeps; 0 while it is awake.
static ASLEEP_UNTIL: AtomicU64 = AtomicU64::new(0);
/// The thread, for who wakes it; a leaked box.
static THREAD: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
/// One more than the number of forks when it was started, or 0.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Starts the thread, if it was not started before. In the child of a fork the parent's thread is not there, and the next tier that
/// asks for one starts another.
pub(crate) fn start() -> std::io::Result<()> {
    pass::watch_forks();
    let mine = pass::forks() + 1;
    // AcqRel: one of several builders starts it.
    if STARTED.swap(mine, std::sync::atomic::Ordering::AcqRel) == mine {
        return Ok(());
    }
    // What woke the parent's thread is nobody here.
    THREAD.store(ptr::null_mut(), std::sync::atomic::Ordering::Relaxed);
    // Not where a lease has pinned the thread that happens to be first.
    let cpus = affinity::allowed();
    let body = move || {
        if let Ok(cpus) = cpus {
            affinity::run_on(&cpus);
        }
        run();
    };
    let spawned = std::thread::Builder::new().name("tierpool-reclaimer".to_owned()).spawn(body);
    if spawned.is_err() {
        STARTED.store(0, std::sync::atomic::Ordering::Release);
    }
    spawned.map(drop)
}

/// Says that a pass over the tier is due at `tick`. Never waits; a few loads if a pass is due earlier anyway.
pub(crate) fn kick(core: &Core, tick: u64) {
    if cfg!(loom) || core.flags.load(Ordering::Relaxed) & flags::BACKGROUND == 0 {
        return;
    }
    // Pairs with the fence in `serve`: either a pass that begins sees what is due, or this sees that it has begun.
    fence(std::sync::atomic::Ordering::SeqCst);
    if core.due.load(Ordering::Relaxed) <= tick {
        return;
    }
    core.due.fetch_min(tick, Ordering::Relaxed);
    wake_by(tick);
}

/// Has the thread awake at `tick`, at which the caller has noted that something is due.
pub(super) fn wake_by(tick: u64) {
    // Pairs with the fence in `run`: either it finds the tick just noted, or this finds it about to sleep.
    fence(std::sync::atomic::Ordering::SeqCst);
    if tick < ASLEEP_UNTIL.load(std::sync::atomic::Ordering::Relaxed) {
        // SAFETY: null, or a box that was leaked.
        if let Some(thread) = unsafe { THREAD.load(std::sync::atomic::Ordering::Acquire).as_ref() } {
            thread.unpark();
        }
    }
}

fn run() {
    let this = Box::into_raw(Box::new(std::thread::current()));
    // Release: pairs with the Acquire in `kick`.
    THREAD.store(this, std::sync::atomic::Ordering::Release);
    loop {
        clock::tick();
        let now = clock::ticks();
        for core in registry::all().filter(|core| is_background(core) && core.due.load(Ordering::Relaxed) <= now) {
            // A pass catches the panics of the program's code and reports them. What is left is the end of a tier, at which
            // something panics that its functions have captured: there is nobody to tell.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(core))) {
                dispose(panic);
            }
        }
        chores::run_due();
        let next = earliest();
        ASLEEP_UNTIL.store(next, std::sync::atomic::Ordering::Relaxed);
        // Pairs with the fence in `kick`.
        fence(std::sync::atomic::Ordering::SeqCst);
        if earliest() >= next {
            // Wakes early if it was kicked meanwhile: `unpark` leaves a token.
            match next {
                u64::MAX => std::thread::park(),
                next => std::thread::park_timeout(clock::time_to(next)),
            }
        }
        ASLEEP_UNTIL.store(0, std::sync::atomic::Ordering::Relaxed);
    }
}

fn is_background(core: &Core) -> bool {
    core.flags.load(Ordering::Relaxed) & flags::BACKGROUND != 0
}

fn earliest() -> u64 {
    let due = |core: &'static Core| if is_background(core) { core.due.load(Ordering::Relaxed) } else { u64::MAX };
    registry::all().map(due).min().unwrap_or(u64::MAX).min(chores::earliest())
}

/// One pass over a tier, if it still exists.
fn serve(core: &'static Core) {
    // The pass says itself when the next is due, and so does whatever happens from here on.
    let due = core.due.swap(u64::MAX, Ordering::Relaxed);
    // Pairs with the fence in `kick`.
    fence(std::sync::atomic::Ordering::SeqCst);
    let Some(_entered) = core.enter() else { return };
    // SAFETY: the block is entered, so a tier lives in it, and this is its own `pass`.
    if unsafe { (core.incarnation().pass)(core, false) }.is_none() {
        // Somebody else makes one just now. What was due may come too late for it; look again soon.
        kick(core, due.max(clock::ticks() + 1));
    }
}
