//! A view on a thread of its own: what its inputs held at a cut, and what they changed by since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millpond_env::Clock;
use millpond_log::{FrameRef, Log};
use millpond_state::HeapSnapshot;
use millpond_types::{Delta, EventTime, RelationId};
use rayon::prelude::*;

use crate::changes::{Changes, Piece};
use crate::clock::CLOCK;
use crate::driver::{Budget, guarded};
use crate::shape::Shape;
use crate::snapshot::FrameFacts;
use crate::view::{Stepped, View, history_piece};

/// Epochs' worth of rows that are read at a time, while the graph works on those before them.
const STEP_EPOCHS: usize = 4;
/// What is built out of so much is mostly built before anybody would notice that it is done elsewhere.
const SMALL_ROWS: usize = 1 << 15;

/// What a view has to see before it follows.
#[derive(Default)]
pub(crate) struct History {
    /// Frames of append-only relations up to the cut.
    pub topics: Vec<(RelationId, Arc<Shape>, Vec<FrameRef>)>,
    /// Contents of tables and views at the cut, and how many of the columns are declared.
    pub heaps: Vec<(RelationId, Arc<HeapSnapshot>, usize)>,
    /// Watermarks at the cut.
    pub watermarks: BTreeMap<RelationId, EventTime>,
}

impl History {
    pub fn is_small(&self) -> bool {
        let frames: usize = self.topics.iter().flat_map(|(_, _, f)| f).map(|f| f.rows as usize).sum();
        let heaps: usize = self.heaps.iter().map(|(_, heap, _)| heap.rows()).sum();
        frames + heaps <= SMALL_ROWS
    }
}

pub(crate) struct Job {
    pub view: View,
    pub history: Option<History>,
    /// Epochs by number, in order. The view may have begun the first already.
    pub epochs: Vec<(u64, Changes)>,
    pub log: Log,
    pub pool: Arc<rayon::ThreadPool>,
    pub clock: Arc<dyn Clock>,
    pub budget: Budget,
    pub epoch_rows: usize,
    /// Of the live state that waits for the view.
    pub generation: u64,
    pub ticket: u64,
    pub rows_done: Arc<AtomicU64>,
    /// Nobody waits for it any more.
    pub stop: Arc<AtomicBool>,
}

/// The frames of one step after another, of at least `rows_min` rows each but the last.
fn steps(frames: &[FrameRef], rows_min: usize) -> impl Iterator<Item = &[FrameRef]> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let enough = rest.iter().position(|frame| {
            rows += frame.rows as usize;
            rows >= rows_min
        });
        let (step, left) = rest.split_at(enough.map_or(rest.len(), |last| last + 1));
        rest = left;
        (!step.is_empty()).then_some(step)
    })
}

/// A view that has done its job, or why it could not.
pub(crate) struct Followed {
    pub id: RelationId,
    pub generation: u64,
    pub ticket: u64,
    pub view: Result<View, String>,
    /// What the history did: rows that were refused.
    pub history: Stepped,
    pub epochs: Vec<(u64, Stepped)>,
    /// An epoch took longer than the driver would have waited.
    pub slow: bool,
    /// It has failed because it would have held too much.
    pub full: bool,
}

impl Job {
    /// `None` if it was stopped.
    pub fn run(mut self) -> Option<Followed> {
        let (id, generation, ticket) = (self.view.id(), self.generation, self.ticket);
        let mut followed = Followed {
            id,
            generation,
            ticket,
            view: Err(String::new()),
            history: Stepped::default(),
            epochs: Vec::new(),
            slow: false,
            full: false,
        };
        let fed = guarded(|| {
            self.feed(&mut followed.history)?;
            self.follow(&mut followed)
        });
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        followed.full = self.view.full;
        followed.view = fed.map(|()| self.view);
        Some(followed)
    }

    fn feed(&mut self, refused: &mut Stepped) -> Result<(), String> {
        let Some(history) = self.history.take() else { return Ok(()) };
        // What is over by now need not come first and go then.
        let clock = history.watermarks.get_key_value(&CLOCK).map(|(id, now)| (*id, *now));
        self.step(&Changes { watermarks: clock.into_iter().collect(), ..Changes::default() }, refused)?;
        for (relation, heap, declared) in history.heaps {
            for batch in heap.batches(None) {
                let batch = batch.map_err(|fault| fault.to_string())?;
                let piece = history_piece(batch, declared).map_err(|e| e.to_string())?;
                let mut changes = Changes::default();
                changes.push(relation, piece);
                self.step(&changes, refused)?;
            }
        }
        for (relation, shape, frames) in history.topics {
            self.feed_topic(relation, &shape, &frames, refused)?;
        }
        // Windows close last: every row has its own frame's watermark with it.
        let ends = Changes { watermarks: history.watermarks, ..Changes::default() };
        self.step(&ends, refused)
    }

    fn follow(&mut self, followed: &mut Followed) -> Result<(), String> {
        for (number, changes) in std::mem::take(&mut self.epochs) {
            let start = self.clock.monotonic();
            if !self.view.is_passing() {
                self.view.begin(&changes, self.epoch_rows)?;
            }
            let stepped = self.pass()?;
            let took = self.clock.monotonic().saturating_sub(start);
            followed.slow |= took > self.budget.of(changes.rows);
            followed.epochs.push((number, stepped));
        }
        Ok(())
    }

    /// The next frames are read while the graph works on those before them.
    fn feed_topic(
        &mut self,
        relation: RelationId,
        shape: &Shape,
        frames: &[FrameRef],
        refused: &mut Stepped,
    ) -> Result<(), String> {
        let (log, pool) = (self.log.clone(), Arc::clone(&self.pool));
        let read = |frames: &[FrameRef]| -> Result<Changes, String> {
            let read = |frame: &FrameRef| {
                let batch = log.read(frame, None).map_err(|e| e.to_string())?;
                let batch = shape.complete(&batch).map_err(|e| e.to_string())?;
                Ok::<_, String>(Piece { delta: Delta::insert(batch), facts: Some(FrameFacts::of(frame)) })
            };
            let pieces: Vec<Piece> = frames.par_iter().map(read).collect::<Result<_, _>>()?;
            let mut changes = Changes::default();
            pieces.into_iter().for_each(|piece| changes.push(relation, piece));
            // What the last frame came after, all later frames come after too.
            let watermark = frames.last().and_then(|frame| frame.watermark);
            changes.watermarks.extend(watermark.map(|watermark| (relation, watermark)));
            Ok(changes)
        };
        let mut steps = steps(frames, self.epoch_rows.saturating_mul(STEP_EPOCHS)).peekable();
        let mut next = match steps.peek() {
            Some(first) => pool.install(|| read(first))?,
            None => return Ok(()),
        };
        while steps.next().is_some() {
            let current = std::mem::take(&mut next);
            let Some(following) = steps.peek() else { return self.step(&current, refused) };
            let (stepped, read) = pool.join(|| self.step(&current, refused), || read(following));
            stepped?;
            next = read?;
        }
        Ok(())
    }

    fn step(&mut self, changes: &Changes, refused: &mut Stepped) -> Result<(), String> {
        self.view.begin(changes, self.epoch_rows)?;
        let stepped = self.pass()?;
        refused.errors.extend(stepped.errors);
        refused.late.extend(stepped.late);
        self.rows_done.fetch_add(changes.rows as u64, Ordering::Relaxed);
        Ok(())
    }

    fn pass(&mut self) -> Result<Stepped, String> {
        let stop = &self.stop;
        let stepped = self.view.resume(&mut || !stop.load(Ordering::Relaxed))?;
        if let Some(why) = self.view.beyond() {
            self.view.full = true;
            return Err(why);
        }
        stepped.ok_or_else(|| "nobody waits for it any more".to_owned())
    }
}
