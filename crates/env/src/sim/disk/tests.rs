use super::super::{Gate, Sim};
use super::*;
use crate::Disk as _;

fn dir() -> &'static Path {
    Path::new("/d")
}

fn path() -> &'static Path {
    Path::new("/d/f")
}

/// A machine with a durable file `/d/f` that holds "base".
fn machine(seed: u64) -> (Sim, Box<dyn DiskFile>) {
    let sim = Sim::new(seed);
    sim.disk.create_dir_all(dir()).unwrap();
    let file = sim.disk.open(path(), Open::Create).unwrap();
    file.write_at(b"base", 0).unwrap();
    file.sync_data().unwrap();
    sim.disk.sync_dir(dir()).unwrap();
    (sim, file)
}

fn after(sim: &Sim, survivors: Survivors) -> Vec<u8> {
    sim.crash(survivors).disk.contents(path())
}

#[test]
fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    let (sim, file) = machine(1);
    file.write_at(b"one", 4).unwrap();
    file.write_at(b"two", 7).unwrap();
    assert_eq!(sim.disk.contents(path()), b"baseonetwo");
    assert_eq!(sim.disk.unsynced(), [3, 3]);
    assert_eq!(after(&sim, Survivors::None), b"base");
    assert_eq!(after(&sim, Survivors::All), b"baseonetwo");
    assert_eq!(after(&sim, Survivors::Prefix { changes: 1, torn_bytes: 2 }), b"baseonetw");
    for _ in 0..50 {
        let found = after(&sim, Survivors::Random);
        assert!(b"baseonetwo".starts_with(&found) && found.len() >= 4, "{found:?}");
    }
}

#[test]
fn sectors_survive_one_by_one() {
    let (sim, file) = machine(2);
    file.write_at(&[7; 3000], 4).unwrap();
    let found = after(&sim, Survivors::Sectors);
    assert!(found.contains(&7) && (found.len() < 3004 || found[4..].contains(&0)), "half of them, by chance");
}

#[test]
fn names_that_were_not_synced_may_be_lost() {
    let (sim, file) = machine(3);
    file.write_at(b"more", 4).unwrap();
    file.sync_data().unwrap();
    let other = sim.disk.open(Path::new("/d/g"), Open::Create).unwrap();
    other.write_at(b"x", 0).unwrap();
    other.sync_data().unwrap();
    sim.disk.rename(path(), Path::new("/d/h")).unwrap();
    let lost = sim.crash(Survivors::None);
    assert_eq!(lost.disk.list(dir()).unwrap(), [PathBuf::from("f")]);
    let one = sim.crash(Survivors::Prefix { changes: 1, torn_bytes: 0 });
    assert_eq!(one.disk.list(dir()).unwrap(), [PathBuf::from("f"), PathBuf::from("g")]);
    let kept = sim.crash(Survivors::All);
    assert_eq!(kept.disk.list(dir()).unwrap(), [PathBuf::from("g"), PathBuf::from("h")]);
}

#[test]
fn what_a_failed_sync_covered_is_lost_though_reads_show_it() {
    let (sim, file) = machine(4);
    file.write_at(b"lost", 4).unwrap();
    sim.disk.fault_next(Fault::Error(io::ErrorKind::Other));
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(sim.disk.contents(path()), b"baselost");
    assert_eq!(after(&sim, Survivors::All), b"base");
}

#[test]
fn the_nth_call_fails_tears_or_cuts_the_power() {
    let (sim, file) = machine(5);
    let next = sim.disk.changes();
    sim.disk.fault_at(next + 1, Fault::Error(io::ErrorKind::StorageFull));
    sim.disk.fault_at(next + 2, Fault::Torn(2, io::ErrorKind::Other));
    sim.disk.fault_at(next + 3, Fault::PowerOff);
    file.write_at(b"a", 4).unwrap();
    assert!(crate::is_full(&file.write_at(b"b", 5).unwrap_err()));
    file.write_at(b"cccc", 5).unwrap_err();
    assert_eq!(sim.disk.contents(path()), b"baseacc");
    file.write_at(b"dd", 7).unwrap_err();
    file.sync_data().unwrap_err();
    assert!(sim.disk.exists(path()).is_err(), "nothing works without power");
    assert_eq!(after(&sim, Survivors::Prefix { changes: 2, torn_bytes: 1 }), b"baseaccd");
}

#[test]
fn a_held_call_waits_for_its_gate() {
    let (sim, file) = machine(6);
    let gate = Gate::new();
    sim.disk.fault_next(Fault::Hold(gate.clone()));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| file.write_at(b"late", 4));
        gate.wait_until_reached();
        assert_eq!(sim.disk.contents(path()), b"base");
        gate.open();
        held.join().unwrap().unwrap();
    });
    assert_eq!(sim.disk.contents(path()), b"baselate");
}

#[test]
fn a_crash_frees_locks_and_stops_the_old_process() {
    let (sim, file) = machine(7);
    let _lock = sim.disk.lock(dir()).unwrap();
    assert_eq!(sim.disk.lock(dir()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let next = sim.crash(Survivors::All);
    next.disk.lock(dir()).unwrap();
    file.write_at(b"ghost", 0).unwrap_err();
    assert_eq!(next.disk.contents(path()), b"base");
}

#[test]
fn equal_seeds_make_equal_crashes() {
    let run = || {
        let (sim, file) = machine(8);
        for i in 0..20u8 {
            file.write_at(&[i; 700], u64::from(i) * 700).unwrap();
        }
        (after(&sim, Survivors::Random), after(&sim, Survivors::Sectors))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_full_disk_keeps_what_fits_and_what_was_reserved() {
    let (sim, file) = machine(9);
    sim.disk.set_capacity(Some(16));
    file.reserve(12).unwrap();
    let other = sim.disk.open(&dir().join("other"), Open::Create).unwrap();
    assert_eq!(other.write_at(b"123456", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 4, "what fits is written");
    file.write_at(b"reserved", 4).unwrap();
    assert_eq!(file.write_at(b"x", 12).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.reserve(13).unwrap_err().kind(), io::ErrorKind::StorageFull);
    sim.disk.remove(&dir().join("other")).unwrap();
    assert_eq!(sim.disk.used(), 12);
    file.reserve(16).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(sim.disk.used(), 4);
}
