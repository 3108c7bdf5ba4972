//! `bb8`: an asynchronous pool of connections, on the runtime that it needs for its clock. Threads block on it by the
//! runtime's own `block_on`. Nothing is checked on the way, so that it does no more than the others.

use std::convert::Infallible;
use std::time::Duration;

use ::bb8::{ManageConnection, Pool, PooledConnection};
use tokio::runtime::{Builder, Runtime};

use crate::subject::{Kind, Waits};

/// Makes "connections".
pub struct Numbers;

impl ManageConnection for Numbers {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(0)
    }

    async fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

/// A `bb8::Pool`, and a runtime of one worker.
pub struct Bb8 {
    pool: Pool<Numbers>,
    runtime: Runtime,
}

/// Nobody waits for as long.
const PATIENCE: Duration = Duration::from_secs(600);

impl Waits for Bb8 {
    const NAME: &'static str = "bb8";
    const KIND: Kind = Kind::Pool;

    type Held<'a> = PooledConnection<'a, Numbers>;

    fn build(slots: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        let size = u32::try_from(slots).expect("a small pool");
        let builder = Pool::builder().max_size(size).min_idle(size).test_on_check_out(false);
        let builder = builder.max_lifetime(None).idle_timeout(None).connection_timeout(PATIENCE);
        let pool = runtime.block_on(builder.build(Numbers)).unwrap_or_else(|never| match never {});
        Self { pool, runtime }
    }

    fn allocate(&self) -> Self::Held<'_> {
        self.runtime.block_on(self.pool.get()).expect("a connection in time")
    }

    fn value<'a>(held: &'a mut Self::Held<'_>) -> &'a mut u64 {
        held
    }

    fn release(&self, held: Self::Held<'_>) {
        drop(held);
    }
}
