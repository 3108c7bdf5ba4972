//! Hit rates as a table for a terminal, and as JSON for a program.

use std::fmt::Write;

use comfy_table::CellAlignment;

use super::curve::Point;
use super::keys::{Keys, Kind};
use super::policies::Policy;
use crate::table::headed;
use crate::units::{count, counted, percent};

/// One object a line.
///
/// # Errors
/// If an object cannot be written.
pub fn json(file: &str, points: &[Point]) -> serde_json::Result<String> {
    let mut out = String::new();
    for point in points {
        let mut object = serde_json::to_value(point)?;
        object["file"] = file.into();
        out.push_str(&serde_json::to_string(&object)?);
        out.push('\n');
    }
    Ok(out)
}

/// A line for each capacity, a column for each policy, as text for a terminal.
pub fn text(file: &str, keys: &Keys, points: &[Point]) -> String {
    const HEADER: [&str; 2 + Policy::ALL.len()] =
        ["entries", "of all keys", "tierpool", "lru", "quick_cache", "moka", "belady"];
    let mut table = headed(HEADER);
    for row in points.chunks(Policy::ALL.len()) {
        let part = row[0].capacity as f64 / f64::from(keys.distinct());
        let mut cells = vec![count(row[0].capacity as u64), percent(part)];
        cells.extend(row.iter().map(|point| percent(point.hit_rate)));
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{file}: {} for {} different {}",
        counted(keys.requests().len() as u64, "request"),
        count(keys.distinct().into()),
        keys.kind().name()
    );
    let _ = writeln!(out, "\n{}\n", table.trim_fmt());
    let _ = writeln!(
        out,
        "  Requests that hit. tierpool: a pool's cache over as many slots as there are entries. belady: the most that\n  any cache could do that knows the future."
    );
    if keys.kind() == Kind::Sizes {
        let _ = writeln!(
            out,
            "  A program that allocates asks for no keys: `tierpool replay` shows how many of its allocations are served\n  from what is at hand in the threads' magazines."
        );
    }
    out
}
