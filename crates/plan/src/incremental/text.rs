//! Expressions as a reader of EXPLAIN wants them: operators between their operands, literals without type names.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{Expr, binary_expr, lit};
use millpond_functions::rewrite::{CANONICAL, ORDER_KEY};

/// `price * 2 > 7`
pub(super) fn shown(expr: &Expr) -> String {
    let plain = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::ScalarFunction(call) => Transformed::yes(operator(call)),
            Expr::Literal(value, _) => Transformed::yes(literal(value)),
            other => Transformed::no(other),
        })
    });
    plain.map_or_else(|_| expr.to_string(), |t| t.data.human_display().to_string())
}

/// Changes of a value's form mean nothing to a reader. Checked kernels of `millpond-functions` as the operators that they stand for.
fn operator(call: ScalarFunction) -> Expr {
    use datafusion::logical_expr::Operator::*;
    let op = match call.func.name() {
        CANONICAL | ORDER_KEY if call.args.len() == 1 => {
            return call.args.into_iter().next().unwrap_or_default();
        }
        "checked_add" => Plus,
        "checked_subtract" => Minus,
        "checked_multiply" => Multiply,
        "checked_divide" => Divide,
        "checked_modulo" => Modulo,
        _ => return Expr::ScalarFunction(call),
    };
    match <[Expr; 2]>::try_from(call.args) {
        Ok([left, right]) => binary_expr(left, op, right),
        Err(args) => Expr::ScalarFunction(ScalarFunction { func: call.func, args }),
    }
}

/// Times are kept as numbers inside; a reader wants them as text.
fn literal(value: ScalarValue) -> Expr {
    match value {
        ScalarValue::TimestampMicrosecond(Some(_), _) | ScalarValue::Date32(Some(_)) => {
            let text = value.cast_to(&arrow::datatypes::DataType::Utf8).map(|text| text.to_string());
            let text = lit(millpond_sql::quote_literal(&text.unwrap_or_else(|_| value.to_string())));
            Expr::Cast(Cast::new(Box::new(text), value.data_type()))
        }
        ScalarValue::Utf8(Some(text)) => lit(millpond_sql::quote_literal(&text)),
        other => Expr::Literal(other, None),
    }
}
