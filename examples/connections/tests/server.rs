//! The pool against a real server that misbehaves. Without PostgreSQL these tests say that they were skipped; with
//! `TIERPOOL_REQUIRE_SERVER` in the environment, as in CI, they fail.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use connections::ledger::{self, Failure};
use connections::pool::{self, Connection, Rules, ends_connection};
use connections::server::{Server, USER};
use tierpool::{AllocateError, Pool, Report, Resource, ResourcePool, ResourceRequest, Tier};

const PATIENCE: Duration = Duration::from_millis(500);

/// Connections of each pool.
const MOST: usize = 4;

const RULES: Rules = Rules {
    most: MOST,
    trust: Duration::ZERO, // every one is asked before use
    max_age: Duration::from_secs(3600),
    idle_timeout: Duration::from_secs(3600),
    pauses: (Duration::from_millis(20), Duration::from_millis(200)),
};

#[test]
fn nobody_gets_a_connection_that_died_while_it_was_free() {
    let Some(server) = server() else { return };
    let tier = open(&server, RULES);
    let first = use_all(&tier);
    assert_eq!(server.backends().unwrap(), first);

    assert_eq!(server.kill_backends().unwrap(), MOST);
    let second = use_all(&tier);
    assert!(first.iter().all(|pid| !second.contains(pid)), "{first:?} and {second:?}");
    assert_eq!(server.backends().unwrap(), second);
}

#[test]
fn a_connection_that_dies_in_use_is_discarded_and_a_refused_statement_costs_none() {
    let Some(server) = server() else { return };
    let tier = open(&server, RULES);

    let mut connection = tier.allocate_timeout(PATIENCE).unwrap();
    let refused = connection.batch_execute("SELECT 1 / 0").unwrap_err();
    assert!(!ends_connection(&refused), "{refused:?}");
    let pid = pid(&mut connection);
    server.kill_backends().unwrap();
    let lost = connection.batch_execute("SELECT 1").unwrap_err();
    assert!(ends_connection(&lost), "{lost:?}");
    connection.discard();

    let mut connection = tier.try_allocate().expect("the connection that was made in its place");
    assert_ne!(self::pid(&mut connection), pid);
}

#[test]
fn service_goes_on_with_what_the_server_allows_and_recovers_by_itself() {
    let Some(server) = server() else { return };
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let tier = pool::open(server.config(), RULES, move |report| sink.lock().unwrap().push(report.to_string())).unwrap();
    assert_eq!(use_all(&tier).len(), MOST);

    // Degraded: two of four.
    server.sql(&format!("ALTER ROLE {USER} CONNECTION LIMIT 2")).unwrap();
    server.kill_backends().unwrap();
    let mut held: Vec<_> = (0..2).map(|_| tier.allocate_timeout(PATIENCE).expect("one of two")).collect();
    held.iter_mut().for_each(|connection| _ = pid(connection));
    // The reclaimer tries again and again, and has one of them in hand while it does.
    until("two are out of service", || {
        let AllocateError::Exhausted(why) = tier.try_allocate().unwrap_err() else { panic!("another error") };
        why.quarantined == 2
    });
    let start = Instant::now();
    let refusal = tier.allocate_timeout(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(refusal, AllocateError::TimedOut { .. }), "{refusal}");
    assert!(start.elapsed() < Duration::from_secs(2), "a refusal in time, after {:?}", start.elapsed());
    drop(held);
    server.sql(&format!("ALTER ROLE {USER} CONNECTION LIMIT -1")).unwrap();
    until("all connections are back", || tier.snapshot().free == MOST);
    assert_eq!(use_all(&tier).len(), MOST);

    // Gone altogether.
    server.stop().unwrap();
    until("the pool has noticed", || tier.allocate_timeout(Duration::from_millis(1)).is_err());
    assert_eq!(tier.snapshot().free, 0);
    until("the pool has tried again, and says so", || reports.lock().unwrap().len() > 3);
    // Somebody waits while the server comes back, and is served; nobody has to ask for it.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| tier.allocate_timeout(Duration::from_secs(30)).map(|mut lease| pid(&mut lease)));
        server.restart().unwrap();
        waiter.join().unwrap().expect("a connection, as soon as there is one");
    });
    until("all connections are back", || tier.snapshot().free == MOST);
    assert_eq!(use_all(&tier), server.backends().unwrap());
    let text = reports.lock().unwrap().join("\n");
    assert!(text.contains("next attempt in"), "{text}");
}

#[test]
fn no_connection_becomes_older_than_allowed() {
    let Some(server) = server() else { return };
    let tier = open(&server, Rules { max_age: Duration::from_millis(300), ..RULES });
    let first = use_all(&tier);
    until("the reclaimer has replaced all of them", || {
        server.backends().unwrap().iter().all(|pid| !first.contains(pid))
    });
}

#[test]
fn unused_connections_are_closed_all_but_one() {
    let Some(server) = server() else { return };
    let tier = open(&server, Rules { idle_timeout: Duration::from_millis(300), ..RULES });
    assert_eq!(use_all(&tier).len(), MOST);
    until("one is left", || server.backends().unwrap().len() == 1);
    assert_eq!(use_all(&tier).len(), MOST, "they come back when they are wanted");
}

#[test]
fn whatever_happens_to_the_connections_the_balances_add_up() {
    let Some(server) = server() else { return };
    let tier = open(&server, Rules { trust: Duration::from_millis(20), ..RULES });
    ledger::create(&tier, PATIENCE).unwrap();

    let over = AtomicBool::new(false);
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        ledger::work(scope, (&tier, PATIENCE), 6, &over, &sender);
        drop(sender);
        let enough = |what| {
            let start = Instant::now();
            let mut done = 0;
            while done < 100 {
                assert!(start.elapsed() < Duration::from_secs(30), "{what}: {done} transfers only");
                done += usize::from(outcomes.recv().unwrap().0.is_ok());
            }
            // What lies in the channel has happened before.
            outcomes.try_iter().filter(|(result, _)| matches!(result, Err(Failure::Lost(_)))).count()
        };
        enough("at first");
        server.kill_backends().unwrap();
        enough("after the connections were killed");
        server.stop().unwrap();
        thread::sleep(Duration::from_millis(100));
        server.restart().unwrap();
        enough("after the server's restart");
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(ledger::sum(&tier, PATIENCE).unwrap(), 0);
    until("all connections are back", || tier.snapshot().free == MOST);
}

/// Who knows no types gets connections through the same interface as memory and cores.
#[test]
fn a_pool_gives_connections_through_its_dynamic_interface() {
    let Some(server) = server() else { return };
    let pool = Pool::builder().memory("rows", 4096, 8).tier(open(&server, RULES)).build().unwrap();
    let dynamic: &dyn ResourcePool = &pool;
    let request = ResourceRequest::of("postgres").patience(PATIENCE);
    let Ok(Resource::Custom(mut lease)) = dynamic.allocate(&request) else { panic!("no value of the program's own") };
    let connection = lease.get_mut::<Connection>().expect("a connection");
    let first = pid(connection);
    dynamic.release(Resource::Custom(lease)).expect("it is the pool's");

    server.kill_backends().unwrap();
    let Ok(Resource::Custom(lease)) = dynamic.allocate(&request) else { panic!("none in place of the dead one") };
    let mut lease = lease.downcast::<Connection>().expect("a connection");
    assert_ne!(pid(&mut lease), first, "it was asked before it was handed out");
}

fn open(server: &Server, rules: Rules) -> Tier<Connection> {
    pool::open(server.config(), rules, |report: &Report| println!("{report}")).expect("a pool")
}

/// Holds all connections at once and uses each. Their numbers on the server's side, in order.
fn use_all(tier: &Tier<Connection>) -> Vec<i32> {
    let mut held: Vec<_> = (0..MOST).map(|_| tier.allocate_timeout(PATIENCE).expect("a connection")).collect();
    let mut pids: Vec<i32> = held.iter_mut().map(|connection| pid(connection)).collect();
    pids.sort_unstable();
    pids
}

fn pid(connection: &mut Connection) -> i32 {
    let pid = connection.query_one("SELECT pg_backend_pid()", &[]).expect("a connection that works").get(0);
    connection.prove();
    pid
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "not in 30 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn server() -> Option<Server> {
    let server = Server::start().expect("a server");
    if server.is_none() {
        let required = std::env::var_os("TIERPOOL_REQUIRE_SERVER").is_some();
        assert!(!required, "PostgreSQL is not installed, and TIERPOOL_REQUIRE_SERVER is set");
        // Past the capture of a test that passes.
        let test = thread::current();
        let name = test.name().unwrap_or("a test");
        _ = writeln!(
            std::io::stderr(),
            "SKIPPED {name}: PostgreSQL is not installed (Debian: apt-get install postgresql)"
        );
    }
    server
}
