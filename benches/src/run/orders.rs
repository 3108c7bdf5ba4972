//! The measuring side of a runner: a thread that waits for orders, runs batches, answers with samples.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::series::Sample;

/// What a measuring thread is asked, and where it answers.
pub struct Orders {
    pub(super) asked: Receiver<u64>,
    pub(super) answers: Sender<Vec<Sample>>,
    pub(super) target: Duration,
}

impl Orders {
    /// Answers each order, a number of samples, with that many batches of about the target's length. `batch` runs so many
    /// units and says how long they took; a unit is `operations` operations.
    pub fn serve(self, operations: u64, mut batch: impl FnMut(u64) -> Duration) {
        let target = self.target;
        let mut units = 0;
        self.answer(|samples| {
            if units == 0 {
                units = fitting(target, &mut batch);
            }
            // The caches belong to the subject that ran before.
            batch(units);
            let each = (units * operations) as f64;
            (0..samples).map(|_| (batch(units).as_nanos() as f64 / each, 1)).collect()
        });
    }

    /// Answers each order with what `work` makes of it.
    pub fn answer(self, mut work: impl FnMut(u64) -> Vec<Sample>) {
        while let Ok(order) = self.asked.recv() {
            if self.answers.send(work(order)).is_err() {
                return;
            }
        }
    }
}

/// How many units take about `target`; a warm-up as well. What is done for the first time takes longer, so a number is
/// believed only when it takes as long again.
fn fitting(target: Duration, batch: &mut impl FnMut(u64) -> Duration) -> u64 {
    let mut units = 1;
    loop {
        batch(units);
        let taken = batch(units);
        if taken * 2 >= target || units >= 1 << 40 {
            let share = target.as_nanos() as f64 / taken.as_nanos().max(1) as f64;
            return ((units as f64 * share).round() as u64).max(1);
        }
        units *= 2;
    }
}
