//! Runs
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{CorruptRun, RowId, StateFault};

/// Who reads a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    Heap,
    Keyed,
}

/// A run as bytes, ready for upload.
#[derive(Clone, Debug)]
pub struct EncodedRun {
    pub kind: RunKind,
    pub rows: u64,
    pub bytes: Bytes,
}

/// Any run, as read back.
pub enum Run {
    Heap(HeapRun),
    Keyed(KeyedRun),
}

impl Run {
    pub fn decode(_bytes: &Bytes) -> Result<Self, CorruptRun> {
        unimplemented!()
    }
    /// One run with the effect of `runs`, oldest first. `bottom`: no older run exists, so that deletions need not be kept.
    pub fn merge(_runs: Vec<Run>, _bottom: bool) -> Result<Run, StateFault> {
        unimplemented!()
    }
    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        unimplemented!()
    }
}

/// What changed in a heap between two freezes: the new rows that still live, with their ids, and the ids of older rows
/// that were deleted.
pub struct HeapRun {}

impl HeapRun {
    /// New rows have ids from here ...
    pub fn from(&self) -> RowId {
        unimplemented!()
    }
    /// ... up to here; the next run begins with this id.
    pub fn next(&self) -> RowId {
        unimplemented!()
    }
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
    pub fn deletions(&self) -> usize {
        unimplemented!()
    }
    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        unimplemented!()
    }
    pub fn decode(_bytes: &Bytes) -> Result<Self, CorruptRun> {
        unimplemented!()
    }
    /// One run with the effect of `runs`, oldest first and without gaps.
    pub fn merge(_runs: Vec<HeapRun>) -> Result<HeapRun, StateFault> {
        unimplemented!()
    }
}

/// The newest values of the keys that changed between two freezes, sorted by (hash, key).
pub struct KeyedRun {}

/// Some rows of a run; runs of many rows are kept in several batches of at most 64 Ki rows.
#[derive(Clone, Debug)]
pub struct KeyedPart {
    pub batch: RecordBatch,
    /// True where the key is gone; its other columns mean nothing. `None`: no key is gone.
    pub deleted: Option<BooleanArray>,
}

impl KeyedRun {
    /// Sorts `batch`, whose first `keys` columns are the key and hold no key twice.
    pub fn new(
        _keys: usize,
        _batch: RecordBatch,
        _deleted: Option<BooleanArray>,
    ) -> Result<Self, StateFault> {
        unimplemented!()
    }
    /// Several batches as one run; no key twice.
    pub fn of_parts(_keys: usize, _schema: SchemaRef, _parts: Vec<KeyedPart>) -> Result<Self, StateFault> {
        unimplemented!()
    }
    pub fn schema(&self) -> &SchemaRef {
        unimplemented!()
    }
    /// The number of key columns.
    pub fn keys(&self) -> usize {
        unimplemented!()
    }
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
    pub fn parts(&self) -> &[KeyedPart] {
        unimplemented!()
    }
    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        unimplemented!()
    }
    pub fn decode(_bytes: &Bytes) -> Result<Self, CorruptRun> {
        unimplemented!()
    }
    /// One run with the effect of `runs`, oldest first: of each key the newest row stays. At the `bottom` deleted keys go.
    /// To restore a key table: merge all of its runs with `bottom`, then read [`KeyedRun::parts`].
    pub fn merge(_runs: Vec<KeyedRun>, _bottom: bool) -> Result<KeyedRun, StateFault> {
        unimplemented!()
    }
}
