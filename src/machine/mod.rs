//! What the system says of this process and of the machine: read from its files and calls, and nothing made of it.
//!
//! Knows nothing of pools. Each file reads one subject and parses it by functions of text alone, which are tested and fuzzed; what is
//! not there (another system, another kernel, no rights) is `None`, never a guess. Paths are under a [`Root`], so that a program
//! in a container can be shown the host's files, and a test those of another machine.

pub(crate) mod affinity;
pub(crate) mod cgroup;
#[cfg(any(test, not(target_os = "linux")))]
pub(crate) mod elsewhere;
pub(crate) mod limits;
pub(crate) mod meminfo;
pub(crate) mod pressure;
pub(crate) mod root;
