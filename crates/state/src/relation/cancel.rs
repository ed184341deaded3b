//! Retractions of rows that the same delta inserts.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

/// Rows of a batch and how often each.
pub(super) type Counted = Vec<(usize, i64)>;

/// Takes `retractions` off `insertions` where the rows are the same; returns the retractions that are left.
///
/// This is the path of deltas with several versions of a row, and it must not be quadratic in them: rows are found by their
/// row encoding, which lives no longer than the call.
pub(super) fn cancel(
    batch: &RecordBatch,
    retractions: Counted,
    insertions: &mut Counted,
) -> Result<Counted, ArrowError> {
    let fields = batch.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(batch.columns())?;
    // Without columns all rows are the same.
    let key = |row: usize| if batch.num_columns() == 0 { &[][..] } else { rows.row(row).data() };
    let mut open: HashMap<&[u8], i64> = HashMap::with_capacity(retractions.len());
    for &(row, count) in &retractions {
        *open.entry(key(row)).or_default() += count;
    }
    for (row, count) in insertions.iter_mut() {
        if let Some(open) = open.get_mut(key(*row)) {
            let cancelled = (*count).min(*open);
            *open -= cancelled;
            *count -= cancelled;
        }
    }
    insertions.retain(|&(_, count)| count > 0);
    let left = |(row, _)| (row, open.insert(key(row), 0).unwrap_or(0));
    Ok(retractions.into_iter().map(left).filter(|&(_, count)| count > 0).collect())
}
