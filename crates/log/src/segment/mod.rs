//! Segments: what becomes of journal files.
//!
//! A journal file that is full, and that a checkpoint covers, is cut: the rows of each partition go into one Parquet file, a
//! *segment*; the commit groups with their records and watermarks into a *spine*. Both are synced and read back, then a new
//! *manifest* names them, then the journal file is removed. Segments never change. The same file is what a lake sees: it is
//! uploaded under `topics/<topic>/p=<partition>/`, and the local copy may leave.
//!
//! ```text
//! <journal>/segments/manifest-<n>.json                     what there is, and the state of the log behind it
//! <journal>/segments/<first commit>-<last commit>.spine    one per journal file that was cut
//! <journal>/segments/<topic>-<partition>-<first>-<last>.parquet
//! ```
//!
//! A segment holds the columns of its rows, then `_partition`, `_offset`, `_commit`, `_ingest_time` and `_watermark`; its
//! tail (module [`tail`]) holds the headers of its frames, so that a replay from segments is equal to one from the journal,
//! frame by frame. Every byte is under a checksum that the manifest vouches for.
//!
//! All of this is done by one thread (module [`worker`]) that appends never wait for. A crash leaves either the journal file
//! or a manifest that replaces it; files that no manifest names are removed. Memory holds the frames of journal files and one
//! entry per segment; frames of segments are read when somebody asks for them.

mod compact;
mod cut;
pub(crate) mod hostile;
mod manifest;
mod policy;
mod reader;
mod remote;
mod rows;
mod spine;
mod store;
mod stored;
pub(crate) mod survey;
mod tail;
mod upload;
pub(crate) mod worker;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use millpond_env::DiskFile;
use millpond_types::{Commit, RelationId};
use parking_lot::Mutex;

pub(crate) use manifest::{CutEntry, Manifest, SegmentEntry, Trimmed};
pub use policy::TopicPolicy;
pub(crate) use reader::SealedReader;
pub(crate) use remote::Remote;
pub(crate) use store::Store;
pub use survey::{SegmentSurvey, SpineSurvey};
pub(crate) use tail::Tail;

use crate::{FrameRef, LogError};

/// Small: the first level halves the size, and the next ones cost more than they save.
const ZSTD_LEVEL: i32 = 1;

/// A segment, and what of it is open.
pub(crate) struct Segment {
    pub entry: SegmentEntry,
    path: PathBuf,
    handle: Mutex<Option<Weak<dyn DiskFile>>>,
    tail: Mutex<Weak<Tail>>,
    /// Shared by all values that stand for the same file, one after the other, as it is uploaded and leaves this disk: as
    /// many are alive as there are holders of this.
    values: Arc<()>,
}

/// What readers see of a manifest.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub manifest: Arc<Manifest>,
    pub through: Commit,
    pub cuts: Vec<Arc<CutEntry>>,
    /// In the order of partitions and commits.
    pub topics: BTreeMap<RelationId, Vec<Arc<Segment>>>,
    pub trimmed: Vec<Trimmed>,
}

/// Rows of a frame in a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPlace {
    pub segment: Arc<Segment>,
    pub tail: Arc<Tail>,
    pub first_row: u64,
}

impl Segment {
    fn new(store: &Store, entry: SegmentEntry) -> Self {
        Self::of(store, entry, Arc::default())
    }

    fn of(store: &Store, entry: SegmentEntry, values: Arc<()>) -> Self {
        let path = store.path(entry.local_name());
        Self { entry, path, handle: Mutex::default(), tail: Mutex::default(), values }
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> LogError {
        LogError::Corrupt { file: self.path.clone(), offset, what: what.into() }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({})", self.path.display())
    }
}

impl Sealed {
    /// What a manifest names; values of `before` that did not change are kept, with what they have open.
    fn new(store: &Store, manifest: &Manifest, before: &Self) -> Self {
        let mut topics: BTreeMap<_, Vec<Arc<Segment>>> = BTreeMap::new();
        for entry in &manifest.segments {
            let segment = match before.segment(entry) {
                Some(same) if same.entry == *entry => Arc::clone(same),
                Some(known) => Arc::new(Segment::of(store, entry.clone(), Arc::clone(&known.values))),
                None => Arc::new(Segment::new(store, entry.clone())),
            };
            topics.entry(entry.topic).or_default().push(segment);
        }
        let cuts = manifest.cuts.iter().map(|cut| Arc::new(cut.clone())).collect();
        let manifest = Arc::new(manifest.clone());
        Self { through: manifest.through, cuts, topics, trimmed: manifest.trimmed.clone(), manifest }
    }

    /// What stands for the same file.
    pub fn segment(&self, entry: &SegmentEntry) -> Option<&Arc<Segment>> {
        self.topics.get(&entry.topic)?.iter().find(|segment| segment.entry.key() == entry.key())
    }

    /// Segments of a topic that may have frames after `from`, up to and including `to`.
    pub fn overlapping(&self, topic: RelationId, from: Commit, to: Commit) -> Vec<Arc<Segment>> {
        let all = self.topics.get(&topic).map_or(&[][..], Vec::as_slice);
        all.iter().filter(|s| s.entry.first <= to && s.entry.last > from).cloned().collect()
    }

    /// The cut that a commit lies in, or the next one.
    pub fn cut(&self, commit: Commit) -> Option<&Arc<CutEntry>> {
        self.cuts.get(self.cuts.partition_point(|cut| cut.last < commit))
    }

    /// Frames, rows and bytes of all segments.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.topics.values().flatten().fold((0, 0, 0), |(frames, rows, bytes), segment| {
            let entry = &segment.entry;
            (frames + entry.frames, rows + entry.rows, bytes + entry.bytes)
        })
    }
}

/// Frames of some segments, in the order of the log.
pub(crate) fn frames(
    store: &Store,
    segments: &[Arc<Segment>],
    from: Commit,
    to: Commit,
) -> Result<Vec<FrameRef>, LogError> {
    let mut frames = Vec::new();
    for segment in segments {
        let tail = store.tail(segment)?;
        frames.extend(
            tail.frames_between(from, to).map(|at| (tail.frames[at].ordinal, frame_ref(segment, &tail, at))),
        );
    }
    if segments.len() > 1 {
        frames.sort_by_key(|(ordinal, frame)| (frame.commit, *ordinal));
    }
    Ok(frames.into_iter().map(|(_, frame)| frame).collect())
}

fn frame_ref(segment: &Arc<Segment>, tail: &Arc<Tail>, at: usize) -> FrameRef {
    let frame = &tail.frames[at];
    let header = &frame.header;
    FrameRef {
        commit: frame.commit,
        topic: header.topic,
        partition: header.partition,
        base_offset: header.base_offset,
        rows: header.rows,
        watermark: header.watermark,
        ingest_time: frame.ingest_time,
        kind: header.kind,
        schema_version: header.schema_version,
        schema: Arc::clone(&tail.schema),
        ranges: header.ranges.clone(),
        place: crate::index::Place::Segment(SegmentPlace {
            segment: Arc::clone(segment),
            tail: Arc::clone(tail),
            first_row: frame.first_row,
        }),
    }
}
