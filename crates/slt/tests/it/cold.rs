//! Segments on an object store: a lake reads them, a lost disk comes back from them, retention takes them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;
use tokio_postgres::Client;

use crate::{Outcome, block_on, connect, ensure, told};

const WAIT_MAX: Duration = Duration::from_secs(60);

const DDL: &str = "
    CREATE SOURCE event (id bigint, k bigint, price numeric(12, 2), note text, tags text[], ts timestamp,
      WATERMARK FOR ts AS ts - INTERVAL '1 day');
    CREATE TABLE latest (k bigint PRIMARY KEY, n bigint NOT NULL);
    CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS c, sum(price) AS s, max(id) AS m FROM event GROUP BY k;
    CREATE MATERIALIZED VIEW over_table AS SELECT count(*) AS c, sum(n) AS s FROM latest";

/// What a lake makes of the folder of a topic, with pyarrow and with DuckDB: rows, sum, and the offsets in order.
const LAKE: &str = r#"
import os, sys, duckdb, pyarrow.dataset as ds
root = os.path.join(sys.argv[1], "topics")
for topic in sorted(os.listdir(root)):
    table = ds.dataset(os.path.join(root, topic), format="parquet").to_table()
    if "price" not in table.column_names:
        continue
    files = os.path.join(root, topic, "*", "*.parquet")
    row = duckdb.sql(f"""SELECT count(*), sum(id), sum(price), count(note), sum(len(tags)), count(DISTINCT _offset),
        max(_offset), count(_commit), count(_ingest_time) FROM read_parquet('{files}')""").fetchall()[0]
    assert table.num_rows == row[0] and sum(table["id"].to_pylist()) == row[1], (table.num_rows, row)
    pruned = duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}') WHERE _offset < 10").fetchall()[0][0]
    print(" ".join(str(value) for value in row), pruned)
"#;

/// A server that seals and uploads as soon as it can, and keeps nothing twice.
fn mode(objects: &Path) -> Mode {
    let pairs = [
        ("MILLPOND_OBJECT_STORE", objects.to_str().unwrap_or_default()),
        ("MILLPOND_JOURNAL_FILE_SIZE", "64kB"),
        ("MILLPOND_SEAL_INTERVAL", "0.2"),
        ("MILLPOND_CHECKPOINT_INTERVAL", "0.2"),
        ("MILLPOND_LOCAL_RETENTION", "0"),
    ];
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Mode { environment, ..Mode::default() }
}

async fn text(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = client.simple_query(sql).await.map_err(told)?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            let cells: Vec<_> = (0..row.len()).map(|n| row.get(n).unwrap_or("NULL")).collect();
            Some(cells.join(" "))
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Asks until the answer is `t`.
pub async fn until(client: &Client, sql: &str) -> Outcome {
    let begun = Instant::now();
    loop {
        let answer = text(client, sql).await?;
        if answer == ["t"] {
            return Ok(());
        }
        ensure(begun.elapsed() < WAIT_MAX, || format!("{sql}: {answer:?}"))?;
        client.batch_execute("CHECKPOINT").await.map_err(told)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn fill(client: &Client, rounds: std::ops::Range<i64>) -> Outcome {
    for round in rounds {
        let (from, to) = (round * 400, round * 400 + 399);
        let sql = format!(
            "INSERT INTO event SELECT n, n % 7, n * 0.25, CASE WHEN n % 3 > 0 THEN 'note ' || n END,
               ARRAY['a', n::text], TIMESTAMP '2024-01-01' + n * INTERVAL '1 second'
             FROM generate_series({from}, {to}) AS g(n);
             INSERT INTO latest VALUES ({round}, {round}) ON CONFLICT (k) DO NOTHING"
        );
        for statement in sql.split(";\n") {
            client.batch_execute(statement).await.map_err(told)?;
        }
    }
    Ok(())
}

const ALL: [&str; 4] = [
    "SELECT * FROM per_k ORDER BY k",
    "SELECT * FROM over_table",
    "SELECT count(*), sum(id), sum(price), count(note), count(DISTINCT _offset), min(_commit) > 0 FROM event",
    "SELECT note, tags, _offset FROM event WHERE id IN (3, 777, 2400) ORDER BY id",
];

async fn everything(client: &Client) -> Result<Vec<Vec<String>>, String> {
    let mut answers = Vec::new();
    for sql in ALL {
        answers.push(text(client, sql).await?);
    }
    for view in ["per_k", "over_table"] {
        let wrong = text(client, &format!("VERIFY MATERIALIZED VIEW {view}")).await?;
        ensure(wrong.is_empty(), || format!("{view} differs from its query: {wrong:?}"))?;
    }
    Ok(answers)
}

/// Rows become Parquet that a lake reads; with the local disk gone, the same object store brings everything back.
pub fn a_lake_reads_topics_and_a_lost_disk_comes_back() -> Outcome {
    let objects = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut server = Server::start(&binary()?, &mode(objects.path()))?;
    let before = block_on(async {
        let client = connect(&server.config()).await?;
        client.batch_execute(DDL).await.map_err(told)?;
        fill(&client, 0..12).await?;
        let all = "SELECT published_through >= (SELECT max(_commit) FROM event) FROM millpond.log";
        until(&client, all).await?;
        until(&client, "SELECT sum(local_bytes) = 0 FROM millpond.partitions WHERE name = 'event'").await?;
        everything(&client).await
    })?;
    let lake = Command::new("python3")
        .args(["-c", LAKE])
        .arg(objects.path())
        .output()
        .map_err(|e| format!("python3: {e}: pip install pyarrow duckdb"))?;
    let told_by_lake = String::from_utf8_lossy(&lake.stdout).trim().to_owned();
    let sum: i64 = (0..4800).sum();
    let expected = format!("4800 {sum} {}.00 3200 9600 4800 4799 4800 4800 10", sum / 4);
    ensure(told_by_lake == expected, || {
        format!("the lake says {told_by_lake:?}, not {expected:?}: {}", String::from_utf8_lossy(&lake.stderr))
    })?;

    server.kill();
    std::fs::remove_dir_all(server.data()).map_err(|e| e.to_string())?;
    server.restart()?;
    block_on(async {
        let client = connect(&server.config()).await?;
        let after = everything(&client).await?;
        ensure(after == before, || format!("after the loss of the disk: {after:?} instead of {before:?}"))?;
        fill(&client, 12..14).await?;
        let count = text(&client, "SELECT count(*), max(_offset) FROM event").await?;
        ensure(count == ["5600 5599"], || format!("{count:?}"))?;
        everything(&client).await.map(drop)
    })
}

/// Retention takes the oldest rows; who asks for them is told.
pub fn retention_takes_the_oldest_rows() -> Outcome {
    let objects = tempfile::tempdir().map_err(|e| e.to_string())?;
    let server = Server::start(&binary()?, &mode(objects.path()))?;
    block_on(async {
        let client = connect(&server.config()).await?;
        client.batch_execute(DDL).await.map_err(told)?;
        fill(&client, 0..8).await?;
        client.batch_execute("ALTER SOURCE event SET (retention_bytes = '20 kB')").await.map_err(told)?;
        let gone = "SELECT bool_or(earliest_offset > 0) FROM millpond.partitions WHERE name = 'event'";
        until(&client, gone).await?;
        let counts = "SELECT count(*) = max(_offset) - min(_offset) + 1 AND min(_offset) > 0 FROM event";
        let whole = text(&client, counts).await?;
        ensure(whole == ["t"], || format!("rows are missing in the middle: {whole:?}"))?;
        let kept = text(&client, "SELECT sum(c) FROM per_k").await?;
        ensure(kept == ["3200"], || format!("the view forgot: {kept:?}"))?;
        let refused = client.simple_query("VERIFY MATERIALIZED VIEW per_k").await;
        let refused = refused.map_err(told).err().unwrap_or_default();
        ensure(refused.starts_with("55000"), || format!("VERIFY without its input: {refused:?}"))?;
        client
            .batch_execute("CREATE MATERIALIZED VIEW late AS SELECT count(*) AS c FROM event")
            .await
            .map_err(told)?;
        let same = text(&client, "SELECT (SELECT c FROM late) <= 3200 AND (SELECT c FROM late) > 0").await?;
        ensure(same == ["t"], || format!("{same:?}"))?;
        client.batch_execute("DROP SOURCE event CASCADE").await.map_err(told)?;
        let topics = objects.path().join("topics");
        let begun = Instant::now();
        loop {
            let left = std::fs::read_dir(&topics).into_iter().flatten().flatten();
            let files: usize = left
                .flat_map(|topic| std::fs::read_dir(topic.path()).into_iter().flatten().flatten())
                .map(|partition| std::fs::read_dir(partition.path()).map_or(0, |files| files.count()))
                .sum();
            let tables = "SELECT count(*) FROM millpond.partitions WHERE name = 'event'";
            if text(&client, tables).await? == ["0"] && files <= 10 {
                return Ok(());
            }
            ensure(begun.elapsed() < WAIT_MAX, || format!("{files} objects are left"))?;
            client.batch_execute("CHECKPOINT").await.map_err(told)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}
