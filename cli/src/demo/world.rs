//! The demo's pool: buffers of three sizes, connections to a venue, three tenants, and a circuit breaker.

use std::error::Error;
use std::time::Duration;

use tierpool::{BreakerRules, BreakerWindow, Limit, MemoryTier, Pool, Reclaimer, TenantRules, Tier, Watermarks};

/// The name of the tier of connections.
pub const VENUE: &str = "venue";
/// Bytes of a market-data packet, an entry of the order book's tape, and a book.
pub const PACKET: usize = 1400;
pub const TICK: usize = 200;
pub const BOOK: usize = 60_000;
/// What `analytics` may hold at most.
pub const QUOTA: u64 = 300;
/// What is held for longer is looked at: as a leak, if the other uses of its line are short.
const LEAK_AFTER: Duration = Duration::from_secs(3);

/// A connection to the venue, of which there are few.
pub struct Connection {
    /// Orders that went through it.
    pub orders: u64,
}

pub fn build() -> Result<Pool, Box<dyn Error>> {
    let venue = Tier::builder(VENUE)
        .capacity(2)
        .leak_after(LEAK_AFTER)
        .reclaimer(Reclaimer::Background)
        .build_with(|| Connection { orders: 0 })?;
    let memory = |name, bytes, slots| MemoryTier::new(name, bytes, slots).with(|tier| tier.leak_after(LEAK_AFTER));
    let urgent_first = Watermarks { min: 4, low: 8, high: 16 };
    let pool = Pool::builder()
        .reclaimer(Reclaimer::Background)
        .memory_tier(memory("ticks", 256, 4096))
        .memory_tier(memory("packets", 2 * 1024, 1024))
        .memory_tier(memory("books", 64 * 1024, 64).watermarks(urgent_first))
        .tier(venue)
        .tenant(TenantRules::new("md").weight(4))
        .tenant(TenantRules::new("orders").weight(4))
        .tenant(TenantRules::new("analytics").hard(Limit::slots(QUOTA)))
        .breaker(VENUE, breaker())
        .build()?;
    Ok(pool)
}

/// Opens when a third of the last second's orders found no connection in time, for half a second at first.
fn breaker() -> BreakerRules {
    BreakerRules {
        window: BreakerWindow::Time(Duration::from_secs(1)),
        minimum_calls: 20,
        failure_rate: 0.33,
        half_open_calls: 4,
        open_min: Duration::from_millis(500),
        open_max: Duration::from_secs(4),
        ..BreakerRules::default()
    }
}
