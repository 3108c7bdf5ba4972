//! An examination as text for a terminal, and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use tierpool::{Figure, Stall};

use super::{Finding, Level, Machine, findings, suggest};
use crate::table::headed;
use crate::units::bytes;

/// A line of the table: what it is, how much, and where that was read.
type Row = [String; 3];

/// As text for a terminal.
pub fn text(machine: &Machine) -> String {
    let mut table = headed(["what", "how much", "read from"]);
    for row in rows(machine) {
        table.add_row(row);
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}\n", table.trim_fmt());
    let findings = findings::of(machine);
    if findings.is_empty() {
        let _ = writeln!(out, "Nothing is wrong for latency.");
    }
    for Finding { level, what, fix, .. } in &findings {
        let mark = match level {
            Level::Problem => "problem",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let _ = writeln!(out, "{mark:>7}  {what}\n         {fix}");
    }
    let _ = writeln!(out, "\nA pool for this machine (`Pool::from_toml`):\n");
    for line in suggest::configuration(machine).lines() {
        let _ = writeln!(out, "{}", if line.is_empty() { String::new() } else { format!("    {line}") });
    }
    out
}

fn row<T>(what: &str, figure: &Option<Figure<T>>, none: &str, show: impl Fn(&T) -> String) -> Row {
    match figure {
        Some(figure) => [what.to_owned(), show(&figure.value), figure.source.clone()],
        None => [what.to_owned(), none.to_owned(), String::new()],
    }
}

fn rows(machine: &Machine) -> Vec<Row> {
    const UNKNOWN: &str = "unknown";
    let (memory, cpu) = (&machine.resources.memory, &machine.resources.cpu);
    let size = |value: &u64| bytes(*value);
    let word = |value: &String| value.clone();
    let stall = |stall: &Stall| format!("{:.1} % of 10 s, {:.1} % of a minute", stall.some_10s, stall.some_60s);
    let mut rows = vec![
        row("memory", &memory.total_bytes, UNKNOWN, size),
        row("  limit", &memory.limit_bytes, "none", size),
        row("  available", &memory.available_bytes, UNKNOWN, size),
        row("  may be locked", &memory.lock_limit_bytes, "all", size),
        row("swap", &memory.swap_bytes, UNKNOWN, size),
        row("huge pages", &memory.huge_pages, UNKNOWN, |pages| {
            let size = memory.huge_page_bytes.as_ref().map_or(String::new(), |of| format!(" of {}", bytes(of.value)));
            format!("{pages}{size}")
        }),
        row("  transparent", &memory.transparent_huge_pages, UNKNOWN, word),
        row("processors", &Some(cpu.allowed.clone()), UNKNOWN, |cpus| {
            format!("{} ({})", cpus.len(), cpu.list(usize::MAX))
        }),
        row("  quota", &cpu.quota, "none", |quota| format!("{quota}")),
        row("  governor", &machine.governors, UNKNOWN, |governors| governors.join(", ")),
        row("clock", &machine.clock, UNKNOWN, word),
        row("membarrier", &Some(machine.membarrier.clone()), UNKNOWN, |has| if *has { "yes" } else { "no" }.to_owned()),
        row("waits for memory", &machine.resources.pressure.memory, UNKNOWN, stall),
        row("  for a processor", &machine.resources.pressure.cpu, UNKNOWN, stall),
        row("  for the disk", &machine.resources.pressure.io, UNKNOWN, stall),
    ];
    for disk in &machine.resources.disks {
        let what = format!("disk of {}", disk.directory.display());
        rows.push(match &disk.figures {
            Ok(figures) => {
                let (free, total) = (bytes(figures.free_bytes.value), bytes(figures.total_bytes.value));
                let only = if figures.read_only { ", read-only" } else { "" };
                [what, format!("{free} free of {total}{only}"), figures.free_bytes.source.clone()]
            }
            Err(why) => [what, UNKNOWN.to_owned(), why.clone()],
        });
    }
    rows
}

/// As one JSON object: each figure under its name, what is unknown or unlimited as `null`, and the sources under `sources`.
pub fn json(machine: &Machine) -> Value {
    let mut object = Map::new();
    let mut sources = Map::new();
    let mut put = |name: &str, figure: Option<(Value, String)>| {
        let (value, source) = figure.map_or((Value::Null, None), |(value, source)| (value, Some(source)));
        object.insert(name.to_owned(), value);
        if let Some(source) = source {
            sources.insert(name.to_owned(), source.into());
        }
    };
    fn told<T: Clone + Into<Value>>(figure: &Option<Figure<T>>) -> Option<(Value, String)> {
        figure.as_ref().map(|figure| (figure.value.clone().into(), figure.source.clone()))
    }
    let (memory, cpu, pressure) = (&machine.resources.memory, &machine.resources.cpu, &machine.resources.pressure);
    put("memory_total_bytes", told(&memory.total_bytes));
    put("memory_available_bytes", told(&memory.available_bytes));
    put("memory_limit_bytes", told(&memory.limit_bytes));
    put("memory_lock_limit_bytes", told(&memory.lock_limit_bytes));
    put("swap_total_bytes", told(&memory.swap_bytes));
    put("swap_free_bytes", told(&memory.swap_free_bytes));
    put("huge_page_bytes", told(&memory.huge_page_bytes));
    put("huge_pages_total", told(&memory.huge_pages));
    put("huge_pages_free", told(&memory.huge_pages_free));
    put("transparent_huge_pages", told(&memory.transparent_huge_pages));
    put("cpus_allowed", Some((cpu.allowed.value.len().into(), cpu.allowed.source.clone())));
    put("cpus_allowed_list", Some((cpu.list(usize::MAX).into(), cpu.allowed.source.clone())));
    put("cpu_quota", told(&cpu.quota));
    put("governors", told(&machine.governors));
    put("clock_source", told(&machine.clock));
    put("overcommit_memory", told(&machine.overcommit));
    put("membarrier", told(&Some(machine.membarrier.clone())));
    for (name, figure) in [("memory", &pressure.memory), ("cpu", &pressure.cpu), ("io", &pressure.io)] {
        let mut put = |span: &str, part: fn(&Stall) -> f32| {
            // As the system writes them, with two decimals.
            let percent = |stall| (f64::from(part(stall)) * 100.0).round() / 100.0;
            let told = figure.as_ref().map(|figure| (percent(&figure.value).into(), figure.source.clone()));
            put(&format!("{name}_stall_{span}_percent"), told);
        };
        put("10s", |stall| stall.some_10s);
        put("60s", |stall| stall.some_60s);
    }
    let disk = machine.resources.disks.first().and_then(|disk| disk.figures.as_ref().ok());
    put("disk_total_bytes", told(&disk.map(|disk| disk.total_bytes.clone())));
    put("disk_free_bytes", told(&disk.map(|disk| disk.free_bytes.clone())));
    object.insert("disk_directory".to_owned(), machine.directory().display().to_string().into());
    object.insert("usable_cpus".to_owned(), cpu.usable().into());
    object.insert("findings".to_owned(), json!(findings::of(machine)));
    object.insert("suggested_config".to_owned(), suggest::configuration(machine).into());
    object.insert("sources".to_owned(), sources.into());
    object.into()
}
