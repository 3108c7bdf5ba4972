//! A tier: a set of equal slots, handed out without locks.
//!
//! Read in this order:
//!
//! 1. *Handing out and taking back*, about half of it: [`core`] (the control block), [`magazine`] and [`depot`] (where hints
//!    wait), [`allocate`] and [`release`] (the hot paths), [`scarcity`] (when to refuse), [`lease`] and [`handles`] (who holds a slot),
//!    [`values`] and [`rebuild`] (user code and its panics), [`close`] (the end); [`attach`] and [`registry`], which find a thread's
//!    magazine and a handle's control block; on top of them [`bulk`], [`local`], [`report`], [`census`] and [`builder`]; what is counted
//!    beside it, in [`uses`], [`sampled`] and [`latency`].
//! 2. *Sharing*: [`shared`] (counted), [`pin`] (who reads), [`epoch`] (when what was retired may be used again), [`chain`] (what was).
//! 3. *Waiting*: [`queue`] (who waits), [`order`] (who is next), [`wait`] (how slots come to them), [`seat`] (a waiter's hold on its
//!    place), [`future`] (those who wait); [`reserve`] (slots for urgent allocations).
//! 4. *What nobody asks for*: [`reclaim`] (a pass), [`pass`] (its lock), [`background`] (who makes it) and [`chores`] (what else that thread does); what it does, in
//!    [`clean`], [`expire`], [`turnover`], [`leaks`] (with [`sites`], [`verdict`] and [`suspect`]), and in [`grow`] with [`segments`]; [`help`] (what allocations do of it), [`validate`],
//!    [`backoff`], [`notice`] (what is reported, in `events` to `tracing`) and [`life`] (what the tier was told).
//!
//! Nothing in 1 waits for 2 to 4, and a tier that uses none of them pays a few bits in a word that it reads anyway.

pub(crate) mod account;
pub(crate) mod allocate;
pub(crate) mod attach;
pub(crate) mod background;
pub(crate) mod backoff;
pub(crate) mod builder;
pub(crate) mod bulk;
pub(crate) mod census;
pub(crate) mod chain;
pub(crate) mod chores;
pub(crate) mod clean;
pub(crate) mod close;
pub(crate) mod core;
pub(crate) mod credit;
pub(crate) mod depot;
pub(crate) mod epoch;
#[cfg(feature = "tracing")]
mod events;
pub(crate) mod expire;
pub(crate) mod future;
pub(crate) mod grow;
pub(crate) mod handles;
pub(crate) mod help;
pub(crate) mod latency;
pub(crate) mod leaks;
pub(crate) mod lease;
pub(crate) mod life;
pub(crate) mod local;
pub(crate) mod magazine;
pub(crate) mod notice;
pub(crate) mod order;
pub(crate) mod pass;
pub(crate) mod pin;
pub(crate) mod queue;
pub(crate) mod rebuild;
pub(crate) mod reclaim;
pub(crate) mod registry;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod reserve;
pub(crate) mod sampled;
pub(crate) mod scarcity;
pub(crate) mod seat;
pub(crate) mod segments;
pub(crate) mod shared;
pub(crate) mod sites;
pub(crate) mod suspect;
pub(crate) mod turnover;
pub(crate) mod uses;
pub(crate) mod validate;
pub(crate) mod values;
pub(crate) mod verdict;
pub(crate) mod wait;

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;

use self::allocate::Caller;
use self::builder::TierBuilder;
use self::bulk::Leases;
use self::census::HoldersBySite;
use self::core::Core;
use self::lease::Lease;
use self::local::Local;
use self::pin::Pin;
use self::reclaim::Reclaimed;
use self::report::{Holder, Snapshot};
use self::suspect::Suspect;
use self::values::{InOut, Payload};
use crate::error::{AllocateError, CloseError, GrowError, HandleError};
use crate::slot::handle::Handle;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::Ordering;
use crate::sync::atomic::fence;

/// A set of equal slots, each with a value of type `T`, handed out in a few nanoseconds to any thread.
///
/// A `Tier` is a reference: clones share the slots. When the last one is dropped, the tier closes; leases that are still
/// out stay valid, and their values are dropped when they come back.
///
/// No operation that begins with `try_`, and no release, ever waits for another thread: one that is stopped anywhere
/// stops nobody else, and hides no free slot. The first use of a tier by a thread registers it, which may call the system
/// allocator.
///
/// ```
/// use tierpool::Tier;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: Tier<Vec<u8>> = Tier::builder("frames").capacity(1024).build_with(|| vec![0u8; 4096])?;
///
/// let mut lease = tier.try_allocate()?;     // a few nanoseconds
/// lease[0] = 1;
/// let handle = lease.detach();              // a 16-byte name; the slot stays taken
/// let lease = tier.attach(handle)?;         // exactly one wins
/// let handle = lease.detach();
/// tier.release(handle)?;
///
/// let again = tier.release(handle).unwrap_err();
/// println!("{again}");                      // says where it was allocated and released
/// # Ok(()) }
/// ```
pub struct Tier<T: Send + 'static> {
    core: &'static Core,
    _values: InOut<T>,
}

// SAFETY: a tier hands values to one thread at a time, by move; it gives no access to them itself.
unsafe impl<T: Send> Sync for Tier<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Tier<T> {}

impl<T: Send + 'static> Tier<T> {
    /// Begins a tier. The name stands in errors and reports: at most 128 bytes, without control characters, quotation
    /// marks and backslashes. It need not be unique.
    pub fn builder(name: &str) -> TierBuilder<T> {
        TierBuilder::new(name)
    }

    /// # Safety
    /// The block holds an open tier of `T`s, and its `tiers` counts this one.
    unsafe fn from_core(core: &'static Core) -> Self {
        Tier { core, _values: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn core(&self) -> &'static Core {
        self.core
    }

    /// A slot, or why there is none; never waits. The calling line is remembered as the holder.
    ///
    /// Costs one compare-exchange and some stores while the thread's magazine has hints; each time it is empty, a refill
    /// from the depot or a look at other threads' magazines; at the worst, a pass over all headers.
    ///
    /// What the last holder did to the value happens before what this one does.
    ///
    /// # Errors
    /// [`AllocateError::Exhausted`] if there was a moment during the call at which no slot was free anywhere;
    /// [`AllocateError::Closed`] after [`close`](Self::close). A refusal allocates no memory.
    #[inline(always)]
    #[track_caller]
    pub fn try_allocate(&self) -> Result<Lease<T>, AllocateError> {
        let caller = self.caller(Location::caller(), Label::NONE);
        match self.take(caller) {
            Some(lease) => Ok(lease),
            None => Err(self.refusal(caller)),
        }
    }

    /// Somebody on this thread who allocates at that line.
    #[inline(always)]
    pub(crate) fn caller(&self, site: Site, label: Label) -> Caller {
        Caller { site, label, magazine: attach::current(self.core) }
    }

    /// A slot for that caller. If there is none, he is to ask for the [`refusal`](Self::refusal), which is out of the hot path's way.
    #[inline(always)]
    pub(crate) fn take(&self, caller: Caller) -> Option<Lease<T>> {
        // SAFETY: the core is that of a `Tier<T>`.
        unsafe { validate::allocate::<T>(self.core, caller) }
    }

    /// Counts that the caller was refused a slot, and says why.
    #[inline(always)]
    pub(crate) fn refusal(&self, caller: Caller) -> AllocateError {
        scarcity::why(self.core, caller.magazine, 1, 0)
    }

    /// `n` slots, or none; never waits. Cheaper a slot than one by one; allocates the buffer, 4 bytes a slot.
    ///
    /// # Errors
    /// As [`try_allocate`](Self::try_allocate), if not all `n` slots could be had. Slots claimed before that are given
    /// back, so that two bulks that compete for the last slots may both be refused.
    #[track_caller]
    pub fn try_allocate_many(&self, n: usize) -> Result<Leases<T>, AllocateError> {
        let mut leases = Leases::new();
        self.allocate_into(&mut leases, n, Location::caller(), Label::NONE)?;
        Ok(leases)
    }

    /// The same, adding to a buffer that may have room already: then nothing is allocated.
    ///
    /// # Errors
    /// As [`try_allocate_many`](Self::try_allocate_many); the buffer is then as it was.
    ///
    /// # Panics
    /// If the buffer holds slots of another tier.
    #[track_caller]
    pub fn try_allocate_into(&self, leases: &mut Leases<T>, n: usize) -> Result<(), AllocateError> {
        self.allocate_into(leases, n, Location::caller(), Label::NONE)
    }

    pub(crate) fn allocate_into(
        &self,
        leases: &mut Leases<T>,
        n: usize,
        site: Site,
        label: Label,
    ) -> Result<(), AllocateError> {
        // SAFETY: the core is that of a `Tier<T>`.
        unsafe { bulk::allocate_into(self.core, leases, n, site, label) }
    }

    /// A magazine of one's own, for a hot loop or a short-lived thread; see [`Local`].
    pub fn local(&self) -> Local<T> {
        Local::new(self.clone())
    }

    /// Leases the slot of a handle to the caller. Of all who try with copies of one handle, exactly one wins.
    ///
    /// Works after [`close`](Self::close) too, so that what is under way can be finished. One compare-exchange.
    ///
    /// # Errors
    /// [`HandleError`]: the handle was used before, is of another tier, or names nothing. Nothing is changed then.
    pub fn attach(&self, handle: Handle) -> Result<Lease<T>, HandleError> {
        let index = handles::attach(self.core, handle)?;
        // SAFETY: the core is that of a `Tier<T>`, and the slot has just been leased to this call.
        Ok(unsafe { Lease::new(self.core, index) })
    }

    /// Releases the slot of a handle, and remembers the calling line. Exactly one of all who try with it wins.
    ///
    /// # Errors
    /// As [`attach`](Self::attach). A second release names the first, while the slot has not been allocated again.
    ///
    /// # Panics
    /// If the tier's reset panics, as [`Lease::release`].
    #[track_caller]
    pub fn release(&self, handle: Handle) -> Result<(), HandleError> {
        let site = Location::caller();
        self.attach(handle)?.release_at(site);
        Ok(())
    }

    /// A pin for the calling thread, under which it may [`read`](Self::read) shared values of this tier: they stay where they are until
    /// it is dropped. Never waits, never fails.
    ///
    /// Some two nanoseconds with its drop: two stores, to a line that no other thread writes. In a process with the portable fence
    /// ([`fence_kind`](crate::fence_kind)) a full fence more, unless another pin of the thread stands. A thread's first use of the
    /// tier registers it.
    #[inline(always)]
    pub fn pin(&self) -> Pin<'_, T> {
        Pin::new(self)
    }

    /// The shared value of a handle, to be read as long as the pin stands; `None` if it was retired, or the handle is no longer
    /// that of a shared slot of this tier. Wait-free: one load of the slot's word and some comparisons, about a nanosecond.
    ///
    /// What was done to the value before [`Lease::share`] happens before what its readers do; what they do, before its next use. Closing
    /// the tier changes nothing for readers.
    ///
    /// # Panics
    /// If the pin is of another tier: it would not protect the value.
    #[inline(always)]
    #[track_caller]
    pub fn read<'pin>(&self, handle: Handle, pin: &'pin Pin<'_, T>) -> Option<&'pin T>
    where
        T: Sync,
    {
        pin.assert_is_of(self.core);
        // SAFETY: the core is that of a `Tier<T>`. The slot is shared, so its value is there and nobody writes it; once it is
        // retired, that stays so until the pin is gone (see `epoch`).
        epoch::is_readable(self.core, handle).then(|| unsafe { &*Payload::<T>::of(self.core).slot(handle.index()) })
    }

    /// Ends the sharing of a handle's slot, and remembers the calling line: from here on nobody reads the value anew, and when the
    /// last pin is gone under which somebody may have read it before, it is free. Exactly one of all who try wins.
    ///
    /// The slot becomes free in a pass ([`TierBuilder::reclaimer`]), or when an allocation finds nothing else. Reset and cleaning run
    /// then, on the thread that does it; what they panic with is reported ([`TierBuilder::on_report`]). In a closed tier the value is
    /// dropped instead, at once if no pin is in the way, else in a pass, by a later retirement, by
    /// [`close_and_wait`](Self::close_and_wait), or with the last `Tier`.
    ///
    /// Never waits: a compare-exchange on the slot's word, one on the list of what was retired, and a light fence.
    ///
    /// # Errors
    /// As [`attach`](Self::attach). A second retirement names the first, while that is still known.
    #[track_caller]
    pub fn retire(&self, handle: Handle) -> Result<(), HandleError> {
        epoch::retire(self.core, handle, Location::caller())
    }

    /// Closes the tier: it hands out nothing any more, and drops every free value now, every other when it comes back.
    ///
    /// Leases and handles stay valid. Closing twice does nothing more. One pass over the headers; does not wait: a slot whose
    /// release was under way meanwhile, on a thread that is stopped in the middle of it, may be allocated once more by a
    /// thread that had looked for one before, and is dropped when it comes back.
    ///
    /// # Panics
    /// If a value's `Drop` panics, after all free values have been dropped.
    pub fn close(&self) {
        close::close::<T>(self.core);
    }

    /// Closes the tier, and waits at most `patience` until every slot has come back.
    ///
    /// # Errors
    /// [`CloseError`] names who still holds what, and from which line. The tier is closed all the same.
    ///
    /// # Panics
    /// As [`close`](Self::close).
    pub fn close_and_wait(&self, patience: Duration) -> Result<(), CloseError> {
        self.close();
        close::wait(self.core, patience)
    }

    /// Makes a pass of the reclaimer now: frees what was retired, cleans what is dirty, releases what has expired, replaces and
    /// removes values, reports leaks; see [`TierBuilder`]. Says what it did; nothing, if another thread is in a pass.
    ///
    /// Also for tiers with a background reclaimer. Costs a few loads for each thing that the tier was not told to do, and a pass over
    /// the headers for each of: expired handles, leaks, ages, idleness. What the program's own code panics with is reported.
    pub fn reclaim(&self) -> Reclaimed {
        // SAFETY: the core is that of a `Tier<T>`, which the caller has.
        unsafe { reclaim::pass::<T>(self.core, true) }.unwrap_or_default()
    }

    /// Adds slots until the tier has `slots` of them, or its capacity. Waits for a pass that is under way.
    ///
    /// # Errors
    /// [`GrowError`], if the factory failed, there is no memory, the tier is closed, or `slots` is more than its capacity; what was
    /// added before stays. [`GrowError::InPass`] if it is called by the program's code that a pass of the reclaimer runs.
    pub fn grow_to(&self, slots: usize) -> Result<(), GrowError> {
        grow::grow_to::<T>(self.core, slots)
    }

    /// Removes free slots, those with the highest numbers first, until the tier has `slots` of them, or its smallest size, or no
    /// other that is free. Returns how many it has. Waits for a pass that is under way.
    ///
    /// The memory of each part of the payload that has become empty goes back to the system. Called by the program's code that a
    /// pass of the reclaimer runs, it does nothing.
    pub fn shrink_to(&self, slots: usize) -> usize {
        grow::shrink_to::<T>(self.core, slots)
    }

    /// Shows every free value to `keep`, and replaces those of which it says `false`. Returns how many.
    ///
    /// While a value is examined its slot is not free. What is held or changes hands meanwhile is not seen.
    ///
    /// # Panics
    /// If `keep`, or a value's `Drop`, panics; that value is replaced, the rest is not seen.
    pub fn retain(&self, keep: impl FnMut(&mut T) -> bool) -> usize {
        turnover::retain::<T>(self.core, keep).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// How many slots are in which state, and the counters. Reads each word once, and stops nobody.
    pub fn snapshot(&self) -> Snapshot {
        report::snapshot(self.core)
    }

    /// Who holds what: state, age, allocating line and thread of each slot that is leased or detached. Stops nobody.
    pub fn holders(&self) -> Vec<Holder> {
        report::holders(self.core)
    }

    /// Who holds how much: the holders counted by line, tenant, tag and priority, and what has grown since an earlier count
    /// ([`HoldersBySite::since`]). Stops nobody: one pass over the headers, of loads only; some milliseconds for a million slots.
    pub fn holders_by_site(&self) -> HoldersBySite {
        HoldersBySite::of_all(std::iter::once(self.core))
    }

    /// The lines of which slots are held for longer than [`TierBuilder::leak_after`], each with a [`Verdict`](crate::Verdict) on whether that is
    /// a leak, the surest first: as the last pass found them. Nothing, if the tier was not told to look. A copy of a list, and stops nobody.
    pub fn leaks(&self) -> Vec<Suspect> {
        leaks::suspects(self.core)
    }

    /// The name given to [`builder`](Self::builder).
    pub fn name(&self) -> &'static str {
        self.core.incarnation().name
    }

    /// How many slots the tier has at most; how many it has, [`Snapshot::slots`] tells.
    pub fn capacity(&self) -> usize {
        self.core.incarnation().capacity
    }

    /// How many slots the tier has at least: [`TierBuilder::min_capacity`], or its capacity.
    pub fn min_capacity(&self) -> usize {
        self.core.life().min
    }

    /// Bytes that the tier uses beside its payload: 32 a slot for headers, about 4 for hints, 1,088 for each thread that
    /// used it at the same time, and its control block.
    pub fn overhead_bytes(&self) -> usize {
        report::overhead_bytes(self.core)
    }
}

impl<T: Send + 'static> Clone for Tier<T> {
    fn clone(&self) -> Self {
        // Relaxed: the new reference is made from one that keeps the tier open.
        self.core.tiers.fetch_add(1, Ordering::Relaxed);
        Tier { core: self.core, _values: PhantomData }
    }
}

impl<T: Send + 'static> Drop for Tier<T> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire fence below; every use of every clone comes before the end.
        if self.core.tiers.fetch_sub(1, Ordering::Release) == 1 {
            // Acquire fence: pairs with the Release decrements of the others.
            fence(Ordering::Acquire);
            close::orphan::<T>(self.core);
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Tier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("name", &self.name()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
