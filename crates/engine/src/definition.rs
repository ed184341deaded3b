//! What CREATE SOURCE and CREATE TABLE say of their columns, checked and as the catalog keeps it.

use std::sync::Arc;

use millpond_catalog::{Catalog, Column, Layout, Relation, Watermark};
use millpond_plan::{ColumnExpression, Metadata, Planner, is_proctime};
use millpond_sql::statement::{ColumnDef, Constraint, ConstraintKind, WatermarkDef};
use millpond_sql::{OptionEntry, OptionValue, Options};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::session::Session;
use crate::target::{OP, ROW_ID};

/// The most partitions of a topic: a batch may be cut into as many frames.
const PARTITIONS_MAX: i64 = 4096;

/// What WITH and SET say of a topic's layout, before its columns are known.
#[derive(Default)]
pub(crate) struct LayoutOptions {
    partitions: Option<u32>,
    partition_by: Option<OptionEntry>,
    idle_timeout: Option<i64>,
}

impl LayoutOptions {
    /// # Errors
    /// 22023 for values that are none.
    pub fn take(options: &mut Options) -> Result<Self, SqlError> {
        let partitions = options.take_integer("partitions", 1..=PARTITIONS_MAX)?;
        let partition_by = options.take("partition_by");
        let given = options.entries().iter().find(|entry| entry.name == "idle_timeout").cloned();
        let idle_timeout = options.take_duration("idle_timeout")?;
        if let (Some(entry), Some(..0)) = (given, idle_timeout) {
            return Err(entry.invalid("a length of time such as '30s'; '0s' is for never"));
        }
        Ok(Self { partitions: partitions.map(|n| n as u32), partition_by, idle_timeout })
    }

    /// The layout of a new topic of these columns.
    ///
    /// # Errors
    /// 42703, 42701 and 0A000 for columns that cannot choose a partition.
    pub fn layout(&self, columns: &[Column], append_only: bool) -> Result<Layout, SqlError> {
        if !append_only && (self.partitions.unwrap_or(1) > 1 || self.partition_by.is_some()) {
            return Err(SqlError::unsupported("a table whose rows change has one partition")
                .hint("Its rows are found by their key. Declare it APPEND ONLY, or use CREATE SOURCE."));
        }
        let mut layout = Layout::default();
        layout.partitions = self.partitions.unwrap_or(layout.partitions);
        layout.idle_timeout = self.idle_timeout.unwrap_or(layout.idle_timeout);
        if let Some(entry) = &self.partition_by {
            layout.partition_by = partition_key(entry, columns)?;
        }
        Ok(layout)
    }

    /// Changes the layout of a topic that is there.
    ///
    /// # Errors
    /// 22023 for fewer partitions; 0A000 for another key.
    pub fn change(&self, layout: &mut Layout, relation: &Relation) -> Result<(), SqlError> {
        if let Some(entry) = &self.partition_by {
            return Err(SqlError::unsupported("the key of the partitions cannot change")
                .hint("Create another source, and INSERT INTO it SELECT from this one.")
                .at(entry.position));
        }
        if let Some(partitions) = self.partitions {
            if partitions < layout.partitions {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!(
                        "{} has {} partitions and cannot have fewer",
                        relation.described(),
                        layout.partitions
                    ),
                )
                .detail("A partition keeps its rows and their offsets."));
            }
            if partitions > 1 && !relation.is_append_only() {
                return Err(SqlError::unsupported("a table whose rows change has one partition")
                    .hint("Its rows are found by their key."));
            }
            layout.partitions = partitions;
        }
        layout.idle_timeout = self.idle_timeout.unwrap_or(layout.idle_timeout);
        Ok(())
    }
}

/// The columns in `partition_by = 'a, b'`.
fn partition_key(entry: &OptionEntry, columns: &[Column]) -> Result<Vec<usize>, SqlError> {
    let text = match &entry.value {
        OptionValue::String(text) | OptionValue::Word(text) => text,
        _ => return Err(entry.invalid("the names of columns, such as 'a, b'")),
    };
    let mut key = Vec::new();
    for name in text.split(',').map(str::trim) {
        let Some(at) = columns.iter().position(|column| column.name == name) else {
            return Err(SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in partition_by does not exist"),
            )
            .at(entry.value_position));
        };
        if key.contains(&at) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" appears twice in partition_by"),
            )
            .at(entry.value_position));
        }
        if columns[at].ty.arrow().is_nested() {
            return Err(SqlError::unsupported(format!("partition_by a column of type {}", columns[at].ty))
                .hint("Use columns of numbers, texts or times.")
                .at(entry.value_position));
        }
        key.push(at);
    }
    Ok(key)
}

/// Options of the log that it does not follow yet.
pub(crate) fn refuse_topic_options(options: &mut Options, append_only: bool) -> Result<(), SqlError> {
    crate::retention::take(options, append_only)?;
    if let Some(option) = options.take("max_ahead") {
        return Err(SqlError::unsupported("the option \"max_ahead\" is not supported yet")
            .hint("Leave it out.")
            .at(option.position));
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
            default: definition.default.as_ref().map(|e| e.text.clone()),
            generated: definition.generated.as_ref().map(|e| e.text.clone()),
            ..Column::new(&definition.name, definition.ty.clone(), definition.nullable)
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
            if column.generated.as_ref() == Some(text) && is_proctime(&expr) {
                if column.ty != SqlType::Timestamptz {
                    return Err(SqlError::new(
                        SqlState::DATATYPE_MISMATCH,
                        format!(
                            "column \"{}\" is of type {}, and proctime() of timestamptz",
                            column.name, column.ty
                        ),
                    )
                    .hint("Declare it timestamptz, and cast it in queries."));
                }
                continue;
            }
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
