//! SESSION as window functions, for DataFusion to execute.
//!
//! A row begins a session if the one before it is more than the gap away, and ends one likewise. The start of its session
//! is then the latest beginning up to it, and the end the next ending from it on, and the gap.

use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::{Column, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, lit, when,
};
use millpond_functions::Registry;

use crate::names;
use crate::window::{WINDOW_END, WINDOW_START, WindowTvf};

pub(crate) fn in_batch(window: &WindowTvf, gap_us: i64) -> Result<LogicalPlan> {
    let time = window.time_column().clone();
    let gap = IntervalMonthDayNano::new(0, 0, gap_us.saturating_mul(1_000));
    let later = |time: Expr| time + lit(ScalarValue::IntervalMonthDayNano(Some(gap)));
    let columns = || window.input().schema().columns().into_iter().map(Expr::Column);
    let named = |name: &str| names::distinct(name, 1);
    let of = |name: &str| Expr::Column(Column::new_unqualified(named(name)));
    let neighbour = |name: &str| -> Result<Expr> {
        let Some(function) = Registry::global().window(name) else {
            return internal_err!("there is no {name}");
        };
        let whole = (WindowFrameBound::Preceding(ScalarValue::UInt64(None)), WindowFrameBound::CurrentRow);
        let function = WindowFunctionDefinition::WindowUDF(function);
        Ok(over(window, function, time.clone(), WindowFrameUnits::Rows, whole).alias(named(name)))
    };
    let plan = LogicalPlanBuilder::from(Arc::clone(window.input()))
        .filter(time.clone().is_not_null())?
        .window([neighbour("lag")?, neighbour("lead")?])?;
    let apart = |earlier: Expr, after: Expr| later(earlier).lt(after);
    let begins = of("lag").is_null().or(apart(of("lag"), time.clone()));
    let ends = of("lead").is_null().or(apart(time.clone(), of("lead")));
    let plan = plan.project(columns().chain([
        when(begins, time.clone()).end()?.alias(named("begins")),
        when(ends, time.clone()).end()?.alias(named("ends")),
    ]))?;
    let extreme = |name: &str, argument: &str, frame| -> Result<Expr> {
        let Some(function) = Registry::global().aggregate(name) else {
            return internal_err!("there is no {name}");
        };
        let function = WindowFunctionDefinition::AggregateUDF(function);
        // With all rows of the same time: which of them was the first or the last is forgotten between the two passes.
        Ok(over(window, function, of(argument), WindowFrameUnits::Range, frame).alias(named(name)))
    };
    let so_far = (WindowFrameBound::Preceding(ScalarValue::UInt64(None)), WindowFrameBound::CurrentRow);
    let from_here = (WindowFrameBound::CurrentRow, WindowFrameBound::Following(ScalarValue::UInt64(None)));
    plan.window([extreme("max", "begins", so_far)?, extreme("min", "ends", from_here)?])?
        .project(columns().chain([of("max").alias(WINDOW_START), later(of("min")).alias(WINDOW_END)]))?
        .build()
}

/// A function over the rows of a partition in the order of their times.
fn over(
    window: &WindowTvf,
    function: WindowFunctionDefinition,
    argument: Expr,
    units: WindowFrameUnits,
    (start, end): (WindowFrameBound, WindowFrameBound),
) -> Expr {
    let mut call = WindowFunction::new(function, vec![argument]);
    call.params.partition_by = window.partition().to_vec();
    call.params.order_by = vec![window.time_column().clone().sort(true, false)];
    call.params.window_frame = WindowFrame::new_bounds(units, start, end);
    Expr::WindowFunction(Box::new(call))
}
