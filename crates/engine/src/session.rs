//! One client's conversation with the engine: statements in, outcomes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::scalar::ScalarValue;
use millpond_types::{SqlError, SqlType};

use crate::outcome::{Column, Notice, Outcome, TransactionStatus};

/// Who speaks.
#[derive(Clone, Debug, Default)]
pub struct SessionInfo {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_address: Option<String>,
    /// The process id that BackendKeyData gave the client; unique among the open sessions.
    pub pid: i32,
}

/// One statement of a text, parsed but not planned.
#[derive(Clone, Debug)]
pub struct ParsedStatement {
    /// The statement's own text.
    pub text: String,
    /// Where it starts in the whole text: characters, counted from 0.
    pub offset: usize,
}

/// A planned statement.
#[derive(Clone)]
pub struct Prepared {
    pub(crate) columns: Option<Vec<Column>>,
    pub(crate) parameters: Vec<SqlType>,
}

impl Prepared {
    /// The columns of the result, or `None` for a statement that returns no rows.
    pub fn columns(&self) -> Option<&[Column]> {
        self.columns.as_deref()
    }

    /// The types of `$1`, `$2`, …: given by the client, else inferred.
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }
}

/// Cancels whatever its session is doing; cheap to clone, callable from any thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    flag: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl CancelHandle {
    /// The statement that runs now, if any, fails with 57014; rows that still stream end with it.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }
}

pub struct Session {
    cancel: CancelHandle,
}

impl Session {
    /// Splits a text into its statements. Syntax errors carry their position in `sql`.
    pub fn parse(&self, _sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        unimplemented!()
    }

    /// Plans one statement; columns and parameter types are known afterwards.
    pub async fn prepare(
        &mut self,
        _statement: &ParsedStatement,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<Prepared, SqlError> {
        unimplemented!()
    }

    /// Runs a planned statement. A plan that the catalog has outgrown since is made again.
    pub async fn execute(&mut self, _prepared: &Prepared, _parameters: &[ScalarValue]) -> Result<Outcome, SqlError> {
        unimplemented!()
    }

    /// Starts the implicit transaction of a simple-query text with several statements: they become visible together.
    pub fn begin_implicit(&mut self) {
        unimplemented!()
    }

    /// Ends the implicit transaction, if one is open: commits, or after an error rolls back.
    pub async fn end_implicit(&mut self, _failed: bool) -> Result<(), SqlError> {
        unimplemented!()
    }

    /// Tells the session that a statement failed outside of `execute` (while its rows streamed, say), so that an open
    /// transaction block becomes failed.
    pub fn fail_transaction(&mut self) {
        unimplemented!()
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        unimplemented!()
    }

    /// Notices since the last call, to be sent before the result.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        unimplemented!()
    }

    /// Settings that changed since the last call and that PostgreSQL reports by ParameterStatus.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        unimplemented!()
    }

    /// The value of a setting as SHOW prints it; names are case-insensitive.
    pub fn setting(&self, _name: &str) -> Option<String> {
        unimplemented!()
    }

    /// Applies a startup parameter (`-c name=value` or a key of the startup packet).
    pub fn set_startup_parameter(&mut self, _name: &str, _value: &str) -> Result<(), SqlError> {
        unimplemented!()
    }
}
