//! What tests need besides cargo: psql, PostgreSQL's server as an oracle, and a server that speaks S3.

use std::path::Path;
use std::process::{Command, Stdio};

/// A program, where else than on PATH it may lie, and how to get it.
struct Tool {
    program: &'static str,
    /// Folders with a version in their name end in `*`.
    elsewhere: &'static str,
    install: Install,
}

enum Install {
    Apt(&'static str),
    Pip(&'static str),
    /// Of Python.
    Modules(&'static [&'static str]),
}

const TOOLS: [Tool; 4] = [
    Tool { program: "psql", elsewhere: "", install: Install::Apt("postgresql-client") },
    Tool { program: "initdb", elsewhere: "/usr/lib/postgresql", install: Install::Apt("postgresql") },
    Tool { program: "pyarrow and duckdb", elsewhere: "", install: Install::Modules(&["pyarrow", "duckdb"]) },
    Tool { program: "moto_server", elsewhere: "", install: Install::Pip("moto[server]") },
];

/// Installs what is missing where it can; where it cannot, the tests that need it say so.
pub fn install_missing() {
    for tool in TOOLS {
        let there = match tool.install {
            Install::Modules(modules) => {
                quietly(&["python3", "-c", &format!("import {}", modules.join(", "))])
            }
            _ => is_installed(tool.program) || lies_under(tool.elsewhere, tool.program),
        };
        if there {
            continue;
        }
        let (name, done) = match tool.install {
            Install::Apt(package) => (package, apt(package)),
            Install::Pip(package) => (package, pip(&[package])),
            Install::Modules(modules) => (tool.program, pip(modules)),
        };
        if done {
            eprintln!("installed {name}");
        } else {
            eprintln!(
                "{} is missing and could not be installed ({name}): tests that need it will fail",
                tool.program
            );
        }
    }
}

pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// `/usr/lib/postgresql/15/bin/initdb`
fn lies_under(folder: &str, program: &str) -> bool {
    if folder.is_empty() {
        return false;
    }
    let Ok(versions) = std::fs::read_dir(Path::new(folder)) else { return false };
    versions.flatten().any(|version| version.path().join("bin").join(program).is_file())
}

fn apt(package: &str) -> bool {
    let sudo: &[&str] = if is_installed("sudo") { &["sudo", "-n"] } else { &[] };
    quietly(&[sudo, &["apt-get", "update"]].concat())
        && quietly(&[sudo, &["apt-get", "install", "-y", "--no-install-recommends", package]].concat())
}

fn pip(packages: &[&str]) -> bool {
    let with = |options: &[&str]| {
        quietly(&[&["python3", "-m", "pip", "install", "--quiet"][..], options, packages].concat())
    };
    // Newer Debian guards the system's Python; a test machine's may be added to.
    with(&[]) || with(&["--break-system-packages"])
}

fn quietly(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
