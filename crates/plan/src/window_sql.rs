//! TUMBLE, HOP, CUMULATE and SESSION in FROM, in RisingWave's and in Flink's spelling, to [`WindowTvf`].

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan};
use millpond_functions::Zone;
use millpond_functions::error::into_datafusion;
use millpond_functions::rewrite::postgres_literal;
use millpond_functions::window::{Cumulate, Hop, Span as Length, Tumble};
use millpond_sql::{PARTITIONED, fold, position_of};
use millpond_types::{SqlError, SqlState};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Spanned, TableFactor};
use sqlparser::tokenizer::Span;

use crate::errors::at_opt;
use crate::window::{WindowKind, WindowTvf};
use crate::{asof, rules, table_function};

/// Plans windows in time and set-returning functions; leaves all else to DataFusion.
#[derive(Debug)]
pub(crate) struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if is_window(&name) => {
                planned(Call::new(&name, args.args, span)?.plan(context)?, alias)
            }
            TableFactor::TableFunction { expr: ast::Expr::Function(function), alias }
                if is_window(&function.name) =>
            {
                let args = match function.args {
                    ast::FunctionArguments::List(list) => list.args,
                    _ => Vec::new(),
                };
                planned(Call::new(&function.name, args, span)?.plan(context)?, alias)
            }
            TableFactor::NestedJoin { table_with_joins, alias: None }
                if asof::is_marked(&table_with_joins) =>
            {
                planned(asof::plan(*table_with_joins, context)?, None)
            }
            TableFactor::TableFunction { expr, alias: _ } => {
                let error = SqlError::unsupported(format!("TABLE({expr}) is not supported"))
                    .hint("Functions inside TABLE( ) are TUMBLE, HOP, CUMULATE and SESSION.");
                Err(into_datafusion(at_opt(error, position_of(span))))
            }
            TableFactor::NestedJoin { table_with_joins, alias }
                if table_function::is_marked(&table_with_joins) =>
            {
                planned(table_function::plan_nested(*table_with_joins, context)?, alias)
            }
            function if table_function::function_of(&function).is_some() => {
                planned(table_function::plan(&function, context)?, None)
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn planned(plan: LogicalPlan, alias: Option<ast::TableAlias>) -> Result<RelationPlanning> {
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

fn last_name(name: &ast::ObjectName) -> String {
    name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default()
}

fn is_window(name: &ast::ObjectName) -> bool {
    name.0.len() == 1 && matches!(last_name(name).as_str(), "tumble" | "hop" | "cumulate" | "session")
}

/// The relation that the first argument of a window function names, if it is a plain name (`t`, `TABLE t`).
pub(crate) fn table_argument(args: &[FunctionArg]) -> Option<ast::ObjectName> {
    let named = args.iter().filter_map(named_argument).find(|(name, _)| name == "data").map(|(_, expr)| expr);
    let first = named.or_else(|| match args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    })?;
    plain_name(first)
}

/// `name => value`, which is one of two nodes of the tree.
fn named_argument(arg: &FunctionArg) -> Option<(String, &ast::Expr)> {
    match arg {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => Some((fold(name), expr)),
        FunctionArg::ExprNamed {
            name: ast::Expr::Identifier(name),
            arg: FunctionArgExpr::Expr(expr),
            ..
        } => Some((fold(name), expr)),
        _ => None,
    }
}

fn plain_name(expr: &ast::Expr) -> Option<ast::ObjectName> {
    match expr {
        ast::Expr::Identifier(ident) => Some(ast::ObjectName::from(vec![ident.clone()])),
        ast::Expr::CompoundIdentifier(idents) => Some(ast::ObjectName::from(idents.clone())),
        // `TABLE t`, as the parser hands it on.
        ast::Expr::Subquery(query) => match query.body.as_ref() {
            ast::SetExpr::Select(select) if is_table_query(query, select) => match &select.from[0].relation {
                TableFactor::Table { name, alias: None, args: None, .. } => Some(name.clone()),
                // A name with its schema has been given its last part as alias.
                TableFactor::Table { name, alias: Some(alias), args: None, .. }
                    if alias.columns.is_empty() && fold(&alias.name) == last_name(name) =>
                {
                    Some(name.clone())
                }
                _ => None,
            },
            _ => None,
        },
        ast::Expr::Function(function) => plain_name(partitioned(function)?.0),
        _ => None,
    }
}

/// `t PARTITION BY a, b`, as the parser hands it on.
fn partitioned(function: &ast::Function) -> Option<(&ast::Expr, Vec<&ast::Expr>)> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    if function.name.0.last().and_then(|part| part.as_ident())?.value != PARTITIONED {
        return None;
    }
    let mut args = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((args.next()?, args.collect()))
}

/// `SELECT * FROM t` and nothing more.
fn is_table_query(query: &ast::Query, select: &ast::Select) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && matches!(select.projection[..], [ast::SelectItem::Wildcard(_)])
        && select.from.len() == 1
        && select.from[0].joins.is_empty()
        && select.selection.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, ast::GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty())
}

/// A call of a window function with its arguments in order: table, time, sizes, and a last one that may be missing.
struct Call {
    function: String,
    table: ast::Expr,
    /// Of SESSION.
    partition: Vec<ast::Expr>,
    time: ast::Expr,
    /// By position: size, offset for TUMBLE; slide, size, offset for HOP; step, size, offset for CUMULATE; gap, nothing for SESSION.
    sizes: Vec<Option<ast::Expr>>,
    span: Span,
}

impl Call {
    fn new(name: &ast::ObjectName, args: Vec<FunctionArg>, span: Span) -> Result<Self> {
        Self::parse(name, args, span).map_err(into_datafusion)
    }

    fn parse(
        name: &ast::ObjectName,
        args: Vec<FunctionArg>,
        span: Span,
    ) -> std::result::Result<Self, SqlError> {
        let function = last_name(name).to_uppercase();
        let names: &[&str] = match function.as_str() {
            "TUMBLE" => &["data", "timecol", "size", "offset"],
            "HOP" => &["data", "timecol", "slide", "size", "offset"],
            "CUMULATE" => &["data", "timecol", "step", "size", "offset"],
            "SESSION" => &["data", "timecol", "gap"],
            other => {
                let error = SqlError::unsupported(format!("{other} windows are not supported"))
                    .hint("Use TUMBLE, HOP, CUMULATE or SESSION.");
                return Err(at_opt(error, position_of(span)));
            }
        };
        let mut places: Vec<Option<ast::Expr>> = vec![None; names.len()];
        let count = args.len();
        for (i, arg) in args.into_iter().enumerate() {
            let (at, expr) = match (&arg, named_argument(&arg)) {
                (_, Some((name, expr))) => (names.iter().position(|n| *n == name), expr.clone()),
                (FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)), None) if i < names.len() => {
                    (Some(i), expr.clone())
                }
                _ => return Err(usage(&function, count, position_of(arg.span()).or(position_of(span)))),
            };
            match at {
                Some(at) if places[at].is_none() => places[at] = Some(expr),
                _ => return Err(usage(&function, count, position_of(expr.span()).or(position_of(span)))),
            }
        }
        let mut places = places.into_iter();
        let (table, time) = (places.next().flatten(), places.next().flatten());
        let mut sizes: Vec<_> = places.collect();
        if function == "SESSION" {
            sizes.push(None);
        }
        let (table, partition) = match table {
            Some(ast::Expr::Function(call)) if function == "SESSION" => match partitioned(&call) {
                Some((table, keys)) => (Some(table.clone()), keys.into_iter().cloned().collect()),
                None => (Some(ast::Expr::Function(call)), Vec::new()),
            },
            table => (table, Vec::new()),
        };
        match (table, time) {
            (Some(table), Some(time)) if sizes[..sizes.len() - 1].iter().all(Option::is_some) => {
                Ok(Self { function, table, partition, time: descriptor(time), sizes, span })
            }
            _ => Err(usage(&function, count, position_of(span))),
        }
    }

    fn plan(self, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let input = self.input(context)?;
        let time = self.time_column(&input, context)?;
        let partition = self.partition.iter().map(|key| self.partition_column(key, &input, context));
        let partition = partition.collect::<Result<Vec<_>>>()?;
        let mut sizes = Vec::with_capacity(self.sizes.len());
        for (i, size) in self.sizes.iter().enumerate() {
            let offset = i + 1 == self.sizes.len();
            sizes.push(match size {
                None => None,
                Some(expr) => {
                    let place = position_of(expr.span()).or(position_of(self.span));
                    let interval = interval(&self.function, offset, constant(expr.clone(), context)?);
                    Some((interval.map_err(|e| into_datafusion(at_opt(e, place)))?, place))
                }
            });
        }
        let kind = self.kind(&sizes).map_err(into_datafusion)?;
        let window = WindowTvf::try_new(Arc::new(input), kind, time, partition).map_err(|_| {
            let text =
                "the input of a window function has a column \"window_start\" or \"window_end\" already";
            let error = SqlError::new(SqlState::DUPLICATE_COLUMN, text)
                .hint("Give it another name with AS in a subquery.");
            into_datafusion(at_opt(error, position_of(self.span)))
        })?;
        Ok(window.into_plan())
    }

    fn input(&self, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let factor = match (plain_name(&self.table), &self.table) {
            (Some(name), _) => relation_factor(name),
            (None, ast::Expr::Subquery(query)) => {
                TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None }
            }
            (None, ast::Expr::Nested(inner)) => {
                let nested = Self { table: (**inner).clone(), sizes: Vec::new(), ..self.shallow() };
                return nested.input(context);
            }
            (None, ast::Expr::Function(function)) => {
                TableFactor::TableFunction { expr: ast::Expr::Function(function.clone()), alias: None }
            }
            (None, other) => {
                let text = format!("the first argument of {} must be a relation", self.function);
                let error = SqlError::new(SqlState::WRONG_OBJECT_TYPE, text)
                    .hint("Give a table, source, view, CTE or (SELECT ...).");
                return Err(into_datafusion(at_opt(
                    error,
                    position_of(other.span()).or(position_of(self.span)),
                )));
            }
        };
        context.plan(factor)
    }

    fn shallow(&self) -> Self {
        Self {
            function: self.function.clone(),
            table: self.table.clone(),
            partition: Vec::new(),
            time: self.time.clone(),
            sizes: Vec::new(),
            span: self.span,
        }
    }

    fn time_column(&self, input: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
        let place = position_of(self.time.span()).or(position_of(self.span));
        let text_name = match &self.time {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::SingleQuotedString(name) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        let expr = match text_name {
            Some(_) => None,
            None => Some(context.sql_to_expr(self.time.clone(), input.schema())?),
        };
        let Some(Expr::Column(column)) = expr.map(rules::without_alias) else {
            let text = format!("the time of {} must be a column", self.function);
            let error = SqlError::new(SqlState::DATATYPE_MISMATCH, text)
                .hint("Compute it in a subquery, and name that column.");
            return Err(into_datafusion(at_opt(error, place)));
        };
        let (qualifier, field) = match &column.relation {
            Some(_) => input.schema().qualified_field_from_column(&column)?,
            None => input.schema().qualified_field_with_unqualified_name(&column.name)?,
        };
        if !matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            let ty = crate::constant::argument_name(field.data_type());
            let text = format!("the time of {} must be of type timestamp, not {ty}", self.function);
            let error = SqlError::new(SqlState::DATATYPE_MISMATCH, text)
                .hint("Cast it to timestamp or timestamptz in a subquery.");
            return Err(into_datafusion(at_opt(error, place)));
        }
        Ok(Expr::from((qualifier, field)))
    }

    fn partition_column(
        &self,
        key: &ast::Expr,
        input: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Expr> {
        let expr = rules::without_alias(context.sql_to_expr(key.clone(), input.schema())?);
        let Expr::Column(column) = expr else {
            let text = "sessions are partitioned by columns";
            let error = SqlError::unsupported(text).hint("Compute it in a subquery, and name that column.");
            return Err(into_datafusion(at_opt(error, position_of(key.span()).or(position_of(self.span)))));
        };
        let (qualifier, field) = match &column.relation {
            Some(_) => input.schema().qualified_field_from_column(&column)?,
            None => input.schema().qualified_field_with_unqualified_name(&column.name)?,
        };
        Ok(Expr::from((qualifier, field)))
    }

    fn kind(
        &self,
        sizes: &[Option<(IntervalMonthDayNano, Option<usize>)>],
    ) -> std::result::Result<WindowKind, SqlError> {
        let value = |i: usize| sizes[i].map(|(interval, _)| interval);
        let place = |i: usize| sizes[i].and_then(|(_, place)| place).or(position_of(self.span));
        let offset = sizes.len() - 1;
        let zero = IntervalMonthDayNano::ZERO;
        let kind = match (sizes.len(), value(0), value(1)) {
            (2, Some(gap), _) if self.function == "SESSION" => {
                return session(gap).map_err(|error| at_opt(error, place(0)));
            }
            (2, Some(size), _) => WindowKind::Tumble { size, offset: value(offset).unwrap_or(zero) },
            (3, Some(step), Some(size)) if self.function == "CUMULATE" => {
                WindowKind::Cumulate { step, size, offset: value(offset).unwrap_or(zero) }
            }
            (3, Some(slide), Some(size)) => {
                WindowKind::Hop { slide, size, offset: value(offset).unwrap_or(zero) }
            }
            _ => return Err(usage(&self.function, sizes.len() + 2, position_of(self.span))),
        };
        let checked = match kind {
            WindowKind::Tumble { size, .. } => Tumble::new(size, value(offset)).map(|_| ()),
            WindowKind::Hop { slide, size, .. } => {
                if months(&slide) == months(&size) && length(&slide) > length(&size) {
                    let error = SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "the slide of HOP is longer than its size: slide and size may be swapped",
                    )
                    .hint("HOP takes the slide first: HOP(t, ts, slide, size).");
                    return Err(at_opt(error, place(0)));
                }
                Hop::new(slide, size, value(offset)).map(|_| ())
            }
            WindowKind::Cumulate { step, size, .. } => Cumulate::new(step, size, value(offset)).map(|_| ()),
            WindowKind::Session { .. } => Ok(()),
        };
        checked.map(|()| kind).map_err(|error| at_opt(error, place(0)))
    }
}

fn session(gap: IntervalMonthDayNano) -> std::result::Result<WindowKind, SqlError> {
    match Length::size(gap)? {
        Length::Fixed(gap_us) => Ok(WindowKind::Session { gap_us }),
        Length::Months(_) => {
            let text = "the gap of a session cannot have months";
            Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text).hint("Write it in days or less."))
        }
    }
}

fn months(interval: &IntervalMonthDayNano) -> bool {
    interval.months != 0
}

fn length(interval: &IntervalMonthDayNano) -> i128 {
    let month = 30 * 86_400_000_000_000_i128;
    i128::from(interval.months) * month
        + i128::from(interval.days) * 86_400_000_000_000
        + i128::from(interval.nanoseconds)
}

fn relation_factor(name: ast::ObjectName) -> TableFactor {
    // As the parser would have read it: columns are qualified by the last part of the name.
    let alias = (name.0.len() > 1).then(|| name.0.last().and_then(|p| p.as_ident()).cloned()).flatten();
    TableFactor::Table {
        name,
        alias: alias.map(|name| ast::TableAlias { explicit: true, name, columns: Vec::new(), at: None }),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn usage(function: &str, given: usize, place: Option<usize>) -> SqlError {
    let (want, form) = match function {
        "TUMBLE" => ("3 or 4", "TUMBLE(t, ts, INTERVAL '1 minute' [, offset])"),
        "CUMULATE" => ("4 or 5", "CUMULATE(t, ts, step, size [, offset])"),
        "SESSION" => ("3", "SESSION(t [PARTITION BY k], ts, INTERVAL '5 minutes')"),
        _ => ("4 or 5", "HOP(t, ts, slide, size [, offset])"),
    };
    let error = SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("{function} takes {want} arguments, each once, not these {given}"),
    );
    at_opt(error.hint(format!("Write {form}.")), place)
}

/// `DESCRIPTOR(ts)` is `ts`.
fn descriptor(expr: ast::Expr) -> ast::Expr {
    match expr {
        ast::Expr::Function(function) if last_name(&function.name) == "descriptor" => match &function.args {
            ast::FunctionArguments::List(list) => match &list.args[..] {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => column.clone(),
                _ => ast::Expr::Function(function),
            },
            _ => ast::Expr::Function(function),
        },
        other => other,
    }
}

/// An argument that names no column, folded.
fn constant(expr: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    let schema = datafusion::common::DFSchema::empty();
    let expr = context.sql_to_expr(expr, &schema)?;
    match &expr {
        Expr::Literal(..) => Ok(expr),
        _ => Ok(rules::typed(vec![expr], &schema, Zone::UTC)?.swap_remove(0)),
    }
}

fn interval(function: &str, offset: bool, expr: Expr) -> std::result::Result<IntervalMonthDayNano, SqlError> {
    let what = if offset { "offset" } else { "size" };
    let value = match postgres_literal(expr) {
        Expr::Literal(value, _) => value,
        other => {
            let text = format!("the {what} of {function} must be a constant, not {other}");
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text));
        }
    };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => Ok(interval),
        value if value.is_null() => {
            let text = format!("the {what} of {function} must not be NULL");
            Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text))
        }
        ScalarValue::Utf8(Some(text)) => {
            let to = millpond_types::SqlType::Interval;
            let schema = datafusion::common::DFSchema::empty();
            let literal = Expr::Literal(ScalarValue::Utf8(Some(text)), None);
            let cast = millpond_functions::rewrite::cast_expr(literal, &to, &schema);
            match cast.map_err(millpond_functions::error::from_datafusion)? {
                Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => Ok(interval),
                _ => Err(not_interval(function, what, "text")),
            }
        }
        other => Err(not_interval(function, what, &crate::constant::argument_name(&other.data_type()))),
    }
}

fn not_interval(function: &str, what: &str, ty: &str) -> SqlError {
    SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("the {what} of {function} must be of type interval, not {ty}"),
    )
    .hint("Write INTERVAL '1 minute'.")
}
