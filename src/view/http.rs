//! HTTP as a page for operators needs it: heads of requests in, whole answers or streams of events out, one request a connection.
//!
//! Whoever connects can cost no more than this: [`MOST_CONNECTIONS`] threads with small stacks, [`HEAD_BYTES`] of a request, [`PATIENCE`]
//! for all of its head, and as long again for each piece of an answer. Others wait in the system's queue meanwhile. A connection that is
//! slow keeps its own thread busy and nobody else. Knows nothing of pools: what is answered is a [`Service`]'s business.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::tier::pass;

/// Connections at a time.
const MOST_CONNECTIONS: usize = 128;
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 8 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// How long the head of a request may take to come, and each piece of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long without an event a line goes out that means nothing, so that both sides see whether the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How often a stream without events looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(100);
/// What is still to come of a request that was answered early is read for so long, so that the answer arrives.
const LINGER: Duration = Duration::from_millis(500);
const STACK: usize = 256 * 1024;

/// Who answers.
pub(super) trait Service: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Answer;
}

/// The head of a request, as far as it matters.
pub(super) struct Request {
    pub(super) method: String,
    /// Without what follows a question mark.
    pub(super) path: String,
    pub(super) host: Option<String>,
    /// What kinds of answers the client takes.
    pub(super) accept: Option<String>,
}

pub(super) enum Answer {
    Whole(Response),
    /// The head, and what follows it until the client goes.
    Events(Response, Box<dyn Events>),
}

/// Where the events of a stream come from.
pub(super) trait Events: Send {
    /// The next, as it goes over the wire; waits for it, at most for `patience`.
    fn next(&mut self, patience: Duration) -> Option<Arc<str>>;
}

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// Beside those that every answer has.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Arc<str>,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Arc<str>>) -> Self {
        Response { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// A sentence for whoever asked.
    pub(super) fn text(status: u16, text: &str) -> Self {
        Response::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Nothing here may be stored, guessed at, framed, or read by pages from elsewhere.
    fn head(&self, length: Option<usize>) -> String {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            self.content_type
        );
        if !self.headers.iter().any(|(name, _)| *name == "Content-Security-Policy") {
            head += "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(length) = length {
            head += &format!("Content-Length: {length}\r\n");
        }
        head + "\r\n"
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// Answers at an address, on threads of its own. Dropped, it ends all connections, and returns when they have ended.
pub(super) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Those before it was started: a child has another number.
    forks: u64,
}

#[derive(Default)]
struct Shared {
    open: Mutex<Open>,
    /// One has ended, or all shall.
    changed: Condvar,
}

/// The connections that there are.
#[derive(Default)]
struct Open {
    is_over: bool,
    last: u64,
    streams: HashMap<u64, TcpStream>,
}

impl Listener {
    /// Begins to answer at where `listener` listens.
    pub(super) fn start(listener: TcpListener, service: impl Service) -> io::Result<Listener> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let accept = move || theirs.accept(&listener, &service);
        let thread = thread::Builder::new().name("tierpool-serve".to_owned()).stack_size(STACK).spawn(accept)?;
        Ok(Listener { address, shared, thread: Some(thread), forks: pass::forks() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.forks != pass::forks() {
            // The thread is the parent's, and so are the connections.
            std::mem::forget(self.thread.take());
            return;
        }
        {
            let mut open = self.shared.open();
            open.is_over = true;
            // One that has gone already needs no telling.
            open.streams.values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
        self.shared.changed.notify_all();
        // Whoever waits for a connection gets one. If there is no room for it, it has one.
        let mut own = self.address;
        if own.ip().is_unspecified() {
            let loopback = |v4| if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
            own.set_ip(loopback(own.is_ipv4()));
        }
        // If even that cannot be had, of files that are left or of an address that has gone, the thread ends with the next who comes.
        let is_told = TcpStream::connect_timeout(&own, Duration::from_secs(1)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_told) {
            // A panic has been told on its thread.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.open().is_over
    }

    /// Until all is over: a thread for each connection, and none for those that are too many.
    fn accept(&self, listener: &TcpListener, service: &impl Service) {
        thread::scope(|scope| {
            loop {
                let full = |open: &mut Open| open.streams.len() >= MOST_CONNECTIONS && !open.is_over;
                drop(self.changed.wait_while(self.open(), full).unwrap_or_else(PoisonError::into_inner));
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(_) if self.is_over() => return,
                    Err(_) => {
                        // Of one connection, or too few files are left: it must not become a busy loop.
                        thread::sleep(PAUSE);
                        continue;
                    }
                };
                let Some(connection) = Connection::open(self, &stream) else {
                    if self.is_over() {
                        return;
                    }
                    continue;
                };
                let serve = move || connection.serve(stream, service);
                // Without a thread the connection is closed, which the client sees.
                let builder = thread::Builder::new().name("tierpool-http".to_owned()).stack_size(STACK);
                drop(builder.spawn_scoped(scope, serve));
            }
        });
    }
}

/// One of those that are open, until it is dropped.
struct Connection<'s> {
    shared: &'s Shared,
    number: u64,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.shared.open().streams.remove(&self.number);
        self.shared.changed.notify_all();
    }
}

impl<'s> Connection<'s> {
    /// `None` if all is over, or too few files are left.
    fn open(shared: &'s Shared, stream: &TcpStream) -> Option<Self> {
        let same = stream.try_clone().ok()?;
        let mut open = shared.open();
        if open.is_over {
            return None;
        }
        open.last += 1;
        let number = open.last;
        open.streams.insert(number, same);
        Some(Connection { shared, number })
    }

    fn serve(self, mut stream: TcpStream, service: &impl Service) {
        // An error is the client's, who has gone or takes nothing: there is nobody to tell.
        if self.exchange(&mut stream, service).is_ok() {
            drop(stream.shutdown(Shutdown::Write));
            linger(&mut stream);
        }
    }

    fn exchange(&self, stream: &mut TcpStream, service: &impl Service) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (answer, wants_body) = match read_head(stream)? {
            Ok(request) => (service.answer(&request), request.method != "HEAD"),
            Err(refusal) => (Answer::Whole(refusal), true),
        };
        match answer {
            Answer::Whole(response) => {
                let mut out = response.head(Some(response.body.len())).into_bytes();
                if wants_body {
                    out.extend_from_slice(response.body.as_bytes());
                }
                write(stream, &out)
            }
            Answer::Events(response, mut events) => {
                write(stream, response.head(None).as_bytes())?;
                let mut last = Instant::now();
                while wants_body && !self.shared.is_over() {
                    if let Some(event) = events.next(PAUSE) {
                        write(stream, event.as_bytes())?;
                        last = Instant::now();
                    } else if last.elapsed() >= KEEP_ALIVE {
                        write(stream, b": nothing new\n\n")?;
                        last = Instant::now();
                    }
                }
                Ok(())
            }
        }
    }
}

/// The head of a request, or what is to be said of one that is none. An error if the client has gone.
fn read_head(stream: &mut TcpStream) -> io::Result<Result<Request, Response>> {
    let refuse = |status, text: &str| Ok(Err(Response::text(status, text)));
    let end = Instant::now() + PATIENCE;
    let mut bytes = vec![0; HEAD_BYTES];
    let mut filled = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return refuse(408, "the head of the request took too long");
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if is_over_time(&error) || error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(&bytes[..filled]) {
            Ok(httparse::Status::Complete(_)) => return Ok(understand(&head)),
            Ok(httparse::Status::Partial) if filled == HEAD_BYTES => {
                return refuse(431, "the head of the request is longer than 8 KiB");
            }
            Ok(httparse::Status::Partial) => {}
            Err(httparse::Error::TooManyHeaders) => return refuse(431, "the request has more than 64 header lines"),
            Err(error) => return refuse(400, &format!("this is no HTTP request: {error}")),
        }
    }
}

fn understand(head: &httparse::Request<'_, '_>) -> Result<Request, Response> {
    let refuse = |text| Err(Response::text(400, text));
    let mut hosts = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Some(1) => return refuse("the request has no Host header"),
        (_, Some(_)) => return refuse("the request has more than one Host header"),
        (host, None) => host.map(|host| str::from_utf8(host.value).map(|host| host.trim().to_owned())).transpose(),
    };
    let Ok(host) = host else { return refuse("the Host header is no text") };
    let target = head.path.unwrap_or_default();
    if !target.starts_with('/') {
        return refuse("the request's target does not begin with a slash; this is no proxy");
    }
    let accept = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept = accept.and_then(|header| str::from_utf8(header.value).ok()).map(str::to_owned);
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Request { method: head.method.unwrap_or_default().to_owned(), path, host, accept })
}

fn is_over_time(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Writes all of it within [`PATIENCE`], however small the pieces are that the client takes.
fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what the client still sends, for a moment: closed with something unread, the connection would be reset, and the answer lost.
fn linger(stream: &mut TcpStream) {
    let end = Instant::now() + LINGER;
    let mut rest = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut rest) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
