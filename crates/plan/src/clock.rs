//! now() in the query of a materialized view: the time that the log's ticks say, not that of any statement.
//!
//! A view's query has no parameters of its own, so its only one stands for the clock: no rule folds it, all may move it,
//! and whoever runs the query as a batch binds it to the tick of the cut ([`crate::bind_parameters`]). The incremental plan
//! takes it in filters alone ([`crate::incremental::Temporal`]).

use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::Expr;
use millpond_sql::fold;
use millpond_types::{SqlError, SqlType};
use sqlparser::ast;

use crate::errors::Places;

/// The parameter's type.
pub(crate) const TYPE: SqlType = SqlType::Timestamptz;

const NAMES: [&str; 6] = [
    "now",
    "current_timestamp",
    "transaction_timestamp",
    "statement_timestamp",
    "localtimestamp",
    "current_date",
];

/// A call of now() or one of its kin as the parameter, cast to what the function gives.
pub(crate) fn parameter(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::Function(call) = expr else { return None };
    let name = match &call.name.0[..] {
        [name] => fold(name.as_ident()?),
        [schema, name] if fold(schema.as_ident()?) == "pg_catalog" => fold(name.as_ident()?),
        _ => return None,
    };
    if !NAMES.contains(&name.as_str()) || call.over.is_some() || call.filter.is_some() {
        return None;
    }
    let clock = ast::Expr::value(ast::Value::Placeholder("$1".to_owned()));
    let cast = |data_type| ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(clock.clone()),
        data_type,
        array: false,
        format: None,
    };
    Some(match name.as_str() {
        "localtimestamp" => cast(ast::DataType::Timestamp(None, ast::TimezoneInfo::None)),
        "current_date" => cast(ast::DataType::Date),
        _ => clock,
    })
}

/// `PROCTIME()`, which is `_ingest_time` over a source, and the time of the append in a generated column.
pub fn is_proctime(expr: &ast::Expr) -> bool {
    let ast::Expr::Function(call) = expr else { return false };
    let no_arguments = match &call.args {
        ast::FunctionArguments::None => true,
        ast::FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        ast::FunctionArguments::Subquery(_) => false,
    };
    let name = match &call.name.0[..] {
        [name] => name.as_ident().map(fold),
        _ => None,
    };
    no_arguments && call.over.is_none() && name.as_deref() == Some("proctime")
}

/// Whether an expression of a view's query asks for the time.
pub(crate) fn asks(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::Placeholder(_)))).unwrap_or(true)
}

/// now() where it cannot be kept up to date.
pub(crate) fn refused(why: &str) -> SqlError {
    SqlError::unsupported(format!("now() {why} in a materialized view is not supported")).hint(
        "Compare a value of the row with now() in WHERE, such as ts > now() - INTERVAL '1 hour'; AND, OR, NOT and BETWEEN \
         may combine such conditions.",
    )
}

/// Whether an error is of [`refused`].
pub(crate) fn is_refusal(error: &SqlError) -> bool {
    error.message().starts_with("now() ")
}

/// The first now() of a query.
pub(crate) fn place(places: &Places) -> Option<usize> {
    NAMES.into_iter().filter_map(|name| places.function(name)).min()
}
