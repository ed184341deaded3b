//! Statements that change the catalog.
//!
//! Each becomes one record of the log, checked against the newest catalog first; it has happened when the epoch that
//! contains it is published. DDL statements run one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_catalog::{
    Catalog, Change, Column, Connector, Frozen, MaterializedView, Relation, RelationKind, Source, Table,
    View, Watermark,
};
use millpond_log::{Record, Transaction};
use millpond_sql::statement::{
    Alter, AlterAction, CreateMaterializedView, CreateSource, CreateTable, CreateView, Drop, Expression,
    Format, ObjectKind, Statement, TableConflict,
};
use millpond_sql::{Options, RelationName};
use millpond_types::{Commit, RelationId, SqlError, SqlState, SqlType};

use crate::definition::{
    LayoutOptions, check_columns, columns, primary_key, refuse_topic_options, watermark,
};
use crate::outcome::{Notice, Outcome, Severity};
use crate::session::{Block, Session};
use crate::snapshot::Snapshot;
use crate::status::RelationState;
use crate::txn::Txn;
use crate::view::{MAX_STATE, plan_incremental};
use crate::{alter, connectors, pause, sinks};

pub(crate) fn is_ddl(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateSource(_)
            | Statement::CreateTable(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateSink(_)
            | Statement::CreateIndex(_)
            | Statement::CreateSchema { .. }
            | Statement::Drop(_)
            | Statement::Alter(_)
            | Statement::Comment(_)
    )
}

pub(crate) async fn run(
    session: &mut Session,
    statement: &Statement,
    text: &str,
) -> Result<Outcome, SqlError> {
    session.refuse_read_only(text)?;
    leave_transaction(session).await?;
    let inner = Arc::clone(&session.inner);
    let _one_at_a_time = inner.ddl.lock().await;
    let tag = match statement {
        Statement::CreateSource(create) => create_source(session, create, text).await?,
        Statement::CreateTable(create) => create_table(session, create, text).await?,
        Statement::CreateView(create) => create_view(session, create, text).await?,
        Statement::CreateMaterializedView(create) => create_materialized_view(session, create, text).await?,
        Statement::CreateSink(create) => sinks::create(session, create, text).await?,
        Statement::CreateSchema { name, if_not_exists, position } => {
            create_schema(session, name, *if_not_exists, *position).await?
        }
        Statement::Drop(drop) => drop_objects(session, drop).await?,
        Statement::Alter(alter) => alter_object(session, alter, text).await?,
        Statement::Comment(comment) => comment_on(session, comment).await?,
        Statement::CreateIndex(create) => {
            return Err(SqlError::unsupported("CREATE INDEX is not supported yet")
                .hint("Lookups by a table's primary key are fast without one.")
                .at(create.position));
        }
        _ => return Err(SqlError::internal("not a DDL statement")),
    };
    Ok(Outcome::Command { tag })
}

/// DDL takes effect at once; what the transaction wrote before goes first, so that order is kept.
async fn leave_transaction(session: &mut Session) -> Result<(), SqlError> {
    match &mut session.block {
        Block::Implicit(txn) => {
            let txn = std::mem::take(txn);
            session.commit(txn).await
        }
        Block::Explicit(txn) if txn.is_empty() => {
            // What was locked and not changed must not keep this session itself waiting.
            *txn = Txn::default();
            session.block_snapshot = None;
            session.notice(
                Severity::Warning,
                SqlState::ACTIVE_SQL_TRANSACTION,
                "DDL takes effect at once, and is not undone by ROLLBACK",
            );
            Ok(())
        }
        Block::Explicit(_) => {
            Err(SqlError::unsupported("DDL after a write in the same transaction block is not supported")
                .hint("COMMIT first."))
        }
        Block::None | Block::Failed(_) => Ok(()),
    }
}

/// Writes the change into the log and waits until it is published.
pub(crate) async fn commit(session: &mut Session, change: &Change) -> Result<Commit, SqlError> {
    commit_after(session, Vec::new(), change).await
}

/// As [`commit`], with records that go before.
async fn commit_after(
    session: &mut Session,
    mut records: Vec<Record>,
    change: &Change,
) -> Result<Commit, SqlError> {
    records.push(Record::Ddl(Bytes::from(change.encode())));
    let ticket = session.inner.submit(Transaction { writes: Vec::new(), records }, None).await?;
    let commit = ticket.wait().await.map_err(|e| session.inner.log_error(&e))?;
    session.inner.wait_published(commit).await?;
    session.saw(commit);
    Ok(commit)
}

/// Checks the change against the newest catalog; `None` if the relation is there already and that is allowed.
fn newest(session: &Session) -> Arc<Snapshot> {
    session.inner.snapshot()
}

/// Where a new relation goes; `None` with a notice if it is there and IF NOT EXISTS was said.
pub(crate) fn place(
    session: &mut Session,
    catalog: &Catalog,
    name: &RelationName,
    if_not_exists: bool,
) -> Result<Option<String>, SqlError> {
    let path = session.settings.search_path();
    match catalog.place_new(name, &path) {
        Ok(schema) => Ok(Some(schema)),
        Err(error) if if_not_exists && error.state() == SqlState::DUPLICATE_TABLE => {
            session.notice(
                Severity::Notice,
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{}\" already exists, skipping", name.name),
            );
            Ok(None)
        }
        Err(error) => Err(name.mark(error)),
    }
}

pub(crate) fn new_relation(
    session: &Session,
    catalog: &Catalog,
    schema: String,
    name: &str,
    kind: RelationKind,
    text: &str,
) -> Relation {
    Relation {
        id: catalog.next_id(),
        schema,
        name: name.to_owned(),
        kind,
        columns: Vec::new(),
        definition: text.to_owned(),
        dependencies: Vec::new(),
        owner: session.info.user.clone(),
        options: BTreeMap::new(),
        comment: None,
        created_at: Commit(0),
        schema_version: 0,
    }
}

pub(crate) async fn create_relation(
    session: &mut Session,
    catalog: &Catalog,
    relation: Relation,
) -> Result<(), SqlError> {
    create_after(session, Vec::new(), catalog, relation).await
}

async fn create_after(
    session: &mut Session,
    records: Vec<Record>,
    catalog: &Catalog,
    relation: Relation,
) -> Result<(), SqlError> {
    let change = Change::CreateRelation { relation: Box::new(relation) };
    catalog.apply(&change, Commit(0))?;
    commit_after(session, records, &change).await.map(|_| ())
}

async fn create_source(session: &mut Session, create: &CreateSource, text: &str) -> Result<String, SqlError> {
    let tag = || "CREATE SOURCE".to_owned();
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    let Some(schema) = place(session, catalog, &create.name, create.if_not_exists)? else { return Ok(tag()) };
    if let Some(include) = create.include.first() {
        return Err(SqlError::unsupported("INCLUDE is not supported yet").at(include.position));
    }
    let mut options = create.options.clone();
    let shown = options.to_map();
    let layout = LayoutOptions::take(&mut options)?;
    refuse_topic_options(&mut options, true)?;
    let mut columns = columns(&create.columns)?;
    let connector = match options.take("connector") {
        Some(name) => Some(connector(name.value.as_text(), options, create.format.as_ref())),
        None => {
            options.finish()?;
            if let Some(format) = &create.format {
                return Err(
                    SqlError::new(SqlState::SYNTAX_ERROR, "FORMAT needs a connector").at(format.position)
                );
            }
            None
        }
    };
    let mut default_watermark = None;
    if let Some(connector) = &connector {
        let declared = columns.iter().filter(|c| c.generated.is_none());
        let fields = declared.map(|c| c.ty.field(&c.name, c.nullable)).collect();
        let resolved = millpond_connect::validate_source(
            &connectors::source_spec(connector, fields),
            &session.inner.env,
        )
        .await?;
        if columns.is_empty() {
            for field in resolved.schema.fields() {
                columns.push(Column::new(field.name(), SqlType::of(field)?, field.is_nullable()));
            }
            default_watermark = resolved.watermark;
        }
    }
    if columns.is_empty() {
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, "a source needs columns")
            .hint("Declare its columns, or name a connector that has its own."));
    }
    if let Some(constraint) = create.constraints.first() {
        return Err(SqlError::unsupported("constraints of a source are not supported")
            .hint("A source is a stream of events: use CREATE TABLE … (PRIMARY KEY …) for rows with a key.")
            .at(constraint.position));
    }
    check_columns(session, catalog, &columns)?;
    let watermark = match (&create.watermark, default_watermark) {
        (Some(definition), _) => Some(watermark(session, catalog, &columns, definition)?),
        (None, Some(default)) => Some(Watermark {
            column: default.column,
            expression: format!(
                "{} - INTERVAL '{} microseconds'",
                millpond_sql::quote_identifier(&columns[default.column].name),
                default.delay_micros
            ),
        }),
        (None, None) => None,
    };
    let layout = layout.layout(&columns, true)?;
    let kind = RelationKind::Source(Source { watermark, connector, layout });
    let mut relation = new_relation(session, catalog, schema, &create.name.name, kind, text);
    relation.columns = columns;
    relation.options = shown;
    let id = relation.id;
    create_relation(session, catalog, relation).await?;
    connectors::start(&session.inner, id);
    Ok(tag())
}

fn connector(name: &str, options: Options, format: Option<&Format>) -> Connector {
    Connector {
        name: name.to_owned(),
        options: options.to_map(),
        format: format.map(|f| f.format.clone()),
        encode: format.and_then(|f| f.encode.clone()),
        format_options: format.map(|f| f.options.to_map()).unwrap_or_default(),
    }
}

async fn create_table(session: &mut Session, create: &CreateTable, text: &str) -> Result<String, SqlError> {
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    let tag = if create.query.is_some() { "CREATE TABLE AS" } else { "CREATE TABLE" }.to_owned();
    let Some(schema) = place(session, catalog, &create.name, create.if_not_exists)? else { return Ok(tag) };
    if create.temporary {
        return Err(
            SqlError::unsupported("temporary tables are not supported yet").hint("Create a plain table.")
        );
    }
    if create.query.is_some() {
        return Err(SqlError::unsupported("CREATE TABLE AS is not supported yet")
            .hint("CREATE TABLE first, then INSERT INTO … SELECT."));
    }
    if let Some(conflict) = create.on_conflict {
        let what = match conflict {
            TableConflict::DoNothing => "ON CONFLICT DO NOTHING",
            TableConflict::Overwrite => "ON CONFLICT OVERWRITE",
        };
        return Err(SqlError::unsupported(format!("{what} as a property of a table is not supported yet"))
            .hint("Say ON CONFLICT in each INSERT."));
    }
    let mut options = create.options.clone();
    let shown = options.to_map();
    let layout = LayoutOptions::take(&mut options)?;
    refuse_topic_options(&mut options, create.append_only)?;
    options.finish()?;
    let mut columns = columns(&create.columns)?;
    check_columns(session, catalog, &columns)?;
    let (primary_key, primary_key_name) = primary_key(&mut columns, &create.constraints)?;
    if create.append_only && !primary_key.is_empty() {
        return Err(SqlError::unsupported("an append-only table cannot have a primary key")
            .hint("Leave out APPEND ONLY or the key."));
    }
    let watermark = match &create.watermark {
        Some(definition) if create.append_only => Some(watermark(session, catalog, &columns, definition)?),
        Some(definition) => {
            return Err(SqlError::unsupported("a watermark on a table that changes is not supported yet")
                .hint("Declare the table APPEND ONLY, or use CREATE SOURCE.")
                .at(definition.position));
        }
        None => None,
    };
    let kind = RelationKind::Table(Table {
        primary_key,
        primary_key_name,
        append_only: create.append_only,
        watermark,
        layout: layout.layout(&columns, create.append_only)?,
    });
    let mut relation = new_relation(session, catalog, schema, &create.name.name, kind, text);
    relation.columns = columns;
    relation.options = shown;
    create_relation(session, catalog, relation).await?;
    Ok(tag)
}

fn frozen(session: &Session) -> Result<Frozen, SqlError> {
    Ok(Frozen {
        time_zone: session.settings.show("timezone")?,
        search_path: session.settings.search_path(),
        date_style: session.settings.show("datestyle")?,
    })
}

async fn create_view(session: &mut Session, create: &CreateView, text: &str) -> Result<String, SqlError> {
    let tag = || "CREATE VIEW".to_owned();
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    if create.temporary {
        return Err(
            SqlError::unsupported("temporary views are not supported yet").hint("Create a plain view.")
        );
    }
    if create.or_replace && catalog.resolve(&create.name, &session.settings.search_path()).is_ok() {
        return Err(SqlError::unsupported("replacing a view is not supported yet").hint("DROP VIEW first."));
    }
    create.options.clone().finish()?;
    let Some(schema) = place(session, catalog, &create.name, create.if_not_exists)? else { return Ok(tag()) };
    let (planner, _) = session.planner(&snapshot);
    let plan = planner.plan_query(&create.query.query, &[])?;
    if !plan.parameters.is_empty() {
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    let columns = view_columns(&plan.columns, &create.columns)?;
    let kind = RelationKind::View(View { query: create.query.text.clone(), frozen: frozen(session)? });
    let mut relation = new_relation(session, catalog, schema, &create.name.name, kind, text);
    relation.columns = columns;
    relation.dependencies = dependencies(session, catalog, &create.query.query);
    create_relation(session, catalog, relation).await?;
    Ok(tag())
}

fn view_columns(
    planned: &[(String, SqlType)],
    names: &[millpond_sql::statement::ColumnName],
) -> Result<Vec<Column>, SqlError> {
    if names.len() > planned.len() {
        return Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            "CREATE VIEW specifies more column names than columns",
        )
        .at(names[planned.len()].position));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(planned.len());
    for (at, (name, ty)) in planned.iter().enumerate() {
        let name = names.get(at).map_or(name, |n| &n.name);
        if columns.iter().any(|c| c.name == *name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .hint("Give the columns names of their own with AS."));
        }
        let ty = if *ty == SqlType::Unknown { SqlType::Text } else { ty.clone() };
        columns.push(Column::new(name, ty, true));
    }
    Ok(columns)
}

async fn create_materialized_view(
    session: &mut Session,
    create: &CreateMaterializedView,
    text: &str,
) -> Result<String, SqlError> {
    let tag = || "CREATE MATERIALIZED VIEW".to_owned();
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    if create.or_replace && catalog.resolve(&create.name, &session.settings.search_path()).is_ok() {
        return Err(SqlError::unsupported("replacing a materialized view is not supported yet")
            .hint("DROP MATERIALIZED VIEW first."));
    }
    if create.no_data {
        return Err(SqlError::unsupported("WITH NO DATA is not supported")
            .hint("A materialized view is always filled; WITH (background = true) does not wait for it."));
    }
    let Some(schema) = place(session, catalog, &create.name, create.if_not_exists)? else { return Ok(tag()) };
    let mut options = create.options.clone();
    let shown = options.to_map();
    let allowed_lateness = options.take_duration("allowed_lateness")?.unwrap_or(0);
    let background = options.take_bool("background")?.unwrap_or(false);
    let max_state = options.entries().iter().find(|entry| entry.name == MAX_STATE).cloned();
    if options.take_bytes(MAX_STATE)? == Some(0) {
        let message = format!("option \"{MAX_STATE}\" must be more than nothing");
        let error = SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        return Err(max_state.map_or(error.clone(), |entry| error.at(entry.value_position)));
    }
    options.finish()?;
    let (planner, _) = session.planner(&snapshot);
    let query = planner.plan_view(&create.query.query, &create.columns)?;
    let emit = create.emit.into();
    let mut rows = snapshot.rows();
    let plan = plan_incremental(&query, allowed_lateness, emit, rows.clone())
        .map_err(|e| create.emit_position.map_or(e.clone(), |p| e.at(p)))?;
    for id in plan.relations() {
        if let Some(input) = catalog.relation(id)
            && crate::read::is_heap(input)
        {
            snapshot.usable(input)?;
        }
    }
    rows.retain(|relation, _| plan.relations().contains(relation));
    let kind = RelationKind::MaterializedView(MaterializedView {
        query: create.query.text.clone(),
        emit,
        allowed_lateness,
        frozen: frozen(session)?,
        unique_key: plan.root().key.clone(),
        paused: false,
        rows: rows.into_iter().collect(),
    });
    let mut relation = new_relation(session, catalog, schema, &create.name.name, kind, text);
    relation.columns = view_columns(&query.columns, &[])?;
    relation.dependencies = dependencies(session, catalog, &create.query.query);
    for id in plan.relations() {
        if !relation.dependencies.contains(&id) {
            relation.dependencies.push(id);
        }
    }
    relation.options = shown;
    let (id, name) = (relation.id, relation.name.clone());
    if let Some(source) = crate::retention::trimmed(&session.inner.log, catalog, &relation.dependencies) {
        let message = format!(
            "{} has not kept its oldest rows: the view begins with those that are there",
            source.described()
        );
        session.notice(Severity::Notice, SqlState::new("00000"), message);
    }
    let first_tick = plan.follows_clock().then(|| crate::clock::first_tick(&session.inner));
    create_after(session, first_tick.into_iter().collect(), catalog, relation).await?;
    if !background {
        wait_built(session, id, &name).await?;
    }
    Ok(tag())
}

/// Waits until a view has caught up with its history.
pub(crate) async fn wait_built(session: &Session, id: RelationId, name: &str) -> Result<(), SqlError> {
    let mut published = session.inner.published.clone();
    let done = |snapshot: &Arc<Snapshot>| {
        !matches!(snapshot.contents.get(&id).map(|c| &c.state), Some(RelationState::Building { .. }))
    };
    let snapshot = published
        .wait_for(done)
        .await
        .map_err(|_| SqlError::new(SqlState::ADMIN_SHUTDOWN, "the epoch driver has stopped"))?
        .clone();
    match snapshot.contents.get(&id).map(|c| &c.state) {
        Some(RelationState::Failed(why) | RelationState::Paused(why)) => Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("materialized view \"{name}\" could not be built"),
        )
        .detail(format!("{why}."))
        .hint(format!("DROP MATERIALIZED VIEW {} removes it.", millpond_sql::quote_identifier(name)))),
        _ => Ok(()),
    }
}

/// The relations that a query names, views as themselves.
fn dependencies(session: &Session, catalog: &Catalog, query: &millpond_sql::ast::Query) -> Vec<RelationId> {
    let path = session.settings.search_path();
    let mut found = Vec::new();
    let _ = sqlparser::ast::visit_relations(query, |name| {
        if let Ok(name) = RelationName::from_ast(name)
            && let Ok(relation) = catalog.resolve(&name, &path)
            && !found.contains(&relation.id)
        {
            found.push(relation.id);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    found
}

async fn create_schema(
    session: &mut Session,
    name: &str,
    if_not_exists: bool,
    position: usize,
) -> Result<String, SqlError> {
    let change = Change::CreateSchema { name: name.to_owned(), owner: session.info.user.clone() };
    match newest(session).catalog.apply(&change, Commit(0)) {
        Ok(_) => {
            commit(session, &change).await?;
        }
        Err(error) if if_not_exists && error.state() == SqlState::DUPLICATE_SCHEMA => {
            session.notice(
                Severity::Notice,
                SqlState::DUPLICATE_SCHEMA,
                format!("schema \"{name}\" already exists, skipping"),
            );
        }
        Err(error) => return Err(if position > 0 { error.at(position) } else { error }),
    }
    Ok("CREATE SCHEMA".to_owned())
}

async fn drop_objects(session: &mut Session, drop: &Drop) -> Result<String, SqlError> {
    let tag = format!("DROP {}", drop.kind.command());
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    if drop.kind == ObjectKind::Schema {
        return drop_schemas(session, drop, tag).await;
    }
    let path = session.settings.search_path();
    let mut ids = Vec::new();
    for name in &drop.names {
        match catalog.resolve_kind(name, drop.kind, &path) {
            Ok(relation) => ids.push(relation.id),
            Err(error) if drop.if_exists && error.state() != SqlState::WRONG_OBJECT_TYPE => {
                let message = format!("{} \"{}\" does not exist, skipping", drop.kind.as_str(), name.name);
                session.notice(Severity::Notice, SqlState::new("00000"), message);
            }
            Err(error) => return Err(name.mark(error)),
        }
    }
    if ids.is_empty() {
        return Ok(tag);
    }
    let plan = catalog.plan_drop(&ids, drop.cascade)?;
    cascade_notice(session, plan.notice);
    let change = Change::DropRelations { ids: plan.ids.clone() };
    commit(session, &change).await?;
    forget(session, &plan.ids);
    Ok(tag)
}

async fn drop_schemas(session: &mut Session, drop: &Drop, tag: String) -> Result<String, SqlError> {
    for name in &drop.names {
        let snapshot = newest(session);
        let plan = match snapshot.catalog.plan_drop_schema(&name.name, drop.cascade) {
            Ok(plan) => plan,
            Err(error) if drop.if_exists && error.state() == SqlState::INVALID_SCHEMA_NAME => {
                let message = format!("schema \"{}\" does not exist, skipping", name.name);
                session.notice(Severity::Notice, SqlState::new("00000"), message);
                continue;
            }
            Err(error) => return Err(name.mark(error)),
        };
        cascade_notice(session, plan.notice);
        let mut changes = Vec::new();
        if !plan.ids.is_empty() {
            changes.push(Change::DropRelations { ids: plan.ids.clone() });
        }
        changes.push(Change::DropSchema { name: name.name.clone() });
        commit(session, &Change::Batch { changes }).await?;
        forget(session, &plan.ids);
    }
    Ok(tag)
}

fn cascade_notice(session: &mut Session, notice: Option<(String, Option<String>)>) {
    if let Some((message, detail)) = notice {
        session.push_notice(Notice {
            severity: Severity::Notice,
            state: SqlState::new("00000"),
            message,
            detail,
            hint: None,
        });
    }
}

fn forget(session: &Session, ids: &[RelationId]) {
    for id in ids {
        session.inner.forget(*id);
        connectors::stop(&session.inner, *id);
    }
}

async fn alter_object(session: &mut Session, alter: &Alter, text: &str) -> Result<String, SqlError> {
    let tag = format!("ALTER {}", alter.kind.command());
    let snapshot = newest(session);
    let catalog = &snapshot.catalog;
    let path = session.settings.search_path();
    let relation = match catalog.resolve_kind(&alter.name, alter.kind, &path) {
        Ok(relation) => Arc::clone(relation),
        Err(error) if alter.if_exists && error.state() != SqlState::WRONG_OBJECT_TYPE => {
            let message = format!("relation \"{}\" does not exist, skipping", alter.name.name);
            session.notice(Severity::Notice, SqlState::new("00000"), message);
            return Ok(tag);
        }
        Err(error) => return Err(alter.name.mark(error)),
    };
    let change = match &alter.action {
        AlterAction::RenameTo(name) => {
            refuse_dependants(catalog, &relation, "rename")?;
            Change::RenameRelation { id: relation.id, name: name.name.clone() }
        }
        AlterAction::RenameColumn { from, to } => {
            refuse_dependants(catalog, &relation, "rename a column of")?;
            if relation.watermark().is_some() || relation.columns.iter().any(|c| c.generated.is_some()) {
                return Err(SqlError::unsupported(
                    "columns of a relation with expressions of its own cannot be renamed yet",
                )
                .hint("A view can give the column another name."));
            }
            let column = relation.column_index(&from.name).ok_or_else(|| {
                SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{}\" does not exist", from.name))
                    .at(from.position)
            })?;
            Change::RenameColumn { id: relation.id, column, name: to.name.clone() }
        }
        AlterAction::SetOptions(options) => alter::set_options(&relation, options, alter.position, text)?,
        AlterAction::AddColumn { column, constraints, if_not_exists } => {
            let (definition, if_not_exists) = (&**column, *if_not_exists);
            let new = alter::NewColumn { definition, constraints, if_not_exists, text };
            alter::add_column(session, &snapshot, &relation, new).await?;
            return Ok(tag);
        }
        AlterAction::DropColumn { .. } => {
            return Err(SqlError::unsupported("dropping a column is not supported yet")
                .hint("The log keeps what was written; a view can leave the column out.")
                .at(alter.position));
        }
        AlterAction::Unsupported(words) if words.starts_with("ALTER") => {
            return Err(SqlError::unsupported("a column cannot be changed, its type and constraints neither")
                .hint("ADD COLUMN with the new type, or create another relation and INSERT INTO it a SELECT with casts.")
                .at(alter.position));
        }
        AlterAction::OwnerTo(owner) => Change::SetOwner { id: relation.id, owner: owner.clone() },
        AlterAction::ResetOptions(names) if relation.is_topic() => {
            let known = [crate::retention::RETENTION, crate::retention::RETENTION_BYTES];
            if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("unrecognized option \"{name}\""),
                )
                .hint("RESET takes back \"retention\" and \"retention_bytes\".")
                .at(alter.position));
            }
            let options = names.iter().map(|name| (name.clone(), None));
            Change::SetOptions { id: relation.id, options: options.collect() }
        }
        AlterAction::AdvanceWatermark(expression) => {
            advance_watermark(session, &relation, expression).await?;
            return Ok(tag);
        }
        AlterAction::Pause | AlterAction::Resume if alter.kind == ObjectKind::MaterializedView => {
            let paused = alter.action == AlterAction::Pause;
            return pause::run(session, &snapshot, &relation, paused).await.map(|()| tag);
        }
        _ => {
            return Err(SqlError::unsupported(format!(
                "this form of ALTER {} is not supported yet",
                alter.kind.command()
            ))
            .hint("RENAME TO, RENAME COLUMN, ADD COLUMN, SET (…), RESET (…), OWNER TO, for a source ADVANCE WATERMARK TO, and for a materialized view PAUSE and RESUME work.")
            .at(alter.position));
        }
    };
    catalog.apply(&change, Commit(0))?;
    commit(session, &change).await?;
    session.inner.forget_target(relation.id);
    Ok(tag)
}

/// The catalog keeps queries as text, which a new name would break.
fn refuse_dependants(catalog: &Catalog, relation: &Relation, verb: &str) -> Result<(), SqlError> {
    let dependants = catalog.dependants(relation.id);
    if dependants.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = dependants.iter().map(|r| r.described()).collect();
    Err(SqlError::unsupported(format!(
        "cannot {verb} {} because other objects depend on it",
        relation.described()
    ))
    .detail(format!("They are {}.", names.join(", ")))
    .hint("Drop them first, and create them again."))
}

async fn advance_watermark(
    session: &mut Session,
    relation: &Arc<Relation>,
    expression: &Expression,
) -> Result<(), SqlError> {
    let Some(watermark) = relation.watermark() else {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("source \"{}\" has no watermark", relation.name),
        )
        .hint("Declare WATERMARK FOR a column in CREATE SOURCE."));
    };
    let ty = relation.columns[watermark.column].ty.clone();
    let snapshot = newest(session);
    let value = crate::control::evaluate(session, &snapshot, &expression.expr, &ty)?;
    let micros = match value {
        datafusion::common::ScalarValue::TimestampMicrosecond(Some(micros), _) => micros,
        _ => {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "a watermark cannot be NULL")
                .at(expression.position));
        }
    };
    let to = millpond_types::EventTime(micros);
    if let Some(now) = session.inner.log.watermark(relation.id)
        && to < now
    {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "a watermark cannot go back")
            .at(expression.position));
    }
    let record = Record::AdvanceWatermark { topic: relation.id, to };
    let ticket =
        session.inner.submit(Transaction { writes: Vec::new(), records: vec![record] }, None).await?;
    let commit = ticket.wait().await.map_err(|e| session.inner.log_error(&e))?;
    session.saw(commit);
    Ok(())
}

async fn comment_on(
    session: &mut Session,
    comment: &millpond_sql::statement::Comment,
) -> Result<String, SqlError> {
    let snapshot = newest(session);
    let path = session.settings.search_path();
    if comment.kind == ObjectKind::Schema {
        return Err(SqlError::unsupported("comments on schemas are not kept")
            .hint("Comment on relations and columns."));
    }
    let relation = snapshot
        .catalog
        .resolve_kind(&comment.name, comment.kind, &path)
        .map_err(|e| comment.name.mark(e))?;
    let column = match &comment.column {
        Some(column) => Some(relation.column_index(&column.name).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" of relation \"{}\" does not exist", column.name, relation.name),
            )
            .at(column.position)
        })?),
        None => None,
    };
    let change = Change::Comment { id: relation.id, column, comment: comment.comment.clone() };
    commit(session, &change).await?;
    session.inner.forget_target(relation.id);
    Ok("COMMENT".to_owned())
}
