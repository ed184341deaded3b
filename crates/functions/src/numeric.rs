//! Arithmetic of numeric(p,s): result types by PostgreSQL's rules, kernels over Decimal128 and Decimal256.
//!
//! A result type has room for every value of its operands' types, up to [`PRECISION_MAX`] digits; only there can a value
//! overflow (22003).

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use crate::kernel::{Side, binary};
use crate::operator::Operation;
use crate::text::number::power_of_ten;

/// Most digits that a numeric can hold.
pub const PRECISION_MAX: u8 = 76;
/// Significant digits that a quotient has at least.
pub const DIVISION_DIGITS: u8 = 16;

/// Precision and scale.
pub type Shape = (u8, i8);

/// Digits before the point.
fn whole(shape: Shape) -> i16 {
    i16::from(shape.0) - i16::from(shape.1)
}

fn bounded(whole: i16, scale: i16) -> Shape {
    let max = i16::from(PRECISION_MAX);
    let scale = scale.min(max);
    ((whole + scale).clamp(1, max) as u8, scale as i8)
}

/// The type of `a + b` and `a - b`: the larger scale, and a digit for the carry.
pub fn sum_shape(a: Shape, b: Shape) -> Shape {
    bounded(whole(a).max(whole(b)) + 1, a.1.max(b.1).into())
}

/// The type of `a * b`: the scales add up.
pub fn product_shape(a: Shape, b: Shape) -> Shape {
    bounded(whole(a) + whole(b), i16::from(a.1) + i16::from(b.1))
}

/// The type of `a / b`: so many places that even the smallest quotient, 10^-(s1) / 10^(p2-s2), has
/// [`DIVISION_DIGITS`] significant digits, as far as they fit beside the whole digits of the largest.
pub fn quotient_shape(a: Shape, b: Shape) -> Shape {
    let digits = i16::from(DIVISION_DIGITS);
    let whole_digits = whole(a) + i16::from(b.1);
    let least = i16::from(a.1).max(b.1.into()).max(digits);
    let wanted = i16::from(a.1) + whole(b).max(0) + digits;
    let scale = wanted.min(i16::from(PRECISION_MAX) - whole_digits.max(0)).max(least);
    bounded(whole_digits.max(1), scale)
}

/// The type of `a % b`: no larger than either, at the larger scale.
pub fn remainder_shape(a: Shape, b: Shape) -> Shape {
    bounded(whole(a).max(whole(b)), a.1.max(b.1).into())
}

/// The scale that PostgreSQL gives to the quotient of these two values (select_div_scale): 16 significant digits or
/// more, counted in groups of four.
pub fn quotient_scale(a: (i256, i8), b: (i256, i8)) -> i8 {
    let ((weight_a, first_a), (weight_b, first_b)) = (first_group(a.0, a.1), first_group(b.0, b.1));
    let mut weight = weight_a - weight_b;
    if first_a <= first_b {
        weight -= 1;
    }
    (16 - weight * 4).max(a.1.into()).max(b.1.into()).clamp(0, i32::from(PRECISION_MAX)) as i8
}

/// The power of 10,000 of a value's first group of four digits, and that group.
fn first_group(value: i256, scale: i8) -> (i32, i32) {
    let digits = value.wrapping_abs().to_string();
    if value == i256::ZERO {
        return (0, 0);
    }
    let top = digits.len() as i32 - 1 - i32::from(scale);
    let weight = top.div_euclid(4);
    let taken = (top - weight * 4 + 1) as usize;
    let group: String = digits.chars().chain(std::iter::repeat('0')).take(taken).collect();
    (weight, group.parse().unwrap_or(0))
}

pub(crate) fn shape_type(shape: Shape) -> SqlType {
    SqlType::Numeric(shape.0, shape.1)
}

/// The shape of a decimal Arrow type.
pub(crate) fn shape_of(ty: &DataType) -> Option<Shape> {
    match ty {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => Some((*p, *s)),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => Some((*p, *s)),
        _ => None,
    }
}

/// A numeric type without negative scale, which only DataFusion's literals (`1e10`) have.
pub(crate) fn plain(ty: SqlType) -> SqlType {
    match ty {
        SqlType::Numeric(p, s) if s < 0 => {
            SqlType::Numeric((i16::from(p) - i16::from(s)).min(i16::from(PRECISION_MAX)) as u8, 0)
        }
        other => other,
    }
}

/// The result shape of `op`.
pub(crate) fn result_shape(op: Operation, a: Shape, b: Shape) -> Shape {
    match op {
        Operation::Add | Operation::Subtract => sum_shape(a, b),
        Operation::Multiply => product_shape(a, b),
        Operation::Divide => quotient_shape(a, b),
        Operation::Modulo => remainder_shape(a, b),
    }
}

/// PostgreSQL's error for a result beyond what any numeric holds.
pub(crate) fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

/// `left op right` as `result`, which [`result_shape`] gave.
pub(crate) fn arithmetic(
    op: Operation,
    left: &Side,
    right: &Side,
    result: Shape,
) -> Result<ArrayRef, SqlError> {
    let shape =
        |side: &Side| shape_of(side.data_type()).ok_or_else(|| SqlError::internal("a numeric operand"));
    let (a, b) = (shape(left)?, shape(right)?);
    let widest = match op {
        Operation::Divide => i16::from(a.0) + i16::from(result.1) + i16::from(b.1) - i16::from(a.1),
        Operation::Modulo => whole(a).max(whole(b)) + i16::from(result.1),
        _ => i16::from(result.0),
    };
    if a.0 <= 38 && b.0 <= 38 && result.0 <= 38 && widest <= 38 {
        return narrow(op, left, right, (a, b), result);
    }
    wide(op, &widen(left)?, &widen(right)?, (a, b), result)
}

/// All in 128 bits, where no intermediate value can overflow.
fn narrow(
    op: Operation,
    left: &Side,
    right: &Side,
    (a, b): (Shape, Shape),
    result: Shape,
) -> Result<ArrayRef, SqlError> {
    let power = |exponent: i8| 10i128.pow(u32::from(exponent.unsigned_abs()));
    let (up_a, up_b) = (power(result.1 - a.1), power(result.1 - b.1));
    type D = Decimal128Type;
    let zero = crate::operator::division_by_zero;
    let array = match op {
        Operation::Add => binary::<D, D, D>(
            left,
            right,
            |x, y| (x.wrapping_mul(up_a).wrapping_add(y.wrapping_mul(up_b)), false),
            |_, _| overflow(),
        ),
        Operation::Subtract => binary::<D, D, D>(
            left,
            right,
            |x, y| (x.wrapping_mul(up_a).wrapping_sub(y.wrapping_mul(up_b)), false),
            |_, _| overflow(),
        ),
        Operation::Multiply => {
            binary::<D, D, D>(left, right, |x, y| (x.wrapping_mul(y), false), |_, _| overflow())
        }
        Operation::Divide => {
            let up = power(result.1 + b.1 - a.1);
            binary::<D, D, D>(
                left,
                right,
                |x, y| (divide_rounded(x.wrapping_mul(up), y), y == 0),
                |_, _| zero(),
            )
        }
        Operation::Modulo => {
            let remainder = |x: i128, y: i128| {
                (x.wrapping_mul(up_a).checked_rem(y.wrapping_mul(up_b)).unwrap_or(0), y == 0)
            };
            binary::<D, D, D>(left, right, remainder, |_, _| zero())
        }
    }?;
    Ok(Arc::new(array.with_data_type(shape_type(result).arrow())))
}

/// `x / y` rounded half away from zero; 0 where y is 0.
pub(crate) fn divide_rounded(x: i128, y: i128) -> i128 {
    // Most values fit 64 bits, where a division takes a tenth of the time.
    if let (Ok(x), Ok(y)) = (i64::try_from(x), i64::try_from(y)) {
        if y == 0 {
            return 0;
        }
        let (quotient, rest) = (i128::from(x) / i128::from(y), x.wrapping_rem(y));
        let up = rest != 0 && rest.unsigned_abs() >= y.unsigned_abs() - rest.unsigned_abs();
        return if up { quotient + if (x < 0) == (y < 0) { 1 } else { -1 } } else { quotient };
    }
    if y == 0 {
        return 0;
    }
    let (quotient, rest) = (x.wrapping_div(y), x.wrapping_rem(y));
    let up = rest != 0 && rest.unsigned_abs() >= y.unsigned_abs() - rest.unsigned_abs();
    if up { quotient + if (x < 0) == (y < 0) { 1 } else { -1 } } else { quotient }
}

fn widen(side: &Side) -> Result<Side, SqlError> {
    match side.data_type() {
        DataType::Decimal128(p, s) => {
            let array = side.array.as_primitive::<Decimal128Type>();
            let wide: Decimal256Array = array.unary(i256::from_i128);
            let wide = wide.with_data_type(DataType::Decimal256(*p, *s));
            Ok(Side { array: Arc::new(wide), constant: side.constant })
        }
        _ => Ok(side.clone()),
    }
}

fn wide(
    op: Operation,
    left: &Side,
    right: &Side,
    (a, b): (Shape, Shape),
    result: Shape,
) -> Result<ArrayRef, SqlError> {
    let limit = power_of_ten(result.0);
    let fits = move |v: i256| v.wrapping_abs() < limit && v != i256::MIN;
    // The result and whether it failed: over 76 digits, or no quotient at all.
    let check = move |v: Option<i256>| match v {
        Some(v) => (v, !fits(v)),
        None => (i256::ZERO, true),
    };
    let (up_a, up_b) =
        (power_of_ten((result.1 - a.1).max(0) as u8), power_of_ten((result.1 - b.1).max(0) as u8));
    let diagnose =
        |_, y| if op.divides() && y == i256::ZERO { crate::operator::division_by_zero() } else { overflow() };
    type D = Decimal256Type;
    let array = match op {
        Operation::Add => binary::<D, D, D>(
            left,
            right,
            |x, y| check(x.checked_mul(up_a).zip(y.checked_mul(up_b)).and_then(|(x, y)| x.checked_add(y))),
            diagnose,
        ),
        Operation::Subtract => binary::<D, D, D>(
            left,
            right,
            |x, y| check(x.checked_mul(up_a).zip(y.checked_mul(up_b)).and_then(|(x, y)| x.checked_sub(y))),
            diagnose,
        ),
        Operation::Multiply => {
            // Beyond 76 places the product is rounded to those that a numeric can have.
            let excess = i16::from(a.1) + i16::from(b.1) - i16::from(result.1);
            let down = power_of_ten(excess as u8);
            let product = |x: i256, y: i256| {
                let product = x.checked_mul(y)?;
                if excess == 0 { Some(product) } else { divide_rounded_256(product, down) }
            };
            binary::<D, D, D>(left, right, |x, y| check(product(x, y)), diagnose)
        }
        Operation::Divide => {
            // Beyond 76 digits no dividend but 0 has room.
            let exponent = i16::from(result.1) + i16::from(b.1) - i16::from(a.1);
            let up = (exponent <= 76).then(|| power_of_ten(exponent as u8));
            let scaled = |x: i256| if x == i256::ZERO { Some(x) } else { x.checked_mul(up?) };
            let quotient = |x: i256, y: i256| divide_rounded_256(scaled(x)?, y);
            binary::<D, D, D>(left, right, |x, y| check(quotient(x, y)), diagnose)
        }
        Operation::Modulo => {
            let remainder = |x: i256, y: i256| x.checked_mul(up_a)?.checked_rem(y.checked_mul(up_b)?);
            binary::<D, D, D>(left, right, |x, y| check(remainder(x, y)), diagnose)
        }
    }?;
    if result.0 <= 38 {
        return narrow_256(&array, result);
    }
    Ok(Arc::new(array.with_data_type(shape_type(result).arrow())))
}

/// Values of 256 bits in a type of 128.
fn narrow_256(array: &Decimal256Array, shape: Shape) -> Result<ArrayRef, SqlError> {
    let narrow: Decimal128Array = array.try_unary(|v| v.to_i128().ok_or_else(overflow))?;
    Ok(Arc::new(narrow.with_data_type(shape_type(shape).arrow())))
}

/// `x / y` rounded half away from zero; `None` where y is 0.
pub(crate) fn divide_rounded_256(x: i256, y: i256) -> Option<i256> {
    if let (Some(x), Some(y)) = (x.to_i128(), y.to_i128()) {
        return (y != 0).then(|| i256::from_i128(divide_rounded(x, y)));
    }
    let quotient = x.checked_div(y)?;
    let rest = x.wrapping_rem(y);
    let magnitude = rest.wrapping_abs();
    if rest == i256::ZERO || magnitude < y.wrapping_abs().wrapping_sub(magnitude) {
        return Some(quotient);
    }
    let step = if (x < i256::ZERO) == (y < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    Some(quotient.wrapping_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_types_have_room() {
        assert_eq!(sum_shape((10, 2), (5, 4)), (13, 4));
        assert_eq!(product_shape((10, 2), (5, 4)), (15, 6));
        assert_eq!(product_shape((76, 40), (76, 40)), (76, 76));
        assert_eq!(quotient_shape((10, 2), (2, 1)), (28, 19));
        assert_eq!(quotient_shape((38, 0), (19, 0)), (73, 35));
        assert_eq!(quotient_shape((38, 10), (38, 10)), (76, 38));
        assert_eq!(remainder_shape((10, 2), (5, 4)), (12, 4));
    }

    #[test]
    fn literal_quotients_have_postgresql_scale() {
        let value = |v: i128, scale| (i256::from_i128(v), scale);
        for (a, b, expected) in [
            (value(10, 1), value(3, 0), 20),        // 1.0 / 3
            (value(100, 1), value(4, 0), 16),       // 10.0 / 4
            (value(1_000_000, 1), value(3, 0), 12), // 100000.0 / 3
            (value(1, 0), value(30000000, 0), 24),
            (value(0, 0), value(3, 0), 20),
        ] {
            assert_eq!(quotient_scale(a, b), expected, "{a:?} / {b:?}");
        }
    }

    #[test]
    fn quotients_round_half_away_from_zero() {
        for (x, y, expected) in [(7, 2, 4), (-7, 2, -4), (5, 3, 2), (4, 3, 1), (-5, -3, 2), (1, 0, 0)] {
            assert_eq!(divide_rounded(x, y), expected);
        }
        let big = 10i128.pow(30);
        assert_eq!(divide_rounded(5 * big, 10 * big), 1);
        assert_eq!(divide_rounded(-5 * big, 10 * big), -1);
    }
}
