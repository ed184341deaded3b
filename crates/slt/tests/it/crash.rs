//! `kill -9` in the middle of writing, and writers in each other's way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;

use crate::{Outcome, block_on, connect, ensure, told};

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

/// Writers insert numbered rows until the server dies; whatever was acknowledged is there afterwards, and nothing that was
/// never sent, and each view equals its query.
pub fn acknowledged_rows_survive_ten_kills() -> Outcome {
    let mut server = Server::start(&binary()?, &Mode::default())?;
    block_on(async { connect(&server.config()).await?.batch_execute(DDL).await.map_err(told) })?;
    let mut sent = 0;
    let mut acknowledged = BTreeSet::new();
    for round in 0..10_u64 {
        let config = server.config();
        // Moments that have nothing to do with the writers' rhythm; from 40 to some 900 ms.
        let moment = Duration::from_millis(40 + (round * 7919 + 311) % 863);
        let outcome = block_on(async {
            let writers: Vec<_> =
                (0..4).map(|writer| tokio::spawn(write(config.clone(), sent, writer))).collect();
            tokio::time::sleep(moment).await;
            server.kill();
            let mut outcomes = Vec::new();
            for writer in writers {
                outcomes.push(writer.await.map_err(|e| e.to_string())?);
            }
            Ok::<_, String>(outcomes)
        })?;
        for (tried, done) in outcome {
            sent = sent.max(tried);
            acknowledged.extend(done);
        }
        server.restart()?;
        block_on(check(&server.config(), &acknowledged, sent))?;
    }
    ensure(acknowledged.len() > 100, || {
        format!("only {} rows were acknowledged in ten rounds", acknowledged.len())
    })
}

/// Inserts rows `base + writer`, `base + writer + 4`, … one statement each, until the connection breaks. Returns the end of
/// what was tried, and what was acknowledged.
async fn write(config: String, base: i64, writer: i64) -> (i64, Vec<i64>) {
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
        id += 4;
    }
}

async fn check(config: &str, acknowledged: &BTreeSet<i64>, sent: i64) -> Outcome {
    let client = connect(config).await?;
    for table in ["SELECT id FROM event", "SELECT k FROM latest"] {
        let rows = client.query(table, &[]).await.map_err(told)?;
        let found: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let ids: BTreeSet<i64> = found.iter().copied().collect();
        ensure(ids.len() == found.len(), || format!("{table}: rows came twice"))?;
        let lost: Vec<_> = acknowledged.difference(&ids).take(5).collect();
        ensure(lost.is_empty(), || format!("{table}: acknowledged and gone: {lost:?} …"))?;
        ensure(ids.last().is_none_or(|last| *last < sent), || format!("{table}: rows that were never sent"))?;
    }
    for (view, batch) in PAIRS {
        let (kept, asked) = (text(&client, view).await?, text(&client, batch).await?);
        ensure(kept == asked, || format!("{view} is\n{kept:?}\nand {batch} is\n{asked:?}"))?;
    }
    Ok(())
}

/// All rows as text.
async fn text(client: &tokio_postgres::Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client.simple_query(sql).await.map_err(told)?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// `SET n = n + 1` by eight clients at once: each table has one serial writer, so nothing is lost, with no locks and no
/// retries of theirs. In each pause a client that wrote nothing sees all that the writers were told is committed.
pub fn no_increment_of_eight_clients_is_lost() -> Outcome {
    const ROUNDS: usize = 40;
    const EACH: usize = 25;
    let server = Server::start(&binary()?, &Mode::default())?;
    let config = server.config();
    block_on(async {
        let bystander = connect(&config).await?;
        let ddl =
            "CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO counter VALUES (1, 0);
                   CREATE MATERIALIZED VIEW shown AS SELECT sum(n) AS n FROM counter";
        bystander.batch_execute(ddl).await.map_err(told)?;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Arc::new(connect(&config).await?));
        }
        for round in 1..=ROUNDS {
            let increment = |client: Arc<tokio_postgres::Client>| async move {
                for _ in 0..EACH {
                    client.batch_execute("UPDATE counter SET n = n + 1 WHERE id = 1").await.map_err(told)?;
                }
                Ok::<_, String>(())
            };
            let writers: Vec<_> =
                clients.iter().map(|client| tokio::spawn(increment(Arc::clone(client)))).collect();
            for writer in writers {
                writer.await.map_err(|e| e.to_string())??;
            }
            let expected = vec![vec![Some((8 * EACH * round).to_string())]];
            for sql in ["SELECT n FROM counter", "SELECT n FROM shown"] {
                let found = text(&bystander, sql).await?;
                ensure(found == expected, || format!("{sql}: {found:?}, not {expected:?}"))?;
            }
        }
        Ok(())
    })
}
