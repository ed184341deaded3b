//! Rules about the repository that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A file of one idea is rarely longer.
const LINES_MAX: usize = 900;

/// A line with this, and the reason behind it, excuses a long file.
const LONG_EXCUSE: &str = "tidy: long because";

/// Crates of which the lock file may hold one version: two would be two types that do not mix, or two TLS libraries.
const SINGLE: [&str; 9] = [
    "arrow-array",
    "arrow-schema",
    "datafusion",
    "object_store",
    "parquet",
    "pgwire",
    "rustls",
    "sqlparser",
    "tokio",
];

/// Crates that the lock file may not hold.
const UNWANTED: [(&str, &str); 2] = [
    ("aws-lc-sys", "the one TLS provider is ring: find who turned on another by `cargo tree -i aws-lc-sys`"),
    (
        "openssl-sys",
        "the one TLS provider is ring: find who turned on another by `cargo tree -i openssl-sys`",
    ),
];

/// Leftovers in code, and what to do instead. Spelled in two parts, so that this file is clean.
const LEFTOVERS: [(&str, &str, &str); 5] = [
    ("todo", "!(", "finish it, or refuse it with 0A000"),
    ("unimplemented", "!(", "finish it, or refuse it with 0A000"),
    ("dbg", "!(", "use tracing"),
    ("#[ign", "ore", "a test that is not run is no test"),
    ("FIX", "ME", "mend it, or name an issue"),
];

/// # Errors
/// Every rule that is broken, a line each.
pub fn tidy(root: &Path) -> Result<(), String> {
    let mut broken = Vec::new();
    arrows(root, &mut broken)?;
    lock_file(&read(&root.join("Cargo.lock"))?, &mut broken);
    for path in rust_files(&root.join("crates"))? {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        rust_file(&name, &read(&path)?, &mut broken);
    }
    if broken.is_empty() {
        println!("tidy");
        return Ok(());
    }
    Err(format!("{} rules are broken:\n  {}", broken.len(), broken.join("\n  ")))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Dependencies of every crate against the table in docs/ARCHITECTURE.md.
fn arrows(root: &Path, broken: &mut Vec<String>) -> Result<(), String> {
    let page = read(&root.join("docs/ARCHITECTURE.md"))?;
    let allowed = table(&page);
    if allowed.is_empty() {
        return Err("docs/ARCHITECTURE.md has no table under \"## Crates\"".to_owned());
    }
    let mut found = BTreeSet::new();
    let folders = std::fs::read_dir(root.join("crates")).map_err(|e| format!("crates: {e}"))?;
    for folder in folders.flatten().filter(|folder| folder.path().join("Cargo.toml").is_file()) {
        let name = folder.file_name().to_string_lossy().into_owned();
        let manifest = read(&folder.path().join("Cargo.toml"))?;
        match allowed.get(&name) {
            Some(may_use) => check_arrows(&name, &manifest, may_use, broken),
            None => broken.push(format!("crates/{name}: not in the table of docs/ARCHITECTURE.md")),
        }
        found.insert(name);
    }
    let gone = allowed.keys().filter(|name| !found.contains(*name));
    broken.extend(gone.map(|name| format!("docs/ARCHITECTURE.md: there is no crate {name}")));
    Ok(())
}

fn check_arrows(name: &str, manifest: &str, may_use: &BTreeSet<String>, broken: &mut Vec<String>) {
    if may_use.contains("any") {
        return;
    }
    for used in our_dependencies(manifest).difference(may_use) {
        broken.push(format!("crates/{name}: may not use {used} (docs/ARCHITECTURE.md, \"Crates\")"));
    }
}

/// Crate to what it may use, from the rows `| crate | what it is | may use |`.
fn table(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let section = page.split("\n## ").find(|section| section.starts_with("Crates")).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 3 && cells[0] != "crate" && !cells[0].starts_with('-'))
        .map(|cells| {
            let words = cells[2].split([',', ' ']).map(|word| word.trim_matches('`'));
            let may_use = words.filter(|word| !matches!(*word, "" | "–" | "-"));
            (cells[0].trim_matches('`').to_owned(), may_use.map(str::to_owned).collect())
        })
        .collect()
}

/// Our crates under `[dependencies]`; what tests use besides does not ship.
fn our_dependencies(manifest: &str) -> BTreeSet<String> {
    let mut in_dependencies = false;
    let mut ours = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]" || line == "[build-dependencies]";
        } else if in_dependencies && let Some(rest) = line.strip_prefix("millpond-") {
            ours.insert(rest.split(['.', ' ', '=']).next().unwrap_or(rest).to_owned());
        }
    }
    ours
}

fn lock_file(lock: &str, broken: &mut Vec<String>) {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        } else if let Some(value) = line.strip_prefix("version = ") {
            versions.entry(name).or_default().push(value.trim_matches('"'));
        }
    }
    for name in SINGLE {
        match versions.get(name).map_or(&[] as &[&str], Vec::as_slice) {
            [_] => {}
            [] => {
                broken.push(format!("Cargo.lock: {name} is gone; take it out of the rule if that is meant"))
            }
            many => broken.push(format!("Cargo.lock: {name} in several versions: {}", many.join(", "))),
        }
    }
    for (name, why) in UNWANTED {
        if versions.contains_key(name) {
            broken.push(format!("Cargo.lock: {name}: {why}"));
        }
    }
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn rust_file(name: &str, text: &str, broken: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.contains(LONG_EXCUSE) {
        broken.push(format!("{name}: {lines} lines, over {LINES_MAX}: split it, or say \"{LONG_EXCUSE} …\""));
    }
    let is_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if is_root && !text.starts_with("//!") {
        broken.push(format!("{name}: begins without //! saying what the crate is"));
    }
    for (at, line) in text.lines().enumerate() {
        for (start, end, instead) in LEFTOVERS {
            let leftover = format!("{start}{end}");
            if line.contains(&leftover) {
                broken.push(format!("{name}:{}: {leftover}: {instead}", at + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        if let Err(broken) = tidy(&crate::root()) {
            panic!("{broken}");
        }
    }

    #[test]
    fn the_table_is_read_and_compared() {
        let page = "# A\n\n## Crates\n\n| crate | what it is | may use |\n|---|---|---|\n| `log` | l | `types`, env |\n\
                    | types | t | – |\n| xtask | x | any |\n\n## Other\n| not | a | crate |\n";
        let table = table(page);
        assert_eq!(table.keys().map(String::as_str).collect::<Vec<_>>(), ["log", "types", "xtask"]);
        let check = |name: &str, manifest: &str| {
            let mut broken = Vec::new();
            check_arrows(name, manifest, &table[name], &mut broken);
            broken
        };
        let manifest = "[package]\nname = \"millpond-x\"\n[dependencies]\nmillpond-types = { workspace = true }\n\
                        millpond-sql.workspace = true\n[dev-dependencies]\nmillpond-plan = { workspace = true }\n";
        assert_eq!(
            check("log", manifest),
            ["crates/log: may not use sql (docs/ARCHITECTURE.md, \"Crates\")"]
        );
        assert_eq!(check("types", manifest).len(), 2);
        assert!(check("xtask", manifest).is_empty());
    }

    #[test]
    fn two_versions_and_unwanted_crates_are_found() {
        let entry = |name: &str, version: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
        };
        let mut lock: String = SINGLE.iter().map(|name| entry(name, "1.0.0")).collect();
        let found = |lock: &str| {
            let mut broken = Vec::new();
            lock_file(lock, &mut broken);
            broken
        };
        assert!(found(&lock).is_empty());
        lock += &entry("rustls", "0.22.0");
        lock += &entry("aws-lc-sys", "0.1.0");
        assert_eq!(found(&lock).len(), 2);
        assert_eq!(found("").len(), SINGLE.len());
    }

    #[test]
    fn files_are_read_for_length_and_leftovers() {
        let found = |name: &str, text: &str| {
            let mut broken = Vec::new();
            rust_file(name, text, &mut broken);
            broken.len()
        };
        assert_eq!(found("crates/a/src/lib.rs", "//! A crate.\n"), 0);
        assert_eq!(found("crates/a/src/lib.rs", "mod a;\n"), 1);
        assert_eq!(found("crates/a/src/b.rs", &format!("fn f() {{ {}{}) }}\n", "todo", "!(")), 1);
        assert_eq!(found("crates/a/src/b.rs", &"\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(
            found(
                "crates/a/src/b.rs",
                &format!("// {LONG_EXCUSE} it is a table\n{}", "\n".repeat(LINES_MAX))
            ),
            0
        );
    }
}
