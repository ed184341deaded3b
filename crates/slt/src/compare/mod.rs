//! The second oracle: the same random statements on Millpond and on PostgreSQL.
//!
//! One seed is two tables with random rows of all types, and some queries of the [`grammar`]. Names and types of columns,
//! rows, their order where ORDER BY fixes it, and SQLSTATEs of errors must be the same; some queries are asked of a
//! materialized view as well. Numbers with digits after the point may differ in their last ones, as the scale of a quotient
//! and the order of terms do. What Millpond says that it does not have (0A000) is counted, not compared.

mod grammar;
mod sets;
mod subqueries;

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use self::grammar::Grammar;

/// What was done, for the report.
#[derive(Debug, Default)]
pub struct Report {
    pub queries: usize,
    pub views: usize,
    /// Both refused, with one SQLSTATE.
    pub errors: usize,
    /// Millpond says that it cannot.
    pub unsupported: BTreeMap<String, usize>,
    /// How often each rule of the grammar was drawn.
    pub rules: BTreeMap<&'static str, usize>,
    pub differences: Vec<String>,
}

/// Queries per seed.
const QUERIES: usize = 40;

/// Compares `seeds` on two servers, given by connection strings.
///
/// # Errors
/// If a connection fails. Differences are in the report.
pub async fn run(
    millpond: &str,
    postgresql: &str,
    seeds: std::ops::Range<u64>,
    mut progress: impl FnMut(u64, &Report),
) -> Result<Report, String> {
    let mut report = Report::default();
    let (mut ours, theirs) = (connect(millpond).await?, connect(postgresql).await?);
    for seed in seeds {
        one_seed(seed, (&mut ours, millpond), &theirs, &mut report).await?;
        progress(seed, &report);
    }
    Ok(report)
}

async fn connect(config: &str) -> Result<Client, String> {
    let (client, connection) = tokio_postgres::connect(config, NoTls)
        .await
        .map_err(|e| format!("no connection to {config}: {e}"))?;
    tokio::spawn(connection); // ends with the client, or with the server
    Ok(client)
}

async fn one_seed(
    seed: u64,
    (ours, config): (&mut Client, &str),
    theirs: &Client,
    report: &mut Report,
) -> Result<(), String> {
    let mut grammar = Grammar::new(seed);
    let mut statements: Vec<String> =
        vec!["DROP TABLE IF EXISTS t CASCADE".to_owned(), "DROP TABLE IF EXISTS u CASCADE".to_owned()];
    statements.extend(grammar.tables());
    for statement in &statements {
        for (name, client) in [("Millpond", &*ours), ("PostgreSQL", theirs)] {
            client
                .batch_execute(statement)
                .await
                .map_err(|e| format!("{name}: {statement}: {}", told(&e)))?;
        }
    }
    for _ in 0..QUERIES {
        let query = grammar.query();
        if ours.is_closed() {
            // What ended it is a difference already.
            *ours = connect(config).await?;
        }
        let (a, b) = (ask(ours, &query.sql).await, ask(theirs, &query.sql).await);
        report.queries += 1;
        if let Err(why) = compare(&a, &b, query.ordered_by, report) {
            report.differences.push(format!("seed {seed}: {why}\n  {};", query.sql));
            continue;
        }
        if !query.viewable || a.is_err() {
            continue;
        }
        // Names of its own: those of a query may repeat.
        let names = (1..=b.as_ref().map_or(0, |b| b.columns.len())).map(|n| format!("c{n}"));
        let names = names.collect::<Vec<_>>().join(", ");
        let _ = ours.batch_execute("DROP MATERIALIZED VIEW IF EXISTS v").await;
        let made =
            ours.batch_execute(&format!("CREATE MATERIALIZED VIEW v ({names}) AS {}", query.sql)).await;
        match made {
            Ok(()) => {
                let mut shown = ask(ours, "SELECT * FROM v").await;
                if let (Ok(shown), Ok(b)) = (&mut shown, &b) {
                    shown
                        .columns
                        .iter_mut()
                        .zip(&b.columns)
                        .for_each(|(ours, theirs)| ours.0.clone_from(&theirs.0));
                }
                report.views += 1;
                if let Err(why) = compare(&shown, &b, 0, report) {
                    report.differences.push(format!("seed {seed}: as a view: {why}\n  {};", query.sql));
                }
                ours.batch_execute("DROP MATERIALIZED VIEW v").await.map_err(|e| told(&e))?;
            }
            Err(error) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                *report.unsupported.entry(told(&error)).or_default() += 1;
            }
            Err(error) => {
                report.differences.push(format!(
                    "seed {seed}: as a view: {}\n  {};",
                    told(&error),
                    query.sql
                ));
            }
        }
    }
    for (rule, times) in grammar.drawn() {
        *report.rules.entry(rule).or_default() += times;
    }
    Ok(())
}

struct Answer {
    /// Names and types of columns.
    columns: Vec<(String, String)>,
    rows: Vec<Vec<Option<String>>>,
}

async fn ask(client: &Client, sql: &str) -> Result<Answer, tokio_postgres::Error> {
    let prepared = client.prepare(sql).await?;
    let columns =
        prepared.columns().iter().map(|c| (c.name().to_owned(), type_name(c.type_().name()))).collect();
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
        }
    }
    Ok(Answer { columns, rows })
}

/// Where varchar meets text, which of both comes out is not always PostgreSQL's choice.
fn type_name(name: &str) -> String {
    match name {
        "varchar" => "text",
        "_varchar" => "_text",
        other => other,
    }
    .to_owned()
}

fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}

/// `ordered_by`: how many columns, from the first on, ORDER BY names.
fn compare(
    ours: &Result<Answer, tokio_postgres::Error>,
    theirs: &Result<Answer, tokio_postgres::Error>,
    ordered_by: usize,
    report: &mut Report,
) -> Result<(), String> {
    let (a, b) = match (ours, theirs) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
            *report.unsupported.entry(told(error)).or_default() += 1;
            return Ok(());
        }
        (Err(a), Err(b)) if a.code() == b.code() => {
            report.errors += 1;
            return Ok(());
        }
        (a, b) => {
            let said = |answer: &Result<Answer, tokio_postgres::Error>| match answer {
                Ok(answer) => {
                    let first: Vec<_> = answer.rows.iter().take(3).map(|row| shown(row)).collect();
                    format!("{} rows, {}", answer.rows.len(), first.join("; "))
                }
                Err(error) => told(error),
            };
            return Err(format!("Millpond: {}\n  PostgreSQL: {}", said(a), said(b)));
        }
    };
    if a.columns != b.columns {
        return Err(format!("columns differ: Millpond {:?}\n  PostgreSQL {:?}", a.columns, b.columns));
    }
    let types: Vec<&str> = a.columns.iter().map(|(_, ty)| ty.as_str()).collect();
    for at in 0..ordered_by.min(types.len()) {
        let column = |answer: &Answer| -> Vec<Option<String>> {
            answer.rows.iter().map(|row| rounded(row[at].as_deref(), types[at])).collect()
        };
        // Later columns are in order among equal earlier ones only, which the rows as a whole show.
        if at == 0 && column(a) != column(b) {
            return Err(format!("order differs: Millpond {:?}\n  PostgreSQL {:?}", column(a), column(b)));
        }
    }
    let rows = |answer: &Answer| -> Vec<Vec<Option<String>>> {
        let rounded = |row: &Vec<Option<String>>| {
            row.iter().zip(&types).map(|(value, ty)| rounded(value.as_deref(), ty)).collect()
        };
        let mut rows: Vec<_> = answer.rows.iter().map(rounded).collect();
        rows.sort();
        rows
    };
    let (ours, theirs) = (rows(a), rows(b));
    let only = |these: &[Vec<Option<String>>], those: &[Vec<Option<String>>]| {
        let some: Vec<_> =
            these.iter().filter(|row| !those.contains(row)).take(4).map(|r| shown(r)).collect();
        some.join("; ")
    };
    match ours == theirs {
        true => Ok(()),
        false => Err(format!(
            "rows differ ({} and {}): only Millpond {}\n  only PostgreSQL {}",
            ours.len(),
            theirs.len(),
            only(&ours, &theirs),
            only(&theirs, &ours)
        )),
    }
}

fn shown(row: &[Option<String>]) -> String {
    let values: Vec<_> = row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    format!("({})", values.join(", "))
}

/// The value with as many digits as both surely have.
fn rounded(value: Option<&str>, ty: &str) -> Option<String> {
    let value = value?;
    let number = matches!(ty, "numeric" | "float8" | "float4");
    Some(match value.parse::<f64>() {
        Ok(number_value) if number && number_value.is_finite() => {
            let digits = if ty == "float4" { 5 } else { 10 };
            let text = format!("{number_value:.digits$e}");
            if text.trim_start_matches('-').starts_with("0.") { "0".to_owned() } else { text }
        }
        _ => value.to_owned(),
    })
}
