//! Values in PostgreSQL's text form: what psql shows, COPY writes, and a literal or a CSV field holds.
//!
//! The type is looked at once per column: [`Formatter`] for writing, [`parse_column`] for reading.

use arrow::array::{ArrayRef, StringArray};
use datafusion::scalar::ScalarValue;
use millpond_types::{SqlError, SqlType};

/// Writes the values of one column.
pub struct Formatter<'a> {
    _array: &'a ArrayRef,
}

impl<'a> Formatter<'a> {
    /// A writer for `array`, whose SQL type is `ty`.
    ///
    /// # Errors
    /// XX000 if the array does not hold that type.
    pub fn new(array: &'a ArrayRef, ty: &SqlType) -> Result<Self, SqlError> {
        let _ = (array, ty);
        unimplemented!()
    }

    /// Appends the text of the value at `row` (UTF-8, unquoted, not escaped); `false`, and nothing appended, if it is NULL.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let _ = (row, out);
        unimplemented!()
    }
}

/// The column as text; NULL stays NULL.
///
/// # Errors
/// XX000 if the array does not hold that type.
pub fn format_array(array: &ArrayRef, ty: &SqlType) -> Result<StringArray, SqlError> {
    let _ = (array, ty);
    unimplemented!()
}

/// One value as text; `None` if it is NULL. For single values: a column has its [`Formatter`].
///
/// # Errors
/// XX000 if the value is not of that type.
pub fn format_scalar(value: &ScalarValue, ty: &SqlType) -> Result<Option<String>, SqlError> {
    let _ = (value, ty);
    unimplemented!()
}

/// A text that a type refused, and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Index into the texts, from 0.
    pub row: usize,
    pub error: SqlError,
}

/// Reads texts as `ty`; `None` is NULL. Lengths and precisions of the type apply (22001, 22003).
///
/// # Errors
/// The first text that the type refuses.
pub fn parse_column<'a>(
    texts: impl IntoIterator<Item = Option<&'a str>>,
    ty: &SqlType,
) -> Result<ArrayRef, ParseError> {
    let _ = (texts.into_iter().count(), ty);
    unimplemented!()
}

/// Reads one text.
///
/// # Errors
/// If the type refuses it.
pub fn parse_scalar(text: &str, ty: &SqlType) -> Result<ScalarValue, SqlError> {
    let _ = (text, ty);
    unimplemented!()
}
