//! What a load is, as its TOML file describes it, and what each tenant of it is due.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::kv_cache::{self, Inference};

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
    /// Threads, each of which wants some slots at a time.
    pub threads: usize,
    /// How many: all or none.
    #[serde(default = "one")]
    pub slots_each: u32,
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
            } else if tenant.slots_each == 0 || tenant.slots_each as usize > slots {
                "has slots_each out of range; give 1 to the number of slots"
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
                        None => {
                            let at_once = tenant.threads as f64 * f64::from(tenant.slots_each);
                            at_once * tenant.hold_ms / (tenant.hold_ms + tenant.think_ms)
                        }
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
