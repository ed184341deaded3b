//! What a plan knows of a relation that it scans.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::{TableSource, TableType};
use millpond_catalog::{Relation, RelationKind};
use millpond_types::{RelationId, SqlType};

use crate::Metadata;

/// The facts of a catalog relation that planning needs, taken from the snapshot once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationFacts {
    pub id: RelationId,
    pub schema: String,
    pub name: String,
    /// Declared columns in order: name, type, NOT NULL.
    pub columns: Vec<(String, SqlType, bool)>,
    /// Rows are never retracted: sources, append-only tables, and views that planning proved so.
    pub append_only: bool,
    /// An append-only topic, whose rows have [`Metadata`]; not a table that changes, not a view.
    pub metadata: bool,
    /// Columns of a unique key (the primary key; of a view, what planning proved).
    pub key: Option<Vec<usize>>,
    /// The column that the WATERMARK is declared on.
    pub watermark: Option<usize>,
}

impl RelationFacts {
    pub fn of(relation: &Relation) -> Self {
        let key = match &relation.kind {
            RelationKind::Table(table) if !table.primary_key.is_empty() => Some(table.primary_key.clone()),
            RelationKind::MaterializedView(view) => view.unique_key.clone(),
            _ => None,
        };
        Self {
            id: relation.id,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: relation.columns.iter().map(|c| (c.name.clone(), c.ty.clone(), !c.nullable)).collect(),
            append_only: relation.is_append_only(),
            metadata: relation.is_topic() && relation.is_append_only(),
            key,
            watermark: relation.watermark().map(|w| w.column),
        }
    }
}

/// A scan's source: the relation, and which metadata columns the statement names (they stand after the declared ones).
///
/// The engine replaces it by a provider with [`crate::replace_relations`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationSource {
    facts: Arc<RelationFacts>,
    metadata: Vec<Metadata>,
    schema: SchemaRef,
}

impl RelationSource {
    pub fn new(facts: Arc<RelationFacts>, metadata: Vec<Metadata>) -> Self {
        let time = facts.watermark.map(|w| facts.columns[w].1.clone());
        let stored = facts.columns.iter().map(|(name, ty, not_null)| ty.field(name, !not_null));
        let named = metadata.iter().map(|m| m.field(time.as_ref()));
        let schema = Arc::new(Schema::new(stored.chain(named).collect::<Vec<_>>()));
        Self { facts, metadata, schema }
    }

    pub fn facts(&self) -> &Arc<RelationFacts> {
        &self.facts
    }

    /// Metadata columns of the schema, in order; they stand after the declared columns.
    pub fn metadata(&self) -> &[Metadata] {
        &self.metadata
    }

    /// The source behind a scan, if it is one of ours.
    pub fn of(source: &Arc<dyn TableSource>) -> Option<&RelationSource> {
        let any: &dyn std::any::Any = source.as_ref();
        any.downcast_ref::<RelationSource>()
    }

    /// The same relation with `metadata` among its columns, at the returned index.
    pub fn with_metadata(&self, metadata: Metadata) -> (Self, usize) {
        let stored = self.facts.columns.len();
        match self.metadata.iter().position(|m| *m == metadata) {
            Some(at) => (self.clone(), stored + at),
            None => {
                let mut all = self.metadata.clone();
                all.push(metadata);
                let at = stored + all.len() - 1;
                (Self::new(Arc::clone(&self.facts), all), at)
            }
        }
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }
}
