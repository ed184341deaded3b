//! Frames that cannot hold a row that a condition asks for.
//!
//! A frame's header bounds `_commit`, `_offset`, `_partition`, `_ingest_time` and `_watermark` of its rows, and, where it is
//! not tiny, the columns of integers and times ([`millpond_log::ColumnRange`]). DataFusion turns a condition into one over
//! bounds, and evaluates it over all frames at once. The condition itself still looks at every row that is read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Column;
use datafusion::common::ScalarValue;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableSource};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use millpond_functions::error::from_datafusion;
use millpond_log::FrameRef;
use millpond_plan::{Metadata, RelationSource, physical};
use millpond_types::{RelationId, SqlError};

/// Tells each scan of a relation the conditions that stand right above it; they stay where they are.
///
/// # Errors
/// XX000 only.
pub(crate) fn push_conditions(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let pushed = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::TableScan(scan) = &*filter.input else { return Ok(Transformed::no(plan)) };
        if RelationSource::of(&scan.source).is_none() || !scan.filters.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let filters: Vec<Expr> =
            split_conjunction(&filter.predicate).into_iter().filter(|e| is_plain(e)).cloned().collect();
        let scan = LogicalPlan::TableScan(TableScan { filters, ..scan.clone() });
        let mut filter = filter.clone();
        filter.input = Arc::new(scan);
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    });
    pushed.map(|t| t.data).map_err(from_datafusion)
}

/// What a plan asks of the rows of each relation that it scans.
#[derive(Default)]
pub(crate) struct Conditions(BTreeMap<RelationId, Vec<(RelationSource, Vec<Expr>)>>);

impl Conditions {
    /// # Errors
    /// XX000 only.
    pub fn of(plan: &LogicalPlan) -> Result<Self, SqlError> {
        let mut conditions = Self::default();
        push_conditions(plan.clone())?
            .apply_with_subqueries(|plan| {
                if let LogicalPlan::TableScan(scan) = plan
                    && let Some(source) = RelationSource::of(&scan.source)
                {
                    let scans = conditions.0.entry(source.facts().id).or_default();
                    scans.push((source.clone(), scan.filters.clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .map_err(from_datafusion)?;
        Ok(conditions)
    }

    /// The frames of a relation that some scan may find a row in.
    pub fn keep(&self, relation: RelationId, frames: Vec<FrameRef>) -> Vec<FrameRef> {
        let mut keep = vec![false; frames.len()];
        for (source, conditions) in self.0.get(&relation).into_iter().flatten() {
            let (schema, declared) = (source.schema(), source.facts().columns.len());
            match may_match(&frames, &schema, declared, source.metadata(), conditions) {
                Some(may) => keep.iter_mut().zip(may).for_each(|(keep, may)| *keep |= may),
                None => return frames,
            }
        }
        frames.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(frame, _)| frame).collect()
    }
}

/// Whether it can be evaluated on its own.
fn is_plain(expr: &Expr) -> bool {
    let odd = |e: &Expr| {
        let odd = matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
        );
        Ok(odd)
    };
    !expr.exists(odd).unwrap_or(true) && !expr.is_volatile()
}

/// Of each frame, whether it may hold a row for which all conditions are true; `None` if nothing can be told.
pub(crate) fn may_match(
    frames: &[FrameRef],
    schema: &SchemaRef,
    declared: usize,
    metadata: &[Metadata],
    conditions: &[Expr],
) -> Option<Vec<bool>> {
    let condition = conditions.iter().cloned().reduce(Expr::and)?;
    let condition = unqualified(condition)?;
    let condition = physical(&condition, schema).ok()?;
    let predicate =
        PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(condition).ok()?;
    if predicate.always_true() || frames.is_empty() {
        return None;
    }
    predicate.prune(&Bounds { frames, schema, declared, metadata }).ok()
}

fn unqualified(expr: Expr) -> Option<Expr> {
    let bare = expr.transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    });
    bare.ok().map(|t| t.data)
}

/// The frames of a scan as what DataFusion calls containers.
struct Bounds<'a> {
    frames: &'a [FrameRef],
    /// Declared columns, then metadata.
    schema: &'a SchemaRef,
    declared: usize,
    metadata: &'a [Metadata],
}

impl Bounds<'_> {
    fn bounds(&self, column: &Column, max: bool) -> Option<ArrayRef> {
        let (index, field) = self.schema.column_with_name(&column.name)?;
        let values: Int64Array = match index.checked_sub(self.declared) {
            Some(metadata) => {
                let metadata = *self.metadata.get(metadata)?;
                self.frames.iter().map(|frame| metadata_bound(frame, metadata, max)).collect()
            }
            None => self.frames.iter().map(|frame| column_bound(frame, index, max)).collect(),
        };
        if values.null_count() == values.len() {
            return None;
        }
        let values: ArrayRef = Arc::new(values);
        match field.data_type() {
            DataType::Date32 => cast(&cast(&values, &DataType::Int32).ok()?, &DataType::Date32).ok(),
            other => cast(&values, other).ok(),
        }
    }
}

fn metadata_bound(frame: &FrameRef, metadata: Metadata, max: bool) -> Option<i64> {
    let value = match metadata {
        Metadata::Partition => i64::from(frame.partition.0),
        Metadata::Offset if max => frame.base_offset.0 as i64 + i64::from(frame.rows) - 1,
        Metadata::Offset => frame.base_offset.0 as i64,
        Metadata::Commit => frame.commit.0 as i64,
        Metadata::IngestTime => frame.ingest_time.0,
        Metadata::Watermark => return frame.watermark.map(|w| w.0),
    };
    Some(value)
}

fn column_bound(frame: &FrameRef, column: usize, max: bool) -> Option<i64> {
    let ranges = frame.ranges.as_deref()?;
    let at = ranges.binary_search_by_key(&(column as u32), |range| range.column).ok()?;
    Some(if max { ranges[at].max } else { ranges[at].min })
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, true)
    }

    fn num_containers(&self) -> usize {
        self.frames.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    #[allow(clippy::mutable_key_type, reason = "the trait's own signature")]
    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
