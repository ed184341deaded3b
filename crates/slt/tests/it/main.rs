//! The real binary over the real wire: each file of `sql-tests/` in several modes, and what no such file can do.
//!
//! A file runs plain, with one row per epoch on four shards, and, where it asks for it, with a crash after each statement.

#![allow(clippy::disallowed_methods, reason = "tests start processes and wait for them")]

mod cold;
mod compare;
mod crash;
mod hostile;
mod log;
mod matrix;
mod s3;
mod session;

use libtest_mimic::{Arguments, Trial};
use millpond_slt::file::{File, Mode, binary, find, sql_tests};

fn main() {
    let arguments = Arguments::from_args();
    let files = find(&sql_tests()).expect("sql-tests is part of the repository");
    assert!(!files.is_empty(), "sql-tests has no files");
    let mut trials: Vec<Trial> = files.iter().flat_map(of_file).collect();
    for (name, test) in [
        (
            "crash::acknowledged_rows_survive_ten_kills",
            crash::acknowledged_rows_survive_ten_kills as fn() -> Outcome,
        ),
        ("crash::no_increment_of_eight_clients_is_lost", crash::no_increment_of_eight_clients_is_lost),
        (
            "cold::a_lake_reads_topics_and_a_lost_disk_comes_back",
            cold::a_lake_reads_topics_and_a_lost_disk_comes_back,
        ),
        ("compare::postgresql_answers_the_same", compare::postgresql_answers_the_same),
        ("matrix::queries_hold_over_changing_tables", matrix::queries_hold_over_changing_tables),
        ("cold::retention_takes_the_oldest_rows", cold::retention_takes_the_oldest_rows),
        ("hostile::deep_texts_are_refused", hostile::deep_texts_are_refused),
        ("hostile::a_message_of_100_megabytes_is_refused", hostile::a_message_of_100_megabytes_is_refused),
        (
            "hostile::bytes_that_are_no_protocol_end_their_connection",
            hostile::bytes_that_are_no_protocol_end_their_connection,
        ),
        ("log::segments_are_listed_and_verified", log::segments_are_listed_and_verified),
        (
            "log::damage_is_named_and_given_up_only_when_asked",
            log::damage_is_named_and_given_up_only_when_asked,
        ),
        ("s3::checkpoints_survive_in_a_bucket", s3::checkpoints_survive_in_a_bucket),
        ("session::the_main_job_in_psql", session::the_main_job_in_psql),
        ("session::copy_says_where_rows_go", session::copy_says_where_rows_go),
        ("session::a_bad_line_of_csv_is_named", session::a_bad_line_of_csv_is_named),
    ] {
        trials.push(Trial::test(name, move || Ok(test()?)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// What went wrong, for people.
type Outcome = Result<(), String>;

fn of_file(file: &File) -> Vec<Trial> {
    let mut modes = vec![
        ("plain", Mode::default()),
        ("small_epochs", Mode { epoch_rows: Some(1), shards: Some(4), ..Mode::default() }),
    ];
    // Every view goes its own way all the time.
    if ["views/", "joins/", "order/", "restart/"].iter().any(|folder| file.name.starts_with(folder)) {
        let environment = vec![("MILLPOND_EPOCH_BUDGET".to_owned(), "0".to_owned())];
        modes.push(("alone", Mode { environment, ..Mode::default() }));
    }
    if let Some(every) = file.wants_restarts() {
        let restart_every = Some(every);
        modes.push((
            "restarts",
            Mode { epoch_rows: Some(7), shards: Some(2), restart_every, ..Mode::default() },
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

/// Fails with a sentence, as `assert!` would with a panic.
fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise()) }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn connect(config: &str) -> Result<tokio_postgres::Client, String> {
    let (client, connection) = tokio_postgres::connect(config, tokio_postgres::NoTls).await.map_err(told)?;
    tokio::spawn(connection); // ends with the client, or with the server
    Ok(client)
}

/// An error with its SQLSTATE in front.
fn told(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => format!("connection: {error}"),
    }
}
