//! Requests to a model server as demand for the blocks of a KV cache.
//!
//! The recording is a CSV of `TIMESTAMP,ContextTokens,GeneratedTokens`, as Azure publishes of its inference services. A request takes
//! a block for every [`TOKENS_A_BLOCK`] tokens of its context, all at once or none; one more whenever so many tokens have been
//! generated; and gives all back after its last token.

use std::path::Path;
use std::time::Duration;

use jiff::civil::DateTime;
use serde::Deserialize;

/// Tokens whose keys and values are in one block.
pub const TOKENS_A_BLOCK: u64 = 16;
/// How long a token takes to be generated.
pub const A_TOKEN: Duration = Duration::from_millis(20);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inference {
    /// When it arrives, after the first one.
    pub at: Duration,
    /// Blocks that it takes at once.
    pub blocks: usize,
    /// Tokens that it generates after that.
    pub tokens: u64,
}

impl Inference {
    /// How long it generates.
    pub fn time(&self) -> Duration {
        A_TOKEN.saturating_mul(u32::try_from(self.tokens).unwrap_or(u32::MAX))
    }

    /// Blocks times seconds: what it holds over its life.
    pub fn block_seconds(&self) -> f64 {
        let steps = self.tokens / TOKENS_A_BLOCK;
        let rest = self.tokens % TOKENS_A_BLOCK;
        let (a_step, a_token) = (A_TOKEN.as_secs_f64() * TOKENS_A_BLOCK as f64, A_TOKEN.as_secs_f64());
        let grown: f64 = (0..steps).map(|step| step as f64 * a_step).sum::<f64>() + (steps * rest) as f64 * a_token;
        self.blocks as f64 * self.time().as_secs_f64() + grown
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "TIMESTAMP")]
    timestamp: String,
    #[serde(rename = "ContextTokens")]
    context: u64,
    #[serde(rename = "GeneratedTokens")]
    generated: u64,
}

/// Reads a recording.
///
/// # Errors
/// A sentence with the file and the line.
pub fn read(path: &Path) -> Result<Vec<Inference>, String> {
    let mut reader = csv::Reader::from_path(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut all = Vec::new();
    let mut first: Option<DateTime> = None;
    for (line, row) in (2..).zip(reader.deserialize::<Line>()) {
        let at = |problem: String| format!("{}, line {line}: {problem}", path.display());
        let row = row.map_err(|error| at(error.to_string()))?;
        let time: DateTime = row.timestamp.parse().map_err(|error| at(format!("{:?}: {error}", row.timestamp)))?;
        let begun = *first.get_or_insert(time);
        let after = time.duration_since(begun);
        let after = Duration::try_from(after).map_err(|_| at(format!("{time} is before the first request")))?;
        let blocks = usize::try_from(row.context.div_ceil(TOKENS_A_BLOCK)).unwrap_or(usize::MAX).max(1);
        all.push(Inference { at: after, blocks, tokens: row.generated });
    }
    all.sort_by_key(|request| request.at);
    match all.is_empty() {
        true => Err(format!("{}: no request is in it", path.display())),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Inference>, String> {
        let file = std::env::temp_dir().join(format!("tierpool-kv-{}-{}.csv", std::process::id(), text.len()));
        std::fs::write(&file, text).unwrap();
        let outcome = read(&file);
        std::fs::remove_file(&file).unwrap();
        outcome
    }

    const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";

    #[test]
    fn a_recording_is_read_with_times_from_its_first_request_across_midnight() {
        let text = format!("{HEADER}2023-11-16 23:59:59.9799600,4808,40\r\n2023-11-17 00:00:00.0799600,0,8");
        let all = read_text(&text).unwrap();
        assert_eq!(all[0], Inference { at: Duration::ZERO, blocks: 301, tokens: 40 });
        assert_eq!(all[1], Inference { at: Duration::from_millis(100), blocks: 1, tokens: 8 });
        assert_eq!(all[0].time(), Duration::from_millis(800));
        // 301 blocks for 0.8 s; one more after 0.32 s, and another after 0.64 s.
        assert!((all[0].block_seconds() - (301.0 * 0.8 + 0.48 + 0.16)).abs() < 1e-9, "{}", all[0].block_seconds());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let of = |line: &str| read_text(&format!("{HEADER}2023-11-16 10:00:00.0,1,1\r\n{line}")).unwrap_err();
        assert!(of("2023-11-16 10:00:00.0,x,1").contains("line 3"), "{}", of("2023-11-16 10:00:00.0,x,1"));
        assert!(of("yesterday,1,1").contains("line 3: \"yesterday\""), "{}", of("yesterday,1,1"));
        assert!(of("2023-11-16 09:00:00.0,1,1").contains("before the first"));
        assert!(read_text(HEADER).unwrap_err().contains("no request"));
        assert!(read(Path::new("/nowhere.csv")).unwrap_err().contains("/nowhere.csv"));
    }
}
