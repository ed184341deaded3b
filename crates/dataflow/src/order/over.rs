//! Window functions that are kept up to date.
//!
//! Of each partition that an epoch touches, the results before and after are computed and their difference is published:
//! results are a function of the rows, so they are not stored. Where all functions look only some rows back and ahead (lag,
//! lead, ROWS frames without UNBOUNDED), that is done for the neighbourhood of each change alone, for [`session`]s as far as they
//! reach; otherwise for the partition. Neighbourhoods and partitions are gathered until they are worth a pass over columns. A trace of
//! `lag(x) OVER (ORDER BY x)`:
//!
//! | rows in | looked at | published |
//! |---|---|---|
//! | 1, 5, 9 | all | (1, NULL) +1, (5, 1) +1, (9, 5) +1 |
//! | 3 | 1, 3, 5 | (5, 1) -1, (3, 1) +1, (5, 3) +1 |
//! | 1 -1 | 1, 3 | (1, NULL) -1, (3, 1) -1, (3, NULL) +1 |

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use super::codec::{Codec, Key};
use super::evaluate::{self, Results};
use super::frame::{Layout, order_values};
use super::session;
use super::spec::{OrderColumn, OverCall, OverSpec, Reach};
use super::store::{Change, Entry, ORDER_STATES, OrderRouter, Store, partition_end};
use crate::aggregate::Changes as FrozenChanges;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress, RejectedRow};

/// Rows that are looked at in one pass, unless one partition has more.
const ROWS_PER_PASS: usize = 8192;
/// A batch has so many rows, at most.
const ROWS_PER_BATCH: usize = 4096;

/// What all shards share.
struct Shape {
    codec: Arc<Codec>,
    calls: Vec<OverCall>,
    reach: Reach,
    /// The only order column, where there is one.
    order: Option<OrderColumn>,
    /// Compares results.
    results: RowConverter,
    input: SchemaRef,
    schema: SchemaRef,
}

/// One shard of some window functions.
struct Over {
    store: Store,
    shape: Arc<Shape>,
    changes: Vec<Change>,
    cursor: usize,
    ready: VecDeque<Delta>,
}

/// The router and the shards of window functions over `input`.
///
/// # Errors
/// 0A000 for a type that cannot be ordered or computed with; XX000 if the specification contradicts itself.
pub(crate) fn build(input: &SchemaRef, spec: &OverSpec, shards: usize) -> Result<Built, SqlError> {
    let codec = Arc::new(Codec::new(input, &spec.partition, &spec.order)?);
    let results = spec.schema.fields().iter().skip(input.fields().len());
    let fits = results.clone().map(|f| f.data_type()).eq(spec.calls.iter().map(|call| &call.result));
    if !fits || spec.schema.fields().len() != input.fields().len() + spec.calls.len() {
        return Err(SqlError::internal("the output columns of window functions do not fit their calls"));
    }
    let order = <[OrderColumn; 1]>::try_from(spec.order.clone()).ok().map(|[only]| only);
    let order_type = order.map(|order| input.field(order.column).data_type());
    spec.calls.iter().try_for_each(|call| evaluate::check(call, input, order_type))?;
    let mut compared: Vec<SortField> = results.map(|f| SortField::new(f.data_type().clone())).collect();
    compared.push(SortField::new(arrow::datatypes::DataType::Boolean));
    let shape = Arc::new(Shape {
        codec: Arc::clone(&codec),
        calls: spec.calls.clone(),
        reach: spec.reach(),
        order,
        results: RowConverter::new(compared).map_err(|e| SqlError::internal(e.to_string()))?,
        input: Arc::clone(input),
        schema: Arc::clone(&spec.schema),
    });
    let operator = |_| -> Box<dyn Operator> {
        let store = Store::new(Arc::clone(&codec), spec.append_only);
        let (changes, ready) = (Vec::new(), VecDeque::new());
        Box::new(Over { store, shape: Arc::clone(&shape), changes, cursor: 0, ready })
    };
    let shards = (0..shards).map(operator).collect();
    Ok(Built { routers: vec![Arc::new(OrderRouter::of(codec, 0))], shards, states: &ORDER_STATES })
}

/// Rows before or after the epoch, each as often as it is there, in parts that know nothing of each other.
#[derive(Default)]
struct Side {
    keys: Vec<Key>,
    peers: Vec<u32>,
    /// Rows that stand here only because others look at them.
    context: Vec<bool>,
    /// One past the last row of each part.
    ends: Vec<usize>,
}

impl Side {
    fn push(&mut self, key: &Key, entry: &Entry, weight: i64, context: bool) {
        for _ in 0..weight {
            self.keys.push(Arc::clone(key));
            self.peers.push(entry.peers);
            self.context.push(context);
        }
    }

    fn end(&mut self) {
        self.ends.push(self.keys.len());
    }

    fn layout(&self) -> Layout {
        let mut segments = Vec::with_capacity(self.ends.len());
        let mut peers = Vec::with_capacity(self.keys.len());
        let mut start = 0;
        let prefix = |row: usize| &self.keys[row][..self.peers[row] as usize];
        for &end in &self.ends {
            segments.push(start..end);
            let mut first = start;
            while first < end {
                let count = (first..end).take_while(|row| prefix(*row) == prefix(first)).count();
                peers.extend(std::iter::repeat_n((first, first + count), count));
                first += count;
            }
            start = end;
        }
        Layout { segments, peers }
    }
}

/// A side with its results.
struct Computed {
    side: Side,
    stored: Vec<ArrayRef>,
    results: Results,
    compared: Rows,
}

impl Shape {
    fn compute(&self, side: Side) -> Result<Computed, Cause> {
        let rows = side.keys.len();
        let stored = self.codec.decode(&side.keys)?;
        let stored = self.codec.as_input(&stored);
        let values = self.order.and_then(|o| order_values(&stored[o.column], o.descending));
        let results = evaluate::evaluate(&self.calls, &side.layout(), &stored, values.as_deref())?;
        let mut compared = results.columns.clone();
        let failed = evaluate::marks(&results, rows);
        compared.push(Arc::new(failed.unwrap_or_else(|| vec![false; rows].into())));
        let compared = self.results.convert_columns(&compared)?;
        Ok(Computed { side, stored, results, compared })
    }

    /// Rows of one side with a sign, in batches.
    fn emit(
        &self,
        from: &Computed,
        rows: &[u32],
        sign: i64,
        ready: &mut VecDeque<Delta>,
        out: &mut Output,
    ) -> Result<(), Cause> {
        let failed = &from.results.failed;
        let good: Vec<u32> = match failed.is_empty() {
            true => rows.to_vec(),
            false => rows.iter().copied().filter(|row| !failed.contains_key(&(*row as usize))).collect(),
        };
        for row in rows {
            if let Some(error) = failed.get(&(*row as usize)) {
                let columns = from.stored.iter().map(|column| column.slice(*row as usize, 1)).collect();
                let row = RecordBatch::try_new(Arc::clone(&self.input), columns)?;
                out.rejected.push(RejectedRow { error: error.clone(), row, weight: sign });
            }
        }
        for rows in good.chunks(ROWS_PER_BATCH) {
            let rows = UInt32Array::from(rows.to_vec());
            let columns = from.stored.iter().chain(&from.results.columns);
            let columns = columns.map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?;
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            let weights = (sign != 1).then(|| Int64Array::from_value(sign, rows.len()));
            ready.push_back(Delta::new(batch, weights));
        }
        Ok(())
    }
}

/// The rows of each side that the other lacks.
fn difference(old: &Computed, new: &Computed) -> (Vec<u32>, Vec<u32>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let shown = |computed: &Computed| -> Vec<u32> {
        (0..computed.side.keys.len() as u32).filter(|row| !computed.side.context[*row as usize]).collect()
    };
    let key = |computed: &Computed, row: u32| Arc::clone(&computed.side.keys[row as usize]);
    let (before, after) = (shown(old), shown(new));
    let (mut i, mut j) = (0, 0);
    while i < before.len() || j < after.len() {
        let order = match (before.get(i), after.get(j)) {
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
            (Some(a), Some(b)) => {
                let (a, b) = (&old.side.keys[*a as usize], &new.side.keys[*b as usize]);
                if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
            }
        };
        match order {
            Ordering::Less => {
                gone.push(before[i]);
                i += 1;
            }
            Ordering::Greater => {
                come.push(after[j]);
                j += 1;
            }
            Ordering::Equal => {
                let row = key(old, before[i]);
                let copies = |of: &Computed, rows: &[u32]| {
                    rows.iter().take_while(|at| of.side.keys[**at as usize] == row).count()
                };
                let (a, b) = (copies(old, &before[i..]), copies(new, &after[j..]));
                same_row((old, &before[i..i + a]), (new, &after[j..j + b]), &mut gone, &mut come);
                (i, j) = (i + a, j + b);
            }
        }
    }
    (gone, come)
}

/// As [`difference`], for the copies of one row.
fn same_row(
    (old, before): (&Computed, &[u32]),
    (new, after): (&Computed, &[u32]),
    gone: &mut Vec<u32>,
    come: &mut Vec<u32>,
) {
    let a = |row: &u32| old.compared.row(*row as usize);
    let b = |row: &u32| new.compared.row(*row as usize);
    if let ([one], [other]) = (before, after) {
        if a(one) != b(other) {
            gone.push(*one);
            come.push(*other);
        }
        return;
    }
    let (mut before, mut after) = (before.to_vec(), after.to_vec());
    before.sort_by(|x, y| a(x).cmp(&a(y)));
    after.sort_by(|x, y| b(x).cmp(&b(y)));
    let (mut i, mut j) = (0, 0);
    while i < before.len() || j < after.len() {
        let order = match (before.get(i), after.get(j)) {
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
            (Some(x), Some(y)) => a(x).cmp(&b(y)),
        };
        if order.is_le() {
            if order.is_lt() {
                gone.push(before[i]);
            }
            i += 1;
        }
        if order.is_ge() {
            if order.is_gt() {
                come.push(after[j]);
            }
            j += 1;
        }
    }
}

impl Over {
    /// Brings the changes of one partition in, and gathers the rows whose results may differ.
    fn touch(&mut self, changes: &[Change], old: &mut Side, new: &mut Side) -> Result<(), Cause> {
        self.store.apply(changes)?;
        let partition = changes[0].partition();
        match self.shape.reach {
            Reach::Partition => {
                for (key, entry) in self.store.partition(partition) {
                    old.push(key, entry, entry.before, false);
                    new.push(key, entry, entry.now, false);
                }
                old.end();
                new.end();
            }
            Reach::Rows { before, after } => self.neighbourhoods(changes, before, after, old, new),
            Reach::Session(gap) => self.sessions(changes, gap, old, new)?,
        }
        self.store.settle(changes);
        Ok(())
    }

    /// A result looks `before` rows back and `after` ahead. So a change is seen by the rows `after` before it up to `before`
    /// behind it, and these look as far again.
    fn neighbourhoods(
        &self,
        changes: &[Change],
        before: usize,
        after: usize,
        old: &mut Side,
        new: &mut Side,
    ) {
        let partition = changes[0].partition();
        let mut at = 0;
        while at < changes.len() {
            let first = &changes[at].key;
            let mut last = &changes[at].key;
            at += 1;
            let (mut seen_end, mut end) = self.ahead(partition, last, before, before + after);
            while at < changes.len() && changes[at].key <= end {
                last = &changes[at].key;
                at += 1;
                (seen_end, end) = self.ahead(partition, last, before, before + after);
            }
            let (seen_start, start) = self.back(partition, first, after, before + after);
            for (key, entry) in self.store.from(partition, Bound::Included(&start)) {
                if *key > end {
                    break;
                }
                let context = *key < seen_start || *key > seen_end;
                old.push(key, entry, entry.before, context);
                new.push(key, entry, entry.now, context);
            }
            old.end();
            new.end();
        }
    }

    /// All sessions that a change touches, before it or after.
    fn sessions(&self, changes: &[Change], gap: i64, old: &mut Side, new: &mut Side) -> Result<(), Cause> {
        let order = self.shape.order.expect("checked when the operator was made");
        let partition = changes[0].partition();
        let mut seen: Option<Key> = None;
        for change in changes {
            if seen.as_ref().is_some_and(|seen| change.key <= *seen) {
                continue;
            }
            let (start, end) = session::around(&self.store, partition, &change.key, order.column, gap)?;
            for (key, entry) in self.store.from(partition, Bound::Included(&start)) {
                if *key > end {
                    break;
                }
                old.push(key, entry, entry.before, false);
                new.push(key, entry, entry.now, false);
            }
            old.end();
            new.end();
            seen = Some(end);
        }
        Ok(())
    }

    /// The rows `near` and `far` rows behind a row, as both sides count, or the last one of the partition.
    fn ahead(&self, partition: &[u8], row: &Key, near: usize, far: usize) -> (Key, Key) {
        let rows = self.store.from(partition, Bound::Excluded(row));
        walk(rows, row, near, far)
    }

    /// The same the other way.
    fn back(&self, partition: &[u8], row: &Key, near: usize, far: usize) -> (Key, Key) {
        let rows = self.store.before(partition, row);
        walk(rows, row, near, far)
    }

    fn pass(&mut self, old: Side, new: Side, out: &mut Output) -> Result<(), Cause> {
        let (old, new) = (self.shape.compute(old)?, self.shape.compute(new)?);
        let (gone, come) = difference(&old, &new);
        let mut ready = std::mem::take(&mut self.ready);
        self.shape.emit(&old, &gone, -1, &mut ready, out)?;
        self.shape.emit(&new, &come, 1, &mut ready, out)?;
        self.ready = ready;
        Ok(())
    }
}

fn walk<'s>(
    rows: impl Iterator<Item = (&'s Key, &'s Entry)>,
    from: &Key,
    near: usize,
    far: usize,
) -> (Key, Key) {
    let (mut reached, mut last) = (Arc::clone(from), Arc::clone(from));
    let (mut before, mut now) = (0usize, 0usize);
    for (key, entry) in rows {
        if before.min(now) >= far {
            break;
        }
        if before.min(now) < near {
            reached = Arc::clone(key);
        }
        last = Arc::clone(key);
        before = before.saturating_add(entry.before as usize);
        now = now.saturating_add(entry.now as usize);
    }
    (reached, last)
}

impl Operator for Over {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.store.push(&piece)
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if self.changes.is_empty() && self.ready.is_empty() {
            self.changes = self.store.take_changes();
            self.cursor = 0;
        }
        if self.ready.is_empty() && self.cursor < self.changes.len() {
            let changes = std::mem::take(&mut self.changes);
            let (mut old, mut new) = (Side::default(), Side::default());
            while self.cursor < changes.len() && old.keys.len().max(new.keys.len()) < ROWS_PER_PASS {
                let end = partition_end(&changes, self.cursor);
                self.touch(&changes[self.cursor..end], &mut old, &mut new)?;
                self.cursor = end;
            }
            if self.cursor < changes.len() {
                self.changes = changes;
            }
            self.pass(old, new, out)?;
        }
        out.deltas.extend(self.ready.pop_front());
        let more = !self.ready.is_empty() || !self.changes.is_empty();
        Ok(if more { Progress::More } else { Progress::Done })
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
