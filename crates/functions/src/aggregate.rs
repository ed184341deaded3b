//! Aggregate functions, and the plain rules and final functions that the incremental operators share with them.

pub(crate) mod counted;
mod distinct;
pub(crate) mod exact;
pub(crate) mod extreme;
pub mod moments;
pub mod recomputed;
pub(crate) mod rows;

use arrow::datatypes::i256;
use millpond_types::{SqlError, SqlState, SqlType};

use crate::numeric::{divide_rounded, divide_rounded_256};

/// Digits after the point of avg over integers.
pub const AVG_SCALE: i8 = 16;

/// The type of `sum` over `ty`.
///
/// # Errors
/// 42883 if the type cannot be summed.
pub fn sum_type(ty: &SqlType) -> Result<SqlType, SqlError> {
    match ty {
        SqlType::Int2 | SqlType::Int4 => Ok(SqlType::Int8),
        SqlType::Int8 => Ok(SqlType::Numeric(38, 0)),
        SqlType::Numeric(p, s) if *p <= 38 => Ok(SqlType::Numeric(38, *s)),
        SqlType::Numeric(_, s) => Ok(SqlType::Numeric(76, *s)),
        SqlType::Float4 => Ok(SqlType::Float4),
        SqlType::Float8 => Ok(SqlType::Float8),
        SqlType::Interval => Ok(SqlType::Interval),
        other => Err(no_aggregate("sum", other)),
    }
}

/// The type of `avg` over `ty`: numerics keep at least [`AVG_SCALE`] digits after the point where they fit beside the
/// whole digits of the input.
///
/// # Errors
/// 42883 if the type cannot be averaged.
pub fn avg_type(ty: &SqlType) -> Result<SqlType, SqlError> {
    match ty {
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => Ok(SqlType::Numeric(38, AVG_SCALE)),
        SqlType::Numeric(p, s) => {
            let precision = if *p <= 38 { 38 } else { 76 };
            let room = precision - (*p as i8 - *s);
            Ok(SqlType::Numeric(precision as u8, AVG_SCALE.max(*s).min(room).max(*s)))
        }
        SqlType::Float4 | SqlType::Float8 => Ok(SqlType::Float8),
        SqlType::Interval => Ok(SqlType::Interval),
        other => Err(no_aggregate("avg", other)),
    }
}

fn no_aggregate(name: &str, ty: &SqlType) -> SqlError {
    crate::error::no_function(name, &[ty.arrow()])
}

/// The result of sum over int2 and int4.
///
/// # Errors
/// 22003 beyond bigint.
pub fn sum_to_bigint(sum: i128) -> Result<i64, SqlError> {
    i64::try_from(sum).map_err(|_| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range"))
}

/// The result of sum over bigint and over numeric(p <= 38, s): the sum itself, if it has at most 38 digits.
///
/// # Errors
/// 22003 beyond.
pub fn sum_to_numeric(sum: i128) -> Result<i128, SqlError> {
    if sum.unsigned_abs() < 10u128.pow(38) { Ok(sum) } else { Err(overflow()) }
}

/// As [`sum_to_numeric`], for numeric(p > 38, s).
///
/// # Errors
/// 22003 beyond 76 digits.
pub fn sum_to_numeric_wide(sum: i256) -> Result<i256, SqlError> {
    let limit = crate::text::number::power_of_ten(76);
    if sum.wrapping_abs() < limit && sum != i256::MIN { Ok(sum) } else { Err(overflow()) }
}

/// `sum / count` for numeric(p <= 38): `sum` at `sum_scale`, the answer at `scale` digits after the point, rounded half
/// away from zero. For integers `sum_scale` is 0 and `scale` is [`AVG_SCALE`]. `count` is not 0.
///
/// # Errors
/// 22003 if the answer has more than 38 digits.
pub fn avg_from_sum_count(sum: i128, sum_scale: i8, count: i64, scale: i8) -> Result<i128, SqlError> {
    debug_assert!(count != 0 && scale >= sum_scale);
    let factor = 10i128.pow(scale.abs_diff(sum_scale).into());
    let answer = match sum.checked_mul(factor) {
        Some(scaled) => divide_rounded(scaled, i128::from(count)),
        None => {
            let answer = avg_from_sum_count_wide(i256::from_i128(sum), sum_scale, count, scale)?;
            answer.to_i128().ok_or_else(overflow)?
        }
    };
    sum_to_numeric(answer)
}

/// As [`avg_from_sum_count`], for numeric(p > 38).
///
/// # Errors
/// 22003 if the answer has more than 76 digits.
pub fn avg_from_sum_count_wide(sum: i256, sum_scale: i8, count: i64, scale: i8) -> Result<i256, SqlError> {
    debug_assert!(count != 0 && scale >= sum_scale);
    let factor = i256::from_i128(10).checked_pow(scale.abs_diff(sum_scale).into()).ok_or_else(overflow)?;
    let scaled = sum.checked_mul(factor).ok_or_else(overflow)?;
    divide_rounded_256(scaled, i256::from_i128(count.into())).ok_or_else(crate::operator::division_by_zero)
}

fn overflow() -> SqlError {
    crate::numeric::overflow()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_round_half_away_from_zero() {
        let cases = [
            (10, 0, 4, 16, 25_000_000_000_000_000),
            (2, 0, 3, 16, 6_666_666_666_666_667),
            (-2, 0, 3, 16, -6_666_666_666_666_667),
            (5, 1, 2, 1, 3),
            (-5, 1, 2, 1, -3),
        ];
        for (sum, sum_scale, count, scale, expected) in cases {
            assert_eq!(avg_from_sum_count(sum, sum_scale, count, scale), Ok(expected));
        }
        // The scaled sum does not fit 128 bits; the average does.
        let sum = i128::from(i64::MAX) * 1_000_000_000;
        assert_eq!(
            avg_from_sum_count(sum, 0, 1_000_000_000, AVG_SCALE),
            Ok(i128::from(i64::MAX) * 10i128.pow(16))
        );
        assert!(avg_from_sum_count(10i128.pow(37), 0, 1, AVG_SCALE).is_err());
    }

    #[test]
    fn types_follow_the_input() {
        let avg = |p, s| avg_type(&SqlType::Numeric(p, s)).unwrap();
        assert_eq!(avg(10, 2), SqlType::Numeric(38, 16));
        assert_eq!(avg(38, 2), SqlType::Numeric(38, 2));
        assert_eq!(avg(30, 20), SqlType::Numeric(38, 20));
        assert_eq!(avg(40, 2), SqlType::Numeric(76, 16));
        assert_eq!(sum_type(&SqlType::Int4), Ok(SqlType::Int8));
        assert_eq!(sum_type(&SqlType::Text).unwrap_err().message(), "function sum(text) does not exist");
    }
}
