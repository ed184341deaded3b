//! GROUP BY over any columns.
//!
//! With a [`CloseSpec`] each window has a table of its own. A trace with windows of 10 and no lateness, rows as (window end,
//! key, W of the row):
//!
//! | rows in | watermark after | published | late |
//! |---|---|---|---|
//! | (10, a, –), (10, a, –) | 8 | (10, a, 2) +1 | |
//! | (10, a, 8), (20, a, 8) | 12 | (10, a, 2) -1, (10, a, 3) +1, (20, a, 1) +1; the table of 10 is freed | |
//! | (10, a, 12) | 12 | | (10, a) |

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::{FieldRef, SchemaRef};
use millpond_state::KeyedRun;
use millpond_types::hash::{hash_columns, shard_of};
use millpond_types::{Delta, EventTime, SqlError};

use super::freeze::{AGGREGATE_STATES, Changes};
use super::late;
use super::layout::{KeySource, Layout};
use super::table::Window;
use super::windows::{Closing, Windows};
use crate::exchange::{is_time, times};
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress, Router};
use crate::spec::{AggregateCall, AggregateSpec, CloseSpec, GroupColumn};

/// Rows handled at a time, so that the slots they touch stay in the L2 cache from one accumulator to the next.
pub(super) const ROWS_PER_PASS: usize = 4096;

/// The columns of the source that an aggregate needs, in the order in which pieces hold them: first the stored keys.
pub(super) struct Projection {
    pub(super) columns: Vec<usize>,
    pub(super) keys: usize,
    /// Calls over the projected columns.
    pub(super) calls: Vec<AggregateCall>,
    pub(super) key_sources: Vec<KeySource>,
}

impl Projection {
    /// `group` says of each key where it comes from.
    pub(super) fn new(
        group: &[GroupColumn],
        calls: &[AggregateCall],
        input: &SchemaRef,
    ) -> Result<Self, SqlError> {
        let (mut columns, mut key_sources) = (Vec::new(), Vec::new());
        for key in group {
            key_sources.push(match key {
                GroupColumn::WindowStart => KeySource::WindowStart,
                GroupColumn::WindowEnd => KeySource::WindowEnd,
                GroupColumn::Input(column) => {
                    let known = columns.iter().position(|c| c == column);
                    KeySource::Stored(known.unwrap_or_else(|| {
                        columns.push(*column);
                        columns.len() - 1
                    }))
                }
            });
        }
        let keys = columns.len();
        let mut place = |column: usize| {
            columns.iter().position(|c| *c == column).unwrap_or_else(|| {
                columns.push(column);
                columns.len() - 1
            })
        };
        let calls = calls
            .iter()
            .map(|call| AggregateCall {
                argument: call.argument.map(&mut place),
                filter: call.filter.map(&mut place),
                ..call.clone()
            })
            .collect();
        if let Some(column) = columns.iter().find(|c| **c >= input.fields().len()) {
            return Err(SqlError::internal(format!(
                "an aggregate names column {column}, which its source lacks"
            )));
        }
        Ok(Self { columns, keys, calls, key_sources })
    }

    pub(super) fn layout(
        &self,
        input: &SchemaRef,
        append_only: bool,
        global: bool,
        schema: &SchemaRef,
    ) -> Result<Arc<Layout>, SqlError> {
        let projected = input.project(&self.columns).map_err(|e| SqlError::internal(e.to_string()))?;
        let key_fields: Vec<FieldRef> = projected.fields()[..self.keys].to_vec();
        let (sources, schema) = (self.key_sources.clone(), Arc::clone(schema));
        Layout::new(&Arc::new(projected), key_fields, sources, &self.calls, append_only, global, schema)
    }

    /// The columns and key hashes of a delta.
    pub(super) fn piece(&self, delta: &Delta) -> Result<Piece, Cause> {
        let columns: Vec<_> = self.columns.iter().map(|c| Arc::clone(delta.batch.column(*c))).collect();
        let hashes = hash_columns(&columns[..self.keys], delta.rows())?;
        Ok(Piece { port: 0, columns, weights: delta.weights().map(Arc::from), hashes })
    }
}

/// Refuses late rows, then prepares the others.
struct GroupByRouter {
    projection: Projection,
    close: Option<CloseSpec>,
}

impl Router for GroupByRouter {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause> {
        let Some(close) = &self.close else { return self.projection.piece(delta) };
        let in_time = late::refuse(close, delta, out)?;
        let delta = in_time.as_ref().unwrap_or(delta);
        let mut piece = self.projection.piece(delta)?;
        piece.columns.push(Arc::clone(delta.batch.column(close.window_end)));
        if let Some(start) = close.window_start {
            piece.columns.push(Arc::clone(delta.batch.column(start)));
        }
        Ok(piece)
    }
}

/// One shard of a GROUP BY.
struct GroupBy {
    windows: Windows,
    keys: usize,
    /// Where pieces hold the window's end, and behind it perhaps its start.
    window_at: Option<usize>,
    /// The hash of the key without columns, on the shard that owns it.
    global: Option<u64>,
}

/// The router and the shards of a GROUP BY over `input`.
///
/// # Errors
/// 0A000 for a type that cannot be grouped by or aggregated; XX000 if the specification contradicts itself.
pub(crate) fn build(input: &SchemaRef, spec: &AggregateSpec, shards: usize) -> Result<Built, SqlError> {
    let group: Vec<GroupColumn> = spec
        .keys
        .iter()
        .map(|key| match &spec.close {
            Some(close) if close.window_end == *key => GroupColumn::WindowEnd,
            Some(close) if close.window_start == Some(*key) => GroupColumn::WindowStart,
            _ => GroupColumn::Input(*key),
        })
        .collect();
    if let Some(close) = &spec.close {
        let columns = [Some(close.window_end), close.window_start, Some(close.watermark)];
        let fits = |c: &usize| input.fields().get(*c).is_some_and(|f| is_time(f.data_type()));
        if !columns.iter().flatten().all(fits) || close.lateness_micros < 0 || spec.global {
            return Err(SqlError::internal("an aggregate cannot close by columns that are no times"));
        }
    }
    let projection = Projection::new(&group, &spec.calls, input)?;
    let layout = projection.layout(input, spec.append_only, spec.global, &spec.schema)?;
    let closing =
        spec.close.map(|c| Closing { lateness_micros: c.lateness_micros, emit_on_close: c.emit_on_close });
    let hash = hash_columns(&[], 1).map_err(|e| SqlError::internal(e.to_string()))?[0];
    let operators = (0..shards).map(|shard| -> Box<dyn Operator> {
        Box::new(GroupBy {
            windows: Windows::new(Arc::clone(&layout), closing),
            keys: projection.keys,
            window_at: spec.close.map(|_| projection.columns.len()),
            global: (spec.global && shard_of(hash, shards) == shard).then_some(hash),
        })
    });
    let shards = operators.collect();
    let router = Arc::new(GroupByRouter { projection, close: spec.close });
    Ok(Built { routers: vec![router], shards, states: &AGGREGATE_STATES })
}

impl GroupBy {
    fn add(&mut self, window: Window, piece: &Piece) -> Result<(), Cause> {
        let table = self.windows.table(window);
        let layout = Arc::clone(&table.layout);
        let mut from = 0;
        while from < piece.rows() {
            let rows = ROWS_PER_PASS.min(piece.rows() - from);
            let whole = rows == piece.rows();
            let columns: Vec<_> = piece
                .columns
                .iter()
                .map(|c| if whole { Arc::clone(c) } else { c.slice(from, rows) })
                .collect();
            let keys = layout.codec.encode(&columns[..self.keys], rows)?;
            let weights = piece.weights.as_ref().map(|w| &w[from..from + rows]);
            table.update(&keys, &piece.hashes[from..from + rows], &columns, weights)?;
            from += rows;
        }
        Ok(())
    }
}

/// The windows of rows, as labels.
fn labels(ends: &Int64Array) -> Vec<Option<i64>> {
    match ends.null_count() {
        0 => ends.values().iter().map(|end| Some(*end)).collect(),
        _ => ends.iter().collect(),
    }
}

impl Operator for GroupBy {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        let Some(at) = self.window_at else {
            return self.add(Window { start: None, end: None }, &piece);
        };
        let ends = times(&piece.columns[at])?;
        for (end, piece) in piece.by_label(&labels(&ends))? {
            let start = match piece.columns.get(at + 1) {
                Some(column) => times(column)?.iter().next().flatten(),
                None => None,
            };
            self.add(Window { start, end }, &piece)?;
        }
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if let Some(hash) = self.global {
            self.windows.table(Window { start: None, end: None }).ensure_global(hash);
        }
        self.windows.poll(out)
    }

    fn watermark(&mut self, mark: EventTime) {
        self.windows.watermark(mark);
    }

    fn freeze(&mut self, changes: &mut Changes) {
        self.windows.freeze(changes);
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        self.windows.restore(state, run, shard, shards)
    }

    fn rows(&self) -> usize {
        self.windows.rows()
    }

    fn memory_bytes(&self) -> usize {
        self.windows.memory_bytes()
    }
}
