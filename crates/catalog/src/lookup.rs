//! Finding by name, in PostgreSQL's words when there is nothing to find.

use std::sync::Arc;

use millpond_sql::statement::ObjectKind;
use millpond_sql::{RelationName, nearest};
use millpond_types::{RelationId, SqlError, SqlState};

use crate::relation::{Relation, RelationKind};
use crate::snapshot::{Catalog, SYSTEM_SCHEMAS, Schema};

impl Catalog {
    pub fn relation(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }

    /// Every relation, by id.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations.values()
    }

    /// `public` and user-made schemas, by name; not the system's.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.values()
    }

    /// A schema that relations can be in: user-made, `public`, or one of the system's.
    pub fn has_schema(&self, name: &str) -> bool {
        self.schemas.contains_key(name) || SYSTEM_SCHEMAS.contains(&name)
    }

    /// By exact schema and name.
    pub fn find(&self, schema: &str, name: &str) -> Option<&Arc<Relation>> {
        self.relations.values().find(|relation| relation.schema == schema && relation.name == name)
    }

    /// By name as written: in its schema, else along the search path.
    ///
    /// # Errors
    /// 42P01 with a near miss as hint; 3F000 for a schema that does not exist.
    pub fn resolve(&self, name: &RelationName, search_path: &[String]) -> Result<&Arc<Relation>, SqlError> {
        if let Some(found) = self.lookup(name, search_path) {
            return Ok(found);
        }
        let shown = shown(name);
        // PostgreSQL says of SELECT from a missing schema what it says of a missing table.
        let error = SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{shown}\" does not exist"));
        Err(name.mark(self.with_near_miss(error, name, search_path)))
    }

    /// As [`Catalog::resolve`], of one kind only.
    ///
    /// # Errors
    /// Also 42809 `"x" is not a materialized view` with the command that works as hint. The message for a missing name
    /// says the kind, as PostgreSQL's DROP does: `table "x" does not exist`; 3F000 for a schema that does not exist.
    pub fn resolve_kind(
        &self,
        name: &RelationName,
        kind: ObjectKind,
        search_path: &[String],
    ) -> Result<&Arc<Relation>, SqlError> {
        if let Some(schema) = name.schema.as_ref().filter(|schema| !self.has_schema(schema)) {
            return Err(name.mark(self.missing_schema(schema)));
        }
        let Some(found) = self.lookup(name, search_path) else {
            let state = if kind == ObjectKind::Index {
                SqlState::UNDEFINED_OBJECT
            } else {
                SqlState::UNDEFINED_TABLE
            };
            let message = format!("{} \"{}\" does not exist", kind.as_str(), shown(name));
            return Err(name.mark(self.with_near_miss(SqlError::new(state, message), name, search_path)));
        };
        let actual = found.kind.object();
        if actual == kind {
            return Ok(found);
        }
        let message = format!("\"{}\" is not {} {}", found.name, article(kind), kind.as_str());
        let hint = format!(
            "\"{}\" is {} {}: name it as {}.",
            found.name,
            article(actual),
            actual.as_str(),
            actual.command()
        );
        Err(name.mark(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message).hint(hint)))
    }

    /// As [`Catalog::resolve`], of what can stand in FROM.
    ///
    /// # Errors
    /// Also 42809 `cannot open relation "i"` for an index or sink, as PostgreSQL says of an index.
    pub fn resolve_readable(
        &self,
        name: &RelationName,
        search_path: &[String],
    ) -> Result<&Arc<Relation>, SqlError> {
        let found = self.resolve(name, search_path)?;
        let kind = match found.kind {
            RelationKind::Sink(_) => "sinks",
            RelationKind::Index(_) => "indexes",
            _ => return Ok(found),
        };
        let message = format!("cannot open relation \"{}\"", found.name);
        let detail = format!("This operation is not supported for {kind}.");
        Err(name.mark(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message).detail(detail)))
    }

    /// Where CREATE puts a new relation: its schema, else the first of the search path that exists.
    ///
    /// # Errors
    /// 3F000 when there is no such schema; 42501 for a schema of the system; 42P07 `relation "x" already exists`.
    pub fn place_new(&self, name: &RelationName, search_path: &[String]) -> Result<String, SqlError> {
        let schema = match &name.schema {
            Some(schema) => schema.clone(),
            None => {
                let own = search_path.iter().find(|schema| self.schemas.contains_key(*schema));
                let message = "no schema has been selected to create in";
                own.cloned()
                    .ok_or_else(|| name.mark(SqlError::new(SqlState::INVALID_SCHEMA_NAME, message)))?
            }
        };
        self.check_schema(&schema)
            .and_then(|()| self.check_free(&schema, &name.name))
            .map_err(|e| name.mark(e))?;
        Ok(schema)
    }

    fn lookup(&self, name: &RelationName, search_path: &[String]) -> Option<&Arc<Relation>> {
        match &name.schema {
            Some(schema) => self.find(schema, &name.name),
            None => search_path.iter().find_map(|schema| self.find(schema, &name.name)),
        }
    }

    /// A schema that users may put things in.
    pub(crate) fn check_schema(&self, name: &str) -> Result<(), SqlError> {
        if SYSTEM_SCHEMAS.contains(&name) {
            let message = format!("permission denied for schema {name}");
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
                .detail(format!("The schema {name} belongs to the system.")));
        }
        if self.schemas.contains_key(name) { Ok(()) } else { Err(self.missing_schema(name)) }
    }

    /// Nothing has this name yet.
    pub(crate) fn check_free(&self, schema: &str, name: &str) -> Result<(), SqlError> {
        if self.find(schema, name).is_none() {
            return Ok(());
        }
        Err(SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")))
    }

    pub(crate) fn missing_schema(&self, name: &str) -> SqlError {
        let error = SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"));
        match nearest(name, self.schemas.keys().map(String::as_str)) {
            Some(near) => error.hint(format!("Perhaps you meant the schema \"{near}\".")),
            None => error,
        }
    }

    /// What the user may have meant: the same name in another schema, or a similar one where he looked.
    fn with_near_miss(&self, error: SqlError, name: &RelationName, search_path: &[String]) -> SqlError {
        let elsewhere = self.relations.values().find(|relation| relation.name == name.name);
        if let Some(relation) = elsewhere {
            return error.hint(format!("Perhaps you meant \"{}.{}\".", relation.schema, relation.name));
        }
        let looked_in = |schema: &String| match &name.schema {
            Some(given) => given == schema,
            None => search_path.contains(schema),
        };
        let names = self.relations.values().filter(|r| looked_in(&r.schema)).map(|r| r.name.as_str());
        match nearest(&name.name, names) {
            Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
            None => error,
        }
    }
}

/// As PostgreSQL shows a name in messages: not quoted inside.
fn shown(name: &RelationName) -> String {
    match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    }
}

fn article(kind: ObjectKind) -> &'static str {
    if kind == ObjectKind::Index { "an" } else { "a" }
}
