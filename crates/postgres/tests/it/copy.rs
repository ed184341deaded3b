//! COPY through the connection.

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::Error;

use super::*;

const TABLE: &str = "CREATE TABLE t (k bigint PRIMARY KEY, price numeric(10,2), name text, at timestamp)";

/// Sends `data` in pieces of `size` bytes.
async fn copy_in(client: &Client, sql: &str, data: &str, size: usize) -> Result<u64, Error> {
    let sink = client.copy_in(sql).await?;
    tokio::pin!(sink);
    for piece in data.as_bytes().chunks(size) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.finish().await
}

async fn copy_out(client: &Client, sql: &str) -> Vec<u8> {
    let stream = client.copy_out(sql).await.unwrap();
    stream.map_ok(|b| b.to_vec()).try_concat().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_need_not_end_at_rows() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let csv = "1,1.50,\"a, \"\"b\"\"\nc\",2024-01-01 00:00:00\n2,,\"\",\n3,-2.5,,2024-01-02 10:20:30.123456";
    for size in [1, 3, 7, 1000] {
        text(&client, "DROP TABLE IF EXISTS t").await;
        text(&client, TABLE).await;
        assert_eq!(copy_in(&client, "COPY t FROM STDIN CSV", csv, size).await.unwrap(), 3);
        let rows = "1|1.50|a, \"b\"\nc|2024-01-01 00:00:00\n2|~||~\n3|-2.50|~|2024-01-02 10:20:30.123456";
        assert_eq!(text(&client, "SELECT * FROM t ORDER BY k").await, rows, "{size}");
    }
    let out = copy_out(&client, "COPY (SELECT * FROM t ORDER BY k) TO STDOUT CSV HEADER").await;
    let expected = "k,price,name,at\n1,1.50,\"a, \"\"b\"\"\nc\",2024-01-01 00:00:00\n2,,\"\",\n3,-2.50,,2024-01-02 10:20:30.123456\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_format_has_escapes() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, TABLE).await;
    let data = "1\t2.5\ta\\tb\\\\c\\x41\\101\t\\N\n2\t\\N\t\\N\t2024-01-01\n\\.\nignored\n";
    assert_eq!(copy_in(&client, "COPY t FROM STDIN", data, 5).await.unwrap(), 2);
    assert_eq!(
        text(&client, "SELECT * FROM t ORDER BY k").await,
        "1|2.50|a\tb\\cAA|~\n2|~|~|2024-01-01 00:00:00"
    );
    let out = copy_out(&client, "COPY (SELECT * FROM t ORDER BY k) TO STDOUT").await;
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "1\t2.50\ta\\tb\\\\cAA\t\\N\n2\t\\N\t\\N\t2024-01-01 00:00:00\n"
    );
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_format_goes_there_and_back() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, TABLE).await;
    text(&client, "INSERT INTO t VALUES (1, 1.25, 'x', '2024-01-01'), (2, -99999999.99, NULL, NULL)").await;
    let before = text(&client, "SELECT * FROM t ORDER BY k").await;
    let bytes = copy_out(&client, "COPY t TO STDOUT (FORMAT binary)").await;
    text(&client, "DELETE FROM t").await;
    let sink = client.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
    tokio::pin!(sink);
    for piece in bytes.chunks(5) {
        sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 2);
    assert_eq!(text(&client, "SELECT * FROM t ORDER BY k").await, before);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_fails_the_whole_copy_and_is_named() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, TABLE).await;
    let cases = [
        ("1,2,x,\n2,2x,y,\n", "22P02", "COPY t, line 2, column price: \"2x\""),
        ("1,2,x\n", "22P04", "COPY t, line 1: \"1,2,x\""),
        ("1,2,x,,\n", "22P04", "COPY t, line 1: \"1,2,x,,\""),
        ("1,2,\"x,\n", "22P04", "COPY t, line 2: \"1,2,\"x,\n\""),
        ("1,123456789012,x,\n", "22003", "COPY t, line 1, column price: \"123456789012\""),
    ];
    for (data, code, context) in cases {
        let error = copy_in(&client, "COPY t FROM STDIN CSV", data, 1000).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(
            (error.code().code(), error.where_()),
            (code, Some(context)),
            "{data:?}: {}",
            error.message()
        );
    }
    assert_eq!(text(&client, "SELECT count(*) FROM t").await, "0");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_can_be_kept_aside() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, TABLE).await;
    let data = "1,2,x,\nnope,2,y,\n3,4\n5,6x,z,\n7,8,w,\n";
    let rows =
        copy_in(&client, "COPY t FROM STDIN WITH (FORMAT csv, ON_ERROR ignore)", data, 9).await.unwrap();
    assert_eq!(rows, 2);
    assert_eq!(text(&client, "SELECT k FROM t ORDER BY k").await, "1\n7");
    let errors = text(&client, "SELECT line, sqlstate, row FROM millpond.errors ORDER BY line").await;
    assert_eq!(errors, "2|22P02|nope,2,y,\n3|22P04|3,4\n4|22P02|5,6x,z,");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_copy_leaves_nothing() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, TABLE).await;
    {
        let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN CSV").await.unwrap();
        tokio::pin!(sink);
        sink.send(Bytes::from_static(b"1,2,x,\n")).await.unwrap();
        // Dropped without finish: the client sends CopyFail.
    }
    assert_eq!(text(&client, "SELECT count(*) FROM t").await, "0");
    fixture.stop().await;
}
