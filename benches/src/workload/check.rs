//! Does every subject really do what is timed? Run before any number is taken.

use crate::payload::{Bytes, TOUCHED};
use crate::roster::{self, Visit};
use crate::subject::{Kind, Subject};

use super::CAPACITY;

/// Checks all subjects; panics on the first that cheats.
pub fn all() {
    roster::each::<Bytes<64>, CAPACITY>(&mut Check);
}

struct Check;

impl Visit for Check {
    fn visit<S: Subject>(&mut self) {
        check::<S>();
    }
}

fn check<S: Subject>() {
    let pool = S::build();
    let mut hand = pool.hand();

    let mut held = S::allocate(&mut hand).expect("a new pool has a free slot");
    S::touch(&mut held);
    assert_eq!(S::byte(&hand, &held), TOUCHED, "{} loses what is written", S::NAME);
    S::release(&mut hand, held);

    let most = CAPACITY * 2;
    let mut all: Vec<_> = (0..most).map_while(|_| S::allocate(&mut hand)).collect();
    if S::ABLE.refuse {
        assert_eq!(all.len(), CAPACITY, "{} does not keep to its capacity", S::NAME);
        S::release(&mut hand, all.swap_remove(CAPACITY / 2));
        all.push(S::allocate(&mut hand).expect("the slot just released"));
        assert!(S::allocate(&mut hand).is_none(), "{} refuses once only", S::NAME);
    } else {
        assert_eq!(all.len(), most, "{} should grow", S::NAME);
    }
    for held in all.drain(..) {
        S::release(&mut hand, held);
    }

    if S::ABLE.shared && S::KIND != Kind::Allocator {
        let held: Vec<_> = (0..CAPACITY).map_while(|_| S::allocate(&mut hand)).collect();
        assert_eq!(held.len(), CAPACITY, "{} loses slots", S::NAME);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = pool.hand();
                held.into_iter().for_each(|held| S::release(&mut other, held));
            });
        });
        let back: Vec<_> = (0..CAPACITY).map_while(|_| S::allocate(&mut hand)).collect();
        assert_eq!(back.len(), CAPACITY, "{} hides another thread's slots", S::NAME);
        back.into_iter().for_each(|held| S::release(&mut hand, held));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_subject_does_its_work() {
        super::all();
    }
}
