//! The pool: connections that are made when wanted, examined before use, replaced when old or broken.

use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, iter};

use postgres::error::Severity;
use postgres::{Client, Config, NoTls};
use tierpool::{BuildError, Reclaimer, Report, Tier};

/// A connection, and when it was last known to be good.
pub struct Connection {
    client: Client,
    proven: Instant,
}

/// How the pool treats its connections. The defaults suit a service next to its database.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Connections at most.
    pub most: usize,
    /// A connection that was unused for so long is asked whether it still works before it is handed out; one used
    /// more recently is taken to be good, since a round trip costs more than all else that the pool does.
    pub trust: Duration,
    /// No connection becomes older than that: servers leak, proxies forget, and a fail-over should not take for ever
    /// to reach everybody.
    pub max_age: Duration,
    /// Unused connections are closed after so long, all but one.
    pub idle_timeout: Duration,
    /// The first and the longest pause between attempts while the server cannot be reached.
    pub pauses: (Duration, Duration),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            most: 8,
            trust: Duration::from_secs(1),
            max_age: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(5 * 60),
            pauses: (Duration::from_millis(50), Duration::from_secs(2)),
        }
    }
}

/// How long a connection may take to say that it works.
const PING: Duration = Duration::from_secs(1);

/// A pool of connections to the server in `config`, with one of them made: a wrong address or password is found here.
///
/// # Errors
/// [`BuildError::Factory`], with what the server or the system said.
pub fn open(
    config: Config,
    rules: Rules,
    on_report: impl Fn(&Report) + Send + Sync + 'static,
) -> Result<Tier<Connection>, BuildError> {
    Tier::builder("postgres")
        .capacity(rules.most)
        .min_capacity(1)
        .idle_timeout(rules.idle_timeout)
        .max_age(rules.max_age)
        .validate_on_allocate(move |connection: &mut Connection| connection.is_good(rules.trust))
        .rebuild_backoff(rules.pauses.0, rules.pauses.1)
        .leak_after(Duration::from_secs(60))
        .on_report(on_report)
        .reclaimer(Reclaimer::Background)
        .try_build_with(move || Connection::open(&config).map_err(|error| explain(&error)))
}

/// An error with all its causes, for people: this library's own text is "db error".
pub fn explain(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

static OPENED: AtomicU64 = AtomicU64::new(0);

/// Connections that this process has opened so far.
pub fn opened() -> u64 {
    OPENED.load(Ordering::Relaxed)
}

impl Connection {
    fn open(config: &Config) -> Result<Self, postgres::Error> {
        let client = config.connect(NoTls)?;
        OPENED.fetch_add(1, Ordering::Relaxed);
        Ok(Self { client, proven: Instant::now() })
    }

    fn is_good(&mut self, trust: Duration) -> bool {
        if self.client.is_closed() {
            return false;
        }
        if self.proven.elapsed() < trust {
            return true;
        }
        let good = self.client.is_valid(PING).is_ok();
        self.prove();
        good
    }

    /// The connection has just worked.
    pub fn prove(&mut self) {
        self.proven = Instant::now();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("proven", &self.proven).finish_non_exhaustive()
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Whether a connection is of no use after this error. One that the server called an error of the statement (a
/// constraint, a deadlock) leaves it as good as it was; all else ends it: "fatal" answers, a broken socket, nonsense.
pub fn ends_connection(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(|error| error.parsed_severity());
    severity != Some(Severity::Error)
}
