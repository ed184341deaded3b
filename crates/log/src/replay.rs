//! Reading groups back, in order.

use std::sync::Arc;

use millpond_types::Commit;

use crate::format::{Bad, Body, FileHeader, decode_record};
use crate::index::{JournalFile, Mark};
use crate::payload::decode_batch;
use crate::scan::{Item, ScanError, ScannedGroup, Scanner};
use crate::segment::SealedReader;
use crate::writer::Shared;
use crate::{CommittedFrame, CommittedGroup, LogError};

/// The groups of a range of commits. Reads files ahead of nobody: rows that were acknowledged while it runs are not in it.
/// After an error it ends.
pub struct Replay {
    shared: Arc<Shared>,
    next: Commit,
    to: Commit,
    place: Option<Place>,
}

/// Where the next group is read.
enum Place {
    Sealed(Box<SealedReader>),
    Journal(Journal),
}

struct Journal {
    /// Also keeps the file from being removed.
    file: Arc<JournalFile>,
    scanner: Scanner,
    /// The next group of the scanner.
    next: Commit,
}

impl Replay {
    pub(crate) fn new(shared: Arc<Shared>, from: Commit, to: Commit) -> Self {
        let to = to.min(shared.index.read().last());
        Self { shared, next: from.next(), to, place: None }
    }

    /// The next group; `None` where those up to the end of the range are not there any more: a failed sync has lost them, or
    /// a repair has given them up.
    fn read(&mut self) -> Result<Option<CommittedGroup>, LogError> {
        let mut ended = None;
        loop {
            let mut place = match self.place.take() {
                Some(place) => place,
                None => match self.open(ended)? {
                    Some(place) => place,
                    None => return Ok(None),
                },
            };
            let group = match &mut place {
                Place::Sealed(reader) => {
                    // What ends a cut is in the next one, or in the journal.
                    ended = None;
                    let group = reader.read(&self.shared.tier.store, self.next)?;
                    if group.is_none() {
                        self.next = self.next.max(reader.last().next());
                    }
                    group
                }
                Place::Journal(journal) => {
                    ended = Some(journal.file.first);
                    journal.read(self.next)?
                }
            };
            match group {
                Some(group) if group.commit > self.to => return Ok(None),
                Some(group) => {
                    self.place = Some(place);
                    return Ok(Some(group));
                }
                None if self.next > self.to => return Ok(None),
                None => {}
            }
        }
    }

    /// Finds the next commit: meanwhile, its journal file may have become segments. Behind a journal file that has ended, the
    /// next group is the first of the next file, whatever its number.
    fn open(&self, ended: Option<Commit>) -> Result<Option<Place>, LogError> {
        let (sealed, mark) = {
            let index = self.shared.index.read();
            let mark = match ended {
                None => index.mark(self.next),
                Some(first) => index.file_after(first).map(|file| {
                    let at = FileHeader::BYTES as u64;
                    Mark { commit: file.first, file: Arc::clone(file), at }
                }),
            };
            (Arc::clone(index.sealed()), mark)
        };
        if let Some(cut) = sealed.cut(self.next) {
            let reader = SealedReader::open(&self.shared.tier.store, &sealed, cut, self.next)?;
            return Ok(Some(Place::Sealed(Box::new(reader))));
        }
        let Some(Mark { commit, file, at }) = mark else { return Ok(None) };
        let handle = file.open(&*self.shared.env.disk)?;
        let scanner = Scanner::new(handle, at, file.written(), None).skipping(file.skips());
        Ok(Some(Place::Journal(Journal { file, scanner, next: commit })))
    }
}

impl Journal {
    /// The next group from `from` on; `None` at the end of the file.
    fn read(&mut self, from: Commit) -> Result<Option<CommittedGroup>, LogError> {
        loop {
            let Some(group) = self.scanner.next_group(self.next).map_err(|e| self.error(e))? else {
                let written = self.file.written();
                if written > self.scanner.end() {
                    self.scanner.extend(written);
                    continue;
                }
                return Ok(None);
            };
            self.next = group.commit.next();
            if group.commit >= from {
                let group = decode(&mut self.scanner, &self.file, &group).map_err(|e| self.error(e))?;
                return Ok(Some(group));
            }
        }
    }

    fn error(&self, error: ScanError) -> LogError {
        match error {
            ScanError::Bad { offset, what } => self.file.corrupt(offset, what),
            ScanError::Io(source) => LogError::io("read", &self.file.path, source),
        }
    }
}

impl Iterator for Replay {
    type Item = Result<CommittedGroup, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.to {
            return None;
        }
        let found = self.read().transpose();
        self.next = match &found {
            Some(Ok(group)) => group.commit.next(),
            _ => Commit(u64::MAX),
        };
        found
    }
}

fn decode(
    scanner: &mut Scanner,
    file: &JournalFile,
    group: &ScannedGroup,
) -> Result<CommittedGroup, ScanError> {
    let (mut frames, mut records) = (Vec::new(), Vec::new());
    for item in &group.items {
        match &item.header.body {
            Body::Frame(_) => frames.push(decode_frame(scanner, file, item)?),
            Body::Record { tag } => {
                let payload = scanner.payload(item)?;
                records.push(decode_record(*tag, &payload).map_err(|what| bad(item, what))?);
            }
            Body::Schema { .. } | Body::Commit(_) | Body::Seal => {}
        }
    }
    let watermarks = group.watermarks.clone();
    Ok(CommittedGroup { commit: group.commit, ingest_time: group.ingest_time, frames, records, watermarks })
}

fn decode_frame(scanner: &mut Scanner, file: &JournalFile, item: &Item) -> Result<CommittedFrame, ScanError> {
    let Body::Frame(frame) = &item.header.body else { unreachable!("the caller has matched a frame") };
    let schema = file
        .schema(frame.schema_id)
        .ok_or_else(|| bad(item, "the file has no schema for the frame".into()))?;
    let payload = scanner.payload(item)?;
    let batch = decode_batch(&payload, &schema, frame.rows, None).map_err(|what| bad(item, what))?;
    Ok(CommittedFrame {
        topic: frame.topic,
        partition: frame.partition,
        base_offset: frame.base_offset,
        watermark: frame.watermark,
        event_time: frame.event_time,
        ingest_time: item.header.prelude.ingest_time,
        kind: frame.kind,
        schema_version: frame.schema_version,
        position: frame.position.clone(),
        batch,
    })
}

fn bad(item: &Item, what: Bad) -> ScanError {
    ScanError::Bad { offset: item.at, what }
}
