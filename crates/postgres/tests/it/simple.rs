//! The simple query protocol.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn values_are_shown_as_postgresql_shows_them() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let sql = "SELECT 1, -2::bigint, 1.50::numeric(6,2), 'x', NULL::text, true, DATE '2024-02-29', \
               TIMESTAMP '2024-02-29 12:00:00.5', INTERVAL '1 day 2 hours', 1.5::float8";
    assert_eq!(
        text(&client, sql).await,
        "1|-2|1.50|x|~|t|2024-02-29|2024-02-29 12:00:00.5|1 day 02:00:00|1.5"
    );
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_several_statements_is_one_transaction() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, "CREATE TABLE t (k bigint PRIMARY KEY, v text)").await;
    assert_eq!(error(&client, "INSERT INTO t VALUES (1, 'a'); SELECT 1/0").await.0, "22012");
    assert_eq!(text(&client, "SELECT count(*) FROM t").await, "0");
    let sql = "INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b'); SELECT k FROM t ORDER BY k";
    assert_eq!(text(&client, sql).await, "1\n2");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_code_position_and_leave_the_session_usable() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let error = client.simple_query("SELECT 1; SELECT nope").await.unwrap_err();
    let db = error.as_db_error().unwrap();
    assert_eq!(db.code().code(), "42703");
    assert_eq!(db.position(), Some(&tokio_postgres::error::ErrorPosition::Original(18)));
    assert_eq!(super::error(&client, "SELEC 1").await.0, "42601");
    assert_eq!(text(&client, "SELECT 1").await, "1");
    text(&client, "").await;
    text(&client, " ; -- nothing\n").await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_block_waits_for_rollback() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, "BEGIN").await;
    assert_eq!(error(&client, "SELECT 1/0").await.0, "22012");
    assert_eq!(error(&client, "SELECT 1").await.0, "25P02");
    text(&client, "ROLLBACK").await;
    assert_eq!(text(&client, "SELECT 1").await, "1");
    fixture.stop().await;
}
