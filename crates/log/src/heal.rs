//! Going on after a failed write or sync, without a restart.
//!
//! What a failed sync covered may be on the disk, in part or not at all, whatever reads of it show and later syncs say. So
//! first everything behind the newest group that was synced is cut off, durably, and what the log knows of topics and places
//! is read again up to there: it holds what is lost. Then the log goes on in a new file, with a group that is empty. Its
//! number lies beyond all that were given to lost groups, so that no number means two things, and whoever waits for a lost
//! one does not wait for ever. Files may leave out numbers where they begin; the chain of checksums shows that nothing else
//! is missing.
//!
//! A crash at any point leaves either the old file with or without the lost groups, or that and a file whose first group
//! decides: recovery takes such a file back if the group is torn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_env::DiskFile;
use millpond_types::Commit;
use tracing::info;

use crate::group::{Built, Chain};
use crate::index::JournalFile;
use crate::recovery::Recovery;
use crate::writer::{Shared, reserve};
use crate::{CommittedGroup, LogError};

/// Room that must be there beside what the failed group takes, or the next one would fail again.
const SPARE_BYTES: u64 = 1 << 20;
/// Where space cannot be reserved, so much is written to see that it is there.
const PROBE_BYTES_MAX: u64 = 64 << 20;

/// What has been done of healing.
#[derive(Default)]
pub(crate) struct Healer {
    /// The newest failure after which everything was read again.
    read_after: u64,
    /// A file that could not be begun, and must be gone before another is.
    leftover: Option<PathBuf>,
}

impl Healer {
    /// Makes the log take appends again. Returns the group that shows it, for the observer; `None` if nothing was wrong.
    pub fn heal(
        &mut self,
        shared: &Shared,
        chain: &mut Chain,
    ) -> Result<Option<Arc<CommittedGroup>>, LogError> {
        if !shared.queue.is_failed() {
            return Ok(None);
        }
        let healed = self.try_heal(shared, chain);
        match &healed {
            Ok(group) => {
                shared.wanted_bytes.store(0, Ordering::Relaxed);
                shared.durable.send_replace(group.commit);
                shared.queue.healed();
                info!(commit = %group.commit, "the log goes on in a new file");
            }
            Err(error) => shared.queue.still_failed(error),
        }
        healed.map(Some)
    }

    fn try_heal(&mut self, shared: &Shared, chain: &mut Chain) -> Result<Arc<CommittedGroup>, LogError> {
        let term = shared.queue.term();
        if self.read_after < term {
            read_again(shared, chain)?;
            (self.read_after, self.leftover) = (term, None);
        }
        let disk = &*shared.env.disk;
        if let Some(path) = &self.leftover {
            if disk.exists(path).map_err(|e| LogError::io("look for", path, e))? {
                disk.remove(path).map_err(|e| LogError::io("remove", path, e))?;
            }
            disk.sync_dir(&chain.dir).map_err(|e| LogError::io("sync", &chain.dir, e))?;
            self.leftover = None;
        }
        let before = (chain.last, chain.previous, chain.sealed);
        let now_micros = shared.env.clock.now_micros();
        let built = chain.build(Vec::new(), Vec::new(), &shared.topics, now_micros, Vec::new())?;
        match write(shared, &built) {
            Ok(file) => {
                shared.begin(&built.file, file);
                let mut index = shared.index.write();
                index.files.push_back(Arc::clone(&built.file));
                index.add(built.group.commit, built.at, built.frames);
                Ok(built.group)
            }
            Err(error) => {
                self.leftover = Some(built.file.path.clone());
                (chain.last, chain.previous, chain.sealed) = before;
                chain.file = None;
                Err(error)
            }
        }
    }
}

/// Cuts off what is not synced and reads the rest.
fn read_again(shared: &Shared, chain: &mut Chain) -> Result<(), LogError> {
    let durable = *shared.durable.borrow();
    shared.forget_file();
    let sealed = Arc::clone(shared.index.read().sealed());
    let (disk, dir) = (&*shared.env.disk, &chain.dir);
    let recovery = Recovery { disk, dir, verify_from: durable, upto: Some(durable), sealed };
    let mut restored = recovery.run()?;
    if restored.index.last() != durable {
        let newest = restored.index.files.back().cloned();
        let journal = newest.unwrap_or_else(|| Arc::new(JournalFile::new(&chain.dir, Commit(1), 0)));
        let what = format!("it ends at commit {}, and {durable} was synced", restored.index.last());
        return Err(journal.corrupt(journal.written(), what));
    }
    let mut topics = shared.topics.lock();
    restored.topics.declare_like(&topics);
    *topics = restored.topics;
    let mut index = shared.index.write();
    // Files may have become segments meanwhile.
    restored.index.seal(Arc::clone(index.sealed()));
    *index = restored.index;
    drop(index);
    chain.previous = restored.previous;
    chain.sealed = restored.sealed;
    chain.file = None;
    Ok(())
}

/// Writes a file with its first group.
fn write(shared: &Shared, built: &Built) -> Result<Arc<dyn DiskFile>, LogError> {
    let path = &built.file.path;
    let header = built.new_file.as_ref().expect("the chain has no file, so it begins one");
    let file = shared.create(&built.file, header)?;
    let end = built.at + built.bytes.len() as u64;
    let wanted = end + shared.wanted_bytes.load(Ordering::Relaxed) + SPARE_BYTES;
    let full = |e| LogError::io("write to", path, e);
    match file.reserve(wanted) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            let zeros = vec![0; (wanted - built.at).min(PROBE_BYTES_MAX) as usize];
            file.write_at(&zeros, built.at).and_then(|()| file.sync_data()).map_err(full)?;
        }
        other => other.map_err(full)?,
    }
    file.set_len(built.at).map_err(full)?;
    file.write_at(&built.bytes, built.at).map_err(full)?;
    file.sync_data().map_err(|e| LogError::io("sync", path, e))?;
    built.file.set_written(end);
    built.file.set_synced(end);
    let _ = reserve(&*file, end);
    Ok(Arc::from(file))
}
