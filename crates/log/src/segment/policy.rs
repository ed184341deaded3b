//! What may leave: by time, by size, with its relation.

use std::collections::{BTreeMap, HashMap};

use millpond_types::{Commit, EventTime, RelationId};

use super::manifest::{Manifest, SegmentEntry, Trimmed};

/// How long a topic's rows are kept. By default, for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Rows that are older by their ingest time may go.
    pub retention_micros: Option<i64>,
    /// While the topic takes more bytes in segments, the oldest rows may go.
    pub retention_bytes: Option<u64>,
    /// Of a changelog: the names of the columns that are its key. Rows that a later one of their key supersedes may leave.
    /// Empty: all rows stay.
    pub key: Vec<String>,
}

/// The policies of all topics there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub topics: BTreeMap<RelationId, TopicPolicy>,
    /// Topics with rows before this that are not listed have been dropped. 0 says nothing.
    pub as_of: Commit,
}

impl Policies {
    pub fn has_retention(&self) -> bool {
        self.topics.values().any(|p| p.retention_micros.is_some() || p.retention_bytes.is_some())
    }

    /// The manifest without what may leave at `now`; `None` if that is nothing. Segments leave whole, oldest first.
    pub fn apply(&self, manifest: &Manifest, now: EventTime) -> Option<Manifest> {
        if self.as_of == Commit(0) {
            return None;
        }
        let mut by_topic: HashMap<RelationId, Vec<&SegmentEntry>> = HashMap::new();
        for segment in &manifest.segments {
            by_topic.entry(segment.topic).or_default().push(segment);
        }
        let dropped =
            |topic: RelationId, first: Commit| !self.topics.contains_key(&topic) && first <= self.as_of;
        let mut leaves = Vec::new();
        let mut trims: Vec<&SegmentEntry> = Vec::new();
        for (topic, mut segments) in by_topic {
            segments.sort_by_key(|s| (s.last, s.first, s.partition, s.number));
            let Some(policy) = self.topics.get(&topic) else {
                let gone = segments.iter().filter(|s| dropped(topic, s.first));
                leaves.extend(gone.map(|s| s.key()));
                continue;
            };
            let mut bytes: u64 = segments.iter().map(|s| s.bytes).sum();
            for segment in segments {
                let old = policy
                    .retention_micros
                    .is_some_and(|keep| segment.last_time.0 < now.0.saturating_sub(keep));
                let much = policy.retention_bytes.is_some_and(|max| bytes > max);
                if !old && !much {
                    break;
                }
                bytes -= segment.bytes;
                leaves.push(segment.key());
                trims.push(segment);
            }
        }
        if leaves.is_empty() {
            return None;
        }
        let mut rest = manifest.clone();
        leaves.sort_unstable();
        rest.segments.retain(|s| leaves.binary_search(&s.key()).is_err());
        for segment in trims {
            rest.trim(segment);
        }
        rest.trimmed.retain(|t| self.topics.contains_key(&t.topic) || t.through > self.as_of);
        Some(rest)
    }
}

impl Manifest {
    /// Remembers that a segment has gone.
    fn trim(&mut self, segment: &SegmentEntry) {
        let (topic, partition) = (segment.topic, segment.partition);
        let (offset, through) = (segment.end_offset, segment.last);
        match self.trimmed.iter_mut().find(|t| (t.topic, t.partition) == (topic, partition)) {
            Some(trimmed) => {
                trimmed.offset = trimmed.offset.max(offset);
                trimmed.through = trimmed.through.max(through);
            }
            None => self.trimmed.push(Trimmed { topic, partition, offset, through }),
        }
    }
}
