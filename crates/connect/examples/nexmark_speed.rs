//! How fast one thread makes Nexmark rows: `cargo run --release -p millpond-connect --example nexmark_speed [rows]`.

use std::collections::BTreeMap;

use millpond_connect::nexmark::Table;
use millpond_connect::{SourceSpec, SourceStep, open_source};
use millpond_env::Env;

/// As many rows as the engine takes at a time.
const BATCH_ROWS: usize = 16_384;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: u64 = std::env::args().nth(1).map_or(Ok(10_000_000), |text| text.parse())?;
    let env = Env::os();
    println!("{:8} {:>12} {:>10} {:>12} {:>10}", "table", "rows", "seconds", "M rows/s", "MB/s");
    for table in Table::NAMES {
        let options = BTreeMap::from([("table".to_owned(), table.to_owned())]);
        let spec = SourceSpec { connector: "nexmark".to_owned(), options, ..SourceSpec::default() };
        let mut source = open_source(&spec, &env, None).await?;
        let start = env.clock.monotonic();
        let (mut rows, mut bytes) = (0u64, 0usize);
        while rows < wanted
            && let SourceStep::Rows(step) = source.next(BATCH_ROWS).await?
        {
            rows += step.batch.num_rows() as u64;
            bytes += step.batch.get_array_memory_size();
        }
        let seconds = env.clock.monotonic().saturating_sub(start).as_secs_f64();
        let (rate, volume) = (rows as f64 / seconds / 1e6, bytes as f64 / seconds / 1e6);
        println!("{table:8} {rows:>12} {seconds:>10.2} {rate:>12.2} {volume:>10.0}");
    }
    Ok(())
}
