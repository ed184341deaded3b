//! The work of sessions: DDL, DML, transactions, the epoch driver, checkpoints, backfill and reads.
//!
//! An [`Engine`] is a running database; a [`Session`] is one client's conversation with it: [`Session::parse`],
//! [`Session::prepare`], [`Session::execute`]. Behind them stand the log (every write is a transaction there), the epoch
//! driver (one thread that turns commit groups into published snapshots) and DataFusion (which reads one snapshot).
//!
//! Not here: bytes of any protocol (front ends), how a plan is made (plan), how a row is stored (log, state). Begin at
//! [`Session`], then `driver.rs`; `render.rs` is the one place where a plan becomes operators.

mod alter;
mod analyze;
mod backfill;
mod changes;
mod checkpoint;
mod clock;
mod connectors;
mod control;
pub mod copy;
mod cursor;
mod cut;
mod ddl;
mod definition;
mod dml;
mod driver;
mod explain;
mod idle;
mod inner;
mod open;
pub mod outcome;
mod partition;
mod pause;
mod prune;
mod read;
mod reject;
mod relation;
mod render;
mod retention;
mod scan;
pub mod session;
mod settings;
mod shape;
mod sinks;
mod snapshot;
pub mod status;
pub mod system;
mod system_tables;
mod table;
mod target;
mod txn;
mod verify;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use copy::{CopyFormat, CopyIn, Header, OnError};
use futures::TryStreamExt;
pub use inner::EngineConfig;
use inner::Inner;
use millpond_catalog::{Catalog, RelationKind};
use millpond_env::Env;
use millpond_functions::error::from_datafusion;
pub use millpond_functions::{Zone, text};
use millpond_types::{Commit, RelationId, SqlError, SqlState};
pub use outcome::{Column, Notice, Outcome, RowsTag, Severity, TransactionStatus};
pub use session::{CancelHandle, ParsedStatement, Prepared, Session, SessionInfo};
pub use settings::SERVER_VERSION;
pub use status::{RelationStatus, Status};
pub use system::{ConnectionInfo, SystemCatalog, SystemContext};

/// What DataFusion says as what a user reads: for the rows of an [`Outcome`], whose stream fails in DataFusion's terms.
pub fn stream_error(error: datafusion::error::DataFusionError) -> SqlError {
    from_datafusion(error)
}

/// A running database; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl Engine {
    /// Opens the data directory: newest checkpoint, then the log after it. Needs a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// 58030 where disk or object store fail, XX001 for damaged files, 55006 when another server has the directory.
    pub async fn open(config: EngineConfig, system: Arc<dyn SystemCatalog>) -> Result<Engine, SqlError> {
        Self::open_in(Env::os(), config, system).await
    }

    /// As [`Engine::open`], in another world: a simulated disk and object store.
    pub async fn open_in(
        env: Env,
        config: EngineConfig,
        system: Arc<dyn SystemCatalog>,
    ) -> Result<Engine, SqlError> {
        let inner = open::open(config, env, system).await?;
        connectors::start_all(&inner);
        inner.start_timers();
        Ok(Self(inner))
    }

    /// # Errors
    /// 53300 when there are too many.
    pub fn session(&self, info: SessionInfo) -> Result<Session, SqlError> {
        if self.0.connections.lock().len() >= self.0.config.max_connections {
            return Err(SqlError::new(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already"));
        }
        if self.0.stopping.load(Ordering::SeqCst) {
            return Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, "the database system is shutting down"));
        }
        Ok(Session::new(Arc::clone(&self.0), info, SESSIONS.fetch_add(1, Ordering::Relaxed)))
    }

    /// The newest published catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.snapshot().catalog)
    }

    pub fn status(&self) -> Status {
        let inner = &self.0;
        let snapshot = inner.snapshot();
        let counters = &inner.driver.counters;
        let failure = inner.log.failure().map(|e| e.to_string());
        let relations = snapshot.catalog.relations().filter_map(|relation| {
            let contents = snapshot.contents.get(&relation.id);
            let rows = match &relation.kind {
                RelationKind::Source(_) => snapshot.source_rows.get(&relation.id).copied().unwrap_or(0),
                RelationKind::Table(_) | RelationKind::MaterializedView(_) => contents
                    .map(|c| c.heap.rows() as u64)
                    .or_else(|| snapshot.source_rows.get(&relation.id).copied())?,
                _ => return None,
            };
            Some(RelationStatus {
                id: relation.id,
                schema: relation.schema.clone(),
                name: relation.name.clone(),
                kind: relation.kind.object().as_str(),
                state: contents.map_or(status::RelationState::Running, |c| c.state.clone()),
                rows,
                state_bytes: contents.map_or(0, |c| c.state_bytes),
                watermark: snapshot.watermarks.get(&relation.id).copied(),
                late_rows: snapshot.late.count(relation.id),
                error_rows: snapshot.errors.count(relation.id),
                epoch: contents.map_or(snapshot.cut, |c| c.epoch),
                busy_seconds: contents.map_or(0.0, |c| c.busy_seconds),
            })
        });
        let relations = relations.collect();
        Status {
            healthy: failure.is_none(),
            failure,
            uptime_seconds: inner.env.clock.monotonic().saturating_sub(inner.started).as_secs_f64(),
            connections: inner.connections.lock().len(),
            durable: *inner.log.durable().borrow(),
            published: snapshot.cut,
            rows_in: counters.rows_in.load(Ordering::Relaxed),
            epochs: counters.epochs.load(Ordering::Relaxed),
            epoch_seconds: counters.epoch_nanos.load(Ordering::Relaxed) as f64 / 1e9,
            epoch_seconds_max: counters.recent.lock().iter().copied().fold(0.0, f64::max),
            checkpoint: counters.checkpoint.lock().clone(),
            checkpoint_failures: counters.checkpoint_failures.load(Ordering::Relaxed),
            state_bytes: inner.driver.state_bytes(),
            memory_limit_bytes: inner.config.memory_limit,
            relations,
        }
    }

    /// Finishes what is acknowledged, writes a checkpoint and stops.
    pub async fn shutdown(&self) {
        self.0.stop(true).await;
    }

    /// Stops as a crash would, as far as one process can: no checkpoint, nothing waits.
    pub async fn kill(&self) {
        self.0.stop(false).await;
    }
}

/// The newest name of every relation that DDL records of a log have made, dropped ones too: for programs that look at a
/// journal without a server. Records that cannot be read are passed over.
pub fn relation_names<B: AsRef<[u8]>>(ddl: &[(Commit, B)]) -> BTreeMap<RelationId, String> {
    let mut names = BTreeMap::from([(reject::ERRORS_TOPIC, "(refused input)".to_owned())]);
    let mut catalog = Catalog::new();
    for (commit, record) in ddl {
        let changed = millpond_catalog::Change::decode(record.as_ref()).ok();
        if let Some(newer) = changed.and_then(|change| catalog.apply(&change, *commit).ok()) {
            catalog = newer;
            let shown = |name: &str, schema: &str| {
                if schema == "public" { name.to_owned() } else { format!("{schema}.{name}") }
            };
            names.extend(catalog.relations().map(|r| (r.id, shown(&r.name, &r.schema))));
        }
    }
    names
}

/// Runs one statement and returns its rows as text: for programs that have the engine inside.
///
/// # Errors
/// Those of the statement.
pub async fn rows(session: &mut Session, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
    let mut all = Vec::new();
    for statement in session.parse(sql)? {
        let prepared = session.prepare(&statement, &[]).await?;
        let Outcome::Rows { columns, stream, .. } = session.execute(&prepared, &[]).await? else { continue };
        let batches: Vec<_> = stream.try_collect().await.map_err(from_datafusion)?;
        for batch in batches {
            let formatters = batch
                .columns()
                .iter()
                .zip(&columns)
                .map(|(array, column)| text::Formatter::in_zone(array, &column.ty, column.zone));
            let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let cell = |formatter: &text::Formatter| {
                    let mut out = Vec::new();
                    formatter.write(row, &mut out);
                    String::from_utf8_lossy(&out).into_owned()
                };
                all.push(formatters.iter().map(cell).collect());
            }
        }
    }
    Ok(all)
}
