//! COPY: its options, and the sink of rows that COPY … FROM STDIN fills.

use arrow::array::RecordBatch;
use millpond_types::SqlError;

use crate::outcome::Column;
use crate::write::PendingWrite;

/// How the bytes of a COPY are laid out (PostgreSQL 15, COPY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    Text { delimiter: u8, null: String },
    Csv { delimiter: u8, null: String, header: Header, quote: u8, escape: u8, force_quote: Vec<usize>, force_not_null: Vec<usize>, force_null: Vec<usize> },
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    None,
    /// A first line that is skipped (in) or written (out).
    Present,
    /// A first line that must name the columns.
    Match,
}

/// What to do with a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The whole COPY fails.
    Stop,
    /// The row goes to `millpond.errors`.
    Ignore,
}

/// The receiving end of a COPY … FROM STDIN. Nothing is visible before [`CopyIn::finish`] (or, with `commit_rows`, before
/// a part is full); dropping it aborts.
pub struct CopyIn {
    pub(crate) columns: Vec<Column>,
    pub(crate) format: CopyFormat,
    pub(crate) on_error: OnError,
    pub(crate) table: String,
    pub(crate) write: PendingWrite,
}

impl CopyIn {
    /// The columns that each line has, in that order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn format(&self) -> &CopyFormat {
        &self.format
    }

    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// The name of the target, for the context of error messages (`COPY t, line 3, column c: "x"`).
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Takes the next rows; their columns are those of [`CopyIn::columns`] in canonical Arrow types.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<(), SqlError> {
        self.write.push(batch).await
    }

    /// Counts and keeps a line that could not be read, where ON_ERROR is ignore.
    pub async fn reject(&mut self, line: u64, text: &str, error: SqlError) -> Result<(), SqlError> {
        self.write.reject(line, text, error).await
    }

    /// Makes the rows durable and returns the command tag, `COPY n`.
    pub async fn finish(self) -> Result<String, SqlError> {
        let rows = self.write.finish().await?;
        Ok(format!("COPY {rows}"))
    }
}
