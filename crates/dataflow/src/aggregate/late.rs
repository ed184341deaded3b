//! Rows that come after their window is over.

use arrow::array::{Array, RecordBatch, UInt32Array};
use millpond_types::{Delta, EventTime};

use super::windows::is_over;
use crate::exchange::times;
use crate::fault::Cause;
use crate::operator::{LateRows, Output};
use crate::spec::CloseSpec;

/// Lists late rows and gives those that are in time; `None` if that is all of them.
pub(crate) fn refuse(close: &CloseSpec, delta: &Delta, out: &mut Output) -> Result<Option<Delta>, Cause> {
    if !any(close, &delta.batch)? {
        return Ok(None);
    }
    let ends = times(delta.batch.column(close.window_end))?;
    let marks = times(delta.batch.column(close.watermark))?;
    let late = |row: usize| {
        ends.is_valid(row)
            && marks.is_valid(row)
            && is_over(Some(ends.value(row)), close.lateness_micros, EventTime(marks.value(row)))
    };
    let (refused, kept): (Vec<u32>, Vec<u32>) = (0..delta.rows() as u32).partition(|row| late(*row as usize));
    if refused.is_empty() {
        return Ok(None);
    }
    out.late.push(LateRows {
        window_ends: refused.iter().map(|row| ends.value(*row as usize)).collect(),
        watermarks: refused.iter().map(|row| marks.value(*row as usize)).collect(),
        rows: delta.take(&UInt32Array::from(refused))?,
    });
    Ok(Some(delta.take(&UInt32Array::from(kept))?))
}

/// Whether any row may be late: one pass over two slices, nearly always the only one.
fn any(close: &CloseSpec, batch: &RecordBatch) -> Result<bool, Cause> {
    let ends = times(batch.column(close.window_end))?;
    let marks = times(batch.column(close.watermark))?;
    let bound = |end: i64| end.saturating_add(close.lateness_micros);
    Ok(ends.values().iter().zip(marks.values()).any(|(end, mark)| bound(*end) <= *mark))
}
