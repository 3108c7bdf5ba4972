//! The bytes of a buffer as values of a type (feature `bytemuck`): without a copy, and without `unsafe`.
//!
//! It relies on `bytemuck` for what may be seen so: [`Pod`], types without padding of which every bit pattern is a value.

use std::any::type_name;

use bytemuck::{Pod, PodCastError};

use super::memory::Memory;

/// Why bytes cannot be seen as values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The first byte does not lie where a value of the type may.
    #[error(
        "memory at {address:#x} cannot be seen as values of {ty}, which lie at multiples of {align} bytes; give its tier that `align`"
    )]
    Misaligned {
        /// The type's name.
        ty: &'static str,
        /// Its alignment, in bytes.
        align: usize,
        /// Where the bytes lie.
        address: usize,
    },
    /// The bytes are no whole number of values.
    #[error("{len} bytes are no whole number of values of {ty} ({size} bytes each); `set_len` to a multiple of that")]
    Length {
        /// The type's name.
        ty: &'static str,
        /// Bytes of a value.
        size: usize,
        /// Bytes that are shown.
        len: usize,
    },
}

impl Memory {
    /// The bytes that are shown, as values of a type without padding. Needs the feature `bytemuck`.
    ///
    /// ```
    /// let mut memory = tierpool::Memory::new(2048)?;
    /// memory.as_mut_slice_of::<f32>()?[511] = 1.5;
    /// assert_eq!(memory.as_slice_of::<f32>()?.iter().sum::<f32>(), 1.5);
    /// memory.set_len(2047);
    /// let error = memory.as_slice_of::<f32>().unwrap_err();
    /// assert_eq!(error.to_string(), "2047 bytes are no whole number of values of f32 (4 bytes each); `set_len` to a multiple of that");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn as_slice_of<T: Pod>(&self) -> Result<&[T], ViewError> {
        bytemuck::try_cast_slice(self).map_err(|why| refusal::<T>(self, why))
    }

    /// The same, to be changed. All of it counts as written.
    ///
    /// # Errors
    /// [`ViewError`]; nothing counts as written then.
    pub fn as_mut_slice_of<T: Pod>(&mut self) -> Result<&mut [T], ViewError> {
        self.as_slice_of::<T>()?;
        let (ty, align, address) = (type_name::<T>(), align_of::<T>(), self.as_ptr().addr());
        bytemuck::try_cast_slice_mut(self).map_err(|_| ViewError::Misaligned { ty, align, address })
    }
}

fn refusal<T>(bytes: &[u8], why: PodCastError) -> ViewError {
    let (ty, size, align) = (type_name::<T>(), size_of::<T>(), align_of::<T>());
    match why {
        PodCastError::TargetAlignmentGreaterAndInputNotAligned | PodCastError::AlignmentMismatch => {
            ViewError::Misaligned { ty, align, address: bytes.as_ptr().addr() }
        }
        _ => ViewError::Length { ty, size, len: bytes.len() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_number_of_values_is_refused_and_not_written() {
        let mut memory = Memory::new(100).unwrap();
        let why = memory.as_mut_slice_of::<u64>().unwrap_err();
        assert_eq!(why, ViewError::Length { ty: "u64", size: 8, len: 100 });
        assert!(matches!(memory.as_slice_of::<()>(), Err(ViewError::Length { size: 0, .. })));
        memory.set_len(96);
        memory.as_mut_slice_of::<u64>().unwrap()[11] = u64::MAX;
        assert_eq!(memory[88..], [255; 8]);
        memory.set_len(0);
        assert_eq!(memory.as_slice_of::<u64>(), Ok(&[][..]));
    }

    #[derive(Debug, Clone, Copy)]
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);
    // SAFETY: bytes and nothing else, as many as its alignment.
    unsafe impl bytemuck::Zeroable for Page {}
    // SAFETY: as above.
    unsafe impl Pod for Page {}

    #[test]
    fn what_does_not_lie_right_is_refused() {
        assert_eq!(Memory::new(4096).unwrap().as_slice_of::<Page>().unwrap().len(), 1);
        let all: Vec<_> = (0..65).map(|_| Memory::new(64).unwrap()).collect();
        let astray = all.iter().find(|memory| memory.as_ptr().addr() % 4096 > 0).expect("one page holds 64 of them");
        let why = astray.as_slice_of::<Page>().unwrap_err();
        let address = astray.as_ptr().addr();
        assert!(matches!(why, ViewError::Misaligned { align: 4096, address: at, .. } if at == address), "{why}");
    }
}
