//! The pool and its model, side by side: each operation is done to both, and they are compared.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tierpool::{Allocation, Handle, Lease, Memory, Pool, Priority, Request, Reservation, Tenant, Waits, clock};

use crate::case::*;
use crate::model::*;

thread_local! {
    /// The wakers that were called since the model was last told.
    static CALLED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The waker of the poll with that number.
struct Called(u64);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        CALLED.with_borrow_mut(|called| called.push(self.0));
    }
}

type Waiting<'p> = Pin<Box<Allocation<'p, Memory>>>;

pub struct World<'p> {
    pool: &'p Pool,
    tenants: Vec<Tenant>,
    model: Model,
    /// Each with its tier and tenant.
    leases: Vec<(usize, usize, Lease<Memory>)>,
    handles: Vec<(usize, usize, Handle)>,
    reservations: Vec<(usize, Want, Reservation<Memory>)>,
    /// With their tickets.
    futures: Vec<(u64, Want, Waiting<'p>)>,
    polls: u64,
}

/// Moves the time of the process, which runs ahead of the real one by more than a case can take.
pub fn pass_time(seconds: u64) {
    static NOW: Mutex<Option<Instant>> = Mutex::new(None);
    let mut now = NOW.lock().unwrap();
    let next = now.unwrap_or_else(Instant::now) + Duration::from_secs(seconds);
    *now = Some(next);
    clock::tick_to(next);
}

/// Takes one out, if there is any.
fn pick<T>(from: &mut Vec<T>, which: u8) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(which as usize % from.len()))
}

/// What a tenant writes.
fn mark(tenant: usize) -> u8 {
    1 << tenant
}

/// All bits that are in there: what its writers wrote, without a branch for each byte.
fn marks(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |marks, byte| marks | byte)
}

/// Without the times they took.
fn ends(waits: &Waits) -> Ends {
    [waits.served, waits.in_vain, waits.given_up]
}

impl<'p> World<'p> {
    pub fn new(pool: &'p Pool, overflow: bool) -> World<'p> {
        World {
            pool,
            tenants: TENANTS.iter().map(|(name, ..)| pool.tenant(name).unwrap_or_default()).collect(),
            model: Model::new(overflow),
            leases: Vec::new(),
            handles: Vec::new(),
            reservations: Vec::new(),
            futures: Vec::new(),
            polls: 0,
        }
    }

    fn request(&self, want: &Want) -> Request<'static, Memory> {
        let request = Request::memory(want.bytes).spill(want.spill).priority(Priority::ALL[want.class]);
        request.tenant(self.tenants[want.tenant])
    }

    /// A slot of that tier, in its holder's hands.
    fn took(&mut self, tier: usize, want: &Want, mut lease: Lease<Memory>) {
        let capacity = if tier == OVERFLOW { want.bytes } else { TIERS[tier].1 };
        assert_eq!((lease.len(), lease.capacity()), (want.bytes, capacity), "not of {}", TIERS[tier].0);
        assert_eq!(marks(&lease) & !mark(want.tenant), 0, "another tenant's bytes");
        lease.fill(mark(want.tenant));
        self.leases.push((tier, want.tenant, lease));
    }

    /// Either both have something, which goes on; or both have the same refusal.
    fn both<M: Debug, P, E: Into<Refusal>>(
        &mut self,
        expected: Result<M, Refusal>,
        outcome: Result<P, E>,
        goes_on: impl FnOnce(&mut Self, M, P),
    ) {
        match (expected, outcome) {
            (Ok(expected), Ok(outcome)) => goes_on(self, expected, outcome),
            (expected, outcome) => assert_eq!(outcome.map(drop).map_err(E::into), expected.map(drop)),
        }
    }

    fn poll(&mut self, future: &mut Waiting<'p>) -> Poll<Result<Lease<Memory>, Refusal>> {
        self.polls += 1;
        let waker = Waker::from(Arc::new(Called(self.polls)));
        future.as_mut().poll(&mut Context::from_waker(&waker)).map_err(Refusal::from)
    }

    pub fn step(&mut self, op: &Op) {
        let times = if let Op::Wait { times, .. } = op { *times } else { 1 };
        for _ in 0..times {
            self.act(op);
            self.model.serve(CALLED.take());
        }
    }

    fn wait(&mut self, want: &Want) {
        let ticket = self.polls + 1;
        let mut expected = self.model.wait(want, ticket);
        let mut future = Box::pin(self.pool.allocate_async(self.request(want)));
        let outcome = self.poll(&mut future);
        self.model.serve(CALLED.take());
        if let Some(one) = self.model.waiters.get(&ticket).filter(|one| one.place == Place::Granted) {
            // There was a slot that those who waited may not have.
            expected = Ok(Some(one.tier));
            self.model.end_wait(ticket, true);
        }
        match (expected, outcome) {
            (Ok(None), Poll::Pending) => self.futures.push((ticket, *want, future)),
            (Ok(Some(tier)), Poll::Ready(Ok(lease))) => self.took(tier, want, lease),
            (expected, outcome) => assert_eq!(outcome.map_ok(drop), Poll::Ready(expected.map(drop))),
        }
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Allocate { want, prepared } => {
                let request = self.request(want);
                let expected = self.model.allocate(want);
                let outcome = match prepared {
                    true => self.pool.prepare(request).and_then(|prepared| prepared.try_allocate()),
                    false => self.pool.try_allocate(request),
                };
                self.both(expected, outcome, |world, tier, lease| world.took(tier, want, lease));
            }
            Op::Group { wants } => {
                let requests: Vec<_> = wants.iter().map(|want| self.request(want)).collect();
                let expected = self.model.group(wants);
                self.both(expected, self.pool.try_allocate_group(requests), |world, tiers, leases| {
                    assert_eq!(leases.len(), tiers.len());
                    for ((tier, want), lease) in tiers.into_iter().zip(wants).zip(leases) {
                        world.took(tier, want, lease);
                    }
                });
            }
            Op::Reserve { want, n } => {
                let expected = self.model.reserve(want, *n);
                self.both(expected, self.pool.reserve(self.request(want), *n), |world, tier, reservation| {
                    assert_eq!((reservation.tier_name(), reservation.left()), (TIERS[tier].0, *n));
                    world.reservations.push((tier, *want, reservation));
                });
            }
            Op::Draw { which } => {
                let Some((tier, want, reservation)) = pick(&mut self.reservations, *which) else { return };
                let expected = if reservation.left() > 0 { Ok(()) } else { Err(Refusal::Spent) };
                self.both(expected, reservation.draw(), |world, (), lease| world.took(tier, &want, lease));
                self.reservations.push((tier, want, reservation));
            }
            Op::DropReservation { which } => {
                let Some((tier, want, reservation)) = pick(&mut self.reservations, *which) else { return };
                self.model.give_back(tier, want.tenant, reservation.left());
            }
            Op::End { which, how } => {
                let Some((tier, tenant, lease)) = pick(&mut self.leases, *which) else { return };
                match how {
                    End::Drop => drop(lease),
                    End::Release => lease.release(),
                    End::IntoPool => self.pool.release(lease).unwrap(),
                    End::Detach => return self.handles.push((tier, tenant, lease.detach())),
                }
                self.model.give_back(tier, tenant, 1);
            }
            Op::Attach { which } => {
                let Some((tier, tenant, handle)) = pick(&mut self.handles, *which) else { return };
                let lease = self.pool.attach::<Memory>(handle).unwrap();
                assert!(self.pool.attach::<Memory>(handle).is_err(), "attached twice");
                assert!(lease.is_empty() || marks(&lease) == mark(tenant), "not as it was left");
                self.leases.push((tier, tenant, lease));
            }
            Op::ReleaseHandle { which } => {
                let Some((tier, tenant, handle)) = pick(&mut self.handles, *which) else { return };
                self.pool.release_handle(handle).unwrap();
                assert!(self.pool.release_handle(handle).is_err(), "released twice");
                self.model.give_back(tier, tenant, 1);
            }
            Op::Wait { want, .. } => self.wait(want),
            Op::Poll { which } => {
                let Some((ticket, want, mut future)) = pick(&mut self.futures, *which) else { return };
                let Waiter { tier, class, place, .. } = self.model.waiters[&ticket];
                // Whose grant was taken back tries for another slot, before it goes back to its place in the queue.
                let served = place == Place::Granted || place == Place::Revoked && self.model.take(tier, class, 1);
                let outcome = self.poll(&mut future);
                assert_eq!(outcome.is_ready(), served, "of {place:?}");
                if let Poll::Ready(lease) = outcome {
                    self.model.end_wait(ticket, true);
                    self.took(tier, &want, lease.unwrap());
                } else {
                    let waker = self.polls;
                    self.model.waiters.entry(ticket).and_modify(|one| (one.place, one.waker) = (Place::Waiting, waker));
                    self.futures.push((ticket, want, future));
                }
            }
            Op::Cancel { which } => {
                let Some((ticket, ..)) = pick(&mut self.futures, *which) else { return };
                let Waiter { tier, tenant, place, .. } = self.model.end_wait(ticket, false);
                match place {
                    Place::Granted => self.model.give_back(tier, tenant, 1),
                    Place::Waiting | Place::Revoked => self.model.pay_back(tier, tenant, 1),
                }
            }
            Op::SetQuota { tenant, hard, soft } => {
                let outcome = self.pool.set_quota(self.tenants[*tenant], *hard, *soft);
                assert_eq!(outcome.is_ok(), self.model.set_quota(*tenant, *hard, *soft), "{outcome:?}");
            }
            Op::SetWatermarks { tier, marks } => {
                let outcome = self.pool.set_watermarks(TIERS[*tier].0, *marks);
                let fits = *tier < self.model.tiers.len() && self.model.set_marks(*tier, *marks);
                assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
            }
            Op::Time => {
                pass_time(2);
                self.pool.reclaim();
                self.model.pass_time();
            }
        }
    }

    /// What the pool says of itself.
    pub fn look(&self) {
        let status = self.pool.monitor();
        assert_eq!((status.tiers.len(), status.absorbed), (self.model.tiers.len(), self.model.absorbed));
        for (tier, (model, is)) in self.model.tiers.iter().zip(&status.tiers).enumerate() {
            let leased = self.leases.iter().filter(|(of, ..)| *of == tier).count();
            let detached = self.handles.iter().filter(|(of, ..)| *of == tier).count();
            let reservations = self.reservations.iter().filter(|(of, ..)| *of == tier);
            let undrawn: usize = reservations.map(|(.., reservation)| reservation.left()).sum();
            let granted = self.model.waiters.values().filter(|one| one.tier == tier && one.place == Place::Granted);
            let granted = granted.count();
            assert_eq!(model.held, leased + granted + detached + undrawn, "the model has lost count");
            let (now, reserved) = (&is.snapshot, self.model.reserved(tier));
            assert_eq!(
                (now.free, now.reserved, now.leased, now.detached, now.claimed, now.waiting),
                (
                    self.model.idle(tier) - reserved,
                    reserved,
                    leased + granted,
                    detached + undrawn,
                    0,
                    self.model.queue(tier).count()
                ),
                "{now:?}"
            );
            assert_eq!(
                (is.denied, now.refusals, is.spilled_here),
                (model.denied, model.refusals, model.spilled),
                "{now:?}"
            );
            for (class, priority) in Priority::ALL.into_iter().enumerate() {
                let (waits, refused) = (ends(is.waits.of(priority)), *is.refused.of(priority));
                assert_eq!((waits, refused), (model.waits[class], model.refused[class]), "{priority:?} in {}", is.name);
            }
        }
        assert_eq!(status.tenants.len(), TENANTS.len() - 1);
        for (at, is) in (1..).zip(&status.tenants) {
            let Account { hard, soft, held, waits, .. } = self.model.accounts[at];
            assert_eq!((is.tenant, &*is.name), (self.tenants[at], TENANTS[at].0));
            assert_eq!(
                (amounts(is.held), amounts(is.hard), amounts(is.soft), ends(&is.waits)),
                (held, hard, soft, waits),
                "{}",
                is.name
            );
        }
    }

    /// Everything comes back, and then all slots are there, and nobody holds any.
    pub fn end(mut self) {
        let most = self.futures.len() + self.reservations.len() + self.handles.len() + self.leases.len();
        let (which, how) = (0, End::Drop);
        for op in
            [Op::Cancel { which }, Op::DropReservation { which }, Op::ReleaseHandle { which }, Op::End { which, how }]
        {
            (0..most).for_each(|_| self.step(&op));
        }
        self.look();
        assert!(self.model.tiers.iter().all(|tier| tier.held == 0) && self.model.waiters.is_empty());
        assert!(self.model.accounts.iter().all(|account| account.held == [0; 2]));
    }
}
