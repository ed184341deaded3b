//! Bytes that change on the disk are named, or were never acknowledged.

use millpond_env::Disk as _;
use millpond_env::sim::{Fault, Survivors};

use super::*;

fn options() -> LogOptions {
    LogOptions { file_bytes_max: 1200, ..LogOptions::default() }
}

fn files(sim: &Sim) -> Vec<PathBuf> {
    sim.disk.list(dir()).unwrap().into_iter().map(|name| dir().join(name)).collect()
}

/// Six groups in several files, closed in order or not.
fn journal(sim: &Sim, close: bool) -> Sim {
    let opened = try_open(sim, options()).unwrap();
    for id in 0..6 {
        opened.append(rows(id, 2)).unwrap();
    }
    if close {
        drop(opened);
        sim.clone()
    } else {
        sim.crash(Survivors::None)
    }
}

fn error(sim: &Sim) -> LogError {
    try_open(sim, options()).map(|opened| opened.recovered).unwrap_err()
}

#[test]
fn every_flipped_byte_of_a_closed_log_is_named() {
    let sim = journal(&Sim::new(1), true);
    let files = files(&sim);
    assert!(files.len() > 1, "{files:?}");
    let seal_bytes = 48;
    for path in &files {
        let good = sim.disk.contents(path);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            sim.disk.corrupt(path, bad);
            let in_seal = Some(path) == files.last() && at >= good.len() - seal_bytes;
            match try_open(&sim, options()) {
                Err(LogError::Corrupt { file, offset, what }) => {
                    assert_eq!((&file, in_seal), (path, false), "byte {at}: {what}");
                    assert!(
                        offset <= at as u64 && at as u64 - offset < 1000,
                        "byte {at} is named as {offset}: {what}"
                    );
                }
                Err(other) => panic!("byte {at}: {other}"),
                Ok(opened) => {
                    assert!(in_seal, "byte {at} of {} went unnoticed", path.display());
                    assert_eq!(opened.recovered.last_commit, Commit(6));
                    assert!(opened.recovered.cut.is_some());
                    // It has closed the log again: take its seal back.
                    drop(opened);
                }
            }
            sim.disk.corrupt(path, good.clone());
        }
    }
}

#[test]
fn after_a_crash_only_the_last_group_may_be_bad() {
    let sim = journal(&Sim::new(2), false);
    let files = files(&sim);
    for path in &files {
        let good = sim.disk.contents(path);
        for at in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let copy = sim.crash(Survivors::All);
            copy.disk.corrupt(path, bad);
            match try_open(&copy, options()) {
                Err(LogError::Corrupt { file, .. }) => assert_eq!(&file, path),
                Err(other) => panic!("byte {at}: {other}"),
                Ok(opened) => {
                    assert_eq!(Some(path), files.last(), "byte {at} of an older file went unnoticed");
                    let cut = opened.recovered.cut.clone().expect("a cut is told");
                    assert!(cut.offset <= at as u64);
                    assert_eq!(opened.recovered.last_commit, Commit(5));
                }
            }
        }
    }
}

#[test]
fn payloads_that_a_checkpoint_covers_are_checked_when_they_are_read() {
    let sim = Sim::new(3);
    let opened = open(&sim);
    for id in 0..3 {
        opened.append(rows(id, 1)).unwrap();
    }
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(3)).unwrap();
    drop(opened);
    let mut bytes = sim.disk.contents(&first_file());
    bytes[frames[1].in_journal().at as usize + 200] ^= 1;
    sim.disk.corrupt(&first_file(), bytes);
    assert!(try_open(&sim, LogOptions::default()).is_err());
    assert!(try_open(&sim, LogOptions { verify_from: Commit(1), ..LogOptions::default() }).is_err());
    let opened = try_open(&sim, LogOptions { verify_from: Commit(2), ..LogOptions::default() }).unwrap();
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(3)).unwrap();
    opened.log.read(&frames[0], None).unwrap();
    let error = opened.log.read(&frames[1], None).unwrap_err();
    let expected = format!(
        "journal file \"/data/journal/00000000000000000001.log\" is damaged at offset {}: the checksum of the payload \
         does not match",
        frames[1].in_journal().at
    );
    assert_eq!(error.to_string(), expected);
    let replayed: Vec<_> = opened.log.replay(Commit(0), Commit(3)).collect();
    assert_eq!(replayed.len(), 2, "a replay ends at its error");
    assert_eq!(replayed[1].as_ref().unwrap_err().to_string(), expected);
    assert_eq!(opened.log.replay(Commit(2), Commit(3)).filter(Result::is_ok).count(), 1);
}

#[test]
fn a_missing_or_renamed_or_shortened_file_is_named() {
    let sim = journal(&Sim::new(4), true);
    let files = files(&sim);
    assert!(files.len() > 2);
    let missing = sim.crash(Survivors::All);
    missing.disk.remove(&files[1]).unwrap();
    assert!(error(&missing).to_string().contains("the file begins with commit"), "{}", error(&missing));
    let first = sim.crash(Survivors::All);
    first.disk.remove(&files[0]).unwrap();
    assert!(error(&first).to_string().contains("expected was 1"), "{}", error(&first));
    let renamed = sim.crash(Survivors::All);
    renamed.disk.rename(&files[2], &dir().join("00000000000000000099.log")).unwrap();
    assert!(error(&renamed).to_string().contains("the file begins with commit"), "{}", error(&renamed));
    let short = sim.crash(Survivors::All);
    let mut bytes = short.disk.contents(&files[0]);
    bytes.truncate(bytes.len() - 1);
    short.disk.corrupt(&files[0], bytes);
    assert!(error(&short).is_corrupt(), "{}", error(&short));
}

#[test]
fn a_group_cut_off_an_older_file_is_missed() {
    let sim = Sim::new(5);
    let opened = open(&sim);
    for id in 0..3 {
        opened.append(rows(id, 1)).unwrap();
    }
    let len = sim.disk.contents(&first_file()).len();
    opened.append(rows(3, 1)).unwrap();
    drop(opened);
    // The third group vanishes out of the middle: the chain breaks.
    let bytes = sim.disk.contents(&first_file());
    let opened = open(&sim);
    let third = opened.log.frames(TOPIC, Commit(2), Commit(3)).unwrap()[0].clone();
    drop(opened);
    let header = 48 + 56 + 32;
    let start = third.in_journal().at as usize - header;
    let spliced = [&bytes[..start], &bytes[len..]].concat();
    sim.disk.corrupt(&first_file(), spliced);
    assert!(error(&sim).is_corrupt(), "{}", error(&sim));
}

#[test]
fn a_file_whose_beginning_failed_is_removed() {
    for kept in [0, 1, 63] {
        let sim = journal(&Sim::new(6), false);
        let count = files(&sim).len();
        let path = dir().join("00000000000000000007.log");
        let file = sim.disk.open(&path, millpond_env::Open::Create).unwrap();
        file.write_at(&[7; 64][..kept], 0).unwrap();
        let opened = try_open(&sim, options()).unwrap();
        assert_eq!(opened.recovered.last_commit, Commit(6));
        assert_eq!(files(&sim).len(), count);
        assert_eq!(opened.append(rows(6, 1)).unwrap(), Commit(7));
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_no_torn_tail() {
    let sim = journal(&Sim::new(7), false);
    let contents: Vec<_> = files(&sim).iter().map(|path| sim.disk.contents(path)).collect();
    for read in 0..30 {
        let copy = sim.crash(Survivors::All);
        copy.disk.read_fault_at(read, Fault::Error(std::io::ErrorKind::Other));
        match try_open(&copy, options()) {
            Err(error) => assert!(matches!(error, LogError::Io { .. }), "read {read}: {error}"),
            Ok(opened) => {
                assert_eq!(opened.recovered.last_commit, Commit(6));
                assert!(read > 5, "opening reads, and so fails");
                return;
            }
        }
        let now: Vec<_> = files(&copy).iter().map(|path| copy.disk.contents(path)).collect();
        assert!(
            now.iter().zip(&contents).all(|(now, before)| now.starts_with(before)),
            "read {read}: nothing is cut"
        );
    }
}
