//! TUMBLE, HOP and SESSION: spellings and refusals.

use crate::support::{check_all, columns, described, query};

fn window_of(sql: &str) -> String {
    match query(sql) {
        Ok(plan) => {
            let text = plan.logical.display_indent().to_string();
            let line = text.lines().find_map(|line| line.split_once("WindowTvf: "));
            line.map_or(text.clone(), |(_, window)| window.to_owned())
        }
        Err(error) => described(&error),
    }
}

#[test]
fn both_spellings_mean_the_same() {
    let minute = "TUMBLE size 00:01:00 on bid.ts";
    let hop = "HOP slide 00:00:10 size 00:01:00 on bid.ts";
    check_all(
        [
            ("SELECT * FROM TUMBLE(bid, ts, INTERVAL '1 minute')", minute),
            ("SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", minute),
            ("SELECT * FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", minute),
            (
                "SELECT * FROM TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE))",
                minute,
            ),
            ("SELECT * FROM TUMBLE(public.bid, ts, INTERVAL '60 seconds')", minute),
            ("SELECT * FROM TUMBLE(bid, bid.ts, '1 minute')", minute),
            (
                "SELECT * FROM TUMBLE(bid, ts, INTERVAL '1 hour', INTERVAL '15 minutes')",
                "TUMBLE size 01:00:00 offset 00:15:00 on bid.ts",
            ),
            ("SELECT * FROM TUMBLE((SELECT * FROM bid WHERE price > 1), ts, INTERVAL '1 minute')", minute),
            (
                "SELECT * FROM TUMBLE((SELECT * FROM bid) b, ts, INTERVAL '1 minute')",
                "42601 42 syntax error at or near \"b\"",
            ),
            (
                "WITH c AS (SELECT * FROM bid) SELECT * FROM TUMBLE(c, ts, INTERVAL '1 minute')",
                "TUMBLE size 00:01:00 on c.ts",
            ),
            ("SELECT * FROM TUMBLE(twice, ts, INTERVAL '1 minute')", "TUMBLE size 00:01:00 on twice.ts"),
            ("SELECT * FROM HOP(bid, ts, INTERVAL '10 seconds', INTERVAL '1 minute')", hop),
            (
                "SELECT * FROM TABLE(HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '10' SECOND, SIZE => INTERVAL '1' MINUTE))",
                hop,
            ),
            (
                "SELECT * FROM CUMULATE(bid, ts, INTERVAL '1 minute', INTERVAL '1 hour')",
                "CUMULATE step 00:01:00 size 01:00:00 on bid.ts",
            ),
            (
                "SELECT * FROM CUMULATE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), STEP => INTERVAL '1' MONTH, SIZE => INTERVAL '1' YEAR, \"offset\" => INTERVAL '1' DAY)",
                "CUMULATE step 1 mon size 1 year offset 1 day on bid.ts",
            ),
            ("SELECT * FROM TUMBLE(ev, at, INTERVAL '1 day')", "TUMBLE size 1 day on ev.at"),
        ],
        window_of,
    );
}

#[test]
fn sessions_may_be_partitioned() {
    check_all(
        [
            ("SELECT * FROM SESSION(bid, ts, INTERVAL '1 minute')", "SESSION gap 00:01:00 on bid.ts"),
            (
                "SELECT * FROM SESSION(TABLE bid PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
                "SESSION gap 00:01:00 on bid.ts by bid.auction",
            ),
            (
                "SELECT * FROM SESSION ( public.bid PARTITION BY auction, bid.channel, ts, '1 day')",
                "SESSION gap 24:00:00 on bid.ts by bid.auction, bid.channel",
            ),
            (
                "SELECT * FROM SESSION((SELECT ts, price AS p FROM bid WHERE (price > 3)) PARTITION BY (p), ts, INTERVAL '1' MINUTE)",
                "SESSION gap 00:01:00 on bid.ts by p",
            ),
            (
                "SELECT * FROM TABLE(SESSION(DATA => TABLE bid PARTITION BY (auction, channel), TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '1' MINUTE))",
                "SESSION gap 00:01:00 on bid.ts by bid.auction, bid.channel",
            ),
        ],
        window_of,
    );
}

#[test]
fn windows_add_two_columns() {
    check_all(
        [
            (
                "SELECT * FROM TUMBLE(ev, at, INTERVAL '1 hour')",
                "k integer, v numeric(10,2), at timestamp with time zone, d date, \
                 window_start timestamp with time zone, window_end timestamp with time zone",
            ),
            (
                "SELECT w.window_start, w.price FROM TUMBLE(bid, ts, INTERVAL '1 hour') AS w",
                "window_start timestamp without time zone, price bigint",
            ),
            (
                "SELECT bid.price, window_end FROM TUMBLE(bid, ts, INTERVAL '1 hour')",
                "price bigint, window_end timestamp without time zone",
            ),
        ],
        |sql| query(sql).map_or_else(|e| described(&e), |plan| columns(&plan.columns)),
    );
}

#[test]
fn impossible_windows_are_refused() {
    check_all(
        [
            (
                "SELECT * FROM HOP(bid, ts, INTERVAL '1 minute', INTERVAL '10 seconds')",
                "22023 37 the slide of HOP is longer than its size: slide and size may be swapped",
            ),
            (
                "SELECT * FROM TUMBLE(bid, price, INTERVAL '1 minute')",
                "42804 27 the time of TUMBLE must be of type timestamp, not bigint",
            ),
            (
                "SELECT * FROM TUMBLE(bid, nope, INTERVAL '1 minute')",
                "42703 27 column \"nope\" does not exist",
            ),
            (
                "SELECT * FROM TUMBLE(nothere, ts, INTERVAL '1 minute')",
                "42P01 22 relation \"nothere\" does not exist",
            ),
            ("SELECT * FROM TUMBLE(bid, ts, NULL)", "22023 31 the size of TUMBLE must not be NULL"),
            (
                "SELECT * FROM TUMBLE(bid, ts, 5)",
                "42804 31 the size of TUMBLE must be of type interval, not integer",
            ),
            (
                "SELECT * FROM TUMBLE(bid, ts)",
                "42883 15 TUMBLE takes 3 or 4 arguments, each once, not these 2",
            ),
            (
                "SELECT * FROM SESSION(bid PARTITION BY nope, ts, INTERVAL '1 minute')",
                "42703 40 column \"nope\" does not exist",
            ),
            (
                "SELECT * FROM SESSION(bid PARTITION BY auction + 1, ts, INTERVAL '1 minute')",
                "0A000 40 sessions are partitioned by columns",
            ),
            (
                "SELECT * FROM SESSION(bid, ts, INTERVAL '1 month')",
                "22023 41 the gap of a session cannot have months",
            ),
            (
                "SELECT * FROM SESSION(bid, ts, INTERVAL '0 seconds')",
                "22023 41 the size of a window must be positive",
            ),
            ("SELECT * FROM SESSION(bid, ts)", "42883 15 SESSION takes 3 arguments, each once, not these 2"),
            (
                "SELECT * FROM TUMBLE(bid PARTITION BY auction, ts, INTERVAL '1 minute')",
                "42601 26 syntax error at or near \"PARTITION\"",
            ),
        ],
        window_of,
    );
    for size in ["0 seconds", "-1 minute"] {
        let error = query(&format!("SELECT * FROM TUMBLE(bid, ts, INTERVAL '{size}')")).unwrap_err();
        assert_eq!(error.state().as_str(), "22023", "{size}: {error}");
    }
}
