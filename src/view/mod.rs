//! What others see of pools: programs that collect metrics, people with a browser. Shows what an [`Observer`](crate::Observer) has seen, so that
//! no pool is asked anything however many look, and knows pools by that alone.
//!
//! 1. [`exposition`]: metrics, for Prometheus and what reads its formats.

#[cfg(feature = "prometheus")]
pub(crate) mod exposition;
