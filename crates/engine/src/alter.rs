//! ALTER of what a topic is made of: its columns, and how it is laid out.
//!
//! A column is only ever added. Nothing of the log is rewritten: the frames that are there lack the column, and whoever reads
//! them fills in what the catalog says ([`crate::shape`]). A view keeps the columns that it was created with. Of a table whose
//! rows change, the images in memory are made anew, once, while no transaction has it locked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::ScalarValue;
use millpond_catalog::{Catalog, Change, Column, Relation, RelationKind};
use millpond_functions::text::Formatter;
use millpond_sql::Options;
use millpond_sql::statement::{ColumnDef, Constraint};
use millpond_types::{SqlError, SqlState};

use crate::definition::{LayoutOptions, check_columns, columns};
use crate::outcome::Severity;
use crate::session::Session;
use crate::shape::{Shape, constant};
use crate::snapshot::Snapshot;
use crate::table::grown;
use crate::target::{Key, stored_schema};
use crate::txn::lock_image;

/// `SET (option = …)` of a source or table.
///
/// # Errors
/// 22023, 42704 and 0A000 for an option that is wrong, unknown, or fixed for ever.
pub(crate) fn set_options(
    relation: &Relation,
    options: &Options,
    position: usize,
    text: &str,
) -> Result<Change, SqlError> {
    let Some(layout) = relation.layout() else {
        return Err(SqlError::unsupported(format!(
            "{} has no options that can change",
            relation.described()
        ))
        .hint("Drop it and create it again.")
        .at(position));
    };
    let mut options = options.clone();
    let shown: BTreeMap<_, _> =
        options.to_map().into_iter().map(|(name, value)| (name, Some(value))).collect();
    let given = LayoutOptions::take(&mut options)?;
    crate::retention::take(&mut options, relation.is_append_only())?;
    options.finish()?;
    let mut changed = layout.clone();
    given.change(&mut changed, relation)?;
    Ok(Change::Batch {
        changes: vec![
            Change::SetLayout { id: relation.id, layout: changed },
            Change::SetOptions { id: relation.id, options: shown },
            amend(relation, text),
        ],
    })
}

fn amend(relation: &Relation, text: &str) -> Change {
    Change::Amend { id: relation.id, statement: text.trim().trim_end_matches(';').to_owned() }
}

/// A column to be added.
pub(crate) struct NewColumn<'a> {
    pub definition: &'a ColumnDef,
    pub constraints: &'a [Constraint],
    pub if_not_exists: bool,
    /// The statement.
    pub text: &'a str,
}

/// `ADD COLUMN`: returns when it is published.
///
/// # Errors
/// 42701 for a name that is taken, 23502 for NOT NULL without a value for the rows that are there, 0A000 for what cannot be
/// added; 55P03 and 40P01 while another transaction holds the table.
pub(crate) async fn add_column(
    session: &mut Session,
    snapshot: &Arc<Snapshot>,
    relation: &Arc<Relation>,
    new: NewColumn<'_>,
) -> Result<(), SqlError> {
    let NewColumn { definition, constraints, if_not_exists, text } = new;
    let catalog = &snapshot.catalog;
    if relation.column_index(&definition.name).is_some() && if_not_exists {
        let message = format!(
            "column \"{}\" of relation \"{}\" already exists, skipping",
            definition.name, relation.name
        );
        session.notice(Severity::Notice, SqlState::DUPLICATE_COLUMN, message);
        return Ok(());
    }
    refuse_column(catalog, relation, definition, constraints)?;
    let mut column = columns(std::slice::from_ref(definition))?.remove(0);
    let mut all = relation.columns.clone();
    all.push(column.clone());
    check_columns(session, catalog, &all)?;
    column.missing = value_of_older_rows(session, snapshot, relation, &column)
        .map_err(|e| if e.position().is_none() { e.at(definition.position) } else { e })?;
    if !column.nullable && column.missing.is_none() {
        return Err(SqlError::new(
            SqlState::NOT_NULL_VIOLATION,
            format!("column \"{}\" of relation \"{}\" contains null values", column.name, relation.name),
        )
        .detail("The rows that are there, or are being written, have no value for it.")
        .hint("Give it a DEFAULT, or leave out NOT NULL.")
        .at(definition.position));
    }
    let change =
        Change::Batch { changes: vec![Change::AddColumn { id: relation.id, column }, amend(relation, text)] };
    catalog.apply(&change, millpond_types::Commit(0))?;
    if Key::of(relation) == Key::AppendOnly {
        crate::ddl::commit(session, &change).await?;
    } else {
        alter_table(session, snapshot, relation, &change).await?;
    }
    session.inner.forget_target(relation.id);
    Ok(())
}

fn refuse_column(
    catalog: &Catalog,
    relation: &Relation,
    definition: &ColumnDef,
    constraints: &[Constraint],
) -> Result<(), SqlError> {
    let refused =
        |what: String, hint: &str| Err(SqlError::unsupported(what).hint(hint).at(definition.position));
    if relation.column_index(&definition.name).is_some() {
        return Err(SqlError::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{}\" of relation \"{}\" already exists", definition.name, relation.name),
        )
        .at(definition.position));
    }
    match &relation.kind {
        RelationKind::Source(source) if source.connector.is_some() => {
            return refused(
                "a column cannot be added to a source whose rows come from a connector".into(),
                "Create another source with the column; views can read both.",
            );
        }
        RelationKind::Source(_) | RelationKind::Table(_) => {}
        _ => {
            return refused(
                format!("a column cannot be added to {}", relation.described()),
                "Create another view with the column.",
            );
        }
    }
    if definition.generated.is_some() {
        return refused(
            "an added column cannot be generated".into(),
            "A view can compute it for all rows, older ones too.",
        );
    }
    if !constraints.is_empty() {
        return refused("an added column cannot have a constraint but NOT NULL".into(), "Leave it out.");
    }
    let sink = catalog.dependants(relation.id).into_iter().find(|r| matches!(r.kind, RelationKind::Sink(_)));
    match sink {
        Some(sink) => refused(
            format!(
                "cannot add a column to {} because {} writes its rows",
                relation.described(),
                sink.described()
            ),
            "Drop the sink first, and create it again.",
        ),
        None => Ok(()),
    }
}

/// What rows get that were written without the column: the value of its DEFAULT now, as text; `None` is NULL.
fn value_of_older_rows(
    session: &Session,
    snapshot: &Arc<Snapshot>,
    relation: &Relation,
    column: &Column,
) -> Result<Option<String>, SqlError> {
    let Some(default) = &column.default else { return Ok(None) };
    let (planner, _) = session.planner(snapshot);
    let parsed = millpond_sql::parse_expression(default)?;
    let planned = planner.plan_column_expression(&[], &parsed, Some((&column.name, &column.ty)))?;
    if planned.expr.is_volatile() {
        return Err(SqlError::unsupported(
            "the DEFAULT of an added column cannot answer differently each time",
        )
        .hint("Add the column without it; rows that are there have one value only."));
    }
    let value = constant(&planned.expr)?;
    if value.is_null() {
        return Ok(None);
    }
    let array = value.to_array().map_err(millpond_functions::error::from_datafusion)?;
    let mut text = Vec::new();
    Formatter::new(&array, &column.ty)?.write(0, &mut text);
    let text = String::from_utf8(text).map_err(|_| SqlError::internal("a value's text is not UTF-8"))?;
    // The catalog keeps the text: it must mean the same value again.
    let mut with = relation.clone();
    with.columns.push(Column { missing: Some(text.clone()), ..column.clone() });
    let read = Shape::new(&with, &session.inner.own_planner(&snapshot.catalog))
        .and_then(|shape| shape.column(relation.columns.len(), 1));
    match read.map(|array| ScalarValue::try_from_array(&array, 0)) {
        Ok(Ok(again)) if again == value => Ok(Some(text)),
        _ => Err(SqlError::unsupported(format!(
            "an added column of type {} cannot have this DEFAULT",
            column.ty
        ))
        .hint("Add the column without it.")),
    }
}

/// Of a table whose rows change: its one writer waits, and goes on with an image that has the column.
async fn alter_table(
    session: &mut Session,
    snapshot: &Arc<Snapshot>,
    relation: &Arc<Relation>,
    change: &Change,
) -> Result<(), SqlError> {
    let inner = Arc::clone(&session.inner);
    let target = inner.target(&snapshot.catalog, relation.id)?;
    let lock_timeout: Option<Duration> = session.settings.time("lock_timeout");
    let mut image = lock_image(&inner, &target, lock_timeout).await?;
    crate::ddl::commit(session, change).await?;
    let catalog = Arc::clone(&inner.snapshot().catalog);
    let Some(relation) = catalog.relation(relation.id) else { return Ok(()) };
    if image.rows.schema().fields().len() < stored_schema(relation).fields().len() {
        let shape = Shape::new(relation, &inner.own_planner(&catalog))?;
        image.rows = grown(&image.rows.snapshot(), relation, &shape)?;
    }
    Ok(())
}
