//! A small service: threads that move money between accounts, each transfer in a transaction on a connection of the pool.
//! Whatever happens to the connections, the balances add up to nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use tierpool::{AllocateError, Tier};

use crate::pool::{Connection, ends_connection};

/// Accounts of the ledger.
const ACCOUNTS: i32 = 100;

/// Why a transfer was not made.
#[derive(Debug)]
pub enum Failure {
    /// There was no connection to be had in time.
    NoConnection(AllocateError),
    /// The connection failed. Whether the transfer was made, nobody can say; the pool has a new connection, or will.
    Lost(postgres::Error),
    /// The server refused the statement; the connection is as good as it was.
    Refused(postgres::Error),
}

/// How one transfer went, and how long it took.
pub type Outcome = (Result<(), Failure>, Duration);

/// Makes the ledger, empty.
///
/// # Errors
/// As those of a transfer.
pub fn create(tier: &Tier<Connection>, patience: Duration) -> Result<(), Failure> {
    with_connection(tier, patience, |connection| {
        connection.batch_execute(&format!(
            "DROP TABLE IF EXISTS account;
             CREATE TABLE account (number int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
             INSERT INTO account SELECT generate_series(0, {ACCOUNTS} - 1);"
        ))
    })
}

/// What all accounts add up to.
///
/// # Errors
/// As those of a transfer.
pub fn sum(tier: &Tier<Connection>, patience: Duration) -> Result<i64, Failure> {
    with_connection(tier, patience, |connection| {
        Ok(connection.query_one("SELECT sum(balance)::bigint FROM account", &[])?.get(0))
    })
}

/// Moves money from one account to another.
///
/// # Errors
/// [`Failure`]; the caller decides whether to try again.
pub fn transfer(tier: &Tier<Connection>, patience: Duration, from: i32, to: i32) -> Result<(), Failure> {
    const MOVE: &str = "UPDATE account SET balance = balance + $2 WHERE number = $1";
    let mut steps = [(from, -1_i64), (to, 1)];
    steps.sort_unstable(); // the same order for all, so that no two wait for each other's row
    with_connection(tier, patience, |connection| {
        let mut transaction = connection.transaction()?;
        for (account, amount) in steps {
            transaction.execute(MOVE, &[&account, &amount])?;
        }
        transaction.commit()
    })
}

/// Does `work` on a connection. One that fails is discarded, so that nobody else gets it.
fn with_connection<R>(
    tier: &Tier<Connection>,
    patience: Duration,
    work: impl FnOnce(&mut Connection) -> Result<R, postgres::Error>,
) -> Result<R, Failure> {
    let mut connection = tier.allocate_timeout(patience).map_err(Failure::NoConnection)?;
    match work(&mut connection) {
        Ok(result) => {
            connection.prove();
            Ok(result)
        }
        Err(error) if ends_connection(&error) => {
            connection.discard();
            Err(Failure::Lost(error))
        }
        Err(error) => Err(Failure::Refused(error)),
    }
}

/// Starts `threads` that transfer until `over`, and tell how each went.
pub fn work<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (tier, patience): (&'scope Tier<Connection>, Duration),
    threads: i32,
    over: &'scope AtomicBool,
    outcomes: &Sender<Outcome>,
) {
    for thread in 0..threads {
        let outcomes = outcomes.clone();
        let work = move || {
            for number in 0.. {
                let (from, to) = ((thread * 37 + number) % ACCOUNTS, (number * 7 + 1) % ACCOUNTS);
                let start = Instant::now();
                let outcome = transfer(tier, patience, from, to);
                if outcome.is_err() {
                    thread::sleep(Duration::from_millis(1)); // a client that goes away for a moment
                }
                if over.load(Ordering::Relaxed) || outcomes.send((outcome, start.elapsed())).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(format!("worker-{thread}")).spawn_scoped(scope, work).expect("a thread");
    }
}
