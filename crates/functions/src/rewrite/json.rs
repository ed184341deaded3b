//! The operators of json and jsonb (PostgreSQL 15, tables 9.45 and 9.46), as the functions that stand behind them.

use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use millpond_types::{SqlError, SqlType};

use super::cast_expr;
use crate::cast::is_text;
use crate::error::into_datafusion;

/// The call of `left op right`, if one side is json and PostgreSQL has such an operator.
pub(super) fn operator(
    op: &BinaryOperator,
    left: &Expr,
    right: &Expr,
    schema: &DFSchema,
) -> Result<Option<Expr>> {
    let ty = |expr: &Expr| {
        let (_, field) = expr.to_field(schema).ok()?;
        SqlType::of(&field).ok()
    };
    let is_json = |ty: &Option<SqlType>| matches!(ty, Some(SqlType::Json | SqlType::Jsonb));
    let (a, b) = (ty(left), ty(right));
    if !is_json(&a) && !is_json(&b) {
        return Ok(None);
    }
    let binary = a == Some(SqlType::Jsonb) || b == Some(SqlType::Jsonb);
    let integer = b.as_ref().is_some_and(SqlType::is_integer);
    let text = b.as_ref().is_none_or(is_text);
    let (name, to) = match op {
        BinaryOperator::Arrow if integer => ("array_element", SqlType::Int8),
        BinaryOperator::Arrow if text => ("object_field", SqlType::Text),
        BinaryOperator::LongArrow if integer => ("array_element_text", SqlType::Int8),
        BinaryOperator::LongArrow if text => ("object_field_text", SqlType::Text),
        BinaryOperator::HashArrow => ("path", SqlType::Array(Box::new(SqlType::Text))),
        BinaryOperator::HashLongArrow => ("path_text", SqlType::Array(Box::new(SqlType::Text))),
        BinaryOperator::AtArrow if binary => ("contains", SqlType::Jsonb),
        BinaryOperator::ArrowAt if binary => ("contained", SqlType::Jsonb),
        BinaryOperator::Question if binary => ("exists", SqlType::Text),
        BinaryOperator::QuestionPipe if binary => ("exists_any", SqlType::Array(Box::new(SqlType::Text))),
        BinaryOperator::QuestionAnd if binary => ("exists_all", SqlType::Array(Box::new(SqlType::Text))),
        BinaryOperator::StringConcat if binary => ("concat", SqlType::Jsonb),
        BinaryOperator::Minus if binary && integer => ("delete_element", SqlType::Int8),
        BinaryOperator::Minus if binary && text => ("delete", SqlType::Text),
        _ => return Ok(None),
    };
    let name = format!("{}_{name}", if binary { "jsonb" } else { "json" });
    let function = crate::Registry::global()
        .scalar(&name)
        .ok_or_else(|| into_datafusion(SqlError::internal(format!("there is no function {name}"))))?;
    // An untyped literal on the left of a jsonb is one, too.
    let left = match is_json(&a) {
        true => left.clone(),
        false => cast_expr(left.clone(), &SqlType::Jsonb, schema)?,
    };
    Ok(Some(function.call(vec![left, cast_expr(right.clone(), &to, schema)?])))
}
