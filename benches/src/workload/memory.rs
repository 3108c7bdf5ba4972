//! Bytes beside the payload at a million slots of 64 bytes: the growth of the resident memory of a process that does nothing
//! else, less the payload. Slots are all held once, so that whatever is made or touched late counts as well.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::machine::resident;
use crate::payload::{Inline, Payload};
use crate::roster::{self, Visit};
use crate::subject::{Kind, Subject};

/// Slots of the pool.
pub const SLOTS: usize = 1_000_000;

type Load = Inline<64>;

/// What one subject takes.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Bytes beside the payload, by resident memory.
    pub bytes: i64,
    /// The same as the subject reports it itself, if it does.
    pub reported: Option<usize>,
}

/// The subjects that have a weight of their own.
pub fn subjects() -> Vec<(&'static str, Kind)> {
    struct Names(Vec<(&'static str, Kind)>);
    impl Visit for Names {
        fn visit<S: Subject>(&mut self) {
            self.0.push((S::NAME, S::KIND));
        }
    }
    let mut names = Names(Vec::new());
    roster::each::<Load, SLOTS>(&mut names);
    names.0
}

/// Weighs `subject` in a process of its own: this program again, with `--weigh`, which answers with [`weigh`].
pub fn weigh_apart(subject: &str, variables: &[(&str, &str)]) -> Option<Weight> {
    let mut program = Command::new(env::current_exe().ok()?);
    let output = program.args(["--weigh", subject]).envs(variables.iter().copied()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.split_whitespace().map(str::parse::<i64>);
    let bytes = words.next()?.ok()?;
    let reported = words.next().and_then(Result::ok).map(|bytes| bytes as usize);
    Some(Weight { bytes, reported })
}

/// Weighs `subject` in this process, and prints the result for [`weigh_apart`].
pub fn weigh(subject: &str) {
    struct Weigh<'a>(&'a str);
    impl Visit for Weigh<'_> {
        fn visit<S: Subject>(&mut self) {
            if S::NAME == self.0 {
                let weight = measure::<S>().expect("a system with /proc");
                let reported = weight.reported.map(|bytes| bytes.to_string());
                println!("{} {}", weight.bytes, reported.unwrap_or_default());
            }
        }
    }
    roster::each::<Load, SLOTS>(&mut Weigh(subject));
}

/// How long a pool that grows may take to do so.
const PATIENCE: Duration = Duration::from_secs(2);

fn measure<S: Subject>() -> Option<Weight> {
    let before = resident::bytes()?;
    let pool = S::build();
    let mut held = Vec::with_capacity(SLOTS);
    let mut hand = pool.hand();
    let start = Instant::now();
    while held.len() < SLOTS {
        let mut slot = S::allocate(&mut hand)?;
        S::touch(&mut slot);
        held.push(slot);
        // One that searches from its first page for every new slot would take minutes: what it has grown to by now says
        // enough about the rest.
        if !S::ABLE.refuse && held.len().is_multiple_of(4096) && start.elapsed() > PATIENCE {
            break;
        }
    }
    let taken = held.len();
    let full = resident::bytes()?;
    held.drain(..).for_each(|slot| S::release(&mut hand, slot));
    let most = full.max(resident::bytes()?);

    // The list of what is held is not the pool's.
    let own = taken * (size_of::<S::Held<'_>>() + Load::LAYOUT.size());
    let bytes = (most as i64 - (before + own) as i64) * SLOTS as i64 / taken as i64;
    Some(Weight { bytes, reported: pool.overhead() })
}
