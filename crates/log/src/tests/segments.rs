//! Journal files become segments, and nobody notices: not readers, not replays, not after a crash at any call.

use arrow::array::{
    Decimal128Array, FixedSizeBinaryArray, Int8Array, IntervalMonthDayNanoArray, ListBuilder, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::IntervalMonthDayNano;
use bytes::Bytes;
use millpond_env::Disk as _;
use millpond_env::sim::{Fault, Survivors};
use std::io::ErrorKind;

use super::*;
use crate::Producer;

/// Small files, and no thread that would do things when it likes.
pub(super) fn options() -> LogOptions {
    LogOptions {
        file_bytes_max: 3000,
        frame_rows_max: 40,
        background: false,
        seal_interval: None,
        ..LogOptions::default()
    }
}

fn open_here(sim: &Sim) -> Opened {
    try_open_with(sim, options(), 3).unwrap()
}

/// A row of every type that SQL has, and NULLs.
fn wide(from: i64, rows: usize) -> RecordBatch {
    let ids: Vec<i64> = (from..from + rows as i64).collect();
    let interval = |id: &i64| (id % 2 == 0).then(|| IntervalMonthDayNano::new(*id as i32, -1, id * 7));
    let mut lists = ListBuilder::new(StringBuilder::new());
    for id in &ids {
        lists.append_value((0..id % 3).map(|n| (n != 1).then(|| format!("{id}/{n}"))));
    }
    let uuids = ids.iter().map(|id| (u128::from(*id as u64)).to_be_bytes());
    let columns: Vec<(&str, arrow::array::ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(ids.clone()).with_timezone("UTC"))),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter(ids.iter().map(|id| (id % 5 != 0).then_some(i128::from(*id))))
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
        ),
        ("every", Arc::new(ids.iter().map(interval).collect::<IntervalMonthDayNanoArray>())),
        ("tags", Arc::new(lists.finish())),
        ("uuid", Arc::new(FixedSizeBinaryArray::try_from_iter(uuids).unwrap())),
        (
            "ratio",
            Arc::new(
                ids.iter()
                    .map(|id| [f64::NAN, -0.0, 1.5][*id as usize % 3])
                    .collect::<arrow::array::Float64Array>(),
            ),
        ),
        ("_op", Arc::new(Int8Array::from_iter_values(ids.iter().map(|id| (id % 4 == 0) as i8)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, n != "id"))).unwrap()
}

/// Something of everything.
pub(super) fn step(id: i64) -> Transaction {
    let plain = write_to(TOPIC, rows(id, 1));
    let mut writes = vec![plain.clone()];
    if id % 2 == 0 {
        let partition = PartitionId(1 + (id / 2 % 2) as u32);
        let producer = Some(Producer { id: 5, epoch: 1, sequence: id as u64 });
        writes.push(Write {
            partition,
            batch: rows(id * 100, 50),
            event_time: at(id * 10),
            producer,
            ..plain.clone()
        });
    }
    if id % 3 == 0 {
        writes.push(Write { batch: wide(id, 3), kind: WriteKind::Upsert, ..write_to(OTHER, wide(id, 3)) });
    }
    if id % 5 == 0 {
        let position = Some(Bytes::from(format!("position {id}")));
        writes.push(Write { position, ..write_to(OTHER, rows(id, 0)) });
    }
    let records = match id % 7 {
        1 => vec![Record::Ddl(Bytes::from(format!("ddl {id}")))],
        3 => vec![Record::Tick(EventTime(id)), Record::Tick(EventTime(id + 1))],
        5 => vec![Record::AdvanceWatermark { topic: OTHER, to: EventTime(id * 5) }],
        6 => vec![Record::PartitionIdle { topic: TOPIC, partition: PartitionId(2) }],
        _ => Vec::new(),
    };
    Transaction { writes, records }
}

/// Topic, commit, partition, first offset, rows, watermark before it, ingest time, rows.
type SeenFrame = (RelationId, Commit, PartitionId, u64, u32, Option<EventTime>, EventTime, RecordBatch);

/// What readers can see of a log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub groups: Vec<String>,
    pub batches: Vec<RecordBatch>,
    pub frames: Vec<SeenFrame>,
    tops: Vec<(Option<EventTime>, Option<Bytes>, Vec<u64>)>,
}

pub(super) fn look(opened: &Opened) -> Seen {
    let mut seen = Seen { groups: Vec::new(), batches: Vec::new(), frames: Vec::new(), tops: Vec::new() };
    for mut group in opened.replay() {
        for frame in &mut group.frames {
            let empty = RecordBatch::new_empty(frame.batch.schema());
            seen.batches.push(std::mem::replace(&mut frame.batch, empty));
        }
        seen.groups.push(format!("{group:?}"));
    }
    for topic in [TOPIC, OTHER] {
        for frame in opened.log.frames(topic, Commit(0), Commit(u64::MAX)).unwrap() {
            let batch = opened.log.read(&frame, None).unwrap();
            let (offset, rows) = (frame.base_offset.0, frame.rows);
            seen.frames.push((
                topic,
                frame.commit,
                frame.partition,
                offset,
                rows,
                frame.watermark,
                frame.ingest_time,
                batch,
            ));
        }
        let offsets = (0..3).map(|p| opened.log.next_offset(topic, PartitionId(p)).0).collect();
        seen.tops.push((opened.log.watermark(topic), opened.log.positions(topic), offsets));
    }
    seen
}

pub(super) fn names(sim: &Sim, dir: &str) -> Vec<String> {
    let names = sim.disk.list(Path::new(dir)).unwrap_or_default();
    names.into_iter().map(|name| name.to_str().unwrap().to_owned()).collect()
}

pub(super) fn journals(sim: &Sim) -> usize {
    names(sim, "/data/journal").iter().filter(|name| name.ends_with(".log")).count()
}

pub(super) fn fill(opened: &Opened, steps: std::ops::Range<i64>) {
    for id in steps {
        opened.log.submit(step(id)).wait_blocking().unwrap();
    }
}

#[test]
fn a_log_of_segments_is_the_log_of_its_journal_files() {
    let sim = Sim::new(1);
    let opened = open_here(&sim);
    fill(&opened, 0..60);
    let before = look(&opened);
    let files = journals(&sim);
    assert!(files > 5, "{files}");
    opened.log.checkpointed(Commit(30));
    opened.log.maintain().unwrap();
    let halfway = journals(&sim);
    assert!(halfway < files && halfway > 2, "no file is cut beyond the checkpoint: {halfway} of {files}");
    assert_eq!(look(&opened), before);
    opened.log.checkpointed(Commit(60));
    opened.log.maintain().unwrap();
    assert_eq!(journals(&sim), 1, "the newest file is never cut");
    assert_eq!(look(&opened), before);
    // From any commit to any other.
    let all = opened.replay();
    for (from, to) in [(0, 1), (7, 31), (29, 30), (30, 60), (59, 60), (60, 60)] {
        let part: Vec<_> = opened.log.replay(Commit(from), Commit(to)).map(|g| g.unwrap().commit.0).collect();
        assert_eq!(part, (from + 1..=to).collect::<Vec<_>>());
        let expected = all.iter().flat_map(|g| &g.frames).count();
        let frames = |a, b| opened.log.frames(TOPIC, Commit(a), Commit(b)).unwrap().len();
        assert_eq!(frames(0, from) + frames(from, to) + frames(to, 99), frames(0, 99), "{expected}");
    }
    drop(opened);
    let opened = open_here(&sim);
    assert_eq!(look(&opened), before, "after a restart");
    assert_eq!(opened.recovered.last_tick, Some(EventTime(60)));
    let repeated = Producer { id: 5, epoch: 1, sequence: 58 };
    let again = Write { producer: Some(repeated), partition: PartitionId(1), ..write_to(TOPIC, rows(0, 1)) };
    let offset = opened.log.next_offset(TOPIC, PartitionId(1));
    opened.submit([Write { partition: PartitionId(2), ..again.clone() }]).wait_blocking().unwrap();
    let first = opened.log.next_offset(TOPIC, PartitionId(2));
    opened.submit([again.clone(), Write { partition: PartitionId(2), ..again }]).wait_blocking().unwrap();
    assert!(opened.log.next_offset(TOPIC, PartitionId(1)).0 - offset.0 <= 1);
    assert_eq!(opened.log.next_offset(TOPIC, PartitionId(2)), first, "producers are remembered");
}

#[test]
fn columns_are_read_by_number_from_segments_too() {
    let sim = Sim::new(2);
    let opened = open_here(&sim);
    fill(&opened, 0..20);
    let read = |columns: Option<&[usize]>| -> Vec<RecordBatch> {
        let frames = opened.log.frames(TOPIC, Commit(0), Commit(20)).unwrap();
        frames.iter().map(|frame| opened.log.read(frame, columns).unwrap()).collect()
    };
    let before = [read(None), read(Some(&[1])), read(Some(&[1, 0])), read(Some(&[]))];
    opened.log.checkpointed(Commit(20));
    opened.log.maintain().unwrap();
    assert_eq!([read(None), read(Some(&[1])), read(Some(&[1, 0])), read(Some(&[]))], before);
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(20)).unwrap();
    assert!(matches!(opened.log.read(&frames[0], Some(&[2])), Err(LogError::Refused { .. })));
}

#[test]
fn a_journal_file_stays_while_somebody_reads_it() {
    let sim = Sim::new(3);
    let opened = open_here(&sim);
    fill(&opened, 0..20);
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(5)).unwrap();
    let mut replay = opened.log.replay(Commit(0), Commit(20));
    let first = replay.next().unwrap().unwrap();
    opened.log.checkpointed(Commit(20));
    opened.log.maintain().unwrap();
    assert!(journals(&sim) > 1);
    for frame in &frames {
        opened.log.read(frame, None).unwrap();
    }
    let commits: Vec<_> = replay.by_ref().map(|group| group.unwrap().commit.0).collect();
    assert_eq!((first.commit.0, commits), (1, (2..=20).collect()), "it goes on in segments");
    drop((frames, replay));
    opened.log.maintain().unwrap();
    assert_eq!(journals(&sim), 1);
}

/// Less of everything: crashes are tried at every call.
pub(super) fn small_step(id: i64) -> Transaction {
    let mut writes = vec![write_to(TOPIC, rows(id, 1 + id as usize % 3))];
    if id % 2 == 0 {
        writes.push(Write { kind: WriteKind::Upsert, ..write_to(OTHER, rows(id, 1)) });
    }
    let records = if id % 3 == 2 { vec![Record::Ddl(Bytes::from(format!("ddl {id}")))] } else { Vec::new() };
    Transaction { writes, records }
}

pub(super) fn small_options() -> LogOptions {
    LogOptions { file_bytes_max: 2500, ..options() }
}

/// Appends and cuts until something fails; says how many steps were acknowledged.
fn workload(sim: &Sim) -> i64 {
    let Ok(opened) = try_open(sim, small_options()) else { return 0 };
    let mut done = 0;
    for id in 0..STEPS {
        if opened.log.submit(small_step(id)).wait_blocking().is_err() {
            return done;
        }
        done += 1;
        if id % 4 == 3 {
            opened.log.checkpointed(Commit(id as u64));
            let _ = opened.log.maintain();
        }
    }
    done
}

const STEPS: i64 = 8;

/// Opens a log after something went wrong, and compares it with one where nothing did.
fn check(sim: &Sim, acknowledged: i64, context: &str) -> i64 {
    let opened = try_open(sim, small_options()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let count = opened.recovered.last_commit.0 as i64;
    assert!((acknowledged..=acknowledged + 1).contains(&count), "{context}: {acknowledged}, found {count}");
    let model = expected(count);
    assert_eq!(rows_of(&opened), model, "{context}");
    opened.log.submit(small_step(count)).wait_blocking().unwrap_or_else(|error| panic!("{context}: {error}"));
    opened.log.checkpointed(Commit(count as u64 + 1));
    opened.log.maintain().unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(rows_of(&opened), expected(count + 1), "{context}, after more was cut");
    assert_eq!(journals(sim), 1, "{context}");
    let listed = names(sim, "/data/journal/segments");
    let manifests = listed.iter().filter(|name| name.starts_with("manifest")).count();
    assert!(manifests <= 1 && !listed.iter().any(|name| name.ends_with("staged")), "{context}: {listed:?}");
    count + 1
}

pub(super) type Rows = Vec<(u64, Vec<(u32, u32, u64, RecordBatch)>, Vec<Record>)>;

/// By replay, without the times at which it happened.
pub(super) fn rows_of(opened: &Opened) -> Rows {
    let groups = opened.replay().into_iter().map(|group| {
        let frames = group.frames.into_iter();
        let frames = frames.map(|f| (f.topic.0, f.partition.0, f.base_offset.0, f.batch)).collect();
        (group.commit.0, frames, group.records)
    });
    groups.collect()
}

pub(super) fn expected(steps: i64) -> Rows {
    let sim = Sim::new(99);
    let opened = try_open(&sim, small_options()).unwrap();
    for id in 0..steps {
        opened.log.submit(small_step(id)).wait_blocking().unwrap();
    }
    rows_of(&opened)
}

pub(super) fn all_survivors() -> [Survivors; 5] {
    let torn = |changes| Survivors::Prefix { changes, torn_bytes: 100 };
    [Survivors::None, Survivors::All, Survivors::Random, torn(0), torn(1)]
}

fn calls() -> u64 {
    let sim = Sim::new(0);
    assert_eq!(workload(&sim), STEPS);
    assert!(names(&sim, "/data/journal/segments").len() > 4, "it cuts");
    sim.disk.changes()
}

#[test]
fn power_may_go_at_any_call_of_a_cut() {
    for call in 0..calls() {
        // Two of the ways to lose unsynced changes at each call; `Random` with another seed at each.
        for survivors in [Survivors::Random, all_survivors()[call as usize % 5]] {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, Fault::PowerOff);
            let acknowledged = workload(&sim);
            let context = format!("power off at call {call}, {survivors:?}");
            let after = sim.crash(survivors);
            let found = check(&after, acknowledged, &context);
            let count = check(&after.crash(Survivors::None), found, &format!("{context}, again"));
            assert_eq!(count, found + 1, "{context}");
        }
    }
}

#[test]
fn any_call_of_a_cut_may_fail() {
    for call in 0..calls() {
        for fault in [Fault::Error(ErrorKind::Other), Fault::Torn(90, ErrorKind::StorageFull)] {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, fault.clone());
            let acknowledged = workload(&sim);
            let context = format!("{fault:?} at call {call}");
            let found = check(&sim, acknowledged, &context);
            let count = check(&sim.crash(Survivors::None), found, &format!("{context}, then a crash"));
            assert_eq!(count, found + 1, "{context}");
        }
    }
}

#[test]
fn a_start_after_a_crash_in_a_cut_may_crash_too() {
    let end = calls() - 9;
    for survivors in all_survivors() {
        for call in 0..30 {
            let sim = Sim::new(call);
            sim.disk.fault_at(end, Fault::PowerOff);
            let acknowledged = workload(&sim);
            let second = sim.crash(survivors);
            second.disk.fault_at(call, Fault::PowerOff);
            if let Ok(opened) = try_open(&second, small_options()) {
                opened.log.checkpointed(Commit(STEPS as u64));
                let _ = opened.log.maintain();
            }
            let over = second.disk.changes() <= call;
            check(&second.crash(survivors), acknowledged, &format!("{survivors:?}, call {call}"));
            if over {
                break;
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_a_segment_a_spine_or_a_manifest_is_named() {
    let sim = Sim::new(5);
    assert_eq!(workload(&sim), STEPS);
    let model = expected(STEPS);
    let folder = Path::new("/data/journal/segments");
    let (mut noticed, mut unread) = (0, 0);
    for name in names(&sim, "/data/journal/segments") {
        let path = folder.join(&name);
        let good = sim.disk.contents(&path);
        let step = if good.len() > 4000 { 7 } else { 1 };
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            sim.disk.corrupt(&path, bad);
            let read = try_open(&sim, small_options()).and_then(|opened| {
                opened.log.replay(Commit(0), Commit(u64::MAX)).collect::<Result<Vec<_>, _>>()?;
                Ok(rows_of(&opened))
            });
            match read {
                // Nobody has read it: the columns that are for the lake, and Parquet's magic number.
                Ok(rows) => {
                    assert!(name.ends_with(".parquet"), "byte {at} of {name} went unnoticed");
                    assert_eq!(rows, model);
                    unread += 1;
                }
                Err(LogError::Corrupt { file, .. }) => {
                    assert_eq!(file, path, "byte {at}");
                    noticed += 1;
                }
                Err(other) => panic!("byte {at} of {name}: {other}"),
            }
        }
        sim.disk.corrupt(&path, good);
    }
    assert!(noticed > 3 * unread, "{noticed} were noticed, {unread} were not read");
    assert_eq!(rows_of(&try_open(&sim, small_options()).unwrap()), model);
}

#[test]
fn memory_keeps_no_frames_of_what_was_cut() {
    let sim = Sim::new(6);
    let opened = open_here(&sim);
    fill(&opened, 0..60);
    opened.log.checkpointed(Commit(60));
    opened.log.maintain().unwrap();
    let kept = opened.log.frames_in_memory();
    let all = opened.log.frames(TOPIC, Commit(0), Commit(60)).unwrap().len();
    assert!(kept < all / 4, "{kept} of {all}");
}
