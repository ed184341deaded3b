//! Groups out to a checkpoint and back.
//!
//! State [`STATE_GROUPS`], version 1, one row per group: `window_end`, key columns `k0 …` | `window_start`, `released`, `rows`,
//! then per accumulator n `a<n>`: its words in little-endian order, or for a monotone min or max of strings its count, with
//! the string in `a<n>_value`. A retracting min or max has no column: its values are rows of [`STATE_VALUES`]: `window_end`,
//! key columns, `call` (the accumulator's number), `value` (a string as it is, anything else as big-endian words of its
//! ordered form) | `weight`. What was published is not stored, because it is a function of the accumulators.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Int32Array, Int64Array,
    RecordBatch,
};
use arrow::buffer::Buffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type, Schema};
use arrow::error::ArrowError;
use millpond_state::{KeyedRun, StateFault};
use millpond_types::hash::hash_columns;

use super::accumulator::{Accumulator, Beside, Kind, with_multisets};
use super::layout::{DIRTY, KEY, Layout, MARK, PERSISTED};
use super::multiset::Value;
use super::slots::Arena;
use super::table::{Table, Window};
use super::windows::Windows;
use crate::NodeId;
use crate::exchange::times;
use crate::fault::Cause;
use crate::join;
use crate::operator::Piece;
use crate::order::{self, STATE_RIGHT_ROWS, STATE_ROWS};

/// One row per group: window, key columns, then accumulators.
pub const STATE_GROUPS: &str = "groups";
/// One row per distinct value of a min or max whose input retracts: window, key columns, call, value, then its weight.
pub const STATE_VALUES: &str = "values";

/// The states of an aggregate.
pub(super) const AGGREGATE_STATES: [&str; 2] = [STATE_GROUPS, STATE_VALUES];

/// Keys of rows that are frozen, with copies of their bytes.
struct FrozenKeys {
    layout: Arc<Layout>,
    ends: Vec<Option<i64>>,
    words: Vec<u64>,
    arena: Arena,
}

struct FrozenGroups {
    keys: FrozenKeys,
    starts: Vec<Option<i64>>,
    released: Vec<bool>,
    deleted: Vec<bool>,
    /// Accumulators, row after row; strings lie in the arena of the keys.
    rows: Vec<u64>,
}

struct FrozenValues {
    keys: FrozenKeys,
    accumulators: Vec<i32>,
    values: Vec<Box<[u8]>>,
    weights: Vec<i64>,
}

/// What has changed in all shards of one node since its last freeze.
#[derive(Default)]
pub(crate) struct Changes {
    /// Of a join: the rows of its left and right side.
    /// By the name of the state.
    pub(crate) sides: BTreeMap<&'static str, join::FrozenRows>,
    groups: Option<FrozenGroups>,
    values: Option<FrozenValues>,
    /// Of an operator over rows in order.
    rows: Option<order::FrozenRows>,
    /// Of the right side of an ASOF join.
    right_rows: Option<order::FrozenRows>,
}

/// What changed in one state of one node since the last freeze: copied, not yet encoded.
pub struct Frozen {
    pub node: NodeId,
    /// One of [`crate::NodeStats::states`].
    pub state: &'static str,
    rows: usize,
    content: Content,
}

enum Content {
    Groups(FrozenGroups),
    Values(FrozenValues),
    Side(join::FrozenRows),
    Ordered(order::FrozenRows),
}

impl Changes {
    pub(crate) fn into_frozen(self, node: NodeId) -> Vec<Frozen> {
        let mut frozen = Vec::new();
        if let Some(groups) = self.groups {
            let rows = groups.deleted.len();
            frozen.push(Frozen { node, state: STATE_GROUPS, rows, content: Content::Groups(groups) });
        }
        if let Some(values) = self.values {
            let rows = values.weights.len();
            frozen.push(Frozen { node, state: STATE_VALUES, rows, content: Content::Values(values) });
        }
        for (state, changed) in self.sides {
            let rows = changed.rows();
            frozen.push(Frozen { node, state, rows, content: Content::Side(changed) });
        }
        for (state, changed) in [(STATE_ROWS, self.rows), (STATE_RIGHT_ROWS, self.right_rows)] {
            if let Some(changed) = changed {
                let rows = changed.len();
                frozen.push(Frozen { node, state, rows, content: Content::Ordered(changed) });
            }
        }
        frozen
    }

    /// Adds the rows of an ordered state.
    pub(crate) fn rows(&mut self, rows: order::FrozenRows) {
        add(&mut self.rows, rows);
    }

    pub(crate) fn right_rows(&mut self, rows: order::FrozenRows) {
        add(&mut self.right_rows, rows);
    }
}

fn add(known: &mut Option<order::FrozenRows>, rows: order::FrozenRows) {
    match known {
        Some(known) => known.append(rows),
        None => *known = Some(rows),
    }
}

impl Frozen {
    /// Rows, among them those of deleted keys.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Decodes, sorts and packs the rows: work for a background thread.
    ///
    /// # Errors
    /// If the rows cannot be made a run.
    pub fn into_run(self) -> Result<KeyedRun, StateFault> {
        match self.content {
            Content::Groups(groups) => groups.into_run(),
            Content::Values(values) => values.into_run(),
            Content::Side(rows) => rows.into_run(),
            Content::Ordered(rows) => rows.into_run(),
        }
    }
}

impl FrozenKeys {
    fn new(layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), ends: Vec::new(), words: Vec::new(), arena: Arena::default() }
    }

    fn push(&mut self, table: &Table, slot: u32) {
        let codec = &self.layout.codec;
        self.ends.push(table.window.end);
        let from = self.words.len();
        self.words.extend_from_slice(&table.slots.get(slot)[KEY..KEY + codec.words()]);
        let bytes = super::key::KeyBytes::Arena(&table.arena);
        codec.adopt(&mut self.words[from..], 0, bytes, &mut self.arena);
    }

    fn columns(&self) -> Result<Vec<(FieldRef, ArrayRef)>, ArrowError> {
        let keys = self.layout.codec.decode(&self.words, self.ends.len(), &self.arena)?;
        let mut columns = vec![column("window_end", Arc::new(Int64Array::from(self.ends.clone())))];
        columns.extend(keys.into_iter().enumerate().map(|(n, key)| column(&format!("k{n}"), key)));
        Ok(columns)
    }
}

fn column(name: &str, array: ArrayRef) -> (FieldRef, ArrayRef) {
    (Arc::new(Field::new(name, array.data_type().clone(), true)), array)
}

fn run(
    keys: usize,
    columns: Vec<(FieldRef, ArrayRef)>,
    deleted: Option<BooleanArray>,
) -> Result<KeyedRun, StateFault> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    KeyedRun::new(keys, batch, deleted)
}

impl FrozenGroups {
    fn push(&mut self, table: &Table, slot: u32, deleted: bool) {
        let layout = Arc::clone(&self.keys.layout);
        self.keys.push(table, slot);
        self.starts.push(table.window.start);
        self.released.push(!table.is_held());
        self.deleted.push(deleted);
        let from = self.rows.len();
        self.rows.extend_from_slice(&table.slots.get(slot)[layout.accumulators_at..]);
        let row = &mut self.rows[from..];
        for accumulator in layout.accumulators.iter().filter(|a| matches!(a.kind, Kind::MonotoneBytes { .. }))
        {
            let at = accumulator.at - layout.accumulators_at;
            let moved = self.keys.arena.copy(&table.arena, [row[at], row[at + 1]]);
            row[at + 1] = moved[1];
        }
    }

    fn into_run(self) -> Result<KeyedRun, StateFault> {
        let layout = &self.keys.layout;
        let mut columns = self.keys.columns()?;
        let keys = columns.len();
        let rows = || self.rows.chunks_exact(layout.accumulator_words);
        columns.push(column("window_start", Arc::new(Int64Array::from(self.starts))));
        columns.push(column("released", Arc::new(BooleanArray::from(self.released))));
        columns.push(column("rows", Arc::new(Int64Array::from_iter_values(rows().map(|row| row[0] as i64)))));
        for (n, accumulator) in layout.accumulators.iter().enumerate() {
            let at = accumulator.at - layout.accumulators_at;
            let words = accumulator.kind.words();
            match accumulator.kind {
                Kind::Retracting { .. } | Kind::RetractingBytes { .. } => {}
                Kind::MonotoneBytes { .. } => {
                    let counts = Int64Array::from_iter_values(rows().map(|row| row[at + 2] as i64));
                    columns.push(column(&format!("a{n}"), Arc::new(counts)));
                    let views = rows().map(|row| [row[at], row[at + 1]]);
                    let values = super::key::bytes_array(views, &self.keys.arena, None, self.deleted.len())?;
                    columns.push(column(&format!("a{n}_value"), Arc::new(values)));
                }
                _ => {
                    let bytes: Vec<u8> = rows()
                        .flat_map(|row| &row[at..at + words])
                        .flat_map(|word| word.to_le_bytes())
                        .collect();
                    let array =
                        FixedSizeBinaryArray::try_new(words as i32 * 8, Buffer::from_vec(bytes), None)?;
                    columns.push(column(&format!("a{n}"), Arc::new(array)));
                }
            }
        }
        let deleted = self.deleted.contains(&true).then(|| BooleanArray::from(self.deleted));
        run(keys, columns, deleted)
    }
}

impl FrozenValues {
    fn push(&mut self, table: &Table, slot: u32, accumulator: usize, value: Box<[u8]>, weight: i64) {
        self.keys.push(table, slot);
        self.accumulators.push(accumulator as i32);
        self.values.push(value);
        self.weights.push(weight);
    }

    fn into_run(self) -> Result<KeyedRun, StateFault> {
        let mut columns = self.keys.columns()?;
        columns.push(column("call", Arc::new(Int32Array::from(self.accumulators))));
        columns.push(column("value", Arc::new(BinaryArray::from_iter_values(&self.values))));
        let keys = columns.len();
        let deleted: BooleanArray = self.weights.iter().map(|weight| Some(*weight == 0)).collect();
        columns.push(column("weight", Arc::new(Int64Array::from(self.weights))));
        run(keys, columns, Some(deleted))
    }
}

/// A value as the bytes of a checkpoint.
trait Stored: Value {
    fn encode(&self) -> Box<[u8]>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl<const W: usize> Stored for [u64; W] {
    fn encode(&self) -> Box<[u8]> {
        self.iter().flat_map(|word| word.to_be_bytes()).collect()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: [[u8; 8]; W] = words.try_into().ok()?;
        rest.is_empty().then(|| words.map(u64::from_be_bytes))
    }
}

impl Stored for Box<[u8]> {
    fn encode(&self) -> Box<[u8]> {
        self.clone()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.into())
    }
}

impl Table {
    /// Copies out what has changed since the last freeze, and forgets groups whose end is thereby written.
    fn freeze(&mut self, changes: &mut Changes) {
        self.freeze_values(changes, false);
        let layout = Arc::clone(&self.layout);
        for slot in std::mem::take(&mut self.dirty) {
            let words = self.slots.get_mut(slot);
            let mark = words[MARK];
            if mark & DIRTY == 0 {
                continue;
            }
            words[MARK] = (mark & !DIRTY) | PERSISTED;
            let gone = words[layout.accumulators_at] == 0 && !layout.global;
            if !gone || mark & PERSISTED != 0 {
                changes.groups(&layout).push(self, slot, gone);
                self.persisted = true;
            }
            if gone {
                self.remove(slot);
            }
        }
    }

    /// Writes the end of every group that a checkpoint knows: the table is closed.
    fn freeze_end(&mut self, changes: &mut Changes) {
        self.freeze_values(changes, true);
        let layout = Arc::clone(&self.layout);
        for slot in 0..self.slots.end() {
            if self.slots.get(slot)[MARK] & PERSISTED != 0 {
                changes.groups(&layout).push(self, slot, true);
            }
        }
    }

    fn freeze_values(&mut self, changes: &mut Changes, closed: bool) {
        let layout = Arc::clone(&self.layout);
        for at in 0..self.beside.len() {
            let mut beside = std::mem::replace(&mut self.beside[at], Beside::Nothing);
            macro_rules! freeze {
                ($sets:expr, $store:expr) => {{
                    let mut changed = $sets.take_changed(&self.slots, $store);
                    if closed {
                        for slot in 0..self.slots.end() {
                            let values = $sets.values(self.slots.get(slot), $store);
                            changed.extend(values.into_iter().map(|(value, _)| (slot, value, 0)));
                        }
                        changed.iter_mut().for_each(|(_, _, weight)| *weight = 0);
                        changed.sort_unstable();
                        changed.dedup();
                    }
                    for (slot, value, weight) in changed {
                        // A slot without a mark was given back: no checkpoint knows its group.
                        if self.slots.get(slot)[MARK] != 0 {
                            changes.values(&layout).push(self, slot, at, value.encode(), weight);
                        }
                    }
                }};
            }
            with_multisets!(&mut beside, sets => freeze!(sets, &()), strings => freeze!(strings, &self.arena));
            self.beside[at] = beside;
        }
    }
}

impl Changes {
    fn groups(&mut self, layout: &Arc<Layout>) -> &mut FrozenGroups {
        self.groups.get_or_insert_with(|| FrozenGroups {
            keys: FrozenKeys::new(layout),
            starts: Vec::new(),
            released: Vec::new(),
            deleted: Vec::new(),
            rows: Vec::new(),
        })
    }

    fn values(&mut self, layout: &Arc<Layout>) -> &mut FrozenValues {
        self.values.get_or_insert_with(|| FrozenValues {
            keys: FrozenKeys::new(layout),
            accumulators: Vec::new(),
            values: Vec::new(),
            weights: Vec::new(),
        })
    }
}

impl Windows {
    pub(super) fn freeze(&mut self, changes: &mut Changes) {
        for mut table in std::mem::take(&mut self.closed) {
            table.freeze_end(changes);
        }
        for table in self.tables.values_mut() {
            table.freeze(changes);
        }
    }

    pub(super) fn restore(
        &mut self,
        state: &str,
        run: &KeyedRun,
        shard: usize,
        shards: usize,
    ) -> Result<(), Cause> {
        let keys = self.layout.key_fields.len();
        for part in run.parts() {
            let batch = match &part.deleted {
                Some(deleted) => filter_record_batch(&part.batch, &arrow::compute::not(deleted)?)?,
                None => part.batch.clone(),
            };
            let saved = SavedRows { columns: batch.columns().to_vec(), schema: batch.schema(), keys };
            saved.check(&self.layout, state)?;
            let hashes = hash_columns(&saved.columns[1..=keys], batch.num_rows())?;
            let piece = Piece { port: 0, columns: saved.columns, weights: None, hashes };
            let Some(piece) = piece.by_shard(shards)?.swap_remove(shard) else { continue };
            let ends: Vec<Option<i64>> = times(&piece.columns[0])?.iter().collect();
            for (end, piece) in piece.by_label(&ends)? {
                let saved = SavedRows { columns: piece.columns, schema: batch.schema(), keys };
                match state {
                    STATE_GROUPS => self.restore_groups(end, &saved, &piece.hashes)?,
                    _ => self.restore_values(end, &saved, &piece.hashes)?,
                }
            }
        }
        Ok(())
    }

    fn restore_groups(&mut self, end: Option<i64>, saved: &SavedRows, hashes: &[u64]) -> Result<(), Cause> {
        let layout = Arc::clone(&self.layout);
        let start = times(saved.column("window_start")?)?.iter().next().flatten();
        let released = saved.boolean("released")?.true_count() > 0;
        let rows = saved.int64("rows")?;
        let table = self.table(Window { start, end });
        if released {
            table.mark_released();
        }
        let keys = layout.codec.encode(&saved.columns[1..=saved.keys], hashes.len())?;
        let mut ids = Vec::new();
        table.restore(&keys, hashes, &mut ids);
        for (&slot, rows) in ids.iter().zip(rows.values()) {
            table.slots.get_mut(slot)[layout.accumulators_at] = *rows as u64;
        }
        for (n, accumulator) in layout.accumulators.iter().enumerate() {
            table.restore_accumulator(n, accumulator, saved, &ids)?;
        }
        Ok(())
    }

    fn restore_values(&mut self, end: Option<i64>, saved: &SavedRows, hashes: &[u64]) -> Result<(), Cause> {
        let layout = Arc::clone(&self.layout);
        let Some(table) = self.tables.get_mut(&end) else {
            return Err(Cause::Saved("values of a window that has no groups".to_owned()));
        };
        let keys = layout.codec.encode(&saved.columns[1..=saved.keys], hashes.len())?;
        let calls =
            saved.column("call")?.as_primitive_opt::<Int32Type>().ok_or_else(|| bad_column("call"))?;
        let values = saved.column("value")?.as_binary_opt::<i32>().ok_or_else(|| bad_column("value"))?;
        let weights = saved.int64("weight")?;
        let (groups, mut ids) = (table.groups(), Vec::new());
        table.restore(&keys, hashes, &mut ids);
        if table.groups() != groups {
            return Err(Cause::Saved("values of a group that is not there".to_owned()));
        }
        for (row, &slot) in ids.iter().enumerate() {
            table.restore_value(slot, calls.value(row), values.value(row), weights.value(row))?;
        }
        table.settle_slots(&ids)
    }
}

/// Columns of a saved state, checked before use: they come from outside (I7).
struct SavedRows {
    columns: Vec<ArrayRef>,
    schema: Arc<Schema>,
    keys: usize,
}

fn bad_column(name: &str) -> Cause {
    Cause::Saved(format!("column {name} is missing or of another type"))
}

impl SavedRows {
    fn check(&self, layout: &Layout, state: &str) -> Result<(), Cause> {
        if state != STATE_GROUPS && (state != STATE_VALUES || !layout.has_multisets) {
            return Err(Cause::Saved(format!("there is no state \"{state}\"")));
        }
        let keys = self.columns.get(1..=self.keys).ok_or_else(|| bad_column("of the key"))?;
        let fits = keys.iter().zip(&layout.key_fields).all(|(key, field)| {
            key.data_type() == field.data_type() && (field.is_nullable() || key.null_count() == 0)
        });
        if !fits || *self.columns[0].data_type() != DataType::Int64 {
            return Err(bad_column("of the key"));
        }
        Ok(())
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, Cause> {
        let (at, _) = self.schema.column_with_name(name).ok_or_else(|| bad_column(name))?;
        Ok(&self.columns[at])
    }

    fn int64(&self, name: &str) -> Result<&Int64Array, Cause> {
        self.column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| bad_column(name))
    }

    fn boolean(&self, name: &str) -> Result<&BooleanArray, Cause> {
        self.column(name)?.as_boolean_opt().ok_or_else(|| bad_column(name))
    }
}

impl Table {
    fn restore_accumulator(
        &mut self,
        n: usize,
        accumulator: &Accumulator,
        saved: &SavedRows,
        ids: &[u32],
    ) -> Result<(), Cause> {
        let name = format!("a{n}");
        let words = accumulator.kind.words();
        match accumulator.kind {
            Kind::Retracting { .. } | Kind::RetractingBytes { .. } => {}
            Kind::MonotoneBytes { .. } => {
                let value_name = format!("a{n}_value");
                let counts = saved.int64(&name)?;
                let values = saved.column(&value_name)?;
                let values = values.as_binary_opt::<i32>().ok_or_else(|| bad_column(&value_name))?;
                for (row, &slot) in ids.iter().enumerate() {
                    let view = self.arena.store(values.value(row));
                    let target = self.slots.part_mut(slot, accumulator.at, words);
                    target.copy_from_slice(&[view[0], view[1], counts.value(row) as u64]);
                }
            }
            _ => {
                let column = saved.column(&name)?.as_fixed_size_binary_opt();
                let column = column
                    .filter(|c| c.value_length() as usize == words * 8)
                    .ok_or_else(|| bad_column(&name))?;
                for (row, &slot) in ids.iter().enumerate() {
                    let target = self.slots.part_mut(slot, accumulator.at, words);
                    for (word, bytes) in target.iter_mut().zip(column.value(row).as_chunks::<8>().0) {
                        *word = u64::from_le_bytes(*bytes);
                    }
                }
            }
        }
        Ok(())
    }

    fn restore_value(&mut self, slot: u32, call: i32, value: &[u8], weight: i64) -> Result<(), Cause> {
        let beside = usize::try_from(call).ok().and_then(|call| self.beside.get_mut(call));
        let malformed = || Cause::Saved("a value of a min or max is malformed".to_owned());
        let beside = beside.ok_or_else(malformed)?;
        if weight <= 0 {
            return Err(malformed());
        }
        with_multisets!(beside,
            sets => {
                let value = Stored::decode(value).ok_or_else(malformed)?;
                sets.add(&mut self.slots, &mut (), slot, value, weight, false);
            },
            strings => strings.add(&mut self.slots, &mut self.arena, slot, value.into(), weight, false));
        Ok(())
    }
}
