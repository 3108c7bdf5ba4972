//! What is wrong, as sentences: all that somebody who is woken at night should read first, the worst first.

use serde::Serialize;

use crate::admission::breaker::report::BreakerStatus;
use crate::admission::breaker::word::BreakerState;
use crate::host::issue::{ResourceIssue, Severity};
use crate::pool::monitor::TierStatus;
use crate::pool::observe::{Observation, TierTrend};
use crate::tier::suspect::Suspect;
use crate::tier::verdict::Verdict;

/// Something is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Alert {
    pub(super) severity: Level,
    pub(super) kind: Kind,
    /// The pool's name, if it is a pool's.
    pub(super) pool: Option<String>,
    /// The tier's, if it is a tier's.
    pub(super) tier: Option<String>,
    /// The source line, if one is to blame.
    pub(super) site: Option<String>,
    pub(super) text: String,
}

/// How bad it is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Critical,
    Warning,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The pool is not there any more.
    Gone,
    /// Slots of a line do not come back.
    Leak,
    /// A tier hands out nothing more.
    Closed,
    /// A circuit breaker does not let all pass.
    Breaker,
    /// Requests are refused at present.
    Refusing,
    /// Slots wait for a factory to replace their values.
    OutOfService,
    /// The health monitor says so.
    Health,
}

/// What is wrong with a pool.
pub(super) fn of_pool(seen: &Observation, is_gone: bool) -> Vec<Alert> {
    let leaks = seen.leaks.iter().filter(|it| it.verdict.is_leak());
    let mut alerts: Vec<_> = leaks.map(|it| of_leak(seen, it)).collect();
    let mut add = |severity, kind, tier: Option<&str>, text| {
        let (pool, tier) = (Some(seen.pool.clone()), tier.map(str::to_owned));
        alerts.push(Alert { severity, kind, pool, tier, site: None, text });
    };
    if is_gone {
        let text = "the pool is not there any more; what is shown is how it stood when it was last seen".to_owned();
        add(Level::Critical, Kind::Gone, None, text);
        return alerts;
    }
    for (tier, trend) in seen.status.tiers.iter().zip(&seen.tiers) {
        for (severity, kind, text) in of_tier(tier, trend) {
            add(severity, kind, Some(tier.name), text);
        }
    }
    alerts
}

fn of_leak(seen: &Observation, it: &Suspect) -> Alert {
    let (severity, verdict) = match it.verdict {
        Verdict::Leak => (Level::Critical, "a leak, almost surely"),
        _ => (Level::Warning, "probably a leak"),
    };
    let slots = if it.late == 1 { "slot" } else { "slots" };
    let text = format!("{verdict}: {} {slots} held for up to {:.0?}, {}", it.late, it.oldest.age, it.why());
    Alert {
        severity,
        kind: Kind::Leak,
        pool: Some(seen.pool.clone()),
        tier: Some(it.tier.to_owned()),
        site: Some(it.site.to_string()),
        text,
    }
}

fn of_tier(tier: &TierStatus, trend: &TierTrend) -> Vec<(Level, Kind, String)> {
    let mut found = Vec::new();
    let now = &tier.snapshot;
    if now.closed {
        let text = match tier.held() {
            0 => "the tier is closed".to_owned(),
            held => format!("the tier is closed; {held} of its slots are still held"),
        };
        found.push((Level::Critical, Kind::Closed, text));
    }
    for (of, breaker) in [("", &tier.breaker), (" of the factory", &tier.factory_breaker)] {
        found.extend(breaker.as_ref().and_then(|breaker| of_breaker(of, breaker)));
    }
    if trend.refusals.second > 0.0 && !now.closed {
        let (held, slots, waiting) = (tier.held(), now.slots(), now.waiting);
        let rate = trend.refusals.second.ceil();
        let text = format!("refused a second: {rate:.0}; {held} of {slots} slots are held, {waiting} wait");
        found.push((Level::Warning, Kind::Refusing, text));
    }
    if now.quarantined > 0 {
        let text = format!("{} slots are out of service until a factory replaces their values", now.quarantined);
        found.push((Level::Warning, Kind::OutOfService, text));
    }
    found
}

fn of_breaker(of: &str, breaker: &BreakerStatus) -> Option<(Level, Kind, String)> {
    let level = match breaker.state {
        BreakerState::Closed => return None,
        BreakerState::Open | BreakerState::ForcedOpen => Level::Critical,
        BreakerState::HalfOpen | BreakerState::Disabled => Level::Warning,
    };
    let mut text = format!("the circuit breaker{of} is {}", breaker.state);
    if let Some(time) = breaker.retry_in {
        text += &format!("; calls pass again in {:.1} s", time.as_secs_f64());
    }
    Some((level, Kind::Breaker, text))
}

/// What a health monitor says.
pub(super) fn of_health(issues: &[ResourceIssue]) -> Vec<Alert> {
    let alert = |issue: &ResourceIssue| {
        let severity = if issue.severity == Severity::Unhealthy { Level::Critical } else { Level::Warning };
        Alert { severity, kind: Kind::Health, pool: None, tier: None, site: None, text: issue.what.clone() }
    };
    issues.iter().map(alert).collect()
}
