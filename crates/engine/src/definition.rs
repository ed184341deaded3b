//! What CREATE SOURCE and CREATE TABLE say of their columns, checked and as the catalog keeps it.

use std::sync::Arc;

use millpond_catalog::{Catalog, Column, Watermark};
use millpond_plan::{ColumnExpression, Metadata, Planner};
use millpond_sql::Options;
use millpond_sql::statement::{ColumnDef, Constraint, ConstraintKind, WatermarkDef};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::session::Session;
use crate::target::{OP, ROW_ID};

/// Options of the log that it does not follow yet.
pub(crate) fn refuse_topic_options(options: &mut Options, append_only: bool) -> Result<(), SqlError> {
    crate::retention::take(options, append_only)?;
    if let Some(partitions) = options.take_integer("partitions", 1..=65_536)?
        && partitions != 1
    {
        return Err(SqlError::unsupported("more than one partition is not supported yet")
            .hint("Leave the option out: one partition takes millions of rows per second."));
    }
    for name in ["idle_timeout", "max_ahead"] {
        if let Some(option) = options.take(name) {
            return Err(SqlError::unsupported(format!("the option \"{name}\" is not supported yet"))
                .hint("Leave it out: everything is kept.")
                .at(option.position));
        }
    }
    Ok(())
}

pub(crate) fn columns(definitions: &[ColumnDef]) -> Result<Vec<Column>, SqlError> {
    let mut columns: Vec<Column> = Vec::with_capacity(definitions.len());
    for definition in definitions {
        if columns.iter().any(|c| c.name == definition.name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", definition.name),
            )
            .at(definition.position));
        }
        let reserved =
            Metadata::of(&definition.name).is_some() || [ROW_ID, OP].contains(&definition.name.as_str());
        if reserved {
            return Err(SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("column name \"{}\" is reserved", definition.name),
            )
            .hint("The log keeps columns of that name for every relation.")
            .at(definition.position));
        }
        if definition.identity.is_some() {
            return Err(SqlError::unsupported("serial and identity columns are not supported yet")
                .hint("A table without a primary key numbers its rows by itself.")
                .at(definition.position));
        }
        if let Some(collation) = &definition.collation
            && !["C", "POSIX", "C.UTF-8", "default", "ucs_basic"].contains(&collation.as_str())
        {
            return Err(SqlError::unsupported(format!("collation \"{collation}\" is not supported"))
                .hint("Text is ordered by its bytes, which is the collation \"C\".")
                .at(definition.position));
        }
        columns.push(Column {
            name: definition.name.clone(),
            ty: definition.ty.clone(),
            nullable: definition.nullable,
            default: definition.default.as_ref().map(|e| e.text.clone()),
            generated: definition.generated.as_ref().map(|e| e.text.clone()),
            comment: None,
        });
    }
    Ok(columns)
}

fn own_planner(session: &Session, catalog: &Arc<Catalog>) -> Planner {
    session.inner.own_planner(catalog)
}

/// Types the columns' own expressions, so that a mistake is told now and not at the first row.
pub(crate) fn check_columns(
    session: &Session,
    catalog: &Arc<Catalog>,
    columns: &[Column],
) -> Result<(), SqlError> {
    let planner = own_planner(session, catalog);
    let facts = facts(columns);
    for column in columns {
        for text in column.default.iter().chain(&column.generated) {
            let expr = millpond_sql::parse_expression(text)?;
            let planned = planner.plan_column_expression(&facts, &expr, Some((&column.name, &column.ty)))?;
            if column.default.as_ref() == Some(text) && !planned.columns.is_empty() {
                return Err(SqlError::unsupported("cannot use column reference in DEFAULT expression"));
            }
            if column.generated.as_ref() == Some(text) {
                check_generated(columns, &planned)?;
            }
        }
    }
    Ok(())
}

fn check_generated(columns: &[Column], planned: &ColumnExpression) -> Result<(), SqlError> {
    if planned.volatile {
        return Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            "generation expression is not immutable",
        ));
    }
    match planned.columns.iter().find(|c| columns[**c].generated.is_some()) {
        Some(column) => Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!(
                "cannot use generated column \"{}\" in column generation expression",
                columns[*column].name
            ),
        )
        .detail("A generated column cannot reference another generated column.")),
        None => Ok(()),
    }
}

fn facts(columns: &[Column]) -> Vec<(String, SqlType, bool)> {
    columns.iter().map(|c| (c.name.clone(), c.ty.clone(), !c.nullable)).collect()
}

pub(crate) fn watermark(
    session: &Session,
    catalog: &Arc<Catalog>,
    columns: &[Column],
    definition: &WatermarkDef,
) -> Result<Watermark, SqlError> {
    let name = &definition.column.name;
    let column = columns.iter().position(|c| c.name == *name).ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
            .at(definition.column.position)
    })?;
    let is_time = |ty: &SqlType| matches!(ty, SqlType::Timestamp | SqlType::Timestamptz);
    let mismatch = |what: String| SqlError::new(SqlState::DATATYPE_MISMATCH, what);
    if !is_time(&columns[column].ty) {
        return Err(mismatch(format!(
            "a watermark needs a timestamp, and column \"{name}\" is of type {}",
            columns[column].ty
        ))
        .at(definition.column.position));
    }
    let planner = own_planner(session, catalog);
    let planned = planner.plan_column_expression(&facts(columns), &definition.expression.expr, None)?;
    if planned.ty != columns[column].ty {
        return Err(mismatch(format!(
            "the watermark of column \"{name}\" must be of its type {}, not {}",
            columns[column].ty, planned.ty
        ))
        .at(definition.expression.position));
    }
    if planned.volatile {
        return Err(SqlError::unsupported("a watermark cannot depend on chance or on the clock")
            .hint("Write it as the column minus an interval.")
            .at(definition.expression.position));
    }
    Ok(Watermark { column, expression: definition.expression.text.clone() })
}

pub(crate) fn primary_key(
    columns: &mut [Column],
    constraints: &[Constraint],
) -> Result<(Vec<usize>, Option<String>), SqlError> {
    let mut key = None;
    for constraint in constraints {
        match &constraint.kind {
            ConstraintKind::PrimaryKey(names) => {
                if key.is_some() {
                    return Err(SqlError::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        "multiple primary keys for the table are not allowed",
                    )
                    .at(constraint.position));
                }
                let mut indices = Vec::with_capacity(names.len());
                for name in names {
                    let index = columns.iter().position(|c| c.name == name.name).ok_or_else(|| {
                        SqlError::new(
                            SqlState::UNDEFINED_COLUMN,
                            format!("column \"{}\" named in key does not exist", name.name),
                        )
                        .at(name.position)
                    })?;
                    columns[index].nullable = false;
                    indices.push(index);
                }
                key = Some((indices, constraint.name.clone()));
            }
            ConstraintKind::ForeignKey { enforced: false, .. } => {}
            ConstraintKind::ForeignKey { .. } => {
                return Err(SqlError::unsupported("foreign keys are not enforced")
                    .hint("Write NOT ENFORCED behind the constraint.")
                    .at(constraint.position));
            }
            ConstraintKind::Unique(_) => {
                return Err(SqlError::unsupported("UNIQUE constraints are not supported yet")
                    .hint("A PRIMARY KEY is unique.")
                    .at(constraint.position));
            }
            ConstraintKind::Check(_) => {
                return Err(SqlError::unsupported("CHECK constraints are not supported yet")
                    .hint("Leave the constraint out.")
                    .at(constraint.position));
            }
        }
    }
    Ok(key.unwrap_or_default())
}
