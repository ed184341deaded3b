//! Rows of a join out to a checkpoint and back.
//!
//! States [`STATE_LEFT`] and [`STATE_RIGHT`], version 1, one row per entry: `id` | the columns of the side as `c0 …`, `weight`. Keys,
//! chains and the numbers of matches are functions of the rows and are made again.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array,
};
use arrow::compute::{concat, concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millpond_state::{KeyedRun, StateFault};
use millpond_types::hash::hash_columns;

use super::side::Side;
use crate::aggregate::Changes;
use crate::fault::Cause;
use crate::operator::Piece;

/// One row per row of a join's left side: its id, then its columns and its weight.
pub const STATE_LEFT: &str = "left";
/// As [`STATE_LEFT`], of the right side.
pub const STATE_RIGHT: &str = "right";

/// Rows of one side that have changed, and the ids of those that ended.
pub(crate) struct FrozenRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    ids: Vec<i64>,
    weights: Vec<i64>,
    ended: Vec<i64>,
    /// Rows could not be copied.
    fault: Option<StateFault>,
}

impl FrozenRows {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let (batches, ids, weights, ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { schema: Arc::clone(schema), batches, ids, weights, ended, fault: None }
    }

    pub(super) fn push(
        &mut self,
        batch: Result<RecordBatch, StateFault>,
        ids: Vec<i64>,
        weights: Vec<i64>,
        ended: Vec<i64>,
    ) {
        match batch {
            Ok(batch) => self.batches.push(batch),
            Err(fault) => self.fault = Some(fault),
        }
        self.ids.extend(ids);
        self.weights.extend(weights);
        self.ended.extend(ended);
    }

    pub(crate) fn rows(&self) -> usize {
        self.ids.len() + self.ended.len()
    }

    pub(crate) fn into_run(self) -> Result<KeyedRun, StateFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let live = concat_batches(&self.schema, &self.batches)?;
        let ended = self.ended.len();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(self.ids.iter().chain(&self.ended).copied()))];
        for column in live.columns() {
            columns.push(match ended {
                0 => Arc::clone(column),
                _ => concat(&[column.as_ref(), new_null_array(column.data_type(), ended).as_ref()])?,
            });
        }
        let weights = self.weights.iter().copied().chain(std::iter::repeat_n(0, ended));
        columns.push(Arc::new(Int64Array::from_iter_values(weights)));
        let deleted = (ended > 0).then(|| {
            (0..self.ids.len() + ended).map(|row| Some(row >= self.ids.len())).collect::<BooleanArray>()
        });
        KeyedRun::new(1, RecordBatch::try_new(saved_schema(&self.schema), columns)?, deleted)
    }
}

fn saved_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields = vec![Field::new("id", DataType::Int64, false)];
    let columns = schema.fields().iter().enumerate();
    fields.extend(columns.map(|(n, field)| Field::new(format!("c{n}"), field.data_type().clone(), true)));
    fields.push(Field::new("weight", DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

impl Changes {
    /// Adds what has changed of the rows of a join's side.
    pub(super) fn side(&mut self, state: &'static str, side: &mut Side) {
        let (entries, ids, weights, ended) = side.take_changed();
        if entries.is_empty() && ended.is_empty() {
            return;
        }
        let rows = self.sides.entry(state).or_insert_with(|| FrozenRows::new(side.heap.schema()));
        rows.push(side.heap.gather(&side.row_ids(&entries), None), ids, weights, ended);
    }
}

/// The rows of one shard by the hash of `shard_by`, with their ids as a last column; beside each piece the largest id of all shards' rows.
pub(super) fn saved_pieces(
    schema: &SchemaRef,
    port: usize,
    never_null: &[usize],
    shard_by: &[usize],
    run: &KeyedRun,
    shard: usize,
    shards: usize,
) -> Result<Vec<(Option<Piece>, i64)>, Cause> {
    let expected = saved_schema(schema);
    let types =
        |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if types(&expected) != types(run.schema()) {
        return Err(Cause::Saved("the columns of a join's rows are others".to_owned()));
    }
    let width = schema.fields().len();
    let mut pieces = Vec::new();
    for part in run.parts() {
        let batch = match &part.deleted {
            Some(deleted) => filter_record_batch(&part.batch, &arrow::compute::not(deleted)?)?,
            None => part.batch.clone(),
        };
        let (ids, weights) = (batch.column(0), batch.column(width + 1));
        let (id_values, weight_values) =
            (ids.as_primitive::<Int64Type>(), weights.as_primitive::<Int64Type>());
        if ids.null_count() + weights.null_count() > 0
            || id_values.values().iter().any(|id| *id < 0 || *id > i64::MAX / 2)
            || weight_values.values().iter().any(|weight| *weight <= 0)
        {
            return Err(Cause::Saved("a row of a join has no id or no weight".to_owned()));
        }
        let largest = id_values.values().iter().copied().max().unwrap_or(-1);
        if never_null.iter().any(|key| batch.column(1 + key).null_count() > 0) {
            return Err(Cause::Saved("a row of a join has no key".to_owned()));
        }
        let keys: Vec<ArrayRef> = shard_by.iter().map(|key| Arc::clone(batch.column(1 + key))).collect();
        let hashes = hash_columns(&keys, batch.num_rows())?;
        // In order of ids, as the rows came: neighbours were probably used together.
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.sort_by_key(|row| id_values.value(*row as usize));
        let indices = UInt32Array::from(order);
        let mut columns: Vec<ArrayRef> = batch.columns()[1..=width].to_vec();
        columns.push(Arc::clone(ids));
        let columns =
            columns.iter().map(|column| take(column, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let weights: Arc<[i64]> =
            indices.values().iter().map(|row| weight_values.value(*row as usize)).collect();
        let hashes = indices.values().iter().map(|row| hashes[*row as usize]).collect();
        let piece = Piece { port, columns, weights: Some(weights), hashes };
        pieces.push((piece.by_shard(shards)?.swap_remove(shard), largest));
    }
    Ok(pieces)
}
