//! Catalogs built by changes, and what they answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_sql::RelationName;
use millpond_sql::statement::ObjectKind;
use millpond_types::{Commit, RelationId, SqlError, SqlType};

use crate::*;

/// The next relation of a catalog, in `public`, with columns `a bigint, ts timestamp`.
fn relation(catalog: &Catalog, name: &str, kind: RelationKind, dependencies: &[RelationId]) -> Relation {
    Relation {
        id: catalog.next_id(),
        schema: "public".into(),
        name: name.into(),
        kind,
        columns: vec![Column::new("a", SqlType::Int8, false), Column::new("ts", SqlType::Timestamp, true)],
        definition: format!("CREATE … {name}"),
        dependencies: dependencies.to_vec(),
        owner: "millpond".into(),
        options: BTreeMap::new(),
        comment: None,
        created_at: Commit(0),
        schema_version: 0,
    }
}

fn table() -> RelationKind {
    RelationKind::Table(Table {
        primary_key: vec![0],
        primary_key_name: None,
        append_only: false,
        watermark: None,
        layout: Layout::default(),
    })
}

fn source() -> RelationKind {
    let watermark = Watermark { column: 1, expression: "ts - INTERVAL '5 seconds'".into() };
    RelationKind::Source(Source {
        watermark: Some(watermark),
        connector: None,
        layout: Layout { partitions: 4, ..Layout::default() },
    })
}

fn materialized_view() -> RelationKind {
    RelationKind::MaterializedView(MaterializedView {
        query: "SELECT a, ts FROM t".into(),
        emit: Emit::OnWindowClose,
        allowed_lateness: 3_600_000_000,
        frozen: Frozen::default(),
        unique_key: Some(vec![0]),
        paused: false,
        rows: Vec::new(),
    })
}

fn create(catalog: &mut Catalog, name: &str, kind: RelationKind, dependencies: &[RelationId]) -> RelationId {
    let relation = relation(catalog, name, kind, dependencies);
    let id = relation.id;
    let change = Change::CreateRelation { relation: Box::new(relation) };
    *catalog = catalog.apply(&change, Commit(u64::from(id.0))).unwrap();
    id
}

/// `t` and `s`; views `v1` on t, `v2` on v1 and s, `v3` on v2 and t; an index on v1.
fn sample() -> (Catalog, [RelationId; 6]) {
    let mut catalog = Catalog::new();
    let t = create(&mut catalog, "t", table(), &[]);
    let s = create(&mut catalog, "s", source(), &[]);
    let v1 = create(&mut catalog, "v1", materialized_view(), &[t]);
    let index = RelationKind::Index(Index { relation: v1, columns: vec![0], include: vec![], unique: false });
    let i = create(&mut catalog, "v1_a_idx", index, &[v1]);
    let v2 = create(&mut catalog, "v2", materialized_view(), &[v1, s]);
    let v3 = create(&mut catalog, "v3", materialized_view(), &[v2, t]);
    (catalog, [t, s, v1, i, v2, v3])
}

fn path() -> Vec<String> {
    vec!["public".into()]
}

fn name(text: &str) -> RelationName {
    match text.split_once('.') {
        Some((schema, name)) => RelationName::new(Some(schema), name),
        None => RelationName::new(None, text),
    }
}

/// SQLSTATE, message, detail and hint.
fn told<T: std::fmt::Debug>(outcome: Result<T, SqlError>) -> (String, String, String, String) {
    let error = outcome.unwrap_err();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (error.state().to_string(), error.message().into(), text(error.detail_text()), text(error.hint_text()))
}

#[track_caller]
fn check<T: std::fmt::Debug>(outcome: Result<T, SqlError>, state: &str, message: &str, hint: &str) {
    let (found_state, found_message, _, found_hint) = told(outcome);
    assert_eq!((found_state.as_str(), found_message.as_str(), found_hint.as_str()), (state, message, hint));
}

#[test]
fn ids_grow_and_are_never_used_again() {
    let (catalog, [t, .., v3]) = sample();
    assert_eq!((t, v3), (RelationId(16_384), RelationId(16_389)));
    let mut catalog = catalog.apply(&Change::DropRelations { ids: vec![v3] }, Commit(9)).unwrap();
    assert_eq!(create(&mut catalog, "v3", materialized_view(), &[]), RelationId(16_390));
    assert_eq!(catalog.relation(RelationId(16_390)).unwrap().created_at, Commit(16_390));
    let reused = relation(&catalog, "x", table(), &[]);
    let reused = Relation { id: v3, ..reused };
    let (state, ..) = told(catalog.apply(&Change::CreateRelation { relation: Box::new(reused) }, Commit(9)));
    assert_eq!(state, "XX000");
}

#[test]
fn an_old_catalog_stays_as_it_was() {
    let (before, [t, ..]) = sample();
    let after = before.apply(&Change::RenameRelation { id: t, name: "u".into() }, Commit(9)).unwrap();
    assert!(before.find("public", "t").is_some() && before.find("public", "u").is_none());
    assert!(after.find("public", "t").is_none() && after.find("public", "u").is_some());
    assert_eq!(after.version(), before.version() + 1);
}

#[test]
fn names_are_found_or_missed_in_postgresqls_words() {
    let (mut catalog, [t, ..]) = sample();
    catalog =
        catalog.apply(&Change::CreateSchema { name: "x".into(), owner: "m".into() }, Commit(9)).unwrap();
    let orders = relation(&catalog, "orders", table(), &[]);
    let change = Change::CreateRelation { relation: Box::new(Relation { schema: "x".into(), ..orders }) };
    catalog = catalog.apply(&change, Commit(9)).unwrap();
    assert_eq!(catalog.resolve(&name("t"), &path()).unwrap().id, t);
    assert_eq!(catalog.resolve(&name("public.t"), &[]).unwrap().id, t);
    assert_eq!(catalog.resolve(&name("orders"), &["nowhere".into(), "x".into()]).unwrap().name, "orders");
    let missing = |text: &str| catalog.resolve(&name(text), &path()).map(|r| r.id);
    check(missing("nothing"), "42P01", "relation \"nothing\" does not exist", "");
    check(missing("v4"), "42P01", "relation \"v4\" does not exist", "Perhaps you meant \"v1\".");
    check(
        missing("orders"),
        "42P01",
        "relation \"orders\" does not exist",
        "Perhaps you meant \"x.orders\".",
    );
    check(missing("y.foo"), "42P01", "relation \"y.foo\" does not exist", "");
    let placed = RelationName { position: 15, ..name("gone") };
    assert_eq!(catalog.resolve(&placed, &path()).unwrap_err().position(), Some(15));
}

#[test]
fn a_wrong_kind_is_named() {
    let (catalog, _) = sample();
    let of = |text: &str, kind| catalog.resolve_kind(&name(text), kind, &path()).map(|r| r.id);
    assert!(of("v1", ObjectKind::MaterializedView).is_ok());
    let hint = "\"t\" is a table: name it as TABLE.";
    check(of("t", ObjectKind::MaterializedView), "42809", "\"t\" is not a materialized view", hint);
    let hint = "\"v1_a_idx\" is an index: name it as INDEX.";
    check(of("v1_a_idx", ObjectKind::View), "42809", "\"v1_a_idx\" is not a view", hint);
    check(
        of("t", ObjectKind::Index),
        "42809",
        "\"t\" is not an index",
        "\"t\" is a table: name it as TABLE.",
    );
    check(of("abcd", ObjectKind::Table), "42P01", "table \"abcd\" does not exist", "");
    check(of("abcd", ObjectKind::Index), "42704", "index \"abcd\" does not exist", "");
    check(
        of("pubic.t", ObjectKind::Table),
        "3F000",
        "schema \"pubic\" does not exist",
        "Perhaps you meant the schema \"public\".",
    );
    let opened = catalog.resolve_readable(&name("v1_a_idx"), &path()).map(|r| r.id);
    check(opened, "42809", "cannot open relation \"v1_a_idx\"", "");
}

#[test]
fn new_names_need_a_place_of_their_own() {
    let (catalog, _) = sample();
    let place = |text: &str, path: &[&str]| {
        let path: Vec<_> = path.iter().map(|s| (*s).to_owned()).collect();
        catalog.place_new(&name(text), &path)
    };
    assert_eq!(place("n", &["$user", "public"]).unwrap(), "public");
    check(place("t", &["public"]), "42P07", "relation \"t\" already exists", "");
    check(place("x.n", &["public"]), "3F000", "schema \"x\" does not exist", "");
    check(place("n", &["pg_catalog"]), "3F000", "no schema has been selected to create in", "");
    check(place("pg_catalog.n", &[]), "42501", "permission denied for schema pg_catalog", "");
    let create = |name: &str| {
        let change = Change::CreateSchema { name: name.into(), owner: "m".into() };
        catalog.apply(&change, Commit(1)).map(|_| ())
    };
    check(create("public"), "42P06", "schema \"public\" already exists", "");
    check(create("pg_x"), "42939", "unacceptable schema name \"pg_x\"", "");
}

#[test]
fn dependants_are_found_however_far() {
    let (catalog, [t, s, v1, i, v2, v3]) = sample();
    let direct: Vec<_> = catalog.dependants(t).iter().map(|r| r.id).collect();
    assert_eq!(direct, [v1, v3]);
    assert_eq!(catalog.transitive_dependants(t), [t, v1, i, v2, v3]);
    assert_eq!(catalog.transitive_dependants(s), [s, v2, v3]);
    assert_eq!(catalog.transitive_dependants(v3), [v3]);
}

#[test]
fn drop_is_refused_or_takes_all_along() {
    let (catalog, [t, s, v1, i, v2, v3]) = sample();
    let (state, message, detail, hint) = told(catalog.plan_drop(&[t], false));
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("2BP01", "cannot drop table t because other objects depend on it")
    );
    let lines = [
        "materialized view v1 depends on table t",
        "materialized view v2 depends on materialized view v1",
        "materialized view v3 depends on materialized view v2",
    ];
    assert_eq!(detail, lines.join("\n"));
    assert_eq!(hint, "Use DROP ... CASCADE to drop the dependent objects too.");
    let (_, message, ..) = told(catalog.plan_drop(&[t, s], false));
    assert_eq!(message, "cannot drop desired object(s) because other objects depend on them");

    let plan = catalog.plan_drop(&[t], true).unwrap();
    assert_eq!(plan.ids, [v3, v2, i, v1, t]);
    let (notice, detail) = plan.notice.unwrap();
    assert_eq!(notice, "drop cascades to 3 other objects");
    assert_eq!(detail.unwrap().lines().next(), Some("drop cascades to materialized view v1"));
    let dropped = catalog.apply(&Change::DropRelations { ids: plan.ids }, Commit(9)).unwrap();
    assert_eq!(dropped.relations().map(|r| r.id).collect::<Vec<_>>(), [s]);

    // What depends on it is dropped too: named together, they need no CASCADE; and an index never does.
    assert_eq!(catalog.plan_drop(&[v1, v2, v3], false).unwrap().ids, [v3, v2, i, v1]);
    let one = catalog.plan_drop(&[v2], true).unwrap();
    assert_eq!(one.notice, Some(("drop cascades to materialized view v3".into(), None)));
    let (state, ..) = told(catalog.apply(&Change::DropRelations { ids: vec![t] }, Commit(9)));
    assert_eq!(state, "2BP01");
}

#[test]
fn a_schema_goes_with_what_is_in_it() {
    let (catalog, [t, ..]) = sample();
    let mut catalog =
        catalog.apply(&Change::CreateSchema { name: "x".into(), owner: "m".into() }, Commit(9)).unwrap();
    assert_eq!(catalog.plan_drop_schema("x", false).unwrap().ids, []);
    let inside = Relation { schema: "x".into(), ..relation(&catalog, "w", materialized_view(), &[t]) };
    let w = inside.id;
    catalog = catalog.apply(&Change::CreateRelation { relation: Box::new(inside) }, Commit(9)).unwrap();
    let (state, message, detail, _) = told(catalog.plan_drop_schema("x", false));
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("2BP01", "cannot drop schema x because other objects depend on it")
    );
    assert_eq!(detail, "materialized view x.w depends on schema x");
    let plan = catalog.plan_drop_schema("x", true).unwrap();
    assert_eq!(plan.ids, [w]);
    let batch = vec![Change::DropRelations { ids: plan.ids }, Change::DropSchema { name: "x".into() }];
    assert!(!catalog.apply(&Change::Batch { changes: batch }, Commit(9)).unwrap().has_schema("x"));
    check(catalog.plan_drop_schema("y", true), "3F000", "schema \"y\" does not exist", "");
    check(catalog.plan_drop_schema("millpond", true), "42501", "permission denied for schema millpond", "");
}

#[test]
fn a_batch_is_all_or_nothing() {
    let (catalog, [t, s, ..]) = sample();
    let rename = |id, name: &str| Change::RenameRelation { id, name: name.into() };
    let swap = Change::Batch { changes: vec![rename(t, "tmp"), rename(s, "t"), rename(t, "s")] };
    let swapped = catalog.apply(&swap, Commit(9)).unwrap();
    assert_eq!(swapped.find("public", "t").unwrap().id, s);
    let broken = Change::Batch { changes: vec![rename(t, "u"), rename(s, "v1")] };
    check(catalog.apply(&broken, Commit(9)), "42P07", "relation \"v1\" already exists", "");
}

#[test]
fn columns_and_comments_change() {
    let (catalog, [t, _, v1, ..]) = sample();
    let apply = |change: Change| catalog.apply(&change, Commit(9));
    let named = apply(Change::RenameColumn { id: t, column: 0, name: "b".into() }).unwrap();
    assert_eq!(
        (named.relation(t).unwrap().column_index("b"), named.relation(t).unwrap().schema_version),
        (Some(0), 1)
    );
    let taken = Change::RenameColumn { id: t, column: 0, name: "ts".into() };
    check(apply(taken), "42701", "column \"ts\" of relation \"t\" already exists", "");
    let added = apply(Change::AddColumn { id: t, column: Column::new("c", SqlType::Text, true) }).unwrap();
    assert_eq!(added.relation(t).unwrap().columns.len(), 3);
    let comment = Change::Comment { id: t, column: Some(1), comment: Some("when".into()) };
    assert_eq!(apply(comment).unwrap().relation(t).unwrap().columns[1].comment.as_deref(), Some("when"));
    let paused = apply(Change::SetPaused { id: v1, paused: true }).unwrap();
    let paused = &paused.relation(v1).unwrap().kind;
    assert!(matches!(paused, RelationKind::MaterializedView(view) if view.paused));
    let options =
        BTreeMap::from([("retention".to_owned(), Some("7 days".to_owned())), ("x".to_owned(), None)]);
    let set = apply(Change::SetOptions { id: t, options }).unwrap();
    assert_eq!(set.relation(t).unwrap().options["retention"], "7 days");
    let far = Change::Comment { id: t, column: Some(7), comment: None };
    assert_eq!(told(apply(far)).0, "XX000");
}

#[test]
fn a_view_cannot_come_to_depend_on_itself() {
    let (catalog, [_, _, v1, _, v2, _]) = sample();
    let replaced = Relation { dependencies: vec![v2], ..catalog.relation(v1).unwrap().as_ref().clone() };
    let change = Change::ReplaceRelation { relation: Box::new(replaced) };
    check(
        catalog.apply(&change, Commit(9)),
        "42P16",
        "infinite recursion detected in definition of \"v1\"",
        "",
    );
}

#[test]
fn records_and_catalogs_survive_their_bytes() {
    let (catalog, [t, ..]) = sample();
    let bytes = serde_json::to_vec(&catalog).unwrap();
    assert_eq!(serde_json::from_slice::<Catalog>(&bytes).unwrap(), catalog);
    let changes = [
        Change::CreateRelation { relation: Box::new(relation(&catalog, "n", source(), &[t])) },
        Change::Batch { changes: vec![Change::DropSchema { name: "é\"\0".into() }] },
        Change::AddColumn { id: t, column: Column::new("c", SqlType::Numeric(38, 10), true) },
    ];
    for change in changes {
        let bytes = change.encode();
        assert_eq!(Change::decode(&bytes), Ok(change.clone()));
        // Cut or bent anywhere, it is an error or another change, and never a panic.
        for at in 0..bytes.len() {
            assert!(Change::decode(&bytes[..at]).is_err());
            let mut bent = bytes.clone();
            bent[at] ^= 0x15;
            let _ = Change::decode(&bent);
        }
    }
    let newer = br#"{"v":2,"change":{"op":"fly"}}"#;
    assert_eq!(Change::decode(newer), Err(ChangeError::Version(2)));
    assert!(matches!(Change::decode(br#"{"v":1,"change":{"op":"fly"}}"#), Err(ChangeError::Malformed(_))));
    assert!(matches!(Change::decode(b""), Err(ChangeError::Malformed(_))));
    assert!(matches!(Change::decode(&b"[".repeat(100_000)), Err(ChangeError::Malformed(_))));
}

#[test]
fn a_definition_sees_the_columns_that_were_there_when_it_was_made() {
    let mut catalog = Catalog::new();
    let id = create(&mut catalog, "s", source(), &[]);
    let columns = |catalog: &Catalog| catalog.relation(id).unwrap().columns.len();
    let before = columns(&catalog);
    let same = Arc::new(catalog.clone());
    assert!(Arc::ptr_eq(&same.as_of(Commit(0)), &same), "nothing was added, nothing is copied");
    let column = Column::new("added", SqlType::Int4, true);
    let statement = "ALTER SOURCE s ADD COLUMN added int".to_owned();
    let change =
        Change::Batch { changes: vec![Change::AddColumn { id, column }, Change::Amend { id, statement }] };
    let catalog = Arc::new(catalog.apply(&change, Commit(20_000)).unwrap());
    assert_eq!(columns(&catalog), before + 1);
    assert_eq!(columns(&catalog.as_of(Commit(19_999))), before);
    assert_eq!(columns(&catalog.as_of(Commit(20_000))), before + 1);
    let s = catalog.relation(id).unwrap();
    assert_eq!((s.columns[before].added_at, s.schema_version), (Commit(20_000), 1));
    assert!(s.definition.ends_with(";\nALTER SOURCE s ADD COLUMN added int"), "{}", s.definition);
    let text = serde_json::to_string(&*catalog).unwrap();
    assert_eq!(serde_json::from_str::<Catalog>(&text).unwrap(), *catalog);
}

#[test]
fn a_topic_gets_more_partitions_and_never_fewer() {
    let mut catalog = Catalog::new();
    let id = create(&mut catalog, "s", source(), &[]);
    let change = |partitions| {
        let layout = Layout { partitions, partition_by: vec![0], idle_timeout: 5 };
        let change = Change::SetLayout { id, layout };
        assert_eq!(Change::decode(&change.encode()), Ok(change.clone()));
        change
    };
    catalog = catalog.apply(&change(9), Commit(1)).unwrap();
    let layout = catalog.relation(id).unwrap().layout().unwrap();
    assert_eq!((layout.partitions, layout.idle_timeout), (9, 5));
    assert!(catalog.apply(&change(8), Commit(2)).is_err());
    let view = create(&mut catalog, "v", materialized_view(), &[id]);
    let of_a_view = Change::SetLayout { id: view, layout: Layout::default() };
    assert!(catalog.apply(&of_a_view, Commit(3)).is_err());
}

#[test]
fn a_record_of_today_is_readable_for_ever() {
    let text = r#"{"v":1,"change":{"op":"create_relation","relation":{"id":16384,"schema":"public","name":"bid",
        "kind":{"type":"source","watermark":{"column":0,"expression":"ts"},"partitions":1},
        "columns":[{"name":"ts","ty":"Timestamp","nullable":true}],
        "definition":"CREATE SOURCE bid (ts timestamp, WATERMARK FOR ts AS ts)","owner":"millpond","created_at":0}}}"#;
    let change = Change::decode(text.as_bytes()).unwrap();
    let catalog = Catalog::new().apply(&change, Commit(3)).unwrap();
    let bid = catalog.find("public", "bid").unwrap();
    assert_eq!((bid.created_at, bid.watermark().map(|w| w.column)), (Commit(3), Some(0)));
    assert_eq!(bid.described(), "source bid");
    assert_eq!(bid.layout(), Some(&Layout::default()));
}
