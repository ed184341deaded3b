//! One table of groups: all of an operator's, or those of one window.
//!
//! Within an epoch rows are added in any order. The first touch of a group in an epoch saves its accumulators as they were,
//! which is all that is needed to retract what was published: results are a function of the accumulators. At the end of
//! the epoch [`Table::poll`] publishes the touched groups. A trace of `SELECT k, count(*), sum(x) GROUP BY k`:
//!
//! | epoch | rows in | published |
//! |---|---|---|
//! | 1 | (a, 1) +1, (a, 2) +1 | (a, 2, 3) +1 |
//! | 2 | (a, 5) +1, (a, 5) -1 | nothing: the result is the same |
//! | 3 | (a, 2) -1, (b, 7) +1 | (a, 2, 3) -1, (a, 1, 1) +1, (b, 1, 7) +1 |
//! | 4 | (a, 1) -1 | (a, 1, 1) -1: the group is gone |

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::error::ArrowError;
use millpond_types::{Delta, SqlError};

use super::accumulator::{
    Beside, Kind, Parts, PartsRef, effective_weights, float_moments, float_words, with_multisets,
};
use super::call::Call;
use super::index::Index;
use super::key::{KeyBytes, Keys};
use super::layout::{DIRTY, EPOCH_SHIFT, FLAGS, HASH, KEY, KeySource, Layout, MARK, PERSISTED};
use super::slots::{Arena, Slots, append};
use crate::exchange::constant_time;
use crate::fault::Cause;
use crate::operator::{Output, Progress, RejectedRow};

/// Rows whose slots are brought into the cache together before they are probed.
const ROWS_TOUCHED: usize = 128;

/// Groups published at a time; a batch has at most twice as many rows.
const GROUPS_PER_BATCH: usize = 4096;

/// The window whose groups a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
}

pub(super) struct Table {
    pub(super) layout: Arc<Layout>,
    pub(super) window: Window,
    pub(super) slots: Slots,
    pub(super) arena: Arena,
    pub(super) beside: Vec<Beside>,
    index: Index,
    epoch: u64,
    /// Slots touched in this epoch; `saved` holds the accumulators of each as they were before.
    touched: Vec<u32>,
    saved: Vec<u64>,
    /// Slots with the flag DIRTY, and perhaps others.
    pub(super) dirty: Vec<u32>,
    /// Nothing is published before [`Table::release`].
    held: bool,
    /// The row of a global aggregate stands in the output.
    published_global: bool,
    /// How many of `touched` are published.
    cursor: usize,
    settled: bool,
    /// Checkpoints may be taken of this table: changes are remembered.
    log: bool,
    /// A checkpoint knows of some group.
    pub(super) persisted: bool,
}

/// The live groups of a table, copied out.
pub(super) struct Groups {
    pub(super) slots: Vec<u32>,
    hashes: Vec<u64>,
    keys: Vec<u64>,
    weights: Vec<i64>,
}

impl Table {
    pub(super) fn new(layout: Arc<Layout>, window: Window, held: bool) -> Self {
        Self {
            window,
            slots: Slots::new(layout.stride),
            arena: Arena::default(),
            beside: layout.accumulators.iter().map(|a| a.beside()).collect(),
            index: Index::new(),
            epoch: 1,
            touched: Vec::new(),
            saved: Vec::new(),
            dirty: Vec::new(),
            held,
            published_global: false,
            cursor: 0,
            settled: false,
            log: true,
            persisted: false,
            layout,
        }
    }

    /// A table that is merged into others and never published or saved.
    pub(super) fn partial(layout: Arc<Layout>) -> Self {
        let window = Window { start: None, end: None };
        Self { log: false, ..Self::new(layout, window, true) }
    }

    pub(super) fn groups(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_persisted(&self) -> bool {
        self.persisted
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Adds the rows of a batch. `columns` are the operator's projected input.
    pub(super) fn update(
        &mut self,
        keys: &Keys,
        hashes: &[u64],
        columns: &[ArrayRef],
        weights: Option<&[i64]>,
    ) -> Result<(), Cause> {
        if self.layout.append_only && weights.is_some_and(|w| w.iter().any(|w| *w < 0)) {
            return Err(Cause::NotAppendOnly);
        }
        let mut ids = Vec::with_capacity(hashes.len());
        self.upsert(hashes, &keys.words, keys.bytes(), weights, &mut ids);
        let layout = Arc::clone(&self.layout);
        for (accumulator, beside) in layout.accumulators.iter().zip(&mut self.beside) {
            let column = accumulator.argument.map(|c| &columns[c]);
            let filter = accumulator.filter.map(|c| &columns[c]);
            let effective = effective_weights(ids.len(), weights, column, filter);
            let weights = effective.as_deref().or(weights);
            let mut to = Parts { slots: &mut self.slots, arena: &mut self.arena, beside, log: self.log };
            accumulator.update(&mut to, &ids, column, weights);
        }
        Ok(())
    }

    /// Finds or makes the slot of each key, touches it and adds the row's weight.
    fn upsert(
        &mut self,
        hashes: &[u64],
        keys: &[u64],
        bytes: KeyBytes,
        weights: Option<&[i64]>,
        ids: &mut Vec<u32>,
    ) {
        let layout = Arc::clone(&self.layout);
        let codec = &layout.codec;
        match codec.words() {
            1 => self.upsert_by(hashes, keys, bytes, weights, ids, |slot, _, key, _| slot[KEY] == key[0]),
            2 if !codec.has_bytes() => {
                self.upsert_by(hashes, keys, bytes, weights, ids, |slot, _, key, _| {
                    slot[KEY..KEY + 2] == key[..2]
                });
            }
            words => self.upsert_by(hashes, keys, bytes, weights, ids, |slot, arena, key, row| {
                codec.same(&slot[KEY..KEY + words], arena, key, row, bytes)
            }),
        }
    }

    #[inline(always)]
    fn upsert_by(
        &mut self,
        hashes: &[u64],
        keys: &[u64],
        bytes: KeyBytes,
        weights: Option<&[i64]>,
        ids: &mut Vec<u32>,
        same: impl Fn(&[u64], &Arena, &[u64], usize) -> bool,
    ) {
        let width = self.layout.codec.words();
        let rows_at = self.layout.accumulators_at;
        for from in (0..hashes.len()).step_by(ROWS_TOUCHED) {
            let until = hashes.len().min(from + ROWS_TOUCHED);
            self.slots.touch(hashes[from..until].iter().filter_map(|hash| self.index.guess(*hash)));
            for row in from..until {
                let (hash, key) = (hashes[row], &keys[row * width..(row + 1) * width]);
                let (slots, arena) = (&self.slots, &self.arena);
                let found = self.index.find(hash, |slot| same(slots.get(slot), arena, key, row));
                let slot = match found {
                    Some(slot) => slot,
                    None => self.add(hash, key, row, bytes),
                };
                let words = self.slots.get_mut(slot);
                let mark = words[MARK];
                if mark >> EPOCH_SHIFT != self.epoch {
                    words[MARK] = self.epoch << EPOCH_SHIFT | (mark & FLAGS) | DIRTY;
                    if mark & DIRTY == 0 {
                        self.dirty.push(slot);
                    }
                    self.touched.push(slot);
                    if !self.held {
                        append(&mut self.saved, &words[rows_at..]);
                    }
                }
                let weight = weights.map_or(1, |w| w[row]);
                words[rows_at] = words[rows_at].wrapping_add(weight as u64);
                ids.push(slot);
            }
        }
    }

    fn add(&mut self, hash: u64, key: &[u64], row: usize, bytes: KeyBytes) -> u32 {
        let slot = self.slots.allocate();
        let words = self.slots.get_mut(slot);
        words[HASH] = hash;
        let stored = &mut words[KEY..KEY + key.len()];
        stored.copy_from_slice(key);
        self.layout.codec.adopt(stored, row, bytes, &mut self.arena);
        let slots = &self.slots;
        self.index.insert(hash, slot, |slot| slots.get(slot)[HASH]);
        slot
    }

    /// Makes sure that the only group of a global aggregate exists and will be published.
    pub(super) fn ensure_global(&mut self, hash: u64) {
        if !self.published_global {
            self.upsert(&[hash], &[], KeyBytes::Batch(&[]), Some(&[0]), &mut Vec::new());
        }
    }

    /// Copies out all groups that were touched since the table was made or cleared.
    pub(super) fn gather(&self) -> Groups {
        let (width, rows_at) = (self.layout.codec.words(), self.layout.accumulators_at);
        let mut groups =
            Groups { slots: self.touched.clone(), hashes: Vec::new(), keys: Vec::new(), weights: Vec::new() };
        for &slot in &groups.slots {
            let words = self.slots.get(slot);
            groups.hashes.push(words[HASH]);
            groups.keys.extend_from_slice(&words[KEY..KEY + width]);
            groups.weights.push(words[rows_at] as i64);
        }
        groups
    }

    /// Adds the groups of a partial table of the same layout.
    pub(super) fn merge(&mut self, from: &Table, groups: &Groups) {
        let mut ids = Vec::with_capacity(groups.slots.len());
        let bytes = KeyBytes::Arena(&from.arena);
        self.upsert(&groups.hashes, &groups.keys, bytes, Some(&groups.weights), &mut ids);
        let layout = Arc::clone(&self.layout);
        for (at, accumulator) in layout.accumulators.iter().enumerate() {
            let beside = &mut self.beside[at];
            let mut to = Parts { slots: &mut self.slots, arena: &mut self.arena, beside, log: self.log };
            let source = PartsRef { arena: &from.arena, beside: &from.beside[at] };
            for (&id, &slot) in ids.iter().zip(&groups.slots) {
                accumulator.merge(&mut to, id, &source, from.slots.get(slot));
            }
        }
    }

    /// Empties a partial table.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.index.clear();
        self.arena.clear();
        self.touched.clear();
        self.dirty.clear();
        for beside in &mut self.beside {
            with_multisets!(beside, sets => sets.clear(), strings => strings.clear());
        }
    }

    /// Nothing is left to publish in this epoch.
    pub(super) fn is_idle(&self) -> bool {
        self.touched.is_empty()
    }

    /// From now on results are published; what is there already comes with the next [`Table::poll`].
    pub(super) fn release(&mut self) {
        debug_assert!(self.held && self.touched.is_empty(), "windows close between epochs");
        self.held = false;
        for slot in 0..self.slots.end() {
            let words = self.slots.get_mut(slot);
            if words[self.layout.accumulators_at] == 0 {
                continue;
            }
            if words[MARK] & DIRTY == 0 {
                self.dirty.push(slot);
            }
            words[MARK] = self.epoch << EPOCH_SHIFT | (words[MARK] & FLAGS) | DIRTY;
            self.touched.push(slot);
        }
        self.saved.resize(self.touched.len() * self.layout.accumulator_words, 0);
    }

    /// Publishes the next touched groups.
    pub(super) fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if !self.settled {
            self.settle()?;
            self.settled = true;
        }
        if !self.held {
            let until = self.touched.len().min(self.cursor + GROUPS_PER_BATCH);
            self.publish(self.cursor, until, out)?;
            self.bury(self.cursor, until);
            self.cursor = until;
            if until < self.touched.len() {
                return Ok(Progress::More);
            }
        }
        self.end_epoch();
        Ok(Progress::Done)
    }

    fn end_epoch(&mut self) {
        self.published_global |= self.layout.global && !self.touched.is_empty();
        self.touched.clear();
        self.saved.clear();
        // What one huge epoch needed is not kept for ever.
        if self.touched.capacity() > 1 << 16 {
            self.touched.shrink_to(1 << 12);
            self.saved.shrink_to(1 << 12);
        }
        self.cursor = 0;
        self.settled = false;
        self.epoch += 1;
        if self.arena.wants_rewrite() {
            self.rewrite_arena();
        }
    }

    /// Brings touched groups into the form that they have between epochs, and insists on I6.
    fn settle(&mut self) -> Result<(), Cause> {
        if self.layout.append_only {
            return Ok(());
        }
        let touched = std::mem::take(&mut self.touched);
        let settled = self.settle_slots(&touched);
        self.touched = touched;
        settled
    }

    /// As [`Table::settle`], for some slots.
    pub(super) fn settle_slots(&mut self, slots: &[u32]) -> Result<(), Cause> {
        let layout = Arc::clone(&self.layout);
        let rows_at = layout.accumulators_at;
        for &slot in slots {
            let rows = self.slots.get(slot)[rows_at] as i64;
            if rows < 0 {
                return Err(Cause::NegativeWeight { weight: rows });
            }
            for (accumulator, beside) in layout.accumulators.iter().zip(&mut self.beside) {
                let words = self.slots.part_mut(slot, accumulator.at, accumulator.kind.words());
                let count = accumulator.kind.count_word().map_or(0, |at| words[at] as i64);
                if count < 0 || count > rows {
                    return Err(Cause::NegativeWeight { weight: count });
                }
                // Only now: inside an epoch a count may pass 0 while retractions wait for their insertions.
                if accumulator.kind == Kind::SumFloat && finite_values(words) == 0 {
                    words[..2].fill(0);
                }
                if accumulator.kind == Kind::MomentsFloat {
                    let words: &mut [u64; 6] = words.try_into().expect("six words");
                    let mut moments = float_moments(words);
                    moments.settle();
                    *words = float_words(&moments);
                }
                with_multisets!(beside,
                    sets => sets.settle(&mut self.slots, &mut (), slot)?,
                    strings => strings.settle(&mut self.slots, &mut self.arena, slot)?);
            }
        }
        Ok(())
    }

    fn publish(&mut self, from: usize, until: usize, out: &mut Output) -> Result<(), Cause> {
        let layout = Arc::clone(&self.layout);
        let stride = layout.accumulator_words;
        let fallible: Vec<&Call> = layout.calls.iter().filter(|call| call.is_fallible()).collect();
        let (keys, words) = ((until - from) * layout.codec.words(), (until - from) * stride);
        let room = |times| Changed {
            keys: Vec::with_capacity(keys * times),
            rows: Vec::with_capacity(words * times),
        };
        let (mut changed, mut inserted) = (room(2), room(1));
        for begin in (from..until).step_by(ROWS_TOUCHED) {
            let end = until.min(begin + ROWS_TOUCHED);
            self.slots.touch(self.touched[begin..end].iter().copied());
            for at_touched in begin..end {
                self.compare(at_touched, &fallible, &mut changed, &mut inserted, out)?;
            }
        }
        let retractions = changed.rows.len() / stride;
        changed.keys.append(&mut inserted.keys);
        changed.rows.append(&mut inserted.rows);
        let rows = changed.rows.len() / stride;
        if rows > 0 {
            let batch = self.batch(&changed, rows)?;
            let weights = (retractions > 0).then(|| {
                Int64Array::from_iter_values((0..rows).map(|row| if row < retractions { -1 } else { 1 }))
            });
            out.deltas.push(Delta::new(batch, weights));
        }
        Ok(())
    }

    /// What the `touched`-th touched group retracts and inserts.
    #[inline]
    fn compare(
        &self,
        touched: usize,
        fallible: &[&Call],
        changed: &mut Changed,
        inserted: &mut Changed,
        out: &mut Output,
    ) -> Result<(), Cause> {
        let layout = &*self.layout;
        let (stride, at, width) = (layout.accumulator_words, layout.accumulators_at, layout.codec.words());
        let words = self.slots.get(self.touched[touched]);
        let (key, new) = (&words[KEY..KEY + width], &words[at..]);
        let old = &self.saved[touched * stride..(touched + 1) * stride];
        let existed = if layout.global { self.published_global } else { old[0] != 0 };
        let exists = layout.global || new[0] != 0;
        if existed && exists && layout.calls.iter().all(|call| call.same(old, new, &self.arena)) {
            return Ok(());
        }
        let (mut retract, mut insert) = (existed, exists);
        if !fallible.is_empty() {
            let check = |row: &[u64]| fallible.iter().try_for_each(|call| call.check(row)).err();
            let (before, now) = (check(old).filter(|_| existed), check(new).filter(|_| exists));
            if before.is_some() || now.is_some() {
                (retract, insert) = (existed && before.is_none(), exists && now.is_none());
                if before != now {
                    self.reject(key, before, now, out)?;
                }
            }
        }
        if retract {
            append(&mut changed.keys, key);
            append(&mut changed.rows, old);
        }
        if insert {
            append(&mut inserted.keys, key);
            append(&mut inserted.rows, new);
        }
        Ok(())
    }

    fn batch(&self, changed: &Changed, rows: usize) -> Result<RecordBatch, ArrowError> {
        let layout = &self.layout;
        let mut columns = self.key_columns(&changed.keys, rows)?;
        for call in &layout.calls {
            columns.push(call.finish(&changed.rows, layout.accumulator_words, &self.arena)?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&layout.schema), columns, &options)
    }

    /// The output's key columns.
    fn key_columns(&self, keys: &[u64], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let layout = &self.layout;
        let stored = layout.codec.decode(keys, rows, &self.arena)?;
        let fields = layout.schema.fields();
        layout
            .key_sources
            .iter()
            .zip(fields)
            .map(|(source, field)| match source {
                KeySource::Stored(at) => Ok(Arc::clone(&stored[*at])),
                KeySource::WindowStart => constant_time(field.data_type(), self.window.start, rows),
                KeySource::WindowEnd => constant_time(field.data_type(), self.window.end, rows),
            })
            .collect()
    }

    /// A group's result has begun or ceased to be out of range.
    #[cold]
    fn reject(
        &self,
        key: &[u64],
        before: Option<SqlError>,
        now: Option<SqlError>,
        out: &mut Output,
    ) -> Result<(), Cause> {
        let columns = self.key_columns(key, 1)?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::clone(&self.layout.key_schema), columns, &options)?;
        for (error, weight) in [(before, -1), (now, 1)] {
            if let Some(error) = error {
                out.rejected.push(RejectedRow { error, row: row.clone(), weight });
            }
        }
        Ok(())
    }

    /// Takes groups without rows out of the table. One that a checkpoint knows stays, empty, until the next freeze has
    /// written its end.
    fn bury(&mut self, from: usize, until: usize) {
        if self.layout.append_only || self.layout.global {
            return;
        }
        for at in from..until {
            let slot = self.touched[at];
            let words = self.slots.get(slot);
            if words[self.layout.accumulators_at] == 0 && words[MARK] & PERSISTED == 0 {
                self.remove(slot);
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let slots = &self.slots;
        let words = slots.get(slot);
        self.index.remove(words[HASH], slot, |slot| slots.get(slot)[HASH]);
        self.layout.codec.forget(&words[KEY..KEY + self.layout.codec.words()], &mut self.arena);
        for accumulator in self.layout.accumulators.iter().filter(|a| a.kind.is_bytes()) {
            self.arena.forget([words[accumulator.at], words[accumulator.at + 1]]);
        }
        self.slots.release(slot);
    }

    /// Moves all bytes that are still needed into a new arena.
    fn rewrite_arena(&mut self) {
        let mut fresh = Arena::default();
        let layout = Arc::clone(&self.layout);
        let width = layout.codec.words();
        for slot in 0..self.slots.end() {
            let words = self.slots.get_mut(slot);
            if words[MARK] == 0 {
                continue;
            }
            layout.codec.adopt(&mut words[KEY..KEY + width], 0, KeyBytes::Arena(&self.arena), &mut fresh);
            for accumulator in layout.accumulators.iter().filter(|a| a.kind.is_bytes()) {
                let view = [words[accumulator.at], words[accumulator.at + 1]];
                let moved = fresh.copy(&self.arena, view);
                words[accumulator.at + 1] = moved[1];
            }
        }
        self.arena = fresh;
    }

    /// Puts back a group that a checkpoint has kept. Its words are set by the caller.
    pub(super) fn restore(&mut self, keys: &Keys, hashes: &[u64], ids: &mut Vec<u32>) {
        self.upsert(hashes, &keys.words, keys.bytes(), Some(&vec![0; hashes.len()]), ids);
        for &slot in ids.iter() {
            self.slots.get_mut(slot)[MARK] = PERSISTED;
        }
        self.touched.clear();
        self.saved.clear();
        self.dirty.clear();
        self.published_global = self.layout.global;
        self.persisted = true;
    }

    pub(super) fn mark_released(&mut self) {
        self.held = false;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let mut bytes = self.slots.memory_bytes() + self.arena.memory_bytes() + self.index.memory_bytes();
        bytes += (self.touched.capacity() + self.dirty.capacity()) * 4 + self.saved.capacity() * 8;
        for beside in &self.beside {
            with_multisets!(beside, sets => bytes += sets.memory_bytes(), strings => bytes += strings.memory_bytes());
        }
        bytes
    }
}

/// How many of the values in a [`Kind::SumFloat`] are neither NaN nor infinite.
fn finite_values(words: &[u64]) -> u64 {
    words[3..6].iter().fold(words[2], |finite, special| finite.wrapping_sub(*special))
}

/// Rows to publish: keys and accumulators, each row after row.
struct Changed {
    keys: Vec<u64>,
    rows: Vec<u64>,
}
