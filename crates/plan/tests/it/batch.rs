//! Plans executed by DataFusion over small tables.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::config::SessionConfig;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::collect;
use datafusion::physical_planner::PhysicalPlanner;
use datafusion::prelude::SessionContext;
use millpond_plan::{
    RelationSource, batch, bind_parameters, config_options, replace_relations, without_late_rows,
};
use millpond_types::SqlError;

use crate::support::{planner, query};

const MINUTE: i64 = 60_000_000;

/// Four bids at minutes 0, 0.5, 1 and NULL, and a late one: it came when the watermark was at minute 2.
fn bids(schema: &SchemaRef) -> RecordBatch {
    let rows = 5;
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "auction" => Arc::new(Int64Array::from(vec![1, 1, 2, 2, 1])),
            "bidder" => Arc::new(Int64Array::from(vec![7; rows])),
            "price" => Arc::new(Int64Array::from(vec![10, 20, 30, 40, 50])),
            "ts" => Arc::new(TimestampMicrosecondArray::from(vec![
                Some(0),
                Some(MINUTE / 2),
                Some(MINUTE),
                None,
                Some(1),
            ])),
            "_watermark" => Arc::new(TimestampMicrosecondArray::from(vec![
                None,
                Some(0),
                Some(MINUTE / 2),
                Some(MINUTE),
                Some(2 * MINUTE),
            ])),
            "_offset" => Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4])),
            _ => Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("a"), None, Some("it's")])),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

fn provide(relation: &RelationSource) -> Result<Arc<dyn TableSource>, SqlError> {
    let schema = relation.schema();
    let batch = match relation.facts().name.as_str() {
        "bid" => bids(&schema),
        _ => RecordBatch::new_empty(Arc::clone(&schema)),
    };
    Ok(provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())))
}

/// Rows as `a,b`, sorted, joined by ` | `.
fn rows(plan: LogicalPlan) -> String {
    let plan = batch(replace_relations(plan, &mut provide).unwrap()).unwrap();
    let config = SessionConfig::from(config_options().as_ref().clone()).with_target_partitions(1);
    let context = SessionContext::new_with_state(
        SessionStateBuilder::new().with_config(config).with_default_features().build(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let batches = runtime.block_on(async {
        let state = context.state();
        let physical = millpond_plan::physical_planner().create_physical_plan(&plan, &state).await.unwrap();
        collect(physical, context.task_ctx()).await.unwrap()
    });
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(","));
        }
    }
    lines.sort();
    lines.join(" | ")
}

fn answer(sql: &str) -> String {
    rows(query(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).logical)
}

#[test]
fn queries_answer_as_postgresql_would() {
    crate::support::check_all(
        [
            ("SELECT 1 + 1, 7 / 2, 'a' || 'b'", "2,3,ab"),
            (
                "SELECT auction, sum(price), avg(price) FROM bid GROUP BY auction",
                "1,80,26.6666666666666667 | 2,70,35.0000000000000000",
            ),
            ("SELECT count(*), max(channel) FROM bid WHERE price > 15 AND channel = 'it''s'", "1,it's"),
            ("SELECT price FROM bid ORDER BY price DESC LIMIT 2", "40 | 50"),
            ("SELECT count(*) FROM bid a JOIN bid b ON a.auction = b.auction", "13"),
            (
                "SELECT price FROM bid b WHERE price = (SELECT max(price) FROM bid c WHERE c.auction = b.auction)",
                "40 | 50",
            ),
            ("SELECT price FROM bid WHERE price > (SELECT avg(price) FROM bid)", "40 | 50"),
            ("SELECT price FROM bid WHERE (auction, price) IN ((1, 10), (2, 40), (2, 10))", "10 | 40"),
            ("SELECT price FROM bid WHERE price = ANY (ARRAY[10, 50])", "10 | 50"),
            ("SELECT DISTINCT ON (auction) price FROM bid ORDER BY auction, price DESC", "40 | 50"),
            ("SELECT generate_series(1, 2)", "1 | 2"),
            ("SELECT double FROM twice WHERE auction = 2", "60 | 80"),
            ("SELECT _offset FROM bid WHERE _watermark IS NULL", "0"),
            ("SELECT DISTINCT upper(channel) FROM bid ORDER BY upper(channel)", "A | B | IT'S | NULL"),
            ("SELECT * FROM (VALUES (1, 'a'), (3000000000, NULL)) v(x, y)", "1,a | 3000000000,NULL"),
            ("SELECT x + 1 FROM generate_series(1, 3) AS g(x)", "2 | 3 | 4"),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r",
                "1 | 2 | 3",
            ),
            (
                "SELECT row_number() OVER (PARTITION BY auction ORDER BY price) FROM bid WHERE auction = 2",
                "1 | 2",
            ),
        ],
        answer,
    );
}

/// The query of a view, with all that SQL leaves open settled.
fn view_answer(sql: &str) -> String {
    let query = millpond_sql::parse_query(sql).unwrap();
    let plan = planner().plan_view(&query, &[]).unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows(plan.logical)
}

#[test]
fn the_batch_of_a_view_has_one_answer() {
    crate::support::check_all(
        [
            ("SELECT price FROM bid ORDER BY channel LIMIT 2", "10 | 30"),
            ("SELECT auction, price FROM bid ORDER BY auction DESC LIMIT 2 OFFSET 1", "1,10 | 2,40"),
            ("SELECT price FROM bid LIMIT 3", "10 | 20 | 30"),
            (
                "SELECT DISTINCT ON (auction) auction, price FROM bid ORDER BY auction, price DESC",
                "1,50 | 2,40",
            ),
            ("SELECT DISTINCT ON (auction) price FROM bid ORDER BY auction DESC, price LIMIT 1", "30"),
            (
                "SELECT price, row_number() OVER (PARTITION BY auction ORDER BY bidder) AS n, rank() OVER (PARTITION BY auction ORDER BY bidder) AS r FROM bid",
                "10,1,1 | 20,2,1 | 30,1,1 | 40,2,1 | 50,3,1",
            ),
            (
                "SELECT price, last_value(price) OVER (PARTITION BY auction ORDER BY bidder RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS l FROM bid",
                "10,50 | 20,50 | 30,40 | 40,40 | 50,50",
            ),
            (
                "SELECT price, ntile(2) OVER (ORDER BY auction), sum(price) OVER (ORDER BY auction ROWS 1 PRECEDING) AS s FROM bid",
                "10,1,10 | 20,1,30 | 30,2,80 | 40,2,70 | 50,1,70",
            ),
            ("SELECT auction FROM bid INTERSECT SELECT bidder - 6 FROM bid", "1"),
            (
                "SELECT auction FROM bid INTERSECT ALL SELECT auction FROM bid WHERE price > 10",
                "1 | 1 | 2 | 2",
            ),
            ("SELECT channel FROM bid EXCEPT SELECT channel FROM bid WHERE price < 30", "NULL | it's"),
            ("SELECT auction FROM bid EXCEPT ALL SELECT auction FROM bid WHERE price > 20", "1 | 1"),
            ("SELECT auction FROM bid UNION SELECT bidder FROM bid", "1 | 2 | 7"),
        ],
        view_answer,
    );
}

#[test]
fn windows_hold_the_rows_whose_time_is_in_them() {
    crate::support::check_all(
        [
            (
                "SELECT window_start, window_end, count(*), sum(price) FROM TUMBLE(bid, ts, INTERVAL '1 minute') \
                 GROUP BY window_start, window_end",
                "1970-01-01T00:00:00,1970-01-01T00:01:00,3,80 | 1970-01-01T00:01:00,1970-01-01T00:02:00,1,30",
            ),
            (
                "SELECT window_start, sum(price) FROM HOP(bid, ts, INTERVAL '30 seconds', INTERVAL '1 minute') \
                 GROUP BY window_start",
                "1969-12-31T23:59:30,60 | 1970-01-01T00:00:00,80 | 1970-01-01T00:00:30,50 | 1970-01-01T00:01:00,30",
            ),
            (
                "SELECT b.price FROM TUMBLE(bid, ts, INTERVAL '1 hour') AS b WHERE window_start = '1970-01-01'",
                "10 | 20 | 30 | 50",
            ),
        ],
        answer,
    );
}

#[test]
fn late_rows_are_left_out_where_a_window_closes() {
    let view =
        |sql: &str| planner().plan_view(&millpond_sql::parse_query(sql).unwrap(), &[]).unwrap().logical;
    let late = |sql: &str, lateness| rows(without_late_rows(view(sql), lateness).unwrap());
    let tumble =
        "SELECT window_start, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '1 minute') GROUP BY window_start";
    assert_eq!(late(tumble, 0), "1970-01-01T00:00:00,2 | 1970-01-01T00:01:00,1");
    assert_eq!(late(tumble, MINUTE), "1970-01-01T00:00:00,2 | 1970-01-01T00:01:00,1");
    assert_eq!(late(tumble, MINUTE + 1), "1970-01-01T00:00:00,3 | 1970-01-01T00:01:00,1");
    // Through a view with a projection and a filter, and a subquery of another name.
    let through = "SELECT window_end, sum(double) AS n FROM TUMBLE((SELECT ts AS t, double FROM twice x), t, INTERVAL '1 minute') \
                   WHERE double > 20 GROUP BY window_end";
    assert_eq!(late(through, 0), "1970-01-01T00:01:00,40 | 1970-01-01T00:02:00,60");
    // A row that is late for one window may be in time for another.
    let hop = "SELECT window_start, count(*) AS n FROM HOP(bid, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY window_start";
    assert_eq!(
        late(hop, 0),
        "1969-12-31T23:58:00,2 | 1969-12-31T23:59:00,3 | 1970-01-01T00:00:00,4 | 1970-01-01T00:01:00,1"
    );
    // Nothing closes here.
    assert_eq!(late("SELECT count(*) AS n FROM bid", 0), "5");
}

#[test]
fn parameters_are_bound() {
    use datafusion::common::ScalarValue;
    let plan = query("SELECT price FROM bid WHERE price > $1 ORDER BY price LIMIT $2").unwrap();
    let values = [ScalarValue::Int64(Some(15)), ScalarValue::Int64(Some(2))];
    assert_eq!(rows(bind_parameters(&plan.logical, &values).unwrap()), "20 | 30");
    let error = bind_parameters(&plan.logical, &values[..1]).unwrap_err();
    assert_eq!(error.state().as_str(), "08P01");
}

#[test]
fn rows_of_inserts_are_complete() {
    let inserted = |sql: &str| match crate::writes::write(sql) {
        Ok(crate::writes::Write::Insert(plan)) => {
            assert_eq!(plan.rows.schema().fields().len(), 3, "{sql}");
            rows(plan.rows)
        }
        Ok(_) => unreachable!(),
        Err(e) => crate::support::described(&e),
    };
    crate::support::check_all(
        [
            ("INSERT INTO plain VALUES (1, 'x', NULL), (2 + 1, upper('y'), NULL)", "1,x,NULL | 3,Y,NULL"),
            ("INSERT INTO plain (a) VALUES ((SELECT max(price) FROM bid))", "50,NULL,NULL"),
            (
                "INSERT INTO plain (a) VALUES (1), ((SELECT min(price) FROM bid) + 1)",
                "1,NULL,NULL | 11,NULL,NULL",
            ),
            (
                "INSERT INTO plain (b, a) SELECT channel, price FROM bid WHERE price < 25",
                "10,a,NULL | 20,b,NULL",
            ),
            ("INSERT INTO plain (b) SELECT '5' UNION ALL SELECT 'x'", "NULL,5,NULL | NULL,x,NULL"),
            ("INSERT INTO plain DEFAULT VALUES", "NULL,NULL,NULL"),
        ],
        inserted,
    );
}
