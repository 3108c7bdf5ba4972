//! A million slots are held, and a pass looks which of them have been for too long: when none has, when all have, and when
//! all have been reported before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tierpool::{Reclaimed, Tier};

use super::{Figure, Load, SLOTS, let_pass, per_slot};
use crate::machine::cores;
use crate::payload::Payload;
use crate::run::series::Series;
use crate::subject::Kind;

/// No hold has lasted too long.
pub const YOUNG: &str = "none-to-report";
/// All have just lasted too long: one report.
const REPORTING: &str = "all-to-report";
/// All had before.
pub const REPORTED: &str = "all-reported";

/// How long a slot may be held.
const LIMIT: Duration = Duration::from_secs(1);

pub fn run(rounds: usize) -> Vec<Figure> {
    let (mut young, mut reporting, mut reported) = (Series::default(), Series::default(), Series::default());
    if rounds > 0 {
        cores::pin(0);
        let mut scan = Scan::new();
        for _ in 0..rounds {
            scan.round(&mut young, &mut reporting, &mut reported);
        }
    }
    vec![
        (YOUNG, Kind::Ours, per_slot(&young)),
        (REPORTED, Kind::Ours, per_slot(&reported)),
        (REPORTING, Kind::Ours, per_slot(&reporting)),
    ]
}

struct Scan {
    tier: Tier<Load>,
    reports: Arc<AtomicUsize>,
}

impl Scan {
    fn new() -> Self {
        let reports = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reports);
        let tier = Tier::builder("scan").capacity(SLOTS).leak_after(LIMIT).on_report(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let tier = tier.build_with(Load::fresh).expect("a tier of a known capacity");
        Self { tier, reports }
    }

    /// A pass at a later time, and how long it took.
    fn pass(&mut self, later: Duration) -> (Reclaimed, f64) {
        let_pass(later);
        let start = Instant::now();
        let done = self.tier.reclaim();
        (done, start.elapsed().as_nanos() as f64)
    }

    fn round(&mut self, young: &mut Series, reporting: &mut Series, reported: &mut Series) {
        // A pass can tell what is too old only from passes that lie as far back.
        (0..2).for_each(|_| _ = self.pass(2 * LIMIT));
        let held = self.tier.try_allocate_many(SLOTS).expect("all slots");
        let (done, time) = self.pass(LIMIT / 16);
        assert_eq!(done.leaks, 0, "too early");
        young.extend([(time, 1)]);

        (0..2).for_each(|_| _ = self.pass(LIMIT / 4));
        let before = self.reports.load(Ordering::Relaxed);
        let (done, time) = self.pass(2 * LIMIT);
        assert_eq!(done.leaks, SLOTS as u64);
        let reports = self.reports.load(Ordering::Relaxed) - before;
        assert!(reports <= 1, "all are of one line: {reports}");
        reporting.extend([(time, 1)]);

        let (done, time) = self.pass(LIMIT / 16);
        assert_eq!(done.leaks, 0, "a second time");
        reported.extend([(time, 1)]);
        drop(held);
    }
}
