//! Two multisets of rows compared, for VERIFY MATERIALIZED VIEW.
//!
//! A sum of floats depends on the order of its terms in the last digits, and the batch that a view is compared with adds
//! them in another. Rows that differ in nothing but floats, and in these by no more than [`RELATIVE`] of the larger one or
//! [`ABSOLUTE`], are therefore the same; everything else is compared exactly.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use millpond_types::{SqlError, SqlType};

use crate::target::internal;

const RELATIVE: f64 = 1e-9;
const ABSOLUTE: f64 = 1e-12;

/// Rows by how often they are in `kept` more than in `expected`; only those that are not equally often in both.
pub(crate) fn difference(
    schema: &arrow::datatypes::SchemaRef,
    kept: &[RecordBatch],
    expected: &[RecordBatch],
) -> Result<RecordBatch, SqlError> {
    let named = |batches: &[RecordBatch]| -> Result<RecordBatch, SqlError> {
        let mut renamed = Vec::with_capacity(batches.len());
        for batch in batches {
            renamed
                .push(RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec()).map_err(internal)?);
        }
        concat_batches(schema, &renamed).map_err(internal)
    };
    let all = concat_batches(schema, [&named(kept)?, &named(expected)?]).map_err(internal)?;
    let kept_rows: usize = kept.iter().map(RecordBatch::num_rows).sum();
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let encoded = converter.convert_columns(all.columns()).map_err(internal)?;
    let mut counts: HashMap<OwnedRow, (i64, u32)> = HashMap::new();
    for (at, row) in encoded.iter().enumerate() {
        let entry = counts.entry(row.owned()).or_insert((0, at as u32));
        entry.0 += if at < kept_rows { 1 } else { -1 };
    }
    let mut wrong: Vec<(u32, i64)> =
        counts.into_values().filter(|(n, _)| *n != 0).map(|(n, at)| (at, n)).collect();
    wrong.sort_unstable();
    without_close_floats(&all, &mut wrong)?;
    let rows = UInt32Array::from_iter_values(wrong.iter().map(|(at, _)| *at));
    let picked = take_record_batch(&all, &rows).map_err(internal)?;
    let mut fields = vec![SqlType::Int8.field("difference", false)];
    fields.extend(schema.fields().iter().map(|f| f.as_ref().clone()));
    let mut arrays: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(wrong.iter().map(|(_, n)| *n)))];
    arrays.extend(picked.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(internal)
}

/// Takes pairs out of `wrong` (row, how often it is there too often) that differ in floats alone, and hardly.
fn without_close_floats(rows: &RecordBatch, wrong: &mut Vec<(u32, i64)>) -> Result<(), SqlError> {
    let is_float = |ty: &DataType| matches!(ty, DataType::Float32 | DataType::Float64);
    let (floats, others): (Vec<&ArrayRef>, Vec<&ArrayRef>) =
        rows.columns().iter().partition(|column| is_float(column.data_type()));
    if floats.is_empty() || wrong.is_empty() {
        return Ok(());
    }
    let at = UInt32Array::from_iter_values(wrong.iter().map(|(row, _)| *row));
    let taken = |columns: &[&ArrayRef]| -> Result<Vec<ArrayRef>, SqlError> {
        columns.iter().map(|column| arrow::compute::take(column, &at, None).map_err(internal)).collect()
    };
    let mut others = taken(&others)?;
    // Rows with NULL are close to such rows only.
    let nulls = |column: &&ArrayRef| arrow::compute::is_null(column).map(|nulls| Arc::new(nulls) as ArrayRef);
    others
        .extend(taken(&floats)?.iter().map(|c| nulls(&c)).collect::<Result<Vec<_>, _>>().map_err(internal)?);
    let fields = others.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let encoded = converter.convert_columns(&others).map_err(internal)?;
    let mut alike: HashMap<OwnedRow, Vec<usize>> = HashMap::new();
    for (place, row) in encoded.iter().enumerate() {
        alike.entry(row.owned()).or_default().push(place);
    }
    for mut places in alike.into_values() {
        // Close rows stand near each other then.
        places.sort_by(|a, b| value(floats[0], wrong[*a].0).total_cmp(&value(floats[0], wrong[*b].0)));
        for (n, &one) in places.iter().enumerate() {
            for &other in &places[n + 1..] {
                let (a, b) = (wrong[one], wrong[other]);
                if !close(floats[0], a.0, b.0) {
                    break;
                }
                if a.1.signum() * b.1.signum() < 0 && floats.iter().all(|column| close(column, a.0, b.0)) {
                    let common = a.1.abs().min(b.1.abs());
                    wrong[one].1 -= a.1.signum() * common;
                    wrong[other].1 -= b.1.signum() * common;
                }
            }
        }
    }
    wrong.retain(|(_, n)| *n != 0);
    Ok(())
}

/// NULL and all NaNs are one number behind all others.
fn value(column: &ArrayRef, row: u32) -> f64 {
    let row = row as usize;
    let value = match column.data_type() {
        _ if column.is_null(row) => f64::NAN,
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)),
        _ => column.as_primitive::<Float64Type>().value(row),
    };
    if value.is_nan() { f64::NAN } else { value }
}

fn close(column: &ArrayRef, a: u32, b: u32) -> bool {
    let (x, y) = (value(column, a), value(column, b));
    let relative = if column.data_type() == &DataType::Float32 { 1e-5 } else { RELATIVE };
    x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= ABSOLUTE.max(relative * x.abs().max(y.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringArray};

    fn batch(names: &[&str], values: &[Option<f64>]) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(StringArray::from(names.to_vec()))),
            ("value", Arc::new(Float64Array::from(values.to_vec()))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .expect("fits")
    }

    #[test]
    fn floats_may_differ_in_their_last_digits() {
        let kept = batch(&["a", "a", "b", "c"], &[Some(0.1 + 0.2), Some(1e300), None, Some(f64::NAN)]);
        let same = batch(&["a", "c", "b", "a"], &[Some(1e300), Some(f64::NAN), None, Some(0.3)]);
        let differing = |expected: &RecordBatch| {
            let difference =
                difference(&kept.schema(), std::slice::from_ref(&kept), std::slice::from_ref(expected))
                    .expect("compares");
            difference.num_rows()
        };
        assert_eq!(differing(&same), 0);
        // A value, a key, and a NULL.
        assert_eq!(
            differing(&batch(&["a", "a", "b", "c"], &[Some(0.301), Some(1e300), None, Some(f64::NAN)])),
            2
        );
        assert_eq!(
            differing(&batch(&["b", "a", "b", "c"], &[Some(0.3), Some(1e300), None, Some(f64::NAN)])),
            2
        );
        assert_eq!(
            differing(&batch(&["a", "a", "b", "c"], &[Some(0.3), Some(1e300), Some(0.0), Some(f64::NAN)])),
            2
        );
    }
}
