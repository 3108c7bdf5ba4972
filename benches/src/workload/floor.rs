//! What the machine takes for a single step, in the same run as everything else.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::machine::{cores, ticks};
use crate::run::cast::Cast;
use crate::subject::Kind;

/// The floor that runs beside every workload, for `ratio_to_atomic_add`.
pub const ATOMIC_ADD: &str = "atomic-add";

thread_local! {
    static STACK: RefCell<Vec<u64>> = RefCell::new((0..1024).collect());
}

/// All floors.
pub fn fill(cast: &mut Cast) {
    atomic_add(cast);
    let word = AtomicU64::new(0);
    let mut value = 0;
    add(cast, "compare-exchange", move || {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        word.compare_exchange(value, value + 1, acquire, relaxed).expect("nobody else");
        value += 1;
    });
    add(cast, "thread-local-vec", || {
        let entry = STACK.with_borrow_mut(Vec::pop).expect("an entry");
        STACK.with_borrow_mut(|stack| stack.push(black_box(entry)));
    });
    add(cast, "instant-now", || _ = black_box(Instant::now()));
    add(cast, "time-stamp", || _ = black_box(ticks::now()));
}

/// One uncontended atomic add.
pub fn atomic_add(cast: &mut Cast) {
    let word = AtomicU64::new(0);
    add(cast, ATOMIC_ADD, move || _ = word.fetch_add(1, Ordering::Relaxed));
}

fn add(cast: &mut Cast, name: &'static str, step: impl FnMut() + Send + 'static) {
    steps(cast, name, Kind::Floor, step);
}

/// A subject that does the same step again and again, on one thread.
pub fn steps(cast: &mut Cast, name: &'static str, kind: Kind, mut step: impl FnMut() + Send + 'static) {
    cast.add(name, kind, move |orders| {
        cores::pin(0);
        orders.serve(1, |steps| {
            let start = Instant::now();
            for _ in 0..steps {
                step();
            }
            start.elapsed()
        });
    });
}
