//! The reclaimer's pass over one tier: everything that is done for a tier without anybody asking.
//!
//! A pass is made by the background thread ([`background`](super::background)), or by whoever calls
//! [`Tier::reclaim`](crate::Tier::reclaim). There is one at a time for a tier; nobody waits for it. It works on idle slots
//! only, which it claims like anybody else, so it may be stopped anywhere and stop nobody.

use std::time::{Duration, Instant};

use super::core::Core;
use super::epoch::Limbo;
use super::life::Idle;
use super::pass::PassState;
use super::values::{Ages, Payload};
use super::{background, clean, epoch, expire, grow, leaks, pin, rebuild, turnover, wait};
use crate::clock;
use crate::sync::{AtomicU64, Ordering};

/// Who makes a tier's passes: [`TierBuilder::reclaimer`](crate::TierBuilder::reclaimer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reclaimer {
    /// The program, by calling [`Tier::reclaim`](crate::Tier::reclaim) when it likes. No thread is started.
    #[default]
    Manual,
    /// One thread for all such tiers of the process, started with the first of them. It sleeps until something is due: a deadline, a
    /// value to be cleaned, an age. In the child of a `fork` there is none, and the child's exit does not miss it.
    Background,
}

/// What a pass did, or all passes over a tier since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reclaimed {
    /// Retired slots that became free, since no pin can see them any more.
    pub retired: u64,
    /// Dirty slots that were cleaned.
    pub cleaned: u64,
    /// Handles that expired.
    pub expired: u64,
    /// Slots without a value that got one.
    pub rebuilt: u64,
    /// Values that were too old, and were replaced.
    pub renewed: u64,
    /// Holds that were found to last too long.
    pub leaks: u64,
    /// Slots that were added.
    pub added: u64,
    /// Slots that were removed.
    pub removed: u64,
}

impl Reclaimed {
    fn parts(self) -> [u64; 8] {
        let Reclaimed { retired, cleaned, expired, rebuilt, renewed, leaks, added, removed } = self;
        [retired, cleaned, expired, rebuilt, renewed, leaks, added, removed]
    }
}

/// The sum of what passes did for a tier.
pub(crate) struct Ledger([AtomicU64; 8]);

impl Ledger {
    pub(crate) fn new() -> Self {
        Ledger(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn add(&self, done: Reclaimed) {
        for (sum, part) in self.0.iter().zip(done.parts()).filter(|(_, part)| *part > 0) {
            sum.fetch_add(part, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> Reclaimed {
        let [retired, cleaned, expired, rebuilt, renewed, leaks, added, removed] =
            std::array::from_fn(|part| self.0[part].load(Ordering::Relaxed));
        Reclaimed { retired, cleaned, expired, rebuilt, renewed, leaks, added, removed }
    }

    /// A new tier moves in.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    }
}

/// Work over all headers that took some time is not done again before so many times that long: so all of it takes a small part of
/// a core.
const REST: u32 = 16;

/// When what looks at all headers is due next, in ticks. A background pass may come for something else much more often.
#[derive(Default)]
pub(crate) struct Timetable {
    expiry: u64,
    ages: u64,
    idleness: u64,
    leaks: u64,
    pins: u64,
}

/// Does what is due, and notes when it is due again: after `every`, or later if it took long. `None` stands for never.
fn when_due<R: Default>(at: &mut u64, thorough: bool, every: Option<Duration>, what: impl FnOnce() -> R) -> R {
    let Some(every) = every else {
        *at = u64::MAX;
        return R::default();
    };
    if !thorough && *at > clock::ticks() {
        return R::default();
    }
    let started = Instant::now();
    let done = what();
    let rest = if cfg!(loom) { Duration::ZERO } else { started.elapsed() * REST };
    *at = clock::ticks_from_now(every.max(rest));
    done
}

/// Makes a pass: a `thorough` one does everything, another what is due. `None` if somebody else is in one.
///
/// # Safety
/// The tier in `core` is one of `T`s, and the caller has a `Tier`, or has entered the block.
pub(crate) unsafe fn pass<T: 'static>(core: &'static Core, thorough: bool) -> Option<Reclaimed> {
    let mut state = core.pass.try_lock()?;
    clock::tick();
    let retired = epoch::collect::<T>(core, &mut state.limbo);
    let PassState { limbo, pins, watch, timetable } = &mut *state;
    let life = core.life();
    // SAFETY: by the contract.
    let payload = unsafe { Payload::<T>::of(core) };
    let ages = payload.values().ages.as_ref();
    let count = |count: usize| count as u64;
    let done = Reclaimed {
        retired: count(retired),
        cleaned: count(clean::all::<T>(core)),
        expired: count(when_due(&mut timetable.expiry, thorough, Some(Duration::ZERO), || expire::all::<T>(core))),
        rebuilt: count(rebuild::all::<T>(core)),
        renewed: count(when_due(&mut timetable.ages, thorough, ages.map(Ages::pause), || turnover::by_age::<T>(core))),
        leaks: count(when_due(&mut timetable.leaks, thorough, life.leak_after.map(leaks::pause), || {
            life.leak_after.map_or(0, |limit| watch.look(core, limit))
        })),
        removed: count(when_due(&mut timetable.idleness, thorough, life.idle.as_ref().map(Idle::pause), || {
            turnover::by_idleness::<T>(core)
        })),
        added: count(grow::ahead::<T>(core)),
    };
    when_due(&mut timetable.pins, thorough, life.pin_limit.map(pin::pause), || pin::watch(core, pins));
    wait::revoke_overdue(core);
    core.reclaimed.add(done);
    let next = next_due(core, timetable, limbo);
    drop(state);
    wait::after_pass(core);
    // Not before the next tick: what could not be done just now, since somebody is in the middle of it, is not tried again at once.
    background::kick(core, next.max(clock::ticks() + 1));
    Some(done)
}

/// When the next pass is due, if nothing new happens: a tick, or `u64::MAX`.
fn next_due(core: &Core, timetable: &Timetable, limbo: &Limbo) -> u64 {
    let when = |wanted: bool, due: u64| if wanted { due } else { u64::MAX };
    let Timetable { expiry, ages, idleness, leaks, pins } = *timetable;
    [
        core.deadline.load(Ordering::Relaxed).max(expiry),
        ages,
        idleness,
        leaks,
        pins,
        wait::next_overdue(core),
        when(core.quarantined.load(Ordering::Relaxed) > 0, core.rebuilding.due()),
        when(core.wanted.load(Ordering::Relaxed) > 0 && core.absent.load(Ordering::Relaxed) > 0, core.growing.due()),
        when(!core.dirty.head().is_empty(), clock::ticks() + 1),
        epoch::next_due(core, limbo),
    ]
    .into_iter()
    .min()
    .unwrap_or(u64::MAX)
}
