//! What the models in `loom-tests` reach beside the public surface. In the loom build only.

use std::panic::Location;

use crate::tier::allocate::{self, Caller};
use crate::tier::core::Core;
use crate::tier::depot::Depot;
use crate::tier::{Tier, attach};
use crate::tier::{epoch, help, scarcity, wait};
use crate::{Allocate, AllocateError, Handle, Lease};

/// Ends the calling thread's use of all tiers, as its exit does.
pub fn exit_thread() {
    attach::exit();
}

/// The last resort of an allocation, without the hints that come before it.
#[track_caller]
pub fn search<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), magazine: None };
    let taken = scarcity::find_or_refuse(tier.core(), &caller)?;
    // SAFETY: as in `Tier::try_allocate`.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// A depot alone.
pub struct Hints(Depot);

impl Hints {
    /// A depot for the hints of `slots` slots.
    pub fn new(slots: usize) -> Option<Self> {
        Depot::new(slots).map(Hints)
    }

    /// Stores one hint; false if there was no room.
    pub fn store(&self, hint: u32) -> bool {
        self.0.store(std::iter::once(hint))
    }

    /// Takes one hint.
    pub fn take(&self) -> Option<u32> {
        let mut taken = None;
        self.0.take(|_| {}, |hint| taken = Some(hint));
        taken
    }
}

/// The end of a wait that takes too long, at this moment.
pub fn time_out<T: Send + 'static>(wait: Allocate<'_, T>) -> Result<Lease<T>, AllocateError> {
    wait.time_out(std::time::Instant::now())
}

/// What an allocation does before it is refused, and the reclaimer in its pass: takes back the grants that are overdue.
pub fn revoke<T: Send + 'static>(tier: &Tier<T>) {
    wait::revoke_overdue(tier.core());
}

/// A slot that was retired, for an allocation that finds nothing else.
#[track_caller]
pub fn recycle<T: Send + 'static>(tier: &Tier<T>) -> Option<Lease<T>> {
    let caller = Caller { site: Location::caller(), magazine: attach::current(tier.core()) };
    let taken = help::lease(tier.core(), epoch::one(tier.core())?, &caller);
    allocate::served(tier.core(), &caller);
    // SAFETY: the core is that of a `Tier<T>`, and the slot has just been leased to this call.
    Some(unsafe { Lease::new(tier.core(), taken.index) })
}

/// The handle of these bits, without a look at its slot: as it comes from another thread without order.
pub fn handle(bits: u128) -> Handle {
    Handle::unchecked(bits)
}

/// The background reclaimer's way to a tier: it keeps none alive.
pub struct Block(&'static Core);

impl Block {
    /// The block that the tier lives in.
    pub fn of<T: Send + 'static>(tier: &Tier<T>) -> Self {
        Block(tier.core())
    }

    /// Frees what was retired, if a tier lives here.
    pub fn collect(&self) {
        let Some(_entered) = self.0.enter() else { return };
        epoch::help(self.0);
    }
}
