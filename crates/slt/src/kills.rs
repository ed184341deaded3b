//! `kill -9` in the middle of writing, again and again.
//!
//! Writers insert numbered rows into a source and a table, one transaction each, until the server dies; then it is started
//! again on the same data. Whatever was acknowledged is there, nothing twice and nothing that was never sent, the source
//! and the table hold the same rows, and each view equals its query.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::file::Mode;
use crate::server::Server;

/// How often, and against how many.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    pub kills: u64,
    pub writers: i64,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub acknowledged: usize,
    /// Rows that were written and never acknowledged.
    pub unanswered: usize,
    /// The longest time from a start to its first answer.
    pub start_max: Duration,
}

type Outcome = Result<(), String>;

const DDL: &str = "
    CREATE SOURCE event (id bigint, k bigint, n bigint, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '1 day');
    CREATE TABLE latest (k bigint PRIMARY KEY, n bigint NOT NULL);
    CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS c, sum(n) AS s, max(id) AS m FROM event GROUP BY k;
    CREATE MATERIALIZED VIEW per_minute AS
      SELECT window_start, count(*) AS c, sum(n) AS s FROM TUMBLE(event, ts, INTERVAL '1 minute') GROUP BY window_start;
    CREATE MATERIALIZED VIEW over_table AS SELECT count(*) AS c, sum(n) AS s FROM latest";

/// Pairs of queries that must agree: a view, and the same as a batch.
const PAIRS: [(&str, &str); 3] = [
    (
        "SELECT k, c, s, m FROM per_k ORDER BY k",
        "SELECT k, count(*), sum(n), max(id) FROM event GROUP BY k ORDER BY k",
    ),
    (
        "SELECT window_start, c, s FROM per_minute ORDER BY 1",
        "SELECT window_start, count(*), sum(n) FROM TUMBLE(event, ts, INTERVAL '1 minute') GROUP BY window_start ORDER BY 1",
    ),
    ("SELECT c, s FROM over_table", "SELECT count(*), sum(n) FROM latest"),
];

/// Runs a server of its own through so many kills.
///
/// # Errors
/// What was lost, came twice, or differs.
pub fn run(
    binary: &Path,
    Kills { kills, writers }: Kills,
    mut tell: impl FnMut(&str),
) -> Result<Report, String> {
    let mut server = Server::start(binary, &Mode::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    runtime.block_on(async { connect(&server.config()).await?.batch_execute(DDL).await.map_err(told) })?;
    let (mut sent, mut acknowledged, mut report) = (0, BTreeSet::new(), Report::default());
    for round in 0..kills {
        let config = server.config();
        // Moments that have nothing to do with the writers' rhythm; from 40 to some 900 ms.
        let moment = Duration::from_millis(40 + (round * 7919 + 311) % 863);
        let outcome = runtime.block_on(async {
            let tasks: Vec<_> =
                (0..writers).map(|n| tokio::spawn(write(config.clone(), sent, n, writers))).collect();
            tokio::time::sleep(moment).await;
            server.kill();
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await.map_err(|e| e.to_string())?);
            }
            Ok::<_, String>(outcomes)
        })?;
        for (tried, done) in outcome {
            sent = sent.max(tried);
            acknowledged.extend(done);
        }
        let begun = std::time::Instant::now();
        server.restart().map_err(|why| format!("after kill {}: {why}", round + 1))?;
        report.start_max = report.start_max.max(begun.elapsed());
        let found = runtime.block_on(check(&server.config(), &acknowledged, sent));
        let found = found.map_err(|why| format!("after kill {}: {why}", round + 1))?;
        report.acknowledged = acknowledged.len();
        report.unanswered = found - acknowledged.len();
        tell(&format!("kill {}: {} rows acknowledged, {found} found", round + 1, acknowledged.len()));
    }
    Ok(report)
}

/// Inserts rows `base + writer`, `base + writer + writers`, … one statement each, until the connection breaks. Returns the end of
/// what was tried, and what was acknowledged.
async fn write(config: String, base: i64, writer: i64, writers: i64) -> (i64, Vec<i64>) {
    let mut done = Vec::new();
    let mut id = base + writer;
    let Ok(client) = connect(&config).await else { return (base, done) };
    loop {
        let (k, n) = (id % 17, id * 31 % 1009);
        let sql = format!(
            "BEGIN; INSERT INTO event VALUES ({id}, {k}, {n}, TIMESTAMP '2024-01-01' + {id} * INTERVAL '1 second'); \
             INSERT INTO latest VALUES ({id}, {n}); COMMIT"
        );
        if client.batch_execute(&sql).await.is_err() {
            return (id + 1, done);
        }
        done.push(id);
        id += writers;
    }
}

/// Returns how many rows there are.
async fn check(config: &str, acknowledged: &BTreeSet<i64>, sent: i64) -> Result<usize, String> {
    let client = connect(config).await?;
    let mut both = Vec::new();
    for table in ["SELECT id FROM event", "SELECT k FROM latest"] {
        let rows = client.query(table, &[]).await.map_err(told)?;
        let found: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let ids: BTreeSet<i64> = found.iter().copied().collect();
        ensure(ids.len() == found.len(), || format!("{table}: rows came twice"))?;
        let lost: Vec<_> = acknowledged.difference(&ids).take(5).collect();
        ensure(lost.is_empty(), || format!("{table}: acknowledged and gone: {lost:?} …"))?;
        ensure(ids.last().is_none_or(|last| *last < sent), || format!("{table}: rows that were never sent"))?;
        both.push(ids);
    }
    ensure(both[0] == both[1], || {
        "a transaction is in the source or in the table, and not in both".to_owned()
    })?;
    for (view, batch) in PAIRS {
        let (kept, asked) = (text(&client, view).await?, text(&client, batch).await?);
        ensure(kept == asked, || format!("{view} is\n{kept:?}\nand {batch} is\n{asked:?}"))?;
    }
    Ok(both[0].len())
}

/// All rows as text.
pub async fn text(client: &tokio_postgres::Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client.simple_query(sql).await.map_err(told)?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

async fn connect(config: &str) -> Result<tokio_postgres::Client, String> {
    let (client, connection) = tokio_postgres::connect(config, tokio_postgres::NoTls).await.map_err(told)?;
    tokio::spawn(connection); // ends with the client, or with the server
    Ok(client)
}

fn told(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => format!("connection: {error}"),
    }
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(otherwise()) }
}
