//! Outer references: what a subquery names of the queries around it.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The column of `schema` that a reference means.
fn place(column: &Column, schema: &DFSchema) -> Option<usize> {
    schema
        .iter()
        .position(|(relation, field)| relation == column.relation.as_ref() && *field.name() == column.name)
}

/// Whether `plan` names anything of a query around it.
pub(super) fn is_free(plan: &LogicalPlan) -> Result<bool> {
    any_reference(plan, &|_| true)
}

/// Whether `plan` names a column of `outer`.
pub(super) fn names(plan: &LogicalPlan, outer: &DFSchema) -> Result<bool> {
    any_reference(plan, &|column| place(column, outer).is_some())
}

fn any_reference(plan: &LogicalPlan, wanted: &dyn Fn(&Column) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                found |= matches!(e, Expr::OuterReferenceColumn(_, column) if wanted(column));
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether `expr`, or a subquery in it, names anything that `wanted` knows: as an outer reference, or outside of subqueries as a
/// column.
pub(super) fn uses(expr: &Expr, wanted: &DFSchema) -> Result<bool> {
    let mut found = false;
    expr.apply(|e| {
        found |= match e {
            Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => place(column, wanted).is_some(),
            _ => match super::expression::subquery(e) {
                Some(subquery) => names(&subquery.subquery, wanted)?,
                None => false,
            },
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The column that a reference means, in the type that the subquery was made for.
fn bound(reference: &Expr, outer: &DFSchema) -> Option<Expr> {
    let Expr::OuterReferenceColumn(field, column) = reference else { return None };
    let found = outer.field(place(column, outer)?);
    let expr = Expr::Column(column.clone());
    if found.data_type() == field.data_type() {
        return Some(expr);
    }
    Some(Expr::Cast(Cast::new(Box::new(expr), field.data_type().clone())))
}

/// `expr` with the references to `outer` as columns of it.
pub(super) fn bind(expr: Expr, outer: &DFSchema) -> Result<Expr> {
    let bound = expr.transform(|e| match bound(&e, outer) {
        Some(column) => Ok(Transformed::new(column, true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(e)),
    });
    bound.map(|t| t.data)
}

/// The columns of `outer` in `expr` as outer references.
pub(super) fn unbind(expr: Expr, outer: &DFSchema) -> Result<Expr> {
    let unbound = expr.transform(|e| {
        let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
        let Some(at) = place(column, outer) else { return Ok(Transformed::no(e)) };
        let (relation, field) = outer.qualified_field(at);
        Ok(Transformed::yes(Expr::OuterReferenceColumn(field.clone(), Column::from((relation, field)))))
    });
    unbound.map(|t| t.data)
}

/// What a subquery needs to know of a row of the outer side.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    /// As the subquery says it: a reference, or a cast of one.
    pub(super) inside: Expr,
    /// The same over the outer side.
    pub(super) outside: Expr,
}

/// The parameters of `plan`, each once.
pub(super) fn parameters(plan: &LogicalPlan, outer: &DFSchema) -> Result<Vec<Parameter>> {
    let mut found: Vec<Parameter> = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if !is_parameter(e, outer) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                if !found.iter().any(|known| known.inside == *e) {
                    found.push(Parameter { inside: e.clone(), outside: bind(e.clone(), outer)? });
                }
                Ok(TreeNodeRecursion::Jump)
            })
        })
    })?;
    Ok(found)
}

fn is_parameter(expr: &Expr, outer: &DFSchema) -> bool {
    match expr {
        Expr::OuterReferenceColumn(_, column) => place(column, outer).is_some(),
        Expr::Cast(cast) => is_parameter(&cast.expr, outer),
        _ => false,
    }
}

/// `expr` with the parameters replaced.
pub(super) fn replace(expr: Expr, parameters: &[Parameter], by: &[Expr]) -> Result<Expr> {
    let replaced = expr.transform_down(|e| match parameters.iter().position(|p| p.inside == e) {
        Some(at) => Ok(Transformed::new(by[at].clone(), true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(e)),
    });
    replaced.map(|t| t.data)
}
