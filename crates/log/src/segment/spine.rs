//! What a cut journal file held beside rows: its commit groups, in order, with their records and watermarks.
//!
//! ```text
//! 0 magic "MPSPINE1"  8 first commit u64  16 last commit u64  24 unpacked bytes u64  32 items, packed by zstd
//! ```
//!
//! The items are those of the journal (module `format`): records, each group ended by its commit record. The manifest holds
//! the crc of the file.

use bytes::Bytes;
use millpond_types::{Commit, EventTime, RelationId};

use crate::Record;
use crate::format::{
    Bad, Body, CommitRecord, Fields, ItemHeader, Prelude, decode_record, encode_record, header_bytes_claimed,
};

const MAGIC: u64 = u64::from_le_bytes(*b"MPSPINE1");
const HEADER_BYTES: usize = 32;
const BYTES_MAX: u64 = 1 << 30;

/// A commit group without its frames.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpineGroup {
    pub commit: Commit,
    pub ingest_time: EventTime,
    pub records: Vec<Record>,
    pub watermarks: Vec<(RelationId, EventTime)>,
}

/// Collects groups.
#[derive(Default)]
pub(super) struct SpineDraft {
    items: Vec<u8>,
    first: Option<Commit>,
    last: Commit,
}

impl SpineDraft {
    pub fn group(&mut self, group: SpineGroup) {
        let SpineGroup { commit, ingest_time, records, watermarks } = group;
        for record in &records {
            let (tag, payload) = encode_record(record);
            let prelude = Prelude {
                commit,
                ingest_time,
                previous: 0,
                payload_bytes: payload.len() as u64,
                payload_crc: 0,
            };
            ItemHeader::encode(&prelude, &Body::Record { tag }, &mut self.items);
            self.items.extend_from_slice(&payload);
        }
        let prelude = Prelude { commit, ingest_time, previous: 0, payload_bytes: 0, payload_crc: 0 };
        let record = CommitRecord { items: Vec::new(), group_bytes: 0, watermarks };
        ItemHeader::encode(&prelude, &Body::Commit(record), &mut self.items);
        self.first.get_or_insert(commit);
        self.last = commit;
    }

    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let packed = zstd::bulk::compress(&self.items, super::ZSTD_LEVEL)?;
        let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
        out.extend(MAGIC.to_le_bytes());
        // Of nothing at all the first comes after the last.
        out.extend(self.first.unwrap_or(Commit(1)).0.to_le_bytes());
        out.extend(self.last.0.to_le_bytes());
        out.extend((self.items.len() as u64).to_le_bytes());
        out.extend(packed);
        Ok(out)
    }
}

/// The groups of one cut, decoded one by one.
#[derive(Debug)]
pub(crate) struct Spine {
    items: Bytes,
    next: Commit,
    last: Commit,
}

impl Spine {
    /// Opens a spine whose crc was checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut fields = Fields(bytes);
        if fields.u64()? != MAGIC {
            return Err("it is not a spine".to_owned());
        }
        let (next, last) = (Commit(fields.u64()?), Commit(fields.u64()?));
        let length = fields.u64()?;
        let capacity = usize::try_from(length).ok().filter(|_| length <= BYTES_MAX);
        let items = zstd::bulk::decompress(fields.0, capacity.ok_or("it is too long")?)
            .map_err(|error| format!("it cannot be unpacked: {error}"))?;
        Ok(Self { items: items.into(), next, last })
    }

    fn read(&mut self) -> Result<SpineGroup, Bad> {
        let mut records = Vec::new();
        loop {
            let claimed = header_bytes_claimed(&self.items)?;
            let too_short = || "it is cut off".to_owned();
            let header = ItemHeader::decode(self.items.get(..claimed).ok_or_else(too_short)?)?;
            let payload_bytes = usize::try_from(header.prelude.payload_bytes).map_err(|_| too_short())?;
            let end = claimed.checked_add(payload_bytes).filter(|end| *end <= self.items.len());
            let end = end.ok_or_else(too_short)?;
            let Prelude { commit, ingest_time, .. } = header.prelude;
            if commit < self.next || commit > self.last {
                return Err(format!("commit {commit} lies where {} was expected", self.next));
            }
            match header.body {
                Body::Record { tag } => records.push(decode_record(tag, &self.items[claimed..end])?),
                Body::Commit(record) => {
                    self.items = self.items.slice(end..);
                    self.next = commit.next();
                    return Ok(SpineGroup { commit, ingest_time, records, watermarks: record.watermarks });
                }
                _ => return Err("it holds something else than groups".to_owned()),
            }
            self.items = self.items.slice(end..);
        }
    }
}

impl Iterator for Spine {
    type Item = Result<SpineGroup, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        let group = self.read();
        if group.is_err() {
            self.next = Commit(u64::MAX);
            self.last = Commit(0);
        }
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_travel_and_damage_is_no_panic() {
        let mut draft = SpineDraft::default();
        let groups: Vec<_> = (5..9)
            .map(|n| SpineGroup {
                commit: Commit(n),
                ingest_time: EventTime(n as i64 * 10),
                records: (0..n % 3).map(|r| Record::Ddl(Bytes::from(vec![7; r as usize]))).collect(),
                watermarks: vec![(RelationId(3), EventTime(n as i64))],
            })
            .collect();
        groups.iter().for_each(|group| draft.group(group.clone()));
        let bytes = draft.encode().unwrap();
        let read: Vec<_> = Spine::decode(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, groups);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            if let Ok(spine) = Spine::decode(&bad) {
                spine.for_each(drop);
            }
            if let Ok(spine) = Spine::decode(&bytes[..at]) {
                spine.for_each(drop);
            }
        }
    }
}
