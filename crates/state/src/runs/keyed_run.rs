//! Changes of a key table.
//!
//! Section 1 of the envelope is a stream of the rows, sorted by (hash of the key, key), with a first column `_deleted`;
//! section 2 is empty. `a` is the number of key columns and `b` the version of the hash. Keys of one hash are in
//! ascending order, NULLs first. Readers do not rely on the order for their results, only for their speed.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use millpond_types::hash;

use super::envelope::{self, Envelope};
use super::{EncodedRun, RunKind, ipc};
use crate::columns::{self, Place, Same, Side};
use crate::heap::{CHUNK_ROWS, check_types};
use crate::{CorruptRun, StateFault};

/// The newest values of the keys that changed between two freezes, sorted by (hash, key).
#[derive(Clone, Debug)]
pub struct KeyedRun {
    keys: usize,
    schema: SchemaRef,
    parts: Vec<KeyedPart>,
}

/// Some rows of a run; runs of many rows are kept in several batches of at most 64 Ki rows.
#[derive(Clone, Debug)]
pub struct KeyedPart {
    pub batch: RecordBatch,
    /// True where the key is gone; its other columns mean nothing. `None`: no key is gone.
    pub deleted: Option<BooleanArray>,
}

impl KeyedPart {
    fn is_deleted(&self, row: usize) -> bool {
        self.deleted.as_ref().is_some_and(|deleted| deleted.value(row))
    }
}

impl KeyedRun {
    /// Sorts `batch`, whose first `keys` columns are the key. No key may be there twice (as SQL compares keys).
    ///
    /// # Errors
    /// If a key has a type that cannot be hashed.
    pub fn new(keys: usize, batch: RecordBatch, deleted: Option<BooleanArray>) -> Result<Self, StateFault> {
        let schema = batch.schema();
        Self::of_parts(keys, schema, vec![KeyedPart { batch, deleted }])
    }

    /// Several batches as one run; no key twice, in all of them.
    pub fn of_parts(keys: usize, schema: SchemaRef, parts: Vec<KeyedPart>) -> Result<Self, StateFault> {
        if keys > schema.fields().len() {
            return Err(StateFault::Runs(format!("{keys} key columns of {} columns", schema.fields().len())));
        }
        for part in &parts {
            check_types(&schema, &part.batch)?;
            if part.deleted.as_ref().is_some_and(|d| d.len() != part.batch.num_rows() || d.null_count() > 0) {
                return Err(StateFault::Runs("deletion flags do not match their rows".to_owned()));
            }
        }
        let rows = Sorted::new(keys, &parts)?;
        let parts = rows.take(&schema, &rows.order)?;
        Ok(Self { keys, schema, parts })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of key columns.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Rows, deleted keys included.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.batch.num_rows()).sum()
    }

    pub fn parts(&self) -> &[KeyedPart] {
        &self.parts
    }

    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        let deleted = Arc::new(Field::new("_deleted", DataType::Boolean, false));
        let fields = std::iter::once(&deleted).chain(self.schema.fields()).cloned();
        let schema =
            Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.schema.metadata().clone()));
        let mut writer = ipc::Writer::new(&schema)?;
        for part in &self.parts {
            let rows = part.batch.num_rows();
            let deleted = part.deleted.clone().unwrap_or_else(|| BooleanArray::from(vec![false; rows]));
            let deleted: ArrayRef = Arc::new(deleted);
            let columns = std::iter::once(&deleted).chain(part.batch.columns()).cloned().collect();
            writer.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
        }
        let envelope = Envelope {
            kind: RunKind::Keyed,
            a: self.keys as u64,
            b: u64::from(hash::VERSION),
            rows: self.rows() as u64,
            sections: [writer.finish()?, Bytes::new()],
        };
        Ok(EncodedRun { kind: RunKind::Keyed, rows: envelope.rows, bytes: envelope::seal(&envelope) })
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptRun> {
        let Envelope { kind, a: keys, b: version, rows, sections: [first, second] } = envelope::open(bytes)?;
        let wrong = |what: &str| CorruptRun::Content(what.to_owned());
        if kind != RunKind::Keyed || !second.is_empty() {
            return Err(wrong("it is not a key table's"));
        }
        if version != u64::from(hash::VERSION) {
            return Err(CorruptRun::Content(format!("it is sorted by version {version} of the hash")));
        }
        let (schema, batches) = ipc::read(&first)?;
        if schema.fields().first().is_none_or(|f| *f.data_type() != DataType::Boolean) {
            return Err(wrong("it has no column of deletion flags"));
        }
        let keys = usize::try_from(keys).ok().filter(|&keys| keys < schema.fields().len());
        let keys = keys.ok_or_else(|| wrong("it has fewer columns than key columns"))?;
        let columns: Vec<usize> = (1..schema.fields().len()).collect();
        let arrow = |error: ArrowError| CorruptRun::Content(error.to_string());
        let schema = Arc::new(schema.project(&columns).map_err(arrow)?);
        let mut parts = Vec::with_capacity(batches.len());
        for batch in batches {
            let flags = batch.column(0).as_boolean();
            if flags.null_count() > 0 {
                return Err(wrong("its deletion flags are NULL"));
            }
            let deleted = flags.has_true().then(|| flags.clone());
            parts.push(KeyedPart { batch: batch.project(&columns).map_err(arrow)?, deleted });
        }
        let run = Self { keys, schema, parts };
        if run.rows() as u64 != rows {
            return Err(CorruptRun::Content(format!(
                "it has {} rows, but its header says {rows}",
                run.rows()
            )));
        }
        Ok(run)
    }

    /// One run with the effect of `runs`, oldest first: of each key the newest row stays. At the `bottom` deleted keys go.
    /// To restore a key table: merge all of its runs with `bottom`, then read [`KeyedRun::parts`].
    ///
    /// # Errors
    /// If there are none, or their columns differ.
    pub fn merge(runs: Vec<KeyedRun>, bottom: bool) -> Result<KeyedRun, StateFault> {
        let newest = runs.last().ok_or_else(|| StateFault::Runs("there are none to merge".to_owned()))?;
        let (keys, schema) = (newest.keys, newest.schema.clone());
        if runs.iter().any(|run| run.keys != keys) {
            return Err(StateFault::Runs("their keys differ".to_owned()));
        }
        // Newest first, so that the first row of a key is the one that stays.
        let parts: Vec<KeyedPart> = runs.into_iter().rev().flat_map(|run| run.parts).collect();
        for part in &parts {
            check_types(&schema, &part.batch)?;
        }
        let rows = Sorted::new(keys, &parts)?;
        let places: Vec<Place> = rows
            .order
            .iter()
            .zip(rows.first_of_key()?)
            .filter(|&(&(part, row), first)| first && !(bottom && parts[part].is_deleted(row)))
            .map(|(&place, _)| place)
            .collect();
        let parts = rows.take(&schema, &places)?;
        Ok(Self { keys, schema, parts })
    }
}

/// The rows of some parts by (hash, key), and by the order of the parts where the key is the same.
struct Sorted<'a> {
    keys: usize,
    parts: &'a [KeyedPart],
    order: Vec<Place>,
    hashes: Vec<u64>,
}

impl<'a> Sorted<'a> {
    fn new(keys: usize, parts: &'a [KeyedPart]) -> Result<Self, StateFault> {
        let mut rows: Vec<(u64, u32, u32)> =
            Vec::with_capacity(parts.iter().map(|p| p.batch.num_rows()).sum());
        for (index, part) in parts.iter().enumerate() {
            let hashes = hash::hash_columns(&part.batch.columns()[..keys], part.batch.num_rows())?;
            rows.extend(hashes.into_iter().enumerate().map(|(row, hash)| (hash, index as u32, row as u32)));
        }
        // Stable, and linear for what is sorted already: merging k sorted runs costs n log k.
        rows.sort_by_key(|&(hash, _, _)| hash);
        let mut sorted = Self {
            keys,
            parts,
            order: rows.iter().map(|&(_, part, row)| (part as usize, row as usize)).collect(),
            hashes: rows.into_iter().map(|(hash, _, _)| hash).collect(),
        };
        sorted.sort_collisions()?;
        Ok(sorted)
    }

    fn batches(&self) -> Vec<&'a RecordBatch> {
        self.parts.iter().map(|part| &part.batch).collect()
    }

    /// For each row but the first: whether it has the hash and the key of the row before.
    fn repeats(&self) -> Result<Vec<bool>, ArrowError> {
        let batches = self.batches();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut at = Vec::new();
        for index in 1..self.order.len() {
            if self.hashes[index] == self.hashes[index - 1] {
                at.push(index);
                left.push(self.order[index - 1]);
                right.push(self.order[index]);
            }
        }
        let mut equal = vec![true; at.len()];
        let (left, right) =
            (Side { batches: &batches, places: &left }, Side { batches: &batches, places: &right });
        columns::retain_equal(left, right, (0..self.keys).map(|key| (key, key)), Same::Sql, &mut equal)?;
        let mut repeats = vec![false; self.order.len()];
        for (index, equal) in at.into_iter().zip(equal) {
            repeats[index] = equal;
        }
        Ok(repeats)
    }

    /// Different keys of one hash are as rare as it is wide, and sorted one group at a time.
    fn sort_collisions(&mut self) -> Result<(), StateFault> {
        let repeats = self.repeats()?;
        let mut start = 0;
        while start < self.order.len() {
            let hash = self.hashes[start];
            let end = start + self.hashes[start..].iter().take_while(|&&other| other == hash).count();
            if repeats[start + 1..end].iter().any(|repeats| !repeats) {
                self.sort_group(start, end)?;
            }
            start = end;
        }
        Ok(())
    }

    fn sort_group(&mut self, start: usize, end: usize) -> Result<(), StateFault> {
        let group = self.order[start..end].to_vec();
        let key_columns: Vec<usize> = (0..self.keys).collect();
        let schema = Arc::new(self.parts[0].batch.schema().project(&key_columns)?);
        let keys = columns::gather(&schema, &self.batches(), &group, 0..self.keys)?;
        let compare = keys
            .columns()
            .iter()
            .map(|column| make_comparator(column.as_ref(), column.as_ref(), SortOptions::default()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut by_key: Vec<usize> = (0..group.len()).collect();
        by_key.sort_by(|&a, &b| {
            let unequal = compare.iter().map(|compare| compare(a, b)).find(|order| order.is_ne());
            unequal.unwrap_or(Ordering::Equal)
        });
        for (offset, index) in by_key.into_iter().enumerate() {
            self.order[start + offset] = group[index];
        }
        Ok(())
    }

    fn first_of_key(&self) -> Result<impl Iterator<Item = bool>, StateFault> {
        Ok(self.repeats()?.into_iter().map(|repeats| !repeats))
    }

    fn take(&self, schema: &SchemaRef, places: &[Place]) -> Result<Vec<KeyedPart>, StateFault> {
        let batches = self.batches();
        let any_deleted = self.parts.iter().any(|part| part.deleted.is_some());
        let part = |places: &[Place]| {
            let batch = columns::gather(schema, &batches, places, 0..schema.fields().len())?;
            let flags = || places.iter().map(|&(part, row)| Some(self.parts[part].is_deleted(row))).collect();
            Ok(KeyedPart { batch, deleted: any_deleted.then(flags) })
        };
        places.chunks(CHUNK_ROWS).map(part).collect()
    }
}
