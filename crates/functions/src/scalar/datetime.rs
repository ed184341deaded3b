//! Functions of dates and times.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use millpond_types::{SqlError, SqlState, SqlType};

use super::field::{Field, Moment};
use super::{
    Function, Kind, Texts, Values, amount, assignable, exactly, rows, template, template_read, texts,
};
use crate::calendar::{self, Civil, DAY, civil_from_days, days_from_civil, days_in_month};
use crate::kernel::{Side, try_binary, try_unary};
use crate::operator::temporal::{timestamp_range, zone_of};
use crate::text::datetime::in_range;
use crate::text::interval::Parts;
use crate::text::zone::Zone;

type Micros = TimestampMicrosecondType;
type Span = IntervalMonthDayNanoType;

pub(crate) fn functions() -> Vec<Function> {
    use SqlType::*;
    let new = |name, arguments, returns: SqlType, kernel| {
        Function::new(name, Kind::Immutable, exactly(arguments), move |_| returns.clone(), kernel)
    };
    vec![
        Function::new("date_trunc", Kind::Immutable, trunc_arguments, |t| t[1].clone(), date_trunc),
        Function::new("extract", Kind::Immutable, part_arguments, |_| Numeric(38, 16), extract)
            .returning(extract_type),
        Function::new("date_part", Kind::Immutable, part_arguments, |_| Float8, date_part),
        Function::new("date_bin", Kind::Immutable, bin_arguments, |t| t[1].clone(), date_bin),
        Function::new("age", Kind::Immutable, two_times, |_| Interval, age),
        Function::new("timezone", Kind::Immutable, zone_arguments, zone_result, timezone),
        Function::new("to_char", Kind::Immutable, char_arguments, |_| Text, to_char),
        new("timestamptz_add", &[Timestamptz, Interval, Text], Timestamptz, |s, _| move_in_zone(s, 1)),
        new("timestamptz_subtract", &[Timestamptz, Interval, Text], Timestamptz, |s, _| move_in_zone(s, -1)),
        new("interval_length", &[Interval], Numeric(38, 0), interval_length),
        Function::new("to_timestamp", Kind::Immutable, to_timestamp_arguments, |_| Timestamptz, to_timestamp),
        new("to_date", &[Text, Text], Date, to_date),
        Function::new(
            "to_number",
            Kind::Immutable,
            exactly(&[Text, Text]),
            |_| Numeric(38, amount::SCALE),
            amount::to_number,
        ),
        new("make_date", &[Int4, Int4, Int4], Date, make_date),
        new("make_timestamp", &[Int4, Int4, Int4, Int4, Int4, Float8], Timestamp, make_timestamp),
        new("make_time", &[Int4, Int4, Float8], Time, make_time),
        Function::new(
            "make_timestamptz",
            Kind::Immutable,
            instant_arguments,
            |_| Timestamptz,
            make_timestamptz,
        ),
        new("justify_hours", &[Interval], Interval, |s, _| justify(s, true, false)),
        new("justify_days", &[Interval], Interval, |s, _| justify(s, false, true)),
        new("justify_interval", &[Interval], Interval, |s, _| justify(s, true, true)),
    ]
}

/// A time argument as the type that functions work on: dates count as timestamps.
fn instant(ty: &SqlType) -> Option<SqlType> {
    match ty {
        SqlType::Timestamptz => Some(SqlType::Timestamptz),
        SqlType::Timestamp | SqlType::Date | SqlType::Unknown | SqlType::Text => Some(SqlType::Timestamp),
        _ => None,
    }
}

fn trunc_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [unit, SqlType::Interval] if assignable(unit, &SqlType::Text) => {
            Some(vec![SqlType::Text, SqlType::Interval])
        }
        // PostgreSQL prefers timestamptz for dates and untyped literals.
        [unit, SqlType::Date | SqlType::Unknown | SqlType::Text] if assignable(unit, &SqlType::Text) => {
            Some(vec![SqlType::Text, SqlType::Timestamptz])
        }
        [unit, time] if assignable(unit, &SqlType::Text) => Some(vec![SqlType::Text, instant(time)?]),
        [unit, time, zone] if assignable(unit, &SqlType::Text) && assignable(zone, &SqlType::Text) => {
            assignable(time, &SqlType::Timestamptz)
                .then(|| vec![SqlType::Text, SqlType::Timestamptz, SqlType::Text])
        }
        _ => None,
    }
}

fn part_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [unit, value] = types else { return None };
    let value = match value {
        SqlType::Interval | SqlType::Date | SqlType::Time => value.clone(),
        other => instant(other)?,
    };
    assignable(unit, &SqlType::Text).then(|| vec![SqlType::Text, value])
}

fn bin_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [stride, time, origin] = types else { return None };
    if !assignable(stride, &SqlType::Interval) {
        return None;
    }
    let zoned = *time == SqlType::Timestamptz || *origin == SqlType::Timestamptz;
    instant(time).and(instant(origin))?;
    let ty = if zoned { SqlType::Timestamptz } else { SqlType::Timestamp };
    Some(vec![SqlType::Interval, ty.clone(), ty])
}

fn two_times(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [a, b] = types else { return None };
    let ty = if instant(a)? == instant(b)? { instant(a)? } else { SqlType::Timestamptz };
    Some(vec![ty.clone(), ty])
}

fn zone_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [zone, time] = types else { return None };
    assignable(zone, &SqlType::Text).then_some(())?;
    // A date or an untyped literal counts as timestamptz, which PostgreSQL prefers.
    let time = match time {
        SqlType::Timestamp => SqlType::Timestamp,
        other => instant(other).map(|_| SqlType::Timestamptz)?,
    };
    Some(vec![SqlType::Text, time])
}

fn zone_result(types: &[SqlType]) -> SqlType {
    if types[1] == SqlType::Timestamp { SqlType::Timestamptz } else { SqlType::Timestamp }
}

fn char_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [value, format] = types else { return None };
    let value = match value {
        SqlType::Interval | SqlType::Timestamptz => value.clone(),
        SqlType::Date | SqlType::Timestamp => SqlType::Timestamp,
        number if number.is_integer() => number.clone(),
        SqlType::Numeric(..) | SqlType::Float4 | SqlType::Float8 => value.clone(),
        _ => return None,
    };
    assignable(format, &SqlType::Text).then(|| vec![value, SqlType::Text])
}

/// A function of a name (mostly the same for all rows) and a value: the name is looked up when it changes.
struct Cached<'a, T> {
    names: Texts<'a>,
    last: Option<(&'a str, T)>,
}

impl<'a, T: Copy> Cached<'a, T> {
    fn new(side: &'a Side) -> Self {
        Self { names: Texts::of(side), last: None }
    }

    fn get(
        &mut self,
        row: usize,
        parse: impl Fn(&str) -> Result<T, SqlError>,
    ) -> Result<Option<T>, SqlError> {
        let Some(name) = self.names.get(row) else { return Ok(None) };
        match self.last {
            Some((last, value)) if last == name => Ok(Some(value)),
            _ => {
                let value = parse(name)?;
                self.last = Some((name, value));
                Ok(Some(value))
            }
        }
    }
}

fn zone_named(name: &str) -> Result<Zone, SqlError> {
    Zone::parse(name).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
    })
}

fn date_trunc(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let mut fields = Cached::new(&sides[0]);
    if *result == SqlType::Interval {
        let spans = Values::<Span>::of(&sides[1]);
        let mut builder = IntervalMonthDayNanoBuilder::with_capacity(rows(sides));
        for row in 0..rows(sides) {
            match (fields.get(row, |name| Field::parse(name, result))?, spans.get(row)) {
                (Some(field), Some(span)) => builder.append_value(field.truncate_span(span.into())?.arrow()?),
                _ => builder.append_null(),
            }
        }
        return Ok(Arc::new(builder.finish()));
    }
    let times = Values::<Micros>::of(&sides[1]);
    let mut zones = sides.get(2).map(Cached::new);
    let mut builder = TimestampMicrosecondBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let field = fields.get(row, |name| Field::parse(name, result))?;
        let zone = match &mut zones {
            None => Some(Zone::Fixed(0)),
            Some(zones) => zones.get(row, zone_named)?,
        };
        match (field, times.get(row), zone) {
            (Some(field), Some(time), Some(Zone::Fixed(0))) => {
                builder.append_value(field.truncate(time, result)?)
            }
            (Some(field), Some(time), Some(zone)) => {
                let local = zone.to_local(time).ok_or_else(timestamp_range)?;
                let start = field.truncate(local, result)?;
                builder.append_value(zone.to_utc(start).ok_or_else(timestamp_range)?);
            }
            _ => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish().with_timezone_opt(zone_of(result))))
}

/// The scale of extract is that of its field, where the field is a literal.
fn extract_type(_: &[SqlType], literals: &[Option<&ScalarValue>]) -> SqlType {
    match literals.first() {
        Some(Some(ScalarValue::Utf8(Some(name)))) => match Field::parse(name, &SqlType::Timestamp) {
            Ok(Field::Julian) | Err(_) => SqlType::Numeric(38, 16),
            Ok(field) => SqlType::Numeric(20 + field.scale() as u8, field.scale()),
        },
        _ => SqlType::Numeric(38, 16),
    }
}

fn extract(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let SqlType::Numeric(_, scale) = *result else { return Err(SqlError::internal("extract is numeric")) };
    let mut builder = Decimal128Builder::with_capacity(rows(sides));
    parts(sides, |millionths| match millionths {
        Some(value) if scale >= 6 => builder.append_value(value * 10i128.pow(scale as u32 - 6)),
        Some(value) => builder.append_value(value / 10i128.pow(6 - scale as u32)),
        None => builder.append_null(),
    })?;
    Ok(Arc::new(builder.finish().with_data_type(result.arrow())))
}

fn date_part(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let mut builder = Float64Builder::with_capacity(rows(sides));
    parts(sides, |millionths| builder.append_option(millionths.map(|v| v as f64 / 1e6)))?;
    Ok(Arc::new(builder.finish()))
}

/// The field of each value, in millionths.
fn parts(sides: &[Side], mut take: impl FnMut(Option<i128>)) -> Result<(), SqlError> {
    let ty = SqlType::of_arrow(sides[1].data_type())?;
    let moments: Box<dyn Fn(usize) -> Option<Moment>> = match &ty {
        SqlType::Date => {
            let values = Values::<Date32Type>::of(&sides[1]);
            Box::new(move |row| values.get(row).map(Moment::Date))
        }
        SqlType::Time => {
            let values = Values::<Time64MicrosecondType>::of(&sides[1]);
            Box::new(move |row| values.get(row).map(Moment::Time))
        }
        SqlType::Interval => {
            let values = Values::<Span>::of(&sides[1]);
            Box::new(move |row| values.get(row).map(|span| Moment::Span(span.into())))
        }
        _ => {
            let values = Values::<Micros>::of(&sides[1]);
            Box::new(move |row| values.get(row).map(Moment::Instant))
        }
    };
    let mut fields = Cached::new(&sides[0]);
    for row in 0..rows(sides) {
        let field = fields.get(row, |name| Field::parse(name, &ty))?;
        take(match (field, moments(row)) {
            (Some(field), Some(moment)) => Some(field.of(&ty, moment)?),
            _ => None,
        });
    }
    Ok(())
}

fn date_bin(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let strides = Values::<Span>::of(&sides[0]);
    let (times, origins) = (Values::<Micros>::of(&sides[1]), Values::<Micros>::of(&sides[2]));
    let mut builder = TimestampMicrosecondBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        match (strides.get(row), times.get(row), origins.get(row)) {
            (Some(stride), Some(time), Some(origin)) => {
                builder.append_value(bin(stride.into(), time, origin)?)
            }
            _ => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish().with_timezone_opt(zone_of(result))))
}

fn bin(stride: Parts, time: i64, origin: i64) -> Result<i64, SqlError> {
    if stride.months != 0 {
        return Err(SqlError::unsupported(
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let micros = i64::from(stride.days).checked_mul(DAY).and_then(|d| d.checked_add(stride.micros));
    let micros = micros.ok_or_else(crate::text::interval::out_of_range)?;
    if micros <= 0 {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "stride must be greater than zero"));
    }
    let since = time.checked_sub(origin).ok_or_else(timestamp_range)?;
    origin.checked_add(since - since.rem_euclid(micros)).filter(|t| in_range(*t)).ok_or_else(timestamp_range)
}

fn age(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    Ok(Arc::new(try_binary::<Micros, Micros, Span>(&sides[0], &sides[1], |a, b| between(a, b).arrow())?))
}

/// `a - b` in years, months, days and time, as a calendar counts them.
fn between(a: i64, b: i64) -> Parts {
    if a < b {
        let Parts { months, days, micros } = between(b, a);
        return Parts { months: -months, days: -days, micros: -micros };
    }
    let ((days_a, time_a), (days_b, time_b)) = (calendar::split(a), calendar::split(b));
    let (x, y) = (civil_from_days(days_a), civil_from_days(days_b));
    let mut months = (x.year - y.year) * 12 + i64::from(x.month) - i64::from(y.month);
    let mut days = i64::from(x.day) - i64::from(y.day);
    let mut micros = time_a - time_b;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        // Days are borrowed from the month of the earlier time, as PostgreSQL does.
        days += i64::from(days_in_month(y.year, y.month));
        months -= 1;
    }
    Parts { months: months as i32, days: days as i32, micros }
}

fn timezone(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let mut zones = Cached::new(&sides[0]);
    let times = Values::<Micros>::of(&sides[1]);
    let to_utc = *result == SqlType::Timestamptz;
    let mut builder = TimestampMicrosecondBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        match (zones.get(row, zone_named)?, times.get(row)) {
            (Some(zone), Some(time)) => {
                let moved = if to_utc { zone.to_utc(time) } else { zone.to_local(time) };
                builder.append_value(moved.filter(|t| in_range(*t)).ok_or_else(timestamp_range)?);
            }
            _ => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish().with_timezone_opt(zone_of(result))))
}

/// Six numbers, and perhaps a zone.
fn instant_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    use SqlType::*;
    let mut wanted = vec![Int4, Int4, Int4, Int4, Int4, Float8];
    if types.len() == 7 {
        wanted.push(Text);
    }
    let fits =
        types.len() == wanted.len() && types.iter().zip(&wanted).all(|(ty, want)| assignable(ty, want));
    fits.then_some(wanted)
}

fn make_timestamptz(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let local = make_timestamp(&sides[..6], &SqlType::Timestamp)?;
    let local = local.as_primitive::<Micros>();
    let mut zones = sides.get(6).map(Cached::new);
    let mut builder = TimestampMicrosecondBuilder::with_capacity(local.len());
    for row in 0..local.len() {
        let zone = match &mut zones {
            None => Some(Zone::UTC),
            Some(zones) => zones.get(row, zone_named)?,
        };
        match (local.is_valid(row), zone) {
            (true, Some(zone)) => {
                let utc = zone.to_utc(local.value(row)).filter(|t| in_range(*t));
                builder.append_value(utc.ok_or_else(timestamp_range)?);
            }
            _ => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish().with_timezone_opt(zone_of(&SqlType::Timestamptz))))
}

fn make_time(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (hours, minutes) = (Values::<Int32Type>::of(&sides[0]), Values::<Int32Type>::of(&sides[1]));
    let seconds = Values::<Float64Type>::of(&sides[2]);
    let mut builder = Time64MicrosecondBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let (Some(h), Some(m), Some(s)) = (hours.get(row), minutes.get(row), seconds.get(row)) else {
            builder.append_null();
            continue;
        };
        let fields = (0..=24).contains(&h) && (0..60).contains(&m) && (0.0..=60.0).contains(&s);
        let micros =
            || i64::from(h) * calendar::HOUR + i64::from(m) * calendar::MINUTE + (s * 1e6).round() as i64;
        let Some(micros) = fields.then(micros).filter(|micros| *micros <= DAY) else {
            return Err(SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("time field value out of range: {h}:{m:02}:{s:02}"),
            ));
        };
        builder.append_value(micros);
    }
    Ok(Arc::new(builder.finish()))
}

/// Months and days are those of the zone's calendar, hours are hours.
fn move_in_zone(sides: &[Side], sign: i64) -> Result<ArrayRef, SqlError> {
    let (times, spans) = (Values::<Micros>::of(&sides[0]), Values::<Span>::of(&sides[1]));
    let mut zones = Cached::new(&sides[2]);
    let mut builder = TimestampMicrosecondBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let (Some(time), Some(span), Some(zone)) =
            (times.get(row), spans.get(row), zones.get(row, zone_named)?)
        else {
            builder.append_null();
            continue;
        };
        let moved = zone.moved(time, span.into(), sign);
        builder.append_value(moved.ok_or_else(timestamp_range)?);
    }
    Ok(Arc::new(builder.finish().with_timezone_opt(zone_of(&SqlType::Timestamptz))))
}

fn to_char(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    if sides[0].data_type().is_numeric() {
        return amount::to_char(sides);
    }
    let formats = Texts::of(&sides[1]);
    let mut last: Option<(&str, Vec<template::Part>)> = None;
    let span = matches!(sides[0].data_type(), DataType::Interval(_));
    let zoned = matches!(sides[0].data_type(), DataType::Timestamp(_, Some(_)));
    texts(sides, |row, out| {
        let Some(format) = formats.get(row) else { return Ok(false) };
        let value = if span {
            Values::<Span>::of(&sides[0]).get(row).map(|span| template::Shown::of_span(span.into()))
        } else {
            Values::<Micros>::of(&sides[0]).get(row).map(|time| template::Shown::of_instant(time, zoned))
        };
        let Some(value) = value else { return Ok(false) };
        if last.as_ref().is_none_or(|(known, _)| *known != format) {
            last = Some((format, template::parse(format)?));
        }
        let parts = last.as_ref().map_or(&[][..], |(_, parts)| parts);
        template::write(parts, &value, out);
        Ok(true)
    })
}

fn to_timestamp_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [_] => exactly(&[SqlType::Float8])(types),
        _ => exactly(&[SqlType::Text, SqlType::Text])(types),
    }
}

/// Texts read by templates, in microseconds.
fn read_by_template(sides: &[Side]) -> Result<Int64Array, SqlError> {
    let (values, formats) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let mut last: Option<(&str, Vec<template::Part>)> = None;
    let mut read = Int64Builder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let (Some(value), Some(format)) = (values.get(row), formats.get(row)) else {
            read.append_null();
            continue;
        };
        if last.as_ref().is_none_or(|(known, _)| *known != format) {
            last = Some((format, template::parse(format)?));
        }
        let parts = last.as_ref().map_or(&[][..], |(_, parts)| parts);
        read.append_value(template_read::read(parts, value)?);
    }
    Ok(read.finish())
}

fn to_date(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let days = |micros: i64| calendar::split(micros).0 as i32;
    Ok(Arc::new(read_by_template(sides)?.unary::<_, Date32Type>(days)))
}

fn to_timestamp(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    if sides.len() == 2 {
        let times: TimestampMicrosecondArray = read_by_template(sides)?.unary(|micros| micros);
        return Ok(Arc::new(times.with_timezone_opt(zone_of(result))));
    }
    let times = try_unary::<Float64Type, Micros>(&sides[0].array, |seconds| {
        let micros = (seconds * 1e6).round_ties_even();
        if !(micros.abs() < 9.2e18 && in_range(micros as i64)) {
            let message = format!("timestamp out of range: \"{seconds}\"");
            return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message));
        }
        Ok(micros as i64)
    })?;
    Ok(Arc::new(times.with_timezone_opt(zone_of(result))))
}

/// The day, if it exists; negative years are BC.
fn day_of(year: i32, month: i32, day: i32) -> Result<i64, SqlError> {
    let astronomical = if year < 0 { i64::from(year) + 1 } else { year.into() };
    let exists = year != 0
        && (1..=12).contains(&month)
        && day >= 1
        && day <= days_in_month(astronomical, month as u32) as i32
        && (-4713..=5_874_897).contains(&astronomical);
    if !exists {
        let message = format!("date field value out of range: {year:04}-{month:02}-{day:02}");
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message));
    }
    Ok(days_from_civil(astronomical, month as u32, day as u32))
}

fn make_date(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let [y, m, d] = [0, 1, 2].map(|i| Values::<Int32Type>::of(&sides[i]));
    let one = |row| match (y.get(row), m.get(row), d.get(row)) {
        (Some(y), Some(m), Some(d)) => day_of(y, m, d).map(|days| Some(days as i32)),
        _ => Ok(None),
    };
    let dates = (0..rows(sides)).map(one).collect::<Result<Date32Array, SqlError>>()?;
    Ok(Arc::new(dates))
}

fn make_timestamp(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let [y, mo, d, h, mi] = [0, 1, 2, 3, 4].map(|i| Values::<Int32Type>::of(&sides[i]));
    let s = Values::<Float64Type>::of(&sides[5]);
    let one = |row| {
        let (Some(y), Some(mo), Some(d)) = (y.get(row), mo.get(row), d.get(row)) else { return Ok(None) };
        let (Some(h), Some(mi), Some(s)) = (h.get(row), mi.get(row), s.get(row)) else { return Ok(None) };
        if !(0..=24).contains(&h) || !(0..60).contains(&mi) || !(0.0..=60.0).contains(&s) {
            let message = format!("time field value out of range: {h}:{mi:02}:{s:02}");
            return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message));
        }
        let time =
            (i64::from(h) * 60 + i64::from(mi)) * calendar::MINUTE + (s * 1e6).round_ties_even() as i64;
        let micros = day_of(y, mo, d)?.checked_mul(DAY).and_then(|days| days.checked_add(time));
        micros.filter(|t| in_range(*t)).ok_or_else(timestamp_range).map(Some)
    };
    let times = (0..rows(sides)).map(one).collect::<Result<TimestampMicrosecondArray, SqlError>>()?;
    Ok(Arc::new(times))
}

/// What intervals compare by: microseconds, a day of 24 hours, a month of 30 days.
fn interval_length(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    let length = |span: IntervalMonthDayNano| {
        let Parts { months, days, micros } = span.into();
        (i128::from(months) * 30 + i128::from(days)) * i128::from(DAY) + i128::from(micros)
    };
    let lengths: Decimal128Array = sides[0].array.as_primitive::<Span>().unary(length);
    Ok(Arc::new(lengths.with_data_type(result.arrow())))
}

/// Moves 24 hours into a day, and 30 days into a month, and makes the signs agree.
fn justify(sides: &[Side], hours: bool, months: bool) -> Result<ArrayRef, SqlError> {
    Ok(Arc::new(try_unary::<Span, Span>(&sides[0].array, |span| {
        let Parts { months: m, days: d, micros: t } = span.into();
        let (mut m, mut d, mut t) = (i64::from(m), i64::from(d), t);
        if hours {
            (d, t) = (d + t / DAY, t % DAY);
        }
        if months {
            (m, d) = (m + d / 30, d % 30);
            if m > 0 && (d < 0 || (hours && d == 0 && t < 0)) {
                (m, d) = (m - 1, d + 30);
            } else if m < 0 && (d > 0 || (hours && d == 0 && t > 0)) {
                (m, d) = (m + 1, d - 30);
            }
        }
        if hours {
            if d > 0 && t < 0 {
                (d, t) = (d - 1, t + DAY);
            } else if d < 0 && t > 0 {
                (d, t) = (d + 1, t - DAY);
            }
        }
        let fit = |v: i64| i32::try_from(v).map_err(|_| crate::text::interval::out_of_range());
        Parts { months: fit(m)?, days: fit(d)?, micros: t }.arrow()
    })?))
}

/// A date in its parts, for templates.
pub(crate) fn civil(micros: i64) -> (Civil, i64, i64) {
    let (days, time) = calendar::split(micros);
    (civil_from_days(days), days, time)
}
