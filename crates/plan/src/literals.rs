//! Types of bare numbers that become a column or an argument as they are.
//!
//! DataFusion binds `1` as bigint, and operators over a column of such are resolved by that type before any rule runs. Where
//! no operator decides, PostgreSQL's type has to be in the tree: integer where it fits.

use sqlparser::ast::{
    self, CastKind, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
    SelectItem, SetExpr, UnaryOperator, Value,
};

/// Functions whose result has the type of their arguments.
const TYPED_BY_ARGUMENTS: [&str; 10] = [
    "generate_series",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "max",
    "min",
    "sum",
    "array_agg",
    "any_value",
];
/// Digits that a numeric may have on either side of the point; a literal with more becomes double precision.
const NUMERIC_DIGITS_MAX: i64 = 70;

/// The outputs of a SELECT.
pub(crate) fn type_outputs(select: &mut ast::Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            type_result(expr);
        }
    }
}

/// The rows of each VALUES.
pub(crate) fn type_values(body: &mut SetExpr) {
    match body {
        SetExpr::Values(values) => {
            values.rows.iter_mut().flat_map(|row| row.iter_mut()).for_each(type_result);
        }
        SetExpr::SetOperation { left, right, .. } => {
            type_values(left);
            type_values(right);
        }
        _ => {}
    }
}

/// Results of CASE, and arguments of functions that hand them on.
pub(crate) fn type_parts(expr: &mut Expr) {
    match expr {
        Expr::Case { conditions, else_result, .. } => {
            conditions.iter_mut().for_each(|when| type_result(&mut when.result));
            if let Some(otherwise) = else_result {
                type_result(otherwise);
            }
        }
        Expr::Function(call) => {
            let FunctionArguments::List(list) = &mut call.args else { return };
            let is_typed = call.name.0.last().and_then(|part| part.as_ident()).is_some_and(|name| {
                TYPED_BY_ARGUMENTS.iter().any(|typed| name.value.eq_ignore_ascii_case(typed))
            });
            if is_typed {
                type_arguments(&mut list.args);
            }
        }
        Expr::Array(array) => array.elem.iter_mut().for_each(type_result),
        Expr::Cast { expr: inner, data_type, .. } if is_float(data_type) => quote_number(inner),
        Expr::Value(value) if is_beyond_numeric(&value.value) => {
            quote_number(expr);
            *expr = cast(expr.clone(), DataType::DoublePrecision);
        }
        _ => {}
    }
}

/// Of functions that hand them on.
pub(crate) fn type_arguments(arguments: &mut [FunctionArg]) {
    for argument in arguments {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
            type_result(expr);
        }
    }
}

fn type_result(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => type_result(inner),
        _ if is_integer(expr) => *expr = cast(expr.clone(), DataType::Integer(None)),
        _ => {}
    }
}

fn is_integer(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => {
            matches!(&value.value, Value::Number(digits, _) if digits.parse::<i32>().is_ok())
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => {
                matches!(&value.value, Value::Number(digits, _) if format!("-{digits}").parse::<i32>().is_ok())
            }
            _ => false,
        },
        _ => false,
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::DoublePrecision
            | DataType::Double(ExactNumberInfo::None)
            | DataType::Float8
            | DataType::Float(ExactNumberInfo::None)
            | DataType::Float4
            | DataType::Real
    )
}

/// A number with a point or an exponent as the text that it is: cast to a float it need not pass through numeric.
fn quote_number(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => quote_number(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => quote_number(expr),
        Expr::Value(value) => {
            if let Value::Number(digits, _) = &value.value
                && digits.contains(['e', 'E'])
            {
                value.value = Value::SingleQuotedString(digits.clone());
            }
        }
        _ => {}
    }
}

fn is_beyond_numeric(value: &Value) -> bool {
    let Value::Number(digits, _) = value else { return false };
    let Some((_, exponent)) = digits.split_once(['e', 'E']) else { return false };
    exponent.parse::<i64>().map_or(true, |exponent| exponent.abs() > NUMERIC_DIGITS_MAX)
}
