//! Where everything lies: journal files with each of their frames, in memory, and segments.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use millpond_env::{Disk, DiskFile, Open};
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};
use parking_lot::{Mutex, RwLock};

use crate::format::{COMMITS_END, Skip, decode_skips};
use crate::payload::decode_batch;
use crate::segment::{Sealed, SegmentPlace};
use crate::{ColumnRange, LogError, PartitionStorage, WriteKind};

/// At most one mark per so many bytes: how far a replay may have to skip.
const MARK_BYTES: u64 = 64 << 10;

/// One file of the journal.
pub(crate) struct JournalFile {
    pub path: PathBuf,
    /// Of its first group. A file may leave out commits after the one before it: those that a failed sync has lost.
    pub first: Commit,
    /// How much of it is written, in whole groups.
    written: AtomicU64,
    /// How much of that is durable.
    synced: AtomicU64,
    schemas: RwLock<HashMap<u32, SchemaRef>>,
    /// What a repair has given up.
    skips: OnceLock<Arc<[Skip]>>,
    /// Open as long as somebody reads it.
    handle: Mutex<Option<Weak<dyn DiskFile>>>,
}

impl JournalFile {
    pub fn new(dir: &Path, first: Commit, written: u64) -> Self {
        Self {
            path: dir.join(format!("{:020}.log", first.0)),
            first,
            written: AtomicU64::new(written),
            synced: AtomicU64::new(0),
            schemas: RwLock::default(),
            skips: OnceLock::new(),
            handle: Mutex::default(),
        }
    }

    /// The first commit, out of the name of a file; `None` if it is no journal file.
    pub fn parse_name(name: &Path) -> Option<Commit> {
        let digits = name.to_str()?.strip_suffix(".log")?;
        let wellformed = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        let number = wellformed.then(|| digits.parse().ok())??;
        (number < COMMITS_END).then_some(Commit(number))
    }

    /// Where the list of skips lies, if there is one.
    pub fn skips_path(&self) -> PathBuf {
        self.path.with_extension("skip")
    }

    pub fn skips(&self) -> Arc<[Skip]> {
        self.skips.get().cloned().unwrap_or_default()
    }

    /// Reads the list of skips, if there is one. Returns the crc of the header of the file for which it was made.
    pub fn read_skips(&self, disk: &dyn Disk) -> Result<Option<u32>, LogError> {
        let path = self.skips_path();
        if !disk.exists(&path).map_err(|e| LogError::io("look for", &path, e))? {
            return Ok(None);
        }
        let read = || {
            let file = disk.open(&path, Open::Read)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, 0).map(|()| bytes)
        };
        let bytes = read().map_err(|e| LogError::io("read", &path, e))?;
        let (of, skips) =
            decode_skips(&bytes).map_err(|what| LogError::Corrupt { file: path.clone(), offset: 0, what })?;
        let _ = self.skips.set(skips.into());
        Ok(Some(of))
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn set_written(&self, written: u64) {
        self.written.store(written, Ordering::Release);
    }

    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Everything up to here is durable.
    pub fn set_synced(&self, synced: u64) {
        self.synced.store(synced, Ordering::Release);
    }

    pub fn schema(&self, id: u32) -> Option<SchemaRef> {
        self.schemas.read().get(&id).cloned()
    }

    pub fn add_schema(&self, id: u32, schema: SchemaRef) {
        self.schemas.write().insert(id, schema);
    }

    pub fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, LogError> {
        let mut handle = self.handle.lock();
        if let Some(open) = handle.as_ref().and_then(Weak::upgrade) {
            return Ok(open);
        }
        let opened = disk.open(&self.path, Open::Read).map_err(|e| LogError::io("open", &self.path, e))?;
        let opened: Arc<dyn DiskFile> = Arc::from(opened);
        *handle = Some(Arc::downgrade(&opened));
        Ok(opened)
    }

    pub fn corrupt(&self, offset: u64, what: impl Into<String>) -> LogError {
        LogError::Corrupt { file: self.path.clone(), offset, what: what.into() }
    }
}

impl fmt::Debug for JournalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalFile({})", self.path.display())
    }
}

/// The newest file, open for writing.
#[derive(Clone)]
pub(crate) struct Sink {
    pub journal: Arc<JournalFile>,
    pub file: Arc<dyn DiskFile>,
}

/// What a frame's header says, and where its rows lie. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FrameRef {
    pub commit: Commit,
    pub topic: RelationId,
    pub partition: PartitionId,
    /// Of the first row.
    pub base_offset: Offset,
    pub rows: u32,
    /// W of the topic before this frame.
    pub watermark: Option<EventTime>,
    pub ingest_time: EventTime,
    pub kind: WriteKind,
    pub schema_version: u32,
    /// Of the stored rows.
    pub schema: SchemaRef,
    /// The smallest and largest values of some of its columns, ascending by column; `None` where nothing is known.
    pub ranges: Option<Arc<[ColumnRange]>>,
    pub(crate) place: Place,
}

/// Where rows lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Journal(JournalPlace),
    Segment(SegmentPlace),
}

/// Where a payload lies.
#[derive(Clone, Debug)]
pub(crate) struct JournalPlace {
    pub file: Arc<JournalFile>,
    pub at: u64,
    pub bytes: u64,
    pub crc: u32,
}

impl JournalPlace {
    /// Reads the rows, of the columns `columns` or all, and checks them.
    pub fn read(
        &self,
        disk: &dyn Disk,
        schema: &SchemaRef,
        rows: u32,
        columns: Option<&[usize]>,
    ) -> Result<RecordBatch, LogError> {
        let file = self.file.open(disk)?;
        // No more than the file holds: the length was checked when the header was.
        let mut bytes = MutableBuffer::from_len_zeroed(self.bytes.next_multiple_of(8) as usize);
        file.read_exact_at(&mut bytes, self.at).map_err(|e| LogError::io("read", &self.file.path, e))?;
        if crc32c::crc32c(&bytes) != self.crc {
            return Err(self.file.corrupt(self.at, "the checksum of the payload does not match"));
        }
        let payload = Buffer::from(bytes).slice_with_length(0, self.bytes as usize);
        decode_batch(&payload, schema, rows, columns).map_err(|what| self.file.corrupt(self.at, what))
    }
}

impl FrameRef {
    #[cfg(test)]
    pub(crate) fn in_journal(&self) -> &JournalPlace {
        match &self.place {
            Place::Journal(place) => place,
            Place::Segment(_) => panic!("the frame lies in a segment"),
        }
    }

    /// The size of the stored rows; in a segment, their share of it.
    pub fn bytes(&self) -> u64 {
        match &self.place {
            Place::Journal(place) => place.bytes,
            Place::Segment(place) => {
                let entry = &place.segment.entry;
                (entry.bytes / entry.rows.max(1)).saturating_mul(u64::from(self.rows))
            }
        }
    }
}

/// Where a group begins.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub commit: Commit,
    pub file: Arc<JournalFile>,
    pub at: u64,
}

/// What lies in journal files, frame by frame, and what in segments.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Oldest first.
    pub files: VecDeque<Arc<JournalFile>>,
    marks: VecDeque<Mark>,
    frames: HashMap<RelationId, Vec<FrameRef>>,
    sealed: Arc<Sealed>,
    last: Commit,
}

impl Index {
    /// The newest group that is written.
    pub fn last(&self) -> Commit {
        self.last
    }

    /// Groups up to this one are not there any more.
    pub fn leave_out(&mut self, upto: Commit) {
        self.last = self.last.max(upto);
    }

    /// An index of what segments hold, for journal files to follow.
    pub fn behind(sealed: Arc<Sealed>) -> Self {
        Self { last: sealed.through, sealed, ..Self::default() }
    }

    pub fn sealed(&self) -> &Arc<Sealed> {
        &self.sealed
    }

    /// Adds a group that lies in the newest file.
    pub fn add(&mut self, commit: Commit, at: u64, frames: Vec<FrameRef>) {
        let file = self.files.back().expect("a group lies in some file");
        let near = |mark: &Mark| mark.file.first == file.first && at - mark.at < MARK_BYTES;
        if !self.marks.back().is_some_and(near) {
            self.marks.push_back(Mark { commit, file: Arc::clone(file), at });
        }
        for frame in frames {
            self.frames.entry(frame.topic).or_default().push(frame);
        }
        self.last = commit;
    }

    /// The nearest place at or before a commit from where groups can be read, in a journal file; the first of all for one
    /// before it.
    pub fn mark(&self, commit: Commit) -> Option<Mark> {
        let before = self.marks.partition_point(|mark| mark.commit <= commit);
        self.marks.get(before.saturating_sub(1)).cloned()
    }

    /// The journal file behind one.
    pub fn file_after(&self, first: Commit) -> Option<&Arc<JournalFile>> {
        self.files.get(self.files.partition_point(|file| file.first <= first))
    }

    /// The oldest file, if another one follows it, and that.
    pub fn oldest(&self) -> Option<(Arc<JournalFile>, Arc<JournalFile>)> {
        Some((Arc::clone(self.files.front()?), Arc::clone(self.files.get(1)?)))
    }

    /// The first commit of the newest file, and whether it holds more than the empty commit that began it.
    pub fn newest(&self) -> Option<(Commit, bool)> {
        let first = self.files.back()?.first;
        let frames = || self.frames.values().filter_map(|frames| frames.last());
        Some((first, self.last > first || frames().any(|frame| frame.commit >= first)))
    }

    /// From now on, segments stand for what they hold of the journal files.
    pub fn seal(&mut self, sealed: Arc<Sealed>) {
        let through = sealed.through;
        self.sealed = sealed;
        while self.files.front().is_some_and(|file| file.first <= through) {
            self.files.pop_front();
        }
        while self.marks.front().is_some_and(|mark| mark.commit <= through) {
            self.marks.pop_front();
        }
        for frames in self.frames.values_mut() {
            let cut = frames.partition_point(|frame| frame.commit <= through);
            if cut > 0 {
                frames.drain(..cut);
                frames.shrink_to(2 * frames.len());
            }
        }
    }

    /// Frames of a topic that lie in journal files.
    pub fn frames(&self, topic: RelationId, from: Commit, to: Commit) -> Vec<FrameRef> {
        let frames = self.frames.get(&topic).map_or(&[][..], Vec::as_slice);
        let first = frames.partition_point(|frame| frame.commit <= from);
        let end = frames.partition_point(|frame| frame.commit <= to);
        frames.get(first..end).map_or_else(Vec::new, <[_]>::to_vec)
    }

    /// What there is of each partition; `next_offset` is left to the caller.
    pub fn storage(&self) -> BTreeMap<(RelationId, PartitionId), PartitionStorage> {
        let empty = |topic, partition| PartitionStorage {
            topic,
            partition,
            earliest_offset: Offset(u64::MAX),
            next_offset: Offset(0),
            rows: 0,
            frames: 0,
            trimmed_through: None,
            journal_bytes: 0,
            segments: 0,
            segment_bytes: 0,
            local_bytes: 0,
            uploaded_bytes: 0,
            held_by: None,
        };
        let mut all = BTreeMap::new();
        for segment in self.sealed.topics.values().flatten() {
            let entry = &segment.entry;
            let key = (entry.topic, entry.partition);
            let status = all.entry(key).or_insert_with(|| empty(key.0, key.1));
            status.earliest_offset = status.earliest_offset.min(entry.base_offset);
            status.rows += entry.rows;
            status.frames += entry.frames;
            status.segments += 1;
            status.segment_bytes += entry.bytes;
            status.local_bytes += if entry.local { entry.bytes } else { 0 };
            status.uploaded_bytes += if entry.uploaded { entry.bytes } else { 0 };
        }
        let newest = self.files.back().map_or(Commit(0), |file| file.first);
        for frame in self.frames.values().flatten() {
            let key = (frame.topic, frame.partition);
            let status = all.entry(key).or_insert_with(|| empty(key.0, key.1));
            status.earliest_offset = status.earliest_offset.min(frame.base_offset);
            status.rows += u64::from(frame.rows);
            status.frames += 1;
            status.journal_bytes += frame.bytes();
            if frame.commit < newest {
                status.held_by = Some("the next checkpoint");
            }
        }
        for trimmed in &self.sealed.trimmed {
            let key = (trimmed.topic, trimmed.partition);
            let status = all.entry(key).or_insert_with(|| empty(key.0, key.1));
            status.trimmed_through = Some(trimmed.through);
        }
        all
    }

    #[cfg(test)]
    pub fn frame_count(&self) -> usize {
        self.frames.values().map(Vec::len).sum()
    }

    /// Frames, rows and payload bytes of all topics.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.frames.values().flatten().fold(self.sealed.totals(), |(frames, rows, bytes), frame| {
            (frames + 1, rows + u64::from(frame.rows), bytes + frame.bytes())
        })
    }

    /// A schema equal to this one that the topic's newest frame has, so that equal schemas are kept once.
    pub fn shared_schema(&self, topic: RelationId, schema: SchemaRef) -> SchemaRef {
        match self.frames.get(&topic).and_then(|frames| frames.last()) {
            Some(frame) if *frame.schema == *schema => Arc::clone(&frame.schema),
            _ => schema,
        }
    }
}
