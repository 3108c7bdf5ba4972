//! Sessions: who holds several slots at a time, and waits for more, without a deadlock.
//!
//! A session is whatever takes slots for one piece of work; leases travel between threads, so a thread is none. There are two
//! ways to be safe. Without a claim, a session waits in the order of tiers only, that in which they were built, as a pool builds its memory tiers by
//! size ([`order`](crate::admission::order)): who would
//! wait against it is refused, before it waits, with both lines named. With a [claim](Session::claim) it may take slots in any
//! order, and waits for the [banker](crate::admission::banker)'s consent as well as for the slot.
//!
//! All sessions of a pool are under one lock, which nobody takes but them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Pool;
use super::error::RequestError;
use super::prepared::{Attempt, Wait};
use super::request::{Request, Spill};
use super::rows::Row;
use crate::admission::banker::{Banker, ClaimError, ClaimId, Grant};
use crate::admission::order::Holdings;
use crate::admission::waits_for::{SessionId, WaitsFor};
use crate::slot::header::Site;
use crate::tier::future::Patience;
use crate::tier::lease::Lease;

/// The sessions of a pool.
pub(super) struct Sessions {
    table: Mutex<Table>,
    /// Something was given back to the banker.
    back: Condvar,
}

struct Table {
    next: SessionId,
    sessions: BTreeMap<SessionId, Entry>,
    banker: Banker,
}

/// One session.
#[derive(Default)]
struct Entry {
    /// By the tiers' places in the order in which they were built, in which groups are taken too.
    holdings: Holdings,
    /// By rows.
    holds: Vec<(usize, Site)>,
    waits: Vec<(usize, Site)>,
    claim: Option<ClaimId>,
}

impl Sessions {
    pub(super) fn new(rows: &[Arc<Row>]) -> Self {
        // What is kept for urgent requests is not the banker's.
        let slots = |row: &Arc<Row>| (row.tier.capacity() - row.tier.core().reserve.size()) as u64;
        let slots: Vec<u64> = rows.iter().map(slots).collect();
        let table = Table { next: 1, sessions: BTreeMap::new(), banker: Banker::new(&slots) };
        Sessions { table: Mutex::new(table), back: Condvar::new() }
    }

    /// No user code runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits for whom. A slot may always come from outside of all sessions, if somebody holds one there.
    pub(super) fn waits_for(&self, rows: &[Arc<Row>]) -> WaitsFor {
        let table = self.lock();
        let mut graph = WaitsFor::default();
        let mut held = vec![0; rows.len()];
        for (&id, entry) in &table.sessions {
            for &(row, site) in &entry.holds {
                graph.add_hold(id, row, site);
                held[row] += 1;
            }
            entry.waits.iter().for_each(|&(row, site)| graph.add_wait(id, row, site));
        }
        let others = (0..rows.len()).filter(|&row| rows[row].tier.capacity() > held[row]);
        others.for_each(|row| graph.add_other(row));
        graph
    }
}

/// Takes slots for one piece of work, several at a time, without the risk of a deadlock: from [`Pool::session`].
///
/// The order of tiers is that in which they were built: those that were given to the pool come first, then its memory tiers by size.
///
/// ```
/// use tierpool::{Pool, Request, RequestError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("heads", 64, 4).memory("bodies", 65536, 4).build()?;
/// let session = pool.session();
/// let body = session.allocate(Request::memory(50_000))?;
/// let head = session.try_allocate(Request::memory(64))?;           // who does not wait may take any order
/// # let _others = [pool.try_allocate(Request::memory(64))?, pool.try_allocate(Request::memory(64))?,
/// #     pool.try_allocate(Request::memory(64))?];
/// let error = session.allocate(Request::memory(64)).unwrap_err();  // would wait for what others may hold who wait for bodies
/// assert!(matches!(error, RequestError::Order { held: "bodies", wanted: "heads", .. }));
/// # Ok(()) }
/// ```
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    id: SessionId,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let sessions = &self.pool.inner.sessions;
        let mut table = sessions.lock();
        if let Some(Entry { claim: Some(claim), .. }) = table.sessions.remove(&self.id) {
            // It was admitted, and ends here only.
            let _ = table.banker.leave(claim);
            drop(table);
            sessions.back.notify_all();
        }
    }
}

impl Session {
    pub(super) fn new(pool: &Pool) -> Self {
        let mut table = pool.inner.sessions.lock();
        let id = table.next;
        table.next += 1;
        table.sessions.insert(id, Entry::default());
        drop(table);
        Session { shared: Arc::new(Shared { pool: pool.clone(), id }) }
    }

    /// Its number in [`Pool::waits_for`].
    pub fn id(&self) -> SessionId {
        self.shared.id
    }

    /// Claims the most that the session will hold of each tier named, and nothing of the others. From then on it may wait in any
    /// order: a slot is given only if all sessions with claims could still be served to the full of theirs, one after the other.
    ///
    /// That holds among sessions with claims: slots that others hold for ever are not the banker's, nor those that a tier kept back for
    /// urgent requests when the pool was built. Requests of such a session
    /// do not spill over.
    ///
    /// # Errors
    /// [`RequestError::NoTier`], [`RequestError::Claim`]: more than a tier has; or the session holds something, or has claimed, already.
    pub fn claim(&self, most: &[(&str, usize)]) -> Result<(), RequestError> {
        let inner = &self.shared.pool.inner;
        let mut claim = vec![0; inner.rows.len()];
        for &(name, slots) in most {
            let row = inner.rows.iter().position(|row| row.tier.name() == name);
            let row = row.ok_or(RequestError::NoTier { name: super::error::ShortName::new(name) })?;
            claim[row] = u64::saturating_add(claim[row], slots as u64);
        }
        let mut table = inner.sessions.lock();
        let Table { sessions, banker, .. } = &mut *table;
        let Some(entry) = sessions.get_mut(&self.shared.id) else { return Ok(()) };
        if entry.claim.is_some() || !entry.holds.is_empty() {
            return Err(RequestError::LateClaim);
        }
        let id = banker.admit(&claim).map_err(|why| RequestError::Claim { tier: self.name_of(&why), why })?;
        entry.claim = Some(id);
        Ok(())
    }

    /// The tier that an error of the banker is about.
    fn name_of(&self, why: &ClaimError) -> &'static str {
        let row = match *why {
            ClaimError::TooLarge { tier, .. }
            | ClaimError::Exceeded { tier, .. }
            | ClaimError::NotHeld { tier, .. } => tier,
            _ => return "",
        };
        self.shared.pool.inner.rows[row].tier.name()
    }

    /// A slot; never waits, and may so be asked for in any order. See [`Pool::try_allocate`].
    ///
    /// # Errors
    /// As there; [`RequestError::Unsafe`] if the session has a claim, and the banker does not consent at present.
    #[track_caller]
    pub fn try_allocate<K: Send + 'static>(&self, request: Request<'_, K>) -> Result<SessionLease<K>, RequestError> {
        self.take(request, Wait::Never, Location::caller())
    }

    /// A slot, waiting for one if none is free: at most for the request's patience. See [`Pool::allocate`].
    ///
    /// # Errors
    /// As there; [`RequestError::Order`] if it would have to wait for a tier while the session holds a slot of the same or a later one,
    /// and has no claim; [`RequestError::Unsafe`] if it has one, and the banker has not consented in time.
    #[track_caller]
    pub fn allocate<K: Send + 'static>(&self, request: Request<'_, K>) -> Result<SessionLease<K>, RequestError> {
        self.take(request, Wait::at_most(request.wants.patience), Location::caller())
    }

    /// The same, waiting at most `patience`.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[track_caller]
    pub fn allocate_timeout<K: Send + 'static>(
        &self,
        request: Request<'_, K>,
        patience: Duration,
    ) -> Result<SessionLease<K>, RequestError> {
        self.take(request, Wait::at_most(Some(patience)), Location::caller())
    }

    fn take<K: Send + 'static>(
        &self,
        request: Request<'_, K>,
        wait: Wait,
        site: Site,
    ) -> Result<SessionLease<K>, RequestError> {
        let pool = &self.shared.pool;
        let mut attempt = pool.try_attempt(&request)?;
        let claim = self.with(|entry| entry.claim);
        let end = match wait {
            Wait::For(Some(patience)) => Patience::from_now(patience).end,
            Wait::Never | Wait::For(None) => None,
        };
        let left = || match (wait, end) {
            (Wait::For(Some(_)), Some(end)) => Wait::For(Some(end.saturating_duration_since(Instant::now()))),
            _ => wait,
        };
        let lease = match claim {
            Some(claim) => {
                attempt.plan.route.spill = Spill::Refuse;
                let consent = self.consent(claim, &attempt, wait, end, site).map_err(|why| attempt.tell(why))?;
                let lease = self.noting_wait(&attempt, site, || attempt.allocate(left(), site))?;
                consent.keep();
                lease
            }
            None => match (attempt.going_on(wait != Wait::Never).try_allocate(site), wait) {
                (Err(RequestError::Tier(crate::error::AllocateError::Exhausted(_))), Wait::For(_)) => {
                    self.check_order(&attempt, site).map_err(|why| attempt.tell(why))?;
                    pool.note_absorbed(1);
                    self.noting_wait(&attempt, site, || attempt.allocate(left(), site))?
                }
                (outcome, _) => outcome?,
            },
        };
        let row = pool.row_index(lease.handle().tier()).unwrap_or(attempt.plan.route.row);
        let tier = pool.inner.rows[row].tier.core().life().serial as usize;
        self.with(|entry| {
            entry.holdings.add(tier, site);
            entry.holds.push((row, site));
        });
        Ok(SessionLease { lease, hold: Hold { shared: Arc::clone(&self.shared), tier, row, site } })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Entry) -> R) -> R {
        use_it(self.shared.pool.inner.sessions.lock().sessions.entry(self.shared.id).or_default())
    }

    fn check_order<K: Send + 'static>(&self, attempt: &Attempt<'_, K>, site: Site) -> Result<(), RequestError> {
        let wanted = attempt.tier.core().life().serial as usize;
        self.with(|entry| entry.holdings.check_wait(wanted, site)).map_err(|why| {
            let rows = &self.shared.pool.inner.rows;
            let row = rows.iter().find(|row| row.tier.core().life().serial as usize == why.held);
            let held = row.map_or("", |row| row.tier.name());
            RequestError::Order { held, held_at: why.held_at, wanted: attempt.tier.name(), wanted_at: site }
        })
    }

    /// Waits, and is seen to.
    fn noting_wait<K: Send + 'static, R>(&self, attempt: &Attempt<'_, K>, site: Site, wait: impl FnOnce() -> R) -> R {
        let _waiting = Waiting::note(&self.shared, attempt.plan.route.row, site);
        wait()
    }

    /// Waits for the banker's consent to one more slot.
    fn consent<K: Send + 'static>(
        &self,
        claim: ClaimId,
        attempt: &Attempt<'_, K>,
        wait: Wait,
        end: Option<Instant>,
        site: Site,
    ) -> Result<Consent<'_>, RequestError> {
        let inner = &self.shared.pool.inner;
        let row = attempt.plan.route.row;
        let mut one = vec![0; inner.rows.len()];
        one[row] = 1;
        let _waiting = Waiting::note(&self.shared, row, site);
        let mut table = inner.sessions.lock();
        loop {
            match table.banker.grant(claim, &one) {
                Ok(Grant::Safe) => return Ok(Consent { shared: &self.shared, claim, one, kept: false }),
                Ok(Grant::Unsafe | Grant::Short { .. }) => {}
                Err(why) => return Err(RequestError::Claim { tier: self.name_of(&why), why }),
            }
            let refusal = RequestError::Unsafe { tier: attempt.tier.name() };
            table = match (wait, end) {
                (Wait::Never, _) => return Err(refusal),
                (Wait::For(_), None) => inner.sessions.back.wait(table).unwrap_or_else(PoisonError::into_inner),
                (Wait::For(_), Some(end)) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(refusal);
                    }
                    inner.sessions.back.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

/// A wait that others can see.
struct Waiting<'s> {
    shared: &'s Shared,
    row: usize,
}

impl<'s> Waiting<'s> {
    fn note(shared: &'s Shared, row: usize, site: Site) -> Self {
        if let Some(entry) = shared.pool.inner.sessions.lock().sessions.get_mut(&shared.id) {
            entry.waits.push((row, site));
        }
        Waiting { shared, row }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.pool.inner.sessions.lock().sessions.get_mut(&self.shared.id)
            && let Some(at) = entry.waits.iter().rposition(|&(row, _)| row == self.row)
        {
            entry.waits.swap_remove(at);
        }
    }
}

/// The banker's consent to one slot, until the slot is there. Dropped before, it is given back.
struct Consent<'s> {
    shared: &'s Shared,
    claim: ClaimId,
    one: Vec<u64>,
    kept: bool,
}

impl Consent<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Consent<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let sessions = &self.shared.pool.inner.sessions;
            // It was granted, and nothing else gives it back.
            let _ = sessions.lock().banker.give_back(self.claim, &self.one);
            sessions.back.notify_all();
        }
    }
}

/// A slot that a [`Session`] holds. Like a [`Lease`], and may travel like one; while it lives the session counts as its holder.
#[must_use = "a lease that is dropped at once gives its slot back at once"]
pub struct SessionLease<K: 'static> {
    // In this order: the slot is back before the session is said to hold it no more.
    lease: Lease<K>,
    hold: Hold,
}

struct Hold {
    shared: Arc<Shared>,
    /// The tier's place in the order.
    tier: usize,
    row: usize,
    site: Site,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let inner = &self.shared.pool.inner;
        let mut table = inner.sessions.lock();
        let Table { sessions, banker, .. } = &mut *table;
        let Some(entry) = sessions.get_mut(&self.shared.id) else { return };
        entry.holdings.remove(self.tier, self.site);
        if let Some(at) = entry.holds.iter().rposition(|&hold| hold == (self.row, self.site)) {
            entry.holds.swap_remove(at);
        }
        if let Some(claim) = entry.claim {
            let mut one = vec![0; inner.rows.len()];
            one[self.row] = 1;
            // It was granted with the slot.
            let _ = banker.give_back(claim, &one);
            drop(table);
            inner.sessions.back.notify_all();
        }
    }
}

impl<K: 'static> SessionLease<K> {
    /// The number of the session.
    pub fn session(&self) -> SessionId {
        self.hold.shared.id
    }

    /// The name of the slot's tier.
    pub fn tier_name(&self) -> &'static str {
        self.lease.tier_name()
    }
}

impl<K: 'static> Deref for SessionLease<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.lease
    }
}

impl<K: 'static> DerefMut for SessionLease<K> {
    fn deref_mut(&mut self) -> &mut K {
        &mut self.lease
    }
}

impl<K: fmt::Debug + 'static> fmt::Debug for SessionLease<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLease").field("lease", &self.lease).field("session", &self.session()).finish()
    }
}
