//! The page of `tierpool demo` in a browser: driven by keys, looked at in the dark and at the width of a telephone.
//!
//! Needs `chromium` and `chromedriver`; skipped where they are not, unless `TIERPOOL_REQUIRE_BROWSER` is set. Leaves pictures in the target
//! directory.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use common::{Demo, LONG};
use serde_json::{Value, json};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// A browser that is driven, killed when it is dropped.
struct Browser {
    driver: Child,
    /// The session's address.
    session: String,
    _profile: tempfile::TempDir,
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn call(method: minreq::Method, url: &str, body: &Value) -> Value {
    let request = minreq::Request::new(method, url).with_timeout(LONG.as_secs());
    let request = if body.is_null() { request } else { request.with_body(body.to_string()) };
    let answer = request.send().unwrap();
    let text = answer.as_str().unwrap();
    assert_eq!(answer.status_code, 200, "{url}: {text}");
    let mut answer: Value = serde_json::from_str(text).unwrap();
    answer["value"].take()
}

impl Browser {
    /// `None` where there is none.
    fn start() -> Option<Browser> {
        let (Some(chromium), Some(chromedriver)) = (installed("chromium"), installed("chromedriver")) else {
            assert!(
                std::env::var_os("TIERPOOL_REQUIRE_BROWSER").is_none(),
                "chromium and chromedriver are required, and not installed"
            );
            eprintln!("skipped: chromium and chromedriver are not installed");
            return None;
        };
        let mut driver =
            Command::new(chromedriver).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // What it prints later is nobody's business, and must not block it.
        thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ];
        let arguments =
            arguments.map(str::to_owned).into_iter().chain([format!("--user-data-dir={}", profile.path().display())]);
        let options = json!({ "binary": chromium, "args": arguments.collect::<Vec<_>>() });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } } } });
        let base = format!("http://127.0.0.1:{}/session", port.expect("chromedriver says its port"));
        let mut browser = Browser { driver, session: String::new(), _profile: profile };
        let session = call(minreq::Method::Post, &base, &wanted);
        browser.session = format!("{base}/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn post(&self, path: &str, body: Value) -> Value {
        call(minreq::Method::Post, &format!("{}/{path}", self.session), &body)
    }

    fn open(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    /// What a script returns in the page.
    fn ask(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    fn wait(&self, script: &str) -> Value {
        let end = Instant::now() + LONG;
        loop {
            let value = self.ask(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(Instant::now() < end, "never so: {script}\n{}", self.ask("return document.body.innerText"));
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses a key, as a person does.
    fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// A command of the browser's own protocol.
    fn command(&self, name: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": name, "params": parameters }))
    }

    fn resize(&self, width: u32) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", size);
    }

    fn prefer(&self, feature: &str, value: &str) {
        self.command("Emulation.setEmulatedMedia", json!({ "features": [{ "name": feature, "value": value }] }));
    }

    /// A picture of the whole page.
    fn picture(&self, name: &str) {
        let picture = self.command("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let bytes = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, bytes).unwrap();
        println!("{}", path.display());
    }

    fn ground(&self) -> Value {
        self.ask("return getComputedStyle(document.body).backgroundColor")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(minreq::delete(&self.session).with_timeout(20).send());
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// The row of a tier, as an expression of the page's language.
fn row(tier: &str) -> String {
    format!(
        "[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name b').textContent === '{tier}')"
    )
}

#[test]
fn the_page_lives() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start(&["--seconds", "600"]);
    let line = demo.leaking.clone().unwrap();
    browser.open(&demo.url);
    browser.wait("return document.querySelectorAll('.tier').length === 4");
    browser.wait("return document.querySelector('#link b').textContent === 'live'");

    // Figures change.
    let figure = format!("return {}.querySelector('.rate b').textContent", row("packets"));
    let before = browser.ask(&figure);
    browser.wait(&format!("return ({}) !== {before}", figure.trim_start_matches("return ")));

    // The alert names the line that leaks.
    browser.wait(&format!(
        "return [...document.querySelectorAll('#alerts .site')].some((it) => it.textContent === '{line}')"
    ));
    browser.wait("return document.querySelector('#told').textContent.includes('leak')");

    // Only keys: to the row of the packets, and open it.
    browser.ask("document.activeElement.blur()");
    for _ in 0..100 {
        browser.press(TAB);
        if browser.ask(&format!("return document.activeElement === {}", row("packets"))) == true {
            break;
        }
    }
    let focus =
        "const style = getComputedStyle(document.activeElement); return style.outlineStyle + ' ' + style.outlineWidth";
    assert_eq!(browser.ask(focus), "solid 2px", "who uses keys sees where he is");
    assert_eq!(browser.ask("return document.activeElement.getAttribute('aria-expanded')"), "false");
    browser.press(ENTER);
    assert_eq!(browser.ask("return document.activeElement.getAttribute('aria-expanded')"), "true");
    let opened = format!(
        "const row = {}; const more = document.getElementById(row.getAttribute('aria-controls'));",
        row("packets")
    );
    browser.wait(&format!("{opened} return !more.hidden && [...more.querySelectorAll('td.site')].some((it) => it.textContent === '{line}')"));
    // It stays open, and keeps the focus, when figures come.
    let look = "document.querySelector('.pool header p').textContent";
    let then = browser.ask(&format!("return {look}"));
    browser.wait(&format!("return {look} !== {then}"));
    assert_eq!(browser.ask(&format!("{opened} return !more.hidden && document.activeElement === row")), true);

    // In both lights, by the system's wish and by the reader's.
    browser.resize(1280);
    browser.prefer("prefers-color-scheme", "light");
    let light = browser.ground();
    browser.picture("page-light.png");
    browser.prefer("prefers-color-scheme", "dark");
    let dark = browser.ground();
    browser.picture("page-dark.png");
    assert_ne!(light, dark);
    let theme = "document.querySelector('#theme').click(); return document.querySelector('#theme').textContent";
    assert_eq!(browser.ask(theme), "Theme: light");
    assert_eq!(browser.ground(), light);
    assert_eq!(browser.ask(theme), "Theme: dark");
    assert_eq!(browser.ground(), dark);
    assert_eq!(browser.ask(theme), "Theme: system");

    // On a telephone nothing sticks out, with a tier open.
    for (light, width) in [("dark", 360), ("light", 360), ("light", 768)] {
        browser.prefer("prefers-color-scheme", light);
        browser.resize(width);
        let wide = "return [document.documentElement.scrollWidth, innerWidth, [...document.querySelectorAll('body *')]\
                    .filter((it) => it.getBoundingClientRect().right > innerWidth + 1 && !it.closest('.unseen, thead'))\
                    .map((it) => it.className + ' ' + it.textContent.slice(0, 40))]";
        let wide = browser.ask(wide);
        assert_eq!(wide[1], width);
        assert!(wide[0].as_u64() <= Some(width.into()), "wider than {width}: {wide}");
        assert_eq!(wide[2], json!([]), "at {width}");
        browser.picture(&format!("page-{light}-{width}.png"));
    }
    browser.prefer("prefers-reduced-motion", "reduce");
    assert_eq!(browser.ask("return getComputedStyle(document.querySelector('.bar i')).transitionDuration"), "0s");

    let told = browser.post("se/log", json!({ "type": "browser" }));
    assert_eq!(told, json!([]), "no errors, and nothing against the policy");

    // The program goes: the page says so.
    drop(demo);
    browser.wait("return document.querySelector('#link b').textContent === 'reconnecting'");
}
