//! Files of `sql-tests/`, and the ways to run them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sqllogictest::{AsyncDB, DBOutput, Runner};

use crate::client::{Client, Target};
use crate::server::Server;

/// How a file is run. The answers may not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Most rows in one step of the dataflow.
    pub epoch_rows: Option<usize>,
    pub shards: Option<usize>,
    /// A crash after every so many statements, outside of transaction blocks.
    pub restart_every: Option<u32>,
    /// Also the records that say `skipif gap`: what is specified, and not done yet.
    pub gaps: bool,
    /// More of the server's environment: an object store and its keys, for example.
    pub environment: Vec<(String, String)>,
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    /// Relative to the folder that was searched: `tumble/late.slt`.
    pub name: String,
}

/// A comment line that asks for a run with `--restart-each` in the test suite; files that live by session state lack it. Long
/// files say `restart-each/12`: then it is after every 12 statements there.
const RESTART_MARK: &str = "# runs: restart-each";

impl File {
    /// The file asks to be run with crashes: in the test suite after every so many statements.
    pub fn wants_restarts(&self) -> Option<u32> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        text.lines().find_map(|line| match line.trim().strip_prefix(RESTART_MARK)? {
            "" => Some(1),
            every => every.strip_prefix('/')?.parse().ok(),
        })
    }

    /// Runs the file on a server of its own.
    ///
    /// # Errors
    /// The first record that answers differently, with its place and the end of the server's log.
    pub fn run(&self, binary: &Path, mode: &Mode) -> Result<(), String> {
        let server = Arc::new(Mutex::new(Server::start(binary, mode)?));
        let target = Target::Own { server: Arc::clone(&server), restart_every: mode.restart_every };
        let labels: &[&str] = if mode.gaps { &["millpond"] } else { &["millpond", "gap"] };
        let outcome = self.run_on(target.clone(), labels).and_then(|()| verify_views(target));
        outcome.map_err(|why| {
            let log = server.lock().map(|server| server.log_tail()).unwrap_or_default();
            if log.is_empty() { why } else { format!("{why}\nthe server's log ends with:\n{log}") }
        })
    }

    /// Runs the file in a new database of a PostgreSQL server, without the records that say `skipif real_postgresql`: are
    /// the expected values PostgreSQL's own?
    ///
    /// # Errors
    /// As [`File::run`].
    pub fn run_on_postgresql(&self, config: &str) -> Result<(), String> {
        let database = format!("slt_{}", self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let create = format!("DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}");
        for statement in create.split("; ") {
            block_on(async {
                Client::new(Target::Other(config.to_owned())).run(statement).await.map(|_| ())
            })?
            .map_err(|e| e.to_string())?;
        }
        self.run_on(Target::Other(format!("{config} dbname={database}")), &["real_postgresql"])
    }

    fn run_on(&self, target: Target, labels: &[&str]) -> Result<(), String> {
        block_on(async {
            let mut runner = Runner::new(move || {
                let client = Client::new(target.clone());
                async move { Ok(client) }
            });
            for label in labels {
                runner.add_label(label);
            }
            let records = sqllogictest::parse_file(&self.path).map_err(|e| e.to_string())?;
            // Every record, for a reader wants all that differs; what depends on a failed one differs too.
            let mut differs = Vec::new();
            for record in records {
                if let Err(error) = runner.run_async(record).await {
                    differs.push(error.display(false).to_string());
                }
            }
            runner.shutdown_async().await;
            if differs.is_empty() { Ok(()) } else { Err(differs.join("\n\n")) }
        })?
    }
}

/// Every view that the file left behind equals its query run as a batch; where rows are in error, the batch would fail.
fn verify_views(target: Target) -> Result<(), String> {
    let rows = |output| match output {
        DBOutput::Rows { rows, .. } => rows,
        _ => Vec::new(),
    };
    block_on(async {
        let mut client = Client::new(target);
        let query =
            "SELECT quote_ident(schema) || '.' || quote_ident(name) FROM millpond.views WHERE error_rows = 0";
        for view in rows(client.run(query).await.map_err(|e| e.to_string())?).into_iter().flatten() {
            let verified = client.run(&format!("VERIFY MATERIALIZED VIEW {view}")).await;
            let differs = rows(verified.map_err(|e| format!("VERIFY of {view}: {e}"))?);
            if !differs.is_empty() {
                return Err(format!("{view} differs from its query run as a batch: {differs:?}"));
            }
        }
        Ok(())
    })?
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Ok(runtime.map_err(|e| format!("no runtime: {e}"))?.block_on(work))
}

/// The `.slt` files under a path, or the one that it names, by name.
///
/// # Errors
/// When the path cannot be read.
pub fn find(path: &Path) -> Result<Vec<File>, String> {
    let root = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let mut files = Vec::new();
    collect(path, root, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn collect(path: &Path, root: &Path, files: &mut Vec<File>) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("{}: {e}", path.display());
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            collect(&entry.map_err(unreadable)?.path(), root, files)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "slt") {
        std::fs::metadata(path).map_err(unreadable)?;
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        files.push(File { path: path.to_owned(), name });
    }
    Ok(())
}

/// The millpond binary that belongs to this build: `MILLPOND_BIN`, else beside the running program.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("MILLPOND_BIN") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    // target/debug/millpond-slt, or target/debug/deps/it-0123456789abcdef
    let beside = program.ancestors().skip(1).take(2).map(|folder| folder.join("millpond"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| "the millpond binary is not built: cargo build --workspace --bins".to_owned())
}

/// `sql-tests/` of this repository.
pub fn sql_tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql-tests")
}
