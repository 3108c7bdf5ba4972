//! The life of slots against a model: time, passes, growth, sharing, checks, and failures of all of the program's code.
//!
//! The model knows each slot by its number. For each operation it says what must come of it, down to which values are
//! dropped. Where the tier may choose (which of the free slots, which dirty one is cleaned first), the model looks at what
//! was chosen and says whether that was allowed.
//!
//! Time goes in steps of a second, and all limits lie just below a number of seconds. So what the tier leaves to chance
//! (jitter) or to the coarse clock does not matter, and everything is decided.
#![no_main]

mod case;
mod model;
mod program;
mod world;

use std::sync::Once;

use libfuzzer_sys::fuzz_target;

use crate::case::{Case, Verdict};
use crate::program::{ALIVE, TOLD, TOLD_TO};
use crate::world::World;

fuzz_target!(|case: Case| {
    // The panics that the code is told to make are part of the game, the others are findings.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&TOLD) {
                loud(info);
                std::process::abort();
            }
        }));
    });
    let mut world = World::new(&case);
    world.run(&mut case.ops.0.iter(), 0);
    TOLD_TO.with(|told| told.iter().for_each(|told| told.set(Verdict::Good)));
    drop(world);
    assert_eq!(ALIVE.get(), 0, "values outlive everything");
});
