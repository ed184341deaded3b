//! SELECT: DataFusion over one snapshot, under a memory limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContextOf, Poll};

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::{Stream, TryStreamExt};
use millpond_catalog::{Relation, RelationKind};
use millpond_functions::error::{from_datafusion, into_datafusion};
use millpond_plan::{RelationSource, batch, bind_parameters, replace_relations};
use millpond_types::{Commit, SqlError, SqlState};

use crate::inner::Inner;
use crate::scan::Provider;
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
    mut txn: Option<&mut Txn>,
) -> Result<SendableRecordBatchStream, SqlError> {
    let logical = bind_parameters(logical, parameters)?;
    let logical = replace_relations(batch(logical)?, &mut |source| {
        let relation = snapshot
            .catalog
            .relation(source.facts().id)
            .ok_or_else(|| SqlError::internal(format!("relation {} is gone", source.facts().id)))?;
        let provider = provider(inner, snapshot, relation, source, txn.as_deref_mut())?;
        Ok(provider_as_source(provider) as Arc<dyn TableSource>)
    })?;
    let state = &inner.datafusion;
    let physical = physical_planner().create_physical_plan(&logical, state).await.map_err(from_datafusion)?;
    execute_stream(physical, task_context(state)).map_err(from_datafusion)
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

fn physical_planner() -> DefaultPhysicalPlanner {
    DefaultPhysicalPlanner::default()
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
    if Key::of(relation) == Key::AppendOnly && relation.is_topic() {
        let frames =
            inner.log.frames(relation.id, Commit(0), snapshot.cut).map_err(|e| inner.log_error(&e))?;
        let scan = LogScan {
            log: inner.log.clone(),
            frames: Arc::new(frames),
            schema,
            declared: relation.columns.len(),
            metadata: source.metadata().to_vec(),
        };
        return Ok(Arc::new(Provider(Arc::new(scan))));
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
