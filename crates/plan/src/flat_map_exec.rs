//! Set-returning functions in a SELECT: the loop that views have, over DataFusion's batches.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, stream};
use millpond_functions::error::into_datafusion;
use millpond_functions::sets::{BYTES_PER_BATCH, Expansion, ROWS_PER_BATCH, slice_bytes};

use crate::flat_map::FlatMap;

/// What makes [`crate::batch`]'s plans executable.
pub fn physical_planner() -> DefaultPhysicalPlanner {
    DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(FlatMapPlanner)])
}

struct FlatMapPlanner;

#[async_trait]
impl ExtensionPlanner for FlatMapPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(map), [input]) = (node.as_any().downcast_ref::<FlatMap>(), physical_inputs) else {
            return Ok(None);
        };
        let over = map.input().schema();
        let sets = map.sets().iter().map(|set| planner.create_physical_expr(set, over, session, context));
        let spec = Spec {
            sets: sets.collect::<Result<_>>()?,
            kept: map.kept(),
            ordinality: map.ordinality(),
            outer: map.outer(),
        };
        let schema = Arc::clone(node.schema().inner());
        Ok(Some(Arc::new(FlatMapExec::new(Arc::clone(input), Arc::new(spec), schema))))
    }
}

/// What is done to each batch.
#[derive(Debug)]
struct Spec {
    sets: Vec<Arc<dyn PhysicalExpr>>,
    kept: Vec<usize>,
    ordinality: bool,
    outer: bool,
}

#[derive(Debug)]
struct FlatMapExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<Spec>,
    properties: Arc<PlanProperties>,
}

impl FlatMapExec {
    fn new(input: Arc<dyn ExecutionPlan>, spec: Arc<Spec>, schema: SchemaRef) -> Self {
        let partitions = input.properties().partitioning.partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, spec, properties: Arc::new(properties) }
    }
}

impl DisplayAs for FlatMapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "FlatMapExec: ")?;
        for (at, set) in self.spec.sets.iter().enumerate() {
            write!(f, "{}{set}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl ExecutionPlan for FlatMapExec {
    fn name(&self) -> &str {
        "FlatMapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for set in &self.spec.sets {
            if f(set)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => {
                Ok(Arc::new(Self::new(input, Arc::clone(&self.spec), self.schema())))
            }
            _ => internal_err!("a flat map has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (spec, schema) = (Arc::clone(&self.spec), self.schema());
        let input = self.input.execute(partition, context)?;
        let rows = input.flat_map(move |batch| {
            let (spec, schema) = (Arc::clone(&spec), Arc::clone(&schema));
            let mut state = Some(batch.and_then(|batch| Open::new(&spec, batch)));
            stream::iter(std::iter::from_fn(move || match state.take()? {
                Err(error) => Some(Err(error)),
                Ok(mut open) => match open.next(&spec, &schema).transpose()? {
                    Ok(rows) => {
                        state = Some(Ok(open));
                        Some(Ok(rows))
                    }
                    Err(error) => Some(Err(error)),
                },
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// A batch that is being expanded.
struct Open {
    kept: Vec<ArrayRef>,
    expansion: Expansion,
    rows_per_batch: usize,
}

impl Open {
    fn new(spec: &Spec, batch: RecordBatch) -> Result<Self> {
        let rows = batch.num_rows();
        let sets = spec.sets.iter().map(|set| set.evaluate(&batch).and_then(|value| value.into_array(rows)));
        let expansion =
            Expansion::try_new(&sets.collect::<Result<Vec<_>>>()?, spec.outer).map_err(into_datafusion)?;
        let kept: Vec<ArrayRef> = spec.kept.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let bytes: usize = kept.iter().map(|column| slice_bytes(column) / rows.max(1)).sum();
        let rows_per_batch = (BYTES_PER_BATCH / bytes.max(1)).clamp(1, ROWS_PER_BATCH);
        Ok(Self { kept, expansion, rows_per_batch })
    }

    fn next(&mut self, spec: &Spec, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.expansion.next(self.rows_per_batch)? else { return Ok(None) };
        let mut columns = Vec::with_capacity(schema.fields().len());
        for column in &self.kept {
            columns.push(take(column, &rows.origins, None)?);
        }
        columns.extend(rows.columns);
        if spec.ordinality {
            columns.push(Arc::new(rows.ordinality));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.origins.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
    }
}
