//! Values that many read without counting: shared under a handle, read under a pin, retired, and free again when no pin
//! is left that could have seen them.
//!
//! A pin is one word beside its thread's magazine: the epoch at which it was taken, and how many are nested in it. A pass takes
//! the retired slots, moves the tier's epoch on, makes a heavy fence, and looks at all pins. A pin that it does not see was
//! taken after the fence, and one of the new epoch after the slots were retired: neither can find such a slot shared any
//! more. When no pin of an older epoch stands, the slots are free.
//!
//! Epochs are Fraser's ("Practical lock-freedom", 2004), as in crossbeam-epoch; ours because the default collector of that crate
//! runs other crates' deferred functions in the reader's pin, and lets any guard of the process hold our slots.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Tier;
use super::allocate::Taken;
use super::attach;
use super::chain;
use super::core::{Core, flags};
use super::magazine::Magazine;
use super::notice::{self, Report};
use super::release::{self, Returned};
use super::values::rethrow;
use super::{background, clean, rebuild, wait};
use crate::clock::{self, Tick};
use crate::error::HandleError;
use crate::slot::handle::Handle;
use crate::slot::header::{Note, Site};
use crate::slot::word::{State, Word};
use crate::sync::Ordering;
use crate::sync::atomic::fence;

/// The bits of a pin's word that hold how many are nested. The rest is its epoch.
const DEPTH_BITS: u32 = 20;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;

/// Lets its thread read the shared values of one tier: [`Tier::pin`], [`Tier::read`].
///
/// It stays on its thread, and may be nested. What is retired while it stands is not used again before it is dropped; a pin that
/// stands for long delays nothing else.
#[must_use = "a pin that is dropped at once protects nothing"]
pub struct Pin<'tier, T: Send + 'static> {
    core: &'static Core,
    /// `None` if the thread has none: then the tier counts the pin.
    magazine: Option<&'static Magazine>,
    _tier: PhantomData<&'tier Tier<T>>,
    _this_thread: PhantomData<*const ()>,
}

impl<'tier, T: Send + 'static> Pin<'tier, T> {
    #[inline(always)]
    pub(crate) fn new(tier: &'tier Tier<T>) -> Self {
        let core = tier.core();
        let magazine = attach::current(core).or_else(|| attach::attach(core));
        match magazine {
            Some(magazine) => {
                let now = magazine.pinned(Ordering::Relaxed);
                // Acquire: pairs with the AcqRel in `collect`; a pin of the new epoch finds retired what was retired before.
                let next = if now == 0 { (core.epoch.load(Ordering::Acquire) << DEPTH_BITS) | 1 } else { now + 1 };
                if next & DEPTH_MASK == 0 {
                    too_deep();
                }
                magazine.set_pinned(next);
            }
            None => {
                core.unlisted_pins.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Pairs with the heavy fence in `collect`: either it sees the pin, or the reads under the pin see what was retired.
        core.fence.light();
        if magazine.is_none() {
            fence(Ordering::SeqCst);
        }
        Pin { core, magazine, _tier: PhantomData, _this_thread: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn is_of(&self, core: &Core) -> bool {
        std::ptr::eq(self.core, core)
    }
}

impl<T: Send + 'static> Drop for Pin<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.magazine {
            Some(magazine) => {
                let now = magazine.pinned(Ordering::Relaxed);
                magazine.set_pinned(if now & DEPTH_MASK == 1 { 0 } else { now - 1 });
            }
            None => {
                // Release: pairs with the Acquire in `is_over`; the reads under the pin come before its end.
                self.core.unlisted_pins.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Pin<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn too_deep() -> ! {
    panic!("more than a million pins of one thread are nested: some are kept or forgotten in a loop")
}

/// Whether the handle's slot is shared at its generation: then its value may be read as long as the caller's pin stands.
#[inline(always)]
pub(crate) fn is_readable(core: &Core, handle: Handle) -> bool {
    handle.tier() == core.id
        // Acquire, in `word`: pairs with the Release with which the slot was shared; the value was written before.
        && core
            .header_checked(handle.index())
            .is_some_and(|header| header.word() == Word::new(handle.generation(), State::Shared))
}

/// Retires the handle's slot: exactly one of all who try wins. The caller has a `Tier`.
pub(crate) fn retire(core: &'static Core, handle: Handle, site: Site) -> Result<(), HandleError> {
    let header = super::handles::header(core, handle)?;
    core.note_mends();
    let shared = Word::new(handle.generation(), State::Shared);
    if !header.compare_exchange(shared, shared.to(State::Retired)) {
        return Err(super::handles::explain(core, header, handle));
    }
    header.set_note(Note::Released(site));
    core.retired.add(core.links, handle.index());
    // Pairs with the heavy fence of a waiter: either it finds the slot in the chain, or the load below finds its flag.
    core.fence.light();
    if core.flags.load(Ordering::Relaxed) & flags::WAITERS != 0 {
        rethrow(wait::help(core).err());
    }
    background::kick(core, clock::ticks() + 1);
    Ok(())
}

/// What passes remember of retired slots and of pins.
#[derive(Default)]
pub(crate) struct Limbo {
    /// Slots that wait for the pins of an epoch, and that epoch.
    batch: Option<(chain::Taken, u64)>,
    /// Of each magazine with a standing pin: its epoch, since when, and whether it was reported.
    standing: HashMap<usize, (u64, Tick, bool)>,
}

/// In a pass: frees what was retired and can be seen by no pin any more. Returns how many. A panic in the program's code is reported.
pub(crate) fn collect<T: 'static>(core: &'static Core, limbo: &mut Limbo) -> usize {
    let mut freed = 0;
    loop {
        let (slots, epoch) = match limbo.batch.take() {
            Some(batch) => batch,
            None => {
                if core.retired.head().is_empty() {
                    return freed;
                }
                let slots = core.retired.take_all(core.links);
                core.limbo.store(1, Ordering::Relaxed);
                // AcqRel: pairs with the Acquire in `Pin::new`; the slots were retired before the epoch moves on.
                let epoch = core.epoch.fetch_add(1, Ordering::AcqRel);
                // Pairs with the light fence in `Pin::new`.
                core.fence.heavy();
                (slots, epoch)
            }
        };
        if !is_over(core, epoch) {
            limbo.batch = Some((slots, epoch));
            return freed;
        }
        core.limbo.store(0, Ordering::Relaxed);
        freed += slots.filter(|&index| free::<T>(core, index)).count();
    }
}

/// Whether no pin of that epoch or an older one stands. After a heavy fence that came after the epoch's end.
fn is_over(core: &Core, epoch: u64) -> bool {
    // Acquire: pairs with the Release at a pin's end, here and in `set_pinned`; what was read under it comes before.
    core.unlisted_pins.load(Ordering::Acquire) == 0
        && core.magazines().iter().all(|magazine| {
            let pinned = magazine.pinned(Ordering::Acquire);
            pinned == 0 || pinned >> DEPTH_BITS > epoch
        })
}

/// Frees a retired slot, unless its tier has ended meanwhile.
fn free<T: 'static>(core: &'static Core, index: u32) -> bool {
    let header = core.header(index);
    let retired = header.word();
    let taken = Taken { word: retired.to(State::Maintenance), index };
    if !retired.is(State::Retired) || !header.compare_exchange(retired, taken.word) {
        return false;
    }
    let site = match header.held_note() {
        Note::Released(site) => Some(site),
        _ => None,
    };
    let returned = Returned { taken, site, born_in_panic: true };
    let given = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller is in a pass of a tier of `T`s, and the exchange made the slot ours, with its value.
        let held = unsafe {
            rebuild::prepare::<T>(core, &returned)
                && (core.flags.load(Ordering::Relaxed) & flags::DEFERS == 0 || clean::clean::<T>(core, taken))
        };
        if held { release::give_back::<T>(core, None, taken, site) } else { Ok(()) }
    }));
    if let Err(panic) = given.and_then(|outcome| outcome) {
        notice::tell_panic(core, &panic);
    }
    true
}

/// Whether an attempt to free retired slots may be made on the way to a refusal: one a tick.
pub(crate) fn is_possible(core: &Core) -> bool {
    is_waiting(core) && {
        clock::tick();
        core.collected.load(Ordering::Relaxed) <= clock::ticks()
    }
}

/// Frees what was retired, if it is time and nobody else is in a pass. The slots are free then, for anybody.
pub(crate) fn help(core: &'static Core) {
    if is_possible(core)
        && let Some(mut state) = core.pass.try_lock()
    {
        core.collected.store(clock::ticks() + 1, Ordering::Relaxed);
        // SAFETY: the caller has a `Tier`, and this is its own `collect`.
        unsafe { (core.incarnation().collect)(core, &mut state.limbo) };
    }
}

/// In a pass: reports pins that stand for too long.
pub(crate) fn watch(core: &Core, limbo: &mut Limbo) {
    let Some(limit) = core.life().pin_limit else { return };
    // From here on a new pin has another epoch, so that it is told from one that has stood since before.
    core.epoch.fetch_add(1, Ordering::AcqRel);
    let (now, standing) = (clock::now(), &mut limbo.standing);
    for (at, magazine) in core.magazines().iter().enumerate() {
        let epoch = magazine.pinned(Ordering::Relaxed) >> DEPTH_BITS;
        if magazine.pinned(Ordering::Relaxed) == 0 {
            standing.remove(&at);
            continue;
        }
        let (_, since, reported) = match standing.entry(at).or_insert((epoch, now, false)) {
            entry if entry.0 == epoch => entry,
            other => {
                *other = (epoch, now, false);
                other
            }
        };
        let age = since.ago(now);
        if age >= limit && !*reported {
            *reported = true;
            let thread = magazine.owner();
            let thread_name = crate::thread::name(thread);
            notice::tell(core, || Report::StalledPin { tier: core.incarnation().name, age, thread, thread_name });
        }
    }
}

/// How long after a look at the pins the next one is due.
pub(crate) fn pause(limit: Duration) -> Duration {
    limit / 4
}

/// Whether retired slots wait for the end of pins, or for a pass.
pub(crate) fn is_waiting(core: &Core) -> bool {
    core.limbo.load(Ordering::Relaxed) != 0 || !core.retired.head().is_empty()
}
