//! What a breaker does, one thing after the other.

use std::sync::{Arc, Mutex};

use super::window::BreakerWindow;
use super::*;

pub(super) const FAST: Duration = Duration::from_millis(1);
pub(super) const SLOW: Duration = Duration::from_millis(101);
/// Ticks that no time in these tests exceeds.
const LONG: u64 = 1_000_000;

/// Judges by four calls, opens for a second at first and for four at most, tries with two calls.
pub(super) fn rules() -> BreakerRules {
    BreakerRules {
        window: BreakerWindow::Calls(4),
        slow_after: Duration::from_millis(100),
        half_open_calls: 2,
        open_max: Duration::from_secs(4),
        ..BreakerRules::default()
    }
}

fn breaker() -> Breaker {
    Breaker::new(rules()).unwrap()
}

fn fail(breaker: &Breaker, now: u64, times: usize) {
    (0..times).for_each(|_| breaker.record_at(now, Call::KINDS[2], 1));
}

/// One that has just become half-open, and when; nobody has a permit.
fn half_open() -> (Breaker, u64) {
    let breaker = breaker();
    fail(&breaker, 0, 4);
    drop(breaker.try_pass_at(LONG).unwrap());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    (breaker, LONG)
}

#[test]
fn it_opens_at_the_failure_rate_and_not_before() {
    let breaker = breaker();
    breaker.record_at(0, Call::KINDS[0], 1000);
    fail(&breaker, 0, 1);
    assert!(breaker.is_closed());
    fail(&breaker, 0, 1);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(!breaker.is_closed());
}

#[test]
fn it_opens_at_the_slow_rate_whatever_the_outcome() {
    let breaker = breaker();
    for kind in [1, 1, 3] {
        breaker.record_at(0, Call::KINDS[kind], 1);
    }
    assert!(breaker.is_closed(), "three calls are too few");
    breaker.record_at(0, Call::KINDS[1], 1);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_call_is_slow_that_takes_longer_than_the_rule_says() {
    let breaker = breaker();
    assert!(!breaker.is_slow(Duration::from_millis(100)));
    assert!(breaker.is_slow(Duration::from_millis(100) + Duration::from_nanos(1)));
    assert!(breaker.is_slow(Duration::MAX));
}

#[test]
fn an_open_breaker_refuses_until_its_time_is_over() {
    let breaker = breaker();
    fail(&breaker, 7, 4);
    let refusal = breaker.try_pass_at(7).unwrap_err();
    let time = refusal.retry_in.unwrap();
    assert_eq!(refusal.state, BreakerState::Open);
    assert!(time > Duration::from_millis(500) && time <= Duration::from_millis(1010), "{time:?}");
    let until = 7 + clock::in_ticks(time);
    assert!(breaker.try_pass_at(until - 1).is_err());
    assert!(breaker.try_pass_at(until).unwrap().is_trial());
    assert_eq!(breaker.status_at(until).total_refused, 2);
}

#[test]
fn calls_that_go_well_close_a_half_open_breaker_with_an_empty_window() {
    let (breaker, now) = half_open();
    for _ in 0..2 {
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.try_pass_at(now).unwrap().record_at(now, Outcome::Success, FAST);
    }
    let status = breaker.status_at(now);
    assert_eq!((status.state, status.calls, status.openings, status.period), (BreakerState::Closed, 0, 0, 3));
    assert_eq!((status.total_calls, status.total_failed), (6, 4));
}

#[test]
fn slow_calls_open_a_half_open_breaker_again() {
    let (breaker, now) = half_open();
    for _ in 0..2 {
        breaker.try_pass_at(now).unwrap().record_at(now, Outcome::Success, SLOW);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.status_at(now).total_slow, 2);
}

#[test]
fn a_half_open_breaker_judges_by_the_minimum_if_that_is_less() {
    let breaker = Breaker::new(BreakerRules { minimum_calls: 1, half_open_calls: 5, ..rules() }).unwrap();
    fail(&breaker, 0, 1);
    breaker.try_pass_at(LONG).unwrap().record_at(LONG, Outcome::Success, FAST);
    assert!(breaker.is_closed());
}

#[test]
fn a_half_open_breaker_gives_no_more_permits_than_it_has_and_takes_unused_ones_back() {
    let (breaker, now) = half_open();
    let first = breaker.try_pass_at(now).unwrap();
    let second = breaker.try_pass_at(now).unwrap();
    let refusal = breaker.try_pass_at(now).unwrap_err();
    assert_eq!(refusal, BreakerOpen { state: BreakerState::HalfOpen, retry_in: None });
    drop(second);
    assert_eq!(breaker.status_at(now).permits_left, 1);
    let third = breaker.try_pass_at(now).unwrap();
    assert!(breaker.try_pass_at(now).is_err());
    drop((first, third));
    assert_eq!(breaker.status_at(now).permits_left, 2);
}

#[test]
fn a_permit_that_a_panic_drops_comes_back() {
    let (breaker, now) = half_open();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _pass = breaker.try_pass_at(now).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(outcome.is_err());
    assert_eq!(breaker.status_at(now).permits_left, 2);
}

#[test]
fn a_permit_counts_in_its_own_period_only() {
    let (breaker, now) = half_open();
    let (mut old, older) = (breaker.try_pass_at(now).unwrap(), breaker.try_pass_at(now).unwrap());
    breaker.reset();
    fail(&breaker, now, 4);
    drop(breaker.try_pass_at(2 * LONG).unwrap());
    old.record_at(2 * LONG, Outcome::Success, FAST);
    drop(older);
    let status = breaker.status_at(2 * LONG);
    assert_eq!((status.state, status.calls, status.permits_left), (BreakerState::HalfOpen, 0, 2));
    assert_eq!(status.total_unjudged, 1, "it came too late");
}

#[test]
fn a_half_open_breaker_without_a_verdict_opens_again_at_its_limit() {
    let (breaker, now) = half_open();
    let limit = clock::ticks_after(now, Duration::from_secs(60));
    let _stuck = [breaker.try_pass_at(now).unwrap(), breaker.try_pass_at(now).unwrap()];
    assert_eq!(breaker.try_pass_at(limit - 1).unwrap_err().state, BreakerState::HalfOpen);
    assert_eq!(breaker.try_pass_at(limit).unwrap_err().state, BreakerState::Open);
    let patient = Breaker::new(BreakerRules { half_open_limit: None, ..rules() }).unwrap();
    fail(&patient, 0, 4);
    let _stuck = [patient.try_pass_at(LONG).unwrap(), patient.try_pass_at(LONG).unwrap()];
    assert_eq!(patient.try_pass_at(u64::MAX / 2).unwrap_err().state, BreakerState::HalfOpen);
}

#[test]
fn the_open_time_doubles_up_to_its_cap_until_the_breaker_has_been_closed() {
    let breaker = breaker();
    let mut now = 0;
    fail(&breaker, now, 4);
    for seconds in [1, 2, 4, 4] {
        let (time, full) = (breaker.try_pass_at(now).unwrap_err().retry_in.unwrap(), Duration::from_secs(seconds));
        assert!(time > full / 2 && time <= full + Duration::from_millis(20), "{time:?} of {full:?}");
        now += LONG;
        for _ in 0..2 {
            breaker.try_pass_at(now).unwrap().record_at(now, Outcome::Failure, FAST);
        }
    }
    assert_eq!(breaker.status_at(now).openings, 5);
    now += LONG;
    for _ in 0..2 {
        breaker.try_pass_at(now).unwrap().record_at(now, Outcome::Success, FAST);
    }
    fail(&breaker, now, 4);
    assert!(breaker.try_pass_at(now).unwrap_err().retry_in.unwrap() <= Duration::from_millis(1010));
}

#[test]
fn forced_open_refuses_and_disabled_passes_whatever_happens() {
    let breaker = breaker();
    breaker.force_open();
    let refusal = breaker.try_pass_at(LONG).unwrap_err();
    assert_eq!(refusal, BreakerOpen { state: BreakerState::ForcedOpen, retry_in: None });
    breaker.disable();
    fail(&breaker, LONG, 100);
    assert!(breaker.is_closed() && !breaker.try_pass_at(LONG).unwrap().is_trial());
    breaker.reset();
    let status = breaker.status_at(LONG);
    assert_eq!((status.state, status.calls, status.total_unjudged), (BreakerState::Closed, 0, 100));
}

#[test]
fn a_reset_of_a_closed_breaker_forgets_its_calls_and_is_no_change() {
    let breaker = breaker();
    fail(&breaker, 0, 3);
    breaker.reset();
    let status = breaker.status_at(0);
    assert_eq!((status.calls, status.period, status.total_failed), (0, 0, 3));
}

#[test]
fn changed_rules_take_effect_and_wrong_ones_do_not() {
    let breaker = breaker();
    fail(&breaker, 0, 3);
    assert!(breaker.set_rules(BreakerRules { failure_rate: 2.0, ..rules() }).is_err());
    let wider = BreakerRules { slow_after: Duration::from_secs(1), minimum_calls: 3, ..rules() };
    breaker.set_rules(wider.clone()).unwrap();
    assert!(breaker.is_closed() && !breaker.is_slow(SLOW));
    assert_eq!(breaker.status_at(0).calls, 3, "the same window");
    breaker.record_at(0, Call::KINDS[0], 1);
    assert_eq!(breaker.state(), BreakerState::Open, "three of four");
    breaker.set_rules(BreakerRules { half_open_calls: 3, ..wider.clone() }).unwrap();
    let _passes: Vec<_> = (0..3).map(|_| breaker.try_pass_at(LONG).unwrap()).collect();
    breaker.set_rules(BreakerRules { half_open_calls: 4, ..wider.clone() }).unwrap();
    assert!(breaker.try_pass_at(LONG).is_err(), "this half-open time is of the rules before");
    breaker.reset();
    fail(&breaker, 0, 2);
    breaker.set_rules(BreakerRules { window: BreakerWindow::Calls(5), ..wider }).unwrap();
    assert_eq!(breaker.status_at(0).calls, 0, "another window starts empty");
}

#[test]
fn a_look_does_not_open_it() {
    let rules = BreakerRules { window: BreakerWindow::Time(Duration::from_secs(1)), minimum_calls: 1, ..rules() };
    let breaker = Breaker::new(rules).unwrap();
    breaker.record_at(0, Call::KINDS[0], 10);
    fail(&breaker, 50, 1);
    let status = breaker.status_at(120);
    assert_eq!((status.state, status.failure_rate), (BreakerState::Closed, 1.0));
    breaker.record_at(120, Call::KINDS[0], 1);
    assert_eq!(breaker.state(), BreakerState::Open, "a record does: one of two");
}

#[test]
fn each_change_is_told_once_with_its_cause() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let breaker = breaker().on_event(move |event| {
        notes.lock().unwrap_or_else(PoisonError::into_inner).push(*event);
        std::panic::resume_unwind(Box::new("a listener may panic"));
    });
    fail(&breaker, 0, 4);
    for kind in [Outcome::Success, Outcome::Success] {
        breaker.try_pass_at(LONG).unwrap().record_at(LONG, kind, FAST);
    }
    breaker.force_open();
    let events = told.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<_> = events.iter().map(|event| (event.period, event.to, event.cause)).collect();
    let expected = [
        (1, BreakerState::Open, BreakerCause::FailureRate(1.0)),
        (2, BreakerState::HalfOpen, BreakerCause::Due),
        (3, BreakerState::Closed, BreakerCause::Recovered),
        (4, BreakerState::ForcedOpen, BreakerCause::Told),
    ];
    assert_eq!(told, expected);
    let changes = breaker.status_at(LONG).changes;
    let counted: Vec<_> = changes.iter().collect();
    assert_eq!(
        counted,
        [("failure_rate", 1), ("slow_rate", 0), ("due", 1), ("recovered", 1), ("no_verdict", 0), ("told", 1)]
    );
    assert_eq!(changes.of(BreakerCause::FailureRate(0.5)), 1, "whatever the rate was");
    assert!(events[0].to_string().starts_with("the circuit breaker is open after it was closed, for "));
    assert!(events[0].to_string().ends_with(": 100.0 % of the calls failed"));
}

#[test]
fn nothing_that_threads_record_at_the_same_time_is_lost() {
    const EACH: u64 = 2000;
    let breaker = Breaker::new(BreakerRules { open_min: Duration::from_millis(10), ..rules() }).unwrap();
    let recorded: u64 = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let mut recorded = 0;
            for n in 0..EACH {
                // Each thread's own time: at least it goes on.
                match breaker.try_pass_at(n) {
                    Ok(pass) if n % 7 == thread => drop(pass),
                    Ok(mut pass) => {
                        let outcome = if n % 3 == 0 { Outcome::Failure } else { Outcome::Success };
                        pass.record_at(n, outcome, if n % 5 == 0 { SLOW } else { FAST });
                        recorded += 1;
                    }
                    Err(_) => {}
                }
            }
            recorded
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let status = breaker.status_at(EACH);
    assert_eq!(status.total_calls + status.total_unjudged, recorded, "{status:?}");
    assert!(status.period > 1, "it has opened: {status:?}");
    if status.state == BreakerState::HalfOpen {
        assert_eq!(u64::from(status.permits_left) + status.calls, 2, "nobody has a permit any more: {status:?}");
    }
}
