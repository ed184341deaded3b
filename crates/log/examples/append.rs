//! How fast the journal takes rows, beside what the device can do.
//!
//! ```text
//! cargo run --release -p millpond-log --example append [directory]
//! ```
//!
//! Appends 5-column bids. "throughput" keeps many commits in flight from two threads, as clients do; "latency" waits for
//! each one. The device's own figure is a loop of append and fdatasync of as many bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use crossbeam_channel::unbounded;
use millpond_env::{Env, Open};
use millpond_log::{Log, LogOptions, TopicSpec, Transaction, Write, WriteKind};
use millpond_types::{Commit, PartitionId, RelationId};

const TOPIC: RelationId = RelationId(1);

fn bids(first: i64, rows: usize) -> RecordBatch {
    let numbers = |of: fn(i64) -> i64| -> ArrayRef {
        Arc::new((first..first + rows as i64).map(of).collect::<Int64Array>())
    };
    let channels = ["Google", "Facebook", "Baidu", "Apple"];
    let channel: StringArray = (0..rows).map(|row| Some(channels[row % 4])).collect();
    let times: TimestampMicrosecondArray = (first..first + rows as i64).map(|id| Some(id * 100)).collect();
    RecordBatch::try_from_iter([
        ("auction", numbers(|id| 1000 + id % 997)),
        ("bidder", numbers(|id| id * 31 % 10_007)),
        ("price", numbers(|id| id * 17 % 100_000)),
        ("channel", Arc::new(channel) as ArrayRef),
        ("ts", Arc::new(times) as ArrayRef),
    ])
    .expect("the columns have equal lengths")
}

fn transaction(batch: &RecordBatch) -> Transaction {
    let write = Write {
        topic: TOPIC,
        partition: PartitionId(0),
        batch: batch.clone(),
        event_time: None,
        schema_version: 1,
        kind: WriteKind::Append,
        producer: None,
        position: None,
    };
    Transaction { writes: vec![write], records: Vec::new() }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:7.3} ms   p99 {:7.3} ms", at(0.50), at(0.99))
}

fn timed(env: &Env, mut work: impl FnMut()) -> Duration {
    let start = env.clock.monotonic();
    work();
    env.clock.monotonic() - start
}

/// Append and fdatasync of `bytes`, `count` times.
fn device(env: &Env, dir: &Path, bytes: usize, count: usize) -> String {
    let path = dir.join(format!("device-{bytes}"));
    let file = env.disk.open(&path, Open::Create).expect("the directory is new");
    let block = vec![7; bytes];
    let times = (0..count).map(|n| {
        timed(env, || {
            file.write_at(&block, (n * bytes) as u64).expect("the disk takes writes");
            file.sync_data().expect("the disk syncs");
        })
    });
    percentiles(times.collect())
}

/// Calls `use_log` with a new log; also returns the bytes of its files.
fn with_log<T>(env: &Env, dir: &Path, use_log: impl FnOnce(&Log) -> T) -> (T, u64) {
    let (observer, groups) = unbounded();
    let (log, _) =
        Log::open(env.clone(), dir, LogOptions::default(), observer).expect("the directory is new");
    log.declare_topic(TOPIC, TopicSpec { partitions: 1 });
    let drain = std::thread::spawn(move || groups.into_iter().count());
    let result = use_log(&log);
    let bytes =
        log.frames(TOPIC, Commit(0), Commit(u64::MAX)).unwrap().iter().map(|frame| frame.bytes()).sum();
    drop(log);
    drain.join().expect("counting does not fail");
    (result, bytes)
}

fn main() {
    let env = Env::os();
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = root.join(format!("millpond-append-{}", std::process::id()));
    env.disk.create_dir_all(&dir).expect("the directory can be created");
    println!("{:>13} {:>14} {:>10} {:>8}", "rows/commit", "rows/s", "MB/s", "B/row");
    for (rows, commits) in [(1, 100_000), (1_000, 4_000), (10_000, 600)] {
        let batches: Vec<RecordBatch> = (0..16).map(|n| bids(n * rows as i64, rows)).collect();
        let (elapsed, bytes) = with_log(&env, &dir.join(format!("throughput-{rows}")), |log| {
            timed(&env, || {
                std::thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            let mut last = None;
                            for n in 0..commits / 2 {
                                last = Some(log.submit(transaction(&batches[n % 16])));
                            }
                            last.expect("there are commits").wait_blocking().expect("the disk works");
                        });
                    }
                });
            })
        });
        let total = (rows * commits) as f64;
        println!(
            "{rows:>13} {:>14.0} {:>10.1} {:>8.1}",
            total / elapsed.as_secs_f64(),
            bytes as f64 / 1e6 / elapsed.as_secs_f64(),
            bytes as f64 / total
        );
    }
    println!("\nacknowledgement of one commit at a time, beside append and fdatasync of as many bytes:");
    for (rows, commits) in [(1, 1_000), (1_000, 400), (10_000, 200)] {
        let batch = bids(0, rows);
        let (times, bytes) = with_log(&env, &dir.join(format!("latency-{rows}")), |log| {
            let mut one = || {
                log.submit(transaction(&batch)).wait_blocking().expect("the disk works");
            };
            (0..commits).map(|_| timed(&env, &mut one)).collect::<Vec<_>>()
        });
        println!("{rows:>13} rows  log    {}", percentiles(times));
        let device = device(&env, &dir, bytes as usize / commits + 200, commits);
        println!("{:>13}       device {device}", "");
    }
    println!("\nfiles are left in {}", dir.display());
}
