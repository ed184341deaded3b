//! What segments hold, for a survey of a log that no server uses; and giving up those that are damaged.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};
use tracing::warn;

use super::manifest::{self, CutEntry, Manifest};
use super::spine::Spine;
use super::{Sealed, Segment, Store, Tail};
use crate::survey::{SeenBody, SeenGroup, SeenItem, SeenPlace, seen_frame};
use crate::topic::Topics;
use crate::{LogError, Record};

/// A Parquet file with rows of one partition.
#[derive(Debug)]
pub struct SegmentSurvey {
    pub path: PathBuf,
    pub topic: RelationId,
    pub partition: PartitionId,
    pub commits: RangeInclusive<u64>,
    pub offsets: Range<Offset>,
    pub rows: u64,
    pub frames: u64,
    pub bytes: u64,
    /// There is a copy on this disk.
    pub local: bool,
    pub uploaded: bool,
    /// Rows that were superseded are left out.
    pub compacted: bool,
    /// Of the local copy.
    pub damage: Option<String>,
}

/// The commit groups of a journal file that was cut.
#[derive(Debug)]
pub struct SpineSurvey {
    pub path: PathBuf,
    pub commits: RangeInclusive<u64>,
    pub groups: u64,
    pub bytes: u64,
    pub uploaded: bool,
    pub damage: Option<String>,
}

/// Everything that is in segments.
#[derive(Debug, Default)]
pub(crate) struct SegmentsSurvey {
    pub spines: Vec<SpineSurvey>,
    pub segments: Vec<SegmentSurvey>,
    pub ddl: Vec<(Commit, Bytes)>,
    pub watermarks: BTreeMap<RelationId, EventTime>,
}

/// The newest manifest and its number; empty where nothing was cut.
pub(crate) fn newest(store: &Store) -> Result<(u64, Manifest), LogError> {
    manifest::read_newest(store).map(Option::unwrap_or_default)
}

/// Looks at every segment; with `payloads` reads every byte that is here.
pub(crate) fn survey(
    store: &Store,
    manifest: &Manifest,
    payloads: bool,
    visit: &mut dyn FnMut(&SeenGroup<'_>),
) -> Result<SegmentsSurvey, LogError> {
    let mut found = SegmentsSurvey::default();
    let sealed = Sealed::new(store, manifest, &Sealed::default());
    let topics = Topics::load(&manifest.topics);
    let mut tails: Vec<(Arc<Segment>, Arc<Tail>)> = Vec::new();
    for segment in sealed.topics.values().flatten() {
        let entry = &segment.entry;
        let read = if entry.local { check(store, segment, payloads).map(Some) } else { Ok(None) };
        let damage = match read {
            Ok(tail) => {
                tails.extend(tail.map(|tail| (Arc::clone(segment), tail)));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(watermark) = topics.watermark(entry.topic) {
            found.watermarks.insert(entry.topic, watermark);
        }
        found.segments.push(SegmentSurvey {
            path: segment.path.clone(),
            topic: entry.topic,
            partition: entry.partition,
            commits: entry.first.0..=entry.last.0,
            offsets: entry.base_offset..entry.end_offset,
            rows: entry.rows,
            frames: entry.frames,
            bytes: entry.bytes,
            local: entry.local,
            uploaded: entry.uploaded,
            compacted: entry.compacted,
            damage,
        });
    }
    for cut in &manifest.cuts {
        let mut spine = SpineSurvey {
            path: store.path(cut.local_name()),
            commits: cut.first.0..=cut.last.0,
            groups: 0,
            bytes: cut.bytes,
            uploaded: cut.uploaded,
            damage: None,
        };
        if let Err(error) = groups(store, cut, &tails, &mut spine, &mut found.ddl, visit) {
            spine.damage = Some(error.to_string());
        }
        found.spines.push(spine);
    }
    Ok(found)
}

/// Reads the tail of a segment; and checks every byte.
fn check(store: &Store, segment: &Segment, payloads: bool) -> Result<Arc<Tail>, LogError> {
    if payloads {
        store.verify(segment, &Bytes::from(store.read_file(&segment.path)?))?;
    }
    store.tail(segment)
}

/// Shows the groups of one cut, with those of their frames that are here.
fn groups(
    store: &Store,
    cut: &CutEntry,
    tails: &[(Arc<Segment>, Arc<Tail>)],
    spine: &mut SpineSurvey,
    ddl: &mut Vec<(Commit, Bytes)>,
    visit: &mut dyn FnMut(&SeenGroup<'_>),
) -> Result<(), LogError> {
    let bytes = store.spine(cut)?;
    let corrupt = |what| LogError::Corrupt { file: spine.path.clone(), offset: 0, what };
    let before = Commit(cut.first.0.saturating_sub(1));
    let mut frames: Vec<_> = tails
        .iter()
        .flat_map(|(segment, tail)| {
            tail.frames_between(before, cut.last).map(move |at| (segment, &tail.frames[at]))
        })
        .collect();
    frames.sort_by_key(|(_, frame)| (frame.commit, frame.ordinal));
    let mut frames = frames.into_iter().peekable();
    let mut count = 0;
    for group in Spine::decode(&bytes).map_err(corrupt)? {
        let group = group.map_err(corrupt)?;
        count += 1;
        let mut items = Vec::new();
        while let Some((segment, frame)) = frames.next_if(|(_, frame)| frame.commit <= group.commit) {
            let place = SeenPlace::Segment { file: segment.path.clone(), first_row: frame.first_row };
            items.push(SeenItem { place, what: seen_frame(&frame.header) });
        }
        for record in group.records {
            if let Record::Ddl(bytes) = &record {
                ddl.push((group.commit, bytes.clone()));
            }
            items.push(SeenItem { place: SeenPlace::Spine, what: SeenBody::Record(record) });
        }
        visit(&SeenGroup {
            file: &spine.path,
            commit: group.commit,
            ingest_time: group.ingest_time,
            bytes: None,
            items,
            watermarks: &group.watermarks,
        });
    }
    spine.groups = count;
    Ok(())
}

/// Gives up local copies that are damaged: of what is uploaded the other copy counts from now on, the rows of others are left
/// out. Files are renamed, none is deleted.
///
/// # Errors
/// What the disk says; [`LogError::Corrupt`] for the only copy of a spine, which says in what order everything came.
pub(crate) fn repair(
    store: &Store,
    number: u64,
    manifest: &Manifest,
    found: &SegmentsSurvey,
) -> Result<(), LogError> {
    let damaged = |path: &Path| path.with_extension("damaged");
    if let Some(spine) = found.spines.iter().find(|spine| spine.damage.is_some() && !spine.uploaded) {
        let what = "it says in what order commits came, which no repair can mend".to_owned();
        return Err(LogError::Corrupt { file: spine.path.clone(), offset: 0, what });
    }
    let mut moved: Vec<&Path> = Vec::new();
    let mut left = manifest.clone();
    for segment in found.segments.iter().filter(|segment| segment.damage.is_some()) {
        moved.push(&segment.path);
        let is_it = |name: String| store.path(name) == segment.path;
        match segment.uploaded {
            true => left.segments.iter_mut().filter(|s| is_it(s.local_name())).for_each(|s| s.local = false),
            false => left.segments.retain(|s| !is_it(s.local_name())),
        }
    }
    if left != *manifest {
        manifest::write(store, number + 1, &left)?;
    }
    moved.extend(found.spines.iter().filter(|spine| spine.damage.is_some()).map(|spine| &*spine.path));
    for path in moved {
        match store.rename(path, &damaged(path)) {
            Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        warn!(file = %path.display(), "a damaged file was put aside");
    }
    store.sync_dir()
}
