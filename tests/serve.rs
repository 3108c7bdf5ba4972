//! What the server answers, to whoever asks properly and to whoever does not.
#![cfg(all(feature = "serve", not(loom)))]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tierpool::{
    Health, HealthMonitor, Limit, Observer, Pool, Request, ResourceDetector, ResourceIssue, ServeError, Server,
    Severity, TenantRules, Tier,
};

/// Longer than anything here takes, however slow the machine is.
const LONG: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    let frames: Tier<Vec<u8>> = Tier::builder("frames").capacity(4).build_with(Vec::new).unwrap();
    let md = TenantRules::new("md").hard(Limit::slots(5));
    Pool::builder().memory("packets", 2048, 8).memory("blocks", 65536, 2).tier(frames).tenant(md).build().unwrap()
}

/// A server of one pool, with what must outlive it.
struct Scene {
    pool: Pool,
    observer: Observer,
    server: Server,
}

impl Scene {
    fn new() -> Self {
        let pool = pool();
        let observer = pool.observe("gateway").unwrap();
        let server = Server::builder().observer(&observer).build().unwrap();
        Scene { pool, observer, server }
    }

    fn get(&self, path: &str) -> Answer {
        get(self.server.address(), path)
    }

    /// What `/pools` shows after a look.
    fn view(&self) -> Value {
        self.observer.look();
        self.get("/pools").json()
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// What came until the server closed the connection.
    fn read(mut stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(LONG))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    fn json(&self) -> Value {
        assert!(self.header("content-type").starts_with("application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, LONG).unwrap()
}

fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // The server may have answered before all is written.
    drop(stream.write_all(request));
    Answer::read(stream).unwrap()
}

fn request(method: &str, path: &str, host: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &request("GET", path, &address.to_string()))
}

/// The events of a stream, until `done` says of one that it is enough.
fn events(address: SocketAddr, mut done: impl FnMut(u64, &Value) -> bool) {
    let mut stream = connect(address);
    stream.write_all(&request("GET", "/events", "localhost")).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended: {text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
        while let Some((event, rest)) = text.split_once("\n\n").map(|(event, rest)| (event.to_owned(), rest.to_owned()))
        {
            text = rest;
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let (Some(id), Some(data)) = (field("id: "), field("data: ")) else { continue };
            if done(id.parse().unwrap(), &serde_json::from_str(data).unwrap()) {
                return;
            }
        }
    }
}

#[test]
fn pools_are_shown_and_their_numbers_add_up() {
    let scene = Scene::new();
    let packet = Request::memory(1500).tenant("md").tag("rx");
    let held: Vec<_> = (0..5).map(|_| scene.pool.try_allocate(packet).unwrap()).collect();
    let line = line!() - 1;
    assert!(scene.pool.try_allocate(packet).is_err(), "the quota");
    let view = scene.view();
    assert_eq!((&view["version"], &view["health"]), (&1.into(), &Value::Null));
    let pool = &view["pools"][0];
    assert_eq!((&pool["pool"], &pool["gone"]), (&"gateway".into(), &false.into()));
    let tiers = pool["tiers"].as_array().unwrap();
    assert_eq!(
        tiers.iter().map(|tier| tier["tier"].as_str().unwrap()).collect::<Vec<_>>(),
        ["packets", "blocks", "frames"]
    );
    for tier in tiers {
        let slots = tier["slots"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
        assert_eq!(slots, tier["capacity_slots"].as_u64().unwrap(), "{tier}");
    }
    let packets = &tiers[0];
    let now = scene.pool.monitor();
    assert_eq!(packets["held_slots"], now.tiers[0].held());
    assert_eq!(packets["allocations_total"], now.tiers[0].snapshot.allocations);
    assert_eq!(
        (&packets["held_slots"], &packets["slot_bytes"], &packets["denied_total"]),
        (&5.into(), &2048.into(), &1.into())
    );
    let tenant = &pool["tenants"][0];
    assert_eq!((&tenant["tenant"], &tenant["held_slots"], &tenant["hard_slots"]), (&"md".into(), &5.into(), &5.into()));
    assert_eq!(tenant["hard_bytes"], Value::Null, "what is not limited is null");
    let holders = pool["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 1);
    let site = format!("{}:{line}:", file!());
    assert!(holders[0]["site"].as_str().unwrap().starts_with(&site), "{} {site}", holders[0]);
    assert_eq!(
        (&holders[0]["held_slots"], &holders[0]["tag"], &holders[0]["tenant"]),
        (&5.into(), &"rx".into(), &"md".into())
    );
    drop(held);
    assert_eq!(scene.view()["pools"][0]["holders"].as_array().unwrap().len(), 0);
}

/// The names are a promise: a program that reads them must find them described, and what is described must be there.
#[test]
fn every_field_is_documented() {
    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                found.insert(name.clone());
                names(value, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    let view = full_view();
    let mut found = BTreeSet::new();
    names(&view, &mut found);
    let page = include_str!("../docs/live-view.md");
    let (_, rows) = page.split_once("\n## `/pools`\n").unwrap();
    let rows = rows.lines().take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<String> = rows
        .flat_map(|row| {
            row.split('|').next().unwrap().split('`').filter(|name| !name.trim_matches([',', ' ']).is_empty())
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(found, told);
}

/// A view that has one of everything.
fn full_view() -> Value {
    use tierpool::{Breaker, BreakerRules, MemoryTier, clock};

    let guarded = Tier::builder("guarded").capacity(1).build_with(|| 0_u32).unwrap();
    let factory = std::sync::Arc::new(Breaker::new(BreakerRules::default()).unwrap());
    let pool = Pool::builder()
        .memory_tier(MemoryTier::new("packets", 2048, 8).with(|tier| tier.leak_after(Duration::from_secs(1))))
        .tier(guarded)
        .breaker("guarded", BreakerRules::default())
        .factory_breaker("guarded", &factory)
        .tenant("md")
        .build()
        .unwrap();
    let held = pool.try_allocate(Request::memory(1500).tenant("md").tag("rx")).unwrap();
    for seconds in 1..4 {
        clock::tick_to(Instant::now() + Duration::from_secs(3 * seconds));
        pool.reclaim();
    }
    let (one, two) = (pool.session(), pool.session());
    let packets: Vec<_> = (0..7).map(|_| one.allocate(Request::memory(1500)).unwrap()).collect();
    let waiter = thread::spawn(move || drop(two.allocate_timeout(Request::memory(1500), LONG)));
    while pool.waits_for().edges().next().is_none() {
        thread::yield_now();
    }
    let observer = pool.observe("all").unwrap();
    let monitor = HealthMonitor::builder(ResourceDetector::new()).no_thresholds().build().unwrap();
    monitor.alert_resource_issue(ResourceIssue::new("venue", Severity::Degraded, "slow"));
    let server = Server::builder().observer(&observer).health(&monitor).build().unwrap();
    let view = get(server.address(), "/pools").json();
    drop((held, packets));
    waiter.join().unwrap();
    let pool = &view["pools"][0];
    for list in ["tiers", "tenants", "holders", "leaks", "session_waits"] {
        assert!(!pool[list].as_array().unwrap().is_empty(), "{list}: {view}");
    }
    view
}

#[test]
fn names_are_data_whatever_is_in_them() {
    let name = "a\"b<script>\n\u{2028}é";
    let tier: Tier<u8> = Tier::builder("<img src=x onerror=alert(1)>&'").capacity(2).build_with(|| 0).unwrap();
    let pool = Pool::builder().tier(tier.clone()).build().unwrap();
    let tag = "tag\"\n</script>";
    let _held = pool.try_allocate(Request::of::<u8>(tier.name()).tag(tag)).unwrap();
    let observer = pool.observe(name).unwrap();
    let server = Server::builder().observer(&observer).build().unwrap();
    let answer = get(server.address(), "/pools");
    assert!(!answer.body.contains('\n'), "one line, so that it is one event");
    let view = answer.json();
    assert_eq!(view["pools"][0]["pool"], name);
    assert_eq!(view["pools"][0]["tiers"][0]["tier"], tier.name());
    assert_eq!(view["pools"][0]["holders"][0]["tag"], tag);
    events(server.address(), |_, event| {
        assert_eq!(event["pools"][0]["pool"], name);
        true
    });
    assert!(!get(server.address(), "/").body.contains("onerror"), "the page itself has nothing of the program's");
}

#[test]
fn a_stream_has_later_looks() {
    let scene = Scene::new();
    let mut held = None;
    let mut last = (0, 0);
    events(scene.server.address(), |id, view| {
        let look = view["pools"][0]["look_number"].as_u64().unwrap();
        assert!((id, look) > last, "{id} {look} after {last:?}");
        last = (id, look);
        let is_held = view["pools"][0]["tiers"][0]["held_slots"] == 1;
        held.get_or_insert_with(|| scene.pool.try_allocate(Request::memory(1)).unwrap());
        is_held
    });
    assert!(last.0 > 1);
}

#[test]
fn streams_are_bounded_and_come_free_again() {
    let scene = Scene::new();
    let open = || {
        let mut stream = connect(scene.server.address());
        stream.write_all(&request("GET", "/events", "localhost")).unwrap();
        let mut head = [0; 12];
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.read_exact(&mut head).unwrap();
        (head, stream)
    };
    let streams: Vec<_> = (0..32).map(|_| open()).collect();
    assert!(streams.iter().all(|(head, _)| head == b"HTTP/1.1 200"));
    let answer = scene.get("/events");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert_eq!(scene.get("/pools").status, 200, "the rest goes on");
    drop(streams);
    let end = Instant::now() + LONG;
    while open().0 != *b"HTTP/1.1 200" {
        assert!(Instant::now() < end, "streams whose clients went are over");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn health_goes_by_the_monitor() {
    let pool = pool();
    let observer = pool.observe("gateway").unwrap();
    let monitor = HealthMonitor::builder(ResourceDetector::new()).no_thresholds().build().unwrap();
    let server = Server::builder().observer(&observer).health(&monitor).build().unwrap();
    let ask = |path| {
        let answer = get(server.address(), path);
        (answer.status, answer.json())
    };
    assert_eq!(ask("/health/live"), (200, serde_json::json!({ "live": true })));
    assert_eq!(ask("/health/ready"), (200, serde_json::json!({ "ready": true, "health": "healthy" })));
    let broken = ResourceIssue::new("venue", Severity::Unhealthy, "the venue \"does\" not answer");
    monitor.alert_resource_issue(broken.clone());
    assert_eq!(monitor.health(), Health::Unhealthy);
    assert_eq!(ask("/health/ready"), (503, serde_json::json!({ "ready": false, "health": "unhealthy" })));
    assert_eq!(ask("/health/live").0, 200, "it lives all the same");
    observer.look();
    let view = get(server.address(), "/pools").json();
    assert_eq!((&view["alerts"][0]["kind"], &view["alerts"][0]["severity"]), (&"health".into(), &"critical".into()));
    assert_eq!(view["health"]["issues"][0]["text"], broken.what);
    monitor.alert_resource_issue(broken.cleared());
    assert_eq!(ask("/health/ready").0, 200);
}

#[test]
fn without_a_monitor_a_pool_that_is_closed_or_gone_is_not_ready() {
    let scene = Scene::new();
    assert_eq!(scene.get("/health/ready").status, 200);
    scene.pool.close();
    let view = scene.view();
    assert_eq!(scene.get("/health/ready").status, 503);
    assert!(view["alerts"].as_array().unwrap().iter().any(|alert| alert["kind"] == "closed"));
    let Scene { pool, observer, server } = scene;
    drop(pool);
    assert!(observer.is_gone(), "the server keeps no pool open");
    let view = get(server.address(), "/pools").json();
    assert_eq!((&view["pools"][0]["gone"], &view["alerts"][0]["kind"]), (&true.into(), &"gone".into()));
    assert_eq!(get(server.address(), "/health/ready").status, 503);
}

#[test]
fn metrics_are_there_if_the_feature_is() {
    let scene = Scene::new();
    let answer = scene.get("/metrics");
    if cfg!(feature = "prometheus") {
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.contains("tierpool_slots{pool=\"gateway\",tier=\"packets\",state=\"free\"} 8"),
            "{}",
            answer.body
        );
    } else {
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("`prometheus`"), "{}", answer.body);
    }
}

#[test]
fn nothing_may_be_stored_framed_or_run_but_the_page_itself() {
    let scene = Scene::new();
    let page = scene.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "the script's and the style's");
    assert!(!page.body.contains("NONCE"));
    assert_ne!(policy, scene.get("/").header("content-security-policy"), "nobody can guess the next one");
    for elsewhere in ["src=\"http", "href=\"http", "url(", "@import", " style=\"", "innerHTML", "onclick"] {
        assert!(!page.body.contains(elsewhere), "{elsewhere}");
    }
    for path in ["/", "/pools", "/health/live", "/metrics", "/nowhere"] {
        let answer = scene.get(path);
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
    }
}

#[test]
fn head_has_no_body_and_other_methods_are_refused() {
    let scene = Scene::new();
    let address = scene.server.address();
    for path in ["/", "/pools", "/health/live", "/events"] {
        let answer = send(address, &request("HEAD", path, "localhost"));
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    let long = send(address, &request("HEAD", "/pools", "localhost"));
    assert!(long.header("content-length").parse::<usize>().unwrap() > 1000, "as long as it would be");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"] {
        let answer = send(address, &request(method, "/pools", "localhost"));
        assert_eq!((answer.status, answer.header("allow")), (405, "get, head"), "{method}");
    }
    for path in ["/nowhere", "/pools/", "/Pools", "/../pools", "/pools%00", "//", "/health"] {
        assert_eq!(scene.get(path).status, 404, "{path}");
    }
    assert_eq!(scene.get("/pools?now").status, 200);
}

#[test]
fn names_of_elsewhere_are_refused_on_loopback() {
    let scene = Scene::new();
    let address = scene.server.address();
    let ask = |host: &str| send(address, &request("GET", "/pools", host)).status;
    for host in
        ["localhost", "LOCALHOST:80", "localhost.", "app.localhost:9", "127.0.0.1:1", "[::1]:80", "[::1]", "10.1.2.3"]
    {
        assert_eq!(ask(host), 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:9600", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "[evil]"]
    {
        assert_eq!(ask(host), 403, "{host}");
    }
    assert_eq!(send(address, b"GET /pools HTTP/1.0\r\n\r\n").status, 200, "an old client names no host");
    assert_eq!(send(address, b"GET /pools HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(send(address, b"GET /pools HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").status, 400);
    assert_eq!(send(address, b"GET http://evil.example/pools HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 400);
}

#[test]
fn what_is_no_request_gets_a_clear_answer() {
    let scene = Scene::new();
    let address = scene.server.address();
    let long_line = [b"GET /".as_slice(), &vec![b'a'; 100_000], b" HTTP/1.1\r\n\r\n"].concat();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100)).into_bytes();
    let cases: [(&[u8], u16); 7] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), // a greeting in TLS
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (&long_line, 431),
        (&many, 431),
    ];
    for (bytes, status) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(send(address, bytes).status, status, "{shown:?}");
    }
    let mut seed = fastrand::Rng::with_seed(4);
    for _ in 0..200 {
        let noise: Vec<u8> = (0..seed.usize(1..300)).map(|_| seed.u8(..)).collect();
        let mut stream = connect(address);
        drop(stream.write_all(&noise));
        drop(stream.shutdown(Shutdown::Write));
        if let Ok(answer) = Answer::read(stream) {
            assert!((400..500).contains(&answer.status), "{noise:?}");
        }
    }
    assert_eq!(scene.get("/pools").status, 200);
}

/// Two hundred at once, most of them slow or silent: everybody who asks properly is answered.
#[test]
fn slow_clients_do_not_keep_others_out() {
    let scene = Scene::new();
    let address = scene.server.address();
    let silent: Vec<_> = (0..50).map(|_| connect(address)).collect();
    let mut deaf: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for stream in &mut deaf {
        stream.write_all(&request("GET", "/events", "localhost")).unwrap();
    }
    let asked = thread::scope(|scope| {
        let ask = || (0..2).all(|_| scene.get("/pools").status == 200);
        let asking: Vec<_> = (0..130).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).filter(|done| *done).count()
    });
    assert_eq!(asked, 130);
    drop((silent, deaf));
}

#[test]
fn a_head_that_never_ends_is_ended() {
    let scene = Scene::new();
    let mut stream = connect(scene.server.address());
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(Answer::read(stream).unwrap().status, 408, "the server does not wait for ever");
}

#[test]
fn dropping_the_server_ends_all_connections() {
    let Scene { server, observer, pool } = Scene::new();
    let address = server.address();
    let mut stream = connect(address);
    stream.write_all(&request("GET", "/events", "localhost")).unwrap();
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    let silent = connect(address);
    drop(server);
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut rest = Vec::new();
    // Ended, or reset: it is over.
    drop(stream.read_to_end(&mut rest));
    drop(silent);
    let again = TcpListener::bind(address);
    assert!(again.is_ok(), "nobody listens there any more: {again:?}");
    drop((observer, pool));
}

#[test]
fn several_pools_are_shown_in_order() {
    let (one, two) = (pool(), pool());
    let observers = [one.observe("same").unwrap(), two.observe("same").unwrap()];
    let server = Server::builder().observer(&observers[0]).observer(&observers[1]).build().unwrap();
    let _held = two.try_allocate(Request::memory(1)).unwrap();
    observers.iter().for_each(|observer| drop(observer.look()));
    let view = get(server.address(), "/pools").json();
    let held: Vec<_> =
        view["pools"].as_array().unwrap().iter().map(|it| it["tiers"][0]["held_slots"].clone()).collect();
    assert_eq!(held, [0, 1]);
}

#[test]
fn addresses_that_cannot_be_are_told() {
    let pool = pool();
    let observer = pool.observe("gateway").unwrap();
    let at = |address: &str| Server::builder().observer(&observer).address(address).build().unwrap_err();
    assert!(matches!(Server::builder().build().unwrap_err(), ServeError::NothingToShow));
    for address in ["", "127.0.0.1", "nonsense:nonsense", "127.0.0.1:70000"] {
        let text = at(address).to_string();
        assert!(text.contains(&format!("{address:?}")) && text.contains("127.0.0.1:9090"), "{text}");
    }
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let error = at(address);
        assert!(
            matches!(error, ServeError::NotLoopback { .. }) && error.to_string().contains("reachable_from_elsewhere")
        );
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = at(&taken.local_addr().unwrap().to_string()).to_string();
    assert!(text.contains("another program does; give another port"), "{text}");

    let server = Server::builder().observer(&observer).address("0.0.0.0:0").reachable_from_elsewhere().build().unwrap();
    let here = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    assert_eq!(send(here, &request("GET", "/pools", "gateway.example")).status, 200, "it may have any name there");
}
