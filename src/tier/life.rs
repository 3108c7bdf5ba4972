//! What a tier was told about its life: how it grows, how long its values and their holders may last, whom to tell.

use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::account::Accountant;
use super::allocate::Taken;
use super::backoff::Pauses;
use super::notice::Report;
use super::segments::Segments;
use super::sites::Turnover;
use super::suspect::Suspect;
use crate::clock::Tick;
use crate::slot::word::{State, Word};
use crate::sync::{AtomicU64, Ordering};

/// Whom reports go to.
pub(crate) type Sink = Box<dyn Fn(&Report) + Send + Sync>;
/// Which lines may hold a slot for as long as they like.
pub(crate) type Ignore = Box<dyn Fn(&Location<'static>) -> bool + Send + Sync>;

/// See the module's header. Built with the tier, never changed but for the accountant's coming and what looks for leaks find, dropped with its last value.
pub(crate) struct Life {
    /// Counts the tiers of the process in the order in which they were built: the order in which slots of several are waited for.
    pub(crate) serial: u64,
    /// Who counts on whose account slots are held, once somebody does.
    pub(crate) accountant: OnceLock<Arc<dyn Accountant>>,
    /// Slots that the tier does not shrink below.
    pub(crate) min: usize,
    /// The payload's memory, if it comes and goes.
    pub(crate) segments: Option<Segments>,
    pub(crate) idle: Option<Idle>,
    pub(crate) leak_after: Option<Duration>,
    pub(crate) ignore_leaks: Option<Ignore>,
    /// How often each line allocates, if leaks are watched.
    pub(crate) turnover: Option<Turnover>,
    /// The lines of which something is held for too long, as the last look found them.
    pub(crate) suspects: ArcSwapOption<Vec<Suspect>>,
    pub(crate) pin_limit: Option<Duration>,
    pub(crate) on_report: Option<Sink>,
    pub(crate) pauses: Pauses,
}

/// How long values may lie unused, and since when each has.
pub(crate) struct Idle {
    pub(crate) timeout: Duration,
    /// For each slot, the lower half of its generation when a pass first found it free (upper half), and the tick of that
    /// pass (lower half); or [`NEVER`].
    pub(crate) seen: Box<[AtomicU64]>,
}

/// The slot was not free when a pass last looked. No slot is of such a generation.
pub(crate) const NEVER: u64 = u64::MAX;

impl Idle {
    /// In a pass: since when a slot with that word has not been used, as far as passes have seen.
    pub(crate) fn unused_since(&self, index: usize, word: Word, now: Tick) -> Tick {
        let seen = self.seen[index].load(Ordering::Relaxed);
        if !word.is_free() {
            // It may become free in its present generation, as slots do that are added, cleaned or rebuilt.
            self.seen[index].store(NEVER, Ordering::Relaxed);
            return now;
        }
        if (seen >> 32) as u32 == word.generation() as u32 {
            return Tick(seen as u32);
        }
        self.note(index, word, now);
        now
    }

    /// For who has a free slot in maintenance, to give it back: that is no use of it.
    pub(crate) fn carry_over(&self, taken: Taken) {
        let seen = self.seen[taken.index as usize].load(Ordering::Relaxed);
        if (seen >> 32) as u32 == (taken.word.generation() as u32).wrapping_sub(1) {
            self.note(taken.index as usize, taken.word.to(State::Free), Tick(seen as u32));
        }
    }

    fn note(&self, index: usize, word: Word, since: Tick) {
        let generation = word.generation() as u32;
        self.seen[index].store((u64::from(generation) << 32) | u64::from(since.0), Ordering::Relaxed);
    }

    /// How long after a look at the slots the next one is due.
    pub(crate) fn pause(&self) -> Duration {
        self.timeout / 4
    }
}
