//! The asking side: one subject in one workload, on a thread of this process or in a process of its own.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::orders::Orders;
use super::series::Sample;
use crate::subject::Kind;

/// One subject in one workload.
pub struct Runner {
    /// The subject's name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    link: Link,
}

enum Link {
    Thread(Option<Sender<u64>>, Receiver<Vec<Sample>>, Option<JoinHandle<()>>),
    Process(Child, Option<ChildStdin>, BufReader<ChildStdout>),
}

impl Runner {
    /// A runner on a thread of its own.
    pub fn on_thread(
        name: &'static str,
        kind: Kind,
        target: Duration,
        work: impl FnOnce(Orders) + Send + 'static,
    ) -> Self {
        let (ask, asked) = mpsc::channel();
        let (answers, answered) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(Orders { asked, answers, target }))
            .expect("a thread for a runner");
        let link = Link::Thread(Some(ask), answered, Some(thread));
        Self { name, kind, link }
    }

    /// A runner in a process of its own: this program again, with `arguments` and `variable` set. It is asked a number a
    /// line, and answers a line of samples, as [`encode`] writes them.
    pub fn in_process(name: &'static str, kind: Kind, arguments: &[String], variable: (&str, &str)) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program's path"))
            .args(arguments)
            .env(variable.0, variable.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let ask = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a piped output"));
        Self { name, kind, link: Link::Process(child, ask, answers) }
    }

    /// Gives an order and waits for its samples.
    pub fn ask(&mut self, order: u64) -> Vec<Sample> {
        match &mut self.link {
            Link::Thread(ask, answers, _) => {
                ask.as_ref().and_then(|ask| ask.send(order).ok()).expect("a running runner");
                answers.recv().expect("an answer")
            }
            Link::Process(_, ask, answers) => {
                let ask = ask.as_mut().expect("a running child");
                writeln!(ask, "{order}").and_then(|()| ask.flush()).expect("a listening child");
                let mut line = String::new();
                answers.read_line(&mut line).expect("an answer");
                decode(&line)
            }
        }
    }
}

impl Drop for Runner {
    /// Ends the thread or the process, and waits for it, so that its memory is free for the next.
    fn drop(&mut self) {
        match &mut self.link {
            Link::Thread(ask, _, thread) => {
                drop(ask.take());
                _ = thread.take().map(JoinHandle::join);
            }
            Link::Process(child, ask, _) => {
                drop(ask.take());
                _ = child.wait();
            }
        }
    }
}

/// Samples as one line.
pub fn encode(samples: &[Sample]) -> String {
    let words: Vec<String> = samples.iter().map(|(value, count)| format!("{value}:{count}")).collect();
    words.join(" ")
}

fn decode(line: &str) -> Vec<Sample> {
    let sample = |word: &str| {
        let (value, count) = word.split_once(':')?;
        Some((value.parse().ok()?, count.parse().ok()?))
    };
    line.split_whitespace().map(|word| sample(word).expect("a sample")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_the_pipe() {
        let samples = vec![(4.625, 1), (1e9 / 3.0, 7)];
        assert_eq!(decode(&encode(&samples)), samples);
    }
}
