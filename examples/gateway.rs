//! A gateway in small: packets come in, are answered out of pooled memory, and the pool is watched and adapted meanwhile.
//!
//! ```sh
//! cargo run --release --example gateway
//! ```
//!
//! What to copy: one pool with the sizes of the program; requests that are prepared once for each place that allocates; a tenant
//! for each source, so that nobody sees another's bytes; groups for what is of no use in part; a reservation for what must not fail;
//! refusals that are answered and counted, not waited out; and one thread that looks after the pool.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tierpool::{MemoryTier, Pool, Reclaimer, Request, RequestError, Spill};

const PACKETS: u64 = 200_000;

/// What a thread does for one source of packets.
fn serve(pool: &Pool, tenant: &str, dropped: &AtomicU64) -> Result<(), RequestError> {
    // Everything is looked up here, once.
    let packet = pool.prepare(Request::memory(1500).tenant(tenant).spill(Spill::NextLarger))?;
    for number in 0..PACKETS {
        let Ok(mut buffer) = packet.try_allocate() else {
            // The burst is too large: say so and go on.
            dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        buffer.put_u64(number);
        buffer.put_slice(tenant.as_bytes());
        if number % 1000 == 0 {
            // An answer needs a head and a body, or neither.
            let answer = (Request::memory(64).tenant(tenant), Request::memory(40_000).tenant(tenant));
            let (mut head, mut body) = pool.allocate_group_timeout(answer, Duration::from_millis(10))?;
            let _ = write!(head, "{} bytes follow", buffer.filled().len());
            body.put_slice(buffer.filled());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::builder()
        .memory("heads", 64, 1024)
        .memory_tier(MemoryTier::new("packets", 2048, 4096).with(|tier| tier.min_capacity(64)))
        .memory("bodies", 64 * 1024, 64)
        .tenant("exchange a")
        .tenant("exchange b")
        .reclaimer(Reclaimer::Background)
        .on_decision(|decision| println!("{decision}"))
        .build()?;

    // The last words of the program get their memory now, while there is some.
    let farewell = pool.reserve(Request::memory(64), 1)?;
    let (done, dropped) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pool.optimize(&pool.metrics());
                thread::sleep(Duration::from_millis(20));
            }
        });
        let sources: Vec<_> =
            ["exchange a", "exchange b"].map(|tenant| scope.spawn(|| serve(&pool, tenant, &dropped))).into();
        let outcomes: Vec<_> = sources.into_iter().map(|source| source.join()).collect();
        done.store(true, Ordering::Relaxed);
        outcomes.into_iter().try_for_each(|outcome| outcome.expect("no panic"))
    })?;

    let mut words = farewell.draw()?;
    write!(words, "{} packets were dropped", dropped.load(Ordering::Relaxed))?;
    println!("{}\n\n{}", String::from_utf8_lossy(words.filled()), pool.monitor());
    drop((words, farewell));
    pool.close_and_wait(Duration::from_secs(1))?;
    Ok(())
}
