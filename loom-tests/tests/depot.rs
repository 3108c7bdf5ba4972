//! The depot alone: hints are neither doubled nor torn by those who exchange them at the same time.
//!
//! A tier would survive both (a hint is only a hint), and so would every model of it: here is where it shows.
#![cfg(loom)]

use std::sync::Arc;

use tierpool::internals::Hints;
use tierpool_loom::{explore, spawn};

/// One thread takes a hint, the other takes two and puts the first back: a head that left and came back is not mistaken
/// for the old one, and every hint is still there, once.
///
/// Guards the tag in `depot::successor`.
#[test]
fn a_head_that_comes_back_is_another() {
    explore(3, || {
        let hints = Arc::new(Hints::new(3).unwrap());
        assert!(hints.store(11) && hints.store(12) && hints.store(13));
        let other = {
            let hints = Arc::clone(&hints);
            spawn(move || hints.take())
        };
        let first = hints.take().unwrap();
        let second = hints.take();
        assert!(hints.store(first));
        let mut all: Vec<_> = second.into_iter().chain(other.join().unwrap()).collect();
        all.extend(std::iter::from_fn(|| hints.take()));
        all.sort_unstable();
        assert_eq!(all, [11, 12, 13], "every hint is there, once");
    });
}

/// Two threads store and take at once, so that used nodes go round.
///
/// Guards the Release of `Stack::push` and the Acquire of `Stack::pop`: who gets a node gets what was written to it.
#[test]
fn a_node_comes_with_its_hints() {
    explore(3, || {
        let hints = Arc::new(Hints::new(2).unwrap());
        let other = {
            let hints = Arc::clone(&hints);
            spawn(move || {
                assert!(hints.store(21));
                hints.take()
            })
        };
        let mut all: Vec<_> = hints.take().into_iter().collect();
        assert!(hints.store(22));
        all.extend(other.join().unwrap());
        all.extend(std::iter::from_fn(|| hints.take()));
        all.sort_unstable();
        assert_eq!(all, [21, 22], "every hint is there, once");
    });
}
