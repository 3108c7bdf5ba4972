//! Making a tier: everything that can be wrong is found here, and returned as an error.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashSet;
use std::error::Error;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::Tier;
use super::backoff::Pauses;
use super::core::{Core, Incarnation, flags};
use super::depot::{BATCH, MAX_SLOTS};
use super::life::{Idle, Ignore, Life, NEVER, Sink};
use super::magazine::Magazine;
use super::notice::Report;
use super::queue::Rules;
use super::reclaim::{self, Reclaimer};
use super::registry::{self, MAX_CORES, NoCore};
use super::report::Totals;
use super::segments::Segments;
use super::sites::Turnover;
use super::values::{self, Ages, Check, Factory, Payload, Reset, Values, rethrow};
use super::{background, clean, epoch, pass, release};
use crate::clock;
use crate::error::BuildError;
use crate::slot::word::State;
use crate::sync::{AtomicU64, Ordering};

/// Bytes of the longest name.
const MAX_NAME: usize = 128;

/// What a tier shall be; [`Tier::builder`] starts one.
#[must_use = "a builder does nothing until one of its build methods is called"]
pub struct TierBuilder<T> {
    name: String,
    capacity: usize,
    min: Option<usize>,
    reset: Option<Reset<T>>,
    clean: Option<Reset<T>>,
    on_allocate: Option<Check<T>>,
    on_release: Option<Check<T>>,
    watches_panics: bool,
    reclaimer: Reclaimer,
    max_age: Option<Duration>,
    idle_timeout: Option<Duration>,
    leak_after: Option<Duration>,
    ignore_leaks: Option<Ignore>,
    pin_limit: Option<Duration>,
    on_report: Option<Sink>,
    pauses: Pauses,
    waiting: Rules,
}

impl<T: Send + 'static> TierBuilder<T> {
    pub(crate) fn new(name: &str) -> Self {
        TierBuilder {
            name: name.to_owned(),
            capacity: 0,
            min: None,
            reset: None,
            clean: None,
            on_allocate: None,
            on_release: None,
            watches_panics: false,
            reclaimer: Reclaimer::Manual,
            max_age: None,
            idle_timeout: None,
            leak_after: None,
            ignore_leaks: None,
            pin_limit: None,
            on_report: None,
            waiting: Rules::DEFAULT,
            pauses: Pauses { min: Duration::from_millis(10), max: Duration::from_secs(10) },
        }
    }

    /// How many slots the tier has, or may have: from 1 to 2²⁷. There is no default.
    pub fn capacity(mut self, slots: usize) -> Self {
        self.capacity = slots;
        self
    }

    /// Begins with `slots` slots, grows on demand up to the capacity, and never shrinks below. Default: all slots are there from
    /// the beginning.
    ///
    /// An allocation that finds nothing free builds one slot; the reclaimer's next pass then adds as many as make the tier a
    /// quarter larger. The tier shrinks by [`idle_timeout`](Self::idle_timeout) and [`Tier::shrink_to`]. The payload lies in one
    /// range of addresses, whose memory is asked for when it is needed and goes back to the system (Linux; elsewhere it is
    /// allocated at once). Headers, 32 bytes a slot, are there for the capacity but cost memory only once used.
    pub fn min_capacity(mut self, slots: usize) -> Self {
        self.min = Some(slots);
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

    /// Runs on each released value before it is handed out again, but not on the releasing thread: the reclaimer cleans, and an
    /// allocation that would find nothing free cleans a slot itself before it refuses. For what takes long, such as scrubbing
    /// a large buffer. Default: nothing.
    ///
    /// If it panics, the value is dropped and the slot rebuilt by the factory; the panic is reported.
    pub fn clean(mut self, clean: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.clean = Some(Box::new(clean));
        self
    }

    /// Examines each value before it is handed out; one of which it says `false` is dropped and replaced, and not handed out.
    /// Default: nothing is examined.
    ///
    /// It runs on the allocating thread, in every allocation. If it panics, the value is replaced and the panic goes on.
    pub fn validate_on_allocate(mut self, check: impl Fn(&mut T) -> bool + Send + Sync + 'static) -> Self {
        self.on_allocate = Some(Box::new(check));
        self
    }

    /// Examines each value when it is released, before [`reset`](Self::reset); one of which it says `false` is dropped and
    /// replaced. Default: nothing is examined.
    ///
    /// It runs on the releasing thread. If it panics, the value is replaced and the panic goes on.
    pub fn validate_on_release(mut self, check: impl Fn(&mut T) -> bool + Send + Sync + 'static) -> Self {
        self.on_release = Some(Box::new(check));
        self
    }

    /// Discards a value whose lease is dropped by a panic: it may be half changed. Default: it is released like any other.
    ///
    /// A lease that was made while its thread was already panicking is not affected. Of a value held by
    /// [`SharedLease`](crate::SharedLease)s, one that is dropped by a panic is enough; the value goes with the last.
    pub fn discard_on_panic(mut self) -> Self {
        self.watches_panics = true;
        self
    }

    /// Who makes the passes that clean, expire, replace, report, grow and shrink. Default: [`Reclaimer::Manual`].
    pub fn reclaimer(mut self, reclaimer: Reclaimer) -> Self {
        self.reclaimer = reclaimer;
        self
    }

    /// Replaces each value before it is older than `age`. Default: values grow as old as the tier.
    ///
    /// The reclaimer replaces old values while they are free; an allocation that meets one that is too old replaces it first.
    /// So nothing older than `age` is handed out (to a tick of 10 ms). Each value's own limit is up to a tenth shorter, by
    /// chance, so that values made together do not go together. Costs 4 bytes a slot. More than 248 days mean no limit.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Removes values that nobody has used for so long, down to [`min_capacity`](Self::min_capacity), which has to be given.
    /// Default: the tier shrinks only when told to. Costs 8 bytes a slot.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Reports what has been held for so long, by the line that allocated it: to [`on_report`](Self::on_report), in [`Tier::leaks`],
    /// and, each slot once, in [`Snapshot::reclaimed`](crate::Snapshot::reclaimed). Default: nothing is reported.
    ///
    /// Whether it is leased, detached or shared makes no difference. Never reports too early; at most an eighth of the time
    /// late, if passes come that often. Each report has a [`Verdict`](crate::Verdict) on whether that is a leak: by how many others the
    /// same line has allocated, and when those came back. So a function that allocates for others should be `#[track_caller]`.
    /// A line is reported when it is first late, when the verdict turns to a leak or away from it, when what is late has doubled,
    /// and while it leaks, once in that time.
    ///
    /// Costs nothing on the hot path but a note of the line at one allocation in 1,021; 8 bytes a slot; and a pass of the
    /// reclaimer looks at every header.
    pub fn leak_after(mut self, limit: Duration) -> Self {
        self.leak_after = Some(limit);
        self
    }

    /// Which lines may hold slots for as long as they like: `ignore` is asked of each line that is to be reported, at each look.
    pub fn ignore_leaks(mut self, ignore: impl Fn(&Location<'static>) -> bool + Send + Sync + 'static) -> Self {
        self.ignore_leaks = Some(Box::new(ignore));
        self
    }

    /// Reports each pin that has stood for so long, once. Default: nothing is reported.
    pub fn pin_limit(mut self, limit: Duration) -> Self {
        self.pin_limit = Some(limit);
        self
    }

    /// Where reports go: called in the reclaimer's passes, and by an allocation whose attempt to build a value failed. It should
    /// not take long. Default: nowhere.
    pub fn on_report(mut self, sink: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.on_report = Some(Box::new(sink));
        self
    }

    /// How long to wait before a factory that has failed is asked again: `min` after the first failure, then twice as long
    /// each time, `max` at most; of each pause, the second half by chance. Default: 10 ms and 10 s.
    pub fn rebuild_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.pauses = Pauses { min, max };
        self
    }

    /// How many threads and futures may wait for a slot at once; more are refused with
    /// [`AllocateError::QueueFull`](crate::AllocateError::QueueFull). Default: 65,536.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.waiting.most = waiters;
        self
    }

    /// Lets newcomers have a slot before those who wait, until the first of them has waited `limit`. Default: never; a
    /// release hands its slot to whoever is first.
    ///
    /// More slots change hands a second, since a slot need not lie idle until a waiter has been woken; waits become
    /// longer and less even. From the limit on, slots are handed over.
    pub fn barging(mut self, limit: Duration) -> Self {
        self.waiting.barging = Some(limit);
        self
    }

    /// How long a slot stays granted to a waiter that does not take it, such as a future that nobody polls, before the next
    /// one gets it. Default: 100 ms; counted in ticks of the coarse [`clock`](crate::clock), 10 ms.
    ///
    /// Zero means at the next occasion. Grants are revoked by whoever passes by: an allocation that finds nothing free or
    /// begins to wait, a thread that waits, the reclaimer. A program in which only futures wait needs the last.
    pub fn grant_limit(mut self, limit: Duration) -> Self {
        self.waiting.grant_limit = limit;
        self
    }

    /// How many slots it is to have at most.
    pub(crate) fn slots(&self) -> usize {
        self.capacity
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
        clock::tick();
        pass::watch_forks();
        let name = intern(&self.name)?;
        let capacity = self.capacity;
        if capacity == 0 || capacity > MAX_SLOTS {
            return Err(BuildError::Capacity { tier: name, capacity, max: MAX_SLOTS });
        }
        if self.reclaimer == Reclaimer::Background {
            background::start().map_err(|source| BuildError::NoThread { tier: name, source })?;
        }
        let min = self.min.unwrap_or(capacity);
        if min > capacity {
            return Err(BuildError::Size { tier: name, problem: "the smallest size is larger than the capacity" });
        }
        if self.idle_timeout.is_some() && min == capacity {
            let problem = "there is an idle timeout, but no room to shrink; give `min_capacity` less than the capacity";
            return Err(BuildError::Size { tier: name, problem });
        }
        let out_of_memory = || BuildError::OutOfMemory { tier: name, capacity, slot_bytes: size_of::<T>() };
        let layout = values::layout::<T>(capacity).ok_or_else(out_of_memory)?;
        let (segments, payload) = if min < capacity {
            let segments = Segments::new(capacity, size_of::<T>(), layout.align()).map_err(|_| out_of_memory())?;
            (Some(segments), ptr::null_mut())
        } else if layout.size() == 0 {
            (None, ptr::without_provenance_mut(layout.align()))
        } else {
            // SAFETY: the layout is not of size zero.
            (None, unsafe { alloc(layout) })
        };
        let mut unused = Unused { segments, payload, layout };
        if let Some(segments) = &unused.segments {
            segments.enter_first(min).map_err(|_| out_of_memory())?;
            unused.payload = segments.first();
        } else if payload.is_null() {
            return Err(out_of_memory());
        }
        let core = registry::take(capacity).map_err(|why| match why {
            NoCore::Memory => out_of_memory(),
            NoCore::Table => BuildError::TooManyTiers { tier: name, max: MAX_CORES },
        })?;
        let ages = self.max_age.and_then(|max| Ages::new(max, capacity));
        let seen = || (0..capacity).map(|_| AtomicU64::new(NEVER)).collect();
        let config = [
            (self.reset.is_some() || self.on_release.is_some(), flags::PREPARES),
            (self.watches_panics, flags::WATCHES_PANICS),
            (self.clean.is_some(), flags::DEFERS),
            (self.on_allocate.is_some() || ages.is_some(), flags::VALIDATES),
            (self.reclaimer == Reclaimer::Background, flags::BACKGROUND),
            (min < capacity, flags::GROWS),
            (self.waiting.barging.is_some() && self.reclaimer == Reclaimer::Manual, flags::LOOKS),
        ];
        let config = config.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | flag);
        let (segments, payload) = unused.used();
        let life = Box::into_raw(Box::new(Life {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            accountant: OnceLock::new(),
            min,
            segments,
            idle: self.idle_timeout.map(|timeout| Idle { timeout, seen: seen() }),
            leak_after: self.leak_after,
            ignore_leaks: self.ignore_leaks,
            turnover: self.leak_after.map(|_| Turnover::new()),
            suspects: ArcSwapOption::empty(),
            pin_limit: self.pin_limit,
            on_report: self.on_report,
            pauses: self.pauses,
        }));
        let values = Box::into_raw(Box::new(Values {
            factory,
            reset: self.reset,
            clean: self.clean,
            on_allocate: self.on_allocate,
            on_release: self.on_release,
            ages,
        }));
        let incarnation = Incarnation {
            name,
            capacity,
            payload,
            values: values.cast(),
            life,
            // SAFETY: called with a slot of this incarnation, which is one of `T`s, that the caller holds vacant.
            build: |core, index| unsafe { Payload::<T>::of(core).build(index) },
            clean: clean::clean::<T>,
            collect: epoch::try_collect::<T>,
            pass: reclaim::pass::<T>,
            free: values::free::<T>,
            give_back: |core, taken, site| release::give_back::<T>(core, None, taken, site),
            waiting: self.waiting,
            base: Totals::of(core),
        };
        // SAFETY: the registry gave the block to this call alone, and nothing of it is published before `open`.
        unsafe { core.set_incarnation(incarnation) };
        Unopened::<T> { core, filled: 0, _values: PhantomData }.open(config)
    }
}

/// See [`Life::serial`]. Plain `std`: no model depends on it.
static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Memory for a payload that no tier uses yet.
struct Unused {
    segments: Option<Segments>,
    payload: *mut u8,
    layout: Layout,
}

impl Unused {
    fn used(mut self) -> (Option<Segments>, *mut u8) {
        (self.segments.take(), std::mem::replace(&mut self.payload, ptr::null_mut()))
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(segments) = &self.segments {
            // SAFETY: nobody has used it, and it goes with this.
            unsafe { segments.release() };
        } else if !self.payload.is_null() && self.layout.size() > 0 {
            // SAFETY: it was allocated with this layout, and nobody uses it.
            unsafe { dealloc(self.payload, self.layout) };
        }
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
        let min = core.life().min;
        while self.filled < min {
            let value = self.payload().make().map_err(|source| BuildError::Factory {
                tier: core.incarnation().name,
                slot: self.filled,
                source,
            })?;
            // SAFETY: the slot is in bounds, has no value yet, and nobody else knows of it.
            unsafe { self.payload().fill(self.filled as u32, value) };
            self.filled += 1;
        }
        std::mem::forget(self);
        for index in 0..min as u32 {
            let header = core.header(index);
            header.give(header.word().next(State::Free));
        }
        core.waiting.clear();
        core.reserve.clear();
        core.depot.clear();
        core.dirty.clear();
        core.retired.clear();
        // The last batch first, so that the first allocations get the first slots.
        for first in (0..min as u32).step_by(BATCH).rev() {
            core.depot.store((first..(first + BATCH as u32).min(min as u32)).collect::<Vec<_>>().into_iter());
        }
        core.count.store(0, Ordering::Relaxed);
        core.quarantined.store(0, Ordering::Relaxed);
        core.quarantines.store(0, Ordering::Relaxed);
        core.high_water.clear();
        core.rebuilding.succeeded();
        core.absent.store(capacity - min, Ordering::Relaxed);
        core.built.store(min, Ordering::Relaxed);
        core.first_absent.store(min as u32, Ordering::Relaxed);
        core.growing.succeeded();
        core.wanted.store(0, Ordering::Relaxed);
        core.deadline.store(u64::MAX, Ordering::Relaxed);
        core.due.store(u64::MAX, Ordering::Relaxed);
        // Pins of the tier that lived here before can only have been forgotten.
        core.magazines().iter().for_each(Magazine::forget);
        core.unlisted_pins.store(0, Ordering::Relaxed);
        core.shelf.clear();
        core.latency.clear();
        core.limbo.clear();
        core.pass.clear();
        core.reclaimed.clear();
        core.most_held.store(0, Ordering::Relaxed);
        core.most_held_by.store(ptr::null_mut(), Ordering::Relaxed);
        core.tiers.store(1, Ordering::Relaxed);
        let epoch = core.flags.load(Ordering::Relaxed) & !(flags::EPOCH - 1);
        // Release: whoever gets the tier from this thread, or its flags, sees it whole.
        core.flags.store(epoch.wrapping_add(flags::EPOCH) | config, Ordering::Release);
        // The last step. Release: pairs with the Acquire in `Core::enter`; whoever enters the block sees the tier whole, and open.
        core.live.store(min as u64 + 1, Ordering::Release);
        background::kick(core, 0);
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

/// What is wrong with a name that is to stand in logs and metrics.
pub(crate) fn problem_of_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_NAME {
        Some("is longer than 128 bytes")
    } else if name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        Some(
            "holds a control character, a quotation mark or a backslash; use others, they would garble logs and metrics",
        )
    } else {
        None
    }
}

/// The one copy of a name, which lives as long as the process: errors and reports refer to it for free.
fn intern(name: &str) -> Result<&'static str, BuildError> {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    if let Some(problem) = problem_of_name(name) {
        return Err(BuildError::Name { name: name.to_owned(), problem });
    }
    // A panic cannot leave a set half changed.
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return Ok(known);
    }
    let name: &'static str = Box::leak(Box::from(name));
    names.insert(name);
    Ok(name)
}
