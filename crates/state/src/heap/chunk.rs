//! Immutable rows with their ids, and which of them still live.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, MutableArrayData, RecordBatch, RecordBatchOptions, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

/// Row ids of a chunk, strictly ascending.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    /// Without gaps: all ids of a fresh chunk.
    Range { first: u64, len: u32 },
    /// With gaps, as distances from the first: of a chunk that was rewritten.
    List { first: u64, offsets: Box<[u32]> },
}

impl Ids {
    /// `ids` must ascend and span less than 2^32.
    pub fn of(ids: &[u64]) -> Self {
        let (first, last) = (ids[0], ids[ids.len() - 1]);
        debug_assert!(ids.is_sorted_by(|a, b| a < b));
        if last - first + 1 == ids.len() as u64 {
            return Self::Range { first, len: ids.len() as u32 };
        }
        let offset = |id| u32::try_from(id - first).expect("the caller keeps spans below 2^32");
        Self::List { first, offsets: ids.iter().map(|&id| offset(id)).collect() }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Range { len, .. } => *len as usize,
            Self::List { offsets, .. } => offsets.len(),
        }
    }

    pub fn first(&self) -> u64 {
        match self {
            Self::Range { first, .. } | Self::List { first, .. } => *first,
        }
    }

    pub fn last(&self) -> u64 {
        self.get(self.len() - 1)
    }

    #[inline]
    pub fn get(&self, row: usize) -> u64 {
        match self {
            Self::Range { first, .. } => first + row as u64,
            Self::List { first, offsets } => first + u64::from(offsets[row]),
        }
    }

    /// The row of `id`.
    #[inline]
    pub fn position(&self, id: u64) -> Option<usize> {
        match self {
            Self::Range { first, len } => {
                let row = id.wrapping_sub(*first);
                (row < u64::from(*len)).then_some(row as usize)
            }
            Self::List { first, offsets } => {
                let offset = u32::try_from(id.checked_sub(*first)?).ok()?;
                offsets.binary_search(&offset).ok()
            }
        }
    }

    /// The first row whose id is at least `id`.
    pub fn lower_bound(&self, id: u64) -> usize {
        match self {
            Self::Range { first, len } => id.saturating_sub(*first).min(u64::from(*len)) as usize,
            Self::List { first, offsets } => {
                offsets.partition_point(|&offset| first + u64::from(offset) < id)
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Range { .. } => 0,
            Self::List { offsets, .. } => size_of_val(&offsets[..]),
        }
    }
}

/// One bit per row: 1 while it lives.
#[derive(Clone, Debug)]
pub(crate) struct LiveBits(Vec<u64>);

impl LiveBits {
    fn all(rows: usize) -> Self {
        let mut words = vec![u64::MAX; rows.div_ceil(64)];
        if let (Some(last), 1..) = (words.last_mut(), rows % 64) {
            *last = (1 << (rows % 64)) - 1;
        }
        Self(words)
    }

    #[inline]
    pub fn get(&self, row: usize) -> bool {
        self.0[row / 64] >> (row % 64) & 1 == 1
    }

    /// Clears the bit and says whether it was set.
    #[inline]
    pub fn clear(&mut self, row: usize) -> bool {
        let (word, bit) = (&mut self.0[row / 64], 1 << (row % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Live rows from `row` on.
    pub fn count_from(&self, row: usize) -> usize {
        let Some((first, rest)) = self.0.get(row / 64..).and_then(<[u64]>::split_first) else { return 0 };
        let first = (first >> (row % 64)).count_ones() as usize;
        first + rest.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// Live rows from `row` on, ascending.
    pub fn iter_from(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let start = row / 64;
        self.0.iter().enumerate().skip(start).flat_map(move |(index, &word)| {
            let mut word = if index == start { word & (u64::MAX << (row % 64)) } else { word };
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(index * 64 + bit)
            })
        })
    }

    fn mask(&self, rows: usize) -> BooleanArray {
        BooleanArray::new(BooleanBuffer::new(Buffer::from_slice_ref(&self.0), 0, rows), None)
    }
}

/// Rows that never change.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub ids: Ids,
    pub batch: RecordBatch,
    bytes: usize,
}

impl Chunk {
    pub fn new(ids: Ids, batch: RecordBatch) -> Self {
        debug_assert_eq!(ids.len(), batch.num_rows());
        let bytes = batch.get_array_memory_size() + ids.bytes() + size_of::<Self>();
        Self { ids, batch, bytes }
    }
}

/// A chunk and its deletion bitmap, both shared with snapshots and copied when they change.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub chunk: Arc<Chunk>,
    /// `None`: all live.
    pub bits: Option<Arc<LiveBits>>,
    live: u32,
}

impl Slot {
    pub fn new(chunk: Arc<Chunk>) -> Self {
        let live = chunk.ids.len() as u32;
        Self { chunk, bits: None, live }
    }

    pub fn live(&self) -> usize {
        self.live as usize
    }

    pub fn len(&self) -> usize {
        self.chunk.ids.len()
    }

    pub fn bytes(&self) -> usize {
        self.chunk.bytes + self.bits.as_ref().map_or(0, |bits| bits.0.len() * 8)
    }

    #[inline]
    pub fn is_live(&self, row: usize) -> bool {
        self.bits.as_ref().is_none_or(|bits| bits.get(row))
    }

    /// Deletes rows; the first that is not live is the error.
    pub fn delete(&mut self, rows: impl Iterator<Item = usize>) -> Result<(), usize> {
        let len = self.len();
        let bits = self.bits.get_or_insert_with(|| Arc::new(LiveBits::all(len)));
        let bits = Arc::make_mut(bits);
        for row in rows {
            if !bits.clear(row) {
                return Err(row);
            }
            self.live -= 1;
        }
        Ok(())
    }

    /// Live rows from `row` on, ascending.
    pub fn live_rows(&self, row: usize) -> Box<dyn Iterator<Item = usize> + '_> {
        match &self.bits {
            None => Box::new(row..self.len()),
            Some(bits) => Box::new(bits.iter_from(row)),
        }
    }

    /// Live rows from `from` on, of some columns; a reference to the chunk's own arrays where all live.
    pub fn batch(&self, from: usize, projection: Option<&[usize]>) -> Result<RecordBatch, ArrowError> {
        let batch = match projection {
            None => self.chunk.batch.clone(),
            Some(columns) => self.chunk.batch.project(columns)?,
        };
        let rows = self.len();
        let batch = if from == 0 { batch } else { batch.slice(from, rows - from) };
        let Some(bits) = &self.bits else { return Ok(batch) };
        let mask = bits.mask(rows).slice(from, rows - from);
        if batch.num_columns() == 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(mask.true_count()));
            return RecordBatch::try_new_with_options(batch.schema(), vec![], &options);
        }
        filter_record_batch(&batch, &mask)
    }
}

/// `batch` itself if it is about all that its buffers hold, else a copy: a few rows must not keep a large batch alive.
pub(crate) fn unpinned(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().iter().map(unpinned_array).collect::<Result<_, _>>()?;
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn unpinned_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    let held = array.get_buffer_memory_size();
    let used = data.get_slice_memory_size().unwrap_or(0);
    if held <= used + used / 4 + 256 {
        return Ok(Arc::clone(array));
    }
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}
