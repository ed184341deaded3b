//! What goes in comes out, in order, merged, and atomically.

use arrow::array::{ArrayRef, DictionaryArray, Int8Array};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use millpond_env::sim::{Fault, Gate, Survivors};
use millpond_types::Offset;

use super::*;
use crate::{ColumnRange, PartitionFacts, Producer};

#[test]
fn rows_come_back_as_they_were() {
    let sim = Sim::new(1);
    let opened = open(&sim);
    assert_eq!(opened.append(rows(0, 5)).unwrap(), Commit(1));
    assert_eq!(opened.append(rows(5, 1)).unwrap(), Commit(2));
    let check = |opened: &Opened| {
        let groups = opened.replay();
        assert_eq!(groups.iter().map(|g| g.commit.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(groups[0].frames[0].batch, rows(0, 5));
        assert_eq!(groups[1].frames[0].batch, rows(5, 1));
        assert_eq!(groups[1].frames[0].base_offset, Offset(5));
        assert_eq!(opened.ids(TOPIC), [0, 1, 2, 3, 4, 5]);
        assert_eq!(opened.log.last_commit(), Commit(2));
        assert_eq!(*opened.log.durable().borrow(), Commit(2));
        assert_eq!(opened.log.next_offset(TOPIC, PartitionId(0)), Offset(6));
    };
    check(&opened);
    let seen: Vec<_> = opened.groups.try_iter().collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].frames[0].batch, rows(0, 5));
    drop(opened);
    let again = open(&sim);
    assert_eq!(
        (again.recovered.last_commit, again.recovered.rows, again.recovered.cut.clone()),
        (Commit(2), 6, None)
    );
    check(&again);
    assert_eq!(again.append(rows(6, 1)).unwrap(), Commit(3));
    assert_eq!(again.ids(TOPIC), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn everything_that_waits_becomes_one_group_and_one_frame() {
    let sim = Sim::new(2);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes(), Fault::Hold(gate.clone()));
    let first = opened.submit([write_to(TOPIC, rows(1, 1))]);
    gate.wait_until_reached();
    let waiting: Vec<_> = (2..100).map(|id| opened.submit([write_to(TOPIC, rows(id, 1))])).collect();
    let changes = sim.disk.changes();
    gate.open();
    assert_eq!(first.wait_blocking().unwrap(), Commit(2));
    for ticket in &waiting {
        assert_eq!(ticket.wait_blocking().unwrap(), Commit(3));
    }
    assert_eq!(
        sim.disk.changes() - changes,
        3,
        "the sync of the first group, one write and one sync of the second"
    );
    let groups = opened.replay();
    assert_eq!(groups[2].frames.len(), 1);
    assert_eq!(groups[2].frames[0].batch, rows(2, 98));
    assert_eq!(opened.ids(TOPIC), (0..100).collect::<Vec<_>>());
}

#[test]
fn large_writes_are_cut_into_frames() {
    let sim = Sim::new(3);
    let options = LogOptions { frame_rows_max: 10, ..LogOptions::default() };
    let opened = try_open(&sim, options).unwrap();
    let time = |batch, micros| Write { event_time: at(micros), ..write_to(TOPIC, batch) };
    opened.submit([time(rows(0, 25), 50), time(rows(25, 10), 40)]).wait_blocking().unwrap();
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(1)).unwrap();
    assert_eq!(frames.iter().map(|f| f.rows).collect::<Vec<_>>(), [10, 10, 10, 5]);
    assert_eq!(frames.iter().map(|f| f.base_offset.0).collect::<Vec<_>>(), [0, 10, 20, 30]);
    let before: Vec<_> = frames.iter().map(|f| f.watermark).collect();
    assert_eq!(before, [None, None, None, at(50)], "a write counts where it ends");
    assert_eq!(opened.ids(TOPIC), (0..35).collect::<Vec<_>>());
    drop(opened);
    let small = LogOptions { frame_bytes_max: 100, ..LogOptions::default() };
    let opened = try_open(&sim, small).unwrap();
    opened.append(rows(35, 40)).unwrap();
    let frames = opened.log.frames(TOPIC, Commit(1), Commit(2)).unwrap();
    assert!(frames.len() > 5, "{} frames of about 100 bytes", frames.len());
    assert_eq!(opened.ids(TOPIC), (0..75).collect::<Vec<_>>());
}

#[test]
fn frames_differ_where_writes_differ_and_keep_their_order() {
    let sim = Sim::new(4);
    let opened = open(&sim);
    let with_op = {
        let mut fields = schema().fields().to_vec();
        fields.push(Arc::new(Field::new("_op", DataType::Int8, false)));
        let mut columns = rows(1, 1).columns().to_vec();
        columns.push(Arc::new(Int8Array::from(vec![1])) as ArrayRef);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let upsert = Write { kind: WriteKind::Upsert, schema_version: 2, ..write_to(TOPIC, with_op.clone()) };
    opened
        .submit([
            write_to(TOPIC, rows(0, 1)),
            write_to(OTHER, rows(100, 1)),
            upsert,
            write_to(OTHER, rows(101, 1)),
            write_to(TOPIC, rows(2, 1)),
        ])
        .wait_blocking()
        .unwrap();
    drop(opened);
    let opened = open(&sim);
    let group = &opened.replay()[0];
    let facts: Vec<_> =
        group.frames.iter().map(|f| (f.topic, f.kind, f.schema_version, f.base_offset.0)).collect();
    assert_eq!(
        facts,
        [
            (TOPIC, WriteKind::Append, 1, 0),
            (OTHER, WriteKind::Append, 1, 0),
            (TOPIC, WriteKind::Upsert, 2, 1),
            (TOPIC, WriteKind::Append, 1, 2),
        ]
    );
    assert_eq!(group.frames[2].batch, with_op);
    assert_eq!(opened.ids(OTHER), [100, 101]);
}

#[test]
fn records_come_back_and_ddl_has_a_group_of_its_own() {
    let sim = Sim::new(5);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes(), Fault::Hold(gate.clone()));
    let mut tickets = vec![opened.submit([write_to(TOPIC, rows(1, 1))])];
    gate.wait_until_reached();
    let ddl = Record::Ddl(Bytes::from_static(b"CREATE"));
    let tick = Record::Tick(EventTime(99));
    let advance = Record::AdvanceWatermark { topic: TOPIC, to: EventTime(5) };
    tickets.push(opened.log.submit(records([tick.clone()])));
    tickets.push(opened.submit([write_to(TOPIC, rows(2, 1))]));
    tickets.push(
        opened
            .log
            .submit(Transaction { writes: vec![write_to(TOPIC, rows(3, 1))], records: vec![ddl.clone()] }),
    );
    tickets.push(opened.log.submit(records([advance.clone()])));
    tickets.push(opened.submit([write_to(TOPIC, rows(4, 1))]));
    gate.open();
    let commits: Vec<u64> = tickets.iter().map(|t| t.wait_blocking().unwrap().0).collect();
    assert_eq!(commits, [2, 3, 3, 4, 5, 6]);
    drop(opened);
    let opened = open(&sim);
    let groups = opened.replay();
    assert_eq!(groups[2].records, [tick]);
    assert_eq!((groups[3].records.as_slice(), groups[3].frames.len()), (&[ddl][..], 1));
    assert_eq!(groups[4].records, [advance]);
    assert_eq!(groups[5].frames[0].watermark, at(5));
    assert_eq!(opened.recovered.ddl, [(Commit(4), Bytes::from_static(b"CREATE"))]);
    assert_eq!(opened.recovered.last_tick, at(99));
}

#[test]
fn replay_begins_and_ends_at_any_commit_over_several_files() {
    let sim = Sim::new(6);
    let options = LogOptions { file_bytes_max: 2000, ..LogOptions::default() };
    let opened = try_open(&sim, options.clone()).unwrap();
    for id in 0..30 {
        opened.append(rows(id, 1)).unwrap();
    }
    drop(opened);
    let opened = try_open(&sim, options).unwrap();
    assert!(opened.recovered.files > 5, "{} files", opened.recovered.files);
    for id in 30..40 {
        opened.append(rows(id, 1)).unwrap();
    }
    for from in 0..=40 {
        for to in [0, from, from + 1, from + 7, 40, 99] {
            let found: Vec<u64> =
                opened.log.replay(Commit(from), Commit(to)).map(|group| group.unwrap().commit.0).collect();
            assert_eq!(found, (from + 1..=to.min(40)).collect::<Vec<_>>(), "{from}..={to}");
            let frames = opened.log.frames(TOPIC, Commit(from), Commit(to)).unwrap();
            let commits: Vec<u64> = frames.iter().map(|frame| frame.commit.0).collect();
            assert_eq!(commits, found);
        }
    }
    assert_eq!(opened.ids(TOPIC), (0..40).collect::<Vec<_>>());
}

#[test]
fn many_threads_share_groups_and_lose_nothing() {
    let sim = Sim::new(7);
    let opened = open(&sim);
    const THREADS: i64 = 8;
    const EACH: i64 = 200;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let opened = &opened;
            scope.spawn(move || {
                let mut last = Commit(0);
                for i in 0..EACH {
                    let writes = [write_to(TOPIC, rows(thread * EACH + i, 1)), write_to(OTHER, rows(i, 1))];
                    let commit = opened.submit(writes).wait_blocking().unwrap();
                    assert!(commit > last);
                    last = commit;
                }
            });
        }
    });
    let mut all = opened.ids(TOPIC);
    for thread in 0..THREADS {
        let range = thread * EACH..(thread + 1) * EACH;
        let own: Vec<i64> = all.iter().copied().filter(|id| range.contains(id)).collect();
        assert_eq!(own, range.collect::<Vec<_>>(), "each thread's rows are in its order");
    }
    all.sort_unstable();
    assert_eq!(all, (0..THREADS * EACH).collect::<Vec<_>>());
    drop(opened);
    assert_eq!(open(&sim).ids(OTHER).len(), (THREADS * EACH) as usize);
}

#[test]
fn a_repeated_append_is_dropped_also_after_a_restart() {
    let sim = Sim::new(8);
    let opened = open(&sim);
    let produced = |id, epoch, sequence, from| Write {
        producer: Some(Producer { id, epoch, sequence }),
        ..write_to(TOPIC, rows(from, 1))
    };
    opened.submit([produced(1, 0, 1, 0)]).wait_blocking().unwrap();
    opened.submit([produced(1, 0, 1, 0)]).wait_blocking().unwrap();
    opened.submit([produced(1, 0, 2, 1), produced(2, 0, 1, 2)]).wait_blocking().unwrap();
    assert_eq!(opened.ids(TOPIC), [0, 1, 2]);
    drop(opened);
    let opened = open(&sim);
    opened.submit([produced(1, 0, 2, 1), produced(2, 0, 2, 3)]).wait_blocking().unwrap();
    assert_eq!(opened.ids(TOPIC), [0, 1, 2, 3]);
    opened.submit([produced(1, 1, 1, 4)]).wait_blocking().unwrap();
    let fenced = opened.submit([produced(3, 0, 1, 5), produced(1, 0, 9, 5)]).wait_blocking().unwrap_err();
    assert!(matches!(fenced, LogError::Fenced { id: 1, epoch: 0, newest: 1, .. }), "{fenced}");
    assert_eq!(opened.ids(TOPIC), [0, 1, 2, 3, 4]);
    opened.submit([produced(3, 0, 1, 5)]).wait_blocking().unwrap();
    assert_eq!(opened.ids(TOPIC), [0, 1, 2, 3, 4, 5], "nothing of the fenced transaction was remembered");
}

/// A client that heard nothing asks again, and must be told what the first answer was.
#[test]
fn a_repeated_append_answers_with_the_commit_of_the_first() {
    let sim = Sim::new(18);
    let opened = open(&sim);
    let append = |opened: &Opened, sequence: u64| {
        let producer = Some(Producer { id: 1, epoch: 3, sequence });
        let write = Write { producer, ..write_to(TOPIC, rows(sequence as i64, 1)) };
        opened.submit([write]).wait_blocking().unwrap()
    };
    for sequence in 0..8 {
        assert_eq!(append(&opened, sequence), Commit(sequence + 1));
    }
    let check = |opened: &Opened| {
        for sequence in 3..8 {
            assert_eq!(append(opened, sequence), Commit(sequence + 1), "one of the last five");
        }
        assert!(append(opened, 2) > Commit(8), "long ago: a commit at which its row is there");
        assert_eq!(opened.ids(TOPIC), (0..8).collect::<Vec<_>>());
    };
    check(&opened);
    drop(opened);
    let sim = sim.crash(Survivors::None);
    check(&open(&sim));
    let opened = open(&sim);
    let other =
        Write { producer: Some(Producer { id: 1, epoch: 3, sequence: 7 }), ..write_to(TOPIC, rows(7, 1)) };
    let with_new = opened.submit([other, write_to(OTHER, rows(0, 1))]).wait_blocking().unwrap();
    assert_eq!(with_new, opened.log.last_commit(), "what is new in the transaction counts");
    assert_eq!(opened.ids(TOPIC).len(), 8);
}

#[test]
fn a_repetition_waits_until_the_original_is_durable() {
    let sim = Sim::new(19);
    let opened = open(&sim);
    opened.append(rows(100, 1)).unwrap();
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes() + 1, Fault::Hold(gate.clone()));
    let append = || {
        let producer = Some(Producer { id: 1, epoch: 0, sequence: 1 });
        opened.submit([Write { producer, ..write_to(TOPIC, rows(0, 1)) }])
    };
    let first = append();
    gate.wait_until_reached();
    let again = append();
    assert_eq!(*opened.log.durable().borrow(), Commit(1));
    gate.open();
    assert_eq!(again.wait_blocking().unwrap(), Commit(2));
    assert!(*opened.log.durable().borrow() >= Commit(2));
    assert_eq!(first.wait_blocking().unwrap(), Commit(2));
}

#[test]
fn each_partition_counts_for_itself() {
    let sim = Sim::new(20);
    let opened = try_open_with(&sim, LogOptions::default(), 3).unwrap();
    let to = |partition, from, n, micros| Write {
        partition: PartitionId(partition),
        event_time: at(micros),
        ..write_to(TOPIC, rows(from, n))
    };
    opened.submit([to(2, 0, 3, 30), to(0, 3, 2, 10), to(2, 5, 1, 20)]).wait_blocking().unwrap();
    sim.clock.advance(std::time::Duration::from_secs(1));
    opened.submit([to(0, 6, 4, 40)]).wait_blocking().unwrap();
    let idle = Record::PartitionIdle { topic: TOPIC, partition: PartitionId(1) };
    opened.log.submit(records([idle])).wait_blocking().unwrap();
    let check = |opened: &Opened| {
        let facts = opened.log.partitions(TOPIC);
        let told: Vec<_> =
            facts.iter().map(|f| (f.partition.0, f.next_offset.0, f.event_time, f.idle)).collect();
        assert_eq!(told, [(0, 6, at(40), false), (1, 0, None, true), (2, 4, at(30), false)]);
        assert!(facts[0].newest_row > facts[2].newest_row && facts[1].newest_row.is_none());
        let stored = opened.log.storage();
        let told: Vec<_> =
            stored.iter().map(|s| (s.partition.0, s.earliest_offset.0, s.frames, s.rows)).collect();
        assert_eq!(told, [(0, 0, 2, 6), (2, 0, 1, 4)]);
        assert!(stored.iter().all(|stored| stored.journal_bytes > 0));
        facts
    };
    let before: Vec<PartitionFacts> = check(&opened);
    drop(opened);
    let opened = try_open_with(&sim, LogOptions::default(), 3).unwrap();
    assert_eq!(check(&opened), before);
    assert_eq!(opened.log.partitions(OTHER).len(), 1);
}

#[test]
fn a_frame_knows_the_range_of_its_numbers() {
    let sim = Sim::new(21);
    let opened = open(&sim);
    opened.append(rows(10, 100)).unwrap();
    opened.append(rows(200, 5)).unwrap();
    let check = |opened: &Opened| {
        let frames = opened.log.frames(TOPIC, Commit(0), Commit(9)).unwrap();
        let ranges: Vec<_> = frames.iter().map(|frame| frame.ranges.as_deref().map(<[_]>::to_vec)).collect();
        assert_eq!(ranges, [Some(vec![ColumnRange { column: 0, min: 10, max: 109 }]), None]);
    };
    check(&opened);
    drop(opened);
    check(&open(&sim));
}

#[test]
fn the_position_of_a_connector_is_committed_with_its_rows() {
    let sim = Sim::new(9);
    let opened = open(&sim);
    let positioned = |batch, position: &'static str| Write {
        position: Some(Bytes::from_static(position.as_bytes())),
        ..write_to(TOPIC, batch)
    };
    assert_eq!(opened.log.positions(TOPIC), None);
    opened.submit([positioned(rows(0, 3), "a"), positioned(rows(3, 2), "b")]).wait_blocking().unwrap();
    opened.submit([positioned(rows(0, 0), "end")]).wait_blocking().unwrap();
    opened.append(rows(5, 1)).unwrap();
    drop(opened);
    let opened = open(&sim);
    assert_eq!(opened.log.positions(TOPIC), Some(Bytes::from_static(b"end")));
    let positions: Vec<_> = opened.replay().iter().map(|group| group.frames[0].position.clone()).collect();
    assert_eq!(positions, [Some(Bytes::from_static(b"b")), Some(Bytes::from_static(b"end")), None]);
    assert_eq!(opened.ids(TOPIC), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_cannot_be_kept_is_refused_as_a_whole() {
    let sim = Sim::new(10);
    let opened = open(&sim);
    let text = |write: Write| {
        let error = opened.submit([write_to(TOPIC, rows(0, 1)), write]).wait_blocking().unwrap_err();
        assert!(matches!(error, LogError::Refused { .. }));
        error.to_string()
    };
    let batch = rows(0, 1);
    let unknown = write_to(RelationId(99), batch.clone());
    assert_eq!(text(unknown), "cannot append to topic 99: it is not declared");
    let partition = Write { partition: PartitionId(1), ..write_to(TOPIC, batch.clone()) };
    assert_eq!(text(partition), "cannot append to topic 7: it has 1 partitions, not partition 1");
    let position = Write { position: Some(vec![0; 2 << 20].into()), ..write_to(TOPIC, batch) };
    assert_eq!(
        text(position),
        "cannot append to topic 7: its position has 2097152 bytes, the limit is 1048576"
    );
    let dictionary: DictionaryArray<Int32Type> = ["a"].into_iter().collect();
    let dictionary = RecordBatch::try_from_iter([("d", Arc::new(dictionary) as ArrayRef)]).unwrap();
    assert_eq!(
        text(write_to(TOPIC, dictionary)),
        "cannot append to topic 7: column \"d\" has the type Dictionary(Int32, Utf8), which the log does not store"
    );
    assert_eq!(opened.log.last_commit(), Commit(0));
}

#[test]
fn a_full_queue_blocks_and_the_next_transaction_waits_its_turn() {
    let sim = Sim::new(11);
    let options = LogOptions { queue_bytes_max: 2000, ..LogOptions::default() };
    let opened = try_open(&sim, options).unwrap();
    opened.append(rows(0, 1)).unwrap();
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes(), Fault::Hold(gate.clone()));
    let held = opened.submit([write_to(TOPIC, rows(1, 1))]);
    gate.wait_until_reached();
    let large = opened.submit([write_to(TOPIC, rows(2, 1000))]);
    let (sent, received) = crossbeam_channel::bounded(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let blocked = opened.submit([write_to(TOPIC, rows(1002, 1))]);
            sent.send(()).unwrap();
            blocked.wait_blocking().unwrap();
        });
        assert!(received.try_recv().is_err());
        gate.open();
        received.recv().unwrap();
    });
    held.wait_blocking().unwrap();
    large.wait_blocking().unwrap();
    assert_eq!(opened.ids(TOPIC), (0..1003).collect::<Vec<_>>());
}

#[test]
fn an_observer_that_stands_still_holds_the_log_but_not_its_end() {
    let sim = Sim::new(12);
    let (observer, groups) = crossbeam_channel::bounded(1);
    let (log, _) = Log::open(sim.env(), dir(), LogOptions::default(), observer).unwrap();
    log.declare_topic(TOPIC, TopicSpec { partitions: 1 });
    let tickets: Vec<_> = (0..3)
        .map(|id| {
            let mut transaction = transaction([write_to(TOPIC, rows(id, 1))]);
            transaction.records.push(Record::AdvanceWatermark { topic: TOPIC, to: EventTime(id) });
            log.submit(transaction)
        })
        .collect();
    assert_eq!(tickets[0].wait_blocking().unwrap(), Commit(1));
    drop(log);
    for (number, ticket) in tickets.iter().enumerate() {
        assert_eq!(
            ticket.wait_blocking().unwrap(),
            Commit(number as u64 + 1),
            "what was submitted is written"
        );
    }
    assert_eq!(groups.try_iter().count(), 1);
    assert_eq!(open(&sim).ids(TOPIC), [0, 1, 2]);
}

#[tokio::test]
async fn written_comes_before_durable() {
    let sim = Sim::new(13);
    let opened = open(&sim);
    opened.submit([write_to(TOPIC, rows(0, 1))]).wait().await.unwrap();
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes() + 1, Fault::Hold(gate.clone()));
    let ticket = opened.submit([write_to(TOPIC, rows(1, 1))]);
    assert_eq!(ticket.written().await.unwrap(), Commit(2));
    assert_eq!(*opened.log.durable().borrow(), Commit(1));
    assert_eq!(opened.ids(TOPIC), [0, 1]);
    gate.open();
    assert_eq!(ticket.wait().await.unwrap(), Commit(2));
    assert_eq!(*opened.log.durable().borrow(), Commit(2));
    assert_eq!(ticket.written().await.unwrap(), Commit(2));
}

#[test]
fn a_second_log_on_the_directory_is_refused() {
    let sim = Sim::new(14);
    let opened = open(&sim);
    let error = try_open(&sim, LogOptions::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "data directory \"/data/journal\" is in use by another process");
    let next = sim.crash(Survivors::All);
    drop(opened);
    open(&next);
}
