//! Operator resolution (PostgreSQL 15, chapter 10.2), for the operators and types that there are.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::planner::{PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{cast_expr, postgres_literal};
use crate::cast::is_text;
use crate::error::{into_datafusion, type_name};
use crate::numeric::{Shape, quotient_scale, shape_type};
use crate::operator::{self, Operation};

/// What is known of an operand's type.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// A string literal, NULL, or a parameter: it takes the type that the other side needs.
    Unknown,
    Typed(SqlType),
}

/// The operand's type; `None` if the expression is not typed yet, or holds what no SQL type names.
fn operand(expr: &Expr, schema: &DFSchema) -> Option<Operand> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Utf8View(_) | ScalarValue::Null, None) => {
            return Some(Operand::Unknown);
        }
        Expr::Placeholder(p) if p.field.is_none() => return Some(Operand::Unknown),
        // What its argument was is nothing to it.
        Expr::Cast(cast) if !cast.field.data_type().is_null() => {
            return SqlType::of(&cast.field).ok().map(|ty| Operand::Typed(crate::numeric::plain(ty)));
        }
        _ => {}
    }
    let (_, field) = expr.to_field(schema).ok()?;
    if field.data_type().is_null() {
        return Some(Operand::Unknown);
    }
    SqlType::of(&field).ok().map(|ty| Operand::Typed(crate::numeric::plain(ty)))
}

/// The planner's hook.
pub(super) fn binary(raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let RawBinaryExpr { op, left, right } = raw;
    if let Some(call) = super::json::operator(&op, &left, &right, schema)? {
        return Ok(PlannerResult::Planned(call));
    }
    let operation = match op {
        BinaryOperator::Plus => Some(Operation::Add),
        BinaryOperator::Minus => Some(Operation::Subtract),
        BinaryOperator::Multiply => Some(Operation::Multiply),
        BinaryOperator::Divide => Some(Operation::Divide),
        BinaryOperator::Modulo => Some(Operation::Modulo),
        _ => None,
    };
    if let Some(operation) = operation {
        return Ok(match arithmetic(operation, left, right, schema)? {
            Ok(call) => PlannerResult::Planned(call),
            Err((left, right)) => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        });
    }
    let planned = match &op {
        BinaryOperator::Eq => comparison(Operator::Eq, &left, &right, schema)?,
        BinaryOperator::NotEq => comparison(Operator::NotEq, &left, &right, schema)?,
        BinaryOperator::Lt => comparison(Operator::Lt, &left, &right, schema)?,
        BinaryOperator::LtEq => comparison(Operator::LtEq, &left, &right, schema)?,
        BinaryOperator::Gt => comparison(Operator::Gt, &left, &right, schema)?,
        BinaryOperator::GtEq => comparison(Operator::GtEq, &left, &right, schema)?,
        BinaryOperator::StringConcat => concat(&left, &right, schema)?,
        BinaryOperator::BitwiseAnd => Some(bits(Operator::BitwiseAnd, &left, &right)),
        BinaryOperator::BitwiseOr => Some(bits(Operator::BitwiseOr, &left, &right)),
        BinaryOperator::PGBitwiseXor => Some(bits(Operator::BitwiseXor, &left, &right)),
        BinaryOperator::PGBitwiseShiftLeft => Some(bits(Operator::BitwiseShiftLeft, &left, &right)),
        BinaryOperator::PGBitwiseShiftRight => Some(bits(Operator::BitwiseShiftRight, &left, &right)),
        BinaryOperator::PGExp => crate::Registry::global()
            .scalar("power")
            .map(|f| f.call(vec![postgres_literal(left.clone()), postgres_literal(right.clone())])),
        _ => None,
    };
    Ok(match planned {
        Some(expr) => PlannerResult::Planned(expr),
        None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
    })
}

/// A literal is an integer where it fits, so that what stands above sees the right type.
fn bits(op: Operator, left: &Expr, right: &Expr) -> Expr {
    let plain = |expr: &Expr| Box::new(postgres_literal(expr.clone()));
    Expr::BinaryExpr(BinaryExpr::new(plain(left), op, plain(right)))
}

fn no_operator(op: impl std::fmt::Display, left: &Operand, right: &Operand) -> SqlError {
    let name = |operand: &Operand| match operand {
        Operand::Unknown => "unknown".to_owned(),
        Operand::Typed(ty) => type_name(ty),
    };
    let message = format!("operator does not exist: {} {op} {}", name(left), name(right));
    SqlError::new(SqlState::UNDEFINED_FUNCTION, message).hint(
        "No operator matches the given name and argument types. You might need to add explicit type casts.",
    )
}

/// The call of an arithmetic operator; the operands come back where their types are not known (yet).
pub(super) fn arithmetic(
    op: Operation,
    left: Expr,
    right: Expr,
    schema: &DFSchema,
) -> Result<Result<Expr, (Expr, Expr)>> {
    let plain = |expr| super::at_time_zone(postgres_literal(expr));
    let (left, right) = (plain(left), plain(right));
    let (Some(a), Some(b)) = (operand(&left, schema), operand(&right, schema)) else {
        return Ok(Err((left, right)));
    };
    if a == Operand::Unknown && b == Operand::Unknown {
        if matches!(left, Expr::Placeholder(_)) || matches!(right, Expr::Placeholder(_)) {
            return Ok(Err((left, right)));
        }
        let error = SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("operator is not unique: unknown {op} unknown"),
        )
        .hint("Could not choose a best candidate operator. You might need to add explicit type casts.");
        return Err(into_datafusion(error));
    }
    let Some((ta, tb)) = operand_types(op, &a, &b) else {
        return Err(into_datafusion(no_operator(op, &a, &b)));
    };
    let (left, right) = (as_operand(left, &ta, schema)?, as_operand(right, &tb, schema)?);
    if let (Operation::Divide, Some(quotient)) = (op, literal_quotient(&left, &right)?) {
        return Ok(Ok(quotient));
    }
    // Intervals are multiplied with the number on the right, and added on the right of a time.
    let turned = match op {
        Operation::Multiply => ta == SqlType::Float8 && tb == SqlType::Interval,
        Operation::Add => ta == SqlType::Interval && tb != SqlType::Interval,
        _ => false,
    };
    if turned {
        return Ok(Ok(operator::call(op, right, left)));
    }
    Ok(Ok(operator::call(op, left, right)))
}

/// The types that the operands are brought to, or `None` if there is no such operator.
fn operand_types(op: Operation, a: &Operand, b: &Operand) -> Option<(SqlType, SqlType)> {
    use Operand::{Typed, Unknown};
    match (a, b) {
        (Typed(a), Typed(b)) => typed(op, a, b),
        (Unknown, Typed(b)) => assumed(op, b).map(|a| (a, b.clone())).and_then(|(a, b)| typed(op, &a, &b)),
        (Typed(a), Unknown) => assumed(op, a).map(|b| (a.clone(), b)).and_then(|(a, b)| typed(op, &a, &b)),
        (Unknown, Unknown) => None,
    }
}

/// What an untyped literal is beside a `known` operand: the same type, or what the only operator wants.
fn assumed(op: Operation, known: &SqlType) -> Option<SqlType> {
    use SqlType::*;
    Some(match (op, known) {
        (Operation::Add, Date | Time | Timestamp | Timestamptz) => Interval,
        (Operation::Multiply | Operation::Divide, Interval) => Float8,
        (_, Numeric(..)) => Numeric(38, 16),
        (_, other) => other.clone(),
    })
}

fn typed(op: Operation, a: &SqlType, b: &SqlType) -> Option<(SqlType, SqlType)> {
    use Operation::*;
    use SqlType::*;
    let pair = |a: SqlType, b: SqlType| Some((a, b));
    let small = |ty: &SqlType| matches!(ty, Int2 | Int4);
    if let (Some(x), Some(y)) = (rank(a), rank(b)) {
        return match promoted(a, x, b, y) {
            (Float4 | Float8, _) if op == Modulo => None,
            pair => Some(pair),
        };
    }
    match (op, a, b) {
        (Add | Subtract, Date, n) if small(n) => pair(Date, Int4),
        (Add, n, Date) if small(n) => pair(Int4, Date),
        (Subtract, Date, Date) => pair(Date, Date),
        (Add, Date, Time) => pair(Date, Time),
        (Add, Time, Date) => None,
        (Add | Subtract, Date | Timestamp, Interval) => pair(Timestamp, Interval),
        (Add | Subtract, Timestamptz, Interval) => pair(Timestamptz, Interval),
        (Add | Subtract, Time, Interval) => pair(Time, Interval),
        (Add, Interval, Date | Timestamp) => pair(Interval, Timestamp),
        (Add, Interval, Time | Timestamptz) => pair(Interval, b.clone()),
        (Subtract, Time, Time) => pair(Time, Time),
        (Subtract, Date | Timestamp, Date | Timestamp) => pair(Timestamp, Timestamp),
        (Subtract, Date | Timestamp | Timestamptz, Date | Timestamp | Timestamptz) => {
            pair(Timestamptz, Timestamptz)
        }
        (Add | Subtract, Interval, Interval) => pair(Interval, Interval),
        (Multiply | Divide, Interval, n) if rank(n).is_some() => pair(Interval, Float8),
        (Multiply, n, Interval) if rank(n).is_some() => pair(Float8, Interval),
        _ => None,
    }
}

/// Order of the numeric types in promotion.
fn rank(ty: &SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Int2 => 0,
        SqlType::Int4 => 1,
        SqlType::Int8 | SqlType::Oid => 2,
        SqlType::Numeric(..) => 3,
        SqlType::Float4 => 4,
        SqlType::Float8 => 5,
        _ => return None,
    })
}

fn promoted(a: &SqlType, x: u8, b: &SqlType, y: u8) -> (SqlType, SqlType) {
    use SqlType::*;
    match x.max(y) {
        0 => (Int2, Int2),
        1 => (Int4, Int4),
        2 => (Int8, Int8),
        3 => (as_numeric(a), as_numeric(b)),
        // real with anything but real is double precision, the preferred type of its category.
        4 if x == y => (Float4, Float4),
        _ => (Float8, Float8),
    }
}

/// The numeric that holds every value of an integer type.
fn as_numeric(ty: &SqlType) -> SqlType {
    match ty {
        SqlType::Int2 => SqlType::Numeric(5, 0),
        SqlType::Int4 => SqlType::Numeric(10, 0),
        SqlType::Int8 | SqlType::Oid => SqlType::Numeric(19, 0),
        other => other.clone(),
    }
}

/// The operand in the operator's type. Literal numerics keep no more digits than they have, for tighter results.
fn as_operand(expr: Expr, ty: &SqlType, schema: &DFSchema) -> Result<Expr> {
    if let (SqlType::Numeric(..), Expr::Literal(value, None)) = (ty, &expr) {
        let written = match value {
            ScalarValue::Int32(Some(v)) => Some(v.to_string()),
            ScalarValue::Int64(Some(v)) => Some(v.to_string()),
            ScalarValue::Utf8(Some(text)) => Some(text.clone()),
            _ => None,
        };
        if let Some(shape) = written.and_then(|text| literal_shape(&text)) {
            return cast_expr(expr, &shape_type(shape), schema);
        }
    }
    // From date to timestamp and the like; a type that is right already stays as it is.
    cast_expr(expr, ty, schema)
}

/// Precision and scale of a plain number as written.
fn literal_shape(text: &str) -> Option<Shape> {
    let digits = text.trim().trim_start_matches(['-', '+']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    let whole = whole.trim_start_matches('0').len();
    let fits = plain && !digits.is_empty() && whole + fraction.len() <= 38;
    fits.then(|| ((whole + fraction.len()).max(1) as u8, fraction.len() as i8))
}

/// The quotient of two numeric literals, at the scale that PostgreSQL gives to just these values.
fn literal_quotient(left: &Expr, right: &Expr) -> Result<Option<Expr>> {
    let (Expr::Literal(a, None), Expr::Literal(b, None)) = (left, right) else { return Ok(None) };
    let (Some(x), Some(y)) = (decimal(a), decimal(b)) else { return Ok(None) };
    if y.0 == arrow::datatypes::i256::ZERO {
        return Ok(None); // an error where it is evaluated, if it ever is
    }
    let scale = quotient_scale(x, y);
    let up = i16::from(scale) + i16::from(y.1) - i16::from(x.1);
    if !(0..=76).contains(&up) {
        return Ok(None);
    }
    let scaled = x.0.checked_mul(crate::text::number::power_of_ten(up as u8));
    let Some(value) = scaled.and_then(|v| crate::numeric::divide_rounded_256(v, y.0)) else {
        return Ok(None);
    };
    let digits = value.wrapping_abs().to_string().len().max(scale as usize + 1);
    Ok(match (value.to_i128(), digits) {
        (Some(v), 0..=38) => Some(Expr::Literal(ScalarValue::Decimal128(Some(v), digits as u8, scale), None)),
        (_, 0..=76) => Some(Expr::Literal(ScalarValue::Decimal256(Some(value), digits as u8, scale), None)),
        _ => None,
    })
}

fn decimal(value: &ScalarValue) -> Option<(arrow::datatypes::i256, i8)> {
    match value {
        ScalarValue::Decimal128(Some(v), _, s) => Some((arrow::datatypes::i256::from_i128(*v), *s)),
        ScalarValue::Decimal256(Some(v), _, s) => Some((*v, *s)),
        _ => None,
    }
}

/// A comparison in which an untyped literal takes the other side's type; text and something else do not compare.
fn comparison(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (left, right) = (&postgres_literal(left.clone()), &postgres_literal(right.clone()));
    let (Some(a), Some(b)) = (operand(left, schema), operand(right, schema)) else { return Ok(None) };
    let (left, right) = match (&a, &b) {
        (Operand::Typed(ty), Operand::Unknown) => (left.clone(), beside(right, ty, schema)?),
        (Operand::Unknown, Operand::Typed(ty)) => (beside(left, ty, schema)?, right.clone()),
        (Operand::Unknown, Operand::Unknown) => return Ok(None),
        (Operand::Typed(x), Operand::Typed(y)) => match comparable(x, y) {
            Some(None) => return Ok(None),
            Some(Some(common)) => {
                (cast_expr(left.clone(), &common, schema)?, cast_expr(right.clone(), &common, schema)?)
            }
            None => return Err(into_datafusion(no_operator(op, &a, &b))),
        },
    };
    // '1 day' equals '24 hours': intervals compare by their length.
    let is_span = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty == SqlType::Interval.arrow());
    let (left, right) = match crate::Registry::global().scalar("interval_length") {
        Some(length) if is_span(&left) && is_span(&right) => {
            (length.call(vec![left]), length.call(vec![right]))
        }
        _ => (left, right),
    };
    Ok(Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
}

/// An untyped operand beside one of type `ty`. A length or precision of a column does not bind what it is compared to.
fn beside(expr: &Expr, ty: &SqlType, schema: &DFSchema) -> Result<Expr> {
    let ty = match ty {
        ty if is_text(ty) => &SqlType::Text,
        SqlType::Numeric(..) => {
            let text = match expr {
                Expr::Literal(ScalarValue::Utf8(Some(text)), None) => text.as_str(),
                _ => return cast_expr(expr.clone(), ty, schema),
            };
            return match literal_shape(text) {
                Some(shape) => cast_expr(expr.clone(), &shape_type(shape), schema),
                None => cast_expr(expr.clone(), &SqlType::Numeric(76, 38), schema),
            };
        }
        ty => ty,
    };
    cast_expr(expr.clone(), ty, schema)
}

/// Whether the types compare: `Some(Some(t))` as `t`, `Some(None)` as DataFusion does it.
fn comparable(a: &SqlType, b: &SqlType) -> Option<Option<SqlType>> {
    use SqlType::*;
    let temporal = |ty: &SqlType| matches!(ty, Date | Timestamp | Timestamptz);
    match (a, b) {
        (Numeric(..), Float4 | Float8) | (Float4 | Float8, Numeric(..)) => Some(Some(Float8)),
        (a, b) if rank(a).is_some() && rank(b).is_some() => Some(None),
        (a, b) if is_text(a) && is_text(b) => Some(None),
        (Date, Timestamp | Timestamptz) => Some(Some(b.clone())),
        (Timestamp | Timestamptz, Date) => Some(Some(a.clone())),
        (a, b) if temporal(a) && temporal(b) => Some(None),
        (Time | Interval, Interval) | (Interval, Time) => Some(Some(Interval)),
        (Json, Json) => None,
        (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => Some(None),
        _ => None,
    }
}

/// `text || anything`: the other side as text.
fn concat(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (left, right) = (&postgres_literal(left.clone()), &postgres_literal(right.clone()));
    let (Some(a), Some(b)) = (operand(left, schema), operand(right, schema)) else { return Ok(None) };
    let text = |operand: &Operand| match operand {
        Operand::Unknown => true,
        Operand::Typed(ty) => is_text(ty),
    };
    let array = |operand: &Operand| {
        matches!(operand, Operand::Typed(SqlType::Array(_) | SqlType::Bytea | SqlType::Jsonb))
    };
    if array(&a) || array(&b) {
        return Ok(None);
    }
    if !text(&a) && !text(&b) {
        return Err(into_datafusion(no_operator("||", &a, &b)));
    }
    let as_text = |expr: &Expr| cast_expr(expr.clone(), &SqlType::Text, schema);
    let (left, right) = (as_text(left)?, as_text(right)?);
    debug_assert!(left.get_type(schema).is_ok_and(|ty| ty == DataType::Utf8));
    Ok(Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::StringConcat, Box::new(right)))))
}
