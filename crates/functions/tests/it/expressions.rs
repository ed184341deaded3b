//! `cases/*.txt`: an expression and PostgreSQL 15's answer in each line, `expression => answer`; `!` begins an error.
//! What differs on purpose is written as `expression => ours (PostgreSQL: theirs, because ...)`.

use crate::session::{context, value};

async fn check(cases: &str) {
    let context = context();
    let mut failures = Vec::new();
    // An answer of several rows goes on in lines that begin with `+ `.
    let cases = cases.replace("\n+ ", "\u{1}");
    for line in cases.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (expression, expected) = line.split_once(" => ").expect("a case has ` => `");
        let expected = expected.split(" (PostgreSQL: ").next().unwrap_or(expected);
        let found = value(&context, expression).await.replace('\n', "\u{1}");
        if found != expected {
            failures.push(format!("{expression}\n    expected {expected}\n    found    {found}"));
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn arithmetic() {
    check(include_str!("cases/arithmetic.txt")).await;
}

#[tokio::test]
async fn casts() {
    check(include_str!("cases/casts.txt")).await;
}

#[tokio::test]
async fn datetime() {
    check(include_str!("cases/datetime.txt")).await;
}

#[tokio::test]
async fn text() {
    check(include_str!("cases/text.txt")).await;
}

#[tokio::test]
async fn math() {
    check(include_str!("cases/math.txt")).await;
}

#[tokio::test]
async fn aggregates() {
    check(include_str!("cases/aggregates.txt")).await;
}
