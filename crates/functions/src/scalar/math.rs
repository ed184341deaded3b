//! Functions of numbers.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Function, Kind, Values, rows};
use crate::cast::number::rescale;
use crate::kernel::{Side, binary, try_binary, try_unary, unary};
use crate::numeric::{divide_rounded_256, shape_of};
use crate::operator::{self, Operation, never, overflow, underflow};
use crate::text::number::{parse_decimal256, power_of_ten};

pub(crate) fn functions() -> Vec<Function> {
    let float =
        |name, kernel| Function::new(name, Kind::Immutable, float_arguments(1), |_| SqlType::Float8, kernel);
    vec![
        Function::new("abs", Kind::Immutable, same_number, same, abs),
        Function::new("sign", Kind::Immutable, float_or_numeric, sign_type, sign).alias("signum"),
        Function::new("ceil", Kind::Immutable, float_or_numeric, whole, ceil).alias("ceiling"),
        Function::new("floor", Kind::Immutable, float_or_numeric, whole, floor),
        Function::new("round", Kind::Immutable, with_places, whole, round).returning(places),
        Function::new("trunc", Kind::Immutable, with_places, whole, trunc).returning(places),
        Function::new("mod", Kind::Immutable, pair, modulo_type, modulo),
        Function::new("div", Kind::Immutable, numerics, quotient_type, div),
        Function::new("sqrt", Kind::Immutable, float_or_numeric, root_type, sqrt),
        float("cbrt", |s, _| each(s, |x| Ok(x.cbrt()))),
        float("exp", |s, _| each(s, |x| finite(x.exp(), x.is_finite()))),
        float("ln", |s, _| each(s, |x| positive(x).map(f64::ln))),
        float("log10", |s, _| each(s, |x| positive(x).map(f64::log10))),
        Function::new("log", Kind::Immutable, log_arguments, |_| SqlType::Float8, log),
        Function::new("power", Kind::Immutable, power_arguments, power_type, power).alias("pow"),
    ]
}

fn is_number(ty: &SqlType) -> bool {
    ty.is_integer()
        || matches!(ty, SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(..) | SqlType::Unknown)
}

fn same(types: &[SqlType]) -> SqlType {
    types[0].clone()
}

fn same_number(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [SqlType::Unknown | SqlType::Text] => Some(vec![SqlType::Float8]),
        [ty] if is_number(ty) => Some(types.to_vec()),
        _ => None,
    }
}

/// Integers count as double precision, the preferred type, as in PostgreSQL.
fn float_or_numeric(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [ty @ SqlType::Numeric(..)] => Some(vec![ty.clone()]),
        [SqlType::Text] => Some(vec![SqlType::Float8]),
        [ty] if is_number(ty) => Some(vec![SqlType::Float8]),
        _ => None,
    }
}

fn float_arguments(count: usize) -> impl Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync + 'static {
    move |types| {
        let numbers = types.iter().all(|ty| is_number(ty) || *ty == SqlType::Text);
        (types.len() == count && numbers).then(|| vec![SqlType::Float8; count])
    }
}

fn log_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    float_arguments(types.len().clamp(1, 2))(types)
}

fn numerics(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let numeric = |ty: &SqlType| match ty {
        SqlType::Int2 => Some(SqlType::Numeric(5, 0)),
        SqlType::Int4 => Some(SqlType::Numeric(10, 0)),
        SqlType::Int8 => Some(SqlType::Numeric(19, 0)),
        SqlType::Numeric(..) => Some(ty.clone()),
        _ => None,
    };
    if types.len() == 2 { types.iter().map(numeric).collect() } else { None }
}

fn pair(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [a, b] if a.is_integer() && b.is_integer() => {
            let wider =
                [SqlType::Int2, SqlType::Int4, SqlType::Int8].into_iter().rfind(|t| t == a || t == b)?;
            Some(vec![wider.clone(), wider])
        }
        _ => numerics(types),
    }
}

fn with_places(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [_] => float_or_numeric(types),
        [number, places] if places.is_integer() || *places == SqlType::Unknown => {
            let number = match number {
                SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => {
                    numerics(&[number.clone(), SqlType::Int4])?.swap_remove(0)
                }
                SqlType::Numeric(..) => number.clone(),
                _ => return None,
            };
            Some(vec![number, SqlType::Int4])
        }
        _ => None,
    }
}

fn sign_type(types: &[SqlType]) -> SqlType {
    if let SqlType::Numeric(..) = types[0] { SqlType::Numeric(1, 0) } else { SqlType::Float8 }
}

/// numeric without its places; a digit more, because rounding may carry.
fn whole(types: &[SqlType]) -> SqlType {
    match &types[0] {
        SqlType::Numeric(p, s) => SqlType::Numeric((*p as i8 - *s + 1).clamp(1, 76) as u8, 0),
        other => other.clone(),
    }
}

/// round(numeric, n) has n places where n is a literal, else those of its argument.
fn places(types: &[SqlType], literals: &[Option<&ScalarValue>]) -> SqlType {
    let (SqlType::Numeric(p, s), true) = (&types[0], types.len() == 2) else { return whole(types) };
    let digits = p - *s as u8;
    let places = match literals.get(1) {
        Some(Some(ScalarValue::Int32(Some(n)))) => (*n).clamp(0, (75 - i32::from(digits)).max(0)) as i8,
        Some(Some(ScalarValue::Int64(Some(n)))) => (*n).clamp(0, (75 - i64::from(digits)).max(0)) as i8,
        _ => *s,
    };
    SqlType::Numeric((digits + 1 + places as u8).min(76), places)
}

fn modulo_type(types: &[SqlType]) -> SqlType {
    let ty = operator::result_type(Operation::Modulo, &types[0].arrow(), &types[1].arrow());
    ty.and_then(|ty| SqlType::of_arrow(&ty).ok()).unwrap_or_else(|| types[0].clone())
}

fn quotient_type(types: &[SqlType]) -> SqlType {
    match (&types[0], &types[1]) {
        (SqlType::Numeric(p, s), SqlType::Numeric(_, t)) => {
            SqlType::Numeric((i16::from(*p) - i16::from(*s) + i16::from(*t)).clamp(1, 76) as u8, 0)
        }
        _ => types[0].clone(),
    }
}

fn abs(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let array = &sides[0].array;
    let range = operator::out_of_range;
    Ok(match array.data_type() {
        DataType::Int16 => {
            Arc::new(unary::<Int16Type, Int16Type>(array, i16::overflowing_abs, |_| range("smallint"))?)
        }
        DataType::Int32 => {
            Arc::new(unary::<Int32Type, Int32Type>(array, i32::overflowing_abs, |_| range("integer"))?)
        }
        DataType::Int64 => {
            Arc::new(unary::<Int64Type, Int64Type>(array, i64::overflowing_abs, |_| range("bigint"))?)
        }
        DataType::Float32 => Arc::new(unary::<Float32Type, Float32Type>(array, |v| (v.abs(), false), never)?),
        DataType::Float64 => Arc::new(unary::<Float64Type, Float64Type>(array, |v| (v.abs(), false), never)?),
        ty @ DataType::Decimal128(..) => {
            let positive =
                unary::<Decimal128Type, Decimal128Type>(array, |v| (v.wrapping_abs(), false), never)?;
            Arc::new(positive.with_data_type(ty.clone()))
        }
        ty => {
            let positive =
                unary::<Decimal256Type, Decimal256Type>(array, |v| (v.wrapping_abs(), false), never)?;
            Arc::new(positive.with_data_type(ty.clone()))
        }
    })
}

fn sign(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let array = &sides[0].array;
    Ok(match array.data_type() {
        DataType::Float64 => {
            let sign = |v: f64| (if v.is_nan() || v == 0.0 { v } else { v.signum() }, false);
            Arc::new(unary::<Float64Type, Float64Type>(array, sign, never)?)
        }
        DataType::Decimal128(..) => {
            let signs = unary::<Decimal128Type, Decimal128Type>(array, |v| (v.signum(), false), never)?;
            Arc::new(signs.with_data_type(result.arrow()))
        }
        DataType::Decimal256(..) => {
            let sign = |v: i256| (v.signum().to_i128().unwrap_or(0), false);
            Arc::new(
                unary::<Decimal256Type, Decimal128Type>(array, sign, never)?.with_data_type(result.arrow()),
            )
        }
        other => return Err(SqlError::internal(format!("sign got {other}"))),
    })
}

/// How a numeric loses places.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Up,
    Down,
    Nearest,
    Zero,
}

fn ceil(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    rounded(sides, result, f64::ceil, Rounding::Up)
}
fn floor(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    rounded(sides, result, f64::floor, Rounding::Down)
}
fn round(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    rounded(sides, result, f64::round_ties_even, Rounding::Nearest)
}
fn trunc(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    rounded(sides, result, f64::trunc, Rounding::Zero)
}

fn rounded(
    sides: &[Side],
    result: &SqlType,
    float: fn(f64) -> f64,
    rounding: Rounding,
) -> Result<ArrayRef, SqlError> {
    let array = &sides[0].array;
    if *array.data_type() == DataType::Float64 {
        return Ok(Arc::new(unary::<Float64Type, Float64Type>(array, |v| (float(v), false), never)?));
    }
    let shape = shape_of(array.data_type()).ok_or_else(|| SqlError::internal("a numeric argument"))?;
    let SqlType::Numeric(p, s) = *result else { return Err(SqlError::internal("a numeric result")) };
    let places = sides.get(1).map(Values::<Int32Type>::of);
    // All in 256 bits at the scale of the argument, then to the result's type.
    let wide: Decimal256Array = match array.data_type() {
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().unary(i256::from_i128),
        _ => array.as_primitive::<Decimal256Type>().clone(),
    };
    let wide_side = Side { array: Arc::new(wide), constant: sides[0].constant };
    let values = Values::<Decimal256Type>::of(&wide_side);
    let mut builder = Decimal256Builder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let n = match &places {
            None => Some(0),
            Some(places) => places.get(row),
        };
        match (values.get(row), n) {
            (Some(value), Some(n)) => builder.append_value(round_places(value, shape.1, n, rounding)),
            _ => builder.append_null(),
        }
    }
    let precision = 76;
    let array = builder.finish().with_data_type(DataType::Decimal256(precision, shape.1));
    rescale(&(Arc::new(array) as ArrayRef), (precision, shape.1), (p, s))
}

/// A value at `scale`, with all places after the `n`-th zero.
fn round_places(value: i256, scale: i8, n: i32, rounding: Rounding) -> i256 {
    let drop = i64::from(scale) - i64::from(n);
    if drop <= 0 {
        return value;
    }
    let Ok(drop @ 0..=76) = u8::try_from(drop) else { return i256::ZERO };
    let unit = power_of_ten(drop);
    let rest = value.wrapping_rem(unit);
    let base = value.wrapping_sub(rest);
    match rounding {
        Rounding::Zero => base,
        Rounding::Nearest => divide_rounded_256(value, unit).unwrap_or(i256::ZERO).wrapping_mul(unit),
        Rounding::Up if rest > i256::ZERO => base.wrapping_add(unit),
        Rounding::Down if rest < i256::ZERO => base.wrapping_sub(unit),
        Rounding::Up | Rounding::Down => base,
    }
}

fn modulo(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    operator::compute(Operation::Modulo, &sides[0], &sides[1])
}

/// The quotient without its fraction.
fn div(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let quotients = operator::compute(Operation::Divide, &sides[0], &sides[1])?;
    let constant = sides.iter().all(|s| s.constant);
    trunc(&[Side { array: quotients, constant }], result)
}

fn each(sides: &[Side], f: impl Fn(f64) -> Result<f64, SqlError>) -> Result<ArrayRef, SqlError> {
    Ok(Arc::new(try_unary::<Float64Type, Float64Type>(&sides[0].array, f)?))
}

/// Of numerics the root and the power are numeric.
fn root_type(types: &[SqlType]) -> SqlType {
    if let SqlType::Numeric(..) = types[0] { SqlType::Numeric(38, ROOT_SCALE) } else { SqlType::Float8 }
}

fn power_type(types: &[SqlType]) -> SqlType {
    if let SqlType::Numeric(..) = types[0] { SqlType::Numeric(38, POWER_SCALE) } else { SqlType::Float8 }
}

/// numeric if one side is and the other is no float; else double precision.
fn power_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let numeric = types.iter().any(|ty| matches!(ty, SqlType::Numeric(..)));
    if numeric && let Some(types) = numerics(types) { Some(types) } else { float_arguments(2)(types) }
}

/// Places of a numeric root: what PostgreSQL shows of one between 1 and 10.
const ROOT_SCALE: i8 = 15;
/// Places of a numeric power.
const POWER_SCALE: i8 = 16;

/// A numeric column in 256 bits at another scale.
fn at_scale(side: &Side, scale: i8) -> Result<Side, SqlError> {
    let (p, s) = shape_of(side.data_type()).ok_or_else(|| SqlError::internal("a numeric argument"))?;
    Ok(Side { array: rescale(&side.array, (p, s), (76, scale))?, constant: side.constant })
}

fn sqrt(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    if *sides[0].data_type() == DataType::Float64 {
        return each(sides, |x| if x < 0.0 { Err(negative_root()) } else { Ok(x.sqrt()) });
    }
    // The root of a value at twice the scale (and two guard digits) is an integer.
    let guarded = ROOT_SCALE + 1;
    let squares = at_scale(&sides[0], 2 * guarded)?;
    let roots = try_unary::<Decimal256Type, Decimal256Type>(&squares.array, |v| {
        if v < i256::ZERO { Err(negative_root()) } else { Ok(integer_root(v)) }
    })?;
    let roots: ArrayRef = Arc::new(roots.with_data_type(DataType::Decimal256(76, guarded)));
    let SqlType::Numeric(p, s) = *result else { return Err(SqlError::internal("a numeric result")) };
    rescale(&roots, (76, guarded), (p, s))
}

/// The whole part of the square root, by Newton's method.
fn integer_root(value: i256) -> i256 {
    if value == i256::ZERO {
        return value;
    }
    let two = i256::from_i128(2);
    let mut root = power_of_ten((value.to_string().len() as u8).div_ceil(2));
    loop {
        let next = root.wrapping_add(value.wrapping_div(root)).wrapping_div(two);
        if next >= root {
            return root;
        }
        root = next;
    }
}

fn negative_root() -> SqlError {
    SqlError::new(SqlState::new("2201F"), "cannot take square root of a negative number")
}

fn positive(x: f64) -> Result<f64, SqlError> {
    let refused =
        |what: &str| Err(SqlError::new(SqlState::new("2201E"), format!("cannot take logarithm of {what}")));
    match x {
        0.0 => refused("zero"),
        x if x < 0.0 => refused("a negative number"),
        x => Ok(x),
    }
}

fn finite(value: f64, input_finite: bool) -> Result<f64, SqlError> {
    match value {
        v if v.is_infinite() && input_finite => Err(overflow()),
        0.0 if input_finite => Err(underflow()),
        v => Ok(v),
    }
}

/// log(x) to the base 10, log(b, x) to the base b.
fn log(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    if sides.len() == 1 {
        return each(sides, |x| positive(x).map(f64::log10));
    }
    Ok(Arc::new(try_binary::<Float64Type, Float64Type, Float64Type>(&sides[0], &sides[1], |b, x| {
        let (base, log) = (positive(b)?.ln(), positive(x)?.ln());
        if base == 0.0 { Err(operator::division_by_zero()) } else { Ok(log / base) }
    })?))
}

fn power(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    if let SqlType::Numeric(p, s) = *result {
        return numeric_power(sides, (p, s));
    }
    float_power(sides)
}

/// Whole exponents by multiplication; others, and what leaves 76 digits on the way, through double precision.
fn numeric_power(sides: &[Side], shape: (u8, i8)) -> Result<ArrayRef, SqlError> {
    const SCALE: i8 = 30;
    let (bases, exponents) = (at_scale(&sides[0], SCALE)?, at_scale(&sides[1], SCALE)?);
    let one = power_of_ten(SCALE as u8);
    let powers = try_binary::<Decimal256Type, Decimal256Type, Decimal256Type>(
        &bases,
        &exponents,
        |base, exponent| match whole_power(base, exponent, one) {
            Some(power) => Ok(power),
            None => {
                let double = |v: i256| v.to_string().parse::<f64>().unwrap_or(f64::NAN) / 1e30;
                let value = checked_power(double(base), double(exponent))?;
                parse_decimal256(&format!("{value:.16e}"), 76, SCALE)
            }
        },
    )?;
    let powers: ArrayRef = Arc::new(powers.with_data_type(DataType::Decimal256(76, SCALE)));
    rescale(&powers, (76, SCALE), shape)
}

fn whole_power(base: i256, exponent: i256, one: i256) -> Option<i256> {
    let count = exponent.wrapping_div(one).to_i128()?;
    if exponent.wrapping_rem(one) != i256::ZERO || !(0..=1000).contains(&count) {
        return None;
    }
    let mut power = one;
    for _ in 0..count {
        power = divide_rounded_256(power.checked_mul(base)?, one)?;
    }
    Some(power)
}

fn checked_power(x: f64, y: f64) -> Result<f64, SqlError> {
    let side = |v: f64| Side { array: Arc::new(Float64Array::from_value(v, 1)), constant: true };
    Ok(float_power(&[side(x), side(y)])?.as_primitive::<Float64Type>().value(0))
}

fn float_power(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let diagnose = |x: f64, y: f64| {
        let refused = |message: &str| SqlError::new(SqlState::new("2201F"), message);
        match x.powf(y) {
            _ if x == 0.0 && y < 0.0 => refused("zero raised to a negative power is undefined"),
            _ if x < 0.0 && y.fract() != 0.0 => {
                refused("a negative number raised to a non-integer power yields a complex result")
            }
            v if v.is_infinite() => overflow(),
            _ => underflow(),
        }
    };
    let f = |x: f64, y: f64| {
        let value = x.powf(y);
        let inputs = x.is_finite() && y.is_finite();
        let complex = x < 0.0 && y.is_finite() && y.fract() != 0.0;
        let bad = inputs && (value.is_infinite() || (value == 0.0 && x != 0.0) || complex);
        (value, bad || (x == 0.0 && y < 0.0))
    };
    Ok(Arc::new(binary::<Float64Type, Float64Type, Float64Type>(&sides[0], &sides[1], f, diagnose)?))
}
