//! INSERT, UPDATE, DELETE and expressions of columns.

use millpond_plan::dml::Returning;
use millpond_plan::{DeletePlan, InsertPlan, OnConflict, UpdatePlan};
use millpond_sql::Statement;
use millpond_types::{SqlError, SqlType};

use crate::support::{check_all, columns, described, planner};

pub enum Write {
    Insert(Box<InsertPlan>),
    Update(Box<UpdatePlan>),
    Delete(Box<DeletePlan>),
}

pub fn write(sql: &str) -> Result<Write, SqlError> {
    Ok(match millpond_sql::parse_one(sql)?.statement {
        Statement::Insert(insert) => Write::Insert(Box::new(planner().plan_insert(&insert, &[])?)),
        Statement::Update(update) => Write::Update(Box::new(planner().plan_update(&update, &[])?)),
        Statement::Delete(delete) => Write::Delete(Box::new(planner().plan_delete(&delete, &[])?)),
        other => panic!("{other:?}"),
    })
}

fn types(types: &[SqlType]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn expressions<'a>(expressions: impl IntoIterator<Item = &'a datafusion::logical_expr::Expr>) -> String {
    expressions.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn returned(returning: &Option<Returning>) -> String {
    returning.as_ref().map_or(String::new(), |r| {
        format!(" RETURNING {} [{}]", expressions(&r.expressions), columns(&r.columns))
    })
}

fn shown(sql: &str) -> String {
    // Literals print the marks of their types.
    let text = shown_with_marks(sql);
    let pieces = text.split(" FieldMetadata { inner: {").enumerate();
    pieces.map(|(i, piece)| if i == 0 { piece } else { piece.split_once("} }").unwrap().1 }).collect()
}

fn shown_with_marks(sql: &str) -> String {
    match write(sql) {
        Err(error) => described(&error),
        Ok(Write::Insert(plan)) => {
            let rows = plan.rows.display_indent().to_string().replace('\n', " |");
            let conflict = match &plan.on_conflict {
                OnConflict::Error => String::new(),
                OnConflict::Nothing => " ON CONFLICT NOTHING".to_owned(),
                OnConflict::Update { assignments, filter } => {
                    format!(" ON CONFLICT SET {} WHERE {}", expressions(assignments), expressions(filter))
                }
            };
            let parameters = if plan.parameters.is_empty() {
                String::new()
            } else {
                format!(" ({})", types(&plan.parameters))
            };
            format!("{rows}{conflict}{}{parameters}", returned(&plan.returning))
        }
        Ok(Write::Update(plan)) => {
            let point = plan.point.as_ref().map_or(String::new(), |p| format!(" POINT {}", expressions(p)));
            let parameters = if plan.parameters.is_empty() {
                String::new()
            } else {
                format!(" ({})", types(&plan.parameters))
            };
            format!(
                "SET {} WHERE {}{point}{}{parameters}",
                expressions(&plan.assignments),
                expressions(&plan.filter),
                returned(&plan.returning)
            )
        }
        Ok(Write::Delete(plan)) => {
            let point = plan.point.as_ref().map_or(String::new(), |p| format!(" POINT {}", expressions(p)));
            format!("WHERE {}{point}{}", expressions(&plan.filter), returned(&plan.returning))
        }
    }
}

#[test]
fn inserts_give_complete_rows() {
    check_all(
        [
            (
                "INSERT INTO acc VALUES (1, 'ann', 2.5, 3)",
                "Values: (Int32(1), Utf8(\"ann\"), Decimal128(2.50,12,2), Int32(3), Int32(NULL))",
            ),
            (
                "INSERT INTO acc (id) VALUES (1), (2)",
                "Values: (Int32(1), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(NULL), Int32(NULL)), (Int32(2), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(NULL), Int32(NULL))",
            ),
            (
                "INSERT INTO acc (n, id) VALUES (DEFAULT, '7')",
                "Values: (Int32(7), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(NULL), Int32(NULL))",
            ),
            (
                "INSERT INTO acc DEFAULT VALUES",
                "Values: (Int32(NULL), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(NULL), Int32(NULL))",
            ),
            (
                "INSERT INTO acc (id, n) SELECT price, auction FROM bid",
                "Projection: pg_assign(bid.price) AS id, Utf8(\"nobody\") AS owner, Decimal128(0.00,12,2) AS balance, pg_assign(bid.auction) AS n, Int32(NULL) AS double |  TableScan: bid projection=[auction, price]",
            ),
            (
                "INSERT INTO plain (a, b) SELECT 1, 'x'",
                "Projection: Int32(1) AS a, Utf8(\"x\") AS b, FixedSizeBinary(16, NULL) AS u |  EmptyRelation: rows=1",
            ),
            (
                "INSERT INTO plain VALUES (1, 5, NULL)",
                "Values: (Int32(1), Utf8(\"5\"), FixedSizeBinary(16, NULL))",
            ),
            (
                "INSERT INTO plain (u) VALUES ('00000000-0000-0000-0000-000000000001')",
                "Values: (Int32(NULL), Utf8(NULL), FixedSizeBinary(16, \"0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1\"))",
            ),
            (
                "INSERT INTO plain (a) VALUES (1.6)",
                "Values: (Int32(2), Utf8(NULL), FixedSizeBinary(16, NULL))",
            ),
            (
                "INSERT INTO bid (auction, ts) VALUES (1, '2024-01-01 00:00:00')",
                "Values: (Int64(1), Int64(NULL), Int64(NULL), Utf8(NULL), Utf8(NULL), TimestampMicrosecond(1704067200000000, None))",
            ),
            (
                "INSERT INTO plain (a, b) VALUES ($1, $2)",
                "Values: ($1, $2, FixedSizeBinary(16, NULL)) (integer, text)",
            ),
            (
                "INSERT INTO plain (a, b) SELECT $1, $2",
                "Projection: $1 AS a, $2 AS b, FixedSizeBinary(16, NULL) AS u |  EmptyRelation: rows=1 (integer, text)",
            ),
            (
                "INSERT INTO plain (a) VALUES ((SELECT max(k) FROM ev))",
                "Projection: (<subquery>) AS a, Utf8(NULL) AS b, FixedSizeBinary(16, NULL) AS u |  Subquery: |    Aggregate: groupBy=[[]], aggr=[[max(ev.k)]] |      TableScan: ev projection=[k] |  EmptyRelation: rows=1",
            ),
            (
                "INSERT INTO acc (id) VALUES (1) ON CONFLICT DO NOTHING",
                "Values: (Int32(1), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(NULL), Int32(NULL)) ON CONFLICT NOTHING",
            ),
            (
                "INSERT INTO acc (id, n) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET n = acc.n + excluded.n WHERE acc.n < 5 RETURNING id, n AS m, *",
                "Values: (Int32(1), Utf8(\"nobody\"), Decimal128(0.00,12,2), Int32(2), Int32(NULL)) ON CONFLICT SET id, owner, balance, checked_add(n, excluded.n), double WHERE n < Int32(5) RETURNING id, n, id, owner, balance, n, double [id integer, m integer, id integer, owner character varying(10), balance numeric(12,2), n integer, double integer]",
            ),
        ],
        shown,
    );
}

#[test]
fn wrong_inserts_are_told_in_postgresqls_words() {
    check_all(
        [
            (
                "INSERT INTO plain VALUES (1, 'a', NULL, 4)",
                "42601 41 INSERT has more expressions than target columns",
            ),
            (
                "INSERT INTO plain (a, b) VALUES (1)",
                "42601 - INSERT has more target columns than expressions",
            ),
            ("INSERT INTO plain (a) VALUES (1), (1, 2)", "42601 36 VALUES lists must all be the same length"),
            (
                "INSERT INTO plain (a, c) VALUES (1, 2)",
                "42703 23 column \"c\" of relation \"plain\" does not exist",
            ),
            ("INSERT INTO plain (a, a) VALUES (1, 2)", "42701 23 column \"a\" specified more than once"),
            (
                "INSERT INTO plain (a) VALUES (true)",
                "42804 31 column \"a\" is of type integer but expression is of type boolean",
            ),
            (
                "INSERT INTO plain (a) VALUES (upper('x'))",
                "42804 31 column \"a\" is of type integer but expression is of type text",
            ),
            ("INSERT INTO plain (a) VALUES ('x')", "22P02 31 invalid input syntax for type integer: \"x\""),
            (
                "INSERT INTO plain (a) SELECT channel FROM bid",
                "42804 - column \"a\" is of type integer but expression is of type text",
            ),
            (
                "INSERT INTO acc (id, double) VALUES (1, 2)",
                "428C9 41 cannot insert a non-DEFAULT value into column \"double\"",
            ),
            ("INSERT INTO nothere VALUES (1)", "42P01 13 relation \"nothere\" does not exist"),
            ("INSERT INTO totals VALUES (1, 2)", "42809 13 cannot change materialized view \"totals\""),
            ("INSERT INTO twice VALUES (1, 2)", "0A000 13 cannot write to view \"twice\""),
            (
                "INSERT INTO acc (id) VALUES (1) ON CONFLICT (n) DO NOTHING",
                "42P10 - there is no unique or exclusion constraint matching the ON CONFLICT specification",
            ),
            (
                "INSERT INTO acc (id) VALUES (1) ON CONFLICT DO UPDATE SET n = 1",
                "42601 - ON CONFLICT DO UPDATE requires inference specification or constraint name",
            ),
            (
                "INSERT INTO acc (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = n + 1",
                "42702 68 column reference \"n\" is ambiguous",
            ),
            (
                "INSERT INTO plain (a) VALUES (count(*))",
                "42803 31 aggregate functions are not allowed in VALUES",
            ),
            ("INSERT INTO plain (a) VALUES (b)", "42703 31 column \"b\" does not exist"),
        ],
        shown,
    );
}

#[test]
fn updates_give_complete_new_rows() {
    check_all(
        [
            (
                "UPDATE acc SET n = n + 1 WHERE id = 5",
                "SET id, owner, balance, checked_add(n, Int32(1)), double WHERE id = Int32(5) POINT Int32(5)",
            ),
            (
                "UPDATE acc SET balance = balance - 0.5, owner = 'bob' WHERE n > 3 AND owner = 'ann'",
                "SET id, Utf8(\"bob\"), pg_assign(checked_subtract(balance, Decimal128(0.5,1,1))), n, double WHERE n > Int32(3) AND owner = Utf8(\"ann\")",
            ),
            (
                "UPDATE acc AS a SET (n, owner) = (1, DEFAULT) RETURNING a.n, double",
                "SET id, Utf8(\"nobody\"), balance, Int32(1), double WHERE  RETURNING n, double [n integer, double integer]",
            ),
            (
                "UPDATE acc SET n = $2 WHERE id = $1",
                "SET id, owner, balance, $2, double WHERE id = $1 POINT $1 (integer, integer)",
            ),
            ("UPDATE plain SET a = 1 WHERE a = 1", "SET Int32(1), b, u WHERE a = Int32(1)"),
            ("DELETE FROM acc WHERE id = 1 + 1", "WHERE id = Int32(2) POINT Int32(2)"),
            (
                "DELETE FROM acc WHERE 3 = id AND n > 1 RETURNING *",
                "WHERE id = Int32(3) AND n > Int32(1) POINT Int32(3) RETURNING id, owner, balance, n, double [id integer, owner character varying(10), balance numeric(12,2), n integer, double integer]",
            ),
            ("DELETE FROM plain", "WHERE "),
            ("UPDATE acc SET nope = 1", "42703 16 column \"nope\" of relation \"acc\" does not exist"),
            ("UPDATE acc SET n = 1, n = 2", "42601 27 multiple assignments to same column \"n\""),
            ("UPDATE acc SET n = 'x'", "22P02 20 invalid input syntax for type integer: \"x\""),
            (
                "UPDATE acc SET n = owner",
                "42804 20 column \"n\" is of type integer but expression is of type character varying",
            ),
            ("UPDATE acc SET double = 1", "428C9 25 column \"double\" can only be updated to DEFAULT"),
            (
                "UPDATE acc SET n = 1 WHERE n",
                "42804 28 argument of WHERE must be type boolean, not type integer",
            ),
            ("UPDATE bid SET price = 1", "42809 8 cannot update source bid"),
            ("DELETE FROM bid", "42809 13 cannot delete source bid"),
            ("UPDATE acc SET n = 1 FROM bid", "0A000 - UPDATE ... FROM is not supported"),
            (
                "DELETE FROM acc WHERE id IN (SELECT auction FROM bid)",
                "0A000 23 a subquery in WHERE is not supported",
            ),
        ],
        shown,
    );
}

#[test]
fn expressions_of_columns_are_typed() {
    let fields = [("n".to_owned(), SqlType::Int4, false), ("ts".to_owned(), SqlType::Timestamp, false)];
    let shown = |text: &str, to: Option<(&str, &SqlType)>| {
        let planned = millpond_sql::parse_expression(text)
            .and_then(|e| planner().plan_column_expression(&fields, &e, to));
        planned
            .map_or_else(|e| described(&e), |p| format!("{} {} {:?} {}", p.expr, p.ty, p.columns, p.volatile))
    };
    check_all(
        [
            (
                "ts - INTERVAL '4 seconds'",
                "checked_subtract(ts, IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 4000000000 }\")) timestamp without time zone [1] false",
            ),
            ("n * 2 > 5", "checked_multiply(n, Int32(2)) > Int32(5) boolean [0] false"),
            ("nope + 1", "42703 1 column \"nope\" does not exist"),
            (
                "now()",
                "TimestampMicrosecond(1700000000000000, Some(\"+00:00\")) timestamp with time zone [] true",
            ),
            ("sum(n)", "42803 - aggregate functions are not allowed in an expression of a column"),
            ("(SELECT 1)", "0A000 - a subquery in an expression of a column is not supported"),
        ],
        |text| shown(text, None),
    );
    assert_eq!(shown("'5'", Some(("n", &SqlType::Int8))), "Int64(5) bigint [] false");
    assert_eq!(
        shown("ts", Some(("n", &SqlType::Int8))),
        "42804 1 column \"n\" is of type bigint but expression is of type timestamp without time zone"
    );
}

/// Drivers send many rows in one statement, each value a parameter.
#[test]
fn a_long_insert_is_planned_in_linear_time() {
    let rows =
        |n: usize| (0..n).map(|i| format!("(${}, ${})", 2 * i + 1, 2 * i + 2)).collect::<Vec<_>>().join(", ");
    let Ok(Write::Insert(plan)) = write(&format!("INSERT INTO plain (a, b) VALUES {}", rows(5_000))) else {
        panic!()
    };
    assert_eq!(plan.parameters.len(), 10_000);
    let literals = (0..5_000).map(|i| format!("({i}, 'row {i}')")).collect::<Vec<_>>().join(", ");
    assert!(write(&format!("INSERT INTO plain (a, b) VALUES {literals}")).is_ok());
}
