//! The fields of some thousands of rows, column by column, and the batch that they become.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute;
use arrow::datatypes::Schema;
use millpond_engine::Column;
use millpond_engine::Zone;
use millpond_engine::text::{ParseError, parse_column_in};
use millpond_types::{SqlError, SqlState, SqlType};

use super::{BATCH_BYTES, BATCH_ROWS};
use crate::error::Failure;
use crate::frontend::not_utf8;
use crate::value::decode;

/// A row that could not be read, where that is no reason to stop.
#[derive(Debug)]
pub(super) struct BadRow {
    pub line: u64,
    pub text: String,
    pub error: SqlError,
}

/// The values of one column, unescaped, one after the other.
#[derive(Default)]
struct FieldColumn {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    nulls: Vec<bool>,
}

impl FieldColumn {
    fn value(&self, row: usize) -> Option<&[u8]> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (!self.nulls[row]).then(|| &self.bytes[start..self.ends[row]])
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.nulls.truncate(rows);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// All values as text, if all are UTF-8.
    fn texts(&self) -> Result<impl Iterator<Item = Option<&str>> + Clone, ParseError> {
        let whole = std::str::from_utf8(&self.bytes).ok();
        // Pieces of two values may make one character between them, so the ends count too.
        let whole = whole.filter(|text| self.ends.iter().all(|end| text.is_char_boundary(*end)));
        let Some(whole) = whole else {
            return Err(self.first_not_utf8());
        };
        Ok((0..self.ends.len()).map(move |row| {
            let start = if row == 0 { 0 } else { self.ends[row - 1] };
            (!self.nulls[row]).then(|| &whole[start..self.ends[row]])
        }))
    }

    fn first_not_utf8(&self) -> ParseError {
        let bad = (0..self.ends.len()).find_map(|row| {
            let value = self.value(row)?;
            let error = std::str::from_utf8(value).err()?;
            Some(ParseError { row, error: not_utf8(&value[error.valid_up_to()..]) })
        });
        bad.unwrap_or_else(|| ParseError { row: 0, error: not_utf8(&[]) })
    }
}

pub(super) struct Fields {
    table: String,
    columns: Vec<FieldColumn>,
    names: Vec<String>,
    /// Of the session, for a timestamptz without one.
    zone: Zone,
    /// Values are in binary form, not text.
    binary: bool,
    /// The line of each row.
    lines: Vec<u64>,
    /// The row that is being filled: its line, and its next column.
    line: u64,
    column: usize,
    /// Bad rows are kept instead of ending the COPY; then rows keep their whole text.
    tolerant: bool,
    texts: Vec<String>,
    bad: Vec<BadRow>,
    bytes: usize,
}

impl Fields {
    pub fn new(table: &str, columns: &[Column], binary: bool, tolerant: bool) -> Self {
        Self {
            table: table.to_owned(),
            columns: columns.iter().map(|_| FieldColumn::default()).collect(),
            names: columns.iter().map(|c| c.name.clone()).collect(),
            zone: columns.first().map_or(Zone::UTC, |c| c.zone),
            binary,
            lines: Vec::new(),
            line: 0,
            column: 0,
            tolerant,
            texts: Vec::new(),
            bad: Vec::new(),
            bytes: 0,
        }
    }

    pub fn width(&self) -> usize {
        self.columns.len()
    }

    pub fn is_full(&self) -> bool {
        self.lines.len() + self.bad.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Begins a row; `line` is for error messages.
    pub fn begin(&mut self, line: u64) {
        self.line = line;
        self.column = 0;
    }

    pub fn set_line(&mut self, line: u64) {
        self.line = line;
    }

    /// The next field of the row.
    ///
    /// # Errors
    /// 22P04 if the row has one too many.
    #[inline]
    pub fn push(&mut self, value: Option<&[u8]>) -> Result<(), SqlError> {
        let Some(column) = self.columns.get_mut(self.column) else {
            return Err(bad_format("extra data after last expected column"));
        };
        if let Some(value) = value {
            column.bytes.extend_from_slice(value);
        }
        column.ends.push(column.bytes.len());
        column.nulls.push(value.is_none());
        self.column += 1;
        Ok(())
    }

    /// Ends the row. `text` is the record as it came.
    ///
    /// # Errors
    /// 22P04 if fields are missing, with the whole line as context.
    pub fn end(&mut self, fields: Result<(), SqlError>, text: &[u8]) -> Result<(), Failure> {
        let complete = fields.and_then(|()| match self.names.get(self.column) {
            Some(name) => Err(bad_format(format!("missing data for column \"{name}\""))),
            None => Ok(()),
        });
        self.bytes += text.len();
        if let Err(error) = complete {
            let rows = self.lines.len();
            self.columns.iter_mut().for_each(|column| column.truncate(rows));
            return self.refuse(error, text);
        }
        self.lines.push(self.line);
        if self.tolerant {
            self.texts.push(String::from_utf8_lossy(text).into_owned());
        }
        Ok(())
    }

    /// A record that cannot be cut into fields: the end of the COPY, or one more bad row.
    pub fn refuse(&mut self, error: SqlError, text: &[u8]) -> Result<(), Failure> {
        if self.tolerant {
            let text = String::from_utf8_lossy(text).into_owned();
            self.bad.push(BadRow { line: self.line, text, error });
            return Ok(());
        }
        let context = match self.binary {
            true => format!("COPY {}, line {}", self.table, self.line),
            false => format!("COPY {}, line {}: \"{}\"", self.table, self.line, shown(text)),
        };
        Err(Failure { error, context: Some(context) })
    }

    /// An error at the current line.
    pub fn failure(&self, error: SqlError) -> Failure {
        Failure { error, context: Some(format!("COPY {}, line {}", self.table, self.line)) }
    }

    /// The rows so far as a batch of the columns' types, and the bad ones; then starts anew.
    ///
    /// # Errors
    /// The first value that its type refuses, with line, column and text as context, unless bad rows are tolerated.
    pub fn take(&mut self, columns: &[Column]) -> Result<(RecordBatch, Vec<BadRow>), Failure> {
        let rows = self.lines.len();
        let mut arrays = Vec::with_capacity(columns.len());
        // The first error of each row.
        let mut errors: Vec<Option<SqlError>> = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            match self.column(index, &column.ty) {
                Ok(array) => arrays.push(array),
                Err(bad) if !self.tolerant => return Err(self.located(index, bad)),
                Err(_) => {
                    errors.resize(rows, None);
                    arrays.push(self.tolerant_column(index, &column.ty, &mut errors).map_err(Failure::from)?);
                }
            }
        }
        let fields: Vec<_> = columns.iter().map(|c| c.ty.field(&c.name, true)).collect();
        let internal = |e: arrow::error::ArrowError| Failure::from(SqlError::internal(e.to_string()));
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = RecordBatch::try_new_with_options(Schema::new(fields).into(), arrays, &options)
            .map_err(internal)?;
        if !errors.is_empty() {
            let good: BooleanArray = errors.iter().map(|e| Some(e.is_none())).collect();
            batch = compute::filter_record_batch(&batch, &good).map_err(internal)?;
            for (row, error) in errors.into_iter().enumerate() {
                if let Some(error) = error {
                    let text = std::mem::take(&mut self.texts[row]);
                    self.bad.push(BadRow { line: self.lines[row], text, error });
                }
            }
        }
        let bad = std::mem::take(&mut self.bad);
        self.columns.iter_mut().for_each(|column| column.truncate(0));
        self.lines.clear();
        self.texts.clear();
        self.bytes = 0;
        Ok((batch, bad))
    }

    fn column(&self, index: usize, ty: &SqlType) -> Result<ArrayRef, ParseError> {
        let column = &self.columns[index];
        match self.binary {
            true => {
                let values: Vec<_> = (0..column.ends.len()).map(|row| column.value(row)).collect();
                decode::column(&values, ty)
            }
            false => parse_column_in(column.texts()?, ty, self.zone),
        }
    }

    /// The column with NULL where a value is bad. Between two bad values whole stretches are read.
    fn tolerant_column(
        &self,
        index: usize,
        ty: &SqlType,
        errors: &mut [Option<SqlError>],
    ) -> Result<ArrayRef, SqlError> {
        let column = &self.columns[index];
        let rows = column.ends.len();
        // Bytes that are not UTF-8 are as bad as texts that the type refuses.
        let texts: Vec<Result<Option<&str>, SqlError>> = (0..rows)
            .map(|row| match column.value(row).map(std::str::from_utf8).transpose() {
                Ok(text) => Ok(text),
                Err(error) => Err(not_utf8(&column.value(row).unwrap_or_default()[error.valid_up_to()..])),
            })
            .collect();
        let mut parts: Vec<ArrayRef> = Vec::new();
        let mut start = 0;
        while start < rows {
            let stretch: Vec<Option<&str>> =
                texts[start..].iter().map_while(|t| t.as_ref().ok().copied()).collect();
            let (good, error) = match parse_column_in(stretch.iter().copied(), ty, self.zone) {
                Ok(array) => {
                    let good = array.len();
                    parts.push(array);
                    (good, texts.get(start + good).and_then(|t| t.as_ref().err().cloned()))
                }
                Err(bad) => {
                    let before = parse_column_in(stretch[..bad.row].iter().copied(), ty, self.zone)
                        .map_err(|e| e.error)?;
                    parts.push(before);
                    (bad.row, Some(bad.error))
                }
            };
            start += good;
            if let Some(error) = error {
                errors[start].get_or_insert(error);
                parts.push(new_null_array(&ty.arrow(), 1));
                start += 1;
            }
        }
        if parts.is_empty() {
            return Ok(new_null_array(&ty.arrow(), 0));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        compute::concat(&parts).map_err(|e| SqlError::internal(e.to_string()))
    }

    fn located(&self, column: usize, bad: ParseError) -> Failure {
        let line = self.lines.get(bad.row).copied().unwrap_or(self.line);
        let place = format!("COPY {}, line {line}, column {}", self.table, self.names[column]);
        let context = match self.columns[column].value(bad.row) {
            _ if self.binary => place,
            Some(value) => format!("{place}: \"{}\"", shown(value)),
            None => format!("{place}: null input"),
        };
        Failure { error: bad.error, context: Some(context) }
    }
}

pub(super) fn bad_format(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

/// At most 100 bytes of a value, as PostgreSQL shows it.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.len() <= 100 {
        return text.into_owned();
    }
    let end = (0..=100).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}
