//! Lines of bounded length, whatever the file is.

use std::io::BufRead;

use super::TraceError;

/// The longest line that is read, in bytes. Operations are far shorter; valgrind's header may hold a long command.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The most characters of a line that an error shows.
const SHOWN: usize = 60;

/// One line, without what ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub number: u64,
    /// Its bytes, without `\n` and without a `\r` before that.
    pub text: &'a [u8],
    /// Whether it ended in a newline. Only a file's last line may not.
    pub ended: bool,
}

impl Line<'_> {
    /// The error that this line is not what was expected: cut off if it is a last line without end, else malformed.
    pub fn unexpected(&self, expected: &'static str) -> TraceError {
        let (line, found) = (self.number, shown(self.text));
        if self.ended {
            TraceError::Malformed { line, expected, found }
        } else {
            TraceError::Truncated { line, expected, found }
        }
    }
}

/// Reads lines and refuses long ones and binary ones.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u64,
    ended: bool,
    peeked: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Self {
        Lines { reader, buffer: Vec::new(), number: 0, ended: true, peeked: false }
    }

    /// The next line, or none at the end of the file.
    pub fn next(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        let some = self.fill()?;
        self.peeked = false;
        Ok(some.then(|| self.line()))
    }

    /// The next line, which stays the next.
    pub fn peek(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        let some = self.fill()?;
        Ok(some.then(|| self.line()))
    }

    /// Goes past a line that was peeked at.
    pub fn skip(&mut self) {
        self.peeked = false;
    }

    fn line(&self) -> Line<'_> {
        Line { number: self.number, text: &self.buffer, ended: self.ended }
    }

    fn fill(&mut self) -> Result<bool, TraceError> {
        if self.peeked {
            return Ok(true);
        }
        self.buffer.clear();
        self.ended = false;
        let number = self.number + 1;
        while !self.ended {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if available.is_empty() {
                break;
            }
            let newline = available.iter().position(|&byte| byte == b'\n');
            let taken = &available[..newline.unwrap_or(available.len())];
            if let Some(&byte) = taken.iter().find(|&&byte| byte < b' ' && !matches!(byte, b'\t' | b'\r')) {
                return Err(TraceError::Binary { line: number, byte });
            }
            if self.buffer.len() + taken.len() > LONGEST_LINE {
                return Err(TraceError::LongLine { line: number });
            }
            self.buffer.extend_from_slice(taken);
            self.ended = newline.is_some();
            let consumed = taken.len() + usize::from(self.ended);
            self.reader.consume(consumed);
        }
        if self.buffer.is_empty() && !self.ended {
            return Ok(false);
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        self.number = number;
        self.peeked = true;
        Ok(true)
    }
}

/// A line as an error shows it: short, and without anything that would disturb a terminal.
pub(crate) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN)]);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
