//! Texts and what they are, or what is said of them.

use millpond_types::{SqlState, SqlType};

use crate::statement::*;
use crate::{ParsedStatement, RelationName, Statement, parse, parse_expression, parse_one, parse_type};

fn one(text: &str) -> Statement {
    match parse_one(text) {
        Ok(parsed) => parsed.statement,
        Err(error) => panic!("{text}: {error} at {:?}", error.position()),
    }
}

/// SQLSTATE, message and position of the error.
fn error(text: &str) -> (&'static str, String, usize) {
    match parse(text) {
        Ok(parsed) => panic!("{text}: parsed as {parsed:?}"),
        Err(error) => {
            let state = error.state().to_string();
            (String::leak(state), error.message().to_owned(), error.position().unwrap_or(0))
        }
    }
}

#[track_caller]
fn check_error(text: &str, state: &str, message: &str, position: usize) {
    assert_eq!(error(text), (String::leak(state.to_owned()) as &str, message.to_owned(), position), "{text}");
}

fn name(name: &str) -> RelationName {
    RelationName::new(None, name)
}

/// The same name without its place.
fn placeless(name: &RelationName) -> RelationName {
    RelationName { position: 0, ..name.clone() }
}

#[test]
fn statements_are_split_with_their_texts_and_places() {
    let text = ";; SELECT 1 ; /* é; */ select 'a;b' -- end;\n;\n  SHOW TABLES; --";
    let parsed = parse(text).unwrap();
    let texts: Vec<_> = parsed.iter().map(|p| (p.text.as_str(), p.position)).collect();
    assert_eq!(texts, [("SELECT 1", 4), ("select 'a;b'", 24), ("SHOW TABLES", 49)]);
    assert_eq!(parse("").unwrap(), []);
    assert_eq!(parse(" ; -- nothing\n;/* */").unwrap(), []);
}

#[test]
fn spans_are_positions_in_the_whole_text() {
    let parsed = parse("SELECT 1;\n\nSELECT é, b FROM t").unwrap();
    let Statement::Query(query) = &parsed[1].statement else { panic!() };
    let crate::ast::SetExpr::Select(select) = query.body.as_ref() else { panic!() };
    use crate::ast::Spanned;
    assert_eq!(crate::position_of(select.projection[1].span()), Some(22));
    assert_eq!(parsed[1].position, 12);
}

#[test]
fn syntax_errors_speak_as_postgresql() {
    for (text, message, position) in [
        ("SELEC 1", "syntax error at or near \"SELEC\"", 1),
        ("SELECT 1 +", "syntax error at end of input", 11),
        ("SELECT 1 + ;", "syntax error at or near \";\"", 12),
        ("SELECT 1; SELECT * FORM t", "syntax error at or near \"t\"", 25),
        ("SELECT * FROM t WHERE", "syntax error at end of input", 22),
        ("SELECT * FROM t WHERE  -- x\n", "syntax error at end of input", 29),
        ("SELECT (1", "syntax error at end of input", 10),
        ("SELECT 1)", "syntax error at or near \")\"", 9),
        ("CREATE TABLE t (a int,)", "syntax error at or near \")\"", 23),
        ("CREATE TABLE t (a int b)", "syntax error at or near \"b\"", 23),
        ("CREATE TABLE t", "syntax error at end of input", 15),
        ("CREATE TABLE select (a int)", "syntax error at or near \"select\"", 14),
        ("CREATE TABLE t (select int)", "syntax error at or near \"select\"", 17),
        ("CREATE THING x", "syntax error at or near \"THING\"", 8),
        ("INSERT INTO t VALUE (1)", "syntax error at or near \"1\"", 22),
        ("INSERT t VALUES (1)", "syntax error at or near \"t\"", 8),
        ("INSERT OR REPLACE INTO t VALUES (1)", "syntax error at or near \"OR\"", 8),
        ("DELETE t", "syntax error at or near \"t\"", 8),
        ("DROP TABLE", "syntax error at end of input", 11),
        ("DROP TABLE IF EXIST t", "syntax error at or near \"EXIST\"", 15),
        ("DROP t", "syntax error at or near \"t\"", 6),
        ("SELECT 'é' é é", "syntax error at or near \"é\"", 14),
        ("\"select\" 1", "syntax error at or near \"\"select\"\"", 1),
        ("SELECT 'abc", "unterminated quoted string at or near \"'abc\"", 8),
        ("SELECT E'a\\'", "unterminated quoted string at or near \"E'a\\'\"", 8),
        ("SELECT \"abc", "unterminated quoted identifier at or near \"\"abc\"", 8),
        ("SELECT \"\"", "zero-length delimited identifier at or near \"\"\"\"", 8),
        ("SELECT 1 /* a /* b */", "unterminated /* comment at or near \"/* a /* b */\"", 10),
        ("SELECT $a$ $$", "unterminated dollar-quoted string at or near \"$a$ $$\"", 8),
        ("SELECT 12ab", "trailing junk after numeric literal at or near \"12ab\"", 8),
        ("SELECT 1.5e", "trailing junk after numeric literal at or near \"1.5e\"", 8),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT SOON", "syntax error at or near \"SOON\"", 45),
        ("EXPLAIN SHOW TABLES", "syntax error at or near \"SHOW\"", 9),
        ("EXPLAIN (FAST) SELECT 1", "unrecognized EXPLAIN option \"fast\"", 10),
    ] {
        if message.is_empty() {
            assert!(parse(text).is_ok(), "{text}"); // PostgreSQL allows an empty list
        } else {
            check_error(text, "42601", message, position);
        }
    }
    check_error("SELECT '\0'", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00", 0);
    check_error("SELECT \0", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00", 0);
}

#[test]
fn a_source_with_everything() {
    let text = "CREATE SOURCE IF NOT EXISTS s.bid (
        auction bigint NOT NULL, price numeric(10,2) DEFAULT 1 + 2 NOT NULL,
        WATERMARK FOR ts AS ts - INTERVAL '4 seconds',
        \"Day\" date GENERATED ALWAYS AS (ts::date) STORED, ts timestamp)
      WITH (connector = 'nexmark', nexmark.seed = 7, partitions = 4, retention = '7 days', fast, ok = true)
      FORMAT PLAIN ENCODE CSV (delimiter = ';') INCLUDE key AS k INCLUDE timestamp";
    let Statement::CreateSource(source) = one(text) else { panic!() };
    assert_eq!(placeless(&source.name), RelationName::new(Some("s"), "bid"));
    assert!(source.if_not_exists);
    let columns: Vec<_> =
        source.columns.iter().map(|c| (c.name.as_str(), c.ty.to_string(), c.nullable)).collect();
    assert_eq!(
        columns,
        [
            ("auction", "bigint".to_owned(), false),
            ("price", "numeric(10,2)".to_owned(), false),
            ("Day", "date".to_owned(), true),
            ("ts", "timestamp without time zone".to_owned(), true),
        ]
    );
    assert_eq!(source.columns[1].default.as_ref().unwrap().text, "1 + 2");
    assert_eq!(source.columns[2].generated.as_ref().unwrap().text, "ts::date");
    let watermark = source.watermark.unwrap();
    assert_eq!(watermark.column.name, "ts");
    assert_eq!(watermark.expression.text, "ts - INTERVAL '4 seconds'");
    assert_eq!(&text[watermark.expression.position - 1..][..4], "ts -");
    let options = source.options.to_map();
    let options: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        options,
        ["connector=nexmark", "fast=true", "nexmark.seed=7", "ok=true", "partitions=4", "retention=7 days"]
    );
    let format = source.format.unwrap();
    assert_eq!((format.format.as_str(), format.encode.as_deref()), ("plain", Some("csv")));
    assert_eq!(format.options.to_map()["delimiter"], ";");
    let include: Vec<_> = source.include.iter().map(|i| (i.field.as_str(), i.column.is_some())).collect();
    assert_eq!(include, [("key", true), ("timestamp", false)]);
}

#[test]
fn a_source_without_columns() {
    let Statement::CreateSource(source) = one("CREATE SOURCE bid WITH (connector = 'nexmark')") else {
        panic!()
    };
    assert_eq!(source.columns, []);
    let Statement::CreateSource(source) = one("CREATE SOURCE bid ()") else { panic!() };
    assert_eq!(source.columns, []);
}

#[test]
fn tables() {
    let text = "CREATE TABLE t (id int PRIMARY KEY, b text NOT NULL UNIQUE CHECK (b <> ''), c int REFERENCES u (x) NOT \
                ENFORCED, CONSTRAINT k UNIQUE (id, b), n serial) APPEND ONLY WITH (retention = '1 day')";
    let Statement::CreateTable(table) = one(text) else { panic!() };
    assert!(table.append_only);
    assert!(!table.columns[0].nullable);
    assert_eq!(table.columns[3].identity, Some(Identity::Serial));
    let kinds: Vec<_> = table
        .constraints
        .iter()
        .map(|constraint| match &constraint.kind {
            ConstraintKind::PrimaryKey(columns) => format!("primary key {}", columns[0].name),
            ConstraintKind::Unique(columns) => format!("unique {}", columns.len()),
            ConstraintKind::Check(expression) => format!("check {}", expression.text),
            ConstraintKind::ForeignKey { table, enforced, .. } => format!("foreign key {table} {enforced}"),
        })
        .collect();
    assert_eq!(kinds, ["primary key id", "unique 1", "check b <> ''", "foreign key u false", "unique 2"]);

    let Statement::CreateTable(table) = one("CREATE TEMP TABLE t (a, b) AS SELECT 1, 2 WITH NO DATA") else {
        panic!()
    };
    assert!(table.temporary && table.no_data);
    assert_eq!(table.query_columns.len(), 2);
    assert_eq!(table.query.unwrap().text, "SELECT 1, 2");
    let Statement::CreateTable(table) = one("CREATE TABLE t AS TABLE u") else { panic!() };
    assert_eq!(table.query.unwrap().query.to_string(), "SELECT * FROM u");
    assert!(matches!(one("CREATE TABLE t ()"), Statement::CreateTable(table) if table.columns.is_empty()));

    check_error("CREATE TABLE t (a int, a text)", "42701", "column \"a\" specified more than once", 24);
    check_error(
        "CREATE TABLE t (a int, PRIMARY KEY (b))",
        "42703",
        "column \"b\" named in key does not exist",
        37,
    );
    let two = "multiple primary keys for table \"t\" are not allowed";
    check_error("CREATE TABLE t (a int PRIMARY KEY, PRIMARY KEY (a))", "42P16", two, 36);
    let twice = "column \"a\" appears twice in primary key constraint";
    check_error("CREATE TABLE t (a int, PRIMARY KEY (a, a))", "42701", twice, 40);
    check_error("CREATE TABLE t (a foo)", "42704", "type \"foo\" does not exist", 19);
    check_error(
        "CREATE TABLE t (a numeric)",
        "0A000",
        "a numeric column without precision is not supported",
        19,
    );
    let conflict = "conflicting NULL/NOT NULL declarations for column \"a\"";
    check_error("CREATE TABLE t (a int NULL NOT NULL)", "42601", conflict, 28);
    check_error("CREATE UNLOGGED TABLE t (a int)", "0A000", "an unlogged table is not supported", 1);
    check_error("CREATE OR REPLACE TABLE t (a int)", "0A000", "CREATE OR REPLACE TABLE is not supported", 1);
}

#[test]
fn views_keep_their_query_as_written() {
    let text =
        "CREATE MATERIALIZED VIEW IF NOT EXISTS per_minute (a, \"B\") WITH (allowed_lateness = '1 hour') AS
        SELECT window_start, count(*) -- counted
        FROM TUMBLE(bid, ts, INTERVAL '1 minute') GROUP BY window_start /* done */ EMIT ON WINDOW CLOSE;";
    let Statement::CreateMaterializedView(view) = one(text) else { panic!() };
    assert!(
        view.query.text.starts_with("SELECT window_start")
            && view.query.text.ends_with("GROUP BY window_start")
    );
    assert_eq!(&text[view.query.position - 1..][..6], "SELECT");
    assert_eq!(view.emit, Emit::OnWindowClose);
    assert_eq!(&text[view.emit_position.unwrap() - 1..][..4], "EMIT");
    assert_eq!(view.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "B"]);

    for (clause, emit) in [
        ("", Emit::OnUpdate),
        ("EMIT ON UPDATE", Emit::OnUpdate),
        ("EMIT CHANGES", Emit::OnUpdate),
        ("emit final", Emit::OnWindowClose),
        ("EMIT AFTER WINDOW CLOSE", Emit::OnWindowClose),
        ("WITH DATA EMIT ON WINDOW CLOSE", Emit::OnWindowClose),
    ] {
        for query in [
            "SELECT * FROM t",
            "SELECT 1",
            "SELECT * FROM t WHERE a",
            "SELECT * FROM HOP(t, ts, x, y) GROUP BY z",
        ] {
            let text = format!("CREATE MATERIALIZED VIEW v AS {query} {clause}");
            let Statement::CreateMaterializedView(view) = one(&text) else { panic!("{text}") };
            assert_eq!((view.emit, view.query.text.as_str()), (emit, query), "{text}");
        }
    }
    // Elsewhere it is a name like any other.
    let Statement::CreateView(view) = one("CREATE OR REPLACE VIEW v AS SELECT a emit FROM t emit") else {
        panic!()
    };
    assert!(view.or_replace);
    assert_eq!(view.query.query.to_string(), "SELECT a AS emit FROM t emit");
}

#[test]
fn window_functions_in_every_spelling() {
    for text in [
        "SELECT * FROM TUMBLE(bid, ts, INTERVAL '1 minute') AS w",
        "SELECT * FROM TUMBLE((SELECT * FROM bid), ts, INTERVAL '1 minute')",
        "SELECT * FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        "SELECT * FROM TABLE(TUMBLE(TABLE s.bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "SELECT * FROM TABLE(HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '1' MINUTE, \
         SIZE => INTERVAL '5' MINUTE)) t",
        "SELECT * FROM HOP(bid, ts, INTERVAL '1 minute', INTERVAL '5 minutes', INTERVAL '0') h JOIN u ON true",
    ] {
        let Statement::Query(query) = one(text) else { panic!() };
        assert!(!query.to_string().contains("TABLE bid"), "{query}");
    }
    let shown = one("SELECT * FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), x)");
    let Statement::Query(query) = shown else { panic!() };
    assert_eq!(query.to_string(), "SELECT * FROM TUMBLE((SELECT * FROM bid), DESCRIPTOR(ts), x)");
}

#[test]
fn strings_join_over_line_breaks_only() {
    for (text, expected) in [
        ("SELECT 'a'\n 'b'", "SELECT 'ab'"),
        ("SELECT 'a' -- c\n\t'b'\n'c', 'd'", "SELECT 'abc', 'd'"),
        ("SELECT E'a\\n'\n'b'", "SELECT E'a\\nb'"),
        ("SELECT x AS y FROM t AS \"u\"", "SELECT x AS y FROM t AS \"u\""),
    ] {
        let Statement::Query(query) = one(text) else { panic!("{text}") };
        assert_eq!(query.to_string(), expected, "{text}");
    }
    check_error("SELECT 'a' 'b'", "42601", "syntax error at or near \"'b'\"", 0);
    check_error("SELECT x AS 'b'", "42601", "syntax error at or near \"'b'\"", 0);
}

#[test]
fn drops_and_alters() {
    let Statement::Drop(drop) = one("DROP MATERIALIZED VIEW IF EXISTS a, b.c CASCADE") else { panic!() };
    assert_eq!((drop.kind, drop.if_exists, drop.cascade), (ObjectKind::MaterializedView, true, true));
    let names: Vec<_> = drop.names.iter().map(placeless).collect();
    assert_eq!(names, [name("a"), RelationName::new(Some("b"), "c")]);

    let action = |text: &str| match one(text) {
        Statement::Alter(alter) => alter.action,
        other => panic!("{text}: {other:?}"),
    };
    assert!(matches!(action("ALTER TABLE t RENAME TO u"), AlterAction::RenameTo(to) if to.name == "u"));
    assert!(matches!(action("ALTER TABLE t RENAME a TO b"), AlterAction::RenameColumn { .. }));
    let advance = action("ALTER SOURCE s ADVANCE WATERMARK TO '2024-01-01 00:00'::timestamp");
    assert!(matches!(advance, AlterAction::AdvanceWatermark(e) if e.text == "'2024-01-01 00:00'::timestamp"));
    assert!(matches!(action("ALTER MATERIALIZED VIEW v PAUSE"), AlterAction::Pause));
    assert!(matches!(action("ALTER SOURCE s SET (retention = '1 day')"), AlterAction::SetOptions(_)));
    assert!(matches!(
        action("ALTER TABLE t ADD COLUMN IF NOT EXISTS c int DEFAULT 1"),
        AlterAction::AddColumn { .. }
    ));
    assert!(matches!(action("ALTER TABLE t DROP c CASCADE"), AlterAction::DropColumn { cascade: true, .. }));
    assert!(matches!(action("ALTER TABLE t ALTER COLUMN c TYPE int"), AlterAction::Unsupported(_)));
    check_error("ALTER TABLE t FROB", "42601", "syntax error at or near \"FROB\"", 15);

    let Statement::Comment(comment) = one("COMMENT ON COLUMN s.t.c IS 'it''s'") else { panic!() };
    assert_eq!(placeless(&comment.name), RelationName::new(Some("s"), "t"));
    assert_eq!((comment.column.unwrap().name.as_str(), comment.comment.as_deref()), ("c", Some("it's")));
}

#[test]
fn settings() {
    for (text, name, value, local) in [
        ("SET search_path TO \"$user\", public", "search_path", Some("\"$user\", public"), false),
        ("SET search_path = 'A b', c", "search_path", Some("\"A b\", c"), false),
        ("SET LOCAL statement_timeout = 500", "statement_timeout", Some("500"), true),
        ("SET SESSION extra_float_digits TO -1", "extra_float_digits", Some("-1"), false),
        ("SET millpond.read = 'latest'", "millpond.read", Some("latest"), false),
        ("SET DateStyle TO ISO, DMY", "datestyle", Some("iso, dmy"), false),
        ("SET synchronous_commit TO ON", "synchronous_commit", Some("on"), false),
        ("SET x TO DEFAULT", "x", None, false),
        ("SET TIME ZONE 'Europe/Berlin'", "timezone", Some("Europe/Berlin"), false),
        ("SET TIME ZONE -7", "timezone", Some("-7"), false),
        ("SET TIME ZONE LOCAL", "timezone", None, false),
        ("SET NAMES 'utf8'", "client_encoding", Some("utf8"), false),
        ("SET SESSION AUTHORIZATION DEFAULT", "session_authorization", None, false),
        ("SET ROLE NONE", "role", Some("none"), false),
    ] {
        let Statement::Set(set) = one(text) else { panic!("{text}") };
        assert_eq!((set.name.as_str(), set.value.as_deref(), set.local), (name, value, local), "{text}");
    }
    let modes = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    let Statement::SetSessionCharacteristics(modes) = one(modes) else { panic!() };
    assert_eq!((modes.isolation, modes.read_only), (Some(IsolationLevel::RepeatableRead), Some(true)));
    for (text, name) in [
        ("SHOW TIME ZONE", "timezone"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "transaction_isolation"),
        ("SHOW server_version", "server_version"),
        ("SHOW millpond.read", "millpond.read"),
    ] {
        assert!(
            matches!(one(text), Statement::Show(Show::Setting { name: shown, .. }) if shown == name),
            "{text}"
        );
    }
    check_error("SET x", "42601", "syntax error at end of input", 6);
    check_error("SET x TO", "42601", "syntax error at end of input", 9);
    check_error("SHOW", "42601", "syntax error at end of input", 5);
}

#[test]
fn shows_and_describes() {
    for (text, expected) in [
        ("SHOW TABLES", Show::Objects { kind: ObjectKind::Table, schema: None }),
        ("SHOW SOURCES FROM s", Show::Objects { kind: ObjectKind::Source, schema: Some("s".into()) }),
        ("SHOW MATERIALIZED VIEWS", Show::Objects { kind: ObjectKind::MaterializedView, schema: None }),
        ("SHOW VIEWS", Show::Objects { kind: ObjectKind::View, schema: None }),
        ("SHOW JOBS", Show::Jobs),
        ("SHOW SCHEMAS", Show::Schemas),
        ("SHOW ALL", Show::All),
    ] {
        assert_eq!(one(text), Statement::Show(expected), "{text}");
    }
    assert!(matches!(
        one("SHOW CREATE MATERIALIZED VIEW v"),
        Statement::Show(Show::Create { kind: ObjectKind::MaterializedView, .. })
    ));
    for text in ["DESCRIBE t", "DESC t", "DESCRIBE TABLE t", "DESCRIBE public.t", "DESCRIBE source"] {
        assert!(matches!(one(text), Statement::Describe(_)), "{text}");
    }
}

#[test]
fn copies() {
    let copy = |text: &str| match one(text) {
        Statement::Copy(copy) => *copy,
        other => panic!("{text}: {other:?}"),
    };
    let plain = copy("COPY t FROM STDIN");
    assert_eq!((plain.options.delimiter, plain.options.null.as_str()), (b'\t', "\\N"));
    let csv = copy("COPY  bid FROM STDIN CSV HEADER DELIMITER AS ';' NULL 'x'");
    assert_eq!((csv.options.format, csv.options.header), (CopyFormat::Csv, CopyHeader::Present));
    assert_eq!((csv.options.delimiter, csv.options.null.as_str()), (b';', "x"));
    let new = copy(
        "COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER match, FORCE_NULL (a), ON_ERROR ignore, commit_rows 5)",
    );
    assert_eq!(new.options.header, CopyHeader::Match);
    assert_eq!(new.options.force_null, CopyColumns::Named(vec!["a".into()]));
    assert_eq!((new.options.on_error, new.options.commit_rows), (CopyOnError::Ignore, Some(5)));
    let query = copy("COPY (SELECT 1) TO STDOUT WITH BINARY");
    assert_eq!((query.options.format, query.direction), (CopyFormat::Binary, CopyDirection::To));
    let file = copy("COPY t TO 's3://b/x.parquet' (FORMAT parquet)");
    assert_eq!(file.target, CopyTarget::Location("s3://b/x.parquet".into()));
    assert!(matches!(copy("COPY (SUBSCRIBE v) TO STDOUT").relation, CopyRelation::Subscribe(_)));
    assert!(copy("COPY t FROM STDIN (FORMAT csv) WHERE a > 1").filter.is_some());

    check_error("COPY t FROM STDIN (FORMAT xml)", "22023", "COPY format \"xml\" not recognized", 27);
    check_error("COPY t FROM STDIN (FORMT csv)", "42601", "option \"formt\" not recognized", 20);
    check_error("COPY t FROM STDIN (NULL 'a', NULL 'b')", "42601", "conflicting or redundant options", 30);
    check_error("COPY t FROM STDIN (QUOTE '\"')", "0A000", "COPY quote available only in CSV mode", 20);
    let single = "COPY delimiter must be a single one-byte character";
    check_error("COPY t FROM STDIN (DELIMITER 'ab')", "0A000", single, 20);
    let force = "COPY force quote only available using COPY TO";
    check_error("COPY t FROM STDIN (FORMAT csv, FORCE_QUOTE *)", "0A000", force, 32);
    check_error("COPY (SELECT 1) FROM STDIN", "42601", "syntax error at or near \"FROM\"", 17);
}

#[test]
fn transactions_and_cursors() {
    assert!(matches!(one("BEGIN"), Statement::Begin(_)));
    let Statement::Begin(modes) = one("START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE")
    else {
        panic!()
    };
    assert_eq!(modes.deferrable, Some(true));
    assert_eq!(one("END"), Statement::Commit { chain: false });
    assert_eq!(one("COMMIT WORK AND CHAIN"), Statement::Commit { chain: true });
    assert_eq!(one("ABORT"), Statement::Rollback { chain: false });
    assert_eq!(one("ROLLBACK TO SAVEPOINT a"), Statement::RollbackToSavepoint { name: "a".into() });
    assert_eq!(one("RELEASE a"), Statement::ReleaseSavepoint { name: "a".into() });
    assert_eq!(one("CLOSE ALL"), Statement::Close { name: None });
    assert_eq!(one("DEALLOCATE PREPARE p"), Statement::Deallocate { name: Some("p".into()) });
    let Statement::Declare(declare) = one("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1") else {
        panic!()
    };
    assert_eq!(
        (declare.scroll, declare.hold, declare.statement.text.as_str()),
        (Some(false), true, "SELECT 1")
    );
    assert!(matches!(one("DECLARE c CURSOR FOR SUBSCRIBE v WITH (SNAPSHOT) AS OF 5"), Statement::Declare(_)));
    for (text, expected) in [
        ("FETCH c", FetchDirection::Forward(1)),
        ("FETCH next", FetchDirection::Forward(1)),
        ("FETCH NEXT FROM c", FetchDirection::Forward(1)),
        ("FETCH 100 c", FetchDirection::Forward(100)),
        ("FETCH -3 IN c", FetchDirection::Backward(3)),
        ("FETCH FORWARD 5 FROM c", FetchDirection::Forward(5)),
        ("FETCH ALL IN c", FetchDirection::ForwardAll),
        ("FETCH LAST c", FetchDirection::Absolute(-1)),
        ("MOVE ABSOLUTE 0 c", FetchDirection::Absolute(0)),
    ] {
        let Statement::Fetch(fetch) = one(text) else { panic!("{text}") };
        assert_eq!(fetch.direction, expected, "{text}");
    }
    let Statement::Prepare(prepare) = one("PREPARE p (int, text[]) AS SELECT $1, $2") else { panic!() };
    assert_eq!(prepare.types, [SqlType::Int4, SqlType::Array(Box::new(SqlType::Text))]);
    assert!(
        matches!(one("EXECUTE p (1, 'a')"), Statement::Execute { parameters, .. } if parameters.len() == 2)
    );
    check_error("PREPARE p AS SHOW TABLES", "42601", "syntax error at or near \"SHOW\"", 14);
}

#[test]
fn explains() {
    let explain = |text: &str| match one(text) {
        Statement::Explain(explain) => explain,
        other => panic!("{text}: {other:?}"),
    };
    assert!(explain("EXPLAIN ANALYZE VERBOSE SELECT 1").analyze);
    let explained = explain(
        "EXPLAIN (ANALYZE, FORMAT JSON, COSTS off) CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGES",
    );
    assert!(explained.analyze && explained.format == ExplainFormat::Json);
    let text = |explain: &Explain| match &explain.what {
        Explained::Statement(statement) => statement.text.clone(),
        Explained::View(name) => format!("the view {name}"),
    };
    assert!(text(&explained).starts_with("CREATE"));
    assert_eq!(text(&explain("EXPLAIN (SELECT 1)")), "(SELECT 1)");
    let view = explain("EXPLAIN ANALYZE MATERIALIZED VIEW a.v");
    assert!(view.analyze && text(&view) == "the view a.v");
    check_error("EXPLAIN (BUFFERS) SELECT 1", "0A000", "EXPLAIN option BUFFERS is not supported", 10);
}

#[test]
fn data_statements_reach_the_tree() {
    for text in [
        "INSERT INTO t (a) VALUES (1), (DEFAULT) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *",
        "INSERT INTO t DEFAULT VALUES",
        "UPDATE t SET a = a + 1 FROM u WHERE t.id = u.id RETURNING a",
        "DELETE FROM t USING u WHERE t.id = u.id",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 1) UNION ALL SELECT 2 ORDER BY 1 LIMIT 1 OFFSET 1",
        "VALUES (1), (2)",
        "TABLE t",
    ] {
        let data = matches!(
            one(text),
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Query(_)
        );
        assert!(data, "{text}");
    }
    let Statement::Truncate { tables, cascade, .. } = one("TRUNCATE TABLE a, b CASCADE") else { panic!() };
    assert_eq!((tables.len(), cascade), (2, true));
}

#[test]
fn nothing_is_parsed_and_then_ignored() {
    for (text, message) in [
        ("SELECT * FROM r TIMESTAMP AS OF x", "reading a table as of another time is not supported"),
        ("SELECT * FROM (SELECT * FROM t TABLESAMPLE SYSTEM (5)) u", "TABLESAMPLE is not supported"),
        ("SELECT 1 INTO t", "SELECT INTO is not supported"),
        ("SELECT * FROM t FOR UPDATE", "a row lock (FOR UPDATE, FOR SHARE) is not supported"),
        ("SELECT * FROM t FETCH FIRST 1 ROW WITH TIES", "FETCH … WITH TIES is not supported"),
        (
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "a data-modifying statement in WITH is not supported",
        ),
        ("CREATE VIEW v AS SELECT 1 WHERE EXISTS (SELECT 1 INTO t)", "SELECT INTO is not supported"),
        ("CREATE TABLE t (a int) PARTITION BY HASH (a)", "PARTITION BY of a table is not supported"),
    ] {
        let (state, found, _) = error(text);
        if message.is_empty() {
            assert_eq!(state, "42601", "{text}");
        } else {
            assert_eq!((state, found.as_str()), ("0A000", message), "{text}");
        }
    }
    for (text, command) in [
        ("CREATE SECRET s WITH (a = 'b') AS 'c'", "CREATE SECRET"),
        ("CREATE FOREIGN TABLE x ()", "CREATE FOREIGN TABLE"),
        ("REFRESH MATERIALIZED VIEW v", "REFRESH MATERIALIZED VIEW"),
        ("VACUUM FULL t", "VACUUM"),
        ("GRANT ALL ON t TO u", "GRANT"),
        ("DROP FUNCTION f(int)", "DROP FUNCTION"),
        ("MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE", "MERGE"),
    ] {
        let unsupported =
            matches!(one(text), Statement::Unsupported { command: found, .. } if found == command);
        assert!(unsupported, "{text}");
    }
}

#[test]
fn types_have_their_names() {
    for (text, expected) in [
        ("int", SqlType::Int4),
        ("INT8", SqlType::Int8),
        ("pg_catalog.int4", SqlType::Int4),
        ("double precision", SqlType::Float8),
        ("float(24)", SqlType::Float4),
        ("decimal(5)", SqlType::Numeric(5, 0)),
        ("numeric(76,10)", SqlType::Numeric(76, 10)),
        ("varchar", SqlType::Varchar(None)),
        ("character varying(7)", SqlType::Varchar(Some(7))),
        ("char", SqlType::Char(1)),
        ("bpchar", SqlType::Text),
        ("\"char\"", SqlType::InternalChar),
        ("timestamp with time zone", SqlType::Timestamptz),
        ("timestamp(6)", SqlType::Timestamp),
        ("timestamptz", SqlType::Timestamptz),
        ("text[]", SqlType::Array(Box::new(SqlType::Text))),
        ("oid", SqlType::Oid),
        ("name", SqlType::Name),
        ("jsonb", SqlType::Jsonb),
    ] {
        assert_eq!(parse_type(text), Ok(expected), "{text}");
    }
    for (text, state, message) in [
        ("foo", "42704", "type \"foo\" does not exist"),
        ("public.int4", "42704", "type \"public.int4\" does not exist"),
        ("string", "42704", "type \"string\" does not exist"),
        ("datetime", "42704", "type \"datetime\" does not exist"),
        ("tinyint", "42704", "type \"tinyint\" does not exist"),
        ("numeric(77)", "22023", "NUMERIC precision 77 must be between 1 and 76"),
        ("numeric(5,6)", "22023", "NUMERIC scale 6 must be between 0 and precision 5"),
        ("varchar(0)", "22023", "length for type varchar must be at least 1"),
        ("money", "0A000", "the type money is not supported"),
        ("timetz", "0A000", "the type time with time zone is not supported"),
        ("timestamp(3)", "0A000", "the type timestamp(3) is not supported"),
        ("int[][]", "0A000", "the type an array of arrays is not supported"),
    ] {
        let error = parse_type(text).unwrap_err();
        assert_eq!((error.state().as_str(), error.message()), (state, message), "{text}");
        assert_eq!(error.position(), Some(1), "{text}");
    }
    assert_eq!(parse_type("txt").unwrap_err().hint_text(), Some("Perhaps you meant the type \"text\"."));
    assert_eq!(parse_type("string").unwrap_err().hint_text(), Some("Perhaps you meant the type \"text\"."));
}

#[test]
fn what_parses_again_parses_to_the_same() {
    // The catalog keeps texts, and reads them again after a restart.
    let text = "CREATE MATERIALIZED VIEW v AS\n  SELECT a, 'x;y' FROM t -- c\n  WHERE b > 1 EMIT FINAL";
    let ParsedStatement { text: kept, .. } =
        parse(&format!("SELECT 1;\n{text} ; SELECT 2")).unwrap().remove(1);
    assert_eq!(kept, text);
    let Statement::CreateMaterializedView(view) = one(&kept) else { panic!() };
    assert!(crate::parse_query(&view.query.text).is_ok());
    assert!(parse_expression("ts - INTERVAL '5 seconds'").is_ok());
    assert!(parse_expression("a b").is_err());
    assert_eq!(parse_one("SELECT 1; SELECT 2").unwrap_err().state(), SqlState::SYNTAX_ERROR);
    assert_eq!(parse_one("").unwrap_err().message(), "syntax error at end of input");
}
