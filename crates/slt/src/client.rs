//! A connection as sqllogictest sees it: statements in, rows of text out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqllogictest::{DBOutput, DefaultColumnType};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::server::Server;

/// A statement that takes longer is stuck.
const STATEMENT_SECONDS_MAX: u64 = 120;

/// The server of a file, shared by its connections.
pub type SharedServer = Arc<Mutex<Server>>;

/// Why a statement failed. Its text has PostgreSQL's message in it, as that of the standard tool has.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{text}")]
    Sql { state: String, text: String },
    #[error("{0}")]
    Other(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(told) = error.as_db_error() else { return Self::Other(format!("connection: {error}")) };
        let mut text = format!("db error: {}: {}", told.severity(), told.message());
        for (label, part) in [("DETAIL", told.detail()), ("HINT", told.hint())] {
            if let Some(part) = part {
                text.push_str(&format!("\n{label}: {part}"));
            }
        }
        Self::Sql { state: told.code().code().to_owned(), text }
    }
}

/// Whom a client speaks to.
#[derive(Clone)]
pub enum Target {
    /// A server of ours; killed and started again after every so many statements, if so wanted.
    Own { server: SharedServer, restart_every: Option<u32> },
    /// Somebody else's, by a connection string: PostgreSQL itself, to compare with.
    Other(String),
}

/// One connection; it is made again when the server was started again.
pub struct Client {
    target: Target,
    connection: Option<(u64, tokio_postgres::Client)>,
    in_transaction: bool,
    /// Since the last restart.
    statements: u32,
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self { target, connection: None, in_transaction: false, statements: 0 }
    }

    async fn connected(&mut self) -> Result<&tokio_postgres::Client, Failure> {
        let (generation, config) = match &self.target {
            Target::Other(config) => (0, config.clone()),
            Target::Own { server, .. } => {
                let server = lock(server);
                (server.generation(), server.config())
            }
        };
        if self.connection.as_ref().is_none_or(|(made, client)| *made != generation || client.is_closed()) {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
            tokio::spawn(connection); // ends with the client, or with the server
            self.connection = Some((generation, client));
        }
        Ok(&self.connection.as_ref().expect("made above").1)
    }

    /// Kills the server and starts it again, unless a transaction block would be lost with it.
    fn restart(&mut self, sql: &str) -> Result<(), Failure> {
        let first =
            sql.split_whitespace().next().unwrap_or_default().trim_end_matches(';').to_ascii_uppercase();
        match first.as_str() {
            "BEGIN" | "START" => self.in_transaction = true,
            "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.in_transaction = false,
            _ => {}
        }
        self.statements += 1;
        match &self.target {
            Target::Own { server, restart_every: Some(every) }
                if !self.in_transaction && self.statements >= *every =>
            {
                (self.connection, self.statements) = (None, 0);
                lock(server).restart().map_err(Failure::Other)
            }
            _ => Ok(()),
        }
    }
}

/// A thread that panicked with the lock leaves nothing half done that matters here.
fn lock(server: &SharedServer) -> std::sync::MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Client {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let query = async { self.connected().await?.simple_query(sql).await.map_err(Failure::from) };
        let outcome = tokio::time::timeout(Duration::from_secs(STATEMENT_SECONDS_MAX), query).await;
        let stuck = |_| Failure::Other(format!("no answer for {STATEMENT_SECONDS_MAX} s"));
        let outcome = outcome.map_err(stuck)?.map(output);
        self.restart(sql)?;
        outcome
    }

    async fn shutdown(&mut self) {
        self.connection = None;
    }

    fn engine_name(&self) -> &str {
        "millpond"
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        match error {
            Failure::Sql { state, .. } => Some(state.clone()),
            Failure::Other(_) => None,
        }
    }
}

/// Rows if any statement of the text answers with rows, else the count of the last one.
fn output(messages: Vec<SimpleQueryMessage>) -> DBOutput<DefaultColumnType> {
    let mut types = None;
    let mut rows = Vec::new();
    let mut count = 0;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                types = Some(vec![DefaultColumnType::Any; columns.len()])
            }
            SimpleQueryMessage::Row(row) => rows.push((0..row.len()).map(|at| shown(row.get(at))).collect()),
            SimpleQueryMessage::CommandComplete(rows) => count = rows,
            _ => {}
        }
    }
    match types {
        Some(types) => DBOutput::Rows { types, rows },
        None => DBOutput::StatementComplete(count),
    }
}

/// As the standard tool shows a value.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}
