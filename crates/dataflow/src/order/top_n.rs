//! The first rows of each partition.
//!
//! An epoch touches the partitions that its rows belong to. Of each, the rows that were published are walked again (they
//! are a function of the state), the changes are brought in, and the difference of the two is published. Changes behind the
//! last published row cost one comparison. A trace of the two smallest `x` by `k`, without the number:
//!
//! | rows in | published | kept, append-only | kept otherwise |
//! |---|---|---|---|
//! | (a, 5), (a, 7) | (a, 5) +1, (a, 7) +1 | 5, 7 | 5, 7 |
//! | (a, 9) | | 5, 7 | 5, 7, 9 |
//! | (a, 6) | (a, 7) -1, (a, 6) +1 | 5, 6 | 5, 6, 7, 9 |
//! | (a, 5) -1 | (a, 5) -1, (a, 7) +1 | | 6, 7, 9 |

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::codec::{Codec, Key};
use super::spec::{Ranking, TopNSpec};
use super::store::{Change, Entry, ORDER_STATES, OrderRouter, Store, partition_end};
use crate::aggregate::Changes as FrozenChanges;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress};

/// A batch has about so many rows, at most.
const ROWS_PER_BATCH: usize = 4096;

/// A published row: its number (0 where it is not published), and how often it stands there.
type Item = (Key, i64, i64);

/// One shard of a top-N.
struct TopN {
    store: Store,
    ranking: Ranking,
    skip: i64,
    end: i64,
    number: bool,
    append_only: bool,
    schema: SchemaRef,
    changes: Vec<Change>,
    /// How many of `changes` are brought in.
    cursor: usize,
    /// Differences that have not been given away yet.
    ready: Vec<Item>,
    /// How many of them have been.
    given: usize,
}

/// The router and the shards of a top-N over `input`.
///
/// # Errors
/// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts itself.
pub(crate) fn build(input: &SchemaRef, spec: &TopNSpec, shards: usize) -> Result<Built, SqlError> {
    let codec = Arc::new(Codec::new(input, &spec.partition, &spec.order)?);
    if spec.schema.fields().len() != input.fields().len() + usize::from(spec.number) {
        return Err(SqlError::internal("the output columns of a top-N do not fit its input"));
    }
    let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let operator = |_| -> Box<dyn Operator> {
        Box::new(TopN {
            store: Store::new(Arc::clone(&codec), spec.append_only),
            ranking: spec.ranking,
            skip: bound(spec.skip),
            end: bound(spec.end),
            number: spec.number,
            append_only: spec.append_only,
            schema: Arc::clone(&spec.schema),
            changes: Vec::new(),
            cursor: 0,
            ready: Vec::new(),
            given: 0,
        })
    };
    let shards = (0..shards).map(operator).collect();
    Ok(Built { routers: vec![Arc::new(OrderRouter::of(codec, 0))], shards, states: &ORDER_STATES })
}

/// The rows that a walk found, and where it ended.
struct Top {
    items: Vec<Item>,
    /// The last row that was numbered, and its peers.
    last: Option<(Key, u32)>,
    /// Any row behind the last (and not its peer, where peers share a number) is beyond the end.
    full: bool,
}

impl TopN {
    fn walk(&self, partition: &[u8]) -> Top {
        match self.ranking {
            Ranking::RowNumber => self.walk_rows(partition),
            Ranking::Rank | Ranking::DenseRank => self.walk_peers(partition),
        }
    }

    fn walk_rows(&self, partition: &[u8]) -> Top {
        let mut top = Top { items: Vec::new(), last: None, full: false };
        let mut seen = 0i64;
        for (key, entry) in self.store.partition(partition) {
            let (first, last) = (seen.max(self.skip), seen.saturating_add(entry.now).min(self.end));
            match self.number {
                _ if first >= last => {}
                true => top.items.extend((first + 1..=last).map(|n| (Arc::clone(key), n, 1))),
                false => top.items.push((Arc::clone(key), 0, last - first)),
            }
            top.last = Some((Arc::clone(key), entry.peers));
            seen = seen.saturating_add(entry.now);
            if seen >= self.end {
                top.full = true;
                break;
            }
        }
        top
    }

    fn walk_peers(&self, partition: &[u8]) -> Top {
        let mut top = Top { items: Vec::new(), last: None, full: false };
        let (mut seen, mut rank, mut dense) = (0i64, 0, 0);
        for (key, entry) in self.store.partition(partition) {
            if !top.last.as_ref().is_some_and(|(last, peers)| are_peers(last, *peers, key, entry)) {
                (rank, dense) = (seen + 1, dense + 1);
            }
            let number = if self.ranking == Ranking::Rank { rank } else { dense };
            if number > self.end {
                top.full = true;
                break;
            }
            if number > self.skip {
                top.items.push((Arc::clone(key), if self.number { number } else { 0 }, entry.now));
            }
            top.last = Some((Arc::clone(key), entry.peers));
            seen += entry.now;
        }
        let next = if self.ranking == Ranking::Rank { seen + 1 } else { dense + 1 };
        top.full |= next > self.end;
        top
    }

    /// No change of a partition comes before the end of what is published of it.
    fn is_behind(&self, top: &Top, first: &Change) -> bool {
        let Some((last, peers)) = &top.last else { return false };
        let tied = self.ranking != Ranking::RowNumber && last[..*peers as usize] == *first.peers();
        top.full && first.key > *last && !tied
    }

    /// Brings the changes of one partition in.
    fn touch(&mut self, changes: &[Change]) -> Result<(), Cause> {
        let partition = changes[0].partition();
        let old = self.walk(partition);
        if self.is_behind(&old, &changes[0]) {
            if !self.append_only {
                self.store.apply(changes)?;
                self.store.settle(changes);
            }
            return Ok(());
        }
        self.store.apply(changes)?;
        self.store.settle(changes);
        let new = self.walk(partition);
        if self.append_only && new.full {
            self.drop_behind(partition, &new);
        }
        self.difference(old.items, new.items);
        Ok(())
    }

    /// Rows of an append-only input that are beyond the end stay there.
    fn drop_behind(&mut self, partition: &[u8], top: &Top) {
        let Some((last, _)) = &top.last else { return };
        let from = std::ops::Bound::Excluded(&last[..]);
        let behind: Vec<Key> = self.store.from(partition, from).map(|(key, _)| Arc::clone(key)).collect();
        behind.iter().for_each(|key| self.store.forget(key));
    }

    /// Both lists are in order of (row, number).
    fn difference(&mut self, old: Vec<Item>, new: Vec<Item>) {
        let retractions = self.ready.len();
        let mut insertions = Vec::new();
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => (&a.0, a.1).cmp(&(&b.0, b.1)),
            };
            match order {
                Ordering::Less => self.ready.extend(old.next().map(|(key, number, n)| (key, number, -n))),
                Ordering::Greater => insertions.extend(new.next()),
                Ordering::Equal => {
                    if let (Some((key, number, before)), Some((_, _, now))) = (old.next(), new.next()) {
                        match now - before {
                            0 => {}
                            change if change < 0 => self.ready.push((key, number, change)),
                            change => insertions.push((key, number, change)),
                        }
                    }
                }
            }
        }
        debug_assert!(self.ready[retractions..].iter().all(|item| item.2 < 0));
        self.ready.append(&mut insertions);
    }

    fn batch(&self, items: &[Item]) -> Result<Delta, Cause> {
        let stored = self.store.codec.decode(items.iter().map(|(key, _, _)| key))?;
        let mut columns = self.store.codec.as_input(&stored);
        if self.number {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(items.iter().map(|item| item.1)));
            let field = self.schema.field(columns.len());
            columns.push(cast(&numbers, field.data_type())?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let weights = items.iter().any(|item| item.2 != 1);
        let weights = weights.then(|| Int64Array::from_iter_values(items.iter().map(|item| item.2)));
        Ok(Delta::new(batch, weights))
    }
}

fn are_peers(last: &Key, peers: u32, key: &Key, entry: &Entry) -> bool {
    last[..peers as usize] == key[..entry.peers as usize]
}

impl Operator for TopN {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.store.push(&piece)
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if self.changes.is_empty() {
            self.changes = self.store.take_changes();
        }
        let changes = std::mem::take(&mut self.changes);
        while self.cursor < changes.len() && self.ready.len() - self.given < ROWS_PER_BATCH {
            let end = partition_end(&changes, self.cursor);
            self.touch(&changes[self.cursor..end])?;
            self.cursor = end;
        }
        let drained = self.cursor == changes.len();
        if drained {
            self.cursor = 0;
        } else {
            self.changes = changes;
        }
        let until = self.ready.len().min(self.given + ROWS_PER_BATCH);
        if until > self.given {
            out.deltas.push(self.batch(&self.ready[self.given..until])?);
        }
        self.given = until;
        if self.given < self.ready.len() {
            return Ok(Progress::More);
        }
        self.ready.clear();
        self.given = 0;
        Ok(if drained { Progress::Done } else { Progress::More })
    }

    fn watermark(&mut self, _mark: EventTime) {}

    fn freeze(&mut self, changes: &mut FrozenChanges) {
        self.store.freeze(changes);
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        self.store.restore(state, run, shard, shards)
    }

    fn rows(&self) -> usize {
        self.store.len()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }
}
