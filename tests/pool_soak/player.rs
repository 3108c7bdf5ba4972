//! What a thread does: anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tierpool::{AllocateError, Lease, Memory, Pool, Priority, Request, RequestError, Reservation, Spill, TierMetrics};

use crate::THREADS;
use crate::ledger::*;
use crate::report::*;
use crate::values::*;
use crate::world::*;

/// What a request is for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    tenant: Option<usize>,
    priority: Priority,
    bytes: usize,
    spill: Spill,
}

/// What came.
pub enum Got {
    Memory(Lease<Memory>),
    Value(Lease<Value>),
}

type Coming<'w> = Pin<Box<dyn Future<Output = Result<Vec<Got>, RequestError>> + Send + 'w>>;

struct Waiting<'w> {
    wish: Wish,
    future: Coming<'w>,
    waker: Waker,
    /// Whether it can be left alone: what it pays is known.
    single: bool,
}

/// A future that nobody polls or drops any more.
pub struct Grave<'w> {
    pub future: Coming<'w>,
    pub tenant: Option<usize>,
    pub bytes: u64,
}

/// Puts the number of its future on the list of those to be polled.
struct Bell {
    at: usize,
    rung: Arc<Mutex<Vec<usize>>>,
    census: Arc<Census>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        lock(&self.rung).push(self.at);
        self.census.may_panic();
    }
}

pub struct Player<'w> {
    number: usize,
    world: &'w World,
    pool: &'w Pool,
    random: fastrand::Rng,
    memory: Vec<Held<Memory>>,
    values: Vec<Held<Value>>,
    reservations: Vec<(Wish, Reservation<Memory>)>,
    waits: Vec<Option<Waiting<'w>>>,
    waiting: usize,
    rung: Arc<Mutex<Vec<usize>>>,
    graves: Vec<Grave<'w>>,
}

const PRIORITIES: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical];

impl<'w> Player<'w> {
    pub fn new(number: usize, world: &'w World, seed: u64) -> Self {
        fastrand::seed(seed);
        Player {
            number,
            world,
            pool: &world.pool,
            random: fastrand::Rng::with_seed(seed),
            memory: Vec::new(),
            values: Vec::new(),
            reservations: Vec::new(),
            waits: Vec::new(),
            waiting: 0,
            rung: Arc::default(),
            graves: Vec::new(),
        }
    }

    fn wish(&mut self) -> Wish {
        Wish {
            tenant: Some(self.random.usize(..=TENANTS.len())).filter(|&at| at < TENANTS.len()),
            priority: PRIORITIES[self.random.usize(..4)],
            bytes: [10, 64, 100, 256, 1000][self.random.usize(..5)],
            spill: if self.random.u32(..3) == 0 { Spill::NextLarger } else { Spill::Refuse },
        }
    }

    fn finish<K>(wish: Wish, request: Request<'static, K>) -> Request<'static, K> {
        let request = request.priority(wish.priority).tag("soak");
        match wish.tenant {
            Some(at) => request.tenant(TENANTS[at].0),
            None => request,
        }
    }

    fn of_memory(wish: Wish) -> Request<'static, Memory> {
        Self::finish(wish, Request::memory(wish.bytes)).spill(wish.spill)
    }

    fn of_value(wish: Wish) -> Request<'static, Value> {
        Self::finish(wish, Request::<Memory>::of::<Value>("custom"))
    }

    fn hold_memory(&mut self, wish: Wish, mut lease: Lease<Memory>) {
        check!(lease.len() == wish.bytes, "{} bytes instead of {}", lease.len(), wish.bytes);
        lease.fill(self.number as u8);
        let tier = TIERS.iter().position(|tier| tier.1 == lease.capacity()).unwrap();
        let entry = Entry::new(&self.world.ledger, wish.tenant, tier, wish.priority, lease.capacity() as u64);
        count(&COUNTS.allocated, 1);
        self.memory.push(Held { entry, lease });
    }

    fn hold_value(&mut self, wish: Wish, mut lease: Lease<Value>) {
        lease.is_alive();
        *lease.note += 1;
        let entry = Entry::new(&self.world.ledger, wish.tenant, 3, wish.priority, size_of::<Value>() as u64);
        count(&COUNTS.allocated, 1);
        self.values.push(Held { entry, lease });
    }

    fn refused(&self, why: RequestError) {
        check!(!why.to_string().is_empty(), "an error that says nothing");
        let counter = match why {
            RequestError::Quota { limit, held, .. } => {
                check!(limit < i64::MAX as u64 && held < 1 << 40, "a strange refusal: {why:?}");
                &COUNTS.quota
            }
            RequestError::Open { .. } => &COUNTS.open,
            RequestError::Tier(AllocateError::TimedOut { .. }) => &COUNTS.timed_out,
            RequestError::Lapsed { .. } => &COUNTS.lapsed,
            _ => &COUNTS.refused,
        };
        count(counter, 1);
    }

    fn got(&mut self, wish: Wish, outcome: Result<Vec<Got>, RequestError>) {
        match outcome {
            Ok(all) => all.into_iter().for_each(|it| match it {
                Got::Memory(lease) => self.hold_memory(wish, lease),
                Got::Value(lease) => self.hold_value(wish, lease),
            }),
            Err(why) => self.refused(why),
        }
    }

    pub fn one(&mut self) {
        let what = self.random.u32(..100);
        // Whatever was in hand when it panics is gone; the rest is as it was.
        guard(|| self.act(what));
        let most = if self.random.u32(..50) == 0 { 0 } else { 24 };
        while self.memory.len() > most {
            let at = self.random.usize(..self.memory.len());
            give_back(self.memory.swap_remove(at));
        }
        while self.values.len() > most / 3 {
            let at = self.random.usize(..self.values.len());
            give_back(self.values.swap_remove(at));
        }
    }

    fn act(&mut self, what: u32) {
        let (pool, wish) = (self.pool, self.wish());
        match what {
            0..12 => {
                let outcome = pool.try_allocate(Self::of_memory(wish)).map(|lease| vec![Got::Memory(lease)]);
                self.got(wish, outcome);
            }
            12..18 => {
                let outcome = pool.try_allocate(Self::of_value(wish)).map(|lease| vec![Got::Value(lease)]);
                self.got(wish, outcome);
            }
            18 => {
                let prepared = pool.prepare(Self::of_memory(wish)).unwrap();
                for _ in 0..self.random.usize(..8) {
                    let outcome = prepared.try_allocate().map(|lease| vec![Got::Memory(lease)]);
                    self.got(wish, outcome);
                }
            }
            19 => {
                let patience = Duration::from_micros(self.random.u64(..3000));
                let outcome = pool.allocate_timeout(Self::of_memory(wish), patience);
                self.got(wish, outcome.map(|lease| vec![Got::Memory(lease)]));
            }
            20 => {
                let patience = Duration::from_micros(self.random.u64(..3000));
                let outcome = pool.allocate(Self::of_value(wish).patience(patience));
                self.got(wish, outcome.map(|lease| vec![Got::Value(lease)]));
            }
            21..45 if self.random.u32(..2000) == 0 => self.flood(),
            21..45 => self.wait(wish),
            45..65 => self.listen(),
            65..72 => {
                if let Some(held) = self.memory.pop() {
                    drop(held.entry);
                    pool.release(held.lease).unwrap();
                }
            }
            72..75 => {
                if let Some(held) = self.values.pop() {
                    drop(held.entry);
                    match self.random.u32(..4) {
                        0 => held.lease.discard(),
                        1 => drop(held.lease.take()),
                        _ => held.lease.release(),
                    }
                }
            }
            75..78 => self.group(wish),
            78..81 => self.reserve(wish),
            81..86 => self.trade(),
            86..88 => self.share(),
            88 => {
                let _held = (self.memory.pop(), self.values.pop());
                std::panic::panic_any(TOLD);
            }
            89 => self.cancel_some(),
            90 => self.forget(),
            91..95 if self.random.u32(..4) == 0 => {
                count(&COUNTS.reconfigured, 1);
                self.reconfigure();
            }
            91..95 => {}
            95 => self.look(),
            96 if self.random.u32(..10) == 0 => pool.reclaim(),
            97 if self.random.u32(..10) == 0 => self.resize(),
            98 if self.random.u32(..20) == 0 => {
                let (pool, table) = (pool.clone(), &self.world.table);
                // A thread that comes and goes, with credits in its purse, and gives back what another took.
                let (one, census) = (lock(&table.memory).pop(), &self.world.census);
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        give_back(one);
                        guard(|| {
                            let all: Vec<_> =
                                (0..4).map_while(|_| pool.try_allocate(Self::of_memory(wish)).ok()).collect();
                            census.may_panic();
                            drop(all);
                        });
                    });
                });
            }
            _ => {}
        }
    }

    /// A new future, polled once.
    fn wait(&mut self, wish: Wish) {
        let pool = self.pool;
        // Those with a limit pay when they wait, so of them not so many can.
        let wish =
            if self.random.bool() { Wish { tenant: [None, Some(7)][self.random.usize(..2)], ..wish } } else { wish };
        let most = self.world.most_waiting / THREADS;
        if self.waiting >= most {
            return self.listen();
        }
        let kind = self.random.u32(..8);
        let future: Coming<'w> = match kind {
            0 => Box::pin(async move { Ok(vec![Got::Value(pool.allocate_async(Self::of_value(wish)).await?)]) }),
            1 if self.random.u32(..8) == 0 => {
                let group = vec![Self::of_memory(wish); self.random.usize(1..4)];
                let group = pool.allocate_group_async(group);
                Box::pin(async move { Ok(group.await?.into_iter().map(Got::Memory).collect()) })
            }
            2 if self.random.u32(..8) == 0 => {
                let group = pool.allocate_group_async((Self::of_value(wish), Self::of_memory(wish)));
                Box::pin(async move {
                    let (value, memory) = group.await?;
                    Ok(vec![Got::Value(value), Got::Memory(memory)])
                })
            }
            _ => Box::pin(async move { Ok(vec![Got::Memory(pool.allocate_async(Self::of_memory(wish)).await?)]) }),
        };
        let at = self.waits.iter().rposition(Option::is_none).unwrap_or_else(|| {
            self.waits.push(None);
            self.waits.len() - 1
        });
        let bell = Bell { at, rung: Arc::clone(&self.rung), census: Arc::clone(&self.world.census) };
        self.waits[at] = Some(Waiting { wish, future, waker: Waker::from(Arc::new(bell)), single: kind > 2 });
        self.waiting += 1;
        self.poll(at);
    }

    /// As many as may wait.
    fn flood(&mut self) {
        while self.waiting + 1 < self.world.most_waiting / THREADS {
            let (before, mut wish) = (self.waits.len(), self.wish());
            wish.tenant = [None, Some(7)][self.random.usize(..2)];
            guard(|| self.wait(wish));
            // Enough of those that are served, or refused, at once.
            if self.waits.len() == before && self.random.u32(..200) == 0 {
                break;
            }
        }
        let most = self.pool.monitor().tiers.iter().map(|tier| tier.snapshot.waiting).sum::<usize>();
        COUNTS.most_waiting.fetch_max(most as u64, Ordering::Relaxed);
    }

    fn poll(&mut self, at: usize) {
        let Some(mut wait) = self.waits.get_mut(at).and_then(Option::take) else { return };
        self.waiting -= 1;
        let waker = wait.waker.clone();
        // If it panics the future goes.
        match wait.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                self.waits[at] = Some(wait);
                self.waiting += 1;
            }
            Poll::Ready(outcome) => {
                count(&COUNTS.awaited, u64::from(outcome.is_ok()));
                self.got(wait.wish, outcome);
            }
        }
    }

    /// Polls those that were woken, but for a few; and one that was not.
    fn listen(&mut self) {
        let rung = std::mem::take(&mut *lock(&self.rung));
        for at in rung {
            if self.random.u32(..10) > 0 {
                guard(|| self.poll(at));
            }
        }
        if !self.waits.is_empty() {
            let at = self.random.usize(..self.waits.len());
            self.poll(at);
        }
    }

    fn cancel_some(&mut self) {
        let n = if self.random.u32(..20) == 0 { self.waits.len() } else { self.waits.len() / 50 };
        for _ in 0..n {
            let at = self.random.usize(..self.waits.len());
            if let Some(wait) = self.waits[at].take() {
                self.waiting -= 1;
                count(&COUNTS.cancelled, 1);
                give_back(wait.future);
            }
        }
    }

    /// Leaves one alone for ever, by preference one that was granted its slot.
    fn forget(&mut self) {
        if self.graves.len() > 20 || self.waits.is_empty() {
            return;
        }
        let rung = lock(&self.rung).last().copied();
        let at = rung.unwrap_or_else(|| self.random.usize(..self.waits.len()));
        if let Some(wait) = self.waits[at].take_if(|wait| wait.single && wait.wish.tenant.is_none_or(|at| at == 7)) {
            self.waiting -= 1;
            count(&COUNTS.forgotten, 1);
            let tier = TIERS.iter().find(|tier| tier.1 >= wait.wish.bytes).unwrap();
            self.graves.push(Grave { future: wait.future, tenant: wait.wish.tenant, bytes: tier.1 as u64 });
        }
    }

    fn group(&mut self, wish: Wish) {
        count(&COUNTS.groups, 1);
        let pool = self.pool;
        let patience = Duration::from_micros(self.random.u64(..3000));
        let pair = (Self::of_value(wish), Self::of_memory(wish));
        let all = vec![Self::of_memory(wish); self.random.usize(1..5)];
        let outcome = match self.random.u32(..4) {
            0 => pool.try_allocate_group(pair).map(|(a, b)| vec![Got::Value(a), Got::Memory(b)]),
            1 => pool.allocate_group_timeout(pair, patience).map(|(a, b)| vec![Got::Value(a), Got::Memory(b)]),
            2 => pool.try_allocate_group(all).map(|all| all.into_iter().map(Got::Memory).collect()),
            _ => pool.allocate_group_timeout(all, patience).map(|all| all.into_iter().map(Got::Memory).collect()),
        };
        self.got(wish, outcome);
    }

    fn reserve(&mut self, wish: Wish) {
        // Slots that are reserved are not of a class.
        let wish = Wish { priority: Priority::Critical, ..wish };
        let n = self.random.usize(..6);
        let reservation = match self.random.u32(..4) {
            0 => self.pool.reserve(Self::of_memory(wish), n),
            1 => self.pool.reserve_for(Self::of_memory(wish), n, Duration::from_millis(self.random.u64(..30))),
            _ => {
                if let Some((wish, reservation)) = self.reservations.pop() {
                    for _ in 0..self.random.usize(..4) {
                        match reservation.draw() {
                            Ok(lease) => {
                                count(&COUNTS.drawn, 1);
                                self.hold_memory(wish, lease);
                            }
                            Err(why) => self.refused(why),
                        }
                    }
                    if self.random.bool() && self.reservations.len() < 3 {
                        self.reservations.insert(0, (wish, reservation));
                    }
                }
                return;
            }
        };
        match reservation {
            Ok(reservation) => {
                count(&COUNTS.reserved, n as u64);
                self.reservations.push((wish, reservation));
            }
            Err(why) => self.refused(why),
        }
    }

    /// Gives away, and takes what others gave.
    fn trade(&mut self) {
        let table = &self.world.table;
        match self.random.u32(..5) {
            0 => lock(&table.memory).extend(self.memory.pop()),
            1 => lock(&table.values).extend(self.values.pop()),
            2 => {
                if let Some(Held { entry, lease }) = self.memory.pop() {
                    count(&COUNTS.handles, 1);
                    if self.random.u32(..4) == 0 {
                        drop(entry);
                        lease.detach_for(Duration::from_millis(self.random.u64(..30)));
                    } else {
                        let handle = lease.detach();
                        lock(&table.handles).push((handle, entry));
                    }
                }
            }
            3 => {
                let taken = lock(&table.handles).pop();
                if let Some((handle, entry)) = taken {
                    match self.pool.attach::<Memory>(handle) {
                        Ok(lease) => self.memory.push(Held { entry, lease }),
                        Err(why) => check!(self.world.closes_busy, "{why}"),
                    }
                }
            }
            _ => {
                let (memory, values) = (lock(&table.memory).pop(), lock(&table.values).pop());
                self.memory.extend(memory);
                self.values.extend(values);
            }
        }
        let (memory, values, handles) = (&table.memory, &table.values, &table.handles);
        while lock(memory).len() > 10 {
            let one = lock(memory).pop();
            give_back(one);
        }
        while lock(values).len() > 4 {
            let one = lock(values).pop();
            give_back(one);
        }
        while lock(handles).len() > 10 {
            let one = lock(handles).pop();
            if let Some((handle, entry)) = one {
                drop(entry);
                guard(|| self.pool.release_handle(handle).is_ok());
            }
        }
    }

    fn share(&mut self) {
        let shared = &self.world.table.shared;
        if let Some(held) = self.values.pop() {
            count(&COUNTS.shared, 1);
            drop(held.entry);
            let lease = held.lease.into_shared();
            let other = lease.clone();
            lock(shared).extend([other, lease]);
        }
        while lock(shared).len() > 4 {
            let one = lock(shared).swap_remove(0);
            one.is_alive();
            match self.random.u32(..3) {
                0 => drop(guard(|| one.into_lease().map(Lease::release).is_ok())),
                1 => drop(guard(|| one.release())),
                _ => give_back(one),
            }
        }
    }

    fn reconfigure(&mut self) {
        let (pool, random) = (self.pool, &mut self.random);
        match random.u32(..8) {
            0..3 => {
                let at = random.usize(..TENANTS.len());
                let (hard, soft) = limits(at, random);
                // Refused if it goes beyond the parent's.
                let _ = pool.set_quota(pool.tenant(TENANTS[at].0).unwrap(), hard, soft);
            }
            3..6 => {
                let at = random.usize(..TIERS.len());
                let outcome = pool.set_watermarks(TIERS[at].0, marks(at, random));
                check!(outcome.is_ok(), "{outcome:?}");
            }
            _ => {
                let breaker = pool.breaker(["medium", "custom"][random.usize(..2)]).unwrap();
                match random.u32(..8) {
                    0 => breaker.force_open(),
                    1 => breaker.disable(),
                    2 => breaker.set_rules(crate::world::breaker(random)).unwrap(),
                    _ => breaker.reset(),
                }
            }
        }
    }

    fn resize(&mut self) {
        count(&COUNTS.resized, 1);
        let custom = &self.world.custom;
        if self.random.bool() {
            drop(custom.grow_to(self.random.usize(..=32)));
        } else {
            custom.shrink_to(self.random.usize(..=32));
        }
    }

    fn look(&mut self) {
        let pool = self.pool;
        let status = pool.monitor();
        for tier in &status.tiers {
            let now = &tier.snapshot;
            let sum =
                tier.held() + now.free + now.reserved + now.retired + now.dirty + now.maintenance + now.quarantined;
            check!(sum + now.absent == now.capacity, "a slot is lost: {now:?}");
        }
        match self.random.u32(..6) {
            0 => check!(!status.to_string().is_empty(), "a pool that says nothing"),
            1 => {
                let mut metrics = pool.metrics();
                if self.random.bool() {
                    let at = self.random.usize(..4);
                    let mut told = TierMetrics::new(TIERS[at].0);
                    (told.slots, told.held) = (TIERS[at].2, self.random.usize(..=TIERS[at].2));
                    told.refusals = self.random.u64(..10);
                    (told.urgent_refusals, told.ordinary_refusals) = (self.random.u64(..2), self.random.u64(..4));
                    metrics.tiers = vec![told];
                }
                let decisions = pool.optimize(&metrics);
                count(&COUNTS.decisions, decisions.len() as u64);
                for decision in decisions {
                    check!(!decision.to_string().is_empty(), "a decision that says nothing");
                    if self.random.bool() {
                        pool.undo(&decision);
                    }
                }
            }
            2 => pool
                .holders()
                .iter()
                .for_each(|holder| check!(!holder.to_string().is_empty(), "a holder that says nothing")),
            _ => {
                let at = self.random.usize(..TENANTS.len());
                let held = pool.held(pool.tenant(TENANTS[at].0).unwrap());
                check!(
                    TENANTS[at].2 == i64::MAX || held.slots <= TENANTS[at].2 as u64,
                    "{} holds {held:?}",
                    TENANTS[at].0
                );
            }
        }
    }

    /// Gives back whatever this thread has, but for what it has left alone.
    pub fn leave(mut self) -> Vec<Grave<'w>> {
        self.waits.drain(..).for_each(give_back);
        self.memory.drain(..).for_each(give_back);
        self.values.drain(..).for_each(give_back);
        self.reservations.drain(..).for_each(give_back);
        self.graves
    }
}
