//! ASOF joins, and joins FOR SYSTEM_TIME AS OF a row's time: each row of the left side with the one row of the right side that is
//! nearest in time, among those with an equal key.
//!
//! Before names are bound, the tree gets one node per such join ([`nest`]); [`plan`] makes it [`AsofJoin`]. Views have an operator for that; a
//! batch counts: of the rows of both sides in order of time, the number of right rows up to a left row is the number of its match.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchemaRef, JoinType, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{BinaryExpr, WindowFunction};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator, UserDefinedLogicalNodeCore,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, build_join_schema, lit, when,
};
use millpond_functions::Registry;
use millpond_functions::error::into_datafusion;
use millpond_sql::position_of;
use millpond_types::SqlError;
use sqlparser::ast::{self, Join, JoinConstraint, JoinOperator, Spanned, TableFactor, TableWithJoins};

use crate::errors::at_opt;
use crate::incremental::Comparison;
use crate::rules::without_alias;
use crate::{RelationSource, names};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsofJoin {
    pub(crate) left: Arc<LogicalPlan>,
    pub(crate) right: Arc<LogicalPlan>,
    /// Columns of left and right that are equal.
    pub(crate) keys: Vec<(Expr, Expr)>,
    /// Columns of left and right.
    pub(crate) times: (Expr, Expr),
    /// The left time is less (…) than the right one.
    pub(crate) comparison: Comparison,
    /// Left rows without a match stay.
    pub(crate) outer: bool,
    schema: DFSchemaRef,
}

fn refused(text: &str, hint: &str, place: Option<usize>) -> datafusion::common::DataFusionError {
    into_datafusion(at_opt(SqlError::unsupported(format!("{text} is not supported")).hint(hint), place))
}

/// Puts each such join, with all that is left of it, into a node of its own, which [`plan`] is asked to read. The marker of an
/// ASOF join (`(true)`, as the parser hands it on) tells whether left rows without a match stay; that of FOR SYSTEM_TIME AS OF
/// has the time beside.
///
/// # Errors
/// 0A000 for versions by another time than a row's.
pub(crate) fn nest(from: &mut TableWithJoins) -> std::result::Result<(), SqlError> {
    while let Some(at) = from.joins.iter().position(is_unmarked) {
        let rest = from.joins.split_off(at + 1);
        let mut join = from.joins.pop().expect("it was just found");
        mark(&mut join)?;
        let before =
            TableWithJoins { relation: from.relation.clone(), joins: std::mem::take(&mut from.joins) };
        let relation = match before.joins.is_empty() {
            true => before.relation,
            false => nested(before),
        };
        from.relation = nested(TableWithJoins { relation, joins: vec![join] });
        from.joins = rest;
    }
    Ok(())
}

fn nested(from: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(from), alias: None }
}

fn is_unmarked(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::AsOf { match_condition, .. } => !matches!(match_condition, ast::Expr::Tuple(_)),
        _ => matches!(&join.relation, TableFactor::Table { version: Some(_), .. }),
    }
}

fn mark(join: &mut Join) -> std::result::Result<(), SqlError> {
    let place = position_of(join.relation.span());
    let stays = |outer: bool| ast::Expr::value(ast::Value::Boolean(outer));
    if let TableFactor::Table { version: version @ Some(_), .. } = &mut join.relation {
        let unsupported = |what: &str, hint: &str| {
            Err(at_opt(SqlError::unsupported(format!("{what} is not supported")).hint(hint), place))
        };
        let (outer, constraint) = match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) => (false, on.clone()),
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (true, on.clone()),
            _ => return unsupported("FOR SYSTEM_TIME AS OF in such a join", "Use JOIN or LEFT JOIN."),
        };
        let time = match version.take() {
            Some(ast::TableVersion::ForSystemTimeAsOf(time)) => time,
            _ => return unsupported("this form of a version", "Use FOR SYSTEM_TIME AS OF a column."),
        };
        if crate::is_proctime(&time) {
            return unsupported(
                "FOR SYSTEM_TIME AS OF PROCTIME()",
                "Name a time of the row, or join without AS OF: the result then follows changes of both sides.",
            );
        }
        let match_condition = ast::Expr::Tuple(vec![stays(outer), time]);
        join.join_operator = JoinOperator::AsOf { match_condition, constraint };
        return Ok(());
    }
    if let JoinOperator::AsOf { match_condition, .. } = &mut join.join_operator {
        let marker = std::mem::replace(match_condition, stays(false));
        if !matches!(&marker, ast::Expr::Value(v) if matches!(v.value, ast::Value::Boolean(_))) {
            let error = SqlError::unsupported("MATCH_CONDITION is not supported")
                .hint("Write a ASOF [LEFT] JOIN b ON a.k = b.k AND a.ts >= b.ts.");
            return Err(at_opt(error, position_of(marker.span()).or(place)));
        }
        *match_condition = ast::Expr::Tuple(vec![marker]);
    }
    Ok(())
}

/// Whether [`plan`] reads it.
pub(crate) fn is_marked(from: &TableWithJoins) -> bool {
    matches!(&from.joins[..], [only] if matches!(only.join_operator, JoinOperator::AsOf { .. }))
}

pub(crate) fn plan(from: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let TableWithJoins { relation, mut joins } = from;
    let Some(Join { relation: right, join_operator, .. }) = joins.pop() else {
        return internal_err!("an ASOF join of one relation");
    };
    let place = position_of(right.span());
    let JoinOperator::AsOf { match_condition: ast::Expr::Tuple(mut marker), constraint } = join_operator
    else {
        return internal_err!("an ASOF join without a marker");
    };
    let as_of = if marker.len() > 1 { marker.pop() } else { None };
    let outer = matches!(&marker[..], [ast::Expr::Value(v)] if v.value == ast::Value::Boolean(true));
    let JoinConstraint::On(condition) = constraint else {
        return Err(refused("an ASOF join without ON", "Write ON a.k = b.k AND a.ts >= b.ts.", place));
    };
    let place = position_of(condition.span()).or(place);
    let (left, right) = (context.plan(relation)?, context.plan(right)?);
    let schema = left.schema().join(right.schema())?;
    let condition = context.sql_to_expr(condition, &schema)?;
    let mut keys = Vec::new();
    let mut times = None;
    for conjunct in split_conjunction(&condition) {
        let (l, op, r) = match without_alias(conjunct.clone()) {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => (*left, op, *right),
            _ => return Err(no_condition(place)),
        };
        let of = |e: &Expr, plan: &LogicalPlan| matches!(e, Expr::Column(c) if plan.schema().has_column(c));
        let (l, op, r) = match (of(&l, &left) && of(&r, &right), op.swap()) {
            (true, _) => (l, op, r),
            (false, Some(op)) if of(&r, &left) && of(&l, &right) => (r, op, l),
            _ => return Err(no_condition(place)),
        };
        let comparison = match op {
            Operator::Eq => {
                keys.push((l, r));
                continue;
            }
            Operator::Lt => Comparison::Less,
            Operator::LtEq => Comparison::LessOrEqual,
            Operator::Gt => Comparison::Greater,
            Operator::GtEq => Comparison::GreaterOrEqual,
            _ => return Err(no_condition(place)),
        };
        if as_of.is_some() || times.replace(((l, r), comparison)).is_some() {
            return Err(no_condition(place));
        }
    }
    let (times, comparison) = match (times, as_of) {
        (Some(times), _) => times,
        (None, Some(time)) => {
            let place = position_of(time.span()).or(place);
            let time = context.sql_to_expr(time, left.schema())?;
            if !matches!(time, Expr::Column(_)) {
                return Err(refused(
                    "FOR SYSTEM_TIME AS OF anything but a column of the left side",
                    "Compute it in a subquery, and name that column.",
                    place,
                ));
            }
            let Some(version) = version_time(&right) else {
                return Err(refused(
                    "FOR SYSTEM_TIME AS OF over anything but an append-only relation with a WATERMARK",
                    "Its column is the time of a version. Else write a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts with a column \
                     that says from when on a row holds.",
                    place,
                ));
            };
            ((time, version), Comparison::GreaterOrEqual)
        }
        (None, None) => return Err(no_condition(place)),
    };
    for (l, r) in keys.iter().chain([&times]) {
        let (l, r) = (l.get_type(left.schema())?, r.get_type(right.schema())?);
        if l != r {
            return Err(refused(
                "an ASOF join by columns of different types",
                "Cast one of them in a subquery.",
                place,
            ));
        }
    }
    let time = times.0.get_type(left.schema())?;
    if !matches!(time, DataType::Timestamp(..) | DataType::Date32) && !time.is_integer() {
        return Err(refused("an ASOF join by a value of this type", "Compare times or integers.", place));
    }
    let (left, right) = (Arc::new(left), Arc::new(right));
    AsofJoin::try_new(left, right, keys, times, comparison, outer).map(AsofJoin::into_plan)
}

fn no_condition(place: Option<usize>) -> datafusion::common::DataFusionError {
    refused(
        "an ASOF join by anything but equal columns and one comparison of two columns",
        "Write ON a.k = b.k AND a.ts >= b.ts; what else shall be true belongs into WHERE or a subquery.",
        place,
    )
}

/// The column that a relation's versions have their time in.
fn version_time(plan: &LogicalPlan) -> Option<Expr> {
    let at = scan_time(plan)?;
    Some(Expr::Column(plan.schema().columns().swap_remove(at)))
}

fn scan_time(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => scan_time(&alias.input),
        LogicalPlan::TableScan(scan) if scan.projection.is_none() => {
            let facts = RelationSource::of(&scan.source)?.facts();
            facts.watermark.filter(|_| facts.append_only)
        }
        _ => None,
    }
}

impl AsofJoin {
    fn try_new(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        keys: Vec<(Expr, Expr)>,
        times: (Expr, Expr),
        comparison: Comparison,
        outer: bool,
    ) -> Result<Self> {
        let kind = if outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, keys, times, comparison, outer, schema })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    pub(crate) fn of_plan(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(Extension { node }) => node.as_any().downcast_ref::<Self>(),
            _ => None,
        }
    }

    /// Left rows may match right rows of their own time.
    fn is_inclusive(&self) -> bool {
        matches!(self.comparison, Comparison::LessOrEqual | Comparison::GreaterOrEqual)
    }

    /// For DataFusion to execute.
    pub(crate) fn in_batch(&self) -> Result<LogicalPlan> {
        let ascending = matches!(self.comparison, Comparison::Greater | Comparison::GreaterOrEqual);
        let named = |name: &str| names::distinct(name, 7);
        let of = |name: &str| Expr::Column(Column::new_unqualified(named(name)));
        let integer = |e: Expr| datafusion::logical_expr::cast(e, DataType::Int64);

        // Right rows, counted in order of their times away from the left ones.
        let mut order = vec![self.times.1.clone().sort(ascending, true)];
        for column in self.right.schema().columns() {
            let column = Expr::Column(column);
            if column != self.times.1 {
                order.push(column.sort(ascending, !ascending));
            }
        }
        let Some(row_number) = Registry::global().window("row_number") else {
            return internal_err!("there is no row_number");
        };
        let mut number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number), Vec::new());
        number.params.partition_by = self.keys.iter().map(|(_, key)| key.clone()).collect();
        number.params.order_by = order;
        number.params.window_frame = up_to_row();
        let number = Expr::WindowFunction(Box::new(number)).alias(named("number"));
        let known = self.keys.iter().map(|(_, key)| key).chain([&self.times.1]);
        let known = known.map(|e| e.clone().is_not_null()).reduce(Expr::and);
        let right = LogicalPlanBuilder::from(self.right.as_ref().clone())
            .filter(known.unwrap_or_else(|| lit(true)))?
            .window([number])?;
        let right_columns = || self.right.schema().columns().into_iter().map(Expr::Column);
        let right =
            right.project(right_columns().chain([integer(of("number")).alias(named("place"))]))?.build()?;

        // Rows of both sides: keys, time, side, and the left columns.
        let side = |plan: &LogicalPlan, left: bool| -> Result<LogicalPlan> {
            let (keys, time): (Vec<&Expr>, &Expr) = match left {
                true => (self.keys.iter().map(|key| &key.0).collect(), &self.times.0),
                false => (self.keys.iter().map(|key| &key.1).collect(), &self.times.1),
            };
            let keys = keys.into_iter().enumerate().map(|(n, e)| e.clone().alias(named(&format!("k{n}"))));
            let mut columns: Vec<Expr> = keys.collect();
            columns.push(time.clone().alias(named("time")));
            let side = if left {
                1i64
            } else if self.is_inclusive() {
                0
            } else {
                2
            };
            columns.push(lit(side).alias(named("side")));
            for (n, (qualifier, field)) in self.left.schema().iter().enumerate() {
                let value = match left {
                    true => Expr::from((qualifier, field)),
                    false => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
                };
                columns.push(value.alias(named(&format!("c{n}"))));
            }
            LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()
        };
        let known = self.times.1.clone().is_not_null();
        let candidates = LogicalPlanBuilder::from(self.right.as_ref().clone()).filter(known)?.build()?;
        let Some(count) = Registry::global().aggregate("count") else {
            return internal_err!("there is no count");
        };
        let counted = when(of("side").not_eq(lit(1i64)), lit(1i64)).end()?;
        let mut count = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(count), vec![counted]);
        count.params.partition_by = (0..self.keys.len()).map(|n| of(&format!("k{n}"))).collect();
        count.params.order_by = vec![of("time").sort(ascending, true), of("side").sort(true, false)];
        count.params.window_frame = up_to_row();
        let count = Expr::WindowFunction(Box::new(count)).alias(named("count"));
        let left_columns = self.left.schema().iter().enumerate().map(|(n, (qualifier, field))| {
            of(&format!("c{n}")).alias_qualified(qualifier.cloned(), field.name())
        });
        let left = LogicalPlanBuilder::from(side(&self.left, true)?)
            .union(side(&candidates, false)?)?
            .window([count])?
            .filter(of("side").eq(lit(1i64)))?
            .project(left_columns.chain([integer(of("count")).alias(named("seen"))]))?
            .build()?;
        let mut on: Vec<(Expr, Expr)> = self.keys.clone();
        on.push((of("seen"), of("place")));
        let kind = if self.outer { JoinType::Left } else { JoinType::Inner };
        let (l, r) = on.into_iter().unzip();
        let outputs = self.schema.columns().into_iter().map(Expr::Column);
        LogicalPlanBuilder::from(left)
            .join_with_expr_keys(right, kind, (l, r), None)?
            .project(outputs)?
            .build()
    }
}

fn up_to_row() -> WindowFrame {
    let first = WindowFrameBound::Preceding(ScalarValue::UInt64(None));
    WindowFrame::new_bounds(WindowFrameUnits::Rows, first, WindowFrameBound::CurrentRow)
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.keys, &self.times)
            .partial_cmp(&(&other.keys, &other.times))
            .filter(|o| o.is_ne() || self == other)
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|(l, r)| [l.clone(), r.clone()]);
        keys.chain([self.times.0.clone(), self.times.1.clone()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.outer { "LEFT " } else { "" };
        write!(f, "AsofJoin: {kind}{} {} {}", self.times.0, self.comparison, self.times.1)?;
        self.keys.iter().try_for_each(|(l, r)| write!(f, ", {l} = {r}"))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(right), Some(left), true) = (inputs.pop(), inputs.pop(), inputs.is_empty()) else {
            return internal_err!("an ASOF join has two inputs");
        };
        let mut pairs = exprs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        let keys: Vec<_> = pairs.by_ref().take(self.keys.len()).collect();
        match (pairs.next(), pairs.next()) {
            (Some(times), None) => {
                let (left, right) = (Arc::new(left), Arc::new(right));
                Self::try_new(left, right, keys, times, self.comparison, self.outer)
            }
            _ => internal_err!("an ASOF join has pairs of columns"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let (mut left, mut right): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for column in output_columns {
            match column.checked_sub(width) {
                None => left.push(*column),
                Some(column) => right.push(column),
            }
        }
        let place = |e: &Expr, plan: &LogicalPlan| match e {
            Expr::Column(column) => plan.schema().index_of_column(column).ok(),
            _ => None,
        };
        for (l, r) in self.keys.iter().chain([&self.times]) {
            left.push(place(l, &self.left)?);
            right.push(place(r, &self.right)?);
        }
        for needed in [&mut left, &mut right] {
            needed.sort_unstable();
            needed.dedup();
        }
        Some(vec![left, right])
    }
}
