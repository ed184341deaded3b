//! Changes of a heap.
//!
//! Section 1 of the envelope is a stream of the new rows with a first column `_gap`: the distance of a row's id from the
//! one before (of the first: from `a`). Section 2 is a stream of one column `_gap` with the deleted ids in ascending order,
//! likewise (of the first: from 0), or empty. `a` is the first and `b` the next id. Gaps are mostly 1, which packs to nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use bytes::Bytes;

use super::envelope::{self, Envelope};
use super::{EncodedRun, RunKind, ipc};
use crate::heap::{CHUNK_ROWS, Chunk, Heap, Ids, RowId, Slot, conform};
use crate::{CorruptRun, StateFault};

/// What changed in a heap between two freezes: the new rows that still live, with their ids, and the ids of older rows
/// that were deleted. Holds references to the heap's chunks.
#[derive(Clone, Debug)]
pub struct HeapRun {
    schema: SchemaRef,
    from: u64,
    next: u64,
    parts: Vec<RunPart>,
    deleted: Vec<u64>,
    rows: usize,
}

/// The live rows of a slot from a row on.
#[derive(Clone, Debug)]
pub(crate) struct RunPart {
    pub slot: Slot,
    pub from: usize,
}

impl RunPart {
    fn rows(&self) -> usize {
        match &self.slot.bits {
            None => self.slot.len() - self.from,
            Some(bits) => bits.count_from(self.from),
        }
    }

    fn ids(&self) -> Vec<u64> {
        self.slot.live_rows(self.from).map(|row| self.slot.chunk.ids.get(row)).collect()
    }

    /// As a slot of nothing else: the same chunk, if all of it lives.
    pub fn into_slot(self, schema: &SchemaRef) -> Result<Option<Slot>, StateFault> {
        if self.rows() == self.slot.len() && self.slot.chunk.batch.schema_ref() == schema {
            return Ok(Some(Slot::new(self.slot.chunk)));
        }
        let ids = self.ids();
        if ids.is_empty() {
            return Ok(None);
        }
        let batch = conform(schema, self.slot.batch(self.from, None)?)?;
        Ok(Some(Slot::new(Arc::new(Chunk::new(Ids::of(&ids), batch)))))
    }
}

impl HeapRun {
    pub(crate) fn of_parts(
        schema: SchemaRef,
        from: u64,
        next: u64,
        parts: Vec<RunPart>,
        deleted: Vec<u64>,
    ) -> Self {
        let rows = parts.iter().map(RunPart::rows).sum();
        Self { schema, from, next, parts, deleted, rows }
    }

    pub(crate) fn into_parts(self) -> (u64, Vec<RunPart>, Vec<u64>) {
        (self.next, self.parts, self.deleted)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// New rows have ids from here ...
    pub fn from(&self) -> RowId {
        RowId(self.from)
    }

    /// ... up to here; the next run begins with this id.
    pub fn next(&self) -> RowId {
        RowId(self.next)
    }

    /// New rows that live.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Older rows that were deleted.
    pub fn deletions(&self) -> usize {
        self.deleted.len()
    }

    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        let gap = Arc::new(Field::new("_gap", DataType::UInt64, false));
        let fields = std::iter::once(&gap).chain(self.schema.fields()).cloned();
        let schema =
            Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.schema.metadata().clone()));
        let mut rows = ipc::Writer::new(&schema)?;
        let mut last = self.from;
        for part in &self.parts {
            let batch = part.slot.batch(part.from, None)?;
            if batch.num_rows() == 0 {
                continue;
            }
            let gaps: ArrayRef = Arc::new(gaps(&part.ids(), &mut last));
            let columns = std::iter::once(&gaps).chain(batch.columns()).cloned().collect();
            rows.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
        }
        let sections = [rows.finish()?, self.encode_deleted(gap)?];
        let envelope =
            Envelope { kind: RunKind::Heap, a: self.from, b: self.next, rows: self.rows as u64, sections };
        Ok(EncodedRun { kind: RunKind::Heap, rows: envelope.rows, bytes: envelope::seal(&envelope) })
    }

    fn encode_deleted(&self, gap: Arc<Field>) -> Result<Bytes, StateFault> {
        if self.deleted.is_empty() {
            return Ok(Bytes::new());
        }
        let mut deleted = self.deleted.clone();
        deleted.sort_unstable();
        let schema = Arc::new(Schema::new(vec![gap]));
        let mut writer = ipc::Writer::new(&schema)?;
        let mut last = 0;
        for ids in deleted.chunks(CHUNK_ROWS) {
            writer.write(&RecordBatch::try_new(schema.clone(), vec![Arc::new(gaps(ids, &mut last))])?)?;
        }
        Ok(writer.finish()?)
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptRun> {
        let Envelope { kind, a: from, b: next, rows, sections: [first, second] } = envelope::open(bytes)?;
        if kind != RunKind::Heap {
            return Err(CorruptRun::Content("it is not a heap's".to_owned()));
        }
        let (schema, batches) = ipc::read(&first)?;
        check_gap_column(&schema, None)?;
        let columns: Vec<usize> = (1..schema.fields().len()).collect();
        let heap_schema = Arc::new(schema.project(&columns).map_err(|e| CorruptRun::Content(e.to_string()))?);
        let mut parts = Vec::with_capacity(batches.len());
        // One before the first id, so that a gap of 0 is wrong everywhere but there.
        let mut last = None;
        for batch in batches {
            let ids = ids(&batch, from, next, &mut last)?;
            if ids.is_empty() || ids.len() > CHUNK_ROWS || ids[ids.len() - 1] - ids[0] >= u64::from(u32::MAX)
            {
                return Err(CorruptRun::Content("a batch of it has too few or too many rows".to_owned()));
            }
            let batch = batch.project(&columns).map_err(|e| CorruptRun::Content(e.to_string()))?;
            parts.push(RunPart { slot: Slot::new(Arc::new(Chunk::new(Ids::of(&ids), batch))), from: 0 });
        }
        let run = Self::of_parts(heap_schema, from, next, parts, decode_deleted(&second, from)?);
        if run.rows as u64 != rows {
            return Err(CorruptRun::Content(format!("it has {} rows, but its header says {rows}", run.rows)));
        }
        Ok(run)
    }

    /// One run with the effect of `runs`, oldest first and without gaps.
    ///
    /// # Errors
    /// If there are none, one is missing between them, or a row is deleted that was not there.
    pub fn merge(runs: Vec<HeapRun>) -> Result<HeapRun, StateFault> {
        let first = runs.first().ok_or_else(|| StateFault::Runs("there are none to merge".to_owned()))?;
        let from = first.from;
        let mut heap = Heap::starting_at(first.schema.clone(), from);
        let mut older = Vec::new();
        for mut run in runs {
            let (within, before) = run.deleted.into_iter().partition(|&id| id >= from);
            run.deleted = within;
            older.extend::<Vec<u64>>(before);
            heap.replay(run)?;
        }
        Ok(heap.into_run(from, older))
    }
}

/// Ascending ids as distances; `last` is carried from one call to the next.
fn gaps(ids: &[u64], last: &mut u64) -> UInt64Array {
    ids.iter().map(|&id| id - std::mem::replace(last, id)).collect::<Vec<_>>().into()
}

fn check_gap_column(schema: &Schema, columns: Option<usize>) -> Result<(), CorruptRun> {
    let fields = schema.fields();
    let fits = fields.first().is_some_and(|f| *f.data_type() == DataType::UInt64)
        && columns.is_none_or(|columns| columns == fields.len());
    fits.then_some(()).ok_or_else(|| CorruptRun::Content("it has no column of row ids".to_owned()))
}

/// The ids of a batch, which ascend within `from..next`.
fn ids(batch: &RecordBatch, from: u64, next: u64, last: &mut Option<u64>) -> Result<Vec<u64>, CorruptRun> {
    let gaps = batch.column(0).as_primitive::<UInt64Type>();
    let wrong = || CorruptRun::Content("its row ids are out of order".to_owned());
    if gaps.null_count() > 0 {
        return Err(wrong());
    }
    let mut ids = Vec::with_capacity(gaps.len());
    for &gap in gaps.values() {
        let id = last.unwrap_or(from).checked_add(gap).ok_or_else(wrong)?;
        if id >= next || (gap == 0 && last.is_some()) {
            return Err(wrong());
        }
        *last = Some(id);
        ids.push(id);
    }
    Ok(ids)
}

fn decode_deleted(bytes: &Bytes, from: u64) -> Result<Vec<u64>, CorruptRun> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (schema, batches) = ipc::read(bytes)?;
    check_gap_column(&schema, Some(1))?;
    let (mut deleted, mut last) = (Vec::new(), None);
    for batch in batches {
        deleted.extend(ids(&batch, 0, from, &mut last)?);
    }
    Ok(deleted)
}
