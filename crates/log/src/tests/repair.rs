//! Surveys tell all damage, and a repair gives up no more than that.

use millpond_env::Disk as _;
use millpond_env::sim::Survivors;

use super::*;
use crate::{Offline, Survey};

fn options() -> LogOptions {
    LogOptions { file_bytes_max: 1800, ..LogOptions::default() }
}

/// Seven groups of two rows in two topics each, in several files.
fn journal(close: bool) -> Sim {
    let sim = Sim::new(1);
    let opened = try_open(&sim, options()).unwrap();
    for id in 0..7 {
        opened
            .submit([write_to(TOPIC, rows(id * 2, 2)), write_to(OTHER, rows(id * 2, 2))])
            .wait_blocking()
            .unwrap();
    }
    if close {
        drop(opened);
        return sim;
    }
    sim.crash(Survivors::None)
}

fn files(sim: &Sim) -> Vec<PathBuf> {
    let names = sim.disk.list(dir()).unwrap().into_iter().map(|name| dir().join(name));
    names.filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

fn survey(sim: &Sim) -> Survey {
    Offline::open(&sim.env(), dir()).unwrap().survey(true, &mut |_| ()).unwrap()
}

fn lost(survey: &Survey) -> Vec<u64> {
    let damages = survey.files.iter().flat_map(|file| &file.damages);
    damages.filter_map(|damage| damage.commits.clone()).flatten().collect()
}

#[test]
fn a_survey_of_a_sound_log_counts_what_is_there() {
    for close in [true, false] {
        let survey = survey(&journal(close));
        assert!(survey.files.len() > 1);
        assert!(survey.files.iter().all(|file| file.damages.is_empty() && file.torn.is_none()));
        assert_eq!(survey.files.iter().map(|file| file.groups).sum::<u64>(), 7);
        assert_eq!(survey.files.last().unwrap().last, Some(Commit(7)));
        assert_eq!(survey.files.last().unwrap().sealed, close);
        let topic = &survey.topics[&TOPIC];
        assert_eq!((topic.rows, topic.frames, topic.partitions[&PartitionId(0)].end.0), (14, 7, 14));
    }
}

#[test]
fn a_log_in_use_is_not_touched() {
    let sim = journal(true);
    let opened = open(&sim);
    assert!(matches!(Offline::open(&sim.env(), dir()), Err(LogError::Locked { .. })));
    drop(opened);
    Offline::open(&sim.env(), dir()).unwrap();
}

/// For every byte: the survey names it, the repair gives up the groups that it says and no others, and the log goes on.
#[test]
fn every_flipped_byte_is_repaired_and_costs_one_group_at_most() {
    let sim = journal(true);
    for path in files(&sim) {
        let good = sim.disk.contents(&path);
        let newest = Some(&path) == files(&sim).last();
        for at in (at_first(newest)..good.len()).step_by(7) {
            let copy = sim.fork(Survivors::All);
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            copy.disk.corrupt(&path, bad);
            let context = format!("byte {at} of {}", path.display());
            let found = survey(&copy);
            let gone = lost(&found);
            let damaged: Vec<_> = found.files.iter().filter(|file| !file.damages.is_empty()).collect();
            if newest && at >= good.len() - 48 {
                assert!(
                    damaged.is_empty() && found.files.last().unwrap().torn.is_some(),
                    "{context}: the seal"
                );
                continue;
            }
            assert_eq!(damaged.iter().map(|file| &file.path).collect::<Vec<_>>(), [&path], "{context}");
            assert!(try_open(&copy, options()).is_err_and(|error| error.is_corrupt()), "{context}");
            Offline::open(&copy.env(), dir()).unwrap().repair().unwrap();
            let opened = try_open(&copy, options()).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(opened.recovered.skipped_commits, gone.len() as u64, "{context}");
            let left: Vec<i64> = (0..14).filter(|id| !gone.contains(&(*id as u64 / 2 + 1))).collect();
            // A schema lies in its file's first group: where that is lost, all of the file is.
            assert!(left.len() >= 12 || gone[0] == found_first(&found, &path), "{context}: {gone:?}");
            assert_eq!(opened.ids(TOPIC), left, "{context}");
            assert_eq!(opened.ids(OTHER), left, "{context}");
            opened.append(rows(14, 1)).unwrap();
            if at % 10 == 0 {
                // What was given up does not come back with the segments, and nothing else goes.
                let before = (opened.ids(TOPIC), opened.ids(OTHER));
                opened.log.checkpointed(Commit(u64::MAX));
                opened.log.maintain().unwrap();
                assert_eq!((opened.ids(TOPIC), opened.ids(OTHER)), before, "{context}: cut into segments");
                assert_eq!(files(&copy).len(), 1, "{context}");
            }
            assert_eq!(opened.log.replay(Commit(3), Commit(9)).filter(Result::is_err).count(), 0);
            drop(opened);
            let again = try_open(&copy.fork(Survivors::None), options()).unwrap();
            assert_eq!(again.ids(TOPIC).len(), left.len() + 1, "{context}: the second start");
            assert!(lost(&survey(&copy)).is_empty(), "{context}: it stays repaired");
        }
    }
}

/// Each file from another byte on, so that all residues have their turn.
fn at_first(newest: bool) -> usize {
    usize::from(newest) * 3
}

fn found_first(survey: &Survey, path: &Path) -> u64 {
    survey.files.iter().find(|file| file.path == path).unwrap().first.0
}

/// Segments: the survey names the damaged one, and its rows are all that a repair gives up.
#[test]
fn a_damaged_segment_is_named_and_put_aside() {
    let options = || LogOptions { background: false, ..options() };
    let sim = journal(true);
    let opened = try_open(&sim, options()).unwrap();
    opened.log.checkpointed(Commit(7));
    opened.log.maintain().unwrap();
    drop(opened);
    let sound = survey(&sim);
    assert_eq!(sound.damaged_files(), 0);
    assert!(sound.segments.len() >= 4 && sound.files.len() == 1, "{sound:?}");
    assert_eq!(sound.topics[&TOPIC].rows, 14);
    let groups: u64 = sound.files.iter().map(|f| f.groups).chain(sound.spines.iter().map(|s| s.groups)).sum();
    assert_eq!(groups, 7);
    for segment in &sound.segments {
        let good = sim.disk.contents(&segment.path);
        for at in (4..good.len()).step_by(113) {
            let copy = sim.fork(Survivors::All);
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            copy.disk.corrupt(&segment.path, bad);
            let context = format!("byte {at} of {}", segment.path.display());
            let found = survey(&copy);
            let named: Vec<_> =
                found.segments.iter().filter(|s| s.damage.is_some()).map(|s| &s.path).collect();
            assert_eq!(named, [&segment.path], "{context}");
            Offline::open(&copy.env(), dir()).unwrap().repair().unwrap();
            let opened = try_open(&copy, options()).unwrap_or_else(|error| panic!("{context}: {error}"));
            for topic in [TOPIC, OTHER] {
                let gone = segment.topic == topic;
                let is_left = |id: &i64| !(gone && segment.commits.contains(&(*id as u64 / 2 + 1)));
                assert_eq!(opened.ids(topic), (0..14).filter(is_left).collect::<Vec<_>>(), "{context}");
            }
            opened.append(rows(14, 1)).unwrap();
            drop(opened);
            assert_eq!(survey(&copy).damaged_files(), 0, "{context}: it stays repaired");
        }
    }
    for spine in &sound.spines {
        let copy = sim.fork(Survivors::All);
        let mut bad = sim.disk.contents(&spine.path);
        bad[40] ^= 1;
        copy.disk.corrupt(&spine.path, bad);
        assert_eq!(survey(&copy).damaged_files(), 1, "{}", spine.path.display());
        let error = Offline::open(&copy.env(), dir()).unwrap().repair().unwrap_err();
        assert!(error.to_string().contains("no repair can mend"), "{error}");
    }
}

#[test]
fn damage_that_was_acknowledged_is_no_torn_tail_even_before_one() {
    let sim = journal(false);
    let path = files(&sim).pop().unwrap();
    let whole = sim.disk.contents(&path);
    let opened = try_open(&sim, options()).unwrap();
    let frame = opened.log.frames(TOPIC, Commit(6), Commit(7)).unwrap()[0].clone();
    drop(opened);
    let place = frame.in_journal();
    assert_eq!(place.file.path, path, "the seventh group is in the newest file");
    let mut bad = whole;
    bad[place.at as usize + 30] ^= 4;
    // The next group was begun, so this one had been synced.
    bad.extend([7; 40]);
    sim.disk.corrupt(&path, bad);
    let error = try_open(&sim, options()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("topic 7, partition 0, offsets 12 to 13, commit 7"), "{error}");
    let survey = survey(&sim);
    let file = survey.files.last().unwrap();
    assert_eq!(lost(&survey), [7]);
    assert_eq!(file.torn.as_ref().unwrap().bytes.end, file.bytes);
    Offline::open(&sim.env(), dir()).unwrap().repair().unwrap();
    let opened = try_open(&sim, options()).unwrap();
    assert_eq!(opened.ids(TOPIC), (0..12).collect::<Vec<_>>());
    assert_eq!(opened.recovered.truncated_bytes, 40);
}

#[test]
fn a_missing_file_is_told_and_cannot_be_repaired() {
    let sim = journal(true);
    sim.disk.remove(&files(&sim)[1]).unwrap();
    let survey = survey(&sim);
    assert!(survey.files[1].damages[0].what.contains("one is missing"), "{:?}", survey.files[1].damages);
    let error = Offline::open(&sim.env(), dir()).unwrap().repair().unwrap_err();
    assert!(error.to_string().contains("no repair can mend"), "{error}");
}

#[test]
fn a_list_of_skips_that_is_damaged_or_foreign_is_refused() {
    let sim = journal(true);
    let path = files(&sim)[0].clone();
    let mut bad = sim.disk.contents(&path);
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    sim.disk.corrupt(&path, bad);
    Offline::open(&sim.env(), dir()).unwrap().repair().unwrap();
    let skips = path.with_extension("skip");
    let good = sim.disk.contents(&skips);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        sim.disk.corrupt(&skips, bad);
        assert!(try_open(&sim, options()).is_err_and(|error| error.is_corrupt()), "byte {at}");
    }
    sim.disk.corrupt(&skips, good);
    try_open(&sim, options()).unwrap();
}
