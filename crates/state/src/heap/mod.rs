//! View heap.
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::{HeapRun, StateFault};

/// Chunks hold at most this many rows.
pub const CHUNK_ROWS: usize = 1 << 16;

/// Names a row of one heap from its append to its deletion, however often the row is moved. Ids are given in ascending
/// order and never again, also after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RowId(pub u64);

/// Rows in chunks. One writer; any number of readers through [`Heap::snapshot`].
pub struct Heap {}

impl Heap {
    pub fn new(_schema: SchemaRef) -> Self {
        unimplemented!()
    }
    pub fn schema(&self) -> &SchemaRef {
        unimplemented!()
    }
    /// Live rows.
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
    /// Bytes held, deleted rows that were not rewritten yet included.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    /// The id that the next appended row gets.
    pub fn next_id(&self) -> RowId {
        unimplemented!()
    }
    /// Appends all rows and returns the first one's id; the others follow without gaps.
    pub fn append(&mut self, _batch: &RecordBatch) -> Result<RowId, StateFault> {
        unimplemented!()
    }
    /// Deletes rows, in any order. A row that is not there (any more) is a fault.
    pub fn delete(&mut self, _ids: &[RowId]) -> Result<(), StateFault> {
        unimplemented!()
    }
    pub fn contains(&self, _id: RowId) -> bool {
        unimplemented!()
    }
    /// The rows `ids`, in that order, of the columns `projection` (all, if `None`).
    pub fn gather(&self, _ids: &[RowId], _projection: Option<&[usize]>) -> Result<RecordBatch, StateFault> {
        unimplemented!()
    }
    /// The rows as they are now. Shares everything with the heap but what the heap changes afterwards.
    pub fn snapshot(&mut self) -> Arc<HeapSnapshot> {
        unimplemented!()
    }
    /// What has changed since the last freeze (or since the heap was made or restored); `None` if nothing has. Hands over
    /// references only: encode it elsewhere.
    pub fn freeze(&mut self) -> Option<HeapRun> {
        unimplemented!()
    }
    /// The heap that wrote `runs`, given oldest first.
    pub fn restore(_schema: SchemaRef, _runs: Vec<HeapRun>) -> Result<Self, StateFault> {
        unimplemented!()
    }
    /// Merges small and rewrites half-deleted chunks until about `budget_rows` rows were copied. True if there is more to do.
    pub fn maintain(&mut self, _budget_rows: usize) -> Result<bool, StateFault> {
        unimplemented!()
    }
}

/// The rows of a heap at one moment.
pub struct HeapSnapshot {}

impl HeapSnapshot {
    pub fn schema(&self) -> &SchemaRef {
        unimplemented!()
    }
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
    /// Number of chunks, for scans that share them out. Chunks are in the order of row ids.
    pub fn chunks(&self) -> usize {
        unimplemented!()
    }
    /// Live rows of one chunk; `None` if the chunk has none.
    pub fn chunk(
        &self,
        _index: usize,
        _projection: Option<&[usize]>,
    ) -> Result<Option<RecordBatch>, StateFault> {
        unimplemented!()
    }
    /// All live rows in the order of row ids; no copy where nothing is deleted.
    pub fn batches<'a>(
        &'a self,
        projection: Option<&'a [usize]>,
    ) -> impl Iterator<Item = Result<RecordBatch, StateFault>> + 'a {
        (0..self.chunks()).filter_map(move |index| self.chunk(index, projection).transpose())
    }
    /// Like [`Heap::gather`].
    pub fn gather(&self, _ids: &[RowId], _projection: Option<&[usize]>) -> Result<RecordBatch, StateFault> {
        unimplemented!()
    }
}
