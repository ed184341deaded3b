//! One shard of a join.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::Int64Type;
use millpond_state::KeyedRun;
use millpond_types::EventTime;

use super::freeze::saved_pieces;
use super::keys::KeyTable;
use super::output::Values;
use super::side::{Applied, Side};
use super::{JOIN_STATES, OUTPUT_ROWS, Shape};
use crate::aggregate::Changes;
use crate::aggregate::key::KeyCodec;
use crate::exchange::times;
use crate::fault::Cause;
use crate::operator::{Operator, Output, Piece, Progress};

/// Rows whose heaps are tidied at the end of an epoch, at least.
const UPKEEP_ROWS: usize = 16_384;

pub(super) struct Join {
    shape: Arc<Shape>,
    keys: KeyTable,
    sides: [Side; 2],
    /// Deltas of this epoch that wait for their turn.
    queues: [VecDeque<Piece>; 2],
    work: Option<Work>,
    /// Deltas are numbered, so that what each has touched can be told apart.
    number: u64,
    rows_in_epoch: usize,
    /// A watermark that rows may be freed by.
    mark: Option<EventTime>,
    shard: usize,
    shards: usize,
}

/// A delta that is being worked on. It is applied to its side already; the other side does not change meanwhile.
struct Work {
    side: usize,
    columns: Vec<ArrayRef>,
    /// The keys of its rows.
    slots: Vec<u32>,
    applied: Vec<Applied>,
    /// Keys of the delta with their weight before it, where the other side's rows depend on it.
    keys_before: Vec<(u32, i64)>,
    /// Rows of the other side with the weight of their matches before it, likewise.
    entries_before: Vec<(u32, i64)>,
    stage: Stage,
    /// It comes from a checkpoint: nothing is given out.
    silent: bool,
}

/// Each stage remembers how far it has come.
#[derive(Clone, Copy)]
enum Stage {
    /// The row of the delta, and the entry of the other side that it meets next.
    Pairs {
        row: usize,
        entry: Option<u32>,
    },
    /// The delta's own rows, alone.
    Own {
        row: usize,
    },
    /// Rows of the other side whose match comes or goes: the key or entry, and where in the key's chain.
    Others {
        at: usize,
        entry: Option<u32>,
    },
    Done,
}

impl Join {
    pub(super) fn new(shape: Arc<Shape>, codec: KeyCodec, shard: usize, shards: usize) -> Self {
        let side = |side| {
            let schema = Arc::clone(&shape.schemas[side]);
            Side::new(side, schema, shape.consolidates(side), shape.counts(side), shard, shards)
        };
        Self {
            keys: KeyTable::new(codec),
            sides: [side(0), side(1)],
            queues: [VecDeque::new(), VecDeque::new()],
            work: None,
            number: 0,
            rows_in_epoch: 0,
            mark: None,
            shard,
            shards,
            shape,
        }
    }

    /// The next delta. Where left rows are given by whether they match, right ones come first, and the other way round:
    /// so a row and its match that come in one epoch are not given as lonely before.
    fn next_piece(&mut self) -> Option<Piece> {
        let first = usize::from(self.shape.tracks(0));
        let piece = self.queues[first].pop_front();
        piece.or_else(|| self.queues[1 - first].pop_front())
    }

    /// Applies a delta to its side. Of a saved piece the last column is the rows' ids.
    fn begin(&mut self, piece: Piece, saved: bool) -> Result<(), Cause> {
        let shape = Arc::clone(&self.shape);
        let (side, other) = (piece.port, 1 - piece.port);
        self.number += 1;
        self.rows_in_epoch += piece.rows();
        let (columns, ids) = piece.columns.split_at(shape.width(side));
        let ids = ids.first().filter(|_| saved).map(|ids| &ids.as_primitive::<Int64Type>().values()[..]);
        let key_columns: Vec<ArrayRef> = shape.keys[side].iter().map(|c| Arc::clone(&columns[*c])).collect();
        let encoded = self.keys.codec.encode(&key_columns, piece.rows())?;
        let slots = self.keys.upsert(&encoded, &piece.hashes);
        let by_key = shape.tracks(other) && !shape.counts(other);
        let mut keys_before = Vec::new();
        for &slot in &slots {
            if self.keys.touch(slot, self.number) && by_key {
                keys_before.push((slot, self.keys.weight(slot, side)));
            }
        }
        let weights = piece.weights.as_deref();
        let applied = self.sides[side].apply(&mut self.keys, &slots, columns, weights, ids)?;
        if let Some(close) = &shape.close {
            let bound = &close.sides[side];
            let after = bound.free_micros.saturating_add(close.lateness_micros);
            let times = times(&columns[bound.time])?;
            for applied in applied.iter().filter(|applied| applied.fresh) {
                let end = times.value(applied.row as usize).saturating_add(after);
                self.sides[side].expire_at(applied.entry, end);
            }
        }
        let counted = shape.counts(0) || shape.counts(1);
        let pairs = if saved { counted } else { shape.pairs() || counted };
        let stage = if pairs { Stage::Pairs { row: 0, entry: None } } else { Stage::Own { row: 0 } };
        self.work = Some(Work {
            side,
            columns: columns.to_vec(),
            slots,
            applied,
            keys_before,
            entries_before: Vec::new(),
            stage,
            silent: saved,
        });
        Ok(())
    }

    /// Goes on with the delta at hand, for about [`OUTPUT_ROWS`] rows.
    fn advance(&mut self, out: &mut Output) -> Result<(), Cause> {
        let mut work = self.work.take().expect("the caller has looked");
        work.stage = match work.stage {
            Stage::Pairs { row, entry } => self.pairs(&mut work, row, entry, out)?,
            Stage::Own { .. } | Stage::Others { .. } if work.silent => Stage::Done,
            Stage::Own { row } => self.own(&work, row, out)?,
            Stage::Others { at, entry } => self.others(&work, at, entry, out)?,
            Stage::Done => Stage::Done,
        };
        match work.stage {
            Stage::Done => self.finish(&work),
            _ => {
                self.work = Some(work);
                Ok(())
            }
        }
    }

    fn pairs(
        &mut self,
        work: &mut Work,
        mut row: usize,
        mut entry: Option<u32>,
        out: &mut Output,
    ) -> Result<Stage, Cause> {
        let other = 1 - work.side;
        let (mut at, mut rows, mut entries, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut begun = entry.is_some();
        while row < work.applied.len() && weights.len() < OUTPUT_ROWS {
            let applied = work.applied[row];
            let mut next = if begun { entry } else { self.keys.head(applied.key, other) };
            begun = false;
            while let Some(met) = next {
                if weights.len() == OUTPUT_ROWS {
                    break;
                }
                at.push(row as u32);
                rows.push(applied.row);
                entries.push(met);
                weights.push(applied.weight * self.sides[other].weight(met));
                next = self.sides[other].next(met);
            }
            if next.is_some() {
                (begun, entry) = (true, next);
                break;
            }
            row += 1;
        }
        let stage = if row < work.applied.len() {
            Stage::Pairs { row, entry: entry.filter(|_| begun) }
        } else {
            Stage::Own { row: 0 }
        };
        let mut scratch = Output::default();
        let sink = if work.silent { &mut scratch } else { out };
        if self.shape.residual.is_some() && !weights.is_empty() {
            let kept = {
                let values = self.values(work, &rows, &entries);
                self.shape.residual([&values[0], &values[1]], &weights, sink)?
            };
            let mut kept = kept.unwrap_or_default().into_iter();
            let mut keep = 0;
            for pair in 0..weights.len() {
                if kept.next() == Some(true) {
                    (at[keep], rows[keep], entries[keep], weights[keep]) =
                        (at[pair], rows[pair], entries[pair], weights[pair]);
                    keep += 1;
                }
            }
            at.truncate(keep);
            rows.truncate(keep);
            entries.truncate(keep);
            weights.truncate(keep);
            self.count(work, &at, &entries);
        }
        if self.shape.pairs() && !work.silent {
            let values = self.values(work, &rows, &entries);
            self.shape.emit([&values[0], &values[1]], weights, None, sink)?;
        }
        Ok(stage)
    }

    /// The values of some pairs: rows of the delta and entries of the other side.
    fn values<'a>(&'a self, work: &'a Work, rows: &[u32], entries: &[u32]) -> [Values<'a>; 2] {
        let other = &self.sides[1 - work.side];
        let own = Values::Delta(&work.columns, UInt32Array::from(rows.to_vec()));
        let met = Values::Stored(&other.heap, other.row_ids(entries));
        if work.side == 0 { [own, met] } else { [met, own] }
    }

    /// Counts matching pairs on the sides that need it.
    fn count(&mut self, work: &mut Work, at: &[u32], entries: &[u32]) {
        let (side, other) = (work.side, 1 - work.side);
        for (&at, &met) in at.iter().zip(entries) {
            let applied = work.applied[at as usize];
            if self.shape.counts(side) && applied.fresh {
                let weight = self.sides[other].weight(met);
                self.sides[side].add_matches(applied.entry, weight);
            }
            if self.shape.counts(other) {
                let met_side = &mut self.sides[other];
                if met_side.touch(met, self.number) {
                    work.entries_before.push((met, met_side.matches(met)));
                }
                met_side.add_matches(met, applied.weight);
            }
        }
    }

    fn own(&self, work: &Work, row: usize, out: &mut Output) -> Result<Stage, Cause> {
        let (side, shape) = (work.side, &self.shape);
        if !shape.tracks(side) {
            return Ok(Stage::Others { at: 0, entry: None });
        }
        let until = work.applied.len().min(row + OUTPUT_ROWS);
        let (mut rows, mut weights, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for applied in &work.applied[row..until] {
            let matched = if shape.counts(side) {
                self.sides[side].matches(applied.entry) > 0
            } else {
                self.keys.weight(applied.key, 1 - side) > 0
            };
            if let Some(mark) = shape.alone(side, matched) {
                rows.push(applied.row);
                weights.push(applied.weight);
                marks.push(mark);
            }
        }
        let values = Values::Delta(&work.columns, UInt32Array::from(rows));
        shape.emit_alone(side, &values, weights, marks, out)?;
        Ok(if until < work.applied.len() {
            Stage::Own { row: until }
        } else {
            Stage::Others { at: 0, entry: None }
        })
    }

    fn others(
        &self,
        work: &Work,
        mut at: usize,
        mut entry: Option<u32>,
        out: &mut Output,
    ) -> Result<Stage, Cause> {
        let other = 1 - work.side;
        if !self.shape.tracks(other) {
            return Ok(Stage::Done);
        }
        let mut lonely = Lonely::default();
        if self.shape.counts(other) {
            while at < work.entries_before.len() && lonely.weights.len() < OUTPUT_ROWS {
                let (met, before) = work.entries_before[at];
                let (was, is) = (before > 0, self.sides[other].matches(met) > 0);
                lonely.toggle(&self.shape, other, met, self.sides[other].weight(met), was, is);
                at += 1;
            }
            self.emit_lonely(other, lonely, out)?;
            let more = at < work.entries_before.len();
            return Ok(if more { Stage::Others { at, entry: None } } else { Stage::Done });
        }
        while at < work.keys_before.len() && lonely.weights.len() < OUTPUT_ROWS {
            let (key, before) = work.keys_before[at];
            let (was, is) = (before > 0, self.keys.weight(key, work.side) > 0);
            let mut next = match entry.take() {
                Some(entry) => Some(entry),
                None => self.keys.head(key, other).filter(|_| was != is),
            };
            while let Some(met) = next {
                if lonely.weights.len() >= OUTPUT_ROWS {
                    break;
                }
                lonely.toggle(&self.shape, other, met, self.sides[other].weight(met), was, is);
                next = self.sides[other].next(met);
            }
            if next.is_some() {
                entry = next;
                break;
            }
            at += 1;
        }
        self.emit_lonely(other, lonely, out)?;
        Ok(if at < work.keys_before.len() { Stage::Others { at, entry } } else { Stage::Done })
    }

    fn emit_lonely(&self, side: usize, lonely: Lonely, out: &mut Output) -> Result<(), Cause> {
        if lonely.weights.is_empty() {
            return Ok(());
        }
        let heap = &self.sides[side].heap;
        let values = Values::Stored(heap, self.sides[side].row_ids(&lonely.entries));
        self.shape.emit_alone(side, &values, lonely.weights, lonely.marks, out)
    }

    /// Forgets entries of the delta that have no weight left, and keys without rows.
    fn finish(&mut self, work: &Work) -> Result<(), Cause> {
        let side = &mut self.sides[work.side];
        let gone = work.applied.iter().filter(|applied| !applied.fresh && side.weight(applied.entry) == 0);
        let gone: Vec<u32> = gone.map(|applied| applied.entry).collect();
        side.remove(&mut self.keys, &gone)?;
        // Rows of the delta that cancelled each other may have made a key, too.
        if !gone.is_empty() || work.applied.len() < work.slots.len() {
            work.slots.iter().for_each(|slot| self.keys.remove_unused(*slot));
        }
        Ok(())
    }
}

/// Rows of the other side to be given and taken back.
#[derive(Default)]
struct Lonely {
    entries: Vec<u32>,
    weights: Vec<i64>,
    marks: Vec<bool>,
}

impl Lonely {
    fn toggle(&mut self, shape: &Shape, side: usize, entry: u32, weight: i64, was: bool, is: bool) {
        if was == is {
            return;
        }
        for (matched, weight) in [(was, -weight), (is, weight)] {
            if let Some(mark) = shape.alone(side, matched) {
                self.entries.push(entry);
                self.weights.push(weight);
                self.marks.push(mark);
            }
        }
    }
}

impl Operator for Join {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.queues[piece.port].push_back(piece);
        Ok(())
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        loop {
            if self.work.is_none() {
                let Some(piece) = self.next_piece() else { break };
                self.begin(piece, false)?;
            }
            self.advance(out)?;
            if out.deltas.iter().map(|delta| delta.rows()).sum::<usize>() >= OUTPUT_ROWS {
                return Ok(Progress::More);
            }
        }
        if let Some(EventTime(mark)) = self.mark.take() {
            for side in &mut self.sides {
                for key in side.expire(&mut self.keys, mark)? {
                    self.keys.remove_unused(key);
                    self.rows_in_epoch += 1;
                }
            }
        }
        let budget = std::mem::take(&mut self.rows_in_epoch);
        if budget > 0 {
            self.sides.iter_mut().try_for_each(|side| side.end_epoch(budget.max(UPKEEP_ROWS)))?;
            self.keys.tidy();
        }
        Ok(Progress::Done)
    }

    fn watermark(&mut self, mark: EventTime) {
        self.mark = Some(mark);
    }

    fn freeze(&mut self, changes: &mut Changes) {
        for (side, state) in self.sides.iter_mut().zip(JOIN_STATES) {
            changes.side(state, side);
        }
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        debug_assert_eq!((shard, shards), (self.shard, self.shards), "shards know their place");
        let Some(side) = JOIN_STATES.iter().position(|name| *name == state) else {
            return Err(Cause::Saved(format!("there is no state \"{state}\"")));
        };
        let mut largest = -1;
        let shape = Arc::clone(&self.shape);
        let (schema, keys) = (&shape.schemas[side], &shape.keys[side]);
        let never_null = if shape.nulls_equal { &[][..] } else { keys };
        for (piece, id) in saved_pieces(schema, side, never_null, keys, run, shard, shards)? {
            largest = largest.max(id);
            let Some(piece) = piece else { continue };
            self.begin(piece, true)?;
            while self.work.is_some() {
                self.advance(&mut Output::default())?;
            }
        }
        self.sides[side].reserve_id(largest);
        self.rows_in_epoch = 0;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.sides.iter().map(Side::live).sum()
    }

    fn memory_bytes(&self) -> usize {
        let waiting = self.queues.iter().flatten().flat_map(|piece| &piece.columns);
        let waiting: usize = waiting.map(|column| column.get_array_memory_size()).sum();
        self.keys.memory_bytes() + self.sides.iter().map(Side::memory_bytes).sum::<usize>() + waiting
    }
}
