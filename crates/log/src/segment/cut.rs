//! Cutting a journal file into segments and a spine.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};

use super::manifest::{CutEntry, Manifest, SegmentEntry};
use super::reader::RowCursor;
use super::spine::{SpineDraft, SpineGroup};
use super::store::Store;
use super::write::SegmentWriter;
use super::{Segment, Tail};
use crate::format::{Bad, Body, FileHeader, FrameHeader, decode_record};
use crate::index::{JournalFile, JournalPlace};
use crate::scan::{ScanError, Scanner};
use crate::topic::{Stamp, Topics};
use crate::{LogError, Record};

/// Frames that will share a segment.
struct Plan {
    schema: SchemaRef,
    entry: SegmentEntry,
    frames: Vec<PlannedFrame>,
}

struct PlannedFrame {
    commit: Commit,
    ordinal: u64,
    ingest_time: EventTime,
    header: FrameHeader,
    place: JournalPlace,
}

/// What a journal file holds, without rows.
struct Contents {
    plans: Vec<Plan>,
    spine: SpineDraft,
    topics: Topics,
    ingest_time: Option<EventTime>,
    last_tick: Option<EventTime>,
    last: Commit,
    /// The crc of the last header, which the file behind continues.
    chain: u32,
}

/// Makes segments and a spine of a journal file, and returns the manifest that has them. All files are durable, and read back;
/// nothing names them yet.
///
/// `next` is the file behind it. `stop` is asked between frames; `None` is its answer.
pub(super) fn cut(
    store: &Store,
    before: &Manifest,
    file: &Arc<JournalFile>,
    next: &JournalFile,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Manifest>, LogError> {
    let contents = scan(store, before, file, next)?;
    let mut manifest = before.clone();
    store.create_dir()?;
    for plan in contents.plans {
        let Some(entry) = write(store, &plan, stop)? else { return Ok(None) };
        if !verify(store, &plan, &entry, stop)? {
            return Ok(None);
        }
        manifest.segments.push(entry);
    }
    let spine = contents.spine.encode().map_err(|e| LogError::io("pack", &file.path, e))?;
    let cut = CutEntry {
        first: file.first,
        last: contents.last,
        bytes: spine.len() as u64,
        crc32c: crc32c::crc32c(&spine),
        uploaded: false,
    };
    let path = store.path(cut.local_name());
    store.remove_if_there(&path)?;
    store.write_file(&path, &spine)?;
    store.sync_dir()?;
    manifest.cuts.push(cut);
    manifest.through = contents.last;
    manifest.chain = contents.chain;
    manifest.ingest_time = contents.ingest_time;
    manifest.last_tick = contents.last_tick;
    manifest.topics = contents.topics.save();
    manifest.sort();
    Ok(Some(manifest))
}

/// Reads the headers and records of a file.
fn scan(
    store: &Store,
    before: &Manifest,
    file: &Arc<JournalFile>,
    behind: &JournalFile,
) -> Result<Contents, LogError> {
    let handle = file.open(&*store.env.disk)?;
    let mut scanner =
        Scanner::new(handle, FileHeader::BYTES as u64, file.written(), None).skipping(file.skips());
    let mut contents = Contents {
        plans: Vec::new(),
        spine: SpineDraft::default(),
        topics: Topics::load(&before.topics),
        ingest_time: before.ingest_time,
        last_tick: before.last_tick,
        last: before.through,
        chain: before.chain,
    };
    if !file.skips().is_empty() {
        contents.topics.allow_gaps();
    }
    let mut known: BTreeMap<(RelationId, PartitionId, u32), usize> = BTreeMap::new();
    let failed = |error: ScanError| match error {
        ScanError::Bad { offset, what } => file.corrupt(offset, what),
        ScanError::Io(source) => LogError::io("read", &file.path, source),
    };
    let mut next = file.first;
    while let Some(group) = scanner.next_group(next).map_err(failed)? {
        let commit = group.commit;
        let mut records = Vec::new();
        let mut ordinal = 0;
        for item in &group.items {
            let corrupt = |what: Bad| file.corrupt(item.at, what);
            match &item.header.body {
                Body::Frame(header) => {
                    let stamp = Stamp { commit, ingest_time: group.ingest_time };
                    contents.topics.recovered(header, stamp).map_err(corrupt)?;
                    let prelude = &item.header.prelude;
                    let place = JournalPlace {
                        file: Arc::clone(file),
                        at: item.payload_at,
                        bytes: prelude.payload_bytes,
                        crc: prelude.payload_crc,
                    };
                    let frame = PlannedFrame {
                        commit,
                        ordinal,
                        ingest_time: group.ingest_time,
                        header: header.clone(),
                        place,
                    };
                    ordinal += 1;
                    let key = (header.topic, header.partition, header.schema_id);
                    let plan = match known.get(&key) {
                        Some(plan) => *plan,
                        None => {
                            let schema = file.schema(header.schema_id);
                            let schema = schema.ok_or_else(|| corrupt("its schema is missing".into()))?;
                            let plan = contents.plan(&frame, schema);
                            known.insert(key, plan);
                            plan
                        }
                    };
                    contents.plans[plan].add(frame);
                }
                Body::Record { tag } => {
                    let payload = scanner.payload(item).map_err(failed)?;
                    let record = decode_record(*tag, &payload).map_err(corrupt)?;
                    contents.topics.record(&record);
                    if let Record::Tick(now) = record {
                        contents.last_tick = Some(now);
                    }
                    records.push(record);
                }
                Body::Schema { .. } | Body::Commit(_) | Body::Seal => {}
            }
        }
        for (topic, watermark) in &group.watermarks {
            contents.topics.raise(*topic, *watermark);
        }
        contents.ingest_time = contents.ingest_time.max(Some(group.ingest_time));
        let (ingest_time, watermarks) = (group.ingest_time, group.watermarks);
        contents.spine.group(SpineGroup { commit, ingest_time, records, watermarks });
        contents.last = commit;
        next = commit.next();
    }
    if !file.skips().is_empty() {
        // A repair may have given up the end of the file, or all of it.
        contents.last = Commit(behind.first.0 - 1);
    }
    if contents.last < file.first {
        return Err(file.corrupt(FileHeader::BYTES as u64, "the file holds no group"));
    }
    contents.chain = scanner.previous().unwrap_or(before.chain);
    contents.number();
    Ok(contents)
}

impl Contents {
    /// The plan for a frame whose schema item is new: a file repeats the schemas of a topic after each start.
    fn plan(&mut self, frame: &PlannedFrame, schema: SchemaRef) -> usize {
        let header = &frame.header;
        let same = self.plans.iter().position(|plan| {
            let entry = &plan.entry;
            (entry.topic, entry.partition) == (header.topic, header.partition)
                && (entry.schema_version, entry.kind) == (header.schema_version, header.kind)
                && (Arc::ptr_eq(&plan.schema, &schema) || plan.schema == schema)
        });
        same.unwrap_or_else(|| {
            let entry = SegmentEntry {
                topic: header.topic,
                partition: header.partition,
                first: frame.commit,
                last: frame.commit,
                number: 0,
                schema_version: header.schema_version,
                kind: header.kind,
                base_offset: header.base_offset,
                end_offset: header.base_offset,
                rows: 0,
                frames: 0,
                first_time: frame.ingest_time,
                last_time: frame.ingest_time,
                bytes: 0,
                tail_at: 0,
                tail_crc32c: 0,
                compacted: false,
                uploaded: false,
                local: true,
            };
            self.plans.push(Plan { schema, entry, frames: Vec::new() });
            self.plans.len() - 1
        })
    }

    /// Gives segments of the same commits different names.
    fn number(&mut self) {
        let mut seen: BTreeMap<_, u32> = BTreeMap::new();
        for plan in &mut self.plans {
            let entry = &mut plan.entry;
            let times = seen.entry((entry.topic, entry.partition, entry.first, entry.last)).or_default();
            entry.number = *times;
            *times += 1;
        }
    }
}

impl Plan {
    fn add(&mut self, frame: PlannedFrame) {
        let end = frame.header.base_offset.0 + u64::from(frame.header.rows);
        self.entry.last = frame.commit;
        self.entry.last_time = frame.ingest_time;
        self.entry.end_offset = Offset(end).max(self.entry.end_offset);
        self.frames.push(frame);
    }

    fn batch(&self, store: &Store, frame: &PlannedFrame) -> Result<RecordBatch, LogError> {
        frame.place.read(&*store.env.disk, &self.schema, frame.header.rows, None)
    }
}

fn write(store: &Store, plan: &Plan, stop: &dyn Fn() -> bool) -> Result<Option<SegmentEntry>, LogError> {
    let mut writer = SegmentWriter::create(store, plan.entry.clone(), &plan.schema)?;
    for frame in &plan.frames {
        if stop() {
            return Ok(None);
        }
        let batch = plan.batch(store, frame)?;
        writer.frame((frame.commit, frame.ordinal, frame.ingest_time), &frame.header, &batch, None)?;
    }
    writer.finish().map(Some)
}

/// Reads a segment back and compares it with the journal, frame by frame: only then may the journal go.
fn verify(
    store: &Store,
    plan: &Plan,
    entry: &SegmentEntry,
    stop: &dyn Fn() -> bool,
) -> Result<bool, LogError> {
    let segment = Segment::new(store, entry.clone());
    let tail: Arc<Tail> = store.tail(&segment)?;
    let mut cursor = RowCursor::default();
    let differs = |commit| {
        segment
            .corrupt(0, format!("the segment does not hold the rows of commit {commit}; the journal is kept"))
    };
    if tail.frames.len() != plan.frames.len() {
        return Err(differs(entry.first));
    }
    for (sealed, planned) in tail.frames.iter().zip(&plan.frames) {
        if stop() {
            return Ok(false);
        }
        let header = FrameHeader { writes: Vec::new(), ..planned.header.clone() };
        let same = (sealed.commit, sealed.ordinal, sealed.ingest_time, &sealed.header)
            == (planned.commit, planned.ordinal, planned.ingest_time, &header);
        let rows = cursor.rows(store, &segment, &tail, sealed.first_row, header.rows as usize)?;
        if !same || rows != plan.batch(store, planned)? {
            return Err(differs(planned.commit));
        }
    }
    Ok(true)
}
