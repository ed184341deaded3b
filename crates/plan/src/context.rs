//! Names to relations, functions and types: DataFusion's `ContextProvider` over one catalog snapshot.

use std::sync::Arc;

use datafusion::logical_expr::{ScalarUDF, TableSource};

/// Relations and functions that the engine supplies: pg_catalog, information_schema, millpond.*.
pub trait SystemTables: Send + Sync {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableSource>>;
    /// A scalar function that the registry of `millpond-functions` lacks (lower-case name, without a schema).
    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>>;
}
