//! A slot held by many: counted, read-only, given back by the last.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;

use super::core::Core;
use super::lease::Lease;
use super::values::{InOut, Payload};
use crate::slot::handle::Handle;
use crate::slot::header::Note;
use crate::slot::word::State;

/// Shared ownership of one slot: `Clone`, dereferences to the value, and the last one gives the slot back.
///
/// Made by [`Lease::into_shared`]. Like a lease it is `'static`, may go to other threads and may outlive every `Tier`. The count
/// lies in the slot's header, so nothing is allocated; a clone and its drop cost an atomic addition each, like those of an
/// [`Arc`](std::sync::Arc). For readers that come and go too often for that, see [`Lease::share`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: tierpool::Tier<String> = tierpool::Tier::builder("routes").capacity(2).build_with(String::new)?;
/// let mut lease = tier.try_allocate()?;
/// lease.push_str("10.0.0.0/8 via eth1");
/// let route = lease.into_shared();
/// let reader = std::thread::spawn({
///     let route = route.clone();
///     move || route.len()
/// });
/// assert_eq!(reader.join().unwrap(), 19);
/// drop(route);
/// assert_eq!(tier.snapshot().free, 2);
/// # Ok(()) }
/// ```
#[must_use = "a shared lease that is dropped at once gives its slot back at once"]
pub struct SharedLease<T: 'static> {
    core: &'static Core,
    index: u32,
    _value: InOut<T>,
}

// SAFETY: it gives `&T` to every thread that has one, and moves the value to the thread that drops the last: as `Arc`.
unsafe impl<T: Send + Sync> Send for SharedLease<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for SharedLease<T> {}

impl<T: Send + Sync + 'static> Lease<T> {
    /// Shares the slot, read-only, among any number of [`SharedLease`]s; this is the first.
    ///
    /// Handles made by earlier detaches of the slot stay dead. Two stores.
    pub fn into_shared(self) -> SharedLease<T> {
        let (core, index) = self.into_parts();
        let header = core.header(index);
        header.set_note(Note::Sharers(1));
        header.give(header.held_word().next(State::SharedLease));
        SharedLease { core, index, _value: PhantomData }
    }
}

impl<T: 'static> SharedLease<T> {
    /// How many there are of this slot at this moment.
    pub fn sharers(&self) -> usize {
        match self.core.header(self.index).held_note() {
            Note::Sharers(count) => count as usize,
            _ => unreachable!("the note of a shared slot counts its sharers"),
        }
    }

    /// The unique lease again, if this is the only one.
    ///
    /// # Errors
    /// Itself, if there are others.
    pub fn into_lease(self) -> Result<Lease<T>, Self> {
        // The only one cannot become more meanwhile: nobody else has one to clone.
        if self.core.header(self.index).is_last_sharer() { Ok(self.reunite()) } else { Err(self) }
    }

    /// The slot's lease, for the last one, which has counted itself out.
    fn reunite(self) -> Lease<T> {
        let shared = ManuallyDrop::new(self);
        let header = shared.core.header(shared.index);
        header.set_note(Note::None);
        header.give(header.held_word().with(State::Leased));
        // SAFETY: the slot of a tier of `T`s is leased to this call. It counts as leased during a panic, so that one that
        // comes while it is dropped does not cost the value: who may only read has left it whole.
        unsafe { Lease::with_birth(shared.core, shared.index, true) }
    }

    /// Gives this one back; if it is the last, releases the slot and remembers the calling line.
    ///
    /// # Panics
    /// If the tier's reset panics, as [`Lease::release`].
    #[track_caller]
    pub fn release(self) {
        let site = Location::caller();
        let shared = ManuallyDrop::new(self);
        if shared.core.header(shared.index).count_sharer_out() {
            ManuallyDrop::into_inner(shared).reunite().release_at(site);
        }
    }

    /// The slot's present name, to be compared with what [`Tier::holders`](crate::Tier::holders) shows.
    pub fn handle(&self) -> Handle {
        let word = self.core.header(self.index).held_word();
        Handle::new(self.core.id, self.index, word.generation())
    }
}

impl<T: 'static> Clone for SharedLease<T> {
    fn clone(&self) -> Self {
        self.core.header(self.index).count_sharer_in();
        SharedLease { core: self.core, index: self.index, _value: PhantomData }
    }
}

impl<T: 'static> Deref for SharedLease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the slot of a tier of `T`s is shared by this and others like it, which only read.
        unsafe { &*Payload::<T>::of(self.core).slot(self.index) }
    }
}

impl<T: 'static> Drop for SharedLease<T> {
    fn drop(&mut self) {
        if self.core.header(self.index).count_sharer_out() {
            drop(SharedLease { core: self.core, index: self.index, _value: self._value }.reunite());
        }
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for SharedLease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLease").field("slot", &self.handle()).field("value", &**self).finish()
    }
}
