//! Each file of `sql-tests/` as a test: plain, with one row per epoch on four shards, and, where the file asks for it, with a
//! crash after each statement.

use libtest_mimic::{Arguments, Trial};
use millpond_slt::file::{File, Mode, binary, find, sql_tests};

fn main() {
    let arguments = Arguments::from_args();
    let files = find(&sql_tests()).expect("sql-tests is part of the repository");
    assert!(!files.is_empty(), "sql-tests has no files");
    let trials = files.iter().flat_map(trials).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials(file: &File) -> Vec<Trial> {
    let mut modes = vec![
        ("plain", Mode::default()),
        ("small_epochs", Mode { epoch_rows: Some(1), shards: Some(4), ..Mode::default() }),
    ];
    if file.wants_restarts() {
        modes.push((
            "restarts",
            Mode { epoch_rows: Some(7), shards: Some(2), restart_each: true, ..Mode::default() },
        ));
    }
    let trial = |(name, mode): (&str, Mode)| {
        let file = file.clone();
        Trial::test(format!("{}::{name}", file.name.trim_end_matches(".slt")), move || {
            Ok(file.run(&binary()?, &mode)?)
        })
    };
    modes.into_iter().map(trial).collect()
}
