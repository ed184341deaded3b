//! What the log knows of each topic beyond its frames: offsets, watermarks, producers, positions.
//!
//! W of a topic is the minimum, over its partitions that are not idle, of the largest event time appended to each; if all
//! are idle, the maximum. It never goes back: a partition that returns from idleness, or is added, holds W where it is. A
//! partition without any event time and not idle holds back everything. [`crate::Record::AdvanceWatermark`] raises W.
//!
//! Everything here is a fold over the headers of the log, so a restart finds the same. How many partitions a topic has is not
//! in the headers: while they are read, W is what the commit records say of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};

mod saved;

use crate::format::{Bad, FrameHeader};
use crate::{LogError, Producer, Record, Transaction};

pub(crate) use saved::SavedTopics;

/// What must be known of a topic before the log can take rows for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// At least 1.
    pub partitions: u32,
}

/// What is known of one partition, its rows aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionFacts {
    pub partition: PartitionId,
    /// Where its next row goes.
    pub next_offset: Offset,
    /// The largest event time appended to it.
    pub event_time: Option<EventTime>,
    /// It does not hold W back until its next row.
    pub idle: bool,
    /// The ingest time of its newest row.
    pub newest_row: Option<EventTime>,
}

/// Appends of one producer whose commits are remembered: as many as a client may have under way without an answer.
const SEQUENCES_KEPT: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: HashMap<RelationId, Topic>,
    /// A repair has given up a part of the log: offsets may be left out.
    gaps: bool,
    producers: HashMap<(RelationId, PartitionId, u64), Sequences>,
}

/// What one producer has appended to one partition.
#[derive(Debug, Default)]
struct Sequences {
    epoch: u32,
    /// The newest of that epoch, oldest first; never empty.
    newest: VecDeque<(u64, Commit)>,
}

/// What of a transaction goes into the log.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Of each write, whether it is new; the others repeat an append.
    pub new: Vec<bool>,
    /// If everything is a repetition: the commit of what it repeats, where that is remembered.
    pub original: Option<Commit>,
}

/// When a frame was appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub commit: Commit,
    pub ingest_time: EventTime,
}

#[derive(Debug, Default)]
struct Topic {
    spec: Option<TopicSpec>,
    partitions: BTreeMap<PartitionId, Partition>,
    watermark: Option<EventTime>,
    position: Option<Bytes>,
}

#[derive(Debug, Default)]
struct Partition {
    next_offset: u64,
    event_time: Option<EventTime>,
    idle: bool,
    newest_row: Option<EventTime>,
}

impl Topic {
    fn raise(&mut self, to: Option<EventTime>) {
        self.watermark = self.watermark.max(to);
    }

    /// Looks at every partition: see [`Topic::may_advance`].
    fn advance(&mut self) {
        let Some(spec) = self.spec else { return };
        let known = self.partitions.range(..PartitionId(spec.partitions));
        if known.clone().count() < spec.partitions as usize {
            // A partition of which nothing is known holds back the minimum.
            return;
        }
        let busy = known.clone().filter(|(_, p)| !p.idle).map(|(_, p)| p.event_time).min();
        let bound = busy.unwrap_or_else(|| known.map(|(_, p)| p.event_time).max().flatten());
        self.raise(bound);
    }

    /// Whether W can move when this is appended to a partition: if the partition is at the minimum, and leaves it. W is never
    /// below the minimum, so a partition above W is not at it.
    fn may_advance(&self, partition: PartitionId, event_time: Option<EventTime>) -> bool {
        let Some(known) = self.partitions.get(&partition) else { return true };
        known.idle || (known.event_time <= self.watermark && known.event_time < event_time)
    }
}

impl Topics {
    pub fn declare(&mut self, topic: RelationId, spec: TopicSpec) {
        // W does not move: a spec that is about to grow, as in a replay of the catalog, must not raise it.
        self.topics.entry(topic).or_default().spec = Some(spec);
    }

    /// All partitions of a declared topic, in order.
    pub fn partitions(&self, topic: RelationId) -> Vec<PartitionFacts> {
        let Some(Topic { spec: Some(spec), partitions, .. }) = self.topics.get(&topic) else {
            return Vec::new();
        };
        let facts = |partition| match partitions.get(&partition) {
            Some(known) => PartitionFacts {
                partition,
                next_offset: Offset(known.next_offset),
                event_time: known.event_time,
                idle: known.idle,
                newest_row: known.newest_row,
            },
            None => PartitionFacts { partition, ..PartitionFacts::default() },
        };
        (0..spec.partitions).map(|partition| facts(PartitionId(partition))).collect()
    }

    /// Takes over what no frame says: how many partitions each topic has.
    pub fn declare_like(&mut self, other: &Self) {
        for (topic, known) in &other.topics {
            if let Some(spec) = known.spec {
                self.declare(*topic, spec);
            }
        }
    }

    pub fn watermark(&self, topic: RelationId) -> Option<EventTime> {
        self.topics.get(&topic)?.watermark
    }

    /// W is at least this, as the log says.
    pub fn raise(&mut self, topic: RelationId, to: EventTime) {
        self.topics.entry(topic).or_default().raise(Some(to));
    }

    pub fn position(&self, topic: RelationId) -> Option<Bytes> {
        self.topics.get(&topic)?.position.clone()
    }

    /// Where the next row of a partition goes.
    pub fn next_offset(&self, topic: RelationId, partition: PartitionId) -> Offset {
        let partition = self.topics.get(&topic).and_then(|t| t.partitions.get(&partition));
        Offset(partition.map_or(0, |p| p.next_offset))
    }

    /// Whether the topics and partitions of a transaction are declared.
    pub fn check(&self, transaction: &Transaction) -> Result<(), LogError> {
        let writes = transaction.writes.iter().map(|w| (w.topic, w.partition));
        let records = transaction.records.iter().filter_map(|record| match record {
            Record::AdvanceWatermark { topic, .. } => Some((*topic, PartitionId(0))),
            Record::PartitionIdle { topic, partition } => Some((*topic, *partition)),
            Record::Ddl(_) | Record::Tick(_) => None,
        });
        for (topic, partition) in writes.chain(records) {
            let refused = |reason: String| Err(LogError::Refused { topic, reason });
            match self.topics.get(&topic).and_then(|t| t.spec) {
                None => return refused("it is not declared".to_owned()),
                Some(spec) if partition.0 >= spec.partitions => {
                    return refused(format!(
                        "it has {} partitions, not partition {partition}",
                        spec.partitions
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes out of a transaction, which will have the number `commit`, what repeats an append. An older epoch is an error.
    /// What a transaction repeats of itself counts, too.
    pub fn admit(&mut self, transaction: &Transaction, commit: Commit) -> Result<Admitted, LogError> {
        for write in &transaction.writes {
            let Some(Producer { id, epoch, .. }) = write.producer else { continue };
            let (topic, partition) = (write.topic, write.partition);
            match self.producers.get(&(topic, partition, id)) {
                Some(Sequences { epoch: newest, .. }) if *newest > epoch => {
                    return Err(LogError::Fenced { topic, partition, id, epoch, newest: *newest });
                }
                _ => {}
            }
        }
        let mut admitted = Admitted { new: Vec::with_capacity(transaction.writes.len()), original: None };
        for write in &transaction.writes {
            let repeated =
                write.producer.and_then(|p| self.produced(write.topic, write.partition, p, commit));
            admitted.new.push(repeated.is_none());
            admitted.original = admitted.original.max(repeated.flatten());
        }
        if !transaction.records.is_empty() || admitted.new.contains(&true) {
            admitted.original = None;
        }
        Ok(admitted)
    }

    /// Remembers a sequence. Of one that is not new, returns the commit of the first, `None` if that was too long ago.
    fn produced(
        &mut self,
        topic: RelationId,
        partition: PartitionId,
        producer: Producer,
        commit: Commit,
    ) -> Option<Option<Commit>> {
        let Producer { id, epoch, sequence } = producer;
        let known = self.producers.entry((topic, partition, id)).or_default();
        if known.epoch < epoch {
            known.epoch = epoch;
            known.newest.clear();
        }
        if known.epoch > epoch || known.newest.back().is_some_and(|(last, _)| *last >= sequence) {
            let first = known.newest.iter().find(|(s, _)| known.epoch == epoch && *s == sequence);
            return Some(first.map(|(_, commit)| *commit));
        }
        if known.newest.len() == SEQUENCES_KEPT {
            known.newest.pop_front();
        }
        known.newest.push_back((sequence, commit));
        None
    }

    /// The largest event time of a partition, were this one appended.
    pub fn event_time_with(
        &self,
        topic: RelationId,
        partition: PartitionId,
        event_time: Option<EventTime>,
    ) -> Option<EventTime> {
        let partition = self.topics.get(&topic).and_then(|t| t.partitions.get(&partition));
        partition.and_then(|p| p.event_time).max(event_time)
    }

    /// Appends a frame whose header was made with the answers of this value.
    pub fn appended(&mut self, frame: &FrameHeader, stamp: Stamp) {
        let topic = self.topics.entry(frame.topic).or_default();
        let may_advance = topic.may_advance(frame.partition, frame.event_time);
        let partition = topic.partitions.entry(frame.partition).or_default();
        partition.next_offset = frame.base_offset.0 + u64::from(frame.rows);
        partition.event_time = partition.event_time.max(frame.event_time);
        if frame.rows > 0 {
            // A position without rows is no sign of life.
            partition.idle = false;
            partition.newest_row = partition.newest_row.max(Some(stamp.ingest_time));
        }
        if frame.position.is_some() {
            topic.position.clone_from(&frame.position);
        }
        topic.raise(frame.watermark);
        if may_advance {
            topic.advance();
        }
    }

    /// From here on offsets may be left out.
    pub fn allow_gaps(&mut self) {
        self.gaps = true;
    }

    /// Appends a frame that was read.
    pub fn recovered(&mut self, frame: &FrameHeader, stamp: Stamp) -> Result<(), Bad> {
        let expected = self.next_offset(frame.topic, frame.partition);
        if frame.base_offset != expected && !(self.gaps && frame.base_offset > expected) {
            return Err(format!(
                "topic {}, partition {}, goes on at offset {} instead of {expected}",
                frame.topic, frame.partition, frame.base_offset
            ));
        }
        for write in &frame.writes {
            if let Some(producer) = write.producer {
                self.produced(frame.topic, frame.partition, producer, stamp.commit);
            }
        }
        self.appended(frame, stamp);
        Ok(())
    }

    pub fn record(&mut self, record: &Record) {
        match record {
            Record::AdvanceWatermark { topic, to } => self.raise(*topic, *to),
            Record::PartitionIdle { topic, partition } => {
                let topic = self.topics.entry(*topic).or_default();
                topic.partitions.entry(*partition).or_default().idle = true;
                topic.advance();
            }
            Record::Ddl(_) | Record::Tick(_) => {}
        }
    }
}
