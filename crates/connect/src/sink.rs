//! The seam between the engine and where results go.
//!
//! What the engine owes a sink, so that its promise holds:
//!
//! 1. After [`open_sink`] it asks [`Sink::committed`] for the commit C up to which the target already has everything. The
//!    first [`Sink::write`] begins at C: replay cuts an epoch there. Changes at or before C may be given again; they are skipped.
//! 2. Writes come in order and without gaps: each begins where the one before ended.
//! 3. Before a checkpoint with the cut K is published, [`Sink::commit`]`(K)` has returned: a checkpoint replaces the log
//!    before it, so nothing could bring these changes again.
//! 4. In between it calls `commit` when [`Sink::wants_commit`] says so, which keeps buffers bounded.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millpond_env::Env;
use millpond_types::{Commit, Delta, SqlError};

use crate::source::{Encoding, unknown_connector};
use crate::{ConnectError, blackhole, file};

/// The names that `connector = '…'` of a sink may have.
pub const CONNECTORS: &[&str] = &["blackhole", "file"];

/// What CREATE SINK says about where changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// The value of `connector`.
    pub connector: String,
    /// All other options of WITH: name to value as text.
    pub options: BTreeMap<String, String>,
    /// The columns of the relation or query, in canonical Arrow types.
    pub schema: SchemaRef,
    /// Whether rows only ever appear: proved by planning.
    pub append_only: bool,
    pub encoding: Option<Encoding>,
}

/// What a valid [`SinkSpec`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedSink {
    pub guarantee: Guarantee,
}

/// What a sink promises about a change once a crash has been recovered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// It is in the target once.
    ExactlyOnce,
    /// It is in the target at least once.
    AtLeastOnce,
    /// Nothing is kept.
    Nothing,
}

impl Guarantee {
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
            Self::Nothing => "nothing",
        }
    }
}

/// Where changes go. See the module for the order of calls.
#[async_trait]
pub trait Sink: Send {
    /// The commit up to which the target has everything; 0 if it has nothing.
    fn committed(&self) -> Commit;

    /// Takes the changes of one epoch: those after the cut `after`, up to and including the cut `epoch`. May be empty.
    ///
    /// # Errors
    /// XX000 for a gap or for an epoch across [`Sink::committed`]; otherwise as the target fails.
    async fn write(&mut self, after: Commit, epoch: Commit, deltas: &[Delta]) -> Result<(), ConnectError>;

    /// Whether enough is buffered that `commit` should be called after this epoch.
    fn wants_commit(&self) -> bool;

    /// Brings everything written to the target, durably; `through` is the last epoch written. After success
    /// `committed()` is `through`. After an error nothing is lost, and it may be called again.
    ///
    /// # Errors
    /// As the target fails.
    async fn commit(&mut self, through: Commit) -> Result<(), ConnectError>;

    /// Changes that it took since it was opened, without those that it skipped.
    fn rows_written(&self) -> u64;
}

/// Checks a spec without touching the target.
///
/// # Errors
/// 42704 for an unknown connector, 22023 for an option or its value, 0A000 for a column type that the format cannot hold.
pub fn validate_sink(spec: &SinkSpec, env: &Env) -> Result<ResolvedSink, SqlError> {
    match spec.connector.as_str() {
        "blackhole" => blackhole::validate(spec),
        "file" => file::sink::validate(spec, env),
        other => Err(unknown_connector("sink", other, CONNECTORS)),
    }
}

/// Makes sure, once, at CREATE SINK, that the target is free for a new sink.
///
/// # Errors
/// 55006 if another sink has written there; 58030 where the target does not answer.
pub async fn prepare_sink(spec: &SinkSpec, _env: &Env) -> Result<(), SqlError> {
    match spec.connector.as_str() {
        "file" => file::sink::prepare(spec).await,
        _ => Ok(()),
    }
}

/// Opens a sink. `known` is a commit for which [`Sink::commit`] has returned, such as the cut of the newest checkpoint; 0 if
/// there is none. The target may have more.
///
/// # Errors
/// As [`validate_sink`]; 58030 where the target does not answer.
pub async fn open_sink(spec: &SinkSpec, env: &Env, known: Commit) -> Result<Box<dyn Sink>, SqlError> {
    match spec.connector.as_str() {
        "blackhole" => blackhole::open(spec, known),
        "file" => file::sink::open(spec, env, known).await,
        other => Err(unknown_connector("sink", other, CONNECTORS)),
    }
}

/// Keeps the rules of order for a sink: which writes to skip, and which are wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    /// The target has everything up to here.
    pub committed: Commit,
    /// Everything up to here was written, and perhaps not yet committed.
    pub written: Commit,
}

impl Sequence {
    pub fn from(committed: Commit) -> Self {
        Self { committed, written: committed }
    }

    /// Whether the write is new; `false` if the target has it already.
    pub fn admit(&mut self, after: Commit, epoch: Commit) -> Result<bool, ConnectError> {
        if epoch <= self.written {
            return Ok(false);
        }
        if after != self.written {
            let message =
                format!("a sink at commit {} was given the changes of {after} to {epoch}", self.written);
            return Err(SqlError::internal(message).into());
        }
        self.written = epoch;
        Ok(true)
    }

    /// Checks `through` of a commit; `false` if there is nothing to do.
    pub fn may_commit(&self, through: Commit) -> Result<bool, ConnectError> {
        if through <= self.committed {
            return Ok(false);
        }
        if through != self.written {
            let message = format!("a sink at commit {} was told to commit {through}", self.written);
            return Err(SqlError::internal(message).into());
        }
        Ok(true)
    }
}
