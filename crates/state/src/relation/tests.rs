use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;

use super::*;

type Row = (Option<i64>, Option<String>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]))
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let k: Int64Array = rows.iter().map(|((k, _), _)| *k).collect();
    let v: StringArray = rows.iter().map(|((_, v), _)| v.clone()).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(v)]).unwrap();
    Delta::new(batch, Some(rows.iter().map(|&(_, weight)| weight).collect::<Vec<_>>().into()))
}

fn row(k: i64, v: &str) -> Row {
    (Some(k), Some(v.to_owned()))
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let (k, v) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
    let row = |i| (k.is_valid(i).then(|| k.value(i)), v.is_valid(i).then(|| v.value(i).to_owned()));
    (0..batch.num_rows()).map(row).collect()
}

fn contents(snapshot: &HeapSnapshot) -> BTreeMap<Row, i64> {
    let mut rows = BTreeMap::new();
    for batch in snapshot.batches(None) {
        rows_of(&batch.unwrap()).into_iter().for_each(|row| *rows.entry(row).or_default() += 1);
    }
    rows
}

fn check(identity: Identity, deltas: &[&[(Row, i64)]], expected: &[(Row, i64)]) {
    let mut relation = Relation::new("r", schema(), identity);
    deltas.iter().for_each(|rows| relation.apply(&delta(rows)).unwrap());
    assert_eq!(contents(&relation.snapshot()), expected.iter().cloned().collect());
}

fn check_fault(identity: Identity, deltas: &[&[(Row, i64)]], expected: &str) {
    let mut relation = Relation::new("r", schema(), identity);
    let (last, before) = deltas.split_last().unwrap();
    before.iter().for_each(|rows| relation.apply(&delta(rows)).unwrap());
    assert_eq!(relation.apply(&delta(last)).unwrap_err().to_string(), expected);
}

fn key() -> Identity {
    Identity::UniqueKey(vec![0])
}

#[test]
fn only_the_net_effect_of_a_delta_counts() {
    let (old, a, b) = (row(1, "old"), row(1, "a"), row(1, "b"));
    for identity in [key(), Identity::Multiset] {
        let start: &[_] = &[(old.clone(), 1), (row(2, "x"), 1)];
        let versions = [(old.clone(), -1), (a.clone(), 1), (a.clone(), -1), (b.clone(), 1)];
        for rotation in 0..4 {
            let mut versions = versions.clone();
            versions.rotate_left(rotation);
            check(identity.clone(), &[start, &versions], &[(b.clone(), 1), (row(2, "x"), 1)]);
        }
        let nothing = [(a.clone(), -1), (a.clone(), 1), (old.clone(), 1), (old.clone(), -1)];
        check(identity.clone(), &[start, &nothing], start);
        check(identity.clone(), &[start, &[(a.clone(), 2), (a.clone(), -2)]], start);
    }
    check(key(), &[&[(a.clone(), 2), (a.clone(), -1)]], &[(a, 1)]);
}

#[test]
fn equal_rows_are_kept_apart() {
    let a = row(1, "a");
    let nulls = (None, None);
    let first: &[_] = &[(a.clone(), 2), (nulls.clone(), 1)];
    check(
        Identity::Multiset,
        &[first, &[(a.clone(), 1), (nulls.clone(), 2)]],
        &[(a.clone(), 3), (nulls.clone(), 3)],
    );
    check(Identity::Multiset, &[first, &[(a.clone(), -1)]], &[(a.clone(), 1), (nulls.clone(), 1)]);
    check(Identity::Multiset, &[first, &[(a.clone(), -2)], &[(a.clone(), 1)]], &[(a.clone(), 1), (nulls, 1)]);
    check(Identity::AppendOnly, &[&[(a.clone(), 2)]], &[(a, 2)]);
}

#[test]
fn faults_name_relation_and_row() {
    let (a, b) = (row(1, "a"), row(1, "b"));
    let gone = "a row is retracted from \"r\" that is not there: (1, b)";
    for identity in [key(), Identity::Multiset] {
        check_fault(identity.clone(), &[&[(b.clone(), -1)]], gone);
        check_fault(identity.clone(), &[&[(a.clone(), 1)], &[(b.clone(), -1)]], gone);
        check_fault(identity.clone(), &[&[(b.clone(), 1)], &[(b.clone(), -2)]], gone);
        check_fault(identity, &[&[(b.clone(), 1), (b.clone(), -2)]], gone);
    }
    let twice = "\"r\" gets a second row with the unique key (1)";
    check_fault(key(), &[&[(a.clone(), 1)], &[(b.clone(), 1)]], twice);
    check_fault(key(), &[&[(a.clone(), 1), (b.clone(), 1)]], twice);
    check_fault(key(), &[&[(a.clone(), 2)]], twice);
    check_fault(key(), &[&[(a.clone(), 1)], &[(a.clone(), -1), (a.clone(), 1), (b.clone(), 1)]], twice);
    check_fault(
        key(),
        &[&[((None, None), 1)], &[((None, None), 1)]],
        "\"r\" gets a second row with the unique key (NULL)",
    );
    let append_only = "a row is retracted from \"r\", which is append-only: (1, a)";
    check_fault(Identity::AppendOnly, &[&[(a.clone(), 1)], &[(a, -1)]], append_only);
}

#[test]
fn find_sees_what_is_there() {
    let mut relation = Relation::new("r", schema(), key());
    relation.apply(&delta(&[(row(1, "a"), 1), ((None, None), 1)])).unwrap();
    let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(2), Some(1), None]))];
    let found = relation.find(&keys).unwrap();
    assert_eq!(found, [None, Some(RowId(0)), Some(RowId(1))]);
    relation
        .apply(&delta(&[(row(1, "a"), -1), (row(1, "b"), 1), (row(2, "c"), 1), ((None, None), -1)]))
        .unwrap();
    let found: Vec<RowId> = relation.find(&keys).unwrap().into_iter().flatten().collect();
    let rows = rows_of(&relation.heap().gather(&found, None).unwrap());
    assert_eq!(rows, [row(2, "c"), row(1, "b")]);
    let text: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["1"]))];
    assert!(relation.find(&text).is_err());
    // The key may be any column.
    let mut relation = Relation::new("r", schema(), Identity::UniqueKey(vec![1]));
    relation.apply(&delta(&[(row(1, "1"), 1)])).unwrap();
    assert_eq!(relation.find(&text).unwrap(), [Some(RowId(0))]);
}

#[test]
fn a_relation_of_one_row_has_an_empty_key() {
    let identity = Identity::UniqueKey(vec![]);
    let (a, b) = (row(1, "a"), row(2, "b"));
    check(identity.clone(), &[&[(a.clone(), 1)], &[(b.clone(), 1), (a.clone(), -1)]], &[(b.clone(), 1)]);
    check_fault(identity, &[&[(a, 1)], &[(b, 1)]], "\"r\" gets a second row with the unique key ()");
}

/// Versions of a key within one delta must not cost their square.
#[test]
fn a_hot_key_with_many_versions() {
    let versions = 20_000;
    let mut rows: Vec<(Row, i64)> = (0..versions).map(|n| (row(1, &n.to_string()), 1)).collect();
    rows.extend((0..versions - 1).map(|n| (row(1, &n.to_string()), -1)));
    let last: &[_] = &[(row(1, &(versions - 1).to_string()), 1)];
    check(key(), &[&rows], last);
    check(
        Identity::Multiset,
        &[&[(row(1, "x"), versions)], &[(row(1, "x"), 1 - versions)]],
        &[(row(1, "x"), 1)],
    );
}

fn any_row() -> impl Strategy<Value = Row> {
    (prop::option::weighted(0.9, 0_i64..8), prop::option::weighted(0.9, 0_u8..4))
        .prop_map(|(k, v)| (k, v.map(|v| format!("value {v}"))))
}

/// Full 64-bit hashes never collide in a test; these do.
fn weak(relation: &Relation, delta: &Delta) -> Vec<u64> {
    let columns: Vec<ArrayRef> =
        relation.identity_columns().iter().map(|&c| delta.batch.column(c).clone()).collect();
    let hashes = hash::hash_columns(&columns, delta.rows()).unwrap();
    hashes.into_iter().map(|hash| hash & 0x8000_0000_0000_0003).collect()
}

struct Modelled {
    relation: Relation,
    model: BTreeMap<Row, i64>,
    runs: Vec<HeapRun>,
    collide: bool,
}

impl Modelled {
    fn new(identity: Identity, collide: bool) -> Self {
        let relation = Relation::new("r", schema(), identity);
        Self { relation, model: BTreeMap::new(), runs: vec![], collide }
    }

    fn apply(&mut self, rows: &[(Row, i64)], what_else: u8) {
        let delta = delta(rows);
        let held = (self.relation.snapshot(), self.model.clone());
        if self.collide {
            let hashes = weak(&self.relation, &delta);
            self.relation.apply_hashed(&delta, &hashes).unwrap();
        } else {
            self.relation.apply(&delta).unwrap();
        }
        for (row, weight) in rows {
            *self.model.entry(row.clone()).or_default() += weight;
        }
        self.model.retain(|_, count| *count != 0);
        match what_else {
            0 => drop(self.relation.maintain(10).unwrap()),
            1 => self.runs.extend(self.relation.freeze()),
            2 if !self.collide => {
                self.runs.extend(self.relation.freeze());
                let identity = self.relation.identity().clone();
                self.relation = Relation::restore("r", schema(), identity, self.runs.clone()).unwrap();
            }
            _ => {}
        }
        assert_eq!(contents(&self.relation.snapshot()), self.model);
        assert_eq!(contents(&held.0), held.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_multiset_counts_its_rows(
        deltas in prop::collection::vec((prop::collection::vec((any_row(), -3_i64..4), 0..30), any::<u64>(), 0_u8..6), 1..12),
        collide in any::<bool>(),
    ) {
        let mut it = Modelled::new(Identity::Multiset, collide);
        for (mut rows, seed, what_else) in deltas {
            rows.retain(|(_, weight)| *weight != 0);
            // What would be retracted too often is inserted as well, somewhere in the same delta.
            let mut net = it.model.clone();
            rows.iter().for_each(|(row, weight)| *net.entry(row.clone()).or_default() += weight);
            rows.extend(net.into_iter().filter(|(_, net)| *net < 0).map(|(row, net)| (row, -net)));
            shuffle(&mut rows, seed);
            it.apply(&rows, what_else);
        }
    }

    #[test]
    fn a_keyed_relation_is_a_map(
        deltas in prop::collection::vec((prop::collection::vec((any_row(), any::<bool>()), 0..30), any::<u64>(), 0_u8..6), 1..12),
        collide in any::<bool>(),
    ) {
        let mut it = Modelled::new(Identity::UniqueKey(vec![0]), collide);
        for (changes, seed, what_else) in deltas {
            let mut map: BTreeMap<Option<i64>, Row> = it.model.keys().map(|row| (row.0, row.clone())).collect();
            let mut rows = Vec::new();
            for (row, put) in changes {
                rows.extend(map.remove(&row.0).map(|old| (old, -1)));
                if put {
                    rows.push((row.clone(), 1));
                    map.insert(row.0, row);
                }
            }
            shuffle(&mut rows, seed);
            it.apply(&rows, what_else);
            if !collide {
                let keys: Int64Array = map.keys().copied().collect();
                let found = it.relation.find(&[Arc::new(keys)]).unwrap();
                let found: Option<Vec<RowId>> = found.into_iter().collect();
                let rows = it.relation.heap().gather(&found.expect("all keys are there"), None).unwrap();
                prop_assert_eq!(rows_of(&rows), map.into_values().collect::<Vec<_>>());
            }
        }
    }
}

fn shuffle(rows: &mut [(Row, i64)], seed: u64) {
    for end in (1..rows.len()).rev() {
        rows.swap(end, (hash::mix(seed ^ end as u64) % (end as u64 + 1)) as usize);
    }
}
