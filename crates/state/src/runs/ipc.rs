//! Arrow IPC streams with LZ4 buffers, read as bytes that nobody vouches for.
//!
//! Arrow's reader validates arrays, but it slices buffers and allocates by lengths that it takes from the message. So the
//! messages are walked first and every length is checked against the bytes that are there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, MessageHeader, MetadataVersion, root_as_message};
use bytes::Bytes;

use crate::CorruptRun;

/// LZ4 cannot pack more into a byte than this.
const LZ4_RATIO_MAX: i64 = 255;

/// Writes batches one after the other; nothing is held but the bytes.
pub(super) struct Writer(StreamWriter<Vec<u8>>);

impl Writer {
    pub fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)?
            .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        Ok(Self(StreamWriter::try_new_with_options(Vec::new(), schema, options)?))
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.0.write(batch)
    }

    pub fn finish(mut self) -> Result<Bytes, ArrowError> {
        self.0.finish()?;
        Ok(Bytes::from(self.0.into_inner()?))
    }
}

pub(super) fn read(bytes: &Bytes) -> Result<(SchemaRef, Vec<RecordBatch>), CorruptRun> {
    check_lengths(bytes)?;
    // The last resort: what slips through above must not take the server down.
    match catch_unwind(AssertUnwindSafe(|| decode(bytes))) {
        Ok(decoded) => decoded.map_err(|error| CorruptRun::Content(error.to_string())),
        Err(_) => Err(content("Arrow could not make sense of it")),
    }
}

fn decode(bytes: &Bytes) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(bytes.clone());
    let mut batches = Vec::new();
    while !rest.is_empty() {
        batches.extend(decoder.decode(&mut rest)?);
    }
    decoder.finish()?;
    let schema = decoder.schema().ok_or_else(|| ArrowError::IpcError("no schema".to_owned()))?;
    Ok((schema, batches))
}

fn content(what: impl Into<String>) -> CorruptRun {
    CorruptRun::Content(what.into())
}

/// Walks the messages of a stream: each is a continuation marker, a length, a flatbuffer and a body.
fn check_lengths(bytes: &[u8]) -> Result<(), CorruptRun> {
    let mut rest = bytes;
    loop {
        let (prefix, after) = rest.split_first_chunk::<8>().ok_or_else(|| content("a message is cut off"))?;
        if prefix[..4] != [0xff; 4] {
            return Err(content("a message does not begin with its marker"));
        }
        let length = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
        if length == 0 {
            return if after.is_empty() { Ok(()) } else { Err(content("bytes follow its end")) };
        }
        let (head, after) = after.split_at_checked(length).ok_or_else(|| content("a message is cut off"))?;
        let message = root_as_message(head).map_err(|error| content(format!("message: {error}")))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| content("a length is negative"))?;
        let (body, after) = after.split_at_checked(body).ok_or_else(|| content("a message is cut off"))?;
        match message.header_type() {
            MessageHeader::Schema => {}
            MessageHeader::RecordBatch => check_batch(&message, body)?,
            other => return Err(content(format!("it has a message of type {}", other.0))),
        }
        rest = after;
    }
}

fn check_batch(message: &arrow::ipc::Message<'_>, body: &[u8]) -> Result<(), CorruptRun> {
    let batch = message.header_as_record_batch().ok_or_else(|| content("a message has no header"))?;
    if batch.length() < 0 || batch.nodes().is_some_and(|nodes| nodes.iter().any(|n| n.length() < 0)) {
        return Err(content("a number of rows is negative"));
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let slice = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?))
            .ok_or_else(|| content("a buffer lies outside of its message"))?;
        if batch.compression().is_none() || slice.is_empty() {
            continue;
        }
        let (size, packed) = slice.split_first_chunk::<8>().ok_or_else(|| content("a buffer has no size"))?;
        let (size, packed) = (i64::from_le_bytes(*size), packed.len() as i64);
        if size < -1 || size > packed.saturating_mul(LZ4_RATIO_MAX) {
            return Err(content(format!("a buffer of {packed} bytes claims to be {size} bytes unpacked")));
        }
    }
    Ok(())
}
