//! Finding by name, in PostgreSQL's words when there is nothing to find.

use std::sync::Arc;

use millpond_sql::RelationName;
use millpond_sql::statement::ObjectKind;
use millpond_types::{RelationId, SqlError};

use crate::relation::Relation;
use crate::snapshot::{Catalog, Schema};

impl Catalog {
    pub fn relation(&self, _id: RelationId) -> Option<&Arc<Relation>> {
        unimplemented!()
    }

    /// Every relation, by id.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        std::iter::empty()
    }

    /// `public` and user-made schemas, by name; not the system's.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        std::iter::empty()
    }

    /// A schema that relations can be in: user-made, `public`, or one of the system's.
    pub fn has_schema(&self, _name: &str) -> bool {
        unimplemented!()
    }

    /// By exact schema and name.
    pub fn find(&self, _schema: &str, _name: &str) -> Option<&Arc<Relation>> {
        unimplemented!()
    }

    /// By name as written: in its schema, else along the search path.
    ///
    /// # Errors
    /// 42P01 with a near miss as hint; 3F000 for a schema that does not exist.
    pub fn resolve(&self, _name: &RelationName, _search_path: &[String]) -> Result<&Arc<Relation>, SqlError> {
        unimplemented!()
    }

    /// As [`Catalog::resolve`], of one kind only.
    ///
    /// # Errors
    /// Also 42809 `"x" is not a materialized view` with the command that works as hint. The message for a missing name
    /// says the kind, as PostgreSQL's DROP does: `table "x" does not exist`.
    pub fn resolve_kind(
        &self,
        _name: &RelationName,
        _kind: ObjectKind,
        _search_path: &[String],
    ) -> Result<&Arc<Relation>, SqlError> {
        unimplemented!()
    }

    /// Where CREATE puts a new relation: its schema, else the first of the search path that exists.
    ///
    /// # Errors
    /// 3F000 when there is no such schema; 42501 for a schema of the system; 42P07 `relation "x" already exists`.
    pub fn place_new(&self, _name: &RelationName, _search_path: &[String]) -> Result<String, SqlError> {
        unimplemented!()
    }
}
