//! One shard of a join of several sources.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::input::{Added, Rows};
use super::{STATES, Shape};
use crate::aggregate::Changes;
use crate::fault::Cause;
use crate::join::OUTPUT_ROWS;
use crate::join::freeze::saved_pieces;
use crate::operator::{Operator, Output, Piece, Progress};

/// Rows whose heaps are tidied at the end of an epoch, at least.
const UPKEEP_ROWS: usize = 16_384;
/// Steps of a poll that gives little.
const STEPS_MAX: usize = 32;

pub(super) struct MultiJoin {
    shape: Arc<Shape>,
    sources: Vec<Rows>,
    /// Deltas of this epoch that wait for their turn.
    queue: VecDeque<Piece>,
    work: Option<Work>,
    /// Deltas are numbered.
    number: u64,
    rows_in_epoch: usize,
    shard: usize,
    shards: usize,
}

/// A delta that is being worked on. Its rows are among those of its source already; the other sources do not change meanwhile.
struct Work {
    source: usize,
    columns: Vec<ArrayRef>,
    added: Added,
    /// What is to be looked up further, the farthest on top: each holds a bounded number of rows.
    stack: Vec<Found>,
}

/// Rows of the delta with what they have met so far on their path.
struct Found {
    rows: Vec<u32>,
    weights: Vec<i64>,
    /// For each source that was looked up, the entry of each row.
    met: Vec<Vec<u32>>,
    /// What each row meets next: the first of a chain.
    heads: Vec<Option<u32>>,
    /// How far it has come: a row, and the entry in its chain.
    at: usize,
    entry: Option<u32>,
}

impl MultiJoin {
    pub(super) fn new(shape: Arc<Shape>, shard: usize, shards: usize) -> Result<Self, SqlError> {
        let sources = (0..shape.sources.len()).map(|source| Rows::new(&shape, source, shard, shards));
        Ok(Self {
            sources: sources.collect::<Result<_, _>>()?,
            queue: VecDeque::new(),
            work: None,
            number: 0,
            rows_in_epoch: 0,
            shard,
            shards,
            shape,
        })
    }

    fn begin(&mut self, piece: Piece) -> Result<(), Cause> {
        self.number += 1;
        self.rows_in_epoch += piece.rows();
        let weights = piece.weights.as_deref();
        let source = piece.port;
        let added = self.sources[source].add(&piece.columns, weights, piece.rows(), None, self.number)?;
        let (rows, weights) = added.applied.iter().map(|applied| (applied.row, applied.weight)).unzip();
        let mut work = Work { source, columns: piece.columns, added, stack: Vec::new() };
        let found = Found { rows, weights, met: Vec::new(), heads: Vec::new(), at: 0, entry: None };
        self.look_up(&mut work, found)?;
        self.work = Some(work);
        Ok(())
    }

    /// Finds what some rows meet next, and puts them on top.
    fn look_up(&self, work: &mut Work, mut found: Found) -> Result<(), Cause> {
        if found.rows.is_empty() {
            return Ok(());
        }
        if let Some(lookup) = self.shape.paths[work.source].get(found.met.len()) {
            let keys = self.gather(work, &found, &lookup.by)?;
            found.heads = self.sources[lookup.source].find(lookup.index, &keys, found.rows.len())?;
        }
        work.stack.push(found);
        Ok(())
    }

    /// Goes on with the delta at hand, for about [`OUTPUT_ROWS`] rows.
    fn advance(&mut self, out: &mut Output) -> Result<(), Cause> {
        let mut work = self.work.take().expect("the caller has looked");
        let Some(mut found) = work.stack.pop() else {
            return self.sources[work.source].tidy(&work.added);
        };
        let level = found.met.len();
        let Some(lookup) = self.shape.paths[work.source].get(level) else {
            self.emit(&work, found, out)?;
            self.work = Some(work);
            return Ok(());
        };
        let source = &self.sources[lookup.source];
        let (mut picked, mut entries, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        while found.at < found.rows.len() && picked.len() < OUTPUT_ROWS {
            let mut next = found.entry.take().or(found.heads[found.at]);
            while let Some(entry) = next.filter(|_| picked.len() < OUTPUT_ROWS) {
                picked.push(found.at as u32);
                entries.push(entry);
                weights.push(found.weights[found.at] * source.side.weight(entry));
                next = source.next(lookup.index, entry);
            }
            if next.is_some() {
                found.entry = next;
                break;
            }
            found.at += 1;
        }
        let of = |column: &Vec<u32>| picked.iter().map(|at| column[*at as usize]).collect();
        let mut met: Vec<Vec<u32>> = found.met.iter().map(of).collect();
        let rows = of(&found.rows);
        met.push(entries);
        if found.at < found.rows.len() {
            work.stack.push(found);
        }
        self.look_up(&mut work, Found { rows, weights, met, heads: Vec::new(), at: 0, entry: None })?;
        self.work = Some(work);
        Ok(())
    }

    /// Columns of the delta and of what its rows have met, by source and column.
    fn gather(&self, work: &Work, found: &Found, wanted: &[(usize, usize)]) -> Result<Vec<ArrayRef>, Cause> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; wanted.len()];
        let path = &self.shape.paths[work.source];
        for source in 0..self.sources.len() {
            let mut distinct: Vec<usize> = Vec::new();
            for (_, column) in wanted.iter().filter(|at| at.0 == source) {
                if !distinct.contains(column) {
                    distinct.push(*column);
                }
            }
            if distinct.is_empty() {
                continue;
            }
            let gathered: Vec<ArrayRef> = if source == work.source {
                let rows = UInt32Array::from(found.rows.clone());
                let one = |column: &usize| take(&work.columns[*column], &rows, None);
                distinct.iter().map(one).collect::<Result<_, _>>()?
            } else {
                let level = path.iter().position(|lookup| lookup.source == source);
                let level = level.expect("a path leads to every source");
                let side = &self.sources[source].side;
                let batch = side.heap.gather(&side.row_ids(&found.met[level]), Some(&distinct))?;
                batch.columns().to_vec()
            };
            for (at, column) in wanted.iter().zip(&mut columns).filter(|(at, _)| at.0 == source) {
                let place = distinct.iter().position(|column| *column == at.1).expect("just gathered");
                *column = Some(Arc::clone(&gathered[place]));
            }
        }
        Ok(columns.into_iter().flatten().collect())
    }

    fn emit(&self, work: &Work, mut found: Found, out: &mut Output) -> Result<(), Cause> {
        if let Some(residual) = &self.shape.residual {
            let columns = self.gather(work, &found, &self.shape.residual_columns)?;
            let schema = Arc::clone(&self.shape.residual_schema);
            let options = RecordBatchOptions::new().with_row_count(Some(found.rows.len()));
            let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
            let mut kept = Vec::with_capacity(found.rows.len());
            residual.test(&batch, &found.weights, &mut kept, out)?;
            found.keep(&kept);
        }
        let rows = found.rows.len();
        if rows == 0 {
            return Ok(());
        }
        let columns = self.gather(work, &found, &self.shape.output)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.shape.schema), columns, &options)?;
        let plain = found.weights.iter().all(|weight| *weight == 1);
        out.deltas.push(Delta::new(batch, (!plain).then(|| Int64Array::from(found.weights))));
        Ok(())
    }
}

impl Found {
    fn keep(&mut self, kept: &[bool]) {
        let mut mask = kept.iter();
        self.rows.retain(|_| *mask.next().unwrap_or(&false));
        let mut mask = kept.iter();
        self.weights.retain(|_| *mask.next().unwrap_or(&false));
        for met in &mut self.met {
            let mut mask = kept.iter();
            met.retain(|_| *mask.next().unwrap_or(&false));
        }
    }
}

impl Operator for MultiJoin {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.queue.push_back(piece);
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        let mut steps = 0;
        loop {
            if self.work.is_none() {
                let Some(piece) = self.queue.pop_front() else { break };
                self.begin(piece)?;
            }
            self.advance(out)?;
            steps += 1;
            let rows: usize = out.deltas.iter().map(Delta::rows).sum();
            if rows >= OUTPUT_ROWS || (steps >= STEPS_MAX && self.work.is_some()) {
                return Ok(Progress::More);
            }
        }
        let budget = std::mem::take(&mut self.rows_in_epoch);
        if budget > 0 {
            self.sources.iter_mut().try_for_each(|source| source.end_epoch(budget.max(UPKEEP_ROWS)))?;
        }
        Ok(Progress::Done)
    }

    fn watermark(&mut self, _: EventTime) {}

    fn freeze(&mut self, changes: &mut Changes) {
        for (source, state) in self.sources.iter_mut().zip(STATES) {
            changes.side(state, &mut source.side);
        }
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        debug_assert_eq!((shard, shards), (self.shard, self.shards), "shards know their place");
        let Some(at) = STATES[..self.sources.len()].iter().position(|name| *name == state) else {
            return Err(Cause::Saved(format!("there is no state \"{state}\"")));
        };
        let (schema, by) = (&self.shape.sources[at].schema, self.shape.shard_columns(at));
        let width = schema.fields().len();
        let mut largest = -1;
        for (piece, id) in saved_pieces(schema, at, &self.shape.sources[at].keys, by, run, shard, shards)? {
            largest = largest.max(id);
            let Some(piece) = piece else { continue };
            self.number += 1;
            let (columns, ids) = piece.columns.split_at(width);
            let ids = ids[0].as_primitive::<Int64Type>().values();
            let weights = piece.weights.as_deref();
            self.sources[at].add(columns, weights, piece.rows(), Some(ids), self.number)?;
        }
        self.sources[at].side.reserve_id(largest);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.sources.iter().map(|source| source.side.live()).sum()
    }

    fn memory_bytes(&self) -> usize {
        let waiting = self.queue.iter().flat_map(|piece| &piece.columns);
        let waiting: usize = waiting.map(|column| column.get_array_memory_size()).sum();
        self.sources.iter().map(Rows::memory_bytes).sum::<usize>() + waiting
    }
}
