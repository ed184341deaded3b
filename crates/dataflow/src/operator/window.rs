//! TUMBLE, HOP and CUMULATE as a function of rows.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millpond_types::{Delta, SqlError};

use super::{Linear, Output, RejectedRow};
use crate::exchange::{times, times_as};
use crate::fault::Cause;
use crate::spec::{WindowKind, WindowSpec};

/// Each row once per window that its time belongs to; see [`WindowSpec`].
pub(crate) struct Windows {
    spec: WindowSpec,
    time_type: DataType,
    schema: SchemaRef,
}

impl Windows {
    /// # Errors
    /// XX000 if the time column is none.
    pub(crate) fn new(input: &SchemaRef, spec: WindowSpec) -> Result<Self, SqlError> {
        let field =
            input.fields().get(spec.time).filter(|f| matches!(f.data_type(), DataType::Timestamp(_, _)));
        let Some(time_type) = field.map(|f| f.data_type().clone()) else {
            return Err(SqlError::internal(format!(
                "column {} is no timestamp to make windows of",
                spec.time
            )));
        };
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        for name in ["window_start", "window_end"] {
            fields.push(Arc::new(Field::new(name, time_type.clone(), false)));
        }
        Ok(Self { spec, time_type, schema: Arc::new(Schema::new(fields)) })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn with_windows(&self, delta: &Delta, starts: Vec<i64>, ends: Vec<i64>) -> Result<Delta, Cause> {
        let mut columns = delta.batch.columns().to_vec();
        columns.push(times_as(&self.time_type, Int64Array::from(starts))?);
        columns.push(times_as(&self.time_type, Int64Array::from(ends))?);
        Ok(delta.with_batch(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}

impl Linear for Windows {
    fn name(&self) -> &'static str {
        match self.spec.kind {
            WindowKind::Tumble(_) => "tumble",
            WindowKind::Hop(_) => "hop",
            WindowKind::Cumulate(_) => "cumulate",
        }
    }

    fn window_columns(&self) -> Option<(usize, usize)> {
        let end = self.schema.fields().len() - 1;
        Some((end - 1, end))
    }

    fn apply(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause> {
        let column = times(delta.batch.column(self.spec.time))?;
        let nulls = column.nulls().filter(|n| n.null_count() > 0);
        let expands = !matches!(self.spec.kind, WindowKind::Tumble(_));
        let rows = delta.rows();
        let (mut starts, mut ends) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        // The row of each window; without gaps and repetitions it is not needed.
        let mut origin: Vec<u32> = Vec::new();
        let mut gaps = expands || nulls.is_some();
        // Windows lie side by side and neighbours are mostly in the same one, so most divisions can be saved.
        let mut last: Option<(i64, i64)> = None;
        for (row, &time) in column.values().iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let before = starts.len();
            let windows = match (&self.spec.kind, last) {
                (WindowKind::Tumble(_), Some((start, end))) if (start..end).contains(&time) => {
                    starts.push(start);
                    ends.push(end);
                    Ok(())
                }
                (WindowKind::Tumble(tumble), _) => tumble.start(time).and_then(|start| {
                    let end = tumble.end(start)?;
                    last = Some((start, end));
                    starts.push(start);
                    ends.push(end);
                    Ok(())
                }),
                (WindowKind::Hop(hop), _) => hop.starts(time, &mut starts).and_then(|()| {
                    for start in &starts[before..] {
                        ends.push(hop.end(*start)?);
                    }
                    Ok(())
                }),
                (WindowKind::Cumulate(cumulate), _) => cumulate.ends(time, &mut ends).map(|start| {
                    starts.resize(ends.len(), start);
                }),
            };
            if let Err(error) = windows {
                starts.truncate(before);
                ends.truncate(before);
                if !gaps {
                    origin.extend(0..row as u32);
                    gaps = true;
                }
                let (row, weight) = (delta.batch.slice(row, 1), delta.weight(row));
                out.rejected.push(RejectedRow { error, row, weight });
            } else if gaps {
                origin.extend(std::iter::repeat_n(row as u32, starts.len() - before));
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        let delta = if gaps { &delta.take(&UInt32Array::from(origin))? } else { delta };
        out.deltas.push(self.with_windows(delta, starts, ends)?);
        Ok(())
    }
}
