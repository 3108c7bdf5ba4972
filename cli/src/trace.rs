//! Recorded traces: what a program allocated and freed, in order.
//!
//! A trace is read once, line by line, into eight bytes an operation. Reading does all the bookkeeping that a replay
//! needs, so that the replay itself only plays: every allocation is given a place in a table (places are used again,
//! so the table is as large as the most allocations that were ever alive together), the peak of every size class is
//! known, and an allocation that is released a second time later is marked, so that its handle can be kept.
//!
//! [`parse`] takes bytes and [`read`] takes any reader. Neither panics, whatever it is given, and neither holds more
//! than one line of text in memory.

use std::io::{self, BufRead};

use crate::classes::Class;

mod builder;
pub(crate) mod lines;
pub mod text;
pub mod valgrind;

pub use builder::Builder;
pub use lines::LONGEST_LINE;

/// The most operations that one run reads, unless told otherwise. They take 8 bytes each, and while they are read up to
/// 28: at most 1.4 GB.
pub const MOST_OPERATIONS: u64 = 50_000_000;

/// One operation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Allocate `size` bytes and keep them at `place` in the table.
    Allocate {
        /// Where in the table.
        place: u32,
        /// Bytes asked for.
        size: u32,
    },
    /// The same, of an allocation that the trace releases more than once: its handle is to be kept too. The handles
    /// are numbered from 0 in the order of these operations.
    AllocateWatched {
        /// Where in the table.
        place: u32,
        /// Bytes asked for.
        size: u32,
    },
    /// Release what is at `place`.
    Release {
        /// Where in the table.
        place: u32,
    },
    /// Release the allocation of this handle once more, although it has been released already.
    ReleaseAgain {
        /// The number of the handle.
        watched: u32,
    },
}

/// An [`Operation`] in eight bytes: two bits of kind, thirty of place, thirty-two of size.
#[derive(Clone, Copy, Debug)]
struct Packed {
    kind_and_place: u32,
    size: u32,
}

const PLACE_BITS: u32 = 30;
const ALLOCATE: u32 = 0;
const ALLOCATE_WATCHED: u32 = 1;
const RELEASE: u32 = 2;
const RELEASE_AGAIN: u32 = 3;

impl Packed {
    fn new(kind: u32, place: u32, size: u32) -> Packed {
        debug_assert!(place < 1 << PLACE_BITS, "the limit on operations keeps places below 2^30");
        Packed { kind_and_place: kind << PLACE_BITS | place, size }
    }

    #[inline]
    fn unpack(self) -> Operation {
        let place = self.kind_and_place & ((1 << PLACE_BITS) - 1);
        match self.kind_and_place >> PLACE_BITS {
            ALLOCATE => Operation::Allocate { place, size: self.size },
            ALLOCATE_WATCHED => Operation::AllocateWatched { place, size: self.size },
            RELEASE => Operation::Release { place },
            _ => Operation::ReleaseAgain { watched: place },
        }
    }
}

/// An allocation that the trace never released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Bytes asked for.
    pub size: u32,
    /// The line that allocated them, from 1.
    pub line: u64,
    /// The place in the table where they are at the end.
    pub place: u32,
}

/// What the trace's file held but a replay cannot repeat. Each is counted, none is guessed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Releases of blocks that no line before them allocated: a forked child frees what its parent allocated, and
    /// newer valgrinds do not log the address that `posix_memalign` returns.
    pub unknown_releases: u64,
    /// Allocations whose line does not say at which address.
    pub unanswered_allocations: u64,
    /// Allocations that failed in the recorded program too: they returned null.
    pub failed_allocations: u64,
    /// Lines in the shape of a call to a function that this program does not know.
    pub unknown_calls: u64,
}

impl Skipped {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.unknown_releases + self.unanswered_allocations + self.failed_allocations + self.unknown_calls
    }
}

/// Bytes asked for, and bytes of the slots that serve them. Ordered by what is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes {
    /// What the program asked for.
    pub asked: u64,
    /// What the slots of its size classes hold.
    pub slots: u64,
}

/// A trace, ready to be replayed.
#[derive(Debug)]
pub struct Trace {
    operations: Vec<Packed>,
    places: u32,
    watched: u32,
    peaks: Vec<(Class, u64)>,
    format: Format,
    allocations: u64,
    releases: u64,
    double_releases: u64,
    leaks: Vec<Leak>,
    total: Bytes,
    peak: Bytes,
    skipped: Skipped,
}

impl Trace {
    /// The operations, in order.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = Operation> + '_ {
        self.operations.iter().map(|packed| packed.unpack())
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is none; a trace that was read has at least one.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The size of the table that a replay needs: the most allocations alive together.
    pub fn places(&self) -> u32 {
        self.places
    }

    /// How many allocations are released more than once.
    pub fn watched(&self) -> u32 {
        self.watched
    }

    /// The most allocations alive together in each size class that the trace uses, by size.
    pub fn peaks(&self) -> &[(Class, u64)] {
        &self.peaks
    }

    /// How the trace was written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Allocations.
    pub fn allocations(&self) -> u64 {
        self.allocations
    }

    /// Releases, each of an allocation that was alive.
    pub fn releases(&self) -> u64 {
        self.releases
    }

    /// Releases of allocations that had been released before.
    pub fn double_releases(&self) -> u64 {
        self.double_releases
    }

    /// Allocations that were never released, in the order of their lines.
    pub fn leaks(&self) -> &[Leak] {
        &self.leaks
    }

    /// Bytes of all allocations added up.
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// Bytes alive together at the moment when they were most.
    pub fn peak(&self) -> Bytes {
        self.peak
    }

    /// What could not be repeated.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }
}

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Alloc(bytes),` and `Free(number),`, see [`text`].
    Text,
    /// The log of `valgrind --trace-malloc=yes`, see [`valgrind`].
    Valgrind,
}

impl Format {
    /// The format's name, as the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Valgrind => "valgrind",
        }
    }

    /// The format that a first line belongs to.
    pub(crate) fn of_line(line: &[u8]) -> Option<Format> {
        let line = line.trim_ascii_start();
        if text::begins(line) {
            Some(Format::Text)
        } else if valgrind::begins(line) {
            Some(Format::Valgrind)
        } else {
            None
        }
    }
}

/// How to read a trace.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The format, or none to tell it by the first line.
    pub format: Option<Format>,
    /// Stop after so many operations, and take that for the whole trace.
    pub first: Option<u64>,
    /// Refuse a trace of more operations than this.
    pub most: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Reading { format: None, first: None, most: MOST_OPERATIONS }
    }
}

/// Why a trace could not be read. [`TraceError::line`] says where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// There is nothing in it.
    #[error("the file is empty; expected a trace such as `Alloc(16),` or valgrind's `--123-- malloc(16) = 0x4A5B040`")]
    Empty,
    /// It has lines, but none of them allocates.
    #[error("no line of the file allocates anything; expected at least one allocation")]
    NoAllocation,
    /// It holds bytes that no text has.
    #[error("byte 0x{byte:02x} is not text; expected a trace of plain lines")]
    Binary {
        /// The line, from 1.
        line: u64,
        /// The byte.
        byte: u8,
    },
    /// A line does not end.
    #[error("the line is longer than {LONGEST_LINE} bytes; expected one operation a line")]
    LongLine {
        /// The line, from 1.
        line: u64,
    },
    /// The first line belongs to no known format.
    #[error(
        "`{found}` begins no known format; expected `Alloc(bytes),` or valgrind's `--PID-- malloc(bytes) = 0xADDRESS`"
    )]
    Unrecognised {
        /// The line, from 1.
        line: u64,
        /// What is written there.
        found: String,
    },
    /// A line is not what its format allows.
    #[error("found `{found}`; expected {expected}")]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// What the format has there.
        expected: &'static str,
        /// What is written there.
        found: String,
    },
    /// The file stops within its last line.
    #[error("the file is cut off within its last line, `{found}`; expected {expected}")]
    Truncated {
        /// The line, from 1.
        line: u64,
        /// What the format has there.
        expected: &'static str,
        /// What is written there.
        found: String,
    },
    /// A release comes before its allocation.
    #[error("releases allocation {number}, but only {made} were made before it; expected a number below {made}")]
    NeverAllocated {
        /// The line, from 1.
        line: u64,
        /// The allocation that it names.
        number: u64,
        /// How many there had been.
        made: u64,
    },
    /// The same address is handed out twice.
    #[error(
        "allocates address {address:#X}, which line {earlier} allocated and nothing has released since; \
         expected a log of one run (valgrind's --log-file=NAME.%p.log writes one file a process)"
    )]
    AllocatedTwice {
        /// The line, from 1.
        line: u64,
        /// The address.
        address: u64,
        /// The line that allocated it first.
        earlier: u64,
    },
    /// A line's time stamp is before that of the line above it.
    #[error("the time stamp {found} is earlier than {before} on the lines above it; expected time to go forward")]
    Backwards {
        /// The line, from 1.
        line: u64,
        /// The stamp.
        found: String,
        /// The stamp that it falls behind.
        before: String,
    },
    /// One allocation is too large.
    #[error("allocates {size} bytes; expected at most {} in one allocation", u32::MAX)]
    TooLarge {
        /// The line, from 1.
        line: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// There are too many operations.
    #[error(
        "there are more than the {most} operations that are left of {MOST_OPERATIONS} for all traces together; \
         replay the beginning with --first N"
    )]
    TooLong {
        /// The line of the first operation that is too many, from 1.
        line: u64,
        /// The most that are read.
        most: u64,
    },
    /// It could not be read at all.
    #[error("could not be read: {0}")]
    Io(#[from] io::Error),
}

impl TraceError {
    /// The line that the error is about, from 1, if it is about one.
    pub fn line(&self) -> Option<u64> {
        use TraceError::*;
        match *self {
            Empty | NoAllocation | Io(_) => None,
            Binary { line, .. }
            | LongLine { line }
            | Unrecognised { line, .. }
            | Malformed { line, .. }
            | Truncated { line, .. }
            | NeverAllocated { line, .. }
            | AllocatedTwice { line, .. }
            | Backwards { line, .. }
            | TooLarge { line, .. }
            | TooLong { line, .. } => Some(line),
        }
    }
}

/// Reads a trace from bytes in memory.
///
/// # Errors
/// Returns [`TraceError`] if the bytes are no trace. No bytes make it panic.
///
/// ```
/// let trace = tierpool_cli::trace::parse(b"Alloc(48),\nAlloc(7),\nFree(0),\nFree(0),\n")?;
/// assert_eq!((trace.allocations(), trace.releases(), trace.double_releases()), (2, 1, 1));
/// assert_eq!((trace.leaks()[0].size, trace.leaks()[0].line), (7, 2));
/// # Ok::<(), tierpool_cli::trace::TraceError>(())
/// ```
pub fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    read(bytes, Reading::default())
}

/// Reads a trace from a reader, one line at a time.
///
/// # Errors
/// Returns [`TraceError`] if what is read is no trace, is too long, or cannot be read.
pub fn read(reader: impl BufRead, reading: Reading) -> Result<Trace, TraceError> {
    let mut lines = lines::Lines::new(reader);
    let format = loop {
        let Some(line) = lines.peek()? else { return Err(TraceError::Empty) };
        if line.text.is_empty() {
            lines.skip();
            continue;
        }
        let (number, found) = (line.number, line.text);
        match reading.format.or_else(|| Format::of_line(found)) {
            Some(format) => break format,
            None => return Err(TraceError::Unrecognised { line: number, found: lines::shown(found) }),
        }
    };
    let mut builder = Builder::new(reading);
    match format {
        Format::Text => text::read(&mut lines, &mut builder)?,
        Format::Valgrind => valgrind::read(&mut lines, &mut builder)?,
    }
    builder.finish(format)
}
