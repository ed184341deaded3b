//! The end of a segment: where its rows lie, and the frames that they came in.
//!
//! ```text
//!  0 magic "MPSGTAIL"   8 version u32       12 leaf columns u32
//! 16 row groups u32    20 frames u32        24 schema bytes u32   28 frames packed bytes u32
//! 32 frames bytes u64
//! 40 crc32c of each leaf column of each row group, u32
//!    schema of the frames, an Arrow IPC message
//!    the headers of the frames as the journal has them, packed by zstd
//!    Parquet's own footer
//! ```
//!
//! The manifest holds the crc of all that, and this the crc of everything before it. Readers of Parquet look at the footer
//! only.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use millpond_types::{Commit, EventTime};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::format::{Bad, Body, Fields, FrameHeader, ItemHeader, Prelude, header_bytes_claimed};
use crate::payload::{decode_schema, guarded};

const MAGIC: u64 = u64::from_le_bytes(*b"MPSGTAIL");
const VERSION: u32 = 1;
/// Where the checksums of columns lie.
pub(super) const CRCS_AT: usize = 40;
/// Headers of more frames than this a file does not have: they would not fit into a journal file.
const FRAMES_BYTES_MAX: u64 = 1 << 30;
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

/// What must be known of a segment to read it.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Of the rows as they were written to the log.
    pub schema: SchemaRef,
    pub parquet: ArrowReaderMetadata,
    /// Of leaf columns, row group by row group.
    pub crcs: Vec<u32>,
    /// Where each row group begins, and the end.
    pub starts: Vec<u64>,
    pub frames: Vec<SealedFrame>,
}

/// A frame whose rows lie in a segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SealedFrame {
    pub commit: Commit,
    /// Its place among the frames of its commit group.
    pub ordinal: u64,
    pub ingest_time: EventTime,
    pub header: FrameHeader,
    /// Its rows lie from here on in the segment.
    pub first_row: u64,
}

/// Collects what becomes a tail.
#[derive(Default)]
pub(super) struct TailDraft {
    pub frames: Vec<u8>,
    pub frame_count: u32,
    pub crcs: Vec<u32>,
    pub row_groups: u32,
}

impl TailDraft {
    pub fn frame(&mut self, commit: Commit, ordinal: u64, ingest_time: EventTime, header: &FrameHeader) {
        let prelude = Prelude { commit, ingest_time, previous: 0, payload_bytes: ordinal, payload_crc: 0 };
        ItemHeader::encode(&prelude, &Body::Frame(header.clone()), &mut self.frames);
        self.frame_count += 1;
    }

    /// The bytes before Parquet's footer.
    pub fn encode(&self, schema: &[u8]) -> std::io::Result<Vec<u8>> {
        let packed = zstd::bulk::compress(&self.frames, super::ZSTD_LEVEL)?;
        let leaves = (self.crcs.len() as u32).checked_div(self.row_groups).unwrap_or(0);
        let mut out = Vec::with_capacity(CRCS_AT + 4 * self.crcs.len() + schema.len() + packed.len());
        out.extend(MAGIC.to_le_bytes());
        for number in [VERSION, leaves, self.row_groups, self.frame_count] {
            out.extend(number.to_le_bytes());
        }
        out.extend((schema.len() as u32).to_le_bytes());
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend((self.frames.len() as u64).to_le_bytes());
        out.extend(self.crcs.iter().flat_map(|crc| crc.to_le_bytes()));
        out.extend(schema);
        out.extend(packed);
        Ok(out)
    }
}

impl Tail {
    /// Decodes a tail whose crc was checked.
    pub fn decode(bytes: &Bytes) -> Result<Self, Bad> {
        let mut fields = Fields(bytes);
        if fields.u64()? != MAGIC {
            return Err("it is not the tail of a segment".to_owned());
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(format!("the segment has version {version}, this program reads {VERSION}"));
        }
        let (leaves, row_groups) = (fields.u32()? as usize, fields.u32()? as usize);
        let (frame_count, schema_bytes) = (fields.u32()? as usize, fields.u32()? as usize);
        let (packed_bytes, frames_bytes) = (fields.u32()? as usize, fields.u64()?);
        let crcs =
            leaves.checked_mul(row_groups).and_then(|n| n.checked_mul(4)).ok_or("it has too many columns")?;
        let crcs = fields.bytes(crcs)?.chunks_exact(4);
        let crcs = crcs.map(|crc| u32::from_le_bytes(crc.try_into().expect("four bytes"))).collect();
        let schema = decode_schema(fields.bytes(schema_bytes)?)?;
        let packed = fields.bytes(packed_bytes)?;
        let frames = decode_frames(packed, frame_count, frames_bytes)?;
        let parquet = decode_parquet(fields.0)?;
        let mut starts = vec![0u64];
        for group in parquet.metadata().row_groups() {
            let rows = u64::try_from(group.num_rows()).map_err(|_| "a row group has no possible length")?;
            starts.push(starts[starts.len() - 1].checked_add(rows).ok_or("it has too many rows")?);
        }
        let rows: u64 = frames.iter().map(|frame| u64::from(frame.header.rows)).sum();
        let columns = parquet.metadata().file_metadata().schema_descr().num_columns();
        if starts.len() != row_groups + 1 || (row_groups > 0 && leaves != columns) {
            return Err("its tail does not fit to its footer".to_owned());
        }
        if starts[row_groups] != rows {
            return Err(format!("it holds {} rows, its frames say {rows}", starts[row_groups]));
        }
        Ok(Self { schema, parquet, crcs, starts, frames })
    }

    /// Frames with a commit after `from`, up to and including `to`.
    pub fn frames_between(&self, from: Commit, to: Commit) -> Range<usize> {
        let first = self.frames.partition_point(|frame| frame.commit <= from);
        let end = self.frames.partition_point(|frame| frame.commit <= to);
        first..end.max(first)
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let groups = self.parquet.metadata().memory_size();
        groups + 4 * self.crcs.len() + std::mem::size_of::<SealedFrame>() * self.frames.len()
    }
}

fn decode_frames(packed: &[u8], count: usize, bytes: u64) -> Result<Vec<SealedFrame>, Bad> {
    let capacity = usize::try_from(bytes).ok().filter(|_| bytes <= FRAMES_BYTES_MAX);
    let capacity = capacity.ok_or("its list of frames is too long")?;
    let raw = zstd::bulk::decompress(packed, capacity)
        .map_err(|error| format!("its list of frames cannot be unpacked: {error}"))?;
    let mut rest = &raw[..];
    let mut frames = Vec::new();
    let mut first_row = 0;
    while !rest.is_empty() {
        let claimed = header_bytes_claimed(rest)?;
        let (head, tail) = rest.split_at_checked(claimed).ok_or("its list of frames is cut off")?;
        let ItemHeader { prelude, body, .. } = ItemHeader::decode(head)?;
        let Body::Frame(mut header) = body else {
            return Err("its list of frames has something else in it".to_owned());
        };
        // Who wrote is known from the manifest on.
        header.writes = Vec::new();
        let rows = u64::from(header.rows);
        let (commit, ordinal, ingest_time) = (prelude.commit, prelude.payload_bytes, prelude.ingest_time);
        if frames.last().is_some_and(|last: &SealedFrame| (last.commit, last.ordinal) >= (commit, ordinal)) {
            return Err("its frames are out of order".to_owned());
        }
        frames.push(SealedFrame { commit, ordinal, ingest_time, header, first_row });
        first_row += rows;
        rest = tail;
    }
    if frames.len() == count { Ok(frames) } else { Err("its list of frames is not complete".to_owned()) }
}

/// Parquet's footer at the end of `bytes`.
fn decode_parquet(bytes: &[u8]) -> Result<ArrowReaderMetadata, Bad> {
    let (footer, end) = bytes.len().checked_sub(8).map(|at| bytes.split_at(at)).ok_or("it has no footer")?;
    let (length, magic) = end.split_at(4);
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    if magic != PARQUET_MAGIC || length != footer.len() {
        return Err("it has no footer of Parquet's".to_owned());
    }
    guarded(|| {
        let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(footer)?);
        Ok(ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())?)
    })
}
