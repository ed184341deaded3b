//! From accumulators to results: which rows changed, which do not fit their type, and the result columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int64Array,
    StringArray,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, i256};
use arrow::error::ArrowError;
use millpond_functions::aggregate::moments::Spread;
use millpond_functions::aggregate::{
    AVG_SCALE, avg_from_sum_count, avg_from_sum_count_wide, sum_to_bigint, sum_to_numeric,
};
use millpond_functions::error::into_arrow;
use millpond_types::{SqlError, SqlState};

use super::accumulator::{Accumulator, Kind, float_moments};
use super::key::{bytes_array, join128, join256};
use super::order;
use super::slots::{Arena, is_long};
use crate::spec::{AggregateCall, AggregateFunction};

/// How a result is made of an accumulator's words. Places count from the beginning of the accumulators.
#[derive(Clone, Debug)]
pub(super) struct Call {
    finish: Finish,
    at: usize,
    /// The word that counts the values that are not NULL.
    count_at: usize,
    kind: Kind,
    result: DataType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// The word itself: counts.
    Count,
    SumBigint,
    SumDecimal,
    SumWideDecimal,
    SumHugeDecimal,
    AvgDecimal {
        sum_scale: i8,
        scale: i8,
    },
    AvgHugeDecimal {
        sum_scale: i8,
        scale: i8,
    },
    SumFloat,
    AvgFloat,
    /// stddev or variance over values of so many digits after the point.
    SpreadExact(Spread, i8),
    SpreadFloat(Spread),
    Extreme,
    /// The last word: how many distinct values there are.
    Distinct,
}

/// The accumulator that `call` needs over an argument of type `data_type`.
///
/// # Errors
/// 0A000 if the function has no incremental form for the type.
pub(super) fn accumulator_of(
    call: &AggregateCall,
    data_type: &DataType,
    append_only: bool,
) -> Result<Kind, SqlError> {
    let numbers = match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Kind::SumNarrow),
        DataType::Decimal128(p, _) if *p <= 18 => Some(Kind::SumNarrow),
        DataType::Decimal128(_, _) => Some(Kind::SumWide),
        DataType::Decimal256(_, _) => Some(Kind::SumHuge),
        DataType::Float32 | DataType::Float64 => Some(Kind::SumFloat),
        _ => None,
    };
    let moments = match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Decimal128(..) => {
            Some(Kind::MomentsExact)
        }
        DataType::Float32 | DataType::Float64 => Some(Kind::MomentsFloat),
        _ => None,
    };
    let max = call.function == AggregateFunction::Max;
    let extreme = match (order::width(data_type), order::is_bytes(data_type)) {
        (Some(width), _) if append_only => Some(Kind::Monotone { width, max }),
        (Some(width), _) => Some(Kind::Retracting { width, max }),
        (None, true) if append_only => Some(Kind::MonotoneBytes { max }),
        (None, true) => Some(Kind::RetractingBytes { max }),
        (None, false) => None,
    };
    // All values are kept, whether they come back or not.
    let distinct = match order::width(data_type) {
        Some(width) => Some(Kind::Retracting { width, max: true }),
        None => order::is_bytes(data_type).then_some(Kind::RetractingBytes { max: true }),
    };
    let (kind, name) = match call.function {
        AggregateFunction::CountStar | AggregateFunction::Count => (Some(Kind::Count), "count"),
        AggregateFunction::Sum => (numbers, "sum"),
        AggregateFunction::Avg => (numbers, "avg"),
        AggregateFunction::Spread(_) => (moments, "stddev or variance"),
        AggregateFunction::CountDistinct => (distinct, "count(DISTINCT)"),
        AggregateFunction::Min => (extreme, "min"),
        AggregateFunction::Max => (extreme, "max"),
    };
    kind.ok_or_else(|| {
        SqlError::unsupported(format!(
            "{name} of values of type {data_type} is not supported in a materialized view"
        ))
        .hint("Cast the argument to a type that is supported, such as numeric(p, s) or text.")
    })
}

impl Call {
    /// `at` and `count_at`: where the accumulator's words are, and the count of its values.
    ///
    /// # Errors
    /// XX000 if the result type is not the one of the function.
    pub(super) fn new(
        call: &AggregateCall,
        accumulator: Option<&Accumulator>,
        at: usize,
        count_at: usize,
    ) -> Result<Self, SqlError> {
        let kind = accumulator.map_or(Kind::Count, |a| a.kind);
        let argument = accumulator.map_or(&DataType::Null, |a| &a.data_type);
        let sum_scale = match argument {
            DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => *s,
            _ => 0,
        };
        let finish = match (call.function, &call.result, kind) {
            (AggregateFunction::CountStar | AggregateFunction::Count, DataType::Int64, _) => Finish::Count,
            (
                AggregateFunction::CountDistinct,
                DataType::Int64,
                Kind::Retracting { .. } | Kind::RetractingBytes { .. },
            ) => Finish::Distinct,
            (AggregateFunction::Sum, DataType::Int64, Kind::SumNarrow) => Finish::SumBigint,
            (AggregateFunction::Sum, DataType::Decimal128(_, s), Kind::SumNarrow) if *s == sum_scale => {
                Finish::SumDecimal
            }
            (AggregateFunction::Sum, DataType::Decimal128(_, s), Kind::SumWide) if *s == sum_scale => {
                Finish::SumWideDecimal
            }
            (AggregateFunction::Sum, DataType::Decimal256(_, s), Kind::SumHuge) if *s == sum_scale => {
                Finish::SumHugeDecimal
            }
            (AggregateFunction::Avg, DataType::Decimal128(_, s), Kind::SumNarrow | Kind::SumWide)
                if *s >= sum_scale =>
            {
                Finish::AvgDecimal { sum_scale, scale: *s }
            }
            (AggregateFunction::Avg, DataType::Decimal256(_, s), Kind::SumHuge) if *s >= sum_scale => {
                Finish::AvgHugeDecimal { sum_scale, scale: *s }
            }
            (AggregateFunction::Sum, DataType::Float32 | DataType::Float64, Kind::SumFloat) => {
                Finish::SumFloat
            }
            (AggregateFunction::Avg, DataType::Float64, Kind::SumFloat) => Finish::AvgFloat,
            (
                AggregateFunction::Spread(spread),
                DataType::Decimal128(_, AVG_SCALE) | DataType::Decimal256(_, AVG_SCALE),
                Kind::MomentsExact,
            ) => Finish::SpreadExact(spread, sum_scale),
            (AggregateFunction::Spread(spread), DataType::Float64, Kind::MomentsFloat) => {
                Finish::SpreadFloat(spread)
            }
            (AggregateFunction::Min | AggregateFunction::Max, result, _) if result == argument => {
                Finish::Extreme
            }
            (function, result, _) => {
                return Err(SqlError::internal(format!("{function:?} of {argument} does not give {result}")));
            }
        };
        Ok(Self { finish, at, count_at, kind, result: call.result.clone() })
    }

    fn words<'a>(&self, row: &'a [u64]) -> &'a [u64] {
        &row[self.at..self.at + self.kind.words()]
    }

    fn is_null(&self, row: &[u64]) -> bool {
        row[self.count_at] == 0
    }

    /// Whether the results of two rows of accumulators are equal; when in doubt, not.
    #[inline]
    pub(super) fn same(&self, old: &[u64], new: &[u64], arena: &Arena) -> bool {
        let (a, b) = (self.words(old), self.words(new));
        match self.finish {
            Finish::Count => return a[0] == b[0],
            Finish::Distinct => return a.last() == b.last(),
            // Of one value there is none of a sample, so NULL and NULL are the same for other reasons, too.
            Finish::SpreadExact(spread, scale) => {
                return a == b && old[self.count_at] == new[self.count_at]
                    || self.spread(old, spread, scale).ok() == self.spread(new, spread, scale).ok();
            }
            Finish::SpreadFloat(spread) => {
                let bits = |row| self.spread_float(row, spread).ok().map(|v| v.map(f64::to_bits));
                return bits(old) == bits(new);
            }
            _ => {}
        }
        if self.is_null(old) || self.is_null(new) {
            return self.is_null(old) && self.is_null(new);
        }
        match self.finish {
            Finish::Count | Finish::Distinct | Finish::SpreadExact(..) | Finish::SpreadFloat(_) => false,
            Finish::SumBigint | Finish::SumDecimal => a[..2] == b[..2],
            Finish::SumWideDecimal => a[..4] == b[..4],
            Finish::SumHugeDecimal => a[..8] == b[..8],
            Finish::AvgDecimal { sum_scale, scale } => {
                self.avg(old, sum_scale, scale).ok() == self.avg(new, sum_scale, scale).ok()
            }
            Finish::AvgHugeDecimal { sum_scale, scale } => {
                self.avg_huge(old, sum_scale, scale).ok() == self.avg_huge(new, sum_scale, scale).ok()
            }
            Finish::SumFloat | Finish::AvgFloat => {
                self.float(old).ok().map(f64::to_bits) == self.float(new).ok().map(f64::to_bits)
            }
            Finish::Extreme if self.kind.is_bytes() => {
                a[0] == b[0]
                    && (a[1] == b[1] || is_long(a[0]) && arena.long(a[0], a[1]) == arena.long(b[0], b[1]))
            }
            Finish::Extreme => {
                let width = self.kind.value_words();
                a[..width] == b[..width]
            }
        }
    }

    /// Whether [`Call::check`] can fail.
    pub(super) fn is_fallible(&self) -> bool {
        !matches!(self.finish, Finish::Count | Finish::Distinct | Finish::Extreme)
    }

    /// # Errors
    /// 22003 if the result is out of the range of its type.
    #[inline]
    pub(super) fn check(&self, row: &[u64]) -> Result<(), SqlError> {
        if self.is_null(row) {
            return Ok(());
        }
        let words = self.words(row);
        match self.finish {
            Finish::Count | Finish::Distinct | Finish::Extreme => Ok(()),
            // Nearly every sum fits 64 bits, and then all results.
            Finish::SumBigint | Finish::SumDecimal if words[1] == (words[0] as i64 >> 63) as u64 => Ok(()),
            Finish::SumBigint => sum_to_bigint(join128(words)).map(drop),
            Finish::SumDecimal => sum_to_numeric(join128(words)).map(drop),
            Finish::SumWideDecimal => narrow(join256(words)).map(drop),
            Finish::SumHugeDecimal => huge(words).map(drop),
            Finish::AvgDecimal { sum_scale, scale } => self.avg(row, sum_scale, scale).map(drop),
            Finish::AvgHugeDecimal { sum_scale, scale } => self.avg_huge(row, sum_scale, scale).map(drop),
            Finish::SumFloat | Finish::AvgFloat => self.float(row).map(drop),
            Finish::SpreadExact(spread, scale) => self.spread(row, spread, scale).map(drop),
            Finish::SpreadFloat(spread) => self.spread_float(row, spread).map(drop),
        }
    }

    fn avg(&self, row: &[u64], sum_scale: i8, scale: i8) -> Result<i128, SqlError> {
        let (words, count) = (self.words(row), row[self.count_at] as i64);
        match self.kind {
            Kind::SumNarrow => avg_from_sum_count(join128(words), sum_scale, count, scale),
            _ => narrow(avg_from_sum_count_wide(join256(words), sum_scale, count, scale)?),
        }
    }

    fn avg_huge(&self, row: &[u64], sum_scale: i8, scale: i8) -> Result<i256, SqlError> {
        let count = row[self.count_at] as i64;
        bounded(avg_from_sum_count_wide(huge(self.words(row))?, sum_scale, count, scale)?)
    }

    fn spread(&self, row: &[u64], spread: Spread, scale: i8) -> Result<Option<i256>, SqlError> {
        let words = self.words(row);
        let squares = huge(&words[4..])?;
        spread.of_exact(row[self.count_at] as i64, join256(&words[..4]), squares, scale)
    }

    fn spread_float(&self, row: &[u64], spread: Spread) -> Result<Option<f64>, SqlError> {
        spread.of_floats(&float_moments(self.words(row).try_into().expect("six words")))
    }

    fn float(&self, row: &[u64]) -> Result<f64, SqlError> {
        let words = self.words(row);
        let [nan, infinite, negative] = [words[3], words[4], words[5]];
        if nan != 0 || (infinite != 0 && negative != 0) {
            return Ok(f64::NAN);
        }
        if infinite != 0 || negative != 0 {
            return Ok(if infinite != 0 { f64::INFINITY } else { f64::NEG_INFINITY });
        }
        let sum = f64::from_bits(words[0]) + f64::from_bits(words[1]);
        let fits = sum.is_finite() && (self.result == DataType::Float64 || (sum as f32).is_finite());
        if !fits {
            let message = "value out of range: overflow";
            return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message));
        }
        let count = row[self.count_at] as i64;
        Ok(if self.finish == Finish::AvgFloat { sum / count as f64 } else { sum })
    }

    /// The results of rows of accumulators (`stride` words each) that have passed [`Call::check`].
    ///
    /// # Errors
    /// If strings are longer than an Arrow column can hold.
    pub(super) fn finish(&self, rows: &[u64], stride: usize, arena: &Arena) -> Result<ArrayRef, ArrowError> {
        let each = || rows.chunks_exact(stride).map(|row| self.words(row));
        match self.finish {
            Finish::Count => return Ok(Arc::new(Int64Array::from_iter_values(each().map(|w| w[0] as i64)))),
            Finish::Distinct => {
                let counts = each().map(|w| w.last().map_or(0, |count| *count as i64));
                return Ok(Arc::new(Int64Array::from_iter_values(counts)));
            }
            Finish::SpreadExact(spread, scale) => {
                let values = rows.chunks_exact(stride).map(|row| self.spread(row, spread, scale));
                let values: Vec<Option<i256>> = values.collect::<Result<_, _>>().map_err(into_arrow)?;
                let narrow = |value: Option<i256>| value.and_then(i256::to_i128);
                return Ok(match &self.result {
                    DataType::Decimal128(..) => {
                        let array: Decimal128Array = values.into_iter().map(narrow).collect();
                        Arc::new(array.with_data_type(self.result.clone()))
                    }
                    _ => {
                        let array: Decimal256Array = values.into_iter().collect();
                        Arc::new(array.with_data_type(self.result.clone()))
                    }
                });
            }
            Finish::SpreadFloat(spread) => {
                let values = rows.chunks_exact(stride).map(|row| self.spread_float(row, spread));
                let array: Float64Array = values.collect::<Result<_, _>>().map_err(into_arrow)?;
                return Ok(Arc::new(array));
            }
            _ => {}
        }
        let nulls: NullBuffer = rows.chunks_exact(stride).map(|row| !self.is_null(row)).collect();
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let out_of_range = |e: SqlError| ArrowError::ComputeError(e.to_string());
        macro_rules! checked {
            ($array:ident, $value:expr) => {{
                let value = $value;
                let result = |row| if self.is_null(row) { Ok(Default::default()) } else { value(row) };
                let values: Result<Vec<_>, SqlError> = rows.chunks_exact(stride).map(result).collect();
                $array::new(values.map_err(out_of_range)?.into(), nulls)
            }};
        }
        Ok(match self.finish {
            Finish::Count | Finish::Distinct | Finish::SpreadExact(..) | Finish::SpreadFloat(_) => {
                unreachable!("done above")
            }
            Finish::SumBigint => {
                Arc::new(checked!(Int64Array, |row| sum_to_bigint(join128(self.words(row)))))
            }
            Finish::SumDecimal => {
                let array = checked!(Decimal128Array, |row| Ok(join128(self.words(row))));
                Arc::new(array.with_data_type(self.result.clone()))
            }
            Finish::SumWideDecimal => {
                let array = checked!(Decimal128Array, |row| narrow(join256(self.words(row))));
                Arc::new(array.with_data_type(self.result.clone()))
            }
            Finish::SumHugeDecimal => Arc::new(
                checked!(Decimal256Array, |row| huge(self.words(row))).with_data_type(self.result.clone()),
            ),
            Finish::AvgDecimal { sum_scale, scale } => {
                let array = checked!(Decimal128Array, |row| self.avg(row, sum_scale, scale));
                Arc::new(array.with_data_type(self.result.clone()))
            }
            Finish::AvgHugeDecimal { sum_scale, scale } => {
                let array = checked!(Decimal256Array, |row| self.avg_huge(row, sum_scale, scale));
                Arc::new(array.with_data_type(self.result.clone()))
            }
            Finish::SumFloat | Finish::AvgFloat if self.result == DataType::Float32 => {
                Arc::new(checked!(Float32Array, |row| self.float(row).map(|v| v as f32)))
            }
            Finish::SumFloat | Finish::AvgFloat => Arc::new(checked!(Float64Array, |row| self.float(row))),
            Finish::Extreme if self.kind.is_bytes() => {
                let count = rows.len() / stride;
                let bytes = bytes_array(each().map(|w| [w[0], w[1]]), arena, nulls, count)?;
                match &self.result {
                    DataType::Utf8 => {
                        let (offsets, values, nulls) = bytes.into_parts();
                        Arc::new(StringArray::try_new(offsets, values, nulls)?)
                    }
                    DataType::FixedSizeBinary(_) => uuids(rows.len() / stride, &bytes)?,
                    _ => Arc::new(bytes),
                }
            }
            Finish::Extreme => {
                let width = self.kind.value_words();
                let flip = self.kind.flip();
                let words = each().map(|words| {
                    let mut wide = [0; 4];
                    wide.iter_mut().zip(&words[..width]).for_each(|(wide, word)| *wide = word ^ flip);
                    wide
                });
                order::decode(&self.result, words, nulls)
            }
        })
    }
}

fn uuids(rows: usize, bytes: &arrow::array::BinaryArray) -> Result<ArrayRef, ArrowError> {
    use arrow::array::Array;
    let mut values = Vec::with_capacity(rows * 16);
    for row in 0..rows {
        let from = values.len();
        if bytes.is_valid(row) {
            values.extend_from_slice(bytes.value(row));
        }
        values.resize(from + 16, 0);
    }
    Ok(Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), bytes.nulls().cloned())?))
}

fn narrow(sum: i256) -> Result<i128, SqlError> {
    // A sum beyond i128 has more than 38 digits, and i128::MAX stands for all of those.
    sum_to_numeric(sum.to_i128().unwrap_or(i128::MAX))
}

/// The sum of both halves: upper × 2^128 + lower.
fn huge(words: &[u64]) -> Result<i256, SqlError> {
    let (lower, upper) = (join256(words), join256(&words[4..]));
    let shifted = upper.checked_mul(i256::from_parts(0, 1));
    bounded(shifted.and_then(|upper| upper.checked_add(lower)).unwrap_or(i256::MAX))
}

/// At most 76 digits.
fn bounded(sum: i256) -> Result<i256, SqlError> {
    let limit = i256::from_i128(10).checked_pow(76).expect("10^76 < 2^255");
    if sum < limit && sum > limit.wrapping_neg() { Ok(sum) } else { narrow(i256::MAX).map(i256::from_i128) }
}
