//! Sequences of operations by several logical owners against a model: a map from slots to what is done with them. After
//! each operation the tier's snapshot must be the model's, and each refusal must be the one that the model expects.
#![no_main]

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tierpool::{AllocateError, Handle, HandleError, Lease, Leases, Local, Tier};

const OWNERS: usize = 3;

#[derive(Debug, Arbitrary)]
enum Op {
    Allocate {
        owner: u8,
    },
    AllocateMany {
        owner: u8,
        n: u8,
    },
    LocalAllocate {
        owner: u8,
    },
    LocalRelease {
        owner: u8,
        which: u8,
    },
    DropLocal,
    Drop {
        owner: u8,
        which: u8,
    },
    Release {
        owner: u8,
        which: u8,
    },
    /// Moves a lease from one owner to another.
    Pass {
        from: u8,
        to: u8,
        which: u8,
    },
    Detach {
        owner: u8,
        which: u8,
    },
    /// With any handle that was ever made, and bits of it changed perhaps.
    Attach {
        owner: u8,
        which: u8,
        flip: Option<u8>,
    },
    ReleaseHandle {
        which: u8,
        flip: Option<u8>,
    },
    Foreign {
        which: u8,
    },
    Discard {
        owner: u8,
        which: u8,
    },
    Take {
        owner: u8,
        which: u8,
    },
    ReleaseBulk {
        owner: u8,
    },
    PopBulk {
        owner: u8,
    },
    ResetPanics(bool),
    FactoryFails(bool),
    CloneTier,
    DropTier,
    Close,
}

#[derive(Debug, Arbitrary)]
struct Case {
    capacity: u8,
    resets: bool,
    ops: Vec<Op>,
}

/// What the factory and reset are told to do, and the count of values.
#[derive(Debug, Default)]
struct Faults {
    reset_panics: AtomicBool,
    factory_fails: AtomicBool,
    alive: AtomicUsize,
}

#[derive(Debug)]
struct Value {
    faults: Arc<Faults>,
    /// Which lease wrote it last.
    mark: u64,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.faults.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the model knows of one use of a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    Leased,
    Detached,
}

struct World {
    faults: Arc<Faults>,
    resets: bool,
    capacity: usize,
    tiers: Vec<Tier<Value>>,
    other: Tier<Value>,
    local: Option<Local<Value>>,
    leases: [Vec<Lease<Value>>; OWNERS],
    bulks: [Leases<Value>; OWNERS],
    handles: Vec<Handle>,
    /// Slots in use, by number. The others are free, vacant or gone, of which the model keeps counts.
    slots: BTreeMap<u32, Slot>,
    vacant: usize,
    gone: usize,
    closed: bool,
    made: HashSet<u128>,
    marks: Rc<Cell<u64>>,
}

/// A slot's number, from the bits of its name.
fn number(handle: Handle) -> u32 {
    handle.to_bits() as u32
}

impl World {
    fn free(&self) -> usize {
        self.capacity - self.slots.len() - self.vacant - self.gone
    }

    fn tier(&self) -> Option<&Tier<Value>> {
        self.tiers.last().or_else(|| self.local.as_ref().map(Local::tier))
    }

    fn took(&mut self, owner: usize, mut lease: Lease<Value>) {
        let old = self.slots.insert(number(lease.handle()), Slot::Leased);
        assert_eq!(old, None, "a slot in two hands");
        self.marks.set(self.marks.get() + 1);
        lease.mark = self.marks.get();
        self.leases[owner].push(lease);
    }

    fn pick(&mut self, owner: u8, which: u8) -> Option<(usize, Lease<Value>)> {
        let owner = owner as usize % OWNERS;
        let leases = &mut self.leases[owner];
        if leases.is_empty() {
            return None;
        }
        let lease = leases.swap_remove(which as usize % leases.len());
        assert_eq!(self.slots.get(&number(lease.handle())), Some(&Slot::Leased));
        Some((owner, lease))
    }

    /// A slot comes back with a value that goes through reset. Returns whether that must panic.
    fn comes_back(&mut self, slot: u32) -> bool {
        assert!(self.slots.remove(&slot).is_some());
        let broken = self.resets && self.faults.reset_panics.load(Ordering::SeqCst);
        if broken {
            self.loses_its_value();
        } else if self.closed {
            self.gone += 1;
        }
        broken
    }

    /// A slot that is not in use has lost its value.
    fn loses_its_value(&mut self) {
        if self.closed {
            self.gone += 1;
        } else if self.faults.factory_fails.load(Ordering::SeqCst) {
            self.vacant += 1;
        }
    }

    fn allocated(&mut self, owner: usize, outcome: Result<Lease<Value>, AllocateError>) {
        match outcome {
            Ok(lease) => {
                if self.free() == 0 {
                    assert!(self.vacant > 0 && !self.faults.factory_fails.load(Ordering::SeqCst), "out of nothing");
                    self.vacant -= 1;
                }
                assert!(!self.closed, "from a closed tier");
                self.took(owner, lease);
            }
            Err(AllocateError::Closed { .. }) => assert!(self.closed),
            // A vacant slot is tried once a tick of the clock, so that it may or may not be there.
            Err(error) => assert!(!self.closed && self.free() == 0, "false exhaustion: {error}"),
        }
    }

    /// What must become of a handle.
    fn check(&self, handle: Handle, error: &HandleError) {
        let bits = handle.to_bits();
        let home = self.handles.first().is_some_and(|known| known.to_bits() as u64 >> 32 == bits as u64 >> 32);
        match error {
            HandleError::Stale { .. } => assert!(home),
            HandleError::InUse { .. } => assert_eq!(self.slots.get(&number(handle)), Some(&Slot::Leased)),
            HandleError::Closed { .. } => assert!(self.closed && !self.slots.contains_key(&number(handle))),
            HandleError::Foreign { .. } => assert!(!self.made.contains(&bits), "its own handle is foreign"),
            HandleError::Forged { .. } => assert!(!self.made.contains(&bits), "a handle that was made is forged"),
            other => panic!("{other:?}"),
        }
        assert!(!error.to_string().is_empty());
    }

    fn handle(&self, which: u8, flip: Option<u8>) -> Option<Handle> {
        let handle = *self.handles.get(which as usize % self.handles.len().max(1))?;
        let bits = handle.to_bits() ^ flip.map_or(0, |flip| 1 << (flip % 128));
        match Handle::from_bits(bits) {
            Ok(handle) => Some(handle),
            Err(error) => {
                assert!(matches!(error, HandleError::Forged { .. }) && !self.made.contains(&bits));
                None
            }
        }
    }

    /// Whether it is the one handle that holds its slot now.
    fn holds(&self, handle: Handle) -> bool {
        let newest = self.handles.iter().rev().find(|known| number(**known) == number(handle));
        newest == Some(&handle) && self.slots.get(&number(handle)) == Some(&Slot::Detached)
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Allocate { owner } => {
                let Some(outcome) = self.tier().map(Tier::try_allocate) else { return };
                self.allocated(owner as usize % OWNERS, outcome);
            }
            Op::LocalAllocate { owner } => {
                if self.local.is_none() {
                    self.local = self.tiers.last().map(Tier::local);
                }
                let Some(local) = &mut self.local else { return };
                let outcome = local.try_allocate();
                self.allocated(owner as usize % OWNERS, outcome);
            }
            Op::LocalRelease { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                let panics = self.comes_back(number(lease.handle()));
                let outcome = catch_unwind(AssertUnwindSafe(|| match &mut self.local {
                    Some(local) => local.release(lease),
                    None => lease.release(),
                }));
                assert_eq!(outcome.is_err(), panics);
            }
            Op::DropLocal => {
                let local = self.local.take();
                if local.is_some() && self.tiers.is_empty() {
                    self.orphaned();
                }
                drop(local);
            }
            Op::AllocateMany { owner, n } => {
                let owner = owner as usize % OWNERS;
                let n = n as usize % (self.capacity + 2);
                let mut bulk = std::mem::take(&mut self.bulks[owner]);
                if let Some(tier) = self.tier() {
                    let before = bulk.len();
                    // What is refused was claimed and given back without reset; vacant slots may have been filled.
                    let outcome = tier.try_allocate_into(&mut bulk, n);
                    let refilled = self.vacant - tier.snapshot().quarantined.min(self.vacant);
                    assert!(refilled == 0 || !self.faults.factory_fails.load(Ordering::SeqCst));
                    self.vacant -= refilled;
                    match outcome {
                        Ok(()) => {
                            assert_eq!(bulk.len(), before + n);
                            assert!(!self.closed || n == 0, "from a closed tier");
                            let mut leases: Vec<_> = (0..n).map(|_| bulk.pop().unwrap()).collect();
                            for lease in &leases {
                                let old = self.slots.insert(number(lease.handle()), Slot::Leased);
                                assert_eq!(old, None, "a slot in two hands");
                            }
                            // Single leases go on living as such; a bulk is taken again for bulk releases.
                            self.leases[owner].append(&mut leases);
                        }
                        Err(AllocateError::Closed { .. }) => assert!(self.closed && n > 0),
                        Err(error) => assert!(!self.closed && self.free() < n, "false exhaustion: {error}"),
                    }
                }
                self.bulks[owner] = bulk;
            }
            Op::ReleaseBulk { owner } => {
                // The same number of slots through a real bulk, if there are any to be had.
                let owner = owner as usize % OWNERS;
                let n = self.free();
                let Some(tier) = self.tier() else { return };
                if self.closed || n == 0 {
                    return;
                }
                let mut bulk = tier.try_allocate_many(n).expect("so many are free");
                for value in &mut bulk {
                    value.mark = 0;
                }
                let panics = self.resets && self.faults.reset_panics.load(Ordering::SeqCst);
                if panics {
                    (0..n).for_each(|_| self.loses_its_value());
                }
                let outcome = catch_unwind(AssertUnwindSafe(|| bulk.release()));
                assert_eq!(outcome.is_err(), panics);
                self.bulks[owner].release_all();
            }
            Op::PopBulk { owner } => assert!(self.bulks[owner as usize % OWNERS].pop().is_none()),
            Op::Drop { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                let panics = self.comes_back(number(lease.handle()));
                assert_eq!(catch_unwind(AssertUnwindSafe(|| drop(lease))).is_err(), panics);
            }
            Op::Release { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                let panics = self.comes_back(number(lease.handle()));
                assert_eq!(catch_unwind(AssertUnwindSafe(|| lease.release())).is_err(), panics);
            }
            Op::Pass { from, to, which } => {
                let Some((_, lease)) = self.pick(from, which) else { return };
                self.leases[to as usize % OWNERS].push(lease);
            }
            Op::Detach { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                let slot = number(lease.handle());
                let handle = lease.detach();
                assert_eq!(number(handle), slot);
                assert!(self.made.insert(handle.to_bits()), "a handle made twice");
                self.handles.push(handle);
                if self.tier().is_some() {
                    self.slots.insert(slot, Slot::Detached);
                } else {
                    self.slots.remove(&slot);
                    self.gone += 1;
                }
            }
            Op::Attach { owner, which, flip } => {
                let Some(handle) = self.handle(which, flip) else { return };
                let Some(outcome) = self.tier().map(|tier| tier.attach(handle)) else { return };
                assert_eq!(outcome.is_ok(), self.holds(handle), "{outcome:?}");
                match outcome {
                    Ok(lease) => {
                        self.slots.remove(&number(handle));
                        self.took(owner as usize % OWNERS, lease);
                    }
                    Err(error) => self.check(handle, &error),
                }
            }
            Op::ReleaseHandle { which, flip } => {
                let Some(handle) = self.handle(which, flip) else { return };
                let Some(tier) = self.tier().cloned() else { return };
                let wins = self.holds(handle);
                let panics = wins && self.comes_back(number(handle));
                match catch_unwind(AssertUnwindSafe(|| tier.release(handle))) {
                    Err(_) => assert!(panics),
                    Ok(Ok(())) => assert!(wins && !panics),
                    Ok(Err(error)) => {
                        assert!(!wins, "{error}");
                        self.check(handle, &error);
                    }
                }
            }
            Op::Foreign { which } => {
                let Some(&handle) = self.handles.get(which as usize % self.handles.len().max(1)) else { return };
                assert!(matches!(self.other.attach(handle), Err(HandleError::Foreign { .. })));
                assert!(matches!(self.other.release(handle), Err(HandleError::Foreign { .. })));
            }
            Op::Discard { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                self.slots.remove(&number(lease.handle()));
                self.loses_its_value();
                lease.discard();
            }
            Op::Take { owner, which } => {
                let Some((_, lease)) = self.pick(owner, which) else { return };
                self.slots.remove(&number(lease.handle()));
                self.loses_its_value();
                drop(lease.take());
            }
            Op::ResetPanics(panics) => self.faults.reset_panics.store(panics, Ordering::SeqCst),
            Op::FactoryFails(fails) => self.faults.factory_fails.store(fails, Ordering::SeqCst),
            Op::CloneTier => {
                if let Some(tier) = self.tiers.last() {
                    self.tiers.push(tier.clone());
                }
            }
            Op::DropTier => {
                let tier = self.tiers.pop();
                if tier.is_some() && self.tiers.is_empty() && self.local.is_none() {
                    self.orphaned();
                }
                drop(tier);
            }
            Op::Close => {
                if let Some(tier) = self.tier() {
                    tier.close();
                    self.gone += self.free() + self.vacant;
                    self.vacant = 0;
                    self.closed = true;
                }
            }
        }
    }

    /// The last tier is about to go, and the detached slots with it.
    fn orphaned(&mut self) {
        let detached = self.slots.values().filter(|&&slot| slot == Slot::Detached).count();
        self.gone += self.free() + self.vacant + detached;
        self.slots.retain(|_, slot| *slot != Slot::Detached);
        self.vacant = 0;
        self.closed = true;
    }

    fn compare(&self) {
        let count = |state| self.slots.values().filter(|&&slot| slot == state).count();
        let (leased, detached) = (count(Slot::Leased), count(Slot::Detached));
        assert_eq!(self.leases.iter().map(Vec::len).sum::<usize>(), leased);
        let alive = self.capacity - self.vacant - self.gone + self.other.capacity();
        assert_eq!(self.faults.alive.load(Ordering::SeqCst), alive, "a value too many, or too few");
        let Some(tier) = self.tier() else { return };
        let now = tier.snapshot();
        assert_eq!(
            (now.free, now.leased, now.detached, now.claimed, now.quarantined, now.absent, now.closed),
            (self.free(), leased, detached, 0, self.vacant, self.gone, self.closed),
            "{now:?}"
        );
        assert_eq!(tier.holders().len(), leased + detached);
    }
}

fuzz_target!(|case: Case| {
    // The panics that reset is told to make are part of the game, the others are findings.
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"told to") {
                loud(info);
                std::process::abort();
            }
        }));
    });
    let faults = Arc::new(Faults::default());
    let capacity = case.capacity as usize % 40 + 1;
    let tier = |name, capacity, resets: bool| {
        let (for_factory, for_reset) = (faults.clone(), faults.clone());
        let mut builder = Tier::builder(name).capacity(capacity);
        if resets {
            builder = builder.reset(move |_: &mut Value| {
                if for_reset.reset_panics.load(Ordering::SeqCst) {
                    panic!("told to");
                }
            });
        }
        let make = move || {
            if for_factory.factory_fails.load(Ordering::SeqCst) {
                return Err("told to");
            }
            for_factory.alive.fetch_add(1, Ordering::SeqCst);
            Ok(Value { faults: for_factory.clone(), mark: 0 })
        };
        builder.try_build_with(make).unwrap()
    };
    let mut world = World {
        resets: case.resets,
        capacity,
        tiers: vec![tier("model", capacity, case.resets)],
        other: tier("other", 2, false),
        faults: faults.clone(),
        local: None,
        leases: Default::default(),
        bulks: Default::default(),
        handles: Vec::new(),
        slots: BTreeMap::new(),
        vacant: 0,
        gone: 0,
        closed: false,
        made: HashSet::new(),
        marks: Rc::default(),
    };
    for op in &case.ops {
        world.step(op);
        world.compare();
    }
    faults.reset_panics.store(false, Ordering::SeqCst);
    drop(world);
    assert_eq!(faults.alive.load(Ordering::SeqCst), 0, "values outlive everything");
});
