//! Casts between numbers.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlType};

use super::no_cast;
use crate::kernel::{try_unary, unary};
use crate::numeric::{divide_rounded, divide_rounded_256};
use crate::operator::{never, out_of_range};
use crate::text::number::{
    field_overflow, parse_decimal256, parse_float8, power_of_ten, write_decimal, write_decimal256,
};

pub(super) fn cast(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef, SqlError> {
    use SqlType::*;
    match (from, to) {
        (Int2, _) => from_integer::<Int16Type>(array, from, to),
        (Int4, _) => from_integer::<Int32Type>(array, from, to),
        (Int8 | Oid, _) => from_integer::<Int64Type>(array, from, to),
        (Float4, Float8) => {
            Ok(Arc::new(unary::<Float32Type, Float64Type>(array, |v| (v.into(), false), never)?))
        }
        (Float4, _) => {
            // PostgreSQL goes through six digits (FLT_DIG) to numeric.
            if let Numeric(p, s) = to {
                return float_to_numeric::<Float32Type>(array, (*p, *s), |v| format!("{v:.5e}"));
            }
            from_float(
                &(Arc::new(unary::<Float32Type, Float64Type>(array, |v| (v.into(), false), never)?) as _),
                to,
            )
        }
        (Float8, Numeric(p, s)) => float_to_numeric::<Float64Type>(array, (*p, *s), |v| format!("{v:.14e}")),
        (Float8, _) => from_float(array, to),
        (Numeric(p, s), _) => from_numeric(array, (*p, *s), to),
        _ => Err(no_cast(from, to)),
    }
}

fn from_integer<T>(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef, SqlError>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    // Through a flag, so that the loop has no branch.
    macro_rules! narrow {
        ($type:ty, $native:ty, $name:literal) => {{
            let f = |v: T::Native| {
                let wide: i64 = v.into();
                (wide as $native, <$native>::try_from(wide).is_err())
            };
            Arc::new(unary::<T, $type>(array, f, |_| out_of_range($name))?)
        }};
    }
    Ok(match to {
        SqlType::Int2 => narrow!(Int16Type, i16, "smallint"),
        SqlType::Int4 => narrow!(Int32Type, i32, "integer"),
        SqlType::Int8 => narrow!(Int64Type, i64, "bigint"),
        SqlType::Oid => {
            let f = |v: T::Native| {
                let wide: i64 = v.into();
                // A negative integer is taken for the unsigned number of the same bits.
                let oid = if wide < 0 && *from != SqlType::Int8 { i64::from(wide as u32) } else { wide };
                (oid, u32::try_from(oid).is_err())
            };
            Arc::new(unary::<T, Int64Type>(array, f, |_| out_of_range("OID"))?)
        }
        SqlType::Float4 => Arc::new(unary::<T, Float32Type>(array, |v| (v.into() as f32, false), never)?),
        SqlType::Float8 => Arc::new(unary::<T, Float64Type>(array, |v| (v.into() as f64, false), never)?),
        SqlType::Numeric(p, s) if *p <= 38 => {
            let (up, limit) = (10i128.pow(*s as u32), 10i128.pow((*p as i8 - *s) as u32));
            let f = |v: T::Native| {
                let wide = i128::from(v.into());
                (wide.wrapping_mul(up), wide.abs() >= limit)
            };
            let values = unary::<T, Decimal128Type>(array, f, |_| field_overflow(*p, *s))?;
            Arc::new(values.with_data_type(to.arrow()))
        }
        SqlType::Numeric(p, s) => {
            let (up, limit) = (power_of_ten(*s as u8), power_of_ten((*p as i8 - *s) as u8));
            let f = |v: T::Native| {
                let wide = i256::from_i128(v.into().into());
                (wide.wrapping_mul(up), wide.wrapping_abs() >= limit)
            };
            let values = unary::<T, Decimal256Type>(array, f, |_| field_overflow(*p, *s))?;
            Arc::new(values.with_data_type(to.arrow()))
        }
        _ => return Err(no_cast(from, to)),
    })
}

fn from_float(array: &ArrayRef, to: &SqlType) -> Result<ArrayRef, SqlError> {
    macro_rules! round {
        ($type:ty, $native:ty, $name:literal) => {{
            // The bounds are exact: the first is representable, the second is one beyond the greatest.
            let (least, beyond) = (<$native>::MIN as f64, -(<$native>::MIN as f64));
            let f = |v: f64| {
                let rounded = v.round_ties_even();
                (rounded as $native, !(rounded >= least && rounded < beyond))
            };
            Arc::new(unary::<Float64Type, $type>(array, f, |_| out_of_range($name))?)
        }};
    }
    Ok(match to {
        SqlType::Int2 => round!(Int16Type, i16, "smallint"),
        SqlType::Int4 => round!(Int32Type, i32, "integer"),
        SqlType::Int8 => round!(Int64Type, i64, "bigint"),
        SqlType::Float4 => {
            let f = |v: f64| {
                let narrow = v as f32;
                (narrow, (narrow.is_infinite() && v.is_finite()) || (narrow == 0.0 && v != 0.0))
            };
            let diagnose = |v: f64| {
                if v.abs() > 1.0 { crate::operator::overflow() } else { crate::operator::underflow() }
            };
            Arc::new(unary::<Float64Type, Float32Type>(array, f, diagnose)?)
        }
        _ => return Err(no_cast(&SqlType::Float8, to)),
    })
}

/// `print` gives the digits that PostgreSQL takes for exact.
fn float_to_numeric<T>(
    array: &ArrayRef,
    (p, s): (u8, i8),
    print: impl Fn(T::Native) -> String,
) -> Result<ArrayRef, SqlError>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64>,
{
    let convert = |v: T::Native| {
        let wide: f64 = v.into();
        if wide.is_infinite() {
            return Err(SqlError::new(
                millpond_types::SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "numeric field overflow",
            )
            .detail(format!("A field with precision {p}, scale {s} cannot hold an infinite value.")));
        }
        parse_decimal256(&print(v), p, s)
    };
    let wide = try_unary::<T, Decimal256Type>(array, convert)?;
    finish(wide, (p, s))
}

/// Values that fit the shape, in its Arrow type.
fn finish(wide: Decimal256Array, (p, s): (u8, i8)) -> Result<ArrayRef, SqlError> {
    let ty = SqlType::Numeric(p, s).arrow();
    if p > 38 {
        return Ok(Arc::new(wide.with_data_type(ty)));
    }
    let narrow: Decimal128Array = wide.try_unary(|v| v.to_i128().ok_or_else(|| field_overflow(p, s)))?;
    Ok(Arc::new(narrow.with_data_type(ty)))
}

fn from_numeric(array: &ArrayRef, shape: (u8, i8), to: &SqlType) -> Result<ArrayRef, SqlError> {
    if let SqlType::Numeric(p, s) = to {
        return rescale(array, shape, (*p, *s));
    }
    if matches!(to, SqlType::Float4 | SqlType::Float8) {
        return numeric_to_float(array, shape, to);
    }
    macro_rules! round {
        ($type:ty, $native:ty, $name:literal) => {{
            if shape.0 <= 38 {
                let down = 10i128.pow(shape.1 as u32);
                let f = |v: i128| {
                    let whole = divide_rounded(v, down);
                    (whole as $native, <$native>::try_from(whole).is_err())
                };
                Arc::new(unary::<Decimal128Type, $type>(array, f, |_| out_of_range($name))?)
            } else {
                let down = power_of_ten(shape.1 as u8);
                Arc::new(try_unary::<Decimal256Type, $type>(array, |v| {
                    let whole = divide_rounded_256(v, down).and_then(|v| v.to_i128());
                    whole.and_then(|v| <$native>::try_from(v).ok()).ok_or_else(|| out_of_range($name))
                })?)
            }
        }};
    }
    Ok(match to {
        SqlType::Int2 => round!(Int16Type, i16, "smallint"),
        SqlType::Int4 => round!(Int32Type, i32, "integer"),
        SqlType::Int8 => round!(Int64Type, i64, "bigint"),
        _ => return Err(no_cast(&SqlType::Numeric(shape.0, shape.1), to)),
    })
}

fn numeric_to_float(array: &ArrayRef, (p, s): (u8, i8), to: &SqlType) -> Result<ArrayRef, SqlError> {
    const EXACT: u128 = 1 << 53;
    let down = 10f64.powi(s.into());
    let exact_scale = s <= 22;
    let convert = |v: i256| -> Result<f64, SqlError> {
        let mut text = Vec::new();
        write_decimal256(v, s, &mut text);
        parse_float8(std::str::from_utf8(&text).unwrap_or("0"))
    };
    let doubles: Float64Array = if p <= 38 {
        array.as_primitive::<Decimal128Type>().try_unary(|v| {
            // Both exact, so that the quotient is rounded once.
            if v.unsigned_abs() <= EXACT && exact_scale {
                return Ok(v as f64 / down);
            }
            let mut text = Vec::new();
            write_decimal(v, s, &mut text);
            parse_float8(std::str::from_utf8(&text).unwrap_or("0"))
        })?
    } else {
        array.as_primitive::<Decimal256Type>().try_unary(convert)?
    };
    let doubles: ArrayRef = Arc::new(doubles);
    if *to == SqlType::Float8 { Ok(doubles) } else { from_float(&doubles, to) }
}

/// To another precision and scale, rounded half away from zero.
pub(crate) fn rescale(array: &ArrayRef, from: (u8, i8), to: (u8, i8)) -> Result<ArrayRef, SqlError> {
    let (p, s) = to;
    let places = s - from.1;
    if from.0 <= 38 && p <= 38 && from.0 as i8 + places.max(0) <= 38 {
        let (up, down) = (10i128.pow(places.max(0) as u32), 10i128.pow((-places).max(0) as u32));
        let limit = 10i128.pow(p.into());
        let f = |v: i128| {
            let scaled = if places >= 0 { v.wrapping_mul(up) } else { divide_rounded(v, down) };
            (scaled, scaled.unsigned_abs() >= limit.unsigned_abs())
        };
        let values = unary::<Decimal128Type, Decimal128Type>(array, f, |_| field_overflow(p, s))?;
        return Ok(Arc::new(values.with_data_type(SqlType::Numeric(p, s).arrow())));
    }
    let limit = power_of_ten(p);
    let (up, down) = (power_of_ten(places.max(0) as u8), power_of_ten((-places).max(0) as u8));
    let convert = |v: i256| {
        let scaled = if places >= 0 { v.checked_mul(up) } else { divide_rounded_256(v, down) };
        scaled.filter(|v| v.wrapping_abs() < limit).ok_or_else(|| field_overflow(p, s))
    };
    let wide: Decimal256Array = if from.0 <= 38 {
        array.as_primitive::<Decimal128Type>().try_unary(|v| convert(i256::from_i128(v)))?
    } else {
        array.as_primitive::<Decimal256Type>().try_unary(convert)?
    };
    finish(wide, to)
}
