//! Flags, environment variables and the configuration file.
//!
//! A value comes from the flag, else from its `MILLPOND_*` variable, else from the TOML file named by `--config`, else from
//! the default.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

/// Millpond: a streaming database. Speaks the PostgreSQL protocol; keeps materialized views exactly up to date.
#[derive(Parser, Debug)]
#[command(name = "millpond", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Serve clients (this is also what `millpond` alone does)
    Serve,
    /// Start a server with a generated auction stream and three live views, and show them in this terminal
    Demo(DemoOptions),
    /// Look at the journal of a data directory while no server uses it, and repair it
    #[command(subcommand)]
    Log(crate::log::LogCommand),
}

#[derive(Args, Debug, Clone)]
pub struct DemoOptions {
    /// Events per second to generate; 0 is as fast as possible
    #[arg(long, default_value_t = 50_000)]
    pub rate: u64,
    /// Stop after this many seconds instead of at Ctrl-C
    #[arg(long)]
    pub seconds: Option<u64>,
}

/// What the flags say; all optional, so that the file can supply the rest.
#[derive(Args, Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Options {
    /// TOML file with any of these options, spelled as the flags are without the dashes in front
    #[arg(long, global = true, env = "MILLPOND_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Folder of the log and, by default, of the checkpoints [default: ./millpond-data]
    #[arg(long, global = true, env = "MILLPOND_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the PostgreSQL protocol is served [default: 127.0.0.1:5433]
    #[arg(long, global = true, env = "MILLPOND_PG_ADDR")]
    pg_addr: Option<SocketAddr>,
    /// Port of the PostgreSQL protocol; 0 lets the system choose, and the log line says which
    #[arg(long, global = true, env = "MILLPOND_PG_PORT")]
    pg_port: Option<u16>,
    /// Where health and metrics are served over HTTP [default: 127.0.0.1:5434; "off" for none]
    #[arg(long, global = true, env = "MILLPOND_HTTP_ADDR")]
    http_addr: Option<String>,
    /// Where checkpoints go: a folder, or a URL such as s3://bucket/prefix [default: DATA_DIR/objects]
    #[arg(long, global = true, env = "MILLPOND_OBJECT_STORE")]
    object_store: Option<String>,
    /// Memory for queries and state, such as 8GB [default: 70% of the machine]
    #[arg(long, global = true, env = "MILLPOND_MEMORY_LIMIT")]
    memory_limit: Option<String>,
    /// Worker shards of the dataflow [default: the number of cores]
    #[arg(long, global = true, env = "MILLPOND_SHARDS")]
    shards: Option<usize>,
    /// The most that one transaction writes, such as 4GB [default: 1GB]
    #[arg(long, global = true, env = "MILLPOND_MAX_TRANSACTION_BYTES")]
    max_transaction_bytes: Option<String>,
    /// Seconds between checkpoints [default: 10]
    #[arg(long, global = true, env = "MILLPOND_CHECKPOINT_INTERVAL")]
    checkpoint_interval: Option<f64>,
    /// Seconds after which rows become segments of the object store, where others can read them [default: 600]
    #[arg(long, global = true, env = "MILLPOND_SEAL_INTERVAL")]
    seal_interval: Option<f64>,
    /// Hours that uploaded segments stay on the local disk, too; "forever" [default: 24]
    #[arg(long, global = true, env = "MILLPOND_LOCAL_RETENTION")]
    local_retention: Option<String>,
    /// Size at which a journal file is ended and can become segments, such as 64MB [default: 256MB]
    #[arg(long, global = true, env = "MILLPOND_JOURNAL_FILE_SIZE")]
    journal_file_size: Option<String>,
    /// Most rows that one step of the dataflow takes; results never depend on it [default: 65536]
    #[arg(long, global = true, env = "MILLPOND_EPOCH_ROWS")]
    epoch_rows: Option<usize>,
    /// Milliseconds that one view keeps the others waiting in an epoch, before it follows them alone [default: 100]
    #[arg(long, global = true, env = "MILLPOND_EPOCH_BUDGET")]
    epoch_budget: Option<f64>,
    /// Let ALTER SYSTEM ADVANCE CLOCK move now() of views ahead: for tests
    #[arg(long, global = true, hide = true, env = "MILLPOND_MOVABLE_CLOCK", num_args = 0..=1, default_missing_value = "true")]
    movable_clock: Option<bool>,
    /// Most connections at a time [default: 200]
    #[arg(long, global = true, env = "MILLPOND_MAX_CONNECTIONS")]
    max_connections: Option<usize>,
    /// Listen on addresses that other machines can reach, although this version checks no passwords
    #[arg(long, global = true, env = "MILLPOND_INSECURE_LISTEN", num_args = 0..=1, default_missing_value = "true")]
    insecure_listen: Option<bool>,
    /// error, warn, info, debug or trace, also per module (info,millpond_log=debug) [default: info]
    #[arg(long, global = true, env = "MILLPOND_LOG_LEVEL")]
    log_level: Option<String>,
}

/// What is in force.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub pg_addr: SocketAddr,
    pub http_addr: Option<SocketAddr>,
    pub object_store: Option<String>,
    pub memory_limit: usize,
    pub shards: usize,
    pub max_transaction_bytes: usize,
    pub checkpoint_interval: std::time::Duration,
    pub seal_interval: std::time::Duration,
    pub local_retention: Option<std::time::Duration>,
    pub journal_file_bytes: u64,
    pub epoch_rows: usize,
    pub epoch_budget: std::time::Duration,
    pub movable_clock: bool,
    pub max_connections: usize,
    pub insecure_listen: bool,
    pub log_level: String,
    /// Whether the folder was named, or is the default.
    pub data_dir_given: bool,
}

impl Arguments {
    /// # Errors
    /// A sentence about the option that is wrong.
    pub fn resolve(self) -> Result<(Command, Settings), String> {
        let file = match &self.options.config {
            Some(path) => read_file(path)?,
            None => Options::default(),
        };
        let flags = self.options;
        macro_rules! pick {
            ($field:ident) => {
                flags.$field.or(file.$field)
            };
        }
        let mut pg_addr = pick!(pg_addr).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5433)));
        if let Some(port) = pick!(pg_port) {
            pg_addr.set_port(port);
        }
        let http_addr = match pick!(http_addr).as_deref() {
            Some("off") => None,
            Some(text) => {
                Some(text.parse().map_err(|_| format!("--http-addr {text}: expected HOST:PORT or off"))?)
            }
            None => Some(SocketAddr::from(([127, 0, 0, 1], 5434))),
        };
        let memory_limit = match pick!(memory_limit) {
            Some(text) => {
                bytes(&text).ok_or_else(|| format!("--memory-limit {text}: expected a size such as 8GB"))?
            }
            None => machine_memory() / 10 * 7,
        };
        let max_transaction_bytes = match pick!(max_transaction_bytes) {
            Some(text) => bytes(&text)
                .ok_or_else(|| format!("--max-transaction-bytes {text}: expected a size such as 4GB"))?,
            None => 1 << 30,
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shards = pick!(shards).unwrap_or(cores);
        if !(1..=256).contains(&shards) {
            return Err(format!("--shards {shards}: expected 1 to 256"));
        }
        let seconds = pick!(checkpoint_interval).unwrap_or(10.0);
        if !(0.01..=86_400.0).contains(&seconds) {
            return Err(format!("--checkpoint-interval {seconds}: expected 0.01 to 86400 seconds"));
        }
        let seal_interval = pick!(seal_interval).unwrap_or(600.0);
        if !(0.1..=86_400.0).contains(&seal_interval) {
            return Err(format!("--seal-interval {seal_interval}: expected 0.1 to 86400 seconds"));
        }
        let local_retention = match pick!(local_retention).as_deref() {
            Some("forever") => None,
            Some(text) => match text.parse::<f64>() {
                Ok(hours) if (0.0..=1e6).contains(&hours) => {
                    Some(std::time::Duration::from_secs_f64(hours * 3600.0))
                }
                _ => return Err(format!("--local-retention {text}: expected hours, or forever")),
            },
            None => Some(std::time::Duration::from_secs(86_400)),
        };
        let journal_file_bytes = match pick!(journal_file_size) {
            Some(text) => match bytes(&text) {
                Some(size) if size >= 1 << 16 => size as u64,
                _ => return Err(format!("--journal-file-size {text}: expected a size of at least 64kB")),
            },
            None => 256 << 20,
        };
        let epoch_rows = pick!(epoch_rows).unwrap_or(65_536);
        if epoch_rows == 0 {
            return Err("--epoch-rows 0: expected at least 1".to_owned());
        }
        let budget = pick!(epoch_budget).unwrap_or(100.0);
        if !(0.0..=3_600_000.0).contains(&budget) {
            return Err(format!("--epoch-budget {budget}: expected milliseconds, at most an hour"));
        }
        let data_dir = pick!(data_dir);
        let settings = Settings {
            data_dir_given: data_dir.is_some(),
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("./millpond-data")),
            pg_addr,
            http_addr,
            object_store: pick!(object_store),
            memory_limit,
            shards,
            max_transaction_bytes,
            checkpoint_interval: std::time::Duration::from_secs_f64(seconds),
            seal_interval: std::time::Duration::from_secs_f64(seal_interval),
            local_retention,
            journal_file_bytes,
            epoch_rows,
            epoch_budget: std::time::Duration::from_secs_f64(budget / 1000.0),
            movable_clock: pick!(movable_clock).unwrap_or(false),
            max_connections: pick!(max_connections).unwrap_or(200),
            insecure_listen: pick!(insecure_listen).unwrap_or(false),
            log_level: pick!(log_level).unwrap_or_else(|| "info".to_owned()),
        };
        Ok((self.command.unwrap_or(Command::Serve), settings))
    }
}

#[allow(clippy::disallowed_methods, reason = "the configuration is read before there is an env")]
fn read_file(path: &PathBuf) -> Result<Options, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("--config {}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("--config {}: {e}", path.display()))
}

/// A size with an optional unit, binary as PostgreSQL's are.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..split].parse().ok()?;
    let shift = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" | "k" => 10,
        "mb" | "m" => 20,
        "gb" | "g" => 30,
        "tb" | "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The machine's memory, or a cautious 4 GiB where it cannot be read.
#[allow(clippy::disallowed_methods, reason = "the configuration is read before there is an env")]
fn machine_memory() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.trim().strip_suffix("kB")).and_then(|t| t.trim().parse::<usize>().ok());
    kib.map_or(4 << 30, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str]) -> Result<(Command, Settings), String> {
        Arguments::try_parse_from(arguments).map_err(|e| e.to_string())?.resolve()
    }

    #[test]
    fn flags_have_units_and_limits() {
        let (_, s) = resolve(&["millpond", "--memory-limit", "2GB", "--pg-port", "0", "serve"]).unwrap();
        assert_eq!(s.memory_limit, 2 << 30);
        assert_eq!(s.pg_addr.port(), 0);
        assert!(resolve(&["millpond", "--memory-limit", "2XB"]).unwrap_err().contains("expected a size"));
        let (_, s) = resolve(&["millpond", "--max-transaction-bytes", "4MB", "serve"]).unwrap();
        assert_eq!(s.max_transaction_bytes, 4 << 20);
        assert!(resolve(&["millpond", "--shards", "0"]).unwrap_err().contains("expected 1 to 256"));
        assert!(resolve(&["millpond", "--http-addr", "nonsense"]).unwrap_err().contains("HOST:PORT"));
        assert!(resolve(&["millpond", "--http-addr", "off"]).unwrap().1.http_addr.is_none());
    }

    #[test]
    fn flags_go_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("millpond.toml");
        #[allow(clippy::disallowed_methods, reason = "a test writes its input")]
        std::fs::write(&path, "shards = 3\nepoch-rows = 7\n").unwrap();
        let path = path.to_str().unwrap();
        let (_, s) = resolve(&["millpond", "--config", path, "--shards", "2"]).unwrap();
        assert_eq!((s.shards, s.epoch_rows), (2, 7));
        #[allow(clippy::disallowed_methods, reason = "a test writes its input")]
        std::fs::write(folder.path().join("bad.toml"), "shard = 3\n").unwrap();
        let bad = folder.path().join("bad.toml");
        assert!(
            resolve(&["millpond", "--config", bad.to_str().unwrap()]).unwrap_err().contains("unknown field")
        );
    }
}
