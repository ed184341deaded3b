//! Subqueries in expressions: EXISTS, IN, ANY, ALL and values.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinConstraint, JoinType, NullEquality, Result, ScalarValue, Spans};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, Operator, Subquery, lit, when};

use super::apply::{Kind, always};
use super::dependent::binary;
use super::reference::is_free;
use super::split::existence;
use super::{Decorrelation, HINT, columns, filter, named, project, refused, unmarked};

/// The plan of an expression that is a subquery.
pub(super) fn subquery(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|e| Ok(subquery(e).is_some())).unwrap_or(true)
}

/// A scalar subquery that names nothing: one value for all rows.
pub(super) fn unsettled(plan: LogicalPlan) -> Expr {
    Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns: Vec::new(),
        spans: Spans::new(),
    })
}

/// Whether a subquery is left to whoever runs the plan.
pub(super) fn is_settled(expr: &Expr) -> Result<bool> {
    match expr {
        Expr::ScalarSubquery(subquery) => Ok(!is_free(&subquery.subquery)?),
        other => Ok(subquery(other).is_none()),
    }
}

/// `expr op ANY (subquery)`, `expr op ALL (subquery)`.
struct Comparison {
    expr: Expr,
    op: Operator,
    all: bool,
    plan: LogicalPlan,
}

impl Comparison {
    /// With whether the whole is negated.
    fn of(expr: &Expr) -> Option<(Self, bool)> {
        match expr {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let plan = subquery.subquery.as_ref().clone();
                let (expr, op) = (expr.as_ref().clone(), Operator::Eq);
                Some((Self { expr, op, all: false, plan }, *negated))
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                let plan = subquery.subquery.as_ref().clone();
                let all = *quantifier == SetQuantifier::All;
                let expr = expr.as_ref().clone();
                match (all, op) {
                    // <> ALL is NOT IN.
                    (true, Operator::NotEq) => {
                        Some((Self { expr, op: Operator::Eq, all: false, plan }, true))
                    }
                    _ => Some((Self { expr, op: *op, all, plan }, false)),
                }
            }
            _ => None,
        }
    }

    /// Whether a comparison may be NULL.
    fn nullable(&self, outer: &LogicalPlan) -> Result<bool> {
        Ok(self.expr.nullable(outer.schema())? || self.plan.schema().field(0).is_nullable())
    }
}

fn without_not(expr: Expr) -> (Expr, bool) {
    match expr {
        Expr::Not(inner) => {
            let (expr, negated) = without_not(*inner);
            (expr, !negated)
        }
        other => (other, false),
    }
}

impl Decorrelation {
    /// The rows of `plan` for which the condition is true. It may have columns more than before.
    pub(super) fn keep(&mut self, plan: LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
        let (bare, negated) = without_not(condition.clone());
        if let Expr::Exists(exists) = &bare {
            let inner = existence(exists.subquery.subquery.as_ref().clone());
            if is_free(&inner)? {
                let kind = if exists.negated != negated { Kind::Anti } else { Kind::Semi };
                return Ok(self.apply(plan, inner, kind, &always)?.0);
            }
        }
        if let Some((comparison, turned)) = Comparison::of(&bare) {
            let (plan, expr) = self.settle(plan, comparison.expr.clone())?;
            let comparison = Comparison { expr, ..comparison };
            return self.compare(plan, comparison, turned != negated);
        }
        let (plan, condition) = self.settle(plan, condition)?;
        filter(vec![condition], plan)
    }

    /// A comparison as a semi or anti join.
    fn compare(&mut self, plan: LogicalPlan, comparison: Comparison, negated: bool) -> Result<LogicalPlan> {
        let nullable = comparison.nullable(&plan)?;
        let Comparison { expr, op, all, plan: inner } = comparison;
        let pair = |value: &Expr| binary(expr.clone(), op, value.clone());
        if !all && !negated {
            return Ok(self.apply(plan, inner, Kind::Semi, &|v| Ok(vec![pair(&v[0])]))?.0);
        }
        if all && !negated {
            // True unless some pair is false or unknown.
            return Ok(self.apply(plan, inner, Kind::Anti, &|v| Ok(vec![pair(&v[0]).is_not_true()]))?.0);
        }
        if all {
            return Ok(self.apply(plan, inner, Kind::Semi, &|v| Ok(vec![pair(&v[0]).is_false()]))?.0);
        }
        if !nullable {
            return Ok(self.apply(plan, inner, Kind::Anti, &|v| Ok(vec![pair(&v[0])]))?.0);
        }
        if op == Operator::Eq && !is_free(&inner)? {
            return self.not_in(plan, expr, inner);
        }
        let (left, right) = (expr.nullable(plan.schema())?, inner.schema().field(0).is_nullable());
        let on = |v: &[Expr]| {
            let mut met = pair(&v[0]);
            if left {
                met = met.or(expr.clone().is_null());
            }
            if right {
                met = met.or(v[0].clone().is_null());
            }
            Ok(vec![met])
        };
        Ok(self.apply(plan, inner, Kind::Anti, &on)?.0)
    }

    /// NOT IN of a subquery that names nothing: a join of its own kind.
    fn not_in(&mut self, plan: LogicalPlan, expr: Expr, inner: LogicalPlan) -> Result<LogicalPlan> {
        let relation = self.relation();
        let name = self.name("c");
        let (from, field) = inner.schema().qualified_field(0);
        let column = Expr::Column(datafusion::common::Column::from((from, field)));
        let right = project(vec![column.alias_qualified(Some(relation.clone()), name.as_str())], inner)?;
        let there = Expr::Column(datafusion::common::Column::new(Some(relation), name));
        let join = Join::try_new(
            Arc::new(plan),
            Arc::new(right),
            vec![(expr, there)],
            None,
            JoinType::LeftAnti,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            true,
        )?;
        Ok(LogicalPlan::Join(join))
    }

    /// `expr` with a value in the place of each subquery, over a plan that may have more columns. What is one value for all rows
    /// is left.
    pub(super) fn settle(&mut self, plan: LogicalPlan, expr: Expr) -> Result<(LogicalPlan, Expr)> {
        let (plan, mut exprs) = self.settle_all(plan, vec![expr], false)?;
        match exprs.pop() {
            Some(expr) => Ok((plan, expr)),
            None => datafusion::common::internal_err!("an expression is lost"),
        }
    }

    /// The same for several; with `hoist`, nothing is left.
    pub(super) fn settle_all(
        &mut self,
        plan: LogicalPlan,
        exprs: Vec<Expr>,
        hoist: bool,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let mut plan = plan;
        // The same subquery is asked once.
        let mut known: Vec<(Expr, Expr)> = Vec::new();
        let mut settled = Vec::with_capacity(exprs.len());
        for expr in exprs {
            // From the bottom: what is compared with a subquery may hold one itself.
            let replaced = expr.transform_up(|e| {
                if subquery(&e).is_none() {
                    return Ok(Transformed::no(e));
                }
                if let Some((_, value)) = known.iter().find(|(known, _)| *known == e) {
                    return Ok(Transformed::yes(value.clone()));
                }
                let before = std::mem::replace(&mut plan, nothing());
                let (after, value) = self.value(before, e.clone())?;
                let (after, value) = match hoist && has_subquery(&value) {
                    true => self.hoist(after, value)?,
                    false => (after, value),
                };
                plan = after;
                known.push((e, value.clone()));
                Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
            })?;
            settled.push(replaced.data);
        }
        Ok((plan, settled))
    }

    /// A value for all rows as a column.
    fn hoist(&mut self, plan: LogicalPlan, value: Expr) -> Result<(LogicalPlan, Expr)> {
        let column = self.column("value");
        let mut outputs = columns(&plan);
        outputs.push(value.alias(column.name.as_str()));
        Ok((project(outputs, plan)?, Expr::Column(column)))
    }

    fn value(&mut self, plan: LogicalPlan, expr: Expr) -> Result<(LogicalPlan, Expr)> {
        if let Some((comparison, negated)) = Comparison::of(&expr) {
            let (plan, value) = self.compared(plan, comparison)?;
            return Ok((plan, if negated { !value } else { value }));
        }
        match expr {
            Expr::ScalarSubquery(subquery) => {
                let inner = Arc::unwrap_or_clone(subquery.subquery);
                match is_free(&inner)? {
                    true => self.scalar(plan, inner),
                    false => Ok((plan, unsettled(unmarked(inner)?))),
                }
            }
            Expr::Exists(Exists { subquery, negated }) => {
                let inner = existence(Arc::unwrap_or_clone(subquery.subquery));
                let (plan, value) = match is_free(&inner)? {
                    true => self.mark(plan, inner, &always)?,
                    false => (plan, self.counts(inner, false)?),
                };
                Ok((plan, if negated { !value } else { value }))
            }
            _ => Err(refused("a subquery of this form", HINT)),
        }
    }

    fn mark(
        &mut self,
        plan: LogicalPlan,
        inner: LogicalPlan,
        on: super::apply::On<'_>,
    ) -> Result<(LogicalPlan, Expr)> {
        let (plan, mut values) = self.apply(plan, inner, Kind::Mark, on)?;
        match values.pop() {
            Some(mark) => Ok((plan, mark)),
            None => datafusion::common::internal_err!("a mark is lost"),
        }
    }

    /// ANY is true if some pair is, else NULL if some is; ALL is false if some pair is, else NULL if some is.
    fn compared(&mut self, plan: LogicalPlan, comparison: Comparison) -> Result<(LogicalPlan, Expr)> {
        let nullable = comparison.nullable(&plan)?;
        let Comparison { expr, op, all, plan: inner } = comparison;
        let pair = |value: &Expr| binary(expr.clone(), op, value.clone());
        let decisive = |v: &[Expr]| {
            let pair = pair(&v[0]);
            Ok(vec![if all { pair.is_false() } else { pair }])
        };
        let (plan, decided) = self.mark(plan, inner.clone(), &decisive)?;
        if !nullable {
            return Ok((plan, if all { !decided } else { decided }));
        }
        let (plan, unknown) = if is_free(&inner)? {
            self.mark(plan, inner, &|v| Ok(vec![pair(&v[0]).is_null()]))?
        } else {
            let nulls = self.counts(inner.clone(), true)?;
            let unknown = match expr.nullable(plan.schema())? {
                true => nulls.or(expr.is_null().and(self.counts(inner, false)?)),
                false => nulls,
            };
            (plan, unknown)
        };
        let null = Expr::Literal(ScalarValue::Boolean(None), None);
        let value = when(decided, lit(!all)).when(unknown, null).otherwise(lit(all))?;
        Ok((plan, value))
    }

    /// The columns that `plan` had before others were added.
    pub(super) fn only(before: &datafusion::common::DFSchema, plan: LogicalPlan) -> Result<LogicalPlan> {
        if plan.schema().fields().len() == before.fields().len() {
            return Ok(plan);
        }
        let outputs = before.iter().map(|(relation, field)| {
            let column = datafusion::common::Column::from((relation, field));
            named(Expr::Column(column), relation, field.name())
        });
        project(outputs.collect(), plan)
    }
}

/// EXISTS, IN, ANY or ALL as a condition of its own, which nothing else stands in.
pub(super) fn is_predicate(expr: &Expr) -> bool {
    match expr {
        Expr::Not(inner) => is_predicate(inner),
        Expr::Exists(_) => true,
        Expr::InSubquery(InSubquery { expr, .. }) | Expr::SetComparison(SetComparison { expr, .. }) => {
            !has_subquery(expr)
        }
        _ => false,
    }
}

fn nothing() -> LogicalPlan {
    LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(datafusion::common::DFSchema::empty()),
    })
}
