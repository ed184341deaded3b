use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("list", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ]))
}

/// Rows that can be told by their number; some texts are NULL.
fn batch(numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let text: StringArray = numbers.iter().map(|&n| text(n)).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for &n in &numbers {
        (0..n % 3).for_each(|_| lists.values().append_value("x"));
        lists.append(n % 5 != 0);
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(numbers)), Arc::new(text), Arc::new(lists.finish())];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn text(n: i64) -> Option<String> {
    (n % 7 != 3).then(|| format!("row {n}"))
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    let numbers = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    let texts = batch.column(1).as_string::<i32>();
    for (row, &n) in numbers.iter().enumerate() {
        assert_eq!(texts.is_valid(row).then(|| texts.value(row).to_owned()), text(n));
        assert_eq!(batch.column(2).is_valid(row), n % 5 != 0);
    }
    numbers
}

fn contents(snapshot: &HeapSnapshot) -> BTreeMap<u64, i64> {
    let mut rows = BTreeMap::new();
    for (chunk, batch) in snapshot.batches(None).enumerate() {
        let batch = batch.unwrap();
        assert_eq!(batch.num_rows(), snapshot.chunk_rows(chunk));
        let ids = snapshot.chunk_ids(chunk).into_iter().map(|id| id.0);
        rows.extend(ids.zip(numbers(&batch)));
    }
    assert_eq!(rows.len(), snapshot.rows());
    rows
}

fn ids(range: std::ops::Range<u64>) -> Vec<RowId> {
    range.map(RowId).collect()
}

#[test]
fn a_large_batch_becomes_a_chunk_without_copying() {
    let mut heap = Heap::new(schema());
    let rows = batch(0..CHUNK_ROWS as i64);
    heap.append(&rows).unwrap();
    let chunk = heap.snapshot().chunk(0, Some(&[0])).unwrap().unwrap();
    assert!(heap.snapshot().chunk(1, None).unwrap().is_none());
    let address = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().as_ptr();
    assert_eq!(address(&chunk), address(&rows));
}

#[test]
fn a_slice_does_not_keep_its_batch_alive() {
    let mut heap = Heap::new(schema());
    heap.append(&batch(0..10_000).slice(5_000, 10)).unwrap();
    assert!(heap.bytes() < 4_000, "{} bytes for ten rows", heap.bytes());
    assert_eq!(contents(&heap.snapshot()), (0..10).map(|id| (id, id as i64 + 5_000)).collect());
}

#[test]
fn small_appends_leave_few_chunks() {
    let mut heap = Heap::new(schema());
    for n in 0..1_000 {
        assert_eq!(heap.append(&batch([n])).unwrap(), RowId(n as u64));
    }
    let snapshot = heap.snapshot();
    assert!(snapshot.chunks() <= 10, "{} chunks", snapshot.chunks());
    assert_eq!(contents(&snapshot), (0..1_000).map(|n| (n, n as i64)).collect());
}

#[test]
fn a_deletion_of_what_is_not_there_is_a_fault() {
    let mut heap = Heap::new(schema());
    heap.append(&batch(0..10)).unwrap();
    heap.delete(&[RowId(3)]).unwrap();
    for bad in [vec![RowId(3)], vec![RowId(10)], vec![RowId(4), RowId(4)]] {
        assert!(matches!(heap.delete(&bad), Err(StateFault::UnknownRow(_))), "{bad:?}");
    }
    assert!(heap.gather(&[RowId(3)], None).is_err());
    assert!(!heap.contains(RowId(3)) && heap.contains(RowId(9)) && !heap.contains(RowId(10)));
}

#[test]
fn columns_of_another_type_are_refused() {
    let mut heap = Heap::new(schema());
    let other =
        RecordBatch::try_from_iter([("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]).unwrap();
    let fault = heap.append(&other).unwrap_err();
    let expected = "a batch of (Utf8) does not fit rows of (Int64, Utf8, List(Utf8))";
    assert_eq!(fault.to_string(), expected);
}

#[test]
fn names_may_differ_but_nulls_may_not() {
    let number = |n: Option<i64>, nullable| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![n]));
        RecordBatch::try_from_iter_with_nullable([("other", column, nullable)]).unwrap()
    };
    let narrow = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let mut heap = Heap::new(narrow.clone());
    heap.append(&number(Some(1), true)).unwrap();
    heap.append(&number(Some(2), false)).unwrap();
    assert!(heap.append(&number(None, true)).is_err());
    assert_eq!(heap.snapshot().chunk(0, None).unwrap().unwrap().schema(), narrow);
    let renamed = Arc::new(Schema::new(vec![Field::new("m", DataType::Int64, true)]));
    let mut heap = Heap::restore(renamed.clone(), vec![heap.freeze().unwrap()]).unwrap();
    assert_eq!(heap.snapshot().chunk(0, None).unwrap().unwrap().schema(), renamed);
}

#[test]
fn a_scan_of_no_columns_still_counts() {
    let mut heap = Heap::new(schema());
    heap.append(&batch(0..10)).unwrap();
    heap.append(&batch(0..1)).unwrap();
    heap.delete(&[RowId(3)]).unwrap();
    let rows: usize = heap.snapshot().batches(Some(&[])).map(|b| b.unwrap().num_rows()).sum();
    assert_eq!(rows, 10);
    assert_eq!(heap.gather(&[RowId(2), RowId(1)], Some(&[])).unwrap().num_rows(), 2);
}

#[test]
fn gather_keeps_order_and_repetition() {
    let mut heap = Heap::new(schema());
    for start in [0, 100, 200] {
        heap.append(&batch(start..start + 100)).unwrap();
    }
    let wanted = [RowId(250), RowId(3), RowId(250), RowId(199)];
    assert_eq!(numbers(&heap.gather(&wanted, None).unwrap()), [250, 3, 250, 199]);
    let texts = heap.gather(&wanted[..2], Some(&[1])).unwrap();
    assert_eq!(texts.column(0).as_string::<i32>().value(0), "row 250");
    assert_eq!(heap.gather(&[], None).unwrap().num_rows(), 0);
    assert_eq!(heap.snapshot().gather(&wanted[1..2], None).unwrap().num_rows(), 1);
}

/// Several pages of chunks that are too large to merge.
#[test]
fn many_chunks() {
    let narrow = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let rows = CHUNK_ROWS as u64 / 2 + 1;
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let half = RecordBatch::try_new(narrow.clone(), vec![column]).unwrap();
    let mut heap = Heap::new(narrow);
    for _ in 0..150 {
        heap.append(&half).unwrap();
    }
    let before = heap.snapshot();
    assert_eq!(before.chunks(), 150);
    // All of some chunks, half of others, across pages, in no order.
    let gone: Vec<RowId> = (60..70)
        .flat_map(|chunk| ids(chunk * rows..(chunk + 1) * rows))
        .chain((100..120).flat_map(|chunk| ids(chunk * rows..chunk * rows + rows / 2 + 1)))
        .rev()
        .collect();
    heap.delete(&gone).unwrap();
    assert_eq!(heap.snapshot().chunks(), 140);
    let bytes = heap.bytes();
    let mut steps = 0;
    while heap.maintain(40_000).unwrap() {
        steps += 1;
    }
    assert!((5..=20).contains(&steps), "{steps} steps");
    assert!(heap.bytes() < bytes, "{} of {bytes} bytes", heap.bytes());
    assert_eq!(heap.rows(), before.rows() - gone.len());
    assert!(heap.snapshot().chunks() < 140);
    let id = RowId(119 * rows + rows - 1);
    let row = heap.gather(&[id], None).unwrap();
    assert_eq!(row.column(0).as_primitive::<Int64Type>().value(0), rows as i64 - 1);
    assert_eq!(before.rows(), 150 * rows as usize);
    let all: usize = before.batches(None).map(|b| b.unwrap().num_rows()).sum();
    assert_eq!(all, before.rows());
}

#[test]
fn a_freeze_holds_only_changes() {
    let mut heap = Heap::new(schema());
    assert!(heap.freeze().is_none());
    heap.append(&batch(0..100)).unwrap();
    let first = heap.freeze().unwrap();
    assert_eq!((first.rows(), first.deletions()), (100, 0));
    assert!(heap.freeze().is_none());
    heap.append(&batch(100..120)).unwrap();
    heap.delete(&[RowId(5), RowId(110)]).unwrap();
    let second = heap.freeze().unwrap();
    assert_eq!((second.rows(), second.deletions()), (19, 1));
    let merged = HeapRun::merge(vec![first.clone(), second.clone()]).unwrap();
    assert_eq!((merged.rows(), merged.deletions()), (118, 0));
    let restored = Heap::restore(schema(), vec![merged]).unwrap().snapshot();
    assert_eq!(contents(&restored), contents(&heap.snapshot()));
    let fault = Heap::restore(schema(), vec![second.clone()]).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "runs do not follow each other: one begins with row 100 where row 0 comes next"
    );
    assert!(HeapRun::merge(vec![second, first]).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    /// Deletes about every n-th row, in the order of a shuffle.
    Delete(usize, u64),
    Snapshot,
    Freeze,
    Maintain(usize),
    Merge(usize, usize),
    /// Freezes and goes on with what the runs say.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        24 => (0_usize..300).prop_map(Step::Append),
        8 => Just(Step::Append(1)),
        1 => (CHUNK_ROWS - 300..CHUNK_ROWS + 300).prop_map(Step::Append),
        24 => (1_usize..20, any::<u64>()).prop_map(|(n, seed)| Step::Delete(n, seed)),
        8 => Just(Step::Snapshot),
        12 => Just(Step::Freeze),
        8 => (1_usize..5_000).prop_map(Step::Maintain),
        8 => (0_usize..4, 2_usize..5).prop_map(|(at, n)| Step::Merge(at, n)),
        4 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

struct Modelled {
    heap: Heap,
    model: BTreeMap<u64, i64>,
    runs: Vec<HeapRun>,
    next: i64,
}

impl Modelled {
    fn freeze(&mut self) {
        if let Some(run) = self.heap.freeze() {
            let encoded = run.encode().unwrap();
            self.runs.push(HeapRun::decode(&encoded.bytes).unwrap());
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Append(rows) => {
                let first = self.heap.append(&batch(self.next..self.next + rows as i64)).unwrap().0;
                self.model.extend((0..rows).map(|row| (first + row as u64, self.next + row as i64)));
                self.next += rows as i64;
            }
            Step::Delete(every, seed) => {
                let mut gone: Vec<RowId> = self.model.keys().step_by(every).map(|&id| RowId(id)).collect();
                gone.sort_by_key(|id| millpond_types::hash::mix(id.0 ^ seed));
                if seed % 3 == 0 {
                    gone.sort();
                }
                self.heap.delete(&gone).unwrap();
                gone.iter().for_each(|id| assert!(self.model.remove(&id.0).is_some()));
            }
            Step::Snapshot => {}
            Step::Freeze => self.freeze(),
            Step::Maintain(budget) => {
                self.heap.maintain(budget).unwrap();
            }
            Step::Merge(at, count) => {
                let end = (at + count).min(self.runs.len());
                if at < end {
                    let merged = HeapRun::merge(self.runs[at..end].to_vec()).unwrap();
                    self.runs.splice(at..end, [merged]);
                }
            }
            Step::Restart => {
                self.freeze();
                let next = self.heap.next_id();
                self.heap = Heap::restore(schema(), self.runs.clone()).unwrap();
                assert_eq!(self.heap.next_id(), next);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_heap_is_a_map_from_ids_to_rows(steps in steps()) {
        let mut it = Modelled { heap: Heap::new(schema()), model: BTreeMap::new(), runs: vec![], next: 0 };
        let mut held = Vec::new();
        for step in steps {
            let snapshot = matches!(step, Step::Snapshot);
            it.apply(step);
            prop_assert_eq!(it.heap.rows(), it.model.len());
            if snapshot {
                held.push((it.heap.snapshot(), it.model.clone()));
            }
        }
        let wanted: Vec<RowId> = it.model.keys().rev().step_by(5).map(|&id| RowId(id)).collect();
        let expected: Vec<i64> = wanted.iter().map(|id| it.model[&id.0]).collect();
        prop_assert_eq!(numbers(&it.heap.gather(&wanted, None).unwrap()), expected);
        held.push((it.heap.snapshot(), it.model.clone()));
        it.freeze();
        let restored = Heap::restore(schema(), it.runs).unwrap().snapshot();
        held.push((restored, it.model));
        for (snapshot, model) in held {
            prop_assert_eq!(contents(&snapshot), model);
        }
        while it.heap.maintain(1_000).unwrap() {}
        let bytes: usize = it.heap.directory.iter().map(Slot::bytes).sum();
        prop_assert_eq!(it.heap.bytes, bytes);
        prop_assert!(it.heap.directory.iter().all(|slot| slot.live() * 2 > slot.len()));
    }
}
