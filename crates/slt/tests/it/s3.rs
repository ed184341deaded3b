//! Checkpoints in a bucket: moto speaks S3 on loopback.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;

use crate::{Outcome, block_on, connect, ensure, told};

const START_SECONDS_MAX: u64 = 60;
const BUCKET: &str = "ponds";

/// An S3 server of its own, which forgets everything when it ends.
struct S3 {
    process: Child,
    port: u16,
    /// Its log of requests.
    log: tempfile::NamedTempFile,
}

impl S3 {
    /// Starts it with an empty bucket.
    fn start() -> Result<Self, String> {
        // A port that was free a moment ago: moto cannot say which one it chose itself.
        let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let port = free.local_addr().map_err(|e| e.to_string())?.port();
        drop(free);
        let log = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
        let process = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().map_err(|e| e.to_string())?)
            .spawn()
            .map_err(|e| format!("moto_server: {e}: pip install 'moto[server]'"))?;
        let s3 = Self { process, port, log };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure(begun.elapsed() < Duration::from_secs(START_SECONDS_MAX), || {
                "moto does not listen".to_owned()
            })?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let answer = s3.request("PUT", &format!("/{BUCKET}"))?;
        ensure(answer.starts_with("HTTP/1.1 200"), || format!("no bucket: {answer}"))?;
        Ok(s3)
    }

    fn request(&self, method: &str, path: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        stream.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Keys under a prefix.
    fn keys(&self, prefix: &str) -> Result<Vec<String>, String> {
        let answer = self.request("GET", &format!("/{BUCKET}?list-type=2&prefix={prefix}"))?;
        let keys = answer.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        Ok(keys.map(str::to_owned).collect())
    }

    /// How many objects under a prefix were read so far.
    fn reads(&self, prefix: &str) -> Result<usize, String> {
        let log = std::fs::read_to_string(self.log.path()).map_err(|e| e.to_string())?;
        let wanted = format!("GET /{BUCKET}/{prefix}");
        Ok(log.lines().filter(|line| line.contains(&wanted)).count())
    }

    fn mode(&self) -> Mode {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let pairs = [
            ("MILLPOND_OBJECT_STORE", "s3://ponds/one/pond"),
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ];
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Mode { environment, ..Mode::default() }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have died already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Checkpoints go to the bucket and come back after `kill -9`; while the bucket cannot be reached CHECKPOINT says so, and
/// writes and reads go on.
pub fn checkpoints_survive_in_a_bucket() -> Outcome {
    let s3 = S3::start()?;
    let mut server = Server::start(&binary()?, &s3.mode())?;
    let view = "SELECT k, c::text, s::text FROM per_k ORDER BY k";
    let expected: Vec<(i64, String, String)> = (0..7)
        .map(|k| (k, "100".to_owned(), ((0..100).map(|n| 7 * n + k).sum::<i64>()).to_string()))
        .collect();
    let found = async |config: &str| {
        let rows = connect(config).await?.query(view, &[]).await.map_err(told)?;
        Ok::<_, String>(
            rows.iter()
                .map(|row| (row.get(0), row.get(1), row.get(2)))
                .collect::<Vec<(i64, String, String)>>(),
        )
    };
    block_on(async {
        let client = connect(&server.config()).await?;
        let sql = "CREATE TABLE n (n bigint PRIMARY KEY);
                   CREATE MATERIALIZED VIEW per_k AS SELECT n % 7 AS k, count(*) AS c, sum(n) AS s FROM n GROUP BY n % 7;
                   INSERT INTO n SELECT * FROM generate_series(0, 698); CHECKPOINT; INSERT INTO n VALUES (699)";
        for statement in sql.split("; ") {
            client.batch_execute(statement).await.map_err(told)?;
        }
        Ok::<_, String>(())
    })?;
    let manifests = s3.keys("one/pond/manifest/")?;
    ensure(!manifests.is_empty(), || "no manifest is in the bucket".to_owned())?;
    ensure(!server.data().join("objects").exists(), || {
        "there is a local folder of objects as well".to_owned()
    })?;
    // The local log alone would give the same rows, so the bucket is asked who read what.
    let before = s3.reads("one/pond/")?;
    server.restart()?;
    let rows = block_on(found(&server.config()))?;
    ensure(rows == expected, || format!("after kill -9: {rows:?}"))?;
    let after = s3.reads("one/pond/")?;
    ensure(after > before, || format!("the restart read nothing of the bucket ({before} reads before it)"))?;

    drop(s3);
    block_on(async {
        let client = connect(&server.config()).await?;
        client
            .batch_execute("INSERT INTO n VALUES (700); SET statement_timeout = '60s'")
            .await
            .map_err(told)?;
        let error = client.batch_execute("CHECKPOINT").await.map_err(told).err().unwrap_or_default();
        ensure(error.starts_with("58030"), || format!("CHECKPOINT without a bucket: {error:?}"))?;
        client.batch_execute("DELETE FROM n WHERE n = 700").await.map_err(told)
    })?;
    let rows = block_on(found(&server.config()))?;
    ensure(rows == expected, || format!("without the bucket: {rows:?}"))
}
