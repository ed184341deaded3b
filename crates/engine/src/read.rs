//! SELECT: DataFusion over one snapshot, under a memory limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContextOf, Poll};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::PhysicalPlanner;
use futures::{Stream, TryStreamExt};
use millpond_catalog::{Relation, RelationKind};
use millpond_functions::error::{from_datafusion, into_datafusion};
use millpond_plan::{RelationSource, batch, bind_parameters, physical_planner, replace_relations};
use millpond_types::{Commit, RelationId, SqlError, SqlState};

use crate::inner::{Inner, log_read_error};
use crate::prune::push_conditions;
use crate::scan::{Provider, Readable};
use crate::session::CancelHandle;
use crate::snapshot::{HeapScan, LogScan, Snapshot};
use crate::target::Key;
use crate::txn::Txn;

/// Runs a logical plan over a snapshot; tables that `txn` has written are read as it left them.
pub(crate) async fn stream(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    parameters: &[ScalarValue],
    txn: Option<&mut Txn>,
) -> Result<SendableRecordBatchStream, SqlError> {
    let physical = physical(inner, snapshot, logical, parameters, txn).await?;
    execute_stream(physical, task_context(&inner.datafusion)).map_err(from_datafusion)
}

/// As [`stream`], in one thread: rows come as they would be read from one end to the other.
pub(crate) async fn stream_in_order(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    parameters: &[ScalarValue],
    txn: Option<&mut Txn>,
) -> Result<SendableRecordBatchStream, SqlError> {
    let state = &inner.datafusion;
    let state = SessionStateBuilder::new_from_existing(state.clone())
        .with_config(state.config().clone().with_target_partitions(1))
        .build();
    let logical = executable(inner, snapshot, logical, parameters, txn)?;
    let physical =
        physical_planner().create_physical_plan(&logical, &state).await.map_err(from_datafusion)?;
    execute_stream(physical, task_context(&state)).map_err(from_datafusion)
}

async fn physical(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    parameters: &[ScalarValue],
    txn: Option<&mut Txn>,
) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
    let logical = executable(inner, snapshot, logical, parameters, txn)?;
    physical_planner().create_physical_plan(&logical, &inner.datafusion).await.map_err(from_datafusion)
}

/// A plan over what the snapshot holds.
fn executable(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    parameters: &[ScalarValue],
    mut txn: Option<&mut Txn>,
) -> Result<LogicalPlan, SqlError> {
    let logical = bind_parameters(logical, parameters)?;
    let logical = push_conditions(batch(logical)?)?;
    replace_relations(logical, &mut |source| {
        let relation = snapshot
            .catalog
            .relation(source.facts().id)
            .ok_or_else(|| SqlError::internal(format!("relation {} is gone", source.facts().id)))?;
        let provider = provider(inner, snapshot, relation, source, txn.as_deref_mut())?;
        Ok(provider_as_source(provider) as Arc<dyn TableSource>)
    })
}

/// Runs a plan for what its operators have to say about it: rows, times, and so on.
pub(crate) async fn analyze(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    txn: Option<&mut Txn>,
    verbose: bool,
) -> Result<String, SqlError> {
    let start = inner.env.clock.monotonic();
    let physical = physical(inner, snapshot, logical, &[], txn).await?;
    let planned = inner.env.clock.monotonic();
    let state = &inner.datafusion;
    let mut rows = execute_stream(Arc::clone(&physical), task_context(state)).map_err(from_datafusion)?;
    while rows.try_next().await.map_err(from_datafusion)?.is_some() {}
    let done = inner.env.clock.monotonic();
    let plan = DisplayableExecutionPlan::with_metrics(&*physical);
    let plan = if verbose { DisplayableExecutionPlan::with_full_metrics(&*physical) } else { plan };
    let millis = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e3;
    Ok(format!(
        "{}Planning Time: {:.3} ms\nExecution Time: {:.3} ms",
        plan.indent(verbose),
        millis(start, planned),
        millis(planned, done)
    ))
}

/// As [`stream`], into memory.
pub(crate) async fn collect(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
    parameters: &[ScalarValue],
    txn: Option<&mut Txn>,
) -> Result<Vec<RecordBatch>, SqlError> {
    stream(inner, snapshot, logical, parameters, txn).await?.try_collect().await.map_err(from_datafusion)
}

fn task_context(state: &SessionState) -> Arc<TaskContext> {
    Arc::new(TaskContext::from(state))
}

fn provider(
    inner: &Inner,
    snapshot: &Snapshot,
    relation: &Arc<Relation>,
    source: &RelationSource,
    txn: Option<&mut Txn>,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    use datafusion::logical_expr::TableSource as _;
    let schema = source.schema();
    if is_log(relation) {
        return Ok(Arc::new(Provider(Arc::new(log_scan(inner, snapshot, relation, source)?))));
    }
    if let Some(metadata) = source.metadata().first() {
        return Err(SqlError::unsupported(format!(
            "column \"{}\" of table \"{}\" is not kept",
            metadata.name(),
            relation.name
        ))
        .hint("Sources and append-only tables have it."));
    }
    let own = match txn {
        Some(txn) => txn.image(relation.id).map(|image| image.rows.snapshot()),
        None => None,
    };
    let heap = match own {
        Some(heap) => heap,
        None => Arc::clone(&snapshot.readable(relation)?.heap),
    };
    Ok(Arc::new(Provider(Arc::new(HeapScan { heap, schema }))))
}

fn is_log(relation: &Relation) -> bool {
    Key::of(relation) == Key::AppendOnly && relation.is_topic()
}

fn log_scan(
    inner: &Inner,
    snapshot: &Snapshot,
    relation: &Relation,
    source: &RelationSource,
) -> Result<LogScan, SqlError> {
    use datafusion::logical_expr::TableSource as _;
    Ok(LogScan {
        log: inner.log.clone(),
        frames: Arc::new(
            inner.log.frames(relation.id, Commit(0), snapshot.cut).map_err(|e| log_read_error(&e))?,
        ),
        schema: source.schema(),
        // A view sees the columns that were there when it was made.
        declared: source.facts().columns.len(),
        metadata: source.metadata().to_vec(),
        shape: Arc::clone(&inner.target(&snapshot.catalog, relation.id)?.shape),
    })
}

/// What EXPLAIN says of the plan's scans of the log: a line for each.
///
/// # Errors
/// As [`stream`].
pub(crate) fn describe_scans(
    inner: &Inner,
    snapshot: &Snapshot,
    logical: &LogicalPlan,
) -> Result<Vec<String>, SqlError> {
    let logical = push_conditions(batch(logical.clone())?)?;
    let mut scans = Vec::new();
    let walk = logical.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(source) = RelationSource::of(&scan.source)
            && let Some(relation) = snapshot.catalog.relation(source.facts().id)
            && is_log(relation)
        {
            scans.push((scan.clone(), source.clone(), Arc::clone(relation)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walk.map_err(from_datafusion)?;
    let mut lines = Vec::with_capacity(scans.len());
    for (scan, source, relation) in scans {
        let all = Arc::new(log_scan(inner, snapshot, &relation, &source)?);
        let (frames, declared) = (all.frames.len(), all.declared);
        let narrow = all.narrowed(&scan.filters);
        let rows: u64 = narrow.frames.iter().map(|frame| u64::from(frame.rows)).sum();
        let columns = match &scan.projection {
            Some(projection) => projection.iter().filter(|column| **column < declared).count(),
            None => declared,
        };
        lines.push(format!(
            "Log of {}: {} of {frames} frames with {rows} rows are read, {} pruned; {columns} of {declared} columns",
            relation.display_name(),
            narrow.frames.len(),
            frames - narrow.frames.len(),
        ));
    }
    Ok(lines)
}

/// The materialized views that plans read.
pub(crate) fn views_of(snapshot: &Snapshot, plans: &[&LogicalPlan]) -> Vec<RelationId> {
    let mut views = Vec::new();
    for plan in plans {
        let walk = plan.apply_with_subqueries(|plan| {
            if let LogicalPlan::TableScan(scan) = plan
                && let Some(source) = RelationSource::of(&scan.source)
                && let Some(relation) = snapshot.catalog.relation(source.facts().id)
                && matches!(relation.kind, RelationKind::MaterializedView(_))
                && !views.contains(&relation.id)
            {
                views.push(relation.id);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walk.expect("nothing in the walk fails");
    }
    views
}

/// Reads every row of a table or view, as the driver does for history.
pub(crate) fn is_heap(relation: &Relation) -> bool {
    matches!(relation.kind, RelationKind::MaterializedView(_)) || Key::of(relation) != Key::AppendOnly
}

/// Ends a stream with 57014 when its statement is cancelled or takes too long.
pub(crate) struct Cancellable {
    stream: SendableRecordBatchStream,
    cancelled: Pin<Box<dyn Future<Output = SqlError> + Send>>,
    done: bool,
}

impl Cancellable {
    pub fn wrap(
        stream: SendableRecordBatchStream,
        cancel: CancelHandle,
        deadline: Option<tokio::time::Instant>,
    ) -> SendableRecordBatchStream {
        let cancelled = Box::pin(async move { cancel.cancelled(deadline).await });
        Box::pin(Self { stream, cancelled, done: false })
    }
}

impl Stream for Cancellable {
    type Item = datafusion::common::Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContextOf<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(error) = self.cancelled.as_mut().poll(context) {
            self.done = true;
            return Poll::Ready(Some(Err(into_datafusion(error))));
        }
        self.stream.as_mut().poll_next(context)
    }
}

impl RecordBatchStream for Cancellable {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.stream.schema()
    }
}

/// A short wait that a SELECT gives up.
pub(crate) fn too_slow(snapshot: &Snapshot, wanted: Commit) -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "the views have not caught up in time")
        .detail(format!("The newest published epoch is {}, and {wanted} was waited for.", snapshot.cut))
        .hint(
            "SET millpond.read = 'latest' reads without waiting; millpond.read_timeout is the longest wait.",
        )
}
