//! Set-returning functions as a node of the logical plan: each row of the input once per row of its sets.
//!
//! In FROM they come straight from the text ([`crate::table_function`]), out of select lists by [`expand`]. Views have an operator for
//! the node; a batch has the same loop as a physical plan (`engine/src/flat_map.rs`).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, TableReference, internal_err};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, SubqueryAlias, UserDefinedLogicalNodeCore,
};
use millpond_functions::error::into_datafusion;
use millpond_functions::sets::{columns_of, set_in};
use millpond_types::SqlError;

/// Rows of `input`, and beside each the rows of its sets, in step; shorter sets are filled up with NULL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlatMap {
    input: Arc<LogicalPlan>,
    /// Expressions over the input whose values are sets ([`millpond_functions::sets`]).
    sets: Vec<Expr>,
    /// The names of the columns that come of the sets.
    names: Vec<(Option<TableReference>, String)>,
    /// A last column counts the rows of each row.
    ordinality: bool,
    /// A row whose sets are empty stays, with NULLs.
    outer: bool,
    /// The input's columns that stay; `None`: all.
    kept: Option<Vec<Column>>,
    schema: DFSchemaRef,
}

impl FlatMap {
    /// There is a name for each column of each set, and for the ordinality.
    ///
    /// # Errors
    /// XX000 if a set is none, or the names are too few.
    pub(crate) fn try_new(
        input: Arc<LogicalPlan>,
        sets: Vec<Expr>,
        names: Vec<(Option<TableReference>, String)>,
        ordinality: bool,
        outer: bool,
    ) -> Result<Self> {
        Self { input, sets, names, ordinality, outer, kept: None, schema: Arc::new(DFSchema::empty()) }
            .typed()
    }

    fn typed(mut self) -> Result<Self> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = Vec::new();
        for at in self.kept() {
            let (qualifier, field) = self.input.schema().qualified_field(at);
            fields.push((qualifier.cloned(), Arc::clone(field)));
        }
        let mut names = self.names.iter();
        let mut named = |field: &Field| match names.next() {
            Some((qualifier, name)) => {
                Ok((qualifier.clone(), Arc::new(field.clone().with_name(name).with_nullable(true))))
            }
            None => internal_err!("the columns of a set lack names"),
        };
        for set in &self.sets {
            let (_, field) = set.to_field(self.input.schema())?;
            for column in columns_of(field.data_type()).map_err(into_datafusion)? {
                fields.push(named(&column)?);
            }
        }
        if self.ordinality {
            fields.push(named(&Field::new("ordinality", DataType::Int64, true))?);
        }
        let metadata = self.input.schema().metadata().clone();
        self.schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(self)
    }

    pub fn input(&self) -> &Arc<LogicalPlan> {
        &self.input
    }

    pub fn sets(&self) -> &[Expr] {
        &self.sets
    }

    pub fn ordinality(&self) -> bool {
        self.ordinality
    }

    pub fn outer(&self) -> bool {
        self.outer
    }

    /// The input's columns that come first in the output.
    pub fn kept(&self) -> Vec<usize> {
        match &self.kept {
            None => (0..self.input.schema().fields().len()).collect(),
            Some(kept) => {
                let place = |column| self.input.schema().index_of_column(column).ok();
                kept.iter().filter_map(place).collect()
            }
        }
    }

    /// Over an input that has another column, which stays.
    pub(crate) fn carrying(&self, input: LogicalPlan, column: Column) -> Result<Self> {
        let mut kept: Vec<Column> = self.kept().into_iter().map(|at| self.input_column(at)).collect();
        if !kept.contains(&column) {
            kept.push(column);
        }
        Self { input: Arc::new(input), kept: Some(kept), ..self.clone() }.typed()
    }

    fn input_column(&self, at: usize) -> Column {
        Column::from(self.input.schema().qualified_field(at))
    }

    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(Extension { node }) => node.as_any().downcast_ref::<Self>(),
            _ => None,
        }
    }

    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl PartialOrd for FlatMap {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.sets.partial_cmp(&other.sets).filter(|o| *o != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for FlatMap {
    fn name(&self) -> &str {
        "FlatMap"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.sets.clone()
    }

    /// Filters on the input's own columns may run before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.names.iter().map(|(_, name)| name.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "FlatMap: ")?;
        for (at, set) in self.sets.iter().enumerate() {
            write!(f, "{}{set}", if at == 0 { "" } else { ", " })?;
        }
        write!(f, "{}", if self.ordinality { " WITH ORDINALITY" } else { "" })?;
        write!(f, "{}", if self.outer { " (outer)" } else { "" })
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) if exprs.len() == self.sets.len() && inputs.is_empty() => {
                let sets = exprs.into_iter().map(crate::rules::without_alias).collect();
                Self { input: Arc::new(input), sets, ..self.clone() }.typed()
            }
            _ => internal_err!("a flat map has one input and its sets"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept = self.kept();
        let mut needed: Vec<usize> = output_columns.iter().filter_map(|c| kept.get(*c).copied()).collect();
        for set in &self.sets {
            let named = set.column_refs();
            needed.extend(named.into_iter().filter_map(|c| self.input.schema().index_of_column(c).ok()));
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Leaves out columns that nothing above a [`FlatMap`] reads: the list that it takes apart would else stand beside each element.
pub(crate) fn narrow(plan: LogicalPlan) -> Result<LogicalPlan> {
    let narrowed = plan.transform_down_with_subqueries(|plan| {
        let needed = match &plan {
            LogicalPlan::Projection(projection) => columns_in(&projection.expr),
            LogicalPlan::Aggregate(aggregate) => {
                let all: Vec<Expr> =
                    aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
                columns_in(&all)
            }
            _ => return Ok(Transformed::no(plan)),
        };
        plan.map_children(|child| pass_needed(child, &needed))
    });
    narrowed.map(|narrowed| narrowed.data)
}

fn columns_in(expressions: &[Expr]) -> HashSet<Column> {
    expressions.iter().flat_map(Expr::column_refs).cloned().collect()
}

fn pass_needed(plan: LogicalPlan, needed: &HashSet<Column>) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Filter(filter) => {
            let mut needed = needed.clone();
            needed.extend(filter.predicate.column_refs().into_iter().cloned());
            plan.map_children(|child| pass_needed(child, &needed))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below: HashSet<Column> = needed
                .iter()
                .filter_map(|column| plan.schema().index_of_column(column).ok())
                .map(|at| Column::from(alias.input.schema().qualified_field(at)))
                .collect();
            let input = pass_needed(alias.input.as_ref().clone(), &below)?;
            if !input.transformed {
                return Ok(Transformed::no(plan));
            }
            let alias = SubqueryAlias::try_new(Arc::new(input.data), alias.alias.clone())?;
            Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
        }
        other => {
            let Some(map) = FlatMap::of(other) else { return Ok(Transformed::no(plan)) };
            let kept = map.kept();
            let wanted: Vec<Column> = kept
                .iter()
                .map(|at| map.input_column(*at))
                .filter(|column| needed.contains(column))
                .collect();
            let mut below: HashSet<Column> = wanted.iter().cloned().collect();
            below.extend(columns_in(&map.sets));
            let input = pass_needed(map.input.as_ref().clone(), &below)?;
            if wanted.len() == kept.len() && !input.transformed {
                return Ok(Transformed::no(plan));
            }
            let map = FlatMap { input: Arc::new(input.data), kept: Some(wanted), ..map.clone() };
            Ok(Transformed::yes(map.typed()?.into_plan()))
        }
    }
}

/// Set-returning functions out of select lists and GROUP BY, into a [`FlatMap`] below. Those of one list go in step, but for those
/// with others in their arguments, which come after them. Before analysis.
///
/// # Errors
/// 0A000 where PostgreSQL allows none.
pub(crate) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|plan| {
        let mut found = false;
        plan.apply_expressions(|expr| {
            found |= has_sets(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(plan));
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let (input, expr) = taken_out(projection.input, projection.expr)?;
                let plan = datafusion::logical_expr::Projection::try_new(expr, input)?;
                Ok(Transformed::yes(LogicalPlan::Projection(plan)))
            }
            LogicalPlan::Aggregate(aggregate) => {
                for call in &aggregate.aggr_expr {
                    refuse(
                        call,
                        "aggregate function calls cannot contain set-returning function calls",
                        true,
                    )?;
                }
                let (input, group) = taken_out(aggregate.input, aggregate.group_expr)?;
                let plan = datafusion::logical_expr::Aggregate::try_new(input, group, aggregate.aggr_expr)?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(plan)))
            }
            LogicalPlan::Window(_) => {
                Err(not_allowed("window function calls cannot contain set-returning function calls", true))
            }
            LogicalPlan::Filter(_) => {
                Err(not_allowed("set-returning functions are not allowed in WHERE", false))
            }
            LogicalPlan::Join(_) => {
                Err(not_allowed("set-returning functions are not allowed in JOIN conditions", false))
            }
            LogicalPlan::Values(_) => {
                Err(not_allowed("set-returning functions are not allowed in VALUES", false))
            }
            LogicalPlan::Limit(_) => {
                Err(not_allowed("set-returning functions are not allowed in LIMIT", false))
            }
            _ => Err(into_datafusion(
                SqlError::unsupported(
                    "a set-returning function that is no output of its SELECT is not supported",
                )
                .hint("Select it in a subquery, and name it."),
            )),
        }
    });
    expanded.map(|expanded| expanded.data)
}

fn not_allowed(message: &str, movable: bool) -> datafusion::common::DataFusionError {
    let error = SqlError::unsupported(message);
    into_datafusion(match movable {
        true => error.hint("You might be able to move the set-returning function into a LATERAL FROM item."),
        false => error,
    })
}

fn refuse(expr: &Expr, message: &str, movable: bool) -> Result<()> {
    match has_sets(expr) {
        true => Err(not_allowed(message, movable)),
        false => Ok(()),
    }
}

/// PostgreSQL evaluates what stands in CASE and COALESCE only where it is wanted.
fn refuse_conditional(expr: &Expr) -> Result<()> {
    expr.apply(|e| {
        let what = match e {
            Expr::Case(_) => "CASE",
            Expr::ScalarFunction(call) if call.func.name() == "coalesce" => "COALESCE",
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        refuse(e, &format!("set-returning functions are not allowed in {what}"), true)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The expressions with columns in the place of their sets, and the input that has these.
fn taken_out(input: Arc<LogicalPlan>, mut expressions: Vec<Expr>) -> Result<(Arc<LogicalPlan>, Vec<Expr>)> {
    expressions.iter().try_for_each(refuse_conditional)?;
    let mut input = input;
    loop {
        let mut calls: Vec<Expr> = Vec::new();
        for expr in &expressions {
            expr.apply(|e| {
                if set_in(e).is_some_and(|set| !has_sets(set)) && !calls.contains(e) {
                    calls.push(e.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if calls.is_empty() {
            return Ok((input, expressions));
        }
        let sets: Vec<Expr> = calls.iter().filter_map(|call| set_in(call).cloned()).collect();
        // By the names that the calls have in the outputs.
        let names: Vec<String> = calls.iter().map(|call| call.schema_name().to_string()).collect();
        let columns = names.iter().map(|name| (None, name.clone())).collect();
        input = Arc::new(FlatMap::try_new(input, sets, columns, false, false)?.into_plan());
        let mut replaced = Vec::with_capacity(expressions.len());
        for expr in expressions {
            let done = expr.transform_down(|e| {
                Ok(match calls.iter().position(|call| *call == e) {
                    Some(at) => Transformed::new(
                        Expr::Column(Column::new_unqualified(names[at].clone())),
                        true,
                        TreeNodeRecursion::Jump,
                    ),
                    None => Transformed::no(e),
                })
            })?;
            replaced.push(done.data);
        }
        expressions = replaced;
    }
}

fn has_sets(expr: &Expr) -> bool {
    expr.exists(|e| Ok(set_in(e).is_some())).unwrap_or(true)
}
