//! Values in PostgreSQL's text form: what psql shows, COPY writes, and a literal or a CSV field holds.
//!
//! The type is looked at once per column: [`Formatter`] for writing, [`parse_column`] for reading. Booleans are `t` and
//! `f` here; a cast to text says `true` and `false` (see [`crate::cast`]).

mod array;
pub(crate) mod bytes;
pub(crate) mod datetime;
pub(crate) mod interval;
pub(crate) mod json;
pub(crate) mod json_path;
pub(crate) mod number;
pub(crate) mod zone;

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use datafusion::scalar::ScalarValue;
use millpond_types::{SqlError, SqlType};

use crate::cast::CastContext;

/// Writes the values of one column.
pub struct Formatter {
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    Boolean(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Text(StringArray),
    Bytea(BinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Timestamptz(TimestampMicrosecondArray, zone::Zone),
    Interval(IntervalMonthDayNanoArray),
    Array(ListArray, Box<Formatter>),
}

impl Formatter {
    /// A writer for `array`, whose SQL type is `ty`. Arrow types that DataFusion chooses for itself (views,
    /// dictionaries, other units) are brought to the type's own first.
    ///
    /// # Errors
    /// XX000 if the array does not hold that type.
    pub fn new(array: &ArrayRef, ty: &SqlType) -> Result<Self, SqlError> {
        Self::in_zone(array, ty, zone::Zone::UTC)
    }

    /// As [`Formatter::new`]; a timestamptz is shown in `zone`.
    ///
    /// # Errors
    /// As [`Formatter::new`].
    pub fn in_zone(array: &ArrayRef, ty: &SqlType, zone: zone::Zone) -> Result<Self, SqlError> {
        let array = &canonical(array, ty)?;
        let values = match ty {
            SqlType::Boolean => Values::Boolean(array.as_boolean().clone()),
            SqlType::Int2 => Values::Int2(array.as_primitive().clone()),
            SqlType::Int4 => Values::Int4(array.as_primitive().clone()),
            SqlType::Int8 | SqlType::Oid => Values::Int8(array.as_primitive().clone()),
            SqlType::Float4 => Values::Float4(array.as_primitive().clone()),
            SqlType::Float8 => Values::Float8(array.as_primitive().clone()),
            SqlType::Numeric(p, s) if *p <= 38 => Values::Decimal128(array.as_primitive().clone(), *s),
            SqlType::Numeric(_, s) => Values::Decimal256(array.as_primitive().clone(), *s),
            SqlType::Bytea => Values::Bytea(array.as_binary().clone()),
            SqlType::Uuid => Values::Uuid(array.as_fixed_size_binary().clone()),
            SqlType::Date => Values::Date(array.as_primitive().clone()),
            SqlType::Time => Values::Time(array.as_primitive().clone()),
            SqlType::Timestamp => Values::Timestamp(array.as_primitive().clone()),
            SqlType::Timestamptz => Values::Timestamptz(array.as_primitive().clone(), zone),
            SqlType::Interval => Values::Interval(array.as_primitive().clone()),
            SqlType::Array(element) => {
                let list = array.as_list::<i32>().clone();
                let elements = Box::new(Self::in_zone(list.values(), element, zone)?);
                Values::Array(list, elements)
            }
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Json | SqlType::Jsonb => {
                Values::Text(array.as_string().clone())
            }
            SqlType::Name | SqlType::InternalChar | SqlType::Unknown => {
                Values::Text(array.as_string().clone())
            }
        };
        Ok(Self { nulls: array.nulls().cloned(), values })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the text of the value at `row` (UTF-8, unquoted, not escaped); `false`, and nothing appended, if it is NULL.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.is_null(row) {
            return false;
        }
        match &self.values {
            Values::Boolean(a) => out.push(if a.value(row) { b't' } else { b'f' }),
            Values::Int2(a) => number::write_integer(a.value(row), out),
            Values::Int4(a) => number::write_integer(a.value(row), out),
            Values::Int8(a) => number::write_integer(a.value(row), out),
            Values::Float4(a) => number::write_float4(a.value(row), out),
            Values::Float8(a) => number::write_float8(a.value(row), out),
            Values::Decimal128(a, scale) => number::write_decimal(a.value(row), *scale, out),
            Values::Decimal256(a, scale) => number::write_decimal256(a.value(row), *scale, out),
            Values::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Values::Bytea(a) => bytes::write_bytea(a.value(row), out),
            Values::Uuid(a) => bytes::write_uuid(a.value(row), out),
            Values::Date(a) => datetime::write_date(a.value(row), out),
            Values::Time(a) => datetime::write_time(a.value(row), out),
            Values::Timestamp(a) => datetime::write_timestamp(a.value(row), out),
            Values::Timestamptz(a, zone) => datetime::write_timestamptz(a.value(row), *zone, out),
            Values::Interval(a) => interval::write_interval(a.value(row), out),
            Values::Array(list, elements) => write_list(list, elements, row, out),
        }
        true
    }

    /// The text of the value at `row`; `None` if it is NULL.
    pub fn text(&self, row: usize) -> Option<String> {
        let mut out = Vec::new();
        self.write(row, &mut out).then(|| utf8(out))
    }
}

fn write_list(list: &ListArray, elements: &Formatter, row: usize, out: &mut Vec<u8>) {
    let offsets = list.value_offsets();
    let nested = matches!(elements.values, Values::Array(..));
    let mut text = Vec::new();
    out.push(b'{');
    for (i, at) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text.clear();
        match elements.write(at, &mut text) {
            false => out.extend_from_slice(b"NULL"),
            true if nested => out.extend_from_slice(&text),
            true => array::write_element(&text, out),
        }
    }
    out.push(b'}');
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text forms are ASCII or copied from valid UTF-8")
}

/// `array` in the Arrow type of `ty`.
pub(crate) fn canonical(array: &ArrayRef, ty: &SqlType) -> Result<ArrayRef, SqlError> {
    let want = ty.arrow();
    if *array.data_type() == want || matches!((array.data_type(), ty), (DataType::List(_), SqlType::Array(_)))
    {
        return Ok(Arc::clone(array));
    }
    arrow::compute::cast(array, &want).map_err(|_| {
        SqlError::internal(format!("a column of {} was expected to hold {ty}", array.data_type()))
    })
}

/// The column as text; NULL stays NULL.
///
/// # Errors
/// XX000 if the array does not hold that type.
pub fn format_array(array: &ArrayRef, ty: &SqlType, zone: zone::Zone) -> Result<StringArray, SqlError> {
    let formatter = Formatter::in_zone(array, ty, zone)?;
    if let Values::Text(texts) = formatter.values {
        return Ok(texts);
    }
    let mut bytes = Vec::with_capacity(array.len() * 8);
    let mut offsets = Vec::with_capacity(array.len() + 1);
    offsets.push(0);
    for row in 0..array.len() {
        formatter.write(row, &mut bytes);
        offsets.push(i32::try_from(bytes.len()).map_err(|_| too_long())?);
    }
    StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), formatter.nulls)
        .map_err(|e| SqlError::internal(format!("text forms are not UTF-8: {e}")))
}

pub(crate) fn too_long() -> SqlError {
    SqlError::new(millpond_types::SqlState::PROGRAM_LIMIT_EXCEEDED, "a batch of texts is longer than 2 GiB")
}

/// One value as text; `None` if it is NULL. For single values: a column has its [`Formatter`].
///
/// # Errors
/// XX000 if the value is not of that type.
pub fn format_scalar(value: &ScalarValue, ty: &SqlType) -> Result<Option<String>, SqlError> {
    if value.is_null() {
        return Ok(None);
    }
    let array = value.to_array().map_err(crate::error::from_datafusion)?;
    Ok(Formatter::new(&array, ty)?.text(0))
}

/// A text that a type refused, and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Index into the texts, from 0.
    pub row: usize,
    pub error: SqlError,
}

/// Reads texts as `ty`; `None` is NULL. Lengths and precisions of the type apply (22001, 22003).
///
/// # Errors
/// The first text that the type refuses.
pub fn parse_column<'a>(
    texts: impl IntoIterator<Item = Option<&'a str>>,
    ty: &SqlType,
) -> Result<ArrayRef, ParseError> {
    parse_column_in(texts, ty, zone::Zone::UTC)
}

/// As [`parse_column`]; a timestamptz without a zone is a time of `zone`.
///
/// # Errors
/// As [`parse_column`].
pub fn parse_column_in<'a>(
    texts: impl IntoIterator<Item = Option<&'a str>>,
    ty: &SqlType,
    zone: zone::Zone,
) -> Result<ArrayRef, ParseError> {
    parse_in(texts.into_iter(), ty, CastContext::Assignment, zone)
}

/// As [`parse_column_in`]; an explicit cast cuts what is too long.
pub(crate) fn parse_in<'a>(
    texts: impl Iterator<Item = Option<&'a str>>,
    ty: &SqlType,
    context: CastContext,
    zone: zone::Zone,
) -> Result<ArrayRef, ParseError> {
    Ok(match ty {
        SqlType::Int2 => Arc::new(primitive::<Int16Type>(texts, number::parse_integer)?),
        SqlType::Int4 => Arc::new(primitive::<Int32Type>(texts, number::parse_integer)?),
        SqlType::Int8 => Arc::new(primitive::<Int64Type>(texts, number::parse_integer)?),
        SqlType::Oid => Arc::new(primitive::<Int64Type>(texts, parse_oid)?),
        SqlType::Float4 => Arc::new(primitive::<Float32Type>(texts, number::parse_float4)?),
        SqlType::Float8 => Arc::new(primitive::<Float64Type>(texts, number::parse_float8)?),
        SqlType::Numeric(p, s) if *p <= 38 => {
            let values = primitive::<Decimal128Type>(texts, |t| number::parse_decimal128(t, *p, *s))?;
            Arc::new(values.with_data_type(ty.arrow()))
        }
        SqlType::Numeric(p, s) => {
            let values = primitive::<Decimal256Type>(texts, |t| number::parse_decimal256(t, *p, *s))?;
            Arc::new(values.with_data_type(ty.arrow()))
        }
        SqlType::Date => Arc::new(primitive::<Date32Type>(texts, datetime::parse_date)?),
        SqlType::Time => Arc::new(primitive::<Time64MicrosecondType>(texts, datetime::parse_time)?),
        SqlType::Timestamp => {
            Arc::new(primitive::<TimestampMicrosecondType>(texts, datetime::parse_timestamp)?)
        }
        SqlType::Timestamptz => {
            let values =
                primitive::<TimestampMicrosecondType>(texts, |text| datetime::parse_timestamptz(text, zone))?;
            Arc::new(values.with_data_type(ty.arrow()))
        }
        SqlType::Interval => {
            Arc::new(primitive::<IntervalMonthDayNanoType>(texts, interval::parse_interval)?)
        }
        SqlType::Boolean => Arc::new(booleans(texts)?),
        SqlType::Bytea => Arc::new(binaries(texts)?),
        SqlType::Uuid => Arc::new(uuids(texts)?),
        SqlType::Json => Arc::new(strings(texts, |text, out| {
            json::check(text)?;
            out.push_str(text);
            Ok(())
        })?),
        SqlType::Jsonb => Arc::new(strings(texts, |text, out| {
            out.push_str(&json::normal_form(text)?);
            Ok(())
        })?),
        SqlType::Array(element) => return lists(texts, element, context, zone),
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) => Arc::new(fitted(texts, ty, context)?),
        SqlType::Name | SqlType::InternalChar | SqlType::Unknown => Arc::new(fitted(texts, ty, context)?),
    })
}

fn parse_oid(text: &str) -> Result<i64, SqlError> {
    let value: i64 = number::parse_integer(text).map_err(|_| number::invalid("oid", text))?;
    let wrapped = if (-(1 << 31)..0).contains(&value) { value + (1 << 32) } else { value };
    u32::try_from(wrapped).map(i64::from).map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type oid");
        SqlError::new(millpond_types::SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
    })
}

fn primitive<'a, T: ArrowPrimitiveType>(
    texts: impl Iterator<Item = Option<&'a str>>,
    parse: impl Fn(&str) -> Result<T::Native, SqlError>,
) -> Result<PrimitiveArray<T>, ParseError> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(texts.size_hint().0);
    for (row, text) in texts.enumerate() {
        match text {
            None => builder.append_null(),
            Some(text) => builder.append_value(parse(text).map_err(|error| ParseError { row, error })?),
        }
    }
    Ok(builder.finish())
}

fn booleans<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<BooleanArray, ParseError> {
    texts
        .enumerate()
        .map(|(row, text)| {
            text.map(bytes::parse_boolean).transpose().map_err(|error| ParseError { row, error })
        })
        .collect()
}

fn binaries<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<BinaryArray, ParseError> {
    let mut builder = BinaryBuilder::new();
    for (row, text) in texts.enumerate() {
        let value = text.map(bytes::parse_bytea).transpose().map_err(|error| ParseError { row, error })?;
        builder.append_option(value);
    }
    Ok(builder.finish())
}

fn uuids<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<FixedSizeBinaryArray, ParseError> {
    let mut builder = FixedSizeBinaryBuilder::new(16);
    for (row, text) in texts.enumerate() {
        match text.map(bytes::parse_uuid).transpose().map_err(|error| ParseError { row, error })? {
            None => builder.append_null(),
            Some(uuid) => builder.append_value(uuid).expect("a uuid has the builder's 16 bytes"),
        }
    }
    Ok(builder.finish())
}

fn strings<'a>(
    texts: impl Iterator<Item = Option<&'a str>>,
    write: impl Fn(&str, &mut String) -> Result<(), SqlError>,
) -> Result<StringArray, ParseError> {
    let mut builder = StringBuilder::new();
    let mut value = String::new();
    for (row, text) in texts.enumerate() {
        let Some(text) = text else {
            builder.append_null();
            continue;
        };
        value.clear();
        write(text, &mut value).map_err(|error| ParseError { row, error })?;
        if builder.values_slice().len() + value.len() > i32::MAX as usize {
            return Err(ParseError { row, error: too_long() });
        }
        builder.append_value(&value);
    }
    Ok(builder.finish())
}

fn fitted<'a>(
    texts: impl Iterator<Item = Option<&'a str>>,
    ty: &SqlType,
    context: CastContext,
) -> Result<StringArray, ParseError> {
    strings(texts, |text, out| {
        let fitted = bytes::fit(text, ty, context)?;
        out.push_str(&text[..fitted.bytes]);
        out.extend(std::iter::repeat_n(' ', fitted.pad));
        Ok(())
    })
}

fn lists<'a>(
    texts: impl Iterator<Item = Option<&'a str>>,
    element: &SqlType,
    context: CastContext,
    zone: zone::Zone,
) -> Result<ArrayRef, ParseError> {
    let mut elements = Vec::new();
    let mut lengths = Vec::new();
    let mut rows = Vec::new();
    let mut valid = Vec::new();
    for (row, text) in texts.enumerate() {
        let found = text.map(array::elements).transpose().map_err(|error| ParseError { row, error })?;
        valid.push(found.is_some());
        let found = found.unwrap_or_default();
        lengths.push(found.len());
        rows.extend(std::iter::repeat_n(row, found.len()));
        elements.extend(found);
    }
    let values = parse_in(elements.iter().map(Option::as_deref), element, context, zone)
        .map_err(|e| ParseError { row: rows[e.row], error: e.error })?;
    let field = Arc::new(element.field("item", true));
    let nulls = NullBuffer::from(valid);
    Ok(Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, Some(nulls))))
}

/// Reads one text.
///
/// # Errors
/// If the type refuses it.
pub fn parse_scalar(text: &str, ty: &SqlType) -> Result<ScalarValue, SqlError> {
    parse_scalar_in(text, ty, zone::Zone::UTC)
}

/// As [`parse_scalar`]; a timestamptz without a zone is a time of `zone`.
///
/// # Errors
/// As [`parse_scalar`].
pub fn parse_scalar_in(text: &str, ty: &SqlType, zone: zone::Zone) -> Result<ScalarValue, SqlError> {
    let array = parse_column_in([Some(text)], ty, zone).map_err(|e| e.error)?;
    ScalarValue::try_from_array(&array, 0).map_err(crate::error::from_datafusion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_way_through_text() {
        let array = |ty| SqlType::Array(Box::new(ty));
        for (ty, text) in [
            (SqlType::Boolean, "t"),
            (SqlType::Int2, "-32768"),
            (SqlType::Int4, "2147483647"),
            (SqlType::Int8, "-9223372036854775808"),
            (SqlType::Float4, "1.5"),
            (SqlType::Float8, "1e+20"),
            (SqlType::Numeric(10, 2), "-12345678.90"),
            (SqlType::Numeric(60, 5), "123456789012345678901234567890123456789012345.00001"),
            (SqlType::Text, "a b"),
            (SqlType::Varchar(Some(3)), "abc"),
            (SqlType::Char(5), "ab   "),
            (SqlType::Bytea, "\\x00ff"),
            (SqlType::Date, "2024-02-29"),
            (SqlType::Time, "12:34:56.789"),
            (SqlType::Timestamp, "2024-02-29 12:34:56"),
            (SqlType::Timestamptz, "2024-02-29 12:34:56+00"),
            (SqlType::Interval, "1 day 02:00:00"),
            (SqlType::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            (SqlType::Json, "{\"a\":1}"),
            (SqlType::Jsonb, "{\"a\": 1}"),
            (SqlType::Oid, "4294967295"),
            (array(SqlType::Int4), "{1,NULL,3}"),
            (array(SqlType::Text), "{\"a b\",\"\",\"NULL\",NULL,x}"),
            (array(SqlType::Timestamp), "{\"2024-02-29 12:34:56\"}"),
            (array(array(SqlType::Int4)), "{{1,2},{3}}"),
        ] {
            let column = parse_column([Some(text), None], &ty).unwrap();
            assert_eq!(*column.data_type(), ty.arrow(), "{ty}");
            let texts = format_array(&column, &ty, zone::Zone::UTC).unwrap();
            assert_eq!((texts.value(0), texts.is_null(1)), (text, true), "{ty}");
        }
    }

    #[test]
    fn the_row_of_a_bad_text_is_named() {
        let error = parse_column([Some("1"), None, Some("x")], &SqlType::Int4).unwrap_err();
        assert_eq!(error.row, 2);
        let ints = SqlType::Array(Box::new(SqlType::Int4));
        assert_eq!(parse_column([Some("{1,2}"), Some("{3,x}")], &ints).unwrap_err().row, 1);
        let error = parse_column([Some("abcd")], &SqlType::Varchar(Some(3))).unwrap_err().error;
        assert_eq!(error.message(), "value too long for type character varying(3)");
        assert!(parse_column([Some("abc  ")], &SqlType::Varchar(Some(3))).is_ok());
    }
}
