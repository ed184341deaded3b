//! From the names of types in SQL to [`SqlType`].

use millpond_types::{SqlError, SqlType};
use sqlparser::ast::DataType;

/// The type that a cast, a column or a parameter names. `position` is where the name stands.
///
/// A bare `numeric` is `numeric(38,10)` in a cast; columns refuse it before they come here.
///
/// # Errors
/// 42704 `type "foo" does not exist`; 0A000 for PostgreSQL's types that Millpond lacks; 22023 for bad modifiers.
pub fn resolve(_ty: &DataType, _position: usize) -> Result<SqlType, SqlError> {
    unimplemented!()
}
