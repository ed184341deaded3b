//! Groups out of segments and spines, as a replay has them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use millpond_types::Commit;

use super::rows::assemble;
use super::spine::Spine;
use super::{CutEntry, Sealed, Segment, Store, Tail};
use crate::{CommittedFrame, CommittedGroup, LogError};

/// Reads the rows of a segment from the front to the back, one row group at a time.
#[derive(Default)]
pub(super) struct RowCursor {
    group: Option<(usize, Vec<ArrayRef>)>,
}

impl RowCursor {
    pub fn rows(
        &mut self,
        store: &Store,
        segment: &Segment,
        tail: &Tail,
        first: u64,
        rows: usize,
    ) -> Result<RecordBatch, LogError> {
        let all: Vec<usize> = (0..tail.schema.fields().len()).collect();
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); all.len()];
        for (group, within) in tail.groups_of(first, rows) {
            if self.group.as_ref().is_none_or(|(current, _)| *current != group) {
                self.group = None;
                self.group = Some((group, store.decode(segment, tail, group, &all)?));
            }
            let (_, columns) = self.group.as_ref().expect("it was just read");
            for (column, pieces) in columns.iter().zip(&mut pieces) {
                pieces.push(column.slice(within.start, within.end - within.start));
            }
        }
        assemble(&tail.schema, &all, pieces, rows)
            .map_err(|error| segment.corrupt(0, format!("its rows cannot be read: {error}")))
    }
}

/// The groups of one cut.
pub(crate) struct SealedReader {
    spine: Spine,
    cut: Arc<CutEntry>,
    sources: Vec<Source>,
    /// The next frame of each source: commit, place in its group, which source.
    next: BinaryHeap<Reverse<(Commit, u64, usize)>>,
}

struct Source {
    segment: Arc<Segment>,
    tail: Arc<Tail>,
    /// The next frame.
    at: usize,
    cursor: RowCursor,
}

impl Source {
    fn key(&self, number: usize) -> Option<Reverse<(Commit, u64, usize)>> {
        self.tail.frames.get(self.at).map(|frame| Reverse((frame.commit, frame.ordinal, number)))
    }

    fn read(&mut self, store: &Store) -> Result<CommittedFrame, LogError> {
        let frame = &self.tail.frames[self.at];
        let header = &frame.header;
        let batch =
            self.cursor.rows(store, &self.segment, &self.tail, frame.first_row, header.rows as usize)?;
        self.at += 1;
        Ok(CommittedFrame {
            topic: header.topic,
            partition: header.partition,
            base_offset: header.base_offset,
            watermark: header.watermark,
            event_time: header.event_time,
            ingest_time: frame.ingest_time,
            kind: header.kind,
            schema_version: header.schema_version,
            position: header.position.clone(),
            batch,
        })
    }
}

impl SealedReader {
    /// The groups of `cut` from `from` on.
    pub fn open(store: &Store, sealed: &Sealed, cut: &Arc<CutEntry>, from: Commit) -> Result<Self, LogError> {
        let bytes = store.spine(cut)?;
        let spine = Spine::decode(&bytes).map_err(|what| corrupt(store, cut, what))?;
        let mut sources = Vec::new();
        let mut next = BinaryHeap::new();
        let before = Commit(from.0.saturating_sub(1));
        for segment in sealed.topics.values().flatten() {
            if segment.entry.last < from || segment.entry.first > cut.last {
                continue;
            }
            let tail = store.tail(segment)?;
            let at = tail.frames.partition_point(|frame| frame.commit <= before);
            let source = Source { segment: Arc::clone(segment), tail, at, cursor: RowCursor::default() };
            next.extend(source.key(sources.len()));
            sources.push(source);
        }
        Ok(Self { spine, cut: Arc::clone(cut), sources, next })
    }

    /// The newest group of the cut.
    pub fn last(&self) -> Commit {
        self.cut.last
    }

    /// The next group, from `from` on; `None` at the end of the cut.
    pub fn read(&mut self, store: &Store, from: Commit) -> Result<Option<CommittedGroup>, LogError> {
        loop {
            let Some(group) = self.spine.next() else { return Ok(None) };
            let group = group.map_err(|what| corrupt(store, &self.cut, what))?;
            if group.commit < from {
                continue;
            }
            let mut frames = Vec::new();
            while let Some(Reverse((commit, _, number))) = self.next.peek().copied() {
                if commit > group.commit {
                    break;
                }
                self.next.pop();
                let source = &mut self.sources[number];
                if commit < group.commit {
                    return Err(source
                        .segment
                        .corrupt(0, format!("no group has its frames of commit {commit}")));
                }
                frames.push(source.read(store)?);
                let key = source.key(number);
                self.next.extend(key);
            }
            return Ok(Some(CommittedGroup {
                commit: group.commit,
                ingest_time: group.ingest_time,
                frames,
                records: group.records,
                watermarks: group.watermarks,
            }));
        }
    }
}

fn corrupt(store: &Store, cut: &CutEntry, what: String) -> LogError {
    LogError::Corrupt { file: store.path(cut.local_name()), offset: 0, what }
}
