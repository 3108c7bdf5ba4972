//! What a tier was told about its life: how it grows, how long its values and their holders may last, whom to tell.

use std::panic::Location;
use std::time::Duration;

use super::backoff::Pauses;
use super::notice::Report;
use super::segments::Segments;
use crate::sync::AtomicU64;

/// Whom reports go to.
pub(crate) type Sink = Box<dyn Fn(&Report) + Send + Sync>;
/// Which lines may hold a slot for as long as they like.
pub(crate) type Ignore = Box<dyn Fn(&Location<'static>) -> bool + Send + Sync>;

/// See the module's header. Built with the tier, never changed, dropped with its last value.
pub(crate) struct Life {
    /// Slots that the tier does not shrink below.
    pub(crate) min: usize,
    /// The payload's memory, if it comes and goes.
    pub(crate) segments: Option<Segments>,
    pub(crate) idle: Option<Idle>,
    pub(crate) leak_after: Option<Duration>,
    pub(crate) ignore_leaks: Option<Ignore>,
    pub(crate) pin_limit: Option<Duration>,
    pub(crate) on_report: Option<Sink>,
    pub(crate) pauses: Pauses,
}

/// How long values may lie unused, and since when each has.
pub(crate) struct Idle {
    pub(crate) timeout: Duration,
    /// For each slot, the lower half of its generation when a pass last saw it change (upper half), and the tick of that
    /// pass (lower half).
    pub(crate) seen: Box<[AtomicU64]>,
}

impl Idle {
    /// How long after a look at the slots the next one is due.
    pub(crate) fn pause(&self) -> Duration {
        self.timeout / 4
    }
}
