//! A small HTTP server for operators: a page, the same as JSON and as a stream of events, health for whoever starts and stops the program, and
//! metrics. Read-only: nothing that is asked changes a pool.
//!
//! It listens on this machine only, unless told otherwise, and there it answers nobody who was sent by a name of elsewhere (a page in the
//! operator's browser whose name was made to point here). What comes from the program, names and tags and paths, is data everywhere: JSON
//! on the wire, text on the page, under a policy that runs no script but the page's own.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "prometheus")]
use super::exposition::{Exporter, TextFormat};
use super::http::{Answer, Events, Listener, Request, Response, Service};
use super::json;
use crate::host::health::HealthMonitor;
use crate::pool::observe::Observer;

const PAGE: &str = include_str!("page.html");
/// Where the page has room for the word that the policy names.
const NONCE: &str = "%NONCE%";
/// Streams of events at a time.
const MOST_STREAMS: usize = 32;
/// A view that is older is made again, though no pool was looked at meanwhile: health may have changed.
const FRESH: Duration = Duration::from_secs(1);

/// Serves what observers see: a page, JSON, health and metrics.
///
/// | path | what |
/// |---|---|
/// | `/` | the page; it needs nothing from elsewhere |
/// | `/pools` | all of it as JSON |
/// | `/events` | the same again at each look, as server-sent events; at most 32 streams |
/// | `/health/live` | 200, or 503 if the [monitor](ServerBuilder::health) is not [live](HealthMonitor::is_live): restart |
/// | `/health/ready` | 200, or 503 if nothing should be sent here |
/// | `/metrics` | for Prometheus, with the feature `prometheus` |
///
/// Answers GET and HEAD. Dropped, it ends its connections and threads. Keeps no pool open. Whoever connects costs a thread while he does, of at
/// most 128; the pools he costs nothing. In the child of a fork, build another.
///
/// ```
/// use tierpool::{Pool, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().memory("packets", 2048, 64).build()?;
/// let server = Server::builder().observer(&pool.observe("gateway")?).address("127.0.0.1:0").build()?;
/// println!("http://{}/", server.address());
/// # Ok(()) }
/// ```
pub struct Server {
    listener: Listener,
}

/// What a [`Server`] shall serve, and where; [`Server::builder`] starts one.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ServerBuilder {
    observers: Vec<Observer>,
    monitor: Option<HealthMonitor>,
    address: String,
    is_for_others: bool,
    #[cfg(feature = "prometheus")]
    exporter: Option<Exporter>,
}

/// Why a server was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is nothing to show.
    #[error("the server has no observer; give it one of `Pool::observe`")]
    NothingToShow,
    /// The address means nothing.
    #[error(
        "address {address:?}: {source}; give an address and a port, such as 127.0.0.1:9090, or port 0 for any that is free"
    )]
    Address {
        /// What was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The address can be reached from other machines, which nobody has asked for.
    #[error(
        "address {address}: other machines may reach it, and whoever does may see all; give 127.0.0.1, or say `reachable_from_elsewhere`"
    )]
    NotLoopback {
        /// What was given.
        address: SocketAddr,
    },
    /// The system does not let the process listen there.
    #[error("address {address}: cannot listen there: {source}; {}", what_to_do(source.kind()))]
    Listen {
        /// What was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

fn what_to_do(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "another program does; give another port, or 0 for any that is free",
        io::ErrorKind::PermissionDenied => "give a port from 1024, or 0 for any that is free",
        io::ErrorKind::AddrNotAvailable => "this machine does not have it; give one that it has",
        _ => "give another address",
    }
}

impl ServerBuilder {
    /// A pool to show, as this observer sees it. May be said again: all are shown, in this order.
    pub fn observer(mut self, observer: &Observer) -> Self {
        self.observers.push(observer.clone());
        self
    }

    /// Whose judgement `/health/live` and `/health/ready` go by. Default: nobody's; then a pool that is closed or gone is not ready.
    pub fn health(mut self, monitor: &HealthMonitor) -> Self {
        self.monitor = Some(monitor.clone());
        self
    }

    /// Where to listen: an address or a name, and a port; 0 is any that is free. Default: `127.0.0.1:0`.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// The address may be one that other machines reach. There is neither encryption nor a password: whoever can connect can read names, lines of
    /// source and figures. Default: it may not.
    pub fn reachable_from_elsewhere(mut self) -> Self {
        self.is_for_others = true;
        self
    }

    /// What `/metrics` shows. Default: all observers and the monitor of this server, with the exporter's own defaults. Needs the feature
    /// `prometheus`.
    #[cfg(feature = "prometheus")]
    pub fn exporter(mut self, exporter: &Exporter) -> Self {
        self.exporter = Some(exporter.clone());
        self
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// [`ServeError`]; nothing listens then.
    pub fn build(self) -> Result<Server, ServeError> {
        if self.observers.is_empty() {
            return Err(ServeError::NothingToShow);
        }
        #[cfg(feature = "prometheus")]
        let exporter = self.exporter.unwrap_or_else(|| {
            let exporter = Exporter::new();
            self.observers.iter().for_each(|observer| exporter.add(observer));
            self.monitor.iter().for_each(|monitor| exporter.watch(monitor));
            exporter
        });
        let ServerBuilder { observers, monitor, address, is_for_others, .. } = self;
        let wrong = |source| ServeError::Address { address: address.clone(), source };
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(wrong)?.collect();
        if let Some(&elsewhere) = addresses.iter().find(|at| !at.ip().to_canonical().is_loopback() && !is_for_others) {
            return Err(ServeError::NotLoopback { address: elsewhere });
        }
        let refused = |source| ServeError::Listen { address: address.clone(), source };
        let socket = TcpListener::bind(&addresses[..]).map_err(refused)?;
        let is_loopback = socket.local_addr().map_err(refused)?.ip().to_canonical().is_loopback();
        let views = Arc::new(Views { observers, monitor, last: Mutex::new(None), streams: AtomicUsize::new(0) });
        let site = Site {
            views,
            is_loopback,
            #[cfg(feature = "prometheus")]
            exporter,
        };
        Ok(Server { listener: Listener::start(socket, site).map_err(refused)? })
    }
}

impl Server {
    /// Begins a server.
    pub fn builder() -> ServerBuilder {
        let address = "127.0.0.1:0".to_owned();
        ServerBuilder {
            observers: Vec::new(),
            monitor: None,
            address,
            is_for_others: false,
            #[cfg(feature = "prometheus")]
            exporter: None,
        }
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

/// What is where.
struct Site {
    views: Arc<Views>,
    /// Only this machine can connect: names of elsewhere are a trick.
    is_loopback: bool,
    #[cfg(feature = "prometheus")]
    exporter: Exporter,
}

/// What the observers see, made once for however many ask.
struct Views {
    observers: Vec<Observer>,
    monitor: Option<HealthMonitor>,
    last: Mutex<Option<Arc<View>>>,
    /// Streams that there are.
    streams: AtomicUsize,
}

/// What the observers saw at some time.
struct View {
    number: u64,
    made: Instant,
    /// The numbers of their looks, and whether the pools were gone.
    of: Vec<(u64, bool)>,
    json: Arc<str>,
}

impl Views {
    /// The latest; made anew if there was a look since, or if it has become old.
    fn latest(&self) -> Arc<View> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let of: Vec<_> = self.observers.iter().map(|it| (it.latest().number, it.is_gone())).collect();
        if let Some(view) = last.as_ref().filter(|view| view.of == of && view.made.elapsed() < FRESH) {
            return Arc::clone(view);
        }
        let number = last.as_ref().map_or(1, |view| view.number + 1);
        let json = json::of(&self.observers, self.monitor.as_ref(), number).into();
        let view = Arc::new(View { number, made: Instant::now(), of, json });
        *last = Some(Arc::clone(&view));
        view
    }

    /// Waits for a later look than those of `view`, at most for `patience`: the first pool's, since all are looked at in one go.
    fn wait_for_later(&self, view: &View, patience: Duration) {
        if let (Some(observer), Some(&(number, _))) = (self.observers.first(), view.of.first()) {
            observer.wait_for_later(number, patience);
        }
    }

    fn is_ready(&self) -> bool {
        let serves = |it: &Observer| !it.is_gone() && it.latest().status.tiers.iter().any(|tier| !tier.snapshot.closed);
        match &self.monitor {
            Some(monitor) => monitor.is_ready(),
            None => self.observers.iter().all(serves),
        }
    }

    fn health(&self) -> String {
        self.monitor.as_ref().map_or("unknown".to_owned(), |monitor| monitor.health().to_string())
    }
}

/// A stream of views.
struct Stream {
    views: Arc<Views>,
    sent: Option<Arc<View>>,
}

impl Stream {
    /// `None` if there are too many.
    fn open(views: &Arc<Views>) -> Option<Self> {
        let one_more = |streams| (streams < MOST_STREAMS).then_some(streams + 1);
        // Relaxed: a lone number.
        views.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Stream { views: Arc::clone(views), sent: None })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.views.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Events for Stream {
    fn next(&mut self, patience: Duration) -> Option<Arc<str>> {
        let before = self.sent.as_ref().map(|view| view.number);
        if let Some(view) = &self.sent {
            self.views.wait_for_later(view, patience);
        }
        let view = self.views.latest();
        self.sent = Some(Arc::clone(&view));
        // One line, since JSON has no other breaks: they are escaped in its strings.
        (before != Some(view.number)).then(|| format!("id: {}\ndata: {}\n\n", view.number, view.json).into())
    }
}

impl Service for Site {
    fn answer(&self, request: &Request) -> Answer {
        if self.is_loopback && !request.host.as_deref().is_none_or(is_of_here) {
            let text = "this server is for this machine only: ask for it by a loopback name or by its address";
            return Answer::Whole(Response::text(403, text));
        }
        let response = match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/events") => return self.events(),
            ("GET" | "HEAD", path) => self.page(path, request.accept.as_deref().unwrap_or_default()),
            _ => Response::text(405, "only GET and HEAD: nothing can be changed from here").with("Allow", "GET, HEAD"),
        };
        Answer::Whole(response)
    }
}

impl Site {
    fn page(&self, path: &str, accept: &str) -> Response {
        match path {
            "/" => page(),
            "/pools" => json(200, Arc::clone(&self.views.latest().json)),
            "/health/live" => {
                let is_live = self.views.monitor.as_ref().is_none_or(HealthMonitor::is_live);
                json(if is_live { 200 } else { 503 }, format!("{{\"live\":{is_live}}}"))
            }
            "/health/ready" => {
                let is_ready = self.views.is_ready();
                let text = format!("{{\"ready\":{is_ready},\"health\":\"{}\"}}", self.views.health());
                json(if is_ready { 200 } else { 503 }, text)
            }
            "/metrics" => self.metrics(accept),
            _ => Response::text(
                404,
                "nothing is here; there are /, /pools, /events, /metrics, /health/live and /health/ready",
            ),
        }
    }

    #[cfg(feature = "prometheus")]
    fn metrics(&self, accept: &str) -> Response {
        let format = TextFormat::for_accept(accept);
        Response::new(200, format.content_type(), self.exporter.text(format))
    }

    #[cfg(not(feature = "prometheus"))]
    fn metrics(&self, _accept: &str) -> Response {
        Response::text(404, "metrics need tierpool's feature `prometheus`, which this program was built without")
    }

    fn events(&self) -> Answer {
        match Stream::open(&self.views) {
            Some(stream) => Answer::Events(Response::new(200, "text/event-stream", ""), Box::new(stream)),
            None => {
                let text = format!("{MOST_STREAMS} streams are open, which is the most; ask again, or for /pools");
                Answer::Whole(Response::text(503, &text).with("Retry-After", "5"))
            }
        }
    }
}

fn json(status: u16, body: impl Into<Arc<str>>) -> Response {
    Response::new(status, "application/json", body)
}

/// The page, with a word that nobody can guess at its script and its style: no other is run.
fn page() -> Response {
    let random = || RandomState::new().hash_one(PAGE);
    let nonce = format!("{:016x}{:016x}", random(), random());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Response::new(200, "text/html; charset=utf-8", PAGE.replace(NONCE, &nonce)).with("Content-Security-Policy", policy)
}

/// Whether a Host header names this machine as nobody else can: by a loopback name, or by an address. The names of others may be made to
/// point here.
fn is_of_here(host: &str) -> bool {
    // The port is what follows the last colon, outside of the brackets of an address of version 6.
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("observers", &self.observers)
            .field("health", &self.monitor)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
