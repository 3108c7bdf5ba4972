//! What people and other programs see of pools: exposition and a live view. Shows what [`Observer`](crate::Observer)s have found and asks no
//! pool anything, so whoever looks, and however often, costs the pools nothing.
//!
//! Read in this order: [`exposition`] (metrics, for Prometheus and what reads its formats); [`alerts`] (what is wrong, in sentences), [`json`] (all that an observation has, under names that stay), `http` (which
//! knows no pools), and [`server`], which serves both and the page.

#[cfg(feature = "serve")]
mod alerts;
#[cfg(feature = "prometheus")]
pub(crate) mod exposition;
#[cfg(feature = "serve")]
mod http;
#[cfg(feature = "serve")]
mod json;
#[cfg(feature = "serve")]
pub(crate) mod server;
