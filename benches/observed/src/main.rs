//! Pairs of allocation and release, measured in this process: what `observe` runs of two builds in turn.
//!
//! Prints which build it is, as it finds by asking a tier for its holders, and then a line for each workload: its name, a tab, and the
//! nanoseconds a pair of each batch. Pins nothing: whoever starts it has chosen its core.

use std::hint::black_box;
use std::iter;
use std::ops::DerefMut;
use std::thread;
use std::time::{Duration, Instant};

use tierpool::{Lease, Limit, Memory, MemoryTier, Pool, Prepared, Request, Scrub, TenantRules, Tier};

/// Bytes of a slot, and slots.
const BYTES: usize = 4096;
const CAPACITY: usize = 1024;
/// A batch takes about so long, and so many batches are measured of each workload.
const BATCH: Duration = Duration::from_micros(500);
const BATCHES: usize = 60;

fn main() {
    // A clock that nobody ever ticks would be folded to a constant, and its load with it.
    thread::spawn(|| {
        loop {
            tierpool::clock::tick();
            thread::sleep(Duration::from_millis(1));
        }
    });
    let tier: Tier<Box<[u8]>> = Tier::builder("observed")
        .capacity(CAPACITY)
        .build_with(|| vec![0; BYTES].into_boxed_slice())
        .expect("a tier of a known capacity");
    let held = tier.try_allocate().expect("a free slot");
    let knows = tier.holders().iter().any(|holder| holder.site.is_some());
    drop(held);
    println!("{}", if knows { "whole" } else { "bare" });

    // Zeroing what changes tenants takes longer than everything else.
    let pool = Pool::builder().memory_tier(MemoryTier::new("pages", BYTES, CAPACITY).scrub(Scrub::Keep));
    let tenants = ["feed", "book"].map(|name| TenantRules::new(name).hard(Limit::slots(CAPACITY as u64 / 2)));
    let pool =
        tenants.into_iter().fold(pool, |pool, tenant| pool.tenant(tenant)).build().expect("a pool of known tiers");
    let prepare = |tenant, tag| -> Prepared<Memory> {
        pool.prepare(Request::memory(BYTES).tenant(tenant).tag(tag)).expect("a request that fits")
    };
    let requests = [prepare("feed", "rx"), prepare("book", "tx")];
    show("tier", |pairs| run(pairs, || tier.try_allocate().ok()));
    show("pool, one tenant and tag", |pairs| run(pairs, || requests[0].try_allocate().ok()));
    show("pool, two of each in turn", |pairs| {
        let mut turn = 0;
        run(pairs, || {
            turn ^= 1;
            requests[turn].try_allocate().ok()
        })
    });
}

/// Measures a workload of so many pairs, and prints what it took.
fn show(name: &str, batch: impl Fn(u64) -> Duration) {
    let pairs = iter::successors(Some(1u64), |pairs| Some(pairs * 2)).find(|&pairs| batch(pairs) >= BATCH).unwrap_or(1);
    let each: Vec<_> = (0..BATCHES).map(|_| (batch(pairs).as_nanos() as f64 / pairs as f64).to_string()).collect();
    println!("{name}\t{}", each.join(" "));
}

/// Allocate, write one byte, release.
#[inline(always)]
fn run<T: DerefMut<Target = [u8]> + 'static>(pairs: u64, mut allocate: impl FnMut() -> Option<Lease<T>>) -> Duration {
    let start = Instant::now();
    for _ in 0..pairs {
        if let Some(mut lease) = allocate() {
            (**lease)[0] = black_box(1);
        }
    }
    start.elapsed()
}
