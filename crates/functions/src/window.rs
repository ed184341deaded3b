//! Which windows a time belongs to: TUMBLE, HOP and CUMULATE as plain kernels and as scalar functions.
//!
//! Times are microseconds since 1970-01-01 (UTC). Fixed windows start at 1970-01-01 + offset + n × size; month and year
//! sizes are calendar units, counted in months from 1970-01. NULL belongs to no window.

pub(crate) mod function;

use arrow::buffer::NullBuffer;
use arrow::datatypes::IntervalMonthDayNano;
use millpond_types::{SqlError, SqlState};

use crate::calendar::{self, Civil, DAY, civil_from_days, days_from_civil};
use crate::operator::temporal::timestamp_range;
use crate::text::datetime::in_range;
use crate::text::interval::{Parts, out_of_range};

/// A length of time that windows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// Microseconds; a day is 24 hours.
    Fixed(i64),
    /// Calendar months; a year is 12.
    Months(i32),
}

impl Span {
    /// A size, slide or step: positive, and months do not mix with days or less.
    ///
    /// # Errors
    /// 22023; 22008 if it has too many microseconds.
    pub fn size(interval: IntervalMonthDayNano) -> Result<Self, SqlError> {
        let refused = |message: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        let Parts { months, .. } = interval.into();
        let micros = fixed(interval)?;
        match (months, micros) {
            (0, 1..) => Ok(Self::Fixed(micros)),
            (1.., 0) => Ok(Self::Months(months)),
            (0, _) => refused("the size of a window must be positive"),
            (_, 0) => refused("the size of a window must be positive"),
            _ => refused("the size of a window is either in months or in shorter units, not both"),
        }
    }

    /// The time this long after `start`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn after(self, start: i64) -> Result<i64, SqlError> {
        let end = match self {
            Self::Fixed(micros) => start.checked_add(micros),
            Self::Months(months) => {
                let (days, rest) = calendar::split(start);
                let days = calendar::add_months(days, months.into());
                days.checked_mul(DAY).and_then(|d| d.checked_add(rest))
            }
        };
        end.filter(|t| in_range(*t)).ok_or_else(timestamp_range)
    }
}

/// Days and time of an interval as microseconds.
fn fixed(interval: IntervalMonthDayNano) -> Result<i64, SqlError> {
    let Parts { days, micros, .. } = interval.into();
    i64::from(days).checked_mul(DAY).and_then(|d| d.checked_add(micros)).ok_or_else(out_of_range)
}

/// Windows of equal size side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tumble {
    size: Span,
    offset: i64,
}

impl Tumble {
    /// # Errors
    /// 22023 if the size is not positive or mixes months with shorter units, or if the offset has months.
    pub fn new(size: IntervalMonthDayNano, offset: Option<IntervalMonthDayNano>) -> Result<Self, SqlError> {
        let offset = match offset {
            None => 0,
            Some(offset) if offset.months != 0 => {
                let message = "the offset of windows cannot have months";
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
            Some(offset) => fixed(offset)?,
        };
        let size = Span::size(size)?;
        let offset = if let Span::Fixed(size) = size { offset.rem_euclid(size) } else { offset };
        Ok(Self { size, offset })
    }

    pub fn size(&self) -> Span {
        self.size
    }

    /// The start of the window that `time` is in.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn start(&self, time: i64) -> Result<i64, SqlError> {
        let shifted = time.checked_sub(self.offset).ok_or_else(timestamp_range)?;
        let start = match self.size {
            Span::Fixed(size) => shifted.checked_sub(shifted.rem_euclid(size)).ok_or_else(timestamp_range)?,
            Span::Months(size) => {
                let Civil { year, month, .. } = civil_from_days(calendar::split(shifted).0);
                let months = (year - 1970) * 12 + i64::from(month) - 1;
                let first = months.div_euclid(size.into()) * i64::from(size);
                let (year, month) = (1970 + first.div_euclid(12), first.rem_euclid(12) as u32 + 1);
                days_from_civil(year, month, 1).checked_mul(DAY).ok_or_else(timestamp_range)?
            }
        };
        start.checked_add(self.offset).filter(|t| in_range(*t)).ok_or_else(timestamp_range)
    }

    /// The end (exclusive) of the window that starts at `start`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn end(&self, start: i64) -> Result<i64, SqlError> {
        // With an offset, months count from where they would start without.
        match self.size {
            Span::Fixed(_) => self.size.after(start),
            Span::Months(_) => {
                let aligned = start.checked_sub(self.offset).ok_or_else(timestamp_range)?;
                let end = self.size.after(aligned)?.checked_add(self.offset);
                end.filter(|t| in_range(*t)).ok_or_else(timestamp_range)
            }
        }
    }

    /// [`Tumble::start`] of each time; where `nulls` says NULL the answer is 0.
    ///
    /// # Errors
    /// 22008 if one is out of range.
    pub fn starts(&self, times: &[i64], nulls: Option<&NullBuffer>) -> Result<Vec<i64>, SqlError> {
        if let Span::Fixed(size) = self.size {
            // Without branches; what is near the ends of 64 bits is looked at again one by one.
            let (offset, mut failed) = (self.offset, false);
            let starts = times.iter().map(|time| {
                let (shifted, below) = time.overflowing_sub(offset);
                let (start, beneath) = shifted.overflowing_sub(shifted.rem_euclid(size));
                let (start, above) = start.overflowing_add(offset);
                failed |= below | beneath | above | !in_range(start);
                start
            });
            let starts: Vec<i64> = starts.collect();
            if !failed {
                return Ok(starts);
            }
        }
        let valid = |row: usize| nulls.is_none_or(|n| n.is_valid(row));
        let one = |(row, time): (usize, &i64)| if valid(row) { self.start(*time) } else { Ok(0) };
        times.iter().enumerate().map(one).collect()
    }
}

/// Windows of equal size that start every `slide`; a time is in size / slide of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    slide: Tumble,
    size: Span,
}

/// Most windows that one time may belong to: each is a row.
const WINDOWS_MAX: i64 = 10_000;

impl Hop {
    /// # Errors
    /// 22023 as for [`Tumble::new`], if slide > size, if one is in months and the other not, or if a time would belong
    /// to more than 10,000 windows.
    pub fn new(
        slide: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        offset: Option<IntervalMonthDayNano>,
    ) -> Result<Self, SqlError> {
        let slide = Tumble::new(slide, offset)?;
        let size = Span::size(size)?;
        let refused = |message: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        let (short, long) = match (slide.size, size) {
            (Span::Fixed(slide), Span::Fixed(size)) => (slide, size),
            (Span::Months(slide), Span::Months(size)) => (slide.into(), size.into()),
            _ => return Err(refused("slide and size must both be in months, or both in shorter units")),
        };
        if short > long {
            return Err(refused("the slide of a hop is longer than its size")
                .hint("slide and size may be swapped: the slide comes first."));
        }
        if long / short > WINDOWS_MAX {
            return Err(refused("the size of a hop is more than 10,000 slides").hint("Use a longer slide."));
        }
        Ok(Self { slide, size })
    }

    /// Appends the starts of all windows that `time` is in, earliest first.
    ///
    /// # Errors
    /// 22008 if one is out of range.
    pub fn starts(&self, time: i64, out: &mut Vec<i64>) -> Result<(), SqlError> {
        let from = out.len();
        let mut start = self.slide.start(time)?;
        while self.end(start)? > time {
            out.push(start);
            start = match self.slide.size {
                Span::Fixed(slide) => start.checked_sub(slide).ok_or_else(timestamp_range)?,
                // A moment before a window is in the one before it.
                Span::Months(_) => self.slide.start(start - 1)?,
            };
        }
        out[from..].reverse();
        Ok(())
    }

    /// The end (exclusive) of the window that starts at `start`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn end(&self, start: i64) -> Result<i64, SqlError> {
        Tumble { size: self.size, offset: self.slide.offset }.end(start)
    }

    pub fn slide(&self) -> Tumble {
        self.slide
    }

    pub fn size(&self) -> Span {
        self.size
    }

    /// How many slides a window is long. `None` if the size is not a multiple of the slide (then windows do not consist
    /// of whole slides).
    pub fn slices_per_window(&self) -> Option<u32> {
        let (slide, size) = match (self.slide.size, self.size) {
            (Span::Fixed(slide), Span::Fixed(size)) => (slide, size),
            (Span::Months(slide), Span::Months(size)) => (slide.into(), size.into()),
            _ => return None,
        };
        (size % slide == 0).then(|| u32::try_from(size / slide).ok()).flatten()
    }
}

/// Windows that begin together, each a step longer than the one before, up to a size; then the next ones begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cumulate {
    whole: Tumble,
    step: Span,
}

impl Cumulate {
    /// # Errors
    /// 22023 as for [`Tumble::new`], if the size is not a multiple of the step, if one is in months and the other not, or if
    /// there are more than 10,000 steps.
    pub fn new(
        step: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        offset: Option<IntervalMonthDayNano>,
    ) -> Result<Self, SqlError> {
        let whole = Tumble::new(size, offset)?;
        let step = Span::size(step)?;
        let refused = |message: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        let (short, long) = match (step, whole.size) {
            (Span::Fixed(step), Span::Fixed(size)) => (step, size),
            (Span::Months(step), Span::Months(size)) => (step.into(), size.into()),
            _ => return Err(refused("step and size must both be in months, or both in shorter units")),
        };
        if long % short != 0 {
            return Err(refused("the size of cumulating windows must be a multiple of their step")
                .hint("step and size may be swapped: the step comes first."));
        }
        if long / short > WINDOWS_MAX {
            return Err(refused("the size of cumulating windows is more than 10,000 steps")
                .hint("Use a longer step."));
        }
        Ok(Self { whole, step })
    }

    /// Appends the ends of all windows that `time` is in, earliest first, and gives the start of all of them.
    ///
    /// # Errors
    /// 22008 if one is out of range.
    pub fn ends(&self, time: i64, out: &mut Vec<i64>) -> Result<i64, SqlError> {
        let start = self.whole.start(time)?;
        let last = self.whole.end(start)?;
        let mut end = match self.step {
            // The steps that are over already need not be walked.
            Span::Fixed(step) => start.saturating_add((time - start) / step * step),
            Span::Months(_) => start,
        };
        while end < last {
            end = Tumble { size: self.step, offset: self.whole.offset }.end(end)?;
            if end > time {
                out.push(end);
            }
        }
        Ok(start)
    }

    /// The start of the window that ends (exclusive) at `end`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn start(&self, end: i64) -> Result<i64, SqlError> {
        self.whole.start(end.checked_sub(1).ok_or_else(timestamp_range)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::datetime::{parse_timestamp, write_timestamp};
    use crate::text::interval::parse_interval;

    fn time(text: &str) -> i64 {
        parse_timestamp(text).unwrap()
    }

    fn shown(micros: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(micros, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn tumble(size: &str, offset: Option<&str>) -> Tumble {
        Tumble::new(parse_interval(size).unwrap(), offset.map(|o| parse_interval(o).unwrap())).unwrap()
    }

    #[test]
    fn tumbling_windows_align_to_the_epoch() {
        for (size, offset, at, start, end) in [
            ("1 minute", None, "2024-01-01 00:00:59.999999", "2024-01-01 00:00:00", "2024-01-01 00:01:00"),
            ("1 minute", None, "2024-01-01 00:01:00", "2024-01-01 00:01:00", "2024-01-01 00:02:00"),
            ("1 minute", None, "1969-12-31 23:59:30", "1969-12-31 23:59:00", "1970-01-01 00:00:00"),
            ("7 minutes", None, "1969-12-31 23:59:30", "1969-12-31 23:53:00", "1970-01-01 00:00:00"),
            ("1 day", Some("6 hours"), "2024-01-01 05:00:00", "2023-12-31 06:00:00", "2024-01-01 06:00:00"),
            ("1 day", Some("-18 hours"), "2024-01-01 05:00:00", "2023-12-31 06:00:00", "2024-01-01 06:00:00"),
            ("1 week", None, "1970-01-08 00:00:00", "1970-01-08 00:00:00", "1970-01-15 00:00:00"),
            ("1 month", None, "2024-02-29 12:00:00", "2024-02-01 00:00:00", "2024-03-01 00:00:00"),
            ("3 months", None, "1969-12-31 12:00:00", "1969-10-01 00:00:00", "1970-01-01 00:00:00"),
            ("1 year", None, "2024-02-29 12:00:00", "2024-01-01 00:00:00", "2025-01-01 00:00:00"),
            ("1 month", Some("6 hours"), "2024-02-01 05:00:00", "2024-01-01 06:00:00", "2024-02-01 06:00:00"),
        ] {
            let window = tumble(size, offset);
            let found = window.start(time(at)).unwrap();
            assert_eq!(shown(found), start, "{size} {at}");
            assert_eq!(shown(window.end(found).unwrap()), end, "{size} {at}");
            assert_eq!(window.starts(&[time(at)], None), Ok(vec![found]));
        }
    }

    #[test]
    fn hops_cover_a_time_size_by_slide_times() {
        let interval = |text: &str| parse_interval(text).unwrap();
        let hop = |slide: &str, size: &str, offset: Option<&str>| {
            Hop::new(interval(slide), interval(size), offset.map(|o| parse_interval(o).unwrap()))
        };
        let starts = |hop: Hop, at: &str| {
            let mut out = Vec::new();
            hop.starts(time(at), &mut out).unwrap();
            out.into_iter().map(shown).collect::<Vec<_>>()
        };
        let by_five = hop("5 minutes", "15 minutes", None).unwrap();
        assert_eq!(by_five.slices_per_window(), Some(3));
        let expected = ["2023-12-31 23:55:00", "2024-01-01 00:00:00", "2024-01-01 00:05:00"];
        assert_eq!(starts(by_five, "2024-01-01 00:07:00"), expected);
        let expected = ["2023-12-31 23:50:00", "2023-12-31 23:55:00", "2024-01-01 00:00:00"];
        assert_eq!(starts(by_five, "2024-01-01 00:00:00"), expected);
        let uneven = hop("4 minutes", "10 minutes", None).unwrap();
        assert_eq!(uneven.slices_per_window(), None);
        assert_eq!(
            starts(uneven, "1970-01-01 00:09:00"),
            ["1970-01-01 00:00:00", "1970-01-01 00:04:00", "1970-01-01 00:08:00"]
        );
        assert_eq!(starts(uneven, "1970-01-01 00:11:00"), ["1970-01-01 00:04:00", "1970-01-01 00:08:00"]);
        let months = hop("1 month", "2 months", None).unwrap();
        assert_eq!(starts(months, "2024-03-15"), ["2024-02-01 00:00:00", "2024-03-01 00:00:00"]);
        let error = hop("10 minutes", "5 minutes", None).unwrap_err();
        assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE);
        assert!(error.hint_text().unwrap().contains("slide and size may be swapped"));
        assert!(hop("1 month", "60 days", None).is_err());
        assert!(hop("1 us", "1 hour", None).is_err());
    }

    #[test]
    fn cumulating_windows_begin_together() {
        let interval = |text: &str| parse_interval(text).unwrap();
        let ends = |step: &str, size: &str, offset: Option<&str>, at: &str| {
            let window = Cumulate::new(interval(step), interval(size), offset.map(interval)).unwrap();
            let mut ends = Vec::new();
            let start = window.ends(time(at), &mut ends).unwrap();
            assert!(ends.iter().all(|end| window.start(*end) == Ok(start)));
            [vec![start], ends].concat().into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(
            ends("5 minutes", "15 minutes", None, "2024-01-01 00:07:00"),
            ["2024-01-01 00:00:00", "2024-01-01 00:10:00", "2024-01-01 00:15:00"]
        );
        // A time at the end of a step is in the next one.
        assert_eq!(
            ends("5 minutes", "15 minutes", None, "2024-01-01 00:10:00"),
            ["2024-01-01 00:00:00", "2024-01-01 00:15:00"]
        );
        assert_eq!(
            ends("12 hours", "1 day", Some("6 hours"), "1969-12-31 05:00:00"),
            ["1969-12-30 06:00:00", "1969-12-31 06:00:00"]
        );
        assert_eq!(
            ends("1 month", "3 months", None, "2024-02-29 12:00:00"),
            ["2024-01-01 00:00:00", "2024-03-01 00:00:00", "2024-04-01 00:00:00"]
        );
        for (step, size) in
            [("4 minutes", "10 minutes"), ("1 hour", "1 minute"), ("1 us", "1 day"), ("1 day", "1 month")]
        {
            let error = Cumulate::new(interval(step), interval(size), None).unwrap_err();
            assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE, "{step} {size}");
        }
    }

    #[test]
    fn windows_beyond_the_calendar_are_refused() {
        let window = tumble("1 hour", None);
        assert_eq!(window.start(i64::MIN).unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW);
        assert_eq!(window.end(i64::MAX - 5).unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW);
        let nulls = NullBuffer::from(vec![false, true]);
        assert_eq!(window.starts(&[i64::MIN, 0], Some(&nulls)), Ok(vec![0, 0]));
        assert!(window.starts(&[i64::MIN, 0], None).is_err());
        for size in ["0", "-1 minute", "1 month 1 day"] {
            let error = Tumble::new(parse_interval(size).unwrap(), None).unwrap_err();
            assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE, "{size}");
        }
    }
}
