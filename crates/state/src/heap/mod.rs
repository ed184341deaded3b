//! Rows in immutable Arrow chunks.
//!
//! ```text
//! Heap ── Directory ── pages of 64 slots ── Slot ─┬─ Arc<Chunk>: ids, RecordBatch (at most 64 Ki rows)
//!            │ clone = snapshot                   └─ Arc<bitmap>: which rows still live
//! ```
//!
//! An append makes chunks, a delete clears bits. Both copy what a snapshot still shares (a page, a bitmap) and nothing
//! else, so a snapshot costs O(pages) to take and O(what changed) to have. The last chunks are merged whenever they are of
//! the same size class (powers of two), so that n appends of one row copy each row O(log n) times and leave O(log n)
//! chunks. [`Heap::maintain`] rewrites chunks of which at least half is deleted, in steps that the caller bounds.
//!
//! A [`RowId`] survives all that: a chunk knows the ids of its rows, as a range or as a list.

mod chunk;
mod directory;
mod gather;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

pub(crate) use self::chunk::{Chunk, Ids, Slot};
use self::directory::{Directory, Key};
pub use self::snapshot::HeapSnapshot;
use crate::StateFault;
use crate::columns::{self, Place};
use crate::runs::{HeapRun, RunPart};

/// Chunks hold at most this many rows.
pub const CHUNK_ROWS: usize = 1 << 16;

/// Chunks are not merged beyond this, so that no merged column overflows its 32-bit offsets.
const MERGED_BYTES_MAX: usize = 1 << 29;

/// Names a row of one heap from its append to its deletion, however often the row is moved. Ids are given in ascending
/// order and never again, also after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RowId(pub u64);

/// Rows in chunks. One writer; any number of readers through [`Heap::snapshot`].
#[derive(Debug)]
pub struct Heap {
    schema: SchemaRef,
    directory: Directory,
    rows: usize,
    bytes: usize,
    next_id: u64,
    /// Ids from here on are not in any run yet.
    frozen: u64,
    /// Ids below `frozen` that were deleted since.
    deleted: Vec<u64>,
    /// First ids of chunks that `maintain` should look at. Some may have gone.
    due: BTreeSet<u64>,
    /// Of the current state, if one was taken.
    published: Option<Arc<HeapSnapshot>>,
}

impl Heap {
    pub fn new(schema: SchemaRef) -> Self {
        Self::starting_at(schema, 0)
    }

    pub(crate) fn starting_at(schema: SchemaRef, id: u64) -> Self {
        Self {
            schema,
            directory: Directory::default(),
            rows: 0,
            bytes: 0,
            next_id: id,
            frozen: id,
            deleted: Vec::new(),
            due: BTreeSet::new(),
            published: None,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Live rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes held, deleted rows that were not rewritten yet included.
    pub fn bytes(&self) -> usize {
        self.bytes + self.deleted.capacity() * size_of::<u64>()
    }

    /// The id that the next appended row gets.
    pub fn next_id(&self) -> RowId {
        RowId(self.next_id)
    }

    /// Appends all rows and returns the first one's id; the others follow without gaps.
    ///
    /// A batch whose buffers hold little else becomes a chunk without being copied.
    ///
    /// # Errors
    /// If the types of the batch are not those of the heap, or it has a NULL where the heap's schema allows none.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<RowId, StateFault> {
        check_types(&self.schema, batch)?;
        let first = self.next_id;
        for start in (0..batch.num_rows()).step_by(CHUNK_ROWS) {
            let part = batch.slice(start, CHUNK_ROWS.min(batch.num_rows() - start));
            let part = chunk::unpinned(conform(&self.schema, part)?)?;
            let ids = Ids::Range { first: self.next_id, len: part.num_rows() as u32 };
            self.next_id += part.num_rows() as u64;
            self.push(Slot::new(Arc::new(Chunk::new(ids, part))))?;
        }
        Ok(RowId(first))
    }

    fn push(&mut self, slot: Slot) -> Result<(), StateFault> {
        self.published = None;
        self.rows += slot.live();
        self.bytes += slot.bytes();
        self.directory.push(slot);
        self.merge_tail()
    }

    /// Merges the last chunks while the one before is not of a larger size class.
    fn merge_tail(&mut self) -> Result<(), StateFault> {
        let Some(last) = self.directory.last() else { return Ok(()) };
        let mut window = Window::of(&self.directory, last);
        while let Some(before) = self.directory.before(window.start) {
            let slot = self.directory.slot(before);
            let smaller = slot.live().max(1).ilog2() <= window.live.max(1).ilog2();
            if !(smaller && window.fits(slot)) {
                break;
            }
            window.extend_left(before, slot);
        }
        if window.count > 1 {
            self.rewrite(window)?;
        }
        Ok(())
    }

    /// Deletes rows, in any order.
    ///
    /// # Errors
    /// If a row is not there (any more).
    pub fn delete(&mut self, ids: &[RowId]) -> Result<(), StateFault> {
        if ids.is_empty() {
            return Ok(());
        }
        self.published = None;
        let mut places = self.directory.locate_all(ids)?;
        if !places.is_sorted_by_key(|(key, _)| *key) {
            gather::sort_by_key(&mut places, self.directory.keys());
        }
        let mut emptied = Vec::new();
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let key = group[0].0;
            let slot = self.directory.slot_mut(key);
            let bytes = slot.bytes();
            if let Err(row) = slot.delete(group.iter().map(|&(_, row)| row as usize)) {
                return Err(StateFault::UnknownRow(slot.chunk.ids.get(row)));
            }
            self.bytes += slot.bytes() - bytes;
            if slot.live() == 0 {
                emptied.push(key);
            } else if slot.live() * 2 <= slot.len() {
                self.due.insert(slot.chunk.ids.first());
            }
        }
        self.rows -= ids.len();
        self.deleted.extend(ids.iter().map(|id| id.0).filter(|&id| id < self.frozen));
        for key in emptied.into_iter().rev() {
            self.bytes -= self.directory.slot(key).bytes();
            self.directory.replace(key, 1, None);
        }
        Ok(())
    }

    pub fn contains(&self, id: RowId) -> bool {
        self.directory.locate(id).is_some_and(|(key, row)| self.directory.slot(key).is_live(row as usize))
    }

    /// The rows `ids`, in that order, of the columns `projection` (all, if `None`). Cost: the rows and the chunks that
    /// hold them, however many others there are.
    ///
    /// # Errors
    /// If a row is not there (any more), or text of more than 2 GiB would have to stand in one array.
    pub fn gather(&self, ids: &[RowId], projection: Option<&[usize]>) -> Result<RecordBatch, StateFault> {
        self.directory.gather(&self.schema, ids, projection)
    }

    /// The batches that hold the rows `ids`, and where.
    pub(crate) fn places(&self, ids: &[RowId]) -> Result<(Vec<&RecordBatch>, Vec<Place>), StateFault> {
        self.directory.places(ids)
    }

    /// The rows as they are now. Shares everything with the heap but what the heap changes afterwards.
    pub fn snapshot(&mut self) -> Arc<HeapSnapshot> {
        let fresh = || Arc::new(HeapSnapshot::new(self.schema.clone(), self.directory.clone(), self.rows));
        Arc::clone(self.published.get_or_insert_with(fresh))
    }

    /// What has changed since the last freeze (or since the heap was made or restored); `None` if nothing has. Hands over
    /// references only: encode it elsewhere.
    pub fn freeze(&mut self) -> Option<HeapRun> {
        if self.frozen == self.next_id && self.deleted.is_empty() {
            return None;
        }
        let frozen = std::mem::replace(&mut self.frozen, self.next_id);
        let new = self.directory.iter().rev().take_while(|slot| slot.chunk.ids.last() >= frozen);
        let mut parts: Vec<_> = new
            .map(|slot| RunPart { from: slot.chunk.ids.lower_bound(frozen), slot: slot.clone() })
            .collect();
        parts.reverse();
        let deleted = std::mem::take(&mut self.deleted);
        Some(HeapRun::of_parts(self.schema.clone(), frozen, self.next_id, parts, deleted))
    }

    /// The heap that wrote `runs`, given oldest first.
    ///
    /// # Errors
    /// If a run is missing or does not fit the others.
    pub fn restore(schema: SchemaRef, runs: Vec<HeapRun>) -> Result<Self, StateFault> {
        let mut heap = Self::new(schema);
        for run in runs {
            heap.replay(run)?;
        }
        Ok(heap)
    }

    /// Applies what a run of this heap's past says.
    pub(crate) fn replay(&mut self, run: HeapRun) -> Result<(), StateFault> {
        if run.from().0 != self.next_id {
            let message =
                format!("one begins with row {} where row {} comes next", run.from().0, self.next_id);
            return Err(StateFault::Runs(message));
        }
        let (next, parts, deleted) = run.into_parts();
        let deleted: Vec<RowId> = deleted.into_iter().map(RowId).collect();
        self.delete(&deleted).map_err(|fault| match fault {
            StateFault::UnknownRow(id) => StateFault::Runs(format!("row {id} is deleted and was not there")),
            other => other,
        })?;
        for part in parts {
            check_types(&self.schema, &part.slot.chunk.batch)?;
            if let Some(slot) = part.into_slot(&self.schema)? {
                self.push(slot)?;
            }
        }
        // What was read from runs needs no new run.
        (self.next_id, self.frozen) = (next, next);
        self.deleted.clear();
        Ok(())
    }

    /// All of its rows, as the new ones of a run that begins with id `from` and deletes the older rows `deleted`.
    pub(crate) fn into_run(self, from: u64, deleted: Vec<u64>) -> HeapRun {
        let parts = self.directory.iter().map(|slot| RunPart { from: 0, slot: slot.clone() }).collect();
        HeapRun::of_parts(self.schema, from, self.next_id, parts, deleted)
    }

    /// Merges small and rewrites half-deleted chunks until about `budget_rows` rows were copied, at least one chunk. True
    /// if there is more to do.
    pub fn maintain(&mut self, budget_rows: usize) -> Result<bool, StateFault> {
        let mut copied = 0;
        while let Some(first) = self.due.pop_first() {
            let Some(key) = self.directory.find(first) else { continue };
            let slot = self.directory.slot(key);
            if slot.chunk.ids.first() != first || slot.live() * 2 > slot.len() {
                continue;
            }
            let window = self.widened(Window::of(&self.directory, key), budget_rows.saturating_sub(copied));
            copied += window.live;
            self.rewrite(window)?;
            if copied >= budget_rows {
                break;
            }
        }
        Ok(!self.due.is_empty())
    }

    /// Takes neighbours along that are less than half full, while all fit into one chunk and into the budget.
    fn widened(&self, mut window: Window, budget_rows: usize) -> Window {
        let welcome = |window: &Window, slot: &Slot| {
            slot.live() <= CHUNK_ROWS / 2 && window.live + slot.live() <= budget_rows && window.fits(slot)
        };
        while let Some(before) = self.directory.before(window.start) {
            let slot = self.directory.slot(before);
            if !welcome(&window, slot) {
                break;
            }
            window.extend_left(before, slot);
        }
        while let Some(after) = self.directory.after(window.end) {
            let slot = self.directory.slot(after);
            if !welcome(&window, slot) {
                break;
            }
            window.extend_right(after, slot);
        }
        window
    }

    /// One chunk of the live rows of adjacent ones.
    fn rewrite(&mut self, window: Window) -> Result<(), StateFault> {
        self.published = None;
        let mut slots = Vec::with_capacity(window.count);
        let mut key = Some(window.start);
        while let (Some(here), true) = (key, slots.len() < window.count) {
            slots.push(self.directory.slot(here));
            key = self.directory.after(here);
        }
        let bytes: usize = slots.iter().map(|slot| slot.bytes()).sum();
        let merged = merge(&self.schema, &slots)?;
        self.bytes += merged.bytes();
        self.bytes -= bytes;
        self.directory.replace(window.start, window.count, Some(merged));
        Ok(())
    }
}

/// Adjacent slots that could become one.
struct Window {
    start: Key,
    end: Key,
    count: usize,
    live: usize,
    bytes: usize,
    first_id: u64,
    last_id: u64,
}

impl Window {
    fn of(directory: &Directory, key: Key) -> Self {
        let slot = directory.slot(key);
        let ids = &slot.chunk.ids;
        Self {
            start: key,
            end: key,
            count: 1,
            live: slot.live(),
            bytes: slot.bytes(),
            first_id: ids.first(),
            last_id: ids.last(),
        }
    }

    fn fits(&self, slot: &Slot) -> bool {
        let first = self.first_id.min(slot.chunk.ids.first());
        let last = self.last_id.max(slot.chunk.ids.last());
        self.live + slot.live() <= CHUNK_ROWS
            && self.bytes + slot.bytes() <= MERGED_BYTES_MAX
            && last - first < u64::from(u32::MAX)
    }

    fn extend_left(&mut self, key: Key, slot: &Slot) {
        (self.start, self.first_id) = (key, slot.chunk.ids.first());
        self.extend(slot);
    }

    fn extend_right(&mut self, key: Key, slot: &Slot) {
        (self.end, self.last_id) = (key, slot.chunk.ids.last());
        self.extend(slot);
    }

    fn extend(&mut self, slot: &Slot) {
        self.count += 1;
        self.live += slot.live();
        self.bytes += slot.bytes();
    }
}

fn merge(schema: &SchemaRef, slots: &[&Slot]) -> Result<Slot, StateFault> {
    let batches: Vec<&RecordBatch> = slots.iter().map(|slot| &slot.chunk.batch).collect();
    let mut ids = Vec::with_capacity(slots.iter().map(|slot| slot.live()).sum());
    for slot in slots {
        ids.extend(slot.live_rows(0).map(|row| slot.chunk.ids.get(row)));
    }
    let batch = if slots.iter().all(|slot| slot.bits.is_none()) {
        arrow::compute::concat_batches(schema, batches)?
    } else {
        let places: Vec<Place> = slots
            .iter()
            .enumerate()
            .flat_map(|(source, slot)| slot.live_rows(0).map(move |row| (source, row)))
            .collect();
        columns::gather(schema, &batches, &places, 0..schema.fields().len())?
    };
    Ok(Slot::new(Arc::new(Chunk::new(Ids::of(&ids), batch))))
}

/// Types must be the same; names, metadata and nullability may differ, as plans spell them differently.
pub(crate) fn check_types(schema: &SchemaRef, batch: &RecordBatch) -> Result<(), StateFault> {
    let expected = schema.fields().iter().map(|field| field.data_type());
    if expected.eq(batch.columns().iter().map(|column| column.data_type())) {
        return Ok(());
    }
    let list = |types: Vec<String>| format!("({})", types.join(", "));
    Err(StateFault::Schema {
        expected: list(schema.fields().iter().map(|field| field.data_type().to_string()).collect()),
        found: list(batch.columns().iter().map(|column| column.data_type().to_string()).collect()),
    })
}

/// The same columns under the names of `schema`, whose types they have.
pub(crate) fn conform(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch, StateFault> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}
