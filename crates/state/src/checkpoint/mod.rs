//! Runs and manifests in an object store.
//!
//! ```text
//! <prefix>/manifest/00000000000000000017.json      the root: cut, catalog, runs with size and checksum
//! <prefix>/state/<state id>/<writer epoch>-<n>.run
//! ```
//!
//! A checkpoint is published by creating the manifest of the next number, which succeeds for one writer only, after all
//! that it names was uploaded under fresh names. So half a checkpoint does not exist (I5), and the newest manifest is always
//! whole. [`Checkpoints::open`] claims the writer role by such a manifest with the next writer epoch; an older writer that
//! finds its number taken by a higher epoch is fenced for good.
//!
//! A creation whose answer is lost may have happened. The publish reads back; if that fails too it is an error, and the next
//! publish finds the number taken by its own writer and goes on behind it.
//!
//! Runs of a state pile up, oldest first. [`Checkpoints::plan_merges`] finds neighbours of similar size to merge in the
//! background; a merged run takes its inputs' place in a later manifest. [`Checkpoints::sweep`] deletes what no kept manifest
//! names.

mod manifest;
mod merge;
mod objects;
mod publish;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;

pub use self::manifest::{Change, Manifest, ManifestDraft, Merged, NewRun, RunRef, StateEntry};
pub use self::merge::MergeJob;
use self::objects::Objects;
use self::publish::Role;
use crate::{CheckpointError, Run};

/// Larger runs travel in parts of this size, as one long request would run into the client's time limit. S3 wants at
/// least 5 MiB.
const PART_BYTES: usize = 32 << 20;

#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// A random number that no other incarnation of a writer has.
    pub writer: u64,
    /// Uploads and downloads at a time.
    pub concurrency: usize,
    /// That many newest manifests, and all that they name, survive a sweep. At least 2.
    pub manifests_kept: usize,
}

impl CheckpointOptions {
    pub fn new(writer: u64) -> Self {
        Self { writer, concurrency: 8, manifests_kept: 3 }
    }
}

/// Checkpoints below one prefix of an object store. Cheap to clone; all clones are one writer.
#[derive(Clone, Debug)]
pub struct Checkpoints(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: Objects,
    options: CheckpointOptions,
    writer_epoch: u64,
    /// Of the next run's name.
    sequence: AtomicU64,
    /// Runs of this writer that a manifest may still come to name.
    unsettled: Mutex<BTreeSet<u64>>,
    current: Mutex<Arc<Manifest>>,
    /// Publishes take turns.
    role: tokio::sync::Mutex<Role>,
}

impl Checkpoints {
    /// Claims the writer role: from now on older writers are fenced. Returns this writer's first manifest: a copy of the
    /// newest one, or an empty one (`cut` 0) where there was none.
    ///
    /// # Errors
    /// If the newest manifest is damaged or of another program's time, the store cannot create without overwriting, or fails.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        options: CheckpointOptions,
    ) -> Result<(Self, Manifest), CheckpointError> {
        Self::open_in(Objects { store, prefix, part_bytes: PART_BYTES }, options).await
    }

    async fn open_in(
        objects: Objects,
        options: CheckpointOptions,
    ) -> Result<(Self, Manifest), CheckpointError> {
        let manifest = publish::claim(&objects, options.writer).await?;
        let inner = Inner {
            objects,
            options,
            writer_epoch: manifest.writer_epoch,
            sequence: AtomicU64::new(1),
            unsettled: Mutex::default(),
            current: Mutex::new(Arc::new(manifest.clone())),
            role: tokio::sync::Mutex::new(Role::at(manifest.number)),
        };
        Ok((Self(Arc::new(inner)), manifest))
    }

    /// The newest manifest below a prefix, without claiming anything: for readers.
    pub async fn newest(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
    ) -> Result<Option<Manifest>, CheckpointError> {
        let objects = Objects { store, prefix, part_bytes: PART_BYTES };
        Ok(objects.newest().await?.0)
    }

    /// The newest manifest that this writer has published.
    pub fn current(&self) -> Arc<Manifest> {
        self.0.current.lock().clone()
    }

    pub fn writer_epoch(&self) -> u64 {
        self.0.writer_epoch
    }

    /// The bytes of a run, checked for size and checksum.
    pub async fn read_bytes(&self, run: &RunRef) -> Result<Bytes, CheckpointError> {
        self.0.objects.get_run(run).await
    }

    /// A run, decoded on a thread for blocking work.
    pub async fn read(&self, run: &RunRef) -> Result<Run, CheckpointError> {
        let bytes = self.read_bytes(run).await?;
        let decoded = tokio::task::spawn_blocking(move || Run::decode(&bytes)).await;
        let what = match decoded {
            Ok(Ok(decoded)) if decoded.kind() == run.kind => return Ok(decoded),
            Ok(Ok(decoded)) => {
                format!("it is of kind {:?}, but its manifest says {:?}", decoded.kind(), run.kind)
            }
            Ok(Err(corrupt)) => corrupt.to_string(),
            Err(_) => "its decoder stopped".to_owned(),
        };
        Err(CheckpointError::Corrupt { path: run.path.clone(), what })
    }

    /// All runs of a state, oldest first.
    pub async fn read_state(&self, entry: &StateEntry) -> Result<Vec<Run>, CheckpointError> {
        self.read_all(&entry.runs).await
    }

    /// Several runs, in their order; some are read at the same time.
    pub async fn read_all(&self, runs: &[RunRef]) -> Result<Vec<Run>, CheckpointError> {
        // Boxed, because the compiler cannot see that a closure over references of all lifetimes returns a `Send` future.
        let reads: Vec<_> = runs.iter().map(|run| Box::pin(self.read(run))).collect();
        stream::iter(reads).buffered(self.0.options.concurrency.max(1)).try_collect().await
    }
}
