//! What a breaker says: why it refuses, what has changed its state, how it stands.

use std::fmt;
use std::time::Duration;

use super::word::BreakerState;

/// Why a call was not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", refusal(*state, *retry_in))]
#[non_exhaustive]
pub struct BreakerOpen {
    /// What the breaker does.
    pub state: BreakerState,
    /// How long until a call may pass again; `None` if that depends on calls that have not ended, or on a command.
    pub retry_in: Option<Duration>,
}

fn refusal(state: BreakerState, retry_in: Option<Duration>) -> String {
    match (state, retry_in) {
        (_, Some(time)) => format!("the circuit breaker is open; try again in {time:.2?}"),
        (BreakerState::HalfOpen, None) => {
            "the circuit breaker is half-open, and as many calls try as it lets pass; try again when they have ended"
                .into()
        }
        (state, None) => format!("the circuit breaker is {state}, until it is told to reset"),
    }
}

/// A change of a [`Breaker`](crate::Breaker)'s state.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerEvent {
    /// The state before.
    pub from: BreakerState,
    /// The state since.
    pub to: BreakerState,
    /// What has changed it.
    pub cause: BreakerCause,
    /// The number of changes so far, this one included.
    pub period: u64,
    /// Of a breaker that opened, for how long.
    pub open_time: Option<Duration>,
}

impl fmt::Display for BreakerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the circuit breaker is {} after it was {}", self.to, self.from)?;
        if let Some(time) = self.open_time {
            write!(f, ", for {time:.2?}")?;
        }
        match self.cause {
            BreakerCause::FailureRate(rate) => write!(f, ": {:.1} % of the calls failed", rate * 100.0),
            BreakerCause::SlowRate(rate) => write!(f, ": {:.1} % of the calls were slow", rate * 100.0),
            BreakerCause::Due => write!(f, ": its open time is over"),
            BreakerCause::Recovered => write!(f, ": the calls that tried went well"),
            BreakerCause::NoVerdict => write!(f, ": too few of the calls that tried have ended"),
            BreakerCause::Told => write!(f, ": it was told so"),
        }
    }
}

/// What changes a [`Breaker`](crate::Breaker)'s state.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum BreakerCause {
    /// So many of the calls failed, from 0 to 1.
    FailureRate(f64),
    /// So many of the calls were slow, from 0 to 1.
    SlowRate(f64),
    /// The open time is over.
    Due,
    /// The calls of a half-open breaker went well.
    Recovered,
    /// Too few calls of a half-open breaker ended within its limit.
    NoVerdict,
    /// A command.
    Told,
}

/// How a [`Breaker`](crate::Breaker) stands.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// What it does.
    pub state: BreakerState,
    /// How often it has changed its state.
    pub period: u64,
    /// Calls that it judges by: in its window, or of a half-open breaker those that have ended.
    pub calls: u64,
    /// How many of them failed, from 0 to 1.
    pub failure_rate: f64,
    /// How many of them were slow, from 0 to 1.
    pub slow_rate: f64,
    /// Of an open breaker, how long until a call may pass.
    pub retry_in: Option<Duration>,
    /// Of a half-open breaker, how many more calls it lets pass.
    pub permits_left: u32,
    /// How often it has opened since it was last closed.
    pub openings: u32,
    /// Calls that it has judged, ever.
    pub total_calls: u64,
    /// How many of them failed.
    pub total_failed: u64,
    /// How many of them were slow.
    pub total_slow: u64,
    /// Calls that were recorded while none was judged, or too late for their permit.
    pub total_unjudged: u64,
    /// Calls that were refused.
    pub total_refused: u64,
    /// What has changed its state so far.
    pub changes: BreakerChanges,
}

/// How often each [`BreakerCause`] has changed a [`Breaker`](crate::Breaker)'s state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BreakerChanges(pub(super) [u64; CAUSES.len()]);

/// The causes' names, in the order of [`BreakerCause::index`].
const CAUSES: [&str; 6] = ["failure_rate", "slow_rate", "due", "recovered", "no_verdict", "told"];

impl BreakerCause {
    /// Its place in [`BreakerChanges`].
    pub(super) fn index(self) -> usize {
        match self {
            BreakerCause::FailureRate(_) => 0,
            BreakerCause::SlowRate(_) => 1,
            BreakerCause::Due => 2,
            BreakerCause::Recovered => 3,
            BreakerCause::NoVerdict => 4,
            BreakerCause::Told => 5,
        }
    }

    /// Its name in metrics: `failure_rate`, `slow_rate`, `due`, `recovered`, `no_verdict`, `told`.
    pub fn name(self) -> &'static str {
        CAUSES[self.index()]
    }
}

impl BreakerChanges {
    /// Each cause's [name](BreakerCause::name), and how often it was one.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CAUSES.into_iter().zip(self.0)
    }

    /// How often that cause was one; what it says of the rate does not matter.
    pub fn of(&self, cause: BreakerCause) -> u64 {
        self.0[cause.index()]
    }
}
