//! One table per window, so that closing a window is freeing its table.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_types::{Delta, EventTime};

use super::layout::Layout;
use super::table::{Table, Window};
use crate::fault::Cause;
use crate::operator::{Output, Progress};

/// A poll gives about so many rows, at most.
const ROWS_PER_POLL: usize = 4096;

/// When windows close.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) lateness_micros: i64,
    pub(super) emit_on_close: bool,
}

/// The tables of one shard.
pub(super) struct Windows {
    pub(super) layout: Arc<Layout>,
    closing: Option<Closing>,
    /// By the end of the window; without windows, or where the end is NULL, under `None`.
    pub(super) tables: BTreeMap<Option<i64>, Table>,
    /// Freed tables that a checkpoint knows of: their end has yet to be written.
    pub(super) closed: Vec<Table>,
    mark: EventTime,
}

impl Windows {
    pub(super) fn new(layout: Arc<Layout>, closing: Option<Closing>) -> Self {
        Self { layout, closing, tables: BTreeMap::new(), closed: Vec::new(), mark: EventTime::MIN }
    }

    /// The table of a window, made when it is not there.
    pub(super) fn table(&mut self, window: Window) -> &mut Table {
        let passed = window.end.is_none_or(|end| end <= self.mark.0);
        let held = self.closing.is_some_and(|c| c.emit_on_close) && !passed;
        self.tables.entry(window.end).or_insert_with(|| Table::new(Arc::clone(&self.layout), window, held))
    }

    /// Publishes one batch; when nothing is left, frees the windows that the watermark has passed.
    pub(super) fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        for table in self.tables.values_mut().filter(|table| !table.is_idle()) {
            let progress = table.poll(out)?;
            let rows: usize = out.deltas.iter().map(Delta::rows).sum();
            if progress == Progress::More || rows >= ROWS_PER_POLL {
                return Ok(Progress::More);
            }
        }
        self.free();
        Ok(Progress::Done)
    }

    fn free(&mut self) {
        let Some(closing) = self.closing else { return };
        while let Some(entry) = self.tables.range(Some(i64::MIN)..).next() {
            let end = *entry.0;
            if !is_over(end, closing.lateness_micros, self.mark) {
                break;
            }
            let table = self.tables.remove(&end).expect("it was just seen");
            if table.is_persisted() {
                self.closed.push(table);
            }
        }
    }

    pub(super) fn watermark(&mut self, mark: EventTime) {
        self.mark = mark;
        if self.closing.is_some_and(|c| c.emit_on_close) {
            let passed = Some(i64::MIN)..=Some(mark.0);
            self.tables.range_mut(passed).map(|(_, t)| t).filter(|t| t.is_held()).for_each(Table::release);
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.tables.values().map(Table::groups).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.tables.values().chain(&self.closed).map(Table::memory_bytes).sum()
    }
}

/// A window that has ended and may not be corrected any more, as a row with the watermark `mark` sees it.
#[inline]
pub(crate) fn is_over(end: Option<i64>, lateness_micros: i64, mark: EventTime) -> bool {
    end.is_some_and(|end| end.saturating_add(lateness_micros) <= mark.0)
}
