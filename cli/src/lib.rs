//! The parts of the `tierpool` program, as a library for its tests and for fuzzing.
//!
//! In reading order: [`trace`] reads what a program allocated and freed; [`classes`] says which slot serves which size;
//! [`tiers`] is the only file in it that knows tierpool; [`replay`] plays a trace through tiers and through the system
//! allocator, and times both; [`report`] tells a person or a program what came of it; [`scarcity`] runs
//! a described load on a pool, [`kv_cache`] reads one of its demands; [`cache`] has a trace of keys go through caches; [`doctor`] examines the machine;
//! [`demo`] is a program to look at; [`samples`] finds the traces
//! that come with the project; [`app`] is the command line.
#![forbid(unsafe_code)]

pub mod app;
pub mod cache;
pub mod classes;
pub mod clock;
pub mod demo;
pub mod doctor;
pub mod kv_cache;
pub mod replay;
pub mod report;
pub mod samples;
pub mod scarcity;
pub mod table;
pub mod tiers;
pub mod trace;
pub mod units;
