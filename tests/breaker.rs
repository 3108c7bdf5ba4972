//! The circuit breaker by its public surface, in time that the test makes up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tierpool::{Breaker, BreakerRules, BreakerState, BreakerWindow, Outcome, clock};

const HOUR: Duration = Duration::from_secs(3600);
const FAST: Duration = Duration::from_millis(1);

/// One test, since the clock is the process's.
#[test]
fn it_opens_for_its_time_then_tries_and_closes() {
    let start = Instant::now();
    let told = Arc::new(Mutex::new(Vec::new()));
    let states = Arc::clone(&told);
    let rules = BreakerRules {
        window: BreakerWindow::Time(HOUR),
        minimum_calls: 3,
        half_open_calls: 2,
        half_open_limit: Some(2 * HOUR),
        open_min: HOUR,
        open_max: HOUR,
        ..BreakerRules::default()
    };
    let breaker = Breaker::new(rules).unwrap().on_event(move |event| states.lock().unwrap().push(event.to));
    breaker.record_successes(2);
    breaker.record(Outcome::Failure, FAST);
    assert!(breaker.is_closed(), "one of three");

    // The successes leave the window.
    clock::tick_to(start + 2 * HOUR);
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| breaker.record(Outcome::Failure, FAST)))));
    let refusal = breaker.try_pass().unwrap_err();
    assert_eq!(refusal.state, BreakerState::Open);
    let time = refusal.retry_in.unwrap();
    assert!(time > HOUR / 2 && time <= HOUR + Duration::from_millis(10), "{time:?}");

    clock::tick_to(start + 2 * HOUR + time - Duration::from_secs(1));
    assert!(breaker.try_pass().is_err(), "a second too early");
    clock::tick_to(start + 3 * HOUR + Duration::from_secs(1));
    let (first, second) = (breaker.try_pass().unwrap(), breaker.try_pass().unwrap());
    assert!(first.is_trial() && second.is_trial());
    let refusal = breaker.try_pass().unwrap_err();
    assert_eq!((refusal.state, refusal.retry_in), (BreakerState::HalfOpen, None));
    first.record(Outcome::Success, FAST);
    second.record(Outcome::Success, FAST);
    assert!(breaker.is_closed() && !breaker.try_pass().unwrap().is_trial());
    assert_eq!(*told.lock().unwrap(), [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed]);

    let status = breaker.status();
    assert_eq!((status.total_calls, status.total_failed, status.total_unjudged), (8, 4, 0));
    assert_eq!(status.total_refused, 3);
}
