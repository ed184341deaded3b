//! Health and metrics over HTTP: three pages to look at, nothing to change.
//!
//! - `/health`: 200 and `ok`, or 503 and why the log refuses writes;
//! - `/metrics`: numbers of [`Status`] in the text form that Prometheus reads (OpenMetrics 1.0);
//! - `/`: for people: where to connect, and a table of sources, tables and views.
//!
//! There is no authentication, so it should listen on loopback or in a private network; on loopback it answers only to
//! names of the machine itself, which keeps web pages of others from reading it. A connection carries one request and
//! lives for seconds, and their number is bounded. Not here: SQL over HTTP. Begin at [`serve`].

mod connection;
mod metrics;
mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use connection::Connections;
use millpond_engine::{Engine, Status};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// How long [`Server::shutdown`] waits for answers that are on their way.
const GRACE: Duration = Duration::from_secs(3);

/// A running server; dropping it stops it.
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// The address that it listens on, with the port that was chosen where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, and lets answers that are on their way finish.
    pub async fn shutdown(mut self) {
        drop(self.stop.take());
        if timeout(GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the status of an engine.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve(engine: Engine, addr: SocketAddr) -> io::Result<Server> {
    serve_status(move || engine.status(), addr, None).await
}

/// As [`serve`]; the page for people says that PostgreSQL clients connect to `postgres`.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with_address(
    engine: Engine,
    addr: SocketAddr,
    postgres: SocketAddr,
) -> io::Result<Server> {
    serve_status(move || engine.status(), addr, Some(postgres)).await
}

async fn serve_status(
    status: impl Fn() -> Status + Send + Sync + 'static,
    addr: SocketAddr,
    postgres: Option<SocketAddr>,
) -> io::Result<Server> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let shared =
        Arc::new(Shared { status: Box::new(status), is_loopback: addr.ip().is_loopback(), postgres });
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let serving = axum::serve(Connections::new(listener), router(shared)).with_graceful_shutdown(async {
            // Also when the sender is dropped.
            let _ = stopped.await;
        });
        if let Err(error) = serving.await {
            warn!(%error, "the HTTP server has stopped");
        }
    });
    Ok(Server { addr, stop: Some(stop), task })
}

struct Shared {
    status: Box<dyn Fn() -> Status + Send + Sync>,
    is_loopback: bool,
    postgres: Option<SocketAddr>,
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /, /health and /metrics\n") })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

async fn index(State(shared): State<Arc<Shared>>) -> Html<String> {
    Html(page::render(&(shared.status)(), shared.postgres))
}

async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let status = (shared.status)();
    match (status.healthy, status.failure) {
        (true, _) => (StatusCode::OK, "ok\n".to_owned()),
        (false, failure) => {
            let why = failure.unwrap_or_else(|| "the log refuses writes".to_owned());
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (content_type, metrics::render(&(shared.status)())).into_response()
}

/// Refuses foreign host names, and puts on every answer what holds for all.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let mut response = if shared.is_loopback && !host.is_none_or(is_own_name) {
        (StatusCode::FORBIDDEN, "use localhost or the address of this machine\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a Host header names this machine: `localhost` or an address, with or without a port.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
