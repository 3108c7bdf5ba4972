//! Pools whose users wait, each in its usual form. The asynchronous ones are blocked on by parking the thread, with a waker
//! made once a thread: the cheapest executor that there can be.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ::deadpool::unmanaged::{Object, Pool};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::subject::{Kind, Waits};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static WAKER: OnceCell<Waker> = const { OnceCell::new() };
    }
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let waker = waker.get_or_init(|| Waker::from(Arc::new(Unpark(thread::current()))));
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            thread::park();
        }
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// deadpool's unmanaged pool.
pub struct Deadpool(Pool<u64>);

impl Waits for Deadpool {
    const NAME: &'static str = "deadpool";
    const KIND: Kind = Kind::Pool;

    type Held<'a> = Object<u64>;

    fn build(slots: usize) -> Self {
        Self(Pool::from(vec![0; slots]))
    }

    fn allocate(&self) -> Self::Held<'_> {
        block_on(self.0.get()).expect("an open pool")
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        held
    }

    fn release(&self, held: Self::Held<'_>) {
        drop(held);
    }
}

/// tokio's semaphore, and the values behind a mutex.
pub struct TokioSemaphore {
    semaphore: Semaphore,
    values: Mutex<Vec<u64>>,
}

impl Waits for TokioSemaphore {
    const NAME: &'static str = "tokio-semaphore";
    const KIND: Kind = Kind::Pool;

    type Held<'a> = (u64, SemaphorePermit<'a>);

    fn build(slots: usize) -> Self {
        Self { semaphore: Semaphore::new(slots), values: Mutex::new(vec![0; slots]) }
    }

    fn allocate(&self) -> Self::Held<'_> {
        let permit = block_on(self.semaphore.acquire()).expect("an open semaphore");
        (locked(&self.values).pop().expect("a value for each permit"), permit)
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        &mut held.0
    }

    fn release(&self, (value, permit): Self::Held<'_>) {
        locked(&self.values).push(value);
        drop(permit);
    }
}

/// A vector behind a mutex, and a condition variable: what one writes oneself.
pub struct MutexCondvar {
    values: Mutex<Vec<u64>>,
    released: Condvar,
}

impl Waits for MutexCondvar {
    const NAME: &'static str = "mutex-condvar";
    const KIND: Kind = Kind::Pool;

    type Held<'a> = u64;

    fn build(slots: usize) -> Self {
        Self { values: Mutex::new(vec![0; slots]), released: Condvar::new() }
    }

    fn allocate(&self) -> Self::Held<'_> {
        let mut values = locked(&self.values);
        loop {
            if let Some(value) = values.pop() {
                return value;
            }
            values = self.released.wait(values).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        held
    }

    fn release(&self, held: Self::Held<'_>) {
        locked(&self.values).push(held);
        self.released.notify_one();
    }
}
