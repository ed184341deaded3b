//! `millpond serve`: the engine with its front ends, until a signal comes.

use millpond_engine::{Engine, EngineConfig};
use tracing::{info, warn};

use crate::config::Settings;

/// A running server: the engine and its two listeners.
pub struct Server {
    pub engine: Engine,
    pub postgres: millpond_postgres::Server,
    http: Option<millpond_http::Server>,
}

impl Server {
    /// # Errors
    /// A sentence about what is in the way: a locked data directory, a taken port, a damaged log.
    pub async fn start(settings: &Settings) -> Result<Self, String> {
        let config = EngineConfig {
            data_dir: settings.data_dir.clone(),
            object_store: settings.object_store.clone(),
            memory_limit: settings.memory_limit,
            shards: settings.shards,
            checkpoint_interval: settings.checkpoint_interval,
            seal_interval: settings.seal_interval,
            local_retention: settings.local_retention,
            journal_file_bytes: settings.journal_file_bytes,
            epoch_rows: settings.epoch_rows,
            epoch_budget: settings.epoch_budget,
            movable_clock: settings.movable_clock,
            max_transaction_bytes: settings.max_transaction_bytes,
            ..EngineConfig::default()
        };
        let engine =
            Engine::open(config, millpond_postgres::system_catalog()).await.map_err(|e| with_hint(&e))?;
        let options = millpond_postgres::ServerOptions {
            listen: settings.pg_addr,
            max_connections: settings.max_connections,
            insecure_listen: settings.insecure_listen,
            ..millpond_postgres::ServerOptions::default()
        };
        let postgres = millpond_postgres::serve(engine.clone(), options).await.map_err(|e| with_hint(&e))?;
        let http = match settings.http_addr {
            Some(addr) => {
                match millpond_http::serve_with_address(engine.clone(), addr, postgres.local_addr()).await {
                    Ok(server) => Some(server),
                    // A second server on one machine should not fail for its metrics page alone.
                    Err(error) => {
                        warn!(%addr, %error, "no HTTP: the address cannot be used");
                        None
                    }
                }
            }
            None => None,
        };
        Ok(Self { engine, postgres, http })
    }

    pub async fn stop(self) {
        self.postgres.shutdown().await;
        if let Some(http) = self.http {
            http.shutdown().await;
        }
        self.engine.shutdown().await;
    }
}

fn with_hint(error: &millpond_types::SqlError) -> String {
    let parts = [Some(error.message()), error.detail_text(), error.hint_text()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

pub async fn serve(settings: Settings) -> Result<(), String> {
    let server = Server::start(&settings).await?;
    let addr = server.postgres.local_addr();
    // Scripts and tests wait for this line.
    println!("listening on {addr}");
    info!(%addr, data_dir = %settings.data_dir.display(), "serving; psql -h {} -p {} -U millpond", addr.ip(), addr.port());
    wait_for_signal().await;
    info!("stopping");
    server.stop().await;
    Ok(())
}

/// Returns at SIGINT or SIGTERM.
pub async fn wait_for_signal() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a runtime with I/O can listen for signals");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
