//! Joins, and subqueries that become joins.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{self as logical, Expr, ExprSchemable, LogicalPlan, Subquery, lit};
use millpond_functions::error::from_datafusion;
use millpond_types::{SqlError, SqlType};

use super::lower::{Facts, Lowering, Names, Pending, column, over, place, unsupported};
use super::{
    Aggregate, AggregateCall, AggregateFunction, Join, JoinClose, JoinKind, NodeId, Operator, SideClose,
};
use crate::Metadata;
use crate::clock::asks;
use crate::single_row::single_row;
use crate::trace::{self, TimeBound};
use crate::window::WindowTvf;

/// Scalar subqueries, each with the expression that holds its value.
#[derive(Default)]
pub(super) struct SingleRows(Vec<(Subquery, Expr)>);

impl SingleRows {
    pub(super) fn replace(&self, expr: Expr) -> Result<Expr, SqlError> {
        if self.0.is_empty() {
            return Ok(expr);
        }
        let replaced = expr.transform_down(|e| {
            let known = match &e {
                Expr::ScalarSubquery(subquery) => self.0.iter().find(|(known, _)| known == subquery),
                _ => None,
            };
            Ok(known.map_or_else(|| Transformed::no(e), |(_, value)| Transformed::yes(value.clone())))
        });
        replaced.map(|t| t.data).map_err(from_datafusion)
    }
}

/// One input of a join: a node, and where it has the columns of the logical plan and the keys.
pub(super) struct Side {
    pub(super) node: NodeId,
    pub(super) columns: Vec<usize>,
    pub(super) keys: Vec<usize>,
}

/// What is asked of a pair: equal keys, and the rest.
struct Condition {
    keys: Vec<(Expr, Expr)>,
    nulls_equal: bool,
    residual: Option<Expr>,
}

impl Lowering {
    pub(super) fn join(&mut self, join: &logical::Join) -> Result<Pending, SqlError> {
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::LeftSemi,
            JoinType::LeftAnti => JoinKind::LeftAnti,
            JoinType::LeftMark => JoinKind::LeftMark,
            other => {
                return Err(unsupported(
                    &format!("a {other} join"),
                    "Name the relations the other way round.",
                ));
            }
        };
        if let Some(pending) = self.multi_join(join)? {
            return Ok(pending);
        }
        if let Some((join, above)) = without_clock(join) {
            let mut pending = self.join(&join)?;
            let above = over(&above, &join.schema, &pending.columns)?;
            pending.filter = Some(match pending.filter.take() {
                Some(before) => logical::and(before, above),
                None => above,
            });
            return Ok(pending);
        }
        let bounds = trace::join_bounds(join);
        let left = self.lower(&join.left, bounds.is_some())?;
        let right = self.lower(&join.right, bounds.is_some())?;
        let condition = Condition::of(join)?;
        if join.null_aware {
            return self.not_in(join, left, right, &condition);
        }
        let mut left_keys = bound(condition.keys.iter().map(|key| &key.0), join.left.schema(), &left)?;
        let mut right_keys = bound(condition.keys.iter().map(|key| &key.1), join.right.schema(), &right)?;
        if let Some([l, r]) = &bounds {
            left_keys.extend(closing(l, &left)?);
            right_keys.extend(closing(r, &right)?);
        }
        let names: Vec<String> =
            left.columns.iter().chain(&right.columns).map(|(name, _)| name.clone()).collect();
        let mut sides = [self.side(left, left_keys)?, self.side(right, right_keys)?];
        let close = bounds.map(|bounds| {
            let mut ends = sides.iter_mut().map(|side| side.keys.split_off(condition.keys.len()));
            let mut side = |bound: TimeBound| {
                let places = ends.next().unwrap_or_default();
                let TimeBound { late_us, free_us, .. } = bound;
                SideClose { time: places[0], watermark: places[1], late_us, free_us }
            };
            let sides = bounds.map(&mut side);
            JoinClose { sides, lateness_us: self.options.allowed_lateness_us }
        });
        let pair = self.pair(&sides);
        let width = self.nodes[sides[0].node].schema.fields().len();
        // Where the pair has the columns of the logical inputs.
        let places: Vec<usize> =
            sides[0].columns.iter().copied().chain(sides[1].columns.iter().map(|c| width + c)).collect();
        let residual = match &condition.residual {
            Some(residual) => {
                let schema = join.left.schema().join(join.right.schema()).map_err(from_datafusion)?;
                let columns: Vec<(String, Expr)> =
                    places.iter().map(|at| (String::new(), column(pair.field(*at).name()))).collect();
                let residual = over(residual, &schema, &columns)?;
                super::lower::refuse_in_expression(&residual)?;
                Some(residual)
            }
            None => None,
        };
        let keys = sides[0].keys.iter().copied().zip(sides[1].keys.iter().copied()).collect();
        let given = if kind.is_pairs() { places } else { sides[0].columns.clone() };
        let nodes = [sides[0].node, sides[1].node];
        let operator = Join {
            kind,
            keys,
            nulls_equal: condition.nulls_equal,
            residual,
            close,
            pair,
            output: distinct(&given),
        };
        Ok(self.push_join(operator, nodes, &given, &names))
    }

    /// Adds the operator. Of the result the n-th column is `given[n]` of the pair, then the mark.
    fn push_join(
        &mut self,
        operator: Join,
        nodes: [NodeId; 2],
        given: &[usize],
        names: &[String],
    ) -> Pending {
        let width = self.nodes[nodes[0]].schema.fields().len();
        let [left_null, right_null] = operator.kind.fills_with_null();
        let mut fields: Vec<Field> = Vec::with_capacity(operator.output.len() + 1);
        for at in &operator.output {
            let (side, column, filled) = match at.checked_sub(width) {
                None => (0, *at, left_null),
                Some(column) => (1, column, right_null),
            };
            let field = self.nodes[nodes[side]].schema.field(column);
            let nullable = field.is_nullable() || filled;
            fields.push(field.clone().with_name(operator.pair.field(*at).name()).with_nullable(nullable));
        }
        let mut columns: Vec<(String, Expr)> = given
            .iter()
            .zip(names)
            .map(|(at, name)| (name.clone(), column(operator.pair.field(*at).name())))
            .collect();
        if operator.kind == JoinKind::LeftMark {
            let mark = Names::of(&operator.pair).next("mark");
            fields.push(Field::new(&mark, DataType::Boolean, false));
            columns.push(("mark".to_owned(), column(&mark)));
        }
        let facts = self.join_facts(&operator, nodes, &fields);
        let node = self.push(Operator::Join(operator), nodes.to_vec(), fields, facts);
        Pending { node, filter: None, columns, watermark: None, window_end: None }
    }

    fn join_facts(&self, join: &Join, nodes: [NodeId; 2], fields: &[Field]) -> Facts {
        let [left, right] = nodes.map(|node| &self.nodes[node]);
        let append_only = match join.kind {
            JoinKind::Inner | JoinKind::LeftSemi => left.append_only && right.append_only,
            _ => false,
        };
        let width = left.schema.fields().len();
        // A side whose key is among the columns that must be equal has at most one match for a row of the other.
        let unique = |key: &Option<Vec<usize>>, of: fn(&(usize, usize)) -> usize| {
            key.as_ref().is_some_and(|key| key.iter().all(|k| join.keys.iter().any(|pair| of(pair) == *k)))
        };
        let (left_once, right_once) = (unique(&left.key, |k| k.0), unique(&right.key, |k| k.1));
        let shifted = || right.key.as_ref().map(|key| key.iter().map(|k| width + k).collect::<Vec<_>>());
        let both = || {
            let mut key = left.key.clone()?;
            key.extend(shifted()?);
            Some(key)
        };
        let key = match join.kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark => left.key.clone(),
            JoinKind::Inner | JoinKind::Left if right_once => left.key.clone(),
            JoinKind::Inner | JoinKind::Right if left_once => shifted(),
            JoinKind::Inner | JoinKind::Left | JoinKind::Right => both(),
            // Two rows that lack each other's match must not look alike: some column of the key is never NULL by itself.
            JoinKind::Full => both().filter(|key| key.iter().any(|k| !join.pair.field(*k).is_nullable())),
        };
        let place = |pair: usize| join.output.iter().position(|at| *at == pair);
        let key = key.and_then(|key| key.into_iter().map(place).collect());
        debug_assert!(fields.len() >= join.output.len());
        Facts { append_only, key, event_time: None }
    }

    /// A node with the pending columns and these keys, and nothing else.
    pub(super) fn side(&mut self, pending: Pending, keys: Vec<(String, Expr)>) -> Result<Side, SqlError> {
        let mut wanted: Vec<(String, Expr)> = Vec::new();
        let mut slot = |named: &(String, Expr)| {
            wanted.iter().position(|(_, e)| *e == named.1).unwrap_or_else(|| {
                wanted.push(named.clone());
                wanted.len() - 1
            })
        };
        let columns: Vec<usize> = pending.columns.iter().map(&mut slot).collect();
        let keys: Vec<usize> = keys.iter().map(&mut slot).collect();
        if wanted.is_empty() {
            // A batch without columns forgets its rows too easily.
            wanted.push(("present".to_owned(), lit(true)));
        }
        let schema = &self.nodes[pending.node].schema;
        let places: Option<Vec<usize>> = wanted.iter().map(|(_, e)| place(e, schema)).collect();
        match places {
            Some(places) if pending.filter.is_none() && places.len() == schema.fields().len() => Ok(Side {
                node: pending.node,
                columns: columns.iter().map(|c| places[*c]).collect(),
                keys: keys.iter().map(|k| places[*k]).collect(),
            }),
            _ => {
                let node = self.map(pending.node, pending.filter, wanted)?;
                Ok(Side { node, columns, keys })
            }
        }
    }

    pub(super) fn pair(&self, sides: &[Side]) -> SchemaRef {
        let mut unique = Names::default();
        let fields = sides.iter().flat_map(|side| self.nodes[side.node].schema.fields());
        let fields: Vec<Field> =
            fields.map(|f| f.as_ref().clone().with_name(unique.next(f.name()))).collect();
        Arc::new(Schema::new(fields))
    }

    /// `x NOT IN (SELECT y …)`: no row if some y is NULL, none with x NULL unless there is no y at all, and otherwise those
    /// without an equal y. Three anti joins, of which the last two know of the right side only whether it has such rows.
    fn not_in(
        &mut self,
        join: &logical::Join,
        left: Pending,
        right: Pending,
        condition: &Condition,
    ) -> Result<Pending, SqlError> {
        let ([(x, y)], None) = (&condition.keys[..], &condition.residual) else {
            return Err(unsupported(
                "NOT IN with a subquery that may give NULL and names columns from outside",
                "Use NOT EXISTS, or say IS NOT NULL of what is compared.",
            ));
        };
        let x = bound(std::iter::once(x), join.left.schema(), &left)?.remove(0);
        let y = bound(std::iter::once(y), join.right.schema(), &right)?.remove(0);
        let shown: Vec<String> = left.columns.iter().map(|(name, _)| name.clone()).collect();
        let count = shown.len();
        let x_null = ("x_is_null".to_owned(), x.1.clone().is_null());
        let one = ("present".to_owned(), lit(true));
        let (node, filter) = (right.node, right.filter.clone());
        let rows = |filter| Pending { node, filter, columns: Vec::new(), watermark: None, window_end: None };
        let null_filter = y.1.clone().is_null();
        let null_filter = match filter.clone() {
            Some(filter) => logical::and(filter, null_filter),
            None => null_filter,
        };
        let left = self.side(left, vec![x, one.clone(), x_null])?;
        let equal = self.side(rows(filter.clone()), vec![y])?;
        let nulls = self.side(rows(Some(null_filter)), vec![one.clone()])?;
        let any = self.side(rows(filter), vec![one])?;
        // Its columns, then the three keys, are carried through.
        let mut places: Vec<usize> = left.columns.clone();
        places.extend(&left.keys);
        let names: Vec<String> = places.iter().map(|_| String::new()).collect();
        let (mut node, mut at) = (left.node, places);
        let mut result = None;
        for (n, right) in [(0, equal), (1, nulls), (2, any)] {
            let sides = [Side { node, columns: Vec::new(), keys: Vec::new() }, right];
            let pair = self.pair(&sides);
            let keys = vec![(at[count + n], sides[1].keys[0])];
            let output = distinct(&at);
            let operator = Join {
                kind: JoinKind::LeftAnti,
                keys,
                nulls_equal: false,
                residual: None,
                close: None,
                pair,
                output,
            };
            let pending = self.push_join(operator, [node, sides[1].node], &at, &names);
            let schema = &self.nodes[pending.node].schema;
            let found = pending.columns.iter().map(|(_, e)| place(e, schema).expect("plain columns"));
            (node, at) = (pending.node, found.collect());
            result = Some(pending);
        }
        let mut pending = result.expect("three joins");
        pending.columns.truncate(count);
        pending.columns.iter_mut().zip(shown).for_each(|(column, name)| column.0 = name);
        Ok(pending)
    }

    /// Joins the value of each scalar subquery in `exprs` that names nothing from outside to all rows of `input`.
    pub(super) fn with_scalar_subqueries(
        &mut self,
        mut input: Pending,
        exprs: &[Expr],
    ) -> Result<(Pending, SingleRows), SqlError> {
        let mut found: Vec<Subquery> = Vec::new();
        for expr in exprs {
            let walk = expr.apply(|e| {
                if let Expr::ScalarSubquery(subquery) = e
                    && subquery.outer_ref_columns.is_empty()
                    && !found.contains(subquery)
                {
                    found.push(subquery.clone());
                }
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            });
            walk.map_err(from_datafusion)?;
        }
        let mut values = Vec::with_capacity(found.len());
        for subquery in &found {
            let shown = input.columns.len();
            // What earlier subqueries gave stands behind the columns, and comes along.
            input.columns.extend(values.iter().map(|value: &Expr| (String::new(), value.clone())));
            let (joined, value) = self.with_single_row(input, subquery)?;
            input = joined;
            values = input.columns.split_off(shown).into_iter().map(|(_, value)| value).collect();
            values.push(value);
        }
        Ok((input, SingleRows(found.into_iter().zip(values).collect())))
    }

    fn with_single_row(&mut self, input: Pending, subquery: &Subquery) -> Result<(Pending, Expr), SqlError> {
        let right = self.lower(&subquery.subquery, false)?;
        let right = self.side(right, Vec::new())?;
        let below = &self.nodes[right.node];
        let value = right.columns[0];
        let (node, kind, outputs) = if below.key.as_ref().is_some_and(Vec::is_empty) {
            // At most one row, perhaps none.
            (right.node, JoinKind::Left, vec![value])
        } else {
            let field = below.schema.field(value).clone();
            let ty = SqlType::of(&field)?;
            let call =
                |function, argument, result| AggregateCall { function, argument, filter: None, result };
            let calls = vec![
                call(AggregateFunction::CountStar, None, SqlType::Int8),
                call(AggregateFunction::Max, Some(value), ty),
            ];
            let operator = Aggregate { group: Vec::new(), calls, global: true, close: None };
            let fields =
                vec![SqlType::Int8.field("rows", false), field.with_name("value").with_nullable(true)];
            let facts = Facts { append_only: false, key: Some(Vec::new()), event_time: None };
            let node = self.push(Operator::Aggregate(operator), vec![right.node], fields, facts);
            (node, JoinKind::Inner, vec![0, 1])
        };
        let mut names: Vec<String> = input.columns.iter().map(|(name, _)| name.clone()).collect();
        let left = self.side(input, Vec::new())?;
        let width = self.nodes[left.node].schema.fields().len();
        let shown = left.columns.len();
        let mut given = left.columns.clone();
        given.extend(outputs.iter().map(|c| width + c));
        names.resize(given.len(), String::new());
        let left_node = left.node;
        let sides = [left, Side { node, columns: Vec::new(), keys: Vec::new() }];
        let pair = self.pair(&sides);
        let output = distinct(&given);
        let (keys, nulls_equal) = (Vec::new(), false);
        let operator = Join { kind, keys, nulls_equal, residual: None, close: None, pair, output };
        let mut pending = self.push_join(operator, [left_node, node], &given, &names);
        let mut parts = pending.columns.split_off(shown).into_iter().map(|(_, part)| part);
        let value = match (parts.next(), parts.next()) {
            (Some(value), None) => value,
            (Some(count), Some(value)) => single_row(count, value, None),
            (None, _) => return Err(SqlError::internal("a scalar subquery has no column")),
        };
        Ok((pending, value))
    }
}

/// An inner join without what its condition asks of the time, and that: it is as good above.
fn without_clock(join: &logical::Join) -> Option<(logical::Join, Expr)> {
    let filter = join.filter.as_ref().filter(|filter| join.join_type == JoinType::Inner && asks(filter))?;
    let (timed, rest): (Vec<&Expr>, Vec<&Expr>) =
        split_conjunction(filter).into_iter().partition(|e| asks(e));
    let filter = conjunction(rest.into_iter().cloned());
    Some((logical::Join { filter, ..join.clone() }, conjunction(timed.into_iter().cloned())?))
}

impl Condition {
    fn of(join: &logical::Join) -> Result<Self, SqlError> {
        let nulls_equal = join.null_equality == NullEquality::NullEqualsNull;
        let (left, right) = (join.left.schema(), join.right.schema());
        let mut condition = Self { keys: Vec::new(), nulls_equal, residual: None };
        let mut rest: Vec<Expr> = Vec::new();
        for (l, r) in &join.on {
            let types =
                (l.get_type(left).map_err(from_datafusion)?, r.get_type(right).map_err(from_datafusion)?);
            if types.0 != types.1 {
                let types = format!("{} and {}", types.0, types.1);
                return Err(SqlError::internal(format!("the keys of a join have the types {types}")));
            }
            condition.keys.push((l.clone(), r.clone()));
        }
        for conjunct in join.filter.iter().flat_map(split_conjunction) {
            match conjunct {
                Expr::Literal(ScalarValue::Boolean(Some(true)), _) => {}
                // The only kind of equality, so that all keys agree about NULL.
                Expr::BinaryExpr(BinaryExpr {
                    left: a,
                    op: logical::Operator::IsNotDistinctFrom,
                    right: b,
                }) if join.on.is_empty() && !join.null_aware => match sides(a, b, left, right) {
                    Some(key) => condition.keys.push(key),
                    None => rest.push(conjunct.clone()),
                },
                other => rest.push(other.clone()),
            }
        }
        condition.nulls_equal |= join.on.is_empty() && !condition.keys.is_empty();
        condition.residual = rest.into_iter().reduce(logical::and);
        Ok(condition)
    }
}

/// The expressions of a comparison as (left, right), if each is about one side.
fn sides(a: &Expr, b: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Expr)> {
    let about = |expr: &Expr, schema: &DFSchema| {
        let columns: HashSet<&Column> = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|c| schema.has_column(c))
    };
    let same =
        |l: &Expr, r: &Expr| l.get_type(left).ok().is_some_and(|ty| r.get_type(right).ok() == Some(ty));
    if about(a, left) && about(b, right) && same(a, b) {
        return Some((a.clone(), b.clone()));
    }
    (about(b, left) && about(a, right) && same(b, a)).then(|| (b.clone(), a.clone()))
}

/// The time of a row and its watermark, named.
fn closing(bound: &TimeBound, input: &Pending) -> Result<[(String, Expr); 2], SqlError> {
    let lost = || SqlError::internal("the watermark does not reach the join");
    let time = match bound.column {
        None => (crate::window::WINDOW_END.to_owned(), input.window_end.clone().ok_or_else(lost)?),
        Some(at) => input.columns[at].clone(),
    };
    Ok([time, (Metadata::Watermark.name().to_owned(), input.watermark.clone().ok_or_else(lost)?)])
}

/// Key expressions over the pending columns, with names.
fn bound<'a>(
    keys: impl Iterator<Item = &'a Expr>,
    schema: &DFSchema,
    input: &Pending,
) -> Result<Vec<(String, Expr)>, SqlError> {
    keys.map(|key| {
        let expr = over(key, schema, &input.columns)?;
        let name = match &expr {
            Expr::Column(column) => column.name.clone(),
            other => super::text::shown(other),
        };
        Ok((name, expr))
    })
    .collect()
}

/// Each once.
pub(super) fn distinct(columns: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::new();
    columns.iter().copied().filter(|c| seen.insert(*c)).collect()
}

impl JoinKind {
    /// The output has rows of both inputs.
    fn is_pairs(self) -> bool {
        matches!(self, Self::Inner | Self::Left | Self::Right | Self::Full)
    }

    /// Whether columns of left and right are NULL where a match is missing.
    fn fills_with_null(self) -> [bool; 2] {
        match self {
            Self::Left => [false, true],
            Self::Right => [true, false],
            Self::Full => [true, true],
            _ => [false, false],
        }
    }
}

/// Whether rows come from a join, through operators that pass a watermark.
pub(super) fn stands_on_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(_) => true,
        LogicalPlan::Projection(projection) => stands_on_join(&projection.input),
        LogicalPlan::Filter(filter) => stands_on_join(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => stands_on_join(&alias.input),
        other => WindowTvf::of(other).is_some_and(|window| stands_on_join(window.input())),
    }
}
