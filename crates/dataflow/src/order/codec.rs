//! Rows as bytes that compare as the rows do.
//!
//! A row is put through arrow-row as a whole: the columns of its partition, then those of the order, then the others. So
//! the bytes of the partition are a prefix of it, peers share a longer prefix, and nothing else need be kept of a row: its
//! columns are read back from the bytes. The encoding lives in memory only and is never stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, IntervalMonthDayNanoType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millpond_types::SqlError;
use millpond_types::hash::{hash_columns, mix};

use super::spec::OrderColumn;

/// A row.
pub(super) type Key = Arc<[u8]>;

pub(super) struct Codec {
    /// Columns of the source in the order in which rows hold them.
    pub(super) stored: Vec<usize>,
    /// For each column of the source its place among those.
    places: Vec<usize>,
    pub(super) fields: Vec<FieldRef>,
    pub(super) partition_columns: usize,
    rows: RowConverter,
    /// What the lengths of prefixes are found with; `None` where a prefix is empty.
    partition: Option<RowConverter>,
    peers: Option<RowConverter>,
    peer_columns: usize,
    /// The stored columns that choose a row's shard.
    hashed: Vec<usize>,
}

/// Rows of a batch.
pub(super) struct Encoded {
    pub(super) rows: arrow::row::Rows,
    pub(super) partition: Vec<u32>,
    pub(super) peers: Vec<u32>,
}

impl Codec {
    /// # Errors
    /// XX000 if a column is not there; 0A000 if arrow-row has no form for a type.
    pub(super) fn new(
        input: &SchemaRef,
        partition: &[usize],
        order: &[OrderColumn],
    ) -> Result<Self, SqlError> {
        let width = input.fields().len();
        let mut stored: Vec<usize> = Vec::with_capacity(width);
        let mut options: Vec<SortOptions> = Vec::with_capacity(width);
        let last = SortOptions { descending: false, nulls_first: false };
        let mut add = |column: usize, with: SortOptions| {
            if !stored.contains(&column) {
                stored.push(column);
                options.push(with);
            }
            stored.len()
        };
        let partition_columns = partition.iter().map(|c| add(*c, last)).last().unwrap_or(0);
        let ordered = order
            .iter()
            .map(|o| add(o.column, SortOptions { descending: o.descending, nulls_first: o.nulls_first }));
        let peer_columns = ordered.last().unwrap_or(partition_columns);
        for column in 0..width {
            add(column, last);
        }
        if stored.iter().any(|column| *column >= width) || width == 0 {
            return Err(SqlError::internal("rows are ordered by a column that their source lacks"));
        }
        let places =
            (0..width).map(|c| stored.iter().position(|s| *s == c).expect("each is stored")).collect();
        let fields: Vec<FieldRef> = stored.iter().map(|c| Arc::clone(&input.fields()[*c])).collect();
        let converter = |columns: usize| {
            let fields = fields.iter().zip(&options).take(columns);
            let fields =
                fields.map(|(f, o)| SortField::new_with_options(f.data_type().clone(), *o)).collect();
            RowConverter::new(fields).map_err(|error| {
                SqlError::unsupported("ordering rows with a value of this type is not supported")
                    .detail(error.to_string())
            })
        };
        Ok(Self {
            hashed: (0..partition_columns).collect(),
            rows: converter(width)?,
            partition: (partition_columns > 0).then(|| converter(partition_columns)).transpose()?,
            peers: (peer_columns > 0).then(|| converter(peer_columns)).transpose()?,
            stored,
            places,
            fields,
            partition_columns,
            peer_columns,
        })
    }

    /// The same, but rows are in one partition, and split by the hash of some stored columns.
    pub(super) fn hashed_by(self, hashed: Vec<usize>) -> Self {
        Self { hashed, ..self }
    }

    /// Of rows with the stored columns, what chooses their shard.
    pub(super) fn hashes(&self, stored: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
        let columns: Vec<ArrayRef> = self.hashed.iter().map(|column| Arc::clone(&stored[*column])).collect();
        hash_columns(&columns, rows)
    }

    /// What rows begin with whose order columns have these values, each of one row.
    pub(super) fn prefix(&self, order: &[ArrayRef]) -> Result<Key, ArrowError> {
        match &self.peers {
            None => Ok(Key::from([])),
            Some(converter) => Ok(Key::from(converter.convert_columns(order)?.row(0).data())),
        }
    }

    /// `columns` are the stored ones.
    pub(super) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded, ArrowError> {
        let columns: Vec<ArrayRef> = columns.iter().map(one_nan).collect();
        let lengths = |converter: &Option<RowConverter>, count: usize| -> Result<Vec<u32>, ArrowError> {
            match converter {
                None => Ok(vec![0; rows]),
                Some(converter) => {
                    let prefixes = converter.convert_columns(&columns[..count])?;
                    Ok(prefixes.lengths().map(|length| length as u32).collect())
                }
            }
        };
        Ok(Encoded {
            partition: lengths(&self.partition, self.partition_columns)?,
            peers: lengths(&self.peers, self.peer_columns)?,
            rows: self.rows.convert_columns(&columns)?,
        })
    }

    /// The stored columns of some rows.
    pub(super) fn decode<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k Key>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.rows.parser();
        self.rows.convert_rows(keys.into_iter().map(|key| parser.parse(key)))
    }

    /// Stored columns in the order of the source.
    pub(super) fn as_input(&self, stored: &[ArrayRef]) -> Vec<ArrayRef> {
        self.places.iter().map(|place| Arc::clone(&stored[*place])).collect()
    }

    /// Tells apart the rows of a checkpoint that SQL calls equal and that are not the same bytes: 0.0 and -0.0, intervals
    /// of one length. `None` where no such column is there.
    pub(super) fn variants(&self, columns: &[ArrayRef]) -> Option<Int64Array> {
        let mut variants: Option<Vec<u64>> = None;
        for column in columns {
            let bits: Vec<u64> = match column.data_type() {
                DataType::Float32 => column
                    .as_primitive::<Float32Type>()
                    .values()
                    .iter()
                    .map(|v| u64::from(v.to_bits()))
                    .collect(),
                DataType::Float64 => {
                    column.as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect()
                }
                DataType::Interval(_) => column
                    .as_primitive::<IntervalMonthDayNanoType>()
                    .values()
                    .iter()
                    .map(|v| {
                        mix(v.nanoseconds as u64)
                            ^ (u64::from(v.months as u32) << 32 | u64::from(v.days as u32))
                    })
                    .collect(),
                _ => continue,
            };
            let variants = variants.get_or_insert_with(|| vec![0; column.len()]);
            for (row, (variant, bits)) in variants.iter_mut().zip(bits).enumerate() {
                *variant = mix(variant.rotate_left(23) ^ if column.is_null(row) { 1 } else { bits });
            }
        }
        variants.map(|variants| variants.into_iter().map(|v| v as i64).collect::<Vec<_>>().into())
    }
}

/// NaNs differ in bits and not in SQL.
fn one_nan(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 if column.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan()) => {
            let one: Float32Array =
                column.as_primitive::<Float32Type>().unary(|v| if v.is_nan() { f32::NAN } else { v });
            Arc::new(one)
        }
        DataType::Float64 if column.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan()) => {
            let one: Float64Array =
                column.as_primitive::<Float64Type>().unary(|v| if v.is_nan() { f64::NAN } else { v });
            Arc::new(one)
        }
        _ => Arc::clone(column),
    }
}
