//! The banker's rule (Dijkstra, EWD 623; for several kinds of resource: Habermann, 1969).
//!
//! Each session claims beforehand the most that it will ever hold of each tier. A state is *safe* if there is an order in
//! which all sessions can be served to the full of their claims, one after the other, each giving back what it has before
//! the next begins. A grant that would leave the state unsafe has to wait, even if the slots are free. So the state is
//! always safe, and there is always a session that can be served to its end: no deadlock, whatever the order in which
//! sessions ask.
//!
//! This is arithmetic on counts alone: it takes no lock and hands out nothing. Who uses it keeps it under a lock, and lets
//! only sessions that are in it touch the slots that it counts.

use std::fmt;

/// Who may have what without risk of a deadlock, by the maxima that all have claimed.
///
/// ```
/// use tierpool::{Banker, Grant};
///
/// # fn main() -> Result<(), tierpool::ClaimError> {
/// let mut banker = Banker::new(&[2]);                 // one tier of two slots
/// let a = banker.admit(&[2])?;
/// let b = banker.admit(&[2])?;
/// assert_eq!(banker.grant(a, &[1])?, Grant::Safe);
/// assert_eq!(banker.grant(b, &[1])?, Grant::Unsafe); // each would hold one, and wait for the other's
/// banker.leave(a)?;
/// assert_eq!(banker.grant(b, &[1])?, Grant::Safe);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Banker {
    /// What there is of each tier, whoever has it.
    total: Box<[u64]>,
    /// What nobody has.
    free: Box<[u64]>,
    clients: Vec<Client>,
    /// The name of the next client.
    next: u64,
    // Room for the check, kept so that it allocates nothing.
    work: Box<[u64]>,
    unserved: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Client {
    id: ClaimId,
    claim: Box<[u64]>,
    held: Box<[u64]>,
}

impl Client {
    /// Whether it could be served to the full of its claim out of this.
    fn fits(&self, work: &[u64]) -> bool {
        self.claim.iter().zip(&self.held).zip(work).all(|((claim, held), work)| claim - held <= *work)
    }
}

/// The name of a claim; of one [`Banker`], never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(u64);

/// What a [`Banker`] says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Granted.
    Safe,
    /// Not granted: it is free, but if it were given, there would be no order left in which all could be served. Ask again
    /// when somebody has given back.
    Unsafe,
    /// Not granted: there is not so much free of this tier. Ask again when somebody has given back.
    Short {
        /// The first tier that has too little.
        tier: usize,
    },
}

impl Banker {
    /// A banker over tiers with so many slots each, which are all free.
    pub fn new(slots: &[u64]) -> Self {
        Banker {
            total: slots.into(),
            free: slots.into(),
            clients: Vec::new(),
            next: 0,
            work: slots.into(),
            unserved: Vec::new(),
        }
    }

    /// Admits a session that will never hold more than this of each tier. It holds nothing yet. Allocates memory.
    ///
    /// # Errors
    /// The claim names another number of tiers, or more of one than there is.
    pub fn admit(&mut self, claim: &[u64]) -> Result<ClaimId, ClaimError> {
        self.check_tiers(claim)?;
        if let Some(tier) = exceeds(claim, &self.total) {
            return Err(ClaimError::TooLarge { tier, claimed: claim[tier], slots: self.total[tier] });
        }
        // A session that holds nothing can be served last, when everything is free: the state stays safe.
        let id = ClaimId(self.next);
        self.next += 1;
        self.clients.push(Client { id, claim: claim.into(), held: vec![0; claim.len()].into() });
        self.unserved.reserve(self.clients.len());
        Ok(id)
    }

    /// Grants a request, if it is free and leaves the state safe. Steps: sessions² × tiers at worst. Allocates nothing.
    ///
    /// # Errors
    /// The claim is not admitted, or the request exceeds it, or names another number of tiers. Nothing was granted.
    pub fn grant(&mut self, id: ClaimId, request: &[u64]) -> Result<Grant, ClaimError> {
        self.check_tiers(request)?;
        let place = self.find(id)?;
        let Client { claim, held, .. } = &mut self.clients[place];
        for (tier, &wanted) in request.iter().enumerate() {
            let claimed = claim[tier];
            // At most the claim, so that it cannot overflow.
            if wanted > claimed - held[tier] {
                return Err(ClaimError::Exceeded { tier, claimed, held: held[tier], wanted });
            }
        }
        if let Some(tier) = exceeds(request, &self.free) {
            return Ok(Grant::Short { tier });
        }
        for ((held, free), &wanted) in held.iter_mut().zip(&mut self.free).zip(request) {
            *held += wanted;
            *free -= wanted;
        }
        if self.is_safe() {
            return Ok(Grant::Safe);
        }
        self.take(place, request);
        Ok(Grant::Unsafe)
    }

    /// Takes back what a session has of each tier. The state stays safe.
    ///
    /// # Errors
    /// The claim is not admitted, or holds less than this, or the list names another number of tiers. Nothing was changed.
    pub fn give_back(&mut self, id: ClaimId, back: &[u64]) -> Result<(), ClaimError> {
        self.check_tiers(back)?;
        let place = self.find(id)?;
        let held = &self.clients[place].held;
        if let Some(tier) = exceeds(back, held) {
            return Err(ClaimError::NotHeld { tier, held: held[tier], given: back[tier] });
        }
        self.take(place, back);
        Ok(())
    }

    /// Ends a claim, and takes back all that is held under it.
    ///
    /// # Errors
    /// The claim is not admitted.
    pub fn leave(&mut self, id: ClaimId) -> Result<(), ClaimError> {
        let place = self.find(id)?;
        // Removed in order: the names ascend, by which `find` finds them.
        let client = self.clients.remove(place);
        for (free, held) in self.free.iter_mut().zip(&client.held) {
            *free += held;
        }
        Ok(())
    }

    /// Whether there is an order in which all sessions can be served to the full of their claims. True at all times for
    /// whoever calls from outside. Steps: sessions² × tiers at worst.
    fn is_safe(&mut self) -> bool {
        self.work.copy_from_slice(&self.free);
        self.unserved.clear();
        self.unserved.extend(0..self.clients.len());
        // Whoever can be served may be served first: it leaves at least as much as it found. So no choice is wrong.
        loop {
            let before = self.unserved.len();
            let (clients, work) = (&self.clients, &mut self.work);
            self.unserved.retain(|&place| {
                let client = &clients[place];
                let fits = client.fits(work);
                if fits {
                    work.iter_mut().zip(&client.held).for_each(|(work, held)| *work += held);
                }
                !fits
            });
            if self.unserved.is_empty() {
                return true;
            }
            if self.unserved.len() == before {
                return false;
            }
        }
    }

    /// What nobody holds, of each tier.
    pub fn free(&self) -> &[u64] {
        &self.free
    }

    /// What a session holds of each tier; `None` if the claim is not admitted.
    pub fn held(&self, id: ClaimId) -> Option<&[u64]> {
        self.find(id).ok().map(|place| &*self.clients[place].held)
    }

    /// The claims that are admitted, in the order in which they came.
    pub fn claims(&self) -> impl Iterator<Item = (ClaimId, &[u64])> {
        self.clients.iter().map(|client| (client.id, &*client.claim))
    }

    fn take(&mut self, place: usize, back: &[u64]) {
        let held = &mut self.clients[place].held;
        for ((held, free), &back) in held.iter_mut().zip(&mut self.free).zip(back) {
            *held -= back;
            *free += back;
        }
    }

    fn find(&self, id: ClaimId) -> Result<usize, ClaimError> {
        self.clients.binary_search_by_key(&id, |client| client.id).map_err(|_| ClaimError::NotAdmitted { id })
    }

    fn check_tiers(&self, list: &[u64]) -> Result<(), ClaimError> {
        if list.len() == self.total.len() {
            return Ok(());
        }
        Err(ClaimError::Tiers { given: list.len(), tiers: self.total.len() })
    }
}

/// The first place at which a list is larger than another.
fn exceeds(list: &[u64], most: &[u64]) -> Option<usize> {
    list.iter().zip(most).position(|(given, most)| given > most)
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {}", self.0)
    }
}

/// Why a [`Banker`] could not even judge. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The list has another length than the banker has tiers.
    #[error("a number for each of {tiers} tiers is needed, and {given} were given")]
    Tiers {
        /// Numbers given.
        given: usize,
        /// Tiers that there are.
        tiers: usize,
    },
    /// No session could be served to the full of this claim.
    #[error("{claimed} slots of tier {tier} were claimed, which has {slots}")]
    TooLarge {
        /// The first tier of which too much was claimed.
        tier: usize,
        /// What was claimed of it.
        claimed: u64,
        /// What it has.
        slots: u64,
    },
    /// The session asks for more than it has claimed.
    #[error(
        "{wanted} slots of tier {tier} on top of {held} exceed the {claimed} that were claimed; claim more beforehand"
    )]
    Exceeded {
        /// The first tier of which it asks too much.
        tier: usize,
        /// What it has claimed of it.
        claimed: u64,
        /// What it holds.
        held: u64,
        /// What it asks for.
        wanted: u64,
    },
    /// The session gives back more than it has.
    #[error("{given} slots of tier {tier} cannot be given back, of which {held} are held")]
    NotHeld {
        /// The first tier of which it gives too much.
        tier: usize,
        /// What it holds.
        held: u64,
        /// What it gives back.
        given: u64,
    },
    /// The claim has been ended, or is another banker's.
    #[error("{id} is not admitted: it has been ended, or is another banker's")]
    NotAdmitted {
        /// The claim.
        id: ClaimId,
    },
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A claim and a holding.
    type Session = (Vec<u64>, Vec<u64>);

    /// Whether some order of these sessions serves all: every order is tried.
    fn some_order_completes(free: &[u64], sessions: &[Session]) -> bool {
        sessions.is_empty()
            || (0..sessions.len()).any(|first| {
                let (claim, held) = &sessions[first];
                if (0..free.len()).any(|tier| held[tier] + free[tier] < claim[tier]) {
                    return false;
                }
                let mut rest = sessions.to_vec();
                rest.remove(first);
                let after: Vec<u64> = free.iter().zip(held).map(|(free, held)| free + held).collect();
                some_order_completes(&after, &rest)
            })
    }

    /// All lists of numbers from 0 to these.
    fn up_to(most: &[u64]) -> Vec<Vec<u64>> {
        most.iter().fold(vec![Vec::new()], |lists, &most| {
            lists.iter().flat_map(|list| (0..=most).map(|n| [list.clone(), vec![n]].concat())).collect()
        })
    }

    /// All states of a system: what is free, and each session.
    fn every_state(slots: &[u64], sessions: usize) -> Vec<(Vec<u64>, Vec<Session>)> {
        let mut states = vec![(slots.to_vec(), Vec::new())];
        for _ in 0..sessions {
            states = states
                .iter()
                .flat_map(|(free, sessions)| {
                    up_to(slots).into_iter().flat_map(move |claim| {
                        let most: Vec<u64> = claim.iter().zip(free).map(|(&claim, &free)| claim.min(free)).collect();
                        up_to(&most).into_iter().map(move |held| {
                            let left = free.iter().zip(&held).map(|(free, held)| free - held).collect();
                            (left, [sessions.clone(), vec![(claim.clone(), held)]].concat())
                        })
                    })
                })
                .collect();
        }
        states
    }

    /// A banker in that state, however it came there.
    fn banker(slots: &[u64], free: &[u64], sessions: &[Session]) -> Banker {
        let mut banker = Banker::new(slots);
        for (claim, _) in sessions {
            banker.admit(claim).unwrap();
        }
        for (client, (_, held)) in banker.clients.iter_mut().zip(sessions) {
            client.held = held.clone().into();
        }
        banker.free = free.into();
        banker
    }

    /// Three sessions on one tier of up to four slots, and two on two tiers of up to three: every state there is.
    #[test]
    fn a_state_is_safe_if_and_only_if_some_order_completes() {
        let systems = (0..=4).map(|n| (vec![n], 3)).chain((0..=3).flat_map(|a| (0..=3).map(move |b| (vec![a, b], 2))));
        let (mut safe, mut unsafe_) = (0, 0);
        for (slots, sessions) in systems {
            for (free, sessions) in every_state(&slots, sessions) {
                let expected = some_order_completes(&free, &sessions);
                assert_eq!(banker(&slots, &free, &sessions).is_safe(), expected, "{free:?} free, {sessions:?}");
                *(if expected { &mut safe } else { &mut unsafe_ }) += 1;
            }
        }
        assert!(safe > 1000 && unsafe_ > 1000, "{safe} safe, {unsafe_} not");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit(Vec<u64>),
        Grant(usize, Vec<u64>),
        GiveBack(usize, Vec<u64>),
        Leave(usize),
    }

    fn step(tiers: usize) -> impl Strategy<Value = Step> {
        let list = move || prop::collection::vec(0..4u64, tiers);
        prop_oneof![
            2 => prop::collection::vec(0..6u64, tiers).prop_map(Step::Admit),
            6 => (0..4usize, list()).prop_map(|(who, list)| Step::Grant(who, list)),
            2 => (0..4usize, list()).prop_map(|(who, list)| Step::GiveBack(who, list)),
            1 => (0..4usize).prop_map(Step::Leave),
        ]
    }

    fn plus(a: &[u64], b: &[u64]) -> Vec<u64> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    fn within(a: &[u64], b: &[u64]) -> bool {
        a.iter().zip(b).all(|(a, b)| a <= b)
    }

    proptest! {
        /// At most three sessions, two tiers, four slots; the reference is the definition.
        #[test]
        fn it_grants_what_leaves_an_order_in_which_all_complete_and_nothing_else(
            (slots, steps) in prop::collection::vec(0..5u64, 1..3)
                .prop_flat_map(|slots| { let n = slots.len(); (Just(slots), prop::collection::vec(step(n), 0..60)) }),
        ) {
            let mut banker = Banker::new(&slots);
            let mut sessions: Vec<Session> = Vec::new();
            let (mut ids, mut free) = (Vec::new(), slots.clone());
            for step in steps {
                match step {
                    Step::Admit(_) if ids.len() == 3 => {}
                    Step::Admit(claim) => match banker.admit(&claim) {
                        Ok(id) => {
                            prop_assert!(within(&claim, &slots));
                            ids.push(id);
                            sessions.push((claim, vec![0; slots.len()]));
                        }
                        Err(error) => {
                            let is_too_large = matches!(error, ClaimError::TooLarge { tier, .. } if claim[tier] > slots[tier]);
                            prop_assert!(is_too_large, "{error}");
                        }
                    },
                    Step::Grant(who, request) if who < ids.len() => {
                        let (claim, held) = sessions[who].clone();
                        let after = plus(&held, &request);
                        let verdict = banker.grant(ids[who], &request);
                        if !within(&after, &claim) {
                            prop_assert!(matches!(verdict, Err(ClaimError::Exceeded { .. })), "{verdict:?}");
                        } else if !within(&request, &free) {
                            let is_short = matches!(verdict, Ok(Grant::Short { tier }) if request[tier] > free[tier]);
                            prop_assert!(is_short, "{verdict:?}");
                        } else {
                            let left: Vec<u64> = free.iter().zip(&request).map(|(free, n)| free - n).collect();
                            sessions[who].1 = after;
                            if some_order_completes(&left, &sessions) {
                                prop_assert_eq!(verdict, Ok(Grant::Safe));
                                free = left;
                            } else {
                                prop_assert_eq!(verdict, Ok(Grant::Unsafe));
                                sessions[who].1 = held;
                            }
                        }
                    }
                    Step::GiveBack(who, back) if who < ids.len() => {
                        let given = banker.give_back(ids[who], &back);
                        let held = &mut sessions[who].1;
                        prop_assert_eq!(given.is_ok(), within(&back, held));
                        if given.is_ok() {
                            *held = held.iter().zip(&back).map(|(held, back)| held - back).collect();
                            free = plus(&free, &back);
                        }
                    }
                    Step::Leave(who) if who < ids.len() => {
                        let id = ids.remove(who);
                        free = plus(&free, &sessions.remove(who).1);
                        prop_assert_eq!(banker.leave(id), Ok(()));
                        prop_assert_eq!(banker.leave(id), Err(ClaimError::NotAdmitted { id }));
                    }
                    _ => {}
                }
                prop_assert_eq!(banker.free(), &*free);
                for (id, (claim, held)) in ids.iter().zip(&sessions) {
                    prop_assert_eq!(banker.held(*id), Some(&**held));
                    prop_assert!(banker.claims().any(|(other, its)| other == *id && its == &**claim));
                }
                prop_assert!(some_order_completes(&free, &sessions), "the state is safe at all times");
            }
        }
    }

    /// The example of Silberschatz, Galvin and Gagne, Operating System Concepts, section on the banker's algorithm.
    #[test]
    fn the_textbooks_example() {
        let mut banker = Banker::new(&[10, 5, 7]);
        let claims = [[7, 5, 3], [3, 2, 2], [9, 0, 2], [2, 2, 2], [4, 3, 3]];
        let held = [[0, 1, 0], [2, 0, 0], [3, 0, 2], [2, 1, 1], [0, 0, 2]];
        let ids = claims.map(|claim| banker.admit(&claim).unwrap());
        for (id, held) in ids.into_iter().zip(held) {
            assert_eq!(banker.grant(id, &held), Ok(Grant::Safe));
        }
        assert_eq!(banker.free(), [3, 3, 2]);
        assert_eq!(banker.grant(ids[1], &[1, 0, 2]), Ok(Grant::Safe));
        assert_eq!(banker.grant(ids[4], &[3, 3, 0]), Ok(Grant::Short { tier: 0 }));
        assert_eq!(banker.grant(ids[0], &[0, 2, 0]), Ok(Grant::Unsafe));
    }

    #[test]
    fn a_list_of_another_length_and_a_huge_request_are_refused() {
        let mut banker = Banker::new(&[2, 2]);
        let id = banker.admit(&[2, 1]).unwrap();
        let tiers = ClaimError::Tiers { given: 1, tiers: 2 };
        assert_eq!(banker.admit(&[1]), Err(tiers));
        assert_eq!(banker.grant(id, &[1]), Err(tiers));
        assert_eq!(banker.give_back(id, &[1]), Err(tiers));
        assert_eq!(banker.grant(id, &[1, 1]), Ok(Grant::Safe));
        let exceeded = ClaimError::Exceeded { tier: 0, claimed: 2, held: 1, wanted: u64::MAX };
        assert_eq!(banker.grant(id, &[u64::MAX, 0]), Err(exceeded));
        assert_eq!(banker.give_back(id, &[0, 2]), Err(ClaimError::NotHeld { tier: 1, held: 1, given: 2 }));
    }
}
