//! Filter and projection in one pass.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use millpond_functions::error::from_datafusion;
use millpond_types::{Delta, SqlError};

use super::{Linear, Output, RejectedRow};
use crate::fault::Cause;
use crate::spec::MapSpec;

/// Keeps rows whose predicate is true (NULL is not true) and computes columns from them.
///
/// An expression fails for a whole batch. Then the batch is halved until the rows stand alone that it fails for; these are
/// rejected with their weight, so that a later retraction, which fails alike, takes the error back. With k bad rows of n
/// this evaluates O(k log n) pieces.
pub(crate) struct Map {
    spec: MapSpec,
    schema: SchemaRef,
}

enum Failure {
    Row(SqlError),
    Cause(Cause),
}

impl Map {
    pub(crate) fn new(spec: MapSpec) -> Self {
        let fields: Vec<_> = spec.projection.iter().map(|(_, field)| Arc::clone(field)).collect();
        Self { spec, schema: Arc::new(Schema::new(fields)) }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn evaluate(&self, delta: &Delta) -> Result<Delta, Failure> {
        let row = |error| Failure::Row(from_datafusion(error));
        let arrow = |error| Failure::Cause(Cause::Arrow(error));
        let mut kept = None;
        if let Some(filter) = &self.spec.filter {
            let mask = filter.evaluate(&delta.batch).map_err(row)?;
            let mask = mask.into_array(delta.rows()).map_err(row)?;
            let Some(mask) = mask.as_boolean_opt() else {
                return Err(Failure::Cause(self.misfit("boolean", mask.data_type())));
            };
            if mask.true_count() < delta.rows() {
                kept = Some(delta.filter(mask).map_err(arrow)?);
            }
        }
        let delta = kept.as_ref().unwrap_or(delta);
        let mut columns = Vec::with_capacity(self.spec.projection.len());
        for (expression, field) in &self.spec.projection {
            let value = expression.evaluate(&delta.batch).map_err(row)?;
            let column = value.into_array(delta.rows()).map_err(row)?;
            if column.data_type() != field.data_type() {
                return Err(Failure::Cause(self.misfit(field.data_type(), column.data_type())));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(delta.rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        Ok(delta.with_batch(batch.map_err(arrow)?))
    }

    fn misfit(&self, expected: impl ToString, found: impl ToString) -> Cause {
        Cause::Schema { expected: expected.to_string(), found: found.to_string() }
    }
}

impl Linear for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn apply(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause> {
        match self.evaluate(delta) {
            Ok(mapped) if mapped.is_empty() => Ok(()),
            Ok(mapped) => {
                out.deltas.push(mapped);
                Ok(())
            }
            Err(Failure::Cause(cause)) => Err(cause),
            Err(Failure::Row(error)) if delta.rows() <= 1 => {
                let (row, weight) = (delta.batch.clone(), delta.weight(0));
                out.rejected.push(RejectedRow { error, row, weight });
                Ok(())
            }
            Err(Failure::Row(_)) => {
                let half = delta.rows() / 2;
                self.apply(&delta.slice(0, half), out)?;
                self.apply(&delta.slice(half, delta.rows() - half), out)
            }
        }
    }
}
