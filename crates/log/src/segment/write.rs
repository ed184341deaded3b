//! Writing a segment.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millpond_env::{DiskFile, Open};
use millpond_types::{Commit, EventTime};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::manifest::SegmentEntry;
use super::store::Store;
use super::stored::{retype, stored_field};
use super::tail::TailDraft;
use crate::LogError;
use crate::format::FrameHeader;
use crate::payload::BatchEncoder;

/// Enough for scans to run at full speed, and few enough that reading one frame is not slow.
const ROW_GROUP_ROWS: usize = 128 << 10;
const ROW_GROUP_BYTES: usize = 32 << 20;

const PARTITION: &str = "_partition";
pub(super) const OFFSET: &str = "_offset";
const COMMIT: &str = "_commit";
const INGEST_TIME: &str = "_ingest_time";
const WATERMARK: &str = "_watermark";

/// A segment that is being written.
pub(super) struct SegmentWriter {
    path: PathBuf,
    entry: SegmentEntry,
    schema: SchemaRef,
    stored: SchemaRef,
    writer: ArrowWriter<Sink>,
    draft: TailDraft,
}

/// The file, and what has not been written to it yet.
struct Sink {
    file: Box<dyn DiskFile>,
    at: u64,
    pending: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn drain(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pending, self.at)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// The columns of a file with rows of this schema.
fn stored_schema(schema: &SchemaRef) -> SchemaRef {
    let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let own = schema.fields().iter().map(stored_field);
    let added = [
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(OFFSET, DataType::Int64, false),
        Field::new(COMMIT, DataType::Int64, false),
        Field::new(INGEST_TIME, time(Some("UTC")), false),
        Field::new(WATERMARK, time(None), true),
    ];
    Arc::new(Schema::new(own.chain(added.into_iter().map(Arc::new)).collect::<Vec<_>>()))
}

fn properties(entry: &SegmentEntry) -> WriterProperties {
    let level = ZstdLevel::try_new(super::ZSTD_LEVEL).expect("it is a level of zstd");
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("millpond {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_key_value_metadata(Some(vec![
            parquet::file::metadata::KeyValue::new("millpond.topic".to_owned(), entry.topic.to_string()),
            parquet::file::metadata::KeyValue::new(
                "millpond.schema_version".to_owned(),
                entry.schema_version.to_string(),
            ),
        ]));
    // They rise in equal steps, or stay.
    for column in [OFFSET, COMMIT, INGEST_TIME] {
        let path = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

impl SegmentWriter {
    /// Creates the file of `entry`, whose numbers of rows and bytes are filled in as they come. What a crash left under its
    /// name is removed.
    pub fn create(store: &Store, entry: SegmentEntry, schema: &SchemaRef) -> Result<Self, LogError> {
        let path = store.path(entry.local_name());
        store.remove_if_there(&path)?;
        let file = store.env.disk.open(&path, Open::Create).map_err(|e| LogError::io("create", &path, e))?;
        let sink = Sink { file, at: 0, pending: Vec::new() };
        let stored = stored_schema(schema);
        let writer = ArrowWriter::try_new(sink, Arc::clone(&stored), Some(properties(&entry)));
        let failed =
            |error: ParquetError| LogError::Encode { topic: entry.topic, source: Arc::new(error.into()) };
        let writer = writer.map_err(failed)?;
        Ok(Self { path, entry, schema: Arc::clone(schema), stored, writer, draft: TailDraft::default() })
    }

    fn failed(&self, error: ParquetError) -> LogError {
        LogError::Encode { topic: self.entry.topic, source: Arc::new(error.into()) }
    }

    /// Adds a frame; `offsets` where they are not one after the other.
    pub fn frame(
        &mut self,
        (commit, ordinal, ingest_time): (Commit, u64, EventTime),
        header: &FrameHeader,
        batch: &RecordBatch,
        offsets: Option<Int64Array>,
    ) -> Result<(), LogError> {
        self.draft.frame(commit, ordinal, ingest_time, header);
        self.entry.frames += 1;
        self.entry.rows += batch.num_rows() as u64;
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.stored.fields().len());
        for (column, field) in batch.columns().iter().zip(self.stored.fields()) {
            let stored = retype(column, field.data_type()).map_err(|e| self.failed(e.into()))?;
            columns.push(stored);
        }
        let first = header.base_offset.0 as i64;
        let offsets = offsets.unwrap_or_else(|| Int64Array::from_iter_values(first..first + rows as i64));
        let ingest_time = TimestampMicrosecondArray::from_value(ingest_time.0, rows).with_timezone("UTC");
        columns.push(Arc::new(Int32Array::from_value(header.partition.0 as i32, rows)));
        columns.push(Arc::new(offsets));
        columns.push(Arc::new(Int64Array::from_value(commit.0 as i64, rows)));
        columns.push(Arc::new(ingest_time));
        columns.push(Arc::new(TimestampMicrosecondArray::from(vec![header.watermark.map(|w| w.0); rows])));
        let batch =
            RecordBatch::try_new(Arc::clone(&self.stored), columns).map_err(|e| self.failed(e.into()))?;
        self.writer.write(&batch).map_err(|e| self.failed(e))?;
        self.drain()
    }

    /// Writes out the row groups that are full, and remembers the checksums of their columns.
    fn drain(&mut self) -> Result<(), LogError> {
        let done = self.draft.row_groups as usize;
        if self.writer.flushed_row_groups().len() == done {
            return Ok(());
        }
        self.writer.sync().map_err(|e| self.failed(e.into()))?;
        let mut crcs = Vec::new();
        for group in &self.writer.flushed_row_groups()[done..] {
            let sink = self.writer.inner();
            for column in group.columns() {
                let (start, length) = column.byte_range();
                let from = (start - sink.at) as usize;
                crcs.push(crc32c::crc32c(&sink.pending[from..from + length as usize]));
            }
        }
        self.draft.row_groups = self.writer.flushed_row_groups().len() as u32;
        self.draft.crcs.extend(crcs);
        let sink = self.writer.inner_mut();
        sink.drain().map_err(|e| LogError::io("write to", &self.path, e))
    }

    /// Ends the file and syncs it. Its name is not durable yet.
    pub fn finish(mut self) -> Result<SegmentEntry, LogError> {
        self.writer.flush().map_err(|e| self.failed(e))?;
        self.drain()?;
        let (_, message) = BatchEncoder::new(&self.schema).map_err(|e| self.failed(e.into()))?;
        let tail = self.draft.encode(&message).map_err(|e| self.failed(e.into()))?;
        self.writer.sync().map_err(|e| self.failed(e.into()))?;
        let sink = self.writer.inner();
        let tail_at = sink.at + sink.pending.len() as u64;
        let before = sink.pending.len();
        self.writer.write_all(&tail).map_err(|e| self.failed(e.into()))?;
        let topic = self.entry.topic;
        let failed = |error: ParquetError| LogError::Encode { topic, source: Arc::new(error.into()) };
        let mut sink = self.writer.into_inner().map_err(failed)?;
        let mut entry = self.entry;
        entry.tail_at = tail_at;
        entry.tail_crc32c = crc32c::crc32c(&sink.pending[before..]);
        sink.drain().map_err(|e| LogError::io("write to", &self.path, e))?;
        entry.bytes = sink.at;
        sink.file.sync_data().map_err(|e| LogError::io("sync", &self.path, e))?;
        Ok(entry)
    }
}
