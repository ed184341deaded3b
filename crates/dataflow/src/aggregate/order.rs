//! Values as words whose unsigned order is the SQL order, for min and max.
//!
//! Integers and times have their sign bit flipped; floats order NaN last and -0.0 as 0.0 (PostgreSQL); intervals order by
//! their length with months of 30 days, then by their fields so that a value comes back as it was. Strings are not here:
//! they compare as bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::*;

use super::key::{join128, join256, split128, split256};

/// How many words a type's ordered form has; `None` if it has no order here, or is a string.
pub(super) fn width(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => 1,
        DataType::Float32 | DataType::Float64 | DataType::Date32 => 1,
        DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(TimeUnit::Microsecond, _) => 1,
        DataType::Decimal128(_, _) => 2,
        DataType::Decimal256(_, _) | DataType::Interval(IntervalUnit::MonthDayNano) => 4,
        _ => return None,
    })
}

/// Strings order by their bytes.
pub(super) fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(16))
}

const SIGN: u64 = 1 << 63;

#[inline]
fn from_i64(v: i64) -> u64 {
    v as u64 ^ SIGN
}

#[inline]
fn to_i64(w: u64) -> i64 {
    (w ^ SIGN) as i64
}

#[inline]
fn from_f64(v: f64) -> u64 {
    let bits = if v.is_nan() { f64::NAN } else { v + 0.0 }.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

#[inline]
fn to_f64(w: u64) -> f64 {
    f64::from_bits(if w & SIGN != 0 { w ^ SIGN } else { !w })
}

fn big128(v: i128) -> [u64; 2] {
    let [low, high] = split128(v);
    [high ^ SIGN, low]
}

fn un128(w: [u64; 2]) -> i128 {
    join128(&[w[1], w[0] ^ SIGN])
}

fn big256(v: i256) -> [u64; 4] {
    let [a, b, c, d] = split256(v);
    [d ^ SIGN, c, b, a]
}

fn un256(w: [u64; 4]) -> i256 {
    join256(&[w[3], w[2], w[1], w[0] ^ SIGN])
}

fn from_interval(v: IntervalMonthDayNano) -> [u64; 4] {
    let days = i128::from(v.months) * 30 + i128::from(v.days);
    let [high, low] = big128(days * 86_400_000_000_000 + i128::from(v.nanoseconds));
    [high, low, u64::from(v.months as u32) << 32 | u64::from(v.days as u32), v.nanoseconds as u64]
}

fn to_interval(w: [u64; 4]) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new((w[2] >> 32) as i32, w[2] as i32, w[3] as i64)
}

/// The ordered form of a column with `W` words; what NULLs give means nothing.
pub(super) fn encode<const W: usize>(array: &ArrayRef) -> Vec<[u64; W]> {
    macro_rules! column {
        ($type:ty, $value:expr) => {{
            let value = $value;
            array.as_primitive::<$type>().values().iter().map(|v| widen(&value(*v))).collect()
        }};
    }
    let one = |v: i64| [from_i64(v)];
    match array.data_type() {
        DataType::Boolean => array.as_boolean().values().iter().map(|v| widen(&one(i64::from(v)))).collect(),
        DataType::Int8 => column!(Int8Type, |v: i8| one(v.into())),
        DataType::Int16 => column!(Int16Type, |v: i16| one(v.into())),
        DataType::Int32 => column!(Int32Type, |v: i32| one(v.into())),
        DataType::Int64 => column!(Int64Type, one),
        DataType::Date32 => column!(Date32Type, |v: i32| one(v.into())),
        DataType::Time64(_) => column!(Time64MicrosecondType, one),
        DataType::Timestamp(_, _) => column!(TimestampMicrosecondType, one),
        DataType::Float32 => column!(Float32Type, |v: f32| [from_f64(v.into())]),
        DataType::Float64 => column!(Float64Type, |v: f64| [from_f64(v)]),
        DataType::Decimal128(_, _) => column!(Decimal128Type, big128),
        DataType::Decimal256(_, _) => column!(Decimal256Type, big256),
        DataType::Interval(_) => column!(IntervalMonthDayNanoType, from_interval),
        other => unreachable!("{other} has no ordered form: refused when the operator is built"),
    }
}

#[inline]
fn widen<const W: usize>(words: &[u64]) -> [u64; W] {
    words.try_into().expect("the width of the type is W")
}

/// The values of ordered forms.
pub(super) fn decode(
    data_type: &DataType,
    words: impl ExactSizeIterator<Item = [u64; 4]>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    macro_rules! column {
        ($type:ty, $value:expr) => {{
            let value = $value;
            let values: Vec<_> = words.map(value).collect();
            let array = PrimitiveArray::<$type>::new(ScalarBuffer::from(values), nulls);
            Arc::new(array.with_data_type(data_type.clone())) as ArrayRef
        }};
    }
    let one = |w: [u64; 4]| to_i64(w[0]);
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::new(words.map(|w| to_i64(w[0]) != 0).collect(), nulls)),
        DataType::Int8 => column!(Int8Type, |w| one(w) as i8),
        DataType::Int16 => column!(Int16Type, |w| one(w) as i16),
        DataType::Int32 => column!(Int32Type, |w| one(w) as i32),
        DataType::Int64 => column!(Int64Type, one),
        DataType::Date32 => column!(Date32Type, |w| one(w) as i32),
        DataType::Time64(_) => column!(Time64MicrosecondType, one),
        DataType::Timestamp(_, _) => column!(TimestampMicrosecondType, one),
        DataType::Float32 => column!(Float32Type, |w: [u64; 4]| to_f64(w[0]) as f32),
        DataType::Float64 => column!(Float64Type, |w: [u64; 4]| to_f64(w[0])),
        DataType::Decimal128(_, _) => column!(Decimal128Type, |w: [u64; 4]| un128([w[0], w[1]])),
        DataType::Decimal256(_, _) => column!(Decimal256Type, un256),
        DataType::Interval(_) => column!(IntervalMonthDayNanoType, to_interval),
        other => unreachable!("{other} has no ordered form: refused when the operator is built"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Decimal256Array, Float64Array, Int32Array};

    fn check<const W: usize>(ascending: ArrayRef) {
        let words = encode::<W>(&ascending);
        assert!(words.windows(2).all(|w| w[0] < w[1]), "{words:?}");
        let back = decode(
            ascending.data_type(),
            words.iter().map(|w| {
                let mut wide = [0; 4];
                wide[..W].copy_from_slice(w);
                wide
            }),
            None,
        );
        assert_eq!(&back, &ascending);
    }

    #[test]
    fn ordered_forms_keep_order_and_value() {
        check::<1>(Arc::new(Int32Array::from(vec![i32::MIN, -1, 0, 1, i32::MAX])));
        check::<1>(Arc::new(Float64Array::from(vec![
            f64::NEG_INFINITY,
            -1.5,
            0.0,
            1e-300,
            f64::INFINITY,
            f64::NAN,
        ])));
        check::<2>(Arc::new(Decimal128Array::from(vec![i128::MIN, -1, 0, 1, 1 << 70, i128::MAX])));
        let wide = [i256::MIN, i256::from(-1i64), i256::ZERO, i256::ONE, i256::MAX];
        check::<4>(Arc::new(Decimal256Array::from(wide.to_vec())));
        let intervals = [(0, 29, 86_399_999_999_999), (1, 0, 0), (0, 30, 1), (1, 0, 2)];
        let intervals = intervals.map(|(m, d, n)| IntervalMonthDayNano::new(m, d, n)).to_vec();
        check::<4>(Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from(intervals)));
    }
}
