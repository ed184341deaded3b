//! The fold of [`super::Topics`] at a commit, as a manifest keeps it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use millpond_types::{Commit, EventTime, PartitionId, RelationId};
use serde::{Deserialize, Serialize};

use super::{Partition, Sequences, Topic, Topics};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedTopics {
    topics: Vec<SavedTopic>,
    gaps: bool,
    producers: Vec<SavedProducer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedTopic {
    topic: RelationId,
    watermark: Option<EventTime>,
    position: Option<Vec<u8>>,
    partitions: Vec<SavedPartition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedPartition {
    partition: PartitionId,
    next_offset: u64,
    event_time: Option<EventTime>,
    idle: bool,
    newest_row: Option<EventTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedProducer {
    topic: RelationId,
    partition: PartitionId,
    id: u64,
    epoch: u32,
    /// Oldest first.
    newest: Vec<(u64, Commit)>,
}

impl Topics {
    pub fn save(&self) -> SavedTopics {
        // Taken apart in full, so that what is added to a topic cannot be forgotten here.
        let Self { topics, gaps, producers } = self;
        let mut saved: Vec<_> = topics.iter().map(|(id, topic)| topic.save(*id)).collect();
        saved.sort_by_key(|topic| topic.topic);
        let mut producers: Vec<_> = producers
            .iter()
            .map(|((topic, partition, id), Sequences { epoch, newest })| SavedProducer {
                topic: *topic,
                partition: *partition,
                id: *id,
                epoch: *epoch,
                newest: newest.iter().copied().collect(),
            })
            .collect();
        producers.sort_by_key(|p| (p.topic, p.partition, p.id));
        SavedTopics { topics: saved, gaps: *gaps, producers }
    }

    pub fn load(saved: &SavedTopics) -> Self {
        let topics = saved.topics.iter().map(|topic| (topic.topic, Topic::load(topic)));
        let producers = saved.producers.iter().map(|p| {
            let sequences = Sequences { epoch: p.epoch, newest: p.newest.iter().copied().collect() };
            ((p.topic, p.partition, p.id), sequences)
        });
        Self { topics: topics.collect::<HashMap<_, _>>(), gaps: saved.gaps, producers: producers.collect() }
    }
}

impl Topic {
    fn save(&self, id: RelationId) -> SavedTopic {
        let Self { spec: _, partitions, watermark, position } = self;
        let partitions = partitions.iter().map(|(id, partition)| {
            let Partition { next_offset, event_time, idle, newest_row } = partition;
            SavedPartition {
                partition: *id,
                next_offset: *next_offset,
                event_time: *event_time,
                idle: *idle,
                newest_row: *newest_row,
            }
        });
        SavedTopic {
            topic: id,
            watermark: *watermark,
            position: position.as_ref().map(|bytes| bytes.to_vec()),
            partitions: partitions.collect(),
        }
    }

    fn load(saved: &SavedTopic) -> Self {
        let partitions = saved.partitions.iter().map(|p| {
            let SavedPartition { partition, next_offset, event_time, idle, newest_row } = *p;
            (partition, Partition { next_offset, event_time, idle, newest_row })
        });
        Self {
            spec: None,
            partitions: partitions.collect::<BTreeMap<_, _>>(),
            watermark: saved.watermark,
            position: saved.position.as_ref().map(|bytes| Bytes::copy_from_slice(bytes)),
        }
    }
}
