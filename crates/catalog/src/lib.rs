//! Names, schemas and dependencies: an immutable [`Catalog`], folded from DDL records.
//!
//! A [`Change`] is one atomic DDL statement as the journal keeps it. [`Catalog::apply`] makes the next catalog from the
//! one before; the old one stays valid for whoever holds it, so a statement sees one catalog from its first name to its
//! last. A [`Relation`] is anything with a name in a schema: source, table, view, materialized view, sink or index. The
//! catalog is itself serializable: the checkpoint manifest carries it, and replay folds the later changes on top.
//!
//! Lookups answer in PostgreSQL's words: `relation "x" does not exist`, `cannot drop table t because other objects
//! depend on it`, each with its SQLSTATE.
//!
//! Not here: what a definition means. Expressions and queries are kept as SQL text, with the settings that they were
//! written under. Begin at [`change`], then [`relation`].

pub mod change;
pub mod dependants;
pub mod lookup;
pub mod relation;
pub mod snapshot;

pub use change::{Change, ChangeError};
pub use dependants::DropPlan;
pub use relation::{
    Column, Connector, Emit, Frozen, Index, Layout, MaterializedView, Relation, RelationKind, Sink,
    SinkTarget, Source, Table, View, Watermark,
};
pub use snapshot::{Catalog, SYSTEM_SCHEMAS, Schema};

#[cfg(test)]
mod tests;
