//! Both runs of a load side by side: as a table for a terminal, and as a chart.

use std::fmt::Write;
use std::path::Path;

use comfy_table::CellAlignment;
use plotters::prelude::*;

use super::load::{Load, Recording};
use super::run::{Got, Run};
use crate::table::headed;
use crate::units::{count, counted, nanos, percent};

/// Both runs as text for a terminal.
pub fn text(load: &Load, without: &Run, with: &Run) -> String {
    let mut table = headed(["tenant", "rules", "due", "got", "served", "refused", "wait 50 %", "wait 99 %", "longest"]);
    let ms = |ms: f64| nanos(ms * 1e6);
    for (before, after) in without.tenants.iter().zip(&with.tenants) {
        let urgency = format!("({})", format!("{:?}", after.priority).to_lowercase());
        for (name, rules, got) in [(before.tenant.as_str(), "without", before), (urgency.as_str(), "with", after)] {
            table.add_row([
                name.to_owned(),
                rules.to_owned(),
                format!("{:.1}", got.due_slots),
                format!("{:.1}", got.got_slots),
                got.served.to_string(),
                refusals(got),
                ms(got.wait_p50_ms),
                ms(got.wait_p99_ms),
                ms(got.wait_max_ms),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = String::new();
    for tenant in &load.tenants {
        let name = &tenant.name;
        let _ = match (&tenant.requests, tenant.recording()) {
            (_, Some(Recording { file, speed, times, .. })) => {
                let times = if *times == 1 { String::new() } else { format!(", each request {times} times") };
                writeln!(out, "{name}: {} at {speed} times its speed{times}", file.display())
            }
            (Some(Recording { file, .. }), None) => {
                writeln!(out, "{name}: {} is not there; its threads do as the file says", file.display())
            }
            (None, None) => Ok(()),
        };
    }
    let jain = |run: &Run| run.jain.map_or("–".to_owned(), |jain| format!("{jain:.3}"));
    let (slots, threads) = (counted(load.slots as u64, "slot"), load.tenants.iter().map(|t| t.threads).sum::<usize>());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{slots}, {threads} threads, {} s without the rules and as long with them", load.seconds);
    let _ = writeln!(out, "\n{}\n", table.trim_fmt());
    let _ = writeln!(
        out,
        "  due and got: slots on average; due by priority, then weight, up to demand and quota. What is\n  refused is not among the waits; a thread tries again after a hold time. Jain's index of got by due: {} without, {} with.",
        jain(without),
        jain(with)
    );
    for (before, after) in without.tenants.iter().zip(&with.tenants) {
        let (b, a) = (before.wait_p99_ms, after.wait_p99_ms);
        let _ = writeln!(
            out,
            "  {}: with the rules 99 % waited at most {} instead of {}, it got {} of its due{}.",
            after.tenant,
            ms(a),
            ms(b),
            percent(if after.due_slots > 0.0 { after.got_slots / after.due_slots } else { 1.0 }),
            if refusals(after) == "–" { String::new() } else { format!("; refused beside: {}", refusals(after)) }
        );
    }
    out
}

/// Refusals by their reason.
fn refusals(got: &Got) -> String {
    let parts = [(got.refused_quota, "quota"), (got.refused_tier, "tier"), (got.cut_short, "cut short")];
    let parts: Vec<String> =
        parts.iter().filter(|part| part.0 > 0).map(|(number, why)| format!("{} {why}", count(*number))).collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// Draws each tenant's 99 % wait, without and with the rules.
///
/// # Errors
/// Returns a sentence if the file cannot be written.
pub fn chart(path: &Path, without: &Run, with: &Run) -> Result<(), String> {
    let most = without.tenants.iter().chain(&with.tenants).map(|got| got.wait_p99_ms).fold(0.001, f64::max);
    let height = 70 + 60 * without.tenants.len() as i32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (800, height as u32)).into_drawing_area();
        let draw = || -> Result<(), Box<dyn std::error::Error + '_>> {
            root.fill(&WHITE)?;
            let big = ("sans-serif", 18).into_font();
            let small = ("sans-serif", 14).into_font();
            root.draw(&Text::new("99 % of waits were at most (grey: without the rules, blue: with)", (20, 18), big))?;
            for (index, (before, after)) in without.tenants.iter().zip(&with.tenants).enumerate() {
                let top = 60 + 60 * index as i32;
                root.draw(&Text::new(after.tenant.clone(), (20, top + 12), small.clone()))?;
                for (row, got, colour) in [(0, before, RGBColor(150, 150, 150)), (1, after, RGBColor(30, 100, 200))] {
                    let (y, width) = (top + 20 * row, (got.wait_p99_ms / most * 480.0) as i32);
                    root.draw(&Rectangle::new([(160, y), (161 + width, y + 16)], colour.filled()))?;
                    root.draw(&Text::new(nanos(got.wait_p99_ms * 1e6), (168 + width, y + 1), small.clone()))?;
                }
            }
            root.present()?;
            Ok(())
        };
        draw().map_err(|error| error.to_string())?;
    }
    std::fs::write(path, svg).map_err(|error| format!("{}: the chart could not be written: {error}", path.display()))
}
