//! Traces of keys, from whatever they are written in, told by the first bytes: compressed with zstd or not, and then lines of runs of blocks
//! (`first_block n_blocks 0 request_number`, as the ARC traces have them), of an allocation trace, whose sizes are the keys, or of a CSV.
//!
//! Nothing that a file holds makes this panic, and no line of it is taken for granted: no more of a file is kept in memory than one line, and
//! the numbers of its keys.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::StreamingDecoder;

use super::keys::{Builder, Keys, Kind, MOST_REQUESTS};
use crate::trace::lines::{Lines, shown};
use crate::trace::{self, Format, Operation, Reading, TraceError};

/// Why keys could not be read. [`KeysError::line`] says where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// There is nothing in it.
    #[error(
        "no key is in the file; expected lines `first_block n_blocks 0 request_number`, a CSV whose first column is the key, or an \
         allocation trace"
    )]
    Empty,
    /// A line is not a run of blocks.
    #[error("found `{found}`; expected {expected}, as in `first_block n_blocks 0 request_number`")]
    Blocks {
        /// The line, from 1.
        line: u64,
        /// What belongs there.
        expected: &'static str,
        /// What is written there.
        found: String,
    },
    /// A line of a CSV has no such field, or is no CSV.
    #[error("found `{found}`; expected a field in column {column} of the CSV")]
    Field {
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: usize,
        /// What is written there.
        found: String,
    },
    /// The header does not name the column.
    #[error("no column is named {column:?} in the header `{found}`; name one of those, or none for the first")]
    Column {
        /// The line of the header, from 1.
        line: u64,
        /// The column that was asked for.
        column: String,
        /// The header.
        found: String,
    },
    /// A column was asked for, and the file has none.
    #[error("the file is no CSV, but {kind}: it has no column {column:?}; leave --column out")]
    NoColumns {
        /// What the file holds.
        kind: &'static str,
        /// The column that was asked for.
        column: String,
    },
    /// There are too many requests.
    #[error(
        "there are more than {MOST_REQUESTS} requests, which are the most that are read; cut the trace with `head`"
    )]
    TooLong {
        /// The line of the first request that is too many, from 1.
        line: u64,
    },
    /// What zstd has compressed is damaged, or not all there.
    #[error("the zstd data is damaged or cut off ({problem}); test it with `zstd -t`, and fetch it again")]
    Compressed {
        /// The line at which no more could be read, from 1.
        line: u64,
        /// What the decoder says.
        problem: String,
    },
    /// It is no text, or no allocation trace, or could not be read at all.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl KeysError {
    /// The line that the error is about, from 1, if it is about one.
    pub fn line(&self) -> Option<u64> {
        use KeysError::*;
        match self {
            Empty | NoColumns { .. } => None,
            Blocks { line, .. }
            | Field { line, .. }
            | Column { line, .. }
            | TooLong { line }
            | Compressed { line, .. } => Some(*line),
            Trace(error) => error.line(),
        }
    }
}

/// How a zstd frame begins.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Reads keys; of a CSV those of the column of that name, or else of the first.
///
/// # Errors
/// [`KeysError`].
///
/// ```
/// use tierpool_cli::cache::read;
///
/// let keys = read(&b"17 3 0 0\n18 1 0 1\n"[..], None)?;
/// assert_eq!(keys.requests(), [0, 1, 2, 1]);
/// # Ok::<(), tierpool_cli::cache::KeysError>(())
/// ```
pub fn read(reader: impl Read, column: Option<&str>) -> Result<Keys, KeysError> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    if beginning(&mut reader)?.starts_with(&ZSTD) {
        let damaged = |line: u64, problem: String| KeysError::Compressed { line, problem };
        let plain = StreamingDecoder::new(reader).map_err(|error| damaged(1, error.to_string()))?;
        let mut line = 1;
        return lines(BufReader::with_capacity(1 << 16, plain), column, &mut line).map_err(|error| match error {
            KeysError::Trace(TraceError::Io(error)) => damaged(line, error.to_string()),
            error => error,
        });
    }
    lines(reader, column, &mut 1)
}

/// The first bytes, which stay there.
fn beginning(reader: &mut impl BufRead) -> Result<&[u8], TraceError> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    // It is there: nothing is read again.
    Ok(reader.fill_buf()?)
}

fn lines(mut reader: impl BufRead, column: Option<&str>, at: &mut u64) -> Result<Keys, KeysError> {
    let first = beginning(&mut reader)?;
    let first = first.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let kind = if Format::of_line(first).is_some() {
        Kind::Sizes
    } else if column.is_none() && is_run(first) {
        Kind::Blocks
    } else {
        Kind::Csv
    };
    match (kind, column) {
        (Kind::Sizes, Some(column)) => {
            Err(KeysError::NoColumns { kind: "an allocation trace", column: column.to_owned() })
        }
        (Kind::Sizes, None) => sizes(reader),
        (Kind::Blocks, _) => blocks(&mut Lines::new(reader), at),
        (Kind::Csv, _) => csv_keys(&mut Lines::new(reader), column, at),
    }
}

/// Whether a line looks like a run of blocks: words of digits, four of them.
fn is_run(line: &[u8]) -> bool {
    let mut words = 0;
    for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        words += 1;
        if !word.iter().all(u8::is_ascii_digit) {
            return false;
        }
    }
    words == 4
}

/// The sizes that a program allocated.
fn sizes(reader: impl BufRead) -> Result<Keys, KeysError> {
    let trace = trace::read(reader, Reading { most: MOST_REQUESTS, ..Reading::default() })?;
    let mut keys = Builder::new(Kind::Sizes);
    for operation in trace.operations() {
        if let Operation::Allocate { size, .. } | Operation::AllocateWatched { size, .. } = operation {
            keys.number(size.into());
        }
    }
    Ok(keys.finish())
}

/// Runs of blocks, each block a request.
fn blocks(lines: &mut Lines<impl BufRead>, at: &mut u64) -> Result<Keys, KeysError> {
    let mut keys = Builder::new(Kind::Blocks);
    while let Some(line) = lines.next()? {
        *at = line.number + 1;
        let number = line.number;
        if line.text.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |expected| KeysError::Blocks { line: number, expected, found: shown(line.text) };
        let mut words = line.text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut next = |expected| {
            let word = words.next().and_then(|word| std::str::from_utf8(word).ok());
            word.and_then(|word| word.parse::<u64>().ok()).ok_or_else(|| wrong(expected))
        };
        let (first, run) = (next("the number of a block first")?, next("a number of blocks second")?);
        next("a zero third")?;
        next("the number of the request last")?;
        if words.next().is_some() {
            return Err(wrong("four numbers"));
        }
        if run == 0 {
            return Err(wrong("at least one block"));
        }
        let last = first.checked_add(run - 1).ok_or_else(|| wrong("blocks whose numbers have 64 bits"))?;
        if keys.len().saturating_add(run) > MOST_REQUESTS {
            return Err(KeysError::TooLong { line: number });
        }
        (first..=last).for_each(|block| keys.number(block));
    }
    if keys.is_empty() { Err(KeysError::Empty) } else { Ok(keys.finish()) }
}

/// A column of a CSV.
///
/// Its first line is a header if a column was asked for, if its first field is `key`, or if that is no number and the next line's is.
fn csv_keys(lines: &mut Lines<impl BufRead>, column: Option<&str>, at: &mut u64) -> Result<Keys, KeysError> {
    let mut keys = Builder::new(Kind::Csv);
    let mut index = 0;
    // The first line, until it is known what it is.
    let mut doubtful: Option<Vec<u8>> = None;
    let mut is_first = true;
    while let Some(line) = lines.next()? {
        *at = line.number + 1;
        let number = line.number;
        if line.text.trim_ascii().is_empty() {
            continue;
        }
        let missing = |index: usize| KeysError::Field { line: number, column: index + 1, found: shown(line.text) };
        if std::mem::take(&mut is_first) {
            if let Some(name) = column {
                let unknown = || KeysError::Column { line: number, column: name.to_owned(), found: shown(line.text) };
                index = place(line.text, name).ok_or_else(unknown)?;
                continue;
            }
            let found = field(line.text, 0).ok_or_else(|| missing(0))?;
            match () {
                () if found.eq_ignore_ascii_case(b"key") => {}
                () if is_number(&found) => keys.text(&found),
                () => doubtful = Some(found),
            }
            continue;
        }
        let found = field(line.text, index).ok_or_else(|| missing(index))?;
        if let Some(first) = doubtful.take().filter(|_| !is_number(&found)) {
            keys.text(&first);
        }
        if keys.len() >= MOST_REQUESTS {
            return Err(KeysError::TooLong { line: number });
        }
        keys.text(&found);
    }
    if let Some(only) = doubtful {
        keys.text(&only);
    }
    if keys.is_empty() { Err(KeysError::Empty) } else { Ok(keys.finish()) }
}

fn is_number(field: &[u8]) -> bool {
    std::str::from_utf8(field).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// A field of a line, without its quotation marks and the blanks around it; `None` if it has none there, or an empty one.
fn field(line: &[u8], index: usize) -> Option<Vec<u8>> {
    let found = fields(line).nth(index)?;
    (!found.is_empty()).then_some(found)
}

/// Where a header names a column.
fn place(header: &[u8], name: &str) -> Option<usize> {
    fields(header).position(|field| field.eq_ignore_ascii_case(name.as_bytes()))
}

fn fields(line: &[u8]) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
    if !line.contains(&b'"') {
        return Box::new(line.split(|&byte| byte == b',').map(|field| field.trim_ascii().to_vec()));
    }
    let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line);
    let record = reader.into_byte_records().next().and_then(Result::ok).unwrap_or_default();
    let all: Vec<_> = record.iter().map(|field| field.trim_ascii().to_vec()).collect();
    Box::new(all.into_iter())
}
