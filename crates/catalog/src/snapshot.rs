//! The catalog at one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_types::{Commit, RelationId, SqlError, SqlState};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::relation::{Column, Layout, Relation, RelationKind};

/// Schemas that always exist and that users cannot add to.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "millpond"];

/// Ids of user-made objects begin where PostgreSQL's do: lower numbers are the system's oids.
const FIRST_ID: RelationId = RelationId(16_384);

/// All names at one commit. Cloning costs a reference count per relation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    pub(crate) relations: BTreeMap<RelationId, Arc<Relation>>,
    /// User-made schemas and `public`.
    pub(crate) schemas: BTreeMap<String, Schema>,
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
        let public = Schema {
            name: "public".to_owned(),
            owner: "millpond".to_owned(),
            id: RelationId(2200), // as in PostgreSQL
        };
        Self {
            relations: BTreeMap::new(),
            schemas: BTreeMap::from([(public.name.clone(), public)]),
            next_id: FIRST_ID,
            version: 0,
        }
    }

    /// The id that the next created relation must carry.
    pub fn next_id(&self) -> RelationId {
        self.next_id
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The catalog as a definition saw it that was made at `commit`: relations without the columns that were added since. The
    /// text of a query with `*` in it keeps its meaning so.
    pub fn as_of(self: &Arc<Self>, commit: Commit) -> Arc<Self> {
        let is_later = |column: &Column| column.added_at > commit;
        let has_grown = |relation: &Relation| relation.columns.last().is_some_and(is_later);
        if !self.relations.values().any(|relation| has_grown(relation)) {
            return Arc::clone(self);
        }
        let mut before = (**self).clone();
        for relation in before.relations.values_mut() {
            if has_grown(relation) {
                Arc::make_mut(relation).columns.retain(|column| !is_later(column));
            }
        }
        Arc::new(before)
    }

    /// The next catalog. `commit` is that of the record, and becomes `created_at` of what is created.
    ///
    /// # Errors
    /// What PostgreSQL says of a duplicate or missing name; the change is checked in full before anything is changed, so
    /// the same check serves before a record is written and when it is replayed.
    pub fn apply(&self, change: &Change, commit: Commit) -> Result<Catalog, SqlError> {
        let mut next = self.clone();
        next.fold(change, commit)?;
        next.version += 1;
        Ok(next)
    }

    fn fold(&mut self, change: &Change, commit: Commit) -> Result<(), SqlError> {
        match change {
            Change::CreateSchema { name, owner } => {
                if self.has_schema(name) {
                    let message = format!("schema \"{name}\" already exists");
                    return Err(SqlError::new(SqlState::DUPLICATE_SCHEMA, message));
                }
                check_reserved_schema_name(name)?;
                let schema = Schema { name: name.clone(), owner: owner.clone(), id: self.take_id() };
                self.schemas.insert(name.clone(), schema);
            }
            Change::DropSchema { name } => {
                self.check_schema(name)?;
                if self.relations.values().any(|relation| relation.schema == *name) {
                    let message = format!("cannot drop schema {name} because other objects depend on it");
                    return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
                }
                self.schemas.remove(name);
            }
            Change::CreateRelation { relation } => {
                if relation.id != self.next_id {
                    let message = format!(
                        "relation \"{}\" has id {}, not {}",
                        relation.name, relation.id, self.next_id
                    );
                    return Err(SqlError::internal(message));
                }
                self.check_relation(relation)?;
                self.check_free(&relation.schema, &relation.name)?;
                self.take_id();
                let relation = Relation { created_at: commit, ..(**relation).clone() };
                self.relations.insert(relation.id, Arc::new(relation));
            }
            Change::ReplaceRelation { relation } => {
                self.check_relation(relation)?;
                let old = self.get(relation.id)?;
                if old.kind.object() != relation.kind.object()
                    || old.name != relation.name
                    || old.schema != relation.schema
                {
                    let message = format!("cannot replace {} by {}", old.described(), relation.described());
                    return Err(SqlError::internal(message));
                }
                if self.transitive_dependants(relation.id).iter().any(|id| relation.dependencies.contains(id))
                {
                    let message =
                        format!("infinite recursion detected in definition of \"{}\"", relation.name);
                    return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
                }
                let columns_changed = old.columns != relation.columns;
                let relation = Relation {
                    created_at: old.created_at,
                    schema_version: old.schema_version + u32::from(columns_changed),
                    ..(**relation).clone()
                };
                self.relations.insert(relation.id, Arc::new(relation));
            }
            Change::DropRelations { ids } => {
                for id in ids {
                    self.get(*id)?;
                }
                for id in ids {
                    self.relations.remove(id);
                }
                let orphan =
                    self.relations.values().find(|r| r.dependencies.iter().any(|id| ids.contains(id)));
                if let Some(orphan) = orphan {
                    let message = format!("{} would be left without what it depends on", orphan.described());
                    return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
                }
            }
            Change::RenameRelation { id, name } => {
                let schema = self.get(*id)?.schema.clone();
                self.check_free(&schema, name)?;
                self.edit(*id)?.name.clone_from(name);
            }
            Change::SetSchema { id, schema } => {
                self.check_schema(schema)?;
                let name = self.get(*id)?.name.clone();
                self.check_free(schema, &name)?;
                self.edit(*id)?.schema.clone_from(schema);
            }
            Change::RenameColumn { id, column, name } => {
                let relation = self.edit(*id)?;
                check_new_column(relation, name)?;
                column_of(relation, *column)?.name.clone_from(name);
                relation.schema_version += 1;
            }
            Change::AddColumn { id, column } => {
                let relation = self.edit(*id)?;
                check_new_column(relation, &column.name)?;
                relation.columns.push(Column { added_at: commit, ..column.clone() });
                relation.schema_version += 1;
            }
            Change::SetLayout { id, layout } => {
                let relation = self.edit(*id)?;
                let columns = relation.columns.len();
                let described = relation.described();
                let wrong = || SqlError::internal(format!("{described} cannot have that layout"));
                let now = relation.layout_mut().ok_or_else(wrong)?;
                if layout.partitions < now.partitions || layout.partition_by.iter().any(|c| *c >= columns) {
                    return Err(wrong());
                }
                now.clone_from(layout);
            }
            Change::Amend { id, statement } => {
                let relation = self.edit(*id)?;
                relation.definition.push_str(";\n");
                relation.definition.push_str(statement);
            }
            Change::SetOptions { id, options } => {
                let relation = self.edit(*id)?;
                for (name, value) in options {
                    match value {
                        Some(value) => relation.options.insert(name.clone(), value.clone()),
                        None => relation.options.remove(name),
                    };
                }
            }
            Change::SetPaused { id, paused } => match &mut self.edit(*id)?.kind {
                RelationKind::MaterializedView(view) => view.paused = *paused,
                _ => return Err(SqlError::internal(format!("relation {id} cannot be paused"))),
            },
            Change::SetOwner { id, owner } => self.edit(*id)?.owner.clone_from(owner),
            Change::Comment { id, column, comment } => {
                let relation = self.edit(*id)?;
                match column {
                    Some(column) => column_of(relation, *column)?.comment.clone_from(comment),
                    None => relation.comment.clone_from(comment),
                }
            }
            Change::Batch { changes } => {
                for change in changes {
                    self.fold(change, commit)?;
                }
            }
        }
        Ok(())
    }

    fn take_id(&mut self) -> RelationId {
        let id = self.next_id;
        self.next_id = RelationId(id.0 + 1);
        id
    }

    fn get(&self, id: RelationId) -> Result<&Arc<Relation>, SqlError> {
        let message =
            || SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation with id {id} does not exist"));
        self.relations.get(&id).ok_or_else(message)
    }

    /// A copy of the relation in this catalog, to be changed.
    fn edit(&mut self, id: RelationId) -> Result<&mut Relation, SqlError> {
        self.get(id)?;
        Ok(Arc::make_mut(self.relations.get_mut(&id).expect("looked up above")))
    }

    /// What a relation says of itself fits together, and with the catalog.
    fn check_relation(&self, relation: &Relation) -> Result<(), SqlError> {
        self.check_schema(&relation.schema)?;
        for (at, column) in relation.columns.iter().enumerate() {
            if relation.columns[..at].iter().any(|earlier| earlier.name == column.name) {
                let message = format!("column \"{}\" specified more than once", column.name);
                return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
            }
        }
        for id in &relation.dependencies {
            self.get(*id)?;
        }
        let within =
            |columns: &[usize], of: &Relation| columns.iter().all(|column| *column < of.columns.len());
        let laid_out = |layout: &Layout| layout.partitions > 0 && within(&layout.partition_by, relation);
        let fits = match &relation.kind {
            RelationKind::Source(source) => {
                laid_out(&source.layout) && source.watermark.iter().all(|w| within(&[w.column], relation))
            }
            RelationKind::Table(table) => {
                laid_out(&table.layout)
                    && within(&table.primary_key, relation)
                    && table.watermark.iter().all(|w| within(&[w.column], relation))
            }
            RelationKind::Index(index) => {
                let of = self.get(index.relation)?;
                within(&index.columns, of) && within(&index.include, of)
            }
            RelationKind::MaterializedView(view) => view.unique_key.iter().all(|key| within(key, relation)),
            RelationKind::View(_) | RelationKind::Sink(_) => true,
        };
        let message =
            || SqlError::internal(format!("the definition of {} contradicts itself", relation.described()));
        fits.then_some(()).ok_or_else(message)
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

/// PostgreSQL keeps names with this prefix for itself.
fn check_reserved_schema_name(name: &str) -> Result<(), SqlError> {
    if !name.starts_with("pg_") {
        return Ok(());
    }
    Err(SqlError::new(SqlState::RESERVED_NAME, format!("unacceptable schema name \"{name}\""))
        .detail("The prefix \"pg_\" is reserved for system schemas."))
}

fn check_new_column(relation: &Relation, name: &str) -> Result<(), SqlError> {
    if relation.column_index(name).is_none() {
        return Ok(());
    }
    let message = format!("column \"{name}\" of relation \"{}\" already exists", relation.name);
    Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message))
}

fn column_of(relation: &mut Relation, column: usize) -> Result<&mut crate::relation::Column, SqlError> {
    let message = format!("{} has no column at {column}", relation.described());
    relation.columns.get_mut(column).ok_or_else(|| SqlError::internal(message))
}
