//! One run of a load: threads that take slots of a real pool, and what they got.
//!
//! A wait that had not ended by the end of the run, or that was given up, counts with the time that it had lasted: percentiles never look
//! better for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tierpool::{Limit, Pool, Priority, Request, RequestError, TenantRules, Tier, Watermarks, jain_index};

use super::load::{Load, Recording, TenantLoad, Urgency};
use crate::kv_cache::{A_TOKEN, TOKENS_A_BLOCK};

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
    let slots_each = tenant.slots_each as usize;
    let [hold, think] = [tenant.hold_ms, tenant.think_ms].map(|ms| Duration::from_secs_f64(ms / 1e3));
    let mut tally = Tally::new();
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(tally);
        }
        let answer = pool.allocate_group_timeout(vec![request; slots_each], end - asked);
        let now = Instant::now();
        match answer {
            Ok(leases) => {
                tally.waits.saturating_record((now - asked).as_micros() as u64);
                tally.served += 1;
                std::thread::sleep(hold);
                drop(leases);
                tally.held += Instant::now().min(end).saturating_duration_since(now) * tenant.slots_each;
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
