//! Columns in PostgreSQL's binary form (the `*send` functions of PostgreSQL 15).

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::array::{AsArray, Date32Array};
use millpond_types::{SqlError, SqlType};

/// From 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// Writes the values of one column.
pub(crate) enum Encoder<'a> {
    Boolean(&'a BooleanArray),
    Int2(&'a Int16Array),
    Int4(&'a Int32Array),
    Int8(&'a Int64Array),
    Oid(&'a Int64Array),
    Float4(&'a Float32Array),
    Float8(&'a Float64Array),
    Numeric128(&'a Decimal128Array, i8),
    Numeric256(&'a Decimal256Array, i8),
    Text(&'a StringArray),
    /// Blank padded to so many characters.
    Char(&'a StringArray, usize),
    /// Text after the version byte 1.
    Jsonb(&'a StringArray),
    Bytea(&'a BinaryArray),
    Uuid(&'a FixedSizeBinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
    Interval(&'a IntervalMonthDayNanoArray),
    Array(&'a ListArray, Box<Encoder<'a>>, u32),
}

impl<'a> Encoder<'a> {
    /// # Errors
    /// XX000 if the array does not hold that type, 0A000 for arrays of arrays.
    pub fn new(array: &'a ArrayRef, ty: &SqlType) -> Result<Self, SqlError> {
        if *array.data_type() != ty.arrow() && !matches!(ty, SqlType::Array(_)) {
            let (found, wanted) = (array.data_type(), ty.arrow());
            return Err(SqlError::internal(format!(
                "a column of type {ty} is held as {found}, not {wanted}"
            )));
        }
        Ok(match ty {
            SqlType::Boolean => Self::Boolean(array.as_boolean()),
            SqlType::Int2 => Self::Int2(array.as_primitive()),
            SqlType::Int4 => Self::Int4(array.as_primitive()),
            SqlType::Int8 => Self::Int8(array.as_primitive()),
            SqlType::Oid => Self::Oid(array.as_primitive()),
            SqlType::Float4 => Self::Float4(array.as_primitive()),
            SqlType::Float8 => Self::Float8(array.as_primitive()),
            SqlType::Numeric(p, s) if *p <= 38 => Self::Numeric128(array.as_primitive(), *s),
            SqlType::Numeric(_, s) => Self::Numeric256(array.as_primitive(), *s),
            SqlType::Text | SqlType::Varchar(_) | SqlType::Json | SqlType::Name => {
                Self::Text(array.as_string())
            }
            SqlType::InternalChar | SqlType::Unknown => Self::Text(array.as_string()),
            SqlType::Char(n) => Self::Char(array.as_string(), *n as usize),
            SqlType::Jsonb => Self::Jsonb(array.as_string()),
            SqlType::Bytea => Self::Bytea(array.as_binary()),
            SqlType::Uuid => Self::Uuid(array.as_fixed_size_binary()),
            SqlType::Date => Self::Date(array.as_primitive()),
            SqlType::Time => Self::Time(array.as_primitive()),
            SqlType::Timestamp | SqlType::Timestamptz => Self::Timestamp(array.as_primitive()),
            SqlType::Interval => Self::Interval(array.as_primitive()),
            SqlType::Array(element) => {
                if matches!(**element, SqlType::Array(_)) {
                    return Err(SqlError::unsupported("arrays of arrays cannot be sent in binary form")
                        .hint("Ask for the text format."));
                }
                let list = array.as_list_opt::<i32>().ok_or_else(|| {
                    SqlError::internal(format!("a column of type {ty} is held as {}", array.data_type()))
                })?;
                Self::Array(list, Box::new(Encoder::new(list.values(), element)?), element.oid())
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(a) => a.is_null(row),
            Self::Int2(a) => a.is_null(row),
            Self::Int4(a) => a.is_null(row),
            Self::Int8(a) | Self::Oid(a) => a.is_null(row),
            Self::Float4(a) => a.is_null(row),
            Self::Float8(a) => a.is_null(row),
            Self::Numeric128(a, _) => a.is_null(row),
            Self::Numeric256(a, _) => a.is_null(row),
            Self::Text(a) | Self::Char(a, _) | Self::Jsonb(a) => a.is_null(row),
            Self::Bytea(a) => a.is_null(row),
            Self::Uuid(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Time(a) => a.is_null(row),
            Self::Timestamp(a) => a.is_null(row),
            Self::Interval(a) => a.is_null(row),
            Self::Array(a, ..) => a.is_null(row),
        }
    }

    /// Appends the value at `row`; `false`, and nothing appended, if it is NULL.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.is_null(row) {
            return false;
        }
        match self {
            Self::Boolean(a) => out.push(u8::from(a.value(row))),
            Self::Int2(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Int4(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Int8(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Oid(a) => out.extend_from_slice(&(a.value(row) as u32).to_be_bytes()),
            Self::Float4(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Float8(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Numeric128(a, scale) => {
                let value = a.value(row);
                numeric(value < 0, &value.unsigned_abs().to_string(), *scale as usize, out);
            }
            Self::Numeric256(a, scale) => {
                let text = a.value(row).to_string();
                let digits = text.strip_prefix('-');
                numeric(digits.is_some(), digits.unwrap_or(&text), *scale as usize, out);
            }
            Self::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Self::Char(a, length) => {
                let text = a.value(row);
                out.extend_from_slice(text.as_bytes());
                let blanks = length.saturating_sub(text.chars().count());
                out.extend(std::iter::repeat_n(b' ', blanks));
            }
            Self::Jsonb(a) => {
                out.push(1);
                out.extend_from_slice(a.value(row).as_bytes());
            }
            Self::Bytea(a) => out.extend_from_slice(a.value(row)),
            Self::Uuid(a) => out.extend_from_slice(a.value(row)),
            Self::Date(a) => {
                out.extend_from_slice(&a.value(row).saturating_sub(EPOCH_DAYS).to_be_bytes());
            }
            Self::Time(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
            Self::Timestamp(a) => {
                out.extend_from_slice(&a.value(row).saturating_sub(EPOCH_MICROS).to_be_bytes());
            }
            Self::Interval(a) => {
                let value = a.value(row);
                out.extend_from_slice(&(value.nanoseconds / 1000).to_be_bytes());
                out.extend_from_slice(&value.days.to_be_bytes());
                out.extend_from_slice(&value.months.to_be_bytes());
            }
            Self::Array(list, elements, oid) => array(list, elements, *oid, row, out),
        }
        true
    }
}

/// Dimensions, whether there are NULLs, element type; per dimension length and lower bound; the elements.
fn array(list: &ListArray, elements: &Encoder, oid: u32, row: usize, out: &mut Vec<u8>) {
    let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
    let nulls = (start..end).any(|i| elements.is_null(i));
    let dimensions = i32::from(start < end);
    for word in [dimensions, i32::from(nulls), oid as i32] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    if start < end {
        for word in [(end - start) as i32, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
    for element in start..end {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let length = if elements.write(element, out) { (out.len() - at - 4) as i32 } else { -1 };
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Base-10000 digits around the decimal point: count, weight of the first, sign, decimal places, digits.
fn numeric(negative: bool, digits: &str, scale: usize, out: &mut Vec<u8>) {
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    let mut groups: Vec<u16> = Vec::with_capacity(digits.len() / 4 + 2);
    let group = |text: &[u8]| text.iter().fold(0u16, |n, b| n * 10 + u16::from(b - b'0'));
    let (head, tail) = whole.as_bytes().split_at(whole.len() % 4);
    if !head.is_empty() {
        groups.push(group(head));
    }
    groups.extend(tail.chunks_exact(4).map(group));
    let mut weight = groups.len() as i16 - 1;
    // The fraction's leading zeros are not in `digits`.
    let fraction = format!("{fraction:0>scale$}");
    for chunk in fraction.as_bytes().chunks(4) {
        groups.push(group(chunk) * 10u16.pow(4 - chunk.len() as u32));
    }
    let leading = groups.iter().take_while(|g| **g == 0).count();
    weight -= leading as i16;
    groups.drain(..leading);
    groups.truncate(groups.iter().rposition(|g| *g != 0).map_or(0, |last| last + 1));
    if groups.is_empty() {
        weight = 0;
    }
    let sign: u16 = if negative { 0x4000 } else { 0 };
    for word in [groups.len() as u16, weight as u16, sign, scale as u16] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for digit in groups {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}
