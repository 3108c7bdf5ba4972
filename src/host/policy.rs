//! Which of the nodes that can hold a task.
//!
//! All policies keep the same promises: an unhealthy node gets nothing, a degraded one only what no healthy one can hold, and a task that
//! fits somewhere is routed. For the last, who has found nothing by the gauges looks at all nodes once more and refreshes those that might
//! have room by now.

use std::cmp::Ordering;

use super::fit::{Fit, Misfit, fit};
use super::level::Health;
use super::nodes::Nodes;
use super::random;
use super::route::{Rejected, Rejection, RouteReason, RouteRule, WhyNot};
use super::shape::{Needs, NoTier};
use super::task::Task;

/// Which of the nodes that can hold a task gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Of two nodes drawn at random, the one with more left (Azar, Broder, Karlin, Upfal 1994; Mitzenmacher 1996): nearly as even as if all had been
    /// looked at, at the cost of two, and without everybody running after the same emptiest node.
    #[default]
    PowerOfTwo,
    /// Of all nodes, the one that the task fills the best: the fewest bytes of memory slots unused, then the smallest share left. Keeps
    /// the others empty for large tasks. Looks at every node.
    BestFit,
    /// The node that the task [prefers](Task::prefers), else one [near](Task::near) its data by power of two choices, else any.
    LocalityFirst,
}

/// How often two are drawn before all nodes are looked at.
const DRAWS: usize = 4;

/// A node by its place, and how the task fits there.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) place: u32,
    pub(super) reason: RouteReason,
}

/// What a look at a node has shown.
#[derive(Clone, Copy)]
pub(super) enum Seen {
    Fits(Fit),
    /// It fits, but the node is degraded.
    Degraded(Fit),
    Unfit(Misfit),
    Unhealthy,
}

/// Nodes in question.
#[derive(Clone, Copy)]
pub(super) enum Among<'n> {
    All(u32),
    Some(&'n [u32]),
}

impl Among<'_> {
    fn len(self) -> u32 {
        match self {
            Among::All(n) => n,
            Among::Some(places) => places.len() as u32,
        }
    }

    fn place(self, at: u32) -> u32 {
        match self {
            Among::All(_) => at,
            Among::Some(places) => places[at as usize],
        }
    }
}

/// A task in front of a list of nodes.
pub(super) struct View<'v> {
    pub(super) nodes: &'v Nodes,
    pub(super) task: &'v Task,
    class: u8,
    /// What it comes down to on nodes of the shape that was looked at last.
    known: Option<(u32, Result<Needs, NoTier>)>,
}

impl<'v> View<'v> {
    #[inline]
    pub(super) fn new(nodes: &'v Nodes, task: &'v Task) -> Self {
        View { nodes, task, class: task.urgency().class(), known: None }
    }

    #[inline]
    fn needs(&mut self, shape: u32) -> Result<&Needs, NoTier> {
        if self.known.as_ref().is_none_or(|(known, _)| *known != shape) {
            self.known = Some((shape, Needs::of(self.task, &self.nodes.shapes[shape as usize])));
        }
        match &self.known {
            Some((_, needs)) => needs.as_ref().map_err(|&why| why),
            None => unreachable!("it was looked up"),
        }
    }

    #[inline]
    fn fit<const EVER: bool>(&mut self, place: u32) -> Result<Fit, Misfit> {
        let (nodes, class) = (self.nodes, self.class);
        let entry = &nodes.entries[place as usize];
        let needs = self.needs(entry.shape).map_err(Misfit::NoTier)?;
        fit::<EVER>(&entry.node.inner, &nodes.shapes[entry.shape as usize], needs, class)
    }

    /// By the gauges.
    #[inline]
    pub(super) fn look(&mut self, place: u32) -> Seen {
        self.look_at(place, self.nodes.node(place).inner.health())
    }

    #[inline]
    fn look_at(&mut self, place: u32, health: Health) -> Seen {
        if health == Health::Unhealthy {
            return Seen::Unhealthy;
        }
        match self.fit::<false>(place) {
            Ok(fit) if health == Health::Healthy => Seen::Fits(fit),
            Ok(fit) => Seen::Degraded(fit),
            Err(why) => Seen::Unfit(why),
        }
    }

    /// The same; if the gauges say that there is no room now, by what they say when they are fresh.
    pub(super) fn look_again(&mut self, place: u32) -> Seen {
        match self.look(place) {
            Seen::Unfit(why) if why.passes() => {
                self.nodes.node(place).refresh();
                self.look(place)
            }
            seen => seen,
        }
    }

    /// Whether some node could hold the task if nothing else were there, whatever its health.
    pub(super) fn fits_ever(&mut self) -> bool {
        (0..self.nodes.len()).any(|place| self.fit::<true>(place).is_ok())
    }

    /// Why not that node, if another is taken or none.
    pub(super) fn why_not(&self, place: u32, seen: Seen, instead: Option<&RouteReason>) -> WhyNot {
        match seen {
            Seen::Fits(fit) => WhyNot::outdone(&fit),
            Seen::Degraded(fit) if instead.is_some_and(|reason| reason.degraded) => WhyNot::outdone(&fit),
            Seen::Degraded(_) => WhyNot::Degraded,
            Seen::Unhealthy => WhyNot::Unhealthy,
            Seen::Unfit(why) => WhyNot::misfit(why, self.nodes.node(place), self.task),
        }
    }

    /// Why none of all nodes, by the gauges.
    pub(super) fn all_rejected(&mut self) -> Vec<Rejection> {
        let nodes = self.nodes;
        let reject = |place| {
            let seen = self.look(place);
            Rejection { node: nodes.node(place).clone(), why: self.why_not(place, seen, None) }
        };
        (0..nodes.len()).map(reject).collect()
    }

    fn note(&self, rejected: &mut Rejected, place: u32, seen: Seen, instead: Option<&RouteReason>) {
        rejected.note(self.nodes.node(place), || self.why_not(place, seen, instead));
    }

    /// Whether a node is where the task would best be.
    fn is_near(&self, place: u32) -> bool {
        let task = self.task;
        let near = |label| self.nodes.labelled(label).binary_search(&place).is_ok();
        task.preferred_node() == Some(self.nodes.node(place).name()) || task.locality().is_some_and(near)
    }

    /// Of two fits at two places, the better one first.
    pub(super) fn order(&self, policy: Policy, (a, one): (u32, &Fit), (b, other): (u32, &Fit)) -> Ordering {
        let emptier = other.by_room(one);
        match policy {
            Policy::PowerOfTwo => emptier,
            Policy::BestFit => one.waste.cmp(&other.waste).then(emptier.reverse()),
            Policy::LocalityFirst => self.is_near(b).cmp(&self.is_near(a)).then(emptier),
        }
    }
}

/// The node for a task, by a policy; what was looked at and not taken is noted.
#[inline]
pub(super) fn choose(view: &mut View<'_>, policy: Policy, rejected: &mut Rejected) -> Option<Choice> {
    let all = Among::All(view.nodes.len());
    let drawn = match policy {
        Policy::PowerOfTwo => draw(view, all, None, rejected),
        Policy::BestFit => None,
        Policy::LocalityFirst => near(view, rejected).or_else(|| draw(view, all, None, rejected)),
    };
    drawn.or_else(|| of_all(view, policy, rejected))
}

/// Power of two choices. `None` if no healthy node that was drawn can hold the task.
#[inline]
fn draw(view: &mut View<'_>, among: Among<'_>, rule: Option<RouteRule>, rejected: &mut Rejected) -> Option<Choice> {
    if among.len() == 0 {
        return None;
    }
    for _ in 0..DRAWS {
        let (one, other) = random::pair(among.len());
        let (one, other) = (among.place(one), among.place(other));
        // Both are fetched before either is looked at: they are in nobody's cache.
        let health = |place: u32| view.nodes.node(place).inner.health();
        let (of_one, of_other) = (health(one), health(other));
        let (at_one, at_other) = (view.look_at(one, of_one), view.look_at(other, of_other));
        let chosen = |place, rule_of_two, fit: &Fit| {
            let rule_of_two = if one == other { RouteRule::Only } else { rule_of_two };
            let reason = RouteReason::new(rule.unwrap_or(rule_of_two), fit, false);
            Some(Choice { place, reason })
        };
        let (choice, left) = match (at_one, at_other) {
            (Seen::Fits(fit), Seen::Fits(its)) if its.by_room(&fit).is_gt() => {
                (chosen(other, RouteRule::BetterOfTwo, &its), (one, at_one))
            }
            (Seen::Fits(fit), Seen::Fits(_)) => (chosen(one, RouteRule::BetterOfTwo, &fit), (other, at_other)),
            (Seen::Fits(fit), _) => (chosen(one, RouteRule::OnlyOneOfTwo, &fit), (other, at_other)),
            (_, Seen::Fits(fit)) => (chosen(other, RouteRule::OnlyOneOfTwo, &fit), (one, at_one)),
            _ => {
                view.note(rejected, one, at_one, None);
                (None, (other, at_other))
            }
        };
        let (place, seen) = left;
        match choice {
            Some(_) if one != other => {
                rejected.note_last(view.nodes.node(place), || view.why_not(place, seen, None));
                return choice;
            }
            Some(_) => return choice,
            None => view.note(rejected, place, seen, None),
        }
    }
    None
}

/// The preferred node, else one near the data. `None` if no healthy one can hold the task, by the gauges.
fn near(view: &mut View<'_>, rejected: &mut Rejected) -> Option<Choice> {
    let (task, nodes) = (view.task, view.nodes);
    if let Some(place) = task.preferred_node().and_then(|name| nodes.named(name)) {
        match view.look(place) {
            Seen::Fits(fit) => {
                return Some(Choice { place, reason: RouteReason::new(RouteRule::Preferred, &fit, false) });
            }
            seen => view.note(rejected, place, seen, None),
        }
    }
    let among = Among::Some(nodes.labelled(task.locality()?));
    draw(view, among, Some(RouteRule::Near), rejected).or_else(|| {
        let (place, fit) = scan(view, among, Policy::PowerOfTwo, View::look).healthy?;
        Some(Choice { place, reason: RouteReason::new(RouteRule::Near, &fit, false) })
    })
}

/// What a look at all nodes has shown: the best ones.
struct Best {
    healthy: Option<(u32, Fit)>,
    degraded: Option<(u32, Fit)>,
}

fn scan<'v>(view: &mut View<'v>, among: Among<'_>, policy: Policy, look: fn(&mut View<'v>, u32) -> Seen) -> Best {
    let mut best = Best { healthy: None, degraded: None };
    for at in 0..among.len() {
        let place = among.place(at);
        let (best, fit) = match look(view, place) {
            Seen::Fits(fit) => (&mut best.healthy, fit),
            Seen::Degraded(fit) => (&mut best.degraded, fit),
            Seen::Unfit(_) | Seen::Unhealthy => continue,
        };
        let better = |&(other, its): &(u32, Fit)| view.order(policy, (place, &fit), (other, &its)).is_lt();
        if best.as_ref().is_none_or(better) {
            *best = Some((place, fit));
        }
    }
    best
}

/// The best of all nodes; what is noted are others, from the first on.
fn of_all(view: &mut View<'_>, policy: Policy, rejected: &mut Rejected) -> Option<Choice> {
    let all = Among::All(view.nodes.len());
    let by_gauges = scan(view, all, policy, View::look).healthy;
    let (degraded, (place, fit)) = match by_gauges {
        Some(best) => (false, best),
        None => {
            let Best { healthy, degraded } = scan(view, all, policy, View::look_again);
            healthy.map(|best| (false, best)).or(degraded.map(|best| (true, best)))?
        }
    };
    let rule = match policy {
        Policy::BestFit => RouteRule::Tightest,
        Policy::LocalityFirst if view.is_near(place) => RouteRule::Near,
        Policy::PowerOfTwo | Policy::LocalityFirst => RouteRule::MostLeft,
    };
    let reason = RouteReason::new(rule, &fit, degraded);
    *rejected = Rejected::default();
    for other in (0..view.nodes.len()).filter(|&other| other != place) {
        if rejected.is_full() {
            break;
        }
        let seen = view.look(other);
        view.note(rejected, other, seen, Some(&reason));
    }
    rejected.note_others(view.nodes.len() as usize - 1 - rejected.iter().count());
    Some(Choice { place, reason })
}
