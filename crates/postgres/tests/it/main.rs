//! A server on a temporary directory, and clients: tokio-postgres, psql, and raw bytes.

mod catalog;
mod copy;
mod extended;
mod protocol;
mod simple;

use std::net::SocketAddr;

use millpond_engine::{Engine, EngineConfig};
use millpond_postgres::{Server, ServerOptions, serve, system_catalog};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A running server; its directory goes with it.
struct Fixture {
    server: Option<Server>,
    engine: Engine,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    async fn with(options: ServerOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = EngineConfig { data_dir: dir.path().to_owned(), ..EngineConfig::default() };
        let engine = Engine::open(config, system_catalog()).await.unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = serve(engine.clone(), ServerOptions { listen, ..options }).await.unwrap();
        Self { server: Some(server), engine, _dir: dir }
    }

    fn addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().local_addr()
    }

    async fn client(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=ann dbname=millpond", self.addr().port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn stop(mut self) {
        self.server.take().unwrap().shutdown().await;
        self.engine.shutdown().await;
    }
}

/// Rows as text, a line each, values between `|`, NULL as `~`.
async fn text(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|i| row.get(i).unwrap_or("~"));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// SQLSTATE and message of a statement that must fail.
async fn error(client: &Client, sql: &str) -> (String, String) {
    let error = client.simple_query(sql).await.err().unwrap_or_else(|| panic!("{sql} did not fail"));
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}
