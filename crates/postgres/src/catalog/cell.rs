//! Single values of the catalog: small and few, so a row at a time is good enough.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    ListArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use millpond_engine::text::Formatter;
use millpond_types::SqlType;
use millpond_types::sql_type::UTC;

use super::schema::SystemRelation;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// Any integer, an oid, or microseconds of a timestamp.
    Int(i64),
    Float(f64),
    Text(String),
    /// A fractional number of a user's column, by its text.
    Number(String),
    /// A value of any other type, by its text.
    Other(String),
    List(Vec<Cell>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<i32> for Cell {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}
impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}
impl From<usize> for Cell {
    fn from(value: usize) -> Self {
        Self::Int(value as i64)
    }
}
impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
impl<T: Into<Cell>> From<Vec<T>> for Cell {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl Cell {
    /// The number, also of a text that is one; clients write oids as strings.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    pub fn oid(&self) -> Option<u32> {
        self.int().and_then(|i| u32::try_from(i).ok())
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// As a text of PostgreSQL; NULL is `None`.
    pub fn shown(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(b) => Some(if *b { "t" } else { "f" }.to_owned()),
            Self::Int(i) => Some(i.to_string()),
            Self::Float(f) => Some(f.to_string()),
            Self::Text(text) | Self::Number(text) | Self::Other(text) => Some(text.clone()),
            Self::List(cells) => {
                let cells: Vec<String> =
                    cells.iter().map(|c| c.shown().unwrap_or_else(|| "NULL".to_owned())).collect();
                Some(format!("{{{}}}", cells.join(",")))
            }
        }
    }

    /// What stands in a column that nothing is said of: most columns of the catalogs are NOT NULL.
    fn unsaid(ty: &SqlType) -> Self {
        match ty {
            SqlType::Boolean => Self::Bool(false),
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Oid => Self::Int(0),
            SqlType::Float4 | SqlType::Float8 => Self::Float(0.0),
            _ => Self::Null,
        }
    }
}

/// Rows of one system relation; columns that a row does not name have their type's default.
pub(super) struct Rows<'a> {
    relation: &'a SystemRelation,
    columns: Vec<Vec<Cell>>,
    rows: usize,
}

impl<'a> Rows<'a> {
    pub fn new(relation: &'a SystemRelation) -> Self {
        Self { relation, columns: vec![Vec::new(); relation.columns.len()], rows: 0 }
    }

    pub fn push<const N: usize>(&mut self, cells: [(&str, Cell); N]) {
        self.rows += 1;
        for (name, cell) in cells {
            let at = self.relation.columns.iter().position(|(column, _)| *column == name);
            debug_assert!(at.is_some(), "{} has no column {name}", self.relation.name);
            if let Some(at) = at {
                self.columns[at].push(cell);
            }
        }
        for (column, (_, ty)) in self.columns.iter_mut().zip(&self.relation.columns) {
            if column.len() < self.rows {
                column.push(Cell::unsaid(ty));
            }
        }
    }

    pub fn finish(self) -> RecordBatch {
        let arrays = self.columns.iter().zip(&self.relation.columns).map(|(cells, (_, ty))| array(cells, ty));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.relation.arrow), arrays.collect(), &options)
            .expect("arrays have the types of the schema")
    }
}

/// The cells as an array of the type; a cell of another kind is NULL.
pub(super) fn array(cells: &[Cell], ty: &SqlType) -> ArrayRef {
    let ints = || cells.iter().map(Cell::int);
    let float = |cell: &Cell| match cell {
        Cell::Float(f) => Some(*f),
        Cell::Int(i) => Some(*i as f64),
        _ => None,
    };
    match ty {
        SqlType::Boolean => Arc::new(cells.iter().map(Cell::bool).collect::<BooleanArray>()),
        SqlType::Int2 => Arc::new(ints().map(|i| i.map(|i| i as i16)).collect::<Int16Array>()),
        SqlType::Int4 => Arc::new(ints().map(|i| i.map(|i| i as i32)).collect::<Int32Array>()),
        SqlType::Int8 | SqlType::Oid => Arc::new(ints().collect::<Int64Array>()),
        SqlType::Float4 => {
            Arc::new(cells.iter().map(|c| float(c).map(|f| f as f32)).collect::<Float32Array>())
        }
        SqlType::Float8 => Arc::new(cells.iter().map(float).collect::<Float64Array>()),
        SqlType::Timestamptz => Arc::new(ints().collect::<TimestampMicrosecondArray>().with_timezone(UTC)),
        SqlType::Array(element) => {
            let lists = cells.iter().map(|cell| match cell {
                Cell::List(cells) => Some(cells),
                _ => None,
            });
            let valid: NullBuffer = lists.clone().map(|l| l.is_some()).collect();
            let offsets = OffsetBuffer::from_lengths(lists.clone().map(|l| l.map_or(0, Vec::len)));
            let elements: Vec<Cell> = lists.flatten().flatten().cloned().collect();
            let values = array(&elements, element);
            Arc::new(ListArray::new(Arc::new(element.field("item", true)), offsets, values, Some(valid)))
        }
        _ if ty.arrow() == DataType::Utf8 => Arc::new(cells.iter().map(Cell::shown).collect::<StringArray>()),
        _ => new_null_array(&ty.arrow(), cells.len()),
    }
}

/// The values of an array of any type; what is neither number, text, boolean nor list is read by its text.
pub(super) fn cells(array: &ArrayRef) -> Vec<Cell> {
    let rows = 0..array.len();
    let each = |read: &dyn Fn(usize) -> Cell| {
        rows.clone().map(|row| if array.is_null(row) { Cell::Null } else { read(row) }).collect()
    };
    match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Boolean => each(&|row| Cell::Bool(array.as_boolean().value(row))),
        t if t.is_integer() => match cast(array, &DataType::Int64) {
            Ok(ints) => each(&|row| Cell::Int(ints.as_primitive::<Int64Type>().value(row))),
            Err(_) => vec![Cell::Null; array.len()],
        },
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let inner = cells(list.values());
            let offsets = list.value_offsets();
            each(&|row| Cell::List(inner[offsets[row] as usize..offsets[row + 1] as usize].to_vec()))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match cast(array, &DataType::Utf8) {
            Ok(texts) => each(&|row| Cell::Text(texts.as_string::<i32>().value(row).to_owned())),
            Err(_) => vec![Cell::Null; array.len()],
        },
        other => {
            let formatter = SqlType::of_arrow(other).and_then(|ty| Formatter::new(array, &ty));
            let Ok(formatter) = formatter else { return vec![Cell::Null; array.len()] };
            let is_number =
                other.is_floating() || matches!(other, DataType::Decimal128(..) | DataType::Decimal256(..));
            each(&|row| {
                let mut text = Vec::new();
                formatter.write(row, &mut text);
                let text = String::from_utf8_lossy(&text).into_owned();
                if is_number { Cell::Number(text) } else { Cell::Other(text) }
            })
        }
    }
}
