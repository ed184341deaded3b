//! A file of text records, from any record on.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use millpond_types::{SqlError, SqlState};
use object_store::ObjectMeta;

use super::chunks::{Chunks, RECORD_BYTES_MAX};
use super::csv::{Dialect, End, unterminated};
use super::json::Keys;
use super::location::Location;
use super::text_rows::{Place, TextRows};
use crate::options::nearest;
use crate::{ConnectError, RejectedRow};

/// A CSV or JSON file.
pub(super) struct TextReader {
    chunks: Chunks,
    records: Records,
    schema: SchemaRef,
    file: String,
    /// Lines before the next record.
    line: u64,
}

enum Records {
    /// With the column that each field of the file goes to.
    Csv(Dialect, Vec<Option<usize>>),
    Json(Keys),
}

impl Records {
    fn end(&self, bytes: &[u8], is_last: bool) -> End {
        match self {
            Self::Csv(dialect, _) => dialect.end(bytes, is_last),
            Self::Json(_) => match bytes.iter().position(|b| *b == b'\n') {
                Some(at) => End::At { bytes: at + 1, lines: 1 },
                None if is_last => End::At { bytes: bytes.len(), lines: 1 },
                None => End::Unknown,
            },
        }
    }

    fn row(&self, record: &[u8], place: Place, rows: &mut TextRows) {
        match self {
            Self::Csv(dialect, mapping) => dialect.row(record, mapping, place, rows),
            Self::Json(keys) => keys.row(record, place, rows),
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl TextReader {
    /// Opens a file at a byte where a record begins. With a dialect it is CSV, else JSON.
    ///
    /// # Errors
    /// 42703 where the header lacks a column, 0A000 for a compressed file.
    pub async fn open(
        location: &Location,
        meta: &ObjectMeta,
        schema: &SchemaRef,
        dialect: Option<Dialect>,
        offset: u64,
        line: u64,
    ) -> Result<Self, ConnectError> {
        let file = location.show(meta.location.as_ref());
        if let Some(ending) = [".gz", ".zst", ".bz2", ".lz4", ".xz"].iter().find(|e| file.ends_with(**e)) {
            return Err(SqlError::unsupported(format!("cannot read \"{file}\": {ending} is not supported"))
                .hint("Decompress it, or use Parquet, which compresses inside.")
                .into());
        }
        let at = |offset| Chunks::new(location.store.clone(), meta.location.clone(), meta.size, offset);
        let mut chunks = at(0);
        let mut lines = 0;
        let reads_start = offset == 0 || dialect.as_ref().is_some_and(|d| d.has_header);
        if reads_start {
            chunks.fill().await?;
            if chunks.bytes().starts_with(BYTE_ORDER_MARK) {
                chunks.consume(BYTE_ORDER_MARK.len());
            }
        }
        let records = match dialect {
            Some(dialect) if dialect.has_header => {
                let (bytes, header_lines) = header_end(&dialect, &chunks, &file)?;
                let mapping = map_header(&dialect, &chunks.bytes()[..bytes], schema, &file)?;
                chunks.consume(bytes);
                lines = header_lines;
                Records::Csv(dialect, mapping)
            }
            Some(dialect) => Records::Csv(dialect, (0..schema.fields().len()).map(Some).collect()),
            None => Records::Json(Keys::new(&TextRows::new(schema.clone())?)),
        };
        if offset > 0 {
            chunks = at(offset);
            lines = line;
        }
        Ok(Self { chunks, records, schema: schema.clone(), file, line: lines })
    }

    pub async fn next(
        &mut self,
        rows_max: usize,
    ) -> Result<Option<(RecordBatch, Vec<RejectedRow>)>, ConnectError> {
        loop {
            if self.chunks.bytes().is_empty() {
                if self.chunks.is_last() {
                    return Ok(None);
                }
                self.chunks.fill().await?;
            }
            let mut rows = TextRows::new(self.schema.clone())?;
            let (used, lines) = self.read(&mut rows, rows_max);
            if used == 0 {
                if !self.chunks.is_last() && self.chunks.bytes().len() < RECORD_BYTES_MAX {
                    self.chunks.fill().await?;
                    continue;
                }
                let rejected = self.pass_over().await?;
                return Ok(Some((RecordBatch::new_empty(self.schema.clone()), vec![rejected])));
            }
            let is_blank = rows.len() == 0;
            let part = rows.finish(self.chunks.bytes(), &self.file)?;
            self.chunks.consume(used);
            self.line += lines;
            if !is_blank {
                return Ok(Some(part));
            }
        }
    }

    /// Where to go on, and lines before it.
    pub fn place(&self) -> (u64, u64) {
        (self.chunks.offset(), self.line)
    }

    pub fn is_done(&self) -> bool {
        self.chunks.bytes().is_empty() && self.chunks.is_last()
    }

    /// Reads the complete records of the buffer; returns their bytes and lines.
    fn read(&self, rows: &mut TextRows, rows_max: usize) -> (usize, u64) {
        let (bytes, is_last) = (self.chunks.bytes(), self.chunks.is_last());
        let (mut used, mut lines) = (0, 0);
        while rows.len() < rows_max && used < bytes.len() {
            let rest = &bytes[used..];
            let End::At { bytes: length, lines: more } = self.records.end(rest, is_last) else { break };
            let place = Place { start: used, end: used + length, line: self.line + lines + 1 };
            self.records.row(&rest[..length], place, rows);
            used += length;
            lines += more;
        }
        (used, lines)
    }

    /// Rejects the line at hand, because no end of its record is in sight.
    async fn pass_over(&mut self) -> Result<RejectedRow, ConnectError> {
        let first_line = self.chunks.bytes().iter().position(|b| *b == b'\n').map(|at| at + 1);
        let bytes = self.chunks.bytes();
        let shown = first_line.unwrap_or(bytes.len()).min(64 << 10);
        let raw = Bytes::copy_from_slice(&bytes[..shown]);
        let error = if first_line.is_some() || self.chunks.is_last() {
            unterminated()
        } else {
            let message = format!("a line is longer than {} MiB", RECORD_BYTES_MAX >> 20);
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
        };
        let place = format!("{}, line {}", self.file, self.line + 1);
        loop {
            let end = self.chunks.bytes().iter().position(|b| *b == b'\n').map(|at| at + 1);
            self.chunks.consume(end.unwrap_or(self.chunks.bytes().len()));
            if end.is_some() || self.chunks.is_last() {
                break;
            }
            self.chunks.fill().await?;
        }
        self.line += 1;
        Ok(RejectedRow { raw, place, error })
    }
}

/// Bytes and lines of the header; a file without any bytes has an empty one.
fn header_end(dialect: &Dialect, chunks: &Chunks, file: &str) -> Result<(usize, u64), SqlError> {
    match dialect.end(chunks.bytes(), chunks.is_last()) {
        End::At { bytes, lines } => Ok((bytes, lines)),
        End::Unknown => Err(SqlError::new(
            SqlState::BAD_COPY_FILE_FORMAT,
            format!("the header of \"{file}\" does not end"),
        )),
    }
}

/// For each field of the header the column of that name.
fn map_header(
    dialect: &Dialect,
    header: &[u8],
    schema: &SchemaRef,
    file: &str,
) -> Result<Vec<Option<usize>>, SqlError> {
    if header.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    dialect.fields(header, |_, text| names.push(text.unwrap_or_default().trim().to_owned()))?;
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, name) in names.iter().enumerate() {
        if places.insert(name, place).is_some() && schema.column_with_name(name).is_some() {
            let message = format!("the header of \"{file}\" names the column \"{name}\" twice");
            return Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message));
        }
    }
    let mut mapping = vec![None; names.len()];
    for (column, field) in schema.fields().iter().enumerate() {
        let Some(place) = places.get(field.name().as_str()) else {
            let error = SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" is not in the header of \"{file}\"", field.name()),
            );
            return Err(match nearest(field.name(), names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
                None => error
                    .detail(format!("The header is {}.", names.join(", ")))
                    .hint("Write header = false if the file has none; its columns are then taken in order."),
            });
        };
        mapping[*place] = Some(column);
    }
    Ok(mapping)
}
