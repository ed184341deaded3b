//! Compaction of changelogs: of each key the newest row stays.
//!
//! Rows that a later row of their key supersedes leave; the others stay in the segment of their own commits, which is written
//! anew under another number. A deletion stays as long as an older row of its key is in any file that was there before: a
//! lake that lists the folder while files are exchanged may see a row twice, and finds the newest of each key all the same.
//! So a deletion leaves in the compaction after the one in which its key's older rows have left.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Int8Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millpond_types::{Offset, RelationId};

use super::manifest::{Manifest, SegmentEntry};
use super::store::Store;
use super::write::{OFFSET, SegmentWriter};
use super::{Sealed, Segment, Tail};
use crate::format::{FrameHeader, WriteEntry};
use crate::{LogError, WriteKind};

/// The column that says what a row of a changelog is.
const OP: &str = "_op";
const DELETED: i8 = 1;
/// Compaction waits for so many new segments, and for as many new rows as it left the last time: each row is rewritten a
/// number of times that grows with the logarithm of the topic's size.
const NEW_SEGMENTS_MIN: usize = 4;
/// A segment is left as it is while fewer of its rows than one in so many would leave.
const LEAVING_SHARE: u64 = 8;

/// Segments of a topic, in the order of the log, and the names of the columns of its key.
pub(super) struct Job<'a> {
    topic: RelationId,
    key: &'a [String],
    segments: Vec<(Arc<Segment>, Arc<Tail>)>,
}

/// Which rows of each segment stay.
struct Verdict {
    stay: Vec<Vec<bool>>,
}

impl<'a> Job<'a> {
    /// What is worth compacting of a topic, if anything is.
    pub fn plan(
        store: &Store,
        sealed: &Sealed,
        topic: RelationId,
        key: &'a [String],
    ) -> Result<Option<Self>, LogError> {
        let Some(all) = sealed.topics.get(&topic) else { return Ok(None) };
        let changelog = all.iter().all(|s| s.entry.kind == WriteKind::Upsert);
        let (old, new): (Vec<_>, Vec<_>) = all.iter().partition(|s| s.entry.compacted);
        let rows = |segments: &[&Arc<Segment>]| segments.iter().map(|s| s.entry.rows).sum::<u64>();
        if !changelog || key.is_empty() || new.len() < NEW_SEGMENTS_MIN || rows(&new) < rows(&old) {
            return Ok(None);
        }
        let mut segments = Vec::with_capacity(all.len());
        for segment in all {
            let tail = store.tail(segment)?;
            // After a change of the key's names older rows cannot be told apart: all stay.
            if key.iter().chain([&OP.to_owned()]).any(|name| tail.schema.index_of(name).is_err()) {
                return Ok(None);
            }
            segments.push((Arc::clone(segment), tail));
        }
        segments.sort_by_key(|(segment, _)| (segment.entry.first, segment.entry.last, segment.entry.number));
        Ok(Some(Self { topic, key, segments }))
    }

    /// The manifest in which the topic is compacted; `None` if `stop` says so. The files are durable, nothing names them yet.
    pub fn run(
        &self,
        store: &Store,
        before: &Manifest,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Manifest>, LogError> {
        let Some(verdict) = self.judge(store, stop)? else { return Ok(None) };
        let mut manifest = before.clone();
        for ((segment, tail), stay) in self.segments.iter().zip(&verdict.stay) {
            if stop() {
                return Ok(None);
            }
            let leaving = stay.iter().filter(|stays| !**stays).count() as u64;
            let place = manifest.segments.iter().position(|s| s.key() == segment.entry.key());
            let place = place.expect("readers see what the manifest has");
            if leaving * LEAVING_SHARE < segment.entry.rows || leaving == 0 {
                manifest.segments[place].compacted = true;
            } else if leaving == segment.entry.rows {
                manifest.segments.remove(place);
            } else {
                manifest.segments[place] = self.rewrite(store, before, segment, tail, stay)?;
            }
        }
        store.sync_dir()?;
        manifest.sort();
        Ok(Some(manifest))
    }

    fn failed(&self, error: ArrowError) -> LogError {
        LogError::Encode { topic: self.topic, source: Arc::new(error) }
    }

    /// Walks from the newest row to the oldest.
    fn judge(&self, store: &Store, stop: &dyn Fn() -> bool) -> Result<Option<Verdict>, LogError> {
        let mut stay: Vec<Vec<bool>> =
            self.segments.iter().map(|(segment, _)| vec![false; segment.entry.rows as usize]).collect();
        // Of each key that was seen: where it is deleted, if its newest row says so and no older row was found yet.
        let mut seen: HashMap<Box<[u8]>, Option<(usize, usize)>> = HashMap::new();
        let mut converter: Option<RowConverter> = None;
        for (number, (segment, tail)) in self.segments.iter().enumerate().rev() {
            let mut columns = Vec::with_capacity(self.key.len() + 1);
            for name in self.key.iter().map(String::as_str).chain([OP]) {
                columns.push(tail.schema.index_of(name).map_err(|e| self.failed(e))?);
            }
            for group in (0..tail.starts.len() - 1).rev() {
                if stop() {
                    return Ok(None);
                }
                let first = tail.starts[group];
                let rows = (tail.starts[group + 1] - first) as usize;
                let batch = store.rows(segment, tail, first, rows, Some(&columns))?;
                let (op, key) = batch.columns().split_last().expect("the columns that were asked for");
                let op = op.as_primitive_opt::<Int8Type>();
                let op = op.ok_or_else(|| segment.corrupt(0, "its column _op has another type"))?;
                let converter = match &mut converter {
                    Some(converter) => converter,
                    none => {
                        let fields = key.iter().map(|column| SortField::new(column.data_type().clone()));
                        none.insert(RowConverter::new(fields.collect()).map_err(|e| self.failed(e))?)
                    }
                };
                let keys = converter.convert_columns(key).map_err(|e| self.failed(e))?;
                for row in (0..rows).rev() {
                    let place = (number, first as usize + row);
                    match seen.get_mut(keys.row(row).as_ref()) {
                        Some(deletion) => {
                            if let Some((segment, row)) = deletion.take() {
                                stay[segment][row] = true;
                            }
                        }
                        None => {
                            let deleted = op.value(row) == DELETED;
                            stay[place.0][place.1] = !deleted;
                            seen.insert(keys.row(row).as_ref().into(), deleted.then_some(place));
                        }
                    }
                }
            }
        }
        Ok(Some(Verdict { stay }))
    }

    fn rewrite(
        &self,
        store: &Store,
        before: &Manifest,
        segment: &Segment,
        tail: &Arc<Tail>,
        stay: &[bool],
    ) -> Result<SegmentEntry, LogError> {
        let old = &segment.entry;
        let same = before.segments.iter().filter(|s| {
            (s.topic, s.partition, s.first, s.last) == (old.topic, old.partition, old.first, old.last)
        });
        let number = same.map(|s| s.number).max().map_or(0, |number| number + 1);
        let entry = SegmentEntry {
            number,
            rows: 0,
            frames: 0,
            compacted: true,
            uploaded: false,
            local: true,
            ..old.clone()
        };
        let offset = tail.parquet.schema().index_of(OFFSET);
        let offset = offset.map_err(|_| segment.corrupt(old.tail_at, "it has no offsets"))?;
        let mut writer = SegmentWriter::create(store, entry, &tail.schema)?;
        for frame in &tail.frames {
            let rows = frame.header.rows as usize;
            let first = frame.first_row as usize;
            let stays = &stay[first..first + rows];
            let left = stays.iter().filter(|stays| **stays).count();
            if left == 0 {
                continue;
            }
            let mask = BooleanArray::from(stays.to_vec());
            let batch = store.rows(segment, tail, frame.first_row, rows, None)?;
            let batch: RecordBatch = filter_record_batch(&batch, &mask).map_err(|e| self.failed(e))?;
            let offsets = store.stored_column(segment, tail, frame.first_row, rows, offset)?;
            let offsets = filter(&offsets, &mask).map_err(|e| self.failed(e))?;
            let offsets: Int64Array = offsets
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| segment.corrupt(old.tail_at, "its offsets have another type"))?
                .clone();
            let header = FrameHeader {
                rows: left as u32,
                base_offset: Offset(offsets.value(0) as u64),
                writes: vec![WriteEntry { rows: left as u32, producer: None, continues: false }],
                ..frame.header.clone()
            };
            writer.frame((frame.commit, frame.ordinal, frame.ingest_time), &header, &batch, Some(offsets))?;
        }
        let entry = writer.finish()?;
        // Read back at once: what it replaces will go.
        let made = Segment::new(store, entry.clone());
        let bytes = bytes::Bytes::from(store.read_file(&made.path)?);
        store.verify(&made, &bytes)?;
        let found = store.tail(&made)?;
        let expected = stay.iter().filter(|stays| **stays).count() as u64;
        if found.starts.last() != Some(&expected) {
            return Err(made.corrupt(0, "the compacted segment does not hold the rows that stay"));
        }
        Ok(entry)
    }
}
