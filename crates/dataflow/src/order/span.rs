//! When a row is valid, as a function of its columns: spans of the clock.
//!
//! A condition such as `ts > now() - INTERVAL '1 hour'` is true of a row for as long as the clock is before `ts + 1 hour`. With
//! a clock `g(now)` that never goes back, let `first(x)` be the first now with `g(now) >= x`. Times are whole microseconds, so
//!
//! | condition | is true for |
//! |---|---|
//! | `x > g(now)` | `now < first(x)` |
//! | `x >= g(now)` | `now < first(x + 1)` |
//! | `x < g(now)` | `now >= first(x + 1)` |
//! | `x <= g(now)` | `now >= first(x)` |
//!
//! and of `g` applied in steps, `first` is that of the last step, of which that of the one before is taken, and so on.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use millpond_functions::window::Tumble;
use millpond_types::SqlError;

use crate::exchange::times;

/// What is done to now() before it is compared; none of it ever makes a later time an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStep {
    /// So many microseconds later.
    Shift(i64),
    /// The start of the window that it is in.
    Truncate(Tumble),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A column of times compared with the clock. NULL is never true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockBound {
    pub time: usize,
    /// The column is less (…) than the clock.
    pub comparison: Comparison,
    /// In the order in which they are done.
    pub clock: Vec<ClockStep>,
}

/// All of these are true: boolean columns, and comparisons with the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeSpan {
    pub conditions: Vec<usize>,
    pub bounds: Vec<ClockBound>,
}

/// Rows while one of some spans is true of them.
#[derive(Clone, Debug)]
pub struct TemporalSpec {
    pub spans: Vec<TimeSpan>,
    /// Columns of the source that leave, in this order.
    pub output: Vec<usize>,
    /// The source never retracts; a negative weight is then a [`crate::Fault`].
    pub append_only: bool,
    pub schema: SchemaRef,
}

/// Of each row the now from which on a span is true, and the one from which on it is no more.
struct Bounds {
    from: Vec<i64>,
    to: Vec<i64>,
}

/// When rows are valid.
pub(super) struct Validity(Vec<Bounds>);

impl ClockStep {
    /// The first time that the step makes `value` or later.
    fn first(self, value: i64) -> i64 {
        match self {
            Self::Shift(micros) => value.saturating_sub(micros),
            Self::Truncate(window) => match window.start(value) {
                Ok(start) if start == value => value,
                Ok(start) => window.end(start).unwrap_or(i64::MAX),
                // Beyond the calendar, where no clock comes to.
                Err(_) if value > 0 => i64::MAX,
                Err(_) => i64::MIN,
            },
        }
    }
}

impl ClockBound {
    /// Narrows a span of a row whose time is `time`.
    fn narrow(&self, time: i64, from: &mut i64, to: &mut i64) {
        let next = matches!(self.comparison, Comparison::GreaterOrEqual | Comparison::Less);
        let value = if next { time.saturating_add(1) } else { time };
        let first = self.clock.iter().rev().fold(value, |value, step| step.first(value));
        match self.comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => *to = (*to).min(first),
            Comparison::Less | Comparison::LessOrEqual => *from = (*from).max(first),
        }
    }
}

impl TimeSpan {
    /// # Errors
    /// XX000 if a column is not there or is of another type.
    pub(super) fn check(&self, input: &SchemaRef) -> Result<(), SqlError> {
        let is = |column: usize, fits: fn(&DataType) -> bool| {
            input.fields().get(column).is_some_and(|field| fits(field.data_type()))
        };
        let conditions = self.conditions.iter().all(|column| is(*column, |ty| *ty == DataType::Boolean));
        let times = self.bounds.iter().all(|bound| is(bound.time, crate::exchange::is_time));
        if conditions && times {
            return Ok(());
        }
        Err(SqlError::internal("a temporal filter does not fit its source"))
    }

    /// The columns that it looks at.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.conditions.iter().copied().chain(self.bounds.iter().map(|bound| bound.time))
    }

    fn bounds(&self, columns: &[ArrayRef], rows: usize) -> Result<Bounds, ArrowError> {
        let (mut from, mut to) = (vec![i64::MIN; rows], vec![i64::MAX; rows]);
        let never =
            |row: usize, from: &mut [i64], to: &mut [i64]| (from[row], to[row]) = (i64::MAX, i64::MIN);
        for bound in &self.bounds {
            let times = times(&columns[bound.time])?;
            for row in 0..rows {
                match times.is_valid(row) {
                    true => bound.narrow(times.value(row), &mut from[row], &mut to[row]),
                    false => never(row, &mut from, &mut to),
                }
            }
        }
        for condition in &self.conditions {
            let holds = columns[*condition].as_boolean();
            for row in 0..rows {
                if holds.is_null(row) || !holds.value(row) {
                    never(row, &mut from, &mut to);
                }
            }
        }
        Ok(Bounds { from, to })
    }
}

impl Validity {
    pub(super) fn of(spans: &[TimeSpan], columns: &[ArrayRef], rows: usize) -> Result<Self, ArrowError> {
        spans.iter().map(|span| span.bounds(columns, rows)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn at(&self, row: usize, now: i64) -> bool {
        self.0.iter().any(|bounds| bounds.from[row] <= now && now < bounds.to[row])
    }

    /// The first time after `now` at which it may be otherwise; `None` if it stays so for ever.
    ///
    /// It is the same for all times in between, so a row that waits can be found again by it.
    pub(super) fn next(&self, row: usize, now: i64) -> Option<i64> {
        let spans = self.0.iter().map(|bounds| (bounds.from[row], bounds.to[row]));
        let ends = spans.filter(|(from, to)| from < to).flat_map(|(from, to)| [from, to]);
        ends.filter(|end| *end > now && *end < i64::MAX).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, TimestampMicrosecondArray};
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    const COMPARISONS: [Comparison; 4] =
        [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual];

    fn apply(clock: &[ClockStep], now: i64) -> i64 {
        clock.iter().fold(now, |now, step| match step {
            ClockStep::Shift(by) => now + by,
            ClockStep::Truncate(window) => window.start(now).unwrap(),
        })
    }

    fn holds(comparison: Comparison, time: i64, clock: i64) -> bool {
        match comparison {
            Comparison::Less => time < clock,
            Comparison::LessOrEqual => time <= clock,
            Comparison::Greater => time > clock,
            Comparison::GreaterOrEqual => time >= clock,
        }
    }

    fn tens() -> ClockStep {
        let ten = IntervalMonthDayNano::new(0, 0, 10_000);
        ClockStep::Truncate(Tumble::new(ten, None).unwrap())
    }

    #[test]
    fn spans_are_when_the_comparison_holds() {
        let clocks: [&[ClockStep]; 6] = [
            &[],
            &[ClockStep::Shift(3)],
            &[ClockStep::Shift(-7)],
            &[tens()],
            &[ClockStep::Shift(4), tens()],
            &[tens(), ClockStep::Shift(-13), tens(), ClockStep::Shift(5)],
        ];
        for (clock, comparison) in clocks.iter().flat_map(|c| COMPARISONS.map(|o| (c, o))) {
            for time in -25..25 {
                let bound = ClockBound { time: 0, comparison, clock: clock.to_vec() };
                let (mut from, mut to) = (i64::MIN, i64::MAX);
                bound.narrow(time, &mut from, &mut to);
                for now in -60..60 {
                    let expected = holds(comparison, time, apply(clock, now));
                    assert_eq!((from..to).contains(&now), expected, "{bound:?} of {time} at {now}");
                }
            }
        }
    }

    #[test]
    fn months_are_truncated_by_the_calendar() {
        let month = Tumble::new(IntervalMonthDayNano::new(1, 0, 0), None).unwrap();
        let day = 86_400_000_000;
        // 1970-02-10 is reached by the start of March, 1970-02-01 by itself.
        assert_eq!(ClockStep::Truncate(month).first(40 * day), 59 * day);
        assert_eq!(ClockStep::Truncate(month).first(31 * day), 31 * day);
        assert_eq!(ClockStep::Truncate(month).first(i64::MAX), i64::MAX);
    }

    #[test]
    fn spans_of_one_row_follow_each_other() {
        let bound =
            |comparison, shift| ClockBound { time: 0, comparison, clock: vec![ClockStep::Shift(shift)] };
        // From 10 to 20 after the time, and, where the condition holds, from 30 on.
        let spans = [
            TimeSpan {
                conditions: vec![],
                bounds: vec![bound(Comparison::LessOrEqual, -10), bound(Comparison::Greater, -20)],
            },
            TimeSpan { conditions: vec![1], bounds: vec![bound(Comparison::LessOrEqual, -30)] },
        ];
        let times = TimestampMicrosecondArray::from(vec![Some(100), Some(100), None]);
        let conditions = BooleanArray::from(vec![Some(true), None, Some(true)]);
        let columns: [ArrayRef; 2] = [Arc::new(times), Arc::new(conditions)];
        let validity = Validity::of(&spans, &columns, 3).unwrap();
        let walk = |row| {
            let (mut now, mut seen) = (0, vec![validity.at(row, 0)]);
            let mut ends = Vec::new();
            while let Some(next) = validity.next(row, now) {
                ends.push(next);
                seen.push(validity.at(row, next));
                now = next;
            }
            (ends, seen)
        };
        assert_eq!(walk(0), (vec![110, 120, 130], vec![false, true, false, true]));
        assert_eq!(walk(1), (vec![110, 120], vec![false, true, false]));
        assert_eq!(walk(2), (vec![], vec![false]));
    }
}
