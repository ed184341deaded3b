//! W is the minimum over partitions that are not idle, never goes back, and a restart finds the same.

use super::*;

/// One step of a stream with two partitions, and W after it.
enum Step {
    Rows(u32, Option<i64>),
    Idle(u32),
    Advance(i64),
    Partitions(u32),
}

use Step::{Advance, Idle, Partitions, Rows};

/// Runs the steps, each with what W must be after it; also with a restart after each.
fn check(steps: &[(Step, Option<i64>)]) {
    for restart in [false, true] {
        let sim = Sim::new(1);
        let mut partitions = 2;
        let reopen = |partitions| try_open_with(&sim, LogOptions::default(), partitions).unwrap();
        let mut opened = reopen(partitions);
        let mut before = None;
        for (number, (step, after)) in steps.iter().enumerate() {
            let written = match *step {
                Rows(partition, event_time) => Some(transaction([Write {
                    partition: PartitionId(partition),
                    event_time: event_time.map(EventTime),
                    ..write_to(TOPIC, rows(0, 1))
                }])),
                Idle(partition) => {
                    Some(records([Record::PartitionIdle { topic: TOPIC, partition: PartitionId(partition) }]))
                }
                Advance(to) => Some(records([Record::AdvanceWatermark { topic: TOPIC, to: EventTime(to) }])),
                Partitions(count) => {
                    partitions = count;
                    opened.log.declare_topic(TOPIC, TopicSpec { partitions });
                    None
                }
            };
            let after = after.map(EventTime);
            if let Some(transaction) = written {
                let commit = opened.log.submit(transaction).wait_blocking().unwrap();
                let group = opened.log.replay(Commit(commit.0 - 1), commit).next().unwrap().unwrap();
                if let Some(frame) = group.frames.first() {
                    assert_eq!(frame.watermark, before, "step {number}: a frame keeps W before itself");
                }
                let raised = (after > before).then(|| (TOPIC, after.unwrap()));
                assert_eq!(group.watermarks, raised.into_iter().collect::<Vec<_>>(), "step {number}");
                let seen = opened.groups.try_iter().last().unwrap();
                assert_eq!(seen.watermarks, group.watermarks);
            }
            if restart {
                drop(opened);
                opened = reopen(partitions);
            }
            assert_eq!(opened.log.watermark(TOPIC), after, "step {number}, restart: {restart}");
            before = after;
        }
    }
}

#[test]
fn the_slowest_partition_holds_w_back() {
    check(&[
        (Rows(0, Some(100)), None),
        (Rows(1, Some(50)), Some(50)),
        (Rows(1, Some(40)), Some(50)),
        (Rows(1, None), Some(50)),
        (Rows(1, Some(120)), Some(100)),
        (Rows(0, Some(110)), Some(110)),
    ]);
}

#[test]
fn an_idle_partition_leaves_and_does_not_lower_w_when_it_returns() {
    check(&[
        (Rows(0, Some(100)), None),
        (Idle(1), Some(100)),
        (Rows(0, Some(130)), Some(130)),
        (Rows(1, Some(20)), Some(130)),
        (Rows(0, Some(200)), Some(130)),
        (Rows(1, Some(150)), Some(150)),
        (Idle(0), Some(150)),
        (Idle(1), Some(200)),
        (Rows(0, None), Some(200)),
    ]);
}

#[test]
fn a_record_raises_w_and_never_lowers_it() {
    check(&[
        (Advance(70), Some(70)),
        (Advance(60), Some(70)),
        (Rows(0, Some(65)), Some(70)),
        (Rows(1, Some(90)), Some(70)),
        (Rows(0, Some(80)), Some(80)),
        (Advance(i64::MAX), Some(i64::MAX)),
        (Rows(0, Some(81)), Some(i64::MAX)),
    ]);
}

#[test]
fn new_partitions_hold_w_until_they_have_rows() {
    check(&[
        (Rows(0, Some(10)), None),
        (Rows(1, Some(10)), Some(10)),
        (Partitions(3), Some(10)),
        (Rows(0, Some(30)), Some(10)),
        (Rows(1, Some(30)), Some(10)),
        (Rows(2, Some(5)), Some(10)),
        (Rows(2, Some(20)), Some(20)),
    ]);
}

#[test]
fn a_catalog_that_is_replayed_does_not_raise_w() {
    let sim = Sim::new(3);
    let to = |partition, micros| Write {
        partition: PartitionId(partition),
        event_time: at(micros),
        ..write_to(TOPIC, rows(0, 1))
    };
    let opened = try_open_with(&sim, LogOptions::default(), 3).unwrap();
    opened.submit([to(0, 100), to(1, 100), to(2, 50)]).wait_blocking().unwrap();
    assert_eq!(opened.log.watermark(TOPIC), at(50));
    drop(opened);
    // A checkpoint from before the third partition comes first, then the change that added it.
    let opened = try_open_with(&sim, LogOptions::default(), 2).unwrap();
    opened.log.declare_topic(TOPIC, TopicSpec { partitions: 3 });
    assert_eq!(opened.log.watermark(TOPIC), at(50));
    opened.submit([to(2, 70)]).wait_blocking().unwrap();
    assert_eq!(opened.log.watermark(TOPIC), at(70));
}

#[test]
fn a_position_without_rows_is_no_sign_of_life() {
    let sim = Sim::new(4);
    let opened = try_open_with(&sim, LogOptions::default(), 2).unwrap();
    let rows_of_1 = Write { partition: PartitionId(1), event_time: at(9), ..write_to(TOPIC, rows(0, 1)) };
    opened.submit([rows_of_1]).wait_blocking().unwrap();
    let idle = Record::PartitionIdle { topic: TOPIC, partition: PartitionId(0) };
    opened.log.submit(records([idle])).wait_blocking().unwrap();
    let position = Some(bytes::Bytes::from_static(b"here"));
    opened.submit([Write { position, ..write_to(TOPIC, rows(0, 0)) }]).wait_blocking().unwrap();
    let facts = opened.log.partitions(TOPIC)[0];
    assert!(facts.idle && facts.newest_row.is_none());
    assert_eq!(opened.log.watermark(TOPIC), at(9));
}

#[test]
fn ingest_time_never_goes_back() {
    let sim = Sim::new(2);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    sim.clock.set_now(5);
    opened.append(rows(1, 1)).unwrap();
    drop(opened);
    let opened = open(&sim);
    opened.append(rows(2, 1)).unwrap();
    let times: Vec<i64> = opened.replay().iter().map(|group| group.ingest_time.0).collect();
    assert!(times.is_sorted() && times[0] > 5, "{times:?}");
}
