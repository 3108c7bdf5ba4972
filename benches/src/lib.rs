//! tierpool beside its peers: the harness that the `compare` program and the criterion benches share.
//!
//! Reading order: [`payload`] (what a slot holds), [`subject`] (what every pool and allocator is asked to do), [`ours`], [`pooled`] and
//! [`peers`] (one small adapter each), [`roster`] (all of them), [`workload`] (what is timed, written once and
//! monomorphised for each subject), [`run`] (threads, batches, samples), [`report`] (rows, ratios, bars).

pub mod machine;
pub mod ours;
pub mod payload;
pub mod peers;
pub mod pooled;
pub mod report;
pub mod roster;
pub mod run;
pub mod subject;
pub mod workload;
