//! A transaction: writes that become durable and visible together, or not at all.
//!
//! Sources are buffered. A table is locked at its first write until the transaction ends, and its image is changed in place,
//! so that later statements of the transaction read their own writes; an undo list takes the changes back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int8Array, Int32Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use millpond_log::{Transaction, Write, WriteKind};
use millpond_state::Relation as Stored;
use millpond_types::{Commit, Delta, PartitionId, RelationId, SqlError, SqlState};
use tokio::sync::OwnedMutexGuard;

use crate::inner::Inner;
use crate::partition::spread;
use crate::target::{OP, OP_DELETE, OP_PUT, Target, internal};

/// How long a transaction waits for another's table before it is told of a deadlock.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Everything appended to a table, acknowledged or not: what its one writer reads.
pub(crate) struct TableImage {
    pub rows: Stored,
    pub next_row_id: i64,
    /// The log's term in which it was made. Beyond, it may hold what the log has lost.
    pub term: u64,
}

pub(crate) type SharedImage = Arc<tokio::sync::Mutex<TableImage>>;

struct LockedTable {
    image: OwnedMutexGuard<TableImage>,
    /// Deltas that were applied, oldest first.
    done: Vec<Delta>,
    next_row_id: i64,
}

/// Dropping an open transaction rolls it back.
#[derive(Default)]
pub(crate) struct Txn {
    writes: Vec<Write>,
    bytes: usize,
    tables: BTreeMap<RelationId, LockedTable>,
}

/// How far a transaction was: a savepoint.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    writes: usize,
    bytes: usize,
    /// Of each table that was locked: how many changes were done, and its next row number.
    tables: BTreeMap<RelationId, (usize, i64)>,
}

impl Txn {
    pub fn mark(&self) -> Mark {
        let table =
            |(id, locked): (&RelationId, &LockedTable)| (*id, (locked.done.len(), locked.image.next_row_id));
        Mark { writes: self.writes.len(), bytes: self.bytes, tables: self.tables.iter().map(table).collect() }
    }

    /// Takes back everything since `mark`. Tables that were locked since stay locked, as in PostgreSQL.
    pub fn rollback_to(&mut self, mark: &Mark) {
        self.writes.truncate(mark.writes);
        self.bytes = mark.bytes;
        for (id, locked) in &mut self.tables {
            let (done, next_row_id) = mark.tables.get(id).copied().unwrap_or((0, locked.next_row_id));
            locked.undo_to(done, next_row_id);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The image of a table that this transaction has written.
    pub fn image(&mut self, table: RelationId) -> Option<&mut TableImage> {
        self.tables.get_mut(&table).map(|locked| &mut *locked.image)
    }

    /// Locks the table, once.
    ///
    /// # Errors
    /// 55P03 after `lock_timeout`; 40P01 after a wait so long that it must be a deadlock.
    pub async fn lock(
        &mut self,
        inner: &Inner,
        target: &Target,
        lock_timeout: Option<Duration>,
    ) -> Result<&mut TableImage, SqlError> {
        let id = target.id();
        let locked = match self.tables.entry(id) {
            Entry::Occupied(locked) => locked.into_mut(),
            Entry::Vacant(free) => {
                let image = lock_image(inner, target, lock_timeout).await?;
                if image.rows.schema().fields().len() != target.stored.fields().len() {
                    return Err(altered(target));
                }
                let next_row_id = image.next_row_id;
                free.insert(LockedTable { image, done: Vec::new(), next_row_id })
            }
        };
        Ok(&mut locked.image)
    }

    /// Appends rows with the declared columns to a source or append-only table. `given` may name the rows' partitions.
    pub fn append(
        &mut self,
        inner: &Inner,
        target: &Target,
        batch: RecordBatch,
        given: Option<&Int32Array>,
    ) -> Result<(), SqlError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for (partition, batch) in spread(target, batch, given)? {
            let event_time = target.event_time(&batch)?;
            self.push(inner, target, partition, batch, WriteKind::Append, event_time)?;
        }
        Ok(())
    }

    /// Puts and deletes rows of a locked table: `old` leave, `new` come; both have the stored columns, and keys are checked
    /// already.
    pub fn change(
        &mut self,
        inner: &Inner,
        target: &Target,
        old: RecordBatch,
        new: RecordBatch,
    ) -> Result<(), SqlError> {
        if old.num_rows() + new.num_rows() == 0 {
            return Ok(());
        }
        let rows = arrow::compute::concat_batches(&target.stored, [&old, &new]).map_err(internal)?;
        let weight = |row| if row < old.num_rows() { -1 } else { 1 };
        let delta =
            Delta::new(rows.clone(), Some((0..rows.num_rows()).map(weight).collect::<Vec<i64>>().into()));
        let locked = self.tables.get_mut(&target.id()).expect("a table is locked before it is changed");
        locked.image.rows.apply(&delta).map_err(|fault| SqlError::internal(fault.to_string()))?;
        locked.done.push(delta);
        let op = |row| if row < old.num_rows() { OP_DELETE } else { OP_PUT };
        let ops: ArrayRef = Arc::new(Int8Array::from_iter_values((0..rows.num_rows()).map(op)));
        let event_time = match new.num_rows() {
            0 => None,
            _ => target.event_time(&new)?,
        };
        self.push(inner, target, PartitionId(0), with_op(&rows, ops)?, WriteKind::Upsert, event_time)
    }

    fn push(
        &mut self,
        inner: &Inner,
        target: &Target,
        partition: PartitionId,
        batch: RecordBatch,
        kind: WriteKind,
        event_time: Option<millpond_types::EventTime>,
    ) -> Result<(), SqlError> {
        self.bytes += batch_bytes(&batch);
        let limit = inner.config.max_transaction_bytes;
        if self.bytes > limit {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("transaction writes more than {limit} bytes"),
            )
            .hint("Split it up; COPY takes WITH (commit_rows = n)."));
        }
        self.writes.push(Write {
            topic: target.id(),
            partition,
            batch,
            event_time,
            schema_version: target.relation.schema_version,
            kind,
            producer: None,
            position: None,
        });
        Ok(())
    }

    /// A write that was prepared elsewhere, such as rows for the topic of errors.
    pub fn push_raw(&mut self, write: Write) {
        self.bytes += batch_bytes(&write.batch);
        self.writes.push(write);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A number for the next row of a table without a key.
    pub fn next_row_ids(&mut self, table: RelationId, rows: usize) -> std::ops::Range<i64> {
        let image = &mut self.tables.get_mut(&table).expect("a table is locked before it is changed").image;
        let first = image.next_row_id;
        image.next_row_id += rows as i64;
        first..image.next_row_id
    }

    /// Submits everything as one commit. Returns 0 where there was nothing to write.
    ///
    /// # Errors
    /// 40001 if the log has failed since a table was locked, for then the table's image holds what is lost; 58030 and 53100
    /// from the log. What is not acknowledged may still turn out to be durable after a crash.
    pub async fn commit(mut self, inner: &Inner, synchronous: bool) -> Result<Commit, SqlError> {
        let writes = std::mem::take(&mut self.writes);
        if writes.is_empty() {
            self.tables.clear();
            return Ok(Commit(0));
        }
        // Submitting while the locks are held makes the log's order that of the images.
        let term = self.tables.values().map(|locked| locked.image.term).min();
        let ticket = inner.submit(Transaction { writes, records: Vec::new() }, term).await?;
        for locked in self.tables.values_mut() {
            locked.done.clear();
            locked.next_row_id = locked.image.next_row_id;
        }
        self.tables.clear();
        let commit = if synchronous { ticket.wait().await } else { ticket.written().await };
        let commit = commit.map_err(|error| inner.log_error(&error))?;
        inner.acknowledge(commit);
        Ok(commit)
    }
}

/// Waits for a table's one writer, and takes its place.
///
/// # Errors
/// As [`Txn::lock`].
pub(crate) async fn lock_image(
    inner: &Inner,
    target: &Target,
    lock_timeout: Option<Duration>,
) -> Result<OwnedMutexGuard<TableImage>, SqlError> {
    let wait = lock_timeout.unwrap_or(LOCK_WAIT);
    let newest = async {
        loop {
            let image = inner.image(target).await?.lock_owned().await;
            // Whoever held it may have seen the log fail.
            if image.term == inner.writable_term()? {
                return Ok::<_, SqlError>(image);
            }
        }
    };
    tokio::time::timeout(wait, newest).await.map_err(|_| {
        if lock_timeout.is_some() {
            SqlError::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        } else {
            let table = target.relation.described();
            SqlError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected")
                .detail(format!("Another transaction has held {table} for too long."))
                .hint("Write tables in the same order in every transaction, and try again.")
        }
    })?
}

/// The statement was planned for columns that the table has no more, or not alone.
fn altered(target: &Target) -> SqlError {
    SqlError::new(
        SqlState::SERIALIZATION_FAILURE,
        format!("{} has been altered by another transaction", target.relation.described()),
    )
    .hint("Try again.")
}

/// How much memory the rows take, though they may be a part of a larger batch.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let column = |column: &ArrayRef| column.to_data().get_slice_memory_size();
    batch.columns().iter().map(|c| column(c).unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

impl LockedTable {
    fn undo_to(&mut self, done: usize, next_row_id: i64) {
        for delta in self.done.drain(done..).rev() {
            let weights: Vec<i64> = (0..delta.rows()).map(|row| -delta.weight(row)).collect();
            let inverse = Delta::new(delta.batch, Some(weights.into()));
            self.image.rows.apply(&inverse).expect("the inverse of an applied change applies");
        }
        self.image.next_row_id = next_row_id;
    }
}

impl Drop for LockedTable {
    fn drop(&mut self) {
        self.undo_to(0, self.next_row_id);
    }
}

/// The frame of a table: stored columns, then [`OP`].
fn with_op(rows: &RecordBatch, ops: ArrayRef) -> Result<RecordBatch, SqlError> {
    let mut fields: Vec<Field> = rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new(OP, arrow::datatypes::DataType::Int8, false));
    let mut columns = rows.columns().to_vec();
    columns.push(ops);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)
}

/// Splits a frame of a table into its stored columns and which rows are put.
///
/// # Errors
/// XX001 if the frame is not one of a table.
pub(crate) fn split_op(frame: &RecordBatch) -> Result<(RecordBatch, Vec<bool>), SqlError> {
    let damaged = || SqlError::new(SqlState::DATA_CORRUPTED, "a frame of a table has no operations");
    let last = frame.num_columns().checked_sub(1).ok_or_else(damaged)?;
    let ops = frame.column(last).as_any().downcast_ref::<Int8Array>().ok_or_else(damaged)?;
    let puts = ops.values().iter().map(|op| *op == OP_PUT).collect();
    let stored = frame.project(&(0..last).collect::<Vec<_>>()).map_err(internal)?;
    Ok((stored, puts))
}
