//! Subqueries and LATERAL as joins: the same for a one-off SELECT and for a view.
//!
//! After Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW 2015). A subquery is a function of the row around it; what of that
//! row it names are its *parameters*. [`apply`] takes as much of it as works row by row (projections, conditions) above a
//! join of the outer side with the rest, the *core*. A core that names parameters itself is computed for all their values at
//! once ([`dependent`]): aggregates group by them, LIMIT and windows are partitioned by them, and so on. Where the subquery says
//! `column = parameter`, that column stands for the parameter; otherwise the distinct values of the outer side do, and the
//! join with them is null-safe. [`expression`] puts EXISTS, IN, ANY, ALL and scalar subqueries wherever an expression may
//! stand.
//!
//! Nodes are visited from the bottom, so a subquery that is looked at has none in itself that names anything of it. What it
//! names further out stays an outer reference until that query is reached. The marker [`LogicalPlan::Subquery`] stays around
//! what a LATERAL names beyond its neighbour in FROM. Scalar subqueries that name nothing are left: they are one value.
//!
//! It stands between analysis and optimization. The types of outer references are from before analysis; where analysis
//! gave a column another one, the reference is cast.

mod apply;
mod dependent;
mod expression;
mod join;
mod node;
mod reference;
mod split;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result, TableReference};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};
use millpond_functions::error::into_datafusion;
use millpond_types::SqlError;

use crate::names;

/// A plan without subqueries but scalar ones that name nothing from outside.
///
/// # Errors
/// 0A000 where a subquery stands in, or holds, what cannot be a join.
pub(crate) fn decorrelate(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_subqueries(&plan)? {
        return Ok(plan);
    }
    let mut decorrelation = Decorrelation::default();
    let plan = decorrelation.plan(plan)?;
    if reference::is_free(&plan)? {
        return Err(refused("a subquery that names columns from outside here", HINT));
    }
    unmarked(plan)
}

/// Without the markers of LATERAL, when all that they stand for is done.
fn unmarked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Subquery(subquery) => {
            Ok(Transformed::yes(std::sync::Arc::unwrap_or_clone(subquery.subquery)))
        }
        other => Ok(Transformed::no(other)),
    });
    plan.map(|t| t.data)
}

const HINT: &str = "Use it in the select list, in WHERE, HAVING or ON, or as a LATERAL relation.";

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= expression::has_subquery(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn refused(what: &str, hint: &str) -> DataFusionError {
    into_datafusion(SqlError::unsupported(format!("{what} is not supported")).hint(hint))
}

/// Gives the names of what is added to a plan; they are the same whenever the plan is made again.
#[derive(Default)]
struct Decorrelation {
    names: usize,
}

impl Decorrelation {
    fn plan(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| self.node(node).map(Transformed::yes));
        plan.map(|t| t.data)
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        names::distinct(what, self.names)
    }

    fn column(&mut self, what: &str) -> Column {
        Column::new_unqualified(self.name(what))
    }

    fn relation(&mut self) -> TableReference {
        TableReference::bare(self.name("subquery"))
    }
}

/// The columns of a plan, as expressions.
fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn project(exprs: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, std::sync::Arc::new(input))?))
}

fn filter(conditions: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    match datafusion::logical_expr::utils::conjunction(conditions) {
        None => Ok(input),
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, std::sync::Arc::new(input))?)),
    }
}

/// `expr` under the name of a field.
fn named(expr: Expr, relation: Option<&TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation.as_ref() == relation && column.name == name => expr,
        _ => crate::rules::without_alias(expr).alias_qualified(relation.cloned(), name),
    }
}
