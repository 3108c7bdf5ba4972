//! Waiting: a slot goes to whoever waited first, no wake-up and no slot is lost, and nobody who does not react stops others.
//!
//! In reading order: [`order`] (whose turn it is), [`handover`] (what a waiter gets), [`nothing_lost`], [`unresponsive`] (who
//! does not react), [`refusals`] (full, too late, closed), [`futures`] (executors and wakers).

#![cfg(not(loom))] // tokio has a loom of its own under that flag

#[path = "../common/mod.rs"]
pub mod common;

mod futures;
mod handover;
mod nothing_lost;
mod order;
mod refusals;
mod unresponsive;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use common::waiting::{Wakes, poll};
use tierpool::{Allocate, AllocateError, Lease, Tier};

fn tier(capacity: usize) -> Tier<u64> {
    Tier::builder("waited").capacity(capacity).build_with(|| 0).unwrap()
}

/// A future and the hand that polls it.
struct Task<'a, T: Send + 'static> {
    future: Pin<Box<Allocate<'a, T>>>,
    wakes: Arc<Wakes>,
}

impl<'a, T: Send + 'static> Task<'a, T> {
    #[track_caller]
    fn new(tier: &'a Tier<T>) -> Self {
        Task { future: Box::pin(tier.allocate_async()), wakes: Arc::default() }
    }

    /// One that waits already.
    #[track_caller]
    fn waiting(tier: &'a Tier<T>) -> Self {
        let mut task = Task::new(tier);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<Result<Lease<T>, AllocateError>> {
        poll(self.future.as_mut(), &self.wakes)
    }

    #[track_caller]
    fn take(&mut self) -> Lease<T> {
        match self.poll() {
            Poll::Ready(result) => result.expect("granted"),
            Poll::Pending => panic!("still pending"),
        }
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}
