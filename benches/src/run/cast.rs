//! All runners of one workload.

use std::time::Duration;

use super::orders::Orders;
use super::runner::Runner;
use super::series::Sample;
use crate::subject::Kind;

/// The subject that needs a process of its own: tierpool with the portable fence.
pub const FALLBACK: &str = "tierpool-fallback";

/// The runners of one workload, and how long their batches are.
pub struct Cast {
    /// A sample's length.
    pub target: Duration,
    /// One runner a subject.
    pub runners: Vec<Runner>,
    only: Option<&'static str>,
}

impl Cast {
    /// An empty cast; with `only`, one that takes no other subject.
    pub fn new(target: Duration, only: Option<&'static str>) -> Self {
        Self { target, runners: Vec::new(), only }
    }

    /// Adds a subject that does `work` on its own thread.
    pub fn add(&mut self, name: &'static str, kind: Kind, work: impl FnOnce(Orders) + Send + 'static) {
        if self.only.is_none_or(|only| only == name) {
            self.runners.push(Runner::on_thread(name, kind, self.target, work));
        }
    }

    /// Adds tierpool with the portable fence, if `arguments` lead a child of this program to the same workload.
    pub fn add_fallback(&mut self, arguments: &[String]) {
        if self.only.is_none() {
            let fence = ("TIERPOOL_FENCE", "fallback");
            let place = self.runners.iter().rposition(|runner| runner.kind == Kind::Ours);
            let runner = Runner::in_process(FALLBACK, Kind::Ours, arguments, fence);
            self.runners.insert(place.map_or(0, |place| place + 1), runner);
        }
    }

    /// Ends all runners; the cast can be filled again.
    pub fn clear(&mut self) {
        self.runners.clear();
    }

    /// One round: every runner is asked once, starting with another one each time; `each` gets its place and its samples.
    pub fn round(&mut self, number: usize, order: u64, mut each: impl FnMut(usize, Vec<Sample>)) {
        let count = self.runners.len();
        for turn in 0..count {
            let place = (number + turn) % count;
            each(place, self.runners[place].ask(order));
        }
    }
}
