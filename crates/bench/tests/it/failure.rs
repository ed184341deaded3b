//! The disk fails under a running engine: who waited is told, and it goes on without a restart.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_bench::no_catalog::NoCatalog;
use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, rows};
use millpond_env::sim::{Fault, Gate, Sim, Survivors};

async fn open(sim: &Sim) -> Engine {
    let config = EngineConfig {
        data_dir: PathBuf::from("/data"),
        checkpoint_interval: Duration::from_secs(3_600),
        ..EngineConfig::default()
    };
    Engine::open_in(sim.env(), config, Arc::new(NoCatalog)).await.expect("it opens")
}

fn session(engine: &Engine) -> Session {
    engine.session(SessionInfo { user: "u".into(), database: "d".into(), ..SessionInfo::default() }).unwrap()
}

async fn run(session: &mut Session, sql: &str) -> Vec<Vec<String>> {
    rows(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error} {:?}", error.detail_text()))
}

/// The SQLSTATE of a statement that fails.
async fn refused(session: &mut Session, sql: &str) -> String {
    match rows(session, sql).await {
        Ok(rows) => panic!("{sql}: {rows:?}"),
        Err(error) => error.state().to_string(),
    }
}

async fn one(session: &mut Session, sql: &str) -> String {
    run(session, sql).await[0].join(",")
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}");
}

async fn healed(sim: &Sim, engine: &Engine) {
    until("the log goes on by itself", || {
        sim.clock.advance(Duration::from_secs(1));
        engine.status().healthy
    })
    .await;
}

const DDL: [&str; 5] = [
    "CREATE SOURCE s (k int, v int)",
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "CREATE TABLE u (n bigint)",
    "CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS c, sum(v) AS v FROM s GROUP BY k",
    "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS n FROM t",
];

async fn database(sim: &Sim) -> (Engine, Session) {
    let engine = open(sim).await;
    let mut session = session(&engine);
    for sql in DDL {
        run(&mut session, sql).await;
    }
    run(&mut session, "INSERT INTO t VALUES (1, 10), (2, 20)").await;
    run(&mut session, "INSERT INTO s VALUES (1, 1)").await;
    (engine, session)
}

/// Both views against their queries.
async fn verify(session: &mut Session) {
    for view in ["per_k", "total"] {
        let difference = run(session, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
        assert!(difference.is_empty(), "{view}: {difference:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_ran_before_its_sync_failed_is_taken_back() {
    for checkpointed in [false, true] {
        let sim = Sim::new(1);
        let (engine, mut first) = database(&sim).await;
        if checkpointed {
            run(&mut first, "CHECKPOINT").await;
            run(&mut first, "INSERT INTO s VALUES (2, 5)").await;
        }
        let (mut second, mut third) = (session(&engine), session(&engine));
        // A block that has written another table, and one that has only read.
        run(&mut second, "BEGIN").await;
        run(&mut second, "INSERT INTO u VALUES (7)").await;
        run(&mut third, "BEGIN").await;
        let sources = one(&mut third, "SELECT count(*) FROM s").await;
        let gate = Gate::new();
        sim.disk.fault_at(sim.disk.changes() + 1, Fault::HeldError(gate.clone(), ErrorKind::Other));
        let before = engine.status().rows_in;
        let mut writer = session(&engine);
        let failing = tokio::spawn(async move {
            (refused(&mut writer, "INSERT INTO t VALUES (90, 30), (120, 40)").await, writer)
        });
        // The driver has stepped the views while the sync is held.
        until("the epoch runs", || failing.is_finished() || engine.status().rows_in > before).await;
        assert!(!failing.is_finished(), "{:?}", failing.await.unwrap().0);
        assert_eq!(one(&mut first, "SELECT c, n FROM total").await, "2,30", "and shows nothing of it");
        gate.open();
        let (state, mut writer) = failing.await.unwrap();
        assert_eq!(state, "58030");
        healed(&sim, &engine).await;
        assert_eq!(one(&mut first, "SELECT c, n FROM total").await, "2,30");
        assert_eq!(refused(&mut second, "COMMIT").await, "40001", "its table may have held lost rows");
        assert_eq!(one(&mut third, "SELECT count(*) FROM s").await, sources, "a block that reads goes on");
        run(&mut third, "COMMIT").await;
        // The writer's image of the table is the durable one: the lost keys are free.
        run(&mut writer, "UPDATE t SET n = n + 1").await;
        run(&mut writer, "INSERT INTO t VALUES (90, 1)").await;
        run(&mut second, "INSERT INTO u VALUES (7)").await;
        run(&mut writer, "INSERT INTO s VALUES (1, 2), (9, 9)").await;
        assert_eq!(one(&mut first, "SELECT c, n FROM total").await, "3,33");
        verify(&mut first).await;
        run(&mut first, "CHECKPOINT").await;
        drop((first, second, third, writer));
        engine.kill().await;
        for survivors in [Survivors::None, Survivors::All] {
            let sim = sim.fork(survivors);
            let engine = open(&sim).await;
            let mut session = session(&engine);
            assert_eq!(one(&mut session, "SELECT c, n FROM total").await, "3,33", "{survivors:?}");
            assert_eq!(one(&mut session, "SELECT sum(n) FROM u").await, "7");
            verify(&mut session).await;
            drop(session);
            engine.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_lost_with_its_ddl_is_not_there() {
    let sim = Sim::new(2);
    let (engine, mut session) = database(&sim).await;
    sim.disk.fault_at(sim.disk.changes() + 1, Fault::Error(ErrorKind::Other));
    assert_eq!(refused(&mut session, "CREATE TABLE lost (a int PRIMARY KEY)").await, "58030");
    healed(&sim, &engine).await;
    assert_eq!(refused(&mut session, "SELECT * FROM lost").await, "42P01");
    run(&mut session, "CREATE TABLE lost (b text PRIMARY KEY, c int)").await;
    run(&mut session, "INSERT INTO lost VALUES ('x', 1)").await;
    assert_eq!(one(&mut session, "SELECT b, c FROM lost").await, "x,1");
    drop(session);
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_and_nothing_else() {
    for reserves in [true, false] {
        let sim = Sim::new(3);
        sim.disk.set_reserves(reserves);
        let (engine, mut session) = database(&sim).await;
        sim.disk.set_capacity(Some(sim.disk.used()));
        let mut inserted = 0;
        let big = "INSERT INTO s SELECT n % 7, n FROM generate_series(1, 20000) AS g(n)";
        let error = loop {
            match rows(&mut session, big).await {
                Ok(_) => inserted += 20_000,
                Err(error) => break error,
            }
        };
        assert_eq!(error.state().to_string(), "53100", "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("Free space")), "{:?}", error.hint_text());
        for _ in 0..3 {
            assert_eq!(refused(&mut session, "UPDATE t SET n = 0").await, "53100");
            assert_eq!(refused(&mut session, "INSERT INTO t VALUES (3, 3)").await, "53100");
            assert_eq!(one(&mut session, "SELECT c, n FROM total").await, "2,30");
            assert_eq!(one(&mut session, "SELECT count(*) FROM s").await, (1 + inserted).to_string());
            sim.clock.advance(Duration::from_secs(1));
        }
        assert!(!engine.status().healthy);
        sim.disk.set_capacity(None);
        healed(&sim, &engine).await;
        run(&mut session, big).await;
        run(&mut session, "UPDATE t SET n = n + 1").await;
        assert_eq!(one(&mut session, "SELECT c, n FROM total").await, "2,32");
        verify(&mut session).await;
        drop(session);
        engine.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_wait_is_seen_only_when_it_is_durable() {
    let sim = Sim::new(4);
    let (engine, mut hasty) = database(&sim).await;
    let mut other = session(&engine);
    run(&mut hasty, "SET synchronous_commit = off").await;
    let gate = Gate::new();
    sim.disk.fault_at(sim.disk.changes() + 1, Fault::HeldError(gate.clone(), ErrorKind::Other));
    run(&mut hasty, "UPDATE t SET n = n + 100 WHERE id = 1").await;
    run(&mut other, "SET millpond.read = latest").await;
    assert_eq!(one(&mut other, "SELECT n FROM t WHERE id = 1").await, "10", "it is told before the sync");
    let before = engine.status().durable;
    gate.open();
    // The log is healthy until it fails: only a commit beyond the lost one shows that it has healed.
    until("the log fails and goes on", || {
        sim.clock.advance(Duration::from_secs(1));
        engine.status().durable > before.next()
    })
    .await;
    healed(&sim, &engine).await;
    // Its own reads do not wait for what is lost, and what it does next builds on what is there.
    run(&mut hasty, "SET synchronous_commit = on").await;
    let lost = one(&mut hasty, "SELECT n FROM t WHERE id = 1").await;
    run(&mut hasty, "UPDATE t SET n = n + 1 WHERE id = 1").await;
    assert_eq!(lost, "10");
    assert_eq!(one(&mut hasty, "SELECT n FROM t WHERE id = 1").await, "11");
    drop((hasty, other));
    engine.kill().await;
}
