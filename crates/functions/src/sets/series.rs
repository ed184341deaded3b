//! `generate_series(start, stop [, step])` and `range`, which leaves out the end; `generate_subscripts`.
//!
//! A series is told by its ends and its step, a struct `(start, stop, step, zone)`: its rows cost no memory before they are read.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::SetFunction;
use crate::Zone;
use crate::error::from_arrow;
use crate::kernel::Side;

pub(super) fn functions() -> Vec<SetFunction> {
    vec![
        SetFunction::new(
            "generate_series",
            |types| arguments(types, true),
            |types, _| series(types),
            |s, ty| ends(s, ty, true),
        ),
        SetFunction::new(
            "range",
            |types| arguments(types, false),
            |types, _| series(types),
            |s, ty| ends(s, ty, false),
        ),
        SetFunction::new(
            "generate_subscripts",
            subscript_arguments,
            |_, _| struct_of(&SqlType::Int4, &SqlType::Int4),
            subscripts,
        ),
    ]
}

pub(super) fn is_series(fields: &Fields) -> bool {
    fields.iter().map(|field| field.name().as_str()).eq(["start", "stop", "step", "zone"])
}

fn struct_of(ty: &SqlType, step: &SqlType) -> DataType {
    DataType::Struct(Fields::from(vec![
        ty.field("start", true),
        ty.field("stop", true),
        step.field("step", true),
        SqlType::Text.field("zone", true),
    ]))
}

/// The arguments as PostgreSQL's overloads take them; a time zone may come last, if the planner says so.
fn arguments(types: &[SqlType], postgres: bool) -> Option<Vec<SqlType>> {
    let (types, zone) = match types {
        [start, stop, step, zone] => (vec![start.clone(), stop.clone(), step.clone()], Some(zone)),
        types => (types.to_vec(), None),
    };
    let shared = shared_type(&types, postgres)?;
    let mut wanted = vec![shared.clone(); types.len()];
    if is_time(&shared) {
        wanted[2] = SqlType::Interval;
    }
    wanted.extend(zone.map(|_| SqlType::Text));
    Some(wanted)
}

fn is_time(ty: &SqlType) -> bool {
    matches!(ty, SqlType::Timestamp | SqlType::Timestamptz)
}

fn series(types: &[SqlType]) -> DataType {
    let shared = shared_type(&types[..types.len().min(3)], true).unwrap_or(SqlType::Int4);
    let step = if is_time(&shared) { SqlType::Interval } else { shared.clone() };
    struct_of(&shared, &step)
}

/// What PostgreSQL's overloads make of the arguments.
fn shared_type(types: &[SqlType], postgres: bool) -> Option<SqlType> {
    use SqlType::*;
    let (ends, step) = match types {
        [start, stop] => ([start, stop], None),
        [start, stop, step] => ([start, stop], Some(step)),
        _ => return None,
    };
    // Untyped literals come as text.
    let untyped = |ty: &SqlType| matches!(ty, Unknown | Text);
    let all = ends.into_iter().chain(step);
    if ends.iter().any(|ty| matches!(ty, Date | Timestamp | Timestamptz)) {
        step?;
        let spans = step.is_some_and(|step| *step == Interval || untyped(step));
        let times = ends.iter().all(|ty| matches!(ty, Date | Timestamp | Timestamptz) || untyped(ty));
        // PostgreSQL prefers timestamptz for dates; `range` is not one of its functions.
        let zoned = ends.iter().any(|ty| **ty == Timestamptz || (**ty == Date && postgres));
        return (spans && times).then_some(if zoned { Timestamptz } else { Timestamp });
    }
    let mut shared = Int4;
    for ty in all {
        shared = match (ty, &shared) {
            (ty, _) if untyped(ty) => shared,
            (Int2 | Int4, _) => shared,
            (Int8, Int4) => Int8,
            (Int8, _) => shared,
            (Numeric(_, s), Numeric(_, t)) => Numeric(38, *s.max(t)),
            (Numeric(_, s), _) => Numeric(38, *s),
            _ => return None,
        };
    }
    Some(shared)
}

fn zero() -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

/// The ends and the step of each row; NULL where an argument is.
fn ends(sides: &[Side], result: &DataType, inclusive: bool) -> Result<ArrayRef, SqlError> {
    let DataType::Struct(fields) = result else {
        return Err(SqlError::internal("a series is told by a struct"));
    };
    let rows = sides[0].array.len();
    let (start, stop) = (Arc::clone(&sides[0].array), Arc::clone(&sides[1].array));
    let step = match sides.get(2) {
        Some(step) => Arc::clone(&step.array),
        None => one(fields[2].data_type(), rows)?,
    };
    let zone = match sides.get(3) {
        Some(zone) => Arc::clone(&zone.array),
        None => new_null_array(&DataType::Utf8, rows),
    };
    let nulls = [&start, &stop, &step]
        .into_iter()
        .fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.nulls()));
    let told = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let steps = Numbers::of(&step)?;
    if (0..rows).any(|row| told(row) && steps.is_zero(row)) {
        return Err(zero());
    }
    let stop = if inclusive { stop } else { before(&stop, &step, &nulls)? };
    let nulls = NullBuffer::union(nulls.as_ref(), stop.nulls());
    let array = StructArray::try_new(fields.clone(), vec![start, stop, step, zone], nulls);
    Ok(Arc::new(array.map_err(from_arrow)?))
}

fn one(ty: &DataType, rows: usize) -> Result<ArrayRef, SqlError> {
    Ok(match ty {
        DataType::Int32 => Arc::new(Int32Array::from(vec![1; rows])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![1; rows])),
        DataType::Decimal128(_, scale) => {
            let one = 10_i128.pow(u32::from(scale.unsigned_abs()));
            Arc::new(Decimal128Array::from(vec![one; rows]).with_data_type(ty.clone()))
        }
        _ => return Err(SqlError::internal("a series of times has a step")),
    })
}

/// The last unit before each end, seen from the start.
fn before(stop: &ArrayRef, step: &ArrayRef, nulls: &Option<NullBuffer>) -> Result<ArrayRef, SqlError> {
    let (stops, steps) = (Numbers::of(stop)?, Numbers::of(step)?);
    let values = (0..stop.len()).map(|row| {
        let told = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        // Nothing lies before the first number of a type.
        let unit = if steps.is_forward(row) { 1 } else { -1 };
        stops.value(row).checked_sub(unit).filter(|value| told && stops.holds(*value))
    });
    stops.like(values.collect())
}

/// Values of one of the types that are counted.
pub(super) enum Numbers {
    Int4(Int32Array),
    Int8(Int64Array),
    Decimal(Decimal128Array),
    Times(Int64Array, DataType),
    Spans(IntervalMonthDayNanoArray),
}

impl Numbers {
    pub(super) fn of(array: &ArrayRef) -> Result<Self, SqlError> {
        Ok(match array.data_type() {
            DataType::Int32 => Self::Int4(array.as_primitive().clone()),
            DataType::Int64 => Self::Int8(array.as_primitive().clone()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let times = array.as_primitive::<TimestampMicrosecondType>();
                Self::Times(times.reinterpret_cast(), array.data_type().clone())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::Spans(array.as_primitive().clone()),
            other => return Err(SqlError::internal(format!("{other} cannot be counted"))),
        })
    }

    pub(super) fn value(&self, row: usize) -> i128 {
        match self {
            Self::Int4(array) => array.value(row).into(),
            Self::Int8(array) | Self::Times(array, _) => array.value(row).into(),
            Self::Decimal(array) => array.value(row),
            Self::Spans(array) => {
                let span = array.value(row);
                let days = i128::from(span.months) * 30 + i128::from(span.days);
                days * 86_400_000_000_000 + i128::from(span.nanoseconds)
            }
        }
    }

    pub(super) fn span(&self, row: usize) -> Option<IntervalMonthDayNano> {
        match self {
            Self::Spans(array) => Some(array.value(row)),
            _ => None,
        }
    }

    fn is_zero(&self, row: usize) -> bool {
        match self {
            Self::Spans(array) => array.value(row) == IntervalMonthDayNano::ZERO,
            other => other.value(row) == 0,
        }
    }

    pub(super) fn is_forward(&self, row: usize) -> bool {
        self.value(row) > 0
    }

    fn holds(&self, value: i128) -> bool {
        match self {
            Self::Int4(_) => i32::try_from(value).is_ok(),
            Self::Int8(_) | Self::Times(..) => i64::try_from(value).is_ok(),
            Self::Decimal(_) | Self::Spans(_) => true,
        }
    }

    /// Values of the same type; they lie between two that fit it.
    pub(super) fn like(&self, values: Vec<Option<i128>>) -> Result<ArrayRef, SqlError> {
        let narrow = |value: Option<i128>| value.map(|v| v.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        Ok(match self {
            Self::Int4(_) => {
                let fit = |v: i128| v.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                Arc::new(values.into_iter().map(|v| v.map(fit)).collect::<Int32Array>())
            }
            Self::Int8(_) => Arc::new(values.into_iter().map(narrow).collect::<Int64Array>()),
            Self::Decimal(array) => Arc::new(
                values.into_iter().collect::<Decimal128Array>().with_data_type(array.data_type().clone()),
            ),
            Self::Times(_, ty) => {
                let times: TimestampMicrosecondArray = values.into_iter().map(narrow).collect();
                Arc::new(times.with_data_type(ty.clone()))
            }
            Self::Spans(_) => return Err(SqlError::internal("intervals are not counted")),
        })
    }
}

/// The zone that a series of times is counted in.
pub(super) fn zone_at(zones: &StringArray, row: usize) -> Zone {
    let named = zones.is_valid(row).then(|| Zone::parse(zones.value(row))).flatten();
    named.unwrap_or(Zone::UTC)
}

/// `(array, dimension [, reverse])`
fn subscript_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let (array, rest) = types.split_first()?;
    let whole = |ty: &SqlType| ty.is_integer() || matches!(ty, SqlType::Text | SqlType::Unknown);
    let fits = matches!(array, SqlType::Array(_))
        && match rest {
            [dimension] => whole(dimension),
            [dimension, reverse] => {
                whole(dimension) && matches!(reverse, SqlType::Boolean | SqlType::Text | SqlType::Unknown)
            }
            _ => false,
        };
    fits.then(|| [array.clone(), SqlType::Int4, SqlType::Boolean][..types.len()].to_vec())
}

fn subscripts(sides: &[Side], result: &DataType) -> Result<ArrayRef, SqlError> {
    let DataType::Struct(fields) = result else {
        return Err(SqlError::internal("a series is told by a struct"));
    };
    let lists = sides[0].array.as_list::<i32>();
    let dimensions = sides[1].array.as_primitive::<Int32Type>();
    let reverse = sides.get(2).map(|side| side.array.as_boolean());
    let rows = lists.len();
    let (mut starts, mut stops, mut steps) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows {
        let told = lists.is_valid(row) && dimensions.is_valid(row) && reverse.is_none_or(|r| r.is_valid(row));
        let length = match told {
            true => length(&lists.value(row), dimensions.value(row)),
            false => None,
        };
        let backward = reverse.is_some_and(|r| told && r.value(row));
        starts.push(length.map(|n| if backward { n } else { 1 }));
        stops.push(length.map(|n| if backward { 1 } else { n }));
        steps.push(length.map(|_| if backward { -1 } else { 1 }));
    }
    let starts = Int32Array::from(starts);
    let nulls = starts.nulls().cloned();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(starts),
        Arc::new(Int32Array::from(stops)),
        Arc::new(Int32Array::from(steps)),
        new_null_array(&DataType::Utf8, rows),
    ];
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, nulls).map_err(from_arrow)?))
}

/// The length of an array in one of its dimensions, from 1.
fn length(array: &ArrayRef, dimension: i32) -> Option<i32> {
    let mut array = Arc::clone(array);
    let mut dimension = dimension;
    loop {
        if array.is_empty() || dimension < 1 {
            return None;
        }
        if dimension == 1 {
            return i32::try_from(array.len()).ok();
        }
        let inner = array.as_list_opt::<i32>().filter(|inner| inner.is_valid(0))?.value(0);
        (array, dimension) = (inner, dimension - 1);
    }
}
