//! TPC-H's and Nexmark's queries as views over tables that change at random, in every mode.
//!
//! The tables and views are those of `sql-tests/tpch` and `sql-tests/nexmark`; Nexmark's streams become tables here. A
//! [`Cell`] is one suite with one size of epochs and one number of shards. Its tables are changed step by step
//! ([`changes`]), the server is killed and started again in between, and each view is compared with its query run as a
//! batch (VERIFY MATERIALIZED VIEW), with all rows at the end of the run shown to be more than nothing.

mod changes;
mod suite;

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use self::changes::Changes;
pub use self::suite::Suite;
use crate::file::Mode;
use crate::server::Server;

/// Statements that take longer are stuck.
const STATEMENT_SECONDS_MAX: u64 = 300;

/// Rows in an epoch, at most; `None` is all of them.
pub const EPOCHS: [Option<usize>; 4] = [Some(1), Some(7), Some(1000), None];
pub const SHARDS: [usize; 3] = [1, 2, 4];

/// One suite in one mode.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub suite: Suite,
    pub epoch_rows: Option<usize>,
    pub shards: usize,
    pub seed: u64,
    /// How often a table is changed.
    pub steps: u32,
    /// Views are compared after so many steps, and after the last.
    pub verify_every: u32,
    /// The server is killed after so many steps.
    pub restart_every: u32,
}

/// What a cell has done.
#[derive(Debug, Default)]
pub struct Report {
    pub views: usize,
    pub verifications: usize,
    pub restarts: u32,
    /// Rows of the tables at the end.
    pub rows: i64,
    /// Views without a row at every comparison.
    pub empty: Vec<String>,
    pub took: Duration,
}

impl Cell {
    /// All cells of both suites.
    pub fn all(seed: u64, steps: u32) -> Vec<Self> {
        let mut cells = Vec::new();
        for suite in Suite::ALL {
            for epoch_rows in EPOCHS {
                for shards in SHARDS {
                    let seed = seed + cells.len() as u64;
                    let (verify_every, restart_every) = (5, 12);
                    cells.push(Self { suite, epoch_rows, shards, seed, steps, verify_every, restart_every });
                }
            }
        }
        cells
    }

    /// # Errors
    /// The view that differs from its query, with the changes so far; or what did not work.
    pub async fn run(&self, binary: &Path) -> Result<Report, String> {
        let mode = Mode { epoch_rows: self.epoch_rows, shards: Some(self.shards), ..Mode::default() };
        let begun = Instant::now();
        let mut session = Session::start(binary, &mode).await?;
        let definitions = self.suite.definitions()?;
        definitions.build(&mut session).await?;
        let mut changes = Changes::new(self.seed, &definitions, &mut session).await?;
        let mut report = Report { views: definitions.views.len(), ..Report::default() };
        let mut seen = vec![false; definitions.views.len()];
        let mut history = Vec::new();
        for step in 1..=self.steps {
            let change = changes.next();
            let done = session.run(&change).await;
            done.or_else(Failure::keys_that_are_there).map_err(|e| format!("{change}\n{e}"))?;
            history.push(change);
            if step % self.restart_every == 0 {
                session.restart().await?;
                report.restarts += 1;
            }
            if step % self.verify_every == 0 || step == self.steps {
                for (view, seen) in definitions.views.iter().zip(&mut seen) {
                    let wrong = session.rows(&format!("VERIFY MATERIALIZED VIEW {view}")).await?;
                    if !wrong.is_empty() {
                        return Err(self.told(view, &wrong, &history));
                    }
                    *seen |= session.count(view).await? > 0;
                    report.verifications += 1;
                }
            }
        }
        for table in &definitions.tables {
            report.rows += session.count(&table.name).await?;
        }
        let empty =
            definitions.views.iter().zip(seen).filter(|(_, seen)| !seen).map(|(view, _)| view.clone());
        report.empty = empty.collect();
        report.took = begun.elapsed();
        Ok(report)
    }

    fn told(&self, view: &str, wrong: &[Vec<String>], history: &[String]) -> String {
        let rows: Vec<String> = wrong.iter().take(10).map(|row| row.join(" | ")).collect();
        format!(
            "{self:?}: {} rows of {view} are wrong:\n{}\nafter:\n{};",
            wrong.len(),
            rows.join("\n"),
            history.join(";\n")
        )
    }
}

/// A server and a connection to it.
pub(crate) struct Session {
    server: Server,
    client: tokio_postgres::Client,
}

/// What the server said of a statement.
#[derive(Debug)]
pub(crate) struct Failure {
    state: Option<String>,
    text: String,
}

impl Failure {
    /// A random row may have a key that is there already: then nothing has changed.
    fn keys_that_are_there(self) -> Result<Vec<Vec<String>>, Self> {
        match self.state.as_deref() {
            Some("23505") => Ok(Vec::new()),
            _ => Err(self),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.text
    }
}

impl Session {
    async fn start(binary: &Path, mode: &Mode) -> Result<Self, String> {
        let server = Server::start(binary, mode)?;
        let client = connect(&server).await?;
        Ok(Self { server, client })
    }

    async fn restart(&mut self) -> Result<(), String> {
        self.server.restart()?;
        self.client = connect(&self.server).await?;
        Ok(())
    }

    /// The rows of the last statement that gives some.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let limit = Duration::from_secs(STATEMENT_SECONDS_MAX);
        let answer = tokio::time::timeout(limit, self.client.simple_query(sql)).await;
        let stuck = || Failure { state: None, text: format!("no answer to {sql}") };
        let messages = answer.map_err(|_| stuck())?.map_err(|error| {
            let told = error.as_db_error();
            Failure {
                state: told.map(|e| e.code().code().to_owned()),
                text: told.map_or_else(|| error.to_string(), |e| format!("{}: {e}", e.code().code())),
            }
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        self.run(sql).await.map_err(|e| format!("{sql}\n{e}\n{}", self.server.log_tail()))
    }

    pub(crate) async fn count(&mut self, relation: &str) -> Result<i64, String> {
        let rows = self.rows(&format!("SELECT count(*) FROM {relation}")).await?;
        let count = rows.first().and_then(|row| row.first()).and_then(|count| count.parse().ok());
        count.ok_or_else(|| format!("{relation} has no count"))
    }
}

async fn connect(server: &Server) -> Result<tokio_postgres::Client, String> {
    let connected = tokio_postgres::connect(&server.config(), NoTls).await;
    let (client, connection) = connected.map_err(|e| format!("no connection: {e}"))?;
    tokio::spawn(connection); // ends with the client, or with the server
    let patient = format!("SET millpond.read_timeout = '{STATEMENT_SECONDS_MAX}s'");
    client.batch_execute(&patient).await.map_err(|e| format!("{patient}: {e}"))?;
    Ok(client)
}
