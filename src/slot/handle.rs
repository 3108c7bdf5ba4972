//! A handle: the `Copy` name of one slot at one generation.
//!
//! It holds no pointer, so it may travel through a channel, a map, C code or a file, be copied and be lost. It never
//! dangles (headers are never unmapped) and never comes back to life (a generation is never used twice).

use std::fmt;

/// Bits of generation in a handle, as in a slot's word.
const GENERATION_BITS: u32 = 60;
/// The four bits above the generation: a mark that random bits carry once in sixteen times.
const MARK: u64 = 0b1010;

/// A `Copy` name of a slot at one generation: 16 bytes, made by [`Lease::detach`](crate::Lease::detach), used by
/// [`Tier::attach`](crate::Tier::attach) and [`Tier::release`](crate::Tier::release).
///
/// Any number of copies may exist. Exactly one use wins; the others get a [`HandleError`](crate::HandleError) that says why.
///
/// ```
/// # use tierpool::{Handle, Tier};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tier: Tier<u64> = Tier::builder("counters").capacity(4).build_with(|| 0)?;
/// let handle = tier.try_allocate()?.detach();
/// let bits: u128 = handle.to_bits();               // through FFI, a file, a socket…
/// let mut lease = tier.attach(Handle::from_bits(bits)?)?;
/// *lease += 1;
/// assert!(tier.attach(handle).is_err());           // somebody has it
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// The tier's number in the upper half, the slot's index in the lower.
    slot: u64,
    /// `MARK` above 60 bits of generation.
    generation: u64,
}

const _: () = assert!(size_of::<Handle>() == 16);

impl Handle {
    pub(crate) fn new(tier: u32, index: u32, generation: u64) -> Self {
        debug_assert!(generation >> GENERATION_BITS == 0);
        Handle { slot: (u64::from(tier) << 32) | u64::from(index), generation: (MARK << GENERATION_BITS) | generation }
    }

    pub(crate) fn tier(self) -> u32 {
        (self.slot >> 32) as u32
    }

    pub(crate) fn index(self) -> u32 {
        self.slot as u32
    }

    /// The generation at which this handle is valid: how often the slot has changed hands.
    pub fn generation(self) -> u64 {
        self.generation & ((1 << GENERATION_BITS) - 1)
    }

    /// The handle as a number: for C code, shared memory within the process, a log. [`from_bits`](Self::from_bits)
    /// takes it back.
    pub fn to_bits(self) -> u128 {
        (u128::from(self.generation) << 64) | u128::from(self.slot)
    }

    /// A handle of any bits; only [`from_bits`](Self::from_bits) lets one out, having looked its slot up.
    pub(crate) fn unchecked(bits: u128) -> Self {
        Handle { slot: bits as u64, generation: (bits >> 64) as u64 }
    }

    /// Whether the bits carry the mark of a handle.
    pub(crate) fn is_marked(self) -> bool {
        self.generation >> GENERATION_BITS == MARK
    }
}

/// `tier#slot@generation`, in decimal.
impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}@{}", self.tier(), self.index(), self.generation())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}
