//! pg_catalog as psql and drivers see it. psql itself must be installed.

use std::process::Command;

use super::*;

const DDL: &str = "
    CREATE TABLE item (id bigint PRIMARY KEY, name varchar(20) NOT NULL DEFAULT 'x', price numeric(10,2));
    CREATE SOURCE bid (auction bigint, price bigint, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '4 seconds');
    CREATE VIEW v AS SELECT 1 AS one;
    CREATE VIEW cheap AS SELECT id, price FROM item WHERE price < 10;
    CREATE MATERIALIZED VIEW per_auction AS SELECT auction, count(*) AS bids FROM bid GROUP BY auction;
    COMMENT ON TABLE item IS 'what is sold'";

async fn psql(fixture: &Fixture, command: &str) -> String {
    let port = fixture.addr().port().to_string();
    let command = command.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "millpond", "-d", "millpond", "-c", &command]);
        psql.env("PGCONNECT_TIMEOUT", "10").output().expect("psql is installed")
    });
    let output = output.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    // Trailing blanks of psql's tables are hard to keep in a source file.
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    format!("{}{err}", lines.join("\n").trim_end())
}

async fn with_objects() -> Fixture {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    for statement in DDL.split(';') {
        text(&client, statement).await;
    }
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_lists_relations() {
    let fixture = with_objects().await;
    let expected = "
                List of relations
 Schema |    Name     |       Type        | Owner
--------+-------------+-------------------+-------
 public | bid         | table             | ann
 public | cheap       | view              | ann
 public | item        | table             | ann
 public | per_auction | materialized view | ann
 public | v           | view              | ann
(5 rows)";
    assert_eq!(psql(&fixture, "\\d").await.trim(), expected.trim());
    for (command, name) in
        [("\\dt", "item"), ("\\dm", "per_auction"), ("\\dv", "cheap"), ("\\di", "item_pkey")]
    {
        let out = psql(&fixture, command).await;
        assert!(out.contains(name), "{command}: {out}");
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_relations() {
    let fixture = with_objects().await;
    let expected = "
                            Table \"public.item\"
 Column |         Type          | Collation | Nullable |         Default
--------+-----------------------+-----------+----------+--------------------------
 id     | bigint                |           | not null |
 name   | character varying(20) |           | not null | 'x'
 price  | numeric(10,2)         |           |          |
Indexes:
    \"item_pkey\" PRIMARY KEY, btree (id)";
    let words =
        |text: &str| text.split_whitespace().filter(|w| !w.starts_with("--")).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&psql(&fixture, "\\d item").await), words(expected));
    let view = psql(&fixture, "\\d+ per_auction").await;
    for part in [
        "Materialized view \"public.per_auction\"",
        "auction",
        "bids",
        "SELECT auction, count(*) AS bids FROM bid",
    ] {
        assert!(view.contains(part), "{part}: {view}");
    }
    let table = psql(&fixture, "\\d+ item").await;
    assert!(table.contains("extended"), "{table}");
    assert_eq!(psql(&fixture, "\\d nothing").await.trim(), "Did not find any relation named \"nothing\".");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_commands_run() {
    let fixture = with_objects().await;
    let commands = [
        "\\dt+",
        "\\dm+",
        "\\l",
        "\\l+",
        "\\dn",
        "\\dn+",
        "\\du",
        "\\df",
        "\\da",
        "\\dT",
        "\\dC",
        "\\dD",
        "\\dx",
        "\\dp",
        "\\db",
        "\\do",
        "\\dc",
        "\\dL",
        "\\dy",
        "\\des",
        "\\det",
        "\\dew",
        "\\dA",
        "\\dO",
        "\\dP",
        "\\dRp",
        "\\dRs",
        "\\drds",
        "\\ddp",
        "\\dX",
        "\\dS",
        "\\d public.*",
        "\\dS pg_class",
        "\\d item_pkey",
        "\\sv cheap",
        "\\conninfo",
        "\\encoding",
        "\\d+ cheap",
    ];
    let mut failed = Vec::new();
    for command in commands {
        let out = psql(&fixture, command).await;
        if out.contains("ERROR") || out.contains("error:") || out.contains("panic") {
            failed.push(format!("{command}: {out}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    fixture.stop().await;
}

/// What psql 15 sends for its commands, from its -E: more than the commands above, since it asks less of us than of
/// PostgreSQL when it finds no objects of a kind.
#[tokio::test(flavor = "multi_thread")]
async fn queries_of_psql_run() {
    let fixture = with_objects().await;
    let client = fixture.client().await;
    let mut failed = Vec::new();
    for sql in include_str!("queries/psql.sql").split("\n\n").filter(|sql| !sql.trim().is_empty()) {
        if let Err(error) = client.simple_query(sql).await {
            failed
                .push(format!("{sql}\n=> {:?}", error.as_db_error().map(|e| (e.code().code(), e.message()))));
        }
    }
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("\n"));
    fixture.stop().await;
}

/// Their types must come back as what asyncpg has codecs for, or it would ask for those types again, without end.
#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_learns_of_types() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let introspection = include_str!("queries/asyncpg.sql");
    let messages = client.simple_query(introspection).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("name"),
        _ => None,
    });
    let mut names: Vec<&str> = rows.collect();
    names.sort_unstable();
    assert_eq!(names, ["_int4", "_int8", "int4", "int8"]);
    let statement = client.prepare(introspection).await.unwrap();
    let column = |name: &str| statement.columns().iter().find(|c| c.name() == name).unwrap().type_().clone();
    assert_eq!(column("attrtypoids"), tokio_postgres::types::Type::OID_ARRAY);
    let statement = client.prepare("SELECT oid FROM pg_type WHERE oid = ANY ($1::oid[])").await.unwrap();
    assert_eq!(statement.params(), [tokio_postgres::types::Type::OID_ARRAY]);
    assert_eq!(client.query(&statement, &[&vec![23u32, 25]]).await.unwrap().len(), 2);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_answer() {
    let fixture = with_objects().await;
    let client = fixture.client().await;
    let cases = [
        ("SELECT current_user, current_database(), current_schema()", "ann|millpond|public"),
        ("SELECT 'item'::regclass", "item"),
        ("SELECT 'item'::regclass::oid = (SELECT oid FROM pg_class WHERE relname = 'item')", "t"),
        ("SELECT 'int4'::regtype::oid", "23"),
        ("SELECT 23::regtype", "integer"),
        ("SELECT to_regclass('nothing')", "~"),
        ("SELECT obj_description('item'::regclass, 'pg_class')", "what is sold"),
        ("SELECT format_type(1700, 655366)", "numeric(10,2)"),
        ("SELECT current_setting('server_encoding'), current_setting('nope', true)", "UTF8|~"),
        ("SELECT current_schemas(true)", "{pg_catalog,public}"),
        ("SELECT has_table_privilege('item', 'SELECT')", "t"),
        (
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index",
            "CREATE UNIQUE INDEX item_pkey ON public.item USING btree (id)",
        ),
        ("SELECT pg_is_in_recovery()", "f"),
        (
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
            "bid|BASE TABLE\ncheap|VIEW\nitem|BASE TABLE\nper_auction|VIEW\nv|VIEW",
        ),
        (
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'item' ORDER BY ordinal_position",
            "id|bigint|NO\nname|character varying|NO\nprice|numeric|YES",
        ),
        (
            "SELECT relname FROM pg_class WHERE relkind = ANY (ARRAY['m', 'v']) AND relnamespace = 'public'::regnamespace ORDER BY 1",
            "cheap\nper_auction\nv",
        ),
        ("SELECT unnest(indkey), generate_subscripts(indkey, 1) FROM pg_index", "1|1"),
        (
            "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/' ORDER BY 1",
            "information_schema\nmillpond\npublic",
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid) FROM pg_class c WHERE relname = 'item'",
            "t",
        ),
        ("SELECT set_config('jit', 'off', false)", "off"),
        ("SELECT indkey[0] FROM pg_index", "1"),
    ];
    let mut failed = Vec::new();
    for (sql, expected) in cases {
        let got = match client.simple_query(sql).await {
            Ok(_) => text(&client, sql).await,
            Err(error) => format!(
                "{:?}",
                error.as_db_error().map(|e| (e.code().code().to_owned(), e.message().to_owned()))
            ),
        };
        if got != expected {
            failed.push(format!("{sql}\n  got      {got}\n  expected {expected}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(error(&client, "SELECT 'nothing'::regclass").await.0, "42P01");
    fixture.stop().await;
}
