//! Names, types and parameters of queries.

use millpond_types::SqlType;

use crate::support::{check_all, columns, described, query, query_with};

fn shape(sql: &str) -> String {
    query(sql).map_or_else(|e| described(&e), |plan| columns(&plan.columns))
}

#[test]
fn outputs_are_named_and_typed_as_in_postgresql() {
    check_all(
        [
            ("SELECT 1", "?column? integer"),
            ("SELECT 1, 2, 'x'", "?column? integer, ?column? integer, ?column? text"),
            ("SELECT 3000000000", "?column? bigint"),
            ("SELECT 1.50", "?column? numeric(3,2)"),
            ("SELECT 1::bigint", "int8 bigint"),
            ("SELECT price::int FROM bid", "price integer"),
            (
                "SELECT count(*), count(price), sum(price), sum(price) FROM bid",
                "count bigint, count bigint, sum numeric(38,0), sum numeric(38,0)",
            ),
            ("SELECT avg(price) FROM bid", "avg numeric(38,16)"),
            ("SELECT sum(k) FROM ev", "sum bigint"),
            ("SELECT sum(v) FROM ev", "sum numeric(38,2)"),
            ("SELECT CASE WHEN price > 1 THEN 'a' ELSE 'b' END FROM bid", "case text"),
            ("SELECT coalesce(channel, 'x') FROM bid", "coalesce text"),
            ("SELECT upper(channel) FROM bid", "upper text"),
            ("SELECT true", "bool boolean"),
            ("SELECT (SELECT max(price) FROM bid)", "max bigint"),
            ("SELECT EXISTS (SELECT 1 FROM bid)", "exists boolean"),
            ("SELECT price AS p, price AS p FROM bid", "p bigint, p bigint"),
            ("SELECT a.price, b.price FROM bid a, bid b", "price bigint, price bigint"),
            (
                "SELECT *, k + 1 AS k FROM ev",
                "k integer, v numeric(10,2), at timestamp with time zone, d date, k integer",
            ),
            ("SELECT count FROM (SELECT count(*) FROM bid) x", "count bigint"),
            ("SELECT ts FROM bid", "ts timestamp without time zone"),
            ("SELECT owner FROM acc", "owner character varying(10)"),
            ("SELECT u FROM plain", "u uuid"),
            ("SELECT '1 day'::interval", "interval interval"),
            (
                "SELECT current_timestamp, localtimestamp(3)",
                "current_timestamp timestamp with time zone, localtimestamp timestamp without time zone",
            ),
            ("SELECT generate_series(1, 3)", "generate_series integer"),
            ("SELECT * FROM unnest(ARRAY[1, 2])", "unnest integer"),
            ("SELECT DISTINCT ON (k) k, v FROM ev ORDER BY k, v", "k integer, v numeric(10,2)"),
            ("SELECT substr(channel, 1, 2) FROM bid", "substr text"),
            ("SELECT now()", "now timestamp with time zone"),
            ("SELECT current_user, current_date", "current_user text, current_date date"),
            ("SELECT NULL", "?column? text"),
            ("SELECT public.bid.price FROM public.bid", "price bigint"),
            ("SELECT * FROM twice", "auction bigint, double bigint, ts timestamp without time zone"),
            ("SELECT * FROM generate_series(1, 3)", "generate_series integer"),
            ("SELECT * FROM generate_series(1, 3) g", "g integer"),
            ("SELECT x FROM generate_series(1, 3) AS g(x)", "x integer"),
            ("WITH c AS (SELECT k FROM ev) SELECT * FROM c", "k integer"),
            ("VALUES (1, 'a'), (2, 'b')", "column1 integer, column2 text"),
            ("SELECT k FROM ev UNION ALL SELECT 1", "k integer"),
            ("SELECT k FROM ev FETCH FIRST 2 ROWS ONLY", "k integer"),
        ],
        shape,
    );
}

#[test]
fn metadata_columns_appear_when_named_and_only_then() {
    check_all(
        [
            ("SELECT * FROM ev", "k integer, v numeric(10,2), at timestamp with time zone, d date"),
            ("SELECT _offset, k FROM ev", "_offset bigint, k integer"),
            (
                "SELECT *, _partition, _commit FROM ev WHERE _offset > 5",
                "k integer, v numeric(10,2), at timestamp with time zone, d date, _partition integer, _commit bigint",
            ),
            ("SELECT e._ingest_time FROM ev AS e", "_ingest_time timestamp with time zone"),
            ("SELECT _watermark FROM bid", "_watermark timestamp without time zone"),
            (
                "SELECT * FROM (SELECT * FROM ev WHERE _offset > 1) x",
                "k integer, v numeric(10,2), at timestamp with time zone, d date",
            ),
            ("SELECT o FROM (SELECT _offset AS o FROM ev) x", "o bigint"),
            ("WITH c AS (SELECT _offset, k FROM ev) SELECT * FROM c", "_offset bigint, k integer"),
            (
                "SELECT a.*, b.k, a._offset FROM ev a, ev b",
                "k integer, v numeric(10,2), at timestamp with time zone, d date, k integer, _offset bigint",
            ),
            ("SELECT _offset FROM acc", "42703 8 column \"_offset\" does not exist"),
        ],
        shape,
    );
}

#[test]
fn parameters_get_the_type_of_their_place() {
    let types = |sql: &str| match query(sql) {
        Ok(plan) => plan.parameters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(e) => described(&e),
    };
    check_all(
        [
            ("SELECT $1::bigint", "bigint"),
            ("SELECT * FROM bid WHERE price > $1 AND channel = $2", "bigint, text"),
            (
                "SELECT * FROM bid WHERE ts BETWEEN $1 AND $2",
                "timestamp without time zone, timestamp without time zone",
            ),
            ("SELECT * FROM ev WHERE k IN ($1, $2) LIMIT $3 OFFSET $4", "integer, integer, bigint, bigint"),
            ("SELECT k + $1 FROM ev", "integer"),
            ("SELECT $1", "text"),
            ("SELECT coalesce($1, k) FROM ev", "integer"),
            ("SELECT CASE WHEN $1 THEN k ELSE $2 END FROM ev", "boolean, integer"),
            ("SELECT * FROM acc WHERE owner = $1", "character varying(10)"),
            ("SELECT * FROM plain WHERE u = $1", "uuid"),
            ("SELECT * FROM bid WHERE auction = ANY ($1)", "bigint[]"),
            ("SELECT * FROM bid WHERE (auction, channel) = ($1, $2)", "bigint, text"),
            ("SELECT $2::int", "text, integer"),
        ],
        types,
    );
    let given = query_with("SELECT * FROM bid WHERE price = $1", &[Some(SqlType::Int4)]).unwrap();
    assert_eq!(given.parameters, [SqlType::Int4]);
}

#[test]
fn session_functions_are_noticed() {
    assert!(query("SELECT now()").unwrap().session_dependent);
    assert!(!query("SELECT 1").unwrap().session_dependent);
}

#[test]
fn relations_are_listed_once_and_views_looked_through() {
    let plan = query("SELECT * FROM twice t, bid b, acc").unwrap();
    assert_eq!(plan.relations.len(), 2);
}
