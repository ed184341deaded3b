//! Kernels over rows that lie scattered in several batches of one schema.
//!
//! A [`Place`] says in which batch and row. The batches are always only those that some place refers to: kernels cost
//! O(batches + rows), and a heap may have thousands of chunks.

use std::cmp::Ordering;

use arrow::array::*;
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::*;
use arrow::downcast_primitive_array;
use arrow::error::ArrowError;

/// Batch and row, as arrow's `interleave` wants them.
pub(crate) type Place = (usize, usize);

/// When two values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Same {
    /// As `GROUP BY` and unique keys say: 0.0 is -0.0, one month is 30 days.
    Sql,
    /// As a reader sees them: only NaNs are all the same.
    Exact,
}

/// The rows at `places`, in that order. `columns` says which; `schema` describes the result.
pub(crate) fn gather(
    schema: &SchemaRef,
    batches: &[&RecordBatch],
    places: &[Place],
    columns: impl Iterator<Item = usize>,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    let arrays = columns
        .zip(schema.fields())
        .map(|(column, field)| {
            if batches.is_empty() {
                return Ok(new_empty_array(field.data_type()));
            }
            let sources: Vec<&dyn Array> = batches.iter().map(|b| b.column(column).as_ref()).collect();
            interleave(&sources, places)
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
}

/// One side of a comparison: some batches and the places of the rows in question.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub batches: &'a [&'a RecordBatch],
    pub places: &'a [Place],
}

/// Clears `equal[i]` where the i-th rows of both sides differ in one of the columns, given as (left, right). NULL is the
/// same as NULL.
///
/// The types are looked at once per column, never per row.
pub(crate) fn retain_equal(
    left: Side<'_>,
    right: Side<'_>,
    columns: impl Iterator<Item = (usize, usize)>,
    same: Same,
    equal: &mut [bool],
) -> Result<(), ArrowError> {
    debug_assert!(left.places.len() == equal.len() && right.places.len() == equal.len());
    if equal.is_empty() {
        return Ok(());
    }
    for (l, r) in columns {
        let lefts: Vec<&dyn Array> = left.batches.iter().map(|b| b.column(l).as_ref()).collect();
        let rights: Vec<&dyn Array> = right.batches.iter().map(|b| b.column(r).as_ref()).collect();
        compare(&lefts, left.places, &rights, right.places, same, equal)?;
    }
    Ok(())
}

/// Whether rows of two batches are the same to a reader, pair by pair.
///
/// # Errors
/// If the batches' types differ.
pub fn same_rows(
    left: &RecordBatch,
    left_rows: &[u32],
    right: &RecordBatch,
    right_rows: &[u32],
) -> Result<Vec<bool>, ArrowError> {
    let places = |rows: &[u32]| rows.iter().map(|row| (0, *row as usize)).collect::<Vec<Place>>();
    let (left_places, right_places) = (places(left_rows), places(right_rows));
    let mut equal = vec![true; left_rows.len()];
    let left_side = Side { batches: &[left], places: &left_places };
    let right_side = Side { batches: &[right], places: &right_places };
    let columns = (0..left.num_columns()).map(|column| (column, column));
    retain_equal(left_side, right_side, columns, Same::Exact, &mut equal)?;
    Ok(equal)
}

fn compare(
    left: &[&dyn Array],
    left_places: &[Place],
    right: &[&dyn Array],
    right_places: &[Place],
    same: Same,
    equal: &mut [bool],
) -> Result<(), ArrowError> {
    if left[0].data_type() != right[0].data_type() {
        return Err(ArrowError::SchemaError(format!(
            "cannot compare {} with {}",
            left[0].data_type(),
            right[0].data_type()
        )));
    }
    /// Runs over all pairs with arrays of one type and a test of two values.
    macro_rules! pairs {
        ($type:ty, $values_equal:expr) => {{
            let lefts: Vec<&$type> =
                left.iter().map(|a| a.as_any().downcast_ref().expect("types match")).collect();
            let rights: Vec<&$type> =
                right.iter().map(|a| a.as_any().downcast_ref().expect("types match")).collect();
            let values_equal = $values_equal;
            let nullable = left.iter().chain(right).any(|a| a.null_count() > 0);
            for ((&(ls, lr), &(rs, rr)), equal) in left_places.iter().zip(right_places).zip(equal.iter_mut())
            {
                if *equal {
                    let (l, r) = (lefts[ls], rights[rs]);
                    *equal = match nullable && (l.is_null(lr) || r.is_null(rr)) {
                        true => l.is_null(lr) && r.is_null(rr),
                        false => values_equal(l, lr, r, rr),
                    };
                }
            }
        }};
    }
    macro_rules! floats {
        ($type:ty) => {
            pairs!($type, |l: &$type, lr, r: &$type, rr| {
                let (l, r) = (l.value(lr), r.value(rr));
                (l.is_nan() && r.is_nan())
                    || if same == Same::Sql { l == r } else { l.to_bits() == r.to_bits() }
            })
        };
    }
    macro_rules! plain {
        ($type:ty) => {
            pairs!($type, |l: &$type, lr, r: &$type, rr| l.value(lr) == r.value(rr))
        };
    }
    match left[0].data_type() {
        DataType::Float32 => floats!(Float32Array),
        DataType::Float64 => floats!(Float64Array),
        DataType::Interval(IntervalUnit::MonthDayNano) if same == Same::Sql => {
            pairs!(IntervalMonthDayNanoArray, |l: &IntervalMonthDayNanoArray,
                                               lr,
                                               r: &IntervalMonthDayNanoArray,
                                               rr| {
                length(l.value(lr)) == length(r.value(rr))
            })
        }
        DataType::Boolean => plain!(BooleanArray),
        DataType::Utf8 => plain!(StringArray),
        DataType::LargeUtf8 => plain!(LargeStringArray),
        DataType::Utf8View => plain!(StringViewArray),
        DataType::Binary => plain!(BinaryArray),
        DataType::LargeBinary => plain!(LargeBinaryArray),
        DataType::BinaryView => plain!(BinaryViewArray),
        DataType::FixedSizeBinary(_) => plain!(FixedSizeBinaryArray),
        DataType::Null => {}
        _ => {
            let first = left[0];
            macro_rules! primitive {
                ($array:ident, $t:ident) => {{
                    let _ = $array;
                    same_primitives(left, left_places, right, right_places, equal, $array)
                }};
            }
            downcast_primitive_array!(
                first => primitive!(first, T),
                _ => compare_nested(left, left_places, right, right_places, equal)?
            )
        }
    }
    Ok(())
}

/// `_of` only names the type.
fn same_primitives<T: ArrowPrimitiveType>(
    left: &[&dyn Array],
    left_places: &[Place],
    right: &[&dyn Array],
    right_places: &[Place],
    equal: &mut [bool],
    _of: &PrimitiveArray<T>,
) {
    let lefts: Vec<&PrimitiveArray<T>> = left.iter().map(|a| a.as_primitive::<T>()).collect();
    let rights: Vec<&PrimitiveArray<T>> = right.iter().map(|a| a.as_primitive::<T>()).collect();
    let nullable = left.iter().chain(right).any(|a| a.null_count() > 0);
    for ((&(ls, lr), &(rs, rr)), equal) in left_places.iter().zip(right_places).zip(equal.iter_mut()) {
        let (l, r) = (lefts[ls], rights[rs]);
        let same = match nullable && (l.is_null(lr) || r.is_null(rr)) {
            true => l.is_null(lr) && r.is_null(rr),
            false => l.value(lr).is_eq(r.value(rr)),
        };
        *equal &= same;
    }
}

/// Lists and the like: gathered, then compared by arrow's comparator, which is chosen once for the column.
fn compare_nested(
    left: &[&dyn Array],
    left_places: &[Place],
    right: &[&dyn Array],
    right_places: &[Place],
    equal: &mut [bool],
) -> Result<(), ArrowError> {
    let left = interleave(left, left_places)?;
    let right = interleave(right, right_places)?;
    let compare = make_comparator(left.as_ref(), right.as_ref(), SortOptions::default())?;
    for (row, equal) in equal.iter_mut().enumerate() {
        *equal &= compare(row, row) == Ordering::Equal;
    }
    Ok(())
}

/// How long PostgreSQL takes an interval to be, in nanoseconds; `millpond_types::hash` agrees.
fn length(v: IntervalMonthDayNano) -> i128 {
    let days = i128::from(v.months) * 30 + i128::from(v.days);
    days * 86_400_000_000_000 + i128::from(v.nanoseconds)
}

/// One row as text, for the message of a fault.
pub(crate) fn describe(batch: &RecordBatch, row: usize, columns: impl Iterator<Item = usize>) -> String {
    let options = arrow::util::display::FormatOptions::new().with_null("NULL");
    let text: Vec<String> = columns
        .map(|column| {
            let array = batch.column(column);
            match arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options) {
                Ok(formatter) => formatter.value(row).to_string(),
                Err(_) => "?".to_owned(),
            }
        })
        .collect();
    format!("({})", text.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(left: ArrayRef, right: ArrayRef, sql: &[bool], exact: &[bool]) {
        let places: Vec<Place> = (0..left.len()).map(|row| (0, row)).collect();
        let left = RecordBatch::try_from_iter_with_nullable([("c", left, true)]).unwrap();
        let right = RecordBatch::try_from_iter_with_nullable([("c", right, true)]).unwrap();
        for (same, expected) in [(Same::Sql, sql), (Same::Exact, exact)] {
            let mut equal = vec![true; places.len()];
            let left = Side { batches: &[&left], places: &places };
            let right = Side { batches: &[&right], places: &places };
            retain_equal(left, right, [(0, 0)].into_iter(), same, &mut equal).unwrap();
            assert_eq!(equal, expected, "{same:?}");
        }
    }

    #[test]
    fn nulls_equal_nulls_only() {
        let left = Arc::new(Int64Array::from(vec![Some(1), None, None, Some(2)]));
        let right = Arc::new(Int64Array::from(vec![Some(1), None, Some(0), None]));
        let expected = [true, true, false, false];
        check(left, right, &expected, &expected);
        let left = Arc::new(StringArray::from(vec![Some("a"), None, None, Some("b")]));
        let right = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), None]));
        check(left, right, &expected, &expected);
    }

    #[test]
    fn signed_zeros_are_one_key_but_two_values() {
        let left = Arc::new(Float64Array::from(vec![0.0, f64::NAN, 1.0]));
        let right = Arc::new(Float64Array::from(vec![-0.0, -f64::NAN, 1.5]));
        check(left, right, &[true, true, false], &[false, true, false]);
    }

    #[test]
    fn a_month_is_thirty_days_as_a_key() {
        let left = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 0, 0)]);
        let right = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(0, 30, 0)]);
        check(Arc::new(left), Arc::new(right), &[true], &[false]);
    }

    #[test]
    fn lists_compare_by_element() {
        let list = |rows: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
        };
        let left = list(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        let right = list(vec![Some(vec![Some(1), None]), Some(vec![]), Some(vec![])]);
        check(left, right, &[true, false, true], &[true, false, true]);
    }

    #[test]
    fn different_types_are_refused() {
        let places = [(0, 0)];
        let left =
            RecordBatch::try_from_iter([("c", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let right =
            RecordBatch::try_from_iter([("c", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
        let left = Side { batches: &[&left], places: &places };
        let right = Side { batches: &[&right], places: &places };
        assert!(retain_equal(left, right, [(0, 0)].into_iter(), Same::Sql, &mut [true]).is_err());
    }
}
