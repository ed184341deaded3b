//! A disk in memory that remembers what was not synced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::SimRandom;
use super::fault::{Fault, Faults};
use crate::{DiskFile, DiskLock, Open};

const SECTOR_BYTES: usize = 512;

/// Which of the unsynced changes a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    None,
    All,
    /// The first `changes`, in the order in which they were made, and `torn_bytes` of the next one if it is a write.
    Prefix {
        changes: usize,
        torn_bytes: usize,
    },
    /// Of each file and each directory a prefix of its own, by chance, the last write torn at any byte.
    Random,
    /// Of each unsynced write every sector by chance, zeros in the others; all names.
    Sectors,
}

/// A disk in memory. Clones share it; paths are compared as they are written.
///
/// Calls that change something (create, write, sync, length, rename, remove, directories) are numbered from 0, reads are
/// numbered apart from them. See [`Fault`] for what may happen to the n-th.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    random: SimRandom,
}

#[derive(Default)]
struct State {
    files: HashMap<u64, FileState>,
    dirs: BTreeMap<PathBuf, DirState>,
    locks: BTreeSet<PathBuf>,
    changes: Faults,
    reads: Faults,
    power_off: bool,
    next_file: u64,
    next_change: u64,
    /// Bytes that all files together may take.
    capacity: Option<u64>,
    /// Files have no way to reserve space.
    cannot_reserve: bool,
}

#[derive(Clone, Default)]
struct FileState {
    durable: Vec<u8>,
    live: Vec<u8>,
    reserved: u64,
    pending: Vec<(u64, FileChange)>,
}

#[derive(Clone)]
enum FileChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct DirState {
    durable: BTreeMap<OsString, u64>,
    live: BTreeMap<OsString, u64>,
    pending: Vec<(u64, NameChange)>,
}

#[derive(Clone)]
enum NameChange {
    Add(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString),
}

impl FileState {
    /// What it takes of the disk.
    fn bytes(&self) -> u64 {
        (self.live.len() as u64).max(self.reserved)
    }
}

impl FileChange {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let from = *offset as usize;
                if contents.len() < from + bytes.len() {
                    contents.resize(from + bytes.len(), 0);
                }
                contents[from..from + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => contents.resize(*len as usize, 0),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::SetLen(_) => 0,
        }
    }

    /// The first bytes of a write.
    fn torn(&self, keep: usize) -> Option<Self> {
        match self {
            Self::Write { offset, bytes } if keep > 0 => {
                Some(Self::Write { offset: *offset, bytes: bytes[..keep.min(bytes.len())].to_vec() })
            }
            _ => None,
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.power_off { Err(io::Error::other("simulated power failure")) } else { Ok(()) }
    }

    fn dir(&mut self, dir: &Path) -> io::Result<&mut DirState> {
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path)?;
        let dir = self.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        dir.live.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let number = self.next_change;
        self.next_change += 1;
        let dir = self.dir(dir)?;
        change.apply(&mut dir.live);
        dir.pending.push((number, change));
        Ok(())
    }

    /// How far a file may grow before the disk is full, if it would be longer than it is.
    fn room(&self, file: u64) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let names: BTreeSet<u64> = self.dirs.values().flat_map(|dir| dir.live.values().copied()).collect();
        let others = self.files.iter().filter(|(other, _)| **other != file && names.contains(other));
        let own = self.files.get(&file).map_or(0, FileState::bytes);
        own.max(capacity.saturating_sub(others.map(|(_, file)| file.bytes()).sum()))
    }

    fn change_file(&mut self, file: u64, change: FileChange) {
        let number = self.next_change;
        self.next_change += 1;
        // A file whose name was removed lives on for those who have it open.
        let file = self.files.entry(file).or_default();
        change.apply(&mut file.live);
        file.pending.push((number, change));
    }
}

fn split(path: &Path) -> io::Result<(&Path, OsString)> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir, name.to_owned())),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl SimDisk {
    pub(super) fn new(random: SimRandom) -> Self {
        Self { state: Arc::default(), random }
    }

    /// How many calls have changed, or tried to change, something.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes.calls()
    }

    /// How many calls have read contents.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads.calls()
    }

    /// Plans what happens to the changing call of this number; several may be planned.
    pub fn fault_at(&self, change: u64, fault: Fault) {
        self.state.lock().changes.plan(change, fault);
    }

    /// Plans what happens to the next changing call.
    pub fn fault_next(&self, fault: Fault) {
        let mut state = self.state.lock();
        let next = state.changes.calls();
        state.changes.plan(next, fault);
    }

    /// Forgets what is planned.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.changes.clear();
        state.reads.clear();
    }

    /// Plans what happens to the reading call of this number.
    pub fn read_fault_at(&self, read: u64, fault: Fault) {
        self.state.lock().reads.plan(read, fault);
    }

    /// The size of the disk; `None` is without limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// What all files together take of it.
    pub fn used(&self) -> u64 {
        let state = self.state.lock();
        let names = state.dirs.values().flat_map(|dir| dir.live.values());
        names.filter_map(|file| state.files.get(file)).map(FileState::bytes).sum()
    }

    /// Whether files can reserve space; they can, unless told otherwise.
    pub fn set_reserves(&self, reserves: bool) {
        self.state.lock().cannot_reserve = !reserves;
    }

    /// All calls fail from now on.
    pub fn power_off(&self) {
        self.state.lock().power_off = true;
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.state.lock().power_off
    }

    /// The sizes of the unsynced changes in the order in which they were made; 0 for those that are not writes.
    pub fn unsynced(&self) -> Vec<usize> {
        let state = self.state.lock();
        let files =
            state.files.values().flat_map(|f| f.pending.iter().map(|(n, change)| (*n, change.bytes())));
        let names = state.dirs.values().flat_map(|d| d.pending.iter().map(|(n, _)| (*n, 0)));
        let mut all: Vec<(u64, usize)> = files.chain(names).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// What readers see in a file now.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        let file = state.find(path).expect("the test names a file that exists");
        state.files[&file].live.clone()
    }

    /// Replaces what is in a file, on the medium too, behind everybody's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn corrupt(&self, path: &Path, contents: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.find(path).expect("the test names a file that exists");
        state
            .files
            .insert(file, FileState { durable: contents.clone(), live: contents, ..FileState::default() });
    }

    pub(super) fn crash(&self, survivors: Survivors) -> Self {
        self.power_off();
        self.fork(survivors)
    }

    /// What a crash now would leave, while this disk goes on.
    pub(super) fn fork(&self, survivors: Survivors) -> Self {
        let old = self.state.lock();
        let kept = self.kept(&old, survivors);
        let mut new = State {
            next_file: old.next_file,
            next_change: old.next_change,
            capacity: old.capacity,
            cannot_reserve: old.cannot_reserve,
            ..State::default()
        };
        for (path, dir) in &old.dirs {
            let mut names = dir.durable.clone();
            for (_, change) in dir.pending.iter().filter(|(n, _)| kept.whole.contains(n)) {
                change.apply(&mut names);
            }
            for file in names.values() {
                let contents = self.recovered(&old.files[file], &kept);
                new.files.insert(
                    *file,
                    FileState { durable: contents.clone(), live: contents, ..FileState::default() },
                );
            }
            new.dirs
                .insert(path.clone(), DirState { durable: names.clone(), live: names, pending: Vec::new() });
        }
        Self { state: Arc::new(Mutex::new(new)), random: self.random.clone() }
    }

    fn kept(&self, state: &State, survivors: Survivors) -> Kept {
        let mut kept = Kept::default();
        let files = state.files.values().map(|f| f.pending.iter().map(|(n, c)| (*n, c.bytes())).collect());
        let dirs = state.dirs.values().map(|d| d.pending.iter().map(|(n, _)| (*n, 0)).collect());
        match survivors {
            Survivors::None => {}
            Survivors::All | Survivors::Sectors => {
                kept.whole = files.chain(dirs).flat_map(|c: Vec<(u64, usize)>| c).map(|(n, _)| n).collect();
                kept.by_sector = survivors == Survivors::Sectors;
            }
            Survivors::Prefix { changes, torn_bytes } => {
                let mut all: Vec<(u64, usize)> = files.chain(dirs).flatten().collect();
                all.sort_unstable();
                kept.whole = all.iter().take(changes).map(|(n, _)| *n).collect();
                kept.torn.extend(all.get(changes).map(|(n, _)| (*n, torn_bytes)));
            }
            Survivors::Random => {
                // Sorted, so that the choices do not depend on the order of a hash map.
                let mut lists: Vec<Vec<(u64, usize)>> = files.chain(dirs).filter(|c| !c.is_empty()).collect();
                lists.sort_unstable();
                for list in lists {
                    let whole = self.random.below(list.len() + 1);
                    kept.whole.extend(list[..whole].iter().map(|(n, _)| *n));
                    kept.torn.extend(list.get(whole).map(|(n, bytes)| (*n, self.random.below(bytes + 1))));
                }
            }
        }
        kept
    }

    fn recovered(&self, file: &FileState, kept: &Kept) -> Vec<u8> {
        let mut contents = file.durable.clone();
        for (number, change) in &file.pending {
            match change {
                FileChange::Write { offset, bytes } if kept.by_sector => {
                    for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
                        if self.random.below(2) == 1 {
                            let bytes = bytes[at..bytes.len().min(at + SECTOR_BYTES)].to_vec();
                            FileChange::Write { offset: offset + at as u64, bytes }.apply(&mut contents);
                        }
                    }
                }
                _ if kept.whole.contains(number) => change.apply(&mut contents),
                _ => {
                    if let Some(torn) = kept.torn.get(number).and_then(|bytes| change.torn(*bytes)) {
                        torn.apply(&mut contents);
                    }
                }
            }
        }
        contents
    }

    /// Counts a changing call; `Err` is its failure, `Ok(Some)` a fault that the call itself must act out.
    fn change(&self, writes: bool) -> io::Result<Option<Fault>> {
        let mut state = self.state.lock();
        state.check_power()?;
        let fault = state.changes.next();
        match fault {
            None | Some(Fault::LostAnswer) => Ok(None),
            Some(Fault::Hold(gate)) => {
                drop(state);
                gate.pass();
                self.state.lock().check_power().map(|()| None)
            }
            Some(Fault::HeldError(gate, kind)) => {
                drop(state);
                gate.pass();
                self.state.lock().check_power().and(Err(kind.into()))
            }
            Some(Fault::PowerOff) => {
                state.power_off = true;
                if writes { Ok(Some(Fault::PowerOff)) } else { state.check_power().map(|()| None) }
            }
            Some(Fault::Torn(_, kind)) if !writes => Err(kind.into()),
            Some(fault @ Fault::Torn(..)) => Ok(Some(fault)),
            Some(Fault::Error(kind)) => Err(kind.into()),
        }
    }

    fn read(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_power()?;
        match state.reads.next() {
            None | Some(Fault::LostAnswer) => Ok(()),
            Some(Fault::Hold(gate)) => {
                drop(state);
                gate.pass();
                self.state.lock().check_power()
            }
            Some(Fault::HeldError(gate, kind)) => {
                drop(state);
                gate.pass();
                self.state.lock().check_power().and(Err(kind.into()))
            }
            Some(Fault::PowerOff) => {
                state.power_off = true;
                state.check_power()
            }
            Some(Fault::Error(kind) | Fault::Torn(_, kind)) => Err(kind.into()),
        }
    }
}

/// Numbers of changes that a crash keeps.
#[derive(Default)]
struct Kept {
    whole: BTreeSet<u64>,
    torn: BTreeMap<u64, usize>,
    by_sector: bool,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} changes)", self.changes())
    }
}

impl crate::Disk for SimDisk {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Box<dyn DiskFile>> {
        let (dir, name) = split(path)?;
        if mode == Open::Create {
            self.change(false)?;
        }
        let mut state = self.state.lock();
        state.check_power()?;
        let found = state.find(path);
        let file = match (mode, found) {
            (Open::Create, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create, Err(_)) => {
                let file = state.next_file;
                state.next_file += 1;
                state.change_name(dir, NameChange::Add(name, file))?;
                state.files.insert(file, FileState::default());
                file
            }
            (_, found) => found?,
        };
        Ok(Box::new(SimFile { disk: self.clone(), file, writes: mode != Open::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(false)?;
        let ((dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        if dir != to_dir {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let mut state = self.state.lock();
        state.find(from)?;
        state.change_name(dir, NameChange::Rename(from_name, to_name))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(false)?;
        let (dir, name) = split(path)?;
        let mut state = self.state.lock();
        state.find(path)?;
        state.change_name(dir, NameChange::Remove(name))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.read()?;
        Ok(self.state.lock().dir(dir)?.live.keys().map(PathBuf::from).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        state.check_power()?;
        Ok(state.dirs.contains_key(path) || state.find(path).is_ok())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.change(false)?;
        let mut state = self.state.lock();
        for dir in dir.ancestors() {
            state.dirs.entry(dir.to_owned()).or_default();
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let changed = self.change(false);
        let mut state = self.state.lock();
        if !state.power_off {
            let dir = state.dir(dir)?;
            for (_, change) in std::mem::take(&mut dir.pending) {
                if changed.is_ok() {
                    change.apply(&mut dir.durable);
                }
            }
        }
        changed.map(|_| ())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state.lock();
        state.check_power()?;
        state.dir(dir)?;
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), dir: dir.to_owned() }))
    }
}

struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimLock({})", self.dir.display())
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.dir);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    writes: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writes { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read()?;
        let state = self.disk.state.lock();
        let contents = state.files.get(&self.file).map_or(&[][..], |file| &file.live);
        let from = contents.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let n = bytes.len().min(contents.len() - from);
        bytes[..n].copy_from_slice(&contents[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let fault = self.disk.change(true)?;
        let kept = match &fault {
            Some(Fault::Torn(kept, _)) => &bytes[..bytes.len().min(*kept)],
            _ => bytes,
        };
        let mut state = self.disk.state.lock();
        let room = usize::try_from(state.room(self.file).saturating_sub(offset)).unwrap_or(usize::MAX);
        let (kept, full) = if kept.len() > room { (&kept[..room], true) } else { (kept, false) };
        if !kept.is_empty() {
            state.change_file(self.file, FileChange::Write { offset, bytes: kept.to_vec() });
        }
        match fault {
            None if full => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Torn(_, kind)) => Err(kind.into()),
            Some(Fault::PowerOff) => state.check_power(),
            _ => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let changed = self.disk.change(false);
        let mut state = self.disk.state.lock();
        if !state.power_off {
            let file = state.files.entry(self.file).or_default();
            // What a failed sync should have written is dropped: reads still show it, a crash does not.
            for (_, change) in std::mem::take(&mut file.pending) {
                if changed.is_ok() {
                    change.apply(&mut file.durable);
                }
            }
        }
        changed.map(|_| ())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.check_power()?;
        Ok(state.files.get(&self.file).map_or(0, |file| file.live.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.disk.change(false)?;
        let mut state = self.disk.state.lock();
        state.change_file(self.file, FileChange::SetLen(len));
        state.files.entry(self.file).or_default().reserved = 0;
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.disk.state.lock().cannot_reserve {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.disk.change(false)?;
        let mut state = self.disk.state.lock();
        if len > state.room(self.file) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.files.entry(self.file).or_default();
        file.reserved = file.reserved.max(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
