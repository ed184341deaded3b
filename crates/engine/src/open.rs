//! Opening an engine: the newest checkpoint, then the log after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, unbounded};
use millpond_catalog::{Catalog, RelationKind};
use millpond_env::Env;
use millpond_log::{ColdTier, CommittedGroup, Log, LogError, LogOptions};
use millpond_state::{CheckpointOptions, Checkpoints, Manifest};
use millpond_types::{Commit, EventTime, RelationId, SqlError, SqlState};
use object_store::path::Path;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::checkpoint::{
    Checkpointer, Extra, checkpoint_error, heap_runs, keyed_run, operator_state, table_state,
};
use crate::clock::CLOCK;
use crate::driver::{Command, Counters, Driver, DriverHandle, group_rows};
use crate::inner::{EngineConfig, Inner, log_error};
use crate::reject::Refused;
use crate::snapshot::Snapshot;
use crate::system::SystemCatalog;
use crate::view::View;

/// Commit groups between the log and the driver; a full channel holds the log's writer back.
const GROUPS_WAITING: usize = 256;
/// Rows of one epoch while the log is replayed.
const REPLAY_ROWS: usize = 1 << 18;

pub(crate) async fn open(
    config: EngineConfig,
    env: Env,
    system: Arc<dyn SystemCatalog>,
) -> Result<Arc<Inner>, SqlError> {
    let start = env.clock.monotonic();
    let (checkpoints, manifest) = open_checkpoints(&config, &env).await?;
    // Without one that is named, objects lie on the same disk as the log: segments stay where they are.
    let cold = match (&env.objects, &config.object_store) {
        (None, None) => None,
        _ => {
            let (objects, prefix) = store(&config, &env)?;
            Some(ColdTier { objects, prefix, local_retention: config.local_retention })
        }
    };
    let (observer, groups) = bounded(GROUPS_WAITING);
    let options = LogOptions {
        verify_from: manifest.cut,
        file_bytes_max: config.journal_file_bytes,
        seal_interval: Some(config.seal_interval),
        cold,
        background: config.background,
        ..LogOptions::default()
    };
    let (log, recovered) = tokio::task::block_in_place(|| {
        Log::open(env.clone(), &config.data_dir.join("journal"), options, observer)
    })
    .map_err(|e| open_error(&e))?;
    // It is in no catalog, so nothing else declares it.
    log.declare_topic(crate::reject::ERRORS_TOPIC, millpond_log::TopicSpec { partitions: 1 });
    if recovered.last_commit < manifest.cut {
        return Err(SqlError::new(SqlState::DATA_CORRUPTED, "the log ends before the newest checkpoint")
            .detail(format!(
                "It ends at commit {}; the checkpoint is of {}.",
                recovered.last_commit, manifest.cut
            ))
            .hint("Was the data directory replaced, or the object store that of another server?"));
    }
    let pool = |name: &'static str| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(config.shards)
            .thread_name(move |n| format!("{name} {n}"))
            .build()
            .map(Arc::new)
            .map_err(|e| SqlError::internal(format!("could not start the workers: {e}")))
    };
    let (commands, inbox) = unbounded();
    let counters = Arc::new(Counters::default());
    let (publisher, published) = watch::channel(Arc::new(empty_snapshot()));
    let runtime = tokio::runtime::Handle::current();
    let checkpointer = Checkpointer::new(
        checkpoints.clone(),
        log.clone(),
        runtime.clone(),
        Arc::clone(&env.clock),
        commands.clone(),
    );
    let mut driver = Driver::new(
        config.clone(),
        env.clone(),
        log.clone(),
        commands.clone(),
        Arc::clone(&counters),
        pool("shard")?,
        pool("aside")?,
        publisher,
        checkpointer,
    );
    restore(&mut driver, &checkpoints, &manifest).await?;
    // What follows is work of a thread of its own kind: it reads files and computes for as long as it takes.
    let last = recovered.last_commit;
    tokio::task::block_in_place(|| replay(&mut driver, last))?;
    counters.rows_in.store(0, std::sync::atomic::Ordering::Relaxed);
    info!(
        checkpoint = manifest.number,
        cut = %manifest.cut,
        commit = %last,
        truncated_bytes = recovered.truncated_bytes,
        seconds = env.clock.monotonic().saturating_sub(start).as_secs_f64(),
        "recovered"
    );
    let handle = DriverHandle { commands, counters };
    let inner = Arc::new(Inner::new(config, env, system, log, handle, published)?);
    report_failures(&inner);
    start_driver(driver, groups, inbox)?;
    inner.wait_published(last).await?;
    Ok(inner)
}

/// Tells the driver when the log fails, also if no group of the driver's is touched.
fn report_failures(inner: &Inner) {
    let (mut failures, commands) = (inner.log.failures(), inner.driver.commands.clone());
    tokio::spawn(async move {
        while failures.changed().await.is_ok() {
            if commands.send(Command::LogFailed).is_err() {
                return;
            }
        }
    });
}

fn start_driver(
    driver: Driver,
    groups: Receiver<Arc<CommittedGroup>>,
    inbox: Receiver<Command>,
) -> Result<(), SqlError> {
    std::thread::Builder::new()
        .name("epochs".into())
        .spawn(move || driver.run(&groups, &inbox))
        .map(|_| ())
        .map_err(|e| SqlError::internal(format!("could not start the epoch driver: {e}")))
}

fn store(config: &EngineConfig, env: &Env) -> Result<(Arc<dyn object_store::ObjectStore>, Path), SqlError> {
    match (&env.objects, &config.object_store) {
        (Some(store), _) => Ok((Arc::clone(store), Path::default())),
        (None, Some(url)) => open_store(url),
        (None, None) => open_store(&config.data_dir.join("objects").to_string_lossy()),
    }
}

async fn open_checkpoints(config: &EngineConfig, env: &Env) -> Result<(Checkpoints, Manifest), SqlError> {
    let (store, prefix) = store(config, env)?;
    let options = CheckpointOptions { writer: env.random.next_u64(), concurrency: 8, manifests_kept: 3 };
    Checkpoints::open(store, prefix, options).await.map_err(|e| checkpoint_error(&e))
}

fn open_store(url: &str) -> Result<(Arc<dyn object_store::ObjectStore>, Path), SqlError> {
    millpond_env::os::object_store(url).map(|store| (store, Path::default())).map_err(|why| {
        SqlError::new(SqlState::IO_ERROR, format!("could not open the object store {url}: {why}"))
            .hint("Use a folder, or a URL such as s3://bucket/prefix with AWS_* in the environment.")
    })
}

fn empty_snapshot() -> Snapshot {
    Snapshot {
        cut: Commit(0),
        catalog: Arc::new(Catalog::new()),
        contents: HashMap::new(),
        watermarks: BTreeMap::new(),
        follows_clock: false,
        source_rows: HashMap::new(),
        errors: Refused::default(),
        late: Refused::default(),
        whole: true,
        lenient: false,
    }
}

/// Fills the driver with what the checkpoint holds. A view whose state is not in it, or belongs to another plan, is built
/// again from its inputs.
pub(crate) async fn restore(
    driver: &mut Driver,
    checkpoints: &Checkpoints,
    manifest: &Manifest,
) -> Result<(), SqlError> {
    if manifest.catalog.is_null() {
        return Ok(());
    }
    let corrupt = |what: &str, e: serde_json::Error| {
        SqlError::new(
            SqlState::DATA_CORRUPTED,
            format!("the {what} of manifest {} cannot be read", manifest.number),
        )
        .detail(format!("{e}."))
    };
    let catalog: Catalog =
        serde_json::from_value(manifest.catalog.clone()).map_err(|e| corrupt("catalog", e))?;
    let extra: Extra =
        serde_json::from_value(manifest.extra.clone()).map_err(|e| corrupt("extra part", e))?;
    let catalog = Arc::new(catalog);
    driver.catalog = Arc::clone(&catalog);
    driver.cut = manifest.cut;
    driver.errors = extra.errors;
    driver.late = extra.late;
    driver.restored(watermarks(manifest), extra.source_rows);
    for relation in catalog.relations().filter(|r| r.is_topic()) {
        driver.declare(relation);
        if matches!(relation.kind, RelationKind::Table(_)) {
            let runs =
                heap_runs(checkpoints, manifest, &table_state(relation), "table").await?.unwrap_or_default();
            driver.add_table(relation, runs)?;
        }
    }
    for relation in catalog.relations().filter(|r| matches!(r.kind, RelationKind::MaterializedView(_))) {
        if matches!(&relation.kind, RelationKind::MaterializedView(definition) if definition.paused) {
            driver.create_view(relation);
            continue;
        }
        match restore_view(driver, checkpoints, manifest, relation).await? {
            Some(view) => driver.add_running(relation, view),
            None => {
                warn!(view = %relation.name, "its state is not in the checkpoint, or is of another plan: it is built again");
                driver.errors.forget(relation.id);
                driver.late.forget(relation.id);
                driver.create_view(relation);
            }
        }
    }
    for relation in catalog.relations().filter(|r| matches!(r.kind, RelationKind::Sink(_))) {
        driver.add_sink(relation, manifest.cut);
    }
    Ok(())
}

/// The watermarks at the cut, and the time.
fn watermarks(manifest: &Manifest) -> BTreeMap<RelationId, EventTime> {
    let mut watermarks = manifest.watermarks.clone();
    watermarks.extend(manifest.now.map(|now| (CLOCK, now)));
    watermarks
}

async fn restore_view(
    driver: &Driver,
    checkpoints: &Checkpoints,
    manifest: &Manifest,
    relation: &Arc<millpond_catalog::Relation>,
) -> Result<Option<View>, SqlError> {
    let Ok(mut view) = View::new(&driver.catalog, Arc::clone(relation), driver.graph()) else {
        return Ok(None);
    };
    let id = relation.id;
    let fingerprint = view.fingerprint.clone();
    let Some(runs) = heap_runs(checkpoints, manifest, &format!("view/{id}/rows"), &fingerprint).await? else {
        return Ok(None);
    };
    let fault = |what: String| {
        SqlError::new(
            SqlState::DATA_CORRUPTED,
            format!("the state of \"{}\" cannot be restored", relation.name),
        )
        .detail(format!("{what}."))
    };
    view.restore_rows(runs).map_err(|f| fault(f.to_string()))?;
    for node in view.graph.node_stats() {
        for state in node.states {
            let name = operator_state(id, node.node, state);
            if let Some(run) = keyed_run(checkpoints, manifest, &name, &fingerprint).await? {
                view.graph.restore(node.node, state, &run).map_err(|f| fault(f.to_string()))?;
            }
        }
    }
    let known = watermarks(manifest);
    let watermarks: Vec<_> =
        view.inputs.iter().filter_map(|input| Some((input.id, *known.get(&input.relation)?))).collect();
    view.graph.restore_watermarks(&watermarks).map_err(|f| fault(f.to_string()))?;
    view.fresh = false;
    Ok(Some(view))
}

/// Feeds the driver what the log holds after the checkpoint.
pub(crate) fn replay(driver: &mut Driver, last: Commit) -> Result<(), SqlError> {
    let log = driver.log.clone();
    let mut batch: Vec<CommittedGroup> = Vec::new();
    let mut rows = 0;
    for group in log.replay(driver.cut, last) {
        let group = group.map_err(|e| log_error(&e))?;
        rows += group_rows(&group);
        batch.push(group);
        // A sink may have to go on in the middle: with sinks every commit is an epoch.
        if rows >= REPLAY_ROWS || driver.has_sinks() || !batch[batch.len() - 1].records.is_empty() {
            driver.process(batch.iter());
            driver.feed_sinks();
            batch.clear();
            rows = 0;
        }
    }
    driver.process(batch.iter());
    // Where a repair has given up the end of the log, there are no groups up to it.
    driver.cut = driver.cut.max(last);
    Ok(())
}

fn open_error(error: &LogError) -> SqlError {
    let sql = |state| SqlError::new(state, format!("could not open the log: {error}"));
    match error {
        LogError::Locked { .. } => sql(SqlState::OBJECT_IN_USE)
            .hint("Stop the other server, or name another folder with --data-dir."),
        error if error.is_corrupt() => sql(SqlState::DATA_CORRUPTED)
            .detail("Bytes that were acknowledged are not what they were; nothing was changed.")
            .hint("\"millpond log verify\" names all that is lost; \"millpond log repair\" gives that up."),
        error if error.is_disk_full() => {
            sql(SqlState::DISK_FULL).hint("Free space on the disk, then start the server again.")
        }
        _ => sql(SqlState::IO_ERROR),
    }
}
