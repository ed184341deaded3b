//! Crashes and failures at every call: no acknowledged row is lost, no half group is read.

use std::io::ErrorKind;

use bytes::Bytes;
use millpond_env::sim::{Fault, Gate, Survivors};

use super::*;
use crate::Producer;

/// Files so small that the workload begins several.
fn options() -> LogOptions {
    LogOptions { file_bytes_max: 1500, ..LogOptions::default() }
}

/// Each transaction writes equal ids to two topics, every third a DDL record with them.
fn step(id: i64) -> Transaction {
    let records = if id % 3 == 2 { vec![Record::Ddl(Bytes::from(format!("ddl {id}")))] } else { Vec::new() };
    Transaction { writes: vec![write_to(TOPIC, rows(id, 1)), write_to(OTHER, rows(id, 1))], records }
}

const STEPS: i64 = 8;

/// Appends until something fails; says how many were acknowledged.
fn workload(sim: &Sim) -> i64 {
    let Ok(opened) = try_open(sim, options()) else { return 0 };
    (0..STEPS).take_while(|id| opened.log.submit(step(*id)).wait_blocking().is_ok()).count() as i64
}

/// Checks a log against what was acknowledged, and goes on with one step. Returns how many steps it holds then, all of
/// which are acknowledged now.
fn check(sim: &Sim, acknowledged: i64, context: &str) -> i64 {
    let opened = try_open(sim, options()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = opened.ids(TOPIC);
    let count = found.len() as i64;
    assert_eq!(found, (0..count).collect::<Vec<_>>(), "{context}: a prefix");
    assert!(count >= acknowledged, "{context}: {acknowledged} were acknowledged, {count} were found");
    assert!(count <= acknowledged + 1, "{context}: only the last step's fate can be unknown");
    assert_eq!(opened.ids(OTHER), found, "{context}: both topics or neither");
    let ddl: Vec<u64> = opened.recovered.ddl.iter().map(|(commit, _)| commit.0).collect();
    assert_eq!(
        ddl,
        (0..count as u64).filter(|id| id % 3 == 2).map(|id| id + 1).collect::<Vec<_>>(),
        "{context}"
    );
    opened.log.submit(step(count)).wait_blocking().unwrap_or_else(|error| panic!("{context}: {error}"));
    count + 1
}

fn all_survivors() -> [Survivors; 6] {
    let torn = |changes| Survivors::Prefix { changes, torn_bytes: 100 };
    [Survivors::None, Survivors::All, Survivors::Random, Survivors::Sectors, torn(0), torn(1)]
}

/// How many changing calls the workload makes.
fn calls() -> u64 {
    let sim = Sim::new(0);
    assert_eq!(workload(&sim), STEPS);
    sim.disk.changes()
}

#[test]
fn power_may_go_at_any_call() {
    for call in 0..calls() {
        for survivors in all_survivors() {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, Fault::PowerOff);
            let acknowledged = workload(&sim);
            let context = format!("power off at call {call}, {survivors:?}");
            let after = sim.crash(survivors);
            let found = check(&after, acknowledged, &context);
            // What recovery has shown must stay, whatever happens next.
            let count = check(&after.crash(Survivors::None), found, &format!("{context}, again"));
            assert_eq!(count, found + 1, "{context}");
        }
    }
}

#[test]
fn any_call_may_fail_and_the_log_can_be_opened_again() {
    for call in 0..calls() {
        for fault in [Fault::Error(ErrorKind::Other), Fault::Torn(90, ErrorKind::StorageFull)] {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, fault.clone());
            let acknowledged = workload(&sim);
            let context = format!("{fault:?} at call {call}");
            // The same process opens it again, with a page cache that shows more than the disk may hold.
            let found = check(&sim, acknowledged, &context);
            let count = check(&sim.crash(Survivors::None), found, &format!("{context}, then a crash"));
            assert_eq!(count, found + 1, "{context}");
        }
    }
}

/// A producer sends each row until it is acknowledged, through crashes at any call: every row is there once, and each
/// answer names the commit that holds the row.
#[test]
fn a_producer_that_tries_again_appends_each_row_once() {
    const SENT: i64 = 6;
    let send = |opened: &Opened, id: i64| {
        let producer = Some(Producer { id: 5, epoch: 0, sequence: id as u64 });
        opened.submit([Write { producer, ..write_to(TOPIC, rows(id, 1)) }]).wait_blocking()
    };
    let run = |sim: &Sim, mut next: i64| {
        let Ok(opened) = try_open(sim, options()) else { return next };
        while next < SENT && send(&opened, next).is_ok() {
            next += 1;
        }
        next
    };
    let calls = {
        let sim = Sim::new(0);
        assert_eq!(run(&sim, 0), SENT);
        sim.disk.changes()
    };
    for call in 0..calls {
        for survivors in all_survivors() {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, Fault::PowerOff);
            let acknowledged = run(&sim, 0);
            let sim = sim.crash(survivors);
            let context = format!("power off at call {call}, {survivors:?}");
            assert_eq!(run(&sim, acknowledged), SENT, "{context}");
            let opened = try_open(&sim.crash(Survivors::None), options()).unwrap();
            assert_eq!(opened.ids(TOPIC), (0..SENT).collect::<Vec<_>>(), "{context}");
            let frames = opened.log.frames(TOPIC, Commit(0), Commit(u64::MAX)).unwrap();
            let last = send(&opened, SENT - 1).unwrap();
            assert_eq!(last, frames.last().unwrap().commit, "{context}");
        }
    }
}

#[test]
fn a_fence_survives_a_crash() {
    let sim = Sim::new(8);
    let opened = open(&sim);
    let send = |opened: &Opened, epoch, sequence| {
        let producer = Some(Producer { id: 5, epoch, sequence });
        opened.submit([Write { producer, ..write_to(TOPIC, rows(0, 1)) }]).wait_blocking()
    };
    send(&opened, 0, 7).unwrap();
    send(&opened, 1, 0).unwrap();
    let opened = open(&sim.crash(Survivors::None));
    let fenced = send(&opened, 0, 8).unwrap_err();
    assert!(matches!(fenced, LogError::Fenced { epoch: 0, newest: 1, .. }), "{fenced}");
    assert_eq!(send(&opened, 1, 0).unwrap(), Commit(2), "a repetition");
    assert_eq!(send(&opened, 1, 1).unwrap(), Commit(4), "the next one");
    assert_eq!(opened.ids(TOPIC).len(), 3);
}

#[test]
fn recovery_may_crash_at_any_call() {
    let base = Sim::new(3);
    let end = calls() - 2;
    base.disk.fault_at(end, Fault::PowerOff);
    let acknowledged = workload(&base);
    for survivors in all_survivors() {
        for call in 0..20 {
            let sim = base.crash(survivors);
            sim.disk.fault_at(call, Fault::PowerOff);
            let opened = try_open(&sim, options()).is_ok();
            for again in all_survivors() {
                check(&sim.crash(again), acknowledged, &format!("{survivors:?}, call {call}, {again:?}"));
            }
            if opened && sim.disk.changes() <= call {
                break;
            }
        }
    }
}

#[test]
fn the_last_group_may_be_torn_at_any_byte() {
    let sim = Sim::new(4);
    let opened = open(&sim);
    for id in 0..3 {
        opened.log.submit(step(id)).wait_blocking().unwrap();
    }
    sim.disk.fault_at(sim.disk.changes() + 1, Fault::PowerOff);
    opened.log.submit(step(3)).wait_blocking().unwrap_err();
    let unsynced = sim.disk.unsynced();
    assert_eq!(unsynced.len(), 1, "one write for the whole group");
    for torn_bytes in 0..=unsynced[0] {
        let after = sim.crash(Survivors::Prefix { changes: 0, torn_bytes });
        let whole = torn_bytes == unsynced[0];
        let opened = open(&after);
        assert_eq!(opened.recovered.last_commit, Commit(3 + u64::from(whole)), "{torn_bytes} bytes");
        assert_eq!(opened.recovered.truncated_bytes as usize, if whole { 0 } else { torn_bytes });
        assert_eq!(opened.recovered.cut.is_some(), torn_bytes > 0 && !whole);
        drop(opened);
        check(&after, 3, &format!("{torn_bytes} bytes"));
    }
}

#[test]
fn a_group_whose_sectors_came_in_any_order_is_whole_or_nothing() {
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let opened = open(&sim);
        opened.append(rows(0, 1)).unwrap();
        sim.disk.fault_at(sim.disk.changes() + 1, Fault::PowerOff);
        opened.append(rows(1, 300)).unwrap_err();
        let opened = open(&sim.crash(Survivors::Sectors));
        let found = opened.ids(TOPIC).len();
        assert!(found == 1 || found == 301, "seed {seed}: {found} rows");
    }
}

#[test]
fn after_a_failed_sync_all_who_wait_are_told_and_nothing_follows() {
    let sim = Sim::new(5);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    let gate = Gate::new();
    let next = sim.disk.changes();
    sim.disk.fault_at(next, Fault::Hold(gate.clone()));
    sim.disk.fault_at(next + 1, Fault::Error(ErrorKind::Other));
    let failed = opened.submit([write_to(TOPIC, rows(1, 1))]);
    gate.wait_until_reached();
    let waiting: Vec<_> = (2..5).map(|id| opened.submit([write_to(TOPIC, rows(id, 1))])).collect();
    gate.open();
    let error = failed.wait_blocking().unwrap_err();
    assert!(matches!(error, LogError::Io { action: "sync", .. }), "{error}");
    for ticket in waiting {
        let error = ticket.wait_blocking().unwrap_err();
        assert!(matches!(error, LogError::Stopped { .. }) && !error.is_disk_full(), "{error}");
    }
    let later = opened.append(rows(9, 1)).unwrap_err();
    assert_eq!(
        later.to_string(),
        "the log has stopped: could not sync \"/data/journal/00000000000000000001.log\": other error"
    );
    assert!(opened.log.failure().is_some());
    assert_eq!(*opened.log.durable().borrow(), Commit(1));
    assert_eq!(opened.ids(TOPIC), [0, 1], "what is written stays readable");
    drop(opened);
    let opened = open(&sim);
    opened.append(rows(2, 1)).unwrap();
    drop(opened);
    assert_eq!(open(&sim.crash(Survivors::None)).ids(TOPIC), [0, 1, 2]);
}

#[test]
fn a_full_disk_is_told_apart() {
    let sim = Sim::new(6);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    sim.disk.fault_next(Fault::Torn(50, ErrorKind::StorageFull));
    let error = opened.append(rows(1, 1)).unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }) && error.is_disk_full());
    assert_eq!(
        error.to_string(),
        "could not write to \"/data/journal/00000000000000000001.log\": no space left on device"
    );
    assert!(opened.append(rows(1, 1)).unwrap_err().is_disk_full());
    drop(opened);
    let opened = open(&sim);
    assert_eq!(opened.recovered.truncated_bytes, 50);
    assert_eq!(opened.append(rows(1, 1)).unwrap(), Commit(2));
}

#[test]
fn opening_twice_finds_the_same() {
    let sim = Sim::new(7);
    sim.disk.fault_at(calls() - 2, Fault::PowerOff);
    workload(&sim);
    let sim = sim.crash(Survivors::Random);
    let first = try_open(&sim, options()).unwrap();
    let (ids, recovered) = (first.ids(TOPIC), first.recovered.clone());
    drop(first);
    for _ in 0..3 {
        let again = try_open(&sim, options()).unwrap();
        assert_eq!(again.ids(TOPIC), ids);
        assert_eq!(
            (again.recovered.last_commit, again.recovered.bytes),
            (recovered.last_commit, recovered.bytes)
        );
        assert_eq!(again.recovered.cut, None);
    }
}
