//! The thread that cuts journal files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use millpond_types::Commit;
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::cut::cut;
use super::manifest::{self, Manifest};
use super::{Sealed, Segment, Store};
use crate::LogError;
use crate::index::JournalFile;
use crate::writer::Shared;

/// How often the thread looks whether there is something to do that nobody tells it of.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks it leaves out after an error.
const PAUSE_LOOKS: u32 = 10;

/// The log's segments: what is asked of the thread, and what it has.
pub(crate) struct Tier {
    pub store: Store,
    control: Mutex<Control>,
    wake: Condvar,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Control {
    /// Journal files up to here may be cut.
    checkpoint: Commit,
    asked: bool,
    stopping: bool,
}

/// What one pass at a time works on.
#[derive(Default)]
struct Work {
    manifest: Manifest,
    number: u64,
    /// The manifest was written by this process, and so is durable: what it does not name can be removed.
    settled: bool,
    /// After a failure whose effect on the disk is not known, nothing more is done until the next start.
    failed: Option<LogError>,
    doomed: Doomed,
}

/// Files that nothing names any more, as soon as nobody reads them.
#[derive(Default)]
struct Doomed {
    journals: Vec<Arc<JournalFile>>,
    segments: Vec<Arc<Segment>>,
    paths: Vec<PathBuf>,
}

impl Doomed {
    fn remove(&mut self, store: &Store) -> Result<(), LogError> {
        let free: Vec<_> = self.journals.extract_if(.., |file| Arc::strong_count(file) == 1).collect();
        self.paths.extend(free.into_iter().map(|file| file.path.clone()));
        let free: Vec<_> = self.segments.extract_if(.., |file| Arc::strong_count(file) == 1).collect();
        self.paths.extend(free.into_iter().map(|segment| segment.path.clone()));
        while let Some(path) = self.paths.pop() {
            if let Err(error) = store.remove_if_there(&path) {
                self.paths.push(path);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Tier {
    /// With what the folder holds.
    pub fn new(store: Store, found: Option<(u64, Manifest)>) -> (Self, Sealed) {
        let (number, manifest) = found.unwrap_or_default();
        let sealed = Sealed::new(&store, &manifest, &Sealed::default());
        let work = Work { manifest, number, ..Work::default() };
        (Self { store, control: Mutex::default(), wake: Condvar::new(), work: Mutex::new(work) }, sealed)
    }

    /// Journal files that were cut, but not removed before the process ended.
    pub fn leave(&self, leftovers: Vec<PathBuf>) {
        self.work.lock().doomed.paths.extend(leftovers);
    }

    pub fn set_checkpoint(&self, cut: Commit) {
        let mut control = self.control.lock();
        control.checkpoint = control.checkpoint.max(cut);
        control.asked = true;
        drop(control);
        self.wake.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.control.lock().stopping
    }

    /// Ends the thread after the step that it is in.
    pub fn stop(&self, thread: JoinHandle<()>) {
        self.control.lock().stopping = true;
        self.wake.notify_all();
        drop(thread.join());
    }

    /// Does everything that there is to do.
    pub fn maintain(&self, shared: &Shared) -> Result<(), LogError> {
        let mut work = self.work.lock();
        if let Some(error) = &work.failed {
            return Err(error.clone());
        }
        while self.cut_oldest(shared, &mut work)? {}
        self.tidy(&mut work)
    }

    /// Cuts the oldest journal file, if it is full, synced, and covered by a checkpoint.
    fn cut_oldest(&self, shared: &Shared, work: &mut Work) -> Result<bool, LogError> {
        let Some((file, next)) = shared.index.read().oldest() else { return Ok(false) };
        let last = Commit(next.first.0 - 1);
        let covered = self.control.lock().checkpoint.min(*shared.durable.borrow());
        if last > covered || self.is_stopping() {
            return Ok(false);
        }
        let stop = || self.is_stopping();
        let Some(manifest) = cut(&self.store, &work.manifest, &file, &next, last, &stop)? else {
            return Ok(false);
        };
        let segments = manifest.segments.len() - work.manifest.segments.len();
        self.adopt(shared, work, manifest)?;
        info!(file = %file.path.display(), through = %last, segments, "cut a journal file");
        work.doomed.journals.push(file);
        Ok(true)
    }

    /// Makes a manifest the one that counts, on disk and for readers.
    fn adopt(&self, shared: &Shared, work: &mut Work, manifest: Manifest) -> Result<(), LogError> {
        let number = work.number + 1;
        if let Err(error) = manifest::write(&self.store, number, &manifest) {
            // It may or may not be what the next start finds: its files must stay as they are until then.
            error!(%error, "the list of segments could not be written; journal files are kept until the next start");
            work.failed = Some(error.clone());
            return Err(error);
        }
        (work.number, work.settled) = (number, true);
        let mut index = shared.index.write();
        let sealed = Arc::new(Sealed::new(&self.store, &manifest, index.sealed()));
        let kept: HashSet<*const Segment> = sealed.topics.values().flatten().map(Arc::as_ptr).collect();
        let gone: Vec<_> = index
            .sealed()
            .topics
            .values()
            .flatten()
            .filter(|s| !kept.contains(&Arc::as_ptr(s)))
            .cloned()
            .collect();
        index.seal(Arc::clone(&sealed));
        drop(index);
        work.manifest = manifest;
        // A segment whose entry changed lives on under another value: its file stays if that is still there.
        let stays = |segment: &Arc<Segment>| {
            let all = sealed.topics.get(&segment.entry.topic);
            all.is_some_and(|all| all.iter().any(|s| s.entry.is_same(&segment.entry) && s.entry.local))
        };
        work.doomed
            .segments
            .extend(gone.into_iter().filter(|segment| segment.entry.local && !stays(segment)));
        Ok(())
    }

    /// Removes what no manifest names.
    fn tidy(&self, work: &mut Work) -> Result<(), LogError> {
        let leftovers = !work.doomed.paths.is_empty();
        if !work.settled && (leftovers || work.number > 0) {
            if work.number == 0 {
                return Ok(());
            }
            let number = work.number + 1;
            if let Err(error) = manifest::write(&self.store, number, &work.manifest) {
                work.failed = Some(error.clone());
                return Err(error);
            }
            (work.number, work.settled) = (number, true);
            self.sweep(work)?;
        }
        if work.settled {
            manifest::remove_older(&self.store, work.number)?;
        }
        work.doomed.remove(&self.store)
    }

    /// Removes files that a crash left.
    fn sweep(&self, work: &Work) -> Result<(), LogError> {
        let segments = work.manifest.segments.iter().filter(|s| s.local).map(|s| s.local_name());
        let named: HashSet<String> =
            segments.chain(work.manifest.cuts.iter().map(|cut| cut.local_name())).collect();
        for file in self.store.list()? {
            let Some(name) = file.to_str() else { continue };
            let ours = [".parquet", ".spine"].iter().any(|end| name.ends_with(end));
            if ours && !named.contains(name) {
                self.store.remove_if_there(&self.store.path(&file))?;
            }
        }
        Ok(())
    }

    fn wait(&self, looks: u32) {
        let mut control = self.control.lock();
        for _ in 0..looks {
            if control.stopping || (looks == 1 && control.asked) {
                break;
            }
            self.wake.wait_for(&mut control, LOOK);
        }
        control.asked = false;
    }
}

/// Starts the thread.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    Builder::new().name("log segments".into()).spawn(move || {
        millpond_env::os::lower_priority();
        let tier = &shared.tier;
        let mut looks = 1;
        loop {
            tier.wait(looks);
            if tier.is_stopping() {
                return;
            }
            looks = match tier.maintain(&shared) {
                Ok(()) => 1,
                Err(error) => {
                    warn!(%error, "segments could not be looked after; trying again");
                    PAUSE_LOOKS
                }
            };
        }
    })
}

/// What the folder `journal/segments` lists.
pub(crate) fn find(store: &Store) -> Result<Option<(u64, Manifest)>, LogError> {
    manifest::read_newest(store)
}

/// Whether a journal file was cut by then.
pub(crate) fn is_cut(name: &Path, manifest: &Manifest) -> bool {
    JournalFile::parse_name(name).is_some_and(|first| first <= manifest.through)
}
