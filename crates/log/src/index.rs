//! Where everything lies: the files, and every frame of every topic, in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arrow::datatypes::SchemaRef;
use millpond_env::{Disk, DiskFile, Open};
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};
use parking_lot::{Mutex, RwLock};

use crate::format::{COMMITS_END, Skip, decode_skips};
use crate::{ColumnRange, LogError, WriteKind};

/// At most one mark per so many bytes: how far a replay may have to skip.
const MARK_BYTES: u64 = 64 << 10;

/// One file of the journal.
pub(crate) struct JournalFile {
    pub path: PathBuf,
    /// Of its first group. A file may leave out commits after the one before it: those that a failed sync has lost.
    pub first: Commit,
    /// How much of it is written, in whole groups.
    written: AtomicU64,
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

/// What is stored of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSize {
    /// Of the oldest row that is there.
    pub first_offset: Offset,
    pub frames: u64,
    pub rows: u64,
    /// Of payloads.
    pub bytes: u64,
}

/// Where a payload lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub file: Arc<JournalFile>,
    pub at: u64,
    pub bytes: u64,
    pub crc: u32,
}

impl FrameRef {
    /// The size of the stored rows.
    pub fn bytes(&self) -> u64 {
        self.place.bytes
    }
}

/// Where a group begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub commit: Commit,
    pub file: usize,
    pub at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub files: Vec<Arc<JournalFile>>,
    marks: Vec<Mark>,
    frames: HashMap<RelationId, Vec<FrameRef>>,
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

    /// Adds a group that lies in the newest file.
    pub fn add(&mut self, commit: Commit, at: u64, frames: Vec<FrameRef>) {
        let file = self.files.len() - 1;
        if self.marks.last().is_none_or(|mark| mark.file != file || at - mark.at >= MARK_BYTES) {
            self.marks.push(Mark { commit, file, at });
        }
        for frame in frames {
            self.frames.entry(frame.topic).or_default().push(frame);
        }
        self.last = commit;
    }

    /// The nearest place at or before a commit from where groups can be read; the first of all for one before it.
    pub fn mark(&self, commit: Commit) -> Option<Mark> {
        let before = &self.marks[..self.marks.partition_point(|mark| mark.commit <= commit)];
        before.last().or(self.marks.first()).copied()
    }

    pub fn frames(&self, topic: RelationId, from: Commit, to: Commit) -> Vec<FrameRef> {
        let frames = self.frames.get(&topic).map_or(&[][..], Vec::as_slice);
        let first = frames.partition_point(|frame| frame.commit <= from);
        let end = frames.partition_point(|frame| frame.commit <= to);
        frames.get(first..end).map_or_else(Vec::new, <[_]>::to_vec)
    }

    /// What each partition of a topic has stored.
    pub fn sizes(&self, topic: RelationId) -> BTreeMap<PartitionId, PartitionSize> {
        let mut sizes: BTreeMap<PartitionId, PartitionSize> = BTreeMap::new();
        for frame in self.frames.get(&topic).into_iter().flatten() {
            let empty = PartitionSize { first_offset: frame.base_offset, frames: 0, rows: 0, bytes: 0 };
            let size = sizes.entry(frame.partition).or_insert(empty);
            size.frames += 1;
            size.rows += u64::from(frame.rows);
            size.bytes += frame.place.bytes;
        }
        sizes
    }

    /// Frames, rows and payload bytes of all topics.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.frames.values().flatten().fold((0, 0, 0), |(frames, rows, bytes), frame| {
            (frames + 1, rows + u64::from(frame.rows), bytes + frame.place.bytes)
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
