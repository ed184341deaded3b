//! Chores of the repository: `cargo xtask <chore>`.
//!
//! [`tidy`] reads files and knows rules; [`tools`] finds and installs what tests need; the rest runs cargo and the
//! repository's own programs with the right profile. No dependencies, so that it starts at once everywhere.

#![allow(
    clippy::disallowed_methods,
    reason = "chores read files and start processes; nothing here is simulated"
)]

mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask <chore>

  test [arguments]    install what tests need, then run every test (nextest where it is installed)
  check               what CI runs: fmt, clippy, tidy, test
  tidy                arrows between crates, versions in the lock file, length and wording of files
  slt [path] [--epoch-rows N] [--shards N] [--restart-each]
                      run sql-tests against the real binary
  compare [--seeds 100] [--from SEED]
                      random queries on Millpond and on PostgreSQL: names, types, rows, errors
  matrix [--steps 50] [--from SEED]
                      TPC-H and Nexmark over tables that change, in epochs of 1, 7, 1000 and all rows, on 1, 2 and 4
                      shards, with kills in between (release build)
  kills [--kills 50] [--writers 8]
                      kill -9 a real server in the middle of writing, and check what is there after each start
  sim [--seeds N | --minutes M] [--from SEED] [--debug]
                      the log on a simulated disk: crashes, failures and full disks at random calls (release build)
  fuzz [--minutes M] [--debug]
                      hostile bytes for every decoder of the log (release build)
  oracle --seeds N | --minutes M [--from SEED]
                      random queries and changes: every view against the batch answer (release build)
  bench [arguments]   benchmarks: a table and JSON (release build)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (chore, rest) = match arguments.split_first() {
        Some((chore, rest)) => (chore.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let outcome = match chore {
        "test" => test(rest),
        "check" => check(),
        "tidy" => tidy::tidy(&root()),
        "slt" => slt(rest),
        "compare" => compare(rest),
        "matrix" => matrix(rest),
        "kills" => kills(rest),
        "sim" | "fuzz" => log_example(chore, rest),
        "oracle" | "bench" => release_program(chore, rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no chore called {other}\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/xtask lies two folders down").to_owned()
}

/// Runs a program in the repository's folder; its output is the user's.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    // What cargo says of this program is not meant for what it runs: build scripts that look at it would be run again, and all
    // that stands on ring, DataFusion included, be built again.
    let of_this_program = |name: &String| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME"
    };
    std::env::vars().map(|(name, _)| name).filter(of_this_program).for_each(|name| {
        command.env_remove(name);
    });
    let status = command.status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {}: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

fn test(rest: &[String]) -> Result<(), String> {
    tools::install_missing();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    // Always the whole workspace: another selection would unify features differently and build everything again.
    let runner: &[&str] = if tools::is_installed("cargo-nextest") {
        &["nextest", "run", "--workspace"]
    } else {
        &["test", "--workspace"]
    };
    run("cargo", &[runner, &rest].concat())
}

fn check() -> Result<(), String> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    tidy::tidy(&root())?;
    test(&[])
}

fn slt(rest: &[String]) -> Result<(), String> {
    run("cargo", &["build", "--quiet", "--workspace", "--bin", "millpond", "--bin", "millpond-slt"])?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("millpond-slt");
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    run(&program.to_string_lossy(), &rest)
}

fn kills(rest: &[String]) -> Result<(), String> {
    let given = rest.iter().any(|argument| argument.starts_with("--kills"));
    let default = ["--kills".to_owned(), "50".to_owned()];
    slt(&[if given { &[][..] } else { &default[..] }, rest].concat())
}

/// As a flag of the runner: `--seeds N` is its `--compare N`.
fn compare(rest: &[String]) -> Result<(), String> {
    let mut arguments: Vec<String> =
        rest.iter().map(|argument| argument.replace("--seeds", "--compare")).collect();
    if !arguments.iter().any(|argument| argument.starts_with("--compare")) {
        arguments.extend(["--compare".to_owned(), "100".to_owned()]);
    }
    slt(&arguments)
}

/// As a flag of the runner: `--steps N` is its `--matrix N`.
fn matrix(rest: &[String]) -> Result<(), String> {
    run(
        "cargo",
        &["build", "--quiet", "--release", "--workspace", "--bin", "millpond", "--bin", "millpond-slt"],
    )?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = own.ancestors().nth(2).ok_or("xtask does not lie in a target folder")?;
    let mut arguments: Vec<String> = rest.iter().map(|a| a.replace("--steps", "--matrix")).collect();
    if !arguments.iter().any(|argument| argument.starts_with("--matrix")) {
        arguments.extend(["--matrix".to_owned(), "50".to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&target.join("release").join("millpond-slt").to_string_lossy(), &arguments)
}

/// Runs an example of the log crate, which is a program over its public interface.
fn log_example(name: &str, rest: &[String]) -> Result<(), String> {
    let debug = rest.iter().any(|argument| argument == "--debug");
    let profile = if debug { "dev" } else { "release" };
    run("cargo", &["build", "--quiet", "--workspace", "--profile", profile, "--example", name])?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = own.ancestors().nth(2).ok_or("xtask does not lie in a target folder")?;
    let program = target.join(if debug { "debug" } else { "release" }).join("examples").join(name);
    let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|argument| *argument != "--debug").collect();
    run(&program.to_string_lossy(), &rest)
}

fn release_program(chore: &str, rest: &[String]) -> Result<(), String> {
    // The whole workspace, as for the server: another selection would unify features differently and build everything again.
    run("cargo", &["build", "--quiet", "--release", "--workspace", "--bin", "millpond-bench"])?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = own.ancestors().nth(2).ok_or("xtask does not lie in a target folder")?;
    let program = target.join("release").join("millpond-bench");
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    run(&program.to_string_lossy(), &[&[chore][..], &rest].concat())
}
