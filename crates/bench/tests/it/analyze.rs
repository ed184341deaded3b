//! EXPLAIN ANALYZE: what operators did, on the tree of EXPLAIN.

use std::path::PathBuf;
use std::sync::Arc;

use millpond_bench::no_catalog::NoCatalog;
use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, rows};
use millpond_env::sim::Sim;

async fn lines(session: &mut Session, sql: &str) -> Vec<String> {
    let rows = rows(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e} {:?}", e.detail_text()));
    rows.into_iter().map(|row| row.join("|")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_say_what_they_did() {
    let config = EngineConfig { data_dir: PathBuf::from("/data"), ..EngineConfig::default() };
    let engine = Engine::open_in(Sim::new(1).env(), config, Arc::new(NoCatalog)).await.expect("it opens");
    let info = SessionInfo { user: "u".into(), database: "d".into(), ..SessionInfo::default() };
    let mut s = engine.session(info).unwrap();
    for sql in [
        "CREATE SOURCE s (k int, v int, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
        "CREATE MATERIALIZED VIEW m AS SELECT window_start, k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') WHERE v > 2 GROUP BY window_start, k",
        "INSERT INTO s SELECT n % 3, n, timestamp '2024-01-01 00:00:00' + n * INTERVAL '1 second' FROM generate_series(1, 10) AS g(n)",
    ] {
        lines(&mut s, sql).await;
    }
    let plan = lines(&mut s, "EXPLAIN MATERIALIZED VIEW m").await;
    let analyzed = lines(&mut s, "EXPLAIN ANALYZE MATERIALIZED VIEW m").await;
    let without: Vec<&String> = analyzed.iter().filter(|line| !line.trim_start().starts_with('(')).collect();
    assert_eq!(without[..plan.len()], plan.iter().collect::<Vec<_>>()[..], "the same tree");
    assert_eq!(analyzed.len(), 2 * plan.len() + 1, "{analyzed:#?}");
    let notes: Vec<&String> = analyzed.iter().filter(|line| line.trim_start().starts_with('(')).collect();
    let aggregate = notes.iter().find(|note| note.contains("state ")).expect("an aggregate");
    assert!(aggregate.contains("(rows in 8, out 3; state 3 rows, "), "{analyzed:#?}");
    let input = notes.last().expect("an input");
    assert!(input.contains("(rows in 10, out 10; "), "{analyzed:#?}");
    assert!(input.contains("watermark 2024-01-01 00:00:05"), "{analyzed:#?}");
    assert!(analyzed.last().unwrap().starts_with("running at commit "), "{analyzed:#?}");
    let operators = lines(
        &mut s,
        "SELECT operator, description, rows_in, rows_out, state_rows FROM millpond.operators WHERE view = 'm' AND state_bytes > 0",
    )
    .await;
    assert_eq!(operators.len(), 1);
    assert!(
        operators[0].starts_with("aggregate|Aggregate by ") && operators[0].ends_with("|8|3|3"),
        "{operators:?}"
    );
    // A SELECT runs, and tells.
    let select = lines(&mut s, "EXPLAIN ANALYZE SELECT k, sum(n) FROM m GROUP BY k").await;
    assert!(select.iter().any(|line| line.contains("output_rows=3")), "{select:#?}");
    assert!(select.last().unwrap().starts_with("Execution Time: "), "{select:#?}");
    for (sql, state) in [
        ("EXPLAIN ANALYZE INSERT INTO s VALUES (1, 1, NULL)", "0A000"),
        ("EXPLAIN (ANALYZE, FORMAT JSON) MATERIALIZED VIEW m", "0A000"),
        ("EXPLAIN ANALYZE MATERIALIZED VIEW nope", "42P01"),
        ("EXPLAIN MATERIALIZED VIEW s", "42809"),
    ] {
        let error = rows(&mut s, sql).await.expect_err(sql);
        assert_eq!(error.state().to_string(), state, "{sql}: {error}");
    }
    assert_eq!(lines(&mut s, "SELECT count(*) FROM s").await, ["10"], "nothing was inserted");
    engine.kill().await;
}
