//! The program's code, all on one thread: it does as it is told, and says which values were dropped.

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tierpool::clock;

use crate::case::*;

pub const TOLD: &str = "told to";

thread_local! {
    pub static TOLD_TO: [Cell<Verdict>; 6] = const { [const { Cell::new(Verdict::Good) }; 6] };
    /// Where the values lay that were dropped in the course of an operation.
    pub static DROPPED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    pub static ALIVE: Cell<usize> = const { Cell::new(0) };
}

pub fn told(code: Code) -> Verdict {
    TOLD_TO.with(|told| told[code as usize].get())
}

pub fn tell(code: Code, verdict: Verdict) {
    TOLD_TO.with(|told| told[code as usize].set(verdict));
}

/// True, false, or a panic.
pub fn obey(code: Code) -> bool {
    match told(code) {
        Verdict::Good => true,
        Verdict::Bad => false,
        Verdict::Panic => std::panic::panic_any(TOLD),
    }
}

pub const SOUND: u64 = 0x50_0d_50_0d_50_0d;

#[derive(Debug)]
pub struct Value {
    pub sound: u64,
    /// 0 in a clean value.
    pub note: u64,
}

impl Value {
    pub fn wipe(&mut self) {
        assert_eq!(self.sound, SOUND);
        self.note = 0;
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.sound, SOUND, "dropped twice");
        self.sound = 0;
        ALIVE.set(ALIVE.get() - 1);
        DROPPED.with_borrow_mut(|dropped| dropped.push(std::ptr::from_ref(self).addr()));
        if told(Code::Drop) == Verdict::Panic {
            std::panic::panic_any(TOLD);
        }
    }
}

/// Steps that a limit of the tier takes: it lies just below this number of seconds.
pub fn just_below(seconds: u64) -> Duration {
    Duration::from_millis(seconds * 1000 - 50)
}

/// Moves the time of the process, which runs ahead of the real one by more than a case can take.
pub fn pass_time(seconds: u64) {
    static NOW: Mutex<Option<Instant>> = Mutex::new(None);
    let mut now = NOW.lock().unwrap();
    let next = now.map_or_else(Instant::now, |now| now) + Duration::from_secs(seconds);
    *now = Some(next);
    clock::tick_to(next);
}
