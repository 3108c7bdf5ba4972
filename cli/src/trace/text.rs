//! The text format: `Alloc(bytes),` or `Free(number),` on each line.
//!
//! The number in `Free` is that of the allocation, from 0, in order of appearance. A second `Free` of the same number
//! is a double release; a `Free` of a number that has not appeared yet is an error. Empty lines, spaces around a line
//! and Windows line ends are allowed, and the comma may be missing.

use std::io::BufRead;

use super::builder::Allocation;
use super::lines::Lines;
use super::{Builder, TraceError};

const EXPECTED: &str = "`Alloc(bytes),` or `Free(number),`";

/// Whether a line begins like this format.
pub(super) fn begins(line: &[u8]) -> bool {
    line.starts_with(b"Alloc(") || line.starts_with(b"Free(")
}

pub(super) fn read(lines: &mut Lines<impl BufRead>, builder: &mut Builder) -> Result<(), TraceError> {
    let mut allocations: Vec<(Allocation, bool)> = Vec::new();
    while !builder.is_full() {
        let Some(line) = lines.next()? else { break };
        let text = line.text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match operation(text) {
            Some(Line::Alloc(size)) => allocations.push((builder.allocate(size, line.number)?, true)),
            Some(Line::Free(number)) => {
                let made = allocations.len() as u64;
                let allocation = usize::try_from(number).ok().and_then(|index| allocations.get_mut(index));
                match allocation {
                    Some((allocation, alive @ true)) => {
                        *alive = false;
                        builder.release(*allocation, line.number)?;
                    }
                    Some((allocation, false)) => builder.release_again(*allocation, line.number)?,
                    None => return Err(TraceError::NeverAllocated { line: line.number, number, made }),
                }
            }
            None => return Err(line.unexpected(EXPECTED)),
        }
    }
    Ok(())
}

enum Line {
    Alloc(u64),
    Free(u64),
}

fn operation(text: &[u8]) -> Option<Line> {
    let text = text.strip_suffix(b",").unwrap_or(text).strip_suffix(b")")?;
    if let Some(size) = text.strip_prefix(b"Alloc(") {
        return super::valgrind::decimal(size).map(Line::Alloc);
    }
    text.strip_prefix(b"Free(").and_then(super::valgrind::decimal).map(Line::Free)
}
