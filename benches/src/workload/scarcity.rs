//! Many threads for few slots, on a machine that has fewer cores still: who gets what, and how long the others wait.
//!
//! Four tenants share eight slots, and their weights are 1, 2, 3 and 4. A slot is held through a blocking call, as a
//! connection is, so cores are free, and whoever waits sleeps.
//!
//! In `scarcity` each tenant has one thread that is urgent and three that are not, and none does anything but hold slots: the
//! urgent ones want four slots at any time, and there are always others of each tenant who wait for what is left. Of that a
//! tenant is due its weight's part. The row's times are hand-overs: from a release to the moment at which the thread runs that
//! waited for it; each slot carries the time of its last release, and an allocation that need not wait is no sample.
//! (deadpool, bb8 and the semaphore wake a waiter, which then takes any value: the later release is measured, which favours
//! them. A pool that lets newcomers pass has few hand-overs, and long waits.)
//!
//! In `high-flood` urgent requests alone come near to filling the pool; then twice as many threads as there are slots come on
//! top, never rest, and are not urgent. The row's times are the urgent requests' waits with that flood.
//!
//! All subjects run for a while in turn, each time with a new pool and new threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tierpool::jain_index;

use crate::machine::ticks;
use crate::peers::bb8::Bb8;
use crate::peers::waiting::{Deadpool, MutexCondvar, TokioSemaphore};
use crate::pooled::Scarce;
use crate::report::row::Row;
use crate::run::series::{Sample, Series};
use crate::subject::{Kind, Seats};

/// The workload about shares.
pub const SHARES: &str = "scarcity";
/// The workload about priority.
pub const FLOOD: &str = "high-flood";
/// The subject that the bars are for.
pub const OURS: &str = Scarce::<true>::NAME;

/// Threads of [`SHARES`].
pub const THREADS: usize = 16;
/// Threads of [`FLOOD`], those of the flood among them.
pub const FLOODED: usize = URGENT + FLOODING;

/// By how much of its due the tenant is off that is off by most, in the rows.
pub const OFF_DUE: &str = "off_due";
/// The urgent waits' p99 with the flood by that without, in the rows.
pub const TO_ALONE: &str = "ratio_to_alone";

const SLOTS: usize = 8;
const WEIGHTS: [u32; 4] = [1, 2, 3, 4];
const TENANTS: usize = WEIGHTS.len();
/// The names of the tenants' shares, in the rows.
const SHARE_OF: [&str; TENANTS] = ["share_1", "share_2", "share_3", "share_4"];

/// Asks the system to sleep for so long with a slot. It takes some 50 µs longer.
const HOLD: Duration = Duration::from_micros(200);
/// For so long an urgent thread of [`FLOOD`] does without a slot.
const THINK: Duration = Duration::from_micros(200);
const URGENT: usize = 12;
const FLOODING: usize = 2 * SLOTS;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Turns of each subject.
    pub rounds: usize,
    /// How long a turn takes.
    pub length: Duration,
}

/// A workload.
pub type Run = fn(&Scale) -> Vec<Row>;

/// Who gets what under saturation.
pub fn shares(scale: &Scale) -> Vec<Row> {
    let crew: Vec<Member> = (0..THREADS)
        .map(|number| Member { tenant: number % TENANTS, urgent: number < TENANTS, think: Duration::ZERO })
        .collect();
    let subjects = subjects();
    let mut tallies: Vec<Tally> = subjects.iter().map(|_| Tally::default()).collect();
    in_turns(subjects.len(), scale.rounds, |place| tallies[place].add(&(subjects[place].turn)(&crew, scale.length)));
    subjects.iter().zip(&tallies).map(|(subject, tally)| tally.row(subject)).collect()
}

/// What a flood does to urgent requests.
pub fn flood(scale: &Scale) -> Vec<Row> {
    let member = |number: usize| {
        let urgent = number < URGENT;
        Member { tenant: number % TENANTS, urgent, think: if urgent { THINK } else { Duration::ZERO } }
    };
    let crew: Vec<Member> = (0..FLOODED).map(member).collect();
    let subjects = subjects();
    let mut tallies: Vec<[Tally; 2]> = subjects.iter().map(|_| Default::default()).collect();
    in_turns(subjects.len(), scale.rounds, |place| {
        let [alone, flooded] = &mut tallies[place];
        alone.add(&(subjects[place].turn)(&crew[..URGENT], scale.length));
        flooded.add(&(subjects[place].turn)(&crew, scale.length));
    });
    let row = |(subject, [alone, flooded]): (&Subject, &[Tally; 2])| {
        let (with, without) = (&flooded.urgent_waits, &alone.urgent_waits);
        let extras = vec![
            ("us_p99_wait", with.quantile(0.99) / 1000.0),
            ("us_p99_wait_alone", without.quantile(0.99) / 1000.0),
            (TO_ALONE, with.quantile(0.99) / without.quantile(0.99)),
            ("holds_per_second", flooded.rate()),
            ("share_high", flooded.urgent_share()),
        ];
        Row::new(FLOOD, FLOODED, subject.name, subject.kind, (with.median(), with.quantile(0.99)), extras)
    };
    subjects.iter().zip(&tallies).map(row).collect()
}

/// A pool under test.
struct Subject {
    name: &'static str,
    kind: Kind,
    turn: fn(&[Member], Duration) -> Turn,
}

fn subjects() -> Vec<Subject> {
    fn subject<S: Seats>() -> Subject {
        Subject { name: S::NAME, kind: S::KIND, turn: turn::<S> }
    }
    vec![
        subject::<Scarce<true>>(),
        subject::<Scarce<false>>(),
        subject::<Deadpool>(),
        subject::<Bb8>(),
        subject::<TokioSemaphore>(),
        subject::<MutexCondvar>(),
    ]
}

/// Each in turn, starting with another one each time.
fn in_turns(count: usize, rounds: usize, mut each: impl FnMut(usize)) {
    (0..rounds).for_each(|round| (0..count).for_each(|turn| each((round + turn) % count)));
}

/// What one thread is.
#[derive(Clone, Copy)]
struct Member {
    tenant: usize,
    urgent: bool,
    think: Duration,
}

/// What one thread did, in ticks.
struct Deeds {
    member: Member,
    holds: u64,
    waits: Vec<u64>,
    handovers: Vec<u64>,
}

/// What all threads did in one turn.
struct Turn {
    time: Duration,
    deeds: Vec<Deeds>,
}

fn turn<S: Seats>(crew: &[Member], length: Duration) -> Turn {
    let pool = S::build(SLOTS, &WEIGHTS);
    let (gate, counts, over) = (Barrier::new(crew.len() + 1), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let work = |&member: &Member| {
            let (pool, gate, counts, over) = (&pool, &gate, &counts, &over);
            scope.spawn(move || {
                let seat = pool.seat(member.tenant, member.urgent);
                gate.wait();
                hold::<S>(&seat, member, counts, over)
            })
        };
        let threads: Vec<_> = crew.iter().map(work).collect();
        gate.wait();
        // Until all have begun to wait, those who came first have the pool for themselves.
        thread::sleep(length / 8);
        // Relaxed, as below: a hold more or less.
        counts.store(true, Ordering::Relaxed);
        let start = Instant::now();
        thread::sleep(length);
        counts.store(false, Ordering::Relaxed);
        let time = start.elapsed();
        over.store(true, Ordering::Relaxed);
        let deeds = threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect();
        Turn { time, deeds }
    })
}

/// Holds slots until it is over, and keeps account of those that count.
fn hold<S: Seats>(seat: &S::Seat<'_>, member: Member, counts: &AtomicBool, over: &AtomicBool) -> Deeds {
    let mut deeds = Deeds { member, holds: 0, waits: Vec::new(), handovers: Vec::new() };
    while !over.load(Ordering::Relaxed) {
        let start = ticks::now();
        let mut held = S::allocate(seat);
        let now = ticks::now();
        if counts.load(Ordering::Relaxed) {
            deeds.holds += 1;
            deeds.waits.push(now.saturating_sub(start));
            // Released after this thread began to wait: so it waited for this release.
            let released = *S::value(&mut held);
            if released > start {
                deeds.handovers.push(now.saturating_sub(released));
            }
        }
        thread::sleep(HOLD);
        *S::value(&mut held) = ticks::now();
        S::release(seat, held);
        if !member.think.is_zero() {
            thread::sleep(member.think);
        }
    }
    deeds
}

/// All turns of one subject.
#[derive(Default)]
struct Tally {
    time: Duration,
    /// Holds of those who are not urgent, by tenant.
    holds: [u64; TENANTS],
    urgent_holds: u64,
    waits: Series,
    urgent_waits: Series,
    handovers: Series,
}

impl Tally {
    fn add(&mut self, turn: &Turn) {
        let samples =
            |ticks: &[u64]| -> Vec<Sample> { ticks.iter().map(|&ticks| (ticks as f64 * ticks::length(), 1)).collect() };
        self.time += turn.time;
        for deeds in &turn.deeds {
            let waits = samples(&deeds.waits);
            if deeds.member.urgent {
                self.urgent_holds += deeds.holds;
                self.urgent_waits.extend(waits.iter().copied());
            } else {
                self.holds[deeds.member.tenant] += deeds.holds;
            }
            self.waits.extend(waits);
            self.handovers.extend(samples(&deeds.handovers));
        }
    }

    fn all(&self) -> f64 {
        (self.urgent_holds + self.holds.iter().sum::<u64>()) as f64
    }

    /// Holds a second.
    fn rate(&self) -> f64 {
        self.all() / self.time.as_secs_f64()
    }

    fn urgent_share(&self) -> f64 {
        self.urgent_holds as f64 / self.all()
    }

    /// Each tenant's part of what the urgent left.
    fn shares(&self) -> [f64; TENANTS] {
        let all: u64 = self.holds.iter().sum();
        self.holds.map(|holds| holds as f64 / all as f64)
    }

    fn row(&self, subject: &Subject) -> Row {
        let shares = self.shares();
        let by_due = by_due(shares);
        let mut extras = vec![
            ("holds_per_second", self.rate()),
            ("us_p99_wait", self.waits.quantile(0.99) / 1000.0),
            ("us_p99_wait_high", self.urgent_waits.quantile(0.99) / 1000.0),
            ("jain", jain_index(by_due).unwrap_or(f64::NAN)),
            (OFF_DUE, by_due.iter().map(|share| (share - 1.0).abs()).fold(0.0, f64::max)),
            ("share_high", self.urgent_share()),
            ("share_low", 1.0 - self.urgent_share()),
        ];
        extras.extend(SHARE_OF.into_iter().zip(shares));
        let times = (self.handovers.median(), self.handovers.quantile(0.99));
        Row::new(SHARES, THREADS, subject.name, subject.kind, times, extras)
    }
}

/// Shares by what each tenant is due, in proportion to its weight.
fn by_due(shares: [f64; TENANTS]) -> [f64; TENANTS] {
    let all: u32 = WEIGHTS.iter().sum();
    std::array::from_fn(|tenant| shares[tenant] * f64::from(all) / f64::from(WEIGHTS[tenant]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_gives_each_thread_its_turns() {
        let scale = Scale { rounds: 1, length: Duration::from_millis(40) };
        for row in shares(&scale).into_iter().chain(flood(&scale)) {
            assert!(row.extra("holds_per_second").unwrap() > 0.0, "{} in {}", row.subject, row.workload);
        }
    }

    #[test]
    fn who_has_its_due_is_off_by_nothing() {
        let off = |shares| by_due(shares).map(|share| (share - 1.0).abs() < 1e-9);
        assert_eq!(off([0.1, 0.2, 0.3, 0.4]), [true; 4]);
        assert_eq!(off([0.1, 0.3, 0.3, 0.3]), [true, false, true, false]);
    }
}
