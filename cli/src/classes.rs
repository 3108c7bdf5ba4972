//! Size classes: which slot serves an allocation of so many bytes.
//!
//! Up to 1 MiB the classes are the powers of two from 16 bytes, so that a slot is never more than twice what was asked
//! for. Above that a power of two would waste whole megabytes, so a doubling is cut into eight steps and a slot is at
//! most an eighth larger than what was asked for: these are the *oversize* classes.

use std::sync::LazyLock;

/// The largest power-of-two class, in bytes.
pub const LARGEST_POWER: u64 = 1 << 20;

const SMALLEST_SHIFT: u32 = 4;
const LARGEST_SHIFT: u32 = LARGEST_POWER.trailing_zeros();
const POWERS: usize = (LARGEST_SHIFT - SMALLEST_SHIFT + 1) as usize;
const STEPS: usize = 8;

/// One size class. Ordered by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// How many classes there are: enough for every size that a `u32` can state.
    pub const COUNT: usize = POWERS + (32 - LARGEST_SHIFT as usize) * STEPS;

    /// The smallest class whose slots hold `size` bytes. A size of zero is served by the smallest.
    #[inline]
    pub fn of(size: u32) -> Class {
        if u64::from(size) <= LARGEST_POWER {
            let below = size.max(1 << SMALLEST_SHIFT) - 1;
            return Class((u32::BITS - below.leading_zeros() - SMALLEST_SHIFT) as u8);
        }
        let below = size - 1;
        let top = u32::BITS - 1 - below.leading_zeros();
        let step = (below >> (top - 3)) as usize - STEPS;
        Class((POWERS + (top - LARGEST_SHIFT) as usize * STEPS + step) as u8)
    }

    /// Bytes in a slot of this class.
    pub fn bytes(self) -> u64 {
        let index = self.index();
        if index < POWERS {
            return 1 << (index as u32 + SMALLEST_SHIFT);
        }
        let (doubling, step) = ((index - POWERS) / STEPS, (index - POWERS) % STEPS);
        ((step + STEPS + 1) as u64) << (doubling as u32 + LARGEST_SHIFT - 3)
    }

    /// The class's place in order of size, below [`Class::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Every class, from the smallest.
    pub fn all() -> impl Iterator<Item = Class> {
        (0..Class::COUNT).map(|index| Class(index as u8))
    }

    /// The class's size in words, which is also the name of its tier.
    pub fn name(self) -> &'static str {
        static NAMES: LazyLock<Vec<String>> =
            LazyLock::new(|| Class::all().map(|class| crate::units::bytes(class.bytes())).collect());
        &NAMES[self.index()]
    }

    /// Whether the class is above the powers of two.
    pub fn is_oversize(self) -> bool {
        self.index() >= POWERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_fall_where_they_should() {
        for (size, bytes) in [(0, 16), (1, 16), (16, 16), (17, 32), (4096, 4096), (4097, 8192)] {
            assert_eq!(Class::of(size).bytes(), bytes, "{size}");
        }
        assert_eq!(Class::of(1 << 20).bytes(), 1 << 20);
        assert!(!Class::of(1 << 20).is_oversize());
        assert_eq!(Class::of((1 << 20) + 1).bytes(), (1 << 20) / 8 * 9);
        assert!(Class::of((1 << 20) + 1).is_oversize());
        assert_eq!(Class::of(u32::MAX).index(), Class::COUNT - 1);
        assert_eq!(Class::of(u32::MAX).bytes(), 1 << 32);
    }

    #[test]
    fn every_class_holds_its_own_size_and_not_a_byte_more() {
        for class in Class::all() {
            let bytes = class.bytes();
            if let Ok(size) = u32::try_from(bytes) {
                assert_eq!(Class::of(size), class);
                assert_eq!(Class::of(size + 1).index(), class.index() + 1);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_slot_is_big_enough_and_not_too_big(size: u32) {
            let bytes = Class::of(size).bytes();
            proptest::prop_assert!(bytes >= u64::from(size));
            let most = if u64::from(size) <= LARGEST_POWER { u64::from(size.max(8)) * 2 } else { u64::from(size) * 9 / 8 + 1 };
            proptest::prop_assert!(bytes <= most, "{bytes} for {size}");
        }
    }
}
