//! What readers hold.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::directory::Directory;
use super::{RowId, chunk::Slot};
use crate::StateFault;

/// The rows of a heap at one moment. It never changes, and holding it stops nobody.
#[derive(Debug)]
pub struct HeapSnapshot {
    schema: SchemaRef,
    directory: Directory,
    page_starts: Vec<usize>,
    chunks: usize,
    rows: usize,
}

impl HeapSnapshot {
    pub(super) fn new(schema: SchemaRef, directory: Directory, rows: usize) -> Self {
        let (page_starts, chunks) = (directory.page_starts(), directory.slots());
        Self { schema, directory, page_starts, chunks, rows }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of chunks, for scans that share them out. Chunks are in the order of row ids, and none is empty.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    fn slot(&self, chunk: usize) -> &Slot {
        self.directory.nth(&self.page_starts, chunk)
    }

    /// The number of live rows of one chunk, which must be there.
    pub fn chunk_rows(&self, chunk: usize) -> usize {
        self.slot(chunk).live()
    }

    /// The live rows of one chunk, `None` after the last one; no copy if none is deleted.
    ///
    /// # Errors
    /// If the projection names a column that is not there.
    pub fn chunk(
        &self,
        chunk: usize,
        projection: Option<&[usize]>,
    ) -> Result<Option<RecordBatch>, StateFault> {
        if chunk >= self.chunks {
            return Ok(None);
        }
        Ok(Some(self.slot(chunk).batch(0, projection)?))
    }

    /// The ids of the rows of [`HeapSnapshot::chunk`], which must be there.
    pub fn chunk_ids(&self, chunk: usize) -> Vec<RowId> {
        let slot = self.slot(chunk);
        slot.live_rows(0).map(|row| RowId(slot.chunk.ids.get(row))).collect()
    }

    /// All live rows in the order of row ids; no copy where nothing is deleted.
    pub fn batches<'a>(
        &'a self,
        projection: Option<&'a [usize]>,
    ) -> impl Iterator<Item = Result<RecordBatch, StateFault>> + 'a {
        (0..self.chunks()).filter_map(move |chunk| self.chunk(chunk, projection).transpose())
    }

    /// Like [`super::Heap::gather`], of the rows at the snapshot's moment.
    pub fn gather(&self, ids: &[RowId], projection: Option<&[usize]>) -> Result<RecordBatch, StateFault> {
        self.directory.gather(&self.schema, ids, projection)
    }
}
