//! What the system says of this process and its machine. Knows nothing of pools.

pub(crate) mod affinity;
