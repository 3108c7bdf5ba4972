//! Random operations of many threads over all of the surface, with exact accounts at the end. Meant for sanitizers
//! too: each value has a part that is not atomic, which its holder writes and checks, so that a slot in two hands is a
//! data race, and a use after the drop one of freed memory.
//!
//! `TIERPOOL_STRESS_OPS` is the number of operations of each thread.

pub mod common;

use std::sync::{Barrier, Mutex, MutexGuard};
use std::thread;

use common::{Census, Citizen, accounted, drain};
use tierpool::{AllocateError, Handle, HandleError, Lease, Leases, Tier};

fn operations() -> usize {
    let given = std::env::var("TIERPOOL_STRESS_OPS").ok();
    given.map_or(20_000, |text| text.parse().expect("TIERPOOL_STRESS_OPS is a number"))
}

/// What a thread holds, and what it found.
struct Player<'a> {
    tier: &'a Tier<Citizen>,
    /// Leases and handles on their way to other threads.
    table: &'a Table,
    random: fastrand::Rng,
    held: Vec<Lease<Citizen>>,
    handles: Vec<Handle>,
    bulk: Leases<Citizen>,
    taken: Vec<Citizen>,
    allocated: u64,
    refused: u64,
}

#[derive(Default)]
struct Table {
    leases: Mutex<Vec<Lease<Citizen>>>,
    handles: Mutex<Vec<Handle>>,
}

/// Locks without the contended half of the standard library's Mutex, which sanitizers do not see into.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(_) => thread::yield_now(),
        }
    }
}

/// Writes what only the holder may, and checks that nobody else does.
fn use_it(value: &mut Citizen, mark: u64) {
    *value.note = mark;
    std::hint::black_box(&mut value.note);
    assert_eq!(*value.note, mark, "a slot in two hands");
}

impl<'a> Player<'a> {
    fn new(tier: &'a Tier<Citizen>, table: &'a Table, seed: u64) -> Self {
        Player {
            tier,
            table,
            random: fastrand::Rng::with_seed(seed),
            held: Vec::new(),
            handles: Vec::new(),
            bulk: Leases::new(),
            taken: Vec::new(),
            allocated: 0,
            refused: 0,
        }
    }

    fn counted<L>(&mut self, n: usize, outcome: Result<L, AllocateError>) -> Option<L> {
        match outcome {
            Ok(lease) => {
                self.allocated += n as u64;
                Some(lease)
            }
            Err(AllocateError::Exhausted(_)) => {
                self.refused += 1;
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn some_lease(&mut self) -> Option<Lease<Citizen>> {
        if self.held.is_empty() {
            return None;
        }
        let at = self.random.usize(..self.held.len());
        let mut lease = self.held.swap_remove(at);
        use_it(&mut lease, self.random.u64(..));
        Some(lease)
    }

    fn one(&mut self) {
        match self.random.u32(..20) {
            0..6 => {
                let outcome = self.tier.try_allocate();
                if let Some(mut lease) = self.counted(1, outcome) {
                    use_it(&mut lease, self.random.u64(..));
                    self.held.push(lease);
                }
            }
            6..9 => drop(self.some_lease()),
            9 | 10 => self.some_lease().into_iter().for_each(Lease::release),
            11 => {
                if let Some(lease) = self.some_lease() {
                    self.handles.push(lease.detach());
                }
            }
            12 => {
                if let Some(handle) = self.handles.pop() {
                    let mut lease = self.tier.attach(handle).expect("only this thread has the handle");
                    assert!(self.tier.attach(handle).is_err());
                    use_it(&mut lease, self.random.u64(..));
                    self.held.push(lease);
                }
            }
            13 => {
                if let Some(handle) = self.handles.pop() {
                    self.tier.release(handle).expect("only this thread has the handle");
                    assert!(matches!(self.tier.release(handle), Err(HandleError::Stale { .. })));
                }
            }
            14 => {
                let n = self.random.usize(..40);
                let mut bulk = std::mem::take(&mut self.bulk);
                let outcome = self.tier.try_allocate_into(&mut bulk, n);
                if self.counted(n, outcome).is_some() {
                    bulk.iter_mut().for_each(|value| use_it(value, n as u64));
                }
                match self.random.u32(..3) {
                    0 => self.held.extend(bulk.pop()),
                    1 => self.held.extend(std::mem::take(&mut bulk).into_iter().take(3)),
                    _ => {}
                }
                bulk.release_all();
                self.bulk = bulk;
            }
            15 => {
                // To another thread, as a lease.
                let mine = self.some_lease();
                let mut table = lock(&self.table.leases);
                table.extend(mine);
                if self.random.bool() {
                    self.held.extend(table.pop());
                }
            }
            16 => {
                // To several others, as copies of a handle: one of them wins.
                let mine = self.some_lease();
                let mut table = lock(&self.table.handles);
                table.extend(mine.into_iter().map(|lease| lease.detach()).flat_map(|handle| [handle; 3]));
                if !table.is_empty() {
                    let at = self.random.usize(..table.len());
                    let handle = table.swap_remove(at);
                    drop(table);
                    if let Ok(mut lease) = self.tier.attach(handle) {
                        use_it(&mut lease, self.random.u64(..));
                    }
                }
            }
            17 => self.some_lease().into_iter().for_each(Lease::discard),
            18 => {
                if let Some(lease) = self.some_lease() {
                    let mut value = lease.take();
                    use_it(&mut value, 1);
                    self.taken.push(value);
                    self.taken.truncate(3);
                }
            }
            _ => {
                let mut local = self.tier.local();
                for _ in 0..self.random.usize(..100) {
                    let outcome = local.try_allocate();
                    let Some(mut lease) = self.counted(1, outcome) else { break };
                    use_it(&mut lease, 7);
                    local.release(lease);
                }
            }
        }
        if self.held.len() > 20 {
            self.held.truncate(4);
        }
    }
}

/// Lets `threads` play, and makes the account. Looks on meanwhile if `watched`.
fn play(capacity: usize, threads: usize, operations: usize, watched: bool) {
    let census = Census::default();
    let tier = census.tier(capacity);
    let table = Table::default();
    let start = Barrier::new(threads);
    let (allocated, refused) = thread::scope(|scope| {
        let players: Vec<_> = (0..threads)
            .map(|seed| {
                let (tier, table, start) = (&tier, &table, &start);
                scope.spawn(move || {
                    let mut player = Player::new(tier, table, seed as u64);
                    start.wait();
                    (0..operations).for_each(|_| player.one());
                    for handle in player.handles.drain(..) {
                        tier.release(handle).unwrap();
                    }
                    (player.allocated, player.refused)
                })
            })
            .collect();
        while watched && !players.iter().all(|player| player.is_finished()) {
            let now = tier.snapshot();
            let sum = now.free + now.leased + now.detached + now.claimed + now.quarantined + now.absent;
            assert_eq!(sum, capacity, "each word is counted once");
            for holder in tier.holders() {
                let site = holder.site.expect("a held slot has a site");
                assert!(site.file().ends_with("stress.rs") || site.file().ends_with("mod.rs"), "a torn site: {site}");
            }
            thread::yield_now();
        }
        let counts = players.into_iter().map(|player| player.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    });
    lock(&table.leases).clear();
    for handle in lock(&table.handles).drain(..) {
        // Copies: one of them wins, or has won.
        let _ = tier.release(handle);
    }
    let now = accounted(&tier);
    assert_eq!(now.free, capacity, "{now:?}");
    // A refused bulk gives back what it had claimed, which counts on both sides.
    assert_eq!(now.allocations, now.releases, "{now:?}");
    assert!(now.allocations >= allocated && now.hits <= now.allocations, "{allocated} were handed out: {now:?}");
    assert_eq!(now.refusals, refused);
    assert_eq!(drain(&tier), capacity, "a free slot that cannot be had");
    assert_eq!(census.alive(), capacity);
    drop(tier);
    assert_eq!(census.alive(), 0);
}

#[test]
fn plenty_of_slots() {
    play(1_000, 4, operations(), false);
}

#[test]
fn scarce_slots() {
    play(24, 4, operations(), false);
}

#[test]
fn one_slot() {
    play(1, 3, operations(), false);
}

#[test]
fn slots_that_are_looked_at_all_the_time() {
    play(100, 3, operations(), true);
}

/// TORTURE 28: 64 threads on however few cores there are.
#[test]
fn many_more_threads_than_cores() {
    play(150, 64, operations() / 16, false);
}

/// Tiers are built, used by several threads, closed or dropped with slots still out, and their places used again.
#[test]
fn tiers_that_come_and_go() {
    let census = Census::default();
    thread::scope(|scope| {
        for seed in 0..3 {
            let census = &census;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut old = Vec::new();
                for _ in 0..operations() / 100 {
                    let tier = census.tier(random.usize(1..50));
                    let leases: Vec<_> = (0..random.usize(..20)).map_while(|_| tier.try_allocate().ok()).collect();
                    let handle = tier.try_allocate().ok().map(|lease| lease.detach());
                    for handle in old.drain(..) {
                        assert!(tier.attach(handle).is_err());
                    }
                    old.extend(handle);
                    let clone = tier.clone();
                    thread::scope(|scope| {
                        scope.spawn(move || {
                            drop(clone.try_allocate());
                            drop(leases);
                        });
                        if random.bool() {
                            tier.close();
                        }
                        drop(tier);
                    });
                }
            });
        }
    });
    assert_eq!(census.alive(), 0);
}
