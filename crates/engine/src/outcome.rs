//! What the execution of a statement hands back to a front end.

use datafusion::execution::SendableRecordBatchStream;
use millpond_functions::Zone;
use millpond_types::{RelationId, SqlType};

use crate::copy::{CopyFormat, CopyIn};

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub ty: SqlType,
    /// The column of a relation that it comes from unchanged, where known: relation and attribute number from 1.
    pub origin: Option<(RelationId, u16)>,
    /// Of the session: in which a timestamptz is shown and read as text.
    pub zone: Zone,
}

/// The result of one statement.
pub enum Outcome {
    /// Rows, as of one cut; batches have the canonical Arrow types of `columns`.
    Rows { columns: Vec<Column>, stream: SendableRecordBatchStream, tag: RowsTag },
    /// Done; the command tag as PostgreSQL writes it, such as `INSERT 0 3`.
    Command { tag: String },
    /// The client is asked to send the rows of a COPY … FROM STDIN.
    CopyIn(Box<CopyIn>),
    /// Rows that go out as COPY … TO STDOUT.
    CopyOut { columns: Vec<Column>, stream: SendableRecordBatchStream, format: CopyFormat },
    /// The statement was empty.
    Empty,
}

/// How the command tag of rows is made, once their number is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowsTag {
    /// `SELECT n`
    Select,
    /// `FETCH n`
    Fetch,
    /// Without a count: `SHOW`, `EXPLAIN`.
    Plain(&'static str),
    /// The rows are those of a RETURNING; the tag is known already.
    Fixed(String),
}

impl RowsTag {
    pub fn text(&self, rows: u64) -> String {
        match self {
            Self::Select => format!("SELECT {rows}"),
            Self::Fetch => format!("FETCH {rows}"),
            Self::Plain(tag) => (*tag).to_owned(),
            Self::Fixed(tag) => tag.clone(),
        }
    }
}

/// A message beside the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub severity: Severity,
    pub state: millpond_types::SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }
}

/// As PostgreSQL reports it in ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    Active,
    Failed,
}
