//! Many slots at once: all or nothing, and cheaper a slot than one by one.
//!
//! What is shared by a whole bulk: the thread-local look-up, the clock, the fences, the looks at the flags, the
//! bookkeeping of the magazine. What remains a slot: its claim.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::{iter, mem, slice};

use super::allocate::{Caller, allocate_slow, claim};
use super::attach;
use super::core::{Core, flags};
use super::lease::Lease;
use super::magazine::{Hint, Magazine};
use super::release;
use super::scarcity;
use super::sites;
use super::uses;
use super::validate;
use super::values::{InOut, Payload, rethrow};
use crate::error::AllocateError;
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::sync::Ordering;

/// Leases of many slots of one tier, in one buffer: what [`Tier::try_allocate_many`](crate::Tier::try_allocate_many)
/// gives. Dropping it releases them all, in bulk; iterating by value makes single [`Lease`]s of them.
///
/// A buffer that is emptied by [`release_all`](Self::release_all) keeps its memory for the next
/// [`Tier::try_allocate_into`](crate::Tier::try_allocate_into).
pub struct Leases<T: 'static> {
    /// None while empty.
    core: Option<&'static Core>,
    /// The slots' indices.
    held: Vec<u32>,
    born_in_panic: bool,
    _values: InOut<T>,
}

// SAFETY: as for `Lease`: the only way to the values.
unsafe impl<T: Send> Send for Leases<T> {}
// SAFETY: as for `Lease`: a shared one gives `&T` only.
unsafe impl<T: Sync> Sync for Leases<T> {}

/// Claims slots until `held` has `end`, by the magazine's hints and by one batch of the depot's, whose rest goes to the
/// magazine. False if there were no hints at all. `held` has room.
fn claim_many(core: &Core, magazine: &Magazine, caller: &Caller, held: &mut Vec<u32>, end: usize) -> bool {
    let (site, mark, stamp) = (caller.site, caller.label.mark, caller.stamp());
    let before = held.len();
    let popped = magazine.pop_many(end - held.len(), |hint| {
        let taken = claim(core, hint, site, mark, stamp);
        if taken.is_some() {
            held.push(hint.index);
        }
        taken.is_some()
    });
    if popped > 0 {
        uses::add(core, Some(magazine), caller.label, held.len() - before);
        return true;
    }
    let more = core.depot.take(
        |index| core.header(index).prefetch(),
        |index| {
            let hint = Hint { word: core.header(index).word(), index };
            if !hint.word.is_free() {
                return;
            }
            if held.len() == end {
                magazine.found(hint);
            } else if claim(core, hint, site, mark, stamp).is_some() {
                held.push(index);
            }
        },
    );
    magazine.note_elsewhere(held.len() - before, 0);
    uses::add(core, Some(magazine), caller.label, held.len() - before);
    more
}

/// Claims `n` slots into `leases`, or none.
///
/// # Safety
/// The tier in `core` is one of `T`s.
///
/// # Panics
/// If `leases` holds slots of another tier.
pub(crate) unsafe fn allocate_into<T: 'static>(
    core: &'static Core,
    leases: &mut Leases<T>,
    n: usize,
    site: Site,
    label: Label,
) -> Result<(), AllocateError> {
    assert!(
        leases.held.is_empty() || leases.core.is_some_and(|of| std::ptr::eq(of, core)),
        "`try_allocate_into`: the buffer holds slots of another tier; release them first or take another buffer"
    );
    let capacity = core.incarnation().capacity;
    // Of a reserve there may be some left.
    let may = core.flags.load(Ordering::Relaxed) & flags::RESERVES != 0;
    if n > capacity || (n > 0 && !may && scarcity::is_known_empty(core)) {
        return Err(scarcity::why(core, attach::current(core), n, 0));
    }
    let before = leases.held.len();
    leases.core = Some(core);
    leases.held.reserve(n);
    if core.flags.load(Ordering::Relaxed) & flags::WATCHES_PANICS != 0 {
        leases.born_in_panic = std::thread::panicking();
    }
    let mut caller = Caller { site, label, magazine: attach::current(core) };
    let end = before + n;
    while leases.held.len() < end {
        if let Some(magazine) = caller.magazine
            && claim_many(core, magazine, &caller, &mut leases.held, end)
        {
            continue;
        }
        match allocate_slow(core, caller.site, caller.label, caller.magazine) {
            Some(index) => leases.held.push(index),
            None => {
                let free = leases.held.len() - before;
                let panic = release::give_back_many::<T>(core, &leases.held[before..], None);
                leases.held.truncate(before);
                rethrow(panic);
                return Err(scarcity::why(core, attach::current(core), n, free));
            }
        }
        caller.magazine = attach::current(core);
    }
    if n >= sites::BULK {
        sites::note(core, site, n as u64);
    }
    // SAFETY: the tier is one of `T`s.
    unsafe { examine(core, leases, before, caller) }
}

/// Has the values of a bulk that was just claimed examined, if the tier does that; those that had to go are replaced by others,
/// or the whole bulk is refused.
///
/// # Safety
/// The tier in `core` is one of `T`s, and `leases` holds its slots.
unsafe fn examine<T: 'static>(
    core: &'static Core,
    leases: &mut Leases<T>,
    before: usize,
    caller: Caller,
) -> Result<(), AllocateError> {
    if core.flags.load(Ordering::Relaxed) & flags::VALIDATES == 0 {
        return Ok(());
    }
    // In a buffer of their own: should the program's check panic, those not yet examined go back.
    let mut claimed = Leases::<T> { core: Some(core), held: leases.held.split_off(before), ..Leases::new() };
    let wanted = claimed.len();
    while let Some(index) = claimed.held.pop() {
        // SAFETY: the slot is leased to this call, and in no buffer at present.
        let index = match unsafe { validate::is_fit::<T>(core, index) } {
            true => Some(index),
            // SAFETY: by the contract.
            false => unsafe { validate::allocate::<T>(core, caller) }.map(|lease| lease.into_parts().1),
        };
        match index {
            Some(index) => leases.held.push(index),
            None => {
                claimed.held.append(&mut leases.held.split_off(before));
                let free = claimed.len();
                drop(claimed);
                return Err(scarcity::why(core, attach::current(core), wanted, free));
            }
        }
    }
    Ok(())
}

impl<T: 'static> Leases<T> {
    /// An empty buffer, without memory.
    pub const fn new() -> Self {
        Leases { core: None, held: Vec::new(), born_in_panic: false, _values: PhantomData }
    }

    /// An empty buffer with room for `n` leases, 4 bytes each.
    pub fn with_capacity(n: usize) -> Self {
        Leases { held: Vec::with_capacity(n), ..Self::new() }
    }

    /// How many slots are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The values.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { payload: self.payload(), held: self.held.iter(), _values: PhantomData }
    }

    /// The values, to be changed.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut { payload: self.payload(), held: self.held.iter(), _values: PhantomData }
    }

    /// The values of the tier; `None` only while no slot is held.
    fn payload(&self) -> Option<Payload<T>> {
        // SAFETY: `core` is set together with the first slot, by a tier of `T`s; the slots held keep it from ending.
        self.core.filter(|_| !self.held.is_empty()).map(|core| unsafe { Payload::of(core) })
    }

    /// The last slot, as a lease of its own.
    pub fn pop(&mut self) -> Option<Lease<T>> {
        let index = self.held.pop()?;
        // SAFETY: the slot was leased to this buffer by a tier of `T`s, and has just left it.
        self.core.map(|core| unsafe { Lease::with_birth(core, index, self.born_in_panic) })
    }

    /// Releases all slots and remembers the calling line. Cheaper a slot than releasing one by one.
    ///
    /// # Panics
    /// If the tier's reset panics, after all slots have been dealt with.
    #[track_caller]
    pub fn release(mut self) {
        self.release_at(Some(Location::caller()));
    }

    /// The same, keeping the buffer's memory.
    ///
    /// # Panics
    /// If the tier's reset panics, after all slots have been dealt with.
    #[track_caller]
    pub fn release_all(&mut self) {
        self.release_at(Some(Location::caller()));
    }

    fn release_at(&mut self, site: Option<Site>) {
        let Some(core) = self.core.filter(|_| !self.held.is_empty()) else { return };
        if core.flags.load(Ordering::Relaxed) & flags::ONE_BY_ONE == 0 {
            let mut held = mem::take(&mut self.held);
            let panic = release::give_back_many::<T>(core, &held, site);
            held.clear();
            self.held = held;
            return rethrow(panic);
        }
        // User code runs for each slot, and may panic: the first panic goes on when all slots are dealt with.
        let mut panic = None;
        while let Some(lease) = self.pop() {
            let one = AssertUnwindSafe(|| match site {
                Some(site) => lease.release_at(site),
                None => drop(lease),
            });
            panic = panic.or(catch_unwind(one).err());
        }
        rethrow(panic);
    }
}

impl<T: 'static> Default for Leases<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: 'static> Drop for Leases<T> {
    fn drop(&mut self) {
        self.release_at(None);
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Leases<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The values of some [`Leases`].
pub struct Iter<'a, T: 'static> {
    payload: Option<Payload<T>>,
    held: slice::Iter<'a, u32>,
    _values: PhantomData<&'a T>,
}

impl<'a, T: 'static> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let &index = self.held.next()?;
        // SAFETY: the borrowed `Leases` holds the slot for 'a, and gives out only shared references meanwhile.
        self.payload.map(|payload| unsafe { &*payload.slot(index) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.held.size_hint()
    }
}

/// The values of some [`Leases`], to be changed.
pub struct IterMut<'a, T: 'static> {
    payload: Option<Payload<T>>,
    held: slice::Iter<'a, u32>,
    _values: PhantomData<&'a mut T>,
}

impl<'a, T: 'static> Iterator for IterMut<'a, T> {
    type Item = &'a mut T;

    fn next(&mut self) -> Option<&'a mut T> {
        let &index = self.held.next()?;
        // SAFETY: the `Leases`, borrowed mutably for 'a, holds the slot, and no slot twice.
        self.payload.map(|payload| unsafe { &mut *payload.slot(index) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.held.size_hint()
    }
}

/// Single leases out of [`Leases`], the last first; those not taken are released in bulk.
pub struct IntoIter<T: 'static> {
    leases: Leases<T>,
}

impl<T: 'static> Iterator for IntoIter<T> {
    type Item = Lease<T>;

    fn next(&mut self) -> Option<Lease<T>> {
        self.leases.pop()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.leases.len(), Some(self.leases.len()))
    }
}

impl<T: 'static> ExactSizeIterator for Iter<'_, T> {}
impl<T: 'static> ExactSizeIterator for IterMut<'_, T> {}
impl<T: 'static> ExactSizeIterator for IntoIter<T> {}
impl<T: 'static> iter::FusedIterator for Iter<'_, T> {}
impl<T: 'static> iter::FusedIterator for IterMut<'_, T> {}
impl<T: 'static> iter::FusedIterator for IntoIter<T> {}

impl<T: 'static> IntoIterator for Leases<T> {
    type Item = Lease<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { leases: self }
    }
}

impl<'a, T: 'static> IntoIterator for &'a Leases<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: 'static> IntoIterator for &'a mut Leases<T> {
    type Item = &'a mut T;
    type IntoIter = IterMut<'a, T>;

    fn into_iter(self) -> IterMut<'a, T> {
        self.iter_mut()
    }
}
