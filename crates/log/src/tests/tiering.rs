//! Segments in the object store: retention, local copies that leave, the loss of a disk, crashes between all of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use millpond_env::Clock as _;
use millpond_env::sim::{Fault, Survivors};
use object_store::path::Path as ObjectPath;

use super::segments::{expected, fill, journals, look, names, options, rows_of, small_options, small_step};
use super::*;
use crate::{ColdTier, TopicPolicy};

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn with_cold(sim: &Sim, options: LogOptions) -> LogOptions {
    let objects = sim.env().objects.expect("a simulated machine has a store");
    let prefix = ObjectPath::from("pond");
    LogOptions { cold: Some(ColdTier { objects, prefix, local_retention: Some(DAY) }), ..options }
}

fn open_cold(sim: &Sim) -> Opened {
    try_open_with(sim, with_cold(sim, options()), 3).unwrap()
}

/// Another machine with the same object store.
pub(super) fn lose_disk(sim: &Sim) -> Sim {
    Sim { objects: sim.objects.clone(), ..Sim::new(77) }
}

fn parquet(sim: &Sim) -> usize {
    names(sim, "/data/journal/segments").iter().filter(|name| name.ends_with(".parquet")).count()
}

pub(super) fn objects(sim: &Sim) -> Vec<String> {
    use futures::TryStreamExt as _;
    let list = sim
        .env()
        .objects
        .unwrap()
        .list(None)
        .map_ok(|meta| meta.location.to_string())
        .try_collect::<Vec<_>>();
    let mut names = futures::executor::block_on(list).unwrap();
    names.sort();
    names
}

#[test]
fn what_is_cold_is_read_as_what_is_hot() {
    let sim = Sim::new(1);
    let opened = open_cold(&sim);
    fill(&opened, 0..60);
    let before = look(&opened);
    opened.log.checkpointed(Commit(60));
    opened.log.maintain().unwrap();
    let hot = parquet(&sim);
    assert!(hot > 10, "{hot}");
    assert!(look(&opened) == before);
    sim.clock.advance(DAY + Duration::from_secs(1));
    opened.log.maintain().unwrap();
    assert_eq!(parquet(&sim), 0, "local copies leave");
    assert!(look(&opened) == before);
    let folder = objects(&sim).into_iter().filter(|name| name.starts_with("pond/topics/7/p=0/")).count();
    assert!(folder > 3);
    assert_eq!(opened.log.tier_status().published_through, opened.log.tier_status().sealed_through);
    drop(opened);
    let opened = open_cold(&sim);
    assert!(look(&opened) == before, "after a restart");
    fill(&opened, 60..70);
    drop(opened);
    // Without the store, what is only there is named.
    let opened = try_open_with(&sim, options(), 3).unwrap();
    let error = opened.log.frames(TOPIC, Commit(0), Commit(60)).unwrap_err();
    assert!(error.to_string().contains("pond") || error.to_string().contains("topics/7/p=0/"), "{error}");
}

#[test]
fn a_lost_disk_comes_back_up_to_what_was_uploaded() {
    let sim = Sim::new(2);
    let opened = open_cold(&sim);
    fill(&opened, 0..40);
    opened.log.checkpointed(Commit(40));
    opened.log.maintain().unwrap();
    fill(&opened, 40..55);
    opened.log.upload_journal().unwrap();
    assert_eq!(opened.log.tier_status().safe_through, Commit(55));
    let before = look(&opened);
    fill(&opened, 55..58);
    drop(opened);
    let new = lose_disk(&sim);
    let opened = open_cold(&new);
    assert_eq!(opened.recovered.last_commit, Commit(55));
    assert!(look(&opened) == before);
    // It goes on, over what the old machine may have left there.
    fill(&opened, 55..70);
    opened.log.checkpointed(Commit(70));
    opened.log.maintain().unwrap();
    opened.log.upload_journal().unwrap();
    let after = look(&opened);
    drop(opened);
    assert!(look(&open_cold(&lose_disk(&new))) == after);
}

/// Found by the oracle: between the frames and their rows, a segment was uploaded and left the disk.
#[test]
fn what_a_reader_has_found_stays_until_it_is_read() {
    let sim = Sim::new(13);
    let opened = try_open_with(&sim, options(), 3).unwrap();
    fill(&opened, 0..40);
    opened.log.checkpointed(Commit(40));
    opened.log.maintain().unwrap();
    drop(opened);
    let opened = open_cold(&sim);
    let frames = opened.log.frames(TOPIC, Commit(0), Commit(40)).unwrap();
    sim.clock.advance(DAY + Duration::from_secs(1));
    opened.log.maintain().unwrap();
    opened.log.maintain().unwrap();
    assert!(parquet(&sim) > 0, "a reader holds them");
    for frame in &frames {
        assert_eq!(opened.log.read(frame, None).unwrap().num_rows(), frame.rows as usize);
    }
    drop(frames);
    opened.log.maintain().unwrap();
    assert_eq!(parquet(&sim), 0, "and now nobody does");
}

/// A crash may come between a cut and its upload: the journal behind alone would be no log.
#[test]
fn an_uploaded_journal_stands_on_uploaded_segments() {
    let sim = Sim::new(12);
    let opened = try_open_with(&sim, options(), 3).unwrap();
    fill(&opened, 0..40);
    opened.log.checkpointed(Commit(40));
    opened.log.maintain().unwrap();
    drop(opened);
    let opened = open_cold(&sim);
    fill(&opened, 40..45);
    opened.log.upload_journal().unwrap();
    assert_eq!(opened.log.tier_status().safe_through, Commit(45));
    let before = look(&opened);
    drop(opened);
    assert!(look(&open_cold(&lose_disk(&sim))) == before);
}

#[test]
fn a_restore_that_crashes_begins_again() {
    let sim = Sim::new(3);
    let opened = open_cold(&sim);
    fill(&opened, 0..30);
    opened.log.checkpointed(Commit(12));
    opened.log.maintain().unwrap();
    opened.log.upload_journal().unwrap();
    let before = look(&opened);
    drop(opened);
    for call in 0..60 {
        let new = Sim { objects: sim.objects.clone(), ..Sim::new(call) };
        new.disk.fault_at(call, Fault::PowerOff);
        let opened = try_open_with(&new, with_cold(&new, options()), 3);
        let whole = opened.is_ok() && new.disk.changes() <= call;
        drop(opened);
        let again = new.crash(Survivors::Random);
        assert!(look(&open_cold(&again)) == before, "call {call}");
        if whole {
            return;
        }
    }
    panic!("a restore never ends");
}

#[test]
fn old_rows_leave_and_nobody_reads_half_of_them() {
    let sim = Sim::new(4);
    let opened = open_cold(&sim);
    fill(&opened, 0..30);
    sim.clock.advance(DAY);
    let later = sim.clock.now_micros();
    fill(&opened, 30..60);
    let kept = opened.log.frames(TOPIC, Commit(0), Commit(10)).unwrap();
    opened.log.checkpointed(Commit(60));
    opened.log.maintain().unwrap();
    let held = opened.log.frames(TOPIC, Commit(0), Commit(60)).unwrap();
    let all: Vec<i64> =
        held.iter().flat_map(|frame| ids(&opened.log.read(frame, Some(&[0])).unwrap())).collect();
    let half_a_day =
        TopicPolicy { retention_micros: Some(DAY.as_micros() as i64 / 2), ..TopicPolicy::default() };
    let policies = BTreeMap::from([(TOPIC, half_a_day), (OTHER, TopicPolicy::default())]);
    opened.log.set_policies(policies.clone(), Commit(60));
    opened.log.maintain().unwrap();
    let rest = opened.log.frames(TOPIC, Commit(0), Commit(60)).unwrap();
    assert!(!rest.is_empty() && rest.len() < held.len());
    // Segments leave whole: the oldest that stays may begin before.
    assert!(rest.iter().any(|frame| frame.ingest_time.0 < later) || rest[0].commit <= Commit(31));
    let again: Vec<i64> =
        held.iter().flat_map(|frame| ids(&opened.log.read(frame, Some(&[0])).unwrap())).collect();
    assert_eq!(again, all, "who began before reads on");
    let pinned = |opened: &Opened| opened.log.storage().into_iter().find(|p| p.topic == TOPIC).unwrap();
    assert_eq!(pinned(&opened).held_by, Some("a reader"));
    assert!(
        pinned(&opened).earliest_offset.0 > 0
            && opened.log.is_trimmed(TOPIC)
            && !opened.log.is_trimmed(OTHER)
    );
    let (files, stored) = (parquet(&sim), objects(&sim).len());
    drop((held, kept));
    opened.log.maintain().unwrap();
    assert_eq!(pinned(&opened).held_by, None);
    assert!(parquet(&sim) < files && objects(&sim).len() < stored);
    let seen = look(&opened);
    assert_eq!(seen.groups.len(), 60, "groups and their records stay");
    drop(opened);
    let opened = open_cold(&sim);
    assert!(look(&opened) == seen);
    assert_eq!(
        opened.log.frames(OTHER, Commit(0), Commit(60)).unwrap().len(),
        seen.frames.iter().filter(|f| f.0 == OTHER).count()
    );
    assert!(opened.log.is_trimmed(TOPIC), "also after a restart");
    // By size, and with its relation.
    let small = TopicPolicy { retention_bytes: Some(1), ..TopicPolicy::default() };
    opened.log.checkpointed(Commit(60));
    opened.log.set_policies(BTreeMap::from([(TOPIC, small)]), Commit(60));
    opened.log.maintain().unwrap();
    let left = opened.log.frames(TOPIC, Commit(0), Commit(60)).unwrap();
    assert!(
        left.iter().all(|frame| frame.bytes() > 0) && left.len() < 10,
        "only journal files: {}",
        left.len()
    );
    assert!(objects(&sim).iter().all(|name| !name.contains("/topics/")), "{:?}", objects(&sim));
}

#[test]
fn a_file_that_is_never_full_becomes_segments_too() {
    let sim = Sim::new(5);
    let opened =
        try_open_with(&sim, with_cold(&sim, LogOptions { background: false, ..LogOptions::default() }), 3)
            .unwrap();
    opened.append(rows(0, 3)).unwrap();
    opened.log.maintain().unwrap();
    assert_eq!(journals(&sim), 1);
    sim.clock.advance(Duration::from_secs(601));
    // The thread of the log, or this, asks for a new file; the empty commit that begins it covers the old one.
    opened.log.maintain().unwrap();
    let end = opened.submit([]).wait_blocking().unwrap();
    assert!(end >= Commit(2), "{end}");
    opened.log.checkpointed(end);
    opened.log.maintain().unwrap();
    assert_eq!(opened.log.tier_status().published_through, Commit(1));
    assert_eq!(opened.ids(TOPIC), [0, 1, 2]);
    sim.clock.advance(Duration::from_secs(6010));
    for _ in 0..3 {
        opened.log.maintain().unwrap();
    }
    let quiet = opened.log.last_commit();
    sim.clock.advance(Duration::from_secs(6010));
    opened.log.maintain().unwrap();
    opened.log.maintain().unwrap();
    assert!(opened.log.last_commit().0 <= quiet.0 + 1, "an idle log does not go on making files");
}

const STEPS: i64 = 8;

fn small_cold(sim: &Sim) -> LogOptions {
    let LogOptions { cold, .. } = with_cold(sim, small_options());
    let cold = cold.map(|cold| ColdTier { local_retention: Some(Duration::ZERO), ..cold });
    LogOptions { cold, ..small_options() }
}

/// Appends, cuts and uploads; says how many steps were acknowledged, and how many a lost disk must not lose.
fn workload(sim: &Sim) -> (i64, i64) {
    let (mut done, mut safe) = (0, 0);
    let Ok(opened) = try_open(sim, small_cold(sim)) else { return (0, 0) };
    for id in 0..STEPS {
        if opened.log.submit(small_step(id)).wait_blocking().is_err() {
            break;
        }
        done += 1;
        if id % 3 == 2 {
            opened.log.checkpointed(Commit(id as u64));
            let _ = opened.log.maintain();
            let _ = opened.log.upload_journal();
            safe = opened.log.tier_status().safe_through.0 as i64;
            sim.clock.advance(Duration::from_millis(1));
        }
    }
    (done, safe)
}

fn check(sim: &Sim, acknowledged: i64, context: &str) {
    let opened = try_open(sim, small_cold(sim)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let count = opened.recovered.last_commit.0 as i64;
    assert!(count >= acknowledged, "{context}: {acknowledged}, found {count}");
    assert_eq!(rows_of(&opened), expected(count), "{context}");
    opened.log.submit(small_step(count)).wait_blocking().unwrap_or_else(|error| panic!("{context}: {error}"));
    opened.log.checkpointed(Commit(count as u64 + 1));
    opened.log.maintain().unwrap_or_else(|error| panic!("{context}: {error}"));
    opened.log.upload_journal().unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(rows_of(&opened), expected(count + 1), "{context}, after more was uploaded");
}

#[test]
fn power_may_go_at_any_call_and_the_disk_may_be_lost_then() {
    let sim = Sim::new(0);
    assert_eq!(workload(&sim).0, STEPS);
    for call in 0..sim.disk.changes() {
        let sim = Sim::new(call);
        sim.disk.fault_at(call, Fault::PowerOff);
        let (acknowledged, safe) = workload(&sim);
        let context = format!("power off at call {call}");
        check(&lose_disk(&copy(&sim)), safe, &format!("{context}, and the disk is lost"));
        check(&sim.crash(Survivors::Random), acknowledged, &context);
    }
}

#[test]
fn any_call_of_the_object_store_may_fail_or_lose_its_answer() {
    let sim = Sim::new(0);
    assert_eq!(workload(&sim).0, STEPS);
    for call in 0..sim.objects.calls() {
        for fault in [Fault::Error(ErrorKind::Other), Fault::LostAnswer, Fault::PowerOff] {
            let sim = Sim::new(call);
            sim.objects.fault_at(call, fault.clone());
            let (acknowledged, safe) = workload(&sim);
            let context = format!("{fault:?} at call {call} of the object store");
            sim.objects.heal();
            check(&lose_disk(&copy(&sim)), safe, &format!("{context}, and the disk is lost"));
            check(&sim.crash(Survivors::None), acknowledged, &context);
        }
    }
}

/// The same machine with an object store of its own that holds the same.
fn copy(sim: &Sim) -> Sim {
    use futures::{StreamExt as _, TryStreamExt as _};
    use object_store::{ObjectStoreExt as _, PutPayload};
    let copy = Sim::new(78);
    sim.objects.heal();
    let (from, to) = (sim.env().objects.unwrap(), copy.env().objects.unwrap());
    futures::executor::block_on(async {
        let all: Vec<_> = from.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
        futures::stream::iter(all)
            .for_each(|path| {
                let (from, to) = (from.clone(), to.clone());
                async move {
                    let bytes = from.get(&path).await.unwrap().bytes().await.unwrap();
                    to.put(&path, PutPayload::from_bytes(bytes)).await.unwrap();
                }
            })
            .await;
    });
    copy
}
