//! Looking at a log that no server uses: what its files hold, what is damaged, and giving that up.
//!
//! A [`survey`] walks over every group of every file. Recovery stops at damage; a survey says what is lost, goes on where
//! groups go on, and so can tell all of it. [`repair`] writes down beside a damaged file what is to be left out, after which
//! the log opens again and reads around it; the file itself stays as it is.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_env::{Disk, DiskFile, DiskLock, Env, Open};
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};

use crate::format::{Bad, Body, FileHeader, FrameHeader, Skip, decode_record, encode_skips};
use crate::index::JournalFile;
use crate::payload::decode_schema;
use crate::recovery::named;
use crate::scan::{Item, ScanError, ScannedGroup, Scanner};
use crate::segment::survey::{self as segments, SegmentsSurvey};
use crate::segment::{SegmentSurvey, SpineSurvey, Store};
use crate::{LogError, Record, WriteKind};

/// What a log holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Of the journal.
    pub files: Vec<FileSurvey>,
    /// What journal files before have become.
    pub spines: Vec<SpineSurvey>,
    pub segments: Vec<SegmentSurvey>,
    pub topics: BTreeMap<RelationId, TopicSurvey>,
    /// All DDL records, oldest first.
    pub ddl: Vec<(Commit, Bytes)>,
}

impl Survey {
    /// With what is in segments.
    fn behind(sealed: SegmentsSurvey) -> Self {
        let SegmentsSurvey { spines, segments, ddl, watermarks } = sealed;
        let mut topics: BTreeMap<RelationId, TopicSurvey> = BTreeMap::new();
        for segment in &segments {
            let of = topics.entry(segment.topic).or_insert_with(|| TopicSurvey {
                first_commit: Commit(*segment.commits.start()),
                watermark: watermarks.get(&segment.topic).copied(),
                ..TopicSurvey::default()
            });
            of.frames += segment.frames;
            of.rows += segment.rows;
            of.bytes += segment.bytes;
            of.first_commit = of.first_commit.min(Commit(*segment.commits.start()));
            of.last_commit = of.last_commit.max(Commit(*segment.commits.end()));
            let range = of.partitions.entry(segment.partition).or_insert(segment.offsets.clone());
            *range = range.start.min(segment.offsets.start)..range.end.max(segment.offsets.end);
        }
        Self { files: Vec::new(), spines, segments, topics, ddl }
    }

    /// What cannot be read: of the journal and of segments.
    pub fn damaged_files(&self) -> usize {
        self.files.iter().filter(|file| !file.damages.is_empty()).count()
            + self.spines.iter().filter(|spine| spine.damage.is_some()).count()
            + self.segments.iter().filter(|segment| segment.damage.is_some()).count()
    }
}

/// One file.
#[derive(Debug)]
pub struct FileSurvey {
    pub path: PathBuf,
    pub bytes: u64,
    pub created_micros: Option<i64>,
    /// Of the first group, as the name says.
    pub first: Commit,
    /// Of the newest group that is sound.
    pub last: Option<Commit>,
    pub groups: u64,
    pub frames: u64,
    pub rows: u64,
    pub records: u64,
    pub payload_bytes: u64,
    /// The log was closed in order at the end of this file.
    pub sealed: bool,
    /// Bytes behind the last group that a crash has left and the next start cuts off.
    pub torn: Option<Damage>,
    /// Damage before the end of what was acknowledged.
    pub damages: Vec<Damage>,
    /// What an earlier repair has given up.
    pub given_up: Vec<Damage>,
}

/// Bytes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the bad bytes begin, as far as that can be told.
    pub offset: u64,
    pub what: String,
    /// The groups that are lost with them lie here.
    pub bytes: std::ops::Range<u64>,
    /// Their commits; `None` for a torn tail that was never acknowledged.
    pub commits: Option<RangeInclusive<u64>>,
    skip: Option<Skip>,
}

/// One topic, over all files.
#[derive(Debug, Default)]
pub struct TopicSurvey {
    pub frames: u64,
    pub rows: u64,
    pub bytes: u64,
    pub schemas: u64,
    /// Before the newest frame, or after the newest group that says it.
    pub watermark: Option<EventTime>,
    pub first_commit: Commit,
    pub last_commit: Commit,
    pub partitions: BTreeMap<PartitionId, std::ops::Range<Offset>>,
}

/// A group, for whoever looks at each.
#[derive(Debug)]
pub struct SeenGroup<'a> {
    pub file: &'a Path,
    pub commit: Commit,
    pub ingest_time: EventTime,
    /// Where it lies in a journal file.
    pub bytes: Option<std::ops::Range<u64>>,
    pub items: Vec<SeenItem>,
    /// W after it, of the topics where it has risen.
    pub watermarks: &'a [(RelationId, EventTime)],
}

/// An item of a group.
#[derive(Debug)]
pub struct SeenItem {
    pub place: SeenPlace,
    pub what: SeenBody,
}

/// Where an item lies.
#[derive(Debug)]
pub enum SeenPlace {
    Journal {
        offset: u64,
        header_bytes: usize,
        payload_bytes: u64,
        header_crc: u32,
        payload_crc: u32,
    },
    /// In the file of the group.
    Spine,
    Segment {
        file: PathBuf,
        first_row: u64,
    },
}

impl SeenItem {
    fn payload_bytes(&self) -> u64 {
        match self.place {
            SeenPlace::Journal { payload_bytes, .. } => payload_bytes,
            SeenPlace::Spine | SeenPlace::Segment { .. } => 0,
        }
    }
}

#[derive(Debug)]
pub enum SeenBody {
    Frame {
        topic: RelationId,
        partition: PartitionId,
        base_offset: Offset,
        rows: u32,
        kind: WriteKind,
        schema_id: u32,
        schema_version: u32,
        watermark: Option<EventTime>,
        event_time: Option<EventTime>,
        producers: usize,
        position_bytes: usize,
    },
    Schema {
        topic: RelationId,
        id: u32,
        columns: Vec<String>,
    },
    Record(Record),
}

/// The log of a data directory, while nobody else has it.
pub struct Offline {
    env: Env,
    store: Store,
    dir: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl Offline {
    /// # Errors
    /// [`LogError::Locked`] while a server has it, [`LogError::Io`] where there is none.
    pub fn open(env: &Env, dir: &Path) -> Result<Self, LogError> {
        let disk = &env.disk;
        disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
        let lock = disk.lock(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => LogError::Locked { dir: dir.to_owned() },
            _ => LogError::io("lock", dir, error),
        })?;
        let store = Store::new(env.clone(), dir, None);
        Ok(Self { env: env.clone(), store, dir: dir.to_owned(), _lock: lock })
    }

    /// Walks over the journal and shows each sound group. With `payloads` every byte is checked, else what the headers say.
    ///
    /// # Errors
    /// What the disk says; damage is in the answer.
    pub fn survey(&self, payloads: bool, visit: &mut dyn FnMut(&SeenGroup<'_>)) -> Result<Survey, LogError> {
        let (_, manifest) = segments::newest(&self.store)?;
        let sealed = segments::survey(&self.store, &manifest, payloads, visit)?;
        let names = self.disk().list(&self.dir).map_err(|e| LogError::io("list", &self.dir, e))?;
        let firsts = names.iter().filter_map(|name| JournalFile::parse_name(name));
        // What was cut is removed by the next start.
        let firsts: Vec<Commit> = firsts.filter(|first| *first > manifest.through).collect();
        let mut survey = Survey::behind(sealed);
        let mut previous = Some(manifest.chain);
        for (number, first) in firsts.iter().enumerate() {
            let journal = JournalFile::new(&self.dir, *first, 0);
            let newest = number + 1 == firsts.len();
            let next = match firsts.get(number + 1) {
                Some(next) => self.header(&JournalFile::new(&self.dir, *next, 0))?.ok(),
                None => None,
            };
            let mut walk = Walk { disk: self.disk(), survey: &mut survey, payloads, visit, newest, next };
            previous = walk.file(&journal, previous)?;
        }
        Ok(survey)
    }

    fn disk(&self) -> &dyn Disk {
        &*self.env.disk
    }

    fn header(&self, journal: &JournalFile) -> Result<Result<FileHeader, Bad>, LogError> {
        let file = journal.open(self.disk())?;
        read_header(&*file, &journal.path)
    }

    /// Gives up what a survey of every byte finds damaged, so that the log can be opened. Nothing is deleted: beside each
    /// damaged file a list says what is left out. Returns the survey, with the damage that was given up.
    ///
    /// # Errors
    /// What the disk says, or [`LogError::Corrupt`] for damage that cannot be left out: a file that is missing.
    pub fn repair(&self) -> Result<Survey, LogError> {
        let (number, manifest) = segments::newest(&self.store)?;
        let found = segments::survey(&self.store, &manifest, true, &mut |_| ())?;
        if found.segments.iter().any(|s| s.damage.is_some())
            || found.spines.iter().any(|s| s.damage.is_some())
        {
            segments::repair(&self.store, number, &manifest, &found)?;
        }
        let mut survey = self.survey(true, &mut |_| ())?;
        (survey.spines, survey.segments) = (found.spines, found.segments);
        for file in survey.files.iter().filter(|file| !file.damages.is_empty()) {
            let journal = JournalFile::new(&self.dir, file.first, 0);
            if let Some(damage) = file.damages.iter().find(|damage| damage.skip.is_none()) {
                return Err(
                    journal.corrupt(damage.offset, format!("{}, which no repair can mend", damage.what))
                );
            }
            let mut header = [0; FileHeader::BYTES];
            let read = journal.open(self.disk())?.read_exact_at(&mut header, 0);
            read.map_err(|e| LogError::io("read", &journal.path, e))?;
            let both = file.given_up.iter().chain(&file.damages);
            let mut skips: Vec<Skip> = both.filter_map(|damage| damage.skip).collect();
            skips.sort_by_key(|skip| skip.from);
            let of = if FileHeader::decode(&header).is_ok() { FileHeader::crc(&header) } else { 0 };
            self.write_skips(&journal.skips_path(), &encode_skips(of, &skips))?;
        }
        Ok(survey)
    }

    /// Written under another name and renamed: a crash leaves the old list or the new one.
    fn write_skips(&self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        let fresh = path.with_extension("skip-new");
        let write = || {
            let disk = self.disk();
            if disk.exists(&fresh)? {
                disk.remove(&fresh)?;
            }
            let file = disk.open(&fresh, Open::Create)?;
            file.write_at(bytes, 0)?;
            file.sync_data()?;
            disk.rename(&fresh, path)?;
            disk.sync_dir(&self.dir)
        };
        write().map_err(|e| LogError::io("write", path, e))
    }
}

fn read_header(file: &dyn DiskFile, path: &Path) -> Result<Result<FileHeader, Bad>, LogError> {
    let len = file.len().map_err(|e| LogError::io("read", path, e))?;
    if len < FileHeader::BYTES as u64 {
        return Ok(Err("the file header is cut off".to_owned()));
    }
    let mut header = [0; FileHeader::BYTES];
    file.read_exact_at(&mut header, 0).map_err(|e| LogError::io("read", path, e))?;
    Ok(FileHeader::decode(&header))
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    survey: &'a mut Survey,
    payloads: bool,
    visit: &'a mut dyn FnMut(&SeenGroup<'_>),
    newest: bool,
    /// The header of the file behind.
    next: Option<FileHeader>,
}

impl Walk<'_> {
    /// Takes in one file. `previous` is the crc of the header before it, if that is known; returns the same for the next.
    fn file(&mut self, journal: &JournalFile, previous: Option<u32>) -> Result<Option<u32>, LogError> {
        let io = |e| LogError::io("read", &journal.path, e);
        let handle = journal.open(self.disk)?;
        let len = handle.len().map_err(io)?;
        let header = read_header(&*handle, &journal.path)?;
        journal.read_skips(self.disk)?;
        let skips = journal.skips();
        let mut file = FileSurvey {
            path: journal.path.clone(),
            bytes: len,
            created_micros: header.as_ref().ok().map(|header| header.created_micros),
            first: journal.first,
            last: None,
            groups: 0,
            frames: 0,
            rows: 0,
            records: 0,
            payload_bytes: 0,
            sealed: false,
            torn: None,
            damages: Vec::new(),
            given_up: skips.iter().map(given_up).collect(),
        };
        let start = FileHeader::BYTES as u64;
        if self.newest && len <= start {
            file.torn = (len > 0).then(|| torn(0, 0..len, "the file was being begun"));
            self.survey.files.push(file);
            return Ok(None);
        }
        if let (Some(next), Some(previous)) = (&self.next, previous)
            && next.previous == previous
        {
            file.torn = Some(torn(0, 0..len, "the file was given up after a failed sync"));
            self.survey.files.push(file);
            return Ok(Some(previous));
        }
        let mut scanner = Scanner::new(Arc::clone(&handle), start, len, None).skipping(Arc::clone(&skips));
        match (&header, skips.iter().find(|skip| skip.from == 0)) {
            (_, Some(skip)) => scanner.jump(start, skip.previous),
            (Ok(decoded), None) => {
                let own = header_crc(&*handle).map_err(io)?;
                scanner.jump(start, own);
                let follows = previous.is_none_or(|previous| previous == decoded.previous);
                if decoded.first != journal.first || !follows {
                    let what = format!(
                        "the file begins with commit {} and does not follow the one before it: one is missing or foreign",
                        decoded.first
                    );
                    let damage = Damage { offset: 0, what, bytes: 0..start, commits: None, skip: None };
                    file.damages.push(damage);
                }
            }
            (Err(what), None) => {
                // The first item says what the header's checksum was.
                let first_item = scanner.header_at(start).map_err(io)?;
                let skip = first_item.map(|item| Skip {
                    from: 0,
                    to: start,
                    lost: journal.first,
                    next: journal.first,
                    previous: item.prelude.previous,
                });
                if let Some(skip) = &skip {
                    scanner.jump(start, skip.previous);
                }
                let damage = Damage { offset: 0, what: what.clone(), bytes: 0..start, commits: None, skip };
                file.damages.push(damage);
            }
        }
        self.groups(journal, &mut scanner, &mut file).map_err(io)?;
        file.sealed = scanner.is_sealed();
        let end = scanner.previous();
        self.survey.files.push(file);
        Ok(end)
    }

    fn groups(
        &mut self,
        journal: &JournalFile,
        scanner: &mut Scanner,
        file: &mut FileSurvey,
    ) -> std::io::Result<()> {
        let mut expected = journal.first;
        loop {
            let from = scanner.at();
            if let (Some(next), Some(own)) = (&self.next, scanner.previous())
                && next.previous == own
                && from < scanner.end()
            {
                file.torn = Some(torn(from, from..scanner.end(), "a failed sync was given up here"));
                return Ok(());
            }
            let found = scanner.next_group(expected).and_then(|group| match group {
                Some(group) => self.check(journal, scanner, &group).map(|records| Some((group, records))),
                None => Ok(None),
            });
            match found {
                Ok(None) => return Ok(()),
                Ok(Some((group, records))) => {
                    expected = group.commit.next();
                    self.take_in(journal, file, &group, records);
                }
                Err(ScanError::Io(error)) => return Err(error),
                Err(ScanError::Bad { offset, what }) => {
                    let end = scanner.end();
                    let goes_on = scanner.resync(from, expected)?;
                    let at_end = goes_on.is_none_or(|(to, next, _)| to == end && next == expected.next());
                    if self.newest && at_end && !scanner_sealed(scanner, end)? {
                        file.torn = Some(torn(offset, from..end, &what));
                        return Ok(());
                    }
                    let skip = match (goes_on, &self.next) {
                        (Some((to, next, previous)), _) => {
                            Some(Skip { from, to, lost: expected, next, previous })
                        }
                        (None, Some(next)) => {
                            let previous = next.previous;
                            Some(Skip { from, to: end, lost: expected, next: next.first, previous })
                        }
                        (None, None) => None,
                    };
                    let bytes = from..skip.map_or(end, |skip| skip.to);
                    let last = skip.map_or(expected.0, |skip| skip.next.0.saturating_sub(1)).max(expected.0);
                    let commits = Some(expected.0..=last);
                    file.damages.push(Damage { offset, what, bytes, commits, skip });
                    let Some(skip) = skip else { return Ok(()) };
                    scanner.jump(skip.to, skip.previous);
                    expected = skip.next;
                }
            }
        }
    }

    /// Checks what headers vouch for, and reads what is small.
    fn check(
        &self,
        journal: &JournalFile,
        scanner: &mut Scanner,
        group: &ScannedGroup,
    ) -> Result<Vec<SeenItem>, ScanError> {
        let mut seen = Vec::with_capacity(group.items.len());
        let mut schemas = Vec::new();
        for item in &group.items {
            let bad = |what| named(item, ScanError::Bad { offset: item.at, what });
            let what = match &item.header.body {
                Body::Frame(frame) => {
                    if self.payloads {
                        scanner.check_payload(item).map_err(|error| named(item, error))?;
                    }
                    let id = frame.schema_id;
                    if !schemas.iter().any(|(new, _)| *new == id) && journal.schema(id).is_none() {
                        return Err(bad("its schema is missing".to_owned()));
                    }
                    seen_frame(frame)
                }
                Body::Schema { id, topic } => {
                    let payload = scanner.payload(item).map_err(|error| named(item, error))?;
                    let schema = decode_schema(&payload).map_err(bad)?;
                    schemas.push((*id, Arc::clone(&schema)));
                    let column = |f: &Arc<arrow::datatypes::Field>| format!("{} {}", f.name(), f.data_type());
                    let columns = schema.fields().iter().map(column).collect();
                    SeenBody::Schema { topic: *topic, id: *id, columns }
                }
                Body::Record { tag } => {
                    let payload = scanner.payload(item).map_err(|error| named(item, error))?;
                    SeenBody::Record(decode_record(*tag, &payload).map_err(bad)?)
                }
                Body::Commit(_) | Body::Seal => continue,
            };
            seen.push(seen_item(item, what));
        }
        // Only now: recovery does not know the schemas of a group that is lost.
        schemas.into_iter().for_each(|(id, schema)| journal.add_schema(id, schema));
        Ok(seen)
    }

    fn take_in(
        &mut self,
        journal: &JournalFile,
        file: &mut FileSurvey,
        group: &ScannedGroup,
        items: Vec<SeenItem>,
    ) {
        file.groups += 1;
        file.last = Some(group.commit);
        for item in &items {
            let payload_bytes = item.payload_bytes();
            file.payload_bytes += payload_bytes;
            match &item.what {
                SeenBody::Frame { topic, partition, base_offset, rows, watermark, .. } => {
                    file.frames += 1;
                    file.rows += u64::from(*rows);
                    let of = self.survey.topics.entry(*topic).or_insert_with(|| TopicSurvey {
                        first_commit: group.commit,
                        ..TopicSurvey::default()
                    });
                    of.frames += 1;
                    of.rows += u64::from(*rows);
                    of.bytes += payload_bytes;
                    of.last_commit = group.commit;
                    of.watermark = of.watermark.max(*watermark);
                    let end = Offset(base_offset.0 + u64::from(*rows));
                    of.partitions.entry(*partition).or_insert(*base_offset..end).end = end;
                }
                SeenBody::Schema { topic, .. } => {
                    let of = self.survey.topics.entry(*topic).or_insert_with(|| TopicSurvey {
                        first_commit: group.commit,
                        ..TopicSurvey::default()
                    });
                    of.schemas += 1;
                }
                SeenBody::Record(record) => {
                    file.records += 1;
                    if let Record::Ddl(bytes) = record {
                        self.survey.ddl.push((group.commit, bytes.clone()));
                    }
                }
            }
        }
        for (topic, watermark) in &group.watermarks {
            if let Some(of) = self.survey.topics.get_mut(topic) {
                of.watermark = of.watermark.max(Some(*watermark));
            }
        }
        (self.visit)(&SeenGroup {
            file: &journal.path,
            commit: group.commit,
            ingest_time: group.ingest_time,
            bytes: Some(group.at..group.end),
            items,
            watermarks: &group.watermarks,
        });
    }
}

pub(crate) fn seen_frame(frame: &FrameHeader) -> SeenBody {
    SeenBody::Frame {
        topic: frame.topic,
        partition: frame.partition,
        base_offset: frame.base_offset,
        rows: frame.rows,
        kind: frame.kind,
        schema_id: frame.schema_id,
        schema_version: frame.schema_version,
        watermark: frame.watermark,
        event_time: frame.event_time,
        producers: frame.writes.iter().filter(|write| write.producer.is_some()).count(),
        position_bytes: frame.position.as_ref().map_or(0, Bytes::len),
    }
}

fn seen_item(item: &Item, what: SeenBody) -> SeenItem {
    let place = SeenPlace::Journal {
        offset: item.at,
        header_bytes: item.header.header_bytes,
        payload_bytes: item.header.prelude.payload_bytes,
        header_crc: item.header.crc,
        payload_crc: item.header.prelude.payload_crc,
    };
    SeenItem { place, what }
}

fn torn(offset: u64, bytes: std::ops::Range<u64>, what: &str) -> Damage {
    Damage { offset, what: what.to_owned(), bytes, commits: None, skip: None }
}

fn given_up(skip: &Skip) -> Damage {
    let commits = (skip.next > skip.lost).then(|| skip.lost.0..=skip.next.0 - 1);
    let what = "given up by a repair".to_owned();
    Damage { offset: skip.from, what, bytes: skip.from..skip.to, commits, skip: Some(*skip) }
}

fn header_crc(file: &dyn DiskFile) -> std::io::Result<u32> {
    let mut header = [0; FileHeader::BYTES];
    file.read_exact_at(&mut header, 0)?;
    Ok(FileHeader::crc(&header))
}

/// Whether the file ends with a seal: then all of it was complete.
fn scanner_sealed(scanner: &mut Scanner, end: u64) -> std::io::Result<bool> {
    let Some(at) = end.checked_sub(crate::format::PRELUDE_BYTES as u64) else { return Ok(false) };
    Ok(scanner.header_at(at)?.is_some_and(|header| matches!(header.body, Body::Seal)))
}
