//! A change to a relation: rows with weights.

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;

/// Rows that appear (weight > 0) or disappear (weight < 0), as in a Z-set (Budiu et al., DBSP, VLDB 2023).
///
/// `weights: None` means that every row has weight +1; planning proves which inputs are append-only, and they never pay
/// for a weight column. A weight is never 0 or NULL. Rows of one delta may cancel each other; [`Delta`] promises no order.
#[derive(Clone, Debug)]
pub struct Delta {
    pub batch: RecordBatch,
    pub weights: Option<Int64Array>,
}

impl Delta {
    /// Rows that all appear once.
    pub fn insert(batch: RecordBatch) -> Self {
        Self { batch, weights: None }
    }

    /// Rows that all disappear once.
    pub fn retract(batch: RecordBatch) -> Self {
        let weights = Some(Int64Array::from_value(-1, batch.num_rows()));
        Self { batch, weights }
    }

    pub fn new(batch: RecordBatch, weights: Option<Int64Array>) -> Self {
        debug_assert!(weights.as_ref().is_none_or(|w| w.len() == batch.num_rows() && w.null_count() == 0));
        Self { batch, weights }
    }

    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// The weights as a slice, or `None` where all are +1.
    pub fn weights(&self) -> Option<&[i64]> {
        self.weights.as_ref().map(|w| &w.values()[..])
    }

    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |w| w.value(row))
    }

    /// The same rows with other columns; weights ride along.
    pub fn with_batch(&self, batch: RecordBatch) -> Self {
        Self::new(batch, self.weights.clone())
    }

    /// Keeps the rows whose mask is true (NULL is not true).
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        let batch = compute::filter_record_batch(&self.batch, keep)?;
        let weights = match &self.weights {
            Some(weights) => Some(compute::filter(weights, keep)?.as_primitive::<Int64Type>().clone()),
            None => None,
        };
        Ok(Self { batch, weights })
    }

    /// The rows at `rows`, in that order.
    pub fn take(&self, rows: &UInt32Array) -> Result<Self, ArrowError> {
        let batch = compute::take_record_batch(&self.batch, rows)?;
        let weights = match &self.weights {
            Some(weights) => Some(compute::take(weights, rows, None)?.as_primitive::<Int64Type>().clone()),
            None => None,
        };
        Ok(Self { batch, weights })
    }

    /// `length` rows from `offset`, without copying.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            batch: self.batch.slice(offset, length),
            weights: self.weights.as_ref().map(|w| w.slice(offset, length)),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.batch.get_array_memory_size() + self.weights.as_ref().map_or(0, |w| w.get_array_memory_size())
    }
}
