//! The list of everything that is in segments, and the state of the log after it.
//!
//! ```text
//! {"millpond":"segments","format":1,"number":17,"bytes":345,"crc32c":"1badcafe"}
//! {"through":90,"cuts":[…],"segments":[…], … }
//! ```
//!
//! On the local disk a manifest is written beside, synced, renamed to `manifest-<number>.json`, and the folder synced; in the
//! object store it is created under a number that nothing has. The newest one counts; what it does not name does not exist.

use std::path::{Path, PathBuf};

use millpond_env::Open;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};
use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::format::Bad;
use crate::topic::SavedTopics;
use crate::{LogError, WriteKind};

const FORMAT: u32 = 1;

/// What the log holds in segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Everything up to here is in segments; the journal files go on behind.
    pub through: Commit,
    /// The crc of the newest header that was cut, which the next journal file continues.
    pub chain: u32,
    pub ingest_time: Option<EventTime>,
    pub last_tick: Option<EventTime>,
    /// The fold at `through`.
    pub topics: SavedTopics,
    /// In order. Numbers between them belong to no group.
    pub cuts: Vec<CutEntry>,
    /// Sorted by topic, partition, commit.
    pub segments: Vec<SegmentEntry>,
    /// What retention has taken.
    #[serde(default)]
    pub trimmed: Vec<Trimmed>,
}

/// One journal file that was cut: its spine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CutEntry {
    pub first: Commit,
    pub last: Commit,
    pub bytes: u64,
    pub crc32c: u32,
    #[serde(default)]
    pub uploaded: bool,
}

/// Rows of one partition and one schema, out of a range of commits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentEntry {
    pub topic: RelationId,
    pub partition: PartitionId,
    /// Commits of the first and the last frame.
    pub first: Commit,
    pub last: Commit,
    /// Tells segments of the same commits apart, such as those of two schemas, or before and after a compaction.
    pub number: u32,
    pub schema_version: u32,
    #[serde(with = "kind")]
    pub kind: WriteKind,
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub rows: u64,
    pub frames: u64,
    pub first_time: EventTime,
    pub last_time: EventTime,
    pub bytes: u64,
    /// Where its rows end.
    pub tail_at: u64,
    /// Of everything from there.
    pub tail_crc32c: u32,
    /// Rows that were superseded are left out.
    #[serde(default)]
    pub compacted: bool,
    #[serde(default)]
    pub uploaded: bool,
    /// There is a copy on this disk.
    pub local: bool,
}

/// How much of a partition is gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trimmed {
    pub topic: RelationId,
    pub partition: PartitionId,
    /// Everything before is gone.
    pub offset: Offset,
    /// Everything up to here is gone.
    pub through: Commit,
}

#[derive(Serialize, Deserialize)]
struct Head {
    millpond: String,
    format: u32,
    number: u64,
    bytes: usize,
    crc32c: String,
}

mod kind {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::WriteKind;

    pub fn serialize<S: Serializer>(kind: &WriteKind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match kind {
            WriteKind::Append => "append",
            WriteKind::Upsert => "upsert",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<WriteKind, D::Error> {
        match String::deserialize(from)?.as_str() {
            "append" => Ok(WriteKind::Append),
            "upsert" => Ok(WriteKind::Upsert),
            other => Err(serde::de::Error::custom(format!("kind \"{other}\" is not known"))),
        }
    }
}

impl SegmentEntry {
    /// `0000…12-0000…90.parquet`
    fn file(&self) -> String {
        match self.number {
            0 => format!("{:020}-{:020}.parquet", self.first.0, self.last.0),
            n => format!("{:020}-{:020}.{n}.parquet", self.first.0, self.last.0),
        }
    }

    /// In the local folder.
    pub fn local_name(&self) -> String {
        format!("{}-{}-{}", self.topic, self.partition, self.file())
    }

    /// In the object store.
    pub fn object_name(&self) -> String {
        format!("topics/{}/p={}/{}", self.topic, self.partition, self.file())
    }

    /// What names it; values with other flags share it.
    pub fn key(&self) -> (RelationId, PartitionId, Commit, Commit, u32) {
        (self.topic, self.partition, self.first, self.last, self.number)
    }
}

impl CutEntry {
    pub fn local_name(&self) -> String {
        format!("{:020}-{:020}.spine", self.first.0, self.last.0)
    }

    pub fn object_name(&self) -> String {
        format!("log/spine/{}", self.local_name())
    }
}

impl Manifest {
    pub fn sort(&mut self) {
        self.segments.sort_by_key(SegmentEntry::key);
    }

    pub fn encode(&self, number: u64) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a manifest has string keys only") + "\n";
        framed(&body, number)
    }

    pub fn decode(bytes: &[u8], number: u64) -> Result<Self, Bad> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (line, body) = text.split_once('\n').ok_or("its first line is cut off")?;
        let (head, check) = line.rsplit_once(' ').ok_or("its first line is malformed")?;
        if check != format!("{:08x}", crc32c::crc32c(head.as_bytes())) {
            return Err("the checksum of its first line is wrong".to_owned());
        }
        let head: Head = serde_json::from_str(head).map_err(|error| format!("its first line: {error}"))?;
        if head.millpond != "segments" || head.number != number {
            return Err("it is another file than its name says".to_owned());
        }
        if head.format != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", head.format));
        }
        if body.len() != head.bytes || format!("{:08x}", crc32c::crc32c(body.as_bytes())) != head.crc32c {
            return Err("its checksum is wrong".to_owned());
        }
        let manifest: Self = serde_json::from_str(body).map_err(|error| format!("its content: {error}"))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// What everybody else relies on.
    fn check(&self) -> Result<(), Bad> {
        let mut end = Commit(0);
        for cut in &self.cuts {
            if cut.first <= end || cut.last < cut.first {
                return Err(format!("its list of cuts is out of order at commit {}", cut.first));
            }
            end = cut.last;
        }
        if end != self.through {
            return Err(format!("it ends at commit {end} instead of {}", self.through));
        }
        for segment in &self.segments {
            let wrong = segment.last < segment.first
                || segment.last > self.through
                || segment.tail_at > segment.bytes
                || segment.end_offset < segment.base_offset;
            if wrong {
                return Err(format!("segment {} is impossible", segment.object_name()));
            }
        }
        Ok(())
    }
}

/// A body behind the line that vouches for it.
pub(super) fn framed(body: &str, number: u64) -> Vec<u8> {
    let head = Head {
        millpond: "segments".to_owned(),
        format: FORMAT,
        number,
        bytes: body.len(),
        crc32c: format!("{:08x}", crc32c::crc32c(body.as_bytes())),
    };
    let head = serde_json::to_string(&head).expect("it has string keys only");
    let check = crc32c::crc32c(head.as_bytes());
    format!("{head} {check:08x}\n{body}").into_bytes()
}

/// `manifest-<number>.json`
pub(super) fn name(number: u64) -> String {
    format!("manifest-{number:020}.json")
}

/// The number of a manifest's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok()
}

/// The newest manifest of the local folder, with its number.
///
/// # Errors
/// If it is damaged: an older one would name files that are gone.
pub(super) fn read_newest(store: &Store) -> Result<Option<(u64, Manifest)>, LogError> {
    let numbers = store.list()?.into_iter().filter_map(|file| parse_name(file.to_str()?));
    let Some(number) = numbers.max() else { return Ok(None) };
    let path = store.path(name(number));
    let bytes = store.read_file(&path)?;
    match Manifest::decode(&bytes, number) {
        Ok(manifest) => Ok(Some((number, manifest))),
        Err(what) => Err(LogError::Corrupt { file: path, offset: 0, what }),
    }
}

/// Makes a manifest the newest one, durably.
pub(super) fn write(store: &Store, number: u64, manifest: &Manifest) -> Result<(), LogError> {
    debug_assert_eq!(manifest.check(), Ok(()));
    let path = store.path(name(number));
    let staged: PathBuf = path.with_extension("staged");
    store.remove_if_there(&staged)?;
    store.write_file(&staged, &manifest.encode(number))?;
    store.rename(&staged, &path)?;
    store.sync_dir()
}

/// Removes manifests before `number`, and what a crash left of others. Nothing depends on it.
pub(super) fn remove_older(store: &Store, number: u64) -> Result<(), LogError> {
    for file in store.list()? {
        let old = file.to_str().and_then(parse_name).is_some_and(|n| n < number);
        let staged = Path::new(&file).extension().is_some_and(|e| e == "staged");
        if old || staged {
            store.remove_if_there(&store.path(&file))?;
        }
    }
    Ok(())
}

impl Store {
    /// Writes a new file, and syncs it; its name is not durable yet.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        let disk = &self.env.disk;
        let file = disk.open(path, Open::Create).map_err(|e| LogError::io("create", path, e))?;
        file.write_at(bytes, 0).map_err(|e| LogError::io("write to", path, e))?;
        file.sync_data().map_err(|e| LogError::io("sync", path, e))
    }
}
