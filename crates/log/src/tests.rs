//! The log under `env::sim`.

mod append;
mod compaction;
mod crash;
mod damage;
mod heal;
mod hostile;
mod repair;
mod segments;
mod tiering;
mod watermark;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use crossbeam_channel::{Receiver, unbounded};
use millpond_env::sim::Sim;
use millpond_types::{Commit, EventTime, PartitionId, RelationId};

use crate::{
    CommittedGroup, Log, LogError, LogOptions, Record, Recovered, Ticket, TopicSpec, Transaction, Write,
    WriteKind,
};

const TOPIC: RelationId = RelationId(7);
const OTHER: RelationId = RelationId(8);

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

fn first_file() -> PathBuf {
    dir().join("00000000000000000001.log")
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// Rows `from..from + rows`; every third text is NULL.
fn rows(from: i64, rows: usize) -> RecordBatch {
    let ids: Vec<i64> = (from..from + rows as i64).collect();
    let texts: StringArray = ids.iter().map(|id| (id % 3 != 0).then(|| format!("row {id}"))).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(ids)), Arc::new(texts)]).unwrap()
}

fn write_to(topic: RelationId, batch: RecordBatch) -> Write {
    Write {
        topic,
        partition: PartitionId(0),
        batch,
        event_time: None,
        schema_version: 1,
        kind: WriteKind::Append,
        producer: None,
        position: None,
    }
}

fn transaction(writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction { writes: writes.into_iter().collect(), records: Vec::new() }
}

fn records(records: impl IntoIterator<Item = Record>) -> Transaction {
    Transaction { writes: Vec::new(), records: records.into_iter().collect() }
}

/// An open log with two declared topics.
struct Opened {
    log: Log,
    recovered: Recovered,
    groups: Receiver<Arc<CommittedGroup>>,
}

fn try_open(sim: &Sim, options: LogOptions) -> Result<Opened, LogError> {
    try_open_with(sim, options, 1)
}

/// With so many partitions of [`TOPIC`].
fn try_open_with(sim: &Sim, options: LogOptions, partitions: u32) -> Result<Opened, LogError> {
    let (observer, groups) = unbounded();
    let (log, recovered) = Log::open(sim.env(), dir(), options, observer)?;
    log.declare_topic(TOPIC, TopicSpec { partitions });
    log.declare_topic(OTHER, TopicSpec { partitions: 1 });
    Ok(Opened { log, recovered, groups })
}

fn open(sim: &Sim) -> Opened {
    try_open(sim, LogOptions::default()).unwrap()
}

impl Opened {
    fn submit(&self, writes: impl IntoIterator<Item = Write>) -> Ticket {
        self.log.submit(transaction(writes))
    }

    /// Appends rows and waits.
    fn append(&self, batch: RecordBatch) -> Result<Commit, LogError> {
        self.submit([write_to(TOPIC, batch)]).wait_blocking()
    }

    fn replay(&self) -> Vec<CommittedGroup> {
        self.log.replay(Commit(0), Commit(u64::MAX)).collect::<Result<_, _>>().unwrap()
    }

    /// All ids of a topic by its frames, which must agree with a replay.
    fn ids(&self, topic: RelationId) -> Vec<i64> {
        let frames = self.log.frames(topic, Commit(0), Commit(u64::MAX)).unwrap();
        let by_frames: Vec<i64> =
            frames.iter().flat_map(|frame| ids(&self.log.read(frame, Some(&[0])).unwrap())).collect();
        let groups = self.replay();
        let frames = groups.iter().flat_map(|group| &group.frames).filter(|frame| frame.topic == topic);
        let by_replay: Vec<i64> = frames.flat_map(|frame| ids(&frame.batch)).collect();
        assert_eq!(by_frames, by_replay);
        by_frames
    }
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn at(micros: i64) -> Option<EventTime> {
    Some(EventTime(micros))
}
