//! Mistakes in queries: code, place and PostgreSQL's words.

use crate::support::{check_all, described, query};

#[test]
fn mistakes_are_told_in_postgresqls_words() {
    check_all(
        [
            ("SELECT userid FROM bid", "42703 8 column \"userid\" does not exist"),
            ("SELECT b.userid FROM bid b", "42703 8 column b.userid does not exist"),
            ("SELECT x.price FROM bid", "42P01 8 missing FROM-clause entry for table \"x\""),
            ("SELECT price FROM bid WHERE nope = 1", "42703 29 column \"nope\" does not exist"),
            ("SELECT price FROM bid ORDER BY nope", "42703 32 column \"nope\" does not exist"),
            ("SELECT price FROM bid GROUP BY nope", "42703 32 column \"nope\" does not exist"),
            ("SELECT * FROM nothere", "42P01 15 relation \"nothere\" does not exist"),
            ("SELECT 1 FROM bid JOIN nothere ON true", "42P01 24 relation \"nothere\" does not exist"),
            ("SELECT price FROM bid a, bid b", "42702 8 column reference \"price\" is ambiguous"),
            ("SELECT frobnicate(price) FROM bid", "42883 8 function frobnicate(bigint) does not exist"),
            ("SELECT frobnicate()", "42883 8 function frobnicate() does not exist"),
            (
                "SELECT channel, count(*) FROM bid",
                "42803 8 column \"bid.channel\" must appear in the GROUP BY clause or be used in an aggregate function",
            ),
            ("SELECT 1 FROM bid WHERE count(*) > 1", "42803 - aggregate functions are not allowed in WHERE"),
            (
                "SELECT k FROM ev UNION SELECT 1, 2",
                "42601 1 each UNION query must have the same number of columns",
            ),
            ("SELECT price FROM bid GROUP BY 7", "42P10 - GROUP BY position 7 is not in select list"),
            ("SELECT x.* FROM bid", "42P01 - missing FROM-clause entry for table \"x\""),
            ("SELECT 'a'::int", "22P02 8 invalid input syntax for type integer: \"a\""),
            (
                "SELECT * FROM bid WHERE channel",
                "42804 - argument of WHERE must be type boolean, not type text",
            ),
            (
                "SELECT price FROM bid WHERE price = 'x'",
                "22P02 37 invalid input syntax for type bigint: \"x\"",
            ),
            ("SELECT price FROM bid WHERE price = true", "42883 - operator does not exist: bigint = boolean"),
            ("SELECT sum(channel) FROM bid", "42883 8 function sum(text) does not exist"),
            (
                "SELECT 1 UNION SELECT channel FROM bid",
                "42804 - UNION types integer and text cannot be matched",
            ),
            ("SELECT price FROM bid LIMIT -1", "2201W - LIMIT must not be negative"),
            ("SELECT price FROM bid ORDER BY 2", "42P10 - ORDER BY position is not in select list"),
            ("SELECT * FROM broken", "42703 15 column \"nope\" does not exist"),
        ],
        |sql| query(sql).map_or_else(|e| described(&e), |_| "planned".to_owned()),
    );
}

#[test]
fn a_near_miss_is_hinted() {
    let error = query("SELECT auctoin FROM bid").unwrap_err();
    assert_eq!(error.hint_text(), Some("Perhaps you meant to reference the column \"auction\"."));
}
