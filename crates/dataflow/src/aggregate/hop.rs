//! GROUP BY over HOP and CUMULATE, per slice.
//!
//! A window of `size` that starts every `slide` consists of slices of gcd(slide, size); one that grows by `slide` up to `size`, of
//! slices of `slide`. Within an epoch a row is added once,
//! to the partial table of its slice; at the end of the epoch the groups of the slice are merged into each window that
//! contains it. With size/slide = 10 that is one addition per row and ten per group, not ten per row.
//!
//! Whether a row is late is asked of each of its windows, by the row's own watermark W. The windows of a slice close in the
//! order of their ends, so those that a row may still enter are the last ones, from some window on. Partial tables are kept
//! per slice *and* first window that is open: rows of one slice with different W never mix wrongly, and nearly all rows of a
//! stream share one such pair.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, UInt32Array};
use arrow::datatypes::SchemaRef;
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError, SqlState};

use super::freeze::{AGGREGATE_STATES, Changes};
use super::group_by::{Projection, ROWS_PER_PASS};
use super::layout::Layout;
use super::table::{Table, Window};
use super::windows::{Closing, Windows, is_over};
use crate::exchange::{is_time, times};
use crate::fault::Cause;
use crate::operator::{Built, LateRows, Operator, Output, Piece, Progress, RejectedRow, Router};
use crate::spec::{HopClose, HopSpec};

/// The first timestamp that PostgreSQL knows, 4714-11-24 BC.
const FIRST_TIME: i64 = -210_866_803_200_000_000;

/// The arithmetic of slices and windows, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Hops {
    slide: i64,
    size: i64,
    slice: i64,
    offset: i64,
    /// Windows begin together every `size`, and end every `slide`.
    cumulative: bool,
}

impl Hops {
    /// # Errors
    /// XX000 if the lengths are not positive or slide > size.
    fn new(spec: &HopSpec) -> Result<Self, SqlError> {
        let (slide, size) = (spec.slide_micros, spec.size_micros);
        if slide <= 0 || size < slide {
            return Err(SqlError::internal("a hop needs 0 < slide <= size"));
        }
        let (mut a, mut slice) = (size, slide);
        while a % slice != 0 {
            (a, slice) = (slice, a % slice);
        }
        let cumulative = spec.cumulative;
        if cumulative && slice != slide {
            return Err(SqlError::internal("a size is a multiple of its step"));
        }
        let offset = spec.offset_micros.rem_euclid(if cumulative { size } else { slide });
        Ok(Self { slide, size, slice, offset, cumulative })
    }

    /// The start of the slice that `time` is in; `None` where one of its windows would leave PostgreSQL's timestamps.
    fn slice_of(&self, time: i64) -> Option<i64> {
        let start = time.checked_sub(self.offset)?.div_euclid(self.slice) * self.slice;
        let start = start.checked_add(self.offset)?;
        let first = start.checked_sub(self.size)?;
        start.checked_add(self.size)?.checked_add(self.slide)?;
        (first >= FIRST_TIME).then_some(start)
    }

    /// The end of the earliest window that contains a slice.
    fn first_end(&self, slice: i64) -> i64 {
        if self.cumulative {
            return slice + self.slide;
        }
        // Windows end at offset + size + n × slide; the earliest that contains the slice ends at or after the slice does.
        let least = slice + self.slice - self.offset - self.size;
        least.div_euclid(self.slide) * self.slide
            + if least.rem_euclid(self.slide) == 0 { 0 } else { self.slide }
            + self.offset
            + self.size
    }

    /// No window that contains a slice ends later.
    fn last_end(&self, slice: i64) -> i64 {
        match self.cumulative {
            true => self.whole(slice) + self.size,
            false => slice + self.size,
        }
    }

    /// The start of the windows of CUMULATE that `time` is in.
    fn whole(&self, time: i64) -> i64 {
        (time - self.offset).div_euclid(self.size) * self.size + self.offset
    }

    fn start(&self, end: i64) -> i64 {
        if self.cumulative { self.whole(end - 1) } else { end - self.size }
    }

    /// The ends of the windows that contain a slice, from `first` on.
    fn ends(&self, slice: i64, first: i64) -> impl Iterator<Item = i64> + use<> {
        let (slide, last) = (self.slide, self.last_end(slice));
        std::iter::successors(Some(first), move |end| end.checked_add(slide))
            .take_while(move |end| *end <= last)
    }
}

/// A partial table's slice, and the end of the first window that its rows may enter.
type Label = (i64, i64);

/// Finds the slice of each row, and refuses rows for the windows that were over before they came.
struct HopRouter {
    projection: Projection,
    hops: Hops,
    time: usize,
    close: Option<HopClose>,
}

#[derive(Default)]
struct LateWindows {
    rows: Vec<u32>,
    ends: Vec<i64>,
    marks: Vec<i64>,
}

impl HopRouter {
    /// The first window that a row with watermark `mark` may enter, after listing those that it may not.
    fn first_open(&self, slice: i64, row: usize, mark: Option<i64>, late: &mut LateWindows) -> i64 {
        let mut first = self.hops.first_end(slice);
        let (Some(close), Some(mark)) = (&self.close, mark) else { return first };
        let last = self.hops.last_end(slice);
        while is_over(Some(first), close.lateness_micros, EventTime(mark)) && first <= last {
            late.rows.push(row as u32);
            late.ends.push(first);
            late.marks.push(mark);
            first = first.saturating_add(self.hops.slide);
        }
        first
    }
}

impl Router for HopRouter {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause> {
        let time = times(delta.batch.column(self.time))?;
        let marks = self.close.map(|close| times(delta.batch.column(close.watermark))).transpose()?;
        let mut late = LateWindows::default();
        let (mut slices, mut firsts) = (Vec::with_capacity(time.len()), Vec::with_capacity(time.len()));
        let mut kept: Vec<u32> = Vec::with_capacity(time.len());
        // Neighbours are mostly in one slice and of one frame.
        let mut last: Option<(i64, Option<i64>, i64)> = None;
        for (row, time) in time.iter().enumerate() {
            let Some(time) = time else { continue };
            let mark = marks.as_ref().and_then(|m| m.is_valid(row).then(|| m.value(row)));
            if let Some((slice, of, first)) = last
                && of == mark
                && (time.wrapping_sub(slice) as u64) < self.hops.slice as u64
            {
                kept.push(row as u32);
                slices.push(slice);
                firsts.push(first);
                continue;
            }
            let Some(slice) = self.hops.slice_of(time) else {
                let error = SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range");
                let (row, weight) = (delta.batch.slice(row, 1), delta.weight(row));
                out.rejected.push(RejectedRow { error, row, weight });
                continue;
            };
            let refused = late.rows.len();
            let first = self.first_open(slice, row, mark, &mut late);
            if first <= self.hops.last_end(slice) {
                kept.push(row as u32);
                slices.push(slice);
                firsts.push(first);
                last = (late.rows.len() == refused).then_some((slice, mark, first));
            }
        }
        if !late.rows.is_empty() {
            let rows = delta.take(&UInt32Array::from(late.rows))?;
            out.late.push(LateRows { rows, window_ends: late.ends, watermarks: late.marks });
        }
        let mut piece = match kept.len() == delta.rows() {
            true => self.projection.piece(delta)?,
            false => self.projection.piece(&delta.take(&UInt32Array::from(kept))?)?,
        };
        piece.columns.push(Arc::new(Int64Array::from(slices)));
        piece.columns.push(Arc::new(Int64Array::from(firsts)));
        Ok(piece)
    }
}

/// One shard of a hop.
struct Hop {
    windows: Windows,
    layout: Arc<Layout>,
    hops: Hops,
    keys: usize,
    /// Where pieces hold the slice, and behind it the first open window.
    label_at: usize,
    partials: BTreeMap<Label, Table>,
    /// Emptied tables, for the next epoch.
    spare: Vec<Table>,
}

/// The router and the shards of a hop over `input`.
///
/// # Errors
/// As [`super::group_by::build`].
pub(crate) fn build(input: &SchemaRef, spec: &HopSpec, shards: usize) -> Result<Built, SqlError> {
    let hops = Hops::new(spec)?;
    let times = [Some(spec.time), spec.close.map(|c| c.watermark)];
    let fits = |c: &usize| input.fields().get(*c).is_some_and(|f| is_time(f.data_type()));
    if !times.iter().flatten().all(fits) {
        return Err(SqlError::internal("a hop needs columns of time"));
    }
    let projection = Projection::new(&spec.keys, &spec.calls, input)?;
    let layout = projection.layout(input, spec.append_only, false, &spec.schema)?;
    let closing =
        spec.close.map(|c| Closing { lateness_micros: c.lateness_micros, emit_on_close: c.emit_on_close });
    let operators = (0..shards).map(|_| -> Box<dyn Operator> {
        Box::new(Hop {
            windows: Windows::new(Arc::clone(&layout), closing),
            layout: Arc::clone(&layout),
            hops,
            keys: projection.keys,
            label_at: projection.columns.len(),
            partials: BTreeMap::new(),
            spare: Vec::new(),
        })
    });
    let shards = operators.collect();
    let router = Arc::new(HopRouter { projection, hops, time: spec.time, close: spec.close });
    Ok(Built { routers: vec![router], shards, states: &AGGREGATE_STATES })
}

impl Hop {
    /// Merges the slices of the epoch into their windows.
    fn merge(&mut self) {
        while let Some(((slice, first), mut partial)) = self.partials.pop_first() {
            let groups = partial.gather();
            for end in self.hops.ends(slice, first) {
                let window = Window { start: Some(self.hops.start(end)), end: Some(end) };
                self.windows.table(window).merge(&partial, &groups);
            }
            if self.spare.len() < 8 {
                partial.clear();
                self.spare.push(partial);
            }
        }
    }
}

impl Operator for Hop {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        let (slices, firsts) =
            (times(&piece.columns[self.label_at])?, times(&piece.columns[self.label_at + 1])?);
        let labels: Vec<Label> =
            slices.values().iter().copied().zip(firsts.values().iter().copied()).collect();
        for (label, piece) in piece.by_label(&labels)? {
            let table = self.partials.entry(label).or_insert_with(|| {
                self.spare.pop().unwrap_or_else(|| Table::partial(Arc::clone(&self.layout)))
            });
            let mut from = 0;
            while from < piece.rows() {
                let part = piece.slice(from, ROWS_PER_PASS.min(piece.rows() - from));
                let keys = self.layout.codec.encode(&part.columns[..self.keys], part.rows())?;
                table.update(&keys, &part.hashes, &part.columns, part.weights.as_deref())?;
                from += part.rows();
            }
        }
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        self.merge();
        self.windows.poll(out)
    }

    fn watermark(&mut self, mark: EventTime) {
        self.windows.watermark(mark);
    }

    fn freeze(&mut self, changes: &mut Changes) {
        self.windows.freeze(changes);
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        self.windows.restore(state, run, shard, shards)
    }

    fn rows(&self) -> usize {
        self.windows.rows()
    }

    fn memory_bytes(&self) -> usize {
        let partials = self.partials.values().chain(&self.spare);
        self.windows.memory_bytes() + partials.map(Table::memory_bytes).sum::<usize>()
    }
}
