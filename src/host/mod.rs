//! Where a task runs: nodes, what each offers, and the router that chooses among them.
//!
//! Read in this order: [`task`] (what is to run, and what it needs), [`offer`] (what a node has), [`node`] (a node, and where nodes come
//! from); [`shape`] and [`fit`] (whether a node can hold a task), [`nodes`] (the list, which changes while others read it), [`policy`] (which
//! of those that can), [`route`] (the answer, and why); [`placement`] (the task's resources, for its life) and [`router`], which puts all
//! of it together. `random` draws.
//!
//! Knows pools by what they offer their users; no pool knows of it.

pub(crate) mod fit;
pub(crate) mod node;
mod nodes;
pub(crate) mod offer;
pub(crate) mod placement;
pub(crate) mod policy;
mod random;
pub(crate) mod route;
pub(crate) mod router;
mod shape;
pub(crate) mod task;
