//! One atomic DDL statement, as the journal keeps it.
//!
//! A record is JSON in an envelope with a version, `{"v":1,"change":{…}}`: readable in a dump of the log, and later
//! versions may add fields without breaking older records.

use std::collections::BTreeMap;
use std::fmt;

use millpond_types::{RelationId, SqlError, SqlState};
use serde::{Deserialize, Serialize};

use crate::relation::{Column, Layout, Relation};

/// The newest version of the envelope, which is the one written.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Change {
    CreateSchema {
        name: String,
        owner: String,
    },
    /// Empty by then.
    DropSchema {
        name: String,
    },
    /// The relation's id is [`Catalog::next_id`](crate::Catalog::next_id) of the catalog before.
    CreateRelation {
        relation: Box<Relation>,
    },
    /// CREATE OR REPLACE: same id, kind and name, new definition; `created_at` is kept.
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
    SetSchema {
        id: RelationId,
        schema: String,
    },
    RenameColumn {
        id: RelationId,
        column: usize,
        name: String,
    },
    /// Behind the columns that are there.
    AddColumn {
        id: RelationId,
        column: Column,
    },
    /// Of a source or table.
    SetLayout {
        id: RelationId,
        layout: Layout,
    },
    /// The statement of an ALTER, as the user wrote it, behind the definition.
    Amend {
        id: RelationId,
        statement: String,
    },
    /// `None` takes an option away.
    SetOptions {
        id: RelationId,
        options: BTreeMap<String, Option<String>>,
    },
    /// Of a materialized view.
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
    /// Several changes of one statement or transaction, in order; all or none.
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

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "DDL record of version {version}, newer than {VERSION}"),
            Self::Malformed(why) => write!(f, "malformed DDL record: {why}"),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<ChangeError> for SqlError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Version(_) => SqlError::unsupported(error.to_string())
                .hint("Start the Millpond that wrote it, or a newer one."),
            ChangeError::Malformed(_) => SqlError::new(SqlState::DATA_CORRUPTED, error.to_string()),
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    v: u32,
    change: &'a Change,
}

/// Read first, and alone: an unknown version may hold anything else.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Content {
    change: Change,
}

impl Change {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Envelope { v: VERSION, change: self })
            .expect("strings, numbers and maps with text keys")
    }

    /// # Errors
    /// [`ChangeError`] for another version or bytes that are no change; never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangeError> {
        let malformed = |error: serde_json::Error| ChangeError::Malformed(error.to_string());
        match serde_json::from_slice(bytes).map_err(malformed)? {
            Version { v: VERSION } => {}
            Version { v } => return Err(ChangeError::Version(v)),
        }
        serde_json::from_slice(bytes).map(|Content { change }| change).map_err(malformed)
    }
}
