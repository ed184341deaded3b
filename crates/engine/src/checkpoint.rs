//! Checkpoints: what the driver hands over at an epoch boundary, and the task that makes it durable.
//!
//! The driver freezes what changed since the last checkpoint, which copies no more than that, and goes on with its epochs.
//! A task encodes, uploads and publishes one manifest; until then nothing of it exists. Runs whose publication failed stay
//! with the task's result and go into the next manifest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use millpond_catalog::{Catalog, Relation};
use millpond_env::Clock;
use millpond_log::Log;
use millpond_state::{Change, Checkpoints, HeapRun, KeyedRun, Manifest, ManifestDraft, Merged, NewRun, Run};
use millpond_types::{Commit, EventTime, RelationId, SqlError, SqlState};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::clock::CLOCK;
use crate::driver::{Command, Counters};
use crate::reject::{ErrorRow, LateRow, Refused};
use crate::status::CheckpointStatus;
use crate::view::View;

/// What the engine keeps in a manifest beside the states.
#[derive(Serialize, Deserialize)]
pub(crate) struct Extra {
    pub source_rows: HashMap<RelationId, u64>,
    pub errors: Refused<ErrorRow>,
    pub late: Refused<LateRow>,
}

/// What changed in one state.
pub(crate) struct Frozen {
    pub id: String,
    pub fingerprint: String,
    run: FrozenRun,
    /// It is all there is: what earlier checkpoints have of the state belongs to an earlier life of its view.
    fresh: bool,
}

enum FrozenRun {
    None,
    Heap(HeapRun),
    Keyed(millpond_dataflow::Frozen),
}

impl Frozen {
    pub fn heap(id: String, fingerprint: &str, run: Option<HeapRun>) -> Self {
        let run = run.map_or(FrozenRun::None, FrozenRun::Heap);
        Self { id, fingerprint: fingerprint.to_owned(), run, fresh: false }
    }

    /// The states of a view: its rows, and those of its operators. States that did not change are named all the same.
    pub fn of_view(id: RelationId, view: &mut View, states: &mut Vec<Self>) {
        let fingerprint = view.fingerprint.clone();
        let fresh = std::mem::take(&mut view.fresh);
        let rows = Self::heap(format!("view/{id}/rows"), &fingerprint, view.contents.freeze());
        states.push(Self { fresh, ..rows });
        let mut named: BTreeMap<String, Self> = BTreeMap::new();
        for node in view.graph.node_stats() {
            for state in node.states {
                let id = operator_state(id, node.node, state);
                let run = FrozenRun::None;
                named.insert(id.clone(), Self { id, fingerprint: fingerprint.clone(), run, fresh });
            }
        }
        for frozen in view.graph.freeze() {
            let id = operator_state(id, frozen.node, frozen.state);
            named.insert(
                id.clone(),
                Self { id, fingerprint: fingerprint.clone(), run: FrozenRun::Keyed(frozen), fresh },
            );
        }
        states.extend(named.into_values());
    }
}

/// The state that holds a table's rows. With added columns it is another one: runs of a state have the same columns.
pub(crate) fn table_state(table: &Relation) -> String {
    let id = table.id;
    match table.columns.iter().filter(|column| column.added_at > Commit(0)).count() {
        0 => format!("table/{id}/rows"),
        added => format!("table/{id}/rows+{added}"),
    }
}

pub(crate) fn operator_state(view: RelationId, node: millpond_dataflow::NodeId, state: &str) -> String {
    format!("view/{view}/{node}/{state}")
}

/// Everything of one cut.
pub(crate) struct Draft {
    pub cut: Commit,
    pub catalog: Arc<Catalog>,
    pub watermarks: BTreeMap<RelationId, EventTime>,
    pub source_rows: HashMap<RelationId, u64>,
    pub errors: Refused<ErrorRow>,
    pub late: Refused<LateRow>,
    pub states: Vec<Frozen>,
    /// Sinks by name, each with what resolves when its target has everything up to the cut.
    pub sinks: Vec<(String, oneshot::Receiver<()>)>,
    /// How long the driver stood still.
    pub pause: Duration,
}

type Reply = oneshot::Sender<Result<(), SqlError>>;

/// Runs of a failed checkpoint that no manifest names yet, by state, and whether they are all there is of it.
type Carried = BTreeMap<String, (bool, Vec<NewRun>)>;

/// What a checkpoint's task leaves behind.
pub(crate) struct Finished {
    result: Result<CheckpointStatus, SqlError>,
    carried: Carried,
    merged: Vec<Merged>,
    replies: Vec<Reply>,
    /// Changes were lost on the way, so no later checkpoint of this process would be whole.
    lost: bool,
}

/// The driver's side of checkpoints.
pub(crate) struct Checkpointer {
    checkpoints: Checkpoints,
    log: Log,
    runtime: tokio::runtime::Handle,
    clock: Arc<dyn Clock>,
    busy: bool,
    carried: Carried,
    merged: Vec<Merged>,
    /// Who asked for a checkpoint while one was running.
    waiting: Vec<Reply>,
    commands: Sender<Command>,
    lost: bool,
}

impl Checkpointer {
    pub fn new(
        checkpoints: Checkpoints,
        log: Log,
        runtime: tokio::runtime::Handle,
        clock: Arc<dyn Clock>,
        commands: Sender<Command>,
    ) -> Self {
        Self {
            checkpoints,
            log,
            runtime,
            clock,
            busy: false,
            carried: BTreeMap::new(),
            merged: Vec::new(),
            waiting: Vec::new(),
            commands,
            lost: false,
        }
    }

    /// Live state is made again out of the newest manifest: what earlier state has left over for the next one is void.
    pub fn begin_anew(&mut self) -> Checkpoints {
        self.carried.clear();
        self.lost = false;
        self.checkpoints.clone()
    }

    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Remembers somebody who asked while a checkpoint was running: the next one is for him.
    pub fn wait(&mut self, reply: Option<Reply>) {
        self.waiting.extend(reply);
    }

    pub fn start(&mut self, draft: Draft, reply: Option<Reply>, commands: Sender<Command>) {
        self.busy = true;
        let mut replies = std::mem::take(&mut self.waiting);
        replies.extend(reply);
        if self.lost {
            self.busy = false;
            let why =
                SqlError::internal("an earlier checkpoint lost changes").hint("Start the server again.");
            replies.into_iter().for_each(|reply| drop(reply.send(Err(why.clone()))));
            return;
        }
        let task = Task {
            checkpoints: self.checkpoints.clone(),
            log: self.log.clone(),
            clock: Arc::clone(&self.clock),
            carried: std::mem::take(&mut self.carried),
            merged: std::mem::take(&mut self.merged),
        };
        self.runtime.spawn(async move {
            let finished = task.run(draft, replies).await;
            let _ = commands.send(Command::CheckpointDone(Box::new(finished)));
        });
    }

    pub fn finished(&mut self, finished: Finished, counters: &Counters) {
        use std::sync::atomic::Ordering;
        self.busy = false;
        self.lost |= finished.lost;
        self.carried = finished.carried;
        self.merged = finished.merged;
        let answer = match finished.result {
            Ok(status) => {
                *counters.checkpoint.lock() = Some(status);
                Ok(())
            }
            Err(why) => {
                counters.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
                error!(%why, detail = why.detail_text(), "a checkpoint failed; the next one takes its place");
                Err(why)
            }
        };
        for reply in finished.replies {
            let _ = reply.send(answer.clone());
        }
        if !self.waiting.is_empty() {
            let _ = self.commands.send(Command::Checkpoint(None));
        }
    }
}

struct Task {
    checkpoints: Checkpoints,
    log: Log,
    clock: Arc<dyn Clock>,
    carried: Carried,
    merged: Vec<Merged>,
}

impl Task {
    async fn run(self, mut draft: Draft, replies: Vec<Reply>) -> Finished {
        let sinks = std::mem::take(&mut draft.sinks);
        let start = self.clock.monotonic();
        let (cut, pause) = (draft.cut, draft.pause);
        let packed = {
            let carried = self.carried;
            tokio::task::spawn_blocking(move || pack(draft, carried)).await
        };
        let packed = match packed {
            Ok(Ok(packed)) => packed,
            Ok(Err(why)) => return Finished::lost(why, replies),
            Err(_) => return Finished::lost(SqlError::internal("packing a checkpoint panicked"), replies),
        };
        let manifest = ManifestDraft { merged: self.merged.clone(), ..packed };
        let bytes = manifest.states.values().map(new_bytes).sum();
        let ready = match sinks_committed(sinks).await {
            Ok(()) => upload_journal(self.log).await,
            Err(why) => Err(why),
        };
        let published = match ready {
            Ok(()) => self.checkpoints.publish(&manifest).await.map_err(|why| checkpoint_error(&why)),
            Err(why) => Err(why),
        };
        match published {
            Ok(published) => {
                let seconds = self.clock.monotonic().saturating_sub(start).as_secs_f64();
                let merged = merge(&self.checkpoints).await;
                let number = published.number;
                info!(number, %cut, bytes, seconds, "checkpoint");
                let result =
                    Ok(CheckpointStatus { number, cut, bytes, seconds, pause_seconds: pause.as_secs_f64() });
                Finished { result, carried: BTreeMap::new(), merged, replies, lost: false }
            }
            Err(why) => Finished {
                result: Err(why),
                carried: manifest
                    .states
                    .into_iter()
                    .filter_map(|(id, change)| Some((id, runs_of(change)?)))
                    .collect(),
                merged: self.merged,
                replies,
                lost: false,
            },
        }
    }
}

impl Finished {
    /// A failure that loses runs can only be healed by a restart from the last manifest: say so.
    fn lost(why: SqlError, replies: Vec<Reply>) -> Self {
        Self { result: Err(why), carried: BTreeMap::new(), merged: Vec::new(), replies, lost: true }
    }
}

/// A checkpoint stands for the log before it, so the sinks must have had that first.
async fn sinks_committed(sinks: Vec<(String, oneshot::Receiver<()>)>) -> Result<(), SqlError> {
    for (name, done) in sinks {
        done.await.map_err(|_| {
            SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("sink \"{name}\" is behind"))
                .hint("Drop it, or start the server again when its target works.")
        })?;
    }
    Ok(())
}

/// The log goes first into an object store that both share: a lost disk must not leave a checkpoint of what is lost.
async fn upload_journal(log: Log) -> Result<(), SqlError> {
    let uploaded = tokio::task::spawn_blocking(move || log.upload_journal()).await;
    match uploaded {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            Err(SqlError::new(SqlState::IO_ERROR, "could not upload the log").detail(format!("{why}.")))
        }
        Err(_) => Err(SqlError::internal("uploading the log panicked")),
    }
}

fn new_bytes(change: &Change) -> u64 {
    let runs = match change {
        Change::Keep => return 0,
        Change::Add { runs, .. } | Change::Replace { runs, .. } => runs,
    };
    let bytes = runs.iter().map(|run| match run {
        NewRun::Encoded(run) => run.bytes.len() as u64,
        NewRun::Uploaded(run) => run.bytes,
    });
    bytes.sum()
}

fn runs_of(change: Change) -> Option<(bool, Vec<NewRun>)> {
    match change {
        Change::Keep => None,
        Change::Add { runs, .. } => Some((false, runs)),
        Change::Replace { runs, .. } => Some((true, runs)),
    }
}

/// Sorts and encodes what the driver handed over.
fn pack(draft: Draft, mut carried: Carried) -> Result<ManifestDraft, SqlError> {
    let mut states = BTreeMap::new();
    for frozen in draft.states {
        let earlier = carried.remove(&frozen.id).filter(|_| !frozen.fresh);
        let (replaces, mut runs) = earlier.unwrap_or((frozen.fresh, Vec::new()));
        match frozen.run {
            FrozenRun::None => {}
            FrozenRun::Heap(run) => runs.push(NewRun::Encoded(run.encode().map_err(pack_error)?)),
            FrozenRun::Keyed(rows) => {
                let run = rows.into_run().map_err(pack_error)?;
                runs.push(NewRun::Encoded(run.encode().map_err(pack_error)?));
            }
        }
        let fingerprint = frozen.fingerprint;
        let change = match replaces {
            true => Change::Replace { fingerprint, runs },
            false => Change::Add { fingerprint, runs },
        };
        states.insert(frozen.id, change);
    }
    let extra = Extra { source_rows: draft.source_rows, errors: draft.errors, late: draft.late };
    let json = |error: serde_json::Error| SqlError::internal(error.to_string());
    let mut watermarks = draft.watermarks;
    let now = watermarks.remove(&CLOCK);
    Ok(ManifestDraft {
        cut: draft.cut,
        now,
        watermarks,
        time_zone_data: String::new(),
        catalog: serde_json::to_value(&*draft.catalog).map_err(json)?,
        extra: serde_json::to_value(&extra).map_err(json)?,
        states,
        merged: Vec::new(),
    })
}

fn pack_error(fault: millpond_state::StateFault) -> SqlError {
    SqlError::internal(format!("state could not be packed: {fault}"))
}

/// Merges runs and sweeps what nothing names any more; a failure costs only the effort.
async fn merge(checkpoints: &Checkpoints) -> Vec<Merged> {
    let mut merged = Vec::new();
    for job in checkpoints.plan_merges() {
        match checkpoints.merge(&job).await {
            Ok(done) => merged.push(done),
            Err(why) => warn!(state = %job.state, %why, "runs could not be merged"),
        }
    }
    if let Err(why) = checkpoints.sweep().await {
        warn!(%why, "old objects could not be swept");
    }
    merged
}

pub(crate) fn checkpoint_error(error: &millpond_state::CheckpointError) -> SqlError {
    use std::error::Error;
    let detail = error.source().map(ToString::to_string);
    let state = match error {
        millpond_state::CheckpointError::Corrupt { .. } => SqlState::DATA_CORRUPTED,
        millpond_state::CheckpointError::Fenced { .. } => SqlState::OBJECT_IN_USE,
        _ => SqlState::IO_ERROR,
    };
    let sql = SqlError::new(state, error.to_string());
    match detail {
        Some(detail) => sql.detail(format!("{detail}.")),
        None => sql,
    }
}

/// The runs of a state, if the manifest has it for the same plan; heaps and keyed runs apart.
pub(crate) async fn heap_runs(
    checkpoints: &Checkpoints,
    manifest: &Manifest,
    id: &str,
    fingerprint: &str,
) -> Result<Option<Vec<HeapRun>>, SqlError> {
    let Some(entry) = manifest.states.get(id).filter(|entry| entry.fingerprint == fingerprint) else {
        return Ok(None);
    };
    let runs = checkpoints.read_state(entry).await.map_err(|e| checkpoint_error(&e))?;
    let heaps = runs.into_iter().map(|run| match run {
        Run::Heap(run) => Ok(run),
        Run::Keyed(_) => {
            Err(SqlError::new(SqlState::DATA_CORRUPTED, format!("state {id} has a run of another kind")))
        }
    });
    heaps.collect::<Result<_, _>>().map(Some)
}

pub(crate) async fn keyed_run(
    checkpoints: &Checkpoints,
    manifest: &Manifest,
    id: &str,
    fingerprint: &str,
) -> Result<Option<KeyedRun>, SqlError> {
    let Some(entry) = manifest.states.get(id).filter(|entry| entry.fingerprint == fingerprint) else {
        return Ok(None);
    };
    let runs = checkpoints.read_state(entry).await.map_err(|e| checkpoint_error(&e))?;
    let mut keyed = Vec::new();
    for run in runs {
        match run {
            Run::Keyed(run) => keyed.push(run),
            Run::Heap(_) => {
                return Err(SqlError::new(
                    SqlState::DATA_CORRUPTED,
                    format!("state {id} has a run of another kind"),
                ));
            }
        }
    }
    if keyed.is_empty() {
        return Ok(None);
    }
    KeyedRun::merge(keyed, true).map(Some).map_err(pack_error)
}
