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
//! - a newest file without a whole group is removed, and created anew;
//! - what a log that healed had given up (module `heal`) may come back, because its removal was never synced. The chain tells
//!   it: the next file follows from before it. It is removed again;
//! - what a repair has given up (module `survey`) is left out.
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

use crate::format::{Bad, Body, FileHeader, Skip, decode_record};
use crate::index::{FrameRef, Index, JournalFile, JournalPlace, Place, Sink};
use crate::payload::decode_schema;
use crate::scan::{Item, ScanError, ScannedGroup, Scanner};
use crate::segment::Sealed;
use crate::topic::{Stamp, Topics};
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
    /// Commits that a repair has given up.
    pub skipped_commits: u64,
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

/// Where the files lie, and what is known of them.
pub(crate) struct Recovery<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    /// Payloads up to here need not be checked.
    pub verify_from: Commit,
    /// Nothing after this commit is taken, however whole it looks: a write or sync of it has failed. What is before is synced.
    pub upto: Option<Commit>,
    /// Journal files before the end of this are not looked at.
    pub sealed: Arc<Sealed>,
}

/// Why the rest of a file is not taken.
struct Damage {
    /// Where the group begins, and which one it is.
    group_at: u64,
    broken: Commit,
    offset: u64,
    what: Bad,
    /// It is left over from a failed sync, and the next file follows from before it.
    given_up: bool,
    /// Or the next file is.
    garbage: Option<Commit>,
}

/// What became of a file.
enum Taken {
    Groups,
    /// A file is no part of the log, which must be looked at again without it: the newest one, whose first group is torn;
    /// or one that a log which healed had given up, and whose removal did not survive.
    Remove(Commit, Option<TornTail>),
}

impl Recovery<'_> {
    pub fn run(&self) -> Result<Restored, LogError> {
        let mut cut = None;
        loop {
            match self.attempt()? {
                Ok(mut restored) => {
                    let found = &mut restored.recovered;
                    found.cut = found.cut.take().or(cut);
                    found.truncated_bytes = found.cut.as_ref().map_or(0, |cut| cut.bytes);
                    return Ok(restored);
                }
                Err(torn) => cut = torn.or(cut),
            }
        }
    }

    /// The inner error says that a file had to go.
    fn attempt(&self) -> Result<Result<Restored, Option<TornTail>>, LogError> {
        let manifest = &self.sealed.manifest;
        let mut restored = Restored {
            topics: Topics::load(&manifest.topics),
            index: Index::behind(Arc::clone(&self.sealed)),
            previous: manifest.chain,
            ingest_time: manifest.ingest_time,
            ..Restored::default()
        };
        restored.recovered.last_tick = manifest.last_tick;
        let mut names = self.names()?;
        if let Some(upto) = self.upto {
            self.remove_after(&mut names, upto)?;
        }
        let unborn = match names.last() {
            Some(newest) => self.is_unborn(*newest)?,
            None => false,
        };
        let stillborn = if unborn { names.pop() } else { None };
        if let Some(first) = stillborn {
            self.remove(first)?;
            self.disk.sync_dir(self.dir).map_err(|e| LogError::io("sync", self.dir, e))?;
        }
        for (number, first) in names.iter().enumerate() {
            let newest = number + 1 == names.len();
            // A file is begun when the one before it is complete, even if that beginning failed. Unless what was begun is
            // left over from long ago: then that one has gone further.
            let torn_from = match stillborn {
                _ if !newest => Commit(u64::MAX),
                Some(stillborn) => stillborn,
                None => Commit(0),
            };
            let next = match names.get(number + 1) {
                Some(next) => self.header(*next)?,
                None => None,
            };
            let taken = self.file(*first, newest, torn_from, next, &mut restored)?;
            if let Taken::Remove(first, torn) = taken {
                self.remove(first)?;
                self.disk.sync_dir(self.dir).map_err(|e| LogError::io("sync", self.dir, e))?;
                return Ok(Err(torn));
            }
        }
        let (frames, rows, bytes) = restored.index.totals();
        let last_commit = restored.index.last();
        let (files, last_ingest_time) = (restored.index.files.len(), restored.ingest_time);
        let found = std::mem::take(&mut restored.recovered);
        restored.recovered = Recovered { last_commit, last_ingest_time, files, frames, rows, bytes, ..found };
        Ok(Ok(restored))
    }

    /// The header of a file, if it has a sound one.
    fn header(&self, first: Commit) -> Result<Option<FileHeader>, LogError> {
        let journal = JournalFile::new(self.dir, first, 0);
        let mut header = [0; FileHeader::BYTES];
        match journal.open(self.disk)?.read_exact_at(&mut header, 0) {
            Ok(()) => Ok(FileHeader::decode(&header).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(LogError::io("read", &journal.path, source)),
        }
    }

    /// The newest group that can be read from here; one before `expected` if there is none.
    fn reach(&self, mut scanner: Scanner, mut expected: Commit) -> Result<Commit, LogError> {
        loop {
            match scanner.next_group(expected) {
                Ok(Some(group)) => expected = group.commit.next(),
                Ok(None) | Err(ScanError::Bad { .. }) => return Ok(Commit(expected.0.saturating_sub(1))),
                Err(ScanError::Io(source)) => return Err(LogError::io("read", self.dir, source)),
            }
        }
    }

    fn remove(&self, first: Commit) -> Result<(), LogError> {
        let path = JournalFile::new(self.dir, first, 0).path;
        self.disk.remove(&path).map_err(|e| LogError::io("remove", &path, e))
    }

    /// Removes files of which nothing was ever acknowledged. Durably, because a file with another name will follow.
    fn remove_after(&self, names: &mut Vec<Commit>, upto: Commit) -> Result<(), LogError> {
        let lost = names.split_off(names.partition_point(|first| *first <= upto));
        lost.iter().try_for_each(|first| self.remove(*first))?;
        self.disk.sync_dir(self.dir).map_err(|e| LogError::io("sync", self.dir, e))
    }

    /// First commits of the files, in order.
    fn names(&self) -> Result<Vec<Commit>, LogError> {
        let names = self.disk.list(self.dir).map_err(|e| LogError::io("list", self.dir, e))?;
        let firsts = names.iter().filter_map(|name| JournalFile::parse_name(name));
        Ok(firsts.filter(|first| *first > self.sealed.manifest.through).collect())
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
        torn_from: Commit,
        next: Option<FileHeader>,
        restored: &mut Restored,
    ) -> Result<Taken, LogError> {
        let journal = Arc::new(JournalFile::new(self.dir, first, 0));
        let path = &journal.path;
        let file = journal.open(self.disk)?;
        let len = file.len().map_err(|e| LogError::io("read", path, e))?;
        let mut header = [0; FileHeader::BYTES];
        if len < header.len() as u64 {
            return Err(journal.corrupt(0, "the file header is cut off"));
        }
        file.read_exact_at(&mut header, 0).map_err(|e| LogError::io("read", path, e))?;
        let (skips, header_skipped) = self.skips(&journal, &header, restored)?;
        let decoded = match header_skipped {
            Some(_) => FileHeader { first, previous: restored.previous, created_micros: 0 },
            None => FileHeader::decode(&header).map_err(|what| journal.corrupt(0, what))?,
        };
        if let Some(behind) = next.filter(|behind| behind.previous == restored.previous) {
            let own = FileHeader::crc(&header);
            let reach =
                self.reach(Scanner::new(Arc::clone(&file), FileHeader::BYTES as u64, len, Some(own)), first);
            let garbage = if reach? >= behind.first { behind.first } else { first };
            warn!(file = garbage.0, "a journal file was given up after a failed sync, and is removed again");
            return Ok(Taken::Remove(garbage, None));
        }
        let expected = restored.index.last().next();
        let follows = decoded.previous == restored.previous;
        // Commits may be left out where a failed sync has lost them; the chain says that nothing else is missing.
        if decoded.first != first || first < expected || (first > expected && !follows) {
            let what = format!("the file begins with commit {}, expected was {expected}", decoded.first);
            return Err(journal.corrupt(0, what));
        }
        if !follows {
            return Err(journal.corrupt(0, "the file does not follow the one before it"));
        }
        restored.previous = header_skipped.unwrap_or(FileHeader::crc(&header));
        restored.next_schema = 0;
        restored.sealed = false;
        restored.index.files.push_back(Arc::clone(&journal));
        let start = FileHeader::BYTES as u64;
        let mut scanner = Scanner::new(file, start, len, Some(restored.previous)).skipping(skips);
        let (last_group, damage) = self.groups(&journal, &mut scanner, next, restored)?;
        match damage {
            Some(Damage { garbage: Some(first), .. }) => return Ok(Taken::Remove(first, None)),
            Some(damage) if damage.given_up => {
                return self.cut(&journal, damage, scanner, last_group, restored);
            }
            Some(damage) if damage.broken >= torn_from => {
                return self.cut(&journal, damage, scanner, last_group, restored);
            }
            Some(damage) => return Err(journal.corrupt(damage.offset, damage.what)),
            None if newest => {
                self.settle(&journal, self.writable(&journal)?, last_group.start..len, restored)?;
            }
            None => {
                journal.set_written(len);
                journal.set_synced(len);
            }
        }
        Ok(Taken::Groups)
    }

    /// What a repair has given up in a file; if that is its header, too, what the first item names as its crc.
    fn skips(
        &self,
        journal: &JournalFile,
        header: &[u8; FileHeader::BYTES],
        restored: &mut Restored,
    ) -> Result<(Arc<[Skip]>, Option<u32>), LogError> {
        let Some(of) = journal.read_skips(self.disk)? else { return Ok((Arc::default(), None)) };
        let skips = journal.skips();
        let whole = skips.iter().find(|skip| skip.from == 0);
        if whole.is_none() && of != FileHeader::crc(header) {
            return Err(journal.corrupt(0, "the list of skips beside it was made for another file"));
        }
        let lost: u64 = skips.iter().map(|skip| skip.next.0 - skip.lost.0).sum();
        if lost > 0 {
            restored.topics.allow_gaps();
            restored.recovered.skipped_commits += lost;
            warn!(file = %journal.path.display(), commits = lost, "commits that a repair has given up are left out");
        }
        Ok((Arc::clone(&skips), whole.map(|skip| skip.previous)))
    }

    /// Takes in the groups of a file. Also returns where the last one lies.
    fn groups(
        &self,
        journal: &Arc<JournalFile>,
        scanner: &mut Scanner,
        next: Option<FileHeader>,
        restored: &mut Restored,
    ) -> Result<(Range<u64>, Option<Damage>), LogError> {
        let start = FileHeader::BYTES as u64;
        let mut last = start..start;
        let mut expected = journal.first;
        loop {
            let after_skips = scanner.pass_skips(expected);
            if after_skips > expected {
                expected = after_skips;
                restored.previous = scanner.previous().unwrap_or(0);
                restored.index.leave_out(Commit(expected.0 - 1));
            }
            let group_at = scanner.at();
            let damage = |offset: u64, what: String| Damage {
                group_at,
                broken: expected,
                offset,
                what,
                given_up: false,
                garbage: None,
            };
            // The next file follows from here: what lies in between was given up, unless it goes further than that file.
            if let Some(behind) = next.filter(|behind| behind.previous == restored.previous)
                && group_at < scanner.end()
                && !last.is_empty()
            {
                let reach = self.reach(scanner.again(), expected)?;
                let found = damage(group_at, "a failed sync was given up here".to_owned());
                return Ok((
                    last,
                    Some(match reach >= behind.first {
                        true => Damage { garbage: Some(behind.first), ..found },
                        false => Damage { given_up: true, ..found },
                    }),
                ));
            }
            let found = scanner.next_group(expected).and_then(|group| match group {
                Some(group) => self.check(scanner, &group, expected).map(|()| Some(group)),
                None => Ok(None),
            });
            match found {
                Ok(Some(group)) if self.upto.is_some_and(|upto| group.commit > upto) => {
                    let what = "the commit was never synced".to_owned();
                    return Ok((last, Some(damage(group.at, what))));
                }
                Ok(Some(group)) => {
                    last = group.at..group.end;
                    expected = group.commit.next();
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
                    let what =
                        if what.contains("commit") { what } else { format!("{what} (commit {expected})") };
                    return Ok((last, Some(damage(offset, what))));
                }
            }
        }
    }

    /// Reads what a group's headers vouch for, as far as a crash may have spoilt it.
    fn check(&self, scanner: &mut Scanner, group: &ScannedGroup, commit: Commit) -> Result<(), ScanError> {
        for item in &group.items {
            if commit > self.verify_from || !matches!(item.header.body, Body::Frame(_)) {
                scanner.check_payload(item).map_err(|error| named(item, error))?;
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
                    let stamp = Stamp { commit: group.commit, ingest_time: group.ingest_time };
                    restored.topics.recovered(frame, stamp).map_err(corrupt)?;
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
    ) -> Result<Taken, LogError> {
        let Damage { group_at, broken, offset, what, given_up, .. } = damage;
        let acknowledged = match self.upto {
            _ if given_up => false,
            Some(upto) => broken <= upto,
            None => scanner
                .finds_later(group_at, broken)
                .map_err(|source| LogError::io("read", &journal.path, source))?,
        };
        if acknowledged {
            return Err(journal.corrupt(offset, what));
        }
        if last_group.is_empty() && journal.skips().is_empty() {
            let (file, bytes) = (journal.path.clone(), scanner.end() - group_at);
            warn!(file = %file.display(), bytes, reason = what, "took back a journal file whose first group is torn");
            return Ok(Taken::Remove(
                journal.first,
                Some(TornTail { file, offset: group_at, bytes, reason: what }),
            ));
        }
        // A seal before the damage goes with it; the next orderly end writes another.
        let end = group_at;
        let bytes = scanner.end() - end;
        warn!(file = %journal.path.display(), offset = end, bytes, reason = what, "cut a torn tail off the journal");
        restored.recovered.cut =
            Some(TornTail { file: journal.path.clone(), offset: end, bytes, reason: what });
        let file = self.writable(journal)?;
        file.set_len(end).map_err(|e| LogError::io("truncate", &journal.path, e))?;
        let from = if last_group.is_empty() { end } else { last_group.start };
        self.settle(journal, file, from..end, restored)?;
        Ok(Taken::Groups)
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
        if self.upto.is_some() {
            // It is known to be synced.
            at = end;
        }
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
        restored.newest = Some(Sink { journal: Arc::clone(journal), file: Arc::from(file) });
        Ok(())
    }
}

/// Says whose bytes are bad.
pub(crate) fn named(item: &Item, error: ScanError) -> ScanError {
    let ScanError::Bad { offset, what } = error else { return error };
    let commit = item.header.prelude.commit;
    let whose = match &item.header.body {
        Body::Frame(frame) => format!(
            "topic {}, partition {}, offsets {} to {}, commit {commit}",
            frame.topic,
            frame.partition,
            frame.base_offset,
            (frame.base_offset.0 + u64::from(frame.rows)).saturating_sub(1)
        ),
        Body::Schema { topic, .. } => format!("the schema of topic {topic}, commit {commit}"),
        Body::Record { .. } => format!("a control record, commit {commit}"),
        Body::Commit(_) | Body::Seal => format!("commit {commit}"),
    };
    ScanError::Bad { offset, what: format!("{what} ({whose})") }
}

pub(crate) fn frame_ref(journal: &Arc<JournalFile>, item: &Item) -> Option<FrameRef> {
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
        ranges: frame.ranges.clone(),
        place: Place::Journal(JournalPlace {
            file: Arc::clone(journal),
            at: item.payload_at,
            bytes: prelude.payload_bytes,
            crc: prelude.payload_crc,
        }),
    })
}
