//! The thread that cuts journal files.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use millpond_types::{Commit, EventTime, PartitionId, RelationId};
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::compact::Job;
use super::cut::cut;
use super::manifest::{self, Manifest};
use super::policy::{Policies, TopicPolicy};
use super::remote::Remote;
use super::upload::{self, Parts, Published};
use super::{Sealed, Segment, Store};
use crate::LogError;
use crate::index::JournalFile;
use crate::queue::{Pending, TRANSACTION_BYTES};
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
    options: TierOptions,
    parts: Mutex<Parts>,
    pub status: Mutex<Status>,
    /// The next commit begins a file.
    pub roll: Arc<AtomicBool>,
}

/// What the log's options say of segments.
pub(crate) struct TierOptions {
    pub seal_interval: Option<Duration>,
    pub local_retention: Option<Duration>,
}

/// What the last pass has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub failure: Option<String>,
    /// Everything up to here is segments in the object store.
    pub published: Commit,
    /// And up to here the journal is there, too.
    pub journal_uploaded: Commit,
    pub held_by_readers: Vec<(RelationId, PartitionId)>,
}

#[derive(Default)]
struct Control {
    /// Journal files up to here may be cut.
    checkpoint: Commit,
    policies: Policies,
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
    /// A manifest of that number or one before may be on the disk, or not: nothing is done before a newer one is.
    uncertain: bool,
    doomed: Doomed,
    published: Published,
    /// What earlier incarnations left in the object store is gone.
    swept: bool,
    /// The newest file, and since when it has something in it.
    newest: Option<(Commit, Duration)>,
}

/// Files that nothing names any more, as soon as nobody reads them.
#[derive(Default)]
struct Doomed {
    journals: Vec<Arc<JournalFile>>,
    segments: Vec<DoomedSegment>,
    paths: Vec<PathBuf>,
    objects: Vec<String>,
}

struct DoomedSegment {
    segment: Arc<Segment>,
    local: bool,
    object: bool,
}

impl Doomed {
    /// Looks who is not in use any more. A reader may hold an older value of the same file than the one that is doomed.
    fn release(&mut self, sealed: &Sealed) {
        let free = self.journals.extract_if(.., |file| Arc::strong_count(file) == 1);
        self.paths.extend(free.flat_map(|file| {
            let skips = (!file.skips().is_empty()).then(|| file.skips_path());
            [file.path.clone()].into_iter().chain(skips)
        }));
        let keys: Vec<_> = self.segments.iter().map(|doomed| doomed.segment.entry.key()).collect();
        let is_free = |doomed: &DoomedSegment| {
            let segment = &doomed.segment;
            let known = keys.iter().filter(|key| **key == segment.entry.key()).count();
            let known = known + usize::from(sealed.segment(&segment.entry).is_some());
            Arc::strong_count(segment) == 1 && Arc::strong_count(&segment.values) <= known
        };
        for doomed in self.segments.extract_if(.., |doomed| is_free(doomed)) {
            let DoomedSegment { segment, local, object } = doomed;
            self.paths.extend(local.then(|| segment.path.clone()));
            self.objects.extend(object.then(|| segment.entry.object_name()));
        }
    }

    fn remove_files(&mut self, store: &Store) -> Result<(), LogError> {
        while let Some(path) = self.paths.last() {
            store.remove_if_there(path)?;
            self.paths.pop();
        }
        Ok(())
    }

    /// Of what no published manifest names.
    fn remove_objects(&mut self, remote: &Remote) -> Result<(), LogError> {
        while let Some(name) = self.objects.last() {
            remote.delete(name)?;
            self.objects.pop();
        }
        Ok(())
    }
}

impl Tier {
    /// With what the folder holds.
    pub fn new(store: Store, options: TierOptions, found: Option<(u64, Manifest)>) -> (Self, Sealed) {
        let (number, manifest) = found.unwrap_or_default();
        let sealed = Sealed::new(&store, &manifest, &Sealed::default());
        let work = Work { manifest, number, ..Work::default() };
        let tier = Self {
            store,
            options,
            control: Mutex::default(),
            wake: Condvar::new(),
            work: Mutex::new(work),
            parts: Mutex::default(),
            status: Mutex::default(),
            roll: Arc::default(),
        };
        (tier, sealed)
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
        if let Some(remote) = &self.store.remote {
            remote.close();
        }
        self.wake.notify_all();
        drop(thread.join());
    }

    pub fn set_policies(&self, topics: BTreeMap<RelationId, TopicPolicy>, as_of: Commit) {
        let mut control = self.control.lock();
        if as_of >= control.policies.as_of {
            control.policies = Policies { topics, as_of };
            control.asked = true;
        }
        drop(control);
        self.wake.notify_all();
    }

    /// Does everything that there is to do.
    pub fn maintain(&self, shared: &Shared) -> Result<(), LogError> {
        let mut work = self.work.lock();
        let result = self.settle(&mut work).and_then(|()| self.pass(shared, &mut work));
        let mut status = self.status.lock();
        status.failure = result.as_ref().err().map(ToString::to_string);
        status.published = work.published.through();
        let held = |pinned: &DoomedSegment| (pinned.segment.entry.topic, pinned.segment.entry.partition);
        status.held_by_readers = work.doomed.segments.iter().map(held).collect();
        result
    }

    fn pass(&self, shared: &Shared, work: &mut Work) -> Result<(), LogError> {
        self.roll_if_old(shared, work);
        while self.cut_oldest(shared, work)? {}
        let now = EventTime(shared.env.clock.now_micros());
        let policies = self.control.lock().policies.clone();
        if let Some(manifest) = policies.apply(&work.manifest, now) {
            let left = work.manifest.segments.len() - manifest.segments.len();
            self.adopt(shared, work, manifest)?;
            info!(
                segments = left,
                "removed rows past their retention, and those of relations that were dropped"
            );
        }
        for (topic, policy) in policies.topics.iter().filter(|(_, policy)| !policy.key.is_empty()) {
            self.compact(shared, work, *topic, &policy.key)?;
        }
        let uploaded = match &self.store.remote {
            Some(remote) => self.upload(shared, work, remote),
            None => Ok(()),
        };
        // What the object store says does not keep this disk from being looked after.
        work.doomed.release(&Arc::clone(shared.index.read().sealed()));
        self.tidy(work)?;
        uploaded
    }

    /// Makes the next commit begin a file, if the newest one is so old that its rows should become segments.
    fn roll_if_old(&self, shared: &Shared, work: &mut Work) {
        let wanted = self.store.remote.is_some() || self.control.lock().policies.has_retention();
        let Some(interval) = self.options.seal_interval.filter(|_| wanted) else { return };
        let Some((first, filled)) = shared.index.read().newest() else { return };
        let now = shared.env.clock.monotonic();
        if !filled || work.newest.is_none_or(|(known, _)| known != first) {
            work.newest = filled.then_some((first, now));
            return;
        }
        let since = work.newest.map_or(now, |(_, since)| since);
        if now.saturating_sub(since) >= interval && !self.roll.swap(true, Ordering::SeqCst) {
            // An empty commit: it begins the new file.
            let (resolver, _ticket) = crate::ticket::ticket();
            let transaction = crate::Transaction::default();
            let bytes = TRANSACTION_BYTES;
            shared.queue.push(Pending { transaction, sizes: Vec::new(), bytes, resolver }, None);
        }
    }

    /// Lets go of what later rows of a changelog supersede, once there is enough of it.
    fn compact(
        &self,
        shared: &Shared,
        work: &mut Work,
        topic: RelationId,
        key: &[String],
    ) -> Result<(), LogError> {
        let sealed = Arc::clone(shared.index.read().sealed());
        let Some(job) = Job::plan(&self.store, &sealed, topic, key)? else { return Ok(()) };
        let rows = |manifest: &Manifest| {
            manifest.segments.iter().filter(|s| s.topic == topic).map(|s| s.rows).sum::<u64>()
        };
        let stop = || self.is_stopping();
        let Some(manifest) = job.run(&self.store, &work.manifest, &stop)? else { return Ok(()) };
        let (before, after) = (rows(&work.manifest), rows(&manifest));
        // What it holds must not count as a reader.
        drop((job, sealed));
        self.adopt(shared, work, manifest)?;
        info!(%topic, before, after, "compacted a changelog");
        Ok(())
    }

    /// Brings everything into the object store, publishes it there, and lets local copies go.
    fn upload(&self, shared: &Shared, work: &mut Work, remote: &Remote) -> Result<(), LogError> {
        let mut manifest = work.manifest.clone();
        let sealed = Arc::clone(shared.index.read().sealed());
        for entry in manifest.segments.iter_mut().filter(|s| !s.uploaded) {
            if self.is_stopping() {
                return Ok(());
            }
            let all = sealed.topics.get(&entry.topic);
            let segment = all.and_then(|all| all.iter().find(|s| s.entry.key() == entry.key()));
            upload::segment(&self.store, remote, segment.expect("readers see what the manifest has"))?;
            entry.uploaded = true;
        }
        // What it holds must not count as a reader.
        drop(sealed);
        for cut in manifest.cuts.iter_mut().filter(|cut| !cut.uploaded) {
            upload::spine(&self.store, remote, cut)?;
            cut.uploaded = true;
        }
        if manifest != work.manifest {
            self.adopt(shared, work, manifest)?;
        }
        if work.manifest.cuts.is_empty() {
            return Ok(());
        }
        if !work.published.holds(&work.manifest) {
            work.published.publish(remote, &work.manifest)?;
            self.parts.lock().forget(remote, work.manifest.through)?;
        }
        if !work.swept {
            let doomed = work.doomed.segments.iter().map(|doomed| doomed.segment.entry.object_name());
            upload::sweep(remote, &work.manifest, &doomed.collect::<Vec<_>>())?;
            work.swept = true;
        }
        let old = self.options.local_retention.map(|keep| {
            let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
            shared.env.clock.now_micros().saturating_sub(keep)
        });
        let mut manifest = work.manifest.clone();
        for entry in &mut manifest.segments {
            entry.local &= old.is_none_or(|old| entry.last_time.0 >= old);
        }
        if manifest != work.manifest {
            self.adopt(shared, work, manifest)?;
        }
        work.doomed.release(&Arc::clone(shared.index.read().sealed()));
        work.doomed.remove_objects(remote)
    }

    /// Uploads what is synced of the journal: after it, the loss of this disk loses nothing up to here.
    pub fn upload_journal(&self, shared: &Shared) -> Result<(), LogError> {
        let Some(remote) = &self.store.remote else { return Ok(()) };
        let (files, through) = {
            let mut work = self.work.lock();
            // Of files that were cut, perhaps before a crash, the segments must be there.
            if !work.manifest.cuts.is_empty() && !work.published.holds(&work.manifest) {
                self.settle(&mut work)?;
                self.upload(shared, &mut work, remote)?;
                if !work.published.holds(&work.manifest) {
                    return Err(LogError::Closed);
                }
            }
            // As long as they are in use, they stay.
            let files: Vec<_> = shared.index.read().files.iter().cloned().collect();
            (files, *shared.durable.borrow())
        };
        self.parts.lock().upload(&self.store, remote, &files)?;
        let mut status = self.status.lock();
        status.journal_uploaded = status.journal_uploaded.max(through);
        Ok(())
    }

    /// Cuts the oldest journal file, if it is full, synced, and covered by a checkpoint.
    fn cut_oldest(&self, shared: &Shared, work: &mut Work) -> Result<bool, LogError> {
        let Some((file, next)) = shared.index.read().oldest() else { return Ok(false) };
        // Commits up to here are in it, or nowhere.
        let last = Commit(next.first.0 - 1);
        let covered = self.control.lock().checkpoint.min(*shared.durable.borrow());
        // A log that has failed reads its files again.
        if last > covered || self.is_stopping() || shared.queue.is_failed() {
            return Ok(false);
        }
        let stop = || self.is_stopping();
        let Some(manifest) = cut(&self.store, &work.manifest, &file, &next, &stop)? else {
            return Ok(false);
        };
        let segments = manifest.segments.len() - work.manifest.segments.len();
        self.adopt(shared, work, manifest)?;
        info!(file = %file.path.display(), through = %work.manifest.through, segments, "cut a journal file");
        work.doomed.journals.push(file);
        Ok(true)
    }

    /// Makes a manifest the one that counts, on disk and for readers.
    fn adopt(&self, shared: &Shared, work: &mut Work, manifest: Manifest) -> Result<(), LogError> {
        self.write(work, &manifest)?;
        let mut index = shared.index.write();
        let sealed = Arc::new(Sealed::new(&self.store, &manifest, index.sealed()));
        let same = |segment: &Segment| sealed.segment(&segment.entry);
        for segment in index.sealed().topics.values().flatten() {
            let stays = same(segment);
            let local = segment.entry.local && !stays.is_some_and(|s| s.entry.local);
            let object = segment.entry.uploaded && stays.is_none();
            if local || object {
                work.doomed.segments.push(DoomedSegment { segment: Arc::clone(segment), local, object });
            }
        }
        index.seal(Arc::clone(&sealed));
        drop(index);
        work.manifest = manifest;
        Ok(())
    }

    /// Writes the next manifest. After a failure it may or may not be what a start finds: until another one is there, all
    /// files stay as they are.
    fn write(&self, work: &mut Work, manifest: &Manifest) -> Result<(), LogError> {
        work.number += 1;
        let written = manifest::write(&self.store, work.number, manifest);
        work.uncertain = written.is_err();
        match &written {
            Ok(()) => work.settled = true,
            Err(error) => error!(%error, "the list of segments could not be written; it is tried again"),
        }
        written
    }

    /// After a failed write: makes what this process knows the newest manifest, and removes what the other one named.
    fn settle(&self, work: &mut Work) -> Result<(), LogError> {
        if !work.uncertain {
            return Ok(());
        }
        let manifest = work.manifest.clone();
        self.write(work, &manifest)?;
        self.sweep(work)
    }

    /// Removes what no manifest names.
    fn tidy(&self, work: &mut Work) -> Result<(), LogError> {
        let leftovers = !work.doomed.paths.is_empty();
        if !work.settled && (leftovers || work.number > 0) {
            if work.number == 0 {
                return Ok(());
            }
            let manifest = work.manifest.clone();
            self.write(work, &manifest)?;
            self.sweep(work)?;
        }
        if work.settled {
            manifest::remove_older(&self.store, work.number)?;
        }
        work.doomed.remove_files(&self.store)
    }

    /// Removes files that a crash left.
    fn sweep(&self, work: &Work) -> Result<(), LogError> {
        let segments = work.manifest.segments.iter().filter(|s| s.local).map(|s| s.local_name());
        // What somebody still reads goes later.
        let in_use = work.doomed.segments.iter().map(|doomed| doomed.segment.entry.local_name());
        let cuts = work.manifest.cuts.iter().map(|cut| cut.local_name());
        let named: HashSet<String> = segments.chain(cuts).chain(in_use).collect();
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

/// What there is in segments, before the journal is looked at. A folder that holds nothing, of a log that the object store
/// has, gets that: the journal behind the segments is put together again.
pub(crate) fn find(store: &Store, dir: &Path) -> Result<Option<(u64, Manifest)>, LogError> {
    let marker = store.path("restoring");
    let disk = &store.env.disk;
    let begun = disk.exists(&marker).map_err(|e| LogError::io("look for", &marker, e))?;
    let found = manifest::read_newest(store)?;
    if found.is_some() && !begun {
        return Ok(found);
    }
    let Some(remote) = &store.remote else { return Ok(found) };
    let names = disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
    let journals: Vec<_> = names.iter().filter(|name| JournalFile::parse_name(name).is_some()).collect();
    if !begun && !journals.is_empty() {
        return Ok(found);
    }
    let newest = upload::newest(remote)?.map(|(_, manifest)| manifest);
    if newest.is_none() && !upload::has_journal(remote)? {
        return Ok(None);
    }
    // Until the marker goes, a start begins again.
    store.create_dir()?;
    if !begun {
        store.write_file(&marker, b"")?;
        store.sync_dir()?;
    }
    for name in journals {
        store.remove_if_there(&dir.join(name))?;
    }
    let manifest = newest.unwrap_or_default();
    upload::restore_journal(store, remote, dir, manifest.through)?;
    let number = found.map_or(0, |(number, _)| number) + 1;
    manifest::write(store, number, &manifest)?;
    store.remove_if_there(&marker)?;
    store.sync_dir()?;
    info!(through = %manifest.through, "the log was restored from the object store");
    Ok(Some((number, manifest)))
}

/// Whether a journal file was cut by then.
pub(crate) fn is_cut(name: &Path, manifest: &Manifest) -> bool {
    JournalFile::parse_name(name).is_some_and(|first| first <= manifest.through)
}
