//! The circuit breaker: each change happens once, no call that was recorded is lost, and permits are exact.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tierpool::{Breaker, BreakerRules, BreakerState, BreakerWindow, Outcome, internals};
use tierpool_loom::{explore, spawn};

/// A tick by which every open time and every half-open limit here is over, if it began at the start.
const LATER: u32 = 1000;
/// Shorter than any call that is slow here.
const FAST: Duration = Duration::ZERO;
const SLOW: Duration = Duration::from_secs(1);

/// Judges by two calls, opens if both failed, tries with one call.
fn rules() -> BreakerRules {
    BreakerRules {
        window: BreakerWindow::Calls(2),
        failure_rate: 1.0,
        slow_after: Duration::from_millis(100),
        half_open_calls: 1,
        half_open_limit: Some(Duration::from_secs(1)),
        ..BreakerRules::default()
    }
}

/// A breaker, and how many changes it has told. Plain `std` atomics: they are the observer's, and no part of the model.
#[derive(Clone)]
struct Watched {
    breaker: Arc<Breaker>,
    changes: Arc<AtomicUsize>,
}

impl Watched {
    fn new(rules: BreakerRules) -> Self {
        let changes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&changes);
        let breaker = Breaker::new(rules).unwrap().on_event(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Watched { breaker: Arc::new(breaker), changes }
    }

    /// One that is open, and whose open time is over.
    fn due(rules: BreakerRules) -> Self {
        let watched = Watched::new(rules);
        watched.fail();
        watched.fail();
        internals::set_clock(LATER);
        watched
    }

    fn fail(&self) {
        self.breaker.record(Outcome::Failure, FAST);
    }

    /// A thread with this breaker.
    fn spawn<R: 'static>(&self, body: impl FnOnce(&Watched) -> R + 'static) -> loom::thread::JoinHandle<R> {
        let watched = self.clone();
        spawn(move || body(&watched))
    }

    /// At a quiet point, before anything else looks: the state, which has changed so often.
    fn assert_state(&self, state: BreakerState, changes: usize) {
        assert_eq!(self.breaker.state(), state, "nobody has judged what was recorded");
        assert_eq!(self.changes.load(Ordering::Relaxed), changes, "each change is told once");
        assert_eq!(self.breaker.status().period, changes as u64, "each change happens once");
    }
}

/// Two failures, either of which finds the lock held by the other: together they open the breaker, once.
///
/// Guards `pending`: set before the lock is tried (`Breaker::attend`), looked at after each unlocking, with a fence between
/// (`Breaker::look_after`).
#[test]
fn racing_failures_open_it_once() {
    explore(3, || {
        let watched = Watched::new(rules());
        let other = watched.spawn(Watched::fail);
        watched.fail();
        other.join().unwrap();
        watched.assert_state(BreakerState::Open, 1);
        assert_eq!(watched.breaker.status().total_failed, 2);
    });
}

/// Calls of the same kind are recorded while the mail is taken in, and after the breaker has opened: each is counted.
///
/// Guards the exchange by which `Breaker::settle` takes the mail.
#[test]
fn nothing_recorded_is_lost() {
    explore(2, || {
        let watched = Watched::new(rules());
        let other = watched.spawn(|watched| {
            watched.fail();
            watched.fail();
        });
        watched.fail();
        watched.breaker.record(Outcome::Success, SLOW);
        other.join().unwrap();
        let status = watched.breaker.status();
        assert_eq!(status.total_calls + status.total_unjudged, 4, "{status:?}");
    });
}

/// A failure is recorded after the successes before it, while another thread takes in the mail: it is not judged without
/// them.
///
/// Guards that `Breaker::settle` takes failures before successes.
#[test]
fn a_failure_is_not_judged_without_its_successes() {
    explore(3, || {
        let watched = Watched::new(BreakerRules { minimum_calls: 1, ..rules() });
        let other = watched.spawn(|watched| {
            watched.breaker.record_successes(1);
            watched.fail();
        });
        watched.breaker.status();
        other.join().unwrap();
        watched.assert_state(BreakerState::Closed, 0);
        assert_eq!(watched.breaker.status().calls, 2);
    });
}

/// A call against the failure that opens the breaker: it passes before, or is refused, and is never taken for the first
/// after the open time.
///
/// Guards that `Breaker::settle` writes `until` before the word, and the orderings of `Breaker::exchange` and of
/// `Breaker::word`.
#[test]
fn an_open_time_stands_when_the_breaker_opens() {
    explore(3, || {
        internals::set_clock(LATER);
        let watched = Watched::new(BreakerRules { minimum_calls: 1, ..rules() });
        let other = watched.spawn(Watched::fail);
        match watched.breaker.try_pass() {
            Ok(pass) => assert!(!pass.is_trial(), "the breaker has just opened"),
            Err(refusal) => assert!(refusal.retry_in.unwrap() > Duration::ZERO),
        }
        other.join().unwrap();
        watched.assert_state(BreakerState::Open, 1);
    });
}

/// Two calls come when the open time is over, and there is one permit: one has it at a time, and it is back in the end.
///
/// Guards the exchange of the word in `Breaker::exchange`, and that a dropped `Pass` gives its permit back.
#[test]
fn half_open_permits_are_exact_and_come_back() {
    explore(3, || {
        let watched = Watched::due(rules());
        let inside = Arc::new(AtomicUsize::new(0));
        let visit = move |watched: &Watched| {
            let Ok(pass) = watched.breaker.try_pass() else { return };
            assert!(pass.is_trial());
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two have the only permit");
            watched.breaker.state(); // another thread may come in between
            inside.fetch_sub(1, Ordering::Relaxed);
        };
        let other = watched.spawn(visit.clone());
        visit(&watched);
        other.join().unwrap();
        watched.assert_state(BreakerState::HalfOpen, 2);
        assert_eq!(watched.breaker.status().permits_left, 1);
    });
}

/// The first call of a half-open time against one that finds no permit left: that one does not think that the time is over.
///
/// Guards that `Breaker::try_pass_at` writes `since` before the word, and the Release of `Breaker::exchange`.
#[test]
fn a_half_open_time_has_begun_when_the_breaker_is_half_open() {
    explore(3, || {
        let watched = Watched::due(rules());
        let other = watched.spawn(|watched| watched.breaker.try_pass().map(std::mem::forget).is_ok());
        let passed = watched.breaker.try_pass().map(std::mem::forget).is_ok();
        assert!(passed != other.join().unwrap(), "one of them has the permit");
        watched.assert_state(BreakerState::HalfOpen, 2);
    });
}

/// Two calls with permits end at once, both well: the breaker closes, once.
///
/// Guards the exchange of the word in `Breaker::exchange`: no result is lost, and none counts twice.
#[test]
fn racing_trials_close_it_once() {
    explore(3, || {
        let watched = Watched::due(BreakerRules { half_open_calls: 2, ..rules() });
        let call = |watched: &Watched| watched.breaker.try_pass().unwrap().record(Outcome::Success, FAST);
        let other = watched.spawn(call);
        call(&watched);
        other.join().unwrap();
        watched.assert_state(BreakerState::Closed, 3);
        assert_eq!(watched.breaker.status().total_calls, 4);
    });
}

/// A permit is given back, or used, while another call opens the breaker again and the next half-open time begins: it does
/// not count in that.
///
/// Guards the look at the period in `Breaker::change_permit`.
#[test]
fn a_permit_is_of_one_period() {
    explore(3, || {
        let watched = Watched::due(BreakerRules { half_open_calls: 2, minimum_calls: 1, ..rules() });
        let late = watched.spawn(|watched| {
            let Ok(pass) = watched.breaker.try_pass() else { return };
            watched.breaker.state(); // another thread may come in between
            drop(pass);
        });
        watched.breaker.try_pass().unwrap().record(Outcome::Failure, FAST);
        internals::set_clock(2 * LATER);
        let pass = watched.breaker.try_pass();
        late.join().unwrap();
        let status = watched.breaker.status();
        assert_eq!(status.permits_left + u32::from(pass.is_ok()), 2, "{status:?}");
    });
}

/// A command against the first call after the open time: both changes happen, in either order, or the command's alone.
///
/// Guards the exchange of the word in `Breaker::exchange`, from the command's side.
#[test]
fn a_command_against_the_first_permit() {
    explore(3, || {
        let watched = Watched::due(rules());
        let other = watched.spawn(|watched| {
            if let Ok(pass) = watched.breaker.try_pass() {
                pass.record(Outcome::Failure, FAST);
            }
        });
        watched.breaker.force_open();
        other.join().unwrap();
        let changes = watched.changes.load(Ordering::Relaxed);
        watched.assert_state(BreakerState::ForcedOpen, changes);
        let status = watched.breaker.status();
        assert!(status.total_calls + status.total_unjudged <= 3, "{status:?}");
    });
}
