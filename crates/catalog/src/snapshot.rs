//! The catalog at one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_types::{Commit, RelationId, SqlError};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::relation::Relation;

/// Schemas that always exist and that users cannot add to.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "millpond"];

/// All names at one commit. Cloning costs a reference count per relation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    relations: BTreeMap<RelationId, Arc<Relation>>,
    /// User-made schemas and `public`.
    schemas: BTreeMap<String, Schema>,
    next_id: RelationId,
    /// Changes folded so far; a cache key for plans.
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub name: String,
    pub owner: String,
    /// For pg_namespace; never reused.
    pub id: RelationId,
}

impl Catalog {
    /// Before any DDL: the schema `public` and nothing in it.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// The id that the next created relation must carry.
    pub fn next_id(&self) -> RelationId {
        self.next_id
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The next catalog. `commit` is that of the record, and becomes `created_at` of what is created.
    ///
    /// # Errors
    /// What PostgreSQL says of a duplicate or missing name; the change is checked in full before anything is changed, so
    /// the same check serves before a record is written and when it is replayed.
    pub fn apply(&self, _change: &Change, _commit: Commit) -> Result<Catalog, SqlError> {
        unimplemented!()
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}
