//! What one epoch brings to each relation, before it enters the graphs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use millpond_functions::error::from_datafusion;
use millpond_plan::incremental::InputColumn;
use millpond_types::{Delta, EventTime, RelationId, SqlError};

use crate::snapshot::FrameFacts;
use crate::target::internal;

/// Batches below this are worth joining: a kernel's fixed cost is that of some hundred rows.
const SMALL_ROWS: usize = 4096;

/// A part of a relation's change.
#[derive(Clone)]
pub(crate) struct Piece {
    /// With the declared columns.
    pub delta: Delta,
    /// Of a source: what the log knows of the rows.
    pub facts: Option<FrameFacts>,
}

/// All changes of one epoch.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub relations: HashMap<RelationId, Vec<Piece>>,
    /// The watermarks that moved.
    pub watermarks: BTreeMap<RelationId, EventTime>,
    pub rows: usize,
    pub bytes: usize,
}

impl Changes {
    pub fn push(&mut self, relation: RelationId, piece: Piece) {
        if piece.delta.is_empty() {
            return;
        }
        self.rows += piece.delta.rows();
        self.bytes += piece.delta.memory_bytes();
        self.relations.entry(relation).or_default().push(piece);
    }

    pub fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.watermarks.is_empty()
    }

    /// Only what `relations` bring; nothing is copied.
    pub fn of(&self, relations: &[RelationId]) -> Self {
        let mut some = Self::default();
        for relation in relations {
            for piece in self.relations.get(relation).into_iter().flatten() {
                some.push(*relation, piece.clone());
            }
            if let Some(watermark) = self.watermarks.get(relation) {
                some.watermarks.insert(*relation, *watermark);
            }
        }
        some
    }
}

/// The pieces as deltas with the columns that an input wants, small neighbours joined.
pub(crate) fn input_deltas(
    pieces: &[Piece],
    columns: &[InputColumn],
    schema: &SchemaRef,
) -> Result<Vec<Delta>, SqlError> {
    let mut deltas = Vec::with_capacity(pieces.len());
    let mut small: Vec<Delta> = Vec::new();
    let mut small_rows = 0;
    for piece in pieces {
        let delta = input_delta(piece, columns, schema)?;
        if delta.rows() >= SMALL_ROWS {
            // An epoch may be cut into steps: what inserts a row stays before what retracts it.
            if !small.is_empty() {
                deltas.push(join(&small, schema)?);
                small.clear();
                small_rows = 0;
            }
            deltas.push(delta);
            continue;
        }
        small_rows += delta.rows();
        small.push(delta);
        if small_rows >= SMALL_ROWS {
            deltas.push(join(&small, schema)?);
            small.clear();
            small_rows = 0;
        }
    }
    if !small.is_empty() {
        deltas.push(join(&small, schema)?);
    }
    Ok(deltas)
}

fn input_delta(piece: &Piece, columns: &[InputColumn], schema: &SchemaRef) -> Result<Delta, SqlError> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (column, field) in columns.iter().zip(schema.fields()) {
        arrays.push(match (column, &piece.facts) {
            (InputColumn::Stored(n), _) => Arc::clone(piece.delta.batch.column(*n)),
            (InputColumn::Metadata(metadata), Some(facts)) => {
                facts.column(*metadata, field.data_type()).map_err(from_datafusion)?
            }
            (InputColumn::Metadata(metadata), None) => {
                return Err(SqlError::internal(format!(
                    "a delta without a frame has no {}",
                    metadata.name()
                )));
            }
        });
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(piece.delta.rows()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).map_err(internal)?;
    Ok(piece.delta.with_batch(batch))
}

/// Several deltas of one schema as one.
pub(crate) fn join(deltas: &[Delta], schema: &SchemaRef) -> Result<Delta, SqlError> {
    if let [only] = deltas {
        return Ok(only.clone());
    }
    let batch = concat_batches(schema, deltas.iter().map(|d| &d.batch)).map_err(internal)?;
    if deltas.iter().all(|d| d.weights.is_none()) {
        return Ok(Delta::insert(batch));
    }
    let weights: Vec<i64> = deltas.iter().flat_map(|d| (0..d.rows()).map(|row| d.weight(row))).collect();
    Ok(Delta::new(batch, Some(weights.into())))
}
