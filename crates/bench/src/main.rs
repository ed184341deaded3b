//! `millpond-bench`: benchmarks and campaigns.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use millpond_bench::report::Report;
use millpond_bench::{append, catch_up, checkpoint, latency, oracle, recovery, storage};

#[derive(Parser)]
#[command(name = "millpond-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every benchmark: a table, then JSON
    Bench {
        /// Only these: append, catch-up, checkpoint, latency, recovery, storage
        only: Vec<String>,
        /// Bids of the catch-up benchmark
        #[arg(long, default_value_t = 10_000_000)]
        bids: u64,
        /// Megabytes of each log of the recovery benchmark
        #[arg(long, default_value_t = 2_000)]
        log_megabytes: u64,
        /// Where to write [default: a temporary folder]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Also write the JSON into this file
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Random lives of a database against the batch answer
    Oracle {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Instead: seeds for so long
        #[arg(long, conflicts_with = "seeds")]
        minutes: Option<u64>,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Leave out the n-th retraction of every view: the oracle must notice
        #[arg(long)]
        skip_retraction: Option<u64>,
        /// Cut views out of the driver's epochs after every so many pieces of work [default: drawn per seed]
        #[arg(long)]
        cut_out_every: Option<u64>,
    },
}

#[tokio::main]
async fn main() -> Result<(), String> {
    match Arguments::parse().command {
        Command::Bench { only, bids, log_megabytes, dir, json } => {
            bench(&only, bids, log_megabytes, dir, json).await
        }
        Command::Oracle { seeds, minutes, from, skip_retraction, cut_out_every } => {
            let options = oracle::Options { skip_retraction, cut_out_every };
            let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
            run_oracle(if limit.is_some() { u64::MAX - from } else { seeds }, limit, from, options).await
        }
    }
}

async fn bench(
    only: &[String],
    bids: u64,
    log_megabytes: u64,
    dir: Option<PathBuf>,
    json: Option<PathBuf>,
) -> Result<(), String> {
    let temporary = tempfile::tempdir().map_err(|e| e.to_string())?;
    let dir = dir.unwrap_or_else(|| temporary.path().to_owned());
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut report = Report::default();
    if wanted("append") {
        append::run(&mut report, &dir).await?;
    }
    if wanted("catch-up") {
        catch_up::run(&mut report, &dir, bids, 1).await?;
        catch_up::run(&mut report, &dir, bids, 2).await?;
    }
    if wanted("checkpoint") {
        checkpoint::run(&mut report, &dir).await?;
    }
    if wanted("latency") {
        latency::run(&mut report, &dir).await?;
    }
    if wanted("recovery") {
        recovery::run(&mut report, &dir, log_megabytes)?;
    }
    if wanted("storage") {
        storage::run(&mut report, &dir, bids)?;
    }
    println!("\n{}", report.json());
    if let Some(path) = json {
        #[allow(clippy::disallowed_methods, reason = "a report, not data")]
        std::fs::write(&path, report.json()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Every seed that fails is told with its story; the others go on.
#[allow(clippy::disallowed_methods, reason = "a campaign's own length; what it tests has a clock of its own")]
async fn run_oracle(
    seeds: u64,
    limit: Option<Duration>,
    from: u64,
    options: oracle::Options,
) -> Result<(), String> {
    let (mut total, begun) = (oracle::Life::default(), Instant::now());
    let (mut lived, mut failed) = (0, Vec::new());
    for seed in from..from + seeds {
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            break;
        }
        lived += 1;
        match oracle::live(seed, &options).await {
            Ok(life) => {
                total.statements += life.statements;
                total.crashes += life.crashes;
                total.verifications += life.verifications;
                for (rule, n) in life.rules {
                    *total.rules.entry(rule).or_default() += n;
                }
            }
            Err(why) => {
                println!("{why}\n\nseed {seed} fails; again: cargo xtask oracle --seeds 1 --from {seed}\n");
                failed.push(seed.to_string());
            }
        }
    }
    println!(
        "{lived} seeds: {} statements, {} crashes, {} verifications; rules drawn:",
        total.statements, total.crashes, total.verifications
    );
    for (rule, n) in &total.rules {
        println!("  {rule:<28} {n}");
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} seeds fail: {}", failed.len(), failed.join(" "))) }
}
