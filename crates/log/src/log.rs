//! The handle of the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use crossbeam_channel::Sender;
use millpond_env::{DiskLock, Env, ObjectStore};
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};
use tokio::sync::watch;

use crate::group::{Chain, OpenFile, Sizes, batch_bytes};
use crate::index::{Place, Sink};
use crate::payload::check_schema;
use crate::queue::{Limits, Pending, Queue, TRANSACTION_BYTES};
use crate::recovery::{Recovered, Recovery, Restored};
use crate::segment::worker::{self, Tier, TierOptions};
use crate::segment::{self, Remote, SegmentPlace, Store, TopicPolicy};
use crate::ticket::{Ticket, ticket};
use crate::topic::{PartitionFacts, TopicSpec};
use crate::writer::{Shared, Threads};
use crate::{CommittedGroup, FrameRef, LogError, Replay, Transaction, Write};

/// A connector's position is copied into a header: it must be small.
const POSITION_BYTES_MAX: usize = 1 << 20;

/// Sizes and limits.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A new file is begun when the newest has reached this.
    pub file_bytes_max: u64,
    /// Frames are cut at so many rows.
    pub frame_rows_max: usize,
    /// And at about so many bytes, though a frame has at least one row.
    pub frame_bytes_max: usize,
    /// A commit group takes in transactions up to so many bytes; a single larger one is a group of its own.
    pub group_bytes_max: usize,
    /// [`Log::submit`] blocks while more than this waits.
    pub queue_bytes_max: usize,
    /// From this size on, a group is encoded while the one before it is synced; smaller ones wait and grow.
    pub overlap_bytes: usize,
    /// Payloads up to this commit, which a checkpoint covers, are not checked when the log is opened, only when they are
    /// read. Headers and control records always are.
    pub verify_from: Commit,
    /// Where segments go in the end; with nothing, they stay on this disk.
    pub cold: Option<ColdTier>,
    /// With a cold tier, or a topic that does not keep its rows for ever: a journal file is ended when it has been written to
    /// for so long, full or not, so that its rows can become segments.
    pub seal_interval: Option<Duration>,
    /// Whether a thread of the log cuts journal files into segments; else [`Log::maintain`] does it.
    pub background: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            file_bytes_max: 256 << 20,
            frame_rows_max: 10_000,
            frame_bytes_max: 16 << 20,
            group_bytes_max: 8 << 20,
            queue_bytes_max: 64 << 20,
            overlap_bytes: 256 << 10,
            verify_from: Commit(0),
            cold: None,
            seal_interval: Some(Duration::from_secs(600)),
            background: true,
        }
    }
}

impl LogOptions {
    fn tier(&self) -> TierOptions {
        let local_retention = self.cold.as_ref().and_then(|cold| cold.local_retention);
        TierOptions { seal_interval: self.seal_interval, local_retention }
    }
}

/// An object store for segments. It holds one log: two would take each other's names.
#[derive(Clone, Debug)]
pub struct ColdTier {
    pub objects: Arc<dyn ObjectStore>,
    pub prefix: object_store::path::Path,
    /// Local copies of uploaded segments leave after this time; never, if there is none.
    pub local_retention: Option<Duration>,
}

/// What the log holds of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStorage {
    pub topic: RelationId,
    pub partition: PartitionId,
    /// The first row that is still there; equal to `next_offset` if none is.
    pub earliest_offset: Offset,
    pub next_offset: Offset,
    pub rows: u64,
    pub frames: u64,
    /// Everything up to here has left by retention.
    pub trimmed_through: Option<Commit>,
    /// In journal files.
    pub journal_bytes: u64,
    pub segments: u64,
    /// Of all segments, of those with a copy on this disk, of those in the object store.
    pub segment_bytes: u64,
    pub local_bytes: u64,
    pub uploaded_bytes: u64,
    /// What keeps rows that might otherwise leave.
    pub held_by: Option<&'static str>,
}

/// How far the background has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierStatus {
    /// Everything up to here is in segments.
    pub sealed_through: Commit,
    /// Everything up to here is in segments of the object store.
    pub published_through: Commit,
    /// If this disk is lost, everything up to here comes back.
    pub safe_through: Commit,
    pub segments: u64,
    pub journal_files: u64,
    /// Why the last pass failed; it is tried again.
    pub failure: Option<String>,
}

/// The journal, open for appending. Clones share it; the last one that is dropped writes what is queued, and closes it.
///
/// After a failed write or sync every waiting ticket gets the error and the log refuses further appends until [`Log::heal`]
/// or until it is opened again; what is durable stays readable.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Option<Threads>,
    segments: Option<JoinHandle<()>>,
    /// Given back last.
    _lock: Box<dyn DiskLock>,
}

impl Log {
    /// Opens or creates the journal in the directory `dir` and takes the directory's lock. Cuts a torn tail and indexes all
    /// frames in memory. `observer` receives every new group in order, before its sync, so that work on it can begin; nothing
    /// of it may be shown before [`Log::durable`] has reached it. While a bounded one is full, the log waits.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::Corrupt`], or what the disk says.
    pub fn open(
        env: Env,
        dir: &Path,
        options: LogOptions,
        observer: Sender<Arc<CommittedGroup>>,
    ) -> Result<(Self, Recovered), LogError> {
        env.disk.create_dir_all(dir).map_err(|e| LogError::io("create", dir, e))?;
        let lock = env.disk.lock(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => LogError::Locked { dir: dir.to_owned() },
            _ => LogError::io("lock", dir, error),
        })?;
        let remote = options.cold.as_ref().map(|cold| {
            Remote::new(Arc::clone(&cold.objects), cold.prefix.clone())
                .map_err(|e| LogError::io("start the threads of", dir, e))
        });
        let store = Store::new(env.clone(), dir, remote.transpose()?);
        let found = worker::find(&store, dir)?;
        let manifest = found.as_ref().map(|(_, manifest)| manifest.clone()).unwrap_or_default();
        let (tier, sealed) = Tier::new(store, options.tier(), found);
        let verify_from = options.verify_from;
        let recovery = Recovery { disk: &*env.disk, dir, verify_from, upto: None, sealed: Arc::new(sealed) };
        let restored = recovery.run()?;
        let names = env.disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
        tier.leave(
            names.iter().filter(|name| worker::is_cut(name, &manifest)).map(|n| dir.join(n)).collect(),
        );
        tier.set_checkpoint(options.verify_from);
        let chain = Chain {
            dir: dir.to_owned(),
            sizes: Sizes {
                frame_rows_max: options.frame_rows_max.clamp(1, u32::MAX as usize),
                frame_bytes_max: options.frame_bytes_max,
                file_bytes_max: options.file_bytes_max,
            },
            last: restored.index.last(),
            ingest_time: restored.ingest_time.unwrap_or(EventTime::MIN),
            previous: restored.previous,
            sealed: restored.sealed,
            roll: Arc::clone(&tier.roll),
            file: restored.newest.as_ref().map(|Sink { journal, .. }| {
                OpenFile::new(Arc::clone(journal), journal.written(), restored.next_schema)
            }),
        };
        let queue = Queue::new(Limits {
            queue_bytes_max: options.queue_bytes_max,
            group_bytes_max: options.group_bytes_max,
            overlap_bytes: options.overlap_bytes,
        });
        let Restored { topics, index, newest, recovered, .. } = restored;
        let shared = Arc::new(Shared::new(env, queue, topics, index, newest, tier));
        let threads = Threads::start(&shared, chain, observer)
            .map_err(|source| LogError::io("start the threads of", dir, source))?;
        let segments = options.background.then(|| worker::start(&shared)).transpose();
        let segments = segments.map_err(|source| LogError::io("start the threads of", dir, source))?;
        let inner = Inner { shared, threads: Some(threads), segments, _lock: lock };
        Ok((Self(Arc::new(inner)), recovered))
    }

    /// Queues a transaction. The order of calls is the order in the log; a caller who needs a certain one holds a lock of
    /// its own. Blocks while the queue is full. An empty transaction is a commit, too.
    ///
    /// The ticket fails with [`LogError::Refused`] if a topic is not declared, a partition is not one of it, a type cannot
    /// be stored or a position is too long; then nothing of the transaction was queued.
    pub fn submit(&self, transaction: Transaction) -> Ticket {
        self.queue(transaction, None)
    }

    /// As [`Log::submit`], for a transaction that builds on what was appended before it: the ticket fails with
    /// [`LogError::Interrupted`] if the log has failed since [`Log::term`] answered `term`, for then a part of that is lost.
    pub fn submit_in(&self, term: u64, transaction: Transaction) -> Ticket {
        self.queue(transaction, Some(term))
    }

    fn queue(&self, transaction: Transaction, term: Option<u64>) -> Ticket {
        let shared = &self.0.shared;
        let refused = transaction.writes.iter().try_for_each(check_write);
        if let Err(error) = refused.and_then(|()| shared.topics.lock().check(&transaction)) {
            return Ticket::failed(error);
        }
        let sizes: Vec<usize> = transaction.writes.iter().map(|write| batch_bytes(&write.batch)).collect();
        let overhead = TRANSACTION_BYTES * (1 + transaction.writes.len() + transaction.records.len());
        let bytes = sizes.iter().sum::<usize>() + overhead;
        let (resolver, ticket) = ticket();
        shared.queue.push(Pending { transaction, sizes, bytes, resolver }, term);
        ticket
    }

    /// The durable end: the newest commit that is synced.
    pub fn durable(&self) -> watch::Receiver<Commit> {
        self.0.shared.durable.subscribe()
    }

    /// The newest commit that is written, and so readable here; it may not be durable yet.
    pub fn last_commit(&self) -> Commit {
        self.0.shared.index.read().last()
    }

    /// Groups after `from`, in order, up to and including `to`, as far as they are written.
    pub fn replay(&self, from: Commit, to: Commit) -> Replay {
        Replay::new(Arc::clone(&self.0.shared), from, to)
    }

    /// Frames of one topic with a commit after `from`, up to and including `to`, in the order of the log. What they refer to
    /// stays readable as long as they are kept.
    ///
    /// # Errors
    /// As [`Log::read`]: what frames a segment has is read from it.
    pub fn frames(&self, topic: RelationId, from: Commit, to: Commit) -> Result<Vec<FrameRef>, LogError> {
        let (segments, newest) = {
            let index = self.0.shared.index.read();
            (index.sealed().overlapping(topic, from, to), index.frames(topic, from, to))
        };
        if segments.is_empty() {
            return Ok(newest);
        }
        let mut frames = segment::frames(&self.0.shared.tier.store, &segments, from, to)?;
        frames.extend(newest);
        Ok(frames)
    }

    /// Reads the rows of a frame, of the columns `columns` or all, and checks them. Neighbours in a segment are cheap once
    /// the first was read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the bytes are not what was written, or what the disk says.
    pub fn read(&self, frame: &FrameRef, columns: Option<&[usize]>) -> Result<RecordBatch, LogError> {
        if let Some(column) = columns.and_then(|c| c.iter().find(|c| **c >= frame.schema.fields().len())) {
            let reason = format!("a frame of it has no column number {column}");
            return Err(LogError::Refused { topic: frame.topic, reason });
        }
        let shared = &self.0.shared;
        match &frame.place {
            Place::Journal(place) => place.read(&*shared.env.disk, &frame.schema, frame.rows, columns),
            Place::Segment(place) => {
                let SegmentPlace { segment, tail, first_row } = place;
                shared.tier.store.rows(segment, tail, *first_row, frame.rows as usize, columns)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn frames_in_memory(&self) -> usize {
        self.0.shared.index.read().frame_count()
    }

    /// Tells that a checkpoint holds everything up to `cut`: journal files before may become segments.
    pub fn checkpointed(&self, cut: Commit) {
        self.0.shared.tier.set_checkpoint(cut);
    }

    /// Sets how long rows are kept, of all topics that exist. Topics with rows up to `as_of` that are not in the map have been
    /// dropped: their rows leave.
    pub fn set_policies(&self, topics: BTreeMap<RelationId, TopicPolicy>, as_of: Commit) {
        self.0.shared.tier.set_policies(topics, as_of);
    }

    /// Uploads what is durable of the journal and in no segment yet; nothing without a cold tier. Blocks.
    ///
    /// # Errors
    /// What the object store says.
    pub fn upload_journal(&self) -> Result<(), LogError> {
        self.0.shared.tier.upload_journal(&self.0.shared)
    }

    /// Whether retention has taken rows of a topic.
    pub fn is_trimmed(&self, topic: RelationId) -> bool {
        self.0.shared.index.read().sealed().trimmed.iter().any(|trimmed| trimmed.topic == topic)
    }

    /// What the log holds of each partition that has rows, or had.
    pub fn storage(&self) -> Vec<PartitionStorage> {
        let shared = &self.0.shared;
        let status = shared.tier.status.lock().clone();
        let mut partitions = shared.index.read().storage();
        for ((topic, partition), found) in &mut partitions {
            found.next_offset = self.next_offset(*topic, *partition);
            found.earliest_offset = found.earliest_offset.min(found.next_offset);
            if status.held_by_readers.contains(&(*topic, *partition)) {
                found.held_by = Some("a reader");
            }
        }
        partitions.into_values().collect()
    }

    pub fn tier_status(&self) -> TierStatus {
        let shared = &self.0.shared;
        let status = shared.tier.status.lock().clone();
        let index = shared.index.read();
        let sealed = index.sealed();
        TierStatus {
            sealed_through: sealed.through,
            published_through: status.published,
            safe_through: status.published.max(status.journal_uploaded),
            segments: sealed.topics.values().map(|all| all.len() as u64).sum(),
            journal_files: index.files.len() as u64,
            failure: status.failure,
        }
    }

    /// Does at once what the background thread would: cuts journal files that are full and covered by a checkpoint, and
    /// removes what nobody reads any more.
    ///
    /// # Errors
    /// What the disk says. Nothing is lost: the journal stays as it is.
    pub fn maintain(&self) -> Result<(), LogError> {
        self.0.shared.tier.maintain(&self.0.shared)
    }

    /// Tells how many partitions a topic has: before its first append, and after each start before its watermark is asked
    /// for. More partitions may be declared later; until the new ones have rows, they hold W where it is.
    pub fn declare_topic(&self, topic: RelationId, spec: TopicSpec) {
        debug_assert!(spec.partitions > 0, "a topic has at least one partition");
        self.0.shared.topics.lock().declare(topic, spec);
    }

    /// W of a topic after everything that was appended; it may be ahead of what is durable.
    pub fn watermark(&self, topic: RelationId) -> Option<EventTime> {
        self.0.shared.topics.lock().watermark(topic)
    }

    /// The newest position of the topic's connector; it may be ahead of what is durable.
    pub fn positions(&self, topic: RelationId) -> Option<Bytes> {
        self.0.shared.topics.lock().position(topic)
    }

    /// Where the next row of a partition goes.
    pub fn next_offset(&self, topic: RelationId, partition: PartitionId) -> Offset {
        self.0.shared.topics.lock().next_offset(topic, partition)
    }

    /// All partitions of a declared topic, in order; rows that are not durable yet count.
    pub fn partitions(&self, topic: RelationId) -> Vec<PartitionFacts> {
        self.0.shared.topics.lock().partitions(topic)
    }

    /// Why the log takes no more appends, if so.
    pub fn failure(&self) -> Option<LogError> {
        self.0.shared.queue.failure()
    }

    /// How often the log has failed. What was appended in an older term and not acknowledged is lost, or its fate unknown.
    pub fn term(&self) -> u64 {
        self.0.shared.queue.term()
    }

    /// Changes to the new term when the log fails.
    pub fn failures(&self) -> watch::Receiver<u64> {
        self.0.shared.failures.subscribe()
    }

    /// Waits until no group is on its way to the disk. After a failure: until the observer has got the last group of the
    /// term; those above [`Log::durable`] do not exist.
    pub fn settle(&self) {
        self.0.shared.queue.wait_syncing(0);
    }

    /// Makes a log that has failed take appends again, in this process. What is behind the newest synced group is cut off,
    /// for what a failed sync covered cannot be trusted; everything here is read again from there; a group without rows
    /// in a new file shows that the disk works. Its number is beyond all that were given, and is returned.
    ///
    /// The observer must throw away what it got above [`Log::durable`] before this is called, see [`Log::settle`].
    ///
    /// # Errors
    /// What is still wrong. It may be called again, and does not repeat what has worked.
    pub fn heal(&self) -> Result<Commit, LogError> {
        self.0.shared.queue.ask_to_heal().recv().unwrap_or(Err(LogError::Closed))
    }
}

fn check_write(write: &Write) -> Result<(), LogError> {
    let refused = |reason| Err(LogError::Refused { topic: write.topic, reason });
    match &write.position {
        Some(position) if position.len() > POSITION_BYTES_MAX => {
            return refused(format!(
                "its position has {} bytes, the limit is {POSITION_BYTES_MAX}",
                position.len()
            ));
        }
        _ => {}
    }
    check_schema(&write.batch.schema()).or_else(refused)
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(thread) = self.segments.take() {
            self.shared.tier.stop(thread);
        }
        if let Some(threads) = self.threads.take() {
            threads.finish(&self.shared);
        }
    }
}
