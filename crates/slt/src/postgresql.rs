//! A PostgreSQL server of a test's own: an empty cluster in a folder that goes with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that does not answer within this time will not.
const START_SECONDS_MAX: u64 = 60;

pub struct PostgreSql {
    folder: tempfile::TempDir,
    process: Child,
}

impl PostgreSql {
    /// Makes a cluster with `initdb --locale=C` and starts it, on a socket in its folder.
    ///
    /// # Errors
    /// A sentence that says what is missing or went wrong.
    pub fn start() -> Result<Self, String> {
        let programs =
            programs().ok_or("PostgreSQL's server is not installed: apt-get install postgresql")?;
        let folder = tempfile::tempdir().map_err(|e| format!("no folder for PostgreSQL: {e}"))?;
        let root = is_root();
        if root {
            // PostgreSQL refuses to run as root; its package makes a user.
            complete(Command::new("chown").arg("postgres").arg(folder.path()))?;
        }
        let data = folder.path().join("data");
        let as_postgres = |program: &str| {
            let program = programs.join(program);
            if !root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        };
        complete(
            as_postgres("initdb")
                .args([
                    "--lc-collate=C",
                    "--lc-ctype=C.UTF-8",
                    "--encoding=UTF8",
                    "--auth=trust",
                    "--username=postgres",
                    "--no-sync",
                    "-D",
                ])
                .arg(&data)
                .current_dir("/"),
        )?;
        let process = as_postgres("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "timezone=UTC", "-c", "fsync=off"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start PostgreSQL: {e}"))?;
        let server = Self { folder, process };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    fn wait_until_it_answers(&self) -> Result<(), String> {
        let start = Instant::now();
        let state = self.folder.path().join("data/postmaster.pid");
        // The eighth line says how far the server is.
        let ready = || {
            std::fs::read_to_string(&state).is_ok_and(|s| s.lines().nth(7).map(str::trim) == Some("ready"))
        };
        while !ready() {
            if start.elapsed() > Duration::from_secs(START_SECONDS_MAX) {
                return Err(format!("PostgreSQL is not ready within {START_SECONDS_MAX} s"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// For psql and drivers.
    pub fn config(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.path().display())
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        // Immediate shutdown: its children go with it, and nobody wants its data. It may have died already.
        let _ = Command::new("kill").arg("-QUIT").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// The folder of PostgreSQL's server programs: that of `initdb` on PATH, or Debian's newest.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    on_path.or_else(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let number = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
        versions
            .map(|entry| entry.path())
            .filter(|folder| folder.join("bin/initdb").is_file())
            .max_by_key(number)
            .map(|folder| folder.join("bin"))
    })
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn complete(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{:?} failed: {}",
            command.get_program(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
