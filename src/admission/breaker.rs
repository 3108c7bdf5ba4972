//! The circuit breaker: what fails too often, or takes too long, is left alone for a while, and then tried with a few calls.
//!
//! The states are those of resilience4j: closed, open, half-open, and by command forced open and disabled. [`rules`] says when
//! it changes its state, [`window`] what it looks back on, [`word`] how the state is kept, [`report`] what it tells;
//! [`factory`] puts one around a factory.
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

pub(crate) mod factory;
#[cfg(all(test, not(loom)))]
mod model;
pub(crate) mod report;
pub(crate) mod rules;
#[cfg(all(test, not(loom)))]
mod tests;
pub(crate) mod window;
pub(crate) mod word;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use self::report::{BreakerCause, BreakerChanges, BreakerEvent, BreakerOpen, BreakerStatus};
use self::rules::{BreakerRules, RuleError, Verdict};
use self::window::{Call, Tally, Window};
use self::word::{BreakerState, Word};
use crate::clock;
use crate::sync::atomic::fence;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::tier::values::dispose;

/// How a call went that a [`Breaker`] judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// It failed.
    Failure,
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
    /// Changes of state, by cause.
    changes: [AtomicU64; 6],
    cold: Mutex<Cold>,
    sink: Option<Sink>,
    /// The tier that it guards, if it does.
    tier: Option<&'static str>,
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
            word: CachePadded::new(AtomicU64::new(Word::NEW.bits())),
            until: AtomicU64::new(0),
            since: AtomicU64::new(0),
            slow_after: AtomicU64::new(nanos(rules.slow_after)),
            mail: std::array::from_fn(|_| AtomicU64::new(0)),
            pending: AtomicBool::new(false),
            late: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            changes: std::array::from_fn(|_| AtomicU64::new(0)),
            cold: Mutex::new(Cold {
                window: Window::new(rules.window),
                openings: 0,
                permits: 0,
                judged: Tally::default(),
                unjudged: 0,
                rules,
            }),
            sink: None,
            tier: None,
        })
    }

    /// Whom each change of state is told: called by the thread that made it, after it, without a lock. So two may come
    /// in either order; [`BreakerEvent::period`] tells. What it panics with is dropped.
    pub fn on_event(mut self, sink: impl Fn(&BreakerEvent) + Send + Sync + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Guards the tier of that name, and says so.
    pub(crate) fn of_tier(mut self, name: &'static str) -> Self {
        self.tier = Some(name);
        self
    }

    /// Whether all calls pass: it is closed, or disabled. One relaxed load.
    #[inline]
    pub fn is_closed(&self) -> bool {
        Word::from_bits(self.word.load(Ordering::Relaxed)).is_closed()
    }

    /// What it does now. One load.
    pub fn state(&self) -> BreakerState {
        self.word().state()
    }

    /// Whether it would refuse a call now, forced to or since its open time is not over.
    pub(crate) fn is_shut(&self) -> bool {
        match self.state() {
            BreakerState::ForcedOpen => true,
            BreakerState::Open => self.until.load(Ordering::Relaxed) > now(),
            _ => false,
        }
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
    #[inline]
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

    /// Records `n` fast successes at once; more than 2⁴⁸ count as so many. Whoever then records a failure or a slow call has
    /// them judged before it.
    pub fn record_successes(&self, n: u64) {
        self.record_at(now(), Call::KINDS[0], n.min(1 << 48));
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
        // If the exchange fails, the first permit was quicker: the half-open period is of the old rules.
        if word.state() == BreakerState::Open && self.exchange(word, word.with_permits(rules.half_open_calls)).is_ok() {
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
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Acquire as in `word`. Release: what the period goes by was written before.
    fn exchange(&self, old: Word, new: Word) -> Result<(), Word> {
        let outcome = self.word.compare_exchange(old.bits(), new.bits(), Ordering::AcqRel, Ordering::Acquire);
        outcome.map(drop).map_err(Word::from_bits)
    }

    #[cold]
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
                        self.tell(Some(event(word, next, BreakerCause::Due, None)));
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
                    second = Some(event(word, next, BreakerCause::Told, None));
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
            changes: BreakerChanges(self.changes.each_ref().map(|count| count.load(Ordering::Relaxed))),
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
                    return Some(event(word, next, cause, open_time));
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

    /// An event of `tracing`: a warning if calls are refused from now on, information otherwise.
    #[cfg(feature = "tracing")]
    fn trace(&self, event: &BreakerEvent) {
        let write = || {
            let (tier, state) = (self.tier.map(tracing::field::display), tracing::field::display(event.to));
            match event.to {
                BreakerState::Open | BreakerState::ForcedOpen => {
                    tracing::warn!(target: "tierpool", kind = "breaker", tier, state, "{event}");
                }
                _ => tracing::info!(target: "tierpool", kind = "breaker", tier, state, "{event}"),
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(write)) {
            dispose(panic);
        }
    }

    /// Without the lock.
    fn tell(&self, event: Option<BreakerEvent>) {
        let Some(event) = event else { return };
        self.changes[event.cause.index()].fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        self.trace(&event);
        if let Some(sink) = &self.sink
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| sink(&event)))
        {
            dispose(panic);
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("Breaker")
            .field("tier", &self.tier)
            .field("state", &word.state())
            .field("period", &word.period())
            .finish_non_exhaustive()
    }
}

fn event(from: Word, to: Word, cause: BreakerCause, open_time: Option<Duration>) -> BreakerEvent {
    BreakerEvent { from: from.state(), to: to.state(), cause, period: to.period(), open_time }
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
