//! Arithmetic of date, time, timestamp and interval.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Operation, division_by_zero, never, out_of_range as number_out_of_range};
use crate::calendar::{self, DAY, add_months};
use crate::kernel::{Side, binary, try_binary, try_unary};
use crate::text::datetime::in_range;
use crate::text::interval::{Parts, out_of_range};

type Span = IntervalMonthDayNanoType;
type Micros = TimestampMicrosecondType;
type Clock = Time64MicrosecondType;

pub(super) fn arithmetic(op: Operation, left: &Side, right: &Side) -> Result<ArrayRef, SqlError> {
    use DataType::*;
    let subtract = op == Operation::Subtract;
    Ok(match (left.data_type(), right.data_type()) {
        (Date32, Int32) => {
            let f = |d: i32, n: i32| if subtract { d.overflowing_sub(n) } else { d.overflowing_add(n) };
            Arc::new(binary::<Date32Type, Int32Type, Date32Type>(left, right, f, |_, _| date_range())?)
        }
        (Int32, Date32) => return arithmetic(op, right, left),
        (Date32, Date32) => {
            let diagnose = |_, _| number_out_of_range("integer");
            Arc::new(binary::<Date32Type, Date32Type, Int32Type>(
                left,
                right,
                i32::overflowing_sub,
                diagnose,
            )?)
        }
        (Date32, Time64(_)) => {
            let f = |d: i32, t: i64| {
                let sum =
                    i64::from(d).checked_mul(DAY).and_then(|d| d.checked_add(t)).filter(|t| in_range(*t));
                (sum.unwrap_or(0), sum.is_none())
            };
            Arc::new(binary::<Date32Type, Clock, Micros>(left, right, f, |_, _| timestamp_range())?)
        }
        (Timestamp(_, zone), Interval(_)) => {
            let sign = if subtract { -1 } else { 1 };
            let moved = move_timestamps(left, right, sign)?;
            Arc::new(moved.with_timezone_opt(zone.clone()))
        }
        (Timestamp(..), Timestamp(..)) => {
            Arc::new(try_binary::<Micros, Micros, Span>(left, right, |a, b| {
                let micros = a.checked_sub(b).ok_or_else(out_of_range)?;
                // Days apart from hours, both with the sign of the difference.
                Parts { months: 0, days: (micros / DAY) as i32, micros: micros % DAY }.arrow()
            })?)
        }
        (Time64(_), Interval(_)) => {
            let f = |t: i64, span: IntervalMonthDayNano| {
                let by = span.nanoseconds / 1000 % DAY;
                (t.wrapping_add(if subtract { -by } else { by }).rem_euclid(DAY), false)
            };
            Arc::new(binary::<Clock, Span, Clock>(left, right, f, |_, s| never(s))?)
        }
        (Time64(_), Time64(_)) => Arc::new(try_binary::<Clock, Clock, Span>(left, right, |a, b| {
            Parts { months: 0, days: 0, micros: a - b }.arrow()
        })?),
        (Interval(_), Interval(_)) => Arc::new(try_binary::<Span, Span, Span>(left, right, |a, b| {
            if subtract { difference(a, b) } else { sum(a, b) }
        })?),
        (Interval(_), Float64) => {
            Arc::new(try_binary::<Span, Float64Type, Span>(left, right, |span, factor| match op {
                Operation::Divide if factor == 0.0 => Err(division_by_zero()),
                Operation::Divide => scale_interval(span, |part| part / factor),
                _ => scale_interval(span, |part| part * factor),
            })?)
        }
        (a, b) => return Err(SqlError::internal(format!("{op} got operands of {a} and {b}"))),
    })
}

fn date_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

pub(crate) fn timestamp_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// Adds intervals (times `sign`) to timestamps: months by the calendar, then days, then time.
fn move_timestamps(left: &Side, right: &Side, sign: i64) -> Result<TimestampMicrosecondArray, SqlError> {
    if right.constant && right.array.is_valid(0) {
        let span: Parts = right.array.as_primitive::<Span>().value(0).into();
        let by = i64::from(span.days).checked_mul(DAY).and_then(|d| d.checked_add(span.micros));
        if let (0, Some(by)) = (span.months, by.and_then(|by| by.checked_mul(sign))) {
            // A fixed length, as in windows and watermarks: one addition per row.
            let f = |t: i64, _| {
                let (moved, bad) = t.overflowing_add(by);
                (moved, bad | !in_range(moved))
            };
            return binary::<Micros, Span, Micros>(left, right, f, |_, _| timestamp_range());
        }
    }
    try_binary::<Micros, Span, Micros>(left, right, |t, span| {
        move_timestamp(t, span.into(), sign).ok_or_else(timestamp_range)
    })
}

/// `time` moved by `span` times `sign`; `None` out of range.
pub(crate) fn move_timestamp(time: i64, span: Parts, sign: i64) -> Option<i64> {
    let moved = if span.months == 0 {
        time
    } else {
        let (days, rest) = calendar::split(time);
        add_months(days, i64::from(span.months) * sign).checked_mul(DAY)?.checked_add(rest)?
    };
    let days = i64::from(span.days).checked_mul(DAY)?.checked_mul(sign)?;
    moved.checked_add(days)?.checked_add(span.micros.checked_mul(sign)?).filter(|t| in_range(*t))
}

fn sum(a: IntervalMonthDayNano, b: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let months = a.months.checked_add(b.months).ok_or_else(out_of_range)?;
    let days = a.days.checked_add(b.days).ok_or_else(out_of_range)?;
    let nanoseconds = a.nanoseconds.checked_add(b.nanoseconds).ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano { months, days, nanoseconds })
}

fn difference(a: IntervalMonthDayNano, b: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let months = a.months.checked_sub(b.months).ok_or_else(out_of_range)?;
    let days = a.days.checked_sub(b.days).ok_or_else(out_of_range)?;
    let nanoseconds = a.nanoseconds.checked_sub(b.nanoseconds).ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano { months, days, nanoseconds })
}

pub(super) fn negate(array: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let zero = IntervalMonthDayNano::new(0, 0, 0);
    Ok(Arc::new(try_unary::<Span, Span>(array, |span| difference(zero, span))?))
}

/// Multiplies or divides by a number as PostgreSQL's interval_mul does: fractions of months become days of 30, fractions
/// of days become time.
pub(crate) fn scale_interval(
    span: IntervalMonthDayNano,
    by: impl Fn(f64) -> f64,
) -> Result<IntervalMonthDayNano, SqlError> {
    let Parts { months, days, micros } = span.into();
    let (months, days) = (by(months.into()), by(days.into()));
    let fits = |v: f64| v.is_finite() && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&v);
    if !fits(months) || !fits(days) {
        return Err(out_of_range());
    }
    // PostgreSQL rounds the remainders to microseconds (TSROUND) so that 0.1 months of 30 days stay whole days.
    let round = |v: f64| (v * 1e6).round_ties_even() / 1e6;
    let month_days = round((months - months.trunc()) * 30.0);
    let seconds = round((days - days.trunc() + month_days - month_days.trunc()) * 86_400.0);
    let (mut whole_days, mut seconds) = (days.trunc() + month_days.trunc(), seconds);
    if seconds.abs() >= 86_400.0 {
        whole_days += (seconds / 86_400.0).trunc();
        seconds -= (seconds / 86_400.0).trunc() * 86_400.0;
    }
    let micros = (by(micros as f64) + seconds * 1e6).round_ties_even();
    if !fits(whole_days) || !micros.is_finite() || micros.abs() >= 9.2e18 {
        return Err(out_of_range());
    }
    Parts { months: months as i32, days: whole_days as i32, micros: micros as i64 }.arrow()
}

/// The SQL type's Arrow zone, for timestamps that are relabelled.
pub(crate) fn zone_of(ty: &SqlType) -> Option<Arc<str>> {
    (*ty == SqlType::Timestamptz).then(|| millpond_types::sql_type::UTC.into())
}
