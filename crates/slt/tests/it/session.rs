//! The README's session, in psql itself.

use std::process::Command;

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;

use crate::{Outcome, ensure};

/// Runs psql with a script; returns what it printed, errors among it.
fn psql(server: &Server, script: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    std::fs::write(folder.path().join("script.sql"), script).map_err(|e| e.to_string())?;
    let csv = "1,10,100,web,u,2024-01-01 12:00:05\n1,11,250,app,u,2024-01-01 12:00:40\n2,10,80,web,u,2024-01-01 12:01:10\n";
    std::fs::write(folder.path().join("bids.csv"), csv).map_err(|e| e.to_string())?;
    let bad = "1,10,100,web,u,2024-01-01 12:00:05\n1,eleven,250,app,u,2024-01-01 12:00:40\n";
    std::fs::write(folder.path().join("bad.csv"), bad).map_err(|e| e.to_string())?;
    let output = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "millpond", "-d", "millpond", "-p"])
        .arg(server.port().to_string())
        .args(["-f", "script.sql"])
        .current_dir(folder.path())
        .output()
        .map_err(|e| format!("psql: {e}: install postgresql-client"))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

const DDL: &str = "
    CREATE SOURCE bid (auction bigint, bidder bigint, price bigint, channel text, url text, ts timestamp,
                       WATERMARK FOR ts AS ts - INTERVAL '4 seconds');
    CREATE MATERIALIZED VIEW per_minute AS
      SELECT window_start, auction, count(*) AS bids, sum(price) AS total, max(price) AS top
      FROM TUMBLE(bid, ts, INTERVAL '1 minute') GROUP BY window_start, auction;";

pub fn the_main_job_in_psql() -> Outcome {
    let mut server = Server::start(&binary()?, &Mode::default())?;
    let asked = "SELECT * FROM per_minute ORDER BY total DESC LIMIT 10;\n";
    let script = format!("{DDL}\n\\copy bid FROM 'bids.csv' CSV\n{asked}");
    let expected = "2024-01-01 12:00:00|1|2|350|250\n2024-01-01 12:01:00|2|1|80|80\n";
    let found = psql(&server, &script)?;
    ensure(found == expected, || format!("{found}\nis not\n{expected}"))?;
    server.restart()?;
    let found = psql(&server, asked)?;
    ensure(found == expected, || format!("after kill -9: {found}\nis not\n{expected}"))?;
    let listed = psql(&server, "\\d\n\\dt\n\\dm\n\\d per_minute\n\\d bid\n")?;
    ensure(!listed.contains("ERROR"), || listed.clone())?;
    let names = ["bid", "per_minute", "materialized view", "timestamp without time zone", "window_start"];
    ensure(names.iter().all(|name| listed.contains(name)), || listed.clone())
}

/// COPY takes the rows' partitions along, and columns that were added since the file was written.
pub fn copy_says_where_rows_go() -> Outcome {
    let server = Server::start(&binary()?, &Mode::default())?;
    let script = "
        CREATE SOURCE s (a int, b text) WITH (partitions = 3);
        ALTER SOURCE s ADD COLUMN c int DEFAULT 7;
        COPY s (b, _partition, a) FROM STDIN;
x\t2\t1
y\t0\t2
z\t2\t3
\\.
        SELECT a, b, c, _partition, _offset FROM s ORDER BY a;
        COPY s (a, _partition) FROM STDIN;
4\t9
\\.
        COPY (SELECT count(*), count(_partition) FROM s) TO STDOUT;\n";
    let found = psql(&server, script)?;
    let told = ["1|x|7|2|0\n2|y|7|0|0\n3|z|7|2|1\n", "source s has no partition 9", "3\t3\n"];
    ensure(told.iter().all(|part| found.contains(part)), || found.clone())
}

/// A COPY fails as a whole, and names the line and the column.
pub fn a_bad_line_of_csv_is_named() -> Outcome {
    let server = Server::start(&binary()?, &Mode::default())?;
    let script =
        format!("{DDL}\n\\set VERBOSITY verbose\n\\copy bid FROM 'bad.csv' CSV\nSELECT count(*) FROM bid;\n");
    let found = psql(&server, &script)?;
    let told = ["22P02", "invalid input syntax for type bigint: \"eleven\"", "line 2"];
    ensure(told.iter().all(|part| found.contains(part)), || found.clone())?;
    ensure(found.lines().any(|line| line == "0"), || format!("rows stayed: {found}"))
}
