//! Reports as events of `tracing`, whether or not the tier was told whom to report to: at the target `tierpool`, with fields for what a
//! machine may want to filter by. Only with the feature `tracing`.

use std::fmt;

use super::notice::Report;

/// What a report is, in a word.
fn kind(report: &Report) -> &'static str {
    match report {
        Report::HeldLong(_) => "held-long",
        Report::StalledPin { .. } => "stalled-pin",
        Report::BuildFailed { .. } => "build-failed",
        Report::GrowthFailed { .. } => "growth-failed",
        Report::Panicked { .. } => "panicked",
    }
}

/// An error for a panic; information for what is held long and no leak; a warning for everything else.
pub(super) fn report(report: &Report) {
    let (tier, kind) = (report.tier(), kind(report));
    match report {
        Report::HeldLong(suspect) => {
            let (site, verdict, late) = (shown(&suspect.site), suspect.verdict.word(), suspect.late);
            if report.is_leak() {
                tracing::warn!(target: "tierpool", tier, kind, site, verdict, late, "{report}");
            } else {
                tracing::info!(target: "tierpool", tier, kind, site, verdict, late, "{report}");
            }
        }
        Report::Panicked { .. } => tracing::error!(target: "tierpool", tier, kind, "{report}"),
        _ => tracing::warn!(target: "tierpool", tier, kind, "{report}"),
    }
}

fn shown(it: &impl fmt::Display) -> impl tracing::Value {
    tracing::field::display(it)
}
