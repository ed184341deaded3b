//! Checkpoints
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_types::{Commit, EventTime, RelationId};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::{CheckpointError, EncodedRun, Run, RunKind};

/// The root of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this structure.
    pub format: u32,
    /// Counts the manifests of a prefix; also its object's name.
    pub number: u64,
    /// Counts the writers of a prefix.
    pub writer_epoch: u64,
    /// Random; tells two writers apart that claim the same epoch at the same time.
    pub writer: u64,
    /// `millpond_types::hash::VERSION`
    pub hash_version: u32,
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
    /// Below the prefix.
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
    /// Not at all.
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

/// A merge that is worth doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeJob {
    pub state: String,
    /// Adjacent runs, oldest first.
    pub inputs: Vec<RunRef>,
    /// The inputs begin with the state's oldest run.
    pub bottom: bool,
}

/// A merge that is done: `output` stands for `inputs`.
#[derive(Clone, Debug)]
pub struct Merged {
    pub state: String,
    pub inputs: Vec<RunRef>,
    pub output: RunRef,
}

#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// A random number that no other incarnation of a writer has.
    pub writer: u64,
    /// Uploads and downloads at a time.
    pub concurrency: usize,
    /// That many newest manifests, and all that they name, survive a sweep.
    pub manifests_kept: usize,
}

/// Checkpoints below one prefix of an object store. Cheap to clone; all clones are one writer.
#[derive(Clone)]
pub struct Checkpoints {}

impl Checkpoints {
    /// Claims the writer role: from now on older writers are fenced. Returns the newest manifest, which is this writer's own
    /// first one: a copy of its predecessor, or an empty one (`cut` 0) where there was none.
    pub async fn open(
        _store: Arc<dyn ObjectStore>,
        _prefix: Path,
        _options: CheckpointOptions,
    ) -> Result<(Self, Manifest), CheckpointError> {
        unimplemented!()
    }
    /// The newest manifest below a prefix, without claiming anything: for readers.
    pub async fn newest(
        _store: &dyn ObjectStore,
        _prefix: &Path,
    ) -> Result<Option<Manifest>, CheckpointError> {
        unimplemented!()
    }
    /// The newest manifest that this writer has published.
    pub fn current(&self) -> Arc<Manifest> {
        unimplemented!()
    }
    /// Uploads a run ahead of the publish that names it.
    pub async fn upload(&self, _state: &str, _run: &EncodedRun) -> Result<RunRef, CheckpointError> {
        unimplemented!()
    }
    /// Uploads the runs, then the manifest. On an error nothing is published and the draft can be given again, alone or
    /// with more runs added.
    pub async fn publish(&self, _draft: &ManifestDraft) -> Result<Arc<Manifest>, CheckpointError> {
        unimplemented!()
    }
    /// The bytes of a run, checked for size and checksum.
    pub async fn read_bytes(&self, _run: &RunRef) -> Result<Bytes, CheckpointError> {
        unimplemented!()
    }
    pub async fn read(&self, _run: &RunRef) -> Result<Run, CheckpointError> {
        unimplemented!()
    }
    /// All runs of a state, oldest first.
    pub async fn read_state(&self, _entry: &StateEntry) -> Result<Vec<Run>, CheckpointError> {
        unimplemented!()
    }
    /// The merges that are worth doing now.
    pub fn plan_merges(&self) -> Vec<MergeJob> {
        unimplemented!()
    }
    /// Does a merge and uploads its output; give the result to a following draft.
    pub async fn merge(&self, _job: &MergeJob) -> Result<Merged, CheckpointError> {
        unimplemented!()
    }
    /// Deletes manifests but the newest few, and objects that none of those names and that no upload of this writer may
    /// still publish. Returns how many objects were deleted.
    pub async fn sweep(&self) -> Result<usize, CheckpointError> {
        unimplemented!()
    }
}
