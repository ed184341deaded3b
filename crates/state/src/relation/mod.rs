//! Heaps that apply deltas.
//!
//! A delta says which rows appear and disappear, but not where they lie: an index finds the row to delete by its identity,
//! which is a unique key or the whole row, and every match is verified by value. Only the net effect of a delta counts:
//!
//! ```text
//! unique key k       delta                                      effect
//! (k=1, v=10)        -(1,10) +(1,11)                            row replaced, the entry is changed in place
//! (k=1, v=11)        +(1,12) -(1,11) -(1,12) +(1,13)            -(1,12) finds no row, so it cancels +(1,12); row replaced
//! (k=1, v=13)        -(1,99)                                    fault: the row is not there
//! ```
//!
//! All steps run over whole batches: hashes are probed first, then the candidates of all rows are compared column by column.

mod cancel;
mod index;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use millpond_types::{Delta, hash};

use self::cancel::{Counted, cancel};
use self::index::{Bucket, Head, Index};
use crate::columns::{self, Place, Same, Side};
use crate::heap::check_types;
use crate::{Heap, HeapRun, HeapSnapshot, RowId, StateFault};

/// What makes two rows of a relation the same row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Rows are never retracted, so nothing is indexed.
    AppendOnly,
    /// At most one row per value of these columns (NULL equals NULL).
    UniqueKey(Vec<usize>),
    /// All columns; equal rows may be there several times.
    Multiset,
}

/// A heap that applies deltas.
#[derive(Debug)]
pub struct Relation {
    name: String,
    identity: Identity,
    identity_columns: Vec<usize>,
    heap: Heap,
    index: Index,
}

impl Relation {
    /// `name` is only used in faults.
    pub fn new(name: impl Into<String>, schema: SchemaRef, identity: Identity) -> Self {
        Self::over(name.into(), Heap::new(schema), identity)
    }

    fn over(name: String, heap: Heap, identity: Identity) -> Self {
        let identity_columns = match &identity {
            Identity::AppendOnly => vec![],
            Identity::UniqueKey(columns) => columns.clone(),
            Identity::Multiset => (0..heap.schema().fields().len()).collect(),
        };
        Self { name, identity, identity_columns, heap, index: Index::default() }
    }

    /// The relation that wrote `runs`, given oldest first. Its index is made anew.
    pub fn restore(
        name: impl Into<String>,
        schema: SchemaRef,
        identity: Identity,
        runs: Vec<HeapRun>,
    ) -> Result<Self, StateFault> {
        let mut relation = Self::over(name.into(), Heap::restore(schema, runs)?, identity);
        if relation.identity == Identity::AppendOnly {
            return Ok(relation);
        }
        relation.index.reserve(relation.heap.rows());
        let rows = relation.heap.snapshot();
        for (chunk, batch) in rows.batches(None).enumerate() {
            let batch = batch?;
            let hashes = relation.hashes(&batch)?;
            let ids = rows.chunk_ids(chunk).into_iter().enumerate().map(|(row, id)| (row, id.0));
            relation.index_rows(&batch, &hashes, ids)?;
        }
        Ok(relation)
    }

    pub fn schema(&self) -> &SchemaRef {
        self.heap.schema()
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    pub fn rows(&self) -> usize {
        self.heap.rows()
    }

    /// Heap and index.
    pub fn bytes(&self) -> usize {
        self.heap.bytes() + self.index.bytes()
    }

    /// The columns that [`Relation::apply_hashed`] wants hashed: none, the key, or all.
    pub fn identity_columns(&self) -> &[usize] {
        &self.identity_columns
    }

    /// See [`Heap::snapshot`].
    pub fn snapshot(&mut self) -> Arc<HeapSnapshot> {
        self.heap.snapshot()
    }

    /// See [`Heap::freeze`].
    pub fn freeze(&mut self) -> Option<HeapRun> {
        self.heap.freeze()
    }

    /// See [`Heap::maintain`].
    pub fn maintain(&mut self, budget_rows: usize) -> Result<bool, StateFault> {
        self.heap.maintain(budget_rows)
    }

    fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u64>, StateFault> {
        let columns: Vec<ArrayRef> = self.identity_columns.iter().map(|&c| batch.column(c).clone()).collect();
        Ok(hash::hash_columns(&columns, batch.num_rows())?)
    }

    /// Applies a delta as one step: only its net effect counts, so the order of its rows does not matter.
    ///
    /// # Errors
    /// If a row is retracted that is not there, or a key would be there twice. The relation must then be discarded.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), StateFault> {
        check_types(self.schema(), &delta.batch)?;
        let hashes = self.hashes(&delta.batch)?;
        self.apply_hashed(delta, &hashes)
    }

    /// [`Relation::apply`] with `millpond_types::hash::hash_columns` of the identity columns already at hand. (An append-only
    /// relation looks at no hash.)
    pub fn apply_hashed(&mut self, delta: &Delta, hashes: &[u64]) -> Result<(), StateFault> {
        if self.identity == Identity::AppendOnly && delta.weights.is_none() {
            self.heap.append(&delta.batch)?;
            return Ok(());
        }
        check_types(self.schema(), &delta.batch)?;
        let (mut insertions, retractions) = split(delta);
        if self.identity == Identity::AppendOnly {
            if let Some(&(row, _)) = retractions.first() {
                let (relation, row) = (self.name.clone(), describe(&delta.batch, row));
                return Err(StateFault::AppendOnly { relation, row });
            }
            self.append(delta, &insertions)?;
            return Ok(());
        }
        assert_eq!(hashes.len(), delta.rows(), "one hash per row");
        // From here to the end no entry moves.
        self.index.reserve(insertions.len());
        let Matches { deleted, vacated, open } = self.match_stored(delta, hashes, retractions)?;
        if !open.is_empty() {
            let open = cancel(&delta.batch, open, &mut insertions)?;
            if let Some(&(row, _)) = open.first() {
                let (relation, row) = (self.name.clone(), describe(&delta.batch, row));
                return Err(StateFault::NotThere { relation, row });
            }
        }
        self.heap.delete(&deleted)?;
        let first = self.append(delta, &insertions)?.0;
        let repeated = insertions.iter().flat_map(|&(row, count)| std::iter::repeat_n(row, count as usize));
        self.index_rows(&delta.batch, hashes, repeated.zip(first..))?;
        for bucket in vacated {
            self.index.remove_vacant(bucket);
        }
        Ok(())
    }

    /// Finds a stored row for each retraction as far as there are any, and takes it out of the index.
    fn match_stored(
        &mut self,
        delta: &Delta,
        hashes: &[u64],
        retractions: Counted,
    ) -> Result<Matches, StateFault> {
        let rows: Vec<usize> = retractions.iter().map(|&(row, _)| row).collect();
        let all: Vec<usize> = (0..self.schema().fields().len()).collect();
        let wanted = Wanted { batch: &delta.batch, columns: &all, stored: &all, same: Same::Exact };
        let buckets = self.look_up(&wanted, &rows, |row| hashes[row])?;
        let mut matches = Matches::default();
        for ((row, count), bucket) in retractions.into_iter().zip(buckets) {
            let mut left = count;
            if let Some(bucket) = bucket {
                while left > 0
                    && let Some(id) = self.index.pop(bucket, row)
                {
                    matches.deleted.push(RowId(id));
                    left -= 1;
                }
                if matches!(self.index.head(bucket), Head::Vacant(_)) {
                    matches.vacated.push(bucket);
                }
            }
            if left > 0 {
                matches.open.push((row, left));
            }
        }
        Ok(matches)
    }

    /// Appends rows of a delta; the batch itself where it holds just these.
    fn append(&mut self, delta: &Delta, rows: &Counted) -> Result<RowId, StateFault> {
        if rows.len() == delta.rows() && rows.iter().all(|&(_, count)| count == 1) {
            return self.heap.append(&delta.batch);
        }
        let repeated = rows.iter().flat_map(|&(row, count)| std::iter::repeat_n(row as u32, count as usize));
        let repeated = UInt32Array::from_iter_values(repeated);
        if delta.batch.num_columns() == 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(repeated.values().len()));
            let batch = RecordBatch::try_new_with_options(delta.batch.schema(), vec![], &options)?;
            return self.heap.append(&batch);
        }
        self.heap.append(&take_record_batch(&delta.batch, &repeated)?)
    }

    /// Enters rows of `batch` that are in the heap under the given ids.
    fn index_rows(
        &mut self,
        batch: &RecordBatch,
        hashes: &[u64],
        rows: impl Iterator<Item = (usize, u64)>,
    ) -> Result<(), StateFault> {
        let mut known = Vec::new();
        for (row, id) in rows {
            match self.index.find(hashes[row]) {
                None => self.index.insert(hashes[row], id),
                Some(bucket) => known.push((row, id, bucket)),
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let columns = self.identity_columns.clone();
        let wanted = Wanted { batch, columns: &columns, stored: &columns, same: self.same() };
        let pairs: Vec<(usize, Bucket)> = known.iter().map(|&(row, _, bucket)| (row, bucket)).collect();
        let equal = self.verify(&wanted, &pairs)?;
        for ((row, id, bucket), equal) in known.into_iter().zip(equal) {
            let bucket = if equal { Some(bucket) } else { self.search(&wanted, row, hashes[row])? };
            match bucket {
                None => self.index.insert(hashes[row], id),
                Some(bucket) => {
                    let taken = matches!(self.index.head(bucket), Head::Row(_));
                    if taken && let Identity::UniqueKey(key) = &self.identity {
                        let key = columns::describe(batch, row, key.iter().copied());
                        return Err(StateFault::DuplicateKey { relation: self.name.clone(), key });
                    }
                    self.index.push(bucket, id);
                }
            }
        }
        Ok(())
    }

    /// The row of each key; `keys` are arrays of the identity columns, in their order. Of equal rows in a multiset, any.
    /// An append-only relation finds nothing.
    ///
    /// # Errors
    /// If the keys have other types than the identity columns.
    pub fn find(&self, keys: &[ArrayRef]) -> Result<Vec<Option<RowId>>, StateFault> {
        let rows = keys.first().map_or(0, |key| key.len());
        if self.identity == Identity::AppendOnly {
            return Ok(vec![None; rows]);
        }
        let fields: Vec<Field> =
            keys.iter().map(|key| Field::new("", key.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), keys.to_vec())?;
        check_types(&Arc::new(self.schema().project(&self.identity_columns)?), &batch)?;
        let hashes = hash::hash_columns(keys, rows)?;
        let columns: Vec<usize> = (0..keys.len()).collect();
        let wanted =
            Wanted { batch: &batch, columns: &columns, stored: &self.identity_columns, same: self.same() };
        let rows: Vec<usize> = (0..rows).collect();
        let buckets = self.look_up(&wanted, &rows, |row| hashes[row])?;
        let id = |bucket| match self.index.head(bucket) {
            Head::Row(id) => Some(RowId(id)),
            Head::Vacant(_) => None,
        };
        Ok(buckets.into_iter().map(|bucket| bucket.and_then(id)).collect())
    }

    fn same(&self) -> Same {
        match self.identity {
            Identity::UniqueKey(_) => Same::Sql,
            Identity::AppendOnly | Identity::Multiset => Same::Exact,
        }
    }

    /// The entry of each row whose stored columns are as wanted.
    fn look_up(
        &self,
        wanted: &Wanted<'_>,
        rows: &[usize],
        hash: impl Fn(usize) -> u64,
    ) -> Result<Vec<Option<Bucket>>, StateFault> {
        let mut found: Vec<Option<Bucket>> = rows.iter().map(|&row| self.index.find(hash(row))).collect();
        let pairs: Vec<(usize, Bucket)> =
            rows.iter().zip(&found).filter_map(|(&row, found)| Some((row, (*found)?))).collect();
        let equal = self.verify(wanted, &pairs)?;
        let candidates = rows.iter().zip(&mut found).filter(|(_, found)| found.is_some());
        for ((&row, found), equal) in candidates.zip(equal) {
            if !equal {
                *found = self.search(wanted, row, hash(row))?;
            }
        }
        Ok(found)
    }

    /// Whether the row of each entry is as wanted.
    fn verify(&self, wanted: &Wanted<'_>, pairs: &[(usize, Bucket)]) -> Result<Vec<bool>, StateFault> {
        let left: Vec<Place> = pairs.iter().map(|&(row, _)| (0, row)).collect();
        let heads: Vec<Head> = pairs.iter().map(|&(_, bucket)| self.index.head(bucket)).collect();
        let stored: Vec<RowId> = heads
            .iter()
            .filter_map(|head| if let Head::Row(id) = head { Some(RowId(*id)) } else { None })
            .collect();
        let (mut batches, places) = self.heap.places(&stored)?;
        let mut places = places.into_iter();
        let here = batches.len();
        if stored.len() < pairs.len() {
            // The row of a vacant entry is in the delta itself, which has all columns.
            batches.push(wanted.batch);
        }
        let right: Vec<Place> = heads
            .iter()
            .map(|head| match head {
                Head::Row(_) => places.next().expect("one place per stored row"),
                Head::Vacant(row) => (here, *row),
            })
            .collect();
        let mut equal = vec![true; pairs.len()];
        let left = Side { batches: &[wanted.batch], places: &left };
        let right = Side { batches: &batches, places: &right };
        let columns = wanted.columns.iter().copied().zip(wanted.stored.iter().copied());
        columns::retain_equal(left, right, columns, wanted.same, &mut equal)?;
        Ok(equal)
    }

    /// Looks at each entry of a hash, one by one: there is more than one only if 64-bit hashes collide.
    fn search(&self, wanted: &Wanted<'_>, row: usize, hash: u64) -> Result<Option<Bucket>, StateFault> {
        let buckets = self.index.find_all(hash);
        if buckets.len() < 2 {
            return Ok(None);
        }
        for bucket in buckets {
            if self.verify(wanted, &[(row, bucket)])?[0] {
                return Ok(Some(bucket));
            }
        }
        Ok(None)
    }
}

/// Rows that are looked for: these columns of the batch against those of the stored rows.
struct Wanted<'a> {
    batch: &'a RecordBatch,
    columns: &'a [usize],
    stored: &'a [usize],
    same: Same,
}

#[derive(Default)]
struct Matches {
    deleted: Vec<RowId>,
    vacated: Vec<Bucket>,
    /// Retractions that found no row.
    open: Counted,
}

/// Insertions and retractions; all counts are positive.
fn split(delta: &Delta) -> (Counted, Counted) {
    let Some(weights) = delta.weights() else {
        return ((0..delta.rows()).map(|row| (row, 1)).collect(), vec![]);
    };
    let (mut insertions, mut retractions) = (Vec::new(), Vec::new());
    for (row, &weight) in weights.iter().enumerate() {
        match weight {
            0 => {}
            1.. => insertions.push((row, weight)),
            _ => retractions.push((row, -weight)),
        }
    }
    (insertions, retractions)
}

fn describe(batch: &RecordBatch, row: usize) -> String {
    columns::describe(batch, row, 0..batch.num_columns())
}
