//! Appending to the log, beside an fdatasync of the same bytes on the same disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millpond_env::{Env, Open};
use millpond_log::{Log, LogOptions, TopicSpec, Transaction, Write, WriteKind};
use millpond_types::{EventTime, PartitionId, RelationId};

use crate::report::{Report, percentiles};

pub(crate) const TOPIC: RelationId = RelationId(1);
const SECONDS: f64 = 3.0;

/// Bids with five columns.
pub(crate) fn bids(rows: usize) -> RecordBatch {
    let n = rows as i64;
    let columns: [(&str, ArrayRef); 5] = [
        ("auction", Arc::new(Int64Array::from_iter_values((0..n).map(|i| i % 100)))),
        ("bidder", Arc::new(Int64Array::from_iter_values((0..n).map(|i| i * 7 % 1000)))),
        ("price", Arc::new(Int64Array::from_iter_values((0..n).map(|i| i * 31 % 100_000)))),
        (
            "channel",
            Arc::new(StringArray::from_iter_values(
                (0..n).map(|i| ["apple", "google", "baidu"][i as usize % 3]),
            )),
        ),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(0..n))),
    ];
    RecordBatch::try_from_iter(columns).expect("five columns of one length")
}

pub(crate) fn transaction(batch: &RecordBatch) -> Transaction {
    Transaction {
        writes: vec![Write {
            topic: TOPIC,
            partition: PartitionId(0),
            batch: batch.clone(),
            event_time: Some(EventTime(0)),
            schema_version: 0,
            kind: WriteKind::Append,
            producer: None,
            position: None,
        }],
        records: Vec::new(),
    }
}

/// # Errors
/// What the disk said.
pub async fn run(report: &mut Report, dir: &Path) -> Result<(), String> {
    let env = Env::os();
    for rows in [1usize, 100, 1_000, 10_000] {
        let bytes = bids(rows).get_array_memory_size();
        let (p50, p99) = raw_sync(&env, &dir.join(format!("raw-{rows}")), bytes)?;
        report.add(&format!("fdatasync of {bytes} bytes"), &[("p50_ms", p50), ("p99_ms", p99)]);
        for clients in [1, 8] {
            let path = dir.join(format!("log-{rows}-{clients}"));
            let (rate, mut times, mb) = clients_append(&env, &path, rows, clients)?;
            let (ack50, ack99) = percentiles(&mut times);
            let name = format!("append, {rows} rows per commit, {clients} clients");
            report.add(
                &name,
                &[
                    ("rows_per_s", rate),
                    ("mb_per_s", mb),
                    ("ack_p50_ms", ack50),
                    ("ack_p99_ms", ack99),
                    ("sync_p99_ms", p99),
                ],
            );
        }
    }
    // As sessions of the server do: tasks, not threads.
    let (rate, mut times) = tasks_append(&env, &dir.join("log-tasks"), 64).await?;
    let (ack50, ack99) = percentiles(&mut times);
    let figures = [("rows_per_s", rate), ("ack_p50_ms", ack50), ("ack_p99_ms", ack99)];
    report.add("append, 1 row per commit, 64 tasks", &figures);
    Ok(())
}

async fn tasks_append(env: &Env, path: &Path, tasks: usize) -> Result<(f64, Vec<Duration>), String> {
    let (observer, groups) = crossbeam_channel::bounded(256);
    let opened = Log::open(env.clone(), path, LogOptions::default(), observer);
    let (log, _) = opened.map_err(|e| e.to_string())?;
    log.declare_topic(TOPIC, TopicSpec { partitions: 1 });
    let drain = std::thread::spawn(move || while groups.recv().is_ok() {});
    let batch = bids(1);
    let start = env.clock.monotonic();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (log, batch, clock) = (log.clone(), batch.clone(), Arc::clone(&env.clock));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while (clock.monotonic() - start).as_secs_f64() < SECONDS {
                    let begun = clock.monotonic();
                    log.submit(transaction(&batch)).wait().await.map_err(|e| e.to_string())?;
                    times.push(clock.monotonic() - begun);
                }
                Ok::<_, String>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.map_err(|e| e.to_string())??);
    }
    let seconds = (env.clock.monotonic() - start).as_secs_f64();
    drop(log);
    drain.join().map_err(|_| "the observer panicked".to_owned())?;
    Ok((times.len() as f64 / seconds, times))
}

fn raw_sync(env: &Env, path: &Path, bytes: usize) -> Result<(f64, f64), String> {
    let file = env.disk.open(path, Open::Create).map_err(|e| e.to_string())?;
    let data = vec![7u8; bytes];
    let mut times = Vec::new();
    for n in 0..400u64 {
        let start = env.clock.monotonic();
        file.write_at(&data, n * bytes as u64).map_err(|e| e.to_string())?;
        file.sync_data().map_err(|e| e.to_string())?;
        times.push(env.clock.monotonic() - start);
    }
    Ok(percentiles(&mut times))
}

fn clients_append(
    env: &Env,
    path: &Path,
    rows: usize,
    clients: usize,
) -> Result<(f64, Vec<Duration>, f64), String> {
    let (observer, groups) = crossbeam_channel::bounded(256);
    let (log, _) =
        Log::open(env.clone(), path, LogOptions::default(), observer).map_err(|e| e.to_string())?;
    log.declare_topic(TOPIC, TopicSpec { partitions: 1 });
    let drain = std::thread::spawn(move || while groups.recv().is_ok() {});
    let batch = bids(rows);
    let start = env.clock.monotonic();
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            let (log, batch, clock) = (log.clone(), batch.clone(), Arc::clone(&env.clock));
            std::thread::spawn(move || {
                let mut times = Vec::new();
                while (clock.monotonic() - start).as_secs_f64() < SECONDS {
                    let begun = clock.monotonic();
                    log.submit(transaction(&batch)).wait_blocking().map_err(|e| e.to_string())?;
                    times.push(clock.monotonic() - begun);
                }
                Ok::<_, String>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.join().map_err(|_| "a client panicked".to_owned())??);
    }
    let seconds = (env.clock.monotonic() - start).as_secs_f64();
    let commits = times.len() as f64;
    drop(log);
    drain.join().map_err(|_| "the observer panicked".to_owned())?;
    let mb = commits * batch.get_array_memory_size() as f64 / seconds / 1e6;
    Ok((commits * rows as f64 / seconds, times, mb))
}
