//! Runs `sql-tests/` against the real binary over the real wire.
//!
//! A [`File`] of sqllogictest records is run as a [`Mode`] says: with epochs of one row, with several shards, or with a
//! `kill -9` and a new start after each statement. Every run has a [`Server`](server::Server) and a data directory of its
//! own, so files neither see nor wait for each other. A [`Client`](client::Client) speaks the simple query protocol, as
//! psql does, and compares values as text.
//!
//! Not here: what the answers should be. That stands in the files, which the standard sqllogictest command-line tool runs
//! as well. Begin at [`file`].

#![allow(
    clippy::disallowed_methods,
    reason = "a test's runner starts processes and reads files; it is not simulated"
)]

pub mod client;
pub mod compare;
pub mod file;
pub mod kills;
pub mod matrix;
pub mod postgresql;
pub mod server;

pub use file::{File, Mode, find};
