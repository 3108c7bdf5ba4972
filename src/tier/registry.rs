//! Where control blocks live between tiers, and how a handle's number finds its block.
//!
//! The table only grows, and its entries never change: a look-up is one load, whoever is building or closing. Retired
//! blocks wait in a list that anybody may push to without waiting (the last lease of a tier may be dropped anywhere),
//! and that builders take whole, under a lock that only builders share.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use super::core::Core;
use crate::slot::header::sites_fit;

/// The most control blocks a process may have: tiers that exist at once, and sizes of tiers past.
pub(crate) const MAX_CORES: usize = 1 << 16;

static TABLE: [AtomicPtr<Core>; MAX_CORES] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CORES];
static RETIRED: AtomicPtr<Core> = AtomicPtr::new(ptr::null_mut());
static BUILDERS: Mutex<Builders> = Mutex::new(Builders { made: 0, spare: Vec::new() });

struct Builders {
    made: usize,
    spare: Vec<&'static Core>,
}

// Each of loom's executions makes its own blocks, numbered alike, and all of its threads are one of `std`.
#[cfg(loom)]
std::thread_local! { static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) } }

/// Numbers the blocks to come from 0: an execution of loom's begins.
#[cfg(loom)]
pub(crate) fn restart() {
    MADE.set(0);
}

/// Why no control block could be had.
pub(crate) enum NoCore {
    Memory,
    Table,
}

/// The control block with this number, if one was ever made.
pub(crate) fn core(id: u32) -> Option<&'static Core> {
    // Acquire: pairs with the Release in `take`; the block was complete before its entry.
    let core = TABLE.get(id as usize)?.load(Ordering::Acquire);
    // SAFETY: entries are null or point to a block that was leaked.
    unsafe { core.as_ref() }
}

/// Every control block that was ever made.
pub(crate) fn all() -> impl Iterator<Item = &'static Core> {
    (0..MAX_CORES as u32).map_while(core)
}

/// A control block with room for at least `capacity` slots, for the caller alone.
pub(crate) fn take(capacity: usize) -> Result<&'static Core, NoCore> {
    // A power of two, so that tiers of similar sizes can follow each other; untouched headers cost nothing.
    let slots = if cfg!(loom) { capacity } else { capacity.next_power_of_two().max(64) };
    // A panic cannot leave the two fields inconsistent, so a poisoned lock is as good as another.
    let mut builders = BUILDERS.lock().unwrap_or_else(PoisonError::into_inner);
    builders.collect();
    if let Some(at) = builders.spare.iter().position(|core| core.slots() == slots) {
        return Ok(builders.spare.swap_remove(at));
    }
    #[cfg(loom)]
    let number = MADE.replace(MADE.get() + 1);
    #[cfg(not(loom))]
    let number = builders.made;
    let entry = TABLE.get(number).ok_or(NoCore::Table)?;
    assert!(sites_fit(), "tierpool needs source lines below 2^48: this system places programs higher");
    let core = Core::new(number as u32, slots).ok_or(NoCore::Memory)?;
    builders.made += 1;
    // Release: pairs with the Acquire in `core`.
    entry.store(ptr::from_ref(core).cast_mut(), Ordering::Release);
    Ok(core)
}

/// The block's last value is gone. Waits for nobody.
pub(crate) fn retire(core: &'static Core) {
    if cfg!(loom) {
        return; // loom's objects must not outlive the execution that made them
    }
    let mut head = RETIRED.load(Ordering::Relaxed);
    loop {
        core.next_retired.store(head, crate::sync::Ordering::Relaxed);
        let this = ptr::from_ref(core).cast_mut();
        // Release: pairs with the Acquire in `collect`; the block is as its last user left it. There is no ABA:
        // nothing is ever popped singly.
        match RETIRED.compare_exchange_weak(head, this, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

impl Builders {
    /// Takes over what was retired.
    fn collect(&mut self) {
        // Acquire: pairs with the Release in `retire`.
        let mut next = RETIRED.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: the list holds leaked blocks, and after the swap it is ours alone.
        while let Some(core) = unsafe { next.as_ref() } {
            next = core.next_retired.load(crate::sync::Ordering::Relaxed);
            self.spare.push(core);
        }
    }
}
