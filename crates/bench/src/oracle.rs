//! The oracle: random tables, changes and queries; every view must equal its query run in batch over the same prefix.
//!
//! One seed is one life of a database on a simulated machine: a source with a watermark, a table with a key and one
//! without, views over them and over each other; then inserts (late rows and NULLs among them), updates, deletes,
//! transactions that commit or roll back, checkpoints, new views in the middle, and crashes that lose what was not synced.
//! After each few steps `VERIFY MATERIALIZED VIEW` compares every view with DataFusion's batch answer, and the base relations
//! are compared with a model of what was acknowledged. Epoch size and shards are drawn too: no result may depend on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_engine::status::{RelationState, RelationStatus};
use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, SystemCatalog, rows};
use millpond_env::sim::{Fault, Sim, Survivors};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::no_catalog::NoCatalog;

mod grammar;
mod sets;
mod subqueries;

/// What a life went through, for the report of coverage.
#[derive(Debug, Default, Clone)]
pub struct Life {
    pub statements: usize,
    pub crashes: usize,
    pub verifications: usize,
    /// How often each rule of the grammar was drawn.
    pub rules: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leaves out the n-th retraction of every view: the oracle must notice.
    pub skip_retraction: Option<u64>,
    /// Views are cut out of the driver's epochs after every so many pieces of work; else it is drawn.
    pub cut_out_every: Option<u64>,
}

struct World {
    rng: SmallRng,
    sim: Sim,
    config: EngineConfig,
    engine: Option<Engine>,
    session: Option<Session>,
    views: Vec<View>,
    /// What was acknowledged: id to (k, v, x), as text.
    table: BTreeMap<i32, (String, String, String)>,
    source_rows: usize,
    /// Partitions of the source.
    partitions: usize,
    /// Columns that were added to source and table, each with what rows have that were written without it.
    added: [Vec<(&'static str, Option<i32>)>; 2],
    clock: i64,
    /// Subqueries around the one that is drawn.
    nested: usize,
    life: Life,
    log: String,
    /// For what came to the grammar later: a seed stays what it was.
    apart: SmallRng,
}

#[derive(Clone)]
struct View {
    name: String,
    columns: Vec<(&'static str, Kind)>,
    /// Keeps the source's time column and only filters or projects, so that windows may stand on it.
    windowed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Text,
    Time,
}

/// Lives through one seed.
///
/// # Errors
/// What differed, with the statements that led there.
pub async fn live(seed: u64, options: &Options) -> Result<Life, String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let config = EngineConfig {
        data_dir: PathBuf::from("/data"),
        shards: [1, 2, 4][rng.random_range(0..3)],
        epoch_rows: [1, 7, 1000, 1 << 20][rng.random_range(0..4)],
        checkpoint_interval: Duration::from_secs(3600),
        skip_retraction: options.skip_retraction,
        journal_file_bytes: [3_000, 30_000, 256 << 20][rng.random_range(0..3)],
        local_retention: Some(Duration::ZERO),
        movable_clock: true,
        background: false,
        ..EngineConfig::default()
    };
    // Drawn apart, so that a seed stays what it was.
    let mut apart = SmallRng::seed_from_u64(seed ^ 0x5a5a);
    let drawn = [None, None, Some(1), Some(2), Some(7), Some(40)][apart.random_range(0..6)];
    let config = EngineConfig { cut_out_every: options.cut_out_every.or(drawn), ..config };
    let mut world = World {
        sim: Sim::new(seed),
        log: format!(
            "seed {seed}, shards {}, epoch rows {}, views are cut out every {:?}\n",
            config.shards, config.epoch_rows, config.cut_out_every
        ),
        rng,
        config,
        engine: None,
        session: None,
        views: Vec::new(),
        table: BTreeMap::new(),
        source_rows: 0,
        partitions: 1,
        added: Default::default(),
        clock: 0,
        nested: 0,
        life: Life::default(),
        apart,
    };
    let result = world.run().await;
    if let Some(engine) = world.engine.take() {
        drop(world.session.take());
        engine.kill().await;
    }
    result.map(|()| world.life).map_err(|why| format!("{why}\n{}", world.log))
}

impl World {
    async fn run(&mut self) -> Result<(), String> {
        self.open().await?;
        self.partitions = [1, 1, 2, 5][self.rng.random_range(0..4)];
        let key = ["", ", partition_by = 'k'", ", partition_by = 'x, v'"][self.rng.random_range(0..3)];
        self.sql(&format!(
            "CREATE SOURCE s (k int, v int, p bigint, x text, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (partitions = {}{key})",
            self.partitions
        ))
        .await?;
        self.sql("CREATE TABLE t (id int PRIMARY KEY, k int, v bigint, x text)").await?;
        self.sql("CREATE TABLE u (k int, v numeric(10,2))").await?;
        for _ in 0..self.rng.random_range(1..4) {
            self.create_view().await?;
        }
        for _ in 0..self.rng.random_range(10..30) {
            self.step().await?;
            let status = self.engine.as_ref().map(Engine::status);
            let alone = |relation: &RelationStatus| relation.state == RelationState::Following;
            if status.is_some_and(|status| status.relations.iter().any(alone)) {
                self.drew("a view follows alone");
            }
            if self.apart.random_bool(0.05) {
                self.pause_and_resume().await?;
            }
            if self.rng.random_bool(0.25) {
                self.verify().await?;
            }
        }
        self.verify().await
    }

    async fn open(&mut self) -> Result<(), String> {
        let system: Arc<dyn SystemCatalog> = Arc::new(NoCatalog);
        let engine = Engine::open_in(self.sim.env(), self.config.clone(), system)
            .await
            .map_err(|e| format!("open: {e} {:?}", e.detail_text()))?;
        let info =
            SessionInfo { user: "oracle".into(), database: "millpond".into(), ..SessionInfo::default() };
        self.session = Some(engine.session(info).map_err(|e| e.to_string())?);
        self.engine = Some(engine);
        self.built().await
    }

    /// Waits until views that were not in the checkpoint are there again: on a busy machine that takes its time.
    async fn built(&mut self) -> Result<(), String> {
        for _ in 0..120_000 {
            let status = self.engine.as_ref().map(Engine::status);
            let building =
                |relation: &RelationStatus| matches!(relation.state, RelationState::Building { .. });
            if !status.is_some_and(|status| status.relations.iter().any(building)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("a view is not built again within two minutes".to_owned())
    }

    async fn sql(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        // Long lists of values tell little; the seed brings them back.
        let shown: String = sql.chars().take(300).collect();
        let _ = writeln!(self.log, "{shown}{};", if shown.len() < sql.len() { " …" } else { "" });
        self.life.statements += 1;
        let session = self.session.as_mut().expect("a session is open between crashes");
        rows(session, sql).await.map_err(|e| format!("{} {e} {:?}", e.state(), e.detail_text()))
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..35 => self.insert_source().await,
            35..50 => self.insert_table().await,
            50..62 => self.update_table().await,
            62..72 => self.delete_table().await,
            72..82 => self.change_keyless().await,
            82..86 => self.transaction().await,
            86..88 => self.pass_time().await,
            88..91 => self.create_view().await,
            91 => self.alter().await,
            92..94 => {
                self.drew("checkpoint");
                self.sql("CHECKPOINT").await.map(|_| ())
            }
            94..97 => self.failing_disk().await,
            _ => self.crash().await,
        }
    }

    fn drew(&mut self, rule: &'static str) {
        *self.life.rules.entry(rule).or_default() += 1;
    }

    /// now() of the views comes nearer to the rows' times, or passes them.
    async fn pass_time(&mut self) -> Result<(), String> {
        self.drew("time passes");
        let millis = self.clock + self.rng.random_range(-20_000..20_000);
        let to = format!("timestamptz '2026-01-01 00:00:00+00' + INTERVAL '{millis} milliseconds'");
        self.sql(&format!("ALTER SYSTEM ADVANCE CLOCK TO {to}")).await.map(|_| ())
    }

    /// A view and those that read it stand still for a while, and are built again.
    async fn pause_and_resume(&mut self) -> Result<(), String> {
        self.drew("pause and resume");
        let name = self.views[self.apart.random_range(0..self.views.len())].name.clone();
        self.sql(&format!("ALTER MATERIALIZED VIEW {name} PAUSE")).await?;
        match self.apart.random_range(0..4) {
            0 => self.crash().await?,
            1 => self.sql("CHECKPOINT").await.map(|_| ())?,
            2 => self.insert_source().await?,
            _ => self.update_table().await?,
        }
        self.sql(&format!("ALTER MATERIALIZED VIEW {name} RESUME")).await?;
        self.built().await
    }

    async fn alter(&mut self) -> Result<(), String> {
        if self.rng.random_bool(0.3) {
            self.drew("more partitions");
            self.partitions += self.rng.random_range(1..3);
            return self
                .sql(&format!("ALTER SOURCE s SET (partitions = {})", self.partitions))
                .await
                .map(|_| ());
        }
        self.drew("add column");
        let table = self.rng.random_range(0..2);
        let Some(name) = ["c1", "c2", "c3"].get(self.added[table].len()) else { return Ok(()) };
        let default = self.rng.random_bool(0.6).then(|| self.rng.random_range(0..20));
        let clause = default.map_or_else(String::new, |value| format!(" NOT NULL DEFAULT {value}"));
        let relation = ["SOURCE s", "TABLE t"][table];
        self.sql(&format!("ALTER {relation} ADD COLUMN {name} int{clause}")).await?;
        self.added[table].push((name, default));
        Ok(())
    }

    fn number(&mut self, below: i32) -> String {
        if self.rng.random_bool(0.1) { "NULL".into() } else { self.rng.random_range(0..below).to_string() }
    }

    fn text(&mut self) -> String {
        if self.rng.random_bool(0.1) {
            "NULL".into()
        } else {
            format!("'{}'", ["a", "b", "", "stream"][self.rng.random_range(0..4)])
        }
    }

    async fn insert_source(&mut self) -> Result<(), String> {
        self.drew("insert into source");
        let rows = if self.rng.random_bool(0.1) { 500 } else { self.rng.random_range(1..20) };
        let mut values = Vec::new();
        for _ in 0..rows {
            // Mostly forward, sometimes far behind the watermark, sometimes without a time.
            self.clock += self.rng.random_range(0..3_000);
            let back = if self.rng.random_bool(0.15) {
                self.rng.random_range(0..60_000)
            } else {
                self.rng.random_range(0..4_000)
            };
            let millis = (self.clock - back).max(0);
            let ts = if self.rng.random_bool(0.05) {
                "NULL".to_owned()
            } else {
                format!("timestamp '2026-01-01' + INTERVAL '{millis} milliseconds'")
            };
            let (k, v, p, x) = (self.number(5), self.number(100), self.number(1000), self.text());
            values.push(format!("({k}, {v}, {p}, {x}, {ts})"));
        }
        self.sql(&format!("INSERT INTO s VALUES {}", values.join(", "))).await?;
        self.source_rows += rows;
        Ok(())
    }

    async fn insert_table(&mut self) -> Result<(), String> {
        self.drew("insert into table");
        for _ in 0..self.rng.random_range(1..5) {
            let id = self.rng.random_range(0..40);
            let (k, v, x) = (self.number(5), self.number(1000), self.text());
            let upsert = self.rng.random_bool(0.3);
            let conflict = if upsert { " ON CONFLICT (id) DO UPDATE SET v = excluded.v" } else { "" };
            let result = self.sql(&format!("INSERT INTO t VALUES ({id}, {k}, {v}, {x}){conflict}")).await;
            match (result, self.table.get_mut(&id), upsert) {
                (Ok(_), Some(row), true) => row.1 = v,
                (Ok(_), None, _) => {
                    self.table.insert(id, (k, v, x));
                }
                (Err(why), Some(_), false) if why.starts_with("23505") => {}
                (result, ..) => return Err(format!("INSERT of id {id}: {result:?}")),
            }
        }
        Ok(())
    }

    async fn update_table(&mut self) -> Result<(), String> {
        if self.rng.random_bool(0.5) {
            self.drew("update by key");
            let id = self.rng.random_range(0..40);
            let k = self.number(5);
            self.sql(&format!("UPDATE t SET k = {k}, v = v + 1 WHERE id = {id}")).await?;
            if let Some(row) = self.table.get_mut(&id) {
                row.0 = k;
                bump(&mut row.1, 1);
            }
            return Ok(());
        }
        self.drew("update by scan");
        let k = self.rng.random_range(0..5);
        self.sql(&format!("UPDATE t SET v = v + 10 WHERE k = {k}")).await?;
        for row in self.table.values_mut().filter(|row| row.0 == k.to_string()) {
            bump(&mut row.1, 10);
        }
        Ok(())
    }

    async fn delete_table(&mut self) -> Result<(), String> {
        self.drew("delete");
        let id = self.rng.random_range(0..40);
        let condition =
            if self.rng.random_bool(0.7) { format!("id = {id}") } else { format!("id > {id} AND k = 1") };
        self.sql(&format!("DELETE FROM t WHERE {condition}")).await?;
        if condition.contains('>') {
            self.table.retain(|i, row| !(*i > id && row.0 == "1"));
        } else {
            self.table.remove(&id);
        }
        Ok(())
    }

    async fn change_keyless(&mut self) -> Result<(), String> {
        self.drew("table without a key");
        let (k, v) = (self.number(4), self.rng.random_range(0..500));
        let statement = match self.rng.random_range(0..4) {
            0 => format!("DELETE FROM u WHERE k = {}", self.rng.random_range(0..4)),
            1 => format!("UPDATE u SET v = v + 1.5 WHERE k = {}", self.rng.random_range(0..4)),
            // The same row twice: a weight of 2.
            _ => format!("INSERT INTO u VALUES ({k}, {v}.25), ({k}, {v}.25)"),
        };
        self.sql(&statement).await.map(|_| ())
    }

    async fn transaction(&mut self) -> Result<(), String> {
        let before = (self.table.clone(), self.source_rows);
        self.sql("BEGIN").await?;
        self.insert_source().await?;
        self.update_table().await?;
        self.delete_table().await?;
        if self.rng.random_bool(0.5) {
            self.drew("commit");
            self.sql("COMMIT").await?;
        } else {
            self.drew("rollback");
            self.sql("ROLLBACK").await?;
            (self.table, self.source_rows) = before;
        }
        Ok(())
    }

    /// One of the next calls of the disk fails, in the middle of a transaction; or there is no space for a while. What fails
    /// is not there afterwards, and writing goes on without a restart.
    async fn failing_disk(&mut self) -> Result<(), String> {
        let full = self.rng.random_bool(0.3);
        self.drew(if full { "full disk" } else { "failed write or sync" });
        if full {
            self.sim.disk.set_reserves(self.rng.random_bool(0.5));
            self.sim.disk.set_capacity(Some(self.sim.disk.used()));
        } else {
            let call = self.sim.disk.changes() + self.rng.random_range(0..3);
            self.sim.disk.fault_at(call, Fault::Error(std::io::ErrorKind::Other));
        }
        for _ in 0..4 {
            let before = (self.table.clone(), self.source_rows);
            let result = if self.rng.random_bool(0.5) {
                self.update_table().await
            } else {
                self.insert_source().await
            };
            match result {
                Ok(()) => continue,
                Err(why) if ["58030", "53100"].iter().any(|state| why.starts_with(state)) => {
                    let _ = writeln!(self.log, "-- {why}");
                }
                Err(why) => return Err(why),
            }
            // Neither is a statement of several transactions, so nothing of it has happened.
            if full {
                self.sql("SELECT count(*) FROM t")
                    .await
                    .map_err(|why| format!("a full disk, a read: {why}"))?;
            }
            (self.table, self.source_rows) = before;
            break;
        }
        self.sim.disk.set_capacity(None);
        self.sim.disk.set_reserves(true);
        self.sim.disk.heal();
        self.healed().await
    }

    /// Waits until the log takes writes again.
    async fn healed(&mut self) -> Result<(), String> {
        for _ in 0..5_000 {
            if self.engine.as_ref().is_none_or(|engine| engine.status().healthy) {
                return Ok(());
            }
            self.sim.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("the log does not go on by itself".to_owned())
    }

    async fn crash(&mut self) -> Result<(), String> {
        self.drew("crash");
        self.life.crashes += 1;
        let _ = writeln!(self.log, "-- crash");
        let after =
            self.sim.crash(if self.rng.random_bool(0.5) { Survivors::None } else { Survivors::Random });
        drop(self.session.take());
        if let Some(engine) = self.engine.take() {
            engine.kill().await;
        }
        self.sim = after;
        self.open().await
    }

    async fn create_view(&mut self) -> Result<(), String> {
        if self.views.len() > 8 {
            return Ok(());
        }
        let name = format!("v{}", self.views.len());
        let (query, columns, windowed) = self.query();
        self.sql(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
        self.views.push(View { name, columns, windowed });
        Ok(())
    }

    async fn verify(&mut self) -> Result<(), String> {
        self.life.verifications += 1;
        for view in self.views.clone() {
            let wrong = self.sql(&format!("VERIFY MATERIALIZED VIEW {}", view.name)).await?;
            if !wrong.is_empty() {
                let definition = self.sql(&format!("SHOW CREATE MATERIALIZED VIEW {}", view.name)).await?;
                return Err(format!(
                    "{} differs from the batch answer: {wrong:?}\n{definition:?}",
                    view.name
                ));
            }
        }
        let n = self.sql("SELECT count(*) FROM s").await?;
        if n[0][0] != self.source_rows.to_string() {
            return Err(format!("the source has {} rows, {} were acknowledged", n[0][0], self.source_rows));
        }
        let rows = [self.source_rows, self.table.len()];
        for (table, (name, rows)) in ["s", "t"].into_iter().zip(rows).enumerate() {
            for (column, value) in self.added[table].clone() {
                // No statement of the grammar gives it another value.
                let is = value.map_or("IS NULL".to_owned(), |value| format!("= {value}"));
                let n = self.sql(&format!("SELECT count(*) FROM {name} WHERE {column} {is}")).await?;
                if n[0][0] != rows.to_string() {
                    return Err(format!("{} of {rows} rows of {name} have {column} {is}", n[0][0]));
                }
            }
        }
        let offsets = "SELECT count(*) FROM (SELECT min(_offset) AS lo, max(_offset) AS hi, count(*) AS n, count(DISTINCT _offset) AS d FROM s GROUP BY _partition) AS p WHERE lo <> 0 OR hi <> n - 1 OR d <> n";
        let wrong = self.sql(offsets).await?;
        if wrong[0][0] != "0" {
            return Err("the offsets of a partition have gaps".to_owned());
        }
        let found = self.sql("SELECT id, k, v, x FROM t ORDER BY id").await?;
        let bare = |text: &String| match text.as_str() {
            "NULL" => String::new(),
            other => other.trim_matches('\'').to_owned(),
        };
        let expected: Vec<Vec<String>> = self
            .table
            .iter()
            .map(|(id, (k, v, x))| vec![id.to_string(), bare(k), bare(v), bare(x)])
            .collect();
        if found != expected {
            return Err(format!("table t is {found:?}, acknowledged was {expected:?}"));
        }
        Ok(())
    }
}

fn bump(text: &mut String, by: i64) {
    if let Ok(value) = text.parse::<i64>() {
        *text = (value + by).to_string();
    }
}
