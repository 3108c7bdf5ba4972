//! Making a tier: everything that can be wrong is found here, and returned as an error.

use std::alloc::alloc;
use std::collections::HashSet;
use std::error::Error;
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::Tier;
use super::core::{Core, Incarnation, flags};
use super::depot::{BATCH, MAX_SLOTS};
use super::registry::{self, MAX_CORES, NoCore};
use super::report::Totals;
use super::values::{self, Factory, Payload, Reset, Values, rethrow};
use crate::clock;
use crate::error::BuildError;
use crate::slot::word::State;
use crate::sync::Ordering;

/// Bytes of the longest name.
const MAX_NAME: usize = 128;

/// What a tier shall be; [`Tier::builder`] starts one.
#[must_use = "a builder does nothing until one of its build methods is called"]
pub struct TierBuilder<T> {
    name: String,
    capacity: usize,
    reset: Option<Reset<T>>,
    watches_panics: bool,
}

impl<T: Send + 'static> TierBuilder<T> {
    pub(crate) fn new(name: &str) -> Self {
        TierBuilder { name: name.to_owned(), capacity: 0, reset: None, watches_panics: false }
    }

    /// How many slots the tier has: from 1 to 2²⁷. There is no default.
    pub fn capacity(mut self, slots: usize) -> Self {
        self.capacity = slots;
        self
    }

    /// Runs on each value when it is released, on the releasing thread, before the slot is free. Default: nothing runs,
    /// and the next user finds what the last one left.
    ///
    /// If it panics, the value is dropped and the slot rebuilt by the factory; the panic goes on in the releasing thread.
    pub fn reset(mut self, reset: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.reset = Some(Box::new(reset));
        self
    }

    /// Discards a value whose lease is dropped by a panic: it may be half changed. Default: it is released like any other.
    ///
    /// A lease that was made while its thread was already panicking is not affected.
    pub fn discard_on_panic(mut self) -> Self {
        self.watches_panics = true;
        self
    }

    /// Builds the tier, and each slot's value by a call of `factory`.
    ///
    /// The factory is called again, on any thread, to replace a value that was taken or discarded.
    ///
    /// # Errors
    /// [`BuildError`], for a bad name or capacity, or when there is no memory.
    ///
    /// # Panics
    /// If the factory panics; what it had made before is dropped.
    pub fn build_with(self, factory: impl Fn() -> T + Send + Sync + 'static) -> Result<Tier<T>, BuildError> {
        self.build(Box::new(move || Ok(factory())))
    }

    /// Builds the tier with a factory that may fail.
    ///
    /// # Errors
    /// As [`build_with`](Self::build_with), and [`BuildError::Factory`] with the first failure.
    ///
    /// # Panics
    /// If the factory panics; what it had made before is dropped.
    pub fn try_build_with<E>(
        self,
        factory: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Tier<T>, BuildError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.build(Box::new(move || factory().map_err(Into::into)))
    }

    fn build(self, factory: Factory<T>) -> Result<Tier<T>, BuildError> {
        clock::init();
        let name = intern(&self.name)?;
        let capacity = self.capacity;
        if capacity == 0 || capacity > MAX_SLOTS {
            return Err(BuildError::Capacity { tier: name, capacity, max: MAX_SLOTS });
        }
        let out_of_memory = || BuildError::OutOfMemory { tier: name, capacity, slot_bytes: size_of::<T>() };
        let layout = values::layout::<T>(capacity).ok_or_else(out_of_memory)?;
        let core = registry::take(capacity).map_err(|why| match why {
            NoCore::Memory => out_of_memory(),
            NoCore::Table => BuildError::TooManyTiers { tier: name, max: MAX_CORES },
        })?;
        let payload = if layout.size() == 0 {
            ptr::without_provenance_mut(layout.align())
        } else {
            // SAFETY: the layout is not of size zero.
            unsafe { alloc(layout) }
        };
        if payload.is_null() {
            registry::retire(core);
            return Err(out_of_memory());
        }
        let mut config = 0;
        if self.reset.is_some() {
            config |= flags::RESETS;
        }
        if self.watches_panics {
            config |= flags::WATCHES_PANICS;
        }
        let values = Box::into_raw(Box::new(Values { factory, reset: self.reset }));
        let incarnation = Incarnation {
            name,
            capacity,
            payload,
            values: values.cast(),
            // SAFETY: called with a slot of this incarnation, which is one of `T`s, that the caller holds vacant.
            build: |core, index| unsafe { Payload::<T>::of(core).build(index) },
            free: values::free::<T>,
            base: Totals::of(core),
        };
        // SAFETY: the registry gave the block to this call alone, and nothing of it is published before `open`.
        unsafe { core.set_incarnation(incarnation) };
        Unopened::<T> { core, filled: 0, _values: PhantomData }.open(config)
    }
}

/// A tier that is being filled: what there is of it goes again if the factory fails or panics.
struct Unopened<T: Send + 'static> {
    core: &'static Core,
    filled: usize,
    _values: PhantomData<T>,
}

impl<T: Send + 'static> Unopened<T> {
    fn payload(&self) -> Payload<T> {
        // SAFETY: the incarnation of `T`s was set by `build` and ends only in `drop` below.
        unsafe { Payload::of(self.core) }
    }

    fn open(mut self, config: u64) -> Result<Tier<T>, BuildError> {
        let core = self.core;
        let capacity = core.incarnation().capacity;
        while self.filled < capacity {
            let value = self.payload().make().map_err(|source| BuildError::Factory {
                tier: core.incarnation().name,
                slot: self.filled,
                source,
            })?;
            // SAFETY: the slot is in bounds, has no value yet, and nobody else knows of it.
            unsafe { self.payload().slot(self.filled as u32).write(value) };
            self.filled += 1;
        }
        std::mem::forget(self);
        for index in 0..capacity as u32 {
            let header = core.header(index);
            header.give(header.word().next(State::Free));
        }
        core.depot.clear();
        core.dirty.clear();
        core.retired.clear();
        // The last batch first, so that the first allocations get the first slots.
        for first in (0..capacity as u32).step_by(BATCH).rev() {
            core.depot.store((first..(first + BATCH as u32).min(capacity as u32)).collect::<Vec<_>>().into_iter());
        }
        core.count.store(0, Ordering::Relaxed);
        core.quarantined.store(0, Ordering::Relaxed);
        core.rebuilt_at.store(0, Ordering::Relaxed);
        core.most_held.store(0, Ordering::Relaxed);
        core.most_held_by.store(ptr::null_mut(), Ordering::Relaxed);
        core.live.store(capacity + 1, Ordering::Relaxed);
        core.tiers.store(1, Ordering::Relaxed);
        let epoch = core.flags.load(Ordering::Relaxed) & !(flags::EPOCH - 1);
        // Release: whoever gets the tier from this thread, or its flags, sees it whole.
        core.flags.store(epoch.wrapping_add(flags::EPOCH) | config, Ordering::Release);
        // SAFETY: the block holds an open tier of `T`s, and `tiers` counts this one.
        Ok(unsafe { Tier::from_core(core) })
    }
}

impl<T: Send + 'static> Drop for Unopened<T> {
    fn drop(&mut self) {
        for index in 0..self.filled as u32 {
            // SAFETY: the slot has a value that nobody else knows of. A second panic would be one too many.
            let _ = unsafe { self.payload().drop_value(index) };
        }
        let incarnation = self.core.incarnation();
        // SAFETY: it was made for these pointers, no value is left, and nobody else knows of them.
        let panic = unsafe { (incarnation.free)(incarnation) };
        registry::retire(self.core);
        rethrow(panic);
    }
}

/// The one copy of a name, which lives as long as the process: errors and reports refer to it for free.
fn intern(name: &str) -> Result<&'static str, BuildError> {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME {
        "is longer than 128 bytes"
    } else if name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        "holds a control character, a quotation mark or a backslash; use others, they would garble logs and metrics"
    } else {
        // A panic cannot leave a set half changed.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_default();
        if let Some(known) = names.get(name) {
            return Ok(known);
        }
        let name: &'static str = Box::leak(Box::from(name));
        names.insert(name);
        return Ok(name);
    };
    Err(BuildError::Name { name: name.to_owned(), problem })
}
