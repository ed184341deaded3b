//! From the log to a published view, beside DataFusion's batch of the same query over the same log through the same scan.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use millpond_engine::{Engine, EngineConfig, Outcome, Session, SessionInfo, rows};
use millpond_env::Env;

use crate::no_catalog::NoCatalog;
use crate::report::Report;

/// Nexmark's queries as far as one stream of bids goes.
const QUERIES: [(&str, &str); 6] = [
    ("q0 pass through", "SELECT auction, bidder, price, date_time FROM bid"),
    ("q1 currency", "SELECT auction, bidder, price * 908 / 1000 AS price, date_time FROM bid"),
    ("q2 filter", "SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    (
        "q7-like: highest bid of 10 s",
        "SELECT window_start, max(price) AS top, count(*) AS bids FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start",
    ),
    (
        "tumble 1 min by auction",
        "SELECT window_start, auction, count(*) AS bids, sum(price) AS total, max(price) AS top \
         FROM TUMBLE(bid, date_time, INTERVAL '1 minute') GROUP BY window_start, auction",
    ),
    (
        "group by bidder",
        "SELECT bidder, count(*) AS bids, sum(price) AS total, max(price) AS top FROM bid GROUP BY bidder",
    ),
];

/// # Errors
/// What the engine said.
pub async fn run(report: &mut Report, dir: &Path, bids: u64, shards: usize) -> Result<(), String> {
    let env = Env::os();
    let config = EngineConfig {
        data_dir: dir.join(format!("catch-up-{shards}")),
        shards,
        memory_limit: 16 << 30,
        checkpoint_interval: Duration::from_secs(3600),
        ..EngineConfig::default()
    };
    let engine = Engine::open(config, Arc::new(NoCatalog)).await.map_err(|e| e.to_string())?;
    let mut session = engine.session(SessionInfo::default()).map_err(|e| e.to_string())?;
    // 46 of 50 Nexmark events are bids.
    let events = bids * 50 / 46;
    let source = format!(
        "CREATE SOURCE bid (auction bigint, bidder bigint, price bigint, channel text, date_time timestamp, \
         WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') \
         WITH (connector = 'nexmark', nexmark.table.type = 'bid', events = {events})"
    );
    let start = env.clock.monotonic();
    run_sql(&mut session, &source).await?;
    loop {
        let ended =
            run_sql(&mut session, "SELECT 1 FROM millpond.sources WHERE watermark > '9999-01-01'").await?;
        if !ended.is_empty() {
            break;
        }
        env.clock.sleep(Duration::from_millis(20)).await;
    }
    let seconds = (env.clock.monotonic() - start).as_secs_f64();
    let total = engine.status().rows_in as f64;
    report.add(
        &format!("ingest nexmark bids, {shards} shards"),
        &[("rows_per_s", total / seconds), ("rows", total)],
    );
    for (name, query) in QUERIES {
        let start = env.clock.monotonic();
        let expected = batch(&mut session, query).await?;
        let batch_seconds = (env.clock.monotonic() - start).as_secs_f64();
        let start = env.clock.monotonic();
        run_sql(&mut session, &format!("CREATE MATERIALIZED VIEW v AS {query}")).await?;
        let view_seconds = (env.clock.monotonic() - start).as_secs_f64();
        let found = run_sql(&mut session, "SELECT count(*) FROM v").await?;
        if found[0][0] != expected.to_string() {
            return Err(format!("{name}: the view has {} rows, the batch {expected}", found[0][0]));
        }
        run_sql(&mut session, "DROP MATERIALIZED VIEW v").await?;
        report.add(
            &format!("{name}, {shards} shards"),
            &[
                ("view_rows_per_s", total / view_seconds),
                ("datafusion_rows_per_s", total / batch_seconds),
                ("ratio", batch_seconds / view_seconds),
            ],
        );
    }
    drop(session);
    engine.kill().await;
    Ok(())
}

async fn run_sql(session: &mut Session, sql: &str) -> Result<Vec<Vec<String>>, String> {
    rows(session, sql).await.map_err(|e| format!("{e}: {sql}"))
}

/// Runs a query and counts its rows, which are looked at and let go.
async fn batch(session: &mut Session, sql: &str) -> Result<usize, String> {
    let statement = session.parse(sql).map_err(|e| e.to_string())?.remove(0);
    let prepared = session.prepare(&statement, &[]).await.map_err(|e| e.to_string())?;
    let outcome = session.execute(&prepared, &[]).await.map_err(|e| e.to_string())?;
    let Outcome::Rows { mut stream, .. } = outcome else { return Err("no rows".to_owned()) };
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.map_err(|e| e.to_string())?.num_rows();
    }
    Ok(rows)
}
