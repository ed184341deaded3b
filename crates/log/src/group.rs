//! Making a commit group: merging writes into frames and encoding them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use millpond_types::{Commit, EventTime, PartitionId, RelationId};
use parking_lot::Mutex;

use crate::format::{
    Body, CommitRecord, FileHeader, FrameHeader, ItemHeader, Prelude, WriteEntry, encode_record, pad8,
};
use crate::index::{FrameRef, JournalFile, JournalPlace, Place};
use crate::payload::BatchEncoder;
use crate::ranges::ColumnRange;
use crate::topic::{Stamp, Topics};
use crate::{CommittedFrame, CommittedGroup, LogError, Record, Write, WriteKind};

/// Writes of one frame, so that its header keeps below its limit.
const FRAME_WRITES_MAX: usize = 65_536;

/// Limits of what one frame and one file hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub frame_rows_max: usize,
    pub frame_bytes_max: usize,
    pub file_bytes_max: u64,
}

/// The end of the chain: what the next item follows, and where it goes.
pub(crate) struct Chain {
    pub dir: PathBuf,
    pub sizes: Sizes,
    pub last: Commit,
    pub ingest_time: EventTime,
    /// The crc of the newest header.
    pub previous: u32,
    /// The newest item is a seal.
    pub sealed: bool,
    pub file: Option<OpenFile>,
    /// Set from outside: the next group begins a file.
    pub roll: Arc<AtomicBool>,
}

/// The file that is being written.
pub(crate) struct OpenFile {
    pub file: Arc<JournalFile>,
    pub len: u64,
    next_schema: u32,
    encoders: HashMap<RelationId, Vec<TopicEncoder>>,
}

struct TopicEncoder {
    schema: SchemaRef,
    id: u32,
    encoder: BatchEncoder,
}

impl OpenFile {
    /// Frames of this value repeat their schemas: what the file holds of them already is not looked for.
    pub fn new(file: Arc<JournalFile>, len: u64, next_schema: u32) -> Self {
        Self { file, len, next_schema, encoders: HashMap::new() }
    }
}

/// A group that is ready to be written.
pub(crate) struct Built {
    pub group: Arc<CommittedGroup>,
    pub file: Arc<JournalFile>,
    /// The header of the file, if it must be created first.
    pub new_file: Option<[u8; FileHeader::BYTES]>,
    pub at: u64,
    pub bytes: Vec<u8>,
    pub frames: Vec<FrameRef>,
}

/// Writes that follow each other in one partition and can share frames.
struct Run {
    topic: RelationId,
    partition: PartitionId,
    kind: WriteKind,
    schema_version: u32,
    schema: SchemaRef,
    writes: Vec<(Write, usize)>,
}

/// Rows that will be one frame.
#[derive(Default)]
struct Draft {
    pieces: Vec<RecordBatch>,
    writes: Vec<WriteEntry>,
    rows: usize,
    bytes: usize,
    event_time: Option<EventTime>,
    position: Option<Bytes>,
}

/// How many bytes the rows of a batch take, though it may be a slice of a larger one.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let size = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(size).sum()
}

/// Merges writes, in their order. Order is kept inside of a partition; partitions come in the order of their first write.
fn runs(writes: Vec<(Write, usize)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut newest: HashMap<(RelationId, PartitionId), usize> = HashMap::new();
    for (write, bytes) in writes {
        let nothing = write.batch.num_rows() == 0
            && write.event_time.is_none()
            && write.position.is_none()
            && write.producer.is_none();
        if nothing {
            continue;
        }
        let schema = write.batch.schema_ref();
        let partition = (write.topic, write.partition);
        let same = newest.get(&partition).copied().filter(|run| {
            let run = &runs[*run];
            run.kind == write.kind
                && run.schema_version == write.schema_version
                && (Arc::ptr_eq(&run.schema, schema) || run.schema == *schema)
        });
        match same {
            Some(run) => runs[run].writes.push((write, bytes)),
            None => {
                newest.insert(partition, runs.len());
                runs.push(Run {
                    topic: write.topic,
                    partition: write.partition,
                    kind: write.kind,
                    schema_version: write.schema_version,
                    schema: Arc::clone(schema),
                    writes: vec![(write, bytes)],
                });
            }
        }
    }
    runs
}

/// Cuts the writes of a run into frames.
fn drafts(writes: Vec<(Write, usize)>, sizes: &Sizes) -> Vec<Draft> {
    let mut full = Vec::new();
    let mut draft = Draft::default();
    for (write, bytes) in writes {
        let total = write.batch.num_rows();
        let row_bytes = bytes.div_ceil(total.max(1)).max(1);
        let mut at = 0;
        loop {
            let room = (sizes.frame_rows_max - draft.rows)
                .min(sizes.frame_bytes_max.saturating_sub(draft.bytes) / row_bytes)
                .max(usize::from(draft.rows == 0));
            let take = room.min(total - at);
            if (take == 0 && at < total) || draft.writes.len() == FRAME_WRITES_MAX {
                full.push(std::mem::take(&mut draft));
                continue;
            }
            draft.push(&write, at, take, row_bytes);
            at += take;
            if at == total {
                break;
            }
        }
        draft.event_time = draft.event_time.max(write.event_time);
        draft.position = write.position.or(draft.position);
    }
    if !draft.writes.is_empty() {
        full.push(draft);
    }
    full
}

impl Draft {
    fn push(&mut self, write: &Write, at: usize, rows: usize, row_bytes: usize) {
        let whole = rows == write.batch.num_rows();
        self.pieces.push(if whole { write.batch.clone() } else { write.batch.slice(at, rows) });
        self.rows += rows;
        self.bytes += rows * row_bytes;
        let continues = at + rows < write.batch.num_rows();
        let entry = WriteEntry { rows: rows as u32, producer: write.producer, continues };
        match self.writes.last_mut() {
            Some(last) if last.producer.is_none() && entry.producer.is_none() => {
                last.rows += entry.rows;
                last.continues = continues;
            }
            _ => self.writes.push(entry),
        }
    }

    fn batch(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        match self.pieces.len() {
            1 => Ok(self.pieces.swap_remove(0)),
            _ => concat_batches(schema, &self.pieces),
        }
    }
}

impl Chain {
    /// Makes one group of everything. `topics` learns of it.
    pub fn build(
        &mut self,
        writes: Vec<(Write, usize)>,
        records: Vec<Record>,
        topics: &Mutex<Topics>,
        now_micros: i64,
        bytes: Vec<u8>,
    ) -> Result<Built, LogError> {
        let commit = self.last.next();
        let ingest_time = self.ingest_time.max(EventTime(now_micros));
        let new_file = self.roll(commit, now_micros);
        let open = self.file.as_mut().expect("a file was opened if there was none");
        let mut group = Encoder {
            open,
            previous: self.previous,
            commit,
            ingest_time,
            bytes,
            items: Vec::new(),
            frames: Vec::new(),
        };
        let runs = runs(writes);
        let before = {
            let topics = topics.lock();
            let touched = runs.iter().map(|run| run.topic).chain(records.iter().filter_map(Record::topic));
            touched.map(|topic| (topic, topics.watermark(topic))).collect::<BTreeMap<_, _>>()
        };
        let mut frames = Vec::new();
        for run in runs {
            group.run(run, &self.sizes, topics, &mut frames)?;
        }
        for record in &records {
            let (tag, payload) = encode_record(record);
            group.item(Body::Record { tag }, |out| out.extend_from_slice(&payload));
            topics.lock().record(record);
        }
        let watermarks: Vec<_> = {
            let topics = topics.lock();
            let after = before.into_iter().map(|(topic, before)| (topic, before, topics.watermark(topic)));
            after.filter(|(_, before, after)| after > before).filter_map(|(t, _, w)| Some((t, w?))).collect()
        };
        let items = std::mem::take(&mut group.items);
        let group_bytes = group.bytes.len() as u64;
        let record = CommitRecord { items, group_bytes, watermarks: watermarks.clone() };
        group.item(Body::Commit(record), |_| ());
        let Encoder { previous, bytes, frames: refs, .. } = group;
        let at = open.len;
        open.len += bytes.len() as u64;
        let file = Arc::clone(&open.file);
        (self.last, self.ingest_time, self.previous, self.sealed) = (commit, ingest_time, previous, false);
        let group = Arc::new(CommittedGroup { commit, ingest_time, frames, records, watermarks });
        Ok(Built { group, file, new_file, at, bytes, frames: refs })
    }

    /// Begins a new file if there is none, or the newest is large enough.
    fn roll(&mut self, commit: Commit, now_micros: i64) -> Option<[u8; FileHeader::BYTES]> {
        let asked = self.roll.swap(false, Ordering::SeqCst);
        if self.file.as_ref().is_some_and(|open| open.len < self.sizes.file_bytes_max && !asked) {
            return None;
        }
        let header =
            FileHeader { first: commit, previous: self.previous, created_micros: now_micros }.encode();
        let len = FileHeader::BYTES as u64;
        let file = Arc::new(JournalFile::new(&self.dir, commit, len));
        self.file = Some(OpenFile::new(file, len, 0));
        self.previous = FileHeader::crc(&header);
        Some(header)
    }

    /// The bytes that say that everything before them is complete.
    pub fn seal(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let prelude = Prelude {
            commit: self.last,
            ingest_time: self.ingest_time,
            previous: self.previous,
            payload_bytes: 0,
            payload_crc: 0,
        };
        self.previous = ItemHeader::encode(&prelude, &Body::Seal, &mut bytes);
        self.sealed = true;
        bytes
    }
}

/// Appends items to a group.
struct Encoder<'a> {
    open: &'a mut OpenFile,
    previous: u32,
    commit: Commit,
    ingest_time: EventTime,
    bytes: Vec<u8>,
    items: Vec<u32>,
    frames: Vec<FrameRef>,
}

impl Encoder<'_> {
    /// Appends an item; returns its prelude and where its payload begins in the group.
    fn item(&mut self, body: Body, payload: impl FnOnce(&mut Vec<u8>)) -> (Prelude, usize) {
        let at = self.bytes.len();
        let payload_at = at + body.header_bytes();
        self.bytes.resize(payload_at, 0);
        payload(&mut self.bytes);
        let payload_bytes = self.bytes.len() - payload_at;
        self.bytes.resize(payload_at + pad8(payload_bytes), 0);
        let prelude = Prelude {
            commit: self.commit,
            ingest_time: self.ingest_time,
            previous: self.previous,
            payload_bytes: payload_bytes as u64,
            payload_crc: crc32c::crc32c(&self.bytes[payload_at..]),
        };
        let mut header = Vec::with_capacity(payload_at - at);
        self.previous = ItemHeader::encode(&prelude, &body, &mut header);
        self.bytes[at..payload_at].copy_from_slice(&header);
        self.items.push(self.previous);
        (prelude, payload_at)
    }

    fn run(
        &mut self,
        run: Run,
        sizes: &Sizes,
        topics: &Mutex<Topics>,
        frames: &mut Vec<CommittedFrame>,
    ) -> Result<(), LogError> {
        let Run { topic, partition, kind, schema_version, schema, writes } = run;
        let failed = |error: ArrowError| LogError::Encode { topic, source: Arc::new(error) };
        let encoder = self.encoder(topic, &schema).map_err(failed)?;
        for mut draft in drafts(writes, sizes) {
            let batch = draft.batch(&schema).map_err(failed)?;
            // A changelog is read whole, into the image of its table.
            let ranges = if kind == WriteKind::Append { ColumnRange::of(&batch) } else { None };
            let header = {
                let mut topics = topics.lock();
                let header = FrameHeader {
                    topic,
                    partition,
                    base_offset: topics.next_offset(topic, partition),
                    rows: draft.rows as u32,
                    schema_id: self.open.encoders[&topic][encoder].id,
                    schema_version,
                    kind,
                    watermark: topics.watermark(topic),
                    event_time: topics.event_time_with(topic, partition, draft.event_time),
                    position: draft.position,
                    ranges: ranges.clone(),
                    writes: draft.writes,
                };
                topics.appended(&header, Stamp { commit: self.commit, ingest_time: self.ingest_time });
                header
            };
            let mut encoders = std::mem::take(&mut self.open.encoders);
            let batch_encoder = &mut encoders.get_mut(&topic).expect("it was found above")[encoder].encoder;
            let mut encoded = Ok(());
            let (base_offset, watermark) = (header.base_offset, header.watermark);
            let (event_time, position) = (header.event_time, header.position.clone());
            let (prelude, payload_at) =
                self.item(Body::Frame(header), |out| encoded = batch_encoder.encode(&batch, out));
            self.open.encoders = encoders;
            encoded.map_err(failed)?;
            self.frames.push(FrameRef {
                commit: self.commit,
                topic,
                partition,
                base_offset,
                rows: draft.rows as u32,
                watermark,
                ingest_time: self.ingest_time,
                kind,
                schema_version,
                schema: Arc::clone(&schema),
                ranges,
                place: Place::Journal(JournalPlace {
                    file: Arc::clone(&self.open.file),
                    at: self.open.len + payload_at as u64,
                    bytes: prelude.payload_bytes,
                    crc: prelude.payload_crc,
                }),
            });
            frames.push(CommittedFrame {
                topic,
                partition,
                base_offset,
                watermark,
                event_time,
                ingest_time: self.ingest_time,
                kind,
                schema_version,
                position,
                batch,
            });
        }
        Ok(())
    }

    /// The place of the encoder for a topic's schema; the first use in a file writes the schema.
    fn encoder(&mut self, topic: RelationId, schema: &SchemaRef) -> Result<usize, ArrowError> {
        let known = self.open.encoders.get(&topic).and_then(|encoders| {
            encoders.iter().position(|e| Arc::ptr_eq(&e.schema, schema) || e.schema == *schema)
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let (encoder, message) = BatchEncoder::new(schema)?;
        let id = self.open.next_schema;
        self.open.next_schema += 1;
        self.item(Body::Schema { id, topic }, |out| out.extend_from_slice(&message));
        self.open.file.add_schema(id, Arc::clone(schema));
        let encoders = self.open.encoders.entry(topic).or_default();
        encoders.push(TopicEncoder { schema: Arc::clone(schema), id, encoder });
        Ok(encoders.len() - 1)
    }
}
