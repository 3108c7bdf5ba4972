//! The log that valgrind writes with `--trace-malloc=yes`, the shapes of which were read off versions 3.19 and later.
//!
//! Any program can be recorded so, without a change to it:
//!
//! ```text
//! valgrind -q --tool=dhat --dhat-out-file=/dev/null --trace-malloc=yes \
//!          --run-libc-freeres=no --run-cxx-freeres=no --log-file=NAME.%p.log PROGRAM ARGUMENTS
//! ```
//!
//! Every tool of valgrind that watches the heap can do it: `dhat` is fast; `memcheck` holds freed addresses back for a
//! while, so that it also shows double frees. (`--tool=none` cannot.) `%p` gives each process a file of its own, and
//! the two `freeres` options leave out what valgrind itself frees at exit.
//!
//! A line is `--PID-- call(arguments) = address`, with a time stamp before the process id under `--time-stamp=yes`.
//! A call that is served by another has no result of its own and stands before that one on the same line:
//! `realloc(0x0,12)malloc(12) = 0x4D6E470`. Lines of `==PID==` are valgrind's remarks.

use std::collections::HashMap;
use std::io::BufRead;

use super::builder::Allocation;
use super::lines::{Line, Lines};
use super::{Builder, TraceError};

const LINE: &str = "a line of valgrind's log such as `--123-- malloc(16) = 0x4A5B040` \
                    (with --log-file the program's own output stays out of it)";
const CALL: &str = "a call such as `malloc(16) = 0x4A5B040`, `realloc(0x4A5B040,32) = 0x4A5B090` or `free(0x4A5B090)`";

/// Whether a line begins like this format.
pub(super) fn begins(line: &[u8]) -> bool {
    prefix(line).is_some()
}

pub(super) fn read(lines: &mut Lines<impl BufRead>, builder: &mut Builder) -> Result<(), TraceError> {
    let mut heap = Heap { blocks: HashMap::new(), builder };
    let mut latest: HashMap<u64, Vec<u8>> = HashMap::new();
    while !heap.builder.is_full() {
        let Some(line) = lines.next()? else { break };
        let text = line.text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let Some(prefix) = prefix(text) else { return Err(line.unexpected(LINE)) };
        if !line.ended {
            // An address that was cut short looks like any other.
            return Err(line.unexpected("a line that ends in a newline, as valgrind ends all of them"));
        }
        if let Some(stamp) = prefix.stamp {
            let before = latest.entry(prefix.process).or_default();
            if stamp < before.as_slice() {
                let [found, before] = [stamp, before].map(|stamp| String::from_utf8_lossy(stamp).into_owned());
                return Err(TraceError::Backwards { line: line.number, found, before });
            }
            before.clear();
            before.extend_from_slice(stamp);
        }
        if prefix.is_trace {
            heap.line(prefix.process, prefix.rest, &line)?;
        }
    }
    Ok(())
}

/// What stands before a call.
struct Prefix<'a> {
    process: u64,
    /// `DD:HH:MM:SS.mmm`: fixed widths, so that it compares as text.
    stamp: Option<&'a [u8]>,
    /// `--`, not a remark in `==` or `**`.
    is_trace: bool,
    rest: &'a [u8],
}

fn prefix(line: &[u8]) -> Option<Prefix<'_>> {
    let mark: &[u8; 2] = line.first_chunk()?;
    if !matches!(mark, b"--" | b"==" | b"**") {
        return None;
    }
    let line = &line[2..];
    let end = line.windows(2).position(|two| two == mark)?;
    let inner = &line[..end];
    let (stamp, process) = match inner.iter().position(|&byte| byte == b' ') {
        Some(space) => (Some(&inner[..space]), &inner[space + 1..]),
        None => (None, inner),
    };
    if stamp.is_some_and(|stamp| !stamp.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'))) {
        return None;
    }
    Some(Prefix {
        process: decimal(process)?,
        stamp,
        is_trace: mark == b"--",
        rest: line[end + 2..].trim_ascii_start(),
    })
}

/// The blocks of all processes: which allocation is at an address, and whether it is alive.
struct Heap<'a> {
    blocks: HashMap<(u64, u64), (Allocation, bool)>,
    builder: &'a mut Builder,
}

impl Heap<'_> {
    /// Plays the calls of one line. What does not begin with a call is chatter of valgrind's, or `= 0`, the answer to a
    /// realloc to nothing whose free stood on the line above.
    fn line(&mut self, process: u64, mut rest: &[u8], line: &Line<'_>) -> Result<(), TraceError> {
        let mut calls = 0;
        while let Some((name, after)) = name(rest) {
            calls += 1;
            let kind = Kind::of(name);
            let Some((call, after)) = call(after) else {
                if kind == Kind::Unknown {
                    self.builder.skipped.unknown_calls += 1;
                    return Ok(());
                }
                return Err(line.unexpected(CALL));
            };
            self.play(process, kind, &call, !after.is_empty(), line)?;
            rest = after;
        }
        if calls > 0 && !rest.is_empty() { Err(line.unexpected(CALL)) } else { Ok(()) }
    }

    /// Plays one call; `more` calls follow on its line.
    fn play(&mut self, process: u64, kind: Kind, call: &Call, more: bool, line: &Line<'_>) -> Result<(), TraceError> {
        let expected = || line.unexpected(CALL);
        match (kind, call.arguments()) {
            (Kind::Ignored, _) => Ok(()),
            (Kind::Unknown, _) => {
                self.builder.skipped.unknown_calls += 1;
                Ok(())
            }
            (Kind::Release, &[address, ..]) => self.release(process, address, line.number),
            (Kind::Allocate, &[first, ..]) => {
                self.allocate(process, call.result, call.size.unwrap_or(first), line.number)
            }
            (Kind::AllocateAligned, _) => {
                self.allocate(process, call.result, call.size.ok_or_else(expected)?, line.number)
            }
            (Kind::AllocateArray, &[count, size]) => {
                // A product that overflows can only have failed.
                match (call.result, count.checked_mul(size)) {
                    (result, Some(size)) => self.allocate(process, result, size, line.number),
                    (None | Some(0), None) => {
                        self.builder.skipped.failed_allocations += 1;
                        Ok(())
                    }
                    (Some(_), None) => Err(expected()),
                }
            }
            (Kind::Reallocate, _) if call.result.is_none() && more => Ok(()),
            (Kind::Reallocate, &[old, size]) => self.reallocate(process, old, size, call.result, line.number),
            (Kind::Reallocate, &[old, count, size]) => {
                let size = count.checked_mul(size).ok_or_else(expected)?;
                self.reallocate(process, old, size, call.result, line.number)
            }
            _ => Err(expected()),
        }
    }

    fn allocate(&mut self, process: u64, result: Option<u64>, size: u64, line: u64) -> Result<(), TraceError> {
        match result {
            None => self.builder.skipped.unanswered_allocations += 1,
            Some(0) => self.builder.skipped.failed_allocations += 1,
            Some(address) => {
                if let Some(&(earlier, true)) = self.blocks.get(&(process, address)) {
                    let earlier = self.builder.line_of(earlier);
                    return Err(TraceError::AllocatedTwice { line, address, earlier });
                }
                let allocation = self.builder.allocate(size, line)?;
                self.blocks.insert((process, address), (allocation, true));
            }
        }
        Ok(())
    }

    fn release(&mut self, process: u64, address: u64, line: u64) -> Result<(), TraceError> {
        if address == 0 {
            return Ok(()); // free(NULL) is nothing.
        }
        match self.blocks.get_mut(&(process, address)) {
            Some((allocation, alive @ true)) => {
                *alive = false;
                self.builder.release(*allocation, line)
            }
            Some((allocation, false)) => self.builder.release_again(*allocation, line),
            None => {
                self.builder.skipped.unknown_releases += 1;
                Ok(())
            }
        }
    }

    /// A reallocation is an allocation and then a release, as it is for a pool.
    fn reallocate(
        &mut self,
        process: u64,
        old: u64,
        size: u64,
        result: Option<u64>,
        line: u64,
    ) -> Result<(), TraceError> {
        match result {
            Some(0) if size == 0 => self.release(process, old, line),
            None | Some(0) => self.allocate(process, result, size, line),
            Some(_) => {
                // The block may stay where it is, so the old one leaves its address before the new one takes it.
                let moved = match self.blocks.get(&(process, old)) {
                    Some(&(allocation, true)) => {
                        self.blocks.remove(&(process, old));
                        Some(allocation)
                    }
                    _ => None,
                };
                self.allocate(process, result, size, line)?;
                match moved {
                    Some(allocation) => {
                        self.builder.release(allocation, line)?;
                        // Its old address, unless that is the new one too, names a released block.
                        self.blocks.entry((process, old)).or_insert((allocation, false));
                        Ok(())
                    }
                    None if result == Some(old) => Ok(()),
                    None => self.release(process, old, line),
                }
            }
        }
    }
}

/// What a function does to the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first argument is the size, unless one is labelled so.
    Allocate,
    /// One argument is labelled as the size.
    AllocateAligned,
    /// A count and a size.
    AllocateArray,
    /// An address and a size, or an address, a count and a size.
    Reallocate,
    /// The first argument is the address.
    Release,
    /// Asks, and changes nothing.
    Ignored,
    Unknown,
}

impl Kind {
    fn of(name: &[u8]) -> Kind {
        match name {
            b"malloc" | b"__builtin_new" | b"__builtin_vec_new" => Kind::Allocate,
            b"memalign" | b"aligned_alloc" | b"posix_memalign" => Kind::AllocateAligned,
            b"calloc" => Kind::AllocateArray,
            b"realloc" | b"reallocf" | b"reallocarray" => Kind::Reallocate,
            b"free" | b"cfree" | b"free_sized" | b"free_aligned_sized" => Kind::Release,
            b"__builtin_delete" | b"__builtin_vec_delete" => Kind::Release,
            b"malloc_usable_size" | b"malloc_size" | b"mallinfo" => Kind::Ignored,
            // The C++ operators, mangled: new, new[], delete and delete[] in all their forms.
            _ if name.starts_with(b"_Znw") || name.starts_with(b"_Zna") => Kind::Allocate,
            _ if name.starts_with(b"_Zdl") || name.starts_with(b"_Zda") => Kind::Release,
            _ => Kind::Unknown,
        }
    }
}

/// A call's arguments and its result.
#[derive(Debug, Default)]
struct Call {
    values: [u64; MOST_ARGUMENTS],
    count: usize,
    /// The argument that is labelled `size`.
    size: Option<u64>,
    /// What stands behind `=`.
    result: Option<u64>,
}

/// No function has more.
const MOST_ARGUMENTS: usize = 4;

impl Call {
    fn arguments(&self) -> &[u64] {
        &self.values[..self.count]
    }
}

/// Splits `name(` off.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
    (end > 0 && text[end] == b'(').then(|| (&text[..end], &text[end + 1..]))
}

/// Reads `arguments) = result` after `name(`, and gives what follows.
fn call(text: &[u8]) -> Option<(Call, &[u8])> {
    let close = text.iter().position(|&byte| byte == b')')?;
    let mut call = Call::default();
    let list = text[..close].trim_ascii();
    if !list.is_empty() {
        for argument in list.split(|&byte| byte == b',') {
            let argument = argument.trim_ascii();
            let (label, value) = match argument.iter().position(|&byte| byte == b' ') {
                Some(space) => (&argument[..space], &argument[space + 1..]),
                None => (&b""[..], argument),
            };
            let value = number(value)?;
            *call.values.get_mut(call.count)? = value;
            call.count += 1;
            if label == b"size" {
                call.size = Some(value);
            }
        }
    }
    let rest = text[close + 1..].trim_ascii_start();
    let Some(after) = rest.strip_prefix(b"=") else { return Some((call, rest)) };
    let after = after.trim_ascii_start();
    let end = after.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(after.len());
    call.result = Some(number(&after[..end])?);
    Some((call, after[end..].trim_ascii_start()))
}

/// A decimal or `0x` hexadecimal number.
fn number(digits: &[u8]) -> Option<u64> {
    match digits.strip_prefix(b"0x") {
        Some(hex) if !hex.is_empty() && hex.iter().all(u8::is_ascii_hexdigit) => {
            u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
        }
        Some(_) => None,
        None => decimal(digits),
    }
}

/// A decimal number, of digits only.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
