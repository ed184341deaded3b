//! GROUP BY with aggregates that are functions of a group's rows in order: string_agg, array_agg, percentiles, and any other
//! that has no accumulator of its own in [`crate::aggregate`].
//!
//! The rows of each group are kept in order, and of each group that an epoch touches the results before and after are
//! computed and compared. So a change costs as much as its group has rows, which is no more than what such a result
//! mostly costs to write. Each call sorts the rows by its own ORDER BY; what that leaves equal stays in the order of the
//! arguments. A trace of `string_agg(x, ',' ORDER BY x DESC)`:
//!
//! | rows in | published |
//! |---|---|
//! | (k, a), (k, c) | (k, 'c,a') +1 |
//! | (k, b) | (k, 'c,a') -1, (k, 'c,b,a') +1 |
//! | (k, a) -1, (k, b) -1, (k, c) -1 | (k, 'c,b,a') -1 |

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, UInt32Array,
};
use arrow::compute::{SortOptions, cast, concat, take, take_record_batch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::EmitTo;
use millpond_functions::error::from_datafusion;
use millpond_state::KeyedRun;
use millpond_types::hash::{hash_columns, shard_of};
use millpond_types::{Delta, EventTime, SqlError};

use super::codec::{Codec, Key};
use super::spec::{OrderColumn, SortedAggregateSpec, SortedArgument, SortedCall};
use super::store::{Change, ORDER_STATES, Store, partition_end};
use crate::aggregate::{Changes as FrozenChanges, refuse_late};
use crate::exchange::constant_time;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Progress, RejectedRow, Router};
use crate::spec::CloseSpec;

/// Rows that are looked at in one pass, unless one group has more.
const ROWS_PER_PASS: usize = 8192;
/// A batch has so many groups, at most.
const GROUPS_PER_BATCH: usize = 4096;

/// What all shards share.
struct Shape {
    codec: Arc<Codec>,
    /// The kept columns of the source: the window's end where windows close, the keys, then what the calls read.
    kept: SchemaRef,
    /// Of each key its place among the kept columns.
    keys: Vec<usize>,
    /// Over the kept columns.
    calls: Vec<SortedCall>,
    /// Compares results.
    results: RowConverter,
    close: Option<CloseSpec>,
    key_schema: SchemaRef,
    schema: SchemaRef,
}

/// One shard.
struct SortedAggregate {
    store: Store,
    shape: Arc<Shape>,
    changes: Vec<Change>,
    cursor: usize,
    /// Groups whose window has closed: they are published for the first time.
    released: VecDeque<Key>,
    /// The windows that the watermark has passed, and those whose rows are not needed any more.
    passed: Passed,
    over: Passed,
    /// A watermark that `passed` and `over` do not know of yet.
    mark: Option<EventTime>,
    /// What the first watermark passes was published before the restart.
    resumed: bool,
    /// Of an aggregate without GROUP BY, on the shard that owns it: whether its row is published.
    global: Option<bool>,
    ready: VecDeque<Delta>,
}

/// The router and the shards of a GROUP BY over `input`.
///
/// # Errors
/// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts itself.
pub(crate) fn build(input: &SchemaRef, spec: &SortedAggregateSpec, shards: usize) -> Result<Built, SqlError> {
    let internal = |e: ArrowError| SqlError::internal(e.to_string());
    let mut columns: Vec<usize> = Vec::new();
    let mut place = |column: usize| {
        columns.iter().position(|c| *c == column).unwrap_or_else(|| {
            columns.push(column);
            columns.len() - 1
        })
    };
    let end = spec.close.map(|close| place(close.window_end));
    let keys: Vec<usize> = spec.keys.iter().map(|key| place(*key)).collect();
    let calls: Vec<SortedCall> = spec
        .calls
        .iter()
        .map(|call| SortedCall {
            arguments: call.arguments.iter().map(|argument| argument.clone().map(&mut place)).collect(),
            filter: call.filter.map(&mut place),
            order: call.order.iter().map(|o| OrderColumn { column: place(o.column), ..*o }).collect(),
            ..call.clone()
        })
        .collect();
    let fields = spec.schema.fields();
    if fields.len() != keys.len() + calls.len() || (spec.global && (end.is_some() || !keys.is_empty())) {
        return Err(SqlError::internal("the output columns of an aggregate do not fit its calls"));
    }
    if columns.is_empty() {
        // Rows are counted, at least.
        columns.push(0);
    }
    let kept = Arc::new(input.project(&columns).map_err(internal)?);
    let partition: Vec<usize> = end.into_iter().chain(keys.iter().copied()).collect();
    let codec = Arc::new(Codec::new(&kept, &partition, &[])?);
    let compared = fields[keys.len()..].iter().map(|f| SortField::new(f.data_type().clone()));
    let shape = Arc::new(Shape {
        results: RowConverter::new(compared.collect()).map_err(internal)?,
        key_schema: Arc::new(Schema::new(fields[..keys.len()].to_vec())),
        schema: Arc::clone(&spec.schema),
        close: spec.close,
        codec: Arc::clone(&codec),
        kept,
        keys,
        calls,
    });
    let owner = shard_of(hash_columns(&[], 1).map_err(internal)?[0], shards);
    let operator = |shard| -> Box<dyn Operator> {
        Box::new(SortedAggregate {
            store: Store::new(Arc::clone(&codec), spec.append_only),
            shape: Arc::clone(&shape),
            changes: Vec::new(),
            cursor: 0,
            released: VecDeque::new(),
            passed: Passed::Nothing,
            over: Passed::Nothing,
            mark: None,
            resumed: false,
            global: (spec.global && shard == owner).then_some(false),
            ready: VecDeque::new(),
        })
    };
    let operators = (0..shards).map(operator).collect();
    let router = SortedRouter { columns, codec, close: spec.close };
    Ok(Built { routers: vec![Arc::new(router)], shards: operators, states: &ORDER_STATES })
}

/// Refuses late rows, and puts the kept columns of the others in the order in which rows hold them.
struct SortedRouter {
    columns: Vec<usize>,
    codec: Arc<Codec>,
    close: Option<CloseSpec>,
}

impl Router for SortedRouter {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause> {
        let in_time = match &self.close {
            Some(close) => refuse_late(close, delta, out)?,
            None => None,
        };
        let delta = in_time.as_ref().unwrap_or(delta);
        let column = |stored: &usize| Arc::clone(delta.batch.column(self.columns[*stored]));
        let mut columns: Vec<ArrayRef> = self.codec.stored.iter().map(column).collect();
        let keys = self.codec.partition_columns;
        columns[..keys].iter_mut().for_each(one_zero);
        let hashes = hash_columns(&columns[..keys], delta.rows())?;
        Ok(Piece { port: 0, columns, weights: delta.weights().map(Arc::from), hashes })
    }
}

/// -0.0 and 0.0 are one group.
fn one_zero(column: &mut ArrayRef) {
    match column.data_type() {
        DataType::Float32 => {
            let zero: Float32Array = column.as_primitive::<Float32Type>().unary(|v| v + 0.0);
            *column = Arc::new(zero);
        }
        DataType::Float64 => {
            let zero: Float64Array = column.as_primitive::<Float64Type>().unary(|v| v + 0.0);
            *column = Arc::new(zero);
        }
        _ => {}
    }
}

/// Which windows the watermark has passed, by the first bytes of their rows.
enum Passed {
    Nothing,
    /// Those below these bytes.
    Below(Vec<u8>),
    All,
}

impl Passed {
    fn has(&self, key: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Below(bound) => key < &bound[..],
            Self::All => true,
        }
    }
}

/// Groups before or after the epoch.
#[derive(Default)]
struct Side {
    keys: Vec<Key>,
    groups: Vec<Range<usize>>,
    /// Whether the group has a row of its own in the output.
    exists: Vec<bool>,
}

impl Side {
    fn push(&mut self, key: &Key, weight: i64) {
        self.keys.extend((0..weight).map(|_| Arc::clone(key)));
    }

    fn end(&mut self, exists: impl FnOnce(usize) -> bool) {
        let start = self.groups.last().map_or(0, |group| group.end);
        let group = start..self.keys.len();
        self.exists.push(exists(group.len()));
        self.groups.push(group);
    }
}

/// A side with one result row per group.
struct Computed {
    side: Side,
    keys: Vec<ArrayRef>,
    results: Vec<ArrayRef>,
    compared: Rows,
    failed: BTreeMap<usize, SqlError>,
}

impl Shape {
    fn compute(&self, side: Side) -> Result<Computed, Cause> {
        let stored = self.codec.decode(&side.keys)?;
        let options = RecordBatchOptions::new().with_row_count(Some(side.keys.len()));
        let columns = self.codec.as_input(&stored);
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.kept), columns, &options)?;
        let first: UInt32Array =
            side.groups.iter().map(|group| (!group.is_empty()).then_some(group.start as u32)).collect();
        let keys: Vec<ArrayRef> =
            self.keys.iter().map(|key| take(rows.column(*key), &first, None)).collect::<Result<_, _>>()?;
        let mut failed = BTreeMap::new();
        let mut results = Vec::with_capacity(self.calls.len());
        for (call, field) in self.calls.iter().zip(&self.schema.fields()[self.keys.len()..]) {
            let result = call.results(&rows, &side, &mut failed)?;
            results.push(if result.data_type() == field.data_type() {
                result
            } else {
                cast(&result, field.data_type())?
            });
        }
        let compared = self.results.convert_columns(&results)?;
        Ok(Computed { side, keys, results, compared, failed })
    }

    fn batch(&self, from: &Computed, groups: &[u32], sign: i64) -> Result<Delta, Cause> {
        let groups = UInt32Array::from(groups.to_vec());
        let columns = from.keys.iter().chain(&from.results);
        let columns = columns.map(|column| take(column, &groups, None)).collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let weights = (sign != 1).then(|| Int64Array::from_value(sign, groups.len()));
        Ok(Delta::new(batch, weights))
    }

    fn reject(&self, from: &Computed, group: usize, weight: i64, out: &mut Output) -> Result<(), Cause> {
        let Some(error) = from.failed.get(&group) else { return Ok(()) };
        let columns = from.keys.iter().map(|column| column.slice(group, 1)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::clone(&self.key_schema), columns, &options)?;
        out.rejected.push(RejectedRow { error: error.clone(), row, weight });
        Ok(())
    }

    /// The first bytes of rows whose window ends at `end` or later; `None` if there are none.
    fn bound(&self, end: i64) -> Result<Vec<u8>, ArrowError> {
        let data_type = self.codec.fields[0].data_type();
        let options = SortOptions { descending: false, nulls_first: false };
        let converter = RowConverter::new(vec![SortField::new_with_options(data_type.clone(), options)])?;
        let rows = converter.convert_columns(&[constant_time(data_type, Some(end), 1)?])?;
        Ok(rows.row(0).data().to_vec())
    }

    /// Windows that end at `last` or before.
    fn until(&self, last: EventTime) -> Result<Passed, ArrowError> {
        Ok(match last.0.checked_add(1) {
            None => Passed::All,
            Some(_) if last == EventTime::MIN => Passed::Nothing,
            Some(end) => Passed::Below(self.bound(end)?),
        })
    }
}

impl SortedCall {
    /// One result per group of `side`, whose rows are `rows`. A group without one has NULL, and its error in `failed`.
    fn results(
        &self,
        rows: &RecordBatch,
        side: &Side,
        failed: &mut BTreeMap<usize, SqlError>,
    ) -> Result<ArrayRef, Cause> {
        let (order, groups) = self.in_order(rows, side)?;
        let arranged = take_record_batch(rows, &UInt32Array::from(order))?;
        let argument = |argument: &SortedArgument| match argument {
            SortedArgument::Column(column) => Ok(Arc::clone(arranged.column(*column))),
            SortedArgument::Constant(value) => value.to_array_of_size(arranged.num_rows()),
        };
        let arguments: Vec<ArrayRef> =
            self.arguments.iter().map(argument).collect::<Result<_, _>>().map_err(not_computed)?;
        if let Some(results) = self.all_at_once(&arguments, &groups) {
            return Ok(results);
        }
        let data_type = self.function.field().data_type().clone();
        let mut results = Vec::with_capacity(groups.len());
        for (at, group) in groups.iter().enumerate() {
            let result = self.one(&arguments, group);
            results.push(match result {
                Ok(result) => result,
                Err(error) => {
                    failed.insert(at, from_datafusion(error));
                    ScalarValue::try_from(&data_type).map_err(not_computed)?
                }
            });
        }
        match results.is_empty() {
            true => Ok(arrow::array::new_empty_array(&data_type)),
            false => ScalarValue::iter_to_array(results).map_err(not_computed),
        }
    }

    /// Rows that count, those of each group together and in order, and where each group's lie.
    fn in_order(&self, rows: &RecordBatch, side: &Side) -> Result<(Vec<u32>, Vec<Range<usize>>), Cause> {
        let filter = self.filter.map(|column| rows.column(column).as_boolean());
        let counts = |row: usize| filter.is_none_or(|f: &BooleanArray| f.is_valid(row) && f.value(row));
        let encoded = |columns: &mut dyn Iterator<Item = (usize, SortOptions)>| {
            let columns: Vec<(usize, SortOptions)> = columns.collect();
            let field = |(column, options): &(usize, SortOptions)| {
                SortField::new_with_options(rows.column(*column).data_type().clone(), *options)
            };
            let arrays: Vec<ArrayRef> = columns.iter().map(|(c, _)| Arc::clone(rows.column(*c))).collect();
            RowConverter::new(columns.iter().map(field).collect())?.convert_columns(&arrays)
        };
        let options = |o: &OrderColumn| SortOptions { descending: o.descending, nulls_first: o.nulls_first };
        let ordered = match self.order.is_empty() {
            true => None,
            false => Some(encoded(&mut self.order.iter().map(|o| (o.column, options(o))))?),
        };
        let alike = self.distinct && self.argument_columns().next().is_none();
        let distinct = match self.distinct && !alike {
            true => Some(encoded(&mut self.argument_columns().map(|c| (c, SortOptions::default())))?),
            false => None,
        };
        let mut order: Vec<u32> = Vec::with_capacity(rows.num_rows());
        let mut groups = Vec::with_capacity(side.groups.len());
        let mut seen = HashSet::new();
        for group in &side.groups {
            let start = order.len();
            order.extend(group.clone().filter(|row| counts(*row)).map(|row| row as u32));
            if let Some(keys) = &ordered {
                order[start..].sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
            }
            if alike {
                // All arguments are constants.
                order.truncate(start + 1);
            }
            if let Some(values) = &distinct {
                let mut chosen: Vec<u32> = order.split_off(start);
                chosen.retain(|row| seen.insert(values.row(*row as usize)));
                order.append(&mut chosen);
                seen.clear();
            }
            groups.push(start..order.len());
        }
        Ok((order, groups))
    }

    fn argument_columns(&self) -> impl Iterator<Item = usize> {
        self.arguments.iter().filter_map(|argument| match argument {
            SortedArgument::Column(column) => Some(*column),
            SortedArgument::Constant(_) => None,
        })
    }

    /// All groups with one accumulator, where the function has such a one and no group fails.
    fn all_at_once(&self, arguments: &[ArrayRef], groups: &[Range<usize>]) -> Option<ArrayRef> {
        if !self.function.groups_accumulator_supported() {
            return None;
        }
        // A group without rows is nothing that such an accumulator knows of: it has the place behind the others.
        let full = || groups.iter().filter(|rows| !rows.is_empty());
        let numbers: Vec<usize> =
            full().enumerate().flat_map(|(at, rows)| rows.clone().map(move |_| at)).collect();
        let count = full().count();
        let mut accumulator = self.function.create_groups_accumulator().ok()?;
        accumulator.update_batch(arguments, &numbers, None, count).ok()?;
        let results = accumulator.evaluate(EmitTo::All).ok().filter(|results| results.len() == count)?;
        if count == groups.len() {
            return Some(results);
        }
        let empty = self.one(arguments, &(0..0)).ok()?.to_array().ok()?;
        let mut next = 0;
        let places = groups.iter().map(|rows| {
            let place = if rows.is_empty() { count } else { next };
            next += usize::from(!rows.is_empty());
            place as u32
        });
        let places = UInt32Array::from_iter_values(places);
        take(&concat(&[&results, &empty]).ok()?, &places, None).ok()
    }

    fn one(&self, arguments: &[ArrayRef], rows: &Range<usize>) -> Result<ScalarValue, DataFusionError> {
        let mut accumulator = self.function.create_accumulator()?;
        if !rows.is_empty() {
            let values: Vec<ArrayRef> =
                arguments.iter().map(|values| values.slice(rows.start, rows.len())).collect();
            accumulator.update_batch(&values)?;
        }
        accumulator.evaluate()
    }
}

fn not_computed(error: DataFusionError) -> Cause {
    Cause::Arrow(ArrowError::ExternalError(Box::new(error)))
}

impl SortedAggregate {
    /// Whether results of the group appear as its rows come.
    fn is_open(&self, key: &[u8]) -> bool {
        !self.shape.close.is_some_and(|close| close.emit_on_close) || self.passed.has(key)
    }

    /// Brings the changes of one group in.
    fn touch(&mut self, changes: &[Change], old: &mut Side, new: &mut Side) -> Result<(), Cause> {
        self.store.apply(changes)?;
        if self.is_open(&changes[0].key) {
            for (key, entry) in self.store.partition(changes[0].partition()) {
                old.push(key, entry.before);
                new.push(key, entry.now);
            }
            let published = self.global;
            old.end(|rows| published.unwrap_or(rows > 0));
            new.end(|rows| published.is_some() || rows > 0);
            self.global = self.global.map(|_| true);
        }
        self.store.settle(changes);
        Ok(())
    }

    /// The next groups to publish.
    fn gather(&mut self, old: &mut Side, new: &mut Side) -> Result<(), Cause> {
        let changes = std::mem::take(&mut self.changes);
        while old.keys.len().max(new.keys.len()) < ROWS_PER_PASS && old.groups.len() < GROUPS_PER_BATCH {
            if self.cursor < changes.len() {
                let end = partition_end(&changes, self.cursor);
                self.touch(&changes[self.cursor..end], old, new)?;
                self.cursor = end;
            } else if self.global == Some(false) {
                self.global = Some(true);
                old.end(|_| false);
                new.end(|_| true);
            } else if let Some(group) = self.released.pop_front() {
                for (key, entry) in self.store.partition(&group) {
                    new.push(key, entry.now);
                }
                old.end(|_| false);
                new.end(|rows| rows > 0);
            } else {
                break;
            }
        }
        if self.cursor < changes.len() {
            self.changes = changes;
        } else {
            self.cursor = 0;
        }
        Ok(())
    }

    fn pass(&mut self, old: Side, new: Side, out: &mut Output) -> Result<(), Cause> {
        let (old, new) = (self.shape.compute(old)?, self.shape.compute(new)?);
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for group in 0..new.side.groups.len() {
            let (existed, exists) = (old.side.exists[group], new.side.exists[group]);
            let before = old.failed.get(&group).filter(|_| existed);
            let now = new.failed.get(&group).filter(|_| exists);
            if before != now {
                if before.is_some() {
                    self.shape.reject(&old, group, -1, out)?;
                }
                if now.is_some() {
                    self.shape.reject(&new, group, 1, out)?;
                }
            }
            let (retract, insert) = (existed && before.is_none(), exists && now.is_none());
            if retract && insert && old.compared.row(group) == new.compared.row(group) {
                continue;
            }
            gone.extend(retract.then_some(group as u32));
            come.extend(insert.then_some(group as u32));
        }
        for (from, groups, sign) in [(&old, gone, -1), (&new, come, 1)] {
            if !groups.is_empty() {
                self.ready.push_back(self.shape.batch(from, &groups, sign)?);
            }
        }
        Ok(())
    }

    /// Takes notice of a watermark: groups that waited for it are published, rows that waited for nothing else are freed.
    fn advance(&mut self) -> Result<(), Cause> {
        let (Some(mark), Some(close)) = (self.mark.take(), self.shape.close) else { return Ok(()) };
        let passed = self.shape.until(mark)?;
        self.over = match mark {
            EventTime::MAX => Passed::All,
            EventTime(mark) => self.shape.until(EventTime(mark.saturating_sub(close.lateness_micros)))?,
        };
        if close.emit_on_close && !self.resumed {
            let from = match &self.passed {
                Passed::Nothing => Bound::Unbounded,
                Passed::Below(bound) => Bound::Included(&bound[..]),
                Passed::All => return Ok(()),
            };
            let mut last: &[u8] = &[];
            for (key, entry) in self.store.from(&[], from).take_while(|(key, _)| passed.has(key)) {
                let group = &key[..entry.peers as usize];
                if group != last {
                    self.released.push_back(Key::from(group));
                    last = group;
                }
            }
        }
        self.passed = passed;
        Ok(())
    }
}

impl Operator for SortedAggregate {
    fn push(&mut self, piece: Piece) -> Result<(), Cause> {
        self.store.push(&piece)
    }

    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause> {
        if self.ready.is_empty() {
            if self.changes.is_empty() {
                self.changes = self.store.take_changes();
            }
            self.advance()?;
            self.resumed = false;
            let (mut old, mut new) = (Side::default(), Side::default());
            self.gather(&mut old, &mut new)?;
            if !new.groups.is_empty() {
                self.pass(old, new, out)?;
            }
        }
        out.deltas.extend(self.ready.pop_front());
        if !self.ready.is_empty() || !self.changes.is_empty() || !self.released.is_empty() {
            return Ok(Progress::More);
        }
        self.store.forget_while(|key| self.over.has(key));
        Ok(Progress::Done)
    }

    fn watermark(&mut self, mark: EventTime) {
        self.mark = Some(mark);
    }

    fn freeze(&mut self, changes: &mut FrozenChanges) {
        self.store.freeze(changes);
    }

    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause> {
        self.store.restore(state, run, shard, shards)
    }

    fn resume(&mut self) {
        self.resumed = true;
        self.global = self.global.map(|_| true);
    }

    fn rows(&self) -> usize {
        self.store.len()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }
}
