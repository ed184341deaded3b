//! Reading items and groups off a file, believing nothing.

use std::io;
use std::sync::Arc;

use arrow::buffer::{Buffer, MutableBuffer};
use millpond_env::DiskFile;
use millpond_types::{Commit, EventTime, RelationId};

use crate::format::{Bad, Body, ItemHeader, MAGIC, PRELUDE_BYTES, Skip, header_bytes_claimed};

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// How much after a jump over rows that need not be looked at.
const JUMP_BYTES: usize = 8 << 10;
/// The search after damage looks at headers up to this size only: those of commit records and seals.
const SEARCH_HEADER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) enum ScanError {
    Bad { offset: u64, what: Bad },
    Io(io::Error),
}

fn bad<T>(offset: u64, what: impl Into<Bad>) -> Result<T, ScanError> {
    Err(ScanError::Bad { offset, what: what.into() })
}

/// An item whose header is sound. Its payload lies inside of the file but is not checked.
#[derive(Debug)]
pub(crate) struct Item {
    pub at: u64,
    pub payload_at: u64,
    pub header: ItemHeader,
}

/// A group whose headers are sound.
#[derive(Debug)]
pub(crate) struct ScannedGroup {
    pub commit: Commit,
    pub ingest_time: EventTime,
    pub at: u64,
    pub end: u64,
    /// Without the commit record.
    pub items: Vec<Item>,
    pub watermarks: Vec<(RelationId, EventTime)>,
}

/// Walks over a file, item by item.
pub(crate) struct Scanner {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
    /// The crc of the header before, where it is known.
    previous: Option<u32>,
    /// The item before was a seal.
    sealed: bool,
    /// What a repair has given up.
    skips: Arc<[Skip]>,
    window: Vec<u8>,
    window_at: u64,
}

impl Scanner {
    /// Reads `file` from `at` to `end`.
    pub fn new(file: Arc<dyn DiskFile>, at: u64, end: u64, previous: Option<u32>) -> Self {
        let (skips, window) = (Arc::default(), Vec::new());
        Self { file, at, end, previous, sealed: false, skips, window, window_at: 0 }
    }

    /// Another walk from where this one is.
    pub fn again(&self) -> Self {
        let (file, skips) = (Arc::clone(&self.file), Arc::clone(&self.skips));
        Self::new(file, self.at, self.end, self.previous).skipping(skips)
    }

    /// Leaves out what a repair has given up.
    pub fn skipping(mut self, skips: Arc<[Skip]>) -> Self {
        self.skips = skips;
        self
    }

    /// Goes on somewhere else, where a header follows one with the crc `previous`.
    pub fn jump(&mut self, at: u64, previous: u32) {
        (self.at, self.previous, self.sealed) = (at, Some(previous), false);
    }

    /// Where the next item begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// More has been written.
    pub fn extend(&mut self, end: u64) {
        self.end = end;
    }

    pub fn previous(&self) -> Option<u32> {
        self.previous
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// `n` bytes that lie before the end.
    fn bytes(&mut self, at: u64, n: usize) -> io::Result<&[u8]> {
        let inside = at >= self.window_at && at + n as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let jumps = at > self.window_at + self.window.len() as u64 && !self.window.is_empty();
            let wanted = if jumps { JUMP_BYTES } else { WINDOW_BYTES };
            let length = wanted.max(n).min(usize::try_from(self.end - at).unwrap_or(usize::MAX));
            self.window.resize(length, 0);
            self.window_at = at;
            let read = self.file.read_exact_at(&mut self.window, at);
            if read.is_err() {
                self.window.clear();
            }
            read?;
        }
        let from = (at - self.window_at) as usize;
        Ok(&self.window[from..from + n])
    }

    fn next_item(&mut self) -> Result<Option<Item>, ScanError> {
        let (at, left) = (self.at, self.end - self.at);
        if left == 0 {
            return Ok(None);
        }
        if left < PRELUDE_BYTES as u64 {
            return bad(at, "the header is cut off");
        }
        let prelude = self.bytes(at, PRELUDE_BYTES).map_err(ScanError::Io)?;
        let claimed = header_bytes_claimed(prelude).or_else(|what| bad(at, what))?;
        if claimed as u64 > left {
            return bad(at, "the header is cut off");
        }
        let bytes = self.bytes(at, claimed).map_err(ScanError::Io)?;
        let header = ItemHeader::decode(bytes).or_else(|what| bad(at, what))?;
        if self.previous.is_some_and(|previous| previous != header.prelude.previous) {
            return bad(at, "the item does not follow the one before it");
        }
        match header.payload_padded() {
            Some(payload) if payload <= left - claimed as u64 => self.at = at + claimed as u64 + payload,
            _ => return bad(at, "the payload is cut off"),
        }
        self.previous = Some(header.crc);
        Ok(Some(Item { at, payload_at: at + claimed as u64, header }))
    }

    /// Passes what a repair has given up here; returns which group comes next.
    pub fn pass_skips(&mut self, mut expected: Commit) -> Commit {
        while let Some(skip) = self.skips.iter().find(|skip| skip.from == self.at) {
            let (to, previous) = (skip.to, skip.previous);
            expected = skip.next;
            self.jump(to.min(self.end), previous);
        }
        expected
    }

    /// The next complete group, which must have this number, or the one after a skip; `None` at the end of the file.
    pub fn next_group(&mut self, mut expected: Commit) -> Result<Option<ScannedGroup>, ScanError> {
        let mut start = self.at;
        let mut items = Vec::new();
        let mut ingest_time = None;
        loop {
            if items.is_empty() {
                expected = self.pass_skips(expected);
                start = self.at;
            }
            let Some(item) = self.next_item()? else {
                return if items.is_empty() {
                    Ok(None)
                } else {
                    bad(start, "the group has no commit record")
                };
            };
            let at = item.at;
            let prelude = item.header.prelude;
            if matches!(item.header.body, Body::Seal) {
                if !items.is_empty() || prelude.commit.next() != expected {
                    return bad(at, "a seal lies in the wrong place");
                }
                (self.sealed, start) = (true, self.at);
                continue;
            }
            self.sealed = false;
            if prelude.commit != expected {
                return bad(at, format!("commit {} lies where {expected} was expected", prelude.commit));
            }
            if *ingest_time.get_or_insert(prelude.ingest_time) != prelude.ingest_time {
                return bad(at, "the items of a group have different times");
            }
            if let Body::Commit(commit) = item.header.body {
                let crcs = items.iter().map(|item: &Item| &item.header.crc);
                if commit.group_bytes != at - start || !commit.items.iter().eq(crcs) {
                    return bad(at, "the commit record does not list the items before it");
                }
                return Ok(Some(ScannedGroup {
                    commit: expected,
                    ingest_time: prelude.ingest_time,
                    at: start,
                    end: self.at,
                    items,
                    watermarks: commit.watermarks,
                }));
            }
            items.push(item);
        }
    }

    /// The payload of an item, checked, at the start of an aligned buffer.
    pub fn payload(&mut self, item: &Item) -> Result<Buffer, ScanError> {
        let padded = (item.header.payload_padded()).expect("it was checked when the item was read") as usize;
        let mut buffer = MutableBuffer::from_len_zeroed(padded);
        let inside = item.payload_at >= self.window_at
            && item.payload_at + padded as u64 <= self.window_at + self.window.len() as u64;
        if inside || padded < WINDOW_BYTES / 4 {
            buffer.copy_from_slice(self.bytes(item.payload_at, padded).map_err(ScanError::Io)?);
        } else {
            self.file.read_exact_at(&mut buffer, item.payload_at).map_err(ScanError::Io)?;
        }
        if crc32c::crc32c(&buffer) != item.header.prelude.payload_crc {
            return bad(item.payload_at, "the checksum of the payload does not match");
        }
        Ok(Buffer::from(buffer).slice_with_length(0, item.header.prelude.payload_bytes as usize))
    }

    /// Checks a payload without keeping it.
    pub fn check_payload(&mut self, item: &Item) -> Result<(), ScanError> {
        let mut left = item.header.payload_padded().expect("it was checked when the item was read");
        let (mut at, mut crc) = (item.payload_at, 0);
        while left > 0 {
            let n = left.min(WINDOW_BYTES as u64) as usize;
            crc = crc32c::crc32c_append(crc, self.bytes(at, n).map_err(ScanError::Io)?);
            at += n as u64;
            left -= n as u64;
        }
        if crc == item.header.prelude.payload_crc {
            Ok(())
        } else {
            bad(item.payload_at, "the checksum of the payload does not match")
        }
    }

    /// Looks behind damage for where groups go on: the place, the number of the group there, and the crc of the header
    /// before it. What looks like a commit record should be followed by what names it, or by the end; where there is no
    /// such thing, one that is followed by more damage is taken.
    pub fn resync(&mut self, from: u64, broken: Commit) -> io::Result<Option<(u64, Commit, u32)>> {
        let mut second_best = None;
        let mut at = from.next_multiple_of(8);
        while let Some((header_at, header)) = self.find_header(at)? {
            at = header_at + 8;
            let next = header.prelude.commit.next();
            if next <= broken {
                continue;
            }
            match header.body {
                Body::Commit(_) => {
                    let end = header_at + header.header_bytes as u64;
                    let found = Some((end, next, header.crc));
                    match self.header_at(end)? {
                        Some(behind) if behind.prelude.previous == header.crc => return Ok(found),
                        None if end == self.end => return Ok(found),
                        None => second_best = second_best.or(found),
                        Some(_) => {}
                    }
                }
                Body::Seal if header_at > from => {
                    return Ok(Some((header_at, next, header.prelude.previous)));
                }
                _ => {}
            }
        }
        Ok(second_best)
    }

    /// The header at a place, if there is a sound one.
    pub fn header_at(&mut self, at: u64) -> io::Result<Option<ItemHeader>> {
        let left = self.end.saturating_sub(at);
        if left < PRELUDE_BYTES as u64 {
            return Ok(None);
        }
        let head = self.bytes(at, PRELUDE_BYTES)?;
        if head[..4] != MAGIC.to_le_bytes() {
            return Ok(None);
        }
        match header_bytes_claimed(head) {
            Ok(claimed) if claimed <= SEARCH_HEADER_BYTES_MAX && claimed as u64 <= left => {
                Ok(ItemHeader::decode(self.bytes(at, claimed)?).ok())
            }
            _ => Ok(None),
        }
    }

    /// The first sound header at or behind a place.
    fn find_header(&mut self, mut at: u64) -> io::Result<Option<(u64, ItemHeader)>> {
        while at + PRELUDE_BYTES as u64 <= self.end {
            if let Some(header) = self.header_at(at)? {
                return Ok(Some((at, header)));
            }
            at += 8;
        }
        Ok(None)
    }

    /// Whether somewhere after `from` lies proof that the group `broken` was once complete and synced: a commit record
    /// after its own, or its own with anything behind it, or a seal. A group is only written when the one before it is synced.
    pub fn finds_later(&mut self, from: u64, broken: Commit) -> io::Result<bool> {
        let mut at = from.next_multiple_of(8);
        while let Some((header_at, header)) = self.find_header(at)? {
            let commit = header.prelude.commit;
            let later = match header.body {
                Body::Commit(_) if commit == broken => header_at + (header.header_bytes as u64) < self.end,
                Body::Commit(_) => commit > broken,
                Body::Seal => commit >= broken,
                _ => false,
            };
            if later {
                return Ok(true);
            }
            at = header_at + 8;
        }
        Ok(false)
    }
}
