//! Numbers to draw nodes by: a generator for each thread, so that drawing writes nothing that threads share.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): an addition and three multiplications. Good enough to spread load, and for nothing else.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The next number of this thread.
#[inline]
pub(super) fn next() -> u64 {
    STATE.with(|state| {
        let now = state.get().unwrap_or_else(seed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(Some(now));
        let mixed = (now ^ (now >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

#[cold]
fn seed() -> u64 {
    RandomState::new().hash_one(())
}

/// Two numbers below `n`, different ones if `n` is above 1; `n` is not 0.
#[inline]
pub(super) fn pair(n: u32) -> (u32, u32) {
    let drawn = next();
    let first = below(drawn as u32, n);
    if n == 1 {
        return (first, first);
    }
    let second = below((drawn >> 32) as u32, n - 1);
    // The others, in their order.
    (first, if second < first { second } else { second + 1 })
}

/// A number below `n`, out of 32 random bits (Lemire 2019, without his correction, which is below 2⁻²⁰ for any list of nodes).
fn below(bits: u32, n: u32) -> u32 {
    ((u64::from(bits) * u64::from(n)) >> 32) as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_two_that_differ_and_every_one_is_drawn() {
        assert_eq!(pair(1), (0, 0));
        let mut drawn = [[0u32; 5]; 5];
        for _ in 0..20_000 {
            let (one, other) = pair(5);
            assert_ne!(one, other);
            drawn[one as usize][other as usize] += 1;
        }
        let pairs = drawn.iter().flatten().filter(|&&times| times > 0);
        assert_eq!(pairs.clone().count(), 20);
        assert!(pairs.clone().all(|&times| (800..1200).contains(&times)), "{drawn:?}");
    }
}
