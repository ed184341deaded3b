//! Rows of one Parquet file, from any row on.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use millpond_functions::cast::{CastContext, can_cast, cast_array};
use millpond_types::{SqlError, SqlState, SqlType};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{
    AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::location::Location;
use super::text_rows::{assemble, in_column, refuse_nulls};
use crate::options::nearest;
use crate::source::type_name;
use crate::{ConnectError, RejectedRow};

const BATCH_ROWS: usize = 8192;

type Builder = ParquetRecordBatchStreamBuilder<ObjectReader>;

/// A file that is being read.
pub(super) struct ParquetRows {
    stream: ParquetRecordBatchStream<ObjectReader>,
    /// Decoded and not handed out yet.
    pending: Option<RecordBatch>,
    schema: SchemaRef,
    types: Vec<SqlType>,
    file: String,
    /// The number of the next row, from 0.
    next: u64,
    rows: u64,
}

/// A batch of the file and what it refused.
pub(super) struct Part {
    pub batch: RecordBatch,
    pub rejected: Vec<RejectedRow>,
}

/// The ranges of one object.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

async fn builder(location: &Location, meta: &ObjectMeta) -> Result<Builder, ConnectError> {
    let reader = ObjectReader { store: location.store.clone(), path: meta.location.clone(), size: meta.size };
    let name = location.show(meta.location.as_ref());
    ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| broken(&name, e))
}

fn broken(file: &str, error: ParquetError) -> ConnectError {
    match error {
        ParquetError::External(source) => {
            ConnectError::unavailable(format!("read the file \"{file}\""), source)
        }
        error => SqlError::new(SqlState::DATA_CORRUPTED, format!("cannot read \"{file}\" as Parquet"))
            .detail(format!("{error}."))
            .into(),
    }
}

/// The columns of a file as a relation's.
///
/// # Errors
/// 0A000 for a column without a SQL type.
pub(super) async fn infer(location: &Location, meta: &ObjectMeta) -> Result<SchemaRef, ConnectError> {
    let builder = builder(location, meta).await?;
    let columns = builder.schema().fields().iter().map(|field| {
        let ty = SqlType::of(field).map_err(|e| {
            SqlError::unsupported(format!(
                "column \"{}\" has a type that Millpond does not have",
                field.name()
            ))
            .detail(format!("It is {}: {e}.", field.data_type()))
            .hint("Declare the columns of the source without it.")
        })?;
        Ok(ty.field(field.name(), field.is_nullable()))
    });
    Ok(Arc::new(Schema::new(columns.collect::<Result<Vec<Field>, SqlError>>()?)))
}

impl ParquetRows {
    /// Opens a file at a row.
    ///
    /// # Errors
    /// 42703 and 42804 if it does not have the columns; XX001 if it is no Parquet file.
    pub async fn open(
        location: &Location,
        meta: &ObjectMeta,
        schema: &SchemaRef,
        start: u64,
    ) -> Result<Self, ConnectError> {
        let file = location.show(meta.location.as_ref());
        let builder = builder(location, meta).await?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let wanted = wanted_columns(builder.schema(), schema, &file)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let skip = usize::try_from(start).unwrap_or(usize::MAX);
        let stream = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(skip)
            .build()
            .map_err(|e| broken(&file, e))?;
        let types = schema.fields().iter().map(|f| SqlType::of(f)).collect::<Result<_, _>>()?;
        Ok(Self { stream, pending: None, schema: schema.clone(), types, file, next: start, rows })
    }

    pub fn position(&self) -> u64 {
        self.next
    }

    pub fn is_done(&self) -> bool {
        self.next >= self.rows
    }

    pub async fn next(&mut self, rows_max: usize) -> Result<Option<Part>, ConnectError> {
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => match self.stream.next().await {
                Some(batch) => batch.map_err(|e| broken(&self.file, e))?,
                None if self.is_done() => return Ok(None),
                None => {
                    let short =
                        ParquetError::General(format!("it ended after {} of {} rows", self.next, self.rows));
                    return Err(broken(&self.file, short));
                }
            },
        };
        let now = batch.num_rows().min(rows_max);
        if now < batch.num_rows() {
            self.pending = Some(batch.slice(now, batch.num_rows() - now));
        }
        let part = self.convert(&batch.slice(0, now))?;
        self.next += now as u64;
        Ok(Some(part))
    }

    /// Brings the file's types to the declared ones.
    fn convert(&self, batch: &RecordBatch) -> Result<Part, SqlError> {
        let mut errors: Vec<Option<SqlError>> = vec![None; batch.num_rows()];
        let mut arrays = Vec::with_capacity(self.types.len());
        for (field, to) in self.schema.fields().iter().zip(&self.types) {
            let (index, own) = batch.schema_ref().column_with_name(field.name()).ok_or_else(|| {
                SqlError::internal(format!("the column \"{}\" is not in the batch", field.name()))
            })?;
            let array = convert(batch.column(index), &SqlType::of(own)?, to, field.name(), &mut errors)?;
            refuse_nulls(field, &array, &mut errors);
            arrays.push(array);
        }
        let good = assemble(&self.schema, arrays, &errors)?;
        let failed = errors.into_iter().enumerate().filter_map(|(row, error)| Some((row, error?)));
        let rejected = failed.map(|(row, error)| RejectedRow {
            raw: Bytes::from(show(batch, row)),
            place: format!("{}, row {}", self.file, self.next + row as u64 + 1),
            error,
        });
        Ok(Part { batch: good, rejected: rejected.collect() })
    }
}

/// The places of the wanted columns in the file.
fn wanted_columns(own: &SchemaRef, wanted: &SchemaRef, file: &str) -> Result<Vec<usize>, SqlError> {
    let mut places = Vec::with_capacity(wanted.fields().len());
    for field in wanted.fields() {
        let Some((place, found)) = own.column_with_name(field.name()) else {
            let error = SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist in \"{file}\"", field.name()),
            );
            let names = own.fields().iter().map(|f| f.name().as_str());
            return Err(match nearest(field.name(), names.clone()) {
                Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
                None => error.hint(format!("The file has {}.", names.collect::<Vec<_>>().join(", "))),
            });
        };
        let (from, to) = (SqlType::of(found)?, SqlType::of(field)?);
        if !can_cast(&from, &to) {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{}\" of \"{file}\" is not of that type", field.name()),
            )
            .detail(format!("It is declared as {}.", type_name(field)))
            .hint(format!("Declare it as {from}.")));
        }
        places.push(place);
    }
    Ok(places)
}

/// One column in its declared type; rows that do not fit get their error, and NULL.
fn convert(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    column: &str,
    errors: &mut [Option<SqlError>],
) -> Result<ArrayRef, SqlError> {
    let unreadable = |e| SqlError::internal(format!("the column \"{column}\" cannot be read: {e}"));
    // Encodings that Parquet chooses for itself, such as other units of time, become the type's own.
    let array = cast(array, &from.arrow()).map_err(unreadable)?;
    if from == to {
        return Ok(array);
    }
    if let Ok(converted) = cast_array(&array, from, to, CastContext::Assignment) {
        return Ok(converted);
    }
    let rows = (0..array.len()).map(|row| {
        cast_array(&array.slice(row, 1), from, to, CastContext::Assignment).unwrap_or_else(|error| {
            errors[row].get_or_insert_with(|| in_column(column, &error));
            new_null_array(&to.arrow(), 1)
        })
    });
    let rows: Vec<ArrayRef> = rows.collect();
    concat(&rows.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(unreadable)
}

/// A row for people to read.
fn show(batch: &RecordBatch, row: usize) -> String {
    let values = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap_or_default());
    values.collect::<Vec<_>>().join(",")
}
