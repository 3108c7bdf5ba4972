//! Threads, batches, samples. A [`cast::Cast`] holds one [`runner::Runner`] a subject; each round asks every runner for a
//! few batches, in a rotated order, so that all of them see the same moods of the machine.

pub mod cast;
pub mod duet;
pub mod orders;
pub mod runner;
pub mod series;
