//! Assignment: which types PostgreSQL stores into which columns without being asked (pg_cast.castcontext 'a' and 'i').

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable};
use millpond_functions::Zone;
use millpond_functions::rewrite::{assign_expr, in_zone};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::errors::{self, Places, at_opt};

/// `expr` (bound, not yet typed) as a value for column `name` of type `to`. A literal in quotes and NULL fit every type.
///
/// # Errors
/// 42804 `column "x" is of type integer but expression is of type text`; 22P02 and the like for a literal.
pub(crate) fn assign(
    expr: Expr,
    name: &str,
    to: &SqlType,
    schema: &DFSchema,
    zone: Zone,
    place: Option<usize>,
) -> Result<Expr, SqlError> {
    let failed = |e| at_opt(errors::planning(e, &Places::default()), place);
    if matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _)) {
        return assign_expr(expr, to, schema).and_then(|e| in_zone(e, schema, zone)).map_err(failed);
    }
    // An INSERT of thousands of rows is mostly literals and parameters, which need no rules.
    let expr = match expr {
        Expr::Literal(..) | Expr::Placeholder(_) => expr,
        other => crate::rules::typed(vec![other], schema, zone).map_err(failed)?.swap_remove(0),
    };
    let (_, field) = expr.to_field(schema).map_err(failed)?;
    let from = SqlType::of(&field)?;
    if from == *to && *field.data_type() == to.arrow() {
        return Ok(expr);
    }
    if !field.data_type().is_null() && !assignable(&from, to) {
        return Err(at_opt(mismatch(name, to, &from), place));
    }
    assign_expr(expr, to, schema).and_then(|e| in_zone(e, schema, zone)).map_err(failed)
}

pub(crate) fn mismatch(name: &str, to: &SqlType, from: &SqlType) -> SqlError {
    SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("column \"{name}\" is of type {} but expression is of type {}", plain(to), plain(from)),
    )
    .hint("You will need to rewrite or cast the expression.")
}

/// A type as messages about expressions show it: numeric without its digits.
pub(crate) fn plain(ty: &SqlType) -> String {
    match ty {
        SqlType::Numeric(..) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        other => other.to_string(),
    }
}

pub(crate) fn assignable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::*;
    let number = |ty: &SqlType| matches!(ty, Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(..));
    let text = |ty: &SqlType| matches!(ty, Text | Varchar(_) | Char(_) | Name);
    match (from, to) {
        (Unknown, _) => true,
        // Any value has a text.
        (_, to) if text(to) => true,
        (from, to) if number(from) && number(to) => true,
        (Date, Timestamp | Timestamptz) | (Timestamp | Timestamptz, Date | Time) => true,
        (Timestamp, Timestamptz) | (Timestamptz, Timestamp) => true,
        (Time, Interval) | (Interval, Time) | (Json, Jsonb) | (Jsonb, Json) => true,
        (Int2 | Int4 | Int8, Oid) | (Oid, Int4 | Int8) => true,
        (Array(from), Array(to)) => assignable(from, to),
        (from, to) => std::mem::discriminant(from) == std::mem::discriminant(to),
    }
}
