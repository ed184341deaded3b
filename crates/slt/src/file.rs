//! Files of `sql-tests/`, and the ways to run them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sqllogictest::Runner;

use crate::client::Client;
use crate::server::Server;

/// How a file is run. The answers may not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Most rows in one step of the dataflow.
    pub epoch_rows: Option<usize>,
    pub shards: Option<usize>,
    /// A crash after each statement outside of a transaction block.
    pub restart_each: bool,
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    /// Relative to the folder that was searched: `tumble/late.slt`.
    pub name: String,
}

/// A comment line that asks for a run with `--restart-each` in the test suite; files that live by session state lack it.
const RESTART_MARK: &str = "# runs: restart-each";

impl File {
    /// The file asks to be run with a crash after each statement.
    pub fn wants_restarts(&self) -> bool {
        std::fs::read_to_string(&self.path)
            .is_ok_and(|text| text.lines().any(|line| line.trim() == RESTART_MARK))
    }

    /// Runs the file on a server of its own.
    ///
    /// # Errors
    /// The first record that answers differently, with its place and the end of the server's log.
    pub fn run(&self, binary: &Path, mode: &Mode) -> Result<(), String> {
        let server = Arc::new(Mutex::new(Server::start(binary, mode)?));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
        let shared = Arc::clone(&server);
        let restart_each = mode.restart_each;
        let outcome = runtime.block_on(async {
            let mut runner = Runner::new(move || {
                let client = Client::new(Arc::clone(&shared), restart_each);
                async move { Ok(client) }
            });
            runner.add_label("millpond");
            let outcome = runner.run_file_async(&self.path).await;
            runner.shutdown_async().await;
            outcome
        });
        outcome.map_err(|error| {
            let log = server.lock().map(|server| server.log_tail()).unwrap_or_default();
            let log = if log.is_empty() { log } else { format!("\nthe server's log ends with:\n{log}") };
            format!("{}{log}", error.display(false))
        })
    }
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
