//! Topics under a clock and a disk that the test moves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_bench::no_catalog::NoCatalog;
use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, rows};
use millpond_env::sim::{Sim, Survivors};

struct Server {
    sim: Sim,
    engine: Engine,
    session: Session,
}

impl Server {
    async fn open(sim: Sim, config: EngineConfig) -> Self {
        let config = EngineConfig {
            data_dir: PathBuf::from("/data"),
            checkpoint_interval: Duration::from_secs(1 << 30),
            ..config
        };
        let engine = Engine::open_in(sim.env(), config, Arc::new(NoCatalog)).await.unwrap();
        let info = SessionInfo { user: "u".into(), database: "millpond".into(), ..SessionInfo::default() };
        let session = engine.session(info).unwrap();
        Self { sim, engine, session }
    }

    async fn sql(&mut self, sql: &str) -> Vec<Vec<String>> {
        rows(&mut self.session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e} {:?}", e.detail_text()))
    }

    /// As a crash that loses what was not synced.
    async fn crash(self) -> Self {
        let Self { sim, engine, session } = self;
        let next = sim.crash(Survivors::None);
        drop(session);
        engine.kill().await;
        Self::open(next, EngineConfig::default()).await
    }
}

const WATERMARK: &str = "SELECT watermark FROM millpond.sources WHERE name = 's'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_partition_leaves_after_its_time_and_stays_away_after_a_crash() {
    let mut server = Server::open(Sim::new(1), EngineConfig::default()).await;
    server
        .sql("CREATE SOURCE s (n int, ts timestamp, WATERMARK FOR ts AS ts) WITH (partitions = 3, idle_timeout = '20s')")
        .await;
    server.sql("INSERT INTO s (_partition, n, ts) VALUES (0, 1, '2020-01-01 00:00:05'), (1, 2, '2020-01-01 00:00:03')").await;
    assert_eq!(server.sql(WATERMARK).await, [[""]], "of partition 2 nothing is known");
    let idle = "SELECT count(*) FROM millpond.partitions WHERE name = 's' AND idle";
    // The first look finds it quiet, from then on it has its time.
    let mut seconds = 0;
    while server.sql(idle).await == [["0"]] {
        assert!(seconds < 100_000, "nobody looks");
        server.sim.clock.advance(Duration::from_secs(1));
        seconds += 1;
        // Partition 1 is busy all the while.
        server.sql("INSERT INTO s (_partition, n, ts) VALUES (1, 0, '2020-01-01 00:00:04')").await;
    }
    assert!(seconds >= 20, "it left after {seconds} s");
    server.sql("SET millpond.read = 'strict'").await;
    while server.sql(WATERMARK).await == [[""]] {
        server.sim.clock.advance(Duration::from_secs(1));
        server.sql("INSERT INTO s (_partition, n, ts) VALUES (1, 0, '2020-01-01 00:00:04')").await;
    }
    assert_eq!(server.sql(WATERMARK).await, [["2020-01-01 00:00:04"]]);
    let before = server.sql("SELECT partition, idle, event_time FROM millpond.partitions ORDER BY 1").await;
    let mut server = server.crash().await;
    assert_eq!(
        server.sql("SELECT partition, idle, event_time FROM millpond.partitions ORDER BY 1").await,
        before
    );
    assert_eq!(server.sql(WATERMARK).await, [["2020-01-01 00:00:04"]]);
    server.sql("INSERT INTO s (_partition, n, ts) VALUES (2, 0, '2020-01-01 00:00:01')").await;
    server.sql("INSERT INTO s (_partition, n, ts) VALUES (0, 0, '2020-01-01 00:01:00'), (1, 0, '2020-01-01 00:01:00')").await;
    assert_eq!(
        server.sql(WATERMARK).await,
        [["2020-01-01 00:00:04"]],
        "back, it holds W and does not lower it"
    );
    server.engine.kill().await;
}

/// What a statement writes meets the limit before it fills the memory, and nothing of it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_writes_too_much_is_refused_whole() {
    let config = EngineConfig { max_transaction_bytes: 1 << 20, ..EngineConfig::default() };
    let mut server = Server::open(Sim::new(2), config).await;
    server.sql("CREATE SOURCE s (n bigint) WITH (partitions = 2, partition_by = 'n')").await;
    server.sql("CREATE TABLE t (n bigint PRIMARY KEY)").await;
    for statement in [
        // More rows than would fit into any memory.
        "INSERT INTO s SELECT g FROM generate_series(1, 100000000000) AS g",
        "INSERT INTO t SELECT g FROM generate_series(1, 100000000000) AS g",
    ] {
        let error = rows(&mut server.session, statement).await.unwrap_err();
        assert_eq!(error.state().to_string(), "54000", "{error}");
        assert_eq!(error.message(), "transaction writes more than 1048576 bytes");
    }
    server
        .sql("BEGIN; INSERT INTO t VALUES (1); INSERT INTO s SELECT g FROM generate_series(1, 100000) AS g")
        .await;
    let error =
        rows(&mut server.session, "INSERT INTO s SELECT g FROM generate_series(1, 100000) AS g").await;
    assert_eq!(error.unwrap_err().state().to_string(), "54000");
    server.sql("ROLLBACK").await;
    let count = "SELECT (SELECT count(*) FROM s) + (SELECT count(*) FROM t)";
    assert_eq!(server.sql(count).await, [["0"]]);
    server.sql("INSERT INTO s SELECT g FROM generate_series(1, 100000) AS g").await;
    assert_eq!(server.sql(count).await, [["100000"]]);
    server.engine.kill().await;
}

/// A column is added while clients write, who may not have heard of it: no row is lost, and each has a value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_added_while_others_write() {
    let mut server = Server::open(Sim::new(3), EngineConfig::default()).await;
    server.sql("CREATE SOURCE s (n int) WITH (partitions = 2)").await;
    server.sql("CREATE TABLE t (n int PRIMARY KEY, v int)").await;
    server.sql("INSERT INTO t VALUES (0, 0)").await;
    server.sql("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(n) AS total FROM s").await;
    let mut writers = Vec::new();
    for writer in 0..3 {
        let info = SessionInfo { user: "w".into(), database: "millpond".into(), ..SessionInfo::default() };
        let mut session = server.engine.session(info).unwrap();
        writers.push(tokio::spawn(async move {
            let mut retried = 0;
            for n in 0..60 {
                let n = writer * 1000 + n;
                rows(&mut session, &format!("INSERT INTO s (n) VALUES ({n})")).await.unwrap();
                loop {
                    match rows(&mut session, "UPDATE t SET v = v + 1 WHERE n = 0").await {
                        Ok(_) => break,
                        Err(error) if error.state().to_string() == "40001" => retried += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            retried
        }));
    }
    for column in 0..6 {
        server.sql(&format!("ALTER SOURCE s ADD COLUMN c{column} int NOT NULL DEFAULT {column}")).await;
        server.sql(&format!("ALTER TABLE t ADD COLUMN c{column} int NOT NULL DEFAULT {column}")).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for _ in 0..2 {
        let found = server.sql("SELECT count(*), count(DISTINCT n), sum(c5), sum(c0) FROM s").await;
        assert_eq!(found, [["180", "180", "900", "0"]]);
        assert_eq!(server.sql("SELECT v, c0, c5 FROM t").await, [["180", "0", "5"]]);
        assert_eq!(server.sql("SELECT c FROM v").await, [["180"]]);
        assert!(server.sql("VERIFY MATERIALIZED VIEW v").await.is_empty());
        server = server.crash().await;
    }
    server.engine.kill().await;
}

/// A connector's rows are spread over partitions, its position is not: after each crash it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_fills_partitions_and_repeats_nothing() {
    const ROWS: i64 = 5_000;
    for layout in ["partitions = 3", "partitions = 3, partition_by = 'n'"] {
        let mut server = Server::open(Sim::new(4), EngineConfig::default()).await;
        server
            .sql(&format!(
                "CREATE SOURCE g (n bigint) WITH ({layout}, connector = 'datagen', rate = 1000, fields.n.kind = 'sequence', fields.n.start = 1, fields.n.end = {ROWS})"
            ))
            .await;
        server.sql("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(n) AS total FROM g").await;
        let (mut before, mut crashes) = (0, 0);
        while before < ROWS {
            // The generator's pace is that of the simulated clock.
            server.sim.clock.advance(Duration::from_millis(700));
            let found = server.sql("SELECT c FROM v").await;
            let count: i64 = found[0][0].parse().unwrap();
            assert!(count >= before, "what was read stays");
            if count > before {
                server = server.crash().await;
                crashes += 1;
            }
            before = count;
        }
        assert!(crashes > 1, "it was done before the first look");
        let total = ROWS * (ROWS + 1) / 2;
        let answer = server.sql("SELECT count(*), count(DISTINCT n), sum(n) FROM g").await;
        assert_eq!(answer, [[ROWS.to_string(), ROWS.to_string(), total.to_string()]]);
        let spread = server.sql("SELECT count(*) FROM millpond.partitions WHERE rows > 0").await;
        assert!(spread == [["3"]] || !layout.contains("partition_by"), "{spread:?}");
        assert!(server.sql("VERIFY MATERIALIZED VIEW v").await.is_empty());
        server.engine.kill().await;
    }
}
