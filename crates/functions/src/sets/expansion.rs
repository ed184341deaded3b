//! Rows out of sets, a bounded number at a time.

use arrow::array::*;
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use arrow::error::ArrowError;
use millpond_types::SqlError;

use super::series::{Numbers, zone_at};
use crate::Zone;

/// A batch of rows out of sets has so many rows, at most,
pub const ROWS_PER_BATCH: usize = 8192;
/// and fewer if what stands beside them is wide.
pub const BYTES_PER_BATCH: usize = 8 << 20;

/// The bytes of a column's own rows, not of what it is a slice of.
pub fn slice_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or(0)
}

/// The sets of the rows of one batch, and how far their rows have been made.
///
/// Several sets go in step; the shorter ones are filled up with NULL. With `outer`, a row whose sets are all empty gives one row of
/// NULLs.
pub struct Expansion {
    sets: Vec<Set>,
    outer: bool,
    rows: usize,
    /// The row that is being expanded, and how many rows it has given.
    at: usize,
    given: u64,
    cursors: Vec<Cursor>,
}

/// Some rows.
pub struct Rows {
    /// The row of the batch that each comes from.
    pub origins: UInt32Array,
    /// The columns of all sets, one after the other.
    pub columns: Vec<ArrayRef>,
    /// Counts the rows of each origin from 1; NULL where a set is empty and the origin stays.
    pub ordinality: Int64Array,
}

enum Set {
    List(ListArray),
    Series(Box<Series>),
}

struct Series {
    told: StructArray,
    start: Numbers,
    stop: Numbers,
    step: Numbers,
}

/// Where the next value of a set is.
enum Cursor {
    Elements { next: u32, end: u32 },
    Numbers { next: Option<i128>, stop: i128, step: i128 },
    Times { next: Option<i64>, stop: i64, step: IntervalMonthDayNano, forward: bool, zone: Zone },
}

/// What has been taken out of a set.
enum Taken {
    Elements(Vec<Option<u32>>),
    Values(Vec<Option<i128>>),
}

impl Expansion {
    /// # Errors
    /// XX000 if a column is no answer of a set function.
    pub fn try_new(sets: &[ArrayRef], outer: bool) -> Result<Self, SqlError> {
        let rows = sets.first().map_or(0, |set| set.len());
        let sets = sets.iter().map(Set::of).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sets, outer, rows, at: 0, given: 0, cursors: Vec::new() })
    }

    pub fn is_done(&self) -> bool {
        self.at >= self.rows
    }

    /// The next rows, at most `most`; none are left iff there are none.
    ///
    /// # Errors
    /// If Arrow refuses.
    pub fn next(&mut self, most: usize) -> Result<Option<Rows>, ArrowError> {
        let mut origins: Vec<u32> = Vec::new();
        let mut ordinality: Vec<Option<i64>> = Vec::new();
        let mut taken: Vec<Taken> = self.sets.iter().map(Set::nothing).collect();
        while !self.is_done() && origins.len() < most {
            if self.given == 0 {
                self.cursors = self.sets.iter().map(|set| set.cursor(self.at)).collect();
            }
            let room = most - origins.len();
            let before = origins.len();
            let longest =
                self.cursors.iter_mut().zip(&mut taken).map(|(cursor, taken)| cursor.take(room, taken)).max();
            let mut added = longest.unwrap_or(0);
            let done = added < room;
            if added == 0 && self.given == 0 && self.outer {
                added = 1;
                ordinality.push(None);
            } else {
                ordinality.extend((1..=added as u64).map(|n| Some((self.given + n) as i64)));
            }
            origins.resize(before + added, self.at as u32);
            taken.iter_mut().for_each(|taken| taken.fill(before + added));
            self.given += added as u64;
            if done {
                (self.at, self.given) = (self.at + 1, 0);
            }
        }
        if origins.is_empty() {
            return Ok(None);
        }
        let mut columns = Vec::new();
        for (set, taken) in self.sets.iter().zip(taken) {
            set.columns(taken, &mut columns)?;
        }
        let origins = UInt32Array::new(ScalarBuffer::from(origins), None);
        Ok(Some(Rows { origins, columns, ordinality: Int64Array::from(ordinality) }))
    }
}

impl Set {
    fn of(array: &ArrayRef) -> Result<Self, SqlError> {
        match array.data_type() {
            DataType::List(_) => Ok(Self::List(array.as_list::<i32>().clone())),
            DataType::Struct(fields) if super::series::is_series(fields) => {
                let told = array.as_struct().clone();
                let part = |n: usize| Numbers::of(told.column(n));
                Ok(Self::Series(Box::new(Series { start: part(0)?, stop: part(1)?, step: part(2)?, told })))
            }
            other => Err(SqlError::internal(format!("{other} gives no rows"))),
        }
    }

    fn nothing(&self) -> Taken {
        match self {
            Self::List(_) => Taken::Elements(Vec::new()),
            Self::Series(_) => Taken::Values(Vec::new()),
        }
    }

    fn cursor(&self, row: usize) -> Cursor {
        match self {
            Self::List(lists) if lists.is_null(row) => Cursor::Elements { next: 0, end: 0 },
            Self::List(lists) => {
                let offsets = lists.value_offsets();
                Cursor::Elements { next: offsets[row] as u32, end: offsets[row + 1] as u32 }
            }
            Self::Series(series) if series.told.is_null(row) => Cursor::Elements { next: 0, end: 0 },
            Self::Series(series) => {
                let Series { told, start, stop, step } = series.as_ref();
                let (next, end) = (start.value(row), stop.value(row));
                match step.span(row) {
                    Some(span) => Cursor::Times {
                        next: i64::try_from(next).ok(),
                        stop: end.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
                        step: span,
                        forward: step.is_forward(row),
                        zone: zone_at(told.column(3).as_string(), row),
                    },
                    None => Cursor::Numbers { next: Some(next), stop: end, step: step.value(row) },
                }
            }
        }
    }

    fn columns(&self, taken: Taken, columns: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        match (self, taken) {
            (Self::List(lists), Taken::Elements(places)) => {
                let values = take(lists.values(), &UInt32Array::from(places), None)?;
                match values.as_struct_opt() {
                    Some(rows) => columns.extend(rows.columns().iter().cloned()),
                    None => columns.push(values),
                }
                Ok(())
            }
            (Self::Series(series), Taken::Values(values)) => {
                let numbers = series.start.like(values);
                columns.push(numbers.map_err(|error| ArrowError::ExternalError(Box::new(error)))?);
                Ok(())
            }
            _ => Err(ArrowError::InvalidArgumentError("a set has changed its kind".to_owned())),
        }
    }
}

impl Cursor {
    /// Moves at most `most` values out of the set, and tells how many.
    fn take(&mut self, most: usize, taken: &mut Taken) -> usize {
        match (self, taken) {
            (Self::Elements { next, end }, Taken::Elements(places)) => {
                let until = (*end).min(next.saturating_add(u32::try_from(most).unwrap_or(u32::MAX)));
                let count = (until - *next) as usize;
                places.extend((*next..until).map(Some));
                *next = until;
                count
            }
            (Self::Numbers { next, stop, step }, Taken::Values(values)) => {
                let before = values.len();
                while values.len() - before < most
                    && let Some(value) = next.filter(|v| if *step > 0 { v <= stop } else { v >= stop })
                {
                    values.push(Some(value));
                    *next = value.checked_add(*step);
                }
                values.len() - before
            }
            (Self::Times { next, stop, step, forward, zone }, Taken::Values(values)) => {
                let before = values.len();
                while values.len() - before < most
                    && let Some(value) = next.filter(|v| if *forward { v <= stop } else { v >= stop })
                {
                    values.push(Some(value.into()));
                    // A step that leads nowhere (a month less 31 days, say) ends it.
                    *next = zone.later(value, *step).filter(|after| (*after > value) == *forward);
                }
                values.len() - before
            }
            // A NULL instead of a series.
            _ => 0,
        }
    }
}

impl Taken {
    fn fill(&mut self, rows: usize) {
        match self {
            Self::Elements(places) => places.resize(rows, None),
            Self::Values(values) => values.resize(rows, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn lists(rows: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(rows))
    }

    /// Rows as `origin:ordinality:value,…`.
    fn all(sets: &[ArrayRef], outer: bool, most: usize) -> String {
        let mut expansion = Expansion::try_new(sets, outer).unwrap();
        let mut out = Vec::new();
        while let Some(rows) = expansion.next(most).unwrap() {
            assert!(rows.origins.len() <= most);
            for row in 0..rows.origins.len() {
                let value = |column: &ArrayRef| {
                    let column = column.as_primitive::<arrow::datatypes::Int32Type>();
                    column.is_valid(row).then(|| column.value(row)).map_or("-".to_owned(), |v| v.to_string())
                };
                let number = rows.ordinality.is_valid(row).then(|| rows.ordinality.value(row));
                let number = number.map_or("-".to_owned(), |n| n.to_string());
                let values: Vec<String> = rows.columns.iter().map(value).collect();
                out.push(format!("{}:{number}:{}", rows.origins.value(row), values.join(",")));
            }
        }
        assert!(expansion.is_done());
        out.join(" ")
    }

    #[test]
    fn sets_go_in_step_however_few_rows_are_taken_at_once() {
        let a = lists(vec![Some(vec![Some(1), None, Some(3)]), None, Some(vec![]), Some(vec![Some(4)])]);
        let b = lists(vec![Some(vec![Some(7)]), None, Some(vec![]), Some(vec![Some(8), Some(9)])]);
        for most in 1..8 {
            assert_eq!(
                all(&[Arc::clone(&a), Arc::clone(&b)], false, most),
                "0:1:1,7 0:2:-,- 0:3:3,- 3:1:4,8 3:2:-,9"
            );
            assert_eq!(all(&[Arc::clone(&a)], true, most), "0:1:1 0:2:- 0:3:3 1:-:- 2:-:- 3:1:4");
        }
    }

    #[test]
    fn a_sliced_batch_gives_its_own_rows() {
        let a = lists(vec![Some(vec![Some(1)]), Some(vec![Some(2), Some(3)]), Some(vec![Some(4)])]);
        assert_eq!(all(&[a.slice(1, 1)], false, 2), "0:1:2 0:2:3");
    }
}
