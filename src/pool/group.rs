//! Several requests, all or nothing, without deadlock.
//!
//! First all of them are tried, without a wait. If one is refused, everything goes back, and if the caller may wait, it takes them one by
//! one in the order in which their tiers were built, which is the same for all groups of the process: so of all who hold something and wait, the
//! one that waits for the highest tier waits for somebody who goes on (Havender 1968). Two things would break that argument:
//!
//! - Slots of one tier have no order among themselves: two groups that each want two of its two slots could each hold one. So who waits
//!   for several of a tier first waits for its [`Turn`], which one group at a time has. It comes in the order just before its tier.
//!   Turns are had by priority, with ageing: the more urgent group waits for the one that has the turn, and for no other.
//! - What is had by spilling over is of another tier than the one whose place in the order it takes. So who waits does not spill.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::Pool;
use super::builder::AGEING;
use super::error::RequestError;
use super::prepared::{Attempt, Plan, Wait};
use super::request::{Request, Spill};
use super::resource_pool::{Resource, ResourceRequest};
use super::rows::AnyTier;
use crate::admission::line::Line;
use crate::admission::tenants::Tenant;
use crate::error::{AllocateError, BuildError};
use crate::slot::header::Site;
use crate::slot::label::Label;
use crate::tier::Tier;
use crate::tier::core::Core;
use crate::tier::future::Allocate;
use crate::tier::lease::Lease;

/// Several requests that are served all together or not at all: a tuple of up to eight [`Request`]s of any kinds, a `Vec` of requests of
/// one kind, or a slice of [`ResourceRequest`]s. For [`Pool::allocate_group`](crate::Pool::allocate_group).
pub trait Group: sealed::Sealed {}

/// The leases that a group of requests gets: a tuple, or a `Vec`, in the order of the requests.
pub type GroupLeases<G> = <G as sealed::Sealed>::Leases;

pub(super) mod sealed {
    use super::*;

    pub trait Sealed: Sized {
        type Leases: Send;
        type Attempts<'p>: Send + Sync;

        /// Routes all requests.
        fn route(self, pool: &Pool, by_thread: bool) -> Result<Self::Attempts<'_>, RequestError>;

        /// Takes a slot for each, in the order; what was taken goes back if one is refused or the future is dropped. Is never pending
        /// unless `how` is [`How::Await`].
        fn gather(
            attempts: &Self::Attempts<'_>,
            how: How,
            site: Site,
        ) -> impl Future<Output = Result<Self::Leases, RequestError>> + Send;
    }
}

use sealed::Sealed;

/// How the members of a group are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Try,
    /// The same, by somebody who waits next if nothing is free.
    TryFirst,
    /// On this thread, until then at most.
    Block(Option<Instant>),
    Await,
}

impl How {
    fn waits(self) -> bool {
        matches!(self, How::Block(_) | How::Await)
    }
}

/// One member, at its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    /// The tier's place in the order of all tiers of the process.
    tier: u64,
    /// Which member.
    place: usize,
    /// The tier's row.
    row: usize,
    /// Its priority.
    class: u8,
}

impl Step {
    fn new<K: Send + 'static>(attempt: &Attempt<'_, K>, place: usize) -> Self {
        Step::of(attempt.tier.core(), &attempt.plan, place)
    }

    fn of(core: &Core, plan: &Plan, place: usize) -> Self {
        Step { tier: core.life().serial, place, row: plan.route.row, class: plan.label.class() }
    }
}

/// Puts the steps into the order; refuses what could never be had.
fn arrange(pool: &Pool, steps: &mut [Step]) -> Result<(), RequestError> {
    steps.sort_unstable();
    for run in steps.chunk_by(|one, other| one.tier == other.tier) {
        let tier = &pool.inner.rows[run[0].row].tier;
        for class in run.iter().map(|step| step.class) {
            // Those that are no more urgent than this one leave what it leaves, at least.
            let capacity = tier.capacity() - tier.core().reserve.mark(class).min(tier.capacity());
            let wanted = run.iter().filter(|step| step.class <= class).count();
            if wanted > capacity {
                let why = RequestError::GroupTooLarge { tier: tier.name(), wanted, capacity };
                return Err(pool.tell_of(run[0].row, Tenant::NOBODY, why));
            }
        }
    }
    Ok(())
}

/// What a group has beside its slots.
#[derive(Default)]
struct Progress {
    turn: Option<Lease<()>>,
}

impl Progress {
    /// Before the step at `now`: gives back the turn of the last tier, and takes that of the next, if it needs one.
    async fn advance(
        &mut self,
        pool: &Pool,
        steps: &[Step],
        now: usize,
        how: How,
        site: Site,
    ) -> Result<(), RequestError> {
        let step = steps[now];
        if now > 0 && steps[now - 1].tier == step.tier {
            return Ok(());
        }
        self.turn = None;
        let several = steps.get(now + 1).is_some_and(|next| next.tier == step.tier);
        if several && how.waits() {
            let row = &pool.inner.rows[step.row];
            let tell = |why| pool.tell_of(step.row, Tenant::NOBODY, why);
            let Turn(Some(turn)) = row.turn() else { return Err(tell(RequestError::NoTurn { tier: row.tier.name() })) };
            let of_tier = steps[now..].iter().take_while(|other| other.tier == step.tier);
            let class = of_tier.fold(step.class, |most, step| most.max(step.class));
            let turn = Allocate::new(turn, site, Label::of_class(class));
            let turn = match how {
                How::Await => turn.await,
                How::Block(Some(end)) => turn.within(Some(end.saturating_duration_since(Instant::now()))),
                How::Try | How::TryFirst | How::Block(None) => turn.within(None),
            };
            self.turn = Some(turn.map_err(|why| tell(why.into()))?);
        }
        Ok(())
    }
}

/// A request of a group; `by_thread` if the calling thread is to use what comes.
fn attempt<'p, K: Send + 'static>(
    pool: &'p Pool,
    request: &Request<'_, K>,
    by_thread: bool,
) -> Result<Attempt<'p, K>, RequestError> {
    let attempt = pool.try_attempt(request)?;
    Ok(if by_thread { attempt } else { attempt.of_future() })
}

async fn take<K: Send + 'static>(attempt: &Attempt<'_, K>, how: How, site: Site) -> Result<Lease<K>, RequestError> {
    let mut attempt = *attempt;
    if !how.waits() {
        attempt.plan.goes_on = how == How::TryFirst;
        return attempt.try_allocate(site);
    }
    attempt.plan.route.spill = Spill::Refuse;
    match how {
        How::Await => attempt.allocate_async(site).await,
        How::Try | How::TryFirst | How::Block(None) => attempt.allocate(Wait::For(None), site),
        How::Block(Some(end)) => attempt.allocate(Wait::For(Some(end.saturating_duration_since(Instant::now()))), site),
    }
}

macro_rules! group_of {
    ($($kind:ident $held:ident $place:tt),*) => {
        impl<$($kind: Send + 'static),*> Group for ($(Request<'_, $kind>,)*) {}

        impl<$($kind: Send + 'static),*> Sealed for ($(Request<'_, $kind>,)*) {
            type Leases = ($(Lease<$kind>,)*);
            type Attempts<'p> = ($(Attempt<'p, $kind>,)*);

            fn route(self, pool: &Pool, by_thread: bool) -> Result<Self::Attempts<'_>, RequestError> {
                Ok(($(attempt(pool, &self.$place, by_thread)?,)*))
            }

            async fn gather(
                attempts: &Self::Attempts<'_>,
                how: How,
                site: Site,
            ) -> Result<Self::Leases, RequestError> {
                let pool = attempts.0.pool;
                let mut steps = [$(Step::new(&attempts.$place, $place)),*];
                arrange(pool, &mut steps)?;
                $(let mut $held = None;)*
                let mut progress = Progress::default();
                for now in 0..steps.len() {
                    progress.advance(pool, &steps, now, how, site).await?;
                    match steps[now].place {
                        $($place => $held = Some(take(&attempts.$place, how, site).await?),)*
                        _ => unreachable!("a place for each member"),
                    }
                }
                // Here rather than at the end: a waker that panics in it would leak what is already being returned.
                drop(progress);
                match ($($held,)*) {
                    ($(Some($held),)*) => Ok(($($held,)*)),
                    _ => unreachable!("a step for each member"),
                }
            }
        }
    };
}

group_of!(A a 0);
group_of!(A a 0, B b 1);
group_of!(A a 0, B b 1, C c 2);
group_of!(A a 0, B b 1, C c 2, D d 3);
group_of!(A a 0, B b 1, C c 2, D d 3, E e 4);
group_of!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5);
group_of!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6);
group_of!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7);

impl<K: Send + 'static> Group for Vec<Request<'_, K>> {}

impl<K: Send + 'static> Sealed for Vec<Request<'_, K>> {
    type Leases = Vec<Lease<K>>;
    type Attempts<'p> = Vec<Attempt<'p, K>>;

    fn route(self, pool: &Pool, by_thread: bool) -> Result<Self::Attempts<'_>, RequestError> {
        self.iter().map(|request| attempt(pool, request, by_thread)).collect()
    }

    async fn gather(attempts: &Self::Attempts<'_>, how: How, site: Site) -> Result<Self::Leases, RequestError> {
        gather_all(attempts, how, site).await
    }
}

/// A member whose kind is not known.
pub struct AnyAttempt<'p> {
    pool: &'p Pool,
    tier: &'p dyn AnyTier,
    plan: Plan,
    /// The line that made the request.
    site: Site,
}

impl<'p> AnyAttempt<'p> {
    fn new(pool: &'p Pool, request: &ResourceRequest, by_thread: bool) -> Result<Self, RequestError> {
        let plan = Plan { by_thread, ..pool.plan_of(request)? };
        Ok(AnyAttempt { pool, tier: &*pool.inner.rows[plan.route.row].tier, plan, site: request.site() })
    }

    async fn take(&self, how: How) -> Result<Resource, RequestError> {
        let &AnyAttempt { pool, tier, mut plan, site } = self;
        if !how.waits() {
            plan.goes_on = how == How::TryFirst;
            return tier.allocate(pool, plan, Wait::Never, site);
        }
        plan.route.spill = Spill::Refuse;
        match how {
            How::Await => tier.allocate_async(pool, plan, site).await,
            How::Try | How::TryFirst | How::Block(None) => tier.allocate(pool, plan, Wait::For(None), site),
            How::Block(Some(end)) => {
                let left = end.saturating_duration_since(Instant::now());
                tier.allocate(pool, plan, Wait::For(Some(left)), site)
            }
        }
    }
}

/// The holders' lines are those that made the requests.
impl Group for &[ResourceRequest] {}

impl Sealed for &[ResourceRequest] {
    type Leases = Vec<Resource>;
    type Attempts<'p> = Vec<AnyAttempt<'p>>;

    fn route(self, pool: &Pool, by_thread: bool) -> Result<Self::Attempts<'_>, RequestError> {
        self.iter().map(|request| AnyAttempt::new(pool, request, by_thread)).collect()
    }

    async fn gather(attempts: &Self::Attempts<'_>, how: How, site: Site) -> Result<Self::Leases, RequestError> {
        gather_all(attempts, how, site).await
    }
}

/// A member of a list.
trait Member: Sync {
    type Lease: Send;

    fn pool(&self) -> &Pool;
    fn step(&self, place: usize) -> Step;
    fn take(&self, how: How, site: Site) -> impl Future<Output = Result<Self::Lease, RequestError>> + Send;
}

impl<K: Send + 'static> Member for Attempt<'_, K> {
    type Lease = Lease<K>;

    fn pool(&self) -> &Pool {
        self.pool
    }

    fn step(&self, place: usize) -> Step {
        Step::new(self, place)
    }

    fn take(&self, how: How, site: Site) -> impl Future<Output = Result<Lease<K>, RequestError>> + Send {
        take(self, how, site)
    }
}

impl Member for AnyAttempt<'_> {
    type Lease = Resource;

    fn pool(&self) -> &Pool {
        self.pool
    }

    fn step(&self, place: usize) -> Step {
        Step::of(self.tier.core(), &self.plan, place)
    }

    /// The holder's line is the one that made the request.
    fn take(&self, how: How, _: Site) -> impl Future<Output = Result<Resource, RequestError>> + Send {
        self.take(how)
    }
}

/// All members of a list.
async fn gather_all<M: Member>(members: &[M], how: How, site: Site) -> Result<Vec<M::Lease>, RequestError> {
    let Some(pool) = members.first().map(Member::pool) else { return Ok(Vec::new()) };
    let mut steps: Vec<_> = members.iter().enumerate().map(|(place, it)| it.step(place)).collect();
    arrange(pool, &mut steps)?;
    let mut held: Vec<_> = members.iter().map(|_| None).collect();
    let mut progress = Progress::default();
    for now in 0..steps.len() {
        progress.advance(pool, &steps, now, how, site).await?;
        let place = steps[now].place;
        held[place] = Some(members[place].take(how, site).await?);
    }
    // As above.
    drop(progress);
    Ok(held.into_iter().flatten().collect())
}

/// All requests, on this thread. `end` is asked only if it comes to a wait.
pub(super) fn block<G: Group>(
    pool: &Pool,
    group: G,
    waits: Option<impl FnOnce() -> Option<Instant>>,
    site: Site,
) -> Result<G::Leases, RequestError> {
    let attempts = group.route(pool, true)?;
    let how = if waits.is_some() { How::TryFirst } else { How::Try };
    match (at_once(G::gather(&attempts, how, site)), waits) {
        (Err(RequestError::Tier(AllocateError::Exhausted(_))), Some(end)) => {
            pool.note_absorbed(1);
            at_once(G::gather(&attempts, How::Block(end()), site))
        }
        (outcome, _) => outcome,
    }
}

/// All requests, for another thread than this one; without a wait.
pub(super) fn for_another<G: Group>(pool: &Pool, group: G, site: Site) -> Result<G::Leases, RequestError> {
    let attempts = group.route(pool, false)?;
    at_once(G::gather(&attempts, How::Try, site))
}

/// All requests, as a future.
pub(super) async fn wait<G: Group>(
    pool: &Pool,
    attempts: G::Attempts<'_>,
    site: Site,
) -> Result<G::Leases, RequestError> {
    match G::gather(&attempts, How::TryFirst, site).await {
        Err(RequestError::Tier(AllocateError::Exhausted(_))) => {
            pool.note_absorbed(1);
            G::gather(&attempts, How::Await, site).await
        }
        outcome => outcome,
    }
}

/// What a future comes to that is never pending.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("it awaits nothing that is pending"),
    }
}

/// Whose turn it is to wait for several slots of one tier: a tier of one slot, so that there are futures, time-outs and an order of those
/// who wait. `None` if there was no memory for it.
pub(super) struct Turn(Option<Tier<()>>);

/// The turn of the tier with that number, the same for all pools that have the tier. Kept by those who use it, so by rows only, and so no
/// longer than the tier.
pub(super) fn turn(tier: u32, name: &str) -> Arc<Turn> {
    static TURNS: Mutex<Vec<(u32, Weak<Turn>)>> = Mutex::new(Vec::new());
    // A panic cannot leave the list half changed.
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|(_, turn)| turn.strong_count() > 0);
    let known = turns.iter().find(|(of, _)| *of == tier).and_then(|(_, turn)| turn.upgrade());
    known.unwrap_or_else(|| {
        let one: Result<_, BuildError> = Tier::builder(name).capacity(1).build_with(|| ());
        if let Ok(one) = &one {
            one.core().waiting.set_order(Box::new(Line::new(&[1], AGEING)));
        }
        let turn = Arc::new(Turn(one.ok()));
        turns.push((tier, Arc::downgrade(&turn)));
        turn
    })
}
