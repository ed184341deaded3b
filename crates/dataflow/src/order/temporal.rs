//! Rows that are valid for some time: filters on now().
//!
//! When a row is valid is a function of its columns ([`super::span`]), so nothing is known of a row but the next time at which
//! it comes or goes; rows wait in order of that time. A tick of the clock takes the rows whose time has come off the front,
//! publishes what became of them, and puts back those that will change once more: its cost is that of the rows that
//! change. A row that stays as it is for ever is not held, and its retraction is published, or is nothing, just as its
//! insertion was. A trace of `ts > now() - 10`:
//!
//! | clock | rows in | published | waiting |
//! |---|---|---|---|
//! | 20 | 5, 12, 15 | 12 +1, 15 +1 | 12 until 22, 15 until 25 |
//! | 22 | | 12 -1 | 15 until 25 |
//! | 22 | 12 -1, 15 -1 | 15 -1 | |

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::codec::{Codec, Key};
use super::span::{TemporalSpec, TimeSpan, Validity};
use super::spec::OrderColumn;
use super::store::{ORDER_STATES, Store};
use crate::aggregate::Changes as FrozenChanges;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress, Router};

/// So many rows come and go in one batch, at most.
const ROWS_PER_BATCH: usize = 4096;

/// One shard of a filter on now().
struct Temporal {
    /// Rows behind the time at which they come or go.
    store: Store,
    shape: Arc<Shape>,
    /// Up to where the clock's ticks have been followed, and where it stands.
    now: i64,
    clock: i64,
    /// The rows that wait come from a checkpoint.
    restored: bool,
    pushed: Vec<Piece>,
    ready: VecDeque<Delta>,
}

/// What all shards share.
struct Shape {
    codec: Arc<Codec>,
    spans: Vec<TimeSpan>,
    output: Vec<usize>,
    schema: SchemaRef,
}

/// The routers of the rows and of the clock, and the shards.
///
/// # Errors
/// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts itself.
pub(crate) fn build(input: &SchemaRef, spec: &TemporalSpec, shards: usize) -> Result<Built, SqlError> {
    spec.spans.iter().try_for_each(|span| span.check(input))?;
    let given = spec.output.iter().map(|column| input.fields().get(*column).map(|f| f.data_type()));
    if !given.eq(spec.schema.fields().iter().map(|field| Some(field.data_type()))) {
        return Err(SqlError::internal("the output columns of a temporal filter do not fit its input"));
    }
    let mut fields = vec![Arc::new(Field::new("next", DataType::Int64, false))];
    fields.extend(input.fields().iter().cloned());
    let stored = Arc::new(Schema::new(fields));
    let next = OrderColumn { column: 0, descending: false, nulls_first: false };
    // What decides when a row is valid is as good as all of it.
    let mut hashed: Vec<usize> =
        spec.spans.iter().flat_map(TimeSpan::columns).map(|column| column + 1).collect();
    hashed.sort_unstable();
    hashed.dedup();
    let codec = Arc::new(Codec::new(&stored, &[], &[next])?.hashed_by(hashed));
    let shape = Arc::new(Shape {
        codec: Arc::clone(&codec),
        spans: spec.spans.clone(),
        output: spec.output.clone(),
        schema: Arc::clone(&spec.schema),
    });
    let operator = |_| -> Box<dyn Operator> {
        Box::new(Temporal {
            store: Store::new(Arc::clone(&codec), spec.append_only),
            shape: Arc::clone(&shape),
            now: i64::MIN,
            clock: i64::MIN,
            restored: false,
            pushed: Vec::new(),
            ready: VecDeque::new(),
        })
    };
    let shards = (0..shards).map(operator).collect();
    let router: Arc<dyn Router> = Arc::new(RowRouter(codec));
    Ok(Built { routers: vec![Arc::clone(&router), router], shards, states: &ORDER_STATES })
}

struct RowRouter(Arc<Codec>);

impl Router for RowRouter {
    fn route(&self, delta: &Delta, _out: &mut Output) -> Result<Piece, Cause> {
        // The time that they wait for is not known here, and has no part in the hash.
        let mut stored: Vec<ArrayRef> = Vec::with_capacity(delta.batch.num_columns() + 1);
        stored.push(Arc::new(Int64Array::from_value(0, delta.rows())));
        stored.extend(delta.batch.columns().iter().cloned());
        let hashes = self.0.hashes(&stored, delta.rows())?;
        Ok(Piece { port: 0, columns: stored.split_off(1), weights: delta.weights().map(Arc::from), hashes })
    }
}

impl Shape {
    /// Some rows of `columns` as they leave.
    fn delta(&self, columns: &[ArrayRef], rows: Vec<u32>, weights: Vec<i64>) -> Result<Delta, Cause> {
        let rows = UInt32Array::from(rows);
        let leave = self.output.iter().map(|column| take(&columns[*column], &rows, None));
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = leave.collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let all_new = weights.iter().all(|weight| *weight == 1);
        Ok(Delta::new(batch, (!all_new).then(|| Int64Array::from(weights))))
    }
}

impl Temporal {
    /// Puts rows behind the times that they wait for.
    fn wait(&mut self, columns: &[ArrayRef], waiting: &[(u32, i64)], weights: &[i64]) -> Result<(), Cause> {
        if waiting.is_empty() {
            return Ok(());
        }
        let rows: UInt32Array = waiting.iter().map(|(row, _)| *row).collect();
        let mut stored: Vec<ArrayRef> = Vec::with_capacity(columns.len() + 1);
        stored.push(Arc::new(Int64Array::from_iter_values(waiting.iter().map(|(_, next)| *next))));
        for column in columns {
            stored.push(take(column, &rows, None)?);
        }
        let weights = waiting.iter().map(|(row, _)| weights[*row as usize]).collect();
        let piece =
            Piece { port: 0, columns: stored, weights: Some(weights), hashes: vec![0; waiting.len()] };
        self.store.push(&piece)
    }

    fn apply(&mut self) -> Result<(), Cause> {
        let changes = self.store.take_changes();
        self.store.apply(&changes)?;
        self.store.settle(&changes);
        Ok(())
    }

    /// Follows the clock for a batch of rows; true when it has been followed.
    fn follow(&mut self) -> Result<bool, Cause> {
        if self.clock <= self.now {
            return Ok(true);
        }
        // Rows that wait for the clock's own time are due, too.
        let after: ArrayRef = Arc::new(Int64Array::from_value(self.clock.saturating_add(1), 1));
        let end = self.shape.codec.prefix(&[after])?;
        let due = self.store.first(&end, ROWS_PER_BATCH);
        let done = due.len() < ROWS_PER_BATCH;
        self.turn(&due)?;
        if done {
            self.now = self.clock;
        }
        Ok(done)
    }

    /// Rows from outside: those that are valid are published, those that will turn wait.
    fn take_in(&mut self, piece: &Piece) -> Result<(), Cause> {
        let rows = piece.rows();
        let weights = piece.weights.as_ref().map_or_else(|| vec![1; rows], |weights| weights.to_vec());
        let validity = Validity::of(&self.shape.spans, &piece.columns, rows)?;
        let (mut shown, mut waiting) = (Vec::new(), Vec::new());
        for row in 0..rows {
            if validity.at(row, self.now) {
                shown.push(row as u32);
            }
            if let Some(next) = validity.next(row, self.now) {
                waiting.push((row as u32, next));
            }
        }
        self.wait(&piece.columns, &waiting, &weights)?;
        if !shown.is_empty() {
            let weights = shown.iter().map(|row| weights[*row as usize]).collect();
            self.ready.push_back(self.shape.delta(&piece.columns, shown, weights)?);
        }
        Ok(())
    }

    /// Rows come and go.
    fn turn(&mut self, due: &[(Key, i64)]) -> Result<(), Cause> {
        if due.is_empty() {
            return Ok(());
        }
        let columns = self.shape.codec.decode(due.iter().map(|(key, _)| key))?.split_off(1);
        let validity = Validity::of(&self.shape.spans, &columns, due.len())?;
        let (mut rows, mut weights, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (key, weight)) in due.iter().enumerate() {
            match (validity.at(row, self.now), validity.at(row, self.clock)) {
                (false, true) => (rows.push(row as u32), weights.push(*weight)).1,
                (true, false) => (rows.push(row as u32), weights.push(-weight)).1,
                _ => {}
            }
            if let Some(next) = validity.next(row, self.clock) {
                waiting.push((row as u32, next));
            }
            self.store.forget(key);
        }
        let kept: Vec<i64> = due.iter().map(|(_, weight)| *weight).collect();
        self.wait(&columns, &waiting, &kept)?;
        self.apply()?;
        if !rows.is_empty() {
            self.ready.push_back(self.shape.delta(&columns, rows, weights)?);
        }
        Ok(())
    }
}

impl Operator for Temporal {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.pushed.push(piece);
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if self.ready.is_empty() {
            // First the time, so that a row that comes with it is not shown and taken back.
            let followed = self.follow()?;
            if followed {
                for piece in std::mem::take(&mut self.pushed) {
                    self.take_in(&piece)?;
                }
                self.apply()?;
            } else if self.ready.is_empty() {
                return Ok(Progress::More);
            }
        }
        out.deltas.extend(self.ready.pop_front());
        let done = self.ready.is_empty() && self.pushed.is_empty() && self.now >= self.clock;
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn watermark(&mut self, mark: EventTime) {
        self.clock = mark.0;
        // What a checkpoint holds is how it was at its own tick, which is told before any other.
        let untouched = self.store.len() == 0 && self.pushed.is_empty();
        if self.now == i64::MIN && (self.restored || untouched) {
            self.now = mark.0;
        }
    }

    fn freeze(&mut self, changes: &mut FrozenChanges) {
        self.store.freeze(changes);
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        self.restored = true;
        self.store.restore(state, run, shard, shards)
    }

    fn rows(&self) -> usize {
        self.store.len()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }
}
