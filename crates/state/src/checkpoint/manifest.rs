//! The root of a checkpoint, and its bytes.
//!
//! ```text
//! {"millpond":"manifest","format":1,"bytes":"00000000000000000345","crc32c":"1badcafe","header_crc32c":"0ddba11e"}
//! {"number":17,"writer_epoch":3, ... }
//! ```
//!
//! The first line has a fixed length and its own checksum. So a manifest that was only begun can be told from one that was
//! damaged later: it ends early, and what there is of it is right. No store acknowledges such an object.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_types::{Commit, EventTime, RelationId, hash};
use serde::{Deserialize, Serialize};

use crate::{EncodedRun, RunKind};

/// The root of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts the manifests of a prefix from 1; also its object's name.
    pub number: u64,
    /// Counts the writers of a prefix from 1.
    pub writer_epoch: u64,
    /// Random; tells two writers apart that claim the same epoch at the same time.
    pub writer: u64,
    /// `millpond_types::hash::VERSION`
    pub hash_version: u32,
    /// The version of the program that wrote it; only informs.
    pub program: String,
    /// Everything up to here is in the state, nothing after.
    pub cut: Commit,
    /// The logged `now()` at the cut.
    pub now: Option<EventTime>,
    pub watermarks: BTreeMap<RelationId, EventTime>,
    pub time_zone_data: String,
    /// The engine's: definitions of relations and views.
    pub catalog: serde_json::Value,
    /// The engine's: sink positions and the like.
    pub extra: serde_json::Value,
    /// By state id.
    pub states: BTreeMap<String, StateEntry>,
}

/// The runs of one state, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Of the plan and types that the state belongs to: another plan must not restore it.
    pub fingerprint: String,
    pub runs: Vec<RunRef>,
}

/// An uploaded run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// Below the prefix: `state/<state id>/<writer epoch>-<sequence>.run`.
    pub path: String,
    pub bytes: u64,
    pub crc32c: u32,
    pub kind: RunKind,
    pub rows: u64,
}

/// What a checkpoint should hold. States that are not named leave the manifest.
#[derive(Clone, Debug, Default)]
pub struct ManifestDraft {
    pub cut: Commit,
    pub now: Option<EventTime>,
    pub watermarks: BTreeMap<RelationId, EventTime>,
    pub time_zone_data: String,
    pub catalog: serde_json::Value,
    pub extra: serde_json::Value,
    pub states: BTreeMap<String, Change>,
    /// Finished merges; those whose inputs are not there any more are passed over.
    pub merged: Vec<Merged>,
}

/// How a state differs from the newest manifest.
#[derive(Clone, Debug)]
pub enum Change {
    /// Not at all (but for merges).
    Keep,
    /// By these further runs, oldest first. The fingerprint must be the same, or the state new.
    Add { fingerprint: String, runs: Vec<NewRun> },
    /// It consists of these runs alone.
    Replace { fingerprint: String, runs: Vec<NewRun> },
}

/// A run that is to be published.
#[derive(Clone, Debug)]
pub enum NewRun {
    Encoded(EncodedRun),
    Uploaded(RunRef),
}

/// A merge that is done: `output` stands for `inputs`.
#[derive(Clone, Debug)]
pub struct Merged {
    pub state: String,
    pub inputs: Vec<RunRef>,
    pub output: RunRef,
}

impl Manifest {
    /// Of a prefix where nothing was ever published.
    pub(super) fn empty() -> Self {
        Self {
            number: 0,
            writer_epoch: 0,
            writer: 0,
            hash_version: hash::VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            cut: Commit(0),
            now: None,
            watermarks: BTreeMap::new(),
            time_zone_data: String::new(),
            catalog: serde_json::Value::Null,
            extra: serde_json::Value::Null,
            states: BTreeMap::new(),
        }
    }

    /// All runs that it names.
    pub fn runs(&self) -> impl Iterator<Item = &RunRef> {
        self.states.values().flat_map(|state| &state.runs)
    }

    pub(super) fn encode(&self) -> Bytes {
        let body = serde_json::to_string(self).expect("a manifest has string keys only") + "\n";
        let mut text = format!("{PREFIX}{FORMAT},\"bytes\":\"{:020}\",\"crc32c\":\"", body.len());
        text += &format!("{:08x}", crc32c::crc32c(body.as_bytes()));
        text += &format!("\",\"header_crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(text.as_bytes()));
        debug_assert_eq!(text.len(), HEADER);
        text += &body;
        Bytes::from(text)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Read, Unreadable> {
        let damaged = |what: String| Err(Unreadable::Damaged(what));
        let known = PREFIX.len().min(bytes.len());
        if bytes[..known] != PREFIX.as_bytes()[..known] {
            return damaged("it does not begin like a manifest".to_owned());
        }
        let format: String =
            bytes[known..].iter().map_while(|b| b.is_ascii_digit().then_some(*b as char)).take(9).collect();
        // Where the digits end the bytes the number may be longer.
        if bytes.len() > known + format.len() && format != FORMAT {
            return Err(Unreadable::Format(format));
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER) else { return Ok(Read::Begun) };
        let (covered, check) = header.split_at(HEADER_COVERED);
        if check != format!("\",\"header_crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(covered)).as_bytes() {
            return damaged("the checksum of its header is wrong".to_owned());
        }
        let text = std::str::from_utf8(covered).ok();
        let length = text.and_then(|text| text[BYTES_AT..BYTES_AT + 20].parse::<usize>().ok());
        let expected = text.and_then(|text| u32::from_str_radix(&text[HEADER_COVERED - 8..], 16).ok());
        let (Some(length), Some(expected)) = (length, expected) else {
            return damaged("its header is malformed".to_owned());
        };
        if body.len() < length {
            return Ok(Read::Begun);
        }
        if body.len() > length {
            return damaged(format!("it has {} bytes too many", body.len() - length));
        }
        let found = crc32c::crc32c(body);
        if found != expected {
            return damaged(format!("its checksum is {found:08x}, not {expected:08x}"));
        }
        match serde_json::from_slice(body) {
            Ok(manifest) => Ok(Read::Whole(Box::new(manifest))),
            Err(error) => damaged(format!("its content is malformed: {error}")),
        }
    }
}

const PREFIX: &str = "{\"millpond\":\"manifest\",\"format\":";
const FORMAT: &str = "1";
const BYTES_AT: usize = PREFIX.len() + FORMAT.len() + ",\"bytes\":\"".len();
const HEADER_COVERED: usize = BYTES_AT + 20 + "\",\"crc32c\":\"".len() + 8;
const HEADER: usize = HEADER_COVERED + "\",\"header_crc32c\":\"01234567\"}\n".len();

/// A manifest's bytes that are no contradiction.
#[derive(Debug)]
pub(super) enum Read {
    Whole(Box<Manifest>),
    /// It was never finished.
    Begun,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged(String),
    /// Of another program's time.
    Format(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let run =
            RunRef { path: "state/a/1-1.run".into(), bytes: 9, crc32c: 7, kind: RunKind::Heap, rows: 3 };
        let entry = StateEntry { fingerprint: "f".into(), runs: vec![run] };
        Manifest {
            number: 5,
            cut: Commit(77),
            now: Some(EventTime(-1)),
            watermarks: [(RelationId(3), EventTime::MAX)].into(),
            states: [("a".to_owned(), entry)].into(),
            extra: serde_json::json!({"sinks": [1, 2]}),
            ..Manifest::empty()
        }
    }

    #[test]
    fn a_manifest_travels() {
        let Ok(Read::Whole(read)) = Manifest::decode(&manifest().encode()) else { panic!("not read") };
        assert_eq!(*read, manifest());
    }

    #[test]
    fn a_cut_manifest_was_never_finished() {
        let bytes = manifest().encode();
        for length in 0..bytes.len() {
            assert!(matches!(Manifest::decode(&bytes[..length]), Ok(Read::Begun)), "length {length}");
        }
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        let bytes = manifest().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = Manifest::decode(&bad);
            assert!(read.is_err(), "bit {bit}: {read:?}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let text = String::from_utf8(manifest().encode().to_vec()).unwrap().replacen(
            "\"format\":1",
            "\"format\":12",
            1,
        );
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap_err(), Unreadable::Format("12".to_owned()));
    }
}
