//! Sessions: rows of a partition each of which is at most a gap later than the one before.
//!
//! The session of a row is a function of the rows around it, so it merges with its neighbour when a row comes between them
//! and splits when that one is retracted. What a change can reach is found by walking from it, over the rows of before the
//! epoch and of after it together, to the first pause that is longer than the gap: neither side has a session across
//! it. A trace of sessions with a gap of 5:
//!
//! | rows in | walked over | published |
//! |---|---|---|
//! | 1, 9 | 1; 9 | (1, 1..6) +1, (9, 9..14) +1 |
//! | 5 | 1, 5, 9 | (1, 1..6) -1, (9, 9..14) -1, (1, 1..14) +1, (5, 1..14) +1, (9, 1..14) +1 |
//! | 5 -1 | 1, 5, 9 | what was published is taken back, (1, 1..6) +1, (9, 9..14) +1 |

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::error::ArrowError;
use millpond_functions::window::Span;
use millpond_types::SqlError;

use super::codec::Key;
use super::frame::Layout;
use super::spec::OverCall;
use super::store::{Entry, Store};
use crate::exchange::{times, times_as};
use crate::fault::Cause;

/// Rows whose times are decoded together: so many at first, and at most.
const DECODED: Range<usize> = 16..1024;

/// The sessions of each part, first to last row, and their first and last times.
fn sessions(
    gap: i64,
    layout: &Layout,
    values: Option<&[Option<i128>]>,
) -> Result<Vec<(Range<usize>, i64, i64)>, ArrowError> {
    let missing = || ArrowError::InvalidArgumentError("a session of rows without a time".to_owned());
    let values = values.ok_or_else(missing)?;
    let time = |row: usize| values[row].and_then(|time| i64::try_from(time).ok()).ok_or_else(missing);
    let mut sessions: Vec<(Range<usize>, i64, i64)> = Vec::new();
    for segment in &layout.segments {
        for row in segment.clone() {
            let now = time(row)?;
            match sessions.last_mut() {
                Some((rows, _, last)) if row > segment.start && now.saturating_sub(*last) <= gap => {
                    rows.end = row + 1;
                    *last = now;
                }
                _ => sessions.push((row..row + 1, now, now)),
            }
        }
    }
    Ok(sessions)
}

pub(super) fn starts(
    call: &OverCall,
    gap: i64,
    layout: &Layout,
    values: Option<&[Option<i128>]>,
) -> Result<ArrayRef, ArrowError> {
    let sessions = sessions(gap, layout, values)?;
    let starts = sessions.into_iter().flat_map(|(rows, first, _)| rows.map(move |_| first));
    times_as(&call.result, Int64Array::from_iter_values(starts))
}

/// A session that ends beyond the calendar is an error of its rows.
pub(super) fn ends(
    call: &OverCall,
    gap: i64,
    layout: &Layout,
    values: Option<&[Option<i128>]>,
    failed: &mut BTreeMap<usize, SqlError>,
) -> Result<ArrayRef, ArrowError> {
    let mut ends = Vec::with_capacity(layout.peers.len());
    for (rows, first, last) in sessions(gap, layout, values)? {
        let end = Span::Fixed(gap).after(last);
        if let Err(error) = &end {
            rows.clone().for_each(|row| {
                failed.entry(row).or_insert_with(|| error.clone());
            });
        }
        ends.extend(rows.map(|_| *end.as_ref().unwrap_or(&first)));
    }
    times_as(&call.result, Int64Array::from(ends))
}

/// The first and the last row that a change of `row` can reach. `time` is the order column.
pub(super) fn around(
    store: &Store,
    partition: &[u8],
    row: &Key,
    time: usize,
    gap: i64,
) -> Result<(Key, Key), Cause> {
    let ahead = store.from(partition, Bound::Excluded(row));
    let back = store.before(partition, row);
    Ok((walk(store, back, row, time, gap)?, walk(store, ahead, row, time, gap)?))
}

/// The last row before a pause.
fn walk<'s>(
    store: &Store,
    mut rows: impl Iterator<Item = (&'s Key, &'s Entry)>,
    from: &Key,
    time: usize,
    gap: i64,
) -> Result<Key, Cause> {
    let decode = |keys: &[&Key]| -> Result<Int64Array, Cause> {
        let stored = store.codec.decode(keys.iter().copied())?;
        Ok(times(&store.codec.as_input(&stored)[time])?)
    };
    let mut last = from;
    let mut reached = decode(&[from])?.value(0);
    let mut count = DECODED.start;
    loop {
        let keys: Vec<&Key> = rows.by_ref().take(count).map(|(key, _)| key).collect();
        let found = decode(&keys)?;
        for (key, &time) in keys.iter().zip(found.values()) {
            if time.abs_diff(reached) > gap.unsigned_abs() {
                return Ok(Arc::clone(last));
            }
            (last, reached) = (key, time);
        }
        if keys.len() < count {
            return Ok(Arc::clone(last));
        }
        count = (2 * count).min(DECODED.end);
    }
}
