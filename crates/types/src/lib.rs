//! The vocabulary that every Millpond crate shares.
//!
//! A [`Delta`] is a change to a relation: an Arrow batch with optional weights. A [`Commit`] is the one global order of
//! the log, and so also the name of a cut and of a published epoch. A [`SqlType`] is what users see of an Arrow type. A
//! [`SqlError`] is what users see of a failure: SQLSTATE, message, detail, hint and position.
//!
//! Not here: how anything is stored, planned or computed. This crate knows Arrow and nothing else of ours.

pub mod delta;
pub mod error;
pub mod hash;
pub mod id;
pub mod keyword;
pub mod sql_type;

pub use delta::Delta;
pub use error::{SqlError, SqlState};
pub use id::{Commit, EventTime, Offset, PartitionId, RelationId};
pub use sql_type::SqlType;
