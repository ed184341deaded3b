//! The extended query protocol: parameters and results in binary form, portals, pipelines.

use tokio_postgres::types::Type;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn binary_parameters_come_back_as_they_went() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let types = [Type::INT4, Type::INT8, Type::TEXT, Type::BOOL, Type::FLOAT8, Type::BYTEA];
    let statement = client.prepare_typed("SELECT $1, $2, $3, $4, $5, $6", &types).await.unwrap();
    let bytes = &b"\x00\xff"[..];
    let row =
        client.query_one(&statement, &[&-7i32, &i64::MAX, &"žluť", &true, &0.1f64, &bytes]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), -7);
    assert_eq!(row.get::<_, i64>(1), i64::MAX);
    assert_eq!(row.get::<_, &str>(2), "žluť");
    assert!(row.get::<_, bool>(3));
    assert_eq!(row.get::<_, f64>(4), 0.1);
    assert_eq!(row.get::<_, &[u8]>(5), bytes);
    let row = client.query_one(&statement, &[&None::<i32>, &1i64, &"", &false, &0f64, &bytes]).await.unwrap();
    assert_eq!(row.get::<_, Option<i32>>(0), None);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_parameters_are_inferred_and_described() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, "CREATE TABLE t (k bigint PRIMARY KEY, v text)").await;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await.unwrap();
    assert_eq!(insert.params(), [Type::INT8, Type::TEXT]);
    for k in 0..3i64 {
        assert_eq!(client.execute(&insert, &[&k, &format!("v{k}")]).await.unwrap(), 1);
    }
    let select = client.prepare("SELECT v, k FROM t WHERE k >= $1 ORDER BY k").await.unwrap();
    assert_eq!(select.params(), [Type::INT8]);
    let names: Vec<&str> = select.columns().iter().map(|c| c.name()).collect();
    assert_eq!(names, ["v", "k"]);
    let rows = client.query(&select, &[&1i64]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.get::<_, &str>(0)).collect::<Vec<_>>(), ["v1", "v2"]);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_gives_its_rows_in_parts() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT * FROM generate_series(1, 10) AS t(n)", &[]).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        sizes.push(rows.len());
        if rows.len() < 4 {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
    transaction.commit().await.unwrap();
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_skips_to_sync_and_no_further() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    // tokio-postgres pipelines what is awaited together.
    let good = client.prepare_typed("SELECT $1 + 1", &[Type::INT4]).await.unwrap();
    let bad = client.prepare_typed("SELECT 1 / $1", &[Type::INT4]).await.unwrap();
    let (first, second, third) = tokio::join!(
        client.query_one(&good, &[&1i32]),
        client.query_one(&bad, &[&0i32]),
        client.query_one(&good, &[&2i32]),
    );
    assert_eq!(first.unwrap().get::<_, i32>(0), 2);
    assert_eq!(second.unwrap_err().code().unwrap().code(), "22012");
    assert_eq!(third.unwrap().get::<_, i32>(0), 3);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_results_of_every_kind_of_column() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let sql = "SELECT 2::smallint, 1.5::real, DATE '2024-02-29', TIMESTAMP '2024-02-29 12:00:00.5', \
               TIMESTAMP WITH TIME ZONE '2024-02-29 12:00:00+00', ARRAY[1, 2, 3]";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i16>(0), 2);
    assert_eq!(row.get::<_, f32>(1), 1.5);
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let half_past = row.get::<_, std::time::SystemTime>(3).duration_since(epoch).unwrap();
    assert_eq!(half_past.as_millis(), 1_709_208_000_500);
    let zoned = row.get::<_, std::time::SystemTime>(4).duration_since(epoch).unwrap();
    assert_eq!(zoned.as_millis(), 1_709_208_000_000);
    assert_eq!(row.columns()[2].type_(), &Type::DATE);
    assert_eq!(row.get::<_, Vec<i32>>(5), [1, 2, 3]);
    fixture.stop().await;
}
