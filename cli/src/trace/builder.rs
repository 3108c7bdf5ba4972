//! Turns allocations and releases into a [`Trace`], whatever format they came in.

use super::{
    ALLOCATE, ALLOCATE_WATCHED, Bytes, Format, Leak, Packed, RELEASE, RELEASE_AGAIN, Reading, Skipped, Trace,
    TraceError,
};
use crate::classes::Class;

/// Names an allocation to the builder: the position of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation(u32);

const FREE: u64 = 0;

/// Collects operations, gives every allocation a place, and counts.
#[derive(Debug)]
pub struct Builder {
    reading: Reading,
    operations: Vec<Packed>,
    /// The line that allocated what is at a place now, or [`FREE`]; its size is in `sizes`.
    lines: Vec<u64>,
    sizes: Vec<u32>,
    free_places: Vec<u32>,
    /// The positions of the allocations that are released again, once for each time.
    again: Vec<u32>,
    live: Vec<u64>,
    peaks: Vec<u64>,
    live_bytes: Bytes,
    peak: Bytes,
    total: Bytes,
    allocations: u64,
    releases: u64,
    /// What the reader skips.
    pub skipped: Skipped,
}

impl Builder {
    /// A builder of a trace without operations.
    pub fn new(reading: Reading) -> Self {
        Builder {
            reading,
            operations: Vec::new(),
            lines: Vec::new(),
            sizes: Vec::new(),
            free_places: Vec::new(),
            again: Vec::new(),
            live: vec![0; Class::COUNT],
            peaks: vec![0; Class::COUNT],
            live_bytes: Bytes::default(),
            peak: Bytes::default(),
            total: Bytes::default(),
            allocations: 0,
            releases: 0,
            skipped: Skipped::default(),
        }
    }

    /// Whether as many operations have been read as were wanted.
    pub fn is_full(&self) -> bool {
        self.reading.first.is_some_and(|first| self.operations.len() as u64 >= first)
    }

    /// Adds an allocation.
    ///
    /// # Errors
    /// Returns [`TraceError`] if it is too large, or one operation too many.
    pub fn allocate(&mut self, size: u64, line: u64) -> Result<Allocation, TraceError> {
        let size = u32::try_from(size).map_err(|_| TraceError::TooLarge { line, size })?;
        let position = self.position(line)?;
        let place = match self.free_places.pop() {
            Some(place) => {
                self.lines[place as usize] = line;
                self.sizes[place as usize] = size;
                place
            }
            None => {
                self.lines.push(line);
                self.sizes.push(size);
                self.lines.len() as u32 - 1
            }
        };
        let class = Class::of(size);
        let live = &mut self.live[class.index()];
        *live += 1;
        let peak = &mut self.peaks[class.index()];
        *peak = (*peak).max(*live);
        self.live_bytes.asked += u64::from(size);
        self.live_bytes.slots += class.bytes();
        self.peak = self.peak.max(self.live_bytes);
        self.total.asked += u64::from(size);
        self.total.slots += class.bytes();
        self.allocations += 1;
        self.operations.push(Packed::new(ALLOCATE, place, size));
        Ok(Allocation(position))
    }

    /// Adds the release of an allocation that is alive.
    ///
    /// # Errors
    /// Returns [`TraceError`] if it is one operation too many.
    pub fn release(&mut self, allocation: Allocation, line: u64) -> Result<(), TraceError> {
        self.position(line)?;
        let Packed { kind_and_place, size } = self.operations[allocation.0 as usize];
        let place = kind_and_place & ((1 << super::PLACE_BITS) - 1);
        let class = Class::of(size);
        self.live[class.index()] -= 1;
        self.live_bytes.asked -= u64::from(size);
        self.live_bytes.slots -= class.bytes();
        self.releases += 1;
        self.lines[place as usize] = FREE;
        self.free_places.push(place);
        self.operations.push(Packed::new(RELEASE, place, 0));
        Ok(())
    }

    /// Adds the release of an allocation that has been released before.
    ///
    /// # Errors
    /// Returns [`TraceError`] if it is one operation too many.
    pub fn release_again(&mut self, allocation: Allocation, line: u64) -> Result<(), TraceError> {
        self.position(line)?;
        self.again.push(allocation.0);
        // Which handle it is can only be numbered when all are known; until then, the allocation's position.
        self.operations.push(Packed::new(RELEASE_AGAIN, 0, allocation.0));
        Ok(())
    }

    /// The line that made an allocation which is alive.
    pub fn line_of(&self, allocation: Allocation) -> u64 {
        let packed = self.operations[allocation.0 as usize];
        self.lines[(packed.kind_and_place & ((1 << super::PLACE_BITS) - 1)) as usize]
    }

    /// The trace.
    ///
    /// # Errors
    /// Returns [`TraceError::NoAllocation`] if nothing was allocated.
    pub fn finish(mut self, format: Format) -> Result<Trace, TraceError> {
        if self.allocations == 0 {
            return Err(TraceError::NoAllocation);
        }
        let double_releases = self.again.len() as u64;
        self.again.sort_unstable();
        self.again.dedup();
        if !self.again.is_empty() {
            for &position in &self.again {
                self.operations[position as usize].kind_and_place |= ALLOCATE_WATCHED << super::PLACE_BITS;
            }
            for packed in &mut self.operations {
                if packed.kind_and_place >> super::PLACE_BITS == RELEASE_AGAIN {
                    let watched = self.again.partition_point(|&position| position < packed.size);
                    *packed = Packed::new(RELEASE_AGAIN, watched as u32, 0);
                }
            }
        }
        let mut leaks: Vec<Leak> = self
            .lines
            .iter()
            .zip(&self.sizes)
            .zip(0..)
            .filter(|&((&line, _), _)| line != FREE)
            .map(|((&line, &size), place)| Leak { size, line, place })
            .collect();
        leaks.sort_by_key(|leak| leak.line);
        Ok(Trace {
            places: self.lines.len() as u32,
            watched: self.again.len() as u32,
            peaks: Class::all().map(|class| (class, self.peaks[class.index()])).filter(|&(_, peak)| peak > 0).collect(),
            operations: self.operations,
            format,
            allocations: self.allocations,
            releases: self.releases,
            double_releases,
            leaks,
            total: self.total,
            peak: self.peak,
            skipped: self.skipped,
        })
    }

    /// The position of the operation that comes next, if there may be one more.
    fn position(&self, line: u64) -> Result<u32, TraceError> {
        let most = self.reading.most.min(1 << super::PLACE_BITS);
        if self.operations.len() as u64 >= most {
            return Err(TraceError::TooLong { line, most });
        }
        Ok(self.operations.len() as u32)
    }
}
