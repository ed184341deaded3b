//! SQL types on Arrow: which Arrow type holds a SQL type, what PostgreSQL calls it, and its OID.
//!
//! Where two SQL types share an Arrow type (text and varchar(10), jsonb and text, uuid and bytea), the field's metadata
//! says which it is under [`METADATA_KEY`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::{SqlError, SqlState};

/// The key of a field's metadata that names its SQL type where the Arrow type alone does not.
pub const METADATA_KEY: &str = "millpond:type";

/// The zone that a timestamptz column carries in Arrow; values are UTC inside.
pub const UTC: &str = "+00:00";

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    Boolean,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Precision 1..=76 and scale 0..=precision.
    Numeric(u8, i8),
    Text,
    /// `character varying(n)`; without a length it is [`SqlType::Text`] by another name.
    Varchar(Option<u32>),
    /// `character(n)`, blank padded.
    Char(u32),
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Array(Box<SqlType>),
    // Types of the system catalogs.
    Name,
    Oid,
    /// The one-byte `"char"`.
    InternalChar,
    /// Of a literal or parameter whose type nothing has decided yet.
    Unknown,
}

impl SqlType {
    /// The Arrow type that holds values of this type.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric(p, s) if *p <= 38 => DataType::Decimal128(*p, *s),
            Self::Numeric(p, s) => DataType::Decimal256(*p, *s),
            Self::Text | Self::Varchar(_) | Self::Char(_) | Self::Json | Self::Jsonb => DataType::Utf8,
            Self::Name | Self::InternalChar | Self::Unknown => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Array(element) => DataType::List(Arc::new(element.field("item", true))),
            Self::Oid => DataType::Int64,
        }
    }

    /// A field of this type, marked in its metadata where the Arrow type is shared.
    pub fn field(&self, name: impl Into<String>, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match self.mark() {
            Some(mark) => field.with_metadata(HashMap::from([(METADATA_KEY.to_owned(), mark)])),
            None => field,
        }
    }

    fn mark(&self) -> Option<String> {
        match self {
            Self::Varchar(_) | Self::Char(_) | Self::Json | Self::Jsonb | Self::Uuid => {
                Some(self.to_string())
            }
            Self::Name | Self::Oid | Self::InternalChar | Self::Unknown => Some(self.to_string()),
            _ => None,
        }
    }

    /// The SQL type of a field: by its mark, else by its Arrow type. Encodings that DataFusion chooses for itself (views,
    /// large offsets, dictionaries, unsigned and 8-bit integers) read as the nearest SQL type.
    ///
    /// # Errors
    /// 0A000 for an Arrow type that has no SQL type.
    pub fn of(field: &Field) -> Result<Self, SqlError> {
        match field.metadata().get(METADATA_KEY).and_then(|mark| Self::from_mark(mark)) {
            Some(marked) if marked.arrow() == *field.data_type() => Ok(marked),
            _ => Self::of_arrow(field.data_type()),
        }
    }

    /// The SQL type of an unmarked Arrow type.
    pub fn of_arrow(data_type: &DataType) -> Result<Self, SqlError> {
        Ok(match data_type {
            DataType::Null => Self::Text,
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Self::Int2,
            DataType::UInt16 | DataType::Int32 => Self::Int4,
            DataType::UInt32 | DataType::Int64 => Self::Int8,
            DataType::UInt64 => Self::Numeric(20, 0),
            DataType::Float16 | DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => Self::Numeric(*p, *s),
            DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => Self::Numeric(*p, *s),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytea,
            DataType::FixedSizeBinary(_) => Self::Bytea,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Self::Array(Box::new(Self::of(item)?))
            }
            DataType::Dictionary(_, values) => Self::of_arrow(values)?,
            other => {
                return Err(SqlError::unsupported(format!("values of the type {other} cannot be shown")));
            }
        })
    }

    fn from_mark(mark: &str) -> Option<Self> {
        let (name, length) = match mark.strip_suffix(')').and_then(|m| m.split_once('(')) {
            Some((name, length)) => (name, Some(length.parse().ok()?)),
            None => (mark, None),
        };
        Some(match name {
            "character varying" => Self::Varchar(length),
            "character" => Self::Char(length?),
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "uuid" => Self::Uuid,
            "name" => Self::Name,
            "oid" => Self::Oid,
            "\"char\"" => Self::InternalChar,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// PostgreSQL's object identifier of the type (pg_type.oid).
    pub fn oid(&self) -> u32 {
        match self {
            Self::Boolean => 16,
            Self::Bytea => 17,
            Self::InternalChar => 18,
            Self::Name => 19,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Oid => 26,
            Self::Json => 114,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Unknown => 705,
            Self::Char(_) => 1042,
            Self::Varchar(_) => 1043,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Interval => 1186,
            Self::Numeric(..) => 1700,
            Self::Uuid => 2950,
            Self::Jsonb => 3802,
            Self::Array(element) => element.array_oid(),
        }
    }

    fn array_oid(&self) -> u32 {
        match self {
            Self::Boolean => 1000,
            Self::Bytea => 1001,
            Self::InternalChar => 1002,
            Self::Name => 1003,
            Self::Int2 => 1005,
            Self::Int4 => 1007,
            Self::Text | Self::Unknown => 1009,
            Self::Char(_) => 1014,
            Self::Varchar(_) => 1015,
            Self::Int8 => 1016,
            Self::Float4 => 1021,
            Self::Float8 => 1022,
            Self::Oid => 1028,
            Self::Timestamp => 1115,
            Self::Date => 1182,
            Self::Time => 1183,
            Self::Timestamptz => 1185,
            Self::Interval => 1187,
            Self::Numeric(..) => 1231,
            Self::Json => 199,
            Self::Uuid => 2951,
            Self::Jsonb => 3807,
            // PostgreSQL has no arrays of arrays: int[][] is int[].
            Self::Array(element) => element.array_oid(),
        }
    }

    /// The type that a client names by OID, without modifiers; `None` if Millpond has no such type.
    pub fn from_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Boolean,
            17 => Self::Bytea,
            18 => Self::InternalChar,
            19 => Self::Name,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 => Self::Text,
            26 => Self::Oid,
            114 => Self::Json,
            700 => Self::Float4,
            701 => Self::Float8,
            1042 => Self::Text,
            1043 => Self::Varchar(None),
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1186 => Self::Interval,
            1700 => Self::Numeric(38, 10),
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            1000 => Self::Array(Box::new(Self::Boolean)),
            1005 => Self::Array(Box::new(Self::Int2)),
            1007 => Self::Array(Box::new(Self::Int4)),
            1009 | 1015 => Self::Array(Box::new(Self::Text)),
            1016 => Self::Array(Box::new(Self::Int8)),
            1021 => Self::Array(Box::new(Self::Float4)),
            1022 => Self::Array(Box::new(Self::Float8)),
            1115 => Self::Array(Box::new(Self::Timestamp)),
            1182 => Self::Array(Box::new(Self::Date)),
            1185 => Self::Array(Box::new(Self::Timestamptz)),
            _ => return None,
        })
    }

    /// PostgreSQL's type modifier (pg_attribute.atttypmod), -1 where there is none.
    pub fn modifier(&self) -> i32 {
        match self {
            Self::Varchar(Some(n)) | Self::Char(n) => *n as i32 + 4,
            Self::Numeric(p, s) => ((i32::from(*p) << 16) | (i32::from(*s) & 0x7ff)) + 4,
            _ => -1,
        }
    }

    /// PostgreSQL's typlen: bytes of a fixed-size type, -1 for others.
    pub fn length(&self) -> i16 {
        match self {
            Self::Boolean | Self::InternalChar => 1,
            Self::Int2 => 2,
            Self::Int4 | Self::Float4 | Self::Date | Self::Oid => 4,
            Self::Int8 | Self::Float8 | Self::Time | Self::Timestamp | Self::Timestamptz => 8,
            Self::Interval | Self::Uuid => 16,
            Self::Name => 64,
            Self::Unknown => -2,
            _ => -1,
        }
    }

    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    /// A numeric type of the given shape.
    ///
    /// # Errors
    /// 22023 outside of 1..=76 digits, or with a scale below 0 or above the precision.
    pub fn numeric(precision: u64, scale: i64) -> Result<Self, SqlError> {
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(p @ 1..=76), Ok(s)) if s >= 0 && s as u8 <= p => Ok(Self::Numeric(p, s)),
            (Ok(1..=76), _) => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
            )),
            _ => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("NUMERIC precision {precision} must be between 1 and 76"),
            )),
        }
    }
}

/// As PostgreSQL's format_type prints it.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int2 => f.write_str("smallint"),
            Self::Int4 => f.write_str("integer"),
            Self::Int8 => f.write_str("bigint"),
            Self::Float4 => f.write_str("real"),
            Self::Float8 => f.write_str("double precision"),
            Self::Numeric(p, s) => write!(f, "numeric({p},{s})"),
            Self::Text => f.write_str("text"),
            Self::Varchar(None) => f.write_str("character varying"),
            Self::Varchar(Some(n)) => write!(f, "character varying({n})"),
            Self::Char(n) => write!(f, "character({n})"),
            Self::Bytea => f.write_str("bytea"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time without time zone"),
            Self::Timestamp => f.write_str("timestamp without time zone"),
            Self::Timestamptz => f.write_str("timestamp with time zone"),
            Self::Interval => f.write_str("interval"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
            Self::Jsonb => f.write_str("jsonb"),
            Self::Array(element) => write!(f, "{element}[]"),
            Self::Name => f.write_str("name"),
            Self::Oid => f.write_str("oid"),
            Self::InternalChar => f.write_str("\"char\""),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_way_through_arrow() {
        let types = [
            SqlType::Boolean,
            SqlType::Int8,
            SqlType::Numeric(20, 3),
            SqlType::Numeric(50, 0),
            SqlType::Varchar(Some(7)),
            SqlType::Varchar(None),
            SqlType::Char(3),
            SqlType::Uuid,
            SqlType::Jsonb,
            SqlType::Timestamptz,
            SqlType::Array(Box::new(SqlType::Varchar(Some(2)))),
        ];
        for ty in types {
            assert_eq!(SqlType::of(&ty.field("c", true)), Ok(ty));
        }
    }

    #[test]
    fn numeric_refuses_what_it_cannot_hold() {
        assert_eq!(SqlType::numeric(77, 0).unwrap_err().state(), SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(SqlType::numeric(5, 6).unwrap_err().state(), SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(SqlType::numeric(76, 76), Ok(SqlType::Numeric(76, 76)));
    }
}
