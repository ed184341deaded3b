//! From the names of types in SQL to [`SqlType`].

use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, ObjectName, TimezoneInfo,
};

use crate::name::{RelationName, nearest};

/// The type that a cast, a column or a parameter names. `position` is where the name stands.
///
/// A bare `numeric` is `numeric(38,10)`: right for a cast's result, while [`resolve_column`] refuses it.
///
/// # Errors
/// 42704 `type "foo" does not exist`; 0A000 for PostgreSQL's types that Millpond lacks; 22023 for bad modifiers.
pub fn resolve(ty: &DataType, position: usize) -> Result<SqlType, SqlError> {
    resolve_type(ty).map_err(|error| error.at(position))
}

/// As [`resolve`], for the type of a column.
///
/// # Errors
/// Also 0A000 for `numeric` without a precision: a column's type must say how many digits it keeps.
pub fn resolve_column(ty: &DataType, position: usize) -> Result<SqlType, SqlError> {
    let mut element = ty;
    while let DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) = element {
        element = inner;
    }
    match element {
        DataType::Numeric(ExactNumberInfo::None)
        | DataType::Decimal(ExactNumberInfo::None)
        | DataType::Dec(ExactNumberInfo::None) => {
            Err(SqlError::unsupported("a numeric column without precision is not supported")
                .hint("Write numeric(p,s), for example numeric(38,10).")
                .at(position))
        }
        _ => resolve(ty, position),
    }
}

fn resolve_type(ty: &DataType) -> Result<SqlType, SqlError> {
    Ok(match ty {
        DataType::Bool | DataType::Boolean => SqlType::Boolean,
        DataType::SmallInt(None) | DataType::Int2(None) => SqlType::Int2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => SqlType::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => SqlType::Int8,
        DataType::Real | DataType::Float4 => SqlType::Float4,
        DataType::DoublePrecision | DataType::Float8 => SqlType::Float8,
        DataType::Float(info) => float(info)?,
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,
        DataType::Text => SqlType::Text,
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            SqlType::Varchar(length.as_ref().map(|l| character_length(l, "varchar")).transpose()?)
        }
        DataType::Char(length) | DataType::Character(length) => match length {
            Some(length) => SqlType::Char(character_length(length, "char")?),
            None => SqlType::Char(1),
        },
        DataType::Bytea => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Time(precision, zone) => {
            let with_zone = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
            microseconds(*precision, "time")?;
            if with_zone {
                return Err(unsupported("time with time zone", "Use timestamptz, or time."));
            }
            SqlType::Time
        }
        DataType::Timestamp(precision, zone) => {
            microseconds(*precision, "timestamp")?;
            match zone {
                TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => SqlType::Timestamptz,
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Timestamp,
            }
        }
        DataType::Interval { fields: None, precision } => {
            microseconds(*precision, "interval")?;
            SqlType::Interval
        }
        DataType::Interval { fields: Some(fields), .. } => {
            return Err(unsupported(
                &format!("interval {}", fields.to_string().to_lowercase()),
                "Use interval.",
            ));
        }
        DataType::Uuid => SqlType::Uuid,
        DataType::JSON => SqlType::Json,
        DataType::JSONB => SqlType::Jsonb,
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _))
        | DataType::Array(ArrayElemTypeDef::AngleBracket(element))
        | DataType::Array(ArrayElemTypeDef::Parenthesis(element)) => match resolve_type(element)? {
            // PostgreSQL has no arrays of arrays: int[][] is int[] by another name, of any dimensions.
            SqlType::Array(_) => return Err(unsupported("an array of arrays", "Use an array of jsonb.")),
            element => SqlType::Array(Box::new(element)),
        },
        DataType::Custom(name, modifiers) => named(name, modifiers)?,
        DataType::Regclass => return Err(unsupported("regclass", "Use text, or oid.")),
        DataType::Bit(_) | DataType::BitVarying(_) | DataType::VarBit(_) => {
            return Err(unsupported("bit", "Use bytea, or an integer."));
        }
        // sqlparser knows the types of a dozen databases by their own names; PostgreSQL does not.
        other => {
            let name = other.to_string().to_lowercase();
            return Err(undefined(name.split(['(', ' ', '<']).next().unwrap_or(&name)));
        }
    })
}

/// Names that sqlparser leaves alone, and types in `pg_catalog` by their internal names.
fn named(name: &ObjectName, modifiers: &[String]) -> Result<SqlType, SqlError> {
    let RelationName { schema, name, .. } = RelationName::from_ast(name)?;
    let shown = schema.as_ref().map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"));
    if schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
        return Err(undefined(&shown));
    }
    let modifier = |at: usize| modifiers.get(at).and_then(|m| m.parse::<u64>().ok());
    let plain = match name.as_str() {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "text" => SqlType::Text,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        "name" => SqlType::Name,
        "oid" => SqlType::Oid,
        "char" => SqlType::InternalChar,
        "unknown" => SqlType::Unknown,
        "varchar" => match modifier(0) {
            Some(length) => return Ok(SqlType::Varchar(Some(length_in_range(length, "varchar")?))),
            None => return Ok(SqlType::Varchar(None)),
        },
        "bpchar" => match modifier(0) {
            Some(length) => return Ok(SqlType::Char(length_in_range(length, "char")?)),
            None => return Ok(SqlType::Text),
        },
        "numeric" => match modifier(0) {
            Some(precision) => return SqlType::numeric(precision, modifier(1).unwrap_or(0) as i64),
            None => return Ok(SqlType::Numeric(38, 10)),
        },
        _ => match POSTGRES_ONLY.iter().find(|(names, _)| names.contains(&name.as_str())) {
            Some((_, instead)) => return Err(unsupported(&name, instead)),
            None => return Err(undefined(&shown)),
        },
    };
    if !modifiers.is_empty() {
        let message = format!("type modifier is not allowed for type \"{name}\"");
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
    }
    Ok(plain)
}

/// PostgreSQL's types that Millpond lacks, and what to use.
const POSTGRES_ONLY: [(&[&str], &str); 9] = [
    (&["money"], "Use numeric(18,2)."),
    (&["timetz"], "Use timestamptz, or time."),
    (&["inet", "cidr", "macaddr", "macaddr8", "xml", "citext", "hstore", "ltree"], "Use text."),
    (&["bit", "varbit"], "Use bytea, or an integer."),
    (&["int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"], "Use two columns."),
    (&["point", "line", "lseg", "box", "path", "polygon", "circle"], "Use two columns, or jsonb."),
    (&["tsvector", "tsquery"], "Use text."),
    (
        &["regclass", "regtype", "regproc", "regnamespace", "regrole", "xid", "cid", "tid", "pg_lsn"],
        "Use text, or oid.",
    ),
    (&["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"], "Use an integer type."),
];

fn undefined(name: &str) -> SqlError {
    let error = SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"));
    match nearest(name, KNOWN_NAMES) {
        Some(known) if known != name => error.hint(format!("Perhaps you meant the type \"{known}\".")),
        _ => match INSTEAD.iter().find(|(names, _)| names.contains(&name)) {
            Some((_, instead)) => error.hint(format!("Perhaps you meant the type \"{instead}\".")),
            None => error,
        },
    }
}

/// For the hint.
const KNOWN_NAMES: [&str; 24] = [
    "boolean",
    "smallint",
    "integer",
    "int",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "decimal",
    "text",
    "varchar",
    "char",
    "bytea",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "json",
    "jsonb",
    "int2",
    "int4",
    "int8",
];

/// What other databases call them.
const INSTEAD: [(&[&str], &str); 6] = [
    (&["string", "nvarchar", "clob", "tinytext", "mediumtext", "longtext"], "text"),
    (&["datetime", "datetime64", "timestamp_ntz"], "timestamp"),
    (&["double", "float64"], "double precision"),
    (&["blob", "binary", "varbinary", "bytes", "tinyblob", "mediumblob", "longblob"], "bytea"),
    (&["tinyint", "utinyint", "uint8"], "smallint"),
    (&["int64", "long", "ubigint", "uint32"], "bigint"),
];

fn unsupported(name: &str, instead: &str) -> SqlError {
    SqlError::unsupported(format!("the type {name} is not supported")).hint(instead)
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn float(info: &ExactNumberInfo) -> Result<SqlType, SqlError> {
    match info {
        ExactNumberInfo::None => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(0) => Err(invalid("precision for type float must be at least 1 bit")),
        ExactNumberInfo::Precision(1..=24) => Ok(SqlType::Float4),
        ExactNumberInfo::Precision(25..=53) => Ok(SqlType::Float8),
        _ => Err(invalid("precision for type float must be less than 54 bits")),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType, SqlError> {
    match info {
        ExactNumberInfo::None => Ok(SqlType::Numeric(38, 10)),
        ExactNumberInfo::Precision(precision) => SqlType::numeric(*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => SqlType::numeric(*precision, *scale),
    }
}

fn character_length(length: &CharacterLength, name: &str) -> Result<u32, SqlError> {
    match length {
        CharacterLength::IntegerLength { length, .. } => length_in_range(*length, name),
        CharacterLength::Max => Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at or near \"max\"")),
    }
}

fn length_in_range(length: u64, name: &str) -> Result<u32, SqlError> {
    match length {
        0 => Err(invalid(format!("length for type {name} must be at least 1"))),
        1..=10_485_760 => Ok(length as u32),
        _ => Err(invalid(format!("length for type {name} cannot exceed 10485760"))),
    }
}

/// Six digits of a second are kept; fewer would need rounding at each write.
fn microseconds(precision: Option<u64>, name: &str) -> Result<(), SqlError> {
    match precision {
        None | Some(6..) => Ok(()),
        Some(digits) => {
            Err(unsupported(&format!("{name}({digits})"), &format!("Use {name}, which keeps microseconds.")))
        }
    }
}
