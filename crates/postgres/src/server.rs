//! Listening, counting connections, cancelling by key, stopping.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use millpond_engine::{CancelHandle, Engine};
use millpond_types::{SqlError, SqlState};
use std::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::startup;

/// Connections beyond `max_connections` that may be starting, cancelling or hearing that there is no place.
const UNKNOWN_CONNECTIONS_MAX: usize = 64;

/// How the front end listens, and its limits.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub listen: SocketAddr,
    /// Clients beyond this number get 53300.
    pub max_connections: usize,
    /// A longer message from a client is skipped unread and answered with 54000.
    pub max_message_bytes: usize,
    /// How long a client may take until it has said who it is.
    pub startup_timeout: Duration,
    /// Allows an address that other machines can reach, although there is no authentication yet.
    pub insecure_listen: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5433)),
            max_connections: 100,
            max_message_bytes: 64 << 20,
            startup_timeout: Duration::from_secs(30),
            insecure_listen: false,
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub engine: Engine,
    pub options: ServerOptions,
    places: Arc<Semaphore>,
    keys: Mutex<HashMap<i32, (i32, CancelHandle)>>,
    next_pid: AtomicI32,
    secret: RandomState,
    /// Turns true once, when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Shared {
    /// A process id and a secret, for BackendKeyData. The secret is a keyed hash of the id, and the key is random.
    pub fn new_key(&self) -> (i32, i32) {
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
        (pid, self.secret.hash_one(pid) as i32)
    }

    /// A place among the connections, or `None` when all are taken.
    pub fn place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub fn register(self: &Arc<Self>, pid: i32, secret: i32, cancel: CancelHandle) -> Registered {
        self.keys.lock().expect("no holder panics").insert(pid, (secret, cancel));
        Registered { shared: Arc::clone(self), pid }
    }

    /// Serves a CancelRequest; a wrong key is ignored, as in PostgreSQL.
    pub fn cancel(&self, pid: i32, secret: i32) {
        let handle = match self.keys.lock().expect("no holder panics").get(&pid) {
            Some((expected, handle)) if *expected == secret => Some(handle.clone()),
            _ => None,
        };
        if let Some(handle) = handle {
            handle.cancel();
        }
    }
}

/// Forgets the key of a connection when it ends.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    pid: i32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.keys.lock().expect("no holder panics").remove(&self.pid);
    }
}

/// A listening front end; dropping it stops it without waiting.
pub struct Server {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    listener: tokio::task::JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Server {
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Clients that are connected now.
    pub fn connections(&self) -> usize {
        self.shared.options.max_connections - self.shared.places.available_permits()
    }

    /// Stops listening, cancels what runs, tells the clients (57P01) and waits for them to be gone, a few seconds at most.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        for (_, handle) in self.shared.keys.lock().expect("no holder panics").values() {
            handle.cancel();
        }
        if tokio::time::timeout(Duration::from_secs(5), &mut self.listener).await.is_err() {
            self.listener.abort(); // drops the JoinSet, which aborts the connections that are left
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// Listens and serves until [`Server::shutdown`].
///
/// # Errors
/// 0A000 for an address that other machines can reach, unless `insecure_listen`; 58030 if the address cannot be had.
pub async fn serve(engine: Engine, options: ServerOptions) -> Result<Server, SqlError> {
    if !options.listen.ip().is_loopback() && !options.insecure_listen {
        return Err(SqlError::unsupported(format!(
            "cannot listen on {} without authentication",
            options.listen
        ))
        .detail("Whoever reaches this address could read and change everything.")
        .hint("Listen on 127.0.0.1, or allow it with --insecure-listen."));
    }
    let failed = |e: std::io::Error| {
        SqlError::new(SqlState::IO_ERROR, format!("could not listen on {}: {e}", options.listen))
            .hint("Is another server running there? Choose another port with --pg-port.")
    };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        engine,
        places: Arc::new(Semaphore::new(options.max_connections)),
        options,
        keys: Mutex::new(HashMap::new()),
        next_pid: AtomicI32::new(1000),
        secret: RandomState::new(),
        stopping,
    });
    let listener = tokio::spawn(accept(listener, Arc::clone(&shared)));
    Ok(Server { local_addr, stop, listener, shared })
}

/// Waits for the server to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone already.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// A panic in a connection ends that connection's task only.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Those that have not said who they are yet have a few places of their own, and then none.
                Ok(_) if connections.len() >= shared.options.max_connections + UNKNOWN_CONNECTIONS_MAX => {}
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer, Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    // Out of file descriptors, most likely: others must end first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!(%error, "a connection ended by a panic");
            },
            _ = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    if let Err(error) = startup::converse(stream, peer, shared).await {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}
