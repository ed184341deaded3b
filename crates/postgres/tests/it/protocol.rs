//! Bytes on the socket: negotiation, limits, cancelling, a server that outlives its clients' mistakes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

struct Raw(TcpStream);

impl Raw {
    async fn connect(fixture: &Fixture) -> Self {
        Self(TcpStream::connect(fixture.addr()).await.unwrap())
    }

    async fn startup(&mut self, version: i32, parameters: &str) {
        let mut packet = version.to_be_bytes().to_vec();
        packet.extend_from_slice(parameters.as_bytes());
        packet.push(0);
        self.0.write_all(&(packet.len() as i32 + 4).to_be_bytes()).await.unwrap();
        self.0.write_all(&packet).await.unwrap();
    }

    async fn send(&mut self, tag: u8, body: &[u8]) {
        let mut message = vec![tag];
        message.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        self.0.write_all(&message).await.unwrap();
    }

    async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag = self.0.read_u8().await.ok()?;
        let length = self.0.read_i32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.0.read_exact(&mut body).await.unwrap();
        Some((tag, body))
    }

    /// Up to ReadyForQuery, or the end of the connection.
    async fn answer(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            let end = message.0 == b'Z';
            messages.push(message);
            if end {
                break;
            }
        }
        messages
    }
}

fn field(body: &[u8], key: u8) -> String {
    let mut fields = body.split(|b| *b == 0);
    let found = fields.find(|f| f.first() == Some(&key)).unwrap_or_default();
    String::from_utf8_lossy(found.get(1..).unwrap_or_default()).into_owned()
}

fn tags(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_declined_and_versions_are_negotiated() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(&fixture).await;
    for code in [80_877_103i32, 80_877_104] {
        raw.0.write_all(&8i32.to_be_bytes()).await.unwrap();
        raw.0.write_all(&code.to_be_bytes()).await.unwrap();
        assert_eq!(raw.0.read_u8().await.unwrap(), b'N');
    }
    raw.startup(3 << 16 | 2, "user\0ann\0_pq_.x\x001\0").await;
    let messages = raw.answer().await;
    assert_eq!(messages[0].0, b'v');
    let told: Vec<String> = messages
        .iter()
        .filter(|(tag, _)| *tag == b'S')
        .map(|(_, b)| String::from_utf8_lossy(b).replace('\0', "="))
        .collect();
    for expected in [
        "server_encoding=UTF8=",
        "integer_datetimes=on=",
        "DateStyle=ISO, MDY=",
        "session_authorization=ann=",
    ] {
        assert!(told.iter().any(|t| t == expected), "{expected} in {told:?}");
    }
    assert!(told.iter().any(|t| t.starts_with("server_version=15.")));
    assert_eq!(messages.last().unwrap(), &(b'Z', b"I".to_vec()));
    let mut old = Raw::connect(&fixture).await;
    old.startup(2 << 16, "user\0ann\0").await;
    assert_eq!(field(&old.message().await.unwrap().1, b'C'), "0A000");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_options_are_settings_and_unknown_ones_are_refused() {
    let fixture = Fixture::start().await;
    let config =
        format!("host=127.0.0.1 port={} user=ann options='-c statement_timeout=5s'", fixture.addr().port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(&client, "SHOW statement_timeout").await, "5s");
    let bad = format!("host=127.0.0.1 port={} user=ann options='-c nope=1'", fixture.addr().port());
    let error = tokio_postgres::connect(&bad, NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "42704");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_an_error_and_nothing_more() {
    let fixture =
        Fixture::with(ServerOptions { max_message_bytes: 1 << 20, ..ServerOptions::default() }).await;
    let mut raw = Raw::connect(&fixture).await;
    raw.startup(3 << 16, "user\0ann\0").await;
    raw.answer().await;
    raw.send(b'Q', &vec![b'x'; 5 << 20]).await;
    let messages = raw.answer().await;
    assert_eq!(tags(&messages), "EZ");
    assert_eq!(field(&messages[0].1, b'C'), "54000");
    raw.send(b'P', &vec![b'x'; 5 << 20]).await;
    raw.send(b'E', b"\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(tags(&raw.answer().await), "EZ");
    raw.send(b'Q', b"SELECT 1\0").await;
    assert_eq!(tags(&raw.answer().await), "TDCZ");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_connection_only() {
    let fixture = Fixture::start().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 8, 0, 3, 0, 0], &[0, 0, 0, 4]] {
        let mut raw = Raw::connect(&fixture).await;
        raw.0.write_all(bytes).await.unwrap();
        raw.0.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = raw.0.read_to_end(&mut rest).await;
    }
    let mut raw = Raw::connect(&fixture).await;
    raw.startup(3 << 16, "user\0ann\0").await;
    raw.answer().await;
    raw.send(b'?', b"").await;
    let messages = raw.answer().await;
    assert_eq!((tags(&messages).as_str(), field(&messages[0].1, b'C').as_str()), ("E", "08P01"));
    let client = fixture.client().await;
    assert_eq!(text(&client, "SELECT 1").await, "1");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_let_go() {
    let options = ServerOptions { startup_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let fixture = Fixture::with(options).await;
    let mut raw = Raw::connect(&fixture).await;
    assert_eq!(raw.0.read(&mut [0; 1]).await.unwrap_or(0), 0);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_places_and_no_more() {
    let fixture = Fixture::with(ServerOptions { max_connections: 2, ..ServerOptions::default() }).await;
    let (_one, two) = (fixture.client().await, fixture.client().await);
    let config = format!("host=127.0.0.1 port={} user=ann", fixture.addr().port());
    let error = tokio_postgres::connect(&config, NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "53300");
    // A place is free again when its client has gone.
    drop(two);
    let server = fixture.server.as_ref().unwrap();
    while server.connections() == 2 {
        tokio::task::yield_now().await;
    }
    fixture.client().await;
    fixture.stop().await;
}

/// Reads slowly enough that rows are still streaming.
const LONG: &str = "SELECT a.n FROM generate_series(1, 100000) AS a(n), generate_series(1, 100000) AS b(n)";

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_ends_rows_that_still_stream() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let token = client.cancel_token();
    let rows = client.simple_query_raw(LONG).await.unwrap();
    tokio::pin!(rows);
    let mut seen = 0u64;
    let error = loop {
        match futures::StreamExt::next(&mut rows).await {
            Some(Ok(_)) if seen == 1000 => {
                seen += 1;
                token.cancel_query(NoTls).await.unwrap();
            }
            Some(Ok(_)) => seen += 1,
            Some(Err(error)) => break error,
            None => panic!("all rows came"),
        }
    };
    assert_eq!(error.code().unwrap().code(), "57014");
    assert_eq!(text(&client, "SELECT 1").await, "1");
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_tells_the_clients() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(&fixture).await;
    raw.startup(3 << 16, "user\0ann\0").await;
    raw.answer().await;
    fixture.stop().await;
    let messages = raw.answer().await;
    assert_eq!((tags(&messages).as_str(), field(&messages[0].1, b'C').as_str()), ("E", "57P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_are_kept_out() {
    let fixture = Fixture::start().await;
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let options = ServerOptions { listen, ..ServerOptions::default() };
    let error = serve(fixture.engine.clone(), options.clone()).await.err().unwrap();
    assert_eq!(error.state().as_str(), "0A000");
    assert!(error.hint_text().unwrap().contains("--insecure-listen"));
    let open =
        serve(fixture.engine.clone(), ServerOptions { insecure_listen: true, ..options }).await.unwrap();
    open.shutdown().await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_are_reported() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(&fixture).await;
    raw.startup(3 << 16, "user\0ann\0").await;
    raw.answer().await;
    raw.send(b'Q', b"SET application_name = 'x'\0").await;
    let messages = raw.answer().await;
    assert!(messages.contains(&(b'S', b"application_name\0x\0".to_vec())), "{}", tags(&messages));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_described_with_their_modifiers() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    text(&client, "CREATE TABLE t (k bigint PRIMARY KEY, v varchar(9))").await;
    let mut raw = Raw::connect(&fixture).await;
    raw.startup(3 << 16, "user\0ann\0").await;
    raw.answer().await;
    raw.send(b'Q', b"SELECT v FROM t\0").await;
    let (_, body) = &raw.answer().await[0];
    assert_eq!(&body[..4], b"\0\x01v\0");
    // varchar, length -1, modifier 9 + 4, text.
    assert_eq!(&body[body.len() - 12..], [0, 0, 4, 19, 0xff, 0xff, 0, 0, 0, 13, 0, 0]);
    fixture.stop().await;
}
