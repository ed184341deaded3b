//! A plan that names parameters, computed for all their values at once.
//!
//! The result has the plan's columns and one column per parameter, its *key*; the rows with certain keys are the plan's rows for
//! these values. Values come either from the domain, the distinct ones of the outer side, or (`free`) from columns that
//! the plan itself says are equal to the parameters. Then there are rows for keys that no outer row asks for, and none for
//! NULL; what needs a row for each value, or the same key on two sides, is not possible so.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Aggregate, Distinct, EmptyRelation, Expr, Extension, Filter, Join, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, Projection, Sort, Unnest, Values, Window, lit, when,
};

use super::join::{Keys, join};
use super::reference::{Parameter, names, parameters, replace};
use super::split::limit_below;
use super::{Decorrelation, columns, filter, named, project, refused};
use crate::rules::without_alias;
use crate::set_operation::SetOperation;
use crate::window::WindowTvf;
use crate::{grouping_sets, ties};

/// A plan for all values of its parameters.
pub(super) struct Dependent {
    pub(super) plan: LogicalPlan,
    /// A column per parameter.
    pub(super) keys: Vec<Column>,
}

impl Dependent {
    fn keys(&self) -> Vec<Expr> {
        self.keys.iter().cloned().map(Expr::Column).collect()
    }
}

/// The parameters of one subquery, and where their values come from.
pub(super) struct Domain<'a> {
    pub(super) outer: &'a LogicalPlan,
    pub(super) parameters: Vec<Parameter>,
    /// Columns of the plan stand for the parameters.
    pub(super) free: bool,
}

impl Decorrelation {
    /// `inner` for all rows of `outer`, and the expressions of `outer` that the keys belong to.
    pub(super) fn for_all(
        &mut self,
        outer: &mut LogicalPlan,
        inner: LogicalPlan,
    ) -> Result<(LogicalPlan, Vec<Column>, Keys)> {
        let parameters = parameters(&inner, outer.schema())?;
        let pairs = |keys: &[Column]| {
            let inside = keys.iter().cloned().map(Expr::Column);
            parameters.iter().map(|p| p.outside.clone()).zip(inside).collect()
        };
        if parameters.is_empty() {
            return Ok((inner, Vec::new(), Keys { pairs: Vec::new(), strict: true }));
        }
        let free = Domain { outer, parameters: parameters.clone(), free: true };
        if let Some(Dependent { plan, keys }) = self.dependent(inner.clone(), &free)? {
            let pairs = pairs(&keys);
            return Ok((plan, keys, Keys { pairs, strict: true }));
        }
        settle_choices(outer)?;
        let domain = Domain { outer, parameters: parameters.clone(), free: false };
        match self.dependent(inner, &domain)? {
            Some(Dependent { plan, keys }) => {
                let pairs = pairs(&keys);
                Ok((plan, keys, Keys { pairs, strict: false }))
            }
            None => Err(refused("a subquery of this form", super::HINT)),
        }
    }

    /// `None` only where the domain is needed.
    fn dependent(&mut self, plan: LogicalPlan, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        if !names(&plan, domain.outer.schema())? {
            return match domain.free {
                true => Ok(None),
                false => self.for_each_value(plan, domain).map(Some),
            };
        }
        match plan {
            LogicalPlan::Projection(projection) => self.projection(projection, domain),
            LogicalPlan::Filter(filter) => self.filter(filter, domain),
            LogicalPlan::SubqueryAlias(alias) => {
                let outputs = columns(&alias.input).into_iter().zip(alias.schema.iter());
                let outputs =
                    outputs.map(|(e, (relation, field))| named(e, relation, field.name())).collect();
                let Some(input) = self.dependent(Arc::unwrap_or_clone(alias.input), domain)? else {
                    return Ok(None);
                };
                self.with_keys(outputs, input).map(Some)
            }
            LogicalPlan::Subquery(subquery) => {
                self.dependent(Arc::unwrap_or_clone(subquery.subquery), domain)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                self.dependent(Arc::unwrap_or_clone(sort.input), domain)
            }
            LogicalPlan::Limit(limit) => match limit_below(limit)? {
                LogicalPlan::Limit(limit) => self.limit(limit, domain),
                above => self.dependent(above, domain),
            },
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let outputs = columns(&input);
                let Some(input) = self.dependent(Arc::unwrap_or_clone(input), domain)? else {
                    return Ok(None);
                };
                let Dependent { plan, keys } = self.with_keys(outputs, input)?;
                let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(plan)));
                Ok(Some(Dependent { plan, keys }))
            }
            on @ LogicalPlan::Distinct(Distinct::On(_)) => {
                self.dependent(ties::number_distinct_on(on)?, domain)
            }
            LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr[..] {
                [Expr::GroupingSet(_)] => {
                    self.dependent(grouping_sets::expand(LogicalPlan::Aggregate(aggregate))?, domain)
                }
                [] => self.total(aggregate, domain),
                _ => self.grouped(aggregate, domain),
            },
            LogicalPlan::Window(window) => self.window(window, domain),
            LogicalPlan::Join(join) => self.join(join, domain),
            LogicalPlan::Union(union) => {
                let schema = Arc::clone(&union.schema);
                let mut all: Option<(LogicalPlanBuilder, Vec<Column>)> = None;
                for input in union.inputs {
                    let outputs = columns(&input);
                    let Some(input) = self.dependent(Arc::unwrap_or_clone(input), domain)? else {
                        return Ok(None);
                    };
                    let Dependent { plan, keys } = self.places(outputs, input)?;
                    all = Some(match all {
                        None => (LogicalPlanBuilder::from(plan), keys),
                        Some((union, keys)) => (union.union(plan)?, keys),
                    });
                }
                let Some((all, keys)) = all else { return Err(refused("a UNION of nothing", super::HINT)) };
                let plan = all.build()?;
                let outputs = columns(&plan).into_iter().zip(schema.iter());
                let outputs =
                    outputs.map(|(e, (relation, field))| named(e, relation, field.name())).collect();
                self.with_keys(outputs, Dependent { plan, keys }).map(Some)
            }
            LogicalPlan::Values(values) => {
                let rows = rows(values)?;
                self.dependent(rows, domain)
            }
            LogicalPlan::Unnest(unnest) => {
                let Unnest { input, exec_columns, options, .. } = unnest;
                let outputs = columns(&input);
                let Some(input) = self.dependent(Arc::unwrap_or_clone(input), domain)? else {
                    return Ok(None);
                };
                let Dependent { plan, keys } = self.with_new_keys(outputs, input)?;
                let plan = LogicalPlan::Unnest(Unnest::try_new(Arc::new(plan), exec_columns, options)?);
                Ok(Some(Dependent { plan, keys }))
            }
            LogicalPlan::Extension(Extension { node }) => {
                let plan = LogicalPlan::Extension(Extension { node });
                if let Some(window) = WindowTvf::of(&plan) {
                    let input = window.input().as_ref().clone();
                    let Some(Dependent { plan, keys }) = self.dependent(input, domain)? else {
                        return Ok(None);
                    };
                    let partition = window.partition().iter().cloned();
                    let partition = partition.chain(keys.iter().cloned().map(Expr::Column)).collect();
                    let time = window.time_column().clone();
                    let window = match window.is_session() {
                        true => WindowTvf::try_new(Arc::new(plan), window.kind(), time, partition)?,
                        false => window.over(plan)?,
                    };
                    return Ok(Some(Dependent { plan: window.into_plan(), keys }));
                }
                if let Some(set) = SetOperation::of_plan(&plan) {
                    let outputs = columns(&set.input);
                    let Some(input) = self.dependent(set.input.as_ref().clone(), domain)? else {
                        return Ok(None);
                    };
                    let Dependent { plan, keys } = self.with_new_keys(outputs, input)?;
                    let plan = set.per_key(plan, &keys)?;
                    return Ok(Some(Dependent { plan, keys }));
                }
                Err(refused(
                    "an ASOF join that names columns from outside",
                    "Join first, and filter above the join.",
                ))
            }
            other => {
                let what = format!("{} that names columns from outside", other.display());
                Err(refused(&what, super::HINT))
            }
        }
    }

    /// Each row of a plan that names nothing, for each value.
    fn for_each_value(&mut self, plan: LogicalPlan, domain: &Domain<'_>) -> Result<Dependent> {
        let keys: Vec<Column> = domain.parameters.iter().map(|_| self.column("key")).collect();
        let values = domain.parameters.iter().zip(&keys);
        let values = values.map(|(p, key)| p.outside.clone().alias(key.name.as_str())).collect();
        let values = project(values, domain.outer.clone())?;
        let values = LogicalPlan::Distinct(Distinct::All(Arc::new(values)));
        let plan = match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema })
                if schema.fields().is_empty() =>
            {
                values
            }
            plan => {
                let all = Keys { pairs: Vec::new(), strict: true };
                join(values, plan, JoinType::Inner, all, Vec::new())?
            }
        };
        Ok(Dependent { plan, keys })
    }

    fn replaced(expr: Expr, domain: &Domain<'_>, keys: &[Expr]) -> Result<Expr> {
        replace(expr, &domain.parameters, keys)
    }

    /// A projection that hands on the keys.
    fn with_keys(&mut self, mut outputs: Vec<Expr>, input: Dependent) -> Result<Dependent> {
        let mut keys = Vec::with_capacity(input.keys.len());
        for key in input.keys {
            // A column that is given as it is serves as well.
            if !outputs.contains(&Expr::Column(key.clone())) {
                let name = self.name("key");
                outputs.push(Expr::Column(key).alias(name.as_str()));
                keys.push(Column::new_unqualified(name));
            } else {
                keys.push(key);
            }
        }
        Ok(Dependent { plan: project(outputs, input.plan)?, keys })
    }

    /// The same, and keys are columns of their own.
    fn with_new_keys(&mut self, mut outputs: Vec<Expr>, input: Dependent) -> Result<Dependent> {
        let mut keys = Vec::with_capacity(input.keys.len());
        for key in input.keys {
            let name = self.name("key");
            outputs.push(Expr::Column(key).alias(name.as_str()));
            keys.push(Column::new_unqualified(name));
        }
        Ok(Dependent { plan: project(outputs, input.plan)?, keys })
    }

    /// The same under names that depend on the place only.
    fn places(&mut self, outputs: Vec<Expr>, input: Dependent) -> Result<Dependent> {
        let outputs = outputs.into_iter().map(|e| without_alias(e).alias(self.name("c"))).collect::<Vec<_>>();
        self.with_new_keys(outputs, input)
    }

    fn projection(&mut self, projection: Projection, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let Projection { expr, input, schema, .. } = projection;
        let Some(input) = self.dependent(Arc::unwrap_or_clone(input), domain)? else { return Ok(None) };
        let keys = input.keys();
        let mut outputs = Vec::with_capacity(expr.len());
        for (expr, (relation, field)) in expr.into_iter().zip(schema.iter()) {
            outputs.push(named(Self::replaced(expr, domain, &keys)?, relation, field.name()));
        }
        self.with_keys(outputs, input).map(Some)
    }

    fn filter(&mut self, filtered: Filter, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let conditions = split_conjunction_owned(filtered.predicate);
        let input = Arc::unwrap_or_clone(filtered.input);
        if domain.free && !names(&input, domain.outer.schema())? {
            return self.equated(conditions, input, domain);
        }
        let Some(input) = self.dependent(input, domain)? else { return Ok(None) };
        let keys = input.keys();
        let conditions = conditions.into_iter().map(|e| Self::replaced(e, domain, &keys));
        let plan = filter(conditions.collect::<Result<_>>()?, input.plan)?;
        Ok(Some(Dependent { plan, keys: input.keys }))
    }

    /// `input` where conditions say of each parameter what it is equal to.
    fn equated(
        &mut self,
        conditions: Vec<Expr>,
        input: LogicalPlan,
        domain: &Domain<'_>,
    ) -> Result<Option<Dependent>> {
        let mut equal: Vec<Option<Expr>> = vec![None; domain.parameters.len()];
        let mut rest = Vec::new();
        for condition in conditions {
            let found = domain.parameters.iter().position(|p| other_side(&condition, &p.inside).is_some());
            match found {
                Some(at) if equal[at].is_none() => {
                    equal[at] = other_side(&condition, &domain.parameters[at].inside).cloned();
                }
                _ => rest.push(condition),
            }
        }
        let Some(equal) = equal.into_iter().collect::<Option<Vec<Expr>>>() else { return Ok(None) };
        let rest = rest.into_iter().map(|e| Self::replaced(e, domain, &equal));
        let rest = rest.collect::<Result<Vec<_>>>()?;
        let mut outputs = columns(&input);
        let mut keys = Vec::with_capacity(equal.len());
        let width = outputs.len();
        for expr in equal {
            match expr {
                Expr::Column(column) => keys.push(column),
                expr => {
                    let name = self.name("key");
                    outputs.push(expr.alias(name.as_str()));
                    keys.push(Column::new_unqualified(name));
                }
            }
        }
        let plan = filter(rest, input)?;
        let plan = if outputs.len() == width { plan } else { project(outputs, plan)? };
        Ok(Some(Dependent { plan, keys }))
    }

    /// The rows with numbers above the offset and up to the limit.
    fn limit(&mut self, limit: Limit, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let outputs = columns(&limit.input);
        let (order, below) = match limit.input.as_ref() {
            LogicalPlan::Sort(Sort { expr, input, fetch: None }) => (expr.clone(), Arc::clone(input)),
            _ => (Vec::new(), Arc::clone(&limit.input)),
        };
        let Some(input) = self.dependent(Arc::unwrap_or_clone(below), domain)? else { return Ok(None) };
        let keys = input.keys();
        let order = order.into_iter().map(|mut sort| {
            sort.expr = Self::replaced(sort.expr, domain, &keys)?;
            Ok(sort)
        });
        let order = order.collect::<Result<Vec<_>>>()?;
        let number = self.column("row_number");
        let call = ties::row_number(keys.clone(), order)?.alias(number.name.as_str());
        let number = Expr::Column(number);
        let mut conditions = Vec::new();
        let bound = |expr: &Expr| Self::replaced(expr.clone(), domain, &keys);
        let skip = limit.skip.as_deref().map(&bound).transpose()?;
        let fetch = limit.fetch.as_deref().map(&bound).transpose()?;
        let count = |expr: &Expr| match expr {
            Expr::Literal(value, _) => match value.cast_to(&arrow::datatypes::DataType::Int64) {
                Ok(ScalarValue::Int64(n)) => Some(n),
                _ => None,
            },
            _ => None,
        };
        let skipped = skip.as_ref().map_or(Some(Some(0)), count);
        match (skipped, fetch.as_ref().map(count)) {
            (Some(skip), None | Some(Some(None))) => {
                if let Some(skip @ 1..) = skip {
                    conditions.push(number.gt(lit(skip)));
                }
            }
            (Some(skip), Some(Some(Some(fetch)))) => {
                let skip = skip.unwrap_or(0);
                if skip > 0 {
                    conditions.push(number.clone().gt(lit(skip)));
                }
                conditions.push(number.lt_eq(lit(skip.saturating_add(fetch))));
            }
            _ => {
                // NULL is no bound.
                let skip = match skip {
                    Some(skip) => when(skip.clone().is_null(), lit(0i64)).otherwise(skip)?,
                    None => lit(0i64),
                };
                conditions.push(number.clone().gt(skip.clone()));
                if let Some(fetch) = fetch {
                    conditions.push(fetch.clone().is_null().or((number - skip).lt_eq(fetch)));
                }
            }
        }
        let window = Window::try_new(vec![call], Arc::new(input.plan))?;
        let plan = filter(conditions, LogicalPlan::Window(window))?;
        self.with_keys(outputs, Dependent { plan, keys: input.keys }).map(Some)
    }

    fn window(&mut self, window: Window, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let Some(input) = self.dependent(Arc::unwrap_or_clone(window.input), domain)? else {
            return Ok(None);
        };
        let keys = input.keys();
        let calls = window.window_expr.into_iter().map(|expr| {
            let name = expr.schema_name().to_string();
            let expr = Self::replaced(expr, domain, &keys)?;
            let partitioned = expr.transform_down(|e| match e {
                Expr::WindowFunction(mut call) => {
                    partition_by(&mut call, &keys);
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            });
            Ok(without_alias(partitioned?.data).alias(name))
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Window(Window::try_new(calls, Arc::new(input.plan))?);
        Ok(Some(Dependent { plan, keys: input.keys }))
    }

    /// GROUP BY the keys as well.
    fn grouped(&mut self, aggregate: Aggregate, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let outputs = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
        let Some((plan, keys)) = self.grouped_by_keys(aggregate, domain)? else { return Ok(None) };
        self.with_keys(outputs, Dependent { plan, keys }).map(Some)
    }

    /// The keys come first, under names of their own.
    pub(super) fn grouped_by_keys(
        &mut self,
        aggregate: Aggregate,
        domain: &Domain<'_>,
    ) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
        let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
        let Some(input) = self.dependent(Arc::unwrap_or_clone(input), domain)? else { return Ok(None) };
        let (group, calls, keys) = {
            let by = input.keys();
            let renamed: Vec<Column> = by.iter().map(|_| self.column("key")).collect();
            let keys = by.iter().zip(&renamed).map(|(e, key)| e.clone().alias(key.name.as_str()));
            let same = |expr: Expr| {
                let name = expr.schema_name().to_string();
                let expr = match &expr {
                    Expr::Column(_) => return Ok(expr),
                    _ => Self::replaced(expr, domain, &by)?,
                };
                Ok(if expr.schema_name().to_string() == name {
                    expr
                } else {
                    without_alias(expr).alias(name)
                })
            };
            let group = keys.map(Ok).chain(group_expr.into_iter().map(same)).collect::<Result<Vec<_>>>()?;
            let calls = aggr_expr.into_iter().map(same).collect::<Result<Vec<_>>>()?;
            (group, calls, renamed)
        };
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input.plan), group, calls)?);
        Ok(Some((plan, keys)))
    }

    /// An aggregate without GROUP BY has a row for each value.
    fn total(&mut self, aggregate: Aggregate, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        if domain.free {
            return Ok(None);
        }
        let schema = Arc::clone(&aggregate.schema);
        let empty = over_nothing(&aggregate)?;
        let Some((plan, keys)) = self.grouped_by_keys(aggregate, domain)? else { return Ok(None) };
        let one = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: true,
            schema: Arc::new(datafusion::common::DFSchema::empty()),
        });
        let values = self.for_each_value(one, domain)?;
        let pairs = values.keys().into_iter().zip(keys.into_iter().map(Expr::Column)).collect();
        let results: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        let plan = join(values.plan, plan, JoinType::Left, Keys { pairs, strict: false }, Vec::new())?;
        let outputs = results.into_iter().zip(empty).zip(schema.iter());
        let outputs = outputs.map(|((result, empty), (relation, field))| {
            Ok(named(or_empty(result, empty)?, relation, field.name()))
        });
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        self.with_keys(outputs, Dependent { plan, keys: values.keys }).map(Some)
    }

    fn join(&mut self, joined: Join, domain: &Domain<'_>) -> Result<Option<Dependent>> {
        let outer = domain.outer.schema();
        let (in_left, in_right) = (names(&joined.left, outer)?, names(&joined.right, outer)?);
        let outputs: Vec<Expr> = joined.schema.columns().into_iter().map(Expr::Column).collect();
        let Join {
            left,
            right,
            on,
            filter: condition,
            join_type,
            null_equality,
            join_constraint,
            null_aware,
            ..
        } = joined;
        if null_aware || (null_equality == datafusion::common::NullEquality::NullEqualsNull && !on.is_empty())
        {
            // Equalities of the join itself that `=` does not say: kept as they are, of values that are not NULL and those that are.
            return self.null_safe_join(left, right, on, condition, join_type, null_aware, domain);
        }
        let _ = join_constraint;
        let mut conditions: Vec<Expr> = on.into_iter().map(|(l, r)| l.eq(r)).collect();
        conditions.extend(condition.into_iter().flat_map(split_conjunction_owned));
        let (left, right) = (Arc::unwrap_or_clone(left), Arc::unwrap_or_clone(right));
        if !in_left && !in_right && join_type == JoinType::Inner {
            // The condition alone names parameters.
            let free = Keys { pairs: Vec::new(), strict: true };
            let pairs = join(left, right, JoinType::Inner, free, Vec::new())?;
            let predicate =
                datafusion::logical_expr::utils::conjunction(conditions).unwrap_or_else(|| lit(true));
            return self.filter(Filter::try_new(predicate, Arc::new(pairs))?, domain);
        }
        self.joined(Sides { left, right, in_left, in_right }, conditions, join_type, outputs, domain)
    }

    fn joined(
        &mut self,
        sides: Sides,
        conditions: Vec<Expr>,
        join_type: JoinType,
        outputs: Vec<Expr>,
        domain: &Domain<'_>,
    ) -> Result<Option<Dependent>> {
        let Sides { left, right, in_left, in_right } = sides;
        // A side whose rows stay without a match must know for which value they stay.
        let (need_left, need_right) = match join_type {
            JoinType::Inner => (in_left, in_right),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, in_right),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                (in_left, true)
            }
            JoinType::Full => (true, true),
        };
        let mut side = |plan: LogicalPlan, needed: bool| match needed {
            true => self.dependent(plan, domain),
            false => Ok(Some(Dependent { plan, keys: Vec::new() })),
        };
        let Some(left) = side(left, need_left)? else { return Ok(None) };
        let Some(right) = side(right, need_right)? else { return Ok(None) };
        let (l, r) = (left.keys(), right.keys());
        let by = if need_left { l.clone() } else { r.clone() };
        let conditions = conditions.into_iter().map(|e| Self::replaced(e, domain, &by));
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        let pairs = if need_left && need_right { l.into_iter().zip(r).collect() } else { Vec::new() };
        let keys = Keys { pairs, strict: domain.free };
        let plan = join(left.plan, right.plan, join_type, keys, conditions)?;
        if join_type == JoinType::Full {
            let Some(coalesce) = millpond_functions::Registry::global().scalar("coalesce") else {
                return datafusion::common::internal_err!("there is no coalesce");
            };
            let mut outputs = outputs;
            let mut keys = Vec::with_capacity(left.keys.len());
            for (l, r) in left.keys.into_iter().zip(right.keys) {
                let key = self.column("key");
                let either = coalesce.call(vec![Expr::Column(l), Expr::Column(r)]);
                outputs.push(either.alias(key.name.as_str()));
                keys.push(key);
            }
            return Ok(Some(Dependent { plan: project(outputs, plan)?, keys }));
        }
        let keys = if need_left { left.keys } else { right.keys };
        self.with_keys(outputs, Dependent { plan, keys }).map(Some)
    }

    /// A join whose own keys let NULL equal NULL, or are those of NOT IN.
    #[expect(clippy::too_many_arguments)]
    fn null_safe_join(
        &mut self,
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        on: Vec<(Expr, Expr)>,
        condition: Option<Expr>,
        join_type: JoinType,
        null_aware: bool,
        domain: &Domain<'_>,
    ) -> Result<Option<Dependent>> {
        let outer = domain.outer.schema();
        let (in_left, in_right) = (names(&left, outer)?, names(&right, outer)?);
        let mut conditions: Vec<Expr> = Vec::new();
        for (l, r) in on {
            conditions.push(match null_aware {
                // NOT IN: a pair that is not known to differ is a match.
                true => l.clone().eq(r.clone()).or(l.is_null()).or(r.is_null()),
                false => binary(l, Operator::IsNotDistinctFrom, r),
            });
        }
        conditions.extend(condition.into_iter().flat_map(split_conjunction_owned));
        let (left, right) = (Arc::unwrap_or_clone(left), Arc::unwrap_or_clone(right));
        let outputs = match join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => columns(&left),
            JoinType::RightSemi | JoinType::RightAnti => columns(&right),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                columns(&left).into_iter().chain(columns(&right)).collect()
            }
            JoinType::LeftMark | JoinType::RightMark => {
                return Err(refused("a subquery of this form", super::HINT));
            }
        };
        self.joined(Sides { left, right, in_left, in_right }, conditions, join_type, outputs, domain)
    }
}

struct Sides {
    left: LogicalPlan,
    right: LogicalPlan,
    in_left: bool,
    in_right: bool,
}

pub(super) fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

fn partition_by(call: &mut WindowFunction, keys: &[Expr]) {
    for key in keys {
        if !call.params.partition_by.contains(key) {
            call.params.partition_by.push(key.clone());
        }
    }
}

/// `e` of `e = parameter`, where `e` is about columns of the plan only.
fn other_side<'a>(condition: &'a Expr, parameter: &Expr) -> Option<&'a Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    let other = match (left.as_ref() == parameter, right.as_ref() == parameter) {
        (true, false) => right.as_ref(),
        (false, true) => left.as_ref(),
        _ => return None,
    };
    let plain = other.any_column_refs()
        && !other.contains_outer()
        && !other.is_volatile()
        && !super::expression::has_subquery(other);
    plain.then_some(other)
}

/// What each aggregate is over no rows, where that is not NULL.
pub(super) fn over_nothing(aggregate: &Aggregate) -> Result<Vec<Option<Expr>>> {
    let fields = aggregate.schema.fields().iter();
    let calls = aggregate.aggr_expr.iter().zip(fields.skip(aggregate.group_expr.len()));
    let values = calls.map(|(expr, field)| match without_alias(expr.clone()) {
        Expr::AggregateFunction(call) => {
            let value = call.func.default_value(field.data_type())?;
            let value = if value.is_null() { None } else { Some(value.cast_to(field.data_type())?) };
            Ok(value.map(|value| Expr::Literal(value, None)))
        }
        other => datafusion::common::internal_err!("{other} is no aggregate"),
    });
    values.collect()
}

/// A result of a group that may be missing.
pub(super) fn or_empty(result: Expr, empty: Option<Expr>) -> Result<Expr> {
    match empty {
        None => Ok(result),
        Some(empty) => when(result.clone().is_null(), empty).otherwise(result),
    }
}

/// VALUES row by row.
fn rows(values: Values) -> Result<LogicalPlan> {
    let mut union: Option<LogicalPlanBuilder> = None;
    for row in values.values {
        let named = row.into_iter().zip(values.schema.fields()).map(|(e, field)| {
            let typed = Expr::Cast(datafusion::logical_expr::expr::Cast::new(
                Box::new(without_alias(e)),
                field.data_type().clone(),
            ));
            typed.alias(field.name())
        });
        let one = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: true,
            schema: Arc::new(datafusion::common::DFSchema::empty()),
        });
        let row = project(named.collect(), one)?;
        union = Some(match union {
            None => LogicalPlanBuilder::from(row),
            Some(union) => union.union(row)?,
        });
    }
    match union {
        Some(union) => union.build(),
        None => datafusion::common::internal_err!("VALUES without a row"),
    }
}

/// The domain is computed beside the outer side: both must choose alike.
pub(super) fn settle_choices(outer: &mut LogicalPlan) -> Result<()> {
    refuse_volatile(outer)?;
    if let Ok(settled) = ties::total_order(outer.clone()) {
        *outer = settled;
    }
    Ok(())
}

fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match found {
        false => Ok(()),
        true => Err(refused(
            "a subquery beside volatile functions, other than by an equality,",
            "Compute what is volatile in a query of its own.",
        )),
    }
}
