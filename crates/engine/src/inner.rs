//! What all sessions of an engine share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use millpond_catalog::Catalog;
use millpond_env::Env;
use millpond_log::{Log, LogError, Ticket, Transaction};
use millpond_plan::{PlanSettings, Planner};
use millpond_state::Relation as Stored;
use millpond_types::{Commit, Delta, EventTime, RelationId, SqlError, SqlState};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::driver::{Command, DriverHandle};
use crate::relation::identity;
use crate::snapshot::Snapshot;
use crate::system::{ConnectionInfo, SystemCatalog};
use crate::target::{Key, Target};
use crate::txn::{SharedImage, TableImage};

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Folder of the log and, without `object_store`, of the checkpoints.
    pub data_dir: PathBuf,
    /// Where checkpoints go: a folder, or a URL such as `s3://bucket/prefix`.
    pub object_store: Option<String>,
    /// Bytes for queries and state together.
    pub memory_limit: usize,
    pub shards: usize,
    pub checkpoint_interval: Duration,
    /// Most rows of one step of the dataflow; no result depends on it.
    pub epoch_rows: usize,
    pub max_connections: usize,
    /// Most bytes that one transaction writes (54000).
    pub max_transaction_bytes: usize,
    /// A journal file is ended when it has so many bytes.
    pub journal_file_bytes: u64,
    /// Or when it has been written to for so long, with an object store or a source that does not keep its rows for ever:
    /// rows become segments not much later.
    pub seal_interval: Duration,
    /// With an object store: how long uploaded segments stay on the local disk, too; for ever, if there is none.
    pub local_retention: Option<Duration>,
    /// Whether a thread of the log makes segments; else each checkpoint does, so that simulations repeat themselves.
    #[doc(hidden)]
    pub background: bool,
    /// Leaves out the n-th retraction that reaches a view: a bug that the oracle's own test must find.
    #[doc(hidden)]
    pub skip_retraction: Option<u64>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./millpond-data"),
            object_store: None,
            memory_limit: 4 << 30,
            shards: 1,
            checkpoint_interval: Duration::from_secs(10),
            epoch_rows: 65_536,
            max_connections: 1_000,
            max_transaction_bytes: 1 << 30,
            journal_file_bytes: 256 << 20,
            seal_interval: Duration::from_secs(600),
            local_retention: Some(Duration::from_secs(86_400)),
            background: true,
            skip_retraction: None,
        }
    }
}

pub(crate) struct Inner {
    pub config: EngineConfig,
    pub env: Env,
    pub system: Arc<dyn SystemCatalog>,
    pub log: Log,
    pub driver: DriverHandle,
    pub published: watch::Receiver<Arc<Snapshot>>,
    /// DDL statements run one at a time, and each waits until it is published: the newest snapshot's catalog is the newest.
    pub ddl: tokio::sync::Mutex<()>,
    pub datafusion: SessionState,
    pub connections: Mutex<BTreeMap<u64, ConnectionInfo>>,
    targets: RwLock<HashMap<(RelationId, u32), Arc<Target>>>,
    images: Mutex<HashMap<RelationId, SharedImage>>,
    pub connectors: crate::connectors::Running,
    pub started: Duration,
    pub stopping: AtomicBool,
    /// The newest commit of which any session was told.
    acknowledged: AtomicU64,
    /// Ends the timer of checkpoints.
    timer: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Inner {
    #[allow(clippy::too_many_arguments, reason = "the parts of an engine, put together once")]
    pub fn new(
        config: EngineConfig,
        env: Env,
        system: Arc<dyn SystemCatalog>,
        log: Log,
        driver: DriverHandle,
        published: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Self, SqlError> {
        let datafusion = datafusion_state(&config)?;
        let started = env.clock.monotonic();
        Ok(Self {
            config,
            env,
            system,
            log,
            driver,
            published,
            ddl: tokio::sync::Mutex::new(()),
            datafusion,
            connections: Mutex::default(),
            targets: RwLock::default(),
            images: Mutex::default(),
            connectors: crate::connectors::Running::default(),
            started,
            stopping: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            timer: Mutex::default(),
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.borrow())
    }

    /// Remembers a commit before its client hears of it: from then on whoever it tells may look for the rows.
    pub fn acknowledge(&self, commit: Commit) {
        self.acknowledged.fetch_max(commit.0, Ordering::SeqCst);
    }

    pub fn acknowledged(&self) -> Commit {
        Commit(self.acknowledged.load(Ordering::SeqCst))
    }

    pub fn now(&self) -> EventTime {
        EventTime(self.env.clock.now_micros())
    }

    /// A planner for what is the system's own: watermarks and generated columns.
    pub fn own_planner(&self, catalog: &Arc<Catalog>) -> Planner {
        let settings = PlanSettings {
            search_path: vec!["public".into()],
            time_zone: "UTC".into(),
            now: self.now(),
            database: "millpond".into(),
            user: "millpond".into(),
        };
        Planner::new(Arc::clone(catalog), settings, None)
    }

    /// What writes to a relation need, made once per version of it.
    pub fn target(&self, catalog: &Arc<Catalog>, id: RelationId) -> Result<Arc<Target>, SqlError> {
        let relation = catalog.relation(id).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation {id} does not exist"))
        })?;
        let cached = (id, relation.schema_version);
        if let Some(target) = self.targets.read().get(&cached)
            && Arc::ptr_eq(&target.relation, relation)
        {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(Target::new(Arc::clone(relation), &self.own_planner(catalog))?);
        self.targets.write().insert(cached, Arc::clone(&target));
        Ok(target)
    }

    /// The image of a table, which the first writer since the start makes out of the published rows.
    pub async fn image(&self, target: &Target) -> Result<SharedImage, SqlError> {
        if let Some(image) = self.images.lock().get(&target.id()) {
            return Ok(Arc::clone(image));
        }
        let snapshot = self.snapshot();
        let contents = snapshot.readable(&target.relation)?;
        let mut rows =
            Stored::new(&target.relation.name, Arc::clone(&target.stored), identity(&target.relation));
        let mut next_row_id = 0;
        for batch in contents.heap.batches(None) {
            let batch = batch.map_err(|fault| SqlError::internal(fault.to_string()))?;
            if let Key::RowId(column) = target.key {
                use arrow::array::AsArray;
                let ids = batch.column(column).as_primitive::<arrow::datatypes::Int64Type>();
                next_row_id = next_row_id.max(arrow::compute::max(ids).map_or(0, |id| id + 1));
            }
            rows.apply(&Delta::insert(batch)).map_err(|fault| SqlError::internal(fault.to_string()))?;
        }
        // Nobody has written since the start, or there would be an image: the published rows are all there are. Of two
        // first writers that come here at once, the one that inserts first wins.
        let made = Arc::new(tokio::sync::Mutex::new(TableImage { rows, next_row_id }));
        Ok(Arc::clone(self.images.lock().entry(target.id()).or_insert(made)))
    }

    pub fn forget(&self, relation: RelationId) {
        self.images.lock().remove(&relation);
        self.targets.write().retain(|(id, _), _| *id != relation);
    }

    /// Lets a renamed relation be looked at anew.
    pub fn forget_target(&self, relation: RelationId) {
        self.targets.write().retain(|(id, _), _| *id != relation);
    }

    /// Takes a checkpoint every so often.
    pub fn start_checkpoints(self: &Arc<Self>) {
        let (commands, clock) = (self.driver.commands.clone(), Arc::clone(&self.env.clock));
        let interval = self.config.checkpoint_interval;
        let timer = tokio::spawn(async move {
            loop {
                clock.sleep(interval).await;
                if commands.send(Command::Checkpoint(None)).is_err() {
                    return;
                }
            }
        });
        *self.timer.lock() = Some(timer.abort_handle());
    }

    /// Takes a checkpoint now.
    pub async fn checkpoint(&self) -> Result<(), SqlError> {
        let (reply, done) = tokio::sync::oneshot::channel();
        let stopped = || SqlError::new(SqlState::ADMIN_SHUTDOWN, "the epoch driver has stopped");
        self.driver.commands.send(Command::Checkpoint(Some(reply))).map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }

    pub async fn stop(&self, gracefully: bool) {
        self.stopping.store(true, Ordering::SeqCst);
        self.connectors.stop_all();
        if let Some(timer) = self.timer.lock().take() {
            timer.abort();
        }
        if gracefully {
            let commit = self.log.last_commit();
            let _ = self.wait_published(commit).await;
            if let Err(error) = self.checkpoint().await {
                tracing::warn!(%error, "no checkpoint at shutdown; the next start replays the log instead");
            }
        }
        let (done, stopped) = tokio::sync::oneshot::channel();
        if self.driver.commands.send(Command::Stop(done)).is_ok() {
            let _ = stopped.await;
        }
    }

    /// Queues a transaction; the log may make the caller wait for room.
    pub async fn submit(&self, transaction: Transaction) -> Result<Ticket, SqlError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(SqlError::new(SqlState::ADMIN_SHUTDOWN, "the server is shutting down"));
        }
        let state = self.driver.state_bytes();
        if state > self.config.memory_limit && !transaction.writes.is_empty() {
            return Err(SqlError::new(SqlState::OUT_OF_MEMORY, "live state has reached the memory limit")
                .detail(format!("It holds {state} bytes; the limit is {} bytes.", self.config.memory_limit))
                .hint("Drop views or tables, or start the server with a higher --memory-limit."));
        }
        let log = self.log.clone();
        // Most submits find room at once; a full queue blocks, and must not block the runtime.
        Ok(tokio::task::block_in_place(|| log.submit(transaction)))
    }

    pub fn log_error(&self, error: &LogError) -> SqlError {
        log_error(error)
    }

    /// Waits until a snapshot of at least `commit` is published.
    pub async fn wait_published(&self, commit: Commit) -> Result<Arc<Snapshot>, SqlError> {
        let mut published = self.published.clone();
        let snapshot = published.wait_for(|s| s.cut >= commit).await.map_err(|_| {
            SqlError::new(SqlState::ADMIN_SHUTDOWN, "the epoch driver has stopped")
                .hint("The server's log says why; start it again.")
        })?;
        Ok(Arc::clone(&snapshot))
    }
}

pub(crate) fn log_error(error: &LogError) -> SqlError {
    let state = if error.is_disk_full() { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    SqlError::new(state, format!("could not write to the log: {error}"))
        .detail(
            "What was being written may or may not be there after a restart; nothing acknowledged is lost.",
        )
        .hint("Look at the disk, then start the server again.")
}

/// One state for all statements: plans come finished, so it holds configuration, memory and nothing of a session.
fn datafusion_state(config: &EngineConfig) -> Result<SessionState, SqlError> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.shards.max(1))
        .with_batch_size(8192)
        .with_information_schema(false);
    let options = session.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.execution.time_zone = Some(millpond_types::sql_type::UTC.to_owned());
    let pool = Arc::new(FairSpillPool::new(config.memory_limit / 2));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .build_arc()
        .map_err(millpond_functions::error::from_datafusion)?;
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .build())
}
