//! One atomic DDL statement, as the journal keeps it.
//!
//! A record is JSON in an envelope with a version, `{"v":1,"change":{…}}`: readable in a dump of the log, and later
//! versions may add fields without breaking older records.

use millpond_types::RelationId;
use serde::{Deserialize, Serialize};

use crate::relation::{Column, Relation};

/// The newest version of the envelope, which is the one written.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Change {
    CreateSchema {
        name: String,
        owner: String,
    },
    DropSchema {
        name: String,
    },
    /// The relation's id is [`Catalog::next_id`](crate::Catalog::next_id) of the catalog before.
    CreateRelation {
        relation: Box<Relation>,
    },
    /// CREATE OR REPLACE: same id and name, new definition.
    ReplaceRelation {
        relation: Box<Relation>,
    },
    /// All at once: what CASCADE takes along is listed.
    DropRelations {
        ids: Vec<RelationId>,
    },
    RenameRelation {
        id: RelationId,
        name: String,
    },
    RenameColumn {
        id: RelationId,
        column: usize,
        name: String,
    },
    AddColumn {
        id: RelationId,
        column: Column,
    },
    SetOptions {
        id: RelationId,
        options: std::collections::BTreeMap<String, Option<String>>,
    },
    SetPaused {
        id: RelationId,
        paused: bool,
    },
    SetOwner {
        id: RelationId,
        owner: String,
    },
    /// On a relation, or on one of its columns.
    Comment {
        id: RelationId,
        column: Option<usize>,
        comment: Option<String>,
    },
    /// Several changes of one statement or transaction.
    Batch {
        changes: Vec<Change>,
    },
}

/// Why the bytes of a record are no change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Written by a newer Millpond.
    Version(u32),
    Malformed(String),
}

impl Change {
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// # Errors
    /// [`ChangeError`] for another version or bytes that are no change; never a panic.
    pub fn decode(_bytes: &[u8]) -> Result<Self, ChangeError> {
        unimplemented!()
    }
}
