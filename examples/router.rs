//! Tasks over two pools, one a NUMA node: each is routed by what it needs, and run by the node's own workers, which steal from each
//! other and never from the other node.
//!
//! `cargo run --release --example router`
//!
//! What to copy: the placement travels with the task, so what it holds goes back when the task has run, on whichever thread; a refusal is
//! answered in front of the router, here by yielding to the workers; the executor is the program's own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_deque::{Injector, Stealer, Worker};
use tierpool::{LocalNodes, Placement, Policy, Pool, Priority, Resource, ResourceRequest, Task, TaskRouter};

const NODES: [&str; 2] = ["numa-0", "numa-1"];
const WORKERS: usize = 2;
const TASKS: usize = 20_000;

/// A task that has got what it needs.
struct Job {
    number: usize,
    placement: Placement,
}

impl Job {
    fn run(mut self) {
        for resource in self.placement.resources_mut() {
            if let Resource::Memory(buffer) = resource {
                buffer[0] = self.number as u8;
            }
        }
    } // what it held goes back here
}

/// One node's executor: a queue that all of its workers take from, and their own.
struct Executor {
    queue: Injector<Job>,
    stealers: Vec<Stealer<Job>>,
    run: AtomicUsize,
    done: AtomicBool,
}

impl Executor {
    /// A job from the worker's own queue, else a batch from the node's, else from another worker.
    fn next(&self, own: &Worker<Job>) -> Option<Job> {
        own.pop().or_else(|| {
            let steal = || {
                let others = || self.stealers.iter().map(Stealer::steal).collect();
                self.queue.steal_batch_and_pop(own).or_else(others)
            };
            std::iter::repeat_with(steal).find(|stolen| !stolen.is_retry())?.success()
        })
    }

    fn work(&self, own: &Worker<Job>) {
        loop {
            // Read before the queues: what was pushed before it was set is found then.
            let done = self.done.load(Ordering::Acquire);
            match self.next(own) {
                Some(job) => {
                    job.run();
                    self.run.fetch_add(1, Ordering::Relaxed);
                }
                None if done => return,
                None => thread::yield_now(),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pools = NODES.map(|_| Pool::builder().memory("blocks", 64 * 1024, 16).memory("packets", 2048, 64).build());
    let [first, second] = pools;
    let (first, second) = (first?, second?);
    let nodes = LocalNodes::new().pool(NODES[0], &["socket-0"], &first).pool(NODES[1], &["socket-1"], &second);
    let router = TaskRouter::new(Policy::LocalityFirst);
    router.sync(&nodes);

    let mut workers: [Vec<Worker<Job>>; 2] = NODES.map(|_| (0..WORKERS).map(|_| Worker::new_fifo()).collect());
    let executors = [0, 1].map(|node: usize| Executor {
        queue: Injector::new(),
        stealers: workers[node].iter().map(Worker::stealer).collect(),
        run: AtomicUsize::new(0),
        done: AtomicBool::new(false),
    });

    let refused = thread::scope(|scope| {
        for (executor, workers) in executors.iter().zip(&mut workers) {
            for own in workers.drain(..) {
                scope.spawn(move || executor.work(&own));
            }
        }
        let mut refused = 0u64;
        for number in 0..TASKS {
            // Three of four have their data on the first socket; when it is full they run on the second.
            let task = Task::new("transform")
                .needs(ResourceRequest::memory(40_000))
                .needs_several(ResourceRequest::memory(1500), 2)
                .near(if number % 4 == 0 { "socket-1" } else { "socket-0" })
                .priority(if number % 10 == 0 { Priority::High } else { Priority::Normal });
            if number == 0 {
                println!("{}", router.route_task(&task).expect("both are empty"));
            }
            let placement = loop {
                match router.start(&task) {
                    Ok(placement) => break placement,
                    Err(why) => {
                        if refused == 0 {
                            println!("{why}");
                        }
                        refused += 1;
                        thread::yield_now();
                    }
                }
            };
            let node = usize::from(placement.node().name() == NODES[1]);
            executors[node].queue.push(Job { number, placement });
        }
        executors.iter().for_each(|executor| executor.done.store(true, Ordering::Release));
        refused
    });

    let run = executors.each_ref().map(|executor| executor.run.load(Ordering::Relaxed));
    println!("{} ran on {}, {} on {}; {refused} times both were full", run[0], NODES[0], run[1], NODES[1]);
    println!("{}{}", first.monitor(), second.monitor());
    assert_eq!(run.iter().sum::<usize>(), TASKS);
    Ok(())
}
