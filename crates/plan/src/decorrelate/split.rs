//! A subquery as its core, and what is done row by row with the core's rows.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Distinct, Expr, FetchType, Limit, LogicalPlan, Projection, SkipType, Sort, SubqueryAlias,
};

use super::expression::has_subquery;
use super::{columns, named, project};
use crate::rules::without_alias;

/// `SELECT outputs FROM core WHERE filters`. Expressions are over the core's columns, and may have outer references.
pub(super) struct Split {
    pub(super) core: LogicalPlan,
    pub(super) filters: Vec<Expr>,
    pub(super) outputs: Vec<Expr>,
}

pub(super) fn split(plan: LogicalPlan) -> Result<Split> {
    match plan {
        LogicalPlan::Projection(projection) if projection.expr.iter().all(may_move) => {
            let schema = Arc::clone(projection.input.schema());
            let mut split = split(Arc::unwrap_or_clone(projection.input))?;
            let outputs = projection.expr.into_iter().map(|e| substitute(e, &schema, &split.outputs));
            split.outputs = outputs.collect::<Result<_>>()?;
            Ok(split)
        }
        LogicalPlan::Filter(filter) => {
            let schema = Arc::clone(filter.input.schema());
            let mut split = split(Arc::unwrap_or_clone(filter.input))?;
            let predicate = substitute(filter.predicate, &schema, &split.outputs)?;
            split.filters.extend(split_conjunction_owned(predicate));
            Ok(split)
        }
        LogicalPlan::SubqueryAlias(alias) => split(Arc::unwrap_or_clone(alias.input)),
        LogicalPlan::Subquery(subquery) => split(Arc::unwrap_or_clone(subquery.subquery)),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => split(Arc::unwrap_or_clone(sort.input)),
        LogicalPlan::Limit(limit) => match limit_below(limit)? {
            limit @ LogicalPlan::Limit(_) => Ok(core(limit)),
            above => split(above),
        },
        other => Ok(core(other)),
    }
}

/// Whether an expression of a row may be computed elsewhere: in a condition of a join, or after a LIMIT.
fn may_move(expr: &Expr) -> bool {
    !expr.is_volatile() && !has_subquery(expr)
}

fn core(plan: LogicalPlan) -> Split {
    Split { outputs: columns(&plan), filters: Vec::new(), core: plan }
}

/// `expr` over a plan's columns, as an expression over what these are made of.
pub(super) fn substitute(expr: Expr, schema: &DFSchema, columns: &[Expr]) -> Result<Expr> {
    let substituted = without_alias(expr).transform_down(|e| match without_alias(e) {
        Expr::Column(column) => {
            let at = schema.index_of_column(&column)?;
            Ok(Transformed::new(columns[at].clone(), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::yes(other)),
    });
    substituted.map(|t| t.data)
}

/// LIMIT of a projection is a projection of LIMIT.
pub(super) fn limit_below(limit: Limit) -> Result<LogicalPlan> {
    let Limit { skip, fetch, input } = limit;
    let again = |input: LogicalPlan| {
        limit_below(Limit { skip: skip.clone(), fetch: fetch.clone(), input: Arc::new(input) })
    };
    match input.as_ref() {
        LogicalPlan::Subquery(subquery) => again(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input: below, schema, .. }) => {
            let limited = again(below.as_ref().clone())?;
            renamed(schema, limited)
        }
        LogicalPlan::Projection(Projection { expr, input: below, .. }) if expr.iter().all(may_move) => {
            project(expr.clone(), again(below.as_ref().clone())?)
        }
        LogicalPlan::Sort(Sort { expr: order, input: sorted, fetch: None }) => match sorted.as_ref() {
            LogicalPlan::Projection(Projection { expr, input: below, .. }) if expr.iter().all(may_move) => {
                let order = order.iter().map(|sort| {
                    let key = substitute(sort.expr.clone(), sorted.schema(), expr).map(without_alias);
                    Ok(key?.sort(sort.asc, sort.nulls_first))
                });
                let order = order.collect::<Result<_>>()?;
                let sort = Sort { expr: order, input: Arc::clone(below), fetch: None };
                project(expr.clone(), again(LogicalPlan::Sort(sort))?)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = columns(&alias.input);
                let order = order.iter().map(|sort| {
                    let key = substitute(sort.expr.clone(), sorted.schema(), &below);
                    Ok(key?.sort(sort.asc, sort.nulls_first))
                });
                let order = order.collect::<Result<_>>()?;
                let sort = Sort { expr: order, input: Arc::clone(&alias.input), fetch: None };
                renamed(&alias.schema, again(LogicalPlan::Sort(sort))?)
            }
            _ => Ok(LogicalPlan::Limit(Limit { skip, fetch, input })),
        },
        _ => Ok(LogicalPlan::Limit(Limit { skip, fetch, input })),
    }
}

/// The columns of `plan`, in order, under the names of `schema`.
pub(super) fn renamed(schema: &DFSchema, plan: LogicalPlan) -> Result<LogicalPlan> {
    let outputs = columns(&plan).into_iter().zip(schema.iter());
    let outputs = outputs.map(|(e, (relation, field))| named(e, relation, field.name())).collect();
    project(outputs, plan)
}

/// Whether a LIMIT lets at most `n` rows through.
pub(super) fn limits_to(limit: &Limit, n: usize) -> bool {
    matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(fetch))) if fetch <= n)
}

/// What says as well whether `plan` has rows.
pub(super) fn existence(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Distinct(Distinct::All(input)) => existence(Arc::unwrap_or_clone(input)),
        LogicalPlan::Sort(sort) => existence(Arc::unwrap_or_clone(sort.input)),
        LogicalPlan::Subquery(subquery) => existence(Arc::unwrap_or_clone(subquery.subquery)),
        LogicalPlan::SubqueryAlias(alias) => existence(Arc::unwrap_or_clone(alias.input)),
        LogicalPlan::Projection(projection) => existence(Arc::unwrap_or_clone(projection.input)),
        LogicalPlan::Aggregate(aggregate)
            if !matches!(aggregate.group_expr[..], [] | [Expr::GroupingSet(_)]) =>
        {
            existence(Arc::unwrap_or_clone(aggregate.input))
        }
        LogicalPlan::Limit(limit) => {
            let none = matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
            let some = match limit.get_fetch_type() {
                Ok(FetchType::Literal(fetch)) => fetch.is_none_or(|n| n > 0),
                _ => false,
            };
            match none && some {
                true => existence(Arc::unwrap_or_clone(limit.input)),
                false => LogicalPlan::Limit(limit),
            }
        }
        other => other,
    }
}
