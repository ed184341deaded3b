//! Splitting deltas by hash and by window, and small kernels on time columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use millpond_types::hash::shard_of;

use crate::operator::Piece;

impl Piece {
    pub(crate) fn rows(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Result<Self, ArrowError> {
        let indices = UInt32Array::from(rows.to_vec());
        Ok(Self {
            port: self.port,
            columns: self.columns.iter().map(|c| take(c, &indices, None)).collect::<Result<_, _>>()?,
            weights: self.weights.as_ref().map(|w| rows.iter().map(|r| w[*r as usize]).collect()),
            hashes: rows.iter().map(|r| self.hashes[*r as usize]).collect(),
        })
    }

    pub(crate) fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            port: self.port,
            columns: self.columns.iter().map(|c| c.slice(offset, length)).collect(),
            weights: self.weights.as_ref().map(|w| w[offset..offset + length].into()),
            hashes: self.hashes[offset..offset + length].to_vec(),
        }
    }

    /// The rows of each shard, in their order; `None` where a shard has none.
    pub(crate) fn by_shard(self, shards: usize) -> Result<Vec<Option<Self>>, ArrowError> {
        if shards == 1 {
            return Ok(vec![(self.rows() > 0).then_some(self)]);
        }
        let mut rows: Vec<Vec<u32>> = vec![Vec::with_capacity(self.rows() / shards + 16); shards];
        for (row, &hash) in self.hashes.iter().enumerate() {
            rows[shard_of(hash, shards)].push(row as u32);
        }
        rows.iter().map(|rows| (!rows.is_empty()).then(|| self.take(rows)).transpose()).collect()
    }

    /// The rows of each group of equal `labels`, in their order. Rows of a stream mostly come in runs of one window.
    pub(crate) fn by_label<L: Copy + Ord>(self, labels: &[L]) -> Result<Vec<(L, Self)>, ArrowError> {
        let Some(&first) = labels.first() else { return Ok(Vec::new()) };
        let mut runs = vec![(first, 0)];
        for (row, &label) in labels.iter().enumerate() {
            if label != runs[runs.len() - 1].0 {
                runs.push((label, row));
            }
        }
        if runs.len() == 1 {
            return Ok(vec![(first, self)]);
        }
        if runs.len() <= 4.max(self.rows() / 256) {
            let ends = runs.iter().skip(1).map(|run| run.1).chain([self.rows()]);
            return Ok(runs
                .iter()
                .zip(ends)
                .map(|(run, end)| (run.0, self.slice(run.1, end - run.1)))
                .collect());
        }
        let mut groups: std::collections::BTreeMap<L, Vec<u32>> = std::collections::BTreeMap::new();
        for (row, &label) in labels.iter().enumerate() {
            groups.entry(label).or_default().push(row as u32);
        }
        groups.into_iter().map(|(label, rows)| Ok((label, self.take(&rows)?))).collect()
    }
}

/// Microsecond timestamps, or plain microseconds.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// A time column as microseconds, without copying.
pub(crate) fn times(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().clone()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(column.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
        }
        other => Err(ArrowError::SchemaError(format!("{other} is no time"))),
    }
}

/// The inverse of [`times`].
pub(crate) fn times_as(data_type: &DataType, times: Int64Array) -> Result<ArrayRef, ArrowError> {
    if *data_type == DataType::Int64 {
        return Ok(Arc::new(times));
    }
    let times = times.reinterpret_cast::<TimestampMicrosecondType>();
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(Arc::new(times.with_data_type(data_type.clone())))
        }
        other => cast(&times, other),
    }
}

pub(crate) fn constant_time(
    data_type: &DataType,
    time: Option<i64>,
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    match time {
        Some(time) => times_as(data_type, Int64Array::from_value(time, rows)),
        None => Ok(new_null_array(data_type, rows)),
    }
}
