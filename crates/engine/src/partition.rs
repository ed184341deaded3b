//! Which partition each row goes to.
//!
//! Rows go where `_partition` says; else by the fixed hash of the columns of `partition_by`, so that equal keys meet; else
//! whole batches go to the partitions in turn. Rows of one partition keep their order.

use arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use millpond_catalog::Layout;
use millpond_types::hash::{hash_columns, shard_of};
use millpond_types::{PartitionId, SqlError, SqlState};

use crate::target::{Target, internal};

/// Cuts a batch with the declared columns into the rows of each partition. `given` holds the rows' own choices.
///
/// # Errors
/// 22023 for a partition that the relation does not have.
pub(crate) fn spread(
    target: &Target,
    batch: RecordBatch,
    given: Option<&Int32Array>,
) -> Result<Vec<(PartitionId, RecordBatch)>, SqlError> {
    let layout = target.layout();
    let given = given.filter(|given| given.null_count() < given.len());
    if let Some(given) = given {
        check(target, layout, given)?;
    }
    if layout.partitions == 1 || batch.num_rows() == 0 {
        return Ok(vec![(PartitionId(0), batch)]);
    }
    let Some(chosen) = choose(target, layout, &batch, given)? else {
        return Ok(vec![(PartitionId(target.next_partition()), batch)]);
    };
    cut(&batch, &chosen, layout.partitions as usize)
}

fn check(target: &Target, layout: &Layout, given: &Int32Array) -> Result<(), SqlError> {
    let exists = |partition: i32| (0..i64::from(layout.partitions)).contains(&i64::from(partition));
    let Some(wrong) = given.iter().flatten().find(|partition| !exists(*partition)) else { return Ok(()) };
    Err(SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{} has no partition {wrong}", target.relation.described()),
    )
    .detail(format!("Its partitions are 0 to {}.", layout.partitions - 1))
    .hint("ALTER … SET (partitions = n) adds some."))
}

/// The partition of each row; `None` if the whole batch may go anywhere.
fn choose(
    target: &Target,
    layout: &Layout,
    batch: &RecordBatch,
    given: Option<&Int32Array>,
) -> Result<Option<Vec<u32>>, SqlError> {
    let rows = batch.num_rows();
    let mut chosen = if layout.partition_by.is_empty() {
        if given.is_none() {
            return Ok(None);
        }
        vec![target.next_partition(); rows]
    } else {
        let key: Vec<ArrayRef> = layout.partition_by.iter().map(|c| batch.column(*c).clone()).collect();
        let hashes = hash_columns(&key, rows).map_err(internal)?;
        hashes.into_iter().map(|hash| shard_of(hash, layout.partitions as usize) as u32).collect()
    };
    if let Some(given) = given {
        for (chosen, given) in chosen.iter_mut().zip(given) {
            *chosen = given.map_or(*chosen, |given| given as u32);
        }
    }
    Ok(Some(chosen))
}

/// A counting sort: one `take` brings the rows into the order of partitions, and the parts are slices of that.
fn cut(
    batch: &RecordBatch,
    chosen: &[u32],
    partitions: usize,
) -> Result<Vec<(PartitionId, RecordBatch)>, SqlError> {
    let mut ends = vec![0_u32; partitions + 1];
    for partition in chosen {
        ends[*partition as usize + 1] += 1;
    }
    if let Some(only) = chosen.first().filter(|first| ends[**first as usize + 1] as usize == chosen.len()) {
        return Ok(vec![(PartitionId(*only), batch.clone())]);
    }
    for partition in 0..partitions {
        ends[partition + 1] += ends[partition];
    }
    let mut at = ends.clone();
    let mut order = vec![0_u32; chosen.len()];
    for (row, partition) in chosen.iter().enumerate() {
        let place = &mut at[*partition as usize];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    let sorted = take_record_batch(batch, &UInt32Array::from(order)).map_err(internal)?;
    let parts = (0..partitions).filter(|partition| ends[*partition] < ends[partition + 1]);
    let slice = |partition: usize| {
        let (from, to) = (ends[partition] as usize, ends[partition + 1] as usize);
        (PartitionId(partition as u32), sorted.slice(from, to - from))
    };
    Ok(parts.map(slice).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rows_are_cut_in_order() {
        let rows: ArrayRef = Arc::new(Int32Array::from_iter_values(0..7));
        let batch = RecordBatch::try_from_iter([("n", rows)]).unwrap();
        let check = |chosen: &[u32], expected: &[(u32, &[i32])]| {
            let found = cut(&batch, chosen, 4).unwrap();
            let found: Vec<(u32, ArrayRef)> = found.iter().map(|(p, b)| (p.0, b.column(0).clone())).collect();
            let expected: Vec<(u32, ArrayRef)> = expected
                .iter()
                .map(|(p, rows)| (*p, Arc::new(Int32Array::from(rows.to_vec())) as ArrayRef))
                .collect();
            assert_eq!(found, expected);
        };
        check(&[2; 7], &[(2, &[0, 1, 2, 3, 4, 5, 6])]);
        check(&[3, 0, 3, 1, 0, 3, 0], &[(0, &[1, 4, 6]), (1, &[3]), (3, &[0, 2, 5])]);
    }
}
