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

use millpond_engine::{Engine, EngineConfig, Session, SessionInfo, SystemCatalog, rows};
use millpond_env::sim::{Sim, Survivors};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::no_catalog::NoCatalog;

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
    clock: i64,
    life: Life,
    log: String,
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
        ..EngineConfig::default()
    };
    let mut world = World {
        sim: Sim::new(seed),
        log: format!("seed {seed}, shards {}, epoch rows {}\n", config.shards, config.epoch_rows),
        rng,
        config,
        engine: None,
        session: None,
        views: Vec::new(),
        table: BTreeMap::new(),
        source_rows: 0,
        clock: 0,
        life: Life::default(),
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
        self.sql(
            "CREATE SOURCE s (k int, v int, p bigint, x text, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
        )
        .await?;
        self.sql("CREATE TABLE t (id int PRIMARY KEY, k int, v bigint, x text)").await?;
        self.sql("CREATE TABLE u (k int, v numeric(10,2))").await?;
        for _ in 0..self.rng.random_range(1..4) {
            self.create_view().await?;
        }
        for _ in 0..self.rng.random_range(10..30) {
            self.step().await?;
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
        Ok(())
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
            82..88 => self.transaction().await,
            88..92 => self.create_view().await,
            92..95 => {
                self.drew("checkpoint");
                self.sql("CHECKPOINT").await.map(|_| ())
            }
            _ => self.crash().await,
        }
    }

    fn drew(&mut self, rule: &'static str) {
        *self.life.rules.entry(rule).or_default() += 1;
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

    /// A relation to read: name, columns, whether TUMBLE may stand on it.
    fn relation(&mut self) -> (String, Vec<(&'static str, Kind)>, bool) {
        use Kind::{Number, Text, Time};
        let choice = self.rng.random_range(0..3 + self.views.len());
        match choice {
            0 => (
                "s".into(),
                vec![("k", Number), ("v", Number), ("p", Number), ("x", Text), ("ts", Time)],
                true,
            ),
            1 => ("t".into(), vec![("id", Number), ("k", Number), ("v", Number), ("x", Text)], false),
            2 => ("u".into(), vec![("k", Number), ("v", Number)], false),
            n => {
                self.drew("view on a view");
                let view = self.views[n - 3].clone();
                (view.name, view.columns, view.windowed)
            }
        }
    }

    fn query(&mut self) -> (String, Vec<(&'static str, Kind)>, bool) {
        use Kind::Number;
        let (name, columns, windowed) = self.relation();
        let filter = self.filter(&columns);
        match self.rng.random_range(0..9) {
            6 => self.top_n(&name, &columns, &filter),
            7 => self.over(&name, &columns, &filter),
            8 => self.set_operation(&name, &columns, &filter),
            0 => {
                self.drew("filter");
                (format!("SELECT * FROM {name}{filter}"), columns, windowed)
            }
            1 => {
                self.drew("projection");
                let number = self.column(&columns, Number);
                let query = format!(
                    "SELECT {number} + 1 AS k, {number} * 2 - 3 AS v, CASE WHEN {number} > 10 THEN 'a' ELSE 'b' END AS x FROM {name}{filter}"
                );
                (query, vec![("k", Number), ("v", Number), ("x", Kind::Text)], false)
            }
            2 => {
                self.drew("distinct");
                let column = self.any(&columns);
                (
                    format!("SELECT DISTINCT {} AS k FROM {name}{filter}", column.0),
                    vec![("k", column.1)],
                    false,
                )
            }
            3 => {
                self.drew("global aggregate");
                let aggregates = self.aggregates(&columns);
                (
                    format!("SELECT {aggregates} FROM {name}{filter}"),
                    vec![("n", Number), ("v", Number)],
                    false,
                )
            }
            4 if windowed && columns.iter().any(|c| c.1 == Kind::Time) => {
                let time = self.column(&columns, Kind::Time);
                let (tvf, rule) = match self.rng.random_range(0..3) {
                    0 => (format!("HOP({name}, {time}, INTERVAL '2 seconds', INTERVAL '6 seconds')"), "hop"),
                    1 => (
                        format!("HOP({name}, {time}, INTERVAL '4 seconds', INTERVAL '10 seconds')"),
                        "hop across slices",
                    ),
                    _ => (format!("TUMBLE({name}, {time}, INTERVAL '7 seconds')"), "tumble"),
                };
                self.drew(rule);
                let number = self.column(&columns, Number);
                let aggregates = self.aggregates(&columns);
                let query = if self.rng.random_bool(0.5) {
                    format!(
                        "SELECT window_start AS ts, {number} AS k, {aggregates} FROM {tvf}{filter} GROUP BY window_start, {number}"
                    )
                } else {
                    format!(
                        "SELECT window_end AS ts, 1 AS k, {aggregates} FROM {tvf}{filter} GROUP BY window_end"
                    )
                };
                (query, vec![("ts", Kind::Time), ("k", Number), ("n", Number), ("v", Number)], false)
            }
            _ => {
                self.drew("group by");
                let key = self.any(&columns);
                let aggregates = self.aggregates(&columns);
                let having = if self.rng.random_bool(0.3) { " HAVING count(*) > 1" } else { "" };
                let query = format!(
                    "SELECT {} AS k, {aggregates} FROM {name}{filter} GROUP BY {}{having}",
                    key.0, key.0
                );
                (query, vec![("k", key.1), ("n", Number), ("v", Number)], false)
            }
        }
    }

    /// ORDER BY over a column of any kind.
    fn order(&mut self, columns: &[(&'static str, Kind)]) -> String {
        let column = self.any(columns).0;
        let direction = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"][self.rng.random_range(0..4)];
        format!("{column}{direction}")
    }

    fn top_n(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let order = self.order(columns);
        let (n, key) = (self.rng.random_range(1..6), self.any(columns));
        match self.rng.random_range(0..4) {
            0 => {
                self.drew("order by limit");
                let offset = ["", " OFFSET 2"][self.rng.random_range(0..2)];
                let query = format!("SELECT * FROM {name}{filter} ORDER BY {order} LIMIT {n}{offset}");
                (query, columns.to_vec(), false)
            }
            1 => {
                self.drew("distinct on");
                let query =
                    format!("SELECT DISTINCT ON ({0}) * FROM {name}{filter} ORDER BY {0}, {order}", key.0);
                (query, columns.to_vec(), false)
            }
            _ => {
                let rank = ["row_number", "rank", "dense_rank"][self.rng.random_range(0..3)];
                self.drew(rank);
                let number = if self.rng.random_bool(0.5) { ", rn" } else { "" };
                let query = format!(
                    "SELECT {0} AS k{number} FROM (SELECT *, {rank}() OVER (PARTITION BY {0} ORDER BY {order}) AS rn FROM {name}{filter}) AS q WHERE rn <= {n}",
                    key.0
                );
                let mut columns = vec![("k", key.1)];
                columns.extend((!number.is_empty()).then_some(("rn", Kind::Number)));
                (query, columns, false)
            }
        }
    }

    fn over(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let (key, order) = (self.any(columns), self.order(columns));
        let number = self.column(columns, Kind::Number);
        let by = if self.rng.random_bool(0.7) { format!("PARTITION BY {} ", key.0) } else { String::new() };
        let n = self.rng.random_range(1..4);
        let (rule, call) = match self.rng.random_range(0..10) {
            0 => ("lag", format!("lag({number}, {n}) OVER ({by}ORDER BY {order})")),
            1 => ("lead", format!("lead({number}, {n}, 0) OVER ({by}ORDER BY {order})")),
            2 => ("first_value", format!("first_value({number}) OVER ({by}ORDER BY {order})")),
            3 => ("ntile", format!("ntile({n}) OVER ({by}ORDER BY {order})")),
            4 => ("rank of all", format!("rank() OVER ({by}ORDER BY {order})")),
            5 => ("running sum", format!("sum({number}) OVER ({by}ORDER BY {order})")),
            6 => (
                "sum over rows",
                format!(
                    "sum({number}) OVER ({by}ORDER BY {order} ROWS BETWEEN {n} PRECEDING AND 1 FOLLOWING)"
                ),
            ),
            7 => ("max over rows", format!("max({number}) OVER ({by}ORDER BY {order} ROWS {n} PRECEDING)")),
            8 => ("count of groups", format!("count(*) OVER ({by}ORDER BY {order} GROUPS {n} PRECEDING)")),
            _ => (
                "count in range",
                format!("count(*) OVER ({by}ORDER BY {number} RANGE BETWEEN {n} PRECEDING AND 1 FOLLOWING)"),
            ),
        };
        self.drew(rule);
        let query = format!("SELECT {} AS k, cast({call} AS bigint) AS v FROM {name}{filter}", key.0);
        (query, vec![("k", key.1), ("v", Kind::Number)], false)
    }

    fn set_operation(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let left = self.column(columns, Kind::Number);
        let (other, others, _) = self.relation();
        let right = self.column(&others, Kind::Number);
        let operations = ["UNION", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
        let operation = operations[self.rng.random_range(0..operations.len())];
        self.drew(operation);
        let query = format!(
            "SELECT cast({left} AS bigint) AS k FROM {name}{filter} {operation} SELECT cast({right} AS bigint) FROM {other}"
        );
        (query, vec![("k", Kind::Number)], false)
    }

    fn aggregates(&mut self, columns: &[(&'static str, Kind)]) -> String {
        let any = self.any(columns);
        let number = self.column(columns, Kind::Number);
        let first = match self.rng.random_range(0..3) {
            0 => "count(*)".to_owned(),
            1 => format!("count({})", any.0),
            _ => format!("count(*) FILTER (WHERE {number} > 5)"),
        };
        let function = ["sum", "min", "max", "avg"][self.rng.random_range(0..4)];
        self.drew(function);
        // Views on views would sum sums of averages: integers keep every step exact.
        let second = match function {
            "avg" => format!("cast(avg({number}) * 100 AS bigint)"),
            "sum" => format!("cast(sum({number}) AS bigint)"),
            _ => format!("cast({function}({number}) AS bigint)"),
        };
        format!("{first} AS n, {second} AS v")
    }

    fn filter(&mut self, columns: &[(&'static str, Kind)]) -> String {
        if self.rng.random_bool(0.5) {
            return String::new();
        }
        let number = self.column(columns, Kind::Number);
        let bound = self.rng.random_range(0..50);
        match self.rng.random_range(0..4) {
            0 => format!(" WHERE {number} > {bound}"),
            1 => format!(" WHERE {number} IS NOT NULL AND {number} % 2 = 0"),
            2 => format!(" WHERE {number} IS NULL OR {number} <= {bound}"),
            _ => format!(" WHERE {number} IN (1, 2, 3, {bound})"),
        }
    }

    fn any(&mut self, columns: &[(&'static str, Kind)]) -> (&'static str, Kind) {
        columns[self.rng.random_range(0..columns.len())]
    }

    fn column(&mut self, columns: &[(&'static str, Kind)], kind: Kind) -> &'static str {
        let of_kind: Vec<&'static str> = columns.iter().filter(|c| c.1 == kind).map(|c| c.0).collect();
        match of_kind.len() {
            // Every relation of the grammar has a number or is a distinct text or time: count its length instead.
            0 => "1",
            n => of_kind[self.rng.random_range(0..n)],
        }
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
