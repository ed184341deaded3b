//! Columns from PostgreSQL's binary form (the `*recv` functions of PostgreSQL 15): parameters and binary COPY.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, ListArray, PrimitiveBuilder,
    StringBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use bytes::Buf;
use millpond_engine::text::{ParseError, parse_column};
use millpond_types::sql_type::UTC;
use millpond_types::{SqlError, SqlState, SqlType};

use super::encode::{EPOCH_DAYS, EPOCH_MICROS};
use crate::frontend::not_utf8;

type Value<'a> = Option<&'a [u8]>;

/// # Errors
/// The first value that does not have the type's form (22P03, 22021), or does not fit (22001, 22003, 22008).
pub(crate) fn column(values: &[Value], ty: &SqlType) -> Result<ArrayRef, ParseError> {
    match ty {
        SqlType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(values.len());
            each(values, |value| {
                builder.append_option(value.map(fixed::<1>).transpose()?.map(|[b]| b != 0));
                Ok(())
            })?;
            Ok(Arc::new(builder.finish()))
        }
        SqlType::Int2 => primitive::<Int16Type, 2>(values, |b| Ok(i16::from_be_bytes(b))),
        SqlType::Int4 => primitive::<Int32Type, 4>(values, |b| Ok(i32::from_be_bytes(b))),
        SqlType::Int8 => primitive::<Int64Type, 8>(values, |b| Ok(i64::from_be_bytes(b))),
        SqlType::Oid => primitive::<Int64Type, 4>(values, |b| Ok(i64::from(u32::from_be_bytes(b)))),
        SqlType::Float4 => primitive::<Float32Type, 4>(values, |b| Ok(f32::from_be_bytes(b))),
        SqlType::Float8 => primitive::<Float64Type, 8>(values, |b| Ok(f64::from_be_bytes(b))),
        SqlType::Date => primitive::<Date32Type, 4>(values, |b| {
            i32::from_be_bytes(b).checked_add(EPOCH_DAYS).ok_or_else(|| out_of_range("date"))
        }),
        SqlType::Time => primitive::<Time64MicrosecondType, 8>(values, |b| match i64::from_be_bytes(b) {
            micros @ 0..=86_400_000_000 => Ok(micros),
            _ => Err(out_of_range("time")),
        }),
        SqlType::Timestamp | SqlType::Timestamptz => timestamps(values, *ty == SqlType::Timestamptz),
        SqlType::Interval => primitive::<IntervalMonthDayNanoType, 16>(values, |b| {
            let mut b = &b[..];
            let (micros, days, months) = (b.get_i64(), b.get_i32(), b.get_i32());
            let nanoseconds = micros.checked_mul(1000).ok_or_else(|| out_of_range("interval"))?;
            Ok(IntervalMonthDayNano { months, days, nanoseconds })
        }),
        SqlType::Uuid => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), 16);
            each(values, |value| {
                match value {
                    Some(bytes) => builder.append_value(fixed::<16>(bytes)?).expect("16 bytes are a uuid"),
                    None => builder.append_null(),
                }
                Ok(())
            })?;
            Ok(Arc::new(builder.finish()))
        }
        SqlType::Bytea => {
            let mut builder =
                BinaryBuilder::with_capacity(values.len(), values.iter().flatten().map(|b| b.len()).sum());
            values.iter().for_each(|value| builder.append_option(*value));
            Ok(Arc::new(builder.finish()))
        }
        SqlType::Text | SqlType::Name | SqlType::InternalChar | SqlType::Unknown => {
            let mut builder =
                StringBuilder::with_capacity(values.len(), values.iter().flatten().map(|b| b.len()).sum());
            each(values, |value| {
                builder.append_option(value.map(utf8).transpose()?);
                Ok(())
            })?;
            Ok(Arc::new(builder.finish()))
        }
        SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Json => texts(values, ty, utf8),
        SqlType::Jsonb => texts(values, ty, |bytes| match bytes.split_first() {
            Some((1, text)) => utf8(text),
            _ => Err(SqlError::new(
                SqlState::INVALID_BINARY_REPRESENTATION,
                "unsupported jsonb version number",
            )),
        }),
        SqlType::Numeric(..) => texts(values, ty, numeric),
        SqlType::Array(element) => arrays(values, element),
    }
}

fn malformed() -> SqlError {
    SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, "incorrect binary data format")
}

fn out_of_range(what: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{what} out of range"))
}

fn each<'a>(
    values: &[Value<'a>],
    mut take: impl FnMut(Value<'a>) -> Result<(), SqlError>,
) -> Result<(), ParseError> {
    for (row, value) in values.iter().enumerate() {
        take(*value).map_err(|error| ParseError { row, error })?;
    }
    Ok(())
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SqlError> {
    bytes.try_into().map_err(|_| malformed())
}

fn utf8(bytes: &[u8]) -> Result<&str, SqlError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(not_utf8(&[0])),
        Err(error) => Err(not_utf8(&bytes[error.valid_up_to()..])),
    }
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(
    values: &[Value],
    read: impl Fn([u8; N]) -> Result<T::Native, SqlError>,
) -> Result<ArrayRef, ParseError> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(values.len());
    each(values, |value| {
        builder.append_option(value.map(|bytes| fixed(bytes).and_then(&read)).transpose()?);
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

fn timestamps(values: &[Value], zoned: bool) -> Result<ArrayRef, ParseError> {
    let mut builder = PrimitiveBuilder::<TimestampMicrosecondType>::with_capacity(values.len());
    each(values, |value| {
        let micros = value.map(fixed).transpose()?.map(i64::from_be_bytes);
        let shifted = micros.map(|m| m.checked_add(EPOCH_MICROS).ok_or_else(|| out_of_range("timestamp")));
        builder.append_option(shifted.transpose()?);
        Ok(())
    })?;
    let array = builder.finish();
    Ok(if zoned { Arc::new(array.with_timezone(UTC)) } else { Arc::new(array) })
}

/// By way of the type's text form, which applies its limits.
fn texts<'a, T: AsRef<str>>(
    values: &[Value<'a>],
    ty: &SqlType,
    read: impl Fn(&'a [u8]) -> Result<T, SqlError>,
) -> Result<ArrayRef, ParseError> {
    let mut texts = Vec::with_capacity(values.len());
    each(values, |value| {
        texts.push(value.map(&read).transpose()?);
        Ok(())
    })?;
    parse_column(texts.iter().map(|t| t.as_ref().map(AsRef::as_ref)), ty)
}

/// The text of a binary numeric.
fn numeric(mut bytes: &[u8]) -> Result<String, SqlError> {
    let invalid = || {
        SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, "invalid value in external \"numeric\" value")
    };
    if bytes.len() < 8 {
        return Err(malformed());
    }
    let (count, weight, sign, scale) =
        (usize::from(bytes.get_u16()), bytes.get_i16(), bytes.get_u16(), usize::from(bytes.get_u16()));
    if bytes.len() != 2 * count {
        return Err(malformed());
    }
    let mut text = String::from(match sign {
        0 => "",
        0x4000 => "-",
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => return Err(invalid()),
    });
    let digits: Vec<u16> = (0..count).map(|_| bytes.get_u16()).collect();
    if digits.iter().any(|d| *d > 9999) || scale > 0x3fff {
        return Err(invalid());
    }
    // Digit i stands for 10000^(weight - i).
    let digit = |power: i32| match usize::try_from(i32::from(weight) - power) {
        Ok(i) => digits.get(i).copied().unwrap_or(0),
        Err(_) => 0,
    };
    if weight < 0 || count == 0 {
        text.push('0');
    } else if weight > 25 {
        return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format"));
    } else {
        (0..=i32::from(weight)).rev().for_each(|power| text.push_str(&format!("{:04}", digit(power))));
    }
    if scale > 0 {
        let mut fraction = String::with_capacity(scale + 4);
        let mut power = -1;
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", digit(power)));
            power -= 1;
        }
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Ok(text)
}

fn arrays(values: &[Value], element: &SqlType) -> Result<ArrayRef, ParseError> {
    let (mut elements, mut owners) = (Vec::new(), Vec::new());
    let (mut lengths, mut valid) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    for (row, value) in values.iter().enumerate() {
        let before = elements.len();
        if let Some(bytes) = value {
            array(bytes, element, &mut elements).map_err(|error| ParseError { row, error })?;
        }
        lengths.push(elements.len() - before);
        owners.resize(elements.len(), row);
        valid.push(value.is_some());
    }
    // An error of an element is one of the row that it stands in.
    let inner = column(&elements, element)
        .map_err(|bad| ParseError { row: owners.get(bad.row).copied().unwrap_or(0), error: bad.error })?;
    let field = Arc::new(element.field("item", true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(field, offsets, inner, Some(NullBuffer::from(valid)))))
}

/// Appends the elements of one array.
fn array<'a>(mut bytes: &'a [u8], element: &SqlType, elements: &mut Vec<Value<'a>>) -> Result<(), SqlError> {
    if bytes.len() < 12 {
        return Err(malformed());
    }
    let (dimensions, _nulls, oid) = (bytes.get_i32(), bytes.get_i32(), bytes.get_u32());
    if oid != element.oid() {
        let message =
            format!("binary data has array element type {oid} instead of expected {}", element.oid());
        return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
    }
    match dimensions {
        0 => return if bytes.is_empty() { Ok(()) } else { Err(malformed()) },
        1 => {}
        2..=6 => return Err(SqlError::unsupported("arrays of more than one dimension are not supported")),
        _ => return Err(malformed()),
    }
    if bytes.len() < 8 {
        return Err(malformed());
    }
    let (count, _lower_bound) = (bytes.get_i32(), bytes.get_i32());
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(malformed());
        }
        elements.push(match usize::try_from(bytes.get_i32()) {
            Ok(length) => {
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
                bytes = rest;
                Some(value)
            }
            Err(_) => None,
        });
    }
    if bytes.is_empty() { Ok(()) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Decimal128Array, Decimal256Array, Int64Array, StringArray};
    use arrow::datatypes::i256;

    use super::*;
    use crate::value::encode::Encoder;

    /// Encodes, decodes, compares; also no prefix of a value may panic.
    fn round_trip(array: ArrayRef, ty: &SqlType) {
        let encoder = Encoder::new(&array, ty).unwrap();
        let bytes: Vec<Option<Vec<u8>>> = (0..array.len())
            .map(|row| {
                let mut out = Vec::new();
                encoder.write(row, &mut out).then_some(out)
            })
            .collect();
        let values: Vec<Value> = bytes.iter().map(|b| b.as_deref()).collect();
        assert_eq!(&column(&values, ty).unwrap(), &array, "{ty}");
        for value in values.into_iter().flatten() {
            for end in 0..value.len() {
                let _ = column(&[Some(&value[..end])], ty);
            }
        }
    }

    #[test]
    fn fixed_types_survive_the_way_there_and_back() {
        round_trip(Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)])), &SqlType::Int8);
        round_trip(
            Arc::new(arrow::array::BooleanArray::from(vec![Some(true), None, Some(false)])),
            &SqlType::Boolean,
        );
        let days = arrow::array::Date32Array::from(vec![Some(0), None, Some(20_000), Some(-700_000)]);
        round_trip(Arc::new(days), &SqlType::Date);
        let micros =
            arrow::array::TimestampMicrosecondArray::from(vec![Some(0), None, Some(1_700_000_000_123_456)]);
        round_trip(Arc::new(micros.clone()), &SqlType::Timestamp);
        round_trip(Arc::new(micros.with_timezone(UTC)), &SqlType::Timestamptz);
        let interval = IntervalMonthDayNano { months: 14, days: -3, nanoseconds: 5_000 };
        let intervals = arrow::array::IntervalMonthDayNanoArray::from(vec![Some(interval), None]);
        round_trip(Arc::new(intervals), &SqlType::Interval);
        round_trip(Arc::new(StringArray::from(vec![Some("a"), None, Some("žluť")])), &SqlType::Text);
    }

    #[test]
    fn arrays_survive_the_way_there_and_back() {
        let mut builder = arrow::array::ListBuilder::new(arrow::array::Int32Builder::new())
            .with_field(SqlType::Int4.field("item", true));
        builder.append_value([Some(1), None, Some(3)]);
        builder.append_null();
        builder.append_value([]);
        round_trip(Arc::new(builder.finish()), &SqlType::Array(Box::new(SqlType::Int4)));
    }

    #[test]
    fn numerics_have_the_bytes_of_postgresql() {
        let bytes = |value: i128, scale: i8| {
            let array: ArrayRef =
                Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap());
            let mut out = Vec::new();
            Encoder::new(&array, &SqlType::Numeric(38, scale)).unwrap().write(0, &mut out);
            out.chunks(2).map(|w| i32::from(i16::from_be_bytes([w[0], w[1]]))).collect::<Vec<_>>()
        };
        assert_eq!(bytes(0, 0), [0, 0, 0, 0]);
        assert_eq!(bytes(1, 0), [1, 0, 0, 0, 1]);
        assert_eq!(bytes(-12_345_678, 3), [3, 1, 0x4000, 3, 1, 2345, 6780]);
        assert_eq!(bytes(10_000, 0), [1, 1, 0, 0, 1]);
        assert_eq!(bytes(5, 4), [1, -1, 0, 4, 5]);
        assert_eq!(bytes(5, 6), [1, -2, 0, 6, 500]);
        assert_eq!(bytes(1_0001, 4), [2, 0, 0, 4, 1, 1]);
    }

    #[test]
    fn numerics_read_as_text() {
        let read =
            |words: &[u16]| numeric(&words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>()).unwrap();
        assert_eq!(read(&[0, 0, 0, 0]), "0");
        assert_eq!(read(&[3, 1, 0x4000, 3, 1, 2345, 6780]), "-00012345.678");
        assert_eq!(read(&[1, 0xfffe, 0, 6, 500]), "0.000005");
        assert_eq!(read(&[1, 2, 0, 0, 7]), "000700000000");
        let huge: ArrayRef = Arc::new(
            Decimal256Array::from(vec![
                i256::from_string("-123456789012345678901234567890123456789012345").unwrap(),
            ])
            .with_precision_and_scale(50, 7)
            .unwrap(),
        );
        let mut out = Vec::new();
        Encoder::new(&huge, &SqlType::Numeric(50, 7)).unwrap().write(0, &mut out);
        assert_eq!(
            numeric(&out).unwrap().trim_start_matches("-00"),
            "12345678901234567890123456789012345678.9012345"
        );
    }

    #[test]
    fn wrong_forms_are_errors() {
        let state = |bytes: &[u8], ty: &SqlType| column(&[Some(bytes)], ty).unwrap_err().error.state();
        assert_eq!(state(&[1, 2, 3], &SqlType::Int4), SqlState::INVALID_BINARY_REPRESENTATION);
        assert_eq!(state(&[0xff], &SqlType::Text), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(state(&[0], &SqlType::Text), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(state(&i64::MAX.to_be_bytes(), &SqlType::Timestamp), SqlState::DATETIME_FIELD_OVERFLOW);
        let array = SqlType::Array(Box::new(SqlType::Int4));
        assert_eq!(state(&[0; 12], &array), SqlState::DATATYPE_MISMATCH);
    }
}
