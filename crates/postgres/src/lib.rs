//! The PostgreSQL front end: psql, drivers and BI tools speak to an engine through it.
//!
//! [`serve`] listens; each client gets a task with a `Connection`, which reads messages from its `Socket`, lets the
//! engine's session do the work and writes the answers. Result values leave in text or binary form per column; COPY
//! decodes whole columns at a time. [`system_catalog`] is `pg_catalog` and `information_schema`, generated from the
//! engine's catalog for each statement that asks.
//!
//! Not here: what statements mean, transactions, settings, text forms of values; all that is the engine's. Bytes of a
//! client never cause a panic, and never take memory before their length is checked. Begin at `connection.rs`.

mod catalog;
mod connection;
mod copy;
mod error;
mod extended;
mod frontend;
mod rows;
mod server;
mod socket;
mod startup;
mod value;

pub use catalog::system_catalog;
pub use server::{Server, ServerOptions, serve};
