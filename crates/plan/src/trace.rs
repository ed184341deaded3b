//! Where a column of a logical plan comes from, through plain references only: what decides whether an aggregate
//! or a join closes.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Operator};
use millpond_types::RelationId;

use crate::flat_map::FlatMap;
use crate::rules::without_alias;
use crate::window::WindowTvf;
use crate::{RelationSource, clock};

/// The origin of a column.
pub(crate) enum Origin<'a> {
    /// The start or the end of a window.
    Bound(&'a WindowTvf),
    /// A column of a relation, by its index there.
    Stored(&'a RelationSource, usize),
}

/// The column `at` of `plan`, followed down through projections that only name it, filters and aliases.
pub(crate) fn origin(plan: &LogicalPlan, at: usize) -> Option<Origin<'_>> {
    match plan {
        // A scalar subquery becomes a join, and that ends every watermark.
        LogicalPlan::Projection(projection) if projection.expr.iter().any(has_subquery) => None,
        LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => None,
        // Its rows come and go by another time.
        LogicalPlan::Filter(filter) if clock::asks(&filter.predicate) => None,
        LogicalPlan::Projection(projection) => match without_alias(projection.expr.get(at)?.clone()) {
            Expr::Column(column) => {
                origin(&projection.input, projection.input.schema().index_of_column(&column).ok()?)
            }
            _ => None,
        },
        LogicalPlan::Filter(filter) => origin(&filter.input, at),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, at),
        LogicalPlan::TableScan(scan) => {
            let source = RelationSource::of(&scan.source)?;
            let at = scan.projection.as_ref().map_or(Some(at), |p| p.get(at).copied())?;
            Some(Origin::Stored(source, at))
        }
        other if FlatMap::of(other).is_some() => {
            let map = FlatMap::of(other).filter(|map| !map.sets().iter().any(has_subquery))?;
            origin(map.input(), *map.kept().get(at)?)
        }
        other => {
            // The session of a row changes with other rows.
            let window = WindowTvf::of(other).filter(|window| !window.is_session())?;
            if at < window.input().schema().fields().len() {
                origin(window.input(), at)
            } else {
                Some(Origin::Bound(window))
            }
        }
    }
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_)))).unwrap_or(true)
}

/// The source whose watermark bounds the time of `window`.
pub(crate) fn watermark_of(window: &WindowTvf) -> Option<RelationId> {
    match origin(window.input(), window.time())? {
        Origin::Stored(source, at) if source.facts().metadata && source.facts().watermark == Some(at) => {
            Some(source.facts().id)
        }
        _ => None,
    }
}

/// The window that `aggregate` groups by and whose end its source's watermark passes in time: the aggregate closes by it.
/// An aggregate closes iff one of its group columns is such a window's start or end; of CUMULATE, its end.
pub(crate) fn closing_window(aggregate: &Aggregate) -> Option<(&WindowTvf, RelationId)> {
    aggregate.group_expr.iter().find_map(|expr| match without_alias(expr.clone()) {
        Expr::Column(column) => {
            let at = aggregate.input.schema().index_of_column(&column).ok()?;
            match origin(&aggregate.input, at)? {
                Origin::Bound(window) if window.is_cumulative() && !is_end(expr, &aggregate.input) => None,
                Origin::Bound(window) => watermark_of(window).map(|source| (window, source)),
                Origin::Stored(..) => None,
            }
        }
        _ => None,
    })
}

/// Until when a row of one side of a join may have matches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeBound {
    /// The column of the side that holds the row's time; `None`: the end of its window.
    pub(crate) column: Option<usize>,
    /// The row is late if the watermark of its source has reached its time and this.
    pub(crate) late_us: i64,
    /// It meets only rows that are late if the other's watermark has reached its time and this.
    pub(crate) free_us: i64,
}

/// The bounds of both sides of a join whose condition lets rows meet only within some time: in the same window, or in an
/// interval around the other's time. Both sides come straight from sources with a watermark.
pub(crate) fn join_bounds(join: &Join) -> Option<[TimeBound; 2]> {
    // Rows without a time would meet if NULL equalled NULL.
    if join.null_aware || join.null_equality == NullEquality::NullEqualsNull {
        return None;
    }
    let windows = join.on.iter().any(|(l, r)| {
        let bound = |expr: &Expr, plan| match origin(plan, column_of(expr, plan)?)? {
            // Late rows are told by the last window function on the way.
            Origin::Bound(window)
                if std::ptr::eq(window, last_window(plan)?)
                    && (!window.is_cumulative() || is_end(expr, plan)) =>
            {
                watermark_of(window).map(|_| window.kind())
            }
            _ => None,
        };
        let same_end = |l: &Expr, r: &Expr| is_end(l, &join.left) == is_end(r, &join.right);
        bound(l, &join.left).is_some_and(|kind| Some(kind) == bound(r, &join.right) && same_end(l, r))
    });
    if windows {
        return Some([TimeBound { column: None, late_us: 0, free_us: 0 }; 2]);
    }
    let sides = [join.left.as_ref(), join.right.as_ref()];
    let mut bounds: [Option<TimeBound>; 2] = [None; 2];
    for condition in join.filter.iter().flat_map(split_conjunction) {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { continue };
        let (earlier, later) = match op {
            Operator::LtEq | Operator::Lt => (left, right),
            Operator::GtEq | Operator::Gt => (right, left),
            _ => continue,
        };
        let (Some(earlier), Some(later)) = (event_time(earlier, sides), event_time(later, sides)) else {
            continue;
        };
        // x + p <= y + q: no x after y + (q - p) meets y.
        if earlier.side != later.side {
            let free_us = later.after_us.checked_sub(earlier.after_us)?.checked_add(1)?;
            let bound = &mut bounds[later.side];
            let free_us = bound.map_or(free_us, |known| known.free_us.min(free_us));
            *bound = Some(TimeBound { column: Some(later.column), late_us: 1, free_us });
        }
    }
    let [Some(mut left), Some(mut right)] = bounds else { return None };
    // Where rows of one side count their matches, those that they met outlive them: counts are made again from the rows
    // after a restart. A row of one side has met none of the other that is more than `free_us - 1` ahead of it.
    let (counted_left, counted_right) = match join.join_type {
        JoinType::Inner => (false, false),
        JoinType::Full => (true, true),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
    };
    let both = left.free_us.checked_add(right.free_us)?.checked_sub(1)?;
    if counted_left {
        right.free_us = right.free_us.max(both);
    }
    if counted_right {
        left.free_us = left.free_us.max(both);
    }
    Some([left, right])
}

fn column_of(expr: &Expr, plan: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => plan.schema().index_of_column(column).ok(),
        _ => None,
    }
}

/// The window function that is nearest to the top of `plan`.
fn last_window(plan: &LogicalPlan) -> Option<&WindowTvf> {
    match plan {
        LogicalPlan::Projection(projection) => last_window(&projection.input),
        LogicalPlan::Filter(filter) => last_window(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => last_window(&alias.input),
        other => match FlatMap::of(other) {
            Some(map) => last_window(map.input()),
            None => WindowTvf::of(other),
        },
    }
}

/// Whether a window's bound is its end.
fn is_end(expr: &Expr, plan: &LogicalPlan) -> bool {
    let expr = &without_alias(expr.clone());
    fn end(plan: &LogicalPlan, at: usize) -> Option<bool> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let expr = without_alias(projection.expr.get(at)?.clone());
                end(&projection.input, column_of(&expr, &projection.input)?)
            }
            LogicalPlan::Filter(filter) => end(&filter.input, at),
            LogicalPlan::SubqueryAlias(alias) => end(&alias.input, at),
            other if FlatMap::of(other).is_some() => {
                let map = FlatMap::of(other)?;
                end(map.input(), *map.kept().get(at)?)
            }
            other => Some(at > WindowTvf::of(other)?.input().schema().fields().len()),
        }
    }
    column_of(expr, plan).and_then(|at| end(plan, at)).unwrap_or(false)
}

/// The event time of one side, and some time after it.
struct Shifted {
    side: usize,
    column: usize,
    after_us: i64,
    /// It is a timestamptz.
    zoned: bool,
}

fn event_time(expr: &Expr, sides: [&LogicalPlan; 2]) -> Option<Shifted> {
    let shift = |time: &Expr, by: &Expr, sign: i64| {
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(by)), _) = by else { return None };
        let us = i64::from(by.days).checked_mul(86_400_000_000)?.checked_add(by.nanoseconds / 1_000)?;
        let exact = by.months == 0 && by.nanoseconds % 1_000 == 0;
        // A day of a time zone need not have 24 hours.
        let time = event_time(time, sides).filter(|time| exact && (by.days == 0 || !time.zoned))?;
        Some(Shifted { after_us: time.after_us.checked_add(us.checked_mul(sign)?)?, ..time })
    };
    match expr {
        Expr::Alias(alias) => event_time(&alias.expr, sides),
        Expr::Column(column) => {
            let side = sides.iter().position(|plan| plan.schema().has_column(column))?;
            let at = sides[side].schema().index_of_column(column).ok()?;
            match origin(sides[side], at)? {
                Origin::Stored(source, stored)
                    if source.facts().metadata && source.facts().watermark == Some(stored) =>
                {
                    let zoned = match source.facts().columns.get(stored)?.1.arrow() {
                        DataType::Timestamp(_, zone) => zone.is_some(),
                        _ => return None,
                    };
                    Some(Shifted { side, column: at, after_us: 0, zoned })
                }
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => shift(left, right, 1),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => shift(left, right, -1),
        Expr::ScalarFunction(call) => match (call.func.name(), &call.args[..]) {
            ("checked_add", [time, by]) => shift(time, by, 1),
            ("checked_subtract", [time, by]) => shift(time, by, -1),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `expr` names no column at all.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    let outer = expr.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_))));
    !expr.any_column_refs() && !expr.is_volatile() && !outer.unwrap_or(true)
}
