//! No view's error or size keeps the others waiting: it is cut out, follows, and takes part again.

#![allow(clippy::disallowed_methods, reason = "the files of a sink are looked at from outside")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_bench::no_catalog::NoCatalog;
use millpond_engine::status::{RelationState, RelationStatus};
use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, rows};

async fn open(dir: &Path, config: EngineConfig) -> Engine {
    let config = EngineConfig {
        data_dir: dir.to_owned(),
        checkpoint_interval: Duration::from_secs(3_600),
        shards: 2,
        ..config
    };
    // A thread of an engine that was killed may need a moment to notice, and hold the folder until then.
    for _ in 0..2_000 {
        match Engine::open(config.clone(), Arc::new(NoCatalog)).await {
            Err(error) if error.state().to_string() == "55006" => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return opened.expect("it opens"),
        }
    }
    panic!("the folder stays in use");
}

fn session(engine: &Engine) -> Session {
    engine.session(SessionInfo { user: "u".into(), database: "d".into(), ..SessionInfo::default() }).unwrap()
}

async fn run(session: &mut Session, sql: &str) -> Vec<Vec<String>> {
    rows(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error} {:?}", error.detail_text()))
}

async fn one(session: &mut Session, sql: &str) -> String {
    run(session, sql).await[0].join(",")
}

async fn refused(session: &mut Session, sql: &str) -> String {
    match rows(session, sql).await {
        Ok(rows) => panic!("{sql}: {rows:?}"),
        Err(error) => format!("{} {error}", error.state()),
    }
}

fn view(engine: &Engine, name: &str) -> RelationStatus {
    engine.status().relations.into_iter().find(|relation| relation.name == name).expect("it exists")
}

/// Writes and reads another view, and says how often that went while the view followed alone.
async fn others_go_on(engine: &Engine, session: &mut Session, busy: &str, from: i64) -> usize {
    let mut meanwhile = 0;
    for n in from..from + 20 {
        run(session, &format!("INSERT INTO t VALUES ({n}, 1)")).await;
        assert_eq!(one(session, "SELECT c FROM total").await, (n + 1).to_string());
        let busy = view(engine, busy);
        let behind = busy.state == RelationState::Following && busy.epoch < engine.status().published;
        meanwhile += usize::from(behind);
    }
    meanwhile
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exploding_join_follows_alone() {
    let dir = tempfile::tempdir().unwrap();
    // Far more than the small views need, also where the machine has other work: only the join is cut out.
    let budget = EngineConfig { epoch_budget: Duration::from_millis(100), ..EngineConfig::default() };
    let engine = open(dir.path(), budget.clone()).await;
    let mut s = session(&engine);
    for sql in [
        "SET millpond.read_timeout = '5min'",
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(v) AS v FROM t",
        "CREATE MATERIALIZED VIEW pairs AS SELECT x.id AS x, y.id AS y FROM a CROSS JOIN b AS x CROSS JOIN b AS y",
        "CREATE MATERIALIZED VIEW per_x AS SELECT x, count(*) AS c FROM pairs GROUP BY x",
        "INSERT INTO b SELECT n FROM generate_series(1, 1000) AS g(n)",
    ] {
        run(&mut s, sql).await;
    }
    assert_eq!(one(&mut s, "SELECT count(*) FROM pairs").await, "0");
    // One row makes a million.
    run(&mut s, "INSERT INTO a VALUES (1)").await;
    let meanwhile = others_go_on(&engine, &mut s, "pairs", 0).await;
    assert!(meanwhile >= 10, "the others went on {meanwhile} times");
    // Who cannot wait is told, or takes what is there; nobody sees half of it.
    let mut hasty = session(&engine);
    run(&mut hasty, "SET millpond.read_timeout = '1ms'").await;
    run(&mut hasty, "INSERT INTO t VALUES (-1, 0)").await;
    let told = refused(&mut hasty, "SELECT count(*) FROM pairs, total").await;
    assert!(told.starts_with("55000 materialized view \"pairs\" is "), "{told}");
    run(&mut hasty, "SET millpond.read = 'latest'").await;
    assert_eq!(one(&mut hasty, "SELECT count(*) FROM pairs").await, "0");
    run(&mut hasty, "DELETE FROM t WHERE id = -1").await;
    // Or takes all of it as it was published together, and never goes back.
    let mut patient = session(&engine);
    run(&mut patient, "SET millpond.read_timeout = '1ms'").await;
    assert_eq!(one(&mut patient, "SELECT count(*), (SELECT c FROM total) FROM pairs").await, "0,0");
    assert_eq!(one(&mut patient, "SELECT c FROM total").await, "20");
    let told = refused(&mut patient, "SELECT count(*) FROM pairs").await;
    assert!(told.starts_with("55000 materialized view \"pairs\" is "), "{told}");
    // A view over it is created meanwhile, another is dropped, and a checkpoint waits for its turn.
    run(&mut s, "CREATE MATERIALIZED VIEW late AS SELECT max(x) AS m FROM pairs").await;
    run(&mut s, "CHECKPOINT").await;
    assert_eq!(one(&mut s, "SELECT count(*), min(c), max(c) FROM per_x").await, "1000,1000,1000");
    assert_eq!(one(&mut s, "SELECT count(*), (SELECT c FROM total) FROM pairs").await, "1000000,20");
    assert_eq!(one(&mut s, "SELECT m FROM late").await, "1000");
    // All of it goes again, and the server dies in the middle.
    run(&mut s, "DELETE FROM a").await;
    let meanwhile = others_go_on(&engine, &mut s, "pairs", 20).await;
    assert!(meanwhile >= 10, "the others went on {meanwhile} times");
    drop((s, hasty, patient));
    engine.kill().await;
    drop(engine);
    let engine = open(dir.path(), budget).await;
    let mut s = session(&engine);
    run(&mut s, "SET millpond.read_timeout = '5min'").await;
    assert_eq!(one(&mut s, "SELECT count(*) FROM pairs").await, "0");
    for view in ["total", "pairs", "per_x", "late"] {
        let wrong = run(&mut s, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
        assert!(wrong.is_empty(), "{view}: {wrong:?}");
    }
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_falls_too_far_behind_is_paused() {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        epoch_budget: Duration::from_millis(20),
        spool_bytes: 100_000,
        ..EngineConfig::default()
    };
    let engine = open(dir.path(), config).await;
    let mut s = session(&engine);
    for sql in [
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(v) AS v FROM t",
        "CREATE MATERIALIZED VIEW pairs AS SELECT x.id AS x, y.id AS y FROM a CROSS JOIN b AS x CROSS JOIN b AS y",
        "INSERT INTO b SELECT n FROM generate_series(1, 1500) AS g(n)",
        "INSERT INTO a VALUES (1)",
        "INSERT INTO a SELECT n FROM generate_series(1000, 90000) AS g(n)",
    ] {
        run(&mut s, sql).await;
    }
    others_go_on(&engine, &mut s, "pairs", 0).await;
    let RelationState::Paused(why) = view(&engine, "pairs").state else {
        panic!("{:?}", view(&engine, "pairs"))
    };
    assert_eq!(why, "it is too slow: more than 100000 bytes of changes waited for it");
    let told = refused(&mut s, "SELECT count(*) FROM pairs").await;
    assert_eq!(told, "55000 materialized view \"pairs\" is paused");
    assert_eq!(engine.status().relations.iter().filter(|r| r.state == RelationState::Running).count(), 4);
    // Once there is less to do it can go on.
    run(&mut s, "DELETE FROM a WHERE id > 1").await;
    run(&mut s, "DELETE FROM b WHERE id > 3").await;
    run(&mut s, "ALTER MATERIALIZED VIEW pairs RESUME").await;
    assert_eq!(one(&mut s, "SELECT count(*), (SELECT c FROM total) FROM pairs").await, "9,20");
    engine.kill().await;
}

/// How often each row is in all files of a sink's folder, by the columns behind the commit and the difference.
fn written(dir: &Path) -> std::collections::BTreeMap<String, i64> {
    let mut rows = std::collections::BTreeMap::new();
    for file in std::fs::read_dir(dir).unwrap() {
        for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let mut parts = line.splitn(3, ',');
            let (_, difference, row) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
            *rows.entry(row.to_owned()).or_default() += difference.parse::<i64>().unwrap();
        }
    }
    rows.retain(|_, n| *n != 0);
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_are_always_too_slow_are_right_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let none = EngineConfig { epoch_budget: Duration::ZERO, ..EngineConfig::default() };
    let mut engine = open(dir.path(), none.clone()).await;
    let mut s = session(&engine);
    for sql in [
        "CREATE SOURCE s (k int, v int)",
        "CREATE TABLE t (k int PRIMARY KEY, w int)",
        "CREATE MATERIALIZED VIEW sums AS SELECT k, sum(v) AS v, count(*) AS c FROM s GROUP BY k",
        "CREATE MATERIALIZED VIEW joined AS SELECT t.k, w, v, c FROM t LEFT JOIN sums ON sums.k = t.k",
        "CREATE MATERIALIZED VIEW top AS SELECT * FROM joined ORDER BY v DESC, k LIMIT 3",
        "INSERT INTO s VALUES (1, 1000)",
    ] {
        run(&mut s, sql).await;
    }
    let files = tempfile::tempdir().unwrap();
    let sink = format!(
        "CREATE SINK f FROM sums WITH (connector = 'file', path = '{}', header = false) FORMAT PLAIN ENCODE CSV",
        files.path().display()
    );
    run(&mut s, &sink).await;
    for round in 0..12 {
        run(
            &mut s,
            &format!("INSERT INTO s SELECT n % 7, n FROM generate_series({round}, {round} + 40) AS g(n)"),
        )
        .await;
        run(&mut s, &format!("INSERT INTO t VALUES ({round}, 1)")).await;
        run(&mut s, &format!("UPDATE t SET w = w + 1 WHERE k < {round}")).await;
        if round % 4 == 3 {
            assert_eq!(view(&engine, "joined").state, RelationState::Following);
            run(&mut s, "CHECKPOINT").await;
        }
        if round % 5 == 4 {
            drop(s);
            engine.kill().await;
            drop(engine);
            engine = open(dir.path(), none.clone()).await;
            s = session(&engine);
        }
        for view in ["sums", "joined", "top"] {
            let wrong = run(&mut s, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
            assert!(wrong.is_empty(), "{view} in round {round}: {wrong:?}");
        }
    }
    run(&mut s, "CHECKPOINT").await;
    let sums: Vec<String> = run(&mut s, "SELECT * FROM sums").await.iter().map(|row| row.join(",")).collect();
    let expected: std::collections::BTreeMap<String, i64> = sums.into_iter().map(|row| (row, 1)).collect();
    assert_eq!(written(files.path()), expected, "each change is in a file once");
    run(&mut s, "DROP SINK f").await;
    run(&mut s, "DROP MATERIALIZED VIEW sums CASCADE").await;
    run(&mut s, "CHECKPOINT").await;
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_with_a_fault_fails_alone_and_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    // The first retraction that reaches a view is left out, so that a key is there twice.
    let planted = EngineConfig { skip_retraction: Some(0), ..EngineConfig::default() };
    let engine = open(dir.path(), planted).await;
    let mut s = session(&engine);
    for sql in [
        "CREATE TABLE t (k int PRIMARY KEY, v int)",
        "CREATE SOURCE s (v int)",
        "CREATE MATERIALIZED VIEW keyed AS SELECT k, v FROM t",
        "CREATE MATERIALIZED VIEW over_it AS SELECT k AS c FROM keyed WHERE v > 4",
        "CREATE MATERIALIZED VIEW other AS SELECT v FROM s WHERE v > 0",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "CHECKPOINT",
        "INSERT INTO s VALUES (1)",
        "UPDATE t SET v = 5 WHERE k = 1",
        "INSERT INTO s VALUES (2)",
    ] {
        run(&mut s, sql).await;
    }
    assert_eq!(one(&mut s, "SELECT count(*) FROM other").await, "2");
    assert!(matches!(view(&engine, "keyed").state, RelationState::Failed(_)));
    let told = refused(&mut s, "SELECT * FROM keyed").await;
    assert_eq!(told, "55000 materialized view \"keyed\" has failed");
    let why = run(&mut s, "SELECT name, state, detail FROM millpond.views ORDER BY name").await;
    assert!(why[0][2].contains("twice") || why[0][2].contains("key"), "{why:?}");
    assert_eq!(why[1], ["other", "running", ""]);
    assert_eq!(why[2], ["over_it", "failed", "its input \"keyed\" has failed"]);
    // Its last contents can be read, with a warning.
    run(&mut s, "SET millpond.read = 'latest'").await;
    assert_eq!(run(&mut s, "SELECT k, v FROM keyed ORDER BY k").await, [["1", "1"], ["2", "2"]]);
    let warnings: Vec<String> = s.take_notices().into_iter().map(|n| n.message).collect();
    assert!(warnings.iter().any(|w| w.starts_with("materialized view \"keyed\" is failed")), "{warnings:?}");
    run(&mut s, "RESET millpond.read").await;
    run(&mut s, "ALTER MATERIALIZED VIEW keyed RESUME").await;
    assert_eq!(run(&mut s, "SELECT k, v FROM keyed ORDER BY k").await, [["1", "5"], ["2", "2"]]);
    assert_eq!(one(&mut s, "SELECT c FROM over_it").await, "1");
    // The checkpoint before held another life of it.
    run(&mut s, "CHECKPOINT").await;
    engine.kill().await;
    drop((s, engine));
    let engine = open(dir.path(), EngineConfig::default()).await;
    let mut s = session(&engine);
    for view in ["keyed", "over_it", "other"] {
        let wrong = run(&mut s, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
        assert!(wrong.is_empty(), "{view}: {wrong:?}");
    }
    engine.kill().await;
}
