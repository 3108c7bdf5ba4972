//! How well something is: a machine with its pools, or a node.

use std::fmt;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Health {
    /// Nothing is wrong.
    #[default]
    Healthy,
    /// Service goes on, with less to spare. A node gets only tasks that no healthy node can hold.
    Degraded,
    /// Nothing more should be sent there. A node gets no tasks.
    Unhealthy,
}

impl Health {
    /// What `health as u32` was made of.
    pub(super) fn from_number(number: u32) -> Self {
        match number {
            0 => Health::Healthy,
            1 => Health::Degraded,
            _ => Health::Unhealthy,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
        })
    }
}
