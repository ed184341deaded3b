//! Set-returning functions in FROM, to [`FlatMap`].
//!
//! What names columns of relations before it (LATERAL is implied) gets, before names are bound, a node of its own with all that is
//! left of it ([`nest`]); [`plan`] reads that. What names none is a relation by itself.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{DFSchema, Result, TableReference, internal_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use millpond_functions::error::into_datafusion;
use millpond_functions::sets::{column_names, columns_of, set_function};
use millpond_sql::{fold, position_of};
use millpond_types::{SqlError, SqlState};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, Spanned, TableFactor,
    TableWithJoins, Visit, Visitor,
};

use crate::errors::at_opt;
use crate::flat_map::FlatMap;
use crate::names;

/// A call in FROM.
struct Call<'a> {
    name: String,
    arguments: Vec<&'a ast::Expr>,
    alias: Option<&'a ast::TableAlias>,
    ordinality: bool,
}

/// The set-returning function that a FROM item calls.
pub(crate) fn function_of(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::UNNEST { .. } => Some("unnest".to_owned()),
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
            named(name).filter(|name| set_function(name).is_some())
        }
        _ => None,
    }
}

/// `f`, or `pg_catalog.f`.
pub(crate) fn named(name: &ast::ObjectName) -> Option<String> {
    let part = |part: &ast::ObjectNamePart| part.as_ident().map(fold);
    match &name.0[..] {
        [only] => part(only),
        [schema, last] if part(schema).as_deref() == Some("pg_catalog") => part(last),
        _ => None,
    }
}

impl<'a> Call<'a> {
    fn of(factor: &'a TableFactor) -> std::result::Result<Self, SqlError> {
        let (args, alias, ordinality) = match factor {
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let arguments = array_exprs.iter().collect();
                let name = "unnest".to_owned();
                return Ok(Self { name, arguments, alias: alias.as_ref(), ordinality: *with_ordinality });
            }
            TableFactor::Table { args: Some(args), alias, with_ordinality, .. } => {
                (&args.args, alias, *with_ordinality)
            }
            TableFactor::Function { args, alias, with_ordinality, .. } => (args, alias, *with_ordinality),
            _ => return Err(SqlError::internal("no function is called there")),
        };
        let name = function_of(factor).ok_or_else(|| SqlError::internal("no set is returned there"))?;
        let mut arguments = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(expr),
                other => {
                    let error = SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        format!("{name} does not take the argument {other}"),
                    );
                    return Err(at_opt(error, position_of(other.span())));
                }
            }
        }
        Ok(Self { name, arguments, alias: alias.as_ref(), ordinality })
    }
}

/// Whether a call names columns, of relations before it or of queries around it.
fn names_columns(factor: &TableFactor) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            match expr {
                ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let Ok(call) = Call::of(factor) else { return false };
    call.arguments.iter().any(|argument| Visit::visit(*argument, &mut Columns).is_break())
}

/// The column of a function in FROM whose alias is `name`, if it has no other: such a name alone is its value.
pub(crate) fn only_column(query: &ast::Query, name: &str) -> Option<ast::Ident> {
    struct Find<'a>(&'a str);
    impl Visitor for Find<'_> {
        type Break = ast::Ident;
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<ast::Ident> {
            let Ok(call) = Call::of(factor) else { return ControlFlow::Continue(()) };
            let own = column_names(&call.name);
            let only =
                own.len() <= 1 && !call.ordinality && (call.name != "unnest" || call.arguments.len() == 1);
            let table = call.alias.map_or_else(|| call.name.clone(), |alias| fold(&alias.name));
            if !only || table != self.0 {
                return ControlFlow::Continue(());
            }
            let given = call.alias.and_then(|alias| alias.columns.first()).map(|column| column.name.clone());
            let own = || own.first().map(|own| ast::Ident::with_quote('"', *own));
            given.or_else(own).map_or(ControlFlow::Continue(()), ControlFlow::Break)
        }
    }
    match Visit::visit(query, &mut Find(name)) {
        ControlFlow::Break(column) => Some(column),
        ControlFlow::Continue(()) => None,
    }
}

fn is_lateral(factor: &TableFactor) -> bool {
    function_of(factor).is_some() && names_columns(factor)
}

/// Puts each call that may name columns of what stands before it into a node with that.
///
/// # Errors
/// 42P10 for a RIGHT or FULL JOIN with such a call; 0A000 for a LEFT JOIN with a condition.
pub(crate) fn nest(from: &mut Vec<TableWithJoins>) -> std::result::Result<(), SqlError> {
    let mut at = 1;
    while at < from.len() {
        if !is_lateral(&from[at].relation) {
            at += 1;
            continue;
        }
        let item = from.remove(at);
        let mut before = from.drain(..at);
        let Some(mut left) = before.next() else { return Err(SqlError::internal("there is an item before")) };
        for other in before {
            let relation = if other.joins.is_empty() { other.relation } else { nested(other) };
            left.joins.push(cross(relation));
        }
        left.joins.push(cross(item.relation));
        left.joins.extend(item.joins);
        from.insert(0, left);
        at = 1;
    }
    from.iter_mut().try_for_each(|from| nest_joins(from, false))
}

fn cross(relation: TableFactor) -> Join {
    Join { relation, global: false, join_operator: JoinOperator::CrossJoin(JoinConstraint::None) }
}

/// As [`nest`], among the joins of one item, which may be in parentheses.
pub(crate) fn nest_joins(
    from: &mut TableWithJoins,
    in_parentheses: bool,
) -> std::result::Result<(), SqlError> {
    while let Some(at) = from.joins.iter().position(|join| is_lateral(&join.relation)) {
        if in_parentheses && is_marked(from) {
            return Ok(());
        }
        let rest = from.joins.split_off(at + 1);
        let join = from.joins.pop().ok_or_else(|| SqlError::internal("it was just found"))?;
        check(&join)?;
        let before =
            TableWithJoins { relation: from.relation.clone(), joins: std::mem::take(&mut from.joins) };
        let relation = if before.joins.is_empty() { before.relation } else { nested(before) };
        from.relation = nested(TableWithJoins { relation, joins: vec![join] });
        from.joins = rest;
    }
    Ok(())
}

fn nested(from: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(from), alias: None }
}

fn check(join: &Join) -> std::result::Result<(), SqlError> {
    let place = position_of(join.relation.span());
    match kind(&join.join_operator) {
        Some((true, Some(condition))) if !is_true(condition) => {
            let error = SqlError::unsupported(
                "LEFT JOIN of a set-returning function with another condition than true is not supported",
            );
            Err(at_opt(error.hint("Write LEFT JOIN … ON true in a subquery, and filter there."), place))
        }
        Some(_) => Ok(()),
        None => {
            let error = SqlError::new(SqlState::new("42P10"), "invalid reference to FROM-clause entry");
            let error =
                error.detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.");
            Err(at_opt(error, place))
        }
    }
}

/// Whether rows without a match stay, and the condition.
fn kind(operator: &JoinOperator) -> Option<(bool, Option<&ast::Expr>)> {
    let (outer, constraint) = match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint) => (false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint),
        _ => return None,
    };
    match constraint {
        JoinConstraint::On(condition) => Some((outer, Some(condition))),
        JoinConstraint::None => Some((outer, None)),
        JoinConstraint::Using(_) | JoinConstraint::Natural => None,
    }
}

fn is_true(condition: &ast::Expr) -> bool {
    match condition {
        ast::Expr::Nested(inner) => is_true(inner),
        ast::Expr::Value(value) => value.value == ast::Value::Boolean(true),
        _ => false,
    }
}

/// Whether [`plan_nested`] reads it.
pub(crate) fn is_marked(from: &TableWithJoins) -> bool {
    matches!(&from.joins[..], [only] if is_lateral(&only.relation) && kind(&only.join_operator).is_some())
}

/// A call with the relations before it.
pub(crate) fn plan_nested(
    from: TableWithJoins,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let TableWithJoins { relation, mut joins } = from;
    let Some(Join { relation: function, join_operator, .. }) = joins.pop() else {
        return internal_err!("a function without its join");
    };
    let Some((outer, condition)) = kind(&join_operator) else {
        return internal_err!("a function in a join of another kind");
    };
    let left = context.plan(relation)?;
    let plan = plan_over(left, &function, outer, context)?;
    match condition.filter(|condition| !is_true(condition)) {
        None => Ok(plan),
        Some(condition) => {
            let condition = context.sql_to_expr(condition.clone(), plan.schema())?;
            LogicalPlanBuilder::from(plan).filter(condition)?.build()
        }
    }
}

/// A call that stands for itself.
pub(crate) fn plan(function: &TableFactor, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    plan_over(LogicalPlanBuilder::empty(true).build()?, function, false, context)
}

fn plan_over(
    input: LogicalPlan,
    function: &TableFactor,
    outer: bool,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let call = Call::of(function).map_err(into_datafusion)?;
    let place = position_of(function.span());
    let Some(set) = set_function(&call.name) else {
        return internal_err!("{} returns no set", call.name);
    };
    let mut arguments = Vec::with_capacity(call.arguments.len());
    for argument in &call.arguments {
        let bound = context.sql_expr_to_logical_expr((*argument).clone(), input.schema())?;
        if bound.contains_outer() {
            let text = format!("{} of a column of the query around it is not supported", call.name);
            let error = SqlError::unsupported(text)
                .hint("Call it in FROM of that query: FROM t LEFT JOIN f(t.a) AS x ON true, and group.");
            return Err(into_datafusion(at_opt(error, position_of(argument.span()).or(place))));
        }
        arguments.push(context.sql_to_expr((*argument).clone(), input.schema())?);
    }
    let sets: Vec<Expr> = match call.name.as_str() {
        "unnest" => arguments.into_iter().map(|array| set.call(vec![array])).collect(),
        _ => vec![set.call(arguments)],
    };
    let names = column_aliases(&call, &sets, input.schema()).map_err(|error| match error {
        Failure::Sql(error) => into_datafusion(at_opt(error, place)),
        Failure::Other(error) => error,
    })?;
    let ordinality = call.ordinality;
    Ok(FlatMap::try_new(Arc::new(input), sets, names, ordinality, outer)?.into_plan())
}

enum Failure {
    Sql(SqlError),
    Other(datafusion::common::DataFusionError),
}

/// PostgreSQL's names: of a function with one column that has none of its own, the alias; what the alias lists, first.
fn column_aliases(
    call: &Call<'_>,
    sets: &[Expr],
    schema: &DFSchema,
) -> std::result::Result<Vec<(Option<TableReference>, String)>, Failure> {
    let table = call.alias.map_or_else(|| call.name.clone(), |alias| fold(&alias.name));
    let mut columns: Vec<String> = Vec::new();
    for set in sets {
        let ty = set.get_type(schema).map_err(Failure::Other)?;
        let width = columns_of(&ty).map_err(Failure::Sql)?.len();
        let own = column_names(&call.name);
        for at in 0..width {
            columns.push(match own.get(at) {
                Some(own) => (*own).to_owned(),
                None if sets.len() == 1 => table.clone(),
                None => call.name.clone(),
            });
        }
    }
    if call.ordinality {
        columns.push("ordinality".to_owned());
    }
    let given = call.alias.map_or(&[][..], |alias| &alias.columns);
    if let Some(typed) = given.iter().find(|column| column.data_type.is_some()) {
        let text = "a column definition list is only allowed for functions returning \"record\"";
        return Err(Failure::Sql(at_opt(
            SqlError::new(SqlState::SYNTAX_ERROR, text),
            position_of(typed.name.span),
        )));
    }
    if given.len() > columns.len() {
        let text = format!(
            "table \"{table}\" has {} columns available but {} columns specified",
            columns.len(),
            given.len()
        );
        return Err(Failure::Sql(SqlError::new(SqlState::new("42P10"), text)));
    }
    for (column, given) in columns.iter_mut().zip(given) {
        *column = fold(&given.name);
    }
    let mut unique: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let seen = unique.iter().filter(|other| names::shown(other) == column).count();
        unique.push(if seen == 0 { column } else { names::distinct(&column, seen + 1) });
    }
    let table = TableReference::bare(table);
    Ok(unique.into_iter().map(|name| (Some(table.clone()), name)).collect())
}
