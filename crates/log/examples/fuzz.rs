//! Hostile bytes for every decoder of the log, on a stable compiler.
//!
//! ```text
//! cargo xtask fuzz [--minutes M]
//! ```
//!
//! Mutates the inputs of `corpus/` and goes on with those that come somewhere new. An input that makes a decoder panic is
//! written to `corpus/crash-*`, where the tests find it. With a nightly compiler and cargo-fuzz, `fuzz/` does the same with
//! a view of the code.

#![allow(
    clippy::disallowed_methods,
    reason = "a fuzzer reads and writes its corpus; nothing of it is simulated"
)]

#[path = "../tests/it/hostile.rs"]
mod hostile;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use millpond_env::Env;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    if arguments.iter().any(|argument| argument == "--write-corpus") {
        for (name, bytes) in millpond_log::fuzz::seeds() {
            std::fs::write(hostile::corpus_dir().join(&name), bytes).map_err(|e| format!("{name}: {e}"))?;
        }
        return Ok(());
    }
    let minutes = match arguments.iter().position(|argument| argument == "--minutes") {
        Some(at) => {
            arguments.get(at + 1).and_then(|m| m.parse::<f64>().ok()).ok_or("--minutes wants a number")?
        }
        None => 1.0,
    };
    let (env, limit) = (Env::os(), Duration::from_secs_f64(60.0 * minutes));
    let start = env.clock.monotonic();
    let is_over = |_| env.clock.monotonic() - start >= limit;
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let found = std::thread::scope(|scope| {
        let fuzz = |worker| scope.spawn(move || hostile::fuzz(worker, is_over));
        let workers: Vec<_> = (1..=workers).map(fuzz).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let (mut inputs, mut places) = (0, 0);
    for worker in found {
        let report = worker.map_err(|_| "the fuzzer itself panicked")?;
        let report = report.map_err(|crash| {
            let path = hostile::corpus_dir().join(format!("crash-{:08x}", crc(&crash.input)));
            match std::fs::write(&path, &crash.input) {
                Ok(()) => format!("a decoder panics: {}\nthe input is {}", crash.what, shown(&path)),
                Err(error) => format!("a decoder panics: {}\nthe input is lost: {error}", crash.what),
            }
        })?;
        inputs += report.inputs;
        places = places.max(report.places);
    }
    println!(
        "{inputs} inputs in {:.0} s, up to {places} different ends: no panic, nothing wrong read",
        (env.clock.monotonic() - start).as_secs_f64()
    );
    Ok(())
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
