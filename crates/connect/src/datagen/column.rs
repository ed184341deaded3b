//! The rule of one column, and its values for a range of rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use millpond_functions::text::parse_column;
use millpond_types::hash::mix;
use millpond_types::sql_type::UTC;
use millpond_types::{SqlError, SqlState, SqlType};

use crate::options::{Known, Options};
use crate::sample::{Letters, Stream};

#[rustfmt::skip]
pub(super) const RULES: &[Known] = &[
    Known { name: "kind", aliases: &[], help: "random or sequence" },
    Known { name: "start", aliases: &[], help: "first value of a sequence" },
    Known { name: "end", aliases: &[], help: "last value of a sequence" },
    Known { name: "step", aliases: &[], help: "distance between values of a sequence" },
    Known { name: "min", aliases: &[], help: "least random value" },
    Known { name: "max", aliases: &[], help: "largest random value" },
    Known { name: "length", aliases: &[], help: "of random text" },
    Known { name: "null_rate", aliases: &["null-rate"], help: "share of NULLs" },
    Known { name: "seed", aliases: &[], help: "of this column" },
];

const DAY_MICROS: i64 = 86_400_000_000;
/// 2020-01-01 and 2029-12-31 as days since 1970.
const DAYS: (i64, i64) = (18_262, 21_914);

/// What the columns of one source share.
pub(super) struct Context {
    pub seed: u64,
    pub rate: Option<f64>,
    /// What `now` means.
    pub start_micros: i64,
}

/// A column and how it is made.
pub(super) struct Generated {
    ty: SqlType,
    rule: Rule,
    seed: u64,
    null_rate: f64,
}

enum Rule {
    /// Whole numbers, also the scaled ones of numeric and the microseconds and days of times: both ends included.
    Integer {
        min: i64,
        max: i64,
    },
    IntegerSequence {
        start: i64,
        step: i64,
        rows: u64,
    },
    Float {
        min: f64,
        max: f64,
    },
    FloatSequence {
        start: f64,
        step: f64,
        rows: Option<u64>,
    },
    Boolean,
    Letters {
        length: usize,
        letters: Arc<Letters>,
    },
    Bytes {
        length: usize,
    },
}

impl Generated {
    pub fn new(field: &Field, index: usize, options: &Options, context: &Context) -> Result<Self, SqlError> {
        let ty = SqlType::of(field)?;
        let null_rate = options.number("null_rate", 0.0, 1.0)?.unwrap_or(0.0);
        if null_rate > 0.0 && !field.is_nullable() {
            return Err(options.refuse("null_rate", "contradicts NOT NULL"));
        }
        let own = options.integer("seed", i64::MIN, i64::MAX)?.map_or(context.seed, |seed| seed as u64);
        let seed = mix(own ^ mix(index as u64 + 1));
        let timed = matches!(ty, SqlType::Timestamp | SqlType::Timestamptz);
        let kind = options.choice("kind", &["random", "sequence"])?;
        let is_sequence =
            kind.map_or(timed && !options.is_given("min") && !options.is_given("max"), |kind| kind == 1);
        let misplaced: &[&str] =
            if is_sequence { &["min", "max", "length", "seed"] } else { &["start", "end", "step"] };
        if let Some(name) = misplaced.iter().find(|name| options.is_given(name)) {
            let why =
                if is_sequence { "does not go with a sequence" } else { "goes with kind = 'sequence' only" };
            return Err(options.refuse(name, why));
        }
        let rule = if is_sequence { sequence(&ty, options, context)? } else { random(&ty, options, seed)? };
        Ok(Self { ty, rule, seed, null_rate })
    }

    /// How many rows there are before a sequence ends.
    pub fn rows(&self) -> Option<u64> {
        match self.rule {
            // An end by overflow alone is no bound to speak of.
            Rule::IntegerSequence { rows, .. } if rows < i64::MAX as u64 => Some(rows),
            Rule::FloatSequence { rows, .. } => rows,
            _ => None,
        }
    }

    pub fn row_bytes(&self) -> usize {
        match &self.rule {
            Rule::Letters { length, .. } | Rule::Bytes { length } => length + 4,
            _ => 32,
        }
    }

    /// The values of the given rows.
    pub fn make(&self, rows: Range<u64>) -> ArrayRef {
        let nulls = (self.null_rate > 0.0).then(|| {
            // The NULLs have a stream of their own, so that their rate does not change the other values.
            let is_valid = |row| Stream::of(!self.seed, row).unit() >= self.null_rate;
            NullBuffer::from_iter(rows.clone().map(is_valid))
        });
        let seed = self.seed;
        match &self.rule {
            Rule::Integer { min, max } => {
                let span = (max.wrapping_sub(*min) as u64).wrapping_add(1);
                let value = |row| {
                    let mut stream = Stream::of(seed, row);
                    let above = if span == 0 { stream.next() } else { stream.below(span) };
                    min.wrapping_add(above as i64)
                };
                self.integers(rows.map(value), nulls)
            }
            Rule::IntegerSequence { start, step, .. } => {
                let value = |row: u64| start.wrapping_add((row as i64).wrapping_mul(*step));
                self.integers(rows.map(value), nulls)
            }
            Rule::Float { min, max } => {
                self.floats(rows.map(|r| min + (max - min) * Stream::of(seed, r).unit()), nulls)
            }
            Rule::FloatSequence { start, step, .. } => {
                self.floats(rows.map(|r| start + r as f64 * step), nulls)
            }
            Rule::Boolean => {
                let values = rows.map(|row| Stream::of(seed, row).next() >> 63 == 1).collect();
                Arc::new(BooleanArray::new(values, nulls))
            }
            Rule::Letters { length, letters } => {
                let mut builder = StringBuilder::new();
                let mut text = Vec::with_capacity(*length);
                for (i, row) in rows.enumerate() {
                    text.clear();
                    letters.append(&mut text, Stream::of(seed, row).next(), *length);
                    let text = str::from_utf8(&text).expect("letters are ASCII");
                    builder.append_option(is_valid(&nulls, i).then_some(text));
                }
                Arc::new(builder.finish())
            }
            Rule::Bytes { length } => {
                let row_bytes = |row| {
                    let mut stream = Stream::of(seed, row);
                    let words = (0..length.div_ceil(8)).map(|_| stream.next().to_le_bytes());
                    let mut bytes: Vec<u8> = words.collect::<Vec<_>>().concat();
                    bytes.truncate(*length);
                    bytes
                };
                let valid = rows.enumerate().map(|(i, row)| is_valid(&nulls, i).then(|| row_bytes(row)));
                match self.ty {
                    SqlType::Uuid => {
                        let mut builder = FixedSizeBinaryBuilder::new(16);
                        for value in valid {
                            match value {
                                Some(mut bytes) => {
                                    // RFC 9562: version 4, variant 10.
                                    bytes[6] = (bytes[6] & 0x0f) | 0x40;
                                    bytes[8] = (bytes[8] & 0x3f) | 0x80;
                                    builder.append_value(&bytes).expect("a uuid has 16 bytes");
                                }
                                None => builder.append_null(),
                            }
                        }
                        Arc::new(builder.finish())
                    }
                    _ => Arc::new(valid.collect::<BinaryArray>()),
                }
            }
        }
    }

    fn integers(&self, values: impl Iterator<Item = i64>, nulls: Option<NullBuffer>) -> ArrayRef {
        match &self.ty {
            SqlType::Int2 => Arc::new(primitive::<Int16Type>(values.map(|v| v as i16), nulls)),
            SqlType::Int4 => Arc::new(primitive::<Int32Type>(values.map(|v| v as i32), nulls)),
            SqlType::Int8 => Arc::new(primitive::<Int64Type>(values, nulls)),
            SqlType::Date => Arc::new(primitive::<Date32Type>(values.map(|v| v as i32), nulls)),
            SqlType::Time => Arc::new(primitive::<Time64MicrosecondType>(values, nulls)),
            SqlType::Timestamp => Arc::new(primitive::<TimestampMicrosecondType>(values, nulls)),
            SqlType::Timestamptz => {
                Arc::new(primitive::<TimestampMicrosecondType>(values, nulls).with_timezone(UTC))
            }
            SqlType::Numeric(..) => match self.ty.arrow() {
                data_type @ DataType::Decimal128(..) => {
                    let array = primitive::<Decimal128Type>(values.map(i128::from), nulls);
                    Arc::new(array.with_data_type(data_type))
                }
                data_type => {
                    let array = primitive::<Decimal256Type>(values.map(|v| v.into()), nulls);
                    Arc::new(array.with_data_type(data_type))
                }
            },
            _ => {
                let mut builder = StringBuilder::new();
                for (i, value) in values.enumerate() {
                    builder.append_option(is_valid(&nulls, i).then(|| value.to_string()));
                }
                Arc::new(builder.finish())
            }
        }
    }

    fn floats(&self, values: impl Iterator<Item = f64>, nulls: Option<NullBuffer>) -> ArrayRef {
        match self.ty {
            SqlType::Float4 => Arc::new(primitive::<Float32Type>(values.map(|v| v as f32), nulls)),
            _ => Arc::new(primitive::<Float64Type>(values, nulls)),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: impl Iterator<Item = T::Native>,
    nulls: Option<NullBuffer>,
) -> PrimitiveArray<T> {
    PrimitiveArray::new(values.collect(), nulls)
}

fn is_valid(nulls: &Option<NullBuffer>, i: usize) -> bool {
    nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i))
}

fn random(ty: &SqlType, options: &Options, seed: u64) -> Result<Rule, SqlError> {
    let has_range = options.is_given("min") || options.is_given("max");
    let has_length = options.is_given("length");
    let rule = match ty {
        SqlType::Boolean => Rule::Boolean,
        SqlType::Float4 | SqlType::Float8 => {
            let min = options.number("min", f64::MIN, f64::MAX)?.unwrap_or(0.0);
            let max = options.number("max", f64::MIN, f64::MAX)?.unwrap_or(32_767.0_f64.max(min));
            check_range(min <= max, options)?;
            Rule::Float { min, max }
        }
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Bytea => {
            let most = match ty {
                SqlType::Varchar(Some(n)) | SqlType::Char(n) => i64::from(*n).min(1 << 20),
                _ => 1 << 20,
            };
            let default = if matches!(ty, SqlType::Char(_)) { most } else { most.min(10) };
            let length = options.integer("length", 0, most)?.unwrap_or(default) as usize;
            // char(n) is blank padded, but blanks are not letters.
            if matches!(ty, SqlType::Char(_)) && length as i64 != most {
                return Err(options.refuse("length", "must be the length of the character type"));
            }
            match ty {
                SqlType::Bytea => Rule::Bytes { length },
                _ => Rule::Letters { length, letters: Arc::new(Letters::new(seed)) },
            }
        }
        SqlType::Uuid => Rule::Bytes { length: 16 },
        _ => {
            let (least, most) = default_range(ty)?;
            let given_min = integer(options, "min", ty)?;
            let given_max = integer(options, "max", ty)?;
            let min = given_min.unwrap_or(given_max.map_or(least, |max| least.min(max)));
            let max = given_max.unwrap_or(most.max(min));
            check_range(min <= max, options)?;
            Rule::Integer { min, max }
        }
    };
    let ranged = matches!(rule, Rule::Integer { .. } | Rule::Float { .. });
    if has_range && !ranged {
        let name = if options.is_given("min") { "min" } else { "max" };
        return Err(options.refuse(name, &format!("does not go with the type {ty}")));
    }
    if has_length && (!matches!(rule, Rule::Letters { .. } | Rule::Bytes { .. }) || *ty == SqlType::Uuid) {
        return Err(options.refuse("length", &format!("does not go with the type {ty}")));
    }
    Ok(rule)
}

fn check_range(is_range: bool, options: &Options) -> Result<(), SqlError> {
    if is_range { Ok(()) } else { Err(options.refuse("max", "is below the least value")) }
}

/// What a random column ranges over if nothing else is said.
fn default_range(ty: &SqlType) -> Result<(i64, i64), SqlError> {
    Ok(match ty {
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => (0, 32_767),
        SqlType::Numeric(p, s) => {
            let unit = 10i64.checked_pow(u32::from(s.unsigned_abs()));
            let digits = u32::from(*p) - u32::from(s.unsigned_abs());
            let whole = 10i64.checked_pow(digits).map_or(32_767, |n| (n - 1).min(32_767));
            match unit.and_then(|unit| whole.checked_mul(unit)) {
                Some(most) => (0, most),
                None => return Err(too_wide(ty)),
            }
        }
        SqlType::Date => DAYS,
        SqlType::Time => (0, DAY_MICROS - 1),
        SqlType::Timestamp | SqlType::Timestamptz => (DAYS.0 * DAY_MICROS, (DAYS.1 + 1) * DAY_MICROS - 1),
        other => return Err(no_rule(other)),
    })
}

fn no_rule(ty: &SqlType) -> SqlError {
    SqlError::unsupported(format!("connector \"datagen\" cannot make values of the type {ty}"))
        .hint("Declare a column of a simpler type, and cast it in a view or a generated column.")
}

fn too_wide(ty: &SqlType) -> SqlError {
    SqlError::unsupported(format!("connector \"datagen\" makes numbers of at most 18 digits, not {ty}"))
        .hint("Use a smaller scale, or cast the column in a view.")
}

/// An option that is a value of the column's type, as the number inside it.
fn integer(options: &Options, name: &str, ty: &SqlType) -> Result<Option<i64>, SqlError> {
    let array = options
        .map(name, |text| parse_column([Some(text)], ty).ok())
        .map_err(|e| e.hint(format!("Give a value of the type {ty}.")))?;
    let Some(array) = array else { return Ok(None) };
    let value = match ty {
        SqlType::Int2 => i64::from(array.as_primitive::<Int16Type>().value(0)),
        SqlType::Int4 => i64::from(array.as_primitive::<Int32Type>().value(0)),
        SqlType::Int8 => array.as_primitive::<Int64Type>().value(0),
        SqlType::Date => i64::from(array.as_primitive::<Date32Type>().value(0)),
        SqlType::Time => array.as_primitive::<Time64MicrosecondType>().value(0),
        SqlType::Timestamp | SqlType::Timestamptz => {
            array.as_primitive::<TimestampMicrosecondType>().value(0)
        }
        SqlType::Numeric(p, _) if *p <= 38 => {
            i64::try_from(array.as_primitive::<Decimal128Type>().value(0)).map_err(|_| too_wide(ty))?
        }
        SqlType::Numeric(..) => array
            .as_primitive::<Decimal256Type>()
            .value(0)
            .to_i128()
            .and_then(|v| v.try_into().ok())
            .ok_or_else(|| too_wide(ty))?,
        other => return Err(no_rule(other)),
    };
    Ok(Some(value))
}

fn sequence(ty: &SqlType, options: &Options, context: &Context) -> Result<Rule, SqlError> {
    if matches!(ty, SqlType::Float4 | SqlType::Float8) {
        let start = options.number("start", f64::MIN, f64::MAX)?.unwrap_or(0.0);
        let step = options.number("step", f64::MIN, f64::MAX)?.unwrap_or(1.0);
        let end = options.number("end", f64::MIN, f64::MAX)?;
        check_step(step != 0.0, options)?;
        let rows = end.map(|end| ((end - start) / step + 1.0).floor().max(0.0) as u64);
        return Ok(Rule::FloatSequence { start, step, rows });
    }
    let number = match ty {
        // The text of a number.
        SqlType::Text | SqlType::Varchar(_) => &SqlType::Int8,
        other => other,
    };
    let timed = matches!(ty, SqlType::Timestamp | SqlType::Timestamptz);
    let (least, most) = bounds(ty)?;
    let now = timed && options.text("start").is_some_and(|text| text.trim().eq_ignore_ascii_case("now"));
    let start = if now { Some(context.start_micros) } else { integer(options, "start", number)? };
    let start = start.unwrap_or(match ty {
        SqlType::Date => DAYS.0,
        _ if timed => DAYS.0 * DAY_MICROS,
        _ => 0,
    });
    let step = match ty {
        SqlType::Timestamp | SqlType::Timestamptz | SqlType::Time => {
            let default = context.rate.map_or(1_000, |rate| (1e6 / rate).clamp(1.0, 1e15) as i64);
            let given =
                options.duration("step")?.map(|step| i64::try_from(step.as_micros()).unwrap_or(i64::MAX));
            given.unwrap_or(default)
        }
        SqlType::Numeric(..) => match integer(options, "step", number)? {
            Some(step) => step,
            None => 10i64.checked_pow(scale(ty)).ok_or_else(|| too_wide(ty))?,
        },
        SqlType::Date => options.integer("step", i64::from(i32::MIN), i64::from(i32::MAX))?.unwrap_or(1),
        _ => integer(options, "step", number)?.unwrap_or(1),
    };
    check_step(step != 0, options)?;
    let end = integer(options, "end", number)?.unwrap_or(if step > 0 { most } else { least });
    let distance = (i128::from(end) - i128::from(start)) * i128::from(step.signum());
    let rows = if distance < 0 { 0 } else { distance / i128::from(step).abs() + 1 };
    Ok(Rule::IntegerSequence { start, step, rows: u64::try_from(rows).unwrap_or(u64::MAX) })
}

fn scale(ty: &SqlType) -> u32 {
    if let SqlType::Numeric(_, s) = ty { u32::from(s.unsigned_abs()) } else { 0 }
}

fn check_step(moves: bool, options: &Options) -> Result<(), SqlError> {
    if moves { Ok(()) } else { Err(options.refuse("step", "must not be 0")) }
}

/// The least and largest value of a type that has sequences.
fn bounds(ty: &SqlType) -> Result<(i64, i64), SqlError> {
    Ok(match ty {
        SqlType::Int2 => (i16::MIN.into(), i16::MAX.into()),
        SqlType::Int4 => (i32::MIN.into(), i32::MAX.into()),
        SqlType::Int8 | SqlType::Text | SqlType::Varchar(None) => (i64::MIN, i64::MAX),
        SqlType::Varchar(Some(n)) => {
            let most = 10i64.checked_pow((*n).min(19)).map_or(i64::MAX, |n| n - 1);
            (0, most)
        }
        SqlType::Numeric(p, _) => {
            let most = 10i64.checked_pow((*p).into()).map_or(i64::MAX, |n| n - 1);
            (-most, most)
        }
        // PostgreSQL's timestamps end with the year 294276.
        SqlType::Timestamp | SqlType::Timestamptz => (-210_866_803_200_000_000, 9_223_371_331_199_999_999),
        SqlType::Date => (-2_440_588, 106_741_034),
        SqlType::Time => (0, DAY_MICROS - 1),
        other => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("connector \"datagen\" has no sequence of the type {other}"),
            )
            .hint("Leave out kind, or write kind = 'random'."));
        }
    })
}
