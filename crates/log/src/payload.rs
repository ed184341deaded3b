//! Rows as bytes: Arrow IPC messages.
//!
//! A frame's payload is one encapsulated record batch message. Its schema message is kept once per file, because it is
//! larger than a frame of one row. Buffers are aligned to 16 bytes: enough for every type we store, and a fifth of what 64
//! would cost a small frame.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow::ipc::{MetadataVersion, convert, root_as_message};

use crate::format::Bad;

const ALIGNMENT: usize = 16;
/// The marker and the length before a message.
const PREFIX_BYTES: usize = 8;

/// Why the log cannot keep a type, if it cannot.
pub(crate) fn check_schema(schema: &Schema) -> Result<(), String> {
    schema.fields().iter().try_for_each(|field| {
        layout(field.data_type(), &mut Layout::default()).map_err(|ty| {
            format!("column \"{}\" has the type {ty}, which the log does not store", field.name())
        })
    })
}

/// Encodes batches of one schema.
pub(crate) struct BatchEncoder {
    encoder: StreamEncoder,
}

impl BatchEncoder {
    /// Also returns the schema message.
    pub fn new(schema: &SchemaRef) -> Result<(Self, Vec<u8>), ArrowError> {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        let mut encoder = StreamEncoder::try_new_with_options(schema, options)?;
        let mut message = Vec::new();
        for buffer in encoder.encode(&RecordBatch::new_empty(Arc::clone(schema)))? {
            message.extend_from_slice(&buffer);
        }
        // The schema comes first and has no body; the empty batch after it is not wanted.
        message.truncate(PREFIX_BYTES + claimed_metadata(&message).map_err(ArrowError::IpcError)?);
        Ok((Self { encoder }, message))
    }

    /// Appends the message of `batch`.
    pub fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        for buffer in self.encoder.encode(batch)? {
            out.extend_from_slice(&buffer);
        }
        Ok(())
    }
}

pub(crate) fn decode_schema(payload: &[u8]) -> Result<SchemaRef, Bad> {
    let (metadata, _) = message(payload)?;
    let message = root_as_message(metadata).map_err(|error| format!("the schema cannot be read: {error}"))?;
    let schema = message.header_as_schema().ok_or("the payload of a schema is something else")?;
    let schema = guarded(|| Ok(convert::fb_to_schema(schema)))?;
    check_schema(&schema)?;
    Ok(Arc::new(schema))
}

/// Decodes the columns of `projection`, or all. `payload` should be aligned, or columns are copied.
pub(crate) fn decode_batch(
    payload: &Buffer,
    schema: &SchemaRef,
    rows: u32,
    projection: Option<&[usize]>,
) -> Result<RecordBatch, Bad> {
    let (metadata, body) = message(payload)?;
    let message = root_as_message(metadata).map_err(|error| format!("the frame cannot be read: {error}"))?;
    let batch = message.header_as_record_batch().ok_or("the payload of a frame is something else")?;
    check_batch(&batch, schema, rows, body.len())?;
    let body = payload.slice(payload.len() - body.len());
    guarded(|| {
        RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), &HashMap::new(), &MetadataVersion::V5)?
            .with_projection(projection)
            .read_record_batch()
    })
}

/// What Arrow's reader asserts instead of checking.
fn check_batch(
    batch: &arrow::ipc::RecordBatch<'_>,
    schema: &Schema,
    rows: u32,
    body: usize,
) -> Result<(), Bad> {
    if batch.compression().is_some() || batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty())
    {
        return Err("the frame is compressed, or of types that are not known".to_owned());
    }
    if batch.length() != i64::from(rows) {
        return Err(format!("the frame holds {} rows, its header says {rows}", batch.length()));
    }
    let mut expected = Layout::default();
    for field in schema.fields() {
        layout(field.data_type(), &mut expected).map_err(|ty| format!("type {ty} is not stored"))?;
    }
    let nodes = batch.nodes().ok_or("the frame has no columns")?;
    let buffers = batch.buffers().ok_or("the frame has no buffers")?;
    if (nodes.len(), buffers.len()) != (expected.nodes, expected.buffers) {
        return Err("the frame does not have the columns of its schema".to_owned());
    }
    if nodes.iter().any(|node| node.length() < 0 || !(0..=node.length()).contains(&node.null_count())) {
        return Err("a column has no possible length".to_owned());
    }
    let fits = |offset: i64, length: i64| {
        let end = usize::try_from(offset).ok()?.checked_add(usize::try_from(length).ok()?)?;
        (end <= body).then_some(())
    };
    if buffers.iter().any(|buffer| fits(buffer.offset(), buffer.length()).is_none()) {
        return Err("a column lies outside of its frame".to_owned());
    }
    Ok(())
}

/// Splits an encapsulated message into metadata and body.
fn message(payload: &[u8]) -> Result<(&[u8], &[u8]), Bad> {
    let metadata = claimed_metadata(payload)?;
    payload[PREFIX_BYTES..].split_at_checked(metadata).ok_or_else(|| "the message is cut off".to_owned())
}

fn claimed_metadata(payload: &[u8]) -> Result<usize, Bad> {
    match payload.first_chunk::<PREFIX_BYTES>() {
        Some([0xff, 0xff, 0xff, 0xff, length @ ..]) => usize::try_from(i32::from_le_bytes(*length))
            .map_err(|_| "the message has no possible length".to_owned()),
        _ => Err("there is no message".to_owned()),
    }
}

/// Arrow's decoder was written for bytes that a writer made: where it still asserts, the panic becomes an error. What is
/// shared with it is only read.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, Bad> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("the Arrow data cannot be read: {error}")),
        Err(_) => Err("the Arrow data cannot be read".to_owned()),
    }
}

/// How many nodes and buffers a message needs.
#[derive(Default)]
struct Layout {
    nodes: usize,
    buffers: usize,
}

/// Adds what a column of this type needs, or returns a type that the log does not store.
fn layout<'a>(ty: &'a DataType, sum: &mut Layout) -> Result<(), &'a DataType> {
    sum.nodes += 1;
    match ty {
        DataType::Null => {}
        DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary => sum.buffers += 3,
        DataType::Boolean | DataType::FixedSizeBinary(_) => sum.buffers += 2,
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            sum.buffers += 2;
            layout(item.data_type(), sum)?;
        }
        DataType::FixedSizeList(item, _) => {
            sum.buffers += 1;
            layout(item.data_type(), sum)?;
        }
        DataType::Struct(fields) => {
            sum.buffers += 1;
            fields.iter().try_for_each(|field| layout(field.data_type(), sum))?;
        }
        ty if ty.is_primitive() => sum.buffers += 2,
        other => return Err(other),
    }
    Ok(())
}
