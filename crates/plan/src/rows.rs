//! Comparisons of rows, and arrays of a subquery's rows, in what DataFusion knows: columns and scalar subqueries.
//!
//! A row is compared with a subquery's rows by a subquery around it, `SELECT a = c1 AND b = c2 FROM (…) AS q (c1, c2)`: what is NULL
//! or unknown then is so here. The names inside are none that a user can write, so `a` and `b` mean what they meant outside.

use millpond_sql::{fold, position_of};
use millpond_types::{SqlError, SqlState};
use sqlparser::ast::{self, BinaryOperator, Expr, Query, SelectItem, SetExpr, Spanned};

use crate::errors::at_opt;
use crate::names;

/// What stands for `expr` if it compares rows, or is `ARRAY(SELECT …)`.
///
/// # Errors
/// 0A000 for an array in an order that its subquery's rows do not have.
pub(crate) fn as_columns(expr: &Expr) -> Result<Option<Expr>, SqlError> {
    match expr {
        Expr::Function(call) => match &call.args {
            ast::FunctionArguments::Subquery(query) if is_named(call, "array") => array(query).map(Some),
            _ => Ok(None),
        },
        other => Ok(comparison(other)),
    }
}

fn is_named(call: &ast::Function, name: &str) -> bool {
    matches!(&call.name.0[..], [part] if part.as_ident().is_some_and(|ident| fold(ident) == name))
}

/// The columns of `(a, b)` or `ROW(a, b)`.
fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(columns) => Some(columns.clone()),
        Expr::Nested(inner) => row(inner),
        Expr::Function(call) if is_named(call, "row") => {
            let ast::FunctionArguments::List(list) = &call.args else { return None };
            let columns = list.args.iter().map(|argument| match argument {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            });
            columns.collect()
        }
        _ => None,
    }
}

/// `(a, b) = (1, 2)`, `(a, b) IN ((1, 2), …)` and the like column by column, as the standard defines them.
fn comparison(expr: &Expr) -> Option<Expr> {
    use BinaryOperator::{Eq, NotEq};
    let boxed = |expr: Option<Expr>| expr.map(Box::new);
    match expr {
        Expr::BinaryOp { left, op: op @ (Eq | NotEq), right } => match right.as_ref() {
            Expr::Subquery(query) => Some(Expr::Subquery(Box::new(compared(&row(left)?, op, query)?))),
            _ => None,
        },
        Expr::InSubquery { expr, subquery, negated } => {
            let any = Expr::AnyOp {
                left: boxed(Some(truth()))?,
                compare_op: Eq,
                right: Box::new(Expr::Subquery(Box::new(compared(&row(expr)?, &Eq, subquery)?))),
                is_some: false,
            };
            let any = Expr::Nested(Box::new(any));
            Some(if *negated { not(any) } else { any })
        }
        Expr::AnyOp { left, compare_op: op @ (Eq | NotEq), right, is_some } => {
            let Expr::Subquery(query) = right.as_ref() else { return None };
            let right = Box::new(Expr::Subquery(Box::new(compared(&row(left)?, op, query)?)));
            Some(Expr::AnyOp { left: Box::new(truth()), compare_op: Eq, right, is_some: *is_some })
        }
        Expr::AllOp { left, compare_op: op @ (Eq | NotEq), right } => {
            let Expr::Subquery(query) = right.as_ref() else { return None };
            let right = Box::new(Expr::Subquery(Box::new(compared(&row(left)?, op, query)?)));
            Some(Expr::AllOp { left: Box::new(truth()), compare_op: Eq, right })
        }
        _ => None,
    }
}

fn truth() -> Expr {
    Expr::value(ast::Value::Boolean(true))
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(expr) }
}

fn join(op: &BinaryOperator, parts: Vec<Expr>) -> Option<Expr> {
    let joined = parts.into_iter().reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: op.clone(),
        right: Box::new(right),
    });
    joined.map(|all| Expr::Nested(Box::new(all)))
}

/// Two rows of one width.
fn compare(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    let pairs = left.iter().zip(right).map(|(l, r)| Expr::BinaryOp {
        left: Box::new(l.clone()),
        op: op.clone(),
        right: Box::new(r.clone()),
    });
    join(if *op == BinaryOperator::Eq { &BinaryOperator::And } else { &BinaryOperator::Or }, pairs.collect())
}

/// `SELECT row op (c1, c2, …) FROM (query) AS q (c1, c2, …)`
fn compared(row: &[Expr], op: &BinaryOperator, query: &Query) -> Option<Query> {
    let names: Vec<String> = (1..=row.len()).map(|n| names::distinct("c", n)).collect();
    let columns: Vec<Expr> =
        names.iter().map(|name| Expr::Identifier(ast::Ident::with_quote('"', name))).collect();
    around(query, &names, compare(row, op, &columns)?)
}

/// `SELECT output FROM (query) AS q (names)`
fn around(query: &Query, names: &[String], output: Expr) -> Option<Query> {
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let text =
        format!("SELECT NULL FROM (SELECT NULL) AS \"{}\" ({})", names::distinct("q", 1), names.join(", "));
    let mut outside = *millpond_sql::parse_query(&text).ok()?;
    let SetExpr::Select(select) = outside.body.as_mut() else { return None };
    select.projection = vec![SelectItem::UnnamedExpr(output)];
    match &mut select.from.first_mut()?.relation {
        ast::TableFactor::Derived { subquery, .. } => **subquery = query.clone(),
        _ => return None,
    }
    Some(outside)
}

/// The parser reads `a IS DISTINCT FROM b AND c` as `a IS DISTINCT FROM (b AND c)`: what was written is put in order again.
pub(crate) fn regroup(expr: &mut Expr) {
    let ordered = matches!(
        expr,
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. }
            | Expr::UnaryOp { op: ast::UnaryOperator::Not, .. }
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
    );
    if !ordered || !swallows(expr) {
        return;
    }
    let mut alternatives: Vec<Vec<Expr>> = Vec::new();
    for (op, operand) in flat(expr.clone()) {
        match (op, alternatives.last_mut()) {
            (Some(BinaryOperator::And), Some(all)) => all.push(operand),
            _ => alternatives.push(vec![operand]),
        }
    }
    let bare = |parts: Vec<Expr>, op: BinaryOperator| {
        parts.into_iter().reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: op.clone(),
            right: Box::new(right),
        })
    };
    let all = alternatives.into_iter().filter_map(|all| bare(all, BinaryOperator::And)).collect();
    if let Some(any) = bare(all, BinaryOperator::Or) {
        *expr = any;
    }
}

fn swallows(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            // OR below AND stands in parentheses, unless an inner part has been put in order before.
            let or = |side: &Expr| matches!(side, Expr::BinaryOp { op: BinaryOperator::Or, .. });
            let misplaced = *op == BinaryOperator::And && (or(left) || or(right));
            misplaced || swallows(left) || swallows(right)
        }
        Expr::UnaryOp { op: ast::UnaryOperator::Not, expr } => swallows(expr),
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => {
            matches!(right.as_ref(), Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
        }
        _ => false,
    }
}

/// The operands of AND and OR as they stand in the text, each with what is before it.
fn flat(expr: Expr) -> Vec<(Option<BinaryOperator>, Expr)> {
    let first = |mut operands: Vec<(Option<BinaryOperator>, Expr)>, make: &dyn Fn(Expr) -> Expr| {
        if let Some((_, operand)) = operands.first_mut() {
            let inside = std::mem::replace(operand, truth());
            *operand = make(inside);
        }
        operands
    };
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            let mut operands = flat(*left);
            let mut behind = flat(*right);
            if let Some((before, _)) = behind.first_mut() {
                *before = Some(op);
            }
            operands.append(&mut behind);
            operands
        }
        Expr::UnaryOp { op: ast::UnaryOperator::Not, expr } => first(flat(*expr), &|inside| not(inside)),
        Expr::IsDistinctFrom(left, right) => {
            first(flat(*right), &|inside| Expr::IsDistinctFrom(left.clone(), Box::new(inside)))
        }
        Expr::IsNotDistinctFrom(left, right) => {
            first(flat(*right), &|inside| Expr::IsNotDistinctFrom(left.clone(), Box::new(inside)))
        }
        other => vec![(None, other)],
    }
}

/// `LATERAL (query)` as `LATERAL (SELECT * FROM (query) AS …)`, which [`is_lateral`] knows again.
pub(crate) fn lateral(factor: &mut ast::TableFactor) {
    if let ast::TableFactor::Derived { lateral: true, subquery, .. } = factor {
        let text = format!("SELECT * FROM (SELECT NULL) AS \"{}\"", names::distinct(LATERAL, 1));
        let Ok(mut outside) = millpond_sql::parse_query(&text) else { return };
        let SetExpr::Select(select) = outside.body.as_mut() else { return };
        if let Some(from) = select.from.first_mut()
            && let ast::TableFactor::Derived { subquery: inside, .. } = &mut from.relation
        {
            std::mem::swap(inside, subquery);
            *subquery = outside;
        }
    }
}

const LATERAL: &str = "lateral";

/// Whether a relation is the inside of a LATERAL.
pub(crate) fn is_lateral(relation: &str) -> bool {
    relation == names::distinct(LATERAL, 1)
}

/// The rows of a subquery as one value, in their order.
fn array(query: &Query) -> Result<Expr, SqlError> {
    let lost = || SqlError::internal("a subquery of ARRAY cannot be written otherwise");
    let [item, place] = [1, 2].map(|n| names::distinct("c", n));
    let Some(order_by) = query.order_by.clone() else {
        return around(query, std::slice::from_ref(&item), collected(&item, None)?)
            .map(|query| Expr::Subquery(Box::new(query)))
            .ok_or_else(lost);
    };
    // The place of each row is a column beside it.
    let mut numbered = query.clone();
    let refused = || {
        let error = SqlError::unsupported("ARRAY of a subquery with ORDER BY of this form is not supported");
        let error = error.hint("Use (SELECT array_agg(x ORDER BY ...) FROM ...).");
        at_opt(error, position_of(query.span()))
    };
    let SetExpr::Select(select) = numbered.body.as_mut() else { return Err(refused()) };
    let [SelectItem::UnnamedExpr(output) | SelectItem::ExprWithAlias { expr: output, .. }] =
        &select.projection[..]
    else {
        return Err(match select.projection.len() {
            1 => refused(),
            _ => SqlError::new(SqlState::SYNTAX_ERROR, "subquery must return only one column"),
        });
    };
    let output = output.clone();
    let alias = match &select.projection[0] {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    };
    let ast::OrderByKind::Expressions(mut keys) = order_by.kind else { return Err(refused()) };
    let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(by, _) if by.is_empty());
    if select.distinct.is_some() || grouped || select.having.is_some() {
        return Err(refused());
    }
    for key in &mut keys {
        let is_output = match &key.expr {
            Expr::Value(value) => matches!(&value.value, ast::Value::Number(n, _) if n == "1"),
            Expr::Identifier(ident) => Some(fold(ident)) == alias,
            _ => false,
        };
        if is_output {
            key.expr = output.clone();
        }
    }
    let mut number =
        *millpond_sql::parse_query("SELECT row_number() OVER (ORDER BY 1)").map_err(|_| lost())?;
    let SetExpr::Select(numbers) = number.body.as_mut() else { return Err(lost()) };
    let Some(SelectItem::UnnamedExpr(Expr::Function(mut call))) = numbers.projection.pop() else {
        return Err(lost());
    };
    let Some(ast::WindowType::WindowSpec(spec)) = &mut call.over else { return Err(lost()) };
    spec.order_by = keys;
    select.projection = vec![SelectItem::UnnamedExpr(output), SelectItem::UnnamedExpr(Expr::Function(call))];
    // Without LIMIT the places alone are the order.
    numbered.order_by = numbered.limit_clause.is_some().then(|| {
        let second = Expr::value(ast::Value::Number("2".into(), false));
        let options = ast::OrderByOptions { asc: None, nulls_first: None };
        let by_place = ast::OrderByExpr { expr: second, options, with_fill: None };
        ast::OrderBy { kind: ast::OrderByKind::Expressions(vec![by_place]), interpolate: None }
    });
    let names = [item.clone(), place.clone()];
    let outside = around(&numbered, &names, collected(&item, Some(&place))?).ok_or_else(lost)?;
    Ok(Expr::Subquery(Box::new(outside)))
}

/// `coalesce(array_agg(item ORDER BY place), '{}')`
fn collected(item: &str, place: Option<&str>) -> Result<Expr, SqlError> {
    let order = place.map_or(String::new(), |place| format!(" ORDER BY \"{place}\""));
    let text = format!("SELECT coalesce(array_agg(\"{item}\"{order}), '{{}}')");
    let query = *millpond_sql::parse_query(&text)?;
    match *query.body {
        SetExpr::Select(mut select) => match select.projection.pop() {
            Some(SelectItem::UnnamedExpr(expr)) => Ok(expr),
            _ => Err(SqlError::internal("an output is lost")),
        },
        _ => Err(SqlError::internal("a SELECT is lost")),
    }
}
