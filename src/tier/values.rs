//! The values in the slots: where they lie, how they are made, reset and dropped.
//!
//! User code runs only here: factory, reset and the values' own `Drop`. Each may panic. The order of steps is such
//! that a panic costs at most the value it happened to: the slot then stands without one (`Quarantined`), and is rebuilt
//! by the next attempt that succeeds.

use std::alloc::{Layout, dealloc};
use std::error::Error;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::backoff::random;
use super::core::{Core, Incarnation};
use super::life::Life;
use crate::clock::{self, Tick};
use crate::sync::{AtomicU32, Ordering};

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

/// Says whether a value is still good.
pub(crate) type Check<T> = Box<dyn Fn(&mut T) -> bool + Send + Sync>;

/// What a tier does to its values.
pub(crate) struct Values<T> {
    pub(crate) factory: Factory<T>,
    /// Before the slot is free, by whoever releases it.
    pub(crate) reset: Option<Reset<T>>,
    /// After the release, by the reclaimer or an allocation that helps it.
    pub(crate) clean: Option<Reset<T>>,
    pub(crate) on_allocate: Option<Check<T>>,
    pub(crate) on_release: Option<Check<T>>,
    pub(crate) ages: Option<Ages>,
}

/// When each value is too old to be handed out.
pub(crate) struct Ages {
    max: Duration,
    expires: Box<[AtomicU32]>,
}

impl Ages {
    /// For so many slots; `None` if `max` is farther than ticks can tell.
    pub(crate) fn new(max: Duration, slots: usize) -> Option<Self> {
        clock::now().plus(max)?;
        Some(Ages { max, expires: (0..slots).map(|_| AtomicU32::new(0)).collect() })
    }

    /// The slot has got a new value: it may grow as old as the longest age less up to a tenth, by chance, so that values
    /// made together do not go together.
    fn begin(&self, index: u32) {
        let age = self.max.mul_f64(1.0 - random() / 10.0);
        let expires = clock::now().plus(age).unwrap_or(clock::now());
        // Relaxed: read by whoever holds the slot; and by scanners, who then claim it and read again.
        self.expires[index as usize].store(expires.0, Ordering::Relaxed);
    }

    /// How long after a pass the next one is due: a sixteenth of an age, which is less than it may vary.
    pub(crate) fn pause(&self) -> Duration {
        self.max / 16
    }

    /// When the slot's value is too old.
    pub(crate) fn expires(&self, index: u32) -> Tick {
        Tick(self.expires[index as usize].load(Ordering::Relaxed))
    }
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

    pub(crate) fn values(&self) -> &Values<T> {
        // SAFETY: by the contract of `of`, the tier has not ended, so its `Values` box is there, and nobody writes it.
        unsafe { &*self.values }
    }

    /// A value from the factory, whose panics go on.
    pub(crate) fn make(self) -> Result<T, FactoryError> {
        (self.values().factory)()
    }

    /// Makes a value for a slot that has none.
    ///
    /// # Safety
    /// The caller holds the slot, and it has no value.
    pub(crate) unsafe fn build(self, index: u32) -> Result<(), NoValue> {
        match catch_unwind(AssertUnwindSafe(|| self.make())) {
            Ok(Ok(value)) => {
                // SAFETY: the caller holds the slot and it has no value that would be overwritten.
                unsafe { self.fill(index, value) };
                Ok(())
            }
            Ok(Err(why)) => Err(NoValue::Refused(why)),
            Err(panic) => {
                dispose(panic);
                Err(NoValue::Panicked)
            }
        }
    }

    /// Puts a value into a slot that has none.
    ///
    /// # Safety
    /// The caller holds the slot, and it has no value.
    pub(crate) unsafe fn fill(self, index: u32, value: T) {
        // SAFETY: by the contract.
        unsafe { self.slot(index).write(value) };
        if let Some(ages) = &self.values().ages {
            ages.begin(index);
        }
    }

    /// Runs reset or cleaning on the slot's value, if the tier does such a thing.
    ///
    /// # Safety
    /// The caller holds the slot, and it has a value.
    pub(crate) unsafe fn apply(self, change: &Option<Reset<T>>, index: u32) -> Result<(), Panic> {
        match change {
            // SAFETY: the caller holds the slot, so nobody else refers to its value.
            Some(change) => catch_unwind(AssertUnwindSafe(|| change(unsafe { &mut *self.slot(index) }))),
            None => Ok(()),
        }
    }

    /// Whether the slot's value passes, if the tier examines it.
    ///
    /// # Safety
    /// The caller holds the slot, and it has a value.
    pub(crate) unsafe fn passes(self, check: &Option<Check<T>>, index: u32) -> Result<bool, Panic> {
        match check {
            // SAFETY: by the contract.
            Some(check) => unsafe { self.ask(check, index) },
            None => Ok(true),
        }
    }

    /// All that a release does to the slot's value at once: it is examined, and if it is good, reset. Whether it is good.
    ///
    /// # Safety
    /// The caller holds the slot, and it has a value.
    pub(crate) unsafe fn finish_use(self, index: u32) -> Result<bool, Panic> {
        let values = self.values();
        // SAFETY: by the contract.
        unsafe { Ok(self.passes(&values.on_release, index)? && self.apply(&values.reset, index).map(|()| true)?) }
    }

    /// What `check` says of the slot's value.
    ///
    /// # Safety
    /// The caller holds the slot, and it has a value.
    pub(crate) unsafe fn ask(self, check: impl FnOnce(&mut T) -> bool, index: u32) -> Result<bool, Panic> {
        // SAFETY: the caller holds the slot, so nobody else refers to its value.
        catch_unwind(AssertUnwindSafe(|| check(unsafe { &mut *self.slot(index) })))
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

/// Why the factory made no value.
pub(crate) enum NoValue {
    Refused(FactoryError),
    Panicked,
}

/// What a panic carried.
pub(crate) type Panic = Box<dyn std::any::Any + Send>;

/// Drops what the program's code has made, an error or what a panic carried, whose `Drop` may panic in turn.
pub(crate) fn dispose(it: impl Sized) {
    let mut outcome = catch_unwind(AssertUnwindSafe(|| drop(it)));
    for _ in 0..8 {
        let Err(panic) = outcome else { return };
        outcome = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    }
    std::mem::forget(outcome); // it panics for ever
}

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

/// Frees the payload, the `Values` and the `Life` of an incarnation of `T`s. What the program's functions have captured is
/// dropped too; the first panic in that is returned.
///
/// # Safety
/// The incarnation was built for `T`, no value is left in the payload, and nobody uses any of them any more.
pub(crate) unsafe fn free<T>(incarnation: &Incarnation) -> Option<Panic> {
    // SAFETY: by the contract all were made by the builder (`Box::into_raw`; and `alloc` with this very layout, unless
    // there are segments) and nobody uses them any more. A layout that could be made once can be made again.
    let (values, life) = unsafe {
        let life = Box::from_raw(incarnation.life.cast_mut());
        if let Some(segments) = &life.segments {
            segments.release();
        } else if let Some(layout) = layout::<T>(incarnation.capacity)
            && layout.size() > 0
        {
            dealloc(incarnation.payload, layout);
        }
        (*Box::from_raw(incarnation.values.cast::<Values<T>>()), *life)
    };
    let Values { factory, reset, clean, on_allocate, on_release, ages: _ } = values;
    let Life { ignore_leaks, on_report, .. } = life;
    let mut first = None;
    let mut end = |it: &mut dyn FnMut()| first = first.take().or(catch_unwind(AssertUnwindSafe(it)).err());
    let (mut factory, mut changes) = (Some(factory), [reset, clean]);
    let (mut checks, mut ignore, mut sink) = ([on_allocate, on_release], ignore_leaks, on_report);
    end(&mut || drop(factory.take()));
    changes.iter_mut().for_each(|change| end(&mut || drop(change.take())));
    checks.iter_mut().for_each(|check| end(&mut || drop(check.take())));
    end(&mut || drop(ignore.take()));
    end(&mut || drop(sink.take()));
    first
}
