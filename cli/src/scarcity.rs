//! A described load on a real pool, with more demand than slots: without the rules, then with them.
//!
//! Each tenant's threads take a slot, hold it, give it back and think, until the time is up. A wait that had not ended by
//! then, or that was given up, counts with the time that it had lasted: percentiles never look better for it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use hdrhistogram::Histogram;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use tierpool::{Limit, Pool, Priority, Request, RequestError, TenantRules, Tier, Watermarks, jain_index};
use toml::Spanned;

use crate::kv_cache::{self, A_TOKEN, Inference, TOKENS_A_BLOCK};
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
    /// A recording of requests to a model server, which its threads serve instead, if the file is there.
    pub requests: Option<Recording>,
}

/// A recording of requests to a model server, each of which wants many slots at once: [`kv_cache`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The CSV file; beside the load's own file, if it is a relative path.
    pub file: PathBuf,
    /// How many times faster than it was recorded.
    pub speed: f64,
    /// How many times each request arrives.
    #[serde(default = "one")]
    pub times: u32,
    /// What was in the file; nothing, if there is none.
    #[serde(skip)]
    pub all: Vec<Inference>,
}

impl Recording {
    fn is_there(&self) -> bool {
        !self.all.is_empty()
    }

    /// Slots that its requests hold on average over the first `seconds` of a run, if none has to wait.
    fn wants(&self, seconds: f64) -> f64 {
        let begun = self.all.iter().take_while(|request| request.at.as_secs_f64() < seconds * self.speed);
        let held: f64 = begun.map(Inference::block_seconds).sum();
        held * f64::from(self.times) / (seconds * self.speed)
    }
}

impl TenantLoad {
    /// What its threads serve, if that is a recording.
    pub fn recording(&self) -> Option<&Recording> {
        self.requests.as_ref().filter(|recording| recording.is_there())
    }
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
    /// Reads a load; `directory` is where its own recordings are looked for.
    ///
    /// # Errors
    /// Returns [`LoadError`] with the line: of syntax, of unknown fields, of values out of range, of recordings that cannot be read. One
    /// that is not there is none: the tenant is as if nothing had been said of it.
    pub fn parse(text: &str, directory: &Path) -> Result<Load, LoadError> {
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
            let mut tenant = spanned.into_inner();
            if let Some(recording) = &mut tenant.requests {
                let file = directory.join(&recording.file);
                if !(0.001..=1e6).contains(&recording.speed) || !(1..=1000).contains(&recording.times) {
                    return Err(at(
                        start,
                        "requests are out of range; give a speed of 0.001 to 1000000, and times of 1 to 1000"
                            .to_owned(),
                    ));
                }
                if file.exists() {
                    recording.all = kv_cache::read(&file).map_err(|problem| at(start, problem))?;
                }
            }
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
                    let wants = match tenant.recording() {
                        Some(recording) => recording.wants(self.seconds),
                        None => tenant.threads as f64 * tenant.hold_ms / (tenant.hold_ms + tenant.think_ms),
                    };
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
    /// Requests that were served and found no further slot when they needed one: they gave up what they had.
    pub cut_short: u64,
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
    // Of each tenant, the next request of its recording.
    let nexts: Vec<AtomicUsize> = load.tenants.iter().map(|_| AtomicUsize::new(0)).collect();
    let start = Instant::now();
    let end = start + length;
    let tallies: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let threads: Vec<Vec<_>> = load
            .tenants
            .iter()
            .zip(&nexts)
            .map(|(tenant, next)| {
                let thread = |_| scope.spawn(|| work(&pool, tenant, next, (start, end)));
                (0..tenant.threads).map(thread).collect()
            })
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
            cut_short: tally.cut_short,
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
    cut_short: u64,
    unfinished: u64,
}

impl Tally {
    fn new() -> Self {
        let waits = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid");
        Tally { waits, held: Duration::ZERO, served: 0, quota: 0, tier: 0, cut_short: 0, unfinished: 0 }
    }

    fn add(&mut self, other: Tally) {
        self.waits.add(other.waits).expect("all have the same bounds");
        self.held += other.held;
        self.served += other.served;
        self.quota += other.quota;
        self.tier += other.tier;
        self.cut_short += other.cut_short;
        self.unfinished += other.unfinished;
    }
}

fn work(
    pool: &Pool,
    tenant: &TenantLoad,
    next: &AtomicUsize,
    (start, end): (Instant, Instant),
) -> Result<Tally, String> {
    let priority = match tenant.priority {
        Urgency::Low => Priority::Low,
        Urgency::Normal => Priority::Normal,
        Urgency::High => Priority::High,
        Urgency::Critical => Priority::Critical,
    };
    let request = Request::of::<u64>("slots").tenant(tenant.name.as_str()).priority(priority);
    if let Some(recording) = tenant.recording() {
        return Ok(serve(pool, request, recording, next, (start, end)));
    }
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

/// Serves requests of a recording, the next one each time, until all are served or the time is up. A wait begins when its request
/// arrives, whether or not there was a thread for it.
fn serve(
    pool: &Pool,
    request: Request<'_, u64>,
    recording: &Recording,
    next: &AtomicUsize,
    (start, end): (Instant, Instant),
) -> Tally {
    let mut tally = Tally::new();
    let until = |time: Instant| std::thread::sleep(time.min(end).saturating_duration_since(Instant::now()));
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed) / recording.times as usize;
        let Some(inference) = recording.all.get(number) else { return tally };
        let arrives = start + inference.at.div_f64(recording.speed);
        if arrives >= end {
            return tally;
        }
        until(arrives);
        let group = vec![request; inference.blocks];
        let answer = pool.allocate_group_timeout(group, end.saturating_duration_since(Instant::now()));
        let mut since = Instant::now();
        let waited = (since - arrives).as_micros() as u64;
        let mut blocks = match answer {
            Ok(blocks) => blocks,
            Err(RequestError::Quota { .. }) => {
                tally.quota += 1;
                continue;
            }
            Err(_) if since >= end => {
                tally.waits.saturating_record(waited);
                tally.unfinished += 1;
                continue;
            }
            Err(_) => {
                tally.tier += 1;
                continue;
            }
        };
        tally.waits.saturating_record(waited);
        tally.served += 1;
        let mut tokens = inference.tokens;
        while tokens > 0 && since < end {
            let some = tokens.min(TOKENS_A_BLOCK);
            tokens -= some;
            until(since + (A_TOKEN * some as u32).div_f64(recording.speed));
            let now = Instant::now();
            tally.held += now.min(end).saturating_duration_since(since) * blocks.len() as u32;
            since = now;
            if some == TOKENS_A_BLOCK {
                // One that finds no block for its next tokens makes room for the others.
                match pool.try_allocate(request) {
                    Ok(block) => blocks.push(block),
                    Err(_) => break,
                }
            }
        }
        tally.cut_short += u64::from(tokens > 0 && since < end);
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
    for tenant in &load.tenants {
        let name = &tenant.name;
        let _ = match (&tenant.requests, tenant.recording()) {
            (_, Some(Recording { file, speed, times, .. })) => {
                let times = if *times == 1 { String::new() } else { format!(", each request {times} times") };
                writeln!(out, "{name}: {} at {speed} times its speed{times}", file.display())
            }
            (Some(Recording { file, .. }), None) => {
                writeln!(out, "{name}: {} is not there; its threads take a slot at a time instead", file.display())
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
