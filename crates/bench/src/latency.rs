//! From a client's commit to its rows being visible in a view, at a steady rate of events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use millpond_engine::{Engine, EngineConfig, Outcome, Session, SessionInfo, rows};
use millpond_env::Env;

use crate::no_catalog::NoCatalog;
use crate::report::{Report, percentiles};

const TICK: Duration = Duration::from_millis(1);
const TICKS: usize = 5_000;

/// # Errors
/// What the engine said.
pub async fn run(report: &mut Report, dir: &Path) -> Result<(), String> {
    for rate in [10_000u64, 100_000] {
        let rows_per_tick = rate as usize / 1_000;
        let config = EngineConfig {
            data_dir: dir.join(format!("latency-{rate}")),
            checkpoint_interval: Duration::from_secs(2),
            ..EngineConfig::default()
        };
        let engine = Engine::open(config, Arc::new(NoCatalog)).await.map_err(|e| e.to_string())?;
        let mut session = engine.session(SessionInfo::default()).map_err(|e| e.to_string())?;
        for sql in [
            "CREATE SOURCE bid (auction bigint, price bigint, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '4 seconds')",
            "CREATE MATERIALIZED VIEW v AS SELECT window_start, auction, count(*) AS bids, sum(price) AS total \
             FROM TUMBLE(bid, ts, INTERVAL '10 seconds') GROUP BY window_start, auction",
        ] {
            rows(&mut session, sql).await.map_err(|e| e.to_string())?;
        }
        let (mut times, late) = ticks(&mut session, rows_per_tick).await?;
        let (p50, p99) = percentiles(&mut times);
        report.add(
            &format!("commit to visible, {rate} events/s"),
            &[("p50_ms", p50), ("p99_ms", p99), ("ticks_behind", late as f64)],
        );
        drop(session);
        engine.kill().await;
    }
    Ok(())
}

/// One commit per tick, open loop: the clock of a commit starts when it was due, so that a stall counts for all behind it.
async fn ticks(session: &mut Session, rows_per_tick: usize) -> Result<(Vec<Duration>, usize), String> {
    let clock = Env::os().clock;
    let statement =
        |session: &Session, sql: &str| session.parse(sql).map(|mut s| s.remove(0)).map_err(|e| e.to_string());
    let copy = statement(session, "COPY bid FROM STDIN")?;
    let copy = session.prepare(&copy, &[]).await.map_err(|e| e.to_string())?;
    let flush = statement(session, "FLUSH")?;
    let flush = session.prepare(&flush, &[]).await.map_err(|e| e.to_string())?;
    let mut times = Vec::with_capacity(TICKS);
    let mut behind = 0;
    let start = clock.monotonic();
    for tick in 0..TICKS {
        let due = start + TICK * tick as u32;
        let now = clock.monotonic();
        if now < due {
            clock.sleep(due - now).await;
        } else if now > due + TICK {
            behind += 1;
        }
        let batch = batch(tick, rows_per_tick);
        let begun = clock.monotonic().min(due.max(now));
        let outcome = session.execute(&copy, &[]).await.map_err(|e| e.to_string())?;
        let Outcome::CopyIn(mut copying) = outcome else { return Err("no COPY".to_owned()) };
        copying.write(batch).await.map_err(|e| e.to_string())?;
        copying.finish().await.map_err(|e| e.to_string())?;
        session.execute(&flush, &[]).await.map_err(|e| e.to_string())?;
        times.push(clock.monotonic() - begun.min(due));
    }
    // The first second warms caches and files.
    Ok((times.split_off(TICKS / 5), behind))
}

fn batch(tick: usize, rows: usize) -> RecordBatch {
    let first = (tick * rows) as i64;
    let all = first..first + rows as i64;
    let columns: [(&str, ArrayRef); 3] = [
        ("auction", Arc::new(Int64Array::from_iter_values(all.clone().map(|i| i * 7919 % 10_000)))),
        ("price", Arc::new(Int64Array::from_iter_values(all.clone().map(|i| i % 1000)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(all.map(|i| i * 100)))),
    ];
    RecordBatch::try_from_iter(columns).expect("three columns of one length")
}
