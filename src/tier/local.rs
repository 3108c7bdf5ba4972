//! A magazine of one's own: for a hot loop, and for many short-lived threads.

use std::marker::PhantomData;
use std::panic::Location;

use super::Tier;
use super::allocate::Caller;
use super::attach;
use super::lease::Lease;
use super::magazine::Magazine;
use super::scarcity;
use super::validate;
use crate::error::AllocateError;
use crate::slot::label::Label;

/// An owned magazine of a [`Tier`]: allocating and releasing through it needs no thread-local look-up.
///
/// Made by [`Tier::local`]. It stays on its thread (`!Send`), keeps its tier open like a clone of it, and gives its hints
/// back when dropped. Leases made by it are like any others; what is released by [`release`](Self::release) can be
/// allocated again with the least effort.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: tierpool::Tier<[u8; 64]> = tierpool::Tier::builder("packets").capacity(16).build_with(|| [0; 64])?;
/// let mut local = tier.local();
/// for _ in 0..1000 {
///     let mut packet = local.try_allocate()?;
///     packet[0] = 1;
///     local.release(packet);
/// }
/// # Ok(()) }
/// ```
pub struct Local<T: Send + 'static> {
    tier: Tier<T>,
    /// `None` if every magazine of the tier was taken: then it works like the tier itself, more slowly.
    magazine: Option<&'static Magazine>,
    _this_thread: PhantomData<*const ()>,
}

impl<T: Send + 'static> Local<T> {
    pub(crate) fn new(tier: Tier<T>) -> Self {
        // A thread whose locals are being destroyed has no number any more; the magazine is owned all the same.
        let owner = attach::thread_number().max(1);
        let magazine = tier.core().claim_magazine(owner);
        Local { tier, magazine, _this_thread: PhantomData }
    }

    /// A slot, or why there is none; never waits. See [`Tier::try_allocate`].
    ///
    /// # Errors
    /// As [`Tier::try_allocate`].
    #[inline(always)]
    #[track_caller]
    pub fn try_allocate(&mut self) -> Result<Lease<T>, AllocateError> {
        let core = self.tier.core();
        // SAFETY: the core is that of a `Tier<T>`.
        match unsafe {
            validate::allocate::<T>(
                core,
                Caller { site: Location::caller(), label: Label::NONE, magazine: self.magazine },
            )
        } {
            Some(lease) => Ok(lease),
            None => Err(scarcity::why(core, self.magazine, 1, 0)),
        }
    }

    /// Releases a lease through this magazine, whoever made it; a lease of another tier goes back to its own.
    ///
    /// # Panics
    /// If the tier's reset panics, as [`Lease::release`].
    #[inline(always)]
    #[track_caller]
    pub fn release(&mut self, lease: Lease<T>) {
        match self.magazine {
            Some(magazine) if lease.belongs_to(self.tier.core()) => lease.release_to(magazine, Location::caller()),
            _ => lease.release(),
        }
    }

    /// The tier that this is a magazine of.
    pub fn tier(&self) -> &Tier<T> {
        &self.tier
    }
}

impl<T: Send + 'static> Drop for Local<T> {
    fn drop(&mut self) {
        if let Some(magazine) = self.magazine {
            magazine.leave(self.tier.core());
        }
    }
}
