//! Tables in the log: a changelog of puts and deletes by key.
//!
//! A frame holds new images only; the old image comes from what the table holds. So the same frame gives the same delta
//! whether it was just committed or is replayed.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::row::{RowConverter, SortField};
use millpond_catalog::Relation;
use millpond_state::{HeapSnapshot, Relation as Stored, RowId};
use millpond_types::{Delta, SqlError};

use crate::relation::identity;
use crate::shape::Shape;
use crate::target::{Key, internal, stored_schema};
use crate::txn::split_op;

/// Applies a frame of a table to its rows and returns what changed: old images with weight -1, new ones with +1.
///
/// Of several operations on one key the last counts; deleting a key that is not there is nothing.
///
/// # Errors
/// XX001 if the frame is not one of this table.
pub(crate) fn changelog(
    rows: &mut Stored,
    key: &Key,
    shape: &Shape,
    frame: &RecordBatch,
) -> Result<Delta, SqlError> {
    let (stored, puts) = split_op(frame)?;
    let stored = shape.complete(&stored)?;
    let stored =
        RecordBatch::try_new(Arc::clone(rows.schema()), stored.columns().to_vec()).map_err(internal)?;
    let keys: Vec<ArrayRef> = key.columns().iter().map(|c| Arc::clone(stored.column(*c))).collect();
    let last = last_of_each(&keys, stored.num_rows())?;
    let fault = |fault: millpond_state::StateFault| SqlError::internal(fault.to_string());
    let present = rows.find(&keys).map_err(fault)?;
    let old: Vec<RowId> = (0..puts.len()).filter(|row| last[*row]).filter_map(|row| present[row]).collect();
    let old = rows.heap().gather(&old, None).map_err(fault)?;
    let kept: BooleanArray = (0..puts.len()).map(|row| Some(last[row] && puts[row])).collect();
    let new = filter_record_batch(&stored, &kept).map_err(internal)?;
    let delta = if old.num_rows() == 0 {
        Delta::insert(new)
    } else {
        let batch = concat_batches(rows.schema(), [&old, &new]).map_err(internal)?;
        let weights = (0..batch.num_rows()).map(|row| if row < old.num_rows() { -1 } else { 1 });
        Delta::new(batch, Some(weights.collect::<Vec<i64>>().into()))
    };
    rows.apply(&delta).map_err(fault)?;
    rows.maintain(delta.rows().max(16_384)).map_err(fault)?;
    Ok(delta)
}

/// The rows of a table to which columns were added, with these.
///
/// # Errors
/// XX001 if they are no rows of the table.
pub(crate) fn grown(rows: &HeapSnapshot, relation: &Relation, shape: &Shape) -> Result<Stored, SqlError> {
    let mut grown = Stored::new(&relation.name, stored_schema(relation), identity(relation));
    for batch in rows.batches(None) {
        let fault = |fault: millpond_state::StateFault| SqlError::internal(fault.to_string());
        let complete = shape.complete(&batch.map_err(fault)?)?;
        let batch = RecordBatch::try_new(Arc::clone(grown.schema()), complete.columns().to_vec());
        grown.apply(&Delta::insert(batch.map_err(internal)?)).map_err(fault)?;
    }
    Ok(grown)
}

/// Marks for each key its last row.
fn last_of_each(keys: &[ArrayRef], rows: usize) -> Result<Vec<bool>, SqlError> {
    if rows == 1 {
        return Ok(vec![true]);
    }
    let fields = keys.iter().map(|k| SortField::new(k.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let encoded = converter.convert_columns(keys).map_err(internal)?;
    let mut seen = HashSet::with_capacity(rows);
    let mut last = vec![false; rows];
    for row in (0..rows).rev() {
        last[row] = seen.insert(encoded.row(row));
    }
    Ok(last)
}
