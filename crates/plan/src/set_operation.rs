//! INTERSECT and EXCEPT as a node of the logical plan.
//!
//! DataFusion plans them as joins, which have no ALL: `INTERSECT ALL` keeps a row as often as the rarer side has it,
//! `EXCEPT ALL` as often as the left side has it more. Here both sides are one UNION ALL that remembers the side of each row;
//! types are brought together there, as for UNION. The rows are counted per side, and the counts say how often a row
//! stands in the answer.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, JoinType, NullEquality, Result, TableReference, internal_err,
};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Extension, Join, LogicalPlan, LogicalPlanBuilder,
    UserDefinedLogicalNodeCore, lit, when,
};
use millpond_functions::Registry;
use millpond_functions::sets::set_function;

use crate::flat_map::FlatMap;
use crate::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SetKind {
    Intersect,
    Except,
}

/// Rows that both sides have, or only the left one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SetOperation {
    pub(crate) kind: SetKind,
    pub(crate) all: bool,
    /// The rows of both sides: their columns, then whether the row is of the right one.
    pub(crate) input: Arc<LogicalPlan>,
    outputs: Vec<(Option<TableReference>, String)>,
    schema: DFSchemaRef,
}

fn place(n: usize) -> String {
    names::distinct(&format!("c{n}"), 1)
}

fn right_side() -> String {
    names::distinct("right", 1)
}

fn plain(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// DataFusion's joins for INTERSECT and EXCEPT as what they mean. Before analysis, where no other join is of that kind.
pub(crate) fn set_operations(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) if is_set_operation(&join) => SetOperation::of(join).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|t| t.data)
}

fn is_set_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
}

impl SetOperation {
    fn of(join: Join) -> Result<LogicalPlan> {
        let kind = if join.join_type == JoinType::LeftSemi { SetKind::Intersect } else { SetKind::Except };
        let outputs = join.left.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone())).collect();
        // Without duplicates on the left, ALL means nothing.
        let (left, all) = match Arc::unwrap_or_clone(join.left) {
            LogicalPlan::Distinct(Distinct::All(left)) => (Arc::unwrap_or_clone(left), false),
            left => (left, true),
        };
        let side = |plan: LogicalPlan, right: bool| {
            let columns = plan.schema().columns();
            let columns = columns.into_iter().enumerate().map(|(n, c)| Expr::Column(c).alias(place(n)));
            let columns: Vec<Expr> = columns.chain([lit(right).alias(right_side())]).collect();
            LogicalPlanBuilder::from(plan).project(columns)?.build()
        };
        let right = side(Arc::unwrap_or_clone(join.right), true)?;
        let input = LogicalPlanBuilder::from(side(left, false)?).union(right)?.build()?;
        Self::try_new(kind, all, Arc::new(input), outputs).map(Self::into_plan)
    }

    fn try_new(
        kind: SetKind,
        all: bool,
        input: Arc<LogicalPlan>,
        outputs: Vec<(Option<TableReference>, String)>,
    ) -> Result<Self> {
        if input.schema().fields().len() != outputs.len() + 1 {
            return internal_err!("a set operation over other columns than its own");
        }
        let fields = outputs.iter().zip(input.schema().fields()).map(|((qualifier, name), field)| {
            let field: Field = field.as_ref().clone().with_name(name);
            (qualifier.clone(), Arc::new(field))
        });
        let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
        Ok(Self { kind, all, input, outputs, schema })
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

    /// The same for each value of `keys`, which are the last columns of `input`, behind the side.
    pub(crate) fn per_key(&self, input: LogicalPlan, keys: &[Column]) -> Result<LogicalPlan> {
        let mut outputs = self.outputs.clone();
        outputs.extend(keys.iter().map(|key| (key.relation.clone(), key.name.clone())));
        let mut columns = input.schema().columns();
        let side = columns.remove(self.outputs.len());
        columns.push(side);
        let input =
            LogicalPlanBuilder::from(input).project(columns.into_iter().map(Expr::Column))?.build()?;
        Self::try_new(self.kind, self.all, Arc::new(input), outputs).map(Self::into_plan)
    }

    /// The rows of the answer once each, with how often they stand there if that is asked for (ALL).
    pub(crate) fn counted(&self) -> Result<LogicalPlan> {
        let input = self.input.schema();
        let columns: Vec<Column> = input.columns();
        let (side, columns) = match columns.split_last() {
            Some((side, columns)) => (Expr::Column(side.clone()), columns.to_vec()),
            None => return internal_err!("a set operation without columns"),
        };
        let Some(count) = Registry::global().aggregate("count") else {
            return internal_err!("there is no count");
        };
        let counted = |filter: Expr, name: &str| -> Result<Expr> {
            Ok(count.call(vec![lit(1i64)]).filter(filter).build()?.alias(names::distinct(name, 1)))
        };
        let counts =
            vec![counted(Expr::Not(Box::new(side.clone())), "left_count")?, counted(side, "right_count")?];
        let [left, right] = ["left_count", "right_count"].map(|name| plain(&names::distinct(name, 1)));
        let keep = match (self.kind, self.all) {
            (SetKind::Intersect, _) => left.clone().gt(lit(0i64)).and(right.clone().gt(lit(0i64))),
            (SetKind::Except, false) => left.clone().gt(lit(0i64)).and(right.clone().eq(lit(0i64))),
            (SetKind::Except, true) => left.clone().gt(right.clone()),
        };
        let times = match self.kind {
            SetKind::Intersect => when(left.clone().lt(right.clone()), left).otherwise(right)?,
            SetKind::Except => left - right,
        };
        let group: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
        let kept =
            LogicalPlanBuilder::from(self.input.as_ref().clone()).aggregate(group, counts)?.filter(keep)?;
        let outputs = columns
            .into_iter()
            .zip(&self.outputs)
            .map(|(column, (qualifier, name))| Expr::Column(column).alias_qualified(qualifier.clone(), name));
        let times = self.all.then(|| times.alias(Self::times()));
        kept.project(outputs.chain(times))?.build()
    }

    /// The column that says how often a row stands in the answer.
    pub(crate) fn times() -> String {
        names::distinct("times", 1)
    }

    /// For DataFusion to execute.
    pub(crate) fn in_batch(&self) -> Result<LogicalPlan> {
        let counted = self.counted()?;
        if !self.all {
            return Ok(counted);
        }
        let Some(range) = set_function("range") else {
            return internal_err!("there is no range");
        };
        let copies = range.call(vec![lit(0i64), plain(&Self::times())]);
        let name = (None, names::distinct("copies", 1));
        let copied = FlatMap::try_new(Arc::new(counted), vec![copies], vec![name], false, false)?.into_plan();
        let columns = || {
            let outputs = self.outputs.iter().cloned();
            outputs.map(|(qualifier, name)| Expr::Column(Column::new(qualifier, name)))
        };
        LogicalPlanBuilder::from(copied).project(columns())?.build()
    }
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.kind, self.all).partial_cmp(&(other.kind, other.all)).filter(|o| o.is_ne() || self == other)
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &str {
        "SetOperation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            SetKind::Intersect => "INTERSECT",
            SetKind::Except => "EXCEPT",
        };
        write!(f, "SetOperation: {kind}{}", if self.all { " ALL" } else { "" })
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) if exprs.is_empty() && inputs.is_empty() => {
                Self::try_new(self.kind, self.all, Arc::new(input), self.outputs.clone())
            }
            _ => internal_err!("a set operation has one input and no expressions"),
        }
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}
