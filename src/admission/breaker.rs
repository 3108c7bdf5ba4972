//! The circuit breaker: what fails too often, or takes too long, is left alone for a while, and then tried with a few calls.
//!
//! The states are those of resilience4j: closed, open, half-open, and by command forced open and disabled.
//!
//! **One word says it all to those who pass**: the state, the number of the period (each change of state begins one), and
//! of a half-open period how many permits are left and how the calls went that had one. It changes by exchange only. So
//! no more calls get a permit than there are, each permit counts once or is given back once, in its own period and in no
//! later one, and each change of state happens once. The passing of a closed breaker costs one relaxed load.
//!
//! **The rest is under a lock**, for which nobody waits who allocates or releases: the window of a closed breaker, the rules,
//! and every change but that from open to half-open, which is the first permit's own. Who has a result adds it to the
//! mail, sets `pending`, and tries the lock; whoever holds it looks at `pending` after unlocking, takes the mail in, and
//! judges. No call is lost by it. What is lost: the order of calls that ended while the lock was held (of such a batch
//! successes count as earlier than failures, fast calls as earlier than slow ones), and the time in between, to their
//! window. A thread that is stopped with the lock delays judgement, and nobody who passes; in a half-open period whose permits
//! are used up that means refusals.
//!
//! **Successes come in numbers.** Whoever uses a breaker on a hot path counts its successes elsewhere, and records how many
//! there were ([`Breaker::record_successes`]) before it records a failure. A window judges after each record, so a run of
//! successes is judged at its end.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::breaker_rules::{BreakerRules, MOST_PERMITS, RuleError, Verdict};
use super::window::{Call, Tally, Window};
use crate::clock;
use crate::sync::atomic::fence;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::tier::values::dispose;

/// What a [`Breaker`] does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Lets all pass, and judges them.
    Closed,
    /// Lets all pass, and judges none, until told otherwise.
    Disabled,
    /// Refuses all, for a time.
    Open,
    /// Lets some pass, by which it decides whether to close or to open again.
    HalfOpen,
    /// Refuses all, until told otherwise.
    ForcedOpen,
}

impl BreakerState {
    const ALL: [BreakerState; 5] = [
        BreakerState::Closed,
        BreakerState::Disabled,
        BreakerState::Open,
        BreakerState::HalfOpen,
        BreakerState::ForcedOpen,
    ];
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BreakerState::Closed => "closed",
            BreakerState::Disabled => "disabled",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
            BreakerState::ForcedOpen => "forced open",
        })
    }
}

/// How a call went that a [`Breaker`] judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// It failed.
    Failure,
}

/// State in the low bits, then of a half-open period the permits left, the calls that have ended with a permit, and how many of
/// these failed and were slow; the number of the period above. Of an open period the permits are those of the next one.
///
/// A number of 33 bits: periods of half a second, one after the other, use them up in 68 years.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const STATE_BITS: u32 = 3;
const COUNT_BITS: u32 = 7;
const LEFT: u32 = STATE_BITS;
const DONE: u32 = LEFT + COUNT_BITS;
const FAILED: u32 = DONE + COUNT_BITS;
const SLOW: u32 = FAILED + COUNT_BITS;
const PERIOD: u32 = SLOW + COUNT_BITS;
const _: () = assert!(MOST_PERMITS < 1 << COUNT_BITS);

impl Word {
    fn state(self) -> BreakerState {
        BreakerState::ALL[(self.0 & ((1 << STATE_BITS) - 1)) as usize]
    }

    fn period(self) -> u64 {
        self.0 >> PERIOD
    }

    fn count(self, shift: u32) -> u32 {
        (self.0 >> shift) as u32 & ((1 << COUNT_BITS) - 1)
    }

    /// Permits left.
    fn left(self) -> u32 {
        self.count(LEFT)
    }

    /// The calls that have ended with a permit.
    fn tally(self) -> Tally {
        Tally {
            calls: u64::from(self.count(DONE)),
            failed: u64::from(self.count(FAILED)),
            slow: u64::from(self.count(SLOW)),
        }
    }

    /// The next period, with so many permits.
    fn next(self, state: BreakerState, permits: u32) -> Word {
        Word((self.0 >> PERIOD).wrapping_add(1) << PERIOD | u64::from(permits) << LEFT | state as u64)
    }

    /// One permit taken.
    fn permit_taken(self) -> Word {
        Word(self.0 - (1 << LEFT))
    }

    /// One permit given back.
    fn permit_back(self) -> Word {
        Word(self.0 + (1 << LEFT))
    }

    /// One permit used.
    fn ended(self, call: Call) -> Word {
        Word(self.0 + (1 << DONE) + (u64::from(call.failed) << FAILED) + (u64::from(call.slow) << SLOW))
    }

    /// Whether all pass.
    fn is_closed(self) -> bool {
        self.0 & ((1 << STATE_BITS) - 1) <= BreakerState::Disabled as u64
    }

    /// Whether a permit of that period still counts.
    fn is_half_open_in(self, period: u64) -> bool {
        self.state() == BreakerState::HalfOpen && self.period() == period
    }
}

type Sink = Box<dyn Fn(&BreakerEvent) + Send + Sync>;

/// See the module's header.
struct Cold {
    rules: BreakerRules,
    window: Window,
    /// How often it has opened since it was last closed.
    openings: u32,
    /// How many permits the last open period was given for the half-open one.
    permits: u32,
    /// The calls that were judged, but for those in the word.
    judged: Tally,
    /// The calls that were not: they ended while all were refused or none judged, or came too late for their permit.
    unjudged: u64,
}

/// Lets calls pass while they go well, and refuses them for a time when too many of the last ones failed or were slow.
///
/// [`is_closed`](Breaker::is_closed) is one relaxed load; a caller for whom that is true need not ask further, and records its
/// result with [`record`](Breaker::record), or its successes by the thousand with
/// [`record_successes`](Breaker::record_successes). Others ask for a [`Pass`]. No call but those that say so waits for
/// another thread, and no call but those that say so allocates memory.
///
/// The states, the windows and the rates are those of resilience4j.
///
/// ```
/// use std::time::Duration;
/// use tierpool::{Breaker, BreakerRules, BreakerState, BreakerWindow, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = Breaker::new(BreakerRules { window: BreakerWindow::Calls(4), ..BreakerRules::default() })?;
/// breaker.record_successes(1000);
/// for _ in 0..2 {
///     breaker.try_pass()?.record(Outcome::Failure, Duration::from_millis(5));
/// }
/// assert_eq!(breaker.state(), BreakerState::Open, "two of the last four calls failed");
/// let refusal = breaker.try_pass().unwrap_err();
/// assert!(refusal.retry_in.unwrap() <= Duration::from_millis(1020));
/// # Ok(()) }
/// ```
pub struct Breaker {
    word: CachePadded<AtomicU64>,
    /// Of an open period, the tick from which on a call may pass. Written before the word.
    until: AtomicU64,
    /// The tick at which the last half-open period began, or one that a call read that would have begun it. Written
    /// before the word.
    since: AtomicU64,
    /// Nanoseconds after which a call is slow.
    slow_after: AtomicU64,
    /// Calls that have ended and that nobody has taken in yet, by [`Call::kind`].
    mail: [AtomicU64; 4],
    /// Whoever has the lock shall take in the mail, and judge, after it.
    pending: AtomicBool,
    /// Calls that ended too late for their permit, and that nobody has taken in yet.
    late: AtomicU64,
    refused: AtomicU64,
    cold: Mutex<Cold>,
    sink: Option<Sink>,
}

impl Breaker {
    /// A closed breaker. Allocates its window.
    ///
    /// # Errors
    /// A rule that cannot hold: [`BreakerRules::check`].
    pub fn new(rules: BreakerRules) -> Result<Self, RuleError> {
        rules.check()?;
        clock::init();
        Ok(Breaker {
            word: CachePadded::new(AtomicU64::new(BreakerState::Closed as u64)),
            until: AtomicU64::new(0),
            since: AtomicU64::new(0),
            slow_after: AtomicU64::new(nanos(rules.slow_after)),
            mail: std::array::from_fn(|_| AtomicU64::new(0)),
            pending: AtomicBool::new(false),
            late: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cold: Mutex::new(Cold {
                window: Window::new(rules.window),
                openings: 0,
                permits: 0,
                judged: Tally::default(),
                unjudged: 0,
                rules,
            }),
            sink: None,
        })
    }

    /// Whom each change of state is told: called by the thread that made it, after it, without a lock. So two may come
    /// in either order; [`BreakerEvent::period`] tells. What it panics with is dropped.
    pub fn on_event(mut self, sink: impl Fn(&BreakerEvent) + Send + Sync + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Whether all calls pass: it is closed, or disabled. One relaxed load.
    #[inline]
    pub fn is_closed(&self) -> bool {
        Word(self.word.load(Ordering::Relaxed)).is_closed()
    }

    /// What it does now. One load.
    pub fn state(&self) -> BreakerState {
        self.word().state()
    }

    /// Whether a call that took so long is slow. One relaxed load.
    pub fn is_slow(&self, took: Duration) -> bool {
        nanos(took) > self.slow_after.load(Ordering::Relaxed)
    }

    /// Lets a call pass, if it may. One load while it is closed or disabled; a look at the clock while it is not. The first
    /// call after an open time makes it half-open.
    ///
    /// # Errors
    /// It is open, or half-open with all permits given.
    pub fn try_pass(&self) -> Result<Pass<'_>, BreakerOpen> {
        if self.is_closed() {
            return Ok(Pass { breaker: self, period: None });
        }
        self.try_pass_at(now())
    }

    /// Records how a call went that was let pass because the breaker was closed. While the breaker is not, it is counted as
    /// unjudged. A look at the clock, a few atomic additions, and most often the steps of the window.
    pub fn record(&self, outcome: Outcome, took: Duration) {
        self.record_at(now(), self.call(outcome, took), 1);
    }

    /// Records `n` fast successes at once. Whoever then records a failure or a slow call has them judged before it.
    pub fn record_successes(&self, n: u64) {
        self.record_at(now(), Call::KINDS[0], n);
    }

    /// Refuses all calls from now on, until [`reset`](Breaker::reset) or [`disable`](Breaker::disable). May wait for the lock.
    pub fn force_open(&self) {
        self.force(now(), BreakerState::ForcedOpen);
    }

    /// Lets all calls pass from now on and judges none, until [`reset`](Breaker::reset) or
    /// [`force_open`](Breaker::force_open). May wait for the lock.
    pub fn disable(&self) {
        self.force(now(), BreakerState::Disabled);
    }

    /// Closes it, whatever its state, with an empty window and the shortest open time next. May wait for the lock.
    pub fn reset(&self) {
        self.force(now(), BreakerState::Closed);
    }

    /// Goes by other rules from now on. What is in the window stays there, unless the window itself is another: then
    /// it starts empty. An open time that runs is not changed. May wait for the lock, and allocate a window.
    ///
    /// # Errors
    /// A rule that cannot hold; the old rules stand.
    pub fn set_rules(&self, rules: BreakerRules) -> Result<(), RuleError> {
        rules.check()?;
        let now = now();
        let mut cold = self.lock();
        let event = self.settle(&mut cold, now);
        if rules.window != cold.rules.window {
            cold.window = Window::new(rules.window);
        }
        self.slow_after.store(nanos(rules.slow_after), Ordering::Relaxed);
        let word = self.word();
        let changed = Word(word.0 & !(u64::from(MOST_PERMITS) << LEFT) | u64::from(rules.half_open_calls) << LEFT);
        // If the exchange fails, the first permit was quicker: the half-open period is of the old rules.
        if word.state() == BreakerState::Open && self.exchange(word, changed).is_ok() {
            cold.permits = rules.half_open_calls;
        }
        cold.rules = rules;
        drop(cold);
        self.tell(event);
        self.look_after(now);
        Ok(())
    }

    /// How it stands, with all that was recorded taken in. May wait for the lock.
    pub fn status(&self) -> BreakerStatus {
        self.status_at(now())
    }

    fn call(&self, outcome: Outcome, took: Duration) -> Call {
        Call { failed: outcome == Outcome::Failure, slow: self.is_slow(took) }
    }

    /// Acquire: pairs with the Release in `exchange`; who sees a period sees `until` and `since` as of its beginning or later.
    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Acquire as in `word`. Release: what the period goes by was written before.
    fn exchange(&self, old: Word, new: Word) -> Result<(), Word> {
        self.word.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(Word)
    }

    fn try_pass_at(&self, now: u64) -> Result<Pass<'_>, BreakerOpen> {
        let mut word = self.word();
        let mut looked = false;
        loop {
            let next = match word.state() {
                BreakerState::Closed | BreakerState::Disabled => return Ok(Pass { breaker: self, period: None }),
                BreakerState::Open if self.until.load(Ordering::Relaxed) <= now => {
                    // The largest wins, so that a call that was late for an earlier period changes nothing.
                    self.since.fetch_max(now, Ordering::Relaxed);
                    word.next(BreakerState::HalfOpen, word.left()).permit_taken()
                }
                BreakerState::HalfOpen if word.left() > 0 => word.permit_taken(),
                BreakerState::HalfOpen if !looked => {
                    // Its time may be over.
                    looked = true;
                    self.attend(now);
                    word = self.word();
                    continue;
                }
                state => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(BreakerOpen { state, retry_in: self.retry_in(state, now) });
                }
            };
            match self.exchange(word, next) {
                Ok(()) => {
                    if word.state() == BreakerState::Open {
                        self.tell(Some(BreakerEvent::new(word, next, BreakerCause::Due, None)));
                    }
                    return Ok(Pass { breaker: self, period: Some(next.period()) });
                }
                Err(seen) => word = seen,
            }
        }
    }

    fn retry_in(&self, state: BreakerState, now: u64) -> Option<Duration> {
        (state == BreakerState::Open).then(|| clock::time_between(now, self.until.load(Ordering::Relaxed)))
    }

    fn record_at(&self, now: u64, call: Call, n: u64) {
        // Release: pairs with the Acquire in `settle`; who finds a failure finds the successes that were recorded before it.
        self.mail[call.kind()].fetch_add(n, Ordering::Release);
        self.attend(now);
    }

    /// Counts the result of a call with a permit, if its period lasts.
    fn use_permit(&self, now: u64, period: u64, call: Call) {
        if self.change_permit(period, |word| word.ended(call)) {
            self.attend(now);
        } else {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// False if the permit's period is over.
    fn change_permit(&self, period: u64, change: impl Fn(Word) -> Word) -> bool {
        let mut word = self.word();
        while word.is_half_open_in(period) {
            match self.exchange(word, change(word)) {
                Ok(()) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    fn force(&self, now: u64, to: BreakerState) {
        let mut cold = self.lock();
        let first = self.settle(&mut cold, now);
        let mut word = self.word();
        let mut second = None;
        while word.state() != to {
            let next = word.next(to, 0);
            match self.exchange(word, next) {
                Ok(()) => {
                    cold.judged.add_all(word.tally());
                    second = Some(BreakerEvent::new(word, next, BreakerCause::Told, None));
                    break;
                }
                Err(seen) => word = seen,
            }
        }
        cold.window.clear();
        cold.openings = 0;
        drop(cold);
        self.tell(first);
        self.tell(second);
        self.look_after(now);
    }

    fn status_at(&self, now: u64) -> BreakerStatus {
        let mut cold = self.lock();
        let event = self.settle(&mut cold, now);
        let word = self.word();
        let state = word.state();
        let calls = match state {
            BreakerState::HalfOpen => word.tally(),
            _ => cold.window.tally(now),
        };
        let mut judged = cold.judged;
        judged.add_all(word.tally());
        let status = BreakerStatus {
            state,
            period: word.period(),
            calls: calls.calls,
            failure_rate: calls.failure_rate(),
            slow_rate: calls.slow_rate(),
            retry_in: self.retry_in(state, now),
            permits_left: if state == BreakerState::HalfOpen { word.left() } else { 0 },
            openings: cold.openings,
            total_calls: judged.calls,
            total_failed: judged.failed,
            total_slow: judged.slow,
            total_unjudged: cold.unjudged,
            total_refused: self.refused.load(Ordering::Relaxed),
        };
        drop(cold);
        self.tell(event);
        self.look_after(now);
        status
    }

    /// No user code runs under the lock, so a panic cannot have left anything half changed.
    fn lock(&self) -> MutexGuard<'_, Cold> {
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Cold>> {
        match self.cold.try_lock() {
            Ok(cold) => Some(cold),
            Err(TryLockError::Poisoned(cold)) => Some(cold.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has somebody take in what has been recorded, and judge.
    fn attend(&self, now: u64) {
        // Release: pairs with the Acquire in `settle`; whoever settles sees what was recorded. An exchange, so that it sees
        // what all recorded who came before.
        self.pending.swap(true, Ordering::Release);
        self.look_after(now);
    }

    /// To be called after every unlocking.
    fn look_after(&self, now: u64) {
        loop {
            // SeqCst fence: pairs with itself in another thread. One sets `pending` and then finds the lock held, the other
            // unlocks and then looks at `pending`: not both miss the other.
            fence(Ordering::SeqCst);
            if !self.pending.load(Ordering::Relaxed) {
                return;
            }
            let Some(mut cold) = self.try_lock() else { return };
            let event = self.settle(&mut cold, now);
            drop(cold);
            self.tell(event);
        }
    }

    /// Under the lock: takes in the mail, judges, and changes the state if that says so.
    fn settle(&self, cold: &mut Cold, now: u64) -> Option<BreakerEvent> {
        // Acquire: see `attend`.
        self.pending.swap(false, Ordering::Acquire);
        let mut word = self.word();
        let mut mail = [0; 4];
        // Failures are taken first and judged last, so that none is judged without the successes that came before it.
        for (kind, n) in mail.iter_mut().enumerate().rev() {
            // Acquire: see `record_at`.
            *n = self.mail[kind].swap(0, Ordering::Acquire);
        }
        cold.unjudged += self.late.swap(0, Ordering::Relaxed);
        if word.state() == BreakerState::Closed && mail == [0; 4] {
            return None; // a look at a window that time has changed is no reason to open
        }
        for (call, n) in Call::KINDS.into_iter().zip(mail).filter(|&(_, n)| n > 0) {
            if word.state() == BreakerState::Closed {
                cold.window.record(now, call, n);
                cold.judged.add(call, n);
            } else {
                cold.unjudged += n;
            }
        }
        loop {
            let (to, cause) = self.decide(cold, word, now)?;
            let (mut permits, mut open_time) = (0, None);
            if to == BreakerState::Open {
                permits = cold.rules.half_open_calls;
                let pause = cold.rules.open_time(cold.openings.saturating_add(1));
                self.until.store(clock::ticks_after(now, pause), Ordering::Relaxed);
                open_time = Some(pause);
            }
            let next = word.next(to, permits);
            match self.exchange(word, next) {
                Ok(()) => {
                    cold.judged.add_all(word.tally());
                    cold.window.clear();
                    cold.permits = permits;
                    cold.openings = if to == BreakerState::Open { cold.openings.saturating_add(1) } else { 0 };
                    return Some(BreakerEvent::new(word, next, cause, open_time));
                }
                // Another call with a permit has ended, or has given it back.
                Err(seen) => word = seen,
            }
        }
    }

    /// To what state to change, and why.
    fn decide(&self, cold: &mut Cold, word: Word, now: u64) -> Option<(BreakerState, BreakerCause)> {
        let verdict = match word.state() {
            BreakerState::Closed => cold.rules.judge(cold.window.tally(now), cold.rules.enough_when_closed())?,
            BreakerState::HalfOpen => {
                let enough = cold.rules.minimum_calls.min(cold.permits);
                match cold.rules.judge(word.tally(), enough) {
                    Some(verdict) => verdict,
                    None => {
                        let limit = clock::ticks_after(self.since.load(Ordering::Relaxed), cold.rules.half_open_limit?);
                        return (limit <= now).then_some((BreakerState::Open, BreakerCause::NoVerdict));
                    }
                }
            }
            _ => return None,
        };
        match verdict {
            Verdict::Failing(rate) => Some((BreakerState::Open, BreakerCause::FailureRate(rate))),
            Verdict::Slow(rate) => Some((BreakerState::Open, BreakerCause::SlowRate(rate))),
            Verdict::Sound if word.state() == BreakerState::HalfOpen => {
                Some((BreakerState::Closed, BreakerCause::Recovered))
            }
            Verdict::Sound => None,
        }
    }

    /// Without the lock.
    fn tell(&self, event: Option<BreakerEvent>) {
        if let (Some(sink), Some(event)) = (&self.sink, event)
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| sink(&event)))
        {
            dispose(panic);
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("Breaker").field("state", &word.state()).field("period", &word.period()).finish_non_exhaustive()
    }
}

/// The time, on a path that has become slow already.
fn now() -> u64 {
    clock::tick();
    clock::ticks()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A call that was let pass. Dropped without a result, it counts for nothing, and gives back the permit that it had of a
/// half-open breaker; so does one that is dropped by a panic.
#[derive(Debug)]
#[must_use = "a pass that is dropped without a result counts for nothing"]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    /// The half-open period whose permit it has.
    period: Option<u64>,
}

impl Pass<'_> {
    /// Records how the call went. One with a permit that ends after the half-open time was over is counted as unjudged.
    pub fn record(mut self, outcome: Outcome, took: Duration) {
        self.record_at(now(), outcome, took);
    }

    fn record_at(&mut self, now: u64, outcome: Outcome, took: Duration) {
        let call = self.breaker.call(outcome, took);
        match self.period.take() {
            Some(period) => self.breaker.use_permit(now, period, call),
            None => self.breaker.record_at(now, call, 1),
        }
    }

    /// Whether it is one of the few by which a half-open breaker decides. Such a call should record its result even if
    /// others are counted elsewhere.
    pub fn is_trial(&self) -> bool {
        self.period.is_some()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(period) = self.period {
            self.breaker.change_permit(period, Word::permit_back);
        }
    }
}

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

/// A change of a [`Breaker`]'s state.
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

impl BreakerEvent {
    fn new(from: Word, to: Word, cause: BreakerCause, open_time: Option<Duration>) -> Self {
        BreakerEvent { from: from.state(), to: to.state(), cause, period: to.period(), open_time }
    }
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

/// What changes a [`Breaker`]'s state.
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

/// How a [`Breaker`] stands.
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
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::super::window::BreakerWindow;
    use super::*;

    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_millis(101);
    /// Ticks that no time in these tests exceeds.
    const LONG: u64 = 1_000_000;

    /// Judges by four calls, opens for a second at first and for four at most, tries with two calls.
    fn rules() -> BreakerRules {
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
                BreakerState::HalfOpen if self.out + self.calls.len() as u32 == self.rules.half_open_calls => {
                    if self.rules.half_open_limit.is_some_and(|limit| self.since + clock::in_ticks(limit) < now) {
                        self.change(now, BreakerState::Open);
                    }
                }
                _ => {}
            }
            if self.state != BreakerState::HalfOpen || self.out + self.calls.len() as u32 == self.rules.half_open_calls
            {
                self.refused += 1;
                return Err(self.state);
            }
            self.out += 1;
            Ok(Some(self.period))
        }

        fn end(&mut self, now: u64, permit: u64, call: Option<Call>) {
            let in_time = self.state == BreakerState::HalfOpen && self.period == permit;
            self.out -= u32::from(in_time);
            match call {
                Some(call) if in_time => {
                    self.judged += 1;
                    self.calls.push(call);
                    self.judge_half_open(now);
                }
                Some(_) => self.unjudged += 1,
                None => {}
            }
        }

        /// A result is also an occasion on which the limit is noticed.
        fn judge_half_open(&mut self, now: u64) {
            self.judge(now);
            self.notice_limit(now);
        }

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
}
