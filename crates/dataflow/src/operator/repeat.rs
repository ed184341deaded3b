//! Each row as often as one of its columns says: the last step of INTERSECT ALL and EXCEPT ALL.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use millpond_types::{Delta, SqlError};

use super::{Linear, Output};
use crate::fault::Cause;

/// Gives a row the weight that it has times the value of a column, and drops that column. A row whose value is NULL or not
/// above 0 is dropped.
pub(crate) struct Repeat {
    times: usize,
    schema: SchemaRef,
}

impl Repeat {
    /// # Errors
    /// XX000 if the column is none or of another type than bigint.
    pub(crate) fn new(input: &SchemaRef, times: usize) -> Result<Self, SqlError> {
        if input.fields().get(times).is_none_or(|field| *field.data_type() != DataType::Int64) {
            return Err(SqlError::internal(format!("column {times} does not say how often a row stands")));
        }
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        fields.remove(times);
        Ok(Self { times, schema: Arc::new(Schema::new(fields)) })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Linear for Repeat {
    fn name(&self) -> &'static str {
        "repeat"
    }

    fn apply(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause> {
        let times = delta.batch.column(self.times).as_primitive::<Int64Type>();
        let kept = (0..delta.rows() as u32).filter(|row| {
            let row = *row as usize;
            times.is_valid(row) && times.value(row) > 0
        });
        let kept: Vec<u32> = kept.collect();
        if kept.is_empty() {
            return Ok(());
        }
        let weights: Int64Array = kept
            .iter()
            .map(|row| delta.weight(*row as usize).wrapping_mul(times.value(*row as usize)))
            .collect();
        let batch = arrow::compute::take_record_batch(&delta.batch, &UInt32Array::from(kept))?;
        let mut columns = batch.columns().to_vec();
        columns.remove(self.times);
        let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        out.deltas.push(Delta::new(batch, Some(weights)));
        Ok(())
    }
}
