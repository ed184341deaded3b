//! Reading the log back, hot and cold, what segments save, and what many topics cost.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use millpond_env::{Env, os};
use millpond_log::{ColdTier, Log, LogOptions, TopicSpec, Transaction};
use millpond_types::{Commit, PartitionId, RelationId};

use crate::append::{TOPIC, bids, transaction};
use crate::report::{Report, percentiles};

const COMMIT_ROWS: usize = 10_000;
/// Price and event time.
const TWO_COLUMNS: [usize; 2] = [2, 4];
const TOPICS: u32 = 1_000;
const PARTITIONS: u32 = 10;
const APPENDS: u32 = 2_000;

/// # Errors
/// What the disk said.
pub fn run(report: &mut Report, dir: &Path, rows: u64) -> Result<(), String> {
    scans(report, &dir.join("scans"), rows)?;
    topics(report, &dir.join("topics"))
}

struct Opened {
    env: Env,
    log: Log,
    drain: std::thread::JoinHandle<()>,
}

fn open(dir: &Path, options: LogOptions, topics: u32, partitions: u32) -> Result<Opened, String> {
    let env = Env::os();
    let (observer, groups) = crossbeam_channel::bounded(256);
    let (log, _) = Log::open(env.clone(), dir, options, observer).map_err(|e| e.to_string())?;
    for topic in 0..topics {
        log.declare_topic(RelationId(TOPIC.0 + topic), TopicSpec { partitions });
    }
    let drain = std::thread::spawn(move || while groups.recv().is_ok() {});
    Ok(Opened { env, log, drain })
}

impl Opened {
    fn close(self) -> Result<(), String> {
        drop(self.log);
        self.drain.join().map_err(|_| "the observer panicked".to_owned())
    }

    fn time<T>(&self, work: impl FnOnce() -> Result<T, String>) -> Result<(T, f64), String> {
        let start = self.env.clock.monotonic();
        let done = work()?;
        Ok((done, (self.env.clock.monotonic() - start).as_secs_f64()))
    }

    /// Reads two columns of everything, on this thread.
    fn scan(&self) -> Result<u64, String> {
        let frames = self.log.frames(TOPIC, Commit(0), Commit(u64::MAX)).map_err(|e| e.to_string())?;
        let mut rows = 0;
        for frame in &frames {
            let batch = self.log.read(frame, Some(&TWO_COLUMNS)).map_err(|e| e.to_string())?;
            rows += batch.num_rows() as u64;
        }
        Ok(rows)
    }
}

fn scans(report: &mut Report, dir: &Path, rows: u64) -> Result<(), String> {
    let url = format!("file://{}", dir.join("objects").display());
    let cold = |local_retention| -> Result<LogOptions, String> {
        let objects = os::object_store(&url).map_err(|e| e.to_string())?;
        let prefix = object_store::path::Path::from("pond");
        let cold = Some(ColdTier { objects, prefix, local_retention });
        Ok(LogOptions { cold, background: false, ..LogOptions::default() })
    };
    let journal = dir.join("journal");
    let opened = open(&journal, cold(None)?, 1, 1)?;
    let batch = bids(COMMIT_ROWS);
    let mut waiting = VecDeque::new();
    for _ in 0..rows.div_ceil(COMMIT_ROWS as u64) {
        waiting.push_back(opened.log.submit(transaction(&batch)));
        if waiting.len() > 8
            && let Some(ticket) = waiting.pop_front()
        {
            ticket.wait_blocking().map_err(|e| e.to_string())?;
        }
    }
    for ticket in waiting {
        ticket.wait_blocking().map_err(|e| e.to_string())?;
    }
    let journal_bytes: u64 = opened.log.storage().iter().map(|s| s.journal_bytes).sum();
    let scan = |report: &mut Report, opened: &Opened, place: &str| -> Result<(), String> {
        // The first one warms whatever can be warmed.
        opened.scan()?;
        let (rows, seconds) = opened.time(|| opened.scan())?;
        let name = format!("scan of 2 of 5 columns, one thread, {place}");
        report.add(&name, &[("rows_per_s", rows as f64 / seconds), ("rows", rows as f64)]);
        Ok(())
    };
    scan(report, &opened, "journal")?;
    // The newest file is never cut: an empty one takes its place.
    opened.close()?;
    let mut options = cold(None)?;
    options.file_bytes_max = 1;
    let opened = open(&journal, options, 1, 1)?;
    opened.log.submit(Transaction::default()).wait_blocking().map_err(|e| e.to_string())?;
    opened.log.checkpointed(*opened.log.durable().borrow());
    let (_, seconds) = opened.time(|| opened.log.maintain().map_err(|e| e.to_string()))?;
    let stored = opened.log.storage();
    let bytes: u64 = stored.iter().map(|s| s.segment_bytes).sum();
    let sealed: u64 = stored.iter().map(|s| s.rows).sum();
    report.add(
        "journal to Parquet and object store (a folder), verified",
        &[
            ("rows_per_s", sealed as f64 / seconds),
            ("journal_bytes_per_row", journal_bytes as f64 / sealed as f64),
            ("segment_bytes_per_row", bytes as f64 / sealed as f64),
            ("ratio", journal_bytes as f64 / bytes as f64),
        ],
    );
    scan(report, &opened, "segments on the local disk")?;
    opened.close()?;
    let opened = open(&journal, cold(Some(Duration::ZERO))?, 1, 1)?;
    opened.log.maintain().map_err(|e| e.to_string())?;
    let local: u64 = opened.log.storage().iter().map(|s| s.local_bytes).sum();
    if local > 0 {
        return Err(format!("{local} bytes of segments are still local"));
    }
    scan(report, &opened, "segments in the object store (a folder)")?;
    opened.close()
}

/// Topics that nobody writes to, and appends to one of them.
fn topics(report: &mut Report, dir: &Path) -> Result<(), String> {
    for (name, topics, partitions) in
        [("1 topic", 1, 1), ("1,000 topics of 10 partitions, each with rows", TOPICS, PARTITIONS)]
    {
        let before = resident();
        let opened = open(&dir.join(topics.to_string()), LogOptions::default(), topics, partitions)?;
        let batch = bids(1);
        let all = u64::from(topics) * u64::from(partitions);
        let to = |topic: u32, partition: u32| {
            let mut sent = transaction(&batch);
            sent.writes[0].topic = RelationId(TOPIC.0 + topic);
            sent.writes[0].partition = PartitionId(partition);
            sent
        };
        let mut tickets = VecDeque::new();
        for topic in 0..topics {
            for partition in 0..partitions {
                tickets.push_back(opened.log.submit(to(topic, partition)));
            }
        }
        for ticket in tickets {
            ticket.wait_blocking().map_err(|e| e.to_string())?;
        }
        let bytes = resident().saturating_sub(before) as f64 / all as f64;
        let mut times = Vec::new();
        for _ in 0..APPENDS {
            let start = opened.env.clock.monotonic();
            opened.log.submit(to(0, 0)).wait_blocking().map_err(|e| e.to_string())?;
            times.push(opened.env.clock.monotonic() - start);
        }
        let (p50, p99) = percentiles(&mut times);
        opened.close()?;
        let (reopened, seconds) = {
            let env = Env::os();
            let start = env.clock.monotonic();
            let opened = open(&dir.join(topics.to_string()), LogOptions::default(), topics, partitions)?;
            (opened, (env.clock.monotonic() - start).as_secs_f64())
        };
        reopened.close()?;
        let mut figures = vec![("ack_p50_ms", p50), ("ack_p99_ms", p99), ("open_seconds", seconds)];
        if all > 1 {
            figures.push(("resident_bytes_per_partition", bytes));
        }
        report.add(&format!("append of one row, {name}"), &figures);
    }
    Ok(())
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "what the system says of this process")]
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
