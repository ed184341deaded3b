//! Rows that were written before a column was added.
//!
//! Columns are only ever added behind the others, so a frame of an older version of its relation has the first columns of
//! today's; the others are NULL, or what the column's DEFAULT was when it was added.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use millpond_catalog::{Column, Relation};
use millpond_functions::error::from_datafusion;
use millpond_plan::{Planner, physical};
use millpond_types::{SqlError, SqlState};

use crate::target::{internal, stored_schema};

/// What the rows of a relation look like today.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The declared columns, and behind them the row's number where a table has no other key.
    stored: SchemaRef,
    declared: usize,
    /// Of each declared column: what older rows have; `None` is NULL.
    missing: Vec<Option<ScalarValue>>,
}

impl Shape {
    /// # Errors
    /// If the text of a column's value for older rows cannot be read: it was read when the column was added.
    pub fn new(relation: &Relation, planner: &Planner) -> Result<Self, SqlError> {
        let missing = relation.columns.iter().map(|column| missing(column, planner));
        Ok(Self {
            stored: stored_schema(relation),
            declared: relation.columns.len(),
            missing: missing.collect::<Result<_, _>>()?,
        })
    }

    /// A declared column for rows that were written without it.
    pub fn column(&self, column: usize, rows: usize) -> Result<ArrayRef, SqlError> {
        match &self.missing[column] {
            Some(value) => value.to_array_of_size(rows).map_err(from_datafusion),
            None => Ok(new_null_array(self.stored.field(column).data_type(), rows)),
        }
    }

    /// Rows of any version with today's columns.
    ///
    /// # Errors
    /// XX001 if they are no rows of this relation.
    pub fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let width = self.stored.fields().len();
        if batch.num_columns() == width {
            return Ok(batch.clone());
        }
        let hidden = width - self.declared;
        let known = batch.num_columns().checked_sub(hidden).filter(|known| *known < self.declared);
        let known = known.ok_or_else(|| {
            let columns = batch.num_columns();
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!("a frame has {columns} columns instead of {width}"),
            )
        })?;
        let mut columns = batch.columns()[..known].to_vec();
        for column in known..self.declared {
            columns.push(self.column(column, batch.num_rows())?);
        }
        columns.extend_from_slice(&batch.columns()[known..]);
        // A session that has not seen the new column yet writes NULL where the column has no default.
        let fields = self.stored.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Schema::new(fields.collect::<Vec<Field>>());
        RecordBatch::try_new(Arc::new(schema), columns).map_err(internal)
    }
}

fn missing(column: &Column, planner: &Planner) -> Result<Option<ScalarValue>, SqlError> {
    let Some(text) = &column.missing else { return Ok(None) };
    let quoted = millpond_sql::parse_expression(&millpond_sql::quote_literal(text))?;
    let planned = planner.plan_column_expression(&[], &quoted, Some((&column.name, &column.ty)))?;
    constant(&planned.expr).map(Some)
}

/// The value of an expression without columns.
pub(crate) fn constant(expr: &datafusion::logical_expr::Expr) -> Result<ScalarValue, SqlError> {
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1));
    let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(internal)?;
    let value = physical(expr, &one.schema())?.evaluate(&one).map_err(from_datafusion)?;
    let array = value.into_array(1).map_err(from_datafusion)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}
