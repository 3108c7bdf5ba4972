//! The ways in which the use of a slot ends, for tests of what each of them has to do.

use std::thread;
use std::time::Duration;

use tierpool::{Lease, Tier};

use super::waiting::wait_until;

/// One way for a slot to come back to its tier.
pub type WayBack = fn(&Tier<u64>, Lease<u64>);

/// Every one.
const WAYS_BACK: [(&str, WayBack); 11] = [
    ("drop", |_, lease| drop(lease)),
    ("release", |_, lease| lease.release()),
    ("a handle", |tier, lease| tier.release(lease.detach()).unwrap()),
    ("attach", |tier, lease| drop(tier.attach(lease.detach()).unwrap())),
    ("take", |_, lease| _ = lease.take()),
    ("discard", |_, lease| lease.discard()),
    ("retire", |tier, lease| tier.retire(lease.share()).unwrap()),
    ("a shared lease", |_, lease| drop(lease.into_shared().clone())),
    ("expiry", |tier, lease| {
        lease.detach_for(Duration::ZERO);
        wait_until("it expires", || tier.reclaim().expired == 1);
    }),
    ("a magazine of one's own", |tier, lease| tier.local().release(lease)),
    ("another thread", |_, lease| thread::spawn(move || drop(lease)).join().unwrap()),
];

/// When a value is made a fresh 0 again after its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The next holder finds what the last one left.
    Never,
    /// By `reset`, on the way back.
    AtOnce,
    /// By `clean`, before it is handed out again.
    Later,
}

/// Every way back, each with every kind of reset: `check` is given a new tier `"ways"` of so many slots, for one of them.
pub fn each_way_back(slots: usize, check: impl Fn(&str, WayBack, Reset, Tier<u64>)) {
    for (way, give_back) in WAYS_BACK {
        for reset in [Reset::Never, Reset::AtOnce, Reset::Later] {
            let builder = Tier::builder("ways").capacity(slots);
            let builder = match reset {
                Reset::Never => builder,
                Reset::AtOnce => builder.reset(|value| *value = 0),
                Reset::Later => builder.clean(|value| *value = 0),
            };
            check(way, give_back, reset, builder.build_with(|| 0).unwrap());
        }
    }
}
