//! What a tier has to say of its own accord: [`TierBuilder::on_report`](crate::TierBuilder::on_report).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::core::Core;
use super::suspect::Suspect;
use super::values::{FactoryError, Panic, dispose};

/// Something that people should know. Its `Display` is one line for a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// Slots of one line are held for longer than [`leak_after`](crate::TierBuilder::leak_after): a leak, or not, as the
    /// [`verdict`](Suspect::verdict) says.
    HeldLong(Suspect),
    /// A pin has stood for longer than [`pin_limit`](crate::TierBuilder::pin_limit). What was retired since is not used again
    /// before it goes. Reported once.
    StalledPin {
        /// The tier's name.
        tier: &'static str,
        /// How long it has stood at least.
        age: Duration,
        /// The number of its thread; 0 if it has none.
        thread: u32,
        /// That thread's name, while it lives and if it has one.
        thread_name: Option<String>,
    },
    /// The factory could not replace a value, or make one for a tier that grows.
    BuildFailed {
        /// The tier's name.
        tier: &'static str,
        /// How often in a row it has failed now.
        failures: u32,
        /// When it is tried again.
        retry_in: Duration,
        /// What the factory said; `None` if it panicked.
        source: Option<FactoryError>,
    },
    /// The system has no memory for the tier to grow.
    GrowthFailed {
        /// The tier's name.
        tier: &'static str,
        /// Slots that it has.
        slots: usize,
        /// When it is tried again.
        retry_in: Duration,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program's own code panicked while the reclaimer ran it. The slot's value is replaced.
    Panicked {
        /// The tier's name.
        tier: &'static str,
        /// What the panic said, if it was text.
        message: String,
    },
}

impl Report {
    /// Whether it tells of a leak, sure or probable.
    pub fn is_leak(&self) -> bool {
        matches!(self, Report::HeldLong(suspect) if suspect.verdict.is_leak())
    }

    /// The name of the tier that it is about.
    pub fn tier(&self) -> &'static str {
        match self {
            Report::HeldLong(Suspect { tier, .. })
            | Report::StalledPin { tier, .. }
            | Report::BuildFailed { tier, .. }
            | Report::GrowthFailed { tier, .. }
            | Report::Panicked { tier, .. } => tier,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::HeldLong(suspect) => write!(f, "{suspect}"),
            Report::StalledPin { tier, age, thread, thread_name } => {
                write!(f, "tier {tier:?}: a pin has stood for {age:.2?}, and keeps what was retired since: thread ")?;
                match thread_name {
                    Some(name) => write!(f, "{name:?}"),
                    None => write!(f, "{thread}"),
                }
            }
            Report::BuildFailed { tier, failures, retry_in, source } => {
                write!(f, "tier {tier:?}: the factory ")?;
                match source {
                    Some(source) => write!(f, "failed ({source})")?,
                    None => write!(f, "panicked")?,
                }
                write!(f, ", {failures} in a row; next attempt in {retry_in:.2?}")
            }
            Report::GrowthFailed { tier, slots, retry_in, source } => {
                write!(
                    f,
                    "tier {tier:?}: no memory to grow beyond {slots} slots ({source}); next attempt in {retry_in:.2?}"
                )
            }
            Report::Panicked { tier, message } => {
                write!(f, "tier {tier:?}: a panic in the reclaimer cost one value: {message}")
            }
        }
    }
}

/// Hands a report to whoever wants it. What that code panics with is dropped: there is nobody left to tell.
///
/// The caller holds a slot or a tier of the block, or is in a pass.
pub(crate) fn tell(core: &Core, report: impl FnOnce() -> Report) {
    // What the report is made of goes in here too, and may panic when it does.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let sink = core.life().on_report.as_ref();
        if sink.is_none() && !cfg!(feature = "tracing") {
            return;
        }
        let report = report();
        #[cfg(feature = "tracing")]
        super::events::report(&report);
        if let Some(sink) = sink {
            sink(&report);
        }
    }));
    if let Err(panic) = outcome {
        dispose(panic);
    }
}

/// What the program's code says; no, if it panics.
pub(crate) fn guarded(ask: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| {
        dispose(panic);
        false
    })
}

/// Reports a panic that was caught in a pass.
pub(crate) fn tell_panic(core: &Core, panic: &Panic) {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    tell(core, || Report::Panicked {
        tier: core.incarnation().name,
        message: message.unwrap_or_else(|| "(a payload that is no text)".to_owned()),
    });
}
