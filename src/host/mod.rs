//! The machine around pools: what it offers, whether all is well, and where a task runs. Knows pools by what they offer their users; no
//! pool knows of it.
//!
//! Read in this order:
//!
//! 1. *The machine*: [`resources`] (what there is, as this process may use it) and [`detector`], which looks.
//! 2. *Health*: [`level`] (how well all is), [`threshold`] (when a figure is too much), [`issue`] (what is told of it), and [`health`], which judges, and has pools give
//!    back what is idle while memory is short.
//! 3. *Tasks*: [`task`] (what is to run, and what it needs), [`offer`] (what a node has), [`node`] (a node, and where nodes come from);
//!    [`shape`] and [`fit`] (whether a node can hold a task), [`nodes`] (the list, which changes while others read it), [`policy`] (which of
//!    those that can), [`route`] (the answer, and why); [`placement`] (the task's resources, for its life) and [`router`], which puts all of
//!    it together. `random` draws.

pub(crate) mod detector;
pub(crate) mod fit;
pub(crate) mod health;
pub(crate) mod issue;
pub(crate) mod level;
pub(crate) mod node;
mod nodes;
pub(crate) mod offer;
pub(crate) mod placement;
pub(crate) mod policy;
mod random;
pub(crate) mod resources;
pub(crate) mod route;
pub(crate) mod router;
mod shape;
pub(crate) mod task;
pub(crate) mod threshold;
