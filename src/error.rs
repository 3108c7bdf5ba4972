//! Why something was refused, with the data that a caller can act on.
//!
//! An [`AllocateError`] is made on the refusal path, which allocates nothing: all its fields are plain numbers and
//! static references. The others are made where time does not matter.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::slot::handle::Handle;
use crate::slot::word::State;
use crate::tier::report::Holder;

/// Why an allocation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// There was a moment during the call at which no slot was free (for a bulk allocation: not enough of them).
    #[error("{0}")]
    Exhausted(Exhausted),
    /// No slot was handed over in the time that [`Tier::allocate_timeout`](crate::Tier::allocate_timeout) was given.
    #[error("tier {tier:?} had no slot free for {waited:.2?}; {waiting} others wait for one")]
    TimedOut {
        /// The tier's name.
        tier: &'static str,
        /// How many others wait.
        waiting: usize,
        /// How long the call waited.
        waited: Duration,
    },
    /// As many wait already as the tier allows.
    #[error("tier {tier:?} has no slot free, and {waiting} wait for one already: its queue is full")]
    QueueFull {
        /// The tier's name.
        tier: &'static str,
        /// How many wait.
        waiting: usize,
    },
    /// The tier is closed; it hands out nothing any more.
    #[error("tier {tier:?} is closed and allocates no more")]
    Closed {
        /// The tier's name.
        tier: &'static str,
    },
}

/// The numbers behind [`AllocateError::Exhausted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhausted {
    /// The tier's name.
    pub tier: &'static str,
    /// Slots that the tier has.
    pub capacity: usize,
    /// Slots that the call asked for.
    pub wanted: usize,
    /// Slots that could be claimed by this call; they were given back. Always less than `wanted`.
    pub free: usize,
    /// Slots out of service because the factory has not yet replaced their value.
    pub quarantined: usize,
    /// Slots by which the tier could be larger, if the factory and the system allowed it to grow.
    pub absent: usize,
    /// The line that held the most slots when the tier last ran out, as far as known.
    pub most_held_by: Option<&'static Location<'static>>,
    /// How many slots that line held then.
    pub most_held: usize,
    /// Slots that are kept for more urgent requests.
    pub reserved: usize,
    /// Threads and futures that wait for a slot.
    pub waiting: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {:?} has no slot free", self.tier)?;
        if self.wanted != 1 {
            write!(f, " for {} of the {} wanted", self.wanted - self.free, self.wanted)?;
        }
        write!(f, ": all {} are held", self.capacity - self.absent.min(self.capacity))?;
        if self.reserved > 0 {
            write!(f, " or kept for more urgent requests ({})", self.reserved)?;
        }
        if self.quarantined > 0 {
            write!(f, " or out of service ({})", self.quarantined)?;
        }
        if self.absent > 0 {
            write!(f, ", and {} more could not be built", self.absent)?;
        }
        if let Some(site) = self.most_held_by {
            write!(f, "; {} were allocated at {site}", self.most_held)?;
        }
        if self.waiting > 0 {
            write!(f, "; {} wait for one", self.waiting)?;
        }
        Ok(())
    }
}

/// Why a handle was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The handle was used before: its slot was released, or attached and then went on to a later generation.
    #[error("{}", stale(handle, tier, *allocated_at, *released_at))]
    Stale {
        /// The handle.
        handle: Handle,
        /// The tier's name.
        tier: &'static str,
        /// Where the slot was allocated when the handle was made, while that is still known.
        allocated_at: Option<&'static Location<'static>>,
        /// Which line released it, while that is still known, and if a line did: a dropped lease names none.
        released_at: Option<&'static Location<'static>>,
    },
    /// The handle is of the present generation, but the slot is not in a state that the call could end: somebody attached it
    /// before, or it is shared where a detached one is wanted, or the other way round.
    #[error("{}", in_use(handle, tier, *state))]
    InUse {
        /// The handle.
        handle: Handle,
        /// The tier's name.
        tier: &'static str,
        /// What the slot is doing.
        state: State,
    },
    /// The handle belongs to another tier.
    #[error("handle {handle} is of another tier than {tier:?}")]
    Foreign {
        /// The handle.
        handle: Handle,
        /// The name of the tier that refused it.
        tier: &'static str,
    },
    /// The tier is closed, and the handle's slot is gone with its value.
    #[error("handle {handle} is dead: tier {tier:?} is closed and its slot is gone")]
    Closed {
        /// The handle.
        handle: Handle,
        /// The tier's name.
        tier: &'static str,
    },
    /// The bits name a tier, slot or generation that never existed in this process.
    #[error("{:#034x} is no handle: it names nothing that ever existed in this process", handle.to_bits())]
    Forged {
        /// The bits, as a handle.
        handle: Handle,
    },
}

fn in_use(handle: &Handle, tier: &str, state: State) -> String {
    let of = format!("handle {handle} of tier {tier:?}");
    match state {
        State::Shared => format!("{of} is shared: `read` its value, and `retire` it"),
        State::SharedLease => format!("{of} is held by shared leases: its slot ends with the last of them"),
        State::Detached => format!("{of} is detached, not shared: `attach` or `release` it"),
        state => format!("{of} is attached already: its slot is {state}"),
    }
}

fn stale(
    handle: &Handle,
    tier: &str,
    allocated_at: Option<&'static Location<'static>>,
    released_at: Option<&'static Location<'static>>,
) -> String {
    let mut text = format!("handle {handle} of tier {tier:?} is stale: its slot was released");
    if let Some(site) = released_at {
        text += &format!(" at {site}");
    }
    if let Some(site) = allocated_at {
        text += &format!(", having been allocated at {site}");
    }
    text
}

/// Why a tier could not be built. Whatever had been built of it was dropped again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The name is empty, too long, or holds a character that no log or metrics line should have to escape.
    #[error("tier name {name:?} {problem}")]
    Name {
        /// The name as given.
        name: String,
        /// What is wrong with it, and what is allowed.
        problem: &'static str,
    },
    /// The capacity was not given, is zero, or is more than a tier can have.
    #[error("tier {tier:?} cannot have {capacity} slots; give `capacity` a number from 1 to {max}")]
    Capacity {
        /// The tier's name.
        tier: &'static str,
        /// The capacity as given.
        capacity: usize,
        /// The most that is possible.
        max: usize,
    },
    /// The sizes or times given contradict each other.
    #[error("tier {tier:?} cannot be built: {problem}")]
    Size {
        /// The tier's name.
        tier: &'static str,
        /// What does not fit.
        problem: &'static str,
    },
    /// The system has no thread for the background reclaimer.
    #[error("no thread for the reclaimer of tier {tier:?}: {source}; `Reclaimer::Manual` needs none")]
    NoThread {
        /// The tier's name.
        tier: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system has no memory for so many slots of that size.
    #[error("no memory for tier {tier:?}: {capacity} slots of {slot_bytes} bytes")]
    OutOfMemory {
        /// The tier's name.
        tier: &'static str,
        /// The slots asked for.
        capacity: usize,
        /// Bytes a slot, without its header.
        slot_bytes: usize,
    },
    /// More tiers exist at once than the process can name.
    #[error("tier {tier:?} would be one too many: {max} tiers exist already")]
    TooManyTiers {
        /// The tier's name.
        tier: &'static str,
        /// The most that can exist at once.
        max: usize,
    },
    /// The factory failed while the slots were first filled.
    #[error("the factory of tier {tier:?} failed at slot {slot}: {source}")]
    Factory {
        /// The tier's name.
        tier: &'static str,
        /// The first slot that got no value.
        slot: usize,
        /// What the factory said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a tier has not become as large as it was told to: [`Tier::grow_to`](crate::Tier::grow_to). What was added stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrowError {
    /// More slots than the tier may have.
    #[error("tier {tier:?} cannot grow to {slots} slots: it was built with a capacity of {capacity}")]
    Capacity {
        /// The tier's name.
        tier: &'static str,
        /// The slots asked for.
        slots: usize,
        /// The most that it may have.
        capacity: usize,
    },
    /// The tier is closed.
    #[error("tier {tier:?} is closed and grows no more")]
    Closed {
        /// The tier's name.
        tier: &'static str,
    },
    /// The call comes out of a pass of the reclaimer: from a factory, a report, a value's `Drop`. There is one at a time.
    #[error("tier {tier:?} cannot grow from inside a pass of the reclaimer; call `grow_to` from elsewhere")]
    InPass {
        /// The tier's name.
        tier: &'static str,
    },
    /// The system has no memory for more payload: a limit of the process, its container, or the machine.
    #[error("no memory for tier {tier:?} to grow beyond {slots} slots: {source}")]
    OutOfMemory {
        /// The tier's name.
        tier: &'static str,
        /// Slots that it has.
        slots: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The factory made no value.
    #[error("the factory of tier {tier:?} failed, which has {slots} slots: {}", said(source))]
    Factory {
        /// The tier's name.
        tier: &'static str,
        /// Slots that it has.
        slots: usize,
        /// What the factory said; `None` if it panicked.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

fn said(source: &Option<Box<dyn std::error::Error + Send + Sync>>) -> String {
    source.as_ref().map_or_else(|| "it panicked".to_owned(), ToString::to_string)
}

/// Some slots were not given back before the deadline of [`Tier::close_and_wait`](crate::Tier::close_and_wait). The
/// tier is closed all the same, and each of these slots is dropped when it comes back.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", still_held(tier, holders))]
pub struct CloseError {
    /// The tier's name.
    pub tier: &'static str,
    /// Who still holds what.
    pub holders: Vec<Holder>,
}

fn still_held(tier: &str, holders: &[Holder]) -> String {
    const SHOWN: usize = 8;
    let mut text = format!("tier {tier:?} is closed, but {} of its slots are still held", holders.len());
    for holder in holders.iter().take(SHOWN) {
        text += &format!("; {holder}");
    }
    if holders.len() > SHOWN {
        text += &format!("; and {} more", holders.len() - SHOWN);
    }
    text
}
