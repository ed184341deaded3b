//! What a checkpoint writes: as much as has changed, not as much as there is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millpond_engine::{Engine, EngineConfig, Outcome, Session, SessionInfo, rows};

use crate::no_catalog::NoCatalog;
use crate::report::Report;

const GROUPS: usize = 1_000_000;
const BATCH: usize = 65_536;

/// # Errors
/// What the engine said.
pub async fn run(report: &mut Report, dir: &Path) -> Result<(), String> {
    let config = EngineConfig {
        data_dir: dir.join("checkpoint"),
        memory_limit: 16 << 30,
        checkpoint_interval: Duration::from_secs(3600),
        ..EngineConfig::default()
    };
    let engine = Engine::open(config, Arc::new(NoCatalog)).await.map_err(|e| e.to_string())?;
    let mut session = engine.session(SessionInfo::default()).map_err(|e| e.to_string())?;
    for sql in [
        "CREATE SOURCE event (k bigint, n bigint)",
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s, max(n) AS m FROM event GROUP BY k",
    ] {
        rows(&mut session, sql).await.map_err(|e| e.to_string())?;
    }
    for changed in [GROUPS, 0, 1_000, 10_000, 100_000, GROUPS] {
        // Spread evenly over all groups, so that every part of the state is touched.
        let stride = GROUPS / changed.max(1);
        let keys: Vec<i64> = (0..changed).map(|i| (i * stride) as i64).collect();
        for keys in keys.chunks(BATCH) {
            append(&mut session, keys).await?;
        }
        for sql in ["FLUSH", "CHECKPOINT"] {
            rows(&mut session, sql).await.map_err(|e| e.to_string())?;
        }
        let written = engine.status().checkpoint.ok_or("no checkpoint was taken")?;
        report.add(
            &format!("checkpoint, {changed} of {GROUPS} groups changed"),
            &[
                ("bytes", written.bytes as f64),
                ("seconds", written.seconds),
                ("pause_ms", written.pause_seconds * 1e3),
            ],
        );
    }
    drop(session);
    engine.kill().await;
    Ok(())
}

async fn append(session: &mut Session, keys: &[i64]) -> Result<(), String> {
    let statement = session.parse("COPY event FROM STDIN").map_err(|e| e.to_string())?.remove(0);
    let copy = session.prepare(&statement, &[]).await.map_err(|e| e.to_string())?;
    let outcome = session.execute(&copy, &[]).await.map_err(|e| e.to_string())?;
    let Outcome::CopyIn(mut copying) = outcome else { return Err("no COPY".to_owned()) };
    let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let batch =
        RecordBatch::try_from_iter([("k", Arc::clone(&column)), ("n", column)]).map_err(|e| e.to_string())?;
    copying.write(batch).await.map_err(|e| e.to_string())?;
    copying.finish().await.map_err(|e| e.to_string())?;
    Ok(())
}
