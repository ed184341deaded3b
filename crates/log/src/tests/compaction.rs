//! Compaction of a changelog: the newest of each key is always there, whatever crashes and whoever reads the folder meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Int8Array;
use bytes::Bytes;
use millpond_env::sim::{Fault, Survivors};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::segments::{names, options};
use super::tiering::{lose_disk, with_cold};
use super::*;
use crate::TopicPolicy;

const FOLDER: &str = "/data/journal/segments";

fn small() -> LogOptions {
    LogOptions { file_bytes_max: 1200, ..options() }
}

/// Values of key `id % 7` and `id % 5`: puts, and now and then a deletion.
fn change(id: i64) -> (Write, Vec<(i64, Option<i64>)>) {
    let changes: Vec<(i64, Option<i64>)> =
        [id % 7, 10 + id % 5].into_iter().map(|key| (key, ((id + key) % 4 != 0).then_some(id))).collect();
    let keys = Int64Array::from_iter_values(changes.iter().map(|(key, _)| *key));
    let values = Int64Array::from_iter(changes.iter().map(|(_, value)| *value));
    let ops = Int8Array::from_iter_values(changes.iter().map(|(_, value)| i8::from(value.is_none())));
    let columns: Vec<(&str, arrow::array::ArrayRef)> =
        vec![("key", Arc::new(keys)), ("value", Arc::new(values)), ("_op", Arc::new(ops))];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    (Write { kind: WriteKind::Upsert, ..write_to(TOPIC, batch) }, changes)
}

type Table = BTreeMap<i64, i64>;

fn table_after(steps: i64) -> Table {
    let mut table = Table::new();
    for (key, value) in (0..steps).flat_map(|id| change(id).1) {
        match value {
            Some(value) => table.insert(key, value),
            None => table.remove(&key),
        };
    }
    table
}

fn apply(table: &mut Table, batch: &RecordBatch) {
    let column = |n: usize| batch.column(n).as_primitive::<Int64Type>();
    let ops = batch.column(2).as_primitive::<arrow::datatypes::Int8Type>();
    for row in 0..batch.num_rows() {
        let key = column(0).value(row);
        match ops.value(row) {
            0 => table.insert(key, column(1).value(row)),
            _ => table.remove(&key),
        };
    }
}

/// By replay from the beginning; also how many rows that took.
fn replayed(opened: &Opened) -> (Table, usize) {
    let (mut table, mut rows) = (Table::new(), 0);
    for group in opened.replay() {
        for frame in group.frames {
            rows += frame.batch.num_rows();
            apply(&mut table, &frame.batch);
        }
    }
    (table, rows)
}

fn policies() -> BTreeMap<RelationId, TopicPolicy> {
    BTreeMap::from([(TOPIC, TopicPolicy { key: vec!["key".to_owned()], ..TopicPolicy::default() })])
}

fn maintain(opened: &Opened) -> Result<(), LogError> {
    let last = opened.log.last_commit();
    opened.log.checkpointed(last);
    opened.log.set_policies(policies(), last);
    opened.log.maintain()
}

/// The newest of each key in some files, as the query in docs/storage.md has it.
fn lake(files: &BTreeMap<String, Vec<u8>>) -> Table {
    let mut newest: BTreeMap<i64, (i64, i64, Option<i64>)> = BTreeMap::new();
    for bytes in files.values() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.clone())).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let (keys, values, offsets, commits) =
                (column("key"), column("value"), column("_offset"), column("_commit"));
            let ops = batch.column_by_name("_op").unwrap().as_primitive::<arrow::datatypes::Int8Type>();
            for row in 0..batch.num_rows() {
                let value = (ops.value(row) == 0).then(|| values.value(row));
                let found = (commits.value(row), offsets.value(row), value);
                let best = newest.entry(keys.value(row)).or_insert(found);
                *best = (*best).max(found);
            }
        }
    }
    newest.into_iter().filter_map(|(key, (.., value))| Some((key, value?))).collect()
}

fn files(sim: &Sim) -> BTreeMap<String, Vec<u8>> {
    let all = names(sim, FOLDER).into_iter().filter(|name| name.ends_with(".parquet"));
    all.map(|name| (name.clone(), sim.disk.contents(&Path::new(FOLDER).join(name)))).collect()
}

#[test]
fn of_each_key_the_newest_stays_and_a_lake_always_finds_it() {
    let sim = Sim::new(1);
    let opened = try_open(&sim, small()).unwrap();
    let mut exchanged = 0;
    for id in 0..160 {
        opened.submit([change(id).0]).wait_blocking().unwrap();
        if id % 20 != 19 {
            continue;
        }
        // Cut first, so that only the compaction is between the two lists of files.
        let all_stay = BTreeMap::from([(TOPIC, TopicPolicy::default())]);
        opened.log.set_policies(all_stay, Commit(id as u64 + 1));
        opened.log.checkpointed(Commit(id as u64 + 1));
        opened.log.maintain().unwrap();
        let through = opened.log.tier_status().sealed_through.0 as i64;
        let before = files(&sim);
        assert_eq!(lake(&before), table_after(through), "after {id}");
        let held = opened.log.frames(TOPIC, Commit(0), Commit(u64::MAX)).unwrap();
        maintain(&opened).unwrap();
        let mut both = files(&sim);
        both.extend(before.clone());
        drop(held);
        opened.log.maintain().unwrap();
        let after = files(&sim);
        assert_eq!(lake(&after), table_after(through), "compacted after {id}");
        // Whoever reads while files are exchanged sees all of the old ones and any of the new ones, or the other way round.
        let made: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).cloned().collect();
        let gone: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
        exchanged += made.len() + gone.len();
        for end in 0..=made.len() + gone.len() {
            let mut some = before.clone();
            some.extend(made.iter().take(end).map(|name| (name.clone(), after[name].clone())));
            gone.iter().take(end.saturating_sub(made.len())).for_each(|name| drop(some.remove(name)));
            assert_eq!(lake(&some), table_after(through), "after {id}, {end} of {made:?}, {gone:?}");
        }
        assert_eq!(replayed(&opened).0, table_after(id + 1));
    }
    assert!(exchanged > 20, "{exchanged}");
    let (table, rows) = replayed(&opened);
    assert_eq!(table, table_after(160));
    assert!(rows < 160, "of 320 rows {rows} are left");
    drop(opened);
    assert_eq!(replayed(&try_open(&sim, small()).unwrap()), (table, rows), "after a restart");
}

const STEPS: i64 = 30;

fn workload(sim: &Sim, options: LogOptions) -> i64 {
    let Ok(opened) = try_open(sim, options) else { return 0 };
    let mut done = 0;
    for id in 0..STEPS {
        if opened.submit([change(id).0]).wait_blocking().is_err() {
            break;
        }
        done += 1;
        if id % 14 == 13 {
            let _ = maintain(&opened);
        }
    }
    done
}

#[test]
fn power_may_go_at_any_call_of_a_compaction() {
    // Everything is cut, and nothing compacted.
    let base = Sim::new(0);
    let opened = try_open(&base, small()).unwrap();
    for id in 0..STEPS {
        opened.submit([change(id).0]).wait_blocking().unwrap();
    }
    opened.log.checkpointed(Commit(STEPS as u64));
    opened.log.maintain().unwrap();
    drop(opened);
    let compact = |sim: &Sim| try_open(sim, small()).and_then(|opened| maintain(&opened));
    let whole = base.crash(Survivors::All);
    compact(&whole).unwrap();
    assert!(
        names(&whole, FOLDER).iter().any(|name| name.ends_with(".1.parquet")),
        "{:?}",
        names(&whole, FOLDER)
    );
    let calls = whole.disk.changes();
    assert!(calls > 20, "{calls}");
    for call in 0..calls {
        for fault in [Fault::PowerOff, Fault::Error(std::io::ErrorKind::Other)] {
            let sim = base.crash(Survivors::All);
            sim.disk.fault_at(call, fault.clone());
            let _ = compact(&sim);
            let after = sim.crash([Survivors::Random, Survivors::None, Survivors::All][call as usize % 3]);
            let opened = try_open(&after, small()).unwrap();
            assert_eq!(replayed(&opened).0, table_after(STEPS), "{fault:?} at call {call}");
            maintain(&opened).unwrap();
            assert_eq!(
                replayed(&opened).0,
                table_after(STEPS),
                "{fault:?} at call {call}, and compacted again"
            );
        }
    }
}

#[test]
fn a_compacted_topic_comes_back_from_the_object_store() {
    let sim = Sim::new(3);
    let cold = |sim: &Sim| with_cold(sim, small());
    assert_eq!(workload(&sim, cold(&sim)), STEPS);
    let opened = try_open(&sim, cold(&sim)).unwrap();
    maintain(&opened).unwrap();
    maintain(&opened).unwrap();
    opened.log.upload_journal().unwrap();
    let local: BTreeSet<String> = files(&sim).into_keys().collect();
    drop(opened);
    let stored = super::tiering::objects(&sim);
    let stored = stored.iter().filter(|name| name.ends_with(".parquet")).count();
    assert_eq!(stored, local.len(), "what was replaced is gone there too");
    let opened = try_open(&lose_disk(&sim), cold(&sim)).unwrap();
    assert_eq!(replayed(&opened).0, table_after(STEPS));
}
