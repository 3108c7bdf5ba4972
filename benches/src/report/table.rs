//! Rows as tables for people.

use comfy_table::{CellAlignment, Table, presets};

use super::bars::Bar;
use super::row::Row;

/// One workload's rows.
pub fn workload(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let extras: Vec<&str> = first.extras.iter().map(|extra| extra.0).collect();
    let timed = first.median.is_finite();
    let mut header = vec!["subject", "kind"];
    if timed {
        header.extend(["ns", "p99"]);
    }
    header.extend(&extras);
    header.extend(["/ best peer", "/ best pool", "/ best allocator"]);
    if timed {
        header.push("/ atomic add");
    }

    let mut table = plain();
    table.set_header(header);
    for row in rows {
        let mut cells = vec![row.subject.to_string(), row.kind.name().to_string()];
        if timed {
            cells.extend([number(row.median), number(row.p99)]);
        }
        cells.extend(extras.iter().map(|name| number(row.extra(name).unwrap_or(f64::NAN))));
        let ratios = row.ratios;
        cells.extend([ratios.peer, ratios.pool, ratios.allocator].map(number));
        if timed {
            cells.push(number(ratios.atomic_add));
        }
        table.add_row(cells);
    }
    align(&mut table, 2);
    let threads = if first.threads == 1 { "thread" } else { "threads" };
    format!("{}, {} {threads}\n{table}\n", first.workload, first.threads)
}

/// The bars.
pub fn bars(bars: &[Bar]) -> String {
    let mut table = plain();
    table.set_header(["bar", "measured", "limit", ""]);
    for bar in bars {
        let verdict = match bar.reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "not run",
        };
        let measured = number(bar.value.unwrap_or(f64::NAN));
        table.add_row([&*bar.what, &measured, &number(bar.limit), verdict]);
    }
    for column in [1, 2] {
        align_one(&mut table, column);
    }
    format!("bars\n{table}\n")
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table
}

fn align(table: &mut Table, from: usize) {
    (from..table.column_count()).for_each(|column| align_one(table, column));
}

fn align_one(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
