//! A described load on a real pool, with more demand than slots: without the rules, then with them.
//!
//! Each tenant's threads take a slot, hold it, give it back and think, until the time is up. A wait that had not ended by
//! then, or that was given up, counts with the time that it had lasted: percentiles never look better for it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use hdrhistogram::Histogram;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use tierpool::{Limit, Pool, Priority, Request, RequestError, TenantRules, Tier, Watermarks, jain_index};
use toml::Spanned;

use crate::units::{count, counted, nanos, percent};

/// A load, as its TOML file describes it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Slots of the pool.
    pub slots: usize,
    /// How long each of the two runs takes.
    pub seconds: f64,
    /// Slots kept back, in the run with the rules: those of `min`, `low`, `high`.
    pub watermarks: Option<[usize; 3]>,
    /// Who wants slots.
    pub tenants: Vec<TenantLoad>,
}

/// One tenant of a [`Load`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLoad {
    /// Its name.
    pub name: String,
    /// Its share among those of its priority.
    #[serde(default = "one")]
    pub weight: u32,
    /// How urgent all of its requests are.
    #[serde(default)]
    pub priority: Urgency,
    /// The most slots that it may hold.
    pub quota: Option<u64>,
    /// Threads, each of which wants one slot at a time.
    pub threads: usize,
    /// How long it holds a slot, in milliseconds.
    pub hold_ms: f64,
    /// How long it does without between two, in milliseconds.
    #[serde(default)]
    pub think_ms: f64,
}

/// A priority by its name in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names of `Priority`")]
pub enum Urgency {
    Low,
    #[default]
    Normal,
    High,
    Critical,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    slots: Spanned<usize>,
    seconds: Spanned<f64>,
    watermarks: Option<Spanned<[usize; 3]>>,
    #[serde(default)]
    tenant: Vec<Spanned<TenantLoad>>,
}

/// Why a load cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LoadError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// The most threads of all tenants together.
pub const MOST_THREADS: usize = 512;

impl Load {
    /// Reads a load.
    ///
    /// # Errors
    /// Returns [`LoadError`] with the line: of syntax, of unknown fields, of values out of range.
    pub fn parse(text: &str) -> Result<Load, LoadError> {
        let at = |offset: usize, problem: String| LoadError {
            line: text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1,
            problem,
        };
        let file: File = toml::from_str(text)
            .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().to_owned()))?;
        let slots = *file.slots.get_ref();
        if !(1..=1_000_000).contains(&slots) {
            return Err(at(file.slots.span().start, format!("slots = {slots}; give 1 to 1000000")));
        }
        let seconds = *file.seconds.get_ref();
        if !(0.05..=600.0).contains(&seconds) {
            return Err(at(file.seconds.span().start, format!("seconds = {seconds}; give 0.05 to 600")));
        }
        if let Some(marks) = &file.watermarks {
            let [min, low, high] = *marks.get_ref();
            if !(min <= low && low <= high && high < slots) {
                let problem = "watermarks must be [min, low, high], rising, and high below slots".to_owned();
                return Err(at(marks.span().start, problem));
            }
        }
        if file.tenant.is_empty() {
            return Err(at(text.len(), "no tenant; add at least one [[tenant]]".to_owned()));
        }
        let mut tenants: Vec<TenantLoad> = Vec::new();
        for spanned in file.tenant {
            let start = spanned.span().start;
            let tenant = spanned.into_inner();
            let threads = tenants.iter().map(|tenant| tenant.threads).sum::<usize>().saturating_add(tenant.threads);
            let time = |ms: f64, least: f64| (least..=60_000.0).contains(&ms);
            let problem = if tenant.name.is_empty() || tenants.iter().any(|other| other.name == tenant.name) {
                "needs a name of its own"
            } else if tenant.weight == 0 {
                "has weight 0; give 1 or more"
            } else if tenant.quota.is_some_and(|quota| quota == 0 || quota > slots as u64) {
                "has a quota out of range; give 1 to the number of slots, or leave it out"
            } else if tenant.threads == 0 || threads > MOST_THREADS {
                "has too few or too many threads; give 1 or more, and at most 512 in all tenants together"
            } else if !time(tenant.hold_ms, 0.01) || !time(tenant.think_ms, 0.0) {
                "has times out of range; give hold_ms of 0.01 to 60000, and think_ms of 0 to 60000"
            } else {
                tenants.push(tenant);
                continue;
            };
            return Err(at(start, format!("tenant {:?} {problem}", tenant.name)));
        }
        Ok(Load { slots, seconds, watermarks: file.watermarks.map(Spanned::into_inner), tenants })
    }

    /// The same load without the rules: one priority, equal weights, no quotas, no watermarks.
    pub fn without_rules(&self) -> Load {
        let mut load = Load { watermarks: None, ..self.clone() };
        for tenant in &mut load.tenants {
            (tenant.weight, tenant.priority, tenant.quota) = (1, Urgency::Normal, None);
        }
        load
    }

    /// The slots that each tenant is due on average: the more urgent priorities first, within one by weight, nobody more
    /// than it can use or its quota, and what one leaves goes to the others (max-min). What watermarks keep free is not taken off: it shows as a shortfall.
    pub fn due(&self) -> Vec<f64> {
        let mut due = vec![0.0; self.tenants.len()];
        let mut taken = 0.0;
        for urgency in [Urgency::Critical, Urgency::High, Urgency::Normal, Urgency::Low] {
            let members: Vec<usize> = (0..due.len()).filter(|&index| self.tenants[index].priority == urgency).collect();
            let claims: Vec<(f64, f64)> = members
                .iter()
                .map(|&index| {
                    let tenant = &self.tenants[index];
                    let wants = tenant.threads as f64 * tenant.hold_ms / (tenant.hold_ms + tenant.think_ms);
                    (tenant.weight.into(), tenant.quota.map_or(wants, |quota| wants.min(quota as f64)))
                })
                .collect();
            let room = (self.slots as f64 - taken).max(0.0);
            for (&index, share) in members.iter().zip(max_min(room, &claims)) {
                due[index] = share;
                taken += share;
            }
        }
        due
    }
}

/// Divides `room` by weight among claims of `(weight, most)`: who wants less than its part gets that, and the rest is
/// divided again among the others.
pub fn max_min(mut room: f64, claims: &[(f64, f64)]) -> Vec<f64> {
    let mut shares = vec![0.0; claims.len()];
    let mut open: Vec<usize> = (0..claims.len()).collect();
    // Whoever is content with the least for its weight first.
    open.sort_by(|&a, &b| (claims[a].1 / claims[a].0).total_cmp(&(claims[b].1 / claims[b].0)));
    let mut weights: f64 = claims.iter().map(|claim| claim.0).sum();
    for index in open {
        let (weight, most) = claims[index];
        shares[index] = most.min(room * weight / weights);
        room -= shares[index];
        weights -= weight;
    }
    shares
}

/// What one tenant got in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Got {
    /// Its name.
    pub tenant: String,
    /// Its priority in this run.
    pub priority: Urgency,
    /// Slots that it was due on average.
    pub due_slots: f64,
    /// Slots that it had on average.
    pub got_slots: f64,
    /// Requests that were served.
    pub served: u64,
    /// Requests that its quota refused.
    pub refused_quota: u64,
    /// Requests that the tier refused before the end.
    pub refused_tier: u64,
    /// Requests that still waited at the end.
    pub unfinished: u64,
    /// Median wait in milliseconds, those that did not end included as long as they lasted.
    pub wait_p50_ms: f64,
    /// 99 % of waits were at most this.
    pub wait_p99_ms: f64,
    /// The longest.
    pub wait_max_ms: f64,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What each tenant got.
    pub tenants: Vec<Got>,
    /// Jain's index of got by due: 1 if all have the same part of their due.
    pub jain: Option<f64>,
    /// Slots that were not free after the last thread had stopped; 0 unless the pool has lost some.
    pub lost_slots: usize,
}

/// Runs the load; `progress` is called with the part that is done.
///
/// # Errors
/// Returns a sentence if the pool refuses the load's rules.
pub fn run(load: &Load, progress: &dyn Fn(f64)) -> Result<Run, String> {
    let slots: Tier<u64> =
        Tier::builder("slots").capacity(load.slots).build_with(|| 0).map_err(|error| error.to_string())?;
    let mut builder = Pool::builder().tier(slots);
    for tenant in &load.tenants {
        let hard = tenant.quota.map_or(Limit::NONE, Limit::slots);
        builder = builder.tenant(TenantRules::new(&tenant.name).weight(tenant.weight).hard(hard));
    }
    if let Some([min, low, high]) = load.watermarks {
        builder = builder.watermarks("slots", Watermarks { min, low, high });
    }
    let pool = builder.build().map_err(|error| error.to_string())?;
    let length = Duration::from_secs_f64(load.seconds);
    let start = Instant::now();
    let end = start + length;
    let tallies: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let threads: Vec<Vec<_>> = load
            .tenants
            .iter()
            .map(|tenant| (0..tenant.threads).map(|_| scope.spawn(|| work(&pool, tenant, end))).collect())
            .collect();
        while Instant::now() < end {
            progress(start.elapsed().as_secs_f64() / load.seconds);
            std::thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
        }
        let joined = threads.into_iter().map(|threads| {
            let mut sum = Tally::new();
            for thread in threads {
                sum.add(thread.join().map_err(|_| "a thread of the load panicked".to_owned())??);
            }
            Ok(sum)
        });
        joined.collect()
    });
    let mut tenants = Vec::new();
    for ((tenant, due), tally) in load.tenants.iter().zip(load.due()).zip(tallies) {
        let tally = tally?;
        let ms = |micros: u64| micros as f64 / 1e3;
        tenants.push(Got {
            tenant: tenant.name.clone(),
            priority: tenant.priority,
            due_slots: due,
            got_slots: tally.held.as_secs_f64() / load.seconds,
            served: tally.served,
            refused_quota: tally.quota,
            refused_tier: tally.tier,
            unfinished: tally.unfinished,
            wait_p50_ms: ms(tally.waits.value_at_quantile(0.5)),
            wait_p99_ms: ms(tally.waits.value_at_quantile(0.99)),
            wait_max_ms: ms(tally.waits.max()),
        });
    }
    let jain = jain_index(tenants.iter().filter(|got| got.due_slots > 0.0).map(|got| got.got_slots / got.due_slots));
    let lost_slots = pool.monitor().tier("slots").map_or(0, tierpool::TierStatus::held);
    Ok(Run { tenants, jain, lost_slots })
}

struct Tally {
    waits: Histogram<u64>,
    held: Duration,
    served: u64,
    quota: u64,
    tier: u64,
    unfinished: u64,
}

impl Tally {
    fn new() -> Self {
        let waits = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid");
        Tally { waits, held: Duration::ZERO, served: 0, quota: 0, tier: 0, unfinished: 0 }
    }

    fn add(&mut self, other: Tally) {
        self.waits.add(other.waits).expect("all have the same bounds");
        self.held += other.held;
        self.served += other.served;
        self.quota += other.quota;
        self.tier += other.tier;
        self.unfinished += other.unfinished;
    }
}

fn work(pool: &Pool, tenant: &TenantLoad, end: Instant) -> Result<Tally, String> {
    let priority = match tenant.priority {
        Urgency::Low => Priority::Low,
        Urgency::Normal => Priority::Normal,
        Urgency::High => Priority::High,
        Urgency::Critical => Priority::Critical,
    };
    let request = Request::of::<u64>("slots").tenant(tenant.name.as_str()).priority(priority);
    let prepared = pool.prepare(request).map_err(|error| error.to_string())?;
    let [hold, think] = [tenant.hold_ms, tenant.think_ms].map(|ms| Duration::from_secs_f64(ms / 1e3));
    let mut tally = Tally::new();
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(tally);
        }
        let answer = prepared.allocate_timeout(end - asked);
        let now = Instant::now();
        match answer {
            Ok(lease) => {
                tally.waits.saturating_record((now - asked).as_micros() as u64);
                tally.served += 1;
                std::thread::sleep(hold);
                drop(lease);
                tally.held += Instant::now().min(end).saturating_duration_since(now);
            }
            Err(RequestError::Quota { .. }) => {
                tally.quota += 1;
                // Who is refused at once tries again after a while.
                std::thread::sleep(hold.min(end.saturating_duration_since(now)));
            }
            Err(_) if now >= end => {
                tally.waits.saturating_record((now - asked).as_micros() as u64);
                tally.unfinished += 1;
            }
            Err(_) => {
                tally.tier += 1;
                std::thread::sleep(hold.min(end.saturating_duration_since(now)));
            }
        }
        std::thread::sleep(think.min(end.saturating_duration_since(Instant::now())));
    }
}

/// Both runs as text for a terminal.
pub fn text(load: &Load, without: &Run, with: &Run) -> String {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::new('─', '─', '─', '─'));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["tenant", "rules", "due", "got", "served", "refused", "wait 50 %", "wait 99 %", "longest"]);
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
    let jain = |run: &Run| run.jain.map_or("–".to_owned(), |jain| format!("{jain:.3}"));
    let (slots, threads) = (counted(load.slots as u64, "slot"), load.tenants.iter().map(|t| t.threads).sum::<usize>());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{slots}, {threads} threads, {} s without the rules and as long with them", load.seconds);
    let _ = writeln!(out, "\n{}\n", table.trim_fmt());
    let _ = writeln!(
        out,
        "  due and got: slots on average; due by priority, then weight, up to demand and quota. What is\n  refused is tried again after a hold time, and is not among the waits. Jain's index of got by due: {} without, {} with.",
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
    let parts = [(got.refused_quota, "quota"), (got.refused_tier, "tier")];
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
