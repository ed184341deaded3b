//! Small statistics of a frame, so that a scan can leave out what it does not ask for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};

/// Smaller frames have none: reading them costs as much as asking.
const ROWS_MIN: usize = 64;
/// The first columns of a wide topic have ranges, so that a header stays small beside its rows.
const COLUMNS_MAX: usize = 16;

/// The smallest and the largest value of one column, NULLs aside: integers, days of a date, microseconds of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnRange {
    /// Its place among the stored columns.
    pub column: u32,
    pub min: i64,
    pub max: i64,
}

impl ColumnRange {
    /// Of the columns that can have one; a column of NULLs has none.
    pub(crate) fn of(batch: &RecordBatch) -> Option<Arc<[Self]>> {
        if batch.num_rows() < ROWS_MIN {
            return None;
        }
        let columns = batch.columns().iter().zip(0..);
        let found = columns.filter_map(|(array, column)| {
            let (min, max) = bounds(array)?;
            Some(Self { column, min, max })
        });
        let ranges: Vec<Self> = found.take(COLUMNS_MAX).collect();
        (!ranges.is_empty()).then(|| ranges.into())
    }
}

fn bounds(array: &ArrayRef) -> Option<(i64, i64)> {
    match array.data_type() {
        DataType::Int16 => bounds_of::<Int16Type>(array),
        DataType::Int32 => bounds_of::<Int32Type>(array),
        DataType::Int64 => bounds_of::<Int64Type>(array),
        DataType::Date32 => bounds_of::<Date32Type>(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => bounds_of::<TimestampMicrosecondType>(array),
        _ => None,
    }
}

fn bounds_of<T: ArrowPrimitiveType<Native: Into<i64> + Ord>>(array: &ArrayRef) -> Option<(i64, i64)> {
    let array = array.as_primitive::<T>();
    if array.null_count() > 0 {
        return Some((min(array)?.into(), max(array)?.into()));
    }
    // One pass for both, for this is on the way of every row.
    let (first, rest) = array.values().split_first()?;
    let (min, max) = rest.iter().fold((*first, *first), |(min, max), v| (min.min(*v), max.max(*v)));
    Some((min.into(), max.into()))
}
