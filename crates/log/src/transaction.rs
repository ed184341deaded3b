//! What goes into the log, and what comes out.

use arrow::array::RecordBatch;
use bytes::Bytes;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};

/// Writes and records that become durable and visible together, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub writes: Vec<Write>,
    pub records: Vec<Record>,
}

/// Rows for one partition of one topic.
#[derive(Clone, Debug)]
pub struct Write {
    pub topic: RelationId,
    pub partition: PartitionId,
    /// Its schema is kept with it. Dictionary, view, union and run-end encoded types are refused. A batch without rows is
    /// allowed: it carries a position or an event time.
    pub batch: RecordBatch,
    /// The maximum of the topic's watermark expression over this batch; rows where it is NULL are skipped.
    pub event_time: Option<EventTime>,
    pub schema_version: u32,
    pub kind: WriteKind,
    /// Who wrote, so that a repeated append is dropped, also after a restart.
    pub producer: Option<Producer>,
    /// Where a connector stands once these rows are committed.
    pub position: Option<Bytes>,
}

/// What the rows of a write mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WriteKind {
    /// New rows.
    #[default]
    Append,
    /// A table's changelog: the last column `_op` (Int8) is 0 for the new image of a key, 1 for its deletion.
    Upsert,
}

/// Identity of an idempotent append, per topic and partition. Sequences of one epoch must rise; one that is not above the
/// last is taken for a repetition: its rows are dropped and the append succeeds. If all of a transaction is repeated, its
/// ticket answers with the commit of the original, where that is among the producer's last five, else with one after it.
/// A newer epoch begins anew and fences the older ones. All of it is known again after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: u64,
    pub epoch: u32,
    pub sequence: u64,
}

/// A control record. Records take effect after the frames of their commit group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A change of the catalog. A transaction with one has a commit group of its own.
    Ddl(Bytes),
    /// What `now()` is from here on.
    Tick(EventTime),
    /// W of the topic is at least this from here on. It ends the commit group, so that later rows see it.
    AdvanceWatermark { topic: RelationId, to: EventTime },
    /// The partition has been quiet for so long that it no longer holds W back, until its next row. Ends the commit group.
    PartitionIdle { topic: RelationId, partition: PartitionId },
}

/// A commit group as it lies in the log.
#[derive(Clone, Debug)]
pub struct CommittedGroup {
    pub commit: Commit,
    /// When the group was made; never goes back.
    pub ingest_time: EventTime,
    /// Frames of one partition are in the order of their offsets.
    pub frames: Vec<CommittedFrame>,
    pub records: Vec<Record>,
    /// The topics whose W the group has raised, with W after it, sorted by topic.
    pub watermarks: Vec<(RelationId, EventTime)>,
}

/// Rows of one partition.
#[derive(Clone, Debug)]
pub struct CommittedFrame {
    pub topic: RelationId,
    pub partition: PartitionId,
    /// Of the first row; the others follow without gaps.
    pub base_offset: Offset,
    /// W of the topic before this frame, for all of its rows.
    pub watermark: Option<EventTime>,
    /// The largest event time of the partition, this frame included. See [`CommittedGroup::watermarks`] for W.
    pub event_time: Option<EventTime>,
    pub ingest_time: EventTime,
    pub kind: WriteKind,
    pub schema_version: u32,
    /// The newest position of the connector's writes that end in this frame.
    pub position: Option<Bytes>,
    pub batch: RecordBatch,
}

impl Record {
    /// The topic whose W it may move.
    pub(crate) fn topic(&self) -> Option<RelationId> {
        match self {
            Self::AdvanceWatermark { topic, .. } | Self::PartitionIdle { topic, .. } => Some(*topic),
            Self::Ddl(_) | Self::Tick(_) => None,
        }
    }
}
