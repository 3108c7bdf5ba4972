//! What can be had, as a detector saw it last: read by anybody (`tierpool-detector`), and by a reader of its own (`tierpool-detector-reader`), whose
//! look is taken over as long as there is no new one. Beside them a look itself, which the reclaimer's thread makes now and then.

use std::hint::black_box;

use tierpool::ResourceDetector;

use super::floor;
use crate::run::cast::Cast;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "detect";
/// Read by anybody.
pub const ANYBODY: &str = "tierpool-detector";
/// Read by a reader of its own.
pub const READER: &str = "tierpool-detector-reader";

/// All subjects.
pub fn fill(cast: &mut Cast) {
    let detector = ResourceDetector::new();
    let mut reader = detector.reader();
    floor::steps(cast, READER, Kind::Ours, move || _ = black_box(reader.get_availability()));
    let anybody = detector.clone();
    floor::steps(cast, ANYBODY, Kind::Ours, move || _ = black_box(anybody.get_availability()));
    // One of its own: the others would read something new each time.
    let looking = ResourceDetector::new();
    floor::steps(cast, "tierpool-detector-look", Kind::Ours, move || looking.refresh());
    floor::atomic_add(cast);
}
