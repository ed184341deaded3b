//! `millpond log` on what a real server has written, and two servers on one data directory.

use std::path::Path;
use std::process::{Command, Output};

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;

use crate::{Outcome, block_on, connect, ensure, told};

fn millpond(data: &Path, arguments: &[&str]) -> Result<Output, String> {
    let mut command = Command::new(binary()?);
    command.args(arguments).arg("--data-dir").arg(data).env_remove("MILLPOND_CONFIG");
    command.output().map_err(|e| e.to_string())
}

/// What a command that works prints.
fn printed(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = millpond(data, arguments)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure(output.status.success(), || format!("{arguments:?}: {out}{err}"))?;
    Ok(out.into_owned())
}

/// What a command that fails says.
fn refused(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = millpond(data, arguments)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure(!output.status.success(), || format!("{arguments:?} works: {out}"))?;
    Ok(format!("{out}{err}"))
}

fn has(text: &str, parts: &[&str]) -> Outcome {
    match parts.iter().find(|part| !text.contains(**part)) {
        Some(part) => Err(format!("\"{part}\" is not in:\n{text}")),
        None => Ok(()),
    }
}

/// A table's and a source's rows that became segments are listed, shown, verified, and given up when asked.
pub fn segments_are_listed_and_verified() -> Outcome {
    let environment = vec![("MILLPOND_JOURNAL_FILE_SIZE".to_owned(), "64kB".to_owned())];
    let mut server = Server::start(&binary()?, &Mode { environment, ..Mode::default() })?;
    let data = server.data();
    block_on(async {
        let client = connect(&server.config()).await?;
        client.batch_execute("CREATE SOURCE event (id bigint, text text)").await.map_err(told)?;
        for round in 0..20 {
            let (from, to) = (round * 500, round * 500 + 499);
            let sql = format!(
                "INSERT INTO event SELECT n, 'text ' || n FROM generate_series({from}, {to}) AS g(n)"
            );
            client.batch_execute(&sql).await.map_err(told)?;
        }
        crate::cold::until(&client, "SELECT sum(segments) > 1 FROM millpond.partitions").await
    })?;
    server.kill();
    has(&printed(&data, &["log", "ls"])?, &[".parquet", "sound", "event", "0: 0 to 10000"])?;
    has(
        &printed(&data, &["log", "inspect", "--from", "3", "--to", "3"])?,
        &["commit 3, 20", "500 rows from offset 500", "from row 500 of"],
    )?;
    has(&printed(&data, &["log", "verify"])?, &["commits in", "every checksum matches"])?;
    let folder = data.join("journal/segments");
    let mut segments: Vec<_> = std::fs::read_dir(&folder)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect();
    segments.sort();
    let victim = segments.first().ok_or("there is no segment")?;
    let mut bytes = std::fs::read(victim).map_err(|e| e.to_string())?;
    bytes[50] ^= 1;
    std::fs::write(victim, &bytes).map_err(|e| e.to_string())?;
    has(&refused(&data, &["log", "verify"])?, &["is damaged at offset", "rows of segments cannot be read"])?;
    has(&printed(&data, &["log", "repair"])?, &["rows of segments, were given up", "*.damaged"])?;
    has(&printed(&data, &["log", "verify"])?, &["every checksum matches"])?;
    server.restart()?;
    block_on(async {
        let client = connect(&server.config()).await?;
        let row = client.query_one("SELECT count(*), max(id) FROM event", &[]).await.map_err(told)?;
        let (count, newest): (i64, i64) = (row.get(0), row.get(1));
        ensure(0 < count && count < 10_000 && newest == 9_999, || format!("{count} rows up to {newest}"))
    })
}

pub fn damage_is_named_and_given_up_only_when_asked() -> Outcome {
    let mut server = Server::start(&binary()?, &Mode::default())?;
    let data = server.data();
    block_on(async {
        let client = connect(&server.config()).await?;
        client.batch_execute("CREATE SOURCE event (id bigint, text text)").await.map_err(told)?;
        for id in 1..=3 {
            let sql = format!(
                "INSERT INTO event SELECT n, 'text ' || n FROM generate_series({id}, {}) AS g(n)",
                id + 99
            );
            client.batch_execute(&sql).await.map_err(told)?;
        }
        Ok::<_, String>(())
    })?;
    // Somebody else has it.
    has(&refused(&data, &["log", "ls"])?, &["is in use by a running server"])?;
    let second = refused(&data, &["serve", "--pg-port", "0", "--http-addr", "off"])?;
    has(&second, &["is in use by another process", "Stop the other server"])?;
    server.kill();

    has(&printed(&data, &["log", "ls"])?, &["00000000000000000001.log", "1 to 4", "event", "0: 0 to 300"])?;
    let inspected = printed(&data, &["log", "inspect", "--from", "3", "--to", "3"])?;
    has(&inspected, &["commit 3, 20", "100 rows from offset 100", "crc"])?;
    ensure(!inspected.contains("commit 2,"), || inspected.clone())?;
    has(&printed(&data, &["log", "verify"])?, &["4 commits in", "every checksum matches"])?;
    has(&printed(&data, &["log", "repair"])?, &["nothing is damaged"])?;

    // One bit of the second insert.
    let file = data.join("journal/00000000000000000001.log");
    let mut bytes = std::fs::read(&file).map_err(|e| e.to_string())?;
    let at = bytes.windows(8).position(|bytes| bytes == b"text 101").ok_or("the rows are not in the file")?;
    bytes[at + 3] ^= 1;
    std::fs::write(&file, &bytes).map_err(|e| e.to_string())?;
    let verified = refused(&data, &["log", "verify"])?;
    has(&verified, &["offsets 100 to 199, commit 3", "1 commits cannot be read", "log repair"])?;
    let served = refused(&data, &["serve", "--pg-port", "0", "--http-addr", "off"])?;
    has(&served, &["is damaged at offset", "commit 3", "log verify", "log repair"])?;
    has(&printed(&data, &["log", "repair"])?, &["1 commits were given up"])?;
    has(&printed(&data, &["log", "ls"])?, &["repaired"])?;
    server.restart()?;
    block_on(async {
        let client = connect(&server.config()).await?;
        let row = client.query_one("SELECT count(*), count(DISTINCT id), max(id) FROM event", &[]).await;
        let row = row.map_err(told)?;
        let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        ensure(found == (200, 102, 102), || format!("{found:?}"))?;
        client.batch_execute("INSERT INTO event VALUES (7, 'again')").await.map_err(told)
    })
}
