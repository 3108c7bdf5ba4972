//! What can be had, as a detector saw it last: read by anybody (`tierpool-detector`), and by a reader of its own (`tierpool-detector-reader`), whose
//! look is taken over as long as there is no new one. Beside them a look itself, which the reclaimer's thread makes now and then.

use std::hint::black_box;
use std::time::Instant;

use tierpool::ResourceDetector;

use super::floor;
use crate::machine::cores;
use crate::run::cast::Cast;
use crate::run::orders::Orders;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "detect";
/// Read by anybody.
pub const ANYBODY: &str = "tierpool-detector";
/// Read by a reader of its own.
pub const READER: &str = "tierpool-detector-reader";

/// All subjects.
pub fn fill(cast: &mut Cast) {
    cast.add(READER, Kind::Ours, |orders| {
        let mut reader = ResourceDetector::new().reader();
        serve(orders, || _ = black_box(reader.get_availability()));
    });
    cast.add(ANYBODY, Kind::Ours, |orders| {
        let detector = ResourceDetector::new();
        serve(orders, || _ = black_box(detector.get_availability()));
    });
    cast.add("tierpool-detector-look", Kind::Ours, |orders| {
        let detector = ResourceDetector::new();
        serve(orders, || detector.refresh());
    });
    floor::atomic_add(cast);
}

fn serve(orders: Orders, mut step: impl FnMut()) {
    cores::pin(0);
    orders.serve(1, |steps| {
        let start = Instant::now();
        for _ in 0..steps {
            step();
        }
        start.elapsed()
    });
}
