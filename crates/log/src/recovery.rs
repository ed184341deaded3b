//! Finding out what the journal holds after a crash.
//!
//! Every header of every file is read and the chain is followed; payloads are checked where no checkpoint covers them. Groups
//! are written one after the other, each synced before the next, so a crash damages at most the last group of the newest
//! file. Hence:
//!
//! - damage in an older file, or before a later commit record or a seal, hits what was acknowledged: an error;
//! - else the group was never acknowledged, or its fate is unknown to its writers: it is cut, and [`TornTail`] says so;
//! - a last group that is whole may be so in the page cache only (its sync may have failed): it is written once more and
//!   synced before anybody relies on it;
//! - a newest file without a group is removed, and created anew.
//!
//! Files that were cut into segments are passed over: the manifest of the segments holds the state behind them.
//!
//! All of that can be repeated at any point: a crash here leaves the same groups.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_env::{Disk, DiskFile, Open};
use millpond_types::{Commit, EventTime};
use tracing::warn;

use crate::format::{Bad, Body, FileHeader, decode_record};
use crate::index::{FrameRef, Index, JournalFile, JournalPlace, Place, Sink};
use crate::payload::decode_schema;
use crate::scan::{Item, ScanError, ScannedGroup, Scanner};
use crate::segment::{Manifest, Sealed};
use crate::topic::Topics;
use crate::{LogError, Record};

const COPY_BYTES: usize = 1 << 20;

/// What [`crate::Log::open`] found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The newest commit; 0 in a new log.
    pub last_commit: Commit,
    /// When the newest group was made.
    pub last_ingest_time: Option<EventTime>,
    pub files: usize,
    pub frames: u64,
    pub rows: u64,
    /// Of payloads.
    pub bytes: u64,
    /// What a crash left unfinished, and recovery cut.
    pub cut: Option<TornTail>,
    /// The length of that.
    pub truncated_bytes: u64,
    /// The DDL records of the journal files, oldest first; [`crate::Log::replay`] has those before.
    pub ddl: Vec<(Commit, Bytes)>,
    /// The newest tick.
    pub last_tick: Option<EventTime>,
}

/// Bytes after the last complete group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub file: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    /// Why they are no group.
    pub reason: String,
}

/// The state of the log after recovery.
#[derive(Default)]
pub(crate) struct Restored {
    pub recovered: Recovered,
    pub topics: Topics,
    pub index: Index,
    /// The end of the chain.
    pub previous: u32,
    pub sealed: bool,
    pub ingest_time: Option<EventTime>,
    pub next_schema: u32,
    pub newest: Option<Sink>,
}

/// Where the files lie, and from which commit on payloads must be checked.
pub(crate) struct Recovery<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub verify_from: Commit,
    /// Journal files before the end of this are not looked at.
    pub manifest: &'a Manifest,
}

/// Why the rest of a file is not taken.
struct Damage {
    /// Where the group begins.
    group_at: u64,
    offset: u64,
    what: Bad,
}

impl Recovery<'_> {
    /// Goes on behind what is in segments.
    pub fn run(&self, sealed: Sealed) -> Result<Restored, LogError> {
        let mut restored = Restored {
            topics: Topics::load(&self.manifest.topics),
            index: Index::behind(sealed),
            previous: self.manifest.chain,
            ingest_time: self.manifest.ingest_time,
            ..Restored::default()
        };
        restored.recovered.last_tick = self.manifest.last_tick;
        let mut names = self.names()?;
        let unborn = match names.last() {
            Some(newest) => self.is_unborn(*newest)?,
            None => false,
        };
        let stillborn = if unborn { names.pop() } else { None };
        if let Some(first) = stillborn {
            // Need not be durable: should it come back, it is removed again.
            let path = JournalFile::new(self.dir, first, 0).path;
            self.disk.remove(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
        for (number, first) in names.iter().enumerate() {
            let newest = number + 1 == names.len();
            // A file is begun when the one before it is complete, even if that beginning failed.
            self.file(*first, newest, newest && !unborn, &mut restored)?;
        }
        let (frames, rows, bytes) = restored.index.totals();
        let last_commit = restored.index.last();
        let (files, last_ingest_time) = (restored.index.files.len(), restored.ingest_time);
        let found = std::mem::take(&mut restored.recovered);
        restored.recovered = Recovered { last_commit, last_ingest_time, files, frames, rows, bytes, ..found };
        Ok(restored)
    }

    /// First commits of the files, in order.
    fn names(&self) -> Result<Vec<Commit>, LogError> {
        let names = self.disk.list(self.dir).map_err(|e| LogError::io("list", self.dir, e))?;
        let firsts = names.iter().filter_map(|name| JournalFile::parse_name(name));
        Ok(firsts.filter(|first| *first > self.manifest.through).collect())
    }

    /// Whether a file was being created when the process ended: it holds no group. Even if its header is whole, its name may
    /// never become durable (the sync of its directory may have failed): it must be created anew.
    fn is_unborn(&self, first: Commit) -> Result<bool, LogError> {
        let journal = JournalFile::new(self.dir, first, 0);
        let len = journal.open(self.disk)?.len().map_err(|e| LogError::io("read", &journal.path, e))?;
        Ok(len <= FileHeader::BYTES as u64)
    }

    fn file(
        &self,
        first: Commit,
        newest: bool,
        may_be_torn: bool,
        restored: &mut Restored,
    ) -> Result<(), LogError> {
        let journal = Arc::new(JournalFile::new(self.dir, first, 0));
        let path = &journal.path;
        let file = journal.open(self.disk)?;
        let len = file.len().map_err(|e| LogError::io("read", path, e))?;
        let mut header = [0; FileHeader::BYTES];
        if len < header.len() as u64 {
            return Err(journal.corrupt(0, "the file header is cut off"));
        }
        file.read_exact_at(&mut header, 0).map_err(|e| LogError::io("read", path, e))?;
        let decoded = FileHeader::decode(&header).map_err(|what| journal.corrupt(0, what))?;
        let expected = restored.index.last().next();
        if decoded.first != first || first != expected {
            let what = format!("the file begins with commit {}, expected was {expected}", decoded.first);
            return Err(journal.corrupt(0, what));
        }
        if decoded.previous != restored.previous {
            return Err(journal.corrupt(0, "the file does not follow the one before it"));
        }
        restored.previous = FileHeader::crc(&header);
        restored.next_schema = 0;
        restored.sealed = false;
        restored.index.files.push_back(Arc::clone(&journal));
        let mut scanner = Scanner::new(file, FileHeader::BYTES as u64, len, Some(restored.previous));
        let (last_group, damage) = self.groups(&journal, &mut scanner, restored)?;
        match damage {
            Some(damage) if may_be_torn => self.cut(&journal, damage, scanner, last_group, restored),
            Some(damage) => Err(journal.corrupt(damage.offset, damage.what)),
            None if newest => {
                self.settle(&journal, self.writable(&journal)?, last_group.start..len, restored)
            }
            None => {
                journal.set_written(len);
                journal.set_synced(len);
                Ok(())
            }
        }
    }

    /// Takes in the groups of a file. Also returns where the last one lies.
    fn groups(
        &self,
        journal: &Arc<JournalFile>,
        scanner: &mut Scanner,
        restored: &mut Restored,
    ) -> Result<(Range<u64>, Option<Damage>), LogError> {
        let mut last = 0..FileHeader::BYTES as u64;
        loop {
            let group_at = scanner.at();
            let expected = restored.index.last().next();
            let found = scanner.next_group(expected).and_then(|group| match group {
                Some(group) => self.check(scanner, &group, expected).map(|()| Some(group)),
                None => Ok(None),
            });
            match found {
                Ok(Some(group)) => {
                    last = group.at..group.end;
                    self.apply(journal, scanner, &group, restored)?;
                    (restored.previous, restored.sealed) = (scanner.previous().unwrap_or(0), false);
                }
                Ok(None) => {
                    restored.sealed |= scanner.is_sealed();
                    restored.previous = scanner.previous().unwrap_or(0);
                    return Ok((last, None));
                }
                Err(ScanError::Io(source)) => return Err(LogError::io("read", &journal.path, source)),
                Err(ScanError::Bad { offset, what }) => {
                    return Ok((last, Some(Damage { group_at, offset, what })));
                }
            }
        }
    }

    /// Reads what a group's headers vouch for, as far as a crash may have spoilt it.
    fn check(&self, scanner: &mut Scanner, group: &ScannedGroup, commit: Commit) -> Result<(), ScanError> {
        for item in &group.items {
            if commit > self.verify_from || !matches!(item.header.body, Body::Frame(_)) {
                scanner.check_payload(item)?;
            }
        }
        Ok(())
    }

    /// Takes in a group that is sound. What is wrong now, no crash has done.
    fn apply(
        &self,
        journal: &Arc<JournalFile>,
        scanner: &mut Scanner,
        group: &ScannedGroup,
        restored: &mut Restored,
    ) -> Result<(), LogError> {
        let mut frames = Vec::new();
        for item in &group.items {
            let corrupt = |what: Bad| journal.corrupt(item.at, what);
            let mut payload = || {
                scanner.payload(item).map_err(|error| match error {
                    ScanError::Bad { offset, what } => journal.corrupt(offset, what),
                    ScanError::Io(source) => LogError::io("read", &journal.path, source),
                })
            };
            match &item.header.body {
                Body::Schema { id, topic } => {
                    let schema = decode_schema(&payload()?).map_err(corrupt)?;
                    journal.add_schema(*id, restored.index.shared_schema(*topic, schema));
                    restored.next_schema = restored.next_schema.max(id.saturating_add(1));
                }
                Body::Frame(frame) => {
                    frames.push(
                        frame_ref(journal, item).ok_or_else(|| corrupt("its schema is missing".into()))?,
                    );
                    restored.topics.recovered(frame).map_err(corrupt)?;
                }
                Body::Record { tag } => {
                    let record = decode_record(*tag, &payload()?).map_err(corrupt)?;
                    restored.topics.record(&record);
                    match record {
                        Record::Ddl(bytes) => restored.recovered.ddl.push((group.commit, bytes)),
                        Record::Tick(now) => restored.recovered.last_tick = Some(now),
                        Record::AdvanceWatermark { .. } | Record::PartitionIdle { .. } => {}
                    }
                }
                Body::Commit(_) | Body::Seal => {}
            }
        }
        for (topic, watermark) in &group.watermarks {
            restored.topics.raise(*topic, *watermark);
        }
        restored.ingest_time = restored.ingest_time.max(Some(group.ingest_time));
        restored.index.add(group.commit, group.at, frames);
        Ok(())
    }

    /// Cuts a torn group off the newest file.
    fn cut(
        &self,
        journal: &Arc<JournalFile>,
        damage: Damage,
        mut scanner: Scanner,
        last_group: Range<u64>,
        restored: &mut Restored,
    ) -> Result<(), LogError> {
        let Damage { group_at, offset, what } = damage;
        let broken = restored.index.last().next();
        let acknowledged = scanner
            .finds_later(group_at, broken)
            .map_err(|source| LogError::io("read", &journal.path, source))?;
        if acknowledged {
            return Err(journal.corrupt(offset, what));
        }
        // A seal before the damage stays where it is; it is cheaper to write the group again than to ask.
        let end = group_at;
        let bytes = scanner.end() - end;
        warn!(file = %journal.path.display(), offset = end, bytes, reason = what, "cut a torn tail off the journal");
        restored.recovered.truncated_bytes = bytes;
        restored.recovered.cut =
            Some(TornTail { file: journal.path.clone(), offset: end, bytes, reason: what });
        let file = self.writable(journal)?;
        file.set_len(end).map_err(|e| LogError::io("truncate", &journal.path, e))?;
        self.settle(journal, file, last_group.start..end, restored)
    }

    fn writable(&self, journal: &JournalFile) -> Result<Box<dyn DiskFile>, LogError> {
        self.disk.open(&journal.path, Open::Write).map_err(|e| LogError::io("open", &journal.path, e))
    }

    /// Writes the end of the newest file again: the last group, and a seal after it. The sync that follows covers them
    /// whatever an earlier one did.
    fn settle(
        &self,
        journal: &Arc<JournalFile>,
        file: Box<dyn DiskFile>,
        Range { start: mut at, end }: Range<u64>,
        restored: &mut Restored,
    ) -> Result<(), LogError> {
        let mut bytes = vec![0; COPY_BYTES.min((end - at) as usize)];
        while at < end {
            let n = bytes.len().min((end - at) as usize);
            file.read_exact_at(&mut bytes[..n], at).map_err(|e| LogError::io("read", &journal.path, e))?;
            file.write_at(&bytes[..n], at).map_err(|e| LogError::io("write to", &journal.path, e))?;
            at += n as u64;
        }
        file.sync_data().map_err(|e| LogError::io("sync", &journal.path, e))?;
        journal.set_written(end);
        journal.set_synced(end);
        restored.newest = Some(Sink { journal: Arc::clone(journal), file });
        Ok(())
    }
}

fn frame_ref(journal: &Arc<JournalFile>, item: &Item) -> Option<FrameRef> {
    let Body::Frame(frame) = &item.header.body else { return None };
    let prelude = &item.header.prelude;
    Some(FrameRef {
        commit: prelude.commit,
        topic: frame.topic,
        partition: frame.partition,
        base_offset: frame.base_offset,
        rows: frame.rows,
        watermark: frame.watermark,
        ingest_time: prelude.ingest_time,
        kind: frame.kind,
        schema_version: frame.schema_version,
        schema: journal.schema(frame.schema_id)?,
        place: Place::Journal(JournalPlace {
            file: Arc::clone(journal),
            at: item.payload_at,
            bytes: prelude.payload_bytes,
            crc: prelude.payload_crc,
        }),
    })
}
