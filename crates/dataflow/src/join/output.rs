//! Rows of the output, gathered from both sides.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::take;
use millpond_state::{Heap, RowId};
use millpond_types::Delta;

use super::Shape;
use crate::fault::Cause;
use crate::operator::{Output, RejectedRow};
use crate::spec::{JoinKind, Residual};

/// Where the values of one side of some output rows are.
pub(super) enum Values<'a> {
    Delta(&'a [ArrayRef], UInt32Array),
    Stored(&'a Heap, Vec<RowId>),
    Nulls,
}

impl Values<'_> {
    /// The columns `wanted`, `rows` values of each.
    fn columns(
        &self,
        shape: &Shape,
        side: usize,
        wanted: &[usize],
        rows: usize,
    ) -> Result<Vec<ArrayRef>, Cause> {
        match self {
            Self::Delta(columns, indices) => {
                wanted.iter().map(|column| Ok(take(&columns[*column], indices, None)?)).collect()
            }
            Self::Stored(_, _) if wanted.is_empty() => Ok(Vec::new()),
            Self::Stored(heap, ids) => {
                // A column is gathered once, however often it stands in the output.
                let mut distinct: Vec<usize> = Vec::with_capacity(wanted.len());
                wanted.iter().for_each(|column| {
                    if !distinct.contains(column) {
                        distinct.push(*column);
                    }
                });
                let batch = heap.gather(ids, Some(&distinct))?;
                let place =
                    |column: &usize| distinct.iter().position(|d| d == column).expect("just gathered");
                Ok(wanted.iter().map(|column| Arc::clone(batch.column(place(column)))).collect())
            }
            Self::Nulls => {
                let field = |column: &usize| shape.schemas[side].field(*column).data_type();
                Ok(wanted.iter().map(|column| new_null_array(field(column), rows)).collect())
            }
        }
    }
}

/// Columns of both sides in the order of `places`.
fn compose(
    shape: &Shape,
    places: &[(usize, usize)],
    values: [&Values; 2],
    rows: usize,
) -> Result<Vec<ArrayRef>, Cause> {
    let mut gathered = Vec::with_capacity(2);
    for (side, values) in values.into_iter().enumerate() {
        let wanted: Vec<usize> = places.iter().filter(|place| place.0 == side).map(|place| place.1).collect();
        gathered.push(values.columns(shape, side, &wanted, rows)?.into_iter());
    }
    Ok(places.iter().map(|place| gathered[place.0].next().expect("one array per place")).collect())
}

impl Shape {
    /// Output rows with these weights; the last column of a mark join says `marks`.
    pub(super) fn emit(
        &self,
        values: [&Values; 2],
        weights: Vec<i64>,
        marks: Option<Vec<bool>>,
        out: &mut Output,
    ) -> Result<(), Cause> {
        let rows = weights.len();
        if rows == 0 {
            return Ok(());
        }
        let mut columns = compose(self, &self.output, values, rows)?;
        if self.kind == JoinKind::LeftMark {
            columns.push(Arc::new(BooleanArray::from(marks.unwrap_or_default())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let plain = weights.iter().all(|weight| *weight == 1);
        out.deltas.push(Delta::new(batch, (!plain).then(|| Int64Array::from(weights))));
        Ok(())
    }

    /// Rows of one side alone.
    pub(super) fn emit_alone(
        &self,
        side: usize,
        values: &Values,
        weights: Vec<i64>,
        marks: Vec<bool>,
        out: &mut Output,
    ) -> Result<(), Cause> {
        let values = if side == 0 { [values, &Values::Nulls] } else { [&Values::Nulls, values] };
        self.emit(values, weights, Some(marks), out)
    }

    /// Which pairs meet the residual condition. Those that it fails for do not, and are rejected with their weight.
    pub(super) fn residual(
        &self,
        values: [&Values; 2],
        weights: &[i64],
        out: &mut Output,
    ) -> Result<Option<Vec<bool>>, Cause> {
        let Some(residual) = &self.residual else { return Ok(None) };
        let left = self.width(0);
        let places: Vec<(usize, usize)> = residual
            .columns
            .iter()
            .map(|column| column.checked_sub(left).map_or((0, *column), |column| (1, column)))
            .collect();
        let columns = compose(self, &places, values, weights.len())?;
        let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.residual_schema), columns, &options)?;
        let mut kept = Vec::with_capacity(weights.len());
        residual.test(&batch, weights, &mut kept, out)?;
        Ok(Some(kept))
    }
}

impl Residual {
    /// As a filter does, by halves until the bad pairs stand alone.
    pub(super) fn test(
        &self,
        batch: &RecordBatch,
        weights: &[i64],
        kept: &mut Vec<bool>,
        out: &mut Output,
    ) -> Result<(), Cause> {
        use arrow::array::AsArray;
        let rows = batch.num_rows();
        let mask = self.expression.evaluate(batch).and_then(|value| value.into_array(rows));
        match mask {
            Ok(mask) => {
                let Some(mask) = mask.as_boolean_opt() else {
                    let found = mask.data_type().to_string();
                    return Err(Cause::Schema { expected: "boolean".to_owned(), found });
                };
                kept.extend(mask.iter().map(|value| value == Some(true)));
            }
            Err(error) if rows <= 1 => {
                let error = millpond_functions::error::from_datafusion(error);
                out.rejected.push(RejectedRow { error, row: batch.clone(), weight: weights[0] });
                kept.push(false);
            }
            Err(_) => {
                let half = rows / 2;
                self.test(&batch.slice(0, half), &weights[..half], kept, out)?;
                self.test(&batch.slice(half, rows - half), &weights[half..], kept, out)?;
            }
        }
        Ok(())
    }
}
