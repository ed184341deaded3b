//! Group keys as words.
//!
//! The representation is chosen when the operator is built. Columns of fixed width are packed, wide ones first, with a bit
//! per nullable column in what is left of the last word; so one bigint is 8 bytes, and two ints with a nullable date fit
//! 16. A string is two words (length, prefix, and 8 more bytes or an address in the arena). Any other type goes through
//! arrow-row, whose bytes are treated as a string: this encoding lives in memory only and is never stored.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::slots::{Arena, is_long, view};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// 8, 16, 32 or 64 bits of one word.
    Bits(u32),
    /// 2 or 4 words.
    Words(usize),
    /// A string or byte string: two words.
    Bytes,
    /// An arrow-row encoding: two words, as a string.
    Row,
}

struct KeyColumn {
    data_type: DataType,
    form: Form,
    word: usize,
    shift: u32,
    /// Word and bit that are set where the column is NULL.
    null: Option<(usize, u32)>,
    converter: Option<RowConverter>,
}

/// Encodes and decodes the key columns of one operator.
pub(crate) struct KeyCodec {
    columns: Vec<KeyColumn>,
    words: usize,
    /// For each word, the column among those of bytes whose second word it is.
    tails: Vec<Option<usize>>,
}

/// The keys of a batch, row after row.
pub(crate) struct Keys {
    pub(crate) words: Vec<u64>,
    bytes: Vec<BytesColumn>,
}

/// Where the bytes of long strings lie to which keys refer.
#[derive(Clone, Copy)]
pub(crate) enum KeyBytes<'a> {
    Batch(&'a [BytesColumn]),
    Arena(&'a Arena),
}

impl KeyBytes<'_> {
    fn long(&self, column: usize, row: usize, head: u64, tail: u64) -> &[u8] {
        match self {
            Self::Batch(columns) => columns[column].value(row),
            Self::Arena(arena) => arena.long(head, tail),
        }
    }
}

/// Strings, byte strings and row encodings alike.
pub(crate) struct BytesColumn {
    offsets: OffsetBuffer<i32>,
    values: Buffer,
}

impl BytesColumn {
    pub(crate) fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                Self { offsets: array.offsets().clone(), values: array.values().clone() }
            }
            _ => {
                let array = array.as_binary::<i32>();
                Self { offsets: array.offsets().clone(), values: array.values().clone() }
            }
        }
    }

    #[inline]
    pub(crate) fn value(&self, row: usize) -> &[u8] {
        &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl Keys {
    pub(crate) fn bytes(&self) -> KeyBytes<'_> {
        KeyBytes::Batch(&self.bytes)
    }
}

impl KeyCodec {
    /// # Errors
    /// If a type can be neither packed nor put through arrow-row.
    pub(crate) fn new(fields: &[FieldRef]) -> Result<Self, ArrowError> {
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let form = form_of(field.data_type());
            let converter = match form {
                Form::Row => Some(RowConverter::new(vec![SortField::new(field.data_type().clone())])?),
                _ => None,
            };
            let data_type = field.data_type().clone();
            columns.push(KeyColumn { data_type, form, word: 0, shift: 0, null: None, converter });
        }
        let mut word = 0;
        let mut tails = Vec::new();
        let mut bytes_columns = 0;
        for column in &mut columns {
            column.word = word;
            match column.form {
                Form::Bits(64) => word += 1,
                Form::Words(n) => word += n,
                Form::Bytes | Form::Row => {
                    tails.resize(word + 1, None);
                    tails.push(Some(bytes_columns));
                    bytes_columns += 1;
                    word += 2;
                }
                Form::Bits(_) => {}
            }
        }
        // What is narrower than a word, widest first, then one bit per nullable column.
        let mut bits = 0;
        for width in [32, 16, 8] {
            for column in columns.iter_mut().filter(|c| c.form == Form::Bits(width)) {
                (column.word, column.shift) = (word + (bits / 64) as usize, bits % 64);
                bits += width;
            }
        }
        for (column, field) in columns.iter_mut().zip(fields) {
            if field.is_nullable() {
                column.null = Some((word + (bits / 64) as usize, bits % 64));
                bits += 1;
            }
        }
        let words = word + bits.div_ceil(64) as usize;
        tails.resize(words, None);
        Ok(Self { columns, words, tails })
    }

    pub(crate) fn words(&self) -> usize {
        self.words
    }

    pub(crate) fn has_bytes(&self) -> bool {
        self.tails.iter().any(Option::is_some)
    }

    /// # Errors
    /// If a column is NULL that was said never to be, or arrow-row fails.
    pub(crate) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Keys, ArrowError> {
        let mut keys = Keys { words: vec![0; rows * self.words], bytes: Vec::new() };
        for (column, array) in self.columns.iter().zip(columns) {
            self.encode_column(column, array, &mut keys)?;
        }
        Ok(keys)
    }

    fn encode_column(&self, column: &KeyColumn, array: &ArrayRef, keys: &mut Keys) -> Result<(), ArrowError> {
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        if let Some(nulls) = nulls {
            let Some((word, bit)) = column.null else {
                return Err(ArrowError::InvalidArgumentError("NULL in a key that is never NULL".to_owned()));
            };
            for (row, key) in keys.words.chunks_exact_mut(self.words).enumerate() {
                key[word] |= u64::from(nulls.is_null(row)) << bit;
            }
        }
        let (stride, word, shift) = (self.words, column.word, column.shift);
        macro_rules! bits {
            ($type:ty, $value:expr) => {{
                let values = array.as_primitive::<$type>().values();
                let value = $value;
                let out = keys.words.chunks_exact_mut(stride);
                match nulls {
                    None => out.zip(values).for_each(|(key, v)| key[word] |= value(*v) << shift),
                    Some(nulls) => {
                        for ((key, v), valid) in out.zip(values).zip(nulls) {
                            key[word] |= if valid { value(*v) << shift } else { 0 };
                        }
                    }
                }
            }};
        }
        macro_rules! words {
            ($type:ty, $n:literal, $value:expr) => {{
                let array = array.as_primitive::<$type>();
                let value = $value;
                for (row, key) in keys.words.chunks_exact_mut(stride).enumerate() {
                    if array.is_valid(row) {
                        let parts: [u64; $n] = value(array.value(row));
                        key[word..word + $n].copy_from_slice(&parts);
                    }
                }
            }};
        }
        match &column.data_type {
            DataType::Boolean => {
                let array = array.as_boolean();
                for (row, key) in keys.words.chunks_exact_mut(stride).enumerate() {
                    key[word] |= u64::from(array.is_valid(row) && array.value(row)) << shift;
                }
            }
            DataType::Int8 => bits!(Int8Type, |v: i8| u64::from(v as u8)),
            DataType::Int16 => bits!(Int16Type, |v: i16| u64::from(v as u16)),
            DataType::Int32 => bits!(Int32Type, |v: i32| u64::from(v as u32)),
            DataType::Date32 => bits!(Date32Type, |v: i32| u64::from(v as u32)),
            DataType::Int64 => bits!(Int64Type, |v: i64| v as u64),
            DataType::Time64(_) => bits!(Time64MicrosecondType, |v: i64| v as u64),
            DataType::Timestamp(_, _) => bits!(TimestampMicrosecondType, |v: i64| v as u64),
            DataType::Float32 => bits!(Float32Type, |v: f32| u64::from(one_float32(v).to_bits())),
            DataType::Float64 => bits!(Float64Type, |v: f64| one_float64(v).to_bits()),
            DataType::Decimal128(_, _) => words!(Decimal128Type, 2, split128),
            DataType::Decimal256(_, _) => words!(Decimal256Type, 4, split256),
            DataType::Interval(_) => words!(IntervalMonthDayNanoType, 2, |v: IntervalMonthDayNano| [
                u64::from(v.months as u32) << 32 | u64::from(v.days as u32),
                v.nanoseconds as u64
            ]),
            DataType::FixedSizeBinary(_) if column.form == Form::Words(2) => {
                let array = array.as_fixed_size_binary();
                for (row, key) in keys.words.chunks_exact_mut(stride).enumerate() {
                    if array.is_valid(row) {
                        let bytes: [u8; 16] = array.value(row).try_into().expect("a column of 16 bytes");
                        key[word..word + 2].copy_from_slice(&split128(i128::from_le_bytes(bytes)));
                    }
                }
            }
            _ => {
                let bytes = match &column.converter {
                    None => BytesColumn::of(array),
                    Some(converter) => {
                        let rows = converter.convert_columns(&[Arc::clone(array)])?;
                        let rows: ArrayRef = Arc::new(rows.try_into_binary()?);
                        BytesColumn::of(&rows)
                    }
                };
                for (row, key) in keys.words.chunks_exact_mut(stride).enumerate() {
                    if array.is_valid(row) {
                        key[word..word + 2].copy_from_slice(&view(bytes.value(row)));
                    }
                }
                keys.bytes.push(bytes);
            }
        }
        Ok(())
    }

    /// Whether a stored key equals row `row` of some keys.
    #[inline]
    pub(crate) fn same(
        &self,
        key: &[u64],
        arena: &Arena,
        probe: &[u64],
        row: usize,
        bytes: KeyBytes,
    ) -> bool {
        for (at, tail) in self.tails.iter().enumerate() {
            match tail {
                Some(column) if is_long(probe[at - 1]) => {
                    // The heads are equal, so both are long and of one length.
                    let head = probe[at - 1];
                    if arena.long(head, key[at]) != bytes.long(*column, row, head, probe[at]) {
                        return false;
                    }
                }
                _ if key[at] != probe[at] => return false,
                _ => {}
            }
        }
        true
    }

    /// Copies the bytes of a fresh key's long strings into `arena` and points the key at them.
    pub(crate) fn adopt(&self, key: &mut [u64], row: usize, bytes: KeyBytes, arena: &mut Arena) {
        for (at, tail) in self.tails.iter().enumerate() {
            if let Some(column) = tail
                && is_long(key[at - 1])
            {
                let [_, address] = arena.store(bytes.long(*column, row, key[at - 1], key[at]));
                key[at] = address;
            }
        }
    }

    /// Tells `arena` that a key's strings are not needed any more.
    pub(crate) fn forget(&self, key: &[u64], arena: &mut Arena) {
        for (at, tail) in self.tails.iter().enumerate() {
            if tail.is_some() {
                arena.forget([key[at - 1], key[at]]);
            }
        }
    }

    /// The columns of `keys`, which lie row after row.
    ///
    /// # Errors
    /// If arrow-row cannot read what it wrote.
    pub(crate) fn decode(
        &self,
        keys: &[u64],
        rows: usize,
        arena: &Arena,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter().map(|column| self.decode_column(column, keys, rows, arena)).collect()
    }

    fn decode_column(
        &self,
        column: &KeyColumn,
        keys: &[u64],
        rows: usize,
        arena: &Arena,
    ) -> Result<ArrayRef, ArrowError> {
        let (stride, word, shift) = (self.words, column.word, column.shift);
        let nulls = column.null.and_then(|(word, bit)| {
            let valid: NullBuffer = keys.chunks_exact(stride).map(|key| key[word] >> bit & 1 == 0).collect();
            (valid.null_count() > 0).then_some(valid)
        });
        macro_rules! bits {
            ($type:ty, $value:expr) => {{
                let value = $value;
                let values: Vec<_> = keys.chunks_exact(stride).map(|key| value(key[word] >> shift)).collect();
                let array = PrimitiveArray::<$type>::try_new(ScalarBuffer::from(values), nulls)?;
                Arc::new(array.with_data_type(column.data_type.clone())) as ArrayRef
            }};
        }
        macro_rules! words {
            ($type:ty, $value:expr) => {{
                let value = $value;
                let values: Vec<_> = keys.chunks_exact(stride).map(|key| value(&key[word..])).collect();
                let array = PrimitiveArray::<$type>::try_new(ScalarBuffer::from(values), nulls)?;
                Arc::new(array.with_data_type(column.data_type.clone())) as ArrayRef
            }};
        }
        Ok(match &column.data_type {
            DataType::Boolean => {
                let values = keys.chunks_exact(stride).map(|key| key[word] >> shift & 1 == 1).collect();
                Arc::new(BooleanArray::new(values, nulls))
            }
            DataType::Int8 => bits!(Int8Type, |v: u64| v as i8),
            DataType::Int16 => bits!(Int16Type, |v: u64| v as i16),
            DataType::Int32 => bits!(Int32Type, |v: u64| v as i32),
            DataType::Date32 => bits!(Date32Type, |v: u64| v as i32),
            DataType::Int64 => bits!(Int64Type, |v: u64| v as i64),
            DataType::Time64(_) => bits!(Time64MicrosecondType, |v: u64| v as i64),
            DataType::Timestamp(_, _) => bits!(TimestampMicrosecondType, |v: u64| v as i64),
            DataType::Float32 => bits!(Float32Type, |v: u64| f32::from_bits(v as u32)),
            DataType::Float64 => bits!(Float64Type, f64::from_bits),
            DataType::Decimal128(_, _) => words!(Decimal128Type, join128),
            DataType::Decimal256(_, _) => words!(Decimal256Type, join256),
            DataType::Interval(_) => words!(IntervalMonthDayNanoType, |w: &[u64]| {
                IntervalMonthDayNano::new((w[0] >> 32) as i32, w[0] as i32, w[1] as i64)
            }),
            DataType::FixedSizeBinary(_) if column.form == Form::Words(2) => {
                let values: Vec<u8> =
                    keys.chunks_exact(stride).flat_map(|key| join128(&key[word..]).to_le_bytes()).collect();
                Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), nulls)?)
            }
            data_type => {
                let views = (0..rows).map(|row| [keys[row * stride + word], keys[row * stride + word + 1]]);
                let bytes = bytes_array(views, arena, nulls, rows)?;
                match (&column.converter, data_type) {
                    (Some(converter), _) => {
                        // NULL has a row encoding of its own, but a NULL key holds no bytes.
                        let null =
                            converter.convert_columns(&[arrow::array::new_null_array(data_type, 1)])?;
                        let parser = converter.parser();
                        let rows = (0..rows).map(|row| match bytes.is_null(row) {
                            true => parser.parse(null.row(0).data()),
                            false => parser.parse(bytes.value(row)),
                        });
                        converter.convert_rows(rows)?.remove(0)
                    }
                    (None, DataType::Utf8) => {
                        let (offsets, values, nulls) = bytes.into_parts();
                        Arc::new(StringArray::try_new(offsets, values, nulls)?)
                    }
                    (None, _) => Arc::new(bytes),
                }
            }
        })
    }
}

fn form_of(data_type: &DataType) -> Form {
    match data_type {
        DataType::Boolean | DataType::Int8 => Form::Bits(8),
        DataType::Int16 => Form::Bits(16),
        DataType::Int32 | DataType::Date32 | DataType::Float32 => Form::Bits(32),
        DataType::Int64 | DataType::Float64 => Form::Bits(64),
        DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Form::Bits(64)
        }
        DataType::Decimal128(_, _) | DataType::Interval(IntervalUnit::MonthDayNano) => Form::Words(2),
        DataType::FixedSizeBinary(16) => Form::Words(2),
        DataType::Decimal256(_, _) => Form::Words(4),
        DataType::Utf8 | DataType::Binary => Form::Bytes,
        _ => Form::Row,
    }
}

/// Bytes of views, some of them NULL.
pub(crate) fn bytes_array(
    views: impl Iterator<Item = [u64; 2]>,
    arena: &Arena,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<BinaryArray, ArrowError> {
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut values = Vec::new();
    offsets.push(0i32);
    for (row, view) in views.enumerate() {
        if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
            arena.read(view, &mut values);
        }
        let end = i32::try_from(values.len()).map_err(|_| ArrowError::OffsetOverflowError(values.len()))?;
        offsets.push(end);
    }
    BinaryArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(values), nulls)
}

#[inline]
pub(crate) fn split128(v: i128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}

#[inline]
pub(crate) fn join128(words: &[u64]) -> i128 {
    i128::from(words[1] as i64) << 64 | i128::from(words[0])
}

#[inline]
pub(crate) fn split256(v: i256) -> [u64; 4] {
    let (low, high) = v.to_parts();
    [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
}

#[inline]
pub(crate) fn join256(words: &[u64]) -> i256 {
    i256::from_parts(join128(words) as u128, join128(&words[2..]))
}

/// -0.0 is 0.0 and all NaNs are one, as for the hash.
fn one_float64(v: f64) -> f64 {
    if v.is_nan() { f64::NAN } else { v + 0.0 }
}

fn one_float32(v: f32) -> f32 {
    if v.is_nan() { f32::NAN } else { v + 0.0 }
}
