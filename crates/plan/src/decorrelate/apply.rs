//! A subquery joined to the rows that it is asked for.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, ExprSchemable, LogicalPlan, Operator, lit, when,
};
use millpond_functions::Registry;

use super::dependent::{Domain, or_empty, over_nothing, settle_choices};
use super::expression::unsettled;
use super::join::{Keys, join};
use super::reference::{self, Parameter, bind, is_free, parameters};
use super::split::{Split, limits_to, split, substitute};
use super::{Decorrelation, HINT, columns, filter, project, refused};
use crate::names;
use crate::single_row::single_row;
use crate::trace::{Origin, origin};

/// What becomes of an outer row by what the subquery has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is there once per row of the subquery.
    Inner,
    /// The same, and once with NULLs if there is none.
    Left,
    /// It stays if there is a row.
    Semi,
    /// It stays if there is none.
    Anti,
    /// It stays, and is told whether there is one.
    Mark,
}

/// Conditions over the outer side's columns and the subquery's outputs.
pub(super) type On<'a> = &'a dyn Fn(&[Expr]) -> Result<Vec<Expr>>;

pub(super) fn always(_: &[Expr]) -> Result<Vec<Expr>> {
    Ok(Vec::new())
}

impl Decorrelation {
    /// `outer`, whose columns stay as they are, with what the subquery says. The expressions are the subquery's outputs (for a mark:
    /// the mark) over the new plan.
    pub(super) fn apply(
        &mut self,
        outer: LogicalPlan,
        inner: LogicalPlan,
        kind: Kind,
        on: On<'_>,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let split = split(inner)?;
        let schema = Arc::clone(outer.schema());
        if let LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: none }) = &split.core
            && none.fields().is_empty()
        {
            return self.on_one_row(outer, split, &[], &schema, kind, on);
        }
        if let LogicalPlan::Aggregate(aggregate) = &split.core
            && aggregate.group_expr.is_empty()
            && reference::names(&split.core, &schema)?
        {
            let (plan, results) = self.with_totals(outer, aggregate.clone())?;
            return self.on_one_row(plan, split, &results, &schema, kind, on);
        }
        self.on_rows(outer, split, kind, on)
    }

    /// The subquery has one row for each row, unless a condition takes it out.
    fn on_one_row(
        &mut self,
        plan: LogicalPlan,
        split: Split,
        results: &[Expr],
        outer: &DFSchema,
        kind: Kind,
        on: On<'_>,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let Split { core, filters, outputs } = split;
        let here = |e: Expr| bind(substitute(e, core.schema(), results)?, outer);
        let values = outputs.into_iter().map(here).collect::<Result<Vec<_>>>()?;
        let mut conditions = filters.into_iter().map(here).collect::<Result<Vec<_>>>()?;
        conditions.extend(on(&values)?);
        let Some(present) = conjunction(conditions.iter().cloned()) else {
            return match kind {
                Kind::Inner | Kind::Left => Ok((plan, values)),
                Kind::Semi => Ok((plan, Vec::new())),
                Kind::Anti => Ok((filter(vec![lit(false)], plan)?, Vec::new())),
                Kind::Mark => Ok((plan, vec![lit(true)])),
            };
        };
        match kind {
            Kind::Inner => Ok((filter(conditions, plan)?, values)),
            Kind::Semi => Ok((filter(conditions, plan)?, Vec::new())),
            Kind::Anti => Ok((filter(vec![present.is_not_true()], plan)?, Vec::new())),
            Kind::Mark => Ok((plan, vec![present.is_true()])),
            Kind::Left => {
                let values = values.into_iter().map(|value| only_if(present.clone(), value, plan.schema()));
                let values = values.collect::<Result<Vec<_>>>()?;
                Ok((plan, values))
            }
        }
    }

    /// `outer` with the results of an aggregate over the rows that belong to each of its rows.
    fn with_totals(
        &mut self,
        mut outer: LogicalPlan,
        aggregate: Aggregate,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let empty = over_nothing(&aggregate)?;
        let whole = LogicalPlan::Aggregate(aggregate.clone());
        let found = parameters(&whole, outer.schema())?;
        let free = Domain { outer: &outer, parameters: found.clone(), free: true };
        let (grouped, keys, strict) = match self.grouped_by_keys(aggregate.clone(), &free)? {
            Some((plan, keys)) => (plan, keys, true),
            None => {
                let (plan, keys) = self.grouped_for_each_value(&mut outer, aggregate, found.clone())?;
                (plan, keys, false)
            }
        };
        let relation = self.relation();
        let results = grouped.schema().columns().split_off(keys.len());
        let mut outputs = Vec::with_capacity(results.len() + keys.len());
        let mut place = |column: Column, name: String| {
            outputs.push(Expr::Column(column).alias_qualified(Some(relation.clone()), name.as_str()));
            Expr::Column(Column::new(Some(relation.clone()), name))
        };
        let results: Vec<Expr> = results.into_iter().map(|c| place(c, self.name("result"))).collect();
        let pairs =
            found.into_iter().zip(keys).map(|(p, key)| (p.outside, place(key, self.name("key")))).collect();
        let right = project(outputs, grouped)?;
        let plan = join(outer, right, JoinType::Left, Keys { pairs, strict }, Vec::new())?;
        let results = results.into_iter().zip(empty).map(|(result, empty)| or_empty(result, empty));
        let results = results.collect::<Result<Vec<_>>>()?;
        Ok((plan, results))
    }

    fn grouped_for_each_value(
        &mut self,
        outer: &mut LogicalPlan,
        aggregate: Aggregate,
        parameters: Vec<Parameter>,
    ) -> Result<(LogicalPlan, Vec<Column>)> {
        settle_choices(outer)?;
        let domain = Domain { outer, parameters, free: false };
        match self.grouped_by_keys(aggregate, &domain)? {
            Some(grouped) => Ok(grouped),
            None => Err(refused("a subquery of this form", HINT)),
        }
    }

    /// A join of `outer` with the core.
    fn on_rows(
        &mut self,
        mut outer: LogicalPlan,
        split: Split,
        kind: Kind,
        on: On<'_>,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let Split { core, filters, outputs } = split;
        let schema = Arc::clone(core.schema());
        // What names nothing from outside stays on the core.
        let (correlated, own): (Vec<Expr>, Vec<Expr>) = filters.into_iter().partition(Expr::contains_outer);
        let core = filter(own, core)?;
        let (core, _, keys) = self.for_all(&mut outer, core)?;
        let relation = self.relation();
        let mut below: Vec<Expr> = Vec::new();
        let mut place = |expr: Expr, name: String| {
            below.push(expr.alias_qualified(Some(relation.clone()), name.as_str()));
            Expr::Column(Column::new(Some(relation.clone()), name))
        };
        let there: Vec<Expr> = schema
            .columns()
            .into_iter()
            .map(|c| (self.name(names::shown(&c.name)), c))
            .map(|(name, c)| place(Expr::Column(c), name))
            .collect();
        let mut above = Vec::with_capacity(outputs.len());
        for output in outputs {
            above.push(match &output {
                Expr::Column(_) => substitute(output, &schema, &there)?,
                other if other.contains_outer() => {
                    bind(substitute(output, &schema, &there)?, outer.schema())?
                }
                _ => place(output, self.name("c")),
            });
        }
        let pairs = keys.pairs.into_iter().map(|(l, r)| (l, place(r, self.name("key")))).collect();
        let present = place(lit(true), self.name("present"));
        let right = project(below, core)?;
        let here = |e: Expr| bind(substitute(e, &schema, &there)?, outer.schema());
        let mut conditions = correlated.into_iter().map(here).collect::<Result<Vec<_>>>()?;
        conditions.extend(on(&above)?);
        let keys = Keys { pairs, strict: keys.strict };
        let join_type = match kind {
            Kind::Inner => JoinType::Inner,
            Kind::Left => JoinType::Left,
            Kind::Semi => JoinType::LeftSemi,
            Kind::Anti => JoinType::LeftAnti,
            Kind::Mark => JoinType::LeftMark,
        };
        let before = columns(&outer);
        let plan = join(outer, right, join_type, keys, conditions)?;
        match kind {
            Kind::Semi | Kind::Anti => Ok((plan, Vec::new())),
            Kind::Inner => Ok((plan, above)),
            Kind::Mark => {
                let mark = self.column("mark");
                let told = Expr::Column(Column::new(Some(relation), "mark")).alias(mark.name.as_str());
                let plan = project(before.into_iter().chain([told]).collect(), plan)?;
                Ok((plan, vec![Expr::Column(mark)]))
            }
            Kind::Left => {
                let values = above.into_iter().map(|value| match &value {
                    Expr::Column(column) if column.relation.as_ref() == Some(&relation) => Ok(value),
                    _ => only_if(present.clone().is_not_null(), value, plan.schema()),
                });
                let values = values.collect::<Result<Vec<_>>>()?;
                Ok((plan, values))
            }
        }
    }

    /// `outer` with the value of a scalar subquery. More than one row is an error of the rows that ask for it.
    pub(super) fn scalar(&mut self, outer: LogicalPlan, inner: LogicalPlan) -> Result<(LogicalPlan, Expr)> {
        let found = split(inner.clone())?;
        if at_most_one(&found, outer.schema())? {
            let (plan, mut values) = self.apply(outer, inner, Kind::Left, &always)?;
            return match values.pop() {
                Some(value) if values.is_empty() => Ok((plan, value)),
                _ => datafusion::common::internal_err!("a scalar subquery has one column"),
            };
        }
        let mut outer = outer;
        let (rows, keys, strict) = self.for_all(&mut outer, inner.clone())?;
        let (relation, field) = inner.schema().qualified_field(0);
        let value = Expr::Column(Column::from((relation, field)));
        let registry = Registry::global();
        let ordered = !field.data_type().is_nested();
        let (Some(count), Some(any)) =
            (registry.aggregate("count"), registry.aggregate(if ordered { "max" } else { "first_value" }))
        else {
            return datafusion::common::internal_err!("there is no count");
        };
        let sub = self.relation();
        let (rows_name, value_name) = (self.name("rows"), self.name("value"));
        let calls = vec![
            count.call(vec![lit(1i64)]).alias(rows_name.as_str()),
            any.call(vec![value]).alias(value_name.as_str()),
        ];
        let group: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), group, calls)?);
        let mut below = Vec::new();
        let mut place = |column: Column, name: &str| {
            below.push(Expr::Column(column).alias_qualified(Some(sub.clone()), name));
            Expr::Column(Column::new(Some(sub.clone()), name))
        };
        let pairs = strict.pairs.into_iter().zip(keys);
        let pairs: Vec<_> = pairs.map(|((l, _), key)| (l, place(key, &self.name("key")))).collect();
        let count = place(Column::new_unqualified(rows_name.as_str()), &rows_name);
        let value = place(Column::new_unqualified(value_name.as_str()), &value_name);
        let right = project(below, grouped)?;
        let keys = Keys { pairs, strict: strict.strict };
        let plan = join(outer, right, JoinType::Left, keys, Vec::new())?;
        Ok((plan, single_row(count, value, Some(Arc::clone(field)))))
    }

    /// `count(*)` of a subquery that names nothing, of all rows and of those where `column` is NULL.
    pub(super) fn counts(&mut self, inner: LogicalPlan, nulls_only: bool) -> Result<Expr> {
        let Some(count) = Registry::global().aggregate("count") else {
            return datafusion::common::internal_err!("there is no count");
        };
        let inner = match nulls_only {
            true => {
                let column = Expr::Column(Column::from(inner.schema().qualified_field(0)));
                filter(vec![column.is_null()], inner)?
            }
            false => inner,
        };
        debug_assert!(!is_free(&inner)?);
        let name = self.name("count");
        let call = count.call(vec![lit(1i64)]).alias(name.as_str());
        let total = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(inner), Vec::new(), vec![call])?);
        let some = Expr::Column(Column::new_unqualified(name)).gt(lit(0i64)).alias(self.name("exists"));
        Ok(unsettled(project(vec![some], total)?))
    }
}

/// `CASE WHEN present THEN value END`
fn only_if(present: Expr, value: Expr, schema: &DFSchema) -> Result<Expr> {
    let null = ScalarValue::try_from(value.get_type(schema)?)?;
    when(present, value).otherwise(Expr::Literal(null, None))
}

/// Whether a subquery has at most one row for each outer row, as far as planning can tell.
fn at_most_one(split: &Split, outer: &DFSchema) -> Result<bool> {
    let Split { core, filters, .. } = split;
    match core {
        LogicalPlan::EmptyRelation(_) => return Ok(true),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => return Ok(true),
        LogicalPlan::Limit(limit) if limits_to(limit, 1) => return Ok(true),
        _ => {}
    }
    if reference::names(core, outer)? {
        return Ok(false);
    }
    // A relation by its key.
    let mut key: Option<Vec<usize>> = None;
    let mut bound = Vec::new();
    for condition in filters {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { continue };
        for (column, other) in [(left, right), (right, left)] {
            let Expr::Column(column) = column.as_ref() else { continue };
            if other.any_column_refs() || other.is_volatile() {
                continue;
            }
            let at = core.schema().index_of_column(column)?;
            if let Some(Origin::Stored(source, at)) = origin(core, at) {
                bound.push(at);
                key.clone_from(&source.facts().key);
            }
        }
    }
    Ok(key.is_some_and(|key| key.iter().all(|at| bound.contains(at))))
}
