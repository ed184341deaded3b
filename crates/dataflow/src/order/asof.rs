//! ASOF join: each row of the left source with the one row of the right source that is nearest in time.
//!
//! Both sides are kept in order of (key, time, the rest); a key and a time are the same bytes on both sides, so the match of a left
//! row is one step from its place on the right. An epoch first gives the old left rows whose match has changed: a right row
//! that comes or goes can matter only to those between its time and that of its neighbour, of before or after the
//! epoch, so these ranges are walked and nothing else. Then the left rows that come and go are given with their new match. A trace
//! of `l.t >= r.t`:
//!
//! | rows in | published |
//! |---|---|
//! | r1, r5 | |
//! | l3, l7 | (l3, r1) +1, (l7, r5) +1 |
//! | r2 | (l3, r1) -1, (l3, r2) +1 |
//! | r5 -1, l7 -1 | (l7, r5) -1, (l7, r2) +1, (l7, r2) -1 |

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::codec::{Codec, Key};
use super::span::Comparison;
use super::spec::OrderColumn;
use super::store::{Change, Entry, OrderRouter, STATE_ROWS, Store};
use crate::aggregate::Changes as FrozenChanges;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress};

/// One row per row of the right side of an ASOF join.
pub const STATE_RIGHT_ROWS: &str = "right_rows";

const ASOF_STATES: [&str; 2] = [STATE_ROWS, STATE_RIGHT_ROWS];

/// A batch has so many rows, at most.
const ROWS_PER_BATCH: usize = 4096;

/// ASOF JOIN. Of several right rows of the nearest time the one nearest by all other columns, in their order, is taken: the last of
/// those before, the first of those behind.
#[derive(Clone, Debug)]
pub struct AsofSpec {
    /// Columns of left and right, of equal types, that are equal. The right ones are never NULL.
    pub keys: Vec<(usize, usize)>,
    /// The times, of equal types of one width; the right one is never NULL.
    pub times: (usize, usize),
    /// The left time is less (…) than the right one.
    pub comparison: Comparison,
    /// Left rows without a match stay, with NULLs.
    pub outer: bool,
    pub append_only: [bool; 2],
    /// The output: columns of the left source, then of the right.
    pub output: Vec<usize>,
    pub schema: SchemaRef,
}

/// A row to publish.
type Item = (Key, Option<Key>, i64);

struct Shape {
    codecs: [Arc<Codec>; 2],
    /// Bytes of the time at the end of what peers share.
    time_bytes: usize,
    comparison: Comparison,
    outer: bool,
    width: usize,
    output: Vec<usize>,
    schema: SchemaRef,
}

/// One shard.
struct Asof {
    sides: [Store; 2],
    shape: Arc<Shape>,
    ready: VecDeque<Item>,
}

/// The routers and the shards.
///
/// # Errors
/// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts itself.
pub(crate) fn build(inputs: &[SchemaRef; 2], spec: &AsofSpec, shards: usize) -> Result<Built, SqlError> {
    let backward = matches!(spec.comparison, Comparison::Greater | Comparison::GreaterOrEqual);
    let codec = |side: usize| {
        let keys: Vec<usize> = spec.keys.iter().map(|key| if side == 0 { key.0 } else { key.1 }).collect();
        let time = if side == 0 { spec.times.0 } else { spec.times.1 };
        // A left row without a time lies where nothing is before it, or behind it.
        let order = OrderColumn { column: time, descending: false, nulls_first: backward };
        Codec::new(&inputs[side], &keys, &[order]).map(Arc::new)
    };
    let time = inputs[0].field(spec.times.0).data_type();
    let Some(time_bytes) = time.primitive_width().map(|bytes| bytes + 1) else {
        return Err(SqlError::unsupported("an ASOF join by a value of this type is not supported")
            .hint("Compare times or numbers."));
    };
    let shape = Arc::new(Shape {
        codecs: [codec(0)?, codec(1)?],
        time_bytes,
        comparison: spec.comparison,
        outer: spec.outer,
        width: inputs[0].fields().len(),
        output: spec.output.clone(),
        schema: Arc::clone(&spec.schema),
    });
    let operator = |_| -> Box<dyn Operator> {
        let side = |side: usize| Store::new(Arc::clone(&shape.codecs[side]), spec.append_only[side]);
        Box::new(Asof { sides: [side(0), side(1)], shape: Arc::clone(&shape), ready: VecDeque::new() })
    };
    let router = |port: usize| Arc::new(OrderRouter::of(Arc::clone(&shape.codecs[port]), port)) as _;
    Ok(Built {
        routers: vec![router(0), router(1)],
        shards: (0..shards).map(operator).collect(),
        states: &ASOF_STATES,
    })
}

/// Behind all rows that begin with `prefix`.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Nothing is behind bytes that are all the largest; no row begins so.
    vec![u8::MAX; prefix.len() + 1]
}

impl Asof {
    /// The match of a left row, of which `peers` is the key and the time: among the right rows of before the epoch, or of now.
    fn best(&self, peers: &[u8], now: bool) -> Option<Key> {
        let partition = &peers[..peers.len() - self.shape.time_bytes];
        let there = |(_, entry): &(&Key, &Entry)| if now { entry.now > 0 } else { entry.before > 0 };
        let (right, end) = (&self.sides[1], behind(peers));
        let found = match self.shape.comparison {
            Comparison::GreaterOrEqual => right.before(partition, &end).find(there),
            Comparison::Greater => right.before(partition, peers).find(there),
            Comparison::LessOrEqual => right.from(partition, Bound::Included(peers)).find(there),
            Comparison::Less => right.from(partition, Bound::Included(&end[..])).find(there),
        };
        found.map(|(key, _)| Arc::clone(key))
    }

    /// Where the left rows lie to which a right row can matter, given its neighbours of before and of now.
    fn range(&self, change: &Change) -> (Vec<u8>, Vec<u8>) {
        let (partition, peers) = (change.partition(), change.peers());
        let right = &self.sides[1];
        let of = |(key, entry): (&Key, &Entry)| key[..entry.peers as usize].to_vec();
        let next = || right.from(partition, Bound::Excluded(&change.key)).next().map(of);
        let previous = || right.before(partition, &change.key).next().map(of);
        let first = || partition.to_vec();
        let end = || behind(partition);
        match self.shape.comparison {
            Comparison::GreaterOrEqual => (peers.to_vec(), next().unwrap_or_else(end)),
            Comparison::Greater => (behind(peers), next().map_or_else(end, |next| behind(&next))),
            Comparison::LessOrEqual => {
                (previous().map_or_else(first, |previous| behind(&previous)), behind(peers))
            }
            Comparison::Less => (previous().unwrap_or_else(first), peers.to_vec()),
        }
    }

    fn epoch(&mut self) -> Result<(), Cause> {
        let right = self.sides[1].take_changes();
        let left = self.sides[0].take_changes();
        self.sides[1].apply(&right)?;
        let mut ready = std::mem::take(&mut self.ready);
        for change in &right {
            let (from, end) = self.range(change);
            if from >= end {
                continue;
            }
            let rows = self.sides[0].from(change.partition(), Bound::Included(&from[..]));
            for (key, entry) in rows.take_while(|(key, _)| key[..] < end[..]) {
                let peers = &key[..entry.peers as usize];
                let (old, new) = (self.best(peers, false), self.best(peers, true));
                if old != new {
                    self.give(&mut ready, key, old, -entry.now);
                    self.give(&mut ready, key, new, entry.now);
                }
            }
        }
        for change in &left {
            self.give(&mut ready, &change.key, self.best(change.peers(), true), change.weight);
        }
        self.ready = ready;
        self.sides[0].apply(&left)?;
        self.sides[0].settle(&left);
        self.sides[1].settle(&right);
        Ok(())
    }

    fn give(&self, ready: &mut VecDeque<Item>, left: &Key, right: Option<Key>, weight: i64) {
        if right.is_some() || self.shape.outer {
            ready.push_back((Arc::clone(left), right, weight));
        }
    }

    fn batch(&mut self) -> Result<Delta, Cause> {
        let items: Vec<Item> = self.ready.drain(..self.ready.len().min(ROWS_PER_BATCH)).collect();
        let shape = &self.shape;
        let [left, right] = &shape.codecs;
        let left = left.as_input(&left.decode(items.iter().map(|(key, _, _)| key))?);
        let found = right.as_input(&right.decode(items.iter().filter_map(|(_, key, _)| key.as_ref()))?);
        let mut next = 0;
        let places: UInt32Array = items
            .iter()
            .map(|(_, key, _)| {
                let place = next;
                next += u32::from(key.is_some());
                key.is_some().then_some(place)
            })
            .collect();
        let column = |at: &usize| -> Result<ArrayRef, Cause> {
            match at.checked_sub(shape.width) {
                None => Ok(Arc::clone(&left[*at])),
                Some(at) => Ok(take(&found[at], &places, None)?),
            }
        };
        let columns = shape.output.iter().map(column).collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&shape.schema), columns)?;
        let weights = items.iter().any(|item| item.2 != 1);
        let weights = weights.then(|| Int64Array::from_iter_values(items.iter().map(|item| item.2)));
        Ok(Delta::new(batch, weights))
    }
}

impl Operator for Asof {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.sides[piece.port].push(&piece)
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if self.ready.is_empty() {
            self.epoch()?;
        }
        if !self.ready.is_empty() {
            out.deltas.push(self.batch()?);
        }
        Ok(if self.ready.is_empty() { Progress::Done } else { Progress::More })
    }

    fn watermark(&mut self, _mark: EventTime) {}

    fn freeze(&mut self, changes: &mut FrozenChanges) {
        self.sides[0].freeze(changes);
        if let Some(rows) = self.sides[1].frozen() {
            changes.right_rows(rows);
        }
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        let side = usize::from(state == STATE_RIGHT_ROWS);
        let state = if side == 1 { STATE_ROWS } else { state };
        self.sides[side].restore(state, run, shard, shards)
    }

    fn rows(&self) -> usize {
        self.sides.iter().map(Store::len).sum()
    }

    fn memory_bytes(&self) -> usize {
        self.sides.iter().map(Store::memory_bytes).sum::<usize>() + self.ready.capacity() * size_of::<Item>()
    }
}
