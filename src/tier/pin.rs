//! A pin: while it stands, no value that was shared when it was taken, or is shared later, is reset, dropped or handed out.
//!
//! Each thread notes its pins in its own magazine, in one word ([`Pins`]): how many stand, and the tier's epoch when the first of them
//! was taken. Taking one is a store and a light fence, dropping it a store; nothing is shared with other threads but by
//! [`epoch`](super::epoch), which looks at all these words after a heavy fence. A thread without a magazine counts its pins in
//! [`Core::unlisted_pins`](super::core::Core), which is slower.
//!
//! A pin may be forgotten. It then stands as long as the tier: nothing that was retired since is used again, and nothing else
//! suffers. If its thread exits, the magazine stays with the pin, since what was read under it may be in use elsewhere; the next
//! tier in the control block takes it back.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use super::Tier;
use super::attach;
use super::core::Core;
use super::magazine::Magazine;
use super::notice::{self, Report};
use crate::clock::{self, Tick};
use crate::sync::fence::light_beside_membarrier;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The bits of a thread's word that count its pins.
const DEPTH: u64 = LEFT - 1;
/// The thread has exited and left them standing.
const LEFT: u64 = 1 << 19;
/// One step of the epoch, in the bits above.
const EPOCH: u64 = LEFT << 1;

/// The pins of a magazine's thread. 0: none.
pub(crate) struct Pins(AtomicU64);

/// What the word says at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Standing(u64);

impl Standing {
    /// The epoch of the first pin that stands, as it is noted: in the upper bits.
    fn epoch(self) -> u64 {
        self.0 & !(EPOCH - 1)
    }

    /// Whether pins stand that were taken before the epoch became `sealed`. Epochs come round after 2⁴⁴ batches; what counts is
    /// on which side of this one the pin's is.
    pub(crate) fn is_before(self, sealed: u64) -> bool {
        self.0 != 0 && (self.epoch().wrapping_sub(sealed.wrapping_mul(EPOCH)) as i64) < 0
    }
}

impl Pins {
    #[cfg(loom)]
    pub(crate) fn none() -> Self {
        Pins(AtomicU64::new(0))
    }

    /// For the owner.
    ///
    /// Every store of the word is a Release: whoever reads it with Acquire comes after everything that was read under pins that are
    /// gone by then, the later pin's word standing for the end of the earlier.
    #[inline(always)]
    fn set(&self, word: u64) {
        self.0.store(word, Ordering::Release);
    }

    /// For the owner: takes the first pin. False if some stand.
    #[inline(always)]
    fn begin(&self, core: &Core) -> bool {
        let none = self.0.load(Ordering::Relaxed) == 0;
        if none {
            // Acquire: pairs with the Release in `epoch::seal`; a pin of an epoch comes after all that was retired before it.
            self.set(core.epoch.load(Ordering::Acquire).wrapping_mul(EPOCH) + 1);
        }
        none
    }

    /// For the owner: takes one more pin, which is as old as the first and needs no fence of its own. False if there are too many:
    /// they must have been forgotten in a loop, and from here on they stand for ever.
    #[inline(always)]
    fn deepen(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        let counts = now & DEPTH < DEPTH;
        if counts {
            self.set(now + 1);
        }
        counts
    }

    /// For the owner: drops a pin. False, and nothing is done, if it has outlived its thread's magazines, or is one of too many.
    #[inline(always)]
    fn end(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        let depth = now & (LEFT | DEPTH);
        if depth == 1 {
            self.set(0);
        } else if depth < DEPTH {
            self.set(now - 1);
        }
        depth < DEPTH
    }

    /// The same where `end` does nothing. True if the magazine is to be given up.
    fn end_late(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        let last = now & DEPTH == 1;
        if now & DEPTH < DEPTH {
            self.set(if last { 0 } else { now - 1 });
        }
        last
    }

    /// For the owner, who exits: whether pins stand, so that the magazine cannot be given up. Then the last of them gives it up.
    pub(crate) fn leave(&self) -> bool {
        if self.0.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // By an exchange: a new tier may be taking forgotten pins back (`forget`).
        let stand = self.0.fetch_or(LEFT, Ordering::Relaxed) != 0;
        if !stand {
            self.set(0);
        }
        stand
    }

    /// A new tier moves in: nothing of the old one can be read under pins that were forgotten. True if the magazine is nobody's.
    pub(crate) fn forget(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) & LEFT != 0
    }

    /// For anybody.
    pub(crate) fn standing(&self) -> Standing {
        // Acquire: pairs with the Release in `set`; see there.
        Standing(self.0.load(Ordering::Acquire))
    }
}

/// Keeps the values of shared slots where they are, for as long as it stands: made by [`Tier::pin`], used by [`Tier::read`].
///
/// It belongs to one tier and one thread. Keep it short: what is retired while it stands is not used again before it is gone, and
/// delays what is retired later. Nothing else waits for it. One that is forgotten ([`std::mem::forget`]) stands as long as
/// the tier.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: tierpool::Tier<String> = tierpool::Tier::builder("config").capacity(2).build_with(String::new)?;
/// let mut lease = tier.try_allocate()?;
/// lease.push_str("verbose");
/// let handle = lease.share();
/// {
///     let pin = tier.pin();
///     let config = tier.read(handle, &pin).expect("not retired yet");
///     tier.retire(handle)?;                              // by any thread, at any time
///     assert_eq!(config, "verbose");                     // stays as it is until the pin goes
///     assert!(tier.read(handle, &pin).is_none());        // but nobody new gets it
/// }
/// # Ok(()) }
/// ```
///
/// What was read cannot outlive the pin, nor the pin its tier or its thread:
/// ```compile_fail,E0505
/// # fn f(tier: &tierpool::Tier<String>, handle: tierpool::Handle) {
/// let pin = tier.pin();
/// let config = tier.read(handle, &pin);
/// drop(pin);
/// println!("{config:?}");
/// # }
/// ```
/// ```compile_fail,E0505
/// # fn f(tier: tierpool::Tier<String>) {
/// let pin = tier.pin();
/// drop(tier);
/// drop(pin);
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(tier: &'static tierpool::Tier<String>) {
/// let pin = tier.pin();
/// std::thread::spawn(move || drop(pin));
/// # }
/// ```
#[must_use = "a pin that is dropped at once protects nothing"]
pub struct Pin<'t, T: Send + 'static> {
    core: &'static Core,
    /// Where it is noted; `None` if it is only counted.
    magazine: Option<&'static Magazine>,
    _tier: PhantomData<(&'t Tier<T>, *const ())>,
}

impl<'t, T: Send + 'static> Pin<'t, T> {
    #[inline(always)]
    pub(crate) fn new(tier: &'t Tier<T>) -> Self {
        let core = tier.core();
        let magazine = attach::current_if_membarrier(core);
        let magazine = match magazine {
            Some(mine) if mine.pins.begin(core) => {
                // Pairs with the heavy fence in `epoch::seal`: either it is followed by a look that finds this pin, or
                // whoever reads under this pin finds what was retired before it.
                light_beside_membarrier();
                magazine
            }
            Some(mine) if mine.pins.deepen() => magazine,
            _ => pin_slow(core),
        };
        Pin { core, magazine, _tier: PhantomData }
    }

    /// The caller's tier is that in `core`, and shall be the pin's.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn assert_is_of(&self, core: &Core) {
        if !ptr::eq(self.core, core) {
            other_tier(core, self.core);
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn other_tier(core: &Core, pinned: &Core) -> ! {
    let (name, other) = (core.incarnation().name, pinned.incarnation().name);
    panic!(
        "tier {name:?} is read under a pin of another tier, {other:?}, which does not protect the value; use this tier's `pin`"
    );
}

/// The other cases: the thread has no magazine yet, or has a pin, or the process uses the portable fence.
#[cold]
#[inline(never)]
fn pin_slow(core: &'static Core) -> Option<&'static Magazine> {
    let magazine = attach::attach(core);
    match magazine {
        Some(magazine) if magazine.pins.begin(core) => {}
        Some(magazine) => {
            magazine.pins.deepen();
            return Some(magazine);
        }
        None => {
            core.unlisted_pins.fetch_add(1, Ordering::Relaxed);
        }
    }
    // As in `Pin::new`.
    core.fence.light();
    magazine
}

#[cold]
#[inline(never)]
fn unpin_slow(core: &Core, magazine: Option<&Magazine>) {
    match magazine {
        Some(magazine) => {
            if magazine.pins.end_late() {
                magazine.give_up();
            }
        }
        // Release: pairs with the Acquire in `are_gone`; what was read comes before.
        None => {
            core.unlisted_pins.fetch_sub(1, Ordering::Release);
        }
    }
}

impl<T: Send + 'static> Drop for Pin<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.magazine.is_some_and(|magazine| magazine.pins.end()) {
            unpin_slow(self.core, self.magazine);
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Pin<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("tier", &self.core.incarnation().name).finish_non_exhaustive()
    }
}

/// Which pin was in the way of a batch when a pass last looked: while it stands, another look is of no use.
pub(crate) struct Blocker {
    /// [`NOBODY`], [`UNLISTED`], or one more than the number of a magazine.
    number: AtomicU32,
    /// The epoch of that magazine's pins.
    epoch: AtomicU64,
}

const NOBODY: u32 = 0;
const UNLISTED: u32 = u32::MAX;

impl Blocker {
    pub(crate) fn new() -> Self {
        Blocker { number: AtomicU32::new(NOBODY), epoch: AtomicU64::new(0) }
    }

    /// Relaxed, as below: a hint that saves looks. A mixture of two pins names one that stands just as long.
    fn note(&self, number: u32, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
    }

    /// Whether it stands still. Some loads.
    pub(crate) fn stands(&self, core: &Core) -> bool {
        match self.number.load(Ordering::Relaxed) {
            NOBODY => false,
            UNLISTED => core.unlisted_pins.load(Ordering::Relaxed) != 0,
            number => core.magazines().get(number as usize - 1).is_some_and(|magazine| {
                let now = magazine.pins.standing();
                now.0 != 0 && now.epoch() == self.epoch.load(Ordering::Relaxed)
            }),
        }
    }
}

/// Whether no pin stands that was taken before the epoch became `sealed`. After a heavy fence that followed.
pub(crate) fn are_gone(core: &Core, sealed: u64) -> bool {
    for (at, magazine) in core.magazines().iter().enumerate() {
        let standing = magazine.pins.standing();
        if standing.is_before(sealed) {
            core.blocker.note(at as u32 + 1, standing.epoch());
            return false;
        }
    }
    // Acquire: pairs with the Release in `unpin_slow`; what was read under pins that are gone comes before what follows.
    let unlisted = core.unlisted_pins.load(Ordering::Acquire) != 0;
    core.blocker.note(if unlisted { UNLISTED } else { NOBODY }, 0);
    !unlisted
}

/// Of each magazine with a standing pin: its epoch, since when, and whether it was reported.
#[derive(Default)]
pub(crate) struct Watch(HashMap<usize, (u64, Tick, bool)>);

/// How long after a look at the pins the next one is due.
pub(crate) fn pause(limit: Duration) -> Duration {
    limit / 4
}

/// In a pass: reports pins that stand for too long.
pub(crate) fn watch(core: &Core, watch: &mut Watch) {
    let Some(limit) = core.life().pin_limit else { return };
    // From here on a new pin has another epoch, so that it is told from one that has stood since before. Release: as in
    // `epoch::seal`, whose heavy fence is not needed, since nothing is freed by this.
    core.epoch.fetch_add(1, Ordering::Release);
    let now = clock::now();
    for (at, magazine) in core.magazines().iter().enumerate() {
        let standing = magazine.pins.standing();
        if standing.0 == 0 {
            watch.0.remove(&at);
            continue;
        }
        let epoch = standing.epoch();
        let entry = watch.0.entry(at).or_insert((epoch, now, false));
        if entry.0 != epoch {
            *entry = (epoch, now, false);
        }
        let (_, since, reported) = entry;
        let age = since.ago(now);
        if age >= limit && !*reported {
            *reported = true;
            let thread = magazine.owner();
            let thread_name = crate::thread::name(thread);
            notice::tell(core, || Report::StalledPin { tier: core.incarnation().name, age, thread, thread_name });
        }
    }
}
