//! Functions of whole numbers, and of how many arguments are NULL (PostgreSQL 15, tables 9.5 and 9.3).

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Function, Kind, Values, assignable, rows, texts};
use crate::kernel::Side;
use crate::numeric::overflow as numeric_overflow;
use crate::operator::overflow;

pub(crate) fn functions() -> Vec<Function> {
    let whole = |name, kernel| Function::new(name, Kind::Immutable, two_integers, wider, kernel);
    let nulls = |name, kernel| Function::new(name, Kind::Immutable, any_number, |_| SqlType::Int4, kernel);
    vec![
        whole("gcd", |s, ty| integers(s, ty, |a, b| Some(gcd(a, b)))),
        whole("lcm", |s, ty| integers(s, ty, lcm)),
        Function::new("factorial", Kind::Immutable, one_integer, |_| SqlType::Numeric(76, 0), factorial),
        Function::new("scale", Kind::Immutable, one_numeric, |_| SqlType::Int4, scale),
        Function::new("min_scale", Kind::Immutable, one_numeric, |_| SqlType::Int4, min_scale),
        Function::new("width_bucket", Kind::Immutable, bucket_arguments, |_| SqlType::Int4, width_bucket),
        Function::new("to_hex", Kind::Immutable, one_whole, |_| SqlType::Text, to_hex),
        nulls("num_nulls", |s, _| count_nulls(s, true)),
        nulls("num_nonnulls", |s, _| count_nulls(s, false)),
        Function::new(
            "make_interval",
            Kind::Immutable,
            interval_arguments,
            |_| SqlType::Interval,
            make_interval,
        ),
    ]
}

fn two_integers(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [a, b] = types else { return None };
    let both = [a, b].into_iter().all(|ty| ty.is_integer() || *ty == SqlType::Unknown);
    let wide = [a, b].contains(&&SqlType::Int8);
    both.then(|| vec![if wide { SqlType::Int8 } else { SqlType::Int4 }; 2])
}

fn wider(types: &[SqlType]) -> SqlType {
    types[0].clone()
}

fn one_integer(types: &[SqlType]) -> Option<Vec<SqlType>> {
    matches!(types, [ty] if ty.is_integer()).then(|| vec![SqlType::Int8])
}

fn one_whole(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [SqlType::Int8] => Some(vec![SqlType::Int8]),
        [ty] if ty.is_integer() => Some(vec![SqlType::Int4]),
        _ => None,
    }
}

/// Of a negative number the bits of its own width.
fn to_hex(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let narrow = sides[0].array.as_primitive_opt::<Int32Type>();
    texts(sides, |row, out| {
        let at = if sides[0].constant { 0 } else { row };
        if sides[0].array.is_null(at) {
            return Ok(false);
        }
        out.push_str(&match narrow {
            Some(narrow) => format!("{:x}", narrow.value(at)),
            None => format!("{:x}", sides[0].array.as_primitive::<Int64Type>().value(at)),
        });
        Ok(true)
    })
}

fn one_numeric(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [ty @ SqlType::Numeric(..)] => Some(vec![ty.clone()]),
        [ty] if ty.is_integer() => Some(vec![SqlType::Numeric(19, 0)]),
        _ => None,
    }
}

fn bucket_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let float = |ty: &SqlType| assignable(ty, &SqlType::Float8) && *ty != SqlType::Text;
    match types {
        [a, b, c, n] if [a, b, c].into_iter().all(float) && assignable(n, &SqlType::Int4) => {
            Some(vec![SqlType::Float8, SqlType::Float8, SqlType::Float8, SqlType::Int4])
        }
        _ => None,
    }
}

fn any_number(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let known = |ty: &SqlType| if *ty == SqlType::Unknown { SqlType::Text } else { ty.clone() };
    (!types.is_empty()).then(|| types.iter().map(known).collect())
}

fn interval_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let mut wanted = vec![SqlType::Int4; 6];
    wanted.push(SqlType::Float8);
    let fits = types.len() <= 7
        && types.iter().zip(&wanted).all(|(ty, want)| assignable(ty, want) && *ty != SqlType::Text);
    fits.then(|| wanted[..types.len()].to_vec())
}

fn gcd(a: i64, b: i64) -> i128 {
    let (mut a, mut b) = (i128::from(a).abs(), i128::from(b).abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn lcm(a: i64, b: i64) -> Option<i128> {
    match gcd(a, b) {
        0 => Some(0),
        divisor => (i128::from(a) / divisor).checked_mul(i128::from(b)).map(i128::abs),
    }
}

fn integers(
    sides: &[Side],
    result: &SqlType,
    of: fn(i64, i64) -> Option<i128>,
) -> Result<ArrayRef, SqlError> {
    let widen =
        |side: &Side| arrow::compute::cast(&side.array, &DataType::Int64).map_err(crate::error::from_arrow);
    let (a, b) = (widen(&sides[0])?, widen(&sides[1])?);
    let (a, b) = (a.as_primitive::<Int64Type>(), b.as_primitive::<Int64Type>());
    let value = |array: &Int64Array, constant: bool, row: usize| {
        let row = if constant { 0 } else { row };
        array.is_valid(row).then(|| array.value(row))
    };
    let limit = if *result == SqlType::Int4 { i128::from(i32::MAX) } else { i128::from(i64::MAX) };
    let one = |row: usize| {
        let pair = value(a, sides[0].constant, row).zip(value(b, sides[1].constant, row));
        pair.map(|(a, b)| {
            of(a, b).filter(|v| *v <= limit).map(|v| v as i64).ok_or_else(|| out_of_range(result))
        })
        .transpose()
    };
    let values = (0..rows(sides)).map(one).collect::<Result<Int64Array, SqlError>>()?;
    arrow::compute::cast(&values, &result.arrow()).map_err(crate::error::from_arrow)
}

fn out_of_range(ty: &SqlType) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{ty} out of range"))
}

fn factorial(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let numbers = Values::<Int64Type>::of(&sides[0]);
    let one = |row: usize| {
        let Some(n) = numbers.get(row) else { return Ok(None) };
        if n < 0 {
            let text = "factorial of a negative number is undefined";
            return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, text));
        }
        // 57! has 77 digits.
        if n > 56 {
            return Err(numeric_overflow());
        }
        Ok(Some((1..=n).fold(i256::ONE, |product, k| product.wrapping_mul(i256::from_i128(k.into())))))
    };
    let values = (0..rows(sides)).map(one).collect::<Result<Decimal256Array, SqlError>>()?;
    Ok(Arc::new(values.with_data_type(DataType::Decimal256(76, 0))))
}

/// All values of a column have one scale here.
fn scale(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let scale = crate::numeric::shape_of(sides[0].data_type()).map_or(0, |(_, scale)| i32::from(scale));
    let valid = |row: usize| sides[0].array.is_valid(row).then_some(scale);
    Ok(Arc::new((0..sides[0].array.len()).map(valid).collect::<Int32Array>()))
}

fn min_scale(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let scale = crate::numeric::shape_of(sides[0].data_type()).map_or(0, |(_, scale)| scale);
    let wide = arrow::compute::cast(&sides[0].array, &DataType::Decimal256(76, scale));
    let wide = wide.map_err(crate::error::from_arrow)?;
    let ten = i256::from_i128(10);
    let least = |mut value: i256| {
        let mut places = i32::from(scale);
        while places > 0 && value.wrapping_rem(ten) == i256::ZERO {
            (value, places) = (value.wrapping_div(ten), places - 1);
        }
        places
    };
    let values = wide.as_primitive::<Decimal256Type>().iter().map(|value| value.map(least));
    Ok(Arc::new(values.collect::<Int32Array>()))
}

fn width_bucket(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let [value, low, high] = [0, 1, 2].map(|at| Values::<Float64Type>::of(&sides[at]));
    let counts = Values::<Int32Type>::of(&sides[3]);
    let refused = |text: &str| Err(SqlError::new(SqlState::new("2201G"), text));
    let one = |row: usize| {
        let bounds = low.get(row).zip(high.get(row));
        let (Some(value), Some((low, high)), Some(count)) = (value.get(row), bounds, counts.get(row)) else {
            return Ok(None);
        };
        if count <= 0 {
            return refused("count must be greater than zero");
        }
        if value.is_nan() || low.is_nan() || high.is_nan() {
            return refused("operand, lower bound, and upper bound cannot be NaN");
        }
        if !low.is_finite() || !high.is_finite() {
            return refused("lower and upper bounds must be finite");
        }
        if low == high {
            return refused("lower bound cannot equal upper bound");
        }
        // Where the bounds go down, so do the buckets.
        let (value, low, high) = if low < high { (value, low, high) } else { (-value, -low, -high) };
        Ok(Some(if value < low {
            0
        } else if value >= high {
            count.checked_add(1).ok_or_else(overflow)?
        } else {
            let place = (f64::from(count) * ((value - low) / (high - low))) as i32;
            place.min(count - 1) + 1
        }))
    };
    Ok(Arc::new((0..rows(sides)).map(one).collect::<Result<Int32Array, SqlError>>()?))
}

fn count_nulls(sides: &[Side], nulls: bool) -> Result<ArrayRef, SqlError> {
    let one = |row: usize| {
        let null = |side: &&Side| side.array.is_null(if side.constant { 0 } else { row });
        Some(sides.iter().filter(|side| null(side) == nulls).count() as i32)
    };
    Ok(Arc::new((0..rows(sides)).map(one).collect::<Int32Array>()))
}

/// years, months, weeks, days, hours, minutes and seconds; those that are not there are 0.
fn make_interval(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let parts: Vec<_> = sides.iter().take(6).map(Values::<Int32Type>::of).collect();
    let seconds = sides.get(6).map(Values::<Float64Type>::of);
    let rows = if sides.is_empty() { 1 } else { rows(sides) };
    let one = |row: usize| {
        let mut whole = [0i64; 6];
        for (place, part) in whole.iter_mut().zip(&parts) {
            let Some(value) = part.get(row) else { return Ok(None) };
            *place = value.into();
        }
        let seconds = match &seconds {
            Some(seconds) => match seconds.get(row) {
                Some(seconds) => seconds,
                None => return Ok(None),
            },
            None => 0.0,
        };
        let [years, months, weeks, days, hours, minutes] = whole;
        let micros = (seconds * 1e6).round();
        let fits = micros.abs() < 9.2e18;
        let nanos = i128::from(hours * 3600 + minutes * 60) * 1_000_000_000 + micros as i128 * 1000;
        let span = i32::try_from(years * 12 + months).ok().zip(i32::try_from(weeks * 7 + days).ok());
        let span = span.zip(i64::try_from(nanos).ok()).filter(|_| fits);
        let Some(((months, days), nanos)) = span else { return Err(crate::text::interval::out_of_range()) };
        Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
    };
    Ok(Arc::new((0..rows).map(one).collect::<Result<IntervalMonthDayNanoArray, SqlError>>()?))
}
