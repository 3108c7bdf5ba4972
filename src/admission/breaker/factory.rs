//! A circuit breaker for a factory: what makes a tier's values is left alone while it fails, or takes too long.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use super::report::BreakerOpen;
use super::{Breaker, Outcome, Pass, now};

/// Why a factory behind a [`Breaker`] made nothing.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// It was not asked.
    #[error("the factory was not asked: {0}")]
    Open(#[source] BreakerOpen),
    /// Its own error.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

/// A call of the factory, which has failed unless it says otherwise: by a panic, too.
struct Call<'b> {
    pass: Pass<'b>,
    start: Instant,
    outcome: Outcome,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.pass.record_at(now(), self.outcome, self.start.elapsed());
    }
}

impl Breaker {
    /// A factory behind this breaker, for [`TierBuilder::try_build_with`](crate::TierBuilder::try_build_with): while the breaker is
    /// open it is not called, and its slots stay in quarantine; several tiers whose values come from one source share one breaker. An
    /// error or a panic is a failure, a call that takes longer than [`slow_after`](crate::BreakerRules::slow_after) is slow. Two
    /// looks at the clock a call.
    ///
    /// The breaker is beside the tier's own back-off between attempts for a slot: that spaces out the attempts of one tier by the failures
    /// of one slot, this decides by the rates of all calls. [`PoolBuilder::factory_breaker`](crate::PoolBuilder::factory_breaker) shows it
    /// in a pool's status.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tierpool::{Breaker, BreakerRules, Tier};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = Arc::new(Breaker::new(BreakerRules::default())?);
    /// let connect = || std::net::UdpSocket::bind("127.0.0.1:0");
    /// let sockets = Tier::builder("sockets").capacity(4).try_build_with(breaker.around(connect))?;
    /// assert_eq!(breaker.status().total_calls, 4);
    /// # Ok(()) }
    /// ```
    pub fn around<T, E: Into<Box<dyn Error + Send + Sync>>>(
        self: &Arc<Self>,
        factory: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> impl Fn() -> Result<T, FactoryError> + Send + Sync + 'static {
        let breaker = Arc::clone(self);
        move || {
            let pass = breaker.try_pass().map_err(FactoryError::Open)?;
            let mut call = Call { pass, start: Instant::now(), outcome: Outcome::Failure };
            let value = factory().map_err(|why| FactoryError::Failed(why.into()))?;
            call.outcome = Outcome::Success;
            Ok(value)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::admission::breaker::rules::BreakerRules;
    use crate::admission::breaker::window::BreakerWindow;
    use crate::admission::breaker::word::BreakerState;

    fn breaker(rules: BreakerRules) -> Arc<Breaker> {
        let window = BreakerWindow::Calls(4);
        Arc::new(Breaker::new(BreakerRules { window, minimum_calls: 4, ..rules }).unwrap())
    }

    #[test]
    fn failures_and_panics_open_it_and_then_the_factory_is_not_called() {
        let breaker = breaker(BreakerRules::default());
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let factory = breaker.around(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Ok(7),
            2 => Err("down"),
            _ => panic!("worse"),
        });
        assert_eq!((factory().unwrap(), factory().unwrap()), (7, 7));
        assert_eq!(factory().unwrap_err().to_string(), "down");
        assert!(catch_unwind(AssertUnwindSafe(&factory)).is_err());
        assert_eq!(breaker.state(), BreakerState::Open, "two of four calls failed");
        let error = factory().unwrap_err();
        assert!(matches!(error, FactoryError::Open(_)) && error.to_string().contains("not asked"), "{error}");
        assert_eq!(calls.load(Ordering::Relaxed), 4);
        breaker.reset();
        assert!(catch_unwind(AssertUnwindSafe(&factory)).is_err(), "it is asked again");
    }

    #[test]
    fn slow_calls_open_it() {
        let slow_after = Duration::from_millis(1);
        let breaker = breaker(BreakerRules { slow_after, ..BreakerRules::default() });
        let factory = breaker.around(move || {
            std::thread::sleep(2 * slow_after);
            Ok::<_, String>(())
        });
        (0..4).for_each(|_| factory().unwrap());
        assert_eq!(breaker.state(), BreakerState::Open, "{:?}", breaker.status());
    }
}
