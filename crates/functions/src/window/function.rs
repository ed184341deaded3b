//! The bounds of windows as scalar functions.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Cumulate, Hop, Tumble};
use crate::kernel::Side;
use crate::scalar::{Function, Kind};

type Micros = TimestampMicrosecondType;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("tumble_start", Kind::Immutable, window_arguments(2), same_as_first, tumble_start),
        Function::new("tumble_end", Kind::Immutable, window_arguments(2), same_as_first, tumble_end),
        Function::new("hop_starts", Kind::Immutable, window_arguments(3), list_of_first, hop_starts),
        Function::new("hop_end", Kind::Immutable, window_arguments(3), same_as_first, hop_end),
        Function::new("cumulate_ends", Kind::Immutable, window_arguments(3), list_of_first, cumulate_ends),
        Function::new("cumulate_start", Kind::Immutable, window_arguments(3), same_as_first, cumulate_start),
    ]
}

/// A time, then that many arguments with intervals of which the last (an offset) may be missing.
fn window_arguments(most: usize) -> impl Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync + 'static {
    move |types| {
        let (time, spans) = types.split_first()?;
        let time = match time {
            SqlType::Timestamptz => SqlType::Timestamptz,
            SqlType::Timestamp | SqlType::Date | SqlType::Unknown => SqlType::Timestamp,
            _ => return None,
        };
        let intervals = spans.iter().all(|ty| matches!(ty, SqlType::Interval | SqlType::Unknown));
        let fits = intervals && (spans.len() == most || spans.len() + 1 == most);
        fits.then(|| std::iter::once(time).chain(vec![SqlType::Interval; spans.len()]).collect())
    }
}

fn same_as_first(types: &[SqlType]) -> SqlType {
    types[0].clone()
}

fn list_of_first(types: &[SqlType]) -> SqlType {
    SqlType::Array(Box::new(types[0].clone()))
}

fn interval(sides: &[Side], at: usize) -> Result<Option<IntervalMonthDayNano>, SqlError> {
    let Some(side) = sides.get(at) else { return Ok(None) };
    if !side.constant || side.array.is_null(0) {
        let message = "sizes, slides and offsets of windows must be constant intervals";
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    Ok(Some(side.array.as_primitive::<IntervalMonthDayNanoType>().value(0)))
}

fn needed(sides: &[Side], at: usize) -> Result<IntervalMonthDayNano, SqlError> {
    interval(sides, at)?.ok_or_else(|| SqlError::internal("a window function lacks an argument"))
}

fn tumble(sides: &[Side]) -> Result<Tumble, SqlError> {
    Tumble::new(needed(sides, 1)?, interval(sides, 2)?)
}

fn hop(sides: &[Side]) -> Result<Hop, SqlError> {
    Hop::new(needed(sides, 1)?, needed(sides, 2)?, interval(sides, 3)?)
}

fn zone(side: &Side) -> Option<Arc<str>> {
    match side.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

fn tumble_start(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let times = sides[0].array.as_primitive::<Micros>();
    let starts = tumble(sides)?.starts(times.values(), times.nulls())?;
    Ok(Arc::new(
        PrimitiveArray::<Micros>::new(starts.into(), times.nulls().cloned())
            .with_timezone_opt(zone(&sides[0])),
    ))
}

/// The end of the window that starts at the argument.
fn tumble_end(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let window = tumble(sides)?;
    let starts = sides[0].array.as_primitive::<Micros>();
    let ends: TimestampMicrosecondArray = starts.try_unary(|start| window.end(start))?;
    Ok(Arc::new(ends.with_timezone_opt(zone(&sides[0]))))
}

/// The end of the window that starts at the argument.
fn hop_end(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let window = hop(sides)?;
    let starts = sides[0].array.as_primitive::<Micros>();
    let ends: TimestampMicrosecondArray = starts.try_unary(|start| window.end(start))?;
    Ok(Arc::new(ends.with_timezone_opt(zone(&sides[0]))))
}

/// NULL is in no window: an empty list, so that its row goes.
fn hop_starts(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let window = hop(sides)?;
    let room = window.slices_per_window().unwrap_or(1).min(16) as usize;
    bounds(&sides[0], room, result, |time, starts| window.starts(time, starts))
}

fn cumulate(sides: &[Side]) -> Result<Cumulate, SqlError> {
    Cumulate::new(needed(sides, 1)?, needed(sides, 2)?, interval(sides, 3)?)
}

/// As [`hop_starts`].
fn cumulate_ends(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let window = cumulate(sides)?;
    bounds(&sides[0], 2, result, |time, ends| window.ends(time, ends).map(|_| ()))
}

/// The start of the window that ends at the argument.
fn cumulate_start(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let window = cumulate(sides)?;
    let ends = sides[0].array.as_primitive::<Micros>();
    let starts: TimestampMicrosecondArray = ends.try_unary(|end| window.start(end))?;
    Ok(Arc::new(starts.with_timezone_opt(zone(&sides[0]))))
}

/// A list for each time, of what `push` appends; `room` is how long it is, more or less.
fn bounds(
    times: &Side,
    room: usize,
    result: &SqlType,
    push: impl Fn(i64, &mut Vec<i64>) -> Result<(), SqlError>,
) -> Result<ArrayRef, SqlError> {
    let zone = zone(times);
    let times = times.array.as_primitive::<Micros>();
    let mut found = Vec::with_capacity(times.len() * room);
    let mut offsets = Vec::with_capacity(times.len() + 1);
    offsets.push(0);
    for time in times {
        if let Some(time) = time {
            push(time, &mut found)?;
        }
        offsets.push(i32::try_from(found.len()).map_err(|_| crate::text::too_long())?);
    }
    let values = PrimitiveArray::<Micros>::new(found.into(), None).with_timezone_opt(zone);
    let SqlType::Array(element) = result else {
        return Err(SqlError::internal("the bounds of windows are a list"));
    };
    let field = Arc::new(element.field("item", true));
    Ok(Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), Arc::new(values), None)))
}
