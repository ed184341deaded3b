use millpond_engine::status::{CheckpointStatus, RelationState, RelationStatus};
use millpond_types::{Commit, EventTime, RelationId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

fn status() -> Status {
    let relation = |id, name: &str, state, watermark| RelationStatus {
        id: RelationId(id),
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: "materialized view",
        state,
        rows: 1234,
        state_bytes: 2048,
        watermark,
        late_rows: 3,
        error_rows: 1,
        epoch: Commit(38),
        busy_seconds: 0.25,
    };
    Status {
        healthy: true,
        uptime_seconds: 61.5,
        connections: 2,
        durable: Commit(42),
        published: Commit(40),
        rows_in: 1_000_000,
        epochs: 17,
        epoch_seconds: 1.5,
        epoch_seconds_max: 0.125,
        checkpoint: Some(CheckpointStatus {
            number: 3,
            cut: Commit(30),
            bytes: 999,
            seconds: 0.5,
            pause_seconds: 0.001,
        }),
        relations: vec![
            relation(1, "per_minute", RelationState::Running, Some(EventTime(1_500_000))),
            relation(2, "<b>\"x\"", RelationState::Failed("a & b".to_owned()), Some(EventTime::MAX)),
        ],
        ..Status::default()
    }
}

async fn start(status: Status) -> Server {
    let addr = "127.0.0.1:0".parse().unwrap();
    serve_status(move || status.clone(), addr, Some("127.0.0.1:5433".parse().unwrap())).await.unwrap()
}

/// Sends a whole request and reads to the end of the connection.
async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get_page(server: &Server, path: &str) -> String {
    ask(server.local_addr(), &format!("GET {path} HTTP/1.1\r\nHost: localhost:1\r\n\r\n")).await
}

#[tokio::test]
async fn health_says_whether_writes_are_taken() {
    let server = start(status()).await;
    let answer = get_page(&server, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\nok\n"), "{answer}");
    server.shutdown().await;

    let failure = Some("the disk is full".to_owned());
    let server = start(Status { healthy: false, failure, ..Status::default() }).await;
    let answer = get_page(&server, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\nthe disk is full\n"), "{answer}");
}

#[tokio::test]
async fn metrics_show_every_number_of_the_status() {
    let server = start(status()).await;
    let answer = get_page(&server, "/metrics").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    let labels = "{schema=\"public\",name=\"per_minute\",kind=\"materialized view\"}";
    let expected = [
        "millpond_healthy 1".to_owned(),
        "millpond_uptime_seconds 61.5".to_owned(),
        "millpond_connections 2".to_owned(),
        "millpond_durable_commit 42".to_owned(),
        "millpond_published_commit 40".to_owned(),
        "millpond_rows_in_total 1000000".to_owned(),
        "millpond_epochs_total 17".to_owned(),
        "millpond_epoch_seconds_total 1.5".to_owned(),
        "millpond_epoch_seconds_max 0.125".to_owned(),
        "millpond_checkpoint_number 3".to_owned(),
        "millpond_checkpoint_bytes 999".to_owned(),
        "millpond_checkpoint_seconds 0.5".to_owned(),
        format!("millpond_relation_rows{labels} 1234"),
        format!("millpond_relation_running{labels} 1"),
        format!("millpond_relation_lag_commits{labels} 2"),
        format!("millpond_relation_state_bytes{labels} 2048"),
        format!("millpond_relation_watermark_seconds{labels} 1.5"),
        format!("millpond_relation_late_rows_total{labels} 3"),
        "name=\"<b>\\\"x\\\"\"".to_owned(),
        "# EOF".to_owned(),
    ];
    for line in expected {
        assert!(answer.contains(&line), "{line} is not in {answer}");
    }
    let watermarks = answer.lines().filter(|l| l.starts_with("millpond_relation_watermark_seconds")).count();
    assert_eq!(watermarks, 1, "infinity is no time");
}

#[tokio::test]
async fn the_page_escapes_names() {
    let server = start(status()).await;
    let answer = get_page(&server, "/").await;
    for part in [
        "psql -h 127.0.0.1 -p 5433 -U millpond",
        "public.per_minute<td>materialized view<td>running",
        "public.&lt;b&gt;&quot;x&quot;",
        "failed: a &amp; b",
        "1,000,000 rows",
        "content-security-policy: default-src 'none'",
    ] {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }
    assert!(!answer.contains("<b>"));
}

#[tokio::test]
async fn foreign_names_methods_and_paths_are_refused() {
    let server = start(status()).await;
    let addr = server.local_addr();
    for (request, code) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "200"),
        ("GET /secrets HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(addr, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn silent_clients_are_cut_off_and_others_get_their_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shared = Shared { status: Box::new(status), is_loopback: true, postgres: None };
    let connections = Connections::bounded(listener, 1, Duration::from_millis(50));
    let task = tokio::spawn(axum::serve(connections, router(Arc::new(shared))).into_future());
    let mut silent = TcpStream::connect(addr).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    // It has the only place until its time is over.
    let answer = ask(addr, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    task.abort();
}

#[tokio::test]
async fn shutdown_frees_the_address() {
    let server = start(status()).await;
    let addr = server.local_addr();
    server.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
}
