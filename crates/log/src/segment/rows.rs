//! Rows out of segments: column by column, row group by row group, each checked against its checksum before it is decoded.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::store::Store;
use super::stored::retype;
use super::{Segment, Tail};
use crate::LogError;
use crate::payload::guarded;

/// Decoded columns that are kept for the next frame: frames are read one after the other, and are smaller than row groups.
const CACHE_BYTES_MAX: usize = 128 << 20;

/// Columns of row groups, decoded.
#[derive(Default)]
pub(super) struct Cache(Mutex<Vec<Cached>>);

struct Cached {
    /// Also keeps the address from being used again.
    tail: Arc<Tail>,
    group: usize,
    columns: HashMap<usize, ArrayRef>,
    bytes: usize,
}

impl Cache {
    fn get(&self, tail: &Arc<Tail>, group: usize, columns: &[usize]) -> HashMap<usize, ArrayRef> {
        let mut all = self.0.lock();
        let Some(at) = all.iter().position(|c| Arc::ptr_eq(&c.tail, tail) && c.group == group) else {
            return HashMap::new();
        };
        let cached = all.remove(at);
        let found = columns.iter().filter_map(|c| Some((*c, Arc::clone(cached.columns.get(c)?)))).collect();
        all.push(cached);
        found
    }

    fn add(&self, tail: &Arc<Tail>, group: usize, columns: &[(usize, ArrayRef)]) {
        let bytes: usize = columns.iter().map(|(_, column)| column.get_array_memory_size()).sum();
        if bytes > CACHE_BYTES_MAX / 4 {
            return;
        }
        let mut all = self.0.lock();
        match all.iter_mut().find(|c| Arc::ptr_eq(&c.tail, tail) && c.group == group) {
            Some(cached) => {
                cached.columns.extend(columns.iter().cloned());
                cached.bytes += bytes;
            }
            None => {
                let columns = columns.iter().cloned().collect();
                all.push(Cached { tail: Arc::clone(tail), group, columns, bytes });
            }
        }
        let mut sum: usize = all.iter().map(|cached| cached.bytes).sum();
        while sum > CACHE_BYTES_MAX && all.len() > 1 {
            sum -= all.remove(0).bytes;
        }
    }
}

/// Bytes of some parts of a file.
struct Parts {
    len: u64,
    parts: Vec<(u64, Bytes)>,
}

impl Parts {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let found = self.parts.iter().find(|(at, bytes)| (*at..*at + bytes.len() as u64).contains(&start));
        let missing = || ParquetError::General(format!("no bytes were read at {start}"));
        found.map(|(at, bytes)| bytes.slice((start - at) as usize..)).ok_or_else(missing)
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Parts {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.from(start).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("only {} bytes were read at {start}", bytes.len())));
        }
        Ok(bytes.slice(..length))
    }
}

impl Store {
    /// Columns of a row group, decoded or out of the cache.
    fn columns(
        &self,
        segment: &Segment,
        tail: &Arc<Tail>,
        group: usize,
        columns: &[usize],
    ) -> Result<HashMap<usize, ArrayRef>, LogError> {
        let mut found = self.rows.get(tail, group, columns);
        let mut missing: Vec<usize> = columns.iter().copied().filter(|c| !found.contains_key(c)).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let decoded = self.decode(segment, tail, group, &missing)?;
            let decoded: Vec<(usize, ArrayRef)> = missing.into_iter().zip(decoded).collect();
            self.rows.add(tail, group, &decoded);
            found.extend(decoded);
        }
        Ok(found)
    }

    /// Reads and decodes columns (ascending) of a row group, past the cache.
    pub(super) fn decode(
        &self,
        segment: &Segment,
        tail: &Tail,
        group: usize,
        columns: &[usize],
    ) -> Result<Vec<ArrayRef>, LogError> {
        let metadata = tail.parquet.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let row_group = metadata.row_group(group);
        let leaves: Vec<usize> = (0..schema.num_columns())
            .filter(|leaf| columns.binary_search(&schema.get_column_root_idx(*leaf)).is_ok())
            .collect();
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(leaves.len());
        for leaf in &leaves {
            let range = guarded(|| Ok(row_group.column(*leaf).byte_range()));
            let corrupt = |what| segment.corrupt(segment.entry.tail_at, what);
            let (start, length) = range.map_err(corrupt)?;
            match start.checked_add(length) {
                Some(end) if end <= segment.entry.tail_at => ranges.push(start..end),
                _ => return Err(corrupt("a column lies outside of its file".to_owned())),
            }
        }
        let first_crc = group * schema.num_columns();
        self.fetch(segment, &ranges, |parts| {
            for ((leaf, bytes), range) in leaves.iter().zip(&parts).zip(&ranges) {
                if crc32c::crc32c(bytes) != tail.crcs[first_crc + leaf] {
                    return Err((range.start, "the checksum of a column does not match".to_owned()));
                }
            }
            let parts = ranges.iter().map(|range| range.start).zip(parts).collect();
            let parts = Parts { len: segment.entry.bytes, parts };
            decode_group(parts, tail, group, columns)
                .map_err(|what| (ranges.first().map_or(0, |range| range.start), what))
        })
    }

    /// Checks every byte of the local copy that a reader, ours or any, may see.
    pub(super) fn verify(&self, segment: &Segment, bytes: &Bytes) -> Result<(), LogError> {
        let entry = &segment.entry;
        let tail = bytes.get(entry.tail_at as usize..).filter(|_| bytes.len() as u64 == entry.bytes);
        let tail = tail.ok_or_else(|| segment.corrupt(0, "it does not have its length"))?;
        if crc32c::crc32c(tail) != entry.tail_crc32c || !bytes.starts_with(b"PAR1") {
            return Err(segment.corrupt(entry.tail_at, "the checksum of its tail does not match"));
        }
        let decoded = Tail::decode(&bytes.slice(entry.tail_at as usize..));
        let decoded = decoded.map_err(|what| segment.corrupt(entry.tail_at, what))?;
        let groups = decoded.parquet.metadata().row_groups().iter();
        for (column, crc) in groups.flat_map(|group| group.columns()).zip(&decoded.crcs) {
            let (start, length) =
                guarded(|| Ok(column.byte_range())).map_err(|what| segment.corrupt(0, what))?;
            let range = start as usize..start.saturating_add(length) as usize;
            if bytes.get(range).is_none_or(|bytes| crc32c::crc32c(bytes) != *crc) {
                return Err(segment.corrupt(start, "the checksum of a column does not match"));
            }
        }
        Ok(())
    }

    /// One column of the file, of the rows `first..first + rows`.
    pub(super) fn stored_column(
        &self,
        segment: &Segment,
        tail: &Arc<Tail>,
        first: u64,
        rows: usize,
        column: usize,
    ) -> Result<ArrayRef, LogError> {
        let mut pieces = Vec::new();
        for (group, within) in tail.groups_of(first, rows) {
            let decoded = self.columns(segment, tail, group, &[column])?;
            pieces.push(decoded[&column].slice(within.start, within.end - within.start));
        }
        let pieces: Vec<_> = pieces.iter().map(|piece| &**piece).collect();
        concat(&pieces).map_err(|error| segment.corrupt(0, format!("a column cannot be read: {error}")))
    }

    /// The rows `first..first + rows` of a segment with the columns `columns` of its frames, or all.
    pub(crate) fn rows(
        &self,
        segment: &Segment,
        tail: &Arc<Tail>,
        first: u64,
        rows: usize,
        columns: Option<&[usize]>,
    ) -> Result<RecordBatch, LogError> {
        let all: Vec<usize>;
        let columns = match columns {
            Some(columns) => columns,
            None => {
                all = (0..tail.schema.fields().len()).collect();
                &all
            }
        };
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); columns.len()];
        for (group, within) in tail.groups_of(first, rows) {
            let decoded = self.columns(segment, tail, group, columns)?;
            for (column, pieces) in columns.iter().zip(&mut pieces) {
                pieces.push(decoded[column].slice(within.start, within.end - within.start));
            }
        }
        assemble(&tail.schema, columns, pieces, rows)
            .map_err(|error| segment.corrupt(0, format!("its rows cannot be read: {error}")))
    }
}

/// Puts slices of columns together under the schema of the frames.
pub(super) fn assemble(
    schema: &SchemaRef,
    columns: &[usize],
    pieces: Vec<Vec<ArrayRef>>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let schema = Arc::new(schema.project(columns)?);
    let arrays = pieces.into_iter().zip(schema.fields()).map(|(pieces, field)| {
        let array = match &pieces[..] {
            [] => arrow::array::new_empty_array(field.data_type()),
            [only] => Arc::clone(only),
            several => concat(&several.iter().map(|piece| &**piece).collect::<Vec<_>>())?,
        };
        retype(&array, field.data_type())
    });
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(schema, arrays, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

fn decode_group(parts: Parts, tail: &Tail, group: usize, columns: &[usize]) -> Result<Vec<ArrayRef>, String> {
    let rows = usize::try_from(tail.starts[group + 1] - tail.starts[group]).map_err(|e| e.to_string())?;
    let batch = guarded(|| {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, tail.parquet.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
        let mut reader =
            builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(rows).build()?;
        reader.next().unwrap_or_else(|| Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))))
    })?;
    if batch.num_rows() != rows || batch.num_columns() != columns.len() {
        return Err("a row group does not hold what its footer says".to_owned());
    }
    Ok(batch.columns().to_vec())
}

impl Tail {
    /// The row groups that some rows lie in, with the rows within each.
    pub(super) fn groups_of(&self, first: u64, rows: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let end = first + rows as u64;
        let from = self.starts.partition_point(|start| *start <= first).saturating_sub(1);
        let groups = (from..self.starts.len().saturating_sub(1)).take_while(move |g| self.starts[*g] < end);
        groups.filter_map(move |group| {
            let (start, next) = (self.starts[group], self.starts[group + 1]);
            let within = first.max(start) - start..end.min(next) - start;
            (within.start < within.end).then_some((group, within.start as usize..within.end as usize))
        })
    }
}
