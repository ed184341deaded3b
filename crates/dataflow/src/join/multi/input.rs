//! The rows of one source, behind an index for each set of columns that they are looked up by.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use millpond_types::SqlError;
use millpond_types::hash::hash_columns;

use super::Shape;
use crate::fault::Cause;
use crate::join::keys::KeyTable;
use crate::join::side::{Applied, Side};

const NONE: u32 = u32::MAX;

pub(super) struct Rows {
    pub(super) side: Side,
    /// The first index; its chains are those of the side.
    first: KeyTable,
    others: Vec<Chains>,
    /// The columns of each index.
    indexes: Vec<Vec<usize>>,
}

/// One more index over the entries of a side.
struct Chains {
    table: KeyTable,
    /// Of each entry: its key and its neighbours.
    keys: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
}

/// Rows of a delta, after they were added.
pub(super) struct Added {
    pub(super) applied: Vec<Applied>,
    /// The first index's keys of all rows of the delta.
    slots: Vec<u32>,
}

impl Rows {
    pub(super) fn new(shape: &Shape, source: usize, shard: usize, shards: usize) -> Result<Self, SqlError> {
        let of = &shape.sources[source];
        let mut tables = (0..of.indexes.len()).map(|index| Ok(KeyTable::new(shape.codec(source, index)?)));
        let first =
            tables.next().unwrap_or_else(|| Err(SqlError::internal("a source is never looked up")))?;
        let chains = |table| Chains { table, keys: Vec::new(), next: Vec::new(), previous: Vec::new() };
        Ok(Self {
            side: Side::new(0, Arc::clone(&of.schema), !of.append_only, false, shard, shards),
            first,
            others: tables.map(|table| table.map(chains)).collect::<Result<_, SqlError>>()?,
            indexes: of.indexes.clone(),
        })
    }

    fn key_columns(&self, index: usize, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.indexes[index].iter().map(|column| Arc::clone(&columns[*column])).collect()
    }

    /// Adds the rows of the delta with this number. `ids` are those of rows that come from a checkpoint.
    pub(super) fn add(
        &mut self,
        columns: &[ArrayRef],
        weights: Option<&[i64]>,
        rows: usize,
        ids: Option<&[i64]>,
        number: u64,
    ) -> Result<Added, Cause> {
        let keys = self.key_columns(0, columns);
        let encoded = self.first.codec.encode(&keys, rows)?;
        let slots = self.first.upsert(&encoded, &hash_columns(&keys, rows)?);
        for &slot in &slots {
            self.first.touch(slot, number);
        }
        let applied = self.side.apply(&mut self.first, &slots, columns, weights, ids)?;
        let (fresh, entries): (Vec<u32>, Vec<u32>) = applied
            .iter()
            .filter(|applied| applied.fresh)
            .map(|applied| (applied.row, applied.entry))
            .unzip();
        let fresh = UInt32Array::from(fresh);
        for index in 1..self.indexes.len() {
            let keys = self.key_columns(index, columns);
            let keys = keys.iter().map(|key| take(key, &fresh, None)).collect::<Result<Vec<_>, _>>()?;
            self.others[index - 1].add(&keys, &entries, number)?;
        }
        Ok(Added { applied, slots })
    }

    /// Forgets rows of a delta that have no weight left, and keys without rows.
    pub(super) fn tidy(&mut self, added: &Added) -> Result<(), Cause> {
        let side = &self.side;
        let gone = added.applied.iter().filter(|a| !a.fresh && side.weight(a.entry) == 0);
        let gone: Vec<u32> = gone.map(|applied| applied.entry).collect();
        self.others.iter_mut().for_each(|chains| chains.remove(&gone));
        self.side.remove(&mut self.first, &gone)?;
        if !gone.is_empty() || added.applied.len() < added.slots.len() {
            added.slots.iter().for_each(|slot| self.first.remove_unused(*slot));
        }
        Ok(())
    }

    /// The first row of each key of an index.
    pub(super) fn find(
        &self,
        index: usize,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Option<u32>>, Cause> {
        let table = match index {
            0 => &self.first,
            _ => &self.others[index - 1].table,
        };
        let encoded = table.codec.encode(keys, rows)?;
        let slots = table.find(&encoded, &hash_columns(keys, rows)?);
        Ok(slots.into_iter().map(|slot| slot.and_then(|slot| table.head(slot, 0))).collect())
    }

    /// The row behind `entry` in its chain of an index.
    #[inline]
    pub(super) fn next(&self, index: usize, entry: u32) -> Option<u32> {
        match index {
            0 => self.side.next(entry),
            _ => Some(self.others[index - 1].next[entry as usize]).filter(|next| *next != NONE),
        }
    }

    pub(super) fn end_epoch(&mut self, budget_rows: usize) -> Result<(), Cause> {
        self.side.end_epoch(budget_rows)?;
        self.first.tidy();
        self.others.iter_mut().for_each(|chains| chains.table.tidy());
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let others = self.others.iter().map(|chains| {
            let words = chains.keys.capacity() + chains.next.capacity() + chains.previous.capacity();
            chains.table.memory_bytes() + words * 4
        });
        self.side.memory_bytes() + self.first.memory_bytes() + others.sum::<usize>()
    }
}

impl Chains {
    fn add(&mut self, keys: &[ArrayRef], entries: &[u32], number: u64) -> Result<(), Cause> {
        let encoded = self.table.codec.encode(keys, entries.len())?;
        let slots = self.table.upsert(&encoded, &hash_columns(keys, entries.len())?);
        for (&entry, &slot) in entries.iter().zip(&slots) {
            self.table.touch(slot, number);
            let at = entry as usize;
            if at >= self.keys.len() {
                for column in [&mut self.keys, &mut self.next, &mut self.previous] {
                    column.resize(at + 1, NONE);
                }
            }
            let head = self.table.head(slot, 0);
            (self.keys[at], self.previous[at]) = (slot, NONE);
            self.next[at] = head.unwrap_or(NONE);
            if let Some(head) = head {
                self.previous[head as usize] = entry;
            }
            self.table.set_head(slot, 0, Some(entry));
        }
        Ok(())
    }

    fn remove(&mut self, entries: &[u32]) {
        for &entry in entries {
            let at = entry as usize;
            let (slot, next, previous) = (self.keys[at], self.next[at], self.previous[at]);
            match previous {
                NONE => self.table.set_head(slot, 0, (next != NONE).then_some(next)),
                previous => self.next[previous as usize] = next,
            }
            if next != NONE {
                self.previous[next as usize] = previous;
            }
            self.table.remove_unused(slot);
        }
    }
}
