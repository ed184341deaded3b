//! docs/functions.md is what the registry holds.

#![allow(clippy::disallowed_methods, reason = "the page lies in the repository")]

use std::collections::BTreeMap;
use std::fmt::Write;

use millpond_functions::aggregate::moments::Spread;
use millpond_functions::sets::set_functions;
use millpond_functions::{Registry, all_aggregate, all_scalar, all_window};

const ABOUT: &str = "\
# Functions

What SQL may call, from the registry (`crates/functions`); names in brackets mean the same function. Results and errors are those of
PostgreSQL 15, where it has the function. Operators, casts, CASE, EXTRACT, SUBSTRING … FROM and other constructs with a grammar of
their own become calls of these. Functions of the catalog (`pg_get_viewdef`, `format_type`, …) are there for
SELECT, not in materialized views.

`MILLPOND_WRITE_DOCS=1 cargo nextest run --workspace -E 'test(functions_page)'` writes this page again; the test fails when it is
out of date.
";

fn row(name: &str, aliases: &[String]) -> String {
    let mut others: Vec<&str> = aliases.iter().map(String::as_str).filter(|alias| *alias != name).collect();
    others.sort_unstable();
    others.dedup();
    match others.is_empty() {
        true => format!("`{name}`"),
        false => {
            format!("`{name}` ({})", others.iter().map(|o| format!("`{o}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Behind operators and casts, not for people.
fn is_internal(name: &str) -> bool {
    name.starts_with("checked_")
        || ["pg_cast", "interval_length", "timestamptz_add", "timestamptz_subtract", "similar_to_escape"]
            .contains(&name)
        || name.starts_with("tumble_")
        || name.starts_with("hop_")
        || name.starts_with("cumulate_")
}

fn paragraph(page: &mut String, title: &str, functions: Vec<String>) {
    let _ = write!(page, "\n## {title}\n");
    // By first letters, so that a new one changes one line.
    let mut lines: BTreeMap<char, Vec<String>> = BTreeMap::new();
    for function in functions {
        let initial = function.chars().nth(1).unwrap_or('-');
        lines.entry(initial).or_default().push(function);
    }
    for functions in lines.values() {
        let _ = write!(page, "\n{}", functions.join(", "));
        page.push('\n');
    }
}

fn page() -> String {
    let mut page = ABOUT.to_owned();
    let scalar = all_scalar().into_iter().filter(|f| !is_internal(f.name()));
    paragraph(&mut page, "Of one row", scalar.map(|f| row(f.name(), f.aliases())).collect());
    let accumulated = |name: &str| {
        ["count", "sum", "avg", "min", "max", "bool_and", "bool_or"].contains(&name)
            || Spread::named(name).is_some()
    };
    let (one_step, rows): (Vec<_>, Vec<_>) = all_aggregate().into_iter().partition(|f| accumulated(f.name()));
    let shown = |functions: Vec<std::sync::Arc<datafusion::logical_expr::AggregateUDF>>| {
        functions.iter().map(|f| row(f.name(), f.aliases())).collect::<Vec<_>>()
    };
    paragraph(&mut page, "Aggregates that views keep up to date with an accumulator", shown(one_step));
    paragraph(&mut page, "Aggregates that views compute from the rows of a group", shown(rows));
    let sets = set_functions().into_iter().map(|name| format!("`{name}`"));
    paragraph(&mut page, "Returning sets of rows", sets.collect());
    let windows = all_window().into_iter().map(|f| row(f.name(), f.aliases()));
    paragraph(&mut page, "Over windows (and every aggregate)", windows.collect());
    page
}

#[test]
fn functions_page_is_the_registry() {
    assert!(Registry::global().scalar("upper").is_some());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/functions.md");
    let page = page();
    if std::env::var_os("MILLPOND_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == page, "docs/functions.md is out of date: MILLPOND_WRITE_DOCS=1 writes it again");
}
