//! Who waits for whom: the graph of sessions, tiers and lines, to be shown to whoever asks why nothing moves.
//!
//! It is data: taken down in one go by whoever can see all sessions, and looked at afterwards. A session waits for a tier;
//! behind a tier stand the sessions that hold slots of it. (Kept so, the graph has an edge for each hold and each wait; from
//! session to session it could have their product.)
//!
//! A ring in it is a danger, and a deadlock only if nobody outside of it can give a slot: a waiter needs one slot of the
//! tier, whoever gives it. So there are two questions, [`ring`](WaitsFor::ring) and [`stuck`](WaitsFor::stuck) (Holt's
//! reduction of 1972).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

use super::order::TierIndex;

/// A session's name in a [`WaitsFor`] graph.
pub type SessionId = u64;

type Site = &'static Location<'static>;

/// Which sessions wait for which tiers, and which hold them.
///
/// ```
/// use std::panic::Location;
/// use tierpool::WaitsFor;
///
/// let here = Location::caller();
/// let mut graph = WaitsFor::default();
/// graph.add_hold(1, 0, here);
/// graph.add_hold(2, 1, here);
/// graph.add_wait(1, 1, here);
/// assert!(graph.ring().is_none());
/// graph.add_wait(2, 0, here);
/// assert_eq!(graph.ring().unwrap().len(), 2);
/// assert_eq!(graph.stuck(), [1, 2]);
/// graph.add_other(0);                     // a slot that no session holds may come back
/// assert!(graph.stuck().is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct WaitsFor {
    waits: BTreeMap<SessionId, Vec<(TierIndex, Site)>>,
    holds: BTreeMap<TierIndex, Vec<(SessionId, Site)>>,
    /// Tiers of which a slot may come from outside of all sessions.
    others: BTreeSet<TierIndex>,
}

/// One session waits for a tier of which another holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitEdge {
    /// Who waits.
    pub waiter: SessionId,
    /// For a slot of what tier.
    pub tier: TierIndex,
    /// Where it waits.
    pub waits_at: &'static Location<'static>,
    /// Who holds one.
    pub holder: SessionId,
    /// Where that one was taken.
    pub held_at: &'static Location<'static>,
}

impl fmt::Display for WaitEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaitEdge { waiter, tier, waits_at, holder, held_at } = self;
        write!(
            f,
            "session {waiter} waits at {waits_at} for tier {tier}, of which session {holder} took a slot at {held_at}"
        )
    }
}

impl WaitsFor {
    /// A session holds a slot of this tier, taken at this line.
    pub fn add_hold(&mut self, session: SessionId, tier: TierIndex, site: &'static Location<'static>) {
        self.holds.entry(tier).or_default().push((session, site));
    }

    /// A session waits for a slot of this tier, at this line. One that waits for several needs them all.
    pub fn add_wait(&mut self, session: SessionId, tier: TierIndex, site: &'static Location<'static>) {
        self.waits.entry(session).or_default().push((tier, site));
    }

    /// A slot of this tier is held by no session, or by nobody: it may come without any of them.
    pub fn add_other(&mut self, tier: TierIndex) {
        self.others.insert(tier);
    }

    /// Who waits for whom, through which tier. As many as waits times holders.
    pub fn edges(&self) -> impl Iterator<Item = WaitEdge> {
        self.waits.keys().flat_map(|&waiter| self.edges_from(waiter))
    }

    fn edges_from(&self, waiter: SessionId) -> impl Iterator<Item = WaitEdge> {
        self.waits.get(&waiter).into_iter().flatten().flat_map(move |&(tier, waits_at)| {
            let holders = self.holders(tier).iter();
            holders.map(move |&(holder, held_at)| WaitEdge { waiter, tier, waits_at, holder, held_at })
        })
    }

    /// A ring of sessions in which each waits for a tier of which the next holds a slot, if there is one: the holder of each edge
    /// is the waiter of the next, and the last leads to the first. A session that waits for what it holds itself is a ring.
    ///
    /// Steps: one for each wait and each hold, times the logarithm of their number; and for each session of the ring one for each
    /// holder of its tier.
    pub fn ring(&self) -> Option<Vec<WaitEdge>> {
        // Whoever is left waits for a tier with a holder that is left: whoever goes from one to the next comes back.
        let left = self.reduce(|tier| self.holders(tier).len());
        let mut session = *left.first()?;
        let (mut path, mut places) = (Vec::new(), BTreeMap::new());
        while !places.contains_key(&session) {
            places.insert(session, path.len());
            let edge = self.edges_from(session).find(|edge| left.contains(&edge.holder))?;
            path.push(edge);
            session = edge.holder;
        }
        Some(path.split_off(places[&session]))
    }

    /// The sessions that no other can help: each waits for a tier whose slots are all held by such sessions. In ascending
    /// order. If there is none, there is no deadlock. Steps as for [`ring`](WaitsFor::ring).
    pub fn stuck(&self) -> Vec<SessionId> {
        let has_others = |tier| self.others.contains(&tier) || self.holders(tier).is_empty();
        self.reduce(|tier| usize::from(!has_others(tier))).into_iter().collect()
    }

    /// Lets every session go that can, and give back what it holds: one that waits for nothing, then one whose tiers are all open.
    /// A tier is open when so many of its slots have come back as `needs` says. Returns who is left.
    fn reduce(&self, needs: impl Fn(TierIndex) -> usize) -> BTreeSet<SessionId> {
        let mut waiters: BTreeMap<TierIndex, Vec<SessionId>> = BTreeMap::new();
        let mut needed = BTreeMap::new();
        let mut held: BTreeMap<SessionId, Vec<TierIndex>> = BTreeMap::new();
        // How many of its tiers are not open; nobody is in it who may go.
        let mut left = BTreeMap::new();
        for (&session, waits) in &self.waits {
            for &(tier, _) in waits {
                let needed = *needed.entry(tier).or_insert_with(|| needs(tier));
                if needed > 0 {
                    waiters.entry(tier).or_default().push(session);
                    *left.entry(session).or_insert(0) += 1;
                }
            }
        }
        for (&tier, holders) in &self.holds {
            holders.iter().for_each(|&(session, _)| held.entry(session).or_default().push(tier));
        }
        let mut going: Vec<SessionId> = held.keys().copied().filter(|session| !left.contains_key(session)).collect();
        while let Some(session) = going.pop() {
            for tier in held.get(&session).into_iter().flatten() {
                // Once it is open, and if nobody waits for it, what else comes back makes no difference.
                let Some(needed) = needed.get_mut(tier).filter(|needed| **needed > 0) else { continue };
                *needed -= 1;
                if *needed > 0 {
                    continue;
                }
                for waiter in waiters.get(tier).into_iter().flatten() {
                    if let Some(closed) = left.get_mut(waiter) {
                        *closed -= 1;
                        if *closed == 0 {
                            left.remove(waiter);
                            going.push(*waiter);
                        }
                    }
                }
            }
        }
        left.into_keys().collect()
    }

    fn holders(&self, tier: TierIndex) -> &[(SessionId, Site)] {
        self.holds.get(&tier).map_or(&[], Vec::as_slice)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSIONS: u64 = 5;

    #[track_caller]
    fn here() -> Site {
        Location::caller()
    }

    fn graph(holds: &[(u64, usize)], waits: &[(u64, usize)], others: &[usize]) -> WaitsFor {
        let mut graph = WaitsFor::default();
        holds.iter().for_each(|&(session, tier)| graph.add_hold(session, tier, here()));
        waits.iter().for_each(|&(session, tier)| graph.add_wait(session, tier, here()));
        others.iter().for_each(|&tier| graph.add_other(tier));
        graph
    }

    /// Whether somebody leads back to itself: by Warshall's closure.
    fn has_ring(graph: &WaitsFor) -> bool {
        let mut leads = [[false; SESSIONS as usize]; SESSIONS as usize];
        graph.edges().for_each(|edge| leads[edge.waiter as usize][edge.holder as usize] = true);
        for via in 0..SESSIONS as usize {
            for from in 0..SESSIONS as usize {
                for to in 0..SESSIONS as usize {
                    leads[from][to] |= leads[from][via] && leads[via][to];
                }
            }
        }
        (0..SESSIONS as usize).any(|session| leads[session][session])
    }

    /// The union of all sets of sessions each of which needs a slot that only the set itself has: every set is tried.
    fn beyond_help(holds: &[(u64, usize)], waits: &[(u64, usize)], others: &[usize]) -> Vec<u64> {
        let needs_the_set = |set: u64, session: u64| {
            waits.iter().any(|&(waiter, tier)| {
                let mut holders = holds.iter().filter(|hold| hold.1 == tier).map(|hold| hold.0).peekable();
                waiter == session
                    && !others.contains(&tier)
                    && holders.peek().is_some()
                    && holders.all(|holder| set >> holder & 1 == 1)
            })
        };
        let all = (0..1u64 << SESSIONS)
            .filter(|&set| (0..SESSIONS).all(|session| set >> session & 1 == 0 || needs_the_set(set, session)))
            .fold(0, |all, set| all | set);
        (0..SESSIONS).filter(|session| all >> session & 1 == 1).collect()
    }

    fn pairs() -> impl Strategy<Value = Vec<(u64, usize)>> {
        prop::collection::vec((0..SESSIONS, 0..4usize), 0..8)
    }

    proptest! {
        #[test]
        fn a_ring_is_found_if_and_only_if_there_is_one(holds in pairs(), waits in pairs()) {
            let graph = graph(&holds, &waits, &[]);
            let ring = graph.ring();
            prop_assert_eq!(ring.is_some(), has_ring(&graph));
            for (nth, edge) in ring.iter().flatten().enumerate() {
                let ring = ring.as_ref().unwrap();
                prop_assert!(graph.edges().any(|other| other == *edge), "each edge is one of the graph");
                prop_assert_eq!(edge.holder, ring[(nth + 1) % ring.len()].waiter);
                prop_assert!(ring.iter().filter(|other| other.waiter == edge.waiter).count() == 1, "nobody twice");
            }
        }

        #[test]
        fn who_is_stuck_is_who_is_beyond_help(
            holds in pairs(), waits in pairs(), others in prop::collection::vec(0..4usize, 0..3),
        ) {
            prop_assert_eq!(graph(&holds, &waits, &others).stuck(), beyond_help(&holds, &waits, &others));
        }
    }

    #[test]
    fn a_ring_with_a_way_out_is_no_deadlock() {
        let graph = graph(&[(1, 0), (2, 1), (3, 1)], &[(1, 1), (2, 0)], &[]);
        assert!(graph.ring().is_some());
        assert!(graph.stuck().is_empty(), "session 3 will give a slot of tier 1 back");
    }

    #[test]
    fn an_edge_names_both_sessions_and_both_lines() {
        let (held_at, waits_at) = (here(), here());
        let mut graph = WaitsFor::default();
        graph.add_hold(7, 3, held_at);
        graph.add_wait(7, 3, waits_at);
        let edge = WaitEdge { waiter: 7, tier: 3, waits_at, holder: 7, held_at };
        assert_eq!(graph.ring(), Some(vec![edge]), "it waits for itself");
        let text = edge.to_string();
        assert!(text.contains(&held_at.to_string()) && text.contains(&waits_at.to_string()), "{text}");
    }

    #[test]
    fn a_chain_of_many_sessions_takes_no_stack() {
        let many = 20_000;
        let mut graph = WaitsFor::default();
        for session in 0..many {
            graph.add_hold(session, session as usize, here());
            graph.add_wait(session, session as usize + 1, here());
        }
        assert!(graph.ring().is_none() && graph.stuck().is_empty());
        graph.add_hold(0, many as usize, here());
        assert_eq!(graph.ring().unwrap().len(), many as usize);
        assert_eq!(graph.stuck().len(), many as usize);
    }
}
