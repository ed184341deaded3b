//! Opening a large log after a crash, beside reading its bytes from the same disk.

use std::path::Path;

use millpond_env::{Env, Open};
use millpond_log::{Log, LogOptions};
use millpond_types::Commit;

use crate::append::{TOPIC, bids, transaction};
use crate::report::Report;

/// How many rows a commit of the log has: a bulk load, and a stream of small writes.
const SHAPES: [usize; 2] = [10_000, 100];

/// # Errors
/// What the disk said.
pub fn run(report: &mut Report, dir: &Path, megabytes: u64) -> Result<(), String> {
    let env = Env::os();
    for rows in SHAPES {
        let path = dir.join(format!("recovery-{rows}"));
        let last = fill(&env, &path, rows, megabytes << 20)?;
        let (bytes, read) = read_all(&env, &path)?;
        // Nothing is covered by a checkpoint; all of it is; and all but the last hundredth.
        let covers = [("no checkpoint", 0), ("all but 1 %", last.0 - last.0 / 100), ("all", last.0)];
        for (covered, verify_from) in covers {
            let options = LogOptions {
                verify_from: Commit(verify_from),
                // Files that are covered stay files.
                background: false,
                ..LogOptions::default()
            };
            let (observer, _groups) = crossbeam_channel::unbounded();
            let start = env.clock.monotonic();
            let opened = Log::open(env.clone(), &path, options, observer);
            let seconds = (env.clock.monotonic() - start).as_secs_f64();
            let (log, recovered) = opened.map_err(|e| e.to_string())?;
            if recovered.last_commit != last {
                return Err(format!("{last} commits were written, {} are there", recovered.last_commit));
            }
            drop(log);
            report.add(
                &format!("recovery, {rows} rows per commit, checkpoint covers {covered}"),
                &[
                    ("seconds", seconds),
                    ("gb", bytes as f64 / 1e9),
                    ("commits", last.0 as f64),
                    ("gb_per_s", bytes as f64 / 1e9 / seconds),
                    ("read_gb_per_s", bytes as f64 / 1e9 / read),
                ],
            );
        }
    }
    Ok(())
}

fn fill(env: &Env, path: &Path, rows: usize, bytes: u64) -> Result<Commit, String> {
    let (observer, groups) = crossbeam_channel::bounded(256);
    // Each transaction a group of its own: many small ones are the hard case.
    let options = LogOptions { group_bytes_max: 1, ..LogOptions::default() };
    let (log, _) = Log::open(env.clone(), path, options, observer).map_err(|e| e.to_string())?;
    log.declare_topic(TOPIC, millpond_log::TopicSpec { partitions: 1 });
    let drain = std::thread::spawn(move || while groups.recv().is_ok() {});
    let batch = bids(rows);
    let each = batch.get_array_memory_size() as u64 + 400;
    let mut last = Commit(0);
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..bytes.div_ceil(each) {
        waiting.push_back(log.submit(transaction(&batch)));
        if waiting.len() > 64
            && let Some(ticket) = waiting.pop_front()
        {
            last = ticket.wait_blocking().map_err(|e| e.to_string())?;
        }
    }
    for ticket in waiting {
        last = ticket.wait_blocking().map_err(|e| e.to_string())?;
    }
    drop(log);
    drain.join().map_err(|_| "the observer panicked".to_owned())?;
    Ok(last)
}

/// How many bytes there are, and how long the disk takes to give them.
fn read_all(env: &Env, path: &Path) -> Result<(u64, f64), String> {
    let start = env.clock.monotonic();
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    for name in env.disk.list(path).map_err(|e| e.to_string())? {
        let file = env.disk.open(&path.join(name), Open::Read).map_err(|e| e.to_string())?;
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at).map_err(|e| e.to_string())? {
                0 => break,
                n => at += n as u64,
            }
        }
        total += at;
    }
    Ok((total, (env.clock.monotonic() - start).as_secs_f64()))
}
