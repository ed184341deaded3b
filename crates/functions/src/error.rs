//! From a failure inside DataFusion or Arrow to what the user reads.

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use millpond_types::{SqlError, SqlType};

/// The [`SqlError`] that a DataFusion error carries inside, or the nearest that describes it; never internals.
pub fn from_datafusion(error: DataFusionError) -> SqlError {
    let _ = error;
    unimplemented!()
}

/// As [`from_datafusion`].
pub fn from_arrow(error: ArrowError) -> SqlError {
    let _ = error;
    unimplemented!()
}

/// Carries a [`SqlError`] through DataFusion; [`from_datafusion`] takes it out unchanged.
pub fn into_datafusion(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A type in messages: `numeric` and `character varying` without their modifiers, as PostgreSQL shows arguments.
pub(crate) fn type_name(ty: &SqlType) -> String {
    match ty {
        SqlType::Numeric(..) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        SqlType::Array(element) => format!("{}[]", type_name(element)),
        other => other.to_string(),
    }
}
