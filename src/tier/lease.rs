//! A lease: unique ownership of one slot, given back when dropped.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;

use super::allocate::Taken;
use super::core::{Core, flags};
use super::magazine::Magazine;
use super::release::Returned;
use super::values::{InOut, Payload, rethrow};
use super::{close, expire, rebuild, release};
use crate::clock;
use crate::slot::handle::Handle;
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;

/// Unique ownership of one slot of a [`Tier`](crate::Tier): dereferences to its value, and gives it back when dropped.
///
/// A lease is `'static` and touches no shared counter; it may go to another thread, outlive every `Tier`, and be
/// dropped during thread exit. Forgetting one ([`std::mem::forget`]) leaks its slot, which
/// [`Tier::holders`](crate::Tier::holders) shows with the line that allocated it.
///
/// There are four ways to end it besides dropping: [`release`](Self::release) names the line that did it,
/// [`detach`](Self::detach) turns it into a [`Handle`], [`take`](Self::take) keeps the value and
/// [`discard`](Self::discard) throws it away; after the last two the factory makes a new value for the slot.
#[must_use = "a lease that is dropped at once gives its slot back at once"]
pub struct Lease<T: 'static> {
    core: &'static Core,
    /// The slot's index, and above it [`BORN_IN_PANIC`] or nothing.
    place: u64,
    _value: InOut<T>,
}

/// Set if the thread was panicking when the lease was made; kept only if the tier watches panics.
pub(super) const BORN_IN_PANIC: u64 = 1 << 32;

// Two words travel in registers. With the state word as a third, a lease would be copied through memory, 16 bytes at a
// time, right after it was written 8 bytes at a time: some 5 ns of failed store forwarding at each move. The word is read
// from the header instead, where it has just been written.
const _: () = assert!(size_of::<Option<Lease<u8>>>() == 16);

// SAFETY: a lease is the only way to its value, like a `Box<T>`; everything else in it is shared and atomic.
unsafe impl<T: Send> Send for Lease<T> {}
// SAFETY: a shared lease gives `&T` only.
unsafe impl<T: Sync> Sync for Lease<T> {}

impl<T: 'static> Lease<T> {
    /// A lease of a slot that has just been leased to the caller.
    ///
    /// # Safety
    /// The tier in `core` is one of `T`s, and the slot is leased to nobody else.
    #[inline(always)]
    pub(crate) unsafe fn new(core: &'static Core, index: u32) -> Self {
        let watches = core.flags.load(Ordering::Relaxed) & flags::WATCHES_PANICS != 0;
        // SAFETY: by this function's own contract.
        unsafe { Self::with_birth(core, index, watches && std::thread::panicking()) }
    }

    /// The same, saying whether the slot was leased during a panic.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    #[inline(always)]
    pub(crate) unsafe fn with_birth(core: &'static Core, index: u32, born_in_panic: bool) -> Self {
        let born = if born_in_panic { BORN_IN_PANIC } else { 0 };
        Lease { core, place: u64::from(index) | born, _value: PhantomData }
    }

    #[inline(always)]
    fn index(&self) -> u32 {
        self.place as u32
    }

    #[inline(always)]
    fn word(&self) -> Word {
        self.core.header(self.index()).held_word()
    }

    #[inline(always)]
    fn payload(&self) -> Payload<T> {
        // SAFETY: the lease holds a slot of a tier of `T`s (see `new`).
        unsafe { Payload::of(self.core) }
    }

    #[inline(always)]
    fn returned(&self, site: Option<Site>) -> Returned {
        let taken = Taken { word: self.word(), index: self.index() };
        Returned { taken, site, born_in_panic: self.place & BORN_IN_PANIC != 0 }
    }

    /// The name of the lease's tier.
    pub(crate) fn tier_name(&self) -> &'static str {
        // The slot that is held keeps the incarnation from ending.
        self.core.incarnation().name
    }

    /// Puts the slot on an account, which has paid for it.
    pub(crate) fn charge(&self, account: u16) {
        self.core.header(self.index()).set_account(account);
    }

    pub(crate) fn belongs_to(&self, core: &Core) -> bool {
        std::ptr::eq(self.core, core)
    }

    /// Gives the slot back, and remembers the calling line: a second release of the same handle will name it.
    ///
    /// The same as dropping otherwise. Costs some nanoseconds; the tier's reset runs here.
    ///
    /// # Panics
    /// If the tier's reset panics. The value is dropped then, and the slot rebuilt.
    #[inline(always)]
    #[track_caller]
    pub fn release(self) {
        self.release_at(Location::caller());
    }

    #[inline(always)]
    pub(crate) fn release_at(self, site: Site) {
        let lease = ManuallyDrop::new(self);
        release::release::<T>(lease.core, lease.returned(Some(site)));
    }

    /// Gives the slot back through a magazine that the thread owns.
    #[inline(always)]
    pub(crate) fn release_to(self, magazine: &Magazine, site: Site) {
        let lease = ManuallyDrop::new(self);
        release::release_to::<T>(lease.core, magazine, lease.returned(Some(site)));
    }

    /// The slot's index, and above it [`BORN_IN_PANIC`] or nothing.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Ends the lease, and leaves the slot to the caller.
    #[inline(always)]
    pub(crate) fn into_parts(self) -> (&'static Core, u32) {
        let lease = ManuallyDrop::new(self);
        (lease.core, lease.index())
    }

    /// Shares the value, read-only, with whoever has the handle: [`Tier::read`](crate::Tier::read), under a [pin](crate::Tier::pin).
    ///
    /// The slot is taken until somebody retires the handle ([`Tier::retire`](crate::Tier::retire)). If no `Tier` exists any more,
    /// nobody could ever read or retire it: then the value is dropped at once. Handles made by earlier detaches of the slot stay
    /// dead. Two stores and a light fence.
    pub fn share(self) -> Handle
    where
        T: Sync,
    {
        self.leave(State::Shared, Note::None)
    }

    /// Ends the lease without giving the slot back: whoever brings the handle, and nobody else, can attach or release it.
    ///
    /// Handles made by earlier `detach`es of the same slot stay dead. If no `Tier` exists any more, nobody could ever
    /// attach it: then the value is dropped at once.
    #[inline(always)]
    pub fn detach(self) -> Handle {
        self.leave(State::Detached, Note::None)
    }

    /// The same, for `patience` at most: if nobody attaches or releases the handle in time, the reclaimer releases the slot.
    ///
    /// The deadline goes by the coarse clock: the handle lives for `patience` at least, and until the first pass
    /// ([`TierBuilder::reclaimer`](crate::TierBuilder::reclaimer)) more than 20 ms later at most. A pass that has just taken long is not
    /// repeated before 16 times that long. More than 248 days mean no deadline. Reads the clock, which [`detach`](Self::detach) does not.
    pub fn detach_for(self, patience: Duration) -> Handle {
        clock::tick();
        let core = self.core;
        let Some(deadline) = clock::now().plus(patience) else { return self.detach() };
        let handle = self.leave(State::Detached, Note::Deadline(deadline));
        expire::note_deadline(core, deadline);
        handle
    }

    /// Leaves the slot to whoever has the handle.
    #[inline(always)]
    fn leave(self, state: State, note: Note) -> Handle {
        let (core, index) = self.into_parts();
        let header = core.header(index);
        let word = header.held_word().next(state);
        header.set_note(note);
        header.give(word);
        // Pairs with the heavy fence in `close::orphan`: either its sweep finds the word, or this load the flag.
        core.fence.light();
        if core.flags.load(Ordering::Relaxed) & flags::ORPHANED != 0 {
            rethrow(close::bury::<T>(core, index, word).err());
        }
        Handle::new(core.id, index, word.generation())
    }

    /// Drops the value, which is broken, and has the factory make another for the slot.
    ///
    /// If the factory fails or panics, the slot is out of service (`quarantined` in
    /// [`Tier::snapshot`](crate::Tier::snapshot)) until an allocation that finds nothing free rebuilds it.
    ///
    /// # Panics
    /// If the value's `Drop` panics; the slot is rebuilt all the same.
    #[track_caller]
    pub fn discard(self) {
        let lease = ManuallyDrop::new(self);
        // SAFETY: the lease holds the slot and its value, and does not use it again.
        unsafe { rebuild::discard::<T>(lease.core, &lease.returned(Some(Location::caller())), None) };
    }

    /// Keeps the value, and has the factory make another for the slot; see [`discard`](Self::discard).
    #[track_caller]
    pub fn take(self) -> T {
        let site = Location::caller();
        let lease = ManuallyDrop::new(self);
        // SAFETY: the lease holds the slot and its value, which moves out; then the slot has none.
        unsafe {
            let value = lease.payload().slot(lease.index()).read();
            rebuild::vacate::<T>(lease.core, lease.returned(None).taken, Some(site), None);
            value
        }
    }

    /// The slot's present name, to be compared with what [`Tier::holders`](crate::Tier::holders) shows. It cannot be
    /// attached: the slot is leased.
    pub fn handle(&self) -> Handle {
        Handle::new(self.core.id, self.index(), self.word().generation())
    }
}

impl<T: 'static> Deref for Lease<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lease holds the slot, so its value is there and nobody else writes it.
        unsafe { &*self.payload().slot(self.index()) }
    }
}

impl<T: 'static> DerefMut for Lease<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lease holds the slot and is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.payload().slot(self.index()) }
    }
}

impl<T: 'static> Drop for Lease<T> {
    #[inline(always)]
    fn drop(&mut self) {
        release::release::<T>(self.core, self.returned(None));
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("slot", &self.handle()).field("value", &**self).finish()
    }
}
