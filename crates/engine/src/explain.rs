//! EXPLAIN, and VERIFY MATERIALIZED VIEW.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::common::ScalarValue;
use millpond_functions::Zone;
use millpond_plan::without_late_rows;
use millpond_sql::RelationName;
use millpond_sql::statement::{Explain, ExplainFormat, Explained, ObjectKind, ParsedStatement, Statement};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::cut::Cut;
use crate::outcome::{Column, Outcome, RowsTag};
use crate::session::{Action, Block, Session, rows};
use crate::snapshot::Snapshot;
use crate::target::internal;
use crate::view::{plan_incremental, plan_query};
use crate::{analyze, read};

pub(crate) async fn run(session: &mut Session, explain: &Explain) -> Result<Outcome, SqlError> {
    if explain.format == ExplainFormat::Json {
        return Err(
            SqlError::unsupported("EXPLAIN (FORMAT JSON) is not supported yet").hint("Use FORMAT TEXT.")
        );
    }
    let text = match &explain.what {
        Explained::View(name) => analyze::run(session, name, explain.analyze, explain.verbose).await?,
        Explained::Statement(statement) if explain.analyze => {
            analyze_query(session, statement, explain.verbose).await?
        }
        Explained::Statement(statement) => plan(session, statement, explain.verbose).await?,
    };
    let lines: ArrayRef = Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()));
    let column = Column { name: "QUERY PLAN".into(), ty: SqlType::Text, origin: None, zone: Zone::UTC };
    let schema = Schema::new(vec![Field::new("QUERY PLAN", arrow::datatypes::DataType::Utf8, true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![lines]).map_err(internal)?;
    Ok(rows(vec![column], batch, RowsTag::Plain("EXPLAIN")))
}

async fn plan(session: &mut Session, statement: &ParsedStatement, verbose: bool) -> Result<String, SqlError> {
    let snapshot = session.planning_snapshot();
    if let Statement::CreateMaterializedView(create) = &statement.statement {
        let (planner, _) = session.planner(&snapshot);
        let query = planner.plan_view(&create.query.query, &create.columns)?;
        let mut options = create.options.clone();
        let lateness = options.take_duration("allowed_lateness")?.unwrap_or(0);
        let plan = plan_incremental(&query, lateness, create.emit.into(), snapshot.rows())?;
        return Ok(plan.with_notes(verbose, &[]).to_string());
    }
    let prepared = session.plan(Arc::new(statement.clone()), Vec::new().into(), &snapshot)?;
    Ok(match &*prepared.action {
        Action::Query(plan) => {
            // What was committed before is counted, as the query itself would read it.
            let read = session.read_snapshot().await?;
            let scans = read::describe_scans(&session.inner, &read, &plan.logical)?;
            let plan = millpond_plan::shown_text(&plan.logical.display_indent().to_string());
            std::iter::once(plan).chain(scans).collect::<Vec<_>>().join("\n")
        }
        Action::Insert(plan) => {
            format!("Insert\n{}", indent(&millpond_plan::shown_text(&plan.rows.display_indent().to_string())))
        }
        Action::Update(plan) => point_or_scan("Update", plan.point.is_some(), plan.filter.as_ref()),
        Action::Delete(plan) => point_or_scan("Delete", plan.point.is_some(), plan.filter.as_ref()),
        Action::Utility => {
            return Err(SqlError::unsupported("this statement has no plan").hint(
                "EXPLAIN takes SELECT, INSERT, UPDATE, DELETE, CREATE MATERIALIZED VIEW and MATERIALIZED VIEW v.",
            ));
        }
    })
}

/// Runs a SELECT, and says what its operators did.
async fn analyze_query(
    session: &mut Session,
    statement: &ParsedStatement,
    verbose: bool,
) -> Result<String, SqlError> {
    let newest = session.planning_snapshot();
    let prepared = session.plan(Arc::new(statement.clone()), Vec::new().into(), &newest)?;
    if !matches!(&*prepared.action, Action::Query(_)) {
        return Err(SqlError::unsupported(
            "EXPLAIN ANALYZE of a statement that changes something is not supported",
        )
        .hint(
            "It takes SELECT, and MATERIALIZED VIEW v of a view that is there; EXPLAIN shows other plans.",
        ));
    }
    let snapshot = session.read_snapshot_of(&prepared, Cut::Any).await?;
    let prepared = session.plan(Arc::new(statement.clone()), Vec::new().into(), &snapshot)?;
    let Action::Query(plan) = &*prepared.action else {
        return Err(SqlError::internal("a query has become something else"));
    };
    let inner = Arc::clone(&session.inner);
    let txn = match &mut session.block {
        Block::Explicit(txn) | Block::Implicit(txn) => Some(txn),
        _ => None,
    };
    read::analyze(&inner, &snapshot, &plan.logical, txn, verbose).await
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn point_or_scan(verb: &str, point: bool, filter: Option<&datafusion::logical_expr::Expr>) -> String {
    let how = if point { "by primary key" } else { "by scan of the table" };
    match filter {
        Some(filter) => format!("{verb} {how}\n  Filter: {filter}"),
        None => format!("{verb} {how}"),
    }
}

/// What VERIFY returns: the view's columns, and by how much the view differs.
pub(crate) fn verify_columns(session: &Session, name: &RelationName) -> Result<Vec<Column>, SqlError> {
    let snapshot = session.planning_snapshot();
    let path = session.settings.search_path();
    let relation =
        snapshot.catalog.resolve_kind(name, ObjectKind::MaterializedView, &path).map_err(|e| name.mark(e))?;
    let mut columns =
        vec![Column { name: "difference".into(), ty: SqlType::Int8, origin: None, zone: Zone::UTC }];
    columns.extend(relation.columns.iter().map(|c| Column {
        name: c.name.clone(),
        ty: c.ty.clone(),
        origin: None,
        zone: session.settings.zone(),
    }));
    Ok(columns)
}

/// Computes the view's query as a batch over its inputs at the cut of one snapshot, without the rows that were refused as
/// late, and returns the rows that differ: positive where the view has too many.
pub(crate) async fn verify(session: &mut Session, name: &RelationName) -> Result<Outcome, SqlError> {
    let columns = verify_columns(session, name)?;
    let path = session.settings.search_path();
    let mut named = |_: &Session, snapshot: &Arc<Snapshot>| {
        let relation = snapshot.catalog.resolve_kind(name, ObjectKind::MaterializedView, &path)?;
        let mut ids = vec![relation.id];
        ids.extend(snapshot.catalog.relation(relation.id).iter().flat_map(|r| r.dependencies.clone()));
        Ok(ids)
    };
    let snapshot = session.snapshot_of(Cut::Any, &mut named).await?;
    let relation =
        snapshot.catalog.resolve_kind(name, ObjectKind::MaterializedView, &path).map_err(|e| name.mark(e))?;
    if snapshot.errors.count(relation.id) > 0 {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("materialized view \"{}\" has rows in error", relation.name),
        )
        .detail("A batch over its inputs would fail at the same rows.")
        .hint("millpond.errors lists them; retract them first."));
    }
    if let Some(source) =
        crate::retention::trimmed(&session.inner.log, &snapshot.catalog, &relation.dependencies)
    {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("materialized view \"{}\" cannot be verified", relation.name),
        )
        .detail(format!("{} has not kept its oldest rows, which the view may have seen.", source.described()))
        .hint("Verify views before the retention of their sources ends."));
    }
    let heap = Arc::clone(&snapshot.readable(relation)?.heap);
    let schema = relation.arrow_schema();
    let expected = batch_answer(session, &snapshot, relation.id).await?;
    let mut kept = Vec::new();
    for batch in heap.batches(None) {
        kept.push(batch.map_err(|fault| SqlError::internal(fault.to_string()))?);
    }
    let difference = crate::verify::difference(&schema, &kept, &expected)?;
    Ok(rows(columns, difference, RowsTag::Plain("VERIFY")))
}

/// What the view's query says in batch.
pub(crate) async fn batch_answer(
    session: &Session,
    snapshot: &Arc<Snapshot>,
    view: millpond_types::RelationId,
) -> Result<Vec<RecordBatch>, SqlError> {
    let relation =
        snapshot.catalog.relation(view).ok_or_else(|| SqlError::internal(format!("view {view} is gone")))?;
    let (query, lateness) = plan_query(&snapshot.catalog, relation)?;
    let logical = without_late_rows(query.logical, lateness)?;
    // The only parameter of a view's query is the time.
    let now = ScalarValue::TimestampMicrosecond(
        snapshot.now().map(|now| now.0),
        Some(millpond_types::sql_type::UTC.into()),
    );
    read::collect(&session.inner, snapshot, &logical, &[now], None).await
}
