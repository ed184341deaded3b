//! Constructs with a syntax of their own that PostgreSQL's grammar turns into calls (its gram.y), before names are resolved.

use millpond_sql::fold;
use sqlparser::ast;

/// The call that `expr` stands for, in its place.
pub(crate) fn as_calls(expr: &mut ast::Expr) {
    let call = match expr {
        ast::Expr::UnaryOp { .. } => prefix_operator(expr),
        ast::Expr::AtTimeZone { timestamp, time_zone } => {
            Some(call("timezone", [time_zone.as_ref().clone(), timestamp.as_ref().clone()]))
        }
        ast::Expr::SimilarTo { .. } => similar_to(expr),
        ast::Expr::Interval(interval) => interval_by_cast(interval),
        ast::Expr::Function(function) => {
            positional_interval(function);
            whole_match(function);
            order_once(function);
            None
        }
        _ => None,
    };
    if let Some(call) = call {
        *expr = call;
    }
}

/// `a SIMILAR TO b ESCAPE c` is a match with the regular expression that [`similar_to_escape`] makes of the pattern.
///
/// [`similar_to_escape`]: millpond_functions::Registry
fn similar_to(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::SimilarTo { negated, expr, pattern, escape_char } = expr else { return None };
    let escape = escape_char.as_ref().map(|value| ast::Expr::Value(value.clone()));
    let pattern = call("similar_to_escape", std::iter::once(pattern.as_ref().clone()).chain(escape));
    Some(ast::Expr::Nested(Box::new(ast::Expr::BinaryOp {
        left: Box::new(ast::Expr::Nested(expr.clone())),
        op: match negated {
            true => ast::BinaryOperator::PGRegexNotMatch,
            false => ast::BinaryOperator::PGRegexMatch,
        },
        right: Box::new(pattern),
    })))
}

/// `interval '40 days 100:00:00'`: DataFusion's literals know no times of more than a day, and few digits of seconds.
fn interval_by_cast(interval: &ast::Interval) -> Option<ast::Expr> {
    let ast::Expr::Value(value) = interval.value.as_ref() else { return None };
    let timed = matches!(&value.value, ast::Value::SingleQuotedString(text) if text.contains(':'));
    if !timed || interval.leading_field.is_some() || interval.last_field.is_some() {
        return None;
    }
    Some(ast::Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: interval.value.clone(),
        data_type: ast::DataType::Interval { fields: None, precision: None },
        array: false,
        format: None,
    })
}

/// `f(x ORDER BY a DESC, a)`: what a key has ordered, a second one of the same expression orders no further, and DataFusion
/// counts it in one place and not in another.
fn order_once(function: &mut ast::Function) {
    let ast::FunctionArguments::List(list) = &mut function.args else { return };
    for clause in &mut list.clauses {
        let ast::FunctionArgumentClause::OrderBy(keys) = clause else { continue };
        let mut seen: Vec<ast::Expr> = Vec::with_capacity(keys.len());
        keys.retain(|key| {
            let first = !seen.contains(&key.expr);
            seen.push(key.expr.clone());
            first
        });
    }
}

/// `\\&` in the replacement of regexp_replace is the whole match, which DataFusion knows as `\\0`.
fn whole_match(function: &mut ast::Function) {
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let ast::FunctionArguments::List(list) = &mut function.args else { return };
    if name.as_deref() == Some("regexp_replace")
        && let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(value)))) =
            list.args.get_mut(2)
        && let ast::Value::SingleQuotedString(text) = &mut value.value
    {
        *text = text.replace("\\&", "\\0");
    }
}

/// `make_interval(days => 10)` with all its arguments in their order.
fn positional_interval(function: &mut ast::Function) {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let ast::FunctionArguments::List(list) = &mut function.args else { return };
    if name.as_deref() != Some("make_interval") {
        return;
    }
    let zero = || ast::FunctionArgExpr::Expr(ast::Expr::value(ast::Value::Number("0".into(), false)));
    let mut places: Vec<Option<ast::FunctionArgExpr>> = vec![None; NAMES.len()];
    for (at, argument) in list.args.iter().enumerate() {
        let (place, value) = match argument {
            ast::FunctionArg::Unnamed(value) => (Some(at), value),
            ast::FunctionArg::Named { name, arg, .. } => (NAMES.iter().position(|n| *n == fold(name)), arg),
            ast::FunctionArg::ExprNamed { .. } => (None, &zero()),
        };
        match place.and_then(|place| places.get_mut(place)) {
            Some(free @ None) => *free = Some(value.clone()),
            // An argument too many, a name that is none: said when the function is looked up.
            _ => return,
        }
    }
    let value = |place: Option<ast::FunctionArgExpr>| ast::FunctionArg::Unnamed(place.unwrap_or_else(zero));
    list.args = places.into_iter().map(value).collect();
}

/// PostgreSQL's prefix operators as the calls that they are (chapter 9.3); DataFusion knows only `+`, `-` and NOT.
fn prefix_operator(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::UnaryOp { op, expr: operand } = expr else { return None };
    let cast = |expr: ast::Expr, data_type| ast::Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(ast::Expr::Nested(Box::new(expr))),
        data_type,
        array: false,
        format: None,
    };
    let double = |expr: &ast::Expr| cast(expr.clone(), ast::DataType::DoublePrecision);
    Some(match op {
        ast::UnaryOperator::PGSquareRoot => call("sqrt", [double(operand)]),
        ast::UnaryOperator::PGCubeRoot => call("cbrt", [double(operand)]),
        ast::UnaryOperator::PGAbs => call("abs", [operand.as_ref().clone()]),
        // All bits of the other sign: -1 has every bit set, in each width.
        ast::UnaryOperator::BitwiseNot => ast::Expr::Nested(Box::new(ast::Expr::BinaryOp {
            left: Box::new(ast::Expr::Nested(operand.clone())),
            op: ast::BinaryOperator::PGBitwiseXor,
            right: Box::new(cast(
                ast::Expr::UnaryOp {
                    op: ast::UnaryOperator::Minus,
                    expr: Box::new(ast::Expr::value(ast::Value::Number("1".into(), false))),
                },
                ast::DataType::SmallInt(None),
            )),
        })),
        _ => return None,
    })
}

fn call(name: &str, arguments: impl IntoIterator<Item = ast::Expr>) -> ast::Expr {
    let unnamed = |argument| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument));
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(unnamed).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
