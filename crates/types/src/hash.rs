//! The one fixed hash of Millpond, version 1.
//!
//! It chooses shards, finds slots and orders runs on disk, so its values may never change: a new hash is a new
//! [`VERSION`], written into every manifest. Fixed-width values go through the 64-bit finalizer of MurmurHash3 (Stafford's
//! variant 13), strings and bytes through XXH3-64, whose output is frozen since 0.8.0. Equal SQL values hash equally:
//! -0.0 as 0.0, every NaN as one, and dictionary or view encodings as the values they stand for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

/// Stored wherever hashed order reaches disk.
pub const VERSION: u32 = 1;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const NULL: u64 = 0x6e75_6c6c_6e75_6c6c;

/// Stafford's mix 13, the finalizer of SplitMix64.
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[inline]
fn combine(hash: u64, value: u64) -> u64 {
    mix(hash.rotate_left(23) ^ value.wrapping_add(SEED))
}

/// The hash of each row over `columns`; with no columns every row hashes alike.
///
/// # Errors
/// If a column has a type that no SQL type maps to.
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        fold(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// The hash of each row of `batch` over all of its columns.
pub fn hash_batch(batch: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
    hash_columns(batch.columns(), batch.num_rows())
}

/// The shard that owns `hash`: shards own contiguous ranges, so a change of their number moves whole ranges.
#[inline]
pub fn shard_of(hash: u64, shards: usize) -> usize {
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

fn fold(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    macro_rules! fixed {
        ($type:ty, $value:expr) => {{
            let array = column.as_primitive::<$type>();
            let value = $value;
            if array.null_count() == 0 {
                for (hash, v) in hashes.iter_mut().zip(array.values()) {
                    *hash = combine(*hash, value(*v));
                }
            } else {
                for (row, hash) in hashes.iter_mut().enumerate() {
                    let v = if array.is_null(row) { NULL } else { value(array.value(row)) };
                    *hash = combine(*hash, v);
                }
            }
        }};
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let array = $array;
            for (row, hash) in hashes.iter_mut().enumerate() {
                let v = if array.is_null(row) { NULL } else { xxh3_64(array.value(row).as_ref()) };
                *hash = combine(*hash, v);
            }
        }};
    }
    match column.data_type() {
        DataType::Boolean => {
            let array = column.as_boolean();
            for (row, hash) in hashes.iter_mut().enumerate() {
                let v = if array.is_null(row) { NULL } else { u64::from(array.value(row)) };
                *hash = combine(*hash, v);
            }
        }
        DataType::Int8 => fixed!(Int8Type, |v: i8| i64::from(v) as u64),
        DataType::Int16 => fixed!(Int16Type, |v: i16| i64::from(v) as u64),
        DataType::Int32 => fixed!(Int32Type, |v: i32| i64::from(v) as u64),
        DataType::Int64 => fixed!(Int64Type, |v: i64| v as u64),
        DataType::UInt8 => fixed!(UInt8Type, u64::from),
        DataType::UInt16 => fixed!(UInt16Type, u64::from),
        DataType::UInt32 => fixed!(UInt32Type, u64::from),
        DataType::UInt64 => fixed!(UInt64Type, |v: u64| v),
        DataType::Float32 => fixed!(Float32Type, |v: f32| float_bits(f64::from(v))),
        DataType::Float64 => fixed!(Float64Type, float_bits),
        DataType::Decimal128(_, _) => fixed!(Decimal128Type, |v: i128| mix(v as u64) ^ (v >> 64) as u64),
        DataType::Decimal256(_, _) => fixed!(Decimal256Type, |v: i256| xxh3_64(&v.to_le_bytes())),
        DataType::Date32 => fixed!(Date32Type, |v: i32| i64::from(v) as u64),
        DataType::Time64(TimeUnit::Microsecond) => fixed!(Time64MicrosecondType, |v: i64| v as u64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => fixed!(TimestampMicrosecondType, |v: i64| v as u64),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            fixed!(IntervalMonthDayNanoType, interval_bits)
        }
        DataType::Utf8 => bytes!(column.as_string::<i32>()),
        DataType::LargeUtf8 => bytes!(column.as_string::<i64>()),
        DataType::Utf8View => bytes!(column.as_string_view()),
        DataType::Binary => bytes!(column.as_binary::<i32>()),
        DataType::LargeBinary => bytes!(column.as_binary::<i64>()),
        DataType::BinaryView => bytes!(column.as_binary_view()),
        DataType::FixedSizeBinary(_) => bytes!(column.as_fixed_size_binary()),
        DataType::Null => hashes.iter_mut().for_each(|hash| *hash = combine(*hash, NULL)),
        DataType::Dictionary(_, values) => fold(&cast(column, values)?, hashes)?,
        // Nested values are rare as keys; their row encoding is only hashed here, in memory. A state that persists hash
        // order over nested keys must write its own codec first.
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) | DataType::FixedSizeList(_, _) => {
            let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
            let rows = converter.convert_columns(&[Arc::clone(column)])?;
            for (hash, row) in hashes.iter_mut().zip(rows.iter()) {
                *hash = combine(*hash, xxh3_64(row.as_ref()));
            }
        }
        other => return Err(ArrowError::NotYetImplemented(format!("hash of {other}"))),
    }
    Ok(())
}

#[inline]
fn float_bits(v: f64) -> u64 {
    if v.is_nan() {
        f64::NAN.to_bits()
    } else if v == 0.0 {
        0
    } else {
        v.to_bits()
    }
}

/// PostgreSQL compares intervals by their length with 30-day months, so equal lengths must hash alike.
fn interval_bits(v: IntervalMonthDayNano) -> u64 {
    let days = i128::from(v.months) * 30 + i128::from(v.days);
    let nanos = days * 86_400_000_000_000 + i128::from(v.nanoseconds);
    mix(nanos as u64) ^ (nanos >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};

    #[test]
    fn values_of_version_1_never_change() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None])),
            Arc::new(StringArray::from(vec![Some(""), Some("a"), None, Some("stream")])),
        ];
        let hashes = hash_columns(&columns, 4).expect("both types hash");
        assert_eq!(hashes, [0x6ebc0f93a72e0a92, 0x1dea2414157c808a, 0xa95597e168511d6f, 0x0f20646148140c35]);
    }

    #[test]
    fn equal_floats_hash_alike() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let hashes = hash_columns(&[column], 4).expect("floats hash");
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[2], hashes[3]);
    }

    #[test]
    fn shards_are_contiguous_ranges() {
        assert_eq!(shard_of(0, 4), 0);
        assert_eq!(shard_of(u64::MAX, 4), 3);
        assert_eq!(shard_of(1 << 63, 4), 2);
        assert_eq!(shard_of((1 << 63) - 1, 4), 1);
    }
}
