//! What happens to a delta of a join before it is split by hash: late rows and rows without a key leave it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{and, is_not_null, not};
use millpond_types::hash::hash_columns;
use millpond_types::{Delta, EventTime};

use super::Shape;
use super::output::Values;
use crate::aggregate::is_over;
use crate::exchange::times as times_of;
use crate::fault::Cause;
use crate::operator::{LateRows, Output, Piece, Router};

/// Hashes the keys of one side. Rows with a NULL in their key have no match, now or ever: they go straight to the output,
/// if the join gives rows without a match, or nowhere.
pub(super) struct JoinRouter {
    shape: Arc<Shape>,
    side: usize,
}

impl JoinRouter {
    pub(super) fn new(shape: Arc<Shape>, side: usize) -> Self {
        Self { shape, side }
    }

    fn pass_by(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause> {
        let Some(mark) = self.shape.alone(self.side, false) else { return Ok(()) };
        let all = UInt32Array::from_iter_values(0..delta.rows() as u32);
        let values = Values::Delta(delta.batch.columns(), all);
        let weights = (0..delta.rows()).map(|row| delta.weight(row)).collect();
        self.shape.emit_alone(self.side, &values, weights, vec![mark; delta.rows()], out)
    }
}

impl JoinRouter {
    /// The rows that are not late; `None` if that is all of them.
    fn in_time(&self, delta: &Delta, out: &mut Output) -> Result<Option<Delta>, Cause> {
        let Some(close) = &self.shape.close else { return Ok(None) };
        let bound = &close.sides[self.side];
        let times = times_of(delta.batch.column(bound.time))?;
        let marks = times_of(delta.batch.column(bound.watermark))?;
        let over = |time: i64| time.saturating_add(bound.late_micros);
        let late = |row: usize| {
            times.is_valid(row)
                && marks.is_valid(row)
                && is_over(Some(over(times.value(row))), close.lateness_micros, EventTime(marks.value(row)))
        };
        let (refused, kept): (Vec<u32>, Vec<u32>) =
            (0..delta.rows() as u32).partition(|row| late(*row as usize));
        if refused.is_empty() {
            return Ok(None);
        }
        out.late.push(LateRows {
            window_ends: refused.iter().map(|row| over(times.value(*row as usize))).collect(),
            watermarks: refused.iter().map(|row| marks.value(*row as usize)).collect(),
            rows: delta.take(&UInt32Array::from(refused))?,
        });
        Ok(Some(delta.take(&UInt32Array::from(kept))?))
    }
}

/// Where no column is NULL; `None` if that is everywhere.
pub(super) fn without_nulls<'a>(
    columns: impl Iterator<Item = &'a ArrayRef>,
) -> Result<Option<BooleanArray>, Cause> {
    let mut mask: Option<BooleanArray> = None;
    for column in columns.filter(|column| column.null_count() > 0) {
        let valid = is_not_null(column)?;
        mask = Some(match mask {
            Some(mask) => and(&mask, &valid)?,
            None => valid,
        });
    }
    Ok(mask)
}

impl Router for JoinRouter {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause> {
        let places = &self.shape.keys[self.side];
        let keys =
            |delta: &Delta| places.iter().map(|c| Arc::clone(delta.batch.column(*c))).collect::<Vec<_>>();
        let in_time = self.in_time(delta, out)?;
        let delta = in_time.as_ref().unwrap_or(delta);
        let mut needed = if self.shape.nulls_equal { Vec::new() } else { keys(delta) };
        needed.extend(
            self.shape.close.map(|close| Arc::clone(delta.batch.column(close.sides[self.side].time))),
        );
        let mut keyed = None;
        if let Some(mask) = without_nulls(needed.iter())? {
            self.pass_by(&delta.filter(&not(&mask)?)?, out)?;
            keyed = Some(delta.filter(&mask)?);
        }
        let delta = keyed.as_ref().unwrap_or(delta);
        Ok(Piece {
            port: self.side,
            columns: delta.batch.columns().to_vec(),
            weights: delta.weights().map(Arc::from),
            hashes: hash_columns(&keys(delta), delta.rows())?,
        })
    }
}
