//! What a scrape costs: all metrics of a pool of 64 tiers as a text, with lines, tags and tenants in each; and that of a pool of one tier.

use std::hint::black_box;

use tierpool::{Exporter, Observer, Pool, Request, TenantRules, TextFormat};

use super::floor;
use crate::run::cast::Cast;
use crate::subject::Kind;

/// The workload's name.
pub const NAME: &str = "exposition";
/// That of 64 tiers.
pub const MANY: &str = "tierpool-64-tiers";

const TIERS: usize = 64;
const TENANTS: [&str; 4] = ["md", "orders", "risk", "ops"];
const TAGS: [&str; 8] = ["rx", "tx", "book", "tick", "ack", "log", "audit", "snapshot"];

/// All subjects.
pub fn fill(cast: &mut Cast) {
    for (name, tiers) in [(MANY, TIERS), ("tierpool-1-tier", 1)] {
        let (exporter, observer) = exporter(tiers);
        floor::steps(cast, name, Kind::Ours, move || {
            _ = black_box((exporter.text(TextFormat::OpenMetrics), &observer));
        });
    }
    floor::atomic_add(cast);
}

/// An exporter of a pool in which each of the tenants holds slots for each of the tags, in each tier.
fn exporter(tiers: usize) -> (Exporter, Observer) {
    let mut builder = Pool::builder();
    for tier in 0..tiers {
        builder = builder.memory(&format!("tier-{tier}"), 64 * (tier + 1), 64);
    }
    for tenant in TENANTS {
        builder = builder.tenant(TenantRules::new(tenant));
    }
    let pool = builder.build().expect("the pool is sound");
    for tier in 0..tiers {
        for (tenant, tag) in TENANTS.iter().flat_map(|tenant| TAGS.iter().map(move |tag| (tenant, tag))) {
            let request = Request::memory(64 * (tier + 1)).tenant(*tenant).tag(tag);
            // Held as long as the program runs.
            std::mem::forget(pool.try_allocate(request).expect("there is room"));
        }
    }
    let observer = pool.observe("bench").expect("there is a thread");
    let exporter = Exporter::new();
    exporter.add(&observer);
    // Or its series would end.
    std::mem::forget(pool);
    (exporter, observer)
}
