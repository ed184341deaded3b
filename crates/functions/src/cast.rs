//! Casts of whole columns, with PostgreSQL's roundings and errors.

use arrow::array::ArrayRef;
use millpond_types::{SqlError, SqlType};

/// Why a value is converted: PostgreSQL cuts a text that is too long for varchar(n) when asked explicitly, and refuses it
/// (22001) when it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CastContext {
    Explicit,
    Assignment,
}

/// `array`, a column of type `from`, as `to`; NULL stays NULL.
///
/// # Errors
/// The first value that does not fit: 22P02, 22003, 22007, 22008, 22001; 42846 where PostgreSQL has no such cast.
pub fn cast_array(array: &ArrayRef, from: &SqlType, to: &SqlType, context: CastContext) -> Result<ArrayRef, SqlError> {
    let _ = (array, from, to, context);
    unimplemented!()
}
