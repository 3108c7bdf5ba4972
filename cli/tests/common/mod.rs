//! A running `tierpool demo`. Each test uses what it needs of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes, however slow the machine is.
pub const LONG: Duration = Duration::from_secs(150);

/// The program, killed if it is dropped before it has ended.
pub struct Demo {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Its log, line by line.
    log: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    /// The page's address.
    pub url: String,
    /// The line that leaks, if one does.
    pub leaking: Option<String>,
}

impl Demo {
    /// Starts it at a port that is free; it ends by itself after some minutes, if nothing else does.
    pub fn start(arguments: &[&str]) -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tierpool"))
            .args(["demo", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let reader =
            thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Demo { child, out, log, reader: Some(reader), url: String::new(), leaking: None };
        let mut line = String::new();
        while !line.starts_with("The log") {
            line.clear();
            assert_ne!(
                demo.out.read_line(&mut line).unwrap(),
                0,
                "it has ended: {:?}",
                demo.log.iter().collect::<Vec<_>>()
            );
            if let Some(url) = line.trim().strip_prefix("page") {
                demo.url = url.trim().to_owned();
            }
            if let Some(rest) = line.trim().strip_prefix("- a leak, planted at ") {
                demo.leaking = rest.split(": ").next().map(str::to_owned);
            }
        }
        demo
    }

    /// The text at a path.
    pub fn get(&self, path: &str) -> String {
        let answer = minreq::get(format!("{}{path}", self.url)).with_timeout(60).send().unwrap();
        assert_eq!(answer.status_code, 200, "{path}");
        answer.as_str().unwrap().to_owned()
    }

    /// What `/pools` shows of the pool, once it is `right`.
    pub fn pool(&self, right: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LONG;
        loop {
            let view: Value = serde_json::from_str(&self.get("pools")).unwrap();
            if right(&view["pools"][0]) {
                return view["pools"][0].clone();
            }
            assert!(Instant::now() < end, "it never became so: {view:#}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The first line of the log that has all of these words in it.
    pub fn logged(&self, words: &[&str]) -> String {
        let end = Instant::now() + LONG;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            seen.push(line);
        }
        panic!("nothing with {words:?} was logged: {seen:#?}");
    }

    /// As Ctrl-C does.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// How it ended, and what it had printed by then.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        self.reader.take().map(JoinHandle::join);
        (status, rest)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
