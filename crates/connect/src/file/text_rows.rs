//! Rows that arrive as text: from texts per column to a batch, without those that a type refuses.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use millpond_functions::text::{parse_column, parse_scalar};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::RejectedRow;

const RAW_BYTES_MAX: usize = 64 << 10;

/// Rows in the making.
pub(super) struct TextRows {
    schema: SchemaRef,
    types: Vec<SqlType>,
    columns: Vec<Texts>,
    /// Of each complete row: where its raw bytes stand in the chunk, and its line.
    places: Vec<Place>,
    /// Rows that are no rows at all: their place among the complete ones, for the order of the report.
    refused: Vec<(usize, Place, SqlError)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub start: usize,
    pub end: usize,
    pub line: u64,
}

#[derive(Default)]
struct Texts {
    bytes: String,
    /// Of each row: the end in `bytes`, or `None` for NULL.
    ends: Vec<Option<usize>>,
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = (*end)?;
            let text = &self.bytes[start..end];
            start = end;
            Some(text)
        })
    }
}

impl TextRows {
    /// # Errors
    /// 0A000 for a column that has no SQL type.
    pub fn new(schema: SchemaRef) -> Result<Self, SqlError> {
        let types = schema.fields().iter().map(|f| SqlType::of(f)).collect::<Result<Vec<_>, _>>()?;
        let columns = types.iter().map(|_| Texts::default()).collect();
        Ok(Self { schema, types, columns, places: Vec::new(), refused: Vec::new() })
    }

    pub fn types(&self) -> &[SqlType] {
        &self.types
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows so far, the refused included.
    pub fn len(&self) -> usize {
        self.places.len() + self.refused.len()
    }

    /// Sets a column of the row that is being read; a second value replaces the first.
    pub fn set(&mut self, column: usize, text: Option<&str>) {
        let row = self.places.len();
        let texts = &mut self.columns[column];
        if texts.ends.len() > row {
            texts.forget(row);
        }
        texts.ends.push(text.map(|text| {
            texts.bytes.push_str(text);
            texts.bytes.len()
        }));
    }

    /// Completes the row; columns that were not set are NULL.
    pub fn finish_row(&mut self, place: Place) {
        self.places.push(place);
        let rows = self.places.len();
        self.columns
            .iter_mut()
            .filter(|texts| texts.ends.len() < rows)
            .for_each(|texts| texts.ends.push(None));
    }

    /// Gives up the row that is being read.
    pub fn refuse_row(&mut self, place: Place, error: SqlError) {
        let row = self.places.len();
        self.columns.iter_mut().filter(|texts| texts.ends.len() > row).for_each(|texts| texts.forget(row));
        self.refused.push((row, place, error));
    }

    /// The batch of all good rows, and the others. `chunk` is what places refer to, `file` is for messages.
    pub fn finish(self, chunk: &[u8], file: &str) -> Result<(RecordBatch, Vec<RejectedRow>), SqlError> {
        let rows = self.places.len();
        let mut errors: Vec<Option<SqlError>> = vec![None; rows];
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((texts, ty), field) in self.columns.iter().zip(&self.types).zip(self.schema.fields()) {
            let array = parse(texts, ty, field.name(), &mut errors)?;
            refuse_nulls(field, &array, &mut errors);
            arrays.push(array);
        }
        let batch = assemble(&self.schema, arrays, &errors)?;
        let failed = errors.into_iter().enumerate().filter_map(|(row, e)| Some((row, self.places[row], e?)));
        let mut rejected: Vec<_> = failed.chain(self.refused).collect();
        rejected.sort_by_key(|(_, place, _)| place.start);
        let rejected = rejected.into_iter().map(|(_, place, error)| RejectedRow {
            raw: Bytes::copy_from_slice(&chunk[place.start..place.end.min(place.start + RAW_BYTES_MAX)]),
            place: format!("{file}, line {}", place.line),
            error,
        });
        Ok((batch, rejected.collect()))
    }
}

impl Texts {
    fn forget(&mut self, row: usize) {
        self.ends.truncate(row);
        let end = self.ends.iter().rev().find_map(|end| *end).unwrap_or(0);
        self.bytes.truncate(end);
    }
}

/// Parses a column; the rows that fail get their error, and NULL.
fn parse(
    texts: &Texts,
    ty: &SqlType,
    column: &str,
    errors: &mut [Option<SqlError>],
) -> Result<ArrayRef, SqlError> {
    let failed = match parse_column(texts.iter(), ty) {
        Ok(array) => return Ok(array),
        Err(failed) => failed.row,
    };
    // The one at a time way costs, but only where something is wrong.
    let mut good = Vec::with_capacity(texts.ends.len());
    for (row, text) in texts.iter().enumerate() {
        let error = text.filter(|_| row >= failed).and_then(|text| parse_scalar(text, ty).err());
        good.push(if error.is_some() { None } else { text });
        if let Some(error) = error {
            errors[row].get_or_insert_with(|| in_column(column, &error));
        }
    }
    parse_column(good, ty).map_err(|e| e.error)
}

/// The error of a value, with the column in its message.
pub(super) fn in_column(column: &str, error: &SqlError) -> SqlError {
    let named = SqlError::new(error.state(), format!("column \"{column}\": {error}"));
    match error.detail_text() {
        Some(detail) => named.detail(detail),
        None => named,
    }
}

/// NULL in a column that is NOT NULL is an error of its row, unless that has one already.
pub(super) fn refuse_nulls(field: &Field, array: &ArrayRef, errors: &mut [Option<SqlError>]) {
    if field.is_nullable() || array.null_count() == 0 {
        return;
    }
    for (row, error) in errors.iter_mut().enumerate().filter(|(_, error)| error.is_none()) {
        if array.is_null(row) {
            let message = format!("null value in column \"{}\" violates not-null constraint", field.name());
            *error = Some(SqlError::new(SqlState::NOT_NULL_VIOLATION, message));
        }
    }
}

/// A batch of the rows without an error.
pub(super) fn assemble(
    schema: &SchemaRef,
    arrays: Vec<ArrayRef>,
    errors: &[Option<SqlError>],
) -> Result<RecordBatch, SqlError> {
    let internal = |e| SqlError::internal(format!("the rows of a file make no batch: {e}"));
    if errors.iter().all(Option::is_none) {
        return RecordBatch::try_new(schema.clone(), arrays).map_err(internal);
    }
    // Failed rows hold NULL, also where NULL is not allowed, until they are gone.
    let loose: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let loose = RecordBatch::try_new(Arc::new(Schema::new(loose)), arrays);
    let keep: BooleanArray = errors.iter().map(|error| Some(error.is_none())).collect();
    let kept = filter_record_batch(&loose.map_err(internal)?, &keep).map_err(internal)?;
    RecordBatch::try_new(schema.clone(), kept.columns().to_vec()).map_err(internal)
}
