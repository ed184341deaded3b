//! One client's conversation with the engine: statements in, outcomes out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use millpond_functions::Zone;
use millpond_plan::{DeletePlan, InsertPlan, PlanSettings, Planner, QueryPlan, UpdatePlan};
use millpond_sql::statement::{self, Statement};
use millpond_types::{Commit, EventTime, SqlError, SqlState, SqlType};
use parking_lot::Mutex;

use crate::cursor::Cursor;
use crate::cut::Cut;
use crate::inner::Inner;
use crate::outcome::{Column, Notice, Outcome, RowsTag, Severity, TransactionStatus};
use crate::read::{self, Cancellable};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::system::ConnectionInfo;
use crate::system_tables::SessionTables;
use crate::txn::{Mark, Txn};
use crate::{control, copy, ddl, dml, explain};

/// Who speaks.
#[derive(Clone, Debug, Default)]
pub struct SessionInfo {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_address: Option<String>,
    /// The process id that BackendKeyData gave the client; unique among the open sessions.
    pub pid: i32,
}

/// One statement of a text, parsed but not planned.
pub type ParsedStatement = statement::ParsedStatement;

/// A planned statement; cheap to clone.
#[derive(Clone)]
pub struct Prepared {
    pub(crate) statement: Arc<ParsedStatement>,
    pub(crate) action: Arc<Action>,
    pub(crate) columns: Option<Arc<[Column]>>,
    pub(crate) parameters: Arc<[SqlType]>,
    /// What the client gave, for planning again.
    given: Arc<[Option<SqlType>]>,
    /// Of the catalog that the plan was made over.
    version: u64,
    /// The plan holds rows of system relations, or what now() or current_user say, which is of one moment.
    momentary: bool,
    zone: Zone,
}

pub(crate) enum Action {
    Query(QueryPlan),
    Insert(InsertPlan),
    Update(UpdatePlan),
    Delete(DeletePlan),
    /// Everything that is not planned ahead.
    Utility,
}

impl Prepared {
    /// The session's time zone, in which parameters are read as text.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The columns of the result, or `None` for a statement that returns no rows.
    pub fn columns(&self) -> Option<&[Column]> {
        self.columns.as_deref()
    }

    /// The types of `$1`, `$2`, …: given by the client, else inferred.
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }
}

/// Cancels whatever its session is doing; cheap to clone, callable from any thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    /// Counts the requests.
    requests: Arc<AtomicU64>,
    /// Requests that came before the running statement began.
    stale: Arc<AtomicU64>,
    wake: Arc<tokio::sync::Notify>,
}

impl CancelHandle {
    /// The statement that runs now, if any, fails with 57014; rows that still stream end with it.
    pub fn cancel(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.wake.notify_waiters();
    }

    fn begin_statement(&self) {
        self.stale.store(self.requests.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn requested(&self) -> bool {
        self.requests.load(Ordering::SeqCst) != self.stale.load(Ordering::SeqCst)
    }

    /// Resolves when the statement must end, with the reason.
    pub(crate) async fn cancelled(&self, deadline: Option<tokio::time::Instant>) -> SqlError {
        let request = async {
            loop {
                let woken = self.wake.notified();
                if self.requested() {
                    return SqlError::new(
                        SqlState::QUERY_CANCELED,
                        "canceling statement due to user request",
                    );
                }
                woken.await;
            }
        };
        match deadline {
            Some(deadline) => tokio::select! {
                error = request => error,
                () = tokio::time::sleep_until(deadline) =>
                    SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout"),
            },
            None => request.await,
        }
    }
}

/// The transaction that a session is in.
pub(crate) enum Block {
    /// Each statement for itself.
    None,
    /// Several statements of one simple query.
    Implicit(Txn),
    /// BEGIN … COMMIT.
    Explicit(Txn),
    /// An error has ended the block; it waits for ROLLBACK, or for ROLLBACK TO one of its savepoints.
    Failed(Txn),
}

/// `SAVEPOINT name`: how far the transaction was, and what the settings and the cursors were.
pub(crate) struct Savepoint {
    pub name: String,
    pub mark: Mark,
    pub settings: Settings,
    pub cursors: HashSet<String>,
}

pub struct Session {
    pub(crate) inner: Arc<Inner>,
    pub(crate) info: SessionInfo,
    key: u64,
    pub(crate) settings: Settings,
    cancel: CancelHandle,
    pub(crate) block: Block,
    /// In a block: what all of its reads see, once one has read; and what now() answers.
    pub(crate) block_snapshot: Option<Arc<Snapshot>>,
    /// Of the block, oldest first.
    pub(crate) savepoints: Vec<Savepoint>,
    block_start: Option<EventTime>,
    notices: Vec<Notice>,
    /// The newest commit that this session has written or read: reads are never older.
    pub(crate) seen: Commit,
    pub(crate) prepared: HashMap<String, Prepared>,
    pub(crate) cursors: HashMap<String, Cursor>,
    /// Where a COPY leaves what it did, since it runs beside the session.
    pub(crate) copied: Arc<Mutex<Copied>>,
}

/// What a finished COPY leaves for its session.
#[derive(Default)]
pub(crate) struct Copied {
    /// In a block: its transaction, with the rows of the COPY in it.
    pub txn: Option<Txn>,
    pub commit: Commit,
}

impl Session {
    pub(crate) fn new(inner: Arc<Inner>, info: SessionInfo, key: u64) -> Self {
        let mut settings = Settings::default();
        settings.force("session_authorization", &info.user);
        let _ = settings.set_at_startup("application_name", &info.application_name);
        settings.take_changes();
        inner.connections.lock().insert(
            key,
            ConnectionInfo {
                pid: info.pid,
                user: info.user.clone(),
                database: info.database.clone(),
                application_name: info.application_name.clone(),
                client_address: info.client_address.clone(),
                backend_start_micros: inner.now().0,
                query: String::new(),
                state: "idle",
            },
        );
        Self {
            inner,
            info,
            key,
            settings,
            cancel: CancelHandle::default(),
            block: Block::None,
            block_snapshot: None,
            savepoints: Vec::new(),
            block_start: None,
            notices: Vec::new(),
            seen: Commit(0),
            prepared: HashMap::new(),
            cursors: HashMap::new(),
            copied: Arc::default(),
        }
    }

    /// Takes over what a COPY has left.
    fn settle(&mut self) {
        let copied = std::mem::take(&mut *self.copied.lock());
        self.seen = self.seen.max(copied.commit);
        match (copied.txn, &mut self.block) {
            (Some(txn), Block::Explicit(own) | Block::Implicit(own)) => *own = txn,
            // Without a savepoint nothing of it is needed any more, its locks least of all.
            (Some(txn), Block::Failed(own)) if !self.savepoints.is_empty() => *own = txn,
            _ => {}
        }
    }

    /// Splits a text into its statements. Syntax errors carry their position in `sql`.
    pub fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        millpond_sql::parse(sql)
    }

    /// Plans one statement; columns and parameter types are known afterwards.
    pub async fn prepare(
        &mut self,
        statement: &ParsedStatement,
        parameter_types: &[Option<SqlType>],
    ) -> Result<Prepared, SqlError> {
        if matches!(self.block, Block::Failed(_)) && !control::leaves_failure(&statement.statement) {
            return Err(in_failed_block());
        }
        let snapshot = self.planning_snapshot();
        let prepared = self.plan(Arc::new(statement.clone()), parameter_types.into(), &snapshot);
        if prepared.is_err() {
            self.fail_transaction();
        }
        prepared
    }

    /// Runs a planned statement. A plan that the catalog has outgrown since is made again.
    pub async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, SqlError> {
        self.settle();
        self.cancel.begin_statement();
        self.describe_activity("active", Some(&prepared.statement.text));
        let deadline = self.settings.time("statement_timeout").map(|t| tokio::time::Instant::now() + t);
        let cancel = self.cancel.clone();
        let result = tokio::select! {
            biased;
            result = self.run(prepared, parameters, deadline) => result,
            error = cancel.cancelled(deadline) => Err(error),
        };
        if result.is_err() {
            self.fail_transaction();
        }
        let state = if matches!(self.block, Block::None) { "idle" } else { "idle in transaction" };
        self.describe_activity(state, None);
        result
    }

    async fn run(
        &mut self,
        prepared: &Prepared,
        parameters: &[ScalarValue],
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Outcome, SqlError> {
        if matches!(self.block, Block::Failed(_)) && !control::leaves_failure(&prepared.statement.statement) {
            return Err(in_failed_block());
        }
        if parameters.len() != prepared.parameters.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but the statement requires {}",
                    parameters.len(),
                    prepared.parameters.len()
                ),
            ));
        }
        match &*prepared.action {
            Action::Query(plan) => {
                let snapshot = self.read_snapshot_of(prepared, Cut::Any).await?;
                let prepared = self.refreshed(prepared, &snapshot)?;
                let plan = match &*prepared.action {
                    Action::Query(plan) => plan,
                    _ => plan,
                };
                let txn = match &mut self.block {
                    Block::Explicit(txn) | Block::Implicit(txn) => Some(txn),
                    _ => None,
                };
                let stream = read::stream(&self.inner, &snapshot, &plan.logical, parameters, txn).await?;
                let stream = Cancellable::wrap(stream, self.cancel.clone(), deadline);
                let columns = prepared.columns.as_deref().unwrap_or_default().to_vec();
                Ok(Outcome::Rows { columns, stream, tag: RowsTag::Select })
            }
            Action::Insert(_) | Action::Update(_) | Action::Delete(_) => {
                self.write(prepared, parameters).await
            }
            Action::Utility => self.utility(Arc::clone(&prepared.statement), deadline).await,
        }
    }

    /// The plan again, if the catalog has changed or its rows are of another moment.
    pub(crate) fn refreshed(
        &self,
        prepared: &Prepared,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Prepared, SqlError> {
        let same_zone = prepared.zone == self.settings.zone();
        if prepared.version == snapshot.catalog.version() && same_zone && !prepared.momentary {
            return Ok(prepared.clone());
        }
        let again = self.plan(Arc::clone(&prepared.statement), Arc::clone(&prepared.given), snapshot)?;
        let same = |a: &[Column], b: &[Column]| a.iter().map(|c| &c.ty).eq(b.iter().map(|c| &c.ty));
        if !same(again.columns().unwrap_or_default(), prepared.columns().unwrap_or_default()) {
            return Err(SqlError::unsupported("cached plan must not change result type"));
        }
        Ok(again)
    }

    async fn write(&mut self, prepared: &Prepared, parameters: &[ScalarValue]) -> Result<Outcome, SqlError> {
        self.refuse_read_only(&prepared.statement.text)?;
        let snapshot = self.read_snapshot_of(prepared, Cut::Newest).await?;
        let prepared = self.refreshed(prepared, &snapshot)?;
        let mut own = Txn::default();
        let lock_timeout = self.settings.time("lock_timeout");
        let inner = Arc::clone(&self.inner);
        let cx = dml::Context { inner: &inner, snapshot: &snapshot, parameters, lock_timeout };
        let (txn, single) = match &mut self.block {
            Block::Explicit(txn) | Block::Implicit(txn) => (txn, false),
            _ => (&mut own, true),
        };
        let (verb, written) = match &*prepared.action {
            Action::Insert(plan) => ("INSERT 0", dml::insert(&cx, txn, plan).await?),
            Action::Update(plan) => ("UPDATE", dml::update(&cx, txn, plan).await?),
            Action::Delete(plan) => ("DELETE", dml::delete(&cx, txn, plan).await?),
            Action::Query(_) | Action::Utility => return Err(SqlError::internal("not a write")),
        };
        if single {
            self.commit(own).await?;
        }
        let tag = format!("{verb} {}", written.rows);
        Ok(match written.returned {
            Some(batch) => {
                rows(prepared.columns.as_deref().unwrap_or_default().to_vec(), batch, RowsTag::Fixed(tag))
            }
            None => Outcome::Command { tag },
        })
    }

    pub(crate) fn refuse_read_only(&self, text: &str) -> Result<(), SqlError> {
        if !self.settings.boolean("transaction_read_only") {
            return Ok(());
        }
        let verb = text.split_whitespace().next().unwrap_or_default().to_uppercase();
        Err(SqlError::new(
            SqlState::READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {verb} in a read-only transaction"),
        ))
    }

    /// Makes a transaction durable, and remembers it so that reads see it.
    pub(crate) async fn commit(&mut self, txn: Txn) -> Result<(), SqlError> {
        let synchronous = self.settings.boolean("synchronous_commit")
            || self.settings.show("synchronous_commit").is_ok_and(|v| v != "off");
        let commit = txn.commit(&self.inner, synchronous).await?;
        self.seen = self.seen.max(commit);
        Ok(())
    }

    pub(crate) fn saw(&mut self, commit: Commit) {
        self.seen = self.seen.max(commit);
    }

    async fn utility(
        &mut self,
        parsed: Arc<ParsedStatement>,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Outcome, SqlError> {
        match &parsed.statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                Err(SqlError::internal("planned statements are no utilities"))
            }
            Statement::Copy(copy) => copy::run(self, copy, &parsed.text, deadline).await,
            Statement::Explain(explain) => explain::run(self, explain).await,
            Statement::Verify(name) => explain::verify(self, name).await,
            statement if ddl::is_ddl(statement) => ddl::run(self, statement, &parsed.text).await,
            statement => control::run(self, statement, deadline).await,
        }
    }

    /// Starts the implicit transaction of a simple-query text with several statements: they become visible together.
    pub fn begin_implicit(&mut self) {
        if matches!(self.block, Block::None) {
            self.block = Block::Implicit(Txn::default());
            self.begin_clock();
        }
    }

    /// Ends the implicit transaction, if one is open: commits, or after an error rolls back.
    pub async fn end_implicit(&mut self, failed: bool) -> Result<(), SqlError> {
        self.settle();
        if !matches!(self.block, Block::Implicit(_)) {
            return Ok(());
        }
        let Block::Implicit(txn) = self.end_block(!failed) else { return Ok(()) };
        if failed { Ok(()) } else { self.commit(txn).await }
    }

    pub(crate) fn begin_clock(&mut self) {
        self.settings.begin_block();
        self.block_snapshot = None;
        self.block_start = Some(self.inner.now());
    }

    /// Leaves the block, whatever it is, and hands over its transaction. What SET did in it stays with `keep`.
    pub(crate) fn end_block(&mut self, keep: bool) -> Block {
        self.settings.end_block(keep);
        self.savepoints.clear();
        self.block_snapshot = None;
        self.block_start = None;
        self.cursors.retain(|_, cursor| cursor.hold);
        let default = self.settings.show("default_transaction_read_only").unwrap_or_default();
        let _ = self.settings.set("transaction_read_only", &default);
        let default = self.settings.show("default_transaction_isolation").unwrap_or_default();
        let _ = self.settings.set("transaction_isolation", &default);
        std::mem::replace(&mut self.block, Block::None)
    }

    /// Tells the session that a statement failed outside of `execute` (while its rows streamed, say), so that an open
    /// transaction block becomes failed.
    pub fn fail_transaction(&mut self) {
        self.settle();
        // Dropping the transaction takes its changes back and frees its locks at once; a savepoint may want some of it.
        match &mut self.block {
            Block::Explicit(txn) if !self.savepoints.is_empty() => {
                self.block = Block::Failed(std::mem::take(txn));
            }
            Block::Explicit(_) => self.block = Block::Failed(Txn::default()),
            Block::Implicit(_) => self.block = Block::Implicit(Txn::default()),
            Block::None | Block::Failed(_) => {}
        }
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        match self.block {
            Block::None | Block::Implicit(_) => TransactionStatus::Idle,
            Block::Explicit(_) => TransactionStatus::Active,
            Block::Failed(_) => TransactionStatus::Failed,
        }
    }

    /// The columns of a cursor that DECLARE has made: a front end describes it as one of its portals.
    pub fn cursor_columns(&self, name: &str) -> Option<&[Column]> {
        self.cursors.get(name).map(|cursor| &cursor.columns[..])
    }

    /// Notices since the last call, to be sent before the result.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let least = self.settings.show("client_min_messages").unwrap_or_default();
        let mut notices = std::mem::take(&mut self.notices);
        notices.retain(|n| match least.as_str() {
            "error" => false,
            "warning" => n.severity == Severity::Warning,
            _ => true,
        });
        notices
    }

    pub(crate) fn notice(&mut self, severity: Severity, state: SqlState, message: impl Into<String>) {
        self.notices.push(Notice { severity, state, message: message.into(), detail: None, hint: None });
    }

    pub(crate) fn push_notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Settings that changed since the last call and that PostgreSQL reports by ParameterStatus.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        let changes = self.settings.take_changes();
        if let Some((_, name)) = changes.iter().find(|(n, _)| n == "application_name")
            && let Some(connection) = self.inner.connections.lock().get_mut(&self.key)
        {
            connection.application_name.clone_from(name);
        }
        changes
    }

    /// Every setting that ParameterStatus reports at the start.
    pub fn reported_parameters(&self) -> Vec<(String, String)> {
        self.settings.reported()
    }

    /// The value of a setting as SHOW prints it; names are case-insensitive.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.show(name).ok()
    }

    /// Applies a startup parameter (`-c name=value` or a key of the startup packet).
    pub fn set_startup_parameter(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        self.settings.set_at_startup(name, value)
    }

    fn describe_activity(&self, state: &'static str, query: Option<&str>) {
        if let Some(connection) = self.inner.connections.lock().get_mut(&self.key) {
            connection.state = state;
            if let Some(query) = query {
                connection.query = query.chars().take(1024).collect();
            }
        }
    }

    pub(crate) fn plan_settings(&self) -> PlanSettings {
        PlanSettings {
            search_path: self.settings.search_path(),
            time_zone: self.settings.show("timezone").unwrap_or_default(),
            now: self.block_start.unwrap_or_else(|| self.inner.now()),
            database: self.info.database.clone(),
            user: self.info.user.clone(),
        }
    }

    /// The snapshot whose catalog names are looked up in: the block's, else the newest.
    pub(crate) fn planning_snapshot(&self) -> Arc<Snapshot> {
        self.block_snapshot.clone().unwrap_or_else(|| self.inner.snapshot())
    }

    pub(crate) fn planner(&self, snapshot: &Arc<Snapshot>) -> (Planner, Arc<SessionTables>) {
        let tables = Arc::new(SessionTables::new(self, snapshot));
        let planner = Planner::new(Arc::clone(&snapshot.catalog), self.plan_settings(), Some(tables.clone()));
        (planner, tables)
    }

    pub(crate) fn plan(
        &self,
        statement: Arc<ParsedStatement>,
        given: Arc<[Option<SqlType>]>,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Prepared, SqlError> {
        let (planner, tables) = self.planner(snapshot);
        let zone = self.settings.zone();
        let (action, columns, parameters) = match &statement.statement {
            Statement::Query(query) => {
                let query = tables.rewritten(query);
                let plan = planner.plan_query(&query, &given)?;
                let (columns, parameters) = (columns(&plan.columns, zone), plan.parameters.clone());
                (Action::Query(plan), Some(columns), parameters)
            }
            Statement::Insert(insert) => {
                let plan = planner.plan_insert(insert, &given)?;
                let columns_ = plan.returning.as_ref().map(|r| columns(&r.columns, zone));
                let parameters = plan.parameters.clone();
                (Action::Insert(plan), columns_, parameters)
            }
            Statement::Update(update) => {
                let plan = planner.plan_update(update, &given)?;
                let columns_ = plan.returning.as_ref().map(|r| columns(&r.columns, zone));
                let parameters = plan.parameters.clone();
                (Action::Update(plan), columns_, parameters)
            }
            Statement::Delete(delete) => {
                let plan = planner.plan_delete(delete, &given)?;
                let columns_ = plan.returning.as_ref().map(|r| columns(&r.columns, zone));
                let parameters = plan.parameters.clone();
                (Action::Delete(plan), columns_, parameters)
            }
            utility => (Action::Utility, control::columns(self, utility)?, Vec::new()),
        };
        let asks_session = match &action {
            Action::Query(plan) => plan.session_dependent,
            Action::Insert(plan) => plan.session_dependent,
            Action::Update(plan) => plan.session_dependent,
            Action::Delete(plan) => plan.session_dependent,
            Action::Utility => false,
        };
        Ok(Prepared {
            statement,
            action: Arc::new(action),
            columns: columns.map(Into::into),
            parameters: parameters.into(),
            given,
            version: snapshot.catalog.version(),
            momentary: tables.were_used() || asks_session,
            zone,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.inner.connections.lock().remove(&self.key);
    }
}

pub(crate) fn columns(columns: &[(String, SqlType)], zone: Zone) -> Vec<Column> {
    let column =
        |(name, ty): &(String, SqlType)| Column { name: name.clone(), ty: ty.clone(), origin: None, zone };
    columns.iter().map(column).collect()
}

/// A result that is there already.
pub(crate) fn rows(columns: Vec<Column>, batch: RecordBatch, tag: RowsTag) -> Outcome {
    let schema = batch.schema();
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])));
    Outcome::Rows { columns, stream, tag }
}

fn in_failed_block() -> SqlError {
    SqlError::new(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}
