//! Where a column of a logical plan comes from, through plain references only: what decides whether an aggregate closes.

use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use millpond_types::RelationId;

use crate::RelationSource;
use crate::rules::without_alias;
use crate::window::WindowTvf;

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
        other => {
            let window = WindowTvf::of(other)?;
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
/// An aggregate closes iff one of its group columns is such a window's start or end.
pub(crate) fn closing_window(aggregate: &Aggregate) -> Option<(&WindowTvf, RelationId)> {
    aggregate.group_expr.iter().find_map(|expr| match without_alias(expr.clone()) {
        Expr::Column(column) => {
            let at = aggregate.input.schema().index_of_column(&column).ok()?;
            match origin(&aggregate.input, at)? {
                Origin::Bound(window) => watermark_of(window).map(|source| (window, source)),
                Origin::Stored(..) => None,
            }
        }
        _ => None,
    })
}

/// Whether `expr` names no column at all.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    let outer = expr.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_))));
    !expr.any_column_refs() && !expr.is_volatile() && !outer.unwrap_or(true)
}
