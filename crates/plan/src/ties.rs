//! One answer where SQL leaves a choice.
//!
//! Which of two rows of equal sort keys comes first is open in SQL; a view must choose, and choose the same whenever it is
//! asked, or it could not be checked. In the query of a view every order that decides something is therefore made total: all
//! other columns that the operator sees are appended, ascending with NULLs last. Rows that are then still equal cannot be
//! told apart. It happens after optimization, so columns that nothing uses do not count. DISTINCT ON becomes a filter
//! on row_number() before it.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::expr_rewriter::{normalize_cols, normalize_sorts};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Sort, SortExpr, Window,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit,
};
use millpond_functions::Registry;
use millpond_functions::error::into_datafusion;
use millpond_types::SqlError;

use crate::incremental::depends_on_order;
use crate::names;
use crate::rules::without_alias;

/// DISTINCT ON as the rows that are first among those of equal values. Before optimization.
pub(crate) fn number_distinct_on(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(on)) => first_rows(on).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|t| t.data)
}

fn first_rows(distinct: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema } = distinct;
    let on = normalize_cols(on_expr, &input)?;
    let outputs = normalize_cols(select_expr, &input)?;
    let mut order = normalize_sorts(sort_expr.unwrap_or_default(), &input)?;
    let call = row_number(on.clone(), order.clone())?;
    let name = names::distinct("row_number", 1);
    let number = Expr::Column(Column::new_unqualified(name.as_str()));
    let call = call.alias(name);
    let window = LogicalPlan::Window(Window::try_new(vec![call], input)?);
    let first = LogicalPlanBuilder::from(window).filter(number.eq(lit(1i64)))?;
    order.truncate(on.len());
    // A LIMIT above counts in this order.
    let first = if order.is_empty() { first } else { first.sort(order)? };
    let outputs = outputs.into_iter().zip(schema.iter()).map(|(expr, (qualifier, field))| {
        without_alias(expr).alias_qualified(qualifier.cloned(), field.name())
    });
    first.project(outputs)?.build()
}

/// `row_number() OVER (PARTITION BY … ORDER BY …)`
pub(crate) fn row_number(partition_by: Vec<Expr>, order_by: Vec<SortExpr>) -> Result<Expr> {
    let Some(function) = Registry::global().window("row_number") else {
        return datafusion::common::internal_err!("there is no row_number");
    };
    let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
    call.params.partition_by = partition_by;
    call.params.order_by = order_by;
    call.params.window_frame = whole();
    Ok(Expr::WindowFunction(Box::new(call)))
}

fn whole() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Following(ScalarValue::UInt64(None)),
    )
}

/// The plan of a view with total orders. After optimization.
///
/// # Errors
/// 0A000 for a window function whose result hangs on the order of equal rows and cannot be pinned down.
pub(crate) fn total_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(mut scan) if scan.fetch.is_some() => {
            // The LIMIT above it takes rows in order.
            scan.fetch = None;
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        LogicalPlan::Sort(mut sort) => {
            extend(&mut sort.expr, &sort.input);
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        }
        LogicalPlan::Limit(limit) => Ok(match limit.input.as_ref() {
            LogicalPlan::Sort(_) => Transformed::no(LogicalPlan::Limit(limit)),
            _ => Transformed::yes(ordered(limit)),
        }),
        LogicalPlan::Window(window) => window_in_order(window).map(Transformed::yes),
        LogicalPlan::Aggregate(aggregate) => aggregate_in_order(aggregate).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|t| t.data)
}

/// Functions of rows in order: what ORDER BY leaves open, their arguments decide. Rows equal in both cannot be told apart.
fn aggregate_in_order(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let in_order = |expr: Expr| {
        let name = expr.schema_name().to_string();
        match without_alias(expr.clone()) {
            Expr::AggregateFunction(mut call) if depends_on_order(call.func.name()) => {
                let arguments = call.params.args.iter().filter(|e| !matches!(e, Expr::Literal(..)));
                for argument in arguments {
                    if !call.params.order_by.iter().any(|sort| sort.expr == *argument) {
                        call.params.order_by.push(argument.clone().sort(true, false));
                    }
                }
                Expr::AggregateFunction(call).alias(name)
            }
            _ => expr,
        }
    };
    let calls = aggr_expr.into_iter().map(in_order).collect();
    Ok(LogicalPlan::Aggregate(Aggregate::try_new_with_schema(input, group_expr, calls, schema)?))
}

fn extend(order: &mut Vec<SortExpr>, input: &LogicalPlan) {
    for column in input.schema().columns() {
        let column = Expr::Column(column);
        if !order.iter().any(|sort| sort.expr == column) {
            order.push(column.sort(true, false));
        }
    }
}

/// LIMIT without ORDER BY: any rows would do.
fn ordered(limit: Limit) -> LogicalPlan {
    let mut expr = Vec::new();
    extend(&mut expr, &limit.input);
    let sort = LogicalPlan::Sort(Sort { expr, input: limit.input, fetch: None });
    LogicalPlan::Limit(Limit { input: Arc::new(sort), ..limit })
}

fn window_in_order(window: Window) -> Result<LogicalPlan> {
    let columns = window.schema.columns();
    let (mut as_is, mut extended) = (Vec::new(), Vec::new());
    for expr in window.window_expr {
        let name = expr.schema_name().to_string();
        match in_order(without_alias(expr.clone()), &window.input).map_err(into_datafusion)? {
            None => as_is.push(expr),
            Some(call) => extended.push(call.alias(name)),
        }
    }
    // Functions of one node share one order.
    let split = !as_is.is_empty() && !extended.is_empty();
    let mut plan = window.input;
    for calls in [as_is, extended] {
        if !calls.is_empty() {
            plan = Arc::new(LogicalPlan::Window(Window::try_new(calls, plan)?));
        }
    }
    let plan = Arc::unwrap_or_clone(plan);
    if !split {
        return Ok(plan);
    }
    LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build()
}

/// The call with a total order, or `None` where its result does not depend on the order of peers.
fn in_order(expr: Expr, input: &LogicalPlan) -> std::result::Result<Option<Expr>, SqlError> {
    let Expr::WindowFunction(mut call) = expr else {
        return Err(SqlError::internal(format!("{expr} is no window function")));
    };
    if matches!(call.params.null_treatment, Some(NullTreatment::IgnoreNulls)) {
        return Err(SqlError::unsupported("IGNORE NULLS in a materialized view is not supported")
            .hint("Filter the NULLs out in a subquery."));
    }
    let frame = &call.params.window_frame;
    let from_first = frame.start_bound.is_unbounded();
    let to_last = frame.end_bound.is_unbounded();
    let rows = frame.units == WindowFrameUnits::Rows;
    let up_to_row = !matches!(frame.end_bound, WindowFrameBound::Preceding(_));
    let from_row = !matches!(frame.start_bound, WindowFrameBound::Following(_));
    let aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
    let name = call.fun.name().to_lowercase();
    let frame = match name.as_str() {
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" => return Ok(None),
        "row_number" | "ntile" | "lag" | "lead" => frame.clone(),
        "first_value" if from_first && up_to_row => rows_frame(true, to_last),
        "last_value" if to_last && from_row => rows_frame(from_first, true),
        "first_value" | "last_value" | "nth_value" if from_first && to_last => whole(),
        _ if rows && !(aggregate && from_first && to_last) => frame.clone(),
        "first_value" | "last_value" | "nth_value" => {
            return Err(SqlError::unsupported(format!(
                "{name} over a frame of peers in a materialized view is not supported"
            ))
            .hint("Give a frame in ROWS, such as ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW."));
        }
        name if aggregate && depends_on_order(name) => match from_first && to_last {
            true => whole(),
            false => {
                return Err(SqlError::unsupported(format!(
                    "{name} over a frame of peers in a materialized view is not supported"
                ))
                .hint("Give a frame in ROWS, such as ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW."));
            }
        },
        _ => return Ok(None),
    };
    let partition = call.params.partition_by.clone();
    extend(&mut call.params.order_by, input);
    // What the partition says already orders nothing, unless nothing else is there.
    if call.params.order_by.iter().any(|sort| !partition.contains(&sort.expr)) {
        call.params.order_by.retain(|sort| !partition.contains(&sort.expr));
    }
    call.params.window_frame = frame;
    Ok(Some(Expr::WindowFunction(call)))
}

fn rows_frame(from_first: bool, to_last: bool) -> WindowFrame {
    let start = match from_first {
        true => WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        false => WindowFrameBound::CurrentRow,
    };
    let end = match to_last {
        true => WindowFrameBound::Following(ScalarValue::UInt64(None)),
        false => WindowFrameBound::CurrentRow,
    };
    WindowFrame::new_bounds(WindowFrameUnits::Rows, start, end)
}
