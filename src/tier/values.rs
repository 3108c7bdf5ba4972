//! The values in the slots: where they lie, how they are made, reset and dropped.
//!
//! User code runs only here: factory, reset and the values' own `Drop`. Each may panic. The order of steps is such
//! that a panic costs at most the value it happened to: the slot then stands without one (`Quarantined`), and is rebuilt
//! by the next attempt that succeeds.

use std::alloc::{Layout, dealloc};
use std::error::Error;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::core::{Core, Incarnation};

/// In whatever gives access to values of a tier: they go in and out, like those of a `Mutex`, so a `Tier<T>` or `Lease<T>` must
/// not pass for one of a supertype. Else safe code could put a function that only takes `&'static u8` where another
/// user of the same tier finds one that takes any `&u8`:
///
/// ```compile_fail,E0308
/// # use tierpool::Tier;
/// fn narrow(tier: Tier<fn(&u8)>) -> Tier<fn(&'static u8)> { tier }
/// ```
/// ```compile_fail,E0308
/// # use tierpool::Lease;
/// fn narrow(lease: Lease<fn(&u8)>) -> Lease<fn(&'static u8)> { lease }
/// ```
/// ```compile_fail,E0308
/// # use tierpool::Leases;
/// fn narrow(leases: Leases<fn(&u8)>) -> Leases<fn(&'static u8)> { leases }
/// ```
/// ```compile_fail,E0308
/// # use tierpool::Local;
/// fn narrow(local: Local<fn(&u8)>) -> Local<fn(&'static u8)> { local }
/// ```
pub(crate) type InOut<T> = PhantomData<fn(T) -> T>;

/// What a fallible factory may fail with.
pub(crate) type FactoryError = Box<dyn Error + Send + Sync>;
/// Makes a value for a slot.
pub(crate) type Factory<T> = Box<dyn Fn() -> Result<T, FactoryError> + Send + Sync>;
/// Makes a used value fit for the next user.
pub(crate) type Reset<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// What a tier does to its values.
pub(crate) struct Values<T> {
    pub(crate) factory: Factory<T>,
    pub(crate) reset: Option<Reset<T>>,
}

/// The values of the tier in a control block, as `T`s.
///
/// Made only where the control block is known to hold a tier of `T`s that has not ended.
pub(crate) struct Payload<T> {
    first: *mut T,
    values: *const Values<T>,
    _marker: PhantomData<T>,
}

impl<T> Clone for Payload<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Payload<T> {}

impl<T> Payload<T> {
    /// The values of the tier that lives in `core`.
    ///
    /// # Safety
    /// `core` holds a tier of `T`s, and a slot or tier that the caller holds keeps it from ending while this lives.
    #[inline(always)]
    pub(crate) unsafe fn of(core: &Core) -> Self {
        let incarnation = core.incarnation();
        Payload { first: incarnation.payload.cast(), values: incarnation.values.cast(), _marker: PhantomData }
    }

    /// Where the slot's value lies. In bounds for every slot of the tier.
    #[inline(always)]
    pub(crate) fn slot(self, index: u32) -> *mut T {
        // SAFETY: the payload is one allocation of as many `T`s as the tier has slots, and indices of leases and
        // sweeps are below that.
        unsafe { self.first.add(index as usize) }
    }

    fn values(&self) -> &Values<T> {
        // SAFETY: by the contract of `of`, the tier has not ended, so its `Values` box is there, and nobody writes it.
        unsafe { &*self.values }
    }

    /// A value from the factory, whose panics go on.
    pub(crate) fn make(self) -> Result<T, FactoryError> {
        (self.values().factory)()
    }

    /// Makes a value for a slot that has none. `Err(None)` if the factory failed, `Err(Some(panic))` if it panicked.
    ///
    /// # Safety
    /// The caller holds the slot, and it has no value.
    pub(crate) unsafe fn build(self, index: u32) -> Result<(), Option<Panic>> {
        match catch_unwind(AssertUnwindSafe(|| self.make())) {
            Ok(Ok(value)) => {
                // SAFETY: the caller holds the slot and it has no value that would be overwritten.
                unsafe { self.slot(index).write(value) };
                Ok(())
            }
            Ok(Err(_)) => Err(None),
            Err(panic) => Err(Some(panic)),
        }
    }

    /// Resets the slot's value, if the tier does such a thing.
    ///
    /// # Safety
    /// The caller holds the slot, and it has a value.
    pub(crate) unsafe fn reset(self, index: u32) -> Result<(), Panic> {
        match &self.values().reset {
            // SAFETY: the caller holds the slot, so nobody else refers to its value.
            Some(reset) => catch_unwind(AssertUnwindSafe(|| reset(unsafe { &mut *self.slot(index) }))),
            None => Ok(()),
        }
    }

    /// Drops the slot's value. A panic in its `Drop` is returned; the value counts as dropped all the same.
    ///
    /// # Safety
    /// The caller holds the slot, or has just moved it to `Absent`; it has a value, and from now on it has none.
    pub(crate) unsafe fn drop_value(self, index: u32) -> Result<(), Panic> {
        if std::mem::needs_drop::<T>() {
            // SAFETY: by the contract the value is ours and there; it is not used again.
            catch_unwind(AssertUnwindSafe(|| unsafe { self.slot(index).drop_in_place() }))
        } else {
            Ok(())
        }
    }
}

/// What a panic carried.
pub(crate) type Panic = Box<dyn std::any::Any + Send>;

/// Goes on with a panic that was held back, unless one is under way already (a second would abort the process).
pub(crate) fn rethrow(panic: Option<Panic>) {
    if let Some(panic) = panic
        && !std::thread::panicking()
    {
        resume_unwind(panic);
    }
}

/// The layout of the payload of `capacity` slots, at least a cache line's alignment.
pub(crate) fn layout<T>(capacity: usize) -> Option<Layout> {
    Layout::array::<T>(capacity).ok()?.align_to(64).ok()
}

/// Frees the payload and the `Values` of an incarnation of `T`s. What factory and reset have captured is dropped too; a
/// panic in that is returned.
///
/// # Safety
/// The incarnation was built for `T`, no value is left in the payload, and nobody uses either any more.
pub(crate) unsafe fn free<T>(incarnation: &Incarnation) -> Option<Panic> {
    // SAFETY: by the contract both were made by the builder (`Box::into_raw`, and `alloc` with this very layout) and
    // nobody uses them any more. A layout that could be made once can be made again.
    let Values { factory, reset } = unsafe {
        if let Some(layout) = layout::<T>(incarnation.capacity)
            && layout.size() > 0
        {
            dealloc(incarnation.payload, layout);
        }
        *Box::from_raw(incarnation.values.cast::<Values<T>>())
    };
    let first = catch_unwind(AssertUnwindSafe(|| drop(factory))).err();
    let second = catch_unwind(AssertUnwindSafe(|| drop(reset))).err();
    first.or(second)
}
