//! Reading groups back, in order.

use std::sync::Arc;

use millpond_types::Commit;

use crate::format::{Bad, Body, FileHeader, decode_record};
use crate::index::JournalFile;
use crate::payload::decode_batch;
use crate::scan::{Item, ScanError, ScannedGroup, Scanner};
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

struct Place {
    /// Its place among the files.
    number: usize,
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
        let found = match self.place.take() {
            Some(place) => Some(place),
            None => self.start()?,
        };
        let Some(mut place) = found else { return Ok(None) };
        loop {
            let found = place.scanner.next_group(place.next).map_err(|e| place.error(e))?;
            let Some(group) = found else {
                let written = place.file.written();
                if written > place.scanner.end() {
                    place.scanner.extend(written);
                } else {
                    match self.open(place.number + 1, FileHeader::BYTES as u64, None)? {
                        Some(next) => place = next,
                        None => return Ok(None),
                    }
                }
                continue;
            };
            place.next = group.commit.next();
            if group.commit > self.to {
                return Ok(None);
            }
            if group.commit >= self.next {
                let group = decode(&mut place.scanner, &place.file, &group).map_err(|e| place.error(e))?;
                self.place = Some(place);
                return Ok(Some(group));
            }
        }
    }

    fn start(&self) -> Result<Option<Place>, LogError> {
        let Some(mark) = self.shared.index.read().mark(self.next) else { return Ok(None) };
        self.open(mark.file, mark.at, Some(mark.commit))
    }

    /// Reads a file from somewhere, or from its first group on.
    fn open(&self, number: usize, at: u64, next: Option<Commit>) -> Result<Option<Place>, LogError> {
        let Some(file) = self.shared.index.read().files.get(number).cloned() else { return Ok(None) };
        let next = next.unwrap_or(file.first);
        let handle = file.open(&*self.shared.env.disk)?;
        let scanner = Scanner::new(handle, at, file.written(), None).skipping(file.skips());
        Ok(Some(Place { number, file, scanner, next }))
    }
}

impl Place {
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
