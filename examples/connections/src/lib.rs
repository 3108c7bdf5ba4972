//! PostgreSQL connections in a [`tierpool::Tier`]: what a service does with values that can go bad on their own.
//!
//! [`pool`] is the part to copy: a fallible factory, a look at each connection before it is handed out, an age at which it is
//! replaced, and what to do when one fails in use. [`ledger`] is a small service on top of it, with several threads. [`server`]
//! starts a PostgreSQL server that can be stopped, restarted and bereft of its connections, for the program and the test.

pub mod ledger;
pub mod pool;
pub mod server;
