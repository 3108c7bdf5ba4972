//! What there is of each [`Priority`], and what a tier keeps back for the more urgent ones.

use std::fmt;

use crate::slot::label::CLASSES;
pub use crate::slot::priority::Priority;
use crate::tier::reserve::Marks;

/// Something of each priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByPriority<T>([T; CLASSES]);

impl<T> ByPriority<T> {
    /// That of one.
    pub fn of(&self, priority: Priority) -> &T {
        &self.0[usize::from(priority.class())]
    }

    /// That of each, the least urgent first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Priority, &T)> {
        Priority::ALL.into_iter().zip(&self.0)
    }

    pub(crate) fn of_class(&self, class: u8) -> &T {
        &self.0[usize::from(class)]
    }

    pub(crate) fn map<U>(&self, by: impl FnMut(&T) -> U) -> ByPriority<U> {
        ByPriority(self.0.each_ref().map(by))
    }
}

/// How many slots of a tier stay free for more urgent requests: as Linux keeps back pages, with exact marks.
///
/// [`Critical`](Priority::Critical) requests may have the last slot; [`High`](Priority::High) ones leave `min` slots free,
/// [`Normal`](Priority::Normal) ones `low`, [`Low`](Priority::Low) ones `high`. The `high` slots are set apart, and a release
/// fills them up again before anything else; so it is exact to the slot, and costs the others nothing as long as nobody has
/// taken of them. Allocations from the tier itself, past the pool, count as `Normal`;
/// and however long somebody has waited, he gets no slot that his priority has to leave.
///
/// ```
/// use tierpool::{MemoryTier, Pool, Priority, Request, Watermarks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let marks = Watermarks { min: 1, low: 2, high: 3 };
/// let pool = Pool::builder().memory_tier(MemoryTier::new("packets", 2048, 4).watermarks(marks)).build()?;
/// let request = Request::memory(1500);
/// let low = pool.try_allocate(request.priority(Priority::Low))?;
/// assert!(pool.try_allocate(request.priority(Priority::Low)).is_err());     // leaves three
/// let normal = pool.try_allocate(request)?;
/// assert!(pool.try_allocate(request).is_err());                             // leaves two
/// let high = pool.try_allocate(request.priority(Priority::High))?;
/// let last = pool.try_allocate(request.priority(Priority::Critical))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub struct Watermarks {
    /// Slots that only `Critical` requests may have.
    pub min: usize,
    /// Slots that `Normal` requests leave; at least `min`.
    pub low: usize,
    /// Slots that `Low` requests leave; at least `low`, and less than the tier has.
    pub high: usize,
}

impl Watermarks {
    /// What is wrong with them in a tier of that capacity.
    pub(crate) fn problem(self, capacity: usize) -> Option<&'static str> {
        if self.min > self.low {
            Some("`min` is above `low`: Normal requests would leave less than High ones; lower `min` or raise `low`")
        } else if self.low > self.high {
            Some("`low` is above `high`: Low requests would leave less than Normal ones; lower `low` or raise `high`")
        } else if self.high >= capacity {
            Some("`high` leaves nothing for Low requests; give it less than the tier has slots")
        } else {
            None
        }
    }

    /// Whether each of them is at most that of others.
    pub(crate) fn is_within(self, most: Watermarks) -> bool {
        self.min <= most.min && self.low <= most.low && self.high <= most.high
    }

    pub(crate) fn marks(self) -> Marks {
        // Less than a tier's capacity, which fits.
        Marks([self.high as u32, self.low as u32, self.min as u32, 0])
    }
}

/// As in a line of a log.
impl fmt::Display for Watermarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Watermarks { min, low, high } = self;
        write!(f, "{min}, {low} and {high} slots from High, Normal and Low requests")
    }
}
