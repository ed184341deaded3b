//! One catalog for all tests, and ways to say what is expected.

use std::sync::Arc;

use millpond_catalog::{
    Catalog, Change, Column, Frozen, Layout, MaterializedView, Relation, RelationKind, Source, Table, View,
    Watermark,
};
use millpond_plan::incremental::{LowerOptions, Plan, lower};
use millpond_plan::{PlanSettings, Planner, QueryPlan};
use millpond_types::{Commit, EventTime, RelationId, SqlError, SqlType};

fn column(name: &str, ty: SqlType) -> Column {
    Column::new(name, ty, true)
}

fn relation(id: u32, name: &str, kind: RelationKind, columns: Vec<Column>) -> Relation {
    Relation {
        id: RelationId(id),
        schema: "public".into(),
        name: name.into(),
        kind,
        columns,
        definition: String::new(),
        dependencies: Vec::new(),
        owner: "millpond".into(),
        options: Default::default(),
        comment: None,
        created_at: Commit(1),
        schema_version: 0,
    }
}

fn source(watermark: Option<(usize, &str)>) -> RelationKind {
    let watermark = watermark.map(|(column, text)| Watermark { column, expression: text.into() });
    RelationKind::Source(Source { watermark, connector: None, layout: Layout::default() })
}

fn table(primary_key: Vec<usize>, append_only: bool) -> RelationKind {
    RelationKind::Table(Table {
        primary_key,
        primary_key_name: None,
        append_only,
        watermark: None,
        layout: Layout::default(),
    })
}

fn view(query: &str) -> RelationKind {
    RelationKind::View(View { query: query.into(), frozen: Frozen::default() })
}

/// `bid` (a source with a watermark), `ev` (one without), `acc` (a table with a key), `plain` (one without), `twice` and
/// `late` (views), `totals` (a materialized view with a key).
pub fn catalog() -> Arc<Catalog> {
    use SqlType::*;
    let mut balance = column("balance", Numeric(12, 2));
    balance.default = Some("0".into());
    let mut owner = Column::new("owner", Varchar(Some(10)), false);
    owner.default = Some("'nobody'".into());
    let mut double = column("double", Int4);
    double.generated = Some("n * 2".into());
    let relations = [
        relation(
            1,
            "bid",
            source(Some((5, "ts - INTERVAL '4 seconds'"))),
            vec![
                column("auction", Int8),
                column("bidder", Int8),
                column("price", Int8),
                column("channel", Text),
                column("url", Text),
                column("ts", Timestamp),
            ],
        ),
        relation(
            2,
            "ev",
            source(None),
            vec![
                column("k", Int4),
                column("v", Numeric(10, 2)),
                column("at", Timestamptz),
                column("d", Date),
            ],
        ),
        relation(
            3,
            "acc",
            table(vec![0], false),
            vec![Column::new("id", Int4, false), owner, balance, column("n", Int4), double],
        ),
        relation(
            4,
            "plain",
            table(vec![], false),
            vec![column("a", Int4), column("b", Text), column("u", Uuid)],
        ),
        relation(
            5,
            "twice",
            view("SELECT auction, price * 2 AS double, ts FROM bid WHERE price > 0"),
            vec![column("auction", Int8), column("double", Int8), column("ts", Timestamp)],
        ),
        relation(
            6,
            "totals",
            RelationKind::MaterializedView(MaterializedView {
                query: "SELECT auction, sum(price) AS total FROM bid GROUP BY auction".into(),
                emit: Default::default(),
                allowed_lateness: 0,
                frozen: Frozen::default(),
                unique_key: Some(vec![0]),
                paused: false,
                rows: Vec::new(),
            }),
            vec![column("auction", Int8), column("total", Numeric(38, 0))],
        ),
        relation(7, "broken", view("SELECT nope FROM bid"), vec![column("nope", Int8)]),
    ];
    let mut catalog = Catalog::new();
    for mut relation in relations {
        let id = relation.id;
        relation.id = catalog.next_id();
        catalog = catalog
            .apply(&Change::CreateRelation { relation: Box::new(relation) }, Commit(1))
            .unwrap_or_else(|e| panic!("relation {id}: {e}"));
    }
    Arc::new(catalog)
}

pub fn planner() -> Planner {
    let settings = PlanSettings {
        search_path: vec!["public".into()],
        time_zone: "UTC".into(),
        now: EventTime(1_700_000_000_000_000),
        database: "millpond".into(),
        user: "ann".into(),
    };
    Planner::new(catalog(), settings, None)
}

pub fn query(sql: &str) -> Result<QueryPlan, SqlError> {
    query_with(sql, &[])
}

pub fn query_with(sql: &str, parameters: &[Option<SqlType>]) -> Result<QueryPlan, SqlError> {
    planner().plan_query(&*millpond_sql::parse_query(sql)?, parameters)
}

pub fn view_plan(sql: &str, options: LowerOptions) -> Result<Plan, SqlError> {
    let plan = planner().plan_view(&*millpond_sql::parse_query(sql)?, &[])?;
    lower(&plan.logical, options).map_err(|error| plan.placed(error))
}

/// `code position message`, with `-` for no position.
pub fn described(error: &SqlError) -> String {
    let position = error.position().map_or("-".to_owned(), |p| p.to_string());
    format!("{} {position} {}", error.state(), error.message())
}

pub fn columns(columns: &[(String, SqlType)]) -> String {
    columns.iter().map(|(name, ty)| format!("{name} {ty}")).collect::<Vec<_>>().join(", ")
}

/// Reports all cases that differ, not only the first.
pub fn check_all<'a>(cases: impl IntoIterator<Item = (&'a str, &'a str)>, answer: impl Fn(&str) -> String) {
    let mut wrong = String::new();
    for (input, expected) in cases {
        let got = answer(input);
        if got.trim() != expected.trim() {
            wrong.push_str(&format!("\n{input}\n  expected: {expected}\n  got:      {got}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
