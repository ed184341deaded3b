//! Segments, spines and manifests in the object store, and the journal's own bytes until they are segments.
//!
//! ```text
//! topics/<topic>/p=<partition>/<first commit>-<last commit>.parquet    a folder that is a table
//! log/spine/<first commit>-<last commit>.spine
//! log/manifest/<n>.json                                                what counts: the newest
//! log/journal/<first commit of the file>/<from>-<to>.part              bytes of a journal file
//! ```
//!
//! Objects are created under names that nothing has, read back and compared, and only then named by a manifest. What an
//! earlier incarnation left without a manifest is replaced.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use millpond_types::Commit;
use tracing::info;

use super::manifest::Manifest;
use super::remote::{Created, Remote};
use super::store::Store;
use super::{CutEntry, Segment};
use crate::LogError;
use crate::index::JournalFile;

const MANIFESTS: &str = "log/manifest";
const JOURNAL: &str = "log/journal";
/// Manifests that stay in the object store.
const MANIFESTS_KEPT: u64 = 3;
/// The most that one part of a journal file holds.
const PART_BYTES_MAX: u64 = 64 << 20;

/// What is known of the manifests in the object store.
#[derive(Default)]
pub(super) struct Published {
    /// The newest, once it was looked for.
    newest: Option<(u64, Manifest)>,
    known: bool,
}

fn manifest_name(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}.json")
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}

/// The newest manifest in the object store.
pub(super) fn newest(remote: &Remote) -> Result<Option<(u64, Manifest)>, LogError> {
    let numbers = remote.list(MANIFESTS)?.iter().filter_map(|name| number_of(name)).max();
    let Some(number) = numbers else { return Ok(None) };
    let name = manifest_name(number);
    let bytes = remote.get(&name)?;
    let manifest = Manifest::decode(&bytes, number).map_err(|what| remote.corrupt(&name, 0, what))?;
    Ok(Some((number, manifest)))
}

/// Creates an object and reads it back. What is there of another content, no manifest names: it is replaced.
fn place(remote: &Remote, name: &str, bytes: &Bytes) -> Result<(), LogError> {
    for _ in 0..2 {
        let created = remote.create(name, bytes.clone());
        // The answer of a creation that happened may have been lost: what is there decides.
        if created.is_err() && remote.size(name)?.is_none() {
            return created.map(drop);
        }
        let found = remote.get(name)?;
        if found == *bytes {
            return Ok(());
        }
        match created? {
            Created::Taken => remote.delete(name)?,
            Created::Yes => {
                let what = "what was uploaded is not what is there".to_owned();
                return Err(remote.corrupt(name, 0, what));
            }
        }
    }
    let what = "another process writes it".to_owned();
    Err(remote.corrupt(name, 0, what))
}

impl Published {
    fn look(&mut self, remote: &Remote) -> Result<&Option<(u64, Manifest)>, LogError> {
        if !self.known {
            self.newest = newest(remote)?;
            self.known = true;
        }
        Ok(&self.newest)
    }

    /// Everything up to here can be read from the object store alone.
    pub fn through(&self) -> Commit {
        self.newest.as_ref().map_or(Commit(0), |(_, manifest)| manifest.through)
    }

    pub fn holds(&self, manifest: &Manifest) -> bool {
        self.newest.as_ref().is_some_and(|(_, newest)| *newest == as_published(manifest))
    }

    /// Names everything that `manifest` has, all of which is uploaded.
    pub fn publish(&mut self, remote: &Remote, manifest: &Manifest) -> Result<(), LogError> {
        let next = as_published(manifest);
        let number = match self.look(remote)? {
            Some((_, newest)) if *newest == next => return Ok(()),
            Some((number, newest)) => {
                let ours =
                    newest.cuts.iter().zip(&next.cuts).all(|(a, b)| (a.last, a.crc32c) == (b.last, b.crc32c));
                if !ours || newest.cuts.len() > next.cuts.len() {
                    return Err(foreign(remote, *number));
                }
                number + 1
            }
            None => 1,
        };
        let name = manifest_name(number);
        let bytes = Bytes::from(next.encode(number));
        let created = remote.create(&name, bytes.clone());
        match created {
            Ok(Created::Yes) => {}
            Ok(Created::Taken) | Err(_) => {
                if created.is_err() && remote.size(&name)?.is_none() {
                    return created.map(drop);
                }
                if remote.get(&name)? != bytes {
                    return Err(foreign(remote, number));
                }
            }
        }
        info!(number, through = %next.through, segments = next.segments.len(), "published segments");
        self.newest = Some((number, next));
        let old = number.checked_sub(MANIFESTS_KEPT);
        if let Some(old) = old.filter(|old| *old > 0) {
            remote.delete(&manifest_name(old))?;
        }
        Ok(())
    }
}

fn foreign(remote: &Remote, number: u64) -> LogError {
    let what = "it is of another log: two servers use one object store, or the data directory was replaced"
        .to_owned();
    remote.corrupt(&manifest_name(number), 0, what)
}

/// As the object store has it: what is only of this disk is left out.
fn as_published(manifest: &Manifest) -> Manifest {
    let mut published = manifest.clone();
    for segment in &mut published.segments {
        segment.local = false;
    }
    published
}

/// Uploads a segment from its local copy, every byte of which is checked first.
pub(super) fn segment(store: &Store, remote: &Remote, segment: &Segment) -> Result<(), LogError> {
    let bytes = Bytes::from(store.read_file(&segment.path)?);
    store.verify(segment, &bytes)?;
    place(remote, &segment.entry.object_name(), &bytes)
}

pub(super) fn spine(store: &Store, remote: &Remote, cut: &CutEntry) -> Result<(), LogError> {
    place(remote, &cut.object_name(), &Bytes::from(store.spine(cut)?))
}

/// Removes what a crash left between a manifest and its objects. Names that are not ours are left alone.
pub(super) fn sweep(remote: &Remote, manifest: &Manifest, in_use: &[String]) -> Result<(), LogError> {
    let segments = manifest.segments.iter().map(|segment| segment.object_name());
    let named: HashSet<String> = segments.chain(manifest.cuts.iter().map(|cut| cut.object_name())).collect();
    let ours = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        let stem = file.strip_suffix(".parquet").or_else(|| file.strip_suffix(".spine"));
        stem.is_some_and(|stem| {
            stem.len() >= 41 && stem.bytes().all(|b| b.is_ascii_digit() || b"-.".contains(&b))
        })
    };
    for folder in ["topics", "log/spine"] {
        for name in remote.list(folder)? {
            if ours(&name) && !named.contains(&name) && !in_use.contains(&name) {
                remote.delete(&name)?;
            }
        }
    }
    Ok(())
}

/// Whether there is any part of a journal file.
pub(super) fn has_journal(remote: &Remote) -> Result<bool, LogError> {
    Ok(remote.list(JOURNAL)?.iter().any(|name| parse_part(name).is_some()))
}

/// How much of each journal file is in the object store.
#[derive(Default)]
pub(super) struct Parts {
    ends: HashMap<Commit, u64>,
    known: bool,
}

/// `log/journal/<first>/<from>-<to>.part`
fn part_name(first: Commit, from: u64, to: u64) -> String {
    format!("{JOURNAL}/{:020}/{from:020}-{to:020}.part", first.0)
}

fn parse_part(name: &str) -> Option<(Commit, u64, u64)> {
    let (first, range) = name.strip_prefix(JOURNAL)?.strip_prefix('/')?.split_once('/')?;
    let (from, to) = range.strip_suffix(".part")?.split_once('-')?;
    Some((Commit(first.parse().ok()?), from.parse().ok()?, to.parse().ok()?))
}

impl Parts {
    /// Uploads what is synced of these files and not there yet.
    pub fn upload(
        &mut self,
        store: &Store,
        remote: &Remote,
        files: &[Arc<JournalFile>],
    ) -> Result<(), LogError> {
        if !self.known {
            for (first, from, to) in remote.list(JOURNAL)?.iter().filter_map(|name| parse_part(name)) {
                let end = self.ends.entry(first).or_default();
                if from == *end {
                    *end = to;
                }
            }
            self.known = true;
        }
        for file in files {
            let synced = file.synced();
            let end = self.ends.entry(file.first).or_default();
            while *end < synced {
                let to = synced.min(*end + PART_BYTES_MAX);
                let handle = file.open(&*store.env.disk)?;
                let mut bytes = vec![0; (to - *end) as usize];
                handle.read_exact_at(&mut bytes, *end).map_err(|e| LogError::io("read", &file.path, e))?;
                place(remote, &part_name(file.first, *end, to), &Bytes::from(bytes))?;
                *end = to;
            }
        }
        Ok(())
    }

    /// Deletes parts of files that published segments stand for.
    pub fn forget(&mut self, remote: &Remote, through: Commit) -> Result<(), LogError> {
        self.ends.retain(|first, _| *first > through);
        for name in remote.list(JOURNAL)? {
            if parse_part(&name).is_some_and(|(first, ..)| first <= through) {
                remote.delete(&name)?;
            }
        }
        Ok(())
    }
}

/// Puts the journal files behind `through` together again, in a folder that has none.
pub(super) fn restore_journal(
    store: &Store,
    remote: &Remote,
    dir: &Path,
    through: Commit,
) -> Result<(), LogError> {
    let mut parts: Vec<_> = remote.list(JOURNAL)?.iter().filter_map(|name| parse_part(name)).collect();
    parts.retain(|(first, ..)| *first > through);
    parts.sort_unstable();
    let mut files: Vec<(Commit, u64)> = Vec::new();
    for (first, from, to) in parts {
        match files.last() {
            Some((last, end)) if *last == first && *end == from => {}
            Some((last, _)) if *last == first => continue,
            _ if from == 0 => files.push((first, 0)),
            _ => break,
        }
        let bytes = remote.get(&part_name(first, from, to))?;
        let path = JournalFile::new(dir, first, 0).path;
        if from == 0 {
            store.write_file(&path, &bytes)?;
        } else {
            let open = store.env.disk.open(&path, millpond_env::Open::Write);
            let file = open.map_err(|e| LogError::io("open", &path, e))?;
            file.write_at(&bytes, from).map_err(|e| LogError::io("write to", &path, e))?;
            file.sync_data().map_err(|e| LogError::io("sync", &path, e))?;
        }
        if let Some((_, end)) = files.last_mut() {
            *end = to;
        }
    }
    store.env.disk.sync_dir(dir).map_err(|e| LogError::io("sync", dir, e))
}
