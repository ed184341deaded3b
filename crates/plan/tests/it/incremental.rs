//! Views as incremental plans: EXPLAIN text or refusal.

use millpond_plan::incremental::{LowerOptions, Operator};

use crate::support::{check_all, described, view_plan};

fn explain(sql: &str) -> String {
    view_plan(sql, LowerOptions::default())
        .map_or_else(|e| described(&e), |plan| plan.to_string().replace('\n', " |"))
}

#[test]
fn what_is_computed_twice_is_one_node() {
    check_all(
        [
            (
                "WITH t AS (SELECT channel, count(*) AS n FROM bid GROUP BY channel) \
                 SELECT a.n FROM t a JOIN t b ON a.n = b.n",
                "Map n [retracting] |  Join inner on n = n [retracting; state: every row of both sides, never freed] |    #1: Map count(*) AS n [retracting] |      Aggregate by channel: count(*) [key (channel); retracting; state: every group, never freed] |        Input bid(channel) [append-only] |    #1",
            ),
            (
                "SELECT k FROM ev UNION ALL SELECT k FROM ev UNION ALL SELECT k + 1 FROM ev",
                "Union [append-only] |  #1: Map k [append-only] |    #2: Input ev(k) [append-only] |  #1 |  Map k + 1 AS k [append-only] |    #2",
            ),
        ],
        explain,
    );
}

#[test]
fn views_become_operators() {
    check_all(
        [
            ("SELECT auction, price FROM bid", "Input bid(auction, price) [append-only]"),
            (
                "SELECT price * 2 AS double, auction FROM bid WHERE price > 10",
                "Map price * 2 AS double, auction WHERE price > 10 [append-only] |  Input bid(auction, price) [append-only]",
            ),
            (
                "SELECT double + 1 AS more FROM twice WHERE double > 7",
                "Map price * 2 + 1 AS more WHERE price > 0 AND price * 2 > 7 [append-only] |  Input bid(price) [append-only]",
            ),
            (
                "SELECT auction, count(*), sum(price) AS total, max(price) FROM bid GROUP BY auction",
                "Aggregate by auction: count(*), sum(price), max(price) [key (auction); retracting; state: every group, never freed] |  Input bid(auction, price) [append-only]",
            ),
            (
                "SELECT auction, sum(price * 2) FILTER (WHERE channel = 'x') AS s FROM bid GROUP BY 1 HAVING count(*) > 1",
                "Map auction, sum(price * 2) FILTER (channel = 'x') AS s WHERE count(*) > 1 [key (auction); retracting] |  Aggregate by auction: sum(price * 2) FILTER (channel = 'x'), count(*) [key (auction); retracting; state: every group, never freed] |    Map auction, price * 2, channel = 'x' [append-only] |      Input bid(auction, price, channel) [append-only]",
            ),
            (
                "SELECT count(*) FROM acc",
                "Aggregate: count(*) [one row; retracting; state: one group] |  Input acc(id) [key (id); retracting]",
            ),
            (
                "SELECT DISTINCT channel FROM bid",
                "Distinct by channel [key (channel); append-only; state: every group, never freed] |  Input bid(channel) [append-only]",
            ),
            (
                "SELECT channel FROM bid GROUP BY channel",
                "Distinct by channel [key (channel); append-only; state: every group, never freed] |  Input bid(channel) [append-only]",
            ),
            (
                "SELECT max(total) FROM totals",
                "Aggregate: max(total) [one row; retracting; state: one group] |  Input totals(total) [retracting]",
            ),
            (
                "SELECT id, balance FROM acc WHERE n > 1",
                "Map id, balance WHERE n > 1 [key (id); retracting] |  Input acc(id, balance, n) [key (id); retracting]",
            ),
            (
                "SELECT k FROM ev UNION ALL SELECT id FROM acc",
                "Union [retracting] |  Map k [append-only] |    Input ev(k) [append-only] |  Map id AS k [key (k); retracting] |    Input acc(id) [key (id); retracting]",
            ),
            (
                "SELECT window_start, auction, count(*) AS bids, sum(price) AS total, max(price) AS top \
                 FROM TUMBLE(bid, ts, INTERVAL '1 minute') GROUP BY window_start, auction",
                "Aggregate by window_start, auction: count(*), sum(price), max(price) [key (window_start, auction); retracting; state: open windows, freed when the watermark of bid passes window_end] |  Window TUMBLE size 00:01:00 on ts [append-only] |    Input bid(auction, price, ts, _watermark) [append-only]",
            ),
            (
                "SELECT window_end, count(*) AS bids FROM TUMBLE(twice, ts, INTERVAL '1 minute') WHERE double > 5 GROUP BY window_end",
                "Aggregate by window_end: count(*) [key (window_end); retracting; state: open windows, freed when the watermark of bid passes window_end] |  Window TUMBLE size 00:01:00 on ts [append-only] |    Map ts, _watermark WHERE price > 0 AND price * 2 > 5 [append-only] |      Input bid(price, ts, _watermark) [append-only]",
            ),
            (
                "SELECT window_start, window_end, auction, count(*) FROM HOP(bid, ts, INTERVAL '10 seconds', INTERVAL '1 minute') \
                 WHERE price > 3 GROUP BY window_start, window_end, auction",
                "HopAggregate HOP slide 00:00:10 size 00:01:00 on ts by window_start, window_end, auction: count(*) [key (window_start, window_end, auction); retracting; state: open windows, freed when the watermark of bid passes window_end] |  Map auction, price, ts, _watermark WHERE price > 3 [append-only] |    Input bid(auction, price, ts, _watermark) [append-only]",
            ),
            (
                "SELECT window_start, count(*) FROM HOP(bid, ts, INTERVAL '10 seconds', INTERVAL '1 minute') \
                 WHERE window_start > '2024-01-01' GROUP BY window_start",
                "Aggregate by window_start: count(*) [key (window_start); retracting; state: open windows, freed when the watermark of bid passes window_end] |  Map window_start, window_end, _watermark WHERE window_start > '2024-01-01T00:00:00' [append-only] |    Window HOP slide 00:00:10 size 00:01:00 on ts [append-only] |      Input bid(ts, _watermark) [append-only]",
            ),
            (
                "SELECT window_start, count(*) FROM TUMBLE(ev, at, INTERVAL '1 hour') GROUP BY window_start",
                "Aggregate by window_start: count(*) [key (window_start); retracting; state: every group, never freed] |  Window TUMBLE size 01:00:00 on at [append-only] |    Input ev(at) [append-only]",
            ),
            (
                "SELECT price, window_start FROM TUMBLE(bid, ts, INTERVAL '1 hour')",
                "Map price, window_start [append-only] |  Window TUMBLE size 01:00:00 on ts [append-only] |    Input bid(price, ts) [append-only]",
            ),
        ],
        explain,
    );
}

#[test]
fn joins_within_some_time_say_when_rows_are_freed() {
    let free = |sql: &str| {
        let text = explain(sql);
        let from = text.find("state: ").map_or(0, |at| at + 7);
        text[from..].split(']').next().unwrap_or_default().to_owned()
    };
    let between = "b.ts BETWEEN a.ts - INTERVAL '2 seconds' AND a.ts + INTERVAL '5 seconds'";
    let cases = [
        (
            format!("SELECT a.price, b.price AS other FROM bid a JOIN bid b ON a.auction = b.auction AND {between}"),
            "rows until both watermarks pass ts + 00:00:05 (left) and ts + 00:00:02 (right)",
        ),
        // Matches are counted: what a row met outlives it.
        (
            format!("SELECT a.price, b.price AS other FROM bid a LEFT JOIN bid b ON a.auction = b.auction AND {between}"),
            "rows until both watermarks pass ts + 00:00:05 (left) and ts + 00:00:07 (right)",
        ),
        (
            "SELECT a.price, b.price AS other FROM bid a JOIN bid b ON a.auction = b.auction AND b.ts >= a.ts".into(),
            "every row of both sides, never freed",
        ),
        (
            "SELECT a.price, b.double FROM bid a JOIN twice b ON a.auction = b.auction AND b.ts >= a.ts AND b.ts <= a.ts + INTERVAL '1 month'".into(),
            "every row of both sides, never freed",
        ),
        (
            "SELECT a.price, b.price AS other FROM TUMBLE(bid, ts, INTERVAL '1 minute') a LEFT JOIN TUMBLE(bid, ts, INTERVAL '1 minute') b ON a.window_end = b.window_end AND a.auction = b.auction".into(),
            "rows until both watermarks pass window_end (left) and window_end (right)",
        ),
        (
            "SELECT a.price, b.price AS other FROM TUMBLE(bid, ts, INTERVAL '1 minute') a JOIN TUMBLE(bid, ts, INTERVAL '2 minutes') b ON a.window_end = b.window_end".into(),
            "every row of both sides, never freed",
        ),
    ];
    check_all(cases.iter().map(|(sql, expected)| (sql.as_str(), *expected)), free);
}

#[test]
fn rows_in_order_and_sets_become_operators() {
    check_all(
        [
            (
                "SELECT auction, window_end, count(*) AS n FROM SESSION(bid PARTITION BY auction, ts, INTERVAL '5 minutes') WHERE price > 3 GROUP BY auction, window_end",
                "Aggregate by auction, window_end: count(*) [key (auction, window_end); retracting; state: every group, never freed] |  Map auction, window_end WHERE price > 3 [retracting] |    Over by auction order by ts: session_start(00:05:00), session_end(00:05:00) [retracting; state: every row, never freed] |      Map auction, price, ts WHERE ts IS NOT NULL [append-only] |        Input bid(auction, price, ts) [append-only]",
            ),
            (
                "SELECT auction, price FROM bid ORDER BY price DESC LIMIT 3 OFFSET 1",
                "TopN 3 rows after 1 order by price DESC, auction [retracting; state: the rows that are shown and those before them] |  Input bid(auction, price) [append-only]",
            ),
            (
                "SELECT id FROM acc LIMIT 2",
                "TopN 2 rows order by id [key (id); retracting; state: every row, never freed] |  Input acc(id) [key (id); retracting]",
            ),
            ("SELECT price FROM bid ORDER BY price", "Input bid(price) [append-only]"),
            (
                "SELECT DISTINCT ON (channel) channel, price FROM bid ORDER BY channel, price DESC",
                "Map channel, price [key (channel); retracting] |  TopN 1 rows by channel order by price DESC [key (channel); retracting; state: the rows of every group that are shown and those before them, never freed] |    Input bid(price, channel) [append-only]",
            ),
            (
                "SELECT price FROM (SELECT price, channel, row_number() OVER (PARTITION BY channel ORDER BY price) AS n FROM bid) AS s WHERE n <= 2 AND price > 5",
                "Map price WHERE price > 5 [retracting] |  TopN 2 rows by channel order by price [retracting; state: the rows of every group that are shown and those before them, never freed] |    Input bid(price, channel) [append-only]",
            ),
            (
                "SELECT price, n FROM (SELECT price, rank() OVER (ORDER BY price) AS n FROM bid) AS s WHERE n = 1",
                "TopN rank <= 1 with their number order by price [retracting; state: the rows that are shown and those before them] |  Input bid(price) [append-only]",
            ),
            (
                "SELECT price FROM bid QUALIFY dense_rank() OVER (ORDER BY price) < 3",
                "TopN dense_rank <= 2 order by price [retracting; state: the rows that are shown and those before them] |  Input bid(price) [append-only]",
            ),
        ],
        explain,
    );
}

#[test]
fn what_has_no_operator_yet_is_refused_by_name() {
    let views = " in a materialized view is not supported";
    let of = |what: &str| format!("0A000 - {what}{views}");
    let cases = [
        (
            "SELECT string_agg(channel, ',') OVER (ORDER BY price) FROM bid",
            of("string_agg over a frame of peers"),
        ),
        ("SELECT price FROM bid OFFSET 3", of("OFFSET without LIMIT")),
        ("SELECT approx_median(price) FROM bid", of("the aggregate approx_median")),
        (
            "SELECT random() AS r FROM bid",
            "0A000 8 random() answers differently each time and cannot stand in a materialized view".into(),
        ),
        (
            "SELECT price, now() AS n FROM bid",
            "0A000 15 now() outside of a filter in a materialized view is not supported".into(),
        ),
        ("SELECT price FROM bid WHERE price > $1", "42P02 - there is no parameter $1".into()),
        ("SELECT price, price FROM bid", "42701 - column \"price\" specified more than once".into()),
    ];
    check_all(cases.iter().map(|(sql, error)| (*sql, error.as_str())), explain);
}

#[test]
fn emit_on_window_close_needs_a_window_that_closes() {
    let options = LowerOptions { emit_on_close: true, ..LowerOptions::default() };
    let explain = |sql: &str| {
        view_plan(sql, options.clone())
            .map_or_else(|e| described(&e), |plan| plan.to_string().replace('\n', " |"))
    };
    check_all(
        [
            (
                "SELECT window_start, count(*) FROM TUMBLE(bid, ts, INTERVAL '1 hour') GROUP BY window_start",
                "Aggregate by window_start: count(*) [key (window_start); append-only; state: open windows, freed when the watermark of bid passes window_end; emits on window close] |  Window TUMBLE size 01:00:00 on ts [append-only] |    Input bid(ts, _watermark) [append-only]",
            ),
            (
                "SELECT auction, count(*) FROM bid GROUP BY auction",
                "0A000 - EMIT ON WINDOW CLOSE: the aggregate by auction is not over windows that a watermark closes",
            ),
            (
                "SELECT price FROM bid",
                "0A000 - EMIT ON WINDOW CLOSE needs an aggregate over windows of a source with a watermark",
            ),
        ],
        explain,
    );
}

#[test]
fn the_fingerprint_tells_types_apart() {
    let plan = |sql| view_plan(sql, LowerOptions::default()).unwrap();
    let a = plan("SELECT k, sum(k) AS s FROM ev GROUP BY k");
    let b = plan("SELECT v AS k, sum(v) AS s FROM ev GROUP BY v");
    assert_eq!(a.fingerprint(), plan("SELECT k, sum(k) AS s FROM ev GROUP BY k").fingerprint());
    assert_ne!(a.fingerprint(), b.fingerprint());
    assert!(matches!(a.root().operator, Operator::Aggregate(_)));
    assert_eq!(a.unbounded().len(), 1);
}
