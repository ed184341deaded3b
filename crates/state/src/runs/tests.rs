use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::*;
use crate::Heap;

fn keyed(rows: &BTreeMap<(Option<i64>, String), Option<i64>>) -> KeyedRun {
    let a: Int64Array = rows.keys().map(|(a, _)| *a).collect();
    let b: StringArray = rows.keys().map(|(_, b)| Some(b)).collect();
    let value: Int64Array = rows.values().copied().collect();
    let deleted: BooleanArray = rows.values().map(|value| Some(value.is_none())).collect();
    let columns: [(&str, ArrayRef, bool); 3] =
        [("a", Arc::new(a), true), ("b", Arc::new(b), true), ("value", Arc::new(value), true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    KeyedRun::new(2, batch, Some(deleted)).unwrap()
}

fn contents(run: &KeyedRun) -> BTreeMap<(Option<i64>, String), Option<i64>> {
    let mut rows = BTreeMap::new();
    for part in run.parts() {
        let a = part.batch.column(0).as_primitive::<Int64Type>();
        let b = part.batch.column(1).as_string::<i32>();
        let value = part.batch.column(2).as_primitive::<Int64Type>();
        for row in 0..part.batch.num_rows() {
            let gone = part.deleted.as_ref().is_some_and(|deleted| deleted.value(row));
            let key = (a.is_valid(row).then(|| a.value(row)), b.value(row).to_owned());
            assert!(rows.insert(key, (!gone).then(|| value.value(row))).is_none(), "a key is there twice");
        }
    }
    rows
}

fn is_sorted(run: &KeyedRun) -> bool {
    let hashes = run.parts().iter().flat_map(|part| {
        millpond_types::hash::hash_columns(&part.batch.columns()[..run.keys()], part.batch.num_rows())
            .unwrap()
    });
    hashes.is_sorted()
}

fn heap_run() -> HeapRun {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("t", DataType::Utf8, true),
    ]));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let t: ArrayRef =
        Arc::new((0..100).map(|n| (n % 3 != 0).then(|| format!("text {n}"))).collect::<StringArray>());
    let mut heap = Heap::new(schema.clone());
    let batch = RecordBatch::try_new(schema, vec![n, t]).unwrap();
    heap.append(&batch).unwrap();
    heap.freeze();
    heap.append(&batch).unwrap();
    heap.delete(&[crate::RowId(7), crate::RowId(3), crate::RowId(150)]).unwrap();
    heap.freeze().unwrap()
}

/// The same bytes with another content and right checksums, as a malicious writer would make them.
fn resealed(bytes: &Bytes, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let open = envelope::open(bytes).unwrap();
    let mut first = open.sections[0].to_vec();
    change(&mut first);
    envelope::seal(&envelope::Envelope { sections: [first.into(), open.sections[1].clone()], ..open })
}

#[test]
fn no_bytes_make_a_decoder_panic() {
    let keyed = keyed(&(0..100).map(|n| ((Some(n), n.to_string()), Some(n))).collect());
    for good in [heap_run().encode().unwrap().bytes, keyed.encode().unwrap().bytes] {
        let length = envelope::open(&good).unwrap().sections[0].len();
        for at in 0..length {
            for byte in [0x00, 0xff] {
                // Either it is noticed, or the bytes mean something else; both are fine.
                let _ = Run::decode(&resealed(&good, |content| content[at] = byte));
            }
        }
        for length in 0..length {
            assert!(Run::decode(&resealed(&good, |content| content.truncate(length))).is_err());
        }
    }
}

#[test]
fn a_run_of_another_kind_is_refused() {
    let run = heap_run().encode().unwrap();
    assert_eq!(
        KeyedRun::decode(&run.bytes).unwrap_err().to_string(),
        "its content is malformed: it is not a key table's"
    );
    let runs = vec![Run::Heap(heap_run()), Run::Keyed(keyed(&BTreeMap::new()))];
    assert_eq!(
        Run::merge(runs, true).unwrap_err().to_string(),
        "runs do not follow each other: they are of several kinds"
    );
    assert!(Run::merge(vec![], true).is_err());
}

#[test]
fn ids_cost_next_to_nothing() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 60_000]));
    let mut heap = Heap::new(schema.clone());
    heap.append(&RecordBatch::try_new(schema, vec![column]).unwrap()).unwrap();
    let bytes = heap.freeze().unwrap().encode().unwrap().bytes;
    assert!(bytes.len() < 8_000, "{} bytes", bytes.len());
}

#[test]
fn empty_runs_travel() {
    let run = KeyedRun::decode(&keyed(&BTreeMap::new()).encode().unwrap().bytes).unwrap();
    assert_eq!((run.rows(), run.keys(), run.schema().fields().len()), (0, 2, 3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_value_of_a_key_wins(
        runs in prop::collection::vec(
            prop::collection::btree_map(
                (prop::option::of(0_i64..20), "[ab]{0,2}"), prop::option::weighted(0.7, any::<i64>()), 0..40),
            1..6),
        bottom in any::<bool>(),
    ) {
        let mut expected: BTreeMap<_, _> = runs.iter().flatten().collect();
        if bottom {
            expected.retain(|_, value| value.is_some());
        }
        let encoded: Vec<_> = runs.iter().map(|run| keyed(run).encode().unwrap()).collect();
        let decoded = encoded.iter().map(|run| Run::decode(&run.bytes).unwrap()).collect();
        let Run::Keyed(merged) = Run::merge(decoded, bottom).unwrap() else { panic!("kind changed") };
        prop_assert!(is_sorted(&merged));
        let merged = contents(&merged);
        prop_assert_eq!(merged.iter().collect::<BTreeMap<_, _>>(), expected);
    }
}
