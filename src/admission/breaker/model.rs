//! The breaker against a reference: a state machine that keeps every call in a list, and does one thing after the other.

use proptest::prelude::*;

use super::tests::{FAST, SLOW, rules};
use super::window::{BreakerWindow, Call};
use super::*;

/// What a test does with a breaker.
#[derive(Debug, Clone)]
enum Step {
    Later(u64),
    Pass,
    /// Ends the pass that stands there, with such a call; `None`: without result.
    End(prop::sample::Index, Option<usize>),
    Record(usize, u64),
    Force(BreakerState),
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop::sample::select(vec![BreakerState::Closed, BreakerState::ForcedOpen, BreakerState::Disabled]);
    prop_oneof![
        3 => prop_oneof![0..5u64, 100..400u64].prop_map(Step::Later),
        6 => Just(Step::Pass),
        5 => (any::<prop::sample::Index>(), prop::option::weighted(0.8, 0..4usize)).prop_map(|(i, k)| Step::End(i, k)),
        3 => (0..4usize, 0..4u64).prop_map(|(kind, n)| Step::Record(kind, n)),
        1 => state.prop_map(Step::Force),
    ]
}

fn any_rules() -> impl Strategy<Value = BreakerRules> {
    let rate = || prop::sample::select(vec![0.3, 0.5, 0.75, 1.0]);
    (1..6u32, 1..6u32, rate(), rate(), 1..4u32, prop::option::of(Just(Duration::from_secs(2)))).prop_map(
        |(calls, minimum_calls, failure_rate, slow_rate, half_open_calls, half_open_limit)| BreakerRules {
            window: BreakerWindow::Calls(calls),
            minimum_calls,
            failure_rate,
            slow_rate,
            half_open_calls,
            half_open_limit,
            ..rules()
        },
    )
}

/// The reference: every call of the period in a list, every permit in a number, one thing after the other.
struct Model {
    rules: BreakerRules,
    state: BreakerState,
    period: u64,
    /// The calls of this period by which it is judged.
    calls: Vec<Call>,
    out: u32,
    since: u64,
    openings: u32,
    judged: u64,
    unjudged: u64,
    refused: u64,
}

impl Model {
    fn change(&mut self, now: u64, to: BreakerState) {
        (self.state, self.since, self.out) = (to, now, 0);
        self.period += 1;
        self.calls.clear();
        match to {
            BreakerState::Open => self.openings += 1,
            BreakerState::HalfOpen => {}
            _ => self.openings = 0,
        }
    }

    fn judge(&mut self, now: u64) {
        let size = match (self.state, self.rules.window) {
            (BreakerState::Closed, BreakerWindow::Calls(size)) => size,
            _ => self.rules.half_open_calls,
        } as usize;
        let last = &self.calls[self.calls.len().saturating_sub(size)..];
        if last.len() < size.min(self.rules.minimum_calls as usize) {
            return;
        }
        let rate = |count: usize| count as f64 / last.len() as f64;
        if rate(last.iter().filter(|call| call.failed).count()) >= self.rules.failure_rate
            || rate(last.iter().filter(|call| call.slow).count()) >= self.rules.slow_rate
        {
            self.change(now, BreakerState::Open);
        } else if self.state == BreakerState::HalfOpen {
            self.change(now, BreakerState::Closed);
        }
    }

    /// The half-open period whose permit a call gets, or a refusal.
    fn pass(&mut self, now: u64, until: u64) -> Result<Option<u64>, BreakerState> {
        match self.state {
            BreakerState::Closed | BreakerState::Disabled => return Ok(None),
            BreakerState::Open if until <= now => self.change(now, BreakerState::HalfOpen),
            BreakerState::HalfOpen if self.permits_left() == 0 => self.notice_limit(now),
            _ => {}
        }
        if self.state != BreakerState::HalfOpen || self.permits_left() == 0 {
            self.refused += 1;
            return Err(self.state);
        }
        self.out += 1;
        Ok(Some(self.period))
    }

    fn permits_left(&self) -> u32 {
        self.rules.half_open_calls - self.calls.len() as u32 - self.out
    }

    fn end(&mut self, now: u64, permit: u64, call: Option<Call>) {
        let in_time = self.state == BreakerState::HalfOpen && self.period == permit;
        self.out -= u32::from(in_time);
        match call {
            Some(call) if in_time => {
                self.judged += 1;
                self.calls.push(call);
                self.judge(now);
                self.notice_limit(now);
            }
            Some(_) => self.unjudged += 1,
            None => {}
        }
    }

    /// Whoever has a result looks whether a half-open time without verdict is over.
    fn notice_limit(&mut self, now: u64) {
        let limit = self.rules.half_open_limit.map(|limit| self.since + clock::in_ticks(limit));
        if self.state == BreakerState::HalfOpen && limit.is_some_and(|limit| limit < now) {
            self.change(now, BreakerState::Open);
        }
    }

    fn record(&mut self, now: u64, call: Call, n: u64) {
        if self.state == BreakerState::Closed {
            self.judged += n;
            self.calls.extend((0..n).map(|_| call));
            if n > 0 {
                self.judge(now);
            }
        } else {
            self.unjudged += n;
            self.notice_limit(now);
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_a_simple_state_machine_does(
        rules in any_rules(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let breaker = Breaker::new(rules.clone()).unwrap();
        let (mut now, mut passes) = (10, Vec::new());
        let mut model = Model {
            rules, state: BreakerState::Closed, period: 0, calls: Vec::new(), out: 0, since: 0, openings: 0,
            judged: 0, unjudged: 0, refused: 0,
        };
        for step in steps {
            let until = breaker.until.load(Ordering::Relaxed);
            match step {
                Step::Later(ticks) => now += ticks,
                Step::Pass => match (breaker.try_pass_at(now), model.pass(now, until)) {
                    (Ok(pass), Ok(permit)) => {
                        prop_assert_eq!(pass.period, permit);
                        passes.push(pass);
                    }
                    (Err(refusal), Err(state)) => prop_assert_eq!(refusal.state, state),
                    (ours, theirs) => prop_assert!(false, "{ours:?}, and not {theirs:?}"),
                },
                Step::End(index, kind) if !passes.is_empty() => {
                    let mut pass = passes.swap_remove(index.index(passes.len()));
                    let call = kind.map(|kind| Call::KINDS[kind]);
                    match pass.period {
                        Some(permit) => model.end(now, permit, call),
                        None => call.into_iter().for_each(|call| model.record(now, call, 1)),
                    }
                    if let Some(call) = call {
                        let outcome = if call.failed { Outcome::Failure } else { Outcome::Success };
                        pass.record_at(now, outcome, if call.slow { SLOW } else { FAST });
                    }
                }
                Step::End(..) => {}
                Step::Record(kind, n) => {
                    breaker.record_at(now, Call::KINDS[kind], n);
                    model.record(now, Call::KINDS[kind], n);
                }
                Step::Force(state) => {
                    breaker.force(now, state);
                    model.notice_limit(now);
                    if model.state != state {
                        model.change(now, state);
                    }
                    model.calls.clear();
                    model.openings = 0;
                }
            }
            prop_assert_eq!(breaker.state(), model.state);
            let opened = breaker.until.load(Ordering::Relaxed);
            if model.state == BreakerState::Open && opened != until {
                let full = clock::in_ticks(Duration::from_secs(1 << (model.openings - 1).min(2)));
                let range = now + full / 2 + 1..=now + full + 1;
                prop_assert!(range.contains(&opened), "until {opened}, and not in {range:?}");
            }
        }
        drop(passes);
        let status = breaker.status_at(now);
        prop_assert_eq!(status.period, breaker.word().period());
        prop_assert_eq!((status.total_calls, status.total_unjudged), (model.judged, model.unjudged));
        prop_assert_eq!(status.total_refused, model.refused);
    }
}
