//! Which windows a time belongs to: TUMBLE and HOP as plain kernels and as scalar functions.
//!
//! Times are microseconds since 1970-01-01 (UTC). Fixed windows start at 1970-01-01 + offset + n × size; month and year
//! sizes are calendar units, counted in months from 1970-01. NULL belongs to no window.

use arrow::buffer::NullBuffer;
use arrow::datatypes::IntervalMonthDayNano;
use millpond_types::SqlError;

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
    /// 22023.
    pub fn size(interval: IntervalMonthDayNano) -> Result<Self, SqlError> {
        let _ = interval;
        unimplemented!()
    }
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
        let _ = (size, offset);
        unimplemented!()
    }

    /// The start of the window that `time` is in.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn start(&self, time: i64) -> Result<i64, SqlError> {
        let _ = (time, self.size, self.offset);
        unimplemented!()
    }

    /// The end (exclusive) of the window that starts at `start`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn end(&self, start: i64) -> Result<i64, SqlError> {
        let _ = start;
        unimplemented!()
    }

    /// [`Tumble::start`] of each time; where `nulls` says NULL the answer is 0.
    ///
    /// # Errors
    /// 22008 if one is out of range.
    pub fn starts(&self, times: &[i64], nulls: Option<&NullBuffer>) -> Result<Vec<i64>, SqlError> {
        let _ = (times, nulls);
        unimplemented!()
    }
}

/// Windows of equal size that start every `slide`; a time is in size / slide of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    slide: Tumble,
    size: Span,
}

impl Hop {
    /// # Errors
    /// 22023 as for [`Tumble::new`], if slide > size, or if one is in months and the other not.
    pub fn new(
        slide: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        offset: Option<IntervalMonthDayNano>,
    ) -> Result<Self, SqlError> {
        let _ = (slide, size, offset);
        unimplemented!()
    }

    /// Appends the starts of all windows that `time` is in, earliest first.
    ///
    /// # Errors
    /// 22008 if one is out of range.
    pub fn starts(&self, time: i64, out: &mut Vec<i64>) -> Result<(), SqlError> {
        let _ = (time, out, self.slide);
        unimplemented!()
    }

    /// The end (exclusive) of the window that starts at `start`.
    ///
    /// # Errors
    /// 22008 if it is out of range.
    pub fn end(&self, start: i64) -> Result<i64, SqlError> {
        let _ = (start, self.size);
        unimplemented!()
    }

    /// The slices that windows are made of: each window is a whole number of them. `None` if size is not a multiple of
    /// slide (then a time's windows are found one by one).
    pub fn slices_per_window(&self) -> Option<u32> {
        unimplemented!()
    }
}
