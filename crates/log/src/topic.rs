//! What the log knows of each topic beyond its frames: offsets, watermarks, producers, positions.
//!
//! W of a topic is the minimum, over its partitions that are not idle, of the largest event time appended to each; if all
//! are idle, the maximum. It never goes back: a partition that returns from idleness, or is added, holds W where it is. A
//! partition without any event time and not idle holds back everything. [`crate::Record::AdvanceWatermark`] raises W.
//!
//! Everything here is a fold over the headers of the log, so a restart finds the same.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use millpond_types::{EventTime, Offset, PartitionId, RelationId};

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

#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: HashMap<RelationId, Topic>,
    /// Newest epoch and sequence.
    producers: HashMap<(RelationId, PartitionId, u64), (u32, u64)>,
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
}

impl Topic {
    fn raise(&mut self, to: Option<EventTime>) {
        self.watermark = self.watermark.max(to);
    }

    fn advance(&mut self) {
        let Some(spec) = self.spec else { return };
        let all = (0..spec.partitions).map(|p| self.partitions.get(&PartitionId(p)));
        // `None` sorts first: a partition of which nothing is known holds back the minimum.
        let busy = all.filter(|p| !p.is_some_and(|p| p.idle)).map(|p| p.and_then(|p| p.event_time)).min();
        let bound = busy.unwrap_or_else(|| self.partitions.values().map(|p| p.event_time).max().flatten());
        self.raise(bound);
    }
}

impl Topics {
    pub fn declare(&mut self, topic: RelationId, spec: TopicSpec) {
        let topic = self.topics.entry(topic).or_default();
        topic.spec = Some(spec);
        topic.advance();
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

    /// Of each write, whether it is new; the others repeat an append. An older epoch is an error. What a transaction
    /// repeats of itself counts, too.
    pub fn admit(&mut self, transaction: &Transaction) -> Result<Vec<bool>, LogError> {
        for write in &transaction.writes {
            let Some(Producer { id, epoch, .. }) = write.producer else { continue };
            let (topic, partition) = (write.topic, write.partition);
            match self.producers.get(&(topic, partition, id)) {
                Some((newest, _)) if *newest > epoch => {
                    return Err(LogError::Fenced { topic, partition, id, epoch, newest: *newest });
                }
                _ => {}
            }
        }
        Ok(transaction
            .writes
            .iter()
            .map(|write| {
                write.producer.is_none_or(|producer| self.produced(write.topic, write.partition, producer))
            })
            .collect())
    }

    /// Remembers a sequence; false if it is not new.
    fn produced(&mut self, topic: RelationId, partition: PartitionId, producer: Producer) -> bool {
        let key = (topic, partition, producer.id);
        let now = (producer.epoch, producer.sequence);
        match self.producers.get(&key) {
            Some(last) if *last >= now => false,
            _ => {
                self.producers.insert(key, now);
                true
            }
        }
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
    pub fn appended(&mut self, frame: &FrameHeader) {
        let topic = self.topics.entry(frame.topic).or_default();
        let partition = topic.partitions.entry(frame.partition).or_default();
        partition.next_offset = frame.base_offset.0 + u64::from(frame.rows);
        partition.event_time = partition.event_time.max(frame.event_time);
        partition.idle = false;
        if frame.position.is_some() {
            topic.position.clone_from(&frame.position);
        }
        topic.raise(frame.watermark);
        topic.advance();
    }

    /// Appends a frame that was read.
    pub fn recovered(&mut self, frame: &FrameHeader) -> Result<(), Bad> {
        let expected = self.next_offset(frame.topic, frame.partition);
        if frame.base_offset != expected {
            return Err(format!(
                "topic {}, partition {}, goes on at offset {} instead of {expected}",
                frame.topic, frame.partition, frame.base_offset
            ));
        }
        for write in &frame.writes {
            if let Some(producer) = write.producer {
                self.produced(frame.topic, frame.partition, producer);
            }
        }
        self.appended(frame);
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
