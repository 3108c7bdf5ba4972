//! tierpool's coarse clock, running for the whole of a benchmark as it does in a program with a reclaimer. (A clock that
//! nobody ever ticks would be folded to a constant, and its load with it.)

use std::thread;
use std::time::Duration;

use super::cores;

/// Starts the ticker: one thread, one tick a millisecond, until the process ends.
pub fn start() {
    thread::Builder::new()
        .name("ticker".into())
        .spawn(|| {
            cores::pin_aside();
            loop {
                tierpool::clock::tick();
                thread::sleep(Duration::from_millis(1));
            }
        })
        .expect("a thread for the ticker");
}
