//! Deep and long texts: an error with its place, in little time, on a small stack.

use std::time::Duration;

use sqlparser::ast::{Visit, Visitor};

use crate::limits::{DEPTH_MAX, NESTING_MAX};
use crate::parse;

/// Runs on a thread with the stack that threads of the server have.
fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap();
    thread.join().unwrap();
}

fn wrapped(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// Texts that nest or chain to any depth.
fn deep(depth: usize) -> Vec<(&'static str, String)> {
    vec![
        ("parentheses", wrapped("(", "1", ")", depth)),
        ("open parentheses", format!("SELECT {}", "(".repeat(depth))),
        ("brackets", wrapped("ARRAY[", "1", "]", depth)),
        ("bare brackets", wrapped("[", "1", "]", depth)),
        ("braces", wrapped("{a: ", "1", "}", depth)),
        ("case", wrapped("CASE WHEN true THEN ", "1", " END", depth)),
        ("not", wrapped("NOT ", "true", "", depth)),
        ("minus", wrapped("- ", "1", "", depth)),
        ("tilde", wrapped("~ ", "1", "", depth)),
        ("at", wrapped("@ ", "1", "", depth)),
        ("root", wrapped("|/ ", "1", "", depth)),
        ("interval", wrapped("INTERVAL ", "'1'", "", depth)),
        ("exists", wrapped("EXISTS (SELECT ", "1", ")", depth)),
        ("subqueries", wrapped("(SELECT ", "1", ")", depth)),
        ("derived tables", format!("{}SELECT 1{}", "SELECT * FROM (".repeat(depth), ") t".repeat(depth))),
        ("nested joins", format!("SELECT * FROM {}t{}", "(".repeat(depth), " JOIN u ON true)".repeat(depth))),
        ("open joins", format!("SELECT * FROM {}t", "(".repeat(depth))),
        ("functions", wrapped("abs(", "1", ")", depth)),
        ("casts", wrapped("CAST(", "1", " AS int)", depth)),
        ("wrong casts", wrapped("CAST(", "1 1", " AS int)", depth)),
        ("wrong extracts", wrapped("EXTRACT(year FROM ", "1 1", ")", depth)),
        ("wrong trims", wrapped("TRIM(", "1 1", ")", depth)),
        ("wrong substrings", wrapped("SUBSTRING(", "1 1", ")", depth)),
        ("wrong cases", wrapped("CASE WHEN ", "1", " THEN", depth)),
        ("wrong subqueries", wrapped("(SELECT ", "1 1", ")", depth)),
        ("wrong derived tables", format!("SELECT * FROM {}1", "(SELECT * FROM ".repeat(depth))),
        ("array types", format!("SELECT 1::{}int{}", "ARRAY<".repeat(depth), ">".repeat(depth))),
        ("with", format!("{}SELECT 1{}", "WITH a AS (".repeat(depth), ") SELECT 1".repeat(depth))),
        ("explain", format!("{}SELECT 1", "EXPLAIN ".repeat(depth))),
        ("prepare", format!("{}SELECT 1", "PREPARE p AS ".repeat(depth))),
        ("sum", wrapped("a + ", "a", "", depth)),
        ("concat", wrapped("a || ", "a", "", depth)),
        ("or", wrapped("a = 1 OR ", "a", "", depth)),
        ("casts by sign", wrapped("", "1", "::int", depth)),
        ("collate", wrapped("", "a", " COLLATE \"C\"", depth)),
        ("at time zone", wrapped("", "a", " AT TIME ZONE 'UTC'", depth)),
        ("is null", wrapped("", "a", " IS NULL", depth)),
        ("subscripts", wrapped("", "a", "[1]", depth)),
        ("power", wrapped("a ^ ", "a", "", depth)),
        ("union", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(depth))),
        ("joins", format!("SELECT * FROM t{}", " JOIN t ON true".repeat(depth))),
        ("between", wrapped("a BETWEEN ", "a", " AND a", depth)),
        ("like", wrapped("a LIKE ", "a", "", depth)),
        ("comparisons", wrapped("a = ", "a", "", depth)),
        ("custom operators", wrapped("a OPERATOR(pg_catalog.+) ", "a", "", depth)),
        ("lambda", wrapped("x -> ", "a", "", depth)),
    ]
}

/// Counts nodes, as a planner would walk them.
struct Count(usize);

impl Visitor for Count {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &sqlparser::ast::Expr) -> std::ops::ControlFlow<()> {
        self.0 += 1;
        std::ops::ControlFlow::Continue(())
    }
}

#[test]
fn ten_thousand_deep_is_an_error_and_not_a_crash() {
    on_small_stack(|| {
        for (what, text) in deep(10_000) {
            match parse(&text) {
                Err(error) => {
                    let state = error.state().to_string();
                    assert!(
                        ["54001", "42601", "0A000", "42704"].contains(&state.as_str()),
                        "{what}: {state} {error}"
                    );
                }
                Ok(_) => assert!(matches!(what, "subscripts"), "{what} parsed"),
            }
        }
    });
}

#[test]
fn what_is_within_the_bounds_can_be_walked_cloned_compared_and_dropped() {
    on_small_stack(|| {
        for depth in [5, 25, NESTING_MAX / 4 - 2, NESTING_MAX - 3, DEPTH_MAX - 3] {
            for (what, text) in deep(depth) {
                #[expect(clippy::disallowed_methods, reason = "a bound on real time is what is tested")]
                let started = std::time::Instant::now();
                if let Ok(parsed) = parse(&text) {
                    assert_eq!(parsed, parsed.clone(), "{what}");
                    if let crate::Statement::Query(query) = &parsed[0].statement {
                        let mut count = Count(0);
                        let _ = query.visit(&mut count);
                        assert!(format!("{query:?}").len() > count.0);
                        assert!(!query.to_string().is_empty());
                    }
                }
                let spent = started.elapsed();
                assert!(spent < Duration::from_secs(5), "{what} {depth} took {spent:?}");
            }
        }
    });
}

#[test]
fn what_is_right_and_within_the_bounds_parses() {
    for depth in [5, 25, NESTING_MAX - 8] {
        for (what, text) in deep(depth) {
            let right = [
                "parentheses",
                "brackets",
                "case",
                "not",
                "minus",
                "functions",
                "casts",
                "sum",
                "or",
                "joins",
            ];
            let is_small =
                depth == 5 && ["subqueries", "derived tables", "exists", "nested joins"].contains(&what);
            if right.contains(&what) || is_small {
                let outcome = parse(&text);
                assert!(outcome.is_ok(), "{what} {depth}: {:?}", outcome.err());
            }
        }
    }
    for (what, text) in deep(NESTING_MAX / 4 - 3) {
        if ["derived tables", "with"].contains(&what) {
            assert!(parse(&text).is_ok(), "{what}: {:?}", parse(&text).err());
        }
    }
    // A planner takes time exponential in these.
    for (what, text) in deep(10).into_iter().chain(deep(14)) {
        let is_fine = text.matches("(SELECT").count() < 12;
        if ["subqueries", "exists"].contains(&what) {
            assert_eq!(parse(&text).is_ok(), is_fine, "{what}: {:?}", parse(&text).err());
        }
    }
}

#[test]
fn long_lists_are_not_deep() {
    let list = vec!["1"; 20_000].join(", ");
    assert!(parse(&format!("SELECT * FROM t WHERE a IN ({list})")).is_ok());
    let rows = vec!["(1, -2, 'a' || 'b', now() - interval '1 day')"; 5_000].join(", ");
    assert!(parse(&format!("INSERT INTO t VALUES {rows}")).is_ok());
    assert!(parse(&"SELECT 1 + 1;".repeat(5_000)).is_ok());
    let columns: Vec<_> = (0..1_600).map(|n| format!("c{n} int NOT NULL DEFAULT 1 + 1")).collect();
    assert!(parse(&format!("CREATE TABLE t ({})", columns.join(", "))).is_ok());
    let terms = vec!["(a = 1 AND b BETWEEN 2 AND 3)"; DEPTH_MAX - 100].join(" OR ");
    assert!(parse(&format!("SELECT * FROM t WHERE {terms}")).is_ok());
}

#[test]
fn too_much_text_is_refused_before_it_is_read() {
    let text = format!("SELECT '{}'", "x".repeat(crate::limits::TEXT_BYTES_MAX));
    let error = parse(&text).unwrap_err();
    assert_eq!(
        (error.state().as_str(), error.message()),
        ("54000", "a statement's text is limited to 64 MB")
    );
    let text = format!("SELECT {}1", "1,".repeat(crate::limits::TOKENS_MAX / 2));
    assert_eq!(parse(&text).unwrap_err().state().as_str(), "54000");
    assert!(parse(&format!("SELECT '{}'", "x".repeat(10 << 20))).is_ok());
}
