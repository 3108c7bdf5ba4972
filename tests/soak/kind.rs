//! The tier of a round: any kind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tierpool::{Reclaimer, Tier, TierBuilder};

use crate::accounts::*;
use crate::values::*;

/// What kind of tier a round has.
#[derive(Debug, Clone)]
pub struct Kind {
    pub capacity: usize,
    pub min: Option<usize>,
    pub resets: bool,
    pub cleans: bool,
    pub checks_allocate: bool,
    pub checks_release: bool,
    pub discards_on_panic: bool,
    pub background: bool,
    pub max_age: Option<Duration>,
    pub idle: Option<Duration>,
    pub leaks: Option<Duration>,
    pub barging: Option<Duration>,
    pub grant_limit: Duration,
    pub max_waiters: usize,
    pub fails: u32,
    pub panics: u32,
    /// Closed in the middle of the work, rather than when all have left.
    pub closes_busy: bool,
}

impl Kind {
    pub fn any(random: &mut fastrand::Rng) -> Kind {
        let capacity = match random.u32(..4) {
            0 => random.usize(1..4),
            1 | 2 => random.usize(4..60),
            _ => random.usize(60..2000),
        };
        let min = (capacity > 1 && random.bool()).then(|| random.usize(..capacity));
        let some = |random: &mut fastrand::Rng, of: std::ops::Range<u64>| random.bool().then(|| millis(random.u64(of)));
        Kind {
            capacity,
            min,
            resets: random.bool(),
            cleans: random.bool(),
            checks_allocate: random.bool(),
            checks_release: random.bool(),
            discards_on_panic: random.bool(),
            background: random.bool(),
            max_age: some(random, 30..300),
            idle: min.and(some(random, 20..200)),
            leaks: some(random, 20..200),
            barging: some(random, 0..30),
            grant_limit: millis(random.u64(..40)),
            max_waiters: if random.bool() { 3 } else { 1000 },
            fails: [0, 5, 100][random.usize(..3)],
            panics: [0, 50, 1000][random.usize(..3)],
            closes_busy: random.bool(),
        }
    }

    pub fn cleaned(&self) -> bool {
        self.resets || self.cleans
    }

    pub fn tier(&self, census: &Arc<Census>) -> Tier<Value> {
        let with = || census.clone();
        let mut builder: TierBuilder<Value> = Tier::builder("soak").capacity(self.capacity);
        builder = builder.grant_limit(self.grant_limit).max_waiters(self.max_waiters);
        builder = builder.rebuild_backoff(millis(1), millis(50)).pin_limit(millis(20));
        if let Some(min) = self.min {
            builder = builder.min_capacity(min);
        }
        if self.resets {
            builder = builder.reset(|value: &mut Value| value.handled("reset", |value| *value.note = 0));
        }
        if self.cleans {
            builder = builder.clean(|value: &mut Value| value.handled("clean", |value| *value.note = 0));
        }
        if self.checks_allocate {
            let (census, cleaned) = (with(), self.cleaned());
            builder = builder.validate_on_allocate(move |value: &mut Value| {
                check!(
                    !cleaned || *value.note == 0,
                    "a value that was not cleaned is to be handed out: {}",
                    value.note
                );
                value.handled("check on allocate", |_| ());
                !census.fails()
            });
        }
        if self.checks_release {
            let census = with();
            builder = builder.validate_on_release(move |value: &mut Value| {
                value.handled("check on release", |_| ());
                !census.fails()
            });
        }
        if self.discards_on_panic {
            builder = builder.discard_on_panic();
        }
        if self.background {
            builder = builder.reclaimer(Reclaimer::Background);
        }
        if let Some(age) = self.max_age {
            builder = builder.max_age(age);
        }
        if let Some(timeout) = self.idle {
            builder = builder.idle_timeout(timeout);
        }
        if let Some(limit) = self.leaks {
            let census = with();
            builder = builder.leak_after(limit).ignore_leaks(move |site| {
                check!(site.file().ends_with(".rs"), "a torn site: {site}");
                census.may_panic();
                site.line() % 5 == 0
            });
        }
        if let Some(limit) = self.barging {
            builder = builder.barging(limit);
        }
        let census = with();
        builder = builder.on_report(move |report| {
            check!(!report.to_string().is_empty(), "a report that says nothing");
            census.reports.fetch_add(1, Ordering::Relaxed);
            census.may_panic();
        });
        let census = with();
        let tier = builder.try_build_with(move || {
            if census.fails() {
                return Err(TOLD);
            }
            census.may_panic();
            Ok(Value::new(&census))
        });
        tier.unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}
