//! Where subqueries stand: each kind of node with subqueries in its expressions, and joins with LATERAL.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, LogicalPlan, Projection, Sort, Subquery, SubqueryAlias, Window,
    lit,
};

use super::apply::Kind;
use super::expression::{has_subquery, is_predicate, is_settled, subquery};
use super::join::{Keys, join};
use super::reference::{is_free, unbind, uses};
use super::split::substitute;
use super::{Decorrelation, HINT, columns, filter, named, project, refused};
use crate::rules::without_alias;
use crate::{rows, ties};

impl Decorrelation {
    /// A node whose inputs and subqueries are done.
    pub(super) fn node(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = match plan {
            LogicalPlan::Subquery(_) | LogicalPlan::Union(_) | LogicalPlan::TableScan(_) => return Ok(plan),
            other => other.recompute_schema()?,
        };
        if let LogicalPlan::Join(join) = plan {
            return self.join_node(join);
        }
        if !asks(&plan)? {
            return Ok(plan);
        }
        match plan {
            LogicalPlan::Filter(filter) => self.filter_node(filter),
            LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
                let (input, outputs) = self.settle_all(Arc::unwrap_or_clone(input), expr, false)?;
                let outputs = outputs.into_iter().zip(schema.iter());
                let outputs = outputs.map(|(e, (relation, field))| named(e, relation, field.name()));
                project(outputs.collect(), input)
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, schema, .. }) => {
                let groups = group_expr.len();
                let names: Vec<String> =
                    group_expr.iter().chain(&aggr_expr).map(|e| e.schema_name().to_string()).collect();
                let exprs = group_expr.into_iter().chain(aggr_expr).collect();
                let (input, exprs) = self.settle_all(Arc::unwrap_or_clone(input), exprs, true)?;
                let exprs = exprs.into_iter().zip(names).map(|(e, name)| match &e {
                    _ if e.schema_name().to_string() == name => e,
                    _ => without_alias(e).alias(name),
                });
                let mut exprs: Vec<Expr> = exprs.collect();
                let calls = exprs.split_off(groups);
                let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), exprs, calls)?);
                Self::only(&schema, plan)
            }
            LogicalPlan::Sort(sort) => self.sort_node(sort),
            LogicalPlan::Window(Window { input, window_expr, schema }) => {
                let names: Vec<String> = window_expr.iter().map(|e| e.schema_name().to_string()).collect();
                let (input, calls) = self.settle_all(Arc::unwrap_or_clone(input), window_expr, true)?;
                let calls =
                    calls.into_iter().zip(names).map(|(e, name)| without_alias(e).alias(name)).collect();
                let plan = LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?);
                Self::only(&schema, plan)
            }
            on @ LogicalPlan::Distinct(Distinct::On(_)) => {
                let numbered = ties::number_distinct_on(on)?;
                self.plan(numbered)
            }
            LogicalPlan::Limit(_) | LogicalPlan::Values(_) if !is_free(&plan)? && !has_predicates(&plan)? => {
                Ok(plan)
            }
            other => {
                let place = other.display().to_string();
                let place = place.split([':', ' ']).next().unwrap_or_default().to_uppercase();
                Err(refused(&format!("a subquery in {place}"), HINT))
            }
        }
    }

    fn sort_node(&mut self, sort: Sort) -> Result<LogicalPlan> {
        let Sort { expr, input, fetch } = sort;
        let before = Arc::clone(input.schema());
        let mut input = Arc::unwrap_or_clone(input);
        if let LogicalPlan::Projection(projection) = &input {
            // ORDER BY may name what the select list is made of.
            let below = projection.input.schema();
            let mut outputs = projection.expr.clone();
            for (relation, field) in below.iter() {
                let column = DFSchema::new_with_metadata(
                    vec![(relation.cloned(), field.clone())],
                    Default::default(),
                )?;
                let mut asked = false;
                for sort in &expr {
                    asked |= has_subquery(&sort.expr) && uses(&sort.expr, &column)?;
                }
                let column = Expr::from((relation, field));
                if asked && !before.has_column_with_unqualified_name(field.name()) {
                    outputs.push(column);
                }
            }
            if outputs.len() > projection.expr.len() {
                input = project(outputs, projection.input.as_ref().clone())?;
            }
        }
        let keys = expr.iter().map(|sort| sort.expr.clone()).collect();
        let (input, keys) = self.settle_all(input, keys, true)?;
        let expr = keys.into_iter().zip(expr).map(|(e, sort)| e.sort(sort.asc, sort.nulls_first)).collect();
        Self::only(&before, LogicalPlan::Sort(Sort { expr, input: Arc::new(input), fetch }))
    }

    fn filter_node(&mut self, filtered: Filter) -> Result<LogicalPlan> {
        let before = Arc::clone(filtered.input.schema());
        let (asking, plain): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filtered.predicate).into_iter().partition(has_subquery);
        let mut plan = filter(plain, Arc::unwrap_or_clone(filtered.input))?;
        for condition in asking {
            // Beside outer references a value for all rows would come into a join's condition.
            plan = match condition.contains_outer() && !is_predicate(&condition) {
                true => {
                    let (plan, mut settled) = self.settle_all(plan, vec![condition], true)?;
                    filter(std::mem::take(&mut settled), plan)?
                }
                false => self.keep(plan, condition)?,
            };
        }
        Self::only(&before, plan)
    }

    fn join_node(&mut self, joined: Join) -> Result<LogicalPlan> {
        if let Some(right) = lateral(&joined.right)
            && is_free(&right)?
        {
            return self.lateral_join(joined, right);
        }
        let asking = joined.filter.iter().chain(joined.on.iter().flat_map(|(l, r)| [l, r])).any(has_subquery);
        if let LogicalPlan::Subquery(left) = joined.left.as_ref() {
            // What the left side names lies further out.
            let left = Arc::clone(&left.subquery);
            let join = self.join_node(Join { left, ..joined })?;
            return marked(join);
        }
        if !asking {
            return Ok(LogicalPlan::Join(joined));
        }
        let outputs: Vec<Expr> = joined.schema.columns().into_iter().map(Expr::Column).collect();
        let Join {
            left,
            right,
            on,
            filter: condition,
            join_type,
            null_equality,
            schema,
            join_constraint,
            null_aware,
        } = joined;
        let mut conditions: Vec<Expr> = on.into_iter().map(|(l, r)| l.eq(r)).collect();
        conditions.extend(condition.into_iter().flat_map(split_conjunction_owned));
        let (left, right) = (Arc::unwrap_or_clone(left), Arc::unwrap_or_clone(right));
        let _ = (null_equality, join_constraint, null_aware);
        let free = || Keys { pairs: Vec::new(), strict: true };
        match join_type {
            JoinType::Inner => {
                let (asking, plain): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(has_subquery);
                let pairs = join(left, right, JoinType::Inner, free(), plain)?;
                let Some(predicate) = conjunction(asking) else { return Ok(pairs) };
                self.filter_node(Filter::try_new(predicate, Arc::new(pairs))?)
            }
            JoinType::Left => self.outer_join(left, right, conditions, &schema),
            JoinType::Right => {
                let plan = self.outer_join(right, left, conditions, &schema)?;
                project(outputs, plan)
            }
            JoinType::Full => {
                let (mut left, mut right) = (left, right);
                let mut settled = Vec::with_capacity(conditions.len());
                for condition in conditions {
                    if !has_subquery(&condition) {
                        settled.push(condition);
                        continue;
                    }
                    let side = match asked_of(&condition, left.schema(), right.schema())? {
                        (_, false) => &mut left,
                        (false, true) => &mut right,
                        (true, true) => {
                            return Err(refused(
                                "a subquery about both sides in the condition of a FULL JOIN",
                                "Put what it says of one side into a subquery in FROM.",
                            ));
                        }
                    };
                    let plan = side.clone();
                    let (plan, mut value) = self.settle_all(plan, vec![condition], true)?;
                    *side = plan;
                    settled.append(&mut value);
                }
                Self::only(&schema, join(left, right, JoinType::Full, free(), settled)?)
            }
            _ => Err(refused("a subquery in the condition of this join", HINT)),
        }
    }

    /// LEFT JOIN with subqueries in ON.
    fn outer_join(
        &mut self,
        left: LogicalPlan,
        right: LogicalPlan,
        conditions: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<LogicalPlan> {
        let (mut left, mut right) = (left, right);
        let (before_left, before_right) = (Arc::clone(left.schema()), Arc::clone(right.schema()));
        let (mut settled, mut mixed) = (Vec::new(), Vec::new());
        for condition in conditions {
            if !has_subquery(&condition) {
                settled.push(condition);
                continue;
            }
            match asked_of(&condition, &before_left, &before_right)? {
                (true, true) => mixed.push(condition),
                (false, true) if !uses(&condition, &before_left)? => right = self.keep(right, condition)?,
                (false, true) => {
                    let (plan, mut value) = self.settle_all(right, vec![condition], true)?;
                    right = plan;
                    settled.append(&mut value);
                }
                (_, false) => {
                    let (plan, mut value) = self.settle_all(left, vec![condition], true)?;
                    left = plan;
                    settled.append(&mut value);
                }
            }
        }
        let kept = columns_of(schema);
        let plan = match conjunction(mixed) {
            None => join(left, right, JoinType::Left, Keys { pairs: Vec::new(), strict: true }, settled)?,
            Some(mixed) => {
                // As if it were LEFT JOIN LATERAL (SELECT * FROM right WHERE mixed).
                let mixed = unbind(mixed, &before_left)?;
                let names = columns_of(&before_right);
                let inner = self.filter_node(Filter::try_new(mixed, Arc::new(right))?)?;
                return self.lateral_over(left, inner, Kind::Left, settled, names, &before_left);
            }
        };
        project(kept, plan)
    }

    fn lateral_join(&mut self, joined: Join, right: LogicalPlan) -> Result<LogicalPlan> {
        let kind = match joined.join_type {
            JoinType::Inner => Kind::Inner,
            JoinType::Left => Kind::Left,
            other => {
                return Err(refused(
                    &format!("LATERAL on the right of a {other} join"),
                    "Use CROSS JOIN, JOIN or LEFT JOIN.",
                ));
            }
        };
        let names = columns(&right);
        let mut right = right;
        let mut conditions: Vec<Expr> = joined.on.into_iter().map(|(l, r)| l.eq(r)).collect();
        conditions.extend(joined.filter.into_iter().flat_map(split_conjunction_owned));
        let left = Arc::unwrap_or_clone(joined.left);
        let left = match left {
            LogicalPlan::Subquery(left) => Arc::unwrap_or_clone(left.subquery),
            left => left,
        };
        let schema = Arc::clone(left.schema());
        let plan = match conditions.iter().any(has_subquery) {
            false => self.lateral_over(left, right, kind, conditions, names, &schema)?,
            true if kind == Kind::Inner => {
                let plan = self.lateral_over(left, right, kind, Vec::new(), names, &schema)?;
                let predicate = conjunction(conditions).unwrap_or_else(|| lit(true));
                self.filter_node(Filter::try_new(predicate, Arc::new(plan))?)?
            }
            true => {
                // As if it stood in WHERE inside.
                let inside =
                    conditions.into_iter().map(|e| unbind(e, &schema)).collect::<Result<Vec<_>>>()?;
                let predicate = conjunction(inside).unwrap_or_else(|| lit(true));
                right = self.filter_node(Filter::try_new(predicate, Arc::new(right))?)?;
                self.lateral_over(left, right, kind, Vec::new(), names, &schema)?
            }
        };
        marked(plan)
    }

    /// The columns of `before`, then the subquery's under the names that it had in FROM.
    fn lateral_over(
        &mut self,
        left: LogicalPlan,
        right: LogicalPlan,
        kind: Kind,
        conditions: Vec<Expr>,
        names: Vec<Expr>,
        before: &DFSchema,
    ) -> Result<LogicalPlan> {
        let right_schema = Arc::clone(right.schema());
        let left_schema = Arc::clone(left.schema());
        let on = |values: &[Expr]| {
            let both: Vec<Expr> =
                columns_of(&left_schema).into_iter().chain(values.iter().cloned()).collect();
            let schema = left_schema.join(&right_schema)?;
            conditions.iter().map(|e| substitute(e.clone(), &schema, &both)).collect()
        };
        let (plan, values) = self.apply(left, right, kind, &on)?;
        let mut outputs = columns_of(before);
        for (value, name) in values.into_iter().zip(names) {
            let Expr::Column(name) = name else {
                return datafusion::common::internal_err!("a column without a name");
            };
            outputs.push(named(value, name.relation.as_ref(), &name.name));
        }
        project(outputs, plan)
    }
}

fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// The relation behind the marker of LATERAL.
///
/// DataFusion's own is missing where only a subquery further inside names what is outside; [`rows::lateral`] says it in the text.
fn lateral(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(alias) if rows::is_lateral(alias.alias.table()) => Some(plan.clone()),
        LogicalPlan::Projection(projection) => lateral(&projection.input).map(|_| plan.clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let inside = lateral(&alias.input)?;
            let alias = SubqueryAlias::try_new(Arc::new(inside), alias.alias.clone()).ok()?;
            Some(LogicalPlan::SubqueryAlias(alias))
        }
        _ => None,
    }
}

/// What names something further out says so to the join that it is part of.
fn marked(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !is_free(&plan)? {
        return Ok(plan);
    }
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(LogicalPlan::Subquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns,
        spans: datafusion::common::Spans::new(),
    }))
}

/// Whether the subqueries in a condition name anything of the left side, or of the right one.
fn asked_of(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Result<(bool, bool)> {
    let mut about = (false, false);
    condition.apply(|e| {
        if subquery(e).is_none() {
            return Ok(TreeNodeRecursion::Continue);
        }
        about.0 |= uses(e, left)?;
        about.1 |= uses(e, right)?;
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(about)
}

/// Whether an expression of the node has a subquery.
fn asks(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= has_subquery(expr);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether all subqueries of an expression are one value each for all rows.
fn all_settled(expr: &Expr) -> Result<bool> {
    let mut settled = true;
    expr.apply(|e| {
        settled &= is_settled(e)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(settled)
}

fn has_predicates(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= !all_settled(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
