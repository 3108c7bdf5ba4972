//! Every policy at every capacity.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::Serialize;

use super::keys::Keys;
use super::policies::Policy;

/// How large a cache is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// So many entries.
    Entries(NonZeroUsize),
    /// So many for a hundred different keys of the trace.
    Percent(f64),
}

/// The most entries of a cache: as many as a tier has slots.
const MOST: usize = 1 << 27;

impl Capacity {
    /// How many entries that are, of so many different keys; one at least.
    pub fn entries(self, distinct: u32) -> NonZeroUsize {
        match self {
            Capacity::Entries(entries) => entries,
            Capacity::Percent(percent) => {
                let entries = (f64::from(distinct) * percent / 100.0).round() as usize;
                NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN)
            }
        }
    }
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no capacity; give a number of entries, from 1 to {MOST}, or of percent, such as 10%")
        };
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                if percent > 0.0 && percent <= 100.0 { Ok(Capacity::Percent(percent)) } else { Err(wrong()) }
            }
            None => {
                let entries: NonZeroUsize = text.trim().parse().map_err(|_| wrong())?;
                if entries.get() <= MOST { Ok(Capacity::Entries(entries)) } else { Err(wrong()) }
            }
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capacity::Entries(entries) => write!(f, "{entries}"),
            Capacity::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// A policy at a capacity. Its names are a promise to scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The policy's name.
    pub policy: &'static str,
    /// Entries that it may have.
    pub capacity: usize,
    /// Requests that it got.
    pub requests: u64,
    /// Different keys among them.
    pub distinct: u32,
    /// Requests that hit.
    pub hits: u64,
    /// The same, as a part of all.
    pub hit_rate: f64,
}

/// Has every policy serve all requests at every capacity: by capacity, and in the order of [`Policy::ALL`]. Who wants to know is told what
/// is done, and how far that is.
///
/// # Errors
/// A sentence, if there is no memory for a cache.
pub fn run(
    keys: &Keys,
    capacities: &[Capacity],
    begin: &dyn Fn(String),
    progress: &dyn Fn(f64),
) -> Result<Vec<Point>, String> {
    let mut sizes: Vec<_> = capacities.iter().map(|capacity| capacity.entries(keys.distinct())).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let requests = keys.requests().len() as u64;
    let mut points = Vec::with_capacity(sizes.len() * Policy::ALL.len());
    for capacity in sizes {
        for policy in Policy::ALL {
            begin(format!("{} with {capacity} entries", policy.name()));
            let hits = policy.hits(keys, capacity, progress)?;
            points.push(Point {
                policy: policy.name(),
                capacity: capacity.get(),
                requests,
                distinct: keys.distinct(),
                hits,
                hit_rate: hits as f64 / requests as f64,
            });
        }
    }
    Ok(points)
}
