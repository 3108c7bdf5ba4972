//! Shared leases: one slot held by many, who may read its value; the last to go gives it back.
//!
//! While a slot is `SharedLease`, its holders together are what one holder is to a leased slot: nobody else writes its word, so
//! neither close nor the end of the last `Tier` takes it away. How many they are stands in the header's note, counted as by
//! `Arc`. The last one makes the slot `Leased` again, and from there it goes the way of any lease.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;

use super::allocate::Taken;
use super::core::{Core, flags};
use super::lease::{BORN_IN_PANIC, Lease};
use super::rebuild;
use super::release::{self, Returned};
use super::values::{InOut, Payload};
use crate::slot::handle::Handle;
use crate::slot::header::{Header, Note, Site};
use crate::slot::word::State;
use crate::sync::Ordering;

/// Shared ownership of one slot of a [`Tier`](crate::Tier), like an [`Arc`](std::sync::Arc) whose memory is the slot: `Clone`,
/// dereferences to the value, which nobody can change, and gives the slot back when the last clone is dropped.
///
/// Made by [`Lease::into_shared`]. In a tier that [discards on panic](crate::TierBuilder::discard_on_panic), a panic over any of the
/// clones costs the value, when the last is gone: what can be changed behind a shared reference may be half changed. For holders that keep a value for long, in any threads. A clone and its drop cost an atomic
/// addition each, on a line that all clones share; what is looked at for a moment by many threads at a high rate is better read under
/// a [pin](crate::Tier::pin), which shares nothing. Like a lease it is `'static` and stays valid whatever is dropped or closed first.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: tierpool::Tier<String> = tierpool::Tier::builder("books").capacity(4).build_with(String::new)?;
/// let mut lease = tier.try_allocate()?;
/// lease.push_str("bid 99, ask 101");
/// let book = lease.into_shared();
/// let reader = std::thread::spawn({ let book = book.clone(); move || book.len() });
/// assert_eq!(reader.join().unwrap(), book.len());
/// let lease = book.into_lease().expect("the reader's clone is gone");   // alone again: may be written
/// # drop(lease); Ok(()) }
/// ```
#[must_use = "a shared lease that is dropped at once gives its slot back at once"]
pub struct SharedLease<T: 'static> {
    core: &'static Core,
    /// As in a [`Lease`].
    place: u64,
    _value: InOut<T>,
}

const _: () = assert!(size_of::<Option<SharedLease<u8>>>() == 16);

// SAFETY: it gives `&T` to whatever thread has it, and the last one to go drops or resets the value there, like an `Arc<T>`.
unsafe impl<T: Send + Sync> Send for SharedLease<T> {}
// SAFETY: as above; a reference can be cloned into another thread.
unsafe impl<T: Send + Sync> Sync for SharedLease<T> {}

impl<T: Send + Sync + 'static> Lease<T> {
    /// Shares the slot, read-only, among any number of [`SharedLease`]s; this is the first.
    ///
    /// Handles made by earlier detaches of the slot stay dead. Two stores.
    pub fn into_shared(self) -> SharedLease<T> {
        let place = self.place();
        let (core, index) = self.into_parts();
        let header = core.header(index);
        header.set_note(Note::Sharers(1));
        header.give(header.held_word().next(State::SharedLease));
        SharedLease { core, place, _value: PhantomData }
    }
}

impl<T: 'static> SharedLease<T> {
    #[inline]
    fn index(&self) -> u32 {
        self.place as u32
    }

    #[cfg(all(feature = "cache", not(loom)))]
    pub(crate) fn core(&self) -> &'static Core {
        self.core
    }

    #[inline]
    fn header(&self) -> &'static Header {
        self.core.header(self.index())
    }

    /// How many shared leases of the slot there are, this one included. One load; another thread may change it at any time,
    /// unless it is 1.
    pub fn sharers(&self) -> usize {
        self.header().sharers() as usize
    }

    /// Gives this shared lease up, and the slot back if it was the last; the calling line is remembered then. The same as
    /// dropping otherwise.
    ///
    /// # Panics
    /// If it was the last, as [`Lease::release`].
    #[track_caller]
    pub fn release(self) {
        ManuallyDrop::new(self).leave(Some(Location::caller()));
    }

    /// The lease again, if this is the only one left. What the others did comes before. One load and a store.
    ///
    /// In a tier that [discards on panic](crate::TierBuilder::discard_on_panic), a panic over a clone is forgotten by this: whoever has
    /// the value alone can put it right, or [discard](Lease::discard) it.
    ///
    /// # Errors
    /// The shared lease, unchanged, if there are others.
    pub fn into_lease(self) -> Result<Lease<T>, SharedLease<T>> {
        if self.sharers() != 1 {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        this.take_over();
        // SAFETY: the slot is of a tier of `T`s and leased to nobody else: nobody has another shared lease of it, and only
        // from one could another be made.
        Ok(unsafe { Lease::with_birth(this.core, this.index(), this.place & BORN_IN_PANIC != 0) })
    }

    /// For the only one left: the slot is leased to the caller.
    fn take_over(&self) -> Taken {
        let header = self.header();
        let word = header.held_word().to(State::Leased);
        header.give(word);
        Taken { word, index: self.index() }
    }

    #[inline]
    fn leave(&self, site: Option<Site>) {
        let header = self.header();
        if is_panicking(self.core) && self.place & BORN_IN_PANIC == 0 {
            header.note_panic();
        }
        if let Some(broken) = header.count_sharer_out() {
            self.end(site, broken);
        }
    }

    #[inline(never)]
    fn end(&self, site: Option<Site>, broken: bool) {
        // Whether a panic came over the value has been said already, by each of those who went.
        let returned = Returned { taken: self.take_over(), site, born_in_panic: true };
        if broken {
            // SAFETY: the slot, of a tier of `T`s, is leased to this call, and its value is not used again.
            unsafe { rebuild::discard::<T>(self.core, &returned, None) };
        } else {
            release::release::<T>(self.core, returned);
        }
    }

    /// The slot's present name, to be compared with what [`Tier::holders`](crate::Tier::holders) shows. It cannot be
    /// attached or read.
    pub fn handle(&self) -> Handle {
        Handle::new(self.core.id, self.index(), self.header().held_word().generation())
    }
}

/// Whether a panic is under way on this thread, if the tier wants to know.
#[inline]
fn is_panicking(core: &Core) -> bool {
    core.flags.load(Ordering::Relaxed) & flags::WATCHES_PANICS != 0 && std::thread::panicking()
}

impl<T: 'static> Clone for SharedLease<T> {
    /// One atomic addition. If so many clones were forgotten that the count would overflow, at 2³¹, the slot is never given back.
    #[inline]
    fn clone(&self) -> Self {
        self.header().count_sharer_in();
        let born = if is_panicking(self.core) { BORN_IN_PANIC } else { 0 };
        SharedLease { core: self.core, place: u64::from(self.index()) | born, _value: PhantomData }
    }
}

impl<T: 'static> Deref for SharedLease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the slot, of a tier of `T`s, is held by this and its clones; its value is there and nobody writes it.
        unsafe { &*Payload::<T>::of(self.core).slot(self.index()) }
    }
}

impl<T: 'static> Drop for SharedLease<T> {
    #[inline]
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for SharedLease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("SharedLease");
        all.field("slot", &self.handle()).field("sharers", &self.sharers()).field("value", &**self).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Tier;

    /// As after 2³¹ clones that were forgotten: the slot is lost, and nobody's value is taken away.
    #[test]
    fn a_count_that_would_overflow_keeps_the_slot_for_ever() {
        let tier: Tier<u64> = Tier::builder("crowd").capacity(1).build_with(|| 7).unwrap();
        let shared = tier.try_allocate().unwrap().into_shared();
        shared.header().set_note(Note::Sharers((1 << 31) - 1));
        std::mem::forget(shared.clone());
        let (more, yet_more) = (shared.clone(), shared.clone());
        assert!(shared.sharers() >= 1 << 31);
        drop((more, yet_more));
        assert!(shared.sharers() >= 1 << 31, "nothing leads out of it");
        let shared = shared.into_lease().unwrap_err();
        assert_eq!(*shared, 7);
        drop(shared);
        assert_eq!(tier.snapshot().shared, 1);
    }
}
