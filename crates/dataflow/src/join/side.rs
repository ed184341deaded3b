//! The rows of one side of a join, in one shard.
//!
//! A row is an entry, which knows where its values lie in the heap, its weight, and its neighbours in the chain of its key.
//! Where rows are retracted, or only their number matters, equal rows share an entry, which a second index finds by value.
//! All steps run over whole batches: hashes are probed first, then the candidates of all rows are compared column by column.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use millpond_state::{Heap, RowId, same_rows};
use millpond_types::hash::hash_columns;

use super::keys::KeyTable;
use crate::aggregate::index::Index;
use crate::fault::Cause;

/// Rows are freed together that end within this time, a second or so.
const SPAN_MICROS: i64 = 1 << 20;
const NONE: u32 = u32::MAX;
/// The entry stands in the list of those to freeze.
const DIRTY: u8 = 1;
/// A checkpoint knows the entry, so its end must be written too.
const PERSISTED: u8 = 2;

/// A row of a delta, after it was applied.
#[derive(Clone, Copy)]
pub(super) struct Applied {
    /// Row of the delta.
    pub(super) row: u32,
    pub(super) entry: u32,
    pub(super) key: u32,
    /// By how much the entry's weight changed; not 0.
    pub(super) weight: i64,
    /// The entry was made for this row.
    pub(super) fresh: bool,
}

pub(super) struct Side {
    side: usize,
    pub(super) heap: Heap,
    /// Equal rows share an entry.
    consolidates: bool,
    counts: bool,
    /// Of each entry: its row, key, weight and neighbours; and where needed the hash of its values, the weight of its
    /// matches, and the delta that last changed that.
    rows: Vec<u64>,
    keys: Vec<u32>,
    weights: Vec<i64>,
    next: Vec<u32>,
    previous: Vec<u32>,
    hashes: Vec<u64>,
    matches: Vec<i64>,
    marks: Vec<u64>,
    /// Of each entry: the id that checkpoints know it by, and flags.
    ids: Vec<i64>,
    flags: Vec<u8>,
    free: Vec<u32>,
    by_value: Index,
    live: usize,
    negative: usize,
    dirty: Vec<u32>,
    /// Entries by when they are freed, in spans of [`SPAN_MICROS`].
    expiring: BTreeMap<i64, Vec<u32>>,
    /// Ids of entries that ended since the last freeze.
    ended: Vec<i64>,
    /// Ids are unique over all shards: the next one of this shard, and the distance to the one after it.
    next_id: i64,
    id_step: i64,
}

/// Rows of a delta that share an entry, and their sum.
struct Distinct {
    rows: Vec<u32>,
    weights: Vec<i64>,
}

impl Side {
    pub(super) fn new(
        side: usize,
        schema: SchemaRef,
        consolidates: bool,
        counts: bool,
        shard: usize,
        shards: usize,
    ) -> Self {
        Self {
            side,
            heap: Heap::new(schema),
            consolidates,
            counts,
            rows: Vec::new(),
            keys: Vec::new(),
            weights: Vec::new(),
            next: Vec::new(),
            previous: Vec::new(),
            hashes: Vec::new(),
            matches: Vec::new(),
            marks: Vec::new(),
            ids: Vec::new(),
            flags: Vec::new(),
            free: Vec::new(),
            by_value: Index::new(),
            live: 0,
            negative: 0,
            dirty: Vec::new(),
            expiring: BTreeMap::new(),
            ended: Vec::new(),
            next_id: shard as i64,
            id_step: shards as i64,
        }
    }

    /// Adds the rows of a delta to the entries of their keys. Entries whose weight becomes 0 stay until [`Side::remove`].
    ///
    /// `ids` are those of rows that come from a checkpoint.
    ///
    /// # Errors
    /// If a row is retracted from a side that is append-only.
    pub(super) fn apply(
        &mut self,
        table: &mut KeyTable,
        keys: &[u32],
        columns: &[ArrayRef],
        weights: Option<&[i64]>,
        ids: Option<&[i64]>,
    ) -> Result<Vec<Applied>, Cause> {
        let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
        let batch =
            RecordBatch::try_new_with_options(self.heap.schema().clone(), columns.to_vec(), &options)?;
        if !self.consolidates {
            if weights.is_some_and(|w| w.iter().any(|w| *w < 0)) {
                return Err(Cause::NotAppendOnly);
            }
            let weight = |row: u32| weights.map_or(1, |w| w[row as usize]);
            let rows: Vec<u32> = (0..keys.len() as u32).filter(|row| weight(*row) != 0).collect();
            return self.insert(table, keys, &batch, &rows, &[], weight, ids);
        }
        let hashes = hash_columns(columns, keys.len())?;
        let distinct = distinct(&batch, &hashes, weights)?;
        let found = self.find(&batch, &distinct.rows, &hashes)?;
        let mut applied = Vec::with_capacity(found.len());
        let mut missing = Vec::new();
        let mut missing_weights = vec![0; if found.contains(&None) { keys.len() } else { 0 }];
        for ((&row, &weight), found) in distinct.rows.iter().zip(&distinct.weights).zip(found) {
            let Some(entry) = found else {
                missing.push(row);
                missing_weights[row as usize] = weight;
                continue;
            };
            let key = keys[row as usize];
            self.change(entry, weight);
            table.add_weight(key, self.side, weight);
            applied.push(Applied { row, entry, key, weight, fresh: false });
        }
        let weight = |row: u32| missing_weights[row as usize];
        applied.extend(self.insert(table, keys, &batch, &missing, &hashes, weight, ids)?);
        Ok(applied)
    }

    fn change(&mut self, entry: u32, weight: i64) {
        let at = entry as usize;
        let before = self.weights[at];
        self.weights[at] += weight;
        self.negative += usize::from(self.weights[at] < 0);
        self.negative -= usize::from(before < 0);
        self.dirty(entry);
    }

    fn dirty(&mut self, entry: u32) {
        let flags = &mut self.flags[entry as usize];
        if *flags & DIRTY == 0 {
            *flags |= DIRTY;
            self.dirty.push(entry);
        }
    }

    /// The entry that holds the values of each row.
    fn find(&self, batch: &RecordBatch, rows: &[u32], hashes: &[u64]) -> Result<Vec<Option<u32>>, Cause> {
        let look = |row: u32| {
            let hash = hashes[row as usize];
            self.by_value.find(hash, |entry| self.hashes[entry as usize] == hash)
        };
        let mut found: Vec<Option<u32>> = rows.iter().map(|row| look(*row)).collect();
        let candidates = rows.iter().zip(&found).filter_map(|(row, entry)| Some((*row, (*entry)?)));
        let (probes, entries): (Vec<u32>, Vec<u32>) = candidates.unzip();
        let same = self.same(batch, &probes, &entries)?;
        for ((row, found), same) in rows.iter().zip(&mut found).filter(|(_, f)| f.is_some()).zip(same) {
            if !same {
                *found = self.search(batch, *row, hashes[*row as usize])?;
            }
        }
        Ok(found)
    }

    fn same(&self, batch: &RecordBatch, rows: &[u32], entries: &[u32]) -> Result<Vec<bool>, Cause> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.heap.gather(&self.row_ids(entries), None)?;
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        Ok(same_rows(batch, rows, &stored, &all)?)
    }

    /// Looks at each entry of a hash: there is more than one only if hashes collide, or for values like 0.0 and -0.0.
    #[cold]
    fn search(&self, batch: &RecordBatch, row: u32, hash: u64) -> Result<Option<u32>, Cause> {
        let mut entries = Vec::new();
        self.by_value.find(hash, |entry| {
            if self.hashes[entry as usize] == hash {
                entries.push(entry);
            }
            false
        });
        let same = self.same(batch, &vec![row; entries.len()], &entries)?;
        Ok(entries.into_iter().zip(same).find(|(_, same)| *same).map(|(entry, _)| entry))
    }

    /// Makes an entry for each of `rows`.
    #[allow(clippy::too_many_arguments)] // columns of one delta
    fn insert(
        &mut self,
        table: &mut KeyTable,
        keys: &[u32],
        batch: &RecordBatch,
        rows: &[u32],
        hashes: &[u64],
        weight: impl Fn(u32) -> i64,
        ids: Option<&[i64]>,
    ) -> Result<Vec<Applied>, Cause> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let first = if rows.len() == batch.num_rows() && rows.is_sorted() {
            self.heap.append(batch)?
        } else {
            self.heap.append(&take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)?
        };
        let mut applied = Vec::with_capacity(rows.len());
        for (at, &row) in rows.iter().enumerate() {
            let (key, weight) = (keys[row as usize], weight(row));
            let entry = self.allocate();
            let slot = entry as usize;
            self.rows[slot] = first.0 + at as u64;
            self.keys[slot] = key;
            self.weights[slot] = weight;
            self.negative += usize::from(weight < 0);
            if self.consolidates {
                let hash = hashes[row as usize];
                self.hashes[slot] = hash;
                let all = &self.hashes;
                self.by_value.insert(hash, entry, |entry| all[entry as usize]);
            }
            self.link(table, entry, key);
            table.add_weight(key, self.side, weight);
            match ids {
                Some(ids) => {
                    self.ids[slot] = ids[row as usize];
                    self.flags[slot] = PERSISTED;
                }
                None => {
                    self.ids[slot] = self.next_id;
                    self.next_id += self.id_step;
                    self.flags[slot] = 0;
                    self.dirty(entry);
                }
            }
            applied.push(Applied { row, entry, key, weight, fresh: true });
        }
        self.live += rows.len();
        Ok(applied)
    }

    fn allocate(&mut self) -> u32 {
        if let Some(entry) = self.free.pop() {
            let slot = entry as usize;
            if self.counts {
                (self.matches[slot], self.marks[slot]) = (0, 0);
            }
            return entry;
        }
        let entry = self.rows.len() as u32;
        self.rows.push(0);
        self.keys.push(0);
        self.weights.push(0);
        self.next.push(NONE);
        self.previous.push(NONE);
        self.ids.push(0);
        self.flags.push(0);
        if self.consolidates {
            self.hashes.push(0);
        }
        if self.counts {
            self.matches.push(0);
            self.marks.push(0);
        }
        entry
    }

    fn link(&mut self, table: &mut KeyTable, entry: u32, key: u32) {
        let head = table.head(key, self.side);
        self.previous[entry as usize] = NONE;
        self.next[entry as usize] = head.unwrap_or(NONE);
        if let Some(head) = head {
            self.previous[head as usize] = entry;
        }
        table.set_head(key, self.side, Some(entry));
    }

    /// Forgets entries. Their keys may then be without rows.
    pub(super) fn remove(&mut self, table: &mut KeyTable, entries: &[u32]) -> Result<(), Cause> {
        if entries.is_empty() {
            return Ok(());
        }
        self.heap.delete(&self.row_ids(entries))?;
        for &entry in entries {
            let slot = entry as usize;
            let (previous, next) = (self.previous[slot], self.next[slot]);
            match previous {
                NONE => {
                    let next = (next != NONE).then_some(next);
                    table.set_head(self.keys[slot], self.side, next);
                }
                previous => self.next[previous as usize] = next,
            }
            if next != NONE {
                self.previous[next as usize] = previous;
            }
            if self.consolidates {
                let hashes = &self.hashes;
                self.by_value.remove(hashes[slot], entry, |entry| hashes[entry as usize]);
            }
            if self.flags[slot] & PERSISTED != 0 {
                self.ended.push(self.ids[slot]);
            }
            self.flags[slot] = 0;
            self.free.push(entry);
        }
        self.live -= entries.len();
        Ok(())
    }

    /// The entry may go when the watermark has reached `end`.
    pub(super) fn expire_at(&mut self, entry: u32, end: i64) {
        self.expiring.entry(end.div_euclid(SPAN_MICROS)).or_default().push(entry);
    }

    /// Forgets the entries whose end `mark` has passed by a span at most, and gives their keys.
    pub(super) fn expire(&mut self, table: &mut KeyTable, mark: i64) -> Result<Vec<u32>, Cause> {
        let mut keys = Vec::new();
        while let Some(first) = self.expiring.first_entry()
            && first.key().saturating_add(1).saturating_mul(SPAN_MICROS) <= mark
        {
            let entries = first.remove();
            for &entry in &entries {
                let key = self.keys[entry as usize];
                table.add_weight(key, self.side, -self.weights[entry as usize]);
                keys.push(key);
            }
            self.remove(table, &entries)?;
        }
        Ok(keys)
    }

    #[inline]
    pub(super) fn weight(&self, entry: u32) -> i64 {
        self.weights[entry as usize]
    }

    #[inline]
    pub(super) fn next(&self, entry: u32) -> Option<u32> {
        Some(self.next[entry as usize]).filter(|next| *next != NONE)
    }

    /// The weight of the rows that match an entry.
    #[inline]
    pub(super) fn matches(&self, entry: u32) -> i64 {
        self.matches[entry as usize]
    }

    pub(super) fn add_matches(&mut self, entry: u32, weight: i64) {
        self.matches[entry as usize] += weight;
    }

    /// Marks an entry with the number of a delta; true if it was not marked with it before.
    pub(super) fn touch(&mut self, entry: u32, number: u64) -> bool {
        std::mem::replace(&mut self.marks[entry as usize], number) != number
    }

    pub(super) fn row_ids(&self, entries: &[u32]) -> Vec<RowId> {
        entries.iter().map(|entry| RowId(self.rows[*entry as usize])).collect()
    }

    /// # Errors
    /// If more was retracted than was inserted (I6).
    pub(super) fn end_epoch(&mut self, budget_rows: usize) -> Result<(), Cause> {
        if self.negative > 0 {
            let weight = self.weights.iter().copied().min().unwrap_or(-1);
            return Err(Cause::NegativeWeight { weight });
        }
        self.heap.maintain(budget_rows)?;
        Ok(())
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let words = self.rows.capacity()
            + self.weights.capacity()
            + self.hashes.capacity()
            + self.matches.capacity()
            + self.marks.capacity()
            + self.ids.capacity()
            + self.ended.capacity();
        let halves = self.keys.capacity()
            + self.next.capacity()
            + self.previous.capacity()
            + self.free.capacity()
            + self.dirty.capacity()
            + self.expiring.values().map(Vec::capacity).sum::<usize>();
        self.heap.bytes() + words * 8 + halves * 4 + self.flags.capacity() + self.by_value.memory_bytes()
    }

    /// What has changed since the last call: entries with their ids and weights, and the ids of those that ended.
    pub(super) fn take_changed(&mut self) -> (Vec<u32>, Vec<i64>, Vec<i64>, Vec<i64>) {
        let mut entries = Vec::new();
        for entry in std::mem::take(&mut self.dirty) {
            let flags = &mut self.flags[entry as usize];
            if *flags & DIRTY != 0 {
                *flags = PERSISTED;
                entries.push(entry);
            }
        }
        let ids = entries.iter().map(|entry| self.ids[*entry as usize]).collect();
        let weights = entries.iter().map(|entry| self.weights[*entry as usize]).collect();
        (entries, ids, weights, std::mem::take(&mut self.ended))
    }

    /// New ids will be above `id`, which a checkpoint knows.
    pub(super) fn reserve_id(&mut self, id: i64) {
        let shard = self.next_id.rem_euclid(self.id_step);
        let after = (id / self.id_step + 1) * self.id_step + shard;
        self.next_id = self.next_id.max(after);
    }
}

/// One row of each set of equal rows, with the sum of their weights where that is not 0.
fn distinct(batch: &RecordBatch, hashes: &[u64], weights: Option<&[i64]>) -> Result<Distinct, Cause> {
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    order.sort_by_key(|row| hashes[*row as usize]);
    let hash = |row: u32| hashes[row as usize];
    let mut sums: Vec<i64> = match weights {
        Some(weights) => weights.to_vec(),
        None => vec![1; hashes.len()],
    };
    let (mut firsts, mut repeats) = (Vec::new(), Vec::new());
    let mut first = None;
    for &row in &order {
        match first {
            Some(known) if hash(known) == hash(row) => {
                firsts.push(known);
                repeats.push(row);
            }
            _ => first = Some(row),
        }
    }
    if !repeats.is_empty() {
        let same = same_rows(batch, &firsts, batch, &repeats)?;
        // Rows of one hash that are not equal to its first row: collisions, or 0.0 and -0.0.
        let mut others: Vec<u32> = Vec::new();
        for ((first, row), same) in firsts.into_iter().zip(repeats).zip(same) {
            let into = if same { Some(first) } else { equal_in(batch, &others, row)? };
            match into {
                Some(into) => sums[into as usize] += std::mem::take(&mut sums[row as usize]),
                None => others.push(row),
            }
        }
    }
    let rows: Vec<u32> = (0..hashes.len() as u32).filter(|row| sums[*row as usize] != 0).collect();
    let weights = rows.iter().map(|row| sums[*row as usize]).collect();
    Ok(Distinct { rows, weights })
}

#[cold]
fn equal_in(batch: &RecordBatch, others: &[u32], row: u32) -> Result<Option<u32>, Cause> {
    let same = same_rows(batch, others, batch, &vec![row; others.len()])?;
    Ok(others.iter().copied().zip(same).find(|(_, same)| *same).map(|(other, _)| other))
}
