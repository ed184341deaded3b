//! The rows of one shard, all partitions in one ordered map, and what an epoch changes in it.
//!
//! State [`STATE_ROWS`], version 1: the columns of a row as the operator orders them (`c0 …`), where floats or intervals are
//! among them `variant` (a hash of their bits) | `weight`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema};
use millpond_state::{KeyedRun, StateFault};
use millpond_types::Delta;

use super::codec::{Codec, Key};
use crate::aggregate::Changes as FrozenChanges;
use crate::fault::Cause;
use crate::operator::{Output, Piece, Router};

/// One row per row of an ordered state: its columns, then its weight.
pub const STATE_ROWS: &str = "rows";

/// The states of an operator over rows in order.
pub(super) const ORDER_STATES: [&str; 1] = [STATE_ROWS];

/// What a row costs beside its bytes: its place in the map, its reference counts.
const ROW_BYTES: usize = 72;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) now: i64,
    /// The weight before this epoch.
    pub(super) before: i64,
    /// The length of the prefix that peers share.
    pub(super) peers: u32,
}

/// By how much the weight of a row changes in an epoch.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) weight: i64,
    partition: u32,
    peers: u32,
}

impl Change {
    pub(super) fn partition(&self) -> &[u8] {
        &self.key[..self.partition as usize]
    }

    pub(super) fn peers(&self) -> &[u8] {
        &self.key[..self.peers as usize]
    }
}

/// The end of the changes of the partition that `from` belongs to.
pub(super) fn partition_end(changes: &[Change], from: usize) -> usize {
    let partition = changes[from].partition();
    from + changes[from..].iter().take_while(|change| change.partition() == partition).count()
}

pub(super) struct Store {
    pub(super) codec: Arc<Codec>,
    append_only: bool,
    rows: BTreeMap<Key, Entry>,
    pending: Vec<Change>,
    /// Rows whose weight may have changed since the last freeze.
    dirty: Vec<Key>,
    /// Length of `dirty` when it was last without duplicates.
    distinct: usize,
    bytes: usize,
}

impl Store {
    pub(super) fn new(codec: Arc<Codec>, append_only: bool) -> Self {
        let (rows, pending, dirty) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { codec, append_only, rows, pending, dirty, distinct: 0, bytes: 0 }
    }

    pub(super) fn push(&mut self, piece: &Piece) -> Result<(), Cause> {
        let encoded = self.codec.encode(&piece.columns, piece.rows())?;
        self.pending.reserve(piece.rows());
        for (at, row) in encoded.rows.iter().enumerate() {
            let weight = piece.weights.as_ref().map_or(1, |weights| weights[at]);
            if weight < 0 && self.append_only {
                return Err(Cause::NotAppendOnly);
            }
            let (partition, peers) = (encoded.partition[at], encoded.peers[at]);
            self.pending.push(Change { key: Key::from(row.data()), weight, partition, peers });
        }
        Ok(())
    }

    /// What the epoch changes, in order of rows.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.pending);
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        changes.dedup_by(|next, first| {
            let same = next.key == first.key;
            if same {
                first.weight += next.weight;
            }
            same
        });
        changes.retain(|change| change.weight != 0);
        changes
    }

    /// Rows of a partition from its first on, those that this epoch took away included.
    pub(super) fn partition<'s>(&'s self, prefix: &'s [u8]) -> impl Iterator<Item = (&'s Key, &'s Entry)> {
        self.from(prefix, Bound::Included(prefix))
    }

    /// Rows of a partition from some bytes on.
    pub(super) fn from<'s>(
        &'s self,
        prefix: &'s [u8],
        from: Bound<&'s [u8]>,
    ) -> impl Iterator<Item = (&'s Key, &'s Entry)> {
        let rows = self.rows.range::<[u8], _>((from, Bound::Unbounded));
        rows.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Rows of a partition before some bytes, the last one first.
    pub(super) fn before<'s>(
        &'s self,
        prefix: &'s [u8],
        end: &'s [u8],
    ) -> impl Iterator<Item = (&'s Key, &'s Entry)> {
        let rows = self.rows.range::<[u8], _>((Bound::Included(prefix), Bound::Excluded(end)));
        rows.rev()
    }

    /// Brings changes in. Rows whose weight becomes 0 stay until [`Store::settle`].
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<(), Cause> {
        for change in changes {
            let Change { key, weight, peers, .. } = change;
            let bytes = &mut self.bytes;
            let entry = self.rows.entry(Arc::clone(key)).or_insert_with(|| {
                *bytes += key.len() + ROW_BYTES;
                Entry { now: 0, before: 0, peers: *peers }
            });
            entry.now += weight;
            if entry.now < 0 {
                return Err(Cause::NegativeWeight { weight: entry.now });
            }
            self.dirty.push(Arc::clone(key));
        }
        if self.dirty.len() > 4096 && self.dirty.len() > 2 * self.distinct {
            self.dirty.sort_unstable();
            self.dirty.dedup();
            self.distinct = self.dirty.len();
        }
        Ok(())
    }

    /// Forgets how changed rows were before.
    pub(super) fn settle(&mut self, changes: &[Change]) {
        for change in changes {
            match self.rows.get_mut(&change.key) {
                Some(entry) if entry.now > 0 => entry.before = entry.now,
                _ => self.remove(&change.key),
            }
        }
    }

    /// At most so many of the first rows, all of them before `end`, with their weights.
    pub(super) fn first(&self, end: &[u8], most: usize) -> Vec<(Key, i64)> {
        let rows = self.rows.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(end)));
        rows.take(most).map(|(key, entry)| (Arc::clone(key), entry.now)).collect()
    }

    /// Takes a row away that no result will ever need again.
    pub(super) fn forget(&mut self, key: &Key) {
        self.remove(key);
        self.dirty.push(Arc::clone(key));
    }

    /// Takes rows away, from the first on.
    pub(super) fn forget_while(&mut self, over: impl Fn(&[u8]) -> bool) {
        while let Some((key, _)) = self.rows.first_key_value().filter(|(key, _)| over(key)) {
            let key = Arc::clone(key);
            self.forget(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if self.rows.remove(key).is_some() {
            self.bytes = self.bytes.saturating_sub(key.len() + ROW_BYTES);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.dirty.capacity() * size_of::<Key>() + self.pending.capacity() * size_of::<Change>()
    }

    pub(super) fn freeze(&mut self, changes: &mut FrozenChanges) {
        if let Some(rows) = self.frozen() {
            changes.rows(rows);
        }
    }

    /// What has changed since the last freeze.
    pub(super) fn frozen(&mut self) -> Option<FrozenRows> {
        let mut keys = std::mem::take(&mut self.dirty);
        self.distinct = 0;
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return None;
        }
        let weights = keys.iter().map(|key| self.rows.get(key).map_or(0, |entry| entry.now)).collect();
        Some(FrozenRows { codec: Arc::clone(&self.codec), keys, weights })
    }

    pub(super) fn restore(
        &mut self,
        state: &str,
        run: &KeyedRun,
        shard: usize,
        shards: usize,
    ) -> Result<(), Cause> {
        if state != STATE_ROWS {
            return Err(Cause::Saved(format!("there is no state \"{state}\"")));
        }
        let width = self.codec.fields.len();
        for part in run.parts() {
            let batch = match &part.deleted {
                Some(deleted) => filter_record_batch(&part.batch, &arrow::compute::not(deleted)?)?,
                None => part.batch.clone(),
            };
            let saved = batch.columns();
            let fits = saved.len() > width
                && self.codec.fields.iter().zip(saved).all(|(field, column)| {
                    field.data_type() == column.data_type()
                        && (field.is_nullable() || column.null_count() == 0)
                });
            let weights = saved.last().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let Some(weights) = weights.filter(|w| fits && w.null_count() == 0) else {
                return Err(Cause::Saved(
                    "columns of ordered rows are missing or of another type".to_owned(),
                ));
            };
            if weights.values().iter().any(|weight| *weight <= 0) {
                return Err(Cause::Saved("a row without weight".to_owned()));
            }
            let columns = saved[..width].to_vec();
            let hashes = self.codec.hashes(&columns, batch.num_rows())?;
            let piece = Piece { port: 0, columns, weights: Some(weights.values().to_vec().into()), hashes };
            let Some(piece) = piece.by_shard(shards)?.swap_remove(shard) else { continue };
            self.push(&piece)?;
        }
        let changes = self.take_changes();
        self.apply(&changes)?;
        self.settle(&changes);
        self.dirty.clear();
        Ok(())
    }
}

/// Rows on their way to a checkpoint.
pub(crate) struct FrozenRows {
    codec: Arc<Codec>,
    keys: Vec<Key>,
    weights: Vec<i64>,
}

impl FrozenRows {
    /// The rows of another shard of the same operator.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        self.weights.append(&mut other.weights);
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn into_run(self) -> Result<KeyedRun, StateFault> {
        let mut columns = self.codec.decode(&self.keys)?;
        let mut names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
        if let Some(variants) = self.codec.variants(&columns) {
            columns.push(Arc::new(variants));
            names.push("variant".to_owned());
        }
        let keys = columns.len();
        let deleted: BooleanArray = self.weights.iter().map(|weight| Some(*weight == 0)).collect();
        columns.push(Arc::new(Int64Array::from(self.weights)));
        names.push("weight".to_owned());
        let fields = names.iter().zip(&columns).map(|(n, c)| Field::new(n, c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        KeyedRun::new(keys, RecordBatch::try_new(schema, columns)?, Some(deleted))
    }
}

/// Puts the columns of a delta in the order in which rows hold them.
pub(super) struct OrderRouter(Arc<Codec>, usize);

impl OrderRouter {
    /// Of an operator's source of that number.
    pub(super) fn of(codec: Arc<Codec>, port: usize) -> Self {
        Self(codec, port)
    }
}

impl Router for OrderRouter {
    fn route(&self, delta: &Delta, _out: &mut Output) -> Result<Piece, Cause> {
        let columns: Vec<_> = self.0.stored.iter().map(|c| Arc::clone(delta.batch.column(*c))).collect();
        let hashes = self.0.hashes(&columns, delta.rows())?;
        Ok(Piece { port: self.1, columns, weights: delta.weights().map(Arc::from), hashes })
    }
}
