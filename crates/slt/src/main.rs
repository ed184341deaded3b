//! `cargo xtask slt`: runs files of `sql-tests/` and prints what differs.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millpond_slt::compare::{self, Report};
use millpond_slt::file::{Mode, binary, find, sql_tests};
use millpond_slt::kills::{self, Kills};
use millpond_slt::matrix::Cell;
use millpond_slt::postgresql::PostgreSql;
use millpond_slt::server::Server;

/// Runs sqllogictest files against a millpond of their own.
#[derive(Parser)]
struct Arguments {
    /// Files or folders [default: sql-tests]
    paths: Vec<PathBuf>,
    /// Most rows in one step of the dataflow
    #[arg(long)]
    epoch_rows: Option<usize>,
    /// Worker shards of the dataflow
    #[arg(long)]
    shards: Option<usize>,
    /// Kill the server and start it again after each statement; files without "# runs: restart-each" are left out
    #[arg(long)]
    restart_each: bool,
    /// Also run the records that say "skipif gap": what is specified, and not done yet
    #[arg(long)]
    gaps: bool,
    /// Run on a PostgreSQL server instead, to see that the expected values are PostgreSQL's own: a connection string such as
    /// "host=127.0.0.1 port=5432 user=postgres"
    #[arg(long)]
    postgresql: Option<String>,
    /// Instead of files: so many seeds of random queries, each on a server of ours and on PostgreSQL
    #[arg(long)]
    compare: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Instead of files: TPC-H and Nexmark over tables that change at random so often, in epochs of all sizes, on all numbers of
    /// shards
    #[arg(long)]
    matrix: Option<u32>,
    /// Instead of files: kill a server of its own so often, in the middle of writing, and check what is there after each start
    #[arg(long)]
    kills: Option<u64>,
    /// How many clients write meanwhile
    #[arg(long, default_value_t = 8, requires = "kills")]
    writers: i64,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("millpond-slt: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<bool, String> {
    let Arguments {
        mut paths,
        epoch_rows,
        shards,
        restart_each,
        gaps,
        postgresql,
        compare,
        from,
        matrix,
        kills,
        writers,
    } = arguments;
    if let Some(seeds) = compare {
        return compare_with_postgresql(from..from + seeds, postgresql);
    }
    if let Some(steps) = matrix {
        let wanted = |cell: &Cell| {
            epoch_rows.is_none_or(|rows| cell.epoch_rows == Some(rows))
                && shards.is_none_or(|shards| cell.shards == shards)
        };
        return run_matrix(Cell::all(from, steps).into_iter().filter(wanted).collect());
    }
    if let Some(kills) = kills {
        let report =
            kills::run(&binary()?, Kills { kills, writers: writers.max(1) }, |line| println!("{line}"))?;
        println!(
            "{kills} kills: {} rows were acknowledged and are there, {} more were written; longest start {:.1} s",
            report.acknowledged,
            report.unanswered,
            report.start_max.as_secs_f64()
        );
        return Ok(true);
    }
    if paths.is_empty() {
        paths.push(sql_tests());
    }
    let restart_every = restart_each.then_some(1);
    let mode = Mode { epoch_rows, shards, restart_every, gaps, ..Mode::default() };
    let (mut passed, mut failed) = (0, 0);
    for path in paths {
        for file in find(&path)?.iter().filter(|file| !restart_each || file.wants_restarts().is_some()) {
            let outcome = match &postgresql {
                Some(config) => file.run_on_postgresql(config),
                None => file.run(&binary()?, &mode),
            };
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("ok      {}", file.name);
                }
                Err(why) => {
                    failed += 1;
                    println!("FAILED  {}\n{why}\n", file.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

fn run_matrix(cells: Vec<Cell>) -> Result<bool, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("no threads: {e}"))?;
    let binary = binary()?;
    let mut failed = 0;
    println!("suite    epoch rows  shards  views  verified  kills  rows at the end  seconds  always empty");
    for cell in cells {
        let rows = cell.epoch_rows.map_or_else(|| "all".to_owned(), |rows| rows.to_string());
        print!("{:8} {rows:>10}  {:>6}  ", format!("{:?}", cell.suite), cell.shards);
        match runtime.block_on(cell.run(&binary)) {
            Ok(report) => println!(
                "{:>5}  {:>8}  {:>5}  {:>15}  {:>7.1}  {}",
                report.views,
                report.verifications,
                report.restarts,
                report.rows,
                report.took.as_secs_f64(),
                report.empty.join(" ")
            ),
            Err(why) => {
                failed += 1;
                println!("FAILED\n{why}\n");
            }
        }
    }
    println!("{failed} failed");
    Ok(failed == 0)
}

fn compare_with_postgresql(seeds: Range<u64>, postgresql: Option<String>) -> Result<bool, String> {
    let own = match postgresql {
        Some(_) => None,
        None => Some(PostgreSql::start()?),
    };
    let config = postgresql.or_else(|| own.as_ref().map(PostgreSql::config)).unwrap_or_default();
    let server = Server::start(&binary()?, &Mode::default())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("no threads: {e}"))?;
    let mut told = 0;
    let report = runtime.block_on(compare::run(&server.config(), &config, seeds, |_, report| {
        for difference in &report.differences[told..] {
            println!("{difference}\n");
        }
        told = report.differences.len();
    }))?;
    println!("drawn:");
    for (rule, times) in &report.rules {
        println!("  {times:6} {rule}");
    }
    println!("Millpond says that it cannot:");
    for (what, times) in &report.unsupported {
        println!("  {times:6} {what}");
    }
    let Report { queries, views, errors, differences, .. } = report;
    println!("{queries} queries ({errors} refused by both), {views} views, {} differ", differences.len());
    Ok(differences.is_empty())
}
