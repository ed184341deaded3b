//! Rewrites that make a plan executable by DataFusion.

use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    self as logical, Expr, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, TableScan, TableScanBuilder,
    TableSource, lit,
};
use millpond_functions::Registry;
use millpond_functions::aggregate::recomputed::{Recomputed, grows, slides};
use millpond_functions::error::{from_datafusion, into_datafusion};
use millpond_types::SqlError;

use crate::asof::AsofJoin;
use crate::flat_map::FlatMap;
use crate::set_operation::SetOperation;
use crate::window::{WINDOW_END, WINDOW_START, WindowKind, WindowTvf};
use crate::{Metadata, RelationSource, names, session, trace};

/// Replaces each [`WindowTvf`] by projections (TUMBLE), an unnest (HOP, CUMULATE) of scalar functions or [`session`]s, and INTERSECT and EXCEPT by
/// counts of both sides. The result needs no more
/// rules: the engine gives it to DataFusion's physical planner as it is.
///
/// # Errors
/// XX000 only.
pub fn batch(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        if let Some(join) = AsofJoin::of_plan(&plan) {
            return join.in_batch().map(Transformed::yes);
        }
        if let LogicalPlan::Window(window) = plan {
            return over_frames(window).map(Transformed::yes);
        }
        match (WindowTvf::of(&plan), SetOperation::of_plan(&plan)) {
            (Some(window), _) => window_in_batch(window).map(Transformed::yes),
            (None, Some(set)) => set.in_batch().map(Transformed::yes),
            (None, None) => Ok(Transformed::no(plan)),
        }
    });
    rewritten.map(|t| t.data).map_err(from_datafusion)
}

/// DataFusion slides frames only with accumulators that take rows back, and asks any of them for each row.
fn over_frames(window: logical::Window) -> Result<LogicalPlan> {
    let logical::Window { input, window_expr, .. } = window;
    let calls = window_expr.into_iter().map(|expr| {
        let expr = expr.transform_down(|expr| match expr {
            Expr::WindowFunction(mut call) => {
                if let logical::WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                    let sliding = !call.params.window_frame.start_bound.is_unbounded();
                    let name = function.name();
                    if !slides(name) && (sliding || !grows(name)) {
                        let recomputed = Recomputed::over(Arc::clone(function));
                        call.fun = logical::WindowFunctionDefinition::AggregateUDF(Arc::new(
                            logical::AggregateUDF::new_from_impl(recomputed),
                        ));
                        return Ok(Transformed::yes(Expr::WindowFunction(call)));
                    }
                }
                Ok(Transformed::no(Expr::WindowFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        });
        expr.map(|expr| expr.data)
    });
    Ok(LogicalPlan::Window(logical::Window::try_new(calls.collect::<Result<_>>()?, input)?))
}

fn window_in_batch(window: &WindowTvf) -> Result<LogicalPlan> {
    let input = window.input();
    let (qualifier, field) = input.schema().qualified_field(window.time());
    let time = Expr::from((qualifier, field));
    let columns = || input.schema().columns().into_iter().map(Expr::Column);
    let plan = LogicalPlanBuilder::from(Arc::clone(input)).filter(time.clone().is_not_null())?;
    let start = Expr::Column(Column::new_unqualified(WINDOW_START));
    let (starts, ends, sizes) = match window.kind() {
        WindowKind::Tumble { size, offset } => ("tumble_start", "tumble_end", vec![size, offset]),
        WindowKind::Hop { slide, size, offset } => ("hop_starts", "hop_end", vec![slide, size, offset]),
        WindowKind::Cumulate { step, size, offset } => {
            let sizes = [step, size, offset];
            let ends = call("cumulate_ends", time, &sizes)?.alias(WINDOW_END);
            let end = Expr::Column(Column::new_unqualified(WINDOW_END));
            let start = call("cumulate_start", end.clone(), &sizes)?.alias(WINDOW_START);
            return plan
                .project(columns().chain([ends]))?
                .unnest_column(Column::new_unqualified(WINDOW_END))?
                .project(columns().chain([start, end]))?
                .build();
        }
        WindowKind::Session { gap_us } => return session::in_batch(window, gap_us),
    };
    let plan = plan.project(columns().chain([call(starts, time, &sizes)?.alias(WINDOW_START)]))?;
    let plan = match window.kind() {
        WindowKind::Hop { .. } => plan.unnest_column(Column::new_unqualified(WINDOW_START))?,
        _ => plan,
    };
    let end = call(ends, start.clone(), &sizes)?.alias(WINDOW_END);
    plan.project(columns().chain([start, end]))?.build()
}

fn call(name: &str, time: Expr, sizes: &[IntervalMonthDayNano]) -> Result<Expr> {
    let Some(function) = Registry::global().scalar(name) else {
        return internal_err!("there is no function {name}");
    };
    let sizes = sizes.iter().map(|size| lit(ScalarValue::IntervalMonthDayNano(Some(*size))));
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, std::iter::once(time).chain(sizes).collect())))
}

/// The plan of a view without the rows that the view's operators refuse as late: above each window function whose
/// aggregate closes by time, a filter `_watermark IS NULL OR window_end + lateness > _watermark`. Its sources scan
/// [`Metadata::Watermark`]. Apply before [`batch`].
///
/// # Errors
/// XX000 only.
pub fn without_late_rows(plan: LogicalPlan, allowed_lateness_us: i64) -> Result<LogicalPlan, SqlError> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) if trace::closing_window(&aggregate).is_some() => {
            let below = aggregate.input.as_ref().clone();
            let input = Arc::new(filter_below(below, allowed_lateness_us)?);
            let logical::Aggregate { group_expr, aggr_expr, schema, .. } = aggregate;
            let aggregate = logical::Aggregate::try_new_with_schema(input, group_expr, aggr_expr, schema)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        LogicalPlan::Join(join) if trace::join_bounds(&join).is_some() => {
            let bounds = trace::join_bounds(&join).expect("just seen");
            let timely = |side: &LogicalPlan, bound: trace::TimeBound| match bound.column {
                None => filter_below(side.clone(), allowed_lateness_us),
                Some(column) => keep_timely_rows(side, column, bound.late_us + allowed_lateness_us),
            };
            let left = Arc::new(timely(&join.left, bounds[0])?);
            let right = Arc::new(timely(&join.right, bounds[1])?);
            Ok(Transformed::yes(LogicalPlan::Join(logical::Join { left, right, ..join })))
        }
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|t| t.data).map_err(from_datafusion)
}

/// The rows whose time and `after_us` their own watermark has not reached.
fn keep_timely_rows(plan: &LogicalPlan, time: usize, after_us: i64) -> Result<LogicalPlan> {
    let outputs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let after = IntervalMonthDayNano::new(0, 0, after_us.saturating_mul(1_000));
    let over = outputs[time].clone() + lit(ScalarValue::IntervalMonthDayNano(Some(after)));
    let (plan, watermark) = with_watermark(plan)?;
    let watermark = Expr::Column(watermark);
    // A row without a time is not late.
    let timely = watermark.clone().is_null().or(outputs[time].clone().is_null()).or(over.gt(watermark));
    LogicalPlanBuilder::from(plan).filter(timely)?.project(outputs)?.build()
}

/// The input of an aggregate that closes: the filter goes above its window function; the way there is one of projections,
/// filters and aliases, as [`trace::origin`] went it.
fn filter_below(plan: LogicalPlan, lateness_us: i64) -> Result<LogicalPlan> {
    let mut done = false;
    plan.transform_down(|plan| match WindowTvf::of(&plan) {
        Some(window) if !done => {
            done = true;
            let plan = keep_timely(window, lateness_us)?;
            Ok(Transformed::new(plan, true, datafusion::common::tree_node::TreeNodeRecursion::Stop))
        }
        _ => Ok(Transformed::no(plan)),
    })
    .map(|t| t.data)
}

fn keep_timely(window: &WindowTvf, lateness_us: i64) -> Result<LogicalPlan> {
    let outputs = window.schema_columns();
    let (input, watermark) = with_watermark(window.input())?;
    let plan = window.over(input)?.into_plan();
    let end = Expr::Column(Column::new_unqualified(WINDOW_END));
    let closed = match lateness_us {
        0 => end,
        us => {
            end + lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
                0,
                0,
                us.saturating_mul(1_000),
            ))))
        }
    };
    let watermark = Expr::Column(watermark);
    let timely = watermark.clone().is_null().or(closed.gt(watermark));
    LogicalPlanBuilder::from(plan).filter(timely)?.project(outputs)?.build()
}

/// `plan` with the rows' watermark among its columns.
fn with_watermark(plan: &LogicalPlan) -> Result<(LogicalPlan, Column)> {
    match plan {
        LogicalPlan::TableScan(scan) => scan_with_watermark(scan),
        LogicalPlan::Filter(filter) => {
            let (input, watermark) = with_watermark(&filter.input)?;
            Ok((LogicalPlanBuilder::from(input).filter(filter.predicate.clone())?.build()?, watermark))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, watermark) = with_watermark(&alias.input)?;
            let plan = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            Ok((LogicalPlan::SubqueryAlias(plan), Column::new(Some(alias.alias.clone()), watermark.name)))
        }
        LogicalPlan::Projection(projection) => {
            let (input, watermark) = with_watermark(&projection.input)?;
            // A name of its own, for the query may have used `_watermark`.
            let name = names::distinct(Metadata::Watermark.name(), 0);
            let carried = Expr::Column(watermark).alias(name.as_str());
            let plan =
                LogicalPlanBuilder::from(input).project(projection.expr.iter().cloned().chain([carried]))?;
            Ok((plan.build()?, Column::new_unqualified(name)))
        }
        other if FlatMap::of(other).is_some() => {
            let Some(map) = FlatMap::of(other) else { return internal_err!("it was just there") };
            let (input, watermark) = with_watermark(map.input())?;
            let plan = map.carrying(input, watermark.clone())?.into_plan();
            Ok((plan, watermark))
        }
        other => match WindowTvf::of(other) {
            Some(window) => {
                let (input, watermark) = with_watermark(window.input())?;
                Ok((window.over(input)?.into_plan(), watermark))
            }
            None => internal_err!("no watermark comes through {}", other.display()),
        },
    }
}

fn scan_with_watermark(scan: &TableScan) -> Result<(LogicalPlan, Column)> {
    let Some(source) = RelationSource::of(&scan.source) else {
        return internal_err!("{} has no watermark", scan.table_name);
    };
    let (source, at) = source.with_metadata(Metadata::Watermark);
    let mut projection = match &scan.projection {
        Some(projection) => projection.clone(),
        None => (0..scan.source.schema().fields().len()).collect(),
    };
    if !projection.contains(&at) {
        projection.push(at);
    }
    let widened = TableScanBuilder::new(scan.table_name.clone(), Arc::new(source))
        .with_projection(Some(projection))
        .with_filters(scan.filters.clone())
        .with_fetch(scan.fetch)
        .build()?;
    Ok((
        LogicalPlan::TableScan(widened),
        Column::new(Some(scan.table_name.clone()), Metadata::Watermark.name()),
    ))
}

/// Supplies what stands for a relation when a plan is executed.
pub type Provide<'a> = dyn FnMut(&RelationSource) -> Result<Arc<dyn TableSource>, SqlError> + 'a;

/// Puts `provide`'s source in the place of each [`RelationSource`] (subqueries included). The new source has the same
/// schema; use DataFusion's `provider_as_source`.
///
/// # Errors
/// Those of `provide`.
pub fn replace_relations(plan: LogicalPlan, provide: &mut Provide<'_>) -> Result<LogicalPlan, SqlError> {
    let replaced: Result<_, DataFusionError> = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(scan) => match RelationSource::of(&scan.source) {
            Some(relation) => {
                let source = provide(relation).map_err(into_datafusion)?;
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    });
    replaced.map(|t| t.data).map_err(from_datafusion)
}
