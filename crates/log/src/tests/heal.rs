//! Going on after a failure in the same process.

use std::io::ErrorKind;

use millpond_env::Disk as _;
use millpond_env::sim::{Fault, Gate, Survivors};

use super::*;

fn options() -> LogOptions {
    LogOptions { file_bytes_max: 1500, ..LogOptions::default() }
}

fn other_error() -> Fault {
    Fault::Error(ErrorKind::Other)
}

/// What the observer has, with what it must throw away.
fn drain(opened: &Opened) -> (Vec<Commit>, Vec<Commit>) {
    opened.log.settle();
    let durable = *opened.log.durable().borrow();
    opened.groups.try_iter().map(|group| group.commit).partition(|commit| *commit <= durable)
}

/// Appends one row of this number.
fn append(opened: &Opened, id: i64) -> Result<Commit, LogError> {
    opened.append(rows(id, 1))
}

#[test]
fn after_a_failed_sync_the_log_goes_on_in_a_new_file() {
    let sim = Sim::new(1);
    let opened = open(&sim);
    append(&opened, 0).unwrap();
    let gate = Gate::new();
    let next = sim.disk.changes();
    sim.disk.fault_at(next, Fault::Hold(gate.clone()));
    sim.disk.fault_at(next + 1, other_error());
    let failed = opened.submit([write_to(TOPIC, rows(1, 1))]);
    gate.wait_until_reached();
    let waiting = opened.submit([write_to(TOPIC, rows(2, 1))]);
    gate.open();
    assert!(matches!(failed.wait_blocking(), Err(LogError::Io { action: "sync", .. })));
    assert!(matches!(waiting.wait_blocking(), Err(LogError::Stopped { .. })));
    assert_eq!((opened.log.term(), *opened.log.failures().borrow()), (1, 1));
    let (durable, lost) = drain(&opened);
    assert_eq!((durable, lost), (vec![Commit(1)], vec![Commit(2)]), "the observer had gone ahead");
    assert_eq!(opened.log.heal().unwrap(), Commit(3), "no number means two things");
    assert!(opened.log.failure().is_none());
    assert_eq!(drain(&opened).0, [Commit(3)], "who waits for a lost commit is woken");
    assert_eq!(opened.ids(TOPIC), [0]);
    assert_eq!(opened.log.next_offset(TOPIC, PartitionId(0)).0, 1, "offsets have no gap");
    assert_eq!(append(&opened, 1).unwrap(), Commit(4));
    assert_eq!(opened.ids(TOPIC), [0, 1]);
    assert_eq!(sim.disk.list(dir()).unwrap().len(), 2);
    assert_eq!(opened.log.heal().unwrap(), Commit(4), "there is nothing to heal");
    for survivors in [Survivors::None, Survivors::All] {
        let again = open(&sim.crash(survivors));
        assert_eq!((again.ids(TOPIC), again.recovered.last_commit), (vec![0, 1], Commit(4)), "{survivors:?}");
        assert_eq!(again.log.replay(Commit(1), Commit(9)).count(), 2);
        assert_eq!(append(&again, 2).unwrap(), Commit(5));
    }
}

#[test]
fn the_first_group_of_all_may_fail() {
    for call in 0..6 {
        let sim = Sim::new(2);
        let Ok(opened) = try_open(&sim, options()) else { continue };
        sim.disk.fault_at(sim.disk.changes() + call, other_error());
        if append(&opened, 0).is_err() {
            drain(&opened);
            opened.log.heal().unwrap();
            append(&opened, 0).unwrap();
        }
        drop(opened);
        let again = open(&sim.crash(Survivors::None));
        assert_eq!(again.ids(TOPIC), [0], "call {call}");
        assert_eq!(again.replay().last().unwrap().commit, again.recovered.last_commit);
    }
}

#[test]
fn what_builds_on_a_lost_group_is_refused() {
    let sim = Sim::new(3);
    let opened = open(&sim);
    let term = opened.log.term();
    sim.disk.fault_at(sim.disk.changes() + 4, other_error());
    let mut id = 0;
    while append(&opened, id).is_ok() {
        id += 1;
    }
    opened.log.heal().unwrap();
    let late = opened.log.submit_in(term, transaction([write_to(TOPIC, rows(9, 1))]));
    assert!(matches!(late.wait_blocking(), Err(LogError::Interrupted)));
    let term = opened.log.term();
    opened.log.submit_in(term, transaction([write_to(TOPIC, rows(id, 1))])).wait_blocking().unwrap();
    assert_eq!(opened.ids(TOPIC), (0..=id).collect::<Vec<_>>());
}

/// Appends row after row and heals after each failure, as long as that works. Returns the rows that were acknowledged, and
/// whether one failed after which nothing else worked: its fate is unknown.
fn stubborn(sim: &Sim, steps: i64) -> (i64, bool) {
    let Ok(opened) = try_open(sim, options()) else { return (0, false) };
    let mut id = 0;
    while id < steps {
        if append(&opened, id).is_ok() {
            id += 1;
            continue;
        }
        drain(&opened);
        if (0..4).all(|_| opened.log.heal().is_err()) {
            return (id, true);
        }
        if !sim.disk.is_off() {
            assert_eq!(opened.ids(TOPIC), (0..id).collect::<Vec<_>>(), "what failed is gone");
        }
    }
    (id, false)
}

fn check(sim: &Sim, acknowledged: i64, unknown: bool, context: &str) {
    let opened = try_open(sim, options()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = opened.ids(TOPIC);
    let most = acknowledged + i64::from(unknown);
    assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>(), "{context}");
    assert!(
        (acknowledged..=most).contains(&(found.len() as i64)),
        "{context}: {acknowledged} to {most}, {found:?}"
    );
    append(&opened, found.len() as i64).unwrap_or_else(|error| panic!("{context}: {error}"));
}

const STEPS: i64 = 8;

#[test]
fn any_call_may_fail_and_every_row_is_written_in_the_end() {
    let calls = {
        let sim = Sim::new(0);
        assert_eq!(stubborn(&sim, STEPS), (STEPS, false));
        sim.disk.changes()
    };
    let faults = [other_error(), Fault::Torn(90, ErrorKind::StorageFull), Fault::Torn(200, ErrorKind::Other)];
    for call in 0..calls {
        for fault in &faults {
            let sim = Sim::new(call);
            sim.disk.fault_at(call, fault.clone());
            let context = format!("{fault:?} at call {call}");
            let (acknowledged, unknown) = stubborn(&sim, STEPS);
            let opened_at_all = acknowledged > 0;
            assert!(!opened_at_all || (acknowledged, unknown) == (STEPS, false), "{context}: {acknowledged}");
            for survivors in [Survivors::None, Survivors::All, Survivors::Random] {
                check(&sim.crash(survivors), acknowledged, false, &format!("{context}, {survivors:?}"));
            }
        }
    }
}

#[test]
fn a_second_failure_or_a_crash_may_come_while_it_heals() {
    for first in [9, 10, 11, 14] {
        for later in 1..14 {
            for second in [Fault::PowerOff, other_error()] {
                let sim = Sim::new(first * 100 + later);
                sim.disk.fault_at(first, other_error());
                sim.disk.fault_at(first + later, second.clone());
                let (acknowledged, unknown) = stubborn(&sim, STEPS);
                for survivors in [Survivors::None, Survivors::All, Survivors::Random, Survivors::Sectors] {
                    let context = format!("calls {first} and {later} later, {second:?}, {survivors:?}");
                    let after = sim.crash(survivors);
                    check(&after, acknowledged, unknown, &context);
                    let found = try_open(&after.crash(Survivors::None), options()).unwrap().ids(TOPIC).len();
                    check(&after.crash(Survivors::None), found as i64, false, &format!("{context}, again"));
                }
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    for reserves in [true, false] {
        let sim = Sim::new(4);
        sim.disk.set_reserves(reserves);
        let opened = open(&sim);
        let mut id = 0;
        for _ in 0..20 {
            append(&opened, id).unwrap();
            id += 1;
        }
        sim.disk.set_capacity(Some(sim.disk.used()));
        // What was reserved is still there.
        let error = loop {
            match opened.append(rows(id, 5_000)) {
                Ok(_) => id += 5_000,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        let (_, seen) = drain(&opened);
        assert_eq!(seen.is_empty(), reserves, "with a reservation nobody has seen the group");
        for _ in 0..3 {
            let error = opened.log.heal().unwrap_err();
            assert!(error.is_disk_full(), "{error}");
            assert!(append(&opened, id).unwrap_err().is_disk_full());
            assert_eq!(opened.ids(TOPIC), (0..id).collect::<Vec<_>>(), "reads go on");
        }
        sim.disk.set_capacity(Some(sim.disk.used() + (64 << 20)));
        opened.log.heal().unwrap();
        append(&opened, id).unwrap();
        assert_eq!(opened.ids(TOPIC), (0..=id).collect::<Vec<_>>());
        drop(opened);
        assert_eq!(open(&sim.crash(Survivors::None)).ids(TOPIC).len() as i64, id + 1);
    }
}

#[test]
fn space_that_was_reserved_is_given_back() {
    let sim = Sim::new(5);
    let opened = open(&sim);
    append(&opened, 0).unwrap();
    assert!(sim.disk.used() > 1 << 20);
    drop(opened);
    assert_eq!(sim.disk.used(), sim.disk.contents(&first_file()).len() as u64);
}

#[test]
fn a_write_that_did_not_wait_for_the_disk_may_be_lost_and_is_not_half_there() {
    let sim = Sim::new(6);
    let opened = open(&sim);
    append(&opened, 0).unwrap();
    let gate = Gate::new();
    let next = sim.disk.changes();
    sim.disk.fault_at(next + 1, Fault::Hold(gate.clone()));
    let ticket = opened.submit([write_to(TOPIC, rows(1, 3)), write_to(OTHER, rows(1, 3))]);
    let written = runtime().block_on(ticket.written()).unwrap();
    assert_eq!(written, Commit(2), "it is told before the sync");
    assert_eq!(*opened.log.durable().borrow(), Commit(1));
    gate.wait_until_reached();
    for survivors in [Survivors::None, Survivors::Prefix { changes: 0, torn_bytes: 300 }, Survivors::All] {
        let copy = sim.fork(survivors);
        let again = open(&copy);
        let found = again.ids(TOPIC);
        assert!(found == [0] || found == [0, 1, 2, 3], "{survivors:?}: {found:?}");
        assert_eq!(again.ids(OTHER).len() + 1, found.len(), "{survivors:?}: both topics or neither");
    }
    gate.open();
    ticket.wait_blocking().unwrap();
    assert_eq!(open(&sim.crash(Survivors::None)).ids(TOPIC), [0, 1, 2, 3]);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}
