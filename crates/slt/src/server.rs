//! A millpond process with a data directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::file::Mode;

/// A server that does not say where it listens within this time will not.
const START_SECONDS_MAX: u64 = 60;

pub struct Server {
    binary: PathBuf,
    mode: Mode,
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
    /// How often it was started.
    generation: u64,
}

impl Server {
    /// Starts the binary on an empty data directory and a free port.
    ///
    /// # Errors
    /// A sentence with the end of the server's log.
    pub fn start(binary: &Path, mode: &Mode) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no folder for data: {e}"))?;
        let (process, port) = launch(binary, mode, folder.path())?;
        Ok(Self { binary: binary.to_owned(), mode: mode.clone(), folder, process, port, generation: 1 })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// `kill -9`, and a new start on the same data.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        (self.process, self.port) = launch(&self.binary, &self.mode, self.folder.path())?;
        self.generation += 1;
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // It may have died already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// For psql and drivers.
    pub fn config(&self) -> String {
        format!("host=127.0.0.1 port={} user=millpond dbname=millpond", self.port)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The last lines of what the server wrote to its log.
    pub fn log_tail(&self) -> String {
        log_tail(self.folder.path())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_tail(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn launch(binary: &Path, mode: &Mode, folder: &Path) -> Result<(Child, u16), String> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))
        .map_err(|e| format!("no log: {e}"))?;
    let mut command = Command::new(binary);
    command
        .args(["serve", "--pg-port", "0", "--http-addr", "off", "--log-level", "warn"])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .env_remove("MILLPOND_CONFIG")
        .env("MILLPOND_MOVABLE_CLOCK", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    if let Some(rows) = mode.epoch_rows {
        command.env("MILLPOND_EPOCH_ROWS", rows.to_string());
    }
    if let Some(shards) = mode.shards {
        command.args(["--shards", &shards.to_string()]);
    }
    command.envs(mode.environment.iter().map(|(name, value)| (name, value)));
    let mut process = command.spawn().map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
    let stdout = process.stdout.take().expect("it was asked for");
    match announced_port(stdout) {
        Ok(port) => Ok((process, port)),
        Err(why) => {
            let _ = process.kill();
            let _ = process.wait();
            Err(format!("the server did not start: {why}\n{}", log_tail(folder)))
        }
    }
}

/// Reads `listening on 127.0.0.1:PORT`; a thread keeps reading behind it, so that the pipe never fills.
fn announced_port(stdout: std::process::ChildStdout) -> Result<u16, String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let address = line.strip_prefix("listening on ");
            if let Some(port) = address.and_then(|a| a.rsplit(':').next()).and_then(|p| p.trim().parse().ok())
            {
                // Only the first is waited for.
                let _ = sender.send(port);
            }
        }
    });
    let waited = receiver.recv_timeout(Duration::from_secs(START_SECONDS_MAX));
    waited.map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => format!("no word for {START_SECONDS_MAX} s"),
        mpsc::RecvTimeoutError::Disconnected => "it ended at once".to_owned(),
    })
}
