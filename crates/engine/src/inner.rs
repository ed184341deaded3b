//! What all sessions of an engine share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
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

/// How long a shutdown waits for views that have not caught up.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

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
    /// How long one view keeps the others waiting in an epoch of a few thousand rows, before it follows them alone.
    pub epoch_budget: Duration,
    /// Bytes of changes that may wait for views that follow alone.
    #[doc(hidden)]
    pub spool_bytes: usize,
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
    /// Time between two ticks of now() in views.
    #[doc(hidden)]
    pub tick_interval: Duration,
    /// Whether ALTER SYSTEM may move now() of views ahead, for tests.
    #[doc(hidden)]
    pub movable_clock: bool,
    /// Whether a thread of the log makes segments; else each checkpoint does, so that simulations repeat themselves.
    #[doc(hidden)]
    pub background: bool,
    /// Leaves out the n-th retraction that reaches a view: a bug that the oracle's own test must find.
    #[doc(hidden)]
    pub skip_retraction: Option<u64>,
    /// Instead of by time, a view is cut out after every so many pieces of work of the driver, and comes back by a draw: for
    /// simulations, whose clock stands still.
    #[doc(hidden)]
    pub cut_out_every: Option<u64>,
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
            epoch_budget: Duration::from_millis(100),
            spool_bytes: 1 << 30,
            max_connections: 1_000,
            max_transaction_bytes: 1 << 30,
            journal_file_bytes: 256 << 20,
            seal_interval: Duration::from_secs(600),
            local_retention: Some(Duration::from_secs(86_400)),
            tick_interval: Duration::from_secs(1),
            movable_clock: false,
            background: true,
            skip_retraction: None,
            cut_out_every: None,
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
    /// Each with the log's term to which it belongs: it holds what was appended then, and not yet acknowledged.
    images: Mutex<HashMap<RelationId, (u64, SharedImage)>>,
    pub connectors: crate::connectors::Running,
    pub started: Duration,
    pub stopping: AtomicBool,
    /// The newest commit of which any session was told.
    acknowledged: AtomicU64,
    /// Ends what runs by the clock.
    timers: Mutex<Vec<tokio::task::AbortHandle>>,
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
            timers: Mutex::default(),
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
        own_planner(catalog, self.now())
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
        let target = Arc::new(Target::new(
            Arc::clone(relation),
            &self.own_planner(catalog),
            Arc::clone(&self.env.clock),
        )?);
        self.targets.write().insert(cached, Arc::clone(&target));
        Ok(target)
    }

    /// The image of a table, which the first writer makes out of the published rows: the first since the start, or since the
    /// log has failed, as an older image holds what the log may have lost.
    ///
    /// # Errors
    /// 58030 and 53100 while the log takes no writes.
    pub async fn image(&self, target: &Target) -> Result<SharedImage, SqlError> {
        let term = self.writable_term()?;
        if let Some((of, image)) = self.images.lock().get(&target.id())
            && *of == term
        {
            return Ok(Arc::clone(image));
        }
        // Before a log goes on, everything durable of its last term is published.
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
        // Nobody has written in this term, or there would be an image: the published rows are all there are. Of two
        // first writers that come here at once, the one that inserts first wins.
        let made = Arc::new(tokio::sync::Mutex::new(TableImage { rows, next_row_id, term }));
        let mut images = self.images.lock();
        let (of, image) = images.entry(target.id()).or_insert_with(|| (term, Arc::clone(&made)));
        if *of < term {
            (*of, *image) = (term, made);
        }
        Ok(Arc::clone(image))
    }

    /// The log's term, if it takes writes.
    ///
    /// # Errors
    /// 58030, or 53100 if the disk is full.
    pub fn writable_term(&self) -> Result<u64, SqlError> {
        // In this order: a failure in between is found by the second, one after it by whoever submits.
        let term = self.log.term();
        match self.log.failure() {
            Some(failure) => Err(log_error(&failure)),
            None => Ok(term),
        }
    }

    pub fn forget(&self, relation: RelationId) {
        self.images.lock().remove(&relation);
        self.targets.write().retain(|(id, _), _| *id != relation);
    }

    /// Lets a renamed relation be looked at anew.
    pub fn forget_target(&self, relation: RelationId) {
        self.targets.write().retain(|(id, _), _| *id != relation);
    }

    /// Takes a checkpoint every so often, looks for idle partitions, and ticks.
    pub fn start_timers(self: &Arc<Self>) {
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
        let timers = [timer.abort_handle(), crate::idle::start(self), crate::clock::start(self)];
        self.timers.lock().extend(timers);
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
        self.timers.lock().drain(..).for_each(|timer| timer.abort());
        if gracefully {
            let commit = self.log.last_commit();
            let _ = self.wait_published(commit).await;
            let waited_for = async {
                // A view that is far behind is not worth the wait: the next start replays what it lacks.
                loop {
                    self.env.clock.sleep(SHUTDOWN_PATIENCE).await;
                    let views = self.driver.counters.checkpoint_waits.load(Ordering::Relaxed);
                    if views > 0 {
                        return SqlError::internal(format!("{views} views have not caught up"));
                    }
                }
            };
            let taken = tokio::select! {
                taken = self.checkpoint() => taken,
                error = waited_for => Err(error),
            };
            if let Err(error) = taken {
                tracing::warn!(%error, "no checkpoint at shutdown; the next start replays the log instead");
            }
        }
        let (done, stopped) = tokio::sync::oneshot::channel();
        if self.driver.commands.send(Command::Stop(done)).is_ok() {
            let _ = stopped.await;
        }
    }

    /// Queues a transaction; the log may make the caller wait for room. With a `term` it is refused if the log has failed
    /// since [`Inner::writable_term`] said so.
    pub async fn submit(&self, transaction: Transaction, term: Option<u64>) -> Result<Ticket, SqlError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(SqlError::new(SqlState::ADMIN_SHUTDOWN, "the server is shutting down"));
        }
        // Nothing was queued, so that the caller can still take back what it has prepared.
        self.writable_term()?;
        let state = self.driver.state_bytes();
        if state > self.config.memory_limit && !transaction.writes.is_empty() {
            return Err(SqlError::new(SqlState::OUT_OF_MEMORY, "live state has reached the memory limit")
                .detail(format!("It holds {state} bytes; the limit is {} bytes.", self.config.memory_limit))
                .hint("Drop views or tables, or start the server with a higher --memory-limit."));
        }
        let log = self.log.clone();
        // Most submits find room at once; a full queue blocks, and must not block the runtime.
        Ok(tokio::task::block_in_place(|| match term {
            Some(term) => log.submit_in(term, transaction),
            None => log.submit(transaction),
        }))
    }

    pub fn log_error(&self, error: &LogError) -> SqlError {
        log_error(error)
    }

    /// Waits until a snapshot of at least `commit` is published; while the log fails, of as much as is durable.
    pub async fn wait_published(&self, commit: Commit) -> Result<Arc<Snapshot>, SqlError> {
        let mut published = self.published.clone();
        let mut failures = self.log.failures();
        loop {
            failures.borrow_and_update();
            // What lies beyond the durable end of a log that has failed is lost: nobody will see it.
            let wanted = match self.log.failure() {
                Some(_) => commit.min(*self.log.durable().borrow()),
                None => commit,
            };
            tokio::select! {
                snapshot = published.wait_for(|s| s.cut >= wanted) => {
                    let snapshot = snapshot.map_err(|_| {
                        SqlError::new(SqlState::ADMIN_SHUTDOWN, "the epoch driver has stopped")
                            .hint("The server's log says why; start it again.")
                    })?;
                    return Ok(Arc::clone(&snapshot));
                }
                Ok(()) = failures.changed() => {}
            }
        }
    }
}

/// A planner for what is the system's own.
pub(crate) fn own_planner(catalog: &Arc<Catalog>, now: EventTime) -> Planner {
    let settings = PlanSettings {
        search_path: vec!["public".into()],
        time_zone: "UTC".into(),
        now,
        database: "millpond".into(),
        user: "millpond".into(),
    };
    Planner::new(Arc::clone(catalog), settings, None)
}

pub(crate) fn log_error(error: &LogError) -> SqlError {
    if matches!(error, LogError::Interrupted) {
        return SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not commit: the log has failed and gone on since the transaction began",
        )
        .detail("Nothing of the transaction was written.")
        .hint("Try it again.");
    }
    let sql = |state, hint| {
        SqlError::new(state, format!("could not write to the log: {error}"))
            .detail(
                "What was being written may or may not be there after a restart; nothing acknowledged is lost.",
            )
            .hint(hint)
    };
    if error.is_disk_full() {
        return sql(
            SqlState::DISK_FULL,
            "Free space on the disk: reads go on, and writes will by themselves.",
        );
    }
    sql(SqlState::IO_ERROR, "Look at the disk. The server goes on by itself as soon as a write succeeds.")
}

/// Of rows that cannot be read back.
pub(crate) fn log_read_error(error: &LogError) -> SqlError {
    let state = if error.is_corrupt() { SqlState::DATA_CORRUPTED } else { SqlState::IO_ERROR };
    SqlError::new(state, format!("could not read the log: {error}"))
        .hint("\"millpond log verify\" names everything that is damaged, while the server is stopped.")
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
    // It pushes a filter on `k` of the side of an outer join that may be missing to the other side if that has a `k`, too.
    // Filters are where they belong when a plan comes here.
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build())
}
