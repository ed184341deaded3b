//! Statements about the session itself: transactions, settings, cursors, prepared statements, SHOW.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use millpond_catalog::{Relation, RelationKind};
use millpond_functions::Zone;
use millpond_functions::error::from_datafusion;
use millpond_plan::physical;
use millpond_sql::ast;
use millpond_sql::statement::{
    Discard, Fetch, FetchDirection, ObjectKind, Reset, Set, Show, Statement, TransactionModes,
};
use millpond_types::{EventTime, SqlError, SqlState, SqlType};

use crate::cursor::Cursor;
use crate::cut::Cut;
use crate::outcome::{Column, Outcome, RowsTag, Severity};
use crate::read;
use crate::session::{Action, Block, Savepoint, Session, rows};
use crate::snapshot::{Contents, Snapshot};
use crate::target::internal;
use crate::txn::Txn;
use crate::{clock, dml};

/// Whether a statement may come after an error in a block.
pub(crate) fn leaves_failure(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Commit { .. } | Statement::Rollback { .. } | Statement::RollbackToSavepoint { .. }
    )
}

fn text_columns(names: &[&str]) -> Vec<Column> {
    names
        .iter()
        .map(|name| Column { name: (*name).to_owned(), ty: SqlType::Text, origin: None, zone: Zone::UTC })
        .collect()
}

/// The columns that a statement without a plan returns; `None` if it returns no rows.
pub(crate) fn columns(session: &Session, statement: &Statement) -> Result<Option<Vec<Column>>, SqlError> {
    Ok(Some(match statement {
        Statement::Show(show) => show_columns(show)?,
        Statement::Describe(_) => text_columns(&["column", "type", "nullable", "default"]),
        Statement::Explain(_) => text_columns(&["QUERY PLAN"]),
        Statement::Verify(name) => crate::explain::verify_columns(session, name)?,
        Statement::Fetch(fetch) if !fetch.move_only => match session.cursors.get(&fetch.name) {
            Some(cursor) => cursor.columns.clone(),
            None => return Err(no_cursor(&fetch.name)),
        },
        Statement::Execute { name, .. } => {
            let prepared = session.prepared.get(name).ok_or_else(|| no_statement(name))?;
            match prepared.columns() {
                Some(columns) => columns.to_vec(),
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    }))
}

fn show_columns(show: &Show) -> Result<Vec<Column>, SqlError> {
    Ok(match show {
        Show::Objects { .. } | Show::Schemas => text_columns(&["name"]),
        Show::Jobs => text_columns(&["name", "state", "rows_done"]),
        Show::IndexesOf(_) => text_columns(&["name"]),
        Show::Columns(_) => text_columns(&["column", "type", "nullable", "default"]),
        Show::Create { .. } => text_columns(&["name", "definition"]),
        Show::Setting { name, position } => {
            let canonical = crate::settings::Settings::canonical_name(name).map_err(|e| e.at(*position))?;
            text_columns(&[canonical])
        }
        Show::All => text_columns(&["name", "setting", "description"]),
    })
}

pub(crate) async fn run(
    session: &mut Session,
    statement: &Statement,
    deadline: Option<tokio::time::Instant>,
) -> Result<Outcome, SqlError> {
    let done = |tag: &str| Ok(Outcome::Command { tag: tag.to_owned() });
    match statement {
        Statement::Begin(modes) => begin(session, modes),
        Statement::Commit { chain } => commit(session, *chain).await,
        Statement::Rollback { chain } => rollback(session, *chain),
        Statement::SetTransaction(modes) => {
            set_modes(session, modes)?;
            done("SET")
        }
        Statement::SetSessionCharacteristics(modes) => {
            if let Some(isolation) = modes.isolation {
                session.settings.set("default_transaction_isolation", isolation.as_str())?;
            }
            if let Some(read_only) = modes.read_only {
                let value = if read_only { "on" } else { "off" };
                session.settings.set("default_transaction_read_only", value)?;
                session.settings.set("transaction_read_only", value)?;
            }
            done("SET")
        }
        Statement::Savepoint { name } => {
            savepoint(session, name)?;
            done("SAVEPOINT")
        }
        Statement::ReleaseSavepoint { name } => {
            let place = place_of_savepoint(session, name, "RELEASE SAVEPOINT")?;
            session.savepoints.truncate(place);
            done("RELEASE")
        }
        Statement::RollbackToSavepoint { name } => {
            rollback_to(session, name)?;
            done("ROLLBACK")
        }
        Statement::Set(set) => run_set(session, set),
        Statement::Reset(reset) => {
            match reset {
                Reset::All => session.settings.reset_all(),
                Reset::Setting { name, position } => {
                    session.settings.reset(name).map_err(|e| e.at(*position))?
                }
            }
            done("RESET")
        }
        Statement::Discard(what) => discard(session, *what),
        Statement::Show(show) => run_show(session, show),
        Statement::Describe(name) => run_show(session, &Show::Columns(name.clone())),
        Statement::Flush => flush(session).await,
        Statement::AdvanceClock(to) => {
            let snapshot = session.planning_snapshot();
            let to = evaluate(session, &snapshot, &to.expr, &SqlType::Timestamptz)?;
            let ScalarValue::TimestampMicrosecond(Some(to), _) = to else {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "a clock cannot show NULL"));
            };
            clock::advance(session, EventTime(to)).await
        }
        Statement::Checkpoint => {
            session.inner.checkpoint().await?;
            done("CHECKPOINT")
        }
        Statement::Truncate { tables, cascade, .. } => truncate(session, tables, *cascade).await,
        Statement::Declare(declare) => run_declare(session, declare, deadline).await,
        Statement::Fetch(fetch) => run_fetch(session, fetch).await,
        Statement::Close { name } => {
            match name {
                Some(name) => session.cursors.remove(name).map(|_| ()).ok_or_else(|| no_cursor(name))?,
                None => session.cursors.clear(),
            }
            done(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" })
        }
        Statement::Prepare(prepare) => {
            if session.prepared.contains_key(&prepare.name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_PREPARED_STATEMENT,
                    format!("prepared statement \"{}\" already exists", prepare.name),
                ));
            }
            let snapshot = session.planning_snapshot();
            let given: Vec<Option<SqlType>> = prepare.types.iter().cloned().map(Some).collect();
            let prepared = session.plan(Arc::new((*prepare.statement).clone()), given.into(), &snapshot)?;
            if matches!(&*prepared.action, Action::Utility) {
                return Err(SqlError::unsupported("only queries and writes can be prepared"));
            }
            session.prepared.insert(prepare.name.clone(), prepared);
            done("PREPARE")
        }
        Statement::Execute { name, parameters } => run_execute(session, name, parameters).await,
        Statement::Deallocate { name } => {
            match name {
                Some(name) => session.prepared.remove(name).map(|_| ()).ok_or_else(|| no_statement(name))?,
                None => session.prepared.clear(),
            }
            done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" })
        }
        Statement::Unlisten { .. } => done("UNLISTEN"),
        Statement::Listen { .. } | Statement::Notify { .. } => {
            Err(SqlError::unsupported("LISTEN and NOTIFY are not supported")
                .hint("Read a materialized view instead."))
        }
        Statement::Subscribe(_) => Err(SqlError::unsupported("SUBSCRIBE is not supported yet")
            .hint("SELECT from the view, as often as needed.")),
        Statement::Unsupported { command, position } => {
            Err(SqlError::unsupported(format!("{command} is not supported")).at(*position))
        }
        Statement::Other(ast) => {
            let text = ast.to_string();
            let command: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(SqlError::unsupported(format!("{} is not supported", command.join(" ").to_uppercase())))
        }
        _ => Err(SqlError::internal("a statement came to the wrong place")),
    }
}

fn no_cursor(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

fn no_statement(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_SQL_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

fn begin(session: &mut Session, modes: &TransactionModes) -> Result<Outcome, SqlError> {
    match session.block {
        Block::Explicit(_) => {
            session.notice(
                Severity::Warning,
                SqlState::ACTIVE_SQL_TRANSACTION,
                "there is already a transaction in progress",
            );
        }
        _ => {
            // What an implicit transaction wrote before becomes part of the block, as in PostgreSQL.
            let txn = match std::mem::replace(&mut session.block, Block::None) {
                Block::Implicit(txn) => txn,
                _ => Txn::default(),
            };
            session.block = Block::Explicit(txn);
            session.begin_clock();
        }
    }
    set_modes(session, modes)?;
    Ok(Outcome::Command { tag: "BEGIN".to_owned() })
}

fn set_modes(session: &mut Session, modes: &TransactionModes) -> Result<(), SqlError> {
    if let Some(isolation) = modes.isolation {
        session.settings.set("transaction_isolation", isolation.as_str())?;
    }
    if let Some(read_only) = modes.read_only {
        session.settings.set("transaction_read_only", if read_only { "on" } else { "off" })?;
    }
    Ok(())
}

async fn commit(session: &mut Session, chain: bool) -> Result<Outcome, SqlError> {
    let keep = !matches!(session.block, Block::Failed(_));
    let block = session.end_block(keep);
    let tag = match block {
        Block::Explicit(txn) => {
            session.commit(txn).await?;
            "COMMIT"
        }
        Block::Implicit(txn) => {
            no_transaction(session);
            session.commit(txn).await?;
            "COMMIT"
        }
        Block::Failed(_) => "ROLLBACK",
        Block::None => {
            no_transaction(session);
            "COMMIT"
        }
    };
    if chain {
        begin(session, &TransactionModes::default())?;
    }
    Ok(Outcome::Command { tag: tag.to_owned() })
}

fn rollback(session: &mut Session, chain: bool) -> Result<Outcome, SqlError> {
    // Dropping the transaction takes everything back.
    if matches!(session.end_block(false), Block::None | Block::Implicit(_)) {
        no_transaction(session);
    }
    if chain {
        begin(session, &TransactionModes::default())?;
    }
    Ok(Outcome::Command { tag: "ROLLBACK".to_owned() })
}

fn savepoint(session: &mut Session, name: &str) -> Result<(), SqlError> {
    let Block::Explicit(txn) = &session.block else { return Err(only_in_blocks("SAVEPOINT")) };
    let mark = txn.mark();
    let settings = session.settings.clone();
    let cursors = session.cursors.keys().cloned().collect();
    session.savepoints.push(Savepoint { name: name.to_owned(), mark, settings, cursors });
    Ok(())
}

/// Takes back everything since the savepoint, which stays.
fn rollback_to(session: &mut Session, name: &str) -> Result<(), SqlError> {
    let place = place_of_savepoint(session, name, "ROLLBACK TO SAVEPOINT")?;
    let mut txn = match std::mem::replace(&mut session.block, Block::None) {
        Block::Explicit(txn) | Block::Failed(txn) => txn,
        _ => return Err(only_in_blocks("ROLLBACK TO SAVEPOINT")),
    };
    session.savepoints.truncate(place + 1);
    let savepoint = &session.savepoints[place];
    txn.rollback_to(&savepoint.mark);
    session.settings.return_to(&savepoint.settings);
    session.cursors.retain(|name, _| savepoint.cursors.contains(name));
    session.block = Block::Explicit(txn);
    Ok(())
}

fn place_of_savepoint(session: &Session, name: &str, command: &str) -> Result<usize, SqlError> {
    if !matches!(session.block, Block::Explicit(_) | Block::Failed(_)) {
        return Err(only_in_blocks(command));
    }
    session.savepoints.iter().rposition(|savepoint| savepoint.name == name).ok_or_else(|| {
        SqlError::new(
            SqlState::INVALID_SAVEPOINT_SPECIFICATION,
            format!("savepoint \"{name}\" does not exist"),
        )
    })
}

fn only_in_blocks(command: &str) -> SqlError {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        format!("{command} can only be used in transaction blocks"),
    )
}

fn no_transaction(session: &mut Session) {
    session.notice(
        Severity::Warning,
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        "there is no transaction in progress",
    );
}

fn run_set(session: &mut Session, set: &Set) -> Result<Outcome, SqlError> {
    if set.local && matches!(session.block, Block::None) {
        // Checked all the same, as in PostgreSQL.
        let mut unused = session.settings.clone();
        set.value
            .as_ref()
            .map_or(Ok(()), |value| unused.set(&set.name, value))
            .map_err(|e| e.at(set.position))?;
        session.notice(
            Severity::Warning,
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "SET LOCAL can only be used in transaction blocks",
        );
        return Ok(Outcome::Command { tag: "SET".to_owned() });
    }
    match &set.value {
        Some(value) if set.local => session.settings.set_local(&set.name, value),
        Some(value) => session.settings.set(&set.name, value),
        None if set.local => session.settings.reset_local(&set.name),
        None => session.settings.reset(&set.name),
    }
    .map_err(|e| e.at(set.position))?;
    Ok(Outcome::Command { tag: "SET".to_owned() })
}

fn discard(session: &mut Session, what: Discard) -> Result<Outcome, SqlError> {
    let tag = match what {
        Discard::All => {
            if matches!(session.block, Block::Explicit(_)) {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "DISCARD ALL cannot run inside a transaction block",
                ));
            }
            session.settings.reset_all();
            session.cursors.clear();
            session.prepared.clear();
            "DISCARD ALL"
        }
        Discard::Plans => "DISCARD PLANS",
        Discard::Sequences => "DISCARD SEQUENCES",
        Discard::Temp => "DISCARD TEMP",
    };
    Ok(Outcome::Command { tag: tag.to_owned() })
}

/// Waits until all running views have everything that was acknowledged to anybody.
async fn flush(session: &mut Session) -> Result<Outcome, SqlError> {
    let commit = session.inner.log.last_commit();
    let mut snapshot = session.inner.wait_published(commit).await?;
    // Those that follow alone get some time.
    let mut published = session.inner.published.clone();
    let followed = published.wait_for(|snapshot| {
        let following = |contents: &Contents| contents.state == crate::status::RelationState::Following;
        snapshot.contents.values().filter(|c| following(c)).all(|c| c.epoch >= commit)
    });
    match session.settings.time("millpond.read_timeout") {
        Some(limit) => drop(tokio::time::timeout(limit, followed).await),
        None => drop(followed.await),
    }
    if !snapshot.whole {
        snapshot = session.inner.snapshot();
    }
    for (id, contents) in &snapshot.contents {
        if !(snapshot.is_current(contents) || contents.epoch >= commit)
            && let Some(relation) = snapshot.catalog.relation(*id)
        {
            let message = format!("materialized view \"{}\" is {}", relation.name, contents.state.name());
            session.notice(Severity::Notice, SqlState::new("00000"), message);
        }
    }
    session.saw(snapshot.cut);
    Ok(Outcome::Command { tag: "FLUSH".to_owned() })
}

async fn truncate(
    session: &mut Session,
    tables: &[millpond_sql::RelationName],
    cascade: bool,
) -> Result<Outcome, SqlError> {
    session.refuse_read_only("TRUNCATE")?;
    let _ = cascade; // No other table can refer to one: foreign keys are not enforced.
    let snapshot = session.read_snapshot().await?;
    let path = session.settings.search_path();
    let lock_timeout = session.settings.time("lock_timeout");
    let inner = Arc::clone(&session.inner);
    let mut own = Txn::default();
    let (txn, single) = match &mut session.block {
        Block::Explicit(txn) | Block::Implicit(txn) => (txn, false),
        _ => (&mut own, true),
    };
    for name in tables {
        let relation =
            snapshot.catalog.resolve_kind(name, ObjectKind::Table, &path).map_err(|e| name.mark(e))?;
        let target = inner.target(&snapshot.catalog, relation.id)?;
        let cx = dml::Context { inner: &inner, snapshot: &snapshot, parameters: &[], lock_timeout };
        dml::truncate(&cx, txn, &target).await?;
    }
    if single {
        session.commit(own).await?;
    }
    Ok(Outcome::Command { tag: "TRUNCATE TABLE".to_owned() })
}

async fn run_declare(
    session: &mut Session,
    declare: &millpond_sql::statement::Declare,
    deadline: Option<tokio::time::Instant>,
) -> Result<Outcome, SqlError> {
    if declare.scroll == Some(true) || declare.binary {
        return Err(SqlError::unsupported("binary and scrollable cursors are not supported")
            .hint("Use NO SCROLL, and FETCH FORWARD."));
    }
    if !declare.hold && matches!(session.block, Block::None) {
        return Err(SqlError::new(
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "DECLARE CURSOR can only be used in transaction blocks",
        ));
    }
    if session.cursors.contains_key(&declare.name) {
        return Err(SqlError::new(
            SqlState::DUPLICATE_CURSOR,
            format!("cursor \"{}\" already exists", declare.name),
        ));
    }
    let newest = session.planning_snapshot();
    let prepared = session.plan(Arc::new((*declare.statement).clone()), Vec::new().into(), &newest)?;
    let snapshot = session.read_snapshot_of(&prepared, Cut::Any).await?;
    let prepared = session.plan(Arc::new((*declare.statement).clone()), Vec::new().into(), &snapshot)?;
    let Action::Query(plan) = &*prepared.action else {
        return Err(SqlError::unsupported("a cursor is over a query").hint("DECLARE c CURSOR FOR SELECT …"));
    };
    let inner = Arc::clone(&session.inner);
    let txn = match &mut session.block {
        Block::Explicit(txn) | Block::Implicit(txn) => Some(txn),
        _ => None,
    };
    let stream = read::stream(&inner, &snapshot, &plan.logical, &[], txn).await?;
    let _ = deadline; // The time-out is of each FETCH, which is a statement of its own.
    let columns = prepared.columns().unwrap_or_default().to_vec();
    session.cursors.insert(declare.name.clone(), Cursor::new(columns, declare.hold, stream));
    Ok(Outcome::Command { tag: "DECLARE CURSOR".to_owned() })
}

async fn run_fetch(session: &mut Session, fetch: &Fetch) -> Result<Outcome, SqlError> {
    let cursor = session.cursors.get_mut(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
    let wanted = match fetch.direction {
        FetchDirection::Forward(n) => usize::try_from(n).unwrap_or(usize::MAX),
        FetchDirection::ForwardAll => usize::MAX,
        FetchDirection::Relative(1) => 1,
        _ => {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cursor can only scan forward",
            )
            .hint("Declare it again to start from the beginning."));
        }
    };
    let batch = cursor.forward(wanted).await?;
    if fetch.move_only {
        return Ok(Outcome::Command { tag: format!("MOVE {}", batch.num_rows()) });
    }
    let columns = cursor.columns.clone();
    Ok(rows(columns, batch, RowsTag::Fetch))
}

async fn run_execute(
    session: &mut Session,
    name: &str,
    parameters: &[ast::Expr],
) -> Result<Outcome, SqlError> {
    let prepared = session.prepared.get(name).cloned().ok_or_else(|| no_statement(name))?;
    if prepared.parameters().len() != parameters.len() {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("wrong number of parameters for prepared statement \"{name}\""),
        )
        .detail(format!(
            "Expected {} parameters but got {}.",
            prepared.parameters().len(),
            parameters.len()
        )));
    }
    let snapshot = session.planning_snapshot();
    let mut values = Vec::with_capacity(parameters.len());
    for (parameter, ty) in parameters.iter().zip(prepared.parameters()) {
        values.push(evaluate(session, &snapshot, parameter, ty)?);
    }
    // One level: what was prepared is a query or a write, never another EXECUTE.
    Box::pin(session.execute(&prepared, &values)).await
}

/// The value of an expression without columns, as `ty`.
pub(crate) fn evaluate(
    session: &Session,
    snapshot: &Arc<Snapshot>,
    expr: &ast::Expr,
    ty: &SqlType,
) -> Result<ScalarValue, SqlError> {
    let (planner, _) = session.planner(snapshot);
    let planned = planner.plan_column_expression(&[], expr, Some(("parameter", ty)))?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1));
    let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(internal)?;
    let value = physical(&planned.expr, &one.schema())?.evaluate(&one).map_err(from_datafusion)?;
    let array = value.into_array(1).map_err(from_datafusion)?;
    ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)
}

fn table(
    columns: Vec<Column>,
    values: Vec<Vec<Option<String>>>,
    tag: &'static str,
) -> Result<Outcome, SqlError> {
    let fields: Vec<_> = columns.iter().map(|c| c.ty.field(&c.name, true)).collect();
    let arrays = (0..columns.len()).map(|column| {
        let values: Vec<Option<&str>> = values.iter().map(|row| row[column].as_deref()).collect();
        Arc::new(StringArray::from(values)) as ArrayRef
    });
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).map_err(internal)?;
    Ok(rows(columns, batch, RowsTag::Plain(tag)))
}

fn run_show(session: &mut Session, show: &Show) -> Result<Outcome, SqlError> {
    let columns = show_columns(show)?;
    let snapshot = session.planning_snapshot();
    let catalog = &snapshot.catalog;
    let path = session.settings.search_path();
    let some = |text: &str| Some(text.to_owned());
    let values: Vec<Vec<Option<String>>> = match show {
        Show::Setting { name, position } => {
            vec![vec![Some(session.settings.show(name).map_err(|e| e.at(*position))?)]]
        }
        Show::All => session
            .settings
            .all()
            .map(|(name, value, what)| vec![some(name), some(value), some(what)])
            .collect(),
        Show::Schemas => catalog.schemas().map(|s| vec![some(&s.name)]).collect(),
        Show::Objects { kind, schema } => {
            if let Some(schema) = schema
                && !catalog.has_schema(schema)
            {
                return Err(SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{schema}\" does not exist"),
                ));
            }
            let visible = |r: &&Arc<Relation>| match schema {
                Some(schema) => r.schema == *schema,
                None => path.contains(&r.schema),
            };
            let mut names: Vec<&str> = catalog
                .relations()
                .filter(|r| r.kind.object() == *kind)
                .filter(visible)
                .map(|r| r.name.as_str())
                .collect();
            names.sort_unstable();
            names.into_iter().map(|name| vec![some(name)]).collect()
        }
        Show::Jobs => {
            let mut jobs = Vec::new();
            for (id, contents) in &snapshot.contents {
                if let (crate::status::RelationState::Building { rows_done }, Some(relation)) =
                    (&contents.state, catalog.relation(*id))
                {
                    jobs.push(vec![some(&relation.name), some("building"), Some(rows_done.to_string())]);
                }
            }
            jobs
        }
        Show::IndexesOf(name) => {
            let relation = catalog.resolve(name, &path).map_err(|e| name.mark(e))?;
            match &relation.kind {
                RelationKind::Table(table) if !table.primary_key.is_empty() => {
                    let default = format!("{}_pkey", relation.name);
                    vec![vec![Some(table.primary_key_name.clone().unwrap_or(default))]]
                }
                _ => Vec::new(),
            }
        }
        Show::Columns(name) => {
            let relation = catalog.resolve(name, &path).map_err(|e| name.mark(e))?;
            let row = |c: &millpond_catalog::Column| {
                let nullable = if c.nullable { "YES" } else { "NO" };
                vec![some(&c.name), Some(c.ty.to_string()), some(nullable), c.default.clone()]
            };
            relation.columns.iter().map(row).collect()
        }
        Show::Create { kind, name } => {
            let relation = catalog.resolve_kind(name, *kind, &path).map_err(|e| name.mark(e))?;
            vec![vec![some(&relation.display_name()), some(&relation.definition)]]
        }
    };
    table(columns, values, "SHOW")
}
