//! Set-returning functions: each row once per row of its sets.
//!
//! It holds nothing between epochs, but one row may give more than fits into memory, so it is polled as an operator with state is:
//! an epoch's deltas rest until it is their turn, and come out a bounded batch at a time. Weights ride along, so a retraction takes
//! back all that its row gave. A trace of `unnest(a)`:
//!
//! | rows in | rows out |
//! |---|---|
//! | (1, {x,y}) +1 | (1, x) +1, (1, y) +1 |
//! | (1, {x,y}) -1, (1, {y,z}) +1 | (1, x) -1, (1, y) -1, (1, y) +1, (1, z) +1 |
//! | (2, {}) +1 | nothing; (2, NULL) +1 of an outer one |

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use millpond_functions::sets::{BYTES_PER_BATCH, Expansion, ROWS_PER_BATCH, columns_of, slice_bytes};
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::{Built, Operator, Output, Piece, Progress, Router};
use crate::aggregate::Changes;
use crate::fault::Cause;
use crate::spec::FlatMapSpec;

/// The router and the shards of set-returning functions over `input`.
///
/// # Errors
/// XX000 if the specification contradicts the source.
pub(crate) fn build(input: &SchemaRef, spec: &FlatMapSpec, shards: usize) -> Result<Built, SqlError> {
    let width = input.fields().len();
    if spec.sets.is_empty() || spec.kept.iter().chain(&spec.sets).any(|column| *column >= width) {
        return Err(SqlError::internal("a flat map names columns that are not there"));
    }
    let mut types: Vec<_> = spec.kept.iter().map(|column| input.field(*column).data_type().clone()).collect();
    for set in &spec.sets {
        types.extend(
            columns_of(input.field(*set).data_type())?.iter().map(|column| column.data_type().clone()),
        );
    }
    types.extend(spec.ordinality.then_some(arrow::datatypes::DataType::Int64));
    if !spec.schema.fields().iter().map(|field| field.data_type()).eq(&types) {
        return Err(SqlError::internal("the output columns of a flat map do not fit its sets"));
    }
    let spec = Arc::new(spec.clone());
    let shard = |_| {
        let operator = FlatMap { spec: Arc::clone(&spec), waiting: VecDeque::new(), current: None };
        Box::new(operator) as Box<dyn Operator>
    };
    Ok(Built { routers: vec![Arc::new(Spread)], shards: (0..shards).map(shard).collect(), states: &[] })
}

/// Any shard will do for any row.
struct Spread;

impl Router for Spread {
    fn route(&self, delta: &Delta, _out: &mut Output) -> Result<Piece, Cause> {
        // Consecutive rows end up far from each other (Fibonacci hashing).
        let hashes = (0..delta.rows() as u64).map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let weights = delta.weights.as_ref().map(|weights| Arc::from(&weights.values()[..]));
        Ok(Piece { port: 0, columns: delta.batch.columns().to_vec(), weights, hashes })
    }
}

struct FlatMap {
    spec: Arc<FlatMapSpec>,
    waiting: VecDeque<Piece>,
    current: Option<Current>,
}

/// The rows that are being expanded.
struct Current {
    kept: Vec<ArrayRef>,
    weights: Option<Int64Array>,
    expansion: Expansion,
    rows_per_batch: usize,
}

impl FlatMap {
    fn open(&self, piece: Piece) -> Result<Current, Cause> {
        let rows = piece.rows().max(1);
        let kept: Vec<ArrayRef> = self.spec.kept.iter().map(|c| Arc::clone(&piece.columns[*c])).collect();
        let sets: Vec<ArrayRef> = self.spec.sets.iter().map(|c| Arc::clone(&piece.columns[*c])).collect();
        // What stays is copied beside each row of the sets.
        let bytes: usize = kept.iter().map(|column| slice_bytes(column) / rows).sum();
        let expansion = Expansion::try_new(&sets, self.spec.outer).map_err(|error| Cause::Schema {
            expected: "sets".to_owned(),
            found: error.message().to_owned(),
        })?;
        Ok(Current {
            kept,
            weights: piece.weights.map(|weights| Int64Array::from(weights.to_vec())),
            expansion,
            rows_per_batch: (BYTES_PER_BATCH / bytes.max(1)).clamp(1, ROWS_PER_BATCH),
        })
    }

    fn next(&mut self) -> Result<Option<Delta>, Cause> {
        loop {
            if self.current.is_none() {
                let Some(piece) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(self.open(piece)?);
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let rows = current.expansion.next(current.rows_per_batch)?;
            let Some(rows) = rows else {
                self.current = None;
                continue;
            };
            let mut columns = Vec::with_capacity(self.spec.schema.fields().len());
            for column in &current.kept {
                columns.push(take(column, &rows.origins, None)?);
            }
            columns.extend(rows.columns);
            if self.spec.ordinality {
                columns.push(Arc::new(rows.ordinality));
            }
            let weights: Option<Int64Array> = current.weights.as_ref().map(|weights| {
                rows.origins.values().iter().map(|origin| weights.value(*origin as usize)).collect()
            });
            let options = RecordBatchOptions::new().with_row_count(Some(rows.origins.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?;
            return Ok(Some(Delta::new(batch, weights)));
        }
    }
}

impl Operator for FlatMap {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.waiting.push_back(piece);
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        let mut rows = 0;
        while rows < ROWS_PER_BATCH {
            let Some(delta) = self.next()? else { return Ok(Progress::Done) };
            rows += delta.rows();
            let full = self.current.as_ref().is_some_and(|current| current.rows_per_batch < ROWS_PER_BATCH);
            out.deltas.push(delta);
            if full {
                break;
            }
        }
        Ok(Progress::More)
    }

    fn watermark(&mut self, _mark: EventTime) {}

    fn freeze(&mut self, _changes: &mut Changes) {}

    fn restore(&mut self, _state: &str, _run: &KeyedRun, _shard: usize, _shards: usize) -> Result<(), Cause> {
        Ok(())
    }

    fn rows(&self) -> usize {
        0
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
