//! Who depends on whom, and what DROP takes along.

use std::sync::Arc;

use millpond_types::{RelationId, SqlError};

use crate::relation::Relation;
use crate::snapshot::Catalog;

/// What a DROP removes: dependants before what they depend on, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropPlan {
    pub ids: Vec<RelationId>,
    /// `drop cascades to materialized view v`, for a NOTICE; with the rest as its detail when there are several.
    pub notice: Option<(String, Option<String>)>,
}

impl Catalog {
    /// Those that name `id` directly, by id.
    pub fn dependants(&self, _id: RelationId) -> Vec<&Arc<Relation>> {
        unimplemented!()
    }

    /// `id` and everything that depends on it, however far; each after what it depends on.
    pub fn transitive_dependants(&self, _id: RelationId) -> Vec<RelationId> {
        unimplemented!()
    }

    /// What `DROP … [CASCADE]` of these relations removes. Indexes always go with their relation.
    ///
    /// # Errors
    /// 2BP01 `cannot drop table t because other objects depend on it`, each dependant on a line of the detail.
    pub fn plan_drop(&self, _ids: &[RelationId], _cascade: bool) -> Result<DropPlan, SqlError> {
        unimplemented!()
    }

    /// What `DROP SCHEMA … [CASCADE]` removes besides the schema.
    ///
    /// # Errors
    /// 3F000; 2BP01 when it is not empty; 42501 for a schema of the system.
    pub fn plan_drop_schema(&self, _name: &str, _cascade: bool) -> Result<DropPlan, SqlError> {
        unimplemented!()
    }
}
