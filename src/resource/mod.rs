//! What tiers of a pool hold: a file for each kind of resource and for each part of one, and here what they have in common: how a use of
//! one begins.
//!
//! Memory: [`memory`] (the bytes of a slot), [`backing`] (what may be wanted of where they lie, and what was got), [`region`] (where
//! they lie), [`places`] (who lies where), [`room`] (how much the process may still take), `typed` (the bytes as values of a type).
//! Cores: [`cpu`]. Disk: [`disk`] (the bytes of a slot), [`scratch`] (the file that they lie in).
//!
//! [`begin`] is on the way of every allocation; for values of the program's own nothing is left of it when it is compiled. What takes
//! longer, or can fail, is in [`begin_slowly`].

pub(crate) mod backing;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod memory;
pub(crate) mod places;
pub(crate) mod region;
pub(crate) mod room;
pub(crate) mod scratch;
#[cfg(feature = "bytemuck")]
pub(crate) mod typed;

use std::any::Any;

use self::cpu::Cpu;
use self::disk::Extent;
use self::memory::Memory;
use crate::machine::affinity::PinError;

/// "Input/output error", on every Unix: what is said of a failure that has no number.
const EIO: i32 = 5;

/// What a use of a value is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Bytes to be shown; `u64::MAX` for all.
    pub(crate) bytes: u64,
    /// By whom: a tenant's number, 0 for nobody.
    pub(crate) user: u16,
    /// Whether the calling thread is who uses it: a future's is not.
    pub(crate) by_thread: bool,
}

/// Why a use cannot begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unfit {
    /// The system has no memory for it.
    NoMemory,
    /// The thread cannot be pinned.
    NotPinned(PinError),
    /// What the last user left cannot be zeroed: the system's reason, by its number.
    NotZeroed(i32),
}

/// Begins a use of a value. False if there is more to it: nothing is changed then, and [`begin_slowly`] is to be called.
#[inline(always)]
#[must_use]
pub(crate) fn begin<K: 'static>(value: &mut K, usage: Use) -> bool {
    // Known when this is compiled: of other types nothing is left of it.
    let value: &mut dyn Any = value;
    if let Some(memory) = value.downcast_mut::<Memory>() {
        memory.begin(usage.bytes as usize, usage.user)
    } else if let Some(extent) = value.downcast_mut::<Extent>() {
        extent.begin(usage.bytes, usage.user)
    } else if value.is::<Cpu>() {
        !usage.by_thread
    } else {
        true
    }
}

/// The same, after [`begin`] said no: for a buffer that has too few bytes, an extent that has to be scrubbed, a core to be pinned to.
#[cold]
pub(crate) fn begin_slowly<K: 'static>(value: &mut K, usage: Use) -> Result<(), Unfit> {
    let any: &mut dyn Any = value;
    if let Some(memory) = any.downcast_mut::<Memory>() {
        let bytes = match usage.bytes {
            // By name: all there are.
            u64::MAX => memory.capacity(),
            bytes => {
                // In the overflow: its own bytes are those of its empty slots, none.
                *memory = Memory::new(bytes as usize).map_err(|_| Unfit::NoMemory)?;
                bytes as usize
            }
        };
        let fits = memory.begin(bytes, usage.user);
        debug_assert!(fits, "it was made so");
    } else if let Some(extent) = any.downcast_mut::<Extent>() {
        extent.scrub().map_err(|error| Unfit::NotZeroed(error.raw_os_error().unwrap_or(EIO)))?;
        let begun = extent.begin(usage.bytes, usage.user);
        debug_assert!(begun, "there is nothing left in it");
    } else if let Some(cpu) = any.downcast_mut::<Cpu>() {
        cpu.pin_if_possible().map_err(Unfit::NotPinned)?;
    }
    Ok(())
}
