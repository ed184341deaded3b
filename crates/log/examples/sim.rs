//! Many lives of a log on a simulated machine.
//!
//! ```text
//! cargo xtask sim [--seeds N | --minutes M] [--from SEED]
//! ```

#[path = "../tests/it/campaign.rs"]
mod campaign;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_env::Env;

use campaign::Life;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn number(arguments: &[String], name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let value = arguments.get(at + 1).ok_or_else(|| format!("{name} wants a number"))?;
    value.parse().map(Some).map_err(|_| format!("{name} {value}: not a number"))
}

fn run(arguments: &[String]) -> Result<(), String> {
    let from = number(arguments, "--from")?.unwrap_or(1);
    let minutes = number(arguments, "--minutes")?;
    let seeds =
        number(arguments, "--seeds")?.unwrap_or(if minutes.is_some() { u64::MAX - from } else { 1_000 });
    let clock = Env::os().clock;
    let (start, limit) = (clock.monotonic(), minutes.map(|minutes| Duration::from_secs(60 * minutes)));
    let is_over = || limit.is_some_and(|limit| clock.monotonic() - start >= limit);
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let (total, failed) = (Mutex::new((Life::default(), 0u64)), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && !is_over() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    match campaign::live(seed) {
                        Ok(life) => {
                            let mut total = total.lock().expect("nobody panics with it");
                            total.1 += 1;
                            let sum = &mut total.0;
                            sum.acknowledged += life.acknowledged;
                            sum.crashes += life.crashes;
                            sum.healed += life.healed;
                            for (name, times) in life.activities {
                                *sum.activities.entry(name).or_default() += times;
                            }
                        }
                        Err(why) => {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().expect("nobody panics with it").get_or_insert((seed, why));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failed.into_inner().map_err(|e| e.to_string())? {
        return Err(format!("{why}\nseed {seed} fails; again: cargo xtask sim --seeds 1 --from {seed}"));
    }
    let (life, lives) = total.into_inner().map_err(|e| e.to_string())?;
    println!(
        "{lives} seeds from {from} in {:.0} s: {} transactions acknowledged, {} crashes, {} failures healed; nothing \
         acknowledged lost, nothing wrong read",
        (clock.monotonic() - start).as_secs_f64(),
        life.acknowledged,
        life.crashes,
        life.healed
    );
    for (name, times) in life.activities {
        println!("  {name:<32} {times}");
    }
    Ok(())
}
