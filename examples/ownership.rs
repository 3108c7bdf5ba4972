//! Which kind of ownership costs what: each form once around, timed on this machine beside an uncontended atomic addition.
//!
//! ```sh
//! cargo run --release --example ownership
//! ```
//!
//! Many short rounds, all forms in turn in each, and of each form the median: so a disturbance hits all alike.
//! `docs/leases.md` tells when to take which.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tierpool::Tier;

const ROUNDS: usize = 301;
const TIMES: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tier: Tier<u64> = Tier::builder("forms").capacity(1024).build_with(|| 7)?;
    let counter = AtomicU64::new(0);
    let allocate = || tier.try_allocate().expect("a thousand slots for a few holders");
    let shared = allocate().into_shared();
    let published = allocate().share();
    let standing = tier.pin();
    type Form<'a> = (&'a str, &'a dyn Fn());
    let forms: [Form; 9] = [
        ("an atomic addition", &|| {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
        ("lease: allocate, drop", &|| drop(black_box(allocate()))),
        ("handle: allocate, detach, attach, drop", &|| {
            let handle = black_box(allocate().detach());
            drop(tier.attach(handle).expect("just detached"));
        }),
        ("handle: allocate, detach, release", &|| {
            let handle = black_box(allocate().detach());
            tier.release(handle).expect("just detached");
        }),
        ("handle with a deadline: the same, detach_for", &|| {
            let handle = black_box(allocate().detach_for(Duration::from_secs(3600)));
            tier.release(handle).expect("just detached");
        }),
        ("shared lease: clone, drop", &|| drop(black_box(shared.clone()))),
        ("shared lease: allocate, into_shared, drop", &|| drop(black_box(allocate().into_shared()))),
        ("pin, read, unpin", &|| {
            let pin = tier.pin();
            black_box(tier.read(black_box(published), &pin));
        }),
        ("read, under a pin that stands", &|| {
            black_box(tier.read(black_box(published), &standing));
        }),
    ];
    let mut nanoseconds = [const { Vec::new() }; 9];
    for _ in 0..ROUNDS {
        for ((_, form), times) in forms.iter().zip(&mut nanoseconds) {
            let start = Instant::now();
            (0..TIMES).for_each(|_| form());
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
        }
    }
    let medians = nanoseconds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    println!("{:<46} {:>6} {:>10}", "", "ns", "additions");
    for ((name, _), ns) in forms.iter().zip(medians) {
        println!("{name:<46} {ns:>6.1} {:>10.1}", ns / medians[0]);
    }
    println!("\nEach includes an indirect call and a loop's turn, about 1 ns.");
    Ok(())
}
